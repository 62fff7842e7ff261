//! Cost of the HTTP/2 layer for each unary gRPC call, on the server: receive HEADERS + DATA, reply
//! with HEADERS + DATA + trailers. `cargo run --release -p prism-codec --example h2_cost`. A
//! yardstick while tuning; figures for the record come from the `bench` crate.

use std::hint::black_box;
use std::time::Instant;

use prism_codec::h2::{Config, Connection, Event, Input};

const CALLS: usize = 200_000;
const BATCH: usize = 32;

fn main() {
    // Two warm-ups of everything, then the figures.
    for round in 0..3 {
        for (name, varying, memo) in [
            ("known by heart", false, true),
            ("full decode, all indexed", false, false),
            ("full decode, inserts one field a call", true, false),
        ] {
            let nanoseconds = measure(varying, memo);
            if round == 2 {
                println!("{name:40} {nanoseconds:7.1} ns a call");
            }
        }
    }
}

/// Bytes that a client sends for all calls, `BATCH` calls a buffer, 256 bytes a message.
fn requests(varying: bool) -> Vec<Vec<u8>> {
    let mut client = Connection::new(Config {
        send_queue_max: usize::MAX,
        ..Config::client()
    });
    let feed = |client: &mut Connection, bytes: &[u8]| {
        let mut input = Input::new(bytes);
        while client.poll_event(&mut input).expect("legal").is_some() {}
    };
    feed(&mut client, &[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    feed(&mut client, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0]);
    let mut buffers = vec![client.take_output(Vec::new())];
    for batch in 0..CALLS / BATCH {
        for call in 0..BATCH {
            let number = (batch * BATCH + call).to_string();
            let mut fields: Vec<(&[u8], &[u8])> = vec![
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/prism.keyvalue.v1.KeyValue/Put"),
                (b":authority", b"gateway.example:8443"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"grpc-go/1.80.0"),
                (b"te", b"trailers"),
                (b"grpc-accept-encoding", b"identity,gzip"),
            ];
            if varying {
                fields.push((b"x-call", number.as_bytes()));
            }
            let stream = client.send_request(&fields, false).expect("room");
            let message = |out: &mut Vec<u8>| out.resize(out.len() + 256, 7);
            client.send_grpc_message(stream, true, message).expect("open");
            let id = stream.value().to_be_bytes();
            feed(&mut client, &[0, 0, 1, 1, 5, id[0], id[1], id[2], id[3], 0x88]);
        }
        buffers.push(client.take_output(Vec::new()));
    }
    buffers
}

fn measure(varying: bool, memo: bool) -> f64 {
    let buffers = requests(varying);
    let mut server = Connection::new(Config::server());
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0x3f, 0xff, 0, 0];
    let mut spare = Vec::with_capacity(64 << 10);
    let mut replies = 0;
    let mut received = Vec::new();
    let mut nanoseconds = Vec::new();
    for (at, buffer) in buffers.iter().enumerate() {
        // Like a driver, that receives into the same buffer again and again.
        received.clear();
        received.extend_from_slice(buffer);
        let started = Instant::now();
        replies += serve(&mut server, &received, memo);
        spare = server.take_output(spare);
        black_box(&spare);
        nanoseconds.push(started.elapsed().as_nanos());
        if at == 1 {
            serve(&mut server, &window, memo);
        }
    }
    assert_eq!(replies, CALLS / BATCH * BATCH);
    // The median of the batches: other programs on the machine only ever add.
    nanoseconds.sort_unstable();
    nanoseconds[nanoseconds.len() / 2] as f64 / BATCH as f64
}

fn serve(server: &mut Connection, bytes: &[u8], memo: bool) -> usize {
    let mut input = Input::new(bytes);
    let mut replies = 0;
    while let Some(event) = server.poll_event(&mut input).expect("legal") {
        match event {
            Event::Headers {
                headers, memoizable, ..
            } => {
                black_box(headers.get(b":path"));
                if memoizable && memo {
                    server.memoize(1);
                }
            }
            Event::Data {
                stream,
                data,
                end_stream: true,
            } => {
                black_box(data);
                server
                    .send_grpc_reply(stream, |out| out.extend_from_slice(&[7; 16]))
                    .expect("open");
                replies += 1;
            }
            _ => {}
        }
    }
    replies
}
