//! The calls of one HTTP/2 connection: events of the protocol machine in, calls on the gateway, replies out.
//!
//! Synchronous throughout: one receive is processed to its end, with all replies appended to the connection's output,
//! before anything is sent. A unary call whose message lies whole in one DATA frame is served from the receive buffer
//! without being copied.

use std::time::Instant;

use prism_codec::{
    grpc::{self, Code, Status},
    h2::{Config, Connection, ErrorCode, Event, Input, StreamId},
};

use prost::Message as _;
use smallvec::SmallVec;

use super::unary;
use crate::{
    call::{
        job::Answer,
        ticket::{CallId, Ticket},
    },
    dispatch::{
        Dispatcher, Progress,
        pending::Pending,
        reflection,
        route::{Encoding, Format, Head, Route},
        scan::{Scan, ScanStep},
    },
};

/// Heads that one connection remembers. A client has a handful of methods and metadata sets; one that varies its head
/// more than this is decoded each time.
const HEADS_MAX: usize = 32;

/// A streaming reply pauses while more than this is queued for its client.
const STREAM_QUEUE_BYTES: usize = 1 << 20;

/// One HTTP/2 connection's calls.
pub(crate) struct H2Session {
    h2: Connection,
    heads: Vec<Head>,
    /// Indexed by the stream's slot.
    calls: Vec<Option<Call>>,
    /// Bytes of request bodies that are not complete yet.
    body_bytes: usize,
    body_bytes_max: usize,
    address: Ticket,
}

struct Call {
    stream: StreamId,
    head: Head,
    deadline: Option<Instant>,
    phase: Phase,
}

enum Phase {
    /// The request is not complete.
    Receiving(Vec<u8>),
    /// The answer is known and needs no body; so many bytes of it have come. The answer waits for the request's end, so
    /// that a malformed rest is still told as what it is, and a client that sends first and reads later is not cut off.
    Discarding(usize),
    /// A store, another shard or the control thread has it.
    Waiting(Box<Pending>),
    /// A Scan between pages or waiting for one.
    Scanning(Box<Scan>),
    /// A health watch: open until the client leaves.
    Watching,
    /// Server reflection: messages are answered as they come. The flag: the response has begun.
    Reflecting(Vec<u8>, bool),
}

impl H2Session {
    /// A server-side session. `address` is the ticket of this connection; its call is filled in for each stream.
    pub(crate) fn new(config: Config, address: Ticket, body_bytes_max: usize) -> Self {
        let h2 = Connection::new(config);
        Self {
            h2,
            heads: Vec::new(),
            calls: Vec::new(),
            body_bytes: 0,
            body_bytes_max,
            address,
        }
    }

    /// Processes what the kernel brought. Returns how many bytes are used up; the rest is the start of a frame.
    ///
    /// The flag is false when the peer broke the protocol: the output ends with GOAWAY and the connection must be closed
    /// after it is sent.
    pub(crate) fn handle_recv(
        &mut self,
        bytes: &[u8],
        now: Instant,
        gateway: &mut Dispatcher,
    ) -> (usize, bool) {
        let mut input = Input::new(bytes);
        loop {
            match self.h2.poll_event(&mut input) {
                Ok(None) => return (input.consumed(), true),
                Err(_) => return (input.consumed(), false),
                Ok(Some(event)) => match event {
                    Event::MemoHeaders {
                        stream,
                        memo,
                        end_stream,
                    } => {
                        let head = self.heads[memo as usize];
                        self.begin(stream, head, end_stream, now, gateway);
                    }
                    Event::Headers {
                        stream,
                        headers,
                        end_stream,
                        memoizable,
                    } => {
                        let head = Head::parse(headers);
                        if memoizable && let Some(memo) = self.remember(head) {
                            self.h2.memoize(memo);
                        }
                        self.begin(stream, head, end_stream, now, gateway);
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
                    Event::Writable { stream } => self.pump_scan(stream, gateway),
                    Event::GoAway { .. } | Event::Pong { .. } | Event::PeerSettings => {}
                },
            }
        }
    }

    /// Hands an answer to the call that waits for it. A call that is gone has no one to tell: the answer is dropped.
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
        let format = call.head.format;
        match &mut call.phase {
            Phase::Waiting(pending) => {
                let route = call.head.route;
                if let Some(result) = gateway.handle_answer(pending, result) {
                    self.remove(stream);
                    self.respond(stream, route, format, result, gateway);
                }
            }
            Phase::Scanning(scan) => {
                if scan.handle_page(result, gateway) {
                    self.pump_scan(stream, gateway);
                }
            }
            Phase::Receiving(_) | Phase::Discarding(_) | Phase::Watching | Phase::Reflecting(..) => {}
        }
    }

    /// Ends a call whose deadline has passed.
    pub(crate) fn handle_deadline(&mut self, ticket: Ticket, gateway: &mut Dispatcher) {
        let CallId::Stream(stream) = ticket.call else {
            return;
        };
        let Some(mut call) = self.remove(stream) else {
            return;
        };
        match &mut call.phase {
            Phase::Waiting(pending) => gateway.expire(pending),
            Phase::Scanning(scan) => scan.expire(gateway),
            Phase::Receiving(_) | Phase::Discarding(_) | Phase::Watching | Phase::Reflecting(..) => {}
        }
        self.respond(
            stream,
            call.head.route,
            call.head.format,
            Err(Box::new(deadline_exceeded())),
            gateway,
        );
    }

    /// Tells health watchers that the gateway is going away, and the peer to open no more streams.
    pub(crate) fn drain(&mut self, gateway: &mut Dispatcher) {
        for index in 0..self.calls.len() {
            if let Some(Call {
                stream,
                phase: Phase::Watching,
                ..
            }) = &self.calls[index]
            {
                let stream = *stream;
                // The empty name is always known, so this cannot fail.
                let _ = gateway.health(&[], false);
                let _ = self
                    .h2
                    .send_grpc_message(stream, false, |out| out.extend_from_slice(&gateway.reply));
                let _ = self.h2.send_grpc_ok(stream);
                self.remove(stream);
            }
        }
        self.h2.goaway();
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
        end_stream: bool,
        now: Instant,
        gateway: &mut Dispatcher,
    ) {
        if head.route.needs_no_body() && end_stream {
            return self.plain(stream, head, gateway);
        }
        let deadline = head.timeout.and_then(|timeout| now.checked_add(timeout));
        let phase = match head.route {
            Route::Reflection { .. } => Phase::Reflecting(Vec::new(), false),
            route if route.needs_no_body() => Phase::Discarding(0),
            _ => Phase::Receiving(Vec::new()),
        };
        let index = stream.slot();
        if index >= self.calls.len() {
            self.calls.resize_with(index + 1, || None);
        }
        self.calls[index] = Some(Call {
            stream,
            head,
            deadline,
            phase,
        });
        if end_stream {
            self.data(stream, &[], true, now, gateway);
        }
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
                    // The common case: nothing was kept back, so nothing is copied.
                    let (head, deadline) = (call.head, call.deadline);
                    return self.start(stream, head, deadline, data, now, gateway);
                }
                if body.len() + data.len() > gateway.limits().message_bytes_max + unary::PREFIX_BYTES {
                    let head = call.head;
                    self.drop_body(stream);
                    let status = unary::message_too_large(gateway.limits().message_bytes_max);
                    return self.respond(stream, head.route, head.format, Err(Box::new(status)), gateway);
                }
                if self.body_bytes + data.len() > self.body_bytes_max {
                    let head = call.head;
                    self.drop_body(stream);
                    let status = Status::new(
                        Code::ResourceExhausted,
                        "this connection has too many incomplete requests; send fewer large messages at once",
                    );
                    return self.respond(stream, head.route, head.format, Err(Box::new(status)), gateway);
                }
                body.extend_from_slice(data);
                self.body_bytes += data.len();
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
                    self.remove(stream);
                    self.plain(stream, head, gateway);
                }
            }
            Phase::Reflecting(body, _) => {
                if body.len() + data.len() > reflection::REQUEST_BYTES_MAX {
                    let head = call.head;
                    self.drop_body(stream);
                    let status = unary::message_too_large(reflection::REQUEST_BYTES_MAX);
                    return self.respond(stream, head.route, head.format, Err(Box::new(status)), gateway);
                }
                body.extend_from_slice(data);
                self.body_bytes += data.len();
                self.reflect(stream, end_stream, gateway);
            }
            Phase::Waiting(_) | Phase::Scanning(_) | Phase::Watching => {}
        }
    }

    /// The request of a unary or server-streaming call is complete.
    fn start(
        &mut self,
        stream: StreamId,
        head: Head,
        deadline: Option<Instant>,
        body: &[u8],
        now: Instant,
        gateway: &mut Dispatcher,
    ) {
        let ticket = Ticket {
            call: CallId::Stream(stream),
            ..self.address
        };
        let progress = match (head.format, head.encoding) {
            // Uncompressed gRPC, one message: served from where it lies.
            (Format::Grpc, Encoding::Known(_)) if unary::is_whole_plain_message(body) => {
                gateway.start(head.route, ticket, deadline, now, &body[unary::PREFIX_BYTES..])
            }
            _ => match unary::message(head, body, gateway) {
                Ok(message) => gateway.start(head.route, ticket, deadline, now, &message),
                Err(status) => Progress::Done(Err(status)),
            },
        };
        match progress {
            Progress::Done(Err(status))
                if head.encoding == Encoding::Unsupported && head.format == Format::Grpc =>
            {
                self.remove(stream);
                self.refuse_encoding(stream, &status);
            }
            Progress::Done(result) => {
                self.remove(stream);
                self.respond(stream, head.route, head.format, result, gateway);
            }
            Progress::Waiting(pending) => self.set_phase(stream, Phase::Waiting(pending)),
            Progress::Scan(_) if head.format != Format::Grpc => {
                self.remove(stream);
                self.respond(
                    stream,
                    head.route,
                    head.format,
                    Err(Box::new(unary::streaming_needs_grpc())),
                    gateway,
                );
            }
            Progress::Scan(scan) => {
                let _ = self.h2.send_grpc_headers(stream);
                self.set_phase(stream, Phase::Scanning(scan));
                self.pump_scan(stream, gateway);
            }
            Progress::Watch => {
                let _ = self.h2.send_grpc_headers(stream);
                let _ = self
                    .h2
                    .send_grpc_message(stream, false, |out| out.extend_from_slice(&gateway.reply));
                self.set_phase(stream, Phase::Watching);
            }
        }
    }

    /// Moves a Scan forward: sends the page that has come, asks for the next one unless the client is slow.
    fn pump_scan(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        let queued = self.h2.stream_queued(stream);
        let h2 = &mut self.h2;
        let Some(call) = self
            .calls
            .get_mut(stream.slot())
            .and_then(Option::as_mut)
            .filter(|call| call.stream == stream)
        else {
            return;
        };
        let Phase::Scanning(scan) = &mut call.phase else {
            return;
        };
        match scan.step(queued <= STREAM_QUEUE_BYTES, gateway) {
            ScanStep::Wait => {}
            ScanStep::Send { last } => {
                let message = scan.take_page();
                let _ = h2.send_grpc_message(stream, false, |out| out.extend_from_slice(&message));
                if last {
                    let _ = h2.send_grpc_ok(stream);
                    self.remove(stream);
                } else {
                    self.pump_scan(stream, gateway);
                }
            }
            ScanStep::Failed(status) => {
                let head = call.head;
                self.remove(stream);
                self.respond(stream, head.route, head.format, Err(status), gateway);
            }
        }
    }

    fn reflect(&mut self, stream: StreamId, end_stream: bool, gateway: &mut Dispatcher) {
        let Some(call) = self.calls.get_mut(stream.slot()).and_then(Option::as_mut) else {
            return;
        };
        let (Phase::Reflecting(body, begun), Route::Reflection { alpha }) =
            (&mut call.phase, call.head.route)
        else {
            return;
        };
        let head = call.head;
        let mut used = 0;
        let mut failed = None;
        while failed.is_none()
            && let Some(length) = unary::whole_message_length(&body[used..])
        {
            let envelope = &body[used..used + unary::PREFIX_BYTES + length];
            used += envelope.len();
            match unary::message(head, envelope, gateway)
                .and_then(|message| reflection::answer(&message, alpha, &mut gateway.reply))
            {
                Ok(()) => {
                    if !std::mem::replace(begun, true) {
                        let _ = self.h2.send_grpc_headers(stream);
                    }
                    let _ = self
                        .h2
                        .send_grpc_message(stream, false, |out| out.extend_from_slice(&gateway.reply));
                }
                Err(status) => failed = Some(status),
            }
        }
        body.drain(..used);
        let (rest, begun) = (body.len(), *begun);
        self.body_bytes -= used;
        if failed.is_none() && end_stream && rest > 0 {
            failed = Some(Box::new(Status::new(
                Code::InvalidArgument,
                "the stream ends within a message",
            )));
        }
        if let Some(status) = failed {
            self.drop_body(stream);
            self.respond(stream, head.route, head.format, Err(status), gateway);
        } else if end_stream {
            self.drop_body(stream);
            if !begun {
                let _ = self.h2.send_grpc_headers(stream);
            }
            let _ = self.h2.send_grpc_ok(stream);
        }
    }

    /// Requests that are not calls, or can't be one.
    fn plain(&mut self, stream: StreamId, head: Head, gateway: &mut Dispatcher) {
        if head.route == Route::Metrics {
            let ticket = Ticket {
                call: CallId::Stream(stream),
                ..self.address
            };
            match gateway.start_metrics(ticket) {
                Progress::Waiting(pending) => {
                    let call = Call {
                        stream,
                        head,
                        deadline: None,
                        phase: Phase::Waiting(pending),
                    };
                    let index = stream.slot();
                    if index >= self.calls.len() {
                        self.calls.resize_with(index + 1, || None);
                    }
                    self.calls[index] = Some(call);
                }
                Progress::Done(result) => self.respond(stream, head.route, head.format, result, gateway),
                Progress::Scan(_) | Progress::Watch => {}
            }
            return;
        }
        let result = gateway.plain(head.route);
        self.respond(stream, head.route, head.format, result, gateway);
    }

    /// Sends the reply: the message or body in `gateway.reply`, or an error, wrapped as the request was.
    fn respond(
        &mut self,
        stream: StreamId,
        route: Route,
        format: Format,
        result: Result<(), Box<Status>>,
        gateway: &mut Dispatcher,
    ) {
        // A stream that is gone in the meantime takes no reply; that is a cancelled call, not an error.
        let sent = match (format, result) {
            (Format::Grpc, Ok(())) => self
                .h2
                .send_grpc_reply(stream, |out| out.extend_from_slice(&gateway.reply)),
            (Format::Grpc, Err(status)) => {
                let details = (!status.details.is_empty()).then(|| status.to_proto().encode_to_vec());
                self.h2
                    .send_grpc_error(stream, status.code.as_u8(), &status.message, details.as_deref())
            }
            (_, result) => {
                let response = unary::http_response(route, format, result, gateway);
                let (status, length) = (response.status.to_string(), response.body.len().to_string());
                let mut fields: SmallVec<[(&[u8], &[u8]); 4]> = SmallVec::new();
                fields.push((b":status", status.as_bytes()));
                fields.push((b"content-type", response.content_type.as_bytes()));
                fields.push((b"content-length", length.as_bytes()));
                if let Some((name, value)) = response.extra {
                    fields.push((name.as_bytes(), value.as_bytes()));
                }
                let empty = response.body.is_empty();
                self.h2.send_headers(stream, &fields, empty).and_then(|()| {
                    if empty {
                        Ok(())
                    } else {
                        self.h2.send_data(stream, &response.body, true)
                    }
                })
            }
        };
        if sent.is_err() {
            gateway.metrics().cancelled.add(1);
            self.h2.reset(stream, ErrorCode::INTERNAL_ERROR);
        }
    }

    /// An error that also says which compressions are taken, as gRPC's compression document asks for.
    fn refuse_encoding(&mut self, stream: StreamId, status: &Status) {
        let code = status.code.as_u8().to_string();
        let fields: [(&[u8], &[u8]); 5] = [
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", code.as_bytes()),
            (b"grpc-message", status.message.as_bytes()),
            (b"grpc-accept-encoding", grpc::ACCEPT_ENCODING.as_bytes()),
        ];
        if self.h2.send_headers(stream, &fields, true).is_err() {
            self.h2.reset(stream, ErrorCode::INTERNAL_ERROR);
        }
    }

    fn call_mut(&mut self, stream: StreamId) -> Option<&mut Call> {
        self.calls
            .get_mut(stream.slot())
            .and_then(Option::as_mut)
            .filter(|call| call.stream == stream)
    }

    fn remove(&mut self, stream: StreamId) -> Option<Call> {
        self.calls
            .get_mut(stream.slot())?
            .take_if(|call| call.stream == stream)
    }

    fn set_phase(&mut self, stream: StreamId, phase: Phase) {
        if let Some(call) = self.call_mut(stream) {
            call.phase = phase;
        }
    }

    /// Removes a call that is still receiving, with its part of the buffered bytes.
    fn drop_body(&mut self, stream: StreamId) {
        if let Some(Call {
            phase: Phase::Receiving(body) | Phase::Reflecting(body, _),
            ..
        }) = self.remove(stream)
        {
            self.body_bytes -= body.len();
        }
    }

    fn cancel(&mut self, stream: StreamId, gateway: &mut Dispatcher) {
        let Some(call) = self.remove(stream) else { return };
        if let Phase::Receiving(body) | Phase::Reflecting(body, _) = &call.phase {
            self.body_bytes -= body.len();
        }
        cancel_call(call, gateway);
    }
}

fn cancel_call(call: Call, gateway: &mut Dispatcher) {
    match call.phase {
        Phase::Waiting(mut pending) => gateway.cancel(&mut pending),
        Phase::Scanning(mut scan) => scan.cancel(gateway),
        Phase::Receiving(_) | Phase::Discarding(_) | Phase::Watching | Phase::Reflecting(..) => {}
    }
}

fn deadline_exceeded() -> Status {
    Status::new(
        Code::DeadlineExceeded,
        "the deadline passed before the answer was ready",
    )
}
