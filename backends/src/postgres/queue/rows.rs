//! Rows of messages: how they are read, and written many at a time.

use tokio_postgres::Row;

use crate::api::queue::{Item, Phase, Shown};
use crate::error::StoreError;
use crate::ids::UnixMillis;
use crate::postgres::connect::{Fault, Link};

/// A message without what was sent.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) namespace: i64,
    pub(super) place: i64,
    pub(super) id: Vec<u8>,
    pub(super) digest: Option<u64>,
    /// `None` where there is no order.
    pub(super) key: Option<String>,
    pub(super) item: Item,
    pub(super) failure: String,
    /// Place of what was sent, in its own table.
    pub(super) body: i64,
    /// Bytes of what was sent.
    pub(super) bytes: i64,
}

/// Columns of an [`Entry`], in the order in which it reads them.
macro_rules! columns {
    () => {
        "i.namespace, i.place, i.id, i.digest, i.key, i.phase, i.at, i.serial, i.spent, i.judged, i.attempts_max, \
         i.sent_at, i.leased_at, i.begin_by, i.dead_by, i.failure, i.body, i.bytes"
    };
}
pub(super) use columns;

/// Condition of a message that time has made dead, though its row does not say so yet. Takes the
/// parameter with the time; see [`Item::death`].
macro_rules! dying {
    ($now:literal) => {
        concat!(
            "(i.phase < 2 AND (i.phase = 0 OR i.at <= ",
            $now,
            ")
            AND ((i.phase = 1 AND i.spent >= i.attempts_max) OR i.dead_by <= ",
            $now,
            " OR (i.serial = 0 AND i.begin_by IS NOT NULL AND i.begin_by <= ",
            $now,
            ")))"
        )
    };
}
pub(super) use dying;

/// Number of a message's state at a time, as in [`crate::api::queue::State::ALL`].
macro_rules! state {
    ($now:literal) => {
        concat!(
            "(CASE WHEN i.phase = 2 THEN 3 WHEN i.phase = 3 THEN 4 WHEN i.phase = 1 AND i.at > ",
            $now,
            " THEN 2 WHEN ",
            $crate::postgres::queue::rows::dying!($now),
            " THEN 3 WHEN i.phase = 0 AND i.at > ",
            $now,
            " THEN 1 ELSE 0 END)"
        )
    };
}
pub(super) use state;

impl Entry {
    pub(super) fn read(row: &Row) -> Result<Entry, Fault> {
        let phase = match row.try_get::<_, i16>(5)? {
            0 => Phase::Waiting,
            1 => Phase::Leased,
            2 => Phase::Dead,
            3 => Phase::Done,
            other => return Err(corrupt(format!("a message of a queue has the phase {other}")).into()),
        };
        let key = row.try_get::<_, Option<&[u8]>>(4)?;
        Ok(Entry {
            namespace: row.try_get(0)?,
            place: row.try_get(1)?,
            id: row.try_get(2)?,
            digest: row.try_get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
            key: key.map(text).transpose()?,
            item: Item {
                phase,
                at: time(row.try_get(6)?),
                serial: count(row.try_get(7)?)?,
                spent: count(row.try_get(8)?)?,
                judged: count(row.try_get(9)?)?,
                attempts_max: count(row.try_get(10)?)?,
                sent_at: time(row.try_get(11)?),
                leased_at: time(row.try_get(12)?),
                begin_by: row.try_get::<_, Option<i64>>(13)?.map(time),
                dead_by: time(row.try_get(14)?),
            },
            failure: text(row.try_get(15)?)?,
            body: row.try_get(16)?,
            bytes: row.try_get(17)?,
        })
    }

    pub(super) fn read_all(rows: &[Row]) -> Result<Vec<Entry>, Fault> {
        rows.iter().map(Entry::read).collect()
    }

    /// Gives it the death that time has brought. Whether it has.
    pub(super) fn bury(&mut self, now: UnixMillis) -> bool {
        let Some(why) = self.item.death(now) else {
            return false;
        };
        why.clone_into(&mut self.failure);
        self.item.bury(now);
        true
    }

    /// The message as it is shown, with what was sent.
    pub(super) fn shown<'a>(&'a self, failure: &'a str, body: &'a Body) -> Shown<'a> {
        Shown {
            id: &self.id,
            item: self.item,
            key: self.key.as_deref().unwrap_or_default(),
            attributes: &body.attributes,
            payload: &body.payload,
            failure,
        }
    }
}

/// Attributes and payload of a message.
pub(super) struct Body {
    pub(super) place: i64,
    pub(super) attributes: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// Most bytes of messages that are read at once, beyond the first.
const READ_BYTES_MAX: i64 = 4 << 20;

/// Bytes that a message takes beside what was sent.
const OVERHEAD: i64 = 64;

/// Number of the first entries whose bodies are read together.
pub(super) fn readable(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.bytes + OVERHEAD;
        bytes <= READ_BYTES_MAX
    };
    entries.iter().take_while(fits).count().max(entries.len().min(1))
}

/// Reads what was sent with these messages of one namespace. Those that have left meanwhile are
/// left out.
pub(super) async fn bodies(
    link: &Link,
    namespace: i64,
    entries: &[Entry],
    with_payload: bool,
) -> Result<Vec<Body>, Fault> {
    let places: Vec<i64> = entries.iter().map(|entry| entry.body).collect();
    let statement = if with_payload { BODIES } else { ATTRIBUTES };
    let rows = link.query(statement, &[&namespace, &places]).await?;
    let mut bodies = Vec::with_capacity(rows.len());
    for row in rows {
        bodies.push(Body {
            place: row.try_get(0)?,
            attributes: row.try_get(1)?,
            payload: row.try_get(2)?,
        });
    }
    Ok(bodies)
}

/// Columns of rows that are written together.
#[derive(Default)]
pub(super) struct Columns<'e> {
    namespaces: Vec<i64>,
    /// Places that the rows have until now.
    rows: Vec<i64>,
    places: Vec<i64>,
    ids: Vec<&'e [u8]>,
    digests: Vec<Option<i64>>,
    keys: Vec<Option<&'e [u8]>>,
    phases: Vec<i16>,
    ats: Vec<i64>,
    serials: Vec<i64>,
    spents: Vec<i64>,
    judgeds: Vec<i64>,
    attempts_max: Vec<i64>,
    sent_ats: Vec<i64>,
    leased_ats: Vec<i64>,
    begin_bys: Vec<Option<i64>>,
    dead_bys: Vec<i64>,
    look_ats: Vec<i64>,
    calls: Vec<Option<&'e [u8]>>,
    failures: Vec<&'e [u8]>,
    bodies: Vec<i64>,
    bytes: Vec<i64>,
    attributes: Vec<&'e [u8]>,
    payloads: Vec<&'e [u8]>,
}

impl<'e> Columns<'e> {
    /// Adds a row that is at `row` until now. `call`: id of the Receive that leases it.
    pub(super) fn add(&mut self, row: i64, entry: &'e Entry, call: Option<&'e [u8]>) {
        let item = &entry.item;
        self.namespaces.push(entry.namespace);
        self.rows.push(row);
        self.places.push(entry.place);
        self.ids.push(&entry.id);
        self.digests.push(entry.digest.map(u64::cast_signed));
        self.keys.push(entry.key.as_deref().map(str::as_bytes));
        self.phases.push(phase_number(item.phase));
        self.ats.push(millis(item.at));
        self.serials.push(item.serial.into());
        self.spents.push(item.spent.into());
        self.judgeds.push(item.judged.into());
        self.attempts_max.push(item.attempts_max.into());
        self.sent_ats.push(millis(item.sent_at));
        self.leased_ats.push(millis(item.leased_at));
        self.begin_bys.push(item.begin_by.map(millis));
        self.dead_bys.push(millis(item.dead_by));
        self.look_ats.push(millis(item.look_at()));
        self.calls.push(call);
        self.failures.push(entry.failure.as_bytes());
        self.bodies.push(entry.body);
        self.bytes.push(entry.bytes);
    }

    /// Adds a row that is new, with what was sent.
    pub(super) fn add_new(&mut self, entry: &'e Entry, attributes: &'e [u8], payload: &'e [u8]) {
        self.add(entry.place, entry, None);
        self.attributes.push(attributes);
        self.payloads.push(payload);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Writes new rows. Of an ordered queue none may be given yet.
    pub(super) async fn insert(&self, link: &Link) -> Result<(), Fault> {
        link.execute(
            INSERT,
            &[
                &self.namespaces,
                &self.places,
                &self.ids,
                &self.digests,
                &self.keys,
                &self.phases,
                &self.ats,
                &self.serials,
                &self.spents,
                &self.judgeds,
                &self.attempts_max,
                &self.sent_ats,
                &self.leased_ats,
                &self.begin_bys,
                &self.dead_bys,
                &self.look_ats,
                &self.failures,
                &self.bytes,
                &self.attributes,
                &self.payloads,
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes rows over those that are there.
    pub(super) async fn update(&self, link: &Link) -> Result<(), Fault> {
        link.execute(
            UPDATE,
            &[
                &self.namespaces,
                &self.rows,
                &self.places,
                &self.phases,
                &self.ats,
                &self.serials,
                &self.spents,
                &self.judgeds,
                &self.sent_ats,
                &self.leased_ats,
                &self.begin_bys,
                &self.dead_bys,
                &self.look_ats,
                &self.calls,
                &self.failures,
            ],
        )
        .await?;
        Ok(())
    }
}

/// Statements of this module that a transaction may send without waiting in between.
pub(super) const PIPELINED: [&str; 2] = [INSERT, UPDATE];

pub(super) fn is_undone(phase: Phase) -> bool {
    matches!(phase, Phase::Waiting | Phase::Leased)
}

fn phase_number(phase: Phase) -> i16 {
    match phase {
        Phase::Waiting => 0,
        Phase::Leased => 1,
        Phase::Dead => 2,
        Phase::Done => 3,
    }
}

pub(super) fn time(millis: i64) -> UnixMillis {
    UnixMillis(millis.max(0).cast_unsigned())
}

pub(super) fn millis(time: UnixMillis) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

pub(super) fn count(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| corrupt(format!("a message of a queue has the number {number}")))
}

fn text(bytes: &[u8]) -> Result<String, StoreError> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| corrupt("a text of a queue is not UTF-8".to_owned()))?;
    Ok(text.to_owned())
}

fn corrupt(detail: String) -> StoreError {
    StoreError::Corrupt { detail }
}

static BODIES: &str = "SELECT place, attributes, payload FROM prism.queue_body
    WHERE namespace = $1 AND place = ANY($2::int8[])";
static ATTRIBUTES: &str = "SELECT place, attributes, ''::bytea FROM prism.queue_body
    WHERE namespace = $1 AND place = ANY($2::int8[])";

const INSERT: &str = "WITH bodies AS (
        INSERT INTO prism.queue_body (namespace, place, attributes, payload)
        SELECT * FROM unnest($1::int8[], $2::int8[], $19::bytea[], $20::bytea[])
    )
    INSERT INTO prism.queue_item (namespace, place, id, digest, key, head, phase, at, serial, spent, judged,
        attempts_max, sent_at, leased_at, begin_by, dead_by, look_at, failure, body, bytes)
    SELECT r.namespace, r.place, r.id, r.digest, r.key, r.key IS NULL AND r.phase < 2, r.phase, r.at, r.serial,
        r.spent, r.judged, r.attempts_max, r.sent_at, r.leased_at, r.begin_by, r.dead_by, r.look_at, r.failure,
        r.place, r.bytes
    FROM unnest($1::int8[], $2::int8[], $3::bytea[], $4::int8[], $5::bytea[], $6::int2[], $7::int8[], $8::int8[],
        $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[],
        $17::bytea[], $18::int8[])
        AS r (namespace, place, id, digest, key, phase, at, serial, spent, judged, attempts_max, sent_at, leased_at,
            begin_by, dead_by, look_at, failure, bytes)";

const UPDATE: &str = "UPDATE prism.queue_item i SET place = r.place, phase = r.phase, at = r.at, serial = r.serial,
        spent = r.spent, judged = r.judged, sent_at = r.sent_at, leased_at = r.leased_at, begin_by = r.begin_by,
        dead_by = r.dead_by, look_at = r.look_at, call = r.call, failure = r.failure,
        head = CASE WHEN r.phase >= 2 THEN false WHEN i.key IS NULL THEN true
            WHEN r.place <> r.was THEN false ELSE i.head END
    FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int2[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
        $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::bytea[], $15::bytea[])
        AS r (namespace, was, place, phase, at, serial, spent, judged, sent_at, leased_at, begin_by, dead_by,
            look_at, call, failure)
    WHERE i.namespace = r.namespace AND i.place = r.was";
