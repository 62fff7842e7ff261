//! Bodies: of a known length, or chunked (RFC 9112, 7.1), both bounded.
//!
//! Promises the body's bytes without framing and without copies, and strictness in chunk sizes.
//! Chunk extensions and trailer fields are checked and dropped.

use super::{Event, HttpError, head::Framing};
use crate::limits::{HTTP1_CHUNK_LINE_BYTES_MAX, HTTP1_HEADERS_MAX, HTTP1_TRAILER_BYTES_MAX};

const TOO_LARGE: HttpError = HttpError {
    status: 413,
    message: "the request's body is larger than the limit",
};
const BAD_CHUNK: HttpError = HttpError {
    status: 400,
    message: "the chunked body is not well-formed",
};

/// Position of the parser in a body.
#[derive(Debug)]
pub(super) struct Body {
    state: State,
    /// Bytes by which a chunked body may still grow.
    allowed: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Bytes left of a body of known length.
    Length(u64),
    ChunkLine,
    /// Bytes left of the chunk.
    Chunk(u64),
    /// CR LF after a chunk's bytes.
    ChunkEnd,
    Trailers,
}

impl Body {
    pub(super) fn new(framing: Framing, body_max: usize) -> Result<Self, HttpError> {
        let allowed = u64::try_from(body_max).unwrap_or(u64::MAX);
        let state = match framing {
            Framing::Length(length) if length > allowed => return Err(TOO_LARGE),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
        };
        Ok(Body { state, allowed })
    }

    pub(super) fn poll<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, HttpError> {
        loop {
            match self.state {
                State::Length(0) => return Ok(Some(Event::End)),
                State::Length(left) => {
                    return Ok(take(input, left).map(|bytes| {
                        self.state = State::Length(left - bytes.len() as u64);
                        Event::Body(bytes)
                    }));
                }
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Chunk(left) => {
                    return Ok(take(input, left).map(|bytes| {
                        self.state = State::Chunk(left - bytes.len() as u64);
                        Event::Body(bytes)
                    }));
                }
                State::ChunkEnd => match input {
                    [b'\r', b'\n', rest @ ..] => {
                        *input = rest;
                        self.state = State::ChunkLine;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(BAD_CHUNK),
                },
                State::ChunkLine => {
                    let Some(size) = chunk_line(input)? else {
                        return Ok(None);
                    };
                    self.allowed = self.allowed.checked_sub(size).ok_or(TOO_LARGE)?;
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::Chunk(size)
                    };
                }
                State::Trailers => return Ok(trailers(input)?.then_some(Event::End)),
            }
        }
    }
}

/// Takes up to `left` bytes; `None` if there are none yet.
fn take<'a>(input: &mut &'a [u8], left: u64) -> Option<&'a [u8]> {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    let (bytes, rest) = input.split_at(count);
    *input = rest;
    (!bytes.is_empty()).then_some(bytes)
}

/// Reads the size in a chunk's line; `None` while the line is incomplete.
fn chunk_line(input: &mut &[u8]) -> Result<Option<u64>, HttpError> {
    let window = &input[..input.len().min(HTTP1_CHUNK_LINE_BYTES_MAX)];
    let Some(newline) = window.iter().position(|byte| *byte == b'\n') else {
        // A text that cannot become a size is refused at once, not when the line is complete.
        return if window.len() == HTTP1_CHUNK_LINE_BYTES_MAX
            || window.first().is_some_and(|byte| !byte.is_ascii_hexdigit())
        {
            Err(BAD_CHUNK)
        } else {
            Ok(None)
        };
    };
    let Some(line) = window[..newline].strip_suffix(b"\r") else {
        return Err(BAD_CHUNK);
    };
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // 15 hexadecimal digits are more than any limit and cannot overflow.
    if digits == 0 || digits > 15 {
        return Err(BAD_CHUNK);
    }
    let extension = line[digits..].trim_ascii_start();
    if !(extension.is_empty() || extension[0] == b';')
        || extension.iter().any(|byte| *byte != b'\t' && *byte < b' ')
    {
        return Err(BAD_CHUNK);
    }
    let value = |digit: &u8| u64::from(char::from(*digit).to_digit(16).unwrap_or(0));
    let size = line[..digits]
        .iter()
        .fold(0, |size, digit| size << 4 | value(digit));
    *input = &input[newline + 1..];
    Ok(Some(size))
}

/// Skips the trailer section; false while it is incomplete.
fn trailers(input: &mut &[u8]) -> Result<bool, HttpError> {
    if let [b'\r', b'\n', rest @ ..] = input {
        *input = rest;
        return Ok(true);
    }
    let window = &input[..input.len().min(HTTP1_TRAILER_BYTES_MAX)];
    let Some(end) = window.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        if window.len() == HTTP1_TRAILER_BYTES_MAX {
            return Err(HttpError {
                status: 431,
                message: "the trailer fields are larger than 4 KiB",
            });
        }
        return Ok(false);
    };
    let section = &window[..end + 4];
    let lone_newline = section
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == b'\n' && (at == 0 || section[at - 1] != b'\r'));
    let mut fields = [httparse::EMPTY_HEADER; HTTP1_HEADERS_MAX];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) if length == section.len() && !lone_newline => {
            *input = &input[section.len()..];
            Ok(true)
        }
        _ => Err(BAD_CHUNK),
    }
}
