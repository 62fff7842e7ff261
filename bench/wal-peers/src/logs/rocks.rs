//! RocksDB: what a Put with `sync=true` costs, which is its log's cost and a little for the
//! memtable.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{DB, DBRecoveryMode, Options, WriteOptions};

use super::{Failure, Log};

const LOG_BYTES: usize = 64 << 20;

pub(crate) struct Rocks {
    db: DB,
    next: AtomicU64,
}

impl Rocks {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(LOG_BYTES);
        options.set_max_write_buffer_number(4);
        options.set_recycle_log_file_num(4);
        // In the default mode RocksDB takes the line above back without a word, and its logs grow.
        options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
        options.set_enable_pipelined_write(true);
        // Its log is in question, not its tables.
        options.set_disable_auto_compactions(true);
        options.set_level_zero_slowdown_writes_trigger(1 << 20);
        options.set_level_zero_stop_writes_trigger(1 << 20);
        let db = DB::open(&options, path)?;
        let log = Self {
            db,
            next: AtomicU64::new(0),
        };
        // Fills and releases some logs, so that later ones overwrite them instead of growing.
        let value = vec![0x5a; 1 << 20];
        for _ in 0..3 {
            for _ in 0..LOG_BYTES >> 20 {
                log.db.put(log.key(), &value)?;
            }
            log.db.flush()?;
        }
        Ok(log)
    }

    fn key(&self) -> [u8; 8] {
        self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }
}

/// The version that the linked library writes into its own diagnostics.
pub(crate) fn version(path: &Path) -> String {
    let text = std::fs::read_to_string(path.join("LOG")).unwrap_or_default();
    let found = text.lines().find_map(|line| line.split_once("RocksDB version: "));
    found.map_or("of unknown version".to_owned(), |(_, version)| {
        version.trim().to_owned()
    })
}

impl Log for Rocks {
    fn append(&self, _: usize, record: &[u8]) -> Result<(), Failure> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.put_opt(self.key(), record, &options)?)
    }
}
