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

use super::{context::Context, method::Method, owner::owner_of, ticket::Stamp};

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
    pub(crate) method: Method,
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
        bytes.push(self.method as u8);
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
        let method = match header[1] {
            0 => Method::Put,
            2 => Method::Delete,
            4 => Method::Mutate,
            5 => Method::CompareAndSwap,
            _ => return Err(Unreadable),
        };
        let (swapped_at, body) = match (header[0], method) {
            (FORMAT, _) => (None, rest),
            (FORMAT_WITH_VERSION, Method::CompareAndSwap) => {
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

#[cfg(test)]
impl<'a> LoggedWrite<'a> {
    /// A whole write without a time to live, of a call that came at the very beginning.
    pub(crate) fn example(namespace: NamespaceId, method: Method, body: &'a [u8]) -> Self {
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
            method: Method::Mutate,
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
        assert_eq!(back.method, Method::Mutate);
        assert_eq!(back.part, Some(Part { shards: 3, shard: 2 }));
        assert_eq!(back.context.default_ttl_ms, Some(60_000));
        assert_eq!(back.context.now, UnixMillis(1_700_000_000_123));
        assert_eq!((back.context.stamp.time_ns, back.context.stamp.shard), (-5, 9));
        assert_eq!(back.body, b"body");
        assert_eq!(back.swapped_at, None);
        let version = Version::new(-7, b"token");
        let whole = LoggedWrite {
            method: Method::CompareAndSwap,
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
}
