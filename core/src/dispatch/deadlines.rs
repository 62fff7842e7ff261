//! Deadlines of the calls that wait.

use std::{rc::Rc, time::Instant};

use super::{Dispatcher, pending::Pending};
use crate::{call::ticket::Ticket, runtime::notify::Notify};

impl Dispatcher {
    /// Registers a call's deadline, if it has one.
    pub(super) fn watch_deadline(&mut self, pending: &mut Pending) {
        let Some(deadline) = pending.deadline else { return };
        self.deadlines_made += 1;
        let key = (deadline, self.deadlines_made);
        pending.deadline_key = Some(key);
        let is_first = self
            .deadlines
            .first_key_value()
            .is_none_or(|(first, _)| key < *first);
        self.deadlines.insert(key, pending.ticket);
        if is_first {
            self.deadline_changed.notify();
        }
    }

    pub(crate) fn forget_deadline(&mut self, pending: &mut Pending) {
        if let Some(key) = pending.deadline_key.take() {
            self.deadlines.remove(&key);
        }
    }

    /// Registers the deadline of a stream.
    pub(crate) fn watch_stream_deadline(&mut self, pending: &mut Pending) {
        if pending.deadline_key.is_none() {
            self.watch_deadline(pending);
        }
    }

    /// The earliest deadline of a waiting call, or the time at which one that found nothing is to
    /// be looked after.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.deadlines.first_key_value();
        let deadline = deadline.map(|((deadline, _), _)| *deadline);
        deadline.into_iter().chain(self.calls.next()).min()
    }

    /// Takes a call after its deadline.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Ticket> {
        let entry = self.deadlines.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Raised when the earliest deadline moves forward.
    pub(crate) fn deadline_changed(&self) -> Rc<Notify> {
        self.deadline_changed.clone()
    }
}
