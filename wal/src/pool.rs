//! The pool of a lane: prepares segments ahead of their use, takes recycled ones back, and owns the
//! manifest.
//!
//! Everything here blocks and runs off the commit path. The order of steps is the point:
//!
//! ```text
//! prepare:  file (new, or a recycled one renamed) → zeros → sync → headers → sync → directory sync → manifest → ready
//! recycle:  manifest without it → headers destroyed (the key is gone) → file free for the next preparation
//! ```
//!
//! So a good header says that the zeros after it are durable, a listed segment exists, and a file
//! that is being reused is no longer listed. A failed preparation costs nothing but its file; the
//! log only meets a full disk here.
//!
//! One file of a segment's size is kept in *reserve*, for the one moment that cannot wait for
//! space: a start needs a fresh segment before it can give its records to the stores, which is what
//! frees space. A lane whose only segment is full and all applied may take it as well: the full one
//! replaces it at once.

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::cipher::{KeyEncryptionKey, SegmentCipher};
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::group_commit::{ClosedSegment, ReadySegment};
use crate::ids::{Epoch, GroupNumber, LaneId, Lsn, SegmentNumber};
use crate::manifest::{ListedSegment, MANIFEST_SEGMENTS_MAX, Manifest};
use crate::segment::{SEGMENT_HEADER_BLOCKS, SegmentHeader, SegmentSeed, segment_file_name};

/// A segment that is ready to be written.
#[derive(Clone, Debug)]
pub struct PreparedSegment<File> {
    /// For [`crate::group_commit::GroupCommit::handle_segment`].
    pub ready: ReadySegment,
    /// The segment's file.
    pub file: File,
}

/// How much of the log is known durable; goes into the manifest as a witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Every group up to this one.
    pub group: GroupNumber,
    /// Every record up to this one.
    pub lsn: Lsn,
    /// Whether every one of them is applied, too: then a lane that has nothing but a full segment
    /// may take the reserve.
    pub all_applied: bool,
}

/// Files kept for reuse instead of being removed. A start keeps all that it finds, because removing
/// takes its time; the next preparation removes what is too much.
const FREE_FILES_MAX: usize = 2;

/// The pool. See the module.
#[derive(Debug)]
pub struct Pool<D: Disk> {
    disk: D,
    manifest_file: D::File,
    manifest: Manifest,
    /// The last write of the manifest failed: what its slot holds is unknown.
    manifest_unknown: bool,
    epoch: Epoch,
    segment_blocks: u32,
    segments_max: usize,
    next_segment: SegmentNumber,
    key: Option<KeyEncryptionKey>,
    /// Prepared and in the manifest's list here, but not known to be listed on disk.
    unlisted: Option<PreparedSegment<D::File>>,
    /// Whether the reserve is there.
    reserve: bool,
    /// Taken off the list here, but not known to be off it on disk: their files must not be
    /// touched.
    releasing: Vec<Released>,
    free: Vec<Released>,
}

/// A file that no manifest lists, or soon none will.
#[derive(Clone, Debug)]
pub(crate) struct Released {
    pub(crate) name: String,
    /// It holds nothing but zeros after its headers, durably: it needs no new ones.
    pub(crate) blank: bool,
}

/// Parts of which a pool is made.
#[derive(Debug)]
pub(crate) struct PoolParts<D: Disk> {
    pub(crate) disk: D,
    pub(crate) manifest_file: D::File,
    pub(crate) manifest: Manifest,
    pub(crate) epoch: Epoch,
    pub(crate) segment_blocks: u32,
    pub(crate) segments_max: usize,
    pub(crate) next_segment: SegmentNumber,
    pub(crate) key: Option<KeyEncryptionKey>,
    /// Files of segments that recovery dropped; free once the next manifest is durable.
    pub(crate) releasing: Vec<Released>,
    pub(crate) free: Vec<Released>,
    pub(crate) reserve: bool,
}

impl<D: Disk> Pool<D> {
    pub(crate) fn new(parts: PoolParts<D>) -> Self {
        let PoolParts {
            disk,
            manifest_file,
            mut manifest,
            epoch,
            segment_blocks,
            segments_max,
            ..
        } = parts;
        manifest.epoch = epoch;
        manifest.clean = false;
        Self {
            disk,
            manifest_file,
            manifest,
            manifest_unknown: false,
            epoch,
            segment_blocks,
            segments_max: segments_max.min(MANIFEST_SEGMENTS_MAX),
            next_segment: parts.next_segment,
            key: parts.key,
            unlisted: None,
            reserve: parts.reserve,
            releasing: parts.releasing,
            free: parts.free,
        }
    }

    /// Prepares one segment. Takes as long as writing a whole segment does.
    ///
    /// # Errors
    /// [`DiskErrorKind::NoSpace`] when the disk or the lane's own limit is full (passes when a
    /// segment is recycled); other [`DiskError`]s. May be called again after any of them.
    pub fn prepare(
        &mut self,
        seed: &SegmentSeed,
        now_ms: u64,
        durable: Durable,
    ) -> Result<PreparedSegment<D::File>, DiskError> {
        if self.unlisted.is_none() && self.manifest.segments.len() >= self.segments_max {
            return Err(self.no_space());
        }
        self.make_reserve()?;
        let may_use_reserve = durable.all_applied && self.manifest.segments.len() <= 1;
        let prepared = self.prepare_listed(seed, now_ms, durable, may_use_reserve);
        self.trim();
        prepared
    }

    /// Prepares the first segment of an epoch: beyond the lane's limit, and from the reserve, if it
    /// must be.
    pub(crate) fn prepare_first(
        &mut self,
        seed: &SegmentSeed,
        now_ms: u64,
        durable: Durable,
    ) -> Result<PreparedSegment<D::File>, DiskError> {
        if self.manifest.segments.len() >= MANIFEST_SEGMENTS_MAX {
            return Err(self.no_space());
        }
        if self.releasing.iter().any(|released| released.blank) {
            // Frees a blank file, which saves writing a whole segment of zeros.
            self.write_manifest(durable)?;
        }
        self.prepare_listed(seed, now_ms, durable, true)
    }

    fn prepare_listed(
        &mut self,
        seed: &SegmentSeed,
        now_ms: u64,
        durable: Durable,
        may_use_reserve: bool,
    ) -> Result<PreparedSegment<D::File>, DiskError> {
        if self.unlisted.is_none() {
            let segment = self.next_segment;
            self.next_segment = segment.next();
            let name = segment_file_name(self.manifest.lane, segment);
            match self.make(&name, segment, seed, now_ms, may_use_reserve) {
                Ok(prepared) => {
                    let listed = ListedSegment {
                        segment,
                        incarnation: seed.incarnation,
                    };
                    self.manifest.segments.push(listed);
                    self.unlisted = Some(prepared);
                }
                Err(error) => {
                    // Whatever is left of the file is no segment: its headers come last.
                    let _ = self.disk.remove(&name);
                    return Err(error);
                }
            }
        }
        self.write_manifest(durable)?;
        Ok(self
            .unlisted
            .take()
            .expect("a prepared segment waits to be listed"))
    }

    fn no_space(&self) -> DiskError {
        let name = segment_file_name(self.manifest.lane, self.next_segment);
        DiskError {
            operation: "prepare",
            name,
            kind: DiskErrorKind::NoSpace,
        }
    }

    /// Takes back a segment whose records are all applied, as a durable checkpoint says.
    ///
    /// # Errors
    /// [`DiskError`] of the manifest; the segment then stays as it is, and the next call to either
    /// method tries again.
    ///
    /// # Panics
    /// When the segment is not the oldest one listed: segments are recycled in order.
    pub fn recycle(&mut self, segment: ClosedSegment, durable: Durable) -> Result<(), DiskError> {
        let oldest = self.manifest.segments.first().map(|listed| listed.segment);
        assert_eq!(
            oldest,
            Some(segment.segment),
            "segments are recycled in order, oldest first"
        );
        assert!(segment.end.lsn <= durable.lsn, "recycled is never above durable");
        self.manifest.segments.remove(0);
        self.manifest.base = segment.end;
        let name = segment_file_name(self.manifest.lane, segment.segment);
        self.releasing.push(Released { name, blank: false });
        let written = self.write_manifest(durable);
        self.trim();
        written
    }

    /// Notes that the lane is closed cleanly: `durable` is the very end, and nothing was submitted
    /// after it. Call after the last write has completed; the lane must not be written to any
    /// more. Makes the next start fast.
    ///
    /// # Errors
    /// [`DiskError`] of the manifest; the next start then takes the long way, nothing else.
    pub fn close(mut self, durable: Durable) -> Result<(), DiskError> {
        self.manifest.clean = true;
        self.write_manifest(durable)
    }

    /// The manifest as it should be on disk.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The disk.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    fn make(
        &mut self,
        name: &str,
        segment: SegmentNumber,
        seed: &SegmentSeed,
        now_ms: u64,
        may_use_reserve: bool,
    ) -> Result<PreparedSegment<D::File>, DiskError> {
        let bytes = u64::from(self.segment_blocks) * BLOCK_BYTES as u64;
        let (file, blank) = match self.take_free(name, bytes)? {
            Some((file, blank)) => (file, blank),
            None => match self.disk.create(name, bytes) {
                Err(error) if error.kind == DiskErrorKind::NoSpace && self.reserve && may_use_reserve => {
                    (self.take_reserve(name, bytes)?, false)
                }
                created => (created?, false),
            },
        };
        if !blank {
            self.disk.write_zeros(&file, 0, bytes)?;
            self.disk.sync(&file)?;
        }
        let (lane, key) = (self.manifest.lane, self.key.as_ref());
        let header = SegmentHeader::new(lane, self.epoch, segment, self.segment_blocks, now_ms, seed, key);
        let mut headers = AlignedBuffer::zeroed(SEGMENT_HEADER_BLOCKS as usize * BLOCK_BYTES);
        let block = header.encode();
        headers
            .as_mut_slice()
            .chunks_exact_mut(BLOCK_BYTES)
            .for_each(|copy| copy.copy_from_slice(&block));
        self.disk.write(&file, 0, headers.as_slice())?;
        self.disk.sync(&file)?;
        self.disk.sync_directory()?;
        Ok(PreparedSegment {
            ready: ReadySegment {
                segment,
                cipher: SegmentCipher::new(&seed.data_key),
            },
            file,
        })
    }

    /// A free file of the right length under a new name, if there is one, and whether it is blank.
    fn take_free(&mut self, name: &str, bytes: u64) -> Result<Option<(D::File, bool)>, DiskError> {
        loop {
            // A blank one saves writing a whole segment of zeros.
            let blank = self.free.iter().position(|free| free.blank);
            let Some(last) = self.free.len().checked_sub(1) else {
                return Ok(None);
            };
            let free = self.free.swap_remove(blank.unwrap_or(last));
            let file = self.disk.open(&free.name)?;
            if self.disk.length(&file)? == bytes {
                self.disk.rename(&free.name, name)?;
                return Ok(Some((file, free.blank)));
            }
            self.disk.remove(&free.name)?;
        }
    }

    /// Makes the reserve if it is not there: before any segment is prepared for ordinary use.
    fn make_reserve(&mut self) -> Result<(), DiskError> {
        if self.reserve {
            return Ok(());
        }
        let name = reserve_file_name(self.manifest.lane);
        let bytes = u64::from(self.segment_blocks) * BLOCK_BYTES as u64;
        if self.take_free(&name, bytes)?.is_some() {
            self.reserve = true;
            return self.disk.sync_directory();
        }
        let made = self.disk.create(&name, bytes).and_then(|file| {
            self.disk.write_zeros(&file, 0, bytes)?;
            self.disk.sync(&file)?;
            self.disk.sync_directory()
        });
        match made {
            Ok(()) => self.reserve = true,
            Err(_) => drop(self.disk.remove(&name)),
        }
        made
    }

    fn take_reserve(&mut self, name: &str, bytes: u64) -> Result<D::File, DiskError> {
        let reserve = reserve_file_name(self.manifest.lane);
        let file = self.disk.open(&reserve)?;
        if self.disk.length(&file)? != bytes {
            return Err(self.no_space());
        }
        self.disk.rename(&reserve, name)?;
        self.reserve = false;
        Ok(file)
    }

    fn write_manifest(&mut self, durable: Durable) -> Result<(), DiskError> {
        // After a failed write the same slot is written again: the other one is the only one known
        // to be good.
        self.manifest.generation += if self.manifest_unknown { 2 } else { 1 };
        self.manifest.durable_group = self.manifest.durable_group.max(durable.group);
        self.manifest.durable_lsn = self.manifest.durable_lsn.max(durable.lsn);
        self.manifest_unknown = true;
        let slot = self.manifest.encode();
        self.disk
            .write(&self.manifest_file, self.manifest.slot_offset(), slot.as_slice())?;
        self.disk.sync(&self.manifest_file)?;
        self.manifest_unknown = false;
        self.release();
        Ok(())
    }

    /// Destroys the keys of segments that are off the list for good and frees their files. Failing
    /// here is harmless: a file that cannot be reused is left for the next start, which finds it
    /// unlisted.
    fn release(&mut self) {
        let headers = AlignedBuffer::zeroed(SEGMENT_HEADER_BLOCKS as usize * BLOCK_BYTES);
        for released in core::mem::take(&mut self.releasing) {
            let destroyed = self.disk.open(&released.name).and_then(|file| {
                self.disk.write(&file, 0, headers.as_slice())?;
                self.disk.sync(&file)
            });
            if destroyed.is_ok() {
                self.free.push(released);
            } else {
                let _ = self.disk.remove(&released.name);
            }
        }
    }

    /// Removes free files that are too many, blank ones last.
    fn trim(&mut self) {
        while self.free.len() > FREE_FILES_MAX {
            let used = self.free.iter().position(|free| !free.blank);
            let free = self.free.swap_remove(used.unwrap_or(0));
            let _ = self.disk.remove(&free.name);
        }
    }
}

/// The name of a lane's reserve within the log directory.
#[must_use]
pub fn reserve_file_name(lane: LaneId) -> String {
    format!("lane-{:08x}.reserve", lane.0)
}
