//! One HTTP/2 connection: its state, its public interface, and its ends (graceful and not).
//!
//! ```text
//!   recv.rs      poll_event: frames out of the input, DATA, RST_STREAM
//!   blocks.rs    HEADERS and CONTINUATION: gathering, memo, validation, opening of streams
//!   control.rs   SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY
//!   send.rs      headers, data, trailers, what flow control holds back
//!   grpc.rs      whole gRPC replies from templates
//!   memo.rs      header blocks remembered by their bytes
//!   defence.rs   budgets, streams closed lately
//! ```
//!
//! Memory: an idle connection that has served small calls owns less than 4 KiB of heap besides the
//! two HPACK tables (at most [`Config::header_table_size`] bytes of entries each). At worst:
//! [`Config::output_max`] plus one event's output, what its driver sends beyond the peer's windows
//! ([`Connection::queued_bytes`]), one header block (128 KiB), one header list (16 KiB), and about
//! 100 bytes for each concurrent stream.

mod blocks;
mod control;
mod defence;
mod grpc;
mod memo;
mod recv;
mod send;

use std::collections::VecDeque;

use self::defence::{Budgets, ClosedStreams};
use self::grpc::Templates;
use self::memo::Memos;
use self::recv::{Notice, Reading};
use super::config::{Config, Role};
use super::error::{ConnectionError, ErrorCode, SendError};
use super::event::{Event, Input, StreamId};
use super::flow::{self, ReceiveWindow, SendWindow};
use super::frame::{self, setting};
use super::hpack::{self, HeaderList};
use super::stream::Streams;

/// A list of header fields to send: pseudo-fields first, names in lower case.
pub type Fields<'a> = [(&'a [u8], &'a [u8])];

/// One end of an HTTP/2 connection. See the [module documentation](super) for how to drive it.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    output: Vec<u8>,
    /// Bytes of earlier output that the transport has not taken yet, as reported by the driver.
    sending: usize,
    streams: Streams,
    decoder: hpack::Decoder,
    encoder: hpack::Encoder,
    templates: Templates,
    memos: Memos,
    budgets: Budgets,
    closed: ClosedStreams,
    failed: Option<ConnectionError>,

    reading: Reading,
    /// A header block that waits for the rest of its fragments.
    continuing: Option<blocks::BlockStart>,
    block: Vec<u8>,
    headers: HeaderList,
    notices: VecDeque<Notice>,

    peer: PeerSettings,
    /// The initial window known to the peer: the default until it acknowledges our SETTINGS.
    local_window: u32,
    settings_received: bool,
    settings_acked: bool,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    /// Streams that wait for the connection's window, in turn.
    ring: VecDeque<StreamId>,
    /// Server: streams whose replies are complete and whose requests are not. The first list is
    /// since the last tick, the second since the one before.
    unwanted: Vec<StreamId>,
    unwanted_due: Vec<StreamId>,

    /// Server: the largest stream id that the peer has used.
    last_peer_id: u32,
    /// Client: the next stream id to use.
    next_id: u32,
    drain: Drain,
    /// The last of our streams that the peer's GOAWAY allows.
    peer_goaway: Option<u32>,
    pings_outstanding: u32,
}

/// SETTINGS of the peer (RFC 9113 section 6.5.2).
#[derive(Clone, Copy, Debug)]
struct PeerSettings {
    initial_window: u32,
    max_frame: usize,
    max_streams: u32,
    max_header_list: u32,
}

/// Progress of our own graceful end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// GOAWAY(2^31-1) and a PING are sent (RFC 9113 section 6.8).
    Announced,
    /// The final GOAWAY is sent: streams newer than this are ignored.
    Final(u32),
}

/// Concurrent streams that a client assumes to be allowed until the server's SETTINGS arrive (the
/// least that RFC 9113 section 6.5.2 recommends).
const STREAMS_BEFORE_SETTINGS: u32 = 100;

/// Payload of the PING whose answer shows that the peer has seen the first GOAWAY.
const DRAIN_PING: [u8; 8] = *b"prism-go";

impl Connection {
    /// Makes a connection. Its SETTINGS (client: preface and SETTINGS) are in the output already.
    pub fn new(config: Config) -> Self {
        let config = config.checked();
        let mut connection = Self {
            output: Vec::new(),
            sending: 0,
            streams: Streams::default(),
            decoder: hpack::Decoder::new(hpack::DEFAULT_TABLE_SIZE),
            encoder: hpack::Encoder::new(config.header_table_size as usize),
            templates: Templates::default(),
            memos: Memos::default(),
            budgets: Budgets::new(),
            closed: ClosedStreams::new(),
            failed: None,
            reading: match config.role {
                Role::Server => Reading::Preface,
                Role::Client => Reading::Frame,
            },
            continuing: None,
            block: Vec::new(),
            headers: HeaderList::new(),
            notices: VecDeque::new(),
            peer: PeerSettings {
                initial_window: flow::WINDOW_DEFAULT,
                max_frame: frame::PAYLOAD_MAX_DEFAULT as usize,
                max_streams: STREAMS_BEFORE_SETTINGS,
                max_header_list: u32::MAX,
            },
            local_window: flow::WINDOW_DEFAULT,
            settings_received: false,
            settings_acked: false,
            send_window: SendWindow::new(flow::WINDOW_DEFAULT),
            receive_window: ReceiveWindow::new(config.connection_window),
            ring: VecDeque::new(),
            unwanted: Vec::new(),
            unwanted_due: Vec::new(),
            last_peer_id: 0,
            next_id: 1,
            drain: Drain::No,
            peer_goaway: None,
            pings_outstanding: 0,
            config,
        };
        connection.write_opening();
        connection
    }

    /// Writes the connection preface of our side (RFC 9113 section 3.4), and the connection's
    /// window.
    fn write_opening(&mut self) {
        let config = &self.config;
        let role_setting = match config.role {
            Role::Server => (setting::MAX_CONCURRENT_STREAMS, config.max_concurrent_streams),
            Role::Client => (setting::ENABLE_PUSH, 0),
        };
        let settings = [
            role_setting,
            (setting::HEADER_TABLE_SIZE, config.header_table_size),
            (setting::INITIAL_WINDOW_SIZE, config.initial_window),
            (setting::MAX_FRAME_SIZE, config.max_frame_size),
            (setting::MAX_HEADER_LIST_SIZE, config.max_header_list),
        ];
        if config.role == Role::Client {
            self.output.extend_from_slice(super::PREFACE);
        }
        frame::write_settings(&mut self.output, &settings);
        let more = config.connection_window - flow::WINDOW_DEFAULT;
        if more > 0 {
            frame::write_window_update(&mut self.output, 0, more);
        }
    }

    /// The parameters, as corrected.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The next event. `None`: all complete frames are consumed (or the output is full, see
    /// [`Connection::wants_read`]); supply more bytes.
    ///
    /// # Errors
    /// The connection is over; GOAWAY is in the output. All later calls return the same error.
    // Always inlined: the server's loop and a client's call it, and an event that goes through
    // memory adds a fiftieth to a Put.
    #[inline(always)]
    pub fn poll_event<'c, 'i>(
        &'c mut self,
        input: &mut Input<'i>,
    ) -> Result<Option<Event<'c, 'i>>, ConnectionError> {
        match self.step(input) {
            Ok(None) => Ok(None),
            Ok(Some(step)) => Ok(Some(self.event(step))),
            Err(error) => {
                self.fail(error);
                Err(error)
            }
        }
    }

    /// Whether the driver should read from the peer. False while the output, including the part
    /// being sent, is longer than [`Config::output_max`]: then `poll_event` returns `None` and
    /// leaves the input untouched. Drain the output, then poll again, even if nothing new was
    /// received. False also after the connection has failed.
    #[inline]
    pub fn wants_read(&self) -> bool {
        self.output.len() + self.sending <= self.config.output_max && self.failed.is_none()
    }

    /// Resets a stream and drops its queued data. Does nothing if the stream is gone already.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        if self.streams.get(stream).is_some() && self.failed.is_none() {
            self.write_reset(stream.id, code);
            self.remove_stream(stream);
        }
    }

    /// Sets whether a stream's receive window re-opens by itself as data is delivered (the
    /// default). With `false` the peer may send no more than one window until
    /// [`Connection::release`] is called.
    pub fn set_auto_release(&mut self, stream: StreamId, auto: bool) {
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        found.auto_release = auto;
        if auto {
            let held = std::mem::take(&mut found.held);
            self.free_received(stream, held);
        }
    }

    /// Re-opens the receive window by `bytes` of delivered data, for a stream with automatic
    /// release off. At most the delivered bytes count.
    pub fn release(&mut self, stream: StreamId, bytes: usize) {
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(found.held);
        found.held -= bytes;
        self.free_received(stream, bytes);
    }

    /// The output buffer: the driver sends it and clears (or drains) it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Takes the output and gives `spare` (cleared) in its place: one is sent while the other
    /// fills.
    pub fn take_output(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        std::mem::replace(&mut self.output, spare)
    }

    /// Reports how many bytes of [`Connection::take_output`] have not been sent yet: they wait for
    /// the peer like the rest.
    pub fn set_sending(&mut self, bytes: usize) {
        self.sending = bytes;
    }

    /// Bytes that wait for the peer: in the output, being sent, and held back by flow control.
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.output.len() + self.sending + self.streams.queued()
    }

    /// Bytes of one stream that are held back by flow control; 0 if it is gone.
    pub fn stream_queued(&self, stream: StreamId) -> usize {
        let queue = self.streams.get(stream).and_then(|found| found.queue.as_ref());
        queue.map_or(0, |queue| queue.len())
    }

    /// Body bytes still missing from the request's `content-length` (RFC 9113 section 8.1.1);
    /// `None` if it has none, or the stream is gone.
    pub fn body_left(&self, stream: StreamId) -> Option<u64> {
        let left = self.streams.get(stream)?.content_left;
        u64::try_from(left).ok()
    }

    /// Whether the stream is still open for sending: a reply to it would be sent.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.failed.is_none() && self.streams.get(stream).is_some_and(|found| !found.local_ended)
    }

    /// Begins to drain (RFC 9113 section 6.8). A server sends GOAWAY(2^31-1) and PING; when the
    /// PING is answered (or on a second call, when the driver has waited long enough) the final
    /// GOAWAY follows and newer streams are ignored. A client sends GOAWAY and opens no more
    /// streams.
    pub fn goaway(&mut self) {
        if self.failed.is_some() {
            return;
        }
        match (self.drain, self.config.role) {
            (Drain::No, Role::Server) => {
                frame::write_goaway(&mut self.output, frame::STREAM_ID_MAX, ErrorCode::NO_ERROR, "");
                frame::write_ping(&mut self.output, 0, DRAIN_PING);
                self.drain = Drain::Announced;
            }
            (Drain::No, Role::Client) | (Drain::Announced, _) => self.finish_goaway(),
            (Drain::Final(_), _) => {}
        }
    }

    fn finish_goaway(&mut self) {
        frame::write_goaway(&mut self.output, self.last_peer_id, ErrorCode::NO_ERROR, "");
        self.drain = Drain::Final(self.last_peer_id);
    }

    /// Ends the connection at once with GOAWAY(`code`); `poll_event` and commands fail afterwards.
    pub fn abort(&mut self, code: ErrorCode) {
        self.fail(ConnectionError::new(code, "closed by this end"));
    }

    /// Writes the last GOAWAY, once.
    #[cold]
    fn fail(&mut self, error: ConnectionError) {
        if self.failed.is_none() {
            frame::write_goaway(&mut self.output, self.last_peer_id, error.code, error.reason);
            self.failed = Some(error);
        }
    }

    /// Whether nothing is open and nothing is left to send after [`Connection::goaway`] (or the
    /// peer's, or an error), so that the driver may close.
    pub fn is_drained(&self) -> bool {
        let going = matches!(self.drain, Drain::Final(_)) || self.peer_goaway.is_some();
        let done = self.failed.is_some() || (going && self.streams.open() == 0);
        done && self.output.is_empty()
    }

    /// Whether the peer has begun and not completed a frame, a header block or the opening, apart
    /// from bytes left in the input.
    pub fn is_within_frame(&self) -> bool {
        self.continuing.is_some() || !matches!(self.reading, Reading::Frame)
    }

    /// Whether the peer's SETTINGS have arrived, which open every connection (RFC 9113 section
    /// 3.4).
    pub fn is_greeted(&self) -> bool {
        self.settings_received
    }

    /// The largest id of a stream that the peer has opened; 0 if none.
    pub fn last_peer_stream(&self) -> u32 {
        self.last_peer_id
    }

    /// Streams that are open in either direction.
    pub fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Client: streams that may be opened now.
    pub fn available_streams(&self) -> usize {
        let may_open = self.config.role == Role::Client
            && self.failed.is_none()
            && self.drain == Drain::No
            && self.peer_goaway.is_none()
            && self.next_id <= frame::STREAM_ID_MAX;
        match may_open {
            true => (self.peer.max_streams as usize).saturating_sub(self.streams.open()),
            false => 0,
        }
    }

    /// Sends PING; [`Event::Pong`] follows.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if self.failed.is_none() {
            frame::write_ping(&mut self.output, 0, payload);
            self.pings_outstanding = self.pings_outstanding.saturating_add(1);
        }
    }

    /// Reports the seconds since the last call, which give budget back to the defences. Otherwise
    /// only useful work does, and a connection idle for hours except for PINGs would be closed.
    /// Every second call resets with NO_ERROR the requests whose replies were complete before the
    /// first (RFC 9113 section 8.1).
    pub fn tick(&mut self, elapsed_seconds: u32) {
        self.budgets.earn_time(elapsed_seconds);
        if elapsed_seconds > 0 {
            self.reset_unwanted();
        }
    }

    /// Remembers `value` for the header block of the last [`Event::Headers`] or [`Event::Trailers`]
    /// if that was memoizable. The same bytes then give a `Memo…` event with `value`, as long as
    /// they mean the same. Does nothing otherwise.
    pub fn memoize(&mut self, value: u32) {
        self.memos.remember(value);
    }

    /// The error after which nothing can be sent.
    #[inline]
    fn check_alive(&self) -> Result<(), SendError> {
        match self.failed {
            None => Ok(()),
            Some(_) => Err(SendError::ConnectionClosed),
        }
    }

    /// Sends RST_STREAM and remembers it, so that frames in flight are ignored.
    fn write_reset(&mut self, id: u32, code: ErrorCode) {
        frame::write_rst_stream(&mut self.output, id, code);
        self.closed.remember(id, defence::Closed::ResetByUs);
    }

    /// Removes a stream. Bytes that its driver had not released return to the connection's window.
    fn remove_stream(&mut self, stream: StreamId) {
        let held = self.streams.remove(stream);
        if held > 0 {
            self.free_received_connection(held);
        }
    }

    /// Returns `count` delivered bytes to the windows of a stream and of the connection.
    #[inline]
    fn free_received(&mut self, stream: StreamId, count: u32) {
        if let Some(found) = self.streams.get_mut(stream)
            && !found.remote_ended
            && let Some(increment) = found.receive_window.free(count, self.config.initial_window / 2)
        {
            frame::write_window_update(&mut self.output, stream.id, increment);
        }
        self.free_received_connection(count);
    }

    #[inline]
    fn free_received_connection(&mut self, count: u32) {
        if let Some(increment) = self.receive_window.free(count, self.config.connection_window / 2) {
            frame::write_window_update(&mut self.output, 0, increment);
        }
    }
}
