//! The requests of one HTTP/1.1 connection: one at a time, in their order, as the protocol has it.

use std::time::Instant;

use prism_codec::{
    grpc::{Code, Status},
    http1::{self, Connection, Event, Response},
};

use super::unary;
use crate::{
    call::{
        job::Answer,
        ticket::{CallId, Ticket},
    },
    dispatch::{
        Dispatcher, Progress,
        pending::Pending,
        route::{Format, Head, Route},
    },
};

/// One HTTP/1.1 connection's requests.
pub(crate) struct H1Session {
    parser: Connection,
    output: Vec<u8>,
    request: Option<Request>,
    /// Number of the request that is being read or answered.
    number: u64,
    body_bytes_max: usize,
    draining: bool,
    /// Bytes of an incomplete request have been seen.
    incomplete: bool,
    address: Ticket,
}

struct Request {
    head: Head,
    head_only: bool,
    deadline: Option<Instant>,
    body: Vec<u8>,
    /// Set while the answer is awaited.
    pending: Option<Box<Pending>>,
}

impl H1Session {
    pub(crate) fn new(address: Ticket, body_bytes_max: usize) -> Self {
        Self {
            parser: Connection::new(body_bytes_max),
            output: Vec::new(),
            request: None,
            number: 0,
            body_bytes_max,
            draining: false,
            incomplete: false,
            address,
        }
    }

    /// Processes what the kernel brought. Returns how many bytes are used up, and whether the connection goes on.
    pub(crate) fn handle_recv(
        &mut self,
        bytes: &[u8],
        now: Instant,
        gateway: &mut Dispatcher,
    ) -> (usize, bool) {
        let mut rest = bytes;
        loop {
            // While a request is being answered the next one stays in the buffer: answers go out in order.
            if self.is_waiting() {
                break;
            }
            let before = rest;
            match self.parser.poll_event(&mut rest) {
                Ok(None) => {
                    self.incomplete = self.request.is_some() || !rest.is_empty();
                    break;
                }
                Ok(Some(Event::Head(head))) => self.begin(&head, now),
                Ok(Some(Event::Body(data))) => {
                    if let Some(request) = &mut self.request {
                        request.body.extend_from_slice(data);
                    }
                }
                Ok(Some(Event::End)) => {
                    self.incomplete = false;
                    self.start(now, gateway);
                }
                Err(error) => {
                    gateway.metrics().connections_failed.add(1);
                    // Who does not speak HTTP at all, or garbles the preface of HTTP/2, could not read an answer.
                    if self.request.is_some() || names_http(before) {
                        http1::put_error(&mut self.output, &error);
                    }
                    return (bytes.len() - rest.len(), false);
                }
            }
        }
        (
            bytes.len() - rest.len(),
            self.is_waiting() || self.parser.keep_alive(),
        )
    }

    fn begin(&mut self, head: &http1::Head<'_>, now: Instant) {
        self.number += 1;
        if head.expects_continue {
            http1::put_continue(&mut self.output);
        }
        let method = if head.method == "HEAD" { "GET" } else { head.method };
        let pseudo: [(&[u8], &[u8]); 2] = [
            (b":method", method.as_bytes()),
            (b":path", head.path().as_bytes()),
        ];
        let mut lower = Vec::new();
        for (name, value) in head.headers.iter() {
            lower.push((name.to_ascii_lowercase(), value));
        }
        let fields = lower.iter().map(|(name, value)| (name.as_bytes(), *value));
        let mut parsed = Head::from_fields(pseudo.into_iter().chain(fields));
        if parsed.format == Format::Grpc {
            // gRPC needs trailers and HTTP/2 framing.
            parsed.format = Format::Plain;
            parsed.route = Route::WrongContentType;
        }
        self.request = Some(Request {
            head: parsed,
            head_only: head.method == "HEAD",
            deadline: parsed.timeout.and_then(|timeout| now.checked_add(timeout)),
            body: Vec::new(),
            pending: None,
        });
    }

    fn start(&mut self, now: Instant, gateway: &mut Dispatcher) {
        let Some(request) = &mut self.request else { return };
        let head = request.head;
        let ticket = Ticket {
            call: CallId::Request(self.number),
            ..self.address
        };
        let body = std::mem::take(&mut request.body);
        debug_assert!(body.len() <= self.body_bytes_max);
        let progress = match head.route {
            Route::Metrics => gateway.start_metrics(ticket),
            Route::Healthz
            | Route::Readyz
            | Route::Welcome
            | Route::Unknown
            | Route::WrongMethod
            | Route::WrongContentType
            | Route::WrongTimeout => Progress::Done(gateway.plain(head.route)),
            Route::HealthWatch | Route::Reflection { .. } => {
                Progress::Done(Err(Box::new(unary::streaming_needs_grpc())))
            }
            Route::Call(_) | Route::Admin(_) | Route::HealthCheck => {
                match unary::message(head, &body, gateway) {
                    Ok(message) => gateway.start(head.route, ticket, request.deadline, now, &message),
                    Err(status) => Progress::Done(Err(status)),
                }
            }
        };
        match progress {
            Progress::Done(result) => self.respond(result, gateway),
            Progress::Waiting(pending) => request.pending = Some(pending),
            Progress::Scan(mut scan) => {
                scan.cancel(gateway);
                self.respond(Err(Box::new(unary::streaming_needs_grpc())), gateway);
            }
            Progress::Watch => self.respond(Err(Box::new(unary::streaming_needs_grpc())), gateway),
        }
    }

    /// Hands over the answer that the request waits for.
    pub(crate) fn handle_reply(
        &mut self,
        ticket: Ticket,
        result: Result<Answer, Box<Status>>,
        gateway: &mut Dispatcher,
    ) {
        if ticket.call != CallId::Request(self.number) {
            return;
        }
        let Some(pending) = self.request.as_mut().and_then(|request| request.pending.as_mut()) else {
            return;
        };
        if let Some(result) = gateway.handle_answer(pending, result) {
            self.respond(result, gateway);
        }
    }

    /// The request's deadline has passed.
    pub(crate) fn handle_deadline(&mut self, ticket: Ticket, gateway: &mut Dispatcher) {
        if ticket.call != CallId::Request(self.number) {
            return;
        }
        let Some(pending) = self.request.as_mut().and_then(|request| request.pending.as_mut()) else {
            return;
        };
        gateway.expire(pending);
        self.respond(Err(Box::new(deadline_exceeded())), gateway);
    }

    fn respond(&mut self, result: Result<(), Box<Status>>, gateway: &mut Dispatcher) {
        let Some(request) = self.request.take() else {
            return;
        };
        if self.draining {
            self.parser.close_after_request();
        }
        let response = unary::http_response(request.head.route, request.head.format, result, gateway);
        let extra = response.extra.map(|(name, value)| (name, value.as_bytes()));
        http1::put_response(
            &mut self.output,
            &Response {
                status: response.status,
                headers: extra.as_slice(),
                content_type: response.content_type,
                body: &response.body,
                keep_alive: self.parser.keep_alive(),
                head_only: request.head_only,
            },
        );
    }

    /// Closes after the request that is being answered, or at once if there is none.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        if self.request.is_none() {
            self.parser.close_after_request();
        }
    }

    /// The connection is gone.
    pub(crate) fn close(&mut self, gateway: &mut Dispatcher) {
        if let Some(Request {
            pending: Some(mut pending),
            ..
        }) = self.request.take()
        {
            gateway.cancel(&mut pending);
        }
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Requests are read one at a time, so that a client cannot pile them up.
    pub(crate) fn wants_read(&self) -> bool {
        !self.is_waiting()
    }

    /// Whether all is answered and no further request is wanted.
    pub(crate) fn is_drained(&self) -> bool {
        self.request.is_none() && !self.parser.keep_alive() && self.output.is_empty()
    }

    /// Whether a request has begun and not ended.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Whether no request is being read or answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.request.is_none() && !self.incomplete
    }

    fn is_waiting(&self) -> bool {
        self.request
            .as_ref()
            .is_some_and(|request| request.pending.is_some())
    }
}

/// Whether the first line says that it is HTTP, of whatever version.
fn names_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.windows(6).any(|window| window == b" HTTP/")
}

fn deadline_exceeded() -> Status {
    Status::new(
        Code::DeadlineExceeded,
        "the deadline passed before the answer was ready",
    )
}
