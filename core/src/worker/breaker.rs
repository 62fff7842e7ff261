//! The breaker of one store: whether the store hangs, so that calls are refused at once and hold no places.
//!
//! A store that refuses connections says so by itself. One that hangs says nothing: then calls that are under way and do not
//! end are the sign. Time is an argument.

use std::time::{Duration, Instant};

/// Time without any progress after which a store counts as hanging.
pub(super) const STALL_MAX: Duration = Duration::from_secs(3);

/// The machine: calls begin and end; `is_open` says whether others are to be refused.
#[derive(Debug)]
pub(super) struct Breaker {
    under_way: u32,
    /// Last moment at which a call ended, or at which the first of those under way began.
    progress: Instant,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            under_way: 0,
            progress: now,
        }
    }

    /// A call is sent to the store.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.under_way == 0 {
            self.progress = now;
        }
        self.under_way += 1;
    }

    /// A call has ended, whatever came of it: the store moves.
    pub(super) fn end(&mut self, now: Instant) {
        debug_assert!(self.under_way > 0);
        self.under_way = self.under_way.saturating_sub(1);
        self.progress = now;
    }

    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Whether calls are under way and none of them has ended for too long.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.opens_at().is_some_and(|at| now >= at)
    }

    /// When it opens unless something ends before; `None` while nothing is under way.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        (self.under_way > 0).then(|| self.progress + STALL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_when_calls_are_under_way_and_none_ends() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        let late = start + 100 * STALL_MAX;
        assert!(!breaker.is_open(late), "idle is not hanging");
        breaker.begin(late);
        breaker.begin(late + STALL_MAX / 2);
        assert!(!breaker.is_open(late + STALL_MAX / 2));
        assert!(
            breaker.is_open(late + STALL_MAX),
            "the first has hung for so long"
        );
        breaker.end(late + STALL_MAX);
        assert!(!breaker.is_open(late + STALL_MAX), "one call that ends closes it");
        assert!(breaker.is_open(late + 2 * STALL_MAX), "the other still hangs");
        breaker.end(late + 2 * STALL_MAX);
        assert!(!breaker.is_open(late + 100 * STALL_MAX));
        assert_eq!(breaker.opens_at(), None);
    }

    #[test]
    fn a_slow_call_beside_others_that_end_does_not_open_it() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        breaker.begin(now);
        for _ in 0..10 {
            breaker.begin(now);
            now += STALL_MAX / 2;
            assert!(!breaker.is_open(now));
            breaker.end(now);
        }
        assert_eq!(breaker.under_way(), 1);
    }
}
