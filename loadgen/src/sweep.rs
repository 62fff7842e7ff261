//! Finds the saturation of a server: raises the rate until less than 95 % of it is served, then
//! narrows it down.
//!
//! A pure state machine: it proposes rates, the caller measures, and it ends with the most that was
//! served.

use serde::Serialize;

/// A rate counts as served when at least this share of it was answered in time and without an
/// error.
pub const SERVED_SHARE_MIN: f64 = 0.95;

const GROWTH: f64 = 2.0;
/// The search ends when the highest served and the lowest unserved rate are this close.
const PRECISION: f64 = 1.08;
const STEPS_MAX: usize = 40;

/// One step of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Requests due per second.
    pub rate: f64,
    /// Requests served per second.
    pub achieved: f64,
    /// The share of what was due that was served, or cut on purpose.
    pub served_share: f64,
    /// Median latency from the due time, in nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile of the latency from the due time, in nanoseconds.
    pub p99_ns: u64,
}

impl Step {
    /// Whether the rate counts as served.
    fn is_served(&self) -> bool {
        self.served_share >= SERVED_SHARE_MIN
    }
}

/// The search for the saturation.
#[derive(Clone, Debug)]
pub struct Sweep {
    served: Option<f64>,
    unserved: Option<f64>,
    next: f64,
    rate_max: f64,
    steps: Vec<Step>,
}

impl Sweep {
    /// A search that starts at `start` requests per second and never proposes more than `rate_max`.
    pub fn new(start: f64, rate_max: f64) -> Self {
        let start = start.clamp(1.0, rate_max.max(1.0));
        Self {
            served: None,
            unserved: None,
            next: start,
            rate_max: rate_max.max(1.0),
            steps: Vec::new(),
        }
    }

    /// The rate to measure next; `None` when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        if self.steps.len() >= STEPS_MAX {
            return None;
        }
        match (self.served, self.unserved) {
            (Some(served), Some(unserved)) if unserved / served <= PRECISION => None,
            (Some(served), _) if served >= self.rate_max => None,
            (None, Some(unserved)) if unserved <= 1.0 => None,
            _ => Some(self.next),
        }
    }

    /// Takes what was measured at the proposed rate.
    pub fn observe(&mut self, step: Step) {
        let rate = step.rate;
        if step.is_served() {
            self.served = Some(self.served.map_or(rate, |served| served.max(rate)));
        } else {
            self.unserved = Some(self.unserved.map_or(rate, |unserved| unserved.min(rate)));
        }
        self.next = match (self.served, self.unserved) {
            (Some(served), None) => (served * GROWTH).min(self.rate_max),
            // What an overloaded server still answered is the best guess of what it can serve.
            (None, Some(unserved)) => step.achieved.min(unserved / GROWTH).max(1.0),
            (Some(served), Some(unserved)) => (served * unserved).sqrt(),
            (None, None) => self.next,
        };
        self.steps.push(step);
    }

    /// The most that was served at a rate that counts as served, in requests per second: not that
    /// rate itself, a twentieth of which may have been left.
    pub fn saturation(&self) -> Option<f64> {
        let served = self.steps.iter().filter(|step| step.is_served());
        served
            .map(|step| step.rate * step.served_share.min(1.0))
            .reduce(f64::max)
    }

    /// Whether an unserved rate was found, so that the saturation is the server's and not the
    /// sweep's upper limit.
    pub fn saturated(&self) -> bool {
        self.unserved.is_some()
    }

    /// Figures measured so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that serves up to its capacity.
    fn search(capacity: f64, start: f64, rate_max: f64) -> Sweep {
        let mut sweep = Sweep::new(start, rate_max);
        while let Some(rate) = sweep.next_rate() {
            let achieved = rate.min(capacity);
            let served_share = achieved / rate;
            sweep.observe(Step {
                rate,
                achieved,
                served_share,
                p50_ns: 0,
                p99_ns: 0,
            });
        }
        sweep
    }

    #[test]
    fn finds_the_capacity_from_below_and_from_above() {
        for capacity in [100.0, 5_000.0, 123_456.0, 2_000_000.0] {
            for start in [10.0, 1_000.0, 1e6] {
                let sweep = search(capacity, start, 1e9);
                let saturation = sweep.saturation().expect("something is served");
                let ratio = saturation / capacity;
                assert!(
                    (0.92..=1.0).contains(&ratio),
                    "capacity {capacity}, start {start}: {saturation}"
                );
                assert!(
                    sweep.saturated() && sweep.steps().len() <= 28,
                    "{} steps",
                    sweep.steps().len()
                );
            }
        }
    }

    #[test]
    fn stops_at_the_upper_limit_and_says_so() {
        let sweep = search(1e9, 1_000.0, 50_000.0);
        assert_eq!(sweep.saturation(), Some(50_000.0));
        assert!(!sweep.saturated());
    }

    #[test]
    fn a_dead_server_ends_the_search() {
        let sweep = search(0.0, 1_000.0, 1e6);
        assert_eq!(sweep.saturation(), None);
        assert!(sweep.steps().len() <= 40);
    }
}
