//! The gateway: configuration, namespaces with their catalog, a small gRPC client for tools, and the server itself.

pub mod config;
pub mod namespace;
pub mod serve;
pub mod yaml;
