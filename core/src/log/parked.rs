//! Calls on their way through a shard's log: what is logged, and the replies that wait until it is durable or applied.

use prism_backends::NamespaceId;
use prism_codec::{message::common::WriteResultView, method::KeyValueMethod};
use prism_wal::ids::Lsn;
use smallvec::SmallVec;

use super::window::{Place, TokenCall};
use crate::{
    api::keyvalue,
    call::{
        job::{Answer, PartOutcome, Reply},
        ticket::{Stamp, Ticket},
    },
};

/// A reply that waits until its record is durable.
#[derive(Debug)]
pub(super) struct Parked {
    /// Durable when the lane's durable prefix covers it.
    pub(super) lsn: Lsn,
    /// What the reply says: the first record of the call, in another lane if the shards were fewer or more then.
    pub(super) first: Place,
    pub(super) at: u64,
    pub(super) namespace: NamespaceId,
    pub(super) ticket: Ticket,
    pub(super) form: Form,
}

/// The form of a parked reply.
#[derive(Debug)]
pub(crate) enum Form {
    Put,
    Delete,
    /// The outcomes of mutations that were refused at once, and the positions of those that were logged.
    Mutate {
        refused: Vec<PartOutcome>,
        logged: Vec<u32>,
        part: bool,
    },
}

/// A compare-and-swap that waits until it has been applied.
#[derive(Debug)]
pub(super) struct Swap {
    pub(super) ticket: Ticket,
    pub(super) first: Place,
}

/// A write that is to be logged.
#[derive(Debug)]
pub(crate) struct LogCall {
    pub(crate) ticket: Ticket,
    pub(crate) namespace: NamespaceId,
    pub(crate) method: KeyValueMethod,
    /// See [`super::record`].
    pub(crate) record: Vec<u8>,
    /// The stamp in it.
    pub(crate) stamp: Stamp,
    /// Hashes of the ids that it may change.
    pub(crate) keys: SmallVec<[u64; 1]>,
    /// What the idempotency window remembers it by, if it carries a token.
    pub(crate) window: Option<TokenCall>,
    pub(crate) form: Form,
}

impl Parked {
    /// The reply, once the record is durable.
    pub(super) fn into_reply(self, applied: bool) -> Reply {
        let result = strong(self.first, applied);
        let mut message = Vec::new();
        let answer = match self.form {
            Form::Put => {
                keyvalue::encode_write_response(KeyValueMethod::Put, &result, &mut message);
                Answer::Message(message)
            }
            Form::Delete => {
                keyvalue::encode_write_response(KeyValueMethod::Delete, &result, &mut message);
                Answer::Message(message)
            }
            Form::Mutate {
                mut refused,
                logged,
                part,
            } => {
                refused.extend(logged.into_iter().map(|index| PartOutcome {
                    index,
                    outcome: Ok(result),
                }));
                if part {
                    Answer::Part(refused)
                } else {
                    keyvalue::encode_parts(refused, &mut message);
                    Answer::Message(message)
                }
            }
        };
        Reply {
            ticket: self.ticket,
            result: Ok(answer),
        }
    }
}

/// What a write at `strong` says.
pub(super) fn strong(place: Place, applied: bool) -> WriteResultView {
    WriteResultView {
        durability: keyvalue::STRONG,
        lane: place.lane.0,
        lsn: place.lsn.0,
        applied,
    }
}

pub(super) fn settled(ticket: Ticket) -> Reply {
    Reply {
        ticket,
        result: Ok(Answer::Settled),
    }
}
