//! A small blocking gRPC client for tools: one connection, one call at a time, unary and server
//! streaming.
//!
//! ```text
//!   Client::call --encode--> h2::Connection --bytes--> TcpStream --> gateway
//!          <--decode-- message <--5-byte prefix-- events <-- bytes
//! ```
//!
//! Promises: every call ends within its timeout, whatever the peer does; errors keep the peer's
//! status with its details; the bytes accepted from the peer are bounded. Leaves to others: speed
//! (the load generator has its own client), retries.

mod address;
mod socket;

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use prism_codec::h2::{Config, Connection, ErrorCode, Event, HeaderList, Input, StreamId};
use prism_codec::proto::google::rpc::Status;
use prost::Message;

use self::address::{Address, HTTPS, dial};
pub use self::socket::Credentials;
use self::socket::Socket;

/// A connection to a gateway. After an error that is not [`ClientError::Status`] it can no longer
/// be used.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    connection: Connection,
    /// Bytes received and not yet consumed.
    received: Vec<u8>,
    /// The buffer that is sent while the connection fills the other one.
    spare: Vec<u8>,
    server: String,
    scheme: &'static str,
    timeout: Duration,
}

/// The reason why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// The text is not an address. Nothing was sent.
    Address {
        /// As given by the user.
        server: String,
        /// The fault in the text.
        reason: &'static str,
    },
    /// A file of the client's credentials cannot be used. Nothing was sent.
    Credentials {
        /// The fault, with the file.
        reason: String,
    },
    /// The gateway's certificate is not trusted, or there is no TLS. Nothing was sent.
    Untrusted {
        /// As given by the user.
        server: String,
        /// The fault.
        reason: String,
    },
    /// No process answers at the address. Nothing was sent.
    Unreachable {
        /// As given by the user.
        server: String,
        /// The system's words.
        reason: String,
    },
    /// No complete answer within the timeout; a write may or may not have happened.
    TimedOut {
        /// As given by the user.
        server: String,
        /// How long the call was allowed to take.
        after: Duration,
    },
    /// The peer closed the connection, or does not speak gRPC; a write may or may not have
    /// happened.
    Broken {
        /// As given by the user.
        server: String,
        /// The fault.
        reason: String,
    },
    /// The gateway answered with an error status.
    Status(Box<Status>),
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { server, reason } => {
                write!(formatter, "{server:?} is no address of a gateway: {reason}")
            }
            Self::Credentials { reason } => formatter.write_str(reason),
            Self::Untrusted { server, reason } => {
                write!(formatter, "cannot connect to {server} by TLS: {reason}")
            }
            Self::Unreachable { server, reason } => {
                write!(formatter, "cannot reach a gateway at {server}: {reason}")
            }
            Self::TimedOut { server, after } => {
                write!(
                    formatter,
                    "no answer from {server} within {} ms; a write may have happened",
                    after.as_millis()
                )
            }
            Self::Broken { server, reason } => {
                write!(formatter, "the connection to {server} broke: {reason}")
            }
            Self::Status(status) => formatter.write_str(&status.message),
        }
    }
}

impl std::error::Error for ClientError {}

/// Largest message that is accepted from the peer, in bytes: more than any gateway is configured to
/// send.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// Longest time to connect; loopback and one datacentre answer in milliseconds.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
const RECEIVE_BYTES: usize = 64 << 10;
/// Largest page that [`Client::page`] takes, in bytes. The metrics of 10,000 namespaces are some 60
/// MB.
pub const PAGE_BYTES_MAX: usize = 256 << 20;
const USER_AGENT: &[u8] = concat!("prism-cli/", env!("CARGO_PKG_VERSION")).as_bytes();

impl Client {
    /// Connects to `server`: `host:port`, optionally with `http://` before it, or `https://` for a
    /// gateway with TLS whose certificate the system trusts. `timeout` holds for each call.
    ///
    /// # Errors
    /// As for [`Client::connect_as`].
    pub fn connect(server: &str, timeout: Duration) -> Result<Self, ClientError> {
        Self::connect_as(&Credentials::default(), server, timeout)
    }

    /// Connects with these credentials.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Unreachable`]; with TLS also
    /// [`ClientError::Credentials`] and [`ClientError::Untrusted`].
    pub fn connect_as(
        credentials: &Credentials,
        server: &str,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let address = Address::parse(server).map_err(|reason| ClientError::Address {
            server: server.to_owned(),
            reason,
        })?;
        let settings = match address.scheme {
            HTTPS => Some(credentials.load()),
            _ => None,
        };
        let settings = settings
            .transpose()
            .map_err(|reason| ClientError::Credentials { reason })?;
        let wait = timeout.min(CONNECT_TIMEOUT_MAX).max(Duration::from_millis(1));
        let socket = dial(&address.authority, wait).map_err(|reason| ClientError::Unreachable {
            server: server.to_owned(),
            reason,
        })?;
        // A failure to turn Nagle's delay off costs time, not correctness.
        let _ = socket.set_nodelay(true);
        let socket = match settings {
            None => Ok(Socket::Plain(socket)),
            Some(settings) => Socket::encrypt(socket, settings, address.host(), wait),
        };
        let socket = socket.map_err(|error| ClientError::Untrusted {
            server: server.to_owned(),
            reason: socket::describe(&error),
        })?;
        Ok(Self {
            socket,
            connection: Connection::new(Config::client()),
            received: Vec::new(),
            spare: Vec::new(),
            server: address.authority,
            scheme: address.scheme,
            timeout,
        })
    }

    /// The same connection with another timeout for each call.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Makes a unary call. `path` is `/package.Service/Method`.
    ///
    /// # Errors
    /// The gateway's status, or the failure on the way. No message or a second one is
    /// [`ClientError::Broken`].
    pub fn unary<Reply: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
    ) -> Result<Reply, ClientError> {
        let mut reply = None;
        let mut count = 0_usize;
        let stream = self.send(path, request, Some(self.timeout))?;
        self.replies(stream, |message: Reply| {
            count += 1;
            reply = Some(message);
            ControlFlow::Continue(())
        })?;
        match reply {
            Some(reply) if count == 1 => Ok(reply),
            _ => Err(self.broken(format!("{path} answered with {count} messages instead of one"))),
        }
    }

    /// Makes a server-streaming call. Each reply is given to `on_message` as it arrives. `Break`
    /// cancels the call.
    ///
    /// The timeout bounds each wait for the gateway, and neither the whole call nor the time that
    /// `on_message` takes: reading a long stream may take any time.
    ///
    /// # Errors
    /// As for [`Client::unary`].
    pub fn server_streaming<Reply: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
        on_message: impl FnMut(Reply) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let stream = self.send(path, request, None)?;
        self.replies(stream, on_message)
    }

    /// Gets a plain HTTP page such as `/metrics`: its status and body.
    ///
    /// # Errors
    /// The failure on the way, or a body above [`PAGE_BYTES_MAX`]. An HTTP error is no error here.
    pub fn page(&mut self, path: &str) -> Result<(u16, Vec<u8>), ClientError> {
        let server = self.server.clone();
        let headers: [(&[u8], &[u8]); 5] = [
            (b":method", b"GET"),
            (b":scheme", self.scheme.as_bytes()),
            (b":path", path.as_bytes()),
            (b":authority", server.as_bytes()),
            (b"user-agent", USER_AGENT),
        ];
        let asked = self
            .connection
            .send_request(&headers, true)
            .map_err(|error| self.broken(error.to_string()))?;
        let deadline = Instant::now() + self.timeout;
        let (mut status, mut body, mut ended) = (0, Vec::new(), false);
        while !ended {
            self.turn(deadline, |event| match event {
                Event::Headers {
                    stream,
                    headers,
                    end_stream,
                    ..
                } if stream == asked => {
                    let text = headers.get(b":status").unwrap_or_default();
                    status = std::str::from_utf8(text)
                        .ok()
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(0);
                    ended |= end_stream;
                    Ok(())
                }
                Event::Data {
                    stream,
                    data,
                    end_stream,
                } if stream == asked => {
                    body.extend_from_slice(data);
                    ended |= end_stream;
                    if body.len() > PAGE_BYTES_MAX {
                        return Err(format!("{path} has more than {PAGE_BYTES_MAX} bytes"));
                    }
                    Ok(())
                }
                Event::Trailers { stream, .. } if stream == asked => {
                    ended = true;
                    Ok(())
                }
                // After the whole answer a reset only means that the rest of the request is not
                // wanted.
                Event::Reset { stream, code } if stream == asked && !ended => {
                    Err(format!("the gateway reset the call: {code}"))
                }
                Event::GoAway { code, .. } if code != ErrorCode::NO_ERROR => Err(reason_of(code)),
                _ => Ok(()),
            })?;
        }
        Ok((status, body))
    }

    /// Reads the replies to the call on `stream`, until its status or a `Break`.
    fn replies<Reply: Message + Default>(
        &mut self,
        stream: StreamId,
        mut on_message: impl FnMut(Reply) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let mut call = Call {
            stream,
            accepted: false,
            body: Vec::new(),
        };
        let mut deadline = Instant::now() + self.timeout;
        loop {
            let mut outcome = None;
            self.turn(deadline, |event| {
                // Bytes for a call that is over, or for an older one that was cancelled, are only
                // consumed.
                if outcome.is_none() {
                    outcome = call.handle(event)?;
                }
                Ok(())
            })?;
            while let Some(message) = call.message().map_err(|reason| self.broken(reason))? {
                let message =
                    Reply::decode(message.as_slice()).map_err(|error| self.broken(error.to_string()))?;
                let flow = on_message(message);
                deadline = Instant::now() + self.timeout;
                if flow.is_break() {
                    self.connection.reset(stream, ErrorCode::CANCEL);
                    return self.transmit(deadline);
                }
            }
            match outcome {
                None => {}
                // Acknowledgements that are due go out with the next call.
                Some(status) if status.code == 0 && call.body.is_empty() => return Ok(()),
                Some(status) if status.code == 0 => {
                    return Err(self.broken("the last message is cut off".to_owned()));
                }
                Some(status) => return Err(ClientError::Status(Box::new(status))),
            }
        }
    }

    /// Sends pending output, waits for bytes and passes each event to `take`, whose error is a
    /// broken rule of the peer.
    fn turn(
        &mut self,
        deadline: Instant,
        mut take: impl FnMut(Event<'_, '_>) -> Result<(), String>,
    ) -> Result<(), ClientError> {
        self.transmit(deadline)?;
        self.receive(deadline)?;
        let mut input = Input::new(&self.received);
        let taken = loop {
            match self.connection.poll_event(&mut input) {
                Ok(Some(event)) => {
                    if let Err(reason) = take(event) {
                        break Err(reason);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        let consumed = input.consumed();
        taken.map_err(|reason| self.broken(reason))?;
        self.received.drain(..consumed);
        Ok(())
    }

    fn send(
        &mut self,
        path: &str,
        request: &impl Message,
        timeout: Option<Duration>,
    ) -> Result<StreamId, ClientError> {
        let server = self.server.clone();
        let timeout = timeout.map(|timeout| format!("{}m", timeout.as_millis().clamp(1, 99_999_999)));
        let mut headers: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", self.scheme.as_bytes()),
            (b":path", path.as_bytes()),
            (b":authority", server.as_bytes()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"user-agent", USER_AGENT),
        ];
        headers.extend(
            timeout
                .as_ref()
                .map(|timeout| (&b"grpc-timeout"[..], timeout.as_bytes())),
        );
        let sent = self.connection.send_request(&headers, false).and_then(|stream| {
            // A Vec grows as needed, so encoding cannot fail.
            let encode = |out: &mut Vec<u8>| request.encode(out).unwrap_or_default();
            self.connection
                .send_grpc_message(stream, true, encode)
                .map(|()| stream)
        });
        sent.map_err(|error| self.broken(error.to_string()))
    }

    /// Sends all output, or fails at the deadline.
    fn transmit(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let spare = std::mem::take(&mut self.spare);
        let output = self.connection.take_output(spare);
        let mut rest = output.as_slice();
        while !rest.is_empty() {
            let wait = self.remaining(deadline)?;
            let written = self
                .socket
                .set_write_timeout(wait)
                .and_then(|()| self.socket.write(rest));
            match written {
                Ok(0) => return Err(self.broken("the peer takes no more bytes".to_owned())),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        self.spare = output;
        // TLS may hold some of it back.
        self.socket.flush().map_err(|error| self.failed(&error))
    }

    /// Waits for bytes, or fails at the deadline.
    fn receive(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let start = self.received.len();
        self.received.resize(start + RECEIVE_BYTES, 0);
        let outcome = loop {
            let wait = match self.remaining(deadline) {
                Ok(wait) => wait,
                Err(error) => break Err(error),
            };
            let read = self
                .socket
                .set_read_timeout(wait)
                .and_then(|()| self.socket.read(&mut self.received[start..]));
            match read {
                Ok(0) => {
                    break Err(self.broken("the peer closed it before the answer was complete".to_owned()));
                }
                Ok(count) => break Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(self.failed(&error)),
            }
        };
        self.received
            .truncate(start + outcome.as_ref().map_or(0, |count| *count));
        outcome.map(|_| ())
    }

    /// Time until the deadline, never zero: zero would mean no timeout at all.
    fn remaining(&self, deadline: Instant) -> Result<Duration, ClientError> {
        match deadline.checked_duration_since(Instant::now()) {
            Some(wait) if !wait.is_zero() => Ok(wait),
            _ => Err(ClientError::TimedOut {
                server: self.server.clone(),
                after: self.timeout,
            }),
        }
    }

    fn failed(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut {
                server: self.server.clone(),
                after: self.timeout,
            },
            _ => self.broken(socket::describe(error)),
        }
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken {
            server: self.server.clone(),
            reason,
        }
    }
}

/// State of one call's reply.
struct Call {
    stream: StreamId,
    /// Whether the reply's headers show that it is gRPC.
    accepted: bool,
    /// Body bytes that are not yet a whole message.
    body: Vec<u8>,
}

impl Call {
    /// Handles an event. Returns the final status when the call is over.
    fn handle(&mut self, event: Event<'_, '_>) -> Result<Option<Status>, String> {
        match event {
            Event::Headers {
                stream,
                headers,
                end_stream,
                ..
            } if stream == self.stream => {
                if let Some(status) = self.check_head(headers)? {
                    return Ok(Some(status));
                }
                if end_stream {
                    // Trailers-only: the status is in the headers.
                    return self.status(headers).map(Some);
                }
                self.accepted = true;
                Ok(None)
            }
            Event::Data {
                stream,
                data,
                end_stream,
            } if stream == self.stream && self.accepted => {
                self.body.extend_from_slice(data);
                if end_stream {
                    return Err("the reply ends without a gRPC status".to_owned());
                }
                Ok(None)
            }
            Event::Trailers { stream, headers, .. } if stream == self.stream => {
                self.status(headers).map(Some)
            }
            Event::Reset { stream, code } if stream == self.stream => {
                Err(format!("the gateway reset the call: {code}"))
            }
            Event::GoAway { code, .. } if code != ErrorCode::NO_ERROR => Err(reason_of(code)),
            _ => Ok(None),
        }
    }

    /// Checks that the reply is gRPC at all. An HTTP error becomes the status to which the gRPC
    /// specification maps it.
    fn check_head(&self, headers: &HeaderList) -> Result<Option<Status>, String> {
        let http_status = headers.get(b":status").unwrap_or_default();
        let content_type = headers.get(b"content-type").unwrap_or_default();
        if headers.get(b"grpc-status").is_some() {
            return Ok(None);
        }
        if http_status != b"200" {
            let code = match http_status {
                b"401" => 16,
                b"403" => 7,
                b"404" => 12,
                b"429" | b"502" | b"503" | b"504" => 14,
                _ => 2,
            };
            let message = format!(
                "the server answered HTTP status {}",
                String::from_utf8_lossy(http_status)
            );
            return Ok(Some(Status {
                code,
                message,
                details: Vec::new(),
            }));
        }
        if !content_type.starts_with(b"application/grpc") {
            let content_type = String::from_utf8_lossy(content_type);
            return Err(format!(
                "the server does not speak gRPC (content-type {content_type:?})"
            ));
        }
        Ok(None)
    }

    /// The status in trailers. Unreadable details are left out: the code and the message still
    /// help.
    fn status(&self, trailers: &HeaderList) -> Result<Status, String> {
        let code = trailers
            .get(b"grpc-status")
            .and_then(|text| std::str::from_utf8(text).ok()?.parse::<i32>().ok());
        let Some(code) = code else {
            return Err("the reply ends without a gRPC status".to_owned());
        };
        let message = percent_decode(trailers.get(b"grpc-message").unwrap_or_default());
        let details = trailers
            .get(b"grpc-status-details-bin")
            .and_then(|text| BASE64.decode(text).ok());
        match details.and_then(|bytes| Status::decode(bytes.as_slice()).ok()) {
            Some(status) if status.code == code => Ok(status),
            _ => Ok(Status {
                code,
                message,
                details: Vec::new(),
            }),
        }
    }

    /// Takes the next whole message out of the body.
    fn message(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Some((&[flag, a, b, c, d], rest)) = self.body.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag != 0 {
            return Err("the gateway compressed a message although nobody asked for it".to_owned());
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(format!(
                "a message of {length} bytes is announced; at most {MESSAGE_BYTES_MAX} are taken"
            ));
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let message = message.to_vec();
        self.body.drain(..5 + length);
        Ok(Some(message))
    }
}

/// Servers may leave the padding out (gRPC over HTTP/2: "implementations MUST accept padded and
/// un-padded values").
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The reason in a GOAWAY.
fn reason_of(code: ErrorCode) -> String {
    match code {
        ErrorCode::INADEQUATE_SECURITY => "it speaks TLS; write https:// before its address".to_owned(),
        code => format!("the gateway ended the connection: {code}"),
    }
}

/// The text of `grpc-message`; invalid parts are kept or replaced, since an error about an error
/// helps nobody.
fn percent_decode(text: &[u8]) -> String {
    let hex = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if let (b'%', [high, low, after @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            bytes.push(high << 4 | low);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
