//! The thread that carries out in a store what the catalog has recorded: one for each store, since
//! a store may take its time, or never answer.
//!
//! ```text
//!   control ── Task { change, action, objects } ──► thread ── inspect, then do or undo ──► store
//!      ▲                                              │
//!      └──── Provisioned { change, results } ◄────────┘
//! ```
//!
//! Promises: every task is answered, once; each step may be repeated, by this process or by the
//! next one; an object that is not ours is never touched. Leaves to others: what is recorded
//! before, what follows from the results, and when a step is tried again ([`super::changes`]).

mod memory;
mod server;
mod sqlite;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prism_backends::{NamespaceId, StoreError, sqlite::OwnedDeadLetter};
use prism_codec::grpc::{Code, Status};

pub(crate) use self::{memory::Memory, server::Server, sqlite::Sqlite};
use super::{Inbox, TASKS_MAX, send_opened};
use crate::{
    call::{
        change::{ChangeId, ControlEvent, Fault},
        error,
        job::{DeadLetterJob, ProvisionStep},
    },
    log::{LogEvent, open::LogDirectory},
    namespace::{
        Durability,
        spec::{Home, StoreId},
    },
    runtime::{
        mailbox::Mailbox,
        threads::{self, Kind},
    },
};

/// How long one answer of a store is waited for; then the step counts as not done, and is tried
/// again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a wait looks whether the gateway ends.
const STOP_POLL: Duration = Duration::from_millis(50);

/// A step towards what is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The objects are to be there.
    Create,
    /// They are to be as the new file says.
    Update,
    /// They are to be gone.
    Delete,
}

impl Action {
    /// The word in answers.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A namespace's part of a store.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) id: NamespaceId,
    pub(crate) name: String,
    pub(crate) durability: Durability,
    /// Largest value or message, in bytes.
    pub(crate) message_bytes_max: u64,
    /// Time for which items are kept that bring none of their own; `None` is for ever.
    pub(crate) life_ms: Option<u64>,
}

impl Object {
    /// The step that makes it, or makes it be as the file says.
    fn create(&self) -> ProvisionStep {
        ProvisionStep::Create {
            message_bytes_max: self.message_bytes_max,
            life_ms: self.life_ms,
        }
    }
}

/// Finding of a store in the place of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Absent,
    /// The object of this very namespace.
    Ours,
    /// Nothing but the mark that the object of this number was there and has been removed.
    Removed,
    /// Something that another namespace, catalog or program has made.
    Foreign,
}

/// The objects of namespaces in one store. Every step may be repeated after a crash at any moment.
pub(crate) trait Provisioner: Send {
    /// Finds out what is in the place of an object, by a proof of ownership that lies in the store.
    fn inspect(&mut self, object: &Object) -> Result<Found, StoreError>;
    /// Makes an object that is absent.
    fn make(&mut self, object: &Object) -> Result<(), StoreError>;
    /// Makes an object that is ours be as the namespace's new file says.
    fn alter(&mut self, object: &Object) -> Result<(), StoreError>;
    /// Removes an object that is ours, with its data; at once, or for callers as if at once.
    fn remove(&mut self, object: &Object) -> Result<(), StoreError>;
    /// Serves a question about the store's dead letters.
    fn dead_letters(&mut self, job: DeadLetterJob) -> Result<Vec<OwnedDeadLetter>, StoreError>;
}

/// Work for the thread.
#[derive(Debug)]
pub(super) enum Task {
    Provision {
        change: ChangeId,
        action: Action,
        objects: Vec<Object>,
    },
    DeadLetters {
        ask: u64,
        job: DeadLetterJob,
    },
}

/// The log of this gateway, which the first namespace that needs it brings about.
pub(crate) struct LogMaker {
    directory: Mutex<LogDirectory>,
    events: Vec<Arc<Mailbox<LogEvent>>>,
}

impl LogMaker {
    pub(crate) fn new(directory: LogDirectory, events: Vec<Arc<Mailbox<LogEvent>>>) -> Self {
        let directory = Mutex::new(directory);
        Self { directory, events }
    }

    /// Makes the log if it is not there, and hands each shard its lane.
    fn ensure(&self) -> Result<(), String> {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        if !directory.is_open() {
            tracing::info!("preparing the log: some files are filled with zeros, which takes a moment");
            send_opened(&self.events, directory.create()?);
        }
        Ok(())
    }
}

/// Control's end of the channel to a provisioning thread.
#[derive(Debug, Clone)]
pub(crate) struct Link(SyncSender<Task>);

impl Link {
    /// Queues work. `false`: there is no room.
    pub(super) fn submit(&self, task: Task) -> bool {
        self.0.try_send(task).is_ok()
    }
}

/// The ways to all provisioning threads.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// That of the shards' memory.
    pub(crate) shards: Link,
    /// Those of the stores that all shards share, by their number.
    pub(crate) stores: Vec<Link>,
    /// The way to the file with the dead letters of the log; `None` without a log.
    pub(crate) letters: Option<Link>,
}

impl Links {
    /// The way to where a namespace's data lies.
    pub(super) fn of(&self, home: Home) -> Option<&Link> {
        match home {
            Home::Shards => Some(&self.shards),
            Home::Store(StoreId(number)) => self.stores.get(usize::from(number)),
        }
    }

    /// The way to the store that keeps the dead letters of the log.
    pub(super) fn dead_letters(&self) -> &Link {
        self.letters.as_ref().unwrap_or(&self.shards)
    }
}

/// A provisioning thread that is not started yet; it keeps what is queued.
pub(crate) struct Provisioning {
    provisioner: Box<dyn Provisioner>,
    log: Option<Arc<LogMaker>>,
    tasks: Receiver<Task>,
    events: Arc<Mailbox<ControlEvent>>,
    /// Set when the gateway ends.
    stop: Arc<AtomicBool>,
}

impl Provisioning {
    /// A thread for a store, and the way to it.
    pub(crate) fn new(
        provisioner: Box<dyn Provisioner>,
        log: Option<Arc<LogMaker>>,
        control: &Inbox,
        stop: Arc<AtomicBool>,
    ) -> (Self, Link) {
        let (sender, tasks) = sync_channel(TASKS_MAX);
        let provisioning = Self {
            provisioner,
            log,
            tasks,
            events: control.events.clone(),
            stop,
        };
        (provisioning, Link(sender))
    }

    /// Starts the thread. It ends with the gateway, when control has.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn spawn(mut self, number: u32) -> io::Result<JoinHandle<()>> {
        threads::spawn(Kind::Provision, Some(number), move || {
            while let Ok(task) = self.tasks.recv() {
                if threads::fault_point(Kind::Provision) {
                    return Ok(());
                }
                let event = self.execute(task);
                let sent = self.events.send(event);
                debug_assert!(sent.is_ok(), "the mailbox holds an answer for each question");
            }
            // Where control has failed, its end is the one that explains the others.
            while !self.stop.load(Ordering::SeqCst) {
                thread::sleep(STOP_POLL);
            }
            Ok(())
        })
    }

    fn execute(&mut self, task: Task) -> ControlEvent {
        match task {
            Task::Provision {
                change,
                action,
                objects,
            } => {
                let results = objects
                    .iter()
                    .map(|object| (object.id, self.carry_out(action, object)));
                ControlEvent::Provisioned {
                    change,
                    results: results.collect(),
                }
            }
            Task::DeadLetters { ask, job } => ControlEvent::DeadLetters {
                ask,
                result: self.provisioner.dead_letters(job),
            },
        }
    }

    /// Brings one object to where it is to be.
    fn carry_out(&mut self, action: Action, object: &Object) -> Result<(), Fault> {
        if let (Action::Create, Some(log), true) =
            (action, &self.log, object.durability != Durability::BestEffort)
        {
            log.ensure()
                .map_err(|cause| Fault::Refused(error::no_log(&cause)))?;
        }
        let found = self.provisioner.inspect(object).map_err(fault)?;
        let done = match (action, found) {
            (Action::Create, Found::Absent) => self.provisioner.make(object),
            (Action::Create, Found::Ours) | (Action::Delete, Found::Absent | Found::Removed) => Ok(()),
            (Action::Update, Found::Ours) => self.provisioner.alter(object),
            (Action::Delete, Found::Ours) => self.provisioner.remove(object),
            (Action::Delete, Found::Foreign) => {
                tracing::warn!(
                    namespace = object.name,
                    "the store has something in its place that is not this gateway's; it is left alone"
                );
                Ok(())
            }
            // Numbers are never given twice, so a removed one is of another catalog.
            (Action::Create, Found::Removed) | (Action::Create | Action::Update, Found::Foreign) => {
                return Err(Fault::Refused(foreign(&object.name)));
            }
            (Action::Update, Found::Absent | Found::Removed) => {
                return Err(Fault::Refused(missing(&object.name)));
            }
        };
        done.map_err(fault)
    }
}

fn fault(cause: StoreError) -> Fault {
    match cause.is_retryable() {
        true => Fault::Retry(cause.to_string()),
        false => Fault::Refused(error::from_store(&cause)),
    }
}

#[cold]
fn foreign(name: &str) -> Box<Status> {
    let sentence = format!(
        "the store has an object in the place of namespace \"{name}\" that this gateway has not made; nothing was changed: \
         choose another name, or remove that object with the store's own tools"
    );
    let status = Status::new(Code::FailedPrecondition, sentence);
    Box::new(status.with_reason("STORE_OBJECT_FOREIGN", &[("namespace", name)]))
}

#[cold]
fn missing(name: &str) -> Box<Status> {
    let sentence = format!(
        "the store does not have the object of namespace \"{name}\" any more; nothing was changed: an operator must look"
    );
    let status = Status::new(Code::FailedPrecondition, sentence);
    Box::new(status.with_reason("STORE_OBJECT_MISSING", &[("namespace", name)]))
}

/// Waits for one answer of a store's own thread, until it is too late or the gateway ends.
fn wait<T>(answer: &Receiver<Result<T, StoreError>>, stop: &AtomicBool) -> Result<T, StoreError> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match answer.recv_timeout(STOP_POLL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline && !stop.load(Ordering::SeqCst) => {}
            Err(_) => return Err(busy("it does not answer")),
        }
    }
}

fn busy(what: &str) -> StoreError {
    StoreError::Busy {
        detail: what.to_owned(),
    }
}

#[cfg(test)]
mod tests;
