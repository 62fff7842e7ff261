//! Queues in memory. One instance belongs to one shard; its plain methods do not block and need no
//! future.
//!
//! A full queue refuses messages: unlike a topic's, its old ones still have to be delivered, so
//! they cannot be dropped.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, hash_map::Entry};

use rustc_hash::FxBuildHasher;

use crate::api::queue::{
    Change, Counts, Held, Late, Outcome, Peek, Reads, Receive, Received, Sink, Sweep, Upkeep, Writes,
};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};
use crate::limits::VALUE_BYTES_MAX;
use crate::offer::{Acked, Api, Features, Offer, Order, Replay};

mod queue;

use queue::Queue;

/// Most bytes of one queue's messages.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes that a message takes in addition to its parts.
const MESSAGE_OVERHEAD_BYTES: usize = 400;

/// Most ids of removed messages that are remembered of one queue; above it the oldest are
/// forgotten.
const IDS_MAX: usize = 500_000;

/// Promises of memory for Queue.
pub const QUEUE: Offer = Offer {
    api: Api::Queue,
    acked: Acked::Volatile,
    replay: Replay::Idempotent,
    order: Order::PerKey,
    features: Features::STRONG_READS
        .and(Features::TTL)
        .and(Features::RETENTION)
        .and(Features::REPLAY),
    value_bytes_max: VALUE_BYTES_MAX,
    survives_restart: false,
};

/// The queues of one shard.
#[derive(Debug)]
pub struct Queues {
    queues: HashMap<NamespaceId, Queue, FxBuildHasher>,
    /// In order of creation, for the sweep.
    order: Vec<NamespaceId>,
    burnt: HashSet<NamespaceId, FxBuildHasher>,
    bytes_max: usize,
    sweep_at: usize,
}

impl Default for Queues {
    fn default() -> Queues {
        Queues::new()
    }
}

impl Queues {
    /// Makes an empty store.
    pub fn new() -> Queues {
        Queues::with_bytes_max(QUEUE_BYTES_MAX)
    }

    /// Makes an empty store that takes this many bytes of each queue.
    pub fn with_bytes_max(bytes_max: usize) -> Queues {
        Queues {
            queues: HashMap::default(),
            order: Vec::new(),
            burnt: HashSet::default(),
            bytes_max,
            sweep_at: 0,
        }
    }

    /// Makes a namespace usable; see [`Upkeep::create_namespace`].
    pub fn create_namespace(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        if self.burnt.contains(&namespace) {
            return Err(StoreError::DroppedNamespace(namespace));
        }
        if let Entry::Vacant(vacant) = self.queues.entry(namespace) {
            vacant.insert(Queue::new());
            self.order.push(namespace);
        }
        Ok(())
    }

    /// Drops a namespace; see [`Upkeep::drop_namespace`].
    pub fn drop_namespace(&mut self, namespace: NamespaceId) {
        self.burnt.insert(namespace);
        if self.queues.remove(&namespace).is_some() {
            self.order.retain(|other| *other != namespace);
        }
    }

    /// Makes one change.
    pub fn apply_one(&mut self, change: &Change<'_>) -> Outcome {
        let bytes_max = self.bytes_max;
        match self.of(change.namespace) {
            Ok(queue) => queue.apply(change, bytes_max),
            Err(cause) => Outcome::Refused(cause),
        }
    }

    /// Leases messages; see [`Writes::receive`].
    pub fn receive(
        &mut self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError> {
        Ok(self.of(receive.namespace)?.receive(receive, now, sink))
    }

    /// Makes leases longer; see [`Writes::extend`].
    pub fn extend(
        &mut self,
        namespace: NamespaceId,
        held: &[Held<'_>],
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<Vec<Result<UnixMillis, Late>>, StoreError> {
        let queue = self.of(namespace)?;
        Ok(held
            .iter()
            .map(|held| queue.extend(held, lease_ms, now))
            .collect())
    }

    /// Shows messages; see [`Reads::peek`].
    pub fn peek(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError> {
        let queue = self.queues.get(&peek.namespace);
        let queue = queue.ok_or_else(|| self.missing(peek.namespace))?;
        Ok(queue.peek(peek, now, sink))
    }

    /// Counts messages; see [`Reads::stats`].
    pub fn stats(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError> {
        let queue = self.queues.get(&namespace);
        Ok(queue.ok_or_else(|| self.missing(namespace))?.stats(now))
    }

    /// When the first message of a queue may be given; `None` while nothing is undone.
    pub fn ready_at(&self, namespace: NamespaceId) -> Option<UnixMillis> {
        self.queues.get(&namespace)?.ready_at()
    }

    /// Does the due work of one queue after the other; see [`Upkeep::sweep`].
    pub fn sweep(&mut self, now: UnixMillis, budget: usize) -> Sweep {
        let mut sweep = Sweep::default();
        for _ in 0..self.order.len() {
            self.sweep_at %= self.order.len();
            let Some(queue) = self.queues.get_mut(&self.order[self.sweep_at]) else {
                continue;
            };
            sweep.removed += queue.sweep(now, budget - sweep.removed);
            if sweep.removed >= budget {
                sweep.more = true;
                break;
            }
            self.sweep_at += 1;
        }
        sweep.examined = sweep.removed;
        sweep
    }

    fn of(&mut self, namespace: NamespaceId) -> Result<&mut Queue, StoreError> {
        let missing = self.missing(namespace);
        self.queues.get_mut(&namespace).ok_or(missing)
    }

    fn missing(&self, namespace: NamespaceId) -> StoreError {
        match self.burnt.contains(&namespace) {
            true => StoreError::DroppedNamespace(namespace),
            false => StoreError::UnknownNamespace(namespace),
        }
    }
}

impl Writes for RefCell<Queues> {
    async fn apply(
        &self,
        batch: &[Change<'_>],
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
        let mut queues = self.borrow_mut();
        outcomes.extend(batch.iter().map(|change| queues.apply_one(change)));
        Ok(())
    }

    async fn receive(
        &self,
        receive: &Receive<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Received, StoreError> {
        self.borrow_mut().receive(receive, now, sink)
    }

    async fn extend(
        &self,
        namespace: NamespaceId,
        held: &[Held<'_>],
        lease_ms: u64,
        now: UnixMillis,
    ) -> Result<Vec<Result<UnixMillis, Late>>, StoreError> {
        self.borrow_mut().extend(namespace, held, lease_ms, now)
    }
}

impl Reads for RefCell<Queues> {
    async fn peek(
        &self,
        peek: &Peek<'_>,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<Option<u64>, StoreError> {
        self.borrow().peek(peek, now, sink)
    }

    async fn stats(&self, namespace: NamespaceId, now: UnixMillis) -> Result<Counts, StoreError> {
        self.borrow().stats(namespace, now)
    }
}

impl Upkeep for RefCell<Queues> {
    fn offer(&self) -> Offer {
        QUEUE
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
