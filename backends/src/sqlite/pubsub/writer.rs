//! Publishing: numbers messages, remembers their ids, and gives room back.

use rusqlite::{Connection, OptionalExtension, params};

use super::space::{self, Spaces};
use crate::api::pubsub::{ID_WINDOW_MS, Message, Outcome, Sweep};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::sqlite::Writer;
use crate::sqlite::file::positions;
use crate::sqlite::file::transaction::in_transaction;
use crate::sqlite::keyvalue::writer::State;

/// Namespaces that one step of the sweep looks at.
const SWEEP_NAMESPACES: usize = 32;

impl Writer {
    /// Stores messages as one transaction, with positions as [`Writer::apply_at`] notes them; see
    /// [`crate::api::pubsub::Writes::publish`].
    pub fn publish_at(
        &mut self,
        batch: &[Message<'_>],
        positions: &[LogPosition],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        if batch.is_empty() && positions.is_empty() {
            return Ok(());
        }
        let result = self.topics_at(positions, |transaction| {
            for message in batch {
                outcomes.push(transaction.publish(message)?);
            }
            Ok(())
        });
        if result.is_err() {
            outcomes.clear();
        }
        result
    }

    /// Runs `work` on messages and groups in one transaction, with positions as
    /// [`Writer::apply_at`] notes them. Where all of them were noted before, its acts are answered
    /// as repeats, and nothing is done.
    ///
    /// Errors: as of `work`, which has then done nothing.
    pub fn topics_at<T>(
        &mut self,
        positions: &[LogPosition],
        work: impl FnOnce(&mut TopicTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (connection, shared, state) = self.parts();
        let result = in_transaction(connection, shared, || {
            let is_repeat = !positions.is_empty() && !positions::note(connection, positions)?;
            let mut transaction = TopicTransaction {
                connection,
                state,
                is_repeat,
            };
            let done = work(&mut transaction)?;
            if !is_repeat {
                state.spaces.note(connection)?;
                state.note_stamps(connection)?;
            }
            Ok(done)
        });
        let moved = state.settle(result.is_ok());
        shared.heads.move_to(&moved);
        result
    }
}

/// A transaction of the writer, for messages and groups in their order.
pub struct TopicTransaction<'w> {
    pub(super) connection: &'w Connection,
    pub(super) state: &'w mut State,
    /// Whether all of it was done before.
    pub(super) is_repeat: bool,
}

impl std::fmt::Debug for TopicTransaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TopicTransaction")
    }
}

impl TopicTransaction<'_> {
    /// Stores a message. A refusal is an outcome; an error ends the transaction.
    pub fn publish(&mut self, message: &Message<'_>) -> Result<Outcome, StoreError> {
        let checked = message.check();
        if let Err(cause) = checked.and_then(|()| self.state.check_namespace(message.namespace)) {
            return Ok(Outcome::Refused(cause));
        }
        match self.is_repeat {
            true => Ok(Outcome::Repeat),
            false => publish(self.connection, &mut self.state.spaces, message),
        }
    }
}

fn publish(
    connection: &Connection,
    spaces: &mut Spaces,
    message: &Message<'_>,
) -> Result<Outcome, StoreError> {
    let namespace = message.namespace;
    match known_digest(connection, message)? {
        Some(known) if known == message.digest => return Ok(Outcome::Repeat),
        Some(_) if !message.promised => return Ok(Outcome::Refused(StoreError::TokenReused)),
        // The id stays the other call's.
        Some(_) => {}
        None => {
            let forget_at = message.at.plus(ID_WINDOW_MS);
            connection.prepare_cached(REMEMBER)?.execute(params![
                namespace.0,
                message.id,
                message.digest.map(u64::cast_signed),
                forget_at.0 as i64
            ])?;
        }
    }
    let space = spaces.of(connection, namespace)?;
    space.time = space.time.max(message.at);
    connection.prepare_cached(PUBLISH)?.execute(params![
        space.place(space.next),
        message.partition,
        message.topic,
        message.key,
        message.id,
        space.time.0 as i64,
        message.expires_at.map(|at| at.0 as i64),
        message.attributes,
        message.payload
    ])?;
    space.next += 1;
    Ok(Outcome::Published)
}

/// The digest of the call that used this id, if that is still remembered at the message's moment.
fn known_digest(connection: &Connection, message: &Message<'_>) -> Result<Option<Option<u64>>, StoreError> {
    let known = connection
        .prepare_cached(KNOWN)?
        .query_row(
            params![message.namespace.0, message.id, message.at.0 as i64],
            |row| row.get::<_, Option<i64>>(0),
        )
        .optional()?;
    Ok(known.map(|digest| digest.map(i64::cast_unsigned)))
}

/// Removes a step's worth of a dropped namespace's messages; whether none is left.
pub(in crate::sqlite) fn sweep_dropped(
    connection: &Connection,
    spaces: &mut Spaces,
    namespace: NamespaceId,
    budget: usize,
    sweep: &mut Sweep,
) -> Result<bool, StoreError> {
    let limit = budget.max(1) as i64;
    let ids = connection
        .prepare_cached(FORGET_ALL)?
        .execute(params![namespace.0, limit])?;
    count(sweep, ids);
    if ids as i64 >= limit {
        return Ok(false);
    }
    let groups = connection
        .prepare_cached(FORGET_GROUPS)?
        .execute(params![namespace.0, limit])?;
    count(sweep, groups);
    if groups as i64 >= limit {
        return Ok(false);
    }
    let Some(space) = space::load(connection, namespace)? else {
        return Ok(true);
    };
    let messages =
        connection
            .prepare_cached(REMOVE_ALL)?
            .execute(params![space.place(0), space.end(), limit])?;
    count(sweep, messages);
    if messages as i64 >= limit {
        return Ok(false);
    }
    connection
        .prepare_cached("DELETE FROM message_space WHERE number = ?1")?
        .execute([space.number])?;
    spaces.forget(namespace);
    Ok(true)
}

/// Removes expired messages of the next namespaces, and ids that need not be remembered any more.
pub(in crate::sqlite) fn sweep_expired(
    connection: &Connection,
    spaces: &mut Spaces,
    now: UnixMillis,
    budget: usize,
    sweep: &mut Sweep,
) -> Result<(), StoreError> {
    let now_ms = now.0.min(i64::MAX as u64) as i64;
    let mut left = budget;
    let ids = connection
        .prepare_cached(FORGET)?
        .execute(params![now_ms, left as i64])?;
    count(sweep, ids);
    left -= ids.min(left);
    for _ in 0..SWEEP_NAMESPACES {
        if left == 0 {
            sweep.more = true;
            return Ok(());
        }
        let Some(namespace) = space::next_after(connection, spaces.swept)? else {
            // The next step begins anew.
            spaces.swept = 0;
            return Ok(());
        };
        let removed = remove_expired(connection, namespace, now_ms, left)?;
        count(sweep, removed);
        left -= removed.min(left);
        if left > 0 {
            spaces.swept = namespace.0;
        }
    }
    sweep.more = true;
    Ok(())
}

/// Removes the oldest messages of a namespace as far as they have expired.
fn remove_expired(
    connection: &Connection,
    namespace: NamespaceId,
    now_ms: i64,
    budget: usize,
) -> Result<usize, StoreError> {
    let Some(space) = space::load(connection, namespace)? else {
        return Ok(0);
    };
    let mut last = None;
    {
        let mut statement = connection.prepare_cached(OLDEST)?;
        let mut rows = statement.query(params![space.place(0), space.end()])?;
        for _ in 0..budget {
            let Some(row) = rows.next()? else { break };
            match row.get::<_, Option<i64>>(1)? {
                Some(at) if at <= now_ms => last = Some(row.get::<_, i64>(0)?),
                _ => break,
            }
        }
    }
    let Some(last) = last else { return Ok(0) };
    let mut statement = connection.prepare_cached("DELETE FROM message WHERE place BETWEEN ?1 AND ?2")?;
    Ok(statement.execute(params![space.place(0), last])?)
}

fn count(sweep: &mut Sweep, rows: usize) {
    sweep.examined += rows;
    sweep.removed += rows;
}

const KNOWN: &str = "SELECT digest FROM message_id WHERE namespace = ?1 AND id = ?2 AND forget_at > ?3";
const REMEMBER: &str = "INSERT INTO message_id (namespace, id, digest, forget_at) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (namespace, id) DO UPDATE SET digest = excluded.digest, forget_at = excluded.forget_at";
const PUBLISH: &str = "INSERT INTO message
    (place, partition, topic, key, id, time_ms, expires_at, attributes, payload)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const FORGET: &str = "DELETE FROM message_id WHERE (namespace, id) IN
    (SELECT namespace, id FROM message_id WHERE forget_at <= ?1 LIMIT ?2)";
const FORGET_ALL: &str = "DELETE FROM message_id WHERE (namespace, id) IN
    (SELECT namespace, id FROM message_id WHERE namespace = ?1 LIMIT ?2)";
const FORGET_GROUPS: &str = "DELETE FROM message_group WHERE (namespace, name) IN
    (SELECT namespace, name FROM message_group WHERE namespace = ?1 LIMIT ?2)";
const REMOVE_ALL: &str = "DELETE FROM message WHERE place IN
    (SELECT place FROM message WHERE place >= ?1 AND place < ?2 ORDER BY place LIMIT ?3)";
const OLDEST: &str = "SELECT place, expires_at FROM message WHERE place >= ?1 AND place < ?2 ORDER BY place";
