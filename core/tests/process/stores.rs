//! `prism store` against a real PostgreSQL, Redis and NATS: what it lists, measures and moves on,
//! and that it shows no secret.

use std::process::{Command, Output};

use tempfile::TempDir;

use super::shared_catalog::server::durable;

#[path = "../../../backends/tests/servers/kafka.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod kafka;
#[path = "../../../backends/tests/servers/nats.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod nats;
#[path = "../../../backends/tests/servers/redis.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod redis;

/// Runs `prism store` with a configuration of one PostgreSQL, whose password is in a variable.
fn store(directory: &TempDir, database: &str, arguments: &[&str]) -> Output {
    let url = durable().url(database).replace("prism@", "prism:${SECRET}@");
    let orders = format!("orders: {{kind: postgres, url: \"{url}\", pool_max: 4}}");
    store_with(directory, &orders, arguments)
}

/// Runs `prism store` with a configuration of one server.
fn store_with(directory: &TempDir, entry: &str, arguments: &[&str]) -> Output {
    let file = directory.path().join("prism.yaml");
    let text = format!("embedded: memory\nstores:\n  {entry}\n  cache: {{kind: memory}}\n");
    std::fs::write(&file, text).expect("a configuration");
    let (name, rest) = arguments.split_first().expect("a command");
    Command::new(env!("CARGO_BIN_EXE_prism"))
        .args(["store", name, "--config"])
        .arg(file)
        .args(rest)
        .env("SECRET", "hunter2")
        .output()
        .expect("the program runs")
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    text
}

#[test]
fn stores_are_listed_measured_and_moved_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = durable().database();
    let database = url.rsplit('/').next().expect("a name");
    let run = |arguments: &[&str]| store(&directory, database, arguments);
    let schemas = || {
        durable().sql(
            database,
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'prism%'",
        )
    };

    let listed = said(&run(&["list"]), 0);
    for part in [
        "orders",
        "PostgreSQL",
        database,
        "up to 4 connections",
        "cache",
        "embedded",
    ] {
        assert!(listed.contains(part), "{part} in:\n{listed}");
    }
    let planned = said(&run(&["migrate", "orders", "--dry-run"]), 0);
    assert!(
        planned.contains("has no tables") && planned.contains("nothing was changed"),
        "{planned}"
    );
    assert_eq!(schemas(), "");
    let made = said(&run(&["migrate", "orders"]), 0);
    assert!(made.contains("Moved on to format"), "{made}");
    assert_eq!(schemas(), "prism");
    assert!(said(&run(&["migrate", "orders"]), 0).contains("Nothing is to be done"));
    // Tables of the first format, which had no owner, no queues and no topics.
    let newer = "DROP TABLE prism.owner, prism.counter, prism.queue_item, prism.queue_body, prism.queue_gone, prism.queue_call, \
        prism.message, prism.message_id";
    durable().sql(database, newer);
    durable().sql(database, "UPDATE prism.format SET version = 1");
    let planned = said(&run(&["migrate", "orders", "--dry-run", "--output", "json"]), 0);
    let planned: serde_json::Value = serde_json::from_str(&planned).expect("JSON");
    assert_eq!(
        (&planned["format"], &planned["moved"]),
        (&1.into(), &false.into())
    );
    assert!(said(&run(&["migrate", "orders"]), 0).contains("has tables of format 1"));
    assert_eq!(durable().sql(database, "SELECT count(*) FROM prism.owner"), "0");
    // Those of a newer program are left alone.
    durable().sql(database, "UPDATE prism.format SET version = 99, usable_from = 99");
    assert!(said(&run(&["migrate", "orders"]), 1).contains("Use a newer one"));

    let measured = said(&run(&["probe", "orders", "--for", "1s", "--output", "json"]), 0);
    let measured: serde_json::Value = serde_json::from_str(&measured).expect("JSON");
    check_levels(&measured, 2);
    assert_eq!(measured["durable"], true);
    assert_eq!(schemas(), "prism", "nothing is left of it");

    let unknown = said(&run(&["probe", "other"]), 2);
    assert!(unknown.contains("it has orders, cache, embedded"), "{unknown}");
    assert!(said(&run(&["migrate", "cache"]), 2).contains("PostgreSQL only"));
}

#[test]
fn nats_is_measured_and_nothing_is_left_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = nats::Server::start("");
    let entry = format!(
        "bus: {{kind: nats, url: \"{}\", sync_interval: always}}",
        server.url()
    );
    let run = |arguments: &[&str]| store_with(&directory, &entry, arguments);
    let measured = said(&run(&["probe", "bus", "--for", "1s", "--output", "json"]), 0);
    let measured: serde_json::Value = serde_json::from_str(&measured).expect("JSON");
    check_levels(&measured, 3);
    assert_eq!(measured["durable"], true);
    let left = server.ask("$JS.API.STREAM.NAMES", "{}");
    assert!(left.contains("\"streams\":null"), "{left}");
    let shown = said(&run(&["probe", "bus", "--for", "1s"]), 0);
    assert!(shown.contains("NATS \"bus\" at 127.0.0.1:"), "{shown}");
    assert!(said(&run(&["probe", "cache"]), 2).contains("measures PostgreSQL, Redis, NATS and Kafka only"));
    assert!(said(&run(&["migrate", "bus"]), 2).contains("moves on tables of PostgreSQL only"));
}

#[test]
fn redis_is_measured_and_nothing_is_left_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = redis::Server::durable();
    let entry = format!("fast: {{kind: redis, url: \"{}\"}}", server.url());
    let run = |arguments: &[&str]| store_with(&directory, &entry, arguments);
    let measured = said(&run(&["probe", "fast", "--for", "1s", "--output", "json"]), 0);
    let measured: serde_json::Value = serde_json::from_str(&measured).expect("JSON");
    check_levels(&measured, 3);
    assert_eq!(measured["durable"], true);
    assert_eq!(server.ask(&["DBSIZE"]), ":0", "nothing is left of it");
    server.ask(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let shown = said(&run(&["probe", "fast", "--for", "1s", "--size", "1MiB"]), 0);
    assert!(shown.contains("Redis \"fast\" at 127.0.0.1:"), "{shown}");
    assert!(shown.contains("for best-effort and eventual"), "{shown}");
    assert!(said(&run(&["migrate", "fast"]), 2).contains("moves on tables of PostgreSQL only"));
}

#[test]
fn kafka_is_listed_and_measured_and_nothing_is_left_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = kafka::Server::start("");
    let entry = format!("events: {{kind: kafka, address: \"{}\"}}", server.address());
    let run = |arguments: &[&str]| store_with(&directory, &entry, arguments);
    let measured = said(&run(&["probe", "events", "--for", "1s", "--output", "json"]), 0);
    let measured: serde_json::Value = serde_json::from_str(&measured).expect("JSON");
    check_levels(&measured, 3);
    assert_eq!(measured["kind"], "kafka");
    // It makes its topic anew: nothing is in the way.
    let shown = said(&run(&["probe", "events", "--for", "1s"]), 0);
    assert!(shown.contains("Kafka \"events\" at 127.0.0.1:"), "{shown}");
    assert!(said(&run(&["list"]), 0).contains("events"));
}

/// Checks that a measurement has rates at this many levels.
#[track_caller]
fn check_levels(measured: &serde_json::Value, count: usize) {
    let levels = measured["levels"].as_array().expect("levels");
    assert_eq!(levels.len(), count, "{measured}");
    for level in levels {
        for kind in ["writes", "reads"] {
            assert!(
                level[kind]["per_second"].as_u64().is_some_and(|rate| rate > 0),
                "{measured}"
            );
        }
    }
}
