//! The way of a shard's groups to the disk: the shard's own ring, or threads that block, or each
//! where it is faster.
//!
//! ```text
//!   Ring:     submit ─► task ─► ring ───────────────► completion ─► queue ─► notify
//!   Threads:  submit ─► queue ─► thread: pwritev2 ─► queue ─► eventfd ─► task ─► notify
//! ```
//!
//! In both cases `notify` is raised on the shard when a completion may be there; the owner of the
//! lane then takes its turn. Must be made and used on the shard's own thread, inside its reactor.
//! `docs/BENCHMARKS.md` has measurements of both.

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
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

use crate::{
    config::LogWriterKind,
    runtime::{
        idle_poll,
        mailbox::{ShardSleeper, Waker},
        notify::Notify,
        reactor::{self, DriverInUse, WriteFile},
        threads::{self, Kind},
    },
};

/// Threads of one shard's log. More groups than this may be in flight; they wait in the writer's
/// queue. Measured: with fewer, eight groups in flight wait for each other; with few groups the
/// other threads sleep and cost nothing.
const THREADS: usize = 4;

/// Most records of a group that the ring takes where both exist: the size of groups on a shard with
/// little to do. It saves such a write two hand-overs between threads. A busy shard gathers more,
/// and would serve its ring too late. A shard that polls has fewer calls waiting, so it never has
/// to leave its core to a writer thread.
pub(crate) const FEW_RECORDS: u32 = 8;
const _: () = assert!(idle_poll::WAITING_MAX <= FEW_RECORDS as usize);

/// The writer of one shard's lane.
pub(crate) struct LogWriter {
    /// Threads that block in one write each.
    threads: ThreadWriter,
    /// The shard's own ring, and the most records of a group that it takes.
    ring: Option<(RingWriter, u32)>,
    /// Number of writes whose completion the lane has not taken.
    in_flight: usize,
}

impl LogWriter {
    /// Makes a writer for the calling shard. Without io_uring there is no ring to write with, and
    /// threads do it.
    ///
    /// # Errors
    /// When the process is out of descriptors or threads.
    pub(crate) fn new(kind: LogWriterKind, driver: DriverInUse, notify: Rc<Notify>) -> io::Result<Self> {
        let ring = || RingWriter::new(notify.clone());
        Ok(Self {
            ring: match (kind, driver) {
                (LogWriterKind::Thread, _) | (_, DriverInUse::Epoll) => None,
                (LogWriterKind::Auto, DriverInUse::IoUring) => Some((ring(), FEW_RECORDS)),
                (LogWriterKind::Ring, DriverInUse::IoUring) => Some((ring(), u32::MAX)),
            },
            threads: unpinned(|| threads(THREADS, notify.clone()))??,
            in_flight: 0,
        })
    }

    /// Number of writes without a completion. The shard must not end before it is 0, while the disk
    /// answers: until then the kernel writes from this process's memory, and a writing thread
    /// cannot be joined.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl GroupWriter for LogWriter {
    type File = LogFile;

    fn submit(&mut self, file: &LogFile, write: WriteAction) {
        self.in_flight += 1;
        let Some((ring, _)) = self.ring.as_mut().filter(|(_, max)| write.records <= *max) else {
            return self.threads.submit(file, write);
        };
        match ring.opened(file) {
            Ok(opened) => ring.submit(opened, write),
            // Another process has the lock of the file now, so this one must not write to it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let lost = Err(io::Error::other(error));
                ring.shared.complete(write.group, &lost, write.buffer);
            }
            // The process is out of descriptors, or there is no /proc: no fault of the disk.
            Err(_) => self.threads.submit(file, write),
        }
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        let of_ring = self.ring.as_mut().and_then(|(ring, _)| ring.poll_completion());
        let completion = of_ring.or_else(|| self.threads.poll_completion())?;
        self.in_flight -= 1;
        Some(completion)
    }
}

/// Starts writer threads, and a task of the shard that takes their completions.
fn threads(count: usize, notify: Rc<Notify>) -> io::Result<ThreadWriter> {
    let waker = Waker::new()?;
    let sleeper = ShardSleeper::new(waker.clone())?;
    let news = Arc::new(AtomicBool::new(false));
    let bell = news.clone();
    let wake = Box::new(move || {
        threads::fault_point(Kind::LogWriter);
        // Before the wake-up: its fence makes the task see this, or be woken.
        bell.store(true, Ordering::Release);
        waker.wake();
    });
    let writer = ThreadWriter::start_with(count, wake, |number, body| {
        threads::spawn(Kind::LogWriter, Some(number), move || {
            body();
            Ok(())
        })
    })?;
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

/// Starts threads that may run on every core of this process, though the starting shard is pinned
/// to one: a busy shard would delay them.
fn unpinned<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let pinned = sched_getaffinity(None)?;
    // The main thread is never pinned.
    sched_setaffinity(None, &sched_getaffinity(Some(getpid()))?)?;
    let started = start();
    sched_setaffinity(None, &pinned)?;
    Ok(started)
}

/// Writes on the shard's ring: one task, and one operation, for each group.
struct RingWriter {
    /// The segments being written, each opened once more for durable writes; at most a few.
    files: Vec<Opened>,
    shared: Rc<Shared>,
}

/// A segment's file for writes by the ring.
struct Opened {
    /// The log's own descriptor; this file is closed together with it.
    log: Weak<OwnedFd>,
    file: Rc<WriteFile>,
}

/// State that the writer shares with the tasks of its writes.
struct Shared {
    completed: RefCell<VecDeque<Completion>>,
    notify: Rc<Notify>,
}

impl RingWriter {
    fn new(notify: Rc<Notify>) -> Self {
        Self {
            files: Vec::new(),
            shared: Rc::new(Shared {
                completed: RefCell::default(),
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

    fn submit(&self, file: Rc<WriteFile>, write: WriteAction) {
        reactor::spawn(run(file, write, self.shared.clone()));
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        // A segment that the lane has released must not stay locked: the pool reuses its file.
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

/// Runs one write, from the ring's submission to its completion.
async fn run(file: Rc<WriteFile>, write: WriteAction, shared: Rc<Shared>) {
    let (offset, bytes) = (write.offset(), write.bytes().len());
    let (storage, range) = write.buffer.into_parts();
    let (result, storage) = file
        .write_at(storage, range.start..range.start + bytes, offset)
        .await;
    let buffer = AlignedBuffer::from_parts(storage, range);
    // Closed before the completion is reported, if the lane has released it.
    drop(file);
    shared.complete(write.group, &result, buffer);
}

/// Converts the completion of a write.
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
