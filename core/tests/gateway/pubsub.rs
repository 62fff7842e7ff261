//! PubSub through the gateway: the behaviour suite of its stores with 1, 2 and 3 shards at each
//! durability, and the features that only a gateway has: streams that end, quotas, replays of its
//! log.

use std::{
    ops::ControlFlow,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    task::{Context, Waker},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prism_backends::{
    behavior::{
        Failure, FailureKind, WriteToken,
        pubsub::{self, Answer, Client as SuiteClient, Harness, Received, Sent, Start, Subscription},
    },
    memory,
    offer::Offer,
    sqlite,
};
use prism_codec::proto::{
    google::rpc::{BadRequest, ErrorInfo, Status},
    prism::{
        admin::v1::{CreateRequest, CreateResponse, DeleteRequest, DeleteResponse},
        common::v1::{Durability, IdempotencyToken, WriteResult},
        pubsub::v1::{
            Message as WireMessage, PublishBatchRequest, PublishBatchResponse, PublishRequest,
            PublishResponse, StartAt, SubscribeRequest, SubscribeResponse, start_at,
        },
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::EmbeddedStore,
};
use prost::Message;

use super::support::{CALL_TIMEOUT, Gateway};

pub(super) const PUBSUB: &str = "/prism.pubsub.v1.PubSub";

#[test]
fn memory_with_one_shard() {
    run_suite(EmbeddedStore::Memory, "best-effort", 1);
}

#[test]
fn memory_with_two_shards() {
    run_suite(EmbeddedStore::Memory, "best-effort", 2);
}

#[test]
fn memory_with_three_shards() {
    run_suite(EmbeddedStore::Memory, "best-effort", 3);
}

#[test]
fn sqlite_at_best_effort_with_one_and_three_shards() {
    run_suite(EmbeddedStore::Sqlite, "best-effort", 1);
    run_suite(EmbeddedStore::Sqlite, "best-effort", 3);
}

#[test]
fn eventual_with_one_two_and_three_shards() {
    for shards in 1..=3 {
        run_suite(EmbeddedStore::Sqlite, "eventual", shards);
    }
}

#[test]
fn strong_with_one_shard() {
    run_suite(EmbeddedStore::Sqlite, "strong", 1);
}

#[test]
fn strong_with_two_shards() {
    run_suite(EmbeddedStore::Sqlite, "strong", 2);
}

#[test]
fn strong_with_three_shards() {
    run_suite(EmbeddedStore::Sqlite, "strong", 3);
}

fn run_suite(store: EmbeddedStore, durability: &'static str, shards: usize) {
    let offer = match store {
        EmbeddedStore::Memory => memory::PUBSUB,
        EmbeddedStore::Sqlite => sqlite::PUBSUB,
    };
    run_suite_on(Gateway::start(store, shards), offer, durability);
}

/// Runs the cases that the offer of the gateway's store claims, with namespaces of this durability.
pub(super) fn run_suite_on(gateway: Gateway, offer: Offer, durability: &'static str) {
    let mut harness = GatewayHarness {
        gateway,
        offer,
        durability,
        namespaces: 0,
    };
    run_to_end(pubsub::run(&mut harness));
}

/// The calls of this harness block, so a future that is not ready has only yielded to the others.
pub(super) fn run_to_end(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    while future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
    {}
}

struct GatewayHarness {
    gateway: Gateway,
    offer: Offer,
    durability: &'static str,
    namespaces: u32,
}

pub(super) struct GatewayClient {
    pub(super) namespace: String,
    durability: Durability,
    /// Whether writes are acknowledged before the store has them.
    is_queued: bool,
    pub(super) address: String,
    connections: Vec<Client>,
    turn: usize,
}

pub(super) fn create(gateway: &Gateway, name: &str, durability: &str, more: &str) {
    let yaml = format!(
        "namespace: {name}\nteam: tests\nclient_api: pubsub\nneeds:\n  durability: {durability}\n  ordered: true\n{more}"
    );
    let _: CreateResponse = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
        .expect("the namespace is created");
}

impl GatewayHarness {
    fn connect(&self, namespace: String) -> GatewayClient {
        let is_sqlite = super::homes::backend(&self.gateway, &namespace).starts_with("SQLite");
        let is_queued = self.durability == "best-effort" && is_sqlite;
        GatewayClient {
            namespace,
            durability: durability_of(self.durability),
            is_queued,
            address: self.gateway.address().to_owned(),
            connections: (0..3).map(|_| self.gateway.client()).collect(),
            turn: 0,
        }
    }
}

pub(super) fn durability_of(name: &str) -> Durability {
    match name {
        "strong" => Durability::Strong,
        "eventual" => Durability::Eventual,
        _ => Durability::BestEffort,
    }
}

impl Harness for GatewayHarness {
    type Client = GatewayClient;

    async fn client(&mut self, life: Option<Duration>) -> GatewayClient {
        self.namespaces += 1;
        let namespace = format!("suite-{}", self.namespaces);
        let more = life.map_or_else(
            || "  max_message_size: 2MB\n".to_owned(),
            |life| format!("  ttl: {}s\n", life.as_secs()),
        );
        create(&self.gateway, &namespace, self.durability, &more);
        self.connect(namespace)
    }

    async fn client_beside(&mut self, client: &GatewayClient) -> GatewayClient {
        self.connect(client.namespace.clone())
    }

    fn now_ns(&mut self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("a clock after 1970").as_nanos() as i64
    }

    async fn pass(&mut self, time: Duration) {
        // The gateway reads the wall clock, and the case demands that time passes.
        thread::sleep(time);
    }

    fn offer(&self) -> Offer {
        self.offer
    }

    fn is_gateway(&self) -> bool {
        true
    }

    fn payload_bytes_max(&self) -> usize {
        2_000_000
    }
}

impl GatewayClient {
    pub(super) fn call<Reply: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<Reply, Failure> {
        self.turn = (self.turn + 1) % self.connections.len();
        let path = format!("{PUBSUB}/{method}");
        self.connections[self.turn].unary(&path, request).map_err(failure)
    }

    pub(super) fn check(&self, result: Option<WriteResult>) {
        let result = result.expect("a result");
        assert_eq!(result.durability(), self.durability);
        match self.durability {
            Durability::Strong => assert!(result.lane > 0 && result.lsn > 0, "acknowledged by its record"),
            _ if self.is_queued => assert!(!result.applied, "acknowledged when it is queued"),
            _ => assert!(result.applied, "acknowledged when the store has it"),
        }
    }
}

impl SuiteClient for GatewayClient {
    type Subscription = GatewaySubscription;

    async fn publish(&mut self, token: Option<&WriteToken>, message: &Sent) -> Result<Vec<u8>, Failure> {
        let request = PublishRequest {
            namespace: self.namespace.clone(),
            idempotency_token: token.map(wire_token),
            message: Some(wire_message(message)),
        };
        let response: PublishResponse = self.call("Publish", &request)?;
        self.check(response.result);
        Ok(response.message_id)
    }

    async fn publish_batch(
        &mut self,
        token: Option<&WriteToken>,
        messages: &[Sent],
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure> {
        let request = PublishBatchRequest {
            namespace: self.namespace.clone(),
            idempotency_token: token.map(wire_token),
            messages: messages.iter().map(wire_message).collect(),
        };
        let response: PublishBatchResponse = self.call("PublishBatch", &request)?;
        let one = |one: prism_codec::proto::prism::pubsub::v1::PublishResult| match one.status {
            Some(status) if status.code != 0 => Err(failure(ClientError::Status(Box::new(status)))),
            _ => {
                self.check(one.result);
                Ok(one.message_id)
            }
        };
        Ok(response.results.into_iter().map(one).collect())
    }

    async fn subscribe(&mut self, topics: &[&str], start: &Start) -> Result<GatewaySubscription, Failure> {
        let request = SubscribeRequest {
            namespace: self.namespace.clone(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            start: Some(wire_start(start)),
            batch_messages: 7,
            ..SubscribeRequest::default()
        };
        GatewaySubscription::open(&self.address, request)
    }
}

/// A stream that is read by a thread of its own.
pub(super) struct GatewaySubscription {
    pub(super) answers: Receiver<Result<SubscribeResponse, ClientError>>,
    is_dropped: Arc<AtomicBool>,
    position: Vec<u8>,
}

impl GatewaySubscription {
    /// Subscribes, and waits for the first answer.
    pub(super) fn open(address: &str, request: SubscribeRequest) -> Result<Self, Failure> {
        let (sender, answers) = channel();
        let is_dropped = Arc::new(AtomicBool::new(false));
        let dropped = is_dropped.clone();
        let mut client = Client::connect(address, CALL_TIMEOUT).expect("the gateway takes connections");
        thread::spawn(move || {
            let ended = client.server_streaming(
                &format!("{PUBSUB}/Subscribe"),
                &request,
                |answer: SubscribeResponse| {
                    let is_wanted = sender.send(Ok(answer)).is_ok() && !dropped.load(Ordering::SeqCst);
                    match is_wanted {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                },
            );
            if let Err(error) = ended {
                let _ = sender.send(Err(error));
            }
        });
        let first = answers.recv_timeout(CALL_TIMEOUT).expect("a first answer");
        let first = first.map_err(failure)?;
        assert!(first.messages.is_empty(), "the first answer says that it stands");
        Ok(Self {
            answers,
            is_dropped,
            position: first.position,
        })
    }

    /// The error with which the stream ends.
    pub(super) fn end(&mut self) -> Status {
        loop {
            match self.answers.recv_timeout(CALL_TIMEOUT).expect("an end") {
                Ok(_) => {}
                Err(ClientError::Status(status)) => return *status,
                Err(other) => panic!("{other}"),
            }
        }
    }
}

impl Drop for GatewaySubscription {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::SeqCst);
    }
}

impl Subscription for GatewaySubscription {
    async fn next(&mut self, wait: Duration) -> Result<Option<Answer>, Failure> {
        let answer = match self.answers.recv_timeout(wait) {
            Ok(answer) => answer.map_err(failure)?,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => panic!("a subscription does not end by itself"),
        };
        let says_something = answer.gap.is_some() || answer.waiting_for_commit;
        assert!(!answer.messages.is_empty() || says_something, "{answer:?}");
        assert!(answer.messages.len() <= 7, "batch_messages");
        self.position.clone_from(&answer.position);
        Ok(Some(Answer {
            messages: answer.messages.into_iter().map(received).collect(),
            gap: answer.gap.map(|gap| gap.messages),
            position: answer.position,
            is_waiting: answer.waiting_for_commit,
        }))
    }

    fn position(&self) -> Vec<u8> {
        self.position.clone()
    }
}

pub(super) fn wire_token(token: &WriteToken) -> IdempotencyToken {
    IdempotencyToken {
        generation_time: Some(prost_types::Timestamp {
            seconds: token.generation_time_ns.div_euclid(1_000_000_000),
            nanos: token.generation_time_ns.rem_euclid(1_000_000_000) as i32,
        }),
        token: token.token.clone(),
    }
}

fn wire_message(message: &Sent) -> WireMessage {
    WireMessage {
        topic: message.topic.clone(),
        payload: message.payload.clone(),
        ordering_key: message.key.clone(),
        attributes: message.attributes.iter().cloned().collect(),
    }
}

pub(super) fn wire_start(start: &Start) -> StartAt {
    use prism_codec::proto::prism::pubsub::v1::Start as Wire;
    let place = match start {
        Start::Latest => start_at::Place::Start(Wire::Latest.into()),
        Start::Earliest => start_at::Place::Start(Wire::Earliest.into()),
        Start::Time(time_ms) => start_at::Place::Time(prost_types::Timestamp {
            seconds: (time_ms / 1_000) as i64,
            nanos: (time_ms % 1_000) as i32 * 1_000_000,
        }),
        Start::Position(position) => start_at::Place::Position(position.clone()),
    };
    StartAt { place: Some(place) }
}

fn received(one: prism_codec::proto::prism::pubsub::v1::ReceivedMessage) -> Received {
    let message = one.message.expect("a message");
    let time = one.store_time.expect("a time");
    Received {
        id: one.id,
        message: Sent {
            topic: message.topic,
            key: message.ordering_key,
            attributes: message.attributes.into_iter().collect(),
            payload: message.payload,
        },
        time_ms: time.seconds as u64 * 1_000 + time.nanos as u64 / 1_000_000,
    }
}

pub(super) fn failure(error: ClientError) -> Failure {
    let ClientError::Status(status) = error else {
        panic!("the call did not reach the gateway: {error}")
    };
    let kind = match (status.code, reason(&status).as_str()) {
        (3, "TOKEN_REUSED") => FailureKind::TokenReused,
        (3, "POSITION_INVALID") => FailureKind::PositionInvalid,
        (3, _) => FailureKind::InvalidArgument,
        (9, "TOKEN_EXPIRED") => FailureKind::TokenExpired,
        (11, "POSITION_EXPIRED") => FailureKind::PositionExpired,
        (10, "LEASE_LOST") => FailureKind::LeaseLost,
        (10, "PARTITION_LOST") => FailureKind::PartitionLost,
        (10, "GROUP_RESET") => FailureKind::GroupReset,
        (10, "COMMIT_TIMEOUT") => FailureKind::CommitTimeout,
        (9, "LEASE_TOO_LONG") => FailureKind::LeaseTooLong,
        (5, "MESSAGE_GONE") => FailureKind::MessageGone,
        _ => FailureKind::Other,
    };
    let field = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("google.rpc.BadRequest"))
        .map(|detail| BadRequest::decode(detail.value.as_slice()).expect("a BadRequest"))
        .and_then(|request| request.field_violations.into_iter().next())
        .map(|violation| violation.field);
    Failure {
        kind,
        field,
        message: status.message,
    }
}

pub(super) fn reason(status: &Status) -> String {
    let detail = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"));
    detail.map_or_else(String::new, |detail| {
        ErrorInfo::decode(detail.value.as_slice())
            .expect("an ErrorInfo")
            .reason
    })
}

pub(super) fn subscribe(gateway: &Gateway, namespace: &str, start: &Start) -> GatewaySubscription {
    subscribe_at(gateway.address(), namespace, start)
}

pub(super) fn subscribe_at(address: &str, namespace: &str, start: &Start) -> GatewaySubscription {
    open_at(address, namespace, start).expect("a subscription")
}

pub(super) fn open_at(address: &str, namespace: &str, start: &Start) -> Result<GatewaySubscription, Failure> {
    let request = SubscribeRequest {
        namespace: namespace.to_owned(),
        start: Some(wire_start(start)),
        batch_messages: 7,
        ..SubscribeRequest::default()
    };
    GatewaySubscription::open(address, request)
}

pub(super) fn publish(
    client: &mut Client,
    namespace: &str,
    payload: &str,
) -> Result<PublishResponse, ClientError> {
    let request = PublishRequest {
        namespace: namespace.to_owned(),
        idempotency_token: None,
        message: Some(WireMessage {
            topic: "orders".to_owned(),
            payload: payload.into(),
            ordering_key: payload.to_owned(),
            ..WireMessage::default()
        }),
    };
    client.unary(&format!("{PUBSUB}/Publish"), &request)
}

/// Homes of the namespaces, their durability, and the number of shards.
const HOMES: [(EmbeddedStore, &str, usize); 3] = [
    (EmbeddedStore::Memory, "best-effort", 3),
    (EmbeddedStore::Sqlite, "eventual", 2),
    (EmbeddedStore::Sqlite, "strong", 2),
];

#[test]
fn p32_a_deleted_namespace_ends_its_streams() {
    for (store, durability, shards) in HOMES {
        let gateway = Gateway::start(store, shards);
        create(&gateway, "gone", durability, "");
        create(&gateway, "stays", durability, "");
        let mut streams: Vec<_> = (0..4)
            .map(|_| subscribe(&gateway, "gone", &Start::Latest))
            .collect();
        let other = subscribe(&gateway, "stays", &Start::Latest);
        let delete = DeleteRequest {
            name: "gone".to_owned(),
        };
        let _: DeleteResponse = gateway
            .client()
            .unary("/prism.admin.v1.Namespaces/Delete", &delete)
            .expect("deleted");
        for stream in &mut streams {
            let status = stream.end();
            assert_eq!(
                (status.code, reason(&status).as_str()),
                (5, "NAMESPACE_UNKNOWN"),
                "{durability}"
            );
        }
        let refused = publish(&mut gateway.client(), "gone", "x").expect_err("deleted");
        assert!(matches!(refused, ClientError::Status(status) if status.code == 5));
        publish(&mut gateway.client(), "stays", "x").expect("published");
        let answer = other
            .answers
            .recv_timeout(CALL_TIMEOUT)
            .expect("an answer")
            .expect("a message");
        assert_eq!(answer.messages.len(), 1);
    }
}

#[test]
fn p30_a_drain_ends_streams_and_their_positions_go_on_at_the_next_start() {
    for durability in ["best-effort", "eventual", "strong"] {
        let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
        create(&gateway, "events", durability, "");
        let mut stream = subscribe(&gateway, "events", &Start::Latest);
        publish(&mut gateway.client(), "events", "before").expect("published");
        let answer = stream
            .answers
            .recv_timeout(CALL_TIMEOUT)
            .expect("an answer")
            .expect("a message");
        publish(&mut gateway.client(), "events", "after").expect("published");
        gateway.stop();
        let status = stream.end();
        assert_eq!((status.code, reason(&status).as_str()), (14, "NOT_SERVING"));
        // Another number of shards changes the owners, not the position.
        gateway.start_again(|options| options.shards = 3.try_into().expect("not 0"));
        publish(&mut gateway.client(), "events", "later").expect("published");
        let stream = subscribe(&gateway, "events", &Start::Position(answer.position));
        let mut payloads = Vec::new();
        while payloads.len() < 2 {
            let answer = stream
                .answers
                .recv_timeout(CALL_TIMEOUT)
                .expect("an answer")
                .expect("messages");
            payloads.extend(
                answer
                    .messages
                    .into_iter()
                    .map(|one| one.message.expect("one").payload),
            );
        }
        assert_eq!(payloads, [b"after".to_vec(), b"later".to_vec()], "{durability}");
    }
}

#[test]
fn p29_without_replay_only_the_latest_is_a_start() {
    let gateway = Gateway::start(EmbeddedStore::Sqlite, 1);
    create(&gateway, "live", "strong", "  replay: false\n");
    let request = |start: &Start| SubscribeRequest {
        namespace: "live".to_owned(),
        start: Some(wire_start(start)),
        ..SubscribeRequest::default()
    };
    for start in [Start::Earliest, Start::Time(0)] {
        let refused = GatewaySubscription::open(gateway.address(), request(&start))
            .err()
            .expect("refused");
        assert_eq!(
            (refused.kind, refused.field.as_deref()),
            (FailureKind::InvalidArgument, Some("start"))
        );
    }
    subscribe(&gateway, "live", &Start::Latest);
}

#[test]
fn what_a_namespace_does_not_allow_refuses_the_whole_batch() {
    let gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
    let yaml = "namespace: plain\nteam: tests\nclient_api: pubsub\nneeds: {durability: strong, max_message_size: 1KB}\n";
    let mut client = gateway.client();
    let _: CreateResponse = client
        .unary(
            "/prism.admin.v1.Namespaces/Create",
            &CreateRequest {
                yaml: yaml.to_owned(),
            },
        )
        .expect("the namespace is created");
    let message = |payload: usize, key: &str| WireMessage {
        payload: vec![7; payload],
        ordering_key: key.to_owned(),
        ..WireMessage::default()
    };
    for (bad, field) in [
        (message(1_001, ""), "messages[1].payload"),
        (message(1, "k"), "messages[1].ordering_key"),
    ] {
        let request = PublishBatchRequest {
            namespace: "plain".to_owned(),
            idempotency_token: None,
            messages: vec![message(1_000, ""), bad],
        };
        let refused = client
            .unary::<PublishBatchResponse>(&format!("{PUBSUB}/PublishBatch"), &request)
            .expect_err("not allowed");
        assert_eq!(failure(refused).field.as_deref(), Some(field));
    }
    let all = subscribe(&gateway, "plain", &Start::Earliest);
    let nothing = all.answers.recv_timeout(Duration::from_millis(200));
    assert!(nothing.is_err(), "nothing was done");
}

#[test]
fn more_streams_than_a_namespace_may_have_are_refused_and_places_come_back() {
    let gateway = Gateway::start_with(EmbeddedStore::Sqlite, 1, |options| {
        options.limits.streams_per_namespace_max = 3;
        options.limits.inflight_per_shard_max = 2;
    });
    create(&gateway, "events", "strong", "");
    let streams: Vec<_> = (0..3)
        .map(|_| subscribe(&gateway, "events", &Start::Latest))
        .collect();
    let request = SubscribeRequest {
        namespace: "events".to_owned(),
        ..SubscribeRequest::default()
    };
    let refused = GatewaySubscription::open(gateway.address(), request.clone())
        .err()
        .expect("refused");
    assert!(
        refused.message.contains("limits.streams_per_namespace_max"),
        "{refused:?}"
    );
    // Waiting streams take no place of a call.
    publish(&mut gateway.client(), "events", "one").expect("published");
    drop(streams);
    // Their clients leave with the next message.
    let deadline = std::time::Instant::now() + CALL_TIMEOUT;
    while GatewaySubscription::open(gateway.address(), request.clone()).is_err() {
        assert!(std::time::Instant::now() < deadline, "places come back");
        publish(&mut gateway.client(), "events", "more").expect("published");
    }
}
