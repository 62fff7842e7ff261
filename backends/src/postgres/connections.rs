//! The connections of one shard: the [pool's](super::pool) decisions, carried out.
//!
//! A connection is never closed because a caller stopped waiting: the call runs to its end on it,
//! and then it is released. So the server never has more of our sessions than places, and no answer
//! can be read by another call. Only if a call's future is dropped midway, as at the end of the
//! process, its connection is dropped with it.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::config::Config;
use super::connect::{Facts, Link};
use super::news::News;
use super::pool::{Acquired, Limits, Place, Pool};
use crate::error::StoreError;
use crate::tls::Encryption;

/// Pauses between attempts to connect.
const BACKOFF_MIN: std::time::Duration = std::time::Duration::from_millis(50);
const BACKOFF_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// Connections of one thread.
#[derive(Debug)]
pub(super) struct Connections {
    config: Config,
    encryption: Option<Encryption>,
    pool: RefCell<Pool>,
    /// Idle connections, by place.
    idle: RefCell<Vec<Option<Link>>>,
    /// Facts from the last connection made.
    facts: Cell<Option<Facts>>,
    last_refusal: RefCell<String>,
    changed: Notify,
    /// News of other processes, and the connection that listens, as long as it lives.
    pub(super) news: Arc<News>,
    listener: RefCell<Weak<()>>,
}

impl Connections {
    /// Makes a pool without connections, of at most `cap`.
    pub(super) fn new(config: Config, cap: u32) -> Result<Rc<Connections>, StoreError> {
        let limits = Limits {
            cap,
            idle_max: config.idle_max,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
        };
        Ok(Rc::new(Connections {
            encryption: Encryption::new(&config.tls)?,
            config,
            pool: RefCell::new(Pool::new(limits)),
            idle: RefCell::new((0..cap).map(|_| None).collect()),
            facts: Cell::new(None),
            last_refusal: RefCell::default(),
            changed: Notify::new(),
            news: Arc::default(),
            listener: RefCell::default(),
        }))
    }

    /// Acquires a connection for the caller alone. Waits while all are in use.
    ///
    /// Errors: [`StoreError::Unreachable`] and [`StoreError::Unopenable`]; nothing was sent.
    pub(super) async fn acquire(self: &Rc<Connections>) -> Result<Lease, StoreError> {
        loop {
            let changed = self.changed.notified();
            let acquired = self.pool.borrow_mut().acquire(Instant::now());
            match acquired {
                Acquired::Ready(place) => {
                    let link = self.idle.borrow_mut()[place.0 as usize].take();
                    match link.filter(|link| !link.is_closed()) {
                        Some(link) => return Ok(self.lease(place, link)),
                        None => self.give_up(place),
                    }
                }
                Acquired::Connect(place) => return self.connect(place).await,
                Acquired::Wait => changed.await,
                Acquired::Down { .. } => {
                    return Err(StoreError::Unreachable {
                        detail: self.last_refusal.borrow().clone(),
                    });
                }
            }
        }
    }

    /// Open connections, and those of them in use.
    pub(super) fn counts(&self) -> (usize, usize) {
        let pool = self.pool.borrow();
        (pool.open(), pool.in_use())
    }

    /// Closes connections that have been idle for long.
    pub(super) fn close_idle(&self) {
        let closed = self.pool.borrow_mut().close_idle(Instant::now());
        for place in closed {
            self.idle.borrow_mut()[place.0 as usize] = None;
        }
    }

    /// Facts about the server; `None` before the first connection.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.get()
    }

    /// Whether one of the connections listens for news.
    pub(super) fn is_listening(&self) -> bool {
        self.listener.borrow().strong_count() > 0
    }

    pub(super) fn note_listening(&self, link: &Link) {
        self.listener.replace(link.life.clone());
    }

    /// Address of the server, for messages.
    pub(super) fn address(&self) -> &str {
        &self.config.address
    }

    /// Most connections.
    pub(super) fn cap(&self) -> u32 {
        self.idle.borrow().len() as u32
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    async fn connect(self: &Rc<Connections>, place: Place) -> Result<Lease, StoreError> {
        let mut attempt = Attempt {
            connections: self,
            place: Some(place),
        };
        let opened = Link::open(&self.config, self.encryption.as_ref(), &self.news).await;
        attempt.place = None;
        match opened {
            Ok(link) => {
                self.facts.set(Some(link.facts));
                self.pool.borrow_mut().handle_connected(place);
                self.changed.notify_waiters();
                Ok(self.lease(place, link))
            }
            Err(error) => {
                *self.last_refusal.borrow_mut() = error.to_string();
                let jitter = RandomState::new().hash_one(place) as u32;
                self.pool
                    .borrow_mut()
                    .handle_failed(place, Instant::now(), jitter);
                self.changed.notify_waiters();
                Err(error)
            }
        }
    }

    fn lease(self: &Rc<Connections>, place: Place, link: Link) -> Lease {
        Lease {
            connections: self.clone(),
            place,
            link: Some(link),
            is_clean: Cell::new(true),
        }
    }

    fn give_up(&self, place: Place) {
        self.pool.borrow_mut().handle_lost(place);
        self.changed.notify_waiters();
    }
}

/// An attempt to connect. Dropping it midway frees its place.
struct Attempt<'c> {
    connections: &'c Connections,
    place: Option<Place>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.connections.give_up(place);
        }
    }
}

/// A connection leased to one call until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    connections: Rc<Connections>,
    place: Place,
    link: Option<Link>,
    /// Whether nothing is in progress: no statement unanswered, no transaction open.
    is_clean: Cell<bool>,
}

impl Lease {
    /// The connection, for statements that are all answered, and transactions that all end, before
    /// [`Lease::finish`].
    pub(super) fn begin(&self) -> &Link {
        self.is_clean.set(false);
        self.link
            .as_ref()
            .expect("a lease holds its connection until it is dropped")
    }

    /// Marks the end of the work: the connection may serve others.
    pub(super) fn finish(&self) {
        self.is_clean.set(true);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if !self.is_clean.get() || link.is_closed() {
            self.connections.give_up(self.place);
            return;
        }
        self.connections.idle.borrow_mut()[self.place.0 as usize] = Some(link);
        let mut pool = self.connections.pool.borrow_mut();
        pool.release(self.place, Instant::now());
        drop(pool);
        self.connections.changed.notify_waiters();
    }
}
