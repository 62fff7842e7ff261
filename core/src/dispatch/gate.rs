//! The only entrance of calls about data. Each check stands here once, the cheapest first, and each
//! refusal comes before any effect.

use std::time::Instant;

use prism_codec::{
    grpc::{Code, Status},
    method::{Method, Permissions},
};

use super::{Dispatcher, finish::Pass, pending::Pending};
use crate::{
    api::{self, service::Request},
    call::{
        error::{self, Stage},
        job::{Answer, Reply},
        ticket::Ticket,
    },
    identity::CallerId,
    namespace::rates::Direction,
};

/// Facts about a call in addition to its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) method: Method,
    pub(super) caller: CallerId,
    /// Bytes of the request message.
    pub(super) bytes: usize,
    pub(super) deadline: Option<Instant>,
}

/// Direction in which a call counts: what needs no more than the permission to read is a read.
#[inline]
fn direction_of(method: Method) -> Direction {
    match Permissions::READ.allow(method.spec().permissions) {
        true => Direction::Read,
        false => Direction::Write,
    }
}

impl Dispatcher {
    /// Lets a call in. Its pass is owed to [`Dispatcher::finish`]; a refusal has been counted,
    /// where a namespace is known that it counts for.
    ///
    /// # Errors
    /// Nothing was done.
    #[inline]
    pub(super) fn admit<'a>(
        &mut self,
        arrival: &Arrival,
        request: &impl Request<'a>,
    ) -> Result<Pass, Box<Status>> {
        let name = request.namespace();
        let found = self.namespaces.by_name(name);
        if found.is_none() && !self.serving {
            // While the gateway starts, the namespace may be unknown still.
            return Err(error::not_serving());
        }
        self.check_access(arrival.caller, arrival.method, found.as_deref())?;
        let Some(namespace) = found else {
            return Err(error::unknown_namespace(name));
        };
        // The figures of a namespace are those of its own API's methods, so another API's call
        // counts for none.
        if namespace.spec.api != arrival.method.api() {
            return Err(error::other_api(name, namespace.spec.api));
        }
        // The deadline may have passed while the body was received, or be shorter than any answer
        // could take.
        let is_late = arrival
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        let checked = match namespace.spec.serves() {
            false => Err(error::not_in_service(&namespace.spec)),
            true if is_late => Err(error::deadline_exceeded(Stage::Answer)),
            true => self
                .check_time(request)
                .and_then(|()| request.check(&namespace.spec))
                .and_then(|()| namespace.charge(direction_of(arrival.method), request.items())),
        };
        let pass = Pass::new(namespace, arrival.method);
        match checked {
            Ok(()) => {
                pass.metrics().request_bytes.add(arrival.bytes as u64);
                Ok(pass)
            }
            Err(status) => {
                self.finish(pass, status.code, 0);
                Err(status)
            }
        }
    }

    /// Counts a call that was refused before it was started.
    #[cold]
    pub(crate) fn count_refused(&mut self, method: Method, message: &[u8], code: Code) {
        self.metrics.shed.add(1);
        let name = api::namespace_of(method, message);
        if let Some(namespace) = name.and_then(|name| self.namespaces.by_name(name)) {
            self.finish(Pass::new(namespace, method), code, 0);
        }
    }

    /// Compares the time of a token, where it has one, with the gateway's clock.
    fn check_time<'a, R: Request<'a>>(&self, request: &R) -> Result<(), Box<Status>> {
        match request.token().and_then(|token| token.generation_time) {
            None => Ok(()),
            Some(time) => R::check_time(time, self.stamper.wall_ns(), self.limits.clock_drift_max),
        }
    }

    /// Takes one of the places for waiting calls. [`Dispatcher::answer_received`] gives it back.
    ///
    /// # Errors
    /// All places are taken, or half of them by this namespace.
    pub(super) fn take_place(&mut self, pending: &Pending) -> Result<(), Box<Status>> {
        let namespace = self.namespaces.by_id(pending.ticket.namespace);
        // One namespace may take at most half of the places, so that it cannot starve the others.
        let namespace_max = (self.limits.inflight_per_shard_max / 2).max(1);
        let in_namespace = namespace.as_ref().map_or(0, |namespace| namespace.waiting.get());
        if self.waiting >= self.limits.inflight_per_shard_max || in_namespace >= namespace_max {
            self.metrics.shed.add(1);
            return Err(error::overloaded("too many calls wait for the store"));
        }
        self.waiting += 1;
        self.metrics.calls_waiting.set(self.waiting as u64);
        if let Some(namespace) = namespace {
            namespace.waiting.set(namespace.waiting.get() + 1);
        }
        Ok(())
    }

    /// Notes a reply taken from the mailbox. Returns whether it is for a client. Those to the asks
    /// of subscriptions and of members of groups hold no place.
    pub(crate) fn reply_received(&mut self, reply: &Reply) -> bool {
        match &reply.result {
            Ok(Answer::Messages { .. } | Answer::Group(_)) => {}
            Ok(Answer::Unqueued(queued)) => {
                self.unqueue(&reply.ticket, *queued);
                return false;
            }
            _ => self.answer_received(&reply.ticket),
        }
        true
    }

    /// Notes an answer taken from the mailbox: its place is free again, whether or not its call
    /// still waits.
    pub(crate) fn answer_received(&mut self, ticket: &Ticket) {
        self.waiting = self.waiting.saturating_sub(1);
        if ticket.is_for_control() {
            self.waiting_for_control = self.waiting_for_control.saturating_sub(1);
        }
        self.metrics.calls_waiting.set(self.waiting as u64);
        if let Some(namespace) = self.namespaces.by_id(ticket.namespace) {
            namespace.waiting.set(namespace.waiting.get().saturating_sub(1));
        }
    }
}
