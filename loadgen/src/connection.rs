//! One connection of the client: a nonblocking socket, `codec::h2::Connection`, and the calls that
//! are under way on it.
//!
//! Moves bytes and turns events into ended requests. What to send next, time and counting are left
//! to the worker.

use std::io::{self, Read, Write};

use prism_codec::{
    h2::{self, ErrorCode, Event, Input, SendError, StreamId},
    method::KeyValueMethod,
};

use crate::{
    call::{Call, Fault},
    checker::Told,
    outcome::Outcome,
    plan::Plan,
    socket::Socket,
    workload::Workload,
};

/// The largest answer that is put together from pieces; larger ones are wrong.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A call that is under way.
#[derive(Debug)]
pub struct Flight {
    /// The call as it was sent.
    pub call: Call,
    /// When it was due, in nanoseconds since the start of the run.
    pub due_ns: u64,
    stream: StreamId,
    told: Told,
    messages: u32,
    wrong: Option<String>,
    /// Status of a trailers-only answer or HTTP error, known before the end.
    status: Option<Outcome>,
    /// A message that did not come in one piece.
    partial: Vec<u8>,
}

/// A request that ended.
#[derive(Debug)]
pub struct Ended {
    /// The call as it was sent, and when it was due.
    pub call: Call,
    /// When it was due, in nanoseconds since the start of the run.
    pub due_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Findings from its messages so far.
    pub told: Told,
    /// The first fault found, if any.
    pub wrong: Option<String>,
    /// The server's `grpc-message` of an error.
    pub message: Option<String>,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The handshake of TCP is under way.
    Connecting,
    /// Open.
    Up,
    /// Broken or not open yet; may be tried again at this time, in nanoseconds since the start of
    /// the run.
    Down {
        /// When to try again.
        retry_ns: u64,
    },
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// The socket; `None` while the link is down.
    pub socket: Option<Socket>,
    /// Where it stands.
    pub link: Link,
    /// Number of sockets that this connection has had, which separates timers of an older one.
    pub generation: u32,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// Whether the poller waits for the socket to take more bytes.
    pub waits_for_room: bool,
    h2: h2::Connection,
    streams_max: usize,
    open: usize,
    flights: Vec<Option<Flight>>,
    /// Bytes received that do not make a complete frame yet.
    received: Vec<u8>,
    /// Output that the kernel did not take yet.
    unsent: Vec<u8>,
    unsent_start: usize,
    going_away: bool,
    /// Bodies that are no longer in use, for the next large answer.
    spare: Vec<Vec<u8>>,
}

/// Why a connection is over.
#[derive(Debug)]
pub enum Broken {
    /// The peer closed it, or the kernel gave it up.
    Io(io::Error),
    /// The peer does not speak HTTP/2 as it should.
    Protocol(h2::ConnectionError),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Protocol(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<h2::ConnectionError> for Broken {
    fn from(error: h2::ConnectionError) -> Self {
        Self::Protocol(error)
    }
}

impl Client {
    /// A connection without a socket, for up to `streams_max` calls at a time.
    pub fn new(streams_max: usize) -> Self {
        Self {
            socket: None,
            link: Link::Down { retry_ns: 0 },
            generation: 0,
            failures: 0,
            waits_for_room: false,
            h2: h2::Connection::new(h2::Config::client()),
            streams_max,
            open: 0,
            flights: Vec::new(),
            received: Vec::new(),
            unsent: Vec::new(),
            unsent_start: 0,
            going_away: false,
            spare: Vec::new(),
        }
    }

    /// Begins to connect, without waiting.
    ///
    /// # Errors
    /// The kernel refuses at once.
    pub fn begin_connect(&mut self, plan: &Plan) -> io::Result<()> {
        let address = plan.address;
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM.nonblocking(),
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
            Err(error) => return Err(error),
        }
        self.socket = Some(Socket::new(socket.into(), plan.tls.as_ref())?);
        self.link = Link::Connecting;
        self.generation = self.generation.wrapping_add(1);
        self.waits_for_room = true;
        self.h2 = h2::Connection::new(h2::Config::client());
        self.received.clear();
        self.unsent.clear();
        self.unsent_start = 0;
        self.going_away = false;
        Ok(())
    }

    /// The socket of a connecting link has become writable: it is up, or the attempt failed.
    ///
    /// # Errors
    /// Why the attempt failed.
    pub fn finish_connect(&mut self) -> io::Result<()> {
        let error = match &self.socket {
            Some(socket) => socket.take_error()?,
            None => Some(io::ErrorKind::NotConnected.into()),
        };
        match error {
            Some(error) => Err(error),
            None => {
                self.link = Link::Up;
                self.failures = 0;
                Ok(())
            }
        }
    }

    /// Whether another call may be sent.
    pub fn has_room(&self) -> bool {
        self.link == Link::Up
            && self.open < self.streams_max
            && !self.going_away
            && self.unsent.is_empty()
            && self.h2.available_streams() > 0
    }

    /// Calls under way.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether the peer is going away and nothing is under way: time to connect anew.
    pub fn is_drained(&self) -> bool {
        self.link == Link::Up && self.going_away && self.open == 0
    }

    /// Whether a stream of this socket still carries a call.
    pub fn carries(&self, generation: u32, stream: StreamId) -> bool {
        self.generation == generation && self.flight(stream).is_some()
    }

    /// Writes a request into the output. Gives its stream; `None` when the peer takes no more calls
    /// now.
    pub fn start(
        &mut self,
        call: Call,
        due_ns: u64,
        headers: &h2::Fields<'_>,
        workload: &mut Workload,
    ) -> Option<StreamId> {
        let stream = match self.h2.send_request(headers, false) {
            Ok(stream) => stream,
            Err(SendError::GoingAway | SendError::ConnectionClosed) => {
                self.going_away = true;
                return None;
            }
            Err(_) => return None,
        };
        let flight = Flight {
            call,
            due_ns,
            stream,
            told: Told::default(),
            messages: 0,
            wrong: None,
            status: None,
            partial: self.spare.pop().unwrap_or_default(),
        };
        let slot = stream.slot();
        if slot >= self.flights.len() {
            self.flights.resize_with(slot + 1, || None);
        }
        debug_assert!(
            self.flights[slot].is_none(),
            "the codec gives a slot to one open stream only"
        );
        self.flights[slot] = Some(flight);
        self.open += 1;
        if call.fault == Some(Fault::CancelEarly) {
            // The prefix announces a message that never comes whole.
            let _ = self.h2.send_data(stream, &[0, 0, 0, 1, 0, 0xA], false);
        } else if self
            .h2
            .send_grpc_message(stream, true, |out| workload.encode(&call, out))
            .is_err()
        {
            // The queue towards the peer is full. The stream ends here; the worker sees it as
            // refused.
            self.h2.reset(stream, ErrorCode::CANCEL);
            self.drop_flight(slot);
            return None;
        }
        Some(stream)
    }

    /// Cancels a call that is under way; `None` when it has ended meanwhile.
    pub fn cut(&mut self, stream: StreamId, outcome: Outcome) -> Option<Ended> {
        self.flight(stream)?;
        self.h2.reset(stream, ErrorCode::CANCEL);
        self.end(stream, outcome, None)
    }

    /// Gives up the socket. Ends all calls that are under way.
    pub fn close(&mut self, outcome: Outcome, retry_ns: u64, ended: &mut Vec<Ended>) {
        for slot in 0..self.flights.len() {
            if let Some(flight) = self.flights[slot].take() {
                self.open -= 1;
                ended.push(Ended {
                    call: flight.call,
                    due_ns: flight.due_ns,
                    outcome,
                    told: flight.told,
                    wrong: flight.wrong,
                    message: None,
                });
            }
        }
        debug_assert_eq!(self.open, 0);
        self.socket = None;
        self.link = Link::Down { retry_ns };
    }

    /// A second has passed: gives back budget to the codec's defences.
    pub fn tick(&mut self) {
        self.h2.tick(1);
    }

    /// Says goodbye to the peer before the run ends.
    pub fn goodbye(&mut self) {
        if self.link == Link::Up {
            self.h2.goaway();
            // The run is over: whether the peer still receives it does not matter.
            let _ = self.flush();
        }
    }

    /// Hands the output to the kernel. Gives the bytes that it took; what it did not take waits for
    /// room.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> Result<usize, Broken> {
        let Some(socket) = &mut self.socket else {
            return Ok(0);
        };
        let mut sent = 0;
        loop {
            if self.unsent_start == self.unsent.len() {
                self.unsent_start = 0;
                let spare = std::mem::take(&mut self.unsent);
                if self.h2.output().is_empty() {
                    self.unsent = spare;
                    self.unsent.clear();
                    return match socket.flush() {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
                        _ => Ok(sent),
                    };
                }
                self.unsent = self.h2.take_output(spare);
            }
            match socket.write(&self.unsent[self.unsent_start..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => {
                    self.unsent_start += count;
                    sent += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether output waits for the kernel to take it.
    pub fn is_blocked(&self) -> bool {
        !self.unsent.is_empty() || self.socket.as_ref().is_some_and(Socket::holds_output)
    }

    /// Whether there is output to hand over.
    pub fn has_output(&mut self) -> bool {
        self.is_blocked() || !self.h2.output().is_empty()
    }

    /// Reads once and handles what came; requests that ended are appended to `ended`. Gives the
    /// bytes that were read. `buffer` is scratch space, shared by all connections of a thread.
    ///
    /// # Errors
    /// The connection is over. What ended before that is in `ended` nevertheless.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        workload: &Workload,
        ended: &mut Vec<Ended>,
    ) -> Result<usize, Broken> {
        let Some(socket) = &mut self.socket else {
            return Ok(0);
        };
        let kept = self.received.len();
        debug_assert!(
            kept < buffer.len(),
            "the rest of a frame is smaller than the buffer"
        );
        buffer[..kept].copy_from_slice(&self.received);
        let count = match socket.read(&mut buffer[kept..]) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = &buffer[..kept + count];
        let mut input = Input::new(bytes);
        self.handle_events(&mut input, workload, ended)?;
        self.received.clear();
        self.received.extend_from_slice(&bytes[input.consumed()..]);
        Ok(count)
    }

    fn handle_events(
        &mut self,
        input: &mut Input<'_>,
        workload: &Workload,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Broken> {
        while let Some(event) = self.h2.poll_event(input)? {
            match event {
                Event::Headers {
                    stream,
                    headers,
                    end_stream,
                    memoizable,
                } => {
                    let head = Head::of(headers.get(b":status"), headers.get(b"grpc-status"));
                    let message = headers.get(b"grpc-message").map(percent_decoded);
                    if memoizable && message.is_none() {
                        self.h2.memoize(head.0);
                    }
                    self.on_head(stream, head, message, end_stream, ended);
                }
                Event::MemoHeaders {
                    stream,
                    memo,
                    end_stream,
                } => {
                    self.on_head(stream, Head(memo), None, end_stream, ended);
                }
                Event::Data {
                    stream,
                    data,
                    end_stream,
                } => {
                    self.on_data(stream, data, workload);
                    let scan =
                        |flight: &Flight| flight.call.method() == KeyValueMethod::Scan && flight.messages > 0;
                    if self.flight(stream).is_some_and(scan) {
                        // One page is what a scan asks for; the rest of the stream is cancelled, as
                        // a client would.
                        self.h2.reset(stream, ErrorCode::CANCEL);
                        ended.extend(self.end(stream, Outcome::OK, None));
                    } else if end_stream {
                        // A gRPC answer ends with trailers; without them its status is unknown.
                        ended.extend(self.end(stream, Outcome::UNKNOWN, None));
                    }
                }
                Event::Trailers {
                    stream,
                    headers,
                    memoizable,
                } => {
                    let head = Head::of(Some(b"200"), headers.get(b"grpc-status"));
                    let message = headers.get(b"grpc-message").map(percent_decoded);
                    if memoizable && message.is_none() {
                        self.h2.memoize(head.0);
                    }
                    ended.extend(self.end(stream, head.outcome(), message));
                }
                Event::MemoTrailers { stream, memo } => {
                    ended.extend(self.end(stream, Head(memo).outcome(), None));
                }
                Event::Reset { stream, code } => {
                    let message = Some(format!("stream reset with {code}"));
                    ended.extend(self.end(stream, Outcome::from_reset(code.0), message));
                }
                Event::GoAway { .. } => self.going_away = true,
                Event::Writable { .. }
                | Event::Pong { .. }
                | Event::PeerSettings
                | Event::OversizedHeaders { .. } => {}
            }
        }
        Ok(())
    }

    fn on_head(
        &mut self,
        stream: StreamId,
        head: Head,
        message: Option<String>,
        end_stream: bool,
        ended: &mut Vec<Ended>,
    ) {
        if end_stream {
            ended.extend(self.end(stream, head.outcome(), message));
            return;
        }
        let Some(flight) = self.flight_mut(stream) else {
            return;
        };
        if flight.call.fault == Some(Fault::CancelAnswered) {
            ended.extend(self.cut(stream, Outcome::CUT));
        } else if !head.is_http_ok() {
            flight.status = Some(head.outcome());
        }
    }

    fn on_data(&mut self, stream: StreamId, data: &[u8], workload: &Workload) {
        let Some(flight) = self.flight_mut(stream) else {
            return;
        };
        if flight.wrong.is_some() || flight.status.is_some() {
            return;
        }
        // The usual case: the piece is exactly one message.
        if flight.partial.is_empty()
            && let [0, a, b, c, d, message @ ..] = data
            && u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len()
        {
            flight.take_message(message, workload);
            return;
        }
        if flight.partial.len() + data.len() > ANSWER_BYTES_MAX {
            flight.wrong = Some(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
            return;
        }
        let mut partial = std::mem::take(&mut flight.partial);
        partial.extend_from_slice(data);
        let mut rest = &partial[..];
        while let [compressed, a, b, c, d, tail @ ..] = rest
            && let Some((message, behind)) =
                tail.split_at_checked(u32::from_be_bytes([*a, *b, *c, *d]) as usize)
        {
            if *compressed != 0 {
                flight.wrong = Some("a compressed message, although none was accepted".to_owned());
            }
            flight.take_message(message, workload);
            rest = behind;
        }
        let consumed = partial.len() - rest.len();
        partial.drain(..consumed);
        flight.partial = partial;
    }

    /// Ends the call of a stream; `None` when it has none (any more).
    fn end(&mut self, stream: StreamId, outcome: Outcome, message: Option<String>) -> Option<Ended> {
        self.flight(stream)?;
        let flight = self.drop_flight(stream.slot())?;
        let outcome = flight.status.unwrap_or(outcome);
        let mut wrong = flight.wrong;
        if outcome == Outcome::OK && wrong.is_none() {
            if !flight.partial.is_empty() {
                wrong = Some("an OK answer ended within a message".to_owned());
            } else if flight.messages != 1 && flight.call.method() != KeyValueMethod::Scan {
                wrong = Some(format!(
                    "an OK answer with {} messages instead of one",
                    flight.messages
                ));
            }
        }
        let mut partial = flight.partial;
        if partial.capacity() > 0 {
            partial.clear();
            self.spare.push(partial);
        }
        Some(Ended {
            call: flight.call,
            due_ns: flight.due_ns,
            outcome,
            told: flight.told,
            wrong,
            message,
        })
    }

    fn drop_flight(&mut self, slot: usize) -> Option<Flight> {
        let flight = self.flights.get_mut(slot)?.take()?;
        self.open -= 1;
        Some(flight)
    }

    fn flight(&self, stream: StreamId) -> Option<&Flight> {
        self.flights
            .get(stream.slot())?
            .as_ref()
            .filter(|flight| flight.stream == stream)
    }

    fn flight_mut(&mut self, stream: StreamId) -> Option<&mut Flight> {
        self.flights
            .get_mut(stream.slot())?
            .as_mut()
            .filter(|flight| flight.stream == stream)
    }
}

impl Flight {
    fn take_message(&mut self, message: &[u8], workload: &Workload) {
        self.messages += 1;
        match workload.check(&self.call, message) {
            Ok(told) => self.told = told,
            Err(wrong) => self.wrong = Some(wrong),
        }
    }
}

/// Status fields of a header block, packed into the number that the connection remembers for it:
/// the HTTP status and, plus one, the gRPC status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head(u32);

impl Head {
    fn of(http_status: Option<&[u8]>, grpc_status: Option<&[u8]>) -> Self {
        let http = http_status.and_then(number).unwrap_or(0);
        let grpc = grpc_status.map_or(0, |text| number(text).unwrap_or(2).min(99) + 1);
        Self(http << 8 | grpc)
    }

    fn is_http_ok(self) -> bool {
        self.0 >> 8 == 200
    }

    /// The outcome of an answer that ends with this block.
    fn outcome(self) -> Outcome {
        match (self.0 & 0xFF, self.0 >> 8) {
            (0, 200) => Outcome::UNKNOWN,
            (0, http) => Outcome::from_http_status(http as u16),
            (grpc, _) => Outcome::from_code(grpc - 1),
        }
    }
}

/// A short decimal number; `None` for anything else.
fn number(text: &[u8]) -> Option<u32> {
    match text {
        [] | [_, _, _, _, ..] => None,
        digits => digits.iter().try_fold(0, |number, digit| match digit {
            b'0'..=b'9' => Some(number * 10 + u32::from(digit - b'0')),
            _ => None,
        }),
    }
}

/// A `grpc-message` for people ("gRPC over HTTP2": percent-encoded UTF-8).
fn percent_decoded(text: &[u8]) -> String {
    let hex = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, behind @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                decoded.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = behind;
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// EINPROGRESS on Linux: a nonblocking connect that goes on in the background.
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_become_outcomes() {
        assert_eq!(Head::of(Some(b"200"), Some(b"0")).outcome(), Outcome::OK);
        assert_eq!(
            Head::of(Some(b"200"), Some(b"14")).outcome(),
            Outcome::UNAVAILABLE
        );
        assert_eq!(Head::of(Some(b"200"), Some(b"x")).outcome(), Outcome::UNKNOWN);
        assert_eq!(
            Head::of(Some(b"200"), Some(b"999999999999")).outcome(),
            Outcome::UNKNOWN
        );
        assert_eq!(Head::of(Some(b"200"), None).outcome(), Outcome::UNKNOWN);
        assert_eq!(Head::of(Some(b"503"), None).outcome(), Outcome::UNAVAILABLE);
        assert!(!Head::of(None, None).is_http_ok());
    }

    #[test]
    fn messages_are_decoded_for_people() {
        assert_eq!(
            percent_decoded(b"no such namespace %22a%22"),
            "no such namespace \"a\""
        );
        assert_eq!(percent_decoded(b"50% off %zz %2"), "50% off %zz %2");
        assert_eq!(percent_decoded(b"%E2%9C%93"), "✓");
    }
}
