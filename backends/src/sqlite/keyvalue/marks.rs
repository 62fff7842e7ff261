//! Which ids may have range deletes: so that the put of an id without any, which is nearly every
//! put, costs no statement. A mark too many costs one statement; a mark too few would be a fault.
//! So marks are made before the transaction commits and unmade after.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::ids::NamespaceId;
use crate::version::stable_hash_with;

/// Counts the range deletes of each (namespace, id), by hash.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Marks {
    counts: HashMap<u64, u32, FxBuildHasher>,
    total: usize,
}

impl Marks {
    pub(in crate::sqlite) fn may_have(&self, namespace: NamespaceId, id: &[u8]) -> bool {
        self.total > 0 && self.counts.contains_key(&subject(namespace, id))
    }

    pub(in crate::sqlite) fn total(&self) -> usize {
        self.total
    }

    pub(in crate::sqlite) fn add(&mut self, namespace: NamespaceId, id: &[u8]) {
        *self.counts.entry(subject(namespace, id)).or_default() += 1;
        self.total += 1;
    }

    pub(in crate::sqlite) fn remove(&mut self, namespace: NamespaceId, id: &[u8]) {
        let subject = subject(namespace, id);
        if let Some(count) = self.counts.get_mut(&subject) {
            *count -= 1;
            self.total -= 1;
            if *count == 0 {
                self.counts.remove(&subject);
            }
        }
    }
}

fn subject(namespace: NamespaceId, id: &[u8]) -> u64 {
    stable_hash_with(u64::from(namespace.0), id)
}
