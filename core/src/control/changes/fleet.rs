//! Changes next to those of other gateways that share the catalog: one that another carries out is
//! watched, one that another has taken is given up, and one that another has left is taken over.

use super::{Action, Caller, CatalogEntry, Change, Changes, Step, home_of, refusal};
use crate::namespace::state::NamespaceState;

impl Changes {
    /// Whether this gateway carries out a change of the namespace.
    pub(in crate::control) fn drives(&self, id: u32) -> bool {
        let change = self.current.get(&id).and_then(|number| self.open.get(number));
        change.is_some_and(|change| change.step != Step::Elsewhere)
    }

    /// Has a caller wait for a delete that another gateway carries out.
    pub(in crate::control) fn watch(&mut self, entry: CatalogEntry, caller: Caller) {
        let change = self
            .current
            .get(&entry.id)
            .and_then(|number| self.open.get(number));
        if change.is_some_and(|change| change.action == Action::Delete) {
            self.join(entry.id, caller);
            return;
        }
        let entries = vec![entry];
        let call = self.calls.open(caller, &entries);
        let mut change = Change::new(Action::Delete, None, entries, Some(call));
        change.step = Step::Elsewhere;
        self.open_change(change);
    }

    /// Goes on with a change that this gateway has come to hold.
    pub(in crate::control) fn resume(&mut self, action: Action, entry: CatalogEntry) {
        let number = self.current.get(&entry.id).copied();
        let watched = number.and_then(|number| Some((number, self.open.get_mut(&number)?)));
        match watched {
            Some((number, change)) if change.action == action && change.step == Step::Elsewhere => {
                change.home = home_of(&entry, &self.stores);
                self.go_on(number);
            }
            _ => self.begin(action, vec![entry.updated()], None),
        }
    }

    /// Another gateway holds the namespace's change now: a delete that ends ours, or it has taken
    /// ours over.
    pub(in crate::control) fn give_up(&mut self, entry: &CatalogEntry) {
        let Some(number) = self.current.get(&entry.id).copied() else {
            return;
        };
        let change = self.open.get_mut(&number);
        let Some(change) = change.filter(|change| change.step != Step::Elsewhere) else {
            return;
        };
        let is_deleted = entry.state == NamespaceState::Deleting && change.action != Action::Delete;
        let why = match is_deleted {
            true => refusal::deleted_meanwhile(&entry.name),
            false => refusal::taken_over(&entry.name),
        };
        if let Some(item) = change.item(entry.id) {
            tracing::info!(namespace = entry.name, reason = %why, "another gateway goes on");
            item.result.get_or_insert(Err(why));
        }
        self.close_if_done(number);
    }

    /// The namespace is gone from the catalog.
    pub(in crate::control) fn handle_gone(&mut self, id: u32) {
        let Some(number) = self.current.get(&id).copied() else {
            return;
        };
        if let Some(change) = self.open.get_mut(&number) {
            let is_delete = change.action == Action::Delete;
            if let Some(item) = change.item(id) {
                let end = match is_delete {
                    true => Ok(()),
                    false => Err(refusal::deleted_meanwhile(&item.entry.name)),
                };
                item.result.get_or_insert(end);
            }
        }
        self.close_if_done(number);
    }
}
