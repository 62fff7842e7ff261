//! The control thread: the catalog, the Namespaces service and the metrics page, off the data path.
//!
//! A namespace is created in this order: catalog (on disk), store, all shards, reply; deleted in the order catalog (it is
//! marked as dropped), all shards, store, catalog again. A crash between two steps is mended at the next start: what the
//! catalog holds is created in the store, what it has marked is removed from it.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use prism_backends::{NamespaceId, StoreError};
use prism_codec::{
    grpc::{Code, Status},
    method::NamespacesMethod,
    proto::prism::admin::v1::{
        CreateRequest, DeleteRequest, DeleteResponse, GetRequest, ListRequest, ValidateRequest,
    },
};
use prost::Message;

use self::{
    catalog::{Catalog, StoreRef},
    service::ServiceContext,
    stores::OpenStore,
};
use crate::{
    call::{
        error,
        job::{Answer, ControlJob, Reply, ShardCommand, WriterMessage},
        method::AdminMethod,
    },
    log::{
        LogNews,
        open::{LogDirectory, Opened},
    },
    metrics::{Registry, render_disk},
    namespace::{
        Durability, NamespaceConfig,
        spec::{Home, NamespaceSpec, Path, Unapplied},
    },
    plan::api_of,
    runtime::{
        mailbox::{Mailbox, Waker},
        reactor::DriverInUse,
        threads::{self, Kind},
    },
};

pub(crate) mod catalog;
mod dead_letters;
pub(crate) mod service;
pub(crate) mod stores;

/// How long the shards and the store may take to learn of a namespace.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// What the control thread works with.
pub(crate) struct Control {
    pub(crate) catalog: Catalog,
    pub(crate) context: ServiceContext,
    pub(crate) registry: Arc<Registry>,
    pub(crate) driver: DriverInUse,
    /// Where the store and the log lie; `None` where nothing is on disk.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) mailbox: Arc<Mailbox<ControlJob>>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) replies: Vec<Arc<Mailbox<Reply>>>,
    pub(crate) shards: Vec<Arc<Mailbox<ShardCommand>>>,
    /// The writer of a store that all shards share, where there is one.
    pub(crate) writer: Option<Arc<Mailbox<WriterMessage>>>,
    pub(crate) stop: Arc<AtomicBool>,
    /// The log, where the store can use one.
    pub(crate) log: Option<LogDirectory>,
    /// How the shards' logs hear of their lanes.
    pub(crate) log_news: Vec<Arc<Mailbox<LogNews>>>,
}

impl Control {
    /// Makes the store and the shards know what the catalog holds. Called before the gateway takes connections, while
    /// the shards already empty their mailboxes.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn recover(&mut self) -> Result<usize, String> {
        let dropped = self.catalog.dropped().map_err(|cause| cause.to_string())?;
        for (id, store) in dropped {
            let Some(store) = self.context.stores.find(&store.name, &store.kind) else {
                tracing::warn!(
                    store = store.name,
                    "data of a deleted namespace is left in a store that is not configured"
                );
                continue;
            };
            self.drop_in(store.home, NamespaceId(id))
                .map_err(|cause| cause.to_string())?;
            self.catalog.forget(id).map_err(|cause| cause.to_string())?;
        }
        let entries = self.catalog.entries().map_err(|cause| cause.to_string())?;
        let mut specs = Vec::with_capacity(entries.len());
        for entry in &entries {
            let config = match entry.config() {
                Ok(config) => config,
                Err(cause) => {
                    // One namespace in trouble must not keep the others from being served.
                    tracing::error!(namespace = entry.name, error = %cause, "the namespace stays out of service");
                    continue;
                }
            };
            let StoreRef { name, kind } = &entry.store;
            let Some(store) = self.context.stores.find(name, kind) else {
                tracing::error!(
                    namespace = entry.name,
                    store = name,
                    kind,
                    "this store is not configured: the namespace stays out of service"
                );
                continue;
            };
            let Some(spec) = spec(entry.id, &config, store) else {
                tracing::error!(
                    namespace = entry.name,
                    client_api = %config.client_api,
                    "this version does not serve this API: the namespace stays out of service"
                );
                continue;
            };
            specs.push(spec);
        }
        // In one message, since a message for each would keep the gateway from serving for seconds.
        self.announce(specs)
            .map_err(|cause| format!("the namespaces of the catalog: {cause}"))?;
        Ok(entries.len())
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn spawn(mut self) -> io::Result<JoinHandle<()>> {
        threads::spawn(Kind::Control, None, move || {
            loop {
                while let Some(job) = self.mailbox.receive() {
                    if threads::fault_point(Kind::Control) {
                        return Ok(());
                    }
                    self.execute(job);
                }
                if self.stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
                let (mailbox, stop) = (&self.mailbox, &self.stop);
                self.waker
                    .wait_blocking(None, || !mailbox.is_empty() || stop.load(Ordering::SeqCst));
            }
        })
    }

    fn execute(&mut self, job: ControlJob) {
        let (ticket, result) = match job {
            ControlJob::Metrics { ticket } => {
                let mut page = self.registry.render(self.driver.name());
                if let Some(data_dir) = &self.data_dir {
                    render_disk(data_dir, &mut page);
                }
                (ticket, Ok(page.into_bytes()))
            }
            ControlJob::Admin { ticket, method, body } => (ticket, self.admin(method, &body)),
        };
        let reply = Reply {
            ticket,
            result: result.map(Answer::Message),
        };
        let sent = self.replies[usize::from(ticket.shard)].send(reply);
        debug_assert!(
            sent.is_ok(),
            "the mailbox for answers holds as many as calls may wait"
        );
    }

    fn admin(&mut self, method: AdminMethod, body: &[u8]) -> Result<Vec<u8>, Box<Status>> {
        match method {
            AdminMethod::Namespaces(NamespacesMethod::Validate) => {
                let request: ValidateRequest = decode(body)?;
                Ok(service::validate(&self.context, &request).encode_to_vec())
            }
            AdminMethod::Namespaces(NamespacesMethod::Create) => self.create(&decode(body)?),
            AdminMethod::Namespaces(NamespacesMethod::Get) => {
                let request: GetRequest = decode(body)?;
                service::get(&self.catalog, &request)
                    .map(|response| response.encode_to_vec())
                    .map_err(refused)
            }
            AdminMethod::Namespaces(NamespacesMethod::List) => {
                let request: ListRequest = decode(body)?;
                service::list(&self.catalog, &request)
                    .map(|response| response.encode_to_vec())
                    .map_err(refused)
            }
            AdminMethod::Namespaces(NamespacesMethod::Delete) => self.delete(&decode(body)?),
            AdminMethod::DeadLetters(method) => self.dead_letters(method, body),
        }
    }

    fn create(&mut self, request: &CreateRequest) -> Result<Vec<u8>, Box<Status>> {
        let created =
            service::create(&self.context, &mut self.catalog, SystemTime::now(), request).map_err(refused)?;
        let ready = self.open_log_for(&created.config).and_then(|()| {
            let spec = spec(created.id, &created.config, &created.store)
                .ok_or_else(|| error::status(Code::Internal, "a namespace of an API that is not served"))?;
            self.announce(vec![spec])
                .map_err(|cause| error::from_store(&cause))
        });
        if let Err(status) = ready {
            tracing::error!(namespace = created.config.name, error = %status, "cannot create the namespace");
            if let Err(cause) = service::undo_create(&mut self.catalog, &created) {
                tracing::error!(
                    namespace = created.config.name,
                    error = cause.message,
                    "cannot take it back"
                );
            }
            return Err(status);
        }
        tracing::info!(
            namespace = created.config.name,
            id = created.id,
            "namespace created"
        );
        Ok(created.response.encode_to_vec())
    }

    fn delete(&mut self, request: &DeleteRequest) -> Result<Vec<u8>, Box<Status>> {
        let deleted = service::delete(&mut self.catalog, request).map_err(refused)?;
        let id = NamespaceId(deleted.id);
        let store = self.context.stores.find(&deleted.store.name, &deleted.store.kind);
        // The catalog has forgotten it already: what fails from here on is mended at the next start.
        let removed = self
            .tell_shards(|done| ShardCommand::RemoveNamespace(id, done))
            .and_then(|()| match store {
                Some(store) => self.drop_in(store.home, id),
                None => Err(busy("its store is not configured")),
            });
        self.registry.remove_namespace(&deleted.name);
        match removed {
            Ok(()) => {
                if let Err(cause) = self.catalog.forget(deleted.id) {
                    tracing::warn!(namespace = deleted.name, error = %cause, "its data is gone, but the catalog keeps the mark");
                }
            }
            Err(cause) => {
                tracing::warn!(namespace = deleted.name, error = %cause, "its data will be removed at the next start");
            }
        }
        tracing::info!(namespace = deleted.name, id = deleted.id, "namespace deleted");
        Ok(DeleteResponse {}.encode_to_vec())
    }

    /// Makes the log when the first namespace comes that needs it.
    fn open_log_for(&mut self, config: &NamespaceConfig) -> Result<(), Box<Status>> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if config.durability() == Durability::BestEffort || log.is_open() {
            return Ok(());
        }
        tracing::info!("preparing the log: some files are filled with zeros, which takes a moment");
        let opened = log.create().map_err(|cause| error::no_log(&cause))?;
        tell_logs(&self.log_news, opened);
        Ok(())
    }

    /// Makes namespaces usable: in their store first, then on all shards.
    fn announce(&self, specs: Vec<Arc<NamespaceSpec>>) -> Result<(), StoreError> {
        let in_store = |spec: &&Arc<NamespaceSpec>| matches!(spec.home, Home::Store(_));
        let ids: Vec<_> = specs.iter().filter(in_store).map(|spec| spec.id).collect();
        if !ids.is_empty() {
            self.store(|done| WriterMessage::CreateNamespaces(ids, done))?;
        }
        let specs: Arc<[_]> = specs.into();
        self.tell_shards(|done| ShardCommand::AddNamespaces(specs.clone(), done))
    }

    /// Removes the data of a namespace; that in the shards' memory has gone with the namespace.
    fn drop_in(&self, home: Home, id: NamespaceId) -> Result<(), StoreError> {
        match home {
            Home::Shards => Ok(()),
            Home::Store(_) => self.store(|done| WriterMessage::DropNamespace(id, done)),
        }
    }

    /// Has the store's writer do something. Without a writer there is nothing to do.
    fn store<T: Default>(
        &self,
        message: impl FnOnce(SyncSender<Result<T, StoreError>>) -> WriterMessage,
    ) -> Result<T, StoreError> {
        let Some(writer) = &self.writer else {
            return Ok(T::default());
        };
        let (done, answer) = sync_channel(1);
        writer
            .send(message(done))
            .map_err(|_| busy("the store's mailbox is full"))?;
        answer
            .recv_timeout(ACK_TIMEOUT)
            .map_err(|_| busy("the store does not answer"))?
    }

    fn tell_shards(
        &self,
        command: impl Fn(SyncSender<Result<(), StoreError>>) -> ShardCommand,
    ) -> Result<(), StoreError> {
        let (done, answers) = sync_channel(self.shards.len());
        for shard in &self.shards {
            shard
                .send(command(done.clone()))
                .map_err(|_| busy("a shard's mailbox is full"))?;
        }
        drop(done);
        for _ in &self.shards {
            answers
                .recv_timeout(ACK_TIMEOUT)
                .map_err(|_| busy("a shard does not answer"))??;
        }
        Ok(())
    }
}

/// Hands each shard its lane.
pub(crate) fn tell_logs(news: &[Arc<Mailbox<LogNews>>], opened: Vec<Opened>) {
    for (mailbox, opened) in news.iter().zip(opened) {
        let sent = mailbox.send(match opened {
            Opened::Lane(lane) => LogNews::Open(lane),
            Opened::Held(why) => LogNews::Held(why),
        });
        debug_assert!(sent.is_ok(), "the first news of a log finds an empty mailbox");
    }
}

fn busy(what: &str) -> StoreError {
    StoreError::Busy {
        detail: what.to_owned(),
    }
}

/// The namespace as the shards see it; `None` if this version does not serve its API.
fn spec(id: u32, config: &NamespaceConfig, store: &OpenStore) -> Option<Arc<NamespaceSpec>> {
    let value_bytes_max = config.needs.max_message_size.unwrap_or(u64::MAX);
    let path = Path::of(config.durability());
    Some(Arc::new(NamespaceSpec {
        id: NamespaceId(id),
        name: config.name.clone(),
        api: config.client_api.service()?,
        ttl_ms: config
            .item_ttl()
            .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        value_bytes_max: usize::try_from(value_bytes_max).unwrap_or(usize::MAX),
        home: store.home,
        path,
        unapplied: match path {
            Path::LogFirst => store.unapplied(api_of(config.client_api)),
            Path::StoreOnly | Path::StoreThenLog => Unapplied::Ignore,
        },
    }))
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Box<Status>> {
    M::decode(body).map_err(|cause| {
        Box::new(Status::new(
            Code::InvalidArgument,
            format!("the request message cannot be read: {cause}"),
        ))
    })
}

#[allow(
    clippy::boxed_local,
    reason = "the form in which every call of the service fails"
)]
fn refused(refusal: service::Refusal) -> Box<Status> {
    Box::new(Status::from_proto(*refusal))
}
