//! The 5-byte prefix: cuts a stream of DATA bytes into messages.
//!
//! Promises no copy when a message lies whole in one slice, and memory only for bytes that have
//! arrived, never for a length that a prefix announces. Leaves decompression to
//! [`super::decompress`].

use super::Code;
use std::fmt;

/// Bytes before each message: a flag (1: compressed) and the length, big-endian.
pub const PREFIX_BYTES: usize = 5;

/// Appends the prefix of an uncompressed or compressed message of `length` bytes.
///
/// # Panics
/// Never: lengths beyond 32 bits, which no limit allows, are written as the greatest length.
pub fn put_prefix(out: &mut Vec<u8>, compressed: bool, length: usize) {
    out.push(u8::from(compressed));
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

/// One message as it was framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Whether `bytes` are compressed by the stream's `grpc-encoding`.
    pub compressed: bool,
    /// The message.
    pub bytes: &'a [u8],
}

/// A cutter of one stream's DATA into messages. It buffers only messages that arrive in pieces, and
/// reuses that buffer.
#[derive(Debug, Default)]
pub struct Deframer {
    /// Prefix and first bytes of an incomplete message.
    partial: Vec<u8>,
    /// Whether the partial message was handed out; it is dropped at the next call.
    handed_out: bool,
    message_max: usize,
}

impl Deframer {
    /// Makes a deframer for messages of at most `message_max` bytes on the wire.
    pub fn new(message_max: usize) -> Self {
        Deframer::with_buffer(message_max, Vec::new())
    }

    /// Like [`Deframer::new`], with a buffer from a pool; its content is dropped.
    pub fn with_buffer(message_max: usize, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Deframer {
            partial: buffer,
            handed_out: false,
            message_max,
        }
    }

    /// Gives the buffer back to a pool.
    pub fn into_buffer(self) -> Vec<u8> {
        self.partial
    }

    /// The next complete message, consumed from the front of `data`. `None`: all of `data` is
    /// consumed, and more is needed. Call until `None` for each DATA event.
    pub fn next<'m, 'd: 'm>(&'m mut self, data: &mut &'d [u8]) -> Result<Option<Frame<'m>>, DeframeError> {
        if self.handed_out {
            self.handed_out = false;
            self.partial.clear();
        }
        if self.partial.is_empty() {
            match parse_prefix(data, self.message_max)? {
                Some((compressed, length)) if data.len() - PREFIX_BYTES >= length => {
                    let (framed, rest) = data.split_at(PREFIX_BYTES + length);
                    *data = rest;
                    return Ok(Some(Frame {
                        compressed,
                        bytes: &framed[PREFIX_BYTES..],
                    }));
                }
                _ if data.is_empty() => return Ok(None),
                _ => {}
            }
        }
        self.accumulate(data)
    }

    /// Whether the stream may end here: no message is incomplete.
    pub fn finish(&self) -> Result<(), DeframeError> {
        if self.partial.is_empty() || self.handed_out {
            Ok(())
        } else {
            Err(DeframeError::Truncated)
        }
    }

    /// Bytes held for an incomplete message.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.len()
    }

    #[cold]
    fn accumulate(&mut self, data: &mut &[u8]) -> Result<Option<Frame<'_>>, DeframeError> {
        self.take(data, PREFIX_BYTES);
        let Some((compressed, length)) = parse_prefix(&self.partial, self.message_max)? else {
            return Ok(None);
        };
        self.take(data, PREFIX_BYTES + length);
        if self.partial.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.handed_out = true;
        Ok(Some(Frame {
            compressed,
            bytes: &self.partial[PREFIX_BYTES..],
        }))
    }

    /// Moves bytes from `data` until `partial` has `wanted` of them.
    fn take(&mut self, data: &mut &[u8], wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len()).min(data.len());
        let (taken, rest) = data.split_at(missing);
        self.partial.extend_from_slice(taken);
        *data = rest;
    }
}

/// Flag and length, if the prefix is complete.
#[inline]
fn parse_prefix(data: &[u8], message_max: usize) -> Result<Option<(bool, usize)>, DeframeError> {
    let Some((prefix, _)) = data.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [flag, length @ ..] = *prefix;
    if flag > 1 {
        return Err(DeframeError::BadFlag(flag));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > message_max {
        return Err(DeframeError::TooLarge {
            length,
            max: message_max,
        });
    }
    Ok(Some((flag == 1, length)))
}

/// The reason why a stream's DATA is not a sequence of messages. The stream cannot continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeframeError {
    /// A message longer than allowed.
    TooLarge {
        /// Announced, in bytes.
        length: usize,
        /// Allowed, in bytes.
        max: usize,
    },
    /// A flag other than 0 and 1.
    BadFlag(u8),
    /// The stream ended within a message.
    Truncated,
}

impl DeframeError {
    /// The status to answer with.
    pub fn code(&self) -> Code {
        match self {
            DeframeError::TooLarge { .. } => Code::ResourceExhausted,
            DeframeError::BadFlag(_) | DeframeError::Truncated => Code::Internal,
        }
    }
}

impl fmt::Display for DeframeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeframeError::TooLarge { length, max } => {
                write!(
                    f,
                    "message of {length} bytes is larger than the limit of {max} bytes"
                )
            }
            DeframeError::BadFlag(flag) => {
                write!(f, "message begins with flag {flag}; only 0 and 1 are defined")
            }
            DeframeError::Truncated => f.write_str("the request ended within a message"),
        }
    }
}

impl std::error::Error for DeframeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            put_prefix(&mut out, false, message.len());
            out.extend_from_slice(message);
        }
        out
    }

    #[test]
    fn every_split_of_a_stream_gives_the_same_messages() {
        let messages: [&[u8]; 5] = [b"", b"a", b"hello world", b"", &[7; 40]];
        let stream = framed(&messages);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut deframer = Deframer::new(64);
                let mut got = Vec::new();
                for mut data in [&stream[..first], &stream[first..second], &stream[second..]] {
                    while let Some(frame) = deframer.next(&mut data).expect("well-formed") {
                        assert!(!frame.compressed);
                        got.push(frame.bytes.to_vec());
                    }
                    assert!(data.is_empty());
                }
                assert_eq!(got, messages, "split at {first} and {second}");
                assert_eq!(deframer.finish(), Ok(()));
            }
        }
    }

    #[test]
    fn a_whole_message_is_borrowed_and_nothing_is_kept() {
        let stream = framed(&[b"abc"]);
        let mut deframer = Deframer::new(64);
        let mut data = &stream[..];
        let frame = deframer.next(&mut data).expect("well-formed").expect("complete");
        assert!(std::ptr::eq(frame.bytes, &stream[5..]));
        assert_eq!(deframer.into_buffer().capacity(), 0);
    }

    #[test]
    fn a_prefix_alone_costs_no_memory_and_limits_hold() {
        let mut deframer = Deframer::new(1 << 30);
        let announced = [0, 0x3f, 0xff, 0xff, 0xff, 1, 2];
        assert_eq!(deframer.next(&mut &announced[..]), Ok(None));
        assert!(deframer.buffered_bytes() == 7 && deframer.finish() == Err(DeframeError::Truncated));
        assert!(deframer.into_buffer().capacity() < 64);

        let error = Deframer::new(10).next(&mut &[0u8, 0, 0, 0, 11][..]).map(|_| ());
        assert_eq!(error, Err(DeframeError::TooLarge { length: 11, max: 10 }));
        // The limit shows as soon as the prefix is complete, however it came.
        let mut deframer = Deframer::new(10);
        assert_eq!(deframer.next(&mut &[0u8, 0, 0][..]), Ok(None));
        assert!(deframer.next(&mut &[0u8, 11][..]).is_err());
        assert_eq!(
            Deframer::new(10).next(&mut &[2u8, 0, 0, 0, 0][..]),
            Err(DeframeError::BadFlag(2))
        );
    }
}
