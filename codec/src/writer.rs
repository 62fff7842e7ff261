//! Primitives of the protobuf encoders: append keys, varints and values to the caller's buffer.
//!
//! Promises minimal varints and fields in ascending order, so equal values give equal bytes, the
//! same that `prost` writes. Sizes of nested messages are computed beforehand where that is cheap;
//! [`open`] and [`close`] are for messages whose content is not known at their start.

use crate::reader::{LEN, VARINT, key};

/// Number of bytes of a varint.
#[inline(always)]
pub(crate) const fn varint_len(value: u64) -> usize {
    // 7 payload bits per byte: ceil(bits / 7) without a division, at least 1.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

/// Number of bytes of a length-delimited field with a one-byte key.
#[inline(always)]
pub(crate) const fn len_field_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

/// Number of bytes of a `bytes` or `string` field that is left out when empty.
#[inline(always)]
pub(crate) const fn bytes_len(value: &[u8]) -> usize {
    if value.is_empty() {
        0
    } else {
        len_field_len(value.len())
    }
}

/// Number of bytes of a varint field that is left out when 0.
#[inline(always)]
pub(crate) const fn varint_field_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

#[inline(always)]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        put_varint_long(out, value);
    }
}

/// Makes the varint on the stack and appends it at once: one check of the capacity per varint, not
/// per byte.
fn put_varint_long(out: &mut Vec<u8>, mut value: u64) {
    let mut bytes = [0; 10];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    out.extend_from_slice(&bytes[..=length]);
}

/// Key and length of a length-delimited field; its content follows.
#[inline(always)]
pub(crate) fn put_len_key(out: &mut Vec<u8>, field: u32, length: usize) {
    debug_assert!(field < 16, "the encoders' size arithmetic assumes one-byte keys");
    out.push(key(field, LEN) as u8);
    put_varint(out, length as u64);
}

/// A `bytes` or `string` field, written even when empty (members of a oneof, elements of a repeated
/// field).
#[inline(always)]
pub(crate) fn put_bytes_always(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_len_key(out, field, value.len());
    out.extend_from_slice(value);
}

/// A `bytes` or `string` field, left out when empty.
#[inline(always)]
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        put_bytes_always(out, field, value);
    }
}

/// A varint field, left out when 0. Negative `int32` values come sign-extended to 64 bits.
#[inline(always)]
pub(crate) fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    debug_assert!(field < 16);
    if value != 0 {
        out.push(key(field, VARINT) as u8);
        put_varint(out, value);
    }
}

/// A message whose length is not yet known; made by [`open`], ended by [`close`].
#[derive(Clone, Copy)]
#[must_use]
pub(crate) struct Open {
    content: usize,
}

/// Bytes kept free for the length. Two suffice for 128 bytes to 16 KiB, the common page entry;
/// other contents are shifted.
const LENGTH_BYTES_GUESS: usize = 2;

/// Begins a length-delimited field of unknown length.
pub(crate) fn open(out: &mut Vec<u8>, field: u32) -> Open {
    out.push(key(field, LEN) as u8);
    out.extend_from_slice(&[0; LENGTH_BYTES_GUESS]);
    Open { content: out.len() }
}

/// Ends the field that [`open`] began: writes the length, moving the content where the guess was
/// wrong.
pub(crate) fn close(out: &mut Vec<u8>, open: Open) {
    let length = out.len() - open.content;
    let needed = varint_len(length as u64);
    let start = open.content - LENGTH_BYTES_GUESS;
    if needed < LENGTH_BYTES_GUESS {
        out.copy_within(open.content.., start + needed);
        out.truncate(start + needed + length);
    } else if needed > LENGTH_BYTES_GUESS {
        let end = out.len();
        out.resize(end + needed - LENGTH_BYTES_GUESS, 0);
        out.copy_within(open.content..end, start + needed);
    }
    let mut rest = length as u64;
    for byte in &mut out[start..start + needed] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start + needed - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_minimal_and_their_length_is_known_beforehand() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                assert_eq!(out.len(), prost::encoding::encoded_len_varint(value), "{value}");
            }
        }
    }

    #[test]
    fn closing_patches_every_size_of_length() {
        for length in [0usize, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = vec![7];
            let message = open(&mut out, 4);
            out.extend((0..length).map(|index| index as u8));
            close(&mut out, message);
            let mut expected = vec![7];
            let content: Vec<u8> = (0..length).map(|index| index as u8).collect();
            put_bytes_always(&mut expected, 4, &content);
            assert!(out == expected, "length {length}");
        }
    }
}
