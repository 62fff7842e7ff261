//! Queues in the file. The writer makes every change, receiving included; readers show and count.
//!
//! A message's place comes from the same spaces as those of topics ([`super::pubsub`]): the
//! messages of a namespace lie together in the order in which they were sent.

mod reader;
mod rows;
mod sweep;
mod writer;

pub(in crate::sqlite) use sweep::{sweep, sweep_dropped};
pub use writer::QueueTransaction;

use super::SqliteStore;
use crate::api::queue::{
    Change, Counts, Held, Late, Outcome, Peek, Reads, Receive, Received, Sink, Sweep, Upkeep, Writes,
};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};

/// Promises of SQLite for Queue.
pub const QUEUE: Offer = Offer {
    api: Api::Queue,
    acked: Acked::DurableOnSync,
    replay: Replay::Exact,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::REPLAY),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: true,
};

impl Writes for SqliteStore {
    async fn apply(
        &self,
        batch: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        let made = self
            .writer
            .borrow_mut()
            .queue_at(at.copied().as_slice(), |transaction| {
                batch.iter().map(|change| transaction.apply(change)).collect()
            });
        made.map(|made: Vec<Outcome>| outcomes.extend(made))
    }

    async fn receive(
        &self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError> {
        self.writer
            .borrow_mut()
            .queue_at(&[], |transaction| transaction.receive(receive, now, sink))
    }

    async fn extend(
        &self,
        namespace: NamespaceId,
        held: &[Held<'_>],
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<Vec<Result<UnixMillis, Late>>, StoreError> {
        self.writer.borrow_mut().queue_at(&[], |transaction| {
            held.iter()
                .map(|held| transaction.extend(namespace, held, lease_ms, now))
                .collect()
        })
    }
}

impl Reads for SqliteStore {
    async fn peek(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError> {
        self.reader.peek_queue(peek, now, sink)
    }

    async fn stats(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError> {
        self.reader.count_queue(namespace, now)
    }
}

impl Upkeep for SqliteStore {
    fn offer(&self) -> Offer {
        QUEUE
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.writer.borrow_mut().create_namespace(namespace)
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.writer.borrow_mut().drop_namespace(namespace)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        self.writer.borrow_mut().sweep(now, budget)
    }
}
