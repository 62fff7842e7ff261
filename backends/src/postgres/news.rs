//! News of other processes: which namespaces they have written to.
//!
//! One connection of a pool listens on a channel of the server. Whoever writes what others may wait
//! for says so there after its commit, in a transaction of its own: within the first it would make
//! all commits of the database wait for each other. News may be lost with their connection, so
//! whoever waits looks by itself now and then.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashSet;
use tokio::sync::Notify;

use super::connect::{Fault, Link};
use super::connections::Connections;
use crate::error::StoreError;
use crate::ids::NamespaceId;

/// News that the connections of a pool have received.
#[derive(Debug, Default)]
pub(super) struct News {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    namespaces: FxHashSet<NamespaceId>,
    bell: Option<Arc<Notify>>,
}

impl News {
    /// Takes one message of the channel.
    pub(super) fn hear(&self, payload: &str) {
        // Others may write there, too.
        let Ok(number) = payload.parse() else { return };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.namespaces.insert(NamespaceId(number));
        if let Some(bell) = &heard.bell {
            bell.notify_one();
        }
    }

    pub(super) fn set_bell(&self, bell: Arc<Notify>) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).bell = Some(bell);
    }

    pub(super) fn take(&self) -> Vec<NamespaceId> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.namespaces.drain().collect()
    }
}

impl Connections {
    /// Lets a connection listen, unless one does.
    pub(super) async fn keep_listening(self: &Rc<Connections>) -> Result<(), StoreError> {
        if self.is_listening() {
            return Ok(());
        }
        self.on_one(async |link: &Link| {
            link.run("LISTEN prism_news").await?;
            self.note_listening(link);
            Ok(())
        })
        .await
    }

    /// Lets the listeners know that namespaces were written to.
    pub(super) async fn announce(
        self: &Rc<Connections>,
        namespaces: &[NamespaceId],
    ) -> Result<(), StoreError> {
        // The news need no disk: a crash ends the connections of those who listen, too.
        let mut statements = "BEGIN; SET LOCAL synchronous_commit = off".to_owned();
        for NamespaceId(number) in namespaces {
            let _ = write!(statements, "; NOTIFY prism_news, '{number}'");
        }
        statements += "; COMMIT";
        self.on_one(async |link: &Link| Ok(link.run(&statements).await?))
            .await
    }

    /// Runs statements on a leased connection, each a transaction of its own.
    pub(super) async fn on_one<T>(
        self: &Rc<Connections>,
        ask: impl AsyncFnOnce(&Link) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let lease = self.acquire().await?;
        let result = ask(lease.begin()).await;
        match &result {
            Err(fault) if fault.is_of_connection() => {}
            _ => lease.finish(),
        }
        Ok(result?)
    }
}
