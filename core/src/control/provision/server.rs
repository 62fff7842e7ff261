//! Namespaces in a server's store. The sidecar makes the tables with the first of them, marks them
//! as this catalog's, and keeps a row for each, which is the proof of ownership.

use std::sync::{Arc, atomic::AtomicBool};

use prism_backends::{StoreError, sqlite::OwnedDeadLetter};

use super::{Found, Object, Provisioner, Sqlite};
use crate::{
    call::{
        job::{DeadLetterJob, Durabilities, WriterMessage},
        receipt,
    },
    runtime::mailbox::Mailbox,
};

/// The way to the sidecar of the first shard.
pub(crate) struct Server {
    sidecar: Sqlite,
    durabilities: Durabilities,
}

impl Server {
    pub(crate) fn new(
        writes: Arc<Mailbox<WriterMessage>>,
        durabilities: Durabilities,
        stop: Arc<AtomicBool>,
    ) -> Self {
        // The questions are those that SQLite's writer is asked.
        let sidecar = Sqlite::new(writes, stop);
        Self {
            sidecar,
            durabilities,
        }
    }

    /// Notes the durability of a namespace; returns the one that was noted before.
    fn note(&self, object: &Object) -> Option<i32> {
        let mut known = self.durabilities.write().ok()?;
        known.insert(object.id.0, receipt::number_of(object.durability))
    }
}

impl Provisioner for Server {
    fn inspect(&mut self, object: &Object) -> Result<Found, StoreError> {
        self.sidecar.inspect(object)
    }

    fn make(&mut self, object: &Object) -> Result<(), StoreError> {
        self.note(object);
        self.sidecar.make(object)
    }

    /// Refused as a new one would be that the server, as it is configured, does not keep.
    fn alter(&mut self, object: &Object) -> Result<(), StoreError> {
        let before = self.note(object);
        let done = self.sidecar.make(object);
        if let (Err(_), Some(before), Ok(mut known)) = (&done, before, self.durabilities.write()) {
            known.insert(object.id.0, before);
        }
        done
    }

    fn remove(&mut self, object: &Object) -> Result<(), StoreError> {
        self.sidecar.remove(object)
    }

    fn dead_letters(&mut self, _: DeadLetterJob) -> Result<Vec<OwnedDeadLetter>, StoreError> {
        Ok(Vec::new())
    }
}
