//! Recovery: where does the log end, and is that end the work of a crash or of a bad disk? Decided by proof.
//!
//! The fault model: a crash keeps any subset of the 512-byte sectors of writes that had not completed; a write that
//! completed stays. Segments are zero before use and no sector of a live group is all zero. From that follows:
//!
//! - A group is acknowledged only when it and every group before it are durable. Each group carries, as *witness*,
//!   the highest group known durable when it was sealed. Let W be the highest witness found anywhere. Then every
//!   group up to W must be there; if one is not, the disk lost or changed it: **corrupt**.
//! - A group above W that a crash interrupted lacks a sector, and that sector is zero: **torn** (or a **clean end**
//!   when nothing at all was written). It was never acknowledged, so it may be cut.
//! - A group above W with every sector written and yet wrong cannot come from a crash: **suspect**.
//!
//! So a crash alone is never called corruption, with several groups in flight too, and damage to a witnessed group is
//! never taken for a torn end. What stays open: the last groups before a pause are above W until the mark that
//! follows them is written; damage that zeroes a sector of one of *them* looks torn.
//!
//! Pure: [`recover`] reads blocks through [`SegmentSource`] and writes nothing. Cutting is done by the next epoch's
//! first group, which names the last group kept; from then on that decision is part of the log and is not made again.

use core::fmt;

use crate::buffer::{AlignedBuffer, BLOCK_BYTES, has_zero_sector, is_zero};
use crate::cipher::{GroupTag, SegmentCipher};
use crate::group::{GROUP_BLOCKS_MAX, GroupError, GroupHeader, open_group, verify_checksum};
use crate::ids::{Epoch, GroupNumber, LaneId, Lsn, SegmentNumber};
use crate::manifest::Base;
use crate::record::{Cut, Record, RecordKind};
use crate::segment::SEGMENT_HEADER_BLOCKS;

/// What stands where the next group is expected.
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

/// What recovery knows about the place where the next group, n, is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Observation {
    /// What stands there.
    pub content: Content,
    /// Whether anything proves that group n was durable: n ≤ W, or a record of it is known to be applied.
    pub witnessed: bool,
    /// Whether anything but zeros stands behind it.
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

/// Gives recovery the blocks of the listed segments. Must bypass the page cache: what is only in memory is not there.
pub trait SegmentSource {
    /// Fills `out` (whole blocks) from block `block` of the `index`-th listed segment.
    ///
    /// # Errors
    /// [`Unreadable`] when any of these blocks cannot be read; recovery then tries them one by one.
    fn read(&mut self, index: usize, block: u32, out: &mut [u8]) -> Result<(), Unreadable>;
}

/// A listed segment whose header was read and whose key is known.
#[derive(Clone, Debug)]
pub struct RecoverySegment {
    /// Its number.
    pub segment: SegmentNumber,
    /// The epoch in which it was prepared.
    pub epoch: Epoch,
    /// Its length, headers included.
    pub blocks: u32,
    /// Decrypts its groups.
    pub cipher: SegmentCipher,
}

/// A listed segment whose key may be out of reach: without it, the checksums of its groups are what is checked.
#[derive(Clone, Debug)]
pub struct WalkSegment {
    /// Its number.
    pub segment: SegmentNumber,
    /// The epoch in which it was prepared.
    pub epoch: Epoch,
    /// Its length, headers included.
    pub blocks: u32,
    /// Decrypts its groups, if the key is known.
    pub cipher: Option<SegmentCipher>,
}

/// What is known from outside the segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// Known durable: from the manifest.
    pub durable_group: GroupNumber,
    /// Known durable: from the manifest and from the stores' cursors of *strong* records (those are applied only when
    /// durable).
    pub durable_lsn: Lsn,
    /// The manifest says that nothing was ever submitted behind this group: if the walk ends there, it is the end.
    pub clean_end: Option<GroupNumber>,
}

/// The last group of the log and where the next would stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Epoch of the last group.
    pub epoch: Epoch,
    /// The last good group.
    pub group: GroupNumber,
    /// The last record.
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
    /// What was found in the place.
    pub content: Content,
    /// The group expected there.
    pub group: GroupNumber,
    /// The segment.
    pub segment: SegmentNumber,
    /// The block within it.
    pub block: u32,
    /// First record of the damaged stretch.
    pub first_lsn: Lsn,
    /// Last record of the damaged stretch, when a good group behind it tells.
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

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The end of the good part.
    pub tip: Tip,
    /// [`Verdict::CleanEnd`] or [`Verdict::Torn`] when the lane may start, else [`Verdict::Suspect`] or
    /// [`Verdict::Corrupt`].
    pub verdict: Verdict,
    /// What is wrong, when the lane is held.
    pub damage: Option<Damage>,
    /// The highest epoch seen anywhere; the next one must be higher.
    pub epoch_max: Epoch,
    /// Groups read, of all kinds.
    pub groups: u64,
    /// Records read, of all kinds.
    pub records: u64,
    /// Segments behind the end that hold nothing but their header and zeros.
    pub blank: Vec<SegmentNumber>,
}

/// One good group, as recovery meets it.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredGroup<'a> {
    /// Its header.
    pub header: &'a GroupHeader,
    /// Its tag.
    pub tag: &'a GroupTag,
}

/// Receives what recovery reads, in log order.
pub trait Visitor {
    /// A record of the good part.
    fn record(&mut self, epoch: Epoch, lsn: Lsn, record: &Record<'_>);

    /// A group of the good part, after its records.
    fn group(&mut self, _group: RecoveredGroup<'_>) {}
}

/// Walks a lane from `base` through its listed segments (ascending) and finds its end.
///
/// Reads at most one group (17 MiB) into memory at a time. Deterministic and free of side effects: a crash during or
/// after recovery, before the next epoch's first group is durable, changes nothing.
pub fn recover(
    lane: LaneId,
    base: &Base,
    segments: &[RecoverySegment],
    evidence: Evidence,
    source: &mut dyn SegmentSource,
    visitor: &mut dyn Visitor,
) -> Recovery {
    let segments: Vec<_> = segments
        .iter()
        .map(|known| WalkSegment {
            segment: known.segment,
            epoch: known.epoch,
            blocks: known.blocks,
            cipher: Some(known.cipher.clone()),
        })
        .collect();
    walk(lane, base, &segments, evidence, source, visitor)
}

/// As [`recover`], for looking only: of a segment without a cipher the visitor gets the groups and no records, and what
/// is proved is that checksums, chain and numbers are right, not that nobody forged them. A lane must not start on it.
pub fn walk(
    lane: LaneId,
    base: &Base,
    segments: &[WalkSegment],
    evidence: Evidence,
    source: &mut dyn SegmentSource,
    visitor: &mut dyn Visitor,
) -> Recovery {
    let mut walk = Walk::new(lane, base, segments, source);
    let starts = walk.epoch_starts();
    let mut next_start = 0;
    loop {
        while starts
            .get(next_start)
            .is_some_and(|start| start.is_behind(&walk.tip))
        {
            next_start += 1;
        }
        if let Some(start) = starts.get(next_start).filter(|start| start.continues(&walk.tip)) {
            walk.jump(start);
        }
        let content = walk.take_expected(visitor);
        if content == Content::Expected {
            continue;
        }
        return walk.conclude(content, evidence);
    }
}

/// The first group of an epoch, found at the start of a segment.
struct EpochStart {
    index: usize,
    header: GroupHeader,
    last_group: GroupNumber,
    /// Not known where records were given up, and without the key.
    last_lsn: Option<Lsn>,
}

impl EpochStart {
    /// Whether the walk has passed it.
    fn is_behind(&self, tip: &Tip) -> bool {
        self.index < tip.index || self.header.epoch <= tip.epoch
    }

    /// Whether the log goes on here: an earlier recovery ended the log exactly where the walk stands now.
    fn continues(&self, tip: &Tip) -> bool {
        let records_match = self.last_lsn.is_none_or(|last| last == tip.lsn);
        self.last_group == tip.group && self.header.previous_tag == tip.tag && records_match
    }
}

/// Blocks read ahead at a time.
const WINDOW_BLOCKS: u32 = 256;

struct Walk<'a> {
    lane: LaneId,
    segments: &'a [WalkSegment],
    source: &'a mut dyn SegmentSource,
    window: Window,
    tip: Tip,
    /// LSN of the next record; differs from the tip's successor only behind a loss that an operator accepted.
    next_lsn: Lsn,
    epoch_max: Epoch,
    groups: u64,
    records: u64,
}

/// The blocks read last.
struct Window {
    buffer: AlignedBuffer,
    index: usize,
    first: u32,
    count: u32,
    /// Blocks of the window that could not be read, as numbers within the segment.
    unreadable: Vec<u32>,
}

impl<'a> Walk<'a> {
    fn new(
        lane: LaneId,
        base: &Base,
        segments: &'a [WalkSegment],
        source: &'a mut dyn SegmentSource,
    ) -> Self {
        let epoch = segments.first().map_or(Epoch::NONE, |segment| segment.epoch);
        let tip = Tip {
            epoch,
            group: base.group,
            lsn: base.lsn,
            tag: base.tag,
            index: 0,
            block: SEGMENT_HEADER_BLOCKS,
        };
        let buffer = AlignedBuffer::zeroed(WINDOW_BLOCKS as usize * BLOCK_BYTES);
        let window = Window {
            buffer,
            index: usize::MAX,
            first: 0,
            count: 0,
            unreadable: Vec::new(),
        };
        let epoch_max = segments
            .iter()
            .map(|segment| segment.epoch)
            .max()
            .unwrap_or_default();
        Self {
            lane,
            segments,
            source,
            window,
            tip,
            next_lsn: base.lsn.next(),
            epoch_max,
            groups: 0,
            records: 0,
        }
    }

    /// Makes `count` blocks from `block` of segment `index` available and returns them. Unreadable blocks are filled
    /// with a pattern that is neither zero nor a group.
    fn blocks(&mut self, index: usize, block: u32, count: u32) -> &mut [u8] {
        let window = &mut self.window;
        let end = block + count;
        if window.index != index || block < window.first || end > window.first + window.count {
            let ahead = count.max(WINDOW_BLOCKS).min(self.segments[index].blocks - block);
            let bytes = ahead as usize * BLOCK_BYTES;
            if window.buffer.len() < bytes {
                window.buffer = AlignedBuffer::zeroed(bytes);
            }
            (window.index, window.first, window.count) = (index, block, ahead);
            window.unreadable.clear();
            let out = &mut window.buffer.as_mut_slice()[..bytes];
            if self.source.read(index, block, out).is_err() {
                for (number, out) in (block..).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
                    if self.source.read(index, number, out).is_err() {
                        out.fill(0xA5);
                        window.unreadable.push(number);
                    }
                }
            }
        }
        let offset = (block - window.first) as usize * BLOCK_BYTES;
        &mut window.buffer.as_mut_slice()[offset..offset + count as usize * BLOCK_BYTES]
    }

    /// The header at a block, if there is one and it belongs to exactly this place of this lane.
    fn header_at(&mut self, index: usize, block: u32) -> Option<GroupHeader> {
        let segment = &self.segments[index];
        let (lane, number, blocks) = (self.lane, segment.segment, segment.blocks);
        let header = GroupHeader::decode(self.blocks(index, block, 1)).ok()?;
        let in_place = header.lane == lane
            && header.segment == number
            && header.block == block
            && header.blocks <= blocks - block
            && header.flags.open == (block == SEGMENT_HEADER_BLOCKS);
        in_place.then_some(header)
    }

    /// Finds the first groups of epochs: whole ones only.
    fn epoch_starts(&mut self) -> Vec<EpochStart> {
        let mut starts: Vec<EpochStart> = Vec::new();
        for index in 0..self.segments.len() {
            let Some(header) = self.header_at(index, SEGMENT_HEADER_BLOCKS) else {
                continue;
            };
            if !header.flags.epoch || header.epoch != self.segments[index].epoch {
                continue;
            }
            let cipher = self.segments[index].cipher.clone();
            let bytes = self.blocks(index, header.block, header.blocks);
            let cut = cut_of(&header, cipher.as_ref(), bytes);
            self.window.index = usize::MAX; // The window may hold decrypted bytes now.
            if let Some((last_group, last_lsn)) = cut {
                starts.push(EpochStart {
                    index,
                    header,
                    last_group,
                    last_lsn,
                });
            }
        }
        starts
    }

    fn jump(&mut self, start: &EpochStart) {
        self.tip.index = start.index;
        self.tip.block = SEGMENT_HEADER_BLOCKS;
        self.tip.epoch = start.header.epoch;
        self.next_lsn = start.header.first_lsn;
    }

    /// Takes the group at the tip if it is the expected one; otherwise says what is there.
    fn take_expected(&mut self, visitor: &mut dyn Visitor) -> Content {
        let Tip {
            index, block, epoch, ..
        } = self.tip;
        // Behind the last listed segment, or in one of another epoch, nothing was ever written for this epoch.
        if self
            .segments
            .get(index)
            .is_none_or(|segment| segment.epoch != epoch || block >= segment.blocks)
        {
            return Content::AllZero;
        }
        let number = self.tip.group.next();
        let expected = |header: &GroupHeader| header.epoch == epoch && header.group == number;
        let Some(header) = self.header_at(index, block).filter(expected) else {
            return self.content_of(index, block, 1);
        };
        if header.previous_tag != self.tip.tag || header.first_lsn != self.next_lsn {
            return self.content_of(index, block, header.blocks);
        }
        let cipher = self.segments[index].cipher.clone();
        let bytes = self.blocks(index, block, header.blocks);
        let opened = match &cipher {
            Some(cipher) => open_group(&header, cipher, bytes).map(|opened| {
                for (lsn, record) in opened.records {
                    visitor.record(epoch, lsn, &record);
                }
                opened.tag
            }),
            None => verify_checksum(&header, bytes),
        };
        match opened {
            Ok(tag) => {
                visitor.group(RecoveredGroup {
                    header: &header,
                    tag: &tag,
                });
                self.advance(&header, tag);
                Content::Expected
            }
            // It authenticated, so every sector was written; the bytes in the window are decrypted by now.
            Err(GroupError::Record(_)) => Content::NoSectorZero,
            Err(_) => self.content_of(index, block, header.blocks),
        }
    }

    fn advance(&mut self, header: &GroupHeader, tag: GroupTag) {
        let tip = &mut self.tip;
        (tip.group, tip.tag) = (header.group, tag);
        if header.record_count > 0 {
            tip.lsn = header.last_lsn();
        }
        self.next_lsn = header.last_lsn().next();
        (tip.index, tip.block) = if header.flags.seal {
            (tip.index + 1, SEGMENT_HEADER_BLOCKS)
        } else {
            (tip.index, header.block + header.blocks)
        };
        self.groups += 1;
        self.records += u64::from(header.record_count);
    }

    /// What stands in a stretch that is not the expected group.
    fn content_of(&mut self, index: usize, block: u32, count: u32) -> Content {
        let bytes = self.blocks(index, block, count);
        let (zero_first, zero_sector) = (is_zero(&bytes[..BLOCK_BYTES]), has_zero_sector(bytes));
        let unreadable = self
            .window
            .unreadable
            .iter()
            .any(|number| (block..block + count).contains(number));
        match (unreadable, zero_first, zero_sector) {
            (true, _, _) => Content::Unreadable,
            (false, true, _) => Content::AllZero,
            (false, false, true) => Content::SomeSectorZero,
            (false, false, false) => Content::NoSectorZero,
        }
    }

    /// Looks at everything behind the tip and decides.
    fn conclude(mut self, content: Content, evidence: Evidence) -> Recovery {
        let clean = content == Content::AllZero && evidence.clean_end == Some(self.tip.group);
        let beyond = if clean {
            self.nothing_beyond()
        } else {
            self.look_beyond()
        };
        let group = self.tip.group.next();
        let witness = beyond.witness.max(evidence.durable_group);
        let witnessed = group <= witness || self.tip.lsn < evidence.durable_lsn;
        let verdict = decide(Observation {
            content,
            witnessed,
            beyond: beyond.anything,
        });
        let damage = matches!(verdict, Verdict::Suspect | Verdict::Corrupt).then(|| Damage {
            verdict,
            content,
            group,
            segment: self
                .segments
                .get(self.tip.index)
                .map_or(SegmentNumber::NONE, |segment| segment.segment),
            block: self.tip.block,
            first_lsn: self.next_lsn,
            last_lsn: beyond.next_group.map(|(_, first_lsn)| first_lsn.previous()),
            witness,
        });
        Recovery {
            tip: self.tip,
            verdict,
            damage,
            epoch_max: self.epoch_max.max(beyond.epoch_max),
            groups: self.groups,
            records: self.records,
            blank: beyond.blank,
        }
    }

    /// What [`Walk::look_beyond`] would find when nothing was ever submitted behind the tip.
    fn nothing_beyond(&self) -> Beyond {
        let blank = self
            .segments
            .iter()
            .skip(self.tip.index + 1)
            .map(|segment| segment.segment)
            .collect();
        Beyond {
            blank,
            ..Beyond::default()
        }
    }

    fn look_beyond(&mut self) -> Beyond {
        let mut beyond = Beyond::default();
        let Tip {
            index: tip_index,
            block: tip_block,
            epoch,
            group,
            ..
        } = self.tip;
        for index in tip_index..self.segments.len() {
            let first = if index == tip_index {
                tip_block
            } else {
                SEGMENT_HEADER_BLOCKS
            };
            let mut blank = first == SEGMENT_HEADER_BLOCKS;
            for block in first..self.segments[index].blocks {
                let zero = is_zero(self.blocks(index, block, 1));
                blank &= zero;
                beyond.anything |= !zero && (index, block) != (tip_index, tip_block);
                if zero {
                    continue;
                }
                let Some(header) = self.header_at(index, block) else {
                    continue;
                };
                beyond.epoch_max = beyond.epoch_max.max(header.epoch);
                if header.epoch < epoch {
                    continue;
                }
                beyond.witness = beyond.witness.max(header.durable_group);
                let behind_the_hole = header.group > group.next() || header.epoch > epoch;
                if behind_the_hole && beyond.next_group.is_none_or(|(lowest, _)| header.group < lowest) {
                    beyond.next_group = Some((header.group, header.first_lsn));
                }
            }
            if blank {
                beyond.blank.push(self.segments[index].segment);
            }
        }
        beyond
    }
}

/// Where the first group of an epoch says that the epoch before ended: its last group, and its last record if known.
/// `None` when the group is not whole.
fn cut_of(
    header: &GroupHeader,
    cipher: Option<&SegmentCipher>,
    bytes: &mut [u8],
) -> Option<(GroupNumber, Option<Lsn>)> {
    let Some(cipher) = cipher else {
        verify_checksum(header, bytes).ok()?;
        return Some((header.group.previous(), None));
    };
    let (_, record) = open_group(header, cipher, bytes).ok()?.records.next()?;
    if record.kind != RecordKind::Cut {
        return None;
    }
    let cut = Cut::decode(record.payload).ok()?;
    let last_lsn = cut.lost.is_none().then_some(cut.last_lsn);
    Some((cut.last_group, last_lsn))
}

/// What was found behind the first bad place.
#[derive(Default)]
struct Beyond {
    anything: bool,
    witness: GroupNumber,
    epoch_max: Epoch,
    /// The lowest group with a good header behind the hole, and its first record.
    next_group: Option<(GroupNumber, Lsn)>,
    blank: Vec<SegmentNumber>,
}

const _: () = assert!(
    GROUP_BLOCKS_MAX < u32::MAX / 2,
    "block arithmetic cannot overflow"
);

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
