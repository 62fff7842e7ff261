//! One mutation within the batch's transaction: puts, and deletes of keys and of ranges.
//!
//! A put is one statement, an upsert that replaces an older row only. Every reason for refusing a
//! mutation is checked before its first statement, so a refusal changes nothing and the batch
//! continues. An error of SQLite itself rolls the whole batch back.

use rusqlite::{CachedStatement, Connection, params};

use super::removals::NewRemoval;
use super::steps::{self, Doomed};
use super::values::{self, Chunks, PLACES_PER_VALUE, Replaced};
use super::writer::State;
use crate::error::StoreError;
use crate::limits::RANGE_DELETES_PER_ID_MAX;
use crate::mutation::{ItemRef, Mutation, Operation, Outcome, PredicateRef};
use crate::sqlite::Options;
use crate::sqlite::file::schema::{TOMBSTONE, VersionBytes, blob, version_bytes, version_of};
use crate::version::Version;

/// One mutation within the batch's transaction.
pub(super) struct Change<'w, 'c, 'm> {
    pub(super) connection: &'c Connection,
    pub(super) options: &'w Options,
    pub(super) state: &'w mut State,
    pub(super) put: &'w mut CachedStatement<'c>,
    pub(super) replaced: &'w Replaced,
    pub(super) mutation: &'w Mutation<'m>,
}

/// A row of `item` to be written, tombstones included.
struct NewRow<'a> {
    version: VersionBytes,
    expires_at: Option<i64>,
    kind: i64,
    value: &'a [u8],
    /// Where the value lies if it does not lie in the row.
    chunks: Option<Chunks>,
}

impl Change<'_, '_, '_> {
    /// An `Err` ends the whole batch; what is only this mutation's fault is an outcome.
    pub(super) fn apply(&mut self) -> Result<Outcome, StoreError> {
        if let Err(error) = self.check() {
            return Ok(Outcome::Refused(error));
        }
        let mutation = self.mutation;
        match &mutation.operation {
            Operation::Put(items) => {
                // From the last to the first: of two with one key the later is then there already,
                // with this very version, and the earlier has no effect.
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

    /// The outcome of a mutation that was applied before, without applying it again.
    pub(super) fn recall(&mut self) -> Result<Outcome, StoreError> {
        if let Err(error) = self.check() {
            return Ok(Outcome::Refused(error));
        }
        match self.mutation.operation {
            Operation::CompareAndSwap { key, .. } => self.recall_swap(key),
            Operation::Put(_) | Operation::Delete(_) => Ok(Outcome::Applied),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        self.mutation.check()?;
        self.state.check_namespace(self.mutation.namespace)
    }

    /// Whether a delete of a range over the key is as new as the mutation.
    fn is_covered(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self
            .deleted_over(key)?
            .is_some_and(|version| version >= self.mutation.version))
    }

    /// The newest delete of a range over the key that is remembered, or not finished.
    pub(super) fn deleted_over(&self, key: &[u8]) -> Result<Option<Version>, StoreError> {
        let Mutation { namespace, id, .. } = *self.mutation;
        let unfinished = self.state.removals.newest_over(namespace, id.as_bytes(), key);
        Ok(unfinished.max(self.range_delete_over(key)?))
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
    pub(super) fn write(&mut self, item: &ItemRef<'_>, version: VersionBytes) -> Result<(), StoreError> {
        let expires_at = item.expires_at.map(|moment| moment.0.min(i64::MAX as u64) as i64);
        let fits_row = values::fits_row(self.mutation.id.as_bytes(), item.key, item.value.len());
        let chunks = (!fits_row).then(|| Chunks {
            place: self.state.next_value * PLACES_PER_VALUE,
            bytes: item.value.len() as i64,
        });
        let row = NewRow {
            version,
            expires_at,
            kind: i64::from(item.compression),
            value: if fits_row { item.value } else { b"" },
            chunks,
        };
        self.put(item.key, &row, item.value)
    }

    /// Deletes one key unless the row is as new, and remembers that.
    pub(super) fn bury(&mut self, key: &[u8], version: VersionBytes) -> Result<(), StoreError> {
        let forget_at = self.mutation.at.plus(self.options.tombstone_window_ms).0 as i64;
        let tombstone = NewRow {
            version,
            expires_at: Some(forget_at),
            kind: TOMBSTONE,
            value: b"",
            chunks: None,
        };
        self.put(key, &tombstone, b"")
    }

    /// Writes one row, and its value where that lies elsewhere. Nothing is done if there is a row
    /// that is as new.
    fn put(&mut self, key: &[u8], row: &NewRow<'_>, value: &[u8]) -> Result<(), StoreError> {
        let Mutation { namespace, id, .. } = *self.mutation;
        self.replaced.forget();
        let changed = self.put.execute(params![
            namespace.0,
            id.as_bytes(),
            key,
            row.version,
            row.expires_at,
            row.kind,
            row.value,
            row.chunks.map(|chunks| chunks.place),
            row.chunks.map(|chunks| chunks.bytes)
        ])?;
        if changed == 0 {
            return Ok(());
        }
        let replaced = self.replaced.take();
        if row.chunks.is_some() || replaced.is_some() {
            let budget = &mut self.state.budget;
            if values::write(self.connection, budget, row.chunks, value, replaced)? {
                self.state.next_value += 1;
            }
        }
        Ok(())
    }

    /// Deletes what is older in a range. The rows for which the transaction has no time are noted,
    /// and hidden from then on.
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
        let id = id.as_bytes();
        let doomed = Doomed {
            namespace,
            id,
            start,
            end,
            version: version_bytes(version),
        };
        if self.state.removals.is_full() {
            // Too many to add another: this one is finished at once.
            self.state.budget.begin(usize::MAX);
        }
        if let Some(start) = steps::remove_rows(self.connection, &mut self.state.budget, &doomed)? {
            let removal = NewRemoval {
                namespace,
                id,
                start,
                end,
                version,
            };
            self.state.removals.add(self.connection, removal)?;
        }
        self.remember_range_delete(start, end, doomed.version)?;
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
}

pub(super) const PUT: &str = "INSERT INTO item (namespace, id, key, version, expires_at, kind, value, rest, bytes)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (namespace, id, key) DO UPDATE SET version = excluded.version, expires_at = excluded.expires_at,
        kind = excluded.kind, value = excluded.value, bytes = excluded.bytes, digest = excluded.digest,
        rest = CASE WHEN item.rest IS NULL THEN excluded.rest
            ELSE place_after(item.rest, item.bytes, excluded.rest, excluded.bytes) END
    WHERE excluded.version > item.version";
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
