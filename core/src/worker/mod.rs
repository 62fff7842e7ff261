//! The threads that may block on a store.

pub(crate) mod checkpointer;
mod fair_queue;
pub(crate) mod sqlite;
