//! The embedded catalog: which namespaces exist. One SQLite file, `catalog.db`, or memory.
//!
//! Promises: what [`Catalog::create`] and [`Catalog::delete`] have returned survives a crash and a power cut
//! (`synchronous=EXTRA`: it is written so rarely that the sync costs nobody anything); ids are never used
//! twice, so data that a crash left behind is never seen under a new namespace; one process at a time has the
//! file open. Leaves to others: the data itself. Calls block for a disk write, so they belong on the control
//! thread.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};

use crate::namespace::file::{self, FileLimits};
use crate::namespace::model::NamespaceConfig;
use crate::namespace::problem::Problem;

/// The catalog's file within the data directory.
pub(crate) const FILE_NAME: &str = "catalog.db";
/// Version of the schema that this code reads and writes.
pub(crate) const SCHEMA_VERSION: i32 = STEPS.len() as i32;
/// Marks the file as a Prism catalog in SQLite's header ("Prsm").
const APPLICATION_ID: i32 = 0x5072_736D;

/// The set of namespaces.
#[derive(Debug)]
pub(crate) struct Catalog {
    connection: Connection,
    /// For messages.
    place: String,
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
}

/// Name of a store in the catalog. One of the same name and another kind is another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreRef {
    /// As in the configuration; `embedded` for that one.
    pub(crate) name: String,
    /// The word for its kind in the configuration.
    pub(crate) kind: String,
}

impl CatalogEntry {
    /// The configuration, read again from the file as it was submitted; limits that were tightened later do
    /// not apply.
    ///
    /// # Errors
    /// [`CatalogError::Entry`] when this version does not accept the file any more.
    pub(crate) fn config(&self) -> Result<NamespaceConfig, CatalogError> {
        file::parse(&self.yaml, &FileLimits::NONE).map_err(|problems| CatalogError::Entry {
            name: self.name.clone(),
            problems,
        })
    }
}

/// Why the catalog could not be opened or did not do as asked.
#[derive(Debug)]
pub(crate) enum CatalogError {
    /// The directory cannot be made or written. The operator's to mend.
    Directory {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another process has the catalog open.
    Busy {
        /// The file.
        place: String,
    },
    /// The file is not a catalog, or damaged.
    Corrupt {
        /// The file.
        place: String,
        /// What SQLite said.
        reason: String,
    },
    /// The file was written by a newer version.
    NewerSchema {
        /// The file.
        place: String,
        /// Its schema version.
        found: i32,
    },
    /// The name is taken. The caller's fault; do not retry.
    AlreadyExists {
        /// The name.
        name: String,
    },
    /// There are as many namespaces as allowed, or ids are used up.
    Full {
        /// How many that is.
        limit: u64,
    },
    /// The stored file of one namespace is not accepted by this version.
    Entry {
        /// The namespace.
        name: String,
        /// Why.
        problems: Vec<Problem>,
    },
    /// SQLite or the disk below it failed.
    Store {
        /// The file.
        place: String,
        /// What SQLite said.
        reason: String,
    },
}

impl fmt::Display for CatalogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, reason } => {
                write!(
                    formatter,
                    "cannot use the data directory {}: {reason}; choose another with --data-dir",
                    path.display()
                )
            }
            Self::Busy { place } => {
                write!(
                    formatter,
                    "the catalog {place} is in use by another process; stop it or choose another --data-dir"
                )
            }
            Self::Corrupt { place, reason } => {
                write!(
                    formatter,
                    "the catalog {place} is damaged or not a catalog ({reason}); restore it from a backup or move it away"
                )
            }
            Self::NewerSchema { place, found } => write!(
                formatter,
                "the catalog {place} has schema version {found}, this program knows up to {SCHEMA_VERSION}; use a newer prism"
            ),
            Self::AlreadyExists { name } => write!(formatter, "Namespace \"{name}\" already exists"),
            Self::Full { limit } => write!(
                formatter,
                "there are {limit} namespaces already, and that is the limit"
            ),
            Self::Entry { name, problems } => {
                let first = problems.first().map_or(String::new(), ToString::to_string);
                write!(
                    formatter,
                    "the stored file of namespace \"{name}\" is not accepted any more: {first}"
                )
            }
            Self::Store { place, reason } => write!(
                formatter,
                "the catalog {place} cannot be read or written: {reason}"
            ),
        }
    }
}

impl std::error::Error for CatalogError {}

impl Catalog {
    /// Opens the catalog in `data_dir`, and makes both when they are missing.
    ///
    /// # Errors
    /// `Directory`, `Busy`, `Corrupt`, `NewerSchema` or `Store`; each says what to do.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, CatalogError> {
        let refuse = |error: std::io::Error| CatalogError::Directory {
            path: data_dir.to_owned(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(data_dir).map_err(refuse)?;
        // SQLite opens what it cannot write as read-only without a word, so try it with a file of our own
        // first.
        let probe = data_dir.join(".prism-write-test");
        std::fs::write(&probe, b"").map_err(refuse)?;
        std::fs::remove_file(&probe).map_err(refuse)?;
        let path = data_dir.join(FILE_NAME);
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
        let catalog = Self { connection, place };
        catalog.open_schema().map_err(|failure| match failure {
            Failure::Sqlite(error) => classify(&catalog.place, &error),
            Failure::Ours(error) => error,
        })?;
        Ok(catalog)
    }

    /// Takes the file for this process, checks it, and makes the tables where there are none.
    fn open_schema(&self) -> Result<(), Failure> {
        let connection = &self.connection;
        connection.busy_timeout(std::time::Duration::from_millis(500))?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "DELETE")?;
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        // The exclusive lock is taken by the first transaction and then kept for as long as the process
        // lives.
        connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")?;
        let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            self.make_steps(&STEPS)?;
            return Ok(());
        }
        let place = self.place.clone();
        if application != APPLICATION_ID {
            let reason = "it is an SQLite file of another program".to_owned();
            return Err(Failure::Ours(CatalogError::Corrupt { place, reason }));
        }
        if version > SCHEMA_VERSION {
            return Err(Failure::Ours(CatalogError::NewerSchema {
                place,
                found: version,
            }));
        }
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" || version < 1 {
            return Err(Failure::Ours(CatalogError::Corrupt {
                place,
                reason: verdict,
            }));
        }
        self.make_steps(&STEPS[version as usize..])
    }

    /// Makes these last steps of the schema, all or none.
    fn make_steps(&self, steps: &[&str]) -> Result<(), Failure> {
        if !steps.is_empty() {
            let steps = steps.concat();
            self.connection.execute_batch(&format!(
                "BEGIN EXCLUSIVE; {steps} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            ))?;
        }
        Ok(())
    }

    /// Adds a namespace. It is on disk when this returns.
    ///
    /// `id` of the given entry is ignored; the entry that comes back has its new one.
    ///
    /// # Errors
    /// `AlreadyExists`; `Full` when there are `namespaces_max` already; `Store`.
    pub(crate) fn create(
        &mut self,
        entry: &CatalogEntry,
        namespaces_max: usize,
    ) -> Result<CatalogEntry, CatalogError> {
        let place = self.place.clone();
        self.insert(entry, namespaces_max)
            .map_err(|failure| match failure {
                Failure::Ours(error) => error,
                Failure::Sqlite(error) => classify(&place, &error),
            })
    }

    fn insert(&mut self, entry: &CatalogEntry, namespaces_max: usize) -> Result<CatalogEntry, Failure> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let taken: bool = transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM namespaces WHERE name = ?1)",
            [&entry.name],
            |row| row.get(0),
        )?;
        if taken {
            return Err(Failure::Ours(CatalogError::AlreadyExists {
                name: entry.name.clone(),
            }));
        }
        let count: i64 = transaction.query_row("SELECT count(*) FROM namespaces", [], |row| row.get(0))?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= namespaces_max {
            return Err(Failure::Ours(CatalogError::Full {
                limit: namespaces_max as u64,
            }));
        }
        transaction.execute(
            "INSERT INTO namespaces (name, team, client_api, durability, backend, create_time_ns, yaml, store, store_kind) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                entry.name,
                entry.team,
                entry.client_api,
                entry.durability,
                entry.backend,
                entry.create_time_ns,
                entry.yaml,
                entry.store.name,
                entry.store.kind
            ],
        )?;
        let Ok(id) = u32::try_from(transaction.last_insert_rowid()) else {
            return Err(Failure::Ours(CatalogError::Full {
                limit: u64::from(u32::MAX),
            }));
        };
        transaction.commit()?;
        Ok(CatalogEntry { id, ..entry.clone() })
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

    /// Removes a namespace and notes that its data has yet to be removed; `None` if there is none.
    ///
    /// # Errors
    /// `Store`.
    pub(crate) fn delete(&mut self, name: &str) -> Result<Option<CatalogEntry>, CatalogError> {
        let place = self.place.clone();
        let mut remove = || {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let query = format!("DELETE FROM namespaces WHERE name = ?1 RETURNING {COLUMNS}");
            let removed = transaction.query_row(&query, [name], read_entry).optional()?;
            if let Some(entry) = &removed {
                transaction.execute(
                    "INSERT INTO dropped (id, name, store, store_kind) VALUES (?1, ?2, ?3, ?4)",
                    params![entry.id, entry.name, entry.store.name, entry.store.kind],
                )?;
            }
            transaction.commit()?;
            Ok(removed)
        };
        remove().map_err(|error: rusqlite::Error| classify(&place, &error))
    }

    /// Deleted namespaces whose data may still be in their store: the work that a crash interrupted.
    ///
    /// # Errors
    /// `Store` or `Corrupt`.
    pub(crate) fn dropped(&self) -> Result<Vec<(u32, StoreRef)>, CatalogError> {
        self.run(|connection| {
            let query = "SELECT id, store, store_kind FROM dropped ORDER BY id";
            let mut statement = connection.prepare_cached(query)?;
            statement
                .query_map([], |row| Ok((row.get(0)?, read_store(row, 1)?)))?
                .collect()
        })
    }

    /// Notes that the data of a deleted namespace is gone from the store.
    ///
    /// # Errors
    /// `Store`.
    pub(crate) fn forget(&mut self, id: u32) -> Result<(), CatalogError> {
        self.run(|connection| {
            connection
                .execute("DELETE FROM dropped WHERE id = ?1", [id])
                .map(|_| ())
        })
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, CatalogError> {
        work(&self.connection).map_err(|error| classify(&self.place, &error))
    }
}

/// The schema, step by step. A step that was released is never changed: old files get those that they lack.
const STEPS: [&str; 2] = [FIRST, STORES];

/// AUTOINCREMENT is what keeps the id of a deleted row from coming back.
const FIRST: &str = "
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    team TEXT NOT NULL,
    client_api TEXT NOT NULL,
    durability TEXT NOT NULL,
    backend TEXT NOT NULL,
    create_time_ns INTEGER NOT NULL,
    yaml TEXT NOT NULL
) STRICT;
CREATE TABLE dropped (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
";

/// A catalog on disk came with the embedded SQLite store and no other.
const STORES: &str = "
ALTER TABLE namespaces ADD COLUMN store TEXT NOT NULL DEFAULT 'embedded';
ALTER TABLE namespaces ADD COLUMN store_kind TEXT NOT NULL DEFAULT 'sqlite';
ALTER TABLE dropped ADD COLUMN store TEXT NOT NULL DEFAULT 'embedded';
ALTER TABLE dropped ADD COLUMN store_kind TEXT NOT NULL DEFAULT 'sqlite';
";

const COLUMNS: &str =
    "id, name, team, client_api, durability, backend, create_time_ns, yaml, store, store_kind";

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
        store: read_store(row, 8)?,
    })
}

/// The two columns of a store, from `first` on.
fn read_store(row: &Row<'_>, first: usize) -> rusqlite::Result<StoreRef> {
    Ok(StoreRef {
        name: row.get(first)?,
        kind: row.get(first + 1)?,
    })
}

enum Failure {
    Sqlite(rusqlite::Error),
    Ours(CatalogError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What an SQLite error means to the operator.
fn classify(place: &str, error: &rusqlite::Error) -> CatalogError {
    let (place, reason) = (place.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => CatalogError::Busy { place },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => CatalogError::Corrupt { place, reason },
        Some(_) => CatalogError::Store { place, reason },
        // No code: a row did not hold what the schema says.
        None => CatalogError::Corrupt { place, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> CatalogEntry {
        CatalogEntry {
            id: 0,
            name: name.into(),
            team: "t".into(),
            client_api: "keyvalue".into(),
            durability: "best-effort".into(),
            backend: "memory".into(),
            store: StoreRef {
                name: "cache".into(),
                kind: "memory".into(),
            },
            create_time_ns: 1_700_000_000_000_000_001,
            yaml: format!("namespace: {name}\nclient_api: keyvalue\n"),
        }
    }

    #[test]
    fn survives_a_restart_and_never_gives_an_id_twice() {
        let dir = tempfile::tempdir().unwrap();
        let first = {
            let mut catalog = Catalog::open(dir.path()).unwrap();
            let first = catalog.create(&entry("b"), 10).unwrap();
            let second = catalog.create(&entry("a"), 10).unwrap();
            assert_eq!((first.id, second.id), (1, 2));
            assert_eq!(catalog.delete("a").unwrap().map(|entry| entry.id), Some(2));
            assert_eq!(catalog.delete("a").unwrap(), None);
            first
        };
        let mut catalog = Catalog::open(dir.path()).unwrap();
        assert_eq!(catalog.entries().unwrap(), std::slice::from_ref(&first));
        assert_eq!(catalog.entry("b").unwrap(), Some(first));
        assert_eq!(catalog.entry("a").unwrap(), None);
        let dropped = catalog.dropped().unwrap();
        assert_eq!(dropped, [(2, entry("a").store)], "its data still has to go");
        catalog.forget(2).unwrap();
        assert!(catalog.dropped().unwrap().is_empty());
        assert_eq!(catalog.create(&entry("a"), 10).unwrap().id, 3);
        assert_eq!(catalog.entry("a").unwrap().unwrap().config().unwrap().name, "a");
    }

    #[test]
    fn a_catalog_of_the_first_schema_gets_the_steps_that_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        old.execute_batch(&format!(
            "{FIRST} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;
             INSERT INTO namespaces VALUES (7, 'old', 't', 'keyvalue', 'strong', 'SQLite table \"old\"', 1, 'x');
             INSERT INTO dropped VALUES (6, 'gone');"
        ))
        .unwrap();
        drop(old);
        let embedded = StoreRef {
            name: "embedded".into(),
            kind: "sqlite".into(),
        };
        // Twice: the second time there is nothing to do.
        for _ in 0..2 {
            let catalog = Catalog::open(dir.path()).unwrap();
            let found = catalog.entry("old").unwrap().unwrap();
            assert_eq!((found.id, found.store), (7, embedded.clone()));
            assert_eq!(catalog.dropped().unwrap(), [(6, embedded.clone())]);
        }
        let mut catalog = Catalog::open(dir.path()).unwrap();
        let created = catalog.create(&entry("new"), 10).unwrap();
        assert_eq!(created.id, 8, "a number is not given twice");
        assert_eq!(catalog.entry("new").unwrap(), Some(created));
    }

    #[test]
    fn names_are_unique_and_the_count_is_limited() {
        let mut catalog = Catalog::in_memory().unwrap();
        catalog.create(&entry("a"), 2).unwrap();
        let error = catalog.create(&entry("a"), 2).unwrap_err();
        assert_eq!(error.to_string(), "Namespace \"a\" already exists");
        let second = catalog.create(&entry("b"), 2).unwrap();
        assert_eq!(second.id, 2, "a refusal uses no id up");
        assert!(matches!(
            catalog.create(&entry("c"), 2),
            Err(CatalogError::Full { limit: 2 })
        ));
        // A taken name is said before the limit.
        assert!(matches!(
            catalog.create(&entry("b"), 2),
            Err(CatalogError::AlreadyExists { .. })
        ));
    }

    #[test]
    fn pages_follow_the_names() {
        let mut catalog = Catalog::in_memory().unwrap();
        for name in ["d", "a", "c", "b"] {
            catalog.create(&entry(name), 10).unwrap();
        }
        let names = |page: Vec<CatalogEntry>| page.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(names(catalog.page("", 2).unwrap()), ["a", "b"]);
        assert_eq!(names(catalog.page("b", 2).unwrap()), ["c", "d"]);
        assert_eq!(names(catalog.page("d", 2).unwrap()), [] as [&str; 0]);
    }

    #[test]
    fn a_second_process_is_told_that_the_file_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let first = Catalog::open(dir.path()).unwrap();
        let error = Catalog::open(dir.path()).unwrap_err();
        assert!(matches!(error, CatalogError::Busy { .. }), "{error}");
        drop(first);
        Catalog::open(dir.path()).unwrap();
    }

    #[test]
    fn bad_files_and_directories_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let error = Catalog::open(&dir.path().join("file")).unwrap_err();
        assert!(
            error.to_string().contains("choose another with --data-dir"),
            "{error}"
        );

        let path = dir.path().join(FILE_NAME);
        std::fs::write(
            &path,
            b"this is not a database, but a text that is long enough to be read as a header of one........",
        )
        .unwrap();
        assert!(matches!(
            Catalog::open(dir.path()),
            Err(CatalogError::Corrupt { .. })
        ));

        std::fs::remove_file(&path).unwrap();
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE other (a)")
            .unwrap();
        let error = Catalog::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("another program"), "{error}");

        std::fs::remove_file(&path).unwrap();
        drop(Catalog::open(dir.path()).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .unwrap();
        let error = Catalog::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("use a newer prism"), "{error}");
    }

    #[test]
    fn a_damaged_page_is_found_when_the_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(dir.path()).unwrap();
        for index in 0..200 {
            catalog
                .create(&entry(&format!("namespace-{index}")), 1_000)
                .unwrap();
        }
        drop(catalog);
        let path = dir.path().join(FILE_NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        for page in bytes.chunks_mut(4096).skip(2) {
            page[..64].fill(0xA5);
        }
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(
            Catalog::open(dir.path()),
            Err(CatalogError::Corrupt { .. })
        ));
    }
}
