//! The log of one shard: appends, parks replies until their record is durable, gives durable
//! records to the store in order, keeps the cursor, and lets reads see records that the store has
//! not applied yet.
//!
//! Driven by the shard: [`ShardLog::turn`] at the end of each turn of the reactor,
//! [`ShardLog::handle_event`] for events of other threads. Nothing here blocks. Results for others
//! are collected in [`Outbox`].

use std::{collections::VecDeque, sync::Arc, time::Instant};

use prism_backends::{LogId, NamespaceId};
use prism_codec::grpc::Status;
use prism_wal::{
    disk::DiskErrorKind,
    group_commit::{AppendError, ClosedSegment},
    ids::{LaneId, Lsn, TargetId},
    lane::Lane,
    tail::Payload,
};
use rustc_hash::{FxHashMap, FxHashSet};

use self::books::{applier_of, awaited_of, unapplied_of};
use super::{
    applier::{Applier, Note, Overlay},
    clock::{LogClock, STOP_MIN},
    keeper::{KeeperJob, KeeperJobs},
    lane_of,
    links::{LogLinks, Route, Routes, Sent},
    open::OpenLane,
    parked::{Judged, LogCall, Parked, reached},
    window::{CallHasher, Claims, First, TokenCall, Window},
    writer::LogWriter,
};
use crate::{
    call::{
        error,
        event::{ApplyBatch, Known, RecordId, SyncJob},
        job::{Reply, WriterMessage},
        ticket::Ticket,
    },
    config::LogLimits,
    metrics::{LaneState, LogMetrics},
};

/// Most records of one batch for the store. The next line bounds their bytes.
const BATCH_RECORDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Interval at which applied records are made durable in the store if there is no other reason, in
/// nanoseconds.
const SYNC_PAUSE: u64 = 5_000_000_000;
/// Interval at the end, when the process waits for it, in nanoseconds.
const FLUSH_PAUSE: u64 = 2_000_000;
/// Pause before another attempt to prepare a segment, or to sync, after a failure, in nanoseconds.
const RETRY_PAUSE: u64 = 500_000_000;

/// Namespaces that may use up their quota of unapplied bytes at the same time, in one lane.
const QUOTAS_PER_LANE: usize = 4;
/// Interval at which the gauges are set, in nanoseconds.
const SHOW_PAUSE: u64 = 100_000_000;

/// Work that a turn leaves for the shard.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Replies, of this shard's calls and of others'.
    pub(crate) replies: Vec<Reply>,
    /// Reads that waited and may go to the store now, each with the records that it must see in
    /// addition.
    pub(crate) reads: Vec<(ReadId, Vec<Payload>)>,
}

/// The id of a read, given by its holder while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReadId(pub(crate) u64);

/// Waiters for a record to be applied.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A read of a key.
    Read(WaitingRead),
    /// A Scan that waits until all earlier records are in the store.
    Barrier(Ticket),
}

/// A read that waits for the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitingRead {
    id: ReadId,
    /// Hash of the key.
    key: u64,
    /// Records durable when the read came: it must see up to here, and no further.
    durable: Lsn,
    /// Whether its store can overlay records; otherwise the store must have applied them.
    overlays: bool,
}

/// The log of one shard.
pub(crate) struct ShardLog {
    shard: u16,
    log_id: LogId,
    lane_id: LaneId,
    lane: Lane<LogWriter>,
    clock: LogClock,
    /// The last record when the lane was opened.
    opened_at: Lsn,
    /// How often the lane has been made anew.
    life: u16,
    /// Bytes of records that each store does not have yet, of all its namespaces, by
    /// [`Route::index`].
    unapplied_bytes: Vec<usize>,
    parked: VecDeque<Parked>,
    /// Judged calls that are not applied yet.
    judged: FxHashMap<Lsn, Judged>,
    applier: Applier<Waiting>,
    window: Window<First>,
    claims: Claims,
    routes: Routes,
    keeper: Option<KeeperJobs>,
    /// Number of requested segments that have not arrived.
    preparing: usize,
    /// The reason why the last of them could not be made.
    no_segment: Option<DiskErrorKind>,
    prepare_at: u64,
    recycling: VecDeque<ClosedSegment>,
    syncing: bool,
    /// Time at which the store is made durable even without another reason.
    sync_at: u64,
    /// Time from which that may be requested again.
    sync_not_before: u64,
    /// The floor of the last appended checkpoint.
    checkpointed: Lsn,
    /// Deleted namespaces that still have records.
    removed: FxHashSet<u32>,
    flushing: Flushing,
    poison_told: bool,
    /// Time at which the gauges are next set.
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

/// Parts of a shard's log.
pub(crate) struct ShardLogParts {
    pub(crate) shard: u16,
    pub(crate) lane: OpenLane,
    pub(crate) writer: LogWriter,
    pub(crate) links: LogLinks,
    pub(crate) limits: LogLimits,
    pub(crate) metrics: Arc<LogMetrics>,
}

impl ShardLog {
    pub(crate) fn new(parts: ShardLogParts) -> Self {
        let ShardLogParts {
            shard,
            lane,
            writer,
            links,
            limits,
            metrics,
        } = parts;
        let OpenLane {
            log: log_id,
            commit,
            active,
            closed,
            tail,
            window,
            claims,
            keeper,
            opened_at,
            life,
            recovered: _,
        } = lane;
        let lane = Lane::new(commit, active, closed, tail, writer);
        let clock = LogClock::default();
        let mut routes = Routes::new(links);
        let unapplied_bytes = unapplied_of(lane.tail(), &mut routes);
        let applier = applier_of(lane.tail(), clock.now());
        Self {
            shard,
            log_id,
            lane_id: lane_of(shard),
            lane,
            clock,
            opened_at,
            life,
            unapplied_bytes,
            parked: VecDeque::new(),
            judged: FxHashMap::default(),
            applier,
            window,
            claims,
            routes,
            keeper: Some(keeper),
            preparing: 0,
            no_segment: None,
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

    /// The time, by a clock that leaves out stops of the process. The first event after a stop
    /// reads it here, so that no stamp is ahead of the others.
    fn now(&mut self) -> u64 {
        if self.lane.commit().in_flight() > 0 {
            self.clock.allow_for_a_stop();
        }
        self.clock.tick()
    }

    /// The maker of the window's keys.
    pub(crate) fn hasher(&self) -> &CallHasher {
        self.window.hasher()
    }

    /// The calls to which the tokens that this shard owns belong.
    pub(crate) fn claims(&mut self) -> &mut Claims {
        &mut self.claims
    }

    /// Whether the lane takes appends; false after a failed write.
    pub(crate) fn is_healthy(&self) -> bool {
        self.lane.poisoned().is_none()
    }

    /// The first call with this token, if it is in the window and this one is its repeat.
    ///
    /// # Errors
    /// The token belongs to another call.
    pub(crate) fn first(&self, call: Option<TokenCall>) -> Result<Option<First>, Box<Status>> {
        let Some(call) = call else { return Ok(None) };
        self.window.first(call).map_err(|_| error::token_reused())
    }

    // --- calls -----------------------------------------------------------------------------------

    /// Appends a write and parks its reply; a repeat of a call in the window gets the first answer
    /// instead.
    ///
    /// # Errors
    /// A maximum is reached, the token belongs to another call, the disk is full or does not
    /// answer, or the lane is poisoned or closing; nothing was done.
    pub(crate) fn write(&mut self, mut call: LogCall) -> Result<(), Box<Status>> {
        if self.is_closing() {
            return Err(error::not_serving());
        }
        let first = self.first(call.window)?;
        let judged = call.is_judged();
        if let Some(first) = first
            && !judged
        {
            // A record of another lane was durable before this process began.
            let record = first.record;
            let lsn = if record.lane == self.lane_id {
                record.lsn
            } else {
                Lsn::NONE
            };
            self.park(lsn, record, call);
            return Ok(());
        }
        let target = TargetId(call.namespace.0);
        let (max, bytes) = (self.limits.unapplied_bytes_max, call.record.len());
        let of_namespace = self.lane.tail().unapplied(target).bytes + bytes;
        let route = self.routes.of(call.namespace).index();
        let of_store = self.unapplied_bytes[route] + bytes;
        let refusal = if bytes > max {
            Some(error::from_append(AppendError::TooLong, None))
        } else if of_namespace > max {
            Some(error::unapplied_quota("this namespace's", max))
        } else if of_store > max.saturating_mul(QUOTAS_PER_LANE) {
            Some(error::unapplied_quota(
                "all namespaces of the store'",
                max * QUOTAS_PER_LANE,
            ))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.metrics.refused.add(1);
            return Err(refusal);
        }
        let now = self.now();
        let record = Payload::from(std::mem::take(&mut call.record));
        let no_segment = self.no_segment;
        let lsn = self.lane.append_strong(now, target, record).map_err(|cause| {
            self.metrics.refused.add(1);
            error::from_append(cause, no_segment)
        })?;
        self.metrics.records.add(1);
        self.metrics.bytes.add(bytes as u64);
        self.unapplied_bytes[route] += bytes;
        let record = RecordId {
            lane: self.lane_id,
            lsn,
        };
        if let Some(token) = call.window {
            let stamp = call.stamp;
            self.window.remember(token, First { record, stamp });
        }
        let note = Note {
            lsn,
            keys: std::mem::take(&mut call.keys),
            judged,
            at: now,
        };
        self.applier.push(call.namespace, note);
        if judged {
            // The result is not known before it is applied.
            let (ticket, first) = (call.ticket, first.map_or(record, |first| first.record));
            self.judged.insert(lsn, Judged { ticket, first });
        } else {
            self.park(lsn, record, call);
        }
        Ok(())
    }

    fn park(&mut self, lsn: Lsn, first: RecordId, call: LogCall) {
        let at = self.now();
        let parked = Parked {
            lsn,
            first,
            at,
            namespace: call.namespace,
            ticket: call.ticket,
            receipt: call.receipt,
        };
        let at = self.parked.partition_point(|before| before.lsn <= lsn);
        self.parked.insert(at, parked);
    }

    /// Appends a record of a write that the store has already. If the log cannot take it, only the
    /// second copy is lost.
    pub(crate) fn append_eventual(&mut self, namespace: NamespaceId, record: &[u8]) {
        let (now, target) = (self.now(), TargetId(namespace.0));
        if !self.is_closing() && self.lane.append_eventual(now, target, record).is_ok() {
            self.metrics.records.add(1);
            self.metrics.bytes.add(record.len() as u64);
        } else {
            self.metrics.eventual_skipped.add(1);
        }
    }

    /// Records that a read of the key with this hash must see in addition to the store's contents,
    /// in order. `None`: it waits, and returns in [`Outbox::reads`].
    pub(crate) fn unapplied(
        &mut self,
        namespace: NamespaceId,
        key: u64,
        id: ReadId,
        overlays: bool,
    ) -> Option<Vec<Payload>> {
        let read = WaitingRead {
            id,
            key,
            durable: self.lane.commit().durable_lsn(),
            overlays,
        };
        self.overlay_or_wait(namespace, read)
    }

    fn overlay_or_wait(&mut self, namespace: NamespaceId, read: WaitingRead) -> Option<Vec<Payload>> {
        let overlay = match self.applier.overlay(namespace, read.key, read.durable) {
            Overlay::Records(lsns) if !read.overlays => {
                lsns.last().map_or(Overlay::None, |last| Overlay::Await(*last))
            }
            overlay => overlay,
        };
        match overlay {
            Overlay::None => Some(Vec::new()),
            Overlay::Records(lsns) => {
                let (tail, target) = (self.lane.tail(), TargetId(namespace.0));
                let records = lsns.iter().filter_map(|lsn| tail.get(target, *lsn));
                Some(records.cloned().collect())
            }
            Overlay::Await(lsn) => {
                self.applier.wait(namespace, lsn, Waiting::Read(read));
                None
            }
        }
    }

    /// Answers `ticket` when the store has all records of a namespace that are durable now.
    pub(crate) fn barrier(&mut self, namespace: NamespaceId, ticket: Ticket, outbox: &mut Outbox) {
        let durable = self.lane.commit().durable_lsn();
        match self.applier.last_unapplied(namespace, durable) {
            Some(lsn) => self.applier.wait(namespace, lsn, Waiting::Barrier(ticket)),
            None => outbox.replies.push(reached(ticket)),
        }
    }

    /// Removes a deleted namespace: its cursor goes with its last record.
    pub(crate) fn remove_namespace(&mut self, namespace: NamespaceId) {
        if self.applier.has(namespace) {
            self.removed.insert(namespace.0);
        } else {
            self.lane.forget(TargetId(namespace.0));
            self.routes.forget(namespace);
        }
    }

    // --- the turn --------------------------------------------------------------------------------

    /// Handles the disk's completions, submits due groups, releases durable replies.
    pub(crate) fn turn(&mut self, outbox: &mut Outbox) {
        let now = self.now();
        let durable = self.lane.turn(now);
        while let Some(parked) = self.parked.pop_front_if(|parked| parked.lsn <= durable) {
            self.metrics
                .durable_latency
                .record_nanos(now.saturating_sub(parked.at));
            let target = TargetId(parked.namespace.0);
            let applied = self.lane.tail().applied(target) >= parked.lsn;
            outbox.replies.push(parked.into_reply(applied));
        }
        if self.lane.poisoned().is_some() {
            self.fail_unacknowledged(outbox);
        }
        self.supply_segments(now);
        self.send_batches(now, durable);
        self.keep_cursor(now);
        self.finish_flush();
        self.show(now);
    }

    /// Time of the next call of [`ShardLog::turn`], if no event comes before.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let now = self.clock.now();
        let mut next = self.lane.next_wake(now);
        // Also once more when all is applied, or the page would show the last wait for ever.
        if !self.applier.is_empty() || self.metrics.unapplied_records.value() > 0 {
            next = Some(next.map_or(self.show_at, |next: u64| next.min(self.show_at)));
        }
        let mut consider = |at: u64| next = Some(next.map_or(at, |next| next.min(at)));
        if let Some(outbox) = self.applier.next_due(self.lane.commit().durable_lsn()) {
            consider(outbox);
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
        if self.lane.commit().in_flight() > 0 {
            consider(now + STOP_MIN / 2);
        }
        Some(self.clock.instant(next?.max(now)))
    }

    /// Fails unacknowledged writes after a failure of the disk: which of their records the next
    /// start will find is unknown.
    fn fail_unacknowledged(&mut self, outbox: &mut Outbox) {
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
        let judged = self.judged.extract_if(|lsn, _| *lsn > durable);
        let tickets = self.parked.drain(..).map(|parked| parked.ticket);
        for ticket in tickets.chain(judged.map(|(_, judged)| judged.ticket)) {
            outbox.replies.push(Reply {
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

    /// Sends the store the next durable records of each namespace with a due batch.
    fn send_batches(&mut self, now: u64, durable: Lsn) {
        // At the end no further records come that they could gather.
        let all = self.flushing != Flushing::No;
        let Self {
            applier,
            lane,
            routes,
            shard,
            log_id,
            lane_id,
            judged,
            opened_at,
            life,
            ..
        } = self;
        applier.send_due(now, durable, all, |namespace| {
            let records: Vec<_> = lane
                .tail()
                .batch(TargetId(namespace.0), BATCH_RECORDS_MAX, BATCH_BYTES_MAX)
                .map(|(lsn, record)| (lsn, record.clone()))
                .collect();
            if records.is_empty() {
                return Sent::Nothing;
            }
            let known = Known {
                life: *life,
                tip: *opened_at,
                cursor: lane.tail().checkpoint().cursor(TargetId(namespace.0)),
            };
            let batch = ApplyBatch {
                shard: *shard,
                log: *log_id,
                lane: *lane_id,
                namespace,
                awaited: awaited_of(&records, judged),
                records,
                known,
            };
            let route = routes.of(namespace);
            routes.send(route, WriterMessage::Apply(Box::new(batch)))
        });
    }

    /// Makes the store sync its applied records, and logs the cursors, so that segments become
    /// free.
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
        let (cursors, has_moved) = self.unsynced_in_file();
        if cursors.is_empty() {
            // Everything applied is durable in the store: worth a checkpoint if that frees a
            // segment, or if this is the end.
            let has_risen = self.lane.tail().floor() > self.checkpointed;
            if (asked_for && (has_risen || self.lane.checkpoint_due())) || (has_moved && has_risen) {
                self.checkpoint(now);
            }
            self.sync_at = now + SYNC_PAUSE;
            self.sync_not_before = now + self.sync_pause();
            return;
        }
        let shard = self.shard;
        self.syncing = self.routes.sync(SyncJob { shard, cursors });
    }

    /// The cursors that wait for a sync of SQLite's file. What a server has applied is durable
    /// there: those cursors move. Whether any of those did.
    fn unsynced_in_file(&mut self) -> (Vec<(TargetId, Lsn)>, bool) {
        let mut cursors: Vec<_> = self.lane.tail().unsynced().collect();
        let count = cursors.len();
        cursors.retain(|(target, lsn)| {
            let is_in_file = self.routes.of(NamespaceId(target.0)) == Route::File;
            if !is_in_file {
                self.lane.handle_synced(*target, *lsn);
            }
            is_in_file
        });
        let has_moved = cursors.len() < count;
        (cursors, has_moved)
    }

    /// Pause before the store may be asked again.
    fn sync_pause(&self) -> u64 {
        match self.flushing {
            Flushing::No => RETRY_PAUSE,
            _ => FLUSH_PAUSE,
        }
    }

    fn checkpoint(&mut self, now: u64) {
        let floor = self.lane.tail().floor();
        match self.lane.checkpoint(now) {
            // The checkpoint is itself a record, with nothing to apply: the floor passes it once it
            // is durable.
            Ok(lsn) => self.checkpointed = floor.max(lsn),
            Err(AppendError::Poisoned) => {}
            Err(cause) => tracing::debug!(shard = self.shard, %cause, "cannot log the cursors yet"),
        }
    }

    // --- figures ---------------------------------------------------------------------------------

    /// Number of writes that wait for their answer.
    pub(crate) fn promised(&self) -> usize {
        self.parked.len() + self.judged.len()
    }

    /// Writes in flight; see [`LogWriter::in_flight`].
    pub(crate) fn writes_in_flight(&self) -> usize {
        self.lane.writer().in_flight()
    }

    /// Sets the gauges, at intervals.
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
        for (number, (_, bytes)) in metrics.servers.iter().enumerate() {
            bytes.set(self.unapplied_bytes[Route::Server(number).index()] as u64);
        }
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

mod books;
mod events;
mod flush;
#[cfg(test)]
mod tests;
