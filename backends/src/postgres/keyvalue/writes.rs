//! Batches of mutations: cut into segments, each of which is one statement, or two for swaps.
//!
//! ```text
//!   put, delete of keys, put …  ─> one INSERT of all rows ─┐
//!   delete of a range           ─> one statement           ├─> one transaction, with the position
//!   swap, swap …                ─> lock and read, write    ┘
//! ```
//!
//! A batch of one segment without swaps, and without a position or with rows only, is a single
//! statement, which is a transaction by itself: one round trip.

use super::KeyValue;
use super::rows::Rows;
use super::swaps::{self, Judge};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId};
use crate::mutation::{Mutation, Operation, Outcome, PredicateRef};
use crate::postgres::connect::{Fault, Link};
use crate::postgres::positions;
use crate::version::version_bytes;

/// Number of times that a transaction is tried when others make it impossible.
const ATTEMPTS: u32 = 4;

/// Most rows that a delete of a range removes at once. Further rows are hidden, and swept.
const REMOVE_AT_ONCE: i64 = 1_000;

/// A run of mutations that go to the server together.
enum Segment<'m> {
    Rows(Rows<'m>),
    Range(RangeDelete<'m>),
    /// Positions of the swaps in the batch.
    Swaps(Vec<usize>),
}

struct RangeDelete<'m> {
    mutation: Mutation<'m>,
    start: &'m [u8],
    end: &'m [u8],
}

/// An examined batch: the outcomes that are known, and the segments to send.
pub(super) struct Plan<'m> {
    segments: Vec<Segment<'m>>,
    /// Namespaces of the mutations, each once.
    namespaces: Vec<i64>,
}

impl<'m> Plan<'m> {
    /// Cuts a batch. `outcomes` gets one for each mutation: refused, or for now applied.
    pub(super) fn new(batch: &[Mutation<'m>], window_ms: u64, outcomes: &mut Vec<Outcome>) -> Plan<'m> {
        let mut plan = Plan {
            segments: Vec::new(),
            namespaces: batch
                .iter()
                .map(|mutation| i64::from(mutation.namespace.0))
                .collect(),
        };
        plan.namespaces.sort_unstable();
        plan.namespaces.dedup();
        outcomes.clear();
        for (at, mutation) in batch.iter().enumerate() {
            match mutation.check() {
                Ok(()) => {
                    outcomes.push(Outcome::Applied);
                    plan.add(at, mutation, window_ms);
                }
                Err(error) => outcomes.push(Outcome::Refused(error)),
            }
        }
        plan
    }

    fn add(&mut self, at: usize, mutation: &Mutation<'m>, window_ms: u64) {
        let range = match mutation.operation {
            Operation::CompareAndSwap { .. } => {
                match self.segments.last_mut() {
                    Some(Segment::Swaps(swaps)) => swaps.push(at),
                    _ => self.segments.push(Segment::Swaps(vec![at])),
                }
                return;
            }
            Operation::Delete(PredicateRef::All) => (&b""[..], &b""[..]),
            Operation::Delete(PredicateRef::Range { start, end }) => (start, end),
            Operation::Put(_) | Operation::Delete(PredicateRef::Keys(_)) => {
                if !matches!(self.segments.last(), Some(Segment::Rows(_))) {
                    self.segments.push(Segment::Rows(Rows::default()));
                }
                if let Some(Segment::Rows(rows)) = self.segments.last_mut() {
                    rows.add(mutation, window_ms);
                }
                return;
            }
        };
        let (start, end) = range;
        if end.is_empty() || start < end {
            self.segments.push(Segment::Range(RangeDelete {
                mutation: *mutation,
                start,
                end,
            }));
        }
    }
}

impl KeyValue {
    /// Applies a batch, and again if other transactions conflicted with it.
    pub(super) async fn apply_batch(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let plan = Plan::new(batch, self.window_ms(), outcomes);
            if plan.segments.is_empty() && at.is_none() {
                return self.refuse_missing(batch, &plan, outcomes).await;
            }
            let result = self.apply_once(batch, &plan, at, outcomes).await;
            match result {
                Err(fault) if fault.is_conflict() && attempts < ATTEMPTS => {}
                Err(fault) => {
                    outcomes.clear();
                    return Err(fault.into());
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn apply_once(
        &self,
        batch: &[Mutation<'_>],
        plan: &Plan<'_>,
        at: Option<&LogPosition>,
        outcomes: &mut [Outcome],
    ) -> Result<(), Fault> {
        let lease = self.connections.acquire().await?;
        let link = lease.begin();
        let single = match (plan.segments.as_slice(), at) {
            ([Segment::Rows(rows)], None) => Some(write_rows(link, rows, &plan.namespaces).await),
            ([Segment::Rows(rows)], Some(at)) => Some(write_rows_at(link, rows, &plan.namespaces, at).await),
            ([Segment::Range(range)], None) => Some(self.delete_range(link, range, &plan.namespaces).await),
            _ => None,
        };
        let done = match single {
            Some(single) => single.map(|states| refuse(batch, &states, outcomes)),
            None => self.transact(link, batch, plan, at, outcomes).await,
        };
        // An error with which the server answered leaves the session intact, unless a transaction
        // is open: that is ended, or the connection closed.
        let is_in_order = match &done {
            Ok(()) => true,
            Err(fault) if fault.is_of_connection() => false,
            Err(_) => link.run("ROLLBACK").await.is_ok(),
        };
        if is_in_order {
            lease.finish();
        }
        done
    }

    /// Runs a batch of several steps as one transaction.
    async fn transact(
        &self,
        link: &Link,
        batch: &[Mutation<'_>],
        plan: &Plan<'_>,
        at: Option<&LogPosition>,
        outcomes: &mut [Outcome],
    ) -> Result<(), Fault> {
        link.run("BEGIN").await?;
        if let Some(at) = at
            && !positions::note(link, at).await?
        {
            // Applied before: its swaps get the remembered answers.
            link.run("ROLLBACK").await?;
            let states = swaps::recall(link, batch, &swaps_of(plan), &plan.namespaces, outcomes).await?;
            refuse(batch, &states, outcomes);
            return Ok(());
        }
        for segment in &plan.segments {
            let states = match segment {
                Segment::Rows(rows) => write_rows(link, rows, &plan.namespaces).await?,
                Segment::Range(range) => self.delete_range(link, range, &plan.namespaces).await?,
                Segment::Swaps(numbers) => {
                    let (states, judge) = swaps::read(link, batch, numbers, &plan.namespaces).await?;
                    self.judge(link, batch, numbers, &states, judge, outcomes).await?;
                    states
                }
            };
            refuse(batch, &states, outcomes);
        }
        if plan.segments.is_empty() {
            refuse(batch, &namespace_states(link, &plan.namespaces).await?, outcomes);
        }
        // A transaction that the server has aborted answers COMMIT with success; but every
        // statement before it was awaited, and none failed.
        link.run("COMMIT").await?;
        Ok(())
    }

    async fn judge(
        &self,
        link: &Link,
        batch: &[Mutation<'_>],
        numbers: &[usize],
        states: &States,
        mut judge: Judge,
        outcomes: &mut [Outcome],
    ) -> Result<(), Fault> {
        let mut rows = Rows::default();
        for number in numbers {
            let mutation = &batch[*number];
            if states.check(mutation.namespace).is_ok() {
                outcomes[*number] = judge.swap(mutation, &mut rows, self.window_ms());
            }
        }
        if !rows.is_empty() {
            write_rows(link, &rows, &[]).await?;
        }
        judge.remember(link).await?;
        Ok(())
    }

    async fn delete_range(
        &self,
        link: &Link,
        range: &RangeDelete<'_>,
        namespaces: &[i64],
    ) -> Result<States, Fault> {
        let mutation = &range.mutation;
        let forget_at = super::rows::stored_moment(mutation.at.plus(self.window_ms()));
        let version = version_bytes(mutation.version);
        let rows = link
            .query(
                DELETE_RANGE,
                &[
                    &i64::from(mutation.namespace.0),
                    &mutation.id.as_bytes(),
                    &range.start,
                    &range.end,
                    &version.as_slice(),
                    &forget_at,
                    &REMOVE_AT_ONCE,
                    &namespaces,
                ],
            )
            .await?;
        Ok(States::of(&rows)?)
    }

    /// Gives the mutations of a batch without any effect their outcomes.
    async fn refuse_missing(
        &self,
        batch: &[Mutation<'_>],
        plan: &Plan<'_>,
        outcomes: &mut [Outcome],
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let lease = self.connections.acquire().await?;
        let states = namespace_states(lease.begin(), &plan.namespaces).await?;
        lease.finish();
        refuse(batch, &states, outcomes);
        Ok(())
    }
}

fn swaps_of(plan: &Plan<'_>) -> Vec<usize> {
    let swaps = plan.segments.iter().filter_map(|segment| match segment {
        Segment::Swaps(numbers) => Some(numbers.as_slice()),
        Segment::Rows(_) | Segment::Range(_) => None,
    });
    swaps.flatten().copied().collect()
}

async fn write_rows(link: &Link, rows: &Rows<'_>, namespaces: &[i64]) -> Result<States, Fault> {
    let columns = rows.columns();
    let versions = columns.versions();
    let found = link
        .query(
            WRITE_ROWS,
            &[
                &columns.namespaces,
                &columns.ids,
                &columns.keys,
                &versions,
                &columns.expires_at,
                &columns.kinds,
                &columns.values,
                &namespaces,
            ],
        )
        .await?;
    Ok(States::of(&found)?)
}

async fn write_rows_at(
    link: &Link,
    rows: &Rows<'_>,
    namespaces: &[i64],
    at: &LogPosition,
) -> Result<States, Fault> {
    let columns = rows.columns();
    let versions = columns.versions();
    let place = positions::Stored::new(at)?;
    let found = link
        .query(
            WRITE_ROWS_AT,
            &[
                &columns.namespaces,
                &columns.ids,
                &columns.keys,
                &versions,
                &columns.expires_at,
                &columns.kinds,
                &columns.values,
                &namespaces,
                &place.log(),
                &place.lane,
                &place.namespace,
                &place.lsn,
            ],
        )
        .await?;
    Ok(States::of(&found)?)
}

async fn namespace_states(link: &Link, namespaces: &[i64]) -> Result<States, Fault> {
    Ok(States::of(&link.query(STATES, &[&namespaces]).await?)?)
}

/// States of the namespaces of a batch, as the statement saw them.
#[derive(Debug, Default)]
pub(in crate::postgres) struct States(Vec<(i64, i16)>);

impl States {
    pub(in crate::postgres) fn of(rows: &[tokio_postgres::Row]) -> Result<States, tokio_postgres::Error> {
        let state = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(state).collect::<Result<_, _>>().map(States)
    }

    /// Whether a namespace can be used.
    pub(in crate::postgres) fn check(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        let state = self
            .0
            .iter()
            .find(|(number, _)| *number == i64::from(namespace.0));
        match state {
            Some((_, super::LIVE)) => Ok(()),
            Some(_) => Err(StoreError::DroppedNamespace(namespace)),
            None => Err(StoreError::UnknownNamespace(namespace)),
        }
    }
}

/// Refuses mutations whose namespace cannot be used: the statements have left them out.
fn refuse(batch: &[Mutation<'_>], states: &States, outcomes: &mut [Outcome]) {
    for (mutation, outcome) in batch.iter().zip(outcomes) {
        if !matches!(outcome, Outcome::Refused(_))
            && let Err(error) = states.check(mutation.namespace)
        {
            *outcome = Outcome::Refused(error);
        }
    }
}

/// Inserts the rows of a run. Rows of unusable namespaces, rows covered by a delete of a range and
/// rows that are not newer have no effect. The subqueries are written so that the planner keeps
/// their order: rows stay sorted, and two batches cannot deadlock.
macro_rules! insert_rows {
    ($condition:literal) => {
        concat!(
            "INSERT INTO prism.item AS i (namespace, id, key, version, expires_at, kind, value)
        SELECT r.namespace, r.id, r.key, r.version, r.expires_at, r.kind, r.value
        FROM unnest($1::int8[], $2::bytea[], $3::bytea[], $4::bytea[], $5::int8[], $6::int2[], $7::bytea[])
            AS r (namespace, id, key, version, expires_at, kind, value)
        WHERE (SELECT s.state FROM prism.namespace s WHERE s.number = r.namespace) = 0
            AND (SELECT true FROM prism.range_delete d WHERE d.namespace = r.namespace AND d.id = r.id
                AND d.start <= r.key AND (d.\"end\" = '' OR d.\"end\" > r.key) AND d.version >= r.version
                LIMIT 1) IS NULL",
            $condition,
            "
        ON CONFLICT (namespace, id, key) DO UPDATE SET version = excluded.version,
            expires_at = excluded.expires_at, kind = excluded.kind, value = excluded.value
        WHERE excluded.version > i.version"
        )
    };
}

static WRITE_ROWS: &str = concat!(
    "WITH written AS (",
    insert_rows!(""),
    ") SELECT number, state FROM prism.namespace WHERE number = ANY($8::int8[])"
);

static WRITE_ROWS_AT: &str = concat!(
    "WITH noted AS (
        INSERT INTO prism.applied AS a (log, lane, namespace, lsn) VALUES ($9, $10, $11, $12)
        ON CONFLICT (log, lane, namespace) DO UPDATE SET lsn = excluded.lsn WHERE excluded.lsn > a.lsn
        RETURNING 1
    ), written AS (",
    insert_rows!(" AND (SELECT count(*) FROM noted) = 1"),
    ") SELECT number, state FROM prism.namespace WHERE number = ANY($8::int8[])"
);

/// Remembers a deleted range, unless one as new and as wide is remembered, and removes some of its
/// rows. `is_done`: all of them. The remembered ranges that it covers are dropped; of those that
/// are done, an id keeps 63 more.
static DELETE_RANGE: &str = "WITH within AS (
        DELETE FROM prism.range_delete WHERE namespace = $1 AND id = $2 AND start >= $3
            AND ($4::bytea = '' OR (\"end\" <> '' AND \"end\" <= $4)) AND version < $5
    ), oldest AS (
        DELETE FROM prism.range_delete WHERE number IN (SELECT number FROM prism.range_delete
            WHERE namespace = $1 AND id = $2 AND is_done ORDER BY number DESC OFFSET 63)
    ), gone AS (
        DELETE FROM prism.item WHERE ctid = ANY(ARRAY(SELECT ctid FROM prism.item
            WHERE namespace = $1 AND id = $2 AND key >= $3 AND ($4::bytea = '' OR key < $4) AND version < $5
            LIMIT $7))
        RETURNING 1
    ), remembered AS (
        INSERT INTO prism.range_delete (namespace, id, start, \"end\", version, forget_at, is_done)
        SELECT $1, $2, $3, $4, $5, $6, (SELECT count(*) FROM gone) < $7
        WHERE (SELECT state FROM prism.namespace WHERE number = $1) = 0
            AND NOT EXISTS (SELECT 1 FROM prism.range_delete WHERE namespace = $1 AND id = $2
                AND start <= $3 AND (\"end\" = '' OR ($4::bytea <> '' AND \"end\" >= $4)) AND version >= $5)
    )
    SELECT number, state FROM prism.namespace WHERE number = ANY($8::int8[])";

static STATES: &str = "SELECT number, state FROM prism.namespace WHERE number = ANY($1::int8[])";
