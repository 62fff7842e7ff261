//! Bounded-exhaustive crash states: every short sequence of operations, a crash after every event, every subset of
//! the sectors at stake (sampled when there are many). A start must find a whole prefix with everything acknowledged,
//! and must not call it damage.
//!
//! `WAL_CRASH_STATES` bounds the states tried (default 20,000); they are spread evenly over all sequences.

mod sim;

use prism_wal::disk::sim::Crash;
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

#[test]
fn every_crash_state_of_short_sequences_recovers() {
    let budget = env_or("WAL_CRASH_STATES", 20_000);
    let sequences = OPERATIONS.len().pow(4) as u64;
    let mut explorer = Explorer {
        states: 0,
        budget,
        per_sequence: budget.div_ceil(sequences * 3).max(2),
    };
    // A stride coprime to the number of sequences visits them all, far apart from one another.
    for number in 0..sequences {
        for depth in 1..=3 {
            if explorer.states >= budget {
                break;
            }
            let sequence = number * 577 % sequences;
            let result =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| explorer.explore(sequence, depth)));
            if let Err(panic) = result {
                eprintln!("sequence {sequence} at depth {depth}: {:?}", decode(sequence));
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{} crash states", explorer.states);
    assert!(
        explorer.states >= budget.min(1000),
        "too few states: {}",
        explorer.states
    );
}

fn decode(mut sequence: u64) -> [Operation; 4] {
    core::array::from_fn(|_| {
        let operation = OPERATIONS[(sequence % OPERATIONS.len() as u64) as usize];
        sequence /= OPERATIONS.len() as u64;
        operation
    })
}

struct Explorer {
    states: u64,
    budget: u64,
    per_sequence: u64,
}

impl Explorer {
    fn explore(&mut self, sequence: u64, depth: usize) {
        let until = self.states + self.per_sequence;
        let mut world = World::new(small_config(depth), sequence * 7 + depth as u64);
        world.start().expect("the first start");
        // A little history, so that there is something to lose.
        world
            .append(RecordKind::Strong, TargetId(1), 50)
            .expect("an empty lane takes a record");
        world.settle();
        let mut events = Vec::new();
        for operation in decode(sequence) {
            perform(&mut world, operation);
            events.push(world.crashed_copy());
            world.turn();
            events.push(world.crashed_copy());
            if world.rng.chance(60) {
                world.complete_one();
                events.push(world.crashed_copy());
                world.turn();
                events.push(world.crashed_copy());
            }
        }
        let mut rng = Rng(sequence);
        // The budget goes to events in a random order: the late ones are the interesting ones.
        while self.states < until {
            let event = &events[rng.below(events.len())];
            self.crash_states(event, &mut rng, until);
        }
    }

    fn crash_states(&mut self, event: &World, rng: &mut Rng, until: u64) {
        for crash in [Crash::PowerCut, Crash::Kill] {
            let sectors = event.disk.sectors_at_stake(crash);
            for mask in masks(sectors, rng, (until - self.states) as usize) {
                let names = rng.below(event.disk.names_at_stake() + 1);
                let mut world = event.crashed_copy();
                world.disk.crash(crash, names, |sector| mask[sector]);
                if crash == Crash::PowerCut {
                    world.cut_stores();
                }
                check(&mut world, rng);
                self.states += 1;
                if self.states >= until.min(self.budget) {
                    return;
                }
            }
        }
    }
}

fn perform(world: &mut World, operation: Operation) {
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
            world.prepare();
            world.apply(TargetId(1), 100);
            world.apply(TargetId(2), 100);
            let _ = world.checkpoint();
            world.settle();
            world.recycle();
        }
    }
}

/// All subsets of up to 14 sectors, else prefixes, suffixes, single ones missing or present, and random ones.
fn masks(sectors: usize, rng: &mut Rng, most: usize) -> Vec<Vec<bool>> {
    let mut masks = Vec::new();
    if sectors <= 14 && 1 << sectors <= most {
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
    for _ in 0..32 {
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
