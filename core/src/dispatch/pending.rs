//! A call that waits for its answer: the state that is needed to finish, expire or cancel it.

use std::time::Instant;

use prism_codec::grpc::{Code, Status};

use super::{
    Destination, Dispatcher,
    finish::{Pass, code_of},
};
use crate::call::{
    error,
    job::{Answer, PartOutcome},
    receipt,
    ticket::Ticket,
};

/// A call with an answer to come by mailbox.
pub(crate) struct Pending {
    pub(crate) ticket: Ticket,
    pub(crate) deadline: Option<Instant>,
    pub(crate) deadline_key: Option<(Instant, u64)>,
    received: Instant,
    /// Where it waits for something, if it may.
    pub(super) waits_at: Option<Destination>,
    /// The ending that it owes; `None` for calls that are not about data.
    pass: Option<Pass>,
    gather: Option<Gather>,
}

/// The parts of a batch that several shards share.
struct Gather {
    missing: usize,
    failed: bool,
    /// Reason of the first refused part; if a part has an unknown outcome, the status of that one.
    refused: Option<Box<Status>>,
    parts: Vec<PartOutcome>,
}

impl Gather {
    fn new(parts: usize) -> Self {
        Self {
            missing: parts,
            failed: false,
            refused: None,
            parts: Vec::new(),
        }
    }

    /// Takes the result of one part.
    fn take(&mut self, result: Result<Answer, Box<Status>>) {
        self.missing -= 1;
        match result {
            Ok(Answer::Part(mut parts)) => self.parts.append(&mut parts),
            Ok(_) => self.failed = true,
            Err(status) => {
                self.failed = true;
                // One part has an unknown outcome, so the call as a whole has one too, whatever the
                // other parts report.
                if self.refused.is_none() || error::is_unknown_outcome(&status) {
                    self.refused = Some(status);
                }
            }
        }
    }

    /// The status of the whole call. Which mutations took effect is known only in part, so the
    /// whole has an unknown outcome; with the same idempotency token a repeat has one effect. When
    /// no part took effect and none may have, it is the reason of the first.
    fn failure(&mut self) -> Box<Status> {
        match self.refused.take() {
            Some(status) if self.parts.is_empty() || error::is_unknown_outcome(&status) => status,
            Some(status) => error::partly_done(&status),
            None => error::partly_done(&error::overloaded("a shard's mailbox is full")),
        }
    }
}

impl Pending {
    pub(crate) fn new(
        ticket: Ticket,
        received: Instant,
        deadline: Option<Instant>,
        pass: Option<Pass>,
    ) -> Self {
        Self {
            ticket,
            deadline,
            deadline_key: None,
            received,
            waits_at: None,
            pass,
            gather: None,
        }
    }

    /// Whether it waits for something that may take long: nothing of it is under way.
    pub(crate) fn waits_for_more(&self) -> bool {
        self.waits_at.is_some()
    }

    /// Notes that the answer will come in this many parts.
    pub(crate) fn gather(&mut self, parts: usize) {
        self.gather = Some(Gather::new(parts));
    }

    /// Notes that one of the parts could not be sent.
    pub(crate) fn part_failed(&mut self) {
        if let Some(gather) = &mut self.gather {
            gather.missing -= 1;
            gather.failed = true;
        }
    }
}

impl Dispatcher {
    /// Handles an answer. `None`: parts are still missing. Otherwise the message is in
    /// [`Dispatcher::reply`], or the call failed.
    pub(crate) fn handle_answer(
        &mut self,
        pending: &mut Pending,
        result: Result<Answer, Box<Status>>,
    ) -> Option<Result<(), Box<Status>>> {
        self.reply.clear();
        let result = match (result, &mut pending.gather) {
            (result, Some(gather)) => {
                gather.take(result);
                if gather.missing > 0 {
                    return None;
                }
                if gather.failed {
                    Err(gather.failure())
                } else {
                    receipt::encode_items(std::mem::take(&mut gather.parts), &mut self.reply);
                    Ok(())
                }
            }
            (Ok(Answer::Message(mut message) | Answer::Page { mut message, .. }), None) => {
                self.reply.append(&mut message);
                Ok(())
            }
            (
                Ok(
                    Answer::Part(_)
                    | Answer::Messages { .. }
                    | Answer::Group(_)
                    | Answer::Reached
                    | Answer::Unqueued(_),
                ),
                None,
            ) => Ok(()),
            (Err(status), None) => Err(status),
        };
        self.end(pending, code_of(&result), self.reply.len());
        Some(result)
    }

    /// Ends a waiting call, once: later events count for nothing.
    pub(super) fn end(&mut self, pending: &mut Pending, code: Code, response_bytes: usize) {
        self.forget_deadline(pending);
        if let Some(pass) = pending.pass.take() {
            self.finish_waiting(pass, pending.received, code, response_bytes);
        }
    }

    /// Ends the call after its deadline.
    pub(crate) fn expire(&mut self, pending: &mut Pending) {
        self.take_wait_back(pending);
        self.end(pending, Code::DeadlineExceeded, 0);
    }

    /// Ends a call whose caller has lost its permission.
    pub(crate) fn revoke(&mut self, pending: &mut Pending) {
        self.take_wait_back(pending);
        self.end(pending, Code::PermissionDenied, 0);
    }

    /// Ends a call cancelled by its client.
    pub(crate) fn cancel(&mut self, pending: &mut Pending) {
        self.take_wait_back(pending);
        self.end(pending, Code::Cancelled, 0);
        self.metrics().cancelled.add(1);
    }

    /// Counts a page of a Scan; the bytes of a stream are counted page by page.
    pub(super) fn count_page(&self, pending: &Pending, bytes: usize) {
        if let Some(pass) = &pending.pass {
            pass.metrics().response_bytes.add(bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(results: Vec<Result<Answer, Box<Status>>>) -> (Code, String) {
        let mut gather = Gather::new(results.len());
        for result in results {
            gather.take(result);
        }
        assert!(gather.missing == 0 && gather.failed);
        let status = gather.failure();
        (status.code, status.reason().unwrap_or_default())
    }

    #[test]
    fn a_part_of_unknown_outcome_outweighs_those_that_did_nothing() {
        let refused = || Err(error::unapplied_quota("this namespace's", 1));
        let unknown = || Err(error::unknown_outcome());
        let done = || {
            let outcome = Err(error::invalid("items", "whatever it says, it is an outcome"));
            let part = PartOutcome {
                index: 0,
                outcome,
                rest: Vec::new(),
            };
            Ok(Answer::Part(vec![part]))
        };
        let of_unknown = (Code::Unavailable, "UNKNOWN_OUTCOME".to_owned());
        assert_eq!(failure_of(vec![unknown(), refused()]), of_unknown);
        assert_eq!(failure_of(vec![refused(), unknown()]), of_unknown);
        assert_eq!(failure_of(vec![refused(), done(), unknown()]), of_unknown);
        assert_eq!(
            failure_of(vec![refused(), refused()]),
            (Code::ResourceExhausted, "STORE_BEHIND".to_owned()),
            "nothing was done"
        );
        assert_eq!(
            failure_of(vec![done(), refused()]),
            (Code::Unavailable, "PARTLY_DONE".to_owned()),
            "no reason that says that nothing was done"
        );
    }
}
