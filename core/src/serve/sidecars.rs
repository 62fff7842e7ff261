//! Threads that drive servers' stores: one for each shard that has connections of its own to one of
//! them.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, RwLock},
    thread::JoinHandle,
};

use prism_backends::{
    kind::StoreKind,
    server::{ServerConfig, Share},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    ServeError, failed,
    mailboxes::{JOBS_MAX, Mailboxes},
};
use crate::{
    call::{
        job::{Durabilities, WriterMessage},
        link::StoreLink,
        receipt,
    },
    config::{ServeOptions, StoreOptions},
    control::catalog::{Catalog, CatalogEntry},
    log::{apply_later::Letters, links::ServerLink},
    metrics::{LogMetrics, Registry},
    namespace::Durability,
    runtime::{
        clock::WallClock,
        mailbox::{Mailbox, Waker},
    },
    worker::{
        sidecar::{self, Arrivals, SidecarSetup, SidecarStore},
        sqlite::Stop,
    },
};

/// The running threads, and the links to their stores.
#[derive(Debug, Default)]
pub(super) struct Sidecars {
    /// The servers' stores, in the order of the configuration.
    pub(super) servers: Vec<Server>,
    /// Links by store, then by shard.
    links: Vec<Vec<StoreLink>>,
    /// Namespaces whose store is not configured.
    pub(super) absent: Arc<FxHashSet<u32>>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) wakers: Vec<Arc<Waker>>,
}

/// Mailboxes by which the control thread reaches a server's store.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) writes: Arc<Mailbox<WriterMessage>>,
    pub(super) durabilities: Durabilities,
}

/// Parts of the gateway that the threads share.
pub(super) struct Surroundings<'a> {
    pub(super) shards: u16,
    pub(super) wall: &'a WallClock,
    pub(super) stop: &'a Arc<Stop>,
    pub(super) mailboxes: &'a Mailboxes,
    pub(super) log_metrics: &'a [Arc<LogMetrics>],
    /// Writer of the file with the dead letters.
    pub(super) letters: &'a Arc<Mailbox<WriterMessage>>,
    pub(super) catalog: &'a Catalog,
    pub(super) registry: &'a Registry,
}

impl Sidecars {
    /// Starts the threads that the configuration needs. Nothing connects yet.
    pub(super) fn start(options: &ServeOptions, around: &Surroundings<'_>) -> Result<Self, ServeError> {
        let stores: Vec<_> = options
            .all_stores()
            .into_iter()
            .filter(|store| store.kind.is_server())
            .collect();
        let mut sidecars = Self {
            absent: absent(around.catalog, options)?,
            ..Self::default()
        };
        if stores.is_empty() {
            return Ok(sidecars);
        }
        let owner = match around.catalog.shared_id() {
            Some(shared) => shared,
            None => owner_of(&options.data_dir).map_err(|cause| failed("cannot name the catalog", &cause))?,
        };
        let mut configs = Vec::new();
        for store in &stores {
            configs.push(checked(store)?);
        }
        let durabilities = stores
            .iter()
            .map(|store| known(around.catalog, store))
            .collect::<Result<Vec<_>, _>>()?;
        let arrivals: Vec<Arc<Arrivals>> = stores.iter().map(|_| Arc::default()).collect();
        let mut by_shard = Vec::new();
        for shard in 0..around.shards {
            let waker = Waker::new().map_err(|cause| failed("cannot start a sidecar", &cause))?;
            let mut own = Vec::new();
            for (at, store) in stores.iter().enumerate() {
                arrivals[at].wake(waker.clone());
                own.push(SidecarStore {
                    name: store.name.clone(),
                    config: configs[at].clone(),
                    owner,
                    share: Share {
                        shard: u32::from(shard),
                        shards: u32::from(around.shards),
                        cap: configs[at].pool_max(),
                    },
                    durabilities: durabilities[at].clone(),
                    is_shared: around.catalog.shared_id().is_some(),
                    arrivals: arrivals[at].clone(),
                    metrics: around.registry.add_store(&store.name, store.kind.name()),
                    reads: Arc::new(Mailbox::new(JOBS_MAX, waker.clone())),
                    writes: Arc::new(Mailbox::new(JOBS_MAX, waker.clone())),
                });
            }
            by_shard.push((waker, own));
        }
        sidecars.link(&by_shard, &durabilities);
        for (shard, (waker, mut own)) in (0..around.shards).zip(by_shard) {
            // With fewer connections than shards, another shard's thread serves this one.
            own.retain(|store| store.share.own() > 0);
            if own.is_empty() {
                continue;
            }
            let setup = SidecarSetup {
                shard,
                stores: own,
                waker: waker.clone(),
                wall: around.wall.clone(),
                stop: around.stop.clone(),
                shards: around.mailboxes.for_writer(around.log_metrics),
                letters: Letters(around.letters.clone()),
                accept_loss: options.wal.accept_loss,
            };
            let thread = sidecar::spawn(setup).map_err(|cause| failed("cannot start a sidecar", &cause))?;
            sidecars.threads.push(thread);
            sidecars.wakers.push(waker);
        }
        Ok(sidecars)
    }

    fn link(&mut self, by_shard: &[(Arc<Waker>, Vec<SidecarStore>)], durabilities: &[Durabilities]) {
        for (at, known) in durabilities.iter().enumerate() {
            let links: Vec<_> = by_shard
                .iter()
                .map(|(_, own)| {
                    let server = &by_shard[own[at].share.served_by() as usize].1[at];
                    StoreLink {
                        writes: server.writes.clone(),
                        reads: server.reads.clone(),
                    }
                })
                .collect();
            self.servers.push(Server {
                writes: links[0].writes.clone(),
                durabilities: known.clone(),
            });
            self.links.push(links);
        }
    }

    /// The links of a shard's log to the servers.
    pub(super) fn logs_of(&self, shard: u16) -> Vec<ServerLink> {
        let link = |(links, server): (&Vec<StoreLink>, &Server)| ServerLink {
            writes: links[usize::from(shard)].writes.clone(),
            namespaces: server.durabilities.clone(),
        };
        self.links.iter().zip(&self.servers).map(link).collect()
    }

    /// Links of a shard to all shared stores, in the order of the configuration; `sqlite` is the
    /// link to the file, if there is one.
    pub(super) fn links_of(
        &self,
        shard: u16,
        options: &ServeOptions,
        sqlite: Option<&StoreLink>,
    ) -> Vec<StoreLink> {
        let mut servers = self.links.iter();
        let link = |store: StoreOptions| match store.kind {
            kind if kind.is_server() => servers.next().map(|links| links[usize::from(shard)].clone()),
            StoreKind::Sqlite => sqlite.cloned(),
            _ => None,
        };
        options.all_stores().into_iter().filter_map(link).collect()
    }
}

/// Namespaces that the catalog has on servers which are not configured.
fn absent(catalog: &Catalog, options: &ServeOptions) -> Result<Arc<FxHashSet<u32>>, ServeError> {
    let entries = catalog.entries().map_err(|cause| ServeError(cause.to_string()))?;
    let configured = options.all_stores();
    let is_absent = |entry: &&CatalogEntry| {
        let kind = StoreKind::of_name(&entry.store.kind).filter(|kind| kind.is_server());
        let is_its_own = |store: &StoreOptions| store.name == entry.store.name && Some(store.kind) == kind;
        kind.is_some() && !configured.iter().any(is_its_own)
    };
    let absent = entries.iter().filter(is_absent).map(|entry| entry.id);
    Ok(Arc::new(absent.collect()))
}

/// Durabilities of the namespaces that the catalog has on a store.
fn known(catalog: &Catalog, store: &StoreOptions) -> Result<Durabilities, ServeError> {
    let entries = catalog.entries().map_err(|cause| ServeError(cause.to_string()))?;
    let own = entries
        .iter()
        .filter(|entry| entry.store.name == store.name && entry.store.kind == store.kind.name());
    let number = |text: &str| receipt::number_of(Durability::parse(text).unwrap_or(Durability::Strong));
    let known: FxHashMap<u32, i32> = own.map(|entry| (entry.id, number(&entry.durability))).collect();
    Ok(Arc::new(RwLock::new(known)))
}

fn checked(store: &StoreOptions) -> Result<ServerConfig, ServeError> {
    ServerConfig::check(store.kind, &store.raw())
        .map_err(|cause| ServeError(format!("stores.{}.{cause}", store.name)))
}

/// Random number of this gateway's catalog, made with it. It marks the databases whose namespaces
/// have their numbers from that catalog: those of two catalogs would collide.
fn owner_of(data_dir: &Path) -> io::Result<u128> {
    let path = data_dir.join("catalog.id");
    match fs::read_to_string(&path) {
        Ok(text) => u128::from_str_radix(text.trim(), 16)
            .map_err(|_| io::Error::other(format!("{} is damaged", path.display()))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 16];
            let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
            if filled < bytes.len() {
                return Err(io::Error::other("the system gives no random numbers"));
            }
            let owner = u128::from_ne_bytes(bytes);
            let fresh = data_dir.join("catalog.id.new");
            let mut file = fs::File::create(&fresh)?;
            io::Write::write_all(&mut file, format!("{owner:032x}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            fs::File::open(data_dir)?.sync_all()?;
            Ok(owner)
        }
        Err(cause) => Err(cause),
    }
}
