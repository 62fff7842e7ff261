//! The tables of the catalog, and how a file of an older program comes to have them.
//!
//! ```text
//! namespaces (id, name, team, client_api, durability, backend, create_time_ns, yaml,
//!             store, store_kind,                                       since schema 2
//!             state, version, pending)                                 since schema 3
//! dropped    (id, name, store, store_kind)                             up to schema 2
//! ```
//!
//! `state` is the recorded intent: `provisioning`, `updating` and `deleting` say what is still to
//! be done in the store. `pending` is the file that an update is to put in the place of `yaml`.

use rusqlite::Connection;

use super::error::{CatalogError, Failure};

/// Version of the schema that this code reads and writes.
pub(crate) const SCHEMA_VERSION: i32 = STEPS.len() as i32;
/// Marks the file as a Prism catalog in SQLite's header ("Prsm").
const APPLICATION_ID: i32 = 0x5072_736D;

/// Statements that make the next schema of each: the first of an empty file, the second of the
/// first, and so on. A step that was once released is never changed.
const STEPS: [&str; 3] = [SCHEMA_1, SCHEMA_2, SCHEMA_3];

/// AUTOINCREMENT is what keeps the id of a deleted row from coming back.
const SCHEMA_1: &str = "
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
const SCHEMA_2: &str = "
ALTER TABLE namespaces ADD COLUMN store TEXT NOT NULL DEFAULT 'embedded';
ALTER TABLE namespaces ADD COLUMN store_kind TEXT NOT NULL DEFAULT 'sqlite';
ALTER TABLE dropped ADD COLUMN store TEXT NOT NULL DEFAULT 'embedded';
ALTER TABLE dropped ADD COLUMN store_kind TEXT NOT NULL DEFAULT 'sqlite';
";

/// A namespace that was noted as dropped may have a successor of the same name, so its row
/// gets a name that nobody can ask for.
const SCHEMA_3: &str = "
ALTER TABLE namespaces ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE namespaces ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE namespaces ADD COLUMN pending TEXT;
INSERT INTO namespaces
    (id, name, team, client_api, durability, backend, create_time_ns, yaml, store, store_kind, state)
    SELECT id, '#' || id, '', '', 'best-effort', '', 0, '', store, store_kind, 'deleting' FROM dropped;
DROP TABLE dropped;
CREATE INDEX namespaces_unfinished ON namespaces (id) WHERE state <> 'active';
";

/// Takes the file for this process, checks it, and makes the tables that it lacks.
pub(super) fn open(connection: &Connection, place: &str) -> Result<(), Failure> {
    connection.busy_timeout(std::time::Duration::from_millis(500))?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "synchronous", "EXTRA")?;
    let found: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        check(connection, place, found, application)?;
    }
    // Nothing is written before it is known whose file it is. A commit is one sync with a
    // write-ahead file, and three or four with a rollback journal.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The exclusive lock is taken by the first transaction and then kept for as long as the process
    // lives.
    connection.execute_batch("BEGIN EXCLUSIVE")?;
    if found < SCHEMA_VERSION {
        for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
            connection.execute_batch(step)?;
        }
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}

fn check(connection: &Connection, place: &str, found: i32, application: i32) -> Result<(), Failure> {
    let place = place.to_owned();
    if application != APPLICATION_ID {
        let reason = "it is an SQLite file of another program".to_owned();
        return Err(Failure::Ours(CatalogError::Corrupt { place, reason }));
    }
    if found > SCHEMA_VERSION {
        return Err(Failure::Ours(CatalogError::NewerSchema { place, found }));
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" || found < 1 {
        return Err(Failure::Ours(CatalogError::Corrupt {
            place,
            reason: verdict,
        }));
    }
    Ok(())
}
