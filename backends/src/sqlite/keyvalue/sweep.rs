//! Gives room back, a bounded step at a time: the data of dropped namespaces, expired items, deletes that need not be
//! remembered any more, and free pages of the file. Runs within the writer's transaction.

use rusqlite::{Connection, params};

use super::writer::{NamespaceState, SET_NAMESPACE, State, delete_chunks};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::sqlite::Options;
use crate::sqlite::file::schema::{TOMBSTONE, blob};
use crate::store::Sweep;

/// Removes a step's worth of a dropped namespace; its number once nothing is left.
pub(in crate::sqlite) fn sweep_namespace(
    connection: &Connection,
    state: &mut State,
    namespace: NamespaceId,
    budget: usize,
    sweep: &mut Sweep,
) -> Result<Option<NamespaceId>, StoreError> {
    let limit = budget.max(1) as i64;
    let items = connection
        .prepare_cached(SWEEP_NAMESPACE)?
        .execute(params![namespace.0, limit])?;
    sweep.examined += items;
    sweep.removed += items;
    if items >= budget.max(1) {
        return Ok(None);
    }
    let letters = connection
        .prepare_cached(SWEEP_DEAD_LETTERS)?
        .execute(params![namespace.0, DEAD_LETTERS_STEP.min(limit)])?;
    sweep.examined += letters;
    sweep.removed += letters;
    if letters > 0 {
        // Each may be large: the rest waits for the next step.
        return Ok(None);
    }
    let mut statement = connection.prepare_cached("SELECT id FROM range_delete WHERE namespace = ?1")?;
    let mut rows = statement.query(params![namespace.0])?;
    while let Some(row) = rows.next()? {
        state.unmarked.push((namespace, blob(row, 0)?.to_vec()));
        sweep.examined += 1;
    }
    connection
        .prepare_cached("DELETE FROM range_delete WHERE namespace = ?1")?
        .execute([namespace.0])?;
    connection
        .prepare_cached(SET_NAMESPACE)?
        .execute(params![namespace.0, NamespaceState::Swept as i64])?;
    Ok(Some(namespace))
}

/// Expired items become remembered deletes, or an older write could come back; remembered deletes go.
pub(in crate::sqlite) fn sweep_items(
    connection: &Connection,
    options: &Options,
    now: UnixMillis,
    budget: usize,
    sweep: &mut Sweep,
) -> Result<(), StoreError> {
    if budget == 0 {
        return Ok(());
    }
    let now_ms = now.0.min(i64::MAX as u64) as i64;
    let forget_at = now.plus(options.tombstone_window_ms).0 as i64;
    let mut due = Vec::new();
    let mut statement = connection.prepare_cached(DUE_ITEMS)?;
    let mut rows = statement.query(params![now_ms, budget as i64])?;
    while let Some(row) = rows.next()? {
        due.push((
            row.get::<_, u32>(0)?,
            blob(row, 1)?.to_vec(),
            blob(row, 2)?.to_vec(),
            row.get::<_, i64>(3)?,
            row.get::<_, Option<i64>>(4)?,
        ));
    }
    drop(rows);
    let mut forget = connection.prepare_cached(FORGET_ITEM)?;
    let mut expire = connection.prepare_cached(EXPIRE_ITEM)?;
    for (namespace, id, key, kind, place) in due {
        if kind == TOMBSTONE {
            forget.execute(params![namespace, id, key])?;
        } else {
            expire.execute(params![namespace, id, key, forget_at, TOMBSTONE])?;
            delete_chunks(connection, place)?;
        }
        sweep.examined += 1;
        sweep.removed += 1;
    }
    Ok(())
}

pub(in crate::sqlite) fn sweep_range_deletes(
    connection: &Connection,
    state: &mut State,
    now: UnixMillis,
    budget: usize,
    sweep: &mut Sweep,
) -> Result<(), StoreError> {
    if budget == 0 || state.range_deletes.total() == 0 {
        return Ok(());
    }
    let now_ms = now.0.min(i64::MAX as u64) as i64;
    let mut numbers = Vec::new();
    let mut statement = connection.prepare_cached(DUE_RANGE_DELETES)?;
    let mut rows = statement.query(params![now_ms, budget as i64])?;
    while let Some(row) = rows.next()? {
        numbers.push(row.get::<_, i64>(0)?);
        state
            .unmarked
            .push((NamespaceId(row.get(1)?), blob(row, 2)?.to_vec()));
    }
    let mut forget = connection.prepare_cached("DELETE FROM range_delete WHERE number = ?1")?;
    for number in numbers {
        forget.execute([number])?;
        sweep.examined += 1;
        sweep.removed += 1;
    }
    Ok(())
}

/// Shrinks the file by a step if more than a quarter of it is free; less is kept for what is written next.
pub(in crate::sqlite) fn give_back_pages(connection: &Connection, budget: usize) -> Result<(), StoreError> {
    let number = |text: &str| -> rusqlite::Result<i64> {
        connection.prepare_cached(text)?.query_row([], |row| row.get(0))
    };
    let free = number("PRAGMA freelist_count")?;
    let pages = number("PRAGMA page_count")?;
    if free > FREE_PAGES_KEPT && free > pages / 4 {
        let step = budget.clamp(1, 1_000);
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({step})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

const FREE_PAGES_KEPT: i64 = 256;
const SWEEP_NAMESPACE: &str = "DELETE FROM item WHERE namespace = ?1 AND (id, key) IN
    (SELECT id, key FROM item WHERE namespace = ?1 LIMIT ?2)";
const SWEEP_DEAD_LETTERS: &str = "DELETE FROM dead_letter WHERE number IN
    (SELECT number FROM dead_letter WHERE namespace = ?1 LIMIT ?2)";
const DEAD_LETTERS_STEP: i64 = 16;
const DUE_ITEMS: &str = "SELECT namespace, id, key, kind, rest FROM item
    WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2";
const FORGET_ITEM: &str = "DELETE FROM item WHERE namespace = ?1 AND id = ?2 AND key = ?3";
const EXPIRE_ITEM: &str = "UPDATE item SET kind = ?5, expires_at = ?4, value = x'', rest = NULL, bytes = NULL
    WHERE namespace = ?1 AND id = ?2 AND key = ?3";
const DUE_RANGE_DELETES: &str = "SELECT number, namespace, id FROM range_delete
    WHERE forget_at <= ?1 ORDER BY forget_at LIMIT ?2";
