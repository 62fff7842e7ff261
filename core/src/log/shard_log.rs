//! The log of one shard: appends, parks replies until their record is durable, gives durable records to the store in order,
//! keeps the cursor, and lets reads see what the store has not applied yet.
//!
//! Driven by the shard: [`ShardLog::turn`] at the end of each turn of the reactor, [`ShardLog::handle_news`] for what other
//! threads say. Nothing here blocks. What is due to others is collected in [`Due`].

use std::{collections::VecDeque, sync::Arc, time::Instant};

use prism_backends::{NamespaceId, Outcome};
use prism_codec::{grpc::Status, message::common::WriteResultView};
use prism_wal::{
    group_commit::{AppendError, ClosedSegment},
    ids::{LaneId, Lsn, TargetId},
    lane::Lane,
    pool::Durable,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::{
    ApplyBatch, LogNews, SyncJob,
    applier::{Applier, Note, Overlay},
    keeper::{KeeperJob, KeeperJobs},
    window::{CallHasher, CallKey, Place, Window},
};
use crate::{
    config::LogLimits,
    gateway::{
        error,
        job::{Answer, Job, PartOutcome, Reply, Ticket, WriterMessage},
        keyvalue,
        route::Method,
    },
    metrics::{LaneState, LogMetrics},
    shard::{log_writer::LogWriter, mailbox::Mailbox},
};

/// Records of one batch for the store, and their bytes, at the most.
const BATCH_RECORDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often what the store has applied is made durable there, when nothing else asks for it, in nanoseconds.
const SYNC_PAUSE: u64 = 5_000_000_000;
/// The same at the end, when somebody waits for it.
const FLUSH_PAUSE: u64 = 2_000_000;
/// Pause before a segment that could not be prepared, or a sync that failed, is tried again, in nanoseconds.
const RETRY_PAUSE: u64 = 500_000_000;

/// How often the gauges are set, in nanoseconds.
const SHOW_PAUSE: u64 = 100_000_000;

/// How a shard's log reaches the threads around it.
#[derive(Debug, Clone)]
pub(crate) struct LogLinks {
    /// The writer of the store.
    pub(crate) store: Arc<Mailbox<WriterMessage>>,
    /// The thread that makes the store's data durable.
    pub(crate) sync: Arc<Mailbox<SyncJob>>,
}

/// What a turn leaves for the shard to do.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Replies, of this shard's calls and of others'.
    pub(crate) replies: Vec<Reply>,
    /// Reads that waited and may go to the store's reader now.
    pub(crate) reads: Vec<Job>,
}

/// Whatever waits for a record to be applied.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A read of an id.
    Read(Box<Job>),
    /// A Scan that asks whether everything before it is in the store.
    Settle(Ticket),
}

/// A reply that waits until its record is durable.
#[derive(Debug)]
struct Parked {
    /// Durable when the lane's durable prefix covers it.
    lsn: Lsn,
    /// What the reply says: the first record of the call, in another lane if the shards were fewer or more then.
    first: Place,
    at: u64,
    namespace: NamespaceId,
    ticket: Ticket,
    form: Form,
}

/// The form of a parked reply.
#[derive(Debug)]
pub(crate) enum Form {
    Put,
    Delete,
    /// The outcomes of mutations that were refused at once, and the positions of those that were logged.
    Mutate {
        refused: Vec<PartOutcome>,
        logged: Vec<u32>,
        part: bool,
    },
}

/// A compare-and-swap that waits until it has been applied.
#[derive(Debug)]
struct Swap {
    ticket: Ticket,
    first: Place,
}

/// A write that is to be logged.
#[derive(Debug)]
pub(crate) struct LogCall {
    pub(crate) ticket: Ticket,
    pub(crate) namespace: NamespaceId,
    pub(crate) method: Method,
    /// See [`super::record`].
    pub(crate) record: Vec<u8>,
    /// Hashes of the ids that it may change.
    pub(crate) keys: SmallVec<[u64; 1]>,
    /// Its key in the idempotency window, if it carries a token.
    pub(crate) window: Option<CallKey>,
    pub(crate) form: Form,
}

/// The log of one shard. See the module.
pub(crate) struct ShardLog {
    shard: u16,
    lane_id: LaneId,
    lane: Lane<LogWriter>,
    started: Instant,
    parked: VecDeque<Parked>,
    swaps: FxHashMap<Lsn, Swap>,
    applier: Applier<Waiting>,
    window: Window,
    links: LogLinks,
    keeper: Option<KeeperJobs>,
    /// Segments asked for and not come yet.
    preparing: usize,
    prepare_at: u64,
    recycling: VecDeque<ClosedSegment>,
    syncing: bool,
    /// When the store is made durable even if nothing asks for it.
    sync_at: u64,
    /// When that may be asked for again.
    sync_not_before: u64,
    /// The floor of the last checkpoint that was appended.
    checkpointed: Lsn,
    /// Namespaces that are deleted and still have records.
    removed: FxHashSet<u32>,
    flushing: Flushing,
    poison_told: bool,
    /// When the gauges are next set.
    show_at: u64,
    limits: LogLimits,
    metrics: Arc<LogMetrics>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushing {
    No,
    Wanted,
    Closing,
    Done,
}

/// What a shard's log is made of.
pub(crate) struct ShardLogParts {
    pub(crate) shard: u16,
    pub(crate) lane_id: LaneId,
    pub(crate) lane: Lane<LogWriter>,
    pub(crate) window: Window,
    pub(crate) links: LogLinks,
    pub(crate) keeper: KeeperJobs,
    pub(crate) limits: LogLimits,
    pub(crate) metrics: Arc<LogMetrics>,
}

impl ShardLog {
    pub(crate) fn new(parts: ShardLogParts) -> Self {
        let ShardLogParts {
            shard,
            lane_id,
            lane,
            window,
            links,
            keeper,
            limits,
            metrics,
        } = parts;
        Self {
            shard,
            lane_id,
            lane,
            started: Instant::now(),
            parked: VecDeque::new(),
            swaps: FxHashMap::default(),
            applier: Applier::default(),
            window,
            links,
            keeper: Some(keeper),
            preparing: 0,
            prepare_at: 0,
            recycling: VecDeque::new(),
            syncing: false,
            sync_at: SYNC_PAUSE,
            sync_not_before: 0,
            checkpointed: Lsn::NONE,
            removed: FxHashSet::default(),
            flushing: Flushing::No,
            poison_told: false,
            show_at: 0,
            limits,
            metrics,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Makes the window's keys.
    pub(crate) fn hasher(&self) -> &CallHasher {
        self.window.hasher()
    }

    /// Whether the lane takes appends: not after a failed write.
    pub(crate) fn is_healthy(&self) -> bool {
        self.lane.poisoned().is_none()
    }

    // --- calls ------------------------------------------------------------------------------------------------------

    /// Appends a write and parks its reply; a repeat of a call in the window gets the first answer instead.
    ///
    /// # Errors
    /// A maximum is reached, the disk is full or does not answer, or the lane is poisoned; nothing was done.
    pub(crate) fn write(&mut self, call: LogCall) -> Result<(), Box<Status>> {
        let first = call.window.and_then(|key| self.window.first(key));
        let swap = call.method == Method::CompareAndSwap;
        if let Some(first) = first
            && !swap
        {
            // What another lane holds was durable before this process began.
            let lsn = if first.lane == self.lane_id {
                first.lsn
            } else {
                Lsn::NONE
            };
            self.park(lsn, first, call);
            return Ok(());
        }
        let target = TargetId(call.namespace.0);
        let unapplied = self.lane.tail().unapplied(target).bytes;
        if unapplied + call.record.len() > self.limits.unapplied_bytes_max {
            self.metrics.refused.add(1);
            return Err(error::unapplied_quota(self.limits.unapplied_bytes_max));
        }
        let now = self.now();
        let record: Arc<[u8]> = call.record.as_slice().into();
        let bytes = record.len();
        let lsn = self.lane.append_strong(now, target, record).map_err(|cause| {
            self.metrics.refused.add(1);
            error::from_append(cause)
        })?;
        self.metrics.records.add(1);
        self.metrics.bytes.add(bytes as u64);
        let place = Place {
            lane: self.lane_id,
            lsn,
        };
        if let Some(key) = call.window {
            self.window.remember(key, place);
        }
        let note = Note {
            lsn,
            keys: call.keys.clone(),
            swap,
            at: now,
        };
        self.applier.push(call.namespace, note);
        if swap {
            // Before it is applied nobody knows how it ends.
            let (ticket, first) = (call.ticket, first.unwrap_or(place));
            self.swaps.insert(lsn, Swap { ticket, first });
        } else {
            self.park(lsn, place, call);
        }
        Ok(())
    }

    fn park(&mut self, lsn: Lsn, first: Place, call: LogCall) {
        let parked = Parked {
            lsn,
            first,
            at: self.now(),
            namespace: call.namespace,
            ticket: call.ticket,
            form: call.form,
        };
        let at = self.parked.partition_point(|before| before.lsn <= lsn);
        self.parked.insert(at, parked);
    }

    /// Appends a record of a write that the store has already. A log that cannot take it costs the write nothing but the
    /// second copy.
    pub(crate) fn append_eventual(&mut self, namespace: NamespaceId, record: &[u8]) {
        let (now, target) = (self.now(), TargetId(namespace.0));
        match self.lane.append_eventual(now, target, record) {
            Ok(_) => {
                self.metrics.records.add(1);
                self.metrics.bytes.add(record.len() as u64);
            }
            Err(_) => self.metrics.eventual_skipped.add(1),
        }
    }

    /// What a read of the id with this hash must see beside the store.
    pub(crate) fn overlay(&self, namespace: NamespaceId, key: u64) -> Overlay {
        self.applier
            .overlay(namespace, key, self.lane.commit().durable_lsn())
    }

    /// A record that [`ShardLog::overlay`] named.
    pub(crate) fn record(&self, namespace: NamespaceId, lsn: Lsn) -> Option<Arc<[u8]>> {
        self.lane.tail().get(TargetId(namespace.0), lsn).cloned()
    }

    /// Keeps a read until the store has everything up to `lsn`.
    pub(crate) fn await_applied(&mut self, namespace: NamespaceId, lsn: Lsn, read: Job) {
        self.applier.wait(namespace, lsn, Waiting::Read(Box::new(read)));
    }

    /// Answers `ticket` when the store has everything of a namespace that is durable now.
    pub(crate) fn settle(&mut self, namespace: NamespaceId, ticket: Ticket, due: &mut Due) {
        let durable = self.lane.commit().durable_lsn();
        match self.applier.last_unapplied(namespace, durable) {
            Some(lsn) => self.applier.wait(namespace, lsn, Waiting::Settle(ticket)),
            None => due.replies.push(settled(ticket)),
        }
    }

    /// The namespace is deleted: its cursor goes when its last record has.
    pub(crate) fn remove_namespace(&mut self, namespace: NamespaceId) {
        if self.applier.has(namespace) {
            self.removed.insert(namespace.0);
        } else {
            self.lane.forget(TargetId(namespace.0));
        }
    }

    // --- the turn ---------------------------------------------------------------------------------------------------

    /// Takes in what the disk completed, submits what is due, releases what is durable.
    pub(crate) fn turn(&mut self, due: &mut Due) {
        let now = self.now();
        let durable = self.lane.turn(now);
        while let Some(parked) = self.parked.pop_front_if(|parked| parked.lsn <= durable) {
            self.metrics
                .durable_latency
                .record_nanos(now.saturating_sub(parked.at));
            let reply = self.reply(parked);
            due.replies.push(reply);
        }
        if self.lane.poisoned().is_some() {
            self.fail_unacknowledged(due);
        }
        self.supply_segments(now);
        self.send_batches(now, durable);
        self.keep_cursor(now);
        self.finish_flush();
        self.show(now);
    }

    /// When [`ShardLog::turn`] wants to be called again even if nothing happens.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let now = self.now();
        let mut next = self.lane.next_wake(now);
        if !self.applier.is_empty() {
            next = Some(next.map_or(self.show_at, |next: u64| next.min(self.show_at)));
        }
        let mut consider = |at: u64| next = Some(next.map_or(at, |next| next.min(at)));
        if let Some(retry) = self.applier.next_retry() {
            consider(retry);
        }
        if self.preparing == 0 && self.lane.segments_wanted() > 0 {
            consider(self.prepare_at);
        }
        if !self.syncing {
            let asked_for = self.lane.pinned_segments() > 0 || self.flushing == Flushing::Wanted;
            consider(if asked_for {
                self.sync_not_before
            } else {
                self.sync_at
            });
        }
        let at = next?.max(now);
        Some(self.started + std::time::Duration::from_nanos(at))
    }

    fn reply(&self, parked: Parked) -> Reply {
        let applied = self.lane.tail().applied(TargetId(parked.namespace.0)) >= parked.lsn;
        let result = strong(parked.first, applied);
        let mut message = Vec::new();
        let answer = match parked.form {
            Form::Put => {
                keyvalue::encode_write_response(Method::Put, &result, &mut message);
                Answer::Message(message)
            }
            Form::Delete => {
                keyvalue::encode_write_response(Method::Delete, &result, &mut message);
                Answer::Message(message)
            }
            Form::Mutate {
                mut refused,
                logged,
                part,
            } => {
                refused.extend(logged.into_iter().map(|index| PartOutcome {
                    index,
                    outcome: Ok(result),
                }));
                if part {
                    Answer::Part(refused)
                } else {
                    keyvalue::encode_parts(refused, &mut message);
                    Answer::Message(message)
                }
            }
        };
        Reply {
            ticket: parked.ticket,
            result: Ok(answer),
        }
    }

    /// The disk failed: nobody knows which of these records will be found at the next start.
    fn fail_unacknowledged(&mut self, due: &mut Due) {
        if !self.poison_told {
            self.poison_told = true;
            let reason = self.lane.poisoned();
            tracing::error!(
                shard = self.shard,
                ?reason,
                "the log's disk failed: the lane takes nothing more until a restart"
            );
        }
        let durable = self.lane.commit().durable_lsn();
        let swaps: Vec<Lsn> = self.swaps.keys().filter(|lsn| **lsn > durable).copied().collect();
        let swaps = swaps.into_iter().filter_map(|lsn| self.swaps.remove(&lsn));
        let tickets = self.parked.drain(..).map(|parked| parked.ticket);
        for ticket in tickets.chain(swaps.map(|swap| swap.ticket)).collect::<Vec<_>>() {
            due.replies.push(Reply {
                ticket,
                result: Err(error::unknown_outcome()),
            });
        }
    }

    fn supply_segments(&mut self, now: u64) {
        while let Some(segment) = self.lane.poll_recyclable() {
            self.recycling.push_back(segment);
        }
        let durable = self.lane.durable();
        let Some(keeper) = &self.keeper else { return };
        while let Some(segment) = self.recycling.front() {
            if keeper.try_send(KeeperJob::Recycle(*segment, durable)).is_err() {
                return;
            }
            self.recycling.pop_front();
        }
        let wanted = self.lane.segments_wanted();
        while now >= self.prepare_at && self.preparing < wanted {
            if keeper.try_send(KeeperJob::Prepare(durable)).is_err() {
                return;
            }
            self.preparing += 1;
        }
    }

    /// Gives each namespace's next durable records to the store.
    fn send_batches(&mut self, now: u64, durable: Lsn) {
        let Self {
            applier,
            lane,
            links,
            shard,
            lane_id,
            ..
        } = self;
        applier.send_due(now, durable, |namespace| {
            let records: Vec<_> = lane
                .tail()
                .batch(TargetId(namespace.0), BATCH_RECORDS_MAX, BATCH_BYTES_MAX)
                .map(|(lsn, record)| (lsn, record.clone()))
                .collect();
            if records.is_empty() {
                return false;
            }
            let batch = ApplyBatch {
                shard: *shard,
                lane: *lane_id,
                namespace,
                records,
            };
            // A full mailbox empties; the next turn tries again.
            links.store.send(WriterMessage::Apply(Box::new(batch))).is_ok()
        });
    }

    /// Has the store made durable what it applied, and logs the cursors, so that segments become free.
    fn keep_cursor(&mut self, now: u64) {
        let asked_for = self.lane.pinned_segments() > 0 || self.flushing == Flushing::Wanted;
        let due = if asked_for {
            self.sync_not_before
        } else {
            self.sync_at
        };
        if self.syncing || now < due {
            return;
        }
        let cursors: Vec<_> = self.lane.tail().unsynced().collect();
        if cursors.is_empty() {
            // Everything applied is durable in the store: worth a note if that frees a segment, or if this is the end.
            if asked_for && (self.lane.checkpoint_due() || self.lane.tail().floor() > self.checkpointed) {
                self.checkpoint(now);
            }
            self.sync_at = now + SYNC_PAUSE;
            self.sync_not_before = now + self.sync_pause();
            return;
        }
        let shard = self.shard;
        self.syncing = self.links.sync.send(SyncJob { shard, cursors }).is_ok();
    }

    /// How long until the store may be asked again.
    fn sync_pause(&self) -> u64 {
        match self.flushing {
            Flushing::No => RETRY_PAUSE,
            _ => FLUSH_PAUSE,
        }
    }

    fn checkpoint(&mut self, now: u64) {
        let floor = self.lane.tail().floor();
        match self.lane.checkpoint(now) {
            // The checkpoint is itself a record, with nothing to apply: the floor passes it once it is durable.
            Ok(lsn) => self.checkpointed = floor.max(lsn),
            Err(AppendError::Poisoned) => {}
            Err(cause) => tracing::debug!(shard = self.shard, %cause, "cannot log the cursors yet"),
        }
    }

    // --- news -------------------------------------------------------------------------------------------------------

    /// Takes in what another thread says.
    pub(crate) fn handle_news(&mut self, news: LogNews, due: &mut Due) {
        let now = self.now();
        match news {
            LogNews::Segment(prepared) => {
                self.preparing -= 1;
                self.metrics.segments.add(1);
                self.lane.handle_segment(*prepared);
            }
            LogNews::NoSegment(error) => {
                self.preparing -= 1;
                self.prepare_at = now + RETRY_PAUSE;
                tracing::warn!(shard = self.shard, %error, "cannot prepare a segment of the log; trying again");
            }
            LogNews::Applied {
                namespace,
                upto,
                swaps,
                buried,
            } => self.handle_applied(namespace, upto, swaps, buried, due),
            LogNews::NotApplied { namespace, error } => {
                self.metrics.apply_failures.add(1);
                let pause = self.applier.handle_not_applied(namespace, now);
                tracing::warn!(shard = self.shard, namespace = namespace.0, %error, ?pause, "the store does not take the log's records; trying again");
            }
            LogNews::Synced(cursors) => {
                self.syncing = false;
                self.sync_at = now + SYNC_PAUSE;
                self.sync_not_before = now + self.sync_pause();
                for (target, lsn) in cursors {
                    self.lane.handle_synced(target, lsn);
                }
                if self.lane.tail().floor() > self.checkpointed {
                    self.checkpoint(now);
                }
            }
            LogNews::NotSynced => {
                self.syncing = false;
                self.sync_not_before = now + RETRY_PAUSE;
            }
            LogNews::Closed => self.flushing = Flushing::Done,
            // For the shard, which makes a log of it.
            LogNews::Open(_) | LogNews::Held(_) => {}
        }
    }

    fn handle_applied(
        &mut self,
        namespace: NamespaceId,
        upto: Lsn,
        swaps: Vec<(Lsn, Outcome)>,
        buried: u64,
        due: &mut Due,
    ) {
        let now = self.now();
        let target = TargetId(namespace.0);
        self.lane.handle_applied(target, upto);
        self.metrics.dead_letters.add(buried);
        let latency = &self.metrics.apply_latency;
        self.applier.handle_applied(
            namespace,
            upto,
            |at| latency.record_nanos(now.saturating_sub(at)),
            |waiting| match waiting {
                Waiting::Read(read) => due.reads.push(*read),
                Waiting::Settle(ticket) => due.replies.push(settled(ticket)),
            },
        );
        for (lsn, outcome) in swaps {
            let Some(swap) = self.swaps.remove(&lsn) else {
                continue;
            };
            let result = strong(swap.first, true);
            let mut message = Vec::new();
            let answer = keyvalue::encode_outcome(
                Method::CompareAndSwap,
                &outcome,
                crate::gateway::unix_millis(),
                &result,
                &mut message,
            );
            due.replies.push(Reply {
                ticket: swap.ticket,
                result: answer.map(|()| Answer::Message(message)),
            });
        }
        if self.removed.contains(&namespace.0) && !self.applier.has(namespace) {
            self.removed.remove(&namespace.0);
            self.lane.forget(target);
        }
    }

    // --- the end ----------------------------------------------------------------------------------------------------

    /// No call is open any more: apply everything, make it durable in the store, close the lane.
    pub(crate) fn flush(&mut self) {
        if self.flushing == Flushing::No {
            self.flushing = Flushing::Wanted;
        }
    }

    /// Whether the lane is closed.
    pub(crate) fn is_flushed(&self) -> bool {
        // A poisoned lane is never drained: the next start reads it.
        self.flushing == Flushing::Done || (self.flushing == Flushing::Wanted && !self.is_healthy())
    }

    /// See [`LogWriter::in_ring`].
    pub(crate) fn writes_in_ring(&self) -> usize {
        self.lane.writer().in_ring()
    }

    fn finish_flush(&mut self) {
        if self.flushing != Flushing::Wanted || !self.applier.is_empty() || !self.lane.is_drained() {
            return;
        }
        let Some(keeper) = &self.keeper else { return };
        let durable: Durable = self.lane.durable();
        if keeper.try_send(KeeperJob::Close(durable)).is_ok() {
            self.flushing = Flushing::Closing;
            self.keeper = None;
        }
    }

    /// Shows the figures, now and then.
    fn show(&mut self, now: u64) {
        if now < self.show_at {
            return;
        }
        self.show_at = now + SHOW_PAUSE;
        let metrics = &self.metrics;
        let unapplied = self.lane.tail().unapplied_in_all();
        let commit = self.lane.commit();
        metrics.pending_bytes.set(commit.pending_bytes() as u64);
        metrics.unapplied_records.set(unapplied.records as u64);
        metrics.unapplied_bytes.set(unapplied.bytes as u64);
        let age = self.applier.oldest().map_or(0, |at| now.saturating_sub(at));
        metrics.unapplied_age_nanos.set(age);
        metrics.failing_namespaces.set(self.applier.failing() as u64);
        metrics.durable_lsn.set(commit.durable_lsn().0);
        metrics.groups.set(commit.durable_group().0);
        metrics.depth.set(commit.depth() as u64);
        let state = if self.is_healthy() {
            LaneState::Open
        } else {
            LaneState::Poisoned
        };
        metrics.state.set(state as u64);
    }
}

fn strong(place: Place, applied: bool) -> WriteResultView {
    WriteResultView {
        durability: keyvalue::STRONG,
        lane: place.lane.0,
        lsn: place.lsn.0,
        applied,
    }
}

fn settled(ticket: Ticket) -> Reply {
    Reply {
        ticket,
        result: Ok(Answer::Settled),
    }
}
