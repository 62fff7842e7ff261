//! Opens the lanes of a gateway: finds and recovers them, and brings the store up to date first.
//!
//! ```text
//! all lanes side by side:     recover
//! one lane after the other:   what the store lacks is applied ─► store durable
//! lanes of this gateway's shards are opened, or made;  lanes of shards that are no more are emptied and removed
//! ```
//!
//! Since the store has everything before the first call comes, a key may move to another lane
//! between two runs (another number of shards) without losing its order. While a store does not
//! take its records, the gateway starts with as many shards as before ([`OpenError::AsBefore`]).
//!
//! A lane that must not start is *held*: its shard refuses calls that need the log, with the
//! reason; the others serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use prism_backends::{LogId, sqlite::NO_LOG};
use prism_wal::{
    cipher::KeyEncryptionKey,
    disk::file::{Durability, FileDisk, durability_of},
    group_commit::{ClosedSegment, Config, GroupCommit},
    ids::{LaneId, Lsn},
    lane::Replay,
    pool::PreparedSegment,
    start::{Refusal, StartConfig, StartError, Started, start},
    tail::Tail,
};

use super::{
    LogEvent, identity,
    keeper::{self, KeeperJobs, Keepers},
    lane_of,
    seen::{Collector, LaneCalls, Seen},
    window::{Claims, First, Window},
};
use crate::{
    config::LogLimits,
    runtime::{
        clock::unix_millis,
        mailbox::Mailbox,
        threads::{self, Kind},
    },
};

/// Records of one transaction while the store is brought up to date.
const BATCH_RECORDS: usize = 512;
/// Interval between reports of progress.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

/// A lane that has begun its new epoch, with records that the store has.
pub(crate) struct OpenLane {
    pub(crate) log: LogId,
    pub(crate) commit: GroupCommit,
    pub(crate) active: PreparedSegment<prism_wal::disk::file::LogFile>,
    pub(crate) closed: Vec<ClosedSegment>,
    /// Empty except for the cursors.
    pub(crate) tail: Tail,
    pub(crate) window: Window<First>,
    pub(crate) claims: Claims,
    pub(crate) keeper: KeeperJobs,
    /// The last record that was found.
    pub(crate) opened_at: Lsn,
    /// Number of times that the lane has been made anew.
    pub(crate) life: u16,
    /// Number of records read, and the time that opening the lane took.
    pub(crate) recovered: (u64, Duration),
}

impl std::fmt::Debug for OpenLane {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OpenLane").finish_non_exhaustive()
    }
}

/// Result for one shard's lane.
pub(crate) enum Opened {
    Lane(Box<OpenLane>),
    /// It must not be used; the reason.
    Held(String),
}

/// Reason why the lanes cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// A store does not take what the log holds for it now, and the keys would have other shards:
    /// the gateway can start with as many shards as there were.
    AsBefore { shards: u16, why: String },
    /// A sentence for the operator: the store, the directory or the start of a thread fails.
    Failed(String),
}

impl From<String> for OpenError {
    fn from(sentence: String) -> Self {
        Self::Failed(sentence)
    }
}

/// The directory of the log, before and after its lanes are open.
pub(crate) struct LogDirectory {
    path: PathBuf,
    /// [`NO_LOG`] until [`LogDirectory::identify`].
    id: LogId,
    limits: LogLimits,
    key: Option<KeyEncryptionKey>,
    shards: u16,
    /// Mailboxes of each shard's log for events.
    events: Vec<Arc<Mailbox<LogEvent>>>,
    /// Started threads, to be joined at the end.
    keepers: Keepers,
    open: bool,
    highest_stamp: i64,
}

impl LogDirectory {
    /// Makes the log of a gateway with this many shards in `DATA_DIR/wal`. Touches nothing yet.
    pub(crate) fn new(
        data_dir: &Path,
        limits: LogLimits,
        key: Option<KeyEncryptionKey>,
        events: Vec<Arc<Mailbox<LogEvent>>>,
        keepers: Keepers,
    ) -> Self {
        let shards = u16::try_from(events.len()).unwrap_or(u16::MAX);
        Self {
            path: data_dir.join("wal"),
            id: NO_LOG,
            limits,
            key,
            shards,
            events,
            keepers,
            open: false,
            highest_stamp: i64::MIN,
        }
    }

    /// Finds the log's identity, or assigns one. A lost directory gets the identity that its store
    /// knows, so that its lanes are missed; positions of a program without identities become this
    /// log's.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn identify(&mut self, store: &mut Store<'_>) -> Result<(), String> {
        let unusable =
            |cause: io::Error| format!("the log in {} cannot be used: {cause}", self.path.display());
        let known = store.logs()?;
        self.id = match identity::read(&self.path).map_err(unusable)? {
            Some(id) => id,
            None => {
                let id = match known.as_slice() {
                    [only] if !self.limits.accept_loss => *only,
                    _ => identity::draw().map_err(unusable)?,
                };
                identity::keep(&self.path, id).map_err(unusable)?;
                id
            }
        };
        store.adopt(self.id)
    }

    /// The log's identity.
    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// Whether there is a log on disk.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn exists(&self) -> Result<bool, String> {
        Ok(!self.lanes()?.is_empty() || !self.retired()?.is_empty())
    }

    /// Whether the lanes have been opened.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The highest stamp of the records found at the opening of the lanes, or [`i64::MIN`].
    pub(crate) fn highest_stamp(&self) -> i64 {
        self.highest_stamp
    }

    /// The reason why `strong` cannot be promised on this file system; `None` if it can.
    pub(crate) fn refusal(&self) -> Option<String> {
        if self.limits.allow_unsafe_filesystem {
            return None;
        }
        let place = self.path.parent().unwrap_or(&self.path);
        let what = match durability_of(place) {
            Ok(Durability::Kept) => return None,
            Ok(Durability::Refused(why)) => why.to_owned(),
            Ok(Durability::Unknown(magic)) => {
                format!(
                    "the file system (type {magic:#x}) is not one whose promises are known: ext4, XFS and F2FS are"
                )
            }
            Err(error) => error.to_string(),
        };
        Some(format!(
            "durability strong cannot be kept in {}: {what}; choose another --data-dir, or accept the risk with \
             wal.allow_unsafe_filesystem",
            place.display()
        ))
    }

    /// Makes the lanes of a log that does not exist yet.
    ///
    /// # Errors
    /// A sentence for the operator: the directory fails, or a thread cannot be started.
    pub(crate) fn create(&mut self) -> Result<Vec<Opened>, String> {
        let seen = Seen::new(self.shards);
        let mut opened = Vec::new();
        for shard in 0..self.shards {
            let lane = self.make(lane_of(shard), &seen)?;
            opened.push(self.hand_over(shard, lane, &seen)?);
        }
        // Only now: after a failure half way the next namespace that needs it tries again.
        self.open = true;
        Ok(opened)
    }

    /// Opens all lanes and brings the store up to date. Returns one result for each shard.
    ///
    /// # Errors
    /// [`OpenError`]. After [`OpenError::AsBefore`] everything is as it was.
    pub(crate) fn open(&mut self, store: &mut Store<'_>) -> Result<Vec<Opened>, OpenError> {
        self.open = true;
        if let Some(why) = self.why_of_another_log(store)? {
            tracing::error!(why, "the log is held");
            return Ok((0..self.shards).map(|_| Opened::Held(why.clone())).collect());
        }
        self.finish_retired(store)?;
        let positions = store.positions(self.id)?;
        // A lane of which the store has records must exist.
        let mut existing: BTreeSet<LaneId> = self.lanes()?.into_iter().collect();
        existing.extend(positions.keys().map(|(lane, _)| *lane));
        let own: BTreeSet<LaneId> = (0..self.shards).map(lane_of).collect();
        let unchanged = existing == own || existing.is_empty();
        let mut seen = Seen::new(self.shards);
        let mut results = BTreeMap::new();
        let existing: Vec<LaneId> = existing.into_iter().collect();
        for (lane, read) in existing.iter().zip(self.read_all(&existing, &positions, &seen)) {
            let recovered = match read? {
                Read::Ready(found, calls) => {
                    seen.add(calls);
                    self.give_to_store(*lane, found, store, unchanged, &positions)?
                }
                Read::Held(why) => Recovered::Held(why),
                Read::Gone => {
                    self.begin_life(*lane).map_err(|error| self.unusable(&error))?;
                    store.forget(self.id, *lane)?;
                    self.make(*lane, &seen)?
                }
            };
            results.insert(*lane, recovered);
        }
        self.highest_stamp = seen.highest_stamp();
        if let (false, Some(why)) = (unchanged, self.why_all_are_held(&results, existing.len())) {
            // No lane is made either: the next start must still see how many there were.
            return Ok((0..self.shards).map(|_| Opened::Held(why.clone())).collect());
        }
        let waits = results.values().find_map(|result| match result {
            Recovered::Waits(why) => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = waits {
            let shards = u16::try_from(existing.len()).unwrap_or(u16::MAX);
            if existing.iter().copied().eq((0..shards).map(lane_of)) {
                return Err(OpenError::AsBefore { shards, why });
            }
            // Not the lanes of any number of shards: an operator must look.
            return Ok((0..self.shards).map(|_| Opened::Held(why.clone())).collect());
        }
        let mut opened = Vec::new();
        for shard in 0..self.shards {
            let recovered = match results.remove(&lane_of(shard)) {
                Some(recovered) => recovered,
                None => self.make(lane_of(shard), &seen)?,
            };
            opened.push(self.hand_over(shard, recovered, &seen)?);
        }
        for (lane, result) in results {
            drop(result);
            self.retire(lane, store)?;
        }
        Ok(opened)
    }

    /// The reason why the store's file and the log's directory do not match; `None` if they may.
    fn why_of_another_log(&self, store: &mut Store<'_>) -> Result<Option<String>, String> {
        let Some(other) = store.logs()?.into_iter().find(|log| *log != self.id) else {
            return Ok(None);
        };
        let why = format!(
            "the store has records of log {:032x}, and {} is log {:032x}: one of them was replaced. Bring the right one back, \
             or go on without the records of that log with wal.on_corruption: continue_and_report",
            other.0,
            self.path.display(),
            self.id.0
        );
        if !self.limits.accept_loss {
            return Ok(Some(why));
        }
        tracing::error!(why, "the log starts all the same, as wal.on_corruption says");
        store.forget_log(other)?;
        self.why_of_another_log(store)
    }

    /// The reason why all lanes are held: with another number of shards a held lane's keys belong
    /// to other lanes, which lack its records.
    fn why_all_are_held(&self, results: &BTreeMap<LaneId, Recovered>, before: usize) -> Option<String> {
        results.iter().find_map(|(lane, result)| match result {
            Recovered::Held(why) => Some(format!(
                "lane {lane} is held, and the shards were {before} when it was written, not {}: start with as many as then, \
                 so that the other lanes can serve. {why}",
                self.shards
            )),
            Recovered::Ready(_) | Recovered::Waits(_) => None,
        })
    }

    /// Makes a lane that does not exist yet.
    fn make(&self, lane: LaneId, seen: &Seen) -> Result<Recovered, String> {
        match self.read(lane, false, &Positions::new(), seen.lane(lane))? {
            Read::Ready(lane, _) => Ok(Recovered::Ready(lane)),
            Read::Held(why) => Ok(Recovered::Held(why)),
            Read::Gone => Err(format!("lane {lane} cannot be made")),
        }
    }

    /// Recovers existing lanes, side by side, as many at a time as there are cores.
    fn read_all(&self, lanes: &[LaneId], positions: &Positions, seen: &Seen) -> Vec<Result<Read, String>> {
        let at_a_time = thread::available_parallelism().map_or(1, usize::from);
        let mut found = Vec::with_capacity(lanes.len());
        for lanes in lanes.chunks(at_a_time) {
            thread::scope(|scope| {
                let read = |lane: &LaneId| {
                    let (lane, calls) = (*lane, seen.lane(*lane));
                    let read = move || {
                        threads::fault_point(Kind::LaneReader);
                        self.read(lane, true, positions, calls)
                    };
                    threads::spawn_scoped(scope, Kind::LaneReader, lane.0, read)
                        .map_err(|error| format!("cannot start a thread for the log: {error}"))
                };
                let threads: Vec<_> = lanes.iter().map(read).collect();
                found.extend(threads.into_iter().map(|thread| {
                    let panicked = |_| Err("the thread that read a lane panicked".to_owned());
                    thread?.join().unwrap_or_else(panicked)
                }));
            });
        }
        found
    }

    /// Recovers one lane, without using the store yet.
    fn read(
        &self,
        lane: LaneId,
        expect_existing: bool,
        positions: &Positions,
        calls: LaneCalls,
    ) -> Result<Read, String> {
        let known = positions.iter().filter(|((owner, _), _)| *owner == lane);
        let config = StartConfig {
            lane,
            group: group_config(&self.limits),
            segments_max: self.limits.segments_max,
            key: self.key.clone(),
            expect_existing,
            applied_lsn: known.map(|(_, lsn)| *lsn).max().unwrap_or_default(),
            accept_loss: self.limits.accept_loss,
        };
        let disk = FileDisk::open(&self.path, true).map_err(|error| error.to_string())?;
        let seed = keeper::seed().map_err(|error| format!("no randomness for the log's keys: {error}"))?;
        let mut collector = Collector {
            replay: Replay::default(),
            calls,
        };
        let began = Instant::now();
        let started = match start(&config, disk, &seed, unix_millis().0, &mut collector) {
            Ok(started) => started,
            Err(StartError::Refused(Refusal::ManifestMissing))
                if expect_existing && self.limits.accept_loss =>
            {
                tracing::error!(
                    lane = lane.0,
                    "the lane is gone: a new one takes its place, as wal.on_corruption says"
                );
                return Ok(Read::Gone);
            }
            Err(StartError::Refused(refusal)) => {
                tracing::error!(lane = lane.0, %refusal, "the lane is held: nothing is read from it or written to it");
                return Ok(Read::Held(refusal.to_string()));
            }
            Err(error) => {
                return Err(format!(
                    "the log in {} cannot be used: {error}",
                    self.path.display()
                ));
            }
        };
        if let Some(damage) = &started.recovery.damage {
            tracing::error!(lane = lane.0, %damage, "the lane starts without what is damaged, as wal.on_corruption says");
        }
        let mut tail = collector.replay.into_tail();
        tail.handle_durable(started.recovery.tip.lsn);
        let took = began.elapsed();
        tracing::info!(
            lane = lane.0,
            records = started.recovery.records,
            unapplied = tail.unapplied_in_all().records,
            milliseconds = took.as_millis(),
            "log read"
        );
        let read = ReadLane { started, tail, took };
        Ok(Read::Ready(Box::new(read), collector.calls))
    }

    /// Gives the store the records of a lane that it lacks. If the store cannot take them now, the
    /// lane's own shard may do so later, provided that it still owns the keys (`may_be_late`).
    fn give_to_store(
        &self,
        lane: LaneId,
        mut read: Box<ReadLane>,
        store: &mut Store<'_>,
        may_be_late: bool,
        positions: &Positions,
    ) -> Result<Recovered, String> {
        let began = Instant::now();
        match store.has_lost_data(lane, &read.tail, positions) {
            Some(why) if !self.limits.accept_loss => return Ok(Recovered::Held(why)),
            Some(why) => {
                tracing::error!(
                    lane = lane.0,
                    why,
                    "the lane starts all the same, as wal.on_corruption says"
                );
                store.accept_as_it_is(self.id, lane, &read.tail)?;
            }
            None => {}
        }
        let durable = read.started.recovery.tip.lsn;
        match store.bring_up_to_date((self.id, lane), &mut read.tail, durable, positions) {
            Err(error) if may_be_late => {
                tracing::warn!(lane = lane.0, %error, "the store does not take what the log holds for it; serving, and trying again");
            }
            Err(error) => {
                // Its keys would belong to other shards, which lack its records. It stays as it is.
                let why = format!("the store does not take what the log holds for it: {error}");
                return Ok(Recovered::Waits(why));
            }
            Ok(()) => {}
        }
        if !may_be_late && store.waits_elsewhere(&read.tail) {
            let why = "a server lacks what the log holds for it, until prism_log_store_unapplied_bytes is 0";
            return Ok(Recovered::Waits(why.to_owned()));
        }
        read.took += began.elapsed();
        Ok(Recovered::Ready(read))
    }

    fn unusable(&self, error: &io::Error) -> String {
        format!("the log in {} cannot be used: {error}", self.path.display())
    }

    /// Starts the keeper of a lane and collects the parts that its shard needs.
    fn hand_over(&mut self, shard: u16, recovered: Recovered, seen: &Seen) -> Result<Opened, String> {
        let ReadLane { started, tail, took } = match recovered {
            Recovered::Held(why) | Recovered::Waits(why) => return Ok(Opened::Held(why)),
            Recovered::Ready(read) => *read,
        };
        let events = self.events[usize::from(shard)].clone();
        let (keeper, thread) = keeper::spawn(lane_of(shard), started.pool, events)
            .map_err(|error| format!("cannot start a thread for the log: {error}"))?;
        keeper::keepers_of(&self.keepers).push(thread);
        let life = self
            .life_of(lane_of(shard))
            .map_err(|error| self.unusable(&error))?;
        Ok(Opened::Lane(Box::new(OpenLane {
            log: self.id,
            opened_at: started.recovery.tip.lsn,
            life,
            commit: started.commit,
            active: started.active,
            closed: started.closed,
            tail,
            window: seen.window(shard),
            claims: seen.claims(shard),
            keeper,
            recovered: (started.recovery.records, took),
        })))
    }
}

/// Positions of the store, by lane and namespace.
type Positions = BTreeMap<(LaneId, u32), Lsn>;

/// A lane that has begun its new epoch.
struct ReadLane {
    started: Started<FileDisk>,
    /// Records to be applied, as far as the log itself knows.
    tail: Tail,
    /// Time that all of it took.
    took: Duration,
}

/// Result of reading a lane.
enum Read {
    Ready(Box<ReadLane>, LaneCalls),
    /// It must not be used; the reason.
    Held(String),
    /// It is gone, and an operator has accepted that.
    Gone,
}

/// A lane that was read, with records that the store has.
enum Recovered {
    Ready(Box<ReadLane>),
    /// It must not be used; the reason.
    Held(String),
    /// A store lacks some of its records, and the keys would have other shards; the reason.
    Waits(String),
}

fn group_config(limits: &LogLimits) -> Config {
    Config {
        segment_blocks: limits.segment_blocks(),
        depth_max: limits.depth_max,
        depth_fixed: limits.depth_fixed,
        ..Config::default()
    }
}

/// Longest record that a lane takes, in bytes.
pub(crate) fn record_bytes_max(limits: &LogLimits) -> usize {
    group_config(limits)
        .record_payload_bytes_max()
        .min(limits.unapplied_bytes_max)
}

mod retired;
mod store;

pub(crate) use self::store::{Elsewhere, Store};

#[cfg(test)]
mod tests {
    use prism_backends::{NamespaceId, StoreError, sqlite};
    use prism_codec::method::KeyValueMethod;
    use prism_wal::{ids::TargetId, tail::Payload};
    use rusqlite::Connection;

    use super::*;
    use crate::call::record::LoggedWrite;

    /// The record of a Put without items.
    fn record(namespace: u32) -> Payload {
        LoggedWrite::example(NamespaceId(namespace), KeyValueMethod::Put, b"")
            .encode()
            .into()
    }

    #[test]
    fn what_the_store_has_is_not_given_to_it_again_when_another_namespace_must_wait() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keyvalue.db");
        let options = sqlite::Options {
            busy_timeout_ms: 0,
            ..sqlite::Options::default()
        };
        let mut parts = sqlite::open(&path, options).expect("a store");
        let mut store = Store {
            writer: &mut parts.writer,
            checkpointer: &mut parts.checkpointer,
            strong: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            known: BTreeSet::from([1, 2]),
        };
        let (lane, waits, has) = (LaneId(1), TargetId(1), TargetId(2));
        let mut tail = Tail::default();
        tail.push(Lsn(1), waits, record(1));
        for lsn in 2..=4 {
            tail.push(Lsn(lsn), has, record(2));
        }
        tail.handle_durable(Lsn(4));
        let positions = Positions::from([((lane, has.0), Lsn(3))]);

        let other = Connection::open(&path).expect("the store's file");
        other.execute_batch("BEGIN IMMEDIATE").expect("the store's lock");
        let result = store.bring_up_to_date((LogId(1), lane), &mut tail, Lsn(4), &positions);
        assert!(
            matches!(result, Err(StoreError::Busy { .. })),
            "somebody holds its lock: {result:?}"
        );
        assert_eq!(tail.unapplied(waits).oldest, Some(Lsn(1)));
        assert_eq!(
            tail.unapplied(has).oldest,
            Some(Lsn(4)),
            "it has the first two of three"
        );
    }
}
