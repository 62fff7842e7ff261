//! Size of the write-ahead file, and the work that is due because of it. Counts of pages, stored by
//! one thread and read by another; a figure that is a moment old does no harm.

use std::sync::atomic::{AtomicU64, Ordering};

use super::schema::PAGE_SIZE;
use crate::sqlite::Options;

/// Counters of the pages in the write-ahead file.
#[derive(Debug)]
pub(in crate::sqlite) struct WalPages {
    /// As of the writer's last commit.
    now: AtomicU64,
    /// When a checkpoint last left the file as it is; 0 when it has begun anew since.
    left: AtomicU64,
    /// When it was last synced, likewise.
    synced: AtomicU64,
    /// A checkpoint is due when so many were added.
    checkpoint_every: u64,
    /// A sync is due when so many were added.
    sync_every: u64,
    /// From here on the writer moves them itself.
    max: u64,
}

impl WalPages {
    pub(super) fn new(options: &Options) -> WalPages {
        let pages = |bytes| bytes / u64::from(PAGE_SIZE);
        WalPages {
            now: AtomicU64::default(),
            left: AtomicU64::default(),
            synced: AtomicU64::default(),
            checkpoint_every: pages(options.checkpoint_bytes),
            sync_every: pages(options.sync_bytes).max(1),
            max: pages(options.wal_bytes_max),
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(in crate::sqlite) fn set(&self, pages: u64) {
        self.now.store(pages, Ordering::Relaxed);
    }

    /// Notes that the next commit begins the file anew, and so sets the count again.
    pub(super) fn begin_anew(&self) {
        self.set(0);
        self.left.store(0, Ordering::Relaxed);
        self.synced.store(0, Ordering::Relaxed);
    }

    /// A checkpoint has left this many in the file.
    pub(super) fn leave(&self, pages: u64) {
        self.left.store(pages, Ordering::Relaxed);
    }

    /// So many were in the file when a sync began, which has ended well.
    pub(super) fn handle_synced(&self, pages: u64) {
        self.synced.store(pages, Ordering::Relaxed);
    }

    pub(super) fn is_checkpoint_due(&self) -> bool {
        self.has_grown(&self.left, self.checkpoint_every)
    }

    pub(super) fn is_sync_due(&self) -> bool {
        self.has_grown(&self.synced, self.sync_every)
    }

    /// Whether the file must not grow any further before the writer has moved pages itself.
    pub(super) fn is_too_many(&self) -> bool {
        self.get() >= self.max
    }

    /// Whether the file must not grow any further while a checkpoint goes on.
    pub(super) fn is_far_too_many(&self) -> bool {
        self.get() >= 2 * self.checkpoint_every
    }

    fn has_grown(&self, since: &AtomicU64, by: u64) -> bool {
        let (pages, since) = (self.get(), since.load(Ordering::Relaxed));
        // A file with fewer pages than before has begun anew.
        pages >= by + if pages >= since { since } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_and_checkpoints_are_due_by_what_was_added_since_the_last() {
        let pages = WalPages::new(&Options {
            sync_bytes: 2 * u64::from(PAGE_SIZE),
            checkpoint_bytes: 5 * u64::from(PAGE_SIZE),
            ..Options::default()
        });
        let due = |count| {
            pages.set(count);
            (pages.is_sync_due(), pages.is_checkpoint_due())
        };
        assert_eq!(
            [due(0), due(1), due(2)],
            [(false, false), (false, false), (true, false)]
        );
        pages.handle_synced(2);
        assert_eq!(
            [due(2), due(3), due(4)],
            [(false, false), (false, false), (true, false)]
        );
        pages.handle_synced(4);
        assert_eq!(due(5), (false, true));
        // A reader was in the way.
        pages.leave(5);
        assert_eq!([due(9), due(10)], [(true, false), (true, true)]);
        pages.handle_synced(10);
        // The writer has moved the pages itself and begun anew.
        assert_eq!([due(1), due(2)], [(false, false), (true, false)]);
        pages.begin_anew();
        assert_eq!(
            [due(1), due(2), due(5)],
            [(false, false), (true, false), (true, true)]
        );
    }
}
