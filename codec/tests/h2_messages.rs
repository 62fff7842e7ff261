//! Rules of RFC 9113 section 8, messages: what a request and a response must look like, on both
//! sides.

mod h2_support;

use h2_support::*;
use prism_codec::h2::{Config, ErrorCode, SendError};

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;

/// A server with stream 1 open and its request not finished.
fn with_open_stream() -> Subject {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    subject
}

// ---- 8 messages ---------------------------------------------------------------------------------

#[test]
fn malformed_requests_are_stream_errors() {
    for extra in [
        literal("Upper", "x"),
        literal("connection", "close"),
        literal("te", "gzip"),
        literal(":unknown", "x"),
        literal(":path", "/again"),
        literal("x", "a\nb"),
        literal("content-length", "x"),
    ] {
        let block = [GET, &extra].concat();
        let mut subject = Subject::server();
        subject.expect_stream_error(&frame(HEADERS, WHOLE, 1, &block), 1, PROTOCOL);
        assert!(subject.seen.is_empty(), "the driver never hears of it");
    }
}

#[test]
fn a_body_must_be_as_long_as_promised() {
    let block = |length: &str| [POST, &literal("content-length", length)].concat();
    let post = |length: &str| {
        let mut subject = Subject::server();
        subject
            .feed(&frame(HEADERS, END_HEADERS, 1, &block(length)))
            .expect("a request");
        subject
    };
    post("5")
        .feed(&frame(DATA, END_STREAM, 1, b"right"))
        .expect("right");
    post("5").expect_stream_error(&frame(DATA, END_STREAM, 1, b"less"), 1, PROTOCOL);
    post("5").expect_stream_error(&frame(DATA, 0, 1, b"much more"), 1, PROTOCOL);
    post("5").expect_stream_error(&frame(HEADERS, WHOLE, 1, &literal("a", "b")), 1, PROTOCOL);
    let headers_only = frame(HEADERS, WHOLE, 1, &block("5"));
    Subject::server().expect_stream_error(&headers_only, 1, PROTOCOL);
    let padded = frame(DATA, PADDED | END_STREAM, 1, b"\x02right\0\0");
    post("5").feed(&padded).expect("padding is no body");
}

#[test]
fn trailers_end_the_stream_and_have_no_pseudo_fields() {
    let mut subject = with_open_stream();
    subject
        .feed(&frame(HEADERS, WHOLE, 1, &literal("a", "b")))
        .expect("trailers");
    assert_eq!(
        subject.seen.last(),
        Some(&Seen::Trailers(1, vec![("a".to_owned(), "b".to_owned())]))
    );
    with_open_stream().expect_stream_error(&frame(HEADERS, END_HEADERS, 1, &literal("a", "b")), 1, PROTOCOL);
    with_open_stream().expect_stream_error(&frame(HEADERS, WHOLE, 1, GET), 1, PROTOCOL);
}

#[test]
fn a_client_passes_over_interim_responses() {
    let mut client = Subject::client_with(Config::client(), &[]);
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")];
    client.connection.send_request(fields, true).expect("room");
    client
        .feed(&frame(HEADERS, END_HEADERS, 1, &literal(":status", "103")))
        .expect("interim");
    assert!(client.seen.is_empty());
    client
        .feed(&frame(HEADERS, END_HEADERS, 1, &[0x88]))
        .expect("final");
    client.feed(&frame(DATA, 0, 1, b"body")).expect("data");
    client
        .feed(&frame(HEADERS, WHOLE, 1, &literal("grpc-status", "0")))
        .expect("trailers");
    assert_eq!(client.seen.len(), 3);
    assert_eq!(client.connection.open_streams(), 0);
}

#[test]
fn malformed_responses_are_stream_errors() {
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")];
    for bad in [
        frame(HEADERS, END_HEADERS, 1, &literal("no", "status")),
        frame(HEADERS, WHOLE, 1, &literal(":status", "100")),
        frame(HEADERS, END_HEADERS, 1, &literal(":status", "101")),
        frame(DATA, 0, 1, b"before headers"),
        frame(
            HEADERS,
            WHOLE,
            1,
            &[&[0x88][..], &literal("content-length", "5")].concat(),
        ),
    ] {
        let mut client = Subject::client_with(Config::client(), &[]);
        client.connection.send_request(fields, true).expect("room");
        client.frames();
        client.expect_stream_error(&bad, 1, PROTOCOL);
        assert_eq!(client.seen, [Seen::Reset(1, PROTOCOL)]);
    }
}

#[test]
fn a_response_to_head_may_promise_a_body_that_does_not_come() {
    let mut client = Subject::client_with(Config::client(), &[]);
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"HEAD"), (b":scheme", b"http"), (b":path", b"/")];
    client.connection.send_request(fields, true).expect("room");
    let block = [&[0x88][..], &literal("content-length", "5")].concat();
    client.feed(&frame(HEADERS, WHOLE, 1, &block)).expect("legal");
    assert!(matches!(client.seen[..], [Seen::Headers(1, _, true)]));
}

#[test]
fn a_client_stops_sending_when_the_reply_is_complete() {
    let mut client = Subject::client_with(Config::client(), &[(4, 10)]);
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/")];
    let stream = client.connection.send_request(fields, false).expect("room");
    client
        .connection
        .send_data(stream, &[0; 100], false)
        .expect("queued");
    client.frames();
    client
        .feed(&frame(HEADERS, WHOLE, 1, &[0x88]))
        .expect("an early reply");
    assert_eq!(client.frames_of(RST_STREAM)[0].word(0), ErrorCode::CANCEL.0);
    assert_eq!(
        (client.connection.open_streams(), client.connection.queued_bytes()),
        (0, 0)
    );
    assert_eq!(
        client.connection.send_data(stream, b"x", true),
        Err(SendError::StreamClosed)
    );
    client
        .feed(&reset(1, ErrorCode::NO_ERROR))
        .expect("it was in flight");
}

#[test]
fn a_client_keeps_to_the_servers_stream_limit() {
    let mut client = Subject::client_with(Config::client(), &[(3, 2)]);
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")];
    assert_eq!(client.connection.available_streams(), 2);
    client.connection.send_request(fields, true).expect("room");
    client.connection.send_request(fields, true).expect("room");
    assert_eq!(
        client.connection.send_request(fields, true),
        Err(SendError::StreamLimit)
    );
    client.feed(&reset(1, ErrorCode::REFUSED_STREAM)).expect("legal");
    assert_eq!(client.seen, [Seen::Reset(1, ErrorCode::REFUSED_STREAM)]);
    client.connection.send_request(fields, true).expect("room again");
}

#[test]
fn a_client_keeps_to_the_servers_header_list_limit() {
    let mut client = Subject::client_with(Config::client(), &[(6, 150)]);
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")];
    client.connection.send_request(fields, true).expect("125 bytes");
    let more = [fields, &[(b"x", b"y")]].concat();
    assert_eq!(
        client.connection.send_request(&more, true),
        Err(SendError::HeaderListTooLarge)
    );
}

#[test]
fn commands_in_the_wrong_state_send_nothing() {
    let mut subject = with_open_stream();
    let stream = subject.last_stream();
    let wrong = Err(SendError::WrongState);
    assert_eq!(subject.connection.send_data(stream, b"x", false), wrong);
    assert_eq!(subject.connection.send_trailers(stream, &[]), wrong);
    assert_eq!(subject.connection.send_grpc_ok(stream), wrong);
    assert_eq!(subject.connection.send_request(&[], true).map(|_| ()), wrong);
    subject
        .connection
        .send_headers(stream, &[(b":status", b"100")], false)
        .expect("interim");
    subject
        .connection
        .send_headers(stream, &[(b":status", b"200")], false)
        .expect("final");
    subject.frames();
    assert_eq!(
        subject
            .connection
            .send_headers(stream, &[(b":status", b"200")], false),
        wrong
    );
    assert_eq!(subject.connection.send_grpc_reply(stream, |_| ()), wrong);
    assert!(subject.frames().is_empty());
    subject.connection.abort(ErrorCode::INTERNAL_ERROR);
    assert_eq!(
        subject.connection.send_data(stream, b"x", true),
        Err(SendError::ConnectionClosed)
    );
    assert!(subject.feed(&[]).is_err() && !subject.connection.wants_read());
}

#[test]
fn pings_are_answered_and_pongs_told() {
    let mut subject = Subject::server();
    subject.connection.ping(*b"12345678");
    assert_eq!(subject.frames_of(PING)[0].payload, b"12345678");
    subject
        .feed(&frame(PING, ACK, 0, b"12345678"))
        .expect("the answer");
    subject
        .feed(&frame(PING, ACK, 0, b"87654321"))
        .expect("nobody asked");
    assert_eq!(subject.seen, [Seen::Pong(*b"12345678")]);
}
