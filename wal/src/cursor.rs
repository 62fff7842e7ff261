//! Cursors: how far each target has got, the durable note of it, and which segments that note
//! frees.
//!
//! A target applies its records in order, so one number says it all. A checkpoint is a record like
//! any other; it counts once it is durable. A segment is recycled only when a durable checkpoint,
//! which itself lies in a later segment, shows that every record of it has been applied.

use std::collections::{BTreeMap, VecDeque};

use crate::bytes::{put, u32_at, u64_at};
use crate::group_commit::ClosedSegment;
use crate::ids::{Lsn, NUMBER_MAX, TargetId};
use crate::record::{RECORD_PAYLOAD_BYTES_MAX, RecordError};

/// The cursors of all targets: every record of a target up to its cursor is durable in the target.
///
/// ```text
/// offset  bytes  field (little endian)
///      0      4  number of cursors
///  4+12×i      4  target        ascending
///  8+12×i      8  cursor (LSN)
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    cursors: BTreeMap<TargetId, Lsn>,
}

const COUNT_BYTES: usize = 4;
const ENTRY_BYTES: usize = 12;

/// The most cursors that a checkpoint can hold.
pub const CURSORS_MAX: usize = (RECORD_PAYLOAD_BYTES_MAX - COUNT_BYTES) / ENTRY_BYTES;

impl Checkpoint {
    /// The cursor of a target; "none yet" when it has none.
    #[must_use]
    pub fn cursor(&self, target: TargetId) -> Lsn {
        self.cursors.get(&target).copied().unwrap_or_default()
    }

    /// Moves a cursor. It never moves back.
    pub fn advance(&mut self, target: TargetId, lsn: Lsn) {
        let cursor = self.cursors.entry(target).or_default();
        *cursor = (*cursor).max(lsn);
    }

    /// Forgets a target that is gone for good.
    pub fn forget(&mut self, target: TargetId) {
        self.cursors.remove(&target);
    }

    /// The cursors, ascending by target.
    pub fn iter(&self) -> impl Iterator<Item = (TargetId, Lsn)> + '_ {
        self.cursors.iter().map(|(target, lsn)| (*target, *lsn))
    }

    /// Length of [`Checkpoint::encode`] for so many cursors.
    #[must_use]
    pub const fn encoded_bytes(cursors: usize) -> usize {
        COUNT_BYTES + cursors * ENTRY_BYTES
    }

    /// The payload of a checkpoint record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::encoded_bytes(self.cursors.len())];
        put(&mut bytes, 0, &(self.cursors.len() as u32).to_le_bytes());
        for ((target, lsn), entry) in self
            .cursors
            .iter()
            .zip(bytes[COUNT_BYTES..].chunks_exact_mut(ENTRY_BYTES))
        {
            put(entry, 0, &target.0.to_le_bytes());
            put(entry, 4, &lsn.0.to_le_bytes());
        }
        bytes
    }

    /// Reads the payload of a checkpoint record.
    ///
    /// # Errors
    /// [`RecordError::BadPayload`] when lengths, order or numbers are wrong.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let (count, entries) = payload
            .split_at_checked(COUNT_BYTES)
            .ok_or(RecordError::BadPayload)?;
        if entries.len() != (u32_at(count, 0) as usize).saturating_mul(ENTRY_BYTES) {
            return Err(RecordError::BadPayload);
        }
        let read = |entry: &[u8]| (TargetId(u32_at(entry, 0)), Lsn(u64_at(entry, 4)));
        let cursors: Vec<_> = entries.chunks_exact(ENTRY_BYTES).map(read).collect();
        let ascending = cursors.is_sorted_by(|(one, _), (other, _)| one < other);
        if !ascending || cursors.iter().any(|(_, lsn)| lsn.0 > NUMBER_MAX) {
            return Err(RecordError::BadPayload);
        }
        Ok(Self {
            cursors: cursors.into_iter().collect(),
        })
    }
}

/// Decides which closed segments may be recycled.
#[derive(Clone, Debug, Default)]
pub struct Recycler {
    closed: VecDeque<ClosedSegment>,
    /// Checkpoints appended and not yet durable: their LSN, and the record up to which everything
    /// was applied.
    pending: VecDeque<(Lsn, Lsn)>,
    /// The newest durable checkpoint.
    durable: Option<(Lsn, Lsn)>,
}

impl Recycler {
    /// Takes note of a segment that gets no further groups.
    pub fn handle_closed(&mut self, segment: ClosedSegment) {
        assert!(
            self.closed
                .back()
                .is_none_or(|last| last.segment < segment.segment),
            "segments close in order"
        );
        self.closed.push_back(segment);
    }

    /// Takes note of a checkpoint that was appended as `lsn` when every record up to `floor` was
    /// applied.
    pub fn handle_checkpoint(&mut self, lsn: Lsn, floor: Lsn) {
        assert!(floor < lsn, "a checkpoint speaks of records before it");
        assert!(
            self.pending.back().is_none_or(|(last, _)| *last < lsn),
            "checkpoints come in order"
        );
        self.pending.push_back((lsn, floor));
    }

    /// Whether a checkpoint at this floor, appended now, frees a segment that none before it does.
    #[must_use]
    pub fn would_free(&self, floor: Lsn) -> bool {
        let newest = self.pending.back().or(self.durable.as_ref());
        let freed = newest.map_or(Lsn::NONE, |(_, floor)| *floor);
        let mut ends = self.closed.iter().map(|segment| segment.end.lsn);
        // They ascend: if the first that is not free yet is not reached, none is.
        ends.find(|end| *end > freed).is_some_and(|end| end <= floor)
    }

    /// Takes note of the durable prefix.
    pub fn handle_durable(&mut self, lsn: Lsn) {
        while self.pending.front().is_some_and(|(at, _)| *at <= lsn) {
            self.durable = self.pending.pop_front();
        }
    }

    /// The next segment that may be recycled; each is returned once, in order.
    pub fn poll_recyclable(&mut self) -> Option<ClosedSegment> {
        let (checkpoint, floor) = self.durable?;
        // The checkpoint must survive the segment that it frees.
        let free = self
            .closed
            .front()
            .is_some_and(|segment| segment.end.lsn <= floor && segment.end.lsn < checkpoint);
        if free { self.closed.pop_front() } else { None }
    }

    /// Closed segments that are still needed.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.closed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SegmentNumber;
    use crate::manifest::Base;

    #[test]
    fn checkpoints_come_back_and_crooked_ones_are_refused() {
        let mut checkpoint = Checkpoint::default();
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint.clone()));
        for target in 0..50 {
            checkpoint.advance(TargetId(target), Lsn(u64::from(target) * 7));
        }
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint));
        for length in 0..bytes.len() {
            assert!(Checkpoint::decode(&bytes[..length]).is_err());
        }
        let mut swapped = bytes.clone();
        swapped.swap(4, 16);
        assert_eq!(Checkpoint::decode(&swapped), Err(RecordError::BadPayload));
    }

    #[test]
    fn a_cursor_never_moves_back() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(TargetId(1), Lsn(9));
        checkpoint.advance(TargetId(1), Lsn(3));
        assert_eq!(checkpoint.cursor(TargetId(1)), Lsn(9));
        assert_eq!(checkpoint.cursor(TargetId(2)), Lsn::NONE);
    }

    #[test]
    fn a_segment_is_freed_by_a_durable_checkpoint_behind_it_and_not_before() {
        let closed = |segment, lsn| ClosedSegment {
            segment: SegmentNumber(segment),
            end: Base {
                lsn: Lsn(lsn),
                ..Base::default()
            },
        };
        let mut recycler = Recycler::default();
        recycler.handle_closed(closed(1, 10));
        recycler.handle_closed(closed(2, 20));
        recycler.handle_checkpoint(Lsn(10), Lsn(9));
        recycler.handle_checkpoint(Lsn(15), Lsn(12));
        assert_eq!(recycler.poll_recyclable(), None, "not durable yet");
        recycler.handle_durable(Lsn(14));
        assert_eq!(
            recycler.poll_recyclable(),
            None,
            "the durable checkpoint lies in the segment itself"
        );
        recycler.handle_durable(Lsn(15));
        assert_eq!(recycler.poll_recyclable(), Some(closed(1, 10)));
        assert_eq!(
            recycler.poll_recyclable(),
            None,
            "records 13..=20 are not applied"
        );
        assert_eq!(recycler.pinned(), 1);
    }

    #[test]
    fn what_a_checkpoint_on_its_way_frees_no_other_does() {
        let mut recycler = Recycler::default();
        assert!(!recycler.would_free(Lsn(100)), "nothing is closed");
        for (segment, lsn) in [(1, 10), (2, 20), (3, 30)] {
            recycler.handle_closed(ClosedSegment {
                segment: SegmentNumber(segment),
                end: Base {
                    lsn: Lsn(lsn),
                    ..Base::default()
                },
            });
        }
        assert!(!recycler.would_free(Lsn(9)));
        assert!(recycler.would_free(Lsn(10)));
        recycler.handle_checkpoint(Lsn(40), Lsn(12));
        assert!(!recycler.would_free(Lsn(19)), "the first one is as good as free");
        assert!(recycler.would_free(Lsn(20)));
        recycler.handle_durable(Lsn(40));
        assert!(!recycler.would_free(Lsn(19)) && recycler.would_free(Lsn(35)));
        while recycler.poll_recyclable().is_some() {}
        assert_eq!(recycler.pinned(), 2);
        assert!(!recycler.would_free(Lsn(19)) && recycler.would_free(Lsn(20)));
    }
}
