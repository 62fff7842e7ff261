//! Moments that a shard waits for: deadlines of calls, and the times at which answers to
//! subscriptions may go out whose namespace declares a rate.
//!
//! A subscription that reads faster than declared is not failed but slowed down: its answer is held
//! until the rate has room for the messages in it, and nothing is asked for it meanwhile. So at
//! most one answer is held for each ask that may be open.

use std::{collections::BTreeMap, rc::Rc, time::Instant};

use super::{Dispatcher, pending::Pending};
use crate::{
    call::{
        job::{Answer, Reply},
        ticket::Ticket,
    },
    namespace::rates::Direction,
    runtime::notify::Notify,
};

/// A moment, and a number that makes it unique.
type Key = (Instant, u64);

/// All moments that are waited for.
#[derive(Default)]
pub(super) struct Deadlines {
    calls: BTreeMap<Key, Ticket>,
    held: BTreeMap<Key, Reply>,
    made: u64,
    /// Raised when the earliest moment moves forward.
    changed: Rc<Notify>,
}

impl Deadlines {
    fn key(&mut self, at: Instant) -> Key {
        self.made += 1;
        (at, self.made)
    }

    /// Wakes whoever waits for the earliest moment.
    pub(super) fn notify(&self) {
        self.changed.notify();
    }

    fn first(&self) -> Option<Instant> {
        let call = self.calls.first_key_value().map(|(key, _)| key.0);
        let held = self.held.first_key_value().map(|(key, _)| key.0);
        call.into_iter().chain(held).min()
    }
}

impl Dispatcher {
    /// Registers a call's deadline, if it has one.
    pub(super) fn watch_deadline(&mut self, pending: &mut Pending) {
        let Some(deadline) = pending.deadline else { return };
        let is_first = self.deadlines.first().is_none_or(|first| deadline < first);
        let key = self.deadlines.key(deadline);
        pending.deadline_key = Some(key);
        self.deadlines.calls.insert(key, pending.ticket);
        if is_first {
            self.deadlines.notify();
        }
    }

    pub(crate) fn forget_deadline(&mut self, pending: &mut Pending) {
        if let Some(key) = pending.deadline_key.take() {
            self.deadlines.calls.remove(&key);
        }
    }

    /// Registers the deadline of a stream.
    pub(crate) fn watch_stream_deadline(&mut self, pending: &mut Pending) {
        if pending.deadline_key.is_none() {
            self.watch_deadline(pending);
        }
    }

    /// Passes an answer on, unless the declared rate has no room yet for the messages in it: then
    /// it is held until there is.
    pub(crate) fn pace(&mut self, reply: Reply) -> Option<Reply> {
        let Ok(Answer::Messages { chunk: Ok(chunk), .. }) = &reply.result else {
            return Some(reply);
        };
        let spec = self.namespaces.spec_of(reply.ticket.namespace);
        let bucket = spec.and_then(|spec| spec.rates[Direction::Read as usize].as_deref());
        let (Some(bucket), 1..) = (bucket, chunk.messages) else {
            return Some(reply);
        };
        let now = Instant::now();
        let wait = bucket.reserve(now, chunk.messages as u64);
        if wait.is_zero() {
            return Some(reply);
        }
        let is_first = self.deadlines.first().is_none_or(|first| now + wait < first);
        let key = self.deadlines.key(now + wait);
        self.deadlines.held.insert(key, reply);
        if is_first {
            self.deadlines.notify();
        }
        None
    }

    /// Takes an answer whose time has come.
    pub(crate) fn take_held(&mut self, now: Instant) -> Option<Reply> {
        let entry = self.deadlines.held.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// The earliest moment that something waits for: a deadline, an answer that is held, or the
    /// time at which a call that found nothing is to be looked after.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let waits = self.calls.next().into_iter().chain(self.group_waits.next());
        self.deadlines.first().into_iter().chain(waits).min()
    }

    /// Takes a call after its deadline.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Ticket> {
        let entry = self.deadlines.calls.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Raised when the earliest moment moves forward.
    pub(crate) fn deadline_changed(&self) -> Rc<Notify> {
        self.deadlines.changed.clone()
    }
}
