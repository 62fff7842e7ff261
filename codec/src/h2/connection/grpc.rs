//! Whole gRPC replies: headers and trailers from templates, the message encoded straight into the
//! output.
//!
//! The first reply puts `content-type: application/grpc` and `grpc-status: 0` into the peer's
//! header table; later ones are a few remembered bytes, valid as long as the encoder's
//! `table_version` is unchanged. A peer that allows no table gets literals. On the wire a small
//! unary reply is three frames of 9 bytes, 2 + 1 bytes of header blocks and the message:
//!
//! ```text
//!   HEADERS 88 bf | DATA 00 len32 message | HEADERS(END_STREAM) be
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Connection;
use crate::h2::error::{ErrorCode, SendError};
use crate::h2::event::StreamId;
use crate::h2::frame::{self, HEADER_LEN, flag, kind};
use crate::h2::hpack::Indexing;
use crate::h2::stream::End;

/// Bytes of the prefix of a gRPC message: the compressed flag and the length.
const PREFIX_LEN: usize = 5;

/// Longest `grpc-message` in bytes; a longer one is cut, since it shares the peer's header list
/// limit with the details.
const MESSAGE_MAX: usize = 1_024;

const OK_HEADERS: [(&[u8], &[u8]); 2] = [(b":status", b"200"), (b"content-type", b"application/grpc")];
const OK_TRAILERS: [(&[u8], &[u8]); 1] = [(b"grpc-status", b"0")];

/// Header blocks that every reply repeats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Templates {
    headers: Template,
    trailers: Template,
}

/// A header block of indexed fields, valid as long as the table is the one it was made for.
#[derive(Clone, Copy, Debug, Default)]
struct Template {
    /// Version of that table. `None`: the template must be made first.
    table_version: Option<u64>,
    len: u8,
    bytes: [u8; 8],
}

/// The end of a stream after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Open,
    EndStream,
    GrpcOk,
}

impl Connection {
    /// Server: sends a whole unary gRPC reply: headers, one message, `grpc-status: 0`. `encode`
    /// appends the message to the buffer and must not touch the bytes in it; the 5-byte prefix is
    /// added here. If the request has not ended yet, the rest of it is dropped; see
    /// [`Connection::tick`].
    ///
    /// # Errors
    /// [`SendError::StreamClosed`], [`SendError::ConnectionClosed`], [`SendError::WrongState`] if
    /// headers were sent. `encode` is not called then.
    #[inline]
    pub fn send_grpc_reply(
        &mut self,
        stream: StreamId,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        self.check_alive()?;
        self.begin_reply(stream)?;
        self.write_grpc_headers(stream.id);
        self.write_message(stream, Tail::GrpcOk, encode);
        Ok(())
    }

    /// Server: sends the response headers of a streaming gRPC reply (`:status 200`,
    /// `content-type: application/grpc`), from the template.
    ///
    /// # Errors
    /// As for [`Connection::send_headers`].
    pub fn send_grpc_headers(&mut self, stream: StreamId) -> Result<(), SendError> {
        self.check_alive()?;
        self.begin_reply(stream)?;
        self.write_grpc_headers(stream.id);
        Ok(())
    }

    /// Sends one gRPC message with its 5-byte prefix, of a request or a streaming reply; `encode`
    /// as for [`Connection::send_grpc_reply`]. `end_stream` is for requests: a reply ends with
    /// [`Connection::send_grpc_ok`] or [`Connection::send_grpc_error`].
    ///
    /// # Errors
    /// As for [`Connection::send_data`].
    pub fn send_grpc_message(
        &mut self,
        stream: StreamId,
        end_stream: bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        self.check_queue()?;
        if !self.sendable(stream)?.headers_sent {
            return Err(SendError::WrongState);
        }
        let tail = if end_stream { Tail::EndStream } else { Tail::Open };
        self.write_message(stream, tail, encode);
        Ok(())
    }

    /// Server: ends a streaming gRPC reply with `grpc-status: 0`, from the template.
    ///
    /// # Errors
    /// As for [`Connection::send_trailers`].
    pub fn send_grpc_ok(&mut self, stream: StreamId) -> Result<(), SendError> {
        self.check_alive()?;
        let found = self.sendable(stream)?;
        if !found.headers_sent {
            return Err(SendError::WrongState);
        }
        if found.queue.is_none() {
            self.write_grpc_ok(stream.id);
        }
        self.finish_data(stream, End::GrpcOk);
        Ok(())
    }

    /// Server: ends a stream with a gRPC status: trailers-only if no headers were sent yet,
    /// otherwise trailers. `code` is 0 to 16; `message` is percent-encoded here, and cut at 1,024
    /// bytes; `details` are the bytes of a `google.rpc.Status`, base64-encoded here.
    ///
    /// # Errors
    /// [`SendError::StreamClosed`], [`SendError::ConnectionClosed`].
    pub fn send_grpc_error(
        &mut self,
        stream: StreamId,
        code: u8,
        message: &str,
        details: Option<&[u8]>,
    ) -> Result<(), SendError> {
        self.check_alive()?;
        let headers_sent = self.sendable(stream)?.headers_sent;
        let code = [b'0' + code / 10 % 10, b'0' + code % 10];
        let message = percent_encode(message);
        let details = details.map(|bytes| STANDARD_NO_PAD.encode(bytes));
        let (status, content_type) = (OK_HEADERS[0], OK_HEADERS[1]);
        let code: (&[u8], &[u8]) = (b"grpc-status", code.strip_prefix(b"0").unwrap_or(&code));
        let mut fields = vec![status, content_type, code];
        if !message.is_empty() {
            fields.push((b"grpc-message", &message));
        }
        if let Some(details) = &details {
            fields.push((b"grpc-status-details-bin", details.as_bytes()));
        }
        if headers_sent {
            return self.send_trailers(stream, &fields[2..]);
        }
        self.begin_reply(stream)?;
        self.write_headers(stream.id, &fields, true);
        self.end_local(stream);
        Ok(())
    }

    // ---- parts ----------------------------------------------------------------------------------

    /// Marks the headers of a reply as sent.
    #[inline]
    fn begin_reply(&mut self, stream: StreamId) -> Result<(), SendError> {
        let found = self.streams.get_mut(stream).filter(|found| !found.local_ended);
        let found = found.ok_or(SendError::StreamClosed)?;
        if found.headers_sent {
            return Err(SendError::WrongState);
        }
        found.headers_sent = true;
        Ok(())
    }

    #[inline]
    fn write_grpc_headers(&mut self, id: u32) {
        let template = self.templates.headers;
        if self.holds(&template) {
            self.write_template(id, &template, flag::END_HEADERS);
        } else {
            self.templates.headers = self.make_template(id, &OK_HEADERS, false);
        }
    }

    #[inline]
    pub(super) fn write_grpc_ok(&mut self, id: u32) {
        let template = self.templates.trailers;
        if self.holds(&template) {
            self.write_template(id, &template, flag::END_HEADERS | flag::END_STREAM);
        } else {
            self.templates.trailers = self.make_template(id, &OK_TRAILERS, true);
        }
    }

    #[inline]
    fn holds(&self, template: &Template) -> bool {
        template.table_version == Some(self.encoder.table_version()) && !self.encoder.update_pending()
    }

    #[inline]
    fn write_template(&mut self, id: u32, template: &Template, flags: u8) {
        let block = template.bytes.get(..template.len as usize).unwrap_or_default();
        frame::write_header(&mut self.output, block.len(), kind::HEADERS, flags, id);
        self.output.extend_from_slice(block);
    }

    /// Writes a block field by field, inserting its fields into the peer's table, and makes its
    /// template if all of them are in the table then.
    #[cold]
    fn make_template(&mut self, id: u32, fields: &super::Fields<'_>, end_stream: bool) -> Template {
        let start = self.begin_headers(id, end_stream);
        for (name, value) in fields {
            self.encoder
                .encode(&mut self.output, name, value, Indexing::Incremental);
        }
        self.finish_headers(start);
        let mut template = Template::default();
        let mut block = Vec::new();
        for (name, value) in fields {
            match self.encoder.lookup(name, value) {
                Some(index) => index.encode(&mut block),
                None => return template,
            }
        }
        if let Some(place) = template.bytes.get_mut(..block.len()) {
            place.copy_from_slice(&block);
            template.len = block.len() as u8;
            template.table_version = Some(self.encoder.table_version());
        }
        template
    }

    /// Encodes a message into the output and frames it there; the part that the windows do not
    /// allow moves to the queue.
    #[inline]
    fn write_message(&mut self, stream: StreamId, tail: Tail, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.output.len();
        let flags = if tail == Tail::EndStream {
            flag::END_STREAM
        } else {
            0
        };
        let mut opening = [0; HEADER_LEN + PREFIX_LEN];
        let header = frame::FrameHeader {
            len: 0,
            kind: kind::DATA,
            flags,
            stream: stream.id,
        };
        opening[..HEADER_LEN].copy_from_slice(&header.encode());
        self.output.extend_from_slice(&opening);
        encode(&mut self.output);
        let message = self.output.len().checked_sub(start + opening.len());
        let Some(message) = message.and_then(|len| u32::try_from(len).ok()) else {
            // The encoder has shortened the buffer or written 4 GiB: an error of ours that must not
            // reach the wire.
            debug_assert!(false, "encode must append less than 4 GiB");
            self.output.truncate(start);
            self.reset(stream, ErrorCode::INTERNAL_ERROR);
            return;
        };
        let payload = message as usize + PREFIX_LEN;
        if let Some(prefix) = self
            .output
            .get_mut(start + HEADER_LEN + 1..start + HEADER_LEN + PREFIX_LEN)
        {
            prefix.copy_from_slice(&message.to_be_bytes());
        }
        let queued = self
            .streams
            .get(stream)
            .is_some_and(|found| found.queue.is_some());
        if queued || payload > self.windows(stream) {
            return self.queue_message(stream, start, tail);
        }
        self.take_windows(stream, payload);
        if payload <= self.peer.max_frame {
            self.patch_len(start, payload);
        } else {
            self.split_data(start, payload, header);
        }
        match tail {
            Tail::Open => return,
            Tail::EndStream => {}
            Tail::GrpcOk => self.write_grpc_ok(stream.id),
        }
        self.end_local(stream);
    }

    /// Splits a message that both windows allow but no single frame. The frame headers are inserted
    /// from the back, so that every byte moves once.
    #[cold]
    fn split_data(&mut self, start: usize, payload: usize, header: frame::FrameHeader) {
        let max = self.peer.max_frame;
        let last = (payload - 1) / max;
        self.output
            .resize(start + HEADER_LEN + payload + last * HEADER_LEN, 0);
        for frame_number in (0..=last).rev() {
            let from = start + HEADER_LEN + frame_number * max;
            let len = max.min(payload - frame_number * max);
            let to = from + frame_number * HEADER_LEN;
            self.output.copy_within(from..from + len, to);
            let frame = frame::FrameHeader {
                len: len as u32,
                flags: if frame_number == last { header.flags } else { 0 },
                ..header
            };
            if let Some(place) = self.output.get_mut(to - HEADER_LEN..to) {
                place.copy_from_slice(&frame.encode());
            }
        }
    }

    /// Moves the message whose frame header begins at `start` into the stream's queue, and sends as
    /// much as is allowed.
    #[cold]
    fn queue_message(&mut self, stream: StreamId, start: usize, tail: Tail) {
        self.streams.enqueue(stream, &self.output[start + HEADER_LEN..]);
        self.output.truncate(start);
        match tail {
            Tail::Open => {}
            Tail::EndStream => self.finish_data(stream, End::Data),
            Tail::GrpcOk => self.finish_data(stream, End::GrpcOk),
        }
        self.flush_stream(stream, usize::MAX);
    }
}

/// Percent-encodes a `grpc-message` (gRPC over HTTP/2, "Responses"): all but printable ASCII, and
/// `%` itself. Cuts at a character's boundary.
fn percent_encode(message: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(message.len().min(MESSAGE_MAX));
    for character in message.chars() {
        if encoded.len() >= MESSAGE_MAX {
            break;
        }
        let mut bytes = [0; 4];
        for &byte in character.encode_utf8(&mut bytes).as_bytes() {
            if (b' '..=b'~').contains(&byte) && byte != b'%' {
                encoded.push(byte);
            } else {
                encoded.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    // A field value has no white space at its ends (RFC 9113 section 8.2.1), so a space there is
    // escaped as well.
    if encoded.last() == Some(&b' ') {
        encoded.pop();
        encoded.extend_from_slice(b"%20");
    }
    if encoded.first() == Some(&b' ') {
        encoded.splice(..1, *b"%20");
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_message_is_percent_encoded() {
        assert_eq!(percent_encode("plain text"), b"plain text");
        assert_eq!(percent_encode("100% \u{e4}\n"), b"100%25 %C3%A4%0A");
        assert_eq!(percent_encode(" x "), b"%20x%20");
        assert_eq!(percent_encode(" "), b"%20");
        assert!(percent_encode(&"\u{1f600}".repeat(1_000)).len() < MESSAGE_MAX + 12);
    }
}
