//! Agreement with the `h2` crate where RFC 9113 leaves no choice: both servers end the same
//! connections and keep the same ones.
#![allow(missing_docs, unreachable_pub)]

#[path = "../fuzz/generate.rs"]
#[allow(dead_code)]
mod generate;

use generate::{Random, frame};
use prism_codec::h2::{Config, Connection, Event, Input, PREFACE};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Verdict of our server on these bytes: the code of the GOAWAY that ends the connection.
fn our_verdict(bytes: &[u8]) -> Option<u32> {
    let mut connection = Connection::new(Config::server());
    let mut input = Input::new(bytes);
    loop {
        match connection.poll_event(&mut input) {
            Ok(None) => return None,
            Ok(Some(
                Event::Headers {
                    stream,
                    end_stream: true,
                    ..
                }
                | Event::Data {
                    stream,
                    end_stream: true,
                    ..
                },
            )) => {
                let _ = connection.send_grpc_reply(stream, |_| {});
            }
            Ok(Some(_)) => {}
            Err(error) => return Some(error.code.0),
        }
    }
}

/// Verdict of the `h2` crate, from the GOAWAY frames in its output.
async fn their_verdict(bytes: &[u8]) -> Option<u32> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    client.write_all(bytes).await.expect("the pipe is large enough");
    let serve = async {
        let mut builder = h2::server::Builder::new();
        builder.max_header_list_size(16 << 10);
        let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(server).await else {
            return;
        };
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let _ = respond.send_response(http::Response::new(()), true);
        }
    };
    let read = async {
        let mut output = Vec::new();
        let mut buffer = [0; 4096];
        // It keeps a healthy connection open without further output: the answer to a PING at the
        // end shows that it has read everything.
        loop {
            let count = client.read(&mut buffer).await.unwrap_or(0);
            output.extend_from_slice(&buffer[..count]);
            if count == 0
                || frames(&output).any(|(kind, payload)| kind == 7 || (kind == 6 && payload == MARK))
            {
                return output;
            }
        }
    };
    let output = tokio::select! {
        biased;
        output = read => output,
        () = async { serve.await; std::future::pending().await } => unreachable!(),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("neither GOAWAY nor PONG"),
    };
    let goaway = frames(&output).filter(|(kind, _)| *kind == 7).last();
    let code =
        goaway.map(|(_, payload)| u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
    code.filter(|code| *code != 0)
}

/// The payload of the PING that ends every input.
const MARK: &[u8] = b"the end.";

/// The whole frames in `output`: type and payload.
fn frames(output: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = output;
    std::iter::from_fn(move || {
        let (&[a, b, c, kind, ..], after) = rest.split_first_chunk::<9>()?;
        let (payload, after) = after.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize)?;
        rest = after;
        Some((kind, payload))
    })
}

/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
const REQUEST: &[u8] = &[0x82, 0x86, 0x84, 0x01, 0x01, b'a'];

/// A connection with one answered request on stream 1 and an open one on stream 5.
fn opening() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame(&mut out, 4, 0, 0, &[]);
    frame(&mut out, 1, 0x5, 1, REQUEST);
    frame(&mut out, 1, 0x4, 5, REQUEST);
    frame(&mut out, 0, 0, 5, b"abc");
    out
}

type Case = (&'static str, &'static [(u8, u8, u32, &'static [u8])]);

/// Frames (type, flags, stream, payload) after the opening that no rule forbids.
const LEGAL: &[Case] = &[
    ("nothing", &[]),
    (
        "unknown frame type",
        &[(0x77, 0xff, 0, b"anything"), (0x77, 0, 5, b"")],
    ),
    ("unknown setting", &[(4, 0, 0, &[0x7f, 0xff, 1, 2, 3, 4])]),
    ("unknown flags", &[(6, 0xfe, 0, b"12345678")]),
    ("PRIORITY of an idle stream", &[(2, 0, 99, &[0, 0, 0, 1, 5])]),
    ("padded DATA", &[(0, 0x8, 5, &[2, b'x', 0, 0])]),
    ("DATA of nothing but padding", &[(0, 0x8, 5, &[2, 0, 0])]),
    (
        "CONTINUATION",
        &[
            (1, 0x1, 7, &[0x82, 0x86]),
            (9, 0, 7, &[]),
            (9, 0x4, 7, &[0x84, 0x01, 1, b'a']),
        ],
    ),
    ("trailers", &[(1, 0x5, 5, &[0x00, 1, b'x', 1, b'y'])]),
    ("RST_STREAM of an open stream", &[(3, 0, 5, &[0, 0, 0, 8])]),
    (
        "WINDOW_UPDATE",
        &[(8, 0, 0, &[0, 0, 1, 0]), (8, 0, 5, &[0, 0, 1, 0])],
    ),
    ("table of size 0", &[(4, 0, 0, &[0, 1, 0, 0, 0, 0])]),
    (
        "a size update and an insertion",
        &[(
            1,
            0x5,
            7,
            &[0x20, 0x3f, 0xe1, 0x1f, 0x82, 0x86, 0x84, 0x41, 1, b'a'],
        )],
    ),
    (
        "DATA after our reply and the peer's end was lost",
        &[(3, 0, 1, &[0, 0, 0, 8])],
    ),
];

/// Frames after which RFC 9113 demands a connection error.
const FATAL: &[Case] = &[
    ("DATA on stream 0", &[(0, 0, 0, b"x")]),
    ("DATA on an idle stream", &[(0, 0, 99, b"x")]),
    ("DATA with more padding than payload", &[(0, 0x8, 5, &[5, 0, 0])]),
    ("HEADERS on stream 0", &[(1, 0x5, 0, REQUEST)]),
    ("HEADERS on an even stream", &[(1, 0x5, 2, REQUEST)]),
    ("HEADERS on a stream below one used", &[(1, 0x5, 3, REQUEST)]),
    (
        "HEADERS with more padding than payload",
        &[(1, 0xd, 7, &[9, 0x82])],
    ),
    ("RST_STREAM on stream 0", &[(3, 0, 0, &[0, 0, 0, 8])]),
    ("RST_STREAM on an idle stream", &[(3, 0, 99, &[0, 0, 0, 8])]),
    ("RST_STREAM of 3 bytes", &[(3, 0, 5, &[0, 0, 8])]),
    ("SETTINGS on a stream", &[(4, 0, 5, &[])]),
    ("SETTINGS of 5 bytes", &[(4, 0, 0, &[0, 1, 0, 0, 0])]),
    ("SETTINGS ACK with a payload", &[(4, 1, 0, &[0, 1, 0, 0, 0, 0])]),
    ("ENABLE_PUSH of 2", &[(4, 0, 0, &[0, 2, 0, 0, 0, 2])]),
    (
        "INITIAL_WINDOW_SIZE of 2^31",
        &[(4, 0, 0, &[0, 4, 0x80, 0, 0, 0])],
    ),
    (
        "MAX_FRAME_SIZE of 2^14 - 1",
        &[(4, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])],
    ),
    ("MAX_FRAME_SIZE of 2^24", &[(4, 0, 0, &[0, 5, 1, 0, 0, 0])]),
    ("PUSH_PROMISE by a client", &[(5, 0x4, 5, &[0, 0, 0, 2, 0x82])]),
    ("PING of 7 bytes", &[(6, 0, 0, b"1234567")]),
    ("PING on a stream", &[(6, 0, 5, b"12345678")]),
    ("GOAWAY on a stream", &[(7, 0, 5, &[0; 8])]),
    ("WINDOW_UPDATE of 0 for the connection", &[(8, 0, 0, &[0; 4])]),
    ("WINDOW_UPDATE of 3 bytes", &[(8, 0, 0, &[0; 3])]),
    ("WINDOW_UPDATE on an idle stream", &[(8, 0, 99, &[0, 0, 0, 1])]),
    (
        "WINDOW_UPDATE beyond 2^31 - 1",
        &[(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])],
    ),
    ("CONTINUATION out of nowhere", &[(9, 0x4, 5, &[0x82])]),
    (
        "another frame within a header block",
        &[(1, 0x1, 7, &[0x82]), (6, 0, 0, b"12345678")],
    ),
    (
        "CONTINUATION of another stream",
        &[(1, 0x1, 7, &[0x82]), (9, 0x4, 9, &[0x86])],
    ),
    ("index 0", &[(1, 0x5, 7, &[0x80])]),
    ("index past the table", &[(1, 0x5, 7, &[0xff, 0x7f])]),
    (
        "a string longer than the block",
        &[(1, 0x5, 7, &[0x00, 0x7e, b'x'])],
    ),
    (
        "a table size above the limit",
        &[(1, 0x5, 7, &[0x3f, 0xff, 0xff, 0x01, 0x82])],
    ),
    (
        "the end-of-string symbol",
        &[(1, 0x5, 7, &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00])],
    ),
];

#[test]
fn legal_connections_live_and_broken_ones_end() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let mut wrong = Vec::new();
    for (cases, fatal) in [(LEGAL, false), (FATAL, true)] {
        for (name, after) in cases {
            let mut bytes = opening();
            for (kind, flags, stream, payload) in *after {
                frame(&mut bytes, *kind, *flags, *stream, payload);
            }
            frame(&mut bytes, 6, 0, 0, MARK);
            let (ours, theirs) = (our_verdict(&bytes), runtime.block_on(their_verdict(&bytes)));
            if ours.is_some() != fatal || theirs.is_some() != fatal {
                wrong.push(format!(
                    "{name}: ours {ours:?}, theirs {theirs:?}, fatal by the RFC: {fatal}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Connections made at random by the generator are legal, and both servers accept them, even cut
/// short anywhere.
#[test]
fn legal_connections_made_at_random_live() {
    let seed = std::env::var("PRISM_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7);
    println!("PRISM_FUZZ_SEED={seed}");
    let mut random = Random::new(seed);
    for _ in 0..300 {
        let input = generate::legal("h2_server", &mut random);
        assert_eq!(our_verdict(&input[1..]), None, "{:02x?}", &input[1..]);
        let cut = 1 + random.below(input.len());
        assert_eq!(our_verdict(&input[1..cut]), None, "{:02x?}", &input[1..cut]);
    }
}
