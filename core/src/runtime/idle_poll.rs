//! The choice of an idle shard: to poll for work, or to sleep until it is woken.
//!
//! A sleeping thread has to be woken, and on a virtual machine that alone takes longer than a call
//! (tens of microseconds; `docs/BENCHMARKS.md`). With many calls at a time it does not matter,
//! since one wake-up serves them all. With a few, each answer waits for one. So a shard polls
//! instead of sleeping
//!
//! - only while a call waits for another thread of this process or for the log's disk. The time of
//!   a client's next request is unknown, and polling for it costs several times the request itself;
//! - only if such waits have been short enough lately, and only until about twice as long has
//!   passed;
//! - while few calls wait: with many, other threads have work for them and need the core;
//! - for at most a share of its time, whatever happens.
//!
//! Pure: it gets the outstanding work, and time is an argument. The task that polls is in
//! `poller.rs`.

use std::time::{Duration, Instant};

/// Most waiting calls with which their shard polls.
pub(crate) const WAITING_MAX: usize = 4;
/// Largest share of the shard's time, in percent, that it may spend polling.
const SHARE_PERCENT: u32 = 75;
/// Most polling time that a shard may have saved up.
const SAVED_MAX: Duration = Duration::from_millis(5);
/// Weight of a new wait in the typical one: one part in this many.
const MEMORY: u32 = 8;
/// Least time for which a wait is polled: the typical one is not known more exactly.
const LOOK_MIN: Duration = Duration::from_micros(50);

/// Outstanding work of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outstanding {
    /// Calls with an answer due from another thread or from the shard's own log.
    pub(crate) calls: usize,
    /// Durable writes of the log in flight.
    pub(crate) writes: usize,
}

/// The kind of event expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An answer of the store's writer or reader, or of another shard.
    Answer,
    /// The end of a durable write.
    Write,
}

impl Outstanding {
    /// The next kind. `None`: no call waits; the end of a write without a waiting call does not
    /// matter.
    fn next(self) -> Option<Kind> {
        match self {
            Self { calls: 0, .. } => None,
            Self { writes: 0, .. } => Some(Kind::Answer),
            Self { .. } => Some(Kind::Write),
        }
    }
}

/// The decision.
#[derive(Debug)]
pub(super) struct IdlePoll {
    /// Longest time of polling; zero: never.
    budget: Duration,
    outstanding: Outstanding,
    /// Moment at which the work became outstanding, or of the last answer since.
    since: Instant,
    /// Recent typical wait for each kind.
    typical: [Duration; 2],
    /// Start of the current polling.
    looking: Option<Instant>,
    allowance: Allowance,
}

impl IdlePoll {
    /// Makes the decision of a shard that polls for at most `budget` at a time.
    pub(super) fn new(budget: Duration, now: Instant) -> Self {
        Self {
            budget,
            outstanding: Outstanding::default(),
            since: now,
            typical: [Duration::ZERO; 2],
            looking: None,
            allowance: Allowance {
                saved: SAVED_MAX,
                at: now,
            },
        }
    }

    /// Handles a change of the outstanding work.
    pub(super) fn handle_outstanding(&mut self, outstanding: Outstanding, now: Instant) {
        let before = std::mem::replace(&mut self.outstanding, outstanding);
        if before.calls == 0 {
            self.since = now;
        } else if outstanding.calls < before.calls {
            if let Some(kind) = before.next() {
                self.learn(kind, now.saturating_duration_since(self.since));
            }
            self.since = now;
        }
    }

    /// Whether to poll (again) now.
    pub(super) fn should_look(&mut self, now: Instant) -> bool {
        let Some(until) = self.look_until().filter(|until| now < *until) else {
            return false;
        };
        let began = self.looking.unwrap_or(now);
        let looked = now.saturating_duration_since(began);
        if looked >= self.budget || !self.allowance.covers(looked, now) {
            return false;
        }
        self.looking = Some(began);
        until > now
    }

    /// Ends the polling. Returns its duration.
    pub(super) fn end_look(&mut self, now: Instant) -> Duration {
        let Some(began) = self.looking.take() else {
            return Duration::ZERO;
        };
        let looked = now.saturating_duration_since(began);
        self.allowance.spend(looked, now);
        looked
    }

    /// Moment from which polling is no longer worth it; `None`: it is not at all.
    fn look_until(&self) -> Option<Instant> {
        let kind = self.outstanding.next()?;
        let typical = self.typical[kind as usize];
        if self.outstanding.calls > WAITING_MAX || typical > self.budget {
            return None;
        }
        Some(self.since + (typical * 2).max(LOOK_MIN).min(self.budget))
    }

    /// Learns a wait. One too long for polling counts as just too long: one must not outweigh many.
    fn learn(&mut self, kind: Kind, waited: Duration) {
        let typical = &mut self.typical[kind as usize];
        let waited = waited.min(self.budget * 2);
        *typical = (*typical * (MEMORY - 1) + waited) / MEMORY;
    }
}

/// Time that may be spent polling: a share of all time, of which a little may be saved up.
#[derive(Debug)]
struct Allowance {
    saved: Duration,
    /// Moment at which that was right.
    at: Instant,
}

impl Allowance {
    fn earn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).min(SAVED_MAX * 100);
        self.saved = (self.saved + passed * SHARE_PERCENT / 100).min(SAVED_MAX);
        self.at = self.at.max(now);
    }

    /// Whether polling of this length is covered so far.
    fn covers(&mut self, looked: Duration, now: Instant) -> bool {
        self.earn(now);
        looked < self.saved
    }

    fn spend(&mut self, looked: Duration, now: Instant) {
        self.earn(now);
        self.saved = self.saved.saturating_sub(looked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_micros(200);
    const MICROSECOND: Duration = Duration::from_micros(1);

    fn waiting(calls: usize, writes: usize) -> Outstanding {
        Outstanding { calls, writes }
    }

    /// Polls each microsecond for as long as the decision says so, and at most for `limit`. Returns
    /// the time after that.
    fn look(poll: &mut IdlePoll, from: Instant, limit: Duration) -> Instant {
        let mut now = from;
        while now - from < limit && poll.should_look(now) {
            now += MICROSECOND;
        }
        poll.end_look(now);
        now
    }

    /// Makes calls one at a time, each answered after `wait`. Returns the total polling time.
    fn calls(poll: &mut IdlePoll, now: &mut Instant, writes: usize, wait: Duration, count: u32) -> Duration {
        let mut looked = Duration::ZERO;
        for _ in 0..count {
            poll.handle_outstanding(waiting(1, writes), *now);
            looked += look(poll, *now, wait) - *now;
            *now += wait;
            poll.handle_outstanding(waiting(0, 0), *now);
            // The client's turn: nothing is due.
            assert!(!poll.should_look(*now));
            *now += Duration::from_millis(1);
        }
        looked
    }

    #[test]
    fn it_looks_for_what_is_due_and_for_nothing_else() {
        let micros = Duration::from_micros;
        for (calls, writes, expected, what) in [
            (0, 0, micros(0), "nothing is due: a client's next request is not"),
            (0, 3, micros(0), "writes that no call waits for"),
            (1, 0, LOOK_MIN, "an answer"),
            (1, 1, LOOK_MIN, "a durable write"),
            (4, 2, LOOK_MIN, "few calls"),
            (5, 2, micros(0), "many calls: the others need the core"),
        ] {
            let start = Instant::now();
            let mut poll = IdlePoll::new(BUDGET, start);
            poll.handle_outstanding(waiting(calls, writes), start);
            assert_eq!(look(&mut poll, start, BUDGET * 2) - start, expected, "{what}");
        }
        let start = Instant::now();
        let mut never = IdlePoll::new(Duration::ZERO, start);
        never.handle_outstanding(waiting(1, 0), start);
        assert!(!never.should_look(start), "no budget");
    }

    #[test]
    fn it_looks_for_twice_as_long_as_waits_have_been_of_late() {
        for (wait, expected) in [(10, 50), (40, 80), (70, 140), (150, 200), (250, 0), (5_000, 0)] {
            let (mut now, wait) = (Instant::now(), Duration::from_micros(wait));
            let mut poll = IdlePoll::new(BUDGET, now);
            for writes in [0, 1] {
                calls(&mut poll, &mut now, writes, wait, 100);
                poll.handle_outstanding(waiting(1, writes), now);
                let looked = look(&mut poll, now, BUDGET * 2) - now;
                let expected = Duration::from_micros(expected);
                assert!(
                    looked <= expected && looked + 2 * MICROSECOND >= expected,
                    "waits of {wait:?}, {writes} writes: looked for {looked:?}"
                );
                poll.handle_outstanding(waiting(0, 0), now);
            }
        }
    }

    #[test]
    fn each_kind_has_its_own_typical_wait_and_one_outlier_changes_little() {
        let mut now = Instant::now();
        let mut poll = IdlePoll::new(BUDGET, now);
        calls(&mut poll, &mut now, 1, Duration::from_millis(10), 100);
        assert_eq!(
            calls(&mut poll, &mut now, 1, Duration::from_millis(10), 10),
            Duration::ZERO,
            "a slow disk"
        );
        let answered = Duration::from_micros(30);
        assert_eq!(calls(&mut poll, &mut now, 0, answered, 100), answered * 100);
        calls(&mut poll, &mut now, 0, Duration::from_secs(1), 1);
        assert_eq!(calls(&mut poll, &mut now, 0, answered, 100), answered * 100);
        // A disk that has become fast is recognised.
        calls(&mut poll, &mut now, 1, answered, 20);
        assert_eq!(calls(&mut poll, &mut now, 1, answered, 10), answered * 10);
    }

    #[test]
    fn it_looks_for_a_share_of_all_time_at_the_most() {
        let start = Instant::now();
        let mut now = start;
        let mut poll = IdlePoll::new(BUDGET, now);
        let mut looked = Duration::ZERO;
        let end = start + Duration::from_secs(2);
        while now < end {
            // Work is always due, always answered in time, and the next call comes at once.
            poll.handle_outstanding(waiting(2, 0), now);
            looked += look(&mut poll, now, Duration::from_micros(90)) - now;
            now += Duration::from_micros(90);
            poll.handle_outstanding(waiting(1, 0), now);
            now += MICROSECOND;
        }
        let all = now - start;
        assert!(
            looked <= all * SHARE_PERCENT / 100 + SAVED_MAX,
            "{looked:?} of {all:?}"
        );
        assert!(
            looked >= all * SHARE_PERCENT / 100 - 2 * BUDGET,
            "{looked:?} of {all:?}"
        );
        // Time without calls saves up no more than a little.
        poll.handle_outstanding(waiting(0, 0), now);
        now += Duration::from_secs(3_600);
        poll.handle_outstanding(waiting(1, 0), now);
        assert!(poll.should_look(now));
        assert!(poll.allowance.saved <= SAVED_MAX);
    }
}
