//! The stores that serve Queue pass its behaviour suite, agree with each other, and keep all that
//! must outlast a restart and a replay.

use std::cell::RefCell;
use std::path::Path;

use prism_backends::api::queue::{
    Act, Attempt, Change, Counts, Held, NewMessage, Outcome, Peek, Reads, Receive, Shown, State, Terms,
    Upkeep, Verdict, Which, Writes,
};
use prism_backends::behavior::{queue::local::LocalHarness, ready};
use prism_backends::memory::Queues;
use prism_backends::sqlite::Options;
use prism_backends::{LogId, LogPosition, NamespaceId, SqliteStore, StoreError, UnixMillis};

const NAMESPACE: NamespaceId = NamespaceId(7);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const PLAIN: Terms = Terms {
    ordered: false,
    replay: false,
    ttl_ms: None,
    retention_ms: 86_400_000,
};

fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(&directory.join("items.db"), Options::default()).expect("a store")
}

fn message<'a>(id: &'a [u8], payload: &'a [u8]) -> NewMessage<'a> {
    NewMessage {
        id,
        digest: None,
        key: "",
        delay_ms: 0,
        attempts_max: 10,
        attributes: b"",
        payload,
    }
}

fn change(act: Act<'_>) -> Change<'_> {
    Change {
        namespace: NAMESPACE,
        terms: PLAIN,
        at: NOW,
        act,
    }
}

fn apply(store: &impl Writes, batch: &[Change<'_>], lsn: Option<u64>) -> Vec<Outcome> {
    let at = lsn.map(|lsn| LogPosition {
        log: LogId(1),
        lane: 1,
        namespace: NAMESPACE,
        lsn,
    });
    let mut outcomes = Vec::new();
    ready(store.apply(batch, at.as_ref(), &mut outcomes)).expect("applied");
    outcomes
}

type Taken = (Vec<u8>, Attempt, u32, String);

fn receive(store: &impl Writes, call: &[u8], max: usize, lease_ms: u64, now: UnixMillis) -> Vec<Taken> {
    let mut taken = Vec::new();
    let mut sink = |shown: &Shown<'_>| {
        let id = shown.id.to_vec();
        taken.push((
            id,
            shown.item.attempt(),
            shown.item.spent,
            shown.failure.to_owned(),
        ));
        true
    };
    let receive = Receive {
        namespace: NAMESPACE,
        call,
        messages_max: max,
        lease_ms,
    };
    ready(store.receive(&receive, now, &mut sink)).expect("an answer");
    taken
}

fn held(taken: &Taken) -> Held<'_> {
    Held {
        id: &taken.0,
        attempt: taken.1,
    }
}

fn stats(store: &impl Reads, now: UnixMillis) -> Counts {
    ready(store.stats(NAMESPACE, now)).expect("numbers")
}

#[test]
fn the_memory_store_passes_the_suite() {
    LocalHarness::new(RefCell::new(Queues::new())).run();
}

#[test]
fn the_sqlite_store_passes_the_suite() {
    let directory = tempfile::tempdir().expect("a directory");
    LocalHarness::new(open(directory.path())).run();
}

#[test]
fn a_full_queue_in_memory_refuses_and_loses_nothing() {
    let store = RefCell::new(Queues::with_bytes_max(10_000));
    store.borrow_mut().create_namespace(NAMESPACE).expect("new");
    let mut sent = 0;
    for number in 0..100_u8 {
        let outcomes = apply(
            &store,
            &[change(Act::Send(message(&[number], &[0; 1_000])))],
            None,
        );
        match &outcomes[..] {
            [Outcome::Sent] => sent += 1,
            [Outcome::Refused(StoreError::Full { .. })] => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((5..=9).contains(&sent), "{sent}");
    assert_eq!(receive(&store, b"", 100, 1_000, NOW).len(), sent);
}

#[test]
fn q1_q12_q21_a_restart_keeps_messages_leases_delays_and_the_memory_of_ids() {
    let directory = tempfile::tempdir().expect("a directory");
    let delayed = NewMessage {
        delay_ms: 5_000,
        ..message(b"delayed", b"2")
    };
    let (acked, leased);
    {
        let store = open(directory.path());
        ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
        let batch = [
            change(Act::Send(message(b"acked", b"0"))),
            change(Act::Send(message(b"leased", b"1"))),
            change(Act::Send(delayed)),
        ];
        apply(&store, &batch, None);
        acked = receive(&store, b"", 1, 10_000, NOW).remove(0);
        leased = receive(&store, b"", 1, 10_000, NOW).remove(0);
        assert_eq!(
            apply(&store, &[change(Act::Ack(held(&acked)))], None),
            [Outcome::Acked]
        );
    }
    let store = open(directory.path());
    let again = [
        change(Act::Ack(held(&acked))),
        change(Act::Send(message(b"acked", b"0"))),
        change(Act::Send(message(b"leased", b"1"))),
        change(Act::Ack(held(&leased))),
    ];
    let expected = [Outcome::Acked, Outcome::Repeat, Outcome::Repeat, Outcome::Acked];
    assert_eq!(apply(&store, &again, None), expected);
    assert_eq!(receive(&store, b"", 9, 1, NOW.plus(4_999)), []);
    let rest = receive(&store, b"", 9, 1, NOW.plus(5_000));
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].0, b"delayed");
}

/// A log of a queue, and the workers' calls between its records.
#[test]
fn q23_q24_a_log_that_is_replayed_from_any_point_leads_to_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    for kept in 0..=6 {
        let path = directory.path().join(kept.to_string());
        std::fs::create_dir(&path).expect("a directory");
        let store = open(&path);
        ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
        let attempt = Attempt {
            sent_at: NOW,
            serial: 1,
        };
        let of = |id| Held { id, attempt };
        let again = Verdict {
            delay_ms: 1_000,
            dead: false,
            uncounted: true,
        };
        let dead = Verdict {
            dead: true,
            uncounted: false,
            ..again
        };
        let log = [
            change(Act::Send(message(b"a", b""))),
            change(Act::Send(message(b"b", b""))),
            change(Act::Send(message(b"c", b""))),
            change(Act::Ack(of(b"a"))),
            change(Act::Nack {
                held: of(b"b"),
                verdict: again,
                reason: "later",
            }),
            change(Act::Nack {
                held: of(b"c"),
                verdict: dead,
                reason: "never",
            }),
            change(Act::Redrive {
                call: b"redrive",
                digest: None,
                which: Which::State(State::Dead),
            }),
        ];
        // The store has a part of it, and the leases between, or has lost those in a power cut.
        for (index, one) in log.iter().enumerate().take(kept) {
            apply(&store, std::slice::from_ref(one), Some(index as u64 + 1));
            if index == 2 && kept % 2 == 0 {
                assert_eq!(receive(&store, b"", 3, 60_000, NOW).len(), 3);
            }
        }
        // The whole log is replayed, from the beginning.
        for (index, one) in log.iter().enumerate() {
            apply(&store, std::slice::from_ref(one), Some(index as u64 + 1));
        }
        let counts = stats(&store, NOW.plus(1));
        let numbers: Vec<u64> = counts.iter().map(|count| count.messages).collect();
        assert_eq!(
            numbers,
            [1, 1, 0, 0, 0],
            "after {kept}: c is back, b waits, a is done"
        );
        let taken = receive(&store, b"", 9, 10, NOW.plus(1_000));
        assert_eq!(taken.len(), 2);
        assert!(
            taken.iter().all(|one| one.2 == 1),
            "no attempt is counted twice: {taken:?}"
        );
    }
}

#[test]
fn q21_a_batch_of_the_log_that_comes_again_when_its_ids_are_forgotten_sends_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
    let batch = [change(Act::Send(message(b"a", b"1")))];
    assert_eq!(apply(&store, &batch, Some(5)), [Outcome::Sent]);
    let taken = receive(&store, b"", 1, 1_000, NOW).remove(0);
    let acks = [change(Act::Ack(held(&taken)))];
    assert_eq!(apply(&store, &acks, Some(6)), [Outcome::Acked]);
    for _ in 0..10 {
        ready(Upkeep::sweep(&store, NOW.plus(700_000), 100)).expect("a sweep");
    }
    apply(&store, &batch, Some(5));
    apply(&store, &acks, Some(6));
    assert_eq!(stats(&store, NOW), Counts::default());
    assert_eq!(receive(&store, b"", 9, 1_000, NOW), []);
    let next = [change(Act::Send(message(b"b", b"2")))];
    assert_eq!(apply(&store, &next, Some(7)), [Outcome::Sent]);
}

/// A file as written by programs of format 8, with messages of topics in it.
#[test]
fn a_file_of_format_8_takes_queues_and_keeps_its_topics() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let topics = NamespaceId(8);
    {
        let store = open(directory.path());
        ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
        ready(Upkeep::create_namespace(&store, topics)).expect("new");
        let message = prism_backends::api::pubsub::Message {
            promised: false,
            namespace: topics,
            partition: 0,
            id: b"id",
            digest: None,
            at: NOW,
            expires_at: None,
            topic: "",
            key: "",
            attributes: b"",
            payload: b"kept",
        };
        let mut outcomes = Vec::new();
        use prism_backends::api::pubsub::Writes as _;
        ready(store.publish(&[message], None, &mut outcomes)).expect("published");
    }
    let file = rusqlite::Connection::open(&path).expect("the file");
    file.execute_batch(
        "DROP TABLE queue_item; DROP TABLE queue_body; DROP TABLE queue_gone; DROP TABLE queue_call;
         DROP TABLE message_group; PRAGMA user_version = 8;",
    )
    .expect("the tables of format 8");
    drop(file);
    let store = open(directory.path());
    assert_eq!(
        apply(&store, &[change(Act::Send(message(b"a", b"1")))], None),
        [Outcome::Sent]
    );
    assert_eq!(receive(&store, b"", 1, 1_000, NOW).len(), 1);
    drop(store);
    let file = rusqlite::Connection::open(&path).expect("the file");
    let number = |query: &str| {
        file.query_row(query, [], |row| row.get::<_, i64>(0))
            .expect("a number")
    };
    assert_eq!(number("PRAGMA user_version"), 10);
    assert_eq!(
        number("SELECT count(*) FROM message WHERE payload = CAST('kept' AS BLOB)"),
        1
    );
}

/// Steps of a small generator of random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// One random step on a store. Returns the store's answer.
fn step(
    store: &(impl Writes + Reads + Upkeep),
    random: &mut Random,
    now: UnixMillis,
    known: &mut Vec<Taken>,
) -> String {
    let ordered = Terms {
        ordered: true,
        replay: true,
        ttl_ms: Some(3_000),
        retention_ms: 20_000,
    };
    let change = |act| Change {
        namespace: NAMESPACE,
        terms: ordered,
        at: now,
        act,
    };
    let id = random.below(60).to_be_bytes();
    let key = format!("key-{}", random.below(4));
    let number = random.below(100);
    let pick = random.below(known.len().max(1) as u64) as usize;
    let some = known.get(pick).cloned();
    let state = State::ALL[random.below(5) as usize];
    let call = random.below(1_000_000).to_be_bytes();
    match (number, &some) {
        (0..30, _) => {
            let message = NewMessage {
                key: &key,
                delay_ms: random.below(3) * 700,
                attempts_max: 1 + random.below(3) as u32,
                ..message(&id, b"payload")
            };
            format!("{:?}", apply(store, &[change(Act::Send(message))], None))
        }
        (30..60, _) => {
            let call: &[u8] = if number.is_multiple_of(3) {
                &key.as_bytes()[..5]
            } else {
                b""
            };
            let (max, lease) = (1 + random.below(3) as usize, 1 + random.below(1_500));
            let taken = receive(store, call, max, lease, now);
            known.extend(taken.clone());
            known.drain(..known.len().saturating_sub(30));
            format!("{taken:?}")
        }
        (60..72, Some(some)) => format!("{:?}", apply(store, &[change(Act::Ack(held(some)))], None)),
        (72..84, Some(some)) => {
            let verdict = Verdict {
                delay_ms: random.below(3) * 500,
                dead: random.below(8) == 0,
                uncounted: random.below(4) == 0,
            };
            let act = Act::Nack {
                held: held(some),
                verdict,
                reason: "why",
            };
            format!("{:?}", apply(store, &[change(act)], None))
        }
        (84..88, Some(some)) => {
            let ends = ready(store.extend(NAMESPACE, &[held(some)], 800, now));
            format!("{:?}", ends.expect("an answer"))
        }
        (88..91, _) => {
            let act = Act::Redrive {
                call: &call,
                digest: None,
                which: Which::State(state),
            };
            format!("{:?}", apply(store, &[change(act)], None))
        }
        (91..94, _) => {
            let ids: [&[u8]; 2] = [&id, &id];
            let act = Act::Delete {
                call: &call,
                digest: None,
                which: Which::Ids(&ids),
            };
            format!("{:?}", apply(store, &[change(act)], None))
        }
        (94, _) => {
            ready(store.sweep(now, 1_000)).expect("a sweep");
            String::new()
        }
        _ => {
            let mut seen = Vec::new();
            let mut sink = |shown: &Shown<'_>| {
                seen.push((shown.id.to_vec(), shown.item, shown.failure.to_owned()));
                true
            };
            let peek = Peek {
                namespace: NAMESPACE,
                states: &State::ALL,
                key: None,
                after: 0,
                messages_max: 1_000,
                with_payload: false,
            };
            ready(store.peek(&peek, now, &mut sink)).expect("a page");
            // Whether a death is stored yet is not part of the promise.
            let states: Vec<_> = seen
                .iter()
                .map(|(id, item, failure)| (id, item.state(now), item.spent, failure))
                .collect();
            format!("{states:?} {:?}", stats(store, now))
        }
    }
}

#[test]
fn memory_and_sqlite_agree_on_random_calls() {
    for seed in 1..=6 {
        let directory = tempfile::tempdir().expect("a directory");
        let sqlite = open(directory.path());
        let memory = RefCell::new(Queues::new());
        ready(Upkeep::create_namespace(&sqlite, NAMESPACE)).expect("new");
        ready(Upkeep::create_namespace(&memory, NAMESPACE)).expect("new");
        let (mut left, mut right) = (Random(seed), Random(seed));
        let (mut known_left, mut known_right) = (Vec::new(), Vec::new());
        let mut now = NOW;
        for number in 0..3_000 {
            now = now.plus(left.below(200));
            right.below(200);
            let one = step(&memory, &mut left, now, &mut known_left);
            let other = step(&sqlite, &mut right, now, &mut known_right);
            assert_eq!(one, other, "seed {seed}, step {number}");
        }
    }
}

#[test]
fn a_dropped_queue_is_gone_and_its_room_is_given_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    {
        let store = open(directory.path());
        ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
        let ids: Vec<[u8; 2]> = (0..500_u16).map(u16::to_be_bytes).collect();
        let batch: Vec<_> = ids
            .iter()
            .map(|id| change(Act::Send(message(id, &[7; 500]))))
            .collect();
        apply(&store, &batch, None);
        let first = receive(&store, b"call", 1, 1_000, NOW).remove(0);
        let acts = [
            change(Act::Ack(held(&first))),
            change(Act::Delete {
                call: b"call",
                digest: None,
                which: Which::State(State::Dead),
            }),
        ];
        apply(&store, &acts, None);
        ready(Upkeep::drop_namespace(&store, NAMESPACE)).expect("dropped");
        assert_eq!(
            ready(store.stats(NAMESPACE, NOW)),
            Err(StoreError::DroppedNamespace(NAMESPACE))
        );
        let refused = [Outcome::Refused(StoreError::DroppedNamespace(NAMESPACE))];
        assert_eq!(
            apply(&store, &[change(Act::Send(message(b"z", b"")))], None),
            refused
        );
        let mut steps = 0;
        while ready(Upkeep::sweep(&store, NOW, 64)).expect("a sweep").more {
            steps += 1;
            assert!(steps < 1_000, "the sweep comes to an end");
        }
    }
    let file = rusqlite::Connection::open(&path).expect("the file");
    for table in [
        "queue_item",
        "queue_body",
        "queue_gone",
        "queue_call",
        "message_space",
    ] {
        let rows: i64 = file
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .expect("a count");
        assert_eq!(rows, 0, "{table}");
    }
}
