//! The SQLite store: one file, one writer that applies a batch as one transaction, readers next to
//! it with their own connections, and a checkpointer that the caller drives off the writer's path.
//!
//! ```text
//!   waiting mutations ──► Writer ──► -wal file ──► Checkpointer ──► database file
//!                                        └──────► Reader, Reader, …  (one snapshot per query)
//! ```
//!
//! For a caller that keeps mutations in a log of its own before they come here: the writer notes
//! how far a *lane* of records has been applied in the transaction that applies them
//! ([`Writer::apply_at`]) and keeps those that never can be ([`Writer::bury`]); the checkpointer
//! says when that is durable ([`Checkpointer::sync`]); readers answer as if what is still on its
//! way had arrived ([`Reader::get_over`]).

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use crate::api::keyvalue::{Reads, Remembers, Sweep, Upkeep, Writes};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::mutation::{Mutation, Outcome};
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};
use crate::query::{GetQuery, ItemSink, PageToken, ScanQuery};

mod file;
mod keyvalue;
mod pubsub;
mod queue;

pub use file::checkpointer::{Checkpoint, Checkpointer};
pub use file::positions::{DeadLetter, NO_LOG, OwnedDeadLetter};
pub use keyvalue::reader::{Reader, ReaderFactory};
pub use keyvalue::relocation::Relocation;
pub use keyvalue::writer::{Presence, Writer};
pub use pubsub::{Head, PUBSUB, TopicTransaction};
pub use queue::{QUEUE, QueueTransaction};

use file::{Shared, files, schema, system_calls};
use keyvalue::removals::Unfinished;

/// How a SQLite store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a delete is remembered, in milliseconds; see
    /// [`crate::memory::Options::tombstone_window_ms`].
    pub tombstone_window_ms: u64,
    /// How many deletes of ranges are remembered at most; each costs 50 bytes of memory. Deletes of
    /// keys are rows, and bounded by the disk and the window only.
    pub range_deletes_max: usize,
    /// Rows that one batch removes at most by its deletes of ranges and by what it replaces; 4
    /// KiB of a large value count as a row. What is beyond that is hidden with the batch and
    /// removed in steps ([`Writer::step`]), so that no batch holds the writer for long.
    pub remove_at_once_max: usize,
    /// Largest page cache of the writer, in bytes. Filled by work only, and given back by
    /// [`Writer::release_memory`].
    pub writer_cache_bytes: usize,
    /// Largest page cache of each reader, in bytes. A commit of the writer makes it worthless, so
    /// it is small.
    pub reader_cache_bytes: usize,
    /// How much of the file each reader maps into memory instead of reading it, in bytes; 0 maps
    /// nothing. A get costs a third less with it, but a disk that fails while it is read then ends
    /// the process instead of giving an error.
    pub reader_mmap_bytes: u64,
    /// How long to wait for somebody else's lock, in milliseconds.
    pub busy_timeout_ms: u32,
    /// The checkpointer syncs the write-ahead file whenever it has grown by this much, in bytes, so
    /// that the disk gets it in small portions: other writes to the disk wait for the end of a
    /// large one. It also bounds the unlogged writes that a power cut destroys.
    pub sync_bytes: u64,
    /// A checkpoint is due when the write-ahead file has grown by this much, in bytes. Each
    /// checkpoint holds the writer for some milliseconds at its end, so rare ones are better; pages
    /// written several times meanwhile are moved once. From twice this size on a checkpoint holds
    /// the writer for as long as it takes, so that the file begins anew. Costs the room on disk,
    /// and the time to read it at the start that follows a kill.
    pub checkpoint_bytes: u64,
    /// When the write-ahead file has grown to this, in bytes, because the checkpointer is not
    /// driven or too slow, the writer moves its pages itself before the next batch.
    pub wal_bytes_max: u64,
    /// When less than this is free on the disk, in bytes and in addition to the size of the
    /// write-ahead file, a checkpoint is due at once and frees the room of that file; until then,
    /// the writer moves pages before each transaction. More than the largest transaction adds, 4
    /// MiB for a batch of a stream.
    pub room_bytes_min: u64,
    /// Largest database file, in bytes; beyond it writes are refused with [`StoreError::Full`].
    /// `None`: the disk decides.
    pub file_bytes_max: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tombstone_window_ms: 10 * 60 * 1000,
            range_deletes_max: 100_000,
            remove_at_once_max: 512,
            writer_cache_bytes: 128 * 1024 * 1024,
            reader_cache_bytes: 512 * 1024,
            reader_mmap_bytes: 0,
            busy_timeout_ms: 5_000,
            sync_bytes: 4 * 1024 * 1024,
            checkpoint_bytes: 256 * 1024 * 1024,
            wal_bytes_max: 1024 * 1024 * 1024,
            room_bytes_min: 16 * 1024 * 1024,
            file_bytes_max: None,
        }
    }
}

/// The parts of an open store, each for its own thread.
#[derive(Debug)]
pub struct Parts {
    /// The only one that changes data. `Send`, not `Sync`.
    pub writer: Writer,
    /// Makes readers; `Clone + Send + Sync`.
    pub readers: ReaderFactory,
    /// Moves what was written into the database file. `Send`.
    pub checkpointer: Checkpointer,
}

/// Opens the store at `path` (a file; made if absent, its directory must exist).
///
/// Errors: [`StoreError::Unopenable`] (directory missing or not writable),
/// [`StoreError::WrongFormat`] (not a database, not ours, or of a newer program),
/// [`StoreError::Busy`] (another process has it open).
pub fn open(path: &Path, options: Options) -> Result<Parts, StoreError> {
    system_calls::replace_once();
    let lock = Arc::new(schema::FileLock::take(path)?);
    // Before any connection; see there.
    let shared = Arc::new(Shared::new(files::Files::open(path)?, &options));
    let connection = schema::open_writer(path, &options)?;
    let wal_bytes = shared.files.open_wal()?;
    shared.room.at_start(wal_bytes, shared.files.free_bytes());
    let unfinished = Arc::new(Unfinished::default());
    let writer = Writer::new(
        connection,
        options,
        shared.clone(),
        unfinished.clone(),
        lock.clone(),
    )?;
    let connection = schema::open_checkpointer(path, &options)?;
    let checkpointer = Checkpointer::new(connection, shared.clone(), lock.clone())?;
    let readers = ReaderFactory {
        path: path.to_owned(),
        options,
        shared,
        unfinished,
        lock,
    };
    Ok(Parts {
        writer,
        readers,
        checkpointer,
    })
}

/// Promises of SQLite for KeyValue.
pub const KEYVALUE: Offer = Offer {
    api: Api::KeyValue,
    acked: Acked::DurableOnSync,
    replay: Replay::Exact,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::SWAPS)
        .and(Features::SCANS)
        .and(Features::TOMBSTONES),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: true,
};

/// Writer, a reader and the checkpointer on one thread: the whole store as its traits have it.
#[derive(Debug)]
pub struct SqliteStore {
    writer: RefCell<Writer>,
    reader: Reader,
    checkpointer: Checkpointer,
}

impl SqliteStore {
    /// Opens the store; see [`open`].
    pub fn open(path: &Path, options: Options) -> Result<SqliteStore, StoreError> {
        let Parts {
            writer,
            readers,
            checkpointer,
        } = open(path, options)?;
        Ok(SqliteStore {
            writer: RefCell::new(writer),
            reader: readers.open()?,
            checkpointer,
        })
    }

    /// The checkpointer, for a caller that drives it.
    pub fn checkpointer(&mut self) -> &mut Checkpointer {
        &mut self.checkpointer
    }
}

impl Reads for SqliteStore {
    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        self.reader.get(query, now, sink)
    }

    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        self.reader.scan(query, now, sink)
    }
}

impl Writes for SqliteStore {
    async fn apply(
        &self,
        batch: &[Mutation<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        let positions = at.map_or(&[][..], std::slice::from_ref);
        self.writer.borrow_mut().apply_at(batch, positions, outcomes)
    }
}

impl Upkeep for SqliteStore {
    fn offer(&self) -> Offer {
        KEYVALUE
    }

    fn remembers(&self) -> Remembers {
        self.writer.borrow().remembers()
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.writer.borrow_mut().create_namespace(namespace)
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.writer.borrow_mut().drop_namespace(namespace)
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        let mut writer = self.writer.borrow_mut();
        writer.relocate(budget)?;
        let mut done = writer.sweep(now, budget)?;
        done.more |= writer.relocation().is_some();
        Ok(done)
    }
}
