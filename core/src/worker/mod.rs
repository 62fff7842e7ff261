//! The threads that may block on a store.

mod breaker;
pub(crate) mod checkpointer;
mod fair_queue;
pub(crate) mod sidecar;
pub(crate) mod sqlite;
