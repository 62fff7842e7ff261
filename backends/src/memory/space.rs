//! Data of one namespace: ids in slots that never move, and an index from id to slot.
//!
//! Slots lie in pages of [`PAGE_SLOTS`], so growth moves nothing, and a scan can walk them by
//! number while ids come and go: an id keeps its slot as long as anything is kept for it. Each page
//! knows the earliest moment at which something in it may expire, so a sweep skips pages without
//! work.

use std::ops::Bound;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::items::{Items, NEVER};
use crate::ids::UnixMillis;
use crate::mutation::range_contains;
use crate::version::{Version, stable_hash_with};

/// Number of a slot within a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotNumber(pub(super) u32);

/// A delete of a whole range that is remembered.
#[derive(Debug)]
pub(super) struct RangeDelete {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) version: Version,
    pub(super) forget_at: UnixMillis,
}

/// Everything kept for one id. A slot without an id is free.
#[derive(Debug)]
pub(super) struct Slot {
    id: SmallVec<[u8; 24]>,
    pub(super) items: Items,
    /// Nearly always empty, and then no allocation.
    pub(super) range_deletes: Vec<RangeDelete>,
}

/// One namespace's ids.
#[derive(Debug)]
pub(super) struct Space {
    seed: u64,
    index: HashTable<IndexEntry>,
    pages: Vec<Page>,
    /// Number of slots assigned so far, free ones included.
    slots: u32,
    free: Vec<SlotNumber>,
}

#[derive(Debug)]
struct Page {
    slots: Vec<Slot>,
    /// Moment before which nothing in this page expires.
    next_expiry: u64,
}

#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    hash: u32,
    slot: SlotNumber,
}

impl Slot {
    pub(super) fn id(&self) -> &str {
        std::str::from_utf8(&self.id).expect("slots are only made from str")
    }

    pub(super) fn is_used(&self) -> bool {
        !self.id.is_empty()
    }

    /// Whether nothing is kept any more, so that the slot should be released.
    pub(super) fn is_vacant(&self) -> bool {
        self.items.is_empty() && self.range_deletes.is_empty()
    }

    /// The newest remembered range delete that covers `key`.
    pub(super) fn range_delete_over(&self, key: &[u8]) -> Option<Version> {
        if self.range_deletes.is_empty() {
            return None;
        }
        self.range_deletes
            .iter()
            .filter(|delete| range_contains(&delete.start, &delete.end, key))
            .map(|delete| delete.version)
            .max()
    }

    fn remembered_deletes(&self) -> usize {
        let keys = self
            .items
            .iter_from(Bound::Unbounded)
            .filter(|(_, cell)| cell.is_tombstone)
            .count();
        keys + self.range_deletes.len()
    }

    fn earliest_expiry(&self) -> u64 {
        let items = self
            .items
            .iter_from(Bound::Unbounded)
            .map(|(_, cell)| cell.expires_at)
            .min();
        let deletes = self.range_deletes.iter().map(|delete| delete.forget_at.0).min();
        items.unwrap_or(NEVER).min(deletes.unwrap_or(NEVER))
    }
}

impl Space {
    pub(super) fn new(seed: u64) -> Space {
        Space {
            seed,
            index: HashTable::new(),
            pages: Vec::new(),
            slots: 0,
            free: Vec::new(),
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<SlotNumber> {
        let hash = self.hash(id);
        let found = self
            .index
            .find(spread(hash), |entry| self.is_entry_of(entry, hash, id))?;
        Some(found.slot)
    }

    /// The id's slot; a new one if it has none. The slot must not be left vacant.
    pub(super) fn find_or_add(&mut self, id: &str) -> SlotNumber {
        let hash = self.hash(id);
        if let Some(found) = self
            .index
            .find(spread(hash), |entry| self.is_entry_of(entry, hash, id))
        {
            return found.slot;
        }
        let slot = self.claim(id);
        self.index
            .insert_unique(spread(hash), IndexEntry { hash, slot }, |entry| {
                spread(entry.hash)
            });
        slot
    }

    /// Frees the slot of an id for which nothing is kept any more.
    pub(super) fn release(&mut self, number: SlotNumber) {
        debug_assert!(self.slot(number).is_vacant());
        let id = std::mem::take(&mut self.slot_mut(number).id);
        let hash = hash_of(self.seed, &id);
        if let Ok(entry) = self.index.find_entry(spread(hash), |entry| entry.slot == number) {
            entry.remove();
        }
        let slot = self.slot_mut(number);
        slot.items = Items::new();
        slot.range_deletes = Vec::new();
        self.free.push(number);
    }

    pub(super) fn slot(&self, number: SlotNumber) -> &Slot {
        &self.pages[number.0 as usize / PAGE_SLOTS].slots[number.0 as usize % PAGE_SLOTS]
    }

    pub(super) fn slot_mut(&mut self, number: SlotNumber) -> &mut Slot {
        &mut self.pages[number.0 as usize / PAGE_SLOTS].slots[number.0 as usize % PAGE_SLOTS]
    }

    /// Number of slots assigned so far, and the end of a walk.
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Notes that something in the slot expires at this moment.
    pub(super) fn note_expiry(&mut self, number: SlotNumber, moment: u64) {
        let page = &mut self.pages[number.0 as usize / PAGE_SLOTS];
        page.next_expiry = page.next_expiry.min(moment);
    }

    /// The first slot at or after `from` whose page may hold something that has expired at `now`,
    /// and the number of pages examined to find it.
    pub(super) fn next_due(&self, from: SlotNumber, now: UnixMillis) -> (Option<SlotNumber>, usize) {
        let first = from.0 as usize / PAGE_SLOTS;
        for (offset, page) in self.pages.iter().skip(first).enumerate() {
            if page.next_expiry <= now.0 {
                let start = ((first + offset) * PAGE_SLOTS) as u32;
                return (Some(SlotNumber(start.max(from.0))), offset);
            }
        }
        (None, self.pages.len().saturating_sub(first))
    }

    /// Computes the earliest expiry of the slot's page anew, after a sweep of the whole page.
    pub(super) fn settle_page(&mut self, number: SlotNumber) {
        let page = &mut self.pages[number.0 as usize / PAGE_SLOTS];
        page.next_expiry = page
            .slots
            .iter()
            .map(Slot::earliest_expiry)
            .min()
            .unwrap_or(NEVER);
    }

    /// Frees one page of a dropped namespace. Returns the number of its slots, 0 when nothing is
    /// left, and of its remembered deletes.
    pub(super) fn crumble(&mut self) -> (usize, usize) {
        self.index = HashTable::new();
        self.free = Vec::new();
        let Some(page) = self.pages.pop() else {
            return (0, 0);
        };
        let deletes = page.slots.iter().map(Slot::remembered_deletes).sum();
        (page.slots.len(), deletes)
    }

    fn claim(&mut self, id: &str) -> SlotNumber {
        let id = SmallVec::from_slice(id.as_bytes());
        if let Some(number) = self.free.pop() {
            self.slot_mut(number).id = id;
            return number;
        }
        let number = SlotNumber(self.slots);
        self.slots += 1;
        if number.0 as usize / PAGE_SLOTS == self.pages.len() {
            self.pages.push(Page {
                slots: Vec::new(),
                next_expiry: NEVER,
            });
        }
        let slot = Slot {
            id,
            items: Items::new(),
            range_deletes: Vec::new(),
        };
        self.pages[number.0 as usize / PAGE_SLOTS].slots.push(slot);
        number
    }

    fn hash(&self, id: &str) -> u32 {
        hash_of(self.seed, id.as_bytes())
    }

    fn is_entry_of(&self, entry: &IndexEntry, hash: u32, id: &str) -> bool {
        // The hash is compared first: it is in the index, the id a cache miss away.
        entry.hash == hash && self.slot(entry.slot).id.as_slice() == id.as_bytes()
    }
}

/// Hash of an id, seeded so that a client cannot choose ids that collide.
fn hash_of(seed: u64, id: &[u8]) -> u32 {
    (stable_hash_with(seed, id) >> 32) as u32
}

/// Spreads a hash to 64 bits: the table takes its tag from the top bits and its place from the low
/// ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Number of slots in a page: small enough that a sweep's step is short, large enough that the list
/// of pages is too.
pub(super) const PAGE_SLOTS: usize = 256;
