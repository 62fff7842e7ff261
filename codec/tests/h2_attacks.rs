//! Attacks on HTTP/2 servers, each named. Each must end in ENHANCE_YOUR_CALM (or the error that its
//! rule demands) after a bounded amount of work and memory, and an honest peer that looks a little
//! like it must not be hurt.

mod h2_support;

use h2_support::*;
use prism_codec::h2::{Config, ErrorCode, Event, Input};
use prism_codec::limits;

const CALM: ErrorCode = ErrorCode::ENHANCE_YOUR_CALM;

/// Feeds the bytes of `make` for 0, 1, 2, … until the connection ends; returns the number of steps
/// and the error.
fn flood(
    subject: &mut Subject,
    most: u32,
    mut make: impl FnMut(&mut Subject, u32) -> Vec<u8>,
) -> (u32, ErrorCode) {
    for round in 0..most {
        let bytes = make(subject, round);
        if let Err(error) = subject.feed(&bytes) {
            return (round, error.code);
        }
        subject.seen.clear();
        subject.streams.clear();
        subject.frames();
    }
    panic!("still alive after {most} rounds");
}

#[test]
fn rapid_reset_cve_2023_44487() {
    let mut subject = Subject::server();
    let (rounds, code) = flood(&mut subject, 10_000, |_, round| {
        let id = 2 * round + 1;
        [frame(HEADERS, WHOLE, id, GET), reset(id, ErrorCode::CANCEL)].concat()
    });
    assert_eq!((rounds, code), (limits::HTTP2_RESETS_MAX, CALM));
}

#[test]
fn cancelling_half_of_all_calls_is_honest() {
    let mut subject = Subject::server();
    for round in 0..10_000 {
        let id = 4 * round + 1;
        subject.feed(&frame(HEADERS, WHOLE, id, GET)).expect("a request");
        let stream = subject.last_stream();
        subject.connection.send_grpc_reply(stream, |_| ()).expect("open");
        subject
            .feed_all(&[
                frame(HEADERS, WHOLE, id + 2, GET),
                reset(id + 2, ErrorCode::CANCEL),
            ])
            .expect("honest");
        subject.frames();
    }
}

#[test]
fn cancelling_streams_that_have_had_a_reply_is_honest() {
    let mut subject = Subject::server();
    for round in 0..10_000 {
        let id = 2 * round + 1;
        subject.feed(&frame(HEADERS, WHOLE, id, GET)).expect("a request");
        let stream = subject.last_stream();
        subject.connection.send_grpc_headers(stream).expect("open");
        subject
            .feed(&reset(id, ErrorCode::CANCEL))
            .expect("the end of a watch");
        subject.frames();
    }
}

#[test]
fn made_you_reset_cve_2025_8671() {
    type Provocation = fn(u32) -> Vec<u8>;
    let provocations: [Provocation; 5] = [
        |id| window_update(id, 0),
        |id| window_update(id, 0x7fff_ffff),
        |id| frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[0]].concat()),
        |id| frame(HEADERS, WHOLE, id, GET),
        |id| frame(DATA, 0, id, b"after END_STREAM"),
    ];
    for provoke in provocations {
        let mut subject = Subject::server();
        let (rounds, code) = flood(&mut subject, 10_000, |_, round| {
            let id = 2 * round + 1;
            [frame(HEADERS, WHOLE, id, GET), provoke(id)].concat()
        });
        assert_eq!((rounds, code), (limits::HTTP2_STREAM_ERRORS_MAX, CALM));
    }
}

#[test]
fn malformed_requests_without_end() {
    let mut subject = Subject::server();
    let (rounds, code) = flood(&mut subject, 10_000, |_, round| {
        frame(HEADERS, WHOLE, 2 * round + 1, &[0x82])
    });
    assert_eq!((rounds, code), (limits::HTTP2_STREAM_ERRORS_MAX, CALM));
}

#[test]
fn more_streams_than_allowed_without_end() {
    let config = Config {
        max_concurrent_streams: 1,
        ..Config::server()
    };
    let mut subject = Subject::server_with(config, &[]);
    let (rounds, code) = flood(&mut subject, 10_000, |_, round| {
        frame(HEADERS, END_HEADERS, 2 * round + 1, POST)
    });
    assert_eq!((rounds, code), (limits::HTTP2_STREAM_ERRORS_MAX + 1, CALM));
}

#[test]
fn continuation_flood_of_empty_frames() {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_STREAM, 1, GET))
        .expect("to be continued");
    let (rounds, code) = flood(&mut subject, 10_000, |_, _| frame(CONTINUATION, 0, 1, &[]));
    assert_eq!((rounds, code), (limits::HTTP2_CONTINUATIONS_MAX, CALM));
}

#[test]
fn continuation_flood_of_large_frames_cve_2024_27316() {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_STREAM, 1, GET))
        .expect("to be continued");
    let (rounds, code) = flood(&mut subject, 10, |_, _| frame(CONTINUATION, 0, 1, &[0; 16_000]));
    assert_eq!((rounds, code), (8, CALM), "128 KiB are the most that is gathered");
}

#[test]
fn ping_flood_cve_2019_9512() {
    let mut subject = Subject::server();
    let (rounds, code) = flood(&mut subject, 100_000, |_, _| frame(PING, 0, 0, &[0; 8]));
    assert_eq!((rounds, code), (limits::HTTP2_IDLE_FRAMES_MAX, CALM));
}

#[test]
fn pings_on_an_idle_connection_are_honest() {
    let mut subject = Subject::server();
    for _ in 0..100_000 {
        subject.connection.tick(10);
        subject.feed(&frame(PING, 0, 0, &[0; 8])).expect("a keep-alive");
        subject.frames();
    }
}

#[test]
fn settings_flood_cve_2019_9515() {
    let mut subject = Subject::server();
    let (rounds, code) = flood(&mut subject, 10_000, |_, _| settings(&[(4, 70_000)]));
    assert_eq!((rounds, code), (100, CALM));
    let many: Vec<_> = (0..65).map(|_| (4, 70_000)).collect();
    Subject::server().expect_connection_error(&settings(&many), CALM);
}

#[test]
fn empty_frames_flood_cve_2019_9518() {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    let (rounds, code) = flood(&mut subject, 10_000, |_, _| frame(DATA, 0, 1, &[]));
    assert_eq!((rounds, code), (400, CALM));
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    let (rounds, code) = flood(&mut subject, 10_000, |_, _| {
        frame(DATA, PADDED, 1, &[&[99][..], &[0; 99]].concat())
    });
    assert_eq!((rounds, code), (400, CALM), "padding is no payload");
}

#[test]
fn tiny_data_frames() {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    let (rounds, code) = flood(&mut subject, 100_000, |_, _| frame(DATA, 0, 1, b"x"));
    assert_eq!((rounds, code), (limits::HTTP2_IDLE_FRAMES_MAX, CALM));
}

#[test]
fn small_messages_on_a_long_stream_are_honest() {
    let mut subject = Subject::server();
    subject
        .feed(&frame(HEADERS, END_HEADERS, 1, POST))
        .expect("a request");
    for _ in 0..100_000 {
        subject
            .feed(&frame(DATA, 0, 1, b"\0\0\0\0\x0b12345678901"))
            .expect("16 bytes");
        subject.frames();
    }
}

#[test]
fn reset_flood_on_closed_streams_cve_2019_9514() {
    let mut subject = Subject::server();
    subject
        .feed(&[frame(HEADERS, WHOLE, 1, GET), reset(1, ErrorCode::CANCEL)].concat())
        .expect("a request");
    let (rounds, code) = flood(&mut subject, 100_000, |_, _| reset(1, ErrorCode::CANCEL));
    assert_eq!((rounds, code), (limits::HTTP2_IDLE_FRAMES_MAX, CALM));
}

#[test]
fn priority_and_unknown_frames_flood() {
    for bytes in [frame(PRIORITY, 0, 1, &[0; 5]), frame(0x77, 0, 0, &[])] {
        let (rounds, code) = flood(&mut Subject::server(), 100_000, |_, _| bytes.clone());
        assert_eq!((rounds, code), (limits::HTTP2_IDLE_FRAMES_MAX, CALM));
    }
}

#[test]
fn window_update_flood_byte_by_byte_cve_2019_9511() {
    // A large reply drawn one byte at a time: each WINDOW_UPDATE makes us send a frame.
    let mut subject = Subject::server_with(Config::server(), &[(4, 0)]);
    subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
    let stream = subject.last_stream();
    subject
        .connection
        .send_grpc_reply(stream, |out| out.resize(out.len() + 100_000, 7))
        .expect("queued");
    let (rounds, code) = flood(&mut subject, 100_000, |_, _| window_update(1, 1));
    assert_eq!((rounds, code), (limits::HTTP2_IDLE_FRAMES_MAX, CALM));
}

#[test]
fn window_overflow() {
    Subject::server().expect_connection_error(&window_update(0, 0x7fff_ffff), ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn interim_responses_without_end() {
    let mut client = Subject::client_with(Config::client(), &[]);
    let fields: &[(&[u8], &[u8])] = &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")];
    client.connection.send_request(fields, true).expect("room");
    let (rounds, code) = flood(&mut client, 100_000, |_, _| {
        frame(HEADERS, END_HEADERS, 1, &literal(":status", "103"))
    });
    assert_eq!((rounds, code), (limits::HTTP2_IDLE_FRAMES_MAX, CALM));
}

#[test]
fn a_slow_reader_gets_no_more_served() {
    let mut subject = Subject::server_with(Config::server(), &[(4, 0x7fff_ffff)]);
    subject
        .feed(&window_update(0, 0x7fff_ffff - 65_535))
        .expect("windows wide open");
    let mut served = 0_u32;
    let mut requests = Vec::new();
    for id in 0..1_000 {
        requests.extend_from_slice(&frame(HEADERS, WHOLE, 2 * id + 1, GET));
    }
    // The socket accepts nothing: serve until the connection reads no further.
    let mut input = Input::new(&requests);
    while let Some(event) = subject.connection.poll_event(&mut input).expect("legal") {
        if let Event::Headers { stream, .. } | Event::MemoHeaders { stream, .. } = event {
            served += 1;
            let reply = |out: &mut Vec<u8>| out.resize(out.len() + 100_000, 7);
            subject.connection.send_grpc_reply(stream, reply).expect("open");
        }
    }
    assert!(!subject.connection.wants_read());
    assert_eq!(served as usize, limits::HTTP2_OUTPUT_MAX / 100_000 + 1);
    assert!(subject.connection.queued_bytes() < limits::HTTP2_OUTPUT_MAX + 200_000);
    // When the socket accepts bytes again, the connection continues where it stopped, without new
    // input.
    subject.frames();
    assert!(subject.connection.wants_read());
    assert!(matches!(
        subject.connection.poll_event(&mut input),
        Ok(Some(Event::Headers { .. }))
    ));
}

#[test]
fn a_reply_that_was_made_is_kept_whatever_waits_already() {
    // A reply reports a change that took place: it must not be thrown away.
    let mut subject = Subject::server_with(Config::server(), &[(4, 0)]);
    let reply = |out: &mut Vec<u8>| out.resize(out.len() + 1_000_000, 7);
    for id in 0..40 {
        subject
            .feed(&frame(HEADERS, WHOLE, 2 * id + 1, GET))
            .expect("a request");
        let stream = subject.last_stream();
        subject.connection.send_grpc_reply(stream, reply).expect("kept");
    }
    assert!(subject.frames_of(RST_STREAM).is_empty());
    assert!(
        subject.connection.queued_bytes() >= 40_000_000,
        "and the driver sees how much waits"
    );
    subject
        .feed(&window_update(0, 0x7fff_ffff - 65_535))
        .expect("legal");
    for id in 0..40 {
        subject
            .feed(&window_update(2 * id + 1, 2_000_000))
            .expect("legal");
        let sent = subject.frames();
        let bytes: usize = sent
            .iter()
            .filter(|frame| frame.kind == DATA && frame.stream == 2 * id + 1)
            .map(|frame| frame.payload.len())
            .sum();
        assert_eq!(bytes, 1_000_005, "reply {id}");
        assert_eq!(
            sent.last().map(|last| (last.kind, last.flags)),
            Some((HEADERS, WHOLE))
        );
    }
    assert_eq!(subject.connection.queued_bytes(), 0);
}

#[test]
fn what_is_being_sent_counts_as_waiting() {
    let mut subject = Subject::server();
    subject.connection.set_sending(limits::HTTP2_OUTPUT_MAX + 1);
    assert!(!subject.connection.wants_read());
    assert_eq!(subject.connection.queued_bytes(), limits::HTTP2_OUTPUT_MAX + 1);
    subject.connection.set_sending(0);
    assert!(subject.connection.wants_read());
}

/// `GET /` with fields of so many bytes, in frames that a peer may send.
fn large_request(id: u32, fields: usize) -> Vec<u8> {
    let mut block = GET.to_vec();
    for at in 0..fields.div_ceil(100) {
        // 8 + 60 bytes, and 32 that each field counts for.
        block.extend_from_slice(&literal(&format!("name-{at:03}"), &"v".repeat(60)));
    }
    let mut bytes = Vec::new();
    let pieces: Vec<_> = block.chunks(16_384).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let (kind, end_stream) = if at == 0 {
            (HEADERS, END_STREAM)
        } else {
            (CONTINUATION, 0)
        };
        let end_headers = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
        bytes.extend_from_slice(&frame(kind, end_stream | end_headers, id, piece));
    }
    bytes
}

#[test]
fn header_lists_that_are_too_large_are_answered_by_the_driver() {
    let mut subject = Subject::server();
    for (call, factor) in [(0, 2), (1, 4), (2, 8)] {
        let id = 2 * call + 1;
        let bytes = large_request(id, factor * limits::HTTP2_HEADER_LIST_MAX as usize);
        subject.feed(&bytes).expect("the connection lives on");
        match subject.seen.last() {
            Some(Seen::Oversized(stream, fields, true)) => {
                assert_eq!(*stream, id);
                assert!(fields.len() > 100, "what fits is there");
                assert_eq!(fields[0], (":method".to_owned(), "GET".to_owned()));
            }
            other => panic!("{other:?}"),
        }
        let stream = subject.last_stream();
        subject
            .connection
            .send_headers(stream, &[(b":status", b"431")], true)
            .expect("the stream is open");
        let frames = subject.frames();
        assert_eq!(
            (frames[0].kind, frames[0].flags, frames[0].stream),
            (HEADERS, WHOLE, id)
        );
    }
    subject.expect_alive();
    let (rounds, code) = flood(&mut subject, 1_000, |_, round| {
        large_request(2 * round + 7, 20_000)
    });
    assert!(rounds < limits::HTTP2_STREAM_ERRORS_MAX, "{rounds}");
    assert_eq!(code, CALM);
}

#[test]
fn a_large_field_leaves_room_for_those_after_it() {
    let mut subject = Subject::server();
    let mut block = GET.to_vec();
    block.extend_from_slice(&[0, 5]);
    block.extend_from_slice(b"large");
    block.extend_from_slice(&[0x7f, 0xa1, 0x9b, 0x01]); // 127 + 33 + 27 * 128 + 16384 = 20,000 bytes
    block.extend_from_slice(&[b'v'; 20_000]);
    block.extend_from_slice(&literal("content-type", "application/grpc"));
    let bytes = [
        frame(HEADERS, END_STREAM, 1, &block[..16_384]),
        frame(CONTINUATION, END_HEADERS, 1, &block[16_384..]),
    ]
    .concat();
    subject.feed(&bytes).expect("the connection lives on");
    let Some(Seen::Oversized(1, fields, true)) = subject.seen.last() else {
        panic!("{:?}", subject.seen);
    };
    let last = fields.last().expect("fields");
    assert_eq!(last, &("content-type".to_owned(), "application/grpc".to_owned()));
    assert!(fields.iter().all(|(name, _)| name != "large"));
}

#[test]
fn a_head_beyond_all_bounds_ends_the_connection_and_is_not_to_be_repeated() {
    let mut subject = Subject::server();
    subject.feed(&frame(HEADERS, WHOLE, 1, GET)).expect("a request");
    let bytes = large_request(3, 10 * limits::HTTP2_HEADER_LIST_MAX as usize * 2);
    let error = subject.feed(&bytes).expect_err("far too large");
    assert_eq!(error.code, CALM);
    let goaways = subject.frames_of(GOAWAY);
    assert_eq!((goaways[0].word(0), goaways[0].word(4)), (3, CALM.0));
}

#[test]
fn hpack_bomb() {
    // One large entry in the table, and a block of thousands of one-byte references to it.
    let mut subject = Subject::server();
    let mut insert = GET.to_vec();
    insert.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0x81, 0x1e]); // value of 127 + 1 + 30 * 128 = 3,968 bytes
    insert.extend_from_slice(&[b'v'; 3_968]);
    subject
        .feed(&frame(HEADERS, WHOLE, 1, &insert))
        .expect("large but legal");
    let small_bomb = [GET, &[0xbe; 10]].concat();
    subject
        .feed(&frame(HEADERS, WHOLE, 3, &small_bomb))
        .expect("the connection lives on");
    match subject.seen.last() {
        Some(Seen::Oversized(3, fields, true)) => {
            assert_eq!(fields.len(), 3 + 4, "the driver never sees the 40 KB")
        }
        other => panic!("{other:?}"),
    }
    let bomb = [GET, &[0xbe; 16_000]].concat();
    subject.expect_connection_error(&frame(HEADERS, WHOLE, 5, &bomb), CALM);
}
