//! raft-engine: key-value batches with `sync=true`, one group of its for each appender.

use std::path::Path;

use raft_engine::env::DefaultFileSystem;
use raft_engine::{Config, Engine, LogBatch, ReadableSize};

use super::{Failure, Log};

pub(crate) struct Raft(Engine<DefaultFileSystem>);

impl Raft {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let config = Config {
            dir: path.to_str().ok_or("a path that is no text")?.to_owned(),
            target_file_size: ReadableSize::mb(64),
            purge_threshold: ReadableSize::mb(256),
            batch_compression_threshold: ReadableSize::kb(0),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize::mb(512)),
            ..Config::default()
        };
        Ok(Self(Engine::open(config)?))
    }
}

impl Log for Raft {
    fn append(&self, appender: usize, record: &[u8]) -> Result<(), Failure> {
        let mut batch = LogBatch::with_capacity(1);
        batch.put(appender as u64 + 1, b"record".to_vec(), record.to_vec())?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }

    fn tidy(&self) -> Result<(), Failure> {
        self.0.purge_expired_files()?;
        Ok(())
    }
}
