//! The table of recent answers to compare-and-swap: a ring, in which the oldest answer gives way.

use rusqlite::{Connection, Row, params};

use crate::error::StoreError;
use crate::ids::UnixMillis;
use crate::limits::SWAPS_REMEMBERED_MAX;
use crate::mutation::OwnedItem;
use crate::sqlite::file::schema::version_bytes;
use crate::swaps::{Kinship, SwapCall, SwapKey, Verdict};

/// The answer that a repeat of a call gets; an error for another call under its token.
pub(in crate::sqlite) fn recall(
    connection: &Connection,
    name: &SwapKey,
    call: SwapCall,
    key: &[u8],
) -> Result<Option<Result<Verdict, StoreError>>, StoreError> {
    let mut statement = connection.prepare_cached(RECALL)?;
    let mut rows = statement.query(params![name.namespace.0, version_bytes(name.version)])?;
    while let Some(row) = rows.next()? {
        let remembered = SwapCall {
            subject: row.get::<_, i64>(0)? as u64,
            digest: row.get::<_, Option<i64>>(1)?.map(|digest| digest as u64),
        };
        match call.kinship(remembered) {
            Kinship::Stranger => {}
            Kinship::Reuse => return Ok(Some(Err(StoreError::TokenReused))),
            Kinship::Repeat => return Ok(Some(Ok(verdict_of(row, key)?))),
        }
    }
    Ok(None)
}

/// Notes the answer to the call with this number; numbers grow by one.
pub(in crate::sqlite) fn remember(
    connection: &Connection,
    sequence: i64,
    name: &SwapKey,
    call: SwapCall,
    verdict: &Verdict,
) -> Result<(), StoreError> {
    let (number, item) = match verdict {
        Verdict::Swapped => (SWAPPED, None),
        Verdict::NotSwapped(None) => (REFUSED_ABSENT, None),
        Verdict::NotSwapped(Some(item)) => (REFUSED_ITEM, Some(item)),
        Verdict::NotSwappedLarge => (REFUSED_LARGE, None),
    };
    let slot = sequence % SWAPS_REMEMBERED_MAX as i64;
    let mut statement = connection.prepare_cached(REMEMBER)?;
    statement.execute(params![
        slot,
        sequence,
        name.namespace.0,
        version_bytes(name.version),
        call.subject as i64,
        number,
        item.map(|item| &item.value),
        item.and_then(|item| item.expires_at)
            .map(|moment| moment.0.min(i64::MAX as u64) as i64),
        item.map(|item| item.compression),
        call.digest.map(|digest| digest as i64)
    ])?;
    Ok(())
}

/// The answer in a row of [`RECALL`].
fn verdict_of(row: &Row<'_>, key: &[u8]) -> rusqlite::Result<Verdict> {
    Ok(match row.get::<_, i64>(2)? {
        SWAPPED => Verdict::Swapped,
        REFUSED_ABSENT => Verdict::NotSwapped(None),
        REFUSED_LARGE => Verdict::NotSwappedLarge,
        _ => Verdict::NotSwapped(Some(OwnedItem {
            key: key.to_vec(),
            value: row.get(3)?,
            expires_at: row
                .get::<_, Option<i64>>(4)?
                .map(|moment| UnixMillis(moment as u64)),
            compression: row.get(5)?,
        })),
    })
}

const SWAPPED: i64 = 0;
const REFUSED_ABSENT: i64 = 1;
const REFUSED_ITEM: i64 = 2;
const REFUSED_LARGE: i64 = 3;

const RECALL: &str = "SELECT subject, digest, verdict, value, expires_at, compression FROM swap
    WHERE namespace = ?1 AND version = ?2";
const REMEMBER: &str = "INSERT OR REPLACE INTO swap
    (slot, sequence, namespace, version, subject, verdict, value, expires_at, compression, digest)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
