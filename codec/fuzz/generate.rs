//! Inputs for the targets of `targets.rs`: legal ones made from a seed, and ways to damage them.

use prism_codec::h2::PREFACE;
use prism_codec::h2::hpack::{Encoder, Indexing};
use prism_codec::proto::prism::common::v1::IdempotencyToken;
use prism_codec::proto::prism::{keyvalue::v1 as proto, pubsub::v1 as pubsub};
use prost::Message;

/// A seeded generator: the same seed, the same inputs.
pub struct Random(u64);

impl Random {
    /// Starts from a seed; any will do.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// 64 random bits (splitmix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self, len_max: usize) -> String {
        let len = self.below(len_max + 1);
        (0..len)
            .map(|_| {
                if self.once_in(30) {
                    'é'
                } else {
                    (b' ' + self.below(95) as u8) as char
                }
            })
            .collect()
    }
}

/// A legal input of a target.
pub fn legal(target: &str, random: &mut Random) -> Vec<u8> {
    let mut input = vec![random.next() as u8];
    match target {
        "h2_server" => client_stream(random, &mut input),
        "h2_client" => server_stream(random, &mut input),
        "hpack" => {
            input.clear();
            header_blocks(random, &mut input);
        }
        "grpc" => messages(random, &mut input),
        "http1" => http1_requests(random, &mut input),
        "connect_json" => json(random, &mut input),
        "views" => request(random, &mut input),
        unknown => panic!("no generator for {unknown}"),
    }
    input
}

/// Damages an input: bits, bytes, lengths, cuts, repeats and moves of ranges.
pub fn damage(input: &mut Vec<u8>, random: &mut Random) {
    const INTERESTING: [u8; 10] = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x20, 0x40, 0x04, 0x24, 0x25];
    for _ in 0..=random.below(3) {
        if input.is_empty() {
            return;
        }
        let at = random.below(input.len());
        let len = random.below((input.len() - at).min(40) + 1);
        match random.below(8) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.next() as u8,
            2 => input[at] = random.pick(&INTERESTING),
            3 => input[at] = input[at].wrapping_add(random.pick(&[1, 255])),
            4 => input.truncate(at),
            5 => drop(input.drain(at..at + len)),
            6 => {
                let range = input[at..at + len].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, range);
            }
            _ => {
                let range = random.bytes(8);
                input.splice(at..at, range);
            }
        }
    }
}

/// Damages a stream of frames that begins at `start`, frame by frame: drops, repeats and moves
/// whole frames, changes their headers, inserts others.
pub fn damage_frames(input: &mut Vec<u8>, start: usize, random: &mut Random) {
    let mut frames = Vec::new();
    let mut rest = input.get(start..).unwrap_or_default();
    while let Some((&[a, b, c, ..], _)) = rest.split_first_chunk::<9>() {
        let len = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((whole, after)) = rest.split_at_checked(len) else {
            break;
        };
        frames.push(whole.to_vec());
        rest = after;
    }
    if frames.is_empty() {
        return;
    }
    let tail = rest.to_vec();
    for _ in 0..=random.below(2) {
        let at = random.below(frames.len());
        let other = random.below(frames.len());
        match random.below(7) {
            0 => frames.swap(at, other),
            1 => frames.insert(other, frames[at].clone()),
            2 if frames.len() > 1 => drop(frames.remove(at)),
            3 => frames[at][4] ^= 1 << random.below(6),
            4 => frames[at][8] = random.pick(&[0, 1, 2, 3, 5, 7, 99]),
            5 => frames[at][3] = random.below(10) as u8,
            _ => {
                let mut extra = Vec::new();
                let stream = random.pick(&[0, 1, 3, 5, 7, 99]);
                let payload = random.bytes(10);
                frame(
                    &mut extra,
                    random.below(11) as u8,
                    random.next() as u8,
                    stream,
                    &payload,
                );
                frames.insert(at, extra);
            }
        }
    }
    input.truncate(start);
    input.extend(frames.concat());
    input.extend(tail);
}

/// Appends a frame (RFC 9113 section 4.1).
pub fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A header block as HEADERS and perhaps CONTINUATIONs, perhaps padded and with a priority.
fn headers_frames(out: &mut Vec<u8>, random: &mut Random, stream: u32, block: &[u8], end_stream: bool) {
    let split = if random.once_in(6) {
        random.below(block.len() + 1)
    } else {
        block.len()
    };
    let (mut payload, mut flags) = (Vec::new(), u8::from(end_stream));
    let padding = if random.once_in(8) { random.below(20) } else { 0 };
    if padding > 0 {
        flags |= 0x8;
        payload.push(padding as u8);
    }
    if random.once_in(8) {
        flags |= 0x20;
        payload.extend_from_slice(&[0, 0, 0, 0, 15]);
    }
    payload.extend_from_slice(&block[..split]);
    payload.resize(payload.len() + padding, 0);
    let whole = split == block.len();
    frame(out, 1, flags | if whole { 0x4 } else { 0 }, stream, &payload);
    if !whole {
        let second = split + random.below(block.len() - split + 1);
        frame(out, 9, 0, stream, &block[split..second]);
        frame(out, 9, 0x4, stream, &block[second..]);
    }
}

/// A frame that may stand anywhere between header blocks and leaves an open stream unchanged.
fn neutral_frame(out: &mut Vec<u8>, random: &mut Random, stream: u32) {
    match random.below(7) {
        0 => frame(out, 6, 0, 0, &random.next().to_be_bytes()),
        1 => frame(out, 8, 0, 0, &(1 + random.below(1000) as u32).to_be_bytes()),
        2 => frame(
            out,
            8,
            0,
            stream,
            &(1 + random.below(100_000) as u32).to_be_bytes(),
        ),
        3 => frame(out, 2, 0, stream, &[0, 0, 0, 0, 16]),
        4 => frame(
            out,
            20 + random.below(200) as u8,
            random.next() as u8,
            stream,
            &random.bytes(30),
        ),
        5 => frame(out, 4, 1, 0, &[]),
        _ => {
            let (id, value) = random.pick(&[
                (1, 0),
                (1, 4096),
                (1, 100),
                (4, 65_535),
                (4, 10),
                (5, 16_384),
                (6, 9_000),
            ]);
            let mut setting = [0, id, 0, 0, 0, 0];
            setting[2..].copy_from_slice(&u32::to_be_bytes(value));
            frame(out, 4, 0, 0, &setting);
        }
    }
}

fn client_stream(random: &mut Random, out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    frame(out, 4, 0, 0, &[]);
    let mut encoder = Encoder::new(4096);
    // Blocks that repeat byte by byte, and mean something else after every third one: a trap for
    // code that remembers blocks.
    let repeats = random.once_in(2);
    for at in 0..1 + random.below(12) as u32 {
        let stream = 2 * at + 1;
        let mut block = Vec::new();
        let path = format!(
            "/prism.keyvalue.v1.KeyValue/{}",
            random.pick(&["Put", "Get", "Scan"])
        );
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", if repeats { "/" } else { &path }),
            (":authority", "localhost:8980"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            if repeats && !matches!(name, ":method" | ":scheme" | ":path") {
                continue;
            }
            encoder.encode(
                &mut block,
                name.as_bytes(),
                value.as_bytes(),
                Indexing::Incremental,
            );
        }
        if repeats {
            let turn = (at / 3).to_string();
            encoder.encode(&mut block, b"x-turn", turn.as_bytes(), Indexing::Incremental);
        } else {
            let timeout = format!("{}m", random.below(1000));
            let indexing = random.pick(&[Indexing::Incremental, Indexing::Without, Indexing::Never]);
            encoder.encode(&mut block, b"grpc-timeout", timeout.as_bytes(), indexing);
        }
        let body = random.below(4);
        headers_frames(out, random, stream, &block, body == 0);
        body_frames(out, random, stream, body, &mut encoder);
        if random.once_in(3) {
            neutral_frame(out, random, stream);
        }
    }
}

fn body_frames(out: &mut Vec<u8>, random: &mut Random, stream: u32, frames: usize, encoder: &mut Encoder) {
    for at in 1..=frames {
        let trailers = at == frames && random.once_in(4);
        if random.once_in(10) {
            neutral_frame(out, random, stream);
        }
        if trailers {
            let mut block = Vec::new();
            encoder.encode(&mut block, b"grpc-status", b"0", Indexing::Incremental);
            headers_frames(out, random, stream, &block, true);
        } else {
            let mut data = random.bytes(60);
            let mut flags = u8::from(at == frames);
            if random.once_in(6) {
                flags |= 0x8;
                data.insert(0, 3);
                data.extend_from_slice(&[0; 3]);
            }
            frame(out, 0, flags, stream, &data);
        }
    }
}

fn server_stream(random: &mut Random, out: &mut Vec<u8>) {
    frame(out, 4, 0, 0, &[]);
    frame(out, 4, 1, 0, &[]);
    let mut encoder = Encoder::new(4096);
    for stream in [1, 3, 5] {
        if random.once_in(5) {
            neutral_frame(out, random, stream);
        }
        let mut block = Vec::new();
        if random.once_in(6) {
            encoder.encode(&mut block, b":status", b"103", Indexing::Incremental);
            headers_frames(out, random, stream, &block, false);
            block.clear();
        }
        for (name, value) in [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-encoding", "identity"),
        ] {
            encoder.encode(
                &mut block,
                name.as_bytes(),
                value.as_bytes(),
                Indexing::Incremental,
            );
        }
        let body = random.below(4);
        headers_frames(out, random, stream, &block, body == 0);
        body_frames(out, random, stream, body, &mut encoder);
    }
    if random.once_in(4) {
        frame(out, 7, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]);
    }
}

/// Blocks of at most 255 bytes, each after a byte with its length.
fn header_blocks(random: &mut Random, out: &mut Vec<u8>) {
    const NAMES: [&str; 8] = [
        ":path",
        ":status",
        "te",
        "content-type",
        "cookie",
        "x-a",
        "x-b",
        "grpc-timeout",
    ];
    let mut encoder = Encoder::new(4096);
    for _ in 0..1 + random.below(6) {
        let mut block = Vec::new();
        if random.once_in(5) {
            encoder.set_peer_max_table_size(random.pick(&[0, 50, 200, 4096]));
        }
        for _ in 0..random.below(5) {
            let name = random.pick(&NAMES);
            let value = if random.once_in(3) {
                random.bytes(30)
            } else {
                random.text(20).into_bytes()
            };
            let indexing = random.pick(&[Indexing::Incremental, Indexing::Incremental, Indexing::Without]);
            encoder.encode(&mut block, name.as_bytes(), &value, indexing);
        }
        if let Ok(len) = u8::try_from(block.len()) {
            out.push(len);
            out.extend_from_slice(&block);
        } else {
            return;
        }
    }
}

fn messages(random: &mut Random, out: &mut Vec<u8>) {
    for _ in 0..random.below(5) {
        let len_max = if random.once_in(20) { 5000 } else { 60 };
        let message = random.bytes(len_max);
        prism_codec::grpc::put_prefix(out, random.once_in(4), message.len());
        out.extend_from_slice(&message);
    }
    if random.once_in(6) {
        out.truncate(1);
        out.extend_from_slice(
            format!(
                "{}{}",
                random.below(100_000),
                random.pick(&["H", "M", "S", "m", "u", "n"])
            )
            .as_bytes(),
        );
    }
    if random.once_in(6) {
        out.truncate(1);
        let text = random.text(100);
        let mut compressor = prism_codec::grpc::Compressor::default();
        compressor.compress(prism_codec::grpc::Encoding::Gzip, text.as_bytes(), out);
    }
}

fn http1_requests(random: &mut Random, out: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        let method = random.pick(&["POST", "GET", "PUT", "OPTIONS"]);
        let target = random.pick(&[
            "/",
            "/metrics?x=1",
            "/prism.keyvalue.v1.KeyValue/Put",
            "http://h/x?y#z",
            "*",
        ]);
        let version = if random.once_in(8) { "1.0" } else { "1.1" };
        out.extend_from_slice(format!("{method} {target} HTTP/{version}\r\nhost: localhost\r\n").as_bytes());
        for _ in 0..random.below(4) {
            let name = random.pick(&["x-a", "connection", "expect", "content-type", "accept"]);
            let value = random.pick(&["close", "keep-alive", "100-continue", "application/json", "a, b"]);
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let body = random.bytes(80);
        if random.once_in(3) {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in body.chunks(1 + random.below(30)) {
                let extension = if random.once_in(8) { ";a=b" } else { "" };
                out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(if random.once_in(4) {
                b"0\r\nx: y\r\n\r\n"
            } else {
                b"0\r\n\r\n"
            });
        } else {
            out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(&body);
        }
    }
}

fn json(random: &mut Random, out: &mut Vec<u8>) {
    let text = random.text(12).replace(['"', '\\'], "x");
    let items = format!(
        r#"[{{"key":"aGk=","value":"{}","ttl":"{}s","compression":{}}}]"#,
        random.pick(&["", "AAAA", "_-8"]),
        random.pick(&["1", "0.5", "3600", "-1"]),
        random.pick(&["0", "1", "\"COMPRESSION_GZIP\"", "77"]),
    );
    let body = match random.below(5) {
        0 => format!(r#"{{"namespace":"{text}","id":"x","items":{items}}}"#),
        1 => {
            format!(r#"{{"namespace":"n","id":"{text}","predicate":{{"keys":{{"keys":["YQ==","Yg=="]}}}}}}"#)
        }
        2 => format!(r#"{{"namespace":"n","mutations":[{{"id":"{text}","put":{{"items":{items}}}}}]}}"#),
        3 => format!(r#"{{"namespace":"n","id":"i","key":"YQ==","value":"Yg==","item":{items}}}"#),
        _ => format!(
            "{}{}",
            "[".repeat(random.below(90)),
            "{\"a\":".repeat(random.below(90))
        ),
    };
    out.extend_from_slice(body.as_bytes());
}

fn topics(random: &mut Random) -> Vec<String> {
    let some = &["a.*", ">", "x"][..random.below(4)];
    some.iter().map(|topic| (*topic).to_owned()).collect()
}

/// A request about a group of subscribers that prost encodes.
fn group_request(random: &mut Random, choice: u8, out: &mut Vec<u8>) {
    let (namespace, group) = (random.text(10), "g".repeat(random.below(3)));
    let idempotency_token = random.once_in(2).then(IdempotencyToken::default);
    match choice {
        8 => pubsub::CommitRequest {
            namespace,
            idempotency_token,
            group,
            position: random.bytes(20),
        }
        .encode(out),
        9 => pubsub::ListGroupsRequest {
            namespace,
            page_size: random.below(1_200) as u32,
            page_token: random.bytes(9),
        }
        .encode(out),
        10 => pubsub::ResetGroupRequest {
            namespace,
            idempotency_token,
            group,
            start: Some(pubsub::StartAt {
                place: Some(pubsub::start_at::Place::Position(random.bytes(20))),
            }),
            topics: topics(random),
        }
        .encode(out),
        _ => pubsub::DeleteGroupRequest {
            namespace,
            idempotency_token,
            group,
        }
        .encode(out),
    }
    .expect("a buffer that grows")
}

/// A request that prost encodes. The first byte of `out` chooses its message for the target.
fn request(random: &mut Random, out: &mut Vec<u8>) {
    let (namespace, id) = (random.text(10), random.text(20));
    let idempotency_token = random.once_in(2).then(IdempotencyToken::default);
    let items = (0..random.below(4)).map(|_| item(random)).collect::<Vec<_>>();
    let predicate = random.once_in(2).then(|| predicate(random));
    match out[0] % 13 {
        0 => proto::PutRequest {
            namespace,
            id,
            idempotency_token,
            items,
        }
        .encode(out),
        1 => proto::GetRequest {
            namespace,
            id,
            predicate,
            ..Default::default()
        }
        .encode(out),
        2 => proto::DeleteRequest {
            namespace,
            id,
            idempotency_token,
            predicate,
        }
        .encode(out),
        3 => proto::ScanRequest {
            namespace,
            ..Default::default()
        }
        .encode(out),
        4 => {
            let operation = proto::mutation::Operation::Put(proto::PutItems { items });
            let mutation = proto::Mutation {
                id,
                operation: Some(operation),
            };
            proto::MutateRequest {
                namespace,
                idempotency_token,
                mutations: vec![mutation; random.below(3)],
            }
            .encode(out)
        }
        5 => pubsub::PublishRequest {
            namespace,
            idempotency_token,
            message: Some(message(random)),
        }
        .encode(out),
        6 => pubsub::PublishBatchRequest {
            namespace,
            idempotency_token,
            messages: (0..random.below(4)).map(|_| message(random)).collect(),
        }
        .encode(out),
        7 => pubsub::SubscribeRequest {
            namespace,
            topics: topics(random),
            group: "g".repeat(random.below(3)),
            batch_messages: random.below(1_200) as u32,
            ..Default::default()
        }
        .encode(out),
        choice @ 8..=11 => return group_request(random, choice, out),
        _ => {
            let (key, item) = (random.bytes(10), items.into_iter().next());
            let expected = match random.below(4) {
                0 => Some(proto::compare_and_swap_request::Expected::Value(b"v".to_vec())),
                1 => Some(proto::compare_and_swap_request::Expected::Version(
                    random.bytes(20),
                )),
                _ => None,
            };
            proto::CompareAndSwapRequest {
                namespace,
                id,
                key,
                idempotency_token,
                expected,
                item,
            }
            .encode(out)
        }
    }
    .expect("a vector grows");
}

fn message(random: &mut Random) -> pubsub::Message {
    pubsub::Message {
        topic: ["", "orders.eu", "login"][random.below(3)].to_owned(),
        payload: random.bytes(40),
        ordering_key: random.text(5),
        attributes: (0..random.below(3))
            .map(|index| (format!("n{index}"), random.text(5)))
            .collect(),
    }
}

fn item(random: &mut Random) -> proto::Item {
    proto::Item {
        key: random.bytes(10),
        value: random.bytes(40),
        ttl: random.once_in(2).then(|| prost_types::Duration {
            seconds: random.below(100) as i64,
            nanos: 5,
        }),
        compression: random.below(3) as i32,
        version: random.bytes(3),
    }
}

fn predicate(random: &mut Random) -> proto::Predicate {
    use proto::predicate::Kind;
    let kind = match random.below(3) {
        0 => Kind::All(proto::All {}),
        1 => Kind::Keys(proto::KeySet {
            keys: vec![random.bytes(5), random.bytes(5)],
        }),
        _ => Kind::Range(proto::KeyRange {
            start: random.bytes(5),
            end: random.bytes(5),
        }),
    };
    proto::Predicate { kind: Some(kind) }
}
