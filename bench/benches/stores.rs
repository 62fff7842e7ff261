//! Costs of the stores: criterion benches of the memory store (an overwriting put, a get) and of
//! SQLite (a batch of 64 puts as one transaction, a get, a page of a scan). 100,000 ids with one
//! item of 256 bytes each, picked at random by a fixed seed. The figure for SQLite's puts is per
//! batch: divide by 64.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prism_backends::sqlite::{self, Options, Parts};
use prism_backends::{
    GetQuery, ItemRef, ItemSink, MemoryStore, Mutation, NamespaceId, Operation, PredicateRef, ScanQuery,
    Selection, UnixMillis, Version,
};

const SPACE: NamespaceId = NamespaceId(1);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const IDS: usize = 100_000;
const BATCH: usize = 64;
const VALUE: [u8; 256] = [7; 256];
const ITEMS: [ItemRef<'static>; 1] = [ItemRef {
    key: b"profile",
    value: &VALUE,
    expires_at: None,
    compression: 0,
}];

/// Counts bytes, so that nothing is optimized away.
#[derive(Default)]
struct Bytes(usize);

impl ItemSink for Bytes {
    fn item(&mut self, item: &ItemRef<'_>, _: Version) {
        self.0 += item.value.len();
    }
}

/// xorshift64*: the same picks in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

fn ids() -> Vec<String> {
    (0..IDS).map(|number| format!("user-{number:08x}")).collect()
}

fn put(id: &str, version: i64) -> Mutation<'_> {
    let version = Version::new(version, b"0123456789abcdef");
    Mutation {
        namespace: SPACE,
        id,
        version,
        at: NOW,
        digest: None,
        operation: Operation::Put(&ITEMS),
    }
}

fn get(id: &str) -> GetQuery<'_> {
    let predicate = PredicateRef::Keys(&[b"profile"]);
    GetQuery {
        namespace: SPACE,
        id,
        predicate,
        selection: Selection::default(),
    }
}

fn memory(criterion: &mut Criterion) {
    let ids = ids();
    let mut random = Random(42);
    let mut version = 0;
    let mut store = MemoryStore::new();
    store.create_namespace(SPACE).expect("a new namespace");
    for id in &ids {
        store.apply_one(&put(id, version));
    }
    let mut group = criterion.benchmark_group("memory");
    group.throughput(Throughput::Elements(1));
    group.bench_function("put 256 B, one id", |bencher| {
        bencher.iter(|| {
            version += 1;
            black_box(store.apply_one(&put(&ids[7], version)))
        });
    });
    group.bench_function("put 256 B, 100k ids", |bencher| {
        bencher.iter(|| {
            version += 1;
            black_box(store.apply_one(&put(&ids[random.below(IDS)], version)))
        });
    });
    let mut sink = Bytes::default();
    group.bench_function("get 256 B, 100k ids", |bencher| {
        bencher.iter(|| {
            store
                .get(&get(&ids[random.below(IDS)]), NOW, &mut sink)
                .expect("a get")
        });
    });
    group.finish();
    black_box(sink.0);
}

fn sqlite(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let Parts {
        mut writer,
        readers,
        mut checkpointer,
    } = sqlite::open(&path, Options::default()).expect("a store");
    writer.create_namespace(SPACE).expect("a new namespace");
    let ids = ids();
    let mut random = Random(42);
    let mut version = 0;
    let mut outcomes = Vec::new();
    for part in ids.chunks(1_000) {
        let batch: Vec<_> = part.iter().map(|id| put(id, version)).collect();
        writer.apply(&batch, &mut outcomes).expect("a batch");
    }
    checkpointer.checkpoint().expect("a checkpoint");

    let mut group = criterion.benchmark_group("sqlite");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("put 64 × 256 B as one batch, 100k ids", |bencher| {
        bencher.iter_batched(
            || {
                // Not measured: checkpoints run on a thread of their own in the gateway.
                if checkpointer.is_due() {
                    checkpointer.run_due().expect("a checkpoint");
                }
                version += 1;
                let pick = |_| put(&ids[random.below(IDS)], version);
                (0..BATCH).map(pick).collect::<Vec<_>>()
            },
            |batch| writer.apply(&batch, &mut outcomes).expect("a batch"),
            BatchSize::PerIteration,
        );
    });
    checkpointer.checkpoint().expect("a checkpoint");

    let reader = readers.open().expect("a reader");
    let mut sink = Bytes::default();
    group.throughput(Throughput::Elements(1));
    group.bench_function("get 256 B, 100k ids", |bencher| {
        bencher.iter(|| {
            reader
                .get(&get(&ids[random.below(IDS)]), NOW, &mut sink)
                .expect("a get")
        });
    });
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("scan a page of 1,000 items", |bencher| {
        let selection = Selection {
            item_limit: 1_000,
            ..Selection::default()
        };
        let query = ScanQuery {
            namespace: SPACE,
            selection,
        };
        bencher.iter(|| reader.scan(&query, NOW, &mut sink).expect("a page"));
    });
    group.finish();
    black_box(sink.0);
}

criterion_group!(benches, memory, sqlite);
criterion_main!(benches);
