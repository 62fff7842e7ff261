//! The Redis store: keys of one prefix, scripts that change them, and connections that a shard's
//! sidecar drives. Redis and whatever speaks and keeps what it does, such as Valkey.
//!
//! ```text
//!   calls ──> KeyValue ──> Links ──> Redis, keys prism:*
//!                │           └ which connection, when to connect
//!                └ one script for a batch of writes, one for a page
//! ```
//!
//! A script runs alone and as a whole, so a call is one round trip without a transaction or a lock,
//! and many calls are under way on one connection. What an acknowledgement means depends on the
//! server's settings, which [`Facts`] have. Everything runs on one thread within a tokio runtime;
//! each shard opens a store of its own, with its [`Share`] of the connections.

mod config;
mod connect;
mod keyvalue;
mod links;
mod positions;
mod probe;
mod script;

use std::rc::Rc;

pub use config::Config;
pub use connect::{Facts, Sync};
pub use keyvalue::{KEYVALUE, KeyValue};
pub use probe::Probe;

use self::connect::Fault;
use self::links::{CALLS_PER_LINK, Links};
use crate::api::{Stores, keyvalue::Store};
use crate::error::StoreError;
use crate::ids::{LogId, NamespaceId};
use crate::offer::Acked;
use crate::server::{RawConfig, ServerStore, Share};
use crate::sqlite::Presence;

/// Layout of the keys that this program writes.
const LAYOUT: &str = "1";

/// The store as one thread uses it.
#[derive(Clone, Debug)]
pub struct Redis {
    links: Rc<Links>,
}

impl Redis {
    /// Facts about the server, for whoever asks what it keeps. Connects if there is no connection
    /// yet.
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        Ok(self.links.acquire().await?.facts.get())
    }
}

impl ServerStore for Redis {
    type Config = Config;

    fn check(raw: &RawConfig) -> Result<Config, StoreError> {
        Config::check(raw)
    }

    fn open(config: &Config, share: Share) -> Result<Redis, StoreError> {
        Ok(Redis {
            links: Links::new(config.clone(), share.own().max(1))?,
        })
    }

    fn stores(&self) -> Stores {
        Stores {
            keyvalue: Some(Store::Redis(KeyValue::new(self))),
            ..Stores::default()
        }
    }

    /// Two keys: the layout, and the catalog. The rest comes with the namespaces.
    async fn prepare(&self, catalog: u128) -> Result<bool, StoreError> {
        let catalog = format!("{catalog:032x}");
        let mut asked = redis::pipe();
        asked.cmd("SET").arg("prism:layout").arg(LAYOUT).arg("NX");
        asked.cmd("GET").arg("prism:layout");
        asked.cmd("SET").arg("prism:owner").arg(&catalog).arg("NX");
        asked.cmd("GET").arg("prism:owner");
        let answers = self.links.ask(&asked).await?;
        let text = |at: usize| connect::bytes(answers.get(at)).map_err(StoreError::from);
        let layout = text(1)?;
        if layout != LAYOUT.as_bytes() {
            return Err(StoreError::WrongFormat {
                detail: format!(
                    "redis at {}: its keys have layout {}, this program knows {LAYOUT}. Use a newer one",
                    self.links.address(),
                    String::from_utf8_lossy(layout)
                ),
            });
        }
        Ok(text(3)? == catalog.as_bytes())
    }

    async fn presence(&self, namespace: NamespaceId) -> Result<Presence, StoreError> {
        let mut asked = redis::pipe();
        asked.cmd("GET").arg(format!("{}ns", script::prefix(namespace)));
        let answers = self.links.ask(&asked).await?;
        Ok(match answers.first() {
            None | Some(redis::Value::Nil) => Presence::Absent,
            state => match connect::bytes(state).map_err(Fault::into_store)? {
                b"0" => Presence::Live,
                _ => Presence::Dropped,
            },
        })
    }

    const KEEPS_POSITIONS: bool = true;

    async fn noted(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<u64, StoreError> {
        let noted = self.position(log, lane, namespace).await?;
        Ok(noted.map_or(0, |position| position.lsn))
    }

    async fn forget_position(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<(), StoreError> {
        self.forget(log, lane, namespace).await
    }

    fn shortfall(&self, needed: Acked) -> Option<String> {
        let facts = self.links.facts()?;
        let sentence = facts.shortfall(needed)?;
        Some(format!("redis at {} {sentence}", self.links.address()))
    }

    fn places(&self) -> u32 {
        self.links.cap() * CALLS_PER_LINK
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        match self.links.facts() {
            // A shard that nobody asks needs no connection.
            None => Ok(()),
            Some(_) => self.links.look_after().await,
        }
    }
}
