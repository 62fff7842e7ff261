//! Vocabulary of the state machine and its driver: writes to be done, their results, segments.

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::cipher::{GroupTag, SegmentCipher};
use crate::ids::{GroupNumber, Lsn, SegmentNumber};
use crate::manifest::Base;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// So many bytes are durable.
    Durable(usize),
    /// The kernel asks to try again (EINTR, EAGAIN): nothing was decided.
    Interrupted,
    /// Any error, with its number.
    Failed(i32),
}

/// Why a lane is poisoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonReason {
    /// A write failed with this error number.
    WriteFailed(i32),
    /// A write was cut short twice.
    ShortWrite,
    /// A write was interrupted again and again.
    Interrupted,
    /// A write did not complete within
    /// [`Config::poison_after_nanos`](super::Config::poison_after_nanos).
    Stalled,
    /// The driver gave up on the disk for a reason of its own.
    Driver,
}

/// One durable write to be done. The driver owns the buffer until it reports the completion.
#[derive(Debug)]
pub struct WriteAction {
    /// The group; also names the operation.
    pub group: GroupNumber,
    /// Where to.
    pub segment: SegmentNumber,
    /// First block.
    pub block: u32,
    /// Length in blocks; the buffer may be longer.
    pub blocks: u32,
    /// Records of the group: how many may be waited for.
    pub records: u32,
    /// The group to write.
    pub buffer: AlignedBuffer,
}

impl WriteAction {
    /// The bytes to write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.as_slice()[..self.blocks as usize * BLOCK_BYTES]
    }

    /// Offset in the segment's file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.block) * BLOCK_BYTES as u64
    }
}

/// A prepared segment, listed durably in the manifest: ready to be written.
#[derive(Clone, Debug)]
pub struct ReadySegment {
    /// The segment's number.
    pub segment: SegmentNumber,
    /// Encrypts its groups.
    pub cipher: SegmentCipher,
}

/// A segment that gets no further groups and whose groups are all durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// The segment's number.
    pub segment: SegmentNumber,
    /// The segment's end: the chain's base once it is recycled.
    pub end: Base,
}

/// Where a lane's numbering goes on: what recovery found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resume {
    /// The last good group.
    pub group: GroupNumber,
    /// The last good record (of those that were lost on an operator's word, the last).
    pub lsn: Lsn,
    /// The last good group's tag.
    pub tag: GroupTag,
}
