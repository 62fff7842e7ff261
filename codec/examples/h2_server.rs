//! A small HTTP/2 server for judges such as h2spec, h2load and curl: one thread per connection,
//! blocking sockets.
//!
//! `cargo run -p prism-codec --example h2_server -- 127.0.0.1:8443` (cleartext, prior knowledge). A
//! gRPC request is answered with its own message; any other with a short text.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use prism_codec::h2::{Config, Connection, ConnectionError, Event, Input, StreamId};

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let listener = TcpListener::bind(&address)?;
    println!("listening on {}", listener.local_addr()?);
    for socket in listener.incoming() {
        let socket = socket?;
        std::thread::spawn(move || {
            if let Err(error) = serve(socket) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

/// State of a call until it is answered.
#[derive(Default)]
struct Call {
    grpc: bool,
    body: Vec<u8>,
}

fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut connection = Connection::new(Config::server());
    let mut calls = HashMap::new();
    let mut buffer = vec![0; connection.config().receive_buffer_min() * 2];
    let (mut filled, mut spare) = (0, Vec::new());
    loop {
        let mut input = Input::new(&buffer[..filled]);
        let outcome = answer(&mut connection, &mut calls, &mut input);
        let consumed = input.consumed();
        buffer.copy_within(consumed..filled, 0);
        filled -= consumed;
        spare = connection.take_output(spare);
        socket.write_all(&spare)?;
        if let Err(error) = outcome {
            println!("{error}");
            return socket.shutdown(std::net::Shutdown::Write);
        }
        let count = socket.read(&mut buffer[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
    }
}

fn answer(
    connection: &mut Connection,
    calls: &mut HashMap<StreamId, Call>,
    input: &mut Input<'_>,
) -> Result<(), ConnectionError> {
    while let Some(event) = connection.poll_event(input)? {
        let ended = match event {
            Event::Headers {
                stream,
                headers,
                end_stream,
                ..
            } => {
                let grpc = headers
                    .get(b"content-type")
                    .is_some_and(|value| value.starts_with(b"application/grpc"));
                let body = Vec::new();
                calls.insert(stream, Call { grpc, body });
                end_stream.then_some(stream)
            }
            Event::Data {
                stream,
                data,
                end_stream,
            } => {
                calls.entry(stream).or_default().body.extend_from_slice(data);
                end_stream.then_some(stream)
            }
            Event::Trailers { stream, .. } => Some(stream),
            Event::Reset { stream, .. } => {
                calls.remove(&stream);
                None
            }
            _ => None,
        };
        let Some(stream) = ended else { continue };
        let call = calls.remove(&stream).unwrap_or_default();
        let message = call.body.get(5..).unwrap_or_default();
        // An error means that the peer no longer waits.
        let _ = if call.grpc {
            connection.send_grpc_reply(stream, |out| out.extend_from_slice(message))
        } else {
            let length = (TEXT.len() + call.body.len()).to_string();
            connection
                .send_headers(
                    stream,
                    &[(b":status", b"200"), (b"content-length", length.as_bytes())],
                    false,
                )
                .and_then(|()| connection.send_data(stream, TEXT, false))
                .and_then(|()| connection.send_data(stream, &call.body, true))
        };
    }
    Ok(())
}

const TEXT: &[u8] = b"Prism speaks HTTP/2.\n";
