//! An ask of a subscription and its answer, as sent between threads.

use prism_backends::{NamespaceId, api::pubsub::Start};
use prism_codec::grpc::Status;

/// The messages that a subscription wants from each of its places.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) namespace: NamespaceId,
    /// Patterns of topics; none: all.
    pub(crate) patterns: Vec<String>,
    /// Most messages of an answer.
    pub(crate) messages_max: usize,
    /// Most bytes of an answer, except that it has at least one message.
    pub(crate) bytes_max: usize,
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
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The number of the next message.
    pub(crate) next: u64,
    /// A `SubscribeResponse` without its position; empty if there is nothing to send.
    pub(crate) message: Vec<u8>,
    /// Messages in it.
    pub(crate) messages: usize,
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
