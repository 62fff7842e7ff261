//! Stores that are servers: duties of each kind in addition to the APIs that it serves.
//!
//! A kind of server is a folder of this crate with a type that is a [`ServerStore`], and one row of
//! the table at the end of this file. Callers know [`Server`] and no kind.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::api::Stores;
use crate::error::StoreError;
use crate::ids::{LogId, NamespaceId};
use crate::kind::StoreKind;
use crate::offer::{Acked, Api};
use crate::sqlite::Presence;
use crate::{kafka, nats, postgres, redis};

/// Entries of the configuration, unchecked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RawConfig {
    /// Address of the server, and of the database in it, in the form of its kind. May hold a
    /// password.
    pub url: String,
    /// File with the server's credentials; white space at its end is ignored.
    pub credentials_file: Option<PathBuf>,
    /// Whether and how TLS is used: `off`, `system` or a path of certificates in PEM.
    pub tls: Option<String>,
    /// Connections that the gateway opens at most, over all shards; the kind's default if absent.
    pub pool_max: Option<u32>,
    /// When the server syncs what it acknowledges, as it is configured itself: `always`, or a time.
    pub sync_interval: Option<String>,
    /// Beginning of the names of what is made there, where a server has several users.
    pub prefix: Option<String>,
}

/// Most connections that may be configured.
const POOL_MAX: u32 = 1_000;

/// Time that an unused connection stays open.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(300);

/// Time that deletes, and the answers to swaps, are remembered.
pub(crate) const WINDOW: Duration = Duration::from_secs(600);

/// Trust in the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Connections are not encrypted.
    Off,
    /// The system's roots sign the server's certificate.
    System,
    /// Certificates of this file sign it.
    File(PathBuf),
}

/// Checks that are the same for all kinds. Errors name the entry, what is allowed and what to do.
impl RawConfig {
    /// The password from the file of credentials, if one is named.
    pub(crate) fn password(&self, is_in_url: bool) -> Result<Option<String>, StoreError> {
        let Some(file) = &self.credentials_file else {
            return Ok(None);
        };
        if is_in_url {
            let reason = "is given, and url holds a password, too; leave one of them out";
            return Err(StoreError::invalid("credentials_file", reason));
        }
        let mut password = std::fs::read_to_string(file).map_err(|error| {
            let reason = format!("{} cannot be read: {error}", file.display());
            StoreError::invalid("credentials_file", reason)
        })?;
        password.truncate(password.trim_end().len());
        Ok(Some(password))
    }

    /// The cap of connections.
    pub(crate) fn pool_max(&self, default: u32) -> Result<u32, StoreError> {
        let pool_max = self.pool_max.unwrap_or(default);
        if (1..=POOL_MAX).contains(&pool_max) {
            return Ok(pool_max);
        }
        let reason = format!("must be 1 to {POOL_MAX}, is {pool_max}");
        Err(StoreError::invalid("pool_max", reason))
    }

    /// Use of TLS. Without an entry the URL decides.
    pub(crate) fn tls(&self, is_asked_by_url: bool) -> Tls {
        match self.tls.as_deref() {
            None if is_asked_by_url => Tls::System,
            None | Some("off") => Tls::Off,
            Some("system") => Tls::System,
            Some(path) => Tls::File(PathBuf::from(path)),
        }
    }
}

impl fmt::Debug for RawConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RawConfig")
            .field("credentials_file", &self.credentials_file)
            .field("tls", &self.tls)
            .field("pool_max", &self.pool_max)
            .finish_non_exhaustive()
    }
}

/// Connections of one shard's pool, so that all shards together stay within the store's cap.
///
/// The cap is divided when the process starts: no counter is shared while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Shard, from 0.
    pub shard: u32,
    /// Shards of the process, at least 1.
    pub shards: u32,
    /// Connections of the process, at least 1.
    pub cap: u32,
}

impl Share {
    /// Connections of this shard; over all shards they add up to the cap.
    pub fn own(self) -> u32 {
        self.cap / self.shards + u32::from(self.shard < self.cap % self.shards)
    }

    /// Shard whose connections serve this one: with fewer connections than shards, another's.
    pub fn served_by(self) -> u32 {
        if self.own() > 0 {
            self.shard
        } else {
            self.shard % self.cap
        }
    }
}

/// News of a namespace that another process has written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Number that the next message of its topics gets, at least; `None`: it is a queue.
    pub head: Option<u64>,
}

/// A server as used by one thread, within a tokio runtime. It has no connection until calls need
/// one.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait ServerStore: Sized {
    /// A configuration that can be used. Its `Debug` shows no secret.
    type Config;

    /// Checks the entries of the configuration. Errors name the entry, what is allowed and what to
    /// do.
    fn check(raw: &RawConfig) -> Result<Self::Config, StoreError>;

    /// Makes the store, with its share of the connections.
    ///
    /// Errors: [`StoreError::InvalidArgument`] if the certificates cannot be read.
    fn open(config: &Self::Config, share: Share) -> Result<Self, StoreError>;

    /// The APIs that it serves.
    fn stores(&self) -> Stores;

    /// Hands over a bell that it rings when another process has written what callers may wait for.
    fn listen(&self, bell: Arc<Notify>) {
        let _ = bell;
    }

    /// Begins to listen, if it does not, for what other processes write.
    async fn keep_listening(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether it brings news of what other processes write. They may be lost with a connection.
    const BRINGS_NEWS: bool = false;

    /// News of what others have written since the last such question.
    fn news(&self) -> Vec<Written> {
        Vec::new()
    }

    /// Lets other processes know that queues, and namespaces with topics, were written to.
    async fn announce(&self, queues: &[NamespaceId], topics: &[NamespaceId]) -> Result<(), StoreError> {
        let _ = (queues, topics);
        Ok(())
    }

    /// Prepares the store before its first namespace: makes its tables, brings older ones to the
    /// newest format, and marks them with the catalog that numbers the namespaces. False if they
    /// are another catalog's: the numbers of the two would collide. May be repeated.
    async fn prepare(&self, catalog: u128) -> Result<bool, StoreError>;

    /// State of a namespace's number in the store.
    async fn presence(&self, namespace: NamespaceId) -> Result<Presence, StoreError>;

    /// Makes a namespace keep messages for this long, as far as the server removes them by itself;
    /// `None` is for ever.
    async fn retain(&self, namespace: NamespaceId, retention: Option<Duration>) -> Result<(), StoreError> {
        let _ = (namespace, retention);
        Ok(())
    }

    /// Reason why an acknowledgement means less than `needed`, and its remedy; `None` if it means
    /// as much, or if the server's settings have not been read yet.
    fn shortfall(&self, needed: Acked) -> Option<String>;

    /// Largest payload of a message, in bytes, as the server is configured; `None`: that of the
    /// offer, or the server has not been asked yet.
    fn payload_max(&self) -> Option<u64> {
        None
    }

    /// Most calls in flight at once.
    fn places(&self) -> u32;

    /// Connections that are open, and those of them in use; `None` if the kind has no pool of them.
    fn connections(&self) -> Option<(usize, usize)> {
        None
    }

    /// Whether what is applied with a position is noted in the same transaction, durably once it is
    /// acknowledged: then a gateway's log may stand before the store.
    const KEEPS_POSITIONS: bool = false;

    /// APIs whose writes it recognises when it gets them once more without a position, however much
    /// later: then at `eventual` the log may keep a copy of what the store has taken. Ids of
    /// messages are remembered for a while only.
    const KNOWS_ITS_WRITES: &'static [Api] = &[Api::KeyValue];

    /// Position of one lane and namespace; 0 if none is noted. Asked only of stores that keep them.
    async fn noted(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<u64, StoreError> {
        let _ = (log, lane, namespace);
        Err(no_positions())
    }

    /// Forgets that position: an operator goes on with a log or a store that lacks records. Asked
    /// only of stores that keep them.
    async fn forget_position(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<(), StoreError> {
        let _ = (log, lane, namespace);
        Err(no_positions())
    }

    /// Closes connections that have been idle for long, and reads settings again that may have
    /// changed. To be called now and then.
    async fn look_after(&self) -> Result<(), StoreError>;
}

fn no_positions() -> StoreError {
    StoreError::Internal {
        detail: "a store without positions was asked for one".to_owned(),
    }
}

macro_rules! servers {
    ($($kind:ident => $store:ty;)*) => {
        /// The checked configuration of a server.
        #[derive(Clone, Debug)]
        pub enum ServerConfig {
            $(#[allow(missing_docs, reason = "the kind says it")] $kind(<$store as ServerStore>::Config),)*
        }

        /// A server of any kind, as used by one thread.
        #[derive(Debug)]
        pub enum Server {
            $(#[allow(missing_docs, reason = "the kind says it")] $kind($store),)*
        }

        impl StoreKind {
            /// Whether such a store is a server for which this version has a driver.
            pub const fn is_server(self) -> bool {
                matches!(self, $(StoreKind::$kind)|*)
            }

            /// Whether such a server keeps positions, as [`ServerStore::KEEPS_POSITIONS`] says.
            pub const fn keeps_positions(self) -> bool {
                match self {
                    $(StoreKind::$kind => <$store>::KEEPS_POSITIONS,)*
                    _ => false,
                }
            }

            /// Whether such a store recognises writes of an API, as
            /// [`ServerStore::KNOWS_ITS_WRITES`] says.
            pub fn knows_its_writes(self, api: Api) -> bool {
                match self {
                    $(StoreKind::$kind => <$store>::KNOWS_ITS_WRITES.contains(&api),)*
                    _ => true,
                }
            }
        }

        impl ServerConfig {
            /// Checks the entries for a server of this kind. Errors name the entry, what is allowed
            /// and what to do.
            pub fn check(kind: StoreKind, raw: &RawConfig) -> Result<ServerConfig, StoreError> {
                match kind {
                    $(StoreKind::$kind => <$store>::check(raw).map(ServerConfig::$kind),)*
                    _ => Err(StoreError::invalid("kind", format!("{} is no server", kind.title()))),
                }
            }

            /// Address of the server, for messages.
            pub fn address(&self) -> &str {
                match self { $(ServerConfig::$kind(config) => &config.address,)* }
            }

            /// Connections that the gateway opens at most.
            pub fn pool_max(&self) -> u32 {
                match self { $(ServerConfig::$kind(config) => config.pool_max,)* }
            }

            /// Makes the store; see [`ServerStore::open`].
            pub fn open(&self, share: Share) -> Result<Server, StoreError> {
                match self {
                    $(ServerConfig::$kind(config) => <$store>::open(config, share).map(Server::$kind),)*
                }
            }
        }

        impl Server {
            /// The APIs that it serves; see [`ServerStore::stores`].
            pub fn stores(&self) -> Stores {
                match self { $(Server::$kind(store) => store.stores(),)* }
            }

            /// The bell for news; see [`ServerStore::listen`].
            pub fn listen(&self, bell: Arc<Notify>) {
                match self { $(Server::$kind(store) => store.listen(bell),)* }
            }

            /// As [`ServerStore::keep_listening`] says.
            pub async fn keep_listening(&self) -> Result<(), StoreError> {
                match self { $(Server::$kind(store) => store.keep_listening().await,)* }
            }

            /// Whether there are news; see [`ServerStore::BRINGS_NEWS`].
            pub fn brings_news(&self) -> bool {
                fn of<S: ServerStore>(_: &S) -> bool {
                    S::BRINGS_NEWS
                }
                match self { $(Server::$kind(store) => of(store),)* }
            }

            /// News of others; see [`ServerStore::news`].
            pub fn news(&self) -> Vec<Written> {
                match self { $(Server::$kind(store) => store.news(),)* }
            }

            /// As [`ServerStore::announce`] says.
            pub async fn announce(
                &self,
                queues: &[NamespaceId],
                topics: &[NamespaceId],
            ) -> Result<(), StoreError> {
                match self { $(Server::$kind(store) => store.announce(queues, topics).await,)* }
            }

            /// Prepares the store; see [`ServerStore::prepare`].
            pub async fn prepare(&self, catalog: u128) -> Result<bool, StoreError> {
                match self { $(Server::$kind(store) => store.prepare(catalog).await,)* }
            }

            /// State of a namespace's number; see [`ServerStore::presence`].
            pub async fn presence(&self, namespace: NamespaceId) -> Result<Presence, StoreError> {
                match self { $(Server::$kind(store) => store.presence(namespace).await,)* }
            }

            /// As [`ServerStore::retain`] says.
            pub async fn retain(&self, namespace: NamespaceId, retention: Option<Duration>) -> Result<(), StoreError> {
                match self { $(Server::$kind(store) => store.retain(namespace, retention).await,)* }
            }

            /// Shortfall of an acknowledgement; see [`ServerStore::shortfall`].
            pub fn shortfall(&self, needed: Acked) -> Option<String> {
                match self { $(Server::$kind(store) => store.shortfall(needed),)* }
            }

            /// Largest payload; see [`ServerStore::payload_max`].
            pub fn payload_max(&self) -> Option<u64> {
                match self { $(Server::$kind(store) => store.payload_max(),)* }
            }

            /// Most calls in flight; see [`ServerStore::places`].
            pub fn places(&self) -> u32 {
                match self { $(Server::$kind(store) => store.places(),)* }
            }

            /// Open connections and those in use; see [`ServerStore::connections`].
            pub fn connections(&self) -> Option<(usize, usize)> {
                match self { $(Server::$kind(store) => store.connections(),)* }
            }

            /// As [`ServerStore::noted`] says.
            pub async fn noted(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<u64, StoreError> {
                match self { $(Server::$kind(store) => store.noted(log, lane, namespace).await,)* }
            }

            /// As [`ServerStore::forget_position`] says.
            pub async fn forget_position(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<(), StoreError> {
                match self { $(Server::$kind(store) => store.forget_position(log, lane, namespace).await,)* }
            }

            /// Regular upkeep; see [`ServerStore::look_after`].
            pub async fn look_after(&self) -> Result<(), StoreError> {
                match self { $(Server::$kind(store) => store.look_after().await,)* }
            }
        }
    };
}

// The kinds of server.
servers! {
    Postgres => postgres::Postgres;
    Redis => redis::Redis;
    Nats => nats::Nats;
    Kafka => kafka::Kafka;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_sum_up_to_the_cap_and_everybody_is_served(cap in 1_u32..40, shards in 1_u32..70) {
            let shares: Vec<Share> = (0..shards).map(|shard| Share { shard, shards, cap }).collect();
            prop_assert_eq!(shares.iter().map(|share| share.own()).sum::<u32>(), cap);
            for share in &shares {
                let server = shares[share.served_by() as usize];
                prop_assert!(server.own() > 0, "{:?} is sent to {:?}", share, server);
            }
        }
    }
}
