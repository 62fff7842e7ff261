//! Notes of the store for a log in front of it: how far each stream of records has been applied,
//! and the records that can never be. Both are noted in the transaction that they belong to, so
//! that a crash leaves both or neither.
//!
//! A stream is a number to the store and a position is a number within it; what they stand for, and
//! when a stream is no longer needed, is the caller's to know.

use rusqlite::{Connection, Row, params};

use super::schema::blob;
use super::transaction::in_transaction;
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::{
    DEAD_LETTER_BYTES_PER_NAMESPACE_MAX, DEAD_LETTER_REASON_BYTES_MAX, DEAD_LETTERS_MAX,
    DEAD_LETTERS_PER_NAMESPACE_MAX, PAGE_BYTES_MAX,
};
use crate::sqlite::Writer;

/// How far a stream of ordered records has been applied for one namespace: up to and including
/// `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPosition {
    /// Which stream.
    pub stream: u32,
    /// Namespace whose records are meant.
    pub namespace: NamespaceId,
    /// Number of the last record that was applied; at most 2^63 - 1.
    pub position: u64,
}

/// A record that can never be applied, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Where it stands. Everything up to here counts as applied once it is buried.
    pub position: StreamPosition,
    /// Why it cannot be applied, for an operator. Cut to 1,024 bytes.
    pub reason: &'a str,
    /// The record as the caller has it.
    pub record: &'a [u8],
}

/// A buried record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedDeadLetter {
    /// Number in this store; later letters have greater ones, and none is used twice.
    pub number: u64,
    /// Where it stood.
    pub position: StreamPosition,
    /// When it was buried.
    pub time: UnixMillis,
    /// Why it could not be applied.
    pub reason: String,
    /// The record as the caller had it.
    pub record: Vec<u8>,
}

impl Writer {
    /// All noted positions, by stream and namespace.
    pub fn positions(&self) -> Result<Vec<StreamPosition>, StoreError> {
        let mut statement = self.connection.prepare_cached(POSITIONS)?;
        let mut rows = statement.query([])?;
        let mut positions = Vec::new();
        while let Some(row) = rows.next()? {
            positions.push(position_of(row, 0)?);
        }
        Ok(positions)
    }

    /// Forgets all positions of a stream; its dead letters stay. For a stream whose records are
    /// gone for good: they would otherwise be applied again.
    pub fn forget_stream(&mut self, stream: u32) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM applied WHERE stream = ?1")?
            .execute([stream])?;
        Ok(())
    }

    /// Keeps a record that can never be applied and notes its position, in one transaction; the
    /// letter's number. The same record at the same position again gets the number it has. If its
    /// namespace was dropped, and its data with it, nothing is kept: the position is noted and the
    /// number is 0.
    ///
    /// Errors: [`StoreError::Full`] beyond [`DEAD_LETTERS_MAX`], or its namespace's share
    /// ([`DEAD_LETTERS_PER_NAMESPACE_MAX`], [`DEAD_LETTER_BYTES_PER_NAMESPACE_MAX`]); nothing was
    /// noted.
    pub fn bury(&mut self, letter: &DeadLetter<'_>, now: UnixMillis) -> Result<u64, StoreError> {
        let connection = &self.connection;
        let is_dropped = self.state.is_dropped(letter.position.namespace);
        in_transaction(connection, &self.shared, || {
            let moved = note(connection, &[letter.position])?;
            if is_dropped {
                return Ok(0);
            }
            if !moved && let Some(number) = known(connection, letter)? {
                return Ok(number);
            }
            check_room(connection, letter.position.namespace)?;
            insert(connection, letter, now)
        })
    }

    /// Buried records with numbers above `after`, in their order: of one namespace, or of all that
    /// were not dropped. At most `limit`, and no more than fit 4 MiB, but at least one if there is
    /// one.
    pub fn dead_letters(
        &self,
        namespace: Option<NamespaceId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<OwnedDeadLetter>, StoreError> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let mut letters = Vec::new();
        let mut bytes = 0;
        let mut statement = self.connection.prepare_cached(match namespace {
            Some(_) => DEAD_LETTERS_OF,
            None => DEAD_LETTERS,
        })?;
        let mut rows = match namespace {
            Some(NamespaceId(namespace)) => statement.query(params![after, limit, namespace])?,
            None => statement.query(params![after, limit])?,
        };
        while let Some(row) = rows.next()? {
            let letter = letter_of(row)?;
            bytes += letter.record.len() + letter.reason.len();
            if bytes > PAGE_BYTES_MAX as usize && !letters.is_empty() {
                break;
            }
            letters.push(letter);
        }
        Ok(letters)
    }

    /// One buried record; `None` if there is none of that number.
    pub fn dead_letter(&self, number: u64) -> Result<Option<OwnedDeadLetter>, StoreError> {
        let Ok(number) = i64::try_from(number) else {
            return Ok(None);
        };
        let mut statement = self.connection.prepare_cached(DEAD_LETTER)?;
        let mut rows = statement.query([number])?;
        rows.next()?.map(letter_of).transpose()
    }

    /// Removes a buried record for good; whether there was one.
    pub fn drop_dead_letter(&mut self, number: u64) -> Result<bool, StoreError> {
        let Ok(number) = i64::try_from(number) else {
            return Ok(false);
        };
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM dead_letter WHERE number = ?1")?;
        Ok(statement.execute([number])? > 0)
    }

    /// How many records of each namespace are buried; those without any, and dropped ones, are left
    /// out.
    pub fn dead_letter_counts(&self) -> Result<Vec<(NamespaceId, u64)>, StoreError> {
        let mut statement = self.connection.prepare_cached(DEAD_LETTER_COUNTS)?;
        let mut rows = statement.query([])?;
        let mut counts = Vec::new();
        while let Some(row) = rows.next()? {
            counts.push((NamespaceId(row.get(0)?), row.get::<_, i64>(1)?.max(0) as u64));
        }
        Ok(counts)
    }
}

/// Notes positions within a running transaction; whether any of them moved.
pub(in crate::sqlite) fn note(
    connection: &Connection,
    positions: &[StreamPosition],
) -> Result<bool, StoreError> {
    if positions.is_empty() {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached(NOTE)?;
    let mut moved = 0;
    for position in positions {
        let StreamPosition {
            stream, namespace, ..
        } = *position;
        moved += statement.execute(params![stream, namespace.0, stored(*position)?])?;
    }
    Ok(moved > 0)
}

/// SQLite's integers are signed.
fn stored(position: StreamPosition) -> Result<i64, StoreError> {
    i64::try_from(position.position).map_err(|_| {
        let reason = format!("must be at most {}, is {}", i64::MAX, position.position);
        StoreError::invalid("position", reason)
    })
}

/// The number of this very letter, if it is buried already.
fn known(connection: &Connection, letter: &DeadLetter<'_>) -> Result<Option<u64>, StoreError> {
    let StreamPosition {
        stream, namespace, ..
    } = letter.position;
    let mut statement = connection.prepare_cached(KNOWN)?;
    let position = stored(letter.position)?;
    let mut rows = statement.query(params![namespace.0, stream, position, letter.record])?;
    match rows.next()? {
        Some(row) => Ok(Some(row.get::<_, i64>(0)? as u64)),
        None => Ok(None),
    }
}

fn check_room(connection: &Connection, namespace: NamespaceId) -> Result<(), StoreError> {
    let full = |what: String| Err(StoreError::Full { detail: what });
    let all: i64 = connection
        .prepare_cached("SELECT count(*) FROM dead_letter")?
        .query_row([], |row| row.get(0))?;
    if all >= DEAD_LETTERS_MAX as i64 {
        return full(format!("{all} dead letters; look at them and drop some"));
    }
    let (own, bytes): (i64, i64) = connection
        .prepare_cached(DEAD_LETTERS_KEPT)?
        .query_row([namespace.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if own >= DEAD_LETTERS_PER_NAMESPACE_MAX as i64 || bytes >= DEAD_LETTER_BYTES_PER_NAMESPACE_MAX as i64 {
        let NamespaceId(number) = namespace;
        let detail =
            format!("namespace {number} has {own} dead letters of {bytes} bytes; look at them and drop some");
        return full(detail);
    }
    Ok(())
}

fn insert(connection: &Connection, letter: &DeadLetter<'_>, now: UnixMillis) -> Result<u64, StoreError> {
    let StreamPosition {
        stream, namespace, ..
    } = letter.position;
    let mut end = letter.reason.len().min(DEAD_LETTER_REASON_BYTES_MAX);
    while !letter.reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut statement = connection.prepare_cached(BURY)?;
    let number = statement.insert(params![
        stream,
        namespace.0,
        stored(letter.position)?,
        now.0.min(i64::MAX as u64) as i64,
        &letter.reason[..end],
        letter.record
    ])?;
    Ok(number as u64)
}

/// The position in three columns from `first` on.
fn position_of(row: &Row<'_>, first: usize) -> Result<StreamPosition, StoreError> {
    Ok(StreamPosition {
        stream: row.get(first)?,
        namespace: NamespaceId(row.get(first + 1)?),
        position: row.get::<_, i64>(first + 2)?.max(0) as u64,
    })
}

fn letter_of(row: &Row<'_>) -> Result<OwnedDeadLetter, StoreError> {
    Ok(OwnedDeadLetter {
        number: row.get::<_, i64>(0)? as u64,
        position: position_of(row, 1)?,
        time: UnixMillis(row.get::<_, i64>(4)?.max(0) as u64),
        reason: row.get(5)?,
        record: blob(row, 6)?.to_vec(),
    })
}

const NOTE: &str = "INSERT INTO applied (stream, namespace, position) VALUES (?1, ?2, ?3)
    ON CONFLICT (stream, namespace) DO UPDATE SET position = excluded.position
    WHERE excluded.position > applied.position";
const POSITIONS: &str = "SELECT stream, namespace, position FROM applied ORDER BY stream, namespace";
const BURY: &str = "INSERT INTO dead_letter (stream, namespace, position, time_ms, reason, record)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const KNOWN: &str = "SELECT number FROM dead_letter
    WHERE namespace = ?1 AND stream = ?2 AND position = ?3 AND record = ?4";
const DEAD_LETTERS_KEPT: &str =
    "SELECT count(*), ifnull(sum(length(record)), 0) FROM dead_letter WHERE namespace = ?1";
const DEAD_LETTER: &str =
    "SELECT number, stream, namespace, position, time_ms, reason, record FROM dead_letter
    WHERE number = ?1 AND namespace NOT IN (SELECT id FROM namespace WHERE state <> 0)";
const DEAD_LETTERS: &str = "SELECT number, stream, namespace, position, time_ms, reason, record FROM dead_letter
    WHERE number > ?1 AND namespace NOT IN (SELECT id FROM namespace WHERE state <> 0) ORDER BY number LIMIT ?2";
const DEAD_LETTERS_OF: &str =
    "SELECT number, stream, namespace, position, time_ms, reason, record FROM dead_letter
    WHERE number > ?1 AND namespace = ?3 AND namespace NOT IN (SELECT id FROM namespace WHERE state <> 0)
    ORDER BY number LIMIT ?2";
const DEAD_LETTER_COUNTS: &str = "SELECT namespace, count(*) FROM dead_letter
    WHERE namespace NOT IN (SELECT id FROM namespace WHERE state <> 0) GROUP BY namespace ORDER BY namespace";
