//! Which namespaces the file knows, and which of them are dropped.

use std::collections::HashMap;

use rusqlite::Connection;
use rustc_hash::FxBuildHasher;

use crate::error::StoreError;
use crate::ids::NamespaceId;

/// Namespaces by their number.
pub(super) type Namespaces = HashMap<NamespaceId, NamespaceState, FxBuildHasher>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamespaceState {
    Live,
    Dropped,
    Swept,
}

pub(super) fn check(namespaces: &Namespaces, namespace: NamespaceId) -> Result<(), StoreError> {
    match namespaces.get(&namespace) {
        Some(NamespaceState::Live) => Ok(()),
        Some(_) => Err(StoreError::DroppedNamespace(namespace)),
        None => Err(StoreError::UnknownNamespace(namespace)),
    }
}

pub(super) fn load(connection: &Connection) -> Result<Namespaces, StoreError> {
    let mut namespaces = HashMap::default();
    let mut statement = connection.prepare_cached("SELECT id, state FROM namespace")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let state = match row.get::<_, i64>(1)? {
            0 => NamespaceState::Live,
            1 => NamespaceState::Dropped,
            2 => NamespaceState::Swept,
            other => {
                return Err(StoreError::Corrupt {
                    detail: format!("a namespace of state {other}"),
                });
            }
        };
        namespaces.insert(NamespaceId(row.get(0)?), state);
    }
    Ok(namespaces)
}

pub(super) const SET_NAMESPACE: &str = "INSERT INTO namespace (id, state) VALUES (?1, ?2)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state";
