//! One slow namespace or client does not slow another. Shown by order, not by time: work of the
//! second is answered while the first still has a long queue.

use prism_codec::proto::prism::keyvalue::v1::{
    GetRequest, GetResponse, MutateRequest, Mutation, PutItems, PutRequest, PutResponse, mutation::Operation,
};
use prism_core::config::EmbeddedStore;

use super::{
    raw::{RawClient, item},
    support::Gateway,
};

/// Calls that the flooding client has in flight at once.
const FLOOD: usize = 1_000;

#[test]
fn a_flooded_namespace_does_not_hold_up_another() {
    let gateway = Gateway::start(EmbeddedStore::Sqlite, 1);
    gateway.create_namespace("flooded");
    gateway.create_namespace("quiet");
    // One connection carries all calls, so that the order of the replies is visible: a write that
    // keeps the store busy while the rest arrives (small enough for one flow-control window), 1,000
    // writes to its namespace, and after them one to the other namespace.
    let mut flood = RawClient::connect(gateway.address());
    let mutations = (0..1_000)
        .map(|number| Mutation {
            id: format!("busy-{number}"),
            operation: Some(Operation::Put(PutItems {
                items: vec![item(vec![7; 800])],
            })),
        })
        .collect();
    let busy = MutateRequest {
        namespace: "flooded".to_owned(),
        idempotency_token: None,
        mutations,
    };
    flood.call("Mutate", &busy);
    for number in 0..FLOOD {
        flood.put("flooded", &format!("id-{number}"), vec![7; 64]);
    }
    let quiet = flood.put("quiet", "id", vec![7; 16]);
    flood.transmit();
    let order = flood.replies(FLOOD + 2);
    let place = order
        .iter()
        .position(|stream| *stream == quiet)
        .expect("the quiet write is answered");
    assert!(
        place < FLOOD / 2,
        "the quiet namespace was served as number {place} of {}",
        FLOOD + 2
    );
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let gateway = Gateway::start(EmbeddedStore::Memory, 1);
    gateway.create_namespace("shared");
    let mut writer = gateway.client();
    let put = PutRequest {
        namespace: "shared".to_owned(),
        id: "large".to_owned(),
        idempotency_token: None,
        items: vec![item(vec![1; 1 << 20])],
    };
    let _: PutResponse = writer
        .unary("/prism.keyvalue.v1.KeyValue/Put", &put)
        .expect("a write of 1 MiB");

    // 500 replies of 1 MiB are requested and never read.
    let mut deaf = RawClient::connect(gateway.address());
    for _ in 0..500 {
        deaf.get("shared", "large");
    }
    deaf.transmit();
    let get = GetRequest {
        namespace: "shared".to_owned(),
        id: "large".to_owned(),
        predicate: None,
        selection: None,
    };
    for _ in 0..20 {
        let found: GetResponse = writer
            .unary("/prism.keyvalue.v1.KeyValue/Get", &get)
            .expect("a read beside it");
        assert_eq!(found.items.len(), 1);
    }
}
