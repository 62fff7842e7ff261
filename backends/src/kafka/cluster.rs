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
use crate::single::Single;

/// Calls that a sidecar may have under way at once.
pub(super) const CALLS_MAX: u32 = 64;

/// Time after which what nobody reads is let go.
const UNUSED_MAX: Duration = Duration::from_secs(30);

/// Pause between two looks at the brokers' settings.
const SETTINGS_PAUSE: Duration = Duration::from_secs(60);

/// The state of one shard.
pub(super) struct Cluster {
    config: Config,
    link: Single<Link>,
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
            link: Single::default(),
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
        self.link.counts()
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
        self.link.acquire(async || Link::open(&self.config).await).await
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
