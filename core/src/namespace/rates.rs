//! Declared rates of a namespace, over all shards and connections: a bucket of tokens for each
//! direction, which the shards share and take from in small bundles.
//!
//! The bucket is one number, the time at which it would be full again (GCRA, the generic cell rate
//! algorithm of ATM Forum TM 4.1). A shard spends its bundle by a plain subtraction, so the shared
//! number is written at most about a thousand times a second by each shard, and never by a call
//! that has a token at hand. What the shards hold beside the bucket is at most a bundle each.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Parts of a nanosecond in which times are counted, so that high rates lose nothing by rounding.
const PARTS: u64 = 64;
/// Fewest tokens of a full bucket: small rates are not refused for a handful of calls at once.
const BURST_MIN: u64 = 100;
/// Most tokens of a bundle.
const BUNDLE_MAX: u64 = 64;

/// The moment from which times are counted.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Direction of a call, as far as rates know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// `needs.write_rps`.
    Write = 0,
    /// `needs.read_rps`.
    Read = 1,
}

impl Direction {
    /// The key of the namespace file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Write => "write_rps",
            Self::Read => "read_rps",
        }
    }
}

/// The buckets of a namespace, by direction; `None`: not declared, and not bounded.
pub(crate) type Rates = [Option<Arc<Bucket>>; 2];

/// The buckets for declared rates.
pub(crate) fn rates(write_rps: Option<u64>, read_rps: Option<u64>) -> Rates {
    [write_rps, read_rps].map(|rate| rate.map(|rate| Arc::new(Bucket::new(rate))))
}

/// Tokens of one direction. It has a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Bucket {
    /// When it would be full, in parts of a nanosecond since the origin.
    full_at: AtomicU64,
    rate: u64,
    /// Time for one token, in the same unit.
    each: u64,
}

impl PartialEq for Bucket {
    fn eq(&self, other: &Self) -> bool {
        self.rate == other.rate
    }
}

impl Eq for Bucket {}

impl Bucket {
    /// A full bucket for a rate of at least one a second.
    fn new(rate: u64) -> Self {
        let rate = rate.max(1);
        Self {
            full_at: AtomicU64::new(0),
            rate,
            each: (1_000_000_000 * PARTS / rate).max(1),
        }
    }

    /// Tokens a second.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// Tokens of a full bucket: those of a second.
    pub(crate) fn burst(&self) -> u64 {
        self.rate.max(BURST_MIN)
    }

    /// Tokens that a shard takes at once: those of a millisecond.
    pub(crate) fn bundle(&self) -> u64 {
        (self.rate / 1_000).clamp(1, BUNDLE_MAX)
    }

    /// Takes tokens.
    ///
    /// # Errors
    /// The time after which there are as many, if nobody else takes them. None was taken.
    pub(crate) fn take(&self, now: Instant, tokens: u64) -> Result<(), Duration> {
        let now = parts_of(now);
        let (cost, depth) = (self.each.saturating_mul(tokens), self.depth());
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(cost);
            let missing = next.saturating_sub(now.saturating_add(depth));
            if missing > 0 {
                return Err(Duration::from_nanos(missing.div_ceil(PARTS)));
            }
            let (old, new) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.full_at.compare_exchange_weak(full_at, next, old, new) {
                Ok(_) => return Ok(()),
                Err(found) => full_at = found,
            }
        }
    }

    /// Takes tokens that may not be there yet. Returns when they are.
    pub(crate) fn reserve(&self, now: Instant, tokens: u64) -> Duration {
        let since = parts_of(now);
        let cost = self.each.saturating_mul(tokens);
        let add = |full_at: u64| Some(full_at.max(since).saturating_add(cost));
        let before = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let next = before
            .unwrap_or_else(|full_at| full_at)
            .max(since)
            .saturating_add(cost);
        let missing = next.saturating_sub(since.saturating_add(self.depth()));
        Duration::from_nanos(missing.div_ceil(PARTS))
    }

    /// Time that fills an empty bucket.
    fn depth(&self) -> u64 {
        self.each.saturating_mul(self.burst())
    }
}

fn parts_of(now: Instant) -> u64 {
    let nanos = now.saturating_duration_since(*ORIGIN).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX).saturating_mul(PARTS)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = *ORIGIN + Duration::from_secs(5);
        for rate in [1, 99, 1_000, 50_000, 1_000_000_000] {
            let bucket = Bucket::new(rate);
            let mut taken = 0;
            for millis in 0..3_000 {
                let bundle = bucket.bundle();
                while bucket.take(after(start, millis), bundle).is_ok() {
                    taken += bundle;
                    if taken > 2 * bucket.burst() + 2 * rate {
                        break;
                    }
                }
            }
            let expected = bucket.burst() + rate * 2_999 / 1_000;
            if rate <= 50_000 {
                let (low, high) = (
                    expected.saturating_sub(bucket.bundle()),
                    expected + bucket.bundle(),
                );
                assert!((low..=high).contains(&taken), "{rate}: {taken} of {expected}");
            }
        }
    }

    #[test]
    fn a_refusal_says_when_there_is_enough() {
        let start = *ORIGIN + Duration::from_secs(5);
        let bucket = Bucket::new(100);
        assert_eq!(bucket.take(start, 100), Ok(()));
        let wait = bucket.take(start, 1).expect_err("it is empty");
        assert_eq!(wait, Duration::from_millis(10));
        assert!(bucket.take(start + wait - Duration::from_micros(1), 1).is_err());
        assert_eq!(bucket.take(start + wait, 1), Ok(()));
        // A pause fills it, and no more than that.
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.take(later, 100), Ok(()));
        assert!(bucket.take(later, 1).is_err());
    }

    #[test]
    fn what_is_reserved_comes_one_after_the_other() {
        let start = *ORIGIN + Duration::from_secs(5);
        let bucket = Bucket::new(100);
        assert_eq!(bucket.reserve(start, 100), Duration::ZERO);
        assert_eq!(bucket.reserve(start, 50), Duration::from_millis(500));
        assert_eq!(bucket.reserve(start, 50), Duration::from_secs(1));
        assert!(bucket.take(start, 1).is_err());
        assert_eq!(
            bucket.reserve(start + Duration::from_secs(1), 1),
            Duration::from_millis(10)
        );
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let bucket = Arc::new(Bucket::new(1_000));
        let start = *ORIGIN + Duration::from_secs(5);
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let bucket = bucket.clone();
                thread::spawn(move || (0..5_000).filter(|_| bucket.take(start, 1).is_ok()).count())
            })
            .collect();
        let taken: usize = workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"))
            .sum();
        assert_eq!(taken, 1_000);
    }
}
