//! Requests that begin and do not become complete: refused in time, without harm to their
//! connection, and without effect.

use std::time::Duration;

use prism_codec::{
    grpc::Code,
    proto::prism::keyvalue::v1::{GetRequest, GetResponse, PutRequest},
};
use prism_core::config::EmbeddedStore;
use prost::Message;

use super::{
    raw::{Outcome, RawClient, item},
    support::Gateway,
};

#[test]
fn half_a_request_is_refused_and_its_connection_lives_on() {
    let gateway = Gateway::start_with(EmbeddedStore::Memory, 1, |options| {
        options.limits.receive_timeout = Duration::from_secs(1);
    });
    gateway.create_namespace("late");
    let mut client = RawClient::connect(gateway.address());
    let put = PutRequest {
        namespace: "late".to_owned(),
        id: "half".to_owned(),
        idempotency_token: None,
        items: vec![item(vec![7; 100])],
    };
    let half = client.begin("Put", &put.encode_to_vec()[..50], 120);
    // A whole message without the end of the request: the call may still turn out to be wrong.
    let open = client.begin("Put", &put.encode_to_vec(), put.encoded_len());
    client.transmit();
    let outcomes = client.outcomes(&[half, open]);
    let late = Outcome::Refused(Code::DeadlineExceeded, "REQUEST_INCOMPLETE".to_owned());
    assert_eq!((&outcomes[&half], &outcomes[&open]), (&late, &late));
    let get = GetRequest {
        namespace: "late".to_owned(),
        id: "half".to_owned(),
        predicate: None,
        selection: None,
    };
    let found: GetResponse = gateway
        .client()
        .unary("/prism.keyvalue.v1.KeyValue/Get", &get)
        .expect("a read");
    assert!(found.items.is_empty(), "refused, so nothing was done");
    let whole = client.put("late", "whole", vec![1]);
    client.transmit();
    assert!(matches!(client.outcomes(&[whole])[&whole], Outcome::Done(_)));
}
