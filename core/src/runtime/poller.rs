//! The task of a shard that polls for due work when [`IdlePoll`] decides so.
//!
//! Under epoll the reactor cannot poll without sleeping, so there is none.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use super::{
    idle_poll::{IdlePoll, Outstanding},
    mailbox::ShardSleeper,
    notify::Notify,
    reactor::Turns,
};

/// Polls after which other threads get the core; one takes about a microsecond.
const LOOKS_PER_YIELD: u32 = 4;

/// The task and its decision.
pub(crate) struct Poller {
    /// `None`: never looks.
    decision: Option<RefCell<IdlePoll>>,
    /// Outstanding work as known to the decision.
    known: Cell<Outstanding>,
    looking: Cell<bool>,
    wanted: Notify,
}

impl Poller {
    /// Makes a poller that polls for at most `budget` at a time; zero: never.
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            decision: (!budget.is_zero()).then(|| RefCell::new(IdlePoll::new(budget, Instant::now()))),
            known: Cell::default(),
            looking: Cell::new(false),
            wanted: Notify::default(),
        }
    }

    /// Notes that work was passed to another thread or to the disk, or came back.
    pub(crate) fn note(&self, outstanding: Outstanding) {
        let Some(decision) = &self.decision else { return };
        if self.known.replace(outstanding) == outstanding {
            return;
        }
        let now = Instant::now();
        let mut decision = decision.borrow_mut();
        decision.handle_outstanding(outstanding, now);
        if !self.looking.get() && decision.should_look(now) {
            self.looking.set(true);
            self.wanted.notify();
        }
    }

    /// The task, for the mailboxes that `sleeper` waits for. It ends with the shard, or at once
    /// where it has nothing to do. `looked` gets the duration of each polling.
    pub(crate) async fn run(
        &self,
        sleeper: &ShardSleeper,
        has_work: impl Fn() -> bool,
        looked: impl Fn(Duration),
    ) {
        let Some(decision) = &self.decision else { return };
        let turns = Turns::start();
        loop {
            self.wanted.notified().await;
            let mut looks = 0_u32;
            sleeper.attend();
            while decision.borrow_mut().should_look(Instant::now()) {
                if looks.is_multiple_of(LOOKS_PER_YIELD) {
                    // A thread that works for this shard may need its core: the store's writer, or
                    // a worker of the kernel that serves the shard's own write.
                    std::thread::yield_now();
                }
                looks += 1;
                sleeper.look(&has_work);
                turns.next().await;
            }
            sleeper.leave(&has_work);
            looked(decision.borrow_mut().end_look(Instant::now()));
            self.looking.set(false);
        }
    }
}
