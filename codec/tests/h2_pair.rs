//! Two connections over a network that cuts the bytes anywhere: every byte arrives, in order, once,
//! whatever the windows, frame sizes and pieces. Seeded; a failure prints the seed.

mod h2_support;

use std::collections::HashMap;

use h2_support::Random;
use prism_codec::h2::{Config, Connection, ErrorCode, Event, Input, StreamId};

/// One end, with the bytes in flight to it.
struct End {
    connection: Connection,
    arrived: Vec<u8>,
}

impl End {
    fn new(config: Config) -> Self {
        Self {
            connection: Connection::new(config),
            arrived: Vec::new(),
        }
    }

    /// Polls on a random prefix of the bytes that have arrived, with `handle` for the events.
    fn poll(&mut self, cut: usize, mut handle: impl FnMut(&mut Connection, Seen<'_>)) {
        let buffer = std::mem::take(&mut self.arrived);
        let mut input = Input::new(&buffer[..cut]);
        while let Some(event) = self
            .connection
            .poll_event(&mut input)
            .expect("both ends are honest")
        {
            let seen = match event {
                Event::Headers {
                    stream,
                    headers,
                    end_stream,
                    memoizable,
                } => {
                    let size = headers.get(b"x-reply-size").map(|value| {
                        let text = std::str::from_utf8(value).expect("digits");
                        text.parse().expect("a number")
                    });
                    Seen::Headers {
                        stream,
                        size,
                        end_stream,
                        memoizable,
                    }
                }
                Event::MemoHeaders {
                    stream,
                    memo,
                    end_stream,
                } => Seen::Memo {
                    stream,
                    memo,
                    end_stream,
                },
                Event::Data {
                    stream,
                    data,
                    end_stream,
                } => Seen::Data {
                    stream,
                    data,
                    end_stream,
                },
                Event::Trailers { stream, headers, .. } => {
                    assert_eq!(headers.get(b"grpc-status"), Some(&b"0"[..]));
                    Seen::Ended { stream }
                }
                Event::Reset { stream, code } => Seen::Reset { stream, code },
                Event::Writable { stream } => Seen::Writable { stream },
                _ => continue,
            };
            handle(&mut self.connection, seen);
        }
        self.arrived = buffer[input.consumed()..].to_vec();
    }
}

enum Seen<'a> {
    Headers {
        stream: StreamId,
        size: Option<usize>,
        end_stream: bool,
        memoizable: bool,
    },
    Memo {
        stream: StreamId,
        memo: u32,
        end_stream: bool,
    },
    Data {
        stream: StreamId,
        data: &'a [u8],
        end_stream: bool,
    },
    Ended {
        stream: StreamId,
    },
    Reset {
        stream: StreamId,
        code: ErrorCode,
    },
    Writable {
        stream: StreamId,
    },
}

/// State of a call on the server.
struct Serving {
    reply_size: usize,
    body: Vec<u8>,
    /// Bytes still to be produced by a streaming reply.
    left: Option<usize>,
}

/// Expectation of the client about a call.
struct Asked {
    stream: StreamId,
    request: Vec<u8>,
    reply_size: usize,
    received: Vec<u8>,
    ended: bool,
}

struct World {
    seed: u64,
    random: Random,
    client: End,
    server: End,
    asked: Vec<Asked>,
    serving: HashMap<u32, Serving>,
    memos: usize,
}

/// The reply to a request: a function of both, so that mixed-up streams are found.
fn reply_of(request: &[u8], size: usize) -> Vec<u8> {
    let sum = request
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    (0..size).map(|at| sum.wrapping_add(at as u8)).collect()
}

const CHUNK: usize = 5_000;

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut config = |base: Config| Config {
            initial_window: 1 + random.below(100_000) as u32,
            connection_window: 65_535 + random.below(100_000) as u32,
            max_frame_size: 16_384 + random.below(50_000) as u32,
            whole_frame_max: 1_024 + random.below(16_000) as u32,
            header_table_size: [4_096, 4_096, 0, 100][random.below(4)],
            stream_queue_mark: 2_000,
            ..base
        };
        let (client, server) = (config(Config::client()), config(Config::server()));
        Self {
            seed,
            client: End::new(client),
            server: End::new(server),
            random,
            asked: Vec::new(),
            serving: HashMap::new(),
            memos: 0,
        }
    }

    fn ask(&mut self) {
        let size = [0, 10, 1_000, 70_000][self.random.below(4)];
        let size = self.random.below(size + 1);
        let request = self.random.bytes(size);
        // Few different sizes, so that header blocks repeat.
        let reply_size = [0, 5, 900, 40_000, 150_000][self.random.below(5)];
        let size_text = reply_size.to_string();
        let streaming: &[u8] = [&b"no"[..], b"yes"][self.random.below(2)];
        let fields: [(&[u8], &[u8]); 6] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/prism.Test/Echo"),
            (b"te", b"trailers"),
            (b"x-reply-size", size_text.as_bytes()),
            (b"x-streaming", streaming),
        ];
        let connection = &mut self.client.connection;
        let empty = request.is_empty();
        let Ok(stream) = connection.send_request(&fields, empty) else {
            return;
        };
        if !empty {
            let cut = self.random.below(request.len());
            connection
                .send_data(stream, &request[..cut], false)
                .expect("open");
            connection.send_data(stream, &request[cut..], true).expect("open");
        }
        self.asked.push(Asked {
            stream,
            request,
            reply_size,
            received: Vec::new(),
            ended: false,
        });
    }

    fn serve(&mut self, cut: usize) {
        let (serving, memos, random) = (&mut self.serving, &mut self.memos, &mut self.random);
        self.server.poll(cut, |connection, seen| {
            let (stream, ended) = match seen {
                Seen::Headers {
                    stream,
                    size,
                    end_stream,
                    memoizable,
                } => {
                    let reply_size = size.expect("every request says it");
                    if memoizable {
                        connection.memoize(reply_size as u32);
                    }
                    let call = Serving {
                        reply_size,
                        body: Vec::new(),
                        left: None,
                    };
                    serving.insert(stream.value(), call);
                    (stream, end_stream)
                }
                Seen::Memo {
                    stream,
                    memo,
                    end_stream,
                } => {
                    *memos += 1;
                    let call = Serving {
                        reply_size: memo as usize,
                        body: Vec::new(),
                        left: None,
                    };
                    serving.insert(stream.value(), call);
                    (stream, end_stream)
                }
                Seen::Data {
                    stream,
                    data,
                    end_stream,
                } => {
                    if let Some(call) = serving.get_mut(&stream.value()) {
                        call.body.extend_from_slice(data);
                    }
                    (stream, end_stream)
                }
                Seen::Writable { stream } => {
                    produce(connection, serving, stream);
                    (stream, false)
                }
                Seen::Reset { stream, .. } => {
                    serving.remove(&stream.value());
                    (stream, false)
                }
                Seen::Ended { stream } => (stream, true),
            };
            if !ended {
                return;
            }
            let Some(call) = serving.get_mut(&stream.value()) else {
                return;
            };
            let reply = reply_of(&call.body, call.reply_size);
            if random.below(2) == 0 {
                connection
                    .send_grpc_reply(stream, |out| out.extend_from_slice(&reply))
                    .expect("open");
            } else {
                connection.send_grpc_headers(stream).expect("open");
                call.left = Some(call.reply_size);
                produce(connection, serving, stream);
            }
        });
    }

    fn receive(&mut self, cut: usize) {
        let (asked, seed) = (&mut self.asked, self.seed);
        self.client.poll(cut, |_, seen| {
            let (stream, data, ended) = match seen {
                Seen::Headers {
                    stream, end_stream, ..
                }
                | Seen::Memo {
                    stream, end_stream, ..
                } => (stream, &[][..], end_stream),
                Seen::Data {
                    stream,
                    data,
                    end_stream,
                } => (stream, data, end_stream),
                Seen::Ended { stream } => (stream, &[][..], true),
                Seen::Reset { stream, code } => panic!("seed {seed}: {} reset: {code}", stream.value()),
                Seen::Writable { .. } => return,
            };
            let call = asked.iter_mut().find(|call| call.stream == stream);
            let call = call.unwrap_or_else(|| panic!("seed {seed}: an answer without a question"));
            assert!(!call.ended, "seed {seed}");
            call.received.extend_from_slice(data);
            call.ended = ended;
        });
    }

    fn check(&mut self) {
        let seed = self.seed;
        self.asked.retain(|call| {
            if !call.ended {
                return true;
            }
            assert_eq!(
                messages(&call.received),
                reply_of(&call.request, call.reply_size),
                "seed {seed}"
            );
            false
        });
    }

    /// Moves bytes both ways, cut anywhere.
    fn turn(&mut self) {
        let sent = self.client.connection.take_output(Vec::new());
        self.server.arrived.extend_from_slice(&sent);
        let cut = self.random.below(self.server.arrived.len() + 1);
        self.serve(cut);
        let sent = self.server.connection.take_output(Vec::new());
        self.client.arrived.extend_from_slice(&sent);
        let cut = self.random.below(self.client.arrived.len() + 1);
        self.receive(cut);
        self.check();
    }
}

/// Produces a streaming reply: messages of up to `CHUNK` bytes until the queue is full.
fn produce(connection: &mut Connection, serving: &mut HashMap<u32, Serving>, stream: StreamId) {
    let Some(call) = serving.get_mut(&stream.value()) else {
        return;
    };
    let Some(left) = &mut call.left else {
        return;
    };
    let reply = reply_of(&call.body, call.reply_size);
    while *left > 0 {
        if connection.stream_queued(stream) >= connection.config().stream_queue_mark {
            return;
        }
        let at = reply.len() - *left;
        let chunk = &reply[at..(at + CHUNK).min(reply.len())];
        connection
            .send_grpc_message(stream, false, |out| out.extend_from_slice(chunk))
            .expect("open");
        *left -= chunk.len();
    }
    connection.send_grpc_ok(stream).expect("open");
    serving.remove(&stream.value());
}

/// The messages of a gRPC body without their prefixes.
fn messages(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !body.is_empty() {
        let len = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        all.extend_from_slice(&body[5..5 + len]);
        body = &body[5 + len..];
    }
    all
}

#[test]
fn every_byte_arrives_once_and_in_order() {
    let mut memos = 0;
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            world.ask();
            world.turn();
        }
        let mut turns = 0;
        while !world.asked.is_empty() {
            world.turn();
            turns += 1;
            assert!(
                turns < 20_000,
                "seed {seed}: stuck with {} calls",
                world.asked.len()
            );
        }
        assert_eq!(world.client.connection.open_streams(), 0, "seed {seed}");
        assert_eq!(world.server.connection.open_streams(), 0, "seed {seed}");
        assert_eq!(world.server.connection.queued_bytes(), 0, "seed {seed}");
        memos += world.memos;
    }
    assert!(memos > 100, "the memo was used: {memos}");
}

#[test]
fn a_drain_under_load_loses_no_call() {
    for seed in 100..110 {
        let mut world = World::new(seed);
        for round in 0..40 {
            world.ask();
            world.turn();
            if round == 20 {
                world.server.connection.goaway();
            }
        }
        let mut turns = 0;
        while !(world.server.connection.is_drained() && world.asked.is_empty()) {
            world.turn();
            turns += 1;
            assert!(turns < 20_000, "seed {seed}: stuck");
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    // Honest traffic with random damage, and random bytes after an honest preface.
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut client = Connection::new(Config::client());
        for _ in 0..5 {
            let fields: [(&[u8], &[u8]); 3] =
                [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x")];
            let stream = client.send_request(&fields, false).expect("room");
            client.send_data(stream, &[7; 300], true).expect("open");
        }
        let mut bytes = client.take_output(Vec::new());
        let preface = 24 + 39;
        for _ in 0..random.below(20) {
            let at = preface + random.below(bytes.len() - preface);
            bytes[at] = random.next() as u8;
        }
        if seed % 3 == 0 {
            let noise = random.bytes(2_000);
            bytes.truncate(preface);
            bytes.extend_from_slice(&noise);
        }
        let mut server = End::new(Config::server());
        let mut at = 0;
        let mut failed = false;
        while at < bytes.len() && !failed {
            let more = (1 + random.below(200)).min(bytes.len() - at);
            server.arrived.extend_from_slice(&bytes[at..at + more]);
            at += more;
            let buffer = std::mem::take(&mut server.arrived);
            let mut input = Input::new(&buffer);
            loop {
                match server.connection.poll_event(&mut input) {
                    Ok(None) => break,
                    Err(_) => {
                        failed = true;
                        break;
                    }
                    Ok(Some(Event::Data {
                        stream,
                        end_stream: true,
                        ..
                    })) => {
                        let _ = server.connection.send_grpc_reply(stream, |out| out.push(1));
                    }
                    Ok(Some(_)) => {}
                }
            }
            server.arrived = buffer[input.consumed()..].to_vec();
        }
        let output = server.connection.take_output(Vec::new());
        h2_support::parse(&output);
    }
}
