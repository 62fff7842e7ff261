//! One subscriber: a stream of everything, read as fast as it comes.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{atomic::Ordering, mpsc::Sender},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use prism_codec::{
    grpc::Deframer,
    h2::{self, Event, Input},
    message::pubsub::{StartView, SubscribeOut, SubscribeResponseView, encode_subscribe_request},
    method::PubSubMethod,
};

use super::{Common, ledger::Seen, publisher::patience};
use crate::{messages::Stamp, random::Random, socket::Socket, tally::latency_histogram};

/// Longest wait for bytes before looking whether the load has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time until the subscription stands.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after the last acknowledged message in which one that comes twice is still seen.
const AFTERWARDS: Duration = Duration::from_millis(200);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Pause between two attempts to subscribe again.
const RETRY: Duration = Duration::from_millis(20);
/// Faults that are described.
const WRONG_MAX: usize = 10;

/// Messages that reached one subscriber.
pub(super) struct Delivered {
    pub(super) seen: Seen,
    /// Messages that were due in the measured time.
    pub(super) measured: u64,
    /// Times from when those were due, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Messages that the server says are missing.
    pub(super) gaps: u64,
    /// Why the stream ended, if it did.
    pub(super) ended: Option<String>,
    /// How often it was opened again at its position.
    pub(super) resumed: u64,
    /// Why it ended last, when the server is killed meanwhile.
    pub(super) last_end: Option<String>,
    /// Whether it was not to read, so that nothing can be missing.
    pub(super) is_stalled: bool,
    /// Messages that are not what was published, and descriptions of the first of them.
    pub(super) wrong: u64,
    pub(super) wrong_examples: Vec<String>,
}

impl Delivered {
    fn new(common: &Common, is_stalled: bool) -> Self {
        Self {
            seen: Seen::new(common.load.publishers, common.load.keys),
            measured: 0,
            latency: latency_histogram(),
            gaps: 0,
            ended: None,
            resumed: 0,
            last_end: None,
            is_stalled,
            wrong: 0,
            wrong_examples: Vec::new(),
        }
    }

    fn note_wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.wrong_examples.len() < WRONG_MAX {
            self.wrong_examples.push(what());
        }
    }
}

/// Subscribes, says that the subscription stands, and reads until everything has come. Those after
/// the `subscribers` of the load stop reading then.
pub(super) fn run(common: &Common, number: u32, ready: Sender<()>) -> Result<Delivered, String> {
    let failed = |error: io::Error| format!("a subscriber: {error}");
    let mut stream = Stream::open(common, None).map_err(failed)?;
    let mut delivered = Delivered::new(common, number >= common.load.subscribers);
    let begun = Instant::now();
    let mut position = Vec::new();
    while position.is_empty() {
        match stream.read(|answer| take(common, &mut delivered, &mut position, answer)) {
            Ok(None) => {}
            Ok(Some(why)) => return Err(format!("a subscriber: {why}")),
            Err(error) => return Err(failed(error)),
        }
        if begun.elapsed() > PATIENCE {
            return Err("a subscriber: the subscription was not confirmed".to_owned());
        }
    }
    // The load waits for it, or for its end.
    let _ = ready.send(());
    drop(ready);
    let mut random = Random::new(common.load.seed, u64::from(number) * 2 + 1);
    // Of the end: when it was first known that no more will be published, and that all has come.
    let (mut last_call, mut complete) = (None, None);
    loop {
        if delivered.is_stalled {
            std::thread::sleep(LOOK);
        } else {
            let mut answers = 0;
            let ended = stream.read(|answer| {
                answers += 1;
                take(common, &mut delivered, &mut position, answer)
            });
            let drops = answers > 0 && random.chance(common.load.faults.1);
            let why = match ended {
                Ok(None) if drops => "dropped on purpose".to_owned(),
                Ok(None) => String::new(),
                Ok(Some(why)) => why,
                Err(error) => error.to_string(),
            };
            if !why.is_empty() {
                if !drops && !common.load.crashes {
                    delivered.ended = Some(why);
                    return Ok(delivered);
                }
                if !drops {
                    std::thread::sleep(RETRY);
                    delivered.last_end = Some(why.clone());
                }
                stream = match Stream::resume(common, &position) {
                    Ok(stream) => stream,
                    Err(error) => {
                        delivered.ended = Some(format!("{why}; then {error}"));
                        return Ok(delivered);
                    }
                };
                delivered.resumed += 1;
            }
        }
        let Some(acknowledged) = common.acknowledged.get() else {
            continue;
        };
        let now = Instant::now();
        if complete.is_none() && (delivered.is_stalled || delivered.seen.has_all(acknowledged)) {
            complete = Some(now);
        }
        let last_call = *last_call.get_or_insert(now);
        let is_complete = complete.is_some_and(|at| now - at > AFTERWARDS);
        if is_complete || now - last_call > common.load.drain {
            return Ok(delivered);
        }
    }
}

/// Takes in an answer: its messages, and its position, after which the subscription can go on.
fn take(
    common: &Common,
    delivered: &mut Delivered,
    position: &mut Vec<u8>,
    answer: &[u8],
) -> Result<(), String> {
    let view = SubscribeResponseView::decode(answer).map_err(|error| error.to_string())?;
    if let Some(gap) = view.gap {
        delivered.gaps += gap.messages.max(1);
    }
    let now_ns = common.now_ns();
    for received in view.messages.iter() {
        let Some((stamp, payload)) = received
            .message
            .and_then(|message| Some((Stamp::of(message.payload)?, message.payload)))
        else {
            continue;
        };
        if stamp.run != common.load.run {
            continue;
        }
        if !stamp.is_whole(payload) || payload.len() != common.load.payload_bytes {
            delivered.note_wrong(|| format!("a damaged message: {stamp:?}, {} bytes", payload.len()));
            continue;
        }
        if !common.ids.note(stamp.sender, stamp.number, received.id) {
            delivered.note_wrong(|| format!("a message with the id of another: {stamp:?}"));
        }
        if !delivered.seen.take(stamp.sender, stamp.number) {
            continue;
        }
        common.delivered.fetch_add(1, Ordering::Relaxed);
        if common.is_measured(stamp.due_ns) {
            delivered.measured += 1;
            delivered
                .latency
                .saturating_record(now_ns.saturating_sub(stamp.due_ns));
        }
    }
    position.clear();
    position.extend_from_slice(view.position);
    Ok(())
}

/// The connection of a subscriber.
struct Stream {
    socket: Socket,
    h2: h2::Connection,
    deframer: Deframer,
    /// Received bytes, those of an incomplete frame at the front.
    buffer: Vec<u8>,
    filled: usize,
}

impl Stream {
    /// Subscribes again after a position, until it succeeds or patience is over.
    fn resume(common: &Common, position: &[u8]) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::open(common, Some(position)) {
                Ok(stream) => return Ok(stream),
                Err(error) if begun.elapsed() > patience(common) || common.is_stopped() => return Err(error),
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    fn open(common: &Common, position: Option<&[u8]>) -> io::Result<Self> {
        let plan = &common.load.receiving;
        let socket = TcpStream::connect_timeout(&plan.address, PATIENCE)?;
        socket.set_read_timeout(Some(LOOK))?;
        socket.set_nodelay(true)?;
        let mut h2 = h2::Connection::new(h2::Config::client());
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", plan.scheme()),
            (b":path", PubSubMethod::Subscribe.spec().path.as_bytes()),
            (b":authority", plan.authority.as_bytes()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ];
        let more = plan.headers.iter();
        fields.extend(more.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let refused = |error| io::Error::other(format!("the request can not be sent: {error}"));
        let id = h2.send_request(&fields, false).map_err(refused)?;
        let request = SubscribeOut {
            namespace: &common.load.namespace,
            start: Some(position.map_or(StartView::Latest, StartView::Position)),
            ..SubscribeOut::default()
        };
        h2.send_grpc_message(id, true, |out| encode_subscribe_request(out, &request))
            .map_err(refused)?;
        let buffer = vec![0; (64 << 10).max(2 * h2::Config::client().receive_buffer_min())];
        Ok(Self {
            socket: Socket::new(socket, plan.tls.as_ref())?,
            h2,
            deframer: Deframer::new(ANSWER_BYTES_MAX),
            buffer,
            filled: 0,
        })
    }

    /// Reads what has come, waiting for it a while. Returns why the stream ended, if it did.
    fn read(&mut self, mut answer: impl FnMut(&[u8]) -> Result<(), String>) -> io::Result<Option<String>> {
        self.socket.write_all(self.h2.output())?;
        self.h2.output().clear();
        match self.socket.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Ok(Some("the connection was closed".to_owned())),
            Ok(count) => self.filled += count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let mut input = Input::new(&self.buffer[..self.filled]);
        let ended = loop {
            match self
                .h2
                .poll_event(&mut input)
                .map_err(|error| io::Error::other(error.to_string()))?
            {
                None => break None,
                Some(Event::Data { mut data, .. }) => {
                    let wrong = |error: String| io::Error::other(error);
                    while let Some(frame) = self
                        .deframer
                        .next(&mut data)
                        .map_err(|error| wrong(error.to_string()))?
                    {
                        answer(frame.bytes).map_err(wrong)?;
                    }
                }
                Some(
                    Event::Headers {
                        headers,
                        end_stream: true,
                        ..
                    }
                    | Event::Trailers { headers, .. },
                ) => {
                    let text = |name: &[u8]| {
                        let value = headers.get(name).unwrap_or_default();
                        String::from_utf8_lossy(value).into_owned()
                    };
                    break Some(format!(
                        "status {}: {}",
                        text(b"grpc-status"),
                        text(b"grpc-message")
                    ));
                }
                Some(Event::Reset { code, .. }) => break Some(format!("the stream was reset with {code}")),
                Some(_) => {}
            }
        };
        let consumed = input.consumed();
        self.buffer.copy_within(consumed..self.filled, 0);
        self.filled -= consumed;
        Ok(ended)
    }
}
