//! Recovery: where does the log end, and is that end the work of a crash or of a bad disk? Decided
//! by proof.
//!
//! The fault model: a crash keeps any subset of the 512-byte sectors of writes that had not
//! completed; a write that completed stays. Segments are zero before use and no sector of a live
//! group is all zero. From that follows:
//!
//! - A group is acknowledged only when it and every group before it are durable. Each group
//!   carries, as *witness*, the highest group known durable when it was sealed. Let W be the
//!   highest witness found anywhere. Then every group up to W must be there; if one is not, the
//!   disk lost or changed it: **corrupt**.
//! - A group above W that a crash interrupted lacks a sector, and that sector is zero: **torn** (or
//!   a **clean end** when nothing at all was written). It was never acknowledged, so it may be cut.
//! - A group above W with every sector written and yet wrong cannot come from a crash: **suspect**.
//!
//! So a crash alone is never called corruption, with several groups in flight too, and damage to a
//! witnessed group is never taken for a torn end. What stays open: the last groups before a pause
//! are above W until the mark that follows them is written; damage that zeroes a sector of one of
//! *them* looks torn.
//!
//! An operator may give up what is damaged ([`OnDamage::GiveUp`]). The walk then goes on at the
//! next whole group after the damage, so every good record is kept, and the stretch between is
//! reported exactly.
//!
//! Pure: [`recover`] reads blocks through [`SegmentSource`] and writes nothing. Cutting is done by
//! the next epoch's first group, which names the last group kept and what was given up; from then
//! on that decision is part of the log and is not made again.

use core::fmt;

use crate::cipher::{GroupTag, SegmentCipher};
use crate::cut::Lost;
use crate::group::GroupHeader;
use crate::ids::{Epoch, GroupNumber, Lsn, SegmentNumber};
use crate::record::Record;

mod walk;

pub use walk::recover;

/// Content of the place where the next group is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// The group that belongs there: header, place, number, chain, tag and records are all right.
    Expected,
    /// A block of zeros.
    AllZero,
    /// Something else, and some sector of it was never written.
    SomeSectorZero,
    /// Something else, and every sector of it was written.
    NoSectorZero,
    /// The disk refuses to read it.
    Unreadable,
}

/// Knowledge of recovery about the place where the next group, n, is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Observation {
    /// Content of that place.
    pub content: Content,
    /// Whether anything proves that group n was durable: n ≤ W, or a record of it is known to be
    /// applied.
    pub witnessed: bool,
    /// Whether anything but zeros stands after it.
    pub beyond: bool,
}

/// The five things that can be true of the place where the next group is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The group is there: take it and go on.
    Next,
    /// Nothing was written there: the log ends before it.
    CleanEnd,
    /// A write that never completed: the log ends before it.
    Torn,
    /// Neither a whole group nor a torn one, and nothing proves that it mattered: the lane is held.
    Suspect,
    /// A group that was durable is gone or changed: the lane is held.
    Corrupt,
}

/// The decision table. Total: the tests enumerate all of its rows.
#[must_use]
pub fn decide(observation: Observation) -> Verdict {
    let Observation {
        content,
        witnessed,
        beyond,
    } = observation;
    match (content, witnessed, beyond) {
        (Content::Expected, _, _) => Verdict::Next,
        (_, true, _) => Verdict::Corrupt,
        (Content::AllZero, false, false) => Verdict::CleanEnd,
        (Content::AllZero, false, true) | (Content::SomeSectorZero, false, _) => Verdict::Torn,
        (Content::NoSectorZero | Content::Unreadable, false, _) => Verdict::Suspect,
    }
}

/// A part of a segment that the disk refuses to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Gives recovery the blocks of the listed segments. Must bypass the page cache: what is only in
/// memory is not there.
pub trait SegmentSource {
    /// Fills `out` (whole blocks) from block `block` of the `index`-th listed segment.
    ///
    /// # Errors
    /// [`Unreadable`] when any of these blocks cannot be read; recovery then tries them one by one.
    fn read(&mut self, index: usize, block: u32, out: &mut [u8]) -> Result<(), Unreadable>;
}

/// A listed segment whose header was read.
#[derive(Clone, Debug)]
pub struct RecoverySegment {
    /// The segment's number.
    pub segment: SegmentNumber,
    /// The epoch in which it was prepared.
    pub epoch: Epoch,
    /// The segment's length, headers included.
    pub blocks: u32,
    /// Decrypts its groups. Without it, for looking only, the visitor gets no records, and what is
    /// proved is that checksums, chain and numbers are right, not that nobody forged them; a lane
    /// must not start on that.
    pub cipher: Option<SegmentCipher>,
}

/// Evidence from outside the segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// Known durable: from the manifest.
    pub durable_group: GroupNumber,
    /// Known durable: from the manifest and from the stores' cursors of *strong* records (those are
    /// applied only when durable).
    pub durable_lsn: Lsn,
    /// The manifest says that nothing was ever submitted after this group: if the walk ends there,
    /// it is the end.
    pub clean_end: Option<GroupNumber>,
}

/// The last group of the log and where the next would stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Epoch of the last group.
    pub epoch: Epoch,
    /// The last group: good, or given up.
    pub group: GroupNumber,
    /// The last record: good, or given up.
    pub lsn: Lsn,
    /// The last group's tag.
    pub tag: GroupTag,
    /// Index of the segment in which the next group was expected.
    pub index: usize,
    /// The block at which it was expected.
    pub block: u32,
}

/// Why a lane is held: what is wrong, where, and what is lost at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// [`Verdict::Suspect`] or [`Verdict::Corrupt`].
    pub verdict: Verdict,
    /// Content found in the place.
    pub content: Content,
    /// The group expected there.
    pub group: GroupNumber,
    /// The segment.
    pub segment: SegmentNumber,
    /// The block within it.
    pub block: u32,
    /// First record of the damaged stretch.
    pub first_lsn: Lsn,
    /// Last record of the damaged stretch, when a good group after it tells.
    pub last_lsn: Option<Lsn>,
    /// The highest witness found.
    pub witness: GroupNumber,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verdict,
            content,
            group,
            segment,
            block,
            first_lsn,
            witness,
            ..
        } = self;
        write!(
            formatter,
            "{verdict:?}: group {group} (segment {segment}, block {block}) is {content:?}; "
        )?;
        write!(
            formatter,
            "groups up to {witness} were durable; records {first_lsn}..="
        )?;
        match self.last_lsn {
            Some(last) => write!(formatter, "{last} are affected"),
            None => formatter.write_str("? are affected"),
        }
    }
}

/// Findings of recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The end of the good part.
    pub tip: Tip,
    /// [`Verdict::CleanEnd`] or [`Verdict::Torn`] when the lane may start, else
    /// [`Verdict::Suspect`] or [`Verdict::Corrupt`]: then it is held, or an operator gave up what
    /// is wrong.
    pub verdict: Verdict,
    /// The first of the faults that were found.
    pub damage: Option<Damage>,
    /// Stretches given up, and not by an earlier recovery already; in log order.
    pub lost: Vec<Lost>,
    /// The highest epoch seen anywhere; the next one must be higher.
    pub epoch_max: Epoch,
    /// Groups read, of all kinds.
    pub groups: u64,
    /// Records read, of all kinds.
    pub records: u64,
    /// Segments after the end that hold nothing but their header and zeros.
    pub blank: Vec<SegmentNumber>,
}

/// One good group, as recovery meets it.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredGroup<'a> {
    /// The group's header.
    pub header: &'a GroupHeader,
    /// The group's tag.
    pub tag: &'a GroupTag,
}

/// Receives what recovery reads, in log order.
pub trait Visitor {
    /// A record of the good part.
    fn record(&mut self, epoch: Epoch, lsn: Lsn, record: &Record<'_>);

    /// A group of the good part, after its records.
    fn group(&mut self, _group: RecoveredGroup<'_>) {}
}

/// Policy for a log that turns out to be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Stop there and say what is wrong: the lane is held.
    Hold,
    /// An operator gave up what is damaged: note the stretch in [`Recovery::lost`] and go on after
    /// it.
    GiveUp,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENTS: [Content; 5] = [
        Content::Expected,
        Content::AllZero,
        Content::SomeSectorZero,
        Content::NoSectorZero,
        Content::Unreadable,
    ];

    /// The table of the format page, row by row: content, witnessed, something beyond -> verdict.
    const TABLE: [(Content, bool, bool, Verdict); 20] = [
        (Content::Expected, false, false, Verdict::Next),
        (Content::Expected, false, true, Verdict::Next),
        (Content::Expected, true, false, Verdict::Next),
        (Content::Expected, true, true, Verdict::Next),
        (Content::AllZero, false, false, Verdict::CleanEnd),
        (Content::AllZero, false, true, Verdict::Torn),
        (Content::AllZero, true, false, Verdict::Corrupt),
        (Content::AllZero, true, true, Verdict::Corrupt),
        (Content::SomeSectorZero, false, false, Verdict::Torn),
        (Content::SomeSectorZero, false, true, Verdict::Torn),
        (Content::SomeSectorZero, true, false, Verdict::Corrupt),
        (Content::SomeSectorZero, true, true, Verdict::Corrupt),
        (Content::NoSectorZero, false, false, Verdict::Suspect),
        (Content::NoSectorZero, false, true, Verdict::Suspect),
        (Content::NoSectorZero, true, false, Verdict::Corrupt),
        (Content::NoSectorZero, true, true, Verdict::Corrupt),
        (Content::Unreadable, false, false, Verdict::Suspect),
        (Content::Unreadable, false, true, Verdict::Suspect),
        (Content::Unreadable, true, false, Verdict::Corrupt),
        (Content::Unreadable, true, true, Verdict::Corrupt),
    ];

    #[test]
    fn the_decision_table_is_exhaustive_and_decided_as_written() {
        let mut rows = std::collections::HashSet::new();
        for (content, witnessed, beyond, verdict) in TABLE {
            let observation = Observation {
                content,
                witnessed,
                beyond,
            };
            assert!(rows.insert(observation), "row {observation:?} stands twice");
            assert_eq!(decide(observation), verdict, "{observation:?}");
        }
        for content in CONTENTS {
            for (witnessed, beyond) in [(false, false), (false, true), (true, false), (true, true)] {
                assert!(rows.contains(&Observation {
                    content,
                    witnessed,
                    beyond
                }));
            }
        }
    }

    #[test]
    fn nothing_witnessed_is_ever_cut() {
        for (content, witnessed, _, verdict) in TABLE {
            if witnessed {
                assert!(
                    !matches!(verdict, Verdict::CleanEnd | Verdict::Torn | Verdict::Suspect),
                    "{content:?}"
                );
            }
        }
    }
}
