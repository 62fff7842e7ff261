//! Requests of one HTTP/1.1 connection: one at a time, in their order, as the protocol demands.

use std::time::Instant;

use prism_codec::{
    format::{Format, KEEP_ALIVE},
    grpc::{Code, Status},
    http1::{self, Connection, Event, HttpError, Version},
};

use super::{h1_reply::Reply, h2_session::KEEP_ALIVE_SECONDS, lifetime, reply, request_id, unary};
use crate::{
    call::{
        error::{self, Stage},
        job::Answer,
        ticket::{CallId, Ticket},
    },
    config::ServeLimits,
    dispatch::{
        Dispatcher, Progress,
        head::{Extra, Head},
        pending::Pending,
        reflection,
        route::Route,
        stream::{Stream, StreamStep},
    },
};

/// Bytes waiting for its client above which a streaming reply pauses.
const STREAM_QUEUE_BYTES: usize = 1 << 20;

/// Largest known length, in bytes, of a body that is awaited before the request is refused.
const SHORT_BODY_BYTES: u64 = 64 << 10;

/// Requests of one HTTP/1.1 connection.
pub(crate) struct H1Session {
    parser: Connection,
    output: Vec<u8>,
    /// Bytes of earlier output that the kernel has not taken yet.
    sending: usize,
    /// Bytes that may wait for the client; above it no further request is processed.
    output_bytes_max: usize,
    request: Option<Request>,
    /// Number of the request being read or answered.
    number: u64,
    body_bytes_max: usize,
    draining: bool,
    /// Moment since which bytes of an incomplete request have been seen.
    incomplete: Option<u32>,
    /// Age of the connection in seconds.
    clock: u32,
    address: Ticket,
}

struct Request {
    head: Head,
    extra: Option<Box<Extra>>,
    version: Version,
    deadline: Option<Instant>,
    body: Vec<u8>,
    phase: Phase,
    /// Whether the response has begun.
    begun: bool,
    /// Seconds until a stream of events needs a keep-alive.
    keep_alive_in: u8,
}

enum Phase {
    /// The request is not complete.
    Receiving,
    /// A store, another shard or the control thread has it.
    Waiting(Box<Pending>),
    /// A stream between chunks or waiting for one.
    Streaming(Box<Stream>),
    /// A health watch: open until the client leaves.
    Watching,
}

impl Request {
    fn given_id(&self) -> Option<&str> {
        self.extra.as_deref()?.request_id.as_deref()
    }
}

impl H1Session {
    pub(crate) fn new(address: Ticket, message_bytes_max: usize, output_bytes_max: usize) -> Self {
        let body_bytes_max = unary::body_bytes_max(Format::GrpcWebText, message_bytes_max);
        Self {
            parser: Connection::new(body_bytes_max),
            output: Vec::new(),
            sending: 0,
            output_bytes_max,
            request: None,
            number: 0,
            body_bytes_max,
            draining: false,
            incomplete: None,
            clock: 0,
            address,
        }
    }

    /// Processes the received bytes. Returns the number of bytes consumed, and whether the
    /// connection goes on.
    pub(crate) fn handle_recv(
        &mut self,
        bytes: &[u8],
        now: Instant,
        gateway: &mut Dispatcher,
    ) -> (usize, bool) {
        let mut rest = bytes;
        loop {
            // While a request is being answered the next one stays in the buffer: answers are sent
            // in order, and no faster than the client reads them.
            if !self.wants_read() {
                break;
            }
            let before = rest;
            match self.parser.poll_event(&mut rest) {
                Ok(None) => {
                    let begun = self.request.is_some() || !rest.is_empty();
                    self.incomplete = begun.then(|| self.incomplete.unwrap_or(self.clock));
                    break;
                }
                Ok(Some(Event::Head(head))) => {
                    if self.begin(&head, now, gateway) {
                        self.start(now, gateway);
                        return (bytes.len(), false);
                    }
                }
                Ok(Some(Event::Body(data))) => {
                    if let Some(request) = &mut self.request {
                        request.body.extend_from_slice(data);
                    }
                }
                Ok(Some(Event::End)) => {
                    self.incomplete = None;
                    self.start(now, gateway);
                }
                Err(error) => {
                    gateway.metrics().connections_failed.add(1);
                    // A client that does not speak HTTP at all, or garbles the preface of HTTP/2,
                    // could not read an answer.
                    if self.request.is_some() || names_http(before) {
                        http1::put_error(&mut self.output, &error);
                    }
                    return (bytes.len() - rest.len(), false);
                }
            }
        }
        (
            bytes.len() - rest.len(),
            // A request of which only the head has arrived still gets an answer.
            self.request.is_some() || !self.wants_read() || self.parser.keep_alive(),
        )
    }

    /// Processes a request's head. True: it is refused without its body, and the connection ends.
    fn begin(&mut self, head: &http1::Head<'_>, now: Instant, gateway: &Dispatcher) -> bool {
        self.number += 1;
        let target = head.path_and_query();
        let pseudo: [(&[u8], &[u8]); 3] = [
            (b":method", head.method.as_bytes()),
            (b":path", target.as_bytes()),
            // RFC 9112, 3.2.2: a target in absolute form takes precedence over the host field.
            (b":authority", head.authority().as_bytes()),
        ];
        let mut lower = Vec::new();
        for (name, value) in head.headers.iter() {
            lower.push((name.to_ascii_lowercase(), value));
        }
        let fields = lower.iter().map(|(name, value)| (name.as_bytes(), *value));
        let (parsed, extra) = Head::from_fields(pseudo.into_iter().chain(fields), false, gateway.http());
        self.request = Some(Request {
            head: parsed,
            extra,
            version: head.version,
            deadline: parsed.timeout.and_then(|timeout| now.checked_add(timeout)),
            body: Vec::new(),
            phase: Phase::Receiving,
            begun: false,
            keep_alive_in: KEEP_ALIVE_SECONDS,
        });
        // A client that waits for permission to send its body, or has a long body or one without a
        // known end, gets its answer now: a client that keeps its side open would wait for ever. A
        // short body is in flight; it costs less than a new connection.
        if parsed.route.is_error() && (head.expects_continue || head.body_left > SHORT_BODY_BYTES) {
            self.parser.close();
            self.incomplete = None;
            return true;
        }
        if head.expects_continue {
            http1::put_continue(&mut self.output);
        }
        false
    }

    /// Starts a complete request.
    fn start(&mut self, now: Instant, gateway: &mut Dispatcher) {
        let ticket = self.ticket();
        let Some(request) = &mut self.request else { return };
        let head = request.head;
        let body = std::mem::take(&mut request.body);
        debug_assert!(body.len() <= self.body_bytes_max);
        let progress = match head.route {
            Route::Metrics => gateway.start_metrics(ticket),
            route if route.needs_no_body() => {
                Progress::Done(reply::plain(head, request.extra.as_deref(), gateway))
            }
            Route::Reflection { alpha } => return self.reflect(&body, alpha, gateway),
            route => match unary::message(head, request.extra.as_deref(), &body, gateway) {
                Ok(message) => gateway.start(route, ticket, request.deadline, now, &message),
                Err(status) => Progress::Done(Err(status)),
            },
        };
        match progress {
            Progress::Done(result) => self.respond(result, gateway),
            Progress::Waiting(pending) => request.phase = Phase::Waiting(pending),
            Progress::Stream(chunks) => {
                request.phase = Phase::Streaming(chunks);
                self.pump(gateway);
                // No message yet: the response begins, so that the client knows that its call is
                // running.
                self.begin_response(gateway);
            }
            Progress::Watch => {
                request.phase = Phase::Watching;
                let first = std::mem::take(&mut gateway.reply);
                let sent = self.send_message(&first, gateway);
                if sent.is_err() || self.draining {
                    self.end(sent, gateway);
                }
                gateway.reply = first;
            }
        }
    }

    /// Answers a dialogue with all its requests complete: HTTP/1.1 can only be half-duplex.
    fn reflect(&mut self, body: &[u8], alpha: bool, gateway: &mut Dispatcher) {
        let Some(head) = self.request.as_ref().map(|request| request.head) else {
            return;
        };
        let mut rest = body;
        while let Some(length) = unary::whole_message_length(rest) {
            let (envelope, after) = rest.split_at(unary::PREFIX_BYTES + length);
            rest = after;
            let answered = unary::message(head, None, envelope, gateway)
                .and_then(|message| reflection::answer(&message, alpha, &mut gateway.reply));
            let answer = std::mem::take(&mut gateway.reply);
            let sent = answered.and_then(|()| self.send_message(&answer, gateway));
            gateway.reply = answer;
            if let Err(status) = sent {
                return self.end(Err(status), gateway);
            }
        }
        let status = Status::new(Code::InvalidArgument, "the stream ends within a message");
        self.end(
            if rest.is_empty() {
                Ok(())
            } else {
                Err(Box::new(status))
            },
            gateway,
        );
    }

    /// Passes the request the answer for which it waits.
    pub(crate) fn handle_reply(
        &mut self,
        ticket: Ticket,
        result: Result<Answer, Box<Status>>,
        gateway: &mut Dispatcher,
    ) {
        if ticket.call != CallId::Request(self.number) {
            return;
        }
        match self.request.as_mut().map(|request| &mut request.phase) {
            Some(Phase::Waiting(pending)) => {
                if let Some(result) = gateway.handle_answer(pending, result) {
                    self.respond(result, gateway);
                }
            }
            Some(Phase::Streaming(chunks)) => {
                if chunks.handle_answer(result, gateway) {
                    self.pump(gateway);
                }
            }
            Some(Phase::Receiving | Phase::Watching) | None => {}
        }
    }

    /// Ends a stream or a waiting call whose caller has lost its permission.
    pub(crate) fn check_again(&mut self, gateway: &mut Dispatcher) {
        let Some(request) = &mut self.request else { return };
        let ticket = match &request.phase {
            Phase::Streaming(chunks) => *chunks.ticket(),
            Phase::Waiting(pending) if pending.waits_for_more() => pending.ticket,
            _ => return,
        };
        let method = request.head.route.method();
        let checked = method.map_or(Ok(()), |method| gateway.check_again(&ticket, method));
        let Err(status) = checked else { return };
        match &mut request.phase {
            Phase::Streaming(chunks) => drop(chunks.end_with(status.clone(), gateway)),
            Phase::Waiting(pending) => gateway.revoke(pending),
            Phase::Receiving | Phase::Watching => {}
        }
        self.end(Err(status), gateway);
    }

    /// Ends the request after its deadline.
    pub(crate) fn handle_deadline(&mut self, ticket: Ticket, gateway: &mut Dispatcher) {
        if ticket.call != CallId::Request(self.number) {
            return;
        }
        match self.request.as_mut().map(|request| &mut request.phase) {
            Some(Phase::Waiting(pending)) => gateway.expire(pending),
            Some(Phase::Streaming(chunks)) => chunks.expire(gateway),
            Some(Phase::Receiving | Phase::Watching) | None => return,
        }
        self.end(Err(error::deadline_exceeded(Stage::Answer)), gateway);
    }

    /// Moves a stream forward: writes the message that has arrived, and asks for the next one
    /// unless the client is slow. Called again when output has been sent.
    pub(crate) fn pump(&mut self, gateway: &mut Dispatcher) {
        loop {
            let may_ask = self.output.len() + self.sending <= STREAM_QUEUE_BYTES;
            let Some(Phase::Streaming(chunks)) = self.request.as_mut().map(|request| &mut request.phase)
            else {
                return;
            };
            match chunks.step(may_ask, gateway) {
                StreamStep::Wait => return,
                StreamStep::Send { last } => {
                    let message = chunks.take_message();
                    if let Err(status) = self.send_message(&message, gateway) {
                        if !last {
                            self.cancel(gateway);
                        }
                        return self.end(Err(status), gateway);
                    }
                    if last {
                        return self.end(Ok(()), gateway);
                    }
                }
                StreamStep::Failed(status) => return self.end(Err(status), gateway),
            }
        }
    }

    /// Writes a message of a stream.
    fn send_message(&mut self, message: &[u8], gateway: &mut Dispatcher) -> Result<(), Box<Status>> {
        self.begin_response(gateway);
        let Some(request) = &mut self.request else {
            return Ok(());
        };
        request.keep_alive_in = KEEP_ALIVE_SECONDS;
        let mut written = Vec::new();
        reply::put_message(request.head, message, gateway, &mut written)?;
        Reply::of(request.version).put(&mut self.output, &written);
        Ok(())
    }

    fn begin_response(&mut self, gateway: &Dispatcher) {
        let Some(request) = &mut self.request else { return };
        if std::mem::replace(&mut request.begun, true) {
            return;
        }
        let reply = Reply::of(request.version);
        if self.draining || reply == Reply::UntilClose {
            self.parser.close_after_request();
        }
        let mut start = reply::stream_start(request.head, gateway);
        if let Some(id) = request.given_id() {
            start.put_request_id(id);
        }
        reply.begin(&mut self.output, &start, self.parser.keep_alive());
        reply.put(&mut self.output, &start.body);
    }

    /// Ends a stream, or fails a request that has no response yet.
    fn end(&mut self, result: Result<(), Box<Status>>, gateway: &mut Dispatcher) {
        if result.is_ok() {
            self.begin_response(gateway);
        }
        match &self.request {
            Some(request) if request.begun => {
                let reply = Reply::of(request.version);
                let mut end = Vec::new();
                let (_, result) = self.name_failure(request, result);
                let result = result.as_ref().copied().map_err(|status| &**status);
                reply::put_stream_end(request.head, result, &mut end);
                reply.put(&mut self.output, &end);
                reply.end(&mut self.output);
                self.request = None;
            }
            _ => self.respond(result, gateway),
        }
    }

    fn respond(&mut self, result: Result<(), Box<Status>>, gateway: &mut Dispatcher) {
        let Some(request) = self.request.take() else {
            return;
        };
        if self.draining {
            self.parser.close_after_request();
        }
        let (id, result) = self.name_failure(&request, result);
        let mut response = reply::whole(request.head, request.extra.as_deref(), result, gateway);
        if let Some(id) = &id {
            response.put_request_id(id);
        }
        Reply::whole(
            &mut self.output,
            &response,
            request.head.head_only,
            self.parser.keep_alive(),
        );
    }

    /// Names a request that failed. Returns the id that the reply carries.
    fn name_failure(
        &self,
        request: &Request,
        result: Result<(), Box<Status>>,
    ) -> (Option<Box<str>>, Result<(), Box<Status>>) {
        let given = request.given_id().map(Box::from);
        request_id::name_failure(request.head, given, || self.ticket(), result)
    }

    fn ticket(&self) -> Ticket {
        Ticket {
            call: CallId::Request(self.number),
            ..self.address
        }
    }

    /// Closes after the request being answered, or at once if there is none. A health watch ends,
    /// and so does a subscription.
    pub(crate) fn drain(&mut self, gateway: &mut Dispatcher) {
        self.draining = true;
        match self.request.as_mut().map(|request| &mut request.phase) {
            None => self.parser.close_after_request(),
            Some(Phase::Watching) => {
                self.parser.close_after_request();
                // The empty name is always known, so this cannot fail.
                let _ = gateway.health(&[], false);
                let last = std::mem::take(&mut gateway.reply);
                let sent = self.send_message(&last, gateway);
                gateway.reply = last;
                self.end(sent, gateway);
            }
            Some(Phase::Streaming(chunks)) if chunks.is_endless() => {
                // The client subscribes elsewhere, and misses nothing.
                let status = chunks.drain(gateway);
                self.parser.close_after_request();
                self.end(Err(status), gateway);
            }
            Some(Phase::Receiving | Phase::Waiting(_) | Phase::Streaming(_)) => {}
        }
    }

    /// Advances the time by some seconds: sends a keep-alive on a stream of events, and answers a
    /// request that is slower than allowed.
    pub(crate) fn tick(&mut self, seconds: u32, limits: &ServeLimits) {
        self.clock = self.clock.saturating_add(seconds);
        self.keep_stream_alive(seconds);
        let Some(since) = self.incomplete else { return };
        if !self.wants_read() {
            // The client was not read from, so the time does not count against it.
            self.incomplete = Some(self.clock);
            return;
        }
        let received = self.request.as_ref().map_or(0, |request| request.body.len());
        if lifetime::is_late(self.clock - since, received, limits) {
            self.time_out();
        }
    }

    fn keep_stream_alive(&mut self, seconds: u32) {
        let Some(request) = &mut self.request else { return };
        if request.head.format != Format::Sse || !request.begun {
            return;
        }
        let seconds = u8::try_from(seconds).unwrap_or(u8::MAX);
        request.keep_alive_in = request.keep_alive_in.saturating_sub(seconds);
        if request.keep_alive_in == 0 {
            request.keep_alive_in = KEEP_ALIVE_SECONDS;
            Reply::of(request.version).put(&mut self.output, KEEP_ALIVE);
        }
    }

    /// Answers a request that is not complete in time.
    pub(crate) fn time_out(&mut self) {
        let error = HttpError {
            status: 408,
            message: "the request did not become complete in time; nothing was done",
        };
        http1::put_error(&mut self.output, &error);
        self.parser.close();
        self.request = None;
        self.incomplete = None;
    }

    /// Forgets the request: the connection is gone.
    pub(crate) fn close(&mut self, gateway: &mut Dispatcher) {
        self.cancel(gateway);
        self.request = None;
    }

    fn cancel(&mut self, gateway: &mut Dispatcher) {
        match self.request.as_mut().map(|request| &mut request.phase) {
            Some(Phase::Waiting(pending)) => gateway.cancel(pending),
            Some(Phase::Streaming(chunks)) => chunks.cancel(gateway),
            Some(Phase::Receiving | Phase::Watching) | None => {}
        }
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        self.sending = self.output.len();
        std::mem::take(&mut self.output)
    }

    /// Sets the number of bytes of the last output that the kernel has not taken.
    pub(crate) fn set_sending(&mut self, bytes: usize) {
        self.sending = bytes;
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether to read: requests are read one at a time, and not while much waits for the client,
    /// so that it cannot pile them up.
    pub(crate) fn wants_read(&self) -> bool {
        !self.is_waiting() && self.output.len() + self.sending < self.output_bytes_max
    }

    /// Whether all requests are answered and no further one is wanted.
    pub(crate) fn is_drained(&self) -> bool {
        self.request.is_none() && !self.parser.keep_alive() && self.output.is_empty()
    }

    /// Number of requests being read or answered.
    pub(crate) fn open_calls(&self) -> usize {
        usize::from(self.request.is_some())
    }

    /// Number of requests with a head so far.
    pub(crate) fn calls_begun(&self) -> u64 {
        self.number
    }

    fn is_waiting(&self) -> bool {
        self.request
            .as_ref()
            .is_some_and(|request| !matches!(request.phase, Phase::Receiving))
    }
}

/// Whether the first line names HTTP, of whatever version.
fn names_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.windows(6).any(|window| window == b" HTTP/")
}
