//! Effect of the mutations of one id that are still on their way on what is stored: the rules of
//! the writer, applied in memory to the keys that a query is about. Stored rows are not needed for
//! it; the reader puts both together, row by row, where the greater version wins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use rusqlite::{Connection, params};
use smallvec::SmallVec;

use super::removals::Removal;
use crate::error::StoreError;
use crate::ids::UnixMillis;
use crate::limits::RANGE_DELETES_PER_ID_MAX;
use crate::mutation::{ItemRef, Mutation, Operation, PredicateRef, range_contains};
use crate::query::GetQuery;
use crate::sqlite::file::schema::{blob, version_of};
use crate::version::Version;

/// The keys that a page may hold.
pub(super) enum Wanted<'q> {
    /// These, in order, each once.
    Keys(SmallVec<[&'q [u8]; 2]>),
    /// All from the first key up to, not including, the second; an empty second is no bound.
    Range { from: Cow<'q, [u8]>, end: &'q [u8] },
}

impl<'q> Wanted<'q> {
    /// Makes what is left of the predicate after the key `after`.
    pub(super) fn new(predicate: &PredicateRef<'q>, after: Option<&'q [u8]>) -> Wanted<'q> {
        let (start, end): (&[u8], &[u8]) = match *predicate {
            PredicateRef::Keys(keys) => {
                let mut keys: SmallVec<[&[u8]; 2]> = SmallVec::from_slice(keys);
                keys.retain(|key| after.is_none_or(|after| *key > after));
                keys.sort_unstable();
                keys.dedup();
                return Wanted::Keys(keys);
            }
            PredicateRef::All => (b"", b""),
            PredicateRef::Range { start, end } => (start, end),
        };
        let from = match after {
            // The smallest key after `after`.
            Some(after) if after >= start => Cow::Owned([after, &[0]].concat()),
            _ => Cow::Borrowed(start),
        };
        Wanted::Range { from, end }
    }

    fn contains(&self, key: &[u8]) -> bool {
        match self {
            Wanted::Keys(keys) => keys.binary_search(&key).is_ok(),
            Wanted::Range { from, end } => range_contains(from, end, key),
        }
    }

    /// Whether a key from `start` up to `end` may be wanted.
    fn overlaps(&self, start: &[u8], end: &[u8]) -> bool {
        match self {
            Wanted::Keys(keys) => {
                let first = keys.partition_point(|key| *key < start);
                keys.get(first).is_some_and(|key| range_contains(start, end, key))
            }
            Wanted::Range { from, end: behind } => {
                (end.is_empty() || **from < *end) && (behind.is_empty() || start < *behind)
            }
        }
    }
}

/// The pending mutations of the query's id that the writer would not refuse.
pub(super) fn own_mutations<'p, 'm>(
    query: &GetQuery<'_>,
    pending: &'p [Mutation<'m>],
) -> SmallVec<[&'p Mutation<'m>; 8]> {
    pending
        .iter()
        .filter(|mutation| mutation.namespace == query.namespace && mutation.id == query.id)
        .filter(|mutation| mutation.check().is_ok())
        .collect()
}

/// Whether any of the mutations bears on the wanted keys; if so, whether any of them can meet a
/// stored range delete.
pub(super) fn touches(own: &[&Mutation<'_>], wanted: &Wanted<'_>) -> Option<bool> {
    let mut deletes_range = false;
    for mutation in own {
        match &mutation.operation {
            Operation::Put(items) if items.iter().any(|item| wanted.contains(item.key)) => return Some(true),
            Operation::Delete(PredicateRef::Keys(keys)) if keys.iter().any(|key| wanted.contains(key)) => {
                return Some(true);
            }
            Operation::Delete(predicate) => {
                deletes_range |= range_of(predicate).is_some_and(|(start, end)| wanted.overlaps(start, end));
            }
            _ => {}
        }
    }
    deletes_range.then_some(false)
}

/// A remembered delete of a range.
pub(super) struct RangeDelete<'m> {
    start: Cow<'m, [u8]>,
    end: Cow<'m, [u8]>,
    version: Version,
}

impl RangeDelete<'_> {
    /// One whose rows are not removed yet, which counts whether it is remembered or not.
    pub(super) fn of(removal: &Removal) -> RangeDelete<'static> {
        RangeDelete {
            start: Cow::Owned(removal.start.clone()),
            end: Cow::Owned(removal.end.clone()),
            version: removal.version,
        }
    }
}

/// The range deletes that the store remembers for the query's id, the oldest first.
pub(super) fn stored_range_deletes(
    connection: &Connection,
    query: &GetQuery<'_>,
) -> Result<Vec<RangeDelete<'static>>, StoreError> {
    let mut statement = connection.prepare_cached(RANGE_DELETES)?;
    let mut rows = statement.query(params![query.namespace.0, query.id.as_bytes()])?;
    let mut range_deletes = Vec::new();
    while let Some(row) = rows.next()? {
        range_deletes.push(RangeDelete {
            start: Cow::Owned(blob(row, 0)?.to_vec()),
            end: Cow::Owned(blob(row, 1)?.to_vec()),
            version: version_of(blob(row, 2)?)?,
        });
    }
    Ok(range_deletes)
}

/// Rows that the pending mutations leave for the wanted keys.
pub(super) struct Overlay<'m> {
    rows: BTreeMap<&'m [u8], Row<'m>>,
    killed: Killed<'m>,
}

/// A pending row; `None` is a deleted one.
struct Row<'m> {
    version: Version,
    item: Option<ItemRef<'m>>,
}

/// Row of a key that counts.
pub(super) enum Winner<'o> {
    /// That of the store.
    Stored,
    /// This item, with its version.
    Pending(&'o ItemRef<'o>, Version),
    /// Neither: it is deleted.
    Nobody,
}

impl<'m> Overlay<'m> {
    /// Applies the mutations in their order to nothing but what the store remembers of deleted
    /// ranges.
    pub(super) fn new(
        own: &[&Mutation<'m>],
        wanted: &Wanted<'_>,
        range_deletes: Vec<RangeDelete<'m>>,
    ) -> Overlay<'m> {
        let mut making = Making {
            rows: BTreeMap::new(),
            killed: Killed::default(),
            range_deletes,
        };
        for mutation in own {
            let version = mutation.version;
            match mutation.operation {
                // From the last to the first, as the writer does: of two with one key the later
                // counts.
                Operation::Put(items) => {
                    for item in items.iter().rev().filter(|item| wanted.contains(item.key)) {
                        // The file holds no later moment.
                        let expires_at = item
                            .expires_at
                            .map(|moment| moment.min(UnixMillis(i64::MAX as u64)));
                        making.write(item.key, version, Some(ItemRef { expires_at, ..*item }));
                    }
                }
                Operation::Delete(PredicateRef::Keys(keys)) => {
                    for key in keys.iter().filter(|key| wanted.contains(key)) {
                        making.write(key, version, None);
                    }
                }
                Operation::Delete(predicate) => {
                    if let Some((start, end)) = range_of(&predicate) {
                        making.delete_range(start, end, version);
                    }
                }
                Operation::CompareAndSwap { .. } => {
                    debug_assert!(false, "what a pending compare-and-swap does cannot be foretold");
                }
            }
        }
        let Making { rows, killed, .. } = making;
        Overlay { rows, killed }
    }

    /// The keys with a pending row, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.keys().copied()
    }

    /// Decides for one key, whose stored row, if any, has the version `stored`.
    pub(super) fn winner(&self, key: &[u8], stored: Option<Version>) -> Winner<'_> {
        let stored = stored.filter(|stored| self.killed.at(key).is_none_or(|killer| killer <= *stored));
        match (self.rows.get(key), stored) {
            (Some(row), stored) if stored.is_none_or(|stored| stored < row.version) => match &row.item {
                Some(item) => Winner::Pending(item, row.version),
                None => Winner::Nobody,
            },
            (_, Some(_)) => Winner::Stored,
            (_, None) => Winner::Nobody,
        }
    }
}

/// An overlay in the making.
struct Making<'m> {
    rows: BTreeMap<&'m [u8], Row<'m>>,
    killed: Killed<'m>,
    /// Those that the store would remember by now, the oldest first.
    range_deletes: Vec<RangeDelete<'m>>,
}

impl<'m> Making<'m> {
    /// Writes a row unless a remembered range delete, or the pending row that is there, is as new.
    /// A stored row that is as new is met when a winner is sought.
    fn write(&mut self, key: &'m [u8], version: Version, item: Option<ItemRef<'m>>) {
        let is_covered = self
            .range_deletes
            .iter()
            .any(|delete| delete.version >= version && range_contains(&delete.start, &delete.end, key));
        if !is_covered && self.rows.get(key).is_none_or(|row| row.version < version) {
            self.rows.insert(key, Row { version, item });
        }
    }

    fn delete_range(&mut self, start: &'m [u8], end: &'m [u8], version: Version) {
        let older: Vec<&[u8]> = self
            .rows
            .range::<[u8], _>(bounds_of(start, end))
            .filter(|(_, row)| row.version < version)
            .map(|(key, _)| *key)
            .collect();
        for key in older {
            self.rows.remove(key);
        }
        self.killed.add(start, end, version);
        // As the writer keeps them: what a newer one covers is superfluous, and the oldest gives
        // way.
        let covers = |outer: (&[u8], &[u8]), inner: (&[u8], &[u8])| {
            outer.0 <= inner.0 && (outer.1.is_empty() || (!inner.1.is_empty() && outer.1 >= inner.1))
        };
        let is_known = self
            .range_deletes
            .iter()
            .any(|delete| delete.version >= version && covers((&delete.start, &delete.end), (start, end)));
        if is_known {
            return;
        }
        self.range_deletes
            .retain(|delete| delete.version > version || !covers((start, end), (&delete.start, &delete.end)));
        if self.range_deletes.len() >= RANGE_DELETES_PER_ID_MAX {
            self.range_deletes.remove(0);
        }
        self.range_deletes.push(RangeDelete {
            start: Cow::Borrowed(start),
            end: Cow::Borrowed(end),
            version,
        });
    }
}

/// Which stored rows pending range deletes remove: from each key on, up to the next, those older
/// than the version.
#[derive(Default)]
struct Killed<'m> {
    steps: BTreeMap<&'m [u8], Option<Version>>,
}

impl<'m> Killed<'m> {
    fn add(&mut self, start: &'m [u8], end: &'m [u8], version: Version) {
        let at_start = self.at(start);
        self.steps.entry(start).or_insert(at_start);
        if !end.is_empty() {
            let at_end = self.at(end);
            self.steps.entry(end).or_insert(at_end);
        }
        for (_, step) in self.steps.range_mut::<[u8], _>(bounds_of(start, end)) {
            *step = (*step).max(Some(version));
        }
    }

    fn at(&self, key: &[u8]) -> Option<Version> {
        let upto: (Bound<&[u8]>, _) = (Bound::Unbounded, Bound::Included(key));
        let (_, version) = self.steps.range::<[u8], _>(upto).next_back()?;
        *version
    }
}

/// The keys that a delete by range is about; `None` for a range without any, and for a delete of
/// keys.
fn range_of<'m>(predicate: &PredicateRef<'m>) -> Option<(&'m [u8], &'m [u8])> {
    match *predicate {
        PredicateRef::All => Some((b"", b"")),
        PredicateRef::Range { start, end } if end.is_empty() || start < end => Some((start, end)),
        PredicateRef::Range { .. } | PredicateRef::Keys(_) => None,
    }
}

fn bounds_of<'k>(start: &'k [u8], end: &'k [u8]) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    let upper = if end.is_empty() {
        Bound::Unbounded
    } else {
        Bound::Excluded(end)
    };
    (Bound::Included(start), upper)
}

const RANGE_DELETES: &str = "SELECT start, \"end\", version FROM range_delete
    WHERE namespace = ?1 AND id = ?2 ORDER BY number";
