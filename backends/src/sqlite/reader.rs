//! Readers of a SQLite store, each with its own read-only connection. A query sees one moment's state, whatever the
//! writer does meanwhile, and neither waits for the other.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Row, params};
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::schema::{self, FileLock};
use super::writer::{NamespaceState, append_chunks, blob, check_namespace, load_namespaces};
use super::{Options, Shared};
use crate::error::StoreError;
use crate::limits::CHUNK_BYTES;
use crate::mutation::{ItemRef, NamespaceId, PredicateRef, UnixMillis};
use crate::query::{GetQuery, ItemSink, PageBudget, PageToken, ScanQuery};
use crate::token;

/// Makes readers, on whichever thread wants one.
#[derive(Clone, Debug)]
pub struct ReaderFactory {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    pub(super) shared: Arc<Shared>,
    pub(super) lock: Arc<FileLock>,
}

impl ReaderFactory {
    /// Opens one more reader. Costs about 1 ms and [`Options::reader_cache_bytes`] once it has read that much.
    pub fn open(&self) -> Result<Reader, StoreError> {
        let connection = schema::open_reader(&self.path, &self.options)?;
        // One behind, so that the first query loads the namespaces.
        let epoch = self
            .shared
            .namespace_epoch
            .load(Ordering::Acquire)
            .wrapping_sub(1);
        Ok(Reader {
            connection,
            shared: self.shared.clone(),
            namespaces: RefCell::default(),
            namespace_epoch: Cell::new(epoch),
            large: RefCell::default(),
            _lock: self.lock.clone(),
        })
    }
}

/// Reads beside the writer; every call sees one moment's state. `Send`, not `Sync`.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    shared: Arc<Shared>,
    namespaces: RefCell<HashMap<NamespaceId, NamespaceState, FxBuildHasher>>,
    namespace_epoch: Cell<u64>,
    /// Where a chunked value is put together.
    large: RefCell<Vec<u8>>,
    _lock: Arc<FileLock>,
}

impl Reader {
    /// See [`crate::KeyValueStore::get`].
    pub fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        query.check()?;
        self.check_namespace(query.namespace)?;
        let mut after = None;
        if !query.selection.page_token.is_empty() {
            after = token::open(token::fingerprint_of_get(query), query.selection.page_token)?;
        }
        let mut page = Page {
            reader: self,
            budget: PageBudget::new(&query.selection),
            last_key: None,
            now,
            sink,
        };
        let is_whole = match &query.predicate {
            PredicateRef::Keys([key]) if after.is_none() => self.offer_key(query, key, &mut page)?,
            PredicateRef::Keys(keys) => self.in_one_snapshot(|| {
                let mut keys: SmallVec<[&[u8]; 16]> = SmallVec::from_slice(keys);
                keys.sort_unstable();
                keys.dedup();
                for key in keys
                    .into_iter()
                    .filter(|key| after.is_none_or(|after| *key > after))
                {
                    if !self.offer_key(query, key, &mut page)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?,
            PredicateRef::All => self.offer_range(query, (b"", b""), after, &mut page)?,
            PredicateRef::Range { start, end } => self.offer_range(query, (start, end), after, &mut page)?,
        };
        if is_whole {
            return Ok(None);
        }
        let last_key = page.last_key.unwrap_or_default();
        Ok(Some(token::seal(token::fingerprint_of_get(query), &[&last_key])))
    }

    /// See [`crate::KeyValueStore::scan`]. Ids come in the order of their bytes.
    pub fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        self.check_namespace(query.namespace)?;
        let fingerprint = token::fingerprint_of_scan(query, SCAN_INSTANCE);
        let (mut id, mut key): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        if let Some(position) = token::open(fingerprint, query.selection.page_token)? {
            (id, key) = split_position(position).ok_or(StoreError::InvalidPageToken)?;
            // The smallest key behind the one that was shown last.
            key.push(0);
        }
        let mut statement = self.connection.prepare_cached(SCAN)?;
        let mut rows = statement.query(params![
            query.namespace.0,
            id,
            key,
            now.0.min(i64::MAX as u64) as i64
        ])?;
        let mut budget = PageBudget::new(&query.selection);
        let mut is_first = true;
        while let Some(row) = rows.next()? {
            let row_id = blob(row, 6)?;
            let row_key = blob(row, 0)?;
            let is_new_id = is_first || row_id != id;
            if !budget.take(
                row_key.len(),
                value_bytes(row)?,
                is_new_id.then_some(row_id.len()),
            ) {
                let length = (id.len() as u16).to_le_bytes();
                return Ok(Some(token::seal(fingerprint, &[&length, &id, &key])));
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

    fn check_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        let epoch = self.shared.namespace_epoch.load(Ordering::Acquire);
        if epoch != self.namespace_epoch.get() {
            *self.namespaces.borrow_mut() = load_namespaces(&self.connection)?;
            self.namespace_epoch.set(epoch);
        }
        check_namespace(&self.namespaces.borrow(), namespace)
    }

    /// Runs several queries on one moment's state, which is no older than this call. Saves each of them the taking and
    /// giving back of SQLite's lock, four system calls; for a caller that finds several queries waiting. `work` should
    /// be short: the write-ahead file cannot begin anew meanwhile.
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

    fn offer_key<S: ItemSink>(
        &self,
        query: &GetQuery<'_>,
        key: &[u8],
        page: &mut Page<'_, S>,
    ) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached(GET_KEY)?;
        let now = page.now.0.min(i64::MAX as u64) as i64;
        let mut rows = statement.query(params![query.namespace.0, query.id.as_bytes(), key, now])?;
        match rows.next()? {
            Some(row) => page.offer(row),
            None => Ok(true),
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
                // The smallest key behind `after`.
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
            if !page.offer(row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands one row to the sink, putting a chunked value together first. The row's statement is still running, so
    /// the chunks come from the same moment.
    fn show(&self, row: &Row<'_>, key: &[u8], sink: &mut impl ItemSink) -> Result<(), StoreError> {
        let expires_at = row
            .get::<_, Option<i64>>(1)?
            .map(|moment| UnixMillis(moment as u64));
        let compression = row.get(2)?;
        let value = blob(row, 3)?;
        let Some(place) = row.get::<_, Option<i64>>(4)? else {
            sink.item(&ItemRef {
                key,
                value,
                expires_at,
                compression,
            });
            return Ok(());
        };
        let mut large = self.large.borrow_mut();
        replace(&mut large, value);
        append_chunks(&self.connection, place, row.get(5)?, &mut large)?;
        sink.item(&ItemRef {
            key,
            value: &large,
            expires_at,
            compression,
        });
        // A reader that once met a large value does not keep its room for ever.
        large.clear();
        large.shrink_to(CHUNK_BYTES);
        Ok(())
    }
}

/// A page of a `get` in the making.
struct Page<'r, S> {
    reader: &'r Reader,
    budget: PageBudget,
    last_key: Option<SmallVec<[u8; 32]>>,
    now: UnixMillis,
    sink: &'r mut S,
}

impl<S: ItemSink> Page<'_, S> {
    /// Takes a row; false when it belongs to the next page.
    fn offer(&mut self, row: &Row<'_>) -> Result<bool, StoreError> {
        let key = blob(row, 0)?;
        if !self.budget.take(key.len(), value_bytes(row)?, None) {
            return Ok(false);
        }
        self.reader.show(row, key, self.sink)?;
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        Ok(true)
    }
}

/// The whole length of a row's value.
fn value_bytes(row: &Row<'_>) -> Result<usize, StoreError> {
    match row.get::<_, Option<i64>>(5)? {
        Some(bytes) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX / 2)),
        None => Ok(blob(row, 3)?.len()),
    }
}

fn split_position(position: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (length, rest) = position.split_first_chunk::<2>()?;
    let (id, key) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((id.to_vec(), key.to_vec()))
}

fn replace(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
}

/// A position in a file means the same to every process that opens it.
const SCAN_INSTANCE: u64 = 0x5052_534d_0000_0001;

const GET_KEY: &str = "SELECT key, expires_at, kind, value, rest, bytes FROM item
    WHERE namespace = ?1 AND id = ?2 AND key = ?3 AND kind >= 0 AND (expires_at IS NULL OR expires_at > ?4)";
const GET_FROM: &str = "SELECT key, expires_at, kind, value, rest, bytes FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND kind >= 0 AND (+expires_at IS NULL OR +expires_at > ?4)
    ORDER BY key";
const GET_BETWEEN: &str = "SELECT key, expires_at, kind, value, rest, bytes FROM item
    WHERE namespace = ?1 AND id = ?2 AND key >= ?3 AND key < ?5
    AND kind >= 0 AND (+expires_at IS NULL OR +expires_at > ?4) ORDER BY key";
const SCAN: &str = "SELECT key, expires_at, kind, value, rest, bytes, id FROM item
    WHERE namespace = ?1 AND (id, key) >= (?2, ?3)
    AND kind >= 0 AND (+expires_at IS NULL OR +expires_at > ?4) ORDER BY id, key";
