//! The helper thread that moves the pages written by SQLite's writer into the database file, and
//! that makes records durable there for the shards' logs.
//!
//! It ends after all other threads that use the store, so that it can leave a file that the next
//! start need not read.

use std::{
    io,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prism_backends::sqlite::Checkpointer;

use super::sqlite::{LogMailboxes, Stop, send_event};
use crate::{
    call::event::SyncJob,
    log::LogEvent,
    runtime::{
        mailbox::{Mailbox, Waker},
        threads::{self, Kind},
    },
};

/// Pause after a checkpoint that failed, or that found no room on the disk.
const PAUSE: Duration = Duration::from_secs(1);

/// The running thread.
#[derive(Debug)]
pub(crate) struct Checkpointing {
    stop: Arc<Stop>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

impl Checkpointing {
    /// Starts the thread; `waker` wakes it for work.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn spawn(
        checkpointer: Checkpointer,
        syncs: Arc<Mailbox<SyncJob>>,
        events: LogMailboxes,
        waker: Arc<Waker>,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let (stopped, woken) = (stop.clone(), waker.clone());
        let thread = threads::spawn(Kind::Checkpointer, None, move || {
            run(checkpointer, &syncs, &events, &woken, &stopped);
            Ok(())
        })?;
        Ok(Self { stop, waker, thread })
    }

    /// Moves the last pages and ends the thread. No other thread may use the store any more.
    pub(crate) fn end(self) {
        self.stop.set();
        self.waker.wake();
        if self.thread.join().is_err() {
            tracing::error!("the checkpointer panicked");
        }
    }
}

fn run(
    mut checkpointer: Checkpointer,
    syncs: &Mailbox<SyncJob>,
    events: &LogMailboxes,
    waker: &Waker,
    stop: &Stop,
) {
    // Set after a checkpoint that failed or did not help. Requests of the logs do not wait for it.
    let mut paused_until = None;
    while !stop.is_set() {
        if threads::fault_point(Kind::Checkpointer) {
            return;
        }
        serve_syncs(&mut checkpointer, syncs, events);
        let now = Instant::now();
        paused_until = paused_until.filter(|until| *until > now);
        if paused_until.is_none() && checkpointer.is_due() {
            match checkpointer.run_due() {
                Ok(done) if !done.room_is_short => {}
                Ok(_) => paused_until = Some(now + PAUSE),
                Err(error) => {
                    tracing::warn!(%error, "cannot checkpoint the store; trying again in a second");
                    paused_until = Some(now + PAUSE);
                }
            }
            continue;
        }
        let pause = paused_until.map(|until| until - now);
        waker.wait_blocking(pause, || {
            (pause.is_none() && checkpointer.is_due()) || !syncs.is_empty() || stop.is_set()
        });
    }
    if let Err(error) = checkpointer.finish() {
        tracing::warn!(%error, "cannot checkpoint the store at the end; nothing is lost, the next start takes longer");
    }
}

/// Serves all waiting requests with one sync.
fn serve_syncs(checkpointer: &mut Checkpointer, syncs: &Mailbox<SyncJob>, events: &LogMailboxes) {
    let jobs: Vec<SyncJob> = std::iter::from_fn(|| syncs.receive()).collect();
    if jobs.is_empty() {
        return;
    }
    let synced = checkpointer.sync();
    if let Err(error) = &synced {
        tracing::warn!(%error, "cannot make the store durable; the log keeps its records");
    }
    for job in jobs {
        let said = match synced {
            Ok(()) => LogEvent::Synced(job.cursors),
            Err(_) => LogEvent::NotSynced,
        };
        send_event(events, job.shard, said);
    }
}
