//! A lane without a segment left comes back by itself once its stores have caught up, whatever was
//! written into its last stretch meanwhile: what frees segments always has a place.

mod sim;

use prism_wal::disk::sim::Crash;
use prism_wal::group_commit::AppendError;
use prism_wal::ids::TargetId;
use prism_wal::record::RecordKind;
use sim::{World, small_config};

const STORE: TargetId = TargetId(0);

/// A lane of at most three segments of this many blocks.
fn started(segment_blocks: u32) -> World {
    let mut config = small_config(1);
    config.segments_max = 3;
    config.group.segment_blocks = segment_blocks;
    let mut world = World::new(config, 5);
    world.start().expect("the first start");
    world.prepare();
    world
}

fn append(world: &mut World) -> Result<(), AppendError> {
    let appended = world.append(RecordKind::Strong, STORE, 3000).map(|_| ());
    world.settle();
    appended
}

fn segments(world: &World) -> usize {
    let running = world.running.as_ref().expect("the lane runs");
    running.pool.manifest().segments.len()
}

fn has_room(world: &World) -> bool {
    let running = world.running.as_ref().expect("the lane runs");
    running.lane.commit().ready_segments() > 0
}

/// Moves the store on by two single records, each with its checkpoint and its mark.
fn apply_single_records(world: &mut World) {
    for _ in 0..2 {
        world.apply(STORE, 1);
        world.keep_cursors();
        world.idle();
    }
}

/// The store takes record by record until a segment is freed.
fn free_one(world: &mut World) {
    let before = segments(world);
    for _ in 0..100 {
        world.apply(STORE, 1);
        world.keep_cursors();
        if segments(world) < before {
            return world.idle();
        }
    }
    panic!("no segment is freed");
}

/// The stores catch up, and the lane takes records again.
fn comes_back(world: &mut World) {
    assert_eq!(append(world), Err(AppendError::NoSegment), "the lane was full");
    world.catch_up();
    append(world).expect("everything is applied, so there is room again");
    world.catch_up();
    world.journal.finish();
}

#[test]
fn checkpoints_that_free_nothing_do_not_use_up_the_last_stretch() {
    let mut world = started(8);
    world.fill(1);
    // The store moves on by single records, which never reaches the end of the oldest segment.
    apply_single_records(&mut world);
    comes_back(&mut world);
}

#[test]
fn a_store_that_lags_frees_segment_by_segment() {
    let mut world = started(8);
    world.fill(1);
    let mut taken = 0;
    for _ in 0..40 {
        world.apply(STORE, 1);
        world.keep_cursors();
        taken += u32::from(append(&mut world).is_ok());
    }
    assert!(taken > 10, "{taken} records were taken while the store lagged");
    world.catch_up();
    world.journal.finish();
}

#[test]
fn a_checkpoint_of_many_targets_has_its_place() {
    for targets in [300, 327, 328, 400, 700, 1400] {
        let mut world = started(40);
        for target in 0..targets {
            world
                .append(RecordKind::Strong, TargetId(target), 10)
                .expect("there is room");
        }
        world.fill(1);
        comes_back(&mut world);
    }
}

#[test]
fn a_target_that_comes_late_makes_the_place_for_its_cursor() {
    // The 328th cursor makes the checkpoint longer by a block.
    let mut world = started(16);
    for target in 0..327 {
        world
            .append(RecordKind::Strong, TargetId(target), 10)
            .expect("there is room");
    }
    world.catch_up();
    world.fill(1);
    for target in [327, 328] {
        let refused = world.append(RecordKind::Strong, TargetId(target), 10);
        assert_eq!(refused, Err(AppendError::NoSegment));
    }
    comes_back(&mut world);
}

#[test]
fn a_target_that_comes_late_takes_no_other_checkpoint_its_place() {
    // Whenever it comes, also with the very last record: a store that lags still frees segment by
    // segment.
    for before in 0..40 {
        let mut world = started(16);
        for target in 0..327 {
            world
                .append(RecordKind::Strong, TargetId(target), 10)
                .expect("there is room");
        }
        world.settle();
        for _ in 0..before {
            let _ = append(&mut world);
        }
        let _ = world.append(RecordKind::Strong, TargetId(327), 3000);
        world.settle();
        world.fill(1);
        for target in 1..328 {
            world.apply(TargetId(target), usize::MAX);
        }
        while !has_room(&world) {
            let left = world
                .running
                .as_ref()
                .map(|running| running.lane.tail().unapplied(STORE).records);
            assert!(
                left > Some(1),
                "{before}: nothing was freed before all was applied"
            );
            world.apply(STORE, 1);
            world.keep_cursors();
        }
        world.catch_up();
        world.journal.finish();
    }
}

#[test]
fn a_lane_beyond_its_limit_comes_back_though_one_freed_segment_is_not_enough() {
    let mut world = started(8);
    // Every start takes one segment more, limit or not.
    for _ in 0..4 {
        append(&mut world).expect("a fresh segment");
        world.crash(Crash::Kill);
        world.start().expect("a crash");
    }
    world.fill(1);
    let before = segments(&world);
    assert!(before > 4, "{before}");
    free_one(&mut world);
    assert!(segments(&world) > 3, "still beyond the limit");
    apply_single_records(&mut world);
    comes_back(&mut world);
}

#[test]
fn a_full_disk_gives_room_again_though_the_first_file_goes_to_the_reserve() {
    let mut world = started(8);
    world.config.segments_max = 30;
    world.disk.limit_capacity(Some(0));
    world.fill(1);
    // The start finds a full disk and takes the reserve.
    world.crash(Crash::Kill);
    world.start().expect("the reserve is there");
    world.fill(1);
    // Its file becomes the reserve.
    free_one(&mut world);
    assert!(segments(&world) > 1);
    comes_back(&mut world);
}
