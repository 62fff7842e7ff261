//! The closed enum of all stores, by which the gateway dispatches without virtual calls.

use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::memory::MemoryStore;
use crate::mutation::{Mutation, Outcome};
use crate::query::{GetQuery, ItemSink, PageToken, ScanQuery};
use crate::sqlite::SqliteStore;
use crate::store::{Capabilities, KeyValueStore, Sweep};

/// Every store there is.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one per shard or process, and it is never moved"
)]
pub enum Store {
    /// In this process's memory; gone with it.
    Memory(MemoryStore),
    /// In a SQLite file.
    Sqlite(SqliteStore),
}

macro_rules! dispatch {
    ($self:expr, $store:ident => $call:expr) => {
        match $self {
            Store::Memory($store) => $call,
            Store::Sqlite($store) => $call,
        }
    };
}

impl KeyValueStore for Store {
    fn capabilities(&self) -> &Capabilities {
        dispatch!(self, store => KeyValueStore::capabilities(store))
    }

    async fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        dispatch!(self, store => KeyValueStore::create_namespace(store, namespace).await)
    }

    async fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        dispatch!(self, store => KeyValueStore::drop_namespace(store, namespace).await)
    }

    async fn apply(&mut self, batch: &[Mutation<'_>], outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
        dispatch!(self, store => KeyValueStore::apply(store, batch, outcomes).await)
    }

    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        dispatch!(self, store => KeyValueStore::get(store, query, now, sink).await)
    }

    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        dispatch!(self, store => KeyValueStore::scan(store, query, now, sink).await)
    }

    async fn sweep(&mut self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        dispatch!(self, store => KeyValueStore::sweep(store, now, budget).await)
    }
}
