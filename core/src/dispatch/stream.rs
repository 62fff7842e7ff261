//! A streaming reply in progress: a series of asks, each answered by a chunk, no faster than the
//! client reads.
//!
//! ```text
//!   begin ──> barrier (all: the store has what was acknowledged) ──> ask ──> chunk ──> ask ──> … ──> last
//! ```
//!
//! What is asked, and of whom, is the business of its [`Source`], which its API makes: a Scan goes
//! from shard to shard and ends, a subscription asks all of its places at once, and each of them
//! answers when it has something. Flow control is the absence of an ask: nothing is asked while the
//! client has enough to read, so nothing grows. A stream that ends before its asks are answered
//! takes them back.

use std::{collections::VecDeque, time::Instant};

use prism_backends::NamespaceId;
use prism_codec::grpc::{Code, Status};

use super::{Destination, Dispatcher, Progress, gate::Arrival, pending::Pending};
use crate::{
    api::{
        service::Service,
        stream::{Asked, Opened, Source, Taken},
    },
    call::{
        error,
        job::{Answer, Job, Work},
        ticket::Ticket,
    },
    namespace::spec::{Home, Path},
};

/// Most streams of one shard. Each may have an answer in flight, for which the mailbox of answers
/// has room.
pub(crate) const STREAMS_MAX: usize = 4_096;

/// A stream between its beginning and its last chunk.
pub(crate) struct Stream {
    pending: Pending,
    source: Box<dyn Source>,
    barrier: Barrier,
    ready: VecDeque<Vec<u8>>,
    /// Whether the last chunk has come.
    ended: bool,
    failed: Option<Box<Status>>,
    /// Whether it counts among the streams of its namespace.
    counted: bool,
}

/// Whether the store has the writes acknowledged before the stream began.
enum Barrier {
    /// These are to be asked.
    Wanted(Vec<Asked>),
    /// This many of them have not answered.
    Waiting(usize),
    /// All have, or none need be asked.
    Passed,
}

/// Next step of the session.
pub(crate) enum StreamStep {
    /// Nothing: a chunk is in flight, or the client is slow.
    Wait,
    /// Send [`Stream::take_message`], and end the stream if it is the last.
    Send { last: bool },
    /// End the stream with this.
    Failed(Box<Status>),
}

impl Stream {
    /// A stream that begins when all of `barrier` have given the store what was acknowledged.
    pub(super) fn new(pending: Pending, source: Box<dyn Source>, barrier: Vec<Asked>) -> Self {
        Self {
            pending,
            source,
            barrier: match barrier.is_empty() {
                true => Barrier::Passed,
                false => Barrier::Wanted(barrier),
            },
            ready: VecDeque::new(),
            ended: false,
            failed: None,
            counted: true,
        }
    }

    /// Whether it never ends by itself.
    pub(crate) fn is_endless(&self) -> bool {
        self.source.is_endless()
    }

    /// Whether the next step, if it may, asks for a chunk.
    pub(crate) fn wants_chunk(&self) -> bool {
        matches!(self.barrier, Barrier::Passed)
            && self.ready.is_empty()
            && self.failed.is_none()
            && !self.ended
            && self.source.wants_chunk()
    }

    /// Whether a requested chunk is being made now. A chunk for a subscription may take hours.
    pub(crate) fn awaits_chunk(&self) -> bool {
        self.source.awaits_chunk()
    }

    /// Moves forward. `may_ask` is false while the client has enough to read.
    pub(crate) fn step(&mut self, may_ask: bool, gateway: &mut Dispatcher) -> StreamStep {
        if let Some(status) = self.failed.take() {
            return self.fail(status, gateway);
        }
        if !self.ready.is_empty() {
            let last = self.ended && self.ready.len() == 1;
            return StreamStep::Send { last };
        }
        match &mut self.barrier {
            Barrier::Wanted(barrier) => {
                let barrier = std::mem::take(barrier);
                return self.ask_for_barrier(&barrier, gateway);
            }
            Barrier::Waiting(_) => return StreamStep::Wait,
            Barrier::Passed => {}
        }
        if let Err(status) = self.keep_up(gateway) {
            return self.fail(status, gateway);
        }
        if !may_ask || self.ended {
            return StreamStep::Wait;
        }
        loop {
            let Some((to, work)) = self.source.next_ask() else {
                return StreamStep::Wait;
            };
            gateway.watch_stream_deadline(&mut self.pending);
            if let Err(status) = gateway.submit_ask(to, &self.pending, work) {
                return self.fail(status, gateway);
            }
        }
    }

    /// Sends the asks that keep the stream's claims alive.
    fn keep_up(&mut self, gateway: &mut Dispatcher) -> Result<(), Box<Status>> {
        while let Some((to, work)) = self.source.next_upkeep() {
            gateway.watch_stream_deadline(&mut self.pending);
            gateway.submit_ask(to, &self.pending, work)?;
        }
        Ok(())
    }

    /// Asks all to answer when the store has the acknowledged writes.
    fn ask_for_barrier(&mut self, barrier: &[Asked], gateway: &mut Dispatcher) -> StreamStep {
        gateway.watch_stream_deadline(&mut self.pending);
        for to in barrier {
            let namespace = self.pending.ticket.namespace;
            let work = Work::Barrier { namespace };
            if let Err(status) = gateway.submit_ask(*to, &self.pending, work) {
                return self.fail(status, gateway);
            }
        }
        self.barrier = Barrier::Waiting(barrier.len());
        StreamStep::Wait
    }

    fn fail(&mut self, status: Box<Status>, gateway: &mut Dispatcher) -> StreamStep {
        gateway.end(&mut self.pending, status.code, 0);
        self.close(gateway);
        StreamStep::Failed(status)
    }

    /// Handles an answer. Returns whether there is something to do now.
    pub(crate) fn handle_answer(
        &mut self,
        result: Result<Answer, Box<Status>>,
        gateway: &mut Dispatcher,
    ) -> bool {
        if let (Ok(Answer::Reached), Barrier::Waiting(missing)) = (&result, &mut self.barrier) {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.barrier = Barrier::Passed;
            return true;
        }
        match result.and_then(|answer| self.source.take(answer)) {
            Ok(Taken::Nothing) => {}
            Ok(Taken::Message(message)) => {
                gateway.count_page(&self.pending, message.len());
                self.ready.push_back(message);
            }
            Ok(Taken::Last(message)) => {
                gateway.count_page(&self.pending, message.len());
                self.ready.push_back(message);
                self.ended = true;
                gateway.end(&mut self.pending, Code::Ok, 0);
                self.close(gateway);
            }
            Err(status) => self.failed = Some(status),
        }
        if self.failed.is_none()
            && !self.ended
            && matches!(self.barrier, Barrier::Passed)
            && let Err(status) = self.keep_up(gateway)
        {
            self.failed = Some(status);
        }
        true
    }

    /// The message that [`StreamStep::Send`] announced.
    pub(crate) fn take_message(&mut self) -> Vec<u8> {
        self.ready.pop_front().unwrap_or_default()
    }

    /// Ends at the deadline.
    pub(crate) fn expire(&mut self, gateway: &mut Dispatcher) {
        gateway.expire(&mut self.pending);
        self.close(gateway);
    }

    /// Ends as the client cancelled.
    pub(crate) fn cancel(&mut self, gateway: &mut Dispatcher) {
        gateway.cancel(&mut self.pending);
        self.close(gateway);
    }

    /// Ends as the gateway drains. Returns the status for the client.
    pub(crate) fn drain(&mut self, gateway: &mut Dispatcher) -> Box<Status> {
        self.end_with(error::not_serving(), gateway)
    }

    /// Ends with a status for the client, which comes back.
    pub(crate) fn end_with(&mut self, status: Box<Status>, gateway: &mut Dispatcher) -> Box<Status> {
        gateway.end(&mut self.pending, status.code, 0);
        self.close(gateway);
        status
    }

    /// The address of its call.
    pub(crate) fn ticket(&self) -> &Ticket {
        &self.pending.ticket
    }

    /// Withdraws unanswered asks, and frees the stream's place. Done once.
    fn close(&mut self, gateway: &mut Dispatcher) {
        if !std::mem::take(&mut self.counted) {
            return;
        }
        let ticket = self.pending.ticket;
        self.source.waiting(&mut |to| gateway.take_back(to, ticket));
        if let Some((to, work)) = self.source.farewell() {
            // Without room its leases end by themselves.
            let deadline = None;
            gateway.send_job(
                to.into(),
                Job {
                    ticket,
                    deadline,
                    work,
                },
            );
        }
        gateway.leave_stream(ticket.namespace);
    }
}

impl Dispatcher {
    /// Opens the stream that answers a request.
    pub(super) fn start_stream<S: Service>(
        &mut self,
        method: S::Method,
        mut ticket: Ticket,
        deadline: Option<Instant>,
        now: Instant,
        message: &[u8],
    ) -> Progress {
        let request = match S::decode(method, message) {
            Ok(request) => request,
            Err(status) => return Progress::Done(Err(status)),
        };
        let arrival = Arrival {
            method: method.into(),
            caller: ticket.caller,
            bytes: message.len(),
            deadline,
        };
        let pass = match self.admit(&arrival, &request) {
            Ok(pass) => pass,
            Err(status) => return Progress::Done(Err(status)),
        };
        let spec = pass.namespace().spec.clone();
        ticket.namespace = spec.id;
        let opened = S::open(method, &request, &spec, self.shard_count())
            .and_then(|opened| self.enter_stream(spec.id).map(|()| opened));
        let Opened { source, after_log } = match opened {
            Ok(opened) => opened,
            Err(status) => {
                self.finish(pass, status.code, 0);
                return Progress::Done(Err(status));
            }
        };
        // Whoever must have given the store what was acknowledged.
        let barrier = match (after_log, spec.path, spec.home) {
            (true, Path::LogFirst, _) => (0..self.shard_count()).map(Asked::Shard).collect(),
            (true, Path::Queued, Home::Store(store)) => vec![Asked::Writer(store)],
            _ => Vec::new(),
        };
        let pending = Pending::new(ticket, now, deadline, Some(pass));
        Progress::Stream(Box::new(Stream::new(pending, source, barrier)))
    }

    /// Takes one of the places for streams, which are separate from those of waiting calls.
    ///
    /// # Errors
    /// The namespace, or the shard, has reached its most streams.
    pub(super) fn enter_stream(&mut self, namespace: NamespaceId) -> Result<(), Box<Status>> {
        let Some(namespace) = self.namespaces.by_id(namespace) else {
            return Err(error::not_serving());
        };
        let of_namespace = namespace.streams.get();
        if self.streams >= STREAMS_MAX || of_namespace >= self.limits.streams_per_namespace_max {
            self.metrics.shed.add(1);
            return Err(error::overloaded(
                "as many streams are open as may be (limits.streams_per_namespace_max)",
            ));
        }
        self.streams += 1;
        namespace.streams.set(of_namespace + 1);
        namespace.metrics.streams.set(of_namespace as u64 + 1);
        Ok(())
    }

    fn leave_stream(&mut self, namespace: NamespaceId) {
        self.streams = self.streams.saturating_sub(1);
        if let Some(namespace) = self.namespaces.by_id(namespace) {
            let left = namespace.streams.get().saturating_sub(1);
            namespace.streams.set(left);
            namespace.metrics.streams.set(left as u64);
        }
    }

    /// Sends a stream's ask. One of a subscription may wait for hours, so it takes no place of a
    /// call.
    fn submit_ask(&mut self, to: Asked, pending: &Pending, work: Work) -> Result<(), Box<Status>> {
        let to = to.into();
        match work {
            Work::Messages { .. } | Work::Group(_) | Work::TakeBack { .. } => {
                self.submit_without_place(to, pending, work)
            }
            work => self.submit(to, pending, work),
        }
    }

    /// Withdraws an unanswered ask. If its mailbox is full, the ask's answer is dropped.
    fn take_back(&mut self, to: Asked, ticket: Ticket) {
        let job = Job {
            ticket,
            deadline: None,
            work: Work::TakeBack {
                namespace: ticket.namespace,
            },
        };
        let _ = self.send_job(to.into(), job);
    }
}

impl From<Asked> for Destination {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Shard(shard) => Self::Shard(shard),
            Asked::Reader(store) => Self::Reader(store),
            Asked::Writer(store) => Self::Writer(store),
        }
    }
}
