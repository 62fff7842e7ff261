//! A running lane, as seen by the tools: written by the real disk driver, one group for each
//! record.

use std::collections::BTreeMap;
use std::path::Path;

use prism_wal::cipher::{KeyEncryptionKey, SecretKey};
use prism_wal::cursor::Checkpoint;
use prism_wal::disk::Disk as _;
use prism_wal::disk::file::{FileDisk, LogFile};
use prism_wal::group_commit::{ClosedSegment, Config, GroupCommit, WriteResult};
use prism_wal::ids::{Epoch, LaneId, Lsn, SegmentNumber, TargetId};
use prism_wal::pool::{Durable, Pool};
use prism_wal::record::{Record, RecordKind};
use prism_wal::recovery::Visitor;
use prism_wal::segment::SegmentSeed;
use prism_wal::start::{StartConfig, StartError, start};

pub(crate) const KEY: [u8; 32] = [0x42; 32];

pub(crate) fn config(lane: u32, key: bool) -> StartConfig {
    StartConfig {
        lane: LaneId(lane),
        group: Config {
            group_blocks_max: 8,
            segment_blocks: 32,
            depth_fixed: Some(1),
            eventual_delay_nanos: 0,
            ..Config::default()
        },
        segments_max: 32,
        key: key.then(|| KeyEncryptionKey::new(SecretKey::new(KEY))),
        expect_existing: false,
        accept_loss: false,
        applied_lsn: Lsn::NONE,
    }
}

struct Nobody;

impl Visitor for Nobody {
    fn record(&mut self, _: Epoch, _: Lsn, _: &Record<'_>) {}
}

/// A running lane: what a gateway is to the tools.
pub(crate) struct Log {
    pool: Pool<FileDisk>,
    commit: GroupCommit,
    files: BTreeMap<SegmentNumber, LogFile>,
    closed: Vec<ClosedSegment>,
    draws: u8,
    now: u64,
}

impl Log {
    pub(crate) fn start(directory: &Path, config: &StartConfig, draw: u8) -> Result<Self, StartError> {
        let disk = FileDisk::open(directory, true).expect("a directory");
        let started = start(config, disk, &seed(draw), 1_700_000_000_000, &mut Nobody)?;
        Ok(Self {
            pool: started.pool,
            commit: started.commit,
            files: BTreeMap::from([(started.active.ready.segment, started.active.file)]),
            closed: started.closed,
            draws: draw,
            now: 0,
        })
    }

    /// Appends one record and writes it: one group.
    pub(crate) fn write(&mut self, kind: RecordKind, target: u32, payload: &[u8]) -> Lsn {
        while self.commit.ready_segments() < 1 {
            self.draws += 1;
            let durable = self.durable();
            let prepared = self
                .pool
                .prepare(&seed(self.draws), 1_700_000_000_000, durable)
                .expect("space");
            self.files.insert(prepared.ready.segment, prepared.file);
            self.commit.handle_segment(prepared.ready);
        }
        let record = Record {
            kind,
            target: TargetId(target),
            payload,
        };
        let lsn = self.commit.append(self.now, &record).expect("room");
        self.turn();
        assert_eq!(self.commit.durable_lsn(), lsn);
        lsn
    }

    /// Lets time pass, so that a mark witnesses the last groups.
    pub(crate) fn idle(&mut self) {
        self.now += 1_000_000_000;
        self.turn();
    }

    fn turn(&mut self) {
        while let Some(write) = self.commit.poll_action(self.now) {
            let file = &self.files[&write.segment];
            let disk = self.pool.disk();
            disk.write(file, write.offset(), write.bytes()).expect("space");
            disk.sync(file).expect("a disk");
            let bytes = write.bytes().len();
            self.commit
                .handle_completion(self.now, write.group, WriteResult::Durable(bytes), write.buffer);
        }
        while let Some(closed) = self.commit.poll_closed() {
            self.closed.push(closed);
        }
    }

    fn checkpoint(&mut self, target: u32, lsn: Lsn) {
        let mut checkpoint = Checkpoint::default();
        checkpoint.advance(TargetId(target), lsn);
        self.write(RecordKind::Checkpoint, 0, &checkpoint.encode());
    }

    fn durable(&self) -> Durable {
        Durable {
            group: self.commit.durable_group(),
            lsn: self.commit.durable_lsn(),
            all_applied: false,
        }
    }
}

fn seed(draw: u8) -> SegmentSeed {
    SegmentSeed {
        incarnation: [draw; 16],
        data_key: SecretKey::new([draw; 32]),
        wrap_nonce: [draw; 12],
    }
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number as usize * 391) % 9000, number as u8);
    payload
}

/// Contents of a lane that [`make_lane`] made: the payloads of its records, strong and eventual, by
/// LSN.
pub(crate) type Expected = BTreeMap<u64, Vec<u8>>;

/// Two epochs, three full segments in the first, a checkpoint, and a mark at the end: everything is
/// witnessed.
pub(crate) fn make_lane(directory: &Path, lane: u32, key: bool) -> Expected {
    let mut expected = Expected::new();
    for epoch in 0..2_u8 {
        let mut log = Log::start(directory, &config(lane, key), epoch * 50 + 1).expect("a healthy lane");
        for number in 0..30 - 15 * u64::from(epoch) {
            let kind = if number % 5 == 4 {
                RecordKind::Eventual
            } else {
                RecordKind::Strong
            };
            let payload = payload(number + 100 * u64::from(epoch));
            let lsn = log.write(kind, 7, &payload);
            expected.insert(lsn.0, payload);
        }
        let applied = log.commit.durable_lsn();
        log.checkpoint(7, applied);
        log.idle();
    }
    expected
}
