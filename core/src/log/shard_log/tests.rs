//! The state at a start, and a log on a real shard and a real disk, with the test in the place of
//! the store.

use std::{path::Path, rc::Rc, time::Duration};

use prism_codec::{
    message::keyvalue::{ExpectedView, ItemView, encode_compare_and_swap_request, encode_put_request},
    method::KeyValueMethod,
};
use prism_wal::{
    disk::file::FileDisk,
    ids::Epoch,
    record::{Record, RecordKind},
    recovery::Visitor,
    start::{StartConfig, start},
    tail::Tail,
};
use smallvec::SmallVec;

use super::*;
use crate::{
    call::{
        event::Verdict,
        job::Answer,
        owner::key_hash,
        receipt::Receipt,
        record::LoggedWrite,
        ticket::{CallId, Stamp, Ticket},
    },
    config::LogWriterKind,
    log::{
        LogEvent,
        keeper::{Keepers, keepers_of, seed},
        lane_of,
        open::{LogDirectory, Opened},
    },
    runtime::{
        mailbox::{Mailbox, Waker},
        notify::Notify,
        reactor::{self, DriverChoice, DriverInUse},
    },
};

const NAMESPACE: NamespaceId = NamespaceId(1);

/// The log of a gateway's only shard, with the mailboxes to all its peers.
struct Bench {
    log: ShardLog,
    links: LogLinks,
    events: Arc<Mailbox<LogEvent>>,
    keepers: Keepers,
    wake: Rc<Notify>,
}

impl Bench {
    fn new(directory: &Path, driver: DriverInUse) -> Self {
        let mailbox = || Waker::new().expect("a descriptor");
        let links = LogLinks {
            store: Arc::new(Mailbox::new(16, mailbox())),
            sync: Arc::new(Mailbox::new(16, mailbox())),
            servers: Vec::new(),
            absent: Arc::default(),
        };
        let events = Arc::new(Mailbox::new(64, mailbox()));
        let limits = LogLimits {
            segment_bytes: 4 << 20,
            ..LogLimits::default()
        };
        let keepers = Keepers::default();
        let mut lanes = LogDirectory::new(directory, limits, None, vec![events.clone()], keepers.clone())
            .create()
            .expect("a log");
        let Some(Opened::Lane(lane)) = lanes.pop() else {
            panic!("a new lane is open");
        };
        let wake = Rc::new(Notify::default());
        let writer = LogWriter::new(LogWriterKind::Auto, driver, wake.clone()).expect("a writer");
        let log = ShardLog::new(ShardLogParts {
            shard: 0,
            lane: *lane,
            writer,
            links: links.clone(),
            limits,
            metrics: Arc::default(),
        });
        Self {
            log,
            links,
            events,
            keepers,
            wake,
        }
    }

    /// Makes a turn of the shard, with the answers of store, checkpointer and keeper. Returns the
    /// replies.
    fn turn(&mut self) -> Vec<Reply> {
        let mut outbox = Outbox::default();
        while let Some(message) = self.links.store.receive() {
            let WriterMessage::Apply(batch) = message else {
                panic!("only records go to the store: {message:?}");
            };
            let applied = LogEvent::Applied {
                namespace: batch.namespace,
                upto: batch.records.last().expect("no empty batch").0,
                verdicts: Vec::new(),
                buried: 0,
            };
            self.log.handle_event(applied, &mut outbox);
        }
        while let Some(job) = self.links.sync.receive() {
            self.log.handle_event(LogEvent::Synced(job.cursors), &mut outbox);
        }
        while let Some(events) = self.events.receive() {
            self.log.handle_event(events, &mut outbox);
        }
        self.log.turn(&mut outbox);
        outbox.replies
    }

    /// Makes turns until this many calls are answered, all of them with success.
    async fn answered(&mut self, mut calls: usize) {
        while calls > 0 {
            let replies = self.turn();
            calls -= replies.len();
            for reply in &replies {
                assert!(reply.result.is_ok(), "{reply:?}");
            }
            if replies.is_empty() {
                self.wake.notified().await;
            }
        }
    }
}

/// A Put to be logged; `number` distinguishes calls.
fn call(number: u64) -> LogCall {
    LogCall {
        ticket: Ticket {
            shard: 0,
            slot: 0,
            generation: 1,
            call: CallId::Request(number),
            namespace: NAMESPACE,
            caller: crate::identity::CallerId::NOBODY,
        },
        namespace: NAMESPACE,
        record: record(KeyValueMethod::Put, b"").to_vec(),
        stamp: Stamp {
            time_ns: 1,
            shard: 0,
            gateway: 0,
        },
        keys: SmallVec::from_slice(&[number]),
        window: None,
        receipt: Receipt::One { rest: Vec::new() },
    }
}

/// Contents of the lane at a start.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    strong: usize,
    eventual: usize,
}

impl Visitor for Found {
    fn record(&mut self, _: Epoch, _: Lsn, record: &Record<'_>) {
        match record.kind {
            RecordKind::Strong => self.strong += 1,
            RecordKind::Eventual => self.eventual += 1,
            _ => {}
        }
    }
}

#[test]
fn a_lane_that_is_being_closed_takes_nothing_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let driver = DriverInUse::choose(DriverChoice::Auto).expect("a driver");
    let keepers = reactor::run(driver, async {
        let mut bench = Bench::new(directory.path(), driver);
        bench.log.write(call(1)).expect("an open lane");
        bench.answered(1).await;
        bench.log.flush();
        while bench.log.keeper.is_some() {
            assert!(bench.turn().is_empty());
            reactor::sleep(Duration::from_millis(1)).await;
        }
        let refusal = bench
            .log
            .write(call(2))
            .expect_err("its clean end may be written");
        assert_eq!(refusal.code, error::not_serving().code);
        bench
            .log
            .append_eventual(NAMESPACE, &record(KeyValueMethod::Put, b""));
        assert_eq!(bench.log.metrics.eventual_skipped.value(), 1);
        while !bench.log.is_flushed() {
            bench.turn();
            reactor::sleep(Duration::from_millis(1)).await;
        }
        assert!(bench.log.lane.is_drained(), "nothing is behind the end");
        let keepers = bench.keepers.clone();
        // The ring closes its descriptors when it is entered once more.
        drop(bench);
        reactor::sleep(Duration::from_millis(1)).await;
        keepers
    })
    .expect("a reactor");
    for keeper in keepers_of(&keepers).drain(..) {
        keeper.join().expect("the keeper");
    }
    let config = StartConfig {
        lane: lane_of(0),
        group: prism_wal::group_commit::Config {
            segment_blocks: 1024,
            ..prism_wal::group_commit::Config::default()
        },
        segments_max: 8,
        key: None,
        expect_existing: true,
        applied_lsn: Lsn::NONE,
        accept_loss: false,
    };
    let mut found = Found::default();
    let disk = FileDisk::open(&directory.path().join("wal"), true).expect("the log");
    start(&config, disk, &seed().expect("randomness"), 0, &mut found).expect("a lane");
    assert_eq!(
        found,
        Found {
            strong: 1,
            eventual: 0
        }
    );
}

#[test]
fn what_comes_first_after_a_stop_of_the_process_is_not_stamped_ahead_of_the_clock() {
    let directory = tempfile::tempdir().expect("a directory");
    let driver = DriverInUse::choose(DriverChoice::Auto).expect("a driver");
    reactor::run(driver, async {
        let mut bench = Bench::new(directory.path(), driver);
        bench.log.write(call(1)).expect("an open lane");
        assert!(bench.turn().is_empty());
        assert_eq!(bench.log.lane.commit().in_flight(), 1);
        // Longer than the time after which a silent disk is given up.
        bench.log.clock.stand_still(Duration::from_secs(60));
        bench.log.write(call(2)).expect("an open lane");
        let at = bench.log.parked.back().expect("it waits for the disk").at;
        assert!(at < 2 * STOP_MIN, "the stop is left out: {at} ns");
        assert!(at <= bench.log.now());
        bench.answered(2).await;
        let wake = bench.log.next_wake().expect("both wait to be applied");
        let pause = wake.saturating_duration_since(Instant::now());
        assert!(
            pause < Duration::from_secs(1),
            "{pause:?} until the store gets them"
        );
    })
    .expect("a reactor");
}

#[test]
fn a_judged_call_is_answered_when_it_is_applied_with_the_verdict_of_whoever_applied_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let driver = DriverInUse::choose(DriverChoice::Auto).expect("a driver");
    reactor::run(driver, async {
        let mut bench = Bench::new(directory.path(), driver);
        let judged = LogCall {
            record: record(KeyValueMethod::CompareAndSwap, b"").to_vec(),
            receipt: Receipt::Verdict,
            ..call(1)
        };
        bench.log.write(judged).expect("an open lane");
        let lsn = bench.log.lane.commit().appended_lsn();
        bench.log.write(call(2)).expect("an open lane");
        let last = bench.log.lane.commit().appended_lsn();
        // Both are durable, and the store has neither: only the second may be answered.
        let mut outbox = Outbox::default();
        while bench.log.lane.commit().durable_lsn() < last {
            bench.log.turn(&mut outbox);
            if outbox.replies.is_empty() {
                bench.wake.notified().await;
            }
        }
        bench.log.turn(&mut outbox);
        let answered: Vec<_> = outbox.replies.drain(..).map(|reply| reply.ticket.call).collect();
        assert_eq!(answered, [CallId::Request(2)], "nobody knows the verdict yet");
        assert_eq!(bench.log.promised(), 1);
        let Some(WriterMessage::Apply(batch)) = bench.links.store.receive() else {
            panic!("the caller of a judged call waits, so the store gets it at once");
        };
        let awaited: Vec<_> = batch
            .awaited
            .iter()
            .map(|awaited| (awaited.lsn, awaited.first))
            .collect();
        let first = RecordId {
            lane: lane_of(0),
            lsn,
        };
        assert_eq!(awaited, [(lsn, first)], "the other has its answer");
        let applied = LogEvent::Applied {
            namespace: NAMESPACE,
            upto: last,
            verdicts: vec![Verdict {
                lsn,
                reply: Ok(b"what the store said".to_vec()),
            }],
            buried: 0,
        };
        bench.log.handle_event(applied, &mut outbox);
        let [reply] = &outbox.replies[..] else {
            panic!("one answer: {:?}", outbox.replies);
        };
        assert_eq!(reply.ticket.call, CallId::Request(1));
        match &reply.result {
            Ok(Answer::Message(message)) => assert_eq!(message, b"what the store said"),
            other => panic!("no message: {other:?}"),
        }
        assert_eq!(bench.log.promised(), 0);
    })
    .expect("a reactor");
}

#[test]
fn a_read_of_a_store_that_cannot_lay_records_over_waits_until_it_has_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let driver = DriverInUse::choose(DriverChoice::Auto).expect("a driver");
    reactor::run(driver, async {
        let mut bench = Bench::new(directory.path(), driver);
        bench.log.write(call(1)).expect("an open lane");
        let last = bench.log.lane.commit().appended_lsn();
        let mut outbox = Outbox::default();
        while bench.log.lane.commit().durable_lsn() < last {
            bench.log.turn(&mut outbox);
            if outbox.replies.is_empty() {
                bench.wake.notified().await;
            }
        }
        let (waits, other, overlaid) = (ReadId(1), ReadId(2), ReadId(3));
        let records = bench.log.unapplied(NAMESPACE, 1, overlaid, true);
        assert_eq!(
            records.map(|records| records.len()),
            Some(1),
            "laid over what is stored"
        );
        assert!(
            bench.log.unapplied(NAMESPACE, 1, waits, false).is_none(),
            "the store lacks it"
        );
        let nothing = bench.log.unapplied(NAMESPACE, 2, other, false);
        assert_eq!(
            nothing.map(|records| records.len()),
            Some(0),
            "another key lacks nothing"
        );
        bench.log.turn(&mut outbox);
        assert!(outbox.reads.is_empty(), "the store has not answered");
        let applied = LogEvent::Applied {
            namespace: NAMESPACE,
            upto: last,
            verdicts: Vec::new(),
            buried: 0,
        };
        bench.log.handle_event(applied, &mut outbox);
        let reads: Vec<_> = outbox
            .reads
            .iter()
            .map(|(id, records)| (*id, records.len()))
            .collect();
        assert_eq!(reads, [(waits, 0)], "once, and with nothing beside the store");
    })
    .expect("a reactor");
}

fn record(method: KeyValueMethod, body: &[u8]) -> Payload {
    LoggedWrite::example(NamespaceId(1), method, body).encode().into()
}

#[test]
fn what_the_store_could_not_take_at_the_start_is_seen_by_reads() {
    let (mut put, mut swap) = (Vec::new(), Vec::new());
    let item = ItemView {
        key: b"k",
        value: b"v",
        ttl: None,
        compression: 0,
        version: b"",
    };
    encode_put_request(&mut put, "ledger", "a", None, [item]);
    encode_compare_and_swap_request(&mut swap, "ledger", "b", b"k", None, ExpectedView::Absent, None);
    let mut tail = Tail::default();
    tail.push(Lsn(1), TargetId(1), record(KeyValueMethod::Put, &put));
    tail.push(Lsn(2), TargetId(1), record(KeyValueMethod::CompareAndSwap, &swap));
    tail.push(Lsn(3), TargetId(1), Payload::from(&b"of a newer version"[..]));
    tail.handle_durable(Lsn(3));
    let applier = applier_of(&tail, 0);
    let namespace = NamespaceId(1);
    let overlay = |id| applier.overlay(namespace, key_hash(namespace, id), Lsn(3));
    assert_eq!(overlay("a"), Overlay::Records(SmallVec::from_slice(&[Lsn(1)])));
    assert_eq!(overlay("b"), Overlay::Await(Lsn(2)));
    assert_eq!(overlay("c"), Overlay::None);
    assert_eq!(
        applier.last_unapplied(namespace, Lsn(3)),
        Some(Lsn(3)),
        "also what cannot be read"
    );
}
