//! A whole unary gRPC request through an HTTP/2 server without a socket: 32 requests a batch,
//! 256-byte messages in, 16-byte messages out. `prism/memo` recognises the repeated header block,
//! `prism/decode` decodes each; `h2` is the crate of that name on tokio's current-thread runtime,
//! as tonic uses it: one task a request.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prism_codec::h2::hpack::{Encoder, Indexing};
use prism_codec::h2::{Config, Connection, Event, Input, PREFACE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BATCH: u32 = 32;
const MESSAGE: usize = 256;
const REPLY: [u8; 16] = [7; 16];

const FIELDS: [(&str, &str); 8] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/prism.keyvalue.v1.KeyValue/Put"),
    (":authority", "127.0.0.1:8980"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.70.0"),
    ("te", "trailers"),
    ("grpc-accept-encoding", "gzip"),
];

/// Bytes of a client: the preface and a first request, which fills the header table, then batches.
struct Client {
    indexed: Vec<u8>,
    next_stream: u32,
}

impl Client {
    fn new(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        // An initial window of 2^31 - 1 for streams, and nearly as much for the connection.
        frame(out, 4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        frame(out, 8, 0, 0, &0x7ffe_0000_u32.to_be_bytes());
        frame(out, 4, 1, 0, &[]);
        let mut encoder = Encoder::new(4096);
        let mut block = || {
            let mut block = Vec::new();
            for (name, value) in FIELDS {
                encoder.encode(
                    &mut block,
                    name.as_bytes(),
                    value.as_bytes(),
                    Indexing::Incremental,
                );
            }
            block
        };
        let (first, indexed) = (block(), block());
        let mut client = Self {
            indexed: first,
            next_stream: 1,
        };
        client.request(out);
        client.indexed = indexed;
        client
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        frame(out, 1, 0x4, self.next_stream, &self.indexed);
        let mut data = vec![0, 0, 0, (MESSAGE >> 8) as u8, MESSAGE as u8];
        data.resize(5 + MESSAGE, b'x');
        frame(out, 0, 0x1, self.next_stream, &data);
        self.next_stream += 2;
    }

    /// Makes the next batch, and gives back the window that the last one's replies took.
    fn batch(&mut self, out: &mut Vec<u8>) {
        out.clear();
        frame(out, 8, 0, 0, &(BATCH * 21).to_be_bytes());
        (0..BATCH).for_each(|_| self.request(out));
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Serves all of `received`; returns the number of requests answered.
fn serve(connection: &mut Connection, received: &[u8], remember: bool) -> u32 {
    let (mut input, mut answered) = (Input::new(received), 0);
    while let Some(event) = connection.poll_event(&mut input).expect("a legal client") {
        match event {
            Event::Headers {
                headers, memoizable, ..
            } => {
                let put = headers.get(b":path") == Some(b"/prism.keyvalue.v1.KeyValue/Put");
                if memoizable && remember {
                    connection.memoize(u32::from(put));
                }
            }
            Event::Data {
                stream,
                end_stream: true,
                ..
            } => {
                let sent = connection.send_grpc_reply(stream, |out| out.extend_from_slice(&REPLY));
                sent.expect("the window is open");
                answered += 1;
            }
            _ => {}
        }
    }
    connection.output().clear();
    answered
}

fn prism(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("h2_unary_256_bytes");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    for (name, remember) in [("prism/memo", true), ("prism/decode", false)] {
        let (mut connection, mut bytes) = (Connection::new(Config::server()), Vec::new());
        let mut client = Client::new(&mut bytes);
        serve(&mut connection, &bytes, remember);
        group.bench_function(name, |bencher| {
            // Making the batch is timed as well: two copies of 300 bytes a request.
            bencher.iter(|| {
                client.batch(&mut bytes);
                assert_eq!(serve(&mut connection, &bytes, remember), BATCH);
            });
        });
    }
    group.finish();
}

/// The same server on the `h2` crate.
async fn serve_h2(io: tokio::io::DuplexStream) {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1024)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake::<_, Bytes>(io)
        .await
        .expect("a legal client");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let head = http::Response::builder()
                .header("content-type", "application/grpc")
                .body(());
            let mut send = respond
                .send_response(head.expect("legal fields"), false)
                .expect("the stream is open");
            let mut reply = vec![0, 0, 0, 0, REPLY.len() as u8];
            reply.extend_from_slice(&REPLY);
            send.send_data(reply.into(), false).expect("the stream is open");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            send.send_trailers(trailers).expect("the stream is open");
        });
    }
}

/// Reads until `streams` streams have ended.
async fn read_replies(io: &mut tokio::io::DuplexStream, kept: &mut Vec<u8>, mut wanted: u32) {
    let mut buffer = [0; 16 << 10];
    loop {
        let mut at = 0;
        while let Some(&[a, b, c, kind, flags, ..]) = kept.get(at..).and_then(|rest| rest.first_chunk::<9>())
        {
            let end = at + 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if end > kept.len() {
                break;
            }
            wanted -= u32::from(kind <= 1 && flags & 1 != 0);
            at = end;
        }
        kept.drain(..at);
        if wanted == 0 {
            return;
        }
        let count = io.read(&mut buffer).await.expect("the server lives");
        assert!(count > 0, "the server lives");
        kept.extend_from_slice(&buffer[..count]);
    }
}

fn h2_crate(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (mut io, server) = tokio::io::duplex(1 << 20);
    runtime.spawn(serve_h2(server));
    let (mut bytes, mut kept) = (Vec::new(), Vec::new());
    let mut client = Client::new(&mut bytes);
    runtime.block_on(async {
        io.write_all(&bytes).await.expect("the pipe is large enough");
        read_replies(&mut io, &mut kept, 1).await;
    });
    let mut group = criterion.benchmark_group("h2_unary_256_bytes");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    group.bench_function("h2", |bencher| {
        bencher.iter(|| {
            client.batch(&mut bytes);
            runtime.block_on(async {
                io.write_all(&bytes).await.expect("the pipe is large enough");
                read_replies(&mut io, &mut kept, BATCH).await;
            });
        });
    });
    group.finish();
}

criterion_group!(benches, prism, h2_crate);
criterion_main!(benches);
