//! Starts and ends the gateway: data directory, catalog, store, shards, helper threads, signals.
//!
//! Order of the start: everything that can fail for a reason that the operator must mend (address, directory, store,
//! driver, log) comes first, so that a gateway that says it is ready is ready. Order of the end: shards drain, their logs
//! give the store what is left and close, the helper threads finish what is queued, the process ends.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, IsTerminal as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prism_backends::{
    NamespaceId,
    memory::{self, MemoryStore},
    sqlite,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing_subscriber::EnvFilter;

use crate::{
    checkpointing::Checkpointing,
    config::{EmbeddedStore, LogFormat, LogOptions, ServeLimits, ServeOptions},
    control::{Control, tell_logs},
    gateway::{
        Gateway, Log, LogSetup, Neighbours, ShardStore,
        job::{ShardCommand, WriterMessage},
    },
    log::{
        self, LogNews,
        committed::{Outlet, RecordsMailbox},
        keeper::{Keepers, keepers_of},
        open::LogDirectory,
        shard_log::LogLinks,
    },
    metrics::{LogMetrics, Registry},
    namespace::{
        Durability,
        catalog::{Catalog, CatalogEntry},
        file::FileLimits,
        service::ServiceContext,
    },
    shard::{
        self, Inbox, ShardSetup,
        mailbox::{Mailbox, Waker},
        reactor::DriverInUse,
    },
    sidecar::{self, Stop, ToShards},
    wal_key::read_key_file,
};

/// Messages that wait for a shard's memory store, the store's writer or a reader, at the most.
const JOBS_MAX: usize = 16_384;
/// Calls that wait for the control thread, at the most.
const CONTROL_JOBS_MAX: usize = 256;
/// Connections that the kernel holds until they are accepted.
const LISTEN_BACKLOG: i32 = 4_096;
/// How long a port may still be held by a gateway that has just ended.
const RESTART_PATIENCE: Duration = Duration::from_secs(2);
/// How long a shard that has drained may take to say so, and the store's writer to finish what it has in hand then.
const DRAIN_SLACK: Duration = Duration::from_secs(1);
/// How often the end looks for shards that have failed and will not say anything.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How long the shards may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

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
    trace(&options.log)?;
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|cause| failed("cannot watch signals", &cause))?;
    let server = Server::start(options)?;
    server.greet();
    let events = server.events_sender.clone();
    thread::Builder::new()
        .name("prism-signals".to_owned())
        .spawn(move || {
            let mut asked = false;
            for signal in signals.forever() {
                if asked {
                    tracing::warn!(signal, "second signal: ending without a drain");
                    std::process::exit(1);
                }
                asked = true;
                tracing::info!(signal, "draining");
                // The server has ended already when nobody receives this.
                let _ = events.send(Event::Stop);
            }
        })
        .map_err(|cause| failed("cannot start a thread", &cause))?;
    server.wait()
}

/// Sends diagnostics to standard error as configured.
fn trace(log: &LogOptions) -> Result<(), ServeError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|cause| ServeError(format!("log.level: {cause}")))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let installed = match log.format {
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    installed.map_err(|cause| ServeError(format!("cannot set up diagnostics: {cause}")))
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

/// The threads beside the shards, and how to end them.
#[derive(Debug)]
struct Helpers {
    control_stop: Arc<AtomicBool>,
    control_waker: Arc<Waker>,
    sidecar_stop: Arc<Stop>,
    sidecar_wakers: Vec<Arc<Waker>>,
    control: Option<JoinHandle<()>>,
    sidecars: Vec<JoinHandle<()>>,
    /// Ends when all of those have.
    checkpointing: Option<Checkpointing>,
    keepers: Keepers,
}

impl Server {
    /// Starts all threads and returns when the gateway takes connections. `options.listen` with port 0 takes a free one;
    /// see [`Server::address`].
    ///
    /// # Errors
    /// Address in use, directory not writable, store not usable, io_uring demanded but forbidden, threads exhausted.
    pub fn start(options: ServeOptions) -> Result<Self, ServeError> {
        let driver = DriverInUse::choose(options.driver).map_err(|cause| ServeError(cause.to_string()))?;
        let count =
            u16::try_from(options.shards.get()).map_err(|_| ServeError("too many shards".to_owned()))?;
        let (listeners, address) = bind(options.listen, count)?;
        let (lock, catalog) = open_data_dir(&options)?;
        let mut store = open_store(&options)?;
        let registry = Arc::new(Registry::default());
        let plumbing =
            Plumbing::new(&options, count).map_err(|cause| failed("cannot make the mailboxes", &cause))?;
        let (events_sender, events) = sync_channel(usize::from(count) * 4 + 8);
        let keepers = Keepers::default();
        let log = match &mut store {
            None => None,
            Some(parts) => Some(open_log(&options, &plumbing, &catalog, parts, &keepers)?),
        };
        let log_news = plumbing.log_news();

        let sidecar_stop = Arc::new(Stop::default());
        let mut sidecar_wakers = Vec::new();
        let (mut sidecars, mut checkpointing) = (Vec::new(), None);
        let mut links = None;
        let mut readers = Vec::new();
        let mut log_metrics = Vec::new();
        if let Some(parts) = store {
            log_metrics.extend((0..count).map(|_| registry.add_log()));
            let to_shards = plumbing.for_writer(&log_metrics);
            let start = || -> io::Result<()> {
                let checkpoint_waker = Waker::new()?;
                let writer_waker = Waker::new()?;
                let mailbox = Arc::new(Mailbox::new(JOBS_MAX, writer_waker.clone()));
                let syncs = Arc::new(Mailbox::new(usize::from(count) + 1, checkpoint_waker.clone()));
                sidecar_wakers.push(writer_waker.clone());
                let (waker, news) = (checkpoint_waker.clone(), log_news.clone());
                checkpointing = Some(Checkpointing::spawn(
                    parts.checkpointer,
                    syncs.clone(),
                    news,
                    waker,
                )?);
                sidecars.push(sidecar::spawn_writer(
                    parts.writer,
                    mailbox.clone(),
                    writer_waker,
                    to_shards,
                    checkpoint_waker,
                    sidecar_stop.clone(),
                    options.raise_priority,
                )?);
                links = Some(LogLinks {
                    store: mailbox,
                    sync: syncs,
                });
                for number in 0..count {
                    let waker = Waker::new()?;
                    let mailbox = Arc::new(Mailbox::new(JOBS_MAX, waker.clone()));
                    sidecar_wakers.push(waker.clone());
                    let reader = parts.readers.open().map_err(io::Error::other)?;
                    sidecars.push(sidecar::spawn_reader(
                        number,
                        reader,
                        mailbox.clone(),
                        waker,
                        plumbing.neighbours.replies.clone(),
                        sidecar_stop.clone(),
                        options.raise_priority,
                    )?);
                    readers.push(mailbox);
                }
                Ok(())
            };
            start().map_err(|cause| failed("cannot start the store's helper threads", &cause))?;
        }

        let cores = cores(options.pin_shards);
        let mut shards = Vec::new();
        for (number, listener) in (0..count).zip(listeners) {
            let (drained, flushed) = (events_sender.clone(), events_sender.clone());
            let setup = ShardSetup {
                number,
                core: cores.get(usize::from(number) % cores.len().max(1)).copied(),
                driver,
                listener,
                inbox: plumbing.inboxes[usize::from(number)].clone(),
                raise_priority: options.raise_priority,
                idle_poll: options.idle_poll,
                connections_max: options.limits.connections_max.div_ceil(usize::from(count)),
                on_drained: Box::new(move || {
                    // The receiver lives as long as the server.
                    let _ = drained.send(Event::ShardDrained);
                }),
                on_flushed: Box::new(move || {
                    let _ = flushed.send(Event::ShardFlushed);
                }),
            };
            let store = links.as_ref().map(|links| {
                let log = LogSetup {
                    links: links.clone(),
                    limits: options.wal,
                    writer: options.wal_writer,
                    driver,
                    metrics: log_metrics[usize::from(number)].clone(),
                    news: setup.inbox.log_news.clone(),
                    committed: setup.inbox.log_records.clone(),
                };
                (links.store.clone(), readers[usize::from(number)].clone(), log)
            });
            let (neighbours, limits) = (plumbing.neighbours.clone(), options.limits);
            let (metrics, registry) = (registry.add_shard(), registry.clone());
            let events = events_sender.clone();
            let thread = thread::Builder::new().name(format!("prism-shard-{number}"));
            let handle = thread
                .spawn(move || {
                    let started = events.clone();
                    let result = shard::run(setup, || {
                        let store = match store {
                            None => {
                                ShardStore::Memory(Box::new(MemoryStore::with_options(memory::Options {
                                    tombstone_window_ms: tombstone_window_ms(&limits),
                                    ..memory::Options::default()
                                })))
                            }
                            Some((writer, reader, log)) => ShardStore::Sidecar {
                                writer,
                                reader,
                                log: Log::new(log),
                            },
                        };
                        // The receiver lives as long as the server.
                        let _ = started.send(Event::ShardStarted);
                        Gateway::new(number, neighbours, store, limits, metrics, registry)
                    });
                    let _ = events.send(Event::ShardEnded(number, result));
                })
                .map_err(|cause| failed("cannot start a shard's thread", &cause))?;
            shards.push(handle);
        }

        let control_stop = Arc::new(AtomicBool::new(false));
        let writer = links.map(|links| links.store);
        let mut control = Control {
            catalog,
            context: ServiceContext {
                file: FileLimits {
                    write_rps_max: options.limits.namespace_write_rps_max,
                    message_bytes_max: options.limits.message_bytes_max as u64,
                },
                namespaces_max: options.limits.namespaces_max,
                embedded: options.embedded,
                strong_refused: log.as_ref().and_then(LogDirectory::refusal),
            },
            registry,
            driver,
            mailbox: plumbing.neighbours.control.clone(),
            waker: plumbing.control_waker.clone(),
            replies: plumbing.neighbours.replies.clone(),
            shards: plumbing.commands.clone(),
            writer: writer.clone(),
            stop: control_stop.clone(),
            log,
            log_news,
        };
        let mut server = Self {
            address,
            driver,
            options,
            namespaces: 0,
            events,
            events_sender,
            commands: plumbing.commands,
            shards,
            writer,
            helpers: Helpers {
                control_stop,
                control_waker: plumbing.control_waker,
                sidecar_stop,
                sidecar_wakers,
                control: None,
                sidecars,
                checkpointing,
                keepers,
            },
            _lock: lock,
        };
        match server.finish_start(&mut control) {
            Ok(()) => {}
            Err(error) => {
                server.stop_all();
                return Err(error);
            }
        }
        server.helpers.control = Some(
            control
                .spawn()
                .map_err(|cause| failed("cannot start a thread", &cause))?,
        );
        Ok(server)
    }

    /// Waits for the shards, then tells them what the catalog holds.
    fn finish_start(&mut self, control: &mut Control) -> Result<(), ServeError> {
        for _ in 0..self.shards.len() {
            match self.events.recv_timeout(START_TIMEOUT) {
                Ok(Event::ShardStarted) => {}
                Ok(Event::ShardEnded(number, result)) => return Err(shard_failed(number, result)),
                Ok(Event::Stop | Event::ShardDrained | Event::ShardFlushed) => {}
                Err(_) => return Err(ServeError("the shards do not start".to_owned())),
            }
        }
        self.namespaces = control.recover().map_err(ServeError)?;
        self.tell_shards(|| ShardCommand::Serve);
        Ok(())
    }

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

    fn stop_all(&mut self) {
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

    fn tell_shards(&self, command: impl Fn() -> ShardCommand) {
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

    /// What a newcomer sees.
    fn greet(&self) {
        let store = match self.options.embedded {
            EmbeddedStore::Memory => "memory (everything is gone after a restart)".to_owned(),
            EmbeddedStore::Sqlite => format!("SQLite in {}", self.options.data_dir.display()),
        };
        tracing::info!(
            address = %self.address,
            driver = self.driver.name(),
            shards = self.options.shards.get(),
            store,
            namespaces = self.namespaces,
            "ready"
        );
        let driver = match self.driver {
            DriverInUse::IoUring => "io_uring".to_owned(),
            DriverInUse::Epoll => "epoll (io_uring is not in use)".to_owned(),
        };
        let text = format!(
            "Prism {version} listens on {address}\n\
             \x20 driver      {driver}\n\
             \x20 shards      {shards}\n\
             \x20 store       {store}\n\
             \x20 namespaces  {namespaces}\n\
             \n\
             What next, in another terminal:\n\
             \x20 prism namespace create examples/user-sessions.yaml\n\
             \x20 prism kv put user-sessions alice theme dark\n\
             \x20 prism kv get user-sessions alice\n\
             \x20 curl http://{address}/metrics\n\
             Ctrl-C drains and stops it.\n",
            version = env!("CARGO_PKG_VERSION"),
            address = self.address,
            shards = self.options.shards,
            namespaces = self.namespaces,
        );
        // Nobody may be reading standard output; that is no reason not to serve.
        let _ = io::stdout().write_all(text.as_bytes());
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

/// All mailboxes.
struct Plumbing {
    neighbours: Neighbours,
    inboxes: Vec<Inbox>,
    commands: Vec<Arc<Mailbox<ShardCommand>>>,
    control_waker: Arc<Waker>,
}

impl Plumbing {
    fn new(options: &ServeOptions, count: u16) -> io::Result<Self> {
        let control_waker = Waker::new()?;
        let mut inboxes = Vec::new();
        for _ in 0..count {
            let waker = Waker::new()?;
            inboxes.push(Inbox {
                jobs: Arc::new(Mailbox::new(JOBS_MAX, waker.clone())),
                replies: Arc::new(Mailbox::new(options.limits.inflight_per_shard_max, waker.clone())),
                commands: Arc::new(Mailbox::new(64, waker.clone())),
                // One batch for each namespace is under way at the most, and a few questions more.
                log_news: Arc::new(Mailbox::new(options.limits.namespaces_max + 64, waker.clone())),
                log_records: Arc::new(RecordsMailbox::new(waker.clone())),
                waker,
            });
        }
        let neighbours = Neighbours {
            shards: inboxes.iter().map(|inbox| inbox.jobs.clone()).collect(),
            replies: inboxes.iter().map(|inbox| inbox.replies.clone()).collect(),
            control: Arc::new(Mailbox::new(CONTROL_JOBS_MAX, control_waker.clone())),
        };
        let commands = inboxes.iter().map(|inbox| inbox.commands.clone()).collect();
        Ok(Self {
            neighbours,
            inboxes,
            commands,
            control_waker,
        })
    }
}

impl Plumbing {
    fn log_news(&self) -> Vec<Arc<Mailbox<LogNews>>> {
        self.inboxes.iter().map(|inbox| inbox.log_news.clone()).collect()
    }

    fn for_writer(&self, log_metrics: &[Arc<LogMetrics>]) -> ToShards {
        let outlet = |(inbox, metrics): (&Inbox, &Arc<LogMetrics>)| Outlet {
            mailbox: inbox.log_records.clone(),
            metrics: metrics.clone(),
        };
        ToShards {
            replies: self.neighbours.replies.clone(),
            news: self.log_news(),
            logs: self.inboxes.iter().zip(log_metrics).map(outlet).collect(),
        }
    }
}

/// Opens the log if there is one, or a namespace that needs one, and tells the shards.
fn open_log(
    options: &ServeOptions,
    plumbing: &Plumbing,
    catalog: &Catalog,
    parts: &mut sqlite::Parts,
    keepers: &Keepers,
) -> Result<LogDirectory, ServeError> {
    let key = match &options.wal_key_file {
        None => None,
        Some(path) => Some(read_key_file(path).map_err(|cause| ServeError(cause.to_string()))?),
    };
    let news = plumbing.log_news();
    let mut log = LogDirectory::new(&options.data_dir, options.wal, key, news.clone(), keepers.clone());
    let entries = catalog.entries().map_err(|cause| ServeError(cause.to_string()))?;
    let logged: Vec<_> = entries
        .iter()
        .filter(|entry| entry.durability != Durability::BestEffort.as_str())
        .collect();
    for entry in &logged {
        // The store may have lost the note of its latest namespaces in a power cut; the catalog and the log have not.
        parts
            .writer
            .create_namespace(NamespaceId(entry.id))
            .map_err(|cause| ServeError(format!("namespace {}: {cause}", entry.name)))?;
    }
    let strong = |entry: &&&CatalogEntry| entry.durability == Durability::Strong.as_str();
    let mut store = log::open::Store {
        writer: &mut parts.writer,
        checkpointer: &mut parts.checkpointer,
        strong: logged.iter().filter(strong).map(|entry| entry.id).collect(),
    };
    let needed = !logged.is_empty();
    let exists = log.exists().map_err(ServeError)?;
    if needed || exists || store.knows_a_log().map_err(ServeError)? {
        tell_logs(&news, log.open(&mut store).map_err(ServeError)?);
    }
    Ok(log)
}

/// One listening socket for each shard on the same port (SO_REUSEPORT): the kernel spreads the connections.
fn bind(address: SocketAddr, count: u16) -> Result<(Vec<TcpListener>, SocketAddr), ServeError> {
    let in_use = |cause: &io::Error| {
        let advice = match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program listens there. Stop it, or choose another port with --listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "; this machine has no such address. Choose another with --listen"
            }
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need privileges. Choose another with --listen"
            }
            _ => "",
        };
        ServeError(format!("cannot listen on {address}: {cause}{advice}"))
    };
    // With SO_REUSEPORT a second gateway of the same user could share the port unnoticed; a plain bind tells.
    if address.port() != 0 {
        drop(bind_alone(address).map_err(|cause| in_use(&cause))?);
    }
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut bound = address;
    for _ in 0..count {
        let listener = listen(bound).map_err(|cause| in_use(&cause))?;
        bound = listener.local_addr().map_err(|cause| in_use(&cause))?;
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

/// Binds without sharing the port. The kernel takes an io_uring apart only after its process has ended, and the
/// listeners in it with it: the port of a gateway that has just been stopped is in use for some moments more.
fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    let patience = Instant::now() + RESTART_PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse && Instant::now() < patience => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Makes and locks the data directory and opens the catalog in it. The memory store leaves no trace on disk.
fn open_data_dir(options: &ServeOptions) -> Result<(Option<File>, Catalog), ServeError> {
    if options.embedded == EmbeddedStore::Memory {
        let catalog = Catalog::in_memory().map_err(|cause| ServeError(cause.to_string()))?;
        return Ok((None, catalog));
    }
    let directory = options.data_dir.as_path();
    let lock = lock_directory(directory)?;
    let catalog = Catalog::open(directory).map_err(|cause| ServeError(cause.to_string()))?;
    Ok((Some(lock), catalog))
}

fn lock_directory(directory: &Path) -> Result<File, ServeError> {
    let unusable = |cause: &io::Error| {
        ServeError(format!(
            "cannot use the data directory {}: {cause}; make it writable, or choose another with --data-dir",
            directory.display()
        ))
    };
    fs::create_dir_all(directory).map_err(|cause| unusable(&cause))?;
    let path = directory.join("LOCK");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|cause| unusable(&cause))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ServeError(format!(
            "another gateway uses the data directory {}; stop it, or choose another with --data-dir",
            directory.display()
        ))),
        Err(TryLockError::Error(cause)) => Err(unusable(&cause)),
    }
}

/// A delete must be remembered for as long as an older write may still come: one client's clock may be behind by the
/// drift that is allowed, another's ahead by as much.
fn tombstone_window_ms(limits: &ServeLimits) -> u64 {
    u64::try_from(limits.clock_drift_max.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
}

fn open_store(options: &ServeOptions) -> Result<Option<sqlite::Parts>, ServeError> {
    match options.embedded {
        EmbeddedStore::Memory => Ok(None),
        EmbeddedStore::Sqlite => {
            let path = options.data_dir.join("keyvalue.db");
            sqlite::open(
                &path,
                sqlite::Options {
                    tombstone_window_ms: tombstone_window_ms(&options.limits),
                    ..sqlite::Options::default()
                },
            )
            .map(Some)
            .map_err(|cause| ServeError(cause.to_string()))
        }
    }
}

/// The cores that shards are pinned to: those that this process may use; none when pinning is off.
fn cores(pin: bool) -> Vec<usize> {
    if !pin {
        return Vec::new();
    }
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect()
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
