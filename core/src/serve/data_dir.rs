//! The data directory: its lock, the catalog, the embedded store and the log in it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
};

use prism_backends::{NamespaceId, kind::StoreKind, postgres, server::RawConfig, sqlite};

use super::{ServeError, mailboxes::Mailboxes};
use crate::{
    config::{CatalogOptions, ServeLimits, ServeOptions, StoreTls},
    control::{
        catalog::{Catalog, CatalogEntry, CatalogError},
        send_opened,
    },
    log::{
        self,
        keeper::Keepers,
        open::{Elsewhere, LogDirectory, OpenError, Opened},
    },
    namespace::{Durability, state::NamespaceState},
    runtime::mailbox::Waker,
    wal_key::read_key_file,
};

/// The locked data directory and the catalog.
pub(super) struct DataDir {
    /// Held as long as the gateway runs; `None`: nothing is on disk.
    pub(super) lock: Option<File>,
    pub(super) catalog: Catalog,
    /// The thread that follows a shared catalog.
    pub(super) follower: Option<JoinHandle<()>>,
}

/// Makes and locks the data directory and opens the catalog in it, or the one that several gateways
/// share. A gateway with only memory stores leaves no trace on disk. `waker` and `stop` are
/// control's.
pub(super) fn open(
    options: &ServeOptions,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
) -> Result<DataDir, ServeError> {
    if !options.has_disk() {
        let catalog = Catalog::in_memory().map_err(|cause| ServeError(cause.to_string()))?;
        return Ok(DataDir {
            lock: None,
            catalog,
            follower: None,
        });
    }
    let directory = options.data_dir.as_path();
    let lock = Some(lock_directory(directory)?);
    let refused = |cause: CatalogError| ServeError(cause.to_string());
    let (catalog, follower) = match &options.catalog.url {
        None => (Catalog::open(directory).map_err(refused)?, None),
        Some(url) => {
            let config = shared_catalog(&options.catalog, url)?;
            let (catalog, thread) = Catalog::open_shared(directory, config, waker, stop).map_err(refused)?;
            (catalog, Some(thread))
        }
    };
    Ok(DataDir {
        lock,
        catalog,
        follower,
    })
}

fn shared_catalog(options: &CatalogOptions, url: &str) -> Result<postgres::Config, ServeError> {
    let raw = RawConfig {
        url: url.to_owned(),
        credentials_file: options.credentials_file.clone(),
        tls: options.tls.as_ref().map(StoreTls::entry),
        pool_max: Some(1),
        ..RawConfig::default()
    };
    postgres::Config::check(&raw).map_err(|cause| ServeError(format!("catalog.{cause}")))
}

fn lock_directory(directory: &Path) -> Result<File, ServeError> {
    let unusable = |cause: &io::Error| {
        ServeError(format!(
            "cannot use the data directory {}: {cause}; make it writable, or choose another with --data-dir",
            directory.display()
        ))
    };
    fs::create_dir_all(directory).map_err(|cause| unusable(&cause))?;
    let path = directory.join("LOCK");
    let mut lock = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|cause| unusable(&cause))?;
    match lock.try_lock() {
        // The lock is what matters; the number in it helps people to find the process.
        Ok(()) => lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map(|()| lock)
            .map_err(|cause| unusable(&cause)),
        Err(TryLockError::WouldBlock) => Err(ServeError(format!(
            "another gateway{} uses the data directory {}; stop it, or choose another with --data-dir",
            holder(&mut lock),
            directory.display()
        ))),
        Err(TryLockError::Error(cause)) => Err(unusable(&cause)),
    }
}

/// The text ` (process 4711)` from the lock's file, or nothing.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    // A gateway that has just taken the lock may not have written its number yet.
    let _ = lock.take(32).read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(process) => format!(" (process {process})"),
        Err(_) => String::new(),
    }
}

/// Time for which a delete must be remembered, since an older write may still come: one client's
/// clock may lag by the allowed drift, another's lead by as much.
pub(super) fn tombstone_window_ms(limits: &ServeLimits) -> u64 {
    u64::try_from(limits.clock_drift_max.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
}

pub(super) fn open_store(options: &ServeOptions) -> Result<Option<sqlite::Parts>, ServeError> {
    if !options.has_disk() {
        return Ok(None);
    }
    let path = options.data_dir.join("keyvalue.db");
    sqlite::open(
        &path,
        sqlite::Options {
            tombstone_window_ms: tombstone_window_ms(&options.limits),
            ..sqlite::Options::default()
        },
    )
    .map(Some)
    .map_err(|cause| ServeError(cause.to_string()))
}

/// Result of opening the log.
pub(super) enum OpenLog {
    /// It is open, but for the lanes of these shards.
    Open(LogDirectory, Vec<usize>),
    /// It can be opened with this many shards, those of the last run; the reason.
    AsBefore(u16, String),
}

/// Opens the log if there is one, or a namespace needs one, and sends the shards their lanes.
/// Returns the shards whose lanes must not be used, too.
pub(super) fn open_log(
    options: &ServeOptions,
    mailboxes: &Mailboxes,
    catalog: &Catalog,
    parts: &mut sqlite::Parts,
    keepers: &Keepers,
) -> Result<OpenLog, ServeError> {
    let key = match &options.wal_key_file {
        None => None,
        Some(path) => Some(read_key_file(path).map_err(|cause| ServeError(cause.to_string()))?),
    };
    let events = mailboxes.log_events();
    let mut log = LogDirectory::new(
        &options.data_dir,
        options.wal,
        key,
        events.clone(),
        keepers.clone(),
    );
    let entries = catalog.entries().map_err(|cause| ServeError(cause.to_string()))?;
    let through_log = |entry: &&CatalogEntry| {
        let kind = StoreKind::of_name(&entry.store.kind);
        let is_logged = kind.is_some_and(|kind| kind == StoreKind::Sqlite || kind.keeps_positions());
        is_logged && entry.durability != Durability::BestEffort.as_str()
    };
    let in_sqlite = |entry: &&CatalogEntry| entry.store.kind == StoreKind::Sqlite.name();
    let kept: Vec<_> = entries
        .iter()
        .filter(|entry| entry.state != NamespaceState::Deleting)
        .collect();
    let is_needed = kept.iter().any(through_log);
    // The store may have lost the note of its latest namespaces in a power cut; the catalog and the
    // log have not.
    let ids: Vec<_> = kept
        .iter()
        .filter(|entry| in_sqlite(entry))
        .map(|entry| NamespaceId(entry.id))
        .collect();
    parts
        .writer
        .create_namespaces(&ids)
        .map_err(|cause| ServeError(format!("the namespaces of the catalog: {cause}")))?;
    let is_strong = |entry: &CatalogEntry| entry.durability == Durability::Strong.as_str();
    let strong = kept.iter().filter(|entry| in_sqlite(entry) && is_strong(entry));
    let elsewhere = entries
        .iter()
        .filter(|entry| !in_sqlite(entry))
        .map(|entry| match is_strong(entry) {
            true => (entry.id, Elsewhere::Waits),
            false => (entry.id, Elsewhere::Has),
        });
    let mut store = log::open::Store {
        writer: &mut parts.writer,
        checkpointer: &mut parts.checkpointer,
        strong: strong.map(|entry| entry.id).collect(),
        elsewhere: elsewhere.collect(),
        known: entries.iter().map(|entry| entry.id).collect(),
    };
    log.identify(&mut store).map_err(ServeError)?;
    let mut held = Vec::new();
    let exists = log.exists().map_err(ServeError)?;
    if is_needed || exists || store.knows_a_log().map_err(ServeError)? {
        let opened = match log.open(&mut store) {
            Ok(opened) => opened,
            Err(OpenError::AsBefore { shards, why }) => return Ok(OpenLog::AsBefore(shards, why)),
            Err(OpenError::Failed(sentence)) => return Err(ServeError(sentence)),
        };
        let is_held = |(shard, opened): (usize, &Opened)| matches!(opened, Opened::Held(_)).then_some(shard);
        held = opened.iter().enumerate().filter_map(is_held).collect();
        send_opened(&events, opened);
    }
    Ok(OpenLog::Open(log, held))
}
