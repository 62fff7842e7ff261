//! PubSub's traits: publishing to a store, reading from it, and the upkeep of its namespaces.
//!
//! A store numbers the messages of a namespace from 1, in the order in which it takes them. A
//! reader's place is the number of its next message. Promises of every store
//! ([`crate::behavior::pubsub`] checks them):
//!
//! * **Order**: a reader sees messages by their numbers, each once. A number becomes visible only
//!   after all smaller ones, so a reader that has passed one misses nothing.
//! * **Once**: a message whose id the namespace has taken within [`ID_WINDOW_MS`] is not stored
//!   again; with the digest of another call it is refused, unless it was promised. The window is
//!   measured by [`Message::at`], so a batch that comes again is judged as at first.
//! * **Age**: a message is gone from its `expires_at` on, for every reader. A reader that misses it
//!   then gets a [`Gap`].
//!
//! Reads are answered at once; the caller waits until there is something to read. As everywhere in
//! this crate, time is an argument.

use std::cell::RefCell;

use super::groups::{self, Groups, Listed};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::kafka;
use crate::limits::{
    ATTRIBUTES_BYTES_MAX, MESSAGE_ID_BYTES_MAX, ORDERING_KEY_BYTES_MAX, TOPIC_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::memory::Messages;
use crate::nats;
use crate::offer::Offer;
use crate::postgres;
use crate::sqlite::SqliteStore;

pub use super::keyvalue::Sweep;

/// Least time for which a message's id is remembered, in milliseconds.
pub const ID_WINDOW_MS: u64 = 10 * 60 * 1000;

/// A message to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Namespace in which it is published. Must have been created.
    pub namespace: NamespaceId,
    /// Part of the namespace to which it belongs, as decided by its topic and key.
    pub partition: u16,
    /// Id of the message in its namespace; 1 to 68 bytes.
    pub id: &'a [u8],
    /// Digest of the whole call, if its client gave it a token: a repeat has the same one.
    pub digest: Option<u64>,
    /// Whether it has been acknowledged: an id that belongs to another call cannot refuse it then.
    pub promised: bool,
    /// Moment at which the call was taken. A message that is applied later, or once more, keeps it.
    pub at: UnixMillis,
    /// Moment at which the message disappears; `None` is never.
    pub expires_at: Option<UnixMillis>,
    /// 0 to 255 bytes.
    pub topic: &'a str,
    /// 0 to 255 bytes.
    pub key: &'a str,
    /// Metadata of the publisher in addition to the payload, opaque to the store; up to 16 KiB.
    pub attributes: &'a [u8],
    /// 0 bytes to 16 MiB.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// Checks every limit. Errors name the field as in the messages of `prism.pubsub.v1`.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.id.is_empty() {
            return Err(StoreError::invalid("message_id", "must not be empty"));
        }
        StoreError::check_length("message_id", self.id.len(), MESSAGE_ID_BYTES_MAX)?;
        StoreError::check_length("message.topic", self.topic.len(), TOPIC_BYTES_MAX)?;
        StoreError::check_length("message.ordering_key", self.key.len(), ORDERING_KEY_BYTES_MAX)?;
        StoreError::check_length("message.attributes", self.attributes.len(), ATTRIBUTES_BYTES_MAX)?;
        StoreError::check_length("message.payload", self.payload.len(), VALUE_BYTES_MAX)
    }
}

/// Result for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store has stored it.
    Published,
    /// The store had it already.
    Repeat,
    /// It was refused and not stored.
    Refused(StoreError),
}

/// Start of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next message that is stored.
    Latest,
    /// With the oldest message that is left.
    Earliest,
    /// With the first message that was stored at this time or later.
    Time(UnixMillis),
    /// With the message of this number.
    Number(u64),
}

/// Answer of a store to a reader that wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The number of the reader's first message.
    At(u64),
    /// Messages from the wanted number on are gone; the oldest that is left has this time.
    Expired(Option<UnixMillis>),
    /// The namespace has no such number yet: another store made it.
    Unknown,
}

/// A message as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Number of the message in its namespace.
    pub number: u64,
    /// Id of the message.
    pub id: &'a [u8],
    /// Time at which the store took it. Never falls from one message of a namespace to the next.
    pub time: UnixMillis,
    /// Topic.
    pub topic: &'a str,
    /// Ordering key.
    pub key: &'a str,
    /// Attributes, as published.
    pub attributes: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// Receiver of the messages that a reader gets.
pub trait MessageSink {
    /// Whether messages of this topic are wanted. Asked before the rest of a message is read.
    fn wants(&mut self, topic: &str) -> bool;

    /// Takes one message; its parts are only lent. `false`: there is no room for it, and it must
    /// come again.
    fn message(&mut self, message: &Stored<'_>) -> bool;
}

/// Messages that expired or were dropped before a reader reached them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Number of them, of all topics.
    pub messages: u64,
    /// Time of the first message after them, if there is one.
    pub oldest_left: Option<UnixMillis>,
}

/// Result of one step of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The number of its next message.
    pub next: u64,
    /// Messages that it missed.
    pub gap: Option<Gap>,
    /// Whether there is more to read now.
    pub more: bool,
}

/// Most messages that one step of a reader passes, wanted or not.
pub const STEP_MESSAGES_MAX: usize = 2_000;

/// The writing half.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Writes {
    /// Stores messages in their order, as one transaction where the store has transactions;
    /// `outcomes` is cleared and gets one outcome for each. A refused message does not harm the
    /// others. On `Err` none was stored (after [`StoreError::Io`]: perhaps all were; publish the
    /// same batch again).
    ///
    /// `at` is the place of the batch's last record in a gateway's log, noted together with its
    /// effect.
    async fn publish(
        &self,
        batch: &[Message<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError>;
}

/// The reading half.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Reads {
    /// Finds the number of a reader's first message.
    async fn open(&self, namespace: NamespaceId, start: Start, now: UnixMillis)
    -> Result<Opened, StoreError>;

    /// Passes messages from number `next` on to the sink until it is full, none is left, or a
    /// step's worth was passed.
    async fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Read, StoreError>;
}

/// Upkeep of a store's namespaces, and of the room that they take.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Upkeep {
    /// The store's promises for PubSub.
    fn offer(&self) -> Offer;

    /// Makes a namespace usable, like [`crate::api::keyvalue::Upkeep::create_namespace`].
    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Removes all messages of a namespace from view at once, like
    /// [`crate::api::keyvalue::Upkeep::drop_namespace`].
    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Gives back the room of expired messages, forgotten ids and dropped namespaces, one step.
    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError>;
}

/// Every store that serves PubSub, for dispatch without virtual calls.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one per shard or process, and it is never moved"
)]
pub enum Store {
    /// In this process's memory; gone with it.
    Memory(RefCell<Messages>),
    /// In a SQLite file.
    Sqlite(SqliteStore),
    /// In tables of a PostgreSQL server.
    Postgres(postgres::PubSub),
    /// In streams of a NATS server.
    Nats(nats::PubSub),
    /// In topics of a Kafka cluster.
    Kafka(kafka::PubSub),
}

macro_rules! dispatch {
    ($self:expr, $store:ident => $call:expr) => {
        match $self {
            Store::Memory($store) => $call,
            Store::Sqlite($store) => $call,
            Store::Postgres($store) => $call,
            Store::Nats($store) => $call,
            Store::Kafka($store) => $call,
        }
    };
}

impl Writes for Store {
    async fn publish(
        &self,
        batch: &[Message<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        dispatch!(self, store => Writes::publish(store, batch, at, outcomes).await)
    }
}

impl Reads for Store {
    async fn open(
        &self,
        namespace: NamespaceId,
        start: Start,
        now: UnixMillis,
    ) -> Result<Opened, StoreError> {
        dispatch!(self, store => Reads::open(store, namespace, start, now).await)
    }

    async fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Read, StoreError> {
        dispatch!(self, store => Reads::read(store, namespace, next, now, sink).await)
    }
}

impl Groups for Store {
    async fn change_groups(
        &self,
        changes: &[groups::Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<groups::Outcome>,
    ) -> Result<(), StoreError> {
        dispatch!(self, store => Groups::change_groups(store, changes, at, outcomes).await)
    }

    async fn list_groups(
        &self,
        namespace: NamespaceId,
        after: &str,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<Listed>, StoreError> {
        dispatch!(self, store => Groups::list_groups(store, namespace, after, limit, now).await)
    }
}

impl Upkeep for Store {
    fn offer(&self) -> Offer {
        dispatch!(self, store => Upkeep::offer(store))
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        dispatch!(self, store => Upkeep::create_namespace(store, namespace).await)
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        dispatch!(self, store => Upkeep::drop_namespace(store, namespace).await)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        dispatch!(self, store => Upkeep::sweep(store, now, budget).await)
    }
}
