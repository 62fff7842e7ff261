//! Queue's traits: sending to a store, work on its messages, and the upkeep of its namespaces.
//!
//! A namespace is one queue. Promises of every store ([`crate::behavior::queue`] checks them):
//!
//! * **At least once**: a sent message stays until it is acked, deleted, or dead for longer than
//!   the retention.
//! * **One worker at a time**, by the time that callers give. An Ack counts unless a later attempt
//!   has begun.
//! * **Once sent**: a message whose id is in the queue, or has left it within [`ID_WINDOW_MS`], is
//!   not stored again; with the digest of another call it is refused.
//! * **Order** of an ordered queue: of each key one message is leased at a time, in the order in
//!   which they were stored.
//!
//! [`Writes::apply`] may be called again with the same changes, all or a later part of a sequence
//! (a log that is replayed): they take effect once. Receiving and extending are never logged; a
//! crash may undo them, and then a message is delivered again. As everywhere in this crate, time is
//! an argument.

mod item;

use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::{ATTRIBUTES_BYTES_MAX, MESSAGE_ID_BYTES_MAX, ORDERING_KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::offer::Offer;
use crate::postgres;

pub use super::keyvalue::Sweep;
pub use item::{
    Attempt, Item, LEASE_ENDED, LEASE_MS_MAX, Late, Phase, RETENTION_PASSED, State, TTL_PASSED, Verdict,
    backoff_ms,
};

/// Time for which the id of a message that has left the queue is remembered, in milliseconds.
pub const ID_WINDOW_MS: u64 = 10 * 60 * 1000;

/// Most messages that one Redrive or Delete of a whole state moves.
pub const MOVED_MAX: usize = 10_000;

/// Most ended or dead messages that one Receive passes before it answers with the messages found.
pub const PASSED_MAX: usize = 2_000;

/// Most bytes of a reason that are kept.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Rules of the namespace for its messages, as they were when a call was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether messages of one key are done one after the other.
    pub ordered: bool,
    /// Whether done messages are kept.
    pub replay: bool,
    /// Time within which an attempt must begin, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Time after which an undone message is dead, and a dead or done one is removed, in
    /// milliseconds.
    pub retention_ms: u64,
}

/// A message to be sent to the queue.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// Id of the message in its namespace; 1 to 68 bytes.
    pub id: &'a [u8],
    /// Digest of the whole call, if its client gave it a token: a repeat has the same one.
    pub digest: Option<u64>,
    /// Ordering key of 0 to 255 bytes; ignored without order.
    pub key: &'a str,
    /// Delay before it is ready, in milliseconds.
    pub delay_ms: u64,
    /// Most attempts: 1 to 100.
    pub attempts_max: u32,
    /// Metadata of the sender in addition to the payload, opaque to the store; up to 16 KiB.
    pub attributes: &'a [u8],
    /// 0 bytes to 16 MiB.
    pub payload: &'a [u8],
}

impl NewMessage<'_> {
    /// Checks every limit. Errors name the field as in the messages of `prism.queue.v1`.
    ///
    /// # Errors
    /// [`StoreError::InvalidArgument`].
    pub fn check(&self) -> Result<(), StoreError> {
        if self.id.is_empty() {
            return Err(StoreError::invalid("message_id", "must not be empty"));
        }
        StoreError::check_length("message_id", self.id.len(), MESSAGE_ID_BYTES_MAX)?;
        StoreError::check_length("message.ordering_key", self.key.len(), ORDERING_KEY_BYTES_MAX)?;
        StoreError::check_length("message.attributes", self.attributes.len(), ATTRIBUTES_BYTES_MAX)?;
        StoreError::check_length("message.payload", self.payload.len(), VALUE_BYTES_MAX)
    }
}

/// One attempt of one message, as identified by its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// Id of the message.
    pub id: &'a [u8],
    /// The attempt.
    pub attempt: Attempt,
}

/// Messages that a Redrive or a Delete applies to.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// These.
    Ids(&'a [&'a [u8]]),
    /// All in this state, at most [`MOVED_MAX`].
    State(State),
}

/// One change of a queue.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// Sends a message.
    Send(NewMessage<'a>),
    /// Marks the work as done.
    Ack(Held<'a>),
    /// Marks the work as failed.
    Nack {
        /// The attempt that failed.
        held: Held<'a>,
        /// Consequence of the failure.
        verdict: Verdict,
        /// Reason of the failure; cut to [`REASON_BYTES_MAX`].
        reason: &'a str,
    },
    /// Moves dead or done messages to the end of the queue.
    Redrive {
        /// Id of the call, so that a repeat moves nothing more; 1 to 68 bytes.
        call: &'a [u8],
        /// Digest of the call.
        digest: Option<u64>,
        /// Messages to move; those that are neither dead nor done are left alone.
        which: Which<'a>,
    },
    /// Removes messages that are not leased.
    Delete {
        /// Id of the call, as for a Redrive.
        call: &'a [u8],
        /// Digest of the call.
        digest: Option<u64>,
        /// Messages to remove; leased ones are left alone.
        which: Which<'a>,
    },
}

/// One change, with its namespace and its time.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Namespace of the queue. Must have been created.
    pub namespace: NamespaceId,
    /// Rules of the namespace.
    pub terms: Terms,
    /// Moment at which the call was taken. A change that is applied later, or once more, keeps it.
    pub at: UnixMillis,
    /// The change itself.
    pub act: Act<'a>,
}

/// Result of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message was put into the queue.
    Sent,
    /// The message was there already, or was done already.
    Repeat,
    /// The message is acked, now or before.
    Acked,
    /// The message was nacked and has this state now.
    Nacked(State),
    /// This number of messages was moved or removed; whether there are more.
    Moved(u64, bool),
    /// The worker's answer came too late.
    Late(Late),
    /// Nothing was changed.
    Refused(StoreError),
}

/// Request of a worker for messages.
#[derive(Clone, Copy, Debug)]
pub struct Receive<'a> {
    /// Namespace of the queue. Must have been created.
    pub namespace: NamespaceId,
    /// Id of the call: the same call again gets the same messages while their leases last; empty:
    /// no such id.
    pub call: &'a [u8],
    /// Most messages.
    pub messages_max: usize,
    /// Length of the lease, in milliseconds.
    pub lease_ms: u64,
}

/// A message as shown to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Id of the message.
    pub id: &'a [u8],
    /// Numbers of the message, at the time of the call.
    pub item: Item,
    /// Ordering key.
    pub key: &'a str,
    /// Attributes, as sent.
    pub attributes: &'a [u8],
    /// Payload; empty if it was not asked for.
    pub payload: &'a [u8],
    /// Reason of the last failed attempt; empty if none failed.
    pub failure: &'a str,
}

/// Receiver of the messages that are shown.
pub trait Sink {
    /// Takes one message; its parts are only lent. `false`: there is no room for it, and it is not
    /// given.
    fn message(&mut self, message: &Shown<'_>) -> bool;
}

impl<F: FnMut(&Shown<'_>) -> bool> Sink for F {
    fn message(&mut self, message: &Shown<'_>) -> bool {
        self(message)
    }
}

/// Result of a Receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Messages that were given.
    pub messages: usize,
    /// Moment at which the next message may be ready, if nothing is sent or answered before.
    pub next_at: Option<UnixMillis>,
}

/// Request of a Peek.
#[derive(Clone, Copy, Debug)]
pub struct Peek<'a> {
    /// Namespace of the queue. Must have been created.
    pub namespace: NamespaceId,
    /// States to show.
    pub states: &'a [State],
    /// Key to show; `None`: all.
    pub key: Option<&'a str>,
    /// Place after which it begins; 0 at first.
    pub after: u64,
    /// Most messages.
    pub messages_max: usize,
    /// Whether payloads are wanted.
    pub with_payload: bool,
}

/// Number of messages in one state, and time at which the oldest of them was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages.
    pub messages: u64,
    /// Time of the oldest.
    pub oldest: Option<UnixMillis>,
}

impl Count {
    /// Counts one more message.
    pub fn add(&mut self, sent_at: UnixMillis) {
        self.messages += 1;
        self.oldest = Some(self.oldest.map_or(sent_at, |oldest| oldest.min(sent_at)));
    }
}

/// A count for each state, in the order of [`State::ALL`].
pub type Counts = [Count; 5];

/// The writing half.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Writes {
    /// Makes changes in their order, as one transaction where the store has transactions.
    /// `outcomes` is cleared and gets one outcome for each. A refused change does not harm the
    /// others. On `Err` none was made (after [`StoreError::Io`]: perhaps all were; make the same
    /// changes again).
    ///
    /// `at` is the place of the batch's last record in a gateway's log, noted together with its
    /// effect.
    async fn apply(
        &self,
        batch: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError>;

    /// Leases ready messages to a worker, in the order in which they became ready.
    async fn receive(
        &self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError>;

    /// Makes leases longer. Returns the end of each, or why it was not extended.
    async fn extend(
        &self,
        namespace: NamespaceId,
        held: &[Held<'_>],
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<Vec<Result<UnixMillis, Late>>, StoreError>;
}

/// The reading half.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Reads {
    /// Shows messages in the order in which they were sent. Returns the place after which to
    /// continue, if there may be more.
    async fn peek(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError>;

    /// Counts the messages of a queue.
    async fn stats(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError>;
}

/// Upkeep of a store's namespaces, and of the room that they take.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Upkeep {
    /// The store's promises for Queue.
    fn offer(&self) -> Offer;

    /// Makes a namespace usable, like [`crate::api::keyvalue::Upkeep::create_namespace`].
    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Removes all messages of a namespace from view at once, like
    /// [`crate::api::keyvalue::Upkeep::drop_namespace`].
    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Stores deaths, and gives back the room of old messages, forgotten ids and dropped
    /// namespaces, one step.
    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError>;
}

/// A store of queues that is a server. Its calls answer later.
#[derive(Clone, Debug)]
pub enum Store {
    /// In tables of a PostgreSQL server.
    Postgres(postgres::Queue),
}

macro_rules! dispatch {
    ($self:expr, $store:ident => $call:expr) => {
        match $self {
            Store::Postgres($store) => $call,
        }
    };
}

impl Store {
    /// Time from which the first message may be given; `None` while nothing is undone.
    ///
    /// # Errors
    /// Those of the server; there is no such namespace.
    pub async fn ready_at(
        &self,
        namespace: NamespaceId,
        now: UnixMillis,
    ) -> Result<Option<UnixMillis>, StoreError> {
        dispatch!(self, store => store.ready_at(namespace, now).await)
    }
}

impl Writes for Store {
    async fn apply(
        &self,
        batch: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        dispatch!(self, store => Writes::apply(store, batch, at, outcomes).await)
    }

    async fn receive(
        &self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError> {
        dispatch!(self, store => Writes::receive(store, receive, now, sink).await)
    }

    async fn extend(
        &self,
        namespace: NamespaceId,
        held: &[Held<'_>],
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<Vec<Result<UnixMillis, Late>>, StoreError> {
        dispatch!(self, store => Writes::extend(store, namespace, held, lease_ms, now).await)
    }
}

impl Reads for Store {
    async fn peek(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError> {
        dispatch!(self, store => Reads::peek(store, peek, now, sink).await)
    }

    async fn stats(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError> {
        dispatch!(self, store => Reads::stats(store, namespace, now).await)
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

/// The first bytes of a reason that are kept; whole characters.
pub fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}
