//! PubSub on a real PostgreSQL through the gateway: the suite, two gateways on one database, and a
//! server that is killed under load.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use prism_backends::{behavior::pubsub::Start, postgres};
use prism_codec::proto::{
    google::rpc::Status,
    prism::{
        admin::v1::{DeleteRequest, DeleteResponse},
        common::v1::Durability,
        pubsub::v1::{Message, PublishRequest, PublishResponse},
    },
};
use prism_core::client::{Client, ClientError};

use super::{
    homes::backend,
    log::{metric, token},
    messages::{check_all, publish_until},
    outage::OnDrop,
    postgres::{
        gateway_on,
        server::{Server, durable, shared},
    },
    pubsub::{GatewaySubscription, PUBSUB, create, open_at, publish, reason, run_suite_on, subscribe},
    shared_catalog,
    support::{CALL_TIMEOUT, Gateway},
};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn strong_with_two_shards() {
    run_suite_on(gateway_on(&durable().database(), 2), postgres::PUBSUB, "strong");
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn other_durabilities_and_one_shard() {
    for (durability, server) in [("best-effort", shared()), ("eventual", durable())] {
        for shards in [1, 2] {
            let gateway = gateway_on(&server.database(), shards);
            run_suite_on(gateway, postgres::PUBSUB, durability);
        }
    }
    run_suite_on(gateway_on(&durable().database(), 1), postgres::PUBSUB, "strong");
}

#[test]
fn at_eventual_the_log_gets_no_copy_since_the_server_forgets_ids() {
    let gateway = gateway_on(&durable().database(), 2);
    create(&gateway, "later", "eventual", "");
    create(&gateway, "kept", "strong", "");
    let before = metric(&gateway, "prism_log_records_total", 0.0);
    let mut client = gateway.client();
    for number in 0..20 {
        let answer = publish(&mut client, "later", &number.to_string()).expect("published");
        let result = answer.result.expect("a result");
        assert_eq!(
            (result.durability(), result.applied),
            (Durability::Eventual, true)
        );
    }
    // A copy would come before the records of later writes to the same partitions.
    for number in 0..20 {
        publish(&mut client, "kept", &number.to_string()).expect("published");
    }
    assert_eq!(
        metric(&gateway, "prism_log_records_total", before + 20.0),
        before + 20.0
    );
}

#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Makes a namespace at one gateway that the other serves then, too.
fn create_at_both(one: &Gateway, other: &Gateway, name: &str) {
    create(one, name, "strong", "");
    await_that("the other gateway serves it", || {
        open_at(other.address(), name, &Start::Latest).is_ok()
    });
}

/// The next messages of a subscription, this many: their payloads, and the position after them.
fn take(subscription: &GatewaySubscription, count: usize) -> (Vec<String>, Vec<u8>) {
    let (mut payloads, mut position) = (Vec::new(), Vec::new());
    while payloads.len() < count {
        let answer = subscription.answers.recv_timeout(CALL_TIMEOUT);
        let answer = answer.expect("an answer").expect("messages");
        assert_eq!(answer.gap, None, "nothing is missing");
        position = answer.position;
        for one in answer.messages {
            let payload = one.message.expect("a message").payload;
            payloads.push(String::from_utf8(payload).expect("text"));
        }
    }
    (payloads, position)
}

fn publish_as(client: &mut Client, name: &str, payload: &str) -> Result<Vec<u8>, Box<Status>> {
    let request = PublishRequest {
        namespace: "once".to_owned(),
        idempotency_token: Some(token(name)),
        message: Some(Message {
            topic: "orders".to_owned(),
            payload: payload.into(),
            ..Message::default()
        }),
    };
    match client.unary::<PublishResponse>(&format!("{PUBSUB}/Publish"), &request) {
        Ok(response) => Ok(response.message_id),
        Err(ClientError::Status(status)) => Err(status),
        Err(other) => panic!("the call did not reach the gateway: {other}"),
    }
}

/// P7 at two gateways: a token is one message, whoever gets the call first, or both at once.
fn a_repeat_at_the_other_gateway_is_one_message(one: &Gateway, other: &Gateway) {
    create_at_both(one, other, "once");
    let (mut first, mut second) = (one.client(), other.client());
    let id = publish_as(&mut first, "call", "x").expect("published");
    assert_eq!(publish_as(&mut second, "call", "x").expect("a repeat"), id);
    let refused = publish_as(&mut second, "call", "y").expect_err("another call");
    assert_eq!((refused.code, reason(&refused).as_str()), (3, "TOKEN_REUSED"));
    for round in 0..10 {
        let call = format!("race-{round}");
        let ids = thread::scope(|scope| {
            let rival = scope.spawn(|| publish_as(&mut second, &call, "x"));
            let ids = [publish_as(&mut first, &call, "x"), rival.join().expect("a rival")];
            ids.map(|id| id.expect("published"))
        });
        assert_eq!(ids[0], ids[1]);
    }
    let all = subscribe(other, "once", &Start::Earliest);
    assert_eq!(take(&all, 11).0.len(), 11);
    let more = all.answers.recv_timeout(Duration::from_millis(300));
    assert!(more.is_err(), "each once: {more:?}");
}

/// Messages of one gateway come to who waits at the other, and a position of one is good there.
fn messages_come_to_subscribers_of_the_other_gateway(one: &Gateway, other: &Gateway) {
    create_at_both(one, other, "live");
    let waiting = subscribe(one, "live", &Start::Latest);
    let (mut times, mut positions) = (Vec::new(), Vec::new());
    for round in 0..10 {
        // It waits: nothing is there.
        thread::sleep(Duration::from_millis(50));
        let payload = round.to_string();
        let begun = Instant::now();
        publish(&mut other.client(), "live", &payload).expect("published");
        let (payloads, position) = take(&waiting, 1);
        times.push(begun.elapsed());
        assert_eq!(payloads, [payload]);
        positions.push(position);
    }
    println!("published at another gateway, and delivered after {times:?}");
    let rest = subscribe(other, "live", &Start::Position(positions[3].clone()));
    let (payloads, _) = take(&rest, 6);
    let payloads: BTreeSet<_> = payloads.iter().map(String::as_str).collect();
    assert_eq!(payloads, BTreeSet::from(["4", "5", "6", "7", "8", "9"]));
}

/// P32 at two gateways: the streams of both end, and nothing is left of it in the tables.
fn a_deleted_namespace_ends_the_streams_of_both(one: &Gateway, other: &Gateway, database: &str) {
    create_at_both(one, other, "gone");
    for number in 0..20 {
        publish(&mut one.client(), "gone", &number.to_string()).expect("published");
    }
    let mut streams = [one, other].map(|gateway| subscribe(gateway, "gone", &Start::Latest));
    let delete = DeleteRequest {
        name: "gone".to_owned(),
    };
    let _: DeleteResponse = other
        .client()
        .unary("/prism.admin.v1.Namespaces/Delete", &delete)
        .expect("deleted");
    for stream in &mut streams {
        let status = stream.end();
        assert_eq!((status.code, reason(&status).as_str()), (5, "NAMESPACE_UNKNOWN"));
    }
    let rows = "SELECT (SELECT count(*) FROM prism.namespace WHERE state = 2),
        (SELECT count(*) FROM prism.message m JOIN prism.namespace n ON n.number = m.namespace WHERE n.state > 0),
        (SELECT count(*) FROM prism.message_id m JOIN prism.namespace n ON n.number = m.namespace WHERE n.state > 0),
        (SELECT count(*) FROM prism.counter c JOIN prism.namespace n ON n.number = c.namespace WHERE n.state > 0)";
    await_that("its rows are removed", || {
        durable().sql(database, rows) == "1|0|0|0"
    });
    let kept = durable().sql(database, "SELECT count(*) FROM prism.message");
    assert_eq!(kept, "21", "the messages of other namespaces");
}

#[test]
fn p7_p32_two_gateways_are_as_one_to_publishers_and_subscribers() {
    let (catalog, store) = (durable().database(), durable().database());
    let one = shared_catalog::gateway(&catalog, &store);
    let other = shared_catalog::gateway(&catalog, &store);
    a_repeat_at_the_other_gateway_is_one_message(&one, &other);
    assert_eq!(backend(&one, "once"), "PostgreSQL \"orders\", schema prism");
    messages_come_to_subscribers_of_the_other_gateway(&one, &other);
    let database = store.rsplit('/').next().expect("a name");
    a_deleted_namespace_ends_the_streams_of_both(&one, &other, database);
}

#[test]
fn p26_kills_of_the_server_of_two_gateways_lose_no_message_and_store_none_twice() {
    let catalog = durable().database();
    let mut server = Server::start(&[]);
    let one = shared_catalog::gateway(&catalog, &server.url("postgres"));
    let other = shared_catalog::gateway(&catalog, &server.url("postgres"));
    create_at_both(&one, &other, "kept");
    let mut all = Vec::new();
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        let acknowledged = thread::scope(|scope| {
            // However this ends: the scope waits for the load.
            let end = OnDrop(|| stop.store(true, Ordering::SeqCst));
            let clients = [one.client(), other.client()];
            let load = scope.spawn(|| publish_until(clients, "kept", &stop, round));
            thread::sleep(Duration::from_millis(300));
            server.kill();
            thread::sleep(Duration::from_millis(200));
            server.resume();
            for (gateway, name) in [(&one, "one"), (&other, "other")] {
                let mut client = gateway.client();
                await_that("the server is found again", || {
                    publish(&mut client, "kept", &format!("x-2-{round}-{name}")).is_ok()
                });
            }
            drop(end);
            load.join().expect("the load")
        });
        assert!(!acknowledged.is_empty());
        all.extend(acknowledged);
    }
    for gateway in [&one, &other] {
        check_all(gateway, "kept", &all);
    }
}
