//! Readers of a SQLite store, each with its own read-only connection.

use rusqlite::Connection;

use crate::error::StoreError;
use crate::mutation::UnixMillis;
use crate::query::{GetQuery, ItemSink, PageToken, ScanQuery};

/// Makes readers, on whichever thread wants one.
#[derive(Clone, Debug)]
pub struct ReaderFactory {}

impl ReaderFactory {
    /// Opens one more reader.
    pub fn open(&self) -> Result<Reader, StoreError> {
        Err(StoreError::Unopenable {
            detail: String::new(),
        })
    }
}

/// Reads beside the writer; every call sees one moment's state. `Send`, not `Sync`.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// See [`crate::KeyValueStore::get`].
    pub fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let _ = (now, sink, &self.connection);
        Err(StoreError::UnknownNamespace(query.namespace))
    }

    /// See [`crate::KeyValueStore::scan`].
    pub fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let _ = (now, sink);
        Err(StoreError::UnknownNamespace(query.namespace))
    }
}
