//! A Scan in progress: one page at a time, shard after shard, no faster than the client reads.
//!
//! Where each shard holds its own keys (the memory store) the shards are read one after the other, and the page token
//! that a client sees is the shard's number followed by the store's own token. Where one store holds all keys there is
//! one "shard" only, number 0. In a namespace whose writes pass through the log, the Scan first waits until the store has
//! what was acknowledged before it.

use prism_backends::Selection;
use prism_codec::grpc::{Code, Status};

use super::{Dispatcher, pending::Pending};
use crate::{
    call::{
        error,
        job::{Answer, Work},
    },
    namespace::spec::Home,
};

/// How a Scan goes, given the store and the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanPlan {
    /// Where the namespace's data lies.
    pub(crate) home: Home,
    /// Shards to be read, one after the other.
    pub(crate) shards: u16,
    /// Shards whose log must have given the store what it acknowledged, before the first page; 0 for none.
    pub(crate) settle: u16,
}

/// A Scan between its first and its last page.
pub(crate) struct Scan {
    pending: Pending,
    plan: ScanPlan,
    /// The shard that is being read.
    shard: u16,
    page_bytes: u32,
    item_limit: u32,
    /// Where the next page of that shard begins; empty at its start.
    token: Vec<u8>,
    state: State,
}

enum State {
    /// The shards have not been asked whether the store has everything.
    Unsettled,
    /// So many of them have not answered.
    Settling(u16),
    /// The next page has not been asked for.
    Idle,
    /// It was asked for.
    Asked,
    /// It is here.
    Ready {
        message: Vec<u8>,
        last: bool,
    },
    Failed(Box<Status>),
}

/// What the session does next.
pub(crate) enum ScanStep {
    /// Nothing: a page is on its way, or the client is slow.
    Wait,
    /// Send [`Scan::take_page`], and end the stream if it is the last.
    Send { last: bool },
    /// End the stream with this.
    Failed(Box<Status>),
}

impl Scan {
    pub(crate) fn new(pending: Pending, plan: ScanPlan, selection: Selection<'_>) -> Self {
        let first = if plan.settle > 0 {
            State::Unsettled
        } else {
            State::Idle
        };
        let (shard, token, state) = match split_token(selection.page_token, plan.shards) {
            Some((shard, token)) => (shard, token.to_vec(), first),
            None => (
                0,
                Vec::new(),
                State::Failed(error::from_store(&prism_backends::StoreError::InvalidPageToken)),
            ),
        };
        Self {
            pending,
            plan,
            shard,
            page_bytes: selection.page_bytes,
            item_limit: selection.item_limit,
            token,
            state,
        }
    }

    /// Whether the next step, if it may, asks for a page.
    pub(crate) fn wants_page(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether a page that was asked for has not come.
    pub(crate) fn awaits_page(&self) -> bool {
        matches!(self.state, State::Asked)
    }

    /// Moves on. `may_ask` is false while the client has enough to read.
    pub(crate) fn step(&mut self, may_ask: bool, gateway: &mut Dispatcher) -> ScanStep {
        match &mut self.state {
            State::Asked | State::Settling(_) => ScanStep::Wait,
            State::Unsettled => self.ask_to_settle(gateway),
            State::Ready { last, .. } => ScanStep::Send { last: *last },
            State::Idle if !may_ask => ScanStep::Wait,
            State::Idle => {
                gateway.watch_scan_deadline(&mut self.pending);
                let work = Work::ScanPage {
                    namespace: self.pending.ticket.namespace,
                    page_bytes: self.page_bytes,
                    item_limit: self.item_limit,
                    page_token: self.token.clone(),
                };
                match gateway.submit_scan(self.plan, self.shard, &self.pending, work) {
                    Ok(()) => {
                        self.state = State::Asked;
                        ScanStep::Wait
                    }
                    Err(status) => self.fail(status, gateway),
                }
            }
            State::Failed(status) => {
                let status = std::mem::replace(
                    status,
                    error::status(Code::Internal, "the scan has already failed"),
                );
                self.fail(status, gateway)
            }
        }
    }

    /// Asks every shard to answer when the store has what it acknowledged.
    fn ask_to_settle(&mut self, gateway: &mut Dispatcher) -> ScanStep {
        gateway.watch_scan_deadline(&mut self.pending);
        for shard in 0..self.plan.settle {
            let namespace = self.pending.ticket.namespace;
            let work = Work::Settle { namespace };
            if let Err(status) = gateway.submit_scan(self.plan, shard, &self.pending, work) {
                return self.fail(status, gateway);
            }
        }
        self.state = State::Settling(self.plan.settle);
        ScanStep::Wait
    }

    fn fail(&mut self, status: Box<Status>, gateway: &mut Dispatcher) -> ScanStep {
        gateway.end(&mut self.pending, status.code, 0);
        ScanStep::Failed(status)
    }

    /// Takes in the page that was asked for. Returns whether there is something to do now.
    pub(crate) fn handle_page(
        &mut self,
        result: Result<Answer, Box<Status>>,
        gateway: &mut Dispatcher,
    ) -> bool {
        let (mut message, next) = match result {
            Ok(Answer::Page { message, next }) => (message, next),
            Ok(Answer::Settled) => {
                if let State::Settling(missing) = &mut self.state {
                    *missing -= 1;
                    if *missing == 0 {
                        self.state = State::Idle;
                        return true;
                    }
                }
                return false;
            }
            Ok(_) => {
                self.state = State::Failed(error::status(
                    Code::Internal,
                    "a scan was answered with something else",
                ));
                return true;
            }
            Err(status) => {
                self.state = State::Failed(status);
                return true;
            }
        };
        let shard_done = next.is_empty();
        if shard_done {
            self.shard += 1;
        }
        self.token = next;
        let last = self.shard == self.plan.shards;
        if message.is_empty() && !last {
            // A shard without (further) items: nothing to show for it.
            self.state = State::Idle;
            return true;
        }
        if !last {
            append_next_page_token(&mut message, &join_token(self.shard, &self.token));
        }
        gateway.count_page(&self.pending, message.len());
        self.state = State::Ready { message, last };
        if last {
            gateway.end(&mut self.pending, Code::Ok, 0);
        }
        true
    }

    /// The page that [`ScanStep::Send`] announced.
    pub(crate) fn take_page(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Ready { message, .. } => message,
            _ => Vec::new(),
        }
    }

    /// The deadline has passed.
    pub(crate) fn expire(&mut self, gateway: &mut Dispatcher) {
        gateway.expire(&mut self.pending);
    }

    /// The client gave up.
    pub(crate) fn cancel(&mut self, gateway: &mut Dispatcher) {
        gateway.cancel(&mut self.pending);
    }
}

fn split_token(token: &[u8], shards: u16) -> Option<(u16, &[u8])> {
    if token.is_empty() {
        return Some((0, &[]));
    }
    let (shard, rest) = token.split_first_chunk::<2>()?;
    let shard = u16::from_be_bytes(*shard);
    (shard < shards).then_some((shard, rest))
}

fn join_token(shard: u16, token: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(2 + token.len());
    joined.extend_from_slice(&shard.to_be_bytes());
    joined.extend_from_slice(token);
    joined
}

/// Adds the field `next_page_token` (2, length-delimited) to a serialized `ScanResponse`: fields may come in any order, so
/// the end is as good a place as any.
fn append_next_page_token(message: &mut Vec<u8>, token: &[u8]) {
    message.push(2 << 3 | 2);
    let mut length = token.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(token);
}

#[cfg(test)]
mod tests {
    use prism_codec::message::keyvalue::ScanResponseView;

    use super::*;

    #[test]
    fn tokens_survive_the_wire() {
        for length in [0, 1, 125, 126, 127, 128, 2_000] {
            let token = join_token(3, &vec![7; length]);
            let mut message = Vec::new();
            append_next_page_token(&mut message, &token);
            let view = ScanResponseView::decode(&message).expect("a field that was just written");
            assert_eq!(view.next_page_token, token);
            assert_eq!(split_token(&token, 4), Some((3, &vec![7; length][..])));
        }
    }

    #[test]
    fn tokens_of_more_shards_are_refused() {
        assert_eq!(split_token(&join_token(3, b"x"), 3), None);
        assert_eq!(split_token(b"x", 3), None);
        assert_eq!(split_token(b"", 3), Some((0, &b""[..])));
    }
}
