//! Servers and logs that are not the ones they were: the gateway notices, gives nothing to them,
//! and goes on when the right one is back or an operator accepts the loss. Lanes that are made
//! anew, and what a server refuses for ever.

use std::{
    thread,
    time::{Duration, Instant},
};

use prism_codec::proto::{
    google::rpc::Status,
    prism::{
        admin::v1::{
            DeadLettersDropRequest, DeadLettersDropResponse, DeadLettersGetRequest, DeadLettersGetResponse,
            DeadLettersListRequest, DeadLettersListResponse, DeadLettersRedriveRequest,
            DeadLettersRedriveResponse,
        },
        keyvalue::v1::PutRequest,
    },
};
use prism_core::client::{Client, ClientError};
use prost::Message as _;

use super::{
    log::{dead_letters, get, metric, put, reason, try_get},
    postgres::{gateway_on, server::durable},
    support::{Gateway, LogImage, SMALL_SEGMENT_BYTES},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A database of its own, which can be replaced by another one with the same address.
struct Database {
    url: String,
    name: String,
}

impl Database {
    fn new() -> Self {
        let url = durable().database();
        let name = url.rsplit('/').next().expect("a name").to_owned();
        Self { url, name }
    }

    fn sql(&self, statement: &str) -> String {
        durable().sql(&self.name, statement)
    }

    /// A copy of the database as it is. Nobody may be connected to it.
    fn copy(&self, to: &str) {
        let copied = format!("CREATE DATABASE {}_{to} TEMPLATE {}", self.name, self.name);
        durable().sql("postgres", &copied);
    }

    /// Puts another database in its place, and keeps it under another name.
    fn replace(&self, by: Option<&str>, keep_as: &str) {
        let name = &self.name;
        let run = |statement: String| durable().sql("postgres", &statement);
        run(format!("ALTER DATABASE {name} RENAME TO {name}_{keep_as}"));
        match by {
            Some(other) => run(format!("ALTER DATABASE {name}_{other} RENAME TO {name}")),
            None => run(format!("CREATE DATABASE {name}")),
        };
    }

    /// Items of an id; none if there is no table either.
    fn items(&self, id: &str) -> u32 {
        if self.sql("SELECT to_regclass('prism.item') IS NULL") == "t" {
            return 0;
        }
        let count = format!("SELECT count(*) FROM prism.item WHERE id = '{id}' AND kind >= 0");
        self.sql(&count).parse().expect("a number")
    }

    #[track_caller]
    fn await_item(&self, id: &str) {
        await_that("the server has what the log held", || self.items(id) == 1);
    }
}

#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Writes that the log acknowledges, and that the store is not given.
#[track_caller]
fn is_noticed(gateway: &Gateway, database: &Database, id: &str) {
    let result = put(&mut gateway.client(), "kept", id, "meanwhile", None).expect("the log takes it");
    assert!(result.lane > 0 && !result.applied, "{result:?}");
    assert!(metric(gateway, "prism_log_failing_namespaces", 1.0) >= 1.0);
    assert_eq!(database.items(id), 0, "the other one is given nothing");
}

#[test]
fn another_database_under_the_same_address_is_given_nothing() {
    let database = Database::new();
    let mut gateway = gateway_on(&database.url, 2);
    gateway.create_namespace_at("kept", "strong");
    put(&mut gateway.client(), "kept", "first", "v", None).expect("a put");
    gateway.stop();
    assert_eq!(database.items("first"), 1);
    database.replace(None, "right");
    gateway.start_again(|_| {});
    // Before and after the first record: a read fails, instead of finding nothing.
    let fails = || try_get(&mut gateway.client(), "kept", "first").expect_err("another database");
    fails();
    is_noticed(&gateway, &database, "second");
    fails();
    // Also if an operator accepts a loss: an empty database knows no namespace.
    gateway.restart(|options| options.wal.accept_loss = true);
    is_noticed(&gateway, &database, "third");
    gateway.stop();
    database.replace(Some("right"), "wrong");
    gateway.start_again(|options| options.wal.accept_loss = false);
    for id in ["second", "third"] {
        database.await_item(id);
    }
    let mut client = gateway.client();
    assert_eq!(get(&mut client, "kept", "first").as_deref(), Some("v"));
    assert_eq!(get(&mut client, "kept", "third").as_deref(), Some("meanwhile"));
}

#[test]
fn an_older_copy_of_a_database_waits_for_an_operator() {
    let database = Database::new();
    let mut gateway = gateway_on(&database.url, 1);
    gateway.create_namespace_at("kept", "strong");
    put(&mut gateway.client(), "kept", "old", "v", None).expect("a put");
    gateway.stop();
    database.copy("older");
    gateway.start_again(|_| {});
    put(&mut gateway.client(), "kept", "new", "v", None).expect("a put");
    gateway.stop();
    assert_eq!(database.items("new"), 1);
    database.replace(Some("older"), "newer");
    gateway.start_again(|_| {});
    is_noticed(&gateway, &database, "next");
    // An operator accepts that it lacks a record.
    gateway.restart(|options| options.wal.accept_loss = true);
    database.await_item("next");
    let mut client = gateway.client();
    assert_eq!(get(&mut client, "kept", "old").as_deref(), Some("v"));
    assert_eq!(get(&mut client, "kept", "new"), None, "what was accepted");
    drop(client);
    // What was accepted is not asked again.
    gateway.restart(|options| options.wal.accept_loss = false);
    put(&mut gateway.client(), "kept", "last", "v", None).expect("a put");
    database.await_item("last");
}

#[test]
fn a_log_that_was_replaced_by_an_older_one_is_noticed_by_its_server() {
    let database = Database::new();
    let mut gateway = gateway_on(&database.url, 1);
    gateway.restart(|options| options.wal.segment_bytes = SMALL_SEGMENT_BYTES);
    gateway.create_namespace_at("kept", "strong");
    put(&mut gateway.client(), "kept", "old", "v", None).expect("a put");
    database.await_item("old");
    let older = LogImage::of(&gateway);
    for number in 0..20 {
        put(&mut gateway.client(), "kept", &format!("new-{number}"), "v", None).expect("a put");
    }
    gateway.stop();
    assert_eq!(database.items("new-19"), 1);
    older.restore(&gateway);
    gateway.start_again(|_| {});
    // Its number is one that the server has noted for another record: it would pass as applied.
    is_noticed(&gateway, &database, "next");
    gateway.restart(|options| options.wal.accept_loss = true);
    database.await_item("next");
    put(&mut gateway.client(), "kept", "after", "v", None).expect("a put");
    database.await_item("after");
    gateway.restart(|options| options.wal.accept_loss = false);
    put(&mut gateway.client(), "kept", "last", "v", None).expect("a put");
    database.await_item("last");
    assert_eq!(
        get(&mut gateway.client(), "kept", "new-19").as_deref(),
        Some("v"),
        "what the server had stays"
    );
}

#[test]
fn lanes_that_are_made_anew_count_from_one_and_the_server_takes_their_records() {
    let database = Database::new();
    let mut gateway = gateway_on(&database.url, 2);
    gateway.create_namespace_at("kept", "strong");
    let round = |gateway: &Gateway, round: usize| {
        let mut client = gateway.client();
        let lanes = (0..12).map(|number| {
            let id = format!("{round}-{number}");
            put(&mut client, "kept", &id, "v", None).expect("a put").lane
        });
        let lanes: std::collections::BTreeSet<_> = lanes.collect();
        for number in 0..12 {
            database.await_item(&format!("{round}-{number}"));
        }
        lanes.len()
    };
    assert_eq!(round(&gateway, 0), 2);
    let lives = |gateway: &Gateway| std::fs::read_to_string(gateway.directory().join("wal/lives"));
    assert!(lives(&gateway).is_err(), "no lane was made anew");
    for life in 1..=2 {
        gateway.restart(|options| options.shards = 1.try_into().expect("not 0"));
        assert_eq!(round(&gateway, 2 * life), 1);
        assert_eq!(
            lives(&gateway).expect("lane 2 is gone"),
            format!("00000002 {life}\n")
        );
        gateway.restart(|options| options.shards = 2.try_into().expect("not 0"));
        // Fewer records than the lane before had: by their numbers they would pass as applied.
        assert_eq!(round(&gateway, 2 * life + 1), 2);
    }
    let lanes = database.sql("SELECT count(DISTINCT lane) FROM prism.applied");
    assert_eq!(lanes, "4", "lane 1, and three lives of lane 2");
    gateway.restart(|_| {});
    for number in 0..12 {
        assert_eq!(
            get(&mut gateway.client(), "kept", &format!("5-{number}")).as_deref(),
            Some("v")
        );
    }
}

#[test]
fn a_record_that_a_server_refuses_for_ever_becomes_a_dead_letter_once() {
    let database = Database::new();
    let mut gateway = gateway_on(&database.url, 1);
    gateway.create_namespace_at("kept", "strong");
    database.sql("ALTER TABLE prism.item ADD CONSTRAINT no_poison CHECK (id <> 'poison')");
    let mut client = gateway.client();
    put(&mut client, "kept", "before", "1", None).expect("a put");
    let refused = put(&mut client, "kept", "poison", "2", None).expect("acknowledged by the log");
    put(&mut client, "kept", "after", "3", None).expect("a put");
    database.await_item("after");
    assert_eq!(database.items("before"), 1);
    let list = |gateway: &Gateway| {
        let answer: DeadLettersListResponse = call(
            &mut gateway.client(),
            "List",
            &DeadLettersListRequest {
                namespace: "kept".to_owned(),
                ..DeadLettersListRequest::default()
            },
        )
        .expect("a list");
        answer.dead_letters
    };
    let [letter] = list(&gateway).try_into().expect("one letter");
    assert_eq!((letter.lane, letter.lsn), (refused.lane, refused.lsn));
    assert_eq!((letter.method.as_str(), letter.id.as_str()), ("Put", "poison"));
    assert!(letter.reason.contains("no_poison"), "{}", letter.reason);
    assert_eq!(metric(&gateway, "prism_log_dead_letters_total", 1.0), 1.0);
    // The next start finds it done.
    drop(client);
    gateway.restart(|_| {});
    let [letter] = list(&gateway).try_into().expect("one letter");
    let mut client = gateway.client();
    let number = letter.number;
    let shown: DeadLettersGetResponse =
        call(&mut client, "Get", &DeadLettersGetRequest { number }).expect("a letter");
    let request = PutRequest::decode(&shown.request[..]).expect("the request");
    assert_eq!(request.items[0].value, b"2");
    let redriven: Result<DeadLettersRedriveResponse, _> =
        call(&mut client, "Redrive", &DeadLettersRedriveRequest { number });
    let status = redriven.expect_err("only SQLite's are redriven");
    assert!(!status.message.is_empty(), "{status:?}");
    assert_eq!(list(&gateway).len(), 1, "it is still there");
    let _: DeadLettersDropResponse =
        call(&mut client, "Drop", &DeadLettersDropRequest { number }).expect("dropped");
    let again: Result<DeadLettersDropResponse, _> =
        call(&mut client, "Drop", &DeadLettersDropRequest { number });
    assert_eq!(reason(&again.expect_err("it is gone")), "DEAD_LETTER_UNKNOWN");
}

fn call<Reply: prost::Message + Default>(
    client: &mut Client,
    name: &str,
    request: &impl prost::Message,
) -> Result<Reply, Box<Status>> {
    client
        .unary(&dead_letters(name), request)
        .map_err(|error| match error {
            ClientError::Status(status) => status,
            other => panic!("the call did not reach the gateway: {other}"),
        })
}
