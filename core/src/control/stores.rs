//! The stores of the running gateway: which may be picked for a namespace, and where each keeps its
//! data.

use std::time::Duration;

use prism_backends::{
    api::groups::Terms,
    kind::StoreKind,
    offer::{Api, Features, Offer},
};

use super::catalog::CatalogEntry;
use crate::{
    call::{job::Durabilities, receipt},
    config::{EMBEDDED, ServeOptions},
    namespace::{
        Durability, NamespaceConfig,
        spec::{Home, Path, StoreId, Unapplied},
    },
    plan::{self, Asked, Candidate, Excuse, Placement, Plan, Wanted},
};

/// One of the stores.
#[derive(Clone, Debug)]
pub(crate) struct OpenStore {
    pub(crate) candidate: Candidate,
    pub(crate) home: Home,
    /// Durabilities of its namespaces, for the threads that acknowledge its writes.
    pub(crate) durabilities: Option<Durabilities>,
    /// Whether the log stands before it.
    is_logged: bool,
    /// Whether other gateways may serve its namespaces, too.
    is_shared: bool,
    group_terms: Terms,
}

/// Leases of this duration: whoever hands a partition over gets three times that to commit.
fn group_terms(lease: Duration) -> Terms {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    Terms {
        lease_ms,
        handover_ms: lease_ms.saturating_mul(3),
    }
}

/// All stores, in the order of the configuration, the embedded one last.
#[derive(Clone, Debug)]
pub(crate) struct Stores(Vec<OpenStore>);

impl Stores {
    /// The stores of a configuration. `log_refusal` is why the log cannot keep `strong` here, if it
    /// cannot.
    pub(crate) fn of(options: &ServeOptions, log_refusal: Option<&str>) -> Self {
        let mut shared = 0;
        let open = |store: crate::config::StoreOptions| {
            let home = match store.kind {
                StoreKind::Memory => Home::Shards,
                _ => {
                    shared += 1;
                    Home::Store(StoreId(shared - 1))
                }
            };
            let mut candidate = Candidate::new(&store.name, store.kind);
            candidate.is_embedded = store.name == EMBEDDED;
            if !store.kind.is_server() {
                candidate.facts.log_refusal = log_refusal.map(str::to_owned);
            }
            if store.kind == StoreKind::Nats && store.sync_interval.as_deref() != Some("always") {
                candidate.facts.durable_after = None;
            }
            candidate.facts.is_apart =
                options.catalog.url.is_some() && matches!(store.kind, StoreKind::Memory | StoreKind::Sqlite);
            OpenStore {
                candidate,
                home,
                is_logged: !store.kind.is_server() || (store.kind.keeps_positions() && log_refusal.is_none()),
                is_shared: options.catalog.url.is_some(),
                group_terms: group_terms(options.limits.group_lease),
                durabilities: None,
            }
        };
        Self(options.all_stores().into_iter().map(open).collect())
    }

    /// The store for a new namespace.
    ///
    /// # Errors
    /// An excuse for each store.
    pub(crate) fn pick(&self, config: &NamespaceConfig) -> Result<&OpenStore, Vec<Excuse>> {
        let candidates: Vec<_> = self.0.iter().map(|store| store.candidate.clone()).collect();
        let choice = plan::pick(&Asked::of(config), &candidates, None)?;
        Ok(&self.0[choice.stores[0]])
    }

    /// The plan of a namespace.
    ///
    /// # Errors
    /// An excuse for each store, or for the one that has its data.
    pub(crate) fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, Vec<Excuse>> {
        let candidates: Vec<_> = self.0.iter().map(|store| store.candidate.clone()).collect();
        plan::plan(wanted, &candidates, |index| {
            let store = &self.0[index];
            Placement {
                backend: store.describe(&wanted.config.name),
                acknowledged: store
                    .acknowledged(wanted.config.durability(), plan::api_of(wanted.config.client_api)),
            }
        })
    }

    /// Checks whether a store can keep what the new file of a namespace asks for that lies there.
    ///
    /// # Errors
    /// Its excuse; none if it is not configured.
    pub(crate) fn check(&self, name: &str, kind: &str, config: &NamespaceConfig) -> Result<(), Vec<Excuse>> {
        let candidate = self.find(name, kind).map(|store| store.candidate.clone());
        let candidates: Vec<_> = candidate.into_iter().collect();
        plan::pick(&Asked::of(config), &candidates, None).map(drop)
    }

    /// Notes what the acknowledgement of a write to a namespace of another gateway says.
    pub(crate) fn note(&self, entry: &CatalogEntry) {
        let store = self.find(&entry.store.name, &entry.store.kind);
        let Some(known) = store.and_then(|store| store.durabilities.as_ref()) else {
            return;
        };
        let durability = Durability::parse(&entry.durability).unwrap_or(Durability::Strong);
        if let Ok(mut known) = known.write() {
            known.insert(entry.id, receipt::number_of(durability));
        }
    }

    /// Shares the durabilities of the servers' stores, in their order, with the threads of those.
    pub(crate) fn share(&mut self, durabilities: impl Iterator<Item = Durabilities>) {
        let servers = self.0.iter_mut();
        let servers = servers.filter(|store| store.candidate.kind.is_server());
        for (store, known) in servers.zip(durabilities) {
            store.durabilities = Some(known);
        }
    }

    /// Whether the log stands before the stores of this kind.
    pub(crate) fn is_logged(&self, kind: StoreKind) -> bool {
        self.0
            .iter()
            .any(|store| store.candidate.kind == kind && store.is_logged)
    }

    /// The store of this name, if it is of this kind.
    pub(crate) fn find(&self, name: &str, kind: &str) -> Option<&OpenStore> {
        self.0
            .iter()
            .find(|store| store.candidate.name == name && store.candidate.kind.name() == kind)
    }
}

impl OpenStore {
    /// The place of a namespace's data, for people: `SQLite table "user-sessions"`, `memory` or
    /// `memory "cache"`.
    pub(crate) fn describe(&self, namespace: &str) -> String {
        match self.candidate.kind {
            StoreKind::Memory => self.candidate.title(),
            StoreKind::Postgres => format!("{}, schema prism", self.candidate.title()),
            StoreKind::Redis => format!("{}, keys prism:*", self.candidate.title()),
            StoreKind::Nats => format!("{}, streams PRISM-*", self.candidate.title()),
            StoreKind::Kafka => format!("{}, topics prism-*", self.candidate.title()),
            kind => format!("{} table \"{namespace}\"", kind.title()),
        }
    }

    /// The order in which writes of an API reach store and log. Where other gateways serve a
    /// namespace, too, `strong` is the server's own: they do not see what the log of this one still
    /// holds. A store that might take a write twice gets none from the log that it has taken.
    pub(crate) fn path(&self, durability: Durability, api: Api) -> Path {
        let is_queued = durability == Durability::BestEffort && api == Api::PubSub;
        if is_queued && self.candidate.kind == StoreKind::Sqlite {
            return Path::Queued;
        }
        let has_copies = durability == Durability::Strong || self.candidate.kind.knows_its_writes(api);
        match (
            self.is_logged && has_copies,
            self.is_shared && durability == Durability::Strong,
        ) {
            (true, false) => Path::of(durability),
            (false, _) | (true, true) => Path::StoreOnly,
        }
    }

    /// Who acknowledges a write, and who has it then, for people.
    fn acknowledged(&self, durability: Durability, api: Api) -> &'static str {
        match (self.path(durability, api), durability) {
            (Path::LogFirst, _) => "the log acknowledges when it is on disk, then the store gets it",
            (Path::StoreThenLog, _) => "the store acknowledges, then the log gets a copy",
            (Path::StoreOnly, Durability::Strong) => "the store acknowledges when it is on its disk",
            (Path::StoreOnly, _) => "the store acknowledges; there is no log",
            (Path::Queued, _) => "acknowledged when it is queued for the store; there is no log",
        }
    }

    /// Durations of the leases of groups of subscribers; `None`: the store keeps no groups.
    pub(crate) fn groups(&self) -> Option<Terms> {
        let offers = self.candidate.kind.offers();
        let keeps = |offer: &Offer| offer.api == Api::PubSub && offer.features.has(Features::GROUPS);
        offers.iter().any(keeps).then_some(self.group_terms)
    }

    /// How reads of an API treat acknowledged writes that the store lacks.
    pub(crate) fn unapplied(&self, api: Api) -> Unapplied {
        match (self.candidate.kind, api) {
            (StoreKind::Memory, _) => Unapplied::Ignore,
            (StoreKind::Sqlite, Api::KeyValue) => Unapplied::Overlay,
            _ => Unapplied::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EmbeddedStore, StoreOptions};

    #[test]
    fn each_shared_store_has_a_number_and_memory_has_none() {
        let options = ServeOptions {
            embedded: EmbeddedStore::Memory,
            stores: vec![
                StoreOptions::plain("cache", StoreKind::Memory),
                StoreOptions::plain("disk", StoreKind::Sqlite),
            ],
            ..ServeOptions::default()
        };
        let stores = Stores::of(&options, None);
        let home = |name, kind| stores.find(name, kind).map(|store| store.home);
        assert_eq!(home("cache", "memory"), Some(Home::Shards));
        assert_eq!(home("disk", "sqlite"), Some(Home::Store(StoreId(0))));
        assert_eq!(home(EMBEDDED, "memory"), Some(Home::Shards));
        assert_eq!(home(EMBEDDED, "sqlite"), None, "another kind is another store");
        let describe = |name, kind| stores.find(name, kind).map(|store| store.describe("n"));
        assert_eq!(describe("cache", "memory").as_deref(), Some("memory \"cache\""));
        assert_eq!(describe("disk", "sqlite").as_deref(), Some("SQLite table \"n\""));
        assert_eq!(describe(EMBEDDED, "memory").as_deref(), Some("memory"));
    }
}
