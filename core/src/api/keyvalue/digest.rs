//! The digest of a call with a token: repeats of it have the same one, another call under the token
//! has another.
//!
//! It is made of the meaning of the request, not of its bytes: a client may send the fields of a
//! repeat in another order, or once as protobuf and once as JSON.

use prism_backends::Digest;
use prism_codec::message::{
    common::DurationView,
    keyvalue::{ExpectedView, ItemView, MutationOperation, PredicateView},
};

use super::KeyValueRequest;
use crate::api::service::Request;

/// The digest of a write; `None` if it carries no token. The token and the namespace, by which
/// calls are looked up, are not in it.
pub(crate) fn digest_of(request: &KeyValueRequest<'_>) -> Option<u64> {
    request.token()?;
    let mut digest = Digest::default();
    match request {
        KeyValueRequest::Put(view) => {
            digest.number(OF_PUT);
            digest.bytes(view.id.as_bytes());
            add_items(&mut digest, view.items.iter());
        }
        KeyValueRequest::Delete(view) => {
            digest.number(OF_DELETE);
            digest.bytes(view.id.as_bytes());
            add_predicate(&mut digest, &view.predicate);
        }
        KeyValueRequest::Mutate(view) => {
            digest.number(OF_MUTATE);
            for mutation in view.mutations.iter() {
                digest.bytes(mutation.id.as_bytes());
                match &mutation.operation {
                    Ok(MutationOperation::Put(items)) => {
                        digest.number(PUT);
                        add_items(&mut digest, items.iter());
                    }
                    Ok(MutationOperation::Delete(predicate)) => {
                        digest.number(DELETE);
                        add_predicate(&mut digest, predicate);
                    }
                    // A wrong request has no effect, whatever is wrong with it.
                    Err(_) => digest.number(WRONG),
                }
            }
        }
        KeyValueRequest::CompareAndSwap(view) => {
            digest.number(OF_SWAP);
            digest.bytes(view.id.as_bytes());
            digest.bytes(view.key);
            match view.expected {
                ExpectedView::Absent => digest.number(ABSENT),
                ExpectedView::Value(value) => {
                    digest.number(VALUE);
                    digest.bytes(value);
                }
                ExpectedView::Version(version) => {
                    digest.number(VERSION);
                    digest.bytes(version);
                }
            }
            if let Some(item) = &view.item {
                // The item's own key is the same, or left out.
                add_item(&mut digest, &ItemView { key: b"", ..*item });
            }
        }
        KeyValueRequest::Get(_) | KeyValueRequest::Scan(_) => {}
    }
    Some(digest.finish())
}

fn add_items<'a>(digest: &mut Digest, items: impl Iterator<Item = ItemView<'a>>) {
    items.for_each(|item| add_item(digest, &item));
    digest.number(END);
}

fn add_item(digest: &mut Digest, item: &ItemView<'_>) {
    digest.bytes(item.key);
    digest.bytes(item.value);
    match item.ttl {
        None => digest.number(NO_TTL),
        Some(DurationView { seconds, nanos }) => {
            digest.number(TTL);
            digest.number(seconds.cast_unsigned());
            digest.number(u64::from(nanos.cast_unsigned()));
        }
    }
    digest.number(u64::from(item.compression.cast_unsigned()));
}

fn add_predicate(digest: &mut Digest, predicate: &PredicateView<'_>) {
    match predicate {
        PredicateView::All => digest.number(ALL),
        PredicateView::Keys(keys) => {
            digest.number(KEYS);
            keys.iter().for_each(|key| digest.bytes(key));
        }
        PredicateView::Range { start, end } => {
            digest.number(RANGE);
            digest.bytes(start);
            digest.bytes(end);
        }
    }
    digest.number(END);
}

// Stores hold digests: these numbers stay.
const OF_PUT: u64 = 0;
const OF_DELETE: u64 = 2;
const OF_MUTATE: u64 = 4;
const OF_SWAP: u64 = 5;
const END: u64 = 0;
const PUT: u64 = 1;
const DELETE: u64 = 2;
const WRONG: u64 = 3;
const ABSENT: u64 = 4;
const VALUE: u64 = 5;
const NO_TTL: u64 = 6;
const TTL: u64 = 7;
const ALL: u64 = 8;
const KEYS: u64 = 9;
const RANGE: u64 = 10;
const VERSION: u64 = 11;

#[cfg(test)]
mod tests {
    use prism_codec::method::KeyValueMethod;
    use prism_codec::proto::prism::{
        common::v1::IdempotencyToken,
        keyvalue::v1::{
            All, CompareAndSwapRequest, DeleteRequest, Item, KeyRange, KeySet, MutateRequest, Mutation,
            Predicate, PutItems, PutRequest, compare_and_swap_request::Expected, mutation::Operation,
            predicate::Kind,
        },
    };
    use prost::Message;

    use super::*;

    fn digest(method: KeyValueMethod, body: &[u8]) -> u64 {
        let request = KeyValueRequest::decode(method, body).expect("a request");
        digest_of(&request).expect("it carries a token")
    }

    fn token() -> Option<IdempotencyToken> {
        Some(IdempotencyToken {
            generation_time: None,
            token: b"t".to_vec(),
        })
    }

    fn item(key: &str, value: &str) -> Item {
        Item {
            key: key.into(),
            value: value.into(),
            ttl: None,
            compression: 0,
            version: Vec::new(),
        }
    }

    fn put(id: &str, items: Vec<Item>) -> u64 {
        let request = PutRequest {
            namespace: "space".to_owned(),
            id: id.to_owned(),
            idempotency_token: token(),
            items,
        };
        digest(KeyValueMethod::Put, &request.encode_to_vec())
    }

    fn delete(id: &str, kind: Option<Kind>) -> u64 {
        let request = DeleteRequest {
            namespace: "space".to_owned(),
            id: id.to_owned(),
            idempotency_token: token(),
            predicate: kind.map(|kind| Predicate { kind: Some(kind) }),
        };
        digest(KeyValueMethod::Delete, &request.encode_to_vec())
    }

    fn mutate(mutations: Vec<Mutation>) -> u64 {
        let request = MutateRequest {
            namespace: "space".to_owned(),
            idempotency_token: token(),
            mutations,
        };
        digest(KeyValueMethod::Mutate, &request.encode_to_vec())
    }

    fn swap(id: &str, key: &str, expected: Expected, item: Option<Item>) -> u64 {
        let request = CompareAndSwapRequest {
            namespace: "space".to_owned(),
            id: id.to_owned(),
            key: key.into(),
            idempotency_token: token(),
            expected: Some(expected),
            item,
        };
        digest(KeyValueMethod::CompareAndSwap, &request.encode_to_vec())
    }

    #[test]
    fn every_part_of_a_call_counts() {
        let keys = |keys: &[&str]| {
            let keys = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
            Some(Kind::Keys(KeySet { keys }))
        };
        let range = |start: &str, end: &str| {
            Some(Kind::Range(KeyRange {
                start: start.into(),
                end: end.into(),
            }))
        };
        let ttl = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let absent = || Expected::Absent(Default::default());
        let value = |value: &str| Expected::Value(value.into());
        let putting = |id: &str, items: Vec<Item>| Mutation {
            id: id.to_owned(),
            operation: Some(Operation::Put(PutItems { items })),
        };
        let one = || item("k", "v");
        let all = [
            put("a", vec![one()]),
            put("b", vec![one()]),
            put("a", vec![item("l", "v")]),
            put("a", vec![item("k", "w")]),
            put("a", vec![item("kv", "")]),
            put("a", vec![item("", "kv")]),
            put(
                "a",
                vec![Item {
                    ttl: ttl(1, 0),
                    ..one()
                }],
            ),
            put(
                "a",
                vec![Item {
                    ttl: ttl(0, 1),
                    ..one()
                }],
            ),
            put(
                "a",
                vec![Item {
                    compression: 1,
                    ..one()
                }],
            ),
            put("a", vec![one(), one()]),
            put("a", vec![one(), item("l", "v")]),
            put("a", vec![item("l", "v"), one()]),
            delete("a", None),
            delete("b", None),
            delete("a", keys(&["k"])),
            delete("a", keys(&["k", "l"])),
            delete("a", keys(&["kl"])),
            delete("a", range("k", "l")),
            delete("a", range("k", "")),
            delete("a", range("", "k")),
            mutate(vec![putting("a", vec![one()])]),
            mutate(vec![putting("a", vec![one()]), putting("b", vec![one()])]),
            mutate(vec![putting("a", vec![one(), item("b", "v")])]),
            mutate(vec![Mutation {
                id: "a".to_owned(),
                operation: None,
            }]),
            swap("a", "k", absent(), Some(one())),
            swap("b", "k", absent(), Some(one())),
            swap("a", "l", absent(), Some(item("l", "v"))),
            swap("a", "k", value(""), Some(one())),
            swap("a", "k", value("v"), Some(one())),
            swap("a", "k", absent(), Some(item("k", "w"))),
            swap("a", "k", absent(), None),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(
                !all[..index].contains(one),
                "call {index} has the digest of one before it"
            );
        }
        assert_eq!(
            delete("a", None),
            delete("a", Some(Kind::All(All {}))),
            "they mean the same"
        );
        assert_eq!(
            swap("a", "k", absent(), Some(item("", "v"))),
            swap("a", "k", absent(), Some(one()))
        );
    }

    #[test]
    fn how_the_request_is_written_does_not_count() {
        let request = PutRequest {
            namespace: "space".to_owned(),
            id: "a".to_owned(),
            idempotency_token: token(),
            items: vec![item("k", "v")],
        };
        let bytes = request.encode_to_vec();
        let expected = digest(KeyValueMethod::Put, &bytes);
        // The fields from the last to the first; an unknown field; a default that is written out.
        let parts = [
            PutRequest {
                items: request.items.clone(),
                ..PutRequest::default()
            }
            .encode_to_vec(),
            PutRequest {
                idempotency_token: token(),
                ..PutRequest::default()
            }
            .encode_to_vec(),
            PutRequest {
                id: "a".to_owned(),
                ..PutRequest::default()
            }
            .encode_to_vec(),
            PutRequest {
                namespace: "space".to_owned(),
                ..PutRequest::default()
            }
            .encode_to_vec(),
        ];
        assert_eq!(digest(KeyValueMethod::Put, &parts.concat()), expected);
        assert_eq!(
            digest(KeyValueMethod::Put, &[&bytes[..], &[0x98, 0x06, 0x01]].concat()),
            expected
        );
        let item_bytes = [&request.items[0].encode_to_vec()[..], &[0x20, 0x00]].concat();
        let written_out = [&[0x22, item_bytes.len() as u8], &item_bytes[..]].concat();
        assert_eq!(
            digest(
                KeyValueMethod::Put,
                &[&parts[1..].concat()[..], &written_out].concat()
            ),
            expected
        );
    }

    #[test]
    fn a_digest_is_pinned_because_files_hold_it() {
        let absent = Expected::Absent(Default::default());
        assert_eq!(
            swap("a", "k", absent, Some(item("k", "v"))),
            15_658_233_420_798_875_635
        );
    }
}
