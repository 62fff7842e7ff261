//! Every view accepts and refuses the messages that prost does, and reads the same values: on
//! well-formed messages in every order and number of pieces, on illegal ones, and on damaged bytes.
//! Each failing case prints its seed.

#[path = "support/convert.rs"]
mod convert;
#[path = "support/wire.rs"]
mod wire;

use encoders::{random_result, random_token, result_view, token_view};
use prism_codec::{
    error::{DecodeError, DecodeErrorKind},
    message::keyvalue::*,
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

#[path = "views_agree/encoders.rs"]
mod encoders;
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
