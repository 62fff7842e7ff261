//! Bounded-exhaustive crash states: every sequence of four operations (and so of fewer), a crash
//! before every operation of the disk, every subset of the sectors at stake there (a selection
//! where there are many). A start must find a whole prefix with everything acknowledged, and must
//! not call it damage.
//!
//! `WAL_CRASH_STATES` bounds the states tried (default 300,000, enough for every sequence and every
//! moment). Every moment gets at least two; what is left goes to those with most at stake.

mod sim;

use std::rc::Rc;

use prism_wal::disk::sim::{Crash, SimDisk};
use prism_wal::ids::TargetId;
use prism_wal::record::RecordKind;
use sim::{Rng, World, env_or, small_config};

#[derive(Clone, Copy, Debug)]
enum Operation {
    Small,
    TwoBlocks,
    Burst,
    Eventual,
    Mark,
    Recycle,
}

const OPERATIONS: [Operation; 6] = [
    Operation::Small,
    Operation::TwoBlocks,
    Operation::Burst,
    Operation::Eventual,
    Operation::Mark,
    Operation::Recycle,
];

/// Sequences of four operations.
const SEQUENCES: u64 = (OPERATIONS.len() as u64).pow(4);

/// Every sequence is run with one, two and three groups in flight.
const DEPTHS: u64 = 3;

/// The work is split, so that two cores share it.
const PARTS: u64 = 4;

/// Subsets of more sectors than this are never all tried.
const SECTORS_MAX: usize = 14;

#[test]
fn every_crash_state_of_short_sequences_recovers_part_1() {
    explore(0);
}

#[test]
fn every_crash_state_of_short_sequences_recovers_part_2() {
    explore(1);
}

#[test]
fn every_crash_state_of_short_sequences_recovers_part_3() {
    explore(2);
}

#[test]
fn every_crash_state_of_short_sequences_recovers_part_4() {
    explore(3);
}

fn explore(part: u64) {
    let budget = env_or("WAL_CRASH_STATES", 300_000) / PARTS;
    let mut runs: Vec<u64> = (0..SEQUENCES * DEPTHS)
        .filter(|run| run % PARTS == part)
        .collect();
    // In any order, so that a small budget, and the sample, see runs of all sorts.
    let mut rng = Rng(part);
    for index in (1..runs.len()).rev() {
        runs.swap(index, rng.below(index + 1));
    }
    let most = states_per_moment(&runs, budget);
    let (mut states, mut moments) = (0, 0);
    for run in &runs {
        if states >= budget {
            break;
        }
        let explored = std::panic::catch_unwind(|| {
            let found = self::moments(*run);
            let mut rng = Rng(*run);
            let states: u64 = found
                .iter()
                .map(|moment| crash_states(moment, &mut rng, most))
                .sum();
            (states, found.len() as u64)
        });
        match explored {
            Ok((more_states, more_moments)) => {
                states += more_states;
                moments += more_moments;
            }
            Err(panic) => {
                let (sequence, depth) = decode(*run);
                eprintln!("run {run}: {sequence:?} at depth {depth}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!(
        "part {part}: {states} crash states in {moments} moments, at most {} each",
        most
    );
    assert!(states >= budget * 6 / 10, "too few states: {states} of {budget}");
}

/// How many states of each kind of crash a moment may have so that all together keep to the budget,
/// judged by a sample of the runs.
fn states_per_moment(runs: &[u64], budget: u64) -> u64 {
    const SAMPLE: usize = 48;
    let possible: Vec<u64> = runs[..SAMPLE]
        .iter()
        .flat_map(|run| moments(*run))
        .flat_map(|moment| CRASHES.map(|crash| subsets(moment.disk.sectors_at_stake(crash))))
        .collect();
    let total = |most: u64| -> u64 {
        let sampled: u64 = possible.iter().map(|subsets| (*subsets).min(most)).sum();
        sampled * runs.len() as u64 / SAMPLE as u64
    };
    let mut most = 1;
    while most < 1 << SECTORS_MAX && total(most + 1) <= budget {
        most += 1;
    }
    most
}

const CRASHES: [Crash; 2] = [Crash::PowerCut, Crash::Kill];

fn subsets(sectors: usize) -> u64 {
    1 << sectors.min(SECTORS_MAX)
}

fn decode(run: u64) -> ([Operation; 4], usize) {
    let mut sequence = run / DEPTHS;
    let operations = core::array::from_fn(|_| {
        let operation = OPERATIONS[(sequence % OPERATIONS.len() as u64) as usize];
        sequence /= OPERATIONS.len() as u64;
        operation
    });
    (operations, (run % DEPTHS) as usize + 1)
}

/// A moment at which the machine may stop: the disk, and what the checker knew then at least.
struct Moment {
    disk: SimDisk,
    world: Rc<World>,
}

/// Every moment before an operation of the disk, from the second append of a lane to the end of a
/// sequence.
fn moments(run: u64) -> Vec<Moment> {
    let (sequence, depth) = decode(run);
    let mut world = World::new(small_config(depth), run);
    world.start().expect("the first start");
    // A little history, so that there is something to lose.
    world
        .append(RecordKind::Strong, TargetId(1), 50)
        .expect("an empty lane takes a record");
    world.settle();
    world.disk.keep_history();
    let mut moments = Vec::new();
    for operation in sequence {
        perform(&mut world, operation, &mut moments);
        step(&mut world, &mut moments, World::turn);
        if world.rng.chance(60) {
            step(&mut world, &mut moments, World::complete_one);
            step(&mut world, &mut moments, World::turn);
        }
    }
    moments
}

fn perform(world: &mut World, operation: Operation, moments: &mut Vec<Moment>) {
    match operation {
        Operation::Small => {
            let _ = world.append(RecordKind::Strong, TargetId(1), 40);
        }
        Operation::TwoBlocks => {
            let _ = world.append(RecordKind::Strong, TargetId(2), 5000);
        }
        Operation::Burst => {
            for bytes in [10, 3000, 2500] {
                let _ = world.append(RecordKind::Strong, TargetId(1), bytes);
            }
        }
        Operation::Eventual => {
            let _ = world.append(RecordKind::Eventual, TargetId(2), 60);
            world.now += 20_000_000;
        }
        Operation::Mark => {
            world.now += 20_000_000;
        }
        Operation::Recycle => {
            step(world, moments, World::prepare);
            world.apply(TargetId(1), 100);
            world.apply(TargetId(2), 100);
            let _ = world.checkpoint();
            step(world, moments, World::settle);
            step(world, moments, World::recycle);
        }
    }
}

/// Takes a step and notes the moments within it and the one after it. Within a step, what was
/// acknowledged before it must be found, and what was appended by its end may be.
fn step(world: &mut World, moments: &mut Vec<Moment>, step: fn(&mut World)) {
    let acked = world.journal.acked;
    step(world);
    let mut within = world.crashed_copy();
    within.journal.acked = acked;
    let within = Rc::new(within);
    for disk in world.disk.take_history() {
        let world = Rc::clone(&within);
        moments.push(Moment { disk, world });
    }
    let behind = Rc::new(world.crashed_copy());
    moments.push(Moment {
        disk: behind.disk.snapshot(),
        world: behind,
    });
}

/// Tries up to `most` crashes of each kind.
fn crash_states(moment: &Moment, rng: &mut Rng, most: u64) -> u64 {
    let mut states = 0;
    for crash in CRASHES {
        let sectors = moment.disk.sectors_at_stake(crash);
        for mask in masks(sectors, rng, most as usize) {
            let mut world = moment.world.crashed_copy();
            world.disk = moment.disk.snapshot();
            let names = rng.below(world.disk.names_at_stake() + 1);
            world.disk.crash(crash, names, |sector| mask[sector]);
            if crash == Crash::PowerCut {
                world.cut_stores();
            }
            check(&mut world, rng);
            states += 1;
        }
    }
    states
}

/// All subsets if there are at most `most`; else prefixes, suffixes, single ones missing or
/// present, and random ones.
fn masks(sectors: usize, rng: &mut Rng, most: usize) -> Vec<Vec<bool>> {
    let mut masks = Vec::new();
    if sectors <= SECTORS_MAX && 1 << sectors <= most {
        for bits in 0..1_u32 << sectors {
            masks.push((0..sectors).map(|sector| bits >> sector & 1 == 1).collect());
        }
        return masks;
    }
    for at in 0..=sectors {
        masks.push((0..sectors).map(|sector| sector < at).collect());
        masks.push((0..sectors).map(|sector| sector >= at).collect());
        masks.push((0..sectors).map(|sector| sector != at).collect());
        masks.push((0..sectors).map(|sector| sector == at).collect());
    }
    while masks.len() < most.max(4 * sectors + 36) {
        masks.push((0..sectors).map(|_| rng.chance(50)).collect());
    }
    // A random selection, so that a small budget does not always spend itself on the same ones.
    for index in (1..masks.len()).rev() {
        masks.swap(index, rng.below(index + 1));
    }
    masks.truncate(most.max(1));
    masks
}

/// The start finds the log, the lane works on, and a second start finds that too.
fn check(world: &mut World, rng: &mut Rng) {
    world
        .start()
        .unwrap_or_else(|error| panic!("a crash is never damage: {error}"));
    if rng.chance(10) {
        world
            .append(RecordKind::Strong, TargetId(1), 70)
            .expect("a fresh epoch takes a record");
        world.settle();
        world.crash(Crash::PowerCut);
        world
            .start()
            .unwrap_or_else(|error| panic!("a crash is never damage: {error}"));
    }
}
