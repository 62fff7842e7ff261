//! Decoding a PutRequest and reading all of its fields: our views next to prost, prost with
//! `Bytes`, and buffa's views.
//!
//! Run with `cargo bench -p prism-bench --bench views`. Each case takes the same bytes, decodes
//! them, and adds up the parts that a gateway uses: the lengths of namespace, id and token, and of
//! every key and value. The thread's CPU time is measured, so that a busy machine disturbs little.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{Bencher, BenchmarkId, Criterion, criterion_group, criterion_main};
use prism_codec::{
    message::{
        common::WriteResultView,
        keyvalue::{GetResponseWriter, PutView},
        receipt::encode_write_response,
    },
    proto::prism::{common::v1 as common, keyvalue::v1 as kv},
};
use prost::Message as _;

#[allow(dead_code, missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
mod prost_bytes {
    include!(concat!(env!("OUT_DIR"), "/prost_bytes/mod.rs"));
}

#[allow(
    dead_code,
    missing_docs,
    clippy::all,
    unreachable_pub,
    unused_qualifications,
    unused_imports
)]
mod buffa_views {
    include!(concat!(env!("OUT_DIR"), "/buffa/mod.rs"));
}

/// Measures `work` by the thread's CPU time.
fn measure<R>(bencher: &mut Bencher<'_>, mut work: impl FnMut() -> R) {
    bencher.iter_custom(|iterations| {
        let before = cpu_time();
        for _ in 0..iterations {
            black_box(work());
        }
        cpu_time() - before
    });
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A request of about `bytes` bytes in `items` items.
fn put(bytes: usize, items: usize) -> Vec<u8> {
    let mut token = common::IdempotencyToken {
        generation_time: None,
        token: vec![7; 16],
    };
    let time = token.generation_time.get_or_insert_default();
    (time.seconds, time.nanos) = (1_769_860_800, 123_456_789);
    let item = |number: usize| kv::Item {
        key: format!("key-{number:012}").into_bytes(),
        value: vec![number as u8; bytes / items],
        ttl: None,
        compression: 0,
        version: Vec::new(),
    };
    let request = kv::PutRequest {
        namespace: "user-sessions".into(),
        id: "user:0123456789".into(),
        idempotency_token: Some(token),
        items: (0..items).map(item).collect(),
    };
    request.encode_to_vec()
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put_decode_and_read");
    for (bytes, items) in [(256, 1), (1024, 1), (1024, 8)] {
        let request = put(bytes, items);
        let shared = Bytes::from(request.clone());
        let name = format!("{bytes}B_{items}_items");
        group.bench_function(BenchmarkId::new("prism_view", &name), |bencher| {
            measure(bencher, || {
                let view = PutView::decode(black_box(&request)).expect("well-formed");
                let mut sum = view.namespace.len() + view.id.len();
                if let Some(token) = view.token {
                    sum += token.token.len() + token.generation_time.map_or(0, |time| time.nanos as usize);
                }
                for item in view.items {
                    sum += item.key.len() + item.value.len() + item.compression as usize;
                }
                sum
            });
        });
        group.bench_function(BenchmarkId::new("prost", &name), |bencher| {
            measure(bencher, || {
                let request = kv::PutRequest::decode(black_box(&request[..])).expect("well-formed");
                let mut sum = request.namespace.len() + request.id.len();
                for item in &request.items {
                    sum += item.key.len() + item.value.len() + item.compression as usize;
                }
                sum
            });
        });
        group.bench_function(BenchmarkId::new("prost_bytes", &name), |bencher| {
            measure(bencher, || {
                use prost_bytes::prism::keyvalue::v1 as kv;
                let request = kv::PutRequest::decode(black_box(&shared).clone()).expect("well-formed");
                let mut sum = request.namespace.len() + request.id.len();
                for item in &request.items {
                    sum += item.key.len() + item.value.len() + item.compression as usize;
                }
                sum
            });
        });
        group.bench_function(BenchmarkId::new("buffa_view", &name), |bencher| {
            measure(bencher, || {
                use buffa::MessageView as _;
                use buffa_views::prism::keyvalue::v1::__buffa::view::PutRequestView;
                let view = PutRequestView::decode_view(black_box(&request)).expect("well-formed");
                let mut sum = view.namespace.len() + view.id.len();
                for item in view.items.iter() {
                    sum += item.key.len() + item.value.len();
                }
                sum
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let result = WriteResultView {
        durability: 1,
        lane: 3,
        lsn: 1 << 30,
        applied: true,
    };
    let mut out = Vec::with_capacity(1 << 16);
    group.bench_function("put_response", |bencher| {
        measure(bencher, || {
            out.clear();
            encode_write_response(&mut out, black_box(&result), &[]);
            out.len()
        });
    });
    let request = put(1024, 8);
    let view = PutView::decode(&request).expect("well-formed");
    group.bench_function("get_response_8_items", |bencher| {
        measure(bencher, || {
            out.clear();
            let mut writer = GetResponseWriter::new(&mut out);
            for item in black_box(view.items) {
                writer.item(&item);
            }
            writer.finish(b"");
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
