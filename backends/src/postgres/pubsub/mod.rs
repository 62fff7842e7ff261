//! Topics in tables. They are described in `STORE.md`.
//!
//! A message's number is taken from the counter of its namespace ([counters](super::counters)),
//! which is held until the commit: so whoever sees a number has seen all smaller ones, and a reader
//! that has passed one misses nothing. Numbers, times and expiries do not fall within a namespace:
//! what is looked for is found by halving.

mod reads;
mod writes;

use std::rc::Rc;

use tokio_postgres::types::ToSql;

use super::Postgres;
use super::connect::{Fault, Link};
use super::connections::Connections;
use super::keyvalue::KeyValue;
use crate::api::groups::Groups;
use crate::api::keyvalue::Upkeep as _;
use crate::api::pubsub::{Sweep, Upkeep};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};

/// Promises of PostgreSQL for PubSub. A server with `fsync = off` keeps none of them through a
/// power cut; [`Upkeep::offer`] accounts for that once it has been detected.
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

/// Topics on one store. Its futures run on the thread of its connections, inside a tokio runtime,
/// and must be polled to their end.
#[derive(Clone, Debug)]
pub struct PubSub {
    connections: Rc<Connections>,
    /// Namespaces are the same for all APIs.
    namespaces: KeyValue,
}

impl PubSub {
    /// Topics over the connections of a store.
    pub fn new(store: &Postgres) -> PubSub {
        PubSub {
            connections: store.connections.clone(),
            namespaces: KeyValue::new(store),
        }
    }
}

impl Groups for PubSub {}

impl Upkeep for PubSub {
    fn offer(&self) -> Offer {
        match self.connections.facts() {
            Some(facts) if !facts.is_durable => Offer {
                acked: Acked::Volatile,
                ..PUBSUB
            },
            _ => PUBSUB,
        }
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.namespaces.create_namespace(namespace).await
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.namespaces.drop_namespace(namespace).await
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let limit = budget.max(1) as i64;
        self.connections
            .on_one(async |link: &Link| {
                let mut done = Sweep::default();
                let parameters: &[&(dyn ToSql + Sync)] = &[&millis(now), &limit];
                for text in [FORGET_IDS, REMOVE_EXPIRED] {
                    let rows = link.execute(text, parameters).await?;
                    done.examined += rows as usize;
                    done.removed += rows as usize;
                    done.more |= rows.cast_signed() >= limit;
                }
                Ok::<_, Fault>(done)
            })
            .await
    }
}

fn millis(time: UnixMillis) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> UnixMillis {
    UnixMillis(millis.max(0).cast_unsigned())
}

static FORGET_IDS: &str = "DELETE FROM prism.message_id WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM prism.message_id WHERE forget_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))";
static REMOVE_EXPIRED: &str = "DELETE FROM prism.message WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM prism.message WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))";
