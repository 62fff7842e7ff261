//! The PostgreSQL store against a real server: the behaviour suite, and its own particular
//! promises.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use prism_backends::api::keyvalue::{Reads, Upkeep, Writes};
use prism_backends::behavior::local::LocalHarness;
use prism_backends::offer::Acked;
use prism_backends::postgres::{Config, FORMAT, KeyValue, Postgres};
use prism_backends::server::{RawConfig, Share};
use prism_backends::{
    ItemRef, LogId, LogPosition, Mutation, NamespaceId, Operation, Outcome, PredicateRef, ScanQuery,
    Selection, StoreError, Version,
};

#[path = "servers/postgres.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest")]
mod server;

#[path = "servers/keyvalue.rs"]
#[allow(dead_code, reason = "each kind of server uses its part")]
mod keyvalue;

use keyvalue::{Found, NOW, SPACE, apply, get, item, mutation, run, swap, value};
use server::{Server, shared};

fn config(url: &str, pool_max: u32) -> Config {
    let raw = RawConfig {
        url: url.to_owned(),
        pool_max: Some(pool_max),
        ..RawConfig::default()
    };
    Config::check(&raw).expect("a configuration")
}

fn connect(url: &str, pool_max: u32) -> Postgres {
    let share = Share {
        shard: 0,
        shards: 1,
        cap: pool_max,
    };
    Postgres::new(&config(url, pool_max), share).expect("a store")
}

/// A store with its tables and a namespace.
async fn ready(url: &str, pool_max: u32) -> (Postgres, KeyValue) {
    let store = connect(url, pool_max);
    store.ensure(false).await.expect("tables");
    let keyvalue = KeyValue::new(&store);
    keyvalue.create_namespace(SPACE).await.expect("a namespace");
    (store, keyvalue)
}

#[test]
fn the_postgres_store_passes_the_suite() {
    let url = shared().database();
    run(async {
        let store = connect(&url, 4);
        store.ensure(false).await.expect("tables");
        let mut harness = LocalHarness::new(KeyValue::new(&store));
        prism_backends::behavior::run(&mut harness).await;
    });
}

#[test]
fn many_gateways_make_the_tables_at_once_and_a_newer_program_may_shut_out_an_older() {
    let server = shared();
    let url = server.database();
    let database = url.rsplit('/').next().expect("a name");
    run(async {
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let store = connect(&url, 1);
                tokio::task::spawn_local(async move { store.ensure(false).await })
            })
            .collect();
        for task in tasks {
            let observed = task.await.expect("no panic").expect("tables");
            assert_eq!((observed.format, observed.usable_from), (FORMAT, 1));
        }
        let store = connect(&url, 1);
        server.sql(database, "UPDATE prism.format SET version = 99");
        let newer = store
            .ensure(false)
            .await
            .expect("a newer format that this program may use");
        assert_eq!(newer.format, 99, "it is left as it is");
        server.sql(database, "UPDATE prism.format SET usable_from = 98");
        let error = store.ensure(false).await.expect_err("it is shut out");
        assert!(matches!(error, StoreError::WrongFormat { .. }), "{error}");
        assert!(error.to_string().contains("Use a newer one"), "{error}");
    });
}

#[test]
fn a_dry_run_changes_nothing() {
    let url = shared().database();
    run(async {
        let store = connect(&url, 1);
        assert_eq!(store.ensure(true).await.expect("a look").format, 0);
        assert_eq!(store.inspect().await.expect("a look").format, 0);
    });
}

#[test]
fn a_batch_whose_position_is_noted_is_skipped_and_its_swaps_get_their_first_verdict() {
    let url = shared().database();
    run(async {
        let (postgres, store) = ready(&url, 2).await;
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
        // The call that removes the row shows whether the batch takes place again.
        let delete = mutation("put", 6, Operation::Delete(PredicateRef::All));
        apply(&store, delete).await;
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
        assert!(matches!(&first[0], Outcome::Swapped(Some(_))), "{first:?}");
        assert!(
            matches!(&first[1], Outcome::NotSwapped(Some(item)) if item.item.value == b"a"),
            "{first:?}"
        );
        assert!(matches!(&first[3], Outcome::Swapped(Some(_))), "{first:?}");
        apply(&store, mutation("swap", 30, swap(Some(b"c"), b"d"))).await;
        store
            .apply(&batch, Some(&at(log, 20)), &mut outcomes)
            .await
            .expect("a batch");
        assert_eq!(
            outcomes[0],
            Outcome::Swapped(None),
            "the verdict, and no second effect"
        );
        let shown = |outcome: &Outcome| match outcome {
            Outcome::NotSwapped(Some(found)) => (found.item.value.clone(), found.version.is_some()),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(&first[1]), (b"a".to_vec(), true));
        assert_eq!(
            shown(&outcomes[1]),
            (b"a".to_vec(), false),
            "the item as it was then, which is gone"
        );
        assert_eq!(outcomes[3], Outcome::Swapped(None));
        assert_eq!(value(&store, "swap").await.as_deref(), Some(&b"d"[..]));

        let noted = postgres.positions(log).await.expect("positions");
        assert_eq!(noted, [at(log, 20)]);
        // Empty batches move the position, too.
        store
            .apply(&[], Some(&at(log, 25)), &mut outcomes)
            .await
            .expect("no mutations");
        assert_eq!(postgres.positions(log).await.expect("positions"), [at(log, 25)]);
        postgres.forget(log, 3).await.expect("a lane that is gone");
        assert_eq!(postgres.positions(log).await.expect("positions"), []);
        assert_eq!(
            postgres.positions(other).await.expect("positions"),
            [at(other, 10)]
        );
    });
}

#[test]
fn gateways_that_race_for_one_item_lose_no_increment_and_reuse_of_a_token_is_refused_at_each() {
    let url = shared().database();
    run(async {
        let (_, first) = ready(&url, 3).await;
        let other = KeyValue::new(&connect(&url, 3));
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
                            let next: u32 = std::str::from_utf8(&seen)
                                .expect("digits")
                                .parse()
                                .expect("a number");
                            let next = (next + 1).to_string();
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

        // Of two swaps that find no item one takes place; a token is remembered at every gateway.
        let pairs: Vec<_> = [(first.clone(), 70, b"x"), (other.clone(), 71, b"y")]
            .into_iter()
            .map(|(store, version, to)| {
                tokio::task::spawn_local(async move {
                    apply(&store, mutation("absent", version, swap(None, to))).await
                })
            })
            .collect();
        let mut swapped = 0;
        for pair in pairs {
            swapped += u32::from(matches!(pair.await.expect("no panic"), Outcome::Swapped(_)));
        }
        assert_eq!(swapped, 1);
        let reuse = Mutation {
            digest: Some(999),
            ..mutation("absent", 70, swap(None, b"z"))
        };
        assert_eq!(
            apply(&other, reuse).await,
            Outcome::Refused(StoreError::TokenReused)
        );
    });
}

#[test]
fn a_deleted_range_hides_what_was_under_way_beside_it_and_is_removed_in_steps() {
    let server = shared();
    let url = server.database();
    let database = url.rsplit('/').next().expect("a name");
    run(async {
        let (_, store) = ready(&url, 2).await;
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
        let count = || {
            server
                .sql(database, "SELECT count(*) FROM prism.item")
                .parse::<u32>()
                .expect("a number")
        };
        assert_eq!(count(), 2_000, "a batch removes a thousand rows");
        assert_eq!(
            get(&store, "large").await.expect("a page"),
            [],
            "and hides the others"
        );
        // The row that a put of another gateway would leave that had read before the delete
        // committed.
        server.sql(
            database,
            "INSERT INTO prism.item SELECT namespace, id, '\\x00', version, NULL, 0, 'late' FROM prism.item LIMIT 1",
        );
        assert_eq!(get(&store, "large").await.expect("a page"), []);
        let outcome = apply(&store, mutation("large", 5, swap(None, b"new"))).await;
        assert!(matches!(outcome, Outcome::Swapped(Some(version)) if version > Version::new(10, b"token")));
        while store.sweep(NOW, 500).await.expect("a sweep").more {}
        assert_eq!(count(), 1, "only what was written after it stays");
        assert_eq!(value(&store, "large").await.as_deref(), Some(&b"new"[..]));
        // Forgotten after the window, and with it the version that an older write would have met.
        let later = NOW.plus(store.remembers().window_ms);
        while store.sweep(later, 500).await.expect("a sweep").more {}
        assert_eq!(
            server.sql(database, "SELECT count(*) FROM prism.range_delete"),
            "0"
        );
    });
}

#[test]
fn a_dropped_namespace_is_gone_at_once_and_its_rows_with_the_sweep() {
    let server = shared();
    let url = server.database();
    let database = url.rsplit('/').next().expect("a name");
    run(async {
        let (_, store) = ready(&url, 2).await;
        let other = KeyValue::new(&connect(&url, 1));
        let items = [item(b"k", b"v")];
        apply(&store, mutation("id", 1, Operation::Put(&items))).await;
        apply(&store, mutation("id", 2, swap(Some(b"v"), b"w"))).await;
        other
            .drop_namespace(SPACE)
            .await
            .expect("a drop at another gateway");
        let dropped = StoreError::DroppedNamespace(SPACE);
        assert_eq!(get(&store, "id").await, Err(dropped.clone()));
        for operation in [
            Operation::Put(&items),
            Operation::Delete(PredicateRef::All),
            swap(None, b"x"),
        ] {
            let outcome = apply(&store, mutation("id", 3, operation)).await;
            assert_eq!(outcome, Outcome::Refused(dropped.clone()));
        }
        assert_eq!(store.create_namespace(SPACE).await, Err(dropped));
        while store.sweep(NOW, 500).await.expect("a sweep").more {}
        store.sweep(NOW, 500).await.expect("a sweep");
        let left = server.sql(
            database,
            "SELECT (SELECT count(*) FROM prism.item), (SELECT count(*) FROM prism.swap), state FROM prism.namespace",
        );
        assert_eq!(left, "0|0|2");
        let query = ScanQuery {
            namespace: NamespaceId(99),
            selection: Selection::default(),
        };
        let unknown = store.scan(&query, NOW, &mut Found::default()).await;
        assert_eq!(unknown, Err(StoreError::UnknownNamespace(NamespaceId(99))));
    });
}

#[test]
fn a_plain_client_reads_what_store_md_says() {
    let server = shared();
    let url = server.database();
    let database = url.rsplit('/').next().expect("a name");
    run(async {
        let (_, store) = ready(&url, 1).await;
        let items = [ItemRef {
            expires_at: Some(NOW.plus(1_000)),
            compression: 2,
            ..item(b"theme", b"dark")
        }];
        apply(
            &store,
            mutation("user-17", 1_700_000_000_000_000_000, Operation::Put(&items)),
        )
        .await;
        let text = include_str!("../src/postgres/STORE.md");
        let statement = text
            .split("```sql\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let seen = server.sql(database, statement.expect("an example"));
        assert_eq!(
            seen,
            "7|user-17|theme|dark|2023-11-14 22:13:20+00|2023-11-14 22:13:21+00|2"
        );
    });
}

/// Runs calls of many tasks over three connections, each of which checks its answer. A tenth of
/// them may be abandoned at some point. Returns the most sessions that were seen.
async fn hammer(server: &Server, url: &str, gives_up: bool) -> u32 {
    let (_, store) = ready(url, 3).await;
    for number in 0..40_u32 {
        let (id, text) = (format!("id {number}"), number.to_string());
        let items = [item(b"k", text.as_bytes())];
        apply(&store, mutation(&id, 1, Operation::Put(&items))).await;
    }
    let (mut most, mut tasks, mut random) = (0, Vec::new(), 0x9e37_79b9_7f4a_7c15_u64);
    for number in 0..2_000_u32 {
        let store = store.clone();
        let task = tokio::task::spawn_local(async move {
            let (id, text) = (format!("id {}", number % 40), (number % 40).to_string());
            let found = value(&store, &id).await;
            assert_eq!(
                found.as_deref(),
                Some(text.as_bytes()),
                "an answer of another call"
            );
            if number % 5 == 0 {
                let items = [item(b"k", text.as_bytes())];
                let put = mutation(&id, 2 + i64::from(number), Operation::Put(&items));
                assert_eq!(apply(&store, put).await, Outcome::Applied);
            }
        });
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let fate = random >> 40;
        if gives_up && fate % 10 == 0 {
            tokio::time::sleep(Duration::from_micros(fate % 2_000)).await;
            task.abort();
        }
        tasks.push(task);
        if number % 200 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let name = url.rsplit('/').next().expect("a name");
            let sessions = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'prism'"
            );
            most = most.max(server.sql("postgres", &sessions).parse().expect("a number"));
        }
    }
    let mut given_up = 0;
    for task in tasks {
        match task.await {
            Ok(()) => {}
            Err(error) => {
                assert!(error.is_cancelled(), "{error}");
                given_up += 1;
            }
        }
    }
    assert_eq!(given_up > 0, gives_up, "{given_up} were given up");
    most
}

#[test]
fn the_pool_never_holds_more_sessions_than_its_cap() {
    let most = run(async { hammer(shared(), &shared().database(), false).await });
    assert!((1..=3).contains(&most), "{most} sessions of 3");
}

#[test]
fn calls_that_are_given_up_on_their_way_leave_no_answer_to_others() {
    run(async { hammer(shared(), &shared().database(), true).await });
}

#[test]
fn a_server_that_is_killed_under_load_has_every_acknowledged_write_and_is_found_again() {
    let mut server = Server::start(&["synchronous_commit=off"]);
    let url = server.url("postgres");
    run(async {
        let (postgres, store) = ready(&url, 4).await;
        let facts = postgres.facts().await.expect("facts");
        assert!(
            facts.is_durable && !facts.is_read_only && facts.version >= 13,
            "{facts:?}"
        );
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
        let acknowledged = acknowledged.take();
        for id in &acknowledged {
            assert_eq!(
                value(&store, id).await.as_deref(),
                Some(id.as_bytes()),
                "{id} is lost"
            );
        }
        // A server that never syncs keeps no promise, whatever it acknowledges.
        assert_eq!(store.offer().acked, Acked::Durable);
        server.sql("postgres", "ALTER SYSTEM SET fsync = off");
        server.sql("postgres", "SELECT pg_reload_conf()");
        let fresh = KeyValue::new(&connect(&url, 1));
        let volatile = async {
            loop {
                fresh.sweep(NOW, 1).await.expect("a sweep");
                let again = connect(&url, 1);
                if !again.facts().await.expect("facts").is_durable {
                    return KeyValue::new(&again).offer();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let offer = tokio::time::timeout(Duration::from_secs(20), volatile)
            .await
            .expect("the new setting");
        assert_eq!(offer.acked, Acked::Volatile);
    });
}

#[test]
fn what_cannot_be_reached_or_entered_is_told_apart() {
    let server = shared();
    let error = |url: String| run(async move { connect(&url, 1).facts().await.expect_err("no facts") });
    let missing = error(server.url("nowhere"));
    assert!(
        matches!(&missing, StoreError::Unopenable { detail } if detail.contains("nowhere")),
        "{missing}"
    );
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    drop(silent);
    let closed = error(format!("postgresql://prism@127.0.0.1:{port}/postgres"));
    assert!(matches!(&closed, StoreError::Unreachable { .. }), "{closed}");
    let encrypted = error(format!("{}?sslmode=require", server.url("postgres")));
    assert!(
        matches!(&encrypted, StoreError::Unreachable { detail } if detail.contains("TLS")),
        "{encrypted}"
    );
}

#[test]
fn a_certificate_is_accepted_by_its_signer_and_by_nobody_else() {
    let server = Server::start(&["fsync=off"]);
    let url = server.url("postgres");
    let with = |url: &str, tls: &str| {
        let raw = RawConfig {
            url: url.to_owned(),
            tls: Some(tls.to_owned()),
            ..RawConfig::default()
        };
        let share = Share {
            shard: 0,
            shards: 1,
            cap: 1,
        };
        Postgres::new(&Config::check(&raw).expect("a configuration"), share).expect("a store")
    };
    let [right, wrong] = server.encrypt();
    let (right, wrong) = (right.display().to_string(), wrong.display().to_string());
    run(async {
        let store = with(&url, &right);
        store.ensure(false).await.expect("tables");
        let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'prism' AND ssl";
        assert_eq!(server.sql("postgres", encrypted), "1");
        // Also by the name, which the certificate does not have.
        let by_name = url.replace("127.0.0.1", "localhost");
        for (url, tls, why) in [
            (&url, &wrong, "UnknownIssuer"),
            (&by_name, &right, "not valid for name"),
        ] {
            let refusal = with(url, tls).ensure(false).await.expect_err("a refusal");
            let said = refusal.to_string();
            assert!(!refusal.is_retryable(), "{said}");
            for part in ["its certificate is not accepted", tls, why, "in tls"] {
                assert!(said.contains(part), "{part} is not in: {said}");
            }
        }
        let own = with(&url, "off");
        own.ensure(false).await.expect("the server takes both");
    });
}
