//! A client and the dispatchers of some shards on one thread, for tests: calls pass through a
//! connection's session as they do in a shard, and each step is triggered by the test.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prism_backends::{
    NamespaceId,
    memory::{MemoryStore, MessageHeads},
};
use prism_codec::{
    grpc,
    h2::{Config, Connection, ErrorCode, Event, Input, StreamId},
    message::{
        keyvalue::{ItemView, encode_get_request, encode_put_request, encode_scan_request},
        pubsub::{MessageOut, SubscribeOut, encode_publish_request, encode_subscribe_request},
    },
    method::{Api, KeyValueMethod, Method, MethodSpec, PubSubMethod},
    proto::prism::keyvalue::v1::{MutateRequest, Mutation, PutItems, mutation::Operation},
};
use prost::Message as _;

use super::h2_session::H2Session;
use crate::{
    api::memory::ShardMemory,
    call::{
        change::NamespaceChange,
        job::{Job, Reply, ShardCommand, Work},
        owner::owner_of,
        ticket::{CallId, Ticket},
    },
    config::ServeLimits,
    dispatch::{Dispatcher, Peers, Places, http_rules::HttpRules, route::route_of},
    identity::{Caller, Rules},
    metrics::Registry,
    namespace::{
        access::AccessList,
        file::{self, FileLimits},
        spec::{Home, NamespaceSpec, Path, Unapplied},
        state::NamespaceState,
    },
    runtime::mailbox::{Mailbox, Waker},
};

/// Calls in one receive, as with 32 streams.
pub(super) const BATCH: usize = 32;
pub(super) const OK: &[u8] = b"0";
pub(super) const INVALID_ARGUMENT: &[u8] = b"3";
pub(super) const PERMISSION_DENIED: &[u8] = b"7";
/// The namespace of items, `sessions`.
const NAMESPACE: NamespaceId = NamespaceId(1);
/// The namespace of messages, `events`.
const MESSAGES: NamespaceId = NamespaceId(2);
/// Largest value of the first.
const VALUE_BYTES_MAX: usize = 1_024;

/// An id owned by this shard.
pub(super) fn id_of_shard(shard: u16, shards: u16) -> String {
    let mut ids = (0..).map(|number| format!("id-{number}"));
    let owned = ids.find(|id| owner_of(NAMESPACE, id, shards) == shard);
    owned.expect("each shard owns many")
}

/// One request, as a client sends it.
pub(super) struct Request {
    method: &'static MethodSpec,
    message: Vec<u8>,
    timeout: Option<Duration>,
}

impl Request {
    fn new(method: impl Into<Method>, message: Vec<u8>) -> Self {
        Self {
            method: method.into().spec(),
            message,
            timeout: None,
        }
    }

    pub(super) fn put(namespace: &str, id: &str, value_bytes: usize) -> Self {
        let item = ItemView {
            key: b"theme",
            value: &vec![7; value_bytes],
            ttl: None,
            compression: 0,
            version: b"",
        };
        let mut message = Vec::new();
        encode_put_request(&mut message, namespace, id, None, [item]);
        Self::new(KeyValueMethod::Put, message)
    }

    pub(super) fn get(namespace: &str, id: &str) -> Self {
        let mut message = Vec::new();
        encode_get_request(&mut message, namespace, id, None, None);
        Self::new(KeyValueMethod::Get, message)
    }

    pub(super) fn scan(namespace: &str) -> Self {
        let mut message = Vec::new();
        encode_scan_request(&mut message, namespace, None);
        Self::new(KeyValueMethod::Scan, message)
    }

    /// Publishes a message of this many bytes with this key.
    pub(super) fn publish(namespace: &str, key: &str, bytes: usize) -> Self {
        let message = MessageOut {
            topic: "orders",
            ordering_key: key,
            payload: &vec![7; bytes],
            ..MessageOut::default()
        };
        let mut request = Vec::new();
        encode_publish_request(&mut request, namespace, None, &message);
        Self::new(PubSubMethod::Publish, request)
    }

    /// Subscribes to all topics, from the latest message on.
    pub(super) fn subscribe(namespace: &str) -> Self {
        let mut request = Vec::new();
        let wanted = SubscribeOut {
            namespace,
            ..SubscribeOut::default()
        };
        encode_subscribe_request(&mut request, &wanted);
        Self::new(PubSubMethod::Subscribe, request)
    }

    /// Puts empty values under many ids.
    pub(super) fn mutate(namespace: &str, ids: &[String]) -> Self {
        let mutation = |id: &String| Mutation {
            id: id.clone(),
            operation: Some(Operation::Put(PutItems {
                items: vec![Default::default()],
            })),
        };
        let request = MutateRequest {
            namespace: namespace.to_owned(),
            idempotency_token: None,
            mutations: ids.iter().map(mutation).collect(),
        };
        Self::new(KeyValueMethod::Mutate, request.encode_to_vec())
    }

    pub(super) fn within(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }
}

/// The client and the shards.
pub(super) struct Bench {
    registry: Arc<Registry>,
    shards: Vec<Dispatcher>,
    jobs: Vec<Arc<Mailbox<Job>>>,
    replies: Arc<Mailbox<Reply>>,
    session: H2Session,
    client: Connection,
    output: Vec<u8>,
}

impl Bench {
    pub(super) fn new(shards: usize) -> Self {
        Self::with_limits(shards, ServeLimits::default())
    }

    pub(super) fn with_limits(shards: usize, limits: ServeLimits) -> Self {
        let registry = Arc::new(Registry::default());
        let waker = Waker::new().unwrap();
        let jobs: Vec<_> = (0..shards)
            .map(|_| Arc::new(Mailbox::new(BATCH, waker.clone())))
            .collect();
        let replies: Vec<_> = (0..shards)
            .map(|_| Arc::new(Mailbox::new(BATCH, waker.clone())))
            .collect();
        let peers = Peers {
            shards: jobs.clone(),
            replies: replies.clone(),
            control: Arc::new(Mailbox::new(8, waker)),
        };
        let address = Ticket {
            shard: 0,
            slot: 0,
            generation: 1,
            call: CallId::Request(0),
            namespace: NamespaceId(0),
            caller: crate::identity::CallerId::NOBODY,
        };
        let dispatcher = |number| dispatcher(number as u16, peers.clone(), limits, registry.clone());
        Self {
            shards: (0..shards).map(dispatcher).collect(),
            registry,
            jobs,
            replies: replies[0].clone(),
            session: H2Session::new(Config::server(), address, 1 << 20),
            client: Connection::new(Config::client()),
            output: Vec::new(),
        }
    }

    /// One shard with identity, called by a service that is a consumer, or by one that is not.
    pub(super) fn with_identity(service: &str) -> Self {
        let mut bench = Self::new(1);
        let rules = Rules::new("test.example", &[], &[]);
        let shard = bench.shards.remove(0).with_rules(Some(rules));
        bench.shards.push(shard);
        let caller = Caller {
            service: service.into(),
            team: Some("others".into()),
            is_admin: false,
            is_viewer: false,
            until: std::time::SystemTime::now(),
        };
        let address = Ticket {
            shard: 0,
            slot: 0,
            generation: 1,
            call: CallId::Request(0),
            namespace: NamespaceId(0),
            caller: bench.shards[0].callers.enter(caller),
        };
        bench.session = H2Session::new(Config::server(), address, 1 << 20);
        bench
    }

    /// Serves a batch of calls, each of which must end with this code. Returns the number of
    /// allocations.
    pub(super) fn exchange(&mut self, request: &Request, code: &[u8]) -> u64 {
        let received = self.send(request, BATCH);
        let allocations = allocation_counter::measure(|| self.serve(&received));
        let codes = self.take_codes();
        assert_eq!(codes.len(), BATCH);
        assert!(codes.iter().all(|found| found == code), "{codes:?}");
        allocations.count_total
    }

    fn serve(&mut self, received: &[u8]) {
        self.receive(received);
        self.execute_jobs();
        self.deliver_replies();
        self.output = self.session.h2().take_output(Vec::new());
    }

    /// Sends one call and lets shard 0 start it.
    pub(super) fn start(&mut self, request: &Request) -> StreamId {
        let (stream, received) = self.send_one(request);
        self.receive(&received);
        stream
    }

    fn receive(&mut self, received: &[u8]) {
        let now = Instant::now();
        let gateway = &mut self.shards[0];
        gateway.begin_batch();
        // As in the driver: the first output holds the SETTINGS already.
        if self.session.h2().output().capacity() == 0 {
            *self.session.h2().output() = std::mem::take(&mut self.output);
        }
        let (used, go_on) = self.session.handle_recv(received, now, gateway);
        assert!(go_on && used == received.len());
        gateway.end_batch(now);
    }

    /// Lets each shard execute the jobs of the others.
    pub(super) fn execute_jobs(&mut self) {
        for (shard, jobs) in self.shards.iter_mut().zip(&self.jobs) {
            while let Some(job) = jobs.receive() {
                shard.execute(job);
            }
        }
    }

    /// Fills a shard's mailbox with jobs without a caller.
    pub(super) fn fill_mailbox(&self, shard: usize) {
        let nobody = Ticket {
            shard: 0,
            slot: u32::MAX,
            generation: 0,
            call: CallId::Request(0),
            namespace: NamespaceId(0),
            caller: crate::identity::CallerId::NOBODY,
        };
        let question = || Job {
            ticket: nobody,
            deadline: None,
            work: Work::Barrier { namespace: NAMESPACE },
        };
        while self.jobs[shard].send(question()).is_ok() {}
    }

    /// Empties a shard's mailbox.
    pub(super) fn empty_mailbox(&self, shard: usize) {
        while self.jobs[shard].receive().is_some() {}
    }

    /// Delivers to shard 0 the answers that it waits for.
    pub(super) fn deliver_replies(&mut self) {
        while let Some(reply) = self.replies.receive() {
            if !self.shards[0].reply_received(&reply) {
                continue;
            }
            let Reply { ticket, result } = reply;
            self.session.handle_reply(ticket, result, &mut self.shards[0]);
        }
    }

    /// Ends the calls with a deadline before `now`.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(ticket) = self.shards[0].take_expired(now) {
            self.session.handle_deadline(ticket, &mut self.shards[0]);
        }
    }

    /// Number of shard 0's open streams, and of waiting asks for messages at any shard.
    pub(super) fn open_streams(&self) -> (usize, usize) {
        let asks = self.shards.iter().map(Dispatcher::asks_waiting).sum();
        (self.shards[0].streams_open(), asks)
    }

    /// Bytes that wait for the client on a stream.
    pub(super) fn queued(&mut self, stream: StreamId) -> usize {
        self.session.h2().stream_queued(stream)
    }

    /// Executes the jobs of all shards and delivers the answers, until nothing is left.
    pub(super) fn settle(&mut self) {
        while self.jobs.iter().any(|jobs| !jobs.is_empty()) || !self.replies.is_empty() {
            self.execute_jobs();
            self.deliver_replies();
        }
    }

    /// Serves a call of another connection, and drops its answer.
    pub(super) fn call_elsewhere(&mut self, request: &Request) {
        let nobody = Ticket {
            shard: 0,
            slot: u32::MAX,
            generation: 0,
            call: CallId::Request(0),
            namespace: NamespaceId(0),
            caller: crate::identity::CallerId::NOBODY,
        };
        let route = route_of(request.method.path.as_bytes());
        let now = Instant::now();
        self.shards[0].begin_batch();
        drop(self.shards[0].start(route, nobody, None, now, &request.message));
        self.shards[0].end_batch(now);
    }

    /// Makes the session drain.
    pub(super) fn drain(&mut self) {
        self.session.drain(&mut self.shards[0]);
    }

    /// Cancels a call of the client.
    pub(super) fn cancel(&mut self, stream: StreamId) {
        self.client.reset(stream, ErrorCode::CANCEL);
        let received = self.client.take_output(Vec::new());
        self.receive(&received);
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.session.close(&mut self.shards[0]);
    }

    fn send(&mut self, request: &Request, calls: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..calls {
            bytes.append(&mut self.send_one(request).1);
        }
        bytes
    }

    fn send_one(&mut self, request: &Request) -> (StreamId, Vec<u8>) {
        let timeout = request.timeout.map(grpc::format_timeout);
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", request.method.path.as_bytes()),
            (b":authority", b"gateway.test"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ];
        if let Some(timeout) = &timeout {
            fields.push((b"grpc-timeout", timeout.as_bytes()));
        }
        let stream = self.client.send_request(&fields, false).unwrap();
        self.client
            .send_grpc_message(stream, true, |out| out.extend_from_slice(&request.message))
            .unwrap();
        (stream, self.client.take_output(Vec::new()))
    }

    /// The codes of the answered calls, in the order of the answers.
    pub(super) fn take_codes(&mut self) -> Vec<Vec<u8>> {
        if self.output.is_empty() {
            self.output = self.session.h2().take_output(Vec::new());
        }
        let mut input = Input::new(&self.output);
        let mut codes = Vec::new();
        // The trailers in the client's memo are those of a success.
        while let Some(event) = self.client.poll_event(&mut input).unwrap() {
            match event {
                Event::Trailers { headers, .. }
                | Event::Headers {
                    end_stream: true,
                    headers,
                    ..
                } => codes.push(headers.get(b"grpc-status").unwrap_or_default().to_vec()),
                Event::MemoTrailers { .. } => codes.push(OK.to_vec()),
                _ => {}
            }
        }
        self.output.clear();
        codes
    }

    /// The counted endings, as `method code`, with their numbers.
    pub(super) fn counted(&self) -> Vec<(String, u64)> {
        let page = self.registry.render("epoll");
        let samples = page
            .lines()
            .filter_map(|line| line.strip_prefix("prism_requests_total{"));
        let endings = samples.map(|sample| {
            let quoted: Vec<&str> = sample.split('"').collect();
            let count = sample.rsplit(' ').next().and_then(|count| count.parse().ok());
            assert_eq!(quoted[1], "sessions");
            (format!("{} {}", quoted[3], quoted[5]), count.expect("a number"))
        });
        endings.collect()
    }

    /// Number of calls in the latencies of a method.
    pub(super) fn timed(&self, method: &str) -> u64 {
        let page = self.registry.render("epoll");
        let name = format!("prism_request_seconds_count{{namespace=\"sessions\",method=\"{method}\"}} ");
        let count = page.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(0, |count| count.parse().expect("a number"))
    }
}

/// Makes the dispatcher of a single shard.
pub(super) fn lone_dispatcher() -> Dispatcher {
    let waker = Waker::new().unwrap();
    let peers = Peers {
        shards: vec![Arc::new(Mailbox::new(8, waker.clone()))],
        replies: vec![Arc::new(Mailbox::new(8, waker.clone()))],
        control: Arc::new(Mailbox::new(8, waker)),
    };
    dispatcher(0, peers, ServeLimits::default(), Arc::default())
}

fn dispatcher(number: u16, peers: Peers, limits: ServeLimits, registry: Arc<Registry>) -> Dispatcher {
    let places = Places {
        memory: Box::new(ShardMemory::new(MemoryStore::new(), MessageHeads::new(1))),
        stores: Vec::new(),
        log: None,
    };
    let metrics = registry.add_shard();
    let mut dispatcher = Dispatcher::new(
        number,
        peers,
        places,
        limits,
        metrics,
        registry,
        HttpRules::default(),
    );
    let spec = NamespaceSpec {
        id: NAMESPACE,
        name: "sessions".to_owned(),
        state: NamespaceState::Active,
        trouble: None,
        api: Api::KeyValue,
        ttl_ms: Some(60_000),
        value_bytes_max: VALUE_BYTES_MAX,
        rates: [None, None],
        home: Home::Shards,
        path: Path::StoreOnly,
        unapplied: Unapplied::Ignore,
        ordered: false,
        replay: true,
        groups: None,
        access: access(),
    };
    let messages = NamespaceSpec {
        id: MESSAGES,
        name: "events".to_owned(),
        api: Api::PubSub,
        value_bytes_max: 1 << 20,
        ordered: true,
        ..spec.clone()
    };
    let set = |spec| NamespaceChange::Set(Arc::new(spec));
    let changes = Arc::new([set(spec), set(messages)]);
    dispatcher.handle_command(ShardCommand::Namespaces(changes, None));
    dispatcher.handle_command(ShardCommand::Serve(1));
    dispatcher
}

/// Permissions of a hundred services, among them `web`.
fn access() -> AccessList {
    let mut yaml =
        "namespace: sessions\nteam: shop\nclient_api: keyvalue\naccess:\n  consumers:\n".to_owned();
    for service in (0..99)
        .map(|number| format!("service-{number}"))
        .chain(["web".to_owned()])
    {
        yaml += &format!("    - service: {service}\n      permissions: [read, write]\n");
    }
    AccessList::of(&file::parse(&yaml, &FileLimits::NONE).expect("a legal file"))
}
