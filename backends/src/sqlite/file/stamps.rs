//! The highest stamp of the writes in the file: what a gateway stamps later must lie above it,
//! whatever its wall clock says.
//!
//! It is noted in the transaction of the write that has it, so the file never holds a write above
//! the note. To spare the other transactions the row, a step of a second is noted ahead.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::{version_bytes, version_of};
use crate::error::StoreError;
use crate::version::Version;

/// How far ahead a note reaches, in nanoseconds.
const STEP_NS: i64 = 1_000_000_000;

/// The note and what is to be noted.
#[derive(Debug)]
pub(in crate::sqlite) struct Stamps {
    /// Stamp that the file has noted.
    noted: i64,
    /// Stamp that the running transaction notes.
    noting: i64,
    /// The highest stamp of the writes that were given to the writer; at first, what earlier runs
    /// noted.
    highest: i64,
    /// Whether another store gets writes up to what is noted, which are not given to the writer.
    has_others: bool,
}

impl Stamps {
    pub(in crate::sqlite) fn load(connection: &Connection) -> Result<Stamps, StoreError> {
        let mut statement = connection.prepare(LOAD)?;
        let bytes: Option<Vec<u8>> = statement.query_row([], |row| row.get(0)).optional()?;
        let noted = match bytes {
            Some(bytes) => version_of(&bytes)?.generation_time_ns,
            None => i64::MIN,
        };
        Ok(Stamps {
            noted,
            noting: noted,
            highest: noted,
            has_others: false,
        })
    }

    /// No stamp in the file is higher.
    pub(in crate::sqlite) fn noted(&self) -> i64 {
        self.noted
    }

    /// The next transaction holds writes with stamps up to this one.
    pub(in crate::sqlite) fn expect(&mut self, stamp_ns: i64) {
        self.highest = self.highest.max(stamp_ns);
    }

    /// Another store gets writes with stamps up to this one, and on to what is noted ahead.
    pub(in crate::sqlite) fn expect_elsewhere(&mut self, stamp_ns: i64) {
        self.expect(stamp_ns);
        self.has_others = true;
    }

    /// Within the transaction: notes what it holds, if that is not noted already.
    pub(in crate::sqlite) fn note(&mut self, connection: &Connection) -> Result<(), StoreError> {
        if self.highest > self.noted {
            self.write(connection, self.highest.saturating_add(STEP_NS))?;
        }
        Ok(())
    }

    /// Within a transaction at the end: takes back what was noted ahead.
    pub(in crate::sqlite) fn note_exactly(&mut self, connection: &Connection) -> Result<(), StoreError> {
        if self.is_ahead() {
            self.write(connection, self.highest)?;
        }
        Ok(())
    }

    /// Whether more is noted than there was need for.
    pub(in crate::sqlite) fn is_ahead(&self) -> bool {
        self.noted > self.highest && !self.has_others
    }

    /// After a transaction.
    pub(in crate::sqlite) fn settle(&mut self, committed: bool) {
        if committed {
            self.noted = self.noting;
        } else {
            self.noting = self.noted;
        }
    }

    fn write(&mut self, connection: &Connection, stamp_ns: i64) -> Result<(), StoreError> {
        let version = Version {
            generation_time_ns: stamp_ns,
            token_hash: 0,
        };
        let mut statement = connection.prepare_cached(NOTE)?;
        statement.execute(params![version_bytes(version)])?;
        self.noting = stamp_ns;
        Ok(())
    }
}

const LOAD: &str = "SELECT highest FROM stamp";
const NOTE: &str = "INSERT INTO stamp (one, highest) VALUES (1, ?1)
    ON CONFLICT (one) DO UPDATE SET highest = excluded.highest";
