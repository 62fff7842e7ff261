//! Messages while a transaction works on them: loaded, changed by the machine of
//! [`crate::api::queue::Item`], and written down together.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::rows::{Columns, Entry, PIPELINED, columns, count, dying, is_undone, millis, state, time};
use crate::api::queue::{
    Act, Attempt, Change, Held, ID_WINDOW_MS, Item, Late, MOVED_MAX, NewMessage, Outcome, State, Which,
    cut_reason,
};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::postgres::connect::{Fault, Link};
use crate::postgres::counters::Counters;

/// Messages of a transaction, and the memory of those that have left, by namespace and id.
pub(super) struct Work<'l, 'm> {
    link: &'l Link,
    counters: Counters,
    cells: FxHashMap<i64, FxHashMap<Vec<u8>, Cell<'m>>>,
    /// Keys in which the first message may be another one.
    lines: BTreeSet<(i64, String)>,
}

/// A message, or the memory of one that has left.
#[derive(Default)]
struct Cell<'m> {
    entry: Option<Entry>,
    /// Places of its row, and of what was sent, as the tables have them.
    row: Option<(i64, i64)>,
    /// Attributes and payload, as long as the tables lack them.
    body: Option<(&'m [u8], &'m [u8])>,
    gone: Option<Gone>,
    is_changed: bool,
    is_gone_new: bool,
}

/// The memory of a message that has left.
#[derive(Clone, Copy)]
struct Gone {
    digest: Option<u64>,
    /// The attempt that was acked; its serial is 0 if none was.
    acked: Attempt,
    forget_at: UnixMillis,
}

/// A call that moves messages, or removes them.
#[derive(Clone, Copy)]
struct Move<'a> {
    call: &'a [u8],
    digest: Option<u64>,
    which: Which<'a>,
    is_redrive: bool,
}

impl<'l, 'm> Work<'l, 'm> {
    /// Begins work on namespaces, given in order and each once, whose counters it holds from now
    /// on.
    pub(super) async fn begin(link: &'l Link, namespaces: &[i64]) -> Result<Work<'l, 'm>, Fault> {
        link.prepare(&PIPELINED).await?;
        link.prepare(&[ITEMS, GONE, DELETE, REMEMBER, LEAD]).await?;
        Ok(Work {
            link,
            counters: Counters::hold(link, namespaces).await?,
            cells: FxHashMap::default(),
            lines: BTreeSet::new(),
        })
    }

    /// Loads the messages with these ids, and what is remembered of those that have left.
    pub(super) async fn load(&mut self, namespaces: &[i64], ids: &[&[u8]]) -> Result<(), Fault> {
        if ids.is_empty() {
            return Ok(());
        }
        // The items first: who is not among them any more has been remembered before.
        let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[&namespaces, &ids];
        let (items, gone) = tokio::join!(
            self.link.query(ITEMS, parameters),
            self.link.query(GONE, parameters)
        );
        for entry in Entry::read_all(&items?)? {
            self.put(entry);
        }
        for row in gone? {
            let id: Vec<u8> = row.try_get(1)?;
            let gone = Gone {
                digest: row.try_get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
                acked: Attempt {
                    sent_at: time(row.try_get(3)?),
                    serial: count(row.try_get(4)?)?,
                },
                forget_at: time(row.try_get(5)?),
            };
            self.cell(row.try_get(0)?, &id).gone = Some(gone);
        }
        Ok(())
    }

    fn put(&mut self, entry: Entry) {
        let row = (entry.place, entry.body);
        let id = entry.id.clone();
        let cell = self.cell(entry.namespace, &id);
        cell.row = Some(row);
        cell.entry = Some(entry);
    }

    fn cell(&mut self, namespace: i64, id: &[u8]) -> &mut Cell<'m> {
        let cells = self.cells.entry(namespace).or_default();
        if !cells.contains_key(id) {
            cells.insert(id.to_vec(), Cell::default());
        }
        cells.get_mut(id).expect("it was just put there")
    }

    /// Makes one change. The messages that it names are loaded.
    pub(super) async fn apply(&mut self, change: &Change<'m>) -> Result<Outcome, Fault> {
        if let Err(cause) = self.counters.check(change.namespace) {
            return Ok(Outcome::Refused(cause));
        }
        let namespace = i64::from(change.namespace.0);
        let at = change.at;
        match &change.act {
            Act::Send(message) => Ok(self.send(change, message)?),
            Act::Ack(held) => Ok(self.ack(change, held)),
            Act::Nack {
                held,
                verdict,
                reason,
            } => {
                let cell = self.cell(namespace, held.id);
                let Some(entry) = &mut cell.entry else {
                    return Ok(match cell.not_there(held, at) {
                        // What is done cannot fail any more.
                        Outcome::Acked => Outcome::Late(Late::Gone),
                        other => other,
                    });
                };
                let is_new = match entry.item.nack(held.attempt, *verdict, at) {
                    Ok(is_new) => is_new,
                    Err(late) => return Ok(Outcome::Late(late)),
                };
                let state = entry.item.state(at);
                if is_new {
                    cut_reason(reason).clone_into(&mut entry.failure);
                    cell.is_changed = true;
                    self.note_line(namespace, held.id);
                }
                Ok(Outcome::Nacked(state))
            }
            Act::Redrive { call, digest, which } | Act::Delete { call, digest, which } => {
                let is_redrive = matches!(change.act, Act::Redrive { .. });
                let own = Move {
                    call,
                    digest: *digest,
                    which: *which,
                    is_redrive,
                };
                self.once(namespace, at, &own).await
            }
        }
    }

    fn send(&mut self, change: &Change<'m>, message: &NewMessage<'m>) -> Result<Outcome, StoreError> {
        if let Err(cause) = message.check() {
            return Ok(Outcome::Refused(cause));
        }
        let Change { terms, at, .. } = *change;
        let namespace = i64::from(change.namespace.0);
        let cell = self.cell(namespace, message.id);
        let remembered = cell
            .gone
            .filter(|gone| gone.forget_at > at)
            .map(|gone| gone.digest);
        let known = cell.entry.as_ref().map(|entry| entry.digest).or(remembered);
        match known {
            Some(digest) if digest == message.digest => return Ok(Outcome::Repeat),
            Some(_) => return Ok(Outcome::Refused(StoreError::TokenReused)),
            None => {}
        }
        let item = Item::new(
            at,
            message.delay_ms,
            message.attempts_max,
            terms.ttl_ms,
            terms.retention_ms,
        );
        let (place, _) = self.counters.take(namespace, millis(at))?;
        let cell = self.cell(namespace, message.id);
        cell.body = Some((message.attributes, message.payload));
        cell.entry = Some(Entry {
            namespace,
            place,
            id: message.id.to_vec(),
            digest: message.digest,
            key: terms.ordered.then(|| message.key.to_owned()),
            item,
            failure: String::new(),
            body: place,
            bytes: (message.attributes.len() + message.payload.len()) as i64,
        });
        self.note_line(namespace, message.id);
        Ok(Outcome::Sent)
    }

    fn ack(&mut self, change: &Change<'_>, held: &Held<'_>) -> Outcome {
        let (namespace, at) = (i64::from(change.namespace.0), change.at);
        let cell = self.cell(namespace, held.id);
        let Some(entry) = &mut cell.entry else {
            return cell.not_there(held, at);
        };
        match entry.item.ack(held.attempt, at) {
            Err(late) => return Outcome::Late(late),
            Ok(false) => {}
            Ok(true) if change.terms.replay => {
                cell.is_changed = true;
                self.note_line(namespace, held.id);
            }
            Ok(true) => self.remove(namespace, held.id, Some(held.attempt), at),
        }
        Outcome::Acked
    }

    /// Notes that the first message of this one's key may be another one.
    fn note_line(&mut self, namespace: i64, id: &[u8]) {
        let entry = self.cell(namespace, id).entry.as_ref();
        if let Some(key) = entry.and_then(|entry| entry.key.clone()) {
            self.lines.insert((namespace, key));
        }
    }

    /// Removes a message, and remembers its id.
    fn remove(&mut self, namespace: i64, id: &[u8], acked: Option<Attempt>, at: UnixMillis) {
        self.note_line(namespace, id);
        let cell = self.cell(namespace, id);
        let Some(entry) = cell.entry.take() else { return };
        cell.body = None;
        cell.is_gone_new = true;
        cell.gone = Some(Gone {
            digest: entry.digest,
            acked: acked.unwrap_or(Attempt {
                sent_at: entry.item.sent_at,
                serial: 0,
            }),
            forget_at: at.plus(ID_WINDOW_MS),
        });
    }

    // --- calls that move messages ---

    /// Makes a call that moves messages, unless it was made before.
    async fn once(&mut self, namespace: i64, at: UnixMillis, own: &Move<'_>) -> Result<Outcome, Fault> {
        let made = self
            .link
            .query(MADE, &[&namespace, &own.call, &millis(at)])
            .await?;
        if let Some(row) = made.first() {
            let known = row.try_get::<_, Option<i64>>(0)?.map(i64::cast_unsigned);
            return Ok(match known == own.digest {
                true => Outcome::Moved(row.try_get::<_, i64>(1)?.cast_unsigned(), row.try_get(2)?),
                false => Outcome::Refused(StoreError::TokenReused),
            });
        }
        let (ids, more) = self.ids_of(namespace, own.which, at).await?;
        let mut moved = 0_i64;
        for id in &ids {
            moved += i64::from(match own.is_redrive {
                true => self.redrive(namespace, id, at)?,
                false => self.delete(namespace, id, at),
            });
        }
        let digest = own.digest.map(u64::cast_signed);
        let forget_at = millis(at.plus(ID_WINDOW_MS));
        self.link
            .execute(MAKE, &[&namespace, &own.call, &digest, &moved, &more, &forget_at])
            .await?;
        Ok(Outcome::Moved(moved.cast_unsigned(), more))
    }

    /// Ids of the messages that a call applies to, which are loaded; whether there are more.
    async fn ids_of(
        &mut self,
        namespace: i64,
        which: Which<'_>,
        at: UnixMillis,
    ) -> Result<(Vec<Vec<u8>>, bool), Fault> {
        match which {
            Which::Ids(ids) => {
                let mut known = BTreeSet::new();
                let own = ids.iter().filter(|id| known.insert(**id));
                Ok((own.map(|id| id.to_vec()).collect(), false))
            }
            Which::State(state) => {
                // The tables are asked, so they must have what this transaction has done.
                self.flush().await?;
                let limit = MOVED_MAX as i64 + 1;
                let rows = match state {
                    State::Done => self.link.query(OF_DONE, &[&namespace, &limit]).await?,
                    _ => {
                        let number = state as i32;
                        self.link
                            .query(OF_STATE, &[&namespace, &millis(at), &number, &limit])
                            .await?
                    }
                };
                let mut entries = Entry::read_all(&rows)?;
                let more = entries.len() > MOVED_MAX;
                entries.truncate(MOVED_MAX);
                let ids = entries.iter().map(|entry| entry.id.clone()).collect();
                entries.into_iter().for_each(|entry| self.put(entry));
                Ok((ids, more))
            }
        }
    }

    fn redrive(&mut self, namespace: i64, id: &[u8], at: UnixMillis) -> Result<bool, StoreError> {
        let is_over = |entry: &Entry| !entry.item.state(at).is_undone();
        if !self.cell(namespace, id).entry.as_ref().is_some_and(is_over) {
            return Ok(false);
        }
        let (place, _) = self.counters.take(namespace, millis(at))?;
        let cell = self.cell(namespace, id);
        if let Some(entry) = &mut cell.entry {
            entry.bury(at);
            entry.item.redrive(at);
            entry.failure.clear();
            entry.place = place;
            cell.is_changed = true;
        }
        self.note_line(namespace, id);
        Ok(true)
    }

    fn delete(&mut self, namespace: i64, id: &[u8], at: UnixMillis) -> bool {
        let entry = self.cell(namespace, id).entry.as_ref();
        if entry.is_none_or(|entry| entry.item.state(at) == State::Leased) {
            return false;
        }
        self.remove(namespace, id, None, at);
        true
    }

    /// Does what time has made due with a loaded message: it dies, or goes.
    pub(super) fn look_over(&mut self, namespace: i64, id: &[u8], now: UnixMillis) {
        let cell = self.cell(namespace, id);
        let Some(entry) = &mut cell.entry else { return };
        if entry.bury(now) {
            cell.is_changed = true;
            self.note_line(namespace, id);
        } else if !is_undone(entry.item.phase) && entry.item.gone_at() <= now {
            self.remove(namespace, id, None, now);
        }
    }

    // --- the tables ---

    /// Writes down what has changed.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        let (mut removed, mut changed, mut new) = <(Removed, Columns<'_>, Columns<'_>)>::default();
        let mut left = Left::default();
        for (namespace, cells) in &self.cells {
            for (id, cell) in cells {
                match (cell.row, &cell.entry, cell.body) {
                    (row, Some(entry), Some((attributes, payload))) => {
                        row.into_iter().for_each(|row| removed.add(*namespace, row));
                        new.add_new(entry, attributes, payload);
                    }
                    (Some((row, _)), Some(entry), None) if cell.is_changed => changed.add(row, entry, None),
                    (Some(row), None, _) => removed.add(*namespace, row),
                    _ => {}
                }
                if let Some(gone) = cell.gone.filter(|_| cell.is_gone_new) {
                    left.add(*namespace, id, &gone);
                }
            }
        }
        let link = self.link;
        let lines: (Vec<i64>, Vec<&[u8]>) = self
            .lines
            .iter()
            .map(|(namespace, key)| (*namespace, key.as_bytes()))
            .unzip();
        // In this order: an id has one row at a time, and a key is led when all its rows are there.
        let results = tokio::join!(
            async {
                if removed.rows.is_empty() {
                    Ok(())
                } else {
                    removed.delete(link).await
                }
            },
            async {
                if changed.is_empty() {
                    Ok(())
                } else {
                    changed.update(link).await
                }
            },
            async {
                if new.is_empty() {
                    Ok(())
                } else {
                    new.insert(link).await
                }
            },
            async {
                if left.ids.is_empty() {
                    Ok(())
                } else {
                    left.remember(link).await
                }
            },
            async {
                if !lines.0.is_empty() {
                    link.execute(LEAD, &[&lines.0, &lines.1]).await?;
                }
                Ok::<_, Fault>(())
            },
        );
        results.0?;
        results.1?;
        results.2?;
        results.3?;
        results.4?;
        self.counters.note(link).await?;
        self.lines.clear();
        for cell in self.cells.values_mut().flat_map(FxHashMap::values_mut) {
            cell.row = cell.entry.as_ref().map(|entry| (entry.place, entry.body));
            (cell.body, cell.is_changed, cell.is_gone_new) = (None, false, false);
        }
        Ok(())
    }
}

impl Cell<'_> {
    /// Answer about a message that has left.
    fn not_there(&self, held: &Held<'_>, at: UnixMillis) -> Outcome {
        match self
            .gone
            .filter(|gone| gone.forget_at > at)
            .map(|gone| gone.acked)
        {
            Some(acked) if acked == held.attempt => Outcome::Acked,
            Some(acked) if acked.serial > 0 => Outcome::Late(Late::Lost),
            _ => Outcome::Late(Late::Gone),
        }
    }
}

/// Rows that leave, with what was sent.
#[derive(Default)]
struct Removed {
    namespaces: Vec<i64>,
    rows: Vec<i64>,
    bodies: Vec<i64>,
}

impl Removed {
    fn add(&mut self, namespace: i64, (row, body): (i64, i64)) {
        self.namespaces.push(namespace);
        self.rows.push(row);
        self.bodies.push(body);
    }

    async fn delete(&self, link: &Link) -> Result<(), Fault> {
        link.execute(DELETE, &[&self.namespaces, &self.rows, &self.bodies])
            .await?;
        Ok(())
    }
}

/// Ids that are remembered.
#[derive(Default)]
struct Left<'c> {
    namespaces: Vec<i64>,
    ids: Vec<&'c [u8]>,
    digests: Vec<Option<i64>>,
    sent_ats: Vec<i64>,
    serials: Vec<i64>,
    forget_ats: Vec<i64>,
}

impl<'c> Left<'c> {
    fn add(&mut self, namespace: i64, id: &'c [u8], gone: &Gone) {
        self.namespaces.push(namespace);
        self.ids.push(id);
        self.digests.push(gone.digest.map(u64::cast_signed));
        self.sent_ats.push(millis(gone.acked.sent_at));
        self.serials.push(gone.acked.serial.into());
        self.forget_ats.push(millis(gone.forget_at));
    }

    async fn remember(&self, link: &Link) -> Result<(), Fault> {
        let rows: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[
            &self.namespaces,
            &self.ids,
            &self.digests,
            &self.sent_ats,
            &self.serials,
            &self.forget_ats,
        ];
        link.execute(REMEMBER, rows).await?;
        Ok(())
    }
}

/// Answer to a worker about an attempt of a message that is not there, by what the store remembers.
pub(super) async fn why_not_there(
    link: &Link,
    namespace: NamespaceId,
    held: &Held<'_>,
    now: UnixMillis,
) -> Result<Late, Fault> {
    let namespace = i64::from(namespace.0);
    let rows = link
        .query(GONE, &[&[namespace].as_slice(), &[held.id].as_slice()])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(Late::Gone);
    };
    let acked = Attempt {
        sent_at: time(row.try_get(3)?),
        serial: count(row.try_get(4)?)?,
    };
    let is_known = time(row.try_get(5)?) > now;
    Ok(match is_known && acked.serial > 0 && acked != held.attempt {
        true => Late::Lost,
        false => Late::Gone,
    })
}

const ITEMS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM prism.queue_item i JOIN unnest($1::int8[], $2::bytea[]) AS r (namespace, id)
        ON i.namespace = r.namespace AND i.id = r.id ORDER BY i.namespace, i.place FOR UPDATE OF i"
);
const GONE: &str =
    "SELECT g.namespace, g.id, g.digest, g.sent_at, g.serial, g.forget_at FROM prism.queue_gone g
    JOIN unnest($1::int8[], $2::bytea[]) AS r (namespace, id) ON g.namespace = r.namespace AND g.id = r.id";
const DELETE: &str = "WITH items AS (
        DELETE FROM prism.queue_item i USING unnest($1::int8[], $2::int8[]) AS r (namespace, place)
        WHERE i.namespace = r.namespace AND i.place = r.place
    )
    DELETE FROM prism.queue_body b USING unnest($1::int8[], $3::int8[]) AS r (namespace, place)
    WHERE b.namespace = r.namespace AND b.place = r.place";
const REMEMBER: &str = "INSERT INTO prism.queue_gone (namespace, id, digest, sent_at, serial, forget_at)
    SELECT * FROM unnest($1::int8[], $2::bytea[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
    ON CONFLICT (namespace, id) DO UPDATE SET digest = excluded.digest, sent_at = excluded.sent_at,
        serial = excluded.serial, forget_at = excluded.forget_at";
/// Lets the first undone message of each key be given.
const LEAD: &str = "UPDATE prism.queue_item q SET head = true
    FROM unnest($1::int8[], $2::bytea[]) AS r (namespace, key),
        LATERAL (SELECT i.namespace, i.place FROM prism.queue_item i
            WHERE i.namespace = r.namespace AND i.key = r.key AND i.key IS NOT NULL AND i.phase < 2
            ORDER BY i.place LIMIT 1) AS first
    WHERE q.namespace = first.namespace AND q.place = first.place AND NOT q.head";
static MADE: &str = "SELECT digest, moved, more FROM prism.queue_call
    WHERE namespace = $1 AND call = $2 AND forget_at > $3";
static MAKE: &str = "INSERT INTO prism.queue_call (namespace, call, digest, moved, more, forget_at)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (namespace, call) DO UPDATE SET digest = excluded.digest, moved = excluded.moved,
        more = excluded.more, forget_at = excluded.forget_at";
static OF_DONE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM prism.queue_item i WHERE i.namespace = $1 AND i.phase >= 2 AND i.phase = 3
        ORDER BY i.place LIMIT $2 FOR UPDATE"
);
static OF_STATE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM prism.queue_item i WHERE i.namespace = $1 AND ",
    state!("$2"),
    " = $3::int4 ORDER BY i.place LIMIT $4 FOR UPDATE"
);
/// Ids of messages that may be given, but are dead by now.
pub(super) static DYING_HEADS: &str = concat!(
    "SELECT i.id FROM prism.queue_item i WHERE i.namespace = $1 AND i.head AND i.at <= $2 AND ",
    dying!("$2"),
    " LIMIT $3"
);
