//! A member of a group as the source of a stream: it keeps its lease, asks for the messages of the
//! partitions that it holds, and gives up those that others are to have.
//!
//! ```text
//!   join ─┬─ the group is there ───────────────────────────┬─> holds partitions ─> messages
//!         └─ it is not: find the start at each place, join ─┘        │
//!               renewals, which wait where the group is kept <───────┘
//! ```
//!
//! A member has one ask under way at each place that numbers messages: for its partitions that are
//! least far, up to the number where the next ones are. So what is oldest comes first, and
//! partitions that were far apart are read together once they have met. What it may not deliver,
//! because others hold it, its lease is over or its client has too much that is not committed, is
//! dropped and asked for again.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use prism_backends::api::{
    groups::{Done, Held, Outcome, Report, Terms},
    pubsub::Start,
};
use prism_codec::{
    grpc::{Code, Status},
    message::pubsub::{StartView, SubscribeResponseWriter, SubscribeView},
};

use super::{
    GROUPS_KEY, PARTITION_KEYS, PARTITIONS,
    groups::{self, encode_position, refusal},
    position, reads,
    subscription::places_of,
};
use crate::{
    api::stream::{Asked, Opened, Source, Taken},
    call::{
        error,
        job::{Answer, Work},
        messages::{
            Chunk, GroupAnswer, GroupAsk, GroupWait, MemberAct, Partitions, Place, Renewal, Share, Wanted,
        },
        owner::owner_of,
    },
    namespace::spec::{Home, NamespaceSpec},
};

/// Messages that a member may have that are not committed, unless it says so.
const UNCOMMITTED_DEFAULT: u32 = 1_000;

/// Opens the subscription of a member.
///
/// # Errors
/// Its position is not one of these messages; the store keeps no groups.
pub(super) fn open(
    view: &SubscribeView<'_>,
    spec: &NamespaceSpec,
    shards: u16,
) -> Result<Opened, Box<Status>> {
    let terms = spec.groups.ok_or_else(refusal::no_groups)?;
    let scope = position::scope(spec.id, spec.home, view.topics.iter());
    let places = places_of(spec.home, shards);
    let of_group = groups::Scope::new(spec.id, spec.home, view.group);
    let reader_of: [usize; PARTITIONS] = std::array::from_fn(|partition| {
        // A place holds the messages of the partitions that it owns.
        let owner = owner_of(spec.id, PARTITION_KEYS[partition], places.len() as u16);
        usize::from(owner)
    });
    let starts = match view.start {
        Some(StartView::Position(bytes)) if let Some(own) = groups::decode_position(&of_group, bytes) => {
            starts_of(&own, &reader_of, places.len())
        }
        _ => reads::places(&scope, view, places.len())?,
    };
    let reader = |(to, start)| Reader {
        to,
        start,
        asked: None,
        number: 0,
    };
    let uncommitted_max = match view.uncommitted_messages_max {
        0 => UNCOMMITTED_DEFAULT,
        max => max,
    };
    let timeout = view.commit_timeout.and_then(|timeout| timeout.as_millis_ceil());
    let source = Member {
        wanted: reads::wanted(spec.id, view),
        scope: of_group,
        topics_digest: scope.topics,
        group: groups::shared(view.group),
        number: RandomState::new().hash_one(view.group) | 1,
        terms,
        keeper: match spec.home {
            Home::Shards => Asked::Shard(owner_of(spec.id, GROUPS_KEY, shards)),
            Home::Store(store) => Asked::Writer(store),
        },
        readers: places.into_iter().zip(starts).map(reader).collect(),
        phase: Phase::Joining,
        known: None,
        lease: Lease::new(),
        held: Vec::new(),
        uncommitted: 0,
        uncommitted_max: uncommitted_max as usize,
        is_paused: false,
        commit_timeout: timeout.map(Duration::from_millis),
        unsettled_since: Instant::now(),
        reader_of,
    };
    Ok(Opened {
        source: Box::new(source),
        after_log: reads::begins_late(view),
    })
}

/// Starts of a group that was deleted after one of its members got this position: it begins with
/// the first message that was not handled at each place.
fn starts_of(own: &groups::Place, reader_of: &[usize; PARTITIONS], places: usize) -> Vec<Place> {
    let start = |place| {
        let at = |done: &&Done| reader_of.get(usize::from(done.held.partition)) == Some(&place);
        let first = own.places.iter().filter(at).map(|done| done.next).min();
        Place::Before(first.map_or(Start::Earliest, Start::Number))
    };
    (0..places).map(start).collect()
}

/// The state of a member.
struct Member {
    wanted: Wanted,
    scope: groups::Scope,
    topics_digest: u64,
    group: Arc<str>,
    number: u64,
    terms: Terms,
    /// Whoever keeps the group.
    keeper: Asked,
    /// The places that number messages by themselves.
    readers: Vec<Reader>,
    /// The reader of each partition.
    reader_of: [usize; PARTITIONS],
    phase: Phase,
    /// Life, shape and moves of the group, as far as they are known.
    known: Option<(u64, u64, u64)>,
    lease: Lease,
    held: Vec<Holding>,
    uncommitted: usize,
    uncommitted_max: usize,
    /// Whether the client knows that nothing comes until it commits.
    is_paused: bool,
    commit_timeout: Option<Duration>,
    /// Since when the client has had messages and committed none of them.
    unsettled_since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is known of the group.
    Joining,
    /// There is none: the start of a new one is looked for.
    Starting,
    /// It is a member.
    Standing,
}

/// The asks for the lease.
struct Lease {
    /// Number of the last ask.
    asked: u32,
    /// When the ask that is under way was made.
    under_way: Option<Instant>,
    /// Another ask is to take its place, which is answered at once.
    is_urgent: bool,
    /// When the last one that was answered was made.
    renewed: Instant,
}

impl Lease {
    fn new() -> Self {
        Self {
            asked: 0,
            under_way: None,
            is_urgent: false,
            renewed: Instant::now(),
        }
    }
}

/// A place that numbers messages, and the ask that is under way there.
struct Reader {
    to: Asked,
    /// Where a new group begins.
    start: Place,
    asked: Option<AskUnderWay>,
    /// Number of the last ask, of those that fit.
    number: u8,
}

#[derive(Clone, Copy)]
struct AskUnderWay {
    partitions: Partitions,
    /// The answer is not wanted any more: take it back.
    is_stale: bool,
}

/// A partition that the member holds.
struct Holding {
    held: Held,
    /// Place of its next message.
    place: Place,
    /// The group's place, as far as it is known.
    committed: Option<u64>,
    /// Messages that were delivered, by answer: the number of the last, and how many.
    delivered: VecDeque<(u64, usize)>,
    /// Whether another member waits for it.
    give_up: bool,
}

impl Holding {
    fn uncommitted(&self) -> usize {
        self.delivered.iter().map(|(_, count)| count).sum()
    }

    /// The place, if nothing before it is left to commit and the group does not know that yet.
    fn passed(&self) -> Option<Done> {
        match self.place {
            Place::Next(next) if self.delivered.is_empty() && self.committed.is_none_or(|at| at < next) => {
                Some(Done {
                    held: self.held,
                    next,
                })
            }
            _ => None,
        }
    }
}

impl Member {
    /// Whether it still holds what it held when its lease was last renewed.
    fn is_live(&self) -> bool {
        self.lease.renewed.elapsed() < Duration::from_millis(self.terms.lease_ms)
    }

    fn renewal(&self, making: Option<Vec<Start>>, is_urgent: bool) -> Renewal {
        let is_given = |one: &&Holding| one.give_up && one.delivered.is_empty();
        let has_commits_to_see = self.is_full() || self.held.iter().any(|one| one.give_up);
        let wait = |(_, shape, moves): (u64, u64, u64)| GroupWait {
            time: self.pause(),
            shape,
            moves: has_commits_to_see.then_some(moves),
        };
        Renewal {
            topics: self.wanted.patterns.clone(),
            generation: self.known.map(|(generation, ..)| generation),
            making,
            released: self.held.iter().filter(is_given).map(|one| one.held).collect(),
            passed: self.held.iter().filter_map(Holding::passed).collect(),
            wait: self.known.filter(|_| !is_urgent).map(wait),
        }
    }

    /// Time until the next sign of life.
    fn pause(&self) -> Duration {
        let renewal = Duration::from_millis(self.terms.lease_ms * 3 / 10);
        match self.commit_timeout {
            Some(timeout) if self.uncommitted > 0 => {
                renewal.min(timeout.saturating_sub(self.unsettled_since.elapsed()))
            }
            _ => renewal,
        }
    }

    fn is_full(&self) -> bool {
        self.uncommitted >= self.uncommitted_max
    }

    /// The start of a new group in each partition, once all places have said theirs.
    fn starts(&self) -> Option<Vec<Start>> {
        let start = |partition: usize| match self.readers[self.reader_of[partition]].start {
            Place::Next(next) => Some(Start::Number(next)),
            Place::Before(_) => None,
        };
        (0..PARTITIONS).map(start).collect()
    }

    fn take_lease(&mut self, answer: GroupAnswer) -> Result<Taken, Box<Status>> {
        if answer.number != self.lease.asked {
            return Ok(Taken::Nothing);
        }
        let Some(asked) = self.lease.under_way.take() else {
            return Ok(Taken::Nothing);
        };
        match answer.outcome? {
            Outcome::Unmade => {
                self.phase = Phase::Starting;
                Ok(Taken::Nothing)
            }
            Outcome::Renewed(report) => {
                self.lease.renewed = asked;
                self.reconcile(report)
            }
            other => {
                refusal::judge(&self.group, other)?;
                Ok(Taken::Nothing)
            }
        }
    }

    /// Takes in what the member holds now.
    fn reconcile(&mut self, report: Report) -> Result<Taken, Box<Status>> {
        self.known = Some((report.generation, report.shape, report.moves));
        let before = mem::take(&mut self.held);
        let mut before = before.into_iter().peekable();
        let mut has_moved = false;
        for new in report.held {
            // Both are in the order of their partitions.
            while let Some(lost) = before.next_if(|one| one.held.partition < new.held.partition) {
                self.stop(lost.held.partition);
            }
            let known = before.next_if(|one| one.held.partition == new.held.partition);
            let same = known.filter(|one| one.held == new.held);
            let mut holding = match same {
                Some(same) => same,
                None => {
                    self.stop(new.held.partition);
                    Holding {
                        held: new.held,
                        place: match new.place {
                            Start::Number(next) => Place::Next(next),
                            other => Place::Before(other),
                        },
                        committed: None,
                        delivered: VecDeque::new(),
                        give_up: false,
                    }
                }
            };
            if let Start::Number(committed) = new.place {
                has_moved |= holding.committed.is_some_and(|before| before < committed);
                holding.committed = Some(committed);
                while holding
                    .delivered
                    .front()
                    .is_some_and(|(last, _)| *last < committed)
                {
                    holding.delivered.pop_front();
                }
                if matches!(holding.place, Place::Next(next) if next < committed) {
                    // Committed by a position of another stream.
                    holding.place = Place::Next(committed);
                    self.stop(new.held.partition);
                }
            }
            if holding.give_up != new.give_up {
                holding.give_up = new.give_up;
                self.stop(new.held.partition);
            }
            self.held.push(holding);
        }
        for lost in before {
            self.stop(lost.held.partition);
        }
        self.uncommitted = self.held.iter().map(Holding::uncommitted).sum();
        if has_moved || self.uncommitted == 0 {
            self.unsettled_since = Instant::now();
        }
        if let Some(timeout) = self.commit_timeout
            && self.unsettled_since.elapsed() >= timeout
        {
            return Err(refusal::commit_timeout(&self.group, timeout));
        }
        if self.phase != Phase::Standing {
            self.phase = Phase::Standing;
            return Ok(Taken::Message(self.answer(Vec::new(), false)));
        }
        let is_full = self.is_full();
        let was_paused = mem::replace(&mut self.is_paused, is_full);
        Ok(match self.is_paused && !was_paused {
            true => Taken::Message(self.answer(Vec::new(), true)),
            false => Taken::Nothing,
        })
    }

    /// Notes that what is asked for this partition is not wanted any more, or not in this way.
    fn stop(&mut self, partition: u16) {
        let reader = self.reader_of.get(usize::from(partition));
        if let Some(reader) = reader.and_then(|reader| self.readers.get_mut(*reader))
            && let Some(asked) = &mut reader.asked
        {
            asked.is_stale = true;
        }
    }

    fn take_chunk(&mut self, number: u16, chunk: Chunk) -> Taken {
        let [index, serial] = number.to_be_bytes();
        let index = usize::from(index);
        let Some(reader) = self.readers.get_mut(index) else {
            return Taken::Nothing;
        };
        if reader.number != serial {
            return Taken::Nothing;
        }
        let Some(asked) = reader.asked.take() else {
            return Taken::Nothing;
        };
        if self.phase != Phase::Standing {
            reader.start = Place::Next(chunk.next);
            return Taken::Nothing;
        }
        let room = self.uncommitted_max.saturating_sub(self.uncommitted);
        if asked.is_stale || chunk.messages > room || !self.is_live() {
            // It is asked for again when it may come.
            return Taken::Nothing;
        }
        for holding in &mut self.held {
            let partition = holding.held.partition;
            if !asked.partitions.has(partition) {
                continue;
            }
            holding.place = Place::Next(chunk.next);
            if let Some(delivered) = chunk.delivered.iter().find(|one| one.partition == partition) {
                holding
                    .delivered
                    .push_back((delivered.last, delivered.messages as usize));
            }
        }
        if chunk.messages > 0 && self.uncommitted == 0 {
            self.unsettled_since = Instant::now();
            // The ask that waits was made when there was nothing to commit.
            self.lease.is_urgent |= self.commit_timeout.is_some();
        }
        self.uncommitted += chunk.messages;
        // What was committed in the meantime may make room.
        self.lease.is_urgent |= self.is_full();
        match chunk.message.is_empty() {
            true => Taken::Nothing,
            false => Taken::Message(self.answer(chunk.message, false)),
        }
    }

    /// An answer with its position.
    fn answer(&self, mut message: Vec<u8>, is_waiting: bool) -> Vec<u8> {
        let done = |one: &Holding| match one.place {
            Place::Next(next) => Some(Done { held: one.held, next }),
            Place::Before(_) => None,
        };
        let place = groups::Place {
            topics: self.topics_digest,
            generation: self.known.map_or(0, |(generation, ..)| generation),
            places: self.held.iter().filter_map(done).collect(),
        };
        let mut bytes = Vec::new();
        encode_position(&self.scope, &place, &mut bytes);
        SubscribeResponseWriter::new(&mut message).finish(&bytes, None, is_waiting);
        message
    }

    /// The ask for the oldest of the messages that a place may deliver.
    fn ask_of(&self, index: usize) -> Option<(Place, Wanted, Partitions)> {
        let is_own =
            |one: &&Holding| !one.give_up && self.reader_of[usize::from(one.held.partition)] == index;
        let own = || self.held.iter().filter(is_own);
        // A place that is not known yet comes first.
        let order = |place: &Place| match place {
            Place::Before(_) => 0,
            Place::Next(next) => *next,
        };
        let place = own().map(|one| one.place).min_by_key(order)?;
        let together = own().filter(|one| one.place == place);
        let partitions = together.fold(Partitions::default(), |all, one| all.with(one.held.partition));
        let further = own().map(|one| one.place).filter(|other| *other != place);
        let below = further
            .map(|other| order(&other))
            .filter(|other| *other > order(&place));
        let wanted = Wanted {
            patterns: self.wanted.patterns.clone(),
            messages_max: self
                .wanted
                .messages_max
                .min(self.uncommitted_max - self.uncommitted),
            share: Some(Share {
                partitions,
                from: match place {
                    Place::Before(_) => None,
                    Place::Next(next) => Some(next),
                },
                below: below.min().unwrap_or(u64::MAX),
            }),
            ..self.wanted
        };
        Some((place, wanted, partitions))
    }
}

impl Source for Member {
    fn is_endless(&self) -> bool {
        true
    }

    fn wants_chunk(&self) -> bool {
        match self.phase {
            Phase::Joining => true,
            Phase::Starting | Phase::Standing => self.readers.iter().any(|reader| reader.asked.is_none()),
        }
    }

    fn awaits_chunk(&self) -> bool {
        false
    }

    fn next_upkeep(&mut self) -> Option<(Asked, Work)> {
        let is_urgent = mem::take(&mut self.lease.is_urgent);
        if self.lease.under_way.is_some() && !is_urgent {
            return None;
        }
        let making = match self.phase {
            Phase::Starting => Some(self.starts()?),
            Phase::Joining | Phase::Standing => None,
        };
        let renewal = self.renewal(making, is_urgent);
        self.lease.asked = self.lease.asked.wrapping_add(1);
        self.lease.under_way = Some(Instant::now());
        let ask = GroupAsk {
            namespace: self.wanted.namespace,
            group: self.group.clone(),
            member: self.number,
            terms: self.terms,
            act: MemberAct::Renew(renewal),
            number: self.lease.asked,
        };
        Some((self.keeper, Work::Group(Box::new(ask))))
    }

    fn next_ask(&mut self) -> Option<(Asked, Work)> {
        if self.phase == Phase::Joining {
            return None;
        }
        for index in 0..self.readers.len() {
            let reader = &mut self.readers[index];
            match reader.asked {
                Some(AskUnderWay { is_stale: true, .. }) => {
                    reader.asked = None;
                    let namespace = self.wanted.namespace;
                    return Some((reader.to, Work::TakeBack { namespace }));
                }
                Some(_) => continue,
                None => {}
            }
            let (place, wanted, partitions) = match self.phase {
                Phase::Starting => match reader.start {
                    Place::Next(_) => continue,
                    start => {
                        let patterns = self.wanted.patterns.clone();
                        (
                            start,
                            Wanted {
                                patterns,
                                ..self.wanted
                            },
                            Partitions::default(),
                        )
                    }
                },
                _ if self.is_full() || !self.is_live() => return None,
                _ => match self.ask_of(index) {
                    Some(ask) => ask,
                    None => continue,
                },
            };
            let reader = &mut self.readers[index];
            reader.number = reader.number.wrapping_add(1);
            reader.asked = Some(AskUnderWay {
                partitions,
                is_stale: false,
            });
            let work = Work::Messages {
                wanted: Arc::new(wanted),
                place,
                // There are at most 256 shards.
                number: u16::from_be_bytes([index as u8, reader.number]),
            };
            return Some((reader.to, work));
        }
        None
    }

    fn waiting(&self, each: &mut dyn FnMut(Asked)) {
        let asked = self.readers.iter().filter(|reader| reader.asked.is_some());
        asked.for_each(|reader| each(reader.to));
    }

    fn farewell(&mut self) -> Option<(Asked, Work)> {
        let ask = GroupAsk {
            namespace: self.wanted.namespace,
            group: self.group.clone(),
            member: self.number,
            terms: self.terms,
            act: MemberAct::Leave,
            number: 0,
        };
        Some((self.keeper, Work::Group(Box::new(ask))))
    }

    fn take(&mut self, answer: Answer) -> Result<Taken, Box<Status>> {
        match answer {
            Answer::Group(answer) => self.take_lease(*answer),
            Answer::Messages { number, chunk } => {
                // Of an ask that was taken back, an error counts as well: the namespace is gone.
                let chunk = chunk?;
                Ok(self.take_chunk(number, chunk))
            }
            _ => Err(error::status(
                Code::Internal,
                "a member of a group was answered with something else",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
