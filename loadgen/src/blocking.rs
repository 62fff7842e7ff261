//! A blocking client for one unary call at a time, with the same disturbances on purpose as the
//! connections of a KeyValue load: calls that are cancelled, that run out of time, and connections
//! that are dropped.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use prism_codec::h2::{self, ErrorCode, Event, Input, StreamId};

use crate::{
    call::Fault,
    outcome::Outcome,
    plan::{Plan, grpc_timeout},
    random::Random,
    socket::Socket,
};

/// Longest wait for an answer without a deadline.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);

/// Why a call brought no message.
#[derive(Debug)]
pub enum CallError {
    /// The server could not be reached, or broke the connection.
    Io(io::Error),
    /// The server refused, or the call was ended here: its code and message.
    Refused(Outcome, String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(outcome, message) => write!(f, "{outcome}: {message}"),
        }
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Bounds and disturbance of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// How long it may take (grpc-timeout); `None`: ten seconds, of which the server knows nothing.
    pub deadline: Option<Duration>,
    /// The disturbance, if any.
    pub fault: Option<Fault>,
}

/// A connection for one unary call at a time.
pub struct Blocking<'h> {
    socket: Socket,
    h2: h2::Connection,
    received: Vec<u8>,
    buffer: Vec<u8>,
    plan: &'h Plan,
}

/// State of the call that is under way.
struct Flight {
    stream: StreamId,
    body: Vec<u8>,
    /// Whether the head of the answer has come.
    answered: bool,
}

impl<'h> Blocking<'h> {
    /// Connects; every later read waits at most ten seconds.
    ///
    /// # Errors
    /// The server can not be reached.
    pub fn connect(plan: &'h Plan) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&plan.address, PATIENCE)?;
        socket.set_nodelay(true)?;
        let h2 = h2::Connection::new(h2::Config::client());
        Ok(Self {
            socket: Socket::new(socket, plan.tls.as_ref())?,
            h2,
            received: Vec::new(),
            buffer: vec![0; 64 << 10],
            plan,
        })
    }

    /// Makes one unary call and gives the message of the answer.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn call(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_as(path, message, &Manner::default())
    }

    /// Makes one unary call within these bounds and with this disturbance. A call that ends for one
    /// of the two is refused as DEADLINE_EXCEEDED or CUT.
    ///
    /// # Errors
    /// The server refused, the call was ended here, or the connection broke. After an error of I/O
    /// and a disconnect the connection is of no use any more.
    pub fn call_as(&mut self, path: &str, message: &[u8], manner: &Manner) -> Result<Vec<u8>, CallError> {
        let stream = self.begin(path, message, manner)?;
        let begun = Instant::now();
        if matches!(manner.fault, Some(Fault::CancelEarly | Fault::CancelSent)) {
            return Err(self.cut(stream, Outcome::CUT));
        }
        let mut flight = Flight {
            stream,
            body: Vec::new(),
            answered: false,
        };
        let (ends_at, ended_as) = end_of(begun, manner);
        loop {
            self.socket.write_all(self.h2.output())?;
            self.h2.output().clear();
            let left = ends_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.run_out(stream, ended_as, manner));
            }
            self.socket.tcp().set_read_timeout(Some(left))?;
            let count = match self.socket.read(&mut self.buffer) {
                Ok(count) => count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.received.extend_from_slice(&self.buffer[..count]);
            let end = self.take(&mut flight)?;
            if manner.fault == Some(Fault::CancelAnswered) && flight.answered {
                return Err(self.cut(stream, Outcome::CUT));
            }
            match end {
                None => {}
                Some((Outcome::OK, _)) => {
                    return match flight.body.get(5..) {
                        Some(message) if flight.body[0] == 0 => Ok(message.to_vec()),
                        _ => Err(CallError::Refused(
                            Outcome::INTERNAL,
                            "OK without a plain message".to_owned(),
                        )),
                    };
                }
                Some((outcome, message)) => return Err(CallError::Refused(outcome, message)),
            }
        }
    }

    /// Writes the request into the output.
    fn begin(&mut self, path: &str, message: &[u8], manner: &Manner) -> io::Result<StreamId> {
        let timeout = manner.deadline.map(grpc_timeout).unwrap_or_default();
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", self.plan.scheme()),
            (b":path", path.as_bytes()),
            (b":authority", self.plan.authority.as_bytes()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ];
        if !timeout.is_empty() {
            fields.push((b"grpc-timeout", timeout.as_bytes()));
        }
        let more = self.plan.headers.iter();
        fields.extend(more.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let refused = |error| io::Error::other(format!("the request can not be sent: {error}"));
        let stream = self.h2.send_request(&fields, false).map_err(refused)?;
        if manner.fault == Some(Fault::CancelEarly) {
            // The prefix announces a message that never comes whole.
            let sent = self.h2.send_data(stream, &[0, 0, 0, 1, 0, 0xA], false);
            sent.map_err(refused)?;
        } else {
            let sent = self
                .h2
                .send_grpc_message(stream, true, |out| out.extend_from_slice(message));
            sent.map_err(refused)?;
        }
        Ok(stream)
    }

    /// Handles what has come. Returns how the answer ended, if it did.
    fn take(&mut self, flight: &mut Flight) -> Result<Option<(Outcome, String)>, CallError> {
        let received = std::mem::take(&mut self.received);
        let mut input = Input::new(&received);
        let end = poll_end(&mut self.h2, &mut input, flight)?;
        let consumed = input.consumed();
        self.received = received;
        self.received.drain(..consumed);
        Ok(end)
    }

    /// Resets the stream of a call.
    fn cut(&mut self, stream: StreamId, outcome: Outcome) -> CallError {
        self.h2.reset(stream, ErrorCode::CANCEL);
        if let Err(error) = self.socket.write_all(self.h2.output()) {
            return error.into();
        }
        self.h2.output().clear();
        CallError::Refused(outcome, "ended by the client".to_owned())
    }

    /// Ends a call whose time is over.
    fn run_out(&mut self, stream: StreamId, outcome: Outcome, manner: &Manner) -> CallError {
        match manner.fault {
            Some(Fault::Disconnect { .. }) if outcome == Outcome::CUT => {
                let _ = self.socket.tcp().shutdown(std::net::Shutdown::Both);
                CallError::Refused(outcome, "the connection was dropped by the client".to_owned())
            }
            _ if outcome == Outcome::LOST => io::Error::from(io::ErrorKind::TimedOut).into(),
            _ => self.cut(stream, outcome),
        }
    }
}

/// When a call is ended here, and as what.
fn end_of(begun: Instant, manner: &Manner) -> (Instant, Outcome) {
    let deadline = match manner.deadline {
        Some(deadline) => (begun + deadline, Outcome::DEADLINE_EXCEEDED),
        None => (begun + PATIENCE, Outcome::LOST),
    };
    match manner.fault {
        Some(Fault::CancelLater { after_ns } | Fault::Disconnect { after_ns }) => {
            deadline.min((begun + Duration::from_nanos(after_ns), Outcome::CUT))
        }
        _ => deadline,
    }
}

/// Handles events until the answer has ended or the input is used up.
fn poll_end(
    h2: &mut h2::Connection,
    input: &mut Input<'_>,
    flight: &mut Flight,
) -> Result<Option<(Outcome, String)>, CallError> {
    let ended = |headers: &h2::HeaderList| {
        let text = |name: &[u8]| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let code = text(b"grpc-status").and_then(|code| code.parse().ok());
        let outcome = code.map_or(Outcome::UNKNOWN, Outcome::from_code);
        (outcome, text(b"grpc-message").unwrap_or_default())
    };
    loop {
        let event = h2
            .poll_event(input)
            .map_err(|error| io::Error::other(error.to_string()))?;
        match event {
            None => return Ok(None),
            Some(
                Event::Headers {
                    stream,
                    headers,
                    end_stream: true,
                    ..
                }
                | Event::Trailers { stream, headers, .. },
            ) if stream == flight.stream => return Ok(Some(ended(headers))),
            Some(Event::Headers { stream, .. }) if stream == flight.stream => flight.answered = true,
            Some(Event::Data { stream, data, .. }) if stream == flight.stream => {
                flight.body.extend_from_slice(data);
            }
            Some(Event::Reset { stream, code }) if stream == flight.stream => {
                return Ok(Some((
                    Outcome::from_reset(code.0),
                    format!("stream reset with {code}"),
                )));
            }
            Some(_) => {}
        }
    }
}

/// An answer to a call of a [`Session`].
#[derive(Debug)]
pub struct Answer {
    /// How the call ended.
    pub outcome: Outcome,
    /// The message of an answer that is OK.
    pub message: Vec<u8>,
    /// Why it ended otherwise, for people.
    pub error: Option<String>,
}

/// Calls to one server, whose connection is opened again when it broke.
pub struct Session<'p> {
    plan: &'p Plan,
    client: Option<Blocking<'p>>,
    /// How long an attempt to reach the server goes on.
    patience: Duration,
    random: Random,
    cancel: f64,
    disconnect: f64,
}

impl<'p> Session<'p> {
    /// Connects. Of the calls that are disturbed, these shares are cancelled and lose their
    /// connection.
    ///
    /// # Errors
    /// The server can not be reached now; later calls try for as long as `patience`.
    pub fn connect(
        plan: &'p Plan,
        patience: Duration,
        random: Random,
        (cancel, disconnect): (f64, f64),
    ) -> io::Result<Self> {
        let mut session = Self {
            plan,
            client: None,
            patience,
            random,
            cancel,
            disconnect,
        };
        // The first attempt is the only one: a server that is not there is said at once.
        session.client(&|| true)?;
        Ok(session)
    }

    /// Draws the disturbance of a call.
    pub fn draw_fault(&mut self) -> Option<Fault> {
        Fault::draw(&mut self.random, self.cancel, self.disconnect)
    }

    /// Whether a call of unknown outcome is made again: of those that were cut, each second one.
    pub fn draw_again(&mut self, outcome: Outcome) -> bool {
        outcome != Outcome::CUT || self.random.chance(0.5)
    }

    /// Makes one call. `is_stopped` ends the attempts to reach the server early.
    ///
    /// # Errors
    /// The server can not be reached any more.
    pub fn call(
        &mut self,
        path: &str,
        message: &[u8],
        fault: Option<Fault>,
        is_stopped: &dyn Fn() -> bool,
    ) -> io::Result<Answer> {
        let manner = Manner {
            deadline: self.plan.deadline,
            fault,
        };
        let (result, drops) = {
            let result = self.client(is_stopped)?.call_as(path, message, &manner);
            let cut = matches!(&result, Err(CallError::Refused(Outcome::CUT, _)));
            (result, cut && matches!(fault, Some(Fault::Disconnect { .. })))
        };
        if drops || matches!(result, Err(CallError::Io(_))) {
            self.client = None;
        }
        Ok(match result {
            Ok(message) => Answer {
                outcome: Outcome::OK,
                message,
                error: None,
            },
            Err(error) => Answer {
                outcome: match &error {
                    CallError::Refused(outcome, _) => *outcome,
                    CallError::Io(_) => Outcome::LOST,
                },
                message: Vec::new(),
                error: Some(error.to_string()),
            },
        })
    }

    fn client(&mut self, is_stopped: &dyn Fn() -> bool) -> io::Result<&mut Blocking<'p>> {
        let begun = Instant::now();
        let plan = self.plan;
        let mut client = self.client.take();
        while client.is_none() {
            match Blocking::connect(plan) {
                Ok(connected) => client = Some(connected),
                Err(error) if begun.elapsed() > self.patience || is_stopped() => return Err(error),
                Err(_) => thread::sleep(RETRY),
            }
        }
        Ok(self
            .client
            .get_or_insert_with(|| client.expect("the loop ends with one")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_with_its_earliest_bound() {
        let begun = Instant::now();
        let after = |millis: u64| {
            Some(Fault::CancelLater {
                after_ns: millis * 1_000_000,
            })
        };
        let end = |deadline: Option<u64>, fault| {
            let deadline = deadline.map(Duration::from_millis);
            let (at, outcome) = end_of(begun, &Manner { deadline, fault });
            ((at - begun).as_millis(), outcome)
        };
        assert_eq!(end(None, None), (10_000, Outcome::LOST));
        assert_eq!(end(Some(50), None), (50, Outcome::DEADLINE_EXCEEDED));
        assert_eq!(end(Some(50), after(9)), (9, Outcome::CUT));
        assert_eq!(end(Some(50), after(90)), (50, Outcome::DEADLINE_EXCEEDED));
    }
}
