//! Deletes of ranges whose rows are not removed yet. Such a delete has taken place with the
//! transaction that noted it: its rows are hidden from readers and from the writer, as if they were
//! gone, until they are.
//!
//! A reader must hide exactly what its snapshot says. Nearly always that is nothing, and must cost
//! nothing: so the writer counts in [`Unfinished`], and only a reader that finds another value
//! there than none, or another after its snapshot began than before, asks the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, Row, params};

use crate::error::StoreError;
use crate::ids::NamespaceId;
use crate::limits::REMOVALS_MAX;
use crate::mutation::range_contains;
use crate::sqlite::file::schema::{blob, version_bytes, version_of};
use crate::version::Version;

/// One delete of a range that is not finished.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    number: i64,
    pub(super) namespace: NamespaceId,
    pub(super) id: Vec<u8>,
    /// Where the rows begin that may still be there. The file may have an earlier key.
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) version: Version,
}

impl Removal {
    /// Whether it is about a row of this key, were that old enough.
    pub(super) fn is_about(&self, namespace: NamespaceId, id: &[u8], key: &[u8]) -> bool {
        self.namespace == namespace && self.id == id && range_contains(&self.start, &self.end, key)
    }

    fn covers(&self, other: &Removal) -> bool {
        let ends_after = self.end.is_empty() || (!other.end.is_empty() && self.end >= other.end);
        self.namespace == other.namespace
            && self.id == other.id
            && self.start <= other.start
            && ends_after
            && self.version >= other.version
    }
}

/// Those of the writer.
#[derive(Debug)]
pub(super) struct Removals {
    all: Vec<Removal>,
    /// As they were before the running transaction, once that has changed them.
    before: Option<Vec<Removal>>,
    next_number: i64,
    unfinished: Arc<Unfinished>,
}

impl Removals {
    pub(super) fn load(connection: &Connection, unfinished: Arc<Unfinished>) -> Result<Removals, StoreError> {
        let mut statement = connection.prepare(ALL)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(removal_of(row)?);
        }
        unfinished.end_change(all.len());
        Ok(Removals {
            next_number: all.last().map_or(0, |last| last.number) + 1,
            all,
            before: None,
            unfinished,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= REMOVALS_MAX
    }

    /// The newest version of those that are about a key.
    pub(super) fn newest_over(&self, namespace: NamespaceId, id: &[u8], key: &[u8]) -> Option<Version> {
        let about = self.all.iter().filter(|one| one.is_about(namespace, id, key));
        about.map(|one| one.version).max()
    }

    /// Notes one more in a running transaction, which the caller ends with [`Removals::settle`].
    pub(super) fn add(&mut self, connection: &Connection, removal: NewRemoval<'_>) -> Result<(), StoreError> {
        let removal = Removal {
            number: self.next_number,
            namespace: removal.namespace,
            id: removal.id.to_vec(),
            start: removal.start,
            end: removal.end.to_vec(),
            version: removal.version,
        };
        if self.all.iter().any(|one| one.covers(&removal)) {
            return Ok(());
        }
        self.change();
        let mut forget = connection.prepare_cached(FORGET)?;
        for covered in self.all.extract_if(.., |one| removal.covers(one)) {
            forget.execute([covered.number])?;
        }
        self.next_number += 1;
        connection.prepare_cached(NOTE)?.execute(params![
            removal.number,
            removal.namespace.0,
            removal.id,
            removal.start,
            removal.end,
            version_bytes(removal.version)
        ])?;
        self.all.push(removal);
        Ok(())
    }

    pub(super) fn first(&self) -> Option<&Removal> {
        self.all.first()
    }

    /// The rows of the first before this key are removed. The file need not know: they are not
    /// found again.
    pub(super) fn go_on_from(&mut self, key: Vec<u8>) {
        self.change();
        self.all[0].start = key;
    }

    /// All rows of the first are removed.
    pub(super) fn finish_first(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.change();
        let finished = self.all.remove(0);
        connection.prepare_cached(FORGET)?.execute([finished.number])?;
        Ok(())
    }

    /// Forgets those of a namespace that is gone.
    pub(super) fn forget_namespace(
        &mut self,
        connection: &Connection,
        namespace: NamespaceId,
    ) -> Result<(), StoreError> {
        self.change();
        self.all.retain(|one| one.namespace != namespace);
        connection
            .prepare_cached("DELETE FROM removal WHERE namespace = ?1")?
            .execute([namespace.0])?;
        Ok(())
    }

    fn change(&mut self) {
        if self.before.is_none() {
            self.before = Some(self.all.clone());
            self.unfinished.begin_change();
        }
    }

    /// After a transaction: nothing has changed if it was not committed.
    pub(super) fn settle(&mut self, committed: bool) {
        if let Some(before) = self.before.take() {
            if !committed {
                self.all = before;
            }
            self.unfinished.end_change(self.all.len());
        }
    }
}

/// A delete to be noted.
pub(super) struct NewRemoval<'a> {
    pub(super) namespace: NamespaceId,
    pub(super) id: &'a [u8],
    pub(super) start: Vec<u8>,
    pub(super) end: &'a [u8],
    pub(super) version: Version,
}

/// The unfinished deletes of a namespace, or of one id, as the connection's snapshot has them.
pub(super) fn unfinished(
    connection: &Connection,
    namespace: NamespaceId,
    id: Option<&[u8]>,
) -> Result<Vec<Removal>, StoreError> {
    let mut statement = connection.prepare_cached(match id {
        Some(_) => OF_ID,
        None => OF_NAMESPACE,
    })?;
    let mut rows = match id {
        Some(id) => statement.query(params![namespace.0, id])?,
        None => statement.query([namespace.0])?,
    };
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(removal_of(row)?);
    }
    Ok(found)
}

fn removal_of(row: &Row<'_>) -> Result<Removal, StoreError> {
    Ok(Removal {
        number: row.get(0)?,
        namespace: NamespaceId(row.get(1)?),
        id: blob(row, 2)?.to_vec(),
        start: blob(row, 3)?.to_vec(),
        end: blob(row, 4)?.to_vec(),
        version: version_of(blob(row, 5)?)?,
    })
}

/// How many deletes are unfinished, for readers: written by the writer, around each commit that
/// changes it.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Unfinished {
    /// The upper half counts changes, the lower half is the number, or [`CHANGING`].
    word: AtomicU64,
}

/// A value of [`Unfinished`] that means none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen(u64);

impl Unfinished {
    /// Something to compare with later, if there are none.
    pub(super) fn none(&self) -> Option<Seen> {
        let word = self.word.load(Ordering::SeqCst);
        (word & COUNT == 0).then_some(Seen(word))
    }

    /// Whether there were none at any moment since.
    pub(super) fn is_still(&self, Seen(word): Seen) -> bool {
        self.word.load(Ordering::SeqCst) == word
    }

    /// Before the commit.
    fn begin_change(&self) {
        let word = self.word.load(Ordering::SeqCst);
        self.word.store(
            (word & !COUNT).wrapping_add(ONE_CHANGE) | CHANGING,
            Ordering::SeqCst,
        );
    }

    /// After the commit.
    fn end_change(&self, count: usize) {
        let word = self.word.load(Ordering::SeqCst);
        self.word.store(word & !COUNT | count as u64, Ordering::SeqCst);
    }
}

const COUNT: u64 = u32::MAX as u64;
const CHANGING: u64 = COUNT;
const ONE_CHANGE: u64 = 1 << 32;
const _: () = assert!((REMOVALS_MAX as u64) < CHANGING);

const ALL: &str = "SELECT number, namespace, id, start, \"end\", version FROM removal ORDER BY number";
const OF_NAMESPACE: &str = "SELECT number, namespace, id, start, \"end\", version FROM removal
    WHERE namespace = ?1";
const OF_ID: &str = "SELECT number, namespace, id, start, \"end\", version FROM removal
    WHERE namespace = ?1 AND id = ?2";
const NOTE: &str = "INSERT INTO removal (number, namespace, id, start, \"end\", version)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const FORGET: &str = "DELETE FROM removal WHERE number = ?1";
