//! Flow-control windows (RFC 9113 section 5.2, 6.9), in bytes.

/// The window that both ends start with.
pub(crate) const WINDOW_DEFAULT: u32 = 65_535;

/// The largest window.
pub(crate) const WINDOW_MAX: u32 = (1 << 31) - 1;
