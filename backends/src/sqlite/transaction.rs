//! A transaction of the writer, and what is looked at around it: the gate, the frames that it appends, the room on the disk.

use rusqlite::Connection;

use super::{Shared, system_calls};
use crate::error::StoreError;

/// Runs `work` in a transaction of its own; rolls back if it fails.
pub(super) fn in_transaction<T>(
    connection: &Connection,
    shared: &Shared,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let _alone = shared.gate.pass();
    let result = system_calls::gathered(|| {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let result = work().and_then(|value| {
            connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(value)
        });
        if result.is_err() && !connection.is_autocommit() {
            // If this fails too the first error still tells the story; SQLite rolls back when next it can.
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
