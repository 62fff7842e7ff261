//! Decisions of a connection pool, without connections: the place of each call, when to connect and
//! when not, and which idle connections to close.
//!
//! A pool has as many places as it may have connections, so it never has more connections than
//! places. Time and jitter are arguments.
//!
//! ```text
//!            acquire                    release
//!   Free ───────────> Connecting ──> Busy <──────> Idle
//!    ^                    │            │  acquire    │
//!    └────────────────────┴────────────┴─────────────┘
//!       handle_failed         handle_lost      close_idle
//! ```

use std::time::{Duration, Instant};

/// Number of a place in a pool, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

/// Limits of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections, at least 1.
    pub cap: u32,
    /// Time after which an unused connection is closed.
    pub idle_max: Duration,
    /// Pause after the first failed attempt to connect; it doubles with each further one.
    pub backoff_min: Duration,
    /// Longest such pause.
    pub backoff_max: Duration,
}

/// Answer to a call that needs a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The connection at this place is the caller's until it releases it.
    Ready(Place),
    /// The caller gets the place, must connect, and must report the result.
    Connect(Place),
    /// All places are in use. Ask again when one is released, connected or lost.
    Wait,
    /// There is no connection, and it is too early to try again: the store is out of reach.
    Down {
        /// When the next attempt is due.
        retry_at: Instant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Connecting,
    Busy,
    Idle { since: Instant },
}

/// The machine. Inputs: `release`, `handle_connected`, `handle_failed`, `handle_lost`. Decisions:
/// `acquire`, `close_idle`. Getters: `open`, `in_use`.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    places: Vec<State>,
    /// Failed attempts to connect since the last successful one.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: Limits) -> Pool {
        assert!(limits.cap > 0, "a pool without places serves nobody");
        Pool {
            limits,
            places: vec![State::Free; limits.cap as usize],
            failures: 0,
            retry_at: None,
        }
    }

    /// Connections that exist or are being made.
    pub fn open(&self) -> usize {
        self.count(|state| state != State::Free)
    }

    /// Connections that calls are using, and those being made for a call.
    pub fn in_use(&self) -> usize {
        self.count(|state| matches!(state, State::Busy | State::Connecting))
    }

    /// Gives out the connection used last, or lets the caller make one.
    pub fn acquire(&mut self, now: Instant) -> Acquired {
        let latest = self
            .places
            .iter()
            .enumerate()
            .filter_map(|(at, state)| match state {
                State::Idle { since } => Some((*since, at)),
                _ => None,
            });
        if let Some((_, at)) = latest.max() {
            self.places[at] = State::Busy;
            return Acquired::Ready(Place(at as u32));
        }
        let is_early = self.retry_at.is_some_and(|retry_at| now < retry_at);
        let is_connecting = self.places.contains(&State::Connecting);
        // After a failure one attempt at a time, so that a recovering server is not overloaded.
        if !is_early
            && (self.failures == 0 || !is_connecting)
            && let Some(at) = self.places.iter().position(|state| *state == State::Free)
        {
            self.places[at] = State::Connecting;
            return Acquired::Connect(Place(at as u32));
        }
        match self.retry_at {
            Some(retry_at) if self.in_use() == 0 => Acquired::Down { retry_at },
            _ => Acquired::Wait,
        }
    }

    /// Takes back a connection that can be used again.
    pub fn release(&mut self, Place(at): Place, now: Instant) {
        debug_assert_eq!(self.places[at as usize], State::Busy);
        self.places[at as usize] = State::Idle { since: now };
    }

    /// Notes that the connection is made; its maker has it, and releases it.
    pub fn handle_connected(&mut self, Place(at): Place) {
        debug_assert_eq!(self.places[at as usize], State::Connecting);
        self.places[at as usize] = State::Busy;
        self.failures = 0;
        self.retry_at = None;
    }

    /// Notes that the attempt has failed. `jitter` is a random number that spreads the pauses of
    /// many pools.
    pub fn handle_failed(&mut self, Place(at): Place, now: Instant, jitter: u32) {
        debug_assert_eq!(self.places[at as usize], State::Connecting);
        self.places[at as usize] = State::Free;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + self.pause(jitter));
    }

    /// Notes that a connection has ended, or was given up; its place is free.
    pub fn handle_lost(&mut self, Place(at): Place) {
        self.places[at as usize] = State::Free;
    }

    /// Frees the places of connections that have been idle for long; the caller closes them.
    pub fn close_idle(&mut self, now: Instant) -> Vec<Place> {
        let mut closed = Vec::new();
        for (at, state) in self.places.iter_mut().enumerate() {
            if let State::Idle { since } = *state
                && now.saturating_duration_since(since) >= self.limits.idle_max
            {
                *state = State::Free;
                closed.push(Place(at as u32));
            }
        }
        closed
    }

    /// Pause after the last failure: half of it fixed, half of it random.
    fn pause(&self, jitter: u32) -> Duration {
        let doubled = self.failures.saturating_sub(1).min(16);
        let whole = self.limits.backoff_min.saturating_mul(1 << doubled);
        let whole = whole.min(self.limits.backoff_max);
        whole / 2 + (whole / 2).mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }

    fn count(&self, is: impl Fn(State) -> bool) -> usize {
        self.places.iter().filter(|state| is(**state)).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        cap: 3,
        idle_max: Duration::from_secs(60),
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(5),
    };

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Acquire,
        Release(usize),
        Lose(usize),
        Connected(usize),
        Failed(usize, u32),
        CloseIdle,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Acquire),
            2 => any::<usize>().prop_map(Step::Release),
            1 => any::<usize>().prop_map(Step::Lose),
            2 => any::<usize>().prop_map(Step::Connected),
            2 => (any::<usize>(), any::<u32>()).prop_map(|(which, jitter)| Step::Failed(which, jitter)),
            1 => Just(Step::CloseIdle),
            2 => (0_u64..20_000).prop_map(Step::Pass),
        ]
    }

    fn pick(places: &mut Vec<Place>, which: usize) -> Option<Place> {
        (!places.is_empty()).then(|| places.swap_remove(which % places.len()))
    }

    /// Holders and connectors, as seen by their callers.
    #[derive(Default)]
    struct Model {
        held: Vec<Place>,
        connecting: Vec<Place>,
        idle: Vec<Place>,
    }

    impl Model {
        fn acquired(&mut self, acquired: Acquired, cap: u32, now: Instant) {
            match acquired {
                Acquired::Ready(place) => {
                    let at = self.idle.iter().position(|idle| *idle == place);
                    self.idle
                        .swap_remove(at.expect("only an idle connection is given out"));
                    self.held.push(place);
                }
                Acquired::Connect(place) => {
                    assert!(self.idle.is_empty(), "an idle one comes first");
                    let known = [&self.held, &self.connecting, &self.idle];
                    assert!(!known.into_iter().flatten().any(|other| *other == place));
                    self.connecting.push(place);
                }
                Acquired::Wait => assert!(
                    !self.held.is_empty() || !self.connecting.is_empty(),
                    "somebody must come who ends the waiting"
                ),
                Acquired::Down { retry_at } => {
                    assert!(self.held.is_empty() && self.connecting.is_empty());
                    assert!(retry_at > now, "a due attempt is made, not refused");
                    assert!(retry_at <= now + LIMITS.backoff_max);
                }
            }
            let open = self.held.len() + self.connecting.len() + self.idle.len();
            assert!(open <= cap as usize, "{open} connections of {cap}");
        }
    }

    proptest! {
        #[test]
        fn places_are_given_out_once_and_never_more_than_there_are(
            cap in 1_u32..5,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let limits = Limits { cap, ..LIMITS };
            let (mut pool, mut model) = (Pool::new(limits), Model::default());
            let mut now = Instant::now();
            for step in steps {
                match step {
                    Step::Acquire => model.acquired(pool.acquire(now), cap, now),
                    Step::Release(which) => if let Some(place) = pick(&mut model.held, which) {
                        pool.release(place, now);
                        model.idle.push(place);
                    },
                    Step::Lose(which) => if let Some(place) = pick(&mut model.held, which) {
                        pool.handle_lost(place);
                    },
                    Step::Connected(which) => if let Some(place) = pick(&mut model.connecting, which) {
                        pool.handle_connected(place);
                        model.held.push(place);
                    },
                    Step::Failed(which, jitter) => if let Some(place) = pick(&mut model.connecting, which) {
                        pool.handle_failed(place, now, jitter);
                    },
                    Step::CloseIdle => for place in pool.close_idle(now) {
                        model.idle.retain(|idle| *idle != place);
                    },
                    Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                }
                prop_assert_eq!(pool.in_use(), model.held.len() + model.connecting.len());
                prop_assert_eq!(pool.open(), pool.in_use() + model.idle.len());
            }
        }
    }

    #[test]
    fn a_store_that_is_down_is_asked_ever_more_rarely_and_by_one_at_a_time() {
        let mut pool = Pool::new(LIMITS);
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let Acquired::Connect(place) = pool.acquire(now) else {
                panic!("an attempt is due");
            };
            if !pauses.is_empty() {
                assert_eq!(pool.acquire(now), Acquired::Wait, "one attempt at a time");
            }
            pool.handle_failed(place, now, u32::MAX);
            let Acquired::Down { retry_at } = pool.acquire(now) else {
                panic!("the store is out of reach");
            };
            pauses.push(retry_at - now);
            now = retry_at;
        }
        assert_eq!(pauses[0], LIMITS.backoff_min);
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses[9], LIMITS.backoff_max);
        let Acquired::Connect(place) = pool.acquire(now) else {
            panic!("an attempt is due");
        };
        pool.handle_connected(place);
        assert!(
            matches!(pool.acquire(now), Acquired::Connect(_)),
            "forgotten once it is back"
        );
    }

    #[test]
    fn jitter_spreads_a_pause_over_its_second_half() {
        let pause = |jitter| {
            let mut pool = Pool::new(LIMITS);
            let now = Instant::now();
            let Acquired::Connect(place) = pool.acquire(now) else {
                panic!("an attempt is due");
            };
            pool.handle_failed(place, now, jitter);
            match pool.acquire(now) {
                Acquired::Down { retry_at } => retry_at - now,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(pause(0), LIMITS.backoff_min / 2);
        assert_eq!(pause(u32::MAX), LIMITS.backoff_min);
    }

    #[test]
    fn idle_connections_are_closed_and_the_last_used_is_taken_first() {
        let mut pool = Pool::new(LIMITS);
        let start = Instant::now();
        let places = [(); 3].map(|()| match pool.acquire(start) {
            Acquired::Connect(place) => place,
            other => panic!("{other:?}"),
        });
        for (second, place) in places.into_iter().enumerate() {
            pool.handle_connected(place);
            pool.release(place, start + Duration::from_secs(second as u64));
        }
        assert_eq!(pool.acquire(start), Acquired::Ready(places[2]));
        let closed = pool.close_idle(start + LIMITS.idle_max);
        assert_eq!(closed, [places[0]]);
        assert_eq!(pool.open(), 2);
    }
}
