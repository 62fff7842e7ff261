//! Compression of messages to send: gzip and zstd, at their fastest useful level.
//!
//! Promises to leave a message alone where compression gains next to nothing, and to find that out
//! on its first bytes. The state of both compressors (some hundred KiB each) is made with the first
//! message and reused: one [`Compressor`] serves a thread.

use std::fmt;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::Encoding;

/// Length in bytes from which a sample of the message is compressed first.
const SAMPLED_BYTES_MIN: usize = 64 << 10;
/// Bytes of that sample.
const SAMPLE_BYTES: usize = 8 << 10;
/// Percentage that compression must save for the message to be sent compressed.
const SAVED_PERCENT_MIN: usize = 5;
/// The fastest level above the negative ones: JSON takes two thirds of the bytes that gzip needs,
/// in twice the time.
const ZSTD_LEVEL: i32 = 1;
/// Window of 32 KiB (RFC 1952 has no other).
const GZIP_WINDOW_BITS: u8 = 15;

/// Compressor of one message after the other.
#[derive(Default)]
pub struct Compressor {
    gzip: Option<Compress>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// Appends the compressed message and returns true. Returns false, with `out` unchanged, where
    /// it is not worth it or `encoding` is none that we write.
    pub fn compress(&mut self, encoding: Encoding, message: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if message.len() >= SAMPLED_BYTES_MIN {
            let gains = self.write(encoding, &message[..SAMPLE_BYTES], out)
                && is_gain(SAMPLE_BYTES, out.len() - start);
            out.truncate(start);
            if !gains {
                return false;
            }
        }
        let gains = self.write(encoding, message, out) && is_gain(message.len(), out.len() - start);
        if !gains {
            out.truncate(start);
        }
        gains
    }

    fn write(&mut self, encoding: Encoding, message: &[u8], out: &mut Vec<u8>) -> bool {
        match encoding {
            Encoding::Gzip => self.write_gzip(message, out),
            Encoding::Zstd => self.write_zstd(message, out),
            Encoding::Identity | Encoding::Deflate => false,
        }
    }

    fn write_gzip(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool {
        let level = Compression::fast();
        let compress = self
            .gzip
            .get_or_insert_with(|| Compress::new_gzip(level, GZIP_WINDOW_BITS));
        compress.reset();
        // Deflate's stored blocks add 5 bytes to each 16 KiB at most, gzip 18.
        out.reserve(message.len() + message.len() / 1_024 + 64);
        loop {
            let used = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
            let rest = message.get(used..).unwrap_or_default();
            match compress.compress_vec(rest, out, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return true,
                Ok(Status::Ok | Status::BufError) => out.reserve(message.len() / 8 + 1_024),
                Err(_) => return false,
            }
        }
    }

    fn write_zstd(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let Some(zstd) = &mut self.zstd else { return false };
        let start = out.len();
        out.resize(start + zstd::zstd_safe::compress_bound(message.len()), 0);
        match zstd.compress_to_buffer(message, &mut out[start..]) {
            Ok(length) => {
                out.truncate(start + length);
                true
            }
            Err(_) => false,
        }
    }
}

fn is_gain(before: usize, after: usize) -> bool {
    after < before - before * SAVED_PERCENT_MIN / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::decompress;

    /// Bytes that no compressor shortens, from a seed.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    #[test]
    fn what_goes_out_comes_back() {
        let mut compressor = Compressor::default();
        for length in [300, 20_000, 70_000, 3 << 20] {
            let message: Vec<u8> = (0..length).map(|index| (index % 251 / 7) as u8).collect();
            for encoding in [Encoding::Gzip, Encoding::Zstd, Encoding::Gzip] {
                let mut out = b"before".to_vec();
                assert!(
                    compressor.compress(encoding, &message, &mut out),
                    "{encoding:?} {length}"
                );
                assert!(out.starts_with(b"before") && out.len() < length);
                let mut back = Vec::new();
                assert_eq!(decompress(encoding, &out[6..], length, &mut back), Ok(()));
                assert!(back == message, "{encoding:?} {length}");
            }
        }
    }

    #[test]
    fn what_gains_nothing_is_left_alone() {
        let mut compressor = Compressor::default();
        for length in [0, 1, 300, 20_000, 200_000] {
            for encoding in [
                Encoding::Identity,
                Encoding::Deflate,
                Encoding::Gzip,
                Encoding::Zstd,
            ] {
                let mut out = b"before".to_vec();
                assert!(
                    !compressor.compress(encoding, &noise(length), &mut out),
                    "{encoding:?} {length}"
                );
                assert_eq!(out, b"before");
            }
        }
    }
}
