//! The connections of one shard. Many calls are under way on each; a call takes the one with the
//! fewest, and another is opened when all are busy.
//!
//! A connection is never closed because somebody stopped waiting: the driver drops an answer that
//! nobody awaits, and keeps the order of the others. One that has failed is left by all at once.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::{Pipeline, Value};
use tokio::sync::Notify;

use super::config::Config;
use super::connect::{Facts, Fault, Link};
use crate::error::StoreError;
use crate::tls::Encryption;

/// Calls on one connection from which another is opened, and that a sidecar may have under way on
/// each.
pub(super) const CALLS_PER_LINK: u32 = 64;

/// Pauses between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Time for which settings that were seen are believed while writes come.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How often commands are sent that the server did not carry out for want of its scripts.
const ATTEMPTS: u32 = 3;

/// Connections of one thread.
#[derive(Debug)]
pub(super) struct Links {
    config: Config,
    encryption: Option<Encryption>,
    places: RefCell<Vec<Place>>,
    failures: Cell<u32>,
    retry_at: Cell<Option<Instant>>,
    last_refusal: RefCell<String>,
    /// Facts that were seen last, and when.
    facts: Cell<Option<(Facts, Instant)>>,
    /// Where the sweep goes on among the namespaces.
    pub(super) sweep_cursor: Cell<u64>,
    changed: Notify,
}

#[derive(Debug)]
enum Place {
    Free,
    Connecting,
    Open(Rc<Link>),
}

enum Choice {
    Use(Rc<Link>),
    Connect(usize),
    Wait,
    Down,
}

impl Links {
    /// No connection yet; at most `cap` of them.
    pub(super) fn new(config: Config, cap: u32) -> Result<Rc<Links>, StoreError> {
        Ok(Rc::new(Links {
            encryption: Encryption::new(&config.tls)?,
            config,
            places: RefCell::new((0..cap).map(|_| Place::Free).collect()),
            failures: Cell::new(0),
            retry_at: Cell::new(None),
            last_refusal: RefCell::default(),
            facts: Cell::new(None),
            sweep_cursor: Cell::new(0),
            changed: Notify::new(),
        }))
    }

    pub(super) fn cap(&self) -> u32 {
        self.places.borrow().len() as u32
    }

    pub(super) fn address(&self) -> &str {
        &self.config.address
    }

    pub(super) fn window_ms(&self) -> u64 {
        self.config.window.as_millis() as u64
    }

    /// Facts about the server; `None` while there was no connection.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.get().map(|(facts, _)| facts)
    }

    /// Whether somebody should look at the settings again.
    pub(super) fn is_look_due(&self) -> bool {
        self.facts.get().is_none_or(|(_, at)| at.elapsed() >= LOOK_PAUSE)
    }

    pub(super) fn note(&self, facts: Facts) {
        self.facts.set(Some((facts, Instant::now())));
    }

    /// A connection, which others use as well.
    ///
    /// Errors: [`StoreError::Unreachable`] and [`StoreError::Unopenable`]; nothing was sent.
    pub(super) async fn acquire(&self) -> Result<Rc<Link>, StoreError> {
        loop {
            let changed = self.changed.notified();
            match self.choose(Instant::now()) {
                Choice::Use(link) => return Ok(link),
                Choice::Connect(at) => return self.connect(at).await,
                Choice::Wait => changed.await,
                Choice::Down => {
                    return Err(StoreError::Unreachable {
                        detail: self.last_refusal.borrow().clone(),
                    });
                }
            }
        }
    }

    /// Sends commands together; an answer for each, none of which is an error.
    pub(super) async fn ask(&self, asked: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let link = self.acquire().await?;
        link.ask(asked).await.map_err(Fault::into_store)
    }

    /// Sends the calls of scripts that `make` writes down for a connection, once more if the server
    /// has lost its scripts. Answers may be errors of the server, but for that.
    pub(super) async fn run(&self, make: impl Fn(&Link) -> Pipeline) -> Result<Vec<Value>, Fault> {
        for _ in 0..ATTEMPTS {
            let link = self.acquire().await.map_err(Fault::Refused)?;
            let answers = link.send(&make(&link)).await?;
            let is_lost = |answer| matches!(super::connect::refusal(answer), Some(Fault::NoScript));
            if !answers.iter().any(is_lost) {
                return Ok(answers);
            }
            // It was made anew, or told to forget them: another connection loads them.
            self.leave(&link);
        }
        Err(Fault::NoScript)
    }

    /// Closes connections that nobody has used for long, and looks at the settings again.
    pub(super) async fn look_after(&self) -> Result<(), StoreError> {
        let now = Instant::now();
        for place in self.places.borrow_mut().iter_mut().skip(1) {
            if let Place::Open(link) = place
                && Rc::strong_count(link) == 1
                && now.duration_since(link.last_used.get()) >= self.config.idle_max
            {
                *place = Place::Free;
            }
        }
        let link = self.acquire().await?;
        link.look().await.map_err(Fault::into_store)?;
        self.note(link.facts.get());
        Ok(())
    }

    fn leave(&self, left: &Rc<Link>) {
        for place in self.places.borrow_mut().iter_mut() {
            if matches!(place, Place::Open(link) if Rc::ptr_eq(link, left)) {
                *place = Place::Free;
            }
        }
    }

    fn choose(&self, now: Instant) -> Choice {
        let mut places = self.places.borrow_mut();
        let (mut best, mut free, mut is_connecting) = (None::<Rc<Link>>, None, false);
        for (at, place) in places.iter_mut().enumerate() {
            if matches!(place, Place::Open(link) if link.is_closed()) {
                *place = Place::Free;
            }
            match place {
                Place::Free => free = free.or(Some(at)),
                Place::Connecting => is_connecting = true,
                Place::Open(link) => {
                    let count = Rc::strong_count(link);
                    // One more holds the best so far.
                    if best
                        .as_ref()
                        .is_none_or(|best| count < Rc::strong_count(best) - 1)
                    {
                        best = Some(link.clone());
                    }
                }
            }
        }
        let may_connect = self.retry_at.get().is_none_or(|at| now >= at);
        let connect = free.filter(|_| may_connect && !is_connecting);
        match (best, connect) {
            (Some(link), Some(at)) if Rc::strong_count(&link) > CALLS_PER_LINK as usize => {
                places[at] = Place::Connecting;
                Choice::Connect(at)
            }
            (Some(link), _) => Choice::Use(link),
            (None, Some(at)) => {
                places[at] = Place::Connecting;
                Choice::Connect(at)
            }
            (None, None) if is_connecting => Choice::Wait,
            (None, None) => Choice::Down,
        }
    }

    async fn connect(&self, at: usize) -> Result<Rc<Link>, StoreError> {
        let attempt = Attempt { links: self, at };
        let opened = Link::open(&self.config, self.encryption.as_ref()).await;
        match opened {
            Ok(link) => {
                let link = Rc::new(link);
                self.note(link.facts.get());
                self.places.borrow_mut()[at] = Place::Open(link.clone());
                self.failures.set(0);
                self.retry_at.set(None);
                drop(attempt);
                Ok(link)
            }
            Err(error) => {
                *self.last_refusal.borrow_mut() = error_text(&error);
                let pause = pause_after(self.failures.get(), RandomState::new().hash_one(at) as u32);
                self.failures.set(self.failures.get().saturating_add(1));
                self.retry_at.set(Some(Instant::now() + pause));
                drop(attempt);
                Err(error)
            }
        }
    }
}

/// The detail of an error of connecting.
fn error_text(error: &StoreError) -> String {
    match error {
        StoreError::Unreachable { detail } | StoreError::Unopenable { detail } => detail.clone(),
        other => other.to_string(),
    }
}

/// Pause before the next attempt to connect: it doubles with each failure, and spreads over its
/// second half.
fn pause_after(failures: u32, jitter: u32) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    let half = whole / 2;
    half + half.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
}

/// An attempt to connect. One that is dropped in the middle frees its place.
struct Attempt<'l> {
    links: &'l Links,
    at: usize,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let place = &mut self.links.places.borrow_mut()[self.at];
        if matches!(place, Place::Connecting) {
            *place = Place::Free;
        }
        self.links.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_spread_over_their_second_half() {
        assert_eq!(pause_after(0, 0), BACKOFF_MIN / 2);
        assert_eq!(pause_after(0, u32::MAX), BACKOFF_MIN);
        assert_eq!(pause_after(2, u32::MAX), BACKOFF_MIN * 4);
        assert_eq!(pause_after(u32::MAX, u32::MAX), BACKOFF_MAX);
    }
}
