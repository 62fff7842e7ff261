//! Publishing: numbers messages, and remembers their ids.

use rustc_hash::FxHashMap;

use super::{PubSub, millis};
use crate::api::pubsub::{ID_WINDOW_MS, Message, Outcome, Writes};
use crate::error::StoreError;
use crate::ids::LogPosition;
use crate::postgres::connect::{Fault, Link};
use crate::postgres::counters::Counters;
use crate::postgres::positions;
use crate::postgres::transaction::{DURABLE, End, in_transaction};

impl Writes for PubSub {
    async fn publish(
        &self,
        batch: &[Message<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        if batch.is_empty() && at.is_none() {
            return Ok(());
        }
        let mut namespaces: Vec<i64> = batch.iter().map(|message| message.namespace.0.into()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let done = in_transaction(&self.connections, DURABLE, async |link: &Link| {
            if let Some(at) = at
                && !positions::note(link, at).await?
            {
                return repeat(link, batch, &namespaces).await.map(End::RollBack);
            }
            let own = publish(link, batch, &namespaces).await?;
            Ok(End::Commit(own))
        });
        *outcomes = done.await?;
        Ok(())
    }
}

/// Outcomes of a batch that was applied before.
async fn repeat(link: &Link, batch: &[Message<'_>], namespaces: &[i64]) -> Result<Vec<Outcome>, Fault> {
    let counters = Counters::look(link, namespaces).await?;
    let check = |message: &Message<'_>| {
        message.check()?;
        counters.check(message.namespace)
    };
    let one = |message| check(message).map_or_else(Outcome::Refused, |()| Outcome::Repeat);
    Ok(batch.iter().map(one).collect())
}

/// The memory of an id.
struct Known {
    digest: Option<u64>,
    forget_at: i64,
    is_new: bool,
}

/// Ids by namespace.
type Ids<'m> = FxHashMap<(i64, &'m [u8]), Known>;

async fn publish(link: &Link, batch: &[Message<'_>], namespaces: &[i64]) -> Result<Vec<Outcome>, Fault> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    link.prepare(&[KNOWN, PUBLISH, REMEMBER]).await?;
    let mut counters = Counters::hold(link, namespaces).await?;
    let mut known = load(link, batch).await?;
    let mut rows = Rows::default();
    let mut outcomes = Vec::with_capacity(batch.len());
    for message in batch {
        let judged = match counters.check(message.namespace).and_then(|()| message.check()) {
            Ok(()) => judge(message, &mut known),
            Err(cause) => Outcome::Refused(cause),
        };
        if judged == Outcome::Published {
            let (number, time) = counters.take(message.namespace.0.into(), millis(message.at))?;
            rows.add(message, number, time);
        }
        outcomes.push(judged);
    }
    let (stored, remembered, noted) =
        tokio::join!(rows.insert(link), remember(link, &known), counters.note(link));
    // Of several the first failure is the cause of the others.
    stored.and(remembered).and(noted)?;
    Ok(outcomes)
}

/// Decides on one message by what is known of its id.
fn judge<'m>(message: &Message<'m>, known: &mut Ids<'m>) -> Outcome {
    let place = (i64::from(message.namespace.0), message.id);
    let at = millis(message.at);
    match known.get(&place).filter(|known| known.forget_at > at) {
        Some(known) if known.digest == message.digest => return Outcome::Repeat,
        Some(_) if !message.promised => return Outcome::Refused(StoreError::TokenReused),
        // The id stays the other call's.
        Some(_) => {}
        None => {
            let memory = Known {
                digest: message.digest,
                forget_at: millis(message.at.plus(ID_WINDOW_MS)),
                is_new: true,
            };
            known.insert(place, memory);
        }
    }
    Outcome::Published
}

async fn load<'m>(link: &Link, batch: &[Message<'m>]) -> Result<Ids<'m>, Fault> {
    let namespaces: Vec<i64> = batch.iter().map(|message| message.namespace.0.into()).collect();
    let ids: Vec<&[u8]> = batch.iter().map(|message| message.id).collect();
    let mut known = Ids::default();
    for row in link.query(KNOWN, &[&namespaces, &ids]).await? {
        // By its place in the batch.
        let at = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(usize::MAX);
        let Some(message) = batch.get(at) else { continue };
        known.insert(
            (i64::from(message.namespace.0), message.id),
            Known {
                digest: row.try_get::<_, Option<i64>>(1)?.map(i64::cast_unsigned),
                forget_at: row.try_get(2)?,
                is_new: false,
            },
        );
    }
    Ok(known)
}

async fn remember(link: &Link, known: &Ids<'_>) -> Result<(), Fault> {
    let new: Vec<_> = known.iter().filter(|(_, known)| known.is_new).collect();
    let namespaces: Vec<i64> = new.iter().map(|((namespace, _), _)| *namespace).collect();
    let ids: Vec<&[u8]> = new.iter().map(|((_, id), _)| *id).collect();
    let digests: Vec<Option<i64>> = new
        .iter()
        .map(|(_, known)| known.digest.map(u64::cast_signed))
        .collect();
    let forget_ats: Vec<i64> = new.iter().map(|(_, known)| known.forget_at).collect();
    if !new.is_empty() {
        link.execute(REMEMBER, &[&namespaces, &ids, &digests, &forget_ats])
            .await?;
    }
    Ok(())
}

/// Columns of new messages.
#[derive(Default)]
struct Rows<'m> {
    namespaces: Vec<i64>,
    numbers: Vec<i64>,
    partitions: Vec<i16>,
    topics: Vec<&'m [u8]>,
    keys: Vec<&'m [u8]>,
    ids: Vec<&'m [u8]>,
    times: Vec<i64>,
    expires_at: Vec<Option<i64>>,
    bytes: Vec<i64>,
    attributes: Vec<&'m [u8]>,
    payloads: Vec<&'m [u8]>,
}

impl<'m> Rows<'m> {
    fn add(&mut self, message: &Message<'m>, number: i64, time: i64) {
        self.namespaces.push(message.namespace.0.into());
        self.numbers.push(number);
        self.partitions.push(message.partition.cast_signed());
        self.topics.push(message.topic.as_bytes());
        self.keys.push(message.key.as_bytes());
        self.ids.push(message.id);
        self.times.push(time);
        self.expires_at.push(message.expires_at.map(millis));
        self.bytes
            .push((message.attributes.len() + message.payload.len()) as i64);
        self.attributes.push(message.attributes);
        self.payloads.push(message.payload);
    }

    async fn insert(&self, link: &Link) -> Result<(), Fault> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        link.execute(
            PUBLISH,
            &[
                &self.namespaces,
                &self.numbers,
                &self.partitions,
                &self.topics,
                &self.keys,
                &self.ids,
                &self.times,
                &self.expires_at,
                &self.bytes,
                &self.attributes,
                &self.payloads,
            ],
        )
        .await?;
        Ok(())
    }
}

static KNOWN: &str = "SELECT r.at, k.digest, k.forget_at
    FROM unnest($1::int8[], $2::bytea[]) WITH ORDINALITY AS r (namespace, id, at)
    JOIN prism.message_id k ON k.namespace = r.namespace AND k.id = r.id";
static REMEMBER: &str = "INSERT INTO prism.message_id (namespace, id, digest, forget_at)
    SELECT * FROM unnest($1::int8[], $2::bytea[], $3::int8[], $4::int8[])
    ON CONFLICT (namespace, id) DO UPDATE SET digest = excluded.digest, forget_at = excluded.forget_at";
static PUBLISH: &str = "INSERT INTO prism.message
        (namespace, number, partition, topic, key, id, time, expires_at, bytes, attributes, payload)
    SELECT * FROM unnest($1::int8[], $2::int8[], $3::int2[], $4::bytea[], $5::bytea[], $6::bytea[], $7::int8[],
        $8::int8[], $9::int8[], $10::bytea[], $11::bytea[])";
