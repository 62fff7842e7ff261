//! The NATS store: streams of a server with JetStream, and one connection for each shard.
//!
//! ```text
//!   calls ──> PubSub ──> Links ──> NATS, stream PRISM-7 of namespace 7, stream PRISM of all
//!               └ a batch that is stored as a whole, a read of many messages at once
//! ```
//!
//! A message's number is its sequence in the stream. A batch of the log carries its position, and
//! the stream PRISM has the last one of each lane, so a start finds out what is there. A message
//! goes by itself when it expires. Everything runs on one thread within a tokio runtime; each shard
//! opens a store of its own.

mod config;
mod connect;
mod links;
mod namespaces;
mod positions;
mod probe;
mod publish;
mod read;
mod subject;

use std::rc::Rc;

pub use config::Config;

use self::links::Links;
use crate::api::{Stores, groups, pubsub};
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};
use crate::server::{RawConfig, ServerStore, Share};
use crate::sqlite::Presence;

/// Promises of NATS for PubSub. An acknowledged message is with the system's cache, and on disk
/// after the server's `sync_interval`.
pub const PUBSUB: Offer = Offer {
    api: Api::PubSub,
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

/// The store as one thread uses it.
#[derive(Clone, Debug)]
pub struct Nats {
    links: Rc<Links>,
}

/// PubSub on it.
#[derive(Clone, Debug)]
pub struct PubSub {
    links: Rc<Links>,
}

impl ServerStore for Nats {
    type Config = Config;

    const KEEPS_POSITIONS: bool = true;

    fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        Config::check(raw)
    }

    fn open(config: &Config, _: Share) -> Result<Nats, StoreError> {
        Ok(Nats {
            links: Links::new(config.clone())?,
        })
    }

    fn stores(&self) -> Stores {
        Stores {
            pubsub: Some(pubsub::Store::Nats(PubSub {
                links: self.links.clone(),
            })),
            ..Stores::default()
        }
    }

    async fn prepare(&self, catalog: u128) -> Result<bool, StoreError> {
        namespaces::prepare(&self.links, catalog).await
    }

    async fn presence(&self, namespace: NamespaceId) -> Result<Presence, StoreError> {
        namespaces::presence(&self.links, namespace).await
    }

    fn shortfall(&self, needed: Acked) -> Option<String> {
        if needed < Acked::Durable || self.links.config().syncs_always {
            return None;
        }
        Some(format!(
            "nats at {} may acknowledge a message before it is on disk; set sync_interval: always there, and say so in \
             the entry of the store",
            self.links.address()
        ))
    }

    fn payload_max(&self) -> Option<u64> {
        let whole = self.links.payload_max()?;
        Some(whole.saturating_sub(publish::BESIDE_PAYLOAD_MAX) as u64)
    }

    fn places(&self) -> u32 {
        links::CALLS_MAX
    }

    fn connections(&self) -> Option<(usize, usize)> {
        Some(self.links.connections())
    }

    async fn noted(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<u64, StoreError> {
        positions::noted(&self.links, log, lane, namespace).await
    }

    async fn forget_position(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<(), StoreError> {
        positions::forget(&self.links, log, lane, namespace).await
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        self.links.acquire().await.map(drop)
    }
}

impl pubsub::Writes for PubSub {
    async fn publish(
        &self,
        batch: &[pubsub::Message<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<pubsub::Outcome>,
    ) -> Result<(), StoreError> {
        publish::publish(&self.links, batch, at, outcomes).await
    }
}

impl pubsub::Reads for PubSub {
    async fn open(
        &self,
        namespace: NamespaceId,
        start: pubsub::Start,
        now: UnixMillis,
    ) -> Result<pubsub::Opened, StoreError> {
        read::open(&self.links, namespace, start, now).await
    }

    async fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl pubsub::MessageSink,
    ) -> Result<pubsub::Read, StoreError> {
        read::read(&self.links, namespace, next, now, sink).await
    }
}

impl groups::Groups for PubSub {}

impl pubsub::Upkeep for PubSub {
    fn offer(&self) -> Offer {
        match self.links.config().syncs_always {
            true => Offer {
                acked: Acked::Durable,
                ..PUBSUB
            },
            false => PUBSUB,
        }
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        namespaces::create(&self.links, namespace).await
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        namespaces::remove(&self.links, namespace).await
    }

    /// Nothing: messages go by themselves.
    async fn sweep(&self, _: UnixMillis, _: usize) -> Result<pubsub::Sweep, StoreError> {
        Ok(pubsub::Sweep::default())
    }
}
