//! Streaming replies: a series of asks, each answered by a chunk. A [`Source`] says what is asked,
//! and of whom.

use prism_codec::grpc::Status;

use crate::{
    call::job::{Answer, Work},
    namespace::spec::StoreId,
};

/// Thread that answers an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Shard(u16),
    Reader(StoreId),
    Writer(StoreId),
}

/// Outcome of an answer.
pub(crate) enum Taken {
    /// Nothing to show; ask on.
    Nothing,
    /// A message for the client.
    Message(Vec<u8>),
    /// The last message for the client.
    Last(Vec<u8>),
}

/// The origin of a stream's messages, a machine without threads: asks out, answers in.
pub(crate) trait Source {
    /// Whether it goes on until somebody ends it.
    fn is_endless(&self) -> bool {
        false
    }

    /// Whether there is an ask to be made.
    fn wants_chunk(&self) -> bool;

    /// Whether a chunk was asked for that is being made now. One that may come in hours is none.
    fn awaits_chunk(&self) -> bool;

    /// The next ask, unless all that may be are under way.
    fn next_ask(&mut self) -> Option<(Asked, Work)>;

    /// Takes in the answer to an ask.
    ///
    /// # Errors
    /// The stream ends with it.
    fn take(&mut self, answer: Answer) -> Result<Taken, Box<Status>>;

    /// The next ask that keeps the stream's claims alive, however slow its client reads.
    fn next_upkeep(&mut self) -> Option<(Asked, Work)> {
        None
    }

    /// Work that the end of the stream leaves for others, not answered.
    fn farewell(&mut self) -> Option<(Asked, Work)> {
        None
    }

    /// Calls `each` for every ask that may wait and is not answered, which the end of the stream
    /// takes back.
    fn waiting(&self, each: &mut dyn FnMut(Asked)) {
        let _ = each;
    }
}

/// A stream that a request has opened.
pub(crate) struct Opened {
    pub(crate) source: Box<dyn Source>,
    /// Whether the store must have all that was acknowledged before it begins.
    pub(crate) after_log: bool,
}
