//! Contents of a value: the identity of the write that made it, so that a wrong, swapped, torn or
//! stale answer shows.
//!
//! Layout: magic (4 bytes), item number (u16), number of items in the write (u16), key number
//! (u64), sequence (u64), all little-endian, then a filler that is a function of all of these and
//! of the length. A value shorter than the header is its prefix. So each value proves whose it is,
//! which write it came from, and that none of its bytes were altered.

use std::fmt;

use crate::{
    call::Seen,
    random::{Random, mix64},
};

/// Bytes of the header. Only values at least this long carry their sequence.
pub const HEADER_BYTES: u32 = 24;

const SEQUENCE_PLACE: usize = 16;
const MAGIC: [u8; 4] = *b"PrLg";
const FILLER_BYTES: usize = 64 << 10;
const FILLER_RUN: usize = FILLER_BYTES / 2;

/// Which write a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the key, that is of the id.
    pub key: u64,
    /// Number of the item within the id.
    pub item: u16,
    /// How many items the write has; those from 0 up to this change together. With
    /// [`crate::call::SWAP_MARK`] if the write is a compare-and-swap.
    pub items: u16,
    /// The write: its generation time in nanoseconds, unique per write.
    pub sequence: u64,
}

/// Why a value is not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongValue {
    /// Not a value of this program.
    Foreign,
    /// The value of another id: an answer was swapped or data was mixed up.
    OtherKey {
        /// The key that the value was written to.
        key: u64,
    },
    /// The value of another item of the right id.
    OtherItem {
        /// Which item's value it is.
        item: u16,
    },
    /// The right header, but bytes after it are altered, missing or added.
    Damaged,
}

impl fmt::Display for WrongValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "a value that this program did not write"),
            Self::OtherKey { key } => write!(f, "the value of another id (key {key})"),
            Self::OtherItem { item } => write!(f, "the value of another item ({item})"),
            Self::Damaged => write!(f, "a value whose bytes are damaged"),
        }
    }
}

/// Makes and checks values. The filler block is the same in every process, so that one run can
/// check another's data.
#[derive(Clone, Debug)]
pub struct Values {
    filler: Box<[u8]>,
}

impl Default for Values {
    fn default() -> Self {
        let mut random = Random::new(0x5052_4953_4D21, 0);
        let filler = (0..FILLER_BYTES / 8)
            .flat_map(|_| random.bits().to_le_bytes())
            .collect();
        Self { filler }
    }
}

impl Values {
    /// Appends the value of the given write, `len` bytes long.
    pub fn write(&self, stamp: Stamp, len: u32, out: &mut Vec<u8>) {
        let len = len as usize;
        let header = header(stamp);
        let head = len.min(header.len());
        out.extend_from_slice(&header[..head]);
        let mut left = len - head;
        let mut run = 0;
        while left > 0 {
            let part = self.filler_run(stamp, len, run, left);
            out.extend_from_slice(part);
            left -= part.len();
            run += 1;
        }
    }

    /// Checks a value that should belong to `key` and `item`. Returns the facts in it about the
    /// write that made it, or `None` when the value is too short for them; then only the part of
    /// the header that it holds was checked.
    pub fn check(&self, key: u64, item: u16, value: &[u8]) -> Result<Option<Seen>, WrongValue> {
        let Some((head, mut rest)) = value.split_at_checked(HEADER_BYTES as usize) else {
            return check_short(key, item, value);
        };
        let items = u16::from_le_bytes([head[6], head[7]]);
        let sequence = word(&head[SEQUENCE_PLACE..]);
        let stamp = Stamp {
            key,
            item,
            items,
            sequence,
        };
        if head != header(stamp) {
            return Err(difference(key, item, value));
        }
        let mut run = 0;
        while !rest.is_empty() {
            let part = self.filler_run(stamp, value.len(), run, rest.len());
            if rest[..part.len()] != *part {
                return Err(WrongValue::Damaged);
            }
            rest = &rest[part.len()..];
            run += 1;
        }
        Ok(Some(Seen {
            sequence,
            items,
            value_bytes: value.len() as u32,
        }))
    }

    /// The `run`-th stretch of filler of a value: a window of the block, at a place that all of the
    /// stamp decides.
    fn filler_run(&self, stamp: Stamp, len: usize, run: u64, left: usize) -> &[u8] {
        let numbers = u64::from(stamp.item) << 48 ^ u64::from(stamp.items) << 32 ^ len as u64;
        let place = mix64(mix64(stamp.key ^ stamp.sequence.rotate_left(23)) ^ numbers ^ run << 40);
        let start = (place as usize) % FILLER_RUN;
        &self.filler[start..start + left.min(FILLER_RUN)]
    }
}

fn header(stamp: Stamp) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&stamp.item.to_le_bytes());
    header[6..8].copy_from_slice(&stamp.items.to_le_bytes());
    header[8..16].copy_from_slice(&stamp.key.to_le_bytes());
    header[16..].copy_from_slice(&stamp.sequence.to_le_bytes());
    header
}

/// A value that ends within the header: what is known beforehand is compared, as far as it goes.
fn check_short(key: u64, item: u16, value: &[u8]) -> Result<Option<Seen>, WrongValue> {
    let expected = header(Stamp {
        key,
        item,
        items: 0,
        sequence: 0,
    });
    let known = (0..value.len().min(SEQUENCE_PLACE)).filter(|place| !(6..8).contains(place));
    for place in known {
        if value[place] != expected[place] {
            return Err(difference(key, item, value));
        }
    }
    Ok(None)
}

/// Says in which way the identity differs; the cold half of `check`.
#[cold]
fn difference(key: u64, item: u16, value: &[u8]) -> WrongValue {
    if value.len() < SEQUENCE_PLACE || value[..4] != MAGIC {
        return WrongValue::Foreign;
    }
    let other_key = word(&value[8..]);
    let other_item = u16::from_le_bytes([value[4], value[5]]);
    if other_key != key {
        WrongValue::OtherKey { key: other_key }
    } else if other_item != item {
        WrongValue::OtherItem { item: other_item }
    } else {
        WrongValue::Damaged
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_accepted_unaltered() {
        let values = Values::default();
        let mut random = Random::new(17, 0);
        for len in (0..300).chain([4_096, 32_768, 70_000, 1 << 20]) {
            let (item, items) = (random.below(1_000) as u16, random.below(1_000) as u16);
            let stamp = Stamp {
                key: random.bits(),
                item,
                items,
                sequence: random.bits(),
            };
            let mut value = Vec::new();
            values.write(stamp, len, &mut value);
            assert_eq!(value.len(), len as usize);
            let seen = Seen {
                sequence: stamp.sequence,
                items,
                value_bytes: len,
            };
            let expected = (len >= HEADER_BYTES).then_some(seen);
            assert_eq!(
                values.check(stamp.key, item, &value),
                Ok(expected),
                "length {len}"
            );
        }
    }

    #[test]
    fn any_altered_byte_is_found() {
        let values = Values::default();
        let stamp = Stamp {
            key: 77,
            item: 3,
            items: 5,
            sequence: 123_456_789,
        };
        let mut value = Vec::new();
        values.write(stamp, 200, &mut value);
        for place in 0..value.len() {
            let mut altered = value.clone();
            altered[place] ^= 0x10;
            assert!(values.check(77, 3, &altered).is_err(), "byte {place}");
        }
    }

    #[test]
    fn short_values_are_checked_as_far_as_they_go() {
        let values = Values::default();
        let mut value = Vec::new();
        values.write(
            Stamp {
                key: 1 << 40,
                item: 7,
                items: 8,
                sequence: 5,
            },
            15,
            &mut value,
        );
        assert_eq!(values.check(1 << 40, 7, &value), Ok(None));
        assert!(values.check(1 << 40 | 1, 7, &value).is_err());
        assert!(values.check(1 << 40, 6, &value).is_err());
        assert_eq!(values.check(1, 0, b""), Ok(None));
    }

    #[test]
    fn shortened_and_lengthened_values_are_found() {
        let values = Values::default();
        let mut value = Vec::new();
        values.write(
            Stamp {
                key: 1,
                item: 0,
                items: 1,
                sequence: 5,
            },
            100,
            &mut value,
        );
        assert_eq!(values.check(1, 0, &value[..99]), Err(WrongValue::Damaged));
        value.push(0);
        assert_eq!(values.check(1, 0, &value), Err(WrongValue::Damaged));
    }

    #[test]
    fn a_swapped_value_names_its_owner() {
        let values = Values::default();
        let mut value = Vec::new();
        values.write(
            Stamp {
                key: 9,
                item: 2,
                items: 3,
                sequence: 5,
            },
            64,
            &mut value,
        );
        assert_eq!(values.check(8, 2, &value), Err(WrongValue::OtherKey { key: 9 }));
        assert_eq!(values.check(9, 1, &value), Err(WrongValue::OtherItem { item: 2 }));
        assert_eq!(
            values.check(9, 2, b"hello, this is somebody else's"),
            Err(WrongValue::Foreign)
        );
    }
}
