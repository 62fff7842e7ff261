//! From an entry of the catalog to what shards and stores need of it.

use std::{sync::Arc, time::Duration};

use prism_backends::{NamespaceId, kind::StoreKind};
use prism_codec::method::Api;

use super::{catalog::CatalogEntry, provision::Object, stores::Stores};
use crate::{
    namespace::{
        ClientApi, Durability, NamespaceConfig,
        access::AccessList,
        rates::rates,
        spec::{Home, NamespaceSpec, Path, Unapplied},
        state::NamespaceState,
        terms,
    },
    plan::api_of,
};

/// Snapshot of a namespace for the shards. One that cannot be served says why, to its callers too,
/// and does not keep the others from being served.
pub(super) fn spec_of(entry: &CatalogEntry, state: NamespaceState, stores: &Stores) -> Arc<NamespaceSpec> {
    let spec = match state {
        NamespaceState::Deleting => unserved(entry, state, stores),
        _ => served(entry, state, stores).unwrap_or_else(|trouble| {
            let name = &entry.name;
            tracing::error!(namespace = name, trouble, "the namespace stays out of service");
            NamespaceSpec {
                trouble: Some(trouble),
                ..unserved(entry, state, stores)
            }
        }),
    };
    Arc::new(spec)
}

fn served(entry: &CatalogEntry, state: NamespaceState, stores: &Stores) -> Result<NamespaceSpec, String> {
    let config = entry.config().map_err(|cause| cause.to_string())?;
    let store = stores
        .find(&entry.store.name, &entry.store.kind)
        .ok_or_else(|| format!("its store, {}, is not configured", entry.store))?;
    let api = config.client_api.service().ok_or_else(|| {
        let api = config.client_api;
        format!("this version does not serve client_api {api}")
    })?;
    let value_bytes_max = message_bytes_max(&config, store.candidate.kind);
    let path = store.path(config.durability(), api_of(config.client_api));
    Ok(NamespaceSpec {
        id: NamespaceId(entry.id),
        name: config.name.clone(),
        state,
        trouble: None,
        api,
        ttl_ms: match api {
            Api::Queue => Some(terms::pack(config.queue_terms())),
            _ => config.item_ttl().map(millis_of),
        },
        value_bytes_max: usize::try_from(value_bytes_max).unwrap_or(usize::MAX),
        rates: rates(config.needs.write_rps, config.needs.read_rps),
        home: store.home,
        path,
        unapplied: match path {
            Path::LogFirst => store.unapplied(api_of(config.client_api)),
            Path::StoreOnly | Path::Queued | Path::StoreThenLog => Unapplied::Ignore,
        },
        ordered: config.needs.ordered == Some(true),
        replay: config.needs.replay != Some(false),
        groups: store.groups(),
        access: AccessList::of(&config),
    })
}

fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Largest value or message of a namespace on a store of this kind.
fn message_bytes_max(config: &NamespaceConfig, kind: StoreKind) -> u64 {
    let declared = config.needs.max_message_size.or(kind.message_bytes_default());
    declared.unwrap_or(u64::MAX)
}

/// A namespace of which no call is served, whatever its file says.
fn unserved(entry: &CatalogEntry, state: NamespaceState, stores: &Stores) -> NamespaceSpec {
    let api = ClientApi::parse(&entry.client_api).and_then(ClientApi::service);
    NamespaceSpec {
        id: NamespaceId(entry.id),
        name: entry.name.clone(),
        state,
        trouble: None,
        api: api.unwrap_or(Api::KeyValue),
        ttl_ms: None,
        value_bytes_max: 0,
        rates: [None, None],
        home: home_of(entry, stores).unwrap_or(Home::Shards),
        path: Path::of(durability_of(entry)),
        unapplied: Unapplied::Ignore,
        ordered: false,
        replay: false,
        groups: None,
        access: entry
            .config()
            .map(|config| AccessList::of(&config))
            .unwrap_or_default(),
    }
}

/// The place of a namespace's data; `None` if its store is not configured.
pub(super) fn home_of(entry: &CatalogEntry, stores: &Stores) -> Option<Home> {
    stores
        .find(&entry.store.name, &entry.store.kind)
        .map(|store| store.home)
}

/// The part of a namespace that its store has.
pub(super) fn object_of(entry: &CatalogEntry) -> Object {
    Object {
        id: NamespaceId(entry.id),
        name: entry.name.clone(),
        durability: durability_of(entry),
        message_bytes_max: StoreKind::of_name(&entry.store.kind)
            .zip(entry.config().ok())
            .map_or(0, |(kind, config)| message_bytes_max(&config, kind)),
        life_ms: entry
            .config()
            .ok()
            .and_then(|config| config.item_ttl())
            .map(millis_of),
    }
}

/// The durability as the catalog has it, which was checked when the namespace was created.
fn durability_of(entry: &CatalogEntry) -> Durability {
    Durability::parse(&entry.durability).unwrap_or(Durability::Strong)
}
