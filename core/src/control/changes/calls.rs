//! Calls that wait for changes. A call about namespaces in several stores has a change for each
//! store, so that one that hangs holds up its own only, and one answer.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use super::{Caller, Order, Outcome};
use crate::control::catalog::CatalogEntry;

/// All calls that wait.
#[derive(Debug, Default)]
pub(super) struct Calls {
    next: u64,
    open: BTreeMap<u64, Call>,
}

/// A call that waits for the ends of some namespaces' changes.
#[derive(Debug)]
pub(super) struct Call {
    caller: Caller,
    /// Namespaces in the order of the answer.
    ids: Vec<u32>,
    /// Those that have ended.
    outcomes: HashMap<u32, Outcome>,
}

impl Calls {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When the first of them is answered at the latest.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.open.values().map(|call| call.caller.answer_by).min()
    }

    /// Notes a call; returns its number.
    pub(super) fn open(&mut self, caller: Caller, entries: &[CatalogEntry]) -> u64 {
        let number = self.next;
        self.next += 1;
        let call = Call {
            caller,
            ids: entries.iter().map(|entry| entry.id).collect(),
            outcomes: HashMap::new(),
        };
        self.open.insert(number, call);
        number
    }

    /// Takes in the ends of some namespaces. Returns the answer if they were the last; nobody waits
    /// for the ends of a call that was answered before.
    pub(super) fn end(&mut self, number: u64, outcomes: Vec<Outcome>) -> Option<Order> {
        let call = self.open.get_mut(&number)?;
        call.add(outcomes);
        if call.outcomes.len() < call.ids.len() {
            return None;
        }
        self.open.remove(&number).map(Call::answer)
    }

    /// Takes the calls whose time is over, with their numbers.
    pub(super) fn late(&mut self, now: Instant) -> Vec<(u64, Call)> {
        let late = |_: &u64, call: &mut Call| call.caller.answer_by <= now;
        self.open.extract_if(.., late).collect()
    }
}

impl Call {
    pub(super) fn add(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        let by_id = outcomes.into_iter().map(|outcome| (outcome.entry.id, outcome));
        self.outcomes.extend(by_id);
    }

    /// The answer, in the order of the request.
    pub(super) fn answer(mut self) -> Order {
        let outcomes = self.ids.iter().filter_map(|id| self.outcomes.remove(id));
        Order::Answer {
            outcomes: outcomes.collect(),
            caller: self.caller,
        }
    }
}
