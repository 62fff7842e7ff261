//! A cursor over protobuf bytes: keys, varints, length-delimited values, and skipping of unknown
//! fields.
//!
//! Promises the same accept/reject decisions as `prost`: varints of at most 10 bytes and 64 bits,
//! keys of at most 32 bits, groups skipped with matched ends and bounded depth. One-byte keys and
//! lengths take a branch and nothing else. Leaves field meaning to `message`.

use crate::error::DecodeErrorKind::{
    self, BadGroup, BadKey, BadUtf8, BadVarint, TooDeep, Truncated, WrongWireType,
};

/// Wire type of varints.
pub(crate) const VARINT: u32 = 0;
/// Wire type of 8-byte values.
pub(crate) const FIXED64: u32 = 1;
/// Wire type of strings, bytes and messages.
pub(crate) const LEN: u32 = 2;
/// Wire type of a group's start.
pub(crate) const GROUP_START: u32 = 3;
/// Wire type of a group's end.
pub(crate) const GROUP_END: u32 = 4;
/// Wire type of 4-byte values.
pub(crate) const FIXED32: u32 = 5;

/// The key of a field: number and wire type as they stand on the wire.
pub(crate) const fn key(field: u32, wire_type: u32) -> u32 {
    field << 3 | wire_type
}

/// The unread part of a message.
#[derive(Clone, Copy)]
pub(crate) struct WireReader<'a> {
    rest: &'a [u8],
}

impl<'a> WireReader<'a> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        WireReader { rest: bytes }
    }

    /// The unread bytes.
    #[inline(always)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads the next key. An illegal field number or wire type is caught by [`WireReader::skip`],
    /// which gets every key that no message knows.
    #[inline(always)]
    pub(crate) fn key(&mut self) -> Result<u32, DecodeErrorKind> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u32::from(*first));
        }
        self.key_long()
    }

    #[cold]
    fn key_long(&mut self) -> Result<u32, DecodeErrorKind> {
        u32::try_from(self.varint()?).map_err(|_| BadKey)
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeErrorKind> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        self.varint_long()
    }

    /// Reads a varint of two bytes or more. As in all implementations, the tenth byte may only
    /// carry the 64th bit.
    #[inline]
    fn varint_long(&mut self) -> Result<u64, DecodeErrorKind> {
        // Up to 8 bytes at once: find the first byte without the continuation bit, drop the bytes
        // after it, and close the gaps between the groups of 7 bits pairwise.
        if let Some(chunk) = self.rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let bits = ends.trailing_zeros() + 1;
                let word = word & (u64::MAX >> (64 - bits));
                let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
                let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
                let word = (word & 0x0fff_ffff) | (word & 0x0fff_ffff_0000_0000) >> 4;
                self.rest = &self.rest[bits as usize / 8..];
                return Ok(word);
            }
        }
        self.varint_bytewise()
    }

    #[cold]
    fn varint_bytewise(&mut self) -> Result<u64, DecodeErrorKind> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            if index == 9 && *byte > 1 {
                return Err(BadVarint);
            }
            value |= u64::from(*byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            Truncated
        } else {
            BadVarint
        })
    }

    /// A length-delimited value.
    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeErrorKind> {
        // A length beyond usize cannot fit into the rest either.
        let length = usize::try_from(self.varint()?).map_err(|_| Truncated)?;
        let Some((value, rest)) = self.rest.split_at_checked(length) else {
            return Err(Truncated);
        };
        self.rest = rest;
        Ok(value)
    }

    /// A `string` field.
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeErrorKind> {
        std::str::from_utf8(self.bytes()?).map_err(|_| BadUtf8)
    }

    /// An `int32` or open enum: the lower half of the varint, as protobuf defines it.
    #[inline(always)]
    pub(crate) fn int32(&mut self) -> Result<i32, DecodeErrorKind> {
        Ok(self.varint()? as i32)
    }

    #[inline(always)]
    pub(crate) fn uint32(&mut self) -> Result<u32, DecodeErrorKind> {
        Ok(self.varint()? as u32)
    }

    #[inline(always)]
    pub(crate) fn boolean(&mut self) -> Result<bool, DecodeErrorKind> {
        Ok(self.varint()? != 0)
    }

    /// Skips a field that the message does not know. `known_max`: the message's fields are 1 to
    /// this number, so a key that gets here with such a number has the wrong wire type. `depth`:
    /// levels that may still be opened.
    #[cold]
    pub(crate) fn unknown(&mut self, key: u32, known_max: u32, depth: u32) -> Result<(), DecodeErrorKind> {
        if key & 7 <= FIXED32 && (1..=known_max).contains(&(key >> 3)) {
            return Err(WrongWireType);
        }
        self.skip(key, depth)
    }

    /// Skips a field of a message that has been validated before.
    pub(crate) fn skip_validated(&mut self, key: u32) -> Result<(), DecodeErrorKind> {
        self.skip(key, crate::limits::MESSAGE_DEPTH_MAX)
    }

    fn skip(&mut self, key: u32, depth: u32) -> Result<(), DecodeErrorKind> {
        if key >> 3 == 0 {
            return Err(BadKey);
        }
        if depth == 0 {
            return Err(TooDeep);
        }
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed(8),
            LEN => self.bytes().map(drop),
            FIXED32 => self.fixed(4),
            GROUP_START => loop {
                let inner = self.key()?;
                if inner & 7 == GROUP_END {
                    break if inner >> 3 == key >> 3 {
                        Ok(())
                    } else {
                        Err(BadGroup)
                    };
                }
                self.skip(inner, depth - 1)?;
            },
            GROUP_END => Err(BadGroup),
            _ => Err(BadKey),
        }
    }

    fn fixed(&mut self, length: usize) -> Result<(), DecodeErrorKind> {
        self.rest = self.rest.get(length..).ok_or(Truncated)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_read_as_prost_reads_them() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..200_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Continuation bits are set more often than not, so that all lengths come up.
            let mut bytes =
                (u128::from(random) << 64 | u128::from(random.rotate_left(round % 64))).to_le_bytes();
            for byte in bytes.iter_mut().take((random >> 32) as usize % 12) {
                *byte |= 0x80;
            }
            for length in [bytes.len(), (random >> 40) as usize % 12] {
                let mut expected_rest = &bytes[..length];
                let expected = prost::encoding::decode_varint(&mut expected_rest);
                let mut reader = WireReader::new(&bytes[..length]);
                match (reader.varint(), expected) {
                    (Ok(value), Ok(expected)) => {
                        assert_eq!(value, expected, "{:02x?}", &bytes[..length]);
                        assert_eq!(reader.rest(), expected_rest);
                    }
                    (Err(_), Err(_)) => {}
                    (got, expected) => panic!("{got:?}, prost: {expected:?}, {:02x?}", &bytes[..length]),
                }
            }
        }
    }
}
