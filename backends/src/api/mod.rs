//! The APIs: for each the traits of its stores, by halves, and the closed enum of the stores that
//! serve it.

pub mod groups;
pub mod keyvalue;
pub mod pubsub;
pub mod queue;

use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};

use self::keyvalue::{Sweep, Upkeep as _, Writes as _};
use self::pubsub::{Upkeep as _, Writes as _};
use self::queue::{Upkeep as _, Writes as _};

/// One store by the APIs that it serves.
#[derive(Debug, Default)]
pub struct Stores {
    /// KeyValue on it.
    pub keyvalue: Option<keyvalue::Store>,
    /// PubSub on it.
    pub pubsub: Option<pubsub::Store>,
    /// Queue on it.
    pub queue: Option<queue::Store>,
}

/// Evaluates an expression for each API that a store serves.
macro_rules! each {
    ($stores:expr, $store:ident => $call:expr) => {
        if let Some($store) = &$stores.keyvalue {
            $call;
        }
        if let Some($store) = &$stores.pubsub {
            $call;
        }
        if let Some($store) = &$stores.queue {
            $call;
        }
    };
}

impl Stores {
    /// Makes a namespace usable by each API; see [`keyvalue::Upkeep::create_namespace`].
    pub async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        each!(self, store => store.create_namespace(namespace).await?);
        Ok(())
    }

    /// Removes all data of a namespace from view; see [`keyvalue::Upkeep::drop_namespace`].
    pub async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        each!(self, store => store.drop_namespace(namespace).await?);
        Ok(())
    }

    /// Gives back room, one step of each API; see [`keyvalue::Upkeep::sweep`].
    pub async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let mut sum = Sweep::default();
        each!(self, store => {
            let step = store.sweep(now, budget).await?;
            sum.examined += step.examined;
            sum.removed += step.removed;
            sum.more |= step.more;
        });
        Ok(sum)
    }

    /// Notes a position, as a batch without any write would.
    pub async fn note(&self, at: &LogPosition) -> Result<(), StoreError> {
        match (&self.keyvalue, &self.pubsub, &self.queue) {
            (Some(store), ..) => store.apply(&[], Some(at), &mut Vec::new()).await,
            (None, Some(store), _) => store.publish(&[], Some(at), &mut Vec::new()).await,
            (None, None, Some(store)) => store.apply(&[], Some(at), &mut Vec::new()).await,
            (None, None, None) => Ok(()),
        }
    }
}
