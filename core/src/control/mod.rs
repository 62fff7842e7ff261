//! The control thread: the catalog, the services of `prism.admin.v1` and the metrics page, off the
//! data path.
//!
//! ```text
//!   calls of clients ──► Control ──► catalog: what is to be, on disk
//!                        ▲  │ ▲
//!        events: done,   │  │ └─ events: taken in ◄── shards
//!        or why not      │  ├──────────────────────► shards: serve it, give it up
//!                        └──┴──────────────────────► provisioning thread of a store: do, undo
//! ```
//!
//! Control records a change, hands it on and answers its caller when the events of the other
//! threads say that it is done ([`changes`]). It waits for nothing but its mailboxes and the
//! catalog's disk, so the metrics page and all other calls are served while a store hangs. A start
//! goes on with what the catalog has recorded and the end of the process has cut short.

mod access;
pub(crate) mod catalog;
pub(crate) mod changes;
mod dead_letters;
pub(crate) mod figures;
mod fleet;
mod plans;
pub(crate) mod provision;
mod refusal;
pub(crate) mod service;
mod spec;
pub(crate) mod stores;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use prism_codec::{
    grpc::{Code, Status},
    method::NamespacesMethod,
    proto::prism::admin::v1::{
        ApplyRequest, ApplyResponse, CreateBatchRequest, CreateBatchResponse, CreateRequest, CreateResponse,
        DeleteResponse, PlanRequest, StatusRequest, UpdateResponse, ValidateRequest,
    },
};
use prost::Message;

pub(crate) use self::dead_letters::DeadLetterCalls;
use self::{
    catalog::{Catalog, CatalogEntry},
    changes::{Caller, Changes, Form, Order, Outcome},
    figures::Figures,
    plans::Applied,
    provision::{Action, Links, Object, Task},
    service::{Batch, ServiceContext, namespace_message},
    spec::spec_of,
};
use crate::{
    call::{
        change::{Acknowledge, ChangeId, ControlEvent, Fault, NamespaceChange},
        job::{Answer, ControlJob, Reply, ShardCommand},
        method::AdminMethod,
        ticket::Ticket,
    },
    identity,
    log::{LogEvent, open::Opened},
    metrics::{Registry, render_disk},
    namespace::{spec::Home, state::NamespaceState},
    runtime::{
        mailbox::{Mailbox, Waker},
        reactor::DriverInUse,
        threads::{self, Kind},
    },
};

/// Calls that wait for the control thread, at the most.
pub(crate) const CALLS_MAX: usize = 256;
/// Tasks that wait for a store: a change has one at the most, and the undoing of a part of it
/// another; each call about dead letters has one.
pub(crate) const TASKS_MAX: usize = 2 * changes::CHANGES_MAX + dead_letters::CALLS_MAX;
/// Time before a caller's deadline at which control says how far a change is.
const ANSWER_MARGIN: Duration = Duration::from_millis(250);

/// Mailboxes of the control thread; they share its waker.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    pub(crate) calls: Arc<Mailbox<ControlJob>>,
    pub(crate) events: Arc<Mailbox<ControlEvent>>,
    pub(crate) waker: Arc<Waker>,
}

impl Inbox {
    /// Mailboxes for a gateway with this many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self::with_waker(shards, Waker::for_thread())
    }

    /// Mailboxes whose bell others have already.
    pub(crate) fn with_waker(shards: usize, waker: Arc<Waker>) -> Self {
        // An answer for each question that may be open, and for as many that were given up.
        let events = 2 * (TASKS_MAX + 2 * changes::CHANGES_MAX * shards);
        Self {
            calls: Arc::new(Mailbox::new(CALLS_MAX, waker.clone())),
            events: Arc::new(Mailbox::new(events, waker.clone())),
            waker,
        }
    }

    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.events.is_empty()
    }
}

/// State of the control thread, and the threads around it.
pub(crate) struct Control {
    pub(crate) catalog: Catalog,
    pub(crate) context: ServiceContext,
    pub(crate) registry: Arc<Registry>,
    pub(crate) driver: DriverInUse,
    /// Where the store and the log lie; `None` where nothing is on disk.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) inbox: Inbox,
    pub(crate) replies: Vec<Arc<Mailbox<Reply>>>,
    pub(crate) shards: Vec<Arc<Mailbox<ShardCommand>>>,
    /// The ways to the provisioning threads of the stores.
    pub(crate) links: Links,
    /// Set when the gateway ends.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) changes: Changes,
    pub(crate) dead_letters: DeadLetterCalls,
    pub(crate) figures: Figures,
}

impl Control {
    /// Makes the shards know what the catalog holds, and goes on with what is recorded and not
    /// done. Waits for nobody: what a shard is sent here it has before anything that is sent later.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn recover(&mut self) -> Result<usize, String> {
        // All of it is looked at here.
        let touched = self.catalog.take_touched();
        touched.map_err(|cause| cause.to_string())?;
        let entries = self.catalog.entries().map_err(|cause| cause.to_string())?;
        let stores = &self.context.stores;
        let specs = entries.iter().map(|entry| spec_of(entry, entry.state, stores));
        let known: Arc<[_]> = specs.map(NamespaceChange::Set).collect();
        for shard in &self.shards {
            let sent = shard.send(ShardCommand::Namespaces(known.clone(), None));
            sent.map_err(|_| "a shard does not take its namespaces".to_owned())?;
        }
        let unfinished = [
            (NamespaceState::Provisioning, Action::Create),
            (NamespaceState::Updating, Action::Update),
            (NamespaceState::Deleting, Action::Delete),
        ];
        for (state, action) in unfinished {
            let found: Vec<CatalogEntry> = entries
                .iter()
                .filter(|entry| entry.state == state && self.catalog.is_held_here(entry.id))
                .map(|entry| entry.clone().updated())
                .collect();
            if !found.is_empty() {
                tracing::info!(namespaces = found.len(), %state, "going on where the last run ended");
            }
            self.changes.begin(action, found, None);
        }
        self.carry_out_orders();
        Ok(entries.len())
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn spawn(mut self) -> io::Result<JoinHandle<()>> {
        threads::spawn(Kind::Control, None, move || {
            loop {
                while let Some(event) = self.inbox.events.receive() {
                    self.handle_event(event);
                }
                self.handle_catalog();
                let call = self.inbox.calls.receive();
                let is_idle = call.is_none();
                if let Some(job) = call {
                    if threads::fault_point(Kind::Control) {
                        return Ok(());
                    }
                    self.execute(job);
                }
                let until = self.handle_time(Instant::now());
                self.carry_out_orders();
                if self.stop.load(Ordering::SeqCst) && is_idle {
                    return Ok(());
                }
                if is_idle {
                    let (inbox, stop, catalog) = (&self.inbox, &self.stop, &self.catalog);
                    let has_work = || !inbox.is_empty() || catalog.has_news() || stop.load(Ordering::SeqCst);
                    let patience = until.map(|until| until.saturating_duration_since(Instant::now()));
                    inbox.waker.wait_blocking(patience, has_work);
                }
            }
        })
    }

    /// Does what is due. Returns when there is something to do next.
    fn handle_time(&mut self, now: Instant) -> Option<Instant> {
        if self.changes.next_time().is_some_and(|next| next <= now) {
            self.changes.handle_time(now);
        }
        for (ticket, status) in self.dead_letters.expired(now) {
            self.reply(ticket, Err(status));
        }
        self.figures.handle_time(now, &self.registry);
        let next = [self.changes.next_time(), self.dead_letters.next_time()];
        let next = next.into_iter().flatten();
        next.chain([self.figures.next_time()]).min()
    }

    fn handle_event(&mut self, event: ControlEvent) {
        let now = Instant::now();
        match event {
            ControlEvent::Applied { change, result } => {
                self.changes
                    .handle_applied(&mut self.catalog, change, result, now);
            }
            ControlEvent::Provisioned { change, results } => {
                self.changes
                    .handle_provisioned(&mut self.catalog, change, results, now);
            }
            ControlEvent::DeadLetters { ask, result } => self.handle_dead_letters(ask, result),
        }
        self.carry_out_orders();
    }

    fn execute(&mut self, job: ControlJob) {
        match job {
            ControlJob::Metrics { ticket } => {
                let mut page = self.registry.render(self.driver.name());
                if let Some(data_dir) = &self.data_dir {
                    render_disk(data_dir, &mut page);
                }
                self.reply(ticket, Ok(page.into_bytes()));
            }
            ControlJob::Admin {
                ticket,
                caller,
                method,
                body,
                deadline,
            } => {
                let call = Call {
                    ticket,
                    answer_by: before(deadline),
                };
                let caller = caller.as_deref();
                let checked = caller.map_or(Ok(()), |caller| self.check_call(caller, method, &body));
                let answer = checked.and_then(|()| match method {
                    AdminMethod::Namespaces(method) => self.namespaces(call, caller, method, &body),
                    AdminMethod::DeadLetters(method) => self.ask_dead_letters(call, method, &body),
                });
                match answer {
                    Ok(Some(message)) => self.reply(ticket, Ok(message)),
                    // The answer comes with an event, or when its time is over.
                    Ok(None) => {}
                    Err(status) => self.reply(ticket, Err(status)),
                }
            }
        }
    }

    /// Serves a call of Namespaces: at once, or by a change that is begun.
    fn namespaces(
        &mut self,
        call: Call,
        caller: Option<&identity::Caller>,
        method: NamespacesMethod,
        body: &[u8],
    ) -> Result<Option<Vec<u8>>, Box<Status>> {
        let trouble = |id| self.changes.trouble(id).unwrap_or_default().to_owned();
        match method {
            NamespacesMethod::Validate => {
                let request: ValidateRequest = decode(body)?;
                Ok(Some(service::validate(&self.context, &request).encode_to_vec()))
            }
            NamespacesMethod::Get => service::get(&self.catalog, &decode(body)?, trouble)
                .map(|response| Some(response.encode_to_vec()))
                .map_err(refused),
            NamespacesMethod::List => {
                let listed = service::list(&self.catalog, &decode(body)?, trouble);
                let mut response = listed.map_err(refused)?;
                if let Some(caller) = caller {
                    response
                        .namespaces
                        .retain(|namespace| access::sees(caller, namespace));
                }
                Ok(Some(response.encode_to_vec()))
            }
            NamespacesMethod::Plan => {
                let shards = self.shards.len();
                let mut request: PlanRequest = decode(body)?;
                request.yaml = access::owned_by(caller, request.yaml)?;
                plans::plan(&self.context, &mut self.catalog, shards, &request)
                    .map(|response| Some(response.encode_to_vec()))
                    .map_err(refused)
            }
            NamespacesMethod::Status => self.status(&decode(body)?).map(Some),
            _ if self.changes.is_full() => Err(refused(refusal::too_many_changes(changes::CHANGES_MAX))),
            NamespacesMethod::Create => {
                let mut request: CreateRequest = decode(body)?;
                request.yaml = access::owned_by(caller, request.yaml)?;
                let entry = service::create(&self.context, &mut self.catalog, SystemTime::now(), &request)
                    .map_err(refused)?;
                let caller = call.waits_for(Form::Create);
                self.changes.begin(Action::Create, vec![entry], Some(caller));
                Ok(None)
            }
            NamespacesMethod::CreateBatch => {
                let mut request: CreateBatchRequest = decode(body)?;
                let owned = request
                    .yamls
                    .into_iter()
                    .map(|yaml| access::owned_by(caller, yaml));
                request.yamls = owned.collect::<Result<_, _>>()?;
                let batch =
                    service::create_batch(&self.context, &mut self.catalog, SystemTime::now(), &request);
                match batch.map_err(refused)? {
                    Batch::Refused(response) => Ok(Some(response.encode_to_vec())),
                    Batch::Recorded(entries) => {
                        let caller = call.waits_for(Form::CreateBatch);
                        self.changes.begin(Action::Create, entries, Some(caller));
                        Ok(None)
                    }
                }
            }
            NamespacesMethod::Update => {
                let request = decode(body)?;
                let entry = service::update(&self.context, &mut self.catalog, &request).map_err(refused)?;
                let caller = call.waits_for(Form::Update);
                self.changes.begin(Action::Update, vec![entry], Some(caller));
                Ok(None)
            }
            NamespacesMethod::Apply => {
                let mut request: ApplyRequest = decode(body)?;
                request.yaml = access::owned_by(caller, request.yaml)?;
                self.apply(call, &request)
            }
            NamespacesMethod::Delete => {
                let entry = service::delete(&mut self.catalog, &decode(body)?).map_err(refused)?;
                let caller = call.waits_for(Form::Delete);
                if self.catalog.is_shared() && !self.catalog.is_held_here(entry.id) {
                    return self.wait_for_delete(entry, caller);
                }
                let is_joined =
                    entry.state == NamespaceState::Deleting && self.changes.join(entry.id, caller);
                if !is_joined {
                    self.changes.begin(Action::Delete, vec![entry], Some(caller));
                }
                Ok(None)
            }
        }
    }

    /// Serves `Status`.
    fn status(&self, request: &StatusRequest) -> Result<Vec<u8>, Box<Status>> {
        let entry = service::entry(&self.catalog, &request.name).map_err(refused)?;
        let config = entry
            .config()
            .map_err(|cause| refused(refusal::of_catalog(&cause)))?;
        let totals = self.registry.totals_of(&entry.name);
        let status = self.figures.status(Instant::now(), &entry, &config, &totals);
        Ok(status.encode_to_vec())
    }

    /// Carries out a plan.
    fn apply(&mut self, call: Call, request: &ApplyRequest) -> Result<Option<Vec<u8>>, Box<Status>> {
        let (context, shards) = (&self.context, self.shards.len());
        let applied = plans::apply(context, &mut self.catalog, shards, SystemTime::now(), request);
        match applied.map_err(refused)? {
            Applied::Nothing(entry) => Ok(Some(applied_message(*entry, "none"))),
            Applied::Begun(action, entry) => {
                let caller = call.waits_for(Form::Apply(action));
                self.changes.begin(action, vec![*entry], Some(caller));
                Ok(None)
            }
        }
    }

    /// Sends what the changes have decided.
    fn carry_out_orders(&mut self) {
        for order in self.changes.take_orders() {
            match order {
                Order::Store {
                    change,
                    home,
                    action,
                    objects,
                } => self.send_to_store(change, home, action, objects),
                Order::Shards { change, changes } => self.send_to_shards(change, &changes),
                Order::ForgetFigures(name) => {
                    self.registry.remove_namespace(&name);
                    tracing::info!(namespace = name, "namespace deleted");
                }
                Order::Answer { caller, outcomes } => {
                    for Outcome { entry, result } in &outcomes {
                        if result.is_ok() && entry.state == NamespaceState::Active {
                            let (namespace, version) = (&entry.name, entry.version);
                            tracing::info!(namespace, version, "namespace in service");
                        }
                    }
                    self.reply(caller.ticket, answer(caller.form, outcomes));
                }
            }
        }
    }

    fn send_to_store(&mut self, change: ChangeId, home: Option<Home>, action: Action, objects: Vec<Object>) {
        let Some(link) = home.and_then(|home| self.links.of(home)) else {
            let fault = || Err(Fault::Retry("its store is not configured".to_owned()));
            let event = ControlEvent::Provisioned {
                change,
                results: objects.into_iter().map(|object| (object.id, fault())).collect(),
            };
            let sent = self.inbox.events.send(event);
            debug_assert!(sent.is_ok(), "the mailbox holds an answer for each question");
            return;
        };
        let task = Task::Provision {
            change,
            action,
            objects,
        };
        if !link.submit(task) {
            self.changes.handle_no_room(change, Instant::now());
        }
    }

    fn send_to_shards(&mut self, change: Option<ChangeId>, changes: &Arc<[NamespaceChange]>) {
        for shard in &self.shards {
            let acknowledge = change.map(|change| Acknowledge {
                change,
                events: self.inbox.events.clone(),
            });
            let sent = shard.send(ShardCommand::Namespaces(changes.clone(), acknowledge));
            if let (Err(_), Some(change)) = (sent, change) {
                return self.changes.handle_no_room(change, Instant::now());
            }
        }
    }

    fn reply(&self, ticket: Ticket, result: Result<Vec<u8>, Box<Status>>) {
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
}

/// A call of the administration.
#[derive(Debug, Clone, Copy)]
struct Call {
    ticket: Ticket,
    answer_by: Instant,
}

impl Call {
    fn waits_for(self, form: Form) -> Caller {
        Caller {
            ticket: self.ticket,
            answer_by: self.answer_by,
            form,
        }
    }
}

/// A moment before a deadline, so that the answer still arrives.
fn before(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - ANSWER_MARGIN.min(left / 4)
}

/// The answer of a call whose change has ended, or which does not wait any longer.
fn answer(form: Form, mut outcomes: Vec<Outcome>) -> Result<Vec<u8>, Box<Status>> {
    if form == Form::CreateBatch {
        let results = outcomes.into_iter().map(service::batch_result).collect();
        return Ok(CreateBatchResponse { results }.encode_to_vec());
    }
    let Some(Outcome { entry, result }) = outcomes.pop() else {
        return Err(crate::call::error::status(
            Code::Internal,
            "a change about nothing",
        ));
    };
    result?;
    if let Form::Apply(action) = form {
        return Ok(applied_message(entry, action.word()));
    }
    let namespace = Some(namespace_message(entry, String::new()));
    Ok(match form {
        Form::Create | Form::CreateBatch => CreateResponse { namespace }.encode_to_vec(),
        Form::Update => UpdateResponse { namespace }.encode_to_vec(),
        Form::Delete | Form::Apply(_) => DeleteResponse {}.encode_to_vec(),
    })
}

fn applied_message(entry: CatalogEntry, action: &str) -> Vec<u8> {
    let namespace = Some(namespace_message(entry, String::new()));
    let action = action.to_owned();
    ApplyResponse { namespace, action }.encode_to_vec()
}

/// Hands each shard its lane.
pub(crate) fn send_opened(events: &[Arc<Mailbox<LogEvent>>], opened: Vec<Opened>) {
    for (mailbox, opened) in events.iter().zip(opened) {
        let sent = mailbox.send(match opened {
            Opened::Lane(lane) => LogEvent::Open(lane),
            Opened::Held(why) => LogEvent::Held(why),
        });
        debug_assert!(sent.is_ok(), "the first news of a log finds an empty mailbox");
    }
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
fn refused(refusal: refusal::Refusal) -> Box<Status> {
    Box::new(Status::from_proto(*refusal))
}
