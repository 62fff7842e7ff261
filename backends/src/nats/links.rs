//! The connection of one shard: many calls are under way on it, and it is opened when one needs it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::config::Config;
use super::connect::Link;
use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::single::Single;
use crate::tls::Encryption;

/// Calls that a sidecar may have under way at once.
pub(super) const CALLS_MAX: u32 = 64;

/// The connection, or none.
#[derive(Debug)]
pub(super) struct Links {
    config: Config,
    encryption: Option<Encryption>,
    link: Single<Link>,
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
            link: Single::default(),
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
        self.link.counts()
    }

    /// Largest message with its headers, as the server says; `None` without a connection.
    pub(super) fn payload_max(&self) -> Option<usize> {
        self.link.current().map(|link| link.payload_max)
    }

    /// The connection, which others use as well.
    ///
    /// Errors: [`StoreError::Unreachable`] and [`StoreError::Unopenable`]; nothing was sent.
    pub(super) async fn acquire(&self) -> Result<Rc<Link>, StoreError> {
        let open = async || Link::open(&self.config, self.encryption.as_ref()).await;
        self.link.acquire(open).await
    }
}
