//! The gateway logic of one shard: which namespace, which owner, which limits; calls in, answers
//! out.
//!
//! ```text
//!   request ──> decode ──> gate ──> way ─┬─ this shard's memory: answered at once
//!                                        ├─ another shard: a job in its mailbox, an answer in ours
//!                                        ├─ this shard's log: append, park the reply
//!                                        └─ a store: a job for its threads
//! ```
//!
//! A call that cannot be answered at once becomes a `Pending` of its connection. Every answer comes
//! back to the shard that took the call, with the call's ticket. The number of calls that wait is
//! bounded per shard and per namespace, and the mailbox for answers is as large as that bound, so
//! an answer always has room.

pub(crate) mod access;
mod asks;
mod claims;
mod compress;
mod deadlines;
pub(crate) mod finish;
mod gate;
mod groups;
pub(crate) mod head;
pub(crate) mod health;
pub(crate) mod http_rules;
pub(crate) mod logged;
pub(crate) mod namespaces;
pub(crate) mod pending;
mod queued;
pub(crate) mod reflection;
pub(crate) mod route;
pub(crate) mod stream;
mod unary;
mod waits;
mod way;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use prism_backends::{NamespaceId, StoreError, UnixMillis};
use prism_codec::{
    grpc::{self, Code, Status},
    method::Shape,
};

use self::{
    access::Callers,
    asks::Ask,
    deadlines::Deadlines,
    http_rules::HttpRules,
    logged::Log,
    namespaces::{Namespace, Namespaces},
    pending::Pending,
    route::Route,
    stream::Stream,
    way::Shards,
};
use crate::{
    api::{self, keyvalue, memory::ShardMemory, service::Request, with_service},
    call::{
        change::NamespaceChange,
        context::Context,
        error::{self, Stage},
        group_waits::GroupWaits,
        job::{Answer, ControlJob, Job, Reply, ShardCommand, Work, WriterMessage},
        link::StoreLink,
        method::AdminMethod,
        owner::owner_of,
        record::Part,
        ticket::Ticket,
        waiting::Waiting,
    },
    config::ServeLimits,
    identity::Rules,
    log::window::{self, CallHasher, Claims},
    metrics::{Registry, ShardMetrics},
    namespace::{
        spec::{Home, StoreId},
        state::NamespaceState,
    },
    runtime::{clock::Stamper, idle_poll::Outstanding, mailbox::Mailbox},
};

/// Mailboxes of one shard to the threads around it.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    /// The jobs mailbox of every shard, by shard number.
    pub(crate) shards: Vec<Arc<Mailbox<Job>>>,
    /// The answers mailbox of every shard, by shard number.
    pub(crate) replies: Vec<Arc<Mailbox<Reply>>>,
    pub(crate) control: Arc<Mailbox<ControlJob>>,
}

/// Places of the data of a shard's keys. Each namespace has its home in one of them.
pub(crate) struct Places {
    /// The shard itself, for the keys that it owns.
    pub(crate) memory: Box<ShardMemory>,
    /// The stores that all shards share, by their number.
    pub(crate) stores: Vec<StoreLink>,
    /// The shard's log, where there can be one.
    pub(crate) log: Option<Log>,
}

/// Longest time of a call of the administration without a deadline.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The thread that runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Shard(u16),
    Writer(StoreId),
    Reader(StoreId),
}

/// State of a call that was started.
pub(crate) enum Progress {
    /// Answered: the message is in [`Dispatcher::reply`], or it failed.
    Done(Result<(), Box<Status>>),
    /// The answer comes by mailbox.
    Waiting(Box<Pending>),
    /// A stream of chunks.
    Stream(Box<Stream>),
    /// A health watch: the first message is in [`Dispatcher::reply`], more may follow.
    Watch,
}

/// The gateway logic of one shard.
pub(crate) struct Dispatcher {
    shard: u16,
    peers: Peers,
    places: Places,
    /// Asks of streams that wait for what this shard's memory does not have yet.
    asks: Vec<Ask>,
    /// Calls that found nothing in this shard's memory.
    calls: Waiting,
    /// Asks of members of groups that this shard keeps, to which there is no news.
    group_waits: GroupWaits,
    /// The calls to which tokens belong that this shard owns, where its log does not know them.
    claims: Claims,
    namespaces: Namespaces,
    pub(crate) callers: Callers,
    limits: ServeLimits,
    metrics: Arc<ShardMetrics>,
    /// Calls with an answer still to come by mailbox.
    waiting: usize,
    /// Number of them that wait for the control thread.
    waiting_for_control: usize,
    /// Number of open streams.
    streams: usize,
    stamper: Stamper,
    /// Namespaces with calls in the running batch.
    touched: Vec<Rc<Namespace>>,
    deadlines: Deadlines,
    serving: bool,
    registry: Arc<Registry>,
    http: HttpRules,
    compressor: grpc::Compressor,
    /// The message (or body) of the last answered call.
    pub(crate) reply: Vec<u8>,
}

impl Dispatcher {
    pub(crate) fn new(
        shard: u16,
        peers: Peers,
        places: Places,
        limits: ServeLimits,
        metrics: Arc<ShardMetrics>,
        registry: Arc<Registry>,
        http: HttpRules,
    ) -> Self {
        Self {
            shard,
            peers,
            places,
            asks: Vec::new(),
            calls: Waiting::default(),
            group_waits: GroupWaits::default(),
            claims: Claims::new(CallHasher::default(), window::ENTRIES_MAX),
            namespaces: Namespaces::new(registry.clone()),
            callers: Callers::default(),
            limits,
            metrics,
            waiting: 0,
            waiting_for_control: 0,
            streams: 0,
            stamper: Stamper::new(registry.clock().clone()),
            touched: Vec::new(),
            deadlines: Deadlines::default(),
            // Until the control thread has sent all namespaces.
            serving: false,
            registry,
            http,
            compressor: grpc::Compressor::default(),
            reply: Vec::new(),
        }
    }

    /// The same with rules of identity.
    pub(crate) fn with_rules(self, rules: Option<Arc<Rules>>) -> Self {
        let callers = Callers::new(rules);
        Self { callers, ..self }
    }

    pub(crate) fn limits(&self) -> &ServeLimits {
        &self.limits
    }

    pub(crate) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    pub(crate) fn shared_metrics(&self) -> Arc<ShardMetrics> {
        self.metrics.clone()
    }

    /// Sets whether new calls are welcome, for health checks and `/readyz`.
    pub(crate) fn set_serving(&mut self, serving: bool) {
        self.serving = serving;
    }

    /// Whether this gateway should get calls; if not, the reason.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if let Some(failure) = self.registry.failure() {
            return Err(failure.to_owned());
        }
        if !self.serving {
            return Err("draining".to_owned());
        }
        // Every shard knows about every lane: a probe may reach any of them.
        self.registry.lane_trouble().map_or(Ok(()), Err)
    }

    /// Starts a call with a complete request message. `now` is when its last byte arrived.
    pub(crate) fn start(
        &mut self,
        route: Route,
        ticket: Ticket,
        deadline: Option<Instant>,
        now: Instant,
        message: &[u8],
    ) -> Progress {
        self.reply.clear();
        match route {
            Route::Call(method) => with_service!(
                method,
                S, method => match method.spec().shape {
                    Shape::Unary => self.start_call::<S>(method, ticket, deadline, now, message),
                    _ => self.start_stream::<S>(method, ticket, deadline, now, message),
                },
                else Progress::Done(Err(error::not_served(method)))
            ),
            Route::Admin(method) => self.start_admin(method, ticket, deadline, now, message),
            Route::HealthCheck => Progress::Done(self.health(message, self.readiness().is_ok())),
            Route::HealthList => Progress::Done(self.health_list(message)),
            Route::HealthWatch => self.watch_health(message),
            _ => Progress::Done(self.plain(route)),
        }
    }

    /// Executes a command of the control thread. Those about connections are left to the caller.
    pub(crate) fn handle_command(&mut self, command: ShardCommand) {
        match command {
            ShardCommand::Namespaces(changes, acknowledge) => {
                // A failing one must not keep the others from being served.
                let results = changes.iter().map(|change| self.change_namespace(change));
                let result = results.fold(Ok(()), Result::and);
                if let Some(acknowledge) = acknowledge {
                    acknowledge.send(result);
                }
            }
            // The start that asked may have given up.
            ShardCommand::Confirm(done) => drop(done.try_send(())),
            ShardCommand::Serve(_) => self.serving = true,
            _ => {}
        }
    }

    fn change_namespace(&mut self, change: &NamespaceChange) -> Result<(), StoreError> {
        self.callers.note_change();
        match change {
            NamespaceChange::Set(spec) => {
                if spec.serves() && spec.home == Home::Shards {
                    self.places.memory.create_namespace(spec.api, spec.id)?;
                }
                if spec.state == NamespaceState::Deleting {
                    if let Some(log) = &mut self.places.log {
                        log.remove_namespace(spec.id);
                    }
                    self.refuse_asks(spec.id);
                    self.refuse_waiting(spec.id);
                    self.places.memory.drop_namespace(spec.id)?;
                }
                self.namespaces.set(spec.clone());
            }
            NamespaceChange::Forget(id) => self.namespaces.forget(*id),
        }
        Ok(())
    }

    /// Frees room of expired or deleted data: a bounded step. Returns whether more is left.
    pub(crate) fn sweep(&mut self, budget: usize) -> bool {
        let now = self.wall_millis();
        self.places.memory.sweep(now, budget)
    }

    /// Answers requests that need neither a message nor a store.
    pub(crate) fn plain(&mut self, route: Route) -> Result<(), Box<Status>> {
        self.reply.clear();
        match route {
            Route::Healthz => self.reply.extend_from_slice(b"ok\n"),
            Route::Readyz => match self.readiness() {
                Ok(()) => self.reply.extend_from_slice(b"ready\n"),
                Err(why) => return Err(Box::new(Status::new(Code::Unavailable, why))),
            },
            Route::Welcome => self.reply.extend_from_slice(WELCOME.as_bytes()),
            _ => {
                return Err(error::status(
                    Code::Unimplemented,
                    "there is no such method or path",
                ));
            }
        }
        Ok(())
    }

    /// Queues a job for its destination. Refuses at the maxima, never waits.
    fn submit(&mut self, to: Destination, pending: &Pending, work: Work) -> Result<(), Box<Status>> {
        self.take_place(pending)?;
        let sent = self.submit_without_place(to, pending, work);
        if sent.is_err() {
            self.answer_received(&pending.ticket);
        }
        sent
    }

    /// Queues a job that is counted elsewhere.
    fn submit_without_place(
        &mut self,
        to: Destination,
        pending: &Pending,
        work: Work,
    ) -> Result<(), Box<Status>> {
        let job = Job {
            ticket: pending.ticket,
            deadline: pending.deadline,
            work,
        };
        if !self.send_job(to, job) {
            self.metrics.shed.add(1);
            return Err(error::overloaded("the store's mailbox is full"));
        }
        Ok(())
    }

    /// Puts a job into the mailbox of its destination. Returns whether there was room.
    fn send_job(&mut self, to: Destination, job: Job) -> bool {
        match to {
            Destination::Writer(store) => {
                let link = &self.places.stores[usize::from(store.0)];
                link.writes.send(WriterMessage::Job(job)).is_ok()
            }
            Destination::Reader(store) => self.places.stores[usize::from(store.0)].reads.send(job).is_ok(),
            Destination::Shard(shard) => {
                if shard != self.shard {
                    self.metrics.hops.add(1);
                }
                self.peers.shards[usize::from(shard)].send(job).is_ok()
            }
        }
    }

    /// Executes a job that another shard (or a Scan of this one) sent to this shard.
    pub(crate) fn execute(&mut self, job: Job) {
        let namespace = job.work.namespace();
        let job = match job.work {
            Work::Messages {
                wanted,
                place,
                number,
            } => return self.execute_ask(job.ticket, wanted, place, number),
            Work::Group(ask) => return self.execute_group(job.ticket, *ask),
            Work::Claim(call) => return self.execute_claim(job.ticket, job.deadline, *call),
            Work::TakeBack { .. } => {
                self.drop_asks_of(job.ticket);
                return self.end_wait(job.ticket);
            }
            work => Job { work, ..job },
        };
        match self.namespaces.spec_of(namespace).map(|spec| spec.home) {
            Some(Home::Shards) => self.execute_in_memory(job),
            Some(Home::Store(_)) => self.execute_logged(job),
            None => self.send_reply(Reply {
                ticket: job.ticket,
                result: Err(error::from_store(&StoreError::DroppedNamespace(namespace))),
            }),
        }
    }

    fn execute_in_memory(&mut self, job: Job) {
        let namespace = job.work.namespace();
        self.run_in_memory(job);
        self.serve_asks(namespace);
        self.serve_waiting(namespace);
    }

    fn run_in_memory(&mut self, job: Job) {
        let now = self.wall_millis();
        let shard_count = self.shard_count();
        let shard = self.shard;
        let memory = &mut self.places.memory;
        let expired = job.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let result = match &job.work {
            _ if expired => Err(error::deadline_exceeded(Stage::Store)),
            Work::Unary {
                method,
                namespace,
                default_ttl_ms,
                body,
                stamp,
                part,
                ..
            } => {
                let context = Context {
                    namespace: *namespace,
                    default_ttl_ms: *default_ttl_ms,
                    now,
                    stamp: *stamp,
                };
                let part = part.then_some(Part {
                    shards: shard_count,
                    shard,
                });
                api::serve(memory, *method, body, &context, part)
            }
            Work::ScanPage {
                namespace,
                page_bytes,
                item_limit,
                page_token,
            } => {
                let selection = prism_backends::Selection {
                    page_bytes: *page_bytes,
                    item_limit: *item_limit,
                    page_token,
                };
                let mut message = Vec::new();
                keyvalue::reads::scan_page(*namespace, selection, now, &mut message, |query, sink| {
                    memory.keyvalue.scan(query, now, sink)
                })
                .map(|next| Answer::Page { message, next })
            }
            // Nothing waits to be applied where writes are applied at once.
            _ => Ok(Answer::Reached),
        };
        if matches!(&result, Ok(Answer::Message(message)) if message.is_empty()) && self.may_wait(&job) {
            self.keep_waiting(job);
            return;
        }
        self.send_reply(Reply {
            ticket: job.ticket,
            result,
        });
    }

    /// Sends an answer to the shard that took the call.
    fn send_reply(&self, reply: Reply) {
        let sent = self.peers.replies[usize::from(reply.ticket.shard)].send(reply);
        debug_assert!(
            sent.is_ok(),
            "the mailbox for answers holds as many as calls may wait"
        );
    }

    fn start_admin(
        &mut self,
        method: AdminMethod,
        ticket: Ticket,
        deadline: Option<Instant>,
        now: Instant,
        message: &[u8],
    ) -> Progress {
        let caller = match self.callers.find(ticket.caller) {
            Ok(caller) => caller.cloned(),
            Err(status) => return Progress::Done(Err(status)),
        };
        // Every call of the administration has a deadline, since a store may not answer.
        let deadline = deadline.unwrap_or(now + ADMIN_TIMEOUT);
        let mut pending = Box::new(Pending::new(ticket, now, Some(deadline), None));
        match self.submit_control(ControlJob::Admin {
            ticket,
            caller,
            method,
            body: message.to_vec(),
            deadline,
        }) {
            Ok(()) => {
                self.watch_deadline(&mut pending);
                Progress::Waiting(pending)
            }
            Err(status) => Progress::Done(Err(status)),
        }
    }

    /// Asks the control thread for the metrics page.
    pub(crate) fn start_metrics(&mut self, ticket: Ticket) -> Progress {
        let allowed = self.check_viewer(ticket.caller);
        match allowed.and_then(|()| self.submit_control(ControlJob::Metrics { ticket })) {
            Ok(()) => Progress::Waiting(Box::new(Pending::new(ticket, Instant::now(), None, None))),
            Err(status) => Progress::Done(Err(status)),
        }
    }

    fn submit_control(&mut self, job: ControlJob) -> Result<(), Box<Status>> {
        if self.waiting >= self.limits.inflight_per_shard_max {
            self.metrics.shed.add(1);
            return Err(error::overloaded("too many calls wait"));
        }
        self.peers.control.send(job).map_err(|_| {
            self.metrics.shed.add(1);
            error::overloaded("the control thread has too much to do")
        })?;
        // Not shown: the gauge is about calls that wait for a store or another shard, and a scrape
        // would count itself.
        self.waiting += 1;
        self.waiting_for_control += 1;
        Ok(())
    }

    /// Begins a batch of calls that arrived together.
    pub(crate) fn begin_batch(&mut self) {
        self.stamper.begin_batch();
    }

    /// Ends a batch: all its calls were answered at about the same time. No reply of it may leave
    /// before.
    pub(crate) fn end_batch(&mut self, received: Instant) {
        self.stamper.end_batch();
        if self.touched.is_empty() {
            return;
        }
        let elapsed = received.elapsed();
        for namespace in self.touched.drain(..) {
            namespace.record_batch(elapsed);
        }
    }

    /// The shards that own the keys of a request, in order, each once. Empty if there is one shard.
    fn owners<'a>(&self, namespace: NamespaceId, request: &impl Request<'a>) -> Shards {
        let count = self.shard_count();
        if count == 1 {
            return Shards::new();
        }
        let mut shards = Shards::new();
        request.keys(|key| shards.push(owner_of(namespace, key, count)));
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Waits of calls for parts of this process: a store, the log, another shard. The control
    /// thread is left out, as it is slow.
    pub(crate) fn outstanding(&self) -> Outstanding {
        let (promised, writes) = self.log_promises();
        Outstanding {
            // Calls that other shards took wait for this one's log, too.
            calls: (self.waiting - self.waiting_for_control).max(promised),
            writes,
        }
    }

    fn shard_count(&self) -> u16 {
        self.peers.shards.len() as u16
    }

    /// The wall clock now.
    fn wall_millis(&self) -> UnixMillis {
        self.stamper.clock().wall().unix_millis()
    }
}

const WELCOME: &str = "Prism, a data gateway.\n\n\
    gRPC, Connect (JSON) and HTTP on this port:\n\
    \x20 /metrics  /healthz  /readyz\n\
    \x20 POST /prism.keyvalue.v1.KeyValue/Put  and the other methods that server reflection lists\n";
