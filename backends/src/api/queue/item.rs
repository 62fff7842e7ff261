//! One message of a queue as a state machine of its events. Pure; every store keeps these few
//! numbers and asks this machine.
//!
//! ```text
//!   Waiting ──claim──> Leased ──ack──> gone, or Done where the namespace replays
//!      ^                  │
//!      └── nack, lease's end, redrive (also from Dead and Done)
//!      └── attempts used up, said so, too old ──> Dead
//! ```
//!
//! No event marks the moment at which a lease ends or a message grows too old, so the stored phase
//! may be out of date: [`Item::state`] gives the true state at a time.

use crate::ids::UnixMillis;

/// State of a message, as shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// May be received, once the messages before it in its key are done.
    Ready,
    /// Waits for its time.
    Delayed,
    /// A worker has it.
    Leased,
    /// Failed for good.
    Dead,
    /// Acked, and kept.
    Done,
}

impl State {
    /// All of them.
    pub const ALL: [State; 5] = [
        State::Ready,
        State::Delayed,
        State::Leased,
        State::Dead,
        State::Done,
    ];

    /// Whether the work is still to be done.
    pub const fn is_undone(self) -> bool {
        matches!(self, State::Ready | State::Delayed | State::Leased)
    }
}

/// State of a message as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Ready from a time on.
    Waiting,
    /// With a worker until a time.
    Leased,
    /// Failed for good at a time.
    Dead,
    /// Acked at a time.
    Done,
}

/// Longest time that one attempt may hold a message in all, in milliseconds: 12 hours.
pub const LEASE_MS_MAX: u64 = 12 * 3_600 * 1_000;

/// Failure reason of an attempt whose lease ended without an answer.
pub const LEASE_ENDED: &str = "lease ended";
/// Failure reason of a message that no worker began within the namespace's ttl.
pub const TTL_PASSED: &str = "ttl passed before it was begun";
/// Failure reason of a message that outlived the namespace's retention.
pub const RETENTION_PASSED: &str = "retention passed";

/// The numbers of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Phase as stored.
    pub phase: Phase,
    /// Waiting: ready from then on. Leased: the lease's end. Dead, Done: since then.
    pub at: UnixMillis,
    /// Number of attempts begun, and so of the last one, by which receipts identify it.
    pub serial: u32,
    /// Number of attempts that count.
    pub spent: u32,
    /// Number of the last attempt that a worker reported as failed; 0: none.
    pub judged: u32,
    /// Number of counted attempts after which it is dead.
    pub attempts_max: u32,
    /// Moment at which it was sent, or redriven.
    pub sent_at: UnixMillis,
    /// Moment at which the current attempt began.
    pub leased_at: UnixMillis,
    /// Moment from which it is dead if no attempt has begun.
    pub begin_by: Option<UnixMillis>,
    /// Moment from which it is dead.
    pub dead_by: UnixMillis,
}

/// One attempt, as identified by its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Value of [`Item::sent_at`]: a redriven message counts as another one.
    pub sent_at: UnixMillis,
    /// Value of [`Item::serial`].
    pub serial: u32,
}

/// The reason why a worker's answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// A later attempt has begun.
    Lost,
    /// The work no longer exists.
    Gone,
    /// The lease may not become longer.
    TooLong,
}

/// Report of a worker about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Wait before the next attempt, in milliseconds.
    pub delay_ms: u64,
    /// Whether to give up: no further attempt.
    pub dead: bool,
    /// Whether to leave the attempt uncounted.
    pub uncounted: bool,
}

impl Item {
    /// Makes a message that was sent just now.
    pub fn new(
        now: UnixMillis,
        delay_ms: u64,
        attempts_max: u32,
        ttl_ms: Option<u64>,
        retention_ms: u64,
    ) -> Item {
        Item {
            phase: Phase::Waiting,
            at: now.plus(delay_ms),
            serial: 0,
            spent: 0,
            judged: 0,
            attempts_max,
            sent_at: now,
            leased_at: UnixMillis(0),
            begin_by: ttl_ms.map(|ttl| now.plus(ttl)),
            dead_by: now.plus(retention_ms),
        }
    }

    /// The state at a time.
    pub fn state(&self, now: UnixMillis) -> State {
        match self.phase {
            Phase::Dead => State::Dead,
            Phase::Done => State::Done,
            Phase::Leased if self.at > now => State::Leased,
            _ if self.death(now).is_some() => State::Dead,
            Phase::Waiting if self.at > now => State::Delayed,
            Phase::Waiting | Phase::Leased => State::Ready,
        }
    }

    /// The reason of a death that is not stored yet.
    pub fn death(&self, now: UnixMillis) -> Option<&'static str> {
        match self.phase {
            Phase::Dead | Phase::Done => None,
            Phase::Leased if self.at > now => None,
            Phase::Leased if self.spent >= self.attempts_max => Some(LEASE_ENDED),
            _ if self.dead_by <= now => Some(RETENTION_PASSED),
            _ if self.serial == 0 && self.begin_by.is_some_and(|by| by <= now) => Some(TTL_PASSED),
            Phase::Waiting | Phase::Leased => None,
        }
    }

    /// Moment of its state: the end of a lease or delay still to come, or the moment of a death or
    /// a completion.
    pub fn state_time(&self, now: UnixMillis) -> UnixMillis {
        match self.death(now) {
            Some(LEASE_ENDED) => self.at,
            Some(TTL_PASSED) => self.begin_by.unwrap_or(self.at),
            Some(_) => self.dead_by,
            None => self.at,
        }
    }

    /// Stores a death.
    pub fn bury(&mut self, now: UnixMillis) {
        self.at = self.state_time(now);
        self.phase = Phase::Dead;
    }

    /// Moment at which a sweep should look at it: an undone message may have died, a dead or done
    /// one may be removed.
    pub fn look_at(&self) -> UnixMillis {
        match self.phase {
            Phase::Dead | Phase::Done => self.gone_at(),
            Phase::Waiting if self.serial == 0 => {
                self.begin_by.map_or(self.dead_by, |by| by.min(self.dead_by))
            }
            Phase::Waiting => self.dead_by,
            // A leased message is left alone until the end of its last lease.
            Phase::Leased if self.spent >= self.attempts_max => self.at,
            Phase::Leased => self.at.max(self.dead_by),
        }
    }

    /// Moment at which a dead or done message is removed for good.
    pub fn gone_at(&self) -> UnixMillis {
        self.at.plus(self.dead_by.0.saturating_sub(self.sent_at.0))
    }

    /// Leases it to a worker. The caller has checked that it is [`State::Ready`]. Returns whether a
    /// lease had ended before.
    pub fn claim(&mut self, now: UnixMillis, lease_ms: u64) -> bool {
        let has_ended = self.phase == Phase::Leased;
        self.phase = Phase::Leased;
        self.at = now.plus(lease_ms);
        self.leased_at = now;
        self.serial += 1;
        self.spent += 1;
        has_ended
    }

    /// The attempt in progress, or the last one.
    pub fn attempt(&self) -> Attempt {
        Attempt {
            sent_at: self.sent_at,
            serial: self.serial,
        }
    }

    /// Checks that a worker's answer about an attempt counts: no later one has begun. A crash may
    /// have undone the start of the attempt; its worker is believed.
    fn check(&self, attempt: Attempt) -> Result<(), Late> {
        match attempt.sent_at == self.sent_at && self.serial <= attempt.serial {
            true => Ok(()),
            false => Err(Late::Lost),
        }
    }

    /// Marks the work as done. `false`: it already was.
    ///
    /// # Errors
    /// [`Late::Lost`].
    pub fn ack(&mut self, attempt: Attempt, now: UnixMillis) -> Result<bool, Late> {
        self.check(attempt)?;
        if self.phase == Phase::Done {
            return Ok(false);
        }
        self.serial = attempt.serial;
        self.phase = Phase::Done;
        self.at = now;
        Ok(true)
    }

    /// Marks the work as failed. `false`: nothing changes, since its worker has reported that
    /// before, or it is dead.
    ///
    /// # Errors
    /// [`Late::Lost`], [`Late::Gone`].
    pub fn nack(&mut self, attempt: Attempt, verdict: Verdict, now: UnixMillis) -> Result<bool, Late> {
        self.check(attempt)?;
        match self.phase {
            Phase::Done => return Err(Late::Gone),
            Phase::Dead => return Ok(false),
            Phase::Waiting | Phase::Leased if self.judged == attempt.serial => return Ok(false),
            Phase::Waiting | Phase::Leased => {}
        }
        self.spent += attempt.serial - self.serial;
        self.serial = attempt.serial;
        self.judged = attempt.serial;
        if verdict.uncounted {
            self.spent = self.spent.saturating_sub(1);
        }
        if verdict.dead || self.spent >= self.attempts_max {
            self.phase = Phase::Dead;
            self.at = now;
        } else {
            self.phase = Phase::Waiting;
            self.at = now.plus(verdict.delay_ms);
        }
        Ok(true)
    }

    /// Extends the lease. It never gets shorter; an attempt has 12 hours in all.
    ///
    /// # Errors
    /// [`Late::Lost`], [`Late::Gone`], [`Late::TooLong`].
    pub fn extend(&mut self, attempt: Attempt, lease_ms: u64, now: UnixMillis) -> Result<(), Late> {
        self.check(attempt)?;
        match self.phase {
            Phase::Done => return Err(Late::Gone),
            // Undone by a crash, nacked, or dead: the attempt has no lease any more.
            Phase::Waiting | Phase::Dead => return Err(Late::Lost),
            Phase::Leased if self.serial != attempt.serial => return Err(Late::Lost),
            Phase::Leased => {}
        }
        if self.death(now).is_some() {
            return Err(Late::Lost);
        }
        let end = self.leased_at.plus(LEASE_MS_MAX);
        let wanted = now.plus(lease_ms);
        if end <= now || (wanted > end && self.at >= end) {
            return Err(Late::TooLong);
        }
        self.at = self.at.max(wanted.min(end));
        Ok(())
    }

    /// Starts a dead or done message anew.
    pub fn redrive(&mut self, now: UnixMillis) {
        let life = self.dead_by.0.saturating_sub(self.sent_at.0);
        let begin = self.begin_by.map(|by| by.0.saturating_sub(self.sent_at.0));
        // Earlier receipts must not fit: a redrive within the millisecond of the send counts as a
        // later one.
        let sent_at = UnixMillis(now.0.max(self.sent_at.0 + 1));
        *self = Item {
            at: now,
            ..Item::new(sent_at, 0, self.attempts_max, begin, life)
        };
    }
}

/// Wait after the attempt of this number, in milliseconds: one second, doubled with each attempt up
/// to five minutes, less up to a fifth by `chance`.
pub fn backoff_ms(attempt: u32, chance: u64) -> u64 {
    let whole = (1_000_u64 << attempt.saturating_sub(1).min(20)).min(300_000);
    whole - chance % (whole / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);
    const AGAIN: Verdict = Verdict {
        delay_ms: 50,
        dead: false,
        uncounted: false,
    };

    fn sent() -> Item {
        Item::new(NOW, 0, 2, None, 1_000_000)
    }

    fn leased() -> (Item, Attempt) {
        let mut item = sent();
        item.claim(NOW, 100);
        (item, item.attempt())
    }

    #[test]
    fn a_lease_ends_and_the_last_one_kills() {
        let (mut item, first) = leased();
        assert_eq!(item.state(NOW.plus(99)), State::Leased);
        assert_eq!(item.state(NOW.plus(100)), State::Ready);
        assert!(item.claim(NOW.plus(100), 100), "a lease had ended");
        assert_eq!(item.ack(first, NOW.plus(101)), Err(Late::Lost));
        assert_eq!(item.state(NOW.plus(200)), State::Dead);
        assert_eq!(item.death(NOW.plus(200)), Some(LEASE_ENDED));
        // No other worker has it: the last worker's answer still counts.
        let last = item.attempt();
        assert_eq!(item.ack(last, NOW.plus(300)), Ok(true));
        assert_eq!(item.ack(last, NOW.plus(301)), Ok(false));
    }

    #[test]
    fn a_nack_counts_once_and_an_uncounted_one_not_at_all() {
        let (mut item, first) = leased();
        assert_eq!(item.nack(first, AGAIN, NOW.plus(10)), Ok(true));
        assert_eq!((item.state(NOW.plus(59)), item.spent), (State::Delayed, 1));
        assert_eq!(
            item.nack(first, AGAIN, NOW.plus(40)),
            Ok(false),
            "it was said before"
        );
        assert_eq!(item.at, NOW.plus(60));
        item.claim(NOW.plus(60), 100);
        let second = item.attempt();
        let uncounted = Verdict {
            uncounted: true,
            ..AGAIN
        };
        assert_eq!(item.nack(first, AGAIN, NOW.plus(61)), Err(Late::Lost));
        assert_eq!(item.nack(second, uncounted, NOW.plus(61)), Ok(true));
        assert_eq!(item.nack(second, uncounted, NOW.plus(61)), Ok(false));
        assert_eq!((item.spent, item.serial), (1, 2));
        item.claim(NOW.plus(200), 100);
        assert_eq!(item.nack(item.attempt(), AGAIN, NOW.plus(210)), Ok(true));
        assert_eq!(item.state(NOW.plus(210)), State::Dead, "two attempts counted");
    }

    #[test]
    fn what_a_crash_took_back_is_still_believed() {
        let (mut after, first) = leased();
        let mut before = sent();
        assert_eq!(before.ack(first, NOW.plus(5)), Ok(true));
        let mut before = sent();
        assert_eq!(before.nack(first, AGAIN, NOW.plus(5)), Ok(true));
        assert_eq!(after.nack(first, AGAIN, NOW.plus(5)), Ok(true));
        after.leased_at = before.leased_at;
        assert_eq!(before, after, "a replay leads to the same");
    }

    #[test]
    fn leases_grow_up_to_twelve_hours() {
        let (mut item, first) = leased();
        item.extend(first, 1_000, NOW.plus(50)).unwrap();
        assert_eq!(item.at, NOW.plus(1_050));
        item.extend(first, 1_000, NOW.plus(20)).unwrap();
        assert_eq!(item.at, NOW.plus(1_050), "never shorter");
        item.extend(first, LEASE_MS_MAX, NOW.plus(100)).unwrap();
        assert_eq!(item.at, NOW.plus(LEASE_MS_MAX));
        let late = NOW.plus(LEASE_MS_MAX - 10);
        assert_eq!(item.extend(first, 1_000, late), Err(Late::TooLong));
        assert_eq!(item.nack(first, AGAIN, late), Ok(true));
        assert_eq!(item.extend(first, 1_000, late), Err(Late::Lost));
    }

    #[test]
    fn old_messages_die_and_go() {
        let item = Item::new(NOW, 10, 3, Some(500), 1_000);
        assert_eq!(item.state(NOW), State::Delayed);
        assert_eq!(item.death(NOW.plus(500)), Some(TTL_PASSED));
        let mut begun = item;
        begun.claim(NOW.plus(10), 10);
        assert_eq!(begun.state(NOW.plus(500)), State::Ready, "it was begun in time");
        assert_eq!(begun.death(NOW.plus(1_000)), Some(RETENTION_PASSED));
        begun.bury(NOW.plus(5_000));
        assert_eq!((begun.at, begun.gone_at()), (NOW.plus(1_000), NOW.plus(2_000)));
        let old = begun.attempt();
        begun.redrive(NOW.plus(1_500));
        assert_eq!((begun.spent, begun.dead_by), (0, NOW.plus(2_500)));
        assert_eq!(begun.ack(old, NOW.plus(1_501)), Err(Late::Lost));
    }

    #[test]
    fn the_wait_doubles_up_to_five_minutes() {
        assert_eq!(backoff_ms(1, 0), 1_000);
        assert_eq!(backoff_ms(4, 0), 8_000);
        assert_eq!(backoff_ms(100, 0), 300_000);
        for chance in [1, 77, u64::MAX] {
            assert!((6_400..=8_000).contains(&backoff_ms(4, chance)));
        }
    }
}
