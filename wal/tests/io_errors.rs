//! The k-th operation of the disk fails: every k of a workload, every kind of error, once and for
//! good. Nothing acknowledged is lost, nothing is acknowledged after a lane is poisoned, nothing
//! hangs.

mod sim;

use prism_wal::disk::DiskErrorKind;
use prism_wal::disk::sim::{Crash, Fault};
use prism_wal::group_commit::AppendError;
use prism_wal::ids::TargetId;
use prism_wal::record::RecordKind;
use sim::{World, is_disk_error, small_config};

const FAULTS: [Fault; 7] = [
    Fault::Error(DiskErrorKind::Io(5)),
    Fault::Error(DiskErrorKind::NoSpace),
    Fault::Error(DiskErrorKind::Io(30)),
    Fault::Error(DiskErrorKind::Io(110)),
    Fault::Short(0),
    Fault::Short(3),
    Fault::Interrupted,
];

/// A workload that starts, fills segments, applies, recycles, crashes and starts again.
fn work(world: &mut World) {
    for round in 0..14 {
        for bytes in [100, 3000] {
            let _ = world.append(RecordKind::Strong, TargetId(1), bytes);
        }
        world.settle();
        world.apply(TargetId(1), 3);
        if round % 3 == 2 {
            let _ = world.checkpoint();
            world.settle();
            world.recycle();
        }
    }
}

fn healthy_operations() -> (u64, u64) {
    let mut world = World::new(small_config(2), 3);
    world.start().expect("the first start");
    let started = world.disk.operations();
    work(&mut world);
    (started, world.disk.operations())
}

#[test]
fn no_error_at_any_operation_loses_or_hangs() {
    let (_, operations) = healthy_operations();
    let (mut cases, mut poisoned) = (0, 0);
    for number in 0..operations {
        for fault in FAULTS {
            for sticky in [false, true] {
                cases += 1;
                let mut world = World::new(small_config(2), 3);
                if sticky {
                    world.disk.fail_from(number, fault)
                } else {
                    world.disk.fail_operation(number, fault)
                }
                let what = format!("operation {number}: {fault:?}, sticky: {sticky}");
                match world.start() {
                    Ok(_) => work(&mut world),
                    Err(error) => assert!(is_disk_error(&error), "{what}: {error}"),
                }
                poisoned += u32::from(
                    world
                        .running
                        .as_ref()
                        .is_some_and(|running| running.lane.poisoned().is_some()),
                );
                world.crash(if number % 2 == 0 {
                    Crash::PowerCut
                } else {
                    Crash::Kill
                });
                world.start().unwrap_or_else(|error| panic!("{what}: {error}"));
                world
                    .append(RecordKind::Strong, TargetId(1), 10)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                world.settle();
            }
        }
    }
    println!("{operations} operations, {cases} cases, {poisoned} poisoned");
    assert!(poisoned > 50);
}

#[test]
fn a_start_that_dies_at_any_operation_can_be_repeated() {
    // Four groups in flight, over the edge of a segment; the first is lost, so the others are
    // remains that a start drops, one of them with its whole segment.
    let mut world = World::new(small_config(4), 3);
    world.start().expect("the first start");
    world.prepare();
    world.append_groups(4, 5000);
    world.cut_power_losing_first_of(4);
    for crash in [Crash::PowerCut, Crash::Kill] {
        for number in 0.. {
            let mut world = world.crashed_copy();
            let at = world.disk.operations() + number;
            world.disk.fail_from(at, Fault::Error(DiskErrorKind::Io(5)));
            let done = world.start().is_ok();
            world.crash(crash);
            world.disk.heal();
            world
                .start()
                .unwrap_or_else(|error| panic!("{crash:?} at operation {number} of a start: {error}"));
            if done {
                assert!(number > 20, "a start takes more than {number} operations");
                break;
            }
        }
    }
}

#[test]
fn after_a_failed_write_of_the_manifest_a_torn_one_still_leaves_a_good_slot() {
    let mut tried = 0;
    for number in 0..14 {
        let mut world = World::new(small_config(2), 3);
        world.start().expect("the first start");
        let at = world.disk.operations() + number;
        world.disk.fail_operation(at, Fault::Error(DiskErrorKind::Io(5)));
        world.prepare();
        world.disk.keep_history();
        world.prepare();
        for disk in world.disk.take_history() {
            for kept in 0..3 {
                let mut copy = world.crashed_copy();
                copy.disk = disk.snapshot();
                let names = copy.disk.names_at_stake();
                copy.disk.crash(Crash::PowerCut, names, |sector| {
                    kept == 2 || kept == 1 && sector % 2 == 0
                });
                copy.start()
                    .unwrap_or_else(|error| panic!("operation {number} failed, then a power cut: {error}"));
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn a_failed_write_poisons_and_is_not_tried_again() {
    let mut world = World::new(small_config(2), 3);
    world.start().expect("the first start");
    world
        .append(RecordKind::Strong, TargetId(1), 10)
        .expect("there is room");
    world.turn();
    world
        .disk
        .fail_operation(world.disk.operations(), Fault::Error(DiskErrorKind::Io(5)));
    world.disk.complete(0);
    world.turn();
    assert_eq!(
        world.append(RecordKind::Strong, TargetId(1), 10),
        Err(AppendError::Poisoned)
    );
    for _ in 0..50 {
        world.now += 100_000_000;
        world.turn();
        assert_eq!(world.disk.in_flight(), 0, "nothing is written by a poisoned lane");
    }
}

#[test]
fn a_short_or_interrupted_write_is_repeated_once() {
    for fault in [Fault::Short(2), Fault::Interrupted] {
        let mut world = World::new(small_config(2), 3);
        world.start().expect("the first start");
        world.prepare();
        let lsn = world
            .append(RecordKind::Strong, TargetId(1), 10)
            .expect("there is room");
        world.turn();
        world.disk.fail_operation(world.disk.operations(), fault);
        world.disk.complete(0);
        world.turn();
        assert!(
            world.journal.acked < lsn.0,
            "{fault:?}: not acknowledged by half a write"
        );
        world.disk.complete(0);
        world.turn();
        assert_eq!(world.journal.acked, lsn.0, "{fault:?}");
        // Twice is too much.
        world
            .append(RecordKind::Strong, TargetId(1), 10)
            .expect("there is room");
        world.turn();
        world.disk.fail_from(world.disk.operations(), fault);
        world.disk.complete(0);
        world.turn();
        world.disk.complete(0);
        world.turn();
        assert_eq!(
            world.append(RecordKind::Strong, TargetId(1), 10),
            Err(AppendError::Poisoned),
            "{fault:?}"
        );
    }
}

#[test]
fn a_full_disk_refuses_before_the_append_and_recovers_by_itself() {
    let mut world = World::new(small_config(2), 3);
    world.start().expect("the first start");
    world.disk.limit_capacity(Some(200_000));
    let mut refused = 0;
    for _ in 0..60 {
        match world.append(RecordKind::Strong, TargetId(1), 2000) {
            Ok(_) => world.settle(),
            Err(error) => {
                assert_eq!(error, AppendError::NoSegment);
                refused += 1;
            }
        }
        assert!(world.running.as_ref().expect("runs").lane.poisoned().is_none());
    }
    assert!(refused > 0, "the disk is smaller than the work");
    assert_eq!(
        world
            .running
            .as_ref()
            .expect("runs")
            .lane
            .commit()
            .pending_bytes(),
        0,
        "all admitted is durable"
    );
    // The stores catch up; a checkpoint still has room; segments come back.
    world.apply(TargetId(1), usize::MAX);
    world
        .checkpoint()
        .expect("the last stretch is kept for checkpoints");
    world.settle();
    world.recycle();
    world.prepare();
    world
        .append(RecordKind::Strong, TargetId(1), 2000)
        .expect("there is room again");
    world.settle();
    world.apply(TargetId(1), usize::MAX);
    world.journal.finish();
}

#[test]
fn a_stalled_disk_sheds_and_then_poisons() {
    let mut world = World::new(small_config(2), 3);
    world.start().expect("the first start");
    world.prepare();
    world
        .append(RecordKind::Strong, TargetId(1), 10)
        .expect("there is room");
    world.turn();
    world.now += 6_000_000_000;
    world.turn();
    assert_eq!(
        world.append(RecordKind::Strong, TargetId(1), 10),
        Err(AppendError::Stalled)
    );
    // It answers after all.
    world.disk.complete(0);
    world.turn();
    world
        .append(RecordKind::Strong, TargetId(1), 10)
        .expect("it answered");
    world.turn();
    world.now += 31_000_000_000;
    world.turn();
    assert_eq!(
        world.append(RecordKind::Strong, TargetId(1), 10),
        Err(AppendError::Poisoned)
    );
    world.disk.complete(0);
    world.turn();
}
