//! One HTTP/2 connection: the public face. (First version: signatures.)

use super::config::Config;
use super::error::{ConnectionError, ErrorCode, SendError};
use super::event::{Event, Input, StreamId};

/// A list of header fields to send, pseudo-fields first, names in lower case.
pub type Fields<'a> = [(&'a [u8], &'a [u8])];

/// One end of an HTTP/2 connection. See the [module documentation](super) for how to drive it.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    output: Vec<u8>,
}

impl Connection {
    /// A new connection. Its SETTINGS (client: preface and SETTINGS) are in the output already.
    pub fn new(config: Config) -> Self {
        Self {
            config: config.checked(),
            output: Vec::new(),
        }
    }

    /// The parameters, as corrected.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The next event. `None`: all complete frames are consumed (or the output is full, see
    /// [`Connection::wants_read`]); bring more bytes.
    ///
    /// # Errors
    /// The connection is over; GOAWAY is in the output. All later calls return the same error.
    pub fn poll_event<'c, 'i>(
        &'c mut self,
        input: &mut Input<'i>,
    ) -> Result<Option<Event<'c, 'i>>, ConnectionError> {
        let _ = input;
        Ok(None)
    }

    /// Whether the driver should read from the peer. False while the output is longer than
    /// [`Config::output_max`]: then `poll_event` returns `None` and leaves the input as it is. Drain the output, then poll
    /// again, even if nothing new was received.
    pub fn wants_read(&self) -> bool {
        self.output.len() <= self.config.output_max
    }

    /// Client: opens a stream. Fields that do not repeat (`grpc-timeout`, `content-length`, …) are kept out of the peer's
    /// header table, secrets (`authorization`, `cookie`) are never indexed.
    ///
    /// # Errors
    /// [`SendError::StreamLimit`], [`SendError::GoingAway`], [`SendError::ConnectionClosed`],
    /// [`SendError::HeaderListTooLarge`], [`SendError::WrongState`] on a server.
    pub fn send_request(&mut self, headers: &Fields<'_>, end_stream: bool) -> Result<StreamId, SendError> {
        let _ = (headers, end_stream);
        Err(SendError::WrongState)
    }

    /// Server: sends the headers of a response (any number of 1xx first, then one final).
    ///
    /// # Errors
    /// [`SendError::StreamClosed`], [`SendError::WrongState`] for second headers, [`SendError::HeaderListTooLarge`].
    pub fn send_headers(
        &mut self,
        stream: StreamId,
        headers: &Fields<'_>,
        end_stream: bool,
    ) -> Result<(), SendError> {
        let _ = (stream, headers, end_stream);
        Err(SendError::StreamClosed)
    }

    /// Sends body bytes. They are copied; what the windows do not allow is queued.
    ///
    /// # Errors
    /// [`SendError::StreamClosed`], [`SendError::QueueFull`], [`SendError::WrongState`] before headers.
    pub fn send_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) -> Result<(), SendError> {
        let _ = (stream, data, end_stream);
        Err(SendError::StreamClosed)
    }

    /// Ends a stream with trailers, behind the data that is queued.
    ///
    /// # Errors
    /// As for [`Connection::send_data`], but never [`SendError::QueueFull`].
    pub fn send_trailers(&mut self, stream: StreamId, trailers: &Fields<'_>) -> Result<(), SendError> {
        let _ = (stream, trailers);
        Err(SendError::StreamClosed)
    }

    /// Server: a whole unary gRPC reply: headers, one message, `grpc-status: 0`. `encode` appends the message to the buffer
    /// (and must leave alone what is in it); the 5-byte prefix is added here.
    ///
    /// # Errors
    /// [`SendError::StreamClosed`], [`SendError::WrongState`] if headers were sent, [`SendError::QueueFull`]. `encode` is
    /// not called then.
    pub fn send_grpc_reply(
        &mut self,
        stream: StreamId,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        let _ = (stream, encode);
        Err(SendError::StreamClosed)
    }

    /// Server: response headers of a streaming gRPC reply (`:status 200`, `content-type: application/grpc`), from the
    /// template.
    ///
    /// # Errors
    /// As for [`Connection::send_headers`].
    pub fn send_grpc_headers(&mut self, stream: StreamId) -> Result<(), SendError> {
        let _ = stream;
        Err(SendError::StreamClosed)
    }

    /// One gRPC message with its 5-byte prefix, of a request or a streaming reply; `encode` as for
    /// [`Connection::send_grpc_reply`].
    ///
    /// # Errors
    /// As for [`Connection::send_data`].
    pub fn send_grpc_message(
        &mut self,
        stream: StreamId,
        end_stream: bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        let _ = (stream, end_stream, encode);
        Err(SendError::StreamClosed)
    }

    /// Server: ends a streaming gRPC reply with `grpc-status: 0`, from the template.
    ///
    /// # Errors
    /// As for [`Connection::send_trailers`].
    pub fn send_grpc_ok(&mut self, stream: StreamId) -> Result<(), SendError> {
        let _ = stream;
        Err(SendError::StreamClosed)
    }

    /// Server: ends a stream with a gRPC status: trailers-only if no headers were sent yet, otherwise trailers. `code` is
    /// 0 to 16; `message` is percent-encoded here; `details` are the bytes of a `google.rpc.Status`, base64-encoded here.
    ///
    /// # Errors
    /// As for [`Connection::send_trailers`].
    pub fn send_grpc_error(
        &mut self,
        stream: StreamId,
        code: u8,
        message: &str,
        details: Option<&[u8]>,
    ) -> Result<(), SendError> {
        let _ = (stream, code, message, details);
        Err(SendError::StreamClosed)
    }

    /// Resets a stream, drops what is queued on it. Does nothing if it is gone already.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        let _ = (stream, code);
    }

    /// Whether a stream's receive window re-opens by itself as data is delivered (the default). With `false` the peer may
    /// send no more than one window until [`Connection::release`] is called.
    pub fn set_auto_release(&mut self, stream: StreamId, auto: bool) {
        let _ = (stream, auto);
    }

    /// Re-opens the receive window by `bytes` of delivered data, for a stream with automatic release off.
    pub fn release(&mut self, stream: StreamId, bytes: usize) {
        let _ = (stream, bytes);
    }

    /// The output buffer: the driver sends it and clears (or drains) it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Takes the output and gives `spare` (cleared) in its place: one is sent while the other fills.
    pub fn take_output(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        std::mem::replace(&mut self.output, spare)
    }

    /// Bytes in the output and held back by flow control.
    pub fn queued_bytes(&self) -> usize {
        self.output.len()
    }

    /// Bytes of one stream that are held back by flow control; 0 if it is gone.
    pub fn stream_queued(&self, stream: StreamId) -> usize {
        let _ = stream;
        0
    }

    /// Whether the stream is still open for sending: a reply to it would be sent.
    pub fn is_open(&self, stream: StreamId) -> bool {
        let _ = stream;
        false
    }

    /// Begins to drain: a server says GOAWAY(2^31-1) and PING; when the PING is answered (or on a second call) the final
    /// GOAWAY follows and newer streams are ignored. A client says GOAWAY and opens no more streams.
    pub fn goaway(&mut self) {}

    /// Ends the connection at once with GOAWAY(`code`); `poll_event` and commands fail afterwards.
    pub fn abort(&mut self, code: ErrorCode) {
        let _ = code;
    }

    /// After [`Connection::goaway`] (or the peer's): nothing is open and nothing is left to send; the driver closes.
    pub fn is_drained(&self) -> bool {
        false
    }

    /// Streams that are open in either direction.
    pub fn open_streams(&self) -> usize {
        0
    }

    /// Client: streams that may be opened now.
    pub fn available_streams(&self) -> usize {
        0
    }

    /// Sends PING; [`Event::Pong`] follows.
    pub fn ping(&mut self, payload: [u8; 8]) {
        let _ = payload;
    }

    /// Tells how many seconds have passed since the last call; gives back budget to the defences. Without it only useful
    /// work does, and a connection that is idle for hours but for PINGs would be closed.
    pub fn tick(&mut self, elapsed_seconds: u32) {
        let _ = elapsed_seconds;
    }

    /// Remembers `value` for the header block of the last [`Event::Headers`] or [`Event::Trailers`] that was memoizable:
    /// the same bytes, while they mean the same, give a `Memo…` event with it. Does nothing otherwise.
    pub fn memoize(&mut self, value: u32) {
        let _ = value;
    }
}
