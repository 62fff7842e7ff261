//! How far the messages of each namespace have come, for readers that wait for the next one: a
//! number that the writer moves after each commit, looked at without a lock.

use std::collections::HashMap;
use std::fmt;
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
#[derive(Default)]
pub(in crate::sqlite) struct Heads {
    heads: Mutex<HashMap<NamespaceId, Head, FxBuildHasher>>,
    listeners: Mutex<Vec<Listener>>,
}

type Listener = Box<dyn Fn() + Send>;

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heads")
    }
}

impl Heads {
    pub(in crate::sqlite) fn of(&self, namespace: NamespaceId) -> Head {
        // Whoever panicked with it left a map that is whole.
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.entry(namespace).or_default().clone()
    }

    /// Has `listener` called after each commit of messages, and when a namespace with readers is
    /// dropped.
    pub(super) fn listen(&self, listener: Listener) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(listener);
    }

    pub(super) fn move_to(&self, moved: &[(NamespaceId, u64)]) {
        if moved.is_empty() {
            return;
        }
        for (namespace, next) in moved {
            self.of(*namespace).move_to(*next);
        }
        self.call_listeners();
    }

    /// Sends whoever waits for messages of a namespace to look again, since there will be none.
    pub(in crate::sqlite) fn forget(&self, namespace: NamespaceId) {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = heads.remove(&namespace);
        drop(heads);
        if let Some(head) = gone {
            head.move_to(u64::MAX);
            self.call_listeners();
        }
    }

    fn call_listeners(&self) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener();
        }
    }
}
