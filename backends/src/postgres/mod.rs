//! The PostgreSQL store: tables of one schema, and connections that a shard's sidecar drives.
//!
//! ```text
//!   calls ──> KeyValue ──> Connections ──> PostgreSQL, schema prism
//!                │              └ Pool: which place, when to connect (pure)
//!                └ one statement for a batch of writes, one for a page
//! ```
//!
//! An acknowledgement means that the server has committed with `synchronous_commit = on`: durable
//! there, unless it runs with `fsync = off` (see [`Facts`]). Everything runs on one thread within a
//! tokio runtime; each shard opens a store of its own, with its [`Share`] of the connections.
//! Several gateways may use one database.

pub mod catalog;
mod config;
mod connect;
mod connections;
mod counters;
mod keyvalue;
mod news;
mod pool;
mod positions;
mod probe;
mod provision;
mod pubsub;
mod queue;
mod schema;
mod transaction;

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

pub use config::Config;
pub use connect::Facts;
pub use keyvalue::{KEYVALUE, KeyValue};
pub use pool::{Acquired, Limits, Place, Pool};
pub use probe::Probe;
pub use provision::FORMAT;
pub use pubsub::{PUBSUB, PubSub};
pub use queue::{QUEUE, Queue};
pub use schema::Observed;

use self::connections::Connections;
use crate::api::{Stores, keyvalue::Store, pubsub as pubsub_api, queue as queue_api};
use crate::error::StoreError;
use crate::ids::{LogId, NamespaceId};
use crate::offer::Acked;
use crate::server::{RawConfig, ServerStore, Share, Written};
use crate::sqlite::Presence;

/// The store as used by one thread.
#[derive(Clone, Debug)]
pub struct Postgres {
    connections: Rc<Connections>,
}

impl Postgres {
    /// Makes a store without connections: they are made when calls need them.
    ///
    /// Errors: [`StoreError::InvalidArgument`] if the certificates cannot be read.
    pub fn new(config: &Config, share: Share) -> Result<Postgres, StoreError> {
        Ok(Postgres {
            connections: Connections::new(config.clone(), share.own().max(1))?,
        })
    }

    /// Facts about the server, which show whether it keeps acknowledged writes. Connects if there
    /// is no connection yet.
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        if let Some(facts) = self.connections.facts() {
            return Ok(facts);
        }
        drop(self.connections.acquire().await?);
        self.connections.facts().ok_or_else(|| StoreError::Internal {
            detail: "a connection without facts".to_owned(),
        })
    }
}

impl ServerStore for Postgres {
    type Config = Config;

    fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        Config::check(raw)
    }

    fn open(config: &Config, share: Share) -> Result<Postgres, StoreError> {
        Postgres::new(config, share)
    }

    fn stores(&self) -> Stores {
        Stores {
            keyvalue: Some(Store::Postgres(KeyValue::new(self))),
            pubsub: Some(pubsub_api::Store::Postgres(PubSub::new(self))),
            queue: Some(queue_api::Store::Postgres(Queue::new(self))),
        }
    }

    fn listen(&self, bell: Arc<Notify>) {
        self.connections.news.set_bell(bell);
    }

    async fn keep_listening(&self) -> Result<(), StoreError> {
        self.connections.keep_listening().await
    }

    const BRINGS_NEWS: bool = true;

    fn news(&self) -> Vec<Written> {
        self.connections.news.take()
    }

    async fn announce(&self, queues: &[NamespaceId], topics: &[NamespaceId]) -> Result<(), StoreError> {
        self.connections.announce(queues, topics).await
    }

    async fn prepare(&self, catalog: u128) -> Result<bool, StoreError> {
        self.ensure(false).await?;
        self.claim(catalog).await
    }

    async fn presence(&self, namespace: NamespaceId) -> Result<Presence, StoreError> {
        KeyValue::new(self).presence(namespace).await
    }

    const KEEPS_POSITIONS: bool = true;

    async fn noted(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<u64, StoreError> {
        self.position(log, lane, namespace).await
    }

    async fn forget_position(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<(), StoreError> {
        self.forget_one(log, lane, namespace).await
    }

    fn shortfall(&self, needed: Acked) -> Option<String> {
        let facts = self.connections.facts()?;
        (needed > Acked::Volatile && !facts.is_durable).then(|| {
            format!(
                "postgresql at {} runs with fsync = off, so what it acknowledged may be lost; set fsync = on",
                self.connections.address()
            )
        })
    }

    /// A connection serves one call at a time.
    fn places(&self) -> u32 {
        self.connections.cap()
    }

    fn connections(&self) -> Option<(usize, usize)> {
        Some(self.connections.counts())
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        self.connections.close_idle();
        Ok(())
    }
}
