//! When requests are due: the arrival times of an open loop, independent of how the server behaves.
//!
//! Pure arithmetic over nanoseconds since the start of the run. The promise that makes open-loop
//! latency honest: the next due time depends on the request's number (fixed rate) or on the random
//! source (Poisson) and on nothing else, so a server that stalls can not move the schedule, and its
//! stall counts in every request that was due meanwhile.

use crate::random::Random;

/// How the requests of an open loop are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Exactly evenly.
    Fixed,
    /// As independent clients would: exponentially distributed gaps with the same mean.
    Poisson,
}

/// The due times of one thread's share of an open loop.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrival: Arrival,
    rate_millihertz: u64,
    /// This thread takes the requests `index`, `index + of`, `index + 2 × of`, …
    index: u64,
    of: u64,
    taken: u64,
    due_ns: u64,
    /// Remainder from rounding Poisson gaps to whole nanoseconds, carried on so that the rate does
    /// not drift.
    remainder_ns: f64,
    random: Random,
}

impl Schedule {
    /// Share `index` (from 0) of `of` equal shares of a total rate. Rates are kept to a thousandth
    /// of a request per second and are at least that.
    pub fn new(arrival: Arrival, rate_per_second: f64, index: u64, of: u64, random: Random) -> Self {
        let rate_millihertz = ((rate_per_second * 1_000.0).round() as u64).max(1);
        let of = of.max(1);
        let mut schedule = Self {
            arrival,
            rate_millihertz,
            index,
            of,
            taken: 0,
            due_ns: 0,
            remainder_ns: 0.0,
            random,
        };
        match arrival {
            Arrival::Fixed => schedule.due_ns = schedule.fixed_due_ns(0),
            Arrival::Poisson => schedule.step_poisson(),
        }
        schedule
    }

    /// When the next request is due, in nanoseconds since the start of the run.
    #[inline]
    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Takes the next request: its due time, moving on to the one after.
    #[inline]
    pub fn take(&mut self) -> u64 {
        let due_ns = self.due_ns;
        self.taken += 1;
        match self.arrival {
            Arrival::Fixed => self.due_ns = self.fixed_due_ns(self.taken),
            Arrival::Poisson => self.step_poisson(),
        }
        due_ns
    }

    /// Computed from the request's number, not by adding gaps, so that no rounding error
    /// accumulates.
    fn fixed_due_ns(&self, taken: u64) -> u64 {
        let number = u128::from(taken) * u128::from(self.of) + u128::from(self.index);
        u64::try_from(number * 1_000_000_000_000 / u128::from(self.rate_millihertz)).unwrap_or(u64::MAX)
    }

    fn step_poisson(&mut self) {
        let mean_ns = 1e12 * self.of as f64 / self.rate_millihertz as f64;
        let gap_ns = self.random.exponential(mean_ns) + self.remainder_ns;
        let whole_ns = gap_ns.floor();
        self.remainder_ns = gap_ns - whole_ns;
        self.due_ns = self.due_ns.saturating_add(whole_ns as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_schedule_is_exact_and_does_not_drift() {
        for rate in [1.0, 3.0, 333.333, 1_000.0, 70_001.0, 1_000_000.0] {
            let mut schedule = Schedule::new(Arrival::Fixed, rate, 0, 1, Random::new(0, 0));
            for number in 0..10_000u64 {
                let exact = number as f64 * 1e9 / rate;
                let due = schedule.take() as f64;
                assert!(
                    (due - exact).abs() <= 1.0 + exact * 1e-9,
                    "rate {rate}, request {number}: {due} not {exact}"
                );
            }
        }
    }

    #[test]
    fn the_shares_of_threads_interleave_to_the_whole() {
        let whole = times(
            Schedule::new(Arrival::Fixed, 12_345.0, 0, 1, Random::new(0, 0)),
            300,
        );
        let mut shares: Vec<u64> = (0..3)
            .flat_map(|index| {
                times(
                    Schedule::new(Arrival::Fixed, 12_345.0, index, 3, Random::new(0, 0)),
                    100,
                )
            })
            .collect();
        shares.sort_unstable();
        assert_eq!(shares, whole);
    }

    #[test]
    fn poisson_keeps_the_rate_and_has_exponential_gaps() {
        let seed = 11;
        let dues = times(
            Schedule::new(Arrival::Poisson, 10_000.0, 0, 1, Random::new(seed, 0)),
            100_000,
        );
        let seconds = *dues.last().expect("many") as f64 / 1e9;
        assert!(
            (seconds - 10.0).abs() < 0.15,
            "seed {seed}: {seconds} s for 100,000 at 10,000/s"
        );
        // Of exponential gaps, 1 - 1/e lie below the mean; of even gaps, all or none would.
        let below = dues.windows(2).filter(|pair| pair[1] - pair[0] < 100_000).count() as f64 / 99_999.0;
        assert!((below - 0.632).abs() < 0.01, "seed {seed}: {below}");
    }

    #[test]
    fn due_times_never_go_back() {
        for arrival in [Arrival::Fixed, Arrival::Poisson] {
            let dues = times(Schedule::new(arrival, 5e6, 1, 2, Random::new(4, 0)), 50_000);
            assert!(dues.is_sorted());
        }
    }

    fn times(mut schedule: Schedule, count: usize) -> Vec<u64> {
        (0..count).map(|_| schedule.take()).collect()
    }
}
