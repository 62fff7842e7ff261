//! Queue's traits: what a store takes, what workers get, and how its namespaces are kept.
//!
//! A namespace is one queue. What every store promises ([`crate::behavior::queue`] checks it):
//!
//! * **At least once**: a message that was sent stays until it is acked, deleted, or dead for longer than the retention.
//! * **One worker at a time**, by the time that callers give. An Ack counts unless a later attempt has begun.
//! * **Once sent**: a message whose id is in the queue, or has left it within [`ID_WINDOW_MS`], is not stored again; with the
//!   digest of another call it is refused.
//! * **Order** of an ordered queue: of one key one message is with a worker at a time, in the order in which they were stored.
//!
//! [`Writes::apply`] may come again with the same changes, whole or as a later part of a sequence (a log that is replayed): their
//! effect is had once. Receiving and extending are never logged; a crash may take them back, and then a message comes
//! again. As everywhere in this crate, time is an argument.

mod item;

use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::{ATTRIBUTES_BYTES_MAX, MESSAGE_ID_BYTES_MAX, ORDERING_KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::offer::Offer;

pub use super::keyvalue::Sweep;
pub use item::{
    Attempt, Item, LEASE_ENDED, LEASE_MS_MAX, Late, Phase, RETENTION_PASSED, State, TTL_PASSED, Verdict,
    backoff_ms,
};

/// How long the id of a message is remembered that has left the queue, in milliseconds.
pub const ID_WINDOW_MS: u64 = 10 * 60 * 1000;

/// Messages that one Redrive or Delete of a whole state moves at most.
pub const MOVED_MAX: usize = 10_000;

/// Messages of an ended or dead kind that one Receive passes at most before it answers with what it has.
pub const PASSED_MAX: usize = 2_000;

/// Bytes of a reason that are kept.
pub const REASON_BYTES_MAX: usize = 1_024;

/// What a namespace says about its messages, as it was when a call was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Messages of one key are done one after the other.
    pub ordered: bool,
    /// Done messages are kept.
    pub replay: bool,
    /// Within which an attempt must begin, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// After which an undone message is dead, and a dead or done one goes, in milliseconds.
    pub retention_ms: u64,
}

/// A message on its way into the queue.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// Names the message within its namespace; 1 to 68 bytes.
    pub id: &'a [u8],
    /// Digest of the whole call, if its client gave it a token: a repeat has the same one.
    pub digest: Option<u64>,
    /// 0 to 255 bytes; without order it means nothing.
    pub key: &'a str,
    /// How long it waits first, in milliseconds.
    pub delay_ms: u64,
    /// 1 to 100.
    pub attempts_max: u32,
    /// What the sender says beside the payload, opaque to the store; up to 16 KiB.
    pub attributes: &'a [u8],
    /// 0 bytes to 16 MiB.
    pub payload: &'a [u8],
}

impl NewMessage<'_> {
    /// Checks every limit. Errors name the field as the messages of `prism.queue.v1` do.
    ///
    /// # Errors
    /// [`StoreError::InvalidArgument`].
    pub fn check(&self) -> Result<(), StoreError> {
        let at_most = |field: &str, length: usize, max: usize| match length <= max {
            true => Ok(()),
            false => Err(StoreError::invalid(
                field,
                format!("must have at most {max} bytes, has {length}"),
            )),
        };
        if self.id.is_empty() {
            return Err(StoreError::invalid("message_id", "must not be empty"));
        }
        at_most("message_id", self.id.len(), MESSAGE_ID_BYTES_MAX)?;
        at_most("message.ordering_key", self.key.len(), ORDERING_KEY_BYTES_MAX)?;
        at_most("message.attributes", self.attributes.len(), ATTRIBUTES_BYTES_MAX)?;
        at_most("message.payload", self.payload.len(), VALUE_BYTES_MAX)
    }
}

/// One attempt of one message, as its receipt names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// Id of the message.
    pub id: &'a [u8],
    /// Which attempt.
    pub attempt: Attempt,
}

/// The messages that a Redrive or a Delete is about.
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
    /// Puts a message into the queue.
    Send(NewMessage<'a>),
    /// The work is done.
    Ack(Held<'a>),
    /// The work failed.
    Nack {
        /// Whose.
        held: Held<'a>,
        /// What follows from it.
        verdict: Verdict,
        /// What went wrong; cut to [`REASON_BYTES_MAX`].
        reason: &'a str,
    },
    /// Puts dead or done messages to the end of the queue.
    Redrive {
        /// Names the call, so that a repeat moves nothing more; 1 to 68 bytes.
        call: &'a [u8],
        /// Digest of the call.
        digest: Option<u64>,
        /// Those that are dead or done; others are left alone.
        which: Which<'a>,
    },
    /// Removes messages that nobody has leased.
    Delete {
        /// As of a Redrive.
        call: &'a [u8],
        /// Digest of the call.
        digest: Option<u64>,
        /// Leased ones are left alone.
        which: Which<'a>,
    },
}

/// One change, with its namespace and its time.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Must have been created.
    pub namespace: NamespaceId,
    /// What the namespace says.
    pub terms: Terms,
    /// When the call was taken. A change that is applied later, or once more, keeps it.
    pub at: UnixMillis,
    /// What is to be done.
    pub act: Act<'a>,
}

/// What became of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message is in the queue now.
    Sent,
    /// The message was there already, or was done already.
    Repeat,
    /// The message is acked, now or before.
    Acked,
    /// The message is this now.
    Nacked(State),
    /// So many messages were moved or removed; whether there are more.
    Moved(u64, bool),
    /// The worker's word came too late.
    Late(Late),
    /// Nothing was done.
    Refused(StoreError),
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
pub struct Receive<'a> {
    /// Must have been created.
    pub namespace: NamespaceId,
    /// The same call again gets the same messages while their leases last; empty: no such call.
    pub call: &'a [u8],
    /// Most messages.
    pub messages_max: usize,
    /// How long they are the worker's, in milliseconds.
    pub lease_ms: u64,
}

/// A message as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Id of the message.
    pub id: &'a [u8],
    /// Its numbers, at the time of the call.
    pub item: Item,
    /// Ordering key.
    pub key: &'a str,
    /// Attributes, as they were sent.
    pub attributes: &'a [u8],
    /// Payload; empty if it was not asked for.
    pub payload: &'a [u8],
    /// Why the last attempt failed; empty if none did.
    pub failure: &'a str,
}

/// Takes the messages that are shown.
pub trait Sink {
    /// One message; its parts are only lent. `false`: there is no room for it, and it is not given.
    fn message(&mut self, message: &Shown<'_>) -> bool;
}

impl<F: FnMut(&Shown<'_>) -> bool> Sink for F {
    fn message(&mut self, message: &Shown<'_>) -> bool {
        self(message)
    }
}

/// How a Receive went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Messages that were given.
    pub messages: usize,
    /// When the next one may be there, if nothing is sent or said before.
    pub next_at: Option<UnixMillis>,
}

/// What a Peek asks for.
#[derive(Clone, Copy, Debug)]
pub struct Peek<'a> {
    /// Must have been created.
    pub namespace: NamespaceId,
    /// States that are wanted.
    pub states: &'a [State],
    /// Only this key.
    pub key: Option<&'a str>,
    /// Place after which it begins; 0 at first.
    pub after: u64,
    /// Most messages.
    pub messages_max: usize,
    /// Whether payloads are wanted.
    pub with_payload: bool,
}

/// The number of messages in one state, and when the oldest of them was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages.
    pub messages: u64,
    /// Time of the oldest.
    pub oldest: Option<UnixMillis>,
}

impl Count {
    /// Counts one more.
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
    /// Makes changes in their order, as one transaction where the store has transactions; `outcomes` is cleared and gets one
    /// outcome for each. A refused change does not harm the others. On `Err` none was made (after [`StoreError::Io`]: perhaps
    /// all were; make the same changes again).
    ///
    /// `at` is the place in a gateway's log of the batch's last record, noted together with its effect.
    async fn apply(
        &self,
        batch: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError>;

    /// Leases what is ready to a worker, in the order in which it became ready.
    async fn receive(
        &self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError>;

    /// Makes leases longer; the end of each, or why not.
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
    /// Shows messages in the order in which they were sent; the place to go on after, if there may be more.
    async fn peek(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError>;

    /// Counts the messages of a queue.
    async fn stats(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError>;
}

/// The namespaces of a store, and the room that they take.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Upkeep {
    /// What this store promises for Queue.
    fn offer(&self) -> Offer;

    /// Makes a namespace usable, as [`crate::api::keyvalue::Upkeep::create_namespace`].
    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Makes all messages of a namespace vanish at once, as [`crate::api::keyvalue::Upkeep::drop_namespace`].
    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError>;

    /// Writes deaths down and gives the room of old messages, forgotten ids and dropped namespaces back, one step.
    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError>;
}

/// The first bytes of a reason that are kept; whole characters.
pub fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}
