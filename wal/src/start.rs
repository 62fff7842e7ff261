//! Starting a lane: from a directory to a lane that takes appends, or to the reason why it must
//! not.
//!
//! ```text
//! manifest → lock and sync every listed file → headers, keys → recover → new epoch: a fresh segment, listed →
//! its first group (the cut), durable → appends
//! ```
//!
//! Files are locked before they are read (a dying process may still have writes in flight) and
//! synced before they are believed (what a killed process wrote may be readable and not durable).
//! Nothing of an old epoch is ever written to again. A crash at any step leaves a directory from
//! which the same start finds the same log.

use core::fmt;

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::cipher::{KeyEncryptionKey, KeyError, SegmentCipher};
use crate::cut::Cut;
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::group::GroupHeader;
use crate::group_commit::{ClosedSegment, Config, GroupCommit, Resume, WriteResult};
use crate::ids::{Epoch, LaneId, Lsn, SegmentNumber, TargetId};
use crate::manifest::{Base, ListedSegment, MANIFEST_BYTES, Manifest, ManifestError, manifest_file_name};
use crate::pool::{Durable, Pool, PoolParts, PreparedSegment, Released, reserve_file_name};
use crate::record::{Record, RecordKind};
use crate::recovery::{
    Evidence, OnDamage, RecoveredGroup, Recovery, RecoverySegment, SegmentSource, Unreadable, Verdict,
    Visitor, recover,
};
use crate::segment::{
    SEGMENT_HEADER_BLOCKS, SegmentHeader, SegmentHeaderError, SegmentSeed, parse_segment_file_name,
    segment_file_name,
};

/// How to start a lane.
#[derive(Clone, Debug)]
pub struct StartConfig {
    /// Which lane.
    pub lane: LaneId,
    /// Limits of the group commit.
    pub group: Config,
    /// Most segments the lane may have; its share of the disk is this times the segment length.
    pub segments_max: usize,
    /// Wraps the data keys; without it they lie in the clear.
    pub key: Option<KeyEncryptionKey>,
    /// The lane is known to have existed: an empty directory is a wiped one, and the start is
    /// refused.
    pub expect_existing: bool,
    /// The highest LSN of a strong record that any store of this lane is known to have. It must be
    /// in the log.
    pub applied_lsn: Lsn,
    /// Whether an operator gives up damaged parts: a lane that would be refused as
    /// [`Refusal::Damaged`] starts all the same. Every whole group is kept, also those after the
    /// damage, under their old numbers. The lost part is in [`Recovery::lost`] and in the cut of
    /// the new epoch, so no later start reads it or reports it again. Its end is exact unless
    /// [`Lost::exact`](crate::cut::Lost::exact) is false: at the end of the log no header may be
    /// left that shows it. Nothing is changed on the disk before the cut is durable. Without damage
    /// this does nothing. Files that are missing, or have bad headers, are refused all the same.
    pub accept_loss: bool,
}

/// A lane that has begun its new epoch.
#[derive(Debug)]
pub struct Started<D: Disk> {
    /// Prepares and recycles from here on.
    pub pool: Pool<D>,
    /// Takes appends; the first group of the epoch is durable.
    pub commit: GroupCommit,
    /// The segment that is being written.
    pub active: PreparedSegment<D::File>,
    /// Findings of recovery.
    pub recovery: Recovery,
    /// Segments of earlier epochs that are still needed, oldest first.
    pub closed: Vec<ClosedSegment>,
}

/// Why a lane must not start. Each needs an operator; none passes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The lane existed and its manifest is gone: a wiped or wrong directory.
    ManifestMissing,
    /// Neither slot of the manifest is good, and there are segments.
    ManifestUnreadable(ManifestError),
    /// A listed segment has no file.
    SegmentMissing(SegmentNumber),
    /// A listed segment's file has another length than its header says.
    SegmentLength(SegmentNumber),
    /// Neither header of a listed segment is good.
    SegmentHeader(SegmentNumber, SegmentHeaderError),
    /// A listed segment's header cannot be read.
    SegmentUnreadable(SegmentNumber),
    /// A segment's file is another one than the one listed.
    SegmentReplaced(SegmentNumber),
    /// A segment's key cannot be had.
    Key(SegmentNumber, KeyError),
    /// A segment holds groups and no manifest lists it: the manifest is an old one.
    SegmentUnlisted(SegmentNumber),
    /// The log's content is damaged.
    Damaged(Box<Recovery>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManifestMissing => {
                formatter.write_str("the lane's manifest is gone: wiped or wrong directory")
            }
            Self::ManifestUnreadable(error) => {
                write!(formatter, "the lane's manifest is unreadable: {error:?}")
            }
            Self::SegmentMissing(number) => write!(formatter, "segment {number} is listed and has no file"),
            Self::SegmentLength(number) => write!(formatter, "segment {number} has the wrong length"),
            Self::SegmentHeader(number, error) => {
                write!(formatter, "segment {number} has no good header: {error:?}")
            }
            Self::SegmentUnreadable(number) => {
                write!(formatter, "segment {number}: its headers cannot be read")
            }
            Self::SegmentReplaced(number) => {
                write!(formatter, "segment {number} is another file than the one listed")
            }
            Self::Key(number, error) => write!(formatter, "segment {number}: {error}"),
            Self::SegmentUnlisted(number) => {
                write!(formatter, "segment {number} holds data and is not listed")
            }
            Self::Damaged(recovery) => match &recovery.damage {
                Some(damage) => damage.fmt(formatter),
                None => formatter.write_str("the log is damaged"),
            },
        }
    }
}

/// Why a lane did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The configuration contradicts itself.
    Config(&'static str),
    /// The disk failed; another start may work.
    Disk(DiskError),
    /// The lane is held for an operator.
    Refused(Refusal),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => write!(formatter, "the log's configuration is wrong: {text}"),
            Self::Disk(error) => error.fmt(formatter),
            Self::Refused(refusal) => write!(formatter, "the lane is held: {refusal}"),
        }
    }
}

impl core::error::Error for StartError {}

impl From<DiskError> for StartError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<Refusal> for StartError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Starts a lane. `seed` draws fresh randomness, `now_ms` is only noted in headers, `visitor` gets
/// every record found.
///
/// # Errors
/// [`StartError`]. Nothing that matters was changed then.
pub fn start<D: Disk>(
    config: &StartConfig,
    mut disk: D,
    seed: &SegmentSeed,
    now_ms: u64,
    visitor: &mut dyn Visitor,
) -> Result<Started<D>, StartError> {
    config.group.check().map_err(StartError::Config)?;
    let names = disk.list()?;
    let own = names.iter().filter_map(|name| parse_segment_file_name(name));
    let present: Vec<SegmentNumber> = own
        .filter(|(lane, _)| *lane == config.lane)
        .map(|(_, segment)| segment)
        .collect();
    let (manifest_file, manifest) = open_manifest(config, &mut disk, &names, !present.is_empty())?;
    let mut listed = Vec::new();
    for entry in &manifest.segments {
        listed.push(open_listed(config, &mut disk, entry)?);
    }
    let unlisted = unlisted_files(config, &mut disk, &manifest, &present)?;
    let reserve = find_reserve(config, &mut disk, &names)?;
    disk.sync_directory()?;

    let (recovery, mut ends) = recover_listed(config, &mut disk, &manifest, &listed, visitor);
    if !matches!(recovery.verdict, Verdict::CleanEnd | Verdict::Torn) && !config.accept_loss {
        return Err(Refusal::Damaged(Box::new(recovery)).into());
    }
    if recovery.damage.is_some() {
        keep_damaged(&manifest, &recovery, &mut ends);
    }
    let next_segment = present
        .iter()
        .chain(manifest.segments.iter().map(|entry| &entry.segment))
        .max();
    let next_segment = next_segment.copied().unwrap_or_default().next();
    let mut parts = PoolParts {
        disk,
        manifest_file,
        epoch: recovery.epoch_max.max(manifest.epoch).next(),
        manifest,
        segment_blocks: config.group.segment_blocks,
        segments_max: config.segments_max,
        next_segment,
        key: config.key.clone(),
        releasing: Vec::new(),
        free: unlisted,
        reserve,
    };
    // Files without a single good group: prepared and unused, or the remains of what was cut.
    let lane = config.lane;
    parts.manifest.segments.retain(|entry| {
        let used = ends.iter().any(|closed| closed.segment == entry.segment);
        if !used {
            let blank = recovery.blank.contains(&entry.segment);
            parts.releasing.push(Released {
                name: segment_file_name(lane, entry.segment),
                blank,
            });
        }
        used
    });
    // Unlocked, so that the pool can open and release what recovery dropped; the manifest stays
    // locked.
    drop(listed);
    begin_epoch(config, parts, recovery, ends, seed, now_ms)
}

/// Segments in which no group is good stay as well when something was given up: until the cut is
/// durable, the damage must be found again. They are recycled in their turn.
fn keep_damaged(manifest: &Manifest, recovery: &Recovery, ends: &mut Vec<ClosedSegment>) {
    let mut end = manifest.base;
    let kept = manifest.segments.iter().filter_map(|entry| {
        let good = ends.iter().find(|closed| closed.segment == entry.segment);
        end = good.map_or(end, |closed| closed.end);
        let segment = entry.segment;
        (!recovery.blank.contains(&segment)).then_some(ClosedSegment { segment, end })
    });
    *ends = kept.collect();
}

fn begin_epoch<D: Disk>(
    config: &StartConfig,
    parts: PoolParts<D>,
    recovery: Recovery,
    closed: Vec<ClosedSegment>,
    seed: &SegmentSeed,
    now_ms: u64,
) -> Result<Started<D>, StartError> {
    let tip = &recovery.tip;
    let (epoch, mut pool) = (parts.epoch, Pool::new(parts));
    // What was given up is no evidence: until the cut is durable, a start must find the same damage
    // again.
    let mut durable = Durable::default();
    if recovery.lost.is_empty() {
        (durable.group, durable.lsn) = (tip.group, tip.lsn);
    }
    let active = pool.prepare_first(seed, now_ms, durable)?;
    let resume = Resume {
        group: tip.group,
        lsn: tip.lsn,
        tag: tip.tag,
    };
    let mut commit =
        GroupCommit::new(config.group.clone(), config.lane, epoch, resume).map_err(StartError::Config)?;
    commit.handle_segment(active.ready.clone());
    let cut = Cut {
        last_group: tip.group,
        last_lsn: tip.lsn,
        lost: recovery.lost.clone(),
    }
    .encode();
    let record = Record {
        kind: RecordKind::Cut,
        target: TargetId::NONE,
        payload: &cut,
    };
    commit
        .append(0, &record)
        .expect("an empty lane with a fresh segment takes its first record");
    let write = commit.poll_action(0).expect("a cut is written at once");
    let disk = pool.disk();
    disk.write(&active.file, write.offset(), write.bytes())?;
    disk.sync(&active.file)?;
    let bytes = write.bytes().len();
    commit.handle_completion(0, write.group, WriteResult::Durable(bytes), write.buffer);
    assert_eq!(commit.durable_group(), tip.group.next(), "the epoch has begun");
    Ok(Started {
        pool,
        commit,
        active,
        recovery,
        closed,
    })
}

fn open_manifest<D: Disk>(
    config: &StartConfig,
    disk: &mut D,
    names: &[String],
    segments_present: bool,
) -> Result<(D::File, Manifest), StartError> {
    let name = manifest_file_name(config.lane);
    let fresh_allowed = !segments_present && !config.expect_existing;
    if names.contains(&name) {
        let file = disk.open(&name)?;
        let mut bytes = AlignedBuffer::zeroed(MANIFEST_BYTES);
        let whole = disk.length(&file)? >= MANIFEST_BYTES as u64;
        if whole {
            // Believed only once durable, as everything else.
            disk.sync(&file)?;
            disk.read(&file, 0, bytes.as_mut_slice())?;
        }
        match Manifest::decode_newest(bytes.as_slice(), config.lane) {
            Ok(manifest) => return Ok((file, manifest)),
            // The very first start was interrupted: the first segment is made only after the
            // manifest is durable.
            Err(_) if fresh_allowed => disk.remove(&name)?,
            Err(error) => return Err(Refusal::ManifestUnreadable(error).into()),
        }
    } else if !fresh_allowed {
        return Err(Refusal::ManifestMissing.into());
    }
    let file = disk.create(&name, MANIFEST_BYTES as u64)?;
    disk.write_zeros(&file, 0, MANIFEST_BYTES as u64)?;
    let manifest = Manifest {
        generation: 1,
        ..Manifest::empty(config.lane)
    };
    disk.write(&file, manifest.slot_offset(), manifest.encode().as_slice())?;
    disk.sync(&file)?;
    disk.sync_directory()?;
    Ok((file, manifest))
}

/// A listed segment, locked, synced and identified.
struct OpenedSegment<File> {
    file: File,
    header: SegmentHeader,
    cipher: SegmentCipher,
}

fn open_listed<D: Disk>(
    config: &StartConfig,
    disk: &mut D,
    listed: &ListedSegment,
) -> Result<OpenedSegment<D::File>, StartError> {
    let number = listed.segment;
    let file = match disk.open(&segment_file_name(config.lane, number)) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            return Err(Refusal::SegmentMissing(number).into());
        }
        Err(error) => return Err(error.into()),
    };
    disk.sync(&file)?;
    let header = match read_header(disk, &file) {
        Ok(Ok(header)) => header,
        Ok(Err(error)) => return Err(Refusal::SegmentHeader(number, error).into()),
        Err(_) => return Err(Refusal::SegmentUnreadable(number).into()),
    };
    if (header.lane, header.segment, header.incarnation) != (config.lane, number, listed.incarnation) {
        return Err(Refusal::SegmentReplaced(number).into());
    }
    if disk.length(&file)? != u64::from(header.blocks) * BLOCK_BYTES as u64 {
        return Err(Refusal::SegmentLength(number).into());
    }
    let data_key = header
        .data_key(config.key.as_ref())
        .map_err(|error| Refusal::Key(number, error))?;
    Ok(OpenedSegment {
        file,
        header,
        cipher: SegmentCipher::new(&data_key),
    })
}

/// Reads a segment's header from either copy; the outer error is the disk's.
fn read_header<D: Disk>(
    disk: &mut D,
    file: &D::File,
) -> Result<Result<SegmentHeader, SegmentHeaderError>, DiskError> {
    let mut blocks = AlignedBuffer::zeroed(SEGMENT_HEADER_BLOCKS as usize * BLOCK_BYTES);
    let (first, second) = blocks.as_mut_slice().split_at_mut(BLOCK_BYTES);
    let read_first = disk.read(file, 0, first);
    let read_second = disk.read(file, BLOCK_BYTES as u64, second);
    if let (Err(error), Err(_)) = (read_first, read_second) {
        return Err(error);
    }
    Ok(SegmentHeader::decode_either(blocks.as_slice()))
}

/// The files of segments that the manifest does not list: free to be reused. One that was in use
/// under its number must have been listed; then the manifest is not the newest one, and nothing may
/// be touched. Unless a later epoch wrote the manifest: that start found nothing good in the
/// segment, left it out and died before it could destroy it.
fn unlisted_files<D: Disk>(
    config: &StartConfig,
    disk: &mut D,
    manifest: &Manifest,
    present: &[SegmentNumber],
) -> Result<Vec<Released>, StartError> {
    let newest = manifest
        .segments
        .last()
        .map_or(SegmentNumber::NONE, |listed| listed.segment);
    let mut free = Vec::new();
    for number in present {
        if manifest.segments.iter().any(|listed| listed.segment == *number) {
            continue;
        }
        let name = segment_file_name(config.lane, *number);
        let file = disk.open(&name)?;
        let current = |header: &SegmentHeader| {
            header.segment == *number && header.lane == config.lane && header.epoch >= manifest.epoch
        };
        let prepared = matches!(read_header(disk, &file), Ok(Ok(header)) if current(&header));
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        let offset = u64::from(SEGMENT_HEADER_BLOCKS) * BLOCK_BYTES as u64;
        let group = disk
            .read(&file, offset, block.as_mut_slice())
            .map(|()| GroupHeader::decode(block.as_slice()));
        let used = matches!(group, Ok(Ok(header)) if header.segment == *number && header.lane == config.lane);
        if prepared && used && *number > newest {
            return Err(Refusal::SegmentUnlisted(*number).into());
        }
        free.push(Released { name, blank: false });
    }
    Ok(free)
}

/// Whether the reserve is there; one that was left half made is removed.
fn find_reserve<D: Disk>(config: &StartConfig, disk: &mut D, names: &[String]) -> Result<bool, DiskError> {
    let name = reserve_file_name(config.lane);
    if !names.contains(&name) {
        return Ok(false);
    }
    let file = disk.open(&name)?;
    let whole = disk.length(&file)? == u64::from(config.group.segment_blocks) * BLOCK_BYTES as u64;
    if !whole {
        disk.remove(&name)?;
    }
    Ok(whole)
}

fn recover_listed<D: Disk>(
    config: &StartConfig,
    disk: &mut D,
    manifest: &Manifest,
    listed: &[OpenedSegment<D::File>],
    visitor: &mut dyn Visitor,
) -> (Recovery, Vec<ClosedSegment>) {
    let segments: Vec<_> = listed
        .iter()
        .map(|opened| RecoverySegment {
            segment: opened.header.segment,
            epoch: opened.header.epoch,
            blocks: opened.header.blocks,
            cipher: Some(opened.cipher.clone()),
        })
        .collect();
    let evidence = Evidence {
        durable_group: manifest.durable_group,
        durable_lsn: manifest.durable_lsn.max(config.applied_lsn),
        clean_end: manifest.clean.then_some(manifest.durable_group),
    };
    let mut source = DiskSource { disk, listed };
    let mut ends = SegmentEnds {
        visitor,
        ends: Vec::new(),
    };
    let recovery = recover(
        config.lane,
        &manifest.base,
        &segments,
        evidence,
        if config.accept_loss {
            OnDamage::GiveUp
        } else {
            OnDamage::Hold
        },
        &mut source,
        &mut ends,
    );
    (recovery, ends.ends)
}

struct DiskSource<'a, D: Disk> {
    disk: &'a mut D,
    listed: &'a [OpenedSegment<D::File>],
}

impl<D: Disk> SegmentSource for DiskSource<'_, D> {
    fn read(&mut self, index: usize, block: u32, out: &mut [u8]) -> Result<(), Unreadable> {
        let offset = u64::from(block) * BLOCK_BYTES as u64;
        self.disk
            .read(&self.listed[index].file, offset, out)
            .map_err(|_| Unreadable)
    }
}

/// Passes records on and notes where each segment's good part ends.
struct SegmentEnds<'a> {
    visitor: &'a mut dyn Visitor,
    ends: Vec<ClosedSegment>,
}

impl Visitor for SegmentEnds<'_> {
    fn record(&mut self, epoch: Epoch, lsn: Lsn, record: &Record<'_>) {
        self.visitor.record(epoch, lsn, record);
    }

    fn group(&mut self, group: RecoveredGroup<'_>) {
        let header = group.header;
        let end = Base {
            group: header.group,
            lsn: header.last_lsn(),
            tag: *group.tag,
        };
        match self.ends.last_mut() {
            Some(last) if last.segment == header.segment => last.end = end,
            _ => self.ends.push(ClosedSegment {
                segment: header.segment,
                end,
            }),
        }
        self.visitor.group(group);
    }
}
