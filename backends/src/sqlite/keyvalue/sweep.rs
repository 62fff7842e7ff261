//! Gives room back, a bounded step at a time: the data of dropped namespaces, expired items,
//! deletes that need not be remembered any more, and free pages of the file. Runs within the
//! writer's transaction.

use rusqlite::{Connection, params};

use super::namespaces::{NamespaceState, SET_NAMESPACE};
use super::values::Chunks;
use super::writer::State;
use crate::api::keyvalue::Sweep;
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::sqlite::Options;
use crate::sqlite::file::schema::{TOMBSTONE, blob};
use crate::sqlite::{pubsub, queue};

/// Removes a step's worth of a dropped namespace; its number once nothing is left.
pub(super) fn sweep_namespace(
    connection: &Connection,
    state: &mut State,
    namespace: NamespaceId,
    sweep: &mut Sweep,
) -> Result<Option<NamespaceId>, StoreError> {
    if !sweep_items_of(connection, state, namespace, sweep)? {
        return Ok(None);
    }
    let limit = state.budget.left().max(1) as i64;
    let letters = connection
        .prepare_cached(SWEEP_DEAD_LETTERS)?
        .execute(params![namespace.0, DEAD_LETTERS_STEP.min(limit)])?;
    sweep.examined += letters;
    sweep.removed += letters;
    if letters > 0 {
        // Each may be large: the rest waits for the next step.
        return Ok(None);
    }
    let mut numbers = Vec::new();
    let mut statement = connection.prepare_cached(RANGE_DELETES_OF_NAMESPACE)?;
    let mut rows = statement.query(params![namespace.0, limit])?;
    while let Some(row) = rows.next()? {
        numbers.push(row.get::<_, i64>(0)?);
        state.unmarked.push((namespace, blob(row, 1)?.to_vec()));
        sweep.examined += 1;
    }
    let mut forget = connection.prepare_cached(FORGET_RANGE_DELETE)?;
    for number in &numbers {
        forget.execute([number])?;
        state.budget.take_row(0);
    }
    if numbers.len() as i64 >= limit {
        return Ok(None);
    }
    if !queue::sweep_dropped(connection, namespace, limit as usize, sweep)? {
        return Ok(None);
    }
    if !pubsub::sweep_dropped(connection, &mut state.spaces, namespace, limit as usize, sweep)? {
        return Ok(None);
    }
    state.removals.forget_namespace(connection, namespace)?;
    connection
        .prepare_cached(SET_NAMESPACE)?
        .execute(params![namespace.0, NamespaceState::Swept as i64])?;
    Ok(Some(namespace))
}

/// Removes items of a dropped namespace; whether none is left.
fn sweep_items_of(
    connection: &Connection,
    state: &mut State,
    NamespaceId(namespace): NamespaceId,
    sweep: &mut Sweep,
) -> Result<bool, StoreError> {
    let mut last = None;
    let mut freed = Vec::new();
    let mut is_end = true;
    {
        let mut statement = connection.prepare_cached(ITEMS_OF_NAMESPACE)?;
        let mut rows = statement.query([namespace])?;
        while let Some(row) = rows.next()? {
            if !state.budget.take_row(row.get(2)?) {
                is_end = false;
                break;
            }
            freed.extend(Chunks::of(row.get(3)?, row.get(4)?));
            last = Some((blob(row, 0)?.to_vec(), blob(row, 1)?.to_vec()));
        }
    }
    if let Some((id, key)) = last {
        let mut statement = connection.prepare_cached(DELETE_UP_TO)?;
        let items = statement.execute(params![namespace, id, key])?;
        sweep.examined += items;
        sweep.removed += items;
    }
    for chunks in freed {
        state.budget.free(connection, chunks)?;
    }
    Ok(is_end)
}

/// Expired items become remembered deletes, or an older write could come back; remembered deletes
/// go.
pub(super) fn sweep_items(
    connection: &Connection,
    options: &Options,
    state: &mut State,
    now: UnixMillis,
    sweep: &mut Sweep,
) -> Result<(), StoreError> {
    if state.budget.left() == 0 {
        return Ok(());
    }
    let now_ms = now.0.min(i64::MAX as u64) as i64;
    let forget_at = now.plus(options.tombstone_window_ms).0 as i64;
    let mut due = Vec::new();
    {
        let mut statement = connection.prepare_cached(DUE_ITEMS)?;
        let mut rows = statement.query([now_ms])?;
        while let Some(row) = rows.next()? {
            if !state.budget.take_row(row.get(4)?) {
                break;
            }
            due.push((
                row.get::<_, u32>(0)?,
                blob(row, 1)?.to_vec(),
                blob(row, 2)?.to_vec(),
                row.get::<_, i64>(3)?,
                Chunks::of(row.get(5)?, row.get(6)?),
            ));
        }
    }
    let mut forget = connection.prepare_cached(FORGET_ITEM)?;
    let mut expire = connection.prepare_cached(EXPIRE_ITEM)?;
    for (namespace, id, key, kind, chunks) in due {
        if kind == TOMBSTONE {
            forget.execute(params![namespace, id, key])?;
        } else {
            expire.execute(params![namespace, id, key, forget_at, TOMBSTONE])?;
            if let Some(chunks) = chunks {
                state.budget.free(connection, chunks)?;
            }
        }
        sweep.examined += 1;
        sweep.removed += 1;
    }
    Ok(())
}

pub(super) fn sweep_range_deletes(
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
    let mut forget = connection.prepare_cached(FORGET_RANGE_DELETE)?;
    for number in numbers {
        forget.execute([number])?;
        sweep.examined += 1;
        sweep.removed += 1;
    }
    Ok(())
}

/// Shrinks the file by a step if more than a quarter of it is free; less is kept for what is
/// written next.
pub(super) fn give_back_pages(connection: &Connection, budget: usize) -> Result<(), StoreError> {
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
const ITEMS_OF_NAMESPACE: &str = "SELECT id, key, length(value), rest, bytes FROM item
    WHERE namespace = ?1 ORDER BY id, key";
const DELETE_UP_TO: &str = "DELETE FROM item WHERE namespace = ?1 AND (id, key) <= (?2, ?3)";
const SWEEP_DEAD_LETTERS: &str = "DELETE FROM dead_letter WHERE number IN
    (SELECT number FROM dead_letter WHERE namespace = ?1 LIMIT ?2)";
const DEAD_LETTERS_STEP: i64 = 16;
const DUE_ITEMS: &str = "SELECT namespace, id, key, kind, length(value), rest, bytes FROM item
    WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at";
const FORGET_ITEM: &str = "DELETE FROM item WHERE namespace = ?1 AND id = ?2 AND key = ?3";
const EXPIRE_ITEM: &str =
    "UPDATE item SET kind = ?5, expires_at = ?4, value = x'', rest = NULL, bytes = NULL, digest = NULL
    WHERE namespace = ?1 AND id = ?2 AND key = ?3";
const RANGE_DELETES_OF_NAMESPACE: &str =
    "SELECT number, id FROM range_delete WHERE namespace = ?1 ORDER BY number LIMIT ?2";
const FORGET_RANGE_DELETE: &str = "DELETE FROM range_delete WHERE number = ?1";
const DUE_RANGE_DELETES: &str = "SELECT number, namespace, id FROM range_delete
    WHERE forget_at <= ?1 ORDER BY forget_at LIMIT ?2";
