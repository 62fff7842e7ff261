//! The encoders of `prism.keyvalue.v1` write, byte for byte, what prost writes.

use prism_codec::{
    message::{
        common::StatusOut,
        keyvalue::*,
        receipt::{ItemResultsWriter, encode_write_response},
    },
    proto::prism::{common::v1 as common, keyvalue::v1 as kv},
};
use prost::Message as _;

use super::{convert, wire::Random};

fn random_item(random: &mut Random) -> kv::Item {
    let ttl = random.percent(30).then(|| prost_types::Duration {
        seconds: (random.number() >> 30) as i64,
        nanos: 1 + random.below(999_999_999) as i32,
    });
    kv::Item {
        key: random.bytes(20),
        value: random.bytes(300),
        ttl,
        compression: random.below(6) as i32,
        version: random.bytes(20),
    }
}

fn view_of(item: &kv::Item) -> ItemView<'_> {
    let ttl = item
        .ttl
        .as_ref()
        .map(|ttl| prism_codec::message::common::DurationView {
            seconds: ttl.seconds,
            nanos: ttl.nanos,
        });
    ItemView {
        key: &item.key,
        value: &item.value,
        ttl,
        compression: item.compression,
        version: &item.version,
    }
}

pub(super) fn random_result(random: &mut Random) -> common::WriteResult {
    common::WriteResult {
        durability: random.number() as i32,
        lane: random.number() as u32,
        lsn: random.number(),
        applied: random.percent(50),
    }
}

pub(super) fn result_view(result: &common::WriteResult) -> prism_codec::message::common::WriteResultView {
    prism_codec::message::common::WriteResultView {
        durability: result.durability,
        lane: result.lane,
        lsn: result.lsn,
        applied: result.applied,
    }
}

pub(super) fn random_token(random: &mut Random) -> common::IdempotencyToken {
    let generation_time = random.percent(70).then(|| prost_types::Timestamp {
        seconds: random.number() as i64 >> 31,
        nanos: random.below(1_000_000_000) as i32,
    });
    let mut token = random.bytes(63);
    token.push(1);
    common::IdempotencyToken {
        generation_time,
        token,
    }
}

pub(super) fn token_view(token: &common::IdempotencyToken) -> prism_codec::message::common::TokenView<'_> {
    use prism_codec::message::common::{TimestampView, TokenView};
    let generation_time = token.generation_time.as_ref().map(|time| TimestampView {
        seconds: time.seconds,
        nanos: time.nanos,
    });
    TokenView {
        generation_time,
        token: &token.token,
    }
}

/// The encoders write, byte for byte, what prost writes.
#[test]
fn requests_are_encoded_as_prost_does() {
    for seed in 0..2_000 {
        let random = &mut Random::new(seed);
        let (namespace, id) = (format!("n{}", random.text(5)), format!("i{}", random.text(300)));
        let token = random.percent(50).then(|| random_token(random));
        let items: Vec<_> = (0..1 + random.below(9)).map(|_| random_item(random)).collect();
        let views: Vec<_> = items.iter().map(view_of).collect();

        let mut out = vec![9];
        encode_put_request(
            &mut out,
            &namespace,
            &id,
            token.as_ref().map(token_view).as_ref(),
            views.iter().copied(),
        );
        let put = kv::PutRequest {
            namespace: namespace.clone(),
            id: id.clone(),
            idempotency_token: token.clone(),
            items: items.clone(),
        };
        assert_eq!(out[1..], put.encode_to_vec(), "seed {seed}");
        assert_eq!(
            convert::put(PutView::decode(&out[1..]).expect("within limits")),
            put,
            "seed {seed}"
        );

        let keys: Vec<Vec<u8>> = (0..random.below(5)).map(|_| random.bytes(200)).collect();
        let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let (start, end) = (random.bytes(9), random.bytes(9));
        let (predicate, kind) = match random.below(3) {
            0 => (PredicateOut::All, kv::predicate::Kind::All(kv::All {})),
            1 => (
                PredicateOut::Keys(&slices),
                kv::predicate::Kind::Keys(kv::KeySet { keys: keys.clone() }),
            ),
            _ => {
                let range = kv::KeyRange {
                    start: start.clone(),
                    end: end.clone(),
                };
                (
                    PredicateOut::Range {
                        start: &start,
                        end: &end,
                    },
                    kv::predicate::Kind::Range(range),
                )
            }
        };
        let wanted_predicate = kv::Predicate { kind: Some(kind) };
        let page_token = random.bytes(200);
        let selection = SelectionView {
            page_bytes: random.number() as u32,
            item_limit: random.number() as u32,
            page_token: &page_token,
        };

        let mut out = Vec::new();
        encode_get_request(&mut out, &namespace, &id, Some(&predicate), Some(&selection));
        let get = kv::GetRequest {
            namespace: namespace.clone(),
            id: id.clone(),
            predicate: Some(wanted_predicate.clone()),
            selection: Some(convert::selection(selection)),
        };
        assert_eq!(out, get.encode_to_vec(), "seed {seed}");

        let mut out = Vec::new();
        encode_delete_request(
            &mut out,
            &namespace,
            &id,
            token.as_ref().map(token_view).as_ref(),
            Some(&predicate),
        );
        let delete = kv::DeleteRequest {
            namespace: namespace.clone(),
            id: id.clone(),
            idempotency_token: token.clone(),
            predicate: Some(wanted_predicate.clone()),
        };
        assert_eq!(out, delete.encode_to_vec(), "seed {seed}");

        let mut out = Vec::new();
        encode_scan_request(&mut out, &namespace, Some(&selection));
        let scan = kv::ScanRequest {
            namespace: namespace.clone(),
            selection: Some(convert::selection(selection)),
        };
        assert_eq!(out, scan.encode_to_vec(), "seed {seed}");

        let mutations = [
            MutationOut {
                id: &id,
                operation: MutationOperationOut::Put(&views),
            },
            MutationOut {
                id: "x",
                operation: MutationOperationOut::Delete(Some(predicate)),
            },
            MutationOut {
                id: "",
                operation: MutationOperationOut::Delete(None),
            },
        ];
        let mut out = Vec::new();
        encode_mutate_request(
            &mut out,
            &namespace,
            token.as_ref().map(token_view).as_ref(),
            mutations,
        );
        let delete_items = |predicate| Some(kv::mutation::Operation::Delete(kv::DeleteItems { predicate }));
        let put_items = Some(kv::mutation::Operation::Put(kv::PutItems {
            items: items.clone(),
        }));
        let mutate = kv::MutateRequest {
            namespace: namespace.clone(),
            idempotency_token: token.clone(),
            mutations: vec![
                kv::Mutation {
                    id: id.clone(),
                    operation: put_items,
                },
                kv::Mutation {
                    id: "x".into(),
                    operation: delete_items(Some(wanted_predicate)),
                },
                kv::Mutation {
                    id: String::new(),
                    operation: delete_items(None),
                },
            ],
        };
        assert_eq!(out, mutate.encode_to_vec(), "seed {seed}");

        let expected = match random.below(3) {
            0 => ExpectedView::Absent,
            1 => ExpectedView::Value(&start),
            _ => ExpectedView::Version(&start),
        };
        let mut out = Vec::new();
        let (key, token_out) = (&items[0].key, token.as_ref().map(token_view));
        encode_compare_and_swap_request(
            &mut out,
            &namespace,
            &id,
            key,
            token_out.as_ref(),
            expected,
            views.first(),
        );
        let view = CompareAndSwapView::decode(&out).expect("within limits");
        assert_eq!(view.expected, expected);
        assert_eq!(
            out,
            convert::compare_and_swap(view).encode_to_vec(),
            "seed {seed}"
        );
    }
}

#[test]
fn responses_are_encoded_as_prost_does() {
    for seed in 0..2_000 {
        let random = &mut Random::new(seed);
        let result = random_result(random);
        let mut out = vec![1, 2, 3];
        encode_write_response(&mut out, &result_view(&result), &[]);
        assert_eq!(out[3..], kv::PutResponse { result: Some(result) }.encode_to_vec());
        out.clear();
        encode_write_response(&mut out, &result_view(&result), &[]);
        assert_eq!(out, kv::DeleteResponse { result: Some(result) }.encode_to_vec());

        let items: Vec<_> = (0..random.below(9)).map(|_| random_item(random)).collect();
        let page_token = random.bytes(9);
        let mut out = vec![1];
        let mut writer = GetResponseWriter::new(&mut out);
        let mut size = 0;
        for item in &items {
            writer.item(&view_of(item));
            size += item_encoded_len(&view_of(item));
        }
        writer.finish(&[]);
        assert_eq!(out.len() - 1, size);
        assert_eq!(
            out[1..],
            kv::GetResponse {
                items: items.clone(),
                next_page_token: vec![]
            }
            .encode_to_vec()
        );

        let entries: Vec<_> = (0..random.below(4))
            .map(|_| {
                let count = if random.percent(20) { 80 } else { random.below(3) };
                let items = (0..count).map(|_| random_item(random)).collect();
                kv::ScanEntry {
                    id: random.text(9),
                    items,
                }
            })
            .collect();
        let mut out = vec![1];
        let mut writer = ScanResponseWriter::new(&mut out);
        for entry in &entries {
            writer.entry(&entry.id);
            for item in &entry.items {
                writer.item(&view_of(item));
            }
        }
        writer.finish(&page_token);
        let scan = kv::ScanResponse {
            entries,
            next_page_token: page_token,
        };
        assert!(out[1..] == scan.encode_to_vec(), "seed {seed}");

        let swapped = random.percent(50);
        let current = items.first();
        let mut out = Vec::new();
        encode_compare_and_swap_response(
            &mut out,
            swapped,
            current.map(view_of).as_ref(),
            Some(&result_view(&result)),
        );
        let swap = kv::CompareAndSwapResponse {
            swapped,
            current: current.cloned(),
            result: Some(result),
        };
        assert_eq!(out, swap.encode_to_vec());

        let status = prism_codec::proto::google::rpc::Status {
            code: random.below(17) as i32,
            message: random.text(60),
            details: vec![prost_types::Any {
                type_url: random.text(9),
                value: random.bytes(200),
            }],
        };
        let details = [prism_codec::message::common::AnyView {
            type_url: &status.details[0].type_url,
            value: &status.details[0].value,
        }];
        let mut out = Vec::new();
        let mut writer = ItemResultsWriter::new(&mut out);
        let status_out = StatusOut {
            code: status.code,
            message: &status.message,
            details: &details,
        };
        writer.result(Some(&status_out), None, &[]);
        writer.result(Some(&StatusOut::default()), Some(&result_view(&result)), &[]);
        writer.result(None, None, &[]);
        let mutate = kv::MutateResponse {
            results: vec![
                kv::MutationResult {
                    status: Some(status),
                    result: None,
                },
                kv::MutationResult {
                    status: Some(Default::default()),
                    result: Some(result),
                },
                kv::MutationResult::default(),
            ],
        };
        assert_eq!(out, mutate.encode_to_vec(), "seed {seed}");
    }
}
