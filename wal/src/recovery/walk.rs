//! The walk that [`recover`] makes: from group to group, over the cuts and losses of earlier
//! recoveries, to the end.

use std::collections::BTreeMap;

use super::{
    Content, Damage, Evidence, Observation, OnDamage, RecoveredGroup, Recovery, RecoverySegment,
    SegmentSource, Tip, Verdict, Visitor, decide,
};
use crate::buffer::{AlignedBuffer, BLOCK_BYTES, has_zero_sector, is_zero};
use crate::cipher::{GroupTag, SegmentCipher};
use crate::cut::{Cut, LOST_MAX, Lost};
use crate::group::{GROUP_BLOCKS_MAX, GroupError, GroupHeader, open_group, verify_checksum};
use crate::ids::{Epoch, GroupNumber, LaneId, Lsn, SegmentNumber};
use crate::manifest::Base;
use crate::record::RecordKind;
use crate::segment::SEGMENT_HEADER_BLOCKS;

/// Walks a lane from `base` through its listed segments (ascending) and finds its end.
///
/// Reads at most one group (17 MiB) into memory at a time. Deterministic and free of side effects:
/// a crash during or after recovery, before the next epoch's first group is durable, changes
/// nothing.
pub fn recover(
    lane: LaneId,
    base: &Base,
    segments: &[RecoverySegment],
    evidence: Evidence,
    on_damage: OnDamage,
    source: &mut dyn SegmentSource,
    visitor: &mut dyn Visitor,
) -> Recovery {
    let mut walk = Walk::new(lane, base, segments, source);
    let mut starts = walk.epoch_starts();
    // What earlier recoveries gave up: never looked at again, whatever stands there now.
    let given_up = |start: &mut EpochStart| core::mem::take(&mut start.lost);
    let mut given_up: Vec<Lost> = starts.iter_mut().flat_map(given_up).collect();
    let mut first_damage: Option<Damage> = None;
    let mut lost = Vec::new();
    loop {
        let content = walk.run(&starts, &mut given_up, visitor);
        let end = walk.conclude(content, evidence);
        let witness = end.damage.as_ref().map(|damage| damage.witness);
        first_damage = first_damage.or_else(|| end.damage.clone());
        let mut ended = true;
        if let (Some(witness), OnDamage::GiveUp) = (witness, on_damage) {
            let everything = lost.len() + 1 == LOST_MAX;
            let (stretch, at_end) = walk.give_up(witness, evidence, everything);
            lost.push(stretch);
            ended = at_end;
        }
        if ended {
            return Recovery {
                tip: walk.tip,
                verdict: first_damage.as_ref().map_or(end.verdict, |damage| damage.verdict),
                damage: first_damage,
                lost,
                ..end
            };
        }
    }
}

/// The first group of an epoch, found at the start of a segment.
struct EpochStart {
    index: usize,
    header: GroupHeader,
    last_group: GroupNumber,
    /// Not known without the key.
    last_lsn: Option<Lsn>,
    lost: Vec<Lost>,
}

impl EpochStart {
    /// Whether the walk has passed it.
    fn is_behind(&self, tip: &Tip) -> bool {
        self.index < tip.index || self.header.epoch <= tip.epoch
    }

    /// Whether the log goes on here: an earlier recovery ended the log exactly where the walk
    /// stands now.
    fn continues(&self, tip: &Tip) -> bool {
        self.last_group == tip.group
            && self.last_lsn.is_none_or(|last| last == tip.lsn)
            && self.header.previous_tag == tip.tag
    }
}

/// Statement of an epoch's first group about the epoch before; `None` when the group is not whole.
/// Without the key its group numbers must do.
fn epoch_start(
    index: usize,
    header: &GroupHeader,
    cipher: Option<&SegmentCipher>,
    bytes: &mut [u8],
) -> Option<EpochStart> {
    let Some(cipher) = cipher else {
        verify_checksum(header, bytes).ok()?;
        return Some(EpochStart {
            index,
            header: *header,
            last_group: header.group.previous(),
            last_lsn: None,
            lost: Vec::new(),
        });
    };
    let (_, record) = open_group(header, cipher, bytes).ok()?.records.next()?;
    if record.kind != RecordKind::Cut {
        return None;
    }
    let mut cut = Cut::decode(record.payload).ok()?;
    let own = cut.lost.iter_mut().filter(|lost| lost.next_epoch == Epoch::NONE);
    own.for_each(|lost| lost.next_epoch = header.epoch);
    Some(EpochStart {
        index,
        header: *header,
        last_group: cut.last_group,
        last_lsn: Some(cut.last_lsn),
        lost: cut.lost,
    })
}

/// Blocks read ahead at a time.
const WINDOW_BLOCKS: u32 = 256;

struct Walk<'a> {
    lane: LaneId,
    segments: &'a [RecoverySegment],
    source: &'a mut dyn SegmentSource,
    window: Window,
    tip: Tip,
    /// The first of the epoch starts that the walk has not passed.
    next_start: usize,
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
        segments: &'a [RecoverySegment],
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
        let longest = segments.iter().map(|segment| segment.blocks).max().unwrap_or(1);
        let buffer = AlignedBuffer::zeroed(WINDOW_BLOCKS.min(longest) as usize * BLOCK_BYTES);
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
            next_start: 0,
            epoch_max,
            groups: 0,
            records: 0,
        }
    }

    /// Makes `count` blocks from `block` of segment `index` available and returns them. Unreadable
    /// blocks are filled with a pattern that is neither zero nor a group.
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
            let start = epoch_start(index, &header, cipher.as_ref(), bytes);
            self.window.index = usize::MAX; // The window may hold decrypted bytes now.
            starts.extend(start);
        }
        starts
    }

    /// Walks as far as it goes and says what stands where it does not.
    fn run(&mut self, starts: &[EpochStart], given_up: &mut Vec<Lost>, visitor: &mut dyn Visitor) -> Content {
        loop {
            let begins_here = |lost: &Lost| {
                (lost.first_group, lost.first_lsn) == (self.tip.group.next(), self.tip.lsn.next())
            };
            if let Some(at) = given_up.iter().position(begins_here) {
                let lost = given_up.swap_remove(at);
                self.skip(&lost);
                continue;
            }
            let passed = |start: &EpochStart| start.is_behind(&self.tip);
            while starts.get(self.next_start).is_some_and(passed) {
                self.next_start += 1;
            }
            let start = starts.get(self.next_start);
            if let Some(start) = start.filter(|start| start.continues(&self.tip)) {
                self.resume_at(start.index, &start.header);
            }
            let content = self.take_expected(visitor);
            if content != Content::Expected {
                return content;
            }
        }
    }

    /// Goes on at this group, whatever was expected.
    fn resume_at(&mut self, index: usize, header: &GroupHeader) {
        self.tip = Tip {
            epoch: header.epoch,
            group: header.group.previous(),
            lsn: header.first_lsn.previous(),
            tag: header.previous_tag,
            index,
            block: header.block,
        };
    }

    /// Goes on after a stretch that an earlier recovery gave up.
    fn skip(&mut self, lost: &Lost) {
        (self.tip.group, self.tip.lsn) = (lost.last_group, lost.last_lsn);
        let place = (lost.next_epoch, lost.last_group.next(), lost.last_lsn.next());
        let behind = self.headers_behind();
        let next = behind
            .iter()
            .find(|(_, header)| (header.epoch, header.group, header.first_lsn) == place);
        // When it is not there, it is damage of its own, found where the walk stands.
        if let Some((index, header)) = next {
            self.resume_at(*index, header);
        }
    }

    /// Gives up what stands at the tip: up to the next whole group, or to the end when there is
    /// none (or `all` is to go). Says whether it was the end.
    fn give_up(&mut self, witness: GroupNumber, evidence: Evidence, all: bool) -> (Lost, bool) {
        let (first_group, first_lsn) = (self.tip.group.next(), self.tip.lsn.next());
        let mut behind = self.headers_behind();
        let mut lowest: BTreeMap<Epoch, GroupNumber> = BTreeMap::new();
        for (_, header) in &behind {
            let lowest = lowest.entry(header.epoch).or_insert(header.group);
            *lowest = header.group.min(*lowest);
        }
        // A later epoch that has this number, or a lower one, cut the group off.
        behind.retain(|(_, header)| {
            let later = lowest.range(header.epoch.next()..);
            header.group >= first_group
                && header.first_lsn >= first_lsn
                && later.into_iter().all(|(_, lowest)| *lowest > header.group)
        });
        let next = behind
            .iter()
            .find(|(index, header)| !all && self.is_whole(*index, header));
        if let Some((index, header)) = next {
            self.resume_at(*index, header);
            let lost = Lost {
                first_group,
                last_group: self.tip.group,
                first_lsn,
                last_lsn: self.tip.lsn,
                exact: true,
                next_epoch: header.epoch,
            };
            return (lost, false);
        }
        // What was neither witnessed nor completed cannot have been acknowledged: it is torn, not
        // lost.
        behind.retain(|(index, header)| {
            header.group <= witness
                || self.content_of(*index, header.block, header.blocks) != Content::SomeSectorZero
        });
        let (mut last_group, mut last_lsn) =
            (first_group.max(witness), evidence.durable_lsn.max(self.tip.lsn));
        for (_, header) in &behind {
            last_group = last_group.max(header.group);
            last_lsn = last_lsn.max(header.last_lsn());
        }
        (self.tip.group, self.tip.lsn) = (last_group, last_lsn);
        let lost = Lost {
            first_group,
            last_group,
            first_lsn,
            last_lsn,
            exact: behind.iter().any(|(_, header)| header.group == last_group),
            next_epoch: Epoch::NONE,
        };
        (lost, true)
    }

    /// Every group header after the tip that is good, in its place and not of an older epoch, in
    /// log order.
    fn headers_behind(&mut self) -> Vec<(usize, GroupHeader)> {
        let Tip {
            index: tip_index,
            block: tip_block,
            epoch,
            ..
        } = self.tip;
        let mut headers = Vec::new();
        for index in tip_index..self.segments.len() {
            let at_tip = index == tip_index;
            let first = if at_tip { tip_block } else { SEGMENT_HEADER_BLOCKS };
            for block in first..self.segments[index].blocks {
                let header = self.header_at(index, block);
                headers.extend(
                    header
                        .filter(|header| header.epoch >= epoch)
                        .map(|header| (index, header)),
                );
            }
        }
        headers
    }

    /// Whether the group with this good header is good to its last byte.
    fn is_whole(&mut self, index: usize, header: &GroupHeader) -> bool {
        let cipher = self.segments[index].cipher.clone();
        let bytes = self.blocks(index, header.block, header.blocks);
        let whole = match &cipher {
            Some(cipher) => open_group(header, cipher, bytes).is_ok(),
            None => verify_checksum(header, bytes).is_ok(),
        };
        self.window.index = usize::MAX; // The window may hold decrypted bytes now.
        whole
    }

    /// Takes the group at the tip if it is the expected one; otherwise says what is there.
    fn take_expected(&mut self, visitor: &mut dyn Visitor) -> Content {
        let Tip {
            index, block, epoch, ..
        } = self.tip;
        // Behind the last listed segment, or in one of another epoch, nothing was ever written for
        // this epoch.
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
        if header.previous_tag != self.tip.tag || header.first_lsn != self.tip.lsn.next() {
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
            // It authenticated, so every sector was written; the bytes in the window are decrypted
            // by now.
            Err(GroupError::Record(_)) => Content::NoSectorZero,
            Err(_) => self.content_of(index, block, header.blocks),
        }
    }

    fn advance(&mut self, header: &GroupHeader, tag: GroupTag) {
        let tip = &mut self.tip;
        (tip.group, tip.lsn, tip.tag) = (header.group, header.last_lsn(), tag);
        (tip.index, tip.block) = if header.flags.seal {
            (tip.index + 1, SEGMENT_HEADER_BLOCKS)
        } else {
            (tip.index, header.block + header.blocks)
        };
        self.groups += 1;
        self.records += u64::from(header.record_count);
    }

    /// Content of a stretch that is not the expected group.
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

    /// Looks at everything after the tip and decides.
    fn conclude(&mut self, content: Content, evidence: Evidence) -> Recovery {
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
            first_lsn: self.tip.lsn.next(),
            last_lsn: beyond.next_group.map(|(_, first_lsn)| first_lsn.previous()),
            witness,
        });
        Recovery {
            tip: self.tip,
            verdict,
            damage,
            lost: Vec::new(),
            epoch_max: self.epoch_max.max(beyond.epoch_max),
            groups: self.groups,
            records: self.records,
            blank: beyond.blank,
        }
    }

    /// Answer of [`Walk::look_beyond`] when nothing was ever submitted after the tip.
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

/// Findings after the first bad place.
#[derive(Default)]
struct Beyond {
    anything: bool,
    witness: GroupNumber,
    epoch_max: Epoch,
    /// The lowest group with a good header after the hole, and its first record.
    next_group: Option<(GroupNumber, Lsn)>,
    blank: Vec<SegmentNumber>,
}

const _: () = assert!(
    GROUP_BLOCKS_MAX < u32::MAX / 2,
    "block arithmetic cannot overflow"
);
