//! Asks of subscriptions and their answers, as sent between threads.

use std::{sync::Arc, time::Duration};

use prism_backends::{
    NamespaceId,
    api::{
        groups::{Done, Held, Outcome, Terms},
        pubsub::Start,
    },
};
use prism_codec::grpc::Status;

/// The messages that a subscription wants from each of its places.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) namespace: NamespaceId,
    /// Patterns of topics; none: all.
    pub(crate) patterns: Arc<[String]>,
    /// Most messages of an answer.
    pub(crate) messages_max: usize,
    /// Most bytes of an answer, except that it has at least one message.
    pub(crate) bytes_max: usize,
    /// Of a member of a group: the part of the messages that it asks for.
    pub(crate) share: Option<Share>,
}

/// The part of a namespace's messages that a member of a group asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) partitions: Partitions,
    /// The place of the ask; `None`: it has not begun.
    pub(crate) from: Option<u64>,
    /// Number before which the answer ends: from there on the member asks for more partitions.
    pub(crate) below: u64,
}

/// A set of partitions, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Partitions(pub(crate) u16);

impl Partitions {
    /// Whether a partition is among them.
    pub(crate) fn has(self, partition: u16) -> bool {
        self.0 >> partition & 1 == 1
    }

    /// The same and one more.
    #[must_use]
    pub(crate) fn with(self, partition: u16) -> Self {
        Self(self.0 | 1 << partition)
    }
}

/// The messages of one partition in an answer to a member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) partition: u16,
    pub(crate) messages: u32,
    /// Number of the last of them.
    pub(crate) last: u64,
}

/// Progress of a subscription at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has not begun.
    Before(Start),
    /// The number of its next message.
    Next(u64),
}

/// The answer to one ask.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The number of the next message.
    pub(crate) next: u64,
    /// A `SubscribeResponse` without its position; empty if there is nothing to send.
    pub(crate) message: Vec<u8>,
    /// Messages in it.
    pub(crate) messages: usize,
    /// The same by partitions, for a member of a group.
    pub(crate) delivered: Vec<Delivered>,
}

/// Outcome of an ask.
#[derive(Debug)]
pub(crate) enum Found {
    /// An answer.
    Chunk(Chunk),
    /// No wanted message so far; ask again at once.
    More,
    /// No message at all; ask again when messages have arrived.
    Nothing,
}

/// An ask's answer, as sent.
pub(crate) type Asked = Result<Chunk, Box<Status>>;

/// An ask of a member of a group to whoever keeps the group.
#[derive(Debug, Clone)]
pub(crate) struct GroupAsk {
    pub(crate) namespace: NamespaceId,
    pub(crate) group: Arc<str>,
    pub(crate) member: u64,
    pub(crate) terms: Terms,
    pub(crate) act: MemberAct,
    /// Number of the ask, which its answer repeats.
    pub(crate) number: u32,
}

/// The act of a member.
#[derive(Debug, Clone)]
pub(crate) enum MemberAct {
    Renew(Renewal),
    /// Not answered.
    Leave,
}

/// A sign of life.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    pub(crate) topics: Arc<[String]>,
    /// Life of the group that the member knows.
    pub(crate) generation: Option<u64>,
    /// Places for a group that is made by it.
    pub(crate) making: Option<Vec<Start>>,
    pub(crate) released: Vec<Held>,
    pub(crate) passed: Vec<Done>,
    /// The answer waits until there is news; `None`: it comes at once.
    pub(crate) wait: Option<GroupWait>,
}

/// State of a group that its member knows, and how long it waits for another one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupWait {
    pub(crate) time: Duration,
    pub(crate) shape: u64,
    /// Of the places, if they matter.
    pub(crate) moves: Option<u64>,
}

/// The answer to a member's ask.
#[derive(Debug)]
pub(crate) struct GroupAnswer {
    pub(crate) number: u32,
    pub(crate) outcome: Result<Outcome, Box<Status>>,
}
