//! Moves written pages from the write-ahead file into the database file, in parallel with the
//! writer, and bounds the former.
//!
//! ```text
//!   all the while          sync -wal, a few MiB at a time
//!   beside the writer      sync -wal ─► copy pages (passive) ─► sync database     again, while much was added meanwhile
//!   holding the writer     sync -wal ─► copy the rest ─► sync database ─► the -wal file may begin anew
//! ```
//!
//! A passive round never makes the writer wait, but what the writer adds meanwhile keeps the
//! write-ahead file from starting anew. So a last round holds the writer. All that it has to copy
//! and sync is what was added since the round before: SQLite itself syncs the database file only in
//! a round that reaches the end, and would leave the pages of all earlier rounds to the last one,
//! so we sync it after each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Shared;
use super::schema::FileLock;
use crate::error::StoreError;

/// Result of one checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Pages in the write-ahead file when it ended.
    pub wal_pages: u64,
    /// How many of them are in the database file now.
    pub moved_pages: u64,
    /// Whether the writer begins the write-ahead file anew. Not so while a reader is in the middle
    /// of a query, or while the writer adds pages faster than they can be moved and the file is not
    /// too large yet; then a later checkpoint will do it.
    pub restarted: bool,
    /// The disk has hardly any room, and the checkpoint could not change that: another one at once
    /// would not either.
    pub room_is_short: bool,
}

/// Drives checkpoints; belongs on a thread that may block for a disk's sync. `Send`.
#[derive(Debug)]
pub struct Checkpointer {
    connection: Connection,
    shared: Arc<Shared>,
    _lock: Arc<FileLock>,
}

impl Checkpointer {
    pub(in crate::sqlite) fn new(
        connection: Connection,
        shared: Arc<Shared>,
        lock: Arc<FileLock>,
    ) -> Result<Checkpointer, StoreError> {
        // Reads the file, so that this connection, too, has the write-ahead file open: SQLite
        // removes the latter with the last connection that has, and `sync` needs it for as long as
        // the checkpointer is there.
        connection.query_row("SELECT count(*) FROM namespace", [], |_| Ok(()))?;
        // Nobody is waited for by SQLite, which sleeps by the millisecond: the writer is held by
        // us, and a reader that is in the way is gone in a moment or stays for long.
        connection.busy_timeout(Duration::ZERO)?;
        Ok(Checkpointer {
            connection,
            shared,
            _lock: lock,
        })
    }

    /// Puts everything that was committed before this call onto the disk for good; the writer goes
    /// on meanwhile.
    ///
    /// Errors: [`StoreError::Io`]. After one every later call fails too, until the store is opened
    /// anew: the system forgets what it could not write, so that a sync tried again would report a
    /// success that is none.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        let pages = self.shared.wal_pages.get();
        self.shared.files.sync_wal()?;
        self.shared.wal_pages.handle_synced(pages);
        Ok(())
    }

    /// Whether there is something for [`Checkpointer::run_due`] to do: the write-ahead file has
    /// grown by [`super::Options::sync_bytes`] since it was last synced, or by
    /// [`super::Options::checkpoint_bytes`] since the last checkpoint, or the disk is short of room
    /// (see [`super::Options::room_bytes_min`]). A few loads of atomics.
    pub fn is_due(&self) -> bool {
        self.shared.is_checkpointer_due()
    }

    /// Runs a checkpoint, if one is due, or syncs what was added, which moves nothing.
    ///
    /// Errors: as of [`Checkpointer::checkpoint`].
    pub fn run_due(&mut self) -> Result<Checkpoint, StoreError> {
        if self.shared.is_checkpoint_due() {
            return self.checkpoint();
        }
        self.sync().map(|()| Checkpoint::default())
    }

    /// Runs one checkpoint. The writer goes on meanwhile, except for a short end while the last few
    /// pages are moved.
    ///
    /// Errors: [`StoreError::Full`]: nothing is lost, run it again. [`StoreError::Io`]: nothing is
    /// lost, but every later call fails too, until the store is opened anew; see
    /// [`Checkpointer::sync`].
    pub fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        let checkpoint = self.rounds()?;
        Ok(self.note(checkpoint))
    }

    /// Moves all that is left and gives the room of the write-ahead file back, so that the next
    /// start has nothing to read: for the end, when the writer and the readers are done. Without it
    /// nothing is lost.
    ///
    /// Errors: as of [`Checkpointer::checkpoint`].
    pub fn finish(&mut self) -> Result<Checkpoint, StoreError> {
        self.sync()?;
        let checkpoint = self.restart(TRUNCATE)?;
        Ok(self.note(checkpoint))
    }

    /// Notes the changes that a checkpoint made.
    fn note(&self, mut checkpoint: Checkpoint) -> Checkpoint {
        if checkpoint.restarted {
            self.shared.wal_pages.begin_anew();
        } else {
            self.shared.wal_pages.leave(checkpoint.wal_pages);
        }
        let pages = self.shared.wal_pages.get();
        let free = self.shared.files.free_bytes();
        checkpoint.room_is_short = self.shared.room.after_checkpoint(pages, free);
        checkpoint
    }

    fn rounds(&mut self) -> Result<Checkpoint, StoreError> {
        let mut rest_before = u64::MAX;
        loop {
            self.sync()?;
            let checkpoint = self.round(PASSIVE)?;
            self.shared.files.sync_database()?;
            let pages = self.shared.wal_pages.get();
            let rest = pages.saturating_sub(checkpoint.moved_pages);
            if rest <= REST_PAGES {
                break;
            }
            // Not getting nearer: the writer is faster than the disk. It may go on once; then it
            // has to wait.
            if rest > rest_before - rest_before / 8 {
                if !self.shared.wal_pages.is_far_too_many() && !self.shared.room.is_short() {
                    return Ok(Checkpoint {
                        restarted: false,
                        ..checkpoint
                    });
                }
                break;
            }
            rest_before = rest;
        }
        self.sync()?;
        self.restart(if self.shared.room.is_short() {
            TRUNCATE
        } else {
            RESTART
        })
    }

    /// Holds the writer, moves the rest, and lets the write-ahead file begin anew unless a reader
    /// is in the way.
    fn restart(&self, text: &str) -> Result<Checkpoint, StoreError> {
        let _held = self.shared.gate.pass();
        let begin = Instant::now();
        loop {
            let checkpoint = self.round(text)?;
            if checkpoint.restarted || begin.elapsed() > READERS_WAIT_MAX {
                return Ok(checkpoint);
            }
            std::thread::yield_now();
        }
    }

    fn round(&self, text: &str) -> Result<Checkpoint, StoreError> {
        let _turn = self.shared.take_turn();
        run(&self.connection, &self.shared, text)
    }
}

/// Runs one round of a checkpoint on this connection, whose turn it is.
///
/// Errors: as of [`Checkpointer::checkpoint`].
pub(in crate::sqlite) fn run(
    connection: &Connection,
    shared: &Shared,
    text: &str,
) -> Result<Checkpoint, StoreError> {
    // The write-ahead file must not begin anew when a sync has failed: what it holds may be nowhere
    // else.
    shared.files.check()?;
    let found = round(connection, text);
    if let Err(StoreError::Io { detail }) = &found {
        shared.files.poison(detail);
    }
    let (busy, wal, moved) = found?;
    Ok(Checkpoint {
        wal_pages: wal.max(0) as u64,
        moved_pages: moved.max(0) as u64,
        restarted: busy == 0 && wal == moved,
        room_is_short: false,
    })
}

fn round(connection: &Connection, text: &str) -> Result<(i64, i64, i64), StoreError> {
    let mut statement = connection.prepare_cached(text)?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
}

/// A round that waits for nobody.
pub(in crate::sqlite) const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// A round that holds the writer and waits for readers, so that the file begins anew.
const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";

/// The same, and the file gives its room back.
const TRUNCATE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// As much as the writer may be held for: at 2 KiB, half a MiB to copy and sync.
const REST_PAGES: u64 = 256;

/// How long the writer is held for readers that are in the middle of a query.
const READERS_WAIT_MAX: Duration = Duration::from_millis(1);
