//! Every group that is still whole, wherever it stands: also after damage, where recovery does not
//! go, and in files that the manifest does not list. And, from what was found, what was not.

use std::ops::RangeInclusive;

use super::{LaneImage, SegmentFile, SegmentImage};
use crate::buffer::{AlignedBuffer, BLOCK_BYTES, is_zero};
use crate::cut::{Cut, Lost};
use crate::group::{GroupHeader, open_group, verify_checksum};
use crate::ids::{Epoch, GroupNumber, Lsn};
use crate::record::{Record, RecordKind};
use crate::recovery::Recovery;
use crate::segment::SEGMENT_HEADER_BLOCKS;

/// How a whole group stands to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// Before the first listed segment: every record was applied, and the file waits to be reused.
    Recycled,
    /// In the good part: a start replays it.
    Good,
    /// Whole, but after the end or after damage: a start does not reach it.
    Behind,
    /// A later epoch began before it: it was cut by a recovery (and never acknowledged) or given up
    /// by an operator.
    Cut,
}

/// A whole group.
#[derive(Clone, Copy, Debug)]
pub struct FoundGroup<'a> {
    /// The image in which it stands.
    pub image: &'a SegmentImage,
    /// The group's header.
    pub header: &'a GroupHeader,
    /// How it stands to the log.
    pub state: GroupState,
    /// Whether its records can be read; without the key they cannot.
    pub decrypted: bool,
}

/// Receives what a scan finds, by segment and block.
pub trait Finder {
    /// A whole group, before its records.
    fn group(&mut self, group: FoundGroup<'_>);

    /// A record of the group before.
    fn record(&mut self, _group: FoundGroup<'_>, _lsn: Lsn, _record: &Record<'_>) {}
}

/// A stretch of groups that were durable, as far as is known, and are not readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The groups.
    pub groups: RangeInclusive<u64>,
    /// The first record of them.
    pub first_lsn: Lsn,
    /// The last record of them; `None` when nothing that is left tells. Below `first_lsn` when they
    /// held no records.
    pub last_lsn: Option<Lsn>,
}

impl Loss {
    /// Whether records may be among what is lost.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.last_lsn.is_none_or(|last| last >= self.first_lsn)
    }
}

/// Findings of a scan beyond the single groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Stretches that are lost, ascending.
    pub losses: Vec<Loss>,
    /// Stretches that an operator gave up at an earlier start, by epoch and in log order. Not known
    /// without the key.
    pub given_up: Vec<Lost>,
    /// The highest group that is known to have been durable.
    pub witness: GroupNumber,
    /// The first and last record of the good part and what stands after it, when there is one.
    pub lsns: Option<(Lsn, Lsn)>,
}

/// Scans all files of a lane. `recovery` is the result of [`LaneImage::walk`].
pub fn scan(image: &LaneImage, recovery: Option<&Recovery>, finder: &mut dyn Finder) -> Scan {
    let mut scanner = Scanner {
        image,
        good: recovery.map(|recovery| recovery.tip.group),
        starts: epoch_starts(image),
        runs: Vec::new(),
        witness: GroupNumber::NONE,
    };
    let mut group = AlignedBuffer::zeroed(BLOCK_BYTES);
    for segment in &image.segments {
        if let Some(file) = &segment.file {
            scanner.segment(segment, file, &mut group, finder);
        }
    }
    scanner.conclude(recovery)
}

/// Where epochs begin, and what their cuts say.
fn epoch_starts(image: &LaneImage) -> Vec<(Epoch, Cut)> {
    let mut starts = Vec::new();
    let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
    for segment in &image.segments {
        let Some(file) = &segment.file else { continue };
        let Some(header) = header_at(image, segment, file, SEGMENT_HEADER_BLOCKS, &mut buffer) else {
            continue;
        };
        if !header.flags.epoch || !read_group(file, &header, &mut buffer) {
            continue;
        }
        let cut = match file.known_cipher() {
            None => Some(Cut {
                last_group: header.group.previous(),
                last_lsn: header.first_lsn.previous(),
                lost: Vec::new(),
            }),
            Some(cipher) => open_group(&header, cipher, buffer.as_mut_slice())
                .ok()
                .and_then(|mut opened| opened.records.next())
                .filter(|(_, record)| record.kind == RecordKind::Cut)
                .and_then(|(_, record)| Cut::decode(record.payload).ok()),
        };
        starts.extend(cut.map(|cut| (header.epoch, cut)));
    }
    starts
}

/// Reads a block and decodes the header of a group that belongs there.
fn header_at(
    image: &LaneImage,
    segment: &SegmentImage,
    file: &SegmentFile,
    block: u32,
    buffer: &mut AlignedBuffer,
) -> Option<GroupHeader> {
    file.read_blocks(block, &mut buffer.as_mut_slice()[..BLOCK_BYTES])
        .ok()?;
    in_place(image, segment, file, block, buffer.as_slice())
}

fn in_place(
    image: &LaneImage,
    segment: &SegmentImage,
    file: &SegmentFile,
    block: u32,
    bytes: &[u8],
) -> Option<GroupHeader> {
    let blocks = file.good_header()?.blocks;
    let header = GroupHeader::decode(bytes).ok()?;
    let fits = header.lane == image.lane
        && header.segment == segment.segment
        && header.block == block
        && header.blocks <= blocks.saturating_sub(block);
    fits.then_some(header)
}

/// Reads a whole group and checks its checksum.
fn read_group(file: &SegmentFile, header: &GroupHeader, buffer: &mut AlignedBuffer) -> bool {
    if buffer.len() < header.bytes() {
        *buffer = AlignedBuffer::zeroed(header.bytes());
    }
    let bytes = &mut buffer.as_mut_slice()[..header.bytes()];
    file.read_blocks(header.block, bytes).is_ok() && verify_checksum(header, bytes).is_ok()
}

/// Consecutive whole groups of the log's main line.
#[derive(Clone, Copy)]
struct Run {
    first: GroupNumber,
    last: GroupNumber,
    first_lsn: Lsn,
    /// The LSN after the last record.
    next_lsn: Lsn,
}

struct Scanner<'a> {
    image: &'a LaneImage,
    /// The last group of the good part; `None` when there is no good part to speak of.
    good: Option<GroupNumber>,
    starts: Vec<(Epoch, Cut)>,
    runs: Vec<Run>,
    witness: GroupNumber,
}

/// Blocks looked at with one read.
const WINDOW_BLOCKS: u32 = 256;

impl Scanner<'_> {
    fn segment(
        &mut self,
        segment: &SegmentImage,
        file: &SegmentFile,
        group: &mut AlignedBuffer,
        finder: &mut dyn Finder,
    ) {
        let Some(header) = file.good_header() else { return };
        let mut window = AlignedBuffer::zeroed(WINDOW_BLOCKS as usize * BLOCK_BYTES);
        // Blocks of a group that was found whole are not looked at for more.
        let mut next = SEGMENT_HEADER_BLOCKS;
        let mut first = SEGMENT_HEADER_BLOCKS;
        while first < header.blocks {
            let count = WINDOW_BLOCKS.min(header.blocks - first);
            let bytes = &mut window.as_mut_slice()[..count as usize * BLOCK_BYTES];
            if file.read_blocks(first, bytes).is_err() {
                for (block, bytes) in (first..).zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
                    if file.read_blocks(block, bytes).is_err() {
                        bytes.fill(0);
                    }
                }
            }
            for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
                if block < next || is_zero(bytes) {
                    continue;
                }
                let Some(header) = in_place(self.image, segment, file, block, bytes) else {
                    continue;
                };
                if read_group(file, &header, group)
                    && self.take(segment, file, &header, group.as_mut_slice(), finder)
                {
                    next = block + header.blocks;
                }
            }
            first += count;
        }
    }

    /// Hands on a group whose checksum is right; says whether it is whole.
    fn take(
        &mut self,
        segment: &SegmentImage,
        file: &SegmentFile,
        header: &GroupHeader,
        bytes: &mut [u8],
        finder: &mut dyn Finder,
    ) -> bool {
        let state = self.state(header);
        let mut found = FoundGroup {
            image: segment,
            header,
            state,
            decrypted: false,
        };
        if let Some(cipher) = file.known_cipher() {
            // With the key in hand, a group that does not authenticate is not whole.
            let Ok(opened) = open_group(header, cipher, bytes) else {
                return false;
            };
            found.decrypted = true;
            finder.group(found);
            for (lsn, record) in opened.records {
                finder.record(found, lsn, &record);
            }
        } else {
            finder.group(found);
        }
        self.note(header, state);
        true
    }

    fn state(&self, header: &GroupHeader) -> GroupState {
        let cut = self
            .starts
            .iter()
            .any(|(epoch, cut)| *epoch > header.epoch && cut.last_group < header.group);
        let base = self.image.manifest.as_ref().map(|manifest| manifest.base.group);
        if cut {
            GroupState::Cut
        } else if base.is_ok_and(|base| header.group <= base) {
            GroupState::Recycled
        } else if self.good.is_some_and(|good| header.group <= good) {
            GroupState::Good
        } else {
            GroupState::Behind
        }
    }

    fn note(&mut self, header: &GroupHeader, state: GroupState) {
        if !matches!(state, GroupState::Good | GroupState::Behind) {
            return;
        }
        self.witness = self.witness.max(header.durable_group);
        let next_lsn = header.last_lsn().next();
        match self.runs.last_mut() {
            Some(run) if run.last.next() == header.group => {
                run.last = header.group;
                run.next_lsn = next_lsn;
            }
            _ => self.runs.push(Run {
                first: header.group,
                last: header.group,
                first_lsn: header.first_lsn,
                next_lsn,
            }),
        }
    }

    fn conclude(mut self, recovery: Option<&Recovery>) -> Scan {
        self.runs.sort_by_key(|run| run.first);
        let manifest = self.image.manifest.as_ref().ok();
        // Without a manifest nothing says what was recycled before the first group that is left.
        let from_base = manifest.map(|manifest| (manifest.base.group, manifest.base.lsn.next()));
        let from_first = self.runs.first().map(|run| (run.first.previous(), run.first_lsn));
        let (mut last, mut next_lsn) = from_base.or(from_first).unwrap_or((GroupNumber::NONE, Lsn(1)));
        let durable = manifest.map_or((GroupNumber::NONE, Lsn::NONE), |manifest| {
            (manifest.durable_group, manifest.durable_lsn)
        });
        // Above the witness a missing group was in flight when the lane stopped: never durable, so
        // not lost.
        let witness = self.witness.max(durable.0);
        let mut losses = Vec::new();
        for run in &self.runs {
            let end = run.first.previous().min(witness);
            if end > last {
                losses.push(Loss {
                    groups: last.next().0..=end.0,
                    first_lsn: next_lsn,
                    last_lsn: Some(run.first_lsn.previous()),
                });
            }
            (last, next_lsn) = (run.last, run.next_lsn);
        }
        if witness > last {
            // The manifest knows the last record exactly when it names the last group.
            let last_lsn = (durable.0 == witness).then_some(durable.1);
            losses.push(Loss {
                groups: last.next().0..=witness.0,
                first_lsn: next_lsn,
                last_lsn,
            });
        }
        let damage = recovery.and_then(|recovery| recovery.damage.as_ref());
        let covered = |number: u64| losses.iter().any(|loss| loss.groups.contains(&number));
        if let Some(damage) = damage.filter(|damage| !covered(damage.group.0)) {
            losses.push(Loss {
                groups: damage.group.0..=damage.group.0,
                first_lsn: damage.first_lsn,
                last_lsn: damage.last_lsn,
            });
            losses.sort_by_key(|loss| *loss.groups.start());
        }
        // What an operator gave up is not lost again.
        let given_up: Vec<Lost> = self.starts.iter().flat_map(|(_, cut)| cut.lost.clone()).collect();
        losses.retain(|loss| {
            !given_up.iter().any(|lost| {
                lost.first_group.0 <= *loss.groups.start() && *loss.groups.end() <= lost.last_group.0
            })
        });
        let lsns = self
            .runs
            .first()
            .zip(self.runs.last())
            .map(|(first, last)| (first.first_lsn, last.next_lsn.previous()))
            .filter(|(first, last)| first <= last);
        Scan {
            losses,
            given_up,
            witness,
            lsns,
        }
    }
}
