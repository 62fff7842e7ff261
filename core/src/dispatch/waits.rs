//! Calls that wait for something where there is nothing yet: how long, and those that wait for this
//! shard's memory.

use std::time::{Duration, Instant};

use prism_backends::{NamespaceId, StoreError};
use prism_codec::method::Method;

use super::{Destination, Dispatcher, Progress, pending::Pending};
use crate::{
    call::{
        context::Context,
        error,
        job::{Answer, Job, Reply, Work, WriterMessage},
        ticket::Ticket,
        waiting,
    },
    namespace::spec::Path,
};

/// The answer of a call that waits leaves so long before its deadline.
const BEFORE_DEADLINE: Duration = Duration::from_secs(1);

/// Until when a call waits; `None`: it does not.
pub(super) fn wait_until(wait: Duration, now: Instant, deadline: Option<Instant>) -> Option<Instant> {
    if wait.is_zero() {
        return None;
    }
    let last = deadline.map(|deadline| deadline.checked_sub(BEFORE_DEADLINE).unwrap_or(now));
    let until = last.map_or(now + wait, |last| last.min(now + wait));
    (until > now).then_some(until)
}

impl Dispatcher {
    /// Keeps a call of this shard that found nothing in its memory.
    pub(super) fn wait_here(
        &mut self,
        pending: Pending,
        method: Method,
        context: &Context,
        message: &[u8],
        until: Instant,
    ) -> Progress {
        let mut pending = Box::new(pending);
        if let Err(status) = self.take_place(&pending) {
            self.end(&mut pending, status.code, 0);
            return Progress::Done(Err(status));
        }
        pending.waits_at = Some(Destination::Shard(self.shard));
        self.keep_waiting(Job {
            ticket: pending.ticket,
            deadline: pending.deadline,
            work: Work::Unary {
                method,
                namespace: context.namespace,
                default_ttl_ms: context.default_ttl_ms,
                body: message.to_vec(),
                stamp: context.stamp,
                part: false,
                path: Path::StoreOnly,
                overlay: Vec::new(),
                wait_until: Some(until),
            },
        });
        self.watch_deadline(&mut pending);
        Progress::Waiting(pending)
    }

    /// Whether a call that found nothing waits.
    pub(super) fn may_wait(&self, job: &Job) -> bool {
        self.serving && waiting::until(job).is_some_and(|until| until > Instant::now())
    }

    pub(super) fn keep_waiting(&mut self, job: Job) {
        self.calls.push(job);
        self.deadlines.notify();
    }

    /// Tries calls again that wait in a namespace, as long as there is something for them.
    pub(super) fn serve_waiting(&mut self, namespace: NamespaceId) {
        while self.calls.method(namespace).is_some() {
            let now = self.wall_millis();
            match self.places.memory.ready_at(namespace) {
                Some(at) if at <= now => {
                    for job in self.calls.take_some(namespace) {
                        self.run_in_memory(job);
                    }
                }
                at => {
                    let left = at.map(|at| Instant::now() + Duration::from_millis(at.0 - now.0));
                    self.calls.look_at(namespace, left);
                    self.deadlines.notify();
                    return;
                }
            }
        }
    }

    /// Looks after the calls that wait and whose time has come.
    pub(crate) fn serve_due_waits(&mut self, now: Instant) {
        for job in self.calls.take_ended(now) {
            self.answer_nothing(job.ticket);
        }
        for namespace in self.calls.due(now) {
            self.serve_waiting(namespace);
        }
        self.serve_due_groups(now);
    }

    /// Ends the waiting of a call whose client is gone.
    pub(super) fn end_wait(&mut self, ticket: Ticket) {
        for job in self.calls.take_back(ticket) {
            self.answer_nothing(job.ticket);
        }
    }

    /// Takes back what waits for a call that ends otherwise.
    pub(super) fn take_wait_back(&mut self, pending: &mut Pending) {
        if let Some(to) = pending.waits_at.take() {
            let namespace = pending.ticket.namespace;
            let work = Work::TakeBack { namespace };
            // Without room it waits until its time is over; its answer is dropped then.
            self.send_job(
                to,
                Job {
                    ticket: pending.ticket,
                    deadline: None,
                    work,
                },
            );
        }
    }

    /// Answers the calls about a namespace that is deleted.
    pub(super) fn refuse_waiting(&mut self, namespace: NamespaceId) {
        for job in self.calls.take_where(|job| job.work.namespace() == namespace) {
            let cause = StoreError::DroppedNamespace(namespace);
            self.send_reply(Reply {
                ticket: job.ticket,
                result: Err(error::from_store(&cause)),
            });
        }
    }

    /// A drain: calls that wait are answered with nothing.
    pub(crate) fn end_waits(&mut self) {
        for job in self.calls.take_where(|_| true) {
            self.answer_nothing(job.ticket);
        }
        for store in &self.places.stores {
            // Without room they wait until their time, or that of the drain, is over.
            let _ = store.writes.send(WriterMessage::EndWaits(self.shard));
        }
    }

    fn answer_nothing(&self, ticket: Ticket) {
        self.send_reply(Reply {
            ticket,
            result: Ok(Answer::Message(Vec::new())),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_waits_no_longer_than_a_second_before_its_deadline() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(wait_until(Duration::ZERO, now, None), None);
        assert_eq!(wait_until(second * 5, now, None), Some(now + second * 5));
        let deadline = Some(now + second * 4);
        assert_eq!(wait_until(second * 5, now, deadline), Some(now + second * 3));
        assert_eq!(wait_until(second, now, deadline), Some(now + second));
        assert_eq!(wait_until(second, now, Some(now + second)), None);
    }
}
