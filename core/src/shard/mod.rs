//! A shard: one pinned thread with its reactor, its connections and its share of the keys.
//!
//! ```text
//!            ┌──────────────────────────── one thread, one core ───────────────────────────┐
//!  listener ─┤ accept ──> connection tasks ──> Dispatcher (synchronous) ──> memory store      │
//!            │                 ▲                    │ jobs                                 │
//!            │                 │ answers            ▼                                      │
//!            │            mailbox task  <── mailboxes ──> other shards, sidecar, control   │
//!            │            deadline task, tick task (once a second), idle poll               │
//!            └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Only the mailboxes and the counters are shared with other threads. `RefCell`s are borrowed only
//! between two waits, never across one.

#[cfg(test)]
mod allocation_tests;
mod backpressure;
#[cfg(test)]
mod bench;
pub(crate) mod connection;
mod connections;
mod ending;
#[cfg(test)]
mod ending_tests;
mod foreign;
mod h1_reply;
mod h1_session;
mod h2_reply;
mod h2_session;
#[cfg(test)]
mod health_tests;
mod lifetime;
mod reply;
mod request_id;
mod session;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod subscription_tests;
mod tls;
mod unary;

use std::{
    cell::{Cell, RefCell},
    io,
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ServerConfig;

use self::{connection::Connection, connections::Connections};
use crate::{
    call::job::{Job, Reply, ShardCommand},
    dispatch::Dispatcher,
    log::{LogEvent, committed::RecordsMailbox},
    runtime::{
        mailbox::{Mailbox, ShardSleeper, Waker},
        notify::Notify,
        poller::Poller,
        priority,
        reactor::{self, Descriptor, DriverInUse, Listener},
        threads::{self, Kind},
    },
};

/// Arguments of a shard thread.
pub(crate) struct ShardSetup {
    pub(crate) number: u16,
    /// The core to run on; `None`: the kernel's choice.
    pub(crate) core: Option<usize>,
    pub(crate) driver: DriverInUse,
    pub(crate) listener: TcpListener,
    /// Settings of TLS, where the listener has it.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) inbox: Inbox,
    /// Whether to run before other threads of the machine, where that is allowed.
    pub(crate) raise_priority: bool,
    /// Time for which it polls for a due answer before it sleeps, when it has little to do.
    pub(crate) idle_poll: Duration,
    /// Most connections of this shard.
    pub(crate) connections_max: usize,
    /// Called once, when the shard has drained.
    pub(crate) on_drained: Box<dyn FnOnce() + Send>,
    /// Called once, when its log is closed after that.
    pub(crate) on_flushed: Box<dyn FnOnce() + Send>,
}

/// Commands about its end that the shard has received.
#[derive(Default)]
struct Signals {
    drain: Notify,
    flush: Notify,
    end: Notify,
    /// Deadline of the last ordered drain or flush.
    until: Cell<Option<Instant>>,
}

impl Signals {
    fn until(&self) -> Instant {
        self.until.get().unwrap_or_else(Instant::now)
    }

    /// Ends the shard, which can no longer do its work, without waiting for others.
    fn give_up(&self, cause: &str) {
        threads::fail(cause);
        self.drain.notify();
        self.flush.notify();
        self.end.notify();
    }
}

/// Mailboxes that a shard empties.
#[derive(Clone)]
pub(crate) struct Inbox {
    pub(crate) waker: Arc<Waker>,
    pub(crate) jobs: Arc<Mailbox<Job>>,
    pub(crate) replies: Arc<Mailbox<Reply>>,
    pub(crate) commands: Arc<Mailbox<ShardCommand>>,
    pub(crate) log_events: Arc<Mailbox<LogEvent>>,
    pub(crate) log_records: Arc<RecordsMailbox>,
}

impl Inbox {
    fn has_work(&self) -> bool {
        !self.jobs.is_empty()
            || !self.replies.is_empty()
            || !self.commands.is_empty()
            || !self.log_events.is_empty()
            || !self.log_records.is_empty()
    }
}

/// Messages that a shard takes from its mailboxes before its connections get their turn again.
const MESSAGES_PER_TURN: usize = 256;

/// Pause between two mentions in the diagnostics that connections cannot be accepted.
const ACCEPT_MENTION_PAUSE: Duration = Duration::from_secs(10);

/// Longest time of the log's last write, beyond the time after which its lane is poisoned.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// Shortest wait of the log for time alone; the reactor's timers are no finer.
const LOG_PAUSE_MIN: Duration = Duration::from_millis(1);

/// Items that a sweep examines in one tick.
const SWEEP_STEP: usize = 2_000;

/// The state that the tasks of one shard share.
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) gateway: RefCell<Dispatcher>,
    pub(crate) connections: RefCell<Connections>,
    pub(crate) draining: Cell<bool>,
    /// Settings of TLS for new connections, where the listener has it.
    pub(crate) tls: RefCell<Option<Arc<ServerConfig>>>,
    /// Large buffers that no connection uses at the moment.
    pub(crate) buffers: RefCell<Vec<Vec<u8>>>,
    pub(crate) poller: Poller,
    sleeper: ShardSleeper,
    inbox: Inbox,
    /// Raised when the last connection of a draining shard is gone.
    drained: Notify,
    /// Raised after each turn of the log while the shard closes it.
    log_turned: Notify,
}

/// Runs a shard to its end on the calling thread.
///
/// # Errors
/// When the kernel refuses the core, the ring or a descriptor.
pub(crate) fn run(setup: ShardSetup, gateway: impl FnOnce() -> Dispatcher) -> io::Result<()> {
    if let Some(core) = setup.core {
        reactor::pin_to_core(core)?;
    }
    if setup.raise_priority {
        priority::raise();
    }
    // Made here, after the pinning, so that its memory is near the core.
    let gateway = gateway();
    reactor::run(setup.driver, main(setup, gateway))?
}

async fn main(setup: ShardSetup, gateway: Dispatcher) -> io::Result<()> {
    let limits = *gateway.limits();
    let per_client_max = limits.places_per_client(setup.connections_max);
    let listener = Listener::new(
        setup.listener,
        limits.keepalive_interval,
        limits.keepalive_timeout,
    )?;
    let door = listener.descriptor();
    let sleeper = ShardSleeper::new(setup.inbox.waker.clone())?;
    let idle_poll = match setup.driver {
        DriverInUse::IoUring => setup.idle_poll,
        DriverInUse::Epoll => Duration::ZERO,
    };
    let shard = Rc::new(Shard {
        number: setup.number,
        gateway: RefCell::new(gateway),
        connections: RefCell::new(Connections::new(setup.connections_max, per_client_max)),
        draining: Cell::new(false),
        tls: RefCell::new(setup.tls),
        buffers: RefCell::new(Vec::new()),
        poller: Poller::new(idle_poll),
        sleeper,
        inbox: setup.inbox,
        drained: Notify::default(),
        log_turned: Notify::default(),
    });
    let signals = Rc::new(Signals::default());
    reactor::spawn(accept(shard.clone(), listener));
    reactor::spawn(expire(shard.clone()));
    reactor::spawn(tick(shard.clone(), signals.clone()));
    reactor::spawn(run_log(shard.clone()));
    reactor::spawn(poll_when_idle(shard.clone()));
    reactor::spawn(empty_mailboxes(shard.clone(), signals.clone()));
    let _abandon = Abandon(shard.clone(), door);
    signals.drain.notified().await;
    shard.drain(signals.until()).await;
    (setup.on_drained)();
    signals.flush.notified().await;
    shard.flush_log(signals.until()).await;
    (setup.on_flushed)();
    // Calls that other shards have accepted may still need the keys that this one owns.
    signals.end.notified().await;
    shard.finish_log_writes().await;
    // Waiting tasks keep the shard alive; its files must not stay open with them.
    shard.gateway.borrow_mut().close_log();
    // The ring closes its descriptors of them when it is entered once more.
    reactor::sleep(Duration::from_millis(1)).await;
    Ok(())
}

/// Shuts the listener and all connections down when the shard's thread ends in whatever way. After
/// a panic the tasks never run again, and their sockets stay open: clients would wait for answers
/// that never come.
struct Abandon(Rc<Shard>, Descriptor);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.1.shutdown();
        // No task borrows it here, and a panic within a panic would end the process without a
        // drain.
        if let Ok(connections) = self.0.connections.try_borrow() {
            connections
                .all()
                .iter()
                .for_each(|connection| connection.abandon());
        }
    }
}

async fn accept(shard: Rc<Shard>, listener: Listener) {
    let mut mentioned: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((receiver, sender, peer)) => {
                if shard.draining.get() {
                    continue;
                }
                Connection::start(&shard, receiver, sender, peer);
            }
            Err(error) => {
                // Most likely the system has no descriptor left: wait for connections to end before
                // trying again.
                if mentioned.is_none_or(|at| at.elapsed() >= ACCEPT_MENTION_PAUSE) {
                    mentioned = Some(Instant::now());
                    tracing::warn!(shard = shard.number, %error, "cannot accept connections; trying again each 100 ms");
                }
                reactor::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Empties the mailboxes: executes jobs of others, and delivers answers to the connections that
/// wait for them.
async fn empty_mailboxes(shard: Rc<Shard>, signals: Rc<Signals>) {
    let mut touched: Vec<Rc<Connection>> = Vec::new();
    loop {
        let mut messages = 0;
        while messages < MESSAGES_PER_TURN {
            let before = messages;
            if let Some(command) = shard.inbox.commands.receive() {
                messages += 1;
                match command {
                    ShardCommand::Drain(until) => {
                        signals.until.set(Some(until));
                        signals.drain.notify();
                    }
                    ShardCommand::Flush(until) => {
                        signals.until.set(Some(until));
                        signals.flush.notify();
                    }
                    ShardCommand::End => signals.end.notify(),
                    ShardCommand::Encrypt(settings) => drop(shard.tls.replace(Some(settings))),
                    command => {
                        if let ShardCommand::Serve(connections_max) = command {
                            let limits = *shard.gateway.borrow().limits();
                            let per_client_max = limits.places_per_client(connections_max);
                            shard
                                .connections
                                .borrow_mut()
                                .set_max(connections_max, per_client_max);
                        }
                        shard.gateway.borrow_mut().handle_command(command);
                        shard.check_streams();
                    }
                }
            }
            if let Some(job) = shard.inbox.jobs.receive() {
                messages += 1;
                shard.gateway.borrow_mut().execute(job);
            }
            if let Some(reply) = shard.inbox.replies.receive() {
                messages += 1;
                shard.deliver(reply, &mut touched);
            }
            if messages == before {
                break;
            }
        }
        for connection in touched.drain(..) {
            connection.wake_sender();
        }
        shard.gateway.borrow_mut().handle_log_events();
        shard.note_outstanding();
        let waited = if messages < MESSAGES_PER_TURN {
            shard.sleeper.wait(|| shard.inbox.has_work()).await
        } else {
            shard.sleeper.yield_turn().await
        };
        if let Err(error) = waited {
            // Without its mailbox a shard cannot keep its promises, so it ends.
            return signals.give_up(&format!("its mailbox has failed: {error}"));
        }
    }
}

/// Gives the log its turns: after the tasks that appended in this turn of the reactor, and when the
/// disk has answered.
async fn run_log(shard: Rc<Shard>) {
    let Some(wanted) = shard.gateway.borrow().log_wanted() else {
        return;
    };
    let (mut replies, mut touched) = (Vec::new(), Vec::new());
    loop {
        let next = shard.gateway.borrow_mut().turn_log(&mut replies);
        for reply in replies.drain(..) {
            shard.deliver(reply, &mut touched);
        }
        for connection in touched.drain(..) {
            connection.wake_sender();
        }
        shard.note_outstanding();
        shard.log_turned.notify();
        match next {
            None => wanted.notified().await,
            Some(at) => {
                // Whether woken or late, the log gets its turn.
                let at = at.max(Instant::now() + LOG_PAUSE_MIN);
                reactor::before(at, wanted.notified()).await;
            }
        }
    }
}

/// Polls for due work before the shard sleeps.
async fn poll_when_idle(shard: Rc<Shard>) {
    let metrics = shard.gateway.borrow().shared_metrics();
    let looked = |looked: Duration| {
        metrics.idle_polls.add(1);
        metrics
            .idle_poll_nanos
            .add(u64::try_from(looked.as_nanos()).unwrap_or(u64::MAX));
    };
    shard
        .poller
        .run(&shard.sleeper, || shard.inbox.has_work(), looked)
        .await;
}

/// Answers calls after their deadline.
async fn expire(shard: Rc<Shard>) {
    let changed = shard.gateway.borrow().deadline_changed();
    loop {
        let next = shard.gateway.borrow().next_deadline();
        match next {
            None => changed.notified().await,
            Some(deadline) => {
                if !reactor::before(deadline, changed.notified()).await {
                    shard.expire_calls();
                }
            }
        }
    }
}

/// Once a second: time-outs of connections, defence budgets, expired items.
async fn tick(shard: Rc<Shard>, signals: Rc<Signals>) {
    let mut last = Instant::now();
    loop {
        reactor::sleep(Duration::from_secs(1)).await;
        if threads::fault_point(Kind::Shard) {
            return signals.give_up("a test has asked for its end");
        }
        let now = Instant::now();
        // A busy shard ticks late; the fraction of a second counts in the next tick.
        let seconds = u32::try_from(now.duration_since(last).as_secs()).unwrap_or(u32::MAX);
        last += Duration::from_secs(u64::from(seconds));
        let limits = *shard.gateway.borrow().limits();
        let all = shard.connections.borrow().all();
        for connection in all {
            connection.tick(seconds, now, &limits);
        }
        shard.gateway.borrow_mut().sweep(SWEEP_STEP);
    }
}

impl Shard {
    fn deliver(&self, reply: Reply, touched: &mut Vec<Rc<Connection>>) {
        let mut gateway = self.gateway.borrow_mut();
        if !gateway.reply_received(&reply) {
            return;
        }
        let Some(reply) = gateway.pace(reply) else {
            return;
        };
        let Some(connection) = self.connections.borrow().find(&reply.ticket) else {
            return;
        };
        connection.handle_reply(reply, &mut gateway);
        touched.push(connection);
    }

    /// Ends streams whose callers have lost their permission, when any has changed.
    fn check_streams(&self) {
        let mut gateway = self.gateway.borrow_mut();
        if gateway.callers.take_change() {
            let all = self.connections.borrow().all();
            all.iter()
                .for_each(|connection| connection.check_again(&mut gateway));
        }
    }

    fn note_outstanding(&self) {
        let outstanding = self.gateway.borrow().outstanding();
        self.poller.note(outstanding);
    }

    fn expire_calls(&self) {
        let mut gateway = self.gateway.borrow_mut();
        let now = Instant::now();
        while let Some(ticket) = gateway.take_expired(now) {
            if let Some(connection) = self.connections.borrow().find(&ticket) {
                connection.handle_deadline(ticket, &mut gateway);
                connection.wake_sender();
            }
        }
        while let Some(reply) = gateway.take_held(now) {
            if let Some(connection) = self.connections.borrow().find(&reply.ticket) {
                connection.handle_reply(reply, &mut gateway);
                connection.wake_sender();
            }
        }
        gateway.serve_due_waits(now);
    }

    /// Removes a connection that is gone.
    pub(crate) fn forget(&self, connection: &Connection) {
        let mut connections = self.connections.borrow_mut();
        connections.remove(connection.address(), connection.client());
        self.gateway.borrow_mut().callers.leave(connection.caller_id());
        self.gateway
            .borrow()
            .metrics()
            .connections_open
            .set(connections.len() as u64);
        if self.draining.get() && connections.is_empty() {
            self.drained.notify();
        }
    }

    /// Makes the log apply everything to the store, and closes it; no longer than `deadline`. The
    /// next start finds the rest in the log.
    async fn flush_log(&self, deadline: Instant) {
        self.gateway.borrow_mut().flush_log();
        while !self.gateway.borrow().is_log_flushed() {
            if !reactor::before(deadline, self.log_turned.notified()).await {
                tracing::warn!(
                    shard = self.number,
                    "the store did not take all of the log in time; the next start will give it the rest"
                );
                return;
            }
        }
    }

    /// Waits for writes in flight from this shard's memory. A disk that does not answer for that
    /// long has failed; then the process must end at once: its memory must not be reused before,
    /// and a thread that waits for the disk cannot be joined.
    async fn finish_log_writes(&self) {
        let deadline = Instant::now() + WRITE_PATIENCE;
        while self.gateway.borrow().log_writes_in_flight() > 0 {
            if !reactor::before(deadline, self.log_turned.notified()).await {
                tracing::error!(shard = self.number, "the log's disk does not answer: aborting");
                std::process::abort();
            }
        }
    }

    /// Stops taking calls, finishes the accepted ones, closes all connections; no longer than
    /// `deadline`.
    async fn drain(&self, deadline: Instant) {
        self.draining.set(true);
        self.gateway.borrow_mut().set_serving(false);
        self.gateway.borrow_mut().end_waits();
        let all = self.connections.borrow().all();
        if all.is_empty() {
            return;
        }
        tracing::info!(shard = self.number, connections = all.len(), "draining");
        for connection in all {
            connection.drain(&mut self.gateway.borrow_mut());
            connection.wake_sender();
        }
        if !reactor::before(deadline, self.drained.notified()).await {
            let left = self.connections.borrow().len();
            tracing::warn!(
                shard = self.number,
                connections = left,
                "the drain took too long; closing what is left"
            );
        }
    }
}
