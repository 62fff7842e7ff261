//! The clock of a shard's log: monotonic nanoseconds, without the time during which the whole
//! process was stopped.
//!
//! The log gives up a disk that does not answer for half a minute. A process that was stopped
//! (SIGSTOP, a frozen container) for that long must not blame its disk.

use std::time::{Duration, Instant};

/// Gap between two readings that counts as a stop, in nanoseconds: a shard that waits for its disk
/// reads the clock at least twice as often.
pub(crate) const STOP_MIN: u64 = 1_000_000_000;

/// The clock.
#[derive(Debug)]
pub(crate) struct LogClock {
    started: Instant,
    /// Nanoseconds during which the process was stopped.
    stopped: u64,
    /// Time of the last reading.
    last: u64,
}

impl Default for LogClock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            stopped: 0,
            last: 0,
        }
    }
}

impl LogClock {
    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        nanos(self.started.elapsed()).saturating_sub(self.stopped)
    }

    /// Nanoseconds since the start, noted as a reading of the shard.
    pub(crate) fn tick(&mut self) -> u64 {
        self.last = self.now();
        self.last
    }

    /// Leaves out the time since the last reading beyond [`STOP_MIN`]. Call it only if the shard
    /// meant to read the clock earlier.
    pub(crate) fn allow_for_a_stop(&mut self) {
        let gap = self.now().saturating_sub(self.last);
        self.stopped += gap.saturating_sub(STOP_MIN);
    }

    /// Simulates a stop of the process.
    #[cfg(test)]
    pub(crate) fn stand_still(&mut self, duration: Duration) {
        self.started = self.started.checked_sub(duration).expect("an uptime that long");
    }

    /// The moment at which [`LogClock::now`] will be `at`.
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.started + Duration::from_nanos(at.saturating_add(self.stopped))
    }
}

/// A duration in the unit of the log's times; at most 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_left_out_and_nothing_else() {
        let mut clock = LogClock {
            started: Instant::now()
                .checked_sub(Duration::from_secs(100))
                .expect("an uptime of 100 s"),
            stopped: 0,
            last: 0,
        };
        clock.last = clock.now() - STOP_MIN / 2;
        clock.allow_for_a_stop();
        assert_eq!(clock.stopped, 0, "half a second is no stop");
        let before = clock.now() - 40 * STOP_MIN;
        clock.last = before;
        clock.allow_for_a_stop();
        let now = clock.tick();
        assert!(
            (before + STOP_MIN..before + 2 * STOP_MIN).contains(&now),
            "{before} {now}"
        );
        assert!(clock.instant(now) <= Instant::now());
        assert!(clock.instant(now + STOP_MIN) > Instant::now());
    }
}
