//! Idle streams of events: keep-alives at the right time, on both HTTP versions.

use std::time::Instant;

use prism_backends::NamespaceId;
use prism_codec::h2::{Config, Connection, Event, Input};

use super::{
    bench::lone_dispatcher,
    h1_session::H1Session,
    h2_session::{H2Session, KEEP_ALIVE_SECONDS},
};
use crate::call::ticket::{CallId, Ticket};

const PATH: &str = "/grpc.health.v1.Health/Watch?encoding=json&message=";
const SIGN_OF_LIFE: &[u8] = b": keep-alive\n\n";

fn address() -> Ticket {
    Ticket {
        shard: 0,
        slot: 0,
        generation: 1,
        call: CallId::Request(0),
        namespace: NamespaceId(0),
        caller: crate::identity::CallerId::NOBODY,
    }
}

#[test]
fn an_idle_stream_of_http_1_gives_signs_of_life() {
    let mut gateway = lone_dispatcher();
    let mut session = H1Session::new(address(), 1 << 20, 32 << 20);
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
    let (used, goes_on) = session.handle_recv(request.as_bytes(), Instant::now(), &mut gateway);
    assert_eq!((used, goes_on), (request.len(), true));
    assert!(!session.take_output().is_empty());
    for _ in 0..2 {
        for _ in 1..KEEP_ALIVE_SECONDS {
            session.tick(1, gateway.limits());
            assert!(session.take_output().is_empty());
        }
        session.tick(1, gateway.limits());
        assert_eq!(session.take_output(), [b"e\r\n", SIGN_OF_LIFE, b"\r\n"].concat());
    }
    session.close(&mut gateway);
    session.tick(1, gateway.limits());
    assert!(session.take_output().is_empty());
}

#[test]
fn an_idle_stream_of_http_2_gives_signs_of_life() {
    let mut gateway = lone_dispatcher();
    let mut session = H2Session::new(Config::server(), address(), 1 << 20);
    let mut client = Connection::new(Config::client());
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", PATH.as_bytes()),
        (b":authority", b"localhost"),
        (b"accept", b"text/event-stream"),
    ];
    client.send_request(&fields, true).expect("a new connection");
    let request = client.take_output(Vec::new());
    let (used, goes_on) = session.handle_recv(&request, Instant::now(), &mut gateway);
    assert_eq!((used, goes_on), (request.len(), true));
    let first = data(&mut client, &session.h2().take_output(Vec::new()));
    assert!(
        first.ends_with(b"SERVING\"}\n\n"),
        "{}",
        String::from_utf8_lossy(&first)
    );
    for second in 1..=2 * KEEP_ALIVE_SECONDS {
        session.tick(1, Instant::now(), &mut gateway);
        let said = data(&mut client, &session.h2().take_output(Vec::new()));
        let expected = if second % KEEP_ALIVE_SECONDS == 0 {
            SIGN_OF_LIFE
        } else {
            b""
        };
        assert_eq!(said, expected, "second {second}");
    }
}

/// The bodies in the server's output.
fn data(client: &mut Connection, bytes: &[u8]) -> Vec<u8> {
    let mut input = Input::new(bytes);
    let mut bodies = Vec::new();
    while let Some(event) = client
        .poll_event(&mut input)
        .expect("our own server speaks HTTP/2")
    {
        match event {
            Event::Headers { headers, .. } => assert_eq!(headers.get(b":status"), Some(&b"200"[..])),
            Event::Data { data, .. } => bodies.extend_from_slice(data),
            _ => {}
        }
    }
    bodies
}
