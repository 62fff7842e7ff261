//! Both writers on a real shard and a real file.

use std::{collections::BTreeMap, fs::File, path::Path, process::Command};

use prism_wal::{
    buffer::BLOCK_BYTES,
    cipher::SecretKey,
    disk::{Disk, file::FileDisk},
    group_commit::Config,
    ids::{Epoch, LaneId, Lsn, SegmentNumber, TargetId},
    lane::Lane,
    record::{Record, RecordKind},
    recovery::Visitor,
    segment::SegmentSeed,
    start::{StartConfig, start},
    tail::Tail,
};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::*;
use crate::runtime::reactor::DriverChoice;

const FILE_BLOCKS: u32 = 256;

/// Every writer with every driver that this kernel allows.
fn combinations() -> Vec<(LogWriterKind, DriverInUse)> {
    let mut drivers = vec![DriverInUse::Epoll];
    match DriverInUse::choose(DriverChoice::Auto).expect("auto always finds one") {
        DriverInUse::IoUring => drivers.push(DriverInUse::IoUring),
        DriverInUse::Epoll => eprintln!("io_uring is forbidden here: the ring is not tested"),
    }
    let kinds = [LogWriterKind::Auto, LogWriterKind::Ring, LogWriterKind::Thread];
    drivers
        .into_iter()
        .flat_map(|driver| kinds.map(|kind| (kind, driver)))
        .collect()
}

fn prepared(directory: &Path) -> (FileDisk, LogFile) {
    let mut disk = FileDisk::open(directory, true).expect("a directory");
    let bytes = u64::from(FILE_BLOCKS) * BLOCK_BYTES as u64;
    let file = disk.create("segment", bytes).expect("there is space");
    disk.write_zeros(&file, 0, bytes).expect("there is space");
    disk.sync(&file).expect("a sound disk");
    (disk, file)
}

/// A group that fills its blocks with its number, in a buffer that may be longer.
fn group(number: u64, block: u32, blocks: u32) -> WriteAction {
    let mut buffer = AlignedBuffer::zeroed(16 * BLOCK_BYTES);
    buffer.as_mut_slice().fill(number as u8);
    WriteAction {
        group: GroupNumber(number),
        segment: SegmentNumber(1),
        block,
        blocks,
        // Few and many in turn, so that a writer that distinguishes them uses both ways.
        records: 1 + 100 * (number as u32 % 2),
        buffer,
    }
}

async fn completion(writer: &mut LogWriter, notify: &Notify) -> Completion {
    loop {
        if let Some(completion) = writer.poll_completion() {
            return completion;
        }
        notify.notified().await;
    }
}

#[test]
fn groups_are_in_the_file_and_nothing_else_is() {
    for (kind, driver) in combinations() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut disk, file) = prepared(directory.path());
        let expected = reactor::run(driver, async {
            let notify = Rc::new(Notify::default());
            let mut writer = LogWriter::new(kind, driver, notify.clone()).expect("a writer");
            let mut expected = vec![0; FILE_BLOCKS as usize * BLOCK_BYTES];
            let (mut block, mut number) = (0, 0);
            let mut in_flight = BTreeMap::new();
            while block < FILE_BLOCKS - 16 || !in_flight.is_empty() {
                while in_flight.len() < 4 && block < FILE_BLOCKS - 16 {
                    number += 1;
                    let blocks = 1 + (number as u32 * 7) % 16;
                    let bytes = blocks as usize * BLOCK_BYTES;
                    let start = block as usize * BLOCK_BYTES;
                    expected[start..start + bytes].fill(number as u8);
                    writer.submit(&file, group(number, block, blocks));
                    in_flight.insert(GroupNumber(number), bytes);
                    block += blocks;
                }
                let completion = completion(&mut writer, &notify).await;
                let bytes = in_flight.remove(&completion.group).expect("answered once");
                assert_eq!(
                    completion.result,
                    WriteResult::Durable(bytes),
                    "{kind:?} {driver:?}"
                );
                assert_eq!(
                    completion.buffer.len(),
                    16 * BLOCK_BYTES,
                    "the buffer is the same"
                );
            }
            assert_eq!(writer.in_flight(), 0);
            assert!(writer.poll_completion().is_none());
            expected
        })
        .expect("a reactor");
        let mut found = vec![0; expected.len()];
        disk.read(&file, 0, &mut found).expect("a sound disk");
        assert!(found == expected, "{kind:?} {driver:?}");
    }
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

/// Starts a lane, and appends some records of all lengths. Returns the records there before and
/// now.
fn run_lane(path: &Path, kind: LogWriterKind, driver: DriverInUse, draw: u8) -> [Vec<Vec<u8>>; 2] {
    let config = StartConfig {
        lane: LaneId(1),
        group: Config {
            group_blocks_max: 16,
            segment_blocks: 64,
            ..Config::default()
        },
        segments_max: 64,
        key: None,
        expect_existing: false,
        accept_loss: false,
        applied_lsn: Lsn::NONE,
    };
    let seed = |draw| SegmentSeed {
        incarnation: [draw; 16],
        data_key: SecretKey::new([draw; 32]),
        wrap_nonce: [draw; 12],
    };
    let mut found = Payloads::default();
    let disk = FileDisk::open(path, true).expect("a directory");
    let started = start(&config, disk, &seed(draw), 0, &mut found).expect("the lane starts");
    let mut pool = started.pool;
    let all = reactor::run(driver, async {
        let notify = Rc::new(Notify::default());
        let writer = LogWriter::new(kind, driver, notify.clone()).expect("a writer");
        let mut lane = Lane::new(
            started.commit,
            started.active,
            started.closed,
            Tail::default(),
            writer,
        );
        let mut all = found.0.clone();
        for round in 1..=40 {
            while lane.segments_wanted() > 0 {
                let seed = seed(draw + round);
                let prepared = pool.prepare(&seed, 0, lane.durable());
                lane.handle_segment(prepared.expect("there is space"));
            }
            let mut last = Lsn::NONE;
            for number in 0..4 {
                let payload = vec![round; 1 + usize::from(round) * 37 + number * 2_000];
                last = lane
                    .append_strong(0, TargetId(1), payload.as_slice().into())
                    .expect("there is room");
                all.push(payload);
                lane.turn(0);
            }
            while lane.turn(0) < last {
                assert_eq!(lane.poisoned(), None);
                notify.notified().await;
            }
        }
        // The ring closes its descriptors when it is entered once more.
        drop(lane);
        reactor::sleep(std::time::Duration::from_millis(1)).await;
        all
    })
    .expect("a reactor");
    [found.0, all]
}

#[test]
fn a_lane_that_ran_on_a_shard_is_found_by_the_next_start() {
    for (kind, driver) in combinations() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [nothing, first] = run_lane(directory.path(), kind, driver, 1);
        let [found, second] = run_lane(directory.path(), kind, driver, 60);
        let [found_again, _] = run_lane(directory.path(), kind, driver, 120);
        assert!(nothing.is_empty());
        assert!(found == first && found_again == second, "{kind:?} {driver:?}");
        assert_eq!(second.len(), 320);
    }
}

#[test]
fn a_write_that_the_kernel_refuses_is_reported_with_its_number() {
    for (kind, driver) in combinations() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (disk, file) = prepared(directory.path());
        if !disk.is_direct() {
            eprintln!("no direct writes here, so none that the kernel refuses");
            return;
        }
        reactor::run(driver, async {
            let notify = Rc::new(Notify::default());
            let mut writer = LogWriter::new(kind, driver, notify.clone()).expect("a writer");
            let (storage, range) = AlignedBuffer::zeroed(BLOCK_BYTES).into_parts();
            // One byte off every alignment that a device could accept.
            let start = if range.start == 0 { 1 } else { range.start - 1 };
            let crooked = AlignedBuffer::from_parts(storage, start..start + BLOCK_BYTES);
            let write = WriteAction {
                buffer: crooked,
                ..group(1, 0, 1)
            };
            writer.submit(&file, write);
            let completion = completion(&mut writer, &notify).await;
            assert_eq!(
                completion.result,
                WriteResult::Failed(Errno::INVAL.raw_os_error())
            );
            assert_eq!(writer.in_flight(), 0);
        })
        .expect("a reactor");
    }
}

#[test]
fn a_file_stays_locked_as_long_as_the_ring_has_it() {
    let Ok(driver) = DriverInUse::choose(DriverChoice::IoUring) else {
        eprintln!("io_uring is forbidden here: the ring is not tested");
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mut disk, file) = prepared(directory.path());
    let other = File::open(directory.path().join("segment")).expect("it is there");
    let lock = || flock(&other, FlockOperation::NonBlockingLockExclusive);
    reactor::run(driver, async {
        let notify = Rc::new(Notify::default());
        let mut writer = LogWriter::new(LogWriterKind::Ring, driver, notify.clone()).expect("a writer");
        assert_eq!(lock(), Err(Errno::WOULDBLOCK), "the log's own lock");
        writer.submit(&file, group(1, 0, 1));
        completion(&mut writer, &notify).await;
        assert_eq!(lock(), Err(Errno::WOULDBLOCK), "shared by both descriptors");
        drop(file);
        assert_eq!(lock(), Err(Errno::WOULDBLOCK), "the ring's descriptor is open");
        // The lane's next turn polls for completions; the ring then closes files that the lane has
        // released.
        assert!(writer.poll_completion().is_none());
        reactor::sleep(std::time::Duration::from_millis(1)).await;
        disk.open("segment").expect("nobody else has it");
    })
    .expect("a reactor");
}

#[test]
fn out_of_descriptors_the_threads_write() {
    // The limit is the whole process's, so the test gets one of its own.
    let own = std::env::current_exe().expect("the tests");
    let name = concat!(module_path!(), "::with_few_descriptors");
    let name = name.split_once("::").expect("a crate and a path").1;
    let run = Command::new(own).args(["--ignored", "--exact", name]).output();
    let run = run.expect("it starts");
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "needs a process of its own: out_of_descriptors_the_threads_write runs it"]
fn with_few_descriptors() {
    let Ok(driver) = DriverInUse::choose(DriverChoice::IoUring) else {
        eprintln!("io_uring is forbidden here: the ring is not tested");
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (_disk, file) = prepared(directory.path());
    reactor::run(driver, async {
        let notify = Rc::new(Notify::default());
        let mut writer = LogWriter::new(LogWriterKind::Ring, driver, notify.clone()).expect("a writer");
        let limit = getrlimit(Resource::Nofile);
        let none_is_left = Rlimit {
            current: Some(0),
            ..limit
        };
        setrlimit(Resource::Nofile, none_is_left).expect("less is always allowed");
        assert_eq!(
            File::open("/dev/null").expect_err("none is left").raw_os_error(),
            Some(Errno::MFILE.raw_os_error())
        );
        writer.submit(&file, group(1, 0, 1));
        let done = completion(&mut writer, &notify).await;
        assert_eq!(done.result, WriteResult::Durable(BLOCK_BYTES));
        let opened = |writer: &LogWriter| writer.ring.as_ref().map(|(ring, _)| ring.files.len());
        assert_eq!(opened(&writer), Some(0), "the ring has no file");
        setrlimit(Resource::Nofile, limit).expect("what it was");
        writer.submit(&file, group(2, 1, 1));
        let done = completion(&mut writer, &notify).await;
        assert_eq!(done.result, WriteResult::Durable(BLOCK_BYTES));
        assert_eq!(opened(&writer), Some(1), "the ring writes again");
    })
    .expect("a reactor");
}

#[test]
fn interruptions_short_writes_and_errors_are_told_apart() {
    let of = |number: Errno| write_result(&Err(io::Error::from(number)));
    assert_eq!(write_result(&Ok(512)), WriteResult::Durable(512));
    assert_eq!(of(Errno::INTR), WriteResult::Interrupted);
    assert_eq!(of(Errno::AGAIN), WriteResult::Interrupted);
    assert_eq!(of(Errno::IO), WriteResult::Failed(Errno::IO.raw_os_error()));
    // The outcome of a cancelled write is unknown, so it counts as failed.
    assert_eq!(
        of(Errno::CANCELED),
        WriteResult::Failed(Errno::CANCELED.raw_os_error())
    );
    let nameless = write_result(&Err(io::ErrorKind::Other.into()));
    assert_eq!(nameless, WriteResult::Failed(Errno::IO.raw_os_error()));
}
