//! Looking at a log without touching it: for tools, on a stopped gateway's directory or on a copy
//! of one.
//!
//! Promises: nothing is created, written, renamed or removed; files are opened for reading only. A
//! lane that a gateway has open is not read (its log still changes): [`LogDirectory::lane`] answers
//! [`DiskErrorKind::Locked`]. While an image is held, no gateway can start on the lane. What an
//! image says of a lane is what [`crate::start::start`] would say, except that the stores' cursors
//! are not known here: a start may know of records that a store has and the log has lost.
//!
//! Without the key of an encrypted segment its groups are checked by their checksums and their
//! chain. That finds every fault of a disk; it does not find a forger, and it gives no records.
//!
//! Leaves to others: what to print ([`scan`] finds the groups that are still readable, wherever
//! they stand).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, open, openat, statat};
use rustix::io::{Errno, pread};

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::cipher::{KeyEncryptionKey, KeyError, SegmentCipher};
use crate::disk::file::error;
use crate::disk::{DiskError, DiskErrorKind};
use crate::group::GroupHeader;
use crate::ids::{LaneId, SegmentNumber};
use crate::manifest::{MANIFEST_BYTES, MANIFEST_SLOT_BYTES, Manifest, ManifestError, manifest_file_name};
use crate::pool::reserve_file_name;
use crate::recovery::{
    Evidence, OnDamage, Recovery, RecoverySegment, SegmentSource, Unreadable, Visitor, recover,
};
use crate::segment::{
    Incarnation, SEGMENT_HEADER_BLOCKS, SegmentHeader, SegmentHeaderError, parse_segment_file_name,
    segment_file_name,
};
use crate::start::Refusal;

pub mod scan;

/// A directory with the files of lanes.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
    directory: OwnedFd,
}

/// Contents of one lane's directory. Holds shared locks on the lane's files.
#[derive(Debug)]
pub struct LaneImage {
    /// Which lane.
    pub lane: LaneId,
    /// The two slots of the manifest, as they lie in the file; `None` when there is no manifest.
    pub slots: Option<[Result<Manifest, ManifestError>; 2]>,
    /// The manifest that counts.
    pub manifest: Result<Manifest, Refusal>,
    /// The listed segments and the others for which there is a file, ascending by number.
    pub segments: Vec<SegmentImage>,
    /// Length of the reserve in bytes, when there is one.
    pub reserve_bytes: Option<u64>,
    _manifest_file: Option<OwnedFd>,
}

/// One segment: listed, or a file, or both.
#[derive(Debug)]
pub struct SegmentImage {
    /// The segment's number.
    pub segment: SegmentNumber,
    /// The incarnation that the manifest lists; `None` when it does not list the segment.
    pub listed: Option<Incarnation>,
    /// The file; `None` when there is none.
    pub file: Option<SegmentFile>,
}

/// The file of a segment.
#[derive(Debug)]
pub struct SegmentFile {
    /// The file's length.
    pub bytes: u64,
    /// The segment's header; the outer error when neither copy can be read.
    pub header: Result<Result<SegmentHeader, SegmentHeaderError>, Unreadable>,
    /// The segment's cipher, or why there is none; `None` without a good header.
    pub cipher: Option<Result<SegmentCipher, KeyError>>,
    file: OwnedFd,
}

impl LogDirectory {
    /// Opens a directory, which must exist.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty())
            .map_err(|number| error("open", &path.display().to_string(), number))?;
        let path = path.to_owned();
        Ok(Self { path, directory })
    }

    /// The lanes of which there is any file, ascending.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn lanes(&self) -> Result<Vec<LaneId>, DiskError> {
        let names = self.list()?;
        let lane_of = |name: &String| {
            let number = name.strip_prefix("lane-")?.get(..8)?;
            let lane = LaneId(u32::from_str_radix(number, 16).ok()?);
            let own = *name == manifest_file_name(lane)
                || *name == reserve_file_name(lane)
                || parse_segment_file_name(name).is_some();
            own.then_some(lane)
        };
        let mut lanes: Vec<_> = names.iter().filter_map(lane_of).collect();
        lanes.sort_unstable();
        lanes.dedup();
        Ok(lanes)
    }

    /// Opens a lane: its manifest and the headers of all its segments. `key` unwraps their keys.
    ///
    /// # Errors
    /// [`DiskErrorKind::Locked`] when a gateway has the lane open, and other [`DiskError`]s. What
    /// is wrong with the log itself is no error here: it is in the image.
    pub fn lane(&self, lane: LaneId, key: Option<&KeyEncryptionKey>) -> Result<LaneImage, DiskError> {
        let name = manifest_file_name(lane);
        let manifest_file = self.open_shared(&name)?;
        let slots = manifest_file.as_ref().map(|file| read_slots(file, lane));
        let manifest = match &slots {
            None => Err(Refusal::ManifestMissing),
            Some(slots) => newest(slots).map_err(Refusal::ManifestUnreadable),
        };
        let names = self.list()?;
        let present = names
            .iter()
            .filter_map(|name| parse_segment_file_name(name))
            .filter(|(of, _)| *of == lane)
            .map(|(_, segment)| (segment, None));
        let listed = manifest.iter().flat_map(|manifest| &manifest.segments);
        let listed = listed.map(|listed| (listed.segment, Some(listed.incarnation)));
        let mut numbers: Vec<_> = listed.chain(present).collect();
        numbers.sort_by_key(|(segment, _)| *segment);
        // Stable: where a segment is listed and present, the listed entry came first and stays.
        numbers.dedup_by_key(|(segment, _)| *segment);
        let mut segments = Vec::new();
        for (segment, listed) in numbers {
            let file = self.open_shared(&segment_file_name(lane, segment))?;
            let file = file.map(|file| SegmentFile::read(file, key)).transpose()?;
            segments.push(SegmentImage {
                segment,
                listed,
                file,
            });
        }
        let reserve = statat(
            &self.directory,
            reserve_file_name(lane),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        Ok(LaneImage {
            lane,
            slots,
            manifest,
            segments,
            reserve_bytes: reserve.ok().and_then(|status| u64::try_from(status.st_size).ok()),
            _manifest_file: manifest_file,
        })
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let failed =
            |problem: std::io::Error| error("list", "", Errno::from_io_error(&problem).unwrap_or(Errno::IO));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            // A name that is no text is no file of the log's.
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Opens a file for reading, around the page cache where that works, and locks it against a
    /// gateway. `None` when there is no such file.
    fn open_shared(&self, name: &str) -> Result<Option<OwnedFd>, DiskError> {
        let plain = OFlags::RDONLY | OFlags::CLOEXEC;
        let try_open = |flags| openat(&self.directory, name, flags, Mode::empty());
        let file = match try_open(plain | OFlags::DIRECT) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => try_open(plain),
            opened => opened,
        };
        let file = match file {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(|number| error("open", name, number))?,
        };
        // The kernel may still be finishing the writes of a gateway that was killed just now.
        for attempt in 1.. {
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
                Err(number) => return Err(error("lock", name, number)),
            }
        }
        Ok(Some(file))
    }
}

const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

impl LaneImage {
    /// Why a start would refuse the lane before it reads any group; the lack of a key does not
    /// count here.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let manifest = match &self.manifest {
            Ok(manifest) => manifest,
            Err(refusal) => return Some(refusal.clone()),
        };
        let newest = manifest.segments.last().map(|listed| listed.segment);
        self.segments.iter().find_map(|image| match image.listed {
            Some(incarnation) => self.listed_refusal(image, &incarnation),
            None if Some(image.segment) > newest && self.holds_a_group(image) => {
                Some(Refusal::SegmentUnlisted(image.segment))
            }
            None => None,
        })
    }

    fn listed_refusal(&self, image: &SegmentImage, incarnation: &Incarnation) -> Option<Refusal> {
        let number = image.segment;
        let Some(file) = &image.file else {
            return Some(Refusal::SegmentMissing(number));
        };
        let header = match &file.header {
            Ok(Ok(header)) => header,
            Ok(Err(error)) => return Some(Refusal::SegmentHeader(number, *error)),
            Err(Unreadable) => return Some(Refusal::SegmentUnreadable(number)),
        };
        if (header.lane, header.segment, header.incarnation) != (self.lane, number, *incarnation) {
            return Some(Refusal::SegmentReplaced(number));
        }
        if file.bytes != u64::from(header.blocks) * BLOCK_BYTES as u64 {
            return Some(Refusal::SegmentLength(number));
        }
        match &file.cipher {
            Some(Err(error @ KeyError::NotAuthentic)) => Some(Refusal::Key(number, *error)),
            _ => None,
        }
    }

    fn holds_a_group(&self, image: &SegmentImage) -> bool {
        let Some(file) = &image.file else { return false };
        let in_place = |lane, segment| lane == self.lane && segment == image.segment;
        let prepared = matches!(&file.header, Ok(Ok(header)) if in_place(header.lane, header.segment));
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        let read = file.read_blocks(SEGMENT_HEADER_BLOCKS, block.as_mut_slice());
        let group = read.map(|()| GroupHeader::decode(block.as_slice()));
        prepared && matches!(group, Ok(Ok(header)) if in_place(header.lane, header.segment))
    }

    /// The first key problem of a listed segment, if any: its records cannot be read.
    #[must_use]
    pub fn key_problem(&self) -> Option<KeyError> {
        let files = self.segments.iter().filter_map(|image| image.file.as_ref());
        files
            .filter_map(|file| file.cipher.as_ref())
            .find_map(|cipher| cipher.as_ref().err().copied())
    }

    /// Walks the lane as a start does and returns what recovery would find, or `None` when it would
    /// not come to that ([`LaneImage::refusal`]). Segments without a key are checked by their
    /// checksums; their records are not visited.
    pub fn walk(&self, visitor: &mut dyn Visitor) -> Option<Recovery> {
        let manifest = self.manifest.as_ref().ok()?;
        if self.refusal().is_some() {
            return None;
        }
        let mut segments = Vec::new();
        let mut files = Vec::new();
        for image in self.segments.iter().filter(|image| image.listed.is_some()) {
            let file = image.file.as_ref()?;
            let header = file.good_header()?;
            segments.push(RecoverySegment {
                segment: header.segment,
                epoch: header.epoch,
                blocks: header.blocks,
                cipher: file.known_cipher().cloned(),
            });
            files.push(file);
        }
        let evidence = Evidence {
            durable_group: manifest.durable_group,
            durable_lsn: manifest.durable_lsn,
            // Never the short way: somebody who asks a tool wants all of it read.
            clean_end: None,
        };
        let mut source = Files(files);
        Some(recover(
            self.lane,
            &manifest.base,
            &segments,
            evidence,
            OnDamage::Hold,
            &mut source,
            visitor,
        ))
    }
}

struct Files<'a>(Vec<&'a SegmentFile>);

impl SegmentSource for Files<'_> {
    fn read(&mut self, index: usize, block: u32, out: &mut [u8]) -> Result<(), Unreadable> {
        self.0[index].read_blocks(block, out)
    }
}

impl SegmentFile {
    fn read(file: OwnedFd, key: Option<&KeyEncryptionKey>) -> Result<Self, DiskError> {
        let status = fstat(&file).map_err(|number| error("measure", "", number))?;
        let mut image = Self {
            bytes: u64::try_from(status.st_size).unwrap_or_default(),
            header: Err(Unreadable),
            cipher: None,
            file,
        };
        let mut blocks = AlignedBuffer::zeroed(SEGMENT_HEADER_BLOCKS as usize * BLOCK_BYTES);
        let copies = blocks.as_mut_slice().chunks_exact_mut(BLOCK_BYTES);
        let readable = (0..).zip(copies).map(|(block, copy)| {
            let read = image.read_blocks(block, copy);
            if read.is_err() {
                copy.fill(0);
            }
            read.is_ok()
        });
        if readable.filter(|readable| *readable).count() > 0 {
            image.header = Ok(SegmentHeader::decode_either(blocks.as_slice()));
        }
        image.cipher = image
            .good_header()
            .map(|header| header.data_key(key).map(|key| SegmentCipher::new(&key)));
        Ok(image)
    }

    /// The header, when it is good.
    #[must_use]
    pub fn good_header(&self) -> Option<&SegmentHeader> {
        match &self.header {
            Ok(Ok(header)) => Some(header),
            _ => None,
        }
    }

    /// The cipher, when the key is known.
    #[must_use]
    pub fn known_cipher(&self) -> Option<&SegmentCipher> {
        self.cipher.as_ref().and_then(|cipher| cipher.as_ref().ok())
    }

    /// Fills `out`, which is aligned and whole blocks long.
    fn read_blocks(&self, block: u32, out: &mut [u8]) -> Result<(), Unreadable> {
        let offset = u64::from(block) * BLOCK_BYTES as u64;
        read_exactly(&self.file, offset, out).map_err(|_| Unreadable)
    }
}

fn read_exactly(file: &OwnedFd, offset: u64, out: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < out.len() {
        match pread(file, &mut out[done..], offset + done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(bytes) => done += bytes,
            Err(Errno::INTR) => {}
            Err(number) => return Err(number),
        }
    }
    Ok(())
}

/// Both slots; what cannot be read, or is beyond the end of a file that is too short, is as if
/// never written.
fn read_slots(file: &OwnedFd, lane: LaneId) -> [Result<Manifest, ManifestError>; 2] {
    let mut bytes = AlignedBuffer::zeroed(MANIFEST_BYTES);
    let blocks = bytes.as_mut_slice().chunks_exact_mut(BLOCK_BYTES);
    for (number, block) in blocks.enumerate() {
        if read_exactly(file, (number * BLOCK_BYTES) as u64, block).is_err() {
            block.fill(0);
        }
    }
    [0, 1].map(|index| {
        let slot = &bytes.as_slice()[index * MANIFEST_SLOT_BYTES..];
        let manifest = Manifest::decode(slot)?;
        let in_place = manifest.generation % 2 == index as u64 && manifest.lane == lane;
        if in_place {
            Ok(manifest)
        } else {
            Err(ManifestError::Inconsistent)
        }
    })
}

fn newest(slots: &[Result<Manifest, ManifestError>; 2]) -> Result<Manifest, ManifestError> {
    let good = slots.iter().filter_map(|slot| slot.as_ref().ok());
    let Some(newest) = good.max_by_key(|manifest| manifest.generation) else {
        let errors = slots.iter().filter_map(|slot| slot.as_ref().err().copied());
        let telling = errors.clone().find(|error| *error != ManifestError::NoMagic);
        return Err(telling.unwrap_or(ManifestError::NoMagic));
    };
    Ok(newest.clone())
}

/// Whether an error says that a gateway, or another tool that writes, has the lane open.
#[must_use]
pub fn is_in_use(error: &DiskError) -> bool {
    error.kind == DiskErrorKind::Locked
}
