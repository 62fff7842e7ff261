//! KeyValue on a real Redis through the gateway: the suite at the durabilities that its settings
//! allow, what is refused, and a server that is killed, hangs or was never there.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use prism_backends::{kind::StoreKind, redis::KEYVALUE};
use prism_codec::proto::prism::{
    admin::v1::{CreateRequest, CreateResponse},
    common::v1::Durability,
};
use prism_core::{
    client::ClientError,
    config::{EmbeddedStore, StoreOptions},
};

use self::server::Server;
use super::{
    behavior::run_suite_on,
    log::{get, put},
    outage::{Mortal, OnDrop, a_start_without_its_server, kills_lose_nothing, write_until},
    support::Gateway,
};

#[path = "../../../backends/tests/servers/redis.rs"]
pub(super) mod server;

impl Mortal for Server {
    fn kill(&mut self) {
        Self::kill(self);
    }

    fn resume(&mut self) {
        Self::resume(self);
    }
}

fn cache(url: &str) -> StoreOptions {
    let mut store = StoreOptions::plain("cache", StoreKind::Redis);
    store.address = Some(url.to_owned());
    store.pool_max = Some(4);
    store
}

/// A gateway whose namespaces lie on this server.
fn gateway_on(url: &str, shards: usize) -> Gateway {
    Gateway::start_with(EmbeddedStore::Memory, shards, |options| {
        options.stores = vec![cache(url)];
    })
}

fn suite(settings: &[&str], durability: &'static str, shards: usize) {
    let server = Server::start(settings);
    run_suite_on(gateway_on(&server.url(), shards), KEYVALUE, durability);
}

const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const EVERY_SECOND: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn best_effort_with_one_shard() {
    suite(&[], "best-effort", 1);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn best_effort_with_two_shards() {
    suite(&[], "best-effort", 2);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn eventual_with_one_shard() {
    suite(&EVERY_SECOND, "eventual", 1);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn eventual_with_two_shards() {
    suite(&EVERY_SECOND, "eventual", 2);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn strong_with_one_shard() {
    suite(&ALWAYS, "strong", 1);
}

#[test]
fn strong_with_two_shards() {
    suite(&ALWAYS, "strong", 2);
}

fn create(gateway: &Gateway, name: &str, durability: &str) -> Result<CreateResponse, ClientError> {
    let yaml = format!("namespace: {name}\nclient_api: keyvalue\nneeds: {{durability: {durability}}}\n");
    gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
}

/// Settings of a server, the durabilities that they cannot keep with the reason, and the strongest
/// that they keep.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

#[test]
fn what_the_settings_cannot_keep_is_refused_when_a_namespace_is_made() {
    let forgets = "runs without appendonly, so what it acknowledged may be lost; set appendonly yes, or write best-effort";
    let late = "set appendfsync always, or write eventual";
    let cases: [Case<'_>; 3] = [
        (&[], &[("strong", forgets), ("eventual", forgets)], "best-effort"),
        (&EVERY_SECOND, &[("strong", late)], "eventual"),
        (&ALWAYS, &[], "strong"),
    ];
    for (settings, refused, kept) in cases {
        let server = Server::start(settings);
        let gateway = gateway_on(&server.url(), 2);
        for (durability, why) in refused {
            let answer = create(&gateway, "n", durability);
            let Err(ClientError::Status(status)) = answer else {
                panic!("{durability} is not refused: {answer:?}");
            };
            assert_eq!(status.code, 3, "{status:?}");
            assert!(
                status.message.contains("needs.durability") && status.message.contains(why),
                "{status:?}"
            );
        }
        create(&gateway, "n", kept).expect("a namespace");
        assert_eq!(
            super::homes::backend(&gateway, "n"),
            "Redis \"cache\", keys prism:*"
        );
        let result = put(&mut gateway.client(), "n", "id", "v", None).expect("a put");
        let word = result
            .durability()
            .as_str_name()
            .trim_start_matches("DURABILITY_");
        assert_eq!(word.to_lowercase().replace('_', "-"), kept);
        // At strong it is the log's record that counts; the store has it a moment later.
        let is_logged = kept == "strong";
        assert!(is_logged || result.applied, "{result:?}");
        assert_eq!(
            (result.lane > 0, result.lsn > 0),
            (is_logged, is_logged),
            "{result:?}"
        );
    }
}

#[test]
fn data_is_there_after_a_restart_and_a_setting_that_got_worse_refuses_writes() {
    let server = Server::durable();
    let mut gateway = gateway_on(&server.url(), 2);
    for (name, durability) in [
        ("weak", Durability::BestEffort),
        ("later", Durability::Eventual),
        ("kept", Durability::Strong),
    ] {
        let word = durability.as_str_name().trim_start_matches("DURABILITY_");
        gateway.create_namespace_at(name, &word.to_lowercase().replace('_', "-"));
        let result = put(&mut gateway.client(), name, "id", "v", None).expect("a put");
        assert_eq!(result.durability(), durability);
    }
    gateway.restart(|_| {});
    for name in ["weak", "later", "kept"] {
        assert_eq!(get(&mut gateway.client(), name, "id").as_deref(), Some("v"));
    }
    server.ask(&["CONFIG", "SET", "appendonly", "no"]);
    let begun = Instant::now();
    let refused = loop {
        match put(&mut gateway.client(), "later", "id", "w", None) {
            Err(status) => break status,
            Ok(_) => assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the setting is not seen"
            ),
        }
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(refused.code, 14, "{refused:?}");
    assert!(refused.message.contains("set appendonly yes"), "{refused:?}");
    put(&mut gateway.client(), "weak", "id", "w", None).expect("best effort goes on");
    // The log keeps what is strong until the server can.
    let result = put(&mut gateway.client(), "kept", "id", "w", None).expect("the log takes it");
    assert!(result.lane > 0, "{result:?}");
    put(&mut gateway.client(), "weak", "id", "x", None).expect("best effort goes on");
    server.ask(&["CONFIG", "SET", "appendonly", "yes"]);
    // A read waits for the server.
    assert_eq!(get(&mut gateway.client(), "kept", "id").as_deref(), Some("w"));
}

#[test]
fn a_server_of_another_gateway_is_refused() {
    let server = Server::durable();
    let first = gateway_on(&server.url(), 1);
    first.create_namespace_at("mine", "strong");
    let second = gateway_on(&server.url(), 1);
    let answer = create(&second, "theirs", "strong");
    let Err(ClientError::Status(status)) = answer else {
        panic!("not refused: {answer:?}");
    };
    assert_eq!(status.code, 9, "{status:?}");
    assert!(
        status.message.contains("that this gateway has not made"),
        "{status:?}"
    );
    put(&mut first.client(), "mine", "id", "v", None).expect("a put");
}

#[test]
fn kills_of_the_server_and_restarts_of_the_gateway_under_load_lose_nothing_that_was_acknowledged() {
    let mut server = Server::durable();
    let mut gateway = gateway_on(&server.url(), 2);
    kills_lose_nothing(&mut server, &mut gateway);
}

#[test]
fn a_server_that_hangs_is_refused_at_once_delays_no_other_store_and_goes_on_where_it_stopped() {
    let server = Server::durable();
    // A namespace keeps its store: this one is made before there is another.
    let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
    gateway.create_namespace_at("other", "best-effort");
    gateway.restart(|options| options.stores = vec![cache(&server.url())]);
    gateway.create_namespace_at("kept", "eventual");
    let backend = |name| super::homes::backend(&gateway, name);
    assert_eq!(backend("kept"), "Redis \"cache\", keys prism:*");
    assert_eq!(backend("other"), "SQLite table \"other\"");
    put(&mut gateway.client(), "kept", "before", "v", None).expect("a put");
    server.signal("STOP");
    let stop = AtomicBool::new(false);
    let (acknowledged, refusal) = thread::scope(|scope| {
        // However this ends: the scope waits for the load.
        let end = OnDrop(|| {
            stop.store(true, Ordering::SeqCst);
            server.signal("CONT");
        });
        let clients = [gateway.client(), gateway.client()];
        let load = scope.spawn(|| write_until(clients, "kept", &stop, 0));
        let mut client = gateway.client();
        for number in 0..200 {
            put(&mut client, "other", &format!("id {number}"), "v", None)
                .expect("another store does not notice");
        }
        // After the breaker has opened, calls are refused at once.
        let begun = Instant::now();
        let refusal = loop {
            let asked = Instant::now();
            let status = put(&mut client, "kept", "id", "v", None).expect_err("it hangs");
            // Only the breaker uses these words.
            if status.message.contains("does not answer") {
                break asked.elapsed();
            }
            assert!(
                begun.elapsed() < Duration::from_secs(90),
                "the breaker does not open: {status:?}"
            );
        };
        drop(end);
        (load.join().expect("the load").0, refusal)
    });
    println!("refused in {refusal:?}");
    let mut client = gateway.client();
    let begun = Instant::now();
    while put(&mut client, "kept", "after", "v", None).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not go on");
        thread::sleep(Duration::from_millis(20));
    }
    for id in &acknowledged {
        assert_eq!(
            get(&mut client, "kept", id).as_deref(),
            Some(id.as_str()),
            "{id} is lost"
        );
    }
    gateway.stop();
}

#[test]
fn a_gateway_starts_without_its_server_and_serves_when_it_comes() {
    let mut server = Server::durable();
    let mut gateway = gateway_on(&server.url(), 2);
    a_start_without_its_server(&mut server, &mut gateway);
}
