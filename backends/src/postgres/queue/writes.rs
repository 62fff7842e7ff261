//! Changes, receiving and extending.

use std::cell::Cell;

use tokio_postgres::types::ToSql;

use super::Queue;
use super::rows::{Columns, Entry, bodies, columns, dying, millis, readable, time};
use super::work::{DYING_HEADS, Work, why_not_there};
use crate::api::queue::{
    Act, Change, Held, LEASE_ENDED, Late, Outcome, PASSED_MAX, Receive, Received, Shown, Sink, State, Which,
    Writes,
};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::postgres::connect::{Fault, Link};
use crate::postgres::counters::Counters;
use crate::postgres::positions;
use crate::postgres::transaction::{DURABLE, End, FORGETFUL, in_transaction};

/// Most dead messages that one transaction buries before more are given.
const BURIED_AT_ONCE: i64 = 500;

impl Writes for Queue {
    async fn apply(
        &self,
        batch: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        if batch.is_empty() && at.is_none() {
            return Ok(());
        }
        let mut namespaces: Vec<i64> = batch.iter().map(|change| change.namespace.0.into()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let named = named(batch);
        let done = in_transaction(&self.connections, DURABLE, async |link: &Link| {
            let is_repeat = match at {
                Some(at) => !positions::note(link, at).await?,
                None => false,
            };
            let mut own = Vec::with_capacity(batch.len());
            if !batch.is_empty() {
                let mut work = Work::begin(link, &namespaces).await?;
                work.load(&named.0, &named.1).await?;
                for change in batch {
                    own.push(work.apply(change).await?);
                }
                if !is_repeat {
                    work.flush().await?;
                }
            }
            // Ids that were remembered may be forgotten by now, so only a rollback has no effect.
            Ok(match is_repeat {
                true => End::RollBack(own),
                false => End::Commit(own),
            })
        });
        *outcomes = done.await?;
        Ok(())
    }

    async fn receive(
        &self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError> {
        let mut passed = 0;
        loop {
            let given = Cell::new(false);
            let claimed = in_transaction(&self.connections, FORGETFUL, async |link: &Link| {
                // A sink takes each message once, so what has given some is not tried again.
                if given.get() {
                    let detail = "postgresql: receiving met other transactions".to_owned();
                    return Err(StoreError::Busy { detail }.into());
                }
                let mut sink = |shown: &Shown<'_>| {
                    given.set(true);
                    sink.message(shown)
                };
                claim(link, receive, now, &mut sink).await.map(End::Commit)
            });
            let (received, dying) = claimed.await?;
            if dying && received.messages == 0 && passed < PASSED_MAX {
                passed += self.bury_heads(receive.namespace, now).await?;
                continue;
            }
            return Ok(Received {
                next_at: if dying { Some(now) } else { received.next_at },
                ..received
            });
        }
    }

    async fn extend(
        &self,
        namespace: NamespaceId,
        held: &[Held<'_>],
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<Vec<Result<UnixMillis, Late>>, StoreError> {
        in_transaction(&self.connections, FORGETFUL, async |link: &Link| {
            extend(link, namespace, held, lease_ms, now)
                .await
                .map(End::Commit)
        })
        .await
    }
}

/// Namespaces and ids of the messages that a batch names.
fn named<'m>(batch: &[Change<'m>]) -> (Vec<i64>, Vec<&'m [u8]>) {
    let mut all: Vec<(i64, &[u8])> = Vec::with_capacity(batch.len());
    for change in batch {
        let namespace = change.namespace.0.into();
        match &change.act {
            Act::Send(message) => all.push((namespace, message.id)),
            Act::Ack(held) | Act::Nack { held, .. } => all.push((namespace, held.id)),
            Act::Redrive { which, .. } | Act::Delete { which, .. } => {
                if let Which::Ids(ids) = which {
                    all.extend(ids.iter().map(|id| (namespace, *id)));
                }
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().unzip()
}

/// Leases messages, as many as the sink takes. Returns, too, whether messages that are dead by now
/// may stand before others.
async fn claim(
    link: &Link,
    receive: &Receive<'_>,
    now: UnixMillis,
    sink: &mut impl Sink,
) -> Result<(Received, bool), Fault> {
    let namespace = i64::from(receive.namespace.0);
    let now_ms = millis(now);
    let mut received = Received::default();
    let call = (!receive.call.is_empty()).then_some(receive.call);
    // The same call at two gateways: the second sees what the first has got.
    let counters = match call {
        Some(_) => Counters::hold(link, &[namespace]).await?,
        None => Counters::look(link, &[namespace]).await?,
    };
    counters.check(receive.namespace)?;
    if let Some(call) = call {
        let rows = link.query(OF_CALL, &[&namespace, &call]).await?;
        let mut entries = Entry::read_all(&rows)?;
        entries.retain(|entry| entry.item.state(now) == State::Leased);
        received.messages = give(link, namespace, &entries, sink).await?;
        if received.messages > 0 {
            return Ok((received, false));
        }
    }
    let limit = i64::try_from(receive.messages_max).unwrap_or(i64::MAX);
    let rows = link.query(HEADS, &[&namespace, &now_ms, &limit]).await?;
    let mut entries = Entry::read_all(&rows)?;
    let is_full = entries.len() >= receive.messages_max;
    for entry in &mut entries {
        if entry.item.claim(now, receive.lease_ms) {
            LEASE_ENDED.clone_into(&mut entry.failure);
        }
    }
    received.messages = give(link, namespace, &entries, sink).await?;
    let is_cut = received.messages < entries.len();
    let mut columns = Columns::default();
    for entry in &entries[..received.messages] {
        columns.add(entry.place, entry, call);
    }
    if !columns.is_empty() {
        columns.update(link).await?;
    }
    if is_cut {
        received.next_at = Some(now);
        return Ok((received, false));
    }
    let parameters: &[&(dyn ToSql + Sync)] = &[&namespace, &now_ms];
    let first = link.query(FIRST, parameters).await?;
    let at = first.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
    received.next_at = at.map(time);
    let dying = !is_full && !link.query(ANY_DYING, parameters).await?.is_empty();
    Ok((received, dying))
}

/// Gives the first of these messages with what was sent, as many as the sink takes of those that
/// are read together. Returns how many.
async fn give(link: &Link, namespace: i64, entries: &[Entry], sink: &mut impl Sink) -> Result<usize, Fault> {
    let entries = &entries[..readable(entries)];
    if entries.is_empty() {
        return Ok(0);
    }
    let bodies = bodies(link, namespace, entries, true).await?;
    for (number, entry) in entries.iter().enumerate() {
        let Some(body) = bodies.iter().find(|body| body.place == entry.body) else {
            return Err(Fault::from(StoreError::Corrupt {
                detail: format!("the message at place {} of a queue has no body", entry.place),
            }));
        };
        if !sink.message(&entry.shown(&entry.failure, body)) {
            return Ok(number);
        }
    }
    Ok(entries.len())
}

async fn extend(
    link: &Link,
    namespace: NamespaceId,
    held: &[Held<'_>],
    lease_ms: u64,
    now: UnixMillis,
) -> Result<Vec<Result<UnixMillis, Late>>, Fault> {
    let number = i64::from(namespace.0);
    Counters::look(link, &[number]).await?.check(namespace)?;
    let ids: Vec<&[u8]> = held.iter().map(|held| held.id).collect();
    let rows = link.query(OF_IDS, &[&number, &ids]).await?;
    let mut entries = Entry::read_all(&rows)?;
    let mut ends = Vec::with_capacity(held.len());
    for held in held {
        let entry = entries.iter_mut().find(|entry| entry.id == held.id);
        ends.push(match entry {
            Some(entry) => {
                let extended = entry.item.extend(held.attempt, lease_ms, now);
                extended.map(|()| entry.item.at)
            }
            None => Err(why_not_there(link, namespace, held, now).await?),
        });
    }
    let places: Vec<i64> = entries.iter().map(|entry| entry.place).collect();
    let ats: Vec<i64> = entries.iter().map(|entry| millis(entry.item.at)).collect();
    let looks: Vec<i64> = entries.iter().map(|entry| millis(entry.item.look_at())).collect();
    if ends.iter().any(Result::is_ok) {
        link.execute(EXTEND, &[&number, &places, &ats, &looks]).await?;
    }
    Ok(ends)
}

impl Queue {
    /// Buries messages that may be given but are dead by now, so that others of their keys may be.
    /// Returns how many, at least 1.
    async fn bury_heads(&self, namespace: NamespaceId, now: UnixMillis) -> Result<usize, StoreError> {
        let number = i64::from(namespace.0);
        in_transaction(&self.connections, DURABLE, async |link: &Link| {
            let mut work = Work::begin(link, &[number]).await?;
            let rows = link
                .query(DYING_HEADS, &[&number, &millis(now), &BURIED_AT_ONCE])
                .await?;
            let ids = rows.iter().map(|row| row.try_get::<_, &[u8]>(0));
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            work.load(&vec![number; ids.len()], &ids).await?;
            ids.iter().for_each(|id| work.look_over(number, id, now));
            work.flush().await?;
            Ok(End::Commit(ids.len().max(1)))
        })
        .await
    }
}

/// Messages that may be given and that nobody has locked, the first that became ready first.
static HEADS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM prism.queue_item i WHERE i.namespace = $1 AND i.head AND i.at <= $2 AND NOT ",
    dying!("$2"),
    " ORDER BY i.at, i.place LIMIT $3 FOR UPDATE SKIP LOCKED"
);
static OF_CALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM prism.queue_item i WHERE i.namespace = $1 AND i.call = $2 AND i.call IS NOT NULL ORDER BY i.at, i.place"
);
static OF_IDS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM prism.queue_item i WHERE i.namespace = $1 AND i.id = ANY($2::bytea[]) ORDER BY i.place FOR UPDATE"
);
/// Time from which the first message may be given.
pub(super) static FIRST: &str = concat!(
    "SELECT i.at FROM prism.queue_item i WHERE i.namespace = $1 AND i.head AND NOT ",
    dying!("$2"),
    " ORDER BY i.at, i.place LIMIT 1"
);
static ANY_DYING: &str = concat!(
    "SELECT 1 FROM prism.queue_item i WHERE i.namespace = $1 AND i.head AND i.at <= $2 AND ",
    dying!("$2"),
    " LIMIT 1"
);
static EXTEND: &str = "UPDATE prism.queue_item i SET at = r.at, look_at = r.look_at
    FROM unnest($2::int8[], $3::int8[], $4::int8[]) AS r (place, at, look_at)
    WHERE i.namespace = $1 AND i.place = r.place";
