//! KeyValue on PostgreSQL. Its tables are described in `STORE.md`.
//!
//! * [`writes`]: batches, cut into statements; [`rows`]: the rows of puts; [`swaps`]:
//!   compare-and-swap.
//! * [`reads`]: pages. A page fetches no more values than it may hold.
//! * [`upkeep`]: namespaces, and the sweep.
//!
//! A deleted range is remembered as a row, and hides older items wherever items are read. So a put
//! at another gateway during the delete cannot bring an item back, and a delete of a million rows
//! need not hold a transaction until all are removed.

mod reads;
mod rows;
mod swaps;
mod upkeep;
mod writes;

use std::rc::Rc;

pub use self::upkeep::KEYVALUE;
pub(super) use self::writes::States;

use super::Postgres;
use super::connections::Connections;
use crate::api::keyvalue::Writes;
use crate::error::StoreError;
use crate::ids::LogPosition;
use crate::mutation::{Mutation, Outcome};

/// State of a usable namespace; the next lines: of a dropped one, and of one whose rows are gone.
const LIVE: i16 = 0;
const DROPPED: i16 = 1;
const SWEPT: i16 = 2;

/// KeyValue on one store. Its futures run on the thread of its connections, inside a tokio runtime,
/// and must be polled to their end.
#[derive(Clone, Debug)]
pub struct KeyValue {
    connections: Rc<Connections>,
}

impl KeyValue {
    /// KeyValue over the connections of a store.
    pub fn new(store: &Postgres) -> KeyValue {
        KeyValue {
            connections: store.connections.clone(),
        }
    }

    fn window_ms(&self) -> u64 {
        self.connections.config().window.as_millis() as u64
    }
}

impl Writes for KeyValue {
    async fn apply(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        self.apply_batch(batch, at, outcomes).await
    }
}
