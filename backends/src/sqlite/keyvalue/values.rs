//! Where a value lies: in the row of its item if it is small, else in chunks by a place of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, params};

use super::steps::Budget;
use crate::error::StoreError;
use crate::limits::{CHUNK_BYTES, VALUE_BYTES_MAX};
use crate::sqlite::file::schema::{PAGE_SIZE, blob};

/// Places reserved for one value: 16 MiB in chunks of 1 MiB.
pub(super) const PLACES_PER_VALUE: i64 = 16;

/// Largest row that lies whole in a page of the tree of items. SQLite leaves room for four of them:
/// <https://www.sqlite.org/fileformat2.html#b_tree_pages>, "maximum embedded payload fraction".
const ROW_BYTES_MAX: usize = (PAGE_SIZE as usize - 12) * 64 / 255 - 23;

/// Most bytes that a row takes in addition to id, key and value: a header of 14 bytes, the
/// namespace, the version, the digest, and the largest integers that the other columns hold.
const ROW_OVERHEAD: usize = 80;

/// Values up to this lie in their row even if its id and key alone do not fit the page.
const TINY_BYTES: usize = 32;

/// Whether a value lies in the row of its item.
pub(super) fn fits_row(id: &[u8], key: &[u8], value_bytes: usize) -> bool {
    value_bytes <= TINY_BYTES || id.len() + key.len() + value_bytes + ROW_OVERHEAD <= ROW_BYTES_MAX
}

/// The chunks of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub(super) place: i64,
    /// Length of the whole value.
    pub(super) bytes: i64,
}

impl Chunks {
    /// Reads the columns `rest` and `bytes` of a row.
    pub(super) fn of(place: Option<i64>, bytes: Option<i64>) -> Option<Chunks> {
        place.map(|place| Chunks {
            place,
            bytes: bytes.unwrap_or_default(),
        })
    }

    /// Whether a value can be replaced where it lies by one of `bytes`: both are one chunk.
    fn can_take(self, bytes: i64) -> bool {
        self.bytes.max(bytes) <= CHUNK_BYTES as i64
    }
}

/// The chunks of the value that a statement has just replaced, as SQLite noticed it on its way. So
/// a put need not search for them before, and one that replaces none does nothing for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced(Arc<Noticed>);

#[derive(Debug, Default)]
struct Noticed {
    place: AtomicI64,
    bytes: AtomicI64,
}

impl Replaced {
    /// Gives the connection the function `place_after(old place, old bytes, new place, new bytes)`.
    /// Its value is the place for the new value: the old one where that can take it.
    pub(super) fn add_function(&self, connection: &Connection) -> rusqlite::Result<()> {
        let noticed = self.0.clone();
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        connection.create_scalar_function("place_after", 4, flags, move |context| {
            let old = Chunks {
                place: context.get(0)?,
                bytes: context.get::<Option<i64>>(1)?.unwrap_or_default(),
            };
            noticed.place.store(old.place, Ordering::Relaxed);
            noticed.bytes.store(old.bytes, Ordering::Relaxed);
            let new = Chunks::of(context.get(2)?, context.get(3)?);
            Ok(new.map(|new| {
                if old.can_take(new.bytes) {
                    old.place
                } else {
                    new.place
                }
            }))
        })
    }

    /// Before a statement: another may have noticed something, and have failed then.
    pub(super) fn forget(&self) {
        self.0.place.store(0, Ordering::Relaxed);
    }

    /// Takes the chunks that the statement before has replaced.
    pub(super) fn take(&self) -> Option<Chunks> {
        match self.0.place.swap(0, Ordering::Relaxed) {
            0 => None,
            place => Some(Chunks {
                place,
                bytes: self.0.bytes.load(Ordering::Relaxed),
            }),
        }
    }
}

/// Writes the chunks of a value whose row has just been written with `new`, and deletes those that
/// it replaced; whether the place of `new` was used.
pub(super) fn write(
    connection: &Connection,
    budget: &mut Budget,
    new: Option<Chunks>,
    value: &[u8],
    replaced: Option<Chunks>,
) -> Result<bool, StoreError> {
    let in_place = match (new, replaced) {
        (Some(new), Some(old)) if old.can_take(new.bytes) => Some(old.place),
        _ => None,
    };
    if let Some(place) = in_place.or(new.map(|new| new.place)) {
        let mut statement = connection.prepare_cached(PUT_CHUNK)?;
        for (number, chunk) in (0..).zip(value.chunks(CHUNK_BYTES)) {
            statement.execute(params![place + number, chunk])?;
        }
    }
    if let (None, Some(old)) = (in_place, replaced) {
        budget.free(connection, old)?;
    }
    Ok(new.is_some() && in_place.is_none())
}

/// Deletes all chunks from a place on.
pub(super) fn delete(connection: &Connection, place: i64) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(DELETE_CHUNKS)?;
    statement.execute(params![place, place + PLACES_PER_VALUE])?;
    Ok(())
}

/// Hands a value over that lies in chunks; `value` is what its row holds of it, and is lengthened
/// if that is not nothing or there are several.
pub(super) fn with_whole<T>(
    connection: &Connection,
    chunks: Chunks,
    value: &mut Vec<u8>,
    show: impl FnOnce(&[u8]) -> T,
) -> Result<T, StoreError> {
    let bytes = usize::try_from(chunks.bytes)
        .ok()
        .filter(|bytes| *bytes <= VALUE_BYTES_MAX)
        .ok_or_else(|| damaged(chunks, "has no length"))?;
    let mut statement = connection.prepare_cached(CHUNKS)?;
    let mut rows = statement.query(params![chunks.place, chunks.place + PLACES_PER_VALUE])?;
    while let Some(row) = rows.next()? {
        let chunk = blob(row, 0)?;
        if value.is_empty() && chunk.len() == bytes {
            return Ok(show(chunk));
        }
        value.reserve_exact(bytes.saturating_sub(value.len()));
        value.extend_from_slice(chunk);
    }
    if value.len() != bytes {
        return Err(damaged(chunks, &format!("has {} bytes", value.len())));
    }
    Ok(show(value))
}

#[cold]
fn damaged(Chunks { place, bytes }: Chunks, what: &str) -> StoreError {
    StoreError::Corrupt {
        detail: format!("the value of {bytes} bytes at place {place} {what}"),
    }
}

const PUT_CHUNK: &str = "INSERT OR REPLACE INTO chunk (place, data) VALUES (?1, ?2)";
const DELETE_CHUNKS: &str = "DELETE FROM chunk WHERE place >= ?1 AND place < ?2";
const CHUNKS: &str = "SELECT data FROM chunk WHERE place >= ?1 AND place < ?2 ORDER BY place";
