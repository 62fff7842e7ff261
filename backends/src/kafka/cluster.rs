//! The cluster as one shard uses it: its clients, the namespaces that it has met, and the settings
//! of the brokers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::{Mutex, Notify};

use super::config::Config;
use super::feed::Feed;
use super::known::Ids;
use super::link::Link;
use super::marks::Marks;
use super::settings::Settings;
use super::wire;
use crate::error::StoreError;
use crate::ids::NamespaceId;

/// Calls that a sidecar may have under way at once.
pub(super) const CALLS_MAX: u32 = 64;

/// Pauses between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Time after which what nobody reads is let go.
const UNUSED_MAX: Duration = Duration::from_secs(30);

/// Pause between two looks at the brokers' settings.
const SETTINGS_PAUSE: Duration = Duration::from_secs(60);

/// The state of one shard.
pub(super) struct Cluster {
    config: Config,
    link: RefCell<Option<Rc<Link>>>,
    /// Held by whoever connects.
    connecting: Mutex<()>,
    failures: Cell<u32>,
    retry_at: Cell<Option<Instant>>,
    last_refusal: RefCell<Option<StoreError>>,
    /// The catalog whose topics these are, once it is known.
    pub(super) catalog: Cell<Option<u128>>,
    pub(super) settings: Cell<Option<Settings>>,
    settings_at: Cell<Instant>,
    pub(super) marks: Mutex<Marks>,
    /// Held by whoever hands messages to the producer, so that they keep their order.
    pub(super) turn: Mutex<()>,
    spaces: RefCell<FxHashMap<NamespaceId, Rc<Space>>>,
}

/// A namespace as this shard knows it.
pub(super) struct Space {
    pub(super) topic: String,
    pub(super) feed: Mutex<Feed>,
    pub(super) ids: RefCell<Ids>,
    /// Rung when a message that was under way is not any more.
    pub(super) settled: Notify,
    /// Offset before which all messages of this shard are in `ids`; `None` before the first look.
    pub(super) seen: Cell<Option<u64>>,
    /// Whether messages may lie after that offset of whose fate nothing is known.
    pub(super) is_unsure: Cell<bool>,
    /// First offset that is left, and the one after the last, as far as they were heard of.
    pub(super) low: Cell<u64>,
    pub(super) head: Cell<u64>,
}

impl Space {
    fn new(topic: String) -> Space {
        Space {
            topic,
            feed: Mutex::default(),
            ids: RefCell::default(),
            settled: Notify::new(),
            seen: Cell::new(None),
            is_unsure: Cell::new(false),
            low: Cell::new(0),
            head: Cell::new(0),
        }
    }

    pub(super) fn note_head(&self, head: u64) {
        self.head.set(head.max(self.head.get()));
    }
}

impl Cluster {
    /// No client yet.
    pub(super) fn new(config: Config) -> Rc<Cluster> {
        Rc::new(Cluster {
            config,
            link: RefCell::default(),
            connecting: Mutex::new(()),
            failures: Cell::new(0),
            retry_at: Cell::new(None),
            last_refusal: RefCell::default(),
            catalog: Cell::new(None),
            settings: Cell::new(None),
            settings_at: Cell::new(Instant::now()),
            marks: Mutex::default(),
            turn: Mutex::new(()),
            spaces: RefCell::default(),
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn address(&self) -> &str {
        &self.config.address
    }

    /// Topic of the marks.
    pub(super) fn own(&self) -> &str {
        &self.config.prefix
    }

    /// The topic of a namespace.
    pub(super) fn topic(&self, namespace: NamespaceId) -> String {
        wire::topic(&self.config.prefix, namespace)
    }

    /// Whether there are clients, and whether they are in use.
    pub(super) fn connections(&self) -> (usize, usize) {
        match &*self.link.borrow() {
            Some(link) if !link.is_closed() => (1, usize::from(Rc::strong_count(link) > 1)),
            _ => (0, 0),
        }
    }

    /// The namespace's state.
    pub(super) fn space(&self, namespace: NamespaceId) -> Rc<Space> {
        let mut spaces = self.spaces.borrow_mut();
        let space = spaces
            .entry(namespace)
            .or_insert_with(|| Rc::new(Space::new(self.topic(namespace))));
        space.clone()
    }

    /// Forgets a namespace.
    pub(super) fn forget(&self, namespace: NamespaceId) {
        self.spaces.borrow_mut().remove(&namespace);
    }

    /// Notes that messages of any namespace may have been stored without an answer.
    pub(super) fn note_doubt(&self) {
        for space in self.spaces.borrow().values() {
            space.is_unsure.set(true);
        }
    }

    /// Whether it is time to ask for the settings again; then it is not for a while.
    pub(super) fn is_settings_due(&self) -> bool {
        let is_due = self.settings_at.get().elapsed() > SETTINGS_PAUSE;
        if is_due {
            self.settings_at.set(Instant::now());
        }
        is_due
    }

    /// Lets go what nobody uses.
    pub(super) fn rest(&self) {
        for space in self.spaces.borrow().values() {
            if let Ok(mut feed) = space.feed.try_lock() {
                feed.rest(UNUSED_MAX);
            }
        }
    }

    /// The clients, which others use as well.
    ///
    /// Errors: [`StoreError::Unreachable`] and [`StoreError::Unopenable`]; nothing was sent.
    pub(super) async fn acquire(&self) -> Result<Rc<Link>, StoreError> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let _alone = self.connecting.lock().await;
        // Somebody else may have connected meanwhile, or tried to.
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if self.retry_at.get().is_some_and(|at| Instant::now() < at)
            && let Some(refusal) = &*self.last_refusal.borrow()
        {
            return Err(refusal.clone());
        }
        if let Some(old) = self.link.replace(None) {
            // Whoever still reads from it keeps it for a while; nothing is sent by it any more.
            old.close("it was given up");
        }
        match Link::open(&self.config).await {
            Ok(link) => {
                let link = Rc::new(link);
                self.link.replace(Some(link.clone()));
                self.failures.set(0);
                self.retry_at.set(None);
                Ok(link)
            }
            Err(error) => {
                let pause = pause_after(self.failures.get());
                self.failures.set(self.failures.get().saturating_add(1));
                self.retry_at.set(Some(Instant::now() + pause));
                self.last_refusal.replace(Some(error.clone()));
                Err(error)
            }
        }
    }

    fn current(&self) -> Option<Rc<Link>> {
        let link = self.link.borrow();
        link.as_ref().filter(|link| !link.is_closed()).cloned()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cluster")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Pause before the next attempt to connect: it doubles with each failure.
fn pause_after(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pause_after(0), BACKOFF_MIN);
        assert_eq!(pause_after(2), BACKOFF_MIN * 4);
        assert_eq!(pause_after(u32::MAX), BACKOFF_MAX);
    }
}
