//! The Kafka store against a real broker: order, repeats, positions, gaps, topics that somebody has
//! changed, and a broker that is killed.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use prism_backends::api::pubsub::{
    Message, MessageSink, Opened, Outcome, Read, Reads, Start, Store, Stored, Upkeep, Writes,
};
use prism_backends::kafka::{Config, Kafka};
use prism_backends::offer::Acked;
use prism_backends::server::{RawConfig, ServerStore, Share};
use prism_backends::sqlite::Presence;
use prism_backends::{LogId, LogPosition, NamespaceId, StoreError, UnixMillis};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::LocalSet;

#[path = "servers/kafka.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest")]
mod server;

use server::Server;

const CATALOG: u128 = 0x0123_4567_89ab_cdef;
const SPACE: NamespaceId = NamespaceId(7);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const LOG: LogId = LogId(0xabc);

/// The broker of all tests but those that kill theirs.
fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::durable)
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), test)
}

fn connect(server: &Server, prefix: &str) -> Kafka {
    let raw = RawConfig {
        url: server.address(),
        prefix: Some(prefix.to_owned()),
        ..RawConfig::default()
    };
    let share = Share {
        shard: 0,
        shards: 1,
        cap: 1,
    };
    Kafka::open(&Config::check(&raw).expect("a configuration"), share).expect("a store")
}

/// A store with a namespace.
async fn ready(server: &Server, prefix: &str) -> (Kafka, Store) {
    let store = connect(server, prefix);
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

fn position(lsn: u64) -> LogPosition {
    LogPosition {
        log: LOG,
        lane: 1,
        namespace: SPACE,
        lsn,
    }
}

async fn publish(store: &Store, batch: &[Message<'_>], lsn: Option<u64>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    store
        .publish(batch, lsn.map(position).as_ref(), &mut outcomes)
        .await
        .expect("published");
    outcomes
}

/// The numbers and payloads that a step delivers; it takes so many at most.
struct Seen(Vec<(u64, String)>, usize);

impl MessageSink for Seen {
    fn wants(&mut self, topic: &str) -> bool {
        topic == "orders"
    }

    fn message(&mut self, message: &Stored<'_>) -> bool {
        assert_eq!((message.key, message.attributes), ("k", &b"\x00\xff"[..]));
        let payload = String::from_utf8_lossy(message.payload).into_owned();
        let fits = self.0.len() < self.1;
        if fits {
            self.0.push((message.number, payload));
        }
        fits
    }
}

async fn read(store: &Store, next: u64, now: UnixMillis) -> (Vec<(u64, String)>, Read) {
    let mut seen = Seen(Vec::new(), usize::MAX);
    let read = store.read(SPACE, next, now, &mut seen).await.expect("a step");
    (seen.0, read)
}

fn client(server: &Server) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.address());
    config
}

fn admin(server: &Server) -> AdminClient<DefaultClientContext> {
    client(server).create().expect("a client")
}

#[test]
fn messages_come_in_order_from_any_number_on_and_a_full_sink_gets_the_rest_later() {
    let server = shared();
    run(async {
        let (_, pubsub) = ready(server, &server.prefix()).await;
        assert_eq!(pubsub.open(SPACE, Start::Latest, NOW).await, Ok(Opened::At(1)));
        let texts: Vec<String> = (0..300).map(|number| format!("{number:03}")).collect();
        for part in texts.chunks(100) {
            let batch: Vec<_> = part
                .iter()
                .map(|text| message(text.as_bytes(), text.as_bytes()))
                .collect();
            let outcomes = publish(&pubsub, &batch, None).await;
            assert!(
                outcomes.iter().all(|outcome| *outcome == Outcome::Published),
                "{outcomes:?}"
            );
        }
        for from in [1, 150, 2, 300] {
            let (seen, step) = read(&pubsub, from, NOW).await;
            let expected: Vec<_> = (from..=300)
                .map(|number| (number, texts[number as usize - 1].clone()))
                .collect();
            assert_eq!(seen, expected, "from {from}");
            assert_eq!((step.next, step.gap, step.more), (301, None, false));
        }
        let mut seen = Seen(Vec::new(), 7);
        let step = pubsub.read(SPACE, 10, NOW, &mut seen).await.expect("a step");
        assert_eq!((seen.0.len(), step.next, step.more), (7, 17, true));
        let (seen, step) = read(&pubsub, 301, NOW).await;
        assert!(seen.is_empty() && !step.more);
        assert_eq!(pubsub.open(SPACE, Start::Latest, NOW).await, Ok(Opened::At(301)));
        assert_eq!(pubsub.open(SPACE, Start::Earliest, NOW).await, Ok(Opened::At(1)));
        assert_eq!(
            pubsub.open(SPACE, Start::Time(UnixMillis(0)), NOW).await,
            Ok(Opened::At(1))
        );
        let end = Start::Time(UnixMillis(u64::MAX));
        assert_eq!(pubsub.open(SPACE, end, NOW).await, Ok(Opened::At(301)));
        assert_eq!(
            pubsub.open(SPACE, Start::Number(302), NOW).await,
            Ok(Opened::Unknown)
        );
    });
}

#[test]
fn a_position_is_known_by_its_mark_and_by_the_messages_after_it() {
    let server = shared();
    run(async {
        let prefix = server.prefix();
        let (store, pubsub) = ready(server, &prefix).await;
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(0));
        publish(&pubsub, &[message(b"1", b"one"), message(b"2", b"two")], Some(5)).await;
        // No mark says so yet; the messages do.
        assert_eq!(connect(server, &prefix).noted(LOG, 1, SPACE).await, Ok(5));
        // Without a message there is a mark.
        publish(&pubsub, &[], Some(6)).await;
        assert_eq!(connect(server, &prefix).noted(LOG, 1, SPACE).await, Ok(6));
        assert_eq!(store.noted(LOG, 2, SPACE).await, Ok(0), "another lane");
        assert_eq!(store.noted(LogId(1), 1, SPACE).await, Ok(0), "another log");
        publish(&pubsub, &[message(b"3", b"three")], Some(9)).await;
        store.look_after().await.expect("marks are written");
        assert_eq!(connect(server, &prefix).noted(LOG, 1, SPACE).await, Ok(9));
        store.forget_position(LOG, 1, SPACE).await.expect("forgotten");
        assert_eq!(connect(server, &prefix).noted(LOG, 1, SPACE).await, Ok(0));
        publish(&pubsub, &[message(b"4", b"four")], Some(2)).await;
        assert_eq!(
            connect(server, &prefix).noted(LOG, 1, SPACE).await,
            Ok(2),
            "the old ones do not count"
        );
    });
}

#[test]
fn a_batch_that_was_stored_in_part_is_completed_and_nothing_of_it_comes_twice() {
    let server = shared();
    run(async {
        let prefix = server.prefix();
        let (_, pubsub) = ready(server, &prefix).await;
        // As after a crash: the first messages of a batch, and not its last.
        let first = [
            message(b"1", b"one"),
            message(b"2", b"two"),
            message(b"3", b"three"),
        ];
        publish(&pubsub, &first[..2], None).await;
        // A repeat an hour later, of what was taken an hour before.
        let (store, pubsub) = ready(server, &prefix).await;
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(0));
        let outcomes = publish(&pubsub, &first, Some(4)).await;
        assert_eq!(outcomes, [Outcome::Repeat, Outcome::Repeat, Outcome::Published]);
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(4));
        assert_eq!(read(&pubsub, 1, NOW).await.0.len(), 3);
    });
}

#[test]
fn a_batch_with_a_repeat_stores_the_rest_in_order_and_a_token_of_another_call_is_refused() {
    let server = shared();
    run(async {
        let prefix = server.prefix();
        let (_, pubsub) = ready(server, &prefix).await;
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
        // Ids are known after a restart, and to others, too.
        let (_, pubsub) = ready(server, &prefix).await;
        let again = publish(&pubsub, &[message(b"a", b"a"), message(b"d", b"d")], None).await;
        assert_eq!(again, [Outcome::Repeat, Outcome::Published]);
    });
}

#[test]
fn what_two_gateways_have_both_stored_is_delivered_once() {
    let server = shared();
    run(async {
        let prefix = server.prefix();
        let (_, one) = ready(server, &prefix).await;
        let (_, two) = ready(server, &prefix).await;
        publish(&one, &[message(b"0", b"0")], None).await;
        publish(&two, &[message(b"1", b"1")], None).await;
        // Each knows what it has stored itself: both store this one.
        publish(&one, &[message(b"x", b"x")], None).await;
        publish(&two, &[message(b"x", b"x"), message(b"y", b"y")], None).await;
        for store in [&one, &two] {
            let (seen, step) = read(store, 1, NOW).await;
            let payloads: Vec<_> = seen.iter().map(|(_, payload)| &**payload).collect();
            assert_eq!(payloads, ["0", "1", "x", "y"]);
            assert_eq!((step.next, step.gap), (6, None), "a repeat is no gap");
        }
    });
}

#[test]
fn what_has_expired_is_hidden_at_once_and_counted_also_when_the_broker_has_removed_it() {
    let server = shared();
    run(async {
        let prefix = server.prefix();
        let (_, pubsub) = ready(server, &prefix).await;
        let expiring = |id| Message {
            expires_at: Some(NOW.plus(1_000)),
            ..message(id, b"old")
        };
        let batch = [expiring(b"1"), expiring(b"2"), message(b"3", b"new")];
        publish(&pubsub, &batch, None).await;
        let (seen, step) = read(&pubsub, 1, NOW).await;
        assert_eq!((seen.len(), step.next, step.gap), (3, 4, None));
        let later = NOW.plus(1_000);
        let (seen, step) = read(&pubsub, 1, later).await;
        assert_eq!((seen.len(), step.gap.expect("a gap").messages), (1, 2));
        let expired = pubsub.open(SPACE, Start::Number(1), later).await;
        assert!(matches!(expired, Ok(Opened::Expired(Some(_)))), "{expired:?}");
        assert_eq!(
            pubsub.open(SPACE, Start::Earliest, later).await,
            Ok(Opened::At(3))
        );
        // As when the retention is over.
        let mut gone = TopicPartitionList::new();
        gone.add_partition_offset(&format!("{prefix}-7"), 0, Offset::Offset(2))
            .expect("an offset");
        let deleted = admin(server).delete_records(&gone, &AdminOptions::new()).await;
        deleted.expect("records are deleted");
        let (_, again) = ready(server, &prefix).await;
        let (seen, step) = read(&again, 1, NOW).await;
        assert_eq!((seen.len(), step.gap.expect("a gap").messages), (1, 2));
        gone.set_all_offsets(Offset::End).expect("an offset");
        let deleted = admin(server).delete_records(&gone, &AdminOptions::new()).await;
        deleted.expect("records are deleted");
        let (_, again) = ready(server, &prefix).await;
        let (seen, step) = read(&again, 1, NOW).await;
        assert_eq!(
            (seen.len(), step.next, step.gap.expect("a gap").messages),
            (0, 4, 3)
        );
        assert_eq!(
            again.open(SPACE, Start::Number(1), NOW).await,
            Ok(Opened::Expired(None))
        );
    });
}

#[test]
fn topics_of_another_catalog_and_changed_ones_are_refused_and_a_number_is_used_once() {
    let server = shared();
    run(async {
        let prefix = server.prefix();
        let (store, pubsub) = ready(server, &prefix).await;
        assert_eq!(connect(server, &prefix).prepare(CATALOG + 1).await, Ok(false));
        assert_eq!(store.presence(SPACE).await, Ok(Presence::Live));
        assert_eq!(store.presence(NamespaceId(8)).await, Ok(Presence::Absent));
        let (foreign, own) = (format!("{prefix}-8"), format!("{prefix}-7"));
        let admin = admin(server);
        let topic = NewTopic::new(&foreign, 1, TopicReplication::Fixed(1));
        let made = admin
            .create_topics([&topic], &AdminOptions::new())
            .await
            .expect("made");
        assert!(made[0].is_ok(), "{made:?}");
        let begun = Instant::now();
        while store.presence(NamespaceId(8)).await != Ok(Presence::Foreign) {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is not seen");
        }
        let refused = pubsub
            .create_namespace(NamespaceId(8))
            .await
            .expect_err("not ours");
        let wanted = format!("topic {prefix}-8 is not this gateway's");
        assert!(refused.to_string().contains(&wanted), "{refused}");
        // A longer life is a change; an operator's own setting stays.
        let operators = AlterConfig::new(ResourceSpecifier::Topic(&own))
            .set("cleanup.policy", "delete")
            .set("message.timestamp.type", "LogAppendTime")
            .set("max.message.bytes", "18000000")
            .set("min.cleanable.dirty.ratio", "0.7");
        admin
            .alter_configs([&operators], &AdminOptions::new())
            .await
            .expect("altered");
        store
            .retain(SPACE, Some(Duration::from_secs(7_200)))
            .await
            .expect("retained");
        let setting = async |name: &str| {
            let topic = ResourceSpecifier::Topic(&own);
            let found = admin
                .describe_configs([&topic], &AdminOptions::new())
                .await
                .expect("described");
            let found = found.into_iter().next().expect("one").expect("there");
            found
                .get(name)
                .and_then(|entry| entry.value.clone())
                .expect("a value")
        };
        assert_eq!(setting("retention.ms").await, "7200000");
        assert_eq!(setting("segment.ms").await, "720000");
        assert_eq!(setting("min.cleanable.dirty.ratio").await, "0.7");
        let compacted = AlterConfig::new(ResourceSpecifier::Topic(&own)).set("cleanup.policy", "compact");
        admin
            .alter_configs([&compacted], &AdminOptions::new())
            .await
            .expect("altered");
        let refused = pubsub.create_namespace(SPACE).await.expect_err("changed");
        let wanted = "has cleanup.policy compact, and needs delete; change it back, or remove the topic";
        assert!(refused.to_string().contains(wanted), "{refused}");
        pubsub.drop_namespace(SPACE).await.expect("dropped");
        assert_eq!(store.presence(SPACE).await, Ok(Presence::Dropped));
        let again = pubsub.create_namespace(SPACE).await;
        assert_eq!(again, Err(StoreError::DroppedNamespace(SPACE)));
        let outcomes = publish(&pubsub, &[message(b"1", b"x"), message(b"2", b"y")], Some(3)).await;
        let gone = Outcome::Refused(StoreError::DroppedNamespace(SPACE));
        assert_eq!(outcomes, [gone.clone(), gone]);
        let mut seen = Seen(Vec::new(), 1);
        let read = pubsub.read(SPACE, 1, NOW, &mut seen).await;
        assert_eq!(read, Err(StoreError::DroppedNamespace(SPACE)));
    });
}

#[test]
fn a_plain_client_reads_what_the_description_says() {
    let server = shared();
    let prefix = server.prefix();
    run(async {
        let (_, pubsub) = ready(server, &prefix).await;
        let dated = Message {
            expires_at: Some(UnixMillis(99)),
            digest: Some(0xab),
            ..message(b"id", b"hello")
        };
        publish(&pubsub, &[dated], Some(12)).await;
    });
    let consumer: BaseConsumer = client(server)
        .set("group.id", "plain")
        .create()
        .expect("a plain client");
    let mut place = TopicPartitionList::new();
    place
        .add_partition_offset(&format!("{prefix}-7"), 0, Offset::Beginning)
        .expect("a place");
    consumer.assign(&place).expect("assigned");
    let got = consumer
        .poll(Duration::from_secs(60))
        .expect("a message")
        .expect("no error");
    assert_eq!(
        (got.key(), got.payload()),
        (Some(&b"orders\0k"[..]), Some(&b"hello"[..]))
    );
    let headers = got.headers().expect("headers");
    let of = |name: &str| {
        headers
            .iter()
            .find(|header| header.key == name)
            .and_then(|header| header.value)
    };
    assert_eq!(
        (of("prism-topic"), of("prism-id")),
        (Some(&b"orders"[..]), Some(&b"id"[..]))
    );
    assert_eq!(of("prism-attributes"), Some(&b"\x00\xff"[..]));
    assert_eq!(
        (of("prism-expires"), of("prism-digest")),
        (Some(&b"99"[..]), Some(&b"00000000000000ab"[..]))
    );
    assert_eq!(
        of("prism-position"),
        Some(format!("{:032x}/1/12/0", 0xabc).as_bytes())
    );
}

#[test]
fn messages_and_ids_are_there_after_a_kill_and_settings_decide_what_strong_needs() {
    let mut server = Server::start("log.flush.interval.ms=1000");
    let prefix = server.prefix();
    run(async {
        let (store, pubsub) = ready(&server, &prefix).await;
        // Without log.flush.scheduler.interval.ms nobody looks for what to sync.
        let why = store.shortfall(Acked::DurableOnSync).expect("never synced");
        assert!(why.contains("keeps one replica and never flushes"), "{why}");
        assert_eq!(store.shortfall(Acked::Volatile), None);
        publish(&pubsub, &[message(b"a", b"a"), message(b"b", b"b")], Some(1)).await;
        server.kill();
        let mut outcomes = Vec::new();
        let error = pubsub.publish(&[message(b"c", b"c")], None, &mut outcomes).await;
        assert!(error.expect_err("nobody is there").is_retryable());
        server.resume();
        let begun = Instant::now();
        // The same store finds it again.
        while pubsub
            .publish(&[message(b"d", b"d")], None, &mut outcomes)
            .await
            .is_err()
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (store, pubsub) = ready(&server, &prefix).await;
        assert_eq!(store.noted(LOG, 1, SPACE).await, Ok(1));
        let again = publish(&pubsub, &[message(b"b", b"b"), message(b"e", b"e")], Some(2)).await;
        assert_eq!(again, [Outcome::Repeat, Outcome::Published]);
        let (seen, _) = read(&pubsub, 1, NOW).await;
        let payloads: Vec<_> = seen
            .iter()
            .map(|(_, payload)| &**payload)
            .filter(|text| *text != "c")
            .collect();
        assert_eq!(payloads, ["a", "b", "d", "e"]);
    });
}
