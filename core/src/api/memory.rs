//! The data that a shard holds in its own memory.

use prism_backends::{
    NamespaceId, StoreError, UnixMillis,
    memory::{MemoryStore, MessageHeads, Messages, Queues},
};
use prism_codec::method::Api;

/// A shard's memory: a store for each API that can be served from there.
pub(crate) struct ShardMemory {
    pub(crate) keyvalue: MemoryStore,
    pub(crate) pubsub: Messages,
    pub(crate) queue: Queues,
}

impl ShardMemory {
    /// A memory without namespaces. `heads`: how far the messages of all shards have come.
    pub(crate) fn new(keyvalue: MemoryStore, heads: MessageHeads) -> Self {
        Self {
            keyvalue,
            pubsub: Messages::default().beside(heads),
            queue: Queues::default(),
        }
    }

    /// Makes a namespace usable.
    ///
    /// # Errors
    /// It was dropped.
    pub(crate) fn create_namespace(&mut self, api: Api, id: NamespaceId) -> Result<(), StoreError> {
        match api {
            Api::PubSub => self.pubsub.create_namespace(id),
            Api::Queue => self.queue.create_namespace(id),
            _ => self.keyvalue.create_namespace(id),
        }
    }

    /// Drops a namespace. Its number is never used again, whatever its API was.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) fn drop_namespace(&mut self, id: NamespaceId) -> Result<(), StoreError> {
        self.pubsub.drop_namespace(id);
        self.queue.drop_namespace(id);
        self.keyvalue.drop_namespace(id)
    }

    /// When a call that found nothing in a namespace may find something; `None`: not before
    /// somebody writes.
    pub(crate) fn ready_at(&self, id: NamespaceId) -> Option<UnixMillis> {
        self.queue.ready_at(id)
    }

    /// Gives back room of what has expired or was deleted: a bounded step. Returns whether more is
    /// left.
    pub(crate) fn sweep(&mut self, now: UnixMillis, budget: usize) -> bool {
        self.keyvalue.sweep(now, budget).more
            | self.pubsub.sweep(now, budget).more
            | self.queue.sweep(now, budget).more
    }
}
