//! The streams of a connection: a slab of small records and an index from wire ids to slots.
//!
//! Promises: slots, queues and the index are reused, so a connection in steady state allocates
//! nothing; memory grows with the largest number of streams that were open at once. The index is
//! open-addressed by `id / 2`, which for the consecutive ids that all known peers use is a perfect
//! hash; ids chosen to collide cost at most one probe for each open stream. Leaves the rules of the
//! protocol to the connection.

use super::event::StreamId;
use super::flow::{ReceiveWindow, SendWindow};
use super::hpack::HeaderList;

/// One open stream. Removed when both sides have ended or it was reset.
#[derive(Debug)]
pub(crate) struct Stream {
    /// 0 marks a free slot.
    pub(crate) id: u32,
    pub(crate) send_window: SendWindow,
    pub(crate) receive_window: ReceiveWindow,
    /// Bytes delivered and not released by the driver (automatic release off).
    pub(crate) held: u32,
    /// Body bytes still missing from `content-length`; negative if there was none.
    pub(crate) content_left: i64,
    pub(crate) queue: Option<Box<SendQueue>>,
    /// The peer has sent END_STREAM.
    pub(crate) remote_ended: bool,
    /// The driver has ended our side; END_STREAM may still be queued.
    pub(crate) local_ended: bool,
    /// Final response headers (server) or the request (client) were sent.
    pub(crate) headers_sent: bool,
    /// Client: the final response headers have arrived; any further ones are trailers.
    pub(crate) headers_received: bool,
    /// Client: the request was HEAD, so `content-length` promises nothing.
    pub(crate) head_request: bool,
    /// The receive window re-opens by itself.
    pub(crate) auto_release: bool,
    /// The queue has reached the mark: its drain is to be reported.
    pub(crate) marked: bool,
    /// In the ring of streams that wait for the connection's window.
    pub(crate) in_ring: bool,
}

/// Bytes of one stream that flow control holds back, and the end that follows them.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    data: Vec<u8>,
    head: usize,
    pub(crate) end: End,
}

/// The end of a stream, after its queued data.
#[derive(Debug, Default)]
pub(crate) enum End {
    /// Nothing yet.
    #[default]
    Open,
    /// END_STREAM on the last DATA frame.
    Data,
    /// `grpc-status: 0`, from the template.
    GrpcOk,
    /// These trailers. They are encoded when they are sent, since header blocks change the peer's
    /// table in the order of sending.
    Trailers(HeaderList),
}

impl SendQueue {
    pub(crate) fn push(&mut self, data: &[u8]) {
        // Bytes already sent are reclaimed before the buffer grows: it stays as large as its
        // contents.
        if self.head > 0 && self.data.len() + data.len() > self.data.capacity() {
            self.data.drain(..self.head);
            self.head = 0;
        }
        self.data.extend_from_slice(data);
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.head
    }

    /// The first `count` bytes, which must be there.
    pub(crate) fn front(&self, count: usize) -> &[u8] {
        &self.data[self.head..self.head + count]
    }

    pub(crate) fn pop(&mut self, count: usize) {
        self.head += count;
        if self.head == self.data.len() {
            self.data.clear();
            self.head = 0;
        }
    }

    fn reset(&mut self) {
        self.data.clear();
        self.data.shrink_to(POOLED_CAPACITY_MAX);
        self.head = 0;
        self.end = End::Open;
    }
}

/// Most queues kept for later streams; the next line bounds the memory of each, in bytes.
const POOLED_QUEUES_MAX: usize = 16;
const POOLED_CAPACITY_MAX: usize = 64 << 10;

/// All open streams of a connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    /// (id, slot); id 0 is empty. Length is 0 or a power of two above twice the number of open
    /// streams.
    index: Vec<(u32, u32)>,
    open: usize,
    /// Queued bytes of all streams together.
    queued: usize,
    /// Boxed, as in the stream: a queue moves between the two without a new allocation.
    #[allow(clippy::vec_box)]
    pool: Vec<Box<SendQueue>>,
}

impl Streams {
    #[inline]
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// The handle of an open stream by its wire id.
    #[inline]
    pub(crate) fn find(&self, id: u32) -> Option<StreamId> {
        let mask = self.index.len().wrapping_sub(1);
        let mut at = (id >> 1) as usize;
        loop {
            // An empty index has mask usize::MAX, and no entry there.
            let &(found, slot) = self.index.get(at & mask)?;
            if found == id && id != 0 {
                return Some(StreamId { id, slot });
            }
            if found == 0 {
                return None;
            }
            at = (at & mask) + 1;
        }
    }

    /// The stream of a handle, if it is still open.
    #[inline]
    pub(crate) fn get(&self, stream: StreamId) -> Option<&Stream> {
        self.slots
            .get(stream.slot as usize)
            .filter(|found| found.id == stream.id)
    }

    /// The stream of a handle, if it is still open.
    #[inline]
    pub(crate) fn get_mut(&mut self, stream: StreamId) -> Option<&mut Stream> {
        self.slots
            .get_mut(stream.slot as usize)
            .filter(|found| found.id == stream.id)
    }

    /// Adds a stream with an id that is not open.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        id: u32,
        send_window: SendWindow,
        receive_window: ReceiveWindow,
    ) -> StreamId {
        debug_assert!(id != 0 && self.find(id).is_none());
        let stream = Stream {
            id,
            send_window,
            receive_window,
            held: 0,
            content_left: -1,
            queue: None,
            remote_ended: false,
            local_ended: false,
            headers_sent: false,
            headers_received: false,
            head_request: false,
            auto_release: true,
            marked: false,
            in_ring: false,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                (self.slots.len() - 1) as u32
            }
        };
        self.open += 1;
        if self.open * 2 > self.index.len() {
            self.grow_index();
        }
        Self::index_insert(&mut self.index, id, slot);
        StreamId { id, slot }
    }

    /// Removes an open stream with its queue. Returns the number of delivered bytes that its driver
    /// had not released.
    pub(crate) fn remove(&mut self, stream: StreamId) -> u32 {
        let Some(found) = self.get_mut(stream) else {
            return 0;
        };
        found.id = 0;
        let held = found.held;
        if let Some(queue) = found.queue.take() {
            self.queued -= queue.len();
            self.recycle(queue);
        }
        self.free.push(stream.slot);
        self.open -= 1;
        self.index_remove(stream.id);
        held
    }

    /// Queues data of an open stream.
    pub(crate) fn enqueue(&mut self, stream: StreamId, data: &[u8]) {
        let mut queue = self.queue_of(stream);
        queue.push(data);
        self.queued += data.len();
        self.put_queue(stream, queue);
    }

    /// Sets how an open stream ends after its queue.
    pub(crate) fn set_end(&mut self, stream: StreamId, end: End) {
        let mut queue = self.queue_of(stream);
        queue.end = end;
        self.put_queue(stream, queue);
    }

    /// Takes the queue out of a stream, so that it can be sent from while the rest of the
    /// connection is in use. Return it by [`Streams::put_queue`] or [`Streams::recycle`]; keep
    /// `queued` right by [`Streams::dequeued`].
    pub(crate) fn take_queue(&mut self, stream: StreamId) -> Option<Box<SendQueue>> {
        self.get_mut(stream)?.queue.take()
    }

    pub(crate) fn put_queue(&mut self, stream: StreamId, queue: Box<SendQueue>) {
        if let Some(found) = self.get_mut(stream) {
            found.queue = Some(queue);
        }
    }

    pub(crate) fn recycle(&mut self, mut queue: Box<SendQueue>) {
        if self.pool.len() < POOLED_QUEUES_MAX {
            queue.reset();
            self.pool.push(queue);
        }
    }

    pub(crate) fn dequeued(&mut self, count: usize) {
        self.queued -= count;
    }

    /// All open streams, to adjust their windows.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().filter(|stream| stream.id != 0)
    }

    /// The handles of all open streams, by slot: for walks during which streams may be removed.
    pub(crate) fn handle_at(&self, slot: usize) -> Option<StreamId> {
        let id = self.slots.get(slot)?.id;
        (id != 0).then_some(StreamId {
            id,
            slot: slot as u32,
        })
    }

    /// Number of slots, open or free.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    fn queue_of(&mut self, stream: StreamId) -> Box<SendQueue> {
        self.take_queue(stream)
            .or_else(|| self.pool.pop())
            .unwrap_or_default()
    }

    #[cold]
    fn grow_index(&mut self) {
        let mut index = vec![(0, 0); (self.index.len() * 2).max(16)];
        for &(id, slot) in self.index.iter().filter(|(id, _)| *id != 0) {
            Self::index_insert(&mut index, id, slot);
        }
        self.index = index;
    }

    #[inline]
    fn index_insert(index: &mut [(u32, u32)], id: u32, slot: u32) {
        let mask = index.len() - 1;
        let mut at = (id >> 1) as usize & mask;
        while index[at].0 != 0 {
            at = (at + 1) & mask;
        }
        index[at] = (id, slot);
    }

    /// Removes an id and closes the gap, so that no probe ends too early and no tombstones gather.
    #[inline]
    fn index_remove(&mut self, id: u32) {
        let mask = self.index.len() - 1;
        let mut gap = (id >> 1) as usize & mask;
        while self.index[gap].0 != id {
            if self.index[gap].0 == 0 {
                debug_assert!(false, "an open stream is in the index");
                return;
            }
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let (other, slot) = self.index[at];
            if other == 0 {
                break;
            }
            // The entry may move into the gap if its home lies at or before the gap, in the order
            // of probing.
            let home = (other >> 1) as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.index[gap] = (other, slot);
                gap = at;
            }
        }
        self.index[gap] = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn insert(streams: &mut Streams, id: u32) -> StreamId {
        streams.insert(id, SendWindow::new(10), ReceiveWindow::new(10))
    }

    #[test]
    fn the_index_agrees_with_a_map() {
        // Seeded walk: ids grow by random odd strides (so that they collide), and streams close in
        // random order.
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let (mut streams, mut model) = (Streams::default(), BTreeMap::new());
        let (mut id, mut seen) = (1_u32, Vec::new());
        for _ in 0..20_000 {
            if model.len() < 200 && next() % 2 == 0 {
                id += 2 * (1 + (next() % 64) as u32 * (next() % 2) as u32);
                model.insert(id, insert(&mut streams, id));
                seen.push(id);
            } else if let Some(&victim) = model.keys().nth((next() % 200) as usize) {
                let handle = model.remove(&victim).expect("it was just found");
                assert_eq!(streams.find(victim), Some(handle));
                streams.remove(handle);
                assert!(streams.get(handle).is_none());
            }
            let probe = seen.get((next() % 256) as usize).copied().unwrap_or(7);
            assert_eq!(streams.find(probe), model.get(&probe).copied());
            assert_eq!(streams.open(), model.len());
        }
        assert!(streams.slots() <= 200, "slots are used again");
    }

    #[test]
    fn a_stale_handle_finds_nothing() {
        let mut streams = Streams::default();
        let first = insert(&mut streams, 1);
        streams.remove(first);
        let second = insert(&mut streams, 3);
        assert_eq!(first.slot(), second.slot());
        assert!(streams.get(first).is_none());
        assert_eq!(streams.remove(first), 0);
        assert_eq!(streams.open(), 1);
        assert_eq!(streams.find(0), None);
    }

    #[test]
    fn a_queue_reclaims_what_was_sent() {
        let mut queue = SendQueue::default();
        queue.push(&[1; 1_000]);
        queue.pop(900);
        let capacity = queue.data.capacity();
        queue.push(&[2; 500]);
        assert_eq!(queue.len(), 600);
        assert_eq!(queue.data.capacity(), capacity);
        assert_eq!(queue.front(101)[100], 2);
    }
}
