//! The memory store: the reference for all others and the fastest of them. One instance belongs to one shard; its
//! plain methods do not block, and need no future.

use crate::error::StoreError;
use crate::limits::VALUE_BYTES_MAX;
use crate::mutation::{Mutation, NamespaceId, Outcome, UnixMillis};
use crate::query::{GetQuery, ItemSink, PageToken, ScanQuery};
use crate::store::{Capabilities, KeyValueStore, Sweep};

/// How a memory store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a delete is remembered, in milliseconds. At least twice the drift that is allowed to the clocks of
    /// clients, or an older write could win against a delete.
    pub tombstone_window_ms: u64,
    /// How many deletes are remembered at most; each costs about 100 bytes and its key.
    pub tombstones_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tombstone_window_ms: 10 * 60 * 1000,
            tombstones_max: 1_000_000,
        }
    }
}

/// A key-value store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    capabilities: Capabilities,
}

impl MemoryStore {
    /// An empty store with default options.
    pub fn new() -> MemoryStore {
        MemoryStore::with_options(Options::default())
    }

    /// An empty store.
    pub fn with_options(options: Options) -> MemoryStore {
        MemoryStore {
            capabilities: Capabilities {
                name: "memory",
                survives_restart: false,
                survives_power_cut_at_once: false,
                blocks: false,
                concurrent_readers: false,
                value_bytes_max: VALUE_BYTES_MAX,
                chunk_bytes: None,
                tombstone_window_ms: options.tombstone_window_ms,
                tombstones_max: options.tombstones_max,
            },
        }
    }

    /// See [`KeyValueStore::create_namespace`].
    pub fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        Err(StoreError::UnknownNamespace(namespace))
    }

    /// See [`KeyValueStore::drop_namespace`].
    pub fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        Err(StoreError::UnknownNamespace(namespace))
    }

    /// Applies one mutation: the hot path.
    pub fn apply_one(&mut self, mutation: &Mutation<'_>, now: UnixMillis) -> Outcome {
        let _ = now;
        Outcome::Refused(StoreError::UnknownNamespace(mutation.namespace))
    }

    /// See [`KeyValueStore::get`].
    pub fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let _ = (now, sink);
        Err(StoreError::UnknownNamespace(query.namespace))
    }

    /// See [`KeyValueStore::scan`].
    pub fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let _ = (now, sink);
        Err(StoreError::UnknownNamespace(query.namespace))
    }

    /// See [`KeyValueStore::sweep`]. Cannot fail.
    pub fn sweep(&mut self, now: UnixMillis, budget: usize) -> Sweep {
        let _ = (now, budget);
        Sweep::default()
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl KeyValueStore for MemoryStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        MemoryStore::create_namespace(self, namespace)
    }

    async fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        MemoryStore::drop_namespace(self, namespace)
    }

    async fn apply(
        &mut self,
        batch: &[Mutation<'_>],
        now: UnixMillis,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        outcomes.extend(batch.iter().map(|mutation| self.apply_one(mutation, now)));
        Ok(())
    }

    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        MemoryStore::get(self, query, now, sink)
    }

    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        MemoryStore::scan(self, query, now, sink)
    }

    async fn sweep(&mut self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        Ok(MemoryStore::sweep(self, now, budget))
    }
}
