//! Lifetime of one connection: the times by which its client must have sent something, and at which
//! it is asked to go.
//!
//! A pure machine, called once a second; all times are whole seconds. It bounds the resources that
//! a client can hold without using them:
//!
//! ```text
//!   no preface or first request head     handshake_timeout                      close
//!   a frame or request that has begun    receive_timeout + bytes / body_rate_min  the session answers, or close
//!   no call                              idle_timeout                           GOAWAY
//!   nothing heard                        keepalive_interval, PING, keepalive_timeout  close
//!   nothing taken of what is sent        SEND_STALL                             close
//!   old                                  connection_age_max ± a tenth           GOAWAY; after connection_age_grace close
//! ```

use crate::config::ServeLimits;

/// Seconds after which a client that reads nothing of its answers counts as gone.
const SEND_STALL: u32 = 60;

/// State of a connection as the driver sees it once a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Whether the client has sent its opening, as every client must.
    pub(crate) greeted: bool,
    /// Calls that are open.
    pub(crate) calls: usize,
    /// A number that changes with each call that begins.
    pub(crate) calls_begun: u64,
    /// Whether a send is in flight.
    pub(crate) sending: bool,
    /// Whether the peer can be probed by PING.
    pub(crate) answers_pings: bool,
}

impl View {
    /// The view of a connection whose end has begun.
    pub(crate) const ENDING: Self = Self {
        greeted: true,
        calls: 1,
        calls_begun: 0,
        sending: false,
        answers_pings: false,
    };
}

/// Action for the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Stay,
    /// Probe the client by PING.
    Ping,
    /// Ask the client to open no more calls here; the connection ends with the last one. Possibly
    /// for the second time.
    GoAway,
    /// End it, with the reason where the protocol can express it.
    End(Cause),
    /// Close it: the client is gone.
    Close(Cause),
}

/// The reason why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The client has not sent its opening.
    NoGreeting,
    /// A frame or header block that it began did not become complete.
    Incomplete,
    /// It reads nothing of its answers.
    Stalled,
    /// It does not answer PING.
    Silent,
    /// It was asked to go and has not gone.
    NotGone,
    /// The proof of who the client is has ended.
    Outdated,
}

impl Cause {
    /// The cause in words, for the diagnostics.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::NoGreeting => "the client has not said what it wants",
            Self::Incomplete => "what the client began to send did not become complete",
            Self::Stalled => "the client takes nothing of its answers",
            Self::Silent => "the client does not answer PING",
            Self::Outdated => "the client's certificate has ended",
            Self::NotGone => "the client was asked to go and has not gone",
        }
    }
}

/// The state of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    clock: u32,
    /// Moment of the last receipt.
    heard: u32,
    /// Moment at which the kernel last took output, or there was none.
    taken: u32,
    /// Moment at which a call was last open.
    used: u32,
    calls_begun: u64,
    /// Moment since which a frame or request is incomplete.
    partial: Option<u32>,
    pinged: Option<u32>,
    leaving: Option<Leaving>,
    /// Spread of the ends of connections that began together, in percent of their age.
    spread: u32,
}

/// State after the client was asked to go.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    since: u32,
    /// Seconds that it has.
    patience: u32,
    /// Whether it was asked a second time.
    asked_again: bool,
}

impl Lifetime {
    /// Makes the state of a new connection. `lot` is any number that differs from connection to
    /// connection.
    pub(crate) fn new(lot: u32) -> Self {
        Self {
            clock: 0,
            heard: 0,
            taken: 0,
            used: 0,
            calls_begun: 0,
            partial: Some(0),
            pinged: None,
            leaving: None,
            spread: 90 + lot % 21,
        }
    }

    /// Notes a receipt. `partial`: it ends within a frame or request. `complete`: something in it
    /// was complete.
    pub(crate) fn received(&mut self, partial: bool, complete: bool) {
        self.heard = self.clock;
        self.pinged = None;
        self.partial = match self.partial {
            _ if !partial => None,
            Some(since) if !complete => Some(since),
            _ => Some(self.clock),
        };
    }

    /// Notes that the kernel has taken output.
    pub(crate) fn sent(&mut self) {
        self.taken = self.clock;
    }

    /// Advances the time by some seconds.
    pub(crate) fn tick(&mut self, seconds: u32, view: View, limits: &ServeLimits) -> Step {
        self.clock = self.clock.saturating_add(seconds);
        if !view.sending {
            self.taken = self.clock;
        }
        if view.calls > 0 || view.calls_begun != self.calls_begun {
            self.used = self.clock;
            self.calls_begun = view.calls_begun;
        }
        let over = |since: u32, limit: u32| self.clock - since > limit;
        if over(self.taken, SEND_STALL) {
            return Step::Close(Cause::Stalled);
        }
        if !view.greeted {
            return match over(0, seconds_of(limits.handshake_timeout)) {
                true => Step::End(Cause::NoGreeting),
                false => Step::Stay,
            };
        }
        if view.sending {
            // The client is perhaps not read from meanwhile, so the time does not count against it.
            self.partial = self.partial.map(|_| self.clock);
        }
        if self
            .partial
            .is_some_and(|since| over(since, seconds_of(limits.receive_timeout)))
        {
            return Step::End(Cause::Incomplete);
        }
        match self.keep_alive(view, limits) {
            Step::Stay => self.leave(view, limits),
            step => step,
        }
    }

    fn keep_alive(&mut self, view: View, limits: &ServeLimits) -> Step {
        let interval = seconds_of(limits.keepalive_interval);
        if interval == 0 || !view.answers_pings || view.sending {
            return Step::Stay;
        }
        match self.pinged {
            None if self.clock - self.heard >= interval => {
                self.pinged = Some(self.clock);
                Step::Ping
            }
            Some(since) if self.clock - since > seconds_of(limits.keepalive_timeout) => {
                Step::Close(Cause::Silent)
            }
            _ => Step::Stay,
        }
    }

    fn leave(&mut self, view: View, limits: &ServeLimits) -> Step {
        if let Some(leaving) = &mut self.leaving {
            let waited = self.clock - leaving.since;
            if waited > leaving.patience {
                return Step::End(Cause::NotGone);
            }
            if !leaving.asked_again && waited >= seconds_of(limits.keepalive_timeout) {
                // It does not answer the PING sent with the first GOAWAY.
                leaving.asked_again = true;
                return Step::GoAway;
            }
            return Step::Stay;
        }
        let idle = seconds_of(limits.idle_timeout);
        let age_max = seconds_of(limits.connection_age_max);
        // For an age of a few seconds this may be 0, which is a legal age.
        let age = u32::try_from(u64::from(age_max) * u64::from(self.spread) / 100).unwrap_or(u32::MAX);
        let patience = if age_max > 0 && self.clock > age {
            seconds_of(limits.connection_age_grace)
        } else if idle > 0 && view.calls == 0 && self.clock - self.used > idle {
            seconds_of(limits.keepalive_timeout).saturating_add(seconds_of(limits.receive_timeout))
        } else {
            return Step::Stay;
        };
        self.leaving = Some(Leaving {
            since: self.clock,
            patience,
            asked_again: false,
        });
        Step::GoAway
    }
}

/// Whether a request that began `waited` seconds ago, with `bytes` received, is slower than
/// allowed.
pub(crate) fn is_late(waited: u32, bytes: usize, limits: &ServeLimits) -> bool {
    let earned = bytes / limits.body_rate_min.max(1);
    waited > seconds_of(limits.receive_timeout).saturating_add(u32::try_from(earned).unwrap_or(u32::MAX))
}

fn seconds_of(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const IDLE: View = View {
        greeted: true,
        calls: 0,
        calls_begun: 0,
        sending: false,
        answers_pings: true,
    };

    fn limits() -> ServeLimits {
        ServeLimits {
            handshake_timeout: Duration::from_secs(10),
            receive_timeout: Duration::from_secs(20),
            body_rate_min: 1_024,
            idle_timeout: Duration::from_secs(1_800),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            connection_age_max: Duration::ZERO,
            connection_age_grace: Duration::from_secs(300),
            ..ServeLimits::default()
        }
    }

    /// Ticks until there is an action. Returns it, and the seconds that went by.
    fn run(lifetime: &mut Lifetime, view: View, limits: &ServeLimits) -> (Step, u32) {
        (1..100_000)
            .find_map(|second| match lifetime.tick(1, view, limits) {
                Step::Stay => None,
                step => Some((step, second)),
            })
            .expect("every connection has an end")
    }

    fn greeted() -> Lifetime {
        let mut lifetime = Lifetime::new(10);
        lifetime.received(false, true);
        lifetime
    }

    #[test]
    fn who_says_nothing_first_is_closed_after_the_handshake_timeout_even_if_it_drips() {
        let mut lifetime = Lifetime::new(0);
        let silent = View {
            greeted: false,
            ..IDLE
        };
        for _ in 0..10 {
            assert_eq!(lifetime.tick(1, silent, &limits()), Step::Stay);
            lifetime.received(true, false);
        }
        assert!(matches!(lifetime.tick(1, silent, &limits()), Step::End(_)));
    }

    #[test]
    fn a_client_that_vanished_is_asked_once_and_closed() {
        let mut lifetime = greeted();
        assert_eq!(run(&mut lifetime, IDLE, &limits()), (Step::Ping, 60));
        let (step, seconds) = run(&mut lifetime, IDLE, &limits());
        assert!(matches!(step, Step::Close(_)));
        assert_eq!(seconds, 21);
    }

    #[test]
    fn a_client_that_answers_or_calls_stays() {
        let mut lifetime = greeted();
        for _ in 0..10 {
            assert_eq!(run(&mut lifetime, IDLE, &limits()), (Step::Ping, 60));
            lifetime.received(false, true);
        }
        // The client's own keepalive shows that it lives, so none of ours is sent.
        for second in 0..1_000 {
            if second % 10 == 0 {
                lifetime.received(false, true);
            }
            assert_eq!(lifetime.tick(1, IDLE, &limits()), Step::Stay);
        }
    }

    #[test]
    fn half_a_frame_has_its_time_and_dripping_does_not_prolong_it() {
        let mut lifetime = greeted();
        lifetime.received(true, true);
        for _ in 0..20 {
            assert_eq!(lifetime.tick(1, IDLE, &limits()), Step::Stay);
            lifetime.received(true, false);
        }
        assert!(matches!(lifetime.tick(1, IDLE, &limits()), Step::End(_)));
        let mut lifetime = greeted();
        for _ in 0..200 {
            lifetime.received(true, true);
            assert_eq!(
                lifetime.tick(1, IDLE, &limits()),
                Step::Stay,
                "frames that become complete"
            );
        }
    }

    #[test]
    fn a_slow_reader_stays_as_long_as_it_takes_something() {
        let mut lifetime = greeted();
        let sending = View {
            sending: true,
            calls: 1,
            ..IDLE
        };
        lifetime.received(true, true);
        for second in 0..1_000 {
            if second % 59 == 0 {
                lifetime.sent();
            }
            assert_eq!(lifetime.tick(1, sending, &limits()), Step::Stay);
        }
        let (step, seconds) = run(&mut lifetime, sending, &limits());
        assert!(matches!(step, Step::Close(_)) && seconds <= SEND_STALL + 1);
    }

    #[test]
    fn pings_do_not_keep_a_connection_without_calls() {
        let mut lifetime = greeted();
        let mut seconds = 0;
        let step = loop {
            lifetime.received(false, true);
            seconds += 1;
            match lifetime.tick(1, IDLE, &limits()) {
                Step::Stay => {}
                step => break step,
            }
        };
        assert_eq!((step, seconds), (Step::GoAway, 1_801));
        let mut lifetime = greeted();
        for call in 0..4_000 {
            lifetime.received(false, true);
            let calls_begun = call / 1_000;
            assert_eq!(
                lifetime.tick(1, View { calls_begun, ..IDLE }, &limits()),
                Step::Stay
            );
        }
    }

    #[test]
    fn an_old_connection_is_asked_to_go_twice_and_then_ended() {
        let limits = ServeLimits {
            connection_age_max: Duration::from_secs(1_000),
            keepalive_interval: Duration::ZERO,
            ..limits()
        };
        let view = View { calls: 1, ..IDLE };
        let mut lifetime = Lifetime::new(10);
        lifetime.received(false, true);
        assert_eq!(run(&mut lifetime, view, &limits), (Step::GoAway, 1_001));
        assert_eq!(run(&mut lifetime, view, &limits), (Step::GoAway, 20));
        let (step, seconds) = run(&mut lifetime, view, &limits);
        assert!(matches!(step, Step::End(_)));
        assert_eq!(seconds, 281);
        let ages: std::collections::BTreeSet<u32> = (0..100)
            .map(|lot| {
                let mut lifetime = Lifetime::new(lot);
                lifetime.received(false, true);
                run(&mut lifetime, view, &limits).1
            })
            .collect();
        assert_eq!(ages.len(), 21, "they do not all leave at once");
    }

    #[test]
    fn the_least_age_counts_whatever_the_lot() {
        let limits = ServeLimits {
            connection_age_max: Duration::from_secs(1),
            ..limits()
        };
        for lot in 0..21 {
            let mut lifetime = Lifetime::new(lot);
            lifetime.received(false, true);
            let (step, seconds) = run(&mut lifetime, View { calls: 1, ..IDLE }, &limits);
            assert_eq!(step, Step::GoAway, "lot {lot}");
            assert!(seconds <= 2, "lot {lot}: {seconds} s");
        }
    }

    #[test]
    fn a_body_must_keep_the_least_rate() {
        let limits = limits();
        assert!(!is_late(20, 0, &limits));
        assert!(is_late(21, 0, &limits));
        assert!(is_late(21, 42, &limits), "two bytes a second");
        assert!(!is_late(1_020, 1_024_000, &limits));
        assert!(is_late(1_021, 1_024_000, &limits));
    }
}
