//! Writes that are acknowledged when they are queued for their store: `best-effort`, where no
//! verdict of the store is needed.
//!
//! ```text
//!   gate ──> token's owner, if there is one ──> room? ──> the writer's mailbox ──> acknowledged
//!                                                ▲
//!              room given back, a loss counted ──┴── the store has it, or refuses it
//! ```
//!
//! Such a write has one of the places of waiting calls until the store is done with it, and its
//! bytes count, so what waits for a store that is slow or away is bounded.

use std::time::Instant;

use prism_backends::StoreError;
use prism_codec::{
    grpc::{Code, Status},
    message::common::WriteResultView,
    method::Method,
};

use super::{Destination, Dispatcher, Progress, claims::unary, pending::Pending, way::Shards};
use crate::{
    api::{
        service::{Request, Service},
        with_service,
    },
    call::{
        context::Context,
        error,
        job::{Answer, Job, Queued, Reply, Work},
        receipt::{BEST_EFFORT, Receipt},
        ticket::Ticket,
    },
    namespace::spec::{Home, Path},
};

/// Bytes of one namespace that may wait for its store at one shard.
const QUEUED_BYTES_MAX: usize = 8 << 20;

/// The result of a write that waits for its store.
const QUEUED: WriteResultView = WriteResultView {
    durability: BEST_EFFORT,
    lane: 0,
    lsn: 0,
    applied: false,
};

impl Dispatcher {
    /// Queues a write whose token, if it has one, is this shard's. The answer is put into
    /// [`Dispatcher::reply`].
    ///
    /// # Errors
    /// Nothing was done.
    pub(super) fn queue<S: Service>(
        &mut self,
        (ticket, now): (Ticket, Instant),
        method: S::Method,
        request: &S::Request<'_>,
        context: &Context,
        message: &[u8],
    ) -> Result<(), Box<Status>> {
        let receipt = S::loggable(method, request, context, None)?.receipt;
        // Its client does not wait, so it has no deadline.
        let pending = Pending::new(ticket, now, None, None);
        self.take_room(&pending, message.len())?;
        if let Err(status) = self.send_queued(ticket, method.into(), context, message) {
            self.give_back(&ticket, message.len());
            return Err(status);
        }
        if let Answer::Message(mut message) = acknowledged(receipt)? {
            self.reply.append(&mut message);
        }
        Ok(())
    }

    /// Sends a write by the owner of its token, which queues it.
    pub(super) fn start_queued_claim(
        &mut self,
        token_owner: u16,
        mut pending: Box<Pending>,
        bytes: usize,
        work: Work,
    ) -> Progress {
        let ticket = pending.ticket;
        if let Err(status) = self.take_room(&pending, bytes) {
            self.end(&mut pending, status.code, 0);
            return Progress::Done(Err(status));
        }
        // One answer, from the token's owner.
        let owners = Shards::from_elem(token_owner, 1);
        let progress = self.start_claim(token_owner, pending, &owners, work);
        if matches!(progress, Progress::Done(_)) {
            self.give_back(&ticket, bytes);
        }
        progress
    }

    /// Queues a write that another shard took, as the owner of its token, and answers it.
    pub(super) fn queue_claimed(
        &mut self,
        ticket: Ticket,
        method: Method,
        context: &Context,
        message: &[u8],
    ) {
        let result = with_service!(
            method,
            S, method => S::decode(method, message)
                .and_then(|request| self.claim_and_queue::<S>(ticket, method, &request, context, message)),
            else Err(error::not_served(method))
        );
        if result.is_err() {
            let nothing = Queued {
                bytes: message.len(),
                is_lost: false,
            };
            self.send_reply(Reply {
                ticket,
                result: Ok(Answer::Unqueued(nothing)),
            });
        }
        self.send_reply(Reply { ticket, result });
    }

    fn claim_and_queue<S: Service>(
        &mut self,
        ticket: Ticket,
        method: S::Method,
        request: &S::Request<'_>,
        context: &Context,
        message: &[u8],
    ) -> Result<Answer, Box<Status>> {
        let receipt = S::loggable(method, request, context, None)?.receipt;
        if let (Some(token), Some(spec)) = (request.call_token(), self.namespaces.spec_of(context.namespace))
        {
            let place = (spec.home, spec.path);
            self.claim(place, context.namespace, &token)?;
        }
        self.send_queued(ticket, method.into(), context, message)?;
        acknowledged(receipt)
    }

    fn send_queued(
        &mut self,
        ticket: Ticket,
        method: Method,
        context: &Context,
        message: &[u8],
    ) -> Result<(), Box<Status>> {
        let home = self.namespaces.spec_of(context.namespace).map(|spec| spec.home);
        let Some(Home::Store(store)) = home else {
            return Err(error::from_store(&StoreError::DroppedNamespace(
                context.namespace,
            )));
        };
        let job = Job {
            ticket,
            deadline: None,
            work: unary(method, context, Path::Queued, (message, None), false),
        };
        if self.send_job(Destination::Writer(store), job) {
            return Ok(());
        }
        self.metrics.shed.add(1);
        Err(error::overloaded("the store's mailbox is full"))
    }

    /// Takes one of the places for waiting calls, and room for these bytes.
    fn take_room(&mut self, pending: &Pending, bytes: usize) -> Result<(), Box<Status>> {
        let Some(namespace) = self.namespaces.by_id(pending.ticket.namespace) else {
            return Err(error::not_serving());
        };
        let queued = namespace.queued_bytes.get();
        // A message that is larger than all of the room has it to itself.
        if queued > 0 && queued + bytes > QUEUED_BYTES_MAX {
            self.metrics.shed.add(1);
            return Err(error::overloaded(
                "8 MiB of what this namespace has acknowledged at best-effort wait for the store",
            ));
        }
        self.take_place(pending)?;
        namespace.queued_bytes.set(queued + bytes);
        Ok(())
    }

    /// Notes that a store is done with a queued write.
    pub(super) fn unqueue(&mut self, ticket: &Ticket, queued: Queued) {
        self.give_back(ticket, queued.bytes);
        if queued.is_lost {
            self.metrics.queued_lost.add(1);
        }
    }

    fn give_back(&mut self, ticket: &Ticket, bytes: usize) {
        self.answer_received(ticket);
        if let Some(namespace) = self.namespaces.by_id(ticket.namespace) {
            let queued = namespace.queued_bytes.get();
            namespace.queued_bytes.set(queued.saturating_sub(bytes));
        }
    }
}

/// The answer to a queued write.
fn acknowledged(receipt: Receipt) -> Result<Answer, Box<Status>> {
    let unknown = || error::status(Code::Internal, "a call that a store judges was queued");
    receipt.into_answer(QUEUED).ok_or_else(unknown)
}
