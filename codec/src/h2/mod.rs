//! HTTP/2 (RFC 9113) as a pure state machine.

pub mod hpack;
