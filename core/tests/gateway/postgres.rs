//! KeyValue on a real PostgreSQL through the gateway: the suite, the promises of its answers, and a
//! server that is killed, hangs or never existed.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use prism_backends::{kind::StoreKind, postgres};
use prism_codec::proto::prism::{
    admin::v1::{CreateRequest, CreateResponse},
    common::v1::Durability,
};
use prism_core::{
    client::ClientError,
    config::{EmbeddedStore, StoreOptions},
};

use self::server::{Server, durable, shared};
use super::{
    behavior::run_suite_on,
    log::{get, metric, put},
    outage::{Mortal, OnDrop, PATIENCE, a_start_without_its_server, kills_lose_nothing, write_until},
    support::Gateway,
};

#[path = "../../../backends/tests/servers/postgres.rs"]
pub(super) mod server;

impl Mortal for Server {
    fn kill(&mut self) {
        Self::kill(self);
    }

    fn resume(&mut self) {
        Self::resume(self);
    }
}

/// A gateway with its durable namespaces on this database; those at best effort, too, since memory
/// is not configured.
pub(super) fn gateway_on(url: &str, shards: usize) -> Gateway {
    Gateway::start_with(EmbeddedStore::Memory, shards, |options| {
        let mut store = StoreOptions::plain("orders", StoreKind::Postgres);
        store.address = Some(url.to_owned());
        store.pool_max = Some(4);
        options.stores = vec![store];
    })
}

fn suite(durability: &'static str, shards: usize) {
    let server = if durability == "best-effort" {
        shared()
    } else {
        durable()
    };
    let url = server.database();
    run_suite_on(gateway_on(&url, shards), postgres::KEYVALUE, durability);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn best_effort_with_one_shard() {
    suite("best-effort", 1);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn best_effort_with_two_shards() {
    suite("best-effort", 2);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn eventual_with_one_shard() {
    suite("eventual", 1);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn eventual_with_two_shards() {
    suite("eventual", 2);
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn strong_with_one_shard() {
    suite("strong", 1);
}

#[test]
fn strong_with_two_shards() {
    suite("strong", 2);
}

#[test]
fn an_answer_says_the_durability_of_its_namespace_and_that_the_store_has_it() {
    let url = durable().database();
    let mut gateway = gateway_on(&url, 2);
    for (name, durability) in [
        ("weak", Durability::BestEffort),
        ("later", Durability::Eventual),
        ("kept", Durability::Strong),
    ] {
        let word = durability.as_str_name().trim_start_matches("DURABILITY_");
        gateway.create_namespace_at(name, &word.to_lowercase().replace('_', "-"));
        let result = put(&mut gateway.client(), name, "id", "v", None).expect("a put");
        assert_eq!(result.durability(), durability);
        // At strong it is the log's record that counts; the store has it a moment later.
        let is_logged = durability == Durability::Strong;
        assert!(is_logged || result.applied, "{result:?}");
        assert_eq!(
            (result.lane > 0, result.lsn > 0),
            (is_logged, is_logged),
            "{result:?}"
        );
    }
    // At eventual the log has a copy, whose cursor needs no sync of the store.
    let records = || metric(&gateway, "prism_log_records_total", 0.0);
    let begun = Instant::now();
    while records() < 2.0 {
        assert!(begun.elapsed() < PATIENCE, "{} records", records());
        thread::sleep(Duration::from_millis(10));
    }
    for name in ["weak", "later", "kept"] {
        assert_eq!(get(&mut gateway.client(), name, "id").as_deref(), Some("v"));
    }
    gateway.restart(|_| {});
    for name in ["weak", "later", "kept"] {
        assert_eq!(get(&mut gateway.client(), name, "id").as_deref(), Some("v"));
    }
    let result = put(&mut gateway.client(), "kept", "id", "w", None).expect("a put");
    assert_eq!(result.durability(), Durability::Strong);
}

#[test]
fn a_server_that_syncs_nothing_takes_best_effort_only() {
    let url = shared().database();
    let gateway = gateway_on(&url, 1);
    for durability in ["strong", "eventual"] {
        let yaml = format!("namespace: kept\nclient_api: keyvalue\nneeds: {{durability: {durability}}}\n");
        let answer: Result<CreateResponse, _> = gateway
            .client()
            .unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml });
        let Err(ClientError::Status(status)) = answer else {
            panic!("not refused: {answer:?}");
        };
        assert_eq!(status.code, 3, "{status:?}");
        for part in [
            "needs.durability",
            "fsync = off",
            "set fsync = on",
            "write best-effort",
        ] {
            assert!(status.message.contains(part), "{status:?}");
        }
    }
    gateway.create_namespace_at("weak", "best-effort");
    put(&mut gateway.client(), "weak", "id", "v", None).expect("a put");
}

#[test]
fn a_database_of_another_gateway_is_refused() {
    let url = durable().database();
    let first = gateway_on(&url, 1);
    first.create_namespace_at("mine", "strong");
    let second = gateway_on(&url, 1);
    let request = CreateRequest {
        yaml: "namespace: theirs\nclient_api: keyvalue\nneeds: {durability: strong}\n".to_owned(),
    };
    let answer: Result<CreateResponse, _> = second
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &request);
    let Err(ClientError::Status(status)) = answer else {
        panic!("not refused: {answer:?}");
    };
    assert_eq!(status.code, 9, "{status:?}");
    assert!(
        status.message.contains("that this gateway has not made"),
        "{status:?}"
    );
    // The first one is not affected.
    put(&mut first.client(), "mine", "id", "v", None).expect("a put");
}

#[test]
fn kills_of_the_server_and_restarts_of_the_gateway_under_load_lose_nothing_that_was_acknowledged() {
    let mut server = Server::start(&[]);
    let mut gateway = gateway_on(&server.url("postgres"), 2);
    kills_lose_nothing(&mut server, &mut gateway);
}

#[test]
fn a_server_that_hangs_delays_its_own_namespaces_only_and_goes_on_where_it_stopped() {
    let server = Server::start(&[]);
    let url = server.url("postgres");
    // A namespace keeps its store: this one is made before the other exists.
    let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
    gateway.create_namespace_at("other", "best-effort");
    gateway.restart(|options| {
        let mut store = StoreOptions::plain("orders", StoreKind::Postgres);
        store.address = Some(url.clone());
        store.pool_max = Some(3);
        options.stores = vec![store];
    });
    gateway.create_namespace_at("kept", "strong");
    gateway.create_namespace_at("later", "eventual");
    let backend = |name| super::homes::backend(&gateway, name);
    assert_eq!(backend("kept"), "PostgreSQL \"orders\", schema prism");
    assert_eq!(backend("other"), "SQLite table \"other\"");
    let p99 = |gateway: &Gateway| {
        let mut client = gateway.client();
        let mut times: Vec<_> = (0..1_000)
            .map(|number| {
                let begun = Instant::now();
                put(&mut client, "other", &format!("id {}", number % 50), "v", None).expect("a put");
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[989]
    };
    put(&mut gateway.client(), "kept", "before", "v", None).expect("a put");
    let before = p99(&gateway);
    server.signal_all("STOP");
    let stop = AtomicBool::new(false);
    let (during, (acknowledged, _), kept, refusal) = thread::scope(|scope| {
        // Whatever ends this, the scope waits for the load.
        let end = OnDrop(|| {
            stop.store(true, Ordering::SeqCst);
            server.signal_all("CONT");
        });
        let clients = [gateway.client(), gateway.client()];
        let load = scope.spawn(|| write_until(clients, "later", &stop, 0));
        let clients = [gateway.client(), gateway.client()];
        let strong = scope.spawn(|| write_until(clients, "kept", &stop, 1));
        thread::sleep(Duration::from_millis(200));
        let during = p99(&gateway);
        // After the breaker has opened, calls are refused at once.
        let mut client = gateway.client();
        let begun = Instant::now();
        let refusal = loop {
            let asked = Instant::now();
            let status = put(&mut client, "later", "id", "v", None).expect_err("it hangs");
            // Only the breaker says so.
            if status.message.contains("orders at") && status.message.contains("does not answer") {
                break asked.elapsed();
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the breaker does not open: {status:?}"
            );
        };
        // The page says so, too, while the store hangs.
        assert!(metric(&gateway, "prism_store_breakers_open", 1.0) >= 1.0);
        assert!(metric(&gateway, "prism_store_refused_total", 1.0) >= 1.0);
        let waiting = metric(&gateway, "prism_log_store_unapplied_bytes", 0.0);
        drop(end);
        let (kept, failed) = strong.join().expect("the strong load");
        assert!(
            !kept.is_empty() && failed == 0,
            "{} done, {failed} failed",
            kept.len()
        );
        assert!(waiting > 0.0, "what waits for the server is counted");
        (during, load.join().expect("the load"), kept, refusal)
    });
    println!("P99 of the other namespace: {before:?} before, {during:?} meanwhile; refused in {refusal:?}");
    assert!(
        // A call that waits for the store waits for seconds; a busy machine may add some part of
        // one.
        during < before * 3 + Duration::from_secs(1),
        "{during:?} after {before:?}"
    );
    let mut client = gateway.client();
    let begun = Instant::now();
    while put(&mut client, "later", "after", "v", None).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not go on");
        thread::sleep(Duration::from_millis(20));
    }
    for (namespace, ids) in [("later", &acknowledged), ("kept", &kept)] {
        for id in ids {
            assert_eq!(
                get(&mut client, namespace, id).as_deref(),
                Some(id.as_str()),
                "{id} of {namespace} is lost"
            );
        }
    }
    assert!(metric(&gateway, "prism_store_connections_open", 1.0) >= 1.0);
    assert!(metric(&gateway, "prism_store_connections_open", 0.0) <= 3.0);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'prism'";
    let sessions: u32 = server.sql("postgres", sessions).parse().expect("a number");
    assert!((1..=3).contains(&sessions), "{sessions} sessions of 3");
    gateway.stop();
}

#[test]
fn a_gateway_starts_without_its_server_and_serves_when_it_comes() {
    let mut server = Server::start(&[]);
    let mut gateway = gateway_on(&server.url("postgres"), 2);
    a_start_without_its_server(&mut server, &mut gateway);
}
