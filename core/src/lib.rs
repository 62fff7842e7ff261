//! The gateway: configuration, namespaces with their catalog, a small gRPC client for tools, and
//! the server itself.

mod api;
pub mod call;
pub mod client;
pub mod config;
mod control;
mod dispatch;
mod identity;
mod log;
pub mod metrics;
pub mod namespace;
pub mod plan;
pub mod runtime;
pub mod serve;
mod shard;
pub mod wal_key;
mod worker;
