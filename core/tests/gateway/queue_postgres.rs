//! Queues on a real PostgreSQL through the gateway: the suite, two gateways on one database, and a
//! server that is killed under load.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use prism_backends::{behavior::queue::Kind, postgres};
use prism_codec::proto::prism::{
    admin::v1::{GetRequest, GetResponse},
    common::v1::IdempotencyToken,
    queue::v1::{
        self as wire, AckRequest, AckResponse, ReceiveRequest, ReceiveResponse, SendRequest, SendResponse,
    },
};
use prism_core::client::{Client, ClientError};

use super::{
    homes::backend,
    postgres::{
        gateway_on,
        server::{Server, durable, shared},
    },
    queue::{QUEUE, create, run_suite_on},
    shared_catalog,
    support::{CALL_TIMEOUT, Gateway},
};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn strong_with_two_shards() {
    run_suite_on(gateway_on(&durable().database(), 2), postgres::QUEUE, "strong");
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn eventual_with_two_shards() {
    run_suite_on(gateway_on(&durable().database(), 2), postgres::QUEUE, "eventual");
}

#[test]
#[ignore = "one cell of the suite of many: `make suites` runs them all"]
fn best_effort_with_one_shard() {
    run_suite_on(
        gateway_on(&shared().database(), 1),
        postgres::QUEUE,
        "best-effort",
    );
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: time.as_secs() as i64,
        nanos: time.subsec_nanos() as i32,
    })
}

fn send(client: &mut Client, namespace: &str, payload: &str) -> Result<(), ClientError> {
    let request = SendRequest {
        namespace: namespace.to_owned(),
        idempotency_token: Some(IdempotencyToken {
            generation_time: None,
            token: payload.as_bytes().to_vec(),
        }),
        message: Some(wire::Message {
            payload: payload.as_bytes().to_vec(),
            ..wire::Message::default()
        }),
    };
    client
        .unary::<SendResponse>(&format!("{QUEUE}/Send"), &request)
        .map(drop)
}

fn receive(
    client: &mut Client,
    namespace: &str,
    (messages_max, wait, lease): (u32, Duration, Duration),
) -> Result<Vec<wire::ReceivedMessage>, ClientError> {
    let request = ReceiveRequest {
        namespace: namespace.to_owned(),
        idempotency_token: None,
        messages_max,
        wait: duration(wait),
        lease: duration(lease),
    };
    client
        .unary::<ReceiveResponse>(&format!("{QUEUE}/Receive"), &request)
        .map(|response| response.messages)
}

/// Acks one receipt. Returns whether it counted.
fn ack(client: &mut Client, namespace: &str, receipt: &[u8]) -> Result<bool, ClientError> {
    let request = AckRequest {
        namespace: namespace.to_owned(),
        idempotency_token: None,
        receipts: vec![receipt.to_vec()],
    };
    let response: AckResponse = client.unary(&format!("{QUEUE}/Ack"), &request)?;
    let status = response.results[0].status.as_ref();
    Ok(status.is_none_or(|status| status.code == 0))
}

/// Two gateways that share a catalog and a database, which has the queue `shared`.
fn two_gateways() -> (Gateway, Gateway) {
    let (catalog, store) = (durable().database(), durable().database());
    let one = shared_catalog::gateway(&catalog, &store);
    let other = shared_catalog::gateway(&catalog, &store);
    create(&one, "shared", "strong", Kind::default());
    assert_eq!(backend(&one, "shared"), "PostgreSQL \"orders\", schema prism");
    let begun = Instant::now();
    let request = GetRequest {
        name: "shared".to_owned(),
    };
    let mut client = other.client();
    while client
        .unary::<GetResponse>("/prism.admin.v1.Namespaces/Get", &request)
        .is_err()
        || send(&mut client, "shared", "probe").is_err()
    {
        assert!(
            begun.elapsed() < PATIENCE,
            "the other gateway does not know the queue"
        );
        thread::sleep(Duration::from_millis(20));
    }
    let lease = Duration::from_secs(60);
    let probe = receive(&mut client, "shared", (1, CALL_TIMEOUT / 2, lease)).expect("the probe");
    assert!(ack(&mut client, "shared", &probe[0].receipt).expect("an answer"));
    (one, other)
}

#[test]
fn q20_q25_a_worker_is_woken_by_a_send_at_another_gateway_and_its_receipt_counts_there() {
    let (one, other) = two_gateways();
    let mut times = Vec::new();
    for round in 0..5 {
        let mut worker = Client::connect(one.address(), CALL_TIMEOUT * 2).expect("a client");
        let waiting = thread::spawn(move || {
            let given = receive(
                &mut worker,
                "shared",
                (10, Duration::from_secs(30), Duration::from_secs(60)),
            );
            (given, Instant::now())
        });
        // It waits: nothing is there.
        thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        let sent = Instant::now();
        send(&mut other.client(), "shared", &format!("work {round}")).expect("sent");
        let (given, at) = waiting.join().expect("a worker");
        let given = given.expect("an answer");
        assert_eq!(given.len(), 1, "long before its 30 s are over");
        times.push(at.saturating_duration_since(sent));
        assert!(ack(&mut other.client(), "shared", &given[0].receipt).expect("an answer"));
    }
    println!("woken by another gateway after {times:?}");
    assert!(
        times.iter().all(|time| *time < Duration::from_secs(20)),
        "{times:?}: woken by its end only"
    );
}

#[test]
fn q23_q25_leases_of_a_gateway_that_is_gone_run_out_and_its_receipts_count_elsewhere() {
    let (one, other) = two_gateways();
    for number in 0..4 {
        send(&mut one.client(), "shared", &number.to_string()).expect("sent");
    }
    let lease = Duration::from_secs(3);
    let given = receive(&mut one.client(), "shared", (4, Duration::ZERO, lease)).expect("messages");
    assert_eq!(given.len(), 4);
    drop(one);
    let mut client = other.client();
    assert!(ack(&mut client, "shared", &given[0].receipt).expect("an answer"));
    let mut again = BTreeSet::new();
    let begun = Instant::now();
    while again.len() < 3 {
        assert!(begun.elapsed() < PATIENCE, "only {again:?} came again");
        let wait = Duration::from_secs(10);
        for one in receive(&mut client, "shared", (4, wait, CALL_TIMEOUT)).expect("an answer") {
            assert_eq!((one.attempt, one.last_failure.as_str()), (2, "lease ended"));
            assert_ne!(one.message_id, given[0].message_id, "it was acked");
            assert!(ack(&mut client, "shared", &one.receipt).expect("an answer"));
            again.insert(one.message_id);
        }
    }
    // Whoever was too slow learns it.
    assert!(!ack(&mut client, "shared", &given[1].receipt).expect("an answer"));
}

#[test]
fn kills_of_the_server_under_load_lose_no_message_and_give_none_again_that_was_acked() {
    let mut server = Server::start(&[]);
    let gateway = gateway_on(&server.url("postgres"), 2);
    create(&gateway, "jobs", "strong", Kind::default());
    let (stop, next) = (AtomicBool::new(false), AtomicU32::new(0));
    let address = gateway.address().to_owned();
    let connect = || Client::connect(&address, CALL_TIMEOUT).expect("a client");
    let acked = Mutex::new(BTreeMap::<Vec<u8>, u32>::new());
    let (late, unknown) = (Mutex::new(Vec::new()), Mutex::new(BTreeSet::new()));
    let worker = |stop: &AtomicBool| {
        let mut client = connect();
        let mut idle = 0;
        // At the end until nothing has come for a while.
        while !stop.load(Ordering::SeqCst) || idle < 5 {
            let ask = (5, Duration::from_millis(500), Duration::from_secs(2));
            let given = receive(&mut client, "jobs", ask).unwrap_or_default();
            idle = if given.is_empty() { idle + 1 } else { 0 };
            for one in given {
                if acked.lock().expect("no panic").contains_key(&one.message_id) {
                    late.lock().expect("no panic").push(one.message_id.clone());
                }
                match ack(&mut client, "jobs", &one.receipt) {
                    Ok(true) => *acked.lock().expect("no panic").entry(one.message_id).or_default() += 1,
                    Ok(false) => {}
                    // It may have counted.
                    Err(_) => drop(unknown.lock().expect("no panic").insert(one.message_id)),
                }
            }
            if idle > 0 {
                thread::sleep(Duration::from_millis(20));
            }
        }
    };
    let mut sent = BTreeSet::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| worker(&stop))).collect();
        let end = super::outage::OnDrop(|| stop.store(true, Ordering::SeqCst));
        let senders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut own) = (connect(), Vec::new());
                    while !stop.load(Ordering::SeqCst) {
                        let payload = next.fetch_add(1, Ordering::SeqCst).to_string();
                        // The log takes it, whether or not the server is there.
                        send(&mut client, "jobs", &payload).expect("sent");
                        own.push(payload.into_bytes());
                        thread::sleep(Duration::from_millis(5));
                    }
                    own
                })
            })
            .collect();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(500));
            server.kill();
            thread::sleep(Duration::from_millis(200));
            server.resume();
            let begun = Instant::now();
            let before = acked.lock().expect("no panic").len();
            while acked.lock().expect("no panic").len() == before {
                assert!(
                    begun.elapsed() < PATIENCE,
                    "nothing is done after the server came back"
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        stop.store(true, Ordering::SeqCst);
        for sender in senders {
            sent.extend(sender.join().expect("a sender"));
        }
        for worker in workers {
            worker.join().expect("a worker");
        }
        drop(end);
    });
    // What a worker could not ack in time waits for the end of its lease.
    let begun = Instant::now();
    let mut client = gateway.client();
    while acked.lock().expect("no panic").len() + unknown.lock().expect("no panic").len() < sent.len()
        && begun.elapsed() < PATIENCE
    {
        let ask = (10, Duration::from_secs(3), CALL_TIMEOUT);
        for one in receive(&mut client, "jobs", ask).expect("messages") {
            if ack(&mut client, "jobs", &one.receipt).expect("an answer") {
                *acked.lock().expect("no panic").entry(one.message_id).or_default() += 1;
            }
        }
    }
    let acked = acked.into_inner().expect("no panic");
    let unknown = unknown.into_inner().expect("no panic");
    let is_done = |id: &&Vec<u8>| acked.contains_key(*id) || unknown.contains(*id);
    let missing: Vec<_> = sent.iter().filter(|id| !is_done(id)).collect();
    assert_eq!(missing, Vec::<&Vec<u8>>::new(), "of {} sent", sent.len());
    assert_eq!(
        late.into_inner().expect("no panic"),
        Vec::<Vec<u8>>::new(),
        "came after their Ack"
    );
    println!(
        "{} messages sent and done over 3 kills of the server, {} Acks without an answer",
        sent.len(),
        unknown.len()
    );
}
