//! JSON of the Connect protocol: requests, responses and errors, for every method of `proto/`.
//!
//! JSON is transcoded by [`JsonCodec`] from the descriptors, so each method of `proto/` has it without code of its own.
//! Leaves content types and envelopes to `format`, the transport to `http1` and `h2`, and the methods to the caller.

mod error;
mod explain;
mod json;
mod resume;

pub use json::{JsonCodec, JsonError, MethodInfo};
