//! What the calls of each API mean: views of the wire in, response messages out. No threads, no sockets.

pub(crate) mod digest;
pub(crate) mod keyvalue;
