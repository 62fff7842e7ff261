//! Heap allocations of a call on the memory path: header block, message, limits, routing, store, metrics and reply, driven
//! as a connection drives them. A call that its own shard serves makes none; one that hops to another shard, or is
//! refused, makes few, and never more than the figures here.

use std::{
    sync::{Arc, mpsc::sync_channel},
    time::Instant,
};

use prism_backends::{NamespaceId, memory::MemoryStore};
use prism_codec::{
    h2::{Config, Connection, Event, Input},
    message::keyvalue::{ItemView, encode_get_request, encode_put_request},
    method::{Api, KeyValueMethod, MethodSpec},
};

use super::h2_session::H2Session;
use crate::{
    call::{
        job::{Job, Reply, ShardCommand},
        owner::owner_of,
        ticket::{CallId, Ticket},
    },
    config::ServeLimits,
    dispatch::{Dispatcher, Neighbours, ShardStore},
    metrics::Registry,
    namespace::spec::NamespaceSpec,
    runtime::mailbox::{Mailbox, Waker},
};

/// Calls in one receive, as with 32 streams.
const BATCH: usize = 32;
/// Batches that fill tables, buffers and the store first.
const WARM_UP: usize = 20;
const COUNTED: usize = 100;

/// A put that hops: its pending call, its message for the other shard, and the reply there.
const PER_HOP: u64 = 3;
/// A refusal: the status with its sentence, its details packed and encoded for the wire.
const PER_REFUSAL: u64 = 30;

#[test]
fn a_put_in_memory_allocates_nothing() {
    let mut bench = Bench::new(1);
    let put = Request::put("sessions", "alice", 256);
    bench.warm_up(&put, OK);
    for _ in 0..COUNTED {
        assert_eq!(bench.exchange(&put, OK), 0);
    }
    let calls = (WARM_UP + COUNTED) * BATCH;
    bench.assert_counted(&format!("method=\"{}\",code=\"OK\"}} {calls}", put.method.name));
}

#[test]
fn a_get_in_memory_allocates_nothing() {
    let mut bench = Bench::new(1);
    bench.warm_up(&Request::put("sessions", "alice", 256), OK);
    let get = Request::get("sessions", "alice");
    bench.warm_up(&get, OK);
    for _ in 0..COUNTED {
        assert_eq!(bench.exchange(&get, OK), 0);
    }
}

#[test]
fn a_put_that_hops_allocates_little() {
    let mut bench = Bench::new(2);
    let id = (0..)
        .map(|number| format!("id-{number}"))
        .find(|id| owner_of(NAMESPACE, id, 2) == 1)
        .expect("an id of the other shard");
    let put = Request::put("sessions", &id, 256);
    bench.warm_up(&put, OK);
    for _ in 0..COUNTED {
        let allocations = bench.exchange(&put, OK);
        assert!(
            allocations <= PER_HOP * BATCH as u64,
            "{allocations} of {BATCH} calls"
        );
    }
}

#[test]
fn a_refused_call_allocates_little() {
    let mut bench = Bench::new(1);
    // Above the namespace's own maximum.
    let put = Request::put("sessions", "alice", 1_100);
    bench.warm_up(&put, INVALID_ARGUMENT);
    for _ in 0..COUNTED {
        let allocations = bench.exchange(&put, INVALID_ARGUMENT);
        assert!(
            allocations <= PER_REFUSAL * BATCH as u64,
            "{allocations} of {BATCH} calls"
        );
    }
    let calls = (WARM_UP + COUNTED) * BATCH;
    bench.assert_counted(&format!("method=\"Put\",code=\"INVALID_ARGUMENT\"}} {calls}"));
}

// --- helpers ------------------------------------------------------------------------------------------------------------

const NAMESPACE: NamespaceId = NamespaceId(1);
const OK: &[u8] = b"0";
const INVALID_ARGUMENT: &[u8] = b"3";

/// One request, as a client sends it.
struct Request {
    method: &'static MethodSpec,
    message: Vec<u8>,
}

impl Request {
    fn put(namespace: &str, id: &str, value_bytes: usize) -> Self {
        let item = ItemView {
            key: b"theme",
            value: &vec![7; value_bytes],
            ttl: None,
            compression: 0,
        };
        let mut message = Vec::new();
        encode_put_request(&mut message, namespace, id, None, [item]);
        Self {
            method: KeyValueMethod::Put.spec(),
            message,
        }
    }

    fn get(namespace: &str, id: &str) -> Self {
        let mut message = Vec::new();
        encode_get_request(&mut message, namespace, id, None, None);
        Self {
            method: KeyValueMethod::Get.spec(),
            message,
        }
    }
}

/// A client, its connection on shard 0, and the call logic of all shards on this thread.
struct Bench {
    registry: Arc<Registry>,
    shards: Vec<Dispatcher>,
    jobs: Vec<Arc<Mailbox<Job>>>,
    replies: Arc<Mailbox<Reply>>,
    session: H2Session,
    client: Connection,
    output: Vec<u8>,
}

impl Bench {
    fn new(shards: usize) -> Self {
        let registry = Arc::new(Registry::default());
        let waker = Waker::new().unwrap();
        let jobs: Vec<_> = (0..shards)
            .map(|_| Arc::new(Mailbox::new(BATCH, waker.clone())))
            .collect();
        let replies: Vec<_> = (0..shards)
            .map(|_| Arc::new(Mailbox::new(BATCH, waker.clone())))
            .collect();
        let neighbours = Neighbours {
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
        };
        Self {
            shards: (0..shards)
                .map(|number| dispatcher(number as u16, neighbours.clone(), registry.clone()))
                .collect(),
            registry,
            jobs,
            replies: replies[0].clone(),
            session: H2Session::new(Config::server(), address, 1 << 20),
            client: Connection::new(Config::client()),
            output: Vec::new(),
        }
    }

    fn warm_up(&mut self, request: &Request, code: &[u8]) {
        for _ in 0..WARM_UP {
            self.exchange(request, code);
        }
    }

    /// Serves a batch of calls, each of which must end with this code. Returns how many allocations that took.
    fn exchange(&mut self, request: &Request, code: &[u8]) -> u64 {
        let received = self.send(request);
        let allocations = allocation_counter::measure(|| self.serve(&received));
        assert_eq!(self.take_replies(code), BATCH);
        allocations.count_total
    }

    fn serve(&mut self, received: &[u8]) {
        let now = Instant::now();
        let gateway = &mut self.shards[0];
        gateway.begin_batch();
        // As the driver does: the first output holds the SETTINGS already.
        if self.session.h2().output().capacity() == 0 {
            *self.session.h2().output() = std::mem::take(&mut self.output);
        }
        let (used, go_on) = self.session.handle_recv(received, now, gateway);
        assert!(go_on && used == received.len());
        gateway.end_batch(now);
        for (shard, jobs) in self.shards.iter_mut().zip(&self.jobs) {
            while let Some(job) = jobs.receive() {
                shard.execute(job);
            }
        }
        while let Some(Reply { ticket, result }) = self.replies.receive() {
            self.shards[0].answer_received(&ticket);
            self.session.handle_reply(ticket, result, &mut self.shards[0]);
        }
        self.output = self.session.h2().take_output(Vec::new());
    }

    fn send(&mut self, request: &Request) -> Vec<u8> {
        let fields: [(&[u8], &[u8]); 6] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", request.method.path.as_bytes()),
            (b":authority", b"gateway.test"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ];
        for _ in 0..BATCH {
            let stream = self.client.send_request(&fields, false).unwrap();
            self.client
                .send_grpc_message(stream, true, |out| out.extend_from_slice(&request.message))
                .unwrap();
        }
        self.client.take_output(Vec::new())
    }

    /// Counts the replies and takes them off the client's books.
    fn take_replies(&mut self, code: &[u8]) -> usize {
        let mut input = Input::new(&self.output);
        let mut replies = 0;
        while let Some(event) = self.client.poll_event(&mut input).unwrap() {
            match event {
                Event::Trailers { headers, .. }
                | Event::Headers {
                    end_stream: true,
                    headers,
                    ..
                } => {
                    let message = headers.get(b"grpc-message").map(String::from_utf8_lossy);
                    assert_eq!(headers.get(b"grpc-status"), Some(code), "{message:?}");
                    replies += 1;
                }
                Event::MemoTrailers { .. } => replies += 1,
                _ => {}
            }
        }
        self.output.clear();
        replies
    }

    fn assert_counted(&self, sample: &str) {
        let text = self.registry.render("epoll");
        assert!(text.contains(sample), "{sample} is missing: {text}");
    }
}

fn dispatcher(number: u16, neighbours: Neighbours, registry: Arc<Registry>) -> Dispatcher {
    let store = ShardStore::Memory(Box::new(MemoryStore::new()));
    let metrics = registry.add_shard();
    let mut dispatcher = Dispatcher::new(
        number,
        neighbours,
        store,
        ServeLimits::default(),
        metrics,
        registry,
    );
    let (done, added) = sync_channel(1);
    let spec = NamespaceSpec {
        id: NAMESPACE,
        name: "sessions".to_owned(),
        api: Api::KeyValue,
        ttl_ms: Some(60_000),
        value_bytes_max: 1_024,
        durability: crate::namespace::Durability::BestEffort,
    };
    dispatcher.obey(ShardCommand::AddNamespace(spec, done));
    added.recv().unwrap().unwrap();
    dispatcher
}
