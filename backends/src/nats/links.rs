//! The connection of one shard: many calls are under way on it, and it is opened when one needs it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::Mutex;

use super::config::Config;
use super::connect::Link;
use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::tls::Encryption;

/// Calls that a sidecar may have under way at once.
pub(super) const CALLS_MAX: u32 = 64;

/// Pauses between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The connection, or none.
#[derive(Debug)]
pub(super) struct Links {
    config: Config,
    encryption: Option<Encryption>,
    link: RefCell<Option<Rc<Link>>>,
    /// Held by whoever connects.
    connecting: Mutex<()>,
    failures: Cell<u32>,
    retry_at: Cell<Option<Instant>>,
    last_refusal: RefCell<Option<StoreError>>,
    /// The catalog whose streams these are, once it is known.
    pub(super) catalog: Cell<Option<u128>>,
    /// Number of the next message of namespaces, as far as it was seen.
    heads: RefCell<FxHashMap<NamespaceId, u64>>,
}

impl Links {
    /// No connection yet.
    pub(super) fn new(config: Config) -> Result<Rc<Links>, StoreError> {
        Ok(Rc::new(Links {
            encryption: Encryption::new(&config.tls)?,
            config,
            link: RefCell::default(),
            connecting: Mutex::new(()),
            failures: Cell::new(0),
            retry_at: Cell::new(None),
            last_refusal: RefCell::default(),
            catalog: Cell::new(None),
            heads: RefCell::default(),
        }))
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn address(&self) -> &str {
        &self.config.address
    }

    /// Number of the next message of a namespace that was seen last.
    pub(super) fn head(&self, namespace: NamespaceId) -> u64 {
        self.heads.borrow().get(&namespace).copied().unwrap_or(0)
    }

    pub(super) fn note_head(&self, namespace: NamespaceId, next: u64) {
        let mut heads = self.heads.borrow_mut();
        let head = heads.entry(namespace).or_default();
        *head = next.max(*head);
    }

    /// Connections that are open, and those in use.
    pub(super) fn connections(&self) -> (usize, usize) {
        match &*self.link.borrow() {
            Some(link) if !link.is_closed() => (1, usize::from(Rc::strong_count(link) > 1)),
            _ => (0, 0),
        }
    }

    /// Largest message with its headers, as the server says; `None` without a connection.
    pub(super) fn payload_max(&self) -> Option<usize> {
        self.current().map(|link| link.payload_max)
    }

    /// The connection, which others use as well.
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
        match Link::open(&self.config, self.encryption.as_ref()).await {
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
