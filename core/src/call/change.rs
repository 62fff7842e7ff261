//! A change of namespaces on its way between threads: from control to the shards and to a store's
//! provisioning thread, and back as events.
//!
//! Control waits for none of them, so every answer carries the number of the change.

use std::sync::Arc;

use prism_backends::{NamespaceId, StoreError, sqlite::OwnedDeadLetter};
use prism_codec::grpc::Status;

use crate::{namespace::spec::NamespaceSpec, runtime::mailbox::Mailbox};

/// The number of a change, and its round: the round shows which question an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChangeId {
    pub(crate) number: u64,
    pub(crate) round: u32,
}

/// A change of one entry in a shard's table of namespaces.
#[derive(Debug)]
pub(crate) enum NamespaceChange {
    /// Sets the entry to the specification. In the state `deleting` its data is given up.
    Set(Arc<NamespaceSpec>),
    /// Removes the entry, so that its name is unknown.
    Forget(NamespaceId),
}

/// The address to which a shard reports that all changes of a command have taken effect.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledge {
    pub(crate) change: ChangeId,
    pub(crate) events: Arc<Mailbox<ControlEvent>>,
}

impl Acknowledge {
    /// Sends the shard's answer to control.
    pub(crate) fn send(self, result: Result<(), StoreError>) {
        let change = self.change;
        let sent = self.events.send(ControlEvent::Applied { change, result });
        debug_assert!(sent.is_ok(), "the mailbox holds an answer for each question");
    }
}

/// The reason why a store does not have a namespace as required.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Worth trying again; the reason in the store's words.
    Retry(String),
    /// Permanent until somebody acts.
    Refused(Box<Status>),
}

impl Fault {
    /// The store's words.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Retry(sentence) => sentence.clone(),
            Self::Refused(status) => status.message.to_string(),
        }
    }
}

/// An answer to a question of control.
#[derive(Debug)]
pub(crate) enum ControlEvent {
    /// A shard has applied a command.
    Applied {
        change: ChangeId,
        result: Result<(), StoreError>,
    },
    /// A store has answered a task, with a result for each of the namespaces.
    Provisioned {
        change: ChangeId,
        results: Vec<(NamespaceId, Result<(), Fault>)>,
    },
    /// A store has answered about dead letters.
    DeadLetters {
        ask: u64,
        result: Result<Vec<OwnedDeadLetter>, StoreError>,
    },
}
