//! Topics on a real PostgreSQL: the behaviour suite, and what only a store that many gateways share
//! must keep.

use prism_backends::api::keyvalue;
use prism_backends::api::pubsub::{
    Gap, Message, MessageSink, Opened, Outcome, Read, Reads, Start, Stored, Upkeep, Writes,
};
use prism_backends::behavior::{join_all, pubsub::local::LocalHarness};
use prism_backends::postgres::{Config, FORMAT, KeyValue, Postgres, PubSub};
use prism_backends::server::{RawConfig, ServerStore as _, Share, Written};
use prism_backends::{LogId, LogPosition, NamespaceId, StoreError, UnixMillis};

#[path = "servers/postgres.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest")]
mod server;

#[path = "servers/keyvalue.rs"]
#[allow(dead_code, reason = "each kind of server uses its part")]
mod parts;

use parts::run;
use server::shared;

const SPACE: NamespaceId = NamespaceId(9);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A gateway's own store on a database.
async fn gateway(url: &str, pool_max: u32) -> (Postgres, PubSub) {
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
    let pubsub = PubSub::new(&store);
    pubsub.create_namespace(SPACE).await.expect("a namespace");
    (store, pubsub)
}

fn message(id: &[u8]) -> Message<'_> {
    Message {
        namespace: SPACE,
        partition: 3,
        id,
        digest: Some(7),
        promised: false,
        at: NOW,
        expires_at: Some(NOW.plus(60_000)),
        topic: "orders",
        key: "k",
        attributes: b"",
        payload: id,
    }
}

async fn publish(pubsub: &PubSub, batch: &[Message<'_>], lsn: Option<u64>) -> Vec<Outcome> {
    let at = lsn.map(|lsn| LogPosition {
        log: LogId(5),
        lane: 1,
        namespace: SPACE,
        lsn,
    });
    let mut outcomes = Vec::new();
    pubsub
        .publish(batch, at.as_ref(), &mut outcomes)
        .await
        .expect("a batch");
    outcomes
}

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

/// A publisher or a reader, and what it has read.
type Task<'a> = std::pin::Pin<Box<dyn Future<Output = Vec<(u64, Vec<u8>)>> + 'a>>;

/// Numbers and payloads from a number on, to the end of now.
async fn read_all(pubsub: &PubSub, mut next: u64, now: UnixMillis) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Seen::default();
    loop {
        let read = pubsub.read(SPACE, next, now, &mut seen).await.expect("a step");
        next = read.next;
        if !read.more {
            return seen.0;
        }
    }
}

#[test]
fn the_postgres_store_passes_the_suite_of_topics() {
    let url = shared().database();
    run(async {
        let (_, pubsub) = gateway(&url, 4).await;
        let mut harness = LocalHarness::new(pubsub);
        prism_backends::behavior::pubsub::run(&mut harness).await;
    });
}

#[test]
fn a_batch_of_the_log_that_comes_again_is_not_stored_again() {
    let url = shared().database();
    run(async {
        let (postgres, pubsub) = gateway(&url, 2).await;
        let batch = [message(b"a"), message(b"b")];
        let stored = [Outcome::Published, Outcome::Published];
        assert_eq!(publish(&pubsub, &batch, Some(10)).await, stored);
        assert_eq!(
            publish(&pubsub, &batch, Some(10)).await,
            [Outcome::Repeat, Outcome::Repeat]
        );
        // One whose ids nobody knows any more is known by its position.
        publish(&pubsub, &[message(b"c")], Some(9)).await;
        // The same ids later, by another way.
        assert_eq!(
            publish(&pubsub, &[message(b"a")], Some(11)).await,
            [Outcome::Repeat]
        );
        let other = Message {
            digest: Some(8),
            ..message(b"a")
        };
        assert_eq!(
            publish(&pubsub, &[other], None).await,
            [Outcome::Refused(StoreError::TokenReused)]
        );
        let seen = read_all(&pubsub, 1, NOW).await;
        assert_eq!(seen, [(1, b"a".to_vec()), (2, b"b".to_vec())]);
        let noted = postgres.positions(LogId(5)).await.expect("positions");
        assert_eq!(noted.iter().map(|at| at.lsn).collect::<Vec<_>>(), [11]);
    });
}

#[test]
fn a_reader_passes_no_number_that_is_still_to_come_while_two_gateways_publish() {
    const EACH: u32 = 60;
    let url = shared().database();
    run(async {
        let (_, one) = gateway(&url, 4).await;
        let (_, other) = gateway(&url, 4).await;
        let publisher = |pubsub: PubSub, first: u32| async move {
            for number in 0..EACH {
                let id = (first + number).to_be_bytes();
                assert_eq!(
                    publish(&pubsub, &[message(&id)], None).await,
                    [Outcome::Published]
                );
            }
            Vec::new()
        };
        let reader = |pubsub: PubSub| async move {
            let mut next = 1;
            let mut seen = Seen::default();
            while seen.0.len() < 4 * EACH as usize {
                let read = pubsub.read(SPACE, next, NOW, &mut seen).await.expect("a step");
                assert_eq!(read.gap, None, "nothing is missing at {next}");
                next = read.next;
            }
            seen.0
        };
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for (place, pubsub) in [&one, &other, &one, &other].into_iter().enumerate() {
            tasks.push(Box::pin(publisher(pubsub.clone(), 1_000 * place as u32)));
        }
        tasks.push(Box::pin(reader(one.clone())));
        tasks.push(Box::pin(reader(other.clone())));
        let mut all = join_all(tasks).await;
        let (second, first) = (all.pop().expect("a reader"), all.pop().expect("a reader"));
        assert_eq!(first, second, "both see the same, in the same order");
        let numbers: Vec<u64> = first.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=u64::from(4 * EACH)).collect::<Vec<_>>());
    });
}

#[test]
fn p7_the_same_publish_at_two_gateways_is_one_message() {
    let url = shared().database();
    run(async {
        let (_, one) = gateway(&url, 2).await;
        let (_, other) = gateway(&url, 2).await;
        for number in 0..30_u32 {
            let id = number.to_be_bytes();
            let batch = [message(&id)];
            let calls = [one.clone(), other.clone()].map(|pubsub| {
                let batch = &batch;
                async move { publish(&pubsub, batch, None).await.remove(0) }
            });
            let outcomes = join_all(calls.into_iter().collect()).await;
            assert!(
                outcomes.contains(&Outcome::Published) && outcomes.contains(&Outcome::Repeat),
                "{outcomes:?}"
            );
        }
        assert_eq!(read_all(&other, 1, NOW).await.len(), 30);
    });
}

#[test]
fn what_has_expired_is_swept_and_a_dropped_namespace_leaves_nothing() {
    let server = shared();
    let url = server.database();
    run(async {
        let (postgres, pubsub) = gateway(&url, 2).await;
        let ids: Vec<[u8; 4]> = (0..20_u32).map(u32::to_be_bytes).collect();
        let batch: Vec<_> = ids.iter().map(|id| message(id)).collect();
        publish(&pubsub, &batch, None).await;
        let later = NOW.plus(3_600_000);
        while pubsub.sweep(later, 7).await.expect("a sweep").more {}
        let database = url.rsplit('/').next().expect("a name");
        let count = |table: &str| server.sql(database, &format!("SELECT count(*) FROM prism.{table}"));
        assert_eq!((count("message"), count("message_id")), ("0".into(), "0".into()));
        let opened = pubsub.open(SPACE, Start::Earliest, later).await.expect("a start");
        assert_eq!(opened, Opened::At(21), "numbers go on");
        publish(&pubsub, &[message(b"last")], None).await;
        pubsub.drop_namespace(SPACE).await.expect("dropped");
        let refused = publish(&pubsub, &[message(b"late")], None).await;
        assert_eq!(refused, [Outcome::Refused(StoreError::DroppedNamespace(SPACE))]);
        let keyvalue = KeyValue::new(&postgres);
        while keyvalue::Upkeep::sweep(&keyvalue, NOW, 7)
            .await
            .expect("a sweep")
            .more
        {}
        for table in ["message", "message_id", "counter"] {
            assert_eq!(count(table), "0", "{table}");
        }
    });
}

#[test]
fn who_is_overtaken_by_the_sweep_gets_a_gap_and_passes_what_it_does_not_want() {
    let url = shared().database();
    run(async {
        let (_, pubsub) = gateway(&url, 2).await;
        let ids: Vec<[u8; 4]> = (0..600_u32).map(u32::to_be_bytes).collect();
        let batch = ids.iter().enumerate().map(|(number, id)| Message {
            // More than a step is gone before a reader, and more than one is not wanted after it.
            expires_at: Some(NOW.plus(if number < 300 { 1_000 } else { 60_000 })),
            topic: if number == 599 { "bills" } else { "orders" },
            ..message(id)
        });
        publish(&pubsub, &batch.collect::<Vec<_>>(), None).await;
        let later = NOW.plus(2_000);
        while pubsub.sweep(later, 100).await.expect("a sweep").more {}
        struct Bills(Vec<u64>);
        impl MessageSink for Bills {
            fn wants(&mut self, topic: &str) -> bool {
                topic == "bills"
            }
            fn message(&mut self, message: &Stored<'_>) -> bool {
                self.0.push(message.number);
                true
            }
        }
        let (mut bills, mut next, mut gaps) = (Bills(Vec::new()), 1, Vec::new());
        loop {
            let Read { next: at, gap, more } =
                pubsub.read(SPACE, next, later, &mut bills).await.expect("a step");
            gaps.extend(gap);
            next = at;
            if !more {
                break;
            }
        }
        let gap = Gap {
            messages: 300,
            oldest_left: Some(NOW),
        };
        assert_eq!((bills.0, next, gaps), (vec![600], 601, vec![gap]));
        let opened = pubsub.open(SPACE, Start::Number(300), later).await;
        assert_eq!(opened, Ok(Opened::Expired(Some(NOW))));
        let opened = pubsub.open(SPACE, Start::Number(602), later).await;
        assert_eq!(opened, Ok(Opened::Unknown));
    });
}

#[test]
fn a_gateway_that_listens_learns_what_another_has_stored() {
    let url = shared().database();
    run(async {
        let (one, _) = gateway(&url, 2).await;
        let (other, pubsub) = gateway(&url, 2).await;
        one.keep_listening().await.expect("it listens");
        publish(&pubsub, &[message(b"a"), message(b"b")], None).await;
        other.announce(&[NamespaceId(4)], &[SPACE]).await.expect("said");
        let mut heard = Vec::new();
        for _ in 0..3_000 {
            heard.extend(one.news());
            if heard.len() == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        heard.sort_by_key(|one| one.namespace.0);
        let written = |namespace, head| Written { namespace, head };
        assert_eq!(heard, [written(NamespaceId(4), None), written(SPACE, Some(3))]);
    });
}

#[test]
fn tables_of_the_third_format_are_moved_on_and_a_program_of_it_may_use_them() {
    let server = shared();
    let url = server.database();
    let database = url.rsplit('/').next().expect("a name");
    run(async {
        let (postgres, _) = gateway(&url, 2).await;
        // As a program of the third format has left them, with a queue that has a counter.
        server.sql(database, "DROP TABLE prism.message, prism.message_id");
        server.sql(database, "UPDATE prism.format SET version = 3");
        server.sql(database, "INSERT INTO prism.counter VALUES (9, 5, 0)");
        assert_eq!(postgres.ensure(true).await.expect("a look").format, 3);
        let moved = postgres.ensure(false).await.expect("tables");
        assert_eq!((moved.format, moved.usable_from), (FORMAT, 1));
        let pubsub = PubSub::new(&postgres);
        publish(&pubsub, &[message(b"a")], None).await;
        assert_eq!(read_all(&pubsub, 5, NOW).await, [(5, b"a".to_vec())]);
    });
}

#[test]
fn a_plain_client_reads_topics_as_store_md_says() {
    let server = shared();
    let url = server.database();
    let database = url.rsplit('/').next().expect("a name");
    run(async {
        let (_, pubsub) = gateway(&url, 2).await;
        publish(&pubsub, &[message(b"dark"), message(b"light")], None).await;
        let gone = NamespaceId(10);
        pubsub.create_namespace(gone).await.expect("a namespace");
        let one = Message {
            namespace: gone,
            ..message(b"x")
        };
        publish(&pubsub, &[one], None).await;
        pubsub.drop_namespace(gone).await.expect("dropped");
        let text = include_str!("../src/postgres/STORE.md");
        let statements = text.split("```sql\n").skip(1);
        let statement = statements
            .filter_map(|rest| rest.split("```").next())
            .find(|statement| statement.contains("prism.message "));
        assert_eq!(
            server.sql(database, statement.expect("an example")),
            "9|1|orders|k|2023-11-14 22:13:20+00|dark\n9|2|orders|k|2023-11-14 22:13:20+00|light"
        );
    });
}
