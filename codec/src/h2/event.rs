//! Input and events of a connection, and the handles in them: the input cursor and stream ids.

use super::error::ErrorCode;
use super::hpack::HeaderList;

/// Bytes that the kernel brought, and the count of those that the connection has taken.
///
/// The bytes left when [`super::Connection::poll_event`] returns `None` are the beginning of a
/// frame: the driver keeps them and appends the next bytes. They are never more than
/// [`super::Config::receive_buffer_min`] minus one unless [`super::Connection::wants_read`] is
/// false.
#[derive(Debug)]
pub struct Input<'i> {
    bytes: &'i [u8],
    taken: usize,
}

impl<'i> Input<'i> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'i [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// Number of bytes that may be dropped from the front. Valid also after an error.
    pub fn consumed(&self) -> usize {
        self.taken
    }

    /// The bytes not taken yet.
    pub fn remaining(&self) -> &'i [u8] {
        // `taken` never passes the end, so this cannot fail; `get` keeps the panic code out of the
        // hot path.
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Takes `count` bytes (or all, if there are fewer).
    pub(crate) fn advance(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.bytes.len());
    }
}

/// A stream of one connection: its id on the wire and its place in the connection's table.
///
/// `Copy` and `Send`, so that it can travel as a ticket and come back. A handle whose stream is
/// gone is recognised (ids are never reused); commands with it answer
/// [`super::SendError::StreamClosed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub(crate) id: u32,
    pub(crate) slot: u32,
}

impl StreamId {
    /// The id on the wire (RFC 9113 section 5.1.1): odd, below 2^31, growing.
    pub fn value(self) -> u32 {
        self.id
    }

    /// A small dense number that no other open stream of this connection has: an index for the
    /// driver's own table of calls. It is below the largest number of streams that were ever open
    /// at once, and is reused for later streams.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// An event of the connection. `'c` is the connection (header lists), `'i` the input (payloads): an
/// event whose fields come from the input does not keep the connection borrowed, so that a reply
/// can be sent while the payload is still in use.
#[derive(Debug)]
pub enum Event<'c, 'i> {
    /// A request (server) or the final response (client; 1xx are skipped) begins. Validated as RFC
    /// 9113 section 8 demands. On the server `end_stream` means a request without a body; on the
    /// client a trailers-only reply.
    Headers {
        /// The stream; new, on the server.
        stream: StreamId,
        /// The fields, pseudo-fields first.
        headers: &'c HeaderList,
        /// The peer sends nothing more on this stream.
        end_stream: bool,
        /// [`super::Connection::memoize`] may be called for this block.
        memoizable: bool,
    },
    /// Like [`Event::Headers`], for a header block for which `memo` was remembered. Nothing was
    /// decoded.
    MemoHeaders {
        /// The stream; new, on the server.
        stream: StreamId,
        /// The value given to [`super::Connection::memoize`].
        memo: u32,
        /// The peer sends nothing more on this stream.
        end_stream: bool,
    },
    /// A request whose header list is larger than [`super::Config::max_header_list`]. The fields
    /// that fit are here, not validated: enough to answer with an error in the protocol of the
    /// request.
    OversizedHeaders {
        /// The stream, new.
        stream: StreamId,
        /// The fields that fit.
        headers: &'c HeaderList,
        /// The peer sends nothing more on this stream.
        end_stream: bool,
    },
    /// A piece of the body, in order. Frames up to [`super::Config::whole_frame_max`] come in one
    /// piece; larger ones as they arrive. `data` may be empty only together with `end_stream`.
    Data {
        /// The stream.
        stream: StreamId,
        /// The payload without padding.
        data: &'i [u8],
        /// The peer sends nothing more on this stream.
        end_stream: bool,
    },
    /// The peer ended the stream with trailers (RFC 9113 section 8.1).
    Trailers {
        /// The stream.
        stream: StreamId,
        /// The fields.
        headers: &'c HeaderList,
        /// [`super::Connection::memoize`] may be called for this block.
        memoizable: bool,
    },
    /// Like [`Event::Trailers`], for a block for which `memo` was remembered.
    MemoTrailers {
        /// The stream.
        stream: StreamId,
        /// The value given to [`super::Connection::memoize`].
        memo: u32,
    },
    /// The stream is gone: reset by the peer, or by us after a stream error, or refused by the
    /// peer's GOAWAY (REFUSED_STREAM: safe to retry elsewhere). The driver forgets it and cancels
    /// its work. Not sent for [`super::Connection::reset`], nor for streams of which the driver has
    /// had no event.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The reason.
        code: ErrorCode,
    },
    /// A stream whose queue had reached [`super::Config::stream_queue_mark`] has drained below half
    /// of it.
    Writable {
        /// The stream.
        stream: StreamId,
    },
    /// The peer is going away. Streams above `last_stream` that we opened get their own
    /// [`Event::Reset`].
    GoAway {
        /// The last stream of ours that the peer might have acted on.
        last_stream: u32,
        /// The reason.
        code: ErrorCode,
    },
    /// The answer to [`super::Connection::ping`].
    Pong {
        /// The payload of the ping.
        payload: [u8; 8],
    },
    /// The peer's SETTINGS took effect.
    PeerSettings,
}
