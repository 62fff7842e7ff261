//! Cost of the log in CPU, without any disk: an append, a sealed group, a recovered record.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prism_wal::buffer::BLOCK_BYTES;
use prism_wal::cipher::{SecretKey, SegmentCipher};
use prism_wal::cut::Cut;
use prism_wal::group_commit::{Config, GroupCommit, ReadySegment, Resume, WriteResult};
use prism_wal::ids::{Epoch, LaneId, Lsn, SegmentNumber, TargetId};
use prism_wal::lane::Replay;
use prism_wal::manifest::Base;
use prism_wal::record::{Record, RecordKind};
use prism_wal::recovery::{Evidence, OnDamage, RecoverySegment, SegmentSource, Unreadable, Visitor, recover};
use prism_wal::segment::SEGMENT_BLOCKS_DEFAULT;

const SEGMENT: SegmentNumber = SegmentNumber(1);

fn cipher() -> SegmentCipher {
    SegmentCipher::new(&SecretKey::new([7; 32]))
}

fn record(payload: &[u8]) -> Record<'_> {
    Record {
        kind: RecordKind::Strong,
        target: TargetId(1),
        payload,
    }
}

fn fresh() -> GroupCommit {
    let mut commit = GroupCommit::new(Config::default(), LaneId(0), Epoch(1), Resume::default())
        .expect("the defaults are right");
    commit.handle_segment(ReadySegment {
        segment: SEGMENT,
        cipher: cipher(),
    });
    commit
}

fn append(commit: &mut GroupCommit, records: usize, payload: &[u8]) {
    for _ in 0..records {
        commit.append(0, &record(payload)).expect("there is room");
    }
}

/// Seals what waits and reports it durable; calls `write` with the bytes.
fn seal(commit: &mut GroupCommit, mut write: impl FnMut(u32, &[u8])) {
    while let Some(action) = commit.poll_action(0) {
        write(action.block, action.bytes());
        let bytes = action.bytes().len();
        commit.handle_completion(0, action.group, WriteResult::Durable(bytes), action.buffer);
    }
}

/// A lane whose buffers have been used before, as on a running system.
fn warm(payload: &[u8]) -> GroupCommit {
    let mut commit = fresh();
    append(&mut commit, 1, payload);
    seal(&mut commit, |_, _| {});
    commit
}

fn commit_path(criterion: &mut Criterion) {
    let payload = [3; 256];
    for records in [1, 16, 256] {
        let mut benchmark = criterion.benchmark_group(format!("group of {records} records of 256 bytes"));
        benchmark.throughput(Throughput::Elements(records as u64));
        benchmark.bench_function("append", |bencher| {
            bencher.iter_batched_ref(
                || warm(&payload),
                |commit| append(commit, records, black_box(&payload)),
                BatchSize::LargeInput,
            );
        });
        benchmark.bench_function("seal, durable", |bencher| {
            bencher.iter_batched_ref(
                || {
                    let mut commit = warm(&payload);
                    append(&mut commit, records, &payload);
                    commit
                },
                |commit| {
                    seal(commit, |_, bytes| {
                        black_box(bytes);
                    })
                },
                BatchSize::LargeInput,
            );
        });
        benchmark.finish();
    }
}

struct Image(Vec<u8>);

impl SegmentSource for Image {
    fn read(&mut self, _: usize, block: u32, out: &mut [u8]) -> Result<(), Unreadable> {
        let start = block as usize * BLOCK_BYTES;
        out.copy_from_slice(&self.0[start..start + out.len()]);
        Ok(())
    }
}

#[derive(Default)]
struct Count(u64);

impl Visitor for Count {
    fn record(&mut self, _: Epoch, lsn: Lsn, _: &Record<'_>) {
        self.0 += lsn.0 & 1;
    }
}

fn recovery(criterion: &mut Criterion) {
    let mut image = Image(vec![0; SEGMENT_BLOCKS_DEFAULT as usize * BLOCK_BYTES]);
    let mut commit = fresh();
    let cut = Cut::default().encode();
    commit
        .append(
            0,
            &Record {
                kind: RecordKind::Cut,
                target: TargetId::NONE,
                payload: &cut,
            },
        )
        .expect("there is room");
    for _ in 0..200 {
        append(&mut commit, 256, &[5; 128]);
        seal(&mut commit, |block, bytes| {
            let start = block as usize * BLOCK_BYTES;
            image.0[start..start + bytes.len()].copy_from_slice(bytes);
        });
    }
    let segments = [RecoverySegment {
        segment: SEGMENT,
        epoch: Epoch(1),
        blocks: SEGMENT_BLOCKS_DEFAULT,
        cipher: Some(cipher()),
    }];
    let scan = |image: &mut Image, evidence: Evidence, visitor: &mut dyn Visitor| {
        let (lane, base) = (LaneId(0), Base::default());
        recover(lane, &base, &segments, evidence, OnDamage::Hold, image, visitor)
    };
    let found = scan(&mut image, Evidence::default(), &mut Count::default());
    assert_eq!(found.records, 200 * 256 + 1);
    let clean = Evidence {
        clean_end: Some(found.tip.group),
        ..Evidence::default()
    };
    let mut benchmark = criterion.benchmark_group("recovery of 51,201 records of 128 bytes");
    benchmark
        .throughput(Throughput::Elements(found.records))
        .sample_size(20);
    benchmark.bench_function("after a clean stop", |bencher| {
        bencher.iter(|| scan(&mut image, clean, &mut Count::default()));
    });
    benchmark.bench_function("after a clean stop, into a tail", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut replay = Replay::default();
            scan(&mut image, clean, &mut replay);
            replay
        });
    });
    benchmark.bench_function("after a crash, the rest of the segment scanned", |bencher| {
        bencher.iter(|| scan(&mut image, Evidence::default(), &mut Count::default()));
    });
    benchmark.finish();
}

criterion_group!(benches, commit_path, recovery);
criterion_main!(benches);
