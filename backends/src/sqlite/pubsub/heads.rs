//! How far the messages of each namespace have come, for readers that wait for the next one: a
//! number that the writer moves after each commit, looked at without a lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxBuildHasher;

use crate::ids::NamespaceId;

/// The number that the next message of one namespace gets; 0 while nothing was published in it
/// since the file was opened.
#[derive(Clone, Debug, Default)]
pub struct Head(Arc<AtomicU64>);

impl Head {
    /// Whether there may be messages from `next` on that a reader has not seen, if it had seen all
    /// before.
    pub fn is_beyond(&self, next: u64) -> bool {
        self.0.load(Ordering::Acquire) > next
    }

    fn move_to(&self, next: u64) {
        self.0.fetch_max(next, Ordering::Release);
    }
}

/// The heads of all namespaces that somebody reads or writes.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Heads(Mutex<HashMap<NamespaceId, Head, FxBuildHasher>>);

impl Heads {
    pub(in crate::sqlite) fn of(&self, namespace: NamespaceId) -> Head {
        // Whoever panicked with it left a map that is whole.
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.entry(namespace).or_default().clone()
    }

    pub(super) fn move_to(&self, namespace: NamespaceId, next: u64) {
        self.of(namespace).move_to(next);
    }

    pub(in crate::sqlite) fn forget(&self, namespace: NamespaceId) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.remove(&namespace);
    }
}
