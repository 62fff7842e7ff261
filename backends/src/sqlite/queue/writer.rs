//! The writer's part: changes, receiving and extending, many of them in one transaction.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{Entry, all, columns, first, first_head, millis, phase_number, time};
use crate::api::queue::{
    Act, Attempt, Change, Held, ID_WINDOW_MS, Item, LEASE_ENDED, Late, MOVED_MAX, NewMessage, Outcome,
    PASSED_MAX, Receive, Received, Sink, State, Which, cut_reason,
};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::sqlite::Writer;
use crate::sqlite::file::positions;
use crate::sqlite::file::transaction::in_transaction;
use crate::sqlite::keyvalue::writer::State as WriterState;
use crate::sqlite::pubsub::place_range;

/// A transaction of the writer, for calls of queues in their order.
pub struct QueueTransaction<'w> {
    connection: &'w Connection,
    state: &'w mut WriterState,
}

impl std::fmt::Debug for QueueTransaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueueTransaction")
    }
}

impl Writer {
    /// Runs `work` in one transaction, with positions as [`Writer::apply_at`] notes them. Where all
    /// of them were noted before, the answers are those of now, and nothing is done.
    ///
    /// Errors: as of `work`, which has then done nothing; see [`crate::api::queue::Writes::apply`].
    pub fn queue_at<T>(
        &mut self,
        positions: &[LogPosition],
        work: impl FnOnce(&mut QueueTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (connection, shared, state) = self.parts();
        let mut repeat = None;
        let result = in_transaction(connection, shared, || {
            let is_repeat = !positions.is_empty() && !positions::note(connection, positions)?;
            let mut transaction = QueueTransaction { connection, state };
            let done = work(&mut transaction)?;
            if is_repeat {
                // Ids that were remembered may be forgotten by now: only a rollback has no effect.
                repeat = Some(done);
                let detail = "a batch that was applied before is rolled back".to_owned();
                return Err(StoreError::Internal { detail });
            }
            state.spaces.note(connection)?;
            state.note_stamps(connection)?;
            Ok(done)
        });
        state.settle(result.is_ok());
        repeat.map_or(result, Ok)
    }

    /// When the first message of a queue may be given; `None` while nothing is undone. Needs no
    /// transaction.
    ///
    /// Errors: as of SQLite; there is no such namespace.
    pub fn queue_ready_at(&mut self, namespace: NamespaceId) -> Result<Option<UnixMillis>, StoreError> {
        let (connection, _, state) = self.parts();
        state.check_namespace(namespace)?;
        first_head(connection, namespace)
    }
}

impl QueueTransaction<'_> {
    /// Whether calls of a namespace may be served.
    ///
    /// Errors: it is not there.
    pub fn check(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.state.check_namespace(namespace)
    }

    /// Makes one change. A refusal is an outcome; an error ends the transaction.
    pub fn apply(&mut self, change: &Change<'_>) -> Result<Outcome, StoreError> {
        if let Err(cause) = self.state.check_namespace(change.namespace) {
            return Ok(Outcome::Refused(cause));
        }
        let at = change.at;
        match &change.act {
            Act::Send(message) => self.send(change, message),
            Act::Ack(held) => self.ack(change, held),
            Act::Nack {
                held,
                verdict,
                reason,
            } => {
                let namespace = change.namespace;
                let Some(mut entry) = Entry::find(self.connection, namespace, held.id)? else {
                    return Ok(match self.not_there(namespace, held, at)? {
                        // What is done cannot fail any more.
                        Outcome::Acked => Outcome::Late(Late::Gone),
                        other => other,
                    });
                };
                Ok(match entry.item.nack(held.attempt, *verdict, at) {
                    Ok(is_new) => {
                        if is_new {
                            entry.failure = cut_reason(reason).to_owned();
                            entry.store(self.connection, namespace, None)?;
                        }
                        Outcome::Nacked(entry.item.state(at))
                    }
                    Err(late) => Outcome::Late(late),
                })
            }
            Act::Redrive { call, digest, which } => self.once(change, call, *digest, *which, Self::redrive),
            Act::Delete { call, digest, which } => self.once(change, call, *digest, *which, Self::delete),
        }
    }

    fn send(&mut self, change: &Change<'_>, message: &NewMessage<'_>) -> Result<Outcome, StoreError> {
        if let Err(cause) = message.check() {
            return Ok(Outcome::Refused(cause));
        }
        let Change {
            namespace, terms, at, ..
        } = *change;
        let connection = self.connection;
        let known = connection
            .prepare_cached(KNOWN)?
            .query_row(params![namespace.0, message.id, millis(at)], |row| {
                row.get::<_, Option<i64>>(0)
            })
            .optional()?;
        match known.map(|digest| digest.map(i64::cast_unsigned)) {
            Some(digest) if digest == message.digest => return Ok(Outcome::Repeat),
            Some(_) => return Ok(Outcome::Refused(StoreError::TokenReused)),
            None => {}
        }
        let key = terms.ordered.then_some(message.key);
        let item = Item::new(
            at,
            message.delay_ms,
            message.attempts_max,
            terms.ttl_ms,
            terms.retention_ms,
        );
        let is_head = match key {
            Some(key) => !connection
                .prepare_cached(HAS_LINE)?
                .query_row(params![namespace.0, key], |row| row.get::<_, bool>(0))?,
            None => true,
        };
        let place = self.next_place(namespace)?;
        connection.prepare_cached(SEND)?.execute(params![
            place,
            namespace.0,
            message.id,
            message.digest.map(u64::cast_signed),
            key,
            is_head,
            phase_number(item.phase),
            millis(item.at),
            item.attempts_max,
            millis(item.sent_at),
            item.begin_by.map(millis),
            millis(item.dead_by),
            millis(item.look_at()),
        ])?;
        connection
            .prepare_cached(SEND_BODY)?
            .execute(params![place, message.attributes, message.payload])?;
        Ok(Outcome::Sent)
    }

    fn next_place(&mut self, namespace: NamespaceId) -> Result<i64, StoreError> {
        let space = self.state.spaces.of(self.connection, namespace)?;
        let place = space.place(space.next);
        space.next += 1;
        Ok(place)
    }

    fn ack(&mut self, change: &Change<'_>, held: &Held<'_>) -> Result<Outcome, StoreError> {
        let (namespace, at) = (change.namespace, change.at);
        let Some(mut entry) = Entry::find(self.connection, namespace, held.id)? else {
            return self.not_there(namespace, held, at);
        };
        let before = entry.item.phase;
        match entry.item.ack(held.attempt, at) {
            Err(late) => return Ok(Outcome::Late(late)),
            Ok(false) => {}
            Ok(true) if change.terms.replay => entry.store(self.connection, namespace, None)?,
            Ok(true) => {
                entry.item.phase = before;
                self.remove(namespace, &entry, Some(held.attempt), at)?;
            }
        }
        Ok(Outcome::Acked)
    }

    /// Removes a message, and remembers its id.
    fn remove(
        &mut self,
        namespace: NamespaceId,
        entry: &Entry,
        acked: Option<Attempt>,
        at: UnixMillis,
    ) -> Result<(), StoreError> {
        entry.remove(self.connection, namespace)?;
        remember(self.connection, namespace, entry, acked, at)
    }

    /// Answer about a message that has left.
    fn not_there(
        &mut self,
        namespace: NamespaceId,
        held: &Held<'_>,
        at: UnixMillis,
    ) -> Result<Outcome, StoreError> {
        let acked = self
            .connection
            .prepare_cached(GONE)?
            .query_row(params![namespace.0, held.id, millis(at)], |row| {
                Ok(Attempt {
                    sent_at: time(row.get(0)?),
                    serial: row.get(1)?,
                })
            })
            .optional()?;
        Ok(match acked {
            Some(acked) if acked == held.attempt => Outcome::Acked,
            Some(acked) if acked.serial > 0 => Outcome::Late(Late::Lost),
            _ => Outcome::Late(Late::Gone),
        })
    }

    // --- calls that move messages ---

    /// Makes a call that moves messages, unless it was made before.
    fn once(
        &mut self,
        change: &Change<'_>,
        call: &[u8],
        digest: Option<u64>,
        which: Which<'_>,
        act: fn(&mut Self, NamespaceId, Entry, UnixMillis) -> Result<bool, StoreError>,
    ) -> Result<Outcome, StoreError> {
        let Change { namespace, at, .. } = *change;
        let made = self
            .connection
            .prepare_cached(MADE)?
            .query_row(params![namespace.0, call, millis(at)], |row| {
                Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?, row.get(2)?))
            })
            .optional()?;
        if let Some((known, moved, more)) = made {
            return Ok(match known.map(i64::cast_unsigned) == digest {
                true => Outcome::Moved(moved.cast_unsigned(), more),
                false => Outcome::Refused(StoreError::TokenReused),
            });
        }
        let (entries, more) = self.entries_of(namespace, which, at)?;
        let mut moved = 0_u64;
        for entry in entries {
            moved += u64::from(act(self, namespace, entry, at)?);
        }
        self.connection.prepare_cached(MAKE)?.execute(params![
            namespace.0,
            call,
            digest.map(u64::cast_signed),
            moved.cast_signed(),
            more,
            millis(at.plus(ID_WINDOW_MS))
        ])?;
        Ok(Outcome::Moved(moved, more))
    }

    fn entries_of(
        &mut self,
        namespace: NamespaceId,
        which: Which<'_>,
        at: UnixMillis,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let connection = self.connection;
        let mut entries = Vec::new();
        match which {
            Which::Ids(ids) => {
                let mut known = HashSet::with_capacity(ids.len());
                for id in ids.iter().filter(|id| known.insert(**id)) {
                    entries.extend(Entry::find(connection, namespace, id)?);
                }
                Ok((entries, false))
            }
            Which::State(state) => {
                let Some((begin, end)) = place_range(connection, namespace)? else {
                    return Ok((entries, false));
                };
                let mut statement = connection.prepare_cached(match state {
                    State::Done => OF_DONE,
                    _ => OF_QUEUE,
                })?;
                let mut rows = match state {
                    State::Done => statement.query([i64::from(namespace.0)])?,
                    _ => statement.query([begin, end])?,
                };
                while let Some(row) = rows.next()? {
                    let entry = Entry::read(row)?;
                    if entry.item.state(at) == state {
                        if entries.len() == MOVED_MAX {
                            return Ok((entries, true));
                        }
                        entries.push(entry);
                    }
                }
                Ok((entries, false))
            }
        }
    }

    fn redrive(
        &mut self,
        namespace: NamespaceId,
        mut entry: Entry,
        at: UnixMillis,
    ) -> Result<bool, StoreError> {
        if entry.item.state(at).is_undone() {
            return Ok(false);
        }
        entry.bury(self.connection, namespace, at)?;
        let place = self.next_place(namespace)?;
        entry.item.redrive(at);
        let item = &entry.item;
        self.connection.prepare_cached(REDRIVE)?.execute(params![
            entry.place,
            place,
            phase_number(item.phase),
            millis(item.at),
            millis(item.sent_at),
            item.begin_by.map(millis),
            millis(item.dead_by),
            millis(item.look_at()),
            // Without order all are heads.
            entry.key.is_none(),
        ])?;
        entry.lead_next(self.connection, namespace)?;
        Ok(true)
    }

    fn delete(&mut self, namespace: NamespaceId, entry: Entry, at: UnixMillis) -> Result<bool, StoreError> {
        if entry.item.state(at) == State::Leased {
            return Ok(false);
        }
        self.remove(namespace, &entry, None, at)?;
        Ok(true)
    }

    // --- workers ---

    /// Leases messages; see [`crate::api::queue::Writes::receive`].
    pub fn receive(
        &mut self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError> {
        let Receive {
            namespace,
            call,
            messages_max,
            lease_ms,
        } = *receive;
        self.state.check_namespace(namespace)?;
        let connection = self.connection;
        let mut received = Received::default();
        if !call.is_empty() {
            for entry in all(connection, OF_CALL, &[&namespace.0, &call])? {
                if entry.item.state(now) == State::Leased
                    && entry.show(connection, entry.item, &entry.failure, true, |shown| {
                        sink.message(shown)
                    })?
                {
                    received.messages += 1;
                }
            }
            if received.messages > 0 {
                return Ok(received);
            }
        }
        for _ in 0..messages_max + PASSED_MAX {
            if received.messages >= messages_max {
                received.next_at = first_head(connection, namespace)?;
                break;
            }
            let Some(mut entry) = first(connection, FIRST, &[&namespace.0])? else {
                break;
            };
            if entry.item.at > now {
                received.next_at = Some(entry.item.at);
                break;
            }
            if entry.bury(connection, namespace, now)? {
                continue;
            }
            let mut item = entry.item;
            if item.claim(now, lease_ms) {
                entry.failure = LEASE_ENDED.to_owned();
            }
            if !entry.show(connection, item, &entry.failure, true, |shown| {
                sink.message(shown)
            })? {
                received.next_at = Some(now);
                break;
            }
            entry.item = item;
            entry.store(connection, namespace, (!call.is_empty()).then_some(call))?;
            received.messages += 1;
        }
        Ok(received)
    }

    /// Makes one lease longer; see [`crate::api::queue::Writes::extend`].
    pub fn extend(
        &mut self,
        namespace: NamespaceId,
        held: &Held<'_>,
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<Result<UnixMillis, Late>, StoreError> {
        self.state.check_namespace(namespace)?;
        let Some(mut entry) = Entry::find(self.connection, namespace, held.id)? else {
            return Ok(Err(match self.not_there(namespace, held, now)? {
                Outcome::Late(late) => late,
                _ => Late::Gone,
            }));
        };
        if let Err(late) = entry.item.extend(held.attempt, lease_ms, now) {
            return Ok(Err(late));
        }
        let item = &entry.item;
        self.connection.prepare_cached(EXTEND)?.execute(params![
            entry.place,
            millis(item.at),
            millis(item.look_at())
        ])?;
        Ok(Ok(item.at))
    }
}

/// Remembers the id of a message that leaves.
pub(super) fn remember(
    connection: &Connection,
    namespace: NamespaceId,
    entry: &Entry,
    acked: Option<Attempt>,
    at: UnixMillis,
) -> Result<(), StoreError> {
    connection.prepare_cached(REMEMBER)?.execute(params![
        namespace.0,
        entry.id,
        entry.digest.map(u64::cast_signed),
        millis(acked.map_or(entry.item.sent_at, |acked| acked.sent_at)),
        acked.map_or(0, |acked| acked.serial),
        millis(at.plus(ID_WINDOW_MS)),
    ])?;
    Ok(())
}

const KNOWN: &str = "SELECT digest FROM queue_item WHERE namespace = ?1 AND id = ?2
    UNION ALL SELECT digest FROM queue_gone WHERE namespace = ?1 AND id = ?2 AND forget_at > ?3";
const HAS_LINE: &str = "SELECT EXISTS
    (SELECT 1 FROM queue_item WHERE namespace = ?1 AND key = ?2 AND key IS NOT NULL AND phase < 2)";
const SEND: &str =
    "INSERT INTO queue_item (place, namespace, id, digest, key, head, phase, at, serial, spent, judged,
    attempts_max, sent_at, leased_at, begin_by, dead_by, look_at, call, failure, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, 0, ?9, ?10, 0, ?11, ?12, ?13, NULL, '', ?1)";
const SEND_BODY: &str = "INSERT INTO queue_body (place, attributes, payload) VALUES (?1, ?2, ?3)";
const GONE: &str =
    "SELECT sent_at, serial FROM queue_gone WHERE namespace = ?1 AND id = ?2 AND forget_at > ?3";
const REMEMBER: &str = "INSERT INTO queue_gone (namespace, id, digest, sent_at, serial, forget_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (namespace, id) DO UPDATE SET digest = excluded.digest,
    sent_at = excluded.sent_at, serial = excluded.serial, forget_at = excluded.forget_at";
const MADE: &str =
    "SELECT digest, moved, more FROM queue_call WHERE namespace = ?1 AND call = ?2 AND forget_at > ?3";
const MAKE: &str = "INSERT OR REPLACE INTO queue_call (namespace, call, digest, moved, more, forget_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const OF_QUEUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM queue_item WHERE place >= ?1 AND place < ?2 ORDER BY place"
);
const OF_DONE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM queue_item WHERE namespace = ?1 AND phase >= 2 AND phase = 3 ORDER BY place"
);
const OF_CALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM queue_item WHERE namespace = ?1 AND call = ?2 AND call IS NOT NULL ORDER BY at, place"
);
const FIRST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM queue_item WHERE namespace = ?1 AND head = 1 ORDER BY at, place LIMIT 1"
);
const REDRIVE: &str = "UPDATE queue_item SET place = ?2, phase = ?3, at = ?4, serial = 0, spent = 0, judged = 0,
    sent_at = ?5, leased_at = 0, begin_by = ?6, dead_by = ?7, look_at = ?8, call = NULL, failure = '', head = ?9
    WHERE place = ?1";
const EXTEND: &str = "UPDATE queue_item SET at = ?2, look_at = ?3 WHERE place = ?1";
