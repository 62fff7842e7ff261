//! The file, whichever APIs keep their data in it: how it is opened and what it looks like, the
//! writer's transactions, the write-ahead file and what bounds it, and how far logs are applied.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sqlite::{Options, pubsub::Heads};

pub(in crate::sqlite) mod checkpointer;
pub(in crate::sqlite) mod files;
mod formats;
mod gather;
pub(in crate::sqlite) mod positions;
pub(in crate::sqlite) mod room;
pub(in crate::sqlite) mod schema;
pub(in crate::sqlite) mod stamps;
#[allow(unsafe_code)]
pub(in crate::sqlite) mod system_calls;
pub(in crate::sqlite) mod transaction;
pub(in crate::sqlite) mod wal_pages;

/// The little state that the parts share, whichever threads they live on.
#[derive(Debug)]
pub(in crate::sqlite) struct Shared {
    pub(in crate::sqlite) files: files::Files,
    pub(in crate::sqlite) room: room::Room,
    /// Passed for each transaction of the writer, and by the round of a checkpoint that holds the
    /// writer.
    gate: files::Gate,
    pub(in crate::sqlite) wal_pages: wal_pages::WalPages,
    /// Moves on when a namespace is created or dropped.
    pub(in crate::sqlite) namespace_epoch: AtomicU64,
    /// How far the messages of each namespace have come.
    pub(in crate::sqlite) heads: Heads,
    /// Held during a round of a checkpoint: SQLite would refuse a second one instead of waiting.
    checkpointing: Mutex<()>,
}

impl Shared {
    pub(in crate::sqlite) fn new(files: files::Files, options: &Options) -> Shared {
        Shared {
            files,
            room: room::Room::new(options.room_bytes_min),
            gate: files::Gate::default(),
            wal_pages: wal_pages::WalPages::new(options),
            namespace_epoch: AtomicU64::default(),
            heads: Heads::default(),
            checkpointing: Mutex::default(),
        }
    }

    /// Waits until nobody is in the middle of a round of a checkpoint, and keeps others from
    /// beginning one.
    fn take_turn(&self) -> MutexGuard<'_, ()> {
        // The guarded value is empty: a thread that panicked with it left nothing half done.
        self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_checkpoint_due(&self) -> bool {
        self.room.is_short() || self.wal_pages.is_checkpoint_due()
    }

    /// Whether the checkpointer has work.
    pub(in crate::sqlite) fn is_checkpointer_due(&self) -> bool {
        self.wal_pages.is_sync_due() || self.is_checkpoint_due()
    }
}
