//! The process of `prism serve` and what happens to it: diagnostics that nobody takes, threads that end, signals, limits.

mod descriptors;
mod diagnostics;
mod environment;
mod http1;
mod namespaces;
mod operators;
mod signals;
mod support;
mod threads;
