//! One slow namespace or client does not slow another. Shown by order, not by time: work of the second is answered
//! while the first still has a long queue.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use prism_codec::{
    h2::{Config, Connection, Event, Input, StreamId},
    proto::prism::keyvalue::v1::{
        GetRequest, GetResponse, Item, MutateRequest, Mutation, PutItems, PutRequest, PutResponse,
        mutation::Operation,
    },
};
use prism_core::config::EmbeddedStore;
use prost::Message;

use super::support::{CALL_TIMEOUT, Gateway};

/// Calls that the flooding client has under way at once.
const FLOOD: usize = 1_000;

#[test]
fn a_flooded_namespace_does_not_hold_up_another() {
    let gateway = Gateway::start(EmbeddedStore::Sqlite, 1);
    gateway.create_namespace("flooded");
    gateway.create_namespace("quiet");
    // One connection carries all, so that the order of the replies can be seen: a write that keeps the store busy while
    // the rest arrives (small enough for one flow-control window), 1,000 writes to its namespace, and behind them one to the other namespace.
    let mut flood = RawClient::connect(&gateway);
    let mutations = (0..1_000)
        .map(|number| Mutation {
            id: format!("busy-{number}"),
            operation: Some(Operation::Put(PutItems {
                items: vec![item(vec![7; 800])],
            })),
        })
        .collect();
    let busy = MutateRequest {
        namespace: "flooded".to_owned(),
        idempotency_token: None,
        mutations,
    };
    flood.call("Mutate", &busy);
    for number in 0..FLOOD {
        flood.put("flooded", &format!("id-{number}"), vec![7; 64]);
    }
    let quiet = flood.put("quiet", "id", vec![7; 16]);
    flood.transmit();
    let order = flood.replies(FLOOD + 2);
    let place = order
        .iter()
        .position(|stream| *stream == quiet)
        .expect("the quiet write is answered");
    assert!(
        place < FLOOD / 2,
        "the quiet namespace was served as number {place} of {}",
        FLOOD + 2
    );
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let gateway = Gateway::start(EmbeddedStore::Memory, 1);
    gateway.create_namespace("shared");
    let mut writer = gateway.client();
    let put = PutRequest {
        namespace: "shared".to_owned(),
        id: "large".to_owned(),
        idempotency_token: None,
        items: vec![item(vec![1; 1 << 20])],
    };
    let _: PutResponse = writer
        .unary("/prism.keyvalue.v1.KeyValue/Put", &put)
        .expect("a write of 1 MiB");

    // 500 replies of 1 MiB are asked for and never read.
    let mut deaf = RawClient::connect(&gateway);
    for _ in 0..500 {
        deaf.get("shared", "large");
    }
    deaf.transmit();
    let get = GetRequest {
        namespace: "shared".to_owned(),
        id: "large".to_owned(),
        predicate: None,
        selection: None,
    };
    for _ in 0..20 {
        let found: GetResponse = writer
            .unary("/prism.keyvalue.v1.KeyValue/Get", &get)
            .expect("a read beside it");
        assert_eq!(found.items.len(), 1);
    }
}

fn item(value: Vec<u8>) -> Item {
    Item {
        key: b"k".to_vec(),
        value,
        ttl: None,
        compression: 0,
    }
}

/// A client whose calls overlap, straight over the codec.
struct RawClient {
    socket: TcpStream,
    h2: Connection,
    received: Vec<u8>,
}

impl RawClient {
    fn connect(gateway: &Gateway) -> Self {
        let socket = TcpStream::connect(gateway.address()).expect("the gateway takes connections");
        socket.set_read_timeout(Some(CALL_TIMEOUT)).expect("a time-out");
        socket.set_write_timeout(Some(CALL_TIMEOUT)).expect("a time-out");
        let mut client = Self {
            socket,
            h2: Connection::new(Config::client()),
            received: Vec::new(),
        };
        client.transmit();
        // The gateway's SETTINGS say how many streams may be open; before them it is the protocol's careful default.
        let mut settled = false;
        while !settled {
            client.receive(|event| settled |= matches!(event, Event::PeerSettings));
        }
        client
    }

    fn put(&mut self, namespace: &str, id: &str, value: Vec<u8>) -> StreamId {
        let request = PutRequest {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            idempotency_token: None,
            items: vec![item(value)],
        };
        self.call("Put", &request)
    }

    fn get(&mut self, namespace: &str, id: &str) -> StreamId {
        let request = GetRequest {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            predicate: None,
            selection: None,
        };
        self.call("Get", &request)
    }

    fn call(&mut self, method: &str, request: &impl Message) -> StreamId {
        let path = format!("/prism.keyvalue.v1.KeyValue/{method}");
        let headers: [(&[u8], &[u8]); 6] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.as_bytes()),
            (b":authority", b"test"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ];
        let stream = self.h2.send_request(&headers, false).expect("a stream is free");
        let message = request.encode_to_vec();
        self.h2
            .send_grpc_message(stream, true, |out| out.extend_from_slice(&message))
            .expect("the request is taken or queued");
        stream
    }

    fn transmit(&mut self) {
        let output = self.h2.take_output(Vec::new());
        self.socket.write_all(&output).expect("the gateway reads");
    }

    /// The streams that end, in their order.
    fn replies(&mut self, count: usize) -> Vec<StreamId> {
        let mut order = Vec::new();
        while order.len() < count {
            self.receive(|event| match event {
                Event::Trailers { stream, headers, .. } => {
                    assert_eq!(headers.get(b"grpc-status"), Some(&b"0"[..]));
                    order.push(stream);
                }
                Event::Headers {
                    stream,
                    headers,
                    end_stream: true,
                    ..
                } => {
                    panic!("{stream:?} was refused: {:?}", headers.get(b"grpc-message"));
                }
                Event::Reset { stream, code } => panic!("{stream:?} was reset: {code:?}"),
                _ => {}
            });
        }
        order
    }

    fn receive(&mut self, mut on_event: impl FnMut(Event<'_, '_>)) {
        let mut chunk = vec![0; 64 << 10];
        let bytes = self.socket.read(&mut chunk).expect("the gateway answers in time");
        assert!(bytes > 0, "the gateway closed the connection");
        self.received.extend_from_slice(&chunk[..bytes]);
        let mut input = Input::new(&self.received);
        while let Some(event) = self.h2.poll_event(&mut input).expect("the gateway speaks HTTP/2") {
            on_event(event);
        }
        let consumed = input.consumed();
        self.received.drain(..consumed);
        self.transmit();
    }
}
