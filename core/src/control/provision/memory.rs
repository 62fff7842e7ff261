//! Namespaces in the memory of the shards: a shard makes its part when it learns that a namespace
//! is active, and gives it up when it learns that it is being deleted. So there is nothing to be
//! made or removed that could outlive the process, and nothing of others in its place.

use prism_backends::{StoreError, sqlite::OwnedDeadLetter};

use super::{Found, Object, Provisioner};
use crate::call::job::DeadLetterJob;

/// The memory of the shards.
pub(crate) struct Memory;

impl Provisioner for Memory {
    fn inspect(&mut self, _: &Object) -> Result<Found, StoreError> {
        Ok(Found::Ours)
    }

    fn make(&mut self, _: &Object) -> Result<(), StoreError> {
        Ok(())
    }

    fn alter(&mut self, _: &Object) -> Result<(), StoreError> {
        Ok(())
    }

    fn remove(&mut self, _: &Object) -> Result<(), StoreError> {
        Ok(())
    }

    fn dead_letters(&mut self, _: DeadLetterJob) -> Result<Vec<OwnedDeadLetter>, StoreError> {
        // Its writes are acknowledged when they are done, so none can be refused after that.
        Ok(Vec::new())
    }
}
