//! Compare-and-swap within the batch's transaction, and the answers that are remembered for
//! repeats.

use rusqlite::params;

use super::change::Change;
use super::swap_table;
use super::values::{self, Chunks};
use crate::error::StoreError;
use crate::ids::UnixMillis;
use crate::mutation::{Expected, Found, ItemRef, Mutation, Outcome, OwnedItem, is_expired};
use crate::sqlite::file::schema::{TOMBSTONE, blob, version_bytes, version_of};
use crate::swaps::{SwapCall, SwapKey, Verdict, is_left_by, shown};
use crate::version::Version;

/// Content of a row of `item`, tombstones included.
struct Stored {
    version: Version,
    /// `None` for a tombstone, for an item that had expired when the call was taken, and for one
    /// that a delete of a range has yet to remove.
    visible: Option<OwnedItem>,
}

impl Stored {
    /// The item, if it can be seen.
    fn into_found(self) -> Option<Found> {
        Some(Found::new(self.visible?, self.version))
    }
}

impl Change<'_, '_, '_> {
    /// The answer that is remembered of a swap.
    pub(super) fn recall_swap(&mut self, key: &[u8]) -> Result<Outcome, StoreError> {
        let Mutation {
            namespace, version, ..
        } = *self.mutation;
        let name = SwapKey { namespace, version };
        let call = SwapCall::new(self.mutation, key);
        let deleted = self.deleted_over(key)?;
        let current = self.find(key, deleted)?.and_then(Stored::into_found);
        let remembered = self.remembered(&name, call, key, current.as_ref())?;
        Ok(remembered.unwrap_or_else(|| {
            Outcome::Refused(StoreError::Io {
                detail: "the answer to this swap is no longer remembered".to_owned(),
            })
        }))
    }

    /// The answer to a repeat, while the item is `current`.
    fn remembered(
        &self,
        name: &SwapKey,
        call: SwapCall,
        key: &[u8],
        current: Option<&Found>,
    ) -> Result<Option<Outcome>, StoreError> {
        let answer = swap_table::recall(self.connection, name, call, key)?;
        Ok(answer.map(|answer| match answer {
            Ok(Verdict::Swapped) => Outcome::Swapped(None),
            Ok(Verdict::NotSwapped(item)) => Outcome::NotSwapped(item.map(|item| shown(item, current))),
            Ok(Verdict::NotSwappedLarge) => Outcome::NotSwapped(current.cloned()),
            Err(refusal) => Outcome::Refused(refusal),
        }))
    }

    /// Replaces one item if it is as expected.
    pub(super) fn swap(
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
        let deleted = self.deleted_over(key)?;
        let found = self.find(key, deleted)?;
        let stored = found.as_ref().map(|found| found.version);
        let current = found.and_then(Stored::into_found);
        let item = current.as_ref().map(|found| found.item.as_ref());
        if let Some(outcome) = self.remembered(&name, call, key, current.as_ref())? {
            return Ok(outcome);
        }
        let floor = stored.max(deleted);
        if floor == Some(version) {
            // Forgotten, but its mark is still there: this very swap was the item's last write,
            // unless it looks otherwise.
            return Ok(match is_left_by(item.as_ref(), replacement) {
                true => Outcome::Swapped(None),
                false => Outcome::Refused(StoreError::TokenReused),
            });
        }
        if !expected.holds(item.as_ref().zip(stored)) {
            self.remember(&name, call, &Verdict::refusal(item))?;
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

    fn find(&self, key: &[u8], deleted: Option<Version>) -> Result<Option<Stored>, StoreError> {
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
        if kind == TOMBSTONE || is_expired(expires_at, at) || deleted.is_some_and(|deleted| version < deleted)
        {
            return Ok(Some(Stored {
                version,
                visible: None,
            }));
        }
        let mut value = blob(row, 3)?.to_vec();
        if let Some(chunks) = Chunks::of(row.get(4)?, row.get(5)?) {
            value = values::with_whole(self.connection, chunks, &mut value, <[u8]>::to_vec)?;
        }
        let item = OwnedItem {
            key: key.to_vec(),
            value,
            expires_at,
            compression: kind as u8,
        };
        Ok(Some(Stored {
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

const FIND: &str = "SELECT version, expires_at, kind, value, rest, bytes FROM item
    WHERE namespace = ?1 AND id = ?2 AND key = ?3";
