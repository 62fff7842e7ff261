//! The log on a real disk: small files in a temporary directory, the real driver, stops without
//! warning.

use std::path::Path;
use std::time::{Duration, Instant};

use prism_wal::cipher::SecretKey;
use prism_wal::disk::file::{Durability, FileDisk, LogFile, durability_of};
use prism_wal::disk::threads::ThreadWriter;
use prism_wal::disk::{Disk, DiskErrorKind};
use prism_wal::group_commit::Config;
use prism_wal::ids::{Epoch, LaneId, Lsn, TargetId};
use prism_wal::lane::Lane;
use prism_wal::pool::Pool;
use prism_wal::record::{Record, RecordKind};
use prism_wal::recovery::Visitor;
use prism_wal::segment::SegmentSeed;
use prism_wal::start::{StartConfig, Started, start};
use prism_wal::tail::Tail;

struct Node {
    lane: Lane<ThreadWriter>,
    pool: Pool<FileDisk>,
    began: Instant,
    draws: u8,
}

#[derive(Default)]
struct Payloads(Vec<Vec<u8>>);

impl Visitor for Payloads {
    fn record(&mut self, _: Epoch, _: Lsn, record: &Record<'_>) {
        if record.kind == RecordKind::Strong {
            self.0.push(record.payload.to_vec());
        }
    }
}

fn config() -> StartConfig {
    StartConfig {
        lane: LaneId(0),
        group: Config {
            group_blocks_max: 16,
            segment_blocks: 64,
            depth_fixed: Some(2),
            ..Config::default()
        },
        segments_max: 16,
        key: None,
        expect_existing: false,
        applied_lsn: Lsn::NONE,
        accept_loss: false,
    }
}

fn seed(draw: u8) -> SegmentSeed {
    SegmentSeed {
        incarnation: [draw; 16],
        data_key: SecretKey::new([draw; 32]),
        wrap_nonce: [draw; 12],
    }
}

fn bring_up(path: &Path, direct: bool, draw: u8) -> (Node, Vec<Vec<u8>>) {
    let disk = FileDisk::open(path, direct).expect("a directory");
    let mut found = Payloads::default();
    let started = start(&config(), disk, &seed(draw), 0, &mut found).expect("the lane starts");
    let Started {
        pool,
        commit,
        active,
        closed,
        ..
    } = started;
    let writer = ThreadWriter::start(2, Box::new(|| {})).expect("threads");
    let lane = Lane::new(commit, active, closed, Tail::default(), writer);
    (
        Node {
            lane,
            pool,
            began: Instant::now(),
            draws: draw,
        },
        found.0,
    )
}

impl Node {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a short test")
    }

    fn prepare(&mut self) {
        while self.lane.segments_wanted() > 0 {
            self.draws += 1;
            let prepared = self
                .pool
                .prepare(&seed(self.draws), 0, self.lane.durable())
                .expect("there is space");
            self.lane.handle_segment(prepared);
        }
    }

    /// Turns until a record is durable.
    fn settle(&mut self, lsn: Lsn) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.lane.turn(self.now()) < lsn {
            assert!(
                Instant::now() < deadline,
                "the disk does not answer: {:?}",
                self.lane.commit()
            );
            assert_eq!(self.lane.poisoned(), None);
            let _ = self.lane.writer().wait(Duration::from_millis(100));
        }
    }
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number as usize * 37) % 3000, number as u8);
    payload
}

fn run_and_restart(direct: bool) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut expected = Vec::new();
    for round in 0..3 {
        let (mut node, found) = bring_up(directory.path(), direct, round * 40 + 1);
        assert_eq!(found, expected, "round {round}");
        for number in 0..120 {
            node.prepare();
            let payload = payload(u64::from(round) * 1000 + number);
            let lsn = node
                .lane
                .append_strong(node.now(), TargetId(1), payload.as_slice().into())
                .expect("there is room");
            expected.push(payload);
            if number % 7 == 0 {
                node.settle(lsn);
            }
        }
        let last = node.lane.commit().appended_lsn();
        node.settle(last);
        // Stops here without a word: nothing is drained, nothing marked.
    }
    let (_, found) = bring_up(directory.path(), direct, 200);
    assert_eq!(found, expected);
}

#[test]
fn everything_acknowledged_is_there_after_a_restart_with_direct_io() {
    run_and_restart(true);
}

#[test]
fn everything_acknowledged_is_there_after_a_restart_without_direct_io() {
    run_and_restart(false);
}

#[test]
fn a_second_process_cannot_have_the_lane() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (_node, _) = bring_up(directory.path(), true, 1);
    // Another open file description is as good as another process to flock.
    let mut disk = FileDisk::open(directory.path(), true).expect("a directory");
    let error = disk.open("lane-00000000.manifest").expect_err("locked");
    assert_eq!(error.kind, DiskErrorKind::Locked);
}

#[test]
fn a_probe_that_fails_is_told_and_not_taken_for_a_file_system_without_direct_writes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // In the way of the probe's file.
    std::fs::create_dir(directory.path().join(".direct-io-probe")).expect("a directory");
    let error = FileDisk::open(directory.path(), true).expect_err("nobody knows");
    assert!(matches!(error.kind, DiskErrorKind::Io(_)), "{error}");
    FileDisk::open(directory.path(), false).expect("it is not asked");
}

#[test]
fn a_failed_write_is_reported_with_its_number() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("read-only");
    std::fs::write(&path, [0; 4096]).expect("a file");
    let mut disk = FileDisk::open(directory.path(), false).expect("a directory");
    let file: LogFile = disk.open("read-only").expect("a file");
    // Beyond what a file may be long: the kernel refuses, and nothing is retried.
    let result = file.write_durable(u64::MAX >> 1, &[0; 4096]);
    assert!(
        matches!(result, prism_wal::group_commit::WriteResult::Failed(_)),
        "{result:?}"
    );
}

#[test]
fn memory_file_systems_are_known_not_to_be_durable() {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.exists() {
        assert!(matches!(
            durability_of(shared_memory).expect("it exists"),
            Durability::Refused(_)
        ));
    }
    let process = durability_of(Path::new("/proc")).expect("it exists");
    assert!(matches!(process, Durability::Unknown(_)));
}

#[test]
fn a_dropped_writer_finishes_what_was_submitted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mut node, _) = bring_up(directory.path(), true, 1);
    let payload = b"submitted and not awaited".to_vec();
    node.lane
        .append_strong(0, TargetId(1), payload.as_slice().into())
        .expect("there is room");
    node.lane.turn(1);
    drop(node);
    let (_, found) = bring_up(directory.path(), true, 100);
    assert_eq!(found, [payload]);
}
