//! The database file and its write-ahead file through descriptors of our own, for syncs that hold
//! none of SQLite's locks, and the gate at which writer and checkpointer wait for each other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::schema;
use crate::error::StoreError;

/// The two files.
///
/// SQLite holds POSIX locks on the database file, and the system drops those of a whole process
/// when it closes any descriptor of the file. So this is made before the first connection and
/// dropped after the last: it lives in [`super::Shared`], a reference to which every part drops
/// after its connection.
#[derive(Debug)]
pub(in crate::sqlite) struct Files {
    path: PathBuf,
    database: File,
    wal: OnceLock<File>,
    /// The first error. The system forgets what it could not write, so a sync that is tried again
    /// may report a success that is none.
    failed: OnceLock<String>,
}

impl Files {
    /// Opens the database file, and makes it if there is none, as SQLite would.
    pub(in crate::sqlite) fn open(path: &Path) -> Result<Files, StoreError> {
        let database = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(|error| schema::unopenable(path, &error.to_string()))?;
        Ok(Files {
            path: path.to_owned(),
            database,
            wal: OnceLock::new(),
            failed: OnceLock::new(),
        })
    }

    /// Opens the write-ahead file, which the first connection has made, and makes the names of both
    /// durable. The bytes that it takes.
    pub(in crate::sqlite) fn open_wal(&self) -> Result<u64, StoreError> {
        let path = schema::sibling(&self.path, "-wal");
        let unopenable = |error: io::Error| schema::unopenable(&path, &error.to_string());
        let wal = File::open(&path).map_err(unopenable)?;
        let bytes = wal.metadata().map_err(unopenable)?.len();
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| schema::unopenable(directory, &error.to_string()))?;
        self.wal.get_or_init(|| wal);
        Ok(bytes)
    }

    /// Makes everything durable that was committed before the call.
    ///
    /// A commit's frames, and the header and earlier frames that their checksums depend on, are
    /// written to the write-ahead file before the commit returns. If they are still there at the
    /// time of the sync, it makes them durable. Otherwise SQLite has restarted the file since,
    /// which it does only when all frames are in the database file and that file is synced, because
    /// every connection of ours has `synchronous = NORMAL`; so the commit was durable already. A
    /// restart during the sync is one or the other for each earlier commit. It syncs its new header
    /// before it writes the first new frame, so that a power cut never leaves new frames after an
    /// old header. The file is never replaced by another while the store is open: SQLite removes it
    /// with the last connection, and the checkpointer has one.
    pub(in crate::sqlite) fn sync_wal(&self) -> Result<(), StoreError> {
        match self.wal.get() {
            Some(wal) => self.sync(wal, "the write-ahead file"),
            None => Ok(()),
        }
    }

    /// Makes everything durable that was moved to the database file before the call.
    pub(in crate::sqlite) fn sync_database(&self) -> Result<(), StoreError> {
        self.sync(&self.database, "the database file")
    }

    /// Bytes that may still be written to the file system of both, by whoever comes first. `None`
    /// if it does not say.
    pub(in crate::sqlite) fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::fstatvfs(&self.database).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn sync(&self, file: &File, name: &str) -> Result<(), StoreError> {
        self.check()?;
        if let Err(error) = file.sync_data() {
            self.poison(&format!("{}: cannot sync {name}: {error}", self.path.display()));
        }
        self.check()
    }

    /// From now on nothing counts as synced any more, and the write-ahead file is kept.
    pub(in crate::sqlite) fn poison(&self, detail: &str) {
        self.failed.get_or_init(|| detail.to_owned());
    }

    /// The first error, if there was one.
    pub(in crate::sqlite) fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            None => Ok(()),
            Some(detail) => Err(StoreError::Io {
                detail: detail.clone(),
            }),
        }
    }
}

/// Lets one of two threads through at a time, in turn. A plain mutex would let the one that comes
/// around quickly have it again and again; SQLite's own waiting sleeps by the millisecond.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Gate {
    /// Held while waiting for `inside`, so that a thread that comes back at once queues after the
    /// other.
    next: Mutex<()>,
    inside: Mutex<()>,
}

impl Gate {
    pub(in crate::sqlite) fn pass(&self) -> MutexGuard<'_, ()> {
        // The guarded values are empty: a thread that panicked with one left nothing half done.
        let _next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_is_never_retried() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut files = Files::open(&directory.path().join("items.db")).expect("a file");
        assert_eq!(files.sync_wal(), Ok(()), "nothing was written yet");
        // A device that knows no sync stands for a disk that refuses one.
        let device = File::open("/dev/null").expect("a device");
        files.wal.set(device).expect("the first");
        let error = files.sync_wal().expect_err("no sync");
        assert!(
            matches!(&error, StoreError::Io { detail } if detail.contains("items.db")),
            "{error:?}"
        );
        files.wal = OnceLock::from(File::open(directory.path().join("items.db")).expect("the file"));
        assert_eq!(files.sync_wal(), Err(error.clone()), "though it would work now");
        assert_eq!(files.sync_database(), Err(error));
    }

    #[test]
    fn the_gate_lets_both_through_in_turn() {
        let gate = Gate::default();
        let held = gate.pass();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| drop(gate.pass()));
            while gate.next.try_lock().is_ok() && !other.is_finished() {
                std::thread::yield_now();
            }
            drop(held);
            // Waits its turn after the other, however quickly it comes back.
            drop(gate.pass());
            other.join().expect("the other");
        });
    }
}
