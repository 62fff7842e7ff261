//! Declared rates through the gateway: over all shards and connections, refusals that say when to
//! come back, and subscriptions that are slowed down and not failed.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use prism_codec::{
    grpc::Code,
    proto::{
        google::rpc::{ErrorInfo, RetryInfo},
        prism::{
            admin::v1::{CreateRequest, CreateResponse, StatusRequest, StatusResponse},
            keyvalue::v1::{
                Item, MutateRequest, MutateResponse, Mutation, PutItems, PutRequest, PutResponse, mutation,
            },
            pubsub::v1::{
                Message as Published, PublishRequest, PublishResponse, Start as StartKind, StartAt,
                SubscribeRequest, SubscribeResponse, start_at,
            },
        },
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::EmbeddedStore,
};
use prost::Message as _;

use super::support::{CALL_TIMEOUT, Gateway};

const SHARDS: usize = 3;
const RATE: u64 = 100;

fn create(gateway: &Gateway, name: &str, api: &str, needs: &str) {
    let yaml = format!("namespace: {name}\nclient_api: {api}\nneeds: {{durability: best-effort, {needs}}}\n");
    let _: CreateResponse = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
        .expect("the namespace is created");
}

fn put(client: &mut Client, namespace: &str, id: u64) -> Result<PutResponse, ClientError> {
    let request = PutRequest {
        namespace: namespace.into(),
        id: format!("id-{id}"),
        items: vec![Item {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            ..Item::default()
        }],
        ..PutRequest::default()
    };
    client.unary("/prism.keyvalue.v1.KeyValue/Put", &request)
}

/// The reason of a refusal, and the delay after which to come back.
fn refusal(error: &ClientError) -> (String, Option<Duration>) {
    let ClientError::Status(status) = error else {
        panic!("{error}")
    };
    let detail = |name: &str| {
        let found = status.details.iter().find(|any| any.type_url.ends_with(name));
        found.map(|any| &any.value[..])
    };
    let info = detail("google.rpc.ErrorInfo").map(|bytes| ErrorInfo::decode(bytes).expect("it reads"));
    let info = info.unwrap_or_default();
    let delay = detail("google.rpc.RetryInfo").map(|bytes| {
        let info = RetryInfo::decode(bytes).expect("it reads");
        let delay = info.retry_delay.unwrap_or_default();
        Duration::new(delay.seconds.unsigned_abs(), delay.nanos.unsigned_abs())
    });
    if info.reason == "RATE_LIMITED" {
        assert_eq!(status.code, Code::ResourceExhausted as i32);
        assert_eq!(info.metadata["declared"], RATE.to_string());
    }
    (info.reason, delay)
}

#[test]
fn a_declared_rate_holds_over_all_shards_and_connections() {
    let gateway = Gateway::start(EmbeddedStore::Memory, SHARDS);
    create(&gateway, "bounded", "keyvalue", &format!("write_rps: {RATE}"));
    create(&gateway, "free", "keyvalue", "");
    let (accepted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for worker in 0..6 {
            let (accepted, refused) = (&accepted, &refused);
            let mut client = gateway.client();
            scope.spawn(move || {
                // Until some have been refused, however slow the machine is.
                for id in 0.. {
                    match put(&mut client, "bounded", worker * 1_000_000 + id) {
                        Ok(_) => accepted.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            let (reason, delay) = refusal(&error);
                            assert_eq!(reason, "RATE_LIMITED", "{error}");
                            let delay = delay.expect("it says when to come back");
                            assert!(
                                delay > Duration::ZERO && delay < Duration::from_secs(2),
                                "{delay:?}"
                            );
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                    let enough = refused.load(Ordering::Relaxed) >= 100
                        && start.elapsed() >= Duration::from_millis(500);
                    if enough || start.elapsed() > CALL_TIMEOUT {
                        return;
                    }
                    put(&mut client, "free", id).expect("it declares no rate");
                }
            });
        }
    });
    let elapsed = start.elapsed();
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    // A full bucket, what the time has added, and a token in the hand of each shard.
    let most = RATE + (RATE as f64 * elapsed.as_secs_f64()).ceil() as u64 + SHARDS as u64;
    assert!(refused >= 100, "{refused} refused");
    assert!(
        (RATE..=most).contains(&accepted),
        "{accepted} accepted, at most {most}"
    );

    // Who comes back as late as told is served: nobody else is there any more.
    let mut client = gateway.client();
    let deadline = Instant::now() + CALL_TIMEOUT;
    let mut waits = 0;
    while let Err(error) = put(&mut client, "bounded", 1) {
        let (_, delay) = refusal(&error);
        thread::sleep(delay.unwrap_or_default());
        waits += 1;
        assert!(waits < 5 && Instant::now() < deadline, "{error}");
    }
    let request = StatusRequest {
        name: "bounded".into(),
    };
    let status: StatusResponse = client
        .unary("/prism.admin.v1.Namespaces/Status", &request)
        .expect("its status");
    assert!(status.limited >= refused, "{} of {refused}", status.limited);
    let (_, page) = client.page("/metrics").expect("the page");
    let page = String::from_utf8_lossy(&page);
    assert!(
        page.contains("prism_rate_limited_total{namespace=\"bounded\",limit=\"write_rps\"}"),
        "{page}"
    );
}

#[test]
fn items_of_a_batch_count_and_one_beyond_the_bucket_is_never_let_through() {
    let gateway = Gateway::start(EmbeddedStore::Memory, 2);
    create(&gateway, "batches", "keyvalue", &format!("write_rps: {RATE}"));
    let mut client = gateway.client();
    let mut mutate = |count: u64| {
        let mutation = |id: u64| Mutation {
            id: format!("id-{id}"),
            operation: Some(mutation::Operation::Put(PutItems {
                items: vec![Item {
                    key: b"k".to_vec(),
                    ..Item::default()
                }],
            })),
        };
        let request = MutateRequest {
            namespace: "batches".into(),
            mutations: (0..count).map(mutation).collect(),
            ..MutateRequest::default()
        };
        let reply: Result<MutateResponse, _> = client.unary("/prism.keyvalue.v1.KeyValue/Mutate", &request);
        reply.map(drop).map_err(|error| refusal(&error))
    };
    assert_eq!(mutate(RATE + 1), Err(("BATCH_TOO_LARGE".into(), None)));
    assert_eq!(mutate(RATE - 10), Ok(()));
    // Most tokens are gone, unless the machine took a second between two calls.
    let refused = (0..60).find_map(|_| mutate(RATE - 10).err());
    let (reason, delay) = refused.expect("calls that come faster than the rate");
    assert_eq!(reason, "RATE_LIMITED");
    assert!(delay > Some(Duration::from_millis(1)), "{delay:?}");
}

#[test]
fn a_subscription_beyond_its_rate_is_slowed_down_and_loses_nothing() {
    const MESSAGES: usize = 180;
    const EARLIEST: i32 = StartKind::Earliest as i32;
    let gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
    create(&gateway, "events", "pubsub", &format!("read_rps: {RATE}"));
    let mut client = gateway.client();
    for number in 0..MESSAGES {
        let request = PublishRequest {
            namespace: "events".into(),
            message: Some(Published {
                topic: "t".into(),
                payload: number.to_string().into_bytes(),
                ..Published::default()
            }),
            ..PublishRequest::default()
        };
        let _: PublishResponse = client
            .unary("/prism.pubsub.v1.PubSub/Publish", &request)
            .expect("published");
    }
    let request = SubscribeRequest {
        namespace: "events".into(),
        start: Some(StartAt {
            place: Some(start_at::Place::Start(EARLIEST)),
        }),
        ..SubscribeRequest::default()
    };
    let start = Instant::now();
    let mut seen = Vec::new();
    client
        .server_streaming(
            "/prism.pubsub.v1.PubSub/Subscribe",
            &request,
            |answer: SubscribeResponse| {
                assert!(answer.gap.is_none(), "nothing is missing");
                seen.extend(
                    answer
                        .messages
                        .into_iter()
                        .map(|one| one.message.unwrap_or_default().payload),
                );
                match seen.len() < MESSAGES {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            },
        )
        .expect("it is not failed");
    let mut expected: Vec<_> = (0..MESSAGES)
        .map(|number| number.to_string().into_bytes())
        .collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected, "each of them once");
    // What a full bucket does not hold takes its time; the subscription itself took one token.
    let beyond = (MESSAGES as u64 - RATE) as f64 / RATE as f64;
    let elapsed = start.elapsed().as_secs_f64();
    assert!(elapsed >= beyond * 0.9, "{elapsed} s for {beyond} s of messages");
}
