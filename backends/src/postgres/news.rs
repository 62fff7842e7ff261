//! News of other processes: which namespaces they have written to.
//!
//! One connection of a pool listens on a channel of the server. Whoever writes what others may wait
//! for says so there after its commit, in a transaction of its own: within the first it would make
//! all commits of the database wait for each other. News may be lost with their connection, so
//! whoever waits looks by itself now and then.
//!
//! News of a queue is the number of its namespace, news of topics that and the number of the next
//! message: a reader that has seen all before it need not look.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::connect::{Fault, Link};
use super::connections::Connections;
use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::server::Written;

/// News that the connections of a pool have received.
#[derive(Debug, Default)]
pub(super) struct News {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    namespaces: FxHashMap<NamespaceId, Option<u64>>,
    bell: Option<Arc<Notify>>,
}

impl News {
    /// Takes one message of the channel.
    pub(super) fn hear(&self, payload: &str) {
        // Others may write there, too.
        let Some(Written { namespace, head }) = read(payload) else {
            return;
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.namespaces.entry(namespace).or_default();
        *known = (*known).max(head);
        if let Some(bell) = &heard.bell {
            bell.notify_one();
        }
    }

    pub(super) fn set_bell(&self, bell: Arc<Notify>) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).bell = Some(bell);
    }

    pub(super) fn take(&self) -> Vec<Written> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let written = |(namespace, head)| Written { namespace, head };
        heard.namespaces.drain().map(written).collect()
    }
}

fn read(payload: &str) -> Option<Written> {
    let (namespace, head) = match payload.split_once(' ') {
        Some((namespace, head)) => (namespace, Some(head.parse().ok()?)),
        None => (payload, None),
    };
    Some(Written {
        namespace: NamespaceId(namespace.parse().ok()?),
        head,
    })
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

    /// Lets the listeners know that queues and topics were written to.
    pub(super) async fn announce(
        self: &Rc<Connections>,
        queues: &[NamespaceId],
        topics: &[NamespaceId],
    ) -> Result<(), StoreError> {
        // The news need no disk: a crash ends the connections of those who listen, too.
        let mut statements = "BEGIN; SET LOCAL synchronous_commit = off".to_owned();
        for NamespaceId(number) in queues {
            let _ = write!(statements, "; NOTIFY prism_news, '{number}'");
        }
        for NamespaceId(number) in topics {
            let _ = write!(
                statements,
                "; SELECT pg_notify('prism_news', namespace || ' ' || next) FROM prism.counter WHERE namespace = {number}"
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_queues_and_topics_are_told_apart_and_the_words_of_others_are_not_taken() {
        let news = News::default();
        for payload in [
            "7",
            "9 41",
            "9 44",
            "9 43",
            "",
            "x",
            "9 ",
            "9 x",
            " 9",
            "4294967296",
            "-1",
            "9 1 2",
        ] {
            news.hear(payload);
        }
        let mut taken = news.take();
        taken.sort_by_key(|one| one.namespace.0);
        let written = |namespace, head| Written {
            namespace: NamespaceId(namespace),
            head,
        };
        assert_eq!(taken, [written(7, None), written(9, Some(44))]);
        assert!(news.take().is_empty());
    }
}
