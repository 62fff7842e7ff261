//! The ground under the shards: the reactor of a thread, and what threads and tasks wake each other with.
//!
//! Nothing here knows of calls, namespaces or stores.

pub(crate) mod clock;
pub mod mailbox;
pub(crate) mod notify;
pub(crate) mod priority;
pub mod reactor;
