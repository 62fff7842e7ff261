//! The sending side: requests, headers, data, trailers, and the queues of flow control.
//!
//! Bytes that the windows allow go straight into the output; the rest is queued on its stream. A
//! stream that waits for its own window is woken by its own WINDOW_UPDATE. One that waits for the
//! connection's stands in a ring and gets one frame a turn, so that no stream starves.

use super::recv::Notice;
use super::{Connection, Drain, Fields, Role};
use crate::h2::error::{ErrorCode, SendError};
use crate::h2::event::StreamId;
use crate::h2::flow::{ReceiveWindow, SendWindow};
use crate::h2::frame::{self, FrameHeader, HEADER_LEN, flag, kind};
use crate::h2::hpack::{ENTRY_OVERHEAD, HeaderList, Indexing};
use crate::h2::stream::{End, SendQueue, Stream};

impl Connection {
    // ---- commands -------------------------------------------------------------------------------

    /// Client: opens a stream. Fields that do not repeat (`grpc-timeout`, `content-length`, …) are
    /// kept out of the peer's header table; secrets (`authorization`, `cookie`) are never indexed.
    ///
    /// # Errors
    /// [`SendError::StreamLimit`], [`SendError::GoingAway`], [`SendError::ConnectionClosed`],
    /// [`SendError::HeaderListTooLarge`], [`SendError::WrongState`] on a server.
    pub fn send_request(&mut self, headers: &Fields<'_>, end_stream: bool) -> Result<StreamId, SendError> {
        self.check_alive()?;
        if self.config.role == Role::Server {
            return Err(SendError::WrongState);
        }
        if self.drain != Drain::No || self.peer_goaway.is_some() || self.next_id > frame::STREAM_ID_MAX {
            return Err(SendError::GoingAway);
        }
        if self.streams.open() >= self.peer.max_streams as usize {
            return Err(SendError::StreamLimit);
        }
        self.check_list_size(headers)?;
        let id = self.next_id;
        self.next_id += 2;
        self.write_headers(id, headers, end_stream);
        let stream = self.streams.insert(
            id,
            SendWindow::new(self.peer.initial_window),
            ReceiveWindow::new(self.local_window),
        );
        if let Some(found) = self.streams.get_mut(stream) {
            found.headers_sent = true;
            found.local_ended = end_stream;
            found.head_request = headers.contains(&(b":method", b"HEAD"));
        }
        Ok(stream)
    }

    /// Server: sends the headers of a response (any number of 1xx first, then a final one).
    ///
    /// # Errors
    /// [`SendError::StreamClosed`], [`SendError::WrongState`] for second headers,
    /// [`SendError::HeaderListTooLarge`].
    pub fn send_headers(
        &mut self,
        stream: StreamId,
        headers: &Fields<'_>,
        end_stream: bool,
    ) -> Result<(), SendError> {
        self.check_alive()?;
        let found = self.sendable(stream)?;
        if found.headers_sent {
            return Err(SendError::WrongState);
        }
        self.check_list_size(headers)?;
        let interim = headers
            .first()
            .is_some_and(|(name, value)| *name == b":status" && value.first() == Some(&b'1'));
        if !interim && let Some(found) = self.streams.get_mut(stream) {
            found.headers_sent = true;
        }
        let end_stream = end_stream && !interim;
        self.write_headers(stream.id, headers, end_stream);
        if end_stream {
            self.end_local(stream);
        }
        Ok(())
    }

    /// Sends body bytes. They are copied; bytes beyond the windows are queued.
    ///
    /// # Errors
    /// [`SendError::StreamClosed`], [`SendError::QueueFull`], [`SendError::WrongState`] before
    /// headers.
    pub fn send_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) -> Result<(), SendError> {
        self.check_queue()?;
        let found = self.sendable(stream)?;
        if !found.headers_sent {
            return Err(SendError::WrongState);
        }
        let sent = match found.queue {
            Some(_) => 0,
            None => self.write_data(stream, data, end_stream),
        };
        let rest = &data[sent..];
        if !rest.is_empty() {
            self.streams.enqueue(stream, rest);
        }
        if end_stream {
            self.finish_data(stream, End::Data);
        }
        self.note_blocked(stream);
        Ok(())
    }

    /// Ends a stream with trailers, after its queued data.
    ///
    /// # Errors
    /// As for [`Connection::send_data`], but never [`SendError::QueueFull`].
    pub fn send_trailers(&mut self, stream: StreamId, trailers: &Fields<'_>) -> Result<(), SendError> {
        self.check_alive()?;
        let found = self.sendable(stream)?;
        if !found.headers_sent {
            return Err(SendError::WrongState);
        }
        if found.queue.is_some() {
            let mut list = HeaderList::new();
            for (name, value) in trailers {
                list.push(name, value);
            }
            self.finish_data(stream, End::Trailers(list));
        } else {
            self.write_headers(stream.id, trailers, true);
            self.end_local(stream);
        }
        Ok(())
    }

    // ---- checks ---------------------------------------------------------------------------------

    /// The stream, if we may still send on it.
    #[inline]
    pub(super) fn sendable(&self, stream: StreamId) -> Result<&Stream, SendError> {
        match self.streams.get(stream) {
            Some(found) if !found.local_ended => Ok(found),
            _ => Err(SendError::StreamClosed),
        }
    }

    #[inline]
    pub(super) fn check_queue(&self) -> Result<(), SendError> {
        self.check_alive()?;
        match self.streams.queued() < self.config.send_queue_max {
            true => Ok(()),
            false => Err(SendError::QueueFull),
        }
    }

    fn check_list_size(&self, headers: &Fields<'_>) -> Result<(), SendError> {
        if self.peer.max_header_list == u32::MAX {
            return Ok(());
        }
        let field_size = |(name, value): &(&[u8], &[u8])| name.len() + value.len() + ENTRY_OVERHEAD;
        match headers.iter().map(field_size).sum::<usize>() <= self.peer.max_header_list as usize {
            true => Ok(()),
            false => Err(SendError::HeaderListTooLarge),
        }
    }

    // ---- header blocks --------------------------------------------------------------------------

    /// Appends a whole header block.
    pub(super) fn write_headers(&mut self, id: u32, fields: &Fields<'_>, end_stream: bool) {
        let start = self.begin_headers(id, end_stream);
        for (name, value) in fields {
            debug_assert!(
                !name.iter().any(u8::is_ascii_uppercase),
                "names are in lower case"
            );
            let indexing = indexing(self.config.role, name);
            self.encoder.encode(&mut self.output, name, value, indexing);
        }
        self.finish_headers(start);
    }

    /// Appends the header of a HEADERS frame; [`Connection::finish_headers`] fills in its length.
    pub(super) fn begin_headers(&mut self, id: u32, end_stream: bool) -> usize {
        let start = self.output.len();
        let flags = flag::END_HEADERS | if end_stream { flag::END_STREAM } else { 0 };
        frame::write_header(&mut self.output, 0, kind::HEADERS, flags, id);
        start
    }

    pub(super) fn finish_headers(&mut self, start: usize) {
        let len = self.output.len() - start - HEADER_LEN;
        if len <= self.peer.max_frame {
            self.patch_len(start, len);
        } else {
            self.split_headers(start);
        }
    }

    /// Writes the length of the frame that begins at `start`.
    #[inline]
    pub(super) fn patch_len(&mut self, start: usize, len: usize) {
        let bytes = (len as u32).to_be_bytes();
        if let Some(place) = self.output.get_mut(start..start + 3) {
            place.copy_from_slice(&bytes[1..]);
        }
    }

    /// Splits a block above the peer's frame size into HEADERS and CONTINUATIONs (section 4.3).
    #[cold]
    fn split_headers(&mut self, start: usize) {
        let Some(header) = FrameHeader::parse(&self.output[start..]) else {
            return;
        };
        let block = self.output.split_off(start + HEADER_LEN);
        self.output.truncate(start);
        let mut chunks = block.chunks(self.peer.max_frame).peekable();
        let mut frame_kind = kind::HEADERS;
        let mut flags = header.flags & !flag::END_HEADERS;
        while let Some(chunk) = chunks.next() {
            if chunks.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            frame::write_header(&mut self.output, chunk.len(), frame_kind, flags, header.stream);
            self.output.extend_from_slice(chunk);
            frame_kind = kind::CONTINUATION;
            flags = 0;
        }
    }

    // ---- data -----------------------------------------------------------------------------------

    /// Writes DATA frames as far as the windows allow; END_STREAM on the last if all bytes were
    /// sent. Returns the bytes taken.
    fn write_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) -> usize {
        let mut sent = 0;
        loop {
            let rest = data.len() - sent;
            let count = rest.min(self.frame_room(stream));
            let last = count == rest;
            if count == 0 && !(last && end_stream) {
                return sent;
            }
            self.take_windows(stream, count);
            let flags = if last && end_stream { flag::END_STREAM } else { 0 };
            frame::write_header(&mut self.output, count, kind::DATA, flags, stream.id);
            self.output.extend_from_slice(&data[sent..sent + count]);
            sent += count;
            if last {
                return sent;
            }
        }
    }

    /// Largest size of a stream's next DATA frame.
    #[inline]
    fn frame_room(&self, stream: StreamId) -> usize {
        self.windows(stream).min(self.peer.max_frame)
    }

    /// Bytes that both windows allow.
    #[inline]
    pub(super) fn windows(&self, stream: StreamId) -> usize {
        let own = self
            .streams
            .get(stream)
            .map_or(0, |found| found.send_window.available());
        own.min(self.send_window.available())
    }

    #[inline]
    pub(super) fn take_windows(&mut self, stream: StreamId, count: usize) {
        self.send_window.consume(count);
        if let Some(found) = self.streams.get_mut(stream) {
            found.send_window.consume(count);
        }
        self.budgets.earn_data_sent(count);
    }

    /// Sets how a stream ends: after its queue, or now if nothing is queued (then the end itself is
    /// already written).
    #[inline]
    pub(super) fn finish_data(&mut self, stream: StreamId, end: End) {
        match self.streams.get_mut(stream) {
            Some(found) if found.queue.is_some() => {
                found.local_ended = true;
                self.streams.set_end(stream, end);
            }
            Some(_) => self.end_local(stream),
            None => {}
        }
    }

    /// Notes that our END_STREAM is in the output.
    #[inline]
    pub(super) fn end_local(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        found.local_ended = true;
        let remote_ended = found.remote_ended;
        if self.config.role == Role::Server {
            self.budgets.earn_reply();
        }
        if remote_ended {
            self.remove_stream(stream);
            self.closed.remember(stream.id, super::defence::Closed::Ended);
        } else if self.config.role == Role::Server {
            if self.unwanted.len() >= UNWANTED_NOTED {
                let streams = &self.streams;
                self.unwanted.retain(|noted| streams.get(*noted).is_some());
            }
            self.unwanted.push(stream);
        }
    }

    /// Asks clients to stop sending whose replies were complete before their requests (section
    /// 8.1). One or two seconds later: most have stopped by then, and some lose the reply when the
    /// reset arrives with it.
    pub(super) fn reset_unwanted(&mut self) {
        let due = std::mem::replace(&mut self.unwanted_due, std::mem::take(&mut self.unwanted));
        for stream in due {
            self.reset(stream, ErrorCode::NO_ERROR);
        }
    }

    // ---- what flow control held back ------------------------------------------------------------

    /// Notes that a stream waits, for which window, and whether its driver wants an event at the
    /// end of the wait.
    pub(super) fn note_blocked(&mut self, stream: StreamId) {
        let mark = self.config.stream_queue_mark;
        let connection_blocked = self.send_window.available() == 0;
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        let Some(queue) = &found.queue else {
            return;
        };
        if queue.len() >= mark {
            found.marked = true;
        }
        if connection_blocked && !found.in_ring {
            found.in_ring = true;
            self.ring.push_back(stream);
        }
    }

    /// Sends after the connection's window has grown: a frame for each waiting stream, in turn,
    /// until the window is used up.
    pub(super) fn flush_ring(&mut self) {
        while self.send_window.available() > 0 {
            let Some(stream) = self.ring.pop_front() else {
                return;
            };
            if let Some(found) = self.streams.get_mut(stream) {
                found.in_ring = false;
                self.flush_stream(stream, 1);
                self.requeue(stream);
            }
        }
    }

    /// Puts a stream back into the ring if it still waits for the connection's window.
    fn requeue(&mut self, stream: StreamId) {
        if let Some(found) = self.streams.get_mut(stream)
            && found.queue.is_some()
            && !found.in_ring
            && found.send_window.available() > 0
        {
            found.in_ring = true;
            self.ring.push_back(stream);
        }
    }

    /// Sends on all streams, since all windows may have grown.
    pub(super) fn flush_all(&mut self) {
        if self.streams.queued() == 0 {
            return;
        }
        for slot in 0..self.streams.slots() {
            if let Some(stream) = self.streams.handle_at(slot) {
                self.flush_stream(stream, usize::MAX);
            }
        }
    }

    /// Sends up to `frames` frames of a stream's queue, and the end of the stream when the queue is
    /// empty.
    pub(super) fn flush_stream(&mut self, stream: StreamId, frames: usize) {
        let Some(mut queue) = self.streams.take_queue(stream) else {
            return;
        };
        let mut frames_left = frames;
        while frames_left > 0 && queue.len() > 0 {
            let count = queue.len().min(self.frame_room(stream));
            if count == 0 {
                break;
            }
            let last = count == queue.len() && matches!(queue.end, End::Data);
            let flags = if last { flag::END_STREAM } else { 0 };
            self.take_windows(stream, count);
            frame::write_header(&mut self.output, count, kind::DATA, flags, stream.id);
            self.output.extend_from_slice(queue.front(count));
            queue.pop(count);
            self.streams.dequeued(count);
            frames_left -= 1;
        }
        self.note_drained(stream, &queue);
        if queue.len() > 0 {
            self.streams.put_queue(stream, queue);
            self.note_blocked(stream);
            return;
        }
        let end = std::mem::take(&mut queue.end);
        self.streams.recycle(queue);
        match end {
            End::Open => return,
            End::Data => {}
            End::GrpcOk => self.write_grpc_ok(stream.id),
            End::Trailers(list) => self.write_list(stream.id, &list),
        }
        self.end_local(stream);
    }

    /// Reports to the driver that there is room again.
    fn note_drained(&mut self, stream: StreamId, queue: &SendQueue) {
        let mark = self.config.stream_queue_mark;
        if let Some(found) = self.streams.get_mut(stream)
            && found.marked
            && queue.len() < mark.div_ceil(2)
        {
            found.marked = false;
            if !found.local_ended {
                self.notices.push_back(Notice::Writable { stream });
            }
        }
    }

    fn write_list(&mut self, id: u32, list: &HeaderList) {
        let start = self.begin_headers(id, true);
        for (name, value) in list {
            let indexing = indexing(self.config.role, name);
            self.encoder.encode(&mut self.output, name, value, indexing);
        }
        self.finish_headers(start);
    }
}

/// Most streams noted whose requests are no longer wanted; above it, those that have ended are
/// dropped first.
const UNWANTED_NOTED: usize = 4_096;

/// Whether a field should enter the peer's header table.
///
/// A server inserts little except its gRPC templates, so that these keep their index; a client
/// inserts all fields but those that differ from call to call.
fn indexing(role: Role, name: &[u8]) -> Indexing {
    match name {
        b"authorization" | b"cookie" | b"proxy-authorization" | b"set-cookie" => Indexing::Never,
        b":status" | b"content-length" | b"date" | b"etag" | b"last-modified" | b"location" | b"age" => {
            Indexing::Without
        }
        b"grpc-timeout" | b"grpc-message" | b"grpc-status" | b"grpc-status-details-bin" => Indexing::Without,
        b"traceparent" | b"tracestate" | b"grpc-trace-bin" | b"grpc-tags-bin" | b"x-request-id" => {
            Indexing::Without
        }
        b"content-type" | b"grpc-encoding" | b"grpc-accept-encoding" | b"server" => Indexing::Incremental,
        _ if role == Role::Client => Indexing::Incremental,
        _ => Indexing::Without,
    }
}
