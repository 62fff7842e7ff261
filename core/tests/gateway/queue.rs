//! Queue through the gateway: the behaviour suite of its stores with one and two shards at each
//! durability, and what only a gateway does: workers that wait and are gone, drains, restarts.

use std::{
    collections::BTreeMap,
    sync::mpsc::{TryRecvError, channel},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prism_backends::{
    behavior::{
        Failure, WriteToken,
        queue::{
            self, Ask, Client as SuiteClient, Failed, Harness, Kind, Peeked, Received, Sent, State, Which,
        },
        yield_once,
    },
    memory,
    offer::Offer,
    sqlite,
};
use prism_codec::proto::{
    google::rpc::Status,
    prism::{
        admin::v1::{CreateRequest, CreateResponse},
        common::v1::{Durability, IdempotencyToken, WriteResult},
        queue::v1::{self as wire, delete_request, redrive_request},
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::EmbeddedStore,
};
use prost::Message;

use super::{
    pubsub::{durability_of, failure, run_to_end, wire_token},
    replay::StoreImage,
    support::{CALL_TIMEOUT, Gateway, LogImage},
};

pub(super) const QUEUE: &str = "/prism.queue.v1.Queue";

#[test]
fn memory_with_two_shards() {
    run_suite(EmbeddedStore::Memory, "best-effort", 2);
}

#[test]
fn sqlite_at_best_effort_with_one_shard() {
    run_suite(EmbeddedStore::Sqlite, "best-effort", 1);
}

#[test]
fn eventual_with_two_shards() {
    run_suite(EmbeddedStore::Sqlite, "eventual", 2);
}

#[test]
fn strong_with_one_shard() {
    run_suite(EmbeddedStore::Sqlite, "strong", 1);
}

#[test]
fn strong_with_two_shards() {
    run_suite(EmbeddedStore::Sqlite, "strong", 2);
}

fn run_suite(store: EmbeddedStore, durability: &'static str, shards: usize) {
    let offer = match store {
        EmbeddedStore::Memory => memory::QUEUE,
        EmbeddedStore::Sqlite => sqlite::QUEUE,
    };
    run_suite_on(Gateway::start(store, shards), offer, durability);
}

/// Runs the suite's cases of what a store offers, through a gateway that has it.
pub(super) fn run_suite_on(gateway: Gateway, offer: Offer, durability: &'static str) {
    let mut harness = GatewayHarness {
        gateway,
        offer,
        durability,
        namespaces: 0,
    };
    run_to_end(queue::run(&mut harness));
}

struct GatewayHarness {
    gateway: Gateway,
    offer: Offer,
    durability: &'static str,
    namespaces: u32,
}

struct GatewayClient {
    namespace: String,
    durability: Durability,
    address: String,
    connections: Vec<Client>,
    turn: usize,
}

pub(super) fn create(gateway: &Gateway, name: &str, durability: &str, kind: Kind) {
    let mut yaml = format!(
        "namespace: {name}\nteam: tests\nclient_api: queue\nneeds:\n  durability: {durability}\n  max_message_size: 2MB\n"
    );
    if kind.ordered {
        yaml += "  ordered: true\n";
    }
    if kind.replay {
        yaml += "  replay: true\n";
    }
    if let Some(ttl) = kind.ttl {
        yaml += &format!("  ttl: {}s\n", ttl.as_secs());
    }
    let retention = kind
        .retention
        .or(kind.replay.then_some(Duration::from_secs(86_400)));
    if let Some(retention) = retention {
        yaml += &format!("  retention: {}s\n", retention.as_secs());
    }
    let _: CreateResponse = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &CreateRequest { yaml })
        .expect("the namespace is created");
}

impl GatewayHarness {
    fn connect(&self, namespace: String) -> GatewayClient {
        connect(&self.gateway, namespace, self.durability)
    }
}

fn connect(gateway: &Gateway, namespace: String, durability: &str) -> GatewayClient {
    GatewayClient {
        namespace,
        durability: durability_of(durability),
        address: gateway.address().to_owned(),
        connections: (0..3).map(|_| gateway.client()).collect(),
        turn: 0,
    }
}

impl Harness for GatewayHarness {
    type Client = GatewayClient;

    async fn client(&mut self, kind: Kind) -> GatewayClient {
        self.namespaces += 1;
        let namespace = format!("suite-{}", self.namespaces);
        create(&self.gateway, &namespace, self.durability, kind);
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
        // The gateway reads the wall clock; letting time pass is what the case asks for.
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

fn duration(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: time.as_secs() as i64,
        nanos: time.subsec_nanos() as i32,
    }
}

fn millis(time: Option<prost_types::Timestamp>) -> u64 {
    let time = time.expect("a time");
    time.seconds as u64 * 1_000 + time.nanos as u64 / 1_000_000
}

fn wire_message(message: &Sent) -> wire::Message {
    wire::Message {
        payload: message.payload.clone(),
        ordering_key: message.key.clone(),
        attributes: message.attributes.iter().cloned().collect(),
        delay: Some(duration(message.delay)).filter(|_| !message.delay.is_zero()),
        attempts_max: message.attempts_max,
    }
}

fn wire_state(state: State) -> wire::State {
    match state {
        State::Ready => wire::State::Ready,
        State::Delayed => wire::State::Delayed,
        State::Leased => wire::State::Leased,
        State::Dead => wire::State::Dead,
        State::Done => wire::State::Done,
    }
}

fn state_of(number: i32) -> State {
    let is_it = |state: &State| wire_state(*state) as i32 == number;
    State::ALL.into_iter().find(is_it).expect("a state")
}

fn received(one: wire::ReceivedMessage) -> Received {
    let message = one.message.expect("a message");
    assert!(millis(one.send_time) > 0);
    Received {
        id: one.message_id,
        key: message.ordering_key,
        attributes: message.attributes.into_iter().collect(),
        payload: message.payload,
        receipt: one.receipt,
        attempt: one.attempt,
        last_failure: one.last_failure,
        lease_end_ms: millis(one.lease_end_time),
    }
}

fn refusal(status: Option<Status>) -> Option<Failure> {
    let status = status.filter(|status| status.code != 0)?;
    Some(failure(ClientError::Status(Box::new(status))))
}

impl GatewayClient {
    fn call<Reply: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<Reply, Failure> {
        self.turn = (self.turn + 1) % self.connections.len();
        let path = format!("{QUEUE}/{method}");
        self.connections[self.turn].unary(&path, request).map_err(failure)
    }

    fn check(&self, result: Option<WriteResult>) {
        let result = result.expect("a result");
        assert_eq!(result.durability(), self.durability);
        match self.durability {
            Durability::Strong => assert!(result.lane > 0 && result.lsn > 0, "acknowledged by its record"),
            _ => assert!(result.applied, "acknowledged when the store has it"),
        }
    }

    fn receive_request(&self, ask: &Ask) -> wire::ReceiveRequest {
        wire::ReceiveRequest {
            namespace: self.namespace.clone(),
            idempotency_token: ask.token.clone().map(|token| IdempotencyToken {
                generation_time: None,
                token,
            }),
            messages_max: ask.messages_max,
            wait: Some(duration(ask.wait)),
            lease: Some(duration(ask.lease)),
        }
    }
}

fn owned(receipts: &[&[u8]]) -> Vec<Vec<u8>> {
    receipts.iter().map(|receipt| receipt.to_vec()).collect()
}

impl SuiteClient for GatewayClient {
    async fn send(&mut self, token: Option<&WriteToken>, message: &Sent) -> Result<Vec<u8>, Failure> {
        let request = wire::SendRequest {
            namespace: self.namespace.clone(),
            idempotency_token: token.map(wire_token),
            message: Some(wire_message(message)),
        };
        let response: wire::SendResponse = self.call("Send", &request)?;
        self.check(response.result);
        Ok(response.message_id)
    }

    async fn send_batch(
        &mut self,
        token: Option<&WriteToken>,
        messages: &[Sent],
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure> {
        let request = wire::SendBatchRequest {
            namespace: self.namespace.clone(),
            idempotency_token: token.map(wire_token),
            messages: messages.iter().map(wire_message).collect(),
        };
        let response: wire::SendBatchResponse = self.call("SendBatch", &request)?;
        let one = |one: wire::SendResult| match refusal(one.status) {
            Some(failure) => Err(failure),
            None => {
                self.check(one.result);
                Ok(one.message_id)
            }
        };
        Ok(response.results.into_iter().map(one).collect())
    }

    /// Asks on a thread of its own, since it may wait for what this thread sends.
    async fn receive(&mut self, ask: &Ask) -> Result<Vec<Received>, Failure> {
        let request = self.receive_request(ask);
        let (sender, answer) = channel();
        let mut client = Client::connect(&self.address, ask.wait + CALL_TIMEOUT).expect("a connection");
        thread::spawn(move || {
            let response: Result<wire::ReceiveResponse, _> =
                client.unary(&format!("{QUEUE}/Receive"), &request);
            let _ = sender.send(response);
        });
        loop {
            match answer.try_recv() {
                Ok(response) => {
                    let messages = response.map_err(failure)?.messages;
                    return Ok(messages.into_iter().map(received).collect());
                }
                Err(TryRecvError::Empty) => {
                    thread::sleep(Duration::from_micros(200));
                    yield_once().await;
                }
                Err(TryRecvError::Disconnected) => panic!("the caller is gone"),
            }
        }
    }

    async fn ack(&mut self, receipts: &[&[u8]]) -> Result<Vec<Result<(), Failure>>, Failure> {
        let request = wire::AckRequest {
            namespace: self.namespace.clone(),
            idempotency_token: None,
            receipts: owned(receipts),
        };
        let response: wire::AckResponse = self.call("Ack", &request)?;
        let one = |one: wire::AckResult| match refusal(one.status) {
            Some(failure) => Err(failure),
            None => {
                self.check(one.result);
                Ok(())
            }
        };
        Ok(response.results.into_iter().map(one).collect())
    }

    async fn nack(
        &mut self,
        receipts: &[&[u8]],
        failed: &Failed,
    ) -> Result<Vec<Result<State, Failure>>, Failure> {
        let request = wire::NackRequest {
            namespace: self.namespace.clone(),
            idempotency_token: None,
            receipts: owned(receipts),
            delay: failed.delay.map(duration),
            reason: failed.reason.clone(),
            dead: failed.dead,
            uncounted: failed.uncounted,
        };
        let response: wire::NackResponse = self.call("Nack", &request)?;
        let one = |one: wire::NackResult| match refusal(one.status) {
            Some(failure) => Err(failure),
            None => {
                self.check(one.result);
                Ok(state_of(one.state))
            }
        };
        Ok(response.results.into_iter().map(one).collect())
    }

    async fn extend(
        &mut self,
        receipts: &[&[u8]],
        lease: Duration,
    ) -> Result<Vec<Result<u64, Failure>>, Failure> {
        let request = wire::ExtendRequest {
            namespace: self.namespace.clone(),
            idempotency_token: None,
            receipts: owned(receipts),
            lease: Some(duration(lease)),
        };
        let response: wire::ExtendResponse = self.call("Extend", &request)?;
        let one = |one: wire::ExtendResult| match refusal(one.status) {
            Some(failure) => Err(failure),
            None => Ok(millis(one.lease_end_time)),
        };
        Ok(response.results.into_iter().map(one).collect())
    }

    async fn peek(
        &mut self,
        states: &[State],
        key: Option<&str>,
        page_size: u32,
        page_token: &[u8],
    ) -> Result<(Vec<Peeked>, Vec<u8>), Failure> {
        let request = wire::PeekRequest {
            namespace: self.namespace.clone(),
            states: states.iter().map(|state| wire_state(*state).into()).collect(),
            ordering_key: key.map(str::to_owned),
            page_size,
            page_token: page_token.to_vec(),
            without_payload: false,
        };
        let response: wire::PeekResponse = self.call("Peek", &request)?;
        let one = |one: wire::PeekedMessage| {
            let message = one.message.expect("a message");
            assert!(millis(one.send_time) > 0 && millis(one.state_time) > 0);
            Peeked {
                id: one.message_id,
                key: message.ordering_key,
                payload: message.payload,
                state: state_of(one.state),
                attempt: one.attempt,
                last_failure: one.last_failure,
            }
        };
        Ok((
            response.messages.into_iter().map(one).collect(),
            response.next_page_token,
        ))
    }

    async fn redrive(&mut self, token: Option<&WriteToken>, which: &Which) -> Result<(u64, bool), Failure> {
        let which = match which {
            Which::Ids(ids) => redrive_request::Which::Ids(wire::MessageIds {
                message_ids: ids.clone(),
            }),
            Which::State(state) => redrive_request::Which::State(wire_state(*state).into()),
        };
        let request = wire::RedriveRequest {
            namespace: self.namespace.clone(),
            idempotency_token: token.map(wire_token),
            which: Some(which),
        };
        let response: wire::RedriveResponse = self.call("Redrive", &request)?;
        self.check(response.result);
        Ok((response.redriven, response.more))
    }

    async fn delete(&mut self, token: Option<&WriteToken>, which: &Which) -> Result<(u64, bool), Failure> {
        let which = match which {
            Which::Ids(ids) => delete_request::Which::Ids(wire::MessageIds {
                message_ids: ids.clone(),
            }),
            Which::State(state) => delete_request::Which::State(wire_state(*state).into()),
        };
        let request = wire::DeleteRequest {
            namespace: self.namespace.clone(),
            idempotency_token: token.map(wire_token),
            which: Some(which),
        };
        let response: wire::DeleteResponse = self.call("Delete", &request)?;
        self.check(response.result);
        Ok((response.deleted, response.more))
    }

    async fn stats(&mut self) -> Result<BTreeMap<State, u64>, Failure> {
        let request = wire::StatsRequest {
            namespace: self.namespace.clone(),
        };
        let response: wire::StatsResponse = self.call("Stats", &request)?;
        let one = |one: wire::StateCount| {
            assert!(millis(one.oldest_send_time) > 0);
            (state_of(one.state), one.messages)
        };
        Ok(response.states.into_iter().map(one).collect())
    }
}

/// Where queues lie, with how many shards, and their durability.
const HOMES: [(EmbeddedStore, &str, usize); 3] = [
    (EmbeddedStore::Memory, "best-effort", 2),
    (EmbeddedStore::Sqlite, "best-effort", 2),
    (EmbeddedStore::Sqlite, "strong", 2),
];

fn message(payload: &str) -> Sent {
    Sent {
        payload: payload.into(),
        ..Sent::default()
    }
}

fn ask(wait: Duration) -> Ask {
    Ask {
        token: None,
        messages_max: 10,
        wait,
        lease: Duration::from_secs(600),
    }
}

/// Runs a future of this harness on this thread.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut value = None;
    run_to_end(async { value = Some(future.await) });
    value.expect("it has come to its end")
}

#[test]
fn q20_a_worker_that_is_gone_leases_nothing() {
    for (store, durability, shards) in HOMES {
        let gateway = Gateway::start(store, shards);
        create(&gateway, "left", durability, Kind::default());
        let mut client = connect(&gateway, "left".to_owned(), durability);
        let request = client.receive_request(&ask(Duration::from_secs(40)));
        for _ in 0..5 {
            // Gives up long before the gateway does: a deadline of a second, and the answer would
            // come before it.
            let mut gone = Client::connect(gateway.address(), Duration::from_millis(700)).expect("a client");
            let given_up: Result<wire::ReceiveResponse, _> =
                gone.unary(&format!("{QUEUE}/Receive"), &request);
            assert!(given_up.is_err() || given_up.is_ok_and(|answer| answer.messages.is_empty()));
        }
        now(client.send(None, &message("still there"))).expect("sent");
        let some = now(client.receive(&ask(Duration::from_secs(30)))).expect("an answer");
        assert_eq!(some.len(), 1, "{durability}: nobody else has it");
        assert_eq!(some[0].attempt, 1, "{durability}");
    }
}

#[test]
fn q20_a_drain_answers_workers_that_wait() {
    for (store, durability, shards) in HOMES {
        let gateway = Gateway::start(store, shards);
        create(&gateway, "draining", durability, Kind::default());
        let client = connect(&gateway, "draining".to_owned(), durability);
        let request = client.receive_request(&ask(Duration::from_secs(45)));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let request = request.clone();
                let mut client = Client::connect(gateway.address(), CALL_TIMEOUT * 2).expect("a client");
                thread::spawn(move || {
                    client.unary::<wire::ReceiveResponse>(&format!("{QUEUE}/Receive"), &request)
                })
            })
            .collect();
        // They wait: none has been answered.
        thread::sleep(Duration::from_millis(500));
        assert!(workers.iter().all(|worker| !worker.is_finished()));
        let begun = Instant::now();
        drop(client);
        drop(gateway);
        for worker in workers {
            let answer = worker.join().expect("a worker");
            assert_eq!(answer.expect("an answer").messages, [], "{durability}");
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the drain did not wait for them"
        );
    }
}

/// How often a test is tried on a machine that is too slow for it.
const ATTEMPTS: usize = 10;
/// The store syncs five seconds after the start, and must have from then on what the log says.
const SYNC_PAUSE: Duration = Duration::from_secs(4);

#[test]
fn q24_a_power_cut_may_take_leases_but_neither_messages_nor_acks() {
    const NAME: &str = "cut";
    for _ in 0..ATTEMPTS {
        let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
        create(&gateway, NAME, "strong", Kind::default());
        let mut client = connect(&gateway, NAME.to_owned(), "strong");
        now(client.send(None, &message("before"))).expect("sent");
        drop(client);
        gateway.stop();
        let store = StoreImage::of(&gateway);
        let started = Instant::now();
        gateway.start_again(|_| {});
        let mut client = connect(&gateway, NAME.to_owned(), "strong");
        for payload in ["acked", "failed", "leased"] {
            now(client.send(None, &message(payload))).expect("sent");
        }
        let mut taken = BTreeMap::new();
        while taken.len() < 4 {
            for one in now(client.receive(&ask(Duration::from_secs(30)))).expect("messages") {
                taken.insert(String::from_utf8(one.payload.clone()).expect("a text"), one);
            }
        }
        let done = [&*taken["acked"].receipt, &*taken["before"].receipt];
        let results = now(client.ack(&done)).expect("an answer");
        assert_eq!(results, [Ok(()), Ok(())]);
        let dead = Failed {
            dead: true,
            reason: "no".to_owned(),
            ..Failed::default()
        };
        let results = now(client.nack(&[&taken["failed"].receipt], &dead)).expect("an answer");
        assert_eq!(results, [Ok(State::Dead)]);
        let log = LogImage::of(&gateway);
        if started.elapsed() >= SYNC_PAUSE {
            continue;
        }
        drop(client);
        gateway.stop();
        store.restore(&gateway);
        log.restore(&gateway);
        gateway.start_again(|_| {});
        let mut client = connect(&gateway, NAME.to_owned(), "strong");
        let expected = BTreeMap::from([(State::Ready, 1), (State::Dead, 1)]);
        assert_eq!(now(client.stats()).expect("numbers"), expected);
        let again = now(client.receive(&ask(Duration::from_secs(30)))).expect("an answer");
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].payload, b"leased");
        // The receipts of before the cut are still good, or say why they are not.
        let results = now(client.ack(&[&taken["acked"].receipt, &taken["leased"].receipt]));
        assert_eq!(results.expect("an answer"), [Ok(()), Ok(())]);
        let expected = BTreeMap::from([(State::Dead, 1)]);
        assert_eq!(now(client.stats()).expect("numbers"), expected);
        return;
    }
    panic!("the machine is too slow for this test");
}

#[test]
fn q1_q25_receipts_outlive_the_gateway_that_gave_them() {
    for durability in ["best-effort", "eventual", "strong"] {
        let mut gateway = Gateway::start(EmbeddedStore::Sqlite, 2);
        create(&gateway, "lasts", durability, Kind::default());
        let mut client = connect(&gateway, "lasts".to_owned(), durability);
        for payload in ["1", "2", "3"] {
            now(client.send(None, &message(payload))).expect("sent");
        }
        let one = Ask {
            messages_max: 1,
            ..ask(Duration::from_secs(30))
        };
        let taken = now(client.receive(&one)).expect("a message").remove(0);
        drop(client);
        gateway.restart(|_| {});
        let mut client = connect(&gateway, "lasts".to_owned(), durability);
        let expected = BTreeMap::from([(State::Ready, 2), (State::Leased, 1)]);
        assert_eq!(now(client.stats()).expect("numbers"), expected, "{durability}");
        assert_eq!(now(client.ack(&[&taken.receipt])).expect("an answer"), [Ok(())]);
        let mut rest = Vec::new();
        while rest.len() < 2 {
            let some = now(client.receive(&ask(Duration::from_secs(30)))).expect("messages");
            rest.extend(some.into_iter().map(|one| one.payload));
        }
        rest.sort();
        let mut expected = vec![b"1".to_vec(), b"2".to_vec(), b"3".to_vec()];
        expected.retain(|payload| *payload != taken.payload);
        assert_eq!(rest, expected, "{durability}");
    }
}
