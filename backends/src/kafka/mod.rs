//! The Kafka store: a topic for each namespace, and the clients of each shard.
//!
//! ```text
//!   calls ──> PubSub ──> Cluster ──> producer ─┐
//!                                └─> consumer ─┴─> topic prism-7 of namespace 7, topic prism of all
//! ```
//!
//! A topic has one partition, so a message's number is its offset, and a reader's place is one
//! number. The client library has threads of its own; the shard's sidecar hands messages to them
//! and is woken by their reports.

mod cluster;
mod config;
mod feed;
mod known;
mod link;
mod marks;
mod namespaces;
mod probe;
mod publish;
mod read;
mod replay;
mod settings;
mod topics;
mod wire;

use std::rc::Rc;
use std::time::Duration;

pub use config::Config;

use self::cluster::Cluster;
use self::settings::Settings;
use crate::api::{Stores, pubsub};
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};
use crate::server::{RawConfig, ServerStore, Share};
use crate::sqlite::Presence;

/// Promises of Kafka for PubSub. What the brokers' settings allow is asked when a namespace is
/// made.
pub const PUBSUB: Offer = Offer {
    api: Api::PubSub,
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

/// The store as one thread uses it.
#[derive(Clone, Debug)]
pub struct Kafka {
    cluster: Rc<Cluster>,
}

/// PubSub on it.
#[derive(Clone, Debug)]
pub struct PubSub {
    cluster: Rc<Cluster>,
}

impl ServerStore for Kafka {
    type Config = Config;

    const KEEPS_POSITIONS: bool = true;

    // By its id, and only for the time for which that is remembered.
    const KNOWS_ITS_WRITES: &'static [Api] = &[];

    fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        Config::check(raw)
    }

    fn open(config: &Config, _: Share) -> Result<Kafka, StoreError> {
        Ok(Kafka {
            cluster: Cluster::new(config.clone()),
        })
    }

    fn stores(&self) -> Stores {
        Stores {
            pubsub: Some(pubsub::Store::Kafka(PubSub {
                cluster: self.cluster.clone(),
            })),
            ..Stores::default()
        }
    }

    async fn prepare(&self, catalog: u128) -> Result<bool, StoreError> {
        namespaces::prepare(&self.cluster, catalog).await
    }

    async fn presence(&self, namespace: NamespaceId) -> Result<Presence, StoreError> {
        namespaces::presence(&self.cluster, namespace).await
    }

    async fn retain(&self, namespace: NamespaceId, retention: Option<Duration>) -> Result<(), StoreError> {
        namespaces::retain(&self.cluster, namespace, retention).await
    }

    fn shortfall(&self, needed: Acked) -> Option<String> {
        self.cluster
            .settings
            .get()?
            .shortfall(needed, self.cluster.address())
    }

    fn places(&self) -> u32 {
        cluster::CALLS_MAX
    }

    fn connections(&self) -> Option<(usize, usize)> {
        Some(self.cluster.connections())
    }

    async fn noted(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<u64, StoreError> {
        replay::noted(&self.cluster, log, lane, namespace).await
    }

    async fn forget_position(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<(), StoreError> {
        replay::forget(&self.cluster, log, lane, namespace).await
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        let link = self.cluster.acquire().await?;
        link.attend();
        self.cluster.rest();
        if self.cluster.catalog.get().is_some() && self.cluster.is_settings_due() {
            self.cluster
                .settings
                .set(Some(Settings::read(&self.cluster, &link).await?));
        }
        marks::flush(&self.cluster, &link).await
    }
}

impl pubsub::Writes for PubSub {
    async fn publish(
        &self,
        batch: &[pubsub::Message<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<pubsub::Outcome>,
    ) -> Result<(), StoreError> {
        publish::publish(&self.cluster, batch, at, outcomes).await
    }
}

impl pubsub::Reads for PubSub {
    async fn open(
        &self,
        namespace: NamespaceId,
        start: pubsub::Start,
        now: UnixMillis,
    ) -> Result<pubsub::Opened, StoreError> {
        read::open(&self.cluster, namespace, start, now).await
    }

    async fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl pubsub::MessageSink,
    ) -> Result<pubsub::Read, StoreError> {
        read::read(&self.cluster, namespace, next, now, sink).await
    }
}

impl crate::api::groups::Groups for PubSub {}

impl pubsub::Upkeep for PubSub {
    fn offer(&self) -> Offer {
        PUBSUB
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        namespaces::create(&self.cluster, namespace).await
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        namespaces::remove(&self.cluster, namespace).await
    }

    /// Nothing: the brokers remove what is older than the retention.
    async fn sweep(&self, _: UnixMillis, _: usize) -> Result<pubsub::Sweep, StoreError> {
        Ok(pubsub::Sweep::default())
    }
}
