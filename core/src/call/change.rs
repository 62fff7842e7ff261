//! A change of namespaces on its way through the threads: from control to the shards and to a
//! store's provisioning thread, and back as events.
//!
//! Control waits for none of them, so every answer carries the number of the change that asked.

use std::sync::Arc;

use prism_backends::{NamespaceId, StoreError, sqlite::OwnedDeadLetter};
use prism_codec::grpc::Status;

use crate::{namespace::spec::NamespaceSpec, runtime::mailbox::Mailbox};

/// The number of a change, and how often it has asked: an answer to an earlier question is known by
/// its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChangeId {
    pub(crate) number: u64,
    pub(crate) round: u32,
}

/// One entry of a shard's table of namespaces that is to change.
#[derive(Debug)]
pub(crate) enum NamespaceChange {
    /// It is as the specification says from now on. In the state `deleting` its data is given up.
    Set(Arc<NamespaceSpec>),
    /// Its name is unknown from now on.
    Forget(NamespaceId),
}

/// The place where a shard says that all changes of a command have taken effect.
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

/// Why a store does not have a namespace as it should be.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is worth trying again; why, in the store's words.
    Retry(String),
    /// It stays so until somebody acts.
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

/// An answer that control asked for.
#[derive(Debug)]
pub(crate) enum ControlEvent {
    /// A shard has taken a command in.
    Applied {
        change: ChangeId,
        result: Result<(), StoreError>,
    },
    /// A store has answered a task, with a result for each of the namespaces.
    Provisioned {
        change: ChangeId,
        results: Vec<(NamespaceId, Result<(), Fault>)>,
    },
    /// A store was asked about dead letters.
    DeadLetters {
        ask: u64,
        result: Result<Vec<OwnedDeadLetter>, StoreError>,
    },
}
