//! HTTP/2 connections, server and client. The events depend neither on how the bytes were cut nor
//! on whether header blocks are remembered; the output is well-formed; memory is bounded.

use prism_codec::h2::{
    Config, Connection, ConnectionError, Event, HeaderList, Input, PREFACE, Role, StreamId,
};

use super::pieces;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Events that a driver saw. Adjoining pieces of one body are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Headers { stream: u32, fields: Fields, end: bool },
    Data { stream: u32, bytes: Vec<u8>, end: bool },
    Trailers { stream: u32, fields: Fields },
    Reset { stream: u32, code: u32 },
    Other(String),
}

/// Input: a byte that seeds the cuts, then the bytes of a client.
pub fn h2_server(input: &[u8]) {
    check(input, Config::server(), |_| {});
}

/// Input: a byte that seeds the cuts, then the bytes that a server sends to a client with three
/// requests in flight.
pub fn h2_client(input: &[u8]) {
    check(input, Config::client(), |connection| {
        let fields: [(&[u8], &[u8]); 4] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/a.B/C"),
            (b":authority", b"localhost"),
        ];
        for end in [false, true, false] {
            let stream = connection
                .send_request(&fields, end)
                .expect("the default allows 100 streams");
            if !end {
                connection
                    .send_data(stream, b"\0\0\0\0\x03abc", true)
                    .expect("the window is open");
            }
        }
    });
}

fn check(input: &[u8], config: Config, begin: impl Fn(&mut Connection)) {
    let Some((&cut, bytes)) = input.split_first() else {
        return;
    };
    // The receive window must not matter: how often it is re-opened depends on the cuts.
    let bytes = &bytes[..bytes.len().min(32 << 10)];
    let mut whole = Driver::new(config, true, &begin);
    whole.feed([bytes].into_iter());
    let mut cut_up = Driver::new(config, true, &begin);
    cut_up.feed(pieces(bytes, cut));
    let mut forgetful = Driver::new(config, false, &begin);
    forgetful.feed([bytes].into_iter());
    assert_eq!(
        (&whole.seen, whole.failed),
        (&cut_up.seen, cut_up.failed),
        "cuts do not matter"
    );
    assert_eq!(
        (&whole.seen, whole.failed),
        (&forgetful.seen, forgetful.failed),
        "memos do not matter"
    );
    assert_eq!(whole.sent, forgetful.sent, "nor do they change what is sent");
    check_output(&whole);
    check_output(&cut_up);
}

/// A driver that answers every request at once, each stream in a manner chosen by its id.
struct Driver {
    connection: Connection,
    remember: bool,
    /// Fields by the memo that stands for them.
    memos: Vec<Fields>,
    seen: Vec<Seen>,
    failed: Option<ConnectionError>,
    sent: Vec<u8>,
}

impl Driver {
    fn new(config: Config, remember: bool, begin: impl Fn(&mut Connection)) -> Self {
        let mut connection = Connection::new(config);
        begin(&mut connection);
        Self {
            connection,
            remember,
            memos: Vec::new(),
            seen: Vec::new(),
            failed: None,
            sent: Vec::new(),
        }
    }

    fn feed<'a>(&mut self, stream: impl Iterator<Item = &'a [u8]>) {
        let mut kept = Vec::new();
        for piece in stream {
            kept.extend_from_slice(piece);
            loop {
                let mut input = Input::new(&kept);
                let more = self.poll(&mut input);
                assert!(input.consumed() <= kept.len());
                let consumed = input.consumed();
                kept.drain(..consumed);
                let config = self.connection.config();
                // Only the driver bounds a server's replies: at most 40,300 bytes here, on so many
                // streams.
                let replies = config.max_concurrent_streams as usize * 41_000;
                let bound = config.output_max
                    + match config.role {
                        Role::Server => replies,
                        Role::Client => config.send_queue_max,
                    }
                    + (1 << 20);
                assert!(self.connection.queued_bytes() <= bound, "bounded memory");
                let full = !self.connection.wants_read();
                self.sent.append(self.connection.output());
                if !more {
                    return;
                }
                if !full {
                    assert!(
                        kept.len() < buffer_min(&self.connection),
                        "{} bytes without progress",
                        kept.len()
                    );
                    break;
                }
            }
        }
    }

    /// Polls until there are no more events; false when the connection is over.
    fn poll(&mut self, input: &mut Input<'_>) -> bool {
        loop {
            let noted = match self.connection.poll_event(input) {
                Ok(None) => return true,
                Ok(Some(event)) => note(event, &self.memos, &mut self.seen),
                Err(error) => {
                    self.failed = Some(error);
                    assert_eq!(
                        self.connection.poll_event(input).err(),
                        Some(error),
                        "an error stays"
                    );
                    return false;
                }
            };
            if noted.memoizable && self.remember {
                let fields = match self.seen.last() {
                    Some(Seen::Headers { fields, .. } | Seen::Trailers { fields, .. }) => fields.clone(),
                    other => panic!("only fields are remembered, not {other:?}"),
                };
                self.connection.memoize(self.memos.len() as u32);
                self.memos.push(fields);
            }
            if let Some(stream) = noted.ended {
                self.answer(stream);
            }
        }
    }

    /// Answers a request; whether the peer still waits for it does not matter here.
    fn answer(&mut self, stream: StreamId) {
        let connection = &mut self.connection;
        let _ = match stream.value() / 2 % 5 {
            0 | 1 => connection.send_grpc_reply(stream, |out| out.extend_from_slice(b"reply")),
            2 => connection.send_grpc_error(stream, 5, "not found", Some(b"details")),
            3 => connection
                .send_headers(stream, &[(b":status", b"200"), (b"x-long", &[b'y'; 300])], false)
                .and_then(|()| connection.send_data(stream, &[b'z'; 40_000], false))
                .and_then(|()| connection.send_trailers(stream, &[(b"grpc-status", b"0")])),
            _ => {
                connection.reset(stream, prism_codec::h2::ErrorCode::CANCEL);
                Ok(())
            }
        };
    }
}

/// Action that an event demands of the driver.
#[derive(Default)]
struct Noted {
    memoizable: bool,
    /// Stream that the peer has ended.
    ended: Option<StreamId>,
}

fn note(event: Event<'_, '_>, memos: &[Fields], seen: &mut Vec<Seen>) -> Noted {
    let noted = |memoizable, stream, end: bool| Noted {
        memoizable,
        ended: end.then_some(stream),
    };
    match event {
        Event::Headers {
            stream,
            headers,
            end_stream,
            memoizable,
        } => {
            seen.push(headers_of(stream, owned(headers), end_stream));
            noted(memoizable, stream, end_stream)
        }
        Event::MemoHeaders {
            stream,
            memo,
            end_stream,
        } => {
            seen.push(headers_of(stream, memos[memo as usize].clone(), end_stream));
            noted(false, stream, end_stream)
        }
        Event::Data {
            stream,
            data,
            end_stream,
        } => {
            note_data(stream, data, end_stream, seen);
            noted(false, stream, end_stream)
        }
        Event::Trailers {
            stream,
            headers,
            memoizable,
        } => {
            seen.push(Seen::Trailers {
                stream: stream.value(),
                fields: owned(headers),
            });
            noted(memoizable, stream, true)
        }
        Event::MemoTrailers { stream, memo } => {
            seen.push(Seen::Trailers {
                stream: stream.value(),
                fields: memos[memo as usize].clone(),
            });
            noted(false, stream, true)
        }
        Event::Reset { stream, code } => {
            seen.push(Seen::Reset {
                stream: stream.value(),
                code: code.0,
            });
            Noted::default()
        }
        other => {
            seen.push(Seen::Other(format!("{other:?}")));
            Noted::default()
        }
    }
}

fn headers_of(stream: StreamId, fields: Fields, end: bool) -> Seen {
    Seen::Headers {
        stream: stream.value(),
        fields,
        end,
    }
}

/// Notes data together with those before them: how they are cut does not matter.
fn note_data(stream: StreamId, data: &[u8], end_stream: bool, seen: &mut Vec<Seen>) {
    assert!(end_stream || !data.is_empty());
    match seen.last_mut() {
        Some(Seen::Data {
            stream: last,
            bytes,
            end,
        }) if *last == stream.value() => {
            assert!(!*end, "nothing follows the end of a stream");
            bytes.extend_from_slice(data);
            *end = end_stream;
        }
        _ => seen.push(Seen::Data {
            stream: stream.value(),
            bytes: data.to_vec(),
            end: end_stream,
        }),
    }
}

fn owned(list: &HeaderList) -> Fields {
    list.iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// Checks the bytes sent: whole frames, header blocks that an independent decoder reads, and a
/// GOAWAY at the end of a failed connection.
fn check_output(driver: &Driver) {
    let mut rest = driver
        .sent
        .strip_prefix(PREFACE.as_slice())
        .unwrap_or(&driver.sent);
    let mut hpack = fluke_hpack::Decoder::new();
    let (mut block, mut last) = (Vec::new(), None);
    while !rest.is_empty() {
        let (header, after) = rest.split_first_chunk::<9>().expect("whole frame headers");
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let (payload, after) = after.split_at(u32::from_be_bytes([0, a, b, c]) as usize);
        rest = after;
        assert!(kind <= 9 && kind != 5 && stream[0] < 0x80, "frame type {kind}");
        assert!(
            block.is_empty() || kind == 9,
            "nothing stands between HEADERS and CONTINUATION"
        );
        if kind == 1 || kind == 9 {
            block.extend_from_slice(payload);
            if flags & 0x4 != 0 {
                hpack.decode(&block).expect("legal header blocks");
                block.clear();
            }
        }
        last = Some((kind, payload));
    }
    assert!(block.is_empty());
    if let Some(error) = driver.failed {
        let (kind, payload) = last.expect("something was sent");
        assert_eq!(
            (kind, &payload[4..8]),
            (7, error.code.0.to_be_bytes().as_slice()),
            "GOAWAY comes last"
        );
    }
}

fn buffer_min(connection: &Connection) -> usize {
    connection.config().receive_buffer_min()
}
