//! The vocabulary of calls: what threads send each other, and what every floor above names.
//!
//! Nothing here knows which API a message belongs to, which store serves it, or how it gets there.

pub(crate) mod change;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod footprint;
pub(crate) mod job;
pub(crate) mod link;
pub(crate) mod messages;
pub(crate) mod method;
pub(crate) mod owner;
pub(crate) mod receipt;
pub(crate) mod record;
pub(crate) mod ticket;
