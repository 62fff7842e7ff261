//! Calls of one HTTP/2 connection: events of the protocol machine in, calls on the gateway, replies
//! out.
//!
//! Synchronous throughout: one receive is processed to its end, with all replies appended to the
//! connection's output, before anything is sent. A unary call with a message whole in one DATA
//! frame is served from the receive buffer without a copy.

mod early;
mod output;
mod streaming;

use std::time::Instant;

use prism_codec::{
    format::Format,
    grpc::{Code, Status},
    h2::{Config, Connection, ErrorCode, Event, Input, StreamId},
};

use self::output::weight;
use super::{
    backpressure::{Backpressure, Weight},
    h2_reply::Refused,
    reply,
    request_id::RequestIds,
    unary,
};
use crate::{
    call::{
        error::{self, Stage},
        job::Answer,
        ticket::{CallId, Ticket},
    },
    dispatch::{
        Dispatcher, Progress,
        head::{Encoding, Extra, Head},
        pending::Pending,
        reflection,
        route::Route,
        stream::Stream,
    },
};

/// Number of heads that one connection remembers. A client has a handful of methods and metadata
/// sets; one that varies its head more than this is decoded each time.
const HEADS_MAX: usize = 32;

/// Bytes queued for its client above which a streaming reply pauses.
const STREAM_QUEUE_BYTES: usize = 1 << 20;

/// Calls of one HTTP/2 connection.
pub(crate) struct H2Session {
    pub(super) h2: Connection,
    heads: Vec<Head>,
    /// Indexed by the stream's slot.
    calls: Vec<Option<Call>>,
    /// Bytes of incomplete request bodies.
    body_bytes: usize,
    body_bytes_max: usize,
    backpressure: Backpressure<StreamId>,
    /// Calls to be answered with an error after the bytes received with their heads are processed,
    /// unless they end by then.
    refused: Vec<StreamId>,
    /// Ids of requests on streams whose client sent one.
    pub(super) request_ids: RequestIds,
    taken: output::Taken,
    /// Seconds since the connection began, as reported by the driver.
    clock: u32,
    /// Seconds without those in which the client was not read from.
    receive_clock: u32,
    address: Ticket,
    draining: bool,
}

struct Call {
    stream: StreamId,
    head: Head,
    extra: Option<Box<Extra>>,
    deadline: Option<Instant>,
    /// Moment at which the current receipt of it began, by the session's `receive_clock`.
    receiving_since: u32,
    phase: Phase,
    /// Whether the response has begun.
    begun: bool,
    /// Seconds until a stream of events needs a keep-alive.
    keep_alive_in: u8,
}

/// Seconds after which an idle stream of events sends a keep-alive, so that no proxy takes it for
/// dead.
pub(super) const KEEP_ALIVE_SECONDS: u8 = 15;

enum Phase {
    /// The request is not complete.
    Receiving(Vec<u8>),
    /// The answer is known and needs no body; the number is the body's bytes received. An error
    /// waits only for the bytes received with the head, and for a body that is short and of known
    /// length: so a malformed rest is still reported as malformed, and a client that sends first
    /// and reads later is not cut off.
    Discarding(usize),
    /// The request is complete, but its client has too much to read: nothing was done yet. The
    /// number is the moment since which.
    Held(Vec<u8>, u32),
    /// A store, another shard or the control thread has it.
    Waiting(Box<Pending>),
    /// A stream between chunks or waiting for one.
    Streaming(Box<Stream>),
    /// A health watch: open until the client leaves.
    Watching,
    /// Server reflection: messages are answered as they arrive. The flag: the client has ended its
    /// request.
    Reflecting(Vec<u8>, bool),
}

impl H2Session {
    /// Makes a server-side session. `address` is the ticket of this connection; its call is filled
    /// in for each stream.
    pub(crate) fn new(config: Config, address: Ticket, body_bytes_max: usize) -> Self {
        let backpressure = Backpressure::new(config.output_max);
        Self {
            h2: Connection::new(config),
            heads: Vec::new(),
            calls: Vec::new(),
            body_bytes: 0,
            body_bytes_max,
            backpressure,
            refused: Vec::new(),
            request_ids: RequestIds::default(),
            taken: output::Taken::default(),
            clock: 0,
            receive_clock: 0,
            address,
            draining: false,
        }
    }

    /// Processes the received bytes. Returns the number of bytes consumed; the rest is the start of
    /// a frame.
    ///
    /// The flag is false when the peer broke the protocol: the output ends with GOAWAY and the
    /// connection must be closed after it is sent.
    pub(crate) fn handle_recv(
        &mut self,
        bytes: &[u8],
        now: Instant,
        gateway: &mut Dispatcher,
    ) -> (usize, bool) {
        let mut input = Input::new(bytes);
        loop {
            match self.h2.poll_event(&mut input) {
                Ok(None) => {
                    self.answer_refused(gateway);
                    self.resume(now, gateway);
                    return (input.consumed(), true);
                }
                Err(_) => return (input.consumed(), false),
                Ok(Some(event)) => match event {
                    Event::MemoHeaders {
                        stream,
                        memo,
                        end_stream,
                    } => {
                        let head = self.heads[memo as usize];
                        self.begin(stream, head, None, end_stream, now, gateway);
                    }
                    Event::Headers {
                        stream,
                        headers,
                        end_stream,
                        memoizable,
                    } => {
                        let (head, extra) = Head::from_fields(headers.iter(), true, gateway.http());
                        if memoizable
                            && extra.is_none()
                            && let Some(memo) = self.remember(head)
                        {
                            self.h2.memoize(memo);
                        }
                        self.begin(stream, head, extra, end_stream, now, gateway);
                    }
                    Event::OversizedHeaders {
                        stream,
                        headers,
                        end_stream,
                    } => {
                        let (head, _) = Head::from_fields(headers.iter(), true, gateway.http());
                        let (head, extra) = head.refused(431, error::large_head());
                        self.begin(stream, head, Some(Box::new(extra)), end_stream, now, gateway);
                    }
                    Event::Data {
                        stream,
                        data,
                        end_stream,
                    } => self.data(stream, data, end_stream, now, gateway),
                    Event::Trailers { stream, .. } | Event::MemoTrailers { stream, .. } => {
                        self.data(stream, &[], true, now, gateway);
                    }
                    Event::Reset { stream, .. } => self.cancel(stream, gateway),
                    Event::Writable { stream } => self.pump_stream(stream, gateway),
                    Event::GoAway { .. } | Event::Pong { .. } | Event::PeerSettings => {}
                },
            }
        }
    }

    /// Passes an answer to the call that waits for it. The answer of a call that is gone is
    /// dropped.
    pub(crate) fn handle_reply(
        &mut self,
        ticket: Ticket,
        result: Result<Answer, Box<Status>>,
        gateway: &mut Dispatcher,
    ) {
        let CallId::Stream(stream) = ticket.call else {
            return;
        };
        let Some(call) = self.call_mut(stream) else { return };
        let head = call.head;
        match &mut call.phase {
            Phase::Waiting(pending) => {
                if let Some(result) = gateway.handle_answer(pending, result) {
                    self.remove(stream);
                    if weight(head.route) == Weight::Heavy {
                        self.backpressure.note_read(gateway.reply.len());
                    }
                    self.respond(stream, head, None, result, gateway);
                }
            }
            Phase::Streaming(chunks) => {
                let awaited = chunks.awaits_chunk();
                let go_on = chunks.handle_answer(result, gateway);
                if awaited && !chunks.awaits_chunk() {
                    self.backpressure.read_ended();
                }
                if go_on {
                    self.pump_stream(stream, gateway);
                }
            }
            Phase::Receiving(_)
            | Phase::Discarding(_)
            | Phase::Held(..)
            | Phase::Watching
            | Phase::Reflecting(..) => {}
        }
        if self.holds_any() {
            self.resume(Instant::now(), gateway);
        }
    }

    /// Ends a call after its deadline.
    pub(crate) fn handle_deadline(&mut self, ticket: Ticket, gateway: &mut Dispatcher) {
        let CallId::Stream(stream) = ticket.call else {
            return;
        };
        let Some(mut call) = self.remove(stream) else {
            return;
        };
        match &mut call.phase {
            Phase::Waiting(pending) => gateway.expire(pending),
            Phase::Streaming(chunks) => chunks.expire(gateway),
            Phase::Receiving(_)
            | Phase::Discarding(_)
            | Phase::Held(..)
            | Phase::Watching
            | Phase::Reflecting(..) => {}
        }
        self.fail(stream, &call, error::deadline_exceeded(Stage::Answer), gateway);
    }

    /// Drains: sends health watchers the new state, ends subscriptions and idle dialogues, and
    /// makes the peer open no more streams.
    pub(crate) fn drain(&mut self, gateway: &mut Dispatcher) {
        self.draining = true;
        for index in 0..self.calls.len() {
            let Some(call) = &self.calls[index] else { continue };
            let (stream, head) = (call.stream, call.head);
            match &call.phase {
                Phase::Watching => {
                    // The empty name is always known, so this cannot fail.
                    let _ = gateway.health(&[], false);
                    let last = std::mem::take(&mut gateway.reply);
                    if self.send_message(stream, head, &last, gateway).is_ok() {
                        self.end_stream(stream, head, Ok(()));
                    }
                    gateway.reply = last;
                    self.remove(stream);
                }
                Phase::Reflecting(body, _) if body.is_empty() => self.end_idle_dialogue(stream, gateway),
                Phase::Streaming(chunks) if chunks.is_endless() => self.end_endless(stream, gateway),
                _ => {}
            }
        }
        self.h2.goaway();
    }

    /// Ends a stream that would not end by itself: its client subscribes elsewhere, and misses
    /// nothing.
    fn end_endless(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        let Some(mut call) = self.remove(stream) else {
            return;
        };
        if let Phase::Streaming(chunks) = &mut call.phase {
            let status = chunks.drain(gateway);
            self.fail(stream, &call, status, gateway);
        }
    }

    fn end_idle_dialogue(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        if let Some(call) = self.remove(stream) {
            self.fail(stream, &call, error::not_serving(), gateway);
        }
    }

    /// Forgets all calls: the connection is gone.
    pub(crate) fn close(&mut self, gateway: &mut Dispatcher) {
        for index in 0..self.calls.len() {
            if let Some(call) = self.calls[index].take() {
                cancel_call(call, gateway);
            }
        }
    }

    /// The protocol machine, for the driver: output, reading, draining.
    pub(crate) fn h2(&mut self) -> &mut Connection {
        &mut self.h2
    }

    fn remember(&mut self, head: Head) -> Option<u32> {
        let known = self.heads.iter().position(|known| *known == head);
        let index = known.or_else(|| {
            (self.heads.len() < HEADS_MAX).then(|| {
                self.heads.push(head);
                self.heads.len() - 1
            })
        })?;
        u32::try_from(index).ok()
    }

    fn begin(
        &mut self,
        stream: StreamId,
        head: Head,
        mut extra: Option<Box<Extra>>,
        end_stream: bool,
        now: Instant,
        gateway: &mut Dispatcher,
    ) {
        self.request_ids.keep(stream.value(), extra.as_deref_mut());
        if head.route.needs_no_body() && end_stream {
            return self.plain(stream, head, extra.as_deref(), gateway);
        }
        let deadline = head.timeout.and_then(|timeout| now.checked_add(timeout));
        let phase = match head.route {
            Route::Reflection { .. } => Phase::Reflecting(Vec::new(), false),
            route if route.needs_no_body() => Phase::Discarding(0),
            _ => Phase::Receiving(Vec::new()),
        };
        self.insert(Call {
            stream,
            head,
            extra,
            deadline,
            receiving_since: self.receive_clock,
            phase,
            begun: false,
            keep_alive_in: KEEP_ALIVE_SECONDS,
        });
        if end_stream {
            return self.data(stream, &[], true, now, gateway);
        }
        self.refuse_early(stream, head, gateway);
    }

    #[inline]
    fn insert(&mut self, call: Call) {
        let index = call.stream.slot();
        if index >= self.calls.len() {
            self.calls.resize_with(index + 1, || None);
        }
        self.calls[index] = Some(call);
    }

    fn data(
        &mut self,
        stream: StreamId,
        data: &[u8],
        end_stream: bool,
        now: Instant,
        gateway: &mut Dispatcher,
    ) {
        let Some(call) = self
            .calls
            .get_mut(stream.slot())
            .and_then(Option::as_mut)
            .filter(|call| call.stream == stream)
        else {
            return;
        };
        match &mut call.phase {
            Phase::Receiving(body) => {
                if end_stream && body.is_empty() {
                    // The common case: no bytes were kept back, so none are copied.
                    let (head, deadline) = (call.head, call.deadline);
                    return self.start(stream, head, deadline, data, now, gateway);
                }
                let message_max = gateway.limits().message_bytes_max;
                if body.len() + data.len() > unary::body_bytes_max(call.head.format, message_max) {
                    let head = call.head;
                    self.drop_body(stream);
                    let status = unary::message_too_large(message_max);
                    return self.respond(stream, head, None, Err(Box::new(status)), gateway);
                }
                if self.body_bytes + data.len() > self.body_bytes_max {
                    let head = call.head;
                    self.drop_body(stream);
                    let status = Status::new(
                        Code::ResourceExhausted,
                        "this connection has too many incomplete requests; send fewer large messages at once",
                    );
                    return self.respond(stream, head, None, Err(Box::new(status)), gateway);
                }
                body.extend_from_slice(data);
                self.body_bytes += data.len();
                if !end_stream && let Some(status) = unary::error_within(call.head, body, message_max) {
                    let head = call.head;
                    self.drop_body(stream);
                    return self.respond(stream, head, None, Err(status), gateway);
                }
                if end_stream {
                    let (head, deadline) = (call.head, call.deadline);
                    let body = std::mem::take(body);
                    self.body_bytes -= body.len();
                    self.start(stream, head, deadline, &body, now, gateway);
                }
            }
            Phase::Discarding(bytes) => {
                *bytes += data.len();
                if end_stream || *bytes > gateway.limits().message_bytes_max {
                    let head = call.head;
                    let extra = self.remove(stream).and_then(|call| call.extra);
                    self.plain(stream, head, extra.as_deref(), gateway);
                }
            }
            Phase::Reflecting(body, ended) => {
                *ended |= end_stream;
                if body.len() + data.len() > reflection::REQUEST_BYTES_MAX {
                    let status = unary::message_too_large(reflection::REQUEST_BYTES_MAX);
                    return self.fail_dialogue(stream, Box::new(status), gateway);
                }
                body.extend_from_slice(data);
                self.body_bytes += data.len();
                self.reflect(stream, gateway);
            }
            Phase::Held(..) | Phase::Waiting(_) | Phase::Streaming(_) | Phase::Watching => {}
        }
    }

    /// Starts a unary or server-streaming call with a complete request, unless its client has too
    /// much to read.
    fn start(
        &mut self,
        stream: StreamId,
        head: Head,
        deadline: Option<Instant>,
        body: &[u8],
        now: Instant,
        gateway: &mut Dispatcher,
    ) {
        let weight = weight(head.route);
        if self.backpressure.admits(weight, self.h2.queued_bytes()) {
            self.start_admitted(stream, head, weight, deadline, body, now, gateway);
        } else {
            self.hold(stream, head, weight, body, gateway);
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the hottest path: what its caller knows is not looked up again"
    )]
    #[inline]
    fn start_admitted(
        &mut self,
        stream: StreamId,
        head: Head,
        weight: Weight,
        deadline: Option<Instant>,
        body: &[u8],
        now: Instant,
        gateway: &mut Dispatcher,
    ) {
        let ticket = self.ticket(stream);
        let progress = match (head.format, head.encoding) {
            // Uncompressed gRPC, one message: served in place.
            (Format::Grpc, Encoding::Known(_)) if unary::is_whole_plain_message(body) => {
                gateway.start(head.route, ticket, deadline, now, &body[unary::PREFIX_BYTES..])
            }
            _ => {
                let extra = self.call_mut(stream).and_then(|call| call.extra.take());
                match unary::message(head, extra.as_deref(), body, gateway) {
                    Ok(message) => gateway.start(head.route, ticket, deadline, now, &message),
                    Err(status) => Progress::Done(Err(status)),
                }
            }
        };
        match progress {
            Progress::Done(result) => {
                self.remove(stream);
                if weight == Weight::Heavy {
                    self.backpressure.note_read(gateway.reply.len());
                }
                self.respond(stream, head, None, result, gateway);
            }
            Progress::Waiting(pending) => {
                self.set_phase(stream, Phase::Waiting(pending));
                if weight == Weight::Heavy {
                    self.backpressure.read_began();
                }
            }
            Progress::Stream(chunks) => {
                self.set_phase(stream, Phase::Streaming(chunks));
                self.pump_stream(stream, gateway);
                // No message yet: the response begins, so that the client knows that its call is
                // running.
                self.begin_response(stream, gateway);
            }
            Progress::Watch => {
                self.set_phase(stream, Phase::Watching);
                let first = std::mem::take(&mut gateway.reply);
                if self.send_message(stream, head, &first, gateway).is_err() {
                    self.abandon(stream, gateway);
                } else if self.draining {
                    self.remove(stream);
                    self.end_stream(stream, head, Ok(()));
                }
                gateway.reply = first;
            }
        }
    }

    /// Answers requests that are not calls, or cannot be one.
    fn plain(&mut self, stream: StreamId, head: Head, extra: Option<&Extra>, gateway: &mut Dispatcher) {
        if head.route == Route::Metrics {
            if !self.backpressure.admits(Weight::Heavy, self.h2.queued_bytes()) {
                let status = error::unread_answers(self.backpressure.max());
                return self.respond(stream, head, None, Err(status), gateway);
            }
            match gateway.start_metrics(self.ticket(stream)) {
                Progress::Waiting(pending) => {
                    self.insert(Call {
                        stream,
                        head,
                        extra: None,
                        deadline: None,
                        receiving_since: self.receive_clock,
                        phase: Phase::Waiting(pending),
                        begun: false,
                        keep_alive_in: KEEP_ALIVE_SECONDS,
                    });
                    self.backpressure.read_began();
                }
                Progress::Done(result) => self.respond(stream, head, None, result, gateway),
                Progress::Stream(_) | Progress::Watch => {}
            }
            return;
        }
        let result = reply::plain(head, extra, gateway);
        self.respond(stream, head, extra, result, gateway);
    }

    /// Ends a call with an error, whether or not its response has begun.
    fn fail(&mut self, stream: StreamId, call: &Call, status: Box<Status>, gateway: &mut Dispatcher) {
        if call.begun {
            self.end_stream(stream, call.head, Err(status));
        } else {
            self.respond(stream, call.head, None, Err(status), gateway);
        }
    }

    /// Begins a stream's response, unless it has begun.
    pub(super) fn begin_response(&mut self, stream: StreamId, gateway: &Dispatcher) {
        let Some(call) = self.call_mut(stream) else { return };
        if !std::mem::replace(&mut call.begun, true) {
            let head = call.head;
            self.send_stream_start(stream, head, gateway);
        }
    }

    /// Postpones the next keep-alive.
    pub(super) fn note_sent(&mut self, stream: StreamId) {
        if let Some(call) = self.call_mut(stream) {
            call.keep_alive_in = KEEP_ALIVE_SECONDS;
        }
    }

    /// Ends a stream after a message that could not be sent.
    fn give_up(&mut self, stream: StreamId, refused: Refused, gateway: &mut Dispatcher) {
        match refused {
            Refused::Unwritable(status) => {
                if let Some(call) = self.drop_body(stream) {
                    self.end_stream(stream, call.head, Err(status));
                    cancel_call(call, gateway);
                }
            }
            // A missing message would be an unnoticed gap.
            Refused::Unsendable => self.abandon(stream, gateway),
        }
    }

    /// Resets a stream and cancels its call.
    fn abandon(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        self.h2.reset(stream, ErrorCode::INTERNAL_ERROR);
        self.cancel(stream, gateway);
    }

    pub(super) fn ticket(&self, stream: StreamId) -> Ticket {
        Ticket {
            call: CallId::Stream(stream),
            ..self.address
        }
    }

    fn call_mut(&mut self, stream: StreamId) -> Option<&mut Call> {
        self.calls
            .get_mut(stream.slot())
            .and_then(Option::as_mut)
            .filter(|call| call.stream == stream)
    }

    #[inline]
    fn remove(&mut self, stream: StreamId) -> Option<Call> {
        let call = self
            .calls
            .get_mut(stream.slot())?
            .take_if(|call| call.stream == stream)?;
        if call.awaits_read() {
            self.backpressure.read_ended();
        }
        Some(call)
    }

    fn set_phase(&mut self, stream: StreamId, phase: Phase) {
        if let Some(call) = self.call_mut(stream) {
            call.phase = phase;
        }
    }

    /// Removes a call that may be receiving, with its part of the buffered bytes.
    fn drop_body(&mut self, stream: StreamId) -> Option<Call> {
        let call = self.remove(stream)?;
        if let Phase::Receiving(body) | Phase::Reflecting(body, _) | Phase::Held(body, _) = &call.phase {
            self.body_bytes -= body.len();
        }
        Some(call)
    }

    fn cancel(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        self.request_ids.take(stream.value());
        if let Some(call) = self.drop_body(stream) {
            cancel_call(call, gateway);
        }
    }
}

fn cancel_call(call: Call, gateway: &mut Dispatcher) {
    match call.phase {
        Phase::Waiting(mut pending) => gateway.cancel(&mut pending),
        Phase::Streaming(mut chunks) => chunks.cancel(gateway),
        Phase::Receiving(_)
        | Phase::Discarding(_)
        | Phase::Held(..)
        | Phase::Watching
        | Phase::Reflecting(..) => {}
    }
}
