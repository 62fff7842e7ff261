//! Effects of time on queues: deaths are written down, old messages and ids go.

use rusqlite::{Connection, params};

use super::rows::{Entry, columns, is_undone, millis};
use super::writer::remember;
use crate::api::queue::Sweep;
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::sqlite::pubsub::place_range;

/// Messages of one step: the bodies that go with them may be large.
const STEP: usize = 64;

/// Does a step's worth of what time has made due.
pub(in crate::sqlite) fn sweep(
    connection: &Connection,
    now: UnixMillis,
    budget: usize,
    sweep: &mut Sweep,
) -> Result<(), StoreError> {
    let limit = budget.min(STEP);
    let due = {
        let mut statement = connection.prepare_cached(DUE)?;
        let mut rows = statement.query(params![millis(now), limit as i64])?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            due.push((NamespaceId(row.get(16)?), Entry::read(row)?));
        }
        due
    };
    let is_full = due.len() >= limit;
    for (namespace, mut entry) in due {
        if is_undone(entry.item.phase) {
            entry.bury(connection, namespace, now)?;
        } else {
            entry.remove(connection, namespace)?;
            remember(connection, namespace, &entry, None, now)?;
        }
        count(sweep, 1);
    }
    for forget in [FORGET_GONE, FORGET_CALLS] {
        let forgotten = connection
            .prepare_cached(forget)?
            .execute(params![millis(now), budget as i64])?;
        count(sweep, forgotten);
        sweep.more |= forgotten >= budget && budget > 0;
    }
    sweep.more |= is_full;
    Ok(())
}

/// Removes a step's worth of a dropped namespace; whether none is left.
pub(in crate::sqlite) fn sweep_dropped(
    connection: &Connection,
    namespace: NamespaceId,
    budget: usize,
    sweep: &mut Sweep,
) -> Result<bool, StoreError> {
    let limit = budget.max(1);
    for forget in [FORGET_ALL_GONE, FORGET_ALL_CALLS] {
        let forgotten = connection
            .prepare_cached(forget)?
            .execute(params![namespace.0, limit as i64])?;
        count(sweep, forgotten);
        if forgotten >= limit {
            return Ok(false);
        }
    }
    let Some((begin, end)) = place_range(connection, namespace)? else {
        return Ok(true);
    };
    let limit = limit.min(STEP);
    for remove in [REMOVE_ITEMS, REMOVE_BODIES] {
        let removed = connection
            .prepare_cached(remove)?
            .execute(params![begin, end, limit as i64])?;
        count(sweep, removed);
        if removed >= limit {
            return Ok(false);
        }
    }
    Ok(true)
}

fn count(sweep: &mut Sweep, rows: usize) {
    sweep.examined += rows;
    sweep.removed += rows;
}

const DUE: &str = concat!(
    "SELECT ",
    columns!(),
    ", namespace FROM queue_item WHERE look_at <= ?1 ORDER BY look_at LIMIT ?2"
);
const FORGET_GONE: &str = "DELETE FROM queue_gone WHERE (namespace, id) IN
    (SELECT namespace, id FROM queue_gone WHERE forget_at <= ?1 LIMIT ?2)";
const FORGET_CALLS: &str = "DELETE FROM queue_call WHERE (namespace, call) IN
    (SELECT namespace, call FROM queue_call WHERE forget_at <= ?1 LIMIT ?2)";
const FORGET_ALL_GONE: &str = "DELETE FROM queue_gone WHERE (namespace, id) IN
    (SELECT namespace, id FROM queue_gone WHERE namespace = ?1 LIMIT ?2)";
const FORGET_ALL_CALLS: &str = "DELETE FROM queue_call WHERE (namespace, call) IN
    (SELECT namespace, call FROM queue_call WHERE namespace = ?1 LIMIT ?2)";
const REMOVE_ITEMS: &str = "DELETE FROM queue_item WHERE place IN
    (SELECT place FROM queue_item WHERE place >= ?1 AND place < ?2 LIMIT ?3)";
const REMOVE_BODIES: &str = "DELETE FROM queue_body WHERE place IN
    (SELECT place FROM queue_body WHERE place >= ?1 AND place < ?2 LIMIT ?3)";
