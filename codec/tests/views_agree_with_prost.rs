//! Every view accepts and refuses the messages that prost does, and reads the same values: on
//! well-formed messages in every order and number of pieces, on illegal ones, and on damaged bytes.
//! Each failing case prints its seed.

#[path = "support/convert.rs"]
mod convert;
#[path = "support/wire.rs"]
mod wire;

use prism_codec::{
    error::{DecodeError, DecodeErrorKind},
    message::{
        common::StatusOut,
        keyvalue::*,
        receipt::{ItemResultsWriter, encode_write_response},
    },
    proto::prism::{common::v1 as common, keyvalue::v1 as kv},
};
use prost::Message;
use wire::{Kind, Random, Schema};

/// Count of each outcome, so that a test fails that never reaches the interesting part.
#[derive(Default, Debug)]
struct Tally {
    equal: usize,
    beyond_limit: usize,
    malformed: usize,
}

/// Compares a view with prost on `rounds` messages. `same` gets prost's value and the bytes, and
/// decides on equality.
fn compare<M: Message + Default + std::fmt::Debug>(
    schema: Schema,
    rounds: u64,
    limits_exist: bool,
    view: impl for<'b> Fn(&'b [u8], &M) -> Result<(), DecodeError>,
) {
    let mut tally = Tally::default();
    for seed in 0..rounds {
        let mut random = Random::new(seed);
        let mut bytes = Vec::new();
        let wild = if seed % 3 == 2 { 2 } else { 0 };
        wire::message(&mut random, schema, wild, &mut bytes);
        if seed % 3 == 1 {
            wire::damage(&mut random, &mut bytes);
        }
        // The view gets prost's value for comparison; where prost refuses, it gets any value, since
        // the comparison must not be reached.
        let reference = M::decode(&bytes[..]);
        let context = format!("seed {seed}, bytes {bytes:02x?}");
        match (
            &reference,
            view(&bytes, reference.as_ref().unwrap_or(&M::default())),
        ) {
            (Ok(_), Ok(())) => tally.equal += 1,
            (Ok(_), Err(error)) if error.is_limit() => tally.beyond_limit += 1,
            (Err(_), Err(error)) if !error.is_limit() => tally.malformed += 1,
            // prost does not check the wire type of a map's entries.
            (Ok(_), Err(error)) if error.kind() == DecodeErrorKind::WrongWireType && has_map(schema) => {
                tally.malformed += 1;
            }
            (Ok(value), Err(error)) => panic!("only the view refuses: {error}; {value:?}; {context}"),
            (Err(error), Ok(())) => panic!("only prost refuses: {error}; {context}"),
            (Err(prost), Err(error)) => {
                panic!("prost: {prost}; the view sees only a limit: {error}; {context}")
            }
        }
    }
    let rounds = rounds as usize;
    assert!(
        tally.equal > rounds / 20 && tally.malformed > rounds / 20,
        "{tally:?}"
    );
    assert_eq!(tally.beyond_limit > 0, limits_exist, "{tally:?}");
}

fn has_map(schema: Schema) -> bool {
    schema.iter().any(|(_, kind)| match kind {
        Kind::Map(_) => true,
        Kind::Message(schema) => has_map(schema),
        _ => false,
    })
}

/// A comparison that only counts where prost accepts as well: `compare` reports the other case
/// itself.
macro_rules! view_test {
    ($name:ident, $schema:expr, $limits:expr, $message:ty, $view:expr, |$reference:ident| $normal:expr) => {
        #[test]
        fn $name() {
            compare::<$message>($schema, 12_000, $limits, |bytes, reference| {
                let got = $view(bytes)?;
                if <$message>::decode(bytes).is_ok() {
                    let $reference = reference.clone();
                    assert_eq!(got, $normal, "bytes {bytes:02x?}");
                }
                Ok(())
            });
        }
    };
}

#[path = "views_agree/pubsub.rs"]
mod pubsub;
#[path = "views_agree/queue.rs"]
mod queue;

/// Predicate that an absent one means.
fn all() -> Option<kv::Predicate> {
    Some(kv::Predicate {
        kind: Some(kv::predicate::Kind::All(kv::All {})),
    })
}

view_test!(
    put,
    wire::PUT,
    true,
    kv::PutRequest,
    |bytes| PutView::decode(bytes).map(convert::put),
    |wanted| wanted
);
view_test!(
    get,
    wire::GET,
    true,
    kv::GetRequest,
    |bytes| GetView::decode(bytes).map(convert::get),
    |wanted| {
        kv::GetRequest {
            predicate: wanted.predicate.clone().or_else(all),
            selection: Some(wanted.selection.clone().unwrap_or_default()),
            ..wanted
        }
    }
);
view_test!(
    delete,
    wire::DELETE,
    true,
    kv::DeleteRequest,
    |bytes| DeleteView::decode(bytes).map(convert::delete),
    |wanted| kv::DeleteRequest {
        predicate: wanted.predicate.clone().or_else(all),
        ..wanted
    }
);
view_test!(
    scan,
    wire::SCAN,
    true,
    kv::ScanRequest,
    |bytes| ScanView::decode(bytes).map(convert::scan),
    |wanted| {
        kv::ScanRequest {
            selection: Some(wanted.selection.clone().unwrap_or_default()),
            ..wanted
        }
    }
);
view_test!(
    compare_and_swap,
    wire::CAS,
    true,
    kv::CompareAndSwapRequest,
    |bytes| CompareAndSwapView::decode(bytes).map(convert::compare_and_swap),
    |wanted| {
        let key = wanted.key.clone();
        kv::CompareAndSwapRequest {
            item: wanted.item.clone().map(|item| kv::Item { key, ..item }),
            ..wanted
        }
    }
);
view_test!(
    put_response,
    wire::WRITE_RESPONSE,
    false,
    kv::PutResponse,
    |bytes| PutResponseView::decode(bytes).map(|view| kv::PutResponse {
        result: view.result.map(convert::result)
    }),
    |wanted| wanted
);
view_test!(
    delete_response,
    wire::WRITE_RESPONSE,
    false,
    kv::DeleteResponse,
    |bytes| DeleteResponseView::decode(bytes).map(|view| kv::DeleteResponse {
        result: view.result.map(convert::result)
    }),
    |wanted| wanted
);
view_test!(
    get_response,
    wire::GET_RESPONSE,
    false,
    kv::GetResponse,
    |bytes| GetResponseView::decode(bytes).map(convert::get_response),
    |wanted| wanted
);
view_test!(
    scan_response,
    wire::SCAN_RESPONSE,
    false,
    kv::ScanResponse,
    |bytes| ScanResponseView::decode(bytes).map(convert::scan_response),
    |wanted| wanted
);
view_test!(
    mutate_response,
    wire::MUTATE_RESPONSE,
    false,
    kv::MutateResponse,
    |bytes| MutateResponseView::decode(bytes).map(convert::mutate_response),
    |wanted| wanted
);
view_test!(
    compare_and_swap_response,
    wire::CAS_RESPONSE,
    false,
    kv::CompareAndSwapResponse,
    |bytes| CompareAndSwapResponseView::decode(bytes).map(convert::compare_and_swap_response),
    |wanted| wanted
);

/// The mutations of a Mutate that break no limit must be those that prost reads, in their places.
#[test]
fn mutate() {
    let (mut sound, mut broken) = (0, 0);
    let counts = std::cell::RefCell::new((&mut sound, &mut broken));
    compare::<kv::MutateRequest>(wire::MUTATE, 20_000, true, |bytes, wanted| {
        let view = MutateView::decode(bytes)?;
        if kv::MutateRequest::decode(bytes).is_err() {
            return Ok(());
        }
        assert_eq!(view.namespace, wanted.namespace);
        assert_eq!(view.token.map(convert::token), wanted.idempotency_token);
        assert_eq!(view.mutations.len(), wanted.mutations.len());
        for (got, wanted) in view.mutations.iter().zip(&wanted.mutations) {
            let mut counts = counts.borrow_mut();
            let Some(got) = convert::mutation(got) else {
                *counts.1 += 1;
                continue;
            };
            *counts.0 += 1;
            let mut wanted = wanted.clone();
            if let Some(kv::mutation::Operation::Delete(delete)) = &mut wanted.operation {
                delete.predicate = delete.predicate.take().or_else(all);
            }
            assert_eq!(got, wanted, "bytes {bytes:02x?}");
        }
        Ok(())
    });
    assert!(sound > 1_000 && broken > 1_000, "{sound} {broken}");
}

/// prost refuses groups deeper than 100 levels, counted with the enclosing messages; so do the
/// views.
#[test]
fn depth_limits_are_the_same() {
    for depth in 90..110usize {
        let mut group = vec![0x9b, 0x3e];
        group = group.repeat(depth);
        group.extend([0x9c, 0x3e].repeat(depth));
        let mut put = vec![0x0a, 1, b'n', 0x12, 1, b'i', 0x22, 0];
        put.extend(&group);
        assert_eq!(
            kv::PutRequest::decode(&put[..]).is_ok(),
            PutView::decode(&put).is_ok(),
            "depth {depth}"
        );
        let mut nested = vec![0x0a, 1, b'n', 0x12, 1, b'i', 0x22];
        prost::encoding::encode_varint(group.len() as u64, &mut nested);
        nested.extend(&group);
        assert_eq!(
            kv::PutRequest::decode(&nested[..]).is_ok(),
            PutView::decode(&nested).is_ok(),
            "item {depth}"
        );
    }
}

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

fn random_result(random: &mut Random) -> common::WriteResult {
    common::WriteResult {
        durability: random.number() as i32,
        lane: random.number() as u32,
        lsn: random.number(),
        applied: random.percent(50),
    }
}

fn result_view(result: &common::WriteResult) -> prism_codec::message::common::WriteResultView {
    prism_codec::message::common::WriteResultView {
        durability: result.durability,
        lane: result.lane,
        lsn: result.lsn,
        applied: result.applied,
    }
}

fn random_token(random: &mut Random) -> common::IdempotencyToken {
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

fn token_view(token: &common::IdempotencyToken) -> prism_codec::message::common::TokenView<'_> {
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

#[test]
fn limits_name_the_field() {
    let item = kv::Item {
        key: b"k".to_vec(),
        ..Default::default()
    };
    let put = kv::PutRequest {
        namespace: "n".into(),
        id: "i".into(),
        idempotency_token: None,
        items: vec![item.clone(); 3],
    };
    type Change = fn(&mut kv::PutRequest);
    let cases: [(Change, &str); 12] = [
        (
            |put| put.namespace.clear(),
            "field \"namespace\" must not be empty",
        ),
        (
            |put| put.namespace = "x".repeat(256),
            "field \"namespace\" is longer than 255 bytes",
        ),
        (|put| put.id.clear(), "field \"id\" must not be empty"),
        (
            |put| put.id = "x".repeat(1_025),
            "field \"id\" is longer than 1024 bytes",
        ),
        (|put| put.items.clear(), "field \"items\" must not be empty"),
        (
            |put| put.items = vec![Default::default(); 1_001],
            "field \"items\" has more than 1000 elements",
        ),
        (
            |put| put.items[2].key = vec![0; 1_025],
            "field \"items[2].key\" is longer than 1024 bytes",
        ),
        (
            |put| put.items[1].compression = 256,
            "field \"items[1].compression\" is out of range",
        ),
        (
            |put| put.items[1].ttl = Some(Default::default()),
            "field \"items[1].ttl\" is out of range",
        ),
        (
            |put| put.idempotency_token = Some(Default::default()),
            "field \"idempotency_token.token\" must not be empty",
        ),
        (
            |put| {
                put.idempotency_token = Some(common::IdempotencyToken {
                    generation_time: None,
                    token: vec![1; 65],
                });
            },
            "field \"idempotency_token.token\" is longer than 64 bytes",
        ),
        (
            |put| {
                let time = prost_types::Timestamp {
                    seconds: 0,
                    nanos: -1,
                };
                put.idempotency_token = Some(common::IdempotencyToken {
                    generation_time: Some(time),
                    token: vec![1; 64],
                });
            },
            "field \"idempotency_token.generation_time\" is out of range",
        ),
    ];
    for (change, expected) in cases {
        let mut changed = put.clone();
        change(&mut changed);
        assert_eq!(
            PutView::decode(&changed.encode_to_vec())
                .expect_err(expected)
                .to_string(),
            expected
        );
    }
    // At the limits themselves.
    let full = kv::PutRequest {
        namespace: "x".repeat(255),
        id: "x".repeat(1_024),
        idempotency_token: Some(common::IdempotencyToken {
            generation_time: None,
            token: vec![1; 64],
        }),
        items: vec![
            kv::Item {
                key: vec![0; 1_024],
                compression: 255,
                ..Default::default()
            };
            1_000
        ],
    };
    let bytes = full.encode_to_vec();
    assert_eq!(
        convert::put(PutView::decode(&bytes).expect("at the limits")),
        full
    );

    let mut truncated = put.encode_to_vec();
    truncated.pop();
    let error = PutView::decode(&truncated).expect_err("truncated");
    assert_eq!(
        error.to_string(),
        "field \"items\" ends before its announced length"
    );
    let mut inner = put.encode_to_vec();
    let last = inner.len() - 2;
    inner[last] = 9;
    let error = PutView::decode(&inner).expect_err("truncated within the item");
    assert_eq!(
        error.to_string(),
        "field \"items[2].key\" ends before its announced length"
    );
}

/// A predicate of a kind that this gateway does not know must not mean "all".
#[test]
fn an_empty_predicate_is_refused_not_read_as_all() {
    let delete = kv::DeleteRequest {
        namespace: "n".into(),
        id: "i".into(),
        predicate: Some(kv::Predicate { kind: None }),
        ..Default::default()
    };
    let error = DeleteView::decode(&delete.encode_to_vec())
        .expect_err("no kind")
        .to_string();
    assert_eq!(error, "field \"predicate.kind\" must not be empty");
    let absent = kv::DeleteRequest {
        predicate: None,
        ..delete
    };
    assert_eq!(
        DeleteView::decode(&absent.encode_to_vec())
            .expect("absent")
            .predicate,
        PredicateView::All
    );
}
