//! The Connect unary protocol over HTTP/1.1 and HTTP/2: every unary call by POST with JSON or protobuf.
//!
//! Promises the rules of the Connect specification: content types, `connect-timeout-ms`, error bodies, HTTP statuses.
//! JSON is transcoded by [`JsonCodec`] from the descriptors, so each method of `proto/` has it without code of its own.
//! Leaves the transport to `http1` and `h2`, and the methods to the caller.

mod call;
mod explain;
mod json;

pub use call::{Call, ContentType, Refusal, error_json, parse_call};
pub use json::{JsonCodec, JsonError, MethodInfo};
