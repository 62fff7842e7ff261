//! Queues on a real PostgreSQL: the behaviour suite, and what only a store that many gateways share
//! must keep.

use std::collections::BTreeSet;

use prism_backends::api::queue::{
    Act, Attempt, Change, Held, NewMessage, Outcome, Reads, Receive, Shown, State, Terms, Upkeep, Which,
    Writes,
};
use prism_backends::behavior::{join_all, queue::local::LocalHarness};
use prism_backends::postgres::{Config, Postgres, Queue};
use prism_backends::server::{RawConfig, Share};
use prism_backends::{LogId, LogPosition, NamespaceId, StoreError, UnixMillis};

#[path = "servers/postgres.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest")]
mod server;

#[path = "servers/keyvalue.rs"]
#[allow(dead_code, reason = "each kind of server uses its part")]
mod keyvalue;

use keyvalue::run;
use server::shared;

const SPACE: NamespaceId = NamespaceId(9);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const PLAIN: Terms = Terms {
    ordered: false,
    replay: false,
    ttl_ms: None,
    retention_ms: 86_400_000,
};

/// A gateway's own store on a database.
async fn gateway(url: &str, pool_max: u32) -> (Postgres, Queue) {
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
    let config = Config::check(&raw).expect("a configuration");
    let store = Postgres::new(&config, share).expect("a store");
    store.ensure(false).await.expect("tables");
    let queue = Queue::new(&store);
    queue.create_namespace(SPACE).await.expect("a namespace");
    (store, queue)
}

fn message<'a>(id: &'a [u8], key: &'a str) -> NewMessage<'a> {
    NewMessage {
        id,
        digest: Some(7),
        key,
        delay_ms: 0,
        attempts_max: 10,
        attributes: b"",
        payload: id,
    }
}

fn change(terms: Terms, act: Act<'_>) -> Change<'_> {
    Change {
        namespace: SPACE,
        terms,
        at: NOW,
        act,
    }
}

async fn apply(queue: &Queue, batch: &[Change<'_>], lsn: Option<u64>) -> Vec<Outcome> {
    let at = lsn.map(|lsn| LogPosition {
        log: LogId(5),
        lane: 1,
        namespace: SPACE,
        lsn,
    });
    let mut outcomes = Vec::new();
    queue
        .apply(batch, at.as_ref(), &mut outcomes)
        .await
        .expect("a batch");
    outcomes
}

type Taken = (Vec<u8>, Attempt);

async fn receive(queue: &Queue, call: &[u8], max: usize, lease_ms: u64, now: UnixMillis) -> Vec<Taken> {
    let mut taken = Vec::new();
    let mut sink = |shown: &Shown<'_>| {
        assert_eq!(shown.payload, shown.id, "what was sent with it");
        taken.push((shown.id.to_vec(), shown.item.attempt()));
        true
    };
    let receive = Receive {
        namespace: SPACE,
        call,
        messages_max: max,
        lease_ms,
    };
    queue.receive(&receive, now, &mut sink).await.expect("an answer");
    taken
}

fn held(taken: &Taken) -> Held<'_> {
    Held {
        id: &taken.0,
        attempt: taken.1,
    }
}

async fn numbers(queue: &Queue, now: UnixMillis) -> [u64; 5] {
    let counts = queue.stats(SPACE, now).await.expect("numbers");
    counts.map(|count| count.messages)
}

/// A sender or a worker, and the ids that it has done.
type Task<'a> = std::pin::Pin<Box<dyn Future<Output = Vec<Vec<u8>>> + 'a>>;

#[test]
fn the_postgres_store_passes_the_suite_of_queues() {
    let url = shared().database();
    run(async {
        let (_, queue) = gateway(&url, 4).await;
        let mut harness = LocalHarness::new(queue);
        prism_backends::behavior::queue::run(&mut harness).await;
    });
}

#[test]
fn a_batch_of_the_log_that_comes_again_has_no_effect_and_answers_as_of_now() {
    let url = shared().database();
    run(async {
        let (postgres, queue) = gateway(&url, 2).await;
        let first = [
            change(PLAIN, Act::Send(message(b"a", ""))),
            change(PLAIN, Act::Send(message(b"b", ""))),
        ];
        assert_eq!(
            apply(&queue, &first, Some(10)).await,
            [Outcome::Sent, Outcome::Sent]
        );
        let taken = receive(&queue, b"", 2, 60_000, NOW).await;
        let acks = [change(PLAIN, Act::Ack(held(&taken[0])))];
        assert_eq!(apply(&queue, &acks, Some(11)).await, [Outcome::Acked]);
        // Both batches again, and one whose ids nobody remembers any more.
        assert_eq!(
            apply(&queue, &first, Some(10)).await,
            [Outcome::Repeat, Outcome::Repeat]
        );
        assert_eq!(apply(&queue, &acks, Some(11)).await, [Outcome::Acked]);
        let forgotten = [change(PLAIN, Act::Send(message(b"c", "")))];
        apply(&queue, &forgotten, Some(9)).await;
        assert_eq!(numbers(&queue, NOW).await, [0, 0, 1, 0, 0], "one is leased still");
        // A call that moves messages moves them once.
        let dead = [change(
            PLAIN,
            Act::Delete {
                call: b"call",
                digest: None,
                which: Which::Ids(&[b"nobody"]),
            },
        )];
        assert_eq!(apply(&queue, &dead, Some(12)).await, [Outcome::Moved(0, false)]);
        apply(&queue, &[], Some(20)).await;
        let noted = postgres.positions(LogId(5)).await.expect("positions");
        assert_eq!(noted.iter().map(|at| at.lsn).collect::<Vec<_>>(), [20]);
    });
}

#[test]
fn workers_of_two_gateways_get_each_message_once_and_the_receipts_of_the_other_count() {
    const MESSAGES: usize = 400;
    let url = shared().database();
    run(async {
        let (_, one) = gateway(&url, 4).await;
        let (_, other) = gateway(&url, 4).await;
        let ids: Vec<Vec<u8>> = (0..MESSAGES as u32)
            .map(|number| number.to_be_bytes().to_vec())
            .collect();
        let sender = |queue: &Queue, half: usize| {
            let (queue, ids) = (queue.clone(), ids.clone());
            async move {
                for id in ids.iter().skip(half).step_by(2) {
                    let sent = apply(&queue, &[change(PLAIN, Act::Send(message(id, "")))], None).await;
                    assert_eq!(sent, [Outcome::Sent]);
                }
                Vec::new()
            }
        };
        let worker = |queue: &Queue, acks_at: &Queue| {
            let (queue, acks_at) = (queue.clone(), acks_at.clone());
            async move {
                let mut done = Vec::new();
                let mut idle = 0;
                while idle < 50 {
                    let taken = receive(&queue, b"", 7, 600_000, NOW).await;
                    idle = if taken.is_empty() { idle + 1 } else { 0 };
                    for taken in taken {
                        let acked = [change(PLAIN, Act::Ack(held(&taken)))];
                        assert_eq!(apply(&acks_at, &acked, None).await, [Outcome::Acked]);
                        done.push(taken.0);
                    }
                }
                done
            }
        };
        let mut tasks: Vec<Task<'_>> = vec![Box::pin(sender(&one, 0)), Box::pin(sender(&other, 1))];
        for _ in 0..4 {
            tasks.push(Box::pin(worker(&one, &other)));
            tasks.push(Box::pin(worker(&other, &one)));
        }
        let mut done: Vec<Vec<u8>> = join_all(tasks).await.into_iter().flatten().collect();
        done.extend(
            receive(&one, b"", MESSAGES, 600_000, NOW)
                .await
                .into_iter()
                .map(|taken| taken.0),
        );
        let once: BTreeSet<&Vec<u8>> = done.iter().collect();
        assert_eq!((done.len(), once.len()), (MESSAGES, MESSAGES), "each once");
    });
}

#[test]
fn of_a_key_two_gateways_never_have_two_and_its_order_holds() {
    const EACH: u32 = 25;
    let url = shared().database();
    run(async {
        let ordered = Terms {
            ordered: true,
            ..PLAIN
        };
        let (_, one) = gateway(&url, 4).await;
        let (_, other) = gateway(&url, 4).await;
        for number in 0..EACH {
            for key in ["x", "y", "z"] {
                let id = [key.as_bytes(), &number.to_be_bytes()].concat();
                let queue = if number % 2 == 0 { &one } else { &other };
                let sent = apply(queue, &[change(ordered, Act::Send(message(&id, key)))], None).await;
                assert_eq!(sent, [Outcome::Sent]);
            }
        }
        let seen = std::cell::RefCell::new(Vec::new());
        let worker = |queue: Queue| {
            let seen = &seen;
            async move {
                while seen.borrow().len() < 3 * EACH as usize {
                    for taken in receive(&queue, b"", 2, 600_000, NOW).await {
                        seen.borrow_mut().push(taken.0.clone());
                        let acked = [change(ordered, Act::Ack(held(&taken)))];
                        assert_eq!(apply(&queue, &acked, None).await, [Outcome::Acked]);
                    }
                }
            }
        };
        join_all(
            (0..6)
                .map(|number| {
                    worker(if number % 2 == 0 {
                        one.clone()
                    } else {
                        other.clone()
                    })
                })
                .collect(),
        )
        .await;
        for key in [b'x', b'y', b'z'] {
            let own: Vec<Vec<u8>> = seen.borrow().iter().filter(|id| id[0] == key).cloned().collect();
            assert!(own.is_sorted(), "{} in order", char::from(key));
            assert_eq!(own.len(), EACH as usize);
        }
    });
}

#[test]
fn the_same_call_at_two_gateways_is_one() {
    let url = shared().database();
    run(async {
        let (_, one) = gateway(&url, 2).await;
        let (_, other) = gateway(&url, 2).await;
        for number in 0..40_u32 {
            let id = number.to_be_bytes();
            let batch = [change(PLAIN, Act::Send(message(&id, "")))];
            let calls = [one.clone(), other.clone(), one.clone()].map(|queue| {
                let batch = &batch;
                async move { apply(&queue, batch, None).await.remove(0) }
            });
            let outcomes = join_all(calls.into_iter().collect()).await;
            let sent = outcomes
                .iter()
                .filter(|outcome| **outcome == Outcome::Sent)
                .count();
            let repeats = outcomes
                .iter()
                .filter(|outcome| **outcome == Outcome::Repeat)
                .count();
            assert_eq!((sent, repeats), (1, 2));
        }
        let reused = NewMessage {
            digest: Some(8),
            ..message(&[0, 0, 0, 0], "")
        };
        let refused = apply(&other, &[change(PLAIN, Act::Send(reused))], None).await;
        assert_eq!(refused, [Outcome::Refused(StoreError::TokenReused)]);
        let calls = [one.clone(), other.clone()]
            .map(|queue| async move { receive(&queue, b"a worker", 5, 60_000, NOW).await });
        let given = join_all(calls.into_iter().collect()).await;
        assert_eq!(given[0].len(), 5);
        assert_eq!(given[0], given[1], "the same messages and receipts");
    });
}

#[test]
fn a_dropped_queue_leaves_nothing_and_takes_nothing() {
    let server = shared();
    let url = server.database();
    run(async {
        let (postgres, queue) = gateway(&url, 2).await;
        for number in 0..20_u32 {
            apply(
                &queue,
                &[change(PLAIN, Act::Send(message(&number.to_be_bytes(), "")))],
                None,
            )
            .await;
        }
        let taken = receive(&queue, b"", 1, 60_000, NOW).await;
        apply(&queue, &[change(PLAIN, Act::Ack(held(&taken[0])))], None).await;
        queue.drop_namespace(SPACE).await.expect("dropped");
        let refused = apply(&queue, &[change(PLAIN, Act::Send(message(b"late", "")))], None).await;
        assert_eq!(refused, [Outcome::Refused(StoreError::DroppedNamespace(SPACE))]);
        let keyvalue = prism_backends::postgres::KeyValue::new(&postgres);
        while prism_backends::api::keyvalue::Upkeep::sweep(&keyvalue, NOW, 7)
            .await
            .expect("a sweep")
            .more
        {}
        let database = url.rsplit('/').next().expect("a name");
        for table in ["queue_item", "queue_body", "queue_gone", "queue_call"] {
            let left = server.sql(database, &format!("SELECT count(*) FROM prism.{table}"));
            assert_eq!(left, "0", "{table}");
        }
    });
}

#[test]
fn dead_messages_before_others_do_not_hold_them_up_and_are_shown_as_dead() {
    let url = shared().database();
    run(async {
        let (_, queue) = gateway(&url, 2).await;
        let soon = Terms {
            ordered: true,
            ttl_ms: Some(1_000),
            ..PLAIN
        };
        let lasting = Terms { ttl_ms: None, ..soon };
        let ids: Vec<[u8; 4]> = (0..700_u32).map(u32::to_be_bytes).collect();
        let batch: Vec<_> = ids
            .iter()
            .map(|id| change(soon, Act::Send(message(id, "k"))))
            .collect();
        apply(&queue, &batch, None).await;
        apply(&queue, &[change(lasting, Act::Send(message(b"last", "k")))], None).await;
        let later = NOW.plus(2_000);
        let mut taken = receive(&queue, b"", 5, 60_000, later).await;
        while taken.is_empty() {
            taken = receive(&queue, b"", 5, 60_000, later).await;
        }
        assert_eq!(taken[0].0, b"last");
        assert_eq!(numbers(&queue, later).await[State::Dead as usize], 700);
    });
}
