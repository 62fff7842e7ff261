//! A client with overlapping calls, directly over the codec, that reads when the test wants it to.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

use prism_codec::{
    grpc::{Code, Status},
    h2::{Config, Connection, ErrorCode, Event, Input, StreamId},
    proto::prism::keyvalue::v1::{GetRequest, Item, PutRequest},
};
use prost::Message;

use super::support::CALL_TIMEOUT;

pub(crate) fn item(value: Vec<u8>) -> Item {
    Item {
        key: b"k".to_vec(),
        value,
        ttl: None,
        compression: 0,
        version: Vec::new(),
    }
}

/// Result of a call, as its client sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// `grpc-status: 0`, after a body of this many bytes.
    Done(usize),
    /// Another status, with the reason in its details.
    Refused(Code, String),
    /// RST_STREAM.
    Reset(ErrorCode),
}

/// The client.
pub(crate) struct RawClient {
    socket: TcpStream,
    h2: Connection,
    received: Vec<u8>,
}

impl RawClient {
    pub(crate) fn connect(address: &str) -> Self {
        Self::connect_with(address, Config::client())
    }

    /// Makes a client that lets the gateway send no more than `bytes` before it reads.
    pub(crate) fn with_window(address: &str, bytes: u32) -> Self {
        let config = Config {
            initial_window: bytes,
            connection_window: bytes,
            ..Config::client()
        };
        Self::connect_with(address, config)
    }

    fn connect_with(address: &str, config: Config) -> Self {
        let socket = TcpStream::connect(address).expect("the gateway takes connections");
        socket.set_read_timeout(Some(CALL_TIMEOUT)).expect("a time-out");
        socket.set_write_timeout(Some(CALL_TIMEOUT)).expect("a time-out");
        let mut client = Self {
            socket,
            h2: Connection::new(config),
            received: Vec::new(),
        };
        client.transmit();
        // The gateway's SETTINGS limit the open streams; before they arrive the protocol's careful
        // default holds.
        let mut settled = false;
        while !settled {
            client.receive(|event| settled |= matches!(event, Event::PeerSettings));
        }
        client
    }

    pub(crate) fn put(&mut self, namespace: &str, id: &str, value: Vec<u8>) -> StreamId {
        let request = PutRequest {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            idempotency_token: None,
            items: vec![item(value)],
        };
        self.call("Put", &request)
    }

    pub(crate) fn get(&mut self, namespace: &str, id: &str) -> StreamId {
        let request = GetRequest {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            predicate: None,
            selection: None,
        };
        self.call("Get", &request)
    }

    /// A call of KeyValue.
    pub(crate) fn call(&mut self, method: &str, request: &impl Message) -> StreamId {
        self.call_at(&format!("/prism.keyvalue.v1.KeyValue/{method}"), request)
    }

    pub(crate) fn call_at(&mut self, path: &str, request: &impl Message) -> StreamId {
        let stream = self.open(path);
        let message = request.encode_to_vec();
        self.h2
            .send_grpc_message(stream, true, |out| out.extend_from_slice(&message))
            .expect("the request is taken or queued");
        stream
    }

    /// Begins a call with an announced message of `length` bytes, sends some of them, and does not
    /// end.
    pub(crate) fn begin(&mut self, method: &str, bytes: &[u8], length: usize) -> StreamId {
        let stream = self.open(&format!("/prism.keyvalue.v1.KeyValue/{method}"));
        let length = u32::try_from(length).expect("a short message").to_be_bytes();
        let body = [&[0], &length[..], bytes].concat();
        self.h2
            .send_data(stream, &body, false)
            .expect("the window is open");
        stream
    }

    fn open(&mut self, path: &str) -> StreamId {
        let headers: [(&[u8], &[u8]); 6] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.as_bytes()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ];
        self.h2.send_request(&headers, false).expect("a stream is free")
    }

    pub(crate) fn transmit(&mut self) {
        let output = self.h2.take_output(Vec::new());
        self.socket.write_all(&output).expect("the gateway reads");
    }

    /// Ended streams, in the order of their ends.
    pub(crate) fn replies(&mut self, count: usize) -> Vec<StreamId> {
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

    /// Waits until every call has ended. Returns their results.
    pub(crate) fn outcomes(&mut self, calls: &[StreamId]) -> BTreeMap<StreamId, Outcome> {
        let mut bodies: BTreeMap<StreamId, usize> = BTreeMap::new();
        let mut outcomes = BTreeMap::new();
        while calls.iter().any(|call| !outcomes.contains_key(call)) {
            self.receive(|event| match event {
                Event::Data { stream, data, .. } => *bodies.entry(stream).or_default() += data.len(),
                Event::Trailers { stream, headers, .. }
                | Event::Headers {
                    stream,
                    headers,
                    end_stream: true,
                    ..
                } => {
                    let status = Status::from_trailers(
                        headers.get(b"grpc-status"),
                        headers.get(b"grpc-message"),
                        headers.get(b"grpc-status-details-bin"),
                    );
                    let outcome = match status.code {
                        Code::Ok => Outcome::Done(bodies.get(&stream).copied().unwrap_or_default()),
                        code => Outcome::Refused(code, status.reason().unwrap_or_default()),
                    };
                    outcomes.entry(stream).or_insert(outcome);
                }
                Event::Reset { stream, code } => {
                    outcomes.entry(stream).or_insert(Outcome::Reset(code));
                }
                _ => {}
            });
        }
        outcomes
    }

    pub(crate) fn receive(&mut self, mut on_event: impl FnMut(Event<'_, '_>)) {
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
