//! A shard polls for answers due from its own threads, and sleeps while only its clients could
//! send: shown by the counters of its polling, not by the clock.

use std::time::{Duration, Instant};

use prism_codec::proto::prism::keyvalue::v1::{
    All, GetRequest, GetResponse, Item, Predicate, PutRequest, PutResponse, predicate::Kind,
};
use prism_core::{client::Client, config::EmbeddedStore};

use super::{log::http_get, support::Gateway};

const CALLS: u32 = 200;

#[test]
fn nothing_is_looked_for_while_only_a_client_could_come() {
    let gateway = Gateway::start(EmbeddedStore::Memory, 1);
    gateway.create_namespace("idle");
    // As fast as they can, so that the next request is never far.
    let mut clients: Vec<_> = (0..4).map(|_| gateway.client()).collect();
    for number in 0..CALLS {
        put(&mut clients[number as usize % 4], number);
    }
    assert_eq!(looks(&gateway), (0.0, 0.0));
}

#[test]
fn answers_of_the_store_are_looked_for_within_bounds() {
    for durability in ["best-effort", "eventual", "strong"] {
        let gateway = Gateway::start(EmbeddedStore::Sqlite, 1);
        let began = Instant::now();
        gateway.create_namespace_at("idle", durability);
        let mut client = gateway.client();
        for number in 0..CALLS {
            put(&mut client, number);
            get(&mut client, number);
        }
        let (count, seconds) = looks(&gateway);
        if !has_ring(&gateway) {
            assert_eq!((count, seconds), (0.0, 0.0), "epoll cannot look without sleeping");
            continue;
        }
        assert!(count > 0.0, "{durability}");
        // The answer comes in one piece or two, and after the first the shard polls again.
        assert!(count <= f64::from(4 * CALLS), "{durability}: {count} looks");
        assert!(
            seconds <= began.elapsed().as_secs_f64() * 0.75 + 0.005,
            "{durability}: {seconds} s"
        );
    }
}

#[test]
fn without_a_budget_nothing_is_looked_for() {
    let gateway = Gateway::start_with(EmbeddedStore::Sqlite, 1, |options| {
        options.idle_poll = Duration::ZERO;
    });
    gateway.create_namespace("idle");
    let mut client = gateway.client();
    for number in 0..CALLS {
        put(&mut client, number);
    }
    assert_eq!(looks(&gateway), (0.0, 0.0));
}

fn put(client: &mut Client, number: u32) {
    let item = Item {
        key: b"k".to_vec(),
        value: b"v".to_vec(),
        ttl: None,
        compression: 0,
        version: Vec::new(),
    };
    let request = PutRequest {
        namespace: "idle".to_owned(),
        id: format!("id-{number}"),
        idempotency_token: None,
        items: vec![item],
    };
    let response: PutResponse = client
        .unary("/prism.keyvalue.v1.KeyValue/Put", &request)
        .expect("a put");
    assert!(response.result.is_some());
}

fn get(client: &mut Client, number: u32) {
    let request = GetRequest {
        namespace: "idle".to_owned(),
        id: format!("id-{number}"),
        predicate: Some(Predicate {
            kind: Some(Kind::All(All {})),
        }),
        selection: None,
    };
    let response: GetResponse = client
        .unary("/prism.keyvalue.v1.KeyValue/Get", &request)
        .expect("a get");
    assert_eq!(response.items.len(), 1, "id-{number}");
}

/// Number of pollings of the shard, and their total time in seconds.
fn looks(gateway: &Gateway) -> (f64, f64) {
    let (_, page) = http_get(gateway, "/metrics");
    let value = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let line = line.unwrap_or_else(|| panic!("no {name}:\n{page}"));
        let number = line.rsplit(' ').next().expect("a line has words");
        number.parse::<f64>().expect("a number")
    };
    (
        value("prism_idle_polls_total"),
        value("prism_idle_poll_seconds_total"),
    )
}

fn has_ring(gateway: &Gateway) -> bool {
    http_get(gateway, "/metrics").1.contains("driver=\"io_uring\"")
}
