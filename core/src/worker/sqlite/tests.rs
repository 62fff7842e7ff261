//! Tests of the writer thread with a store of its own: its messages, and its own work.

use prism_backends::{NamespaceId, sqlite};
use prism_codec::{
    message::keyvalue::{ExpectedView, ItemView, encode_compare_and_swap_request},
    method::KeyValueMethod,
};

use super::*;
use crate::{
    call::{
        owner::owner_of,
        record::LoggedWrite,
        ticket::{CallId, Stamp},
    },
    log::committed::RecordsMailbox,
    namespace::spec::Path,
};

#[test]
fn the_writer_does_what_earlier_batches_and_older_programs_have_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyvalue.db");
    let other = || rusqlite::Connection::open(&path).unwrap();
    let mut store = sqlite::open(&path, sqlite::Options::default()).unwrap();
    store.writer.create_namespace(NamespaceId(1)).unwrap();
    let keys: Vec<_> = (0..1_000).map(|number: u32| number.to_be_bytes()).collect();
    let items: Vec<_> = keys
        .iter()
        .map(|key| prism_backends::ItemRef {
            key,
            value: b"v",
            expires_at: None,
            compression: 0,
        })
        .collect();
    let mut version = 0;
    let mut apply = |id, operation| {
        version += 1;
        let mutation = prism_backends::Mutation {
            namespace: NamespaceId(1),
            id,
            version: prism_backends::Version::new(version, b"t"),
            at: UnixMillis(1),
            digest: None,
            operation,
        };
        store.writer.apply(&[mutation], &mut Vec::new()).unwrap();
    };
    for id in ["a", "b"] {
        apply(id, prism_backends::Operation::Put(&items));
        apply(
            id,
            prism_backends::Operation::Delete(prism_backends::PredicateRef::All),
        );
    }
    apply("kept", prism_backends::Operation::Put(&items[..1]));
    // A value at the place of format 3.
    other()
        .execute_batch(
            "UPDATE item SET value = zeroblob(100000) WHERE id = CAST('kept' AS BLOB);
            INSERT INTO relocation VALUES (1, 0, x'', x'', 0, 0);",
        )
        .unwrap();
    drop(store);
    let store = sqlite::open(&path, sqlite::Options::default()).unwrap();
    assert!(store.writer.is_step_due() && store.writer.relocation().is_some());
    let waker = || Waker::new().unwrap();
    let shards = ToShards {
        replies: Vec::new(),
        events: Vec::new(),
        logs: Vec::new(),
    };
    let (writer_waker, stop) = (waker(), Arc::new(Stop::default()));
    let mailbox = Arc::new(Mailbox::new(16, writer_waker.clone()));
    let writer = spawn_writer(
        store.writer,
        Common {
            wall: WallClock::default(),
            stop: stop.clone(),
            raise_priority: false,
        },
        mailbox,
        writer_waker.clone(),
        shards,
        waker(),
    )
    .unwrap();
    let left = "SELECT (SELECT count(*) FROM item) || ' ' || (SELECT count(*) FROM removal)
        || ' ' || (SELECT sum(length(value)) FROM item) || ' ' || (SELECT count(*) FROM relocation)";
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut found = String::new();
    while found != "1 0 0 0" {
        assert!(Instant::now() < deadline, "left over: {found}");
        std::thread::sleep(Duration::from_millis(5));
        found = other().query_row(left, [], |row| row.get(0)).unwrap();
    }
    stop.set();
    writer_waker.wake();
    writer.join().unwrap();
}

/// A swap of one id that was taken by a shard. Its stamp is its number.
fn swap(shard: u16, id: &str, expected: ExpectedView<'_>, value: &[u8], number: i64) -> WriterMessage {
    let item = ItemView {
        key: b"k",
        value,
        ttl: None,
        compression: 0,
        version: b"",
    };
    let mut body = Vec::new();
    encode_compare_and_swap_request(&mut body, "events", id, b"k", None, expected, Some(&item));
    let namespace = NamespaceId(1);
    let ticket = Ticket {
        shard,
        slot: 0,
        generation: 0,
        call: CallId::Request(0),
        namespace,
        caller: crate::identity::CallerId::NOBODY,
    };
    let work = Work::Unary {
        method: KeyValueMethod::CompareAndSwap.into(),
        namespace,
        default_ttl_ms: None,
        body,
        stamp: Stamp {
            time_ns: number,
            shard,
            gateway: 0,
        },
        part: false,
        path: Path::StoreThenLog,
        overlay: Vec::new(),
        wait_until: None,
    };
    WriterMessage::Job(Job {
        ticket,
        deadline: None,
        work,
    })
}

#[test]
fn records_reach_the_owner_in_the_order_of_the_commits_before_the_writer_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = sqlite::open(&directory.path().join("keyvalue.db"), sqlite::Options::default()).unwrap();
    store.writer.create_namespace(NamespaceId(1)).unwrap();
    let id = (0..)
        .map(|number| format!("id-{number}"))
        .find(|id| owner_of(NamespaceId(1), id, 2) == 1)
        .unwrap();
    let waker = Waker::for_thread;
    let logs = [0, 1].map(|_| Arc::new(RecordsMailbox::new(waker())));
    let shards = ToShards {
        replies: (0..2).map(|_| Arc::new(Mailbox::new(16, waker()))).collect(),
        events: (0..2).map(|_| Arc::new(Mailbox::new(16, waker()))).collect(),
        logs: logs
            .iter()
            .map(|mailbox| Outlet {
                mailbox: mailbox.clone(),
                metrics: Arc::default(),
            })
            .collect(),
    };
    let (writer_waker, stop) = (waker(), Arc::new(Stop::default()));
    let mailbox = Arc::new(Mailbox::new(16, writer_waker.clone()));
    let (done, settled) = std::sync::mpsc::sync_channel(1);
    for message in [
        swap(0, &id, ExpectedView::Absent, b"a", 1),
        swap(1, &id, ExpectedView::Value(b"a"), b"b", 2),
        swap(1, &id, ExpectedView::Value(b"a"), b"refused", 3),
        swap(0, &id, ExpectedView::Value(b"b"), b"c", 4),
        WriterMessage::Barrier(done),
    ] {
        mailbox.send(message).unwrap();
    }
    let writer = spawn_writer(
        store.writer,
        Common {
            wall: WallClock::default(),
            stop: stop.clone(),
            raise_priority: false,
        },
        mailbox,
        writer_waker.clone(),
        shards,
        waker(),
    )
    .unwrap();
    settled.recv_timeout(Duration::from_secs(20)).unwrap();
    let stamps = |log: &RecordsMailbox| -> Vec<i64> {
        let records = std::iter::from_fn(|| log.receive()).flatten();
        records
            .map(|record| {
                let logged = LoggedWrite::decode(record.namespace, &record.record).unwrap();
                assert!(!logged.decided.is_empty(), "as the store has decided it");
                logged.context.stamp.time_ns
            })
            .collect()
    };
    assert_eq!(stamps(&logs[1]), [1, 2, 4], "what was refused leaves no record");
    assert_eq!(stamps(&logs[0]), [0; 0], "whichever shard took the call");
    stop.set();
    writer_waker.wake();
    writer.join().unwrap();
}
