//! PubSub in memory: for each namespace a ring of messages, which drops the oldest when it is full,
//! and the ids of the last minutes. One instance belongs to one shard; its plain methods do not
//! block and need no future.

mod groups;
mod heads;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map::Entry};

use rustc_hash::FxBuildHasher;

pub use self::heads::MessageHeads;

use self::heads::Head;
use crate::api::groups::{COUNTED_MAX, Group, GroupNews};
use crate::api::pubsub::{
    Gap, ID_WINDOW_MS, Message, MessageSink, Opened, Outcome, Read, Reads, STEP_MESSAGES_MAX, Start, Stored,
    Sweep, Upkeep, Writes,
};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::mutation::is_expired;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};

/// Most bytes of one namespace's messages; above it the oldest are dropped.
pub const RING_BYTES_MAX: usize = 64 << 20;

/// Bytes that a message takes in addition to its parts.
const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// Most ids that are remembered of one namespace; above it the oldest are forgotten.
const IDS_MAX: usize = 500_000;

/// Promises of memory for PubSub.
pub const PUBSUB: Offer = Offer {
    api: Api::PubSub,
    acked: Acked::Volatile,
    replay: Replay::Idempotent,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::REPLAY)
        .and(Features::GROUPS),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: false,
};

/// The messages of all namespaces of one shard.
#[derive(Debug)]
pub struct Messages {
    rings: HashMap<NamespaceId, Ring, FxBuildHasher>,
    /// In order of creation, for the sweep.
    order: Vec<NamespaceId>,
    burnt: HashSet<NamespaceId, FxBuildHasher>,
    /// Groups of subscribers of the namespaces whose groups this shard keeps, by name.
    pub(super) groups: HashMap<NamespaceId, BTreeMap<String, Group>, FxBuildHasher>,
    pub(super) group_news: GroupNews,
    pub(super) heads: MessageHeads,
    bytes_max: usize,
    sweep_at: usize,
}

/// The messages of one namespace.
#[derive(Debug, Default)]
pub(super) struct Ring {
    messages: VecDeque<Kept>,
    /// Number of the first message, or of the next one if there is none.
    first: u64,
    bytes: usize,
    /// Time of the last message ever stored.
    time: UnixMillisOrZero,
    ids: HashMap<Box<[u8]>, RememberedId, FxBuildHasher>,
    /// Ids in the order in which they may be forgotten.
    forget: VecDeque<(UnixMillis, Box<[u8]>)>,
    /// Numbers of the next messages, where other shards see them.
    head: Head,
}

/// A moment that starts at 1970.
#[derive(Clone, Copy, Debug)]
struct UnixMillisOrZero(UnixMillis);

impl Default for UnixMillisOrZero {
    fn default() -> Self {
        UnixMillisOrZero(UnixMillis(0))
    }
}

#[derive(Clone, Copy, Debug)]
struct RememberedId {
    digest: Option<u64>,
    forget_at: UnixMillis,
}

/// A message with all its parts in one piece: id, topic, key, attributes, payload.
#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    /// Ends of the first four parts.
    ends: [u32; 4],
    partition: u16,
    time: UnixMillis,
    expires_at: Option<UnixMillis>,
}

impl Kept {
    fn new(message: &Message<'_>, time: UnixMillis) -> Kept {
        let parts = [
            message.id,
            message.topic.as_bytes(),
            message.key.as_bytes(),
            message.attributes,
            message.payload,
        ];
        let mut ends = [0; 4];
        let mut end = 0;
        for (slot, part) in ends.iter_mut().zip(parts) {
            end += part.len() as u32;
            *slot = end;
        }
        Kept {
            bytes: parts.concat().into(),
            ends,
            partition: message.partition,
            time,
            expires_at: message.expires_at,
        }
    }

    fn part(&self, number: usize) -> &[u8] {
        let start = number
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize);
        let end = self
            .ends
            .get(number)
            .map_or(self.bytes.len(), |end| *end as usize);
        &self.bytes[start..end]
    }

    /// A part that was a text when it was stored.
    fn text(&self, number: usize) -> &str {
        std::str::from_utf8(self.part(number)).unwrap_or_default()
    }

    fn size(&self) -> usize {
        self.bytes.len() + MESSAGE_OVERHEAD_BYTES
    }
}

impl Ring {
    fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// Index of the first message that has not expired.
    fn first_live(&self, now: UnixMillis) -> usize {
        self.messages
            .partition_point(|message| is_expired(message.expires_at, now))
    }

    fn pop_front(&mut self) {
        if let Some(gone) = self.messages.pop_front() {
            self.bytes -= gone.size();
            self.first += 1;
        }
    }

    fn publish(&mut self, message: &Message<'_>, bytes_max: usize) -> Outcome {
        if let Err(cause) = message.check() {
            return Outcome::Refused(cause);
        }
        if let Some(known) = self.ids.get(message.id)
            && known.forget_at > message.at
        {
            return match known.digest == message.digest {
                true => Outcome::Repeat,
                false => Outcome::Refused(StoreError::TokenReused),
            };
        }
        let forget_at = message.at.plus(ID_WINDOW_MS);
        let id: Box<[u8]> = message.id.into();
        self.ids.insert(
            id.clone(),
            RememberedId {
                digest: message.digest,
                forget_at,
            },
        );
        self.forget.push_back((forget_at, id));
        while self.forget.len() > IDS_MAX {
            self.forget_first();
        }
        self.time = UnixMillisOrZero(self.time.0.max(message.at));
        let kept = Kept::new(message, self.time.0);
        self.bytes += kept.size();
        self.messages.push_back(kept);
        // The newest stays, whatever its size.
        while self.bytes > bytes_max && self.messages.len() > 1 {
            self.pop_front();
        }
        self.head.move_to(message.partition, self.next());
        Outcome::Published
    }

    fn forget_first(&mut self) {
        if let Some((forget_at, id)) = self.forget.pop_front()
            && self
                .ids
                .get(&id)
                .is_some_and(|known| known.forget_at <= forget_at)
        {
            self.ids.remove(&id);
        }
    }

    fn open(&self, start: Start, now: UnixMillis) -> Opened {
        let live = self.first_live(now);
        let oldest = self.first + live as u64;
        match start {
            Start::Latest => Opened::At(self.next()),
            Start::Earliest => Opened::At(oldest),
            Start::Time(time) => {
                let later = self.messages.partition_point(|message| message.time < time);
                Opened::At(self.first + later.max(live) as u64)
            }
            Start::Number(number) if number > self.next() || number == 0 => Opened::Unknown,
            Start::Number(number) if number < oldest => {
                Opened::Expired(self.messages.get(live).map(|message| message.time))
            }
            Start::Number(number) => Opened::At(number),
        }
    }

    fn read(&self, next: u64, now: UnixMillis, sink: &mut impl MessageSink) -> Read {
        let live = self.first_live(now);
        let oldest = self.first + live as u64;
        let gap = (next < oldest).then(|| Gap {
            messages: oldest - next,
            oldest_left: self.messages.get(live).map(|message| message.time),
        });
        let mut number = next.max(oldest);
        let from = ((number - self.first) as usize).min(self.messages.len());
        let mut full = false;
        for message in self.messages.range(from..).take(STEP_MESSAGES_MAX) {
            if sink.wants(message.text(1)) {
                let stored = Stored {
                    number,
                    id: message.part(0),
                    time: message.time,
                    topic: message.text(1),
                    key: message.text(2),
                    attributes: message.part(3),
                    payload: message.part(4),
                };
                if !sink.message(&stored) {
                    full = true;
                    break;
                }
            }
            number += 1;
        }
        Read {
            next: number,
            gap,
            more: full || number < self.next(),
        }
    }
}

impl Ring {
    /// Messages of these partitions after their places, and the time of the oldest.
    pub(super) fn behind(
        &self,
        place: impl Fn(u16) -> Option<Start>,
        first: u64,
        now: UnixMillis,
    ) -> (u64, Option<UnixMillis>) {
        let live = self.first_live(now);
        let from = (first.saturating_sub(self.first) as usize)
            .max(live)
            .min(self.messages.len());
        let is_behind = |(number, kept): &(u64, &Kept)| match place(kept.partition) {
            Some(Start::Number(place)) => *number >= place,
            Some(Start::Time(time)) => kept.time >= time,
            Some(_) => true,
            None => false,
        };
        let numbered = (self.first + from as u64..).zip(self.messages.range(from..));
        let mut behind = numbered
            .take(COUNTED_MAX)
            .filter(is_behind)
            .map(|(_, kept)| kept.time);
        let oldest = behind.next();
        let counted = behind.count() as u64 + u64::from(oldest.is_some());
        let rest = (self.messages.len() - from).saturating_sub(COUNTED_MAX);
        (counted + rest as u64, oldest)
    }
}

impl Default for Messages {
    fn default() -> Messages {
        Messages::new()
    }
}

impl Messages {
    /// Makes an empty store.
    pub fn new() -> Messages {
        Messages::with_bytes_max(RING_BYTES_MAX)
    }

    /// Makes an empty store that keeps this many bytes of each namespace.
    pub fn with_bytes_max(bytes_max: usize) -> Messages {
        Messages {
            rings: HashMap::default(),
            order: Vec::new(),
            burnt: HashSet::default(),
            groups: HashMap::default(),
            group_news: GroupNews::default(),
            heads: MessageHeads::new(1).of_shard(0),
            bytes_max,
            sweep_at: 0,
        }
    }

    /// The same store, as that of one shard of several.
    #[must_use]
    pub fn beside(self, heads: MessageHeads) -> Messages {
        Messages { heads, ..self }
    }

    /// Shards of the process that hold messages.
    pub fn shards(&self) -> usize {
        self.heads.shards()
    }

    /// Makes a namespace usable; see [`Upkeep::create_namespace`].
    pub fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        if self.burnt.contains(&namespace) {
            return Err(StoreError::DroppedNamespace(namespace));
        }
        if let Entry::Vacant(vacant) = self.rings.entry(namespace) {
            vacant.insert(Ring {
                first: 1,
                head: self.heads.head(namespace),
                ..Ring::default()
            });
            self.order.push(namespace);
        }
        Ok(())
    }

    /// Drops a namespace; see [`Upkeep::drop_namespace`].
    pub fn drop_namespace(&mut self, namespace: NamespaceId) {
        self.burnt.insert(namespace);
        self.groups.remove(&namespace);
        self.heads.forget(namespace);
        if self.rings.remove(&namespace).is_some() {
            self.order.retain(|other| *other != namespace);
        }
    }

    /// Stores one message: the hot path.
    pub fn publish_one(&mut self, message: &Message<'_>) -> Outcome {
        let bytes_max = self.bytes_max;
        match self.rings.get_mut(&message.namespace) {
            Some(ring) => ring.publish(message, bytes_max),
            None => Outcome::Refused(self.missing(message.namespace)),
        }
    }

    /// Number that the next message of a namespace will get; 0 if there is no such namespace.
    pub fn next_number(&self, namespace: NamespaceId) -> u64 {
        self.rings.get(&namespace).map_or(0, Ring::next)
    }

    /// Finds a reader's first message; see [`Reads::open`].
    pub fn open(&self, namespace: NamespaceId, start: Start, now: UnixMillis) -> Result<Opened, StoreError> {
        Ok(self.ring(namespace)?.open(start, now))
    }

    /// Reads a step; see [`Reads::read`].
    pub fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Read, StoreError> {
        Ok(self.ring(namespace)?.read(next, now, sink))
    }

    /// Frees expired messages and forgotten ids of one namespace after the other; see
    /// [`Upkeep::sweep`].
    pub fn sweep(&mut self, now: UnixMillis, budget: usize) -> Sweep {
        let mut sweep = Sweep::default();
        for _ in 0..self.order.len() {
            self.sweep_at %= self.order.len();
            let namespace = self.order[self.sweep_at];
            let Some(ring) = self.rings.get_mut(&namespace) else {
                continue;
            };
            let mut live = ring.first_live(now);
            while live > 0 && sweep.removed < budget {
                ring.pop_front();
                live -= 1;
                sweep.removed += 1;
            }
            while ring.forget.front().is_some_and(|(at, _)| *at <= now) && sweep.removed < budget {
                ring.forget_first();
                sweep.removed += 1;
            }
            if sweep.removed >= budget {
                sweep.more = true;
                break;
            }
            self.sweep_at += 1;
        }
        sweep.examined = sweep.removed;
        sweep
    }

    pub(super) fn ring(&self, namespace: NamespaceId) -> Result<&Ring, StoreError> {
        self.rings.get(&namespace).ok_or_else(|| self.missing(namespace))
    }

    fn missing(&self, namespace: NamespaceId) -> StoreError {
        match self.burnt.contains(&namespace) {
            true => StoreError::DroppedNamespace(namespace),
            false => StoreError::UnknownNamespace(namespace),
        }
    }
}

impl Writes for RefCell<Messages> {
    async fn publish(
        &self,
        batch: &[Message<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.clear();
        if at.is_some() {
            return Err(StoreError::invalid(
                "position",
                "the memory store notes none: what it has is gone with the process",
            ));
        }
        let mut messages = self.borrow_mut();
        outcomes.extend(batch.iter().map(|message| messages.publish_one(message)));
        Ok(())
    }
}

impl Reads for RefCell<Messages> {
    async fn open(
        &self,
        namespace: NamespaceId,
        start: Start,
        now: UnixMillis,
    ) -> Result<Opened, StoreError> {
        self.borrow().open(namespace, start, now)
    }

    async fn read(
        &self,
        namespace: NamespaceId,
        next: u64,
        now: UnixMillis,
        sink: &mut impl MessageSink,
    ) -> Result<Read, StoreError> {
        self.borrow().read(namespace, next, now, sink)
    }
}

impl Upkeep for RefCell<Messages> {
    fn offer(&self) -> Offer {
        PUBSUB
    }

    async fn create_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.borrow_mut().create_namespace(namespace)
    }

    async fn drop_namespace(&self, namespace: NamespaceId) -> Result<(), StoreError> {
        self.borrow_mut().drop_namespace(namespace);
        Ok(())
    }

    async fn sweep(&self, now: UnixMillis, budget: usize) -> Result<Sweep, StoreError> {
        Ok(self.borrow_mut().sweep(now, budget))
    }
}
