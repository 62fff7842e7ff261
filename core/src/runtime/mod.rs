//! Foundation of the shards: the reactor of a thread, and the ways in which threads and tasks wake
//! each other.
//!
//! Threads are started and watched here, and write their diagnostics here. Nothing here knows of
//! calls, namespaces or stores.

pub mod clock;
pub(crate) mod diagnostics;
pub(crate) mod idle_poll;
pub mod mailbox;
pub(crate) mod notify;
pub(crate) mod poller;
pub(crate) mod priority;
pub mod reactor;
pub(crate) mod threads;
