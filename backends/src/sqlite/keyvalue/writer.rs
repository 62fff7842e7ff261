//! The one writer of a SQLite store: applies a batch of mutations as one transaction, with an outcome for each.
//!
//! A put is one statement, an upsert that replaces an older row only; everything that a mutation may be refused for is
//! checked before its first statement, so a refusal leaves nothing behind and the batch goes on. An error of SQLite
//! itself rolls the whole batch back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use rustc_hash::FxBuildHasher;

use super::marks::Marks;
use super::{swap_table, sweep};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::{CHUNK_BYTES, RANGE_DELETES_PER_ID_MAX, VALUE_BYTES_MAX};
use crate::mutation::{Expected, ItemRef, Mutation, Operation, Outcome, OwnedItem, PredicateRef, is_expired};
use crate::sqlite::Options;
use crate::sqlite::file::Shared;
use crate::sqlite::file::positions::{self, StreamPosition};
use crate::sqlite::file::schema::{
    FileLock, PLACES_PER_VALUE, TOMBSTONE, VersionBytes, blob, version_bytes, version_of,
};
use crate::sqlite::file::stamps::Stamps;
use crate::sqlite::file::transaction::in_transaction;
use crate::store::{Capabilities, Sweep};
use crate::swaps::{SwapCall, SwapKey, Verdict, is_left_by};
use crate::version::Version;

/// Mutations of a stream's batch after which the thread gives way to others that want its core: some tens of microseconds.
const GIVE_WAY_EVERY: usize = 4;

/// The number of the first value that has chunks.
const FIRST_VALUE: i64 = 1;

/// Applies mutations. One per store; `Send`, so that it can live on a helper thread.
#[derive(Debug)]
pub struct Writer {
    pub(in crate::sqlite) connection: Connection,
    capabilities: Capabilities,
    options: Options,
    pub(in crate::sqlite) shared: Arc<Shared>,
    pub(in crate::sqlite) state: State,
    _lock: Arc<FileLock>,
}

/// What the writer keeps in memory beside the file.
#[derive(Debug)]
pub(in crate::sqlite) struct State {
    namespaces: HashMap<NamespaceId, NamespaceState, FxBuildHasher>,
    pub(in crate::sqlite) range_deletes: Marks,
    /// Range deletes that the running transaction removes; unmarked once it has committed.
    pub(in crate::sqlite) unmarked: Vec<(NamespaceId, Vec<u8>)>,
    /// The number of the next value that needs chunks; [`FIRST_VALUE`] while there are none.
    next_value: i64,
    next_swap: i64,
    stamps: Stamps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sqlite) enum NamespaceState {
    Live,
    Dropped,
    Swept,
}

impl Writer {
    pub(in crate::sqlite) fn new(
        mut connection: Connection,
        options: Options,
        shared: Arc<Shared>,
        lock: Arc<FileLock>,
    ) -> Result<Writer, StoreError> {
        let state = State::load(&connection)?;
        let hooked = shared.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            hooked.wal_pages.set(pages as u64);
            Ok(())
        }))?;
        let capabilities = Capabilities {
            name: "sqlite",
            survives_restart: true,
            survives_power_cut_at_once: false,
            blocks: true,
            concurrent_readers: true,
            value_bytes_max: VALUE_BYTES_MAX,
            chunk_bytes: Some(CHUNK_BYTES),
            tombstone_window_ms: options.tombstone_window_ms,
            tombstones_max: options.range_deletes_max,
        };
        Ok(Writer {
            connection,
            capabilities,
            options,
            shared,
            state,
            _lock: lock,
        })
    }

    /// What the store can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// See [`crate::KeyValueStore::create_namespace`].
    pub fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        match self.state.namespaces.get(&namespace) {
            Some(NamespaceState::Live) => Ok(()),
            Some(_) => Err(StoreError::DroppedNamespace(namespace)),
            None => self.set_namespace(namespace, NamespaceState::Live),
        }
    }

    /// See [`crate::KeyValueStore::drop_namespace`].
    pub fn drop_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        match self.state.namespaces.get(&namespace) {
            Some(NamespaceState::Live) => self.set_namespace(namespace, NamespaceState::Dropped),
            Some(_) => Ok(()),
            None => self.set_namespace(namespace, NamespaceState::Swept),
        }
    }

    /// Applies a batch as one transaction; see [`crate::KeyValueStore::apply`].
    pub fn apply(&mut self, batch: &[Mutation<'_>], outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
        self.apply_at(batch, &[], outcomes)
    }

    /// As [`Writer::apply`], and notes how far the streams behind the batch are applied with it, in the same
    /// transaction: after a crash the file has both or neither. A position that is not beyond the noted one changes
    /// nothing. Refused mutations do not hold the positions. The batch may be empty.
    ///
    /// Errors: as of `apply`; [`StoreError::InvalidArgument`] for a position above 2^63 - 1.
    pub fn apply_at(
        &mut self,
        batch: &[Mutation<'_>],
        positions: &[StreamPosition],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        if batch.is_empty() && positions.is_empty() {
            return Ok(());
        }
        let Writer {
            connection,
            options,
            shared,
            state,
            ..
        } = self;
        let result = in_transaction(connection, shared, || {
            let mut put = connection.prepare_cached(PUT)?;
            for (number, mutation) in batch.iter().enumerate() {
                // Those who wait for a stream's batch are few. Others wait for the core, which the kernel may leave to them
                // only when its tick comes.
                if !positions.is_empty() && number % GIVE_WAY_EVERY == GIVE_WAY_EVERY - 1 {
                    std::thread::yield_now();
                }
                let mut change = Change {
                    connection,
                    options,
                    state,
                    put: &mut put,
                    mutation,
                };
                outcomes.push(change.apply()?);
            }
            state.stamps.note(connection)?;
            positions::note(connection, positions).map(drop)
        });
        state.settle(result.is_ok());
        if result.is_err() {
            outcomes.clear();
        }
        result
    }

    /// The stamps of the writes in the file lie below this, or at it: those to come must lie above. Up to a second more than
    /// needed after a crash; [`i64::MIN`] if there is none.
    pub fn highest_stamp(&self) -> i64 {
        self.state.stamps.noted()
    }

    /// The next batch holds writes with stamps of the gateway up to this one: [`Writer::highest_stamp`] follows in the same
    /// transaction. Times of clients' tokens do not count.
    pub fn expect_stamp(&mut self, stamp_ns: i64) {
        self.state.stamps.expect(stamp_ns);
    }

    /// At the end: [`Writer::highest_stamp`] becomes that of the writes and no more.
    pub fn settle_stamps(&mut self) -> Result<(), StoreError> {
        if !self.state.stamps.is_ahead() {
            return Ok(());
        }
        let Writer {
            connection,
            shared,
            state,
            ..
        } = self;
        let result = in_transaction(connection, shared, || state.stamps.note_exactly(connection));
        state.settle(result.is_ok());
        result
    }

    /// See [`crate::KeyValueStore::sweep`].
    pub fn sweep(&mut self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let Writer {
            connection,
            options,
            shared,
            state,
            ..
        } = self;
        let mut done = Sweep::default();
        let mut swept = None;
        let result = in_transaction(connection, shared, || {
            let dropped = state
                .namespaces
                .iter()
                .find(|(_, state)| **state == NamespaceState::Dropped)
                .map(|(id, _)| *id);
            if let Some(namespace) = dropped {
                swept = sweep::sweep_namespace(connection, state, namespace, budget, &mut done)?;
            }
            let left = budget.saturating_sub(done.examined);
            sweep::sweep_items(connection, options, now, left, &mut done)?;
            let left = budget.saturating_sub(done.examined);
            sweep::sweep_range_deletes(connection, state, now, left, &mut done)
        });
        state.settle(result.is_ok());
        result?;
        if let Some(namespace) = swept {
            state.namespaces.insert(namespace, NamespaceState::Swept);
        }
        done.more = done.examined >= budget || (swept.is_none() && state.has_dropped());
        sweep::give_back_pages(connection, budget)?;
        Ok(done)
    }

    /// Gives the page cache back; for when there has been no work for a while. The next batches read from the file.
    pub fn release_memory(&mut self) -> Result<(), StoreError> {
        Ok(self
            .connection
            .prepare_cached("PRAGMA shrink_memory")?
            .execute([])
            .map(drop)?)
    }

    /// Whether the [`super::Checkpointer`] has work: [`super::Checkpointer::is_due`], to be asked after each batch, so that
    /// its thread need not be woken for nothing.
    pub fn is_checkpointer_due(&self) -> bool {
        self.shared.is_checkpointer_due()
    }

    fn set_namespace(&mut self, namespace: NamespaceId, state: NamespaceState) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(SET_NAMESPACE)?;
        statement.execute(params![namespace.0, state as i64])?;
        self.state.namespaces.insert(namespace, state);
        // Readers load the namespaces anew before their next query.
        self.shared.namespace_epoch.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl State {
    fn load(connection: &Connection) -> Result<State, StoreError> {
        let mut range_deletes = Marks::default();
        let mut statement = connection.prepare("SELECT namespace, id FROM range_delete")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            range_deletes.add(NamespaceId(row.get(0)?), blob(row, 1)?);
        }
        let number = |text: &str| connection.query_row(text, [], |row| row.get::<_, i64>(0));
        Ok(State {
            namespaces: load_namespaces(connection)?,
            range_deletes,
            unmarked: Vec::new(),
            next_value: number("SELECT ifnull(max(place) / 16, 0) FROM chunk")? + FIRST_VALUE,
            next_swap: number("SELECT ifnull(max(sequence), 0) + 1 FROM swap")?,
            stamps: Stamps::load(connection)?,
        })
    }

    /// After a transaction: what was removed is unmarked, or stays marked if it was not removed after all.
    fn settle(&mut self, committed: bool) {
        self.stamps.settle(committed);
        for (namespace, id) in self.unmarked.drain(..) {
            if committed {
                self.range_deletes.remove(namespace, &id);
            }
        }
    }

    fn has_dropped(&self) -> bool {
        self.namespaces
            .values()
            .any(|state| *state == NamespaceState::Dropped)
    }

    fn check_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        check_namespace(&self.namespaces, namespace)
    }

    pub(in crate::sqlite) fn is_dropped(&self, namespace: NamespaceId) -> bool {
        matches!(
            self.namespaces.get(&namespace),
            Some(NamespaceState::Dropped | NamespaceState::Swept)
        )
    }
}

pub(in crate::sqlite) fn check_namespace(
    namespaces: &HashMap<NamespaceId, NamespaceState, FxBuildHasher>,
    namespace: NamespaceId,
) -> Result<(), StoreError> {
    match namespaces.get(&namespace) {
        Some(NamespaceState::Live) => Ok(()),
        Some(_) => Err(StoreError::DroppedNamespace(namespace)),
        None => Err(StoreError::UnknownNamespace(namespace)),
    }
}

pub(in crate::sqlite) fn load_namespaces(
    connection: &Connection,
) -> Result<HashMap<NamespaceId, NamespaceState, FxBuildHasher>, StoreError> {
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

/// One mutation within the batch's transaction.
struct Change<'w, 'c, 'm> {
    connection: &'c Connection,
    options: &'w Options,
    state: &'w mut State,
    put: &'w mut CachedStatement<'c>,
    mutation: &'w Mutation<'m>,
}

/// What a put makes of a row of `item`, tombstones included; see [`schema`].
struct NewRow<'a> {
    version: VersionBytes,
    expires_at: Option<i64>,
    kind: i64,
    value: &'a [u8],
    rest: Option<i64>,
    bytes: Option<i64>,
}

/// What a row of `item` says, tombstones included.
struct Found {
    version: Version,
    /// `None` for a tombstone or an item that had expired when the call was taken.
    visible: Option<OwnedItem>,
}

impl Change<'_, '_, '_> {
    /// An `Err` ends the whole batch; what is only this mutation's fault is an outcome.
    fn apply(&mut self) -> Result<Outcome, StoreError> {
        let mutation = self.mutation;
        let checked = mutation
            .check()
            .and_then(|()| self.state.check_namespace(mutation.namespace));
        if let Err(error) = checked {
            return Ok(Outcome::Refused(error));
        }
        match &mutation.operation {
            Operation::Put(items) => {
                // From the last to the first: of two with one key the later is then there already, with this very
                // version, and the earlier has no effect.
                for item in items.iter().rev() {
                    if !self.is_covered(item.key)? {
                        self.write(item, version_bytes(mutation.version))?;
                    }
                }
                Ok(Outcome::Applied)
            }
            Operation::Delete(PredicateRef::Keys(keys)) => {
                for key in *keys {
                    if !self.is_covered(key)? {
                        self.bury(key, version_bytes(mutation.version))?;
                    }
                }
                Ok(Outcome::Applied)
            }
            Operation::Delete(PredicateRef::All) => self.delete_range(b"", b""),
            Operation::Delete(PredicateRef::Range { start, end }) => self.delete_range(start, end),
            Operation::CompareAndSwap {
                key,
                expected,
                replacement,
            } => self.swap(key, *expected, replacement.as_ref()),
        }
    }

    /// Whether a remembered range delete over the key is as new as the mutation.
    fn is_covered(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self
            .range_delete_over(key)?
            .is_some_and(|version| version >= self.mutation.version))
    }

    fn range_delete_over(&self, key: &[u8]) -> Result<Option<Version>, StoreError> {
        let Mutation { namespace, id, .. } = *self.mutation;
        if !self.state.range_deletes.may_have(namespace, id.as_bytes()) {
            return Ok(None);
        }
        let mut statement = self.connection.prepare_cached(RANGE_DELETE_OVER)?;
        let mut rows = statement.query(params![namespace.0, id.as_bytes(), key])?;
        match rows.next()? {
            Some(row) if row.get_ref(0)? != rusqlite::types::ValueRef::Null => {
                version_of(blob(row, 0)?).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Writes one item unless the row is as new.
    fn write(&mut self, item: &ItemRef<'_>, version: VersionBytes) -> Result<(), StoreError> {
        let expires_at = item.expires_at.map(|moment| moment.0.min(i64::MAX as u64) as i64);
        let mut value = item.value;
        let mut rest = None;
        if item.value.len() > CHUNK_BYTES {
            rest = Some(self.state.next_value * PLACES_PER_VALUE);
            value = &item.value[..CHUNK_BYTES];
        }
        let row = NewRow {
            version,
            expires_at,
            kind: i64::from(item.compression),
            value,
            rest,
            bytes: rest.map(|_| item.value.len() as i64),
        };
        if let (true, Some(place)) = (self.put(item.key, &row)?, rest) {
            self.state.next_value += 1;
            let mut statement = self.connection.prepare_cached(PUT_CHUNK)?;
            for (position, chunk) in item.value.chunks(CHUNK_BYTES).enumerate().skip(1) {
                statement.execute(params![place + position as i64, chunk])?;
            }
        }
        Ok(())
    }

    /// Deletes one key unless the row is as new, and remembers that.
    fn bury(&mut self, key: &[u8], version: VersionBytes) -> Result<(), StoreError> {
        let forget_at = self.mutation.at.plus(self.options.tombstone_window_ms).0 as i64;
        let tombstone = NewRow {
            version,
            expires_at: Some(forget_at),
            kind: TOMBSTONE,
            value: b"",
            rest: None,
            bytes: None,
        };
        self.put(key, &tombstone).map(drop)
    }

    /// Writes one row and deletes the chunks of the value that it replaces; false, and nothing is done, if there is a row
    /// that is as new.
    fn put(&mut self, key: &[u8], row: &NewRow<'_>) -> Result<bool, StoreError> {
        let Mutation { namespace, id, .. } = *self.mutation;
        let replaced = self.chunks_of(key)?;
        let changed = self.put.execute(params![
            namespace.0,
            id.as_bytes(),
            key,
            row.version,
            row.expires_at,
            row.kind,
            row.value,
            row.rest,
            row.bytes
        ])?;
        if changed == 0 {
            return Ok(false);
        }
        delete_chunks(self.connection, replaced)?;
        Ok(true)
    }

    /// Where the chunks of the value under a key lie, which a put is about to replace. Not searched for in a store that has
    /// none. A trigger could see to it, but costs each put a journal of its statement, whatever the value.
    fn chunks_of(&self, key: &[u8]) -> Result<Option<i64>, StoreError> {
        if self.state.next_value == FIRST_VALUE {
            return Ok(None);
        }
        let Mutation { namespace, id, .. } = *self.mutation;
        let mut statement = self.connection.prepare_cached(PLACE)?;
        let place = statement.query_row(params![namespace.0, id.as_bytes(), key], |row| row.get(0));
        Ok(place.optional()?.flatten())
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8]) -> Result<Outcome, StoreError> {
        let Mutation {
            namespace,
            id,
            version,
            ..
        } = *self.mutation;
        if !end.is_empty() && start >= end {
            return Ok(Outcome::Applied);
        }
        let version = version_bytes(version);
        let id = id.as_bytes();
        if end.is_empty() {
            self.connection
                .prepare_cached(DELETE_FROM)?
                .execute(params![namespace.0, id, start, version])?;
        } else {
            let parameters = params![namespace.0, id, start, version, end];
            self.connection
                .prepare_cached(DELETE_BETWEEN)?
                .execute(parameters)?;
        }
        self.remember_range_delete(start, end, version)?;
        Ok(Outcome::Applied)
    }

    fn remember_range_delete(
        &mut self,
        start: &[u8],
        end: &[u8],
        version: VersionBytes,
    ) -> Result<(), StoreError> {
        let Mutation {
            namespace, id, at, ..
        } = *self.mutation;
        let id = id.as_bytes();
        if self.state.range_deletes.may_have(namespace, id) {
            let mut known = self.connection.prepare_cached(RANGE_DELETE_KNOWN)?;
            if known.exists(params![namespace.0, id, start, end, version])? {
                return Ok(());
            }
            // Those that the new one makes superfluous, and the oldest if there are too many.
            let mut statement = self.connection.prepare_cached(FORGET_WITHIN)?;
            let within = statement.execute(params![namespace.0, id, start, end, version])?;
            let mut statement = self.connection.prepare_cached(FORGET_OLDEST)?;
            let spare = RANGE_DELETES_PER_ID_MAX as i64 - 1;
            let oldest = statement.execute(params![namespace.0, id, spare])?;
            let gone = std::iter::repeat_n((namespace, id.to_vec()), within + oldest);
            self.state.unmarked.extend(gone);
        }
        if self.state.range_deletes.total() >= self.options.range_deletes_max {
            return Ok(());
        }
        self.state.range_deletes.add(namespace, id);
        let forget_at = at.plus(self.options.tombstone_window_ms).0 as i64;
        let mut statement = self.connection.prepare_cached(REMEMBER_RANGE_DELETE)?;
        statement.execute(params![namespace.0, id, start, end, version, forget_at])?;
        Ok(())
    }

    fn swap(
        &mut self,
        key: &[u8],
        expected: Expected<'_>,
        replacement: Option<&ItemRef<'_>>,
    ) -> Result<Outcome, StoreError> {
        let Mutation {
            namespace, version, ..
        } = *self.mutation;
        let name = SwapKey { namespace, version };
        let call = SwapCall::new(self.mutation, key);
        let found = self.find(key)?;
        let stored = found.as_ref().map(|found| found.version);
        let current = found.and_then(|found| found.visible);
        match swap_table::recall(self.connection, &name, call, key)? {
            Some(Ok(Verdict::Swapped)) => return Ok(Outcome::Swapped(None)),
            Some(Ok(Verdict::NotSwapped(item))) => return Ok(Outcome::NotSwapped(item)),
            Some(Ok(Verdict::NotSwappedLarge)) => return Ok(Outcome::NotSwapped(current)),
            Some(Err(refusal)) => return Ok(Outcome::Refused(refusal)),
            None => {}
        }
        let floor = stored.max(self.range_delete_over(key)?);
        if floor == Some(version) {
            // Forgotten, but its mark is still there: this very swap was the item's last write, unless it looks otherwise.
            let current = current.as_ref().map(OwnedItem::as_ref);
            return Ok(match is_left_by(current.as_ref(), replacement) {
                true => Outcome::Swapped(None),
                false => Outcome::Refused(StoreError::TokenReused),
            });
        }
        let holds = match (expected, &current) {
            (Expected::Absent, None) => true,
            (Expected::Value(value), Some(item)) => value == item.value,
            _ => false,
        };
        if !holds {
            self.remember(
                &name,
                call,
                &Verdict::refusal(current.as_ref().map(OwnedItem::as_ref)),
            )?;
            return Ok(Outcome::NotSwapped(current));
        }
        let version = floor.map_or(version, |floor| floor.successor().max(version));
        match replacement {
            Some(item) => self.write(&ItemRef { key, ..*item }, version_bytes(version))?,
            None => self.bury(key, version_bytes(version))?,
        }
        self.remember(&name, call, &Verdict::Swapped)?;
        Ok(Outcome::Swapped(Some(version)))
    }

    fn find(&self, key: &[u8]) -> Result<Option<Found>, StoreError> {
        let Mutation {
            namespace, id, at, ..
        } = *self.mutation;
        let mut statement = self.connection.prepare_cached(FIND)?;
        let mut rows = statement.query(params![namespace.0, id.as_bytes(), key])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let version = version_of(blob(row, 0)?)?;
        let expires_at = row
            .get::<_, Option<i64>>(1)?
            .map(|moment| UnixMillis(moment as u64));
        let kind: i64 = row.get(2)?;
        if kind == TOMBSTONE || is_expired(expires_at, at) {
            return Ok(Some(Found {
                version,
                visible: None,
            }));
        }
        let mut value = blob(row, 3)?.to_vec();
        if let Some(place) = row.get::<_, Option<i64>>(4)? {
            append_chunks(self.connection, place, row.get(5)?, &mut value)?;
        }
        let item = OwnedItem {
            key: key.to_vec(),
            value,
            expires_at,
            compression: kind as u8,
        };
        Ok(Some(Found {
            version,
            visible: Some(item),
        }))
    }

    fn remember(&mut self, name: &SwapKey, call: SwapCall, verdict: &Verdict) -> Result<(), StoreError> {
        let sequence = self.state.next_swap;
        self.state.next_swap += 1;
        swap_table::remember(self.connection, sequence, name, call, verdict)
    }
}

/// Deletes the chunks of a value that is not there any more, if it had any.
pub(in crate::sqlite) fn delete_chunks(
    connection: &Connection,
    place: Option<i64>,
) -> Result<(), StoreError> {
    if let Some(place) = place {
        let mut statement = connection.prepare_cached(DELETE_CHUNKS)?;
        statement.execute(params![place, place + PLACES_PER_VALUE])?;
    }
    Ok(())
}

/// Appends the chunks behind the first of a large value, whose whole length is `bytes`.
pub(in crate::sqlite) fn append_chunks(
    connection: &Connection,
    place: i64,
    bytes: Option<i64>,
    value: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let bytes = bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes <= VALUE_BYTES_MAX);
    let Some(bytes) = bytes else {
        return Err(StoreError::Corrupt {
            detail: format!("the value at place {place} has no length"),
        });
    };
    value.reserve_exact(bytes.saturating_sub(value.len()));
    let mut statement = connection.prepare_cached(CHUNKS)?;
    let mut rows = statement.query(params![place, place + PLACES_PER_VALUE])?;
    while let Some(row) = rows.next()? {
        value.extend_from_slice(blob(row, 0)?);
    }
    if value.len() != bytes {
        let detail = format!(
            "the value at place {place} has {} of its {bytes} bytes",
            value.len()
        );
        return Err(StoreError::Corrupt { detail });
    }
    Ok(())
}

pub(in crate::sqlite) const SET_NAMESPACE: &str = "INSERT INTO namespace (id, state) VALUES (?1, ?2)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state";
const PUT: &str = "INSERT INTO item (namespace, id, key, version, expires_at, kind, value, rest, bytes)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (namespace, id, key) DO UPDATE SET version = excluded.version, expires_at = excluded.expires_at,
        kind = excluded.kind, value = excluded.value, rest = excluded.rest, bytes = excluded.bytes
    WHERE excluded.version > item.version";
const PUT_CHUNK: &str = "INSERT OR REPLACE INTO chunk (place, data) VALUES (?1, ?2)";
const PLACE: &str = "SELECT rest FROM item WHERE namespace = ?1 AND id = ?2 AND key = ?3";
const DELETE_CHUNKS: &str = "DELETE FROM chunk WHERE place >= ?1 AND place < ?2";
const CHUNKS: &str = "SELECT data FROM chunk WHERE place > ?1 AND place < ?2 ORDER BY place";
const FIND: &str = "SELECT version, expires_at, kind, value, rest, bytes FROM item
    WHERE namespace = ?1 AND id = ?2 AND key = ?3";
const DELETE_FROM: &str = "DELETE FROM item WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND version < ?4";
const DELETE_BETWEEN: &str =
    "DELETE FROM item WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND version < ?4 AND key < ?5";
const RANGE_DELETE_OVER: &str = "SELECT max(version) FROM range_delete
    WHERE namespace = ?1 AND id = ?2 AND start <= ?3 AND (\"end\" = x'' OR \"end\" > ?3)";
const RANGE_DELETE_KNOWN: &str = "SELECT 1 FROM range_delete WHERE namespace = ?1 AND id = ?2
    AND start <= ?3 AND (\"end\" = x'' OR (?4 <> x'' AND \"end\" >= ?4)) AND version >= ?5";
const FORGET_WITHIN: &str = "DELETE FROM range_delete WHERE namespace = ?1 AND id = ?2
    AND start >= ?3 AND (?4 = x'' OR (\"end\" <> x'' AND \"end\" <= ?4)) AND version <= ?5";
const FORGET_OLDEST: &str = "DELETE FROM range_delete WHERE number IN (SELECT number FROM range_delete
    WHERE namespace = ?1 AND id = ?2 ORDER BY number DESC LIMIT -1 OFFSET ?3)";
const REMEMBER_RANGE_DELETE: &str =
    "INSERT INTO range_delete (namespace, id, start, \"end\", version, forget_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
