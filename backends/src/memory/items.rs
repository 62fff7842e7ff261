//! Items of one id, in key order: a short sorted array for few, a B-tree for many. Knows about
//! cells and keys, not about namespaces or budgets.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use smallvec::SmallVec;

use crate::ids::UnixMillis;
use crate::mutation::{ItemRef, range_contains};
use crate::version::Version;

/// A key; short ones need no allocation.
pub(super) type Key = SmallVec<[u8; 16]>;

/// Content of one key: an item, or the memory of its delete.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) version: Version,
    /// Moment at which an item disappears, or a delete may be forgotten. [`NEVER`] is never.
    pub(super) expires_at: u64,
    pub(super) compression: u8,
    pub(super) is_tombstone: bool,
    value: Vec<u8>,
}

/// The items of one id.
#[derive(Debug)]
pub(super) enum Items {
    Few(SmallVec<[(Key, Cell); 1]>),
    Many(BTreeMap<Key, Cell>),
}

impl Cell {
    pub(super) fn of_item(item: &ItemRef<'_>, version: Version) -> Cell {
        Cell {
            version,
            expires_at: expiry(item),
            compression: item.compression,
            is_tombstone: false,
            value: item.value.to_vec(),
        }
    }

    pub(super) fn tombstone(version: Version, forget_at: UnixMillis) -> Cell {
        Cell {
            version,
            expires_at: forget_at.0,
            compression: 0,
            is_tombstone: true,
            value: Vec::new(),
        }
    }

    /// Replaces the content. Reuses the room of the old value if the new one fits without wasting
    /// more than half.
    pub(super) fn overwrite(&mut self, item: &ItemRef<'_>, version: Version) {
        self.version = version;
        self.expires_at = expiry(item);
        self.compression = item.compression;
        self.is_tombstone = false;
        let room = self.value.capacity();
        if item.value.len() <= room && room <= item.value.len() * 2 + 64 {
            self.value.clear();
            self.value.extend_from_slice(item.value);
        } else {
            self.value = item.value.to_vec();
        }
    }

    /// Removes the item and keeps its version.
    pub(super) fn bury(&mut self, version: Version, forget_at: UnixMillis) {
        *self = Cell::tombstone(version, forget_at);
    }

    pub(super) fn is_visible(&self, now: UnixMillis) -> bool {
        !self.is_tombstone && self.expires_at > now.0
    }

    pub(super) fn item<'a>(&'a self, key: &'a [u8]) -> ItemRef<'a> {
        ItemRef {
            key,
            value: &self.value,
            expires_at: (self.expires_at != NEVER).then_some(UnixMillis(self.expires_at)),
            compression: self.compression,
        }
    }
}

impl Items {
    pub(super) fn new() -> Items {
        Items::Few(SmallVec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Items::Few(few) => few.is_empty(),
            Items::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&Cell> {
        match self {
            Items::Few(few) => position(few, key).ok().map(|index| &few[index].1),
            Items::Many(many) => many.get(key),
        }
    }

    pub(super) fn find_mut(&mut self, key: &[u8]) -> Option<&mut Cell> {
        match self {
            Items::Few(few) => position(few, key).ok().map(|index| &mut few[index].1),
            Items::Many(many) => many.get_mut(key),
        }
    }

    /// Adds a cell under a key that is absent.
    pub(super) fn insert(&mut self, key: &[u8], cell: Cell) {
        if let Items::Few(few) = self
            && few.len() >= FEW_MAX
        {
            *self = Items::Many(few.drain(..).collect());
        }
        match self {
            Items::Few(few) => {
                let index = position(few, key).unwrap_or_else(|index| index);
                few.insert(index, (Key::from_slice(key), cell));
            }
            Items::Many(many) => {
                many.insert(Key::from_slice(key), cell);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        match self {
            Items::Few(few) => {
                if let Ok(index) = position(few, key) {
                    few.remove(index);
                }
            }
            Items::Many(many) => {
                many.remove(key);
            }
        }
    }

    /// Walks from `from` on, in key order.
    pub(super) fn iter_from<'a>(&'a self, from: Bound<&[u8]>) -> Walk<'a> {
        match self {
            Items::Few(few) => {
                let start = match from {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => position(few, key).unwrap_or_else(|index| index),
                    Bound::Excluded(key) => position(few, key).map_or_else(|index| index, |index| index + 1),
                };
                Walk::Few(few[start..].iter())
            }
            Items::Many(many) => Walk::Many(many.range::<[u8], _>((from, Bound::Unbounded))),
        }
    }

    /// Calls `keep` on every cell of the range, and removes those for which it returns false.
    pub(super) fn retain_range(&mut self, start: &[u8], end: &[u8], mut keep: impl FnMut(&mut Cell) -> bool) {
        match self {
            Items::Few(few) => few.retain(|(key, cell)| !range_contains(start, end, key) || keep(cell)),
            Items::Many(many) if start.is_empty() && end.is_empty() => many.retain(|_, cell| keep(cell)),
            Items::Many(many) => {
                if !end.is_empty() && start >= end {
                    return;
                }
                let upper = if end.is_empty() {
                    Bound::Unbounded
                } else {
                    Bound::Excluded(end)
                };
                let mut gone: Vec<Key> = Vec::new();
                for (key, cell) in many.range_mut::<[u8], _>((Bound::Included(start), upper)) {
                    if !keep(cell) {
                        gone.push(key.clone());
                    }
                }
                for key in gone {
                    many.remove(&key);
                }
            }
        }
        if let Items::Many(many) = self
            && many.is_empty()
        {
            *self = Items::new();
        }
    }
}

/// A walk over the items of one id.
pub(super) enum Walk<'a> {
    Few(std::slice::Iter<'a, (Key, Cell)>),
    Many(btree_map::Range<'a, Key, Cell>),
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a [u8], &'a Cell);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Walk::Few(few) => few.next().map(|(key, cell)| (key.as_slice(), cell)),
            Walk::Many(many) => many.next().map(|(key, cell)| (key.as_slice(), cell)),
        }
    }
}

fn position(few: &[(Key, Cell)], key: &[u8]) -> Result<usize, usize> {
    few.binary_search_by(|(probe, _)| probe.as_slice().cmp(key))
}

fn expiry(item: &ItemRef<'_>) -> u64 {
    item.expires_at.map_or(NEVER, |moment| moment.0)
}

/// Expiry of items that do not expire.
pub(super) const NEVER: u64 = u64::MAX;

/// Most items that are kept in an array; more are kept in a B-tree. An insert into the array moves
/// at most this many cells of 88 bytes, which takes about as long as an insert into a B-tree.
const FEW_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(items: &mut Items, key: &[u8]) {
        let item = ItemRef {
            key,
            value: key,
            expires_at: None,
            compression: 0,
        };
        items.insert(key, Cell::of_item(&item, Version::MIN));
    }

    #[test]
    fn few_and_many_walk_alike() {
        let mut items = Items::new();
        for number in (0..100_u8).rev() {
            put(&mut items, &[number]);
            let lowest = items
                .iter_from(Bound::Unbounded)
                .map(|(key, _)| key[0])
                .collect::<Vec<_>>();
            assert_eq!(lowest, (number..100).collect::<Vec<_>>());
        }
        assert!(matches!(items, Items::Many(_)));
        let from = |bound| items.iter_from(bound).next().map(|(key, _)| key[0]);
        assert_eq!(from(Bound::Included(&[7_u8][..])), Some(7));
        assert_eq!(from(Bound::Excluded(&[7_u8][..])), Some(8));
        assert_eq!(from(Bound::Excluded(&[99_u8][..])), None);
    }

    #[test]
    fn retain_looks_only_at_the_range() {
        for count in [20_u8, 60] {
            let mut items = Items::new();
            (0..count).for_each(|number| put(&mut items, &[number]));
            items.retain_range(&[5], &[10], |_| false);
            assert!(items.find(&[4]).is_some() && items.find(&[5]).is_none());
            assert!(items.find(&[9]).is_none() && items.find(&[10]).is_some());
            items.retain_range(&[9], &[3], |_| panic!("an inverted range is empty"));
            items.retain_range(b"", b"", |_| false);
            assert!(items.is_empty());
        }
    }

    #[test]
    fn overwriting_reuses_the_room() {
        let item = ItemRef {
            key: b"",
            value: &[1; 256],
            expires_at: None,
            compression: 0,
        };
        let mut cell = Cell::of_item(&item, Version::MIN);
        let address = cell.value.as_ptr();
        cell.overwrite(
            &ItemRef {
                value: &[2; 200],
                ..item
            },
            Version::MIN,
        );
        assert_eq!(address, cell.value.as_ptr());
        cell.overwrite(
            &ItemRef {
                value: &[3; 10],
                ..item
            },
            Version::MIN,
        );
        assert!(
            cell.value.capacity() < 84,
            "a value that shrank gives its room back"
        );
    }
}
