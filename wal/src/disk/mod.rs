//! Interface of the log to a disk: two traits, so that the real disk and the simulated one are
//! interchangeable.
//!
//! - [`Disk`] is everything off the commit path, in blocking calls: listing, preparing, recycling,
//!   reading at start. The driver runs it on a thread that may block.
//! - [`GroupWriter`] is the commit path: submit a durable write, then poll for its completion. A
//!   ring and a dedicated thread can both implement it: it never blocks, and completions may come
//!   in any order.
//!
//! Both promise that a completed durable write survives a power cut, as far as the device keeps its
//! word.

use core::fmt;

use crate::buffer::AlignedBuffer;
use crate::group_commit::{WriteAction, WriteResult};
use crate::ids::GroupNumber;

pub mod file;
pub mod sim;
pub mod threads;

/// Kind of a disk's error, as coarse as the log distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No such file.
    NotFound,
    /// The file exists already.
    Exists,
    /// No space, or no quota, left. Passes when space is freed.
    NoSpace,
    /// Another process has the file locked.
    Locked,
    /// The process, or the system, has reached its limit of open files. Passes when some are
    /// closed.
    NoDescriptor,
    /// The file would exceed the process's limit of file sizes.
    TooLarge,
    /// Anything else, with the system's error number.
    Io(i32),
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// The operation that failed.
    pub operation: &'static str,
    /// Name of the file; empty for the directory.
    pub name: String,
    /// The kind of error.
    pub kind: DiskErrorKind,
}

impl fmt::Display for DiskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "cannot {} {:?}: {}",
            self.operation, self.name, self.kind
        )
    }
}

impl fmt::Display for DiskErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskErrorKind::NotFound => formatter.write_str("no such file"),
            DiskErrorKind::Exists => formatter.write_str("it exists already"),
            DiskErrorKind::NoSpace => formatter.write_str("no space left"),
            DiskErrorKind::Locked => formatter.write_str("another process has it locked"),
            DiskErrorKind::NoDescriptor => formatter.write_str("too many files are open (ulimit -n)"),
            DiskErrorKind::TooLarge => formatter.write_str("larger than the process may write (ulimit -f)"),
            DiskErrorKind::Io(number) => write!(formatter, "error {number}"),
        }
    }
}

impl core::error::Error for DiskError {}

/// One log directory. Names are plain file names; offsets and lengths are whole blocks.
pub trait Disk {
    /// An open file. Clones are the same open file.
    type File: Clone;

    /// The names of all files.
    ///
    /// # Errors
    /// [`DiskError`].
    fn list(&mut self) -> Result<Vec<String>, DiskError>;

    /// Creates a file of `bytes` zero bytes, allocates it, and locks it. Neither its contents nor
    /// its name is durable before [`Disk::sync`] and [`Disk::sync_directory`].
    ///
    /// # Errors
    /// [`DiskErrorKind::Exists`], [`DiskErrorKind::NoSpace`] and others; the caller removes a
    /// half-made file.
    fn create(&mut self, name: &str, bytes: u64) -> Result<Self::File, DiskError>;

    /// Opens and locks a file.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`], [`DiskErrorKind::Locked`] and others.
    fn open(&mut self, name: &str) -> Result<Self::File, DiskError>;

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// [`DiskError`].
    fn length(&mut self, file: &Self::File) -> Result<u64, DiskError>;

    /// Fills `out` from `offset`, from the medium and not from a cache in memory.
    ///
    /// # Errors
    /// [`DiskError`], also when the file is too short.
    fn read(&mut self, file: &Self::File, offset: u64, out: &mut [u8]) -> Result<(), DiskError>;

    /// Writes all of `bytes`; not durable before [`Disk::sync`].
    ///
    /// # Errors
    /// [`DiskError`]; the contents written are then unknown.
    fn write(&mut self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Really writes `bytes` zeros from `offset`; not durable before [`Disk::sync`].
    ///
    /// # Errors
    /// [`DiskError`]; the contents written are then unknown.
    fn write_zeros(&mut self, file: &Self::File, offset: u64, bytes: u64) -> Result<(), DiskError> {
        const STEP: usize = 1 << 20;
        let zeros = AlignedBuffer::zeroed(STEP);
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let step = usize::try_from(end - at).map_or(STEP, |rest| rest.min(STEP));
            self.write(file, at, &zeros.as_slice()[..step])?;
            at += step as u64;
        }
        Ok(())
    }

    /// Makes everything written to the file so far durable.
    ///
    /// # Errors
    /// [`DiskError`]; then the written bytes are lost, even if a later call succeeds. Never
    /// retried.
    fn sync(&mut self, file: &Self::File) -> Result<(), DiskError>;

    /// Renames a file, replacing none.
    ///
    /// # Errors
    /// [`DiskError`].
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`DiskError`].
    fn remove(&mut self, name: &str) -> Result<(), DiskError>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// [`DiskError`].
    fn sync_directory(&mut self) -> Result<(), DiskError>;
}

/// The answer to a submitted write.
#[derive(Debug)]
pub struct Completion {
    /// Number of the group.
    pub group: GroupNumber,
    /// Result of the write.
    pub result: WriteResult,
    /// The buffer, returned.
    pub buffer: AlignedBuffer,
}

/// The commit path's interface to the disk.
pub trait GroupWriter {
    /// An open file, as [`Disk::File`].
    type File: Clone;

    /// Starts one durable write. Never blocks; the depth is bounded by the caller.
    fn submit(&mut self, file: &Self::File, write: WriteAction);

    /// The next completion, if one is there. Each submission gets exactly one.
    fn poll_completion(&mut self) -> Option<Completion>;
}
