//! Events that other threads send to the log: segments, and records that the store has applied and
//! synced.

use prism_backends::NamespaceId;
use prism_wal::ids::{Lsn, TargetId};

use super::{Flushing, Outbox, RETRY_PAUSE, SYNC_PAUSE, ShardLog, Waiting};
use crate::{
    call::{
        event::Verdict,
        job::{Answer, Reply},
    },
    log::{LogEvent, parked::reached},
};

impl ShardLog {
    /// Handles an event of another thread.
    pub(crate) fn handle_event(&mut self, events: LogEvent, outbox: &mut Outbox) {
        let now = self.now();
        match events {
            LogEvent::Segment(prepared) => {
                self.preparing -= 1;
                self.no_segment = None;
                self.metrics.segments.add(1);
                self.lane.handle_segment(*prepared);
            }
            LogEvent::NoSegment(error) => {
                self.preparing -= 1;
                self.no_segment = Some(error.kind);
                self.prepare_at = now + RETRY_PAUSE;
                let held_by = self.lane.tail().holder().map(|target| target.0);
                tracing::warn!(shard = self.shard, %error, held_by, "cannot prepare a segment of the log; trying again");
            }
            LogEvent::Applied {
                namespace,
                upto,
                verdicts,
                buried,
            } => self.handle_applied(namespace, upto, verdicts, buried, outbox),
            LogEvent::NotApplied { namespace, error } => {
                self.metrics.apply_failures.add(1);
                let pause = self.applier.handle_not_applied(namespace, now);
                tracing::warn!(shard = self.shard, namespace = namespace.0, %error, ?pause, "the store does not take the log's records; trying again");
            }
            LogEvent::Synced(cursors) => {
                self.syncing = false;
                self.sync_at = now + SYNC_PAUSE;
                self.sync_not_before = now + self.sync_pause();
                for (target, lsn) in cursors {
                    // A namespace deleted meanwhile is unknown.
                    if self.lane.tail().applied(target) >= lsn {
                        self.lane.handle_synced(target, lsn);
                    }
                }
                if self.lane.tail().floor() > self.checkpointed {
                    self.checkpoint(now);
                }
            }
            LogEvent::NotSynced => {
                self.syncing = false;
                self.sync_not_before = now + RETRY_PAUSE;
            }
            LogEvent::Closed => self.flushing = Flushing::Done,
            // For the shard, which makes a log of it.
            LogEvent::Open(_) | LogEvent::Held(_) => {}
        }
    }

    fn handle_applied(
        &mut self,
        namespace: NamespaceId,
        upto: Lsn,
        verdicts: Vec<Verdict>,
        buried: u64,
        outbox: &mut Outbox,
    ) {
        let now = self.now();
        let target = TargetId(namespace.0);
        let before = self.lane.tail().unapplied(target).bytes;
        self.lane.handle_applied(target, upto);
        let applied = before - self.lane.tail().unapplied(target).bytes;
        let of_store = &mut self.unapplied_bytes[self.routes.of(namespace).index()];
        *of_store = of_store.saturating_sub(applied);
        self.metrics.dead_letters.add(buried);
        let latency = &self.metrics.apply_latency;
        let mut reads = Vec::new();
        self.applier.handle_applied(
            namespace,
            upto,
            |at| latency.record_nanos(now.saturating_sub(at)),
            |waiting| match waiting {
                Waiting::Read(read) => reads.push(read),
                Waiting::Barrier(ticket) => outbox.replies.push(reached(ticket)),
            },
        );
        for read in reads {
            // The store may still lack the records after the one that it waited for.
            if let Some(unapplied) = self.overlay_or_wait(namespace, read) {
                outbox.reads.push((read.id, unapplied));
            }
        }
        for verdict in verdicts {
            if let Some(judged) = self.judged.remove(&verdict.lsn) {
                outbox.replies.push(Reply {
                    ticket: judged.ticket,
                    result: verdict.reply.map(Answer::Message),
                });
            }
        }
        if self.removed.contains(&namespace.0) && !self.applier.has(namespace) {
            self.removed.remove(&namespace.0);
            self.lane.forget(target);
            self.routes.forget(namespace);
        }
    }
}
