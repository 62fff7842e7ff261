//! KeyValue's traits: reads and writes of a store, and the upkeep of its namespaces.
//!
//! Their methods take `&self`, so that many calls of one connection pool can be in flight at once.
//! The promises of the crate's page are those of all implementations, and [`crate::behavior`]
//! checks them. The futures of memory and SQLite are ready at the first poll: memory computes,
//! SQLite blocks, so it runs on its own thread.

use std::cell::RefCell;

use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::memory::MemoryStore;
use crate::mutation::{Mutation, Outcome};
use crate::offer::Offer;
use crate::postgres;
use crate::query::{GetQuery, ItemSink, PageToken, ScanQuery};
use crate::redis;
use crate::sqlite::SqliteStore;

/// The reading half.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Reads {
    /// Reads one page of one id's items. `None`: this was the last page.
    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError>;

    /// Reads one page of a namespace. `None`: this was the last page.
    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError>;
}

/// The writing half.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Writes {
    /// Applies mutations in their order, as one transaction where the store has transactions.
    /// `outcomes` is cleared and gets one outcome for each. A mutation takes effect as a whole or
    /// not at all, and a refused one does not harm the others. On `Err` no mutation had an effect
    /// (after [`StoreError::Io`]: perhaps all had; apply the same batch again).
    ///
    /// `at` is the place of the batch's last record in a gateway's log. A store whose offer has
    /// [`Replay::Exact`](crate::offer::Replay) notes it together with the batch's effect, whatever
    /// the outcomes; the memory store refuses it.
    async fn apply(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError>;
}

/// Upkeep of a store's namespaces, and of the room that they take.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Upkeep {
    /// The store's promises for KeyValue.
    fn offer(&self) -> Offer;

    /// Limits within which deletes are remembered.
    fn remembers(&self) -> Remembers;

    /// Makes a namespace usable. An existing one is no error.
    ///
    /// Errors: [`StoreError::DroppedNamespace`] if the number was used before.
    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Removes all data of a namespace from view at once; `sweep` gives the room back. A missing
    /// namespace is no error; its number is never used again all the same.
    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Gives back the room of expired items, forgotten deletes and dropped namespaces: one step
    /// that looks at about `budget` items. A mutation whose moment ([`Mutation::at`]) lies before
    /// `now` may then be judged without the removed items and deletes.
    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError>;
}

/// Limits within which deletes are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembers {
    /// Time for which a delete is remembered, in milliseconds.
    pub window_ms: u64,
    /// Most deletes that are remembered.
    pub deletes_max: usize,
}

/// Result of one step of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Rows, items or slots examined.
    pub examined: usize,
    /// Rows, items or slots whose room was given back.
    pub removed: usize,
    /// Whether work is left that the step did not allow; call again soon.
    pub more: bool,
}

/// Every store that serves KeyValue, for dispatch without virtual calls.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one per shard or process, and it is never moved"
)]
pub enum Store {
    /// In this process's memory; gone with it.
    Memory(RefCell<MemoryStore>),
    /// In a SQLite file.
    Sqlite(SqliteStore),
    /// In tables of a PostgreSQL server.
    Postgres(postgres::KeyValue),
    /// In keys of a Redis server.
    Redis(redis::KeyValue),
}

impl Store {
    /// An empty store in memory.
    pub fn memory() -> Store {
        Store::Memory(RefCell::new(MemoryStore::new()))
    }
}

macro_rules! dispatch {
    ($self:expr, $store:ident => $call:expr) => {
        match $self {
            Store::Memory($store) => $call,
            Store::Sqlite($store) => $call,
            Store::Postgres($store) => $call,
            Store::Redis($store) => $call,
        }
    };
}

impl Reads for Store {
    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        dispatch!(self, store => Reads::get(store, query, now, sink).await)
    }

    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        dispatch!(self, store => Reads::scan(store, query, now, sink).await)
    }
}

impl Writes for Store {
    async fn apply(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        dispatch!(self, store => Writes::apply(store, batch, at, outcomes).await)
    }
}

impl Upkeep for Store {
    fn offer(&self) -> Offer {
        dispatch!(self, store => Upkeep::offer(store))
    }

    fn remembers(&self) -> Remembers {
        dispatch!(self, store => Upkeep::remembers(store))
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        dispatch!(self, store => Upkeep::create_namespace(store, namespace).await)
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        dispatch!(self, store => Upkeep::drop_namespace(store, namespace).await)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        dispatch!(self, store => Upkeep::sweep(store, now, budget).await)
    }
}
