//! The clock of a shard's log: monotonic nanoseconds that leave out the time during which the whole process stood still.
//!
//! The log gives a disk up that does not answer for half a minute. A process that was stopped (SIGSTOP, a frozen container)
//! for that long must not blame its disk.

use std::time::{Duration, Instant};

/// A shard that waits for its disk looks at the clock at least twice as often as this; a longer gap is a stop.
pub(crate) const STOP_MIN: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct LogClock {
    started: Instant,
    /// Nanoseconds that the process stood still.
    stopped: u64,
    /// The last look.
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

    /// Nanoseconds since the start; the shard looks at the clock now.
    pub(crate) fn tick(&mut self) -> u64 {
        self.last = self.now();
        self.last
    }

    /// Leaves out what has passed since the last look beyond [`STOP_MIN`]. To be called only when the shard meant to look
    /// earlier.
    pub(crate) fn allow_for_a_stop(&mut self) {
        let gap = self.now().saturating_sub(self.last);
        self.stopped += gap.saturating_sub(STOP_MIN);
    }

    /// As if the process had stood still for so long.
    #[cfg(test)]
    pub(crate) fn stand_still(&mut self, duration: Duration) {
        self.started = self.started.checked_sub(duration).expect("an uptime that long");
    }

    /// The moment at which [`LogClock::now`] will say `at`.
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.started + Duration::from_nanos(at.saturating_add(self.stopped))
    }
}

/// A duration in the unit of the log's times; 584 years at the most.
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
