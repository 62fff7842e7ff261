//! The changes of namespaces that are under way, as a state machine: each was recorded in the
//! catalog before it came here, and goes on until it is done or undone, whether or not a caller
//! still waits.
//!
//! ```text
//!   create   store: do ──► shards: serve it ──► catalog: active
//!               └─ refused ──► delete (the caller gets the reason)
//!   update   store: alter ──► shards: serve it so ──► catalog: active, the new file
//!               └─ refused ──► catalog: active, the old file
//!   delete   shards: give it up ──► store: undo ──► catalog: no row ──► shards: forget it
//! ```
//!
//! Promises: nothing here waits; one question of a change is open at a time, to one store or to all
//! shards; what fails and is worth another try is tried again after a pause, for ever. Leaves to
//! others: carrying out the [`Order`]s, in their order.

mod calls;
mod fleet;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use prism_backends::{NamespaceId, StoreError};
use prism_codec::grpc::Status;

use self::calls::Calls;
use super::{
    catalog::{Catalog, CatalogEntry, CatalogError},
    provision::{Action, Object},
    refusal,
    spec::{home_of, object_of, spec_of},
    stores::Stores,
};
use crate::{
    call::{
        change::{ChangeId, Fault, NamespaceChange},
        ticket::Ticket,
    },
    namespace::{spec::Home, state::NamespaceState},
};

/// Changes that callers may have under way at a time.
pub(crate) const CHANGES_MAX: usize = 256;
/// Pause before a step is tried again: the first one, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Pause after a mailbox had no room, or the catalog's disk failed.
const PAUSE_SHORT: Duration = Duration::from_millis(200);

/// A call that waits for a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) ticket: Ticket,
    /// When it is answered at the latest, with how far the change is.
    pub(super) answer_by: Instant,
    pub(super) form: Form,
}

/// The form of a caller's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Create,
    CreateBatch,
    Update,
    Delete,
    /// That of a plan, with its effect.
    Apply(Action),
}

/// Something that is to be done outside of the state machine.
#[derive(Debug)]
pub(super) enum Order {
    /// Send to the provisioning thread of a store; `None`: it is not configured.
    Store {
        change: ChangeId,
        home: Option<Home>,
        action: Action,
        objects: Vec<Object>,
    },
    /// Send to all shards; they acknowledge where there is a change to name.
    Shards {
        change: Option<ChangeId>,
        changes: Arc<[NamespaceChange]>,
    },
    /// Forget the figures of a namespace that is gone.
    ForgetFigures(String),
    /// Answer a call, with the outcome of each namespace that it was about.
    Answer { caller: Caller, outcomes: Vec<Outcome> },
}

/// The end of a namespace's part of a change, as its caller learns it.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) entry: CatalogEntry,
    pub(super) result: Result<(), Box<Status>>,
}

/// One namespace of a change.
#[derive(Debug)]
struct Item {
    entry: CatalogEntry,
    /// `None` while there is something to be done.
    result: Option<Result<(), Box<Status>>>,
    progress: Progress,
    /// Why the last try failed, in the words of the store.
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The store is to do its part.
    Asked,
    /// It has; the shards and the catalog come next.
    InStore,
    /// It refused, and another change takes the namespace back.
    Undoing,
}

impl Item {
    fn is_at(&self, progress: Progress) -> bool {
        self.result.is_none() && self.progress == progress
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The store is at work.
    Store,
    /// So many shards have not acknowledged yet.
    Shards { missing: usize },
    /// Wait, then go on.
    Pause { until: Instant },
    /// Only what other changes undo is left.
    Undo,
    /// Another gateway carries it out.
    Elsewhere,
}

#[derive(Debug)]
struct Change {
    action: Action,
    /// The store that all its namespaces lie in; `None`: it is not configured.
    home: Option<Home>,
    items: Vec<Item>,
    step: Step,
    round: u32,
    /// How often in a row the store was not able to.
    failures: u32,
    /// No shard serves the namespaces of this delete any more.
    is_given_up: bool,
    /// The call that waits for it, among others.
    call: Option<u64>,
    /// The change that this one undoes a part of, and why.
    undoes: Option<(u64, HashMap<u32, Box<Status>>)>,
}

impl Change {
    fn new(action: Action, home: Option<Home>, entries: Vec<CatalogEntry>, call: Option<u64>) -> Self {
        let items = entries.into_iter().map(|entry| Item {
            entry,
            result: None,
            progress: Progress::Asked,
            trouble: None,
        });
        Self {
            action,
            home,
            items: items.collect(),
            step: Step::Undo,
            round: 0,
            failures: 0,
            is_given_up: false,
            call,
            undoes: None,
        }
    }

    fn at(&self, progress: Progress) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.is_at(progress))
    }

    fn item(&mut self, id: u32) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.entry.id == id)
    }

    /// Ends all items that the store has done its part for.
    fn finish(&mut self, state: NamespaceState) {
        for item in self.items.iter_mut().filter(|item| item.is_at(Progress::InStore)) {
            item.entry.state = state;
            item.entry.pending = None;
            item.result = Some(Ok(()));
        }
    }
}

/// All changes that are under way.
#[derive(Debug)]
pub(crate) struct Changes {
    shards: usize,
    stores: Stores,
    next: u64,
    open: BTreeMap<u64, Change>,
    /// The latest change of each namespace that has one.
    current: HashMap<u32, u64>,
    /// Those who have asked for changes.
    calls: Calls,
    /// Callers who came later, and wait for the end of a namespace's delete.
    joined: HashMap<u32, Vec<Caller>>,
    orders: Vec<Order>,
}

impl Changes {
    pub(crate) fn new(shards: usize, stores: Stores) -> Self {
        Self {
            shards,
            stores,
            next: 1,
            open: BTreeMap::new(),
            current: HashMap::new(),
            calls: Calls::default(),
            joined: HashMap::new(),
            orders: Vec::new(),
        }
    }

    /// Whether as many changes are under way as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= CHANGES_MAX
    }

    /// Why a namespace is not done yet, where something was tried in vain.
    pub(super) fn trouble(&self, id: u32) -> Option<&str> {
        let change = self.open.get(self.current.get(&id)?)?;
        let item = change.items.iter().find(|item| item.entry.id == id)?;
        item.trouble.as_deref()
    }

    /// Takes what is to be done, in its order.
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// When [`Changes::handle_time`] is wanted next.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let pauses = self.open.values().filter_map(|change| match change.step {
            Step::Pause { until } => Some(until),
            _ => None,
        });
        let joined = self.joined.values().flatten().map(|caller| caller.answer_by);
        pauses.chain(joined).chain(self.calls.next_time()).min()
    }

    /// Goes on with what the catalog has recorded, with a change for each store. The entries of an
    /// update are as they will be.
    pub(super) fn begin(&mut self, action: Action, entries: Vec<CatalogEntry>, caller: Option<Caller>) {
        if entries.is_empty() {
            return;
        }
        if action == Action::Create {
            // Who calls it learns that it is there and not ready.
            self.send_to_shards(&entries, NamespaceState::Provisioning, None);
        }
        let call = caller.map(|caller| self.calls.open(caller, &entries));
        let mut by_home: Vec<(Option<Home>, Vec<CatalogEntry>)> = Vec::new();
        for entry in entries {
            let home = home_of(&entry, &self.stores);
            match by_home.iter_mut().find(|(other, _)| *other == home) {
                Some((_, entries)) => entries.push(entry),
                None => by_home.push((home, vec![entry])),
            }
        }
        for (home, entries) in by_home {
            let number = self.open_change(Change::new(action, home, entries, call));
            self.go_on(number);
        }
    }

    fn open_change(&mut self, change: Change) -> u64 {
        let number = self.next;
        self.next += 1;
        for item in &change.items {
            if let Some(before) = self.current.insert(item.entry.id, number) {
                self.supersede(before, &item.entry);
            }
        }
        self.open.insert(number, change);
        number
    }

    /// Has a caller wait for the end of a change that is under way. `false` if there is none.
    pub(super) fn join(&mut self, id: u32, caller: Caller) -> bool {
        let is_open = self.current.contains_key(&id);
        if is_open {
            self.joined.entry(id).or_default().push(caller);
        }
        is_open
    }

    /// A namespace of an earlier change is being deleted: that change is over for it.
    fn supersede(&mut self, number: u64, entry: &CatalogEntry) {
        let change = self.open.get_mut(&number);
        let Some(item) = change.and_then(|change| change.item(entry.id)) else {
            return;
        };
        if item.progress != Progress::Undoing {
            item.result
                .get_or_insert(Err(refusal::deleted_meanwhile(&entry.name)));
            self.close_if_done(number);
        }
    }

    /// Starts the next step of a change that waits for nothing.
    fn go_on(&mut self, number: u64) {
        let Some(change) = self.open.get_mut(&number) else {
            return;
        };
        change.round += 1;
        let id = ChangeId {
            number,
            round: change.round,
        };
        if change.action == Action::Delete && !change.is_given_up {
            change.step = Step::Shards { missing: self.shards };
            let entries: Vec<_> = change
                .at(Progress::Asked)
                .map(|item| item.entry.clone())
                .collect();
            return self.send_to_shards(&entries, NamespaceState::Deleting, Some(id));
        }
        change.step = Step::Store;
        let objects = change.at(Progress::Asked).map(|item| object_of(&item.entry));
        self.orders.push(Order::Store {
            change: id,
            home: change.home,
            action: change.action,
            objects: objects.collect(),
        });
    }

    fn send_to_shards(&mut self, entries: &[CatalogEntry], state: NamespaceState, change: Option<ChangeId>) {
        let specs = entries.iter().map(|entry| spec_of(entry, state, &self.stores));
        let changes = specs.map(NamespaceChange::Set).collect();
        self.orders.push(Order::Shards { change, changes });
    }

    /// The open change that asked; `None` if the answer is to an earlier question of it.
    fn asked(&mut self, id: ChangeId) -> Option<&mut Change> {
        let change = self.open.get_mut(&id.number)?;
        (change.round == id.round).then_some(change)
    }

    /// An order found no room: the change asks again a little later.
    pub(super) fn handle_no_room(&mut self, id: ChangeId, now: Instant) {
        if let Some(change) = self.asked(id) {
            change.ask_again(now);
        }
    }

    /// A store has answered, with a result for each of its namespaces.
    pub(super) fn handle_provisioned(
        &mut self,
        catalog: &mut Catalog,
        id: ChangeId,
        results: Vec<(NamespaceId, Result<(), Fault>)>,
        now: Instant,
    ) {
        let Some(change) = self.asked(id) else { return };
        let mut refused = HashMap::new();
        for (namespace, result) in results {
            let is_delete = change.action == Action::Delete;
            let Some(item) = change
                .item(namespace.0)
                .filter(|item| item.is_at(Progress::Asked))
            else {
                continue;
            };
            item.trouble = None;
            match result {
                Ok(()) => item.progress = Progress::InStore,
                Err(Fault::Refused(status)) if !is_delete => {
                    refused.insert(namespace.0, status);
                }
                Err(fault) => {
                    let trouble = fault.sentence();
                    tracing::warn!(
                        namespace = item.entry.name,
                        error = trouble,
                        "the store does not do as asked; trying again"
                    );
                    item.trouble = Some(trouble);
                }
            }
        }
        let has_failed = change.at(Progress::Asked).any(|item| item.trouble.is_some());
        self.undo(catalog, id.number, refused);
        if let Some(change) = self.open.get_mut(&id.number) {
            change.failures = if has_failed {
                change.failures.saturating_add(1)
            } else {
                0
            };
            self.hand_on(catalog, id, now);
        }
    }

    /// A shard has taken a command in.
    pub(super) fn handle_applied(
        &mut self,
        catalog: &mut Catalog,
        id: ChangeId,
        result: Result<(), StoreError>,
        now: Instant,
    ) {
        let Some(change) = self.asked(id) else { return };
        let Step::Shards { missing } = &mut change.step else {
            return;
        };
        *missing -= 1;
        let is_last = *missing == 0;
        if let Err(cause) = result {
            // Only a shard's memory can refuse, and only a number that it has seen before.
            tracing::error!(error = %cause, "a shard does not take a namespace in");
            let status = crate::call::error::from_store(&cause);
            let ready = change
                .at(Progress::InStore)
                .map(|item| (item.entry.id, status.clone()));
            let refused = ready.collect();
            if change.action != Action::Delete {
                self.undo(catalog, id.number, refused);
            }
        }
        if is_last {
            self.handle_all_applied(catalog, id.number, now);
        }
    }

    fn handle_all_applied(&mut self, catalog: &mut Catalog, number: u64, now: Instant) {
        let Some(change) = self.open.get_mut(&number) else {
            return;
        };
        let ready: Vec<_> = change.at(Progress::InStore).map(|item| item.entry.id).collect();
        let noted = match change.action {
            Action::Delete => {
                change.is_given_up = true;
                return self.go_on(number);
            }
            Action::Create => catalog.activate(&ready),
            Action::Update => change
                .at(Progress::InStore)
                .try_for_each(|item| catalog.finish_update(&item.entry)),
        };
        match noted {
            Ok(()) => {
                change.finish(NamespaceState::Active);
                self.rest(number, now);
            }
            Err(cause) => change.retry(&cause, now),
        }
    }

    /// Takes back what the store refused; its callers get the reasons once that is done.
    fn undo(&mut self, catalog: &mut Catalog, number: u64, reasons: HashMap<u32, Box<Status>>) {
        let Some(change) = self.open.get_mut(&number).filter(|_| !reasons.is_empty()) else {
            return;
        };
        let ids: Vec<u32> = reasons.keys().copied().collect();
        let recorded = match change.action {
            Action::Create | Action::Delete => catalog.begin_delete(&ids),
            Action::Update => ids.iter().try_for_each(|id| catalog.undo_update(*id)),
        };
        if let Err(cause) = recorded {
            tracing::error!(error = %cause, "cannot take a namespace back yet; trying again");
            return;
        }
        let mut entries = Vec::new();
        for item in change
            .items
            .iter_mut()
            .filter(|item| ids.contains(&item.entry.id))
        {
            let reason = &reasons[&item.entry.id];
            tracing::error!(namespace = item.entry.name, error = %reason, "the namespace is taken back");
            if change.action == Action::Update {
                item.result = Some(Err(reason.clone()));
                continue;
            }
            item.progress = Progress::Undoing;
            let mut entry = item.entry.clone();
            entry.state = NamespaceState::Deleting;
            entries.push(entry);
        }
        if !entries.is_empty() {
            let mut undo = Change::new(Action::Delete, change.home, entries, None);
            undo.undoes = Some((number, reasons));
            let undo = self.open_change(undo);
            self.go_on(undo);
        }
    }

    /// After the store's part: the next one's.
    fn hand_on(&mut self, catalog: &mut Catalog, id: ChangeId, now: Instant) {
        let Some(change) = self.open.get_mut(&id.number) else {
            return;
        };
        let ready: Vec<_> = change
            .at(Progress::InStore)
            .map(|item| item.entry.clone())
            .collect();
        if ready.is_empty() {
            return self.rest(id.number, now);
        }
        if change.action != Action::Delete {
            change.round += 1;
            change.step = Step::Shards { missing: self.shards };
            let next = ChangeId {
                round: change.round,
                ..id
            };
            return self.send_to_shards(&ready, NamespaceState::Active, Some(next));
        }
        let ids: Vec<_> = ready.iter().map(|entry| entry.id).collect();
        if let Err(cause) = catalog.remove(&ids) {
            return change.retry(&cause, now);
        }
        change.finish(NamespaceState::Deleting);
        let forget = |entry: &CatalogEntry| NamespaceChange::Forget(NamespaceId(entry.id));
        self.orders.push(Order::Shards {
            change: None,
            changes: ready.iter().map(forget).collect(),
        });
        let figures = ready.into_iter().map(|entry| Order::ForgetFigures(entry.name));
        self.orders.extend(figures);
        self.rest(id.number, now);
    }

    /// After the last part: the end, or a pause before the rest is tried again.
    fn rest(&mut self, number: u64, now: Instant) {
        if let Some(change) = self.open.get_mut(&number) {
            if change.at(Progress::Asked).next().is_some() {
                change.pause(now + pause_after(change.failures, number));
            } else {
                change.step = Step::Undo;
            }
        }
        self.close_if_done(number);
    }

    fn close_if_done(&mut self, number: u64) {
        let Some(change) = self.open.get_mut(&number) else {
            return;
        };
        for item in &change.items {
            let is_current = self.current.get(&item.entry.id) == Some(&number);
            let Some(result) = item.result.as_ref().filter(|_| is_current) else {
                continue;
            };
            for caller in self.joined.remove(&item.entry.id).unwrap_or_default() {
                let outcomes = vec![Outcome::new(item.entry.clone(), result.clone())];
                self.orders.push(Order::Answer { caller, outcomes });
            }
        }
        if change.items.iter().any(|item| item.result.is_none()) {
            return;
        }
        let Some(change) = self.open.remove(&number) else {
            return;
        };
        let ended = |item: Item| {
            let Item { entry, result, .. } = item;
            Outcome::new(entry, result.unwrap_or(Ok(())))
        };
        let outcomes: Vec<Outcome> = change.items.into_iter().map(ended).collect();
        for Outcome { entry, .. } in &outcomes {
            if self.current.get(&entry.id) == Some(&number) {
                self.current.remove(&entry.id);
            }
        }
        if let Some((undone, mut reasons)) = change.undoes {
            if let Some(change) = self.open.get_mut(&undone) {
                for item in &mut change.items {
                    if let Some(reason) = reasons.remove(&item.entry.id) {
                        item.result.get_or_insert(Err(reason));
                    }
                }
            }
            self.close_if_done(undone);
        }
        let call = change.call;
        self.orders
            .extend(call.and_then(|call| self.calls.end(call, outcomes)));
    }

    /// Goes on after pauses, and answers the callers whose time is over.
    pub(super) fn handle_time(&mut self, now: Instant) {
        for (number, mut call) in self.calls.late(now) {
            for change in self.open.values().filter(|change| change.call == Some(number)) {
                call.add(change.items.iter().map(|item| item.so_far(change.action)));
            }
            self.orders.push(call.answer());
        }
        let is_due = |change: &Change| matches!(change.step, Step::Pause { until } if until <= now);
        let due = self.open.iter().filter(|(_, change)| is_due(change));
        let due: Vec<u64> = due.map(|(number, _)| *number).collect();
        for (id, callers) in &mut self.joined {
            let change = self.current.get(id).and_then(|number| self.open.get(number));
            let item = change.and_then(|change| change.items.iter().find(|item| item.entry.id == *id));
            let Some(item) = item else { continue };
            for caller in callers.extract_if(.., |caller| caller.answer_by <= now) {
                let outcomes = vec![item.so_far(Action::Delete)];
                self.orders.push(Order::Answer { caller, outcomes });
            }
        }
        self.joined.retain(|_, callers| !callers.is_empty());
        due.into_iter().for_each(|number| self.go_on(number));
    }
}

impl Change {
    fn pause(&mut self, until: Instant) {
        self.step = Step::Pause { until };
        // An answer that comes after all is one to an earlier question.
        self.round += 1;
    }

    /// The catalog's disk failed.
    fn retry(&mut self, cause: &CatalogError, now: Instant) {
        tracing::error!(error = %cause, "cannot note what is done; trying again");
        for item in self.items.iter_mut().filter(|item| item.is_at(Progress::InStore)) {
            item.trouble = Some(cause.to_string());
        }
        self.ask_again(now);
    }

    /// Does all that is not recorded as done once more, after a short pause.
    fn ask_again(&mut self, now: Instant) {
        for item in self.items.iter_mut().filter(|item| item.is_at(Progress::InStore)) {
            item.progress = Progress::Asked;
        }
        self.pause(now + PAUSE_SHORT);
    }
}

impl Item {
    /// The outcome for a caller who does not wait any longer.
    fn so_far(&self, action: Action) -> Outcome {
        let still = || {
            Err(refusal::still_under_way(
                action,
                &self.entry.name,
                self.trouble.as_deref(),
            ))
        };
        Outcome::new(self.entry.clone(), self.result.clone().unwrap_or_else(still))
    }
}

impl Outcome {
    fn new(entry: CatalogEntry, result: Result<(), Box<Status>>) -> Self {
        Self { entry, result }
    }
}

/// Pause after so many failures: doubled each time, and up to an eighth longer, so that many
/// changes do not come back together.
fn pause_after(failures: u32, number: u64) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let pause = doubled.min(PAUSE_MAX);
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    pause + pause / 8 * u32::try_from(spread).unwrap_or(0) / 256
}

#[cfg(test)]
mod tests;
