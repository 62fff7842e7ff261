//! Namespaces in a server's store: they are made, refused and removed.

use std::time::Duration;

use prism_backends::{NamespaceId, StoreError, offer::Acked, sqlite::Presence};

use super::Store;
use crate::{
    call::{job::ProvisionStep, receipt},
    namespace::units::format_size,
};

impl Store {
    pub(super) async fn provision(
        &self,
        namespace: NamespaceId,
        step: ProvisionStep,
    ) -> Result<Presence, StoreError> {
        if !self.prepare().await? {
            return Ok(Presence::Foreign);
        }
        match step {
            ProvisionStep::Inspect => {}
            ProvisionStep::Create {
                message_bytes_max,
                life_ms,
            } => {
                self.check_needs(namespace, message_bytes_max)?;
                self.stores.create_namespace(namespace).await?;
                self.server
                    .retain(namespace, life_ms.map(Duration::from_millis))
                    .await?;
            }
            ProvisionStep::Drop => {
                self.stores.drop_namespace(namespace).await?;
                // Whoever waits for its messages finds out.
                self.setup.arrivals.note(namespace);
            }
        }
        self.server.presence(namespace).await
    }

    /// Refuses a namespace that needs what the server, as it is configured, does not keep.
    fn check_needs(&self, namespace: NamespaceId, message_bytes_max: u64) -> Result<(), StoreError> {
        let refused = |field: &str, reason: String| StoreError::InvalidArgument {
            field: field.to_owned(),
            reason,
        };
        if let Some(why) = self.server.shortfall(needed(self.durability_of(namespace))) {
            // The strongest durability that it keeps.
            let instead = match self.server.shortfall(needed(receipt::EVENTUAL)) {
                None => "eventual",
                Some(_) => "best-effort",
            };
            return Err(refused("needs.durability", format!("{why}, or write {instead}")));
        }
        match self.server.payload_max() {
            Some(max) if message_bytes_max > max => Err(refused(
                "needs.max_message_size",
                format!(
                    "max_message_size ({}) exceeds what {} at {} takes next to keys and attributes; write {} or less, or \
                     raise max_payload there",
                    format_size(message_bytes_max),
                    self.setup.name,
                    self.setup.config.address(),
                    format_size(max)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Prepares the store, once; false if it is another catalog's.
    pub(super) async fn prepare(&self) -> Result<bool, StoreError> {
        if !self.is_prepared.get() {
            if !self.server.prepare(self.setup.owner).await? {
                tracing::error!(
                    store = self.setup.name,
                    address = self.setup.config.address(),
                    "what Prism has made there belongs to another gateway"
                );
                return Ok(false);
            }
            self.is_prepared.set(true);
        }
        Ok(true)
    }
}

/// Meaning that the store's own acknowledgement must have for a durability, by its number, whether
/// or not a log stands before the store.
pub(super) fn needed(durability: i32) -> Acked {
    match durability {
        receipt::BEST_EFFORT => Acked::Volatile,
        receipt::EVENTUAL => Acked::DurableOnSync,
        _ => Acked::Durable,
    }
}
