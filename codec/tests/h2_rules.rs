//! Rules of RFC 9113, one by one, with raw frames: connection errors, stream errors, ignored
//! frames. The numbers in names and comments are sections; h2spec tests much of the same from
//! outside.

mod h2_support;

use h2_support::*;
use prism_codec::h2::{Config, ErrorCode, PREFACE, SendError};

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;

/// A server with stream 1 open and its request not finished.
fn with_open_stream() -> Subject {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    subject
}

// ---- 3.4 preface --------------------------------------------------------------------------------

#[test]
fn a_wrong_preface_is_refused_at_its_first_wrong_byte() {
    Subject::new(Config::server()).expect_connection_error_after_opening(b"GET / HTTP/1.1\r\n", PROTOCOL);
    Subject::new(Config::server()).expect_connection_error_after_opening(b"PRI * HTTP/1", PROTOCOL);
}

#[test]
fn a_preface_may_come_byte_by_byte() {
    let mut subject = Subject::new(Config::server());
    for byte in [&PREFACE[..], &settings(&[])].concat() {
        subject.feed(&[byte]).expect("a legal opening");
    }
    assert_eq!(subject.seen, [Seen::PeerSettings]);
}

#[test]
fn the_first_frame_must_be_settings() {
    for first in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(HEADERS, WHOLE, 1, GET),
    ] {
        let mut subject = Subject::new(Config::server());
        subject.expect_connection_error_after_opening(&[&PREFACE[..], &first].concat(), PROTOCOL);
        let mut client = Subject::new(Config::client());
        client.expect_connection_error_after_opening(&first, PROTOCOL);
    }
}

impl Subject {
    /// Expects a connection error, after dropping our opening, which is still in the output.
    #[track_caller]
    fn expect_connection_error_after_opening(&mut self, bytes: &[u8], code: ErrorCode) {
        self.frames();
        self.expect_connection_error(bytes, code);
    }
}

// ---- 4 frames -----------------------------------------------------------------------------------

#[test]
fn unknown_frames_and_flags_are_ignored() {
    let mut subject = with_open_stream();
    subject
        .feed(&frame(0x2a, 0xff, 77, &[1; 5_000]))
        .expect("ignored");
    subject
        .feed(&frame(PING, 0xfe, 0, &[0; 8]))
        .expect("only ACK means something");
    subject
        .feed(&frame(DATA, 0xf6, 1, b"x"))
        .expect("only END_STREAM and PADDED mean something");
    subject.expect_alive_after_output();
}

impl Subject {
    #[track_caller]
    fn expect_alive_after_output(&mut self) {
        self.frames();
        self.expect_alive();
    }
}

#[test]
fn a_frame_above_the_announced_size_is_refused_before_it_arrives() {
    let mut subject = with_open_stream();
    let mut header = frame(DATA, 0, 1, &[]);
    header[..3].copy_from_slice(&[0, 0x40, 1]);
    subject.expect_connection_error(&header, SIZE);
}

#[test]
fn frames_of_illegal_sizes_are_connection_errors() {
    for bad in [
        frame(PING, 0, 0, &[0; 7]),
        frame(PING, 0, 0, &[0; 9]),
        frame(RST_STREAM, 0, 1, &[0; 3]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, ACK, 0, &[0; 6]),
        frame(GOAWAY, 0, 0, &[0; 7]),
        frame(PRIORITY, 0, 1, &[0; 4]),
        frame(HEADERS, PADDED | END_HEADERS, 3, &[]),
        frame(HEADERS, PRIORITY_FLAG | END_HEADERS, 3, &[0; 4]),
        frame(DATA, PADDED, 1, &[]),
    ] {
        with_open_stream().expect_connection_error(&bad, SIZE);
    }
}

#[test]
fn frames_on_the_wrong_kind_of_stream_are_connection_errors() {
    for bad in [
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, END_HEADERS, 0, GET),
        frame(PRIORITY, 0, 0, &[0; 5]),
        frame(RST_STREAM, 0, 0, &[0; 4]),
        frame(CONTINUATION, END_HEADERS, 0, GET),
        frame(SETTINGS, 0, 1, &[]),
        frame(PING, 0, 1, &[0; 8]),
        frame(GOAWAY, 0, 1, &[0; 8]),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
    ] {
        with_open_stream().expect_connection_error(&bad, PROTOCOL);
    }
}

#[test]
fn a_broken_header_block_is_a_compression_error() {
    with_open_stream().expect_connection_error(
        &frame(HEADERS, WHOLE, 3, &[0xff, 0xff]),
        ErrorCode::COMPRESSION_ERROR,
    );
}

// ---- 5.1 stream states --------------------------------------------------------------------------

#[test]
fn frames_on_idle_streams_are_connection_errors() {
    for bad in [
        frame(DATA, 0, 3, b"x"),
        reset(3, ErrorCode::CANCEL),
        window_update(3, 1),
        window_update(2, 1),
    ] {
        with_open_stream().expect_connection_error(&bad, PROTOCOL);
    }
    with_open_stream()
        .feed(&frame(PRIORITY, 0, 9, &[0; 5]))
        .expect("PRIORITY may come at any time");
}

#[test]
fn half_closed_remote_takes_no_more_data_or_headers() {
    for bad in [frame(DATA, 0, 1, b"x"), frame(HEADERS, WHOLE, 1, GET)] {
        let mut subject = Subject::server();
        subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
        subject.feed(&window_update(1, 5)).expect("allowed");
        subject.frames();
        subject.expect_stream_error(&bad, 1, CLOSED);
        assert_eq!(subject.seen.last(), Some(&Seen::Reset(1, CLOSED)));
    }
}

#[test]
fn after_both_ends_a_frame_is_a_connection_error() {
    for bad in [frame(DATA, END_STREAM, 1, b"x"), frame(HEADERS, WHOLE, 1, GET)] {
        let mut subject = Subject::server();
        subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
        let stream = subject.last_stream();
        subject.connection.send_grpc_reply(stream, |_| ()).expect("open");
        for harmless in [
            window_update(1, 1),
            reset(1, ErrorCode::CANCEL),
            frame(PRIORITY, 0, 1, &[0; 5]),
        ] {
            subject.feed(&harmless).expect("may have been in flight");
        }
        subject.frames();
        subject.expect_connection_error(&bad, CLOSED);
    }
}

#[test]
fn after_a_reset_by_the_peer_a_frame_is_a_stream_error() {
    for bad in [frame(DATA, END_STREAM, 1, b"x"), frame(HEADERS, WHOLE, 1, GET)] {
        let mut subject = with_open_stream();
        subject.feed(&reset(1, ErrorCode::CANCEL)).expect("a reset");
        assert_eq!(subject.seen.last(), Some(&Seen::Reset(1, ErrorCode::CANCEL)));
        subject.expect_stream_error(&bad, 1, CLOSED);
    }
}

#[test]
fn after_our_reset_frames_in_flight_are_ignored() {
    let mut subject = with_open_stream();
    let stream = subject.last_stream();
    subject.connection.reset(stream, ErrorCode::CANCEL);
    subject.frames();
    subject
        .feed_all(&[
            frame(DATA, 0, 1, b"late"),
            window_update(1, 1),
            frame(HEADERS, WHOLE, 1, &literal("late", "trailer")),
            reset(1, ErrorCode::CANCEL),
        ])
        .expect("ignored");
    assert!(subject.frames().is_empty());
    assert_eq!(subject.seen.len(), 1, "only the request: {:?}", subject.seen);
    assert_eq!(
        subject.connection.send_data(stream, b"x", false),
        Err(SendError::StreamClosed)
    );
}

#[test]
fn an_early_reply_goes_out_at_once_and_then_asks_the_client_to_stop() {
    let mut subject = with_open_stream();
    let stream = subject.last_stream();
    subject
        .connection
        .send_grpc_error(stream, 7, "no", None)
        .expect("open");
    let kinds: Vec<_> = subject.frames().iter().map(|frame| frame.kind).collect();
    assert_eq!(
        kinds,
        [HEADERS],
        "some clients lose a reply that comes with its reset"
    );
    let seen = subject.seen.len();
    subject.feed(&frame(DATA, 0, 1, b"in flight")).expect("dropped");
    assert_eq!(subject.seen.len(), seen, "nobody wants it");
    subject.connection.tick(1);
    assert!(subject.frames().is_empty());
    subject.connection.tick(1);
    let resets = subject.frames_of(RST_STREAM);
    assert_eq!((resets[0].stream, resets[0].word(0)), (1, ErrorCode::NO_ERROR.0));
    assert_eq!(subject.connection.open_streams(), 0);
    subject
        .feed(&frame(DATA, END_STREAM, 1, b"in flight"))
        .expect("ignored");
    subject.expect_alive();
}

#[test]
fn a_request_that_ends_after_its_reply_is_not_reset() {
    let mut subject = with_open_stream();
    let stream = subject.last_stream();
    subject
        .connection
        .send_grpc_error(stream, 7, "no", None)
        .expect("open");
    subject.frames();
    subject
        .feed(&frame(DATA, END_STREAM, 1, b"in flight"))
        .expect("dropped");
    assert_eq!(subject.connection.open_streams(), 0);
    for _ in 0..3 {
        subject.connection.tick(1);
    }
    assert!(subject.frames().is_empty());
}

#[test]
fn what_comes_after_an_early_reply_opens_no_window_of_its_stream() {
    let mut subject = with_open_stream();
    let stream = subject.last_stream();
    subject
        .connection
        .send_grpc_error(stream, 7, "no", None)
        .expect("open");
    subject.frames();
    let window = Config::server().initial_window as usize;
    for _ in 0..window / 16_384 {
        subject
            .feed(&frame(DATA, 0, 1, &[0; 16_384]))
            .expect("within the window");
    }
    assert!(
        subject
            .frames_of(WINDOW_UPDATE)
            .iter()
            .all(|frame| frame.stream == 0),
        "other streams of the connection need not suffer"
    );
    subject.expect_stream_error(&frame(DATA, 0, 1, b"x"), 1, FLOW);
}

// ---- 5.1.1, 5.1.2 -------------------------------------------------------------------------------

#[test]
fn stream_ids_of_clients_are_odd_and_grow() {
    with_open_stream().expect_connection_error(&frame(HEADERS, WHOLE, 2, GET), PROTOCOL);
    let mut subject = Subject::server();
    subject.feed(&frame(HEADERS, WHOLE, 5, GET)).expect("a request");
    subject.expect_connection_error(&frame(HEADERS, WHOLE, 3, GET), PROTOCOL);
}

#[test]
fn streams_above_the_limit_are_refused() {
    let mut subject = Subject::server_with(
        Config {
            max_concurrent_streams: 2,
            ..Config::server()
        },
        &[],
    );
    subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
    subject.feed(&frame(HEADERS, WHOLE, 3, GET)).expect("a request");
    subject.expect_stream_error(&frame(HEADERS, WHOLE, 5, GET), 5, ErrorCode::REFUSED_STREAM);
    assert_eq!(subject.seen.len(), 2, "the driver never hears of it");
    let first = subject.streams[0];
    subject.connection.send_grpc_reply(first, |_| ()).expect("open");
    subject
        .feed(&frame(HEADERS, WHOLE, 7, GET))
        .expect("there is room again");
    assert_eq!(subject.connection.open_streams(), 2);
}

#[test]
fn a_refused_block_still_changes_the_header_table() {
    let mut subject = Subject::server_with(
        Config {
            max_concurrent_streams: 1,
            ..Config::server()
        },
        &[],
    );
    subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
    // Refused, but inserts "a: b".
    let mut inserting = GET.to_vec();
    inserting.extend_from_slice(&[0x40, 1, b'a', 1, b'b']);
    subject.expect_stream_error(
        &frame(HEADERS, WHOLE, 3, &inserting),
        3,
        ErrorCode::REFUSED_STREAM,
    );
    let first = subject.streams[0];
    subject.connection.send_grpc_reply(first, |_| ()).expect("open");
    let using = [GET, &[0xbe]].concat();
    subject
        .feed(&frame(HEADERS, WHOLE, 5, &using))
        .expect("index 62 is known");
    let Some(Seen::Headers(5, headers, true)) = subject.seen.last() else {
        panic!("{:?}", subject.seen)
    };
    assert_eq!(headers.last(), Some(&("a".to_owned(), "b".to_owned())));
}

// ---- 6.1, 6.2, 6.10 -----------------------------------------------------------------------------

#[test]
fn padding_is_removed_and_counts_for_flow_control() {
    let mut subject = with_open_stream();
    let padded = [&[3][..], b"data", &[0; 3]].concat();
    subject.feed(&frame(DATA, PADDED, 1, &padded)).expect("legal");
    subject
        .feed(&frame(DATA, PADDED | END_STREAM, 1, &[0]))
        .expect("padding of nothing");
    assert_eq!(
        subject.seen[1..],
        [
            Seen::Data(1, b"data".to_vec(), false),
            Seen::Data(1, vec![], true)
        ]
    );
    with_open_stream().expect_connection_error(&frame(DATA, PADDED, 1, &[4, 1, 2, 3]), PROTOCOL);
    let padded = [&[2][..], GET, &[0; 2]].concat();
    subject
        .feed(&frame(HEADERS, PADDED | WHOLE, 3, &padded))
        .expect("legal");
    assert!(matches!(subject.seen.last(), Some(Seen::Headers(3, _, true))));
    with_open_stream().expect_connection_error(&frame(HEADERS, PADDED | WHOLE, 3, &[9, 0x82]), PROTOCOL);
}

#[test]
fn priority_fields_are_skipped_but_no_stream_depends_on_itself() {
    let mut subject = Subject::server();
    let with_priority = |on: u32| [&on.to_be_bytes()[..], &[16], GET].concat();
    let padded = [&[1][..], &with_priority(0), &[0]].concat();
    let flags = WHOLE | PRIORITY_FLAG;
    subject
        .feed(&frame(HEADERS, flags, 1, &with_priority(0x8000_0000)))
        .expect("legal");
    subject
        .feed(&frame(HEADERS, flags | PADDED, 3, &padded))
        .expect("legal");
    assert_eq!(subject.streams.len(), 2);
    subject.expect_stream_error(&frame(HEADERS, flags, 5, &with_priority(5)), 5, PROTOCOL);
    subject.expect_stream_error(&frame(PRIORITY, 0, 3, &[0, 0, 0, 3, 1]), 3, PROTOCOL);
}

#[test]
fn a_header_block_may_span_continuations_but_nothing_may_come_between() {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_STREAM, 1, &GET[..1]))
        .expect("to be continued");
    subject
        .feed(&frame(CONTINUATION, 0, 1, &[]))
        .expect("empty but legal");
    subject
        .feed(&frame(CONTINUATION, END_HEADERS, 1, &GET[1..]))
        .expect("complete");
    assert!(matches!(subject.seen.last(), Some(Seen::Headers(1, headers, true)) if headers.len() == 3));

    let begun = frame(HEADERS, END_STREAM, 1, &GET[..1]);
    for between in [
        frame(PING, 0, 0, &[0; 8]),
        frame(CONTINUATION, END_HEADERS, 3, &GET[1..]),
        frame(HEADERS, WHOLE, 1, GET),
        frame(0x2a, 0, 0, &[]),
    ] {
        let mut subject = Subject::server();
        subject.feed(&begun).expect("to be continued");
        subject.expect_connection_error(&between, PROTOCOL);
    }
    with_open_stream().expect_connection_error(&frame(CONTINUATION, END_HEADERS, 1, GET), PROTOCOL);
}

// ---- 6.5 SETTINGS -------------------------------------------------------------------------------

#[test]
fn settings_are_acknowledged_and_illegal_values_refused() {
    let mut subject = Subject::server();
    subject
        .feed(&settings(&[(0xff, 1), (3, 7), (1, 0)]))
        .expect("unknown settings are ignored");
    let answers = subject.frames();
    assert_eq!(
        answers,
        [Frame {
            kind: SETTINGS,
            flags: ACK,
            stream: 0,
            payload: vec![]
        }]
    );
    for (entry, code) in [
        ((2, 2), PROTOCOL),
        ((4, 1 << 31), FLOW),
        ((5, 16_383), PROTOCOL),
        ((5, 1 << 24), PROTOCOL),
        ((8, 2), PROTOCOL),
    ] {
        Subject::server().expect_connection_error(&settings(&[entry]), code);
    }
    let mut client = Subject::client_with(Config::client(), &[]);
    client.expect_connection_error(&settings(&[(2, 1)]), PROTOCOL);
}

#[test]
fn a_change_of_the_initial_window_applies_to_open_streams() {
    let mut subject = Subject::server_with(Config::server(), &[(4, 10)]);
    subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
    let stream = subject.last_stream();
    subject
        .connection
        .send_headers(stream, &[(b":status", b"200")], false)
        .expect("open");
    subject
        .connection
        .send_data(stream, &[7; 25], true)
        .expect("queued");
    let sent = |subject: &mut Subject| {
        let frames = subject.frames_of(DATA);
        frames
            .iter()
            .map(|frame| (frame.payload.len(), frame.flags))
            .collect::<Vec<_>>()
    };
    assert_eq!(sent(&mut subject), [(10, 0)]);
    assert_eq!(subject.connection.stream_queued(stream), 15);
    // Lowered by 6 to 4: 10 are in flight, so the window is -6; 8 more make it 2.
    subject.feed(&settings(&[(4, 4)])).expect("legal");
    subject.feed(&window_update(1, 8)).expect("legal");
    assert_eq!(sent(&mut subject), [(2, 0)]);
    subject.feed(&settings(&[(4, 100)])).expect("legal");
    assert_eq!(sent(&mut subject), [(13, END_STREAM)]);
    assert_eq!(subject.connection.open_streams(), 0);
}

#[test]
fn an_initial_window_that_overflows_a_stream_is_a_connection_error() {
    let mut subject = with_open_stream();
    subject
        .feed(&window_update(1, 0x7fff_ffff - 65_535))
        .expect("exactly the maximum");
    subject.frames();
    subject.expect_connection_error(&settings(&[(4, 65_536)]), FLOW);
}

#[test]
fn our_own_initial_window_holds_from_its_acknowledgement_on() {
    let config = Config {
        initial_window: 100,
        ..Config::server()
    };
    let mut subject = Subject::new(config);
    subject
        .feed(&[&PREFACE[..], &settings(&[])].concat())
        .expect("an opening");
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    subject
        .feed(&frame(DATA, 0, 1, &[0; 5_000]))
        .expect("the client does not know of the 100 yet");
    subject.feed(&frame(SETTINGS, ACK, 0, &[])).expect("now it does");
    subject
        .feed(&frame(HEADERS, END_HEADERS, 3, POST))
        .expect("a request");
    subject.frames();
    subject.expect_stream_error(&frame(DATA, 0, 3, &[0; 101]), 3, FLOW);
}

// ---- 6.8 GOAWAY ---------------------------------------------------------------------------------

#[test]
fn a_drain_has_two_steps_and_loses_no_request() {
    let mut subject = Subject::server();
    subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
    subject.connection.goaway();
    let frames = subject.frames();
    assert_eq!(
        (frames[0].kind, frames[0].word(0), frames[0].word(4)),
        (GOAWAY, 0x7fff_ffff, 0)
    );
    assert_eq!((frames[1].kind, frames[1].flags), (PING, 0));
    let probe = frames[1].payload.clone();
    subject
        .feed(&frame(HEADERS, WHOLE, 3, GET))
        .expect("was in flight");
    subject.feed(&frame(PING, ACK, 0, &probe)).expect("the answer");
    let last = subject.frames();
    assert_eq!((last[0].kind, last[0].word(0)), (GOAWAY, 3));
    subject
        .feed(&frame(HEADERS, END_HEADERS, 5, POST))
        .expect("ignored");
    subject.feed(&frame(DATA, END_STREAM, 5, b"x")).expect("ignored");
    assert_eq!(subject.streams.len(), 2);
    assert!(!subject.connection.is_drained());
    for stream in subject.streams.clone() {
        subject.connection.send_grpc_reply(stream, |_| ()).expect("open");
    }
    assert!(!subject.connection.is_drained(), "the replies are not sent yet");
    subject.frames();
    assert!(subject.connection.is_drained());
}

#[test]
fn a_second_call_ends_a_drain_whose_ping_is_not_answered() {
    let mut subject = Subject::server();
    subject.connection.goaway();
    subject.connection.goaway();
    subject.connection.goaway();
    let goaways = subject.frames_of(GOAWAY);
    assert_eq!(
        goaways.iter().map(|frame| frame.word(0)).collect::<Vec<_>>(),
        [0x7fff_ffff, 0]
    );
    assert!(subject.connection.is_drained());
}

#[test]
fn a_server_that_goes_away_refuses_newer_streams() {
    let mut client = Subject::client_with(Config::client(), &[]);
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")];
    let streams: Vec<_> = (0..3)
        .map(|_| client.connection.send_request(fields, true).expect("room"))
        .collect();
    client.frames();
    client
        .feed(&frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0, b'b', b'y', b'e']))
        .expect("legal");
    assert_eq!(
        client.seen,
        [
            Seen::GoAway(3, ErrorCode::NO_ERROR),
            Seen::Reset(5, ErrorCode::REFUSED_STREAM)
        ]
    );
    assert_eq!(
        client.connection.send_request(fields, true),
        Err(SendError::GoingAway)
    );
    assert_eq!(client.connection.open_streams(), 2);
    assert!(!client.connection.is_open(streams[2]));
    client
        .feed(&frame(HEADERS, WHOLE, 1, &[0x88]))
        .expect("a response");
    client
        .feed(&frame(HEADERS, WHOLE, 3, &[0x88]))
        .expect("a response");
    assert!(client.connection.is_drained());
}

// ---- 6.9 flow control ---------------------------------------------------------------------------

#[test]
fn window_updates_of_zero_and_beyond_the_maximum_are_errors() {
    with_open_stream().expect_connection_error(&window_update(0, 0), PROTOCOL);
    with_open_stream().expect_stream_error(&window_update(1, 0), 1, PROTOCOL);
    with_open_stream().expect_connection_error(&window_update(0, 0x7fff_ffff), FLOW);
    with_open_stream().expect_stream_error(&window_update(1, 0x7fff_ffff), 1, FLOW);
}

#[test]
fn data_beyond_the_windows_is_an_error() {
    let config = Config {
        initial_window: 20_000,
        ..Config::server()
    };
    let mut subject = Subject::server_with(config, &[]);
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    let stream = subject.last_stream();
    subject.connection.set_auto_release(stream, false);
    subject
        .feed(&frame(DATA, 0, 1, &[0; 16_384]))
        .expect("within the window");
    subject.expect_stream_error(&frame(DATA, 0, 1, &[0; 3_617]), 1, FLOW);

    let config = Config {
        connection_window: 65_535,
        initial_window: 1 << 20,
        ..Config::server()
    };
    let mut subject = Subject::server_with(config, &[]);
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    let stream = subject.last_stream();
    subject.connection.set_auto_release(stream, false);
    for _ in 0..3 {
        subject
            .feed(&frame(DATA, 0, 1, &[0; 16_384]))
            .expect("within the window");
    }
    subject.expect_connection_error(&frame(DATA, 0, 1, &[0; 16_384]), FLOW);
}

#[test]
fn windows_re_open_in_batches_and_only_when_released() {
    let config = Config {
        initial_window: 40_000,
        connection_window: 80_000,
        ..Config::server()
    };
    let mut subject = Subject::server_with(config, &[]);
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    subject.feed(&frame(DATA, 0, 1, &[0; 16_384])).expect("legal");
    assert!(subject.frames().is_empty(), "less than half of the window");
    subject.feed(&frame(DATA, 0, 1, &[0; 16_384])).expect("legal");
    assert_eq!(subject.frames(), parse(&window_update(1, 32_768)));

    let stream = subject.last_stream();
    subject.connection.set_auto_release(stream, false);
    for _ in 0..2 {
        subject.feed(&frame(DATA, 0, 1, &[0; 16_384])).expect("legal");
    }
    assert!(subject.frames().is_empty(), "held back");
    subject.connection.release(stream, 30_000);
    let updates = [window_update(1, 30_000), window_update(0, 62_768)].concat();
    assert_eq!(subject.frames(), parse(&updates));
    subject.connection.release(stream, usize::MAX);
    subject.connection.release(stream, 5);
    assert!(subject.frames().is_empty(), "2,768 bytes were left, below half");
    // Unreleased bytes return to the connection with the end of the stream.
    for _ in 0..2 {
        subject.feed(&frame(DATA, 0, 1, &[0; 18_000 / 2])).expect("legal");
    }
    subject.connection.reset(stream, ErrorCode::CANCEL);
    subject
        .feed(&frame(HEADERS, END_HEADERS, 3, POST))
        .expect("a request");
    subject.feed(&frame(DATA, 0, 3, &[0; 16_384])).expect("legal");
    subject.feed(&frame(DATA, 0, 3, &[0; 3_616])).expect("legal");
    let updates = subject.frames_of(WINDOW_UPDATE);
    let connection: u32 = updates
        .iter()
        .filter(|frame| frame.stream == 0)
        .map(|frame| frame.word(0))
        .sum();
    assert_eq!(connection, 2_768 + 18_000 + 20_000, "{updates:?}");
}
