//! The namespaces that have messages: the number of each, and how far it has come.

use std::collections::{HashMap, hash_map::Entry};

use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::FxBuildHasher;

use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};

/// Bits of a place that count the messages of one namespace: a million million.
const NUMBER_BITS: u32 = 40;

/// Place of a namespace's messages in the table, and how far they have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sqlite) struct Space {
    /// Which part of the table is its own.
    pub(super) number: i64,
    /// The number of its next message.
    pub(in crate::sqlite) next: u64,
    /// Time of its last message.
    pub(super) time: UnixMillis,
}

impl Space {
    /// Place of the message with this number.
    pub(in crate::sqlite) fn place(&self, number: u64) -> i64 {
        place_of(self.number, number)
    }

    /// First place after its part of the table.
    pub(super) fn end(&self) -> i64 {
        place_of(self.number + 1, 0)
    }
}

fn place_of(space: i64, number: u64) -> i64 {
    space << NUMBER_BITS | (number & ((1 << NUMBER_BITS) - 1)) as i64
}

/// The number of a message, from its place.
pub(super) fn number_at(place: i64) -> u64 {
    place as u64 & ((1 << NUMBER_BITS) - 1)
}

/// All spaces, as the writer keeps them in memory.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Spaces {
    known: HashMap<NamespaceId, Space, FxBuildHasher>,
    /// Those that the running transaction has changed.
    changed: Vec<NamespaceId>,
    /// Namespace after which the next step of the sweep begins.
    pub(super) swept: u32,
}

impl Spaces {
    /// Space of a namespace, made if it has none.
    pub(in crate::sqlite) fn of(
        &mut self,
        connection: &Connection,
        namespace: NamespaceId,
    ) -> Result<&mut Space, StoreError> {
        if !self.changed.contains(&namespace) {
            self.changed.push(namespace);
        }
        match self.known.entry(namespace) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => Ok(vacant.insert(match load(connection, namespace)? {
                Some(space) => space,
                None => make(connection, namespace)?,
            })),
        }
    }

    /// Writes down within the transaction how far the changed ones have come.
    pub(in crate::sqlite) fn note(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(NOTE)?;
        for namespace in &self.changed {
            if let Some(space) = self.known.get(namespace) {
                let next = space.next as i64;
                statement.execute(params![space.number, next, space.time.0 as i64])?;
            }
        }
        Ok(())
    }

    /// After a transaction: what it changed, if it was committed; else that is forgotten.
    pub(in crate::sqlite) fn settle(&mut self, committed: bool) -> Vec<(NamespaceId, u64)> {
        let changed = std::mem::take(&mut self.changed);
        if !committed {
            for namespace in &changed {
                self.known.remove(namespace);
            }
            return Vec::new();
        }
        let next = |namespace: &NamespaceId| self.known.get(namespace).map(|space| (*namespace, space.next));
        changed.iter().filter_map(next).collect()
    }

    pub(super) fn forget(&mut self, namespace: NamespaceId) {
        self.known.remove(&namespace);
    }
}

/// A namespace's space as the file has it.
pub(super) fn load(connection: &Connection, namespace: NamespaceId) -> Result<Option<Space>, StoreError> {
    let space = connection
        .prepare_cached(LOAD)?
        .query_row([namespace.0], |row| {
            Ok(Space {
                number: row.get(0)?,
                next: row.get::<_, i64>(1)?.max(1) as u64,
                time: UnixMillis(row.get::<_, i64>(2)?.max(0) as u64),
            })
        })
        .optional()?;
    Ok(space)
}

/// The places of a namespace's messages: from the first on, below the second.
pub(in crate::sqlite) fn place_range(
    connection: &Connection,
    namespace: NamespaceId,
) -> Result<Option<(i64, i64)>, StoreError> {
    Ok(load(connection, namespace)?.map(|space| (space.place(0), space.end())))
}

fn make(connection: &Connection, namespace: NamespaceId) -> Result<Space, StoreError> {
    let number = connection.prepare_cached(MAKE)?.insert([namespace.0])?;
    if number >= 1 << (62 - NUMBER_BITS) {
        return Err(StoreError::Full {
            detail: "the file has had as many namespaces with messages as it can tell apart".to_owned(),
        });
    }
    Ok(Space {
        number,
        next: 1,
        time: UnixMillis(0),
    })
}

/// The namespace with messages that comes next after one, by its number.
pub(super) fn next_after(connection: &Connection, namespace: u32) -> Result<Option<NamespaceId>, StoreError> {
    let next = connection
        .prepare_cached(NEXT_AFTER)?
        .query_row([namespace], |row| row.get(0).map(NamespaceId))
        .optional()?;
    Ok(next)
}

const LOAD: &str = "SELECT number, next, time_ms FROM message_space WHERE namespace = ?1";
const MAKE: &str = "INSERT INTO message_space (namespace, next, time_ms) VALUES (?1, 1, 0)";
const NOTE: &str = "UPDATE message_space SET next = ?2, time_ms = ?3 WHERE number = ?1";
const NEXT_AFTER: &str =
    "SELECT namespace FROM message_space WHERE namespace > ?1 ORDER BY namespace LIMIT 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_order_by_space_then_number() {
        let space = |number| Space {
            number,
            next: 1,
            time: UnixMillis(0),
        };
        let last = (1 << NUMBER_BITS) - 1;
        assert!(space(1).place(1) < space(1).place(2));
        assert!(space(1).place(last) < space(1).end());
        assert_eq!(space(1).end(), space(2).place(0));
        for number in [0, 1, 77, last] {
            assert_eq!(number_at(space(9).place(number)), number);
        }
        assert!(space((1 << (62 - NUMBER_BITS)) - 1).end() > 0, "no overflow");
    }
}
