//! Header blocks: HEADERS and CONTINUATION (RFC 9113 section 6.2, 6.10), their meaning for the
//! stream (section 8.1), and the opening of streams (section 5.1.1, 5.1.2).
//!
//! A block that lies whole in one frame is read in place; only blocks that span frames are
//! gathered, within [`limits::HTTP2_HEADER_BLOCK_MAX`] and [`limits::HTTP2_CONTINUATIONS_MAX`].
//! Every block is decoded, even one for a refused stream, since it may change the header table. A
//! remembered block is not decoded: it does not change the table.

use super::defence::{Closed, cost};
use super::memo::Section;
use super::recv::{Outcome, Progress, Reading, Step, frame_size};
use super::{Connection, Role};
use crate::h2::error::{ConnectionError, ErrorCode};
use crate::h2::event::{Input, StreamId};
use crate::h2::flow::{ReceiveWindow, SendWindow};
use crate::h2::frame::{FrameHeader, HEADER_LEN, flag};
use crate::h2::headers::{self, Facts};
use crate::h2::hpack;
use crate::limits;

/// Contents of the HEADERS frame whose block is being gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockStart {
    pub(crate) stream: u32,
    end_stream: bool,
    /// Whether the stream depends on itself (RFC 7540 section 5.3.1).
    self_dependent: bool,
    continuations: u32,
}

/// The section that a block is, by the state of its stream.
#[derive(Clone, Copy, Debug)]
enum Place {
    Request,
    Response(StreamId),
    Trailers(StreamId),
    /// A stream that is closed, or that we ignore: its block is decoded only for the table.
    Closed,
}

/// A decoded or remembered block.
struct Understood {
    /// The driver's value for the block, if the block was remembered and not decoded.
    memo: Option<u32>,
    facts: Result<Facts, headers::Malformed>,
    too_large: bool,
    memoizable: bool,
}

impl Connection {
    // ---- frames ---------------------------------------------------------------------------------

    #[inline]
    pub(super) fn headers_frame<'i>(&mut self, header: FrameHeader, input: &mut Input<'i>) -> Outcome<'i> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("HEADERS on stream 0"));
        }
        let payload = &input.remaining()[HEADER_LEN..];
        let padded = header.has(flag::PADDED);
        let priority = header.has(flag::PRIORITY);
        let prefix = usize::from(padded) + 5 * usize::from(priority);
        if (header.len as usize) < prefix {
            return Err(frame_size("HEADERS too small for its flags"));
        }
        let whole = payload.len() >= header.len as usize;
        if payload.len() < prefix || (!whole && header.len <= self.config.whole_frame_max) {
            return Ok(Progress::More);
        }
        let padding = if padded { u32::from(payload[0]) } else { 0 };
        let Some(left) = (header.len - prefix as u32).checked_sub(padding) else {
            return Err(ConnectionError::protocol("padding larger than its frame"));
        };
        let start = BlockStart {
            stream: header.stream,
            end_stream: header.has(flag::END_STREAM),
            self_dependent: priority && depends_on(&payload[usize::from(padded)..], header.stream),
            continuations: 0,
        };
        let end_headers = header.has(flag::END_HEADERS);
        if whole && end_headers {
            input.advance(HEADER_LEN + header.len as usize);
            return self.finish_block(start, &payload[prefix..prefix + left as usize]);
        }
        input.advance(HEADER_LEN + prefix);
        self.block.clear();
        self.continuing = Some(start);
        self.reading = Reading::Fragment {
            left,
            padding,
            end_headers,
        };
        Ok(Progress::Next)
    }

    pub(super) fn continuation_frame<'i>(
        &mut self,
        header: FrameHeader,
        input: &mut Input<'i>,
    ) -> Outcome<'i> {
        // The stream of the block was checked with each of its frames.
        let Some(start) = &mut self.continuing else {
            return Err(ConnectionError::protocol("CONTINUATION without HEADERS"));
        };
        start.continuations += 1;
        if start.continuations > limits::HTTP2_CONTINUATIONS_MAX {
            let id = start.stream;
            self.count_as_taken(id);
            return Err(ConnectionError::calm("too many CONTINUATION frames"));
        }
        input.advance(HEADER_LEN);
        self.reading = Reading::Fragment {
            left: header.len,
            padding: 0,
            end_headers: header.has(flag::END_HEADERS),
        };
        Ok(Progress::Next)
    }

    /// Gathers the bytes of a fragment that have arrived. After its last byte, processes the block
    /// if it is complete.
    pub(super) fn fragment_piece<'i>(&mut self, input: &mut Input<'i>) -> Outcome<'i> {
        let Reading::Fragment {
            left,
            padding,
            end_headers,
        } = self.reading
        else {
            return Ok(Progress::Next);
        };
        let bytes = input.remaining();
        let piece = bytes.len().min(left as usize);
        if piece == 0 && left > 0 {
            return Ok(Progress::More);
        }
        if self.block.len() + left as usize > limits::HTTP2_HEADER_BLOCK_MAX {
            if let Some(start) = self.continuing {
                self.count_as_taken(start.stream);
            }
            return Err(ConnectionError::calm("header block too large"));
        }
        self.block.extend_from_slice(&bytes[..piece]);
        input.advance(piece);
        let left = left - piece as u32;
        if left > 0 {
            self.reading = Reading::Fragment {
                left,
                padding,
                end_headers,
            };
            return Ok(Progress::Next);
        }
        self.skip(padding);
        match self.continuing {
            Some(start) if end_headers => {
                self.continuing = None;
                let mut block = std::mem::take(&mut self.block);
                let outcome = self.finish_block(start, &block);
                // The buffer is kept for the next block, unless an idle connection should not carry
                // one so large.
                if block.capacity() <= BLOCK_KEPT_MAX {
                    block.clear();
                    self.block = block;
                }
                outcome
            }
            _ => Ok(Progress::Next),
        }
    }

    // ---- blocks ---------------------------------------------------------------------------------

    /// Acts on a complete header block.
    #[inline(always)]
    fn finish_block<'i>(&mut self, start: BlockStart, block: &[u8]) -> Outcome<'i> {
        if block.len() > limits::HTTP2_HEADER_BLOCK_MAX {
            return Err(ConnectionError::calm("header block too large"));
        }
        let place = self.place(start.stream)?;
        let understood = match self.understand(place, block) {
            Ok(understood) => understood,
            Err(error) => {
                self.count_as_taken(start.stream);
                return Err(error);
            }
        };
        match place {
            Place::Request => self.open_stream(start, understood),
            Place::Response(stream) => self.response(stream, start, understood),
            Place::Trailers(stream) => self.trailers(stream, start, understood),
            Place::Closed => self.headers_of_closed(start.stream),
        }
    }

    /// Lets the last GOAWAY name a stream whose headers end the connection: a client that believes
    /// the stream unprocessed would resend it on other connections without end.
    #[cold]
    fn count_as_taken(&mut self, id: u32) {
        if self.config.role == Role::Server && id % 2 == 1 && !self.is_past_goaway(id) {
            self.last_peer_id = self.last_peer_id.max(id);
        }
    }

    #[inline]
    fn place(&self, id: u32) -> Result<Place, ConnectionError> {
        let client = self.config.role == Role::Client;
        if let Some(stream) = self.streams.find(id) {
            let answered = self
                .streams
                .get(stream)
                .is_some_and(|found| found.headers_received);
            return Ok(match client && !answered {
                true => Place::Response(stream),
                false => Place::Trailers(stream),
            });
        }
        if client {
            self.check_not_idle(id)?;
            return Ok(Place::Closed);
        }
        if id.is_multiple_of(2) {
            return Err(ConnectionError::protocol("a client's stream has an even id"));
        }
        if id <= self.last_peer_id || self.is_past_goaway(id) {
            return Ok(Place::Closed);
        }
        Ok(Place::Request)
    }

    /// Decodes and validates a block, or finds it among the remembered ones.
    #[inline]
    fn understand(&mut self, place: Place, block: &[u8]) -> Result<Understood, ConnectionError> {
        let section = match place {
            Place::Request | Place::Closed => Section::Request,
            Place::Response(_) => Section::Response,
            Place::Trailers(_) => Section::Trailers,
        };
        self.memos.withdraw();
        let version = self.decoder.table_version();
        if let Some(memo) = self.memos.find(section, block, version) {
            return Ok(Understood {
                memo: Some(memo.value),
                facts: Ok(Facts {
                    content_length: memo.content_length,
                    status: 200,
                }),
                too_large: false,
                memoizable: false,
            });
        }
        let max_list = self.config.max_header_list as usize;
        let info = self
            .decoder
            .decode(block, max_list, &mut self.headers)
            .map_err(|error| match error {
                hpack::HpackError::ListFarTooLarge => ConnectionError::calm("header list far too large"),
                _ => ConnectionError::new(ErrorCode::COMPRESSION_ERROR, "invalid header block"),
            })?;
        let facts = match section {
            Section::Request => headers::check_request(&self.headers),
            Section::Response => headers::check_response(&self.headers),
            Section::Trailers => headers::check_trailers(&self.headers).map(|()| Facts {
                content_length: -1,
                status: 0,
            }),
        };
        let memoizable = match facts {
            // Interim responses give no event, so no driver could remember them.
            Ok(facts) if !info.too_large && (section != Section::Response || facts.status >= 200) => {
                let version = self.decoder.table_version();
                self.memos
                    .offer(section, block, info, version, facts.content_length)
            }
            _ => false,
        };
        Ok(Understood {
            memo: None,
            facts,
            too_large: info.too_large,
            memoizable,
        })
    }

    /// Server: a request on a new stream.
    #[inline]
    fn open_stream<'i>(&mut self, start: BlockStart, understood: Understood) -> Outcome<'i> {
        let id = start.stream;
        self.last_peer_id = id;
        if start.self_dependent {
            return self.refuse(id, ErrorCode::PROTOCOL_ERROR);
        }
        // Section 5.1.2: safe to retry, since nothing was done.
        if self.streams.open() >= self.config.max_concurrent_streams as usize {
            return self.refuse(id, ErrorCode::REFUSED_STREAM);
        }
        if understood.too_large {
            return self.open_oversized(start);
        }
        let Ok(facts) = understood.facts else {
            return self.refuse(id, ErrorCode::PROTOCOL_ERROR);
        };
        if start.end_stream && facts.content_length > 0 {
            return self.refuse(id, ErrorCode::PROTOCOL_ERROR);
        }
        let stream = self.insert_stream(start);
        if let Some(found) = self.streams.get_mut(stream) {
            found.content_left = facts.content_length;
        }
        Ok(Progress::Event(Self::headers_step(stream, start, &understood)))
    }

    #[inline]
    fn insert_stream(&mut self, start: BlockStart) -> StreamId {
        let stream = self.streams.insert(
            start.stream,
            SendWindow::new(self.peer.initial_window),
            ReceiveWindow::new(self.local_window),
        );
        if let Some(found) = self.streams.get_mut(stream) {
            found.remote_ended = start.end_stream;
        }
        stream
    }

    /// The event of a final request or response section.
    #[inline]
    fn headers_step<'i>(stream: StreamId, start: BlockStart, understood: &Understood) -> Step<'i> {
        let end_stream = start.end_stream;
        match understood.memo {
            Some(memo) => Step::MemoHeaders {
                stream,
                memo,
                end_stream,
            },
            None => Step::Headers {
                stream,
                end_stream,
                memoizable: understood.memoizable,
            },
        }
    }

    /// Opens a stream whose header fields are too large (RFC 9113 section 10.5.1), so that its
    /// driver answers. It costs allowance, like all work that is useless to everyone.
    #[cold]
    fn open_oversized<'i>(&mut self, start: BlockStart) -> Outcome<'i> {
        self.budgets.spend_stream_error()?;
        let stream = self.insert_stream(start);
        Ok(Progress::Event(Step::OversizedHeaders {
            stream,
            end_stream: start.end_stream,
        }))
    }

    /// Client: interim or final response headers.
    fn response<'i>(&mut self, stream: StreamId, start: BlockStart, understood: Understood) -> Outcome<'i> {
        let facts = match understood.facts {
            Ok(facts) if !understood.too_large => facts,
            _ => return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR),
        };
        if facts.status < 200 {
            self.budgets.spend_frames(cost::FRAME)?;
            return match start.end_stream {
                true => self.stream_error(stream, ErrorCode::PROTOCOL_ERROR),
                false => Ok(Progress::Next),
            };
        }
        let Some(found) = self.streams.get_mut(stream) else {
            return Ok(Progress::Next);
        };
        found.headers_received = true;
        // Section 8.1.1: these have no body, whatever their `content-length`.
        if !found.head_request && facts.status != 204 && facts.status != 304 {
            found.content_left = facts.content_length;
        }
        if start.end_stream {
            if found.content_left > 0 {
                return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR);
            }
            self.end_remote(stream);
            self.budgets.earn_reply();
        }
        Ok(Progress::Event(Self::headers_step(stream, start, &understood)))
    }

    /// Headers on a stream that has had its headers.
    fn trailers<'i>(&mut self, stream: StreamId, start: BlockStart, understood: Understood) -> Outcome<'i> {
        let Some(found) = self.streams.get(stream) else {
            return Ok(Progress::Next);
        };
        if found.remote_ended {
            return self.stream_error(stream, ErrorCode::STREAM_CLOSED);
        }
        // Section 8.1: trailers end the stream; the body before them must be as long as announced.
        let legal = start.end_stream && found.content_left <= 0 && !start.self_dependent;
        if !legal || understood.too_large || understood.facts.is_err() {
            return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR);
        }
        self.end_remote(stream);
        if self.config.role == Role::Client {
            self.budgets.earn_reply();
        }
        Ok(Progress::Event(match understood.memo {
            Some(memo) => Step::MemoTrailers { stream, memo },
            None => Step::Trailers {
                stream,
                memoizable: understood.memoizable,
            },
        }))
    }

    /// Headers on a stream that is closed (section 5.1) or that we ignore.
    #[cold]
    fn headers_of_closed<'i>(&mut self, id: u32) -> Outcome<'i> {
        self.budgets.spend_frames(cost::FRAME)?;
        if self.is_past_goaway(id) {
            self.last_peer_id = self.last_peer_id.max(id);
            return Ok(Progress::Next);
        }
        match self.closed.how(id) {
            Some(Closed::ResetByUs) => Ok(Progress::Next),
            Some(Closed::ResetByPeer) => self.refuse(id, ErrorCode::STREAM_CLOSED),
            Some(Closed::Ended) => Err(ConnectionError::new(
                ErrorCode::STREAM_CLOSED,
                "HEADERS after END_STREAM",
            )),
            // A client may have reset more streams than it remembers, with the server's frames in
            // flight.
            None if self.config.role == Role::Client => Ok(Progress::Next),
            None => Err(ConnectionError::protocol("stream ids must grow")),
        }
    }
}

/// Largest capacity, in bytes, at which the gathering buffer is kept for the next block.
const BLOCK_KEPT_MAX: usize = 2_048;

/// Whether the priority fields make `stream` depend on itself.
pub(super) fn depends_on(priority: &[u8], stream: u32) -> bool {
    priority
        .first_chunk()
        .is_some_and(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff == stream)
}
