//! SQLite as a log: one table, WAL mode, `synchronous=FULL`.

use std::path::Path;

use rusqlite::Connection;

use super::Failure;
use super::grouped::{Group, Grouped, Sink};

struct Table(Connection);

/// Opens the database; `grouped`: a transaction for all records that wait, otherwise for each.
pub(crate) fn open(path: &Path, grouped: bool) -> Result<impl super::Log + use<>, Failure> {
    let connection = Connection::open(path.join("log.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute(
        "CREATE TABLE log (number INTEGER PRIMARY KEY, record BLOB NOT NULL)",
        (),
    )?;
    connection.set_prepared_statement_cache_capacity(8);
    let records_max = if grouped { usize::MAX } else { 1 };
    Ok(Grouped::new(Table(connection), records_max))
}

impl Sink for Table {
    fn commit(&mut self, group: &Group) -> Result<(), Failure> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO log (record) VALUES (?1)")?;
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
