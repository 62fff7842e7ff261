//! Starts and ends the gateway: data directory, catalog, store, shards, helper threads, signals.
//!
//! Order of the start: everything that can fail for a reason that the operator must mend (address, directory, store,
//! driver, log) comes first, so that a gateway that says it is ready is ready. Order of the end: shards drain, their logs
//! give the store what is left and close, the helper threads finish what is queued, the process ends.

mod banner;
mod data_dir;
mod diagnostics;
mod listen;
mod mailboxes;
mod signals;
mod start;
mod stop;

use std::{
    fmt,
    fs::File,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
    thread::JoinHandle,
};

use self::stop::Helpers;
use crate::{
    call::job::{ShardCommand, WriterMessage},
    config::ServeOptions,
    runtime::{mailbox::Mailbox, reactor::DriverInUse},
};

/// Why the gateway could not start, or ended badly. Each is a sentence that says what to do.
#[derive(Debug)]
pub struct ServeError(pub String);

impl fmt::Display for ServeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

/// Runs the gateway until SIGTERM or SIGINT, then drains it. A second signal ends the process at once.
///
/// # Errors
/// Everything that keeps it from starting, and a shard that fails later.
pub fn run(options: ServeOptions) -> Result<(), ServeError> {
    diagnostics::install(&options.log)?;
    let signals = signals::watch()?;
    let server = Server::start(options)?;
    server.greet();
    signals::obey(signals, server.events_sender.clone())?;
    server.wait()
}

/// A running gateway.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    driver: DriverInUse,
    options: ServeOptions,
    namespaces: usize,
    events: Receiver<Event>,
    events_sender: SyncSender<Event>,
    commands: Vec<Arc<Mailbox<ShardCommand>>>,
    shards: Vec<JoinHandle<()>>,
    /// The writer of a store that all shards share, where there is one.
    writer: Option<Arc<Mailbox<WriterMessage>>>,
    helpers: Helpers,
    /// Held as long as the gateway runs, so that no second one uses the directory.
    _lock: Option<File>,
}

#[derive(Debug)]
enum Event {
    ShardStarted,
    ShardDrained,
    ShardFlushed,
    ShardEnded(u16, io::Result<()>),
    Stop,
}

impl Server {
    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the shards run on.
    pub fn driver(&self) -> DriverInUse {
        self.driver
    }

    /// Drains the gateway and waits for its end.
    ///
    /// # Errors
    /// When a shard failed.
    pub fn stop(self) -> Result<(), ServeError> {
        // The receiver is `self.events`, so this cannot fail.
        let _ = self.events_sender.send(Event::Stop);
        self.wait()
    }

    /// Waits until it is told to stop or a shard fails; then ends all threads.
    fn wait(mut self) -> Result<(), ServeError> {
        let result = loop {
            match self.events.recv() {
                Ok(Event::Stop) | Err(_) => break Ok(()),
                Ok(Event::ShardEnded(number, result)) => break Err(shard_failed(number, result)),
                Ok(Event::ShardStarted | Event::ShardDrained | Event::ShardFlushed) => {}
            }
        };
        self.stop_all();
        result
    }
}

fn shard_failed(number: u16, result: io::Result<()>) -> ServeError {
    match result {
        Ok(()) => ServeError(format!("shard {number} ended by itself")),
        Err(cause) => ServeError(format!("shard {number} failed: {cause}{}", advice(&cause))),
    }
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::OutOfMemory => {
            "; the ring needs locked memory: raise `ulimit -l`, or use --driver epoll"
        }
        _ => "",
    }
}

fn failed(what: &str, cause: &io::Error) -> ServeError {
    ServeError(format!("{what}: {cause}"))
}
