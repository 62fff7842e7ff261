//! The embedded catalog: which namespaces exist, and what is still to be done for each. One SQLite
//! file, `catalog.db`, or memory.
//!
//! ```text
//!   create ─► provisioning ─► active ─► updating ─► active
//!                  └──────────────┴──────────┴────► deleting ─► (no row)
//! ```
//!
//! Promises: the intent (a create, the beginning of an update or of a delete) is on disk when its
//! call returns, in one transaction for all namespaces that it names; ids are never used twice, so
//! data that a crash left is never seen under a new namespace; one process at a time has the file
//! open. That something *is done* is written without a sync: a power cut may forget it, and the
//! next start finds it out again. Leaves to others: the data itself. Calls block for a disk write,
//! so they belong on the control thread.
//!
//! With `catalog.url` the file is a copy of a catalog that several gateways share ([`shared`]):
//! reads are answered from it, changes go to the database first.

mod copy;
pub(crate) mod error;
mod remote;
mod schema;
mod shared;

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

pub(crate) use self::error::CatalogError;
use self::error::{Failure, classify};
use self::shared::Shared;
use crate::namespace::file::{self, FileLimits};
use crate::namespace::model::NamespaceConfig;
use crate::namespace::state::NamespaceState;

/// The catalog's file within the data directory.
pub(crate) const FILE_NAME: &str = "catalog.db";

/// The set of namespaces.
#[derive(Debug)]
pub(crate) struct Catalog {
    connection: Connection,
    /// For messages.
    place: String,
    /// The catalog of several gateways that the file is a copy of.
    shared: Option<Shared>,
}

/// One namespace as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    /// Given at creation, from 1, never given again.
    pub(crate) id: u32,
    /// Unique among the namespaces that exist.
    pub(crate) name: String,
    /// May be empty.
    pub(crate) team: String,
    /// As in the file.
    pub(crate) client_api: String,
    /// The durability that holds.
    pub(crate) durability: String,
    /// The store that serves it, for people.
    pub(crate) backend: String,
    /// The store that has its data.
    pub(crate) store: StoreRef,
    /// Nanoseconds since 1970 of the gateway's clock.
    pub(crate) create_time_ns: i64,
    /// The file as it was submitted.
    pub(crate) yaml: String,
    /// The recorded intent, until it is done.
    pub(crate) state: NamespaceState,
    /// From 1; each update makes the next one.
    pub(crate) version: u64,
    /// The file of an update that is not done yet.
    pub(crate) pending: Option<String>,
}

/// Name of a store in the catalog. One of the same name and another kind is another store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoreRef {
    /// As in the configuration; `embedded` for that one.
    pub(crate) name: String,
    /// The word for its kind in the configuration.
    pub(crate) kind: String,
}

impl fmt::Display for StoreRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} \"{}\"", self.kind, self.name)
    }
}

impl CatalogEntry {
    /// The configuration, read again from the file as it was submitted; limits that were tightened
    /// later do not apply.
    ///
    /// # Errors
    /// [`CatalogError::Entry`] when this version does not accept the file any more.
    pub(crate) fn config(&self) -> Result<NamespaceConfig, CatalogError> {
        file::parse(&self.yaml, &FileLimits::NONE).map_err(|problems| CatalogError::Entry {
            name: self.name.clone(),
            problems,
        })
    }

    /// The entry as it is when its update is done.
    pub(crate) fn updated(mut self) -> Self {
        if let Some(yaml) = self.pending.take() {
            self.yaml = yaml;
            self.version += 1;
        }
        // A file that cannot be read any more keeps the namespace out of service; see there.
        if let Ok(config) = self.config() {
            self.team = config.team;
        }
        self
    }
}

/// Outcome of [`Catalog::create`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Insert {
    /// Ids of the new namespaces, in the order of the entries.
    Done(Vec<u32>),
    /// Entries, by their position, whose names belong to namespaces in these states. Nothing was
    /// done.
    Taken(Vec<(usize, NamespaceState)>),
}

impl Catalog {
    /// Opens the catalog in `data_dir`, and makes both when they are missing.
    ///
    /// # Errors
    /// `Directory`, `Busy`, `Corrupt`, `NewerSchema` or `Store`; each says what to do.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, CatalogError> {
        Self::open_file(data_dir, FILE_NAME)
    }

    fn open_file(data_dir: &Path, name: &str) -> Result<Self, CatalogError> {
        let refuse = |error: std::io::Error| CatalogError::Directory {
            path: data_dir.to_owned(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(data_dir).map_err(refuse)?;
        // SQLite opens what it cannot write as read-only without a word, so try it with a file of
        // our own first.
        let probe = data_dir.join(".prism-write-test");
        std::fs::write(&probe, b"").map_err(refuse)?;
        std::fs::remove_file(&probe).map_err(refuse)?;
        let path = data_dir.join(name);
        let place = path.display().to_string();
        let connection = Connection::open(&path).map_err(|error| classify(&place, &error))?;
        Self::prepare(connection, place)
    }

    /// A catalog that is gone with its process.
    ///
    /// # Errors
    /// `Store`, when there is no memory.
    pub(crate) fn in_memory() -> Result<Self, CatalogError> {
        let place = "in memory".to_owned();
        let connection = Connection::open_in_memory().map_err(|error| classify(&place, &error))?;
        Self::prepare(connection, place)
    }

    fn prepare(connection: Connection, place: String) -> Result<Self, CatalogError> {
        schema::open(&connection, &place).map_err(|failure| failure.classify(&place))?;
        Ok(Self {
            connection,
            place,
            shared: None,
        })
    }

    /// Adds namespaces in the state `provisioning`: all of them, or none. They are on disk when
    /// this returns. `id`, `state`, `version` and `pending` of the given entries are ignored.
    ///
    /// # Errors
    /// `Full` when there would be more than `namespaces_max`; `Store`.
    pub(crate) fn create(
        &mut self,
        entries: &[CatalogEntry],
        namespaces_max: usize,
    ) -> Result<Insert, CatalogError> {
        if self.is_shared() {
            return self.create_shared(entries, namespaces_max);
        }
        let insert = |transaction: &Transaction<'_>| insert(transaction, entries, namespaces_max);
        self.change(insert, |outcome| matches!(outcome, Insert::Done(_)))
    }

    /// Notes that namespaces in the state `provisioning` are ready.
    ///
    /// # Errors
    /// `Store`.
    pub(crate) fn activate(&mut self, ids: &[u32]) -> Result<(), CatalogError> {
        if self.is_shared() {
            return self.activate_shared(ids);
        }
        const ACTIVATE: &str =
            "UPDATE namespaces SET state = 'active' WHERE id = ?1 AND state = 'provisioning'";
        self.note(ACTIVATE, ids)
    }

    /// Notes the file that a namespace of this version in the state `active` is to have. On disk
    /// when this returns; `false` if it is not as the caller has seen it.
    ///
    /// # Errors
    /// `Store`; of a shared catalog `Unreachable` or `Unknown`.
    pub(crate) fn begin_update(&mut self, id: u32, version: u64, yaml: &str) -> Result<bool, CatalogError> {
        if self.is_shared() {
            return self.begin_update_shared(id, version, yaml);
        }
        let begin = |transaction: &Transaction<'_>| {
            let changed = transaction.execute(
                "UPDATE namespaces SET state = 'updating', pending = ?2 \
                 WHERE id = ?1 AND state = 'active' AND version = ?3",
                params![id, yaml, version.cast_signed()],
            )?;
            Ok(changed > 0)
        };
        self.change(begin, |_| true)
    }

    /// Makes the new file of an update the one that holds; `entry` is [`CatalogEntry::updated`].
    ///
    /// # Errors
    /// `Store`.
    pub(crate) fn finish_update(&mut self, entry: &CatalogEntry) -> Result<(), CatalogError> {
        if self.is_shared() {
            return self.finish_update_shared(entry);
        }
        let finish = |transaction: &Transaction<'_>| {
            transaction.execute(
                "UPDATE namespaces SET state = 'active', yaml = ?2, pending = NULL, version = ?3, team = ?4 \
                 WHERE id = ?1 AND state = 'updating'",
                params![entry.id, entry.yaml, entry.version.cast_signed(), entry.team],
            )?;
            Ok(())
        };
        self.change_unsynced(finish)
    }

    /// Gives an update up: the file before it holds. On disk when this returns.
    ///
    /// # Errors
    /// `Store`.
    pub(crate) fn undo_update(&mut self, id: u32) -> Result<(), CatalogError> {
        if self.is_shared() {
            return self.undo_update_shared(id);
        }
        let undo = |transaction: &Transaction<'_>| {
            transaction.execute(
                "UPDATE namespaces SET state = 'active', pending = NULL WHERE id = ?1 AND state = 'updating'",
                [id],
            )?;
            Ok(())
        };
        self.change(undo, |()| true)
    }

    /// Notes that namespaces are to be deleted, whatever state they are in. On disk when this
    /// returns.
    ///
    /// # Errors
    /// `Store`.
    pub(crate) fn begin_delete(&mut self, ids: &[u32]) -> Result<(), CatalogError> {
        if self.is_shared() {
            return self.begin_delete_shared(ids);
        }
        let begin = |transaction: &Transaction<'_>| {
            let mut mark = transaction
                .prepare_cached("UPDATE namespaces SET state = 'deleting', pending = NULL WHERE id = ?1")?;
            ids.iter().try_for_each(|id| mark.execute([id]).map(drop))?;
            Ok(())
        };
        self.change(begin, |()| true)
    }

    /// Removes namespaces in the state `deleting`, whose data is gone from the store.
    ///
    /// # Errors
    /// `Store`.
    pub(crate) fn remove(&mut self, ids: &[u32]) -> Result<(), CatalogError> {
        if self.is_shared() {
            return self.remove_shared(ids);
        }
        self.note("DELETE FROM namespaces WHERE id = ?1 AND state = 'deleting'", ids)
    }

    /// The namespace of this name.
    ///
    /// # Errors
    /// `Store` or `Corrupt`.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<CatalogEntry>, CatalogError> {
        self.run(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM namespaces WHERE name = ?1"))?;
            statement.query_row([name], read_entry).optional()
        })
    }

    /// The namespace with this number.
    ///
    /// # Errors
    /// `Store` or `Corrupt`.
    pub(crate) fn entry_of(&self, id: u32) -> Result<Option<CatalogEntry>, CatalogError> {
        self.run(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM namespaces WHERE id = ?1"))?;
            statement.query_row([id], read_entry).optional()
        })
    }

    /// Up to `limit` namespaces whose names come after `after`, in the order of their names.
    ///
    /// # Errors
    /// `Store` or `Corrupt`.
    pub(crate) fn page(&self, after: &str, limit: u32) -> Result<Vec<CatalogEntry>, CatalogError> {
        self.run(|connection| {
            let query = format!("SELECT {COLUMNS} FROM namespaces WHERE name > ?1 ORDER BY name LIMIT ?2");
            let mut statement = connection.prepare_cached(&query)?;
            statement.query_map(params![after, limit], read_entry)?.collect()
        })
    }

    /// Every namespace, in the order of their names; for the start of the gateway.
    ///
    /// # Errors
    /// `Store` or `Corrupt`.
    pub(crate) fn entries(&self) -> Result<Vec<CatalogEntry>, CatalogError> {
        self.page("", u32::MAX)
    }

    /// One transaction that is on disk when this returns; undone where `keep` does not want its
    /// outcome.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
        keep: impl FnOnce(&T) -> bool,
    ) -> Result<T, CatalogError> {
        let transact = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let outcome = work(&transaction)?;
            if keep(&outcome) {
                transaction.commit()?;
            }
            Ok(outcome)
        };
        transact(&mut self.connection).map_err(|failure: Failure| failure.classify(&self.place))
    }

    /// One transaction that a power cut may undo, with the file unharmed.
    fn change_unsynced(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<(), Failure>,
    ) -> Result<(), CatalogError> {
        self.run(|connection| connection.pragma_update(None, "synchronous", "NORMAL"))?;
        let outcome = self.change(work, |()| true);
        self.run(|connection| connection.pragma_update(None, "synchronous", "EXTRA"))?;
        outcome
    }

    /// A statement about each of the namespaces, unsynced.
    fn note(&mut self, statement: &str, ids: &[u32]) -> Result<(), CatalogError> {
        self.change_unsynced(|transaction| {
            let mut statement = transaction.prepare_cached(statement)?;
            ids.iter().try_for_each(|id| statement.execute([id]).map(drop))?;
            Ok(())
        })
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, CatalogError> {
        work(&self.connection).map_err(|error| classify(&self.place, &error))
    }
}

fn insert(
    transaction: &Transaction<'_>,
    entries: &[CatalogEntry],
    namespaces_max: usize,
) -> Result<Insert, Failure> {
    let mut find = transaction.prepare_cached("SELECT state FROM namespaces WHERE name = ?1")?;
    let mut taken = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        if let Some(state) = find
            .query_row([&entry.name], |row| read_state(row, 0))
            .optional()?
        {
            taken.push((position, state));
        }
    }
    if !taken.is_empty() {
        return Ok(Insert::Taken(taken));
    }
    let count: i64 = transaction.query_row("SELECT count(*) FROM namespaces", [], |row| row.get(0))?;
    let room = namespaces_max.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    let full = |limit| {
        let asked = entries.len();
        Failure::Ours(CatalogError::Full { limit, asked })
    };
    if entries.len() > room {
        return Err(full(namespaces_max as u64));
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO namespaces (name, team, client_api, durability, backend, create_time_ns, yaml, store, store_kind, \
         state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'provisioning')",
    )?;
    let mut ids = Vec::with_capacity(entries.len());
    for entry in entries {
        insert.execute(params![
            entry.name,
            entry.team,
            entry.client_api,
            entry.durability,
            entry.backend,
            entry.create_time_ns,
            entry.yaml,
            entry.store.name,
            entry.store.kind
        ])?;
        let id = u32::try_from(transaction.last_insert_rowid());
        ids.push(id.map_err(|_| full(u64::from(u32::MAX)))?);
    }
    Ok(Insert::Done(ids))
}

const COLUMNS: &str = "id, name, team, client_api, durability, backend, create_time_ns, yaml, state, version, pending, \
                       store, store_kind";

fn read_entry(row: &Row<'_>) -> rusqlite::Result<CatalogEntry> {
    Ok(CatalogEntry {
        id: row.get(0)?,
        name: row.get(1)?,
        team: row.get(2)?,
        client_api: row.get(3)?,
        durability: row.get(4)?,
        backend: row.get(5)?,
        create_time_ns: row.get(6)?,
        yaml: row.get(7)?,
        state: read_state(row, 8)?,
        version: row.get::<_, i64>(9)?.unsigned_abs(),
        pending: row.get(10)?,
        store: StoreRef {
            name: row.get(11)?,
            kind: row.get(12)?,
        },
    })
}

fn read_state(row: &Row<'_>, column: usize) -> rusqlite::Result<NamespaceState> {
    let text: String = row.get(column)?;
    NamespaceState::parse(&text).ok_or_else(|| {
        let problem = format!("{text:?} is no state of a namespace");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, problem.into())
    })
}

#[cfg(test)]
mod tests;
