//! An operator gives up damaged parts: the lane starts, every good record is kept, the loss is
//! reported exactly, and only once. A crash on the way changes nothing.

mod sim;

use prism_wal::buffer::BLOCK_BYTES;
use prism_wal::cut::{Cut, LOST_MAX};
use prism_wal::disk::DiskErrorKind;
use prism_wal::disk::sim::{Crash, Fault};
use prism_wal::group::GroupHeader;
use prism_wal::ids::{Lsn, TargetId};
use prism_wal::record::RecordKind;
use prism_wal::recovery::{Recovery, Verdict};
use prism_wal::start::{Refusal, StartError, start};
use sim::{Rng, World, env_or, small_config};

/// Several epochs and segments, several targets, some of it applied and checkpointed; stopped at
/// rest.
fn busy_world(seed: u64) -> World {
    let mut config = small_config(1 + seed as usize % 3);
    config.segments_max = 32;
    let mut world = World::new(config, seed);
    world.start().expect("the first start");
    for round in 0..9 {
        world.prepare();
        for bytes in [20, 900, 0, 3000, 5000] {
            let _ = world.append(RecordKind::Strong, TargetId(1 + round % 2), bytes);
            let _ = world.append(RecordKind::Eventual, TargetId(3), 33);
            world.turn();
        }
        world.settle();
        world.apply(TargetId(1), 5);
        world.sync(TargetId(3));
        let _ = world.checkpoint();
        world.settle();
        if round % 4 == 3 {
            world.crash(Crash::PowerCut);
            world.start().expect("a clean crash");
        }
    }
    world.idle();
    world.running = None;
    world.disk.crash(Crash::Kill, 0, |_| false);
    world
}

/// The places of all groups: file, block, header.
fn groups(world: &World) -> Vec<(String, usize, GroupHeader)> {
    let mut groups = Vec::new();
    for name in world.segment_files() {
        let contents = world.disk.contents(&name);
        for (block, bytes) in contents.chunks(BLOCK_BYTES).enumerate().skip(2) {
            if let Ok(header) = GroupHeader::decode(bytes) {
                groups.push((name.clone(), block, header));
            }
        }
    }
    groups
}

fn damage(world: &World, group: &(String, usize, GroupHeader), kind: usize) {
    let (name, block, header) = group;
    let offset = (*block * BLOCK_BYTES) as u64;
    let length = header.blocks as usize * BLOCK_BYTES;
    match kind {
        0 => world.disk.flip_bit(name, offset * 8 + 77),
        1 => world.disk.flip_bit(name, (offset + length as u64 - 9) * 8),
        2 => world.disk.change(name, offset, length, |bytes| bytes.fill(0)),
        3 => world.disk.change(name, offset, length, |bytes| bytes.fill(0x77)),
        _ => world.disk.make_unreadable(name, offset / 512),
    }
}

fn start_with_loss(world: &mut World) -> Recovery {
    world.config.accept_loss = true;
    let result = world.start();
    world.config.accept_loss = false;
    result.unwrap_or_else(|error| panic!("damaged content is given up: {error}"))
}

/// Whether a start would succeed that accepts no loss.
fn starts(world: &World) -> bool {
    let disk = world.disk.snapshot();
    start(&world.config, disk, &Rng(1).seed(), 0, &mut sim::Found::default()).is_ok()
}

/// The lane works on, survives a crash and a start that does not accept anything, and reports
/// nothing again.
fn works_on(world: &mut World) {
    for _ in 0..4 {
        world.prepare();
        for target in 1..4 {
            world
                .append(RecordKind::Strong, TargetId(target), 400)
                .expect("a started lane takes records");
        }
        world.settle();
    }
    world.crash(Crash::PowerCut);
    let again = world
        .start()
        .unwrap_or_else(|error| panic!("what was given up is held against the lane again: {error}"));
    assert_eq!((again.damage, again.lost), (None, Vec::new()));
    // Stores catch up, checkpoints free the damaged segments too, and the log is whole without
    // them.
    for _ in 0..4 {
        world.prepare();
        for target in 1..4 {
            world.apply(TargetId(target), usize::MAX);
        }
        let _ = world.checkpoint();
        world.idle();
        world.recycle();
        let _ = world.append(RecordKind::Strong, TargetId(1), 4000);
        world.settle();
    }
    world.crash(Crash::PowerCut);
    let last = world.start().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(last.damage, None);
    for target in 1..4 {
        world.apply(TargetId(target), usize::MAX);
    }
    world.journal.finish();
}

#[test]
fn one_damaged_group_costs_exactly_its_own_records() {
    let mut given_up = 0;
    for seed in 0..env_or("WAL_LOSS_WORLDS", 3) {
        let world = busy_world(seed);
        let groups = groups(&world);
        for (number, group) in groups.iter().enumerate() {
            for kind in 0..5 {
                let mut copy = world.crashed_copy();
                damage(&copy, group, kind);
                let refused = copy.start();
                copy.running = None;
                let Err(StartError::Refused(Refusal::Damaged(refused))) = refused else {
                    // A torn mark at the very end, or the remains of what an earlier start cut.
                    refused.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                    continue;
                };
                given_up += 1;
                let what = format!("seed {seed}, group {number} of {}, kind {kind}", groups.len());
                let found = start_with_loss(&mut copy);
                assert_eq!(found.verdict, refused.verdict, "{what}");
                assert_eq!(found.damage, refused.damage, "{what}");
                let header = &group.2;
                let [lost] = found.lost[..] else {
                    panic!("{what}: {:?}", found.lost)
                };
                assert_eq!(
                    (lost.first_group, lost.last_group),
                    (header.group, header.group),
                    "{what}"
                );
                assert_eq!(lost.first_lsn, header.first_lsn, "{what}");
                // At the very end, a group whose header is gone does not say how long it was.
                if lost.exact {
                    assert_eq!(lost.last_lsn, header.last_lsn(), "{what}");
                } else {
                    assert_eq!(number, groups.len() - 1, "{what}");
                }
                works_on(&mut copy);
            }
        }
    }
    println!("{given_up} damaged groups given up");
    assert!(given_up > 200, "{given_up}");
}

#[test]
fn a_crash_before_the_cut_is_durable_changes_nothing_and_one_after_it_keeps_the_decision() {
    let world = busy_world(1);
    let groups = groups(&world);
    let (mut refused, mut kept) = (0, 0);
    for victim in [1, groups.len() / 2, groups.len() - 2, groups.len() - 1] {
        for number in 0..200 {
            let mut copy = world.crashed_copy();
            damage(&copy, &groups[victim], 1);
            let held = copy.start();
            let Err(StartError::Refused(Refusal::Damaged(held))) = held else {
                break;
            };
            let lost = start_with_loss(&mut copy.crashed_copy()).lost;
            copy.config.accept_loss = true;
            let at = copy.disk.operations() + number;
            copy.disk.fail_from(at, Fault::Error(DiskErrorKind::Io(5)));
            let done = copy.start().is_ok();
            copy.config.accept_loss = false;
            copy.crash(if number % 2 == 0 {
                Crash::PowerCut
            } else {
                Crash::Kill
            });
            copy.disk.heal();
            if !done && starts(&copy) {
                copy.journal.give_up(&lost);
            }
            match copy.start() {
                Err(StartError::Refused(Refusal::Damaged(again))) => {
                    assert!(!done, "the cut is durable when a start has succeeded");
                    assert_eq!(again.damage, held.damage, "the same damage is found again");
                    let found = start_with_loss(&mut copy);
                    assert_eq!(found.lost.len(), 1);
                    refused += 1;
                }
                Ok(recovery) => {
                    // Durable after all; only the checker did not know.
                    assert_eq!(recovery.damage, None);
                    kept += 1;
                }
                Err(error) => panic!("victim {victim}, operation {number}: {error}"),
            }
            if done {
                break;
            }
        }
    }
    println!("{refused} starts found the damage again, {kept} kept the decision");
    assert!(refused > 20 && kept >= 3, "{refused}, {kept}");
}

#[test]
fn damage_in_many_places_is_given_up_place_by_place() {
    for seed in 0..env_or("WAL_LOSS_SEEDS", 60) {
        let mut world = busy_world(seed % 5).crashed_copy();
        let groups = groups(&world);
        let mut rng = Rng(seed);
        // Not the mark at the end: it is what proves that the groups before it were there.
        let mut victims: Vec<usize> = (0..1 + rng.below(groups.len() / 2))
            .map(|_| rng.below(groups.len() - 1))
            .collect();
        victims.sort_unstable();
        victims.dedup();
        for victim in &victims {
            damage(&world, &groups[*victim], rng.below(5));
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let found = start_with_loss(&mut world);
            let lost: u64 = found
                .lost
                .iter()
                .map(|lost| lost.last_group.0 + 1 - lost.first_group.0)
                .sum();
            assert!(lost <= victims.len() as u64, "{:?} for {victims:?}", found.lost);
            works_on(&mut world);
        }));
        if let Err(panic) = result {
            eprintln!("seed {seed}: damaged {victims:?} of {}", groups.len());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_last_group_is_given_up_exactly_only_when_its_header_is_left() {
    for kind in [0, 1, 3, 4] {
        let mut world = World::new(small_config(1), 7);
        world.start().expect("the first start");
        for bytes in [10, 20] {
            world
                .append(RecordKind::Strong, TargetId(1), bytes)
                .expect("there is room");
            world
                .append(RecordKind::Strong, TargetId(2), bytes)
                .expect("there is room");
            world.settle();
        }
        world.crash(Crash::PowerCut);
        let groups = groups(&world);
        let last = &groups[groups.len() - 1];
        assert_eq!((last.2.first_lsn, last.2.record_count), (Lsn(4), 2));
        damage(&world, last, kind);
        let found = start_with_loss(&mut world);
        assert_eq!(found.verdict, Verdict::Suspect);
        let [lost] = found.lost[..] else {
            panic!("{:?}", found.lost)
        };
        let header_is_left = kind == 1;
        assert_eq!(
            (lost.first_lsn, lost.exact),
            (Lsn(4), header_is_left),
            "kind {kind}"
        );
        assert_eq!(
            lost.last_lsn,
            Lsn(if header_is_left { 5 } else { 3 }),
            "kind {kind}"
        );
        assert_eq!(lost.last_group, last.2.group);
        works_on(&mut world);
    }
}

#[test]
fn what_a_store_is_known_to_have_is_part_of_what_was_lost() {
    let mut world = World::new(small_config(1), 7);
    world.start().expect("the first start");
    for _ in 0..5 {
        world
            .append(RecordKind::Strong, TargetId(1), 10)
            .expect("there is room");
        world.settle();
    }
    world.crash(Crash::PowerCut);
    let groups = groups(&world);
    groups[3..].iter().for_each(|group| damage(&world, group, 2));
    world.config.applied_lsn = Lsn(5);
    let found = start_with_loss(&mut world);
    assert_eq!(found.verdict, Verdict::Corrupt);
    assert_eq!(
        (found.lost[0].first_lsn, found.lost[0].last_lsn),
        (Lsn(4), Lsn(5))
    );
    assert!(!found.lost[0].exact, "nothing tells of record 6");
    works_on(&mut world);
}

#[test]
fn groups_that_an_earlier_recovery_cut_off_do_not_come_back() {
    let mut world = World::new(small_config(3), 9);
    world.start().expect("the first start");
    world.prepare();
    world.append_groups(3, 10);
    // Three groups in flight; the power goes when the second and third are written and the first is
    // not.
    world.cut_power_losing_first_of(3);
    let recovery = world.start().expect("a crash is never damage");
    assert_eq!((recovery.verdict, recovery.tip.lsn), (Verdict::Torn, Lsn(1)));
    world.prepare();
    for _ in 0..2 {
        world
            .append(RecordKind::Strong, TargetId(1), 10)
            .expect("there is room");
        world.settle();
    }
    world.idle();
    world.crash(Crash::PowerCut);
    // The cut goes bad, and with it the proof of what was cut.
    let groups = groups(&world);
    let newest = groups.iter().map(|(_, _, header)| header.epoch).max();
    let mut of_newest = groups
        .iter()
        .filter(|(_, _, header)| Some(header.epoch) == newest);
    let cut = of_newest.next().expect("an epoch begins with its cut");
    assert!(cut.2.flags.epoch && cut.2.group.0 == 2);
    damage(&world, cut, 3);
    let found = start_with_loss(&mut world);
    assert_eq!(found.lost.len(), 1);
    assert_eq!(
        (found.lost[0].first_lsn, found.lost[0].last_lsn),
        (Lsn(2), Lsn(2))
    );
    works_on(&mut world);
}

/// A write of one group that lands in the place of another: misdirected, or done twice. Only groups
/// in their own place count, so the other group is lost, and with a misdirected write the group
/// itself as well. The report of a held lane, and the part given up then, name all of it: a good
/// header in a wrong place is no evidence for it.
#[test]
fn a_group_is_never_taken_for_one_of_another_place() {
    let (mut misdirected, mut copied) = (0, 0);
    for seed in 0..env_or("WAL_LOSS_WORLDS", 3) {
        let world = busy_world(seed);
        let groups = groups(&world);
        // Not the mark at the end: it is what proves that the groups before it were there.
        let last = groups.len() - 1;
        let pairs = (0..last).flat_map(|from| (0..last).map(move |over| (from, over)));
        for (from, over) in pairs {
            let (name, block, header) = &groups[from];
            let (over_name, over_block, overwritten) = &groups[over];
            if from == over || name != over_name || header.blocks > overwritten.blocks {
                continue;
            }
            for stays in [true, false] {
                let mut copy = world.crashed_copy();
                let offset = (block * BLOCK_BYTES) as u64;
                let bytes = copy.disk.contents(name)[block * BLOCK_BYTES..][..header.bytes()].to_vec();
                let other = (over_block * BLOCK_BYTES) as u64;
                copy.disk.change(name, other, bytes.len(), |place| {
                    place.copy_from_slice(&bytes);
                });
                let mut lost = vec![over];
                if stays {
                    copied += 1;
                } else {
                    misdirected += 1;
                    copy.disk.change(name, offset, bytes.len(), |place| place.fill(0));
                    lost.push(from);
                    lost.sort_unstable();
                }
                let what = format!("seed {seed}, group {from} in the place of {over}, stays: {stays}");
                loses_exactly(&mut copy, &groups, &lost, &what);
            }
        }
    }
    println!("{misdirected} misdirected writes, {copied} copies");
    assert!(misdirected > 40 && copied > 40, "{misdirected}, {copied}");
}

/// The lane is held for these groups (ascending, none of their headers in its place) and starts
/// without exactly them.
fn loses_exactly(world: &mut World, groups: &[(String, usize, GroupHeader)], lost: &[usize], what: &str) {
    // Neighbours are one stretch: there is nothing good between them.
    let stretches: Vec<_> = lost
        .chunk_by(|one, next| one + 1 == *next)
        .map(|stretch| (&groups[stretch[0]].2, &groups[stretch[stretch.len() - 1]].2))
        .map(|(first, last)| (first.group, last.group, first.first_lsn, last.last_lsn()))
        .collect();
    let Err(StartError::Refused(Refusal::Damaged(refused))) = world.start() else {
        panic!("{what}: it starts as if nothing were missing")
    };
    assert_eq!(refused.verdict, Verdict::Corrupt, "{what}");
    let damage = refused.damage.expect("a held lane says why");
    let (first_group, _, first_lsn, last_lsn) = stretches[0];
    assert_eq!(
        (damage.group, damage.first_lsn, damage.last_lsn),
        (first_group, first_lsn, Some(last_lsn)),
        "{what}: what is lost is told exactly"
    );
    let found = start_with_loss(world);
    let given_up: Vec<_> = found
        .lost
        .iter()
        .map(|lost| (lost.first_group, lost.last_group, lost.first_lsn, lost.last_lsn))
        .collect();
    assert_eq!(given_up, stretches, "{what}");
    works_on(world);
}

#[test]
fn a_cut_names_as_many_stretches_as_fit_and_gives_up_the_rest_as_one() {
    let mut config = small_config(1);
    config.group.segment_blocks = 300;
    let mut world = World::new(config, 3);
    world.start().expect("the first start");
    world.prepare();
    for _ in 0..150 {
        world
            .append(RecordKind::Strong, TargetId(1), 100)
            .expect("there is room");
        world.settle();
    }
    world.idle();
    world.crash(Crash::PowerCut);
    let groups = groups(&world);
    // Every second group is bad: more stretches than a cut can name.
    for group in groups.iter().step_by(2) {
        damage(&world, group, 1);
    }
    let found = start_with_loss(&mut world);
    assert_eq!(found.lost.len(), LOST_MAX);
    assert!(
        found
            .lost
            .iter()
            .rev()
            .skip(1)
            .all(|lost| lost.first_group == lost.last_group)
    );
    let last = found.lost[LOST_MAX - 1];
    assert_eq!(last.last_group, groups[groups.len() - 1].2.group);
    assert_eq!(last.last_lsn, Lsn(151));
    works_on(&mut world);
}

#[test]
fn without_damage_nothing_is_given_up() {
    for seed in 0..5 {
        let mut world = busy_world(seed);
        let found = start_with_loss(&mut world);
        assert_eq!((found.damage, found.lost), (None, Vec::new()));
        assert!(matches!(found.verdict, Verdict::CleanEnd | Verdict::Torn));
        works_on(&mut world);
    }
}

#[test]
fn the_cut_says_what_was_lost() {
    let mut world = busy_world(2);
    let groups = groups(&world);
    let (_, _, victim) = &groups[groups.len() / 2];
    damage(&world, &groups[groups.len() / 2], 3);
    let found = start_with_loss(&mut world);
    world.running = None;
    let mut seen = sim::Found::default();
    let seed = world.rng.seed();
    start(&world.config, world.disk.clone(), &seed, 0, &mut seen).expect("given up already");
    let cuts = seen
        .records
        .iter()
        .filter(|(_, entry)| entry.kind == RecordKind::Cut);
    let cuts: Vec<Cut> = cuts
        .map(|(_, entry)| Cut::decode(&entry.payload).expect("a cut"))
        .collect();
    let last = cuts.last().expect("every epoch begins with one");
    assert_eq!(last.lost, found.lost);
    assert_eq!(last.lost[0].first_lsn, victim.first_lsn);
    assert_eq!(last.lost[0].last_lsn, victim.last_lsn());
}
