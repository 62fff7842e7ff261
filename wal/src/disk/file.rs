//! The real disk: a directory of files, read and written around the page cache.
//!
//! - Files are opened with `O_DIRECT` where the file system has it. Then a read returns the
//!   contents of the device, not a cache's memory of a failed write. Without it
//!   ([`FileDisk::is_direct`]), each file's cached pages are dropped when it is opened, which is
//!   the best available.
//! - Files are locked with `flock` through the very descriptors used for I/O: as long as the kernel
//!   still finishes writes of a killed process, its lock is held, and the next process waits
//!   instead of reading a log that still changes.
//! - A group is written by one `pwritev2(RWF_DSYNC)` over blocks that were really written before:
//!   no metadata changes, so ext4 and XFS write only the data and flush the device's cache.
//! - [`durability_of`] knows the file systems on which a durable write is not durable.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{
    Advice, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, fadvise, fallocate,
    fcntl_getfl, fdatasync, flock, fstat, fsync, open, openat, renameat_with, unlinkat,
};
use rustix::io::{Errno, ReadWriteFlags, pread, pwritev2};

use super::{Disk, DiskError, DiskErrorKind};
use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::group_commit::WriteResult;

/// A directory of log files.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    directory: OwnedFd,
    direct: bool,
}

/// An open, locked log file. Clones share the descriptor; dropping the last of them releases the
/// lock.
#[derive(Clone, Debug)]
pub struct LogFile(Arc<OwnedFd>);

/// Attempts to take the lock of a process that is ending.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// File made to find out whether the file system has direct writes.
const PROBE: &str = ".direct-io-probe";

/// Result of a direct access as a fact about the file system. Only these two numbers mean that it
/// has none: if other errors did, the log of a full or failing disk would be read through a cache
/// that may hold more than the device.
fn is_direct_supported(tried: Result<(), Errno>) -> Result<bool, Errno> {
    match tried {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        Err(number) => Err(number),
    }
}

impl FileDisk {
    /// Opens a directory, creating it if need be. With `direct`, tries `O_DIRECT`; a file system
    /// without it gets buffered files.
    ///
    /// # Errors
    /// [`DiskError`]; also if the probe for `O_DIRECT` gives no answer.
    pub fn open(path: &Path, direct: bool) -> Result<Self, DiskError> {
        let failed = |operation, number| DiskError {
            operation,
            name: path.display().to_string(),
            kind: kind_of(number),
        };
        std::fs::create_dir_all(path)
            .map_err(|error| failed("create", Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).map_err(|number| failed("open", number))?;
        let mut disk = Self {
            path: path.to_owned(),
            directory,
            direct,
        };
        disk.direct = direct && disk.supports_direct()?;
        Ok(disk)
    }

    /// Whether files bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Tries a direct write on a file that is removed at once; on a full disk, a direct read of an
    /// existing file.
    fn supports_direct(&mut self) -> Result<bool, DiskError> {
        let written = self.write_probe();
        // Also after a failed open, which may have made the file all the same.
        let _ = unlinkat(&self.directory, PROBE, AtFlags::empty());
        let (name, tried) = match written {
            Err(Errno::NOSPC | Errno::DQUOT) => {
                // Without a file there is nothing to start either, so the answer is the full disk.
                let there = self.list()?.into_iter().find(|name| name.ends_with(".manifest"));
                let read = there.as_deref().map_or(written, |name| self.read_probe(name));
                (there.unwrap_or_else(|| PROBE.to_owned()), read)
            }
            written => (PROBE.to_owned(), written),
        };
        is_direct_supported(tried).map_err(|number| error("probe", &name, number))
    }

    fn write_probe(&self) -> Result<(), Errno> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
        let file = openat(&self.directory, PROBE, flags, Mode::from_raw_mode(0o600))?;
        let block = AlignedBuffer::zeroed(BLOCK_BYTES);
        let written = pwritev2(&file, &[IoSlice::new(block.as_slice())], 0, ReadWriteFlags::DSYNC)?;
        if written == BLOCK_BYTES {
            Ok(())
        } else {
            Err(Errno::IO)
        }
    }

    fn read_probe(&self, name: &str) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECT;
        let file = openat(&self.directory, name, flags, Mode::empty())?;
        // The contents and their length are checked at the start.
        pread(&file, AlignedBuffer::zeroed(BLOCK_BYTES).as_mut_slice(), 0).map(|_| ())
    }

    fn open_locked(&self, operation: &'static str, name: &str, extra: OFlags) -> Result<LogFile, DiskError> {
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOATIME | extra;
        flags.set(OFlags::DIRECT, self.direct);
        let open = |flags| openat(&self.directory, name, flags, Mode::from_raw_mode(0o600));
        // Only the owner of a file may use NOATIME, which saves work: other processes open it
        // without.
        let opened = match open(flags) {
            Err(Errno::PERM) => open(flags.difference(OFlags::NOATIME)),
            opened => opened,
        };
        let file = opened.map_err(|number| error(operation, name, number))?;
        for attempt in 1.. {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
                Err(number) => return Err(error("lock", name, number)),
            }
        }
        if !self.direct {
            // Only clean pages can be dropped, so they are synced first.
            fdatasync(&file).map_err(|number| error("sync", name, number))?;
            fadvise(&file, 0, None, Advice::DontNeed).map_err(|number| error("open", name, number))?;
        }
        Ok(LogFile(Arc::new(file)))
    }
}

pub(crate) fn error(operation: &'static str, name: &str, number: Errno) -> DiskError {
    DiskError {
        operation,
        name: name.to_owned(),
        kind: kind_of(number),
    }
}

fn kind_of(number: Errno) -> DiskErrorKind {
    match number {
        Errno::NOENT => DiskErrorKind::NotFound,
        Errno::EXIST => DiskErrorKind::Exists,
        Errno::NOSPC | Errno::DQUOT => DiskErrorKind::NoSpace,
        Errno::WOULDBLOCK => DiskErrorKind::Locked,
        Errno::MFILE | Errno::NFILE => DiskErrorKind::NoDescriptor,
        Errno::FBIG => DiskErrorKind::TooLarge,
        number => DiskErrorKind::Io(number.raw_os_error()),
    }
}

impl LogFile {
    /// Writes a group durably, with one system call. Blocks until the device answers.
    #[must_use]
    pub fn write_durable(&self, offset: u64, bytes: &[u8]) -> WriteResult {
        match pwritev2(&self.0, &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC) {
            Ok(written) => WriteResult::Durable(written),
            Err(Errno::INTR | Errno::AGAIN) => WriteResult::Interrupted,
            Err(number) => WriteResult::Failed(number.raw_os_error()),
        }
    }

    /// The descriptor, which names the open file as long as it is open.
    #[must_use]
    pub fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.0
    }

    /// Opens the same file once more, so that every write is durable when it completes: for a ring
    /// that cannot ask for that with each write. The file stays locked until both are closed,
    /// because a ring may still be writing after the end of its process, and the kernel then keeps
    /// only the descriptor of the write.
    ///
    /// # Errors
    /// When the file cannot be opened (there is no `/proc`, or no descriptor left), or another
    /// process took the lock in the moment between giving up the sole lock and taking the shared
    /// ones. The file must then not be written to.
    pub fn reopen_durable(&self) -> std::io::Result<OwnedFd> {
        // Not by its name, since it may have been renamed.
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DSYNC;
        flags.set(OFlags::DIRECT, fcntl_getfl(&self.0)?.contains(OFlags::DIRECT));
        let durable = open(path, flags, Mode::empty())?;
        // No process takes a shared lock before it has held the exclusive one, so these two keep
        // all others out.
        flock(&self.0, FlockOperation::NonBlockingLockShared)?;
        flock(&durable, FlockOperation::NonBlockingLockShared)?;
        Ok(durable)
    }
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(BLOCK_BYTES) == 0
}

impl Disk for FileDisk {
    type File = LogFile;

    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let failed =
            |problem: std::io::Error| error("list", "", Errno::from_io_error(&problem).unwrap_or(Errno::IO));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            // A name that is not UTF-8 is no file of ours.
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&mut self, name: &str, bytes: u64) -> Result<LogFile, DiskError> {
        let file = self.open_locked("create", name, OFlags::CREATE | OFlags::EXCL)?;
        // Reserves the space at once, so that a full disk is reported here and not after half a
        // minute of zeros.
        match fallocate(&file.0, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(file),
            Err(Errno::OPNOTSUPP) => {
                self.write_zeros(&file, 0, bytes)?;
                Ok(file)
            }
            Err(number) => {
                let _ = self.remove(name);
                Err(error("allocate", name, number))
            }
        }
    }

    fn open(&mut self, name: &str) -> Result<LogFile, DiskError> {
        self.open_locked("open", name, OFlags::empty())
    }

    fn length(&mut self, file: &LogFile) -> Result<u64, DiskError> {
        let status = fstat(&file.0).map_err(|number| error("measure", "", number))?;
        u64::try_from(status.st_size).map_err(|_| error("measure", "", Errno::IO))
    }

    fn read(&mut self, file: &LogFile, offset: u64, out: &mut [u8]) -> Result<(), DiskError> {
        if !is_aligned(out) {
            let mut buffer = AlignedBuffer::zeroed(out.len());
            self.read(file, offset, buffer.as_mut_slice())?;
            out.copy_from_slice(&buffer.as_slice()[..out.len()]);
            return Ok(());
        }
        let mut done = 0;
        while done < out.len() {
            match pread(&file.0, &mut out[done..], offset + done as u64) {
                Ok(0) => return Err(error("read", "", Errno::IO)),
                Ok(bytes) => done += bytes,
                Err(Errno::INTR) => {}
                Err(number) => return Err(error("read", "", number)),
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &LogFile, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if !is_aligned(bytes) {
            let mut buffer = AlignedBuffer::zeroed(bytes.len());
            buffer.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
            return self.write(file, offset, buffer.as_slice());
        }
        let mut done = 0;
        while done < bytes.len() {
            let rest = [IoSlice::new(&bytes[done..])];
            match pwritev2(&file.0, &rest, offset + done as u64, ReadWriteFlags::empty()) {
                // A direct write that stops within a block cannot be continued.
                Ok(written) if written == 0 || !written.is_multiple_of(BLOCK_BYTES) => {
                    return Err(error("write", "", Errno::IO));
                }
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(number) => return Err(error("write", "", number)),
            }
        }
        Ok(())
    }

    fn sync(&mut self, file: &LogFile) -> Result<(), DiskError> {
        // Not fdatasync: a new file's length and the state of its extents must be durable as well.
        fsync(&file.0).map_err(|number| error("sync", "", number))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let directory = &self.directory;
        renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE)
            .map_err(|number| error("rename", from, number))
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        unlinkat(&self.directory, name, AtFlags::empty()).map_err(|number| error("remove", name, number))
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        fsync(&self.directory).map_err(|number| error("sync", "", number))
    }
}

/// Whether a directory's file system keeps the promise of a durable write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The promise is kept: ext2/3/4, XFS, F2FS.
    Kept,
    /// The promise is not kept, or only under conditions that the log does not meet: `strong` is
    /// refused here unless overridden.
    Refused(&'static str),
    /// A file system unknown to this program, by its magic number.
    Unknown(u64),
}

/// Promise of the file system of `path` (which must exist).
///
/// # Errors
/// [`DiskError`].
pub fn durability_of(path: &Path) -> Result<Durability, DiskError> {
    let status =
        rustix::fs::statfs(path).map_err(|number| error("examine", &path.display().to_string(), number))?;
    // The field's type differs between targets; magic numbers are 32 bits everywhere.
    #[allow(clippy::unnecessary_cast, reason = "the type of f_type depends on the target")]
    let magic = (status.f_type as u64) & 0xffff_ffff;
    Ok(match magic {
        0xef53 | 0x5846_5342 | 0xf2f5_2010 => Durability::Kept,
        0x0102_1994 => Durability::Refused("tmpfs is memory: nothing survives a power cut"),
        0x8584_58f6 => Durability::Refused("ramfs is memory: nothing survives a power cut"),
        0x794c_7630 => Durability::Refused("overlayfs decides per file where a write goes"),
        0x6969 => Durability::Refused("an NFS server's promise is not the disk's"),
        0x0102_1997 => Durability::Refused("a 9p server's promise is not the disk's"),
        0xff53_4d42 | 0xfe53_4d42 => Durability::Refused("an SMB server's promise is not the disk's"),
        0x6573_5546 => Durability::Refused("a FUSE file system's promise is its program's"),
        0x9123_683e => Durability::Refused("btrfs copies on write: a log write can meet a full disk"),
        0x2fc1_2fc1 => Durability::Refused("ZFS copies on write: a log write can meet a full disk"),
        0xca45_1a4e => Durability::Refused("bcachefs copies on write: a log write can meet a full disk"),
        unknown => Durability::Unknown(unknown),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_errors_mean_that_there_are_no_direct_writes() {
        assert_eq!(is_direct_supported(Ok(())), Ok(true));
        for number in [Errno::INVAL, Errno::OPNOTSUPP] {
            assert_eq!(is_direct_supported(Err(number)), Ok(false));
        }
        for number in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::MFILE, Errno::ROFS] {
            assert_eq!(is_direct_supported(Err(number)), Err(number));
        }
    }
}
