//! Rows of messages: how one is found, read and written.

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::api::queue::{Item, Phase, Shown};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::sqlite::file::schema::blob;

/// A message without what was sent.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) place: i64,
    pub(super) id: Vec<u8>,
    pub(super) digest: Option<u64>,
    /// `None` where there is no order.
    pub(super) key: Option<String>,
    pub(super) item: Item,
    pub(super) failure: String,
    pub(super) body: i64,
}

/// Columns of an [`Entry`], in the order in which it reads them.
macro_rules! columns {
    () => {
        "place, id, digest, key, phase, at, serial, spent, judged, attempts_max, sent_at, leased_at, begin_by, \
         dead_by, failure, body"
    };
}
pub(super) use columns;

impl Entry {
    pub(super) fn read(row: &Row<'_>) -> Result<Entry, StoreError> {
        let phase = match row.get::<_, i64>(4)? {
            0 => Phase::Waiting,
            1 => Phase::Leased,
            2 => Phase::Dead,
            3 => Phase::Done,
            other => {
                return Err(StoreError::Corrupt {
                    detail: format!("a message of a queue has the phase {other}"),
                });
            }
        };
        Ok(Entry {
            place: row.get(0)?,
            id: blob(row, 1)?.to_vec(),
            digest: row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
            key: row.get(3)?,
            item: Item {
                phase,
                at: time(row.get(5)?),
                serial: row.get(6)?,
                spent: row.get(7)?,
                judged: row.get(8)?,
                attempts_max: row.get(9)?,
                sent_at: time(row.get(10)?),
                leased_at: time(row.get(11)?),
                begin_by: row.get::<_, Option<i64>>(12)?.map(time),
                dead_by: time(row.get(13)?),
            },
            failure: row.get(14)?,
            body: row.get(15)?,
        })
    }

    /// The message with this id, if it is in the queue.
    pub(super) fn find(
        connection: &Connection,
        namespace: NamespaceId,
        id: &[u8],
    ) -> Result<Option<Entry>, StoreError> {
        let mut statement = connection.prepare_cached(FIND)?;
        let mut rows = statement.query(params![namespace.0, id])?;
        rows.next()?.map(Entry::read).transpose()
    }

    /// Writes the numbers down, and has the next of its key lead if this one is over.
    pub(super) fn store(
        &self,
        connection: &Connection,
        namespace: NamespaceId,
        call: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let item = &self.item;
        connection.prepare_cached(STORE)?.execute(params![
            self.place,
            phase_number(item.phase),
            millis(item.at),
            item.serial,
            item.spent,
            item.judged,
            millis(item.leased_at),
            millis(item.look_at()),
            call,
            self.failure,
            // Nobody becomes a head here; who is over is none any more.
            is_undone(item.phase),
        ])?;
        match is_undone(item.phase) {
            true => Ok(()),
            false => self.lead_next(connection, namespace),
        }
    }

    /// Writes a death down, if time has brought one. Whether it has.
    pub(super) fn bury(
        &mut self,
        connection: &Connection,
        namespace: NamespaceId,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let Some(why) = self.item.death(now) else {
            return Ok(false);
        };
        self.failure = why.to_owned();
        self.item.bury(now);
        self.store(connection, namespace, None)?;
        Ok(true)
    }

    /// Removes the message with what was sent.
    pub(super) fn remove(&self, connection: &Connection, namespace: NamespaceId) -> Result<(), StoreError> {
        connection
            .prepare_cached("DELETE FROM queue_item WHERE place = ?1")?
            .execute([self.place])?;
        connection
            .prepare_cached("DELETE FROM queue_body WHERE place = ?1")?
            .execute([self.body])?;
        match is_undone(self.item.phase) {
            true => self.lead_next(connection, namespace),
            false => Ok(()),
        }
    }

    /// The first of its key that is left may be given.
    pub(super) fn lead_next(
        &self,
        connection: &Connection,
        namespace: NamespaceId,
    ) -> Result<(), StoreError> {
        if let Some(key) = &self.key {
            connection
                .prepare_cached(LEAD)?
                .execute(params![namespace.0, key])?;
        }
        Ok(())
    }

    /// Hands the message to `take` as it is shown with these numbers.
    pub(super) fn show<T>(
        &self,
        connection: &Connection,
        item: Item,
        failure: &str,
        with_payload: bool,
        take: impl FnOnce(&Shown<'_>) -> T,
    ) -> Result<T, StoreError> {
        let mut statement = connection.prepare_cached(BODY)?;
        let mut rows = statement.query([self.body])?;
        let Some(row) = rows.next()? else {
            return Err(StoreError::Corrupt {
                detail: format!("the message at place {} of a queue has no body", self.place),
            });
        };
        Ok(take(&Shown {
            id: &self.id,
            item,
            key: self.key.as_deref().unwrap_or_default(),
            attributes: blob(row, 0)?,
            payload: if with_payload { blob(row, 1)? } else { &[] },
            failure,
        }))
    }
}

/// The first row of a query, as an entry.
pub(super) fn first(
    connection: &Connection,
    query: &str,
    values: &[&dyn ToSql],
) -> Result<Option<Entry>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(values)?;
    rows.next()?.map(Entry::read).transpose()
}

/// All rows of a query, as entries.
pub(super) fn all(
    connection: &Connection,
    query: &str,
    values: &[&dyn ToSql],
) -> Result<Vec<Entry>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(values)?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(Entry::read(row)?);
    }
    Ok(entries)
}

/// The time from which the first message of a queue may be given.
pub(super) fn first_head(
    connection: &Connection,
    namespace: NamespaceId,
) -> Result<Option<UnixMillis>, StoreError> {
    let at = connection
        .prepare_cached(FIRST_HEAD)?
        .query_row([namespace.0], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(at.map(time))
}

pub(super) fn is_undone(phase: Phase) -> bool {
    matches!(phase, Phase::Waiting | Phase::Leased)
}

pub(super) fn phase_number(phase: Phase) -> i64 {
    match phase {
        Phase::Waiting => 0,
        Phase::Leased => 1,
        Phase::Dead => 2,
        Phase::Done => 3,
    }
}

pub(super) fn time(millis: i64) -> UnixMillis {
    UnixMillis(millis.max(0) as u64)
}

pub(super) fn millis(time: UnixMillis) -> i64 {
    time.0.min(i64::MAX as u64) as i64
}

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM queue_item WHERE namespace = ?1 AND id = ?2"
);
const STORE: &str =
    "UPDATE queue_item SET phase = ?2, at = ?3, serial = ?4, spent = ?5, judged = ?6, leased_at = ?7,
    look_at = ?8, call = ?9, failure = ?10, head = min(head, ?11) WHERE place = ?1";
const LEAD: &str = "UPDATE queue_item SET head = 1 WHERE head = 0 AND place =
    (SELECT place FROM queue_item WHERE namespace = ?1 AND key = ?2 AND key IS NOT NULL AND phase < 2
     ORDER BY place LIMIT 1)";
const BODY: &str = "SELECT attributes, payload FROM queue_body WHERE place = ?1";
const FIRST_HEAD: &str =
    "SELECT at FROM queue_item WHERE namespace = ?1 AND head = 1 ORDER BY at, place LIMIT 1";
