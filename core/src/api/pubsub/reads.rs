//! Subscriptions: their start, their wanted messages, and the answers written for them.

use prism_backends::{
    NamespaceId, StoreError, UnixMillis,
    api::pubsub::{Gap, MessageSink, Opened, Read, Reads, Start, Stored},
};
use prism_codec::{
    grpc::{Code, Status},
    message::{
        common::TimestampView,
        pubsub::{
            GapOut, MessageOut, ReceivedOut, StartView, SubscribeResponseWriter, SubscribeView,
            received_encoded_len, topic,
        },
    },
};
use smallvec::smallvec;

use super::{
    partition_of,
    position::{self, Numbers, Scope},
};
use crate::{
    call::{
        error,
        messages::{Asked, Chunk, Delivered, Found, Place, Wanted},
    },
    namespace::spec::NamespaceSpec,
};

/// Refuses a start that the namespace does not allow.
pub(super) fn check_start(start: Option<StartView<'_>>, spec: &NamespaceSpec) -> Result<(), Box<Status>> {
    match start {
        None | Some(StartView::Latest | StartView::Position(_)) => Ok(()),
        Some(_) if spec.replay => Ok(()),
        Some(_) => Err(error::invalid(
            "start",
            "must be START_LATEST: the namespace says replay: false",
        )),
    }
}

/// The patterns and sizes that a request asks for.
pub(super) fn wanted(namespace: NamespaceId, view: &SubscribeView<'_>) -> Wanted {
    Wanted {
        namespace,
        patterns: view.topics.iter().map(str::to_owned).collect(),
        messages_max: view.batch_messages as usize,
        bytes_max: view.batch_bytes as usize,
        share: None,
    }
}

/// Start of a request at each of this many places.
///
/// # Errors
/// Its position is not one of these.
pub(super) fn places(
    scope: &Scope,
    view: &SubscribeView<'_>,
    count: usize,
) -> Result<Vec<Place>, Box<Status>> {
    let start = match view.start {
        None => Start::Latest,
        Some(StartView::Position(bytes)) => {
            let numbers = position::decode(scope, count, bytes).ok_or_else(position_invalid)?;
            let place = |number: &u64| Place::Before(Start::Number(*number));
            return Ok(numbers.iter().map(place).collect());
        }
        Some(start) => start_of(start),
    };
    Ok(vec![Place::Before(start); count])
}

/// A start that is no position, as a store takes it.
pub(super) fn start_of(start: StartView<'_>) -> Start {
    match start {
        StartView::Latest | StartView::Position(_) => Start::Latest,
        StartView::Earliest => Start::Earliest,
        StartView::Time(time) => Start::Time(millis_ceil(time)),
    }
}

/// The first millisecond at or after a time.
fn millis_ceil(time: TimestampView) -> UnixMillis {
    let nanos = time.as_unix_nanos().unwrap_or(i64::MAX).max(0).cast_unsigned();
    UnixMillis(nanos.div_ceil(1_000_000))
}

/// Whether a subscription that begins like this must not see what was acknowledged before.
pub(super) fn begins_late(view: &SubscribeView<'_>) -> bool {
    matches!(view.start, None | Some(StartView::Latest))
}

/// Serves an ask, and moves its place on. `Err`: nothing is there from this number on; ask again
/// when messages have come.
pub(crate) fn answer(
    wanted: &Wanted,
    place: &mut Place,
    open: impl Fn(Start) -> Result<Opened, StoreError>,
    read: impl Fn(u64, &mut Sink<'_>) -> Result<Read, StoreError>,
) -> Result<Asked, u64> {
    loop {
        let found = match *place {
            Place::Before(start) => begin(place, open(start)),
            Place::Next(next) => {
                let mut message = Vec::new();
                let mut sink = Sink::new(wanted, &mut message);
                let read = read(next, &mut sink);
                let finished = sink.finish(place, read);
                finished.map(|found| found.with(message))
            }
        };
        if let Some(answer) = decided(wanted, found, *place) {
            return answer;
        }
    }
}

/// Serves an ask of a store that answers later, as [`answer`] does.
pub(crate) async fn answer_later(
    store: &impl Reads,
    wanted: &Wanted,
    place: &mut Place,
    now: UnixMillis,
) -> Result<Asked, u64> {
    let namespace = wanted.namespace;
    loop {
        let found = match *place {
            Place::Before(start) => begin(place, store.open(namespace, start, now).await),
            Place::Next(next) => {
                let mut message = Vec::new();
                let mut sink = Sink::new(wanted, &mut message);
                let read = store.read(namespace, next, now, &mut sink).await;
                let finished = sink.finish(place, read);
                finished.map(|found| found.with(message))
            }
        };
        if let Some(answer) = decided(wanted, found, *place) {
            return answer;
        }
    }
}

/// The answer to an ask, if a step has decided it.
fn decided(wanted: &Wanted, found: Result<Found, Box<Status>>, place: Place) -> Option<Result<Asked, u64>> {
    match (found, place) {
        (Ok(Found::Nothing | Found::More), Place::Next(next)) if is_progress(wanted, next) => {
            Some(Ok(Ok(Chunk {
                next,
                ..Chunk::default()
            })))
        }
        (Ok(Found::Chunk(chunk)), _) => Some(Ok(Ok(chunk))),
        (Err(status), _) => Some(Ok(Err(status))),
        (Ok(Found::Nothing), Place::Next(next)) => Some(Err(next)),
        // Messages that it does not want were passed.
        (Ok(Found::More | Found::Nothing), _) => None,
    }
}

/// Whether a member of a group is to know that it has come to this number, though there was nothing
/// for it: it goes on with more partitions from there, or its place would stay far back.
fn is_progress(wanted: &Wanted, next: u64) -> bool {
    wanted.share.is_some_and(|share| {
        let passed = share.from.map_or(0, |from| next.saturating_sub(from));
        next >= share.below || passed >= PASSED_SILENTLY_MAX
    })
}

/// Messages for others that a member of a group passes without being told.
const PASSED_SILENTLY_MAX: u64 = 1_000;

/// The first step of a subscription, which confirms it.
fn begin(place: &mut Place, opened: Result<Opened, StoreError>) -> Result<Found, Box<Status>> {
    let next = match opened.map_err(|cause| error::from_store(&cause))? {
        Opened::At(next) => next,
        Opened::Expired(oldest) => return Err(position_expired(oldest)),
        Opened::Unknown => return Err(position_invalid()),
    };
    *place = Place::Next(next);
    Ok(Found::Chunk(Chunk {
        next,
        ..Chunk::default()
    }))
}

fn gap_out(wanted: &Wanted, gap: Gap) -> GapOut {
    GapOut {
        // The missed messages may have been of any topic, and of any partition.
        messages: if wanted.patterns.is_empty() && wanted.share.is_none() {
            gap.messages
        } else {
            0
        },
        oldest_left_time: gap.oldest_left.map(timestamp),
    }
}

pub(super) fn timestamp(time: UnixMillis) -> TimestampView {
    TimestampView::from_unix_nanos(
        i64::try_from(time.0)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000),
    )
}

/// Writes the messages of an answer straight into the response.
pub(crate) struct Sink<'a> {
    wanted: &'a Wanted,
    writer: SubscribeResponseWriter<'a>,
    messages: usize,
    bytes: usize,
    delivered: Vec<Delivered>,
}

impl<'a> Sink<'a> {
    fn new(wanted: &'a Wanted, message: &'a mut Vec<u8>) -> Self {
        Self {
            wanted,
            writer: SubscribeResponseWriter::new(message),
            messages: 0,
            bytes: 0,
            delivered: Vec::new(),
        }
    }

    /// Ends a step, and moves the place on. The answer's message is still to be added.
    fn finish(self, place: &mut Place, read: Result<Read, StoreError>) -> Result<Found, Box<Status>> {
        let read = read.map_err(|cause| error::from_store(&cause))?;
        let gap = read.gap.map(|gap| gap_out(self.wanted, gap));
        self.writer.finish(&[], gap.as_ref(), false);
        // What lies beyond is passed together with other partitions.
        let below = self.wanted.share.map_or(u64::MAX, |share| share.below);
        let next = read.next.min(below);
        *place = Place::Next(next);
        Ok(match (self.messages > 0 || read.gap.is_some(), read.more) {
            (true, _) => Found::Chunk(Chunk {
                next,
                message: Vec::new(),
                messages: self.messages,
                delivered: self.delivered,
            }),
            (false, true) => Found::More,
            (false, false) => Found::Nothing,
        })
    }
}

impl Found {
    fn with(self, message: Vec<u8>) -> Self {
        match self {
            Self::Chunk(chunk) => Self::Chunk(Chunk { message, ..chunk }),
            other => other,
        }
    }
}

impl Sink<'_> {
    fn count(&mut self, partition: u16, number: u64) {
        match self.delivered.iter_mut().find(|one| one.partition == partition) {
            Some(one) => (one.messages, one.last) = (one.messages + 1, number),
            None => self.delivered.push(Delivered {
                partition,
                messages: 1,
                last: number,
            }),
        }
    }
}

impl MessageSink for Sink<'_> {
    fn wants(&mut self, name: &str) -> bool {
        let patterns = &self.wanted.patterns;
        patterns.is_empty() || patterns.iter().any(|pattern| topic::matches(pattern, name))
    }

    fn message(&mut self, message: &Stored<'_>) -> bool {
        let mut partition = None;
        if let Some(share) = self.wanted.share {
            if message.number >= share.below {
                return false;
            }
            let own = partition_of(message.topic, message.key);
            if !share.partitions.has(own) {
                return true;
            }
            partition = Some(own);
        }
        let received = ReceivedOut {
            id: message.id,
            message: MessageOut {
                topic: message.topic,
                payload: message.payload,
                ordering_key: message.key,
                attributes: message.attributes,
            },
            store_time: timestamp(message.time),
        };
        let bytes = self.bytes + received_encoded_len(&received);
        let is_full = self.messages >= self.wanted.messages_max || bytes > self.wanted.bytes_max;
        if is_full && self.messages > 0 {
            return false;
        }
        self.writer.message(&received);
        if let Some(partition) = partition {
            self.count(partition, message.number);
        }
        (self.messages, self.bytes) = (self.messages + 1, bytes);
        true
    }
}

/// Appends the position to an answer: fields may come in any order, so the end is as good a place
/// as any.
pub(super) fn append_position(message: &mut Vec<u8>, scope: &Scope, numbers: &[u64]) {
    let mut bytes = Vec::new();
    position::encode(scope, numbers, &mut bytes);
    SubscribeResponseWriter::new(message).finish(&bytes, None, false);
}

/// Numbers of a subscription that has begun at all of its places.
pub(super) fn numbers(places: &[Place]) -> Option<Numbers> {
    let mut numbers: Numbers = smallvec![];
    for place in places {
        match place {
            Place::Next(next) => numbers.push(*next),
            Place::Before(_) => return None,
        }
    }
    Some(numbers)
}

pub(super) fn position_invalid() -> Box<Status> {
    Box::new(
        Status::new(
            Code::InvalidArgument,
            "start.position: is not a position of this namespace and these topics; send one of an answer to the same \
             subscription, or begin at START_EARLIEST",
        )
        .with_reason("POSITION_INVALID", &[("field", "start.position")])
        .with_violations(&[(
            "start.position",
            "is not a position of this namespace and these topics",
        )]),
    )
}

pub(super) fn position_expired(oldest: Option<UnixMillis>) -> Box<Status> {
    let shown = oldest.map_or_else(|| "none".to_owned(), |time| (time.0 / 1_000).to_string());
    Box::new(
        Status::new(
            Code::OutOfRange,
            "start.position: retention has removed messages after it; begin at START_EARLIEST, knowing that some are missing",
        )
        .with_reason("POSITION_EXPIRED", &[("oldest_time", &shown)]),
    )
}
