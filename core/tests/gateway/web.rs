//! Clients without a gRPC library: event streams over HTTP/1.1, and streams that are open when the
//! gateway drains. Clients of other makers test the rest (`clients/conformance`).

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use prism_codec::{
    h2::{Config, Connection, Event, Input},
    proto::grpc::reflection::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest},
};
use prism_core::config::{EmbeddedStore, ServeOptions};
use prost::Message as _;

use super::support::{CALL_TIMEOUT, Gateway};

/// Longest time of a drain, which must not use its whole time for idle streams.
const DRAIN_MAX: Duration = Duration::from_secs(20);

fn patient(options: &mut ServeOptions) {
    options.limits.drain_timeout = 3 * DRAIN_MAX;
}

fn connect(gateway: &Gateway) -> TcpStream {
    let socket = TcpStream::connect(gateway.address()).expect("the gateway listens");
    socket.set_read_timeout(Some(CALL_TIMEOUT)).expect("a duration");
    socket
}

/// Reads until `text` ends with this, or the peer closes.
fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.ends_with(end) {
        match socket.read(&mut bytes).expect("an answer in time") {
            0 => break,
            count => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
        }
    }
    text
}

#[test]
fn a_health_watch_as_events_hears_of_the_drain() {
    let mut gateway = Gateway::start_with(EmbeddedStore::Memory, 1, patient);
    let mut socket = connect(&gateway);
    let request = "GET /grpc.health.v1.Health/Watch?encoding=json&message= HTTP/1.1\r\nhost: localhost\r\n\
                   accept: text/event-stream\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("a connection");
    let first = read_until(&mut socket, "data: {\"status\":\"SERVING\"}\n\n\r\n");
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    assert!(first.contains("content-type: text/event-stream\r\n"), "{first}");
    assert!(first.contains("retry: 1000\n\n"), "{first}");
    let began = Instant::now();
    gateway.stop();
    assert!(began.elapsed() < DRAIN_MAX, "{:?}", began.elapsed());
    let last = read_until(&mut socket, "0\r\n\r\n");
    assert!(last.contains("data: {\"status\":\"NOT_SERVING\"}\n\n"), "{last}");
    assert!(last.ends_with("event: end\ndata: {}\n\n\r\n0\r\n\r\n"), "{last}");
}

#[test]
fn a_drain_does_not_wait_for_reflection_in_which_nothing_is_under_way() {
    let mut gateway = Gateway::start_with(EmbeddedStore::Memory, 1, patient);
    let mut socket = connect(&gateway);
    let mut client = Connection::new(Config::client());
    let path = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let stream = client
        .send_request(
            &[
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path),
                (b":authority", b"localhost"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            ],
            false,
        )
        .expect("a new connection");
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    client
        .send_grpc_message(stream, false, |out| request.encode(out).expect("a Vec"))
        .expect("an open stream");
    let answered = exchange(&mut socket, &mut client, |event| {
        matches!(event, Event::Data { .. })
    });
    assert!(answered, "the list of services");
    let stopped = std::thread::scope(|scope| {
        let stopped = scope.spawn(|| {
            let began = Instant::now();
            gateway.stop();
            began.elapsed()
        });
        // The client answers the protocol's frames, but neither ends the stream nor closes.
        exchange(&mut socket, &mut client, |_| false);
        stopped.join().expect("the gateway drains")
    });
    assert!(stopped < DRAIN_MAX, "{stopped:?}");
}

/// Runs the client's protocol until the wanted event comes, or the peer closes. Returns whether it
/// came.
fn exchange(
    socket: &mut TcpStream,
    client: &mut Connection,
    is_wanted: impl Fn(&Event<'_, '_>) -> bool,
) -> bool {
    let (mut received, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let output = client.take_output(Vec::new());
        if !output.is_empty() && socket.write_all(&output).is_err() {
            return false;
        }
        match socket.read(&mut bytes) {
            Ok(0) | Err(_) => return false,
            Ok(count) => received.extend_from_slice(&bytes[..count]),
        }
        let mut input = Input::new(&received);
        while let Some(event) = client.poll_event(&mut input).expect("the gateway speaks HTTP/2") {
            if is_wanted(&event) {
                return true;
            }
        }
        let used = input.consumed();
        received.drain(..used);
    }
}
