//! Work that a transaction leaves to later ones, so that it holds the writer for a short time
//! whatever it deletes: each has a budget, and what is beyond it is noted in the file and done in
//! steps.
//!
//! ```text
//!   delete of a range ──► rows within the budget ──► gone with the transaction
//!                     └─► the others ──► `removal`: hidden with the transaction, removed in steps
//!   replaced value ──► chunks within the budget ──► gone with the transaction
//!                  └─► the others ──► `orphan`: nobody's with the transaction, deleted in steps
//! ```
//!
//! So the transaction that a caller waits for has the whole effect, once, whatever comes after it:
//! a crash half-way leaves the notes, and the next start goes on.

use rusqlite::{Connection, params};

use super::removals::{Removal, Removals};
use super::values::{self, Chunks, PLACES_PER_VALUE};
use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::sqlite::file::schema::{VersionBytes, blob, version_bytes};

/// Bytes of a value that take as long to free as a row.
const BYTES_PER_UNIT: i64 = 4096;

/// Removals that a transaction may still do. A unit is a row, or 4 KiB of a value beyond its row.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    /// Whether there may be orphans.
    has_orphans: bool,
}

impl Budget {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Budget> {
        let has_orphans = connection.prepare("SELECT 1 FROM orphan LIMIT 1")?.exists([])?;
        Ok(Budget { left: 0, has_orphans })
    }

    /// Begins a transaction.
    pub(super) fn begin(&mut self, units: usize) {
        self.left = units;
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Whether anything is left; if so, takes what a row costs whose own value has `bytes`, though
    /// that be more.
    pub(super) fn take_row(&mut self, bytes: i64) -> bool {
        let has_some = self.left > 0;
        self.left = self.left.saturating_sub(1 + units_of(bytes));
        has_some
    }

    /// Deletes the chunks of a value that is not there any more, or leaves them to a later step.
    pub(super) fn free(&mut self, connection: &Connection, chunks: Chunks) -> Result<(), StoreError> {
        let units = units_of(chunks.bytes);
        if units <= self.left {
            self.left -= units;
            return values::delete(connection, chunks.place);
        }
        self.has_orphans = true;
        connection
            .prepare_cached("INSERT INTO orphan (place) VALUES (?1)")?
            .execute([chunks.place])?;
        Ok(())
    }

    pub(super) fn has_orphans(&self) -> bool {
        self.has_orphans
    }
}

fn units_of(bytes: i64) -> usize {
    usize::try_from(bytes / BYTES_PER_UNIT).unwrap_or_default()
}

/// The items of one id that a delete of a range is about: those from `start` up to `end`, which may
/// be open, that are older than the version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doomed<'a> {
    pub(super) namespace: NamespaceId,
    pub(super) id: &'a [u8],
    pub(super) start: &'a [u8],
    pub(super) end: &'a [u8],
    pub(super) version: VersionBytes,
}

/// Removes rows in the order of their keys until none or no budget is left. The key from which on
/// there may be others.
pub(super) fn remove_rows(
    connection: &Connection,
    budget: &mut Budget,
    doomed: &Doomed<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Doomed {
        namespace: NamespaceId(namespace),
        id,
        start,
        end,
        version,
    } = *doomed;
    let mut next = None;
    let mut removes = false;
    let mut freed = Vec::new();
    {
        let mut statement =
            connection.prepare_cached(if end.is_empty() { ROWS_FROM } else { ROWS_BETWEEN })?;
        let mut rows = match end.is_empty() {
            true => statement.query(params![namespace, id, start])?,
            false => statement.query(params![namespace, id, start, end])?,
        };
        while let Some(row) = rows.next()? {
            if !budget.take_row(row.get(2)?) {
                next = Some(blob(row, 0)?.to_vec());
                break;
            }
            if blob(row, 1)? < version.as_slice() {
                removes = true;
                freed.extend(Chunks::of(row.get(3)?, row.get(4)?));
            }
        }
    }
    if removes {
        let end = next.as_deref().unwrap_or(end);
        match end.is_empty() {
            true => connection
                .prepare_cached(DELETE_FROM)?
                .execute(params![namespace, id, start, version])?,
            false => connection
                .prepare_cached(DELETE_BETWEEN)?
                .execute(params![namespace, id, start, version, end])?,
        };
    }
    for chunks in freed {
        budget.free(connection, chunks)?;
    }
    Ok(next)
}

/// Deletes chunks of orphans.
pub(super) fn delete_orphans(connection: &Connection, budget: &mut Budget) -> Result<(), StoreError> {
    while budget.has_orphans && budget.left > 0 {
        let mut statement = connection.prepare_cached("SELECT place FROM orphan LIMIT 1")?;
        let mut rows = statement.query([])?;
        let Some(place) = rows.next()?.map(|row| row.get::<_, i64>(0)).transpose()? else {
            budget.has_orphans = false;
            break;
        };
        drop(rows);
        // One at a time, since each may be large.
        let mut statement = connection.prepare_cached(LAST_CHUNK)?;
        let mut rows = statement.query(params![place, place + PLACES_PER_VALUE])?;
        let Some(row) = rows.next()? else {
            drop(rows);
            connection
                .prepare_cached("DELETE FROM orphan WHERE place = ?1")?
                .execute([place])?;
            budget.take_row(0);
            continue;
        };
        let (last, bytes) = (row.get::<_, i64>(0)?, row.get(1)?);
        drop(rows);
        connection
            .prepare_cached("DELETE FROM chunk WHERE place = ?1")?
            .execute([last])?;
        budget.take_row(bytes);
    }
    Ok(())
}

/// Goes on with the deletes of ranges that are not removed yet.
pub(super) fn go_on_removing(
    connection: &Connection,
    budget: &mut Budget,
    removals: &mut Removals,
) -> Result<(), StoreError> {
    while budget.left > 0
        && let Some(removal) = removals.first()
    {
        let Removal {
            namespace,
            id,
            start,
            end,
            version,
            ..
        } = removal;
        let doomed = Doomed {
            namespace: *namespace,
            id,
            start,
            end,
            version: version_bytes(*version),
        };
        match remove_rows(connection, budget, &doomed)? {
            Some(next) => removals.go_on_from(next),
            None => removals.finish_first(connection)?,
        }
    }
    Ok(())
}

const ROWS_FROM: &str = "SELECT key, version, length(value), rest, bytes FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 ORDER BY key";
const ROWS_BETWEEN: &str = "SELECT key, version, length(value), rest, bytes FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND key < ?4 ORDER BY key";
const DELETE_FROM: &str = "DELETE FROM item WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND version < ?4";
const DELETE_BETWEEN: &str =
    "DELETE FROM item WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND version < ?4 AND key < ?5";
const LAST_CHUNK: &str = "SELECT place, length(data) FROM chunk WHERE place >= ?1 AND place < ?2
    ORDER BY place DESC LIMIT 1";
