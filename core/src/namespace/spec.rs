//! A namespace as all shards see it: one immutable snapshot.

use prism_backends::{NamespaceId, api::groups::Terms};
use prism_codec::method::{Api, Effect};

use super::{access::AccessList, model::Durability, rates::Rates, state::NamespaceState};

/// Snapshot of a namespace, shared by all shards. A change makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceSpec {
    pub(crate) id: NamespaceId,
    pub(crate) name: String,
    /// Whether its calls are served.
    pub(crate) state: NamespaceState,
    /// Why no call is served although no change is under way, such as a store that is not
    /// configured.
    pub(crate) trouble: Option<String>,
    /// API whose calls it takes.
    pub(crate) api: Api,
    /// Time to live of items for which the writer gives none; of a queue its terms.
    pub(crate) ttl_ms: Option<u64>,
    /// Largest value.
    pub(crate) value_bytes_max: usize,
    /// Declared rates, in force over all shards.
    pub(crate) rates: Rates,
    /// Where its data lies.
    pub(crate) home: Home,
    /// How its writes get there.
    pub(crate) path: Path,
    /// How its reads treat acknowledged writes that the store lacks.
    pub(crate) unapplied: Unapplied,
    /// Whether messages of one topic and ordering key keep their order.
    pub(crate) ordered: bool,
    /// Whether a subscription may begin with messages that are there already.
    pub(crate) replay: bool,
    /// Durations of the leases of groups of subscribers; `None`: its store keeps no groups.
    pub(crate) groups: Option<Terms>,
    /// Who may do what, where the gateway has identity.
    pub(crate) access: AccessList,
}

impl NamespaceSpec {
    /// Whether calls are served.
    #[inline]
    pub(crate) fn serves(&self) -> bool {
        self.state.serves() && self.trouble.is_none()
    }
}

/// Number of a store that the shards share, in the order of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StoreId(pub(crate) u8);

/// Where the data of a namespace lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the memory of the shards, each with the keys that it owns.
    Shards,
    /// In a store that all shards reach by threads of its own.
    Store(StoreId),
}

/// The order in which a write reaches store and log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// The store alone: `best-effort`.
    StoreOnly,
    /// The queue of the store, which is acknowledged, then the store: `best-effort` of APIs whose
    /// writes need no verdict.
    Queued,
    /// The store, which is acknowledged, then the log's copy: `eventual`.
    StoreThenLog,
    /// The log, which is acknowledged, then the store: `strong`.
    LogFirst,
}

impl Path {
    /// The path that keeps a durability.
    pub(crate) fn of(durability: Durability) -> Self {
        match durability {
            Durability::BestEffort => Self::StoreOnly,
            Durability::Eventual => Self::StoreThenLog,
            Durability::Strong => Self::LogFirst,
        }
    }
}

impl Path {
    /// The path of a call with this effect: only writes that need no verdict are queued.
    pub(crate) fn of_call(self, effect: Effect) -> Self {
        match (self, effect) {
            (Self::Queued, Effect::None | Effect::Judged | Effect::Direct) => Self::StoreOnly,
            (path, _) => path,
        }
    }
}

/// How reads treat acknowledged writes that the store lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unapplied {
    /// As if there were none: they never lack any, or need not be seen.
    Ignore,
    /// Wait until the store has those of the keys that are read.
    Wait,
    /// Lay them over what the store has.
    Overlay,
}
