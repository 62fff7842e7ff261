//! Namespaces in the embedded SQLite store: a row each in its table of namespaces, which is the
//! proof of ownership, since one gateway has the file. The data of a dropped one is hidden at once,
//! and its rows go in steps, on the store's writer.

use std::sync::{Arc, atomic::AtomicBool, mpsc::sync_channel};

use prism_backends::{
    StoreError,
    sqlite::{OwnedDeadLetter, Presence},
};

use super::{Found, Object, Provisioner, busy, wait};
use crate::{
    call::job::{DeadLetterJob, ProvisionStep, WriterMessage},
    runtime::mailbox::Mailbox,
};

/// The way to the store's writer.
pub(crate) struct Sqlite {
    writer: Arc<Mailbox<WriterMessage>>,
    /// Set when the gateway ends.
    stop: Arc<AtomicBool>,
}

impl Sqlite {
    pub(crate) fn new(writer: Arc<Mailbox<WriterMessage>>, stop: Arc<AtomicBool>) -> Self {
        Self { writer, stop }
    }

    fn ask<T>(
        &self,
        message: impl FnOnce(std::sync::mpsc::SyncSender<Result<T, StoreError>>) -> WriterMessage,
    ) -> Result<T, StoreError> {
        let (done, answer) = sync_channel(1);
        self.writer
            .send(message(done))
            .map_err(|_| busy("its mailbox is full"))?;
        wait(&answer, &self.stop)
    }

    fn step(&self, object: &Object, step: ProvisionStep) -> Result<Presence, StoreError> {
        self.ask(|done| WriterMessage::Provision(object.id, step, done))
    }
}

impl Provisioner for Sqlite {
    fn inspect(&mut self, object: &Object) -> Result<Found, StoreError> {
        Ok(match self.step(object, ProvisionStep::Inspect)? {
            Presence::Absent => Found::Absent,
            Presence::Dropped => Found::Removed,
            Presence::Live => Found::Ours,
            Presence::Foreign => Found::Foreign,
        })
    }

    fn make(&mut self, object: &Object) -> Result<(), StoreError> {
        self.step(object, object.create()).map(drop)
    }

    fn alter(&mut self, _: &Object) -> Result<(), StoreError> {
        // Its tables hold items as the calls bring them, whatever the file says.
        Ok(())
    }

    fn remove(&mut self, object: &Object) -> Result<(), StoreError> {
        self.step(object, ProvisionStep::Drop).map(drop)
    }

    fn dead_letters(&mut self, job: DeadLetterJob) -> Result<Vec<OwnedDeadLetter>, StoreError> {
        self.ask(|done| WriterMessage::DeadLetters(job, done))
    }
}
