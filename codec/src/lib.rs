//! Bytes to values and back: HTTP/2, HTTP/1.1, gRPC, gRPC-Web, Connect, event streams, protobuf
//! views.
//!
//! Everything here is a pure state machine: no I/O, no clock, no async. The caller brings bytes and
//! time and takes away bytes and events. So the same code runs under any runtime, under a fuzzer
//! and in a simulated world.

pub mod connect;
pub mod error;
pub mod format;
pub mod grpc;
pub mod h2;
pub mod http1;
pub mod limits;
pub mod message;
pub mod method;
mod reader;
mod writer;

/// The prost types of every message in `proto/`, for cold paths (administration, tools, tests), by
/// package.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));

    /// The serialized `FileDescriptorSet` of all files in `proto/` with their imports.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/prism.fds"));
}
