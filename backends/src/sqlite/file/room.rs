//! Whether the disk has room for what a checkpoint must move.
//!
//! The write-ahead file keeps the room that it took, and a checkpoint needs room of its own, for
//! each page that is new in the database file. With all room of a disk in the former, neither could
//! a checkpoint move a page nor a commit add one: the store would be stuck for good. So where room
//! is short, the write-ahead file is not left to grow as it is elsewhere: the writer moves what is
//! there before it adds to it, and refuses transactions while there is no room for that, so that
//! whatever comes free is for the database file first; and a checkpoint gives the write-ahead
//! file's room back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::schema::PAGE_SIZE;

/// Pages that the write-ahead file may grow by before the writer looks again: 1 MiB.
const LOOK_EVERY: u64 = 512;

/// How long the writer refuses transactions without another try at moving pages, after one that
/// found no room for them: each writes every page again that has a place already.
const REFUSE_FOR: Duration = Duration::from_millis(250);

/// Room as it was when somebody last looked.
#[derive(Debug)]
pub(in crate::sqlite) struct Room {
    /// Bound of [`crate::sqlite::Options::room_bytes_min`].
    bytes_min: u64,
    /// Pages in the write-ahead file at the last look.
    looked_at: AtomicU64,
    short: AtomicBool,
    opened: Instant,
    /// When the writer may try to move pages again, in nanoseconds since then.
    try_at: AtomicU64,
}

impl Room {
    pub(super) fn new(bytes_min: u64) -> Room {
        Room {
            bytes_min,
            looked_at: AtomicU64::default(),
            short: AtomicBool::default(),
            opened: Instant::now(),
            try_at: AtomicU64::default(),
        }
    }

    /// Whether room was short at the last look, and no checkpoint has ended since.
    pub(super) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// When the store is opened, with a write-ahead file that may have been left by another
    /// process.
    pub(in crate::sqlite) fn at_start(&self, wal_bytes: u64, free: Option<u64>) {
        let is_short = self.is_short_of(free, wal_bytes / u64::from(PAGE_SIZE));
        self.short.store(wal_bytes > 0 && is_short, Ordering::Relaxed);
    }

    /// The writer found no room for the pages that it has to move.
    pub(super) fn none_for_pages(&self, now: Instant) {
        self.try_at.store(self.nanos(now + REFUSE_FOR), Ordering::Relaxed);
    }

    /// Whether the writer may try to move pages, or tried only a moment ago and is to refuse at
    /// once.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.nanos(now) >= self.try_at.load(Ordering::Relaxed)
    }

    fn nanos(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.opened).as_nanos()).unwrap_or(u64::MAX)
    }

    /// After a transaction of the writer: looks if the file has grown by so much that it is worth a
    /// system call, or if there was no room for the transaction.
    pub(super) fn after_transaction(
        &self,
        wal_pages: u64,
        was_full: bool,
        free: impl FnOnce() -> Option<u64>,
    ) {
        let before = self.looked_at.load(Ordering::Relaxed);
        // A file with fewer pages than before has begun anew.
        let is_due = wal_pages < before || wal_pages - before >= LOOK_EVERY;
        if is_due || was_full {
            self.looked_at.store(wal_pages, Ordering::Relaxed);
            if self.is_short_of(free(), wal_pages) {
                self.short.store(true, Ordering::Relaxed);
            }
        }
    }

    /// After a checkpoint: what there is to do about it is done. Whether room is short all the
    /// same.
    pub(super) fn after_checkpoint(&self, wal_pages: u64, free: Option<u64>) -> bool {
        self.short.store(false, Ordering::Relaxed);
        self.is_short_of(free, wal_pages)
    }

    /// Where the system does not say how many bytes are free, room is not short.
    fn is_short_of(&self, free: Option<u64>, wal_pages: u64) -> bool {
        let wanted = self
            .bytes_min
            .saturating_add(wal_pages.saturating_mul(u64::from(PAGE_SIZE)));
        free.is_some_and(|free| free < wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PAGES_PER_MIB: u64 = MIB / PAGE_SIZE as u64;

    #[test]
    fn room_is_short_when_what_is_free_would_not_take_all_pages_of_the_write_ahead_file() {
        let room = Room::new(8 * MIB);
        room.after_transaction(10 * PAGES_PER_MIB, false, || Some(18 * MIB));
        assert!(!room.is_short(), "just enough");
        room.after_transaction(11 * PAGES_PER_MIB, false, || Some(18 * MIB));
        assert!(room.is_short());
        assert!(!room.after_checkpoint(0, Some(8 * MIB)));
        assert!(!room.is_short(), "the checkpoint was what could be done");
        assert!(room.after_checkpoint(0, Some(8 * MIB - 1)), "it did not help");
    }

    #[test]
    fn a_write_ahead_file_that_is_found_counts_at_the_start() {
        let room = Room::new(8 * MIB);
        room.at_start(0, Some(MIB));
        assert!(!room.is_short(), "there is nothing to move");
        room.at_start(10 * MIB, Some(18 * MIB));
        assert!(!room.is_short(), "just enough");
        room.at_start(10 * MIB, Some(18 * MIB - 1));
        assert!(room.is_short());
    }

    #[test]
    fn a_try_that_found_no_room_is_not_repeated_at_once() {
        let room = Room::new(0);
        let now = Instant::now();
        assert!(room.may_try(now));
        room.none_for_pages(now);
        assert!(!room.may_try(now + REFUSE_FOR / 2));
        assert!(room.may_try(now + REFUSE_FOR));
    }

    #[test]
    fn the_writer_looks_after_each_mebibyte_and_when_it_found_no_room() {
        let room = Room::new(0);
        let looks = |pages, was_full| {
            let mut looked = false;
            room.after_transaction(pages, was_full, || {
                looked = true;
                None
            });
            looked
        };
        assert!(!looks(LOOK_EVERY - 1, false));
        assert!(looks(LOOK_EVERY, false));
        assert!(!looks(2 * LOOK_EVERY - 1, false));
        assert!(looks(2 * LOOK_EVERY - 1, true));
        assert!(!looks(2 * LOOK_EVERY, false));
        assert!(looks(3, false), "the file has begun anew");
        assert!(!looks(4, false));
        assert!(!room.is_short(), "nobody says how much is free");
    }
}
