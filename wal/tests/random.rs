//! Random lives of a lane, by seed: work, completions in any order, power cuts and kills at any
//! moment, also during a start, faults of the disk, full disks. After each crash the checker judges
//! what is left.
//!
//! `WAL_SIM_SEED` and `WAL_SIM_COUNT` choose the seeds (default: a thousand from 1;
//! `make sim SEED=… COUNT=…`). A failure names the seed that repeats it; [`REGRESSIONS`] keeps
//! those that once failed.

mod sim;

use prism_wal::disk::sim::{Crash, Fault};
use prism_wal::disk::{Disk, DiskErrorKind};
use prism_wal::ids::TargetId;
use prism_wal::record::RecordKind;
use prism_wal::start::StartError;
use sim::{Rng, World, env_or, is_disk_error, small_config};

/// Seeds that once found something; in the order found.
///
/// - 203: a start that died after it had dropped a segment with the remains of a torn end was held
///   against the lane.
const REGRESSIONS: [u64; 1] = [203];

#[test]
fn nothing_acknowledged_is_lost_in_random_lives() {
    let first = env_or("WAL_SIM_SEED", 1);
    let count = env_or("WAL_SIM_COUNT", 1000);
    let mut tally = Tally::default();
    for seed in REGRESSIONS.into_iter().chain(first..first.saturating_add(count)) {
        let result = std::panic::catch_unwind(|| {
            let mut tally = Tally::default();
            live(seed, &mut tally);
            tally
        });
        match result {
            Ok(one) => tally.add(&one),
            Err(panic) => {
                eprintln!("seed {seed}; to repeat it: make sim SEED={seed} COUNT=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{count} seeds from {first}: {tally:?}");
    // Each of these must happen, or the simulation does not test what it says.
    if count >= 200 {
        let Tally {
            crashes,
            torn,
            refused_full,
            crashes_in_start,
            recycled,
            poisoned,
            acked,
            came_back,
            ..
        } = tally;
        for (name, value) in [
            ("crashes", crashes),
            ("torn ends", torn),
            ("refusals for want of a segment", refused_full),
            ("crashes in a start", crashes_in_start),
            ("recycled segments", recycled),
            ("poisoned lanes", poisoned),
            ("acknowledged records", acked),
            ("full lanes that came back", came_back),
        ] {
            assert!(value > 0, "{name}: none");
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    crashes: u64,
    torn: u64,
    refused_full: u64,
    crashes_in_start: u64,
    recycled: u64,
    poisoned: u64,
    acked: u64,
    starts_without_space: u64,
    closed: u64,
    came_back: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.refused_full += other.refused_full;
        self.crashes_in_start += other.crashes_in_start;
        self.recycled += other.recycled;
        self.poisoned += other.poisoned;
        self.acked += other.acked;
        self.closed += other.closed;
        self.came_back += other.came_back;
        self.starts_without_space += other.starts_without_space;
    }
}

fn live(seed: u64, tally: &mut Tally) {
    let mut choices = Rng(seed ^ 0xabcd_ef01_2345_6789);
    let mut config = small_config(1 + choices.below(4));
    if choices.chance(50) {
        config.key = None;
    }
    // Every other life meets its limits more often, with checkpoints of one block to four.
    let mut limits = seed
        .is_multiple_of(2)
        .then_some(Rng(seed ^ 0x0123_4567_89ab_cdef));
    let mut targets = 3;
    if let Some(limits) = &mut limits {
        config.segments_max = 2 + limits.below(7);
        if limits.chance(50) {
            config.group.segment_blocks = 20;
            targets += limits.below(1300) as u32;
        }
    }
    let mut world = World::new(config, seed);
    world.start().expect("the first start");
    world.prepare();
    if targets > 3 {
        world.greet(targets);
    }
    for _ in 0..3 + choices.below(6) {
        let steps = 5 + choices.below(60);
        for _ in 0..steps {
            step(&mut world, &mut choices, tally);
        }
        if choices.chance(20) {
            world.disk.fail_from(
                world.disk.operations() + choices.below(6) as u64,
                fault(&mut choices),
            );
            for _ in 0..20 {
                step(&mut world, &mut choices, tally);
            }
        }
        if let Some(limits) = &mut limits {
            fill_and_come_back(&mut world, limits, tally);
        }
        if choices.chance(15) {
            world.disk.heal();
            world.close();
            tally.closed += 1;
            restart(&mut world, &mut choices, tally);
            continue;
        }
        let crash = if choices.chance(50) {
            Crash::PowerCut
        } else {
            Crash::Kill
        };
        let running = world.running.as_ref().expect("the lane runs");
        tally.poisoned += u64::from(running.lane.poisoned().is_some());
        tally.acked = tally.acked.max(world.journal.acked);
        world.crash(crash);
        tally.crashes += 1;
        restart(&mut world, &mut choices, tally);
    }
    // Everything acknowledged reaches its store in the end.
    world.disk.limit_capacity(None);
    world.disk.heal();
    world.idle();
    for target in 0..3 {
        world.apply(TargetId(target), usize::MAX);
    }
    world.journal.finish();
}

/// The lane runs full while the stores lag, and the log keeps its cursors as well as it can. Once
/// the stores have caught up, it takes records again; the disk need not have become larger.
fn fill_and_come_back(world: &mut World, limits: &mut Rng, tally: &mut Tally) {
    world.disk.heal();
    world.settle();
    if world
        .running
        .as_ref()
        .is_none_or(|running| running.lane.poisoned().is_some())
    {
        return;
    }
    if limits.chance(50) {
        world.disk.limit_capacity(Some(150_000 + limits.next() % 250_000));
    }
    world.fill(3);
    for _ in 0..limits.below(12) {
        let target = TargetId(limits.below(3) as u32);
        match limits.below(4) {
            0 | 1 => world.apply(target, 1 + limits.below(4)),
            2 => world.keep_cursors(),
            _ => {
                let _ = world.append(RecordKind::Strong, target, limits.below(6000));
                world.idle();
            }
        }
    }
    world.catch_up();
    // On a full disk it takes a file to be reused; without even the reserve there is none.
    let running = world.running.as_ref().expect("the lane runs");
    let stuck = running.lane.commit().ready_segments() == 0 && !world.has_reserve();
    if !stuck {
        world
            .append(RecordKind::Strong, TargetId(0), 3000)
            .expect("everything is applied, so there is room again");
        tally.came_back += 1;
    }
}

fn restart(world: &mut World, choices: &mut Rng, tally: &mut Tally) {
    // Some starts die on the way, up to three times in a row.
    for _ in 0..choices.below(4) {
        world.disk.fail_from(
            world.disk.operations() + choices.below(30) as u64,
            Fault::Error(DiskErrorKind::Io(5)),
        );
        match world.start() {
            Ok(_) => {}
            Err(error) if is_disk_error(&error) => tally.crashes_in_start += 1,
            // A header or a block that cannot be read now is reported as such.
            Err(StartError::Refused(_)) => tally.crashes_in_start += 1,
            Err(error) => panic!("{error}"),
        }
        let crash = if choices.chance(50) {
            Crash::PowerCut
        } else {
            Crash::Kill
        };
        world.crash(crash);
    }
    world.disk.heal();
    let mut result = world.start();
    // The reserve makes one start possible on a full disk; when it is used up, the operator makes
    // room.
    if matches!(&result, Err(StartError::Disk(error)) if error.kind == DiskErrorKind::NoSpace) {
        tally.starts_without_space += 1;
        world.disk.limit_capacity(None);
        result = world.start();
    }
    let recovery = result.unwrap_or_else(|error| panic!("a crash is never damage: {error}"));
    tally.torn += u64::from(recovery.verdict == prism_wal::recovery::Verdict::Torn);
}

fn fault(choices: &mut Rng) -> Fault {
    match choices.below(4) {
        0 => Fault::Error(DiskErrorKind::Io(5)),
        1 => Fault::Error(DiskErrorKind::NoSpace),
        2 => Fault::Short(choices.below(16)),
        _ => Fault::Interrupted,
    }
}

fn step(world: &mut World, choices: &mut Rng, tally: &mut Tally) {
    let target = TargetId(choices.below(3) as u32);
    match choices.below(100) {
        0..40 => {
            let bytes = match choices.below(10) {
                0 => choices.below(12_000),
                1 => 3900 + choices.below(200),
                _ => choices.below(300),
            };
            let kind = if choices.chance(80) {
                RecordKind::Strong
            } else {
                RecordKind::Eventual
            };
            let refused = world.append(kind, target, bytes);
            tally.refused_full += u64::from(refused == Err(prism_wal::group_commit::AppendError::NoSegment));
        }
        40..60 => world.turn(),
        60..75 => world.complete_one(),
        75..80 => world.prepare(),
        80..83 => world.apply(target, 1 + choices.below(20)),
        83..86 => world.apply_unsynced(target, 1 + choices.below(20)),
        86 => world.sync(target),
        87..90 => {
            let _ = world.checkpoint();
        }
        90..93 => {
            let before = world.segment_count();
            world.recycle();
            tally.recycled += before - world.segment_count();
        }
        93..95 => world.now += 20_000_000,
        95..97 => {
            let full = choices.chance(50).then_some(400_000);
            world.disk.limit_capacity(full);
        }
        _ => {
            world.turn();
            for _ in 0..4 {
                world.complete_one();
            }
            world.turn();
        }
    }
}

impl World {
    /// A record of every target, applied.
    fn greet(&mut self, targets: u32) {
        for target in 0..targets {
            self.append(RecordKind::Strong, TargetId(target), 1)
                .expect("there is room");
            if target % 100 == 99 {
                self.catch_up();
            }
        }
        self.catch_up();
    }

    fn has_reserve(&self) -> bool {
        let names = self.disk.clone().list().expect("a healed disk lists its files");
        names.iter().any(|name| name.ends_with(".reserve"))
    }

    fn segment_count(&self) -> u64 {
        self.running
            .as_ref()
            .map_or(0, |running| running.pool.manifest().segments.len() as u64)
    }
}
