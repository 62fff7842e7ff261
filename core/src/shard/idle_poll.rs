//! What a shard with little to do does between two events: it looks for the next one for a while before it sleeps.
//!
//! A thread that sleeps has to be woken, and on a virtual machine that alone takes longer than a call (tens of
//! microseconds; `docs/BENCHMARKS.md`). With many calls at a time nobody notices, for one wake-up serves them all. With one
//! client that waits for each answer, every step of a call is preceded by one. So a shard polls its ring while
//!
//! - the last event came sooner than the budget after the one before it, so the next may, too;
//! - few calls wait: with many, other threads have work for them and need the core;
//! - the same few connections have something again and again: with more, one wake-up serves several.
//!
//! Every few looks it gives way to whatever else wants this core. Under epoll the reactor cannot look without sleeping, so
//! there is no polling.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use super::Shard;
use crate::{
    call::ticket::Ticket,
    log::writer::FEW_RECORDS,
    runtime::{
        mailbox::{ShardSleeper, Waker},
        notify::Notify,
        reactor::Turns,
    },
};

/// Calls that may wait while a shard polls.
pub(super) const CALLS_MAX: usize = 4;
// So the log's groups of a shard that polls go by its own ring, and it never has to leave its core to a writer thread.
const _: () = assert!(CALLS_MAX <= FEW_RECORDS as usize);
/// Connections that a polling shard serves.
const CONNECTIONS_MAX: usize = 4;
/// Events of one turn of a shard that polls.
const EVENTS_MAX: u32 = 2;
/// Looks after which others get the core; a look takes about a microsecond.
const LOOKS_PER_YIELD: u32 = 4;
/// The reactor looks at its timers only when it sleeps, so a polling shard makes it sleep so often, for an instant.
const TIMERS_PAUSE: Duration = Duration::from_millis(1);

/// See the module.
pub(crate) struct IdlePoll {
    /// Zero: never polls.
    budget: Duration,
    polling: Cell<bool>,
    /// Events since the poller last looked.
    events: Cell<u32>,
    /// The connections of the last events, each once, as shard and slot.
    familiar: Cell<[(u16, u32); CONNECTIONS_MAX]>,
    /// Whether one came that was not among them.
    stranger: Cell<bool>,
    happened: Notify,
}

impl IdlePoll {
    /// A poller that looks for at most `budget` after each event.
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            polling: Cell::new(false),
            events: Cell::new(0),
            familiar: Cell::default(),
            stranger: Cell::new(false),
            happened: Notify::default(),
        }
    }

    /// A connection received something, or an answer or a job came from elsewhere.
    pub(crate) fn note(&self, ticket: &Ticket) {
        if self.budget.is_zero() {
            return;
        }
        let connection = (ticket.shard, ticket.slot);
        let mut familiar = self.familiar.get();
        if !familiar.contains(&connection) {
            familiar.rotate_right(1);
            familiar[0] = connection;
            self.familiar.set(familiar);
            self.stranger.set(true);
        }
        self.events.set(self.events.get() + 1);
        if !self.polling.get() {
            self.happened.notify();
        }
    }

    /// The polling task of a shard.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) async fn run(&self, shard: &Shard) -> io::Result<()> {
        if self.budget.is_zero() {
            return Ok(());
        }
        let sleeper = ShardSleeper::new(Waker::new()?)?;
        let turns = Turns::start();
        let mut last = Instant::now();
        loop {
            self.happened.notified().await;
            let before = last;
            last = Instant::now();
            let soon = last.duration_since(before) < self.budget;
            if self.events.take() > EVENTS_MAX || self.stranger.take() || !soon {
                continue;
            }
            self.polling.set(true);
            last = self.poll(shard, &sleeper, &turns, last).await?;
            self.polling.set(false);
        }
    }

    /// Looks until the budget is used up or the shard is busy; returns when the last event was.
    async fn poll(
        &self,
        shard: &Shard,
        sleeper: &ShardSleeper,
        turns: &Turns,
        mut last: Instant,
    ) -> io::Result<Instant> {
        let mut timers_at = last + TIMERS_PAUSE;
        let mut looks = 0_u32;
        loop {
            if shard.gateway.borrow().calls_waiting() > CALLS_MAX {
                return Ok(last);
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_YIELD) {
                // A thread that wants this core gets it, above all a worker of the kernel that sees to this shard's own write.
                std::thread::yield_now();
            }
            turns.next().await;
            let (now, events) = (Instant::now(), self.events.take());
            if events > 0 {
                last = now;
            }
            if events > EVENTS_MAX || self.stranger.take() || now.duration_since(last) > self.budget {
                return Ok(last);
            }
            if now >= timers_at {
                timers_at = now + TIMERS_PAUSE;
                sleeper.yield_turn().await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prism_backends::NamespaceId;

    use super::*;
    use crate::call::ticket::CallId;

    fn ticket(slot: u32) -> Ticket {
        Ticket {
            shard: 1,
            slot,
            generation: 0,
            call: CallId::Request(0),
            namespace: NamespaceId(0),
        }
    }

    #[test]
    fn a_few_connections_are_familiar_and_many_are_not() {
        let poll = IdlePoll::new(Duration::from_micros(200));
        let talk = |connections: u32| {
            for round in 0..3 {
                for slot in 0..connections {
                    poll.note(&ticket(slot));
                }
                let stranger = poll.stranger.take();
                assert!(round == 0 || stranger == (connections > 4), "{connections}");
            }
            assert_eq!(poll.events.take(), 3 * connections);
        };
        (1..=6).for_each(talk);
        talk(2);
    }

    #[test]
    fn without_a_budget_nothing_is_noted() {
        let poll = IdlePoll::new(Duration::ZERO);
        poll.note(&ticket(1));
        assert_eq!((poll.events.get(), poll.stranger.get()), (0, false));
    }
}
