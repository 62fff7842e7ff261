//! A second decoder, written in another language from the format page alone, reads the same images
//! and must agree: on every record, on the verdict, and on where the log ends.

mod sim;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use prism_wal::buffer::BLOCK_BYTES;
use prism_wal::disk::Disk;
use prism_wal::disk::sim::{Crash, SimDisk};
use prism_wal::ids::TargetId;
use prism_wal::record::RecordKind;
use prism_wal::start::{Refusal, StartError, start};
use sim::{Found, Rng, World, small_config};

#[test]
fn a_decoder_written_from_the_format_page_agrees() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("python3 is not installed: the second decoder was not run");
        return;
    }
    let mut images = 0;
    for seed in 0..3 {
        let world = busy_world(seed);
        let mut rng = Rng(seed);
        for _ in 0..2 {
            let copy = world.crashed_copy();
            let percent = [0, 50, 100][rng.below(3)];
            copy.disk.crash(Crash::PowerCut, copy.disk.names_at_stake(), |_| {
                rng.chance(percent)
            });
            compare(&copy);
            // Damage in a block that is in use, at any place.
            let files = copy.segment_files();
            let name = &files[rng.below(files.len())];
            let blocks: Vec<_> = copy
                .disk
                .contents(name)
                .chunks(BLOCK_BYTES)
                .map(<[u8]>::to_vec)
                .collect();
            let used: Vec<_> = (0..blocks.len())
                .filter(|block| blocks[*block].iter().any(|byte| *byte != 0))
                .collect();
            if let Some(block) = used.get(rng.below(used.len().max(1))) {
                let bit = (block * BLOCK_BYTES * 8 + rng.below(BLOCK_BYTES * 8)) as u64;
                copy.disk.flip_bit(name, bit);
                compare(&copy);
                images += u32::from(compare_after_a_loss(copy));
            }
            images += 2;
        }
    }
    println!("{images} images");
    assert!(images > 14, "some damage was given up: {images}");
}

/// An operator gives up what is damaged; the decoders agree on what is left.
fn compare_after_a_loss(mut copy: World) -> bool {
    copy.config.accept_loss = true;
    if !copy.start().is_ok_and(|recovery| !recovery.lost.is_empty()) {
        return false;
    }
    let _ = copy.append(RecordKind::Strong, TargetId(1), 100);
    copy.settle();
    copy.running = None;
    copy.config.accept_loss = false;
    compare(&copy);
    true
}

fn busy_world(seed: u64) -> World {
    let mut config = small_config(2);
    if seed.is_multiple_of(3) {
        config.key = None;
    }
    let mut world = World::new(config, seed);
    world.start().expect("the first start");
    for round in 0..2 + seed % 2 {
        world.prepare();
        for bytes in [10, 0, 300, 2500, 5000] {
            let _ = world.append(RecordKind::Strong, TargetId(1), bytes);
            let _ = world.append(RecordKind::Eventual, TargetId(2), 7);
            if bytes != 300 {
                world.settle();
            }
        }
        world.apply(TargetId(1), 4);
        let _ = world.checkpoint();
        world.idle();
        world.recycle();
        if round == 0 {
            world.crash(Crash::PowerCut);
            world.start().expect("a clean crash");
        }
    }
    // Stops with writes in flight.
    for bytes in [100, 4500] {
        let _ = world.append(RecordKind::Strong, TargetId(1), bytes);
        world.turn();
    }
    world
}

fn compare(world: &World) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in world.disk.clone().list().expect("a healthy disk") {
        std::fs::write(directory.path().join(&name), world.disk.contents(&name)).expect("a temporary file");
    }
    let theirs = decode(directory.path(), world);
    let ours = our_view(world);
    assert_eq!(ours, theirs, "the two decoders disagree");
}

fn decode(directory: &Path, world: &World) -> String {
    let decoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decoder.py");
    let mut command = Command::new("python3");
    command.arg(decoder).arg(directory).arg("1");
    if world.config.key.is_some() {
        command.args(["01".repeat(16), "02".repeat(32)]);
    }
    let output = command.output().expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("text")
}

fn our_view(world: &World) -> String {
    let disk: SimDisk = world.disk.snapshot();
    let mut found = Found::default();
    let result = start(&world.config, disk, &Rng(7).seed(), 0, &mut found);
    let mut text = String::new();
    for (lsn, entry) in &found.records {
        let kind = match entry.kind {
            RecordKind::Strong => 1,
            RecordKind::Eventual => 2,
            RecordKind::Checkpoint => 3,
            RecordKind::Cut => 4,
        };
        let mut hex = String::new();
        entry
            .payload
            .iter()
            .for_each(|byte| write!(hex, "{byte:02x}").expect("a string takes all"));
        let hex = if hex.is_empty() { "-" } else { &hex };
        writeln!(text, "record {lsn} {kind} {} {hex}", entry.target).expect("a string takes all");
    }
    let recovery = match result {
        Ok(started) => started.recovery,
        Err(StartError::Refused(Refusal::Damaged(recovery))) => *recovery,
        Err(StartError::Refused(refusal)) => {
            let why = match refusal {
                Refusal::ManifestMissing | Refusal::ManifestUnreadable(_) => "manifest",
                Refusal::SegmentMissing(_) => "missing",
                Refusal::SegmentHeader(..) => "header",
                Refusal::SegmentReplaced(_) => "replaced",
                Refusal::SegmentLength(_) => "length",
                Refusal::Key(..) => "key",
                other => panic!("not made here: {other}"),
            };
            return format!("{text}refused {why}\n");
        }
        Err(error) => panic!("{error}"),
    };
    let tip = &recovery.tip;
    writeln!(text, "verdict {:?} {} {}", recovery.verdict, tip.group, tip.lsn).expect("a string takes all");
    text
}
