//! Errors of HTTP/2, by what they end: the connection (over), one stream (reset), or a command of
//! the caller (refused, and nothing was sent).

use std::fmt;

/// An error code of RST_STREAM and GOAWAY (RFC 9113 section 7). Unknown codes are kept unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// No error: graceful shutdown, or a reply that did not need the rest of the request.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke a rule that has no code of its own.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// An internal failure at our end.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// The peer sent more than the window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// The peer did not acknowledge SETTINGS in time.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame for a stream that the peer had half-closed.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of an impossible size.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was refused before any work was done on it: safe to retry.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is no longer wanted.
    pub const CANCEL: Self = Self(0x8);
    /// The header tables of the two ends are out of step.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The TCP connection made for a CONNECT request was reset.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// The peer's behaviour is likely to be an attack.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    /// The transport is not secure enough.
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    /// The request must be made over HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    /// The name that the RFC gives to the code, or `UNKNOWN`.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(self.0 as usize).copied().unwrap_or("UNKNOWN")
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#x})", self.name(), self.0)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The end of the connection (RFC 9113 section 5.4.1). A GOAWAY frame with the code is already in
/// the output: the driver sends the output and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// The code in the GOAWAY.
    pub code: ErrorCode,
    /// The rule that was broken, for the trace.
    pub reason: &'static str,
}

impl ConnectionError {
    pub(crate) const fn new(code: ErrorCode, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self::new(ErrorCode::PROTOCOL_ERROR, reason)
    }

    pub(crate) const fn calm(reason: &'static str) -> Self {
        Self::new(ErrorCode::ENHANCE_YOUR_CALM, reason)
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP/2 connection error {}: {}", self.code, self.reason)
    }
}

impl std::error::Error for ConnectionError {}

/// Why a command was refused. Nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The stream is unknown, was reset (by either end) or has already been ended by us. Forget a
    /// reply to it: the peer no longer waits.
    StreamClosed,
    /// The connection has failed or was closed.
    ConnectionClosed,
    /// The peer allows no more concurrent streams now; try again when one has ended (client).
    StreamLimit,
    /// The peer is going away, or all stream ids are used: open another connection (client).
    GoingAway,
    /// The peer does not accept what is queued already ([`super::Config::send_queue_max`]); wait
    /// for [`super::Event::Writable`].
    QueueFull,
    /// The field list is larger than the peer's SETTINGS_MAX_HEADER_LIST_SIZE.
    HeaderListTooLarge,
    /// The command does not fit the role or the state of the stream (trailers before headers,
    /// second headers, request by a server).
    WrongState,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StreamClosed => "the stream is closed",
            Self::ConnectionClosed => "the connection is closed",
            Self::StreamLimit => "the peer allows no more concurrent streams",
            Self::GoingAway => "the peer is going away",
            Self::QueueFull => "the send queue is full",
            Self::HeaderListTooLarge => "the header list is larger than the peer accepts",
            Self::WrongState => "the command does not fit the state of the stream",
        })
    }
}

impl std::error::Error for SendError {}
