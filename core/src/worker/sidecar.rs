//! The thread of one shard that drives the connections to servers' stores, in a tokio runtime of
//! its own.
//!
//! ```text
//!   shard ── mailboxes ──> queue, by namespace in turn ──> places ──> tasks ──> server
//!         <── replies ─────────────────────────────────────────────────┘
//! ```
//!
//! Each store has as many places as calls may be in flight on this shard's connections to it. A
//! place is taken by one read, or by all waiting writes, as one batch: during one round trip the
//! next batch gathers, without a timer. Calls in flight are never interrupted. A call after its
//! deadline is answered by its shard; here it is skipped if it has not been sent, and its late
//! answer is dropped. A store that hangs has its queue refused at once ([`Breaker`]) until it
//! answers a probe, and its places are its own: other stores of the thread are unaffected.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prism_backends::{
    NamespaceId, Selection, StoreError, UnixMillis,
    api::Stores,
    server::{Server, ServerConfig, Share},
};
use prism_codec::grpc::{Code, Status};
use prism_wal::ids::{LaneId, Lsn};
use rustc_hash::FxHashMap;
use tokio::{io::unix::AsyncFd, sync::Notify, task::LocalSet};

pub(crate) use self::asks::Arrivals;
use self::{
    asks::Asks,
    provision::needed,
    waits::{Waits, is_direct},
};
use super::{
    breaker::Breaker,
    fair_queue::FairQueue,
    sqlite::{Stop, ToShards},
};
use crate::{
    api::{self, StoreCall},
    call::{
        context::Context,
        error::{self, Stage},
        event::ApplyBatch,
        job::{Answer, Durabilities, Job, Reply, Work, WriterMessage},
        receipt,
        record::LoggedWrite,
        ticket::Ticket,
    },
    log::{apply_later::Letters, committed::Committed, stamps::Stamps},
    metrics::StoreMetrics,
    runtime::{
        clock::WallClock,
        mailbox::{Mailbox, Waker},
        threads::{self, Kind},
    },
};

/// Mutations of one batch; large bodies count for more.
const BATCH_MAX: usize = 512;

/// Most jobs that wait in the queues of one store. Further ones wait in the mailboxes, which are
/// bounded.
const QUEUED_MAX: usize = 8_192;

/// Pause between two looks after the store.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Longest time that the end of the gateway waits for a store that does not answer.
const END_MAX: Duration = Duration::from_secs(5);

/// A store, and the mailboxes by which one shard, or several, reach it here.
pub(crate) struct SidecarStore {
    pub(crate) name: String,
    pub(crate) config: ServerConfig,
    /// Catalog that numbers the namespaces.
    pub(crate) owner: u128,
    pub(crate) share: Share,
    /// Durability that the acknowledgement of a write reports, by namespace; `None`: best effort.
    pub(crate) durabilities: Durabilities,
    pub(crate) metrics: Arc<StoreMetrics>,
    /// Whether other gateways may use it, too.
    pub(crate) is_shared: bool,
    /// Shared with the sidecars of the other shards.
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) reads: Arc<Mailbox<Job>>,
    pub(crate) writes: Arc<Mailbox<WriterMessage>>,
}

/// Parts that the thread needs.
pub(crate) struct SidecarSetup {
    pub(crate) shard: u16,
    pub(crate) stores: Vec<SidecarStore>,
    /// Wakes the thread; the mailboxes share it. One with a bell.
    pub(crate) waker: Arc<Waker>,
    pub(crate) wall: WallClock,
    pub(crate) stop: Arc<Stop>,
    pub(crate) shards: ToShards,
    /// Where records go that a store refuses for ever.
    pub(crate) letters: Letters,
    /// Go on with a store or a log that was replaced, as wal.on_corruption says.
    pub(crate) accept_loss: bool,
}

/// Starts the thread.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn(setup: SidecarSetup) -> io::Result<JoinHandle<()>> {
    threads::spawn(Kind::Sidecar, Some(u32::from(setup.shard)), move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let local = LocalSet::new();
        let sidecar = runtime.block_on(local.run_until(async { Sidecar::new(setup) }))?;
        let ended = runtime.block_on(local.run_until(sidecar.run()));
        drop(local);
        // Threads that wait for a server which hangs may do so longer than the gateway.
        runtime.shutdown_background();
        ended
    })
}

/// The thread.
struct Sidecar {
    stores: Vec<Rc<Store>>,
    waker: Arc<Waker>,
    bell: AsyncFd<std::os::fd::OwnedFd>,
    stop: Arc<Stop>,
    /// Raised when a task has ended, so that there may be a place.
    ended: Arc<Notify>,
}

/// One store as its tasks share it.
struct Store {
    setup: SidecarStore,
    server: Server,
    stores: Stores,
    asks: Asks,
    breaker: RefCell<Breaker>,
    /// Reason why the last call could not reach the store.
    refusal: RefCell<Option<String>>,
    reads: RefCell<FairQueue<Job>>,
    writes: RefCell<FairQueue<Task>>,
    queued: Cell<usize>,
    /// Batches of writes in flight.
    writing: Cell<u32>,
    /// Whether the next place goes to a read, if both wait.
    read_first: Cell<bool>,
    is_prepared: Cell<bool>,
    /// Calls that found nothing, and what tells them to look again.
    waits: RefCell<Waits>,
    /// Senders that wait until everything queued before is done.
    barriers: RefCell<Vec<SyncSender<()>>>,
    next_sweep: Cell<Instant>,
    wall: WallClock,
    shards: Rc<ToShards>,
    letters: Letters,
    accept_loss: bool,
    /// How far the store has got with each lane and namespace; `None` after a batch of unknown
    /// outcome. What is not there has not been asked for.
    noted: RefCell<FxHashMap<(LaneId, NamespaceId), Option<Lsn>>>,
    is_looking: Cell<bool>,
    stamps: Stamps,
    ended: Arc<Notify>,
}

/// Work that writes to a store.
enum Task {
    Job(Job),
    Apply(Box<ApplyBatch>),
}

impl Sidecar {
    fn new(setup: SidecarSetup) -> io::Result<Self> {
        let Some(bell) = setup.waker.bell() else {
            return Err(io::Error::other("the waker of a sidecar needs a bell"));
        };
        #[allow(
            deprecated,
            reason = "an `OwnedFd` is open for as long as it lives, which is all that is asked of it"
        )]
        let bell = AsyncFd::new(bell.try_clone_to_owned()?)?;
        let ended = Arc::new(Notify::new());
        let shards = Rc::new(setup.shards);
        let store = |own: SidecarStore| {
            let server = own.config.open(own.share).map_err(io::Error::other)?;
            server.listen(ended.clone());
            Ok(Rc::new(Store {
                stores: server.stores(),
                asks: Asks::new(own.arrivals.clone(), server.brings_news()),
                server,
                breaker: RefCell::default(),
                refusal: RefCell::default(),
                reads: RefCell::default(),
                writes: RefCell::default(),
                queued: Cell::new(0),
                writing: Cell::new(0),
                read_first: Cell::new(true),
                is_prepared: Cell::new(false),
                waits: RefCell::default(),
                barriers: RefCell::default(),
                next_sweep: Cell::new(Instant::now() + SWEEP_PAUSE),
                wall: setup.wall.clone(),
                shards: shards.clone(),
                letters: setup.letters.clone(),
                accept_loss: setup.accept_loss,
                noted: RefCell::default(),
                is_looking: Cell::new(false),
                stamps: Stamps::new(own.name.clone(), setup.letters.clone()),
                ended: ended.clone(),
                setup: own,
            }))
        };
        let stores: io::Result<Vec<_>> = setup.stores.into_iter().map(store).collect();
        Ok(Self {
            stores: stores?,
            waker: setup.waker,
            bell,
            stop: setup.stop,
            ended,
        })
    }

    async fn run(self) -> io::Result<()> {
        let mut end_at = None;
        loop {
            if threads::fault_point(Kind::Sidecar) {
                return Ok(());
            }
            let now = Instant::now();
            for store in &self.stores {
                store.collect();
                store.hear_news(now);
                store.attend_asks(now);
                store.serve_waits(now);
                store.start_tasks(now);
                store.note_metrics(now);
            }
            if self.stop.is_set() {
                self.stores.iter().for_each(|store| store.end_waits(None));
                let end_at = *end_at.get_or_insert(now + END_MAX);
                if now >= end_at || self.stores.iter().all(|store| store.is_done()) {
                    return Ok(());
                }
            }
            self.wait(end_at).await?;
        }
    }

    /// Waits for a message, for the end of a task, or for the time at which something is due.
    async fn wait(&self, end_at: Option<Instant>) -> io::Result<()> {
        let due = self
            .stores
            .iter()
            .map(|store| store.next_due())
            .chain(end_at)
            .min();
        let pause = due.unwrap_or_else(|| Instant::now() + SWEEP_PAUSE);
        let is_ending = end_at.is_some();
        let has_work =
            || (self.stop.is_set() && !is_ending) || self.stores.iter().any(|store| store.has_messages());
        if !self.waker.prepare_sleep(has_work) {
            // Tasks, and the driver of their sockets, get their turn between two messages.
            tokio::task::yield_now().await;
            return Ok(());
        }
        tokio::select! {
            rung = self.bell.readable() => rung?.clear_ready(),
            () = self.ended.notified() => {}
            () = tokio::time::sleep_until(pause.into()) => {}
        }
        self.waker.end_sleep();
        Ok(())
    }
}

impl Store {
    fn has_messages(&self) -> bool {
        self.queued.get() < QUEUED_MAX && (!self.setup.reads.is_empty() || !self.setup.writes.is_empty())
    }

    /// Empties the mailboxes into the queues.
    fn collect(self: &Rc<Self>) {
        while self.queued.get() < QUEUED_MAX {
            let Some(job) = self.setup.reads.receive() else {
                break;
            };
            match &job.work {
                Work::TakeBack { .. } => self.asks.take_back(job.ticket),
                work => {
                    if let Work::Messages { .. } = work {
                        self.asks.open(job.ticket);
                    }
                    self.queue(&self.reads, job.ticket.namespace, weight_of(&job), job);
                }
            }
        }
        while self.queued.get() < QUEUED_MAX {
            let Some(message) = self.setup.writes.receive() else {
                break;
            };
            match message {
                WriterMessage::Job(job) if matches!(job.work, Work::TakeBack { .. }) => self.take_back(&job),
                WriterMessage::Job(job) => {
                    let (namespace, weight) = (job.ticket.namespace, weight_of(&job));
                    match is_direct(&job) {
                        true => self.queue(&self.reads, namespace, weight, job),
                        false => self.queue(&self.writes, namespace, weight, Task::Job(job)),
                    }
                }
                WriterMessage::Apply(batch) => {
                    let (namespace, weight) = (batch.namespace, batch.records.len());
                    self.queue(&self.writes, namespace, weight, Task::Apply(batch));
                }
                WriterMessage::Barrier(done) => self.barriers.borrow_mut().push(done),
                WriterMessage::Provision(id, step, done) => {
                    let store = self.clone();
                    self.spawn(async move {
                        let provisioned = store.provision(id, step).await;
                        let answered = store.is_answer(&provisioned);
                        // The sender may have stopped waiting; then the answer is not needed.
                        let _ = done.send(provisioned);
                        answered
                    });
                }
                WriterMessage::DeadLetters(_, done) => {
                    let _ = done.send(Ok(Vec::new()));
                }
                WriterMessage::EndWaits(shard) => self.end_waits(Some(shard)),
                // Dead letters and stamps are kept in SQLite's file.
                WriterMessage::Bury(..) | WriterMessage::NoteStamp(..) => {
                    debug_assert!(false, "no server keeps these");
                }
            }
        }
        if self.queued.get() == 0 && self.writing.get() == 0 {
            for done in self.barriers.borrow_mut().drain(..) {
                let _ = done.send(());
            }
        }
    }

    fn note_metrics(&self, now: Instant) {
        let metrics = &self.setup.metrics;
        if let Some((open, in_use)) = self.server.connections() {
            metrics.connections_open.set(open as u64);
            metrics.connections_in_use.set(in_use as u64);
        }
        metrics.calls_waiting.set(self.queued.get() as u64);
        metrics
            .breaker_open
            .set(u64::from(self.breaker.borrow().is_open(now)));
    }

    fn queue<T>(&self, queue: &RefCell<FairQueue<T>>, namespace: NamespaceId, weight: usize, task: T) {
        queue.borrow_mut().push(namespace, weight, task);
        self.queued.set(self.queued.get() + 1);
        if self.breaker.borrow().under_way() >= self.server.places() {
            self.setup.metrics.waits.add(1);
        }
    }

    /// Assigns the free places to waiting jobs. If the store hangs, all waiting jobs are answered
    /// with that.
    fn start_tasks(self: &Rc<Self>, now: Instant) {
        if self.breaker.borrow_mut().begin_probe(now) {
            self.probe();
        }
        if self.breaker.borrow().is_open(now) {
            return self.refuse_all();
        }
        let places = self.server.places();
        // Some places stay for reads, and the batches of writes gather.
        let writing_max = places.div_ceil(2);
        while self.breaker.borrow().under_way() < places {
            let (reads, writes) = (!self.reads.borrow().is_empty(), !self.writes.borrow().is_empty());
            let writes = writes && self.writing.get() < writing_max;
            match (reads, writes, self.read_first.get()) {
                (false, false, _) => break,
                (true, false, _) | (true, true, true) => self.start_read(),
                (false, true, _) | (true, true, false) => self.start_batch(),
            }
        }
        if now >= self.next_sweep.get() {
            self.next_sweep.set(now + SWEEP_PAUSE);
            self.upkeep();
        }
    }

    fn start_read(self: &Rc<Self>) {
        self.read_first.set(false);
        let mut jobs = self.reads.borrow_mut().take(1);
        self.queued.set(self.queued.get() - jobs.len());
        self.refuse_late(&mut jobs);
        for job in jobs {
            let store = self.clone();
            match job.work {
                Work::Messages { .. } => {
                    if self.asks.is_open(job.ticket) {
                        self.spawn(async move { store.serve_ask(job).await });
                    }
                }
                _ => self.spawn(async move {
                    let result = store.read(&job).await;
                    store.finish_read(job, result)
                }),
            }
        }
    }

    fn start_batch(self: &Rc<Self>) {
        self.read_first.set(true);
        let tasks = self.writes.borrow_mut().take(BATCH_MAX);
        self.queued.set(self.queued.get() - tasks.len());
        let (mut jobs, mut batches) = (Vec::new(), Vec::new());
        for task in tasks {
            match task {
                Task::Job(job) => jobs.push(job),
                Task::Apply(batch) => batches.push(batch),
            }
        }
        self.refuse_late(&mut jobs);
        if jobs.is_empty() && batches.is_empty() {
            return;
        }
        let store = self.clone();
        self.writing.set(self.writing.get() + 1);
        self.spawn(async move {
            // Callers wait for the jobs; for records, few do.
            let mut answered = jobs.is_empty() || store.write(&jobs).await;
            for batch in batches {
                answered = store.apply(&batch).await;
            }
            store.writing.set(store.writing.get() - 1);
            answered
        });
    }

    /// Answers the jobs after their deadline, and leaves them out: the store is not asked.
    fn refuse_late(&self, jobs: &mut Vec<Job>) {
        jobs.retain(|job| match check_deadline(job) {
            Ok(()) => true,
            Err(late) => {
                self.reply(job, Err(late));
                false
            }
        });
    }

    /// Runs a task that uses the store to its end. The task returns whether the store has answered.
    fn spawn(self: &Rc<Self>, task: impl Future<Output = bool> + 'static) {
        self.breaker.borrow_mut().begin(Instant::now());
        let store = self.clone();
        tokio::task::spawn_local(async move {
            let answered = task.await;
            store.breaker.borrow_mut().end(answered, Instant::now());
            store.ended.notify_one();
        });
    }

    /// Sends small probes to a store that hangs, until it answers.
    fn probe(self: &Rc<Self>) {
        let store = self.clone();
        tokio::task::spawn_local(async move {
            let presence = store.server.presence(NamespaceId(0)).await;
            let answered = store.is_answer(&presence);
            store.breaker.borrow_mut().end_probe(answered, Instant::now());
            store.ended.notify_one();
        });
    }

    /// Whether a result came from the store, and not from a connection that could not be made or
    /// broke.
    fn is_answer<T>(&self, result: &Result<T, StoreError>) -> bool {
        match result {
            Err(StoreError::Unreachable { detail } | StoreError::Io { detail, .. }) => {
                self.refusal.replace(Some(detail.clone()));
                false
            }
            _ => true,
        }
    }

    fn refuse_all(&self) {
        let (name, address) = (&self.setup.name, self.setup.config.address());
        let mut detail = format!("{name} at {address} does not answer");
        if let Some(why) = &*self.refusal.borrow() {
            detail = format!("{detail} ({why})");
        }
        let cause = || StoreError::Unreachable {
            detail: detail.clone(),
        };
        self.setup.metrics.refused.add(self.queued.get() as u64);
        let refuse = |job: &Job| {
            self.asks.take_back(job.ticket);
            self.reply(job, Err(error::from_store(&cause())));
        };
        self.reads.borrow_mut().take(usize::MAX).iter().for_each(refuse);
        for task in self.writes.borrow_mut().take(usize::MAX) {
            match task {
                Task::Job(job) => refuse(&job),
                Task::Apply(batch) => self.tell_not_applied(&batch, cause()),
            }
        }
        self.queued.set(0);
        self.refuse_waits(&cause());
    }

    async fn read(&self, job: &Job) -> Result<Answer, Box<Status>> {
        let now = self.wall.unix_millis();
        let mut message = Vec::new();
        let Work::ScanPage {
            namespace,
            page_bytes,
            item_limit,
            page_token,
        } = &job.work
        else {
            let call = call_of(job, now)?;
            api::read_later(&self.stores, &call, &mut message).await?;
            return Ok(Answer::Message(message));
        };
        check_deadline(job)?;
        let selection = Selection {
            page_bytes: *page_bytes,
            item_limit: *item_limit,
            page_token,
        };
        let next = api::read_page_later(&self.stores, *namespace, selection, now, &mut message).await?;
        Ok(Answer::Page { message, next })
    }

    /// Applies the writes of many calls as one batch for each durability and API. Returns whether
    /// the store has answered, or was not asked.
    async fn write(&self, jobs: &[Job]) -> bool {
        let (mut asked, mut answered) = (false, false);
        let now = self.wall.unix_millis();
        let mut calls = Vec::with_capacity(jobs.len());
        for job in jobs {
            match call_of(job, now) {
                Ok(call) => calls.push((self.durability_of(call.context.namespace), job, call)),
                Err(status) => {
                    self.reply(job, Err(status));
                }
            }
        }
        self.stamps
            .note(calls.iter().map(|(_, _, call)| call.context.stamp.time_ns))
            .await;
        let kind =
            |(durability, _, call): &(i32, &Job, StoreCall<'_>)| (*durability, call.method.api() as usize);
        calls.sort_by_key(kind);
        let mut committed = Committed::new(self.shards.logs.len());
        let mut answers = Vec::with_capacity(calls.len());
        for group in calls.chunk_by(|one, other| kind(one) == kind(other)) {
            if let Some(detail) = self.server.shortfall(needed(group[0].0)) {
                let status = error::from_store(&StoreError::Unreachable { detail });
                for (_, job, _) in group {
                    self.reply(job, Err(status.clone()));
                }
                continue;
            }
            let own: Vec<StoreCall<'_>> = group.iter().map(|(_, _, call)| *call).collect();
            let mut jobs = group.iter().map(|(_, job, _)| *job);
            let log =
                |write: &LoggedWrite<'_>, changed: &[&str]| committed.push(write, changed.iter().copied());
            // One answer for each call, in their order.
            let answer = |_: &StoreCall<'_>, result| answers.extend(jobs.next().map(|job| (job, result)));
            api::write_later(&self.stores, &own, group[0].0, log, answer).await;
            self.note_arrivals(&own);
            self.note_calls(&own);
            asked = true;
        }
        // Before the answers: who has one may take it that the record is on its way, at the end of
        // the gateway, too.
        committed.hand_over(&self.shards.logs);
        self.shards.logs.iter().for_each(|log| log.mailbox.wake());
        for (job, result) in answers {
            answered |= self.reply(job, result.map(Answer::Message));
        }
        answered || !asked
    }

    fn durability_of(&self, NamespaceId(namespace): NamespaceId) -> i32 {
        let known = self.setup.durabilities.read();
        let known = known.as_ref().ok().and_then(|known| known.get(&namespace));
        known.copied().unwrap_or(receipt::BEST_EFFORT)
    }

    /// Answers a call. Returns whether the answer is the store's own.
    fn reply(&self, job: &Job, result: Result<Answer, Box<Status>>) -> bool {
        let answered = result.as_ref().err().is_none_or(|status| {
            status.code != Code::Unavailable || status.reason().as_deref() == Some("STORE_BUSY")
        });
        self.send(job.ticket, result);
        answered
    }

    fn send(&self, ticket: Ticket, result: Result<Answer, Box<Status>>) {
        let sent = self.shards.replies[usize::from(ticket.shard)].send(Reply { ticket, result });
        debug_assert!(
            sent.is_ok(),
            "the mailbox for answers holds as many as calls may wait"
        );
    }

    fn is_done(&self) -> bool {
        self.breaker.borrow().under_way() == 0 && self.queued.get() == 0 && !self.has_messages()
    }

    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let latest = now + SWEEP_PAUSE;
        let looks = self.waits.borrow().next();
        let due = [self.breaker.borrow().next_due(now), self.asks.next_look(), looks];
        due.into_iter().flatten().fold(latest, Instant::min)
    }
}

/// The call of a job that has not been sent yet.
fn call_of(job: &Job, now: UnixMillis) -> Result<StoreCall<'_>, Box<Status>> {
    check_deadline(job)?;
    let Work::Unary {
        method,
        namespace,
        default_ttl_ms,
        body,
        stamp,
        path,
        ..
    } = &job.work
    else {
        return Err(error::status(Code::Internal, "a store was asked about the log"));
    };
    Ok(StoreCall {
        ticket: job.ticket,
        method: *method,
        context: Context {
            namespace: *namespace,
            default_ttl_ms: *default_ttl_ms,
            now,
            stamp: *stamp,
        },
        body,
        path: *path,
    })
}

fn check_deadline(job: &Job) -> Result<(), Box<Status>> {
    match job.deadline {
        Some(deadline) if deadline <= Instant::now() => Err(error::deadline_exceeded(Stage::Store)),
        _ => Ok(()),
    }
}

/// Weight of a job, in mutations; large bodies count for more, since bytes take time too.
fn weight_of(job: &Job) -> usize {
    match &job.work {
        Work::Unary { body, .. } => 1 + body.len() / 1_024,
        _ => 1,
    }
}

mod asks;
mod provision;
mod records;
mod upkeep;
mod waits;
