//! PubSub in the file: the one writer numbers messages and remembers their ids, readers go through
//! them by number, and the sweep removes the oldest.
//!
//! A namespace with messages has a small number of its own (`message_space`), and a message's place
//! in its table is that number and the message's, so one namespace's messages lie together in their
//! order, without an index. Numbers, times and expiries do not fall within a namespace: what is
//! looked for is found by halving.

mod groups;
mod heads;
mod reader;
mod space;
mod writer;

pub use heads::Head;
pub(in crate::sqlite) use heads::Heads;
pub(in crate::sqlite) use space::{Spaces, place_range};
pub use writer::TopicTransaction;
pub(in crate::sqlite) use writer::{sweep_dropped, sweep_expired};

use std::cell::RefCell;

use super::{SqliteStore, Writer};
use crate::api::pubsub::{Message, MessageSink, Opened, Outcome, Read, Reads, Start, Sweep, Upkeep, Writes};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};

/// Promises of SQLite for PubSub.
pub const PUBSUB: Offer = Offer {
    api: Api::PubSub,
    acked: Acked::DurableOnSync,
    replay: Replay::Exact,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::REPLAY)
        .and(Features::GROUPS),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: true,
};

fn writer(store: &SqliteStore) -> &RefCell<Writer> {
    &store.writer
}

impl Writes for SqliteStore {
    async fn publish(
        &self,
        batch: &[Message<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        let positions = at.map_or(&[][..], std::slice::from_ref);
        writer(self).borrow_mut().publish_at(batch, positions, outcomes)
    }
}

impl Reads for SqliteStore {
    async fn open(
        &self,
        namespace: NamespaceId,
        start: Start,
        now: UnixMillis,
    ) -> Result<Opened, StoreError> {
        self.reader.open_messages(namespace, start, now)
    }

    async fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Read, StoreError> {
        self.reader.read_messages(namespace, next, now, sink)
    }
}

impl Upkeep for SqliteStore {
    fn offer(&self) -> Offer {
        PUBSUB
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        writer(self).borrow_mut().create_namespace(namespace)
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        writer(self).borrow_mut().drop_namespace(namespace)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        writer(self).borrow_mut().sweep(now, budget)
    }
}
