//! PubSub on a real NATS through the gateway: the suite at each durability, what is refused, and a
//! server that is killed, hangs or was never there.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use prism_backends::{kind::StoreKind, nats::PUBSUB};
use prism_codec::proto::prism::admin::v1::{CreateRequest, UpdateRequest, UpdateResponse};
use prism_core::{
    client::ClientError,
    config::{EmbeddedStore, StoreOptions},
};

use self::server::Server;
use super::{
    messages::{check_all, create, payloads_from, publish_once, publish_until, refusal, yaml},
    outage::OnDrop,
    pubsub::{publish, run_suite_on},
    support::Gateway,
};

#[path = "../../../backends/tests/servers/nats.rs"]
mod server;

/// The entry of a server; one that syncs what it acknowledges.
fn bus(url: &str) -> StoreOptions {
    let mut store = StoreOptions::plain("bus", StoreKind::Nats);
    store.address = Some(url.to_owned());
    store.sync_interval = Some("always".to_owned());
    store
}

/// A gateway whose namespaces lie on this server.
fn gateway_on(url: &str, shards: usize) -> Gateway {
    Gateway::start_with(EmbeddedStore::Memory, shards, |options| {
        options.stores = vec![bus(url)];
    })
}

fn suite(durability: &'static str, shards: usize) {
    let server = Server::start("");
    run_suite_on(gateway_on(&server.url(), shards), PUBSUB, durability);
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

#[test]
fn a_namespace_lies_in_a_stream_of_its_own_that_plain_clients_read() {
    let server = Server::start("");
    let gateway = gateway_on(&server.url(), 2);
    create(&gateway, "events", "durability: eventual, ttl: 1h").expect("a namespace");
    assert_eq!(
        super::homes::backend(&gateway, "events"),
        "NATS \"bus\", streams PRISM-*"
    );
    publish(&mut gateway.client(), "events", "hello").expect("published");
    let names = server.ask("$JS.API.STREAM.NAMES", "{}");
    assert!(
        names.contains("\"PRISM\"") && names.contains("\"PRISM-"),
        "{names}"
    );
    let at = names.find("PRISM-").expect("the stream");
    let stream: String = names[at..].chars().take_while(|letter| *letter != '"').collect();
    let got = server.ask(&format!("$JS.API.DIRECT.GET.{stream}"), "{\"seq\": 1}");
    assert_eq!(got, "hello");
}

#[test]
fn what_the_server_cannot_keep_is_refused_when_a_namespace_is_made() {
    let server = Server::start("");
    let gateway = Gateway::start_with(EmbeddedStore::Memory, 1, |options| {
        let mut store = bus(&server.url());
        store.sync_interval = Some("1s".to_owned());
        options.stores = vec![store];
    });
    let (code, said) = refusal(create(&gateway, "n", "durability: strong"));
    assert_eq!(code, 9, "{said}");
    assert!(
        said.contains("when the store's data survives a power cut"),
        "{said}"
    );
    let large = "durability: eventual, max_message_size: 9MB";
    let (code, said) = refusal(create(&gateway, "n", large));
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("needs.max_message_size") && said.contains("raise max_payload there"),
        "{said}"
    );
    create(&gateway, "n", "durability: eventual").expect("a namespace");
    // A new file may ask for no more than a new namespace.
    let request = UpdateRequest {
        yaml: yaml("n", large),
        base_version: 0,
    };
    let answer = gateway
        .client()
        .unary::<UpdateResponse>("/prism.admin.v1.Namespaces/Update", &request);
    let Err(ClientError::Status(status)) = answer else {
        panic!("not refused: {answer:?}");
    };
    assert!(status.message.contains("raise max_payload there"), "{status:?}");
    publish(&mut gateway.client(), "n", "x").expect("it is as it was");
    let yaml = "namespace: items\nteam: tests\nclient_api: keyvalue\nneeds: {durability: eventual}\n";
    let request = CreateRequest {
        yaml: yaml.to_owned(),
    };
    let answer = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &request);
    let (_, said) = refusal(answer);
    assert!(said.contains("NATS does not serve keyvalue"), "{said}");
}

#[test]
fn streams_of_another_gateway_and_changed_ones_are_refused() {
    let server = Server::start("");
    let first = gateway_on(&server.url(), 1);
    create(&first, "mine", "durability: strong").expect("a namespace");
    let second = gateway_on(&server.url(), 1);
    let (code, said) = refusal(create(&second, "theirs", "durability: strong"));
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("that this gateway has not made"), "{said}");
    publish(&mut first.client(), "mine", "x").expect("published");
}

#[test]
fn an_acknowledged_message_is_there_once_after_kills_of_the_server_and_of_the_gateway() {
    let mut server = Server::start("");
    let mut gateway = gateway_on(&server.url(), 2);
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

#[test]
fn a_server_that_hangs_is_refused_at_once_delays_no_other_store_and_goes_on_where_it_stopped() {
    let server = Server::start("");
    // A namespace keeps its store: this one is made before there is another.
    let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
    create(&gateway, "other", "durability: best-effort").expect("a namespace");
    gateway.restart(|options| options.stores = vec![bus(&server.url())]);
    create(&gateway, "kept", "durability: eventual").expect("a namespace");
    publish(&mut gateway.client(), "kept", "before").expect("published");
    server.signal("STOP");
    let end = OnDrop(|| server.signal("CONT"));
    let mut client = gateway.client();
    let begun = Instant::now();
    // After the breaker has opened, calls are refused at once.
    loop {
        let answer = publish_once(&mut client, "kept", "k", "during");
        if answer
            .as_ref()
            .is_err_and(|status| status.message.contains("does not answer"))
        {
            break;
        }
        let passed = begun.elapsed();
        assert!(
            passed < Duration::from_secs(90),
            "the breaker does not open: {answer:?}"
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

#[test]
fn a_gateway_starts_without_its_server_and_strong_writes_wait_in_its_log() {
    let mut server = Server::start("");
    let mut gateway = gateway_on(&server.url(), 2);
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
