//! The terms of a queue in eight bytes, as they travel with its calls and lie in its records.
//!
//! ```text
//!   bit 0 ordered · bit 1 replay · bits 2 to 32 ttl in seconds, 0 for none
//!   bits 33 to 63 retention in seconds
//! ```

use prism_backends::api::queue::Terms;

const SECONDS_BITS: u32 = 31;
/// The longest that can be said; 68 years. Not all ones, which stand for nothing in a record.
const SECONDS_MAX: u64 = (1 << SECONDS_BITS) - 2;

/// Retention of a queue that declares none, in milliseconds: 14 days.
pub(crate) const RETENTION_MS: u64 = 14 * 86_400 * 1_000;

/// Packs terms. Times are rounded up to whole seconds.
pub(crate) fn pack(terms: Terms) -> u64 {
    let seconds = |millis: u64| millis.div_ceil(1_000).clamp(1, SECONDS_MAX);
    u64::from(terms.ordered)
        | u64::from(terms.replay) << 1
        | terms.ttl_ms.map_or(0, seconds) << 2
        | seconds(terms.retention_ms) << (2 + SECONDS_BITS)
}

/// Unpacks terms; of nothing those of a namespace that declares nothing.
pub(crate) fn unpack(packed: Option<u64>) -> Terms {
    let packed = packed.unwrap_or(0);
    let seconds = |at: u32| packed >> at & ((1 << SECONDS_BITS) - 1);
    let (ttl, retention) = (seconds(2), seconds(2 + SECONDS_BITS));
    Terms {
        ordered: packed & 1 != 0,
        replay: packed & 2 != 0,
        ttl_ms: (ttl != 0).then_some(ttl * 1_000),
        retention_ms: match retention {
            0 => RETENTION_MS,
            seconds => seconds * 1_000,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_come_back_in_whole_seconds() {
        for ordered in [false, true] {
            for replay in [false, true] {
                for ttl_ms in [None, Some(1_000), Some(86_400_000)] {
                    let terms = Terms {
                        ordered,
                        replay,
                        ttl_ms,
                        retention_ms: RETENTION_MS,
                    };
                    assert_eq!(unpack(Some(pack(terms))), terms);
                }
            }
        }
        let most = Terms {
            ordered: true,
            replay: true,
            ttl_ms: Some(u64::MAX),
            retention_ms: u64::MAX,
        };
        assert_ne!(pack(most), u64::MAX, "all ones stand for nothing");
        let short = Terms {
            ttl_ms: Some(1),
            retention_ms: 1_001,
            ..most
        };
        let back = unpack(Some(pack(short)));
        assert_eq!((back.ttl_ms, back.retention_ms), (Some(1_000), 2_000));
        assert_eq!(unpack(None).retention_ms, RETENTION_MS);
    }
}
