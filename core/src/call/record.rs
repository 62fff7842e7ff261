//! A logged write: what the gateway puts into the log for one call, and reads back when it is applied.
//!
//! ```text
//! offset  bytes  field (little endian)
//!      0      1  format: 1; 2 with a version
//!      1      1  method: 0 Put, 2 Delete, 4 Mutate, 5 CompareAndSwap
//!      2      2  shards among which a Mutate was divided; 0: the request is whole
//!      4      2  which of these parts this record is
//!      6      2  shard that made the stamp
//!      8      8  stamp, nanoseconds since 1970
//!     16      8  when the call was taken, milliseconds since 1970: times to live count from here
//!     24      8  the namespace's time to live in milliseconds; all ones for none
//!     32     16  in format 2, of a CompareAndSwap that took place: the version that the item has from it, nanoseconds since
//!                1970 and hash of the token
//!      …      n  the request message, as it came
//! ```
//!
//! Everything that decides what the write does is in it, so applying it twice, or after a restart with another
//! configuration, does the same. The namespace is the record's target.

use prism_backends::{NamespaceId, UnixMillis, Version};
use prism_codec::method::{Effect, KeyValueMethod};

use super::{context::Context, owner::owner_of, ticket::Stamp};

/// Bytes in front of the request message.
pub(crate) const HEADER_BYTES: usize = 32;

const FORMAT: u8 = 1;
const FORMAT_WITH_VERSION: u8 = 2;
const VERSION_BYTES: usize = 16;
const NO_TTL: u64 = u64::MAX;

/// The part of a Mutate that one shard owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) shards: u16,
    pub(crate) shard: u16,
}

impl Part {
    /// Whether an id belongs to this part.
    pub(crate) fn owns(self, namespace: NamespaceId, id: &str) -> bool {
        owner_of(namespace, id, self.shards) == self.shard
    }
}

/// A write as it is logged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedWrite<'a> {
    pub(crate) method: KeyValueMethod,
    pub(crate) part: Option<Part>,
    /// Of a compare-and-swap that a store has decided: the version of what it wrote there. It is then applied as a plain write.
    pub(crate) swapped_at: Option<Version>,
    pub(crate) context: Context,
    pub(crate) body: &'a [u8],
}

/// A record that this version cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl<'a> LoggedWrite<'a> {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + VERSION_BYTES + self.body.len());
        let part = self.part.unwrap_or(Part { shards: 0, shard: 0 });
        bytes.push(match self.swapped_at {
            None => FORMAT,
            Some(_) => FORMAT_WITH_VERSION,
        });
        bytes.push(number_of(self.method));
        bytes.extend_from_slice(&part.shards.to_le_bytes());
        bytes.extend_from_slice(&part.shard.to_le_bytes());
        bytes.extend_from_slice(&self.context.stamp.shard.to_le_bytes());
        bytes.extend_from_slice(&self.context.stamp.time_ns.to_le_bytes());
        bytes.extend_from_slice(&self.context.now.0.to_le_bytes());
        bytes.extend_from_slice(&self.context.default_ttl_ms.unwrap_or(NO_TTL).to_le_bytes());
        if let Some(version) = self.swapped_at {
            bytes.extend_from_slice(&version.generation_time_ns.to_le_bytes());
            bytes.extend_from_slice(&version.token_hash.to_le_bytes());
        }
        bytes.extend_from_slice(self.body);
        bytes
    }

    /// Reads a record of `namespace`.
    pub(crate) fn decode(namespace: NamespaceId, bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Unreadable)?;
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u64_at = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let method = method_of(header[1]).ok_or(Unreadable)?;
        let (swapped_at, body) = match (header[0], method) {
            (FORMAT, _) => (None, rest),
            (FORMAT_WITH_VERSION, KeyValueMethod::CompareAndSwap) => {
                let (time, rest) = rest.split_first_chunk().ok_or(Unreadable)?;
                let (hash, body) = rest.split_first_chunk().ok_or(Unreadable)?;
                let version = Version {
                    generation_time_ns: i64::from_le_bytes(*time),
                    token_hash: u64::from_le_bytes(*hash),
                };
                (Some(version), body)
            }
            _ => return Err(Unreadable),
        };
        let part = match (u16_at(2), u16_at(4)) {
            (0, 0) => None,
            (shards, shard) if shard < shards => Some(Part { shards, shard }),
            _ => return Err(Unreadable),
        };
        let context = Context {
            namespace,
            default_ttl_ms: Some(u64_at(24)).filter(|ttl| *ttl != NO_TTL),
            now: UnixMillis(u64_at(16)),
            stamp: Stamp {
                time_ns: u64_at(8).cast_signed(),
                shard: u16_at(6),
            },
        };
        Ok(Self {
            method,
            part,
            swapped_at,
            context,
            body,
        })
    }
}

/// The number of a method in a record. It stays what it is when methods are added.
fn number_of(method: KeyValueMethod) -> u8 {
    match method {
        KeyValueMethod::Put => 0,
        KeyValueMethod::Get => 1,
        KeyValueMethod::Delete => 2,
        KeyValueMethod::Scan => 3,
        KeyValueMethod::Mutate => 4,
        KeyValueMethod::CompareAndSwap => 5,
    }
}

/// The method that a record may hold under this number: one that writes.
fn method_of(number: u8) -> Option<KeyValueMethod> {
    let writes = |method: &&KeyValueMethod| {
        let effect = method.spec().effect;
        matches!(effect, Effect::Certain | Effect::Judged)
    };
    let mut all = KeyValueMethod::ALL.iter().filter(writes);
    all.find(|method| number_of(**method) == number).copied()
}

#[cfg(test)]
impl<'a> LoggedWrite<'a> {
    /// A whole write without a time to live, of a call that came at the very beginning.
    pub(crate) fn example(namespace: NamespaceId, method: KeyValueMethod, body: &'a [u8]) -> Self {
        Self {
            method,
            part: None,
            swapped_at: None,
            context: Context {
                namespace,
                default_ttl_ms: None,
                now: UnixMillis(1),
                stamp: Stamp { time_ns: 1, shard: 0 },
            },
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(body: &[u8]) -> LoggedWrite<'_> {
        LoggedWrite {
            method: KeyValueMethod::Mutate,
            part: Some(Part { shards: 3, shard: 2 }),
            swapped_at: None,
            context: Context {
                namespace: NamespaceId(7),
                default_ttl_ms: Some(60_000),
                now: UnixMillis(1_700_000_000_123),
                stamp: Stamp {
                    time_ns: -5,
                    shard: 9,
                },
            },
            body,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went_in() {
        let bytes = write(b"body").encode();
        let back = LoggedWrite::decode(NamespaceId(7), &bytes).unwrap();
        assert_eq!(back.method, KeyValueMethod::Mutate);
        assert_eq!(back.part, Some(Part { shards: 3, shard: 2 }));
        assert_eq!(back.context.default_ttl_ms, Some(60_000));
        assert_eq!(back.context.now, UnixMillis(1_700_000_000_123));
        assert_eq!((back.context.stamp.time_ns, back.context.stamp.shard), (-5, 9));
        assert_eq!(back.body, b"body");
        assert_eq!(back.swapped_at, None);
        let version = Version::new(-7, b"token");
        let whole = LoggedWrite {
            method: KeyValueMethod::CompareAndSwap,
            part: None,
            swapped_at: Some(version),
            context: Context {
                default_ttl_ms: None,
                ..write(b"").context
            },
            ..write(b"body")
        };
        let bytes = whole.encode();
        let back = LoggedWrite::decode(NamespaceId(7), &bytes).unwrap();
        assert_eq!((back.part, back.context.default_ttl_ms), (None, None));
        assert_eq!((back.swapped_at, back.body), (Some(version), &b"body"[..]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = write(b"x").encode();
        for length in 0..HEADER_BYTES {
            assert!(LoggedWrite::decode(NamespaceId(1), &good[..length]).is_err());
        }
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            LoggedWrite::decode(NamespaceId(1), &bytes).is_err()
        };
        assert!(with(0, 3), "another format");
        assert!(with(0, 2), "only a swap has a version");
        assert!(with(1, 1), "a Get is no write");
        assert!(with(4, 3), "part 3 of 3");
    }

    /// Records as the releases before wrote them, byte for byte. They must be readable for ever.
    const OF_FORMAT_1: &str = "010000000000010015cd853dfe9c97177b68e5cf8b010000005c2605000000000a066c65646765721205616c69636522\
         060a016b120176";
    const PART_OF_FORMAT_1: &str = "0104030002000200fbffffffffffffff7b68e5cf8b010000ffffffffffffffff0a066c65646765721a110a05616c6963\
         6512080a060a016b1201761a070a03626f621a00";
    const OF_FORMAT_2: &str = "020500000000000007000000000000000900000000000000ffffffffffffffff01002a36fe9c97178967452301efcdab\
         0a066c65646765721205616c6963651a016b2a003a03120176";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    #[test]
    fn records_of_the_formats_before_are_read_and_written_as_they_were() {
        let context = |default_ttl_ms, now, time_ns, shard| Context {
            namespace: NamespaceId(7),
            default_ttl_ms,
            now: UnixMillis(now),
            stamp: Stamp { time_ns, shard },
        };
        let whole = context(Some(86_400_000), 1_700_000_000_123, 1_700_000_000_123_456_789, 1);
        let part = Some(Part { shards: 3, shard: 2 });
        let decided = Version {
            generation_time_ns: 1_700_000_000_000_000_001,
            token_hash: 0xabcd_ef01_2345_6789,
        };
        let expected = [
            (OF_FORMAT_1, KeyValueMethod::Put, None, None, whole),
            (
                PART_OF_FORMAT_1,
                KeyValueMethod::Mutate,
                part,
                None,
                context(None, 1_700_000_000_123, -5, 2),
            ),
            (
                OF_FORMAT_2,
                KeyValueMethod::CompareAndSwap,
                None,
                Some(decided),
                context(None, 9, 7, 0),
            ),
        ];
        for (hex, method, part, swapped_at, context) in expected {
            let bytes = bytes(hex);
            let record = LoggedWrite::decode(NamespaceId(7), &bytes).expect("a readable record");
            assert_eq!(
                (record.method, record.part, record.swapped_at),
                (method, part, swapped_at)
            );
            assert_eq!(record.context, context);
            assert_eq!(record.encode(), bytes, "{method:?}");
        }
    }
}
