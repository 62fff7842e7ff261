//! Diagnostics of the process: lines on standard error that never stop, delay or end a thread that
//! writes them.
//!
//! ```text
//!   any thread ── format ──► bounded queue ──► one thread ──► standard error (a pipe that nobody reads, a full disk)
//!                              full? the line is lost, and counted
//! ```
//!
//! Only the one thread may block or fail. Lost lines are counted in `prism_diagnostics_lost_total`,
//! and their number is written as soon as standard error accepts lines again. The end of the
//! process waits for the last lines a moment, no longer.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::{self, IsTerminal as _, Write},
    os::fd::{AsFd, BorrowedFd},
    panic,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use super::{
    mailbox::{Mailbox, Waker},
    threads::{self, Kind},
};

/// Most lines that may wait.
const LINES_MAX: usize = 4_096;
/// Most bytes that may wait.
const BYTES_MAX: usize = 4 << 20;
/// Longest time for the last words of the process.
const LAST_WORDS_TIMEOUT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 300_000_000,
};
/// Bytes that a ready pipe accepts at once (PIPE_BUF, as POSIX defines it on Linux).
const LAST_WORDS_BYTES_MAX: usize = 4_096;

/// Number of lost lines of the whole process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// The number of lines that were lost since the process began.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The diagnostics of this process. Made once.
#[derive(Clone)]
pub(crate) struct Diagnostics {
    queue: Arc<Queue>,
    level: reload::Handle<EnvFilter, Registry>,
}

impl Diagnostics {
    /// Takes over all diagnostics of the process, panics included: the lines that pass the filter
    /// `level`, for people or as JSON. They wait until [`Diagnostics::start`].
    ///
    /// # Errors
    /// A sentence: a wrong filter, or diagnostics that were taken over before.
    pub(crate) fn install(level: &str, as_json: bool) -> Result<Self, String> {
        let queue = Arc::new(Queue::new().map_err(|cause| format!("cannot set up diagnostics: {cause}"))?);
        let (filter, level) = reload::Layer::new(filter(level)?);
        let writer = queue.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || LineWriter(writer.clone()))
            // The subscriber would write its own errors to standard error directly.
            .log_internal_errors(false);
        let lines = match as_json {
            false => lines.with_ansi(io::stderr().is_terminal()).boxed(),
            true => lines.json().boxed(),
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()
            .map_err(|cause| format!("cannot set up diagnostics: {cause}"))?;
        panic::set_hook(Box::new(note_panic));
        Ok(Self { queue, level })
    }

    /// Starts the writing thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(&self) -> io::Result<()> {
        let queue = self.queue.clone();
        threads::spawn(Kind::Diagnostics, None, move || {
            queue.run();
            Ok(())
        })
        .map(drop)
    }

    /// Changes the filter of the lines.
    ///
    /// # Errors
    /// A sentence: a wrong filter.
    pub(crate) fn set_level(&self, level: &str) -> Result<(), String> {
        self.level
            .reload(filter(level)?)
            .map_err(|cause| format!("cannot change log.level: {cause}"))
    }

    /// Prints to standard output, in the order of the diagnostics and without blocking either.
    pub(crate) fn print(&self, text: String) {
        self.queue.push(Stream::Output, text.into_bytes());
    }

    /// Waits until all earlier lines are written, no longer than `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let (done, written) = sync_channel(1);
        if self.queue.entries.send(Entry::Flush(done)).is_ok() {
            // A reader that does not read delays the caller no longer than that.
            let _ = written.recv_timeout(timeout);
        }
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Diagnostics").finish_non_exhaustive()
    }
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|cause| format!("log.level: {cause}"))
}

/// The panic hook of a process with diagnostics: the standard one would block together with
/// standard error.
fn note_panic(panic: &panic::PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let sentence = threads::describe(panic);
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!("{sentence}\n{backtrace}"),
        // The supervisor has reported it.
        _ if threads::is_supervised() => {}
        _ => tracing::error!("{sentence}"),
    }
}

/// Writes the last sentence of the process to standard error, if it accepts the sentence at once or
/// soon.
pub(crate) fn last_words(text: &str) {
    let error = io::stderr();
    let mut ready = [PollFd::new(&error, PollFlags::OUT)];
    if poll(&mut ready, Some(&LAST_WORDS_TIMEOUT)).is_ok_and(|ready| ready > 0) {
        let bytes = &text.as_bytes()[..text.len().min(LAST_WORDS_BYTES_MAX)];
        // An error here could not be reported anywhere.
        let _ = rustix::io::write(&error, bytes);
    }
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Output,
    Error,
}

#[derive(Debug)]
enum Entry {
    Line(Stream, Vec<u8>),
    /// Answered when all lines before it are written or lost.
    Flush(SyncSender<()>),
}

/// Lines that wait to be written.
struct Queue {
    entries: Mailbox<Entry>,
    waker: Arc<Waker>,
    /// Bytes in the entries.
    bytes: AtomicUsize,
}

impl Queue {
    fn new() -> io::Result<Self> {
        let waker = Waker::new()?;
        Ok(Self {
            entries: Mailbox::new(LINES_MAX, waker.clone()),
            waker,
            bytes: AtomicUsize::new(0),
        })
    }

    fn push(&self, stream: Stream, line: Vec<u8>) {
        let length = line.len();
        let waiting = self.bytes.fetch_add(length, Ordering::Relaxed);
        if waiting + length > BYTES_MAX || self.entries.send(Entry::Line(stream, line)).is_err() {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes for ever.
    fn run(&self) {
        let (output, error) = (io::stdout(), io::stderr());
        let mut told = 0;
        // Whether standard error has accepted the last line.
        let mut works = true;
        loop {
            while let Some(entry) = self.entries.receive() {
                if threads::fault_point(Kind::Diagnostics) {
                    return;
                }
                match entry {
                    Entry::Line(stream, line) => {
                        self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                        let written = match stream {
                            Stream::Output => write_all(output.as_fd(), &line),
                            Stream::Error => write_all(error.as_fd(), &line),
                        };
                        works = written.is_ok();
                        LOST.fetch_add(u64::from(!works), Ordering::Relaxed);
                    }
                    Entry::Flush(done) => done.try_send(()).unwrap_or_default(),
                }
            }
            let lost = lost();
            if works && lost > told {
                tracing::warn!(
                    lines = lost - told,
                    "lines of the diagnostics were lost: standard error did not take them"
                );
                told = lost;
            }
            self.waker.wait_blocking(None, || !self.entries.is_empty());
        }
    }
}

/// Writes a whole line, however long that takes.
fn write_all(stream: BorrowedFd<'_>, mut line: &[u8]) -> rustix::io::Result<()> {
    use rustix::io::Errno;
    while !line.is_empty() {
        match rustix::io::write(stream, line) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => line = &line[count..],
            Err(Errno::INTR) => {}
            // Another process has made it non-blocking.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None)?;
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

/// A writer of one line to the queue. Never fails.
struct LineWriter(Arc<Queue>);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(Stream::Error, line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_bytes_that_wait_are_bounded_and_losses_are_counted() {
        let queue = Queue::new().unwrap();
        let before = lost();
        for _ in 0..LINES_MAX + 10 {
            queue.push(Stream::Error, b"line\n".to_vec());
        }
        assert_eq!(lost() - before, 10);
        let queue = Queue::new().unwrap();
        for _ in 0..5 {
            queue.push(Stream::Error, vec![b'x'; BYTES_MAX / 4]);
        }
        assert_eq!(lost() - before, 11);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), BYTES_MAX);
    }
}
