//! The one writer of a SQLite store.

use rusqlite::Connection;

use crate::error::StoreError;
use crate::mutation::{Mutation, NamespaceId, Outcome, UnixMillis};
use crate::store::{Capabilities, Sweep};

/// Applies mutations. One per store; `Send`, so that it can live on a helper thread.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    capabilities: Capabilities,
}

impl Writer {
    /// What the store can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// See [`crate::KeyValueStore::create_namespace`].
    pub fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        let _ = &self.connection;
        Err(StoreError::UnknownNamespace(namespace))
    }

    /// See [`crate::KeyValueStore::drop_namespace`].
    pub fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        Err(StoreError::UnknownNamespace(namespace))
    }

    /// Applies a batch as one transaction; see [`crate::KeyValueStore::apply`].
    pub fn apply(
        &mut self,
        batch: &[Mutation<'_>],
        now: UnixMillis,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        let _ = (batch, now, outcomes);
        Ok(())
    }

    /// See [`crate::KeyValueStore::sweep`].
    pub fn sweep(&mut self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let _ = (now, budget);
        Ok(Sweep::default())
    }
}
