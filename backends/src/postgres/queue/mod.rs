//! Queues in tables. They are described in `STORE.md`.
//!
//! ```text
//!   Send, Ack, Nack, Redrive, Delete ──> hold the counter, load, judge, write: one transaction
//!   Receive ──> lock what may be given and nobody else has locked, judge, write
//! ```
//!
//! What becomes of a message is judged by [`crate::api::queue::Item`], as in every store. Changes
//! of one queue wait for each other ([counters](super::counters)); receiving waits for nobody and
//! never for the disk, since a lease that a crash of the server undoes is given again.

mod reads;
mod rows;
mod sweep;
mod work;
mod writes;

use std::rc::Rc;

use super::Postgres;
use super::connections::Connections;
use super::keyvalue::KeyValue;
use crate::api::keyvalue::Upkeep as _;
use crate::api::queue::{Sweep, Upkeep};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};

/// Promises of PostgreSQL for Queue. A server with `fsync = off` keeps none of them through a power
/// cut; [`Upkeep::offer`] accounts for that once it has been detected.
pub const QUEUE: Offer = Offer {
    api: Api::Queue,
    acked: Acked::Durable,
    replay: Replay::Exact,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::REPLAY),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: true,
};

/// Queues on one store. Its futures run on the thread of its connections, inside a tokio runtime,
/// and must be polled to their end.
#[derive(Clone, Debug)]
pub struct Queue {
    connections: Rc<Connections>,
    /// Namespaces are the same for all APIs.
    namespaces: KeyValue,
}

impl Queue {
    /// Queues over the connections of a store.
    pub fn new(store: &Postgres) -> Queue {
        Queue {
            connections: store.connections.clone(),
            namespaces: KeyValue::new(store),
        }
    }
}

impl Upkeep for Queue {
    fn offer(&self) -> Offer {
        match self.connections.facts() {
            Some(facts) if !facts.is_durable => Offer {
                acked: Acked::Volatile,
                ..QUEUE
            },
            _ => QUEUE,
        }
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.namespaces.create_namespace(namespace).await
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.namespaces.drop_namespace(namespace).await
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        self.sweep_messages(now, budget).await
    }
}
