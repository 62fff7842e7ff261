//! The Redis store against a real server: the behaviour suite, and what is special to it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use prism_backends::api::keyvalue::{Upkeep, Writes};
use prism_backends::behavior::local::LocalHarness;
use prism_backends::offer::Acked;
use prism_backends::redis::{Config, KeyValue, Redis};
use prism_backends::server::{RawConfig, ServerStore, Share};
use prism_backends::sqlite::Presence;
use prism_backends::{
    ItemRef, LogId, LogPosition, Mutation, NamespaceId, Operation, Outcome, PredicateRef, StoreError, Version,
};

#[path = "servers/redis.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest")]
mod server;

#[path = "servers/keyvalue.rs"]
#[allow(dead_code, reason = "each kind of server uses its part")]
mod keyvalue;

use keyvalue::{NOW, SPACE, apply, get, item, mutation, run, swap, value};
use server::Server;

const CATALOG: u128 = 0x0123_4567_89ab_cdef;

fn connect(url: &str, pool_max: u32) -> Redis {
    let raw = RawConfig {
        url: url.to_owned(),
        pool_max: Some(pool_max),
        ..RawConfig::default()
    };
    let share = Share {
        shard: 0,
        shards: 1,
        cap: pool_max,
    };
    Redis::open(&Config::check(&raw).expect("a configuration"), share).expect("a store")
}

/// A store with a namespace.
async fn ready(url: &str, pool_max: u32) -> (Redis, KeyValue) {
    let store = connect(url, pool_max);
    assert_eq!(store.prepare(CATALOG).await, Ok(true));
    let keyvalue = KeyValue::new(&store);
    keyvalue.create_namespace(SPACE).await.expect("a namespace");
    (store, keyvalue)
}

#[test]
fn the_redis_store_passes_the_suite() {
    let server = Server::start(&[]);
    run(async {
        let store = connect(&server.url(), 4);
        store.prepare(CATALOG).await.expect("a store");
        let mut harness = LocalHarness::new(KeyValue::new(&store));
        prism_backends::behavior::run(&mut harness).await;
    });
}

#[test]
fn a_server_belongs_to_one_catalog_and_a_layout_that_is_not_known_is_left_alone() {
    let server = Server::start(&[]);
    run(async {
        let (store, keyvalue) = ready(&server.url(), 1).await;
        assert_eq!(store.prepare(CATALOG).await, Ok(true));
        assert_eq!(connect(&server.url(), 1).prepare(CATALOG + 1).await, Ok(false));
        assert_eq!(store.presence(SPACE).await, Ok(Presence::Live));
        assert_eq!(store.presence(NamespaceId(8)).await, Ok(Presence::Absent));
        keyvalue.drop_namespace(SPACE).await.expect("a drop");
        assert_eq!(store.presence(SPACE).await, Ok(Presence::Dropped));
        server.ask(&["SET", "prism:layout", "2"]);
        let error = store.prepare(CATALOG).await.expect_err("a newer layout");
        assert!(error.to_string().contains("Use a newer one"), "{error}");
    });
}

#[test]
fn settings_decide_what_an_acknowledgement_means() {
    let cases: [(&[&str], Acked, &str); 6] = [
        (
            &[],
            Acked::Volatile,
            "runs without appendonly, so what it acknowledged may be lost; set appendonly yes",
        ),
        (
            &["--appendonly", "yes", "--appendfsync", "no"],
            Acked::Volatile,
            "set appendfsync everysec or always",
        ),
        (
            &["--appendonly", "yes", "--appendfsync", "everysec"],
            Acked::DurableOnSync,
            "set appendfsync always",
        ),
        (
            &["--appendonly", "yes", "--appendfsync", "always"],
            Acked::Durable,
            "",
        ),
        (
            &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--maxmemory",
                "100mb",
                "--maxmemory-policy",
                "allkeys-lru",
            ],
            Acked::Volatile,
            "set maxmemory-policy noeviction",
        ),
        (
            &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--rename-command",
                "CONFIG",
                "",
            ],
            Acked::Volatile,
            "allow CONFIG GET to its user",
        ),
    ];
    for (settings, acked, remedy) in cases {
        let server = Server::start(settings);
        run(async {
            let store = connect(&server.url(), 1);
            assert_eq!(store.shortfall(Acked::Durable), None, "nobody has looked yet");
            assert_eq!(store.facts().await.expect("facts").acked(), acked, "{settings:?}");
            assert_eq!(KeyValue::new(&store).offer().acked, acked);
            assert_eq!(store.shortfall(acked), None, "{settings:?}");
            let said = store.shortfall(Acked::Durable).unwrap_or_default();
            assert_eq!(said.is_empty(), acked == Acked::Durable, "{said}");
            assert!(said.contains(remedy), "{settings:?}: {said}");
            assert!(
                said.is_empty() || said.starts_with("redis at 127.0.0.1:"),
                "{said}"
            );
        });
    }
    // A setting that is changed while the gateway runs is seen.
    let server = Server::durable();
    run(async {
        let store = connect(&server.url(), 1);
        assert_eq!(store.facts().await.expect("facts").acked(), Acked::Durable);
        server.ask(&["CONFIG", "SET", "appendfsync", "everysec"]);
        store.look_after().await.expect("a look");
        assert!(store.shortfall(Acked::Durable).is_some());
    });
}

#[test]
fn a_batch_whose_position_is_noted_is_skipped_and_its_swaps_get_their_first_verdict() {
    let server = Server::start(&[]);
    run(async {
        let (redis, store) = ready(&server.url(), 2).await;
        let (log, other) = (LogId(u128::MAX - 5), LogId(7));
        let at = |log, lsn| LogPosition {
            log,
            lane: 3,
            namespace: SPACE,
            lsn,
        };
        let mut outcomes = Vec::new();
        let one = [item(b"k", b"1")];
        let put = [mutation("put", 5, Operation::Put(&one))];
        store
            .apply(&put, Some(&at(log, 10)), &mut outcomes)
            .await
            .expect("a batch");
        apply(&store, mutation("put", 6, Operation::Delete(PredicateRef::All))).await;
        let cases = [
            (10, log, false),
            (9, log, false),
            (10, other, true),
            (11, log, true),
        ];
        for (number, (lsn, log, again)) in cases.into_iter().enumerate() {
            let version = 100 + 2 * number as i64;
            let newer = [mutation("put", version, Operation::Put(&one))];
            store
                .apply(&newer, Some(&at(log, lsn)), &mut outcomes)
                .await
                .expect("a batch");
            assert_eq!(outcomes, [Outcome::Applied]);
            assert_eq!(value(&store, "put").await.is_some(), again, "{lsn} of {log:?}");
            let delete = mutation("put", version + 1, Operation::Delete(PredicateRef::All));
            apply(&store, delete).await;
        }
        let batch = [
            mutation("swap", 20, swap(None, b"a")),
            mutation("swap", 21, swap(Some(b"wrong"), b"b")),
            mutation("swap", 22, Operation::Delete(PredicateRef::Keys(&[b"other"]))),
            mutation("swap", 23, swap(Some(b"a"), b"c")),
        ];
        let mut first = Vec::new();
        store
            .apply(&batch, Some(&at(log, 20)), &mut first)
            .await
            .expect("a batch");
        apply(&store, mutation("swap", 30, swap(Some(b"c"), b"d"))).await;
        store
            .apply(&batch, Some(&at(log, 20)), &mut outcomes)
            .await
            .expect("a batch");
        let shown = |outcome: &Outcome| match outcome {
            Outcome::NotSwapped(Some(found)) => (found.item.value.clone(), found.version.is_some()),
            other => panic!("{other:?}"),
        };
        assert!(matches!(&first[0], Outcome::Swapped(Some(_))), "{first:?}");
        assert_eq!(shown(&first[1]), (b"a".to_vec(), true));
        assert_eq!(
            outcomes[0],
            Outcome::Swapped(None),
            "the verdict, and no second effect"
        );
        assert_eq!(
            shown(&outcomes[1]),
            (b"a".to_vec(), false),
            "the item as it was then, which is gone"
        );
        assert_eq!(outcomes[3], Outcome::Swapped(None));
        assert_eq!(value(&store, "swap").await.as_deref(), Some(&b"d"[..]));
        let noted = redis.position(log, 3, SPACE).await.expect("a position");
        assert_eq!(noted, Some(at(log, 20)));
        // Empty batches move the position, too.
        store
            .apply(&[], Some(&at(log, 25)), &mut outcomes)
            .await
            .expect("no mutations");
        assert_eq!(redis.position(log, 3, SPACE).await, Ok(Some(at(log, 25))));
        redis.forget(log, 3, SPACE).await.expect("a lane that is gone");
        assert_eq!(redis.position(log, 3, SPACE).await, Ok(None));
        assert_eq!(redis.position(other, 3, SPACE).await, Ok(Some(at(other, 10))));
    });
}

#[test]
fn gateways_that_race_for_one_item_lose_no_increment_and_reuse_of_a_token_is_refused_at_each() {
    let server = Server::start(&[]);
    run(async {
        let (_, first) = ready(&server.url(), 2).await;
        let other = KeyValue::new(&connect(&server.url(), 2));
        let start = [item(b"k", b"0")];
        apply(&first, mutation("n", 1, Operation::Put(&start))).await;
        let racers: Vec<_> = (0..6_i64)
            .map(|racer| {
                let store = if racer % 2 == 0 {
                    first.clone()
                } else {
                    other.clone()
                };
                tokio::task::spawn_local(async move {
                    for step in 0..15 {
                        for attempt in 0.. {
                            let seen = value(&store, "n").await.expect("the counter");
                            let next = std::str::from_utf8(&seen).expect("digits");
                            let next = (next.parse::<u32>().expect("a number") + 1).to_string();
                            let version = 1_000_000 * (racer + 1) + 1_000 * step + attempt;
                            let swap = mutation("n", version, swap(Some(&seen), next.as_bytes()));
                            if let Outcome::Swapped(_) = apply(&store, swap).await {
                                break;
                            }
                            assert!(attempt < 900, "nobody gets ahead");
                        }
                    }
                })
            })
            .collect();
        for racer in racers {
            racer.await.expect("no panic");
        }
        assert_eq!(value(&first, "n").await.as_deref(), Some(&b"90"[..]));
        apply(&first, mutation("token", 70, swap(None, b"x"))).await;
        let reuse = Mutation {
            digest: Some(999),
            ..mutation("token", 70, swap(None, b"z"))
        };
        assert_eq!(
            apply(&other, reuse).await,
            Outcome::Refused(StoreError::TokenReused)
        );
    });
}

#[test]
fn large_ranges_are_hidden_at_once_and_go_in_steps_and_nothing_is_left_of_them() {
    let server = Server::start(&[]);
    run(async {
        let (_, store) = ready(&server.url(), 2).await;
        let keys: Vec<Vec<u8>> = (0..3_000_u32)
            .map(|number| number.to_be_bytes().to_vec())
            .collect();
        for thousand in keys.chunks(1_000) {
            let items: Vec<_> = thousand.iter().map(|key| item(key, b"v")).collect();
            apply(&store, mutation("large", 1, Operation::Put(&items))).await;
        }
        apply(
            &store,
            mutation("large", 10, Operation::Delete(PredicateRef::All)),
        )
        .await;
        let count = || server.ask(&["HLEN", "prism:{7}:m:large"]);
        assert_eq!(count(), ":2000", "a script removes a thousand");
        assert_eq!(
            get(&store, "large").await.expect("a page"),
            [],
            "and hides the others"
        );
        let outcome = apply(&store, mutation("large", 5, swap(None, b"new"))).await;
        assert!(matches!(outcome, Outcome::Swapped(Some(version)) if version > Version::new(10, b"token")));
        while store.sweep(NOW, 300).await.expect("a sweep").more {}
        assert_eq!(count(), ":1", "only what was written after it stays");
        assert_eq!(value(&store, "large").await.as_deref(), Some(&b"new"[..]));
        let later = NOW.plus(store.remembers().window_ms);
        while store.sweep(later, 300).await.expect("a sweep").more {}
        assert_eq!(
            server.ask(&["EXISTS", "prism:{7}:r:large"]),
            ":0",
            "forgotten after the window"
        );
        apply(
            &store,
            mutation("large", 20, Operation::Delete(PredicateRef::Keys(&[b"k"]))),
        )
        .await;
        let expiring = [ItemRef {
            expires_at: Some(later.plus(5)),
            ..item(b"k", b"v")
        }];
        apply(&store, mutation("short", 20, Operation::Put(&expiring))).await;
        // First it expires, then its version is forgotten, too.
        for _ in 0..2 {
            let end = later.plus(3 * store.remembers().window_ms);
            while store.sweep(end, 300).await.expect("a sweep").more {}
            let end = end.plus(3 * store.remembers().window_ms);
            while store.sweep(end, 300).await.expect("a sweep").more {}
        }
        // But for the answer to the swap, whose life is the server's matter.
        assert_eq!(server.ask(&["KEYS", "prism:{7}:[^s]*"]), "prism:{7}:ns");
        let life = "return redis.call('PTTL', redis.call('KEYS', 'prism:{7}:s:*')[1])";
        let life = server.ask(&["EVAL", life, "0"]);
        let life: u64 = life.trim_start_matches(':').parse().expect("a number");
        assert!((1..=600_000).contains(&life), "{life}");
    });
}

#[test]
fn a_dropped_namespace_is_gone_at_once_and_its_keys_with_the_sweep() {
    let server = Server::start(&[]);
    run(async {
        let (_, store) = ready(&server.url(), 2).await;
        let other = KeyValue::new(&connect(&server.url(), 1));
        let items = [item(b"k", b"v")];
        for id in ["one", "two", "three"] {
            apply(&store, mutation(id, 1, Operation::Put(&items))).await;
        }
        apply(&store, mutation("one", 2, Operation::Delete(PredicateRef::All))).await;
        other
            .drop_namespace(SPACE)
            .await
            .expect("a drop at another gateway");
        let dropped = StoreError::DroppedNamespace(SPACE);
        assert_eq!(get(&store, "one").await, Err(dropped.clone()));
        for operation in [
            Operation::Put(&items),
            Operation::Delete(PredicateRef::All),
            swap(None, b"x"),
        ] {
            let outcome = apply(&store, mutation("one", 3, operation)).await;
            assert_eq!(outcome, Outcome::Refused(dropped.clone()));
        }
        assert_eq!(store.create_namespace(SPACE).await, Err(dropped));
        while store.sweep(NOW, 1).await.expect("a sweep").more {}
        let mut left: Vec<String> = server.ask(&["KEYS", "*"]).split(',').map(str::to_owned).collect();
        left.sort();
        assert_eq!(left, ["prism:layout", "prism:owner", "prism:{7}:ns"]);
        let unknown = Mutation {
            namespace: NamespaceId(99),
            ..mutation("one", 1, Operation::Put(&items))
        };
        let mut outcomes = Vec::new();
        store.create_namespace(NamespaceId(8)).await.expect("another");
        let beside = Mutation {
            namespace: NamespaceId(8),
            ..mutation("one", 1, Operation::Put(&items))
        };
        store
            .apply(&[unknown, beside], None, &mut outcomes)
            .await
            .expect("a batch of two namespaces");
        let refused = Outcome::Refused(StoreError::UnknownNamespace(NamespaceId(99)));
        assert_eq!(outcomes, [refused, Outcome::Applied]);
    });
}

#[test]
fn a_plain_client_reads_what_store_md_says() {
    let server = Server::start(&[]);
    run(async {
        let (_, store) = ready(&server.url(), 1).await;
        let items = [
            ItemRef {
                expires_at: Some(NOW.plus(1_000)),
                compression: 2,
                ..item(b"theme", b"dark")
            },
            item(b"lang", b"de"),
        ];
        apply(
            &store,
            mutation("user-17", 1_700_000_000_000_000_000, Operation::Put(&items)),
        )
        .await;
        let text = include_str!("../src/redis/STORE.md");
        let block = text
            .split("```console\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let mut commands = 0;
        let mut lines = block.expect("an example").lines().peekable();
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("> ").expect("a command");
            let mut expected = Vec::new();
            while let Some(answer) = lines.next_if(|line| !line.starts_with("> ")) {
                expected.push(answer);
            }
            let words: Vec<&str> = command.split(' ').collect();
            assert_eq!(server.ask(&words), expected.join(","), "{command}");
            commands += 1;
        }
        assert!(commands >= 4, "{commands} commands");
    });
}

#[test]
fn a_server_that_forgets_its_scripts_is_given_them_again() {
    let server = Server::start(&[]);
    run(async {
        let (_, store) = ready(&server.url(), 1).await;
        server.ask(&["SCRIPT", "FLUSH"]);
        let items = [item(b"k", b"v")];
        assert_eq!(
            apply(&store, mutation("id", 1, Operation::Put(&items))).await,
            Outcome::Applied
        );
        server.ask(&["SCRIPT", "FLUSH"]);
        assert_eq!(value(&store, "id").await.as_deref(), Some(&b"v"[..]));
    });
}

#[test]
fn a_server_without_room_says_so_and_nothing_was_done() {
    let server = Server::start(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
    run(async {
        let (_, store) = ready(&server.url(), 1).await;
        let large = vec![7; 512 * 1024];
        let mut full = None;
        for number in 0..40 {
            let (id, items) = (format!("id {number}"), [item(b"k", &large)]);
            let put = [mutation(&id, 1, Operation::Put(&items))];
            if let Err(error) = store.apply(&put, None, &mut Vec::new()).await {
                assert_eq!(get(&store, &id).await.expect("a page"), []);
                full = Some(error);
                break;
            }
        }
        let error = full.expect("4 MB are full");
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(
            value(&store, "id 0").await,
            Some(large),
            "what is there can be read"
        );
    });
}

/// 20,000 calls of many tasks over three connections, each of which checks its answer, a tenth of
/// them given up at some point of their way.
#[test]
fn calls_that_are_given_up_on_their_way_leave_no_answer_to_others() {
    let server = Server::start(&[]);
    run(async {
        let (_, store) = ready(&server.url(), 3).await;
        for number in 0..40_u32 {
            let (id, text) = (format!("id {number}"), number.to_string());
            let items = [item(b"k", text.as_bytes())];
            apply(&store, mutation(&id, 1, Operation::Put(&items))).await;
        }
        let (mut tasks, mut random) = (Vec::new(), 0x9e37_79b9_7f4a_7c15_u64);
        for number in 0..20_000_u32 {
            let store = store.clone();
            let task = tokio::task::spawn_local(async move {
                let (id, text) = (format!("id {}", number % 40), (number % 40).to_string());
                if number % 5 == 0 {
                    let items = [item(b"k", text.as_bytes())];
                    let put = mutation(&id, 2 + i64::from(number), Operation::Put(&items));
                    assert_eq!(apply(&store, put).await, Outcome::Applied);
                } else {
                    let found = value(&store, &id).await;
                    assert_eq!(
                        found.as_deref(),
                        Some(text.as_bytes()),
                        "an answer of another call"
                    );
                }
            });
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let fate = random >> 40;
            if fate.is_multiple_of(10) {
                for _ in 0..fate % 7 {
                    tokio::task::yield_now().await;
                }
                task.abort();
            }
            tasks.push(task);
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_micros(fate % 500)).await;
            }
        }
        let mut given_up = 0;
        for task in tasks {
            if let Err(error) = task.await {
                assert!(error.is_cancelled(), "{error}");
                given_up += 1;
            }
        }
        assert!(given_up > 1_000, "{given_up} were given up");
        let clients = server.ask(&["INFO", "clients"]);
        let connected = clients
            .lines()
            .find_map(|line| line.strip_prefix("connected_clients:"));
        let connected: u32 = connected.expect("a count").trim().parse().expect("a number");
        // The client that asks is one of them.
        assert!((2..=4).contains(&connected), "{connected} connections of 3");
    });
}

#[test]
fn a_server_that_is_killed_under_load_has_every_acknowledged_write_and_is_found_again() {
    let mut server = Server::durable();
    let url = server.url();
    run(async {
        let (_, store) = ready(&url, 2).await;
        let acknowledged = Rc::new(RefCell::new(Vec::new()));
        let (mut unreachable, mut unknown) = (0, 0);
        for round in 0..3_u32 {
            let writers: Vec<_> = (0..4_u32)
                .map(|writer| {
                    let (store, acknowledged) = (store.clone(), acknowledged.clone());
                    tokio::task::spawn_local(async move {
                        for number in 0.. {
                            let id = format!("{round} {writer} {number}");
                            let items = [item(b"k", id.as_bytes())];
                            let put = [mutation(&id, 1, Operation::Put(&items))];
                            match store.apply(&put, None, &mut Vec::new()).await {
                                Ok(()) => acknowledged.borrow_mut().push(id),
                                Err(error) => return error,
                            }
                        }
                        unreachable!("a writer stops with an error")
                    })
                })
                .collect();
            let before = acknowledged.borrow().len();
            while acknowledged.borrow().len() < before + 100 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            server.kill();
            for writer in writers {
                match writer.await.expect("no panic") {
                    StoreError::Unreachable { .. } => unreachable += 1,
                    StoreError::Io { .. } => unknown += 1,
                    error => panic!("{error:?}"),
                }
            }
            let error = get(&store, "0 0 0").await.expect_err("nobody is there");
            assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
            server.resume();
            while get(&store, "0 0 0").await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        println!("{unreachable} writes were never sent, {unknown} have an unknown outcome");
        for id in &acknowledged.take() {
            assert_eq!(
                value(&store, id).await.as_deref(),
                Some(id.as_bytes()),
                "{id} is lost"
            );
        }
    });
}

#[test]
fn what_cannot_be_reached_or_entered_is_told_apart() {
    let server = Server::start(&["--requirepass", "geheim"]);
    let port = server.url();
    let address = port.trim_start_matches("redis://");
    let error = |url: String| run(async move { connect(&url, 1).facts().await.expect_err("no facts") });
    for url in [format!("redis://:falsch@{address}"), port.clone()] {
        let refused = error(url);
        assert!(matches!(refused, StoreError::Unopenable { .. }), "{refused}");
        assert!(!refused.to_string().contains("falsch"), "{refused}");
    }
    let entered = format!("redis://:geheim@{address}");
    run(async { connect(&entered, 1).facts().await.expect("the right password") });
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = silent.local_addr().expect("an address");
    let late = error(format!("redis://{place}"));
    assert!(
        matches!(&late, StoreError::Unreachable { detail } if detail.contains("no connection within")),
        "{late}"
    );
    drop(silent);
    let closed = error(format!("redis://{place}"));
    assert!(matches!(closed, StoreError::Unreachable { .. }), "{closed}");
}
