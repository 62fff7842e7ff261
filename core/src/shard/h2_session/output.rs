//! Calls of an HTTP/2 connection with a client that has too much to read: held before they have any
//! effect, started in their turn, or refused.

use std::time::Instant;

use prism_codec::{
    grpc::Status,
    h2::StreamId,
    method::{Effect, Method},
};

use super::{Call, H2Session, Head, Phase, Route, Weight};
use crate::{
    call::error::{self, Stage},
    dispatch::Dispatcher,
};

/// Time for which a call is held while its client reads nothing, in seconds; then it is refused.
/// The client may have stopped reading, and must not wait for an answer that needs room which only
/// its reading makes.
const HELD_SECONDS_MAX: u32 = 5;

/// Bytes taken within that time that show that the client reads; fewer may be answers to its PINGs.
const READING_BYTES: u64 = 16 << 10;

/// Bytes of its answers that a client has taken.
#[derive(Default)]
pub(super) struct Taken {
    bytes: u64,
    /// Moment at which the client was last seen to read, and the bytes taken by then.
    seen: (u32, u64),
}

impl Taken {
    fn note(&mut self, clock: u32) {
        if self.bytes - self.seen.1 >= READING_BYTES {
            self.seen = (clock, self.bytes);
        }
    }
}

impl Call {
    /// Whether an answer that may be large is still to come.
    pub(super) fn awaits_read(&self) -> bool {
        match &self.phase {
            Phase::Waiting(_) => weight(self.head.route) == Weight::Heavy,
            Phase::Streaming(chunks) => chunks.awaits_chunk(),
            _ => false,
        }
    }
}

impl H2Session {
    /// Keeps a complete request until its client has read more.
    #[cold]
    pub(super) fn hold(
        &mut self,
        stream: StreamId,
        head: Head,
        weight: Weight,
        body: &[u8],
        gateway: &mut Dispatcher,
    ) {
        if self.body_bytes + body.len() > self.body_bytes_max {
            let status = error::unread_answers(self.backpressure.max());
            return self.refuse(stream, head, body, status, gateway);
        }
        self.body_bytes += body.len();
        self.set_phase(stream, Phase::Held(body.to_vec(), self.clock));
        self.backpressure.hold(weight, stream);
    }

    /// Takes the output, to be sent.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let output = self.h2.take_output(Vec::new());
        self.taken.bytes += output.len() as u64;
        self.h2.set_sending(output.len());
        output
    }

    /// Whether any call waits for its client to read.
    pub(crate) fn holds_any(&self) -> bool {
        self.backpressure.holds_any()
    }

    /// Starts held calls, as far as there is room.
    #[inline]
    pub(crate) fn resume(&mut self, now: Instant, gateway: &mut Dispatcher) {
        if self.backpressure.holds_any() {
            self.resume_held(now, gateway);
        }
    }

    #[cold]
    fn resume_held(&mut self, now: Instant, gateway: &mut Dispatcher) {
        gateway.begin_batch();
        while let Some(stream) = self.backpressure.next(self.h2.queued_bytes()) {
            let Some(call) = self.call_mut(stream) else {
                continue;
            };
            let (head, deadline) = (call.head, call.deadline);
            match &mut call.phase {
                Phase::Held(body, _) => {
                    let body = std::mem::take(body);
                    self.body_bytes -= body.len();
                    let weight = weight(head.route);
                    self.start_admitted(stream, head, weight, deadline, &body, now, gateway);
                }
                Phase::Streaming(_) => self.pump(stream, true, gateway),
                Phase::Reflecting(..) => self.reflect(stream, gateway),
                _ => {}
            }
        }
        gateway.end_batch(now);
    }

    /// Advances the time by some seconds. Refuses calls held for too long, or beyond their
    /// deadline.
    pub(crate) fn tick(&mut self, seconds: u32, now: Instant, gateway: &mut Dispatcher) {
        self.clock = self.clock.saturating_add(seconds);
        self.h2.tick(seconds);
        self.keep_streams_alive(seconds);
        self.taken.note(self.clock);
        if self.h2.wants_read() {
            self.receive_clock = self.receive_clock.saturating_add(seconds);
            self.answer_late(gateway);
        }
        if !self.backpressure.holds_any() {
            return;
        }
        let held: Vec<StreamId> = self.backpressure.held().collect();
        for stream in held {
            let (clock, last_read, max) = (self.clock, self.taken.seen.0, self.backpressure.max());
            let Some(call) = self.call_mut(stream) else {
                continue;
            };
            let Phase::Held(body, since) = &mut call.phase else {
                continue;
            };
            let status = if call.deadline.is_some_and(|deadline| deadline <= now) {
                error::deadline_exceeded(Stage::Answer)
            } else if clock - last_read.max(*since) > HELD_SECONDS_MAX {
                error::unread_answers(max)
            } else {
                continue;
            };
            let (head, body) = (call.head, std::mem::take(body));
            self.body_bytes -= body.len();
            self.refuse(stream, head, &body, status, gateway);
        }
        gateway.end_batch(now);
        self.resume(now, gateway);
    }

    /// Answers a call that was not started, and counts it as the client sees it.
    fn refuse(
        &mut self,
        stream: StreamId,
        head: Head,
        body: &[u8],
        status: Box<Status>,
        gateway: &mut Dispatcher,
    ) {
        let extra = self.remove(stream).and_then(|call| call.extra);
        if let (Route::Call(method), Ok(message)) = (
            head.route,
            super::unary::message(head, extra.as_deref(), body, gateway),
        ) {
            gateway.count_refused(method, &message, status.code);
        }
        self.respond(stream, head, None, Err(status), gateway);
    }
}

/// Expected size of a call's answer.
#[inline]
pub(super) fn weight(route: Route) -> Weight {
    let method = match route {
        Route::Call(method) => method,
        Route::Admin(method) => Method::from(method),
        Route::Metrics => return Weight::Heavy,
        _ => return Weight::Light,
    };
    match method.spec().effect {
        Effect::None => Weight::Heavy,
        Effect::Certain | Effect::Judged | Effect::Direct => Weight::Light,
    }
}
