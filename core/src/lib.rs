//! The gateway: configuration, namespaces with their catalog, a small gRPC client for tools, and the server itself.

mod checkpointing;
pub mod client;
pub mod config;
mod control;
pub mod gateway;
mod log;
pub mod metrics;
pub mod namespace;
mod priority;
pub mod serve;
pub mod shard;
mod sidecar;
pub mod wal_key;
pub mod yaml;
