//! KeyValue's traits: what a store reads, what it writes, and how its namespaces are kept.
//!
//! Their methods take `&self`, so that many calls of one connection pool can be under way at once. The promises of the crate's
//! page are those of all implementations, and [`crate::behavior`] checks them. The futures of memory and SQLite are ready at
//! the first poll: the one computes, the other blocks, so it runs on a thread of its own.

use std::cell::RefCell;

use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::memory::MemoryStore;
use crate::mutation::{Mutation, Outcome};
use crate::offer::Offer;
use crate::postgres;
use crate::query::{GetQuery, ItemSink, PageToken, ScanQuery};
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
    /// Applies mutations in their order, as one transaction where the store has transactions. `outcomes` is cleared
    /// and gets one outcome for each. A mutation takes effect as a whole or not at all, and a refused one does not
    /// harm the others. On `Err` no mutation had an effect (after [`StoreError::Io`]: perhaps all had; apply the same
    /// batch again).
    ///
    /// `at` is the place in a gateway's log of the batch's last record. A store whose offer says
    /// [`Replay::Exact`](crate::offer::Replay) notes it together with the batch's effect, whatever the outcomes; the memory
    /// store refuses it.
    async fn apply(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError>;
}

/// The namespaces of a store, and the room that they take.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Upkeep {
    /// What this store promises for KeyValue.
    fn offer(&self) -> Offer;

    /// How deletes are remembered.
    fn remembers(&self) -> Remembers;

    /// Makes a namespace usable. Making one that exists is no error.
    ///
    /// Errors: [`StoreError::DroppedNamespace`] if the number was used before.
    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Makes all data of a namespace vanish at once; `sweep` gives the room back. Dropping what is not there is no
    /// error; the number is burnt all the same.
    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Gives back the room of expired items, forgotten deletes and dropped namespaces: one step that looks at about
    /// `budget` items. A mutation whose moment ([`Mutation::at`]) lies before `now` may be judged without what was removed.
    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError>;
}

/// How long deletes are remembered, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembers {
    /// How long a delete is remembered, in milliseconds.
    pub window_ms: u64,
    /// How many deletes are remembered at most.
    pub deletes_max: usize,
}

/// How one step of a sweep went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Rows, items or slots that were looked at.
    pub examined: usize,
    /// Those whose room was given back.
    pub removed: usize,
    /// Whether there was more to do than the step allowed; call again soon.
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
