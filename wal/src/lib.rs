//! Prism's log: a record is acknowledged when its group is on the disk.
//!
//! One *lane* per shard. A lane is a list of fixed-size *segments*, written by *groups*; one group
//! is one durable write and carries the *records* that arrived together. A record is opaque bytes.
//! This crate knows neither protobuf nor stores.
//!
//! ```text
//!   record  cut  group  segment  manifest   layout of the bytes        pure
//!   cipher                                encryption of group bodies   pure: keys and nonces are arguments
//!   group_commit  depth                   append → writes → durable    pure: time is an argument
//!   recovery                              where does the log end?      pure: reads through a trait
//!   cursor  tail                          what stores have applied     pure
//!   disk/{mod,sim,file,threads}           the disk as two traits: a simulated one, the real one, a writer of threads
//!   pool  start  lane                     do what the machines say
//!   inspect                               look without touching: for tools
//! ```
//!
//! The format is described byte by byte in the modules and in `docs/WAL_FORMAT.md`.

#![forbid(unsafe_code)]

pub mod buffer;
mod bytes;
pub mod cipher;
pub mod cursor;
pub mod cut;
pub mod depth;
pub mod disk;
pub mod group;
pub mod group_commit;
pub mod ids;
pub mod inspect;
pub mod lane;
pub mod manifest;
pub mod pool;
pub mod record;
pub mod recovery;
pub mod segment;
pub mod start;
pub mod tail;
