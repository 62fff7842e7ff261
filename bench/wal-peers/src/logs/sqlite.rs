//! SQLite as a log: one table, WAL mode, `synchronous=FULL`.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::grouped::{Group, Grouped, Sink};
use super::{Failure, Log};

struct Table(Connection);

/// Opens the database, for a transaction for all records that wait.
pub(crate) fn open_grouped(path: &Path) -> Result<impl Log + use<>, Failure> {
    Ok(Grouped::new(Table(connect(path)?)))
}

/// Opens the database, for a transaction for each record. Who wins the lock is next.
pub(crate) fn open_each(path: &Path) -> Result<impl Log + use<>, Failure> {
    Ok(Each(Mutex::new(connect(path)?)))
}

fn connect(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path.join("log.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute(
        "CREATE TABLE log (number INTEGER PRIMARY KEY, record BLOB NOT NULL)",
        (),
    )?;
    connection.set_prepared_statement_cache_capacity(8);
    Ok(connection)
}

const INSERT: &str = "INSERT INTO log (record) VALUES (?1)";

struct Each(Mutex<Connection>);

impl Log for Each {
    fn append(&self, _: usize, record: &[u8]) -> Result<(), Failure> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.prepare_cached(INSERT)?.execute([record])?;
        Ok(())
    }
}

impl Sink for Table {
    fn commit(&mut self, group: &Group) -> Result<(), Failure> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            let mut start = 0;
            for end in &group.ends {
                insert.execute([&group.bytes[start..*end]])?;
                start = *end;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
