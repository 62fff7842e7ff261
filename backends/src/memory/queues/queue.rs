//! One queue: its messages, their states, and the indexes by which they are found.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::Entry};

use rustc_hash::FxBuildHasher;

use super::{IDS_MAX, MESSAGE_OVERHEAD_BYTES};
use crate::api::queue::{
    Act, Attempt, Change, Counts, Held, ID_WINDOW_MS, Item, LEASE_ENDED, Late, MOVED_MAX, NewMessage,
    Outcome, PASSED_MAX, Peek, Phase, Receive, Received, Shown, Sink, State, Terms, Which, cut_reason,
};
use crate::error::StoreError;
use crate::ids::UnixMillis;

/// A message with its state.
#[derive(Debug)]
struct Kept {
    id: Box<[u8]>,
    digest: Option<u64>,
    /// Ordering key; `None` where there is no order.
    key: Option<Box<str>>,
    /// Whether it is the first of its key.
    is_head: bool,
    item: Item,
    failure: Box<str>,
    /// The Receive that leased it; empty if that had no token.
    call: Box<[u8]>,
    attributes: Box<[u8]>,
    payload: Box<[u8]>,
}

impl Kept {
    fn is_undone(&self) -> bool {
        matches!(self.item.phase, Phase::Waiting | Phase::Leased)
    }

    fn size(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.len());
        self.id.len() + key + self.attributes.len() + self.payload.len() + MESSAGE_OVERHEAD_BYTES
    }

    fn shown<'a>(&'a self, item: Item, failure: &'a str, with_payload: bool) -> Shown<'a> {
        Shown {
            id: &self.id,
            item,
            key: self.key.as_deref().unwrap_or_default(),
            attributes: &self.attributes,
            payload: if with_payload { &self.payload } else { &[] },
            failure,
        }
    }
}

/// A message that has left.
#[derive(Clone, Copy, Debug)]
struct Gone {
    digest: Option<u64>,
    /// The attempt that acked it; `None`: it was deleted, or too old.
    acked: Option<Attempt>,
    forget_at: UnixMillis,
}

/// A completed Redrive or Delete.
#[derive(Clone, Copy, Debug)]
struct Made {
    digest: Option<u64>,
    moved: u64,
    more: bool,
    forget_at: UnixMillis,
}

/// The messages of one namespace.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: BTreeMap<u64, Kept>,
    next: u64,
    bytes: usize,
    by_id: HashMap<Box<[u8]>, u64, FxBuildHasher>,
    /// Undone messages at the head of their key, by the time from which they may be given.
    heads: BTreeSet<(UnixMillis, u64)>,
    /// Undone messages of each key.
    lines: HashMap<Box<str>, BTreeSet<u64>, FxBuildHasher>,
    /// All messages, by the time at which the sweep must look at them.
    looks: BTreeSet<(UnixMillis, u64)>,
    dead: BTreeSet<u64>,
    done: BTreeSet<u64>,
    /// Leased messages of Receives with a token.
    leased_by: HashMap<Box<[u8]>, BTreeSet<u64>, FxBuildHasher>,
    gone: HashMap<Box<[u8]>, Gone, FxBuildHasher>,
    /// Ids in the order in which they may be forgotten.
    forget: VecDeque<(UnixMillis, Box<[u8]>)>,
    made: HashMap<Box<[u8]>, Made, FxBuildHasher>,
}

impl Queue {
    /// Makes an empty queue.
    pub(super) fn new() -> Queue {
        Queue {
            next: 1,
            ..Queue::default()
        }
    }

    /// When the first message may be given; `None` while nothing is undone.
    pub(super) fn ready_at(&self) -> Option<UnixMillis> {
        self.heads.first().map(|(at, _)| *at)
    }

    // --- one message and its indexes -------------------------------------------------------------

    fn put(&mut self, place: u64, mut kept: Kept) {
        self.bytes += kept.size();
        self.by_id.insert(kept.id.clone(), place);
        self.looks.insert((kept.item.look_at(), place));
        kept.is_head = false;
        match kept.item.phase {
            Phase::Dead => drop(self.dead.insert(place)),
            Phase::Done => drop(self.done.insert(place)),
            Phase::Waiting | Phase::Leased => match &kept.key {
                Some(key) => drop(self.lines.entry(key.clone()).or_default().insert(place)),
                None => {
                    kept.is_head = true;
                    self.heads.insert((kept.item.at, place));
                }
            },
        }
        if kept.item.phase == Phase::Leased && !kept.call.is_empty() {
            self.leased_by.entry(kept.call.clone()).or_default().insert(place);
        }
        let key = kept.key.clone();
        self.items.insert(place, kept);
        if let Some(key) = key {
            self.lead(&key);
        }
    }

    fn take(&mut self, place: u64) -> Option<Kept> {
        let kept = self.items.remove(&place)?;
        self.bytes -= kept.size();
        self.by_id.remove(&kept.id);
        self.looks.remove(&(kept.item.look_at(), place));
        self.heads.remove(&(kept.item.at, place));
        self.dead.remove(&place);
        self.done.remove(&place);
        if let Entry::Occupied(mut places) = self.leased_by.entry(kept.call.clone()) {
            places.get_mut().remove(&place);
            if places.get().is_empty() {
                places.remove();
            }
        }
        if let Some(key) = &kept.key
            && let Entry::Occupied(mut line) = self.lines.entry(key.clone())
        {
            line.get_mut().remove(&place);
            if line.get().is_empty() {
                line.remove();
            }
        }
        Some(kept)
    }

    /// Makes the first message of a key available.
    fn lead(&mut self, key: &str) {
        let first = self.lines.get(key).and_then(|line| line.first().copied());
        if let Some(place) = first
            && let Some(kept) = self.items.get_mut(&place)
            && !kept.is_head
        {
            kept.is_head = true;
            self.heads.insert((kept.item.at, place));
        }
    }

    fn change<T>(&mut self, place: u64, change: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        let mut kept = self.take(place)?;
        let result = change(&mut kept);
        self.put(place, kept);
        Some(result)
    }

    /// Removes a message, and remembers its id.
    fn remove(&mut self, place: u64, acked: Option<Attempt>, at: UnixMillis) {
        let Some(kept) = self.take(place) else { return };
        if let Some(key) = &kept.key {
            self.lead(key);
        }
        let forget_at = at.plus(ID_WINDOW_MS);
        let gone = Gone {
            digest: kept.digest,
            acked,
            forget_at,
        };
        self.gone.insert(kept.id.clone(), gone);
        self.forget.push_back((forget_at, kept.id));
        while self.forget.len() > IDS_MAX {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((forget_at, id)) = self.forget.pop_front()
            && self.gone.get(&id).is_some_and(|gone| gone.forget_at <= forget_at)
        {
            self.gone.remove(&id);
        }
    }

    fn bury(&mut self, place: u64, now: UnixMillis) {
        self.change(place, |kept| {
            if let Some(why) = kept.item.death(now) {
                kept.failure = why.into();
                kept.item.bury(now);
            }
        });
    }

    // --- changes ---------------------------------------------------------------------------------

    pub(super) fn apply(&mut self, change: &Change<'_>, bytes_max: usize) -> Outcome {
        let Change { terms, at, .. } = *change;
        match &change.act {
            Act::Send(message) => self.send(message, terms, at, bytes_max),
            Act::Ack(held) => self.ack(held, terms, at),
            Act::Nack {
                held,
                verdict,
                reason,
            } => {
                let Some(place) = self.by_id.get(held.id).copied() else {
                    return match self.not_there(held, at) {
                        // A done message cannot fail any more.
                        Outcome::Acked => Outcome::Late(Late::Gone),
                        other => other,
                    };
                };
                let said = self.change(place, |kept| {
                    let said = kept.item.nack(held.attempt, *verdict, at);
                    if said == Ok(true) {
                        kept.failure = cut_reason(reason).into();
                        kept.call = Box::default();
                    }
                    said.map(|_| kept.item.state(at))
                });
                match said {
                    Some(Ok(state)) => Outcome::Nacked(state),
                    Some(Err(late)) => Outcome::Late(late),
                    None => Outcome::Late(Late::Gone),
                }
            }
            Act::Redrive { call, digest, which } => self.once(call, *digest, at, |queue| {
                queue.each_of(*which, at, |queue, place, state| {
                    if state.is_undone() {
                        return false;
                    }
                    let Some(mut kept) = queue.take(place) else {
                        return false;
                    };
                    kept.item.redrive(at);
                    kept.failure = Box::default();
                    kept.call = Box::default();
                    let place = queue.next;
                    queue.next += 1;
                    queue.put(place, kept);
                    true
                })
            }),
            Act::Delete { call, digest, which } => self.once(call, *digest, at, |queue| {
                queue.each_of(*which, at, |queue, place, state| {
                    if state == State::Leased {
                        return false;
                    }
                    queue.remove(place, None, at);
                    true
                })
            }),
        }
    }

    fn send(&mut self, message: &NewMessage<'_>, terms: Terms, at: UnixMillis, bytes_max: usize) -> Outcome {
        if let Err(cause) = message.check() {
            return Outcome::Refused(cause);
        }
        let here = self.by_id.get(message.id).and_then(|place| self.items.get(place));
        let known = here.map(|kept| kept.digest).or_else(|| {
            let gone = self.gone.get(message.id).filter(|gone| gone.forget_at > at);
            gone.map(|gone| gone.digest)
        });
        match known {
            Some(digest) if digest == message.digest => return Outcome::Repeat,
            Some(_) => return Outcome::Refused(StoreError::TokenReused),
            None => {}
        }
        let kept = Kept {
            id: message.id.into(),
            digest: message.digest,
            key: terms.ordered.then(|| message.key.into()),
            is_head: false,
            item: Item::new(
                at,
                message.delay_ms,
                message.attempts_max,
                terms.ttl_ms,
                terms.retention_ms,
            ),
            failure: Box::default(),
            call: Box::default(),
            attributes: message.attributes.into(),
            payload: message.payload.into(),
        };
        if self.bytes + kept.size() > bytes_max {
            let detail = format!("a queue in memory holds {} MiB", bytes_max >> 20);
            return Outcome::Refused(StoreError::Full { detail });
        }
        let place = self.next;
        self.next += 1;
        self.put(place, kept);
        Outcome::Sent
    }

    fn ack(&mut self, held: &Held<'_>, terms: Terms, at: UnixMillis) -> Outcome {
        let Some(place) = self.by_id.get(held.id).copied() else {
            return self.not_there(held, at);
        };
        let acked = self.change(place, |kept| kept.item.ack(held.attempt, at));
        match acked {
            Some(Ok(is_new)) => {
                if is_new && !terms.replay {
                    self.remove(place, Some(held.attempt), at);
                }
                Outcome::Acked
            }
            Some(Err(late)) => Outcome::Late(late),
            None => Outcome::Late(Late::Gone),
        }
    }

    /// Answer about a message that has left.
    fn not_there(&self, held: &Held<'_>, at: UnixMillis) -> Outcome {
        let gone = self.gone.get(held.id).filter(|gone| gone.forget_at > at);
        match gone.and_then(|gone| gone.acked) {
            Some(acked) if acked == held.attempt => Outcome::Acked,
            Some(_) => Outcome::Late(Late::Lost),
            None => Outcome::Late(Late::Gone),
        }
    }

    /// Makes a call that moves messages, unless it was made before.
    fn once(
        &mut self,
        call: &[u8],
        digest: Option<u64>,
        at: UnixMillis,
        make: impl FnOnce(&mut Queue) -> (u64, bool),
    ) -> Outcome {
        if let Some(made) = self.made.get(call).filter(|made| made.forget_at > at) {
            return match made.digest == digest {
                true => Outcome::Moved(made.moved, made.more),
                false => Outcome::Refused(StoreError::TokenReused),
            };
        }
        let (moved, more) = make(self);
        let made = Made {
            digest,
            moved,
            more,
            forget_at: at.plus(ID_WINDOW_MS),
        };
        self.made.insert(call.into(), made);
        Outcome::Moved(moved, more)
    }

    /// Applies a change to messages. Returns how many it changed, and whether there are more.
    fn each_of(
        &mut self,
        which: Which<'_>,
        at: UnixMillis,
        mut act: impl FnMut(&mut Queue, u64, State) -> bool,
    ) -> (u64, bool) {
        let (places, more) = match which {
            Which::Ids(ids) => {
                let places: Vec<u64> = ids.iter().filter_map(|id| self.by_id.get(*id).copied()).collect();
                (places, false)
            }
            Which::State(state) => {
                let mut places: Vec<u64> = self
                    .items
                    .iter()
                    .filter(|(_, kept)| kept.item.state(at) == state)
                    .map(|(place, _)| *place)
                    .take(MOVED_MAX + 1)
                    .collect();
                let more = places.len() > MOVED_MAX;
                places.truncate(MOVED_MAX);
                (places, more)
            }
        };
        let mut moved = 0;
        for place in places {
            let Some(state) = self.items.get(&place).map(|kept| kept.item.state(at)) else {
                continue;
            };
            self.bury(place, at);
            moved += u64::from(act(self, place, state));
        }
        (moved, more)
    }

    // --- workers ---------------------------------------------------------------------------------

    pub(super) fn receive(
        &mut self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Received {
        let mut received = Received::default();
        if let Some(places) = self
            .leased_by
            .get(receive.call)
            .filter(|_| !receive.call.is_empty())
        {
            for kept in places.iter().filter_map(|place| self.items.get(place)) {
                if kept.item.state(now) == State::Leased
                    && sink.message(&kept.shown(kept.item, &kept.failure, true))
                {
                    received.messages += 1;
                }
            }
            if received.messages > 0 {
                return received;
            }
        }
        for _ in 0..receive.messages_max + PASSED_MAX {
            let Some((at, place)) = self.heads.first().copied() else {
                break;
            };
            if at > now || received.messages >= receive.messages_max {
                received.next_at = Some(at);
                break;
            }
            let Some(kept) = self.items.get(&place) else { break };
            if kept.item.death(now).is_some() {
                self.bury(place, now);
                continue;
            }
            let mut item = kept.item;
            let has_ended = item.claim(now, receive.lease_ms);
            let failure = if has_ended { LEASE_ENDED } else { &kept.failure };
            if !sink.message(&kept.shown(item, failure, true)) {
                received.next_at = Some(now);
                break;
            }
            self.change(place, |kept| {
                kept.item = item;
                kept.call = receive.call.into();
                if has_ended {
                    kept.failure = LEASE_ENDED.into();
                }
            });
            received.messages += 1;
        }
        received
    }

    pub(super) fn extend(
        &mut self,
        held: &Held<'_>,
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<UnixMillis, Late> {
        let Some(place) = self.by_id.get(held.id).copied() else {
            return Err(match self.not_there(held, now) {
                Outcome::Late(late) => late,
                _ => Late::Gone,
            });
        };
        let extended = self.change(place, |kept| {
            kept.item
                .extend(held.attempt, lease_ms, now)
                .map(|()| kept.item.at)
        });
        extended.unwrap_or(Err(Late::Gone))
    }

    // --- looking on ------------------------------------------------------------------------------

    pub(super) fn peek(&self, peek: &Peek<'_>, now: UnixMillis, sink: &mut impl Sink) -> Option<u64> {
        let mut shown = 0;
        for (place, kept) in self.items.range(peek.after + 1..) {
            let is_of_key = peek.key.is_none_or(|key| kept.key.as_deref() == Some(key));
            let state = kept.item.state(now);
            if !is_of_key || !peek.states.contains(&state) {
                continue;
            }
            let failure = kept.item.death(now).unwrap_or(&kept.failure);
            let is_full = shown >= peek.messages_max;
            if is_full || !sink.message(&kept.shown(kept.item, failure, peek.with_payload)) {
                return Some(place - 1);
            }
            shown += 1;
        }
        None
    }

    pub(super) fn stats(&self, now: UnixMillis) -> Counts {
        let mut counts = Counts::default();
        for kept in self.items.values() {
            counts[kept.item.state(now) as usize].add(kept.item.sent_at);
        }
        counts
    }

    /// Does a bounded part of the work that is due. Returns how much.
    pub(super) fn sweep(&mut self, now: UnixMillis, budget: usize) -> usize {
        let mut done = 0;
        while done < budget {
            let Some((_, place)) = self.looks.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            let Some(kept) = self.items.get(&place) else { break };
            match kept.is_undone() {
                true => self.bury(place, now),
                false => self.remove(place, None, now),
            }
            done += 1;
        }
        while done < budget && self.forget.front().is_some_and(|(at, _)| *at <= now) {
            self.forget_first();
            done += 1;
        }
        self.made.retain(|_, made| made.forget_at > now);
        done
    }
}
