//! The breaker of one store: it detects a store that hangs, so that calls are refused at once and
//! hold no places.
//!
//! ```text
//!            no answer for STALL_MAX
//!   closed ─────────────────────────> open ── a probe, each PROBE_PAUSE
//!      ^                                │
//!      └────────────────────────────────┘
//!              any answer of the store
//! ```
//!
//! Any reply of the store itself is an answer, a refusal, too. A failed attempt to connect is none.
//! While the breaker is open no call is sent: the probe is ours, so no client waits for it. Time is
//! an argument.

use std::time::{Duration, Instant};

/// Time for which the store may owe an answer before it counts as hanging.
pub(super) const STALL_MAX: Duration = Duration::from_secs(3);

/// Pause between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// The machine. Inputs: `begin`, `end`, `end_probe`. Decisions: `is_open`, `begin_probe`. Getters:
/// `under_way`, `next_due`.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    under_way: u32,
    /// Moment since which the store owes an answer.
    owed_since: Option<Instant>,
    is_probing: bool,
    probed_at: Option<Instant>,
}

impl Breaker {
    /// Notes that a call is sent to the store.
    pub(super) fn begin(&mut self, now: Instant) {
        self.owed_since.get_or_insert(now);
        self.under_way += 1;
    }

    /// Notes that a call has ended, by the store's answer or without one.
    pub(super) fn end(&mut self, answered: bool, now: Instant) {
        debug_assert!(self.under_way > 0);
        self.under_way = self.under_way.saturating_sub(1);
        if answered {
            self.note_answer(now);
        }
    }

    /// Whether a probe is due. If so the caller must send it, and [end](Self::end_probe) it.
    pub(super) fn begin_probe(&mut self, now: Instant) -> bool {
        let is_due = self.is_open(now) && self.probe_at().is_some_and(|at| now >= at);
        self.is_probing |= is_due;
        is_due
    }

    /// Notes that the probe has ended.
    pub(super) fn end_probe(&mut self, answered: bool, now: Instant) {
        self.is_probing = false;
        self.probed_at = Some(now);
        if answered {
            self.note_answer(now);
        }
    }

    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Whether the store has owed an answer for too long.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.opens_at().is_some_and(|at| now >= at)
    }

    /// Moment at which the breaker opens or, once it is open, the next probe is due; `None`: a call
    /// or probe has to end first.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.is_open(now) {
            true => self.probe_at(),
            false => self.opens_at(),
        }
    }

    fn opens_at(&self) -> Option<Instant> {
        self.owed_since.map(|since| since + STALL_MAX)
    }

    fn probe_at(&self) -> Option<Instant> {
        let opened = self.opens_at()?;
        let after_last = self.probed_at.map(|at| at + PROBE_PAUSE);
        (!self.is_probing).then(|| after_last.map_or(opened, |at| at.max(opened)))
    }

    /// Notes that the store works; it owes answers to the calls in flight.
    fn note_answer(&mut self, now: Instant) {
        self.owed_since = (self.under_way > 0).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_when_calls_are_under_way_and_none_is_answered() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        let late = start + 100 * STALL_MAX;
        assert!(!breaker.is_open(late), "idle is not hanging");
        breaker.begin(late);
        breaker.begin(late + STALL_MAX / 2);
        assert!(!breaker.is_open(late + STALL_MAX / 2));
        assert_eq!(breaker.next_due(late), Some(late + STALL_MAX));
        assert!(
            breaker.is_open(late + STALL_MAX),
            "the first has hung for so long"
        );
        breaker.end(true, late + STALL_MAX);
        assert!(!breaker.is_open(late + STALL_MAX), "one answer closes it");
        assert!(breaker.is_open(late + 2 * STALL_MAX), "the other still hangs");
        breaker.end(true, late + 2 * STALL_MAX);
        assert!(!breaker.is_open(late + 100 * STALL_MAX));
        assert_eq!(breaker.next_due(late), None);
    }

    #[test]
    fn a_slow_call_next_to_others_that_are_answered_does_not_open_it() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.begin(now);
        for _ in 0..10 {
            breaker.begin(now);
            now += STALL_MAX / 2;
            assert!(!breaker.is_open(now));
            breaker.end(true, now);
        }
        assert_eq!(breaker.under_way(), 1);
    }

    #[test]
    fn calls_that_end_without_an_answer_keep_it_open_until_a_probe_is_answered() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.begin(now);
        now += STALL_MAX;
        breaker.end(false, now);
        assert!(breaker.is_open(now), "nothing is under way, and still it hangs");
        assert!(breaker.begin_probe(now), "the first is due at once");
        assert!(!breaker.begin_probe(now), "one at a time");
        assert_eq!(breaker.next_due(now), None, "its end is the next event");
        now += STALL_MAX;
        breaker.end_probe(false, now);
        assert!(breaker.is_open(now) && !breaker.begin_probe(now));
        assert_eq!(breaker.next_due(now), Some(now + PROBE_PAUSE));
        now += PROBE_PAUSE;
        assert!(breaker.begin_probe(now));
        breaker.end_probe(true, now);
        assert!(!breaker.is_open(now + 100 * STALL_MAX));
        assert!(!breaker.begin_probe(now), "a closed one needs none");
    }
}
