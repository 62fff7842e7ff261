//! A logged write: the bytes that a shard puts into the log for one call, and reads back to apply
//! it.
//!
//! ```text
//! offset  bytes  field of format 3 (little endian)
//!      0      1  format: 3
//!      1      1  API, from 1; see `numbers_of`
//!      2      1  method of that API
//!      3      1  flags; none is used yet, and a record with one that is not known is not read
//!      4      2  shards among which a batch was divided; 0: the request is whole
//!      6      2  which of these parts this record is
//!      8      2  shard that made the stamp
//!     10      2  d: bytes of `decided`
//!     12      4  number of the gateway that made the stamp; 0 for none
//!     16      8  stamp, nanoseconds since 1970
//!     24      8  when the call was taken, milliseconds since 1970: times to live count from here
//!     32      8  the namespace's time to live in milliseconds, of a queue its terms; all ones for none
//!     40      4  identity of the caller; 0 for none. Written as 0 today
//!     44      4  target of a shadow, a second store that is given the record, too, and whose cursor is kept under this
//!                number; 0 for none. Written as 0 today
//!     48      d  what a store has decided already, in a form of the API's own; nothing if it has decided nothing
//!   48+d      n  the request message, as it came
//! ```
//!
//! Formats 1 and 2 are KeyValue's, and remain readable for ever:
//!
//! ```text
//!      0      1  format: 1; 2 with a version
//!      1      1  method: 0 Put, 2 Delete, 4 Mutate, 5 CompareAndSwap
//!      2     30  shards, part, shard of the stamp, stamp, time, time to live: as in format 3
//!     32     16  in format 2, of a CompareAndSwap that took place: `decided`
//!      …      n  the request message, as it came
//! ```
//!
//! The record holds everything that decides the effect of the write, so applying it twice, or after
//! a restart with another configuration, has the same effect. The namespace is the record's target.

use prism_backends::{NamespaceId, UnixMillis};
use prism_codec::method::{KeyValueMethod, Method, PubSubMethod, QueueMethod};

use super::{context::Context, owner::owner_of, ticket::Stamp};

/// Bytes in front of `decided` and the request message.
pub(crate) const HEADER_BYTES: usize = 48;

const FORMAT: u8 = 3;
const FORMAT_1: u8 = 1;
const FORMAT_2: u8 = 2;
/// Bytes in front of the rest in formats 1 and 2, and of the version in format 2.
const OLD_HEADER_BYTES: usize = 32;
const OLD_DECIDED_BYTES: usize = 16;
const NO_TTL: u64 = u64::MAX;

/// The part of a batch that one shard owns.
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

/// A write as logged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedWrite<'a> {
    pub(crate) method: Method,
    pub(crate) part: Option<Part>,
    /// Decision of a store about it, in a form of the API's own; empty if there is none.
    pub(crate) decided: &'a [u8],
    pub(crate) context: Context,
    pub(crate) body: &'a [u8],
}

/// A record that this version cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl<'a> LoggedWrite<'a> {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.decided.len() + self.body.len());
        let part = self.part.unwrap_or(Part { shards: 0, shard: 0 });
        let Context { stamp, .. } = self.context;
        debug_assert!(
            self.decided.len() <= usize::from(u16::MAX),
            "an API decides in a few bytes"
        );
        let mut header = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
        // Every logged method has numbers; a record of another would not be read.
        let [api, method] = numbers_of(self.method).unwrap_or_default();
        put(0, &[FORMAT, api, method]);
        put(4, &part.shards.to_le_bytes());
        put(6, &part.shard.to_le_bytes());
        put(8, &stamp.shard.to_le_bytes());
        put(10, &(self.decided.len() as u16).to_le_bytes());
        put(12, &stamp.gateway.to_le_bytes());
        put(16, &stamp.time_ns.to_le_bytes());
        put(24, &self.context.now.0.to_le_bytes());
        put(32, &self.context.default_ttl_ms.unwrap_or(NO_TTL).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(self.decided);
        bytes.extend_from_slice(self.body);
        bytes
    }

    /// Reads a record of `namespace`.
    pub(crate) fn decode(namespace: NamespaceId, bytes: &'a [u8]) -> Result<Self, Unreadable> {
        match bytes.first() {
            Some(&FORMAT) => Self::decode_3(namespace, bytes),
            Some(&(FORMAT_1 | FORMAT_2)) => Self::decode_1_or_2(namespace, bytes),
            _ => Err(Unreadable),
        }
    }

    fn decode_3(namespace: NamespaceId, bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Unreadable)?;
        let method = method_of([header[1], header[2]]).ok_or(Unreadable)?;
        if header[3] != 0 {
            return Err(Unreadable);
        }
        let decided = usize::from(u16_at(header, 10));
        let (decided, body) = rest.split_at_checked(decided).ok_or(Unreadable)?;
        Ok(Self {
            method,
            part: part_of(u16_at(header, 4), u16_at(header, 6))?,
            decided,
            context: Context {
                namespace,
                default_ttl_ms: Some(u64_at(header, 32)).filter(|ttl| *ttl != NO_TTL),
                now: UnixMillis(u64_at(header, 24)),
                stamp: Stamp {
                    time_ns: u64_at(header, 16).cast_signed(),
                    shard: u16_at(header, 8),
                    gateway: u32::from_le_bytes([header[12], header[13], header[14], header[15]]),
                },
            },
            body,
        })
    }

    fn decode_1_or_2(namespace: NamespaceId, bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (header, rest) = bytes.split_first_chunk::<OLD_HEADER_BYTES>().ok_or(Unreadable)?;
        let method = method_of([KEYVALUE, header[1]]).ok_or(Unreadable)?;
        let (decided, body) = match (header[0], method) {
            (FORMAT_1, _) => rest.split_at(0),
            (FORMAT_2, Method::KeyValue(KeyValueMethod::CompareAndSwap)) => {
                rest.split_at_checked(OLD_DECIDED_BYTES).ok_or(Unreadable)?
            }
            _ => return Err(Unreadable),
        };
        Ok(Self {
            method,
            part: part_of(u16_at(header, 2), u16_at(header, 4))?,
            decided,
            context: Context {
                namespace,
                default_ttl_ms: Some(u64_at(header, 24)).filter(|ttl| *ttl != NO_TTL),
                now: UnixMillis(u64_at(header, 16)),
                stamp: Stamp {
                    time_ns: u64_at(header, 8).cast_signed(),
                    shard: u16_at(header, 6),
                    gateway: 0,
                },
            },
            body,
        })
    }
}

fn u16_at(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}

fn u64_at(header: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&header[at..at + 8]);
    u64::from_le_bytes(word)
}

fn part_of(shards: u16, shard: u16) -> Result<Option<Part>, Unreadable> {
    match (shards, shard) {
        (0, 0) => Ok(None),
        _ if shard < shards => Ok(Some(Part { shards, shard })),
        _ => Err(Unreadable),
    }
}

const KEYVALUE: u8 = 1;
const PUBSUB: u8 = 2;
const QUEUE: u8 = 3;

/// Numbers of an API and of a method in it, for the methods that are logged. They stay the same
/// when methods are added, and are never reused.
fn numbers_of(method: Method) -> Option<[u8; 2]> {
    match method {
        Method::KeyValue(KeyValueMethod::Put) => Some([KEYVALUE, 0]),
        Method::KeyValue(KeyValueMethod::Delete) => Some([KEYVALUE, 2]),
        Method::KeyValue(KeyValueMethod::Mutate) => Some([KEYVALUE, 4]),
        Method::KeyValue(KeyValueMethod::CompareAndSwap) => Some([KEYVALUE, 5]),
        Method::PubSub(PubSubMethod::Publish) => Some([PUBSUB, 1]),
        Method::PubSub(PubSubMethod::PublishBatch) => Some([PUBSUB, 2]),
        Method::PubSub(PubSubMethod::ResetGroup) => Some([PUBSUB, 3]),
        Method::PubSub(PubSubMethod::DeleteGroup) => Some([PUBSUB, 4]),
        Method::Queue(QueueMethod::Send) => Some([QUEUE, 1]),
        Method::Queue(QueueMethod::SendBatch) => Some([QUEUE, 2]),
        Method::Queue(QueueMethod::Ack) => Some([QUEUE, 3]),
        Method::Queue(QueueMethod::Nack) => Some([QUEUE, 4]),
        Method::Queue(QueueMethod::Redrive) => Some([QUEUE, 5]),
        Method::Queue(QueueMethod::Delete) => Some([QUEUE, 6]),
        Method::KeyValue(KeyValueMethod::Get | KeyValueMethod::Scan)
        | Method::PubSub(PubSubMethod::Subscribe | PubSubMethod::Commit | PubSubMethod::ListGroups)
        | Method::Queue(
            QueueMethod::Receive | QueueMethod::Extend | QueueMethod::Peek | QueueMethod::Stats,
        )
        | Method::DeadLetters(_)
        | Method::Namespaces(_)
        | Method::Health(_)
        | Method::ServerReflection(_) => None,
    }
}

/// The method with these numbers.
fn method_of(numbers: [u8; 2]) -> Option<Method> {
    let method = match numbers {
        [KEYVALUE, 0] => KeyValueMethod::Put.into(),
        [KEYVALUE, 2] => KeyValueMethod::Delete.into(),
        [KEYVALUE, 4] => KeyValueMethod::Mutate.into(),
        [KEYVALUE, 5] => KeyValueMethod::CompareAndSwap.into(),
        [PUBSUB, 1] => PubSubMethod::Publish.into(),
        [PUBSUB, 2] => PubSubMethod::PublishBatch.into(),
        [PUBSUB, 3] => PubSubMethod::ResetGroup.into(),
        [PUBSUB, 4] => PubSubMethod::DeleteGroup.into(),
        [QUEUE, 1] => QueueMethod::Send.into(),
        [QUEUE, 2] => QueueMethod::SendBatch.into(),
        [QUEUE, 3] => QueueMethod::Ack.into(),
        [QUEUE, 4] => QueueMethod::Nack.into(),
        [QUEUE, 5] => QueueMethod::Redrive.into(),
        [QUEUE, 6] => QueueMethod::Delete.into(),
        _ => return None,
    };
    Some(method)
}

#[cfg(test)]
impl<'a> LoggedWrite<'a> {
    /// A whole write without a time to live, of a call at time 0.
    pub(crate) fn example(namespace: NamespaceId, method: impl Into<Method>, body: &'a [u8]) -> Self {
        Self {
            method: method.into(),
            part: None,
            decided: &[],
            context: Context {
                namespace,
                default_ttl_ms: None,
                now: UnixMillis(1),
                stamp: Stamp {
                    time_ns: 1,
                    shard: 0,
                    gateway: 0,
                },
            },
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use prism_codec::method::Effect;

    use super::*;

    fn write(body: &[u8]) -> LoggedWrite<'_> {
        LoggedWrite {
            method: KeyValueMethod::Mutate.into(),
            part: Some(Part { shards: 3, shard: 2 }),
            decided: &[],
            context: Context {
                namespace: NamespaceId(7),
                default_ttl_ms: Some(60_000),
                now: UnixMillis(1_700_000_000_123),
                stamp: Stamp {
                    time_ns: -5,
                    shard: 9,
                    gateway: 0xfeed_beef,
                },
            },
            body,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went_in() {
        let bytes = write(b"body").encode();
        let back = LoggedWrite::decode(NamespaceId(7), &bytes).unwrap();
        assert_eq!(back.method, KeyValueMethod::Mutate.into());
        assert_eq!(back.part, Some(Part { shards: 3, shard: 2 }));
        assert_eq!(back.context, write(b"").context);
        assert_eq!((back.decided, back.body), (&b""[..], &b"body"[..]));
        let whole = LoggedWrite {
            method: KeyValueMethod::CompareAndSwap.into(),
            part: None,
            decided: b"as it was decided",
            context: Context {
                default_ttl_ms: None,
                ..write(b"").context
            },
            ..write(b"body")
        };
        let bytes = whole.encode();
        let back = LoggedWrite::decode(NamespaceId(7), &bytes).unwrap();
        assert_eq!((back.part, back.context.default_ttl_ms), (None, None));
        assert_eq!((back.decided, back.body), (whole.decided, whole.body));
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
        assert!(with(0, 0) && with(0, 4), "another format");
        assert!(with(1, 0) && with(1, 9), "another API");
        assert!(with(2, 1), "a Get is no write");
        assert!(with(3, 1), "a flag that nobody knows");
        assert!(with(6, 3), "part 3 of 3");
        assert!(with(10, 2), "more is decided than there is");
        // Room for the fields of later versions, which change nothing for this one.
        assert!(!with(12, 1) && !with(40, 1) && !with(44, 1));
    }

    #[test]
    fn every_method_that_is_logged_has_numbers_of_its_own() {
        for method in Method::all() {
            let logged = matches!(method.spec().effect, Effect::Certain | Effect::Judged);
            let numbers = numbers_of(method);
            assert_eq!(numbers.is_some(), logged, "{}", method.spec().path);
            if let Some(numbers) = numbers {
                assert_eq!(method_of(numbers), Some(method), "{}", method.spec().path);
                assert_ne!(numbers[0], 0);
            }
        }
    }

    /// Records as written by earlier releases, byte for byte. They must be readable for ever.
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

    /// The same three records in format 3, byte for byte.
    const OF_FORMAT_3: [&str; 3] = [
        "0301000000000000010000000000000015cd853dfe9c97177b68e5cf8b010000005c2605000000000000000000000000\
         0a066c65646765721205616c69636522060a016b120176",
        "03010400030002000200000000000000fbffffffffffffff7b68e5cf8b010000ffffffffffffffff0000000000000000\
         0a066c65646765721a110a05616c69636512080a060a016b1201761a070a03626f621a00",
        "0301050000000000000010000000000007000000000000000900000000000000ffffffffffffffff0000000000000000\
         01002a36fe9c97178967452301efcdab0a066c65646765721205616c6963651a016b2a003a03120176",
    ];

    #[test]
    fn records_of_all_formats_are_read_and_those_of_the_newest_written() {
        let context = |default_ttl_ms, now, time_ns, shard| Context {
            namespace: NamespaceId(7),
            default_ttl_ms,
            now: UnixMillis(now),
            stamp: Stamp {
                time_ns,
                shard,
                gateway: 0,
            },
        };
        let whole = context(Some(86_400_000), 1_700_000_000_123, 1_700_000_000_123_456_789, 1);
        let part = Some(Part { shards: 3, shard: 2 });
        let of_part = context(None, 1_700_000_000_123, -5, 2);
        // The version of an item: 1,700,000,000,000,000,001 ns, hash abcd_ef01_2345_6789.
        let decided = bytes("01002a36fe9c97178967452301efcdab");
        let expected = [
            (OF_FORMAT_1, KeyValueMethod::Put, None, &[][..], whole),
            (PART_OF_FORMAT_1, KeyValueMethod::Mutate, part, &[], of_part),
            (
                OF_FORMAT_2,
                KeyValueMethod::CompareAndSwap,
                None,
                &decided,
                context(None, 9, 7, 0),
            ),
        ];
        for ((old, method, part, decided, context), new) in expected.into_iter().zip(OF_FORMAT_3) {
            let (old, new) = (bytes(old), bytes(new));
            for record in [&old, &new] {
                let record = LoggedWrite::decode(NamespaceId(7), record).expect("a readable record");
                assert_eq!((record.method, record.part), (method.into(), part));
                assert_eq!((record.decided, record.context), (decided, context));
                assert_eq!(record.encode(), new, "{method:?}");
            }
        }
    }
}
