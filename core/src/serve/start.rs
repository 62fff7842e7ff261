//! The start of the gateway, step by step.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use prism_backends::{
    LogId,
    kind::StoreKind,
    memory::{self, MemoryStore, MessageHeads},
    sqlite,
};

use rustls::ServerConfig;

use super::{
    Event, Helpers, Link, ServeError, Server,
    certificates::Certificates,
    data_dir::{self, DataDir, OpenLog, tombstone_window_ms},
    descriptors, failed, listen,
    mailboxes::{JOBS_MAX, Mailboxes},
    sidecars::{Sidecars, Surroundings},
};
use crate::{
    api::memory::ShardMemory,
    call::{
        job::{Job, ShardCommand},
        link::StoreLink,
    },
    config::ServeOptions,
    control::{
        self, Control,
        catalog::Catalog,
        changes::Changes,
        provision::{self, Links, LogMaker, Memory, Provisioning, Sqlite},
        service::ServiceContext,
        stores::Stores,
    },
    dispatch::{
        Dispatcher, Places,
        http_rules::HttpRules,
        logged::{Log, LogSetup},
    },
    log::{identity::gateway_number, keeper::Keepers, links::LogLinks, open::LogDirectory, record_bytes_max},
    metrics::{LogMetrics, Registry},
    namespace::file::FileLimits,
    runtime::{
        clock::HybridClock,
        mailbox::{Mailbox, Waker},
        reactor::DriverInUse,
        threads::{self, Kind},
    },
    shard::{self, ShardSetup},
    worker::{
        checkpointer::Checkpointing,
        sqlite::{Common, Stop, spawn_reader, spawn_writer},
    },
};

/// Longest time for the start of the shards.
const START_TIMEOUT: Duration = Duration::from_secs(30);

impl Server {
    /// Starts all threads and returns when the gateway accepts connections. `options.listen` with
    /// port 0 takes a free one; see [`Server::address`].
    ///
    /// # Errors
    /// Address in use, directory not writable, store not usable, io_uring demanded but forbidden,
    /// threads exhausted.
    pub fn start(options: ServeOptions) -> Result<Self, ServeError> {
        Self::start_linked(options, Link::new(|| {}))
    }

    /// Like `start`, for an owner that has made the link.
    pub(super) fn start_linked(options: ServeOptions, link: Link) -> Result<Self, ServeError> {
        let _entered = link.supervisor.enter();
        let driver = DriverInUse::choose(options.driver).map_err(|cause| ServeError(cause.to_string()))?;
        let count =
            u16::try_from(options.shards.get()).map_err(|_| ServeError("too many shards".to_owned()))?;
        let (listeners, address) = listen::bind(options.listen, count)?;
        let ground = Ground::new(options, driver, count, link)?;
        let stop = ground.control_stop.clone();
        let server = Self::start_on(ground, listeners, address);
        // Threads that wait for the end of control must not wait for one that never began.
        server.inspect_err(|_| stop.store(true, Ordering::SeqCst))
    }

    fn start_on(
        mut ground: Ground,
        mut listeners: Vec<TcpListener>,
        address: SocketAddr,
    ) -> Result<Self, ServeError> {
        let mut certificates = Certificates::of(&ground.options, ground.registry.certificates());
        let tls = certificates.as_mut().map(Certificates::load).transpose()?;
        let waker = ground.mailboxes.control.waker.clone();
        let DataDir {
            lock,
            catalog,
            follower,
        } = data_dir::open(&ground.options, waker, ground.control_stop.clone())?;
        if let Some(number) = catalog.gateway() {
            // Stamps of gateways that share a store must differ; a log has a number of its own.
            ground.registry.clock().start_as(gateway_number(LogId(number)));
        }
        let mut store = data_dir::open_store(&ground.options)?;
        let (log, held) = match &mut store {
            None => (None, Vec::new()),
            Some(parts) => {
                let (log, held) = ground.open_log(&catalog, parts)?;
                listen::resize(&mut listeners, address, ground.count)?;
                (Some(log), held)
            }
        };
        let store = match store {
            None => None,
            Some(parts) => Some(ground.start_store(parts)?),
        };
        let sidecars = ground.start_sidecars(&catalog, store.as_ref())?;
        // A readiness check learns of these lanes before the shards do.
        ground.registry.hold_lanes(&held);
        let shards = ground.start_shards(listeners, tls.as_ref(), store.as_ref(), &sidecars)?;
        let (control, provisioning) = ground.control(catalog, log, store.as_ref(), &sidecars);
        let mut server = ground.server(address, lock, (store, sidecars), shards);
        server.certificates = certificates;
        server.helpers.control.extend(follower);
        if let Err(error) = server.serve(control, provisioning) {
            server.stop_all();
            return Err(error);
        }
        Ok(server)
    }

    /// Waits for the shards, sends them the namespaces of the catalog, and opens the gateway.
    fn serve(&mut self, mut control: Control, provisioning: Vec<Provisioning>) -> Result<(), ServeError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut started = 0;
        while started < self.shards.len() {
            let patience = deadline.saturating_duration_since(Instant::now());
            match self.link.events.recv_timeout(patience) {
                Ok(Event::ShardStarted) => started += 1,
                Ok(Event::Stop) => self.is_stop_asked = true,
                Ok(_) => {}
                Err(_) => return Err(ServeError("the shards do not start".to_owned())),
            }
            if let Some(failure) = self.link.failure() {
                return Err(failure);
            }
        }
        self.namespaces = control.recover().map_err(ServeError)?;
        self.await_commands(deadline)?;
        self.connections_max = descriptors::connections_max(&self.options, self.writer.is_some())?;
        for (number, commands) in self.commands.iter().enumerate() {
            let share = self.connections_of(number);
            if commands.send(ShardCommand::Serve(share)).is_err() {
                return Err(ServeError("a shard does not take its orders".to_owned()));
            }
        }
        // Control first: when it ends, so do the others.
        let provisioning = (0..)
            .zip(provisioning)
            .map(|(number, thread)| thread.spawn(number));
        for started in std::iter::once(control.spawn()).chain(provisioning) {
            let thread = started.map_err(|cause| failed("cannot start a thread", &cause))?;
            self.helpers.control.push(thread);
        }
        Ok(())
    }

    /// Waits until every shard knows the namespaces that it was sent: one that serves before the
    /// others would get calls whose keys belong to a shard that knows no namespace yet.
    fn await_commands(&self, deadline: Instant) -> Result<(), ServeError> {
        let (done, confirmed) = sync_channel(self.commands.len());
        self.send_to_shards(|| ShardCommand::Confirm(done.clone()));
        for _ in &self.commands {
            let patience = deadline.saturating_duration_since(Instant::now());
            let confirmed = confirmed.recv_timeout(patience);
            confirmed.map_err(|_| ServeError("the shards do not take their namespaces".to_owned()))?;
        }
        Ok(())
    }
}

/// Parts on which all steps of the start build.
struct Ground {
    options: ServeOptions,
    driver: DriverInUse,
    /// The number of shards.
    count: u16,
    mailboxes: Mailboxes,
    /// How far the messages of each shard's memory have come.
    message_heads: MessageHeads,
    registry: Arc<Registry>,
    link: Link,
    keepers: Keepers,
    sidecar_stop: Arc<Stop>,
    /// Set when control is to end.
    control_stop: Arc<AtomicBool>,
}

/// The running threads of the store that all shards share, and their mailboxes.
struct SharedStore {
    links: LogLinks,
    /// The mailbox of each shard's reader.
    readers: Vec<Arc<Mailbox<Job>>>,
    /// The figures of each shard's log.
    log_metrics: Vec<Arc<LogMetrics>>,
    threads: Vec<JoinHandle<()>>,
    wakers: Vec<Arc<Waker>>,
    checkpointing: Checkpointing,
}

impl Ground {
    fn new(options: ServeOptions, driver: DriverInUse, count: u16, link: Link) -> Result<Self, ServeError> {
        let mailboxes =
            Mailboxes::new(&options, count).map_err(|cause| failed("cannot make the mailboxes", &cause))?;
        let clock = Arc::new(HybridClock::new(options.wall_clock.clone()));
        Ok(Self {
            options,
            driver,
            count,
            mailboxes,
            message_heads: MessageHeads::new(usize::from(count)),
            registry: Arc::new(Registry::new(clock, link.supervisor.failure())),
            link,
            keepers: Keepers::default(),
            sidecar_stop: Arc::default(),
            control_stop: Arc::default(),
        })
    }

    /// Opens the log, with the shards of the last run if a store does not take now what the log
    /// holds for it. Later writes are stamped above all stamps in log and store.
    fn open_log(
        &mut self,
        catalog: &Catalog,
        parts: &mut sqlite::Parts,
    ) -> Result<(LogDirectory, Vec<usize>), ServeError> {
        let mut opened = data_dir::open_log(&self.options, &self.mailboxes, catalog, parts, &self.keepers)?;
        if let OpenLog::AsBefore(shards, why) = opened {
            tracing::warn!(
                shards,
                asked = self.count,
                why,
                "starting with as many shards as at the last run; start again for another number when the store has everything"
            );
            self.resize(shards)?;
            opened = data_dir::open_log(&self.options, &self.mailboxes, catalog, parts, &self.keepers)?;
        }
        let OpenLog::Open(log, held) = opened else {
            return Err(ServeError(
                "the log was written with another number of shards".to_owned(),
            ));
        };
        let highest_stamp = parts.writer.highest_stamp().max(log.highest_stamp());
        self.registry.clock().start_above(highest_stamp);
        self.registry.clock().start_as(gateway_number(log.id()));
        Ok((log, held))
    }

    /// Changes the number of shards before the first of them starts.
    fn resize(&mut self, shards: u16) -> Result<(), ServeError> {
        self.mailboxes = self
            .mailboxes
            .resized(&self.options, shards)
            .map_err(|cause| failed("cannot make the mailboxes", &cause))?;
        self.count = shards;
        self.options.shards = NonZeroUsize::new(usize::from(shards)).unwrap_or(NonZeroUsize::MIN);
        Ok(())
    }

    /// Starts the store's helper threads.
    fn start_store(&self, parts: sqlite::Parts) -> Result<SharedStore, ServeError> {
        let failed = |cause: io::Error| failed("cannot start the store's helper threads", &cause);
        let stores = self.options.all_stores().into_iter();
        let servers: Vec<_> = stores
            .filter(|store| store.kind.is_server())
            .map(|store| store.name)
            .collect();
        let add = |_| self.registry.add_log(&servers);
        let log_metrics: Vec<_> = (0..self.count).map(add).collect();
        let (waker, checkpointing, syncs) = self.start_checkpointing(parts.checkpointer).map_err(failed)?;
        let mut store = self
            .start_writer(parts.writer, waker, log_metrics, checkpointing, syncs)
            .map_err(failed)?;
        for number in 0..self.count {
            let reader = parts.readers.open().map_err(io::Error::other);
            reader
                .and_then(|reader| self.start_reader(number, reader, &mut store))
                .map_err(failed)?;
        }
        Ok(store)
    }

    fn start_checkpointing(
        &self,
        checkpointer: sqlite::Checkpointer,
    ) -> io::Result<(
        Arc<Waker>,
        Checkpointing,
        Arc<Mailbox<crate::call::event::SyncJob>>,
    )> {
        let waker = Waker::for_thread();
        let syncs = Arc::new(Mailbox::new(usize::from(self.count) + 1, waker.clone()));
        let events = self.mailboxes.log_events();
        let checkpointing = Checkpointing::spawn(checkpointer, syncs.clone(), events, waker.clone())?;
        Ok((waker, checkpointing, syncs))
    }

    fn start_writer(
        &self,
        writer: sqlite::Writer,
        checkpoint_waker: Arc<Waker>,
        log_metrics: Vec<Arc<LogMetrics>>,
        checkpointing: Checkpointing,
        sync: Arc<Mailbox<crate::call::event::SyncJob>>,
    ) -> io::Result<SharedStore> {
        let waker = Waker::for_thread();
        let mailbox = Arc::new(Mailbox::new(JOBS_MAX, waker.clone()));
        let thread = spawn_writer(
            writer,
            self.common(),
            mailbox.clone(),
            waker.clone(),
            self.mailboxes.for_writer(&log_metrics),
            checkpoint_waker,
        )?;
        Ok(SharedStore {
            links: LogLinks {
                store: mailbox,
                sync,
                servers: Vec::new(),
                absent: Arc::default(),
            },
            readers: Vec::new(),
            log_metrics,
            threads: vec![thread],
            wakers: vec![waker],
            checkpointing,
        })
    }

    /// Parts that the store's threads share.
    fn common(&self) -> Common {
        Common {
            wall: self.options.wall_clock.clone(),
            stop: self.sidecar_stop.clone(),
            raise_priority: self.options.raise_priority,
        }
    }

    fn start_reader(&self, number: u16, reader: sqlite::Reader, store: &mut SharedStore) -> io::Result<()> {
        let waker = Waker::for_thread();
        let mailbox = Arc::new(Mailbox::new(JOBS_MAX, waker.clone()));
        store.threads.push(spawn_reader(
            number,
            reader,
            self.common(),
            mailbox.clone(),
            waker.clone(),
            self.mailboxes.peers.replies.clone(),
        )?);
        store.readers.push(mailbox);
        store.wakers.push(waker);
        Ok(())
    }

    /// Starts the threads that drive servers' stores.
    fn start_sidecars(&self, catalog: &Catalog, store: Option<&SharedStore>) -> Result<Sidecars, ServeError> {
        // Without SQLite's file there is no server either.
        let Some(store) = store else {
            return Ok(Sidecars::default());
        };
        let around = Surroundings {
            shards: self.count,
            wall: &self.options.wall_clock,
            stop: &self.sidecar_stop,
            mailboxes: &self.mailboxes,
            log_metrics: &store.log_metrics,
            letters: &store.links.store,
            catalog,
            registry: &self.registry,
        };
        Sidecars::start(&self.options, &around)
    }

    /// Starts a shard for each listener.
    fn start_shards(
        &self,
        listeners: Vec<TcpListener>,
        tls: Option<&Arc<ServerConfig>>,
        store: Option<&SharedStore>,
        sidecars: &Sidecars,
    ) -> Result<Vec<JoinHandle<()>>, ServeError> {
        let cores = cores(self.options.pin_shards);
        let core_of = |number: u16| cores.get(usize::from(number) % cores.len().max(1)).copied();
        let start = |(number, listener)| {
            let setup = self.shard_setup(number, core_of(number), listener, tls.cloned());
            let store = store.map(|store| self.store_of_shard(&setup, store, sidecars));
            let file = store.as_ref().map(|store| &store.link);
            let links = sidecars.links_of(number, &self.options, file);
            self.start_shard(setup, links, store.map(|store| store.log))
        };
        let started: io::Result<Vec<_>> = (0..self.count).zip(listeners).map(start).collect();
        started.map_err(|cause| failed("cannot start a shard's thread", &cause))
    }

    fn shard_setup(
        &self,
        number: u16,
        core: Option<usize>,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
    ) -> ShardSetup {
        let (drained, flushed) = (self.link.sender.clone(), self.link.sender.clone());
        ShardSetup {
            number,
            core,
            driver: self.driver,
            listener,
            tls,
            inbox: self.mailboxes.inboxes[usize::from(number)].clone(),
            raise_priority: self.options.raise_priority,
            idle_poll: self.options.idle_poll,
            connections_max: self
                .options
                .limits
                .connections_max
                .div_ceil(usize::from(self.count)),
            on_drained: Box::new(move || {
                // The receiver lives as long as the server.
                let _ = drained.send(Event::ShardDrained(number));
            }),
            on_flushed: Box::new(move || {
                let _ = flushed.send(Event::ShardFlushed(number));
            }),
        }
    }

    fn store_of_shard(&self, setup: &ShardSetup, store: &SharedStore, sidecars: &Sidecars) -> StoreOfShard {
        let log = LogSetup {
            links: LogLinks {
                servers: sidecars.logs_of(setup.number),
                absent: sidecars.absent.clone(),
                ..store.links.clone()
            },
            limits: self.options.wal,
            writer: self.options.wal_writer,
            driver: self.driver,
            metrics: store.log_metrics[usize::from(setup.number)].clone(),
            events: setup.inbox.log_events.clone(),
            committed: setup.inbox.log_records.clone(),
        };
        StoreOfShard {
            link: StoreLink {
                writes: store.links.store.clone(),
                reads: store.readers[usize::from(setup.number)].clone(),
            },
            log,
        }
    }

    fn start_shard(
        &self,
        setup: ShardSetup,
        stores: Vec<StoreLink>,
        log: Option<LogSetup>,
    ) -> io::Result<JoinHandle<()>> {
        let number = setup.number;
        let (peers, limits) = (self.mailboxes.peers.clone(), self.options.limits);
        let (metrics, registry) = (self.registry.add_shard(), self.registry.clone());
        let (http, callers) = (HttpRules::new(&self.options), self.options.identity.rules());
        let started = self.link.sender.clone();
        let heads = self.message_heads.of_shard(usize::from(number));
        threads::spawn(Kind::Shard, Some(u32::from(number)), move || {
            let ended = shard::run(setup, || {
                let memory = MemoryStore::with_options(memory::Options {
                    tombstone_window_ms: tombstone_window_ms(&limits),
                    ..memory::Options::default()
                });
                let places = Places {
                    memory: Box::new(ShardMemory::new(memory, heads)),
                    stores,
                    log: log.map(Log::new),
                };
                // The receiver lives as long as the server.
                let _ = started.send(Event::ShardStarted);
                let dispatcher = Dispatcher::new(number, peers, places, limits, metrics, registry, http);
                dispatcher.with_rules(callers)
            });
            ended.map_err(|cause| io::Error::new(cause.kind(), format!("{cause}{}", advice(&cause))))
        })
    }

    fn control(
        &self,
        catalog: Catalog,
        log: Option<LogDirectory>,
        store: Option<&SharedStore>,
        sidecars: &Sidecars,
    ) -> (Control, Vec<Provisioning>) {
        let limits = &self.options.limits;
        let stop = self.control_stop.clone();
        let mut stores = Stores::of(
            &self.options,
            log.as_ref().and_then(LogDirectory::refusal).as_deref(),
        );
        stores.share(sidecars.servers.iter().map(|server| server.durabilities.clone()));
        let context = ServiceContext {
            file: FileLimits {
                read_rps_max: limits.namespace_read_rps_max,
                data_size_max: limits.namespace_data_size_max,
                retention_max: limits.namespace_retention_max,
                ..FileLimits::of_gateway(
                    limits.namespace_write_rps_max,
                    limits.message_bytes_max as u64,
                    record_bytes_max(&self.options.wal) as u64,
                )
            },
            namespaces_max: limits.namespaces_max,
            stores,
        };
        let log = log.map(|log| Arc::new(LogMaker::new(log, self.mailboxes.log_events())));
        let inbox = self.mailboxes.control.clone();
        let (memory, shards) = Provisioning::new(Box::new(Memory), None, &inbox, stop.clone());
        let mut links = Links {
            shards,
            stores: Vec::new(),
            letters: None,
        };
        let mut threads = vec![memory];
        let sqlite = |store: &SharedStore| {
            let sqlite = Sqlite::new(store.links.store.clone(), stop.clone());
            Provisioning::new(Box::new(sqlite), log.clone(), &inbox, stop.clone())
        };
        let mut servers = sidecars.servers.iter();
        for configured in self.options.all_stores() {
            let (thread, link) = match (configured.kind, store) {
                (StoreKind::Sqlite, Some(store)) => {
                    let (thread, link) = sqlite(store);
                    links.letters = Some(link.clone());
                    (thread, link)
                }
                (kind, _) if kind.is_server() => {
                    let Some(server) = servers.next() else { continue };
                    let (writes, known) = (server.writes.clone(), server.durabilities.clone());
                    let log = log.clone().filter(|_| context.stores.is_logged(kind));
                    let server = provision::Server::new(writes, known, stop.clone());
                    Provisioning::new(Box::new(server), log, &inbox, stop.clone())
                }
                _ => continue,
            };
            threads.push(thread);
            links.stores.push(link);
        }
        // The file keeps the dead letters of servers, too.
        if let (None, Some(store)) = (&links.letters, store) {
            let (thread, link) = sqlite(store);
            threads.push(thread);
            links.letters = Some(link);
        }
        let changes = Changes::new(usize::from(self.count), context.stores.clone());
        let control = Control {
            catalog,
            context,
            registry: self.registry.clone(),
            driver: self.driver,
            data_dir: store.map(|_| self.options.data_dir.clone()),
            inbox,
            replies: self.mailboxes.peers.replies.clone(),
            shards: self.mailboxes.commands.clone(),
            links,
            stop,
            changes,
            dead_letters: control::DeadLetterCalls::default(),
            figures: control::figures::Figures::new(Instant::now(), SystemTime::now()),
        };
        (control, threads)
    }

    /// Assembles the running threads.
    fn server(
        self,
        address: SocketAddr,
        lock: Option<File>,
        (store, sidecars): (Option<SharedStore>, Sidecars),
        shards: Vec<JoinHandle<()>>,
    ) -> Server {
        let mut helpers = Helpers {
            control_stop: self.control_stop,
            control_waker: self.mailboxes.control.waker,
            sidecar_stop: self.sidecar_stop,
            sidecar_wakers: sidecars.wakers,
            control: Vec::new(),
            sidecars: sidecars.threads,
            checkpointing: None,
            keepers: self.keepers,
        };
        let writer = store.as_ref().map(|store| store.links.store.clone());
        if let Some(store) = store {
            helpers.sidecar_wakers.extend(store.wakers);
            helpers.sidecars.extend(store.threads);
            helpers.checkpointing = Some(store.checkpointing);
        }
        Server {
            address,
            driver: self.driver,
            options: self.options,
            namespaces: 0,
            connections_max: 0,
            link: self.link,
            is_stop_asked: false,
            commands: self.mailboxes.commands,
            shards,
            writer,
            helpers,
            certificates: None,
            _lock: lock,
        }
    }
}

/// The store of one shard, as sent to the shard's thread.
struct StoreOfShard {
    link: StoreLink,
    log: LogSetup,
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::OutOfMemory => {
            "; the ring needs locked memory: raise `ulimit -l`, or use --driver epoll"
        }
        _ => "",
    }
}

/// The cores to pin shards to: those that this process may use; none when pinning is off.
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
