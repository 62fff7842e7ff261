//! Puts and deletes of keys, gathered: the rows that a whole run of them leaves, one for each key.
//!
//! Of two writes to one key the newer version counts, so a run can be resolved before it is sent,
//! in one statement. The rows are in order of their keys: two batches with the same keys lock them
//! in the same order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::ids::UnixMillis;
use crate::mutation::{ItemRef, Mutation, Operation, PredicateRef};
use crate::version::{Version, VersionBytes, version_bytes};

/// Value of `kind` for a remembered delete; others are the compression of an item.
pub(super) const TOMBSTONE: i16 = -1;

/// Place of a row.
type RowKey<'m> = (i64, &'m [u8], &'m [u8]);

/// Content of a row.
#[derive(Clone, Copy, Debug)]
struct NewRow<'m> {
    version: Version,
    expires_at: Option<i64>,
    kind: i16,
    value: &'m [u8],
}

/// A run of rows under construction.
#[derive(Debug, Default)]
pub(super) struct Rows<'m> {
    by_key: BTreeMap<RowKey<'m>, NewRow<'m>>,
}

/// Rows as columns, the form in which a statement takes them.
#[derive(Debug, Default)]
pub(super) struct Columns<'m> {
    pub(super) namespaces: Vec<i64>,
    pub(super) ids: Vec<&'m [u8]>,
    pub(super) keys: Vec<&'m [u8]>,
    versions: Vec<VersionBytes>,
    pub(super) expires_at: Vec<Option<i64>>,
    pub(super) kinds: Vec<i16>,
    pub(super) values: Vec<&'m [u8]>,
}

impl<'m> Rows<'m> {
    /// Adds a put or a delete of keys. Returns whether the mutation is one of these.
    pub(super) fn add(&mut self, mutation: &Mutation<'m>, window_ms: u64) -> bool {
        match mutation.operation {
            Operation::Put(items) => {
                // From the last to the first: of two with one key the later is then there already,
                // with the same version, and the earlier has no effect.
                for item in items.iter().rev() {
                    self.write(mutation, mutation.version, item.key, item);
                }
            }
            Operation::Delete(PredicateRef::Keys(keys)) => {
                for key in keys {
                    self.bury(mutation, mutation.version, key, window_ms);
                }
            }
            Operation::Delete(_) | Operation::CompareAndSwap { .. } => return false,
        }
        true
    }

    /// Adds an item with a version of its own.
    pub(super) fn write(
        &mut self,
        mutation: &Mutation<'m>,
        version: Version,
        key: &'m [u8],
        item: &ItemRef<'m>,
    ) {
        let row = NewRow {
            version,
            expires_at: item.expires_at.map(stored_moment),
            kind: i16::from(item.compression),
            value: item.value,
        };
        self.insert(mutation, key, row);
    }

    /// Adds a remembered delete with a version of its own.
    pub(super) fn bury(&mut self, mutation: &Mutation<'m>, version: Version, key: &'m [u8], window_ms: u64) {
        let row = NewRow {
            version,
            expires_at: Some(stored_moment(mutation.at.plus(window_ms))),
            kind: TOMBSTONE,
            value: b"",
        };
        self.insert(mutation, key, row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn columns(&self) -> Columns<'m> {
        let mut columns = Columns::default();
        for ((namespace, id, key), row) in &self.by_key {
            columns.namespaces.push(*namespace);
            columns.ids.push(id);
            columns.keys.push(key);
            columns.versions.push(version_bytes(row.version));
            columns.expires_at.push(row.expires_at);
            columns.kinds.push(row.kind);
            columns.values.push(row.value);
        }
        columns
    }

    fn insert(&mut self, mutation: &Mutation<'m>, key: &'m [u8], row: NewRow<'m>) {
        let place = (i64::from(mutation.namespace.0), mutation.id.as_bytes(), key);
        match self.by_key.entry(place) {
            Entry::Vacant(vacant) => {
                vacant.insert(row);
            }
            Entry::Occupied(mut known) if known.get().version < row.version => {
                known.insert(row);
            }
            Entry::Occupied(_) => {}
        }
    }
}

impl Columns<'_> {
    pub(super) fn versions(&self) -> Vec<&[u8]> {
        self.versions.iter().map(<[u8; 16]>::as_slice).collect()
    }
}

/// A moment as stored: the store's integers are signed.
pub(super) fn stored_moment(moment: UnixMillis) -> i64 {
    moment.0.min(i64::MAX as u64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NamespaceId;

    fn item<'a>(key: &'a [u8], value: &'a [u8]) -> ItemRef<'a> {
        ItemRef {
            key,
            value,
            expires_at: None,
            compression: 3,
        }
    }

    fn mutation<'a>(version: i64, operation: Operation<'a>) -> Mutation<'a> {
        Mutation {
            namespace: NamespaceId(1),
            id: "id",
            version: Version::new(version, b"t"),
            at: UnixMillis(1_000),
            digest: None,
            operation,
        }
    }

    #[test]
    fn the_newest_version_of_each_key_counts_and_of_a_tie_the_first() {
        let mut rows = Rows::default();
        let (first, tie, older) = (
            [item(b"b", b"1"), item(b"a", b"x")],
            [item(b"b", b"2")],
            [item(b"b", b"0")],
        );
        assert!(rows.add(&mutation(5, Operation::Put(&first)), 10));
        assert!(rows.add(&mutation(5, Operation::Put(&tie)), 10));
        assert!(rows.add(&mutation(4, Operation::Put(&older)), 10));
        assert!(rows.add(&mutation(7, Operation::Delete(PredicateRef::Keys(&[b"a"]))), 10));
        assert!(!rows.add(&mutation(8, Operation::Delete(PredicateRef::All)), 10));
        let columns = rows.columns();
        assert_eq!(columns.keys, [b"a", b"b"], "in order");
        assert_eq!(columns.values, [&b""[..], b"1"]);
        assert_eq!(columns.kinds, [TOMBSTONE, 3]);
        assert_eq!(columns.expires_at, [Some(1_010), None]);
    }

    #[test]
    fn of_two_items_of_one_put_with_one_key_the_later_counts() {
        let mut rows = Rows::default();
        let items = [item(b"k", b"first"), item(b"k", b"second")];
        assert!(rows.add(&mutation(5, Operation::Put(&items)), 10));
        assert_eq!(rows.columns().values, [b"second"]);
    }
}
