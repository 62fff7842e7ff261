//! PubSub on SQLite at best-effort: acknowledged when it is queued for the store, which is bounded,
//! counted and in order.

use std::{
    thread,
    time::{Duration, Instant},
};

use prism_backends::behavior::pubsub::{Start, Subscription as _};
use prism_codec::proto::{
    google::rpc::Status,
    prism::pubsub::v1::{Message, PublishRequest, PublishResponse},
};
use prism_core::{
    client::{Client, ClientError},
    config::EmbeddedStore,
};
use rusqlite::Connection;

use super::{
    log::{metric, token},
    pubsub::{PUBSUB, create, reason, run_to_end, subscribe, subscribe_at},
    support::Gateway,
};

/// A payload of which eight fill the room.
const MEBIBYTE: usize = 1 << 20;

fn publish(client: &mut Client, key: &str, payload: &[u8], token: Option<&str>) -> Result<Vec<u8>, Status> {
    let request = PublishRequest {
        namespace: "events".to_owned(),
        idempotency_token: token.map(super::log::token),
        message: Some(Message {
            topic: "orders".to_owned(),
            payload: payload.to_vec(),
            ordering_key: key.to_owned(),
            ..Message::default()
        }),
    };
    match client.unary::<PublishResponse>(&format!("{PUBSUB}/Publish"), &request) {
        Ok(response) => {
            let result = response.result.expect("a result");
            assert!(!result.applied && result.lsn == 0, "{result:?}");
            Ok(response.message_id)
        }
        Err(ClientError::Status(status)) => Err(*status),
        Err(other) => panic!("the call did not reach the gateway: {other}"),
    }
}

fn gateway(shards: usize) -> Gateway {
    let gateway = Gateway::start(EmbeddedStore::Sqlite, shards);
    create(&gateway, "events", "best-effort", "  max_message_size: 2MB\n");
    gateway
}

/// The store's lock, so that its writer cannot write.
struct Held {
    store: Connection,
    since: Instant,
}

impl Held {
    fn new(gateway: &Gateway) -> Self {
        let store = Connection::open(gateway.directory().join("keyvalue.db")).expect("the store's file");
        let since = Instant::now();
        store.execute_batch("BEGIN IMMEDIATE").expect("the store's lock");
        Self { store, since }
    }

    /// Gives the lock back. Returns whether the writer has waited for it: it gives up after 5 s.
    fn release(&self) -> bool {
        self.store
            .execute_batch("ROLLBACK")
            .expect("giving the lock back");
        self.since.elapsed() < Duration::from_secs(4)
    }
}

/// Tries a test again on a machine that is too slow for it.
fn attempts(test: impl Fn() -> bool) {
    assert!((0..10).any(|_| test()), "the machine is too slow for this test");
}

/// The payloads of the next messages, their first four bytes each.
fn read(gateway: &Gateway, count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    run_to_end(async {
        let mut stream = subscribe(gateway, "events", &Start::Earliest);
        while all.len() < count {
            let answer = stream.next(Duration::from_secs(30)).await.expect("a stream");
            let messages = answer.expect("messages that are due").messages;
            all.extend(messages.into_iter().map(|one| one.message.payload[..4].to_vec()));
        }
        let more = stream.next(Duration::from_millis(150)).await.expect("a stream");
        assert_eq!(more, None, "no more than {count}");
    });
    all
}

#[test]
fn p28_a_full_queue_refuses_and_everything_else_comes_in_order() {
    attempts(|| {
        let gateway = gateway(2);
        let held = Held::new(&gateway);
        let mut client = gateway.client();
        let mut payload = vec![7; MEBIBYTE];
        let mut acknowledged = 0_u32;
        let refused = loop {
            payload[..4].copy_from_slice(&acknowledged.to_be_bytes());
            match publish(&mut client, "k", &payload, None) {
                Ok(_) => acknowledged += 1,
                Err(status) => break status,
            }
            assert!(acknowledged < 20, "bounded by 8 MiB");
        };
        assert_eq!((refused.code, reason(&refused).as_str()), (8, "OVERLOADED"));
        assert!(refused.message.contains("8 MiB"), "{}", refused.message);
        // One connection is with one shard.
        assert_eq!(
            acknowledged, 7,
            "a mebibyte and its envelope are more than an eighth"
        );
        if !held.release() {
            return false;
        }
        let numbers: Vec<_> = (0..acknowledged)
            .map(|number| number.to_be_bytes().to_vec())
            .collect();
        assert_eq!(
            read(&gateway, numbers.len()),
            numbers,
            "in the order of the answers"
        );
        // There is room again.
        publish(&mut client, "k", b"last", None).expect("published");
        assert_eq!(
            read(&gateway, numbers.len() + 1).last().map(Vec::as_slice),
            Some(&b"last"[..])
        );
        assert_eq!(metric(&gateway, "prism_queued_lost_total", 0.0), 0.0);
        true
    });
}

#[test]
fn p28_what_the_store_refuses_is_lost_and_counted() {
    let gateway = gateway(2);
    let store = Connection::open(gateway.directory().join("keyvalue.db")).expect("the store's file");
    store
        .execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON message BEGIN SELECT RAISE(ABORT, 'no'); END")
        .expect("a trigger");
    let mut client = gateway.client();
    for number in 0..5 {
        publish(&mut client, "k", format!("lost {number}").as_bytes(), None).expect("queued");
    }
    assert_eq!(metric(&gateway, "prism_queued_lost_total", 5.0), 5.0);
    store.execute_batch("DROP TRIGGER refuse").expect("no trigger");
    publish(&mut client, "k", b"kept", None).expect("queued");
    assert_eq!(read(&gateway, 1), [b"kept".to_vec()]);
}

#[test]
fn p7_tokens_are_judged_before_the_store_has_the_message() {
    let test = |shards: usize| {
        let gateway = gateway(shards);
        let held = Held::new(&gateway);
        let mut clients: Vec<_> = (0..6).map(|_| gateway.client()).collect();
        for client in &mut clients {
            let id = publish(client, "k", b"once", Some("a token")).expect("the first, or a repeat");
            assert_eq!(id, token("a token").token);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let key = format!("k{number}");
            let refused = publish(client, &key, b"once", Some("a token")).expect_err("another call");
            assert_eq!(
                (refused.code, reason(&refused).as_str()),
                (3, "TOKEN_REUSED"),
                "{shards} shards"
            );
        }
        let in_time = held.release();
        assert!(!in_time || read(&gateway, 1) == [b"once".to_vec()], "one message");
        in_time
    };
    for shards in 1..=3 {
        attempts(|| test(shards));
    }
}

#[test]
fn p1_a_subscription_begins_after_what_was_queued_before_it() {
    attempts(|| {
        let gateway = gateway(2);
        let held = Held::new(&gateway);
        let mut client = gateway.client();
        for number in 0..10 {
            publish(&mut client, &format!("k{number}"), b"before", None).expect("queued");
        }
        let (mut stream, in_time) = thread::scope(|scope| {
            let address = gateway.address();
            let opening = scope.spawn(move || subscribe_at(address, "events", &Start::Latest));
            // It waits: what was acknowledged before it must not reach it.
            thread::sleep(Duration::from_millis(300));
            assert!(!opening.is_finished());
            let in_time = held.release();
            (opening.join().expect("a subscription"), in_time)
        });
        publish(&mut client, "k", b"after", None).expect("queued");
        run_to_end(async {
            let answer = stream.next(Duration::from_secs(30)).await.expect("a stream");
            let messages = answer.expect("a message").messages;
            let payloads: Vec<_> = messages
                .iter()
                .map(|one| one.message.payload.as_slice())
                .collect();
            assert_eq!(payloads, [b"after"]);
        });
        in_time
    });
}
