//! Starts and ends the gateway: data directory, catalog, store, shards, helper threads, signals.
//!
//! Order of the start: everything that can fail for a reason that the operator must fix (address,
//! directory, store, driver, log) comes first, so that a gateway that reports itself ready is
//! ready. Order of the end: shards drain, their logs apply the rest to the store and close, the
//! helper threads finish their queues, the process ends.

mod banner;
mod certificates;
mod data_dir;
mod descriptors;
mod listen;
mod mailboxes;
mod process;
mod sidecars;
mod signals;
mod start;
mod stop;

use std::{
    fmt,
    fs::File,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

pub use self::process::{last_words, run};

use self::{
    certificates::{Certificates, LOOK_PAUSE},
    stop::Helpers,
};
use crate::{
    call::job::{ShardCommand, WriterMessage},
    config::ServeOptions,
    runtime::{
        mailbox::Mailbox,
        reactor::DriverInUse,
        threads::{self, Kind, Supervisor},
    },
};

/// The reason why the gateway could not start, or ended badly: a sentence with what to do.
#[derive(Debug)]
pub struct ServeError(pub String);

impl fmt::Display for ServeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

/// A running gateway.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    driver: DriverInUse,
    options: ServeOptions,
    namespaces: usize,
    /// Most connections of the whole gateway.
    connections_max: usize,
    link: Link,
    /// Whether SIGTERM came during the start.
    is_stop_asked: bool,
    commands: Vec<Arc<Mailbox<ShardCommand>>>,
    shards: Vec<JoinHandle<()>>,
    /// The writer of a store that all shards share, if there is one.
    writer: Option<Arc<Mailbox<WriterMessage>>>,
    helpers: Helpers,
    /// Files of TLS, where the listener has it.
    certificates: Option<Certificates>,
    /// Held as long as the gateway runs, so that no second one uses the directory.
    _lock: Option<File>,
}

/// Events for the thread that owns the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    ShardStarted,
    /// The shard with this number has drained.
    ShardDrained(u16),
    /// The shard with this number has closed its log.
    ShardFlushed(u16),
    /// A thread has ended; the supervisor knows which.
    ThreadFailed,
    /// The configuration is to be read again.
    Reload,
    Stop,
}

/// Events to the server, and the progress of its end for other threads.
#[derive(Debug)]
struct Link {
    supervisor: Supervisor,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// Set when no acknowledged write depends on the work still to be done.
    is_at_rest: Arc<AtomicBool>,
}

impl Link {
    /// Makes a link whose supervisor also calls `on_failure`.
    fn new(on_failure: impl Fn() + Send + Sync + 'static) -> Self {
        let (sender, events) = channel();
        let failed = sender.clone();
        let supervisor = Supervisor::new(move || {
            // Without a receiver the server has ended, and its owner knows.
            let _ = failed.send(Event::ThreadFailed);
            on_failure();
        });
        Self {
            supervisor,
            events,
            sender,
            is_at_rest: Arc::default(),
        }
    }

    /// The failure of a thread, as the reason for the end of the gateway.
    fn failure(&self) -> Option<ServeError> {
        let failure = self.supervisor.failure();
        failure.get().map(|failure| ServeError(failure.to_owned()))
    }
}

impl Server {
    /// The address on which the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kernel interface that the shards use.
    pub fn driver(&self) -> DriverInUse {
        self.driver
    }

    /// A shard's share of the connections.
    fn connections_of(&self, shard: usize) -> usize {
        let shards = self.options.shards.get();
        if self.connections_max == self.options.limits.connections_max {
            // The kernel spreads connections unevenly; an extra place for some does no harm.
            return self.connections_max.div_ceil(shards);
        }
        self.connections_max / shards + usize::from(shard < self.connections_max % shards)
    }

    /// Longest wait for an event.
    fn look_pause(&self) -> Duration {
        match self.certificates {
            Some(_) => LOOK_PAUSE,
            // As good as for ever.
            None => Duration::from_secs(86_400),
        }
    }

    /// Reads the files of TLS again, and gives shards what they hold; with `always` also if they
    /// have not changed.
    fn look_at_certificates(&mut self, always: bool) {
        let certificates = self.certificates.as_mut();
        if let Some(settings) = certificates.and_then(|certificates| certificates.look(always)) {
            self.send_to_shards(|| ShardCommand::Encrypt(settings.clone()));
        }
    }

    /// Drains the gateway and waits for its end.
    ///
    /// # Errors
    /// When a thread failed.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.is_stop_asked = true;
        self.wait(|| {})
    }

    /// Waits until a stop is requested or a thread fails; then ends all threads. Calls `reload` for
    /// SIGHUP.
    fn wait(mut self, mut reload: impl FnMut()) -> Result<(), ServeError> {
        // Whatever happens here, the gateway drains.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            while !self.is_stop_asked && self.link.failure().is_none() {
                match self.link.events.recv_timeout(self.look_pause()) {
                    Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                    Ok(Event::Reload) => {
                        reload();
                        self.look_at_certificates(true);
                    }
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => self.look_at_certificates(false),
                }
                if threads::fault_point(Kind::Gateway) {
                    return;
                }
            }
        }));
        self.stop_all();
        self.link.failure().map_or(Ok(()), Err)
    }
}

fn failed(what: &str, cause: &io::Error) -> ServeError {
    ServeError(format!("{what}: {cause}"))
}
