//! From an entry of the catalog to what shards and stores need of it.

use std::sync::Arc;

use prism_backends::NamespaceId;
use prism_codec::method::Api;

use super::{catalog::CatalogEntry, provision::Object, stores::Stores};
use crate::{
    namespace::{
        ClientApi, Durability,
        spec::{Home, NamespaceSpec, Path, Unapplied},
        state::NamespaceState,
    },
    plan::api_of,
};

/// Snapshot of a namespace for the shards; `None` if it cannot be served, which has been logged
/// then: one namespace in trouble must not keep the others from being served.
pub(super) fn spec_of(
    entry: &CatalogEntry,
    state: NamespaceState,
    stores: &Stores,
) -> Option<Arc<NamespaceSpec>> {
    if state == NamespaceState::Deleting {
        return Some(Arc::new(gone(entry, stores)));
    }
    let config = match entry.config() {
        Ok(config) => config,
        Err(cause) => {
            tracing::error!(namespace = entry.name, error = %cause, "the namespace stays out of service");
            return None;
        }
    };
    let Some(store) = stores.find(&entry.store.name, &entry.store.kind) else {
        tracing::error!(
            namespace = entry.name,
            store = entry.store.name,
            kind = entry.store.kind,
            "this store is not configured: the namespace stays out of service"
        );
        return None;
    };
    let Some(api) = config.client_api.service() else {
        tracing::error!(
            namespace = entry.name,
            client_api = %config.client_api,
            "this version does not serve this API: the namespace stays out of service"
        );
        return None;
    };
    let value_bytes_max = config.needs.max_message_size.unwrap_or(u64::MAX);
    let path = store.path(config.durability());
    Some(Arc::new(NamespaceSpec {
        id: NamespaceId(entry.id),
        name: config.name.clone(),
        state,
        api,
        ttl_ms: config
            .item_ttl()
            .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        value_bytes_max: usize::try_from(value_bytes_max).unwrap_or(usize::MAX),
        home: store.home,
        path,
        unapplied: match path {
            Path::LogFirst => store.unapplied(api_of(config.client_api)),
            Path::StoreOnly | Path::StoreThenLog => Unapplied::Ignore,
        },
        ordered: config.needs.ordered == Some(true),
        replay: config.needs.replay != Some(false),
    }))
}

/// A namespace that is being deleted, whatever its file says.
fn gone(entry: &CatalogEntry, stores: &Stores) -> NamespaceSpec {
    let api = ClientApi::parse(&entry.client_api).and_then(ClientApi::service);
    NamespaceSpec {
        id: NamespaceId(entry.id),
        name: entry.name.clone(),
        state: NamespaceState::Deleting,
        api: api.unwrap_or(Api::KeyValue),
        ttl_ms: None,
        value_bytes_max: 0,
        home: home_of(entry, stores).unwrap_or(Home::Shards),
        path: Path::of(durability_of(entry)),
        unapplied: Unapplied::Ignore,
        ordered: false,
        replay: false,
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
    }
}

/// The durability as the catalog has it, which was checked when the namespace was created.
fn durability_of(entry: &CatalogEntry) -> Durability {
    Durability::parse(&entry.durability).unwrap_or(Durability::Strong)
}
