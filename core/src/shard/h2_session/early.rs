//! Errors that are known before a request has ended (RFC 9113 section 8.1): the answer is sent at
//! once, and RST_STREAM with NO_ERROR shows the client that the rest is not wanted. A client that
//! keeps its side open would otherwise wait for ever. The same holds for requests that do not
//! become complete.

use prism_codec::h2::StreamId;

use super::{Call, H2Session, Head, Phase, unary};
use crate::{call::error, dispatch::Dispatcher, shard::lifetime};

/// Largest known length, in bytes, of a body that is awaited: it is in flight, and then no reset is
/// needed.
const SHORT_BODY_BYTES: u64 = 64 << 10;

impl H2Session {
    /// Examines a request with a head and no body yet: answers at once if it is too large, and
    /// notes an error that needs no body.
    pub(super) fn refuse_early(&mut self, stream: StreamId, head: Head, gateway: &mut Dispatcher) {
        let left = self.h2.body_left(stream);
        if head.route.needs_no_body() {
            if head.route.is_error() && left.is_none_or(|left| left > SHORT_BODY_BYTES) {
                self.refused.push(stream);
            }
            return;
        }
        let max = gateway.limits().message_bytes_max;
        let body_max = unary::body_bytes_max(head.format, max);
        if left.is_some_and(|left| left > body_max as u64) {
            self.drop_body(stream);
            let status = unary::message_too_large(max);
            self.respond(stream, head, None, Err(Box::new(status)), gateway);
        }
    }

    /// Answers the noted calls that have not ended since.
    #[inline]
    pub(super) fn answer_refused(&mut self, gateway: &mut Dispatcher) {
        while let Some(stream) = self.refused.pop() {
            let Some(call) = self.call_mut(stream) else {
                continue;
            };
            if matches!(call.phase, Phase::Discarding(_)) {
                let head = call.head;
                let extra = self.remove(stream).and_then(|call| call.extra);
                self.plain(stream, head, extra.as_deref(), gateway);
            }
        }
    }

    /// Refuses requests that do not become complete.
    pub(super) fn answer_late(&mut self, gateway: &mut Dispatcher) {
        if self.h2.open_streams() == 0 {
            return;
        }
        let limits = *gateway.limits();
        for slot in 0..self.calls.len() {
            let Some(call) = &self.calls[slot] else { continue };
            let Some(received) = call.received() else { continue };
            if !lifetime::is_late(self.receive_clock - call.receiving_since, received, &limits) {
                continue;
            }
            let (stream, head) = (call.stream, call.head);
            let Some(call) = self.drop_body(stream) else {
                continue;
            };
            if head.route.needs_no_body() {
                self.plain(stream, head, call.extra.as_deref(), gateway);
            } else {
                self.fail(stream, &call, error::request_incomplete(), gateway);
            }
        }
    }
}

impl Call {
    /// Number of bytes received of an incomplete message; `None`: there is no such message.
    fn received(&self) -> Option<usize> {
        match &self.phase {
            Phase::Receiving(body) => Some(body.len()),
            Phase::Discarding(bytes) => Some(*bytes),
            Phase::Reflecting(body, ended) => (!body.is_empty() && !ended).then_some(body.len()),
            Phase::Held(..) | Phase::Waiting(_) | Phase::Streaming(_) | Phase::Watching => None,
        }
    }
}
