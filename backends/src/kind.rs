//! Kinds of store that a configuration may name.

use crate::offer::Offer;
use crate::{kafka, memory, nats, postgres, redis, sqlite};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreKind {
    /// The shards' own memory.
    Memory,
    /// One SQLite file in the data directory.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// Redis or Valkey.
    Redis,
    /// NATS with JetStream.
    Nats,
    /// Kafka.
    Kafka,
    /// ClickHouse.
    ClickHouse,
    /// A server that speaks Gremlin, such as Neptune.
    Gremlin,
    /// Neo4j.
    Neo4j,
}

impl StoreKind {
    /// All of them.
    pub const ALL: [StoreKind; 9] = [
        StoreKind::Memory,
        StoreKind::Sqlite,
        StoreKind::Postgres,
        StoreKind::Redis,
        StoreKind::Nats,
        StoreKind::Kafka,
        StoreKind::ClickHouse,
        StoreKind::Gremlin,
        StoreKind::Neo4j,
    ];

    /// The kind's word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            StoreKind::Memory => "memory",
            StoreKind::Sqlite => "sqlite",
            StoreKind::Postgres => "postgres",
            StoreKind::Redis => "redis",
            StoreKind::Nats => "nats",
            StoreKind::Kafka => "kafka",
            StoreKind::ClickHouse => "clickhouse",
            StoreKind::Gremlin => "gremlin",
            StoreKind::Neo4j => "neo4j",
        }
    }

    /// The name commonly used by people.
    pub const fn title(self) -> &'static str {
        match self {
            StoreKind::Memory => "memory",
            StoreKind::Sqlite => "SQLite",
            StoreKind::Postgres => "PostgreSQL",
            StoreKind::Redis => "Redis",
            StoreKind::Nats => "NATS",
            StoreKind::Kafka => "Kafka",
            StoreKind::ClickHouse => "ClickHouse",
            StoreKind::Gremlin => "Gremlin",
            StoreKind::Neo4j => "Neo4j",
        }
    }

    /// The kind of this word.
    pub fn of_name(name: &str) -> Option<StoreKind> {
        StoreKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Largest message of a namespace that declares none, in bytes, where that is not the store's
    /// largest.
    pub const fn message_bytes_default(self) -> Option<u64> {
        match self {
            // With its headers it fits into a server that is not configured for more.
            StoreKind::Nats => Some(1_000_000),
            _ => None,
        }
    }

    /// Offers of this version for such a store, one for each API; empty where it has no driver.
    pub const fn offers(self) -> &'static [Offer] {
        match self {
            StoreKind::Memory => &[memory::KEYVALUE, memory::PUBSUB, memory::QUEUE],
            StoreKind::Sqlite => &[sqlite::KEYVALUE, sqlite::PUBSUB, sqlite::QUEUE],
            StoreKind::Postgres => &[postgres::KEYVALUE, postgres::PUBSUB, postgres::QUEUE],
            StoreKind::Redis => &[redis::KEYVALUE],
            StoreKind::Nats => &[nats::PUBSUB],
            StoreKind::Kafka => &[kafka::PUBSUB],
            StoreKind::ClickHouse | StoreKind::Gremlin | StoreKind::Neo4j => &[],
        }
    }
}
