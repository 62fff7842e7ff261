//! How long a start takes on a real disk, after a clean stop and after none, with segments of the
//! default size.
//!
//! ```sh
//! cargo run --release -p prism-wal --example start_up -- [DIRECTORY]
//! ```
//!
//! Writes a few hundred MiB to a new folder below DIRECTORY (default: the current one) and removes
//! it again.

use std::error::Error;
use std::time::{Duration, Instant};

use prism_wal::cipher::SecretKey;
use prism_wal::disk::file::FileDisk;
use prism_wal::disk::threads::ThreadWriter;
use prism_wal::group_commit::Config;
use prism_wal::ids::{LaneId, Lsn, TargetId};
use prism_wal::lane::{Lane, Replay};
use prism_wal::pool::Pool;
use prism_wal::segment::SegmentSeed;
use prism_wal::start::{StartConfig, Started, start};

const TARGET: TargetId = TargetId(1);
const RECORDS: u64 = 100_000;
const ROUNDS: u8 = 6;

struct Node {
    lane: Lane<ThreadWriter>,
    pool: Pool<FileDisk>,
    began: Instant,
    draw: u8,
}

fn main() -> Result<(), Box<dyn Error>> {
    let below = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let directory = tempfile::tempdir_in(below)?;
    for round in 0..ROUNDS {
        let clean = round % 2 == 1;
        let (mut node, took, replayed) = bring_up(directory.path(), round * 40)?;
        if round > 0 {
            let before = if clean { "no clean stop" } else { "a clean stop" };
            println!("start after {before}: {took:?}, {replayed} records to replay");
        }
        node.fill()?;
        if clean {
            node.drain()?;
        }
        // Let the disk come to rest, so that a start is not billed for what was before it.
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(())
}

fn bring_up(path: &std::path::Path, draw: u8) -> Result<(Node, Duration, usize), Box<dyn Error>> {
    let config = StartConfig {
        lane: LaneId(0),
        group: Config::default(),
        segments_max: 64,
        key: None,
        expect_existing: false,
        applied_lsn: Lsn::NONE,
        accept_loss: false,
    };
    let mut replay = Replay::default();
    let began = Instant::now();
    let disk = FileDisk::open(path, true)?;
    let started = start(&config, disk, &seed(draw), 0, &mut replay)?;
    let took = began.elapsed();
    let Started {
        pool,
        commit,
        active,
        closed,
        ..
    } = started;
    let tail = replay.into_tail();
    let replayed = tail.unapplied(TARGET).records;
    let writer = ThreadWriter::start(2, Box::new(|| {}))?;
    let node = Node {
        lane: Lane::new(commit, active, closed, tail, writer),
        pool,
        began: Instant::now(),
        draw,
    };
    Ok((node, took, replayed))
}

fn seed(draw: u8) -> SegmentSeed {
    SegmentSeed {
        incarnation: [draw; 16],
        data_key: SecretKey::new([draw; 32]),
        wrap_nonce: [draw; 12],
    }
}

impl Node {
    fn turn(&mut self) -> Lsn {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.lane.turn(now)
    }

    fn prepare(&mut self) -> Result<(), Box<dyn Error>> {
        while self.lane.segments_wanted() > 0 {
            self.draw += 1;
            let prepared = self.pool.prepare(&seed(self.draw), 0, self.lane.durable())?;
            self.lane.handle_segment(prepared);
        }
        Ok(())
    }

    /// Appends records of 128 bytes and waits until they are durable.
    fn fill(&mut self) -> Result<(), Box<dyn Error>> {
        self.prepare()?;
        let payload = prism_wal::tail::Payload::from(&[7; 128][..]);
        for number in 0..RECORDS {
            self.lane.append_strong(0, TARGET, payload.clone())?;
            if number % 500 == 0 {
                self.settle(Lsn::NONE);
                self.prepare()?;
            }
        }
        let last = self.lane.commit().appended_lsn();
        self.settle(last);
        Ok(())
    }

    fn settle(&mut self, lsn: Lsn) {
        while self.turn() < lsn {
            let _ = self.lane.writer().wait(Duration::from_millis(10));
        }
    }

    /// Applies everything, checkpoints, waits for the mark, recycles and closes.
    fn drain(mut self) -> Result<(), Box<dyn Error>> {
        let last = self.lane.commit().appended_lsn();
        self.lane.handle_synced(TARGET, last);
        let checkpoint = self.lane.checkpoint(0)?;
        self.settle(checkpoint);
        while !self.lane.is_drained() {
            let _ = self.lane.writer().wait(Duration::from_millis(5));
            self.turn();
        }
        while let Some(segment) = self.lane.poll_recyclable() {
            self.pool.recycle(segment, self.lane.durable())?;
        }
        self.pool.close(self.lane.durable())?;
        Ok(())
    }
}
