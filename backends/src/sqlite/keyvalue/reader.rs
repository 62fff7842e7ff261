//! Readers of a SQLite store, each with its own read-only connection. A query sees one moment's
//! state, whatever the writer does meanwhile, and neither waits for the other.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Row, params};
use smallvec::SmallVec;

use super::moment::Moment;
use super::namespaces::{self, Namespaces};
use super::overlay::{self, Overlay, Wanted, Winner};
use super::removals::Unfinished;
use super::values::{self, Chunks};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::limits::CHUNK_BYTES;
use crate::mutation::{ItemRef, Mutation, PredicateRef, is_expired};
use crate::query::{GetQuery, ItemSink, PageBudget, PageToken, ScanQuery};
use crate::sqlite::Options;
use crate::sqlite::file::Shared;
use crate::sqlite::file::schema::{self, FileLock, TOMBSTONE, blob, version_of};
use crate::token;
use crate::version::Version;

/// Makes readers, on whichever thread wants one.
#[derive(Clone, Debug)]
pub struct ReaderFactory {
    pub(in crate::sqlite) path: PathBuf,
    pub(in crate::sqlite) options: Options,
    pub(in crate::sqlite) shared: Arc<Shared>,
    pub(in crate::sqlite) unfinished: Arc<Unfinished>,
    pub(in crate::sqlite) lock: Arc<FileLock>,
}

impl ReaderFactory {
    /// Opens one more reader. Costs about 1 ms and [`Options::reader_cache_bytes`] once it has read
    /// that much.
    pub fn open(&self) -> Result<Reader, StoreError> {
        let connection = schema::open_reader(&self.path, &self.options)?;
        // One less, so that the first query loads the namespaces.
        let epoch = self
            .shared
            .namespace_epoch
            .load(Ordering::Acquire)
            .wrapping_sub(1);
        Ok(Reader {
            connection,
            shared: self.shared.clone(),
            unfinished: self.unfinished.clone(),
            namespaces: RefCell::default(),
            namespace_epoch: Cell::new(epoch),
            large: RefCell::default(),
            _lock: self.lock.clone(),
        })
    }
}

/// A reader next to the writer; every call sees one moment's state. `Send`, not `Sync`.
#[derive(Debug)]
pub struct Reader {
    pub(in crate::sqlite) connection: Connection,
    pub(in crate::sqlite) shared: Arc<Shared>,
    unfinished: Arc<Unfinished>,
    namespaces: RefCell<Namespaces>,
    namespace_epoch: Cell<u64>,
    /// Where a chunked value is put together.
    large: RefCell<Vec<u8>>,
    _lock: Arc<FileLock>,
}

impl Reader {
    /// Reads a page as [`crate::api::keyvalue::Reads::get`] does.
    pub fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        query.check()?;
        self.check_namespace(query.namespace)?;
        let after = position_of(query)?;
        let mut page = Page::new(self, query, now, sink);
        let is_whole = self.at_one_moment(query, &mut page, |page| match &query.predicate {
            PredicateRef::Keys([key]) if after.is_none() => self.offer_key(query, key, page),
            PredicateRef::Keys(keys) => {
                let mut keys: SmallVec<[&[u8]; 16]> = SmallVec::from_slice(keys);
                keys.retain(|key| after.is_none_or(|after| *key > after));
                keys.sort_unstable();
                keys.dedup();
                self.in_one_snapshot(|| self.offer_keys(query, &keys, page))
            }
            PredicateRef::All => self.offer_range(query, (b"", b""), after, page),
            PredicateRef::Range { start, end } => self.offer_range(query, (start, end), after, page),
        })?;
        Ok(page.end(query, is_whole))
    }

    /// As [`Reader::get`], as if `pending` had been applied, in its order, to what is stored.
    /// Mutations of other ids, and those that the writer would refuse, do not count. What has been
    /// applied already may be among them: it changes nothing, as long as the store remembers the
    /// deletes of ranges among them ([`crate::limits::RANGE_DELETES_PER_ID_MAX`]). So a caller
    /// takes its pending mutations first, then calls this, and misses none that is applied
    /// meanwhile. Compare-and-swaps cannot be foretold and must not be among them; they are
    /// ignored.
    ///
    /// Costs about what `get` does, and a look at each pending mutation. Stored items that a
    /// pending delete of a range covers are passed over one by one, as their deletion will.
    pub fn get_over(
        &self,
        query: &GetQuery<'_>,
        pending: &[Mutation<'_>],
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        query.check()?;
        self.check_namespace(query.namespace)?;
        let after = position_of(query)?;
        let wanted = Wanted::new(&query.predicate, after);
        let own = overlay::own_mutations(query, pending);
        let Some(needs_range_deletes) = overlay::touches(&own, &wanted) else {
            return self.get(query, now, sink);
        };
        let mut page = Page::new(self, query, now, sink);
        let is_whole = self.at_one_moment(query, &mut page, |page| {
            self.in_one_snapshot(|| {
                let mut range_deletes = Vec::new();
                if needs_range_deletes {
                    range_deletes = overlay::stored_range_deletes(&self.connection, query)?;
                    if !page.moment.holds() {
                        return Ok(false);
                    }
                    range_deletes.extend(page.moment.removals().iter().map(overlay::RangeDelete::of));
                }
                let overlay = Overlay::new(&own, &wanted, range_deletes);
                match &wanted {
                    Wanted::Keys(keys) => self.offer_keys_over(query, keys, &overlay, page),
                    Wanted::Range { from, end } => self.offer_range_over(query, (from, end), &overlay, page),
                }
            })
        })?;
        Ok(page.end(query, is_whole))
    }

    /// Reads a page as [`crate::api::keyvalue::Reads::scan`] does. Ids come in the order of their
    /// bytes.
    pub fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        self.check_namespace(query.namespace)?;
        let fingerprint = token::fingerprint_of_scan(query, token::BY_BYTES);
        let (mut id, mut key): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        if let Some(place) = token::open_place(fingerprint, query.selection.page_token)? {
            (id, key) = place;
            // The smallest key after the last one shown.
            key.push(0);
        }
        let mut moment = Moment::begin(&self.unfinished, self.connection.is_autocommit());
        let start = (id, key);
        if moment.is_known() {
            let done = self.scan_from(query, &start, now, &mut moment, sink)?;
            if !moment.has_moved() {
                return Ok(done);
            }
        }
        self.in_one_snapshot(|| {
            moment.look_up(&self.connection, query.namespace, None)?;
            self.scan_from(query, &start, now, &mut moment, sink)
        })
    }

    fn scan_from(
        &self,
        query: &ScanQuery<'_>,
        (id, key): &(Vec<u8>, Vec<u8>),
        now: UnixMillis,
        moment: &mut Moment<'_>,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let fingerprint = token::fingerprint_of_scan(query, token::BY_BYTES);
        let mut statement = self.connection.prepare_cached(SCAN)?;
        let mut rows = statement.query(params![
            query.namespace.0,
            id,
            key,
            now.0.min(i64::MAX as u64) as i64
        ])?;
        let (mut id, mut key) = (id.clone(), key.clone());
        let mut budget = PageBudget::new(&query.selection);
        let mut is_first = true;
        while let Some(row) = rows.next()? {
            let row_id = blob(row, 7)?;
            let row_key = blob(row, 0)?;
            if !moment.holds() {
                return Ok(None);
            }
            if moment.hides(query.namespace, row_id, row_key, row)? {
                continue;
            }
            let is_new_id = is_first || row_id != id;
            if !budget.take(
                row_key.len(),
                value_bytes(row)?,
                is_new_id.then_some(row_id.len()),
            ) {
                return Ok(Some(token::seal_place(fingerprint, &id, &key)));
            }
            if is_new_id {
                let text = std::str::from_utf8(row_id).map_err(|error| StoreError::Corrupt {
                    detail: format!("an id: {error}"),
                })?;
                sink.id(text);
            }
            self.show(row, row_key, sink)?;
            replace(&mut id, row_id);
            replace(&mut key, row_key);
            is_first = false;
        }
        Ok(None)
    }

    /// Gives the page cache back; for when there has been no work for a while.
    pub fn release_memory(&self) -> Result<(), StoreError> {
        Ok(self
            .connection
            .prepare_cached("PRAGMA shrink_memory")?
            .execute([])
            .map(drop)?)
    }

    pub(in crate::sqlite) fn check_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        let epoch = self.shared.namespace_epoch.load(Ordering::Acquire);
        if epoch != self.namespace_epoch.get() {
            *self.namespaces.borrow_mut() = namespaces::load(&self.connection)?;
            self.namespace_epoch.set(epoch);
        }
        namespaces::check(&self.namespaces.borrow(), namespace)
    }

    /// Runs several queries on one moment's state, which is no older than this call. Saves each of
    /// them the taking and giving back of SQLite's lock, four system calls; for a caller that finds
    /// several queries waiting. `work` should be short: the write-ahead file cannot begin anew
    /// meanwhile.
    pub fn in_one_snapshot<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if !self.connection.is_autocommit() {
            return work();
        }
        self.connection.prepare_cached("BEGIN")?.execute([])?;
        let result = work();
        // Nothing was written: there is nothing that ending it could lose.
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        result
    }

    /// Runs a query so that it hides what is deleted at the moment whose state it sees, and is not
    /// removed yet: at first as if that were nothing; once more if that was wrong.
    fn at_one_moment<'r, S: ItemSink>(
        &'r self,
        query: &GetQuery<'_>,
        page: &mut Page<'r, S>,
        work: impl Fn(&mut Page<'r, S>) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        if page.moment.is_known() {
            let is_whole = work(page)?;
            if !page.moment.has_moved() {
                return Ok(is_whole);
            }
        }
        self.in_one_snapshot(|| {
            let id = query.id.as_bytes();
            page.moment.look_up(&self.connection, query.namespace, Some(id))?;
            work(page)
        })
    }

    fn offer_keys<S: ItemSink>(
        &self,
        query: &GetQuery<'_>,
        keys: &[&[u8]],
        page: &mut Page<'_, S>,
    ) -> Result<bool, StoreError> {
        for key in keys {
            if !self.offer_key(query, key, page)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn offer_key<S: ItemSink>(
        &self,
        query: &GetQuery<'_>,
        key: &[u8],
        page: &mut Page<'_, S>,
    ) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached(GET_KEY)?;
        let now = page.now.0.min(i64::MAX as u64) as i64;
        let mut rows = statement.query(params![query.namespace.0, query.id.as_bytes(), key, now])?;
        let row = rows.next()?;
        if !page.moment.holds() {
            return Ok(false);
        }
        match row {
            Some(row) if !page.hides(query, row)? => page.offer(row),
            _ => Ok(true),
        }
    }

    fn offer_range<S: ItemSink>(
        &self,
        query: &GetQuery<'_>,
        (start, end): (&[u8], &[u8]),
        after: Option<&[u8]>,
        page: &mut Page<'_, S>,
    ) -> Result<bool, StoreError> {
        let namespace = query.namespace.0;
        let id = query.id.as_bytes();
        let now = page.now.0.min(i64::MAX as u64) as i64;
        let behind;
        let from = match after {
            Some(after) if after >= start => {
                // The smallest key after `after`.
                behind = [after, &[0]].concat();
                behind.as_slice()
            }
            _ => start,
        };
        let mut statement =
            self.connection
                .prepare_cached(if end.is_empty() { GET_FROM } else { GET_BETWEEN })?;
        let mut rows = if end.is_empty() {
            statement.query(params![namespace, id, from, now])?
        } else {
            statement.query(params![namespace, id, from, now, end])?
        };
        while let Some(row) = rows.next()? {
            if !page.moment.holds() {
                return Ok(false);
            }
            if !page.hides(query, row)? && !page.offer(row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn offer_keys_over<S: ItemSink>(
        &self,
        query: &GetQuery<'_>,
        keys: &[&[u8]],
        overlay: &Overlay<'_>,
        page: &mut Page<'_, S>,
    ) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached(KEY_OVER)?;
        for key in keys {
            let mut rows = statement.query(params![query.namespace.0, query.id.as_bytes(), key])?;
            let mut row = rows.next()?;
            if !page.moment.holds() {
                return Ok(false);
            }
            if let Some(found) = row
                && page.hides(query, found)?
            {
                row = None;
            }
            let stored = row.map(|row| version_of(blob(row, 6)?)).transpose()?;
            let goes_on = match (overlay.winner(key, stored), row) {
                (Winner::Pending(item, version), _) => page.offer_item(item, version)?,
                (Winner::Stored, Some(row)) if page.is_visible(row)? => page.offer(row)?,
                _ => true,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Walks the stored rows and the pending ones together, both in key order.
    fn offer_range_over<S: ItemSink>(
        &self,
        query: &GetQuery<'_>,
        (from, end): (&[u8], &[u8]),
        overlay: &Overlay<'_>,
        page: &mut Page<'_, S>,
    ) -> Result<bool, StoreError> {
        let (namespace, id) = (query.namespace.0, query.id.as_bytes());
        let text = if end.is_empty() { FROM_OVER } else { BETWEEN_OVER };
        let mut statement = self.connection.prepare_cached(text)?;
        let mut rows = if end.is_empty() {
            statement.query(params![namespace, id, from])?
        } else {
            statement.query(params![namespace, id, from, end])?
        };
        let mut pending = overlay.keys().peekable();
        loop {
            let row = rows.next()?;
            if !page.moment.holds() {
                return Ok(false);
            }
            let Some(row) = row else { break };
            if page.hides(query, row)? {
                continue;
            }
            let key = blob(row, 0)?;
            while let Some(before) = pending.next_if(|pending| *pending < key) {
                if let Winner::Pending(item, version) = overlay.winner(before, None)
                    && !page.offer_item(item, version)?
                {
                    return Ok(false);
                }
            }
            pending.next_if_eq(&key);
            let goes_on = match overlay.winner(key, Some(version_of(blob(row, 6)?)?)) {
                Winner::Pending(item, version) => page.offer_item(item, version)?,
                Winner::Stored if page.is_visible(row)? => page.offer(row)?,
                _ => true,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        for behind in pending {
            if let Winner::Pending(item, version) = overlay.winner(behind, None)
                && !page.offer_item(item, version)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands one row to the sink, putting a chunked value together first. The row's statement is
    /// still running, so the chunks come from the same moment.
    fn show(&self, row: &Row<'_>, key: &[u8], sink: &mut impl ItemSink) -> Result<(), StoreError> {
        let expires_at = row
            .get::<_, Option<i64>>(1)?
            .map(|moment| UnixMillis(moment as u64));
        let compression = row.get(2)?;
        let value = blob(row, 3)?;
        let version = version_of(blob(row, 6)?)?;
        let mut show = |value: &[u8]| {
            let item = ItemRef {
                key,
                value,
                expires_at,
                compression,
            };
            sink.item(&item, version);
        };
        let Some(chunks) = Chunks::of(row.get(4)?, row.get(5)?) else {
            show(value);
            return Ok(());
        };
        let mut large = self.large.borrow_mut();
        replace(&mut large, value);
        values::with_whole(&self.connection, chunks, &mut large, show)?;
        // A reader that once met a large value does not keep its room for ever.
        large.clear();
        large.shrink_to(CHUNK_BYTES);
        Ok(())
    }
}

/// A page of a `get` in the making.
struct Page<'r, S> {
    reader: &'r Reader,
    moment: Moment<'r>,
    budget: PageBudget,
    last_key: Option<SmallVec<[u8; 32]>>,
    now: UnixMillis,
    sink: &'r mut S,
}

impl<'r, S: ItemSink> Page<'r, S> {
    fn new(reader: &'r Reader, query: &GetQuery<'_>, now: UnixMillis, sink: &'r mut S) -> Page<'r, S> {
        Page {
            reader,
            moment: Moment::begin(&reader.unfinished, reader.connection.is_autocommit()),
            budget: PageBudget::new(&query.selection),
            last_key: None,
            now,
            sink,
        }
    }

    /// Whether a row is deleted, though it is still there.
    fn hides(&self, query: &GetQuery<'_>, row: &Row<'_>) -> Result<bool, StoreError> {
        self.moment
            .hides(query.namespace, query.id.as_bytes(), blob(row, 0)?, row)
    }

    /// Whether a row that was not chosen for it holds an item that can be seen.
    fn is_visible(&self, row: &Row<'_>) -> Result<bool, StoreError> {
        let expires_at = row
            .get::<_, Option<i64>>(1)?
            .map(|moment| UnixMillis(moment as u64));
        Ok(row.get::<_, i64>(2)? != TOMBSTONE && !is_expired(expires_at, self.now))
    }

    /// Takes an item that is no row; false when it belongs to the next page. An expired one needs
    /// no room.
    fn offer_item(&mut self, item: &ItemRef<'_>, version: Version) -> Result<bool, StoreError> {
        if is_expired(item.expires_at, self.now) {
            return Ok(true);
        }
        if !self.budget.take(item.key.len(), item.value.len(), None) {
            return Ok(false);
        }
        self.sink.item(item, version);
        self.shown(item.key);
        Ok(true)
    }

    fn shown(&mut self, key: &[u8]) {
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
    }

    /// The token of the next page, unless this one ends the walk.
    fn end(self, query: &GetQuery<'_>, is_whole: bool) -> Option<PageToken> {
        if is_whole {
            return None;
        }
        let last_key = self.last_key.unwrap_or_default();
        Some(token::seal(token::fingerprint_of_get(query), &[&last_key]))
    }

    /// Takes a row; false when it belongs to the next page.
    fn offer(&mut self, row: &Row<'_>) -> Result<bool, StoreError> {
        let key = blob(row, 0)?;
        if !self.budget.take(key.len(), value_bytes(row)?, None) {
            return Ok(false);
        }
        self.reader.show(row, key, self.sink)?;
        self.shown(key);
        Ok(true)
    }
}

/// The key after which the query continues.
fn position_of<'q>(query: &GetQuery<'q>) -> Result<Option<&'q [u8]>, StoreError> {
    if query.selection.page_token.is_empty() {
        return Ok(None);
    }
    token::open(token::fingerprint_of_get(query), query.selection.page_token)
}

/// The whole length of a row's value.
fn value_bytes(row: &Row<'_>) -> Result<usize, StoreError> {
    match row.get::<_, Option<i64>>(5)? {
        Some(bytes) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX / 2)),
        None => Ok(blob(row, 3)?.len()),
    }
}

fn replace(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
}

const GET_KEY: &str = "SELECT key, expires_at, kind, value, rest, bytes, version FROM item
    WHERE namespace = ?1 AND id = ?2 AND key = ?3 AND kind >= 0 AND (expires_at IS NULL OR expires_at > ?4)";
const GET_FROM: &str = "SELECT key, expires_at, kind, value, rest, bytes, version FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND kind >= 0 AND (+expires_at IS NULL OR +expires_at > ?4)
    ORDER BY key";
const GET_BETWEEN: &str = "SELECT key, expires_at, kind, value, rest, bytes, version FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND key < ?5
    AND kind >= 0 AND (+expires_at IS NULL OR +expires_at > ?4) ORDER BY key";
const KEY_OVER: &str = "SELECT key, expires_at, kind, value, rest, bytes, version FROM item
    WHERE namespace = ?1 AND id = ?2 AND key = ?3";
const FROM_OVER: &str = "SELECT key, expires_at, kind, value, rest, bytes, version FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 ORDER BY key";
const BETWEEN_OVER: &str = "SELECT key, expires_at, kind, value, rest, bytes, version FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND key < ?4 ORDER BY key";
const SCAN: &str = "SELECT key, expires_at, kind, value, rest, bytes, version, id FROM item
    WHERE namespace = ?1 AND (id, key) >= (?2, ?3)
    AND kind >= 0 AND (+expires_at IS NULL OR +expires_at > ?4) ORDER BY id, key";
