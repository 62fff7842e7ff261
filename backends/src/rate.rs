//! Figures of a measurement of a server.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Latencies that are kept of one level, at most.
const LATENCIES_MAX: usize = 2_000_000;

/// The measurement of one number of calls at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Calls at a time.
    pub outstanding: u32,
    /// Single values that were written and acknowledged.
    pub writes: Rate,
    /// Single values that were read.
    pub reads: Rate,
}

/// A rate with its latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Calls a second.
    pub per_second: u64,
    /// Median latency.
    pub p50: Duration,
    /// Latency that one call in a hundred exceeds.
    pub p99: Duration,
}

/// Latencies of calls, which many tasks add.
#[derive(Debug, Default)]
pub(crate) struct Latencies(RefCell<Vec<Duration>>);

impl Latencies {
    /// Adds a call that was sent at this time and has just been answered.
    pub(crate) fn add(&self, sent: Instant) {
        let mut latencies = self.0.borrow_mut();
        if latencies.len() < LATENCIES_MAX {
            latencies.push(sent.elapsed());
        }
    }

    /// The rate of all calls since `begun`.
    pub(crate) fn rate(&self, begun: Instant) -> Rate {
        let mut latencies = self.0.take();
        latencies.sort_unstable();
        let at = |hundredths: usize| {
            let place = latencies.len() * hundredths / 100;
            let found = latencies.get(place).or(latencies.last());
            found.copied().unwrap_or_default()
        };
        Rate {
            per_second: (latencies.len() as f64 / begun.elapsed().as_secs_f64()) as u64,
            p50: at(50),
            p99: at(99),
        }
    }
}
