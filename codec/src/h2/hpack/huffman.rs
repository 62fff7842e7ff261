//! The Huffman code of HPACK (RFC 7541 section 5.2 and Appendix B).
//!
//! The code is canonical: codes of one length are consecutive in the order of their symbols, and
//! shorter codes come first. So the 257 code lengths determine it, and the compiler derives every
//! table from them.
//!
//! Decoding looks up [`FAST_BITS`] bits at once, which gives one or two of the symbols that are
//! common in header fields. Other codes (13 to 30 bits) are found by comparison with the first code
//! of each length. The work per input byte is bounded, whatever the input.

use super::HpackError;

/// The end-of-string symbol, which may only ever appear as padding.
const EOS: usize = 256;
const LONGEST: usize = 30;

/// Number of bits looked up at once. Twelve hold two lower-case letters or digits most of the time;
/// the table takes 16 KiB, of which header fields use a small part.
const FAST_BITS: usize = 12;

/// Appends the decoded form of `source`.
///
/// # Errors
/// [`HpackError::HuffmanEos`] if the end-of-string symbol occurs; [`HpackError::HuffmanPadding`] if
/// the padding after the last symbol is longer than 7 bits or not all ones. `out` then holds the
/// symbols decoded before.
pub(super) fn decode(source: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let start = out.len();
    // The shortest code has 5 bits. The fast loop always writes two symbols, even where the second
    // is none.
    out.resize(start + source.len() * 8 / 5 + 2, 0);
    let mut bits = Bits {
        window: 0,
        count: 0,
        source,
    };
    let (written, result) = decode_into(&mut bits, &mut out[start..]);
    out.truncate(start + written);
    result
}

fn decode_into(bits: &mut Bits<'_>, room: &mut [u8]) -> (usize, Result<(), HpackError>) {
    let mut written = 0;
    loop {
        bits.refill();
        loop {
            let Short { symbols, count, len } = FAST[(bits.window >> (64 - FAST_BITS)) as usize];
            // Bits beyond `count` never make an entry this short.
            if usize::from(len) > bits.count {
                break;
            }
            bits.skip(usize::from(len));
            room[written..][..2].copy_from_slice(&symbols);
            written += usize::from(count);
        }
        if bits.count < LONGEST && !bits.source.is_empty() {
            continue;
        }
        // A code longer than the table's, or near the end.
        let (symbol, len) = any_code(bits.padded());
        if len > bits.count {
            return (written, bits.check_padding());
        }
        let Ok(symbol) = u8::try_from(symbol) else {
            return (written, Err(HpackError::HuffmanEos));
        };
        bits.skip(len);
        room[written] = symbol;
        written += 1;
    }
}

/// The bits of the source not yet decoded.
struct Bits<'a> {
    /// The next bits, the first of them on top. The bits below `count` are zeros, or bits that the
    /// source will deliver again.
    window: u64,
    /// Number of valid bits in the window: at most 63.
    count: usize,
    source: &'a [u8],
}

impl Bits<'_> {
    /// Fills the window to 56 bits or more, or with all that are left.
    #[inline]
    fn refill(&mut self) {
        if let Some(next) = self.source.first_chunk::<8>() {
            self.window |= u64::from_be_bytes(*next) >> self.count;
            let taken = (63 - self.count) / 8;
            self.source = &self.source[taken..];
            self.count += taken * 8;
            return;
        }
        while self.count < 56
            && let Some((&byte, rest)) = self.source.split_first()
        {
            self.window |= u64::from(byte) << (56 - self.count);
            self.source = rest;
            self.count += 8;
        }
    }

    #[inline]
    fn skip(&mut self, len: usize) {
        self.window <<= len;
        self.count -= len;
    }

    /// The window with ones after the last bit.
    fn padded(&self) -> u64 {
        self.window | (u64::MAX >> self.count)
    }

    /// Checks the bits after the last whole symbol: the first bits of the end-of-string code, all
    /// ones, and shorter than a byte.
    fn check_padding(&self) -> Result<(), HpackError> {
        if self.count <= 7 && self.padded() == u64::MAX {
            Ok(())
        } else {
            Err(HpackError::HuffmanPadding)
        }
    }
}

/// The symbol whose code is on top of the window, and the code's length.
const fn any_code(window: u64) -> (usize, usize) {
    let mut len = 5;
    // The last limit is above every window, so the loop ends at the longest code.
    while (window >> 32) >= CODES.limits[len] {
        len += 1;
    }
    let top = (window >> (64 - len)) as u32;
    let position = CODES.positions[len] + (top - CODES.first[len]) as usize;
    (CODES.order[position] as usize, len)
}

/// Number of bytes of the code of `source`.
pub(super) fn encoded_len(source: &[u8]) -> usize {
    let bits: usize = source
        .iter()
        .map(|&byte| usize::from(LENGTHS[usize::from(byte)]))
        .sum();
    bits.div_ceil(8)
}

/// Appends the code of `source`, padded to whole bytes with ones.
pub(super) fn encode(source: &[u8], out: &mut Vec<u8>) {
    // At most 31 bits wait when a code of up to 30 arrives: they fit.
    let (mut window, mut count) = (0_u64, 0_u32);
    for &byte in source {
        let len = u32::from(LENGTHS[usize::from(byte)]);
        window = (window << len) | u64::from(CODES.codes[usize::from(byte)]);
        count += len;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((window >> count) as u32).to_be_bytes());
        }
    }
    let padding = count.wrapping_neg() % 8;
    window = (window << padding) | ((1 << padding) - 1);
    count += padding;
    while count > 0 {
        count -= 8;
        out.push((window >> count) as u8);
    }
}

/// The symbols at the start of the next [`FAST_BITS`] bits: one, or two if both fit.
#[derive(Clone, Copy)]
struct Short {
    symbols: [u8; 2],
    count: u8,
    /// Number of bits of all its symbols; [`Short::NONE`] has more than any window.
    len: u8,
}

impl Short {
    /// A code longer than [`FAST_BITS`].
    const NONE: Self = Self {
        symbols: [0; 2],
        count: 0,
        len: u8::MAX,
    };
}

/// Indexed by the next [`FAST_BITS`] bits.
static FAST: [Short; 1 << FAST_BITS] = short_codes();

const fn short_codes() -> [Short; 1 << FAST_BITS] {
    let mut fast = [Short::NONE; 1 << FAST_BITS];
    let mut at = 0;
    while at < fast.len() {
        let window = (at as u64) << (64 - FAST_BITS);
        let (first, first_len) = any_code(window);
        if first_len <= FAST_BITS {
            let (second, second_len) = any_code(window << first_len);
            let len = first_len + second_len;
            fast[at] = if len <= FAST_BITS {
                Short {
                    symbols: [first as u8, second as u8],
                    count: 2,
                    len: len as u8,
                }
            } else {
                Short {
                    symbols: [first as u8, 0],
                    count: 1,
                    len: first_len as u8,
                }
            };
        }
        at += 1;
    }
    fast
}

/// The code, derived from its lengths.
struct Codes {
    /// Symbols by code.
    order: [u16; EOS + 1],
    /// Codes by symbol, right-aligned.
    codes: [u32; EOS + 1],
    /// First code of each length, right-aligned.
    first: [u32; LONGEST + 1],
    /// Start in `order` of each length's symbols.
    positions: [usize; LONGEST + 1],
    /// For each length, the 32 bits (left-aligned) at which longer codes begin.
    limits: [u64; LONGEST + 1],
}

static CODES: Codes = derive_codes();

const fn derive_codes() -> Codes {
    let mut derived = Codes {
        order: [0; EOS + 1],
        codes: [0; EOS + 1],
        first: [0; LONGEST + 1],
        positions: [0; LONGEST + 1],
        limits: [0; LONGEST + 1],
    };
    let (mut code, mut position, mut len) = (0_u32, 0, 1);
    while len <= LONGEST {
        code <<= 1;
        derived.first[len] = code;
        derived.positions[len] = position;
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol] as usize == len {
                derived.order[position] = symbol as u16;
                derived.codes[symbol] = code;
                position += 1;
                code += 1;
            }
            symbol += 1;
        }
        derived.limits[len] = (code as u64) << (32 - len);
        len += 1;
    }
    assert!(position == EOS + 1, "every symbol has a code");
    assert!(
        code == 1 << LONGEST,
        "the code is complete: every bit string begins with a code"
    );
    derived
}

/// Length in bits of each symbol's code (RFC 7541 Appendix B); the last is the end of string.
#[rustfmt::skip]
static LENGTHS: [u8; EOS + 1] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(source: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = b"kept".to_vec();
        decode(source, &mut out)?;
        Ok(out.split_off(4))
    }

    fn encoded(source: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(source, &mut out);
        assert_eq!(out.len(), encoded_len(source));
        out
    }

    #[test]
    fn codes_are_those_of_the_appendix() {
        // One of each length that the appendix uses for a symbol, and the end of string.
        for (symbol, code, len) in [
            (b'0', 0x0, 5),
            (b' ', 0x14, 6),
            (b':', 0x5c, 7),
            (b'&', 0xf8, 8),
            (b'!', 0x3f8, 10),
            (b'+', 0x7fb, 11),
            (b'#', 0xffa, 12),
            (b'~', 0x1ffd, 13),
            (b'^', 0x3ffc, 14),
            (b'{', 0x7ffe, 15),
            (b'\\', 0x7fff0, 19),
            (128, 0xfffe6, 20),
            (153, 0x1fffdc, 21),
            (129, 0x3fffd2, 22),
            (1, 0x7fffd8, 23),
            (9, 0xffffea, 24),
            (199, 0x1ffffec, 25),
            (192, 0x3ffffe0, 26),
            (203, 0x7ffffde, 27),
            (2, 0xfffffe2, 28),
            (22, 0x3ffffffe, 30),
        ] {
            let at = usize::from(symbol);
            assert_eq!((CODES.codes[at], LENGTHS[at]), (code, len), "symbol {symbol}");
        }
        assert_eq!((CODES.codes[EOS], LENGTHS[EOS]), (0x3fff_ffff, 30));
    }

    #[test]
    fn every_pair_of_bytes_comes_back() {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                let pair = [first, second];
                assert_eq!(decoded(&encoded(&pair)).as_deref(), Ok(pair.as_slice()));
            }
        }
    }

    #[test]
    fn strings_of_every_length_come_back() {
        for len in 0..300_usize {
            for symbol in [b'0', b'a', b'X', b'#', 0, 0xff] {
                let mut source = vec![symbol; len];
                source.extend_from_slice(&[b'e'; 3][..len % 4 % 3]);
                assert_eq!(decoded(&encoded(&source)).as_deref(), Ok(source.as_slice()));
            }
        }
    }

    #[test]
    fn end_of_string_is_refused() {
        for source in [
            &[0xff, 0xff, 0xff, 0xff][..],
            &[0xff; 64],
            &[0x00, 0xff, 0xff, 0xff, 0xff, 0x00],
        ] {
            assert_eq!(decoded(source), Err(HpackError::HuffmanEos));
        }
    }

    #[test]
    fn padding_must_be_ones_and_short() {
        // '0' is 00000: three bits of padding.
        assert_eq!(decoded(&[0b0000_0111]).as_deref(), Ok(b"0".as_slice()));
        for wrong in 0b000..0b111 {
            assert_eq!(decoded(&[wrong]), Err(HpackError::HuffmanPadding), "{wrong:03b}");
        }
        // Padding of one byte, two, three: a decoder must not accept several forms of a string.
        for longer in 1..=3 {
            let mut source = vec![0b0000_0111];
            source.resize(1 + longer, 0xff);
            assert_eq!(
                decoded(&source),
                Err(HpackError::HuffmanPadding),
                "{longer} bytes"
            );
        }
        // A long code cut in its middle.
        let whole = encoded(&[22]);
        for len in 1..whole.len() {
            assert_eq!(
                decoded(&whole[..len]),
                Err(HpackError::HuffmanPadding),
                "{len} bytes"
            );
        }
        assert_eq!(decoded(&[]).as_deref(), Ok(b"".as_slice()));
    }

    /// The decoder agrees with one that walks the code bit by bit, on every input of two bytes and
    /// on random longer ones.
    #[test]
    fn agrees_with_a_decoder_bit_by_bit() {
        for source in 0..=u16::MAX {
            let source = source.to_be_bytes();
            assert_eq!(decoded(&source), bit_by_bit(&source), "{source:02x?}");
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000_usize {
            let source: Vec<u8> = (0..round % 23)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    // Half of the bytes are ones, which lead to the long codes.
                    if state >> 63 == 1 {
                        0xff
                    } else {
                        (state >> 40) as u8
                    }
                })
                .collect();
            assert_eq!(decoded(&source), bit_by_bit(&source), "{source:02x?}");
        }
    }

    fn bit_by_bit(source: &[u8]) -> Result<Vec<u8>, HpackError> {
        let (mut out, mut code, mut len) = (Vec::new(), 0_u32, 0_u8);
        for at in 0..source.len() * 8 {
            code = code << 1 | u32::from(source[at / 8] >> (7 - at % 8) & 1);
            len += 1;
            let found = (0..=EOS).find(|&symbol| (CODES.codes[symbol], LENGTHS[symbol]) == (code, len));
            match found {
                Some(EOS) => return Err(HpackError::HuffmanEos),
                Some(symbol) => {
                    out.push(symbol as u8);
                    (code, len) = (0, 0);
                }
                None => {}
            }
        }
        if len > 7 || code != (1 << len) - 1 {
            Err(HpackError::HuffmanPadding)
        } else {
            Ok(out)
        }
    }
}
