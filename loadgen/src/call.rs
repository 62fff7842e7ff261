//! One call: what it asks, which write it makes, and which mischief the client does to it on the
//! way.

use prism_codec::method::{Effect, KeyValueMethod};

use crate::{mix::Operation, random::Random};

/// Disturbance of a call by the client, on purpose, to see whether the server keeps its answers
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Resets the stream when the headers are sent and before the message is complete.
    CancelEarly,
    /// Resets the stream right after the whole request.
    CancelSent,
    /// Resets the stream after a while, if it is not answered by then.
    CancelLater {
        /// How long after sending, in nanoseconds.
        after_ns: u64,
    },
    /// Resets the stream when the response's headers arrive.
    CancelAnswered,
    /// Drops the whole connection after a while, with all its streams.
    Disconnect {
        /// How long after sending, in nanoseconds.
        after_ns: u64,
    },
}

impl Fault {
    /// Draws the disturbance of a call: of all calls these shares are cancelled and lose their
    /// connection.
    pub fn draw(random: &mut Random, cancel: f64, disconnect: f64) -> Option<Self> {
        // From 10 µs to 10 ms, each power of ten as likely: before, during and after the answer of
        // most servers.
        let after_ns = |random: &mut Random| (10_000.0 * 10f64.powf(3.0 * random.unit())) as u64;
        if random.chance(disconnect) {
            return Some(Self::Disconnect {
                after_ns: after_ns(random),
            });
        }
        if !random.chance(cancel) {
            return None;
        }
        Some(match random.below(4) {
            0 => Self::CancelEarly,
            1 => Self::CancelSent,
            2 => Self::CancelAnswered,
            _ => Self::CancelLater {
                after_ns: after_ns(random),
            },
        })
    }
}

/// A value that was seen in an answer, enough to make it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The write that made it.
    pub sequence: u64,
    /// How many items that write had, with [`SWAP_MARK`] if it was a compare-and-swap.
    pub items: u16,
    /// Bytes of the value.
    pub value_bytes: u32,
}

/// Set in the number of items of a value that a compare-and-swap wrote. A swap is ordered by its
/// expectation and not by its generation time: it may rightly stand where a write with a later time
/// was before.
pub const SWAP_MARK: u16 = 0x8000;

impl Seen {
    /// How many items the write had.
    pub fn item_count(&self) -> u16 {
        self.items & !SWAP_MARK
    }

    /// Whether a compare-and-swap wrote it.
    pub fn by_swap(&self) -> bool {
        self.items & SWAP_MARK != 0
    }
}

/// Where a call stands that takes two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One request is all.
    Only,
    /// Cas: the Get before.
    Read,
    /// Cas: the CompareAndSwap against what was read; `None`: against absence.
    Swap(Option<Seen>),
}

/// One call. Everything in the request follows from it, so that nothing but this is kept while it
/// is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The kind of request.
    pub operation: Operation,
    /// Where it stands.
    pub step: Step,
    /// Number of the key; of a mutate, of the first one.
    pub key: u64,
    /// Generation time in nanoseconds and name of the write; of a read, when it was made.
    pub sequence: u64,
    /// Bytes of each value that is written.
    pub value_bytes: u32,
    /// Items asked for at most (range and scan).
    pub item_limit: u32,
    /// The newest write of the key that was acknowledged before this call was made; 0 if unknown.
    pub floor: u64,
    /// The client's disturbance of it.
    pub fault: Option<Fault>,
}

impl Call {
    /// The method of its next request.
    pub fn method(&self) -> KeyValueMethod {
        match (self.operation, self.step) {
            (_, Step::Swap(_)) => KeyValueMethod::CompareAndSwap,
            (Operation::Put | Operation::Insert, _) => KeyValueMethod::Put,
            (Operation::Get | Operation::Range | Operation::Cas, _) => KeyValueMethod::Get,
            (Operation::Scan, _) => KeyValueMethod::Scan,
            (Operation::Delete, _) => KeyValueMethod::Delete,
            (Operation::Mutate, _) => KeyValueMethod::Mutate,
        }
    }

    /// Whether its next request changes data.
    pub fn writes(&self) -> bool {
        self.method().spec().effect != Effect::None
    }
}

/// The id of a key number, `user` and at least twelve digits, in a buffer on the stack.
#[derive(Clone, Copy, Debug)]
pub struct KeyName {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl KeyName {
    const PREFIX: &'static [u8] = b"user";
    const DIGITS_MIN: usize = 12;
    /// The prefix and the 20 digits of the greatest number.
    const BYTES_MAX: usize = 24;

    /// The id of key number `key`.
    pub fn new(key: u64) -> Self {
        let mut bytes = [b'0'; Self::BYTES_MAX];
        bytes[..4].copy_from_slice(Self::PREFIX);
        let digits = (key.checked_ilog10().unwrap_or(0) as usize + 1).max(Self::DIGITS_MIN);
        let len = 4 + digits;
        let (mut rest, mut place) = (key, len);
        while rest > 0 {
            place -= 1;
            bytes[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self {
            bytes,
            len: len as u8,
        }
    }

    /// The id as a string.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("only ASCII was written")
    }

    /// The key number of an id; `None` for ids that this program did not make.
    pub fn parse(id: &str) -> Option<u64> {
        let digits = id.strip_prefix("user")?;
        let plain = digits.len() >= Self::DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_digit());
        let key = digits.parse().ok().filter(|_| plain)?;
        (Self::new(key).as_str() == id).then_some(key)
    }
}

/// The key of an item by its number: `f` and four digits.
pub const fn item_key(item: u16) -> [u8; 5] {
    [
        b'f',
        digit(item, 1_000),
        digit(item, 100),
        digit(item, 10),
        digit(item, 1),
    ]
}

const fn digit(number: u16, scale: u16) -> u8 {
    b'0' + (number / scale % 10) as u8
}

/// The number of an item by its key; `None` for keys that this program did not make.
pub fn item_number(key: &[u8]) -> Option<u16> {
    match key {
        [b'f', digits @ ..] if digits.len() == 4 && digits.iter().all(u8::is_ascii_digit) => Some(
            digits
                .iter()
                .fold(0, |number, digit| number * 10 + u16::from(digit - b'0')),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        assert_eq!(KeyName::new(0).as_str(), "user000000000000");
        assert_eq!(KeyName::new(1_234).as_str(), "user000000001234");
        for key in [0, 9, 10, 99, 100, 999_999_999_999, 1_000_000_000_000, u64::MAX] {
            assert_eq!(KeyName::parse(KeyName::new(key).as_str()), Some(key));
        }
        for foreign in [
            "",
            "user",
            "user1",
            "user00000000000x",
            "other00000000001",
            "user0000000000001",
            "user+00000000001",
        ] {
            assert_eq!(KeyName::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn item_keys_are_read_back_and_sorted() {
        for item in 0..1_000u16 {
            assert_eq!(item_number(&item_key(item)), Some(item));
        }
        assert!((1..1_000).all(|item| item_key(item - 1) < item_key(item)));
        assert_eq!(item_number(b"f12"), None);
        assert_eq!(item_number(b"g0012"), None);
    }
}
