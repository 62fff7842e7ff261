//! Control's part of a catalog that several gateways share: what others have changed reaches the
//! shards of this gateway, and what others have left undone is finished here.

use std::sync::Arc;

use prism_backends::NamespaceId;
use prism_codec::grpc::Status;

use super::{
    Control, answer,
    changes::{Caller, Outcome},
    provision::Action,
    refusal, refused,
    spec::spec_of,
};
use crate::{
    call::change::NamespaceChange, control::catalog::CatalogEntry, namespace::state::NamespaceState,
};

impl Control {
    /// Follows the catalog. What this gateway's own changes do anyway is left to them.
    pub(super) fn handle_catalog(&mut self) {
        if !self.catalog.has_news() {
            return;
        }
        let touched = match self.catalog.take_touched() {
            Ok(touched) => touched,
            Err(cause) => {
                tracing::error!(error = %cause, "cannot follow the shared catalog; the next start will");
                return;
            }
        };
        let mut changes = Vec::new();
        for (id, name) in touched {
            match self.catalog.entry_of(id) {
                Ok(Some(entry)) => changes.extend(self.handle_touched(entry)),
                Ok(None) => {
                    self.changes.handle_gone(id);
                    changes.push(NamespaceChange::Forget(NamespaceId(id)));
                    self.registry.remove_namespace(&name);
                }
                Err(cause) => tracing::error!(namespace = name, error = %cause, "it stays as it was"),
            }
        }
        if !changes.is_empty() {
            self.send_to_shards(None, &Arc::from(changes));
        }
        self.carry_out_orders();
    }

    /// Has a caller wait for a delete that another gateway carries out, if that is not done.
    pub(super) fn wait_for_delete(
        &mut self,
        entry: CatalogEntry,
        caller: Caller,
    ) -> Result<Option<Vec<u8>>, Box<Status>> {
        let found = self.catalog.entry_of(entry.id);
        match found.map_err(|cause| refused(refusal::of_catalog(&cause)))? {
            None => answer(
                caller.form,
                vec![Outcome {
                    entry,
                    result: Ok(()),
                }],
            )
            .map(Some),
            Some(entry) => {
                self.changes.watch(entry, caller);
                Ok(None)
            }
        }
    }

    /// The change that the shards are to learn of a namespace that is not as it was.
    fn handle_touched(&mut self, entry: CatalogEntry) -> Option<NamespaceChange> {
        self.context.stores.note(&entry);
        let action = match entry.state {
            NamespaceState::Active if self.changes.drives(entry.id) => return None,
            NamespaceState::Active => {
                return Some(NamespaceChange::Set(spec_of(
                    &entry,
                    entry.state,
                    &self.context.stores,
                )));
            }
            NamespaceState::Provisioning => Action::Create,
            NamespaceState::Updating => Action::Update,
            NamespaceState::Deleting => Action::Delete,
        };
        if self.catalog.is_held_here(entry.id) {
            // Nobody drives it: its gateway has ended, or an answer was lost.
            if !self.changes.drives(entry.id) {
                tracing::info!(namespace = entry.name, state = %entry.state, "going on with a change");
                self.changes.resume(action, entry);
            }
            return None;
        }
        self.changes.give_up(&entry);
        Some(NamespaceChange::Set(spec_of(
            &entry,
            entry.state,
            &self.context.stores,
        )))
    }
}
