//! Numbers of messages. A namespace with messages has a counter, and whoever changes its messages
//! holds the counter's row until the transaction ends.
//!
//! So changes of one namespace commit in the order of their numbers: whoever has seen a number
//! never sees a lower one appear. And of two gateways that get the same call one sees what the
//! other has made of it.

use super::connect::{Fault, Link, Parameters};
use super::keyvalue::States;
use crate::error::StoreError;
use crate::ids::NamespaceId;

/// Counters that the transaction holds.
pub(super) struct Counters {
    rows: Vec<Counter>,
    states: States,
}

struct Counter {
    namespace: i64,
    next: i64,
    /// Time of the last message, in milliseconds since 1970.
    time: i64,
    is_moved: bool,
}

impl Counters {
    /// Waits for the counters of these namespaces, in order and each once, and reads the states of
    /// the namespaces after that.
    pub(super) async fn hold(link: &Link, namespaces: &[i64]) -> Result<Counters, Fault> {
        link.prepare(&[HOLD, STATES]).await?;
        let ask = async || {
            let parameters: Parameters<'_> = &[&namespaces];
            let asked = (link.query(HOLD, parameters), link.query(STATES, parameters));
            let (rows, states) = tokio::join!(asked.0, asked.1);
            Ok::<_, Fault>((rows?, States::of(&states?)?))
        };
        let (mut rows, mut states) = ask().await?;
        if rows.len() < namespaces.len() {
            // Those that are dropped get none.
            link.execute(MAKE, &[&namespaces]).await?;
            (rows, states) = ask().await?;
        }
        let counter = |row: &tokio_postgres::Row| {
            Ok::<_, tokio_postgres::Error>(Counter {
                namespace: row.try_get(0)?,
                next: row.try_get(1)?,
                time: row.try_get(2)?,
                is_moved: false,
            })
        };
        Ok(Counters {
            rows: rows.iter().map(counter).collect::<Result<_, _>>()?,
            states,
        })
    }

    /// Reads the states of namespaces, and holds no counter.
    pub(super) async fn look(link: &Link, namespaces: &[i64]) -> Result<Counters, Fault> {
        Ok(Counters {
            rows: Vec::new(),
            states: States::of(&link.query(STATES, &[&namespaces]).await?)?,
        })
    }

    /// Whether a namespace can be used.
    pub(super) fn check(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.states.check(namespace)
    }

    /// The next number of a namespace that was held, and the time of its message: `at`, or that of
    /// the message before, if that is later.
    pub(super) fn take(&mut self, namespace: i64, at: i64) -> Result<(i64, i64), StoreError> {
        let counter = self.rows.iter_mut().find(|one| one.namespace == namespace);
        let counter = counter.ok_or_else(|| StoreError::Internal {
            detail: format!("namespace {namespace} has no counter"),
        })?;
        counter.is_moved = true;
        counter.next += 1;
        counter.time = counter.time.max(at);
        Ok((counter.next - 1, counter.time))
    }

    /// Writes the counters down that have moved.
    pub(super) async fn note(&mut self, link: &Link) -> Result<(), Fault> {
        let moved = self.rows.iter().filter(|one| one.is_moved);
        let (mut namespaces, mut nexts, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for one in moved {
            namespaces.push(one.namespace);
            nexts.push(one.next);
            times.push(one.time);
        }
        if !namespaces.is_empty() {
            link.execute(MOVE, &[&namespaces, &nexts, &times]).await?;
            self.rows.iter_mut().for_each(|one| one.is_moved = false);
        }
        Ok(())
    }
}

static HOLD: &str = "SELECT namespace, next, time FROM prism.counter WHERE namespace = ANY($1::int8[]) ORDER BY namespace FOR UPDATE";
static STATES: &str = "SELECT number, state FROM prism.namespace WHERE number = ANY($1::int8[])";
/// Whoever drops a namespace waits for the end of this, or this sees that it is dropped.
static MAKE: &str = "INSERT INTO prism.counter (namespace, next, time)
    SELECT number, 1, 0 FROM prism.namespace WHERE number = ANY($1::int8[]) AND state = 0 ORDER BY number FOR SHARE
    ON CONFLICT DO NOTHING";
static MOVE: &str = "UPDATE prism.counter c SET next = r.next, time = r.time
    FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS r (namespace, next, time) WHERE c.namespace = r.namespace";
