//! The NATS store against a real server: positions, repeats, gaps, and streams that somebody has
//! changed.

use std::time::Duration;

use prism_backends::api::pubsub::{
    Message, MessageSink, Opened, Outcome, Read, Reads, Start, Store, Stored, Upkeep, Writes,
};
use prism_backends::nats::{Config, Nats};
use prism_backends::offer::Acked;
use prism_backends::server::{RawConfig, ServerStore, Share};
use prism_backends::sqlite::Presence;
use prism_backends::{LogId, LogPosition, NamespaceId, StoreError, UnixMillis};
use tokio::task::LocalSet;

#[path = "servers/nats.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest")]
mod server;

use server::Server;

const CATALOG: u128 = 0x0123_4567_89ab_cdef;
const SPACE: NamespaceId = NamespaceId(7);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const LOG: LogId = LogId(0xabc);

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), test)
}

fn open(raw: &RawConfig) -> Nats {
    let share = Share {
        shard: 0,
        shards: 1,
        cap: 1,
    };
    Nats::open(&Config::check(raw).expect("a configuration"), share).expect("a store")
}

fn connect(server: &Server) -> Nats {
    open(&RawConfig {
        url: server.url(),
        ..RawConfig::default()
    })
}

/// A store with a namespace.
async fn ready(server: &Server) -> (Nats, Store) {
    let store = connect(server);
    assert_eq!(store.prepare(CATALOG).await, Ok(true));
    let pubsub = store.stores().pubsub.expect("PubSub");
    pubsub.create_namespace(SPACE).await.expect("a namespace");
    (store, pubsub)
}

fn message<'a>(id: &'a [u8], payload: &'a [u8]) -> Message<'a> {
    Message {
        namespace: SPACE,
        partition: 3,
        id,
        digest: None,
        promised: false,
        at: NOW,
        expires_at: None,
        topic: "orders",
        key: "k",
        attributes: b"\x00\xff",
        payload,
    }
}

async fn publish(store: &Store, batch: &[Message<'_>], lsn: Option<u64>) -> Vec<Outcome> {
    let at = lsn.map(|lsn| LogPosition {
        log: LOG,
        lane: 1,
        namespace: SPACE,
        lsn,
    });
    let mut outcomes = Vec::new();
    store
        .publish(batch, at.as_ref(), &mut outcomes)
        .await
        .expect("published");
    outcomes
}

/// The numbers and payloads that a step delivers.
#[derive(Default)]
struct Seen(Vec<(u64, String)>);

impl MessageSink for Seen {
    fn wants(&mut self, topic: &str) -> bool {
        topic == "orders"
    }

    fn message(&mut self, message: &Stored<'_>) -> bool {
        assert_eq!((message.key, message.attributes), ("k", &b"\x00\xff"[..]));
        self.0.push((
            message.number,
            String::from_utf8_lossy(message.payload).into_owned(),
        ));
        true
    }
}

async fn read(store: &Store, next: u64, now: UnixMillis) -> (Vec<(u64, String)>, Read) {
    let mut seen = Seen::default();
    let read = store.read(SPACE, next, now, &mut seen).await.expect("a step");
    (seen.0, read)
}

#[test]
fn a_position_is_known_by_its_stream_and_by_the_messages_themselves() {
    let server = Server::start("");
    run(async {
        let (store, pubsub) = ready(&server).await;
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(0));
        let expiring = Message {
            expires_at: Some(NOW.plus(1)),
            ..message(b"1", b"one")
        };
        publish(&pubsub, &[expiring, message(b"2", b"two")], Some(5)).await;
        // Without a message, too.
        publish(&pubsub, &[], Some(6)).await;
        assert_eq!(connect(&server).noted(LOG, 1, SPACE).await, Ok(6));
        assert_eq!(store.noted(LOG, 2, SPACE).await, Ok(0), "another lane");
        assert_eq!(store.noted(LogId(1), 1, SPACE).await, Ok(0), "another log");
        // As after a crash between the batch and its position.
        let purged = server.ask(
            "$JS.API.STREAM.PURGE.PRISM",
            "{\"filter\": \"prism.store.position.>\"}",
        );
        assert!(purged.contains("\"success\":true"), "{purged}");
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(5), "as the message says");
        publish(&pubsub, &[message(b"3", b"three")], Some(9)).await;
        store.forget_position(LOG, 1, SPACE).await.expect("forgotten");
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(0));
        publish(&pubsub, &[message(b"4", b"four")], Some(2)).await;
        assert_eq!(
            store.noted(LOG, 1, SPACE).await,
            Ok(2),
            "the old ones do not count"
        );
    });
}

#[test]
fn a_batch_with_a_repeat_stores_the_rest_in_order_and_a_token_of_another_call_is_refused() {
    let server = Server::start("");
    run(async {
        let (_, pubsub) = ready(&server).await;
        let called = |digest, id, payload| Message {
            digest: Some(digest),
            ..message(id, payload)
        };
        let first = publish(&pubsub, &[called(1, b"a", b"a")], None).await;
        assert_eq!(first, [Outcome::Published]);
        let batch = [
            called(2, b"b", b"b"),
            called(1, b"a", b"a"),
            called(2, b"a", b"a"),
            Message {
                promised: true,
                ..called(2, b"a", b"a")
            },
            called(3, b"c", b"c"),
            called(3, b"c", b"c"),
        ];
        let outcomes = publish(&pubsub, &batch, None).await;
        let refused = Outcome::Refused(StoreError::TokenReused);
        let expected = [
            Outcome::Published,
            Outcome::Repeat,
            refused,
            Outcome::Repeat,
            Outcome::Published,
            Outcome::Repeat,
        ];
        assert_eq!(outcomes, expected);
        let (seen, _) = read(&pubsub, 1, NOW).await;
        let text = |payload: &str| payload.to_owned();
        assert_eq!(seen, [(1, text("a")), (2, text("b")), (3, text("c"))]);
        // Ids are known after a restart, too.
        let again = publish(&pubsub, &[message(b"a", b"a"), message(b"d", b"d")], None).await;
        assert_eq!(again, [Outcome::Repeat, Outcome::Published]);
    });
}

#[test]
fn ids_and_messages_are_there_after_a_kill() {
    let mut server = Server::start("");
    run(async {
        let (_, pubsub) = ready(&server).await;
        publish(&pubsub, &[message(b"a", b"a"), message(b"b", b"b")], Some(1)).await;
        server.kill();
        let mut outcomes = Vec::new();
        let error = pubsub.publish(&[message(b"c", b"c")], None, &mut outcomes).await;
        assert!(error.expect_err("nobody is there").is_retryable());
        server.resume();
        let (store, pubsub) = ready(&server).await;
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(1));
        let again = publish(&pubsub, &[message(b"b", b"b"), message(b"c", b"c")], Some(2)).await;
        assert_eq!(again, [Outcome::Repeat, Outcome::Published]);
        assert_eq!(read(&pubsub, 1, NOW).await.0.len(), 3);
    });
}

#[test]
fn what_has_expired_is_hidden_at_once_and_counted_also_when_the_server_has_removed_it() {
    let server = Server::start("");
    run(async {
        let (_, pubsub) = ready(&server).await;
        let expiring = |id| Message {
            expires_at: Some(NOW.plus(1_000)),
            ..message(id, b"old")
        };
        publish(
            &pubsub,
            &[expiring(b"1"), expiring(b"2"), message(b"3", b"new")],
            None,
        )
        .await;
        let (seen, step) = read(&pubsub, 1, NOW).await;
        assert_eq!((seen.len(), step.next, step.gap), (3, 4, None));
        let later = NOW.plus(1_000);
        let (seen, step) = read(&pubsub, 1, later).await;
        assert_eq!((seen.len(), step.gap.expect("a gap").messages), (1, 2));
        assert!(matches!(
            pubsub.open(SPACE, Start::Number(1), later).await,
            Ok(Opened::Expired(Some(_)))
        ));
        assert_eq!(
            pubsub.open(SPACE, Start::Earliest, later).await,
            Ok(Opened::At(3))
        );
        // They are removed by the server itself.
        let begun = std::time::Instant::now();
        while server
            .ask("$JS.API.STREAM.INFO.PRISM-7", "")
            .contains("\"first_seq\":1,")
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server keeps them");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (seen, step) = read(&pubsub, 1, later).await;
        assert_eq!((seen.len(), step.gap.expect("a gap").messages), (1, 2));
    });
}

#[test]
fn streams_of_another_catalog_and_changed_ones_are_refused_and_a_number_is_used_once() {
    let server = Server::start("");
    run(async {
        let (store, pubsub) = ready(&server).await;
        assert_eq!(connect(&server).prepare(CATALOG + 1).await, Ok(false));
        assert_eq!(store.presence(SPACE).await, Ok(Presence::Live));
        assert_eq!(store.presence(NamespaceId(8)).await, Ok(Presence::Absent));
        let foreign = "{\"name\": \"PRISM-8\", \"subjects\": [\"prism.8.>\"]}";
        server.ask("$JS.API.STREAM.CREATE.PRISM-8", foreign);
        assert_eq!(store.presence(NamespaceId(8)).await, Ok(Presence::Foreign));
        let refused = pubsub
            .create_namespace(NamespaceId(8))
            .await
            .expect_err("not ours");
        assert!(
            refused
                .to_string()
                .contains("stream PRISM-8 is not this gateway's"),
            "{refused}"
        );
        let info: serde_json::Value =
            serde_json::from_str(&server.ask("$JS.API.STREAM.INFO.PRISM-7", "")).expect("JSON");
        let mut config = info["config"].clone();
        config["discard"] = "old".into();
        server.ask("$JS.API.STREAM.UPDATE.PRISM-7", &config.to_string());
        let refused = pubsub.create_namespace(SPACE).await.expect_err("changed");
        let wanted =
            "stream PRISM-7 has discard \"old\", and needs \"new\"; change it back, or remove the stream";
        assert!(refused.to_string().contains(wanted), "{refused}");
        pubsub.drop_namespace(SPACE).await.expect("dropped");
        assert_eq!(store.presence(SPACE).await, Ok(Presence::Dropped));
        let again = pubsub.create_namespace(SPACE).await;
        assert_eq!(again, Err(StoreError::DroppedNamespace(SPACE)));
        let outcomes = publish(&pubsub, &[message(b"1", b"x"), message(b"2", b"y")], Some(3)).await;
        let gone = Outcome::Refused(StoreError::DroppedNamespace(SPACE));
        assert_eq!(outcomes, [gone.clone(), gone]);
    });
}

#[test]
fn a_message_is_refused_that_the_server_does_not_take_and_settings_decide_what_strong_needs() {
    let server = Server::start("");
    run(async {
        let (store, pubsub) = ready(&server).await;
        let large = vec![0; 8 << 20];
        let outcomes = publish(&pubsub, &[message(b"1", &large), message(b"2", b"small")], None).await;
        let [Outcome::Refused(error), Outcome::Published] = &outcomes[..] else {
            panic!("{outcomes:?}");
        };
        assert!(error.to_string().contains("max_payload"), "{error}");
        let most = store.payload_max().expect("connected");
        assert!((8 << 20) - 65_536 < most && most < 8 << 20, "{most}");
        let why = store.shortfall(Acked::Durable).expect("not synced");
        assert!(why.contains("set sync_interval: always there"), "{why}");
        assert_eq!(store.shortfall(Acked::DurableOnSync), None);
    });
}

#[test]
fn credentials_are_checked_by_the_server() {
    let server = Server::start("authorization { user: prism, password: right }");
    run(async {
        let with = |url: String| {
            open(&RawConfig {
                url,
                ..RawConfig::default()
            })
        };
        let place = server.url().replace("nats://", "");
        let good = with(format!("nats://prism:right@{place}"));
        assert_eq!(good.prepare(CATALOG).await, Ok(true));
        for bad in [format!("nats://prism:wrong@{place}"), server.url()] {
            let error = with(bad).prepare(CATALOG).await.expect_err("refused");
            assert!(matches!(error, StoreError::Unopenable { .. }), "{error}");
        }
    });
}
