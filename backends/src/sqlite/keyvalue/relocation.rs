//! Moves the values that files up to format 3 have in the rows of their items, though they do not
//! fit, to a place of their own: item by item in the order of the tree, a bounded step at a time,
//! while the store is used. Readers take both forms.
//!
//! The file says how far it has come, in the transaction that came so far. What is written
//! meanwhile has the new form.

use rusqlite::{Connection, OptionalExtension, params};

use super::steps::Budget;
use super::values::{self, PLACES_PER_VALUE};
use crate::error::StoreError;
use crate::sqlite::file::schema::blob;

/// How far the values of an older format have been moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relocation {
    /// Values that were moved so far.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Option<Relocation>> {
    connection
        .query_row("SELECT items, bytes FROM relocation", [], |row| {
            Ok(Relocation {
                values: row.get::<_, i64>(0)?.max(0) as u64,
                bytes: row.get::<_, i64>(1)?.max(0) as u64,
            })
        })
        .optional()
}

/// Goes on within a running transaction; how far it has come, and whether that is the end.
pub(super) fn go_on(
    connection: &Connection,
    budget: &mut Budget,
    next_value: &mut i64,
    mut done: Relocation,
) -> Result<(Relocation, bool), StoreError> {
    let mut last = None;
    let mut large = Vec::new();
    let mut is_end = true;
    {
        let mut statement = connection.prepare_cached("SELECT namespace, id, key FROM relocation")?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else {
            return Ok((done, true));
        };
        let mut statement = connection.prepare_cached(NEXT_ROWS)?;
        let mut rows = statement.query(params![row.get::<_, i64>(0)?, blob(row, 1)?, blob(row, 2)?])?;
        while let Some(row) = rows.next()? {
            let (id, key) = (blob(row, 1)?, blob(row, 2)?);
            let bytes: i64 = row.get(3)?;
            let fits = values::fits_row(id, key, bytes.max(0) as usize);
            if !budget.take_row(if fits { 0 } else { 2 * bytes }) {
                is_end = false;
                break;
            }
            let place = (row.get::<_, i64>(0)?, id.to_vec(), key.to_vec());
            if !fits {
                large.push((place.clone(), bytes, row.get::<_, Option<i64>>(4)?));
            }
            last = Some(place);
        }
    }
    for ((namespace, id, key), bytes, rest) in large {
        // A value with several chunks has the places for all of them already.
        let place = rest.unwrap_or_else(|| {
            *next_value += 1;
            (*next_value - 1) * PLACES_PER_VALUE
        });
        let mut statement = connection.prepare_cached(MOVE)?;
        statement.execute(params![place, namespace, id, key])?;
        let mut statement = connection.prepare_cached(POINT)?;
        statement.execute(params![place, namespace, id, key])?;
        done.values += 1;
        done.bytes += bytes.max(0) as u64;
    }
    if is_end {
        connection.prepare_cached("DELETE FROM relocation")?.execute([])?;
        return Ok((done, true));
    }
    if let Some((namespace, id, key)) = last {
        let mut statement = connection.prepare_cached(NOTE)?;
        statement.execute(params![namespace, id, key, done.values as i64, done.bytes as i64])?;
    }
    Ok((done, false))
}

const NEXT_ROWS: &str = "SELECT namespace, id, key, length(value), rest FROM item
    WHERE (namespace, id, key) > (?1, ?2, ?3) ORDER BY namespace, id, key";
const MOVE: &str = "INSERT INTO chunk (place, data) SELECT ?1, value FROM item
    WHERE namespace = ?2 AND id = ?3 AND key = ?4";
const POINT: &str = "UPDATE item SET bytes = ifnull(bytes, length(value)), value = x'', rest = ?1
    WHERE namespace = ?2 AND id = ?3 AND key = ?4";
const NOTE: &str = "UPDATE relocation SET namespace = ?1, id = ?2, key = ?3, items = ?4, bytes = ?5";
