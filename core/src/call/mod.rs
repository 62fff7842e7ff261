//! The vocabulary of calls: messages between threads, and types that all layers above use.
//!
//! Nothing here knows to which API a message belongs, which store serves it, or how it gets there.

pub(crate) mod change;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod footprint;
pub(crate) mod group_waits;
pub(crate) mod job;
pub(crate) mod link;
pub(crate) mod messages;
pub(crate) mod method;
pub(crate) mod owner;
pub(crate) mod receipt;
pub(crate) mod record;
pub(crate) mod ticket;
pub(crate) mod waiting;
