//! HPACK: a gRPC request's header block, decoded and encoded, by the codec and by `fluke-hpack`.

use criterion::{Criterion, criterion_group, criterion_main};
use prism_codec::h2::hpack::{DEFAULT_TABLE_SIZE, Decoder, Encoder, HeaderList, Indexing};
use std::hint::black_box;

/// Header fields that grpc-go sends with a call.
const FIELDS: [(&str, &str); 10] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/prism.keyvalue.v1.KeyValue/Put"),
    (":authority", "127.0.0.1:8980"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.70.0"),
    ("te", "trailers"),
    ("grpc-accept-encoding", "gzip"),
    ("grpc-timeout", "999876u"),
    ("x-request-id", "4f1c2a9e-77d1"),
];

const MAX_LIST: usize = 16 << 10;

fn block(encoder: &mut Encoder, indexing: Indexing) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in FIELDS {
        encoder.encode(&mut out, name.as_bytes(), value.as_bytes(), indexing);
    }
    out
}

fn hpack(criterion: &mut Criterion) {
    let mut encoder = Encoder::new(DEFAULT_TABLE_SIZE);
    let literal = block(&mut encoder, Indexing::Without);
    let inserting = block(&mut encoder, Indexing::Incremental);
    let indexed = block(&mut encoder, Indexing::Incremental);

    let mut group = criterion.benchmark_group("hpack_decode_10_fields");
    for (name, bytes) in [
        ("indexed", &indexed),
        ("literal_huffman", &literal),
        ("inserting", &inserting),
    ] {
        let (mut decoder, mut list) = (Decoder::new(DEFAULT_TABLE_SIZE), HeaderList::new());
        decoder
            .decode(&inserting, MAX_LIST, &mut list)
            .expect("our own block");
        group.bench_function(format!("prism/{name}"), |bencher| {
            bencher.iter(|| {
                decoder
                    .decode(black_box(bytes), MAX_LIST, &mut list)
                    .map(|info| info.list_bytes)
            });
        });
        let mut decoder = fluke_hpack::Decoder::new();
        decoder.decode(&inserting).expect("our own block");
        group.bench_function(format!("fluke-hpack/{name}"), |bencher| {
            bencher.iter(|| decoder.decode(black_box(bytes)).map(|fields| fields.len()));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("hpack_encode_10_fields");
    for (name, indexing) in [
        ("indexed", Indexing::Incremental),
        ("literal_huffman", Indexing::Without),
    ] {
        let mut encoder = Encoder::new(DEFAULT_TABLE_SIZE);
        block(&mut encoder, indexing);
        let mut out = Vec::new();
        group.bench_function(format!("prism/{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                for (name, value) in black_box(FIELDS) {
                    encoder.encode(&mut out, name.as_bytes(), value.as_bytes(), indexing);
                }
                out.len()
            });
        });
    }
    let mut encoder = fluke_hpack::Encoder::new();
    group.bench_function("fluke-hpack/indexed", |bencher| {
        bencher.iter(|| {
            encoder.encode(
                black_box(FIELDS)
                    .iter()
                    .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
            )
        });
    });
    group.finish();
}

criterion_group!(benches, hpack);
criterion_main!(benches);
