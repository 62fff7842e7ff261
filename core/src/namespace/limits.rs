//! Limits of a namespace file, derived from the limits of the gateway, so that what a file may ask
//! for works.

use std::time::Duration;

use prism_backends::limits::{ID_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::units::DURATION_MAX;

/// Limits on what a namespace may ask for, set by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// Highest `needs.write_rps`. Default 50,000.
    pub write_rps_max: u64,
    /// Highest `needs.read_rps`. Default 200,000.
    pub read_rps_max: u64,
    /// Highest `needs.data_size` in bytes. Default 1 TB.
    pub data_size_max: u64,
    /// Highest `needs.retention`. Default 3,650 days.
    pub retention_max: Duration,
    /// Whether the rules apply that came after the first files: reserved and misleading names. A
    /// file that was accepted before stays readable.
    pub is_strict: bool,
    /// Highest `needs.max_message_size` in bytes: no larger value gets through the gateway into a
    /// store. Default 16 MiB.
    pub value_bytes_max: u64,
    /// The same where writes go through the log, which may take less. Default 16 MiB.
    pub logged_value_bytes_max: u64,
}

/// Bytes of a message or a record besides one value, at most: names, id, key, tokens and framing.
const ENVELOPE_BYTES_MAX: u64 = 8 << 10;
const _: () = assert!(ENVELOPE_BYTES_MAX as usize >= 3 * (ID_BYTES_MAX + KEY_BYTES_MAX) + 1024);

impl FileLimits {
    /// No limits but those of the format, for files that were accepted before.
    pub const NONE: Self = Self {
        write_rps_max: u64::MAX,
        read_rps_max: u64::MAX,
        data_size_max: u64::MAX,
        retention_max: DURATION_MAX,
        is_strict: false,
        value_bytes_max: u64::MAX,
        logged_value_bytes_max: u64::MAX,
    };

    /// The limits that follow from those of the gateway; the others are the defaults.
    ///
    /// `message_bytes_max` bounds a message and `record_bytes_max` a record of the log; each holds
    /// a value together with its id, its key and the rest of the call.
    pub fn of_gateway(write_rps_max: u64, message_bytes_max: u64, record_bytes_max: u64) -> Self {
        let fits = |bytes: u64| bytes - ENVELOPE_BYTES_MAX.min(bytes / 2);
        let value_bytes_max = fits(message_bytes_max).min(VALUE_BYTES_MAX as u64);
        Self {
            write_rps_max,
            value_bytes_max,
            logged_value_bytes_max: fits(record_bytes_max).min(value_bytes_max),
            ..Self::default()
        }
    }
}

impl Default for FileLimits {
    /// The limits of a gateway with the default configuration.
    fn default() -> Self {
        let value_bytes_max = VALUE_BYTES_MAX as u64;
        Self {
            write_rps_max: 50_000,
            read_rps_max: 200_000,
            data_size_max: 1_000_000_000_000,
            retention_max: Duration::from_secs(3_650 * 86_400),
            is_strict: true,
            value_bytes_max,
            logged_value_bytes_max: value_bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_store_message_and_record_counts() {
        let limits = FileLimits::of_gateway(1, 1 << 30, 1 << 30);
        assert_eq!(limits.value_bytes_max, 16 << 20, "no store takes more");
        let limits = FileLimits::of_gateway(1, 1 << 20, 1 << 16);
        assert_eq!(limits.value_bytes_max, (1 << 20) - ENVELOPE_BYTES_MAX);
        assert_eq!(limits.logged_value_bytes_max, (1 << 16) - ENVELOPE_BYTES_MAX);
        assert_eq!(FileLimits::of_gateway(1, 1 << 10, 1 << 10).value_bytes_max, 512);
    }
}
