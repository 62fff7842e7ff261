//! Stores of the gateway: for each API the traits of its stores ([`api`]), each store's [`offer`],
//! and one behaviour suite.
//!
//! A store keeps, for every id of a namespace, a map of binary keys to binary values in key order.
//! It takes [`Mutation`]s, each with a [`Version`], and answers page by page into an [`ItemSink`].
//! Time is an argument everywhere; nothing here reads a clock.
//!
//! Promises of every store of this crate (the suite in [`behavior`] checks each line):
//!
//! * **The last write wins**, by [`Version`], not by arrival. A write that is older than an item,
//!   or as old, has no effect on that item. So a mutation, or a whole sequence of them in its
//!   order, can be applied again and leaves the same state.
//! * **Deletes are remembered** for [`Remembers::window_ms`](api::keyvalue::Remembers) after they
//!   were applied, with their version, also for keys that did not exist and for whole ranges.
//!   Within that time an older write cannot bring an item back. A sequence applied again *after*
//!   that time may, so a replay must not be that late. The number of remembered deletes is bounded
//!   ([`Remembers::deletes_max`](api::keyvalue::Remembers)); beyond it a delete still deletes but
//!   is not remembered.
//! * **Compare-and-swap is ordered by its expectation**: if the expectation holds, the swap takes
//!   place even when its version is older than the item's (the item then carries the successor of
//!   the version it had). The first answer is remembered for the last
//!   [`limits::SWAPS_REMEMBERED_MAX`] calls of a store (in PostgreSQL for ten minutes), so the same
//!   call with the same version gets the same verdict and has one effect, and another call with
//!   that version, as [`Mutation::digest`] shows, is refused. The item shown with a remembered
//!   refusal is the first one while its value has at most [`limits::SWAP_VALUE_REMEMBERED_MAX`]
//!   bytes, else the item as it is now.
//! * **Expired items are invisible at once**, to reads and to compare-and-swap; `sweep` gives their
//!   room back later.
//! * **Pages** never skip, or show twice, an item that existed during the whole walk, whatever is
//!   written meanwhile.
//! * **All or nothing** per mutation; one refused mutation does not harm the others of its batch.
//!
//! Leaves to others: durability before the reply (the log), permissions, routing of an id to its
//! one owner.

pub mod api;
pub mod behavior;
mod digest;
pub mod error;
pub mod ids;
pub mod kafka;
pub mod kind;
pub mod limits;
pub mod memory;
pub mod mutation;
pub mod nats;
pub mod offer;
pub mod postgres;
pub mod query;
pub mod rate;
pub mod redis;
pub mod server;
mod single;
pub mod sqlite;
mod swaps;
mod tls;
mod token;
pub mod version;

pub use digest::Digest;
pub use error::StoreError;
pub use ids::{LogId, LogPosition, NamespaceId, UnixMillis};
pub use memory::MemoryStore;
pub use mutation::{Expected, Found, ItemRef, Mutation, Operation, Outcome, OwnedItem, PredicateRef};
pub use query::{GetQuery, ItemSink, PageToken, ScanQuery, Selection};
pub use sqlite::SqliteStore;
pub use version::Version;
