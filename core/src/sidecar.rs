//! The helper threads of the SQLite store: one writer for the whole process, one reader for each shard, one checkpointer.
//!
//! ```text
//!   shard 0 ─┐                 ┌─ writer ── waiting writes of all shards, one transaction ──> SQLite
//!   shard 1 ─┼── mailboxes ────┤
//!            └                 └─ reader 0, reader 1 ── a snapshot each ──> SQLite
//! ```
//!
//! While one transaction commits, the next writes gather: that is the whole batching policy, there is no timer. Writes of
//! different namespaces take turns in a batch, so one that floods the mailbox delays the others by one batch, not by its
//! whole queue. Answers go back by the mailbox of the shard that took the call.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prism_backends::{
    NamespaceId, Outcome, Selection, StoreError,
    sqlite::{Checkpointer, Reader, Writer},
};
use prism_codec::grpc::{Code, Status};
use rustc_hash::FxHashMap;

use crate::{
    gateway::{
        error,
        job::{Answer, Job, Reply, Ticket, Work, WriterMessage},
        keyvalue::{self, Context, Request, Writes},
        route::Method,
        unix_millis,
    },
    shard::mailbox::{Mailbox, Waker},
};

/// Mutations of one transaction. More would delay the first of them for little gain.
const BATCH_MUTATIONS_MAX: usize = 512;

/// Rows that one step of the sweep looks at, when the writer has nothing else to do.
const SWEEP_STEP: usize = 500;

/// How often an idle writer looks for expired items.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// How long the writer is without work before it gives its page cache back.
const MEMORY_KEPT: Duration = Duration::from_secs(10);

/// Tells all helper threads to finish what is queued and end.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The mailboxes for answers, by shard.
pub(crate) type Replies = Vec<Arc<Mailbox<Reply>>>;

/// Starts the writer thread.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn_writer(
    writer: Writer,
    mailbox: Arc<Mailbox<WriterMessage>>,
    waker: Arc<Waker>,
    replies: Replies,
    checkpoint_waker: Arc<Waker>,
    stop: Arc<Stop>,
) -> io::Result<JoinHandle<()>> {
    let thread = WriterThread {
        writer,
        mailbox,
        waker,
        replies,
        checkpoint_waker,
        stop,
        queue: FairQueue::default(),
    };
    thread::Builder::new()
        .name("prism-writer".to_owned())
        .spawn(move || thread.run())
}

struct WriterThread {
    writer: Writer,
    mailbox: Arc<Mailbox<WriterMessage>>,
    waker: Arc<Waker>,
    replies: Replies,
    checkpoint_waker: Arc<Waker>,
    stop: Arc<Stop>,
    queue: FairQueue,
}

impl WriterThread {
    fn run(mut self) {
        let mut next_sweep = Instant::now() + SWEEP_PAUSE;
        let mut release_at = None;
        loop {
            self.collect();
            let batch = self.queue.take(BATCH_MUTATIONS_MAX);
            if !batch.is_empty() {
                release_at = None;
                self.apply(&batch);
                self.checkpoint_waker.wake();
                continue;
            }
            if self.stop.is_set() {
                return;
            }
            let now = Instant::now();
            if now >= *release_at.get_or_insert(now + MEMORY_KEPT) {
                release_at = Some(now + Duration::from_secs(3_600));
                if let Err(error) = self.writer.release_memory() {
                    tracing::warn!(%error, "cannot give the store's page cache back");
                }
            }
            if now >= next_sweep {
                next_sweep = if self.sweep() { now } else { now + SWEEP_PAUSE };
                continue;
            }
            let (mailbox, stop) = (&self.mailbox, &self.stop);
            self.waker
                .wait_blocking(Some(next_sweep - now), || !mailbox.is_empty() || stop.is_set());
        }
    }

    /// Empties the mailbox into the queue; obeys commands as they come.
    fn collect(&mut self) {
        while let Some(message) = self.mailbox.receive() {
            match message {
                WriterMessage::Job(job) => self.queue.push(job),
                // The control thread may have given up waiting; then nobody needs the answer.
                WriterMessage::CreateNamespace(id, done) => {
                    let _ = done.send(self.writer.create_namespace(id));
                }
                WriterMessage::DropNamespace(id, done) => {
                    let _ = done.send(self.writer.drop_namespace(id));
                }
            }
        }
    }

    fn sweep(&mut self) -> bool {
        match self.writer.sweep(unix_millis(), SWEEP_STEP) {
            Ok(sweep) => sweep.more,
            Err(error) => {
                tracing::warn!(%error, "cannot sweep expired items; trying again in a second");
                false
            }
        }
    }

    /// Applies the writes of many calls in one transaction and answers each.
    fn apply(&mut self, batch: &[Job]) {
        let now = Instant::now();
        let prepared: Vec<Result<Prepared<'_>, Box<Status>>> =
            batch.iter().map(|job| prepare(job, now)).collect();
        let mutations: Vec<_> = prepared
            .iter()
            .flatten()
            .flat_map(|prepared| prepared.writes.mutations.iter().map(keyvalue::Prepared::mutation))
            .collect();
        let mut outcomes = Vec::with_capacity(mutations.len());
        let applied = if mutations.is_empty() {
            Ok(())
        } else {
            self.writer.apply(&mutations, unix_millis(), &mut outcomes)
        };
        drop(mutations);
        if let Err(cause) = &applied {
            tracing::warn!(error = %cause, calls = batch.len(), "the store refused a batch");
        }
        let mut outcomes = outcomes.into_iter();
        for (job, prepared) in batch.iter().zip(prepared) {
            let result = prepared.and_then(|prepared| answer(prepared, &applied, &mut outcomes));
            reply(&self.replies, job.ticket, result);
        }
    }
}

/// The writes of one call.
struct Prepared<'a> {
    method: Method,
    context: Context,
    writes: Writes<'a>,
}

fn prepare(job: &Job, now: Instant) -> Result<Prepared<'_>, Box<Status>> {
    if job.deadline.is_some_and(|deadline| deadline <= now) {
        return Err(error::status(
            Code::DeadlineExceeded,
            "the deadline passed before the store was asked",
        ));
    }
    let Work::Unary {
        method,
        namespace,
        default_ttl_ms,
        body,
        stamp,
        ..
    } = &job.work
    else {
        return Err(error::status(Code::Internal, "a read was sent to the writer"));
    };
    let context = Context {
        namespace: *namespace,
        default_ttl_ms: *default_ttl_ms,
        now: unix_millis(),
        stamp: *stamp,
    };
    let request = Request::decode(*method, body)?;
    Ok(Prepared {
        method: *method,
        context,
        writes: keyvalue::writes(&request, &context, |_| true),
    })
}

fn answer(
    prepared: Prepared<'_>,
    applied: &Result<(), StoreError>,
    outcomes: &mut impl Iterator<Item = Outcome>,
) -> Result<Answer, Box<Status>> {
    if let Err(cause) = applied {
        return Err(error::from_store(cause));
    }
    let count = prepared.writes.mutations.len();
    let mut message = Vec::new();
    let own = outcomes.by_ref().take(count).collect::<Vec<_>>().into_iter();
    keyvalue::encode_outcomes(
        prepared.method,
        prepared.writes,
        own,
        &prepared.context,
        &mut message,
    )?;
    Ok(Answer::Message(message))
}

/// Starts the reader thread of one shard.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn_reader(
    number: u16,
    reader: Reader,
    mailbox: Arc<Mailbox<Job>>,
    waker: Arc<Waker>,
    replies: Replies,
    stop: Arc<Stop>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(format!("prism-reader-{number}"))
        .spawn(move || {
            let mut queue = FairQueue::default();
            loop {
                while let Some(job) = mailbox.receive() {
                    queue.push(job);
                }
                // One at a time, so that a namespace that has just come gets its turn at once.
                let Some(job) = queue.take(1).pop() else {
                    if stop.is_set() {
                        return;
                    }
                    waker.wait_blocking(None, || !mailbox.is_empty() || stop.is_set());
                    continue;
                };
                reply(&replies, job.ticket, read(&reader, &job));
            }
        })
}

fn read(reader: &Reader, job: &Job) -> Result<Answer, Box<Status>> {
    if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(error::status(
            Code::DeadlineExceeded,
            "the deadline passed before the store was asked",
        ));
    }
    let now = unix_millis();
    let mut message = Vec::new();
    match &job.work {
        Work::Unary {
            method,
            namespace,
            default_ttl_ms,
            body,
            stamp,
            ..
        } => {
            let context = Context {
                namespace: *namespace,
                default_ttl_ms: *default_ttl_ms,
                now,
                stamp: *stamp,
            };
            let Request::Get(view) = Request::decode(*method, body)? else {
                return Err(error::status(Code::Internal, "a write was sent to a reader"));
            };
            keyvalue::get(&view, &context, &mut message, |query, sink| {
                reader.get(query, now, sink)
            })?;
            Ok(Answer::Message(message))
        }
        Work::ScanPage {
            namespace,
            page_bytes,
            item_limit,
            page_token,
        } => {
            let selection = Selection {
                page_bytes: *page_bytes,
                item_limit: *item_limit,
                page_token,
            };
            let next = keyvalue::scan_page(*namespace, selection, now, &mut message, |query, sink| {
                reader.scan(query, now, sink)
            })?;
            Ok(Answer::Page { message, next })
        }
    }
}

/// Starts the thread that moves the write-ahead file into the database while the writer goes on.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn_checkpointer(
    mut checkpointer: Checkpointer,
    waker: Arc<Waker>,
    stop: Arc<Stop>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("prism-checkpoint".to_owned())
        .spawn(move || {
            while !stop.is_set() {
                if checkpointer.is_due() {
                    if let Err(error) = checkpointer.checkpoint() {
                        tracing::warn!(%error, "cannot checkpoint the store; trying again in a second");
                        waker.wait_blocking(Some(Duration::from_secs(1)), || stop.is_set());
                    }
                    continue;
                }
                waker.wait_blocking(None, || checkpointer.is_due() || stop.is_set());
            }
        })
}

fn reply(replies: &Replies, ticket: Ticket, result: Result<Answer, Box<Status>>) {
    let sent = replies[usize::from(ticket.shard)].send(Reply { ticket, result });
    debug_assert!(
        sent.is_ok(),
        "the mailbox for answers holds as many as calls may wait"
    );
}

/// Jobs in order within a namespace, namespaces in turn.
#[derive(Default)]
struct FairQueue {
    by_namespace: FxHashMap<u32, VecDeque<Job>>,
    /// Namespaces with jobs, in the order of their turns.
    turns: VecDeque<u32>,
}

impl FairQueue {
    fn push(&mut self, job: Job) {
        let NamespaceId(namespace) = job.ticket.namespace;
        let jobs = self.by_namespace.entry(namespace).or_default();
        if jobs.is_empty() {
            self.turns.push_back(namespace);
        }
        jobs.push_back(job);
    }

    /// Takes jobs in turn until they carry `weight` mutations or more.
    fn take(&mut self, weight: usize) -> Vec<Job> {
        let mut taken = Vec::new();
        let mut sum = 0;
        while sum < weight
            && let Some(namespace) = self.turns.pop_front()
        {
            let Some(jobs) = self.by_namespace.get_mut(&namespace) else {
                continue;
            };
            if let Some(job) = jobs.pop_front() {
                sum += weight_of(&job);
                taken.push(job);
            }
            if jobs.is_empty() {
                self.by_namespace.remove(&namespace);
            } else {
                self.turns.push_back(namespace);
            }
        }
        taken
    }
}

/// What a job costs, in mutations; large bodies count for more, since bytes take time too.
fn weight_of(job: &Job) -> usize {
    match &job.work {
        Work::Unary { body, .. } => 1 + body.len() / 1_024,
        Work::ScanPage { .. } => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::job::CallId;

    fn job(namespace: u32, number: u64) -> Job {
        let namespace = NamespaceId(namespace);
        let ticket = Ticket {
            shard: 0,
            slot: 0,
            generation: 0,
            call: CallId::Request(number),
            namespace,
        };
        let work = Work::ScanPage {
            namespace,
            page_bytes: 0,
            item_limit: 0,
            page_token: Vec::new(),
        };
        Job {
            ticket,
            deadline: None,
            work,
        }
    }

    #[test]
    fn a_flood_of_one_namespace_delays_another_by_one_turn() {
        let mut queue = FairQueue::default();
        for number in 0..1_000 {
            queue.push(job(1, number));
        }
        queue.push(job(2, 7));
        let first: Vec<u32> = queue.take(2).iter().map(|job| job.ticket.namespace.0).collect();
        assert_eq!(first, [1, 2]);
        let rest: Vec<CallId> = queue.take(usize::MAX).iter().map(|job| job.ticket.call).collect();
        assert_eq!(
            rest,
            (1..1_000).map(CallId::Request).collect::<Vec<_>>(),
            "order within a namespace"
        );
        assert!(queue.by_namespace.is_empty() && queue.turns.is_empty());
    }
}
