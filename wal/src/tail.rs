//! The tail: strong records that are appended and not yet applied, by target, in order.
//!
//! Each target has its own queue and its own memory, so a slow target holds back neither the others' records nor
//! their memory. Only durable records are given out. Bounded by a quota of bytes per target, checked before the append.

use std::collections::{BTreeMap, VecDeque};

use crate::cursor::Checkpoint;
use crate::ids::{Lsn, TargetId};

/// What one target still has to apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unapplied {
    /// Records.
    pub records: usize,
    /// Bytes of payload.
    pub bytes: usize,
    /// The oldest of them.
    pub oldest: Option<Lsn>,
}

/// The queues of all targets of a lane. See the module.
#[derive(Debug, Default)]
pub struct Tail {
    targets: BTreeMap<TargetId, Queue>,
    checkpoint: Checkpoint,
    durable: Lsn,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<(Lsn, usize)>,
    bytes: usize,
    chunks: VecDeque<Chunk>,
    /// A chunk that was emptied, kept for the next one.
    spare: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Chunk {
    data: Vec<u8>,
    /// Bytes of it that were applied.
    read: usize,
}

/// Payloads of this many bytes share one allocation.
const CHUNK_BYTES: usize = 64 << 10;

impl Tail {
    /// An empty tail whose targets have got as far as `checkpoint` says.
    #[must_use]
    pub fn new(checkpoint: Checkpoint, durable: Lsn) -> Self {
        Self {
            targets: BTreeMap::new(),
            checkpoint,
            durable,
        }
    }

    /// Takes a strong record that was just appended. `lsn` is above all taken before; what the target's cursor already
    /// covers (in a replay) is left out.
    pub fn push(&mut self, lsn: Lsn, target: TargetId, payload: &[u8]) {
        if lsn <= self.checkpoint.cursor(target) {
            return;
        }
        let queue = self.targets.entry(target).or_default();
        assert!(
            queue.records.back().is_none_or(|(last, _)| *last < lsn),
            "records come in order"
        );
        queue.push(lsn, payload);
    }

    /// Takes note of the durable prefix: records up to `lsn` may be applied from now on.
    pub fn handle_durable(&mut self, lsn: Lsn) {
        self.durable = self.durable.max(lsn);
    }

    /// The next records for a target, in order, durable ones only: at most `records_max`, and at most `bytes_max` bytes
    /// of payload unless the first alone is longer.
    pub fn batch(
        &self,
        target: TargetId,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Iterator<Item = (Lsn, &[u8])> + '_ {
        let durable = self.durable;
        let mut bytes = 0;
        let records = self.targets.get(&target).into_iter().flat_map(Queue::iter);
        records.take(records_max).take_while(move |(lsn, payload)| {
            let first = bytes == 0;
            bytes += payload.len().max(1);
            *lsn <= durable && (first || bytes <= bytes_max)
        })
    }

    /// Takes note that a target made everything up to `lsn` durable on its side.
    ///
    /// # Panics
    /// When `lsn` is not durable here: such records are never given out.
    pub fn handle_applied(&mut self, target: TargetId, lsn: Lsn) {
        assert!(lsn <= self.durable, "applied is never above durable");
        self.checkpoint.advance(target, lsn);
        if let Some(queue) = self.targets.get_mut(&target) {
            queue.drop_until(lsn);
        }
    }

    /// Takes the cursors of a checkpoint record met in a replay.
    pub fn handle_checkpoint(&mut self, checkpoint: &Checkpoint) {
        for (target, lsn) in checkpoint.iter() {
            self.checkpoint.advance(target, lsn);
            if let Some(queue) = self.targets.get_mut(&target) {
                queue.drop_until(lsn);
            }
        }
    }

    /// Drops a target that is gone for good, with what it had not applied.
    pub fn forget(&mut self, target: TargetId) {
        self.targets.remove(&target);
        self.checkpoint.forget(target);
    }

    /// What a target still has to apply.
    #[must_use]
    pub fn unapplied(&self, target: TargetId) -> Unapplied {
        self.targets
            .get(&target)
            .map_or_else(Unapplied::default, |queue| Unapplied {
                records: queue.records.len(),
                bytes: queue.bytes,
                oldest: queue.records.front().map(|(lsn, _)| *lsn),
            })
    }

    /// The targets that have something to apply, ascending.
    pub fn waiting(&self) -> impl Iterator<Item = TargetId> + '_ {
        let waits = |queue: &Queue| queue.records.front().is_some_and(|(lsn, _)| *lsn <= self.durable);
        self.targets
            .iter()
            .filter(move |(_, queue)| waits(queue))
            .map(|(target, _)| *target)
    }

    /// Every record up to this one is durable and, where it has to be, applied.
    #[must_use]
    pub fn floor(&self) -> Lsn {
        let oldest = self
            .targets
            .values()
            .filter_map(|queue| queue.records.front())
            .map(|(lsn, _)| *lsn)
            .min();
        oldest.map_or(self.durable, |oldest| oldest.previous().min(self.durable))
    }

    /// The cursors as they are now.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl Queue {
    fn push(&mut self, lsn: Lsn, payload: &[u8]) {
        let fits = |chunk: &Chunk| chunk.data.capacity() - chunk.data.len() >= payload.len();
        if !self.chunks.back().is_some_and(fits) {
            let spare = self.spare.take_if(|spare| spare.capacity() >= payload.len());
            let data = spare.unwrap_or_else(|| Vec::with_capacity(payload.len().max(CHUNK_BYTES)));
            self.chunks.push_back(Chunk { data, read: 0 });
        }
        let chunk = self
            .chunks
            .back_mut()
            .expect("a chunk was added if there was none");
        chunk.data.extend_from_slice(payload);
        self.records.push_back((lsn, payload.len()));
        self.bytes += payload.len();
    }

    fn iter(&self) -> impl Iterator<Item = (Lsn, &[u8])> + '_ {
        let mut chunks = self.chunks.iter();
        let mut rest: &[u8] = chunks.next().map_or(&[], |chunk| &chunk.data[chunk.read..]);
        self.records.iter().map(move |(lsn, length)| {
            // A payload never spans chunks: when the rest is too short, its chunk is used up.
            while rest.len() < *length {
                rest = chunks.next().map_or(&[], |chunk| &chunk.data[chunk.read..]);
            }
            let (payload, after) = rest.split_at(*length);
            rest = after;
            (*lsn, payload)
        })
    }

    fn drop_until(&mut self, lsn: Lsn) {
        while let Some((_, length)) = self.records.front().copied().filter(|(at, _)| *at <= lsn) {
            self.records.pop_front();
            self.bytes -= length;
            while let Some(chunk) = self.chunks.front_mut() {
                if chunk.data.len() - chunk.read >= length {
                    chunk.read += length;
                    break;
                }
                self.drop_front_chunk();
            }
        }
        if self.records.is_empty() {
            while !self.chunks.is_empty() {
                self.drop_front_chunk();
            }
        }
    }

    fn drop_front_chunk(&mut self) {
        if let Some(mut chunk) = self.chunks.pop_front() {
            chunk.data.clear();
            if chunk.data.capacity() == CHUNK_BYTES {
                self.spare = Some(chunk.data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TargetId = TargetId(1);
    const TWO: TargetId = TargetId(2);

    fn tail(records: &[(u64, TargetId, &[u8])]) -> Tail {
        let mut tail = Tail::default();
        for (lsn, target, payload) in records {
            tail.push(Lsn(*lsn), *target, payload);
        }
        tail
    }

    fn lsns(tail: &Tail, target: TargetId) -> Vec<u64> {
        tail.batch(target, usize::MAX, usize::MAX)
            .map(|(lsn, _)| lsn.0)
            .collect()
    }

    #[test]
    fn only_durable_records_are_given_out() {
        let mut tail = tail(&[(1, ONE, b"a"), (2, TWO, b"b"), (3, ONE, b"c")]);
        assert_eq!(lsns(&tail, ONE), []);
        assert_eq!(tail.waiting().count(), 0);
        tail.handle_durable(Lsn(2));
        assert_eq!(lsns(&tail, ONE), [1]);
        assert_eq!(lsns(&tail, TWO), [2]);
        assert_eq!(tail.waiting().collect::<Vec<_>>(), [ONE, TWO]);
    }

    #[test]
    fn a_slow_target_holds_the_floor_but_not_the_other_targets() {
        let mut tail = tail(&[(1, ONE, b"a"), (2, TWO, b"b"), (3, TWO, b"c")]);
        tail.handle_durable(Lsn(3));
        tail.handle_applied(TWO, Lsn(3));
        assert_eq!(tail.unapplied(TWO), Unapplied::default());
        assert_eq!(tail.floor(), Lsn(0));
        tail.handle_applied(ONE, Lsn(1));
        assert_eq!(tail.floor(), Lsn(3));
        assert_eq!(tail.checkpoint().cursor(TWO), Lsn(3));
    }

    #[test]
    fn batches_keep_to_their_limits_but_never_starve() {
        let mut tail = tail(&[(1, ONE, &[1; 100]), (2, ONE, &[2; 10]), (3, ONE, &[3; 10])]);
        tail.handle_durable(Lsn(3));
        let batch = |records, bytes| {
            tail.batch(ONE, records, bytes)
                .map(|(lsn, _)| lsn.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(batch(2, 1000), [1, 2]);
        assert_eq!(batch(9, 50), [1], "a record longer than the limit goes alone");
        assert_eq!(batch(9, 110), [1, 2]);
    }

    #[test]
    fn payloads_survive_chunk_boundaries_and_partial_application() {
        let mut tail = Tail::default();
        let payload = |lsn: u64| vec![lsn as u8; (lsn as usize * 7919) % (CHUNK_BYTES + 5000)];
        let (mut applied, mut state) = (0, 12345_u64);
        for lsn in 1..=400 {
            tail.push(Lsn(lsn), ONE, &payload(lsn));
            tail.handle_durable(Lsn(lsn));
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if state >> 62 == 0 {
                applied = applied.max(lsn - (state >> 33) % 9 % lsn);
                tail.handle_applied(ONE, Lsn(applied));
            }
            let found: Vec<_> = tail.batch(ONE, 50, usize::MAX).collect();
            for (position, (found_lsn, bytes)) in found.iter().enumerate() {
                assert_eq!(found_lsn.0, applied + 1 + position as u64);
                assert_eq!(*bytes, payload(found_lsn.0));
            }
            assert_eq!(tail.unapplied(ONE).records as u64, lsn - applied);
        }
        tail.handle_applied(ONE, Lsn(400));
        assert_eq!(tail.unapplied(ONE), Unapplied::default());
    }

    #[test]
    fn a_replay_leaves_out_what_a_checkpoint_covers() {
        let mut tail = tail(&[(1, ONE, b"a"), (2, TWO, b"b"), (3, ONE, b"c")]);
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(ONE, Lsn(1));
        tail.handle_checkpoint(&checkpoint);
        tail.handle_durable(Lsn(3));
        assert_eq!(lsns(&tail, ONE), [3]);
        assert_eq!(lsns(&tail, TWO), [2]);
    }
}
