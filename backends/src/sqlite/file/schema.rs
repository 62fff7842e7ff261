//! How connections to the file are opened, whose file it is, and what SQLite's errors mean to us.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use super::formats::{self, FORMAT};
use crate::error::StoreError;
use crate::sqlite::Options;
pub(in crate::sqlite) use crate::version::{VersionBytes, version_bytes, version_of};

/// `kind` of a remembered delete.
pub(in crate::sqlite) const TOMBSTONE: i64 = -1;

/// Holds the right to be the one process that writes the file. Given up when dropped, or when the
/// process ends.
#[derive(Debug)]
pub(in crate::sqlite) struct FileLock {
    _file: File,
}

impl FileLock {
    pub(in crate::sqlite) fn take(path: &Path) -> Result<FileLock, StoreError> {
        if let Some(directory) = path.parent()
            && !directory.as_os_str().is_empty()
            && !directory.is_dir()
        {
            return Err(unopenable(path, "its directory does not exist"));
        }
        let lock_path = sibling(path, "-lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| unopenable(&lock_path, &error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(FileLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy {
                detail: format!("{} is in use by another process or store", path.display()),
            }),
            Err(TryLockError::Error(error)) => Err(unopenable(&lock_path, &error.to_string())),
        }
    }
}

/// Opens the connection that makes and changes the file, and makes or checks its schema.
pub(in crate::sqlite) fn open_writer(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = connect(path, flags, options)?;
    let for_path = |error| about_path(path, error);
    check_identity(path, &connection)?;
    // Before anything is written, which would make SQLite move pages here and now.
    configure(&connection, options.writer_cache_bytes).map_err(for_path)?;
    if is_empty(&connection).map_err(for_path)? {
        pragma(&connection, &format!("page_size = {PAGE_SIZE}")).map_err(for_path)?;
        pragma(&connection, "auto_vacuum = INCREMENTAL").map_err(for_path)?;
    }
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(for_path)?;
    if mode != "wal" {
        return Err(unopenable(
            path,
            &format!("its file system cannot hold a write-ahead file (mode {mode})"),
        ));
    }
    if let Some(bytes) = options.file_bytes_max {
        let pages = (bytes / u64::from(PAGE_SIZE)).max(1);
        pragma(&connection, &format!("max_page_count = {pages}")).map_err(for_path)?;
    }
    make_schema(&mut connection).map_err(for_path)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(in crate::sqlite) fn open_reader(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options)?;
    configure(&connection, options.reader_cache_bytes)?;
    pragma(&connection, "query_only = ON")?;
    pragma(&connection, &format!("mmap_size = {}", options.reader_mmap_bytes))?;
    Ok(connection)
}

/// Opens the connection that moves pages from the write-ahead file.
pub(in crate::sqlite) fn open_checkpointer(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, options)?;
    configure(&connection, 64 * 1024)?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags, options: &Options) -> Result<Connection, StoreError> {
    // Each connection belongs to one thread at a time (the types are Send, not Sync): SQLite need
    // not lock it.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| about_path(path, error))?;
    connection.busy_timeout(Duration::from_millis(u64::from(options.busy_timeout_ms)))?;
    // Without the stability guarantee SQLite, built with STAT4, plans a statement anew whenever
    // other values are bound to it: most of the time of a get went there.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The last to close would move all pages and remove the write-ahead file, whether or not a sync
    // has failed. The checkpointer does that, which knows: see `Checkpointer::finish`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

fn configure(connection: &Connection, cache_bytes: usize) -> rusqlite::Result<()> {
    // Negative is KiB.
    pragma(connection, &format!("cache_size = -{}", cache_bytes / 1024))?;
    // A power cut may lose the last commits, which `eventual` and `best-effort` allow, but cannot
    // harm the file: the write-ahead file is synced before a checkpoint, the database file before
    // the former is used anew.
    pragma(connection, "synchronous = NORMAL")?;
    // Checkpoints are the checkpointer's, never the writer's in the middle of a batch.
    pragma(connection, "wal_autocheckpoint = 0")?;
    pragma(connection, "temp_store = MEMORY")?;
    Ok(())
}

fn pragma(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA {text}"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Refuses a file that is not ours, or of a newer program, before anything in it is changed.
fn check_identity(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let number = |text: &str| {
        connection
            .query_row(text, [], |row| row.get::<_, i64>(0))
            .map_err(|error| about_path(path, error))
    };
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let format = number("PRAGMA user_version")?;
    if application != APPLICATION_ID && tables > 0 {
        let detail = format!("{} is a SQLite database of another program", path.display());
        return Err(StoreError::WrongFormat { detail });
    }
    if format > FORMAT {
        let detail = format!(
            "{} has format {format}, this program knows formats up to {FORMAT}: use a newer program",
            path.display()
        );
        return Err(StoreError::WrongFormat { detail });
    }
    Ok(())
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA page_count", [], |row| Ok(row.get::<_, i64>(0)? == 0))
}

fn make_schema(connection: &mut Connection) -> rusqlite::Result<()> {
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format == FORMAT {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    // A new file is an old one of format 0: it goes the same way as those that are brought up to
    // date.
    for step in formats::STEPS.iter().skip(usize::try_from(format).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
    ))?;
    transaction.commit()
}

/// "PRSM".
const APPLICATION_ID: i64 = 0x5052_534d;
/// A put copies its page into the write-ahead file, so smaller is better as long as a row fits:
/// with 256-byte values a put at 2 KiB writes half of what it does at 4 KiB and costs an eighth
/// less; at 1 KiB its row overflows into a second page and it costs twice as much.
pub(in crate::sqlite) const PAGE_SIZE: u32 = 2048;
const STATEMENTS_MAX: usize = 64;

/// The path with something appended to its file name.
pub(in crate::sqlite) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(in crate::sqlite) fn unopenable(path: &Path, why: &str) -> StoreError {
    StoreError::Unopenable {
        detail: format!("{}: {why}", path.display()),
    }
}

/// As the conversion below, naming the file.
fn about_path(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.display();
    match StoreError::from(error) {
        StoreError::Unopenable { detail } => StoreError::Unopenable {
            detail: format!("{path}: {detail}"),
        },
        StoreError::WrongFormat { detail } => StoreError::WrongFormat {
            detail: format!("{path}: {detail}"),
        },
        StoreError::Busy { detail } => StoreError::Busy {
            detail: format!("{path}: {detail}"),
        },
        StoreError::Corrupt { detail } => StoreError::Corrupt {
            detail: format!("{path}: {detail}"),
        },
        other => other,
    }
}

/// The blob in a column; what else may lie there is damage.
pub(in crate::sqlite) fn blob<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8], StoreError> {
    match row.get_ref(column)?.as_blob() {
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(StoreError::Corrupt {
            detail: format!("column {column}: {error}"),
        }),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        let detail = error.to_string();
        let Some(failure) = error.sqlite_error() else {
            return StoreError::Internal { detail };
        };
        match failure.code {
            ErrorCode::DiskFull => StoreError::Full { detail },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                StoreError::Busy { detail }
            }
            ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted => {
                StoreError::Io { detail }
            }
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
                StoreError::Unopenable { detail }
            }
            ErrorCode::NotADatabase => StoreError::WrongFormat { detail },
            ErrorCode::DatabaseCorrupt => StoreError::Corrupt { detail },
            _ => StoreError::Internal { detail },
        }
    }
}
