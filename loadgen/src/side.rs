//! Figures of one side of a load of messages: how many, how fast, how late.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    tally::latency_histogram,
    units::{show_count, show_time},
};

/// Figures of one side.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// How many.
    pub count: u64,
    /// How many in a second.
    pub per_second: f64,
    /// Half of them took at most so long, from when they were due.
    pub p50_ns: u64,
    /// All but a hundredth took at most so long.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Side {
    /// So many in that time, with these latencies, each of a thread.
    pub fn new<'h>(
        count: u64,
        seconds: f64,
        latencies: impl IntoIterator<Item = &'h Histogram<u64>>,
    ) -> Self {
        let mut latency = latency_histogram();
        for one in latencies {
            latency
                .add(one)
                .expect("all latency histograms have the same bounds");
        }
        Self {
            count,
            per_second: if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            },
            p50_ns: latency.value_at_quantile(0.5),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
        }
    }

    /// Appends the line for people.
    pub fn write(&self, name: &str, out: &mut String) {
        let rate = show_count(self.per_second.round() as u64);
        let [p50, p99, max] = [self.p50_ns, self.p99_ns, self.max_ns].map(show_time);
        // Writing into a String can not fail.
        let _ = writeln!(
            out,
            "{name:<14} {rate:>10}/s  p50 {p50:>8}  p99 {p99:>8}  max {max:>8}"
        );
    }
}
