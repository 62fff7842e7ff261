//! PubSub on a real Kafka through the gateway: the suite at each durability, what is refused, and a
//! broker that is killed, hangs or was never there.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use prism_backends::{kafka::PUBSUB, kind::StoreKind};
use prism_codec::proto::prism::admin::v1::{CreateRequest, UpdateRequest, UpdateResponse};
use prism_core::config::{EmbeddedStore, StoreOptions};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use self::server::Server;
use super::{
    messages::{check_all, create, payloads_from, publish_once, publish_until, refusal, yaml},
    outage::OnDrop,
    pubsub::{publish, run_suite_on},
    support::Gateway,
};

#[path = "../../../backends/tests/servers/kafka.rs"]
mod server;

/// The broker of all tests but the one that kills its own.
fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::durable)
}

/// The entry of a broker.
fn events(server: &Server, prefix: &str) -> StoreOptions {
    let mut store = StoreOptions::plain("events", StoreKind::Kafka);
    store.address = Some(server.address());
    store.prefix = Some(prefix.to_owned());
    store
}

/// A gateway whose namespaces lie on this broker, with a prefix of its own.
fn gateway_on(server: &Server, shards: usize) -> Gateway {
    Gateway::start_with(EmbeddedStore::Memory, shards, |options| {
        options.stores = vec![events(server, &server.prefix())];
    })
}

fn suite(durability: &'static str, shards: usize) {
    run_suite_on(gateway_on(shared(), shards), PUBSUB, durability);
}

#[test]
fn strong_with_two_shards() {
    suite("strong", 2);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn other_durabilities_and_one_shard() {
    for durability in ["best-effort", "eventual"] {
        for shards in [1, 2] {
            suite(durability, shards);
        }
    }
    suite("strong", 1);
}

/// Setting of the one topic of a namespace with this prefix, and the topic's name.
fn topic_and_retention(server: &Server, prefix: &str) -> (String, String) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.address());
    let consumer: BaseConsumer = config.create().expect("a client");
    let known = consumer
        .fetch_metadata(None, Duration::from_secs(60))
        .expect("metadata");
    let begin = format!("{prefix}-");
    let mut topics = known.topics().iter().map(|topic| topic.name().to_owned());
    let topic = topics.find(|name| name.starts_with(&begin)).expect("a topic");
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let resource = ResourceSpecifier::Topic(&topic);
    let found = runtime.block_on(admin.describe_configs([&resource], &AdminOptions::new()));
    let found = found.expect("described").remove(0).expect("a topic");
    let retention = found.get("retention.ms").and_then(|entry| entry.value.clone());
    (topic, retention.expect("a retention"))
}

#[test]
fn a_namespace_lies_in_a_topic_of_its_own_that_plain_clients_read_and_follows_its_file() {
    let server = shared();
    let prefix = server.prefix();
    let gateway = Gateway::start_with(EmbeddedStore::Memory, 2, |options| {
        options.stores = vec![events(server, &prefix)];
    });
    create(&gateway, "events", "durability: eventual, retention: 1h").expect("a namespace");
    assert_eq!(
        super::homes::backend(&gateway, "events"),
        "Kafka \"events\", topics prism-*"
    );
    publish(&mut gateway.client(), "events", "hello").expect("published");
    let (topic, retention) = topic_and_retention(server, &prefix);
    assert_eq!(retention, "3600000");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server.address())
        .set("group.id", "plain")
        .create()
        .expect("a plain client");
    let mut place = TopicPartitionList::new();
    place
        .add_partition_offset(&topic, 0, Offset::Beginning)
        .expect("a place");
    consumer.assign(&place).expect("assigned");
    let got = consumer
        .poll(Duration::from_secs(60))
        .expect("a message")
        .expect("no error");
    assert_eq!(got.payload(), Some(&b"hello"[..]));
    let request = UpdateRequest {
        yaml: yaml("events", "durability: eventual, retention: 2h"),
        base_version: 0,
    };
    gateway
        .client()
        .unary::<UpdateResponse>("/prism.admin.v1.Namespaces/Update", &request)
        .expect("updated");
    assert_eq!(topic_and_retention(server, &prefix).1, "7200000");
    let yaml = "namespace: items\nteam: tests\nclient_api: keyvalue\nneeds: {durability: eventual}\n";
    let request = CreateRequest {
        yaml: yaml.to_owned(),
    };
    let answer = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &request);
    let (_, said) = refusal(answer);
    assert!(said.contains("Kafka does not serve keyvalue"), "{said}");
    // What another gateway has made stays as it is.
    let other = Gateway::start_with(EmbeddedStore::Memory, 1, |options| {
        options.stores = vec![events(server, &prefix)];
    });
    let (code, said) = refusal(create(&other, "theirs", "durability: strong"));
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("that this gateway has not made"), "{said}");
    publish(&mut gateway.client(), "events", "x").expect("published");
}

#[test]
fn a_broker_that_is_killed_hangs_or_is_not_there_loses_nothing_and_delays_no_other_store() {
    let mut server = Server::durable();
    killed_with_its_gateway(&mut server);
    hanging(&server);
    absent_at_the_start(&mut server);
    drop(server);
    // One that never syncs.
    let server = Server::start("");
    let gateway = gateway_on(&server, 1);
    for durability in ["strong", "eventual"] {
        let (code, said) = refusal(create(&gateway, "n", &format!("durability: {durability}")));
        assert_eq!(code, 3, "{said}");
        assert!(
            said.contains("needs.durability") && said.contains("keeps one replica and never flushes"),
            "{said}"
        );
        assert!(said.contains("use three brokers, or write best-effort"), "{said}");
    }
    create(&gateway, "n", "durability: best-effort").expect("a namespace");
    publish(&mut gateway.client(), "n", "x").expect("published");
}

fn killed_with_its_gateway(server: &mut Server) {
    let mut gateway = gateway_on(server, 2);
    create(&gateway, "kept", "durability: strong").expect("a namespace");
    let mut all = Vec::new();
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        let acknowledged = thread::scope(|scope| {
            // However this ends: the scope waits for the load.
            let end = OnDrop(|| stop.store(true, Ordering::SeqCst));
            let clients = [gateway.client(), gateway.client()];
            let load = scope.spawn(|| publish_until(clients, "kept", &stop, round));
            thread::sleep(Duration::from_millis(200));
            server.kill();
            thread::sleep(Duration::from_millis(200));
            server.resume();
            thread::sleep(Duration::from_millis(200));
            drop(end);
            load.join().expect("the load")
        });
        assert!(!acknowledged.is_empty());
        all.extend(acknowledged);
        gateway.restart(|_| {});
    }
    check_all(&gateway, "kept", &all);
}

fn hanging(server: &Server) {
    let prefix = server.prefix();
    // A namespace keeps its store: this one is made before there is another.
    let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
    create(&gateway, "other", "durability: best-effort").expect("a namespace");
    gateway.restart(|options| options.stores = vec![events(server, &prefix)]);
    create(&gateway, "kept", "durability: eventual").expect("a namespace");
    publish(&mut gateway.client(), "kept", "before").expect("published");
    server.signal("STOP");
    let end = OnDrop(|| server.signal("CONT"));
    let mut client = gateway.client();
    let begun = Instant::now();
    // After the breaker has opened, calls are refused at once.
    while publish_once(&mut client, "kept", "k", "during")
        .err()
        .is_none_or(|status| !status.message.contains("does not answer"))
    {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "the breaker does not open"
        );
    }
    for number in 0..100 {
        publish(&mut client, "other", &format!("{number}")).expect("another store does not notice");
    }
    drop(end);
    let begun = Instant::now();
    while publish_once(&mut client, "kept", "k", "after").is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not go on");
        thread::sleep(Duration::from_millis(20));
    }
    let wanted = ["before".to_owned(), "after".to_owned()];
    payloads_from(&gateway, "kept", &wanted);
}

fn absent_at_the_start(server: &mut Server) {
    let mut gateway = gateway_on(server, 2);
    create(&gateway, "kept", "durability: strong").expect("a namespace");
    create(&gateway, "direct", "durability: eventual").expect("a namespace");
    publish(&mut gateway.client(), "kept", "first").expect("published");
    gateway.stop();
    server.kill();
    gateway.start_again(|_| {});
    let mut client = gateway.client();
    publish(&mut client, "kept", "second").expect("the log has it");
    let status = publish_once(&mut client, "direct", "k", "x").expect_err("nobody is there");
    assert_eq!(status.code, 14, "{status:?}");
    assert!(status.message.contains("nothing was done"), "{status:?}");
    server.resume();
    let begun = Instant::now();
    while publish_once(&mut client, "direct", "k", "y").is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the store is not found"
        );
        thread::sleep(Duration::from_millis(20));
    }
    let wanted = ["first".to_owned(), "second".to_owned()];
    let got = payloads_from(&gateway, "kept", &wanted);
    assert_eq!(got.len(), 2, "{got:?}");
}
