//! A [`GroupWriter`] of dedicated threads. Each blocks in one durable write at a time, so there are
//! as many threads as groups may be in flight.
//!
//! The plain alternative to a ring, and no slower on kernels that hand a ring's file writes to
//! worker threads anyway. The queue is bounded by the depth of the group commit. A writer thread
//! calls `wake` after each completion, for a reactor that sleeps; it must not block.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::file::LogFile;
use super::{Completion, GroupWriter};
use crate::group_commit::WriteAction;

/// A writer of groups on its own threads. Dropping it waits for the submitted writes.
pub struct ThreadWriter {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queues: Mutex<Queues>,
    submitted: Condvar,
    completed: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queues {
    submitted: VecDeque<(LogFile, WriteAction)>,
    completed: VecDeque<Completion>,
    closing: bool,
}

impl ThreadWriter {
    /// Starts `threads` (at least one) writer threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(threads: usize, wake: Box<dyn Fn() + Send + Sync>) -> io::Result<Self> {
        Self::start_with(threads, wake, |number, body| {
            let builder = std::thread::Builder::new().name(format!("wal-writer-{number}"));
            builder.spawn(body)
        })
    }

    /// Starts writer threads by `spawn`, for a process that supervises its threads. `spawn` gets
    /// the number of the thread and the function to run.
    ///
    /// # Errors
    /// Those of `spawn`.
    pub fn start_with(
        threads: usize,
        wake: Box<dyn Fn() + Send + Sync>,
        spawn: impl Fn(u32, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            submitted: Condvar::new(),
            completed: Condvar::new(),
            wake,
        });
        let mut writer = Self {
            shared,
            threads: Vec::new(),
        };
        for number in (0..).take(threads.max(1)) {
            let shared = Arc::clone(&writer.shared);
            writer
                .threads
                .push(spawn(number, Box::new(move || shared.run()))?);
        }
        Ok(writer)
    }

    /// Waits until a completion is there or the time is up. Returns whether there is one. For
    /// callers without a reactor.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let queues = self.shared.lock();
        let waited = self
            .shared
            .completed
            .wait_timeout_while(queues, timeout, |queues| queues.completed.is_empty());
        let (queues, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !queues.completed.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        // No code that can panic runs under the lock.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((file, write)) = self.next() {
            let result = file.write_durable(write.offset(), write.bytes());
            // The file may be closed by now; its lock must not outlast the completion.
            drop(file);
            self.lock().completed.push_back(Completion {
                group: write.group,
                result,
                buffer: write.buffer,
            });
            self.completed.notify_all();
            (self.wake)();
        }
    }

    fn next(&self) -> Option<(LogFile, WriteAction)> {
        let mut queues = self.lock();
        loop {
            if let Some(next) = queues.submitted.pop_front() {
                return Some(next);
            }
            if queues.closing {
                return None;
            }
            queues = self
                .submitted
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl GroupWriter for ThreadWriter {
    type File = LogFile;

    fn submit(&mut self, file: &LogFile, write: WriteAction) {
        self.shared.lock().submitted.push_back((file.clone(), write));
        self.shared.submitted.notify_one();
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        self.shared.lock().completed.pop_front()
    }
}

impl Drop for ThreadWriter {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.submitted.notify_all();
        for thread in self.threads.drain(..) {
            // A writer thread does not panic; if it did, the outcome of its write is unknown
            // anyway.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for ThreadWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ThreadWriter")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}
