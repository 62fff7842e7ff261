//! What carries a shard's groups to the disk: the shard's own ring, or threads that block, or each where it is faster.
//!
//! ```text
//!   Ring:     submit ─► task ─► ring ───────────────► completion ─► queue ─► notify
//!   Threads:  submit ─► queue ─► thread: pwritev2 ─► queue ─► eventfd ─► task ─► notify
//! ```
//!
//! Whichever it is, `notify` is raised on the shard when a completion may be there; whoever owns the lane then takes its
//! turn. Must be made and used on the shard's own thread, inside its reactor. Which one is better where is measured in
//! `docs/BENCHMARKS.md`.

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use prism_wal::{
    buffer::AlignedBuffer,
    disk::{Completion, GroupWriter, file::LogFile, threads::ThreadWriter},
    group_commit::{WriteAction, WriteResult},
    ids::GroupNumber,
};

use rustix::{
    process::getpid,
    thread::{sched_getaffinity, sched_setaffinity},
};

use super::{
    mailbox::{ShardSleeper, Waker},
    notify::Notify,
    reactor::{self, DriverInUse, WriteFile},
};
use crate::config::LogWriterKind;

/// Threads of one shard's log. More groups than this may be in flight; they wait in the writer's queue. Measured: with
/// fewer, eight groups in flight wait for each other; with few groups the other threads sleep and cost nothing.
const THREADS: usize = 4;

/// Records of a group that the ring takes where both are there: what a shard with little to do writes. It saves such a write
/// two hand-overs between threads. A busy shard gathers more, and would see to its ring too late. A shard that polls
/// (`idle_poll`) has fewer calls waiting, so it never has to leave its core to a writer thread.
const FEW_RECORDS: u32 = 8;
const _: () = assert!(super::idle_poll::CALLS_MAX <= FEW_RECORDS as usize);

/// The writer of one shard's lane. See the module.
pub(crate) enum LogWriter {
    /// Threads that block in one write each.
    Threads(ThreadWriter),
    /// The shard's own ring.
    Ring(RingWriter),
    /// The ring for groups of few records, threads for others.
    Either { ring: RingWriter, threads: ThreadWriter },
}

impl LogWriter {
    /// A writer for the calling shard. Without io_uring there is no ring to write with, and threads do it.
    ///
    /// # Errors
    /// When the process is out of descriptors or threads.
    pub(crate) fn new(kind: LogWriterKind, driver: DriverInUse, notify: Rc<Notify>) -> io::Result<Self> {
        let threads = || unpinned(|| threads(THREADS, notify.clone()))?;
        Ok(match (kind, driver) {
            (LogWriterKind::Ring, DriverInUse::IoUring) => Self::Ring(RingWriter::new(notify)),
            (LogWriterKind::Auto, DriverInUse::IoUring) => Self::Either {
                threads: threads()?,
                ring: RingWriter::new(notify),
            },
            _ => Self::Threads(threads()?),
        })
    }

    /// Writes that the ring has in hand. The shard must not end before there are none: until then the kernel writes from
    /// this process's memory. Threads do not count, because dropping them waits for their writes.
    pub(crate) fn in_ring(&self) -> usize {
        match self {
            Self::Threads(_) => 0,
            Self::Ring(ring) | Self::Either { ring, .. } => ring.shared.in_ring.get(),
        }
    }
}

impl GroupWriter for LogWriter {
    type File = LogFile;

    fn submit(&mut self, file: &LogFile, write: WriteAction) {
        match self {
            Self::Threads(threads) => threads.submit(file, write),
            Self::Ring(ring) => ring.submit(file, write),
            Self::Either { ring, .. } if write.records <= FEW_RECORDS => ring.submit(file, write),
            Self::Either { threads, .. } => threads.submit(file, write),
        }
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        match self {
            Self::Threads(threads) => threads.poll_completion(),
            Self::Ring(ring) => ring.poll_completion(),
            Self::Either { ring, threads } => ring.poll_completion().or_else(|| threads.poll_completion()),
        }
    }
}

/// Starts writer threads, and a task of the shard that hears of their completions.
fn threads(count: usize, notify: Rc<Notify>) -> io::Result<ThreadWriter> {
    let waker = Waker::new()?;
    let sleeper = ShardSleeper::new(waker.clone())?;
    let news = Arc::new(AtomicBool::new(false));
    let bell = news.clone();
    let wake = Box::new(move || {
        // Before the wake-up: its fence makes the task see this, or be woken.
        bell.store(true, Ordering::Release);
        waker.wake();
    });
    let writer = ThreadWriter::start(count, wake)?;
    reactor::spawn(async move {
        while let Ok(()) = sleeper.wait(|| news.load(Ordering::Acquire)).await {
            if news.swap(false, Ordering::AcqRel) {
                notify.notify();
            }
        }
        // The eventfd can only fail when the process comes to its end.
        tracing::error!("the log's writer threads cannot be heard any more");
    });
    Ok(writer)
}

/// Starts threads that may run on every core of this process, though the shard that starts them is pinned to one: a busy
/// shard would keep them waiting.
fn unpinned<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let pinned = sched_getaffinity(None)?;
    // The main thread is never pinned.
    sched_setaffinity(None, &sched_getaffinity(Some(getpid()))?)?;
    let started = start();
    sched_setaffinity(None, &pinned)?;
    Ok(started)
}

/// A [`GroupWriter`] on the shard's ring: one task, and one operation, for each write.
pub(crate) struct RingWriter {
    /// The segments being written, each opened once more for durable writes; at most a few.
    files: Vec<Opened>,
    shared: Rc<Shared>,
}

/// A segment's file as the ring writes it.
struct Opened {
    /// The log's own descriptor; when that is closed, so is this file.
    log: Weak<OwnedFd>,
    file: Rc<WriteFile>,
}

/// What the writer shares with the tasks of its writes.
struct Shared {
    completed: RefCell<VecDeque<Completion>>,
    in_ring: Cell<usize>,
    notify: Rc<Notify>,
}

impl RingWriter {
    fn new(notify: Rc<Notify>) -> Self {
        Self {
            files: Vec::new(),
            shared: Rc::new(Shared {
                completed: RefCell::default(),
                in_ring: Cell::new(0),
                notify,
            }),
        }
    }

    /// The file to write to, opened at the first write.
    fn opened(&mut self, file: &LogFile) -> io::Result<Rc<WriteFile>> {
        let log = Arc::downgrade(file.descriptor());
        if let Some(opened) = self.files.iter().find(|opened| opened.log.ptr_eq(&log)) {
            return Ok(opened.file.clone());
        }
        let opened = Rc::new(WriteFile::new(file.reopen_durable()?)?);
        self.files.push(Opened {
            log,
            file: opened.clone(),
        });
        Ok(opened)
    }
}

impl GroupWriter for RingWriter {
    type File = LogFile;

    fn submit(&mut self, file: &LogFile, write: WriteAction) {
        match self.opened(file) {
            Ok(file) => {
                self.shared.in_ring.set(self.shared.in_ring.get() + 1);
                reactor::spawn(run(file, write, self.shared.clone()));
            }
            Err(error) => self.shared.complete(write.group, &Err(error), write.buffer),
        }
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        // A segment that the lane has let go must not stay locked: the pool wants to use its file again.
        self.files.retain(|opened| opened.log.strong_count() > 0);
        self.shared.completed.borrow_mut().pop_front()
    }
}

impl Shared {
    fn complete(&self, group: GroupNumber, result: &io::Result<usize>, buffer: AlignedBuffer) {
        self.completed.borrow_mut().push_back(Completion {
            group,
            result: write_result(result),
            buffer,
        });
        self.notify.notify();
    }
}

/// One write, from the ring's submission to its completion.
async fn run(file: Rc<WriteFile>, write: WriteAction, shared: Rc<Shared>) {
    let (offset, bytes) = (write.offset(), write.bytes().len());
    let (storage, range) = write.buffer.into_parts();
    let (result, storage) = file
        .write_at(storage, range.start..range.start + bytes, offset)
        .await;
    let buffer = AlignedBuffer::from_parts(storage, range);
    // Closed, if the lane has let it go, before anybody hears of the completion.
    drop(file);
    shared.in_ring.set(shared.in_ring.get() - 1);
    shared.complete(write.group, &result, buffer);
}

/// What a completion says about the bytes.
fn write_result(result: &io::Result<usize>) -> WriteResult {
    use rustix::io::Errno;
    match result {
        Ok(bytes) => WriteResult::Durable(*bytes),
        Err(error) => match Errno::from_io_error(error) {
            Some(Errno::INTR | Errno::AGAIN) => WriteResult::Interrupted,
            number => WriteResult::Failed(number.unwrap_or(Errno::IO).raw_os_error()),
        },
    }
}
