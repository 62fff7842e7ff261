//! JSON of the Connect protocol: requests, responses and errors, for every method of `proto/`.
//!
//! [`JsonCodec`] transcodes from the descriptors, so no method of `proto/` needs code of its own
//! for JSON. Leaves content types and envelopes to `format`, the transport to `http1` and `h2`, and
//! the methods to the caller.

mod error;
mod explain;
mod json;
mod resume;

pub use json::{JsonCodec, JsonError, MethodInfo};
