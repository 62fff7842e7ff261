//! Support for the tests of HTTP/2: raw frames in, parsed frames and owned events out, a seeded
//! random number generator.

#![allow(dead_code, unreachable_pub)]

use prism_codec::h2::{Config, Connection, ConnectionError, ErrorCode, Event, Input, PREFACE, StreamId};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY_FLAG: u8 = 0x20;
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

/// `GET http /` and `POST http /` in static indices.
pub const GET: &[u8] = &[0x82, 0x86, 0x84];
pub const POST: &[u8] = &[0x83, 0x86, 0x84];

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in entries {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

/// A field that is not indexed, both strings raw.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127);
        bytes.push(text.len() as u8);
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// A frame that came out of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The 32-bit number at `at` in the payload.
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// Splits output into frames; it must hold nothing but whole frames.
pub fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    if let Some(rest) = bytes.strip_prefix(PREFACE) {
        bytes = rest;
    }
    while !bytes.is_empty() {
        let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        frames.push(Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes(bytes[5..9].try_into().expect("four bytes")),
            payload: bytes[9..9 + len].to_vec(),
        });
        bytes = &bytes[9 + len..];
    }
    frames
}

/// An event that owns its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Headers(u32, Vec<(String, String)>, bool),
    Memo(u32, u32, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32, Vec<(String, String)>),
    MemoTrailers(u32, u32),
    Oversized(u32, Vec<(String, String)>, bool),
    Reset(u32, ErrorCode),
    Writable(u32),
    GoAway(u32, ErrorCode),
    Pong([u8; 8]),
    PeerSettings,
}

/// A connection and the input it got.
pub struct Subject {
    pub connection: Connection,
    pub seen: Vec<Seen>,
    pub streams: Vec<StreamId>,
    left: Vec<u8>,
}

impl Subject {
    pub fn new(config: Config) -> Self {
        Self {
            connection: Connection::new(config),
            seen: Vec::new(),
            streams: Vec::new(),
            left: Vec::new(),
        }
    }

    /// A server that has exchanged prefaces with a client. The client's SETTINGS are `entries`.
    pub fn server_with(config: Config, entries: &[(u16, u32)]) -> Self {
        let mut subject = Self::new(config);
        let opening = [&PREFACE[..], &settings(entries), &frame(SETTINGS, ACK, 0, &[])].concat();
        subject.feed(&opening).expect("an ordinary opening");
        subject.seen.clear();
        subject.frames();
        subject
    }

    pub fn server() -> Self {
        Self::server_with(Config::server(), &[])
    }

    /// A client that has exchanged prefaces with a server. The server's SETTINGS are `entries`.
    pub fn client_with(config: Config, entries: &[(u16, u32)]) -> Self {
        let mut subject = Self::new(config);
        let opening = [settings(entries), frame(SETTINGS, ACK, 0, &[])].concat();
        subject.feed(&opening).expect("an ordinary opening");
        subject.seen.clear();
        subject.frames();
        subject
    }

    /// Feeds bytes and gathers the events.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.left.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.left);
        let mut input = Input::new(&buffer);
        let outcome = loop {
            match self.connection.poll_event(&mut input) {
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
                Ok(Some(event)) => {
                    if let Event::Headers { stream, .. }
                    | Event::MemoHeaders { stream, .. }
                    | Event::OversizedHeaders { stream, .. } = &event
                    {
                        self.streams.push(*stream);
                    }
                    self.seen.push(own(&event));
                }
            }
        };
        self.left = buffer[input.consumed()..].to_vec();
        outcome
    }

    pub fn feed_all(&mut self, frames: &[Vec<u8>]) -> Result<(), ConnectionError> {
        self.feed(&frames.concat())
    }

    /// Takes the connection's output.
    pub fn frames(&mut self) -> Vec<Frame> {
        parse(&self.connection.take_output(Vec::new()))
    }

    pub fn frames_of(&mut self, kind: u8) -> Vec<Frame> {
        let mut frames = self.frames();
        frames.retain(|frame| frame.kind == kind);
        frames
    }

    /// The handle of the stream that was opened last.
    pub fn last_stream(&self) -> StreamId {
        *self.streams.last().expect("a stream was opened")
    }

    /// Expects a connection error, with its code in a GOAWAY.
    #[track_caller]
    pub fn expect_connection_error(&mut self, bytes: &[u8], code: ErrorCode) {
        let error = self.feed(bytes).expect_err("a connection error");
        assert_eq!(error.code, code, "{}", error.reason);
        let goaways = self.frames_of(GOAWAY);
        assert_eq!(goaways.len(), 1);
        assert_eq!(goaways[0].word(4), code.0);
        assert_eq!(self.feed(&[]), Err(error), "an error is for ever");
        assert!(self.frames().is_empty(), "but one GOAWAY is enough");
    }

    /// Expects a stream error, with its code in an RST_STREAM, and that the connection lives on.
    #[track_caller]
    pub fn expect_stream_error(&mut self, bytes: &[u8], stream: u32, code: ErrorCode) {
        self.feed(bytes).expect("the connection lives on");
        let resets = self.frames_of(RST_STREAM);
        assert_eq!(resets.len(), 1, "{resets:?}");
        assert_eq!((resets[0].stream, resets[0].word(0)), (stream, code.0));
        self.expect_alive();
    }

    /// Expects that a PING is answered.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.feed(&frame(PING, 0, 0, b"are you?")).expect("alive");
        let pings = self.frames_of(PING);
        assert_eq!(pings.len(), 1);
        assert_eq!((pings[0].flags, &pings[0].payload[..]), (ACK, &b"are you?"[..]));
    }
}

pub fn own(event: &Event<'_, '_>) -> Seen {
    let own_list = |headers: &prism_codec::h2::HeaderList| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        headers
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    };
    match event {
        Event::Headers {
            stream,
            headers,
            end_stream,
            ..
        } => Seen::Headers(stream.value(), own_list(headers), *end_stream),
        Event::MemoHeaders {
            stream,
            memo,
            end_stream,
        } => Seen::Memo(stream.value(), *memo, *end_stream),
        Event::OversizedHeaders {
            stream,
            headers,
            end_stream,
        } => Seen::Oversized(stream.value(), own_list(headers), *end_stream),
        Event::Data {
            stream,
            data,
            end_stream,
        } => Seen::Data(stream.value(), data.to_vec(), *end_stream),
        Event::Trailers { stream, headers, .. } => Seen::Trailers(stream.value(), own_list(headers)),
        Event::MemoTrailers { stream, memo } => Seen::MemoTrailers(stream.value(), *memo),
        Event::Reset { stream, code } => Seen::Reset(stream.value(), *code),
        Event::Writable { stream } => Seen::Writable(stream.value()),
        Event::GoAway { last_stream, code } => Seen::GoAway(*last_stream, *code),
        Event::Pong { payload } => Seen::Pong(*payload),
        Event::PeerSettings => Seen::PeerSettings,
    }
}

/// xorshift64*: small, seeded, the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound.max(1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
