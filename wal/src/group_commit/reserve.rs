//! The last stretch of the last segment: how much of it each kind of group must leave when no
//! segment is ready.
//!
//! A lane gets a segment back only when a checkpoint says that its records are applied, so a
//! checkpoint must have a place when nothing else has one. From the end of the segment backwards:
//!
//! ```text
//!   … records, checkpoints │ mark │ a checkpoint that frees │ the checkpoint that │ seal
//!     of any kind          │      │ some segment            │ frees all           │
//!                            1 block  as long as the longest     the same length    1 block
//! ```
//!
//! The last place is for the checkpoint by which everything is applied. One that frees less may not
//! be enough: the lane may be beyond its limit of segments, and on a full disk the first file freed
//! becomes the reserve of the start. After the last one the lane has no other segment than this,
//! all applied, and then the pool always finds the next. Which is why nothing else may ever take
//! that place: a checkpoint that frees nothing, written in it, would close the lane to the store's
//! progress until a restart.

use crate::group::group_blocks;
use crate::record::RECORD_HEADER_BYTES;

/// Segments that a checkpoint frees and none before it does: they decide how far into the last
/// stretch it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frees {
    /// No segment. It says something new all the same, but it has no better right to the last
    /// blocks than a record.
    Nothing,
    /// At least one segment.
    Some,
    /// All but the one that is being written, because every record of the lane is applied.
    All,
}

/// The block that is kept for the group that seals the segment.
const SEAL_BLOCKS: u32 = 1;
const MARK_BLOCKS: u32 = 1;

/// Lengths of the places. See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve {
    checkpoint_blocks: u32,
}

impl Reserve {
    /// For checkpoints of at most this many bytes of payload.
    pub(super) fn for_checkpoints_of(payload_bytes: usize) -> Self {
        Self {
            checkpoint_blocks: group_blocks(RECORD_HEADER_BYTES + payload_bytes),
        }
    }

    /// Whether a checkpoint of so many bytes of payload has room in the place that is kept for it.
    pub(super) fn covers(self, payload_bytes: usize) -> bool {
        Self::for_checkpoints_of(payload_bytes).checkpoint_blocks <= self.checkpoint_blocks
    }

    /// Blocks that must be left after a record of an appender.
    pub(super) fn behind_record(self) -> u32 {
        MARK_BLOCKS + self.checkpoint_blocks + self.behind_mark()
    }

    /// Blocks that must be left after a mark.
    pub(super) fn behind_mark(self) -> u32 {
        self.checkpoint_blocks + SEAL_BLOCKS
    }

    /// Blocks that must be left after a checkpoint.
    pub(super) fn behind_checkpoint(self, frees: Frees) -> u32 {
        match frees {
            Frees::Nothing => self.behind_record(),
            Frees::Some => self.checkpoint_blocks + SEAL_BLOCKS,
            Frees::All => SEAL_BLOCKS,
        }
    }

    /// Blocks that must be left after the cut that begins an epoch: its segment is fresh, and what
    /// was to be applied before it is applied whether or not the lane takes records.
    pub(super) fn behind_cut() -> u32 {
        SEAL_BLOCKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_lie_one_behind_the_other() {
        // Cursors take 12 bytes each after a count of 4: 327 of them fill a block.
        for (bytes, blocks) in [(4, 1), (4 + 12 * 327, 1), (4 + 12 * 328, 2), (40_000, 10)] {
            let reserve = Reserve::for_checkpoints_of(bytes);
            assert_eq!(reserve.checkpoint_blocks, blocks);
            let last = reserve.behind_checkpoint(Frees::All);
            assert_eq!(last, 1);
            let some = reserve.behind_checkpoint(Frees::Some);
            assert_eq!(some, last + blocks, "behind it the last one still fits");
            assert_eq!(reserve.behind_mark(), some, "and behind a mark");
            assert_eq!(reserve.behind_record(), some + blocks + 1);
            assert_eq!(reserve.behind_checkpoint(Frees::Nothing), reserve.behind_record());
            assert!(reserve.covers(bytes) && !reserve.covers(bytes + 4096));
        }
    }
}
