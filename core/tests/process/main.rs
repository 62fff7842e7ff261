//! The process of `prism serve`: unread diagnostics, threads that end, signals, limits.

mod authority;
mod descriptors;
mod diagnostics;
mod environment;
mod http1;
mod namespaces;
mod operators;
mod postgres;
mod shared_catalog;
mod signals;
mod stores;
mod support;
mod threads;
mod tls;
