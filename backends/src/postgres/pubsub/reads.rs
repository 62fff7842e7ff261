//! Reading messages: finds where a subscription begins, and goes on from there.

use tokio_postgres::Row;

use super::{PubSub, time};
use crate::api::pubsub::{Gap, MessageSink, Opened, Read, Reads, Start, Stored};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::is_expired;
use crate::postgres::connect::{Fault, Link};
use crate::postgres::keyvalue::States;
use crate::postgres::transaction::{End, SNAPSHOT, in_transaction};

/// Messages whose topics are read at once, and passed by one step.
const STEP: i64 = 256;

/// Most messages that are read together as a whole, and most bytes of them beyond the first: a sink
/// that is full wastes the rest.
const BODIES_MAX: usize = 64;
const BODIES_BYTES_MAX: i64 = 1 << 20;

impl Reads for PubSub {
    async fn open(
        &self,
        namespace: NamespaceId,
        start: Start,
        now: UnixMillis,
    ) -> Result<Opened, StoreError> {
        if start == Start::Latest {
            // Whoever waits for messages is asked for often: one statement.
            let head = async |link: &Link| head(link, namespace).await;
            let head = self.connections.on_one(head).await?;
            return Ok(Opened::At(head.unwrap_or(1)));
        }
        in_transaction(&self.connections, SNAPSHOT, async |link: &Link| {
            open(link, namespace, start, now).await.map(End::Commit)
        })
        .await
    }

    async fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Read, StoreError> {
        let step = async |link: &Link| step(link, namespace, next, now, sink).await;
        self.connections.on_one(step).await
    }
}

/// The number of the next message; `None` if there has never been one.
async fn head(link: &Link, namespace: NamespaceId) -> Result<Option<u64>, Fault> {
    let rows = link.query(HEAD, &[&i64::from(namespace.0)]).await?;
    head_of(&rows, namespace)
}

/// The head of rows that begin with number and state of the namespace and its next number.
fn head_of(rows: &[Row], namespace: NamespaceId) -> Result<Option<u64>, Fault> {
    States::of(&rows[..rows.len().min(1)])?.check(namespace)?;
    let next = rows
        .first()
        .map(|row| row.try_get::<_, Option<i64>>(2))
        .transpose()?;
    Ok(next.flatten().map(|next| next.max(1).cast_unsigned()))
}

async fn open(link: &Link, namespace: NamespaceId, start: Start, now: UnixMillis) -> Result<Opened, Fault> {
    let Some(next) = head(link, namespace).await? else {
        return Ok(match start {
            Start::Number(number) if number != 1 => Opened::Unknown,
            _ => Opened::At(1),
        });
    };
    let number = i64::from(namespace.0);
    let live = |kept: &KeptAt| !is_expired(kept.expires_at, now);
    let at = |found: Option<KeptAt>| Opened::At(found.map_or(next, |kept| kept.number));
    Ok(match start {
        Start::Latest => Opened::At(next),
        Start::Number(wanted) if wanted > next || wanted == 0 => Opened::Unknown,
        Start::Number(wanted) => {
            let oldest = first_where(link, number, next, live).await?;
            match oldest.as_ref().map_or(next, |kept| kept.number) {
                first if wanted < first => Opened::Expired(oldest.map(|kept| kept.time)),
                _ => Opened::At(wanted),
            }
        }
        Start::Earliest => at(first_where(link, number, next, live).await?),
        Start::Time(from) => {
            let late = |kept: &KeptAt| live(kept) && kept.time >= from;
            at(first_where(link, number, next, late).await?)
        }
    })
}

/// A message, as far as it matters where it lies.
#[derive(Clone, Copy, Debug)]
struct KeptAt {
    number: u64,
    time: UnixMillis,
    expires_at: Option<UnixMillis>,
}

impl KeptAt {
    /// Reads the three columns from this one on.
    fn read(row: &Row, first: usize) -> Result<KeptAt, Fault> {
        Ok(KeptAt {
            number: row.try_get::<_, i64>(first)?.max(0).cast_unsigned(),
            time: time(row.try_get(first + 1)?),
            expires_at: row.try_get::<_, Option<i64>>(first + 2)?.map(time),
        })
    }
}

/// The first message before number `next` with a property that all later ones have, too.
async fn first_where(
    link: &Link,
    namespace: i64,
    next: u64,
    has: impl Fn(&KeptAt) -> bool,
) -> Result<Option<KeptAt>, Fault> {
    // Numbers from `low` up to, not including, `high` are open; `found` is the one at `high`.
    let (mut low, mut high, mut found) = (0, next, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let rows = link
            .query(FIRST_FROM, &[&namespace, &middle.cast_signed()])
            .await?;
        let kept = rows.first().map(|row| KeptAt::read(row, 0)).transpose()?;
        match kept.filter(|kept| kept.number < high) {
            Some(kept) if !has(&kept) => low = kept.number + 1,
            kept => {
                found = kept.or(found);
                // Nothing lies between the middle and this one.
                high = middle;
            }
        }
    }
    Ok(found)
}

/// A reader's step while it is taken.
struct Step {
    next: u64,
    missed: u64,
    oldest_left: Option<UnixMillis>,
}

impl Step {
    /// Passes a message that is gone.
    fn miss(&mut self, number: u64) {
        self.reach(number);
        self.missed += 1;
        self.next = number + 1;
    }

    /// Comes to a message that is there.
    fn meet(&mut self, kept: &KeptAt) {
        self.reach(kept.number);
        if self.missed > 0 && self.oldest_left.is_none() {
            self.oldest_left = Some(kept.time);
        }
    }

    /// Comes to a number; what is missing before it is gone.
    fn reach(&mut self, number: u64) {
        self.missed += number.saturating_sub(self.next);
        self.next = self.next.max(number);
    }

    fn end(self, more: bool) -> Read {
        Read {
            next: self.next,
            gap: (self.missed > 0).then_some(Gap {
                messages: self.missed,
                oldest_left: self.oldest_left,
            }),
            more,
        }
    }
}

/// Passes messages from a number on. The first question sees the counter and the messages of one
/// moment, and a message never changes: so what the second misses has been removed.
async fn step(
    link: &Link,
    namespace: NamespaceId,
    next: u64,
    now: UnixMillis,
    sink: &mut impl MessageSink,
) -> Result<Read, Fault> {
    let number = i64::from(namespace.0);
    let from = i64::try_from(next).unwrap_or(i64::MAX);
    let rows = link.query(HEADERS, &[&number, &from, &STEP]).await?;
    let mut step = Step {
        next,
        missed: 0,
        oldest_left: None,
    };
    let Some(head) = head_of(&rows, namespace)? else {
        return Ok(step.end(false));
    };
    let headers = Header::read_all(&rows, now, sink)?;
    let mut bodies = Bodies::default();
    for (at, header) in headers.iter().enumerate() {
        let number = header.kept.number;
        if header.is_expired {
            step.miss(number);
            continue;
        }
        if header.is_wanted {
            if number > bodies.asked {
                bodies = Bodies::read(link, namespace, &headers[at..]).await?;
            }
            let Some(body) = bodies.of(number)? else {
                step.miss(number);
                continue;
            };
            step.meet(&header.kept);
            if !sink.message(&header.stored(&body)) {
                return Ok(step.end(true));
            }
        } else {
            step.meet(&header.kept);
        }
        step.next = number + 1;
    }
    if (headers.len() as i64) < STEP {
        // What is missing at the end is gone as well.
        step.reach(head);
    }
    let more = step.next < head;
    Ok(step.end(more))
}

/// A message without what was sent.
struct Header<'r> {
    kept: KeptAt,
    topic: &'r str,
    bytes: i64,
    is_expired: bool,
    is_wanted: bool,
}

impl<'r> Header<'r> {
    fn read_all(
        rows: &'r [Row],
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Vec<Header<'r>>, Fault> {
        let mut headers = Vec::with_capacity(rows.len());
        for row in rows {
            // Without a message from the wanted number on there is one row that has none.
            if row.try_get::<_, Option<i64>>(3)?.is_none() {
                break;
            }
            let kept = KeptAt::read(row, 3)?;
            let topic = text(row.try_get(6)?)?;
            let is_expired = is_expired(kept.expires_at, now);
            headers.push(Header {
                kept,
                topic,
                bytes: row.try_get(7)?,
                is_expired,
                is_wanted: !is_expired && sink.wants(topic),
            });
        }
        Ok(headers)
    }

    fn stored<'a>(&'a self, body: &Body<'a>) -> Stored<'a> {
        Stored {
            number: self.kept.number,
            id: body.id,
            time: self.kept.time,
            topic: self.topic,
            key: body.key,
            attributes: body.attributes,
            payload: body.payload,
        }
    }
}

/// Bodies of some messages, by their numbers.
#[derive(Default)]
struct Bodies {
    rows: Vec<(u64, Row)>,
    /// Number up to which the wanted ones were asked for.
    asked: u64,
}

/// Body of one message.
struct Body<'r> {
    id: &'r [u8],
    key: &'r str,
    attributes: &'r [u8],
    payload: &'r [u8],
}

impl Bodies {
    /// Reads those of the first wanted messages, as many as fit.
    async fn read(link: &Link, namespace: NamespaceId, headers: &[Header<'_>]) -> Result<Bodies, Fault> {
        let (mut numbers, mut bytes) = (Vec::new(), 0);
        for header in headers.iter().filter(|header| header.is_wanted) {
            bytes += header.bytes;
            if !numbers.is_empty() && (bytes > BODIES_BYTES_MAX || numbers.len() == BODIES_MAX) {
                break;
            }
            numbers.push(header.kept.number.cast_signed());
        }
        let mut bodies = Bodies {
            rows: Vec::with_capacity(numbers.len()),
            asked: numbers.last().map_or(u64::MAX, |last| last.cast_unsigned()),
        };
        for row in link.query(BODIES, &[&i64::from(namespace.0), &numbers]).await? {
            let number = row.try_get::<_, i64>(0)?.max(0).cast_unsigned();
            bodies.rows.push((number, row));
        }
        Ok(bodies)
    }

    fn of(&self, number: u64) -> Result<Option<Body<'_>>, Fault> {
        let Ok(at) = self.rows.binary_search_by_key(&number, |(number, _)| *number) else {
            return Ok(None);
        };
        let row = &self.rows[at].1;
        Ok(Some(Body {
            id: row.try_get(1)?,
            key: text(row.try_get(2)?)?,
            attributes: row.try_get(3)?,
            payload: row.try_get(4)?,
        }))
    }
}

fn text(bytes: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(bytes).map_err(|error| StoreError::Corrupt {
        detail: format!("a topic or key: {error}"),
    })
}

static HEAD: &str = "SELECT n.number, n.state, c.next FROM prism.namespace n
    LEFT JOIN prism.counter c ON c.namespace = n.number WHERE n.number = $1";
static FIRST_FROM: &str = "SELECT number, time, expires_at FROM prism.message
    WHERE namespace = $1 AND number >= $2 ORDER BY number LIMIT 1";
static HEADERS: &str = "SELECT n.number, n.state, c.next, m.number, m.time, m.expires_at, m.topic, m.bytes
    FROM prism.namespace n LEFT JOIN prism.counter c ON c.namespace = n.number
    LEFT JOIN LATERAL (
        SELECT number, time, expires_at, topic, bytes FROM prism.message
        WHERE namespace = n.number AND number >= $2 ORDER BY number LIMIT $3
    ) AS m ON true WHERE n.number = $1 ORDER BY m.number";
static BODIES: &str = "SELECT number, id, key, attributes, payload FROM prism.message
    WHERE namespace = $1 AND number = ANY($2::int8[]) ORDER BY number";
