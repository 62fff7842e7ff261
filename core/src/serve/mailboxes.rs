//! The mailboxes between the threads, made before any of those starts.

use std::{io, sync::Arc};

use crate::{
    call::job::ShardCommand,
    config::ServeOptions,
    control,
    dispatch::{Peers, stream::STREAMS_MAX},
    log::{
        LogEvent,
        committed::{Outlet, RecordsMailbox},
    },
    metrics::LogMetrics,
    runtime::mailbox::{Mailbox, Waker},
    shard::Inbox,
    worker::sqlite::ToShards,
};

/// Most messages that wait for a shard's memory store, the store's writer or a reader.
pub(super) const JOBS_MAX: usize = 16_384;
/// Most commands that wait for a shard: those of all changes that may be in flight, and the few at
/// the start and the end.
const COMMANDS_MAX: usize = 1_024;

/// All mailboxes.
pub(super) struct Mailboxes {
    pub(super) peers: Peers,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) commands: Vec<Arc<Mailbox<ShardCommand>>>,
    pub(super) control: control::Inbox,
}

impl Mailboxes {
    pub(super) fn new(options: &ServeOptions, count: u16) -> io::Result<Self> {
        Self::with_control(options, count, control::Inbox::new(usize::from(count)))
    }

    /// Makes mailboxes for another number of shards. Control keeps its bell.
    pub(super) fn resized(&self, options: &ServeOptions, count: u16) -> io::Result<Self> {
        let waker = self.control.waker.clone();
        let control = control::Inbox::with_waker(usize::from(count), waker);
        Self::with_control(options, count, control)
    }

    fn with_control(options: &ServeOptions, count: u16, control: control::Inbox) -> io::Result<Self> {
        let mut inboxes = Vec::new();
        // An answer always has room: one for each waiting call, and one for each place that a
        // stream asks; a member of a group asks for its lease, too.
        let places = usize::from(count).min(4) + 1;
        let replies_max = options.limits.inflight_per_shard_max + STREAMS_MAX * places;
        for _ in 0..count {
            let waker = Waker::new()?;
            inboxes.push(Inbox {
                jobs: Arc::new(Mailbox::new(JOBS_MAX, waker.clone())),
                replies: Arc::new(Mailbox::new(replies_max, waker.clone())),
                commands: Arc::new(Mailbox::new(COMMANDS_MAX, waker.clone())),
                // At most one batch for each namespace is in flight, and a few more questions.
                log_events: Arc::new(Mailbox::new(options.limits.namespaces_max + 64, waker.clone())),
                log_records: Arc::new(RecordsMailbox::new(waker.clone())),
                waker,
            });
        }
        let peers = Peers {
            shards: inboxes.iter().map(|inbox| inbox.jobs.clone()).collect(),
            replies: inboxes.iter().map(|inbox| inbox.replies.clone()).collect(),
            control: control.calls.clone(),
        };
        let commands = inboxes.iter().map(|inbox| inbox.commands.clone()).collect();
        Ok(Self {
            peers,
            inboxes,
            commands,
            control,
        })
    }

    pub(super) fn log_events(&self) -> Vec<Arc<Mailbox<LogEvent>>> {
        self.inboxes
            .iter()
            .map(|inbox| inbox.log_events.clone())
            .collect()
    }

    pub(super) fn for_writer(&self, log_metrics: &[Arc<LogMetrics>]) -> ToShards {
        let outlet = |(inbox, metrics): (&Inbox, &Arc<LogMetrics>)| Outlet {
            mailbox: inbox.log_records.clone(),
            metrics: metrics.clone(),
        };
        ToShards {
            replies: self.peers.replies.clone(),
            events: self.log_events(),
            logs: self.inboxes.iter().zip(log_metrics).map(outlet).collect(),
        }
    }
}
