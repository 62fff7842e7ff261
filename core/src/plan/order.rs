//! Order in which kinds of store are preferred for each API. The embedded store is the last one
//! everywhere.

use std::time::Duration;

use prism_backends::{
    kind::StoreKind::{self, ClickHouse, Gremlin, Kafka, Memory, Nats, Neo4j, Postgres, Redis, Sqlite},
    offer::Api,
};

use super::{Asked, MESSAGE_BYTES_ASSUMED};
use crate::namespace::Durability;

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

/// Kinds in the order of preference; those of one entry serve together. Kinds of this machine come
/// last, memory first of them: an operator who configures one in addition to the embedded store
/// wants it used.
pub(super) fn preferred(asked: &Asked) -> &'static [&'static [StoreKind]] {
    let durable = asked.durability == Durability::Strong;
    match asked.api {
        Api::PubSub if has_large_messages(asked) => &[&[Kafka], &[Nats], &[Redis], &[Memory], &[Sqlite]],
        Api::PubSub => &[&[Nats], &[Kafka], &[Redis], &[Memory], &[Sqlite]],
        // Plain Kafka is not offered for queues: it cannot hide one message and deliver the next.
        Api::Queue if durable && asked.ordered => {
            &[&[Postgres, Kafka], &[Postgres], &[Nats], &[Memory], &[Sqlite]]
        }
        Api::Queue => &[&[Postgres], &[Nats], &[Memory], &[Sqlite]],
        Api::KeyValue if !durable || is_short(asked) => &[&[Redis], &[Postgres], &[Memory], &[Sqlite]],
        Api::KeyValue => &[&[Postgres], &[Redis], &[Memory], &[Sqlite]],
        Api::Transact => &[&[Postgres], &[Memory], &[Sqlite]],
        Api::Reader => &[&[ClickHouse], &[Postgres], &[Memory], &[Sqlite]],
        Api::TimeSeries if asked.write_rps >= TIMESERIES_KAFKA_RPS => &[
            &[Kafka],
            &[ClickHouse],
            &[Postgres],
            &[Nats],
            &[Memory],
            &[Sqlite],
        ],
        Api::TimeSeries => &[
            &[ClickHouse],
            &[Postgres],
            &[Kafka],
            &[Nats],
            &[Memory],
            &[Sqlite],
        ],
        Api::Graph => &[&[Gremlin], &[Neo4j], &[Postgres], &[Memory], &[Sqlite]],
    }
}

fn has_large_messages(asked: &Asked) -> bool {
    asked.write_rps >= PUBSUB_KAFKA_RPS
        || asked.message_bytes.unwrap_or(MESSAGE_BYTES_ASSUMED) > NATS_MESSAGE_BYTES
        || asked
            .retention
            .is_some_and(|retention| retention > PUBSUB_KAFKA_RETENTION)
}

fn is_short(asked: &Asked) -> bool {
    asked
        .retention
        .is_some_and(|retention| retention <= KEYVALUE_REDIS_RETENTION)
}
