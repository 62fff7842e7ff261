//! The `h2` crate as the other end, in both roles, over an in-memory pipe: bodies of many sizes,
//! many streams at once, small windows, trailers, resets, graceful ends. Two independent readings
//! of the RFC must agree.

mod h2_support;

use std::collections::HashMap;

use bytes::Bytes;
use h2_support::Random;
use prism_codec::h2::{Config, Connection, ErrorCode, Event, Input, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

const CALLS: usize = 40;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

/// Splits a pipe into its reading half and a way to write that never waits: two ends that both only
/// write would deadlock.
fn split(pipe: DuplexStream) -> (ReadHalf<DuplexStream>, mpsc::UnboundedSender<Vec<u8>>) {
    let (reader, mut writer): (_, WriteHalf<_>) = tokio::io::split(pipe);
    let (sender, mut receiver) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(bytes) = receiver.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    (reader, sender)
}

/// Bounds a test, so that a deadlock fails it instead of hanging it.
async fn bounded(seed: u64, work: impl Future<Output = ()>) {
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: stuck"));
}

fn body_of(seed: u64, call: usize) -> Vec<u8> {
    let mut random = Random::new(seed * 1_000 + call as u64);
    let size = [0, 1, 100, 16_384, 16_385, 200_000][random.below(6)];
    random.bytes(size)
}

// ---- our server, their client -------------------------------------------------------------------

/// Echoes every request with its own fields `x-…` and trailers; resets those that ask for it.
async fn serve_ours(pipe: DuplexStream, config: Config) {
    let (mut reader, writer) = split(pipe);
    let mut connection = Connection::new(config);
    let (mut buffer, mut calls) = (Vec::new(), HashMap::<StreamId, (bool, Vec<u8>)>::new());
    loop {
        let mut input = Input::new(&buffer);
        while let Some(event) = connection.poll_event(&mut input).expect("their client is honest") {
            let ended = match event {
                Event::Headers {
                    stream,
                    headers,
                    end_stream,
                    ..
                } => {
                    assert_eq!(headers.get(b":path"), Some(&b"/echo?x=1"[..]));
                    let wants_reset = headers.get(b"x-reset").is_some();
                    calls.insert(stream, (wants_reset, Vec::new()));
                    end_stream.then_some(stream)
                }
                Event::Data {
                    stream,
                    data,
                    end_stream,
                } => {
                    calls.get_mut(&stream).expect("known").1.extend_from_slice(data);
                    end_stream.then_some(stream)
                }
                Event::Trailers { stream, headers, .. } => {
                    assert_eq!(headers.get(b"x-checksum"), Some(&b"42"[..]));
                    Some(stream)
                }
                Event::Reset { stream, code } => {
                    assert_eq!(code, ErrorCode::CANCEL);
                    calls.remove(&stream);
                    None
                }
                _ => None,
            };
            let Some((stream, (wants_reset, body))) = ended.and_then(|id| Some((id, calls.remove(&id)?)))
            else {
                continue;
            };
            if wants_reset {
                connection.reset(stream, ErrorCode::INTERNAL_ERROR);
                continue;
            }
            let size = body.len().to_string();
            let fields: [(&[u8], &[u8]); 2] = [(b":status", b"200"), (b"x-size", size.as_bytes())];
            connection.send_headers(stream, &fields, false).expect("open");
            connection.send_data(stream, &body, false).expect("room");
            connection
                .send_trailers(stream, &[(b"x-end", b"yes")])
                .expect("open");
        }
        let consumed = input.consumed();
        buffer.drain(..consumed);
        let output = connection.take_output(Vec::new());
        writer.send(output).expect("their client reads");
        if reader.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            assert_eq!(connection.open_streams(), 0);
            return;
        }
    }
}

async fn ask_theirs(pipe: DuplexStream, seed: u64) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(5_000 + (seed as u32 % 3) * 40_000);
    builder.initial_connection_window_size(70_000);
    builder.header_table_size([4_096, 0, 200][seed as usize % 3]);
    let (client, connection) = builder
        .handshake::<_, Bytes>(pipe)
        .await
        .expect("our server is honest");
    let driver = tokio::spawn(connection);
    let mut tasks = Vec::new();
    for call in 0..CALLS {
        let mut client = client.clone().ready().await.expect("room");
        let mut request = http::Request::post("http://here/echo?x=1").header("x-call", call.to_string());
        let wants_reset = call % 10 == 9;
        if wants_reset {
            request = request.header("x-reset", "1");
        }
        let request = request.body(()).expect("legal");
        let body = body_of(seed, call);
        let (response, mut stream) = client.send_request(request, false).expect("room");
        let with_trailers = call % 3 == 0;
        // `h2` queues what the window does not allow, as we do.
        stream
            .send_data(Bytes::from(body.clone()), !with_trailers)
            .expect("open");
        if with_trailers {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-checksum", http::HeaderValue::from_static("42"));
            stream.send_trailers(trailers).expect("open");
        }
        tasks.push(tokio::spawn(async move {
            let response = response.await;
            if wants_reset {
                let error = response.map(|_| ()).expect_err("reset");
                assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
                return;
            }
            let response = response.expect("an answer");
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["x-size"], body.len().to_string().as_str());
            let mut received = Vec::new();
            let mut stream = response.into_body();
            while let Some(data) = stream.data().await {
                let data = data.expect("data");
                stream
                    .flow_control()
                    .release_capacity(data.len())
                    .expect("counted right");
                received.extend_from_slice(&data);
            }
            assert!(received == body, "seed {seed}, call {call}: bodies differ");
            let trailers = stream.trailers().await.expect("trailers").expect("trailers");
            assert_eq!(trailers["x-end"], "yes");
        }));
    }
    for task in tasks {
        task.await.expect("a call");
    }
    drop(client);
    driver.await.expect("the driver").expect("a clean end");
}

#[test]
fn their_client_and_our_server_agree() {
    for seed in 0..6 {
        runtime().block_on(bounded(seed, async {
            let (ours, theirs) = tokio::io::duplex(7_000 + seed as usize * 911);
            let config = Config {
                initial_window: 30_000,
                connection_window: 100_000,
                whole_frame_max: 2_000,
                ..Config::server()
            };
            let server = tokio::spawn(serve_ours(ours, config));
            ask_theirs(theirs, seed).await;
            server.await.expect("our server");
        }));
    }
}

// ---- our client, their server -------------------------------------------------------------------

async fn serve_theirs(pipe: DuplexStream, seed: u64) {
    let mut builder = h2::server::Builder::new();
    // Not below the default: the other server never gives back data that arrived before the smaller
    // window was acknowledged (it waits for a batch that can no longer fill), and the stream
    // stalls.
    builder.initial_window_size(65_535 + (seed as u32 % 3) * 40_000);
    builder.max_concurrent_streams(7);
    builder.max_header_list_size(10_000);
    let mut connection = builder
        .handshake::<_, Bytes>(pipe)
        .await
        .expect("our client is honest");
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request.expect("our client is honest");
        tokio::spawn(async move {
            assert_eq!(request.uri().path(), "/prism.Test/Echo");
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.headers()["authorization"], "secret");
            let mut body = Vec::new();
            let mut stream = request.into_body();
            while let Some(data) = stream.data().await {
                let data = data.expect("data");
                stream
                    .flow_control()
                    .release_capacity(data.len())
                    .expect("counted right");
                body.extend_from_slice(&data);
            }
            let response = http::Response::builder().header("content-type", "application/grpc");
            let response = response.body(()).expect("legal");
            let mut send = respond.send_response(response, false).expect("open");
            send.send_data(Bytes::from(body), false).expect("open");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            send.send_trailers(trailers).expect("open");
        });
    }
}

async fn ask_ours(pipe: DuplexStream, seed: u64) {
    let (mut reader, writer) = split(pipe);
    let mut connection = Connection::new(Config {
        initial_window: 20_000,
        connection_window: 80_000,
        whole_frame_max: 2_000,
        ..Config::client()
    });
    let mut calls = HashMap::<StreamId, (usize, Vec<u8>)>::new();
    let mut waiting: Vec<_> = (0..CALLS).rev().collect();
    let (mut answered, mut memos, mut buffer) = (0, 0, Vec::new());
    while answered < CALLS {
        while connection.available_streams() > 0
            && let Some(call) = waiting.pop()
        {
            let number = (call % 2).to_string();
            let fields: [(&[u8], &[u8]); 7] = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/prism.Test/Echo"),
                (b":authority", b"here"),
                (b"te", b"trailers"),
                (b"authorization", b"secret"),
                (b"x-number", number.as_bytes()),
            ];
            let stream = connection.send_request(&fields, false).expect("room");
            connection
                .send_data(stream, &body_of(seed, call), true)
                .expect("room");
            calls.insert(stream, (call, Vec::new()));
        }
        let output = connection.take_output(Vec::new());
        writer.send(output).expect("their server reads");
        assert_ne!(reader.read_buf(&mut buffer).await.expect("bytes"), 0);
        let mut input = Input::new(&buffer);
        while let Some(event) = connection.poll_event(&mut input).expect("their server is honest") {
            match event {
                Event::Headers {
                    headers, memoizable, ..
                } => {
                    assert_eq!(headers.get(b":status"), Some(&b"200"[..]));
                    if memoizable {
                        connection.memoize(200);
                    }
                }
                Event::MemoHeaders { memo, .. } => {
                    assert_eq!(memo, 200);
                    memos += 1;
                }
                Event::Data {
                    stream,
                    data,
                    end_stream,
                } => {
                    assert!(!end_stream);
                    calls.get_mut(&stream).expect("known").1.extend_from_slice(data);
                }
                Event::Trailers { stream, .. } | Event::MemoTrailers { stream, .. } => {
                    let (call, received) = calls.remove(&stream).expect("known");
                    assert!(
                        received == body_of(seed, call),
                        "seed {seed}, call {call}: bodies differ"
                    );
                    answered += 1;
                }
                // The first streams were sent before the SETTINGS arrived, which allow only seven.
                Event::Reset { stream, code } => {
                    assert_eq!(code, ErrorCode::REFUSED_STREAM, "seed {seed}");
                    waiting.push(calls.remove(&stream).expect("known").0);
                }
                _ => {}
            }
        }
        let consumed = input.consumed();
        buffer.drain(..consumed);
    }
    assert!(memos > CALLS / 2, "their response headers repeat: {memos}");
    assert_eq!(connection.open_streams(), 0);
    connection.goaway();
    writer
        .send(connection.take_output(Vec::new()))
        .expect("their server reads");
    assert!(connection.is_drained());
}

#[test]
fn our_client_and_their_server_agree() {
    for seed in 0..6 {
        runtime().block_on(bounded(seed, async {
            let (ours, theirs) = tokio::io::duplex(7_000 + seed as usize * 911);
            let server = tokio::spawn(serve_theirs(theirs, seed));
            ask_ours(ours, seed).await;
            server.await.expect("their server");
        }));
    }
}
