//! The tail: what is appended and not yet safe in its store, by target, in order.
//!
//! Each record of a target passes two levels, always as a prefix of the target's records:
//!
//! ```text
//!  appended ──► durable here ──► applied: the store has it  ──► synced: the store would have it after a power cut
//!                 given out       its payload is dropped         the cursor moves, its segment may be recycled
//! ```
//!
//! A *strong* record is durable here before its store gets it. An *eventual* one is in its store
//! before it is appended, so it begins as applied. Each target has its own queue, so a slow target
//! holds back neither the others' records nor their memory. The tail itself sets no limit: whoever
//! appends checks [`Unapplied::bytes`] against its quota first.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use crate::cursor::Checkpoint;
use crate::ids::{Lsn, TargetId};

/// The bytes of a record that its store does not have yet. Clones share them: whoever made the
/// bytes hands them over, and they are copied into the group's buffer only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload(Arc<Vec<u8>>);

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::from(bytes.to_vec())
    }
}

/// Amount that one target still has to apply.
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
    /// Of every target that has a record or a cursor.
    targets: BTreeMap<TargetId, Queue>,
    checkpoint: Checkpoint,
    durable: Lsn,
}

#[derive(Debug, Default)]
struct Queue {
    /// Records that the store does not have yet.
    records: VecDeque<(Lsn, Payload)>,
    /// Bytes of their payloads.
    bytes: usize,
    /// The store has every record up to this one.
    applied: Lsn,
    /// The newest record that the store has; above `applied` when an eventual record overtook a
    /// strong one.
    newest: Lsn,
    /// No applied record before this one is unsynced; "none" when all applied ones are synced. May
    /// be too low.
    unsynced_from: Option<Lsn>,
}

impl Tail {
    /// An empty tail whose targets have got as far as `checkpoint` says.
    #[must_use]
    pub fn new(checkpoint: Checkpoint, durable: Lsn) -> Self {
        Self {
            targets: checkpoint
                .iter()
                .map(|(target, _)| (target, Queue::default()))
                .collect(),
            checkpoint,
            durable,
        }
    }

    /// Takes a record that its store does not have. `lsn` is above all taken before for this
    /// target; what the target's cursor already covers (in a replay) is left out.
    ///
    /// # Panics
    /// When records of a target come out of order.
    pub fn push(&mut self, lsn: Lsn, target: TargetId, payload: Payload) {
        if lsn <= self.checkpoint.cursor(target) {
            return;
        }
        let queue = self.targets.entry(target).or_default();
        assert!(queue.last() < lsn, "records come in order");
        queue.bytes += payload.len();
        queue.records.push_back((lsn, payload));
    }

    /// Takes note of a record that its store has already, perhaps not durably: an eventual one. It
    /// is never given out, and it holds the cursor and the floor until the store has synced it.
    ///
    /// # Panics
    /// When records of a target come out of order.
    pub fn push_applied(&mut self, lsn: Lsn, target: TargetId) {
        let queue = self.targets.entry(target).or_default();
        assert!(queue.last() < lsn, "records come in order");
        queue.newest = lsn;
        queue.unsynced_from.get_or_insert(lsn);
        if queue.records.is_empty() {
            queue.applied = lsn;
        }
    }

    /// Takes note of the durable prefix: records up to `lsn` may be applied from now on.
    pub fn handle_durable(&mut self, lsn: Lsn) {
        self.durable = self.durable.max(lsn);
    }

    /// The next records for a target, in order, durable ones only: at most `records_max`, and at
    /// most `bytes_max` bytes of payload unless the first alone is longer.
    pub fn batch(
        &self,
        target: TargetId,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Iterator<Item = (Lsn, &Payload)> + '_ {
        let durable = self.durable;
        let mut bytes = 0;
        let records = self
            .targets
            .get(&target)
            .into_iter()
            .flat_map(|queue| &queue.records);
        let records = records.map(|(lsn, payload)| (*lsn, payload));
        records.take(records_max).take_while(move |(lsn, payload)| {
            let first = bytes == 0;
            bytes += payload.len().max(1);
            *lsn <= durable && (first || bytes <= bytes_max)
        })
    }

    /// The payload of a record that the store does not have yet, durable or not.
    #[must_use]
    pub fn get(&self, target: TargetId, lsn: Lsn) -> Option<&Payload> {
        let records = &self.targets.get(&target)?.records;
        let position = records.binary_search_by_key(&lsn, |(at, _)| *at).ok()?;
        records.get(position).map(|(_, payload)| payload)
    }

    /// Takes note that a store has every record of the target up to `lsn`, visible to its readers
    /// but perhaps not durably. Their payloads are dropped; the cursor stays.
    ///
    /// # Panics
    /// When this includes a record that is not durable here and was not pushed as applied: such are
    /// never given out.
    pub fn handle_applied(&mut self, target: TargetId, lsn: Lsn) {
        let durable = self.durable;
        let queue = self.targets.get_mut(&target);
        let newest = queue.as_ref().map_or(Lsn::NONE, |queue| queue.newest);
        assert!(lsn <= durable.max(newest), "applied is never above durable");
        if let Some(queue) = queue {
            queue.apply_until(lsn, durable);
        }
    }

    /// Takes note that a store has every record of the target up to `lsn` *durably*: the cursor
    /// moves. Implies [`Tail::handle_applied`].
    ///
    /// # Panics
    /// As [`Tail::handle_applied`].
    pub fn handle_synced(&mut self, target: TargetId, lsn: Lsn) {
        self.handle_applied(target, lsn);
        self.checkpoint.advance(target, lsn);
        self.targets.entry(target).or_default().sync_until(lsn);
    }

    /// Takes the cursors of a checkpoint record met in a replay.
    pub fn handle_checkpoint(&mut self, checkpoint: &Checkpoint) {
        for (target, lsn) in checkpoint.iter() {
            self.checkpoint.advance(target, lsn);
            let queue = self.targets.entry(target).or_default();
            queue.apply_until(lsn, Lsn(u64::MAX));
            queue.sync_until(lsn);
        }
    }

    /// Drops a target that is gone for good, with what it had not applied. Its records may still
    /// lie in the log: a replay that meets them brings the target back, to be dropped again.
    pub fn forget(&mut self, target: TargetId) {
        self.targets.remove(&target);
        self.checkpoint.forget(target);
    }

    /// Amount that a target still has to apply.
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

    /// Amount that all targets together still have to apply. Looks at every target.
    #[must_use]
    pub fn unapplied_in_all(&self) -> Unapplied {
        let mut sum = Unapplied::default();
        for queue in self.targets.values() {
            sum.records += queue.records.len();
            sum.bytes += queue.bytes;
            let oldest = queue.records.front().map(|(lsn, _)| *lsn);
            sum.oldest = sum.oldest.into_iter().chain(oldest).min();
        }
        sum
    }

    /// The targets that have something to apply, ascending.
    pub fn waiting(&self) -> impl Iterator<Item = TargetId> + '_ {
        let waits = |queue: &Queue| queue.records.front().is_some_and(|(lsn, _)| *lsn <= self.durable);
        self.targets
            .iter()
            .filter(move |(_, queue)| waits(queue))
            .map(|(target, _)| *target)
    }

    /// The store of `target` has every record up to this one; at least the cursor.
    #[must_use]
    pub fn applied(&self, target: TargetId) -> Lsn {
        let applied = self.targets.get(&target).map_or(Lsn::NONE, |queue| queue.applied);
        applied.max(self.checkpoint.cursor(target))
    }

    /// The targets that have applied records which they have not synced, ascending, each with the
    /// LSN to give to [`Tail::handle_synced`] once a sync that begins now has succeeded.
    pub fn unsynced(&self) -> impl Iterator<Item = (TargetId, Lsn)> + '_ {
        self.targets.iter().filter_map(|(target, queue)| {
            let due = queue.unsynced_from.is_some() && queue.applied > self.checkpoint.cursor(*target);
            due.then_some((*target, queue.applied))
        })
    }

    /// Every record up to this one is durable, and durable in its store too. May be lower than it
    /// could be, never higher.
    #[must_use]
    pub fn floor(&self) -> Lsn {
        let oldest = self.targets.values().filter_map(Queue::first_unsynced).min();
        oldest.map_or(self.durable, |oldest| oldest.previous().min(self.durable))
    }

    /// The target that holds the floor: it has the oldest record that its store would not have
    /// after a power cut.
    #[must_use]
    pub fn holder(&self) -> Option<TargetId> {
        let oldest = |(target, queue): (&TargetId, &Queue)| queue.first_unsynced().map(|lsn| (lsn, *target));
        let (_, target) = self.targets.iter().filter_map(oldest).min()?;
        Some(target)
    }

    /// How long a checkpoint can become when every target that is known has a cursor.
    #[must_use]
    pub fn checkpoint_bytes_max(&self) -> usize {
        Checkpoint::encoded_bytes(self.targets.len())
    }

    /// The same when this target gets a record.
    #[must_use]
    pub fn checkpoint_bytes_max_with(&self, target: TargetId) -> usize {
        let new = !self.targets.contains_key(&target);
        Checkpoint::encoded_bytes(self.targets.len() + usize::from(new))
    }

    /// The cursors as they are now.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl Queue {
    /// The newest record pushed, of either kind.
    fn last(&self) -> Lsn {
        let waiting = self.records.back().map_or(Lsn::NONE, |(lsn, _)| *lsn);
        waiting.max(self.newest)
    }

    fn apply_until(&mut self, lsn: Lsn, durable: Lsn) {
        while let Some((at, payload)) = self.records.front().filter(|(at, _)| *at <= lsn) {
            let at = *at;
            assert!(at <= durable, "applied is never above durable");
            self.bytes -= payload.len();
            self.newest = self.newest.max(at);
            self.unsynced_from = Some(self.unsynced_from.map_or(at, |from| from.min(at)));
            self.records.pop_front();
        }
        self.applied = self.applied.max(lsn);
        if self.records.front().is_none_or(|(first, _)| *first > self.newest) {
            // Nothing is missing any more below the record that had overtaken others.
            self.applied = self.applied.max(self.newest);
        }
    }

    fn sync_until(&mut self, lsn: Lsn) {
        // Which record follows `lsn` is not kept: the number after it is low enough.
        self.unsynced_from = match self.unsynced_from {
            Some(from) if self.newest > lsn => Some(from.max(lsn.next())),
            _ => None,
        };
    }

    fn first_unsynced(&self) -> Option<Lsn> {
        let waiting = self.records.front().map(|(lsn, _)| *lsn);
        self.unsynced_from.into_iter().chain(waiting).min()
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
            tail.push(Lsn(*lsn), *target, Payload::from(*payload));
        }
        tail
    }

    fn lsns(tail: &Tail, target: TargetId) -> Vec<u64> {
        tail.batch(target, usize::MAX, usize::MAX)
            .map(|(lsn, _)| lsn.0)
            .collect()
    }

    fn unsynced(tail: &Tail) -> Vec<(u32, u64)> {
        tail.unsynced().map(|(target, lsn)| (target.0, lsn.0)).collect()
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
        tail.handle_synced(TWO, Lsn(3));
        assert_eq!(tail.unapplied(TWO), Unapplied::default());
        assert_eq!((tail.floor(), tail.holder()), (Lsn(0), Some(ONE)));
        tail.handle_synced(ONE, Lsn(1));
        assert_eq!((tail.floor(), tail.holder()), (Lsn(3), None));
        assert_eq!(tail.checkpoint().cursor(TWO), Lsn(3));
    }

    #[test]
    fn what_is_applied_and_not_synced_frees_memory_but_moves_no_cursor() {
        let mut tail = tail(&[(1, ONE, b"aa"), (2, ONE, b"b"), (4, ONE, b"c")]);
        tail.handle_durable(Lsn(4));
        tail.handle_applied(ONE, Lsn(2));
        assert_eq!(
            tail.unapplied(ONE),
            Unapplied {
                records: 1,
                bytes: 1,
                oldest: Some(Lsn(4))
            }
        );
        assert_eq!(tail.checkpoint().cursor(ONE), Lsn::NONE);
        assert_eq!((tail.applied(ONE), tail.floor()), (Lsn(2), Lsn(0)));
        assert_eq!(unsynced(&tail), [(1, 2)]);
        tail.handle_applied(ONE, Lsn(4));
        tail.handle_synced(ONE, Lsn(2));
        assert_eq!(tail.checkpoint().cursor(ONE), Lsn(2));
        assert_eq!(tail.floor(), Lsn(2));
        assert_eq!(unsynced(&tail), [(1, 4)]);
        tail.handle_synced(ONE, Lsn(4));
        assert_eq!(tail.floor(), Lsn(4));
        assert_eq!(unsynced(&tail), []);
    }

    #[test]
    fn an_eventual_record_holds_the_floor_until_it_is_synced_and_durable() {
        let mut tail = tail(&[(1, ONE, b"a")]);
        tail.push_applied(Lsn(2), TWO);
        tail.push_applied(Lsn(3), TWO);
        assert_eq!(lsns(&tail, TWO), []);
        assert_eq!(unsynced(&tail), [(2, 3)]);
        // Its store is ahead of the log: allowed for a record that began as applied.
        tail.handle_synced(TWO, Lsn(3));
        assert_eq!((unsynced(&tail), tail.floor()), (vec![], Lsn(0)));
        tail.handle_durable(Lsn(3));
        assert_eq!(tail.floor(), Lsn(0), "the strong record is not applied");
        tail.handle_synced(ONE, Lsn(1));
        assert_eq!(tail.floor(), Lsn(3));
    }

    #[test]
    fn an_eventual_record_that_overtook_a_strong_one_counts_once_that_is_applied() {
        let mut tail = tail(&[(1, ONE, b"a"), (2, ONE, b"b")]);
        tail.push_applied(Lsn(3), ONE);
        tail.handle_durable(Lsn(3));
        assert_eq!((tail.applied(ONE), unsynced(&tail)), (Lsn::NONE, vec![]));
        tail.handle_applied(ONE, Lsn(1));
        assert_eq!((tail.applied(ONE), unsynced(&tail)), (Lsn(1), vec![(1, 1)]));
        tail.handle_synced(ONE, Lsn(1));
        assert_eq!(tail.floor(), Lsn(1));
        tail.handle_applied(ONE, Lsn(2));
        assert_eq!((tail.applied(ONE), unsynced(&tail)), (Lsn(3), vec![(1, 3)]));
        assert_eq!(tail.floor(), Lsn(1));
        tail.handle_synced(ONE, Lsn(3));
        assert_eq!(tail.floor(), Lsn(3));
    }

    #[test]
    #[should_panic(expected = "applied is never above durable")]
    fn a_strong_record_that_is_not_durable_is_never_applied() {
        let mut tail = tail(&[(1, ONE, b"a"), (2, ONE, b"b")]);
        tail.push_applied(Lsn(3), ONE);
        tail.handle_durable(Lsn(1));
        tail.handle_applied(ONE, Lsn(2));
    }

    #[test]
    fn a_payload_is_found_by_its_number_until_the_store_has_it() {
        let mut tail = tail(&[(1, ONE, b"a"), (4, ONE, b"b"), (9, ONE, b"c")]);
        assert_eq!(tail.get(ONE, Lsn(4)).map(|payload| &payload[..]), Some(&b"b"[..]));
        assert_eq!(tail.get(ONE, Lsn(5)), None);
        assert_eq!(tail.get(TWO, Lsn(4)), None);
        tail.handle_durable(Lsn(4));
        tail.handle_applied(ONE, Lsn(4));
        assert_eq!(tail.get(ONE, Lsn(4)), None);
        assert!(tail.get(ONE, Lsn(9)).is_some());
    }

    #[test]
    fn a_target_that_is_gone_holds_nothing() {
        let mut tail = tail(&[(1, ONE, b"a"), (2, TWO, b"b")]);
        tail.handle_durable(Lsn(2));
        tail.handle_synced(TWO, Lsn(2));
        tail.forget(ONE);
        assert_eq!(tail.floor(), Lsn(2));
        tail.forget(TWO);
        assert_eq!(tail.checkpoint().iter().count(), 0);
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
    fn the_books_agree_with_a_plain_model_in_random_lives() {
        for seed in 0..300_u64 {
            let mut state = seed;
            let mut draw = |bound: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695);
                (state >> 33) % bound
            };
            let mut tail = Tail::default();
            // Every record: target, eventual, whether its store has it, and durably so.
            let mut model: Vec<(TargetId, bool, bool, bool)> = Vec::new();
            let mut durable = 0;
            for _ in 0..120 {
                let target = if draw(2) == 0 { ONE } else { TWO };
                let lsn = Lsn(model.len() as u64 + 1);
                match draw(6) {
                    0 | 1 => {
                        tail.push(lsn, target, Payload::from(&[0; 3][..draw(3) as usize]));
                        model.push((target, false, false, false));
                    }
                    2 => {
                        tail.push_applied(lsn, target);
                        model.push((target, true, true, false));
                    }
                    3 => {
                        durable += draw(model.len() as u64 - durable + 1);
                        tail.handle_durable(Lsn(durable));
                    }
                    4 => {
                        let batch: Vec<_> = tail
                            .batch(target, draw(5) as usize, 9)
                            .map(|(at, _)| at)
                            .collect();
                        if let Some(last) = batch.last() {
                            for at in &batch {
                                let record = &mut model[at.0 as usize - 1];
                                assert!(record.0 == target && !record.2 && at.0 <= durable, "seed {seed}");
                                record.2 = true;
                            }
                            tail.handle_applied(target, *last);
                        }
                    }
                    _ => {
                        let due: Vec<_> = tail.unsynced().collect();
                        if let Some((target, upto)) = due.get(draw(2) as usize) {
                            for record in model[..upto.0 as usize]
                                .iter_mut()
                                .filter(|record| record.0 == *target)
                            {
                                assert!(record.2, "seed {seed}: synced before it was applied");
                                record.3 = true;
                            }
                            tail.handle_synced(*target, *upto);
                        }
                    }
                }
                let floor = tail.floor().0;
                assert!(floor <= durable, "seed {seed}");
                assert!(
                    model[..floor as usize].iter().all(|record| record.3),
                    "seed {seed}: the floor is too high"
                );
                for target in [ONE, TWO] {
                    let of_target = || model.iter().zip(1..).filter(|(record, _)| record.0 == target);
                    let missing = of_target()
                        .find(|(record, _)| !record.2)
                        .map_or(u64::MAX, |(_, lsn)| lsn);
                    assert!(
                        tail.applied(target).0 < missing,
                        "seed {seed}: applied is too high"
                    );
                    let unapplied = of_target().filter(|(record, _)| !record.2).count();
                    assert_eq!(tail.unapplied(target).records, unapplied, "seed {seed}");
                }
            }
            // In the end nothing is left that holds the log.
            let all = Lsn(model.len() as u64);
            tail.handle_durable(all);
            for target in [ONE, TWO] {
                let last = tail
                    .batch(target, usize::MAX, usize::MAX)
                    .last()
                    .map(|(lsn, _)| lsn);
                last.into_iter()
                    .for_each(|last| tail.handle_applied(target, last));
            }
            for (target, lsn) in tail.unsynced().collect::<Vec<_>>() {
                tail.handle_synced(target, lsn);
            }
            assert_eq!(tail.floor(), all, "seed {seed}");
        }
    }

    #[test]
    fn a_replay_leaves_out_what_a_checkpoint_covers() {
        let mut tail = tail(&[(1, ONE, b"a"), (2, TWO, b"b"), (3, ONE, b"c")]);
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(ONE, Lsn(1));
        tail.handle_checkpoint(&checkpoint);
        assert_eq!(tail.floor(), Lsn(0));
        tail.handle_durable(Lsn(3));
        assert_eq!(tail.floor(), Lsn(1), "what a checkpoint covers needs no sync");
        assert_eq!(unsynced(&tail), []);
        assert_eq!(lsns(&tail, ONE), [3]);
        assert_eq!(lsns(&tail, TWO), [2]);
    }
}
