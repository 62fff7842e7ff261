//! Images of a lane, changed in every possible way of one kind and judged by the pure recovery:
//! every single bit flipped, every sector of the last groups missing or there. The right verdict
//! every time, never a wrong record, and never a silent end before something that was witnessed.

mod sim;

use std::ops::Range;
use std::rc::Rc;

use prism_wal::buffer::{BLOCK_BYTES, SECTOR_BYTES};
use prism_wal::cipher::{SecretKey, SegmentCipher};
use prism_wal::disk::sim::{Crash, SimDisk};
use prism_wal::group::{GroupFlags, GroupHeader};
use prism_wal::group_commit::{Config, GroupCommit, ReadySegment, Resume, WriteResult};
use prism_wal::ids::{Epoch, Lsn, SegmentNumber, TargetId};
use prism_wal::manifest::{Base, ListedSegment, Manifest, manifest_file_name};
use prism_wal::record::{Record, RecordKind};
use prism_wal::recovery::{
    Evidence, OnDamage, Recovery, RecoverySegment, SegmentSource, Unreadable, Verdict, Visitor, recover,
};
use prism_wal::segment::{SegmentHeader, segment_file_name};
use prism_wal::start::StartConfig;
use sim::{LANE, Rng, World, env_or, small_config};

/// The bytes of a lane's segments, and what was written there.
struct Image {
    segments: Rc<Vec<RecoverySegment>>,
    contents: Vec<Vec<u8>>,
    evidence: Evidence,
    base: Base,
    /// Every group: segment, block, header; in log order.
    groups: Vec<(usize, usize, GroupHeader)>,
    records: Vec<(Lsn, Vec<u8>)>,
}

impl SegmentSource for Image {
    fn read(&mut self, index: usize, block: u32, out: &mut [u8]) -> Result<(), Unreadable> {
        let start = block as usize * BLOCK_BYTES;
        out.copy_from_slice(&self.contents[index][start..start + out.len()]);
        Ok(())
    }
}

/// Checks each record against the image it was made from, without keeping them.
struct Check<'a> {
    records: &'a [(Lsn, Vec<u8>)],
    found: usize,
}

impl Visitor for Check<'_> {
    fn record(&mut self, _: Epoch, lsn: Lsn, record: &Record<'_>) {
        let (expected, payload) = &self.records[self.found];
        assert_eq!(
            (lsn, record.payload),
            (*expected, payload.as_slice()),
            "a wrong record"
        );
        self.found += 1;
    }
}

impl Image {
    fn of(disk: &SimDisk, config: &StartConfig) -> Self {
        let manifest = disk.contents(&manifest_file_name(LANE));
        let manifest = Manifest::decode_newest(&manifest, LANE).expect("a manifest");
        let read = |listed: &ListedSegment| {
            let bytes = disk.contents(&segment_file_name(LANE, listed.segment));
            let header = SegmentHeader::decode_either(&bytes).expect("a header");
            let key = header.data_key(config.key.as_ref()).expect("a key");
            RecoverySegment {
                segment: header.segment,
                epoch: header.epoch,
                blocks: header.blocks,
                cipher: Some(SegmentCipher::new(&key)),
            }
        };
        let segments: Vec<_> = manifest.segments.iter().map(read).collect();
        let contents = Self::contents_of(disk, &segments);
        let evidence = Evidence {
            durable_group: manifest.durable_group,
            durable_lsn: manifest.durable_lsn,
            clean_end: None,
        };
        let mut image = Self {
            segments: Rc::new(segments),
            contents,
            evidence,
            base: manifest.base,
            groups: Vec::new(),
            records: Vec::new(),
        };
        image.read_whole();
        image
    }

    fn contents_of(disk: &SimDisk, segments: &[RecoverySegment]) -> Vec<Vec<u8>> {
        let names = segments
            .iter()
            .map(|segment| segment_file_name(LANE, segment.segment));
        names.map(|name| disk.contents(&name)).collect()
    }

    /// Reads the unchanged image: what every changed one is compared with.
    fn read_whole(&mut self) {
        struct All(Vec<(Lsn, Vec<u8>)>);
        impl Visitor for All {
            fn record(&mut self, _: Epoch, lsn: Lsn, record: &Record<'_>) {
                self.0.push((lsn, record.payload.to_vec()));
            }
        }
        let mut all = All(Vec::new());
        let found = self.recover_with(&mut all);
        assert_eq!(found.damage, None);
        self.records = all.0;
        for (index, contents) in self.contents.iter().enumerate() {
            for (block, bytes) in contents.chunks(BLOCK_BYTES).enumerate().skip(2) {
                if let Ok(header) = GroupHeader::decode(bytes) {
                    self.groups.push((index, block, header));
                }
            }
        }
        assert_eq!(self.groups.len() as u64, found.groups, "all groups are good");
    }

    fn recover_with(&mut self, visitor: &mut dyn Visitor) -> Recovery {
        let segments = Rc::clone(&self.segments);
        let (base, evidence) = (self.base, self.evidence);
        recover(LANE, &base, &segments, evidence, OnDamage::Hold, self, visitor)
    }

    /// Recovers and returns how many records were found, each as it was.
    fn recover(&mut self) -> (Recovery, usize) {
        let records = core::mem::take(&mut self.records);
        let mut check = Check {
            records: &records,
            found: 0,
        };
        let recovery = self.recover_with(&mut check);
        let found = check.found;
        self.records = records;
        (recovery, found)
    }

    fn bytes_of(&self, group: usize) -> (usize, Range<usize>) {
        let (index, block, header) = &self.groups[group];
        let start = block * BLOCK_BYTES;
        (*index, start..start + header.blocks as usize * BLOCK_BYTES)
    }

    /// The group in which a byte lies.
    fn group_at(&self, index: usize, byte: usize) -> Option<usize> {
        (0..self.groups.len()).find(|group| {
            let (at, range) = self.bytes_of(*group);
            at == index && range.contains(&byte)
        })
    }

    /// Records in the groups before this one.
    fn records_before(&self, group: usize) -> usize {
        let counts = self.groups[..group]
            .iter()
            .map(|(_, _, header)| header.record_count as usize);
        counts.sum()
    }
}

/// Two epochs, groups of one and two blocks, all kinds, a mark at the end.
fn quiet() -> Image {
    let mut world = World::new(small_config(2), 21);
    world.start().expect("the first start");
    for bytes in [30, 5000, 0] {
        world
            .append(RecordKind::Strong, TargetId(1), bytes)
            .expect("there is room");
        world.settle();
    }
    world.apply(TargetId(1), 2);
    world.checkpoint().expect("there is room");
    world.settle();
    world.crash(Crash::PowerCut);
    world.start().expect("a clean crash");
    world
        .append(RecordKind::Eventual, TargetId(2), 700)
        .expect("there is room");
    world
        .append(RecordKind::Strong, TargetId(1), 90)
        .expect("there is room");
    world.settle();
    world.idle();
    world.running = None;
    let mut image = Image::of(&world.disk, &world.config);
    // Segments that were only prepared are left out: they would double the bits and add nothing.
    let used = image
        .groups
        .iter()
        .map(|(index, ..)| *index)
        .max()
        .map_or(0, |last| last + 1);
    let used_only = |index: usize| image.groups.iter().any(|(at, ..)| *at == index);
    assert!((0..used).all(used_only), "segments are used in order");
    image.contents.truncate(used);
    image.segments = Rc::new(image.segments[..used].to_vec());
    assert_eq!(used, 3);
    image
}

/// The work is split, so that two cores share it.
const PARTS: usize = 4;

#[test]
fn every_flipped_bit_gets_the_right_verdict_part_1() {
    flip_every_bit(0);
}

#[test]
fn every_flipped_bit_gets_the_right_verdict_part_2() {
    flip_every_bit(1);
}

#[test]
fn every_flipped_bit_gets_the_right_verdict_part_3() {
    flip_every_bit(2);
}

#[test]
fn every_flipped_bit_gets_the_right_verdict_part_4() {
    flip_every_bit(3);
}

/// `WAL_BIT_STRIDE` tries only every so manieth bit (default 1: all of them).
fn flip_every_bit(part: usize) {
    let mut image = quiet();
    let stride = usize::try_from(env_or("WAL_BIT_STRIDE", 1)).expect("a small number");
    let all_records = image.records.len();
    let last = image.groups.len() - 1;
    let mut tried = 0;
    for index in 0..image.contents.len() {
        // The headers are not read here; their own tests flip each of their bits.
        let bits = 2 * BLOCK_BYTES * 8..image.contents[index].len() * 8;
        for bit in bits.skip(part * stride).step_by(PARTS * stride) {
            let byte = bit / 8;
            let group = image.group_at(index, byte);
            image.contents[index][byte] ^= 1 << (bit % 8);
            let (recovery, found) = image.recover();
            image.contents[index][byte] ^= 1 << (bit % 8);
            let expected = match group {
                // Behind the end: a sector that no write left like this, and nothing that counts.
                None => (Verdict::Torn, all_records),
                // The mark itself: nothing proves that it was there, and no crash makes it look so.
                Some(group) if group == last => (Verdict::Suspect, all_records),
                Some(group) => (Verdict::Corrupt, image.records_before(group)),
            };
            let verdict = if group.is_none() && recovery.verdict == Verdict::CleanEnd {
                Verdict::Torn
            } else {
                recovery.verdict
            };
            assert_eq!(
                (verdict, found),
                expected,
                "segment {index}, bit {bit}, group {group:?}"
            );
            if let Some(damage) = recovery.damage {
                let (_, _, header) = &image.groups[group.expect("damage is in a group")];
                assert_eq!((damage.group, damage.first_lsn), (header.group, header.first_lsn));
            }
            tried += 1;
        }
    }
    println!("part {part}: {tried} bits");
}

/// A lane whose last groups are in flight: of one or two blocks, in one segment or over the edge of
/// one.
fn in_flight(sizes: &[usize]) -> World {
    let mut world = World::new(small_config(sizes.len()), 22);
    world.start().expect("the first start");
    world.prepare();
    world
        .append(RecordKind::Strong, TargetId(1), 30)
        .expect("there is room");
    world.settle();
    for bytes in sizes {
        world
            .append(RecordKind::Strong, TargetId(1), *bytes)
            .expect("there is room");
        world.turn();
    }
    assert_eq!(world.disk.in_flight(), sizes.len());
    world.running = None;
    world
}

#[test]
fn every_torn_end_gets_the_right_verdict() {
    let mut rng = Rng(5);
    let mut images = 0;
    let small = 10;
    let large = 5000;
    for sizes in [
        &[small][..],
        &[large],
        &[small, small],
        &[small, large],
        &[large, small, large],
        &[small, large, large, small],
    ] {
        let world = in_flight(sizes);
        let settled = {
            let disk = world.disk.snapshot();
            disk.crash(Crash::PowerCut, 0, |_| true);
            Image::of(&disk, &world.config)
        };
        let first = settled.groups.len() - sizes.len();
        let sectors_of = |group: usize| settled.bytes_of(group).1.len() / SECTOR_BYTES;
        let sectors = world.disk.sectors_at_stake(Crash::PowerCut);
        assert_eq!(
            sectors,
            (first..settled.groups.len()).map(sectors_of).sum::<usize>()
        );
        let subsets: Vec<u64> = if sectors <= 16 {
            (0..1 << sectors)
                .step_by(if sectors <= 8 { 1 } else { 7 })
                .collect()
        } else {
            // Whole groups and single sectors are the interesting cases; chance alone rarely makes
            // them.
            let bits = |rng: &mut Rng| match rng.below(4) {
                0 => u64::MAX << rng.below(sectors),
                1 => (1 << rng.below(sectors)) - 1,
                2 => !(1 << rng.below(sectors)),
                _ => rng.next(),
            };
            (0..env_or("WAL_TORN_IMAGES", 5000))
                .map(|_| bits(&mut rng))
                .collect()
        };
        for subset in subsets {
            let disk = world.disk.snapshot();
            disk.crash(Crash::PowerCut, 0, |sector| subset >> sector & 1 == 1);
            // The truth: which groups are whole, and whether anything is there of the others after
            // them.
            let (mut end, mut at) = (first, 0);
            while end < settled.groups.len() {
                let whole = (1_u64 << sectors_of(end)) - 1;
                if subset >> at & whole != whole {
                    break;
                }
                at += sectors_of(end);
                end += 1;
            }
            let rest = (at..sectors).any(|sector| subset >> sector & 1 == 1);
            let truth = if rest { Verdict::Torn } else { Verdict::CleanEnd };
            let mut torn = Image {
                contents: Image::contents_of(&disk, &settled.segments),
                segments: Rc::clone(&settled.segments),
                groups: settled.groups.clone(),
                records: settled.records.clone(),
                ..settled
            };
            let (recovery, found) = torn.recover();
            let what = format!("groups of {sizes:?} bytes, sectors {subset:b}");
            assert_eq!(recovery.verdict, truth, "{what}");
            assert_eq!(found, settled.records_before(end), "{what}");
            images += 1;
        }
    }
    println!("{images} torn images");
}

/// The first two groups of a lane whose records are these bytes, under a key and numbers that are
/// always the same.
fn two_groups(byte: u8) -> Vec<(u32, Vec<u8>)> {
    let mut commit =
        GroupCommit::new(Config::default(), LANE, Epoch(1), Resume::default()).expect("the defaults");
    commit.handle_segment(ReadySegment {
        segment: SegmentNumber(1),
        cipher: SegmentCipher::new(&SecretKey::new([7; 32])),
    });
    let mut groups = Vec::new();
    for _ in 0..2 {
        let record = Record {
            kind: RecordKind::Strong,
            target: TargetId(1),
            payload: &[byte],
        };
        commit.append(0, &record).expect("there is room");
        let write = commit.poll_action(0).expect("a strong record is due");
        groups.push((write.block, write.bytes().to_vec()));
        let result = WriteResult::Durable(write.bytes().len());
        commit.handle_completion(0, write.group, result, write.buffer);
    }
    groups
}

#[test]
fn a_group_of_another_history_does_not_continue_this_one() {
    let (ours, theirs) = (two_groups(1), two_groups(2));
    for (second, expected) in [(&ours[1], 2), (&theirs[1], 1)] {
        let mut contents = vec![0; 8 * BLOCK_BYTES];
        for (block, bytes) in [&ours[0], second] {
            contents[*block as usize * BLOCK_BYTES..][..bytes.len()].copy_from_slice(bytes);
        }
        let records = (1..=2).map(|lsn| (Lsn(lsn), vec![1])).collect();
        let segment = RecoverySegment {
            segment: SegmentNumber(1),
            epoch: Epoch(1),
            blocks: 8,
            cipher: Some(SegmentCipher::new(&SecretKey::new([7; 32]))),
        };
        let mut image = Image {
            segments: Rc::new(vec![segment]),
            contents: vec![contents],
            evidence: Evidence::default(),
            base: Base::default(),
            groups: Vec::new(),
            records,
        };
        let (recovery, found) = image.recover();
        assert_eq!(found, expected);
        assert_eq!(recovery.damage.is_some(), expected == 1, "{:?}", recovery.verdict);
    }
}

/// A header after the end that says the next group was durable: believed where it belongs, and
/// nowhere else.
#[test]
fn a_header_bears_witness_only_in_its_own_place() {
    type Change = fn(&mut GroupHeader);
    let cases: [(&str, Change, Verdict); 7] = [
        ("in its place", |_| (), Verdict::Corrupt),
        ("of another lane", |header| header.lane.0 += 1, Verdict::Torn),
        (
            "of another segment",
            |header| header.segment.0 += 1,
            Verdict::Torn,
        ),
        ("of another block", |header| header.block += 1, Verdict::Torn),
        (
            "longer than its segment",
            |header| header.blocks += 1,
            Verdict::Torn,
        ),
        (
            "of a segment's start",
            |header| header.flags.open = true,
            Verdict::Torn,
        ),
        ("of an earlier epoch", |header| header.epoch.0 -= 1, Verdict::Torn),
    ];
    let mut image = quiet();
    let (index, block, last) = image.groups[image.groups.len() - 1];
    // The block at the end stays blank, so that the verdict hangs on the witness alone.
    let place = block as u32 + last.blocks + 1;
    let next = last.group.next();
    let right = GroupHeader {
        flags: GroupFlags::default(),
        group: next.next(),
        block: place,
        // As long as its segment allows.
        blocks: image.segments[index].blocks - place,
        payload_bytes: 0,
        record_count: 0,
        first_lsn: last.last_lsn().next(),
        durable_group: next,
        ..last
    };
    let all_records = image.records.len();
    for (what, change, expected) in cases {
        let mut header = right;
        change(&mut header);
        let bytes = &mut image.contents[index][place as usize * BLOCK_BYTES..][..BLOCK_BYTES];
        header.encode(bytes);
        assert_eq!(GroupHeader::decode(bytes), Ok(header), "{what}: a good header");
        let (recovery, found) = image.recover();
        assert_eq!((recovery.verdict, found), (expected, all_records), "{what}");
    }
}
