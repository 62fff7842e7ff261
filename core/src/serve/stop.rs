//! The end of the gateway: drain, close the logs, end the helper threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Event, Server};
use crate::{
    call::job::{ShardCommand, WriterMessage},
    log::keeper::{Keepers, keepers_of},
    runtime::mailbox::Waker,
    worker::{checkpointer::Checkpointing, sqlite::Stop},
};

/// Longest wait for the current work of the store's writer, which may be gone.
const WRITER_MAX: Duration = Duration::from_secs(1);
/// Time for a finished shard to report, and for the store's writer to finish its current work then.
const SLACK: Duration = Duration::from_millis(250);
/// Least time for the logs to apply the records that the store lacks. With three slacks below the
/// process's grace.
const FLUSH_MIN: Duration = Duration::from_millis(500);
/// Interval at which the end checks for failed shards, which report nothing.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How often the end looks for keepers that have ended after a failure.
const END_POLL: Duration = Duration::from_millis(5);

/// Threads other than the shards, and the means to end them.
#[derive(Debug)]
pub(super) struct Helpers {
    pub(super) control_stop: Arc<AtomicBool>,
    pub(super) control_waker: Arc<Waker>,
    pub(super) sidecar_stop: Arc<Stop>,
    pub(super) sidecar_wakers: Vec<Arc<Waker>>,
    /// The control thread, and those of the stores that wait for it.
    pub(super) control: Vec<JoinHandle<()>>,
    pub(super) sidecars: Vec<JoinHandle<()>>,
    /// Ends when all of those have.
    pub(super) checkpointing: Option<Checkpointing>,
    pub(super) keepers: Keepers,
}

impl Server {
    /// Drains the shards, closes their logs and ends all threads, in `limits.drain_timeout` and a
    /// little more.
    pub(super) fn stop_all(&mut self) {
        self.link.supervisor.expect_ends();
        let deadline = Instant::now() + self.options.limits.drain_timeout;
        self.send_to_shards(|| ShardCommand::Drain(deadline));
        self.await_shards("drained", deadline, Event::ShardDrained);
        // Only now: a draining shard may still write to another's log, and so may the store's
        // writer.
        self.await_writer(deadline);
        let deadline = deadline.max(Instant::now() + FLUSH_MIN);
        self.send_to_shards(|| ShardCommand::Flush(deadline));
        self.await_shards("closed their logs", deadline, Event::ShardFlushed);
        self.send_to_shards(|| ShardCommand::End);
        for shard in self.shards.drain(..) {
            join(shard);
        }
        let has_failed = self.link.supervisor.failure().get().is_some();
        self.helpers.stop(&self.link.is_at_rest, has_failed);
    }

    /// Waits until no record of a write is in flight from the store to a log. Calls abandoned by
    /// their clients may still be with the writer.
    fn await_writer(&self, deadline: Instant) {
        let Some(writer) = &self.writer else { return };
        let (done, settled) = sync_channel(1);
        let asked = writer.send(WriterMessage::Barrier(done)).is_ok();
        let patience = deadline.saturating_duration_since(Instant::now());
        if !asked || settled.recv_timeout(patience.clamp(SLACK, WRITER_MAX)).is_err() {
            tracing::warn!(
                "the store is not done with its last writes; the log closes without their records"
            );
        }
    }

    pub(super) fn send_to_shards(&self, command: impl Fn() -> ShardCommand) {
        for commands in &self.commands {
            if commands.send(command()).is_err() {
                tracing::error!("a shard's mailbox is full; it cannot be told to end");
            }
        }
    }

    /// Waits until every shard has reported or ended. Each bounds its own work by `deadline`; this
    /// bounds a shard that hangs.
    fn await_shards(&self, what: &'static str, deadline: Instant, event: impl Fn(u16) -> Event) {
        let mut left: Vec<u16> = (0..self.options.shards.get() as u16).collect();
        loop {
            // A drained shard runs until it gets the command to end; a failed one is finished.
            left.retain(|number| !self.shards[usize::from(*number)].is_finished());
            if left.is_empty() {
                return;
            }
            if let Ok(came) = self.link.events.recv_timeout(DRAIN_POLL) {
                left.retain(|number| came != event(*number));
            } else if Instant::now() >= deadline + SLACK {
                return tracing::error!(shards = ?left, "not all shards have {what}");
            }
        }
    }
}

/// Waits for the end of a thread. A panic is known to the supervisor.
fn join(thread: JoinHandle<()>) {
    let _ = thread.join();
}

impl Helpers {
    /// Ends the helper threads; sets the flag when only the checkpointer is left. After a failure
    /// keepers are not awaited for long: that of a dead shard waits for a log that nobody closes,
    /// and the next start does what it leaves undone.
    fn stop(&mut self, is_at_rest: &AtomicBool, has_failed: bool) {
        self.control_stop.store(true, Ordering::SeqCst);
        self.control_waker.wake();
        self.sidecar_stop.set();
        for waker in &self.sidecar_wakers {
            waker.wake();
        }
        for thread in self.control.drain(..).chain(self.sidecars.drain(..)) {
            join(thread);
        }
        let patience = Instant::now() + SLACK;
        for keeper in keepers_of(&self.keepers).drain(..) {
            while has_failed && !keeper.is_finished() && Instant::now() < patience {
                thread::park_timeout(END_POLL);
            }
            if !has_failed || keeper.is_finished() {
                join(keeper);
            }
        }
        is_at_rest.store(true, Ordering::SeqCst);
        if let Some(checkpointing) = self.checkpointing.take() {
            checkpointing.end();
        }
    }
}
