//! The memory store: the reference for all others and the fastest of them. One instance belongs to
//! one shard; its plain methods do not block and need no future. Overwriting an item with a value
//! of similar size allocates nothing.

mod items;
mod messages;
mod queues;
mod space;
mod swaps;

pub use self::messages::{MessageHeads, Messages, PUBSUB, RING_BYTES_MAX};
pub use self::queues::{QUEUE, QUEUE_BYTES_MAX, Queues};

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;

use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use self::items::{Cell, NEVER};
use self::space::{PAGE_SLOTS, RangeDelete, SlotNumber, Space};
use self::swaps::SwapMemory;
use crate::api::keyvalue::{Reads, Remembers, Sweep, Upkeep, Writes};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::{RANGE_DELETES_PER_ID_MAX, VALUE_BYTES_MAX};
use crate::mutation::{Expected, Found, ItemRef, Mutation, Operation, Outcome, PredicateRef, range_contains};
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};
use crate::query::{GetQuery, ItemSink, PageBudget, PageToken, ScanQuery};
use crate::swaps::{Kinship, SwapCall, SwapKey, Verdict, is_left_by, shown};
use crate::token;
use crate::version::Version;

/// Options of a memory store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Time for which a delete is remembered, in milliseconds. At least twice the drift allowed to
    /// the clocks of clients, or an older write could win against a delete.
    pub tombstone_window_ms: u64,
    /// Most deletes that are remembered; each takes about 100 bytes, its key and, alone under its
    /// id, the id.
    pub tombstones_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tombstone_window_ms: 10 * 60 * 1000,
            tombstones_max: 1_000_000,
        }
    }
}

/// A key-value store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    spaces: HashMap<NamespaceId, Space, FxBuildHasher>,
    /// In order of creation, for the sweep.
    order: Vec<NamespaceId>,
    burnt: HashSet<NamespaceId, FxBuildHasher>,
    /// Dropped namespaces that are not freed yet.
    ruins: Vec<Space>,
    /// Deletes remembered in all namespaces that are not dropped.
    tombstones: Tombstones,
    swaps: SwapMemory,
    /// Random number that seeds the hashes and marks this store's scan tokens.
    instance: u64,
    sweep_at: (usize, SlotNumber),
}

/// Count of remembered deletes, and the moments at which they may be forgotten.
#[derive(Clone, Copy, Debug)]
struct Tombstones {
    count: usize,
    max: usize,
    window_ms: u64,
}

impl MemoryStore {
    /// Makes an empty store with default options.
    pub fn new() -> MemoryStore {
        MemoryStore::with_options(Options::default())
    }

    /// Makes an empty store.
    pub fn with_options(options: Options) -> MemoryStore {
        MemoryStore {
            spaces: HashMap::default(),
            order: Vec::new(),
            burnt: HashSet::default(),
            ruins: Vec::new(),
            tombstones: Tombstones {
                count: 0,
                max: options.tombstones_max,
                window_ms: options.tombstone_window_ms,
            },
            swaps: SwapMemory::default(),
            instance: RandomState::new().hash_one(0_u64),
            sweep_at: (0, SlotNumber(0)),
        }
    }

    /// Makes a namespace usable; see [`Upkeep::create_namespace`].
    pub fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        if self.burnt.contains(&namespace) {
            return Err(StoreError::DroppedNamespace(namespace));
        }
        if !self.spaces.contains_key(&namespace) {
            self.spaces
                .insert(namespace, Space::new(self.instance ^ u64::from(namespace.0)));
            self.order.push(namespace);
        }
        Ok(())
    }

    /// Drops a namespace; see [`Upkeep::drop_namespace`].
    pub fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.burnt.insert(namespace);
        if let Some(space) = self.spaces.remove(&namespace) {
            // Its deletes stay counted until the sweep has freed them.
            self.ruins.push(space);
            self.order.retain(|other| *other != namespace);
            self.sweep_at = (0, SlotNumber(0));
        }
        Ok(())
    }

    /// Applies one mutation: the hot path.
    pub fn apply_one(&mut self, mutation: &Mutation<'_>) -> Outcome {
        if let Err(error) = mutation.check() {
            return Outcome::Refused(error);
        }
        let Some(space) = self.spaces.get_mut(&mutation.namespace) else {
            return Outcome::Refused(self.missing(mutation.namespace));
        };
        let now = mutation.at;
        match &mutation.operation {
            Operation::Put(items) => {
                put(space, &mut self.tombstones, mutation, items);
                Outcome::Applied
            }
            Operation::Delete(PredicateRef::Keys(keys)) => {
                delete_keys(space, &mut self.tombstones, mutation, keys, now);
                Outcome::Applied
            }
            Operation::Delete(PredicateRef::All) => {
                delete_range(space, &mut self.tombstones, mutation, (b"", b""), now);
                Outcome::Applied
            }
            Operation::Delete(PredicateRef::Range { start, end }) => {
                delete_range(space, &mut self.tombstones, mutation, (start, end), now);
                Outcome::Applied
            }
            Operation::CompareAndSwap {
                key,
                expected,
                replacement,
            } => self.swap(mutation, key, *expected, replacement.as_ref()),
        }
    }

    /// Reads one page of one id's items; see [`Reads::get`].
    pub fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        query.check()?;
        let space = self.space(query.namespace)?;
        // The fingerprint is made only when needed: most gets neither have nor return a token.
        let mut after = None;
        if !query.selection.page_token.is_empty() {
            after = token::open(token::fingerprint_of_get(query), query.selection.page_token)?;
        }
        let Some(number) = space.find(query.id) else {
            return Ok(None);
        };
        let items = &space.slot(number).items;
        let mut page = Page {
            budget: PageBudget::new(&query.selection),
            last_key: None,
            now,
            sink,
        };
        let is_whole = match &query.predicate {
            PredicateRef::Keys([key]) if after.is_none() => page.offer(key, items.find(key)),
            PredicateRef::Keys(keys) => sorted(keys)
                .into_iter()
                .filter(|key| after.is_none_or(|after| *key > after))
                .all(|key| page.offer(key, items.find(key))),
            PredicateRef::All => items
                .iter_from(after.map_or(Bound::Unbounded, Bound::Excluded))
                .all(|(key, cell)| page.offer(key, Some(cell))),
            PredicateRef::Range { start, end } => {
                let from = match after {
                    Some(after) if after >= *start => Bound::Excluded(after),
                    _ => Bound::Included(*start),
                };
                items
                    .iter_from(from)
                    .take_while(|(key, _)| end.is_empty() || key < end)
                    .all(|(key, cell)| page.offer(key, Some(cell)))
            }
        };
        if is_whole {
            return Ok(None);
        }
        let last_key = page.last_key.unwrap_or_default();
        Ok(Some(token::seal(token::fingerprint_of_get(query), &[last_key])))
    }

    /// Reads one page of a namespace; see [`Reads::scan`].
    pub fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let space = self.space(query.namespace)?;
        let fingerprint = token::fingerprint_of_scan(query, self.instance);
        let (mut number, mut after) = match token::open(fingerprint, query.selection.page_token)? {
            None => (0, None),
            Some(position) => {
                let (slot, key) = position
                    .split_first_chunk::<4>()
                    .ok_or(StoreError::InvalidPageToken)?;
                (u32::from_le_bytes(*slot), Some(key))
            }
        };
        let mut budget = PageBudget::new(&query.selection);
        let mut last: Option<(u32, &[u8])> = None;
        while number < space.slots() {
            let slot = space.slot(SlotNumber(number));
            let from = after.take().map_or(Bound::Unbounded, Bound::Excluded);
            for (key, cell) in slot
                .items
                .iter_from(from)
                .filter(|(_, cell)| cell.is_visible(now))
            {
                let item = cell.item(key);
                let is_new_id = last.is_none_or(|(last_number, _)| last_number != number);
                if !budget.take(key.len(), item.value.len(), is_new_id.then_some(slot.id().len())) {
                    let (last_number, last_key) = last.unwrap_or_default();
                    return Ok(Some(token::seal(
                        fingerprint,
                        &[&last_number.to_le_bytes(), last_key],
                    )));
                }
                if is_new_id {
                    sink.id(slot.id());
                }
                sink.item(&item, cell.version);
                last = Some((number, key));
            }
            number += 1;
        }
        Ok(None)
    }

    /// Sweeps as [`Upkeep::sweep`] does. Cannot fail.
    pub fn sweep(&mut self, now: UnixMillis, budget: usize) -> Sweep {
        let mut sweep = Sweep::default();
        while sweep.examined < budget {
            if let Some(ruin) = self.ruins.last_mut() {
                let (freed, deletes) = ruin.crumble();
                self.tombstones.count = self.tombstones.count.saturating_sub(deletes);
                sweep.examined += freed.max(1);
                sweep.removed += freed;
                if freed == 0 {
                    self.ruins.pop();
                }
                continue;
            }
            let (position, from) = self.sweep_at;
            let Some(space) = self
                .order
                .get(position)
                .and_then(|name| self.spaces.get_mut(name))
            else {
                self.sweep_at = (0, SlotNumber(0));
                return sweep;
            };
            let (due, passed) = space.next_due(from, now);
            sweep.examined += passed;
            match due {
                None => self.sweep_at = (position + 1, SlotNumber(0)),
                Some(first) => {
                    let next = sweep_page(space, &mut self.tombstones, first, now, &mut sweep);
                    self.sweep_at = (position, next);
                }
            }
        }
        sweep.more = true;
        sweep
    }

    fn space(&self, namespace: NamespaceId) -> Result<&Space, StoreError> {
        self.spaces.get(&namespace).ok_or_else(|| self.missing(namespace))
    }

    #[cold]
    fn missing(&self, namespace: NamespaceId) -> StoreError {
        if self.burnt.contains(&namespace) {
            StoreError::DroppedNamespace(namespace)
        } else {
            StoreError::UnknownNamespace(namespace)
        }
    }

    fn swap(
        &mut self,
        mutation: &Mutation<'_>,
        key: &[u8],
        expected: Expected<'_>,
        replacement: Option<&ItemRef<'_>>,
    ) -> Outcome {
        let now = mutation.at;
        let Some(space) = self.spaces.get_mut(&mutation.namespace) else {
            return Outcome::Refused(self.missing(mutation.namespace));
        };
        let slot = space.find(mutation.id).map(|number| space.slot(number));
        let cell = slot.and_then(|slot| slot.items.find(key));
        let current = cell
            .filter(|cell| cell.is_visible(now))
            .map(|cell| (cell.item(key), cell.version));
        let found = || current.map(|(item, version)| Found::new(item, version));
        let name = SwapKey {
            namespace: mutation.namespace,
            version: mutation.version,
        };
        let call = SwapCall::new(mutation, key);
        if let Some((remembered, verdict)) = self.swaps.recall(&name) {
            match (call.kinship(*remembered), verdict) {
                (Kinship::Stranger, _) => {}
                (Kinship::Reuse, _) => return Outcome::Refused(StoreError::TokenReused),
                (Kinship::Repeat, Verdict::Swapped) => return Outcome::Swapped(None),
                (Kinship::Repeat, Verdict::NotSwapped(remembered)) => {
                    let remembered = remembered.clone();
                    return Outcome::NotSwapped(remembered.map(|item| shown(item, found().as_ref())));
                }
                (Kinship::Repeat, Verdict::NotSwappedLarge) => {
                    return Outcome::NotSwapped(found());
                }
            }
        }
        let covered = slot.and_then(|slot| slot.range_delete_over(key));
        let floor = cell.map(|cell| cell.version).max(covered);
        if floor == Some(mutation.version) {
            // Forgotten, but its mark is still there: this very swap was the item's last write,
            // unless the item contradicts that.
            return match is_left_by(current.as_ref().map(|(item, _)| item), replacement) {
                true => Outcome::Swapped(None),
                false => Outcome::Refused(StoreError::TokenReused),
            };
        }
        if !expected.holds(current.as_ref().map(|(item, version)| (item, *version))) {
            let refusal = Verdict::refusal(current.map(|(item, _)| item));
            let outcome = Outcome::NotSwapped(found());
            self.swaps.remember(name, call, refusal);
            return outcome;
        }
        let version = floor.map_or(mutation.version, |floor| floor.successor().max(mutation.version));
        match replacement {
            Some(item) => {
                let item = ItemRef { key, ..*item };
                let number = space.find_or_add(mutation.id);
                write(space, &mut self.tombstones, number, &item, version);
            }
            None => bury(space, &mut self.tombstones, mutation.id, key, version, now),
        }
        self.swaps.remember(name, call, Verdict::Swapped);
        Outcome::Swapped(Some(version))
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl Tombstones {
    /// Counts one more delete; `None` at the maximum.
    fn claim(&mut self, now: UnixMillis) -> Option<UnixMillis> {
        if self.count >= self.max {
            return None;
        }
        self.count += 1;
        Some(now.plus(self.window_ms))
    }

    fn give_back(&mut self) {
        debug_assert!(self.count > 0);
        self.count = self.count.saturating_sub(1);
    }
}

/// A page of a `get` under construction.
struct Page<'k, 's, S> {
    budget: PageBudget,
    last_key: Option<&'k [u8]>,
    now: UnixMillis,
    sink: &'s mut S,
}

impl<'k, S: ItemSink> Page<'k, '_, S> {
    /// Adds a visible item; false when it belongs to the next page.
    fn offer(&mut self, key: &'k [u8], cell: Option<&Cell>) -> bool {
        let Some(cell) = cell.filter(|cell| cell.is_visible(self.now)) else {
            return true;
        };
        let item = cell.item(key);
        if !self.budget.take(key.len(), item.value.len(), None) {
            return false;
        }
        self.sink.item(&item, cell.version);
        self.last_key = Some(key);
        true
    }
}

fn put(space: &mut Space, tombstones: &mut Tombstones, mutation: &Mutation<'_>, items: &[ItemRef<'_>]) {
    let number = space.find_or_add(mutation.id);
    // From the last to the first: of two with one key the later is then there already, with the
    // same version, and the earlier has no effect, now and when the put is applied again.
    for item in items.iter().rev() {
        let slot = space.slot(number);
        if slot
            .range_delete_over(item.key)
            .is_none_or(|version| version < mutation.version)
        {
            write(space, tombstones, number, item, mutation.version);
        }
    }
    // Nothing was written only if a range delete covers all items, so the slot is not vacant.
    debug_assert!(!space.slot(number).is_vacant());
}

/// Writes one item unless the slot has a newer one.
fn write(
    space: &mut Space,
    tombstones: &mut Tombstones,
    number: SlotNumber,
    item: &ItemRef<'_>,
    version: Version,
) {
    let slot = space.slot_mut(number);
    match slot.items.find_mut(item.key) {
        Some(cell) if cell.version >= version => return,
        Some(cell) => {
            if cell.is_tombstone {
                tombstones.give_back();
            }
            cell.overwrite(item, version);
        }
        None => slot.items.insert(item.key, Cell::of_item(item, version)),
    }
    if let Some(moment) = item.expires_at {
        space.note_expiry(number, moment.0);
    }
}

fn delete_keys(
    space: &mut Space,
    tombstones: &mut Tombstones,
    mutation: &Mutation<'_>,
    keys: &[&[u8]],
    now: UnixMillis,
) {
    for key in keys {
        bury(space, tombstones, mutation.id, key, mutation.version, now);
    }
}

/// Deletes one key unless it is newer, and remembers the delete if there is room.
fn bury(
    space: &mut Space,
    tombstones: &mut Tombstones,
    id: &str,
    key: &[u8],
    version: Version,
    now: UnixMillis,
) {
    let number = space.find_or_add(id);
    let slot = space.slot_mut(number);
    let covered = slot
        .range_delete_over(key)
        .is_some_and(|covering| covering >= version);
    let mut forget_at = NEVER;
    match slot.items.find_mut(key) {
        Some(cell) if cell.version >= version => {}
        Some(cell) if cell.is_tombstone => cell.bury(version, now.plus(tombstones.window_ms)),
        Some(cell) => match tombstones.claim(now) {
            Some(moment) => {
                cell.bury(version, moment);
                forget_at = moment.0;
            }
            None => slot.items.remove(key),
        },
        None if covered => {}
        None => {
            if let Some(moment) = tombstones.claim(now) {
                slot.items.insert(key, Cell::tombstone(version, moment));
                forget_at = moment.0;
            }
        }
    }
    let is_vacant = slot.is_vacant();
    space.note_expiry(number, forget_at);
    if is_vacant {
        space.release(number);
    }
}

/// Deletes all keys of a range that are not newer; remembers the range instead of its keys.
fn delete_range(
    space: &mut Space,
    tombstones: &mut Tombstones,
    mutation: &Mutation<'_>,
    (start, end): (&[u8], &[u8]),
    now: UnixMillis,
) {
    if !end.is_empty() && start >= end {
        return;
    }
    let version = mutation.version;
    let number = space.find_or_add(mutation.id);
    let slot = space.slot_mut(number);
    slot.items.retain_range(start, end, |cell| {
        let stays = cell.version >= version;
        if !stays && cell.is_tombstone {
            tombstones.give_back();
        }
        stays
    });
    let within = |outer: &RangeDelete, start: &[u8], end: &[u8]| {
        range_contains(&outer.start, &outer.end, start)
            && (outer.end.is_empty() || (!end.is_empty() && end <= outer.end.as_slice()))
    };
    let is_known = slot
        .range_deletes
        .iter()
        .any(|delete| delete.version >= version && within(delete, start, end));
    if !is_known {
        let range = RangeDelete {
            start: start.to_vec(),
            end: end.to_vec(),
            version,
            forget_at: now.plus(tombstones.window_ms),
        };
        slot.range_deletes.retain(|old| {
            let stays = old.version > version || !within(&range, &old.start, &old.end);
            if !stays {
                tombstones.give_back();
            }
            stays
        });
        if slot.range_deletes.len() >= RANGE_DELETES_PER_ID_MAX {
            slot.range_deletes.remove(0);
            tombstones.give_back();
        }
        if tombstones.claim(now).is_some() {
            let moment = range.forget_at.0;
            slot.range_deletes.push(range);
            space.note_expiry(number, moment);
        }
    }
    if space.slot(number).is_vacant() {
        space.release(number);
    }
}

/// Sweeps the rest of the page that holds `first`. Returns where to continue.
fn sweep_page(
    space: &mut Space,
    tombstones: &mut Tombstones,
    first: SlotNumber,
    now: UnixMillis,
    sweep: &mut Sweep,
) -> SlotNumber {
    let page_end = (first.0 / PAGE_SLOTS as u32 + 1) * PAGE_SLOTS as u32;
    let end = page_end.min(space.slots());
    for number in (first.0..end).map(SlotNumber) {
        let slot = space.slot_mut(number);
        if !slot.is_used() {
            sweep.examined += 1;
            continue;
        }
        slot.items.retain_range(b"", b"", |cell| {
            sweep.examined += 1;
            if cell.expires_at > now.0 {
                return true;
            }
            sweep.removed += 1;
            if cell.is_tombstone {
                tombstones.give_back();
                return false;
            }
            // An expired item keeps its version, as a delete does, or an older write could come
            // back.
            match tombstones.claim(now) {
                Some(moment) => cell.bury(cell.version, moment),
                None => return false,
            }
            true
        });
        slot.range_deletes.retain(|delete| {
            let stays = delete.forget_at.0 > now.0;
            if !stays {
                tombstones.give_back();
                sweep.removed += 1;
            }
            stays
        });
        if slot.is_vacant() {
            space.release(number);
        }
    }
    space.settle_page(first);
    SlotNumber(page_end)
}

fn sorted<'a>(keys: &[&'a [u8]]) -> SmallVec<[&'a [u8]; 16]> {
    let mut keys: SmallVec<[&[u8]; 16]> = SmallVec::from_slice(keys);
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Promises of memory for KeyValue.
pub const KEYVALUE: Offer = Offer {
    api: Api::KeyValue,
    acked: Acked::Volatile,
    replay: Replay::Idempotent,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::SWAPS)
        .and(Features::SCANS)
        .and(Features::TOMBSTONES),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: false,
};

impl Reads for RefCell<MemoryStore> {
    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        self.borrow().get(query, now, sink)
    }

    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        self.borrow().scan(query, now, sink)
    }
}

impl Writes for RefCell<MemoryStore> {
    async fn apply(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        if at.is_some() {
            return Err(StoreError::Internal {
                detail: "the memory store keeps no position of a log".to_owned(),
            });
        }
        let mut store = self.borrow_mut();
        outcomes.clear();
        outcomes.extend(batch.iter().map(|mutation| store.apply_one(mutation)));
        Ok(())
    }
}

impl Upkeep for RefCell<MemoryStore> {
    fn offer(&self) -> Offer {
        KEYVALUE
    }

    fn remembers(&self) -> Remembers {
        let store = self.borrow();
        Remembers {
            window_ms: store.tombstones.window_ms,
            deletes_max: store.tombstones.max,
        }
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.borrow_mut().create_namespace(namespace)
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.borrow_mut().drop_namespace(namespace)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        Ok(self.borrow_mut().sweep(now, budget))
    }
}
