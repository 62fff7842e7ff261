//! Reading messages: finds where a subscription begins, and goes on from there.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::heads::Head;
use super::space::{self, Space, number_at};
use crate::api::pubsub::{Gap, MessageSink, Opened, Read, STEP_MESSAGES_MAX, Start, Stored};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::is_expired;
use crate::sqlite::Reader;
use crate::sqlite::file::schema::blob;

impl Reader {
    /// Finds a reader's first message; see [`crate::api::pubsub::Reads::open`].
    pub fn open_messages(
        &self,
        namespace: NamespaceId,
        start: Start,
        now: UnixMillis,
    ) -> Result<Opened, StoreError> {
        self.check_namespace(namespace)?;
        let connection = &self.connection;
        self.in_one_snapshot(|| {
            let Some(space) = space::load(connection, namespace)? else {
                return Ok(match start {
                    Start::Number(number) if number != 1 => Opened::Unknown,
                    _ => Opened::At(1),
                });
            };
            opened(connection, &space, start, now)
        })
    }

    /// Reads a step; see [`crate::api::pubsub::Reads::read`].
    pub fn read_messages(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Read, StoreError> {
        self.check_namespace(namespace)?;
        let connection = &self.connection;
        self.in_one_snapshot(|| {
            let Some(space) = space::load(connection, namespace)? else {
                return Ok(Read {
                    next,
                    ..Read::default()
                });
            };
            let mut step = Step {
                next,
                missed: 0,
                oldest_left: None,
            };
            let full = step.go(connection, &space, now, sink)?;
            Ok(Read {
                next: step.next,
                gap: (step.missed > 0).then_some(Gap {
                    messages: step.missed,
                    oldest_left: step.oldest_left,
                }),
                more: full || step.next < space.next,
            })
        })
    }

    /// Has `listener` called after each commit of messages, and when a namespace with readers is
    /// dropped, by the thread that did it. It must not block.
    pub fn on_messages(&self, listener: impl Fn() + Send + 'static) {
        self.shared.heads.listen(Box::new(listener));
    }

    /// How far a namespace's messages have come, to be looked at while a reader waits.
    pub fn head(&self, namespace: NamespaceId) -> Head {
        self.shared.heads.of(namespace)
    }
}

/// Finds a start among the messages of a space.
pub(super) fn opened(
    connection: &Connection,
    space: &Space,
    start: Start,
    now: UnixMillis,
) -> Result<Opened, StoreError> {
    let live = |kept: &KeptAt| !is_expired(kept.expires_at, now);
    Ok(match start {
        Start::Latest => Opened::At(space.next),
        Start::Number(number) if number > space.next || number == 0 => Opened::Unknown,
        Start::Number(number) => {
            let oldest = first_where(connection, space, live)?;
            match oldest.as_ref().map_or(space.next, |kept| kept.number) {
                first if number < first => Opened::Expired(oldest.map(|kept| kept.time)),
                _ => Opened::At(number),
            }
        }
        Start::Earliest => at(space, first_where(connection, space, live)?),
        Start::Time(time) => {
            let late = |kept: &KeptAt| live(kept) && kept.time >= time;
            at(space, first_where(connection, space, late)?)
        }
    })
}

fn at(space: &Space, found: Option<KeptAt>) -> Opened {
    Opened::At(found.map_or(space.next, |kept| kept.number))
}

/// A message, as far as it matters where it lies.
#[derive(Clone, Copy, Debug)]
struct KeptAt {
    number: u64,
    time: UnixMillis,
    expires_at: Option<UnixMillis>,
}

/// The first message with a property that all later ones have, too.
fn first_where(
    connection: &Connection,
    space: &Space,
    has: impl Fn(&KeptAt) -> bool,
) -> Result<Option<KeptAt>, StoreError> {
    // Numbers from `low` up to, not including, `high` are open; `found` is the one at `high`.
    let (mut low, mut high, mut found) = (0, space.next, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match first_from(connection, space, middle)? {
            Some(kept) if kept.number < high && !has(&kept) => low = kept.number + 1,
            Some(kept) if kept.number < high => {
                found = Some(kept);
                // Nothing lies between the middle and this one.
                high = middle;
            }
            _ => high = middle,
        }
    }
    Ok(found)
}

fn first_from(connection: &Connection, space: &Space, number: u64) -> Result<Option<KeptAt>, StoreError> {
    let kept = connection
        .prepare_cached(FIRST_FROM)?
        .query_row(params![space.place(number), space.end()], |row| {
            Ok(KeptAt {
                number: number_at(row.get(0)?),
                time: time_of(row.get(1)?),
                expires_at: row.get::<_, Option<i64>>(2)?.map(time_of),
            })
        })
        .optional()?;
    Ok(kept)
}

pub(super) fn time_of(millis: i64) -> UnixMillis {
    UnixMillis(millis.max(0) as u64)
}

/// A reader's step while it is taken.
struct Step {
    next: u64,
    missed: u64,
    oldest_left: Option<UnixMillis>,
}

impl Step {
    /// Passes messages; whether the sink had no room for one.
    fn go(
        &mut self,
        connection: &Connection,
        space: &Space,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<bool, StoreError> {
        let mut statement = connection.prepare_cached(READ)?;
        let mut rows = statement.query(params![space.place(self.next), space.end()])?;
        for _ in 0..STEP_MESSAGES_MAX {
            let Some(row) = rows.next()? else {
                // What is missing at the end is gone as well.
                self.missed += space.next.saturating_sub(self.next);
                self.next = self.next.max(space.next);
                return Ok(false);
            };
            let number = number_at(row.get(0)?);
            self.missed += number.saturating_sub(self.next);
            self.next = number;
            if is_expired(row.get::<_, Option<i64>>(2)?.map(time_of), now) {
                self.missed += 1;
            } else {
                if self.missed > 0 && self.oldest_left.is_none() {
                    self.oldest_left = Some(time_of(row.get(1)?));
                }
                if !show(row, number, sink)? {
                    return Ok(true);
                }
            }
            self.next += 1;
        }
        Ok(false)
    }
}

/// Hands a message to the sink if it is wanted. `false`: there is no room for it.
fn show(row: &Row<'_>, number: u64, sink: &mut impl MessageSink) -> Result<bool, StoreError> {
    let topic = text(row, 3)?;
    if !sink.wants(topic) {
        return Ok(true);
    }
    Ok(sink.message(&Stored {
        number,
        id: blob(row, 5)?,
        time: time_of(row.get(1)?),
        topic,
        key: text(row, 4)?,
        attributes: blob(row, 6)?,
        payload: blob(row, 7)?,
    }))
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, StoreError> {
    row.get_ref(column)?
        .as_str()
        .map_err(|error| StoreError::Corrupt {
            detail: format!("a topic or key: {error}"),
        })
}

const FIRST_FROM: &str = "SELECT place, time_ms, expires_at FROM message
    WHERE place >= ?1 AND place < ?2 ORDER BY place LIMIT 1";
const READ: &str = "SELECT place, time_ms, expires_at, topic, key, id, attributes, payload FROM message
    WHERE place >= ?1 AND place < ?2 ORDER BY place";
