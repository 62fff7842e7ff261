//! A transaction of the writer, and what is looked at around it: the gate, the frames that it
//! appends, the room on the disk.

use std::time::Instant;

use rusqlite::Connection;

use super::{Shared, checkpointer, system_calls};
use crate::error::StoreError;

/// Runs `work` in a transaction of its own; rolls back if it fails.
///
/// Errors: as of `work`, of SQLite, and [`StoreError::Full`] when room is short and pages cannot be
/// moved.
pub(in crate::sqlite) fn in_transaction<T>(
    connection: &Connection,
    shared: &Shared,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    bound_wal(connection, shared)?;
    let _alone = shared.gate.pass();
    let result = system_calls::gathered(|| {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let result = work().and_then(|value| {
            connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(value)
        });
        if result.is_err() && !connection.is_autocommit() {
            // If this fails too, the first error is still the cause; SQLite rolls back at its next
            // chance.
            let _ = connection.execute_batch("ROLLBACK");
        }
        result
    });
    let pages = shared.wal_pages.get();
    let was_full = matches!(result, Err(StoreError::Full { .. }));
    shared
        .room
        .after_transaction(pages, was_full, || shared.files.free_bytes());
    result
}

/// Before a transaction: moves pages itself when the write-ahead file must not grow before they are
/// moved.
fn bound_wal(connection: &Connection, shared: &Shared) -> Result<(), StoreError> {
    let must_not_grow = || shared.wal_pages.is_too_many() || shared.room.is_short();
    if !must_not_grow() {
        return Ok(());
    }
    // A checkpointer in the middle of a round is waited for; it may be all that was needed.
    let _turn = shared.take_turn();
    if !must_not_grow() {
        return Ok(());
    }
    if !shared.room.may_try(Instant::now()) {
        let detail = "the disk has no room for the pages that are written already".to_owned();
        return Err(StoreError::Full { detail });
    }
    // With no room for them, this fails, and so does the transaction: it would take what they need.
    // Whatever comes free is theirs first.
    let moved = checkpointer::run(connection, shared, checkpointer::PASSIVE);
    if matches!(moved, Err(StoreError::Full { .. })) {
        shared.room.none_for_pages(Instant::now());
    }
    if moved?.restarted {
        // All is moved: the next commit begins the file anew, unless a reader is in the middle of a
        // query.
        shared.wal_pages.begin_anew();
    }
    Ok(())
}
