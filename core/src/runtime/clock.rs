//! The wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prism_backends::UnixMillis;

/// The wall clock.
pub(crate) fn unix_millis() -> UnixMillis {
    UnixMillis(unix_nanos().unsigned_abs() / 1_000_000)
}

/// The wall clock in nanoseconds since 1970; good until the year 2262.
pub(crate) fn unix_nanos() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}
