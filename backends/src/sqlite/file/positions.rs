//! Notes of the store for the log in front of it: how far each lane has been applied for each
//! namespace, and the records that can never be. Both are noted in the transaction that they belong
//! to, so that a crash leaves both or neither.
//!
//! Positions of two logs are kept apart by their identity. When a lane is no longer needed is the
//! caller's to know.

use rusqlite::{Connection, Row, params};

use super::schema::blob;
use super::transaction::in_transaction;
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId, UnixMillis};
use crate::limits::{
    DEAD_LETTER_BYTES_PER_NAMESPACE_MAX, DEAD_LETTER_REASON_BYTES_MAX, DEAD_LETTERS_MAX,
    DEAD_LETTERS_PER_NAMESPACE_MAX, PAGE_BYTES_MAX,
};
use crate::sqlite::Writer;

/// A record that can never be applied, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Where it stands. Everything up to here counts as applied once it is buried.
    pub position: LogPosition,
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
    pub position: LogPosition,
    /// When it was buried.
    pub time: UnixMillis,
    /// Why it could not be applied.
    pub reason: String,
    /// The record as the caller had it.
    pub record: Vec<u8>,
}

impl Writer {
    /// All noted positions, by log, lane and namespace. Those of a program that knew no logs have
    /// [`NO_LOG`] until [`Writer::adopt_positions`].
    pub fn positions(&self) -> Result<Vec<LogPosition>, StoreError> {
        let mut statement = self.connection.prepare_cached(POSITIONS)?;
        let mut rows = statement.query([])?;
        let mut positions = Vec::new();
        while let Some(row) = rows.next()? {
            positions.push(position_of(row, 0)?);
        }
        Ok(positions)
    }

    /// The position of one lane and namespace; 0 if none is noted.
    pub fn noted(&self, log: LogId, lane: u32, namespace: NamespaceId) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached(NOTED)?;
        let mut rows = statement.query(params![log_bytes(log).as_slice(), lane, namespace.0])?;
        match rows.next()? {
            Some(row) => Ok(row.get::<_, i64>(0)?.max(0) as u64),
            None => Ok(0),
        }
    }

    /// Makes the positions that a program without logs has noted those of `log`.
    pub fn adopt_positions(&mut self, log: LogId) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE OR REPLACE position SET log = ?1 WHERE log = x''")?
            .execute([log_bytes(log).as_slice()])?;
        Ok(())
    }

    /// Forgets all positions of a lane; its dead letters stay. For a lane whose records are gone
    /// for good: they would otherwise be applied again.
    pub fn forget_lane(&mut self, log: LogId, lane: u32) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM position WHERE log = ?1 AND lane = ?2")?
            .execute(params![log_bytes(log).as_slice(), lane])?;
        Ok(())
    }

    /// Forgets all positions of a log that is gone for good.
    pub fn forget_log(&mut self, log: LogId) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM position WHERE log = ?1")?
            .execute([log_bytes(log).as_slice()])?;
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

/// Log of positions that were noted before logs had an identity.
pub const NO_LOG: LogId = LogId(0);

/// A log's identity as the file has it: no bytes for none.
fn log_bytes(log: LogId) -> Vec<u8> {
    match log {
        NO_LOG => Vec::new(),
        LogId(number) => number.to_be_bytes().to_vec(),
    }
}

/// Notes positions within a running transaction; whether any of them moved.
pub(in crate::sqlite) fn note(
    connection: &Connection,
    positions: &[LogPosition],
) -> Result<bool, StoreError> {
    if positions.is_empty() {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached(NOTE)?;
    let mut moved = 0;
    for position in positions {
        let LogPosition {
            log, lane, namespace, ..
        } = *position;
        let log = log_bytes(log);
        moved += statement.execute(params![log.as_slice(), lane, namespace.0, stored(*position)?])?;
    }
    Ok(moved > 0)
}

/// SQLite's integers are signed.
fn stored(position: LogPosition) -> Result<i64, StoreError> {
    i64::try_from(position.lsn).map_err(|_| {
        let reason = format!("must be at most {}, is {}", i64::MAX, position.lsn);
        StoreError::invalid("lsn", reason)
    })
}

/// The number of this very letter, if it is buried already.
fn known(connection: &Connection, letter: &DeadLetter<'_>) -> Result<Option<u64>, StoreError> {
    let LogPosition {
        log, lane, namespace, ..
    } = letter.position;
    let mut statement = connection.prepare_cached(KNOWN)?;
    let lsn = stored(letter.position)?;
    let log = log_bytes(log);
    let mut rows = statement.query(params![namespace.0, lane, lsn, letter.record, log.as_slice()])?;
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
    let LogPosition {
        log, lane, namespace, ..
    } = letter.position;
    let mut end = letter.reason.len().min(DEAD_LETTER_REASON_BYTES_MAX);
    while !letter.reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut statement = connection.prepare_cached(BURY)?;
    let number = statement.insert(params![
        lane,
        namespace.0,
        stored(letter.position)?,
        now.0.min(i64::MAX as u64) as i64,
        &letter.reason[..end],
        letter.record,
        log_bytes(log).as_slice()
    ])?;
    Ok(number as u64)
}

/// The position in four columns from `first` on.
fn position_of(row: &Row<'_>, first: usize) -> Result<LogPosition, StoreError> {
    let log = match blob(row, first)? {
        [] => NO_LOG,
        bytes => LogId(u128::from_be_bytes(bytes.try_into().map_err(|_| {
            let detail = format!("the identity of a log of {} bytes", bytes.len());
            StoreError::Corrupt { detail }
        })?)),
    };
    Ok(LogPosition {
        log,
        lane: row.get(first + 1)?,
        namespace: NamespaceId(row.get(first + 2)?),
        lsn: row.get::<_, i64>(first + 3)?.max(0) as u64,
    })
}

fn letter_of(row: &Row<'_>) -> Result<OwnedDeadLetter, StoreError> {
    Ok(OwnedDeadLetter {
        number: row.get::<_, i64>(0)? as u64,
        position: position_of(row, 1)?,
        time: UnixMillis(row.get::<_, i64>(5)?.max(0) as u64),
        reason: row.get(6)?,
        record: blob(row, 7)?.to_vec(),
    })
}

const NOTE: &str = "INSERT INTO position (log, lane, namespace, lsn) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (log, lane, namespace) DO UPDATE SET lsn = excluded.lsn
    WHERE excluded.lsn > position.lsn";
const POSITIONS: &str = "SELECT log, lane, namespace, lsn FROM position ORDER BY log, lane, namespace";
const NOTED: &str = "SELECT lsn FROM position WHERE log = ?1 AND lane = ?2 AND namespace = ?3";
const BURY: &str = "INSERT INTO dead_letter (stream, namespace, position, time_ms, reason, record, log)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const KNOWN: &str = "SELECT number FROM dead_letter
    WHERE namespace = ?1 AND stream = ?2 AND position = ?3 AND record = ?4 AND log = ?5";
const DEAD_LETTERS_KEPT: &str =
    "SELECT count(*), ifnull(sum(length(record)), 0) FROM dead_letter WHERE namespace = ?1";
const DEAD_LETTER: &str =
    "SELECT number, log, stream, namespace, position, time_ms, reason, record FROM dead_letter
    WHERE number = ?1 AND namespace NOT IN (SELECT id FROM namespace WHERE state <> 0)";
const DEAD_LETTERS: &str = "SELECT number, log, stream, namespace, position, time_ms, reason, record FROM dead_letter
    WHERE number > ?1 AND namespace NOT IN (SELECT id FROM namespace WHERE state <> 0) ORDER BY number LIMIT ?2";
const DEAD_LETTERS_OF: &str =
    "SELECT number, log, stream, namespace, position, time_ms, reason, record FROM dead_letter
    WHERE number > ?1 AND namespace = ?3 AND namespace NOT IN (SELECT id FROM namespace WHERE state <> 0)
    ORDER BY number LIMIT ?2";
const DEAD_LETTER_COUNTS: &str = "SELECT namespace, count(*) FROM dead_letter
    WHERE namespace NOT IN (SELECT id FROM namespace WHERE state <> 0) GROUP BY namespace ORDER BY namespace";
