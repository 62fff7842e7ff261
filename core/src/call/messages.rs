//! An ask of a subscription and its answer, as they travel between threads.

use prism_backends::{NamespaceId, api::pubsub::Start};
use prism_codec::grpc::Status;

/// The messages that a subscription wants, of each place that has some.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) namespace: NamespaceId,
    /// Patterns of topics; none: all.
    pub(crate) patterns: Vec<String>,
    /// Most messages of an answer.
    pub(crate) messages_max: usize,
    /// Most bytes of an answer, which has one message at least.
    pub(crate) bytes_max: usize,
}

/// How far a subscription has come at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has not begun.
    Before(Start),
    /// The number of its next message.
    Next(u64),
}

/// The answer to one ask.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The number of the next message.
    pub(crate) next: u64,
    /// A `SubscribeResponse` without its position; empty if there is nothing to say.
    pub(crate) message: Vec<u8>,
}

/// Outcome of an ask.
#[derive(Debug)]
pub(crate) enum Found {
    /// An answer.
    Chunk(Chunk),
    /// Nothing that is wanted so far; ask again at once.
    More,
    /// Nothing is there; ask again when messages have come.
    Nothing,
}

/// An ask's answer, as it is sent.
pub(crate) type Asked = Result<Chunk, Box<Status>>;
