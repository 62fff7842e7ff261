//! Damage: flipped bits, zeroed and unreadable sectors, lost and misdirected writes, missing files.
//! A start either finds every record as it was, or holds the lane; it never returns a wrong record,
//! and never silently ends the log before something that was durable and witnessed.
//!
//! `WAL_DAMAGE_STRIDE` thins out the bits of group bodies (default 997; 1 tries every single bit).
//! `images.rs` tries every bit of a smaller image without a whole start.

mod sim;

use prism_wal::buffer::{BLOCK_BYTES, SECTOR_BYTES};
use prism_wal::disk::Disk;
use prism_wal::disk::sim::{Crash, Fault};
use prism_wal::ids::TargetId;
use prism_wal::manifest::manifest_file_name;
use prism_wal::record::RecordKind;
use prism_wal::recovery::Verdict;
use prism_wal::start::{Refusal, StartError};
use sim::{LANE, World, env_or, small_config};

/// A lane with two epochs, several segments, all kinds of groups, a mark at its end; cleanly
/// stopped.
fn quiet_world() -> World {
    let mut world = World::new(small_config(2), 99);
    world.start().expect("the first start");
    world.prepare();
    for round in 0..6 {
        for bytes in [20, 900, 0, 3000] {
            world
                .append(RecordKind::Strong, TargetId(1 + round % 2), bytes)
                .expect("there is room");
        }
        world
            .append(RecordKind::Eventual, TargetId(1), 33)
            .expect("there is room");
        world.settle();
        world.apply(TargetId(1), 5);
        world.checkpoint().expect("there is room");
        world.settle();
        if round == 2 {
            world.crash(Crash::PowerCut);
            world.start().expect("a clean crash");
            world.prepare();
        }
    }
    world.idle();
    world.running = None;
    world.disk.crash(Crash::PowerCut, 0, |_| false);
    world
}

fn held(error: &StartError) -> bool {
    matches!(error, StartError::Refused(_))
}

/// Starts a damaged copy. The journal's judge asserts that nothing acknowledged is missing when the
/// lane starts.
fn start_damaged(world: &World, damage: impl FnOnce(&World)) -> Result<Verdict, StartError> {
    let mut copy = world.crashed_copy();
    damage(&copy);
    let result = copy.start().map(|recovery| recovery.verdict);
    if let Err(error) = &result {
        assert!(held(error), "{error}");
    }
    result
}

#[test]
fn a_flipped_bit_anywhere_is_never_a_wrong_record_nor_a_silent_loss() {
    let world = quiet_world();
    let stride = env_or("WAL_DAMAGE_STRIDE", 997);
    let (mut tried, mut holds) = (0_u64, 0_u64);
    for name in world.segment_files() {
        let contents = world.disk.contents(&name);
        for bit in 0..contents.len() as u64 * 8 {
            let within_block = bit / 8 % BLOCK_BYTES as u64;
            let header = within_block < 128 && bit % 7 == 0;
            if !header && bit % stride != 0 {
                continue;
            }
            tried += 1;
            let block = (bit / 8) as usize / BLOCK_BYTES;
            let live = contents[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES]
                .iter()
                .any(|byte| *byte != 0);
            match start_damaged(&world, |copy| copy.disk.flip_bit(&name, bit)) {
                Err(_) => holds += 1,
                // Headers are there twice; a bit among zeros after the end is no group.
                Ok(_) => assert!(
                    block < 2 || !live,
                    "{name} bit {bit}: a changed group was believed"
                ),
            }
        }
    }
    println!("{tried} bits, {holds} held");
    assert!(holds > 100);
}

#[test]
fn a_flipped_bit_of_the_manifest_is_never_a_silent_loss() {
    let world = quiet_world();
    let name = manifest_file_name(LANE);
    let bytes = world.disk.contents(&name).len() as u64;
    for bit in (0..bytes * 8)
        .filter(|bit| bit / 8 % 65536 < 512 || bit % 20_011 == 0)
        .step_by(5)
    {
        let _ = start_damaged(&world, |copy| copy.disk.flip_bit(&name, bit));
    }
    // Both slots gone: refused.
    let both = start_damaged(&world, |copy| {
        copy.disk.flip_bit(&name, 100);
        copy.disk.flip_bit(&name, 65536 * 8 + 100);
    });
    assert!(
        matches!(both, Err(StartError::Refused(Refusal::ManifestUnreadable(_)))),
        "{both:?}"
    );
}

#[test]
fn a_zeroed_random_or_unreadable_sector_is_found() {
    let world = quiet_world();
    for name in world.segment_files() {
        let contents = world.disk.contents(&name);
        for (sector, bytes) in contents.chunks(SECTOR_BYTES).enumerate() {
            let (offset, block) = (
                (sector * SECTOR_BYTES) as u64,
                sector * SECTOR_BYTES / BLOCK_BYTES,
            );
            let live = block >= 2 && bytes.iter().any(|byte| *byte != 0);
            let zeroed = start_damaged(&world, |copy| {
                copy.disk
                    .change(&name, offset, SECTOR_BYTES, |bytes| bytes.fill(0));
            });
            let noise = start_damaged(&world, |copy| {
                copy.disk
                    .change(&name, offset, SECTOR_BYTES, |bytes| bytes.fill(0x5a));
            });
            let unreadable = start_damaged(&world, |copy| copy.disk.make_unreadable(&name, sector as u64));
            // The last group is a mark: it carries nothing, and nothing witnesses it. Any other
            // must be held.
            let torn_mark = |result: &Result<Verdict, StartError>| {
                matches!(result, Ok(Verdict::Torn | Verdict::CleanEnd))
            };
            for (what, result) in [
                ("zeroed", &zeroed),
                ("noise", &noise),
                ("unreadable", &unreadable),
            ] {
                let fine = result.is_err() || !live || torn_mark(result);
                assert!(fine, "{name} sector {sector} {what}: {result:?}");
            }
        }
    }
}

#[test]
fn a_block_replaced_by_another_block_is_found() {
    let world = quiet_world();
    let files = world.segment_files();
    let blocks: Vec<(String, usize, Vec<u8>)> = files
        .iter()
        .flat_map(|name| {
            let contents = world.disk.contents(name);
            let blocks: Vec<_> = contents
                .chunks(BLOCK_BYTES)
                .map(<[u8]>::to_vec)
                .enumerate()
                .skip(2)
                .collect();
            blocks
                .into_iter()
                .map(move |(block, bytes)| (name.clone(), block, bytes))
        })
        .collect();
    let mut held = 0;
    for (name, block, original) in &blocks {
        for (_, _, other) in &blocks {
            if other == original || original.iter().all(|byte| *byte == 0) {
                continue;
            }
            let offset = (block * BLOCK_BYTES) as u64;
            let result = start_damaged(&world, |copy| {
                copy.disk
                    .change(name, offset, BLOCK_BYTES, |bytes| bytes.copy_from_slice(other));
            });
            held += u32::from(result.is_err());
        }
    }
    assert!(held > 100, "{held}");
}

#[test]
fn a_lost_or_misdirected_write_is_found_once_it_is_witnessed() {
    for fault in [Fault::Lost, Fault::Misdirected(1), Fault::Misdirected(2)] {
        for victim in 0..6 {
            let mut world = World::new(small_config(1), 5);
            world.start().expect("the first start");
            world.prepare();
            for number in 0..8 {
                if number == victim {
                    world.disk.fail_operation(world.disk.operations(), fault);
                }
                world
                    .append(RecordKind::Strong, TargetId(1), 100)
                    .expect("there is room");
                world.turn();
                world.complete_one();
                world.turn();
                world.prepare();
            }
            world.idle();
            world.crash(Crash::PowerCut);
            let result = world.start();
            let Err(StartError::Refused(Refusal::Damaged(recovery))) = result else {
                panic!("{fault:?} of group {victim}: {result:?}");
            };
            assert_eq!(recovery.verdict, Verdict::Corrupt);
            let damage = recovery.damage.expect("a held lane says why");
            // The first record is the cut, so the victim is two further on.
            assert_eq!(damage.first_lsn.0, victim + 2, "{fault:?}");
            assert_eq!(
                damage.last_lsn.map(|lsn| lsn.0),
                Some(victim + 2),
                "{fault:?}: the exact range is told"
            );
        }
    }
}

#[test]
fn the_lost_range_is_exact_for_damage_in_the_middle() {
    let mut world = World::new(small_config(1), 6);
    world.start().expect("the first start");
    world.prepare();
    for _ in 0..3 {
        for _ in 0..4 {
            world
                .append(RecordKind::Strong, TargetId(1), 10)
                .expect("there is room");
        }
        world.settle();
    }
    world.idle();
    world.crash(Crash::PowerCut);
    // Block 2 is the cut, blocks 3, 4 and 5 have four records each: 2..=5, 6..=9, 10..=13.
    let name = world.segment_files()[0].clone();
    let mut copy = world.crashed_copy();
    copy.disk.flip_bit(&name, (4 * BLOCK_BYTES as u64 + 300) * 8);
    let Err(StartError::Refused(Refusal::Damaged(recovery))) = copy.start() else {
        panic!("held")
    };
    let damage = recovery.damage.expect("a held lane says why");
    assert_eq!(
        (damage.first_lsn.0, damage.last_lsn.map(|lsn| lsn.0)),
        (6, Some(9))
    );
    assert_eq!(damage.verdict, Verdict::Corrupt);
}

#[test]
fn damage_to_the_last_group_before_any_witness_is_suspect() {
    let mut world = World::new(small_config(1), 7);
    world.start().expect("the first start");
    world
        .append(RecordKind::Strong, TargetId(1), 10)
        .expect("there is room");
    world.settle();
    world.crash(Crash::PowerCut);
    let name = world.segment_files()[0].clone();
    let mut copy = world.crashed_copy();
    copy.disk.flip_bit(&name, (3 * BLOCK_BYTES as u64 + 300) * 8);
    let Err(StartError::Refused(Refusal::Damaged(recovery))) = copy.start() else {
        panic!("held")
    };
    assert_eq!(recovery.verdict, Verdict::Suspect);
    // A store that is known to have the record is a witness too.
    let mut copy = world.crashed_copy();
    copy.config.applied_lsn = prism_wal::ids::Lsn(2);
    copy.disk
        .change(&name, 3 * BLOCK_BYTES as u64, BLOCK_BYTES, |bytes| bytes.fill(0));
    let Err(StartError::Refused(Refusal::Damaged(recovery))) = copy.start() else {
        panic!("held")
    };
    assert_eq!(recovery.verdict, Verdict::Corrupt);
}

#[test]
fn missing_replaced_and_short_files_are_refused() {
    let world = quiet_world();
    let refusal = |damage: &dyn Fn(&World)| match start_damaged(&world, damage) {
        Err(StartError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let files = world.segment_files();
    let remove = |copy: &World, name: &str| copy.disk.clone().remove(name).expect("it is there");
    assert!(matches!(
        refusal(&|copy| remove(copy, &files[0])),
        Refusal::SegmentMissing(_)
    ));
    assert_eq!(
        refusal(&|copy| remove(copy, &manifest_file_name(LANE))),
        Refusal::ManifestMissing
    );
    let swap = |copy: &World| {
        let mut disk = copy.disk.clone();
        for (from, to) in [
            (&files[0], "x"),
            (&files[1], &files[0]),
            (&"x".to_owned(), &files[1]),
        ] {
            disk.rename(from, to).expect("it is there");
        }
    };
    assert!(matches!(refusal(&swap), Refusal::SegmentReplaced(_)));
    // The same lane, number and key, from another life of the lane: only the incarnation tells.
    let mut other = World::new(small_config(2), 100);
    other.start().expect("the first start");
    assert_eq!(other.segment_files(), files[..1]);
    let foreign = other.disk.contents(&files[0]);
    let exchange = |copy: &World| {
        copy.disk.change(&files[0], 0, foreign.len(), |bytes| {
            bytes.copy_from_slice(&foreign)
        });
    };
    assert!(matches!(refusal(&exchange), Refusal::SegmentReplaced(_)));
    let headers = |copy: &World| {
        copy.disk
            .change(&files[0], 0, 2 * BLOCK_BYTES, |bytes| bytes.fill(0))
    };
    assert!(matches!(refusal(&headers), Refusal::SegmentHeader(..)));
    // A wiped directory, when the lane is known to have existed.
    let mut wiped = World::new(small_config(1), 1);
    wiped.config.expect_existing = true;
    assert_eq!(wiped.start(), Err(StartError::Refused(Refusal::ManifestMissing)));
    // The wrong key, and none.
    let mut other_key = world.crashed_copy();
    other_key.config.key = None;
    assert!(matches!(
        other_key.start(),
        Err(StartError::Refused(Refusal::Key(..)))
    ));
}

#[test]
fn an_older_manifest_does_not_hide_segments_in_use() {
    // The newest slot rots after more than one segment was listed and used: the older slot lists
    // too few.
    let mut world = World::new(small_config(1), 8);
    world.start().expect("the first start");
    world.prepare();
    let in_use = |world: &World| {
        world
            .running
            .as_ref()
            .expect("runs")
            .lane
            .commit()
            .ready_segments()
            == 0
    };
    while !in_use(&world) {
        world
            .append(RecordKind::Strong, TargetId(1), 3000)
            .expect("there is room");
        world.turn();
        world.complete_one();
        world.turn();
    }
    let generation = world.running.as_ref().expect("runs").pool.manifest().generation;
    world.crash(Crash::PowerCut);
    let slot = generation % 2 * 65536;
    world.disk.flip_bit(&manifest_file_name(LANE), (slot + 90) * 8);
    let result = world.start();
    assert!(
        matches!(result, Err(StartError::Refused(Refusal::SegmentUnlisted(_)))),
        "{result:?}"
    );
}

#[test]
fn a_clean_stop_is_believed_only_where_the_log_really_ends() {
    let mut world = World::new(small_config(2), 11);
    world.start().expect("the first start");
    world.prepare();
    for bytes in [100, 3000, 5000, 20] {
        world
            .append(RecordKind::Strong, TargetId(1), bytes)
            .expect("there is room");
        world.settle();
    }
    world.close();
    assert_eq!(start_damaged(&world, |_| ()), Ok(Verdict::CleanEnd));
    for name in world.segment_files() {
        for (block, bytes) in world.disk.contents(&name).chunks(BLOCK_BYTES).enumerate().skip(2) {
            if bytes.iter().any(|byte| *byte != 0) {
                let offset = (block * BLOCK_BYTES) as u64;
                let result = start_damaged(&world, |copy| {
                    copy.disk
                        .change(&name, offset, BLOCK_BYTES, |bytes| bytes.fill(0));
                });
                assert!(result.is_err(), "{name} block {block}: {result:?}");
                // The range is reported as after any other stop: a group after the damage shows its
                // end.
                if let Err(StartError::Refused(Refusal::Damaged(found))) = result {
                    let damage = found.damage.expect("a held lane says why");
                    let at_end = damage.group == damage.witness;
                    assert!(
                        damage.last_lsn.is_some() || at_end,
                        "{name} block {block}: {damage}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_clean_stop_says_nothing_about_what_was_written_after_the_next_start() {
    let mut world = World::new(small_config(4), 12);
    world.start().expect("the first start");
    world.close();
    world.start().expect("a clean stop");
    world
        .append(RecordKind::Strong, TargetId(1), 10)
        .expect("there is room");
    world.turn();
    world.complete_one();
    world.turn();
    // Writes a manifest that knows exactly what is durable now.
    world.prepare();
    world.append_groups(3, 5000);
    world.cut_power_losing_first_of(3);
    assert_eq!(
        world.start().expect("a crash is never damage").verdict,
        Verdict::Torn
    );
}
