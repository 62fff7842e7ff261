//! The copy of a shared catalog on this gateway's disk: the tables of a catalog, which follow the
//! database, and whose copy it is.

use std::collections::{BTreeMap, HashSet};

use prism_backends::postgres::catalog::{CatalogRow, Delta};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Catalog, CatalogEntry, CatalogError, StoreRef};
use crate::namespace::state::NamespaceState;

/// The copy's file within the data directory.
pub(super) const FILE_NAME: &str = "catalog-copy.db";

/// The numbers of the catalog that is copied, and of this gateway among those that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) catalog: Option<u128>,
    pub(super) gateway: u128,
}

impl Catalog {
    /// The identity that the file has; this gateway's number is made with the file.
    pub(super) fn identity(&mut self, fresh: u128) -> Result<Identity, CatalogError> {
        let read = |transaction: &Transaction<'_>| {
            transaction.execute_batch(
                "CREATE TABLE IF NOT EXISTS copy (one INTEGER PRIMARY KEY CHECK (one = 1), catalog TEXT, gateway TEXT NOT NULL) STRICT",
            )?;
            transaction.execute(
                "INSERT OR IGNORE INTO copy (one, gateway) VALUES (1, ?1)",
                [hex(fresh)],
            )?;
            Ok(
                transaction.query_row("SELECT catalog, gateway FROM copy", [], |row| {
                    Ok((row.get::<_, Option<String>>(0)?, row.get::<_, String>(1)?))
                })?,
            )
        };
        let (catalog, gateway) = self.change(read, |_| true)?;
        let number = |text: &str| u128::from_str_radix(text, 16).ok();
        match (catalog.as_deref().map(number), number(&gateway)) {
            (None | Some(Some(_)), Some(gateway)) => Ok(Identity {
                catalog: catalog.as_deref().and_then(number),
                gateway,
            }),
            _ => Err(CatalogError::Corrupt {
                place: self.place.clone(),
                reason: "its identity cannot be read".to_owned(),
            }),
        }
    }

    /// Makes the file a copy of this catalog; what it held of another one is forgotten.
    pub(super) fn become_copy_of(&mut self, catalog: u128) -> Result<(), CatalogError> {
        let change = |transaction: &Transaction<'_>| {
            let changed = transaction.execute(
                "UPDATE copy SET catalog = ?1 WHERE catalog IS NOT ?1",
                [hex(catalog)],
            )?;
            if changed > 0 {
                transaction.execute("DELETE FROM namespaces", [])?;
            }
            Ok(())
        };
        self.change(change, |()| true)
    }

    /// Takes in what has changed in the database. Returns the namespaces that differ now, by
    /// number, with the names that they have or had.
    pub(super) fn follow(&mut self, delta: &Delta) -> Result<BTreeMap<u32, String>, CatalogError> {
        let mut before: BTreeMap<u32, CatalogEntry> = BTreeMap::new();
        if delta.is_whole {
            before.extend(self.entries()?.into_iter().map(|entry| (entry.id, entry)));
        }
        let mut gone = delta.removed.clone();
        if delta.is_whole {
            let there: HashSet<u32> = delta.rows.iter().map(|row| row.id).collect();
            gone.extend(before.keys().filter(|id| !there.contains(id)));
        }
        let mut touched = BTreeMap::new();
        let follow = |transaction: &Transaction<'_>| {
            let mut find = transaction.prepare_cached("SELECT name FROM namespaces WHERE id = ?1")?;
            let mut remove = transaction.prepare_cached("DELETE FROM namespaces WHERE id = ?1")?;
            for id in gone {
                if let Some(name) = find.query_row([id], |row| row.get(0)).optional()? {
                    remove.execute([id])?;
                    touched.insert(id, name);
                }
            }
            let mut put = transaction.prepare_cached(PUT)?;
            for row in &delta.rows {
                let is_done = row.state == NamespaceState::Active.as_str();
                if is_done && before.get(&row.id) == entry_of(row).as_ref() {
                    continue;
                }
                put.execute(params![
                    row.id,
                    row.name,
                    row.team,
                    row.client_api,
                    row.durability,
                    row.backend,
                    row.create_time_ns,
                    row.yaml,
                    row.store,
                    row.store_kind,
                    row.state,
                    row.version.cast_signed(),
                    row.pending
                ])?;
                touched.insert(row.id, row.name.clone());
            }
            Ok(())
        };
        self.change_unsynced(follow)?;
        Ok(touched)
    }
}

const PUT: &str = "INSERT INTO namespaces \
    (id, name, team, client_api, durability, backend, create_time_ns, yaml, store, store_kind, state, version, pending) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
    ON CONFLICT (id) DO UPDATE SET team = excluded.team, yaml = excluded.yaml, state = excluded.state, \
    version = excluded.version, pending = excluded.pending";

/// The entry of a row; `None` if a newer program has made it, with a state that this one does not
/// know.
fn entry_of(row: &CatalogRow) -> Option<CatalogEntry> {
    Some(CatalogEntry {
        id: row.id,
        name: row.name.clone(),
        team: row.team.clone(),
        client_api: row.client_api.clone(),
        durability: row.durability.clone(),
        backend: row.backend.clone(),
        store: StoreRef {
            name: row.store.clone(),
            kind: row.store_kind.clone(),
        },
        create_time_ns: row.create_time_ns,
        yaml: row.yaml.clone(),
        state: NamespaceState::parse(&row.state)?,
        version: row.version,
        pending: row.pending.clone(),
    })
}

fn hex(number: u128) -> String {
    format!("{number:032x}")
}
