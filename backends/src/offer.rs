//! Promises of a store for one API: the facts that decide which namespaces it may serve.
//!
//! An [`Offer`] is the entry of the table of stores and APIs; without an entry there is no service.
//! When a namespace is made, its needs are compared with the offers (`core/src/plan/` of the
//! gateway), and the behaviour suite runs the cases of the features that an offer claims. So no
//! caller finds out later that a store cannot do something.

use std::fmt;

/// The services through which data is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Api {
    /// Store and retrieve by key.
    KeyValue,
    /// Publish and subscribe.
    PubSub,
    /// Work items.
    Queue,
    /// Read-only queries.
    Reader,
    /// Atomic multi-operation transactions.
    Transact,
    /// Append-only streams with time.
    TimeSeries,
    /// Nodes and edges.
    Graph,
}

impl Api {
    /// All of them.
    pub const ALL: [Api; 7] = [
        Api::KeyValue,
        Api::PubSub,
        Api::Queue,
        Api::Reader,
        Api::Transact,
        Api::TimeSeries,
        Api::Graph,
    ];
}

/// Meaning of a store's own acknowledgement of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Acked {
    /// The write is in the process's memory.
    Volatile,
    /// It is visible, and durable once the store has been asked to sync.
    DurableOnSync,
    /// It is durable.
    Durable,
}

impl Acked {
    /// All of them, the weakest first.
    pub const ALL: [Acked; 3] = [Acked::Volatile, Acked::DurableOnSync, Acked::Durable];
}

/// Effect of a batch of the log that a store gets once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Replay {
    /// It may appear twice, so no log can stand in front of the store.
    Duplicates,
    /// Each write has an identity that makes a repeat a no-op, for ever.
    Idempotent,
    /// Effect and position commit together: a batch whose position is noted already is skipped.
    Exact,
}

impl Replay {
    /// All of them, the weakest first.
    pub const ALL: [Replay; 3] = [Replay::Duplicates, Replay::Idempotent, Replay::Exact];
}

/// The order in which a store shows writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Order {
    /// No reliable order.
    Any,
    /// The order of the writes, for each key.
    PerKey,
}

impl Order {
    /// All of them, the weakest first.
    pub const ALL: [Order; 2] = [Order::Any, Order::PerKey];
}

/// A set of abilities that not every store has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Features(u16);

impl Features {
    /// The empty set.
    pub const NONE: Features = Features(0);
    /// A read sees every write that was acknowledged before it.
    pub const STRONG_READS: Features = Features(1);
    /// Items expire one by one.
    pub const TTL: Features = Features(1 << 1);
    /// Messages older than a bound are removed.
    pub const RETENTION: Features = Features(1 << 2);
    /// Messages that were read can be read again.
    pub const REPLAY: Features = Features(1 << 3);
    /// Several writes take place together or not at all.
    pub const ATOMIC: Features = Features(1 << 4);
    /// Compare-and-swap.
    pub const SWAPS: Features = Features(1 << 5);
    /// A whole namespace can be scanned.
    pub const SCANS: Features = Features(1 << 6);
    /// Deletes are remembered, so that an older write does not bring an item back.
    pub const TOMBSTONES: Features = Features(1 << 7);
    /// Groups of subscribers share the messages of a namespace.
    pub const GROUPS: Features = Features(1 << 8);

    /// Each feature with its name, for messages.
    pub const NAMED: [(Features, &'static str); 9] = [
        (Features::STRONG_READS, "strong reads"),
        (Features::TTL, "ttl"),
        (Features::RETENTION, "retention"),
        (Features::REPLAY, "replay"),
        (Features::ATOMIC, "transactions"),
        (Features::SWAPS, "compare-and-swap"),
        (Features::SCANS, "scans"),
        (Features::TOMBSTONES, "remembered deletes"),
        (Features::GROUPS, "groups"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// This set without the members of the other.
    #[must_use]
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Whether this set includes the other.
    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Features::NAMED
            .iter()
            .filter(|(feature, _)| self.has(*feature))
            .map(|(_, name)| name);
        formatter.debug_set().entries(names).finish()
    }
}

/// The promises of one store for one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Service through which the store can be used.
    pub api: Api,
    /// Meaning of the store's own acknowledgement.
    pub acked: Acked,
    /// Effect of a repeated batch.
    pub replay: Replay,
    /// Order that readers see.
    pub order: Order,
    /// Abilities that not every store has.
    pub features: Features,
    /// Largest value or message, in bytes.
    pub value_bytes_max: usize,
    /// Whether data outlives the store's process.
    pub survives_restart: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_bit_and_a_name_of_its_own() {
        let mut all = Features::NONE;
        for (feature, name) in Features::NAMED {
            assert!(!all.has(feature), "{name} shares its bit with another");
            assert_eq!(all.and(feature).without(feature), all, "{name}");
            all = all.and(feature);
        }
        assert_eq!(
            format!("{:?}", Features::TTL.and(Features::SWAPS)),
            r#"{"ttl", "compare-and-swap"}"#
        );
    }
}
