//! Order in which kinds of store are preferred for each API. The embedded store is the last one
//! everywhere.

use std::time::Duration;

use prism_backends::{
    kind::StoreKind::{self, ClickHouse, Gremlin, Kafka, Memory, Nats, Neo4j, Postgres, Redis, Sqlite},
    offer::Api,
};

use super::{Asked, MESSAGE_BYTES_ASSUMED};
use crate::namespace::{
    Durability,
    units::{format_duration, format_size},
};

/// Writes a second from which Kafka comes before NATS for messages.
const PUBSUB_KAFKA_RPS: u64 = 20_000;
/// Writes a second from which Kafka comes before ClickHouse for streams with time.
const TIMESERIES_KAFKA_RPS: u64 = 10_000;
/// Largest message that NATS accepts by default.
const NATS_MESSAGE_BYTES: u64 = 1 << 20;
/// Retention beyond which messages go to Kafka.
const PUBSUB_KAFKA_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Retention up to which keyed items go to Redis at any durability.
const KEYVALUE_REDIS_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// Kinds of store in the order of preference for some needs, and why this order holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Kinds of one entry serve together. Kinds of this machine come last, memory first of them: an
    /// operator who configures one in addition to the embedded store wants it used.
    pub kinds: &'static [&'static [StoreKind]],
    /// The rule's code for programs.
    pub rule: &'static str,
    /// The key of the file that decides; empty where the API alone does.
    pub because: &'static str,
    /// The reason. One sentence without a full stop.
    pub reason: String,
}

/// The order of preference.
pub fn preference(asked: &Asked) -> Preference {
    let durable = asked.durability == Durability::Strong;
    match asked.api {
        Api::KeyValue => for_keyvalue(asked, durable),
        Api::PubSub => for_pubsub(asked),
        // Plain Kafka is not offered for queues: it cannot hide one message and deliver the next.
        Api::Queue if durable && asked.ordered => of(
            &[&[Postgres, Kafka], &[Postgres], &[Nats], &[Memory], &[Sqlite]],
            "QUEUE_ORDERED",
            "needs.ordered",
            "a durable queue in order: PostgreSQL with Kafka, before PostgreSQL alone".to_owned(),
        ),
        Api::Queue => of(
            &[&[Postgres], &[Nats], &[Memory], &[Sqlite]],
            "QUEUE",
            "",
            "queue: PostgreSQL before NATS".to_owned(),
        ),
        Api::Transact => of(
            &[&[Postgres], &[Memory], &[Sqlite]],
            "TRANSACT",
            "",
            "transact: PostgreSQL has transactions".to_owned(),
        ),
        Api::Reader => of(
            &[&[ClickHouse], &[Postgres], &[Memory], &[Sqlite]],
            "READER",
            "",
            "reader: ClickHouse before PostgreSQL".to_owned(),
        ),
        Api::TimeSeries => for_timeseries(asked),
        Api::Graph => of(
            &[&[Gremlin], &[Neo4j], &[Postgres], &[Memory], &[Sqlite]],
            "GRAPH",
            "",
            "graph: Gremlin before Neo4j".to_owned(),
        ),
    }
}

fn of(
    kinds: &'static [&'static [StoreKind]],
    rule: &'static str,
    because: &'static str,
    reason: String,
) -> Preference {
    Preference {
        kinds,
        rule,
        because,
        reason,
    }
}

fn for_keyvalue(asked: &Asked, durable: bool) -> Preference {
    if durable && !is_short(asked) {
        return of(
            &[&[Postgres], &[Redis], &[Memory], &[Sqlite]],
            "KEYVALUE",
            "needs.durability",
            "keyvalue at durability strong: PostgreSQL before Redis".to_owned(),
        );
    }
    let (because, reason) = match durable {
        true => (
            "needs.retention",
            "keyvalue for at most 7days: Redis before PostgreSQL".to_owned(),
        ),
        false => (
            "needs.durability",
            format!(
                "keyvalue at durability {}: Redis before PostgreSQL",
                asked.durability
            ),
        ),
    };
    of(
        &[&[Redis], &[Postgres], &[Memory], &[Sqlite]],
        "KEYVALUE_SHORT",
        because,
        reason,
    )
}

fn for_pubsub(asked: &Asked) -> Preference {
    match large_messages(asked) {
        Some((because, reason)) => of(
            &[&[Kafka], &[Nats], &[Redis], &[Postgres], &[Memory], &[Sqlite]],
            "PUBSUB_LARGE",
            because,
            reason,
        ),
        None => of(
            &[&[Nats], &[Kafka], &[Redis], &[Postgres], &[Memory], &[Sqlite]],
            "PUBSUB",
            "",
            format!("pubsub below {PUBSUB_KAFKA_RPS} writes/s: NATS before Kafka"),
        ),
    }
}

fn for_timeseries(asked: &Asked) -> Preference {
    if asked.write_rps >= TIMESERIES_KAFKA_RPS {
        return of(
            &[
                &[Kafka],
                &[ClickHouse],
                &[Postgres],
                &[Nats],
                &[Memory],
                &[Sqlite],
            ],
            "TIMESERIES_LARGE",
            "needs.write_rps",
            format!(
                "timeseries from {TIMESERIES_KAFKA_RPS} writes/s: Kafka before ClickHouse ({} asked)",
                asked.write_rps
            ),
        );
    }
    of(
        &[
            &[ClickHouse],
            &[Postgres],
            &[Kafka],
            &[Nats],
            &[Memory],
            &[Sqlite],
        ],
        "TIMESERIES",
        "",
        format!("timeseries below {TIMESERIES_KAFKA_RPS} writes/s: ClickHouse before PostgreSQL"),
    )
}

/// The key by which messages are many, large or kept for long, and the sentence that says so.
fn large_messages(asked: &Asked) -> Option<(&'static str, String)> {
    if asked.write_rps >= PUBSUB_KAFKA_RPS {
        let reason = format!(
            "pubsub from {PUBSUB_KAFKA_RPS} writes/s: Kafka before NATS ({} asked)",
            asked.write_rps
        );
        return Some(("needs.write_rps", reason));
    }
    let message = asked.message_bytes.unwrap_or(MESSAGE_BYTES_ASSUMED);
    if message > NATS_MESSAGE_BYTES {
        let reason = format!(
            "pubsub with messages above {}: Kafka before NATS ({} asked)",
            format_size(NATS_MESSAGE_BYTES),
            format_size(message)
        );
        return Some(("needs.max_message_size", reason));
    }
    let retention = asked
        .retention
        .filter(|retention| *retention > PUBSUB_KAFKA_RETENTION)?;
    let reason = format!(
        "pubsub kept for more than {}: Kafka before NATS ({} asked)",
        format_duration(PUBSUB_KAFKA_RETENTION),
        format_duration(retention)
    );
    Some(("needs.retention", reason))
}

fn is_short(asked: &Asked) -> bool {
    asked
        .retention
        .is_some_and(|retention| retention <= KEYVALUE_REDIS_RETENTION)
}
