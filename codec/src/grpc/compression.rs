//! Decompression of received messages: gzip, deflate and zstd. [`super::Compressor`] compresses
//! those that are sent.
//!
//! Promises that the inflated size is bounded while inflating, so that a bomb costs at most the
//! limit. Every message is a stream of its own, as gRPC has it.

use std::{fmt, io::Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::Code;

/// Value of our `grpc-accept-encoding` and `accept-encoding`.
pub const ACCEPT_ENCODING: &str = "identity,gzip,deflate,zstd";

/// Compression of the messages of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Encoding {
    /// No compression.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950; accepted in requests, never used for replies. RFC 1951 without the frame of 1950,
    /// which some clients send under this name, is accepted as well.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// The encoding of a `grpc-encoding` or `content-encoding` header. `None`: answer
    /// `UNIMPLEMENTED` with `grpc-accept-encoding: ` [`ACCEPT_ENCODING`].
    pub fn parse(name: &[u8]) -> Option<Encoding> {
        match name {
            b"identity" => Some(Encoding::Identity),
            b"gzip" => Some(Encoding::Gzip),
            b"deflate" => Some(Encoding::Deflate),
            b"zstd" => Some(Encoding::Zstd),
            _ => None,
        }
    }

    /// The header's value.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
            Encoding::Zstd => "zstd",
        }
    }
}

/// The reason why a message could not be inflated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecompressError {
    /// A message larger than allowed.
    TooLarge {
        /// The most bytes allowed.
        max: usize,
    },
    /// Bytes that are not of this encoding.
    Malformed(Encoding),
    /// A message marked as compressed, on a stream that named no encoding.
    NoEncoding,
}

impl DecompressError {
    /// The status to answer with.
    pub fn code(&self) -> Code {
        match self {
            DecompressError::TooLarge { .. } => Code::ResourceExhausted,
            DecompressError::Malformed(_) => Code::InvalidArgument,
            DecompressError::NoEncoding => Code::Internal,
        }
    }
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecompressError::TooLarge { max } => {
                write!(
                    f,
                    "the message is larger than the limit of {max} bytes once decompressed"
                )
            }
            DecompressError::Malformed(encoding) => write!(f, "the message is not valid {}", encoding.name()),
            DecompressError::NoEncoding => {
                f.write_str("a message is marked as compressed, but the request names no encoding")
            }
        }
    }
}

impl std::error::Error for DecompressError {}

/// Appends the inflated message to `out`, at most `max` bytes. On an error `out` is as it was.
pub fn decompress(
    encoding: Encoding,
    bytes: &[u8],
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let before = out.len();
    let result = match encoding {
        Encoding::Identity => Err(DecompressError::NoEncoding),
        Encoding::Gzip => inflate(MultiGzDecoder::new(bytes), encoding, max, out),
        Encoding::Deflate if has_zlib_header(bytes) => inflate(ZlibDecoder::new(bytes), encoding, max, out),
        Encoding::Deflate => inflate(DeflateDecoder::new(bytes), encoding, max, out),
        Encoding::Zstd => inflate_zstd(bytes, max, out),
    };
    if result.is_err() {
        out.truncate(before);
    }
    result
}

fn inflate(
    source: impl Read,
    encoding: Encoding,
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let before = out.len();
    // One byte more than allowed distinguishes "exactly at the limit" from "beyond".
    let allowed = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    source
        .take(allowed)
        .read_to_end(out)
        .map_err(|_| DecompressError::Malformed(encoding))?;
    if out.len() - before > max {
        Err(DecompressError::TooLarge { max })
    } else {
        Ok(())
    }
}

/// Method 8 and a check value over two bytes (RFC 1950, 2.2).
fn has_zlib_header(bytes: &[u8]) -> bool {
    matches!(bytes, [method, flags, ..]
        if method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0)
}

/// One or more frames, as the zstd tools write them; skippable frames are passed over.
fn inflate_zstd(bytes: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
    const MALFORMED: DecompressError = DecompressError::Malformed(Encoding::Zstd);
    let before = out.len();
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(after) = skippable_frame(rest)? {
            rest = after;
            continue;
        }
        // The frame's header sizes the window, which is memory; a legal one may be gigabytes.
        if window_bytes(rest).ok_or(MALFORMED)? > max.max(ZSTD_WINDOW_BYTES_MIN) as u64 {
            return Err(DecompressError::TooLarge { max });
        }
        let left = max - (out.len() - before);
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).map_err(|_| MALFORMED)?;
        inflate(&mut decoder, Encoding::Zstd, left, out).map_err(|error| match error {
            DecompressError::TooLarge { .. } => DecompressError::TooLarge { max },
            other => other,
        })?;
    }
    if bytes.is_empty() { Err(MALFORMED) } else { Ok(()) }
}

/// Least window that every decoder should support (RFC 8878, 3.1.1.1.2): 8 MiB.
const ZSTD_WINDOW_BYTES_MIN: usize = 8 << 20;

/// The bytes after a skippable frame (RFC 8878, 3.1.2), or `None` if this is another frame.
fn skippable_frame(bytes: &[u8]) -> Result<Option<&[u8]>, DecompressError> {
    let Some((magic, after)) = bytes.split_first_chunk::<4>() else {
        return Err(DecompressError::Malformed(Encoding::Zstd));
    };
    if !(0x184D_2A50..=0x184D_2A5F).contains(&u32::from_le_bytes(*magic)) {
        return Ok(None);
    }
    let rest = after
        .split_first_chunk::<4>()
        .and_then(|(length, content)| content.get(u32::from_le_bytes(*length) as usize..));
    rest.map(Some).ok_or(DecompressError::Malformed(Encoding::Zstd))
}

/// The window that a frame's header requests, in bytes (RFC 8878, 3.1.1.1).
fn window_bytes(frame: &[u8]) -> Option<u64> {
    let descriptor = *frame.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let byte = *frame.get(5)?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..size_bytes].copy_from_slice(frame.get(5 + dictionary_bytes..5 + dictionary_bytes + size_bytes)?);
    // Two-byte sizes begin at 256.
    Some(u64::from_le_bytes(size).saturating_add(if size_bytes == 2 { 256 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        written_by(GzEncoder::new(Vec::new(), Compression::fast()), bytes)
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        written_by(ZlibEncoder::new(Vec::new(), Compression::fast()), bytes)
    }

    fn written_by<W: Write + Finish>(mut encoder: W, bytes: &[u8]) -> Vec<u8> {
        encoder.write_all(bytes).expect("a Vec takes everything");
        encoder.finished()
    }

    /// A common interface: the encoders of flate2 have no trait for this.
    trait Finish {
        fn finished(self) -> Vec<u8>;
    }

    impl Finish for GzEncoder<Vec<u8>> {
        fn finished(self) -> Vec<u8> {
            self.finish().expect("a Vec takes everything")
        }
    }

    impl Finish for ZlibEncoder<Vec<u8>> {
        fn finished(self) -> Vec<u8> {
            self.finish().expect("a Vec takes everything")
        }
    }

    impl Finish for DeflateEncoder<Vec<u8>> {
        fn finished(self) -> Vec<u8> {
            self.finish().expect("a Vec takes everything")
        }
    }

    fn all_forms(bytes: &[u8]) -> [(Encoding, Vec<u8>); 3] {
        [
            (Encoding::Gzip, gzip(bytes)),
            (Encoding::Deflate, zlib(bytes)),
            (Encoding::Zstd, zstd(bytes)),
        ]
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn messages_come_back_and_limits_are_exact() {
        for message in [&b""[..], b"a", b"hello hello hello hello", &[3; 100_000]] {
            for (encoding, bytes) in all_forms(message) {
                let mut out = b"before".to_vec();
                assert_eq!(
                    decompress(encoding, &bytes, message.len(), &mut out),
                    Ok(()),
                    "{encoding:?}"
                );
                assert_eq!(&out[6..], message);
                if let Some(less) = message.len().checked_sub(1) {
                    let mut out = b"before".to_vec();
                    let error = decompress(encoding, &bytes, less, &mut out);
                    assert_eq!(
                        error,
                        Err(DecompressError::TooLarge { max: less }),
                        "{encoding:?}"
                    );
                    assert_eq!(out, b"before");
                }
            }
        }
    }

    #[test]
    fn deflate_without_its_frame_is_taken_too() {
        let raw = written_by(
            DeflateEncoder::new(Vec::new(), Compression::fast()),
            b"hello hello hello",
        );
        let mut out = Vec::new();
        assert_eq!(decompress(Encoding::Deflate, &raw, 100, &mut out), Ok(()));
        assert_eq!(out, b"hello hello hello");
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let zeros = vec![0; 64 << 20];
        for (encoding, bytes) in all_forms(&zeros) {
            let mut out = Vec::new();
            let max = 1 << 20;
            assert_eq!(
                decompress(encoding, &bytes, max, &mut out),
                Err(DecompressError::TooLarge { max })
            );
            assert!(
                out.capacity() <= 4 * max,
                "{encoding:?} took {} bytes",
                out.capacity()
            );
        }
        // A zstd frame whose header requests a window of gigabytes.
        let greedy = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00];
        let error = decompress(Encoding::Zstd, &greedy, 1 << 20, &mut Vec::new());
        assert_eq!(error, Err(DecompressError::TooLarge { max: 1 << 20 }));
    }

    #[test]
    fn damaged_bytes_are_refused_without_panic() {
        let message: Vec<u8> = (0..2_000u32)
            .flat_map(|number| (number * number).to_le_bytes())
            .collect();
        for (encoding, bytes) in all_forms(&message) {
            for cut in 0..bytes.len() {
                let mut out = Vec::new();
                assert!(
                    decompress(encoding, &bytes[..cut], 1 << 20, &mut out).is_err(),
                    "{encoding:?} cut at {cut}"
                );
                assert!(out.is_empty());
            }
            for position in (0..bytes.len()).step_by(7) {
                let mut damaged = bytes.clone();
                damaged[position] ^= 0x55;
                // The bytes may be valid by chance; decoding must not panic or exceed the limit.
                let mut out = Vec::new();
                let _ = decompress(encoding, &damaged, 1 << 20, &mut out);
                assert!(out.len() <= 1 << 20);
            }
        }
        assert_eq!(
            decompress(Encoding::Identity, b"x", 9, &mut Vec::new()),
            Err(DecompressError::NoEncoding)
        );
    }
}
