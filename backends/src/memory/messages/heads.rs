//! How far the messages of each partition of a namespace have come at each shard: numbers that one
//! shard writes, and the shard that keeps the groups of a namespace reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxBuildHasher;

use crate::ids::NamespaceId;

/// Partitions that are told apart.
const PARTITIONS: usize = 16;

type Shared = Arc<Mutex<HashMap<NamespaceId, Arc<[AtomicU64]>, FxBuildHasher>>>;

/// The numbers of all shards of a process, as one of them has them.
#[derive(Clone, Debug)]
pub struct MessageHeads {
    shared: Shared,
    shard: usize,
    shards: usize,
}

/// The numbers of one namespace at one shard.
#[derive(Debug, Default)]
pub(super) struct Head {
    all: Option<Arc<[AtomicU64]>>,
    shard: usize,
}

impl Head {
    /// Notes the number of the next message after one of this partition.
    pub(super) fn move_to(&self, partition: u16, next: u64) {
        let slot = slot_of(self.shard, partition);
        if let Some(own) = self.all.as_ref().and_then(|all| all.get(slot)) {
            own.store(next, Ordering::Relaxed);
        }
    }
}

fn slot_of(shard: usize, partition: u16) -> usize {
    shard * PARTITIONS + usize::from(partition) % PARTITIONS
}

impl MessageHeads {
    /// Numbers for so many shards.
    pub fn new(shards: usize) -> MessageHeads {
        MessageHeads {
            shared: Shared::default(),
            shard: 0,
            shards,
        }
    }

    /// The same numbers, as this shard has them.
    #[must_use]
    pub fn of_shard(&self, shard: usize) -> MessageHeads {
        MessageHeads {
            shard,
            ..self.clone()
        }
    }

    /// Number of the shard that has them.
    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    pub(super) fn shards(&self) -> usize {
        self.shards
    }

    /// The numbers of a namespace at this shard.
    pub(super) fn head(&self, namespace: NamespaceId) -> Head {
        Head {
            all: Some(self.all(namespace)),
            shard: self.shard,
        }
    }

    /// Messages of a namespace at a shard from the least of these places on that has any after it:
    /// an upper bound of those after the places, and 0 if there is none.
    pub(super) fn behind(&self, namespace: NamespaceId, shard: usize, places: &[(u16, u64)]) -> u64 {
        let all = self.all(namespace);
        let next_of = |partition| {
            let next = all.get(slot_of(shard, partition));
            next.map_or(0, |next| next.load(Ordering::Relaxed))
        };
        let is_behind = |(partition, place): &&(u16, u64)| next_of(*partition) > *place;
        let first = places.iter().filter(is_behind).map(|(_, place)| *place).min();
        let last = (0..PARTITIONS as u16).map(next_of).max().unwrap_or(0);
        first.map_or(0, |first| last.saturating_sub(first))
    }

    pub(super) fn forget(&self, namespace: NamespaceId) {
        self.lock().remove(&namespace);
    }

    fn all(&self, namespace: NamespaceId) -> Arc<[AtomicU64]> {
        let zeros = || (0..self.shards * PARTITIONS).map(|_| AtomicU64::new(0)).collect();
        self.lock().entry(namespace).or_insert_with(zeros).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NamespaceId, Arc<[AtomicU64]>, FxBuildHasher>> {
        // Whoever panicked with it left a map that is whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
