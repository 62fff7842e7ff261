//! Moves written pages from the write-ahead file into the database file, beside the writer, and keeps the former from
//! growing without end.
//!
//! A passive checkpoint never makes the writer wait, but what the writer adds meanwhile keeps the write-ahead file
//! from starting anew. So passive rounds come first, until little is left; a last round then holds the writer for as
//! long as that little takes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rusqlite::Connection;

use super::schema::{self, FileLock};
use super::{Options, Shared};
use crate::error::StoreError;

/// What one checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Pages in the write-ahead file when it ended.
    pub wal_pages: u64,
    /// How many of them are in the database file now.
    pub moved_pages: u64,
    /// Whether the writer begins the write-ahead file anew. Not so while a reader is in the middle of a query; then
    /// the next checkpoint will do it.
    pub restarted: bool,
}

/// Drives checkpoints; belongs on a thread that may block for a disk's sync. `Send`.
#[derive(Debug)]
pub struct Checkpointer {
    connection: Connection,
    shared: Arc<Shared>,
    due_pages: u64,
    wal: WalFile,
    _lock: Arc<FileLock>,
}

impl Checkpointer {
    pub(super) fn new(
        path: &Path,
        connection: Connection,
        options: &Options,
        shared: Arc<Shared>,
        lock: Arc<FileLock>,
    ) -> Result<Checkpointer, StoreError> {
        let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        // Reads the file, so that this connection, too, has the write-ahead file open: SQLite removes the latter with
        // the last connection that has, and `sync` needs it for as long as the checkpointer is there.
        connection.query_row("SELECT count(*) FROM namespace", [], |_| Ok(()))?;
        let wal = WalFile::open(path)?;
        let due_pages = options.checkpoint_bytes / page_bytes.max(1) as u64;
        Ok(Checkpointer {
            connection,
            shared,
            due_pages,
            wal,
            _lock: lock,
        })
    }

    /// Puts everything that was committed before this call onto the disk for good; the writer goes on meanwhile.
    ///
    /// Errors: [`StoreError::Io`]. After one every later call fails too, until the store is opened anew: the system
    /// forgets what it could not write, so that a sync tried again would report a success that is none.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.wal.sync()
    }

    /// Whether the write-ahead file has grown to [`Options::checkpoint_bytes`]. One load of an atomic.
    pub fn is_due(&self) -> bool {
        self.shared.wal_pages.load(Ordering::Relaxed) >= self.due_pages
    }

    /// Runs one checkpoint. The writer goes on meanwhile, except for a short end while what it wrote meanwhile is
    /// moved too.
    ///
    /// Errors: [`StoreError::Io`], [`StoreError::Full`]; nothing is lost, run it again.
    pub fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        let mut moved_before = 0;
        for _ in 0..PASSIVE_ROUNDS_MAX {
            let checkpoint = self.round(PASSIVE)?;
            let added = self
                .shared
                .wal_pages
                .load(Ordering::Relaxed)
                .saturating_sub(checkpoint.moved_pages);
            if checkpoint.moved_pages <= moved_before || added <= REST_PAGES {
                break;
            }
            moved_before = checkpoint.moved_pages;
        }
        let checkpoint = self.round(RESTART)?;
        if checkpoint.restarted {
            // The hook says it anew after the next commit.
            self.shared.wal_pages.store(0, Ordering::Relaxed);
        }
        Ok(checkpoint)
    }

    fn round(&self, text: &str) -> Result<Checkpoint, StoreError> {
        // The guarded value is empty: a thread that panicked with it left nothing half done.
        let _turn = self
            .shared
            .checkpointing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        run(&self.connection, text)
    }
}

/// The write-ahead file through a descriptor of our own, for syncs that hold none of SQLite's locks.
///
/// A commit's frames, and the header and frames before them that its checksums hang on, are written to the file before
/// the commit returns. At the time of a sync they are still there, and then the sync makes them durable. Or SQLite has
/// begun the file anew since: it does so only when all frames are in the database file and that file is synced, since
/// every connection of ours has `synchronous = NORMAL`; so the commit was durable already. A beginning anew at the same
/// time is one of these two for each commit that came before the call. It syncs its new header before it writes the
/// first new frame, so that a power cut never finds new frames behind an old header. The file is never replaced by
/// another while the store is open: SQLite removes it with the last connection, and the checkpointer has one.
#[derive(Debug)]
struct WalFile {
    path: PathBuf,
    file: File,
    failed: Option<String>,
}

impl WalFile {
    /// Opens the write-ahead file of the database at `path`, and makes the names of both files durable.
    fn open(path: &Path) -> Result<WalFile, StoreError> {
        let wal_path = schema::sibling(path, "-wal");
        let unopenable = |path: &Path, error: std::io::Error| StoreError::Unopenable {
            detail: format!("{}: {error}", path.display()),
        };
        let file = File::open(&wal_path).map_err(|error| unopenable(&wal_path, error))?;
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| unopenable(directory, error))?;
        Ok(WalFile {
            path: wal_path,
            file,
            failed: None,
        })
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.failed.is_none()
            && let Err(error) = self.file.sync_data()
        {
            self.failed = Some(format!("cannot sync {}: {error}", self.path.display()));
        }
        match &self.failed {
            None => Ok(()),
            Some(detail) => Err(StoreError::Io {
                detail: detail.clone(),
            }),
        }
    }
}

/// Runs one round of a checkpoint on this connection.
pub(super) fn run(connection: &Connection, text: &str) -> Result<Checkpoint, StoreError> {
    let mut statement = connection.prepare_cached(text)?;
    let (busy, wal, moved): (i64, i64, i64) =
        statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(Checkpoint {
        wal_pages: wal.max(0) as u64,
        moved_pages: moved.max(0) as u64,
        restarted: busy == 0 && wal == moved,
    })
}

/// A round that waits for nobody.
pub(super) const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// A round that holds the writer and waits for readers, so that the file begins anew.
const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";

/// Passive rounds before the last one; each has less to do than the one before unless the disk is slower than the
/// writer, and then the writer has to wait anyway.
const PASSIVE_ROUNDS_MAX: usize = 4;

/// As much as the writer may be held for.
const REST_PAGES: u64 = 256;
