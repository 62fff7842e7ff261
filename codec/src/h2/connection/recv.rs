//! The receiving side: frames out of the input, in order; DATA and RST_STREAM; the effects of
//! stream errors.
//!
//! Small control frames are taken whole. DATA and header blocks above
//! [`super::Config::whole_frame_max`] are taken piece by piece as they arrive, and unknown frames
//! are skipped, so a receive buffer never needs to hold more than
//! [`super::Config::receive_buffer_min`].

use super::defence::{Closed, TINY_DATA, cost};
use super::{Connection, Drain, Role};
use crate::h2::error::{ConnectionError, ErrorCode};
use crate::h2::event::{Event, Input, StreamId};
use crate::h2::frame::{FrameHeader, HEADER_LEN, flag, kind};
use crate::h2::stream::Stream;

/// The position in the byte stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading {
    /// The client's connection preface is next (RFC 9113 section 3.4).
    Preface,
    /// A frame header is next.
    Frame,
    /// Inside a DATA frame that is delivered in pieces.
    Data {
        stream: StreamId,
        left: u32,
        padding: u32,
        end_stream: bool,
    },
    /// Inside a HEADERS or CONTINUATION frame that is gathered in pieces.
    Fragment {
        left: u32,
        padding: u32,
        end_headers: bool,
    },
    /// Inside bytes that are skipped.
    Skip { left: u32 },
}

/// Result of one step of the parser, before it borrows from the connection.
#[derive(Debug)]
pub(crate) enum Step<'i> {
    Headers {
        stream: StreamId,
        end_stream: bool,
        memoizable: bool,
    },
    MemoHeaders {
        stream: StreamId,
        memo: u32,
        end_stream: bool,
    },
    OversizedHeaders {
        stream: StreamId,
        end_stream: bool,
    },
    Data {
        stream: StreamId,
        data: &'i [u8],
        end_stream: bool,
    },
    Trailers {
        stream: StreamId,
        memoizable: bool,
    },
    MemoTrailers {
        stream: StreamId,
        memo: u32,
    },
    Notice(Notice),
}

/// An event that owns its contents, so that it can wait its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    Reset { stream: StreamId, code: ErrorCode },
    Writable { stream: StreamId },
    GoAway { last_stream: u32, code: ErrorCode },
    Pong { payload: [u8; 8] },
    PeerSettings,
}

/// Fate of a piece of input.
pub(crate) enum Progress<'i> {
    /// An event for the driver.
    Event(Step<'i>),
    /// Consumed; continue.
    Next,
    /// Incomplete; nothing was consumed.
    More,
}

pub(crate) type Outcome<'i> = Result<Progress<'i>, ConnectionError>;

impl Connection {
    /// Consumes input until there is an event.
    #[inline(always)]
    pub(super) fn step<'i>(&mut self, input: &mut Input<'i>) -> Result<Option<Step<'i>>, ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Ok(Some(Step::Notice(notice)));
            }
            // The requests of a peer that does not read its replies are not served.
            if !self.wants_read() {
                return Ok(None);
            }
            let progress = match self.reading {
                Reading::Frame => self.next_frame(input)?,
                Reading::Data { .. } => self.data_piece(input),
                Reading::Fragment { .. } => self.fragment_piece(input)?,
                Reading::Skip { left } => self.skip_piece(input, left),
                Reading::Preface => self.preface(input)?,
            };
            match progress {
                Progress::Event(step) => return Ok(Some(step)),
                Progress::Next => {}
                Progress::More => return Ok(None),
            }
        }
    }

    /// Adds the connection's header list to the parser's result.
    #[inline(always)]
    pub(super) fn event<'c, 'i>(&'c self, step: Step<'i>) -> Event<'c, 'i> {
        let headers = &self.headers;
        match step {
            Step::Headers {
                stream,
                end_stream,
                memoizable,
            } => Event::Headers {
                stream,
                headers,
                end_stream,
                memoizable,
            },
            Step::MemoHeaders {
                stream,
                memo,
                end_stream,
            } => Event::MemoHeaders {
                stream,
                memo,
                end_stream,
            },
            Step::OversizedHeaders { stream, end_stream } => Event::OversizedHeaders {
                stream,
                headers,
                end_stream,
            },
            Step::Data {
                stream,
                data,
                end_stream,
            } => Event::Data {
                stream,
                data,
                end_stream,
            },
            Step::Trailers { stream, memoizable } => Event::Trailers {
                stream,
                headers,
                memoizable,
            },
            Step::MemoTrailers { stream, memo } => Event::MemoTrailers { stream, memo },
            Step::Notice(Notice::Reset { stream, code }) => Event::Reset { stream, code },
            Step::Notice(Notice::Writable { stream }) => Event::Writable { stream },
            Step::Notice(Notice::GoAway { last_stream, code }) => Event::GoAway { last_stream, code },
            Step::Notice(Notice::Pong { payload }) => Event::Pong { payload },
            Step::Notice(Notice::PeerSettings) => Event::PeerSettings,
        }
    }

    fn preface<'i>(&mut self, input: &mut Input<'i>) -> Outcome<'i> {
        let bytes = input.remaining();
        let seen = bytes.len().min(crate::h2::PREFACE.len());
        // A wrong preface is refused at its first wrong byte: the rest might never come.
        if bytes[..seen] != crate::h2::PREFACE[..seen] {
            return Err(ConnectionError::protocol("invalid connection preface"));
        }
        if seen < crate::h2::PREFACE.len() {
            return Ok(Progress::More);
        }
        input.advance(seen);
        self.reading = Reading::Frame;
        Ok(Progress::Next)
    }

    #[inline]
    fn next_frame<'i>(&mut self, input: &mut Input<'i>) -> Outcome<'i> {
        let Some(header) = FrameHeader::parse(input.remaining()) else {
            return Ok(Progress::More);
        };
        if header.len > self.config.max_frame_size {
            return Err(frame_size("frame above SETTINGS_MAX_FRAME_SIZE"));
        }
        // RFC 9113 section 6.10: nothing may come between the frames of a header block.
        if let Some(start) = &self.continuing
            && (header.kind != kind::CONTINUATION || header.stream != start.stream)
        {
            return Err(ConnectionError::protocol("header block interrupted"));
        }
        // Section 3.4: SETTINGS come first.
        if !self.settings_received && header.kind != kind::SETTINGS {
            return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
        }
        match header.kind {
            kind::DATA => self.data_frame(header, input),
            kind::HEADERS => self.headers_frame(header, input),
            kind::CONTINUATION => self.continuation_frame(header, input),
            _ => self.other_frame(header, input),
        }
    }

    fn other_frame<'i>(&mut self, header: FrameHeader, input: &mut Input<'i>) -> Outcome<'i> {
        // Sizes are checked before a payload is waited for, which need not come.
        self.check_size(header)?;
        match header.kind {
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("PUSH_PROMISE is not allowed")),
            kind::PRIORITY
            | kind::RST_STREAM
            | kind::SETTINGS
            | kind::PING
            | kind::GOAWAY
            | kind::WINDOW_UPDATE => {
                let taken = match header.kind {
                    // The debug data of GOAWAY may be long and is not used.
                    kind::GOAWAY => 8,
                    _ => header.len as usize,
                };
                let Some(payload) = input.remaining().get(HEADER_LEN..HEADER_LEN + taken) else {
                    return Ok(Progress::More);
                };
                input.advance(HEADER_LEN + taken);
                self.skip(header.len - taken as u32);
                self.control_frame(header, payload)
            }
            _ => {
                // Section 5.5: unknown types are ignored.
                self.budgets.spend_frames(cost::FRAME)?;
                input.advance(HEADER_LEN);
                self.skip(header.len);
                Ok(Progress::Next)
            }
        }
    }

    fn control_frame<'i>(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome<'i> {
        match header.kind {
            kind::PRIORITY => self.priority_frame(header, payload),
            kind::RST_STREAM => self.rst_stream_frame(header, payload),
            kind::SETTINGS => self.settings_frame(header, payload),
            kind::PING => self.ping_frame(header, payload),
            kind::GOAWAY => self.goaway_frame(header, payload),
            _ => self.window_update_frame(header, payload),
        }
    }

    // ---- DATA (section 6.1) ---------------------------------------------------------------------

    #[inline]
    fn data_frame<'i>(&mut self, header: FrameHeader, input: &mut Input<'i>) -> Outcome<'i> {
        let bytes = input.remaining();
        let len = header.len;
        let whole = bytes.len() - HEADER_LEN >= len as usize;
        if !whole && len <= self.config.whole_frame_max {
            return Ok(Progress::More);
        }
        let (mut taken, mut left, mut padding) = (HEADER_LEN, len, 0);
        if header.has(flag::PADDED) {
            let Some(&pad) = bytes.get(HEADER_LEN).filter(|_| len > 0) else {
                return if len == 0 {
                    Err(frame_size("no room for padding"))
                } else {
                    Ok(Progress::More)
                };
            };
            padding = u32::from(pad);
            if padding >= len {
                return Err(ConnectionError::protocol("padding larger than its frame"));
            }
            taken += 1;
            left -= 1 + padding;
        }
        // Section 6.9: the whole payload counts, padding included, and for the connection also when
        // the stream is gone.
        if !self.receive_window.consume(len) {
            return Err(flow_control("DATA beyond the connection's window"));
        }
        input.advance(taken);
        let Some(stream) = self.streams.find(header.stream) else {
            return self.data_of_closed(header, taken);
        };
        let end_stream = header.has(flag::END_STREAM);
        if let Err(code) = self.admit_data(stream, len, left, end_stream) {
            self.skip_received(len - (taken - HEADER_LEN) as u32, len);
            return self.stream_error(stream, code);
        }
        if !end_stream {
            match left {
                0 => self.budgets.spend_frames(cost::EMPTY_DATA)?,
                1..TINY_DATA => self.budgets.spend_frames(cost::FRAME)?,
                _ => self.budgets.earn_data_received(),
            }
        }
        if len > left {
            // Padding is not delivered, so no driver would release it.
            self.free_received(stream, len - left);
        }
        self.reading = Reading::Data {
            stream,
            left,
            padding,
            end_stream,
        };
        Ok(self.data_piece(input))
    }

    /// Whether an open stream may receive this DATA frame.
    #[inline]
    fn admit_data(
        &mut self,
        stream: StreamId,
        len: u32,
        data: u32,
        end_stream: bool,
    ) -> Result<(), ErrorCode> {
        let Some(found) = self.streams.get_mut(stream) else {
            return Err(ErrorCode::STREAM_CLOSED);
        };
        if found.remote_ended {
            return Err(ErrorCode::STREAM_CLOSED);
        }
        if self.config.role == Role::Client && !found.headers_received {
            return Err(ErrorCode::PROTOCOL_ERROR);
        }
        if !found.receive_window.consume(len) {
            return Err(ErrorCode::FLOW_CONTROL_ERROR);
        }
        // Section 8.1.1: the body must be as long as its `content-length`.
        if found.content_left >= 0 {
            found.content_left -= i64::from(data);
            if found.content_left < 0 || (end_stream && found.content_left > 0) {
                return Err(ErrorCode::PROTOCOL_ERROR);
            }
        }
        Ok(())
    }

    /// Delivers the part of a DATA frame that has arrived.
    #[inline]
    fn data_piece<'i>(&mut self, input: &mut Input<'i>) -> Progress<'i> {
        let Reading::Data {
            stream,
            left,
            padding,
            end_stream,
        } = self.reading
        else {
            return Progress::Next;
        };
        let bytes = input.remaining();
        let piece = bytes.len().min(left as usize);
        let unwanted = |found: &Stream| found.local_ended && found.queue.is_none();
        let Some((auto, unwanted)) = self
            .streams
            .get(stream)
            .map(|found| (found.auto_release, unwanted(found)))
        else {
            // The driver has reset the stream in the middle of the frame.
            self.skip_received(left + padding, left);
            return Progress::Next;
        };
        if piece == 0 && left > 0 {
            return Progress::More;
        }
        let data = &bytes[..piece];
        input.advance(piece);
        let left = left - piece as u32;
        let last = left == 0;
        if last {
            self.reading = Reading::Frame;
            self.skip(padding);
        } else {
            self.reading = Reading::Data {
                stream,
                left,
                padding,
                end_stream,
            };
        }
        let end_stream = end_stream && last;
        if piece == 0 && !end_stream {
            return Progress::Next;
        }
        if unwanted && self.config.role == Role::Server {
            // The reply is complete. The stream's window stays as it is, so that soon the client
            // can send no more.
            self.free_received_connection(piece as u32);
            if end_stream {
                self.end_remote(stream);
            }
            return Progress::Next;
        }
        if !auto && let Some(found) = self.streams.get_mut(stream) {
            found.held += piece as u32;
        }
        if end_stream {
            self.end_remote(stream);
        }
        if auto {
            self.free_received(stream, piece as u32);
        }
        Progress::Event(Step::Data {
            stream,
            data,
            end_stream,
        })
    }

    /// DATA of a stream that is not open (section 5.1).
    #[cold]
    fn data_of_closed<'i>(&mut self, header: FrameHeader, taken: usize) -> Outcome<'i> {
        self.check_not_idle(header.stream)?;
        if header.len < LATE_DATA_FREE {
            // A larger frame was in flight within the stream's window, which does not open again.
            self.budgets.spend_frames(cost::FRAME)?;
        }
        let padding_byte = (taken - HEADER_LEN) as u32;
        self.skip_received(header.len - padding_byte, header.len);
        match self.closed.how(header.stream) {
            Some(Closed::Ended) => Err(ConnectionError::new(
                ErrorCode::STREAM_CLOSED,
                "DATA after END_STREAM",
            )),
            Some(Closed::ResetByPeer) => self.refuse(header.stream, ErrorCode::STREAM_CLOSED),
            // The frame was in flight when we reset the stream, perhaps so long ago that it is
            // forgotten.
            Some(Closed::ResetByUs) | None => Ok(Progress::Next),
        }
    }

    // ---- the ends of streams --------------------------------------------------------------------

    /// Handles the END_STREAM of the peer.
    #[inline]
    pub(super) fn end_remote(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        found.remote_ended = true;
        if found.local_ended && found.queue.is_none() {
            self.remove_stream(stream);
            self.closed.remember(stream.id, Closed::Ended);
        } else if self.config.role == Role::Client {
            // The reply is complete, so the rest of the request is not needed (RFC 9113 section
            // 8.1). Without this the stream would stay open until its driver reset it.
            self.write_reset(stream.id, ErrorCode::CANCEL);
            self.remove_stream(stream);
        }
    }

    /// Resets an open stream after an error (section 5.4.2) and reports the reset to the driver.
    #[cold]
    pub(super) fn stream_error<'i>(&mut self, stream: StreamId, code: ErrorCode) -> Outcome<'i> {
        self.remove_stream(stream);
        let _: Progress<'i> = self.refuse(stream.id, code)?;
        self.notices.push_back(Notice::Reset { stream, code });
        Ok(Progress::Next)
    }

    /// Resets a stream that the driver does not know, or that is closed already.
    #[cold]
    pub(super) fn refuse<'i>(&mut self, id: u32, code: ErrorCode) -> Outcome<'i> {
        self.write_reset(id, code);
        self.budgets.spend_stream_error()?;
        Ok(Progress::Next)
    }

    fn rst_stream_frame<'i>(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome<'i> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("RST_STREAM on stream 0"));
        }
        self.check_not_idle(header.stream)?;
        let code = ErrorCode(
            payload
                .first_chunk()
                .map_or(0, |bytes| u32::from_be_bytes(*bytes)),
        );
        let Some(stream) = self.streams.find(header.stream) else {
            self.budgets.spend_frames(cost::FRAME)?;
            return Ok(Progress::Next);
        };
        let replied = self.streams.get(stream).is_some_and(|found| found.headers_sent);
        self.remove_stream(stream);
        self.closed.remember(stream.id, Closed::ResetByPeer);
        if self.config.role == Role::Server && !replied {
            self.budgets.spend_reset()?;
        }
        Ok(Progress::Event(Step::Notice(Notice::Reset { stream, code })))
    }

    // ---- small parts ----------------------------------------------------------------------------

    /// Section 5.1, "idle": only HEADERS and PRIORITY may come on a stream that was never opened.
    pub(super) fn check_not_idle(&self, id: u32) -> Result<(), ConnectionError> {
        let ours = id % 2 == u32::from(self.config.role == Role::Client);
        let idle = match self.config.role {
            Role::Server => ours || id > self.last_peer_id,
            Role::Client => !ours || id >= self.next_id,
        };
        match idle {
            true => Err(ConnectionError::protocol("frame on an idle stream")),
            false => Ok(()),
        }
    }

    /// Whether a stream is newer than our final GOAWAY allows.
    pub(super) fn is_past_goaway(&self, id: u32) -> bool {
        matches!(self.drain, Drain::Final(last) if id > last) && self.config.role == Role::Server
    }

    /// Skips the next `left` bytes.
    #[inline]
    pub(super) fn skip(&mut self, left: u32) {
        self.reading = match left {
            0 => Reading::Frame,
            left => Reading::Skip { left },
        };
    }

    /// Skips DATA, and returns `freed` bytes of it to the connection's window.
    fn skip_received(&mut self, left: u32, freed: u32) {
        self.skip(left);
        self.free_received_connection(freed);
    }

    fn skip_piece<'i>(&mut self, input: &mut Input<'i>, left: u32) -> Progress<'i> {
        let piece = input.remaining().len().min(left as usize);
        if piece == 0 {
            return Progress::More;
        }
        input.advance(piece);
        self.skip(left - piece as u32);
        Progress::Next
    }
}

/// Bytes from which on DATA of a closed stream costs no allowance.
const LATE_DATA_FREE: u32 = 1_024;

pub(super) fn frame_size(reason: &'static str) -> ConnectionError {
    ConnectionError::new(ErrorCode::FRAME_SIZE_ERROR, reason)
}

pub(super) fn flow_control(reason: &'static str) -> ConnectionError {
    ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
}
