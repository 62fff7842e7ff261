//! Limits of the group commit, checked against one another, and the refusals that keep to them.

use core::fmt;

use crate::buffer::BLOCK_BYTES;
use crate::group::{GROUP_BLOCKS_MAX, group_payload_bytes};
use crate::record::RECORD_PAYLOAD_BYTES_MAX;
use crate::segment::{SEGMENT_BLOCKS_MAX, SEGMENT_HEADER_BLOCKS};

/// Limits and times of a lane's group commit. All have defaults; [`super::GroupCommit::new`] checks
/// them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Length of an ordinary group; only a single record that is longer makes a longer one. Costs
    /// this much memory for every group in flight.
    pub group_blocks_max: u32,
    /// Length of every segment, headers included.
    pub segment_blocks: u32,
    /// Most groups in flight, 1..=8.
    pub depth_max: usize,
    /// Fixes the depth instead of adapting it.
    pub depth_fixed: Option<usize>,
    /// Most bytes of records appended and not yet durable. Beyond it an append is refused.
    pub pending_bytes_max: usize,
    /// How long a group of nothing but eventual records may wait for company.
    pub eventual_delay_nanos: u64,
    /// How long the lane must have been quiet before a mark witnesses its last groups.
    pub mark_after_nanos: u64,
    /// A write in flight for longer than this makes the lane refuse appends until it completes.
    pub shed_after_nanos: u64,
    /// A write in flight for longer than this poisons the lane.
    pub poison_after_nanos: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            group_blocks_max: 256,
            segment_blocks: crate::segment::SEGMENT_BLOCKS_DEFAULT,
            depth_max: 8,
            depth_fixed: None,
            pending_bytes_max: 32 << 20,
            eventual_delay_nanos: 10_000_000,
            mark_after_nanos: 10_000_000,
            shed_after_nanos: 5_000_000_000,
            poison_after_nanos: 30_000_000_000,
        }
    }
}

impl Config {
    /// Longest payload that an append can take under this configuration.
    #[must_use]
    pub fn record_payload_bytes_max(&self) -> usize {
        // One block of every segment stays free for the group that seals it.
        let blocks = (self.segment_blocks - SEGMENT_HEADER_BLOCKS - 1).min(GROUP_BLOCKS_MAX);
        let bytes = group_payload_bytes(blocks) - crate::record::RECORD_HEADER_BYTES;
        bytes.min(RECORD_PAYLOAD_BYTES_MAX).min(self.pending_bytes_max)
    }

    /// Checks the limits against one another.
    ///
    /// # Errors
    /// A sentence naming the key at fault.
    pub fn check(&self) -> Result<(), &'static str> {
        let data_blocks = self.segment_blocks.saturating_sub(SEGMENT_HEADER_BLOCKS);
        if self.segment_blocks > SEGMENT_BLOCKS_MAX {
            return Err("segment_blocks: a segment is at most 1 GiB");
        }
        if self.group_blocks_max == 0 || self.group_blocks_max > GROUP_BLOCKS_MAX {
            return Err("group_blocks_max: a group has 1 to 4353 blocks");
        }
        if data_blocks < 2 * self.group_blocks_max + 1 {
            return Err(
                "segment_blocks: a segment must have room for two ordinary groups and the one that seals it",
            );
        }
        if self.depth_max == 0
            || self.depth_max > 8
            || self.depth_fixed.is_some_and(|depth| depth == 0 || depth > 8)
        {
            return Err("depth: 1 to 8 groups may be in flight");
        }
        if self.pending_bytes_max < BLOCK_BYTES {
            return Err("pending_bytes_max: less than one block of records could ever be pending");
        }
        if self.shed_after_nanos > self.poison_after_nanos {
            return Err("shed_after_nanos: a stalled disk sheds before it poisons");
        }
        Ok(())
    }
}

/// Why an append was refused. Nothing was appended, so each may be tried again (but
/// [`AppendError::TooLong`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The record is longer than [`Config::record_payload_bytes_max`]. The caller's fault.
    TooLong,
    /// Too many bytes are waiting to become durable. Passes by itself.
    Full,
    /// No prepared segment has room: the disk is full, or preparation is late. Passes by itself.
    NoSegment,
    /// The disk has not answered for too long. Passes when it does.
    Stalled,
    /// The lane is closed after a failed write, until the process starts again.
    Poisoned,
}

impl fmt::Display for AppendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLong => "the record is longer than the log takes",
            Self::Full => "too many bytes are waiting to become durable",
            Self::NoSegment => "no prepared segment has room",
            Self::Stalled => "the log's disk does not answer",
            Self::Poisoned => "the lane is closed after a failed write",
        })
    }
}

impl core::error::Error for AppendError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_consistent_and_contradictions_are_named() {
        Config::default().check().unwrap();
        assert_eq!(
            Config::default().record_payload_bytes_max(),
            RECORD_PAYLOAD_BYTES_MAX
        );
        let fault = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().split(':').next().unwrap().to_owned()
        };
        assert_eq!(fault(&|config| config.segment_blocks = 100), "segment_blocks");
        assert_eq!(
            fault(&|config| config.segment_blocks = u32::MAX),
            "segment_blocks"
        );
        assert_eq!(fault(&|config| config.group_blocks_max = 0), "group_blocks_max");
        assert_eq!(fault(&|config| config.depth_max = 9), "depth");
        assert_eq!(fault(&|config| config.depth_fixed = Some(0)), "depth");
        assert_eq!(fault(&|config| config.pending_bytes_max = 0), "pending_bytes_max");
        assert_eq!(
            fault(&|config| config.shed_after_nanos = u64::MAX),
            "shed_after_nanos"
        );
    }
}
