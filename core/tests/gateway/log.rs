//! Promises of `strong`, in one process with a real log and a real store: writes survive restarts
//! with any number of shards, repeats get the first answer, reads see writes that the store does
//! not have yet, a failing store affects its own namespaces only, a write refused for ever becomes
//! a dead letter, a damaged lane is held and the others serve.

use std::{
    fs::OpenOptions,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use prism_codec::proto::{
    google::rpc::{ErrorInfo, Status},
    prism::{
        admin::v1::{
            DeadLettersDropRequest, DeadLettersDropResponse, DeadLettersGetRequest, DeadLettersGetResponse,
            DeadLettersListRequest, DeadLettersListResponse, DeadLettersRedriveRequest,
            DeadLettersRedriveResponse,
        },
        common::v1::{IdempotencyToken, WriteResult},
        keyvalue::v1::{
            Absent, CompareAndSwapRequest, CompareAndSwapResponse, GetRequest, GetResponse, Item,
            MutateRequest, MutateResponse, Mutation, PutItems, PutRequest, PutResponse, ScanRequest,
            ScanResponse, compare_and_swap_request::Expected, mutation::Operation,
        },
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::EmbeddedStore,
};
use prost::Message;
use rusqlite::Connection;

use super::support::{CALL_TIMEOUT, Gateway, log_files};

/// Longest time for work that the store should do at once.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn acknowledged_writes_survive_restarts_with_any_number_of_shards() {
    let mut gateway = strong_gateway(2);
    let mut written = Vec::new();
    for (round, shards) in [3_usize, 1, 2, 2].into_iter().enumerate() {
        let mut client = gateway.client();
        for number in 0..40 {
            let (id, value) = (format!("id-{number}"), format!("round-{round}"));
            put(&mut client, "ledger", &id, &value, None).expect("a put");
            written.push((id, value));
        }
        let before = written.split_off(written.len() - 40);
        gateway.restart(|options| options.shards = shards.try_into().expect("a shard"));
        let mut client = gateway.client();
        for (id, value) in &before {
            assert_eq!(
                get(&mut client, "ledger", id),
                Some(value.clone()),
                "{id} after round {round}"
            );
        }
        written.extend(before);
        let lanes = lanes(&gateway);
        assert_eq!(
            lanes,
            (1..=shards as u32).collect::<Vec<_>>(),
            "lanes that are no more are removed"
        );
    }
}

#[test]
fn a_repeat_gets_the_first_answer_also_after_a_restart() {
    let mut gateway = strong_gateway(2);
    let mut client = gateway.client();
    let first = put(&mut client, "ledger", "a", "one", Some(token("t1"))).expect("a put");
    let other = put(&mut client, "ledger", "a", "two", Some(token("t2"))).expect("a put");
    assert!(other.lsn > first.lsn);
    let again = put(&mut client, "ledger", "a", "one", Some(token("t1"))).expect("a repeat");
    assert_eq!((again.lane, again.lsn), (first.lane, first.lsn));
    assert_eq!(
        get(&mut client, "ledger", "a").as_deref(),
        Some("two"),
        "a repeat writes nothing"
    );

    let swap = CompareAndSwapRequest {
        namespace: "ledger".to_owned(),
        id: "counter".to_owned(),
        key: b"k".to_vec(),
        idempotency_token: Some(token("t3")),
        expected: Some(Expected::Absent(Default::default())),
        item: Some(item("1")),
    };
    let swapped: CompareAndSwapResponse = client.unary(&method("CompareAndSwap"), &swap).expect("a swap");
    assert!(swapped.swapped);
    let place = swapped.result.expect("a result");
    let repeated: CompareAndSwapResponse = client.unary(&method("CompareAndSwap"), &swap).expect("a repeat");
    assert!(
        repeated.swapped,
        "the first answer, although the item is there now"
    );
    let repeated = repeated.result.expect("a result");
    assert_eq!((repeated.lane, repeated.lsn), (place.lane, place.lsn));

    gateway.restart(|_| {});
    let mut client = gateway.client();
    let again = put(&mut client, "ledger", "a", "one", Some(token("t1"))).expect("a repeat");
    assert_eq!((again.lane, again.lsn), (first.lane, first.lsn));
    assert_eq!(get(&mut client, "ledger", "a").as_deref(), Some("two"));
}

#[test]
fn a_token_of_another_call_is_refused_and_nothing_is_logged_also_after_a_restart() {
    let mut gateway = strong_gateway(2);
    let mut client = gateway.client();
    let first = put(&mut client, "ledger", "a", "one", Some(token("t1"))).expect("a put");
    let ids: Vec<String> = (0..10).map(|number| format!("id-{number}")).collect();
    mutate(&mut client, "ledger", &ids, "one", token("t2")).expect("a mutate");
    drop(client);
    for restarted in [false, true] {
        if restarted {
            gateway.restart(|_| {});
        }
        let mut client = gateway.client();
        let records = metric(&gateway, "prism_log_records_total", 0.0);
        let refusal = put(&mut client, "ledger", "a", "two", Some(token("t1"))).expect_err("another value");
        assert_eq!(
            (refusal.code, &*reason(&refusal)),
            (3, "TOKEN_REUSED"),
            "{refusal:?}"
        );
        assert!(refusal.message.contains("nothing was done"), "{refusal:?}");
        let refusal = mutate(&mut client, "ledger", &ids, "two", token("t2")).expect_err("other values");
        assert_eq!(
            (refusal.code, &*reason(&refusal)),
            (3, "TOKEN_REUSED"),
            "{refusal:?}"
        );
        let refusal =
            mutate(&mut client, "ledger", &["a".to_owned()], "one", token("t1")).expect_err("another method");
        assert_eq!(reason(&refusal), "TOKEN_REUSED", "{refusal:?}");
        assert_eq!(
            metric(&gateway, "prism_log_records_total", 0.0),
            records,
            "nothing was logged"
        );
        assert_eq!(get(&mut client, "ledger", "a").as_deref(), Some("one"));
        for id in &ids {
            assert_eq!(get(&mut client, "ledger", id).as_deref(), Some("one"));
        }
        let again = put(&mut client, "ledger", "a", "one", Some(token("t1"))).expect("the call itself");
        assert_eq!((again.lane, again.lsn), (first.lane, first.lsn));
    }
    // The same token with another time is another token.
    let later = IdempotencyToken {
        generation_time: Some(std::time::SystemTime::now().into()),
        ..token("t1")
    };
    put(&mut gateway.client(), "ledger", "a", "two", Some(later)).expect("a put");
    assert_eq!(get(&mut gateway.client(), "ledger", "a").as_deref(), Some("two"));
}

#[test]
fn the_repeat_of_a_mutate_does_what_was_refused_also_after_a_restart_with_other_shards() {
    for (refusing_lane, shards) in [(2, 1), (2, 2), (1, 3)] {
        let mut gateway = Gateway::start_with(EmbeddedStore::Sqlite, 2, |options| {
            options.wal.unapplied_bytes_max = 64 << 10;
        });
        gateway.create_namespace_at("ledger", "strong");
        let mut client = gateway.client();
        let ids: Vec<String> = (0..20).map(|number| format!("id-{number}")).collect();
        let mut lane_of = |id: &&String| {
            put(&mut client, "ledger", id, "before", None)
                .expect("a put")
                .lane
        };
        let ids_of_lane: Vec<&String> = ids.iter().filter(|id| lane_of(id) == refusing_lane).collect();
        assert!((1..ids.len()).contains(&ids_of_lane.len()), "both lanes have ids");
        settle(&gateway, "ledger");

        // The store is blocked, and one lane's share of waiting bytes is used up: it refuses its
        // part.
        let store = Connection::open(gateway.directory().join("keyvalue.db")).expect("the store's file");
        store.execute_batch("BEGIN IMMEDIATE").expect("the store's lock");
        for value in ["x".repeat(10 << 10), "x".repeat(100)] {
            while put(&mut client, "ledger", ids_of_lane[0], &value, None).is_ok() {}
        }
        let refusal = mutate(&mut client, "ledger", &ids, "after", token("t1")).expect_err("half of it");
        assert_eq!(
            (refusal.code, reason(&refusal).as_str()),
            (14, "PARTLY_DONE"),
            "{}",
            refusal.message
        );
        assert!(refusal.message.contains("wal.unapplied_bytes_max"), "the cause");
        store.execute_batch("ROLLBACK").expect("giving the lock back");
        drop((store, client));

        gateway.restart(|options| options.shards = shards.try_into().expect("a shard"));
        let mut client = gateway.client();
        mutate(&mut client, "ledger", &ids, "after", token("t1")).expect("the repeat");
        for id in &ids {
            assert_eq!(
                get(&mut client, "ledger", id).as_deref(),
                Some("after"),
                "{id} of {shards} shards, acknowledged by the repeat"
            );
        }
    }
}

#[test]
fn reads_see_what_the_store_does_not_have_and_others_do_not_wait() {
    let gateway = Gateway::start_with(EmbeddedStore::Sqlite, 2, |options| {
        options.wal.unapplied_bytes_max = 64 << 10;
    });
    gateway.create_namespace_at("ledger", "strong");
    gateway.create_namespace_at("other", "strong");
    let mut client = gateway.client();
    put(&mut client, "ledger", "a", "before", None).expect("a put");
    settle(&gateway, "ledger");

    // Another connection holds the store's lock, so its writer cannot write.
    let store = Connection::open(gateway.directory().join("keyvalue.db")).expect("the store's file");
    store.execute_batch("BEGIN IMMEDIATE").expect("the store's lock");
    let result = put(&mut client, "ledger", "a", "after", None).expect("acknowledged by the log");
    assert!(!result.applied);
    assert_eq!(get(&mut client, "ledger", "a").as_deref(), Some("after"));
    for number in 0..50 {
        put(&mut client, "ledger", "a", &format!("after-{number}"), None).expect("a put");
    }
    assert_eq!(get(&mut client, "ledger", "a").as_deref(), Some("after-49"));
    // The bytes waiting for the store are bounded, separately for each namespace.
    let large = "x".repeat(10 << 10);
    let refusal = (0..20)
        .find_map(|number| put(&mut client, "ledger", "a", &format!("{large}{number}"), None).err())
        .expect("the quota is reached");
    assert_eq!(
        (refusal.code, reason(&refusal).as_str()),
        (8, "STORE_BEHIND"),
        "{}",
        refusal.message
    );
    put(&mut client, "other", "a", "value", None).expect("another namespace has its own quota");
    assert!(metric(&gateway, "prism_log_unapplied_records", 50.0) >= 50.0);

    store.execute_batch("ROLLBACK").expect("giving the lock back");
    settle(&gateway, "ledger");
    let shown = get(&mut client, "ledger", "a").expect("an item");
    assert!(shown.starts_with(&large), "the last acknowledged write");
    put(&mut client, "ledger", "a", "at last", None).expect("the quota is free again");
    assert_eq!(get(&mut client, "ledger", "a").as_deref(), Some("at last"));
}

#[test]
fn what_the_store_refuses_for_ever_becomes_a_dead_letter_and_can_be_redriven() {
    let gateway = strong_gateway(1);
    let store = Connection::open(gateway.directory().join("keyvalue.db")).expect("the store's file");
    store
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON item WHEN NEW.id = CAST('poison' AS BLOB)
             BEGIN SELECT RAISE(ABORT, 'no poison here'); END",
        )
        .expect("a trigger");
    let mut client = gateway.client();
    put(&mut client, "ledger", "before", "1", None).expect("a put");
    let refused = put(&mut client, "ledger", "poison", "2", None).expect("acknowledged by the log");
    put(&mut client, "ledger", "poison", "3", None).expect("acknowledged by the log");
    put(&mut client, "ledger", "behind", "4", None).expect("a put");
    settle(&gateway, "ledger");
    assert_eq!(
        get(&mut client, "ledger", "behind").as_deref(),
        Some("4"),
        "it holds up nobody"
    );
    assert_eq!(get(&mut client, "ledger", "poison"), None);

    let list = |client: &mut Client| -> DeadLettersListResponse {
        let request = DeadLettersListRequest {
            namespace: "ledger".to_owned(),
            ..DeadLettersListRequest::default()
        };
        client.unary(&dead_letters("List"), &request).expect("a list")
    };
    let letters = list(&mut client).dead_letters;
    assert_eq!(letters.len(), 2);
    assert_eq!(metric(&gateway, "prism_log_dead_letters_total", 2.0), 2.0);
    let letter = &letters[0];
    assert_eq!((letter.lane, letter.lsn), (refused.lane, refused.lsn));
    assert_eq!((letter.method.as_str(), letter.id.as_str()), ("Put", "poison"));
    assert!(letter.reason.contains("no poison here"), "{}", letter.reason);
    let shown: DeadLettersGetResponse = client
        .unary(
            &dead_letters("Get"),
            &DeadLettersGetRequest {
                number: letter.number,
            },
        )
        .expect("a letter");
    let request = PutRequest::decode(&shown.request[..]).expect("the request");
    assert_eq!(request.items[0].value, b"2");

    let redrive = DeadLettersRedriveRequest {
        number: letter.number,
    };
    let refusal: Result<DeadLettersRedriveResponse, _> = client.unary(&dead_letters("Redrive"), &redrive);
    assert!(refusal.is_err(), "the store still refuses it");
    store.execute_batch("DROP TRIGGER refuse").expect("no trigger");
    let _: DeadLettersRedriveResponse = client
        .unary(&dead_letters("Redrive"), &redrive)
        .expect("redriven");
    assert_eq!(get(&mut client, "ledger", "poison").as_deref(), Some("2"));
    let drop_other = DeadLettersDropRequest {
        number: letters[1].number,
    };
    let _: DeadLettersDropResponse = client.unary(&dead_letters("Drop"), &drop_other).expect("dropped");
    assert!(list(&mut client).dead_letters.is_empty());
    let gone: Result<DeadLettersDropResponse, _> = client.unary(&dead_letters("Drop"), &drop_other);
    let ClientError::Status(status) = gone.expect_err("it is gone") else {
        panic!("no answer");
    };
    assert_eq!(
        (status.code, reason(&status).as_str()),
        (5, "DEAD_LETTER_UNKNOWN")
    );
}

#[test]
fn a_damaged_lane_is_held_and_the_others_serve() {
    let mut gateway = strong_gateway(2);
    let mut client = gateway.client();
    let mut ids: Vec<(String, u32)> = Vec::new();
    for number in 0..20 {
        let id = format!("id-{number}");
        let lane = put(&mut client, "ledger", &id, "value", None)
            .expect("a put")
            .lane;
        ids.push((id, lane));
    }
    assert!(ids.iter().any(|(_, lane)| *lane == 1) && ids.iter().any(|(_, lane)| *lane == 2));
    gateway.stop();
    damage_first_groups(&gateway, 1);
    gateway.start_again(|_| {});
    let mut client = gateway.client();
    let (status, text) = readiness(&gateway);
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("the log of shard 0 is held"), "{text}");
    for (id, lane) in &ids {
        let result = put(&mut client, "ledger", id, "new", None);
        match lane {
            1 => {
                let refusal = result.expect_err("the lane is held");
                assert_eq!(
                    (refusal.code, reason(&refusal).as_str()),
                    (14, "LANE_HELD"),
                    "{}",
                    refusal.message
                );
            }
            _ => {
                result.expect("the other lane serves");
                assert_eq!(get(&mut client, "ledger", id).as_deref(), Some("new"));
            }
        }
    }
    drop(client);
    gateway.restart(|options| options.wal.accept_loss = true);
    assert_eq!(readiness(&gateway).0, 200);
    let mut client = gateway.client();
    for (id, lane) in &ids {
        // The store had everything before the damage, so nothing is lost to readers.
        let expected = if *lane == 1 { "value" } else { "new" };
        assert_eq!(get(&mut client, "ledger", id).as_deref(), Some(expected));
        put(&mut client, "ledger", id, "newest", None).expect("the lane takes writes again");
    }
}

#[test]
fn with_another_number_of_shards_a_held_lane_holds_all() {
    let mut gateway = strong_gateway(2);
    let mut client = gateway.client();
    for number in 0..20 {
        put(&mut client, "ledger", &format!("id-{number}"), "value", None).expect("a put");
    }
    drop(client);
    gateway.stop();
    damage_first_groups(&gateway, 2);
    for shards in [3_usize, 1, 3] {
        gateway.start_again(|options| options.shards = shards.try_into().expect("a shard"));
        assert_eq!(readiness(&gateway).0, 503);
        let mut client = gateway.client();
        for number in 0..20 {
            let refusal = put(&mut client, "ledger", &format!("id-{number}"), "new", None).expect_err("held");
            assert_eq!(reason(&refusal), "LANE_HELD");
            assert!(refusal.message.contains("lane 2 is held"), "{}", refusal.message);
        }
        drop(client);
        gateway.stop();
    }
    gateway.start_again(|options| options.shards = 2_usize.try_into().expect("a shard"));
    let mut client = gateway.client();
    let taken =
        (0..20).filter(|number| put(&mut client, "ledger", &format!("id-{number}"), "new", None).is_ok());
    assert!((1..20).contains(&taken.count()), "the other lane serves again");
}

#[test]
fn a_store_that_was_replaced_is_noticed() {
    let mut gateway = strong_gateway(1);
    put(&mut gateway.client(), "ledger", "a", "one", None).expect("a put");
    gateway.stop();
    let files = ["keyvalue.db", "keyvalue.db-wal"].map(|name| gateway.directory().join(name));
    let older = files.clone().map(|file| std::fs::read(file).unwrap_or_default());
    gateway.start_again(|_| {});
    put(&mut gateway.client(), "ledger", "a", "two", None).expect("a put");
    gateway.stop();
    for (file, bytes) in files.iter().zip(older) {
        std::fs::write(file, bytes).expect("an older store");
    }
    // Only an index of the newer write-ahead file, if SQLite has left it; it is rebuilt.
    drop(std::fs::remove_file(gateway.directory().join("keyvalue.db-shm")));
    gateway.start_again(|_| {});
    let (status, text) = readiness(&gateway);
    assert_eq!(status, 503, "{text}");
    let refusal = put(&mut gateway.client(), "ledger", "a", "three", None).expect_err("held");
    assert!(
        refusal.message.contains("it was replaced or has lost data"),
        "{}",
        refusal.message
    );
    gateway.restart(|options| options.wal.accept_loss = true);
    let mut client = gateway.client();
    assert_eq!(
        get(&mut client, "ledger", "a").as_deref(),
        Some("one"),
        "what the operator has accepted"
    );
    put(&mut client, "ledger", "a", "three", None).expect("a put");
    assert_eq!(get(&mut client, "ledger", "a").as_deref(), Some("three"));
    drop(client);
    gateway.restart(|options| options.wal.accept_loss = false);
    assert_eq!(readiness(&gateway).0, 200, "what was accepted is not asked again");
}

#[test]
fn a_scan_sees_every_acknowledged_write() {
    let gateway = strong_gateway(3);
    let mut client = gateway.client();
    for round in 0..20 {
        for number in 0..30 {
            put(
                &mut client,
                "ledger",
                &format!("id-{number:02}"),
                &round.to_string(),
                None,
            )
            .expect("a put");
        }
        let mut values = Vec::new();
        let request = ScanRequest {
            namespace: "ledger".to_owned(),
            selection: None,
        };
        client
            .server_streaming(&method("Scan"), &request, |page: ScanResponse| {
                let items = page.entries.into_iter().flat_map(|entry| entry.items);
                values.extend(items.map(|item| String::from_utf8(item.value).expect("text")));
                std::ops::ControlFlow::Continue(())
            })
            .expect("a scan");
        assert_eq!(values, vec![round.to_string(); 30], "round {round}");
    }
}

// --- helpers -------------------------------------------------------------------------------------

pub(super) fn strong_gateway(shards: usize) -> Gateway {
    let gateway = Gateway::start(EmbeddedStore::Sqlite, shards);
    gateway.create_namespace_at("ledger", "strong");
    gateway
}

pub(super) fn method(name: &str) -> String {
    format!("/prism.keyvalue.v1.KeyValue/{name}")
}

pub(super) fn dead_letters(name: &str) -> String {
    format!("/prism.admin.v1.DeadLetters/{name}")
}

pub(super) fn token(text: &str) -> IdempotencyToken {
    IdempotencyToken {
        generation_time: None,
        token: text.as_bytes().to_vec(),
    }
}

pub(super) fn item(value: &str) -> Item {
    Item {
        key: b"k".to_vec(),
        value: value.as_bytes().to_vec(),
        ttl: None,
        compression: 0,
        version: Vec::new(),
    }
}

pub(super) fn put(
    client: &mut Client,
    namespace: &str,
    id: &str,
    value: &str,
    token: Option<IdempotencyToken>,
) -> Result<WriteResult, Box<Status>> {
    let request = PutRequest {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        idempotency_token: token,
        items: vec![item(value)],
    };
    match client.unary::<PutResponse>(&method("Put"), &request) {
        Ok(response) => Ok(response.result.expect("a result")),
        Err(ClientError::Status(status)) => Err(status),
        Err(other) => panic!("the call did not reach the gateway: {other}"),
    }
}

/// Puts one value into all of the ids. Returns the results, one for each of them.
pub(super) fn mutate(
    client: &mut Client,
    namespace: &str,
    ids: &[String],
    value: &str,
    token: IdempotencyToken,
) -> Result<Vec<WriteResult>, Box<Status>> {
    let put_value = |id: &String| Mutation {
        id: id.clone(),
        operation: Some(Operation::Put(PutItems {
            items: vec![item(value)],
        })),
    };
    let request = MutateRequest {
        namespace: namespace.to_owned(),
        idempotency_token: Some(token),
        mutations: ids.iter().map(put_value).collect(),
    };
    match client.unary::<MutateResponse>(&method("Mutate"), &request) {
        Ok(response) => {
            let results = response.results.into_iter();
            Ok(results
                .map(|result| result.result.expect("it took effect"))
                .collect())
        }
        Err(ClientError::Status(status)) => Err(status),
        Err(other) => panic!("the call did not reach the gateway: {other}"),
    }
}

pub(super) fn get(client: &mut Client, namespace: &str, id: &str) -> Option<String> {
    let response = try_get(client, namespace, id).expect("a get");
    let item = response.items.into_iter().next()?;
    Some(String::from_utf8(item.value).expect("text"))
}

pub(super) fn try_get(client: &mut Client, namespace: &str, id: &str) -> Result<GetResponse, ClientError> {
    let request = GetRequest {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        predicate: None,
        selection: None,
    };
    client.unary(&method("Get"), &request)
}

/// Whether a swap of the value took place.
pub(super) fn swap_value(
    client: &mut Client,
    namespace: &str,
    id: &str,
    before: Option<&str>,
    after: &str,
) -> bool {
    let expected = match before {
        None => Expected::Absent(Absent {}),
        Some(value) => Expected::Value(value.as_bytes().to_vec()),
    };
    let request = CompareAndSwapRequest {
        namespace: namespace.to_owned(),
        id: id.to_owned(),
        key: b"k".to_vec(),
        idempotency_token: None,
        expected: Some(expected),
        item: Some(item(after)),
    };
    let response: CompareAndSwapResponse = client.unary(&method("CompareAndSwap"), &request).expect("a swap");
    response.swapped
}

/// Waits until the store has everything: a Scan does not begin before.
fn settle(gateway: &Gateway, namespace: &str) {
    let request = ScanRequest {
        namespace: namespace.to_owned(),
        selection: None,
    };
    gateway
        .client()
        .server_streaming(&method("Scan"), &request, |_: ScanResponse| {
            std::ops::ControlFlow::Break(())
        })
        .expect("a scan");
}

pub(super) fn reason(status: &Status) -> String {
    let detail = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"));
    let detail = detail.expect("an ErrorInfo");
    ErrorInfo::decode(&detail.value[..]).expect("an ErrorInfo").reason
}

pub(super) fn http_get(gateway: &Gateway, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(gateway.address()).expect("the gateway takes connections");
    socket.set_read_timeout(Some(CALL_TIMEOUT)).expect("a time-out");
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .expect("a request");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("a response");
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status line"), text)
}

fn readiness(gateway: &Gateway) -> (u16, String) {
    http_get(gateway, "/readyz")
}

/// The sum of a metric over the shards, once it has reached `at_least`: gauges of the log are set
/// ten times a second.
pub(super) fn metric(gateway: &Gateway, name: &str, at_least: f64) -> f64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, text) = http_get(gateway, "/metrics");
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let sum: f64 = lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        if sum >= at_least || Instant::now() > deadline {
            return sum;
        }
        std::thread::yield_now();
    }
}

fn lanes(gateway: &Gateway) -> Vec<u32> {
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    let manifests = log_files(gateway)
        .iter()
        .map(name)
        .filter(|name| name.ends_with(".manifest"))
        .collect::<Vec<_>>();
    let number = |name: &String| u32::from_str_radix(&name["lane-".len()..][..8], 16).expect("a number");
    manifests.iter().map(number).collect()
}

/// Changes a byte in each of the first blocks after the headers of every segment of a lane.
fn damage_first_groups(gateway: &Gateway, lane: u32) {
    let prefix = format!("lane-{lane:08x}-");
    for path in log_files(gateway) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with(&prefix) {
            continue;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .expect("a segment");
        for block in 2_u64..6 {
            let mut block_bytes = [0; 4096];
            file.seek(SeekFrom::Start(block * 4096)).expect("a block");
            file.read_exact(&mut block_bytes).expect("a block");
            if block_bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            block_bytes[200] ^= 0xff;
            file.seek(SeekFrom::Start(block * 4096)).expect("a block");
            file.write_all(&block_bytes).expect("a block");
        }
        file.sync_all().expect("a sync");
    }
}
