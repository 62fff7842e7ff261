//! Callers of one shard, and the check of what they may do.
//!
//! Without identity nothing is checked. With it the default is no: whoever has proved nothing is
//! UNAUTHENTICATED, and whoever lacks a permission gets the same answer as for a namespace that
//! does not exist.

use std::sync::Arc;

use prism_codec::{
    grpc::Status,
    method::{Method, Permissions},
};
use rustc_hash::FxHashMap;

use super::{Dispatcher, namespaces::Namespace};
use crate::{
    call::{error, ticket::Ticket},
    identity::{Caller, CallerId, Rules},
};

/// The callers that are connected.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// `None`: there is no identity, and everybody may do everything.
    rules: Option<Arc<Rules>>,
    known: FxHashMap<CallerId, Arc<Caller>>,
    last: u32,
    /// Whether a namespace's permissions have changed since the open streams were looked at.
    have_changed: bool,
}

impl Callers {
    pub(crate) fn new(rules: Option<Arc<Rules>>) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// The rules of identity, where it is on.
    pub(crate) fn rules(&self) -> Option<&Arc<Rules>> {
        self.rules.as_ref()
    }

    /// Lets a caller in. Its number is good until [`Callers::leave`].
    pub(crate) fn enter(&mut self, caller: Caller) -> CallerId {
        // Numbers that come back after four thousand million connections belong to nobody by then.
        self.last = self.last.wrapping_add(1).max(1);
        let id = CallerId(self.last);
        self.known.insert(id, Arc::new(caller));
        id
    }

    /// Forgets a caller whose connection is gone.
    pub(crate) fn leave(&mut self, id: CallerId) {
        self.known.remove(&id);
    }

    /// Notes that permissions have changed.
    pub(super) fn note_change(&mut self) {
        self.have_changed |= self.rules.is_some();
    }

    /// Whether permissions have changed since the last question.
    pub(crate) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.have_changed)
    }

    /// The caller; `None` without identity.
    ///
    /// # Errors
    /// It has proved nothing.
    #[inline]
    pub(super) fn find(&self, id: CallerId) -> Result<Option<&Arc<Caller>>, Box<Status>> {
        // Without identity a call costs one comparison here, and no look-up.
        if self.rules.is_none() {
            return Ok(None);
        }
        match self.known.get(&id) {
            Some(caller) => Ok(Some(caller)),
            None => Err(error::unauthenticated()),
        }
    }
}

impl Dispatcher {
    /// Checks whether a caller may make this call about a namespace; one that does not exist
    /// allows nothing.
    ///
    /// # Errors
    /// UNAUTHENTICATED `UNAUTHENTICATED`, PERMISSION_DENIED `ACCESS_DENIED`; nothing was done.
    #[inline]
    pub(super) fn check_access(
        &self,
        caller: CallerId,
        method: Method,
        namespace: Option<&Namespace>,
    ) -> Result<(), Box<Status>> {
        let Some(caller) = self.callers.find(caller)? else {
            return Ok(());
        };
        let held = namespace.map_or(Permissions::NONE, |namespace| {
            let access = &namespace.spec.access;
            access.permissions_of(&caller.service, caller.team.as_deref())
        });
        match namespace.is_some() && held.allow(method.spec().permissions) {
            true => Ok(()),
            false => Err(error::access_denied()),
        }
    }

    /// Checks whether an open stream or a waiting call may go on.
    ///
    /// # Errors
    /// PERMISSION_DENIED `ACCESS_REVOKED`.
    pub(crate) fn check_again(&self, ticket: &Ticket, method: Method) -> Result<(), Box<Status>> {
        let namespace = self.namespaces.by_id(ticket.namespace);
        self.check_access(ticket.caller, method, namespace.as_deref())
            .map_err(|_| error::access_revoked())
    }

    /// Checks whether a caller may see the figures of all namespaces.
    ///
    /// # Errors
    /// As for a namespace without permission.
    pub(super) fn check_viewer(&self, caller: CallerId) -> Result<(), Box<Status>> {
        match self.callers.find(caller)? {
            Some(caller) if !caller.is_viewer => Err(error::access_denied()),
            _ => Ok(()),
        }
    }
}
