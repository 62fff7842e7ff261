//! A lane in a simulated world, and a checker that keeps its own journal.
//!
//! The world runs the real lane, pool and start on a [`SimDisk`] and chooses, by seed, what
//! arrives, what completes and in which order. The checker knows only what was appended and what
//! was acknowledged; it judges what a start finds.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::collections::BTreeMap;

use prism_wal::buffer::SECTOR_BYTES;
use prism_wal::cipher::{KeyEncryptionKey, SecretKey};
use prism_wal::cut::Lost;
use prism_wal::disk::sim::{Crash, SimDisk};
use prism_wal::disk::{Disk, DiskErrorKind};
use prism_wal::group_commit::{AppendError, Config};
use prism_wal::ids::{Epoch, LaneId, Lsn, TargetId};
use prism_wal::lane::{Lane, Replay};
use prism_wal::pool::Pool;
use prism_wal::record::{Record, RecordKind};
use prism_wal::recovery::{Recovery, Visitor};
use prism_wal::segment::SegmentSeed;
use prism_wal::start::{StartConfig, StartError, Started, start};
use prism_wal::tail::Payload;

pub const LANE: LaneId = LaneId(1);

/// A small, good generator (splitmix64): the tests' only source of chance.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.next() as u8)
    }

    pub fn seed(&mut self) -> SegmentSeed {
        SegmentSeed {
            incarnation: self.array(),
            data_key: SecretKey::new(self.array()),
            wrap_nonce: self.array(),
        }
    }
}

pub fn small_config(depth: usize) -> StartConfig {
    StartConfig {
        lane: LANE,
        group: Config {
            group_blocks_max: 2,
            segment_blocks: 8,
            depth_max: 8,
            depth_fixed: Some(depth),
            pending_bytes_max: 40_000,
            ..Config::default()
        },
        segments_max: 8,
        key: Some(KeyEncryptionKey {
            id: [1; 16],
            key: SecretKey::new([2; 32]),
        }),
        expect_existing: false,
        applied_lsn: Lsn::NONE,
        accept_loss: false,
    }
}

// --- the checker ---------------------------------------------------------------------------------

/// Contents of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub epoch: Epoch,
    pub kind: RecordKind,
    pub target: TargetId,
    pub payload: Payload,
}

/// The checker's journal: what was appended under which number, and what was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    appended: BTreeMap<u64, Entry>,
    pub acked: u64,
    /// Contents of each target.
    pub stores: BTreeMap<TargetId, Store>,
    /// Records that an operator gave up, first and last.
    pub lost: Vec<(u64, u64)>,
}

/// A store: has what it was given by (epoch, number), each once; what it has not synced may go in a
/// power cut.
#[derive(Clone, Debug, Default)]
pub struct Store {
    had: Vec<(Epoch, u64, RecordKind)>,
    synced: usize,
}

impl Store {
    fn has(&self, epoch: Epoch, lsn: u64) -> bool {
        self.had.iter().any(|(e, l, _)| (*e, *l) == (epoch, lsn))
    }

    fn take(&mut self, epoch: Epoch, lsn: u64, kind: RecordKind) {
        if self.has(epoch, lsn) {
            return;
        }
        if kind == RecordKind::Strong {
            let last = self.had.iter().rfind(|(_, _, kind)| *kind == RecordKind::Strong);
            assert!(
                last.is_none_or(|(_, last, _)| *last < lsn),
                "record {lsn} comes too late"
            );
        }
        self.had.push((epoch, lsn, kind));
    }

    fn sync(&mut self) {
        self.synced = self.had.len();
    }

    /// A power cut keeps a prefix, with everything that was synced.
    fn cut(&mut self, rng: &mut Rng) {
        let kept = self.synced + rng.below(self.had.len() - self.synced + 1);
        self.had.truncate(kept);
        self.synced = kept;
    }
}

impl Journal {
    pub fn append(&mut self, lsn: Lsn, entry: Entry) {
        let previous = self.appended.insert(lsn.0, entry);
        assert!(previous.is_none(), "record number {lsn} was given twice");
    }

    pub fn ack(&mut self, lsn: Lsn) {
        assert!(
            lsn.0 >= self.acked,
            "the durable prefix went back from {} to {lsn}",
            self.acked
        );
        self.acked = lsn.0;
    }

    /// Judges what a start found: a contiguous stretch, every record as it was appended, none of
    /// the acknowledged missing at the end, none that was recycled without being applied missing at
    /// the front. Then the journal goes on from there: what was appended and not found is gone for
    /// good.
    ///
    /// What an operator gives up at this start is noted and missing from then on, and nothing else
    /// is.
    pub fn judge(&mut self, found: &Found, recovery: &Recovery, log_start: Lsn) {
        self.give_up(&recovery.lost);
        let behind_lost = |mut expected: u64| {
            while let Some((_, last)) = self.lost.iter().find(|(first, _)| *first == expected) {
                expected = last + 1;
            }
            expected
        };
        let mut expected = log_start.0 + 1;
        for (lsn, entry) in &found.records {
            expected = behind_lost(expected);
            assert_eq!(lsn.0, expected, "records are numbered without gaps");
            expected += 1;
            if entry.kind == RecordKind::Cut {
                // Perhaps of a start that died after it: then the number was given again, to a
                // record that nobody had learned of.
                let replaced = self.appended.insert(lsn.0, entry.clone());
                let known = replaced.is_none_or(|replaced| replaced.kind == RecordKind::Cut);
                assert!(
                    known || lsn.0 > self.acked,
                    "record {lsn} was acknowledged, and now it is a cut"
                );
                continue;
            }
            let appended = self
                .appended
                .get(&lsn.0)
                .unwrap_or_else(|| panic!("record {lsn} was never appended"));
            assert_eq!(entry, appended, "record {lsn} is not what was appended");
        }
        let tip = behind_lost(expected) - 1;
        assert_eq!(tip, recovery.tip.lsn.0);
        assert!(
            tip >= self.acked,
            "acknowledged up to {}, found only up to {tip}",
            self.acked
        );
        let cursors = found.replay.tail().checkpoint();
        for (lsn, entry) in self.appended.range(..=tip) {
            if *lsn <= log_start.0 || *lsn <= cursors.cursor(entry.target).0 {
                assert!(
                    self.is_applied(*lsn, entry),
                    "record {lsn} will not be replayed and its store does not have it"
                );
            }
        }
        self.appended.split_off(&(tip + 1));
        self.acked = tip;
    }

    /// Forgets what an operator gave up.
    pub fn give_up(&mut self, lost: &[Lost]) {
        for lost in lost {
            let (first, last) = (lost.first_lsn.0, lost.last_lsn.0);
            assert!(
                !self.lost.iter().any(|(at, _)| *at == first),
                "given up twice: {lost}"
            );
            if first <= last {
                self.lost.push((first, last));
                self.appended.retain(|lsn, _| !(first..=last).contains(lsn));
            }
            if !lost.exact {
                // The end of the log, and nobody knows how many records that was.
                self.appended.split_off(&(last + 1));
                self.acked = self.acked.min(last);
            }
        }
    }

    fn is_applied(&self, lsn: u64, entry: &Entry) -> bool {
        let own = matches!(entry.kind, RecordKind::Checkpoint | RecordKind::Cut);
        let store = self.stores.get(&entry.target);
        own || store.is_some_and(|store| store.has(entry.epoch, lsn))
    }

    /// A store applies a record that the lane gives out. A replay of what it has is ignored (that
    /// is what a store's own idempotence is for).
    pub fn apply(&mut self, target: TargetId, lsn: Lsn, payload: &[u8]) {
        assert!(
            lsn.0 <= self.acked,
            "record {lsn} was given to a store before it was durable"
        );
        let appended = &self.appended[&lsn.0];
        assert_eq!((appended.target, &appended.payload[..]), (target, payload));
        let store = self.stores.entry(target).or_default();
        store.take(appended.epoch, lsn.0, appended.kind);
    }

    /// At the end of the world: every record that is durable in the log is in its store.
    pub fn finish(&self) {
        for (lsn, entry) in self.appended.range(..=self.acked) {
            assert!(
                self.is_applied(*lsn, entry),
                "record {lsn} never reached its store"
            );
        }
    }
}

/// Report of a start, and the tail that it built.
#[derive(Debug, Default)]
pub struct Found {
    pub records: Vec<(Lsn, Entry)>,
    pub replay: Replay,
}

impl Visitor for Found {
    fn record(&mut self, epoch: Epoch, lsn: Lsn, record: &Record<'_>) {
        let entry = Entry {
            epoch,
            kind: record.kind,
            target: record.target,
            payload: record.payload.into(),
        };
        self.records.push((lsn, entry));
        self.replay.record(epoch, lsn, record);
    }
}

// --- the world -----------------------------------------------------------------------------------

pub struct World {
    pub disk: SimDisk,
    pub config: StartConfig,
    pub rng: Rng,
    pub now: u64,
    pub journal: Journal,
    pub running: Option<Running>,
}

pub struct Running {
    pub lane: Lane<SimDisk>,
    pub pool: Pool<SimDisk>,
    /// Appended since the start and not acknowledged when the lane was poisoned: of unknown
    /// outcome.
    pub acked_at_poison: Option<Lsn>,
    /// Position up to which, by the last checkpoint of [`World::keep_cursors`], all was applied,
    /// itself included.
    checkpointed: Lsn,
}

impl World {
    pub fn new(config: StartConfig, seed: u64) -> Self {
        Self {
            disk: SimDisk::new(),
            config,
            rng: Rng(seed),
            now: 0,
            journal: Journal::default(),
            running: None,
        }
    }

    /// A world of its own with this one's disk and journal and nothing running: where a crash can
    /// be tried.
    pub fn crashed_copy(&self) -> Self {
        Self {
            disk: self.disk.snapshot(),
            config: self.config.clone(),
            rng: self.rng.clone(),
            now: self.now,
            journal: self.journal.clone(),
            running: None,
        }
    }

    /// Starts the lane and judges what it found.
    pub fn start(&mut self) -> Result<Recovery, StartError> {
        let mut found = Found::default();
        let seed = self.rng.seed();
        let started = start(&self.config, self.disk.clone(), &seed, 0, &mut found)?;
        let Started {
            pool,
            commit,
            active,
            recovery,
            closed,
        } = started;
        self.journal.judge(&found, &recovery, pool.manifest().base.lsn);
        // The cut that began the epoch is a record of the log's own.
        self.journal.append(
            recovery.tip.lsn.next(),
            Entry {
                epoch: commit.epoch(),
                kind: RecordKind::Cut,
                target: TargetId::NONE,
                payload: Payload::default(),
            },
        );
        self.journal.ack(commit.durable_lsn());
        let lane = Lane::new(
            commit,
            active,
            closed,
            found.replay.into_tail(),
            self.disk.clone(),
        );
        self.running = Some(Running {
            lane,
            pool,
            acked_at_poison: None,
            checkpointed: Lsn::NONE,
        });
        Ok(recovery)
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("the lane runs")
    }

    pub fn append(&mut self, kind: RecordKind, target: TargetId, bytes: usize) -> Result<Lsn, AppendError> {
        // Payloads are zeros or noise: zeros must not look like unwritten sectors.
        let payload = Payload::from(if self.rng.chance(30) {
            vec![0; bytes]
        } else {
            (0..bytes).map(|_| self.rng.next() as u8).collect()
        });
        let now = self.now;
        let lane = &mut self.running().lane;
        let epoch = lane.commit().epoch();
        let lsn = match kind {
            RecordKind::Strong => lane.append_strong(now, target, payload.clone())?,
            RecordKind::Eventual => lane.append_eventual(now, target, &payload)?,
            RecordKind::Checkpoint | RecordKind::Cut => unreachable!("the log's own records"),
        };
        if kind == RecordKind::Eventual {
            self.journal
                .stores
                .entry(target)
                .or_default()
                .take(epoch, lsn.0, kind);
        }
        let entry = Entry {
            epoch,
            kind,
            target,
            payload,
        };
        self.journal.append(lsn, entry);
        Ok(lsn)
    }

    pub fn checkpoint(&mut self) -> Result<Lsn, AppendError> {
        let now = self.now;
        let lane = &mut self.running().lane;
        let epoch = lane.commit().epoch();
        let payload = Payload::from(lane.tail().checkpoint().encode());
        let lsn = lane.checkpoint(now)?;
        self.journal.append(
            lsn,
            Entry {
                epoch,
                kind: RecordKind::Checkpoint,
                target: TargetId::NONE,
                payload,
            },
        );
        Ok(lsn)
    }

    /// One reactor turn; the journal learns what is acknowledged.
    pub fn turn(&mut self) {
        self.now += 1000;
        let now = self.now;
        let running = self.running();
        let durable = running.lane.turn(now);
        if running.lane.poisoned().is_some() {
            let frozen = *running.acked_at_poison.get_or_insert(durable);
            assert_eq!(durable, frozen, "nothing is acknowledged after a poisoned lane");
        }
        let wake = running.lane.next_wake(now);
        assert!(
            wake.is_none_or(|at| at > now),
            "a lane that was just turned wants another turn: it would spin"
        );
        self.journal.ack(durable);
    }

    /// Completes one write in flight, chosen by the generator.
    pub fn complete_one(&mut self) {
        let in_flight = self.disk.in_flight();
        if in_flight > 0 {
            let index = self.rng.below(in_flight);
            self.disk.complete(index);
        }
    }

    /// Turns and completions until nothing moves any more.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            self.turn();
            self.prepare();
            if self.disk.in_flight() == 0 {
                let lane = &self.running().lane;
                if lane.poisoned().is_some() || lane.commit().pending_bytes() == 0 {
                    return;
                }
            }
            self.now += 20_000_000;
            self.complete_one();
        }
        let lane = &self.running().lane;
        let blocked = lane.commit().ready_segments() == 0;
        assert!(blocked, "the lane hangs: {:?}", lane.commit());
    }

    /// Long enough a pause for a mark, written and completed.
    pub fn idle(&mut self) {
        self.now += 50_000_000;
        self.settle();
        self.now += 50_000_000;
        self.turn();
        self.settle();
    }

    /// Prepares what the lane wants; a failing disk is tried again later.
    pub fn prepare(&mut self) {
        let mut rng = self.rng.clone();
        let running = self.running();
        while running.lane.segments_wanted() > 0 {
            let durable = running.lane.durable();
            match running.pool.prepare(&rng.seed(), 0, durable) {
                Ok(prepared) => running.lane.handle_segment(prepared),
                Err(_) => break,
            }
        }
        self.rng = rng;
    }

    /// The store of `target` applies up to `records` durable records and syncs them.
    pub fn apply(&mut self, target: TargetId, records: usize) {
        self.apply_unsynced(target, records);
        self.sync(target);
    }

    /// The store of `target` makes what it has durable.
    pub fn sync(&mut self, target: TargetId) {
        let running = self.running.as_mut().expect("the lane runs");
        let due: Vec<_> = running
            .lane
            .tail()
            .unsynced()
            .filter(|(at, _)| *at == target)
            .collect();
        for (target, lsn) in due {
            self.journal.stores.entry(target).or_default().sync();
            running.lane.handle_synced(target, lsn);
        }
    }

    /// The store of `target` applies up to `records` durable records: visible to its readers, not
    /// yet durable.
    pub fn apply_unsynced(&mut self, target: TargetId, records: usize) {
        let mut journal = core::mem::take(&mut self.journal);
        let running = self.running();
        let mut last = None;
        for (lsn, payload) in running.lane.tail().batch(target, records, usize::MAX) {
            journal.apply(target, lsn, payload);
            last = Some(lsn);
        }
        if let Some(lsn) = last {
            running.lane.handle_applied(target, lsn);
        }
        self.journal = journal;
    }

    /// Recycles what may be recycled.
    pub fn recycle(&mut self) {
        let running = self.running();
        while let Some(segment) = running.lane.poll_recyclable() {
            let durable = running.lane.durable();
            if running.pool.recycle(segment, durable).is_err() {
                break;
            }
        }
    }

    /// The targets whose store lacks something, or has something that it has not synced.
    fn behind(&mut self) -> Vec<TargetId> {
        let tail = self.running().lane.tail();
        let unsynced = tail.unsynced().map(|(target, _)| target);
        tail.waiting().chain(unsynced).collect()
    }

    /// Logs the cursors if that says something new, as a driver does now and then, and takes back
    /// what that frees.
    pub fn keep_cursors(&mut self) {
        let running = self.running();
        let floor = running.lane.tail().floor();
        if running.lane.checkpoint_due() || floor > running.checkpointed {
            // Without room it is tried again later.
            if let Ok(lsn) = self.checkpoint() {
                self.running().checkpointed = floor.max(lsn);
            }
        }
        self.settle();
        self.recycle();
        self.prepare();
    }

    /// The stores take everything there is, and the log keeps its books, until nothing moves any
    /// more.
    pub fn catch_up(&mut self) {
        for _ in 0..3 {
            self.idle();
            for target in self.behind() {
                self.apply(target, usize::MAX);
            }
            self.keep_cursors();
        }
    }

    /// Appends records of a block each, to these targets in turn, until no segment has room; then
    /// falls quiet.
    pub fn fill(&mut self, targets: u32) {
        for number in 0..1000 {
            match self.append(RecordKind::Strong, TargetId(number % targets), 3000) {
                Ok(_) | Err(AppendError::Full) => self.settle(),
                Err(AppendError::NoSegment) => return self.idle(),
                Err(error) => panic!("a healthy lane: {error}"),
            }
        }
        panic!("the log has no end");
    }

    /// Stops as a drain does: everything durable and witnessed, the manifest marked clean.
    pub fn close(&mut self) {
        self.idle();
        let running = self.running.take().expect("the lane runs");
        if running.lane.poisoned().is_none() && running.lane.commit().is_quiet() {
            let durable = running.lane.durable();
            running.pool.close(durable).expect("a healthy disk");
        }
    }

    /// Appends `count` strong records of `bytes`, each in a group of its own that is then in
    /// flight.
    pub fn append_groups(&mut self, count: usize, bytes: usize) {
        for _ in 0..count {
            self.append(RecordKind::Strong, TargetId(1), bytes)
                .expect("there is room");
            self.turn();
        }
    }

    /// A power cut that finds the first of `count` equal writes in flight not begun, and the others
    /// done.
    pub fn cut_power_losing_first_of(&mut self, count: usize) {
        let sectors = self.disk.sectors_at_stake(Crash::PowerCut);
        self.running = None;
        self.disk
            .crash(Crash::PowerCut, 0, |sector| sector >= sectors / count);
    }

    /// Crashes with a random subset of what is at stake, skewed towards all and nothing.
    pub fn crash(&mut self, crash: Crash) {
        self.running = None;
        if crash == Crash::PowerCut {
            self.cut_stores();
        }
        let percent = [0, 10, 50, 90, 100][self.rng.below(5)];
        let names = self.rng.below(self.disk.names_at_stake() + 1);
        let mut rng = self.rng.clone();
        self.disk.crash(crash, names, |_| rng.chance(percent));
        self.rng = rng;
    }

    /// Takes from the stores whatever a power cut takes.
    pub fn cut_stores(&mut self) {
        for store in self.journal.stores.values_mut() {
            store.cut(&mut self.rng);
        }
    }

    /// Names of the lane's segment files.
    pub fn segment_files(&self) -> Vec<String> {
        let names = self.disk.clone().list().expect("a healed disk lists its files");
        names
            .into_iter()
            .filter(|name| name.ends_with(".segment"))
            .collect()
    }
}

/// Whether a start failed only because the disk did.
pub fn is_disk_error(error: &StartError) -> bool {
    matches!(error, StartError::Disk(error) if error.kind != DiskErrorKind::NotFound)
}

pub fn env_or(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

pub const SECTORS_PER_BLOCK: usize = prism_wal::buffer::BLOCK_BYTES / SECTOR_BYTES;
