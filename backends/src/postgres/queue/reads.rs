//! Looking at a queue without taking part in it.

use super::Queue;
use super::rows::{Entry, bodies, columns, millis, readable, state, time};
use super::writes::FIRST;
use crate::api::queue::{Count, Counts, Peek, Reads, Sink};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::postgres::connect::{Fault, Link};
use crate::postgres::counters::Counters;

impl Reads for Queue {
    async fn peek(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError> {
        self.connections
            .on_one(async |link: &Link| page(link, peek, now, sink).await)
            .await
    }

    async fn stats(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError> {
        self.connections
            .on_one(async |link: &Link| {
                let number = i64::from(namespace.0);
                Counters::look(link, &[number]).await?.check(namespace)?;
                let mut counts = Counts::default();
                for row in link.query(COUNTS, &[&number, &millis(now)]).await? {
                    let state = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
                    if let Some(count) = counts.get_mut(state) {
                        *count = Count {
                            messages: row.try_get::<_, i64>(1)?.cast_unsigned(),
                            oldest: Some(time(row.try_get(2)?)),
                        };
                    }
                }
                Ok(counts)
            })
            .await
    }
}

impl Queue {
    /// Time from which the first message may be given; `None` while nothing is undone.
    ///
    /// # Errors
    /// Those of the server; there is no such namespace.
    pub async fn ready_at(
        &self,
        namespace: NamespaceId,
        now: UnixMillis,
    ) -> Result<Option<UnixMillis>, StoreError> {
        self.connections
            .on_one(async |link: &Link| {
                let number = i64::from(namespace.0);
                Counters::look(link, &[number]).await?.check(namespace)?;
                let rows = link.query(FIRST, &[&number, &millis(now)]).await?;
                let at = rows.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
                Ok(at.map(time))
            })
            .await
    }
}

/// Shows one page. Messages that leave between two of its statements are left out.
async fn page(
    link: &Link,
    peek: &Peek<'_>,
    now: UnixMillis,
    sink: &mut impl Sink,
) -> Result<Option<u64>, Fault> {
    let namespace = i64::from(peek.namespace.0);
    Counters::look(link, &[namespace]).await?.check(peek.namespace)?;
    let after = i64::try_from(peek.after).unwrap_or(i64::MAX);
    let states: Vec<i32> = peek.states.iter().map(|state| *state as i32).collect();
    let key = peek.key.map(str::as_bytes);
    // One more, which shows whether there are more.
    let limit = i64::try_from(peek.messages_max)
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let rows = link
        .query(PAGE, &[&namespace, &millis(now), &after, &states, &key, &limit])
        .await?;
    let all = Entry::read_all(&rows)?;
    let mut left = &all[..];
    let mut shown = 0;
    while !left.is_empty() {
        let (these, rest) = left.split_at(readable(left));
        let bodies = bodies(link, namespace, these, peek.with_payload).await?;
        for entry in these {
            let Some(body) = bodies.iter().find(|body| body.place == entry.body) else {
                continue;
            };
            let failure = entry.item.death(now).unwrap_or(&entry.failure);
            if shown == peek.messages_max || !sink.message(&entry.shown(failure, body)) {
                return Ok(Some((entry.place - 1).max(0).cast_unsigned()));
            }
            shown += 1;
        }
        left = rest;
    }
    Ok(None)
}

static PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM prism.queue_item i WHERE i.namespace = $1 AND i.place > $3 AND ",
    state!("$2"),
    " = ANY($4::int4[]) AND ($5::bytea IS NULL OR i.key = $5) ORDER BY i.place LIMIT $6"
);
static COUNTS: &str = concat!(
    "SELECT state, count(*), min(sent_at) FROM (SELECT ",
    state!("$2"),
    " AS state, i.sent_at FROM prism.queue_item i WHERE i.namespace = $1) AS one GROUP BY state"
);
