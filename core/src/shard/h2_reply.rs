//! Replies on an HTTP/2 connection: gRPC by the templates of the protocol machine, all other
//! formats as HTTP responses.

use prism_codec::{
    format::Format,
    grpc::{self, Status},
    h2::{ErrorCode, SendError, StreamId},
};
use prost::Message as _;
use smallvec::SmallVec;

use super::{
    h2_session::H2Session,
    reply::{self, Response},
    request_id,
};
use crate::dispatch::{
    Dispatcher,
    head::{Encoding, Extra, Head},
};

/// The reason why a message of a stream was not sent.
pub(super) enum Refused {
    /// It cannot be written in the stream's format.
    Unwritable(Box<Status>),
    /// The stream is gone, or the peer accepts nothing.
    Unsendable,
}

impl From<SendError> for Refused {
    fn from(_: SendError) -> Self {
        Self::Unsendable
    }
}

impl H2Session {
    /// Sends a whole reply: the message or body in `gateway.reply`, or an error, wrapped in the
    /// request's format.
    pub(super) fn respond(
        &mut self,
        stream: StreamId,
        head: Head,
        extra: Option<&Extra>,
        result: Result<(), Box<Status>>,
        gateway: &mut Dispatcher,
    ) {
        let given = self.request_ids.take(stream.value());
        let (id, result) = request_id::name_failure(head, given, || self.ticket(stream), result);
        // A stream that is gone by now takes no reply; its call was cancelled, which is no error.
        let sent = match (head.format, result) {
            (Format::Grpc, Ok(())) if id.is_none() && !gateway.compresses_reply(head.accepts) => self
                .h2
                .send_grpc_reply(stream, |out| out.extend_from_slice(&gateway.reply)),
            (Format::Grpc, Err(status)) if head.encoding != Encoding::Unsupported => {
                self.send_grpc_error(stream, &status)
            }
            (_, result) => {
                let mut response = reply::whole(head, extra, result, gateway);
                if let Some(id) = &id {
                    response.put_request_id(id);
                }
                self.send_response(stream, head, &response)
            }
        };
        if sent.is_err() {
            gateway.metrics().cancelled.add(1);
            self.h2.reset(stream, ErrorCode::INTERNAL_ERROR);
        }
    }

    fn send_grpc_error(&mut self, stream: StreamId, status: &Status) -> Result<(), SendError> {
        let details = (!status.details.is_empty()).then(|| status.to_proto().encode_to_vec());
        self.h2
            .send_grpc_error(stream, status.code.as_u8(), &status.message, details.as_deref())
    }

    fn send_response(&mut self, stream: StreamId, head: Head, response: &Response) -> Result<(), SendError> {
        let length = response.body.len().to_string();
        let has_length = response.status != 204 && !head.format.needs_trailers();
        let length = has_length.then_some(length.as_bytes());
        let ends = (response.body.is_empty() && response.trailers.is_empty()) || head.head_only;
        self.send_head(stream, response, length, ends)?;
        if ends {
            return Ok(());
        }
        let trailers: SmallVec<[(&[u8], &[u8]); 3]> = response
            .trailers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_slice()))
            .collect();
        self.h2.send_data(stream, &response.body, trailers.is_empty())?;
        if trailers.is_empty() {
            return Ok(());
        }
        self.h2.send_trailers(stream, &trailers)
    }

    fn send_head(
        &mut self,
        stream: StreamId,
        response: &Response,
        length: Option<&[u8]>,
        ends: bool,
    ) -> Result<(), SendError> {
        let status = response.status.to_string();
        let mut fields: SmallVec<[(&[u8], &[u8]); 8]> = SmallVec::new();
        fields.push((b":status", status.as_bytes()));
        if !response.content_type.is_empty() {
            fields.push((b"content-type", response.content_type.as_bytes()));
        }
        if let Some(length) = length {
            fields.push((b"content-length", length));
        }
        for (name, value) in &response.fields {
            fields.push((name.as_bytes(), value));
        }
        self.h2.send_headers(stream, &fields, ends)
    }

    /// Sends the start of a stream's response.
    pub(super) fn send_stream_start(&mut self, stream: StreamId, head: Head, gateway: &Dispatcher) {
        // If the stream is gone, the next message finds that out.
        let id = self.request_ids.get(stream.value());
        if head.format == Format::Grpc && head.accepts == grpc::Encoding::Identity && id.is_none() {
            let _ = self.h2.send_grpc_headers(stream);
            return;
        }
        let mut start = reply::stream_start(head, gateway);
        if let Some(id) = id {
            start.put_request_id(id);
        }
        let sent = self.send_head(stream, &start, None, false);
        if sent.is_ok() && !start.body.is_empty() {
            let _ = self.h2.send_data(stream, &start.body, false);
        }
    }

    /// Sends a message of a stream, after the start of the response if that has not been sent.
    pub(super) fn send_message(
        &mut self,
        stream: StreamId,
        head: Head,
        message: &[u8],
        gateway: &mut Dispatcher,
    ) -> Result<(), Refused> {
        self.begin_response(stream, gateway);
        self.note_sent(stream);
        if head.format == Format::Grpc && !gateway.compresses(head.accepts, message) {
            self.h2
                .send_grpc_message(stream, false, |out| out.extend_from_slice(message))?;
            return Ok(());
        }
        let mut written = Vec::new();
        reply::put_message(head, message, gateway, &mut written).map_err(Refused::Unwritable)?;
        self.h2.send_data(stream, &written, false)?;
        Ok(())
    }

    /// Ends a stream with a response that has begun.
    pub(super) fn end_stream(&mut self, stream: StreamId, head: Head, result: Result<(), Box<Status>>) {
        let given = self.request_ids.take(stream.value());
        let (_, result) = request_id::name_failure(head, given, || self.ticket(stream), result);
        let sent = match result {
            Ok(()) if head.format.needs_trailers() => self.h2.send_grpc_ok(stream),
            Err(status) if head.format.needs_trailers() => self.send_grpc_error(stream, &status),
            result => {
                let mut end = Vec::new();
                let result = result.as_ref().copied().map_err(|status| &**status);
                reply::put_stream_end(head, result, &mut end);
                self.h2.send_data(stream, &end, true)
            }
        };
        if sent.is_err() {
            self.h2.reset(stream, ErrorCode::INTERNAL_ERROR);
        }
    }
}
