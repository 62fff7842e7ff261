//! Namespaces of the store, and the sweep, which several gateways may run at once.

use tokio_postgres::types::ToSql;

use super::rows::stored_moment;
use super::{DROPPED, KeyValue, LIVE, SWEPT};
use crate::api::keyvalue::{Remembers, Sweep, Upkeep};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};
use crate::postgres::connect::{Fault, Link};
use crate::sqlite::Presence;

/// Promises of PostgreSQL for KeyValue. A server with `fsync = off` keeps none of them through a
/// power cut; [`Upkeep::offer`] accounts for that once it has been detected.
pub const KEYVALUE: Offer = Offer {
    api: Api::KeyValue,
    acked: Acked::Durable,
    replay: Replay::Exact,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::SWAPS)
        .and(Features::SCANS)
        .and(Features::TOMBSTONES),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: true,
};

impl Upkeep for KeyValue {
    fn offer(&self) -> Offer {
        match self.connections.facts() {
            Some(facts) if !facts.is_durable => Offer {
                acked: Acked::Volatile,
                ..KEYVALUE
            },
            _ => KEYVALUE,
        }
    }

    /// Deletes are rows, and bounded by the disk and the window only.
    fn remembers(&self) -> Remembers {
        Remembers {
            window_ms: self.window_ms(),
            deletes_max: usize::MAX,
        }
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        let state = self.set_namespace(CREATE, namespace, LIVE).await?;
        match state {
            LIVE => Ok(()),
            _ => Err(StoreError::DroppedNamespace(namespace)),
        }
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.set_namespace(DROP, namespace, DROPPED).await.map(drop)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let lease = self.connections.acquire().await?;
        let link = lease.begin();
        let steps = Steps {
            link,
            now: stored_moment(now),
            forget_at: stored_moment(now.plus(self.window_ms())),
            budget: i64::try_from(budget.max(1)).unwrap_or(i64::MAX),
        };
        let result = steps.run().await;
        match &result {
            Err(fault) if fault.is_of_connection() => {}
            _ => lease.finish(),
        }
        Ok(result?)
    }
}

impl KeyValue {
    /// State of a namespace's number in the store.
    pub async fn presence(&self, namespace: NamespaceId) -> Result<Presence, StoreError> {
        let lease = self.connections.acquire().await?;
        let number = i64::from(namespace.0);
        let rows = lease
            .begin()
            .query(STATE, &[&number])
            .await
            .map_err(Fault::from)?;
        lease.finish();
        let state = rows.first().map(|row| row.try_get::<_, i16>(0)).transpose();
        Ok(match state.map_err(Fault::from)? {
            None => Presence::Absent,
            Some(LIVE) => Presence::Live,
            Some(_) => Presence::Dropped,
        })
    }

    async fn set_namespace(
        &self,
        text: &'static str,
        namespace: NamespaceId,
        state: i16,
    ) -> Result<i16, StoreError> {
        let lease = self.connections.acquire().await?;
        let number = i64::from(namespace.0);
        let result = lease
            .begin()
            .query(text, &[&number, &state])
            .await
            .map_err(Fault::from);
        match &result {
            Err(fault) if fault.is_of_connection() => {}
            _ => lease.finish(),
        }
        let rows = result?;
        let row = rows.first().ok_or_else(|| StoreError::Internal {
            detail: "the server gave back no state of a namespace".to_owned(),
        })?;
        Ok(row.try_get(0).map_err(Fault::from)?)
    }
}

/// The statements of one sweep, each a transaction of its own.
struct Steps<'l> {
    link: &'l Link,
    now: i64,
    forget_at: i64,
    budget: i64,
}

impl Steps<'_> {
    async fn run(&self) -> Result<Sweep, Fault> {
        let mut done = Sweep::default();
        // An expired item keeps its version, as a delete does, or an older write could come back.
        self.step(&mut done, EXPIRE, &[&self.now, &self.forget_at, &self.budget])
            .await?;
        self.step(&mut done, FORGET_ITEMS, &[&self.now, &self.budget])
            .await?;
        self.step(&mut done, FORGET_SWAPS, &[&self.now, &self.budget])
            .await?;
        self.ranges(&mut done).await?;
        self.dropped(&mut done).await?;
        Ok(done)
    }

    async fn step(
        &self,
        done: &mut Sweep,
        text: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<bool, Fault> {
        let changed = self.link.execute(text, parameters).await?;
        done.examined += changed as usize;
        done.removed += changed as usize;
        let more = changed.cast_signed() >= self.budget;
        done.more |= more;
        Ok(more)
    }

    /// Removes the rows that deletes of ranges still hide, and forgets deletes that are old enough.
    /// One is forgotten only when it hides no rows any more.
    async fn ranges(&self, done: &mut Sweep) -> Result<(), Fault> {
        for row in self.link.query(UNFINISHED, &[&self.now]).await? {
            let number: i64 = row.try_get(0)?;
            if self.step(done, REMOVE_HIDDEN, &[&number, &self.budget]).await? {
                return Ok(());
            }
            self.link.execute(FINISH, &[&number, &self.now]).await?;
            done.examined += 1;
        }
        Ok(())
    }

    async fn dropped(&self, done: &mut Sweep) -> Result<(), Fault> {
        for row in self.link.query(OF_STATE, &[&DROPPED]).await? {
            let number: i64 = row.try_get(0)?;
            for text in [
                REMOVE_ITEMS,
                REMOVE_RANGES,
                REMOVE_SWAPS,
                REMOVE_QUEUE_ITEMS,
                REMOVE_QUEUE_BODIES,
                REMOVE_QUEUE_GONE,
                REMOVE_QUEUE_CALLS,
                REMOVE_MESSAGES,
                REMOVE_MESSAGE_IDS,
            ] {
                if self.step(done, text, &[&number, &self.budget]).await? {
                    return Ok(());
                }
            }
            self.link.execute(REMOVE_COUNTER, &[&number]).await?;
            self.link.execute(SET_SWEPT, &[&number, &SWEPT]).await?;
        }
        Ok(())
    }
}

static CREATE: &str = "INSERT INTO prism.namespace AS n (number, state) VALUES ($1, $2)
    ON CONFLICT (number) DO UPDATE SET state = n.state RETURNING state";
/// Waits for whoever changes its messages: who comes later sees that it is dropped.
static DROP: &str = "INSERT INTO prism.namespace AS n (number, state)
    SELECT $1, $2::int2 FROM (SELECT count(*) FROM
        (SELECT 1 FROM prism.counter WHERE namespace = $1 FOR UPDATE) AS held) AS one
    ON CONFLICT (number) DO UPDATE SET state = greatest(n.state, excluded.state) RETURNING state";
static STATE: &str = "SELECT state FROM prism.namespace WHERE number = $1";
static OF_STATE: &str = "SELECT number FROM prism.namespace WHERE state = $1 LIMIT 1";
static SET_SWEPT: &str = "UPDATE prism.namespace SET state = $2 WHERE number = $1";
static EXPIRE: &str = "UPDATE prism.item SET kind = -1, value = '', expires_at = $2
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.item WHERE expires_at <= $1 AND kind >= 0
        LIMIT $3 FOR UPDATE SKIP LOCKED))";
static FORGET_ITEMS: &str = "DELETE FROM prism.item
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.item WHERE expires_at <= $1 AND kind < 0
        LIMIT $2 FOR UPDATE SKIP LOCKED))";
static FORGET_SWAPS: &str = "DELETE FROM prism.swap
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.swap WHERE forget_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))";
static UNFINISHED: &str =
    "SELECT number FROM prism.range_delete WHERE NOT is_done OR forget_at <= $1 LIMIT 16";
static REMOVE_HIDDEN: &str = "DELETE FROM prism.item
    WHERE ctid = ANY(ARRAY(SELECT i.ctid FROM prism.range_delete d JOIN prism.item i
        ON i.namespace = d.namespace AND i.id = d.id AND i.key >= d.start
            AND (d.\"end\" = '' OR i.key < d.\"end\") AND i.version < d.version
        WHERE d.number = $1 LIMIT $2 FOR UPDATE OF i SKIP LOCKED))";
static FINISH: &str =
    "WITH forgotten AS (DELETE FROM prism.range_delete WHERE number = $1 AND forget_at <= $2)
    UPDATE prism.range_delete SET is_done = true WHERE number = $1 AND forget_at > $2";
static REMOVE_ITEMS: &str = "DELETE FROM prism.item
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.item WHERE namespace = $1 LIMIT $2))";
static REMOVE_RANGES: &str = "DELETE FROM prism.range_delete
    WHERE number = ANY(ARRAY(SELECT number FROM prism.range_delete WHERE namespace = $1 LIMIT $2))";
static REMOVE_SWAPS: &str = "DELETE FROM prism.swap
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.swap WHERE namespace = $1 LIMIT $2))";
static REMOVE_QUEUE_ITEMS: &str = "DELETE FROM prism.queue_item
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.queue_item WHERE namespace = $1 LIMIT $2))";
static REMOVE_QUEUE_BODIES: &str = "DELETE FROM prism.queue_body
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.queue_body WHERE namespace = $1 LIMIT $2))";
static REMOVE_QUEUE_GONE: &str = "DELETE FROM prism.queue_gone
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.queue_gone WHERE namespace = $1 LIMIT $2))";
static REMOVE_QUEUE_CALLS: &str = "DELETE FROM prism.queue_call
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.queue_call WHERE namespace = $1 LIMIT $2))";
static REMOVE_MESSAGES: &str = "DELETE FROM prism.message
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.message WHERE namespace = $1 LIMIT $2))";
static REMOVE_MESSAGE_IDS: &str = "DELETE FROM prism.message_id
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.message_id WHERE namespace = $1 LIMIT $2))";
static REMOVE_COUNTER: &str = "DELETE FROM prism.counter WHERE namespace = $1";
