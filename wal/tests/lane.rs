//! Promises of a lane to its driver: when it wants to be woken, and when it is drained.

mod sim;

use prism_wal::disk::DiskErrorKind;
use prism_wal::disk::sim::Fault;
use prism_wal::group_commit::AppendError;
use prism_wal::ids::{Lsn, TargetId};
use prism_wal::record::RecordKind;
use sim::{World, small_config};

const STRONG: TargetId = TargetId(1);
const EVENTUAL: TargetId = TargetId(2);
const MILLISECOND: u64 = 1_000_000;

fn started() -> World {
    let mut world = World::new(small_config(1), 17);
    world.start().expect("the first start");
    world.prepare();
    world.idle();
    world
}

fn wake(world: &World) -> Option<u64> {
    let lane = &world.running.as_ref().expect("the lane runs").lane;
    lane.next_wake(world.now).map(|at| at.saturating_sub(world.now))
}

fn is_drained(world: &World) -> bool {
    world.running.as_ref().expect("the lane runs").lane.is_drained()
}

fn checkpoint_due(world: &World) -> bool {
    world
        .running
        .as_ref()
        .expect("the lane runs")
        .lane
        .checkpoint_due()
}

/// One turn at the very time that the lane asked for.
fn turn_when_asked(world: &mut World) {
    let after = wake(world).expect("the lane waits for a time");
    // Not a moment before.
    world.now += after - 2000;
    world.turn();
    assert_eq!(world.disk.in_flight(), 0, "it did something before it asked to");
    world.turn();
}

#[test]
fn a_lane_at_rest_asks_for_nothing() {
    let world = started();
    assert_eq!(wake(&world), None);
    assert!(is_drained(&world));
}

#[test]
fn a_lane_asks_to_be_woken_for_what_only_time_brings() {
    let mut world = started();
    // Eventual records wait for company.
    world
        .append(RecordKind::Eventual, EVENTUAL, 10)
        .expect("there is room");
    assert_eq!(wake(&world), Some(10 * MILLISECOND));
    world.turn();
    turn_when_asked(&mut world);
    assert_eq!(world.disk.in_flight(), 1);
    // A write in flight: only the limits of a stalled disk.
    assert_eq!(wake(&world), Some(5_000 * MILLISECOND));
    world.now += 5_000 * MILLISECOND;
    assert_eq!(wake(&world), Some(0));
    world.turn();
    assert_eq!(wake(&world), Some(25_000 * MILLISECOND - 1000));
    world.complete_one();
    // Then the mark.
    world.turn();
    assert_eq!(wake(&world), Some(10 * MILLISECOND));
    turn_when_asked(&mut world);
    assert_eq!(world.disk.in_flight(), 1);
    world.complete_one();
    world.turn();
    assert_eq!(wake(&world), None);
    // A strong record wants a turn at once, after another only when that completes.
    world
        .append(RecordKind::Strong, STRONG, 10)
        .expect("there is room");
    assert_eq!(wake(&world), Some(0));
    world.turn();
    world
        .append(RecordKind::Strong, STRONG, 10)
        .expect("there is room");
    assert_eq!(
        wake(&world),
        Some(5_000 * MILLISECOND),
        "depth 1: only the stall limit"
    );
    // A poisoned lane waits for nothing.
    world.now += 40_000 * MILLISECOND;
    world.turn();
    assert_eq!(wake(&world), None);
}

#[test]
fn a_lane_is_drained_when_all_is_synced_and_a_checkpoint_undoes_that_for_a_moment_only() {
    let mut world = started();
    world
        .append(RecordKind::Strong, STRONG, 10)
        .expect("there is room");
    world
        .append(RecordKind::Eventual, EVENTUAL, 10)
        .expect("there is room");
    world.idle();
    assert!(!is_drained(&world), "nothing is applied");
    world.apply_unsynced(STRONG, 9);
    world.sync(EVENTUAL);
    assert!(!is_drained(&world), "applied is not synced");
    world.sync(STRONG);
    assert!(is_drained(&world));
    assert!(checkpoint_due(&world));
    world.checkpoint().expect("there is room");
    assert!(!is_drained(&world) && !checkpoint_due(&world));
    world.idle();
    assert!(is_drained(&world) && !checkpoint_due(&world));
    let end = world.journal.acked;
    world.idle();
    assert_eq!(world.journal.acked, end, "nothing more is written");
    // A start after this has nothing to replay.
    world.close();
    world.start().expect("a clean stop");
    let lane = &world.running.as_ref().expect("the lane runs").lane;
    assert_eq!(lane.tail().waiting().count(), 0);
    assert_eq!(lane.tail().applied(STRONG), Lsn(2));
    assert_eq!(lane.tail().applied(EVENTUAL), Lsn(3));
    assert!(!lane.checkpoint_due());
}

#[test]
fn a_start_replays_eventual_records_that_no_checkpoint_covers() {
    let mut world = started();
    for _ in 0..3 {
        world
            .append(RecordKind::Eventual, EVENTUAL, 10)
            .expect("there is room");
    }
    world.idle();
    world.running = None;
    world
        .disk
        .crash(prism_wal::disk::sim::Crash::PowerCut, 0, |_| false);
    // The store has lost them: it never synced.
    world.journal.stores.clear();
    world.start().expect("a crash");
    world.apply(EVENTUAL, 9);
    world.journal.finish();
}

#[test]
fn a_poisoned_lane_does_not_write_what_was_waiting() {
    let mut world = World::new(small_config(2), 17);
    world.start().expect("the first start");
    world.idle();
    world
        .append(RecordKind::Strong, STRONG, 10)
        .expect("there is room");
    world.turn();
    world
        .append(RecordKind::Eventual, EVENTUAL, 10)
        .expect("there is room");
    world.turn();
    assert_eq!(world.disk.in_flight(), 1, "the eventual one waits for company");
    let failing = Fault::Error(DiskErrorKind::Io(5));
    world.disk.fail_operation(world.disk.operations(), failing);
    world.complete_one();
    for _ in 0..5 {
        world.now += 100 * MILLISECOND;
        world.turn();
        assert_eq!(world.disk.in_flight(), 0, "nothing is written by a poisoned lane");
    }
}

#[test]
fn what_waits_to_become_durable_is_bounded() {
    let mut config = small_config(1);
    config.group.pending_bytes_max = 5000;
    let mut world = World::new(config, 18);
    world.start().expect("the first start");
    world.prepare();
    world.idle();
    for _ in 0..2 {
        world
            .append(RecordKind::Strong, STRONG, 2000)
            .expect("within the bound");
    }
    assert_eq!(
        world.append(RecordKind::Strong, STRONG, 2000),
        Err(AppendError::Full)
    );
    world
        .append(RecordKind::Strong, STRONG, 500)
        .expect("a shorter one still fits");
    world.settle();
    world
        .append(RecordKind::Strong, STRONG, 2000)
        .expect("it passes by itself");
}
