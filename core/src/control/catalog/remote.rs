//! The thread that talks to the database of a shared catalog: it asks every 50 ms for what has
//! changed, carries out changes, and keeps this gateway's lease.
//!
//! ```text
//!   Catalog ── Ask ──► thread ──► PostgreSQL
//!           ◄─ News ──┘  (Changed before the Answer that it belongs to)
//! ```
//!
//! Promises: one answer for each ask, within [`ANSWER_MAX`]; what has changed comes in its order.
//! Leaves to others: what follows from it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prism_backends::{
    StoreError,
    postgres::{
        Config,
        catalog::{self, Catalog, Change, Created, Delta},
    },
};

use crate::runtime::{
    mailbox::Waker,
    threads::{self, Kind},
};

/// Pause between two looks at the database.
const POLL: Duration = Duration::from_millis(50);
/// Longest time of one question to the database; a connection that takes longer is closed.
const QUESTION_MAX: Duration = Duration::from_secs(2);
/// Longest time of an answer: the question, and what has changed.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Time for which a gateway counts as alive, and how often it says that it is.
const LEASE: Duration = Duration::from_secs(10);
const RENEWAL: Duration = Duration::from_secs(1);

/// A question to the thread.
#[derive(Debug)]
pub(super) enum Ask {
    /// Add namespaces, unless there would be more than this.
    Create(Vec<catalog::CatalogRow>, u64),
    /// Change some.
    Change(Change),
    /// Look now.
    Look,
}

/// A message of the thread.
#[derive(Debug)]
pub(super) enum News {
    /// The catalog has this number.
    Opened(u128),
    Changed(Delta),
    /// The database does not answer, in these words. Nothing is asked until it is opened again.
    Down(String),
    /// The end of the ask with this number.
    Answer(u64, Result<Created, StoreError>),
}

/// The thread's state.
struct Remote {
    catalog: Catalog,
    is_open: bool,
    /// Why it is not, as was said last; empty while it is.
    told: String,
    seen: Option<u64>,
    renew_at: Instant,
    news: SyncSender<News>,
    bell: Bell,
}

/// Wakes control when there are news.
#[derive(Debug, Clone)]
pub(super) struct Bell {
    pub(super) waker: Arc<Waker>,
    pub(super) has_rung: Arc<AtomicBool>,
}

/// Starts the thread. It ends when nobody can ask any more and the gateway ends.
///
/// # Errors
/// When the system has no thread left.
pub(super) fn spawn(
    config: Config,
    gateway: u128,
    asks: Receiver<(u64, Ask)>,
    news: SyncSender<News>,
    bell: Bell,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    threads::spawn(Kind::Catalog, None, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let local = tokio::task::LocalSet::new();
        let mut remote = Remote {
            catalog: Catalog::new(&config, gateway).map_err(io::Error::other)?,
            is_open: false,
            told: String::new(),
            seen: None,
            renew_at: Instant::now(),
            news,
            bell,
        };
        let mut next = None;
        loop {
            if threads::fault_point(Kind::Catalog) {
                return Ok(());
            }
            local.block_on(&runtime, remote.turn(next.take()));
            match asks.recv_timeout(POLL) {
                Ok(ask) => next = Some(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if remote.is_open {
            let _ = local.block_on(&runtime, within(remote.catalog.leave()));
        }
        // Where control has failed, its end is the one that explains the others.
        while !stop.load(Ordering::SeqCst) {
            thread::sleep(POLL);
        }
        Ok(())
    })
}

/// The result of a question, or that it took too long. What a lost question has done is not known.
async fn within<T>(question: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::Io {
        detail: format!("no answer within {} s", QUESTION_MAX.as_secs()),
    };
    tokio::time::timeout(QUESTION_MAX, question)
        .await
        .unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// A failure after a change was made.
fn unknown(cause: StoreError) -> StoreError {
    StoreError::Io {
        detail: cause.to_string(),
    }
}

impl Remote {
    /// Answers an ask, if there is one, and looks at what has changed.
    async fn turn(&mut self, ask: Option<(u64, Ask)>) {
        let answer = match ask {
            None => None,
            Some((number, ask)) => Some((number, self.answer(ask).await)),
        };
        let looked = self.look().await;
        if let Err(cause) = &looked {
            self.is_open = false;
            // A server that is found again may be one that must not be used.
            let why = cause.to_string();
            if self.told != why {
                self.told.clone_from(&why);
                self.say(News::Down(why));
            }
        }
        if let Some((number, result)) = answer {
            // Whoever has changed something must see it changed.
            let result = result.and_then(|created| looked.map_err(unknown).map(|()| created));
            self.say(News::Answer(number, result));
        }
    }

    async fn answer(&self, ask: Ask) -> Result<Created, StoreError> {
        if !self.is_open {
            return Err(StoreError::Unreachable {
                detail: "it is not connected".to_owned(),
            });
        }
        let done = Created::Done(Vec::new());
        match ask {
            Ask::Create(rows, max) => within(self.catalog.create(&rows, max)).await,
            Ask::Change(change) => within(self.catalog.change(&change)).await.map(|()| done),
            Ask::Look => Ok(done),
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        if !self.is_open {
            // The driver bounds the time of connecting by itself.
            let id = self.catalog.open().await?;
            // What has changed meanwhile is found by comparing all there is.
            self.seen = None;
            self.renew_at = Instant::now();
            self.say(News::Opened(id));
        }
        if Instant::now() >= self.renew_at {
            within(self.catalog.renew(LEASE)).await?;
            self.renew_at = Instant::now() + RENEWAL;
        }
        if let Some(delta) = within(self.catalog.read(self.seen)).await? {
            self.seen = Some(delta.revision);
            self.say(News::Changed(delta));
        }
        self.is_open = true;
        self.told.clear();
        Ok(())
    }

    fn say(&self, news: News) {
        // Without a receiver the gateway ends.
        let _ = self.news.send(news);
        self.bell.has_rung.store(true, Ordering::SeqCst);
        self.bell.waker.wake();
    }
}

/// The sender of asks.
pub(super) type Asks = Sender<(u64, Ask)>;
