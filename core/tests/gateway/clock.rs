//! Steps of the wall clock: a write without a token takes effect if it was sent after another one
//! was answered, whatever the clock did in between, whichever shards took the two, and whether or
//! not the gateway was restarted.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use prism_backends::kind::StoreKind;
use prism_codec::proto::prism::{
    common::v1::IdempotencyToken,
    keyvalue::v1::{DeleteRequest, DeleteResponse},
};
use prism_core::{
    client::Client,
    config::{EmbeddedStore, StoreOptions},
    runtime::clock::WallClock,
};

use super::{
    log::{get, http_get, method, put, swap_value},
    power_cut::revived_from_the_log,
    redis::server::Server as RedisServer,
    support::Gateway,
};

const HOUR_NS: i64 = 3_600_000_000_000;
const CASES: [(EmbeddedStore, &str); 4] = [
    (EmbeddedStore::Memory, "best-effort"),
    (EmbeddedStore::Sqlite, "best-effort"),
    (EmbeddedStore::Sqlite, "eventual"),
    (EmbeddedStore::Sqlite, "strong"),
];
const SPACE: &str = "space";
const IDS: usize = 12;

/// A gateway with a wall clock set by the test.
struct Shifted {
    gateway: Gateway,
    shift: Arc<AtomicI64>,
    /// Expected value of each id.
    expected: Vec<Option<String>>,
    writes: usize,
}

impl Shifted {
    fn start((store, durability): (EmbeddedStore, &str), shards: usize) -> Self {
        let shift = Arc::new(AtomicI64::new(0));
        let gateway = Gateway::start_with(store, shards, |options| {
            options.wall_clock = WallClock::shifted(shift.clone());
        });
        gateway.create_namespace_at(SPACE, durability);
        Self {
            gateway,
            shift,
            expected: vec![None; IDS],
            writes: 0,
        }
    }

    fn set_clock(&self, hours: i64) {
        self.shift.store(hours * HOUR_NS, Ordering::SeqCst);
    }

    /// Clients, which the kernel spreads over the shards.
    fn clients(&self) -> Vec<Client> {
        (0..8).map(|_| self.gateway.client()).collect()
    }

    /// Changes every id, each by another client than before, and reads it back.
    fn change_all(&mut self, clients: &mut [Client], context: &str) {
        for id in 0..IDS {
            let name = format!("id-{id}");
            self.writes += 1;
            let count = clients.len();
            let client = &mut clients[(self.writes * 3) % count];
            let value = self.writes.to_string();
            let next = match self.writes % 5 {
                0 | 1 => {
                    put(client, SPACE, &name, &value, None).expect("a put");
                    Some(value)
                }
                2 => {
                    delete(client, &name);
                    None
                }
                _ => {
                    let before = self.expected[id].as_deref();
                    assert!(
                        swap_value(client, SPACE, &name, before, &value),
                        "{context}: {name} is {before:?}"
                    );
                    Some(value)
                }
            };
            let reader = &mut clients[self.writes % count];
            assert_eq!(get(reader, SPACE, &name), next, "{context}: {name}");
            self.expected[id] = next;
        }
    }

    fn assert_all(&self, context: &str) {
        let mut client = self.gateway.client();
        for (id, expected) in self.expected.iter().enumerate() {
            let found = get(&mut client, SPACE, &format!("id-{id}"));
            assert_eq!(found, *expected, "{context}: id-{id}");
        }
    }
}

fn delete(client: &mut Client, id: &str) {
    let request = DeleteRequest {
        namespace: SPACE.to_owned(),
        id: id.to_owned(),
        idempotency_token: None,
        predicate: None,
    };
    let _: DeleteResponse = client.unary(&method("Delete"), &request).expect("a delete");
}

#[test]
fn writes_keep_the_order_of_their_answers_while_the_wall_clock_steps() {
    for case in CASES {
        for shards in 1..=3 {
            let mut shifted = Shifted::start(case, shards);
            let mut clients = shifted.clients();
            for hours in [0, 1, 0, -1, 0, 1, -1] {
                shifted.set_clock(hours);
                let context = format!("{case:?}, {shards} shards, clock at {hours} h");
                shifted.change_all(&mut clients, &context);
            }
        }
    }
}

#[test]
fn writes_keep_the_order_of_their_answers_over_restarts_with_the_wall_clock_an_hour_on_or_two_back() {
    for case in &CASES[1..] {
        for shards in 1..=3 {
            let mut shifted = Shifted::start(*case, shards);
            for (round, hours) in [0, 1, -1].into_iter().enumerate() {
                shifted.set_clock(hours);
                let context = format!("{case:?}, {shards} shards, clock at {hours} h");
                if round > 0 {
                    let shards = (shards + round - 1) % 3 + 1;
                    shifted
                        .gateway
                        .restart(|options| options.shards = shards.try_into().expect("a shard"));
                    shifted.assert_all(&context);
                }
                let mut clients = shifted.clients();
                for _ in 0..2 {
                    shifted.change_all(&mut clients, &context);
                }
            }
        }
    }
}

#[test]
fn a_servers_namespaces_keep_the_order_over_restarts_with_the_wall_clock_an_hour_on_or_two_back() {
    for durability in ["best-effort", "eventual", "strong"] {
        let server = RedisServer::durable();
        let shift = Arc::new(AtomicI64::new(0));
        let gateway = Gateway::start_with(EmbeddedStore::Memory, 2, |options| {
            options.wall_clock = WallClock::shifted(shift.clone());
            let mut store = StoreOptions::plain("cache", StoreKind::Redis);
            store.address = Some(server.url());
            options.stores = vec![store];
        });
        gateway.create_namespace_at(SPACE, durability);
        assert!(super::homes::backend(&gateway, SPACE).starts_with("Redis"));
        let mut shifted = Shifted {
            gateway,
            shift,
            expected: vec![None; IDS],
            writes: 0,
        };
        for (round, hours) in [0, 1, -1].into_iter().enumerate() {
            shifted.set_clock(hours);
            let context = format!("{durability}, clock at {hours} h");
            if round > 0 {
                shifted.gateway.restart(|_| {});
                shifted.assert_all(&context);
            }
            let mut clients = shifted.clients();
            shifted.change_all(&mut clients, &context);
        }
    }
}

#[test]
fn stamps_of_records_that_only_the_log_has_are_not_fallen_below() {
    let shift = Arc::new(AtomicI64::new(HOUR_NS));
    let wall = WallClock::shifted(shift);
    let revived = revived_from_the_log(2, &wall, |gateway| {
        let mut client = gateway.client();
        for number in 0..20 {
            for namespace in ["ledger", "events"] {
                put(&mut client, namespace, &format!("id-{number}"), "early", None).expect("a put");
            }
        }
    });
    let mut client = revived.client();
    for number in 0..20 {
        let id = format!("id-{number}");
        for namespace in ["ledger", "events"] {
            assert_eq!(get(&mut client, namespace, &id).as_deref(), Some("early"));
            put(&mut client, namespace, &id, "late", None).expect("a put");
            assert_eq!(
                get(&mut client, namespace, &id).as_deref(),
                Some("late"),
                "{namespace} {id}"
            );
        }
    }
}

#[test]
fn a_token_without_a_time_is_ordered_as_no_token_and_one_with_a_time_by_that_time() {
    for case in CASES {
        let shifted = Shifted::start(case, 2);
        let mut clients = shifted.clients();
        let token = |text: &str, time_ns: Option<i64>| IdempotencyToken {
            generation_time: time_ns.map(|time_ns| prost_types::Timestamp {
                seconds: time_ns.div_euclid(1_000_000_000),
                nanos: time_ns.rem_euclid(1_000_000_000) as i32,
            }),
            token: text.as_bytes().to_vec(),
        };
        let now_ns = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.expect("a clock after 1970").as_nanos() as i64
        };
        shifted.set_clock(1);
        put(&mut clients[0], SPACE, "a", "at one", Some(token("t1", None))).expect("a put");
        shifted.set_clock(0);
        put(&mut clients[1], SPACE, "a", "at zero", Some(token("t2", None))).expect("a put");
        assert_eq!(
            get(&mut clients[2], SPACE, "a").as_deref(),
            Some("at zero"),
            "{case:?}"
        );
        // The limit of the drift counts from the wall clock, which is right again, not from the
        // stamps.
        let late = now_ns() - HOUR_NS / 2;
        put(
            &mut clients[3],
            SPACE,
            "b",
            "half an hour ago",
            Some(token("t3", Some(late))),
        )
        .expect("a put");
        assert_eq!(
            get(&mut clients[4], SPACE, "b").as_deref(),
            Some("half an hour ago")
        );
        let ahead = now_ns() + HOUR_NS / 2;
        put(
            &mut clients[5],
            SPACE,
            "b",
            "in half an hour",
            Some(token("t4", Some(ahead))),
        )
        .expect("a put");
        assert_eq!(
            get(&mut clients[6], SPACE, "b").as_deref(),
            Some("in half an hour")
        );
    }
}

#[test]
fn how_far_the_stamps_are_ahead_of_the_wall_clock_is_on_the_metrics_page() {
    let mut shifted = Shifted::start(CASES[3], 2);
    let ahead = |gateway: &Gateway| -> f64 {
        let (_, text) = http_get(gateway, "/metrics");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("prism_clock_ahead_seconds "));
        value.expect("the gauge").parse().expect("a number")
    };
    let mut clients = shifted.clients();
    shifted.change_all(&mut clients, "before");
    assert_eq!(ahead(&shifted.gateway), 0.0);
    shifted.set_clock(1);
    shifted.change_all(&mut clients, "an hour ahead");
    assert_eq!(ahead(&shifted.gateway), 0.0);
    shifted.set_clock(0);
    let seconds = ahead(&shifted.gateway);
    assert!((3_000.0..=3_600.0).contains(&seconds), "{seconds}");
    drop(clients);
    shifted.gateway.restart(|_| {});
    let seconds = ahead(&shifted.gateway);
    assert!(
        (3_000.0..=3_600.0).contains(&seconds),
        "after a restart: {seconds}"
    );
    shifted.set_clock(2);
    assert_eq!(ahead(&shifted.gateway), 0.0, "the wall clock is ahead again");
}
