//! Helper threads of the SQLite store that calls wait for: one writer for the whole process, one
//! reader for each shard. A further thread is the [checkpointer](super::checkpointer).
//!
//! ```text
//!   shard 0 ─┐                 ┌─ writer ── waiting writes of all shards, one transaction ──> SQLite
//!   shard 1 ─┼── mailboxes ────┤
//!            └                 └─ reader 0, reader 1 ── a snapshot each ──> SQLite
//! ```
//!
//! While one transaction commits, the next writes gather: that is the whole batching policy, there
//! is no timer. Writes of different namespaces take turns in a batch, so one that floods the
//! mailbox delays the others by one batch, not by its whole queue. Answers return by the mailbox of
//! the shard that took the call; at `eventual` a record goes to the shard that owns the key, for
//! its log.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prism_backends::{
    Selection, UnixMillis,
    sqlite::{Reader, Writer},
};
use prism_codec::grpc::{Code, Status};
use prism_wal::{ids::Lsn, tail::Payload};

use self::asks::Asks;
use super::fair_queue::FairQueue;
use crate::{
    api::{self, StoreCall},
    call::{
        context::Context,
        error::{self, Stage},
        event::ApplyBatch,
        group_waits::GroupWaits,
        job::{Answer, Job, ProvisionStep, Queued, Reply, Work, WriterMessage},
        ticket::Ticket,
        waiting::{self, Waiting},
    },
    log::{
        LogEvent,
        apply::{self, Records},
        committed::{Committed, Outlet},
    },
    namespace::spec::Path,
    runtime::{
        clock::WallClock,
        mailbox::{Mailbox, Waker},
        priority,
        threads::{self, Kind},
    },
};

/// Mutations of one transaction. More would delay the first of them for little gain.
const BATCH_MUTATIONS_MAX: usize = 512;

/// Rows that one step of the sweep examines, when the writer is idle.
const SWEEP_STEP: usize = 500;

/// Rows of large deletes that one step removes, between two batches: less than a millisecond or
/// two.
const REMOVAL_STEP: usize = 256;

/// Values of a file of an older format are moved in steps of about 1 MiB, with a pause after each:
/// the disk should carry some 50 MB/s of it, not all that it can.
const RELOCATION_STEP: usize = 512;
const RELOCATION_PAUSE: Duration = Duration::from_millis(20);

/// Pause after a failed step.
const STEP_PAUSE: Duration = Duration::from_secs(1);

/// Interval at which an idle writer looks for expired items.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Time for which expired items are kept, in milliseconds. A record of a log is judged by the time
/// of its call, and may wait for the store: an item that had not expired then must still be there,
/// or a replay could answer otherwise.
const SWEEP_MARGIN_MS: u64 = 60_000;

/// Time without work after which the writer frees its page cache.
const MEMORY_KEPT: Duration = Duration::from_secs(10);

/// Makes all helper threads finish their queues and end.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The mailboxes for answers, by shard.
pub(crate) type Replies = Vec<Arc<Mailbox<Reply>>>;

/// Mailboxes for events of the shards' logs, by shard.
pub(crate) type LogMailboxes = Vec<Arc<Mailbox<LogEvent>>>;

/// Mailboxes from the writer to the shards; those of one shard share a waker.
pub(crate) struct ToShards {
    pub(crate) replies: Replies,
    pub(crate) events: LogMailboxes,
    /// For records of writes at `eventual`.
    pub(crate) logs: Vec<Outlet>,
}

/// Parts that the writer and the readers share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) wall: WallClock,
    pub(crate) stop: Arc<Stop>,
    pub(crate) raise_priority: bool,
}

/// Starts the writer thread.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn_writer(
    writer: Writer,
    common: Common,
    mailbox: Arc<Mailbox<WriterMessage>>,
    waker: Arc<Waker>,
    shards: ToShards,
    checkpoint_waker: Arc<Waker>,
) -> io::Result<JoinHandle<()>> {
    let thread = WriterThread {
        writer,
        wall: common.wall,
        mailbox,
        waker,
        committed: Committed::new(shards.logs.len()),
        shards,
        checkpoint_waker,
        stop: common.stop,
        queue: FairQueue::default(),
        jobs: 0,
        barriers: Vec::new(),
        waiting: Waiting::default(),
        groups: GroupWaits::default(),
        ended: Vec::new(),
        next_removal: Instant::now(),
        next_relocation: Instant::now(),
    };
    threads::spawn(Kind::StoreWriter, None, move || {
        if common.raise_priority {
            priority::raise();
        }
        thread.run();
        Ok(())
    })
}

struct WriterThread {
    writer: Writer,
    wall: WallClock,
    mailbox: Arc<Mailbox<WriterMessage>>,
    waker: Arc<Waker>,
    shards: ToShards,
    /// Filled by each batch, and emptied at its end.
    committed: Committed,
    checkpoint_waker: Arc<Waker>,
    stop: Arc<Stop>,
    queue: FairQueue<Task>,
    /// Jobs in the queue.
    jobs: usize,
    /// Senders that wait for those.
    barriers: Vec<SyncSender<()>>,
    /// Calls that found nothing.
    waiting: Waiting,
    /// Asks of members of groups to which there is no news.
    groups: GroupWaits,
    /// Shards whose calls wait no longer.
    ended: Vec<u16>,
    /// Moment from which the next step of each kind may be taken.
    next_removal: Instant,
    next_relocation: Instant,
}

/// Work of the writer for one namespace.
enum Task {
    Job(Job),
    Apply(Box<ApplyBatch>),
}

impl WriterThread {
    fn run(mut self) {
        let mut next_sweep = Instant::now() + SWEEP_PAUSE;
        let mut release_at = None;
        if self.writer.relocation().is_some() {
            tracing::info!(
                "the store's file has an older format: its larger values are moved to a place of their own while it serves"
            );
        }
        loop {
            self.collect();
            let tasks = self.queue.take(BATCH_MUTATIONS_MAX);
            if !tasks.is_empty() {
                release_at = None;
                let mut jobs = Vec::with_capacity(tasks.len());
                for task in tasks {
                    match task {
                        Task::Job(job) => jobs.push(job),
                        Task::Apply(batch) => self.apply_log(&batch),
                    }
                }
                if !jobs.is_empty() {
                    self.jobs -= jobs.len();
                    let jobs = self.serve_groups(jobs);
                    self.apply(jobs);
                }
                let now = Instant::now();
                self.wake_groups(now);
                self.serve_waiting(now);
                self.go_on(now);
                continue;
            }
            if self.stop.is_set() || threads::fault_point(Kind::StoreWriter) {
                if let Err(error) = self.writer.settle_stamps() {
                    tracing::warn!(%error, "the next start stamps its writes up to a second ahead of the wall clock");
                }
                let rest = self.waiting.take_where(|_| true);
                self.answer_nothing(rest);
                return;
            }
            let now = Instant::now();
            self.wake_groups(now);
            if self.serve_waiting(now) {
                continue;
            }
            if now >= *release_at.get_or_insert(now + MEMORY_KEPT) {
                release_at = Some(now + Duration::from_secs(3_600));
                if let Err(error) = self.writer.release_memory() {
                    tracing::warn!(%error, "cannot give the store's page cache back");
                }
            }
            if self.go_on(now) {
                continue;
            }
            if now >= next_sweep {
                next_sweep = if self.sweep() { now } else { now + SWEEP_PAUSE };
                continue;
            }
            let mut until = self
                .waiting
                .next()
                .map_or(next_sweep, |next| next.min(next_sweep));
            if let Some(next) = self.groups.next() {
                until = until.min(next);
            }
            if self.writer.relocation().is_some() {
                until = until.min(self.next_relocation);
            }
            let (mailbox, stop) = (&self.mailbox, &self.stop);
            self.waker
                .wait_blocking(Some(until.saturating_duration_since(now)), || {
                    !mailbox.is_empty() || stop.is_set()
                });
        }
    }

    /// Does a bounded part of the work left by transactions or older programs. Also between two
    /// batches of a writer that is never idle, or the work would never be done. Returns whether
    /// more is due at once.
    fn go_on(&mut self, now: Instant) -> bool {
        let mut more = false;
        if self.writer.is_step_due() && now >= self.next_removal {
            match self.writer.step(REMOVAL_STEP) {
                Ok(left) => more = left,
                Err(error) => {
                    tracing::warn!(%error, "cannot remove what is deleted; trying again in a second");
                    self.next_removal = now + STEP_PAUSE;
                }
            }
        }
        if self.writer.relocation().is_some() && now >= self.next_relocation {
            self.next_relocation = now + RELOCATION_PAUSE;
            match self.writer.relocate(RELOCATION_STEP) {
                Ok(moved) if self.writer.relocation().is_none() => tracing::info!(
                    values = moved.values,
                    bytes = moved.bytes,
                    "all larger values of the store's file are moved"
                ),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot move values of an older format; trying again in a second");
                    self.next_relocation = now + STEP_PAUSE;
                }
            }
        }
        if self.writer.is_checkpointer_due() {
            self.checkpoint_waker.wake();
        }
        more
    }

    /// Empties the mailbox into the queue; executes commands as they arrive.
    fn collect(&mut self) {
        while let Some(message) = self.mailbox.receive() {
            match message {
                WriterMessage::Job(job) => {
                    let (namespace, weight) = (job.ticket.namespace, weight_of(&job));
                    self.queue.push(namespace, weight, Task::Job(job));
                    self.jobs += 1;
                }
                WriterMessage::Apply(batch) => {
                    let (namespace, weight) = (batch.namespace, batch.records.len());
                    self.queue.push(namespace, weight, Task::Apply(batch));
                }
                // The control thread may have stopped waiting; then the answer is not needed.
                WriterMessage::DeadLetters(job, done) => {
                    let _ = done.send(apply::serve_dead_letters(
                        &mut self.writer,
                        &job,
                        self.wall.unix_millis(),
                    ));
                }
                WriterMessage::EndWaits(shard) => {
                    self.ended.push(shard);
                    let of_shard = self.waiting.take_where(|job| job.ticket.shard == shard);
                    self.answer_nothing(of_shard);
                }
                // The sidecar may have ended; then nobody needs the answer.
                WriterMessage::Bury(letter, done) => {
                    let _ = done.send(apply::keep_letter(&mut self.writer, &letter));
                }
                WriterMessage::NoteStamp(stamp, done) => {
                    let _ = done.send(self.writer.note_stamp(stamp));
                }
                WriterMessage::Barrier(done) => self.barriers.push(done),
                WriterMessage::Provision(id, step, done) => {
                    let result = match step {
                        ProvisionStep::Inspect => Ok(()),
                        ProvisionStep::Create { .. } => self.writer.create_namespace(id),
                        ProvisionStep::Drop => self.writer.drop_namespace(id),
                    };
                    self.waiting.look_at(id, Some(Instant::now()));
                    let _ = done.send(result.map(|()| self.writer.presence(id)));
                }
            }
        }
        if self.jobs == 0 {
            for done in self.barriers.drain(..) {
                let _ = done.send(());
            }
        }
    }

    fn sweep(&mut self) -> bool {
        let before = UnixMillis(self.wall.unix_millis().0.saturating_sub(SWEEP_MARGIN_MS));
        match self.writer.sweep(before, SWEEP_STEP) {
            Ok(sweep) => sweep.more,
            Err(error) => {
                tracing::warn!(%error, "cannot sweep expired items; trying again in a second");
                false
            }
        }
    }

    /// Applies records of a shard's log and reports the result to the shard.
    fn apply_log(&mut self, batch: &ApplyBatch) {
        let namespace = batch.namespace;
        let records = Records::of(batch, self.wall.unix_millis());
        let events = match apply::apply_records(&mut self.writer, &records) {
            Ok(applied) => LogEvent::Applied {
                namespace,
                upto: batch.records.last().map_or(Lsn::NONE, |(lsn, _)| *lsn),
                verdicts: applied.verdicts,
                buried: applied.buried,
            },
            Err(error) => LogEvent::NotApplied { namespace, error },
        };
        send_event(&self.shards.events, batch.shard, events);
        self.waiting.look_at(namespace, Some(Instant::now()));
    }

    /// Applies the writes of many calls, one transaction for each API, answers each, and sends
    /// their records to the logs. A sleeping shard is woken once for all of its messages.
    ///
    /// A call that found nothing and may wait is kept.
    fn apply(&mut self, mut batch: Vec<Job>) {
        let (now, wall_now) = (Instant::now(), self.wall.unix_millis());
        let asides: Vec<Job> = batch
            .extract_if(.., |job| {
                matches!(job.work, Work::TakeBack { .. } | Work::Barrier { .. })
            })
            .collect();
        let may_wait = |job: &&Job| {
            waiting::until(job).is_some_and(|until| until > now) && !self.ended.contains(&job.ticket.shard)
        };
        let may_wait: Vec<Ticket> = batch.iter().filter(may_wait).map(|job| job.ticket).collect();
        let mut kept = Vec::new();
        let Self {
            writer,
            shards,
            committed,
            ..
        } = self;
        let mut answer = |ticket: Ticket, path: Path, bytes: usize, result: Result<Vec<u8>, Box<Status>>| {
            if result.as_ref().is_ok_and(Vec::is_empty) && may_wait.contains(&ticket) {
                kept.push(ticket);
                return;
            }
            let result = match path {
                Path::Queued => Ok(Answer::Unqueued(Queued {
                    bytes,
                    is_lost: result.is_err(),
                })),
                _ => result.map(Answer::Message),
            };
            let sent = shards.replies[usize::from(ticket.shard)].push(Reply { ticket, result });
            debug_assert!(sent.is_ok(), "{ROOM_FOR_ANSWERS}");
        };
        let mut calls = Vec::with_capacity(batch.len());
        for job in &batch {
            match call_of(job, now, wall_now) {
                Ok((call, _)) => calls.push(call),
                Err(status) => answer(job.ticket, Path::StoreOnly, 0, Err(status)),
            }
        }
        let stamps = calls.iter().map(|call| call.context.stamp.time_ns);
        writer.expect_stamp(stamps.max().unwrap_or(i64::MIN));
        // Stable: the writes of a namespace, which has one API, stay in their order.
        calls.sort_by_key(|call| call.method.api() as usize);
        for calls in calls.chunk_by(|one, next| one.method.api() == next.method.api()) {
            api::write(
                writer,
                calls,
                |write, changed| committed.push(write, changed.iter().copied()),
                |call, result| answer(call.ticket, call.path, call.body.len(), result),
            );
        }
        self.committed.hand_over(&self.shards.logs);
        for job in batch {
            if kept.contains(&job.ticket) {
                self.waiting.push(job);
            } else if !self.waiting.is_empty() {
                self.waiting.look_at(job.work.namespace(), Some(now));
            }
        }
        for job in asides {
            match job.work {
                // The earlier writes of its namespace are done.
                Work::Barrier { .. } => reply(&self.shards.replies, job.ticket, Ok(Answer::Reached)),
                _ => {
                    let waited = self.waiting.take_back(job.ticket);
                    self.answer_nothing(waited);
                }
            }
        }
        for (replies, log) in self.shards.replies.iter().zip(&self.shards.logs) {
            replies.wake();
            log.mailbox.wake();
        }
    }

    /// Answers calls that wait: those whose time is over with nothing, others if there is something
    /// for them. Whether some were tried, so that there may be more.
    fn serve_waiting(&mut self, now: Instant) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let ended = self.waiting.take_ended(now);
        self.answer_nothing(ended);
        let mut tried = false;
        for namespace in self.waiting.due(now) {
            let Some(method) = self.waiting.method(namespace) else {
                continue;
            };
            let wall_now = self.wall.unix_millis();
            match api::ready_at(&mut self.writer, method, namespace) {
                Ok(Some(at)) if at <= wall_now => {
                    let some = self.waiting.take_some(namespace);
                    self.apply(some);
                    self.waiting.look_at(namespace, Some(now));
                    tried = true;
                }
                Ok(at) => {
                    let left = |at: UnixMillis| now + Duration::from_millis(at.0 - wall_now.0);
                    self.waiting.look_at(namespace, at.map(left));
                }
                Err(cause) => {
                    for job in self.waiting.take_where(|job| job.work.namespace() == namespace) {
                        reply(&self.shards.replies, job.ticket, Err(error::from_store(&cause)));
                    }
                }
            }
        }
        tried
    }

    fn answer_nothing(&self, jobs: Vec<Job>) {
        for job in jobs {
            reply(&self.shards.replies, job.ticket, Ok(Answer::Message(Vec::new())));
        }
    }
}

/// The call of a job, and the records that a read must see in addition to the store's contents.
fn call_of(
    job: &Job,
    now: Instant,
    wall_now: UnixMillis,
) -> Result<(StoreCall<'_>, &[Payload]), Box<Status>> {
    if job.deadline.is_some_and(|deadline| deadline <= now) {
        return Err(error::deadline_exceeded(Stage::Store));
    }
    let Work::Unary {
        method,
        namespace,
        default_ttl_ms,
        body,
        stamp,
        path,
        overlay,
        ..
    } = &job.work
    else {
        return Err(error::status(Code::Internal, "this is no unary call"));
    };
    let call = StoreCall {
        ticket: job.ticket,
        method: *method,
        context: Context {
            namespace: *namespace,
            default_ttl_ms: *default_ttl_ms,
            now: wall_now,
            stamp: *stamp,
        },
        body,
        path: *path,
    };
    Ok((call, overlay))
}

/// Starts the reader thread of one shard.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn_reader(
    number: u16,
    reader: Reader,
    common: Common,
    mailbox: Arc<Mailbox<Job>>,
    waker: Arc<Waker>,
    replies: Replies,
) -> io::Result<JoinHandle<()>> {
    let Common {
        wall,
        stop,
        raise_priority,
    } = common;
    threads::spawn(Kind::StoreReader, Some(u32::from(number)), move || {
        if raise_priority {
            priority::raise();
        }
        let mut queue = FairQueue::default();
        let mut asks = Asks::new(&reader, waker.clone());
        loop {
            while let Some(job) = mailbox.receive() {
                queue.push(job.ticket.namespace, 1, job);
            }
            for job in asks.due() {
                queue.push(job.ticket.namespace, 1, job);
            }
            // One at a time, so that a namespace with new work gets its turn at once.
            let Some(job) = queue.take(1).pop() else {
                if stop.is_set() {
                    return Ok(());
                }
                waker.wait_blocking(None, || !mailbox.is_empty() || stop.is_set() || asks.any_due());
                if threads::fault_point(Kind::StoreReader) {
                    return Ok(());
                }
                continue;
            };
            let now = wall.unix_millis();
            match job.work {
                Work::Messages {
                    wanted,
                    place,
                    number,
                } => {
                    if let Some(answer) = asks.ask(&reader, job.ticket, wanted, place, number, now) {
                        reply(&replies, job.ticket, Ok(answer));
                    }
                }
                Work::TakeBack { .. } => asks.take_back(job.ticket),
                _ => reply(&replies, job.ticket, read(&reader, &job, now)),
            }
        }
    })
}

fn read(reader: &Reader, job: &Job, now: UnixMillis) -> Result<Answer, Box<Status>> {
    let mut message = Vec::new();
    let Work::ScanPage {
        namespace,
        page_bytes,
        item_limit,
        page_token,
    } = &job.work
    else {
        let (call, unapplied) = call_of(job, Instant::now(), now)?;
        api::read(reader, &call, unapplied, &mut message)?;
        return Ok(Answer::Message(message));
    };
    if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(error::deadline_exceeded(Stage::Store));
    }
    let selection = Selection {
        page_bytes: *page_bytes,
        item_limit: *item_limit,
        page_token,
    };
    let next = api::read_page(reader, *namespace, selection, now, &mut message)?;
    Ok(Answer::Page { message, next })
}

pub(crate) fn send_event(events: &LogMailboxes, shard: u16, said: LogEvent) {
    let sent = events[usize::from(shard)].send(said);
    debug_assert!(sent.is_ok(), "a log has few questions open at a time");
}

fn reply(replies: &Replies, ticket: Ticket, result: Result<Answer, Box<Status>>) {
    let sent = replies[usize::from(ticket.shard)].send(Reply { ticket, result });
    debug_assert!(sent.is_ok(), "{ROOM_FOR_ANSWERS}");
}

const ROOM_FOR_ANSWERS: &str = "the mailbox for answers holds as many as calls may wait";

/// Weight of a job, in mutations; large bodies count for more, since bytes take time too.
fn weight_of(job: &Job) -> usize {
    match &job.work {
        Work::Unary { body, .. } => 1 + body.len() / 1_024,
        _ => 1,
    }
}

mod asks;
mod groups;

#[cfg(test)]
mod tests;
