//! walrus: `SyncEach`. One topic for each appender, because appends to one topic wait for each
//! other.
//!
//! It takes its folder from the environment variable `WALRUS_DATA_DIR`, which the process is
//! started with.

use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency};

use super::{Failure, Log};

pub(crate) struct Walrus {
    log: walrus_rust::Walrus,
    topics: Vec<String>,
}

impl Walrus {
    pub(crate) fn open(_: &Path) -> Result<Self, Failure> {
        let consistency = ReadConsistency::StrictlyAtOnce;
        Ok(Self {
            log: walrus_rust::Walrus::with_consistency_and_schedule(consistency, FsyncSchedule::SyncEach)?,
            topics: (0..1024).map(|topic| format!("topic-{topic}")).collect(),
        })
    }
}

impl Log for Walrus {
    fn append(&self, appender: usize, record: &[u8]) -> Result<(), Failure> {
        let topic = self.topics.get(appender).ok_or("more appenders than topics")?;
        Ok(self.log.append_for_topic(topic, record)?)
    }
}
