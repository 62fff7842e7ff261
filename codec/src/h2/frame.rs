//! Frames on the wire (RFC 9113 section 4 and 6): the 9-byte header, types, flags, and writers of the small frames.

/// Bytes of a frame header.
pub(crate) const HEADER_LEN: usize = 9;

/// The largest payload before SETTINGS say otherwise, and the least that may be announced.
pub(crate) const PAYLOAD_MAX_DEFAULT: u32 = 1 << 14;

/// The largest payload that may ever be announced.
pub(crate) const PAYLOAD_MAX: u32 = (1 << 24) - 1;
