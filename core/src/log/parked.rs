//! Calls in a shard's log: writes to be logged, and replies that wait until their record is durable
//! or applied.

use prism_backends::NamespaceId;
use prism_wal::ids::Lsn;
use smallvec::SmallVec;

use super::window::TokenCall;
use crate::call::{
    error,
    event::RecordId,
    job::{Answer, Reply},
    receipt::{self, Receipt},
    ticket::{Stamp, Ticket},
};

/// A reply that waits until its record is durable.
#[derive(Debug)]
pub(super) struct Parked {
    /// Durable when the lane's durable prefix covers it.
    pub(super) lsn: Lsn,
    /// Record that the reply names: the first one of the call, in another lane if the number of
    /// shards differed then.
    pub(super) first: RecordId,
    pub(super) at: u64,
    pub(super) namespace: NamespaceId,
    pub(super) ticket: Ticket,
    pub(super) receipt: Receipt,
}

/// A judged call that waits until it has been applied.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) ticket: Ticket,
    /// Record that the reply names.
    pub(super) first: RecordId,
}

/// A write to be logged.
#[derive(Debug)]
pub(crate) struct LogCall {
    pub(crate) ticket: Ticket,
    pub(crate) namespace: NamespaceId,
    /// The record, as in [`crate::call::record`].
    pub(crate) record: Vec<u8>,
    /// The stamp in it.
    pub(crate) stamp: Stamp,
    /// Hashes of the keys that it may change.
    pub(crate) keys: SmallVec<[u64; 1]>,
    /// Identity of the call in the idempotency window, if it carries a token.
    pub(crate) window: Option<TokenCall>,
    /// Reply to the call. [`Receipt::Verdict`]: the call is judged, and answered when it has been
    /// applied.
    pub(crate) receipt: Receipt,
}

impl LogCall {
    /// Whether only the store can decide its result.
    pub(super) fn is_judged(&self) -> bool {
        matches!(self.receipt, Receipt::Verdict)
    }
}

impl Parked {
    /// The reply, once the record is durable.
    pub(super) fn into_reply(self, applied: bool) -> Reply {
        let answer = self.receipt.into_answer(receipt::logged(self.first, applied));
        debug_assert!(answer.is_some(), "judged calls are not parked");
        Reply {
            ticket: self.ticket,
            result: answer.ok_or_else(error::unknown_outcome),
        }
    }
}

pub(super) fn reached(ticket: Ticket) -> Reply {
    Reply {
        ticket,
        result: Ok(Answer::Reached),
    }
}
