//! Frames about the connection: SETTINGS, PING, GOAWAY, WINDOW_UPDATE (RFC 9113 section 6.5, 6.7 to
//! 6.9) and PRIORITY, which is deprecated, checked and ignored (section 5.3.2).

use super::blocks::depends_on;
use super::defence::cost;
use super::recv::{Notice, Outcome, Progress, Step, flow_control, frame_size};
use super::{Connection, DRAIN_PING, Drain, Role};
use crate::h2::error::{ConnectionError, ErrorCode};
use crate::h2::flow;
use crate::h2::frame::{self, FrameHeader, flag, kind, setting};
use crate::limits;

impl Connection {
    /// Checks the size that a type prescribes, before any payload is waited for.
    pub(super) fn check_size(&self, header: FrameHeader) -> Result<(), ConnectionError> {
        let len = header.len;
        let legal = match header.kind {
            // Another size is an error of the stream only (section 6.3), but no honest peer sends
            // one; see below.
            kind::PRIORITY => len == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => len == 4,
            kind::PING => len == 8,
            kind::SETTINGS if header.has(flag::ACK) => len == 0,
            kind::SETTINGS => len.is_multiple_of(6),
            kind::GOAWAY => len >= 8,
            _ => true,
        };
        if !legal {
            // "A FRAME_SIZE_ERROR in a frame that could alter the state of the entire connection
            // MUST be treated as a connection error" (section 4.2). For the others an endpoint may
            // do the same (section 5.4.2).
            return Err(frame_size("frame of an illegal size"));
        }
        if header.kind == kind::SETTINGS && len as usize > limits::HTTP2_SETTINGS_PER_FRAME_MAX * 6 {
            return Err(ConnectionError::calm("too many settings in a frame"));
        }
        Ok(())
    }

    pub(super) fn priority_frame<'i>(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome<'i> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("PRIORITY on stream 0"));
        }
        self.budgets.spend_frames(cost::FRAME)?;
        if !depends_on(payload, header.stream) {
            return Ok(Progress::Next);
        }
        // RFC 7540 section 5.3.1. RST_STREAM must not be sent for an idle stream, so that is an
        // error of the connection.
        match self.streams.find(header.stream) {
            Some(stream) => self.stream_error(stream, ErrorCode::PROTOCOL_ERROR),
            None => Err(ConnectionError::protocol("a stream depends on itself")),
        }
    }

    pub(super) fn settings_frame<'i>(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome<'i> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("SETTINGS on a stream"));
        }
        if header.has(flag::ACK) {
            if !self.settings_received {
                return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
            }
            self.settings_ack()?;
            return Ok(Progress::Next);
        }
        if self.settings_received {
            self.budgets.spend_frames(cost::SETTINGS)?;
        } else {
            self.settings_received = true;
            // Without the setting there is no limit (section 6.5.2).
            self.peer.max_streams = u32::MAX;
        }
        for entry in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            self.apply_setting(id, value)?;
        }
        frame::write_header(&mut self.output, 0, kind::SETTINGS, flag::ACK, 0);
        self.flush_all();
        Ok(Progress::Event(Step::Notice(Notice::PeerSettings)))
    }

    fn apply_setting(&mut self, id: u16, value: u32) -> Result<(), ConnectionError> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.set_peer_max_table_size(value as usize),
            setting::ENABLE_PUSH => {
                // A server must not set it to anything but 0 (section 6.5.2).
                let most = u32::from(self.config.role == Role::Server);
                if value > most {
                    return Err(ConnectionError::protocol("illegal SETTINGS_ENABLE_PUSH"));
                }
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting::INITIAL_WINDOW_SIZE => return self.change_initial_window(value),
            setting::MAX_FRAME_SIZE => {
                if !(frame::PAYLOAD_MAX_DEFAULT..=frame::PAYLOAD_MAX).contains(&value) {
                    return Err(ConnectionError::protocol("illegal SETTINGS_MAX_FRAME_SIZE"));
                }
                self.peer.max_frame = value as usize;
            }
            setting::MAX_HEADER_LIST_SIZE => self.peer.max_header_list = value,
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(ConnectionError::protocol(
                    "illegal SETTINGS_ENABLE_CONNECT_PROTOCOL",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Applies a changed initial window: section 6.9.2 adds the difference to the windows of all
    /// open streams, which may become negative.
    fn change_initial_window(&mut self, size: u32) -> Result<(), ConnectionError> {
        if size > flow::WINDOW_MAX {
            return Err(flow_control("illegal SETTINGS_INITIAL_WINDOW_SIZE"));
        }
        let delta = i64::from(size) - i64::from(self.peer.initial_window);
        self.peer.initial_window = size;
        for stream in self.streams.iter_mut() {
            stream
                .send_window
                .adjust(delta)
                .map_err(|_| flow_control("SETTINGS_INITIAL_WINDOW_SIZE overflows a window"))?;
        }
        Ok(())
    }

    /// Handles the acknowledgement of our SETTINGS, which bind the peer from here on.
    fn settings_ack(&mut self) -> Result<(), ConnectionError> {
        if self.settings_acked {
            return self.budgets.spend_frames(cost::FRAME);
        }
        self.settings_acked = true;
        self.decoder
            .set_max_table_size_limit(self.config.header_table_size as usize);
        // After a lower limit the next block must open with a size update, which a remembered block
        // would skip.
        self.memos.clear();
        let delta = i64::from(self.config.initial_window) - i64::from(self.local_window);
        self.local_window = self.config.initial_window;
        for stream in self.streams.iter_mut() {
            stream.receive_window.adjust(delta);
        }
        Ok(())
    }

    pub(super) fn ping_frame<'i>(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome<'i> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("PING on a stream"));
        }
        let payload: [u8; 8] = payload.first_chunk().copied().unwrap_or_default();
        if !header.has(flag::ACK) {
            self.budgets.spend_frames(cost::FRAME)?;
            frame::write_ping(&mut self.output, flag::ACK, payload);
            return Ok(Progress::Next);
        }
        if payload == DRAIN_PING && self.drain == Drain::Announced {
            self.finish_goaway();
            return Ok(Progress::Next);
        }
        if self.pings_outstanding == 0 {
            self.budgets.spend_frames(cost::FRAME)?;
            return Ok(Progress::Next);
        }
        self.pings_outstanding -= 1;
        Ok(Progress::Event(Step::Notice(Notice::Pong { payload })))
    }

    pub(super) fn goaway_frame<'i>(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome<'i> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("GOAWAY on a stream"));
        }
        self.budgets.spend_frames(cost::FRAME)?;
        let word = |at: usize| {
            let bytes = payload.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        // Section 6.8: the last id may not grow; a larger one changes nothing.
        let last_stream = (word(0) & frame::STREAM_ID_MAX).min(self.peer_goaway.unwrap_or(u32::MAX));
        let code = ErrorCode(word(4));
        self.peer_goaway = Some(last_stream);
        if self.config.role == Role::Client {
            self.drop_refused(last_stream);
        }
        Ok(Progress::Event(Step::Notice(Notice::GoAway {
            last_stream,
            code,
        })))
    }

    /// Client: drops the streams above the last one, on which the peer has not acted and will not.
    fn drop_refused(&mut self, last_stream: u32) {
        for slot in 0..self.streams.slots() {
            if let Some(stream) = self
                .streams
                .handle_at(slot)
                .filter(|stream| stream.id > last_stream)
            {
                self.remove_stream(stream);
                self.closed.remember(stream.id, super::defence::Closed::ResetByUs);
                self.notices.push_back(Notice::Reset {
                    stream,
                    code: ErrorCode::REFUSED_STREAM,
                });
            }
        }
    }

    pub(super) fn window_update_frame<'i>(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome<'i> {
        self.budgets.spend_frames(cost::FRAME)?;
        let increment = payload
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let increment = i64::from(increment & flow::WINDOW_MAX);
        if header.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE of 0"));
            }
            self.send_window
                .adjust(increment)
                .map_err(|_| flow_control("the connection's window overflows"))?;
            self.flush_ring();
            return Ok(Progress::Next);
        }
        self.check_not_idle(header.stream)?;
        let Some(stream) = self.streams.find(header.stream) else {
            // Section 5.1: WINDOW_UPDATE may arrive for a while after the end of a stream.
            return Ok(Progress::Next);
        };
        if increment == 0 {
            return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR);
        }
        let adjusted = self
            .streams
            .get_mut(stream)
            .map(|found| found.send_window.adjust(increment));
        if adjusted == Some(Err(flow::WindowOverflow)) {
            return self.stream_error(stream, ErrorCode::FLOW_CONTROL_ERROR);
        }
        self.flush_stream(stream, usize::MAX);
        Ok(Progress::Next)
    }
}
