//! The end of the gateway: drain, close the logs, end the helper threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Event, Server};
use crate::{
    call::job::{ShardCommand, WriterMessage},
    log::keeper::{Keepers, keepers_of},
    runtime::mailbox::Waker,
    worker::{checkpointer::Checkpointing, sqlite::Stop},
};

/// How long a shard that has drained may take to say so, and the store's writer to finish what it has in hand then.
const DRAIN_SLACK: Duration = Duration::from_secs(1);
/// How often the end looks for shards that have failed and will not say anything.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// The threads beside the shards, and how to end them.
#[derive(Debug)]
pub(super) struct Helpers {
    pub(super) control_stop: Arc<AtomicBool>,
    pub(super) control_waker: Arc<Waker>,
    pub(super) sidecar_stop: Arc<Stop>,
    pub(super) sidecar_wakers: Vec<Arc<Waker>>,
    pub(super) control: Option<JoinHandle<()>>,
    pub(super) sidecars: Vec<JoinHandle<()>>,
    /// Ends when all of those have.
    pub(super) checkpointing: Option<Checkpointing>,
    pub(super) keepers: Keepers,
}

impl Server {
    pub(super) fn stop_all(&mut self) {
        self.tell_shards(|| ShardCommand::Drain);
        self.await_shards("drained", |event| matches!(event, Event::ShardDrained));
        // Only now: a shard that drains may still write to another's log, and so may the store's writer.
        self.settle_writer();
        self.tell_shards(|| ShardCommand::Flush);
        self.await_shards("closed their logs", |event| matches!(event, Event::ShardFlushed));
        self.tell_shards(|| ShardCommand::End);
        for shard in self.shards.drain(..) {
            if shard.join().is_err() {
                tracing::error!("a shard panicked");
            }
        }
        self.helpers.stop();
    }

    /// Waits until no record of a write is on its way from the store to a log. Calls that their clients gave up may still be
    /// with the writer.
    fn settle_writer(&self) {
        let Some(writer) = &self.writer else { return };
        let (done, settled) = sync_channel(1);
        let asked = writer.send(WriterMessage::Settle(done)).is_ok();
        if !asked || settled.recv_timeout(DRAIN_SLACK).is_err() {
            tracing::warn!(
                "the store is not done with its last writes; the log closes without their records"
            );
        }
    }

    pub(super) fn tell_shards(&self, command: impl Fn() -> ShardCommand) {
        for commands in &self.commands {
            if commands.send(command()).is_err() {
                tracing::error!("a shard's mailbox is full; it cannot be told to end");
            }
        }
    }

    /// Waits until every shard has said so or ended. Each bounds its own work; this bounds a shard that has failed.
    fn await_shards(&self, what: &'static str, is_done: impl Fn(&Event) -> bool) {
        let patience = Instant::now() + self.options.limits.drain_timeout + DRAIN_SLACK;
        let mut done = 0;
        loop {
            // A shard that has drained runs on until it is told to end; one that has failed is finished.
            let finished = self.shards.iter().filter(|shard| shard.is_finished()).count();
            if done + finished >= self.shards.len() {
                return;
            }
            match self.events.recv_timeout(DRAIN_POLL) {
                Ok(event) if is_done(&event) => done += 1,
                _ if Instant::now() >= patience => {
                    return tracing::error!(done, "not all shards have {what}");
                }
                _ => {}
            }
        }
    }
}

impl Helpers {
    fn stop(&mut self) {
        self.control_stop.store(true, Ordering::SeqCst);
        self.control_waker.wake();
        self.sidecar_stop.set();
        for waker in &self.sidecar_wakers {
            waker.wake();
        }
        for thread in self.control.take().into_iter().chain(self.sidecars.drain(..)) {
            if thread.join().is_err() {
                tracing::error!("a helper thread panicked");
            }
        }
        if let Some(checkpointing) = self.checkpointing.take() {
            checkpointing.end();
        }
        for keeper in keepers_of(&self.keepers).drain(..) {
            if keeper.join().is_err() {
                tracing::error!("a keeper of the log panicked");
            }
        }
    }
}
