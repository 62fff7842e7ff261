//! A catalog that several gateways share, as control uses it: a copy on this gateway's disk, which
//! answers reads, and the database, which every change goes to first.
//!
//! Promises: a change that returned is in the database and in the copy; where the database does not
//! answer, a call waits for it once and the next ones are refused at once, until it answers again.
//! A change counts only while this gateway holds the namespace's change; whoever has lost it gets
//! [`CatalogError::Superseded`] and learns by [`Catalog::take_touched`] what became of it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prism_backends::{
    StoreError,
    postgres::{
        Config,
        catalog::{CatalogRow, Change, Created},
    },
};

use super::{
    Catalog, CatalogEntry, CatalogError, Insert, copy,
    remote::{self, ANSWER_MAX, Ask, Asks, Bell, News},
};
use crate::{namespace::state::NamespaceState, runtime::mailbox::Waker};

/// News that wait for control, at the most; then the thread waits.
const NEWS_MAX: usize = 256;
/// How long the start waits for the database.
const START_MAX: Duration = Duration::from_secs(10);

/// The way to the database.
pub(super) struct Shared {
    asks: Asks,
    news: Receiver<News>,
    /// Set when there are news.
    has_news: Arc<AtomicBool>,
    next: u64,
    gateway: u128,
    /// Number of the catalog; `None` before it was opened for the first time.
    catalog: Option<u128>,
    /// Why the database does not answer.
    down: Option<String>,
    /// Who carries out the changes that are not done.
    holders: HashMap<u32, u128>,
    touched: BTreeMap<u32, String>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("gateway", &self.gateway)
            .field("down", &self.down)
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// Opens a shared catalog, and the copy of it in `data_dir`. Without the database the copy is
    /// served, if there is one. Returns the thread that follows the database, too.
    ///
    /// # Errors
    /// As for [`Catalog::open`]; `Refused` with a sentence for the operator.
    pub(crate) fn open_shared(
        data_dir: &Path,
        config: Config,
        waker: Arc<Waker>,
        stop: Arc<AtomicBool>,
    ) -> Result<(Self, JoinHandle<()>), CatalogError> {
        check_own(data_dir)?;
        let address = config.address.clone();
        let mut catalog = Self::open_file(data_dir, copy::FILE_NAME)?;
        let identity = catalog.identity(random()?)?;
        let (asks, questions) = channel();
        let (sender, news) = sync_channel(NEWS_MAX);
        let bell = Bell {
            waker,
            has_rung: Arc::default(),
        };
        let has_news = bell.has_rung.clone();
        let thread = remote::spawn(config, identity.gateway, questions, sender, bell, stop);
        let thread = thread.map_err(|cause| CatalogError::Refused {
            reason: format!("cannot start a thread: {cause}"),
        })?;
        catalog.shared = Some(Shared {
            asks,
            news,
            has_news,
            next: 1,
            gateway: identity.gateway,
            catalog: identity.catalog,
            down: None,
            holders: HashMap::new(),
            touched: BTreeMap::new(),
        });
        catalog.await_first(&address)?;
        Ok((catalog, thread))
    }

    /// Waits until the copy is as the database is, or until it is known to be out of reach.
    fn await_first(&mut self, address: &str) -> Result<(), CatalogError> {
        let deadline = Instant::now() + START_MAX;
        let reason = loop {
            match self.next_news(deadline) {
                Some(news) => {
                    let is_first = matches!(news, News::Changed(_));
                    self.handle_event(news)?;
                    if is_first {
                        return Ok(());
                    }
                    if let Some(reason) = self.shared.as_ref().and_then(|shared| shared.down.clone()) {
                        break reason;
                    }
                }
                None => break format!("no answer within {} s", START_MAX.as_secs()),
            }
        };
        if self
            .shared
            .as_ref()
            .is_some_and(|shared| shared.catalog.is_some())
        {
            tracing::error!(
                address,
                reason,
                "the shared catalog cannot be used; the gateway serves what its copy holds"
            );
            return Ok(());
        }
        Err(CatalogError::Refused {
            reason: format!(
                "catalog.url: the catalog at {address} cannot be used, and this gateway has no copy of it yet: {reason}; \
                 look at the database and its rights, or take catalog.url out"
            ),
        })
    }

    /// Whether several gateways share it.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Number of the shared catalog.
    pub(crate) fn shared_id(&self) -> Option<u128> {
        self.shared.as_ref().and_then(|shared| shared.catalog)
    }

    /// This gateway's number among those that share it.
    pub(crate) fn gateway(&self) -> Option<u128> {
        self.shared.as_ref().map(|shared| shared.gateway)
    }

    /// Whether [`Catalog::take_touched`] may have something to take.
    pub(crate) fn has_news(&self) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|shared| shared.has_news.load(Ordering::SeqCst) || !shared.touched.is_empty())
    }

    /// Whether this gateway carries out what is not done of a namespace.
    pub(crate) fn is_held_here(&self, id: u32) -> bool {
        self.shared
            .as_ref()
            .is_none_or(|shared| shared.holders.get(&id) == Some(&shared.gateway))
    }

    /// Makes the copy as new as the database is, if that answers.
    ///
    /// # Errors
    /// `Unreachable`, `Unknown` or `Store`.
    pub(crate) fn refresh(&mut self) -> Result<(), CatalogError> {
        match self.is_shared() {
            true => self.ask(Ask::Look).map(drop),
            false => Ok(()),
        }
    }

    /// Takes the namespaces that others, or this gateway, have changed since the last time: their
    /// numbers, and the names that they have or had.
    ///
    /// # Errors
    /// `Store`: the copy cannot be written.
    pub(crate) fn take_touched(&mut self) -> Result<BTreeMap<u32, String>, CatalogError> {
        if let Some(shared) = &self.shared {
            shared.has_news.store(false, Ordering::SeqCst);
        }
        while let Some(news) = self
            .shared
            .as_ref()
            .and_then(|shared| shared.news.try_recv().ok())
        {
            self.handle_event(news)?;
        }
        let shared = self.shared.as_mut();
        Ok(shared.map_or_else(BTreeMap::new, |shared| std::mem::take(&mut shared.touched)))
    }

    fn handle_event(&mut self, news: News) -> Result<(), CatalogError> {
        match news {
            News::Opened(id) => {
                let Some(shared) = &mut self.shared else {
                    return Ok(());
                };
                if shared.down.take().is_some() {
                    tracing::info!("the shared catalog answers again");
                }
                shared.catalog = Some(id);
                self.become_copy_of(id)
            }
            News::Changed(delta) => {
                let touched = self.follow(&delta)?;
                let Some(shared) = &mut self.shared else {
                    return Ok(());
                };
                if delta.is_whole {
                    shared.holders.clear();
                }
                for id in &delta.removed {
                    shared.holders.remove(id);
                }
                for row in &delta.rows {
                    match row.holder {
                        Some(holder) => shared.holders.insert(row.id, holder),
                        None => shared.holders.remove(&row.id),
                    };
                }
                shared.touched.extend(touched);
                Ok(())
            }
            News::Down(reason) => {
                if let Some(shared) = &mut self.shared {
                    tracing::error!(
                        reason,
                        "the shared catalog does not answer; namespaces are served as before"
                    );
                    shared.down = Some(reason);
                }
                Ok(())
            }
            // To an ask that nobody waits for any more.
            News::Answer(..) => Ok(()),
        }
    }

    fn next_news(&self, deadline: Instant) -> Option<News> {
        let shared = self.shared.as_ref()?;
        let patience = deadline.saturating_duration_since(Instant::now());
        shared.news.recv_timeout(patience).ok()
    }

    /// Asks the database, and takes in all that has changed up to the answer.
    fn ask(&mut self, ask: Ask) -> Result<Created, CatalogError> {
        while let Some(news) = self
            .shared
            .as_ref()
            .and_then(|shared| shared.news.try_recv().ok())
        {
            self.handle_event(news)?;
        }
        let Some(shared) = &mut self.shared else {
            return Ok(Created::Done(Vec::new()));
        };
        if let Some(reason) = &shared.down {
            let reason = reason.clone();
            return Err(CatalogError::Unreachable { reason });
        }
        let number = shared.next;
        shared.next += 1;
        let lost = |reason: &str| CatalogError::Unknown {
            reason: reason.to_owned(),
        };
        if shared.asks.send((number, ask)).is_err() {
            return Err(lost("its thread has ended"));
        }
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            match self.next_news(deadline) {
                Some(News::Answer(answered, result)) if answered == number => {
                    return result.map_err(of_store);
                }
                Some(news) => self.handle_event(news)?,
                None => return Err(lost("no answer in time")),
            }
        }
    }

    fn change_shared(&mut self, change: Change) -> Result<(), CatalogError> {
        self.ask(Ask::Change(change)).map(drop)
    }

    /// Checks that namespaces are as a change was to leave them.
    fn expect(&self, ids: &[u32], is_so: impl Fn(Option<&CatalogEntry>) -> bool) -> Result<(), CatalogError> {
        for id in ids {
            if !is_so(self.entry_of(*id)?.as_ref()) {
                return Err(CatalogError::Superseded);
            }
        }
        Ok(())
    }

    pub(super) fn create_shared(
        &mut self,
        entries: &[CatalogEntry],
        namespaces_max: usize,
    ) -> Result<Insert, CatalogError> {
        let rows = entries.iter().map(row_of).collect();
        match self.ask(Ask::Create(rows, namespaces_max as u64))? {
            Created::Done(ids) => Ok(Insert::Done(ids)),
            Created::Taken(taken) => {
                // A state of a newer program is at least one in which the name is taken.
                let state = |text: &str| NamespaceState::parse(text).unwrap_or(NamespaceState::Active);
                let taken = taken.into_iter().map(|(place, text)| (place, state(&text)));
                Ok(Insert::Taken(taken.collect()))
            }
            Created::Full => Err(CatalogError::Full {
                limit: namespaces_max as u64,
                asked: entries.len(),
            }),
        }
    }

    pub(super) fn activate_shared(&mut self, ids: &[u32]) -> Result<(), CatalogError> {
        self.change_shared(Change::Activate(ids.to_vec()))?;
        self.expect(ids, |entry| {
            entry.is_some_and(|entry| entry.state == NamespaceState::Active)
        })
    }

    pub(super) fn begin_update_shared(
        &mut self,
        id: u32,
        version: u64,
        yaml: &str,
    ) -> Result<bool, CatalogError> {
        self.change_shared(Change::BeginUpdate {
            id,
            version,
            yaml: yaml.to_owned(),
        })?;
        let entry = self.entry_of(id)?;
        let is_begun = entry.is_some_and(|entry| entry.state == NamespaceState::Updating);
        Ok(is_begun && self.is_held_here(id))
    }

    pub(super) fn finish_update_shared(&mut self, entry: &CatalogEntry) -> Result<(), CatalogError> {
        self.change_shared(Change::FinishUpdate {
            id: entry.id,
            version: entry.version,
            yaml: entry.yaml.clone(),
            team: entry.team.clone(),
        })?;
        self.expect(&[entry.id], |found| {
            found.is_some_and(|found| found.version >= entry.version)
        })
    }

    pub(super) fn undo_update_shared(&mut self, id: u32) -> Result<(), CatalogError> {
        self.change_shared(Change::UndoUpdate(id))?;
        self.expect(&[id], |entry| {
            entry.is_some_and(|entry| entry.state == NamespaceState::Active)
        })
    }

    pub(super) fn begin_delete_shared(&mut self, ids: &[u32]) -> Result<(), CatalogError> {
        self.change_shared(Change::BeginDelete(ids.to_vec()))?;
        self.expect(ids, |entry| {
            entry.is_none_or(|entry| entry.state == NamespaceState::Deleting)
        })
    }

    pub(super) fn remove_shared(&mut self, ids: &[u32]) -> Result<(), CatalogError> {
        self.change_shared(Change::Remove(ids.to_vec()))?;
        self.expect(ids, |entry| entry.is_none())
    }
}

/// Refuses a directory whose own catalog has namespaces: nobody would serve them.
fn check_own(data_dir: &Path) -> Result<(), CatalogError> {
    if !data_dir.join(super::FILE_NAME).exists() {
        return Ok(());
    }
    let own = Catalog::open(data_dir)?.entries()?.len();
    if own == 0 {
        return Ok(());
    }
    Err(CatalogError::Refused {
        reason: format!(
            "catalog.url: the data directory {} has {own} namespaces in a catalog of its own, which would not be served; \
             take catalog.url out, or choose another directory with --data-dir",
            data_dir.display()
        ),
    })
}

fn of_store(error: StoreError) -> CatalogError {
    let reason = error.to_string();
    match error {
        StoreError::Io { .. } => CatalogError::Unknown { reason },
        _ => CatalogError::Unreachable { reason },
    }
}

fn row_of(entry: &CatalogEntry) -> CatalogRow {
    CatalogRow {
        name: entry.name.clone(),
        team: entry.team.clone(),
        client_api: entry.client_api.clone(),
        durability: entry.durability.clone(),
        backend: entry.backend.clone(),
        store: entry.store.name.clone(),
        store_kind: entry.store.kind.clone(),
        create_time_ns: entry.create_time_ns,
        yaml: entry.yaml.clone(),
        ..CatalogRow::default()
    }
}

fn random() -> Result<u128, CatalogError> {
    let mut bytes = [0; 16];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(filled) if filled == bytes.len() => Ok(u128::from_ne_bytes(bytes)),
        _ => Err(CatalogError::Refused {
            reason: "the system gives no random numbers".to_owned(),
        }),
    }
}
