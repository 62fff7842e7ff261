//! The stores that serve PubSub pass its behaviour suite, and keep all that must outlast a restart,
//! a replay and a full ring.

use std::cell::RefCell;
use std::path::Path;

use prism_backends::api::pubsub::{
    Gap, Message, MessageSink, Opened, Outcome, Read, Reads, Start, Stored, Upkeep, Writes,
};
use prism_backends::behavior::{pubsub::local::LocalHarness, ready};
use prism_backends::memory::Messages;
use prism_backends::sqlite::Options;
use prism_backends::{LogId, LogPosition, NamespaceId, SqliteStore, StoreError, UnixMillis};

const NAMESPACE: NamespaceId = NamespaceId(7);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(&directory.join("items.db"), Options::default()).expect("a store")
}

fn message<'a>(id: &'a [u8], payload: &'a [u8]) -> Message<'a> {
    Message {
        promised: false,
        namespace: NAMESPACE,
        partition: 3,
        id,
        digest: None,
        at: NOW,
        expires_at: None,
        topic: "orders",
        key: "k",
        attributes: b"",
        payload,
    }
}

fn publish(store: &impl Writes, batch: &[Message<'_>], lsn: Option<u64>) -> Vec<Outcome> {
    let at = lsn.map(|lsn| LogPosition {
        log: LogId(1),
        lane: 1,
        namespace: NAMESPACE,
        lsn,
    });
    let mut outcomes = Vec::new();
    ready(store.publish(batch, at.as_ref(), &mut outcomes)).expect("published");
    outcomes
}

/// The payloads and numbers that a step delivers.
#[derive(Default)]
struct Seen(Vec<(u64, Vec<u8>)>);

impl MessageSink for Seen {
    fn wants(&mut self, _topic: &str) -> bool {
        true
    }

    fn message(&mut self, message: &Stored<'_>) -> bool {
        self.0.push((message.number, message.payload.to_vec()));
        true
    }
}

fn read(store: &impl Reads, next: u64, now: UnixMillis) -> (Vec<(u64, Vec<u8>)>, Read) {
    let mut seen = Seen::default();
    let read = ready(store.read(NAMESPACE, next, now, &mut seen)).expect("a step");
    (seen.0, read)
}

#[test]
fn the_memory_store_passes_the_suite() {
    LocalHarness::new(RefCell::new(Messages::new())).run();
}

#[test]
fn the_sqlite_store_passes_the_suite() {
    let directory = tempfile::tempdir().expect("a directory");
    LocalHarness::new(open(directory.path())).run();
}

#[test]
fn p20_the_oldest_of_a_full_ring_go_and_leave_a_gap_of_the_right_size() {
    let store = RefCell::new(Messages::with_bytes_max(10_000));
    store.borrow_mut().create_namespace(NAMESPACE).expect("new");
    for number in 0..100_u8 {
        let outcomes = publish(&store, &[message(&[number], &[number; 1_000])], None);
        assert_eq!(outcomes, [Outcome::Published]);
    }
    let (seen, step) = read(&store, 1, NOW);
    let first = seen.first().expect("the newest are left").0;
    assert!((90..=95).contains(&first), "{first}");
    assert_eq!(seen.len() as u64, 101 - first);
    let gap = Gap {
        messages: first - 1,
        oldest_left: Some(NOW),
    };
    assert_eq!((step.gap, step.next, step.more), (Some(gap), 101, false));
    let opened = ready(store.open(NAMESPACE, Start::Number(5), NOW)).expect("opened");
    assert_eq!(opened, Opened::Expired(Some(NOW)));
    assert_eq!(read(&store, 101, NOW).1.gap, None);
}

#[test]
fn p7_a_restart_keeps_messages_numbers_and_the_memory_of_ids() {
    let directory = tempfile::tempdir().expect("a directory");
    let digest = Some(u64::MAX - 3);
    let of_call = |payload| Message {
        digest,
        ..message(b"token", payload)
    };
    {
        let store = open(directory.path());
        ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
        assert_eq!(publish(&store, &[of_call(b"one")], None), [Outcome::Published]);
    }
    let store = open(directory.path());
    let second = [of_call(b"one"), message(b"other", b"two")];
    assert_eq!(
        publish(&store, &second, None),
        [Outcome::Repeat, Outcome::Published]
    );
    let stranger = Message {
        digest: Some(1),
        ..of_call(b"stranger")
    };
    let refused = [Outcome::Refused(StoreError::TokenReused)];
    assert_eq!(publish(&store, &[stranger], None), refused);
    // An acknowledged one is delivered all the same.
    let promised = Message {
        promised: true,
        ..stranger
    };
    assert_eq!(publish(&store, &[promised], None), [Outcome::Published]);
    assert_eq!(
        publish(&store, &[of_call(b"one")], None),
        [Outcome::Repeat],
        "the id stays"
    );
    let expected = vec![
        (1, b"one".to_vec()),
        (2, b"two".to_vec()),
        (3, b"stranger".to_vec()),
    ];
    assert_eq!(read(&store, 1, NOW).0, expected);
    // A new message after the window, since its id is forgotten.
    let late = Message {
        at: NOW.plus(600_001),
        ..of_call(b"again")
    };
    assert_eq!(publish(&store, &[late], None), [Outcome::Published]);
}

#[test]
fn p25_a_batch_of_the_log_that_comes_again_is_stored_once_however_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let batch = [message(b"a", b"1"), message(b"b", b"2")];
    let store = open(directory.path());
    ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
    publish(&store, &batch, Some(2));
    drop(store);
    let store = open(directory.path());
    // Together with new messages, as an applier sends a batch after a commit of unknown outcome.
    let again = [batch[0], batch[1], message(b"c", b"3")];
    publish(&store, &again, Some(3));
    let payloads: Vec<_> = read(&store, 1, NOW)
        .0
        .into_iter()
        .map(|(_, payload)| payload)
        .collect();
    assert_eq!(payloads, [b"1", b"2", b"3"]);
}

#[test]
fn numbers_go_on_after_everything_has_expired_and_is_swept() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
    let ids: Vec<[u8; 2]> = (0..300_u16).map(u16::to_be_bytes).collect();
    let mortal = |id| Message {
        expires_at: Some(NOW.plus(1_000)),
        ..message(id, b"x")
    };
    let batch: Vec<_> = ids.iter().map(|id| mortal(id)).collect();
    publish(&store, &batch, None);
    let later = NOW.plus(1_000);
    let (seen, step) = read(&store, 1, later);
    assert!(
        seen.is_empty(),
        "expired messages are not delivered, swept or not"
    );
    assert_eq!(step.gap.map(|gap| gap.messages), Some(300));
    let mut removed = 0;
    for _ in 0..100 {
        removed += ready(Upkeep::sweep(&store, later, 50)).expect("a sweep").removed;
    }
    assert_eq!(removed, 300, "messages go, ids stay for ten minutes");
    publish(&store, &[message(b"new", b"y")], None);
    let (seen, step) = read(&store, 151, later);
    assert_eq!(seen, [(301, b"y".to_vec())]);
    assert_eq!(step.gap.map(|gap| gap.messages), Some(150));
    for _ in 0..100 {
        removed += ready(Upkeep::sweep(&store, NOW.plus(600_001), 50))
            .expect("a sweep")
            .removed;
    }
    assert_eq!(removed, 300 + 301, "the ids, too");
}

#[test]
fn p32_a_dropped_namespace_has_no_messages_and_its_room_is_given_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    {
        let store = open(directory.path());
        ready(Upkeep::create_namespace(&store, NAMESPACE)).expect("new");
        let ids: Vec<[u8; 2]> = (0..500_u16).map(u16::to_be_bytes).collect();
        let batch: Vec<_> = ids.iter().map(|id| message(id, &[7; 500])).collect();
        publish(&store, &batch, None);
        ready(Upkeep::drop_namespace(&store, NAMESPACE)).expect("dropped");
        let mut seen = Seen::default();
        let refused = ready(store.read(NAMESPACE, 1, NOW, &mut seen));
        assert_eq!(refused, Err(StoreError::DroppedNamespace(NAMESPACE)));
        let refused = [Outcome::Refused(StoreError::DroppedNamespace(NAMESPACE))];
        assert_eq!(publish(&store, &[message(b"z", b"")], None), refused);
        let mut steps = 0;
        while ready(Upkeep::sweep(&store, NOW, 64)).expect("a sweep").more {
            steps += 1;
            assert!(steps < 1_000, "the sweep comes to an end");
        }
    }
    let file = rusqlite::Connection::open(&path).expect("the file");
    for table in ["message", "message_id", "message_space"] {
        let rows: i64 = file
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .expect("a count");
        assert_eq!(rows, 0, "{table}");
    }
}
