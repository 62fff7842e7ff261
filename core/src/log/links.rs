//! Ways from a shard's log to the stores that it gives records to: SQLite's writer, and the servers
//! that keep positions.
//!
//! A namespace keeps its store for good, so its route is looked up once.

use std::sync::Arc;

use prism_backends::NamespaceId;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    call::{
        event::SyncJob,
        job::{Durabilities, WriterMessage},
    },
    runtime::mailbox::Mailbox,
};

/// How a shard's log reaches the threads around it.
#[derive(Debug, Clone)]
pub(crate) struct LogLinks {
    /// The writer of SQLite's file.
    pub(crate) store: Arc<Mailbox<WriterMessage>>,
    /// The thread that makes that file's data durable.
    pub(crate) sync: Arc<Mailbox<SyncJob>>,
    /// The servers, in the order of the configuration.
    pub(crate) servers: Vec<ServerLink>,
    /// Namespaces whose store was not configured at the start: their records wait.
    pub(crate) absent: Arc<FxHashSet<u32>>,
}

/// How a shard's log reaches a server. What is applied there is durable.
#[derive(Debug, Clone)]
pub(crate) struct ServerLink {
    pub(crate) writes: Arc<Mailbox<WriterMessage>>,
    /// Namespaces of the server.
    pub(crate) namespaces: Durabilities,
}

/// Store of a namespace, as the log sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// SQLite's file.
    File,
    /// None: the namespace's store is not configured.
    Absent,
    /// One of the servers.
    Server(usize),
}

impl Route {
    /// Place in an array with one for each route.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::File => 0,
            Self::Absent => 1,
            Self::Server(number) => 2 + number,
        }
    }
}

/// Result of sending a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is under way.
    Yes,
    /// There was nothing to send.
    Nothing,
    /// The mailbox is full; it empties.
    NoRoom,
    /// There is no store to send it to.
    NoStore,
}

/// The links, and the routes that were asked for.
#[derive(Debug)]
pub(crate) struct Routes {
    links: LogLinks,
    known: FxHashMap<u32, Route>,
}

impl Routes {
    pub(crate) fn new(links: LogLinks) -> Self {
        Self {
            links,
            known: FxHashMap::default(),
        }
    }

    /// How many routes there may be.
    pub(crate) fn count(&self) -> usize {
        Route::Server(self.links.servers.len()).index()
    }

    /// The route of a namespace.
    pub(crate) fn of(&mut self, namespace: NamespaceId) -> Route {
        if self.links.servers.is_empty() && self.links.absent.is_empty() {
            return Route::File;
        }
        let Self { links, known } = self;
        *known.entry(namespace.0).or_insert_with(|| links.find(namespace))
    }

    /// The route of a namespace that has been asked for; SQLite's file otherwise.
    pub(crate) fn known(&self, namespace: NamespaceId) -> Route {
        self.known.get(&namespace.0).copied().unwrap_or(Route::File)
    }

    /// Forgets a namespace that is gone.
    pub(crate) fn forget(&mut self, namespace: NamespaceId) {
        self.known.remove(&namespace.0);
    }

    /// Sends a message to a store.
    pub(crate) fn send(&self, route: Route, message: WriterMessage) -> Sent {
        let mailbox = match route {
            Route::File => &self.links.store,
            Route::Absent => return Sent::NoStore,
            Route::Server(number) => &self.links.servers[number].writes,
        };
        match mailbox.send(message) {
            Ok(()) => Sent::Yes,
            Err(_) => Sent::NoRoom,
        }
    }

    /// Asks for what SQLite's file has to be made durable.
    pub(crate) fn sync(&self, job: SyncJob) -> bool {
        self.links.sync.send(job).is_ok()
    }
}

impl LogLinks {
    fn find(&self, namespace: NamespaceId) -> Route {
        let has = |link: &ServerLink| {
            let namespaces = link.namespaces.read();
            namespaces.is_ok_and(|known| known.contains_key(&namespace.0))
        };
        match self.servers.iter().position(has) {
            Some(number) => Route::Server(number),
            None if self.absent.contains(&namespace.0) => Route::Absent,
            None => Route::File,
        }
    }
}
