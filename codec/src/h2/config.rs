//! Configuration of one end of a connection: role, windows, limits. Defaults are [`crate::limits`].

use crate::limits;

/// The end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts requests.
    Server,
    /// Makes requests.
    Client,
}

/// Parameters of a connection. All sizes are bytes. [`super::Connection::new`] brings values that
/// the protocol forbids into its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The end that this is.
    pub role: Role,
    /// Streams that the peer may open at once. A client announces 0: it accepts no pushes.
    pub max_concurrent_streams: u32,
    /// Receive window of a new stream, up to 2^31-1.
    pub initial_window: u32,
    /// Receive window of the connection, 65,535 to 2^31-1.
    pub connection_window: u32,
    /// Largest frame payload that the peer may send, 2^14 to 2^24-1.
    pub max_frame_size: u32,
    /// DATA frames up to this size are delivered in one piece, larger ones as they arrive. At most
    /// `max_frame_size`.
    pub whole_frame_max: u32,
    /// Dynamic header table that the peer may use, and the most that we use of the peer's.
    pub header_table_size: u32,
    /// Largest header list (RFC 9113 section 6.5.2).
    pub max_header_list: u32,
    /// Output bytes at which [`super::Connection::wants_read`] turns false.
    pub output_max: usize,
    /// Bytes held back by flow control, over all streams, from which on `send_data` and
    /// `send_grpc_message` answer [`super::SendError::QueueFull`]. One message may overshoot it. A
    /// whole reply is never refused, since its call has taken effect. A server bounds its replies
    /// where it starts its calls, by [`super::Connection::queued_bytes`].
    pub send_queue_max: usize,
    /// Bytes queued on one stream from which on its drain is reported by
    /// [`super::Event::Writable`].
    pub stream_queue_mark: usize,
}

impl Config {
    /// Defaults of the gateway.
    pub fn server() -> Self {
        Self {
            role: Role::Server,
            max_concurrent_streams: limits::HTTP2_STREAMS_MAX,
            initial_window: limits::HTTP2_STREAM_WINDOW,
            connection_window: limits::HTTP2_CONNECTION_WINDOW,
            max_frame_size: limits::HTTP2_FRAME_MAX,
            whole_frame_max: limits::HTTP2_WHOLE_FRAME_MAX,
            header_table_size: limits::HTTP2_HEADER_TABLE,
            max_header_list: limits::HTTP2_HEADER_LIST_MAX,
            output_max: limits::HTTP2_OUTPUT_MAX,
            send_queue_max: usize::MAX,
            stream_queue_mark: limits::HTTP2_STREAM_QUEUE_MARK,
        }
    }

    /// Defaults of the load generator and the command line: the same windows, and 64 MiB of queue
    /// for large uploads.
    pub fn client() -> Self {
        Self {
            role: Role::Client,
            max_concurrent_streams: 0,
            send_queue_max: 64 << 20,
            ..Self::server()
        }
    }

    /// Bytes that a receive buffer must hold so that the connection always makes progress: one
    /// frame that is delivered whole, and its header.
    pub fn receive_buffer_min(&self) -> usize {
        self.checked().whole_frame_max as usize + super::frame::HEADER_LEN
    }

    /// The same parameters, each brought into the range that the protocol allows.
    pub(crate) fn checked(mut self) -> Self {
        self.initial_window = self.initial_window.min(super::flow::WINDOW_MAX);
        self.connection_window = self
            .connection_window
            .clamp(super::flow::WINDOW_DEFAULT, super::flow::WINDOW_MAX);
        self.max_frame_size = self
            .max_frame_size
            .clamp(super::frame::PAYLOAD_MAX_DEFAULT, super::frame::PAYLOAD_MAX);
        self.whole_frame_max = self.whole_frame_max.clamp(1_024, self.max_frame_size);
        self.max_concurrent_streams = self.max_concurrent_streams.min(1 << 20);
        self.header_table_size = self.header_table_size.min(1 << 16);
        self
    }
}
