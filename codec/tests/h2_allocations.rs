//! In steady state a unary gRPC call allocates nothing, whether its header block is remembered or
//! must be decoded; and an idle connection is small.

mod h2_support;

use h2_support::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, settings};
use prism_codec::h2::{Config, Connection, Event, Input, PREFACE};

const FIELDS: [(&[u8], &[u8]); 8] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/prism.keyvalue.v1.KeyValue/Put"),
    (b":authority", b"gateway.test:8443"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-rust/1.0"),
    (b"te", b"trailers"),
    (b"grpc-accept-encoding", b"identity,gzip"),
];

/// Bytes that a client sends for `calls` unary calls of 256 bytes, each in its own buffer. With
/// `varying`, each call carries a field that enters the table, as grpc-go's timeout does.
fn requests(calls: usize, varying: bool) -> Vec<Vec<u8>> {
    let mut client = Connection::new(Config::client());
    let mut server_says = Input::new(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
    while let Ok(Some(_)) = client.poll_event(&mut server_says) {}
    let window = h2_support::window_update(0, 1 << 30);
    while let Ok(Some(_)) = client.poll_event(&mut Input::new(&window)) {}
    let mut buffers = vec![client.take_output(Vec::new())];
    for call in 0..calls {
        let number = call.to_string();
        let mut fields = FIELDS.to_vec();
        if varying {
            fields.push((b"x-call", number.as_bytes()));
        }
        let stream = client.send_request(&fields, false).expect("room");
        let message = |out: &mut Vec<u8>| out.resize(out.len() + 256, 7);
        client.send_grpc_message(stream, true, message).expect("open");
        // Without this end of each call the client's table of streams would fill up.
        let over = frame(HEADERS, END_STREAM | END_HEADERS, stream.value(), &[0x88]);
        let mut input = Input::new(&over);
        while let Some(_event) = client.poll_event(&mut input).expect("legal") {}
        buffers.push(client.take_output(Vec::new()));
    }
    buffers
}

fn serve(server: &mut Connection, bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let mut replies = 0;
    while let Some(event) = server.poll_event(&mut input).expect("legal") {
        match event {
            Event::Headers { memoizable: true, .. } => server.memoize(1),
            Event::Data {
                stream,
                data,
                end_stream: true,
            } => {
                server
                    .send_grpc_reply(stream, |out| out.extend_from_slice(&data[..16]))
                    .expect("open");
                replies += 1;
            }
            _ => {}
        }
    }
    assert_eq!(input.consumed(), bytes.len());
    replies
}

fn allocations_per_run(varying: bool) -> u64 {
    let buffers = requests(3_000, varying);
    let mut server = Connection::new(Config::server());
    let mut spare = Vec::with_capacity(4_096);
    *server.output() = Vec::with_capacity(4_096);
    let (warm, steady) = buffers.split_at(1_000);
    let mut run = |buffers: &[Vec<u8>]| {
        for buffer in buffers {
            serve(&mut server, buffer);
            spare = server.take_output(std::mem::take(&mut spare));
        }
    };
    run(warm);
    allocation_counter::measure(|| run(steady)).count_total
}

#[test]
fn a_known_call_allocates_nothing() {
    assert_eq!(allocations_per_run(false), 0);
}

#[test]
fn a_decoded_call_of_a_peer_that_inserts_on_every_request_allocates_nothing() {
    assert_eq!(allocations_per_run(true), 0);
}

#[test]
fn an_idle_connection_owns_less_than_four_kibibytes() {
    let opening = [
        &PREFACE[..],
        &settings(&[(4, 1 << 20)]),
        &frame(SETTINGS, ACK, 0, &[]),
    ]
    .concat();
    let calls = requests(20, false);
    let mut connection = None;
    let memory = allocation_counter::measure(|| {
        let mut server = Connection::new(Config::server());
        serve(&mut server, &opening);
        connection = Some(server);
    });
    let struct_bytes = size_of::<Connection>() as i64;
    println!(
        "fresh: {} bytes of heap, {struct_bytes} inline",
        memory.bytes_current
    );
    assert!(
        memory.bytes_current + struct_bytes < 4_096,
        "{}",
        memory.bytes_current
    );
    drop(connection);

    let mut connection = None;
    let memory = allocation_counter::measure(|| {
        let mut server = Connection::new(Config::server());
        for call in &calls {
            serve(&mut server, call);
            server.take_output(Vec::new());
        }
        connection = Some(server);
    });
    println!("after 20 calls: {} bytes of heap", memory.bytes_current);
    assert!(memory.bytes_current < 8_192, "{}", memory.bytes_current);
    drop(connection);
    assert_eq!(DATA, 0);
}
