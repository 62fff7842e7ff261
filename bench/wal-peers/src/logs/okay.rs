//! OkayWAL: an entry of one chunk, committed.

use std::path::Path;

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use super::{Failure, Log};

pub(crate) struct Okay(WriteAheadLog);

impl Okay {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let configuration = Configuration::default_for(path)
            .preallocate_bytes(64 << 20)
            .checkpoint_after_bytes(60 << 20)
            .buffer_bytes(1 << 20);
        Ok(Self(configuration.open(LogVoid)?))
    }
}

impl Log for Okay {
    fn append(&self, _: usize, record: &[u8]) -> Result<(), Failure> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(record)?;
        entry.commit()?;
        Ok(())
    }
}
