//! Room for what was appended: a record is refused while nothing has changed, or it has its place
//! on the disk.

use super::{AppendError, GroupCommit};
use crate::group::{GroupKind, group_blocks, group_payload_bytes};
use crate::record::Record;
use crate::segment::SEGMENT_HEADER_BLOCKS;

impl GroupCommit {
    pub(super) fn admit(&self, record: &Record<'_>, kept_blocks: u32) -> Result<(), AppendError> {
        if self.poison.is_some() {
            return Err(AppendError::Poisoned);
        }
        if record.payload.len() > self.config.record_payload_bytes_max() {
            return Err(AppendError::TooLong);
        }
        if self.stalled {
            return Err(AppendError::Stalled);
        }
        let bytes = record.encoded_bytes();
        // A record of the largest size is admitted when it is alone.
        if self.pending_bytes > 0 && self.pending_bytes + bytes > self.config.pending_bytes_max {
            return Err(AppendError::Full);
        }
        if self.has_room(bytes, kept_blocks) {
            Ok(())
        } else {
            Err(AppendError::NoSegment)
        }
    }

    /// Whether everything that waits, and a record of so many bytes, has a place in segments that
    /// are prepared *now*, and leaves so many blocks if that takes the last of them: what was
    /// admitted must never meet a full disk later. Plays through where [`GroupCommit::seal`] would
    /// put each group.
    pub(super) fn has_room(&self, bytes: usize, kept_blocks: u32) -> bool {
        let joins = self.open.payload_bytes + bytes <= group_payload_bytes(self.config.group_blocks_max);
        let (open, alone) = if joins {
            (self.open.payload_bytes + bytes, 0)
        } else {
            (self.open.payload_bytes, bytes)
        };
        let staged = self.staged.iter().map(|group| group.payload_bytes);
        let waiting = staged
            .chain([open, alone])
            .filter(|bytes| *bytes > 0)
            .map(group_blocks);
        let fresh = self.config.segment_blocks - SEGMENT_HEADER_BLOCKS;
        let mut left = self
            .active
            .as_ref()
            .map_or(0, |active| self.config.segment_blocks - active.next_block);
        let mut ready = self.ready.len();
        for blocks in waiting {
            if blocks >= left {
                if ready == 0 || blocks >= fresh {
                    return false;
                }
                (ready, left) = (ready - 1, fresh);
            }
            left -= blocks;
            if left <= self.config.group_blocks_max && ready > 0 {
                left = 0;
            }
        }
        ready > 0 || left >= kept_blocks
    }

    /// Whether a group of this length can be written now without taking the block that is kept for
    /// sealing, nor, if it is a mark, the last place for a checkpoint: records were admitted only
    /// where they leave that, marks are not asked.
    pub(super) fn has_place(&self, blocks: u32, kind: GroupKind) -> bool {
        let fresh = self.config.segment_blocks - SEGMENT_HEADER_BLOCKS;
        let (left, ready_behind) = match &self.active {
            Some(active) => (self.config.segment_blocks - active.next_block, self.ready.len()),
            None if self.ready.is_empty() => return false,
            None => (fresh, self.ready.len() - 1),
        };
        let kept = match kind {
            GroupKind::Mark if ready_behind == 0 => self.reserve.behind_mark(),
            _ => 1,
        };
        blocks + kept <= left
    }

    /// Whether the active segment must be sealed first, with a group of its own.
    pub(super) fn must_close(&self, blocks: u32) -> bool {
        debug_assert!(
            blocks < self.config.segment_blocks - SEGMENT_HEADER_BLOCKS,
            "admitted records fit a segment"
        );
        self.active.is_some() && !self.ready.is_empty()
    }
}
