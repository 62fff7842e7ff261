//! The contestants, all of one trait: an append returns when the record is durable.

use std::error::Error;
use std::path::Path;

use crate::machine::{package_version, revision};

mod grouped;
mod okay;
mod ours;
mod raft;
mod rocks;
mod sqlite;
mod textbook;
mod walrus;

/// Whatever a contestant reports; a run ends with it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A log that many threads append to.
pub(crate) trait Log: Send + Sync {
    /// Appends a record and returns when it is durable. `appender` numbers the calling thread
    /// from 0.
    fn append(&self, appender: usize, record: &[u8]) -> Result<(), Failure>;

    /// Called between bursts, outside of what is measured: for upkeep that the log leaves to its
    /// user.
    fn tidy(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A contestant.
pub(crate) struct Contestant {
    /// Name on the command line and in the tables.
    pub(crate) name: &'static str,
    /// How it is set up, in a few words.
    pub(crate) setup: &'static str,
    /// The version that is measured; the log is open in that directory.
    pub(crate) version: fn(&Path) -> String,
    /// Opens it in an empty directory.
    pub(crate) open: fn(&Path) -> Result<Box<dyn Log>, Failure>,
}

/// All contestants, ours first.
pub(crate) const CONTESTANTS: &[Contestant] = &[
    Contestant {
        name: "prism",
        setup: "encrypted, recycled segments of 64 MiB; two committing threads, and an appender that is alone writes itself",
        version: |_| revision(),
        open: |path| Ok(Box::new(ours::Ours::open(path)?)),
    },
    Contestant {
        name: "rocksdb",
        setup: "a Put with sync=true; recycled logs of 64 MiB, pipelined writes",
        version: rocks::version,
        open: |path| Ok(Box::new(rocks::Rocks::open(path)?)),
    },
    Contestant {
        name: "raft-engine",
        setup: "write with sync=true; recycled files of 64 MiB, filled beforehand, no compression",
        version: |_| package_version("raft-engine"),
        open: |path| Ok(Box::new(raft::Raft::open(path)?)),
    },
    Contestant {
        name: "okaywal",
        setup: "commit; files of 64 MiB, allocated beforehand",
        version: |_| package_version("okaywal"),
        open: |path| Ok(Box::new(okay::Okay::open(path)?)),
    },
    Contestant {
        name: "walrus",
        setup: "SyncEach, one topic for each appender",
        version: |_| package_version("walrus-rust"),
        open: |path| Ok(Box::new(walrus::Walrus::open(path)?)),
    },
    Contestant {
        name: "sqlite",
        setup: "WAL, synchronous=FULL; a transaction for each record",
        version: |_| rusqlite::version().to_owned(),
        open: |path| Ok(Box::new(sqlite::open_each(path)?)),
    },
    Contestant {
        name: "sqlite-grouped",
        setup: "the same, a transaction for all records that wait",
        version: |_| rusqlite::version().to_owned(),
        open: |path| Ok(Box::new(sqlite::open_grouped(path)?)),
    },
    Contestant {
        name: "textbook",
        setup: "a growing file; write and fdatasync for all records that wait",
        version: |_| String::new(),
        open: |path| Ok(Box::new(textbook::open(path)?)),
    },
];
