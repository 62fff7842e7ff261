//! No heap allocation for a Put on the memory path: header block, message, limits, routing, store, metrics and reply,
//! driven as a connection drives them.

use std::{sync::Arc, sync::mpsc::sync_channel, time::Instant};

use prism_backends::{NamespaceId, memory::MemoryStore};
use prism_codec::{
    h2::{Config, Connection, Event, Input},
    message::keyvalue::{ItemView, encode_put_request},
};

use super::h2_session::H2Session;
use crate::{
    call::{
        job::ShardCommand,
        method::Method,
        ticket::{CallId, Ticket},
    },
    config::ServeLimits,
    dispatch::{Dispatcher, Neighbours, ShardStore},
    metrics::Registry,
    namespace::spec::NamespaceSpec,
    runtime::mailbox::{Mailbox, Waker},
};

/// Puts in one receive, as with 32 streams.
const BATCH: usize = 32;

#[test]
fn a_put_in_memory_allocates_nothing() {
    let registry = Arc::new(Registry::default());
    let mut gateway = gateway(registry.clone());
    let address = Ticket {
        shard: 0,
        slot: 0,
        generation: 1,
        call: CallId::Request(0),
        namespace: NamespaceId(0),
    };
    let mut session = H2Session::new(Config::server(), address, 1 << 20);
    let mut client = Connection::new(Config::client());
    let mut output = Vec::new();
    let mut exchange = |counted: bool| {
        let request = batch(&mut client);
        let allocations = allocation_counter::measure(|| {
            let now = Instant::now();
            gateway.begin_batch();
            // As the driver does: the first output holds the SETTINGS already.
            if session.h2().output().capacity() == 0 {
                *session.h2().output() = std::mem::take(&mut output);
            }
            let (used, go_on) = session.handle_recv(&request, now, &mut gateway);
            assert!(go_on && used == request.len());
            gateway.end_batch(now);
            output = session.h2().take_output(Vec::new());
        });
        let replies = replies(&mut client, &output);
        output.clear();
        if counted {
            (allocations.count_total, replies)
        } else {
            (0, replies)
        }
    };
    // The first batches fill tables, buffers and the store.
    for _ in 0..20 {
        exchange(false);
    }
    for _ in 0..100 {
        assert_eq!(exchange(true), (0, BATCH));
    }
    let text = registry.render("epoll");
    assert!(
        text.contains(&format!(
            "method=\"{}\",code=\"OK\"}} {}",
            Method::Put.name(),
            120 * BATCH
        )),
        "{text}"
    );
}

fn gateway(registry: Arc<Registry>) -> Dispatcher {
    let waker = Waker::new().unwrap();
    let neighbours = Neighbours {
        shards: vec![Arc::new(Mailbox::new(8, waker.clone()))],
        replies: vec![Arc::new(Mailbox::new(8, waker.clone()))],
        control: Arc::new(Mailbox::new(8, waker)),
    };
    let store = ShardStore::Memory(Box::new(MemoryStore::new()));
    let metrics = registry.add_shard();
    let mut gateway = Dispatcher::new(0, neighbours, store, ServeLimits::default(), metrics, registry);
    let (done, added) = sync_channel(1);
    let spec = NamespaceSpec {
        id: NamespaceId(1),
        name: "sessions".to_owned(),
        ttl_ms: Some(60_000),
        value_bytes_max: 1 << 20,
        durability: crate::namespace::Durability::BestEffort,
    };
    gateway.obey(ShardCommand::AddNamespace(spec, done));
    added.recv().unwrap().unwrap();
    gateway
}

fn batch(client: &mut Connection) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 6] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/prism.keyvalue.v1.KeyValue/Put"),
        (b":authority", b"gateway.test"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ];
    let value = [7; 256];
    for _ in 0..BATCH {
        let item = ItemView {
            key: b"theme",
            value: &value,
            ttl: None,
            compression: 0,
        };
        let stream = client.send_request(&fields, false).unwrap();
        client
            .send_grpc_message(stream, true, |out| {
                encode_put_request(out, "sessions", "alice", None, [item]);
            })
            .unwrap();
    }
    client.take_output(Vec::new())
}

/// Counts the replies and takes them off the client's books.
fn replies(client: &mut Connection, bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let mut replies = 0;
    while let Some(event) = client.poll_event(&mut input).unwrap() {
        match event {
            Event::Trailers { headers, .. } => {
                assert_eq!(headers.get(b"grpc-status"), Some(&b"0"[..]));
                replies += 1;
            }
            Event::MemoTrailers { .. } => replies += 1,
            Event::Headers {
                end_stream: true,
                headers,
                ..
            } => {
                panic!(
                    "refused: {:?}",
                    headers.get(b"grpc-message").map(String::from_utf8_lossy)
                )
            }
            _ => {}
        }
    }
    replies
}
