//! The trait that every store implements, and what a store says about itself.

use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::{Mutation, Outcome};
use crate::query::{GetQuery, ItemSink, PageToken, ScanQuery};

/// What a store can and cannot do, for the planner and for the reader of an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Name of the store, in lower case.
    pub name: &'static str,
    /// Whether data outlives the process.
    pub survives_restart: bool,
    /// Whether an applied write outlives a power cut at once; if not, the last seconds may be lost (never more, and
    /// never half a mutation).
    pub survives_power_cut_at_once: bool,
    /// Whether calls block their thread, so that they must not run on a shard.
    pub blocks: bool,
    /// Whether one store may be read by several threads while one writes.
    pub concurrent_readers: bool,
    /// Largest value, in bytes.
    pub value_bytes_max: usize,
    /// Values above this are stored in chunks of it; `None`: always whole.
    pub chunk_bytes: Option<usize>,
    /// How long a delete is remembered, in milliseconds.
    pub tombstone_window_ms: u64,
    /// How many deletes are remembered at most.
    pub tombstones_max: usize,
}

/// How one step of `sweep` went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Rows, items or slots that were looked at.
    pub examined: usize,
    /// Those whose room was given back.
    pub removed: usize,
    /// Whether there was more to do than the step allowed; call again soon.
    pub more: bool,
}

/// A key-value store. The futures of the stores in this crate are ready at the first poll: the memory store computes,
/// SQLite blocks ([`Capabilities::blocks`]).
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait KeyValueStore {
    /// What this store can do.
    fn capabilities(&self) -> &Capabilities;

    /// Makes a namespace usable. Making one that exists is no error.
    ///
    /// Errors: [`StoreError::DroppedNamespace`] if the number was used before.
    async fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Makes all data of a namespace vanish at once; `sweep` gives the room back. Dropping what is not there is no
    /// error; the number is burnt all the same.
    async fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Applies mutations in their order, as one transaction where the store has transactions. `outcomes` is cleared
    /// and gets one outcome for each. A mutation takes effect as a whole or not at all, and a refused one does not
    /// harm the others. On `Err` no mutation had an effect (after [`StoreError::Io`]: perhaps all had; apply the same
    /// batch again).
    async fn apply(&mut self, batch: &[Mutation<'_>], outcomes: &mut Vec<Outcome>) -> Result<(), StoreError>;

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

    /// Gives back the room of expired items, forgotten deletes and dropped namespaces: one step that looks at about
    /// `budget` items. A mutation whose moment ([`Mutation::at`]) lies before `now` may be judged without what was removed.
    async fn sweep(&mut self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError>;
}
