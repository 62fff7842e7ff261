//! Calls of logged namespaces: appends and reads on the shard that owns the key, and events of the
//! log.
//!
//! A write at `strong` is appended here and answered when its record is durable. A read at `strong`
//! goes to the store's reader together with the records that the store does not have yet. The
//! record of a write at `eventual` comes from the store, which has it, to be appended without a
//! waiting caller.

use std::{iter, rc::Rc, sync::Arc, time::Instant};

use prism_backends::{NamespaceId, StoreError};
use prism_codec::{
    grpc::{Code, Status},
    method::Effect,
};
use prism_wal::tail::Payload;
use rustc_hash::FxHashMap;

use super::Dispatcher;
use crate::{
    api::{
        service::{Loggable, Request, Service},
        with_service,
    },
    call::{
        context::Context,
        error::{self, Stage},
        job::{Job, Reply, Work},
        link::StoreLink,
        owner::{key_hash, owner_of},
        receipt::{self, Receipt},
        record::{LoggedWrite, Part},
        ticket::Ticket,
    },
    config::{LogLimits, LogWriterKind},
    log::{
        LogEvent,
        committed::{CommittedRecord, RecordsMailbox},
        links::LogLinks,
        open::OpenLane,
        parked::LogCall,
        shard_log::{Outbox, ReadId, ShardLog, ShardLogParts},
        window::Claims,
        writer::LogWriter,
    },
    metrics::{LaneState, LogMetrics},
    namespace::spec::{self, Home, StoreId},
    runtime::{mailbox::Mailbox, notify::Notify, reactor::DriverInUse},
};

/// Parts from which a shard makes the log of a lane that was opened for it.
pub(crate) struct LogSetup {
    pub(crate) links: LogLinks,
    pub(crate) limits: LogLimits,
    pub(crate) writer: LogWriterKind,
    pub(crate) driver: DriverInUse,
    pub(crate) metrics: Arc<LogMetrics>,
    /// Events from other threads.
    pub(crate) events: Arc<Mailbox<LogEvent>>,
    /// Records that the store has first, at `eventual`.
    pub(crate) committed: Arc<RecordsMailbox>,
}

/// The log of a shard, in any state.
pub(crate) struct Log {
    setup: Box<LogSetup>,
    state: State,
    /// Raised when the log needs its turn.
    wanted: Rc<Notify>,
    due: Outbox,
    /// Reads that wait until the store has the records that they must see.
    reads: FxHashMap<ReadId, Job>,
    /// Number of reads that have waited.
    reads_made: u64,
}

/// Records that a read must see in addition to the store's contents.
enum Unapplied {
    /// These records, in order.
    Now(Vec<Payload>),
    /// The store must have more first; the log returns this id when it has.
    Later(ReadId),
}

enum State {
    /// No namespace has needed the log yet.
    Absent,
    Open(Box<ShardLog>),
    Held(String),
}

/// A call of a logged namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedCall<M> {
    pub(crate) ticket: Ticket,
    pub(crate) deadline: Option<Instant>,
    pub(crate) method: M,
    /// The part of a batch that this shard owns.
    pub(crate) part: Option<Part>,
}

impl Log {
    /// Makes a log without a lane.
    pub(crate) fn new(setup: LogSetup) -> Self {
        Self {
            setup: Box::new(setup),
            state: State::Absent,
            wanted: Rc::default(),
            due: Outbox::default(),
            reads: FxHashMap::default(),
            reads_made: 0,
        }
    }

    /// The calls to which the tokens that this shard owns belong; `None` while the log is not open.
    pub(super) fn claims(&mut self) -> Option<&mut Claims> {
        match &mut self.state {
            State::Open(log) => Some(log.claims()),
            State::Held(_) | State::Absent => None,
        }
    }

    fn unapplied(
        &mut self,
        namespace: NamespaceId,
        key: u64,
        overlays: bool,
    ) -> Result<Unapplied, Box<Status>> {
        let id = ReadId(self.reads_made + 1);
        let unapplied = self.open()?.unapplied(namespace, key, id, overlays);
        Ok(match unapplied {
            Some(records) => Unapplied::Now(records),
            None => {
                self.reads_made += 1;
                Unapplied::Later(id)
            }
        })
    }

    fn open(&mut self) -> Result<&mut ShardLog, Box<Status>> {
        match &mut self.state {
            State::Open(log) => Ok(log),
            State::Held(why) => Err(error::lane_held(why)),
            State::Absent => Err(error::not_serving()),
        }
    }

    /// Forgets a deleted namespace. Records still in flight are dropped when they arrive.
    pub(super) fn remove_namespace(&mut self, namespace: NamespaceId) {
        if let State::Open(log) = &mut self.state {
            log.remove_namespace(namespace);
        }
    }

    fn handle_event(&mut self, shard: u16, event: LogEvent) {
        match event {
            LogEvent::Open(lane) => match self.make(shard, *lane) {
                Ok(log) => self.state = State::Open(Box::new(log)),
                Err(cause) => self.hold(shard, format!("its writer cannot be started: {cause}")),
            },
            LogEvent::Held(why) => self.hold(shard, why),
            event => {
                if let State::Open(log) = &mut self.state {
                    log.handle_event(event, &mut self.due);
                }
            }
        }
    }

    /// Appends the records of writes that the store has. If the log cannot take them, only their
    /// second copy is lost.
    fn append_committed(&mut self, records: &[CommittedRecord]) {
        match &mut self.state {
            State::Open(log) => {
                for CommittedRecord { namespace, record } in records {
                    log.append_eventual(*namespace, record);
                }
            }
            State::Absent | State::Held(_) => self.setup.metrics.eventual_skipped.add(records.len() as u64),
        }
    }

    fn hold(&mut self, shard: u16, why: String) {
        tracing::error!(shard, why, "this shard's part of the log is held");
        self.setup.metrics.state.set(LaneState::Held as u64);
        self.state = State::Held(why);
    }

    fn make(&self, shard: u16, lane: OpenLane) -> std::io::Result<ShardLog> {
        let setup = &self.setup;
        let writer = LogWriter::new(setup.writer, setup.driver, self.wanted.clone())?;
        let (records, took) = lane.recovered;
        setup.metrics.recovered_records.set(records);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        setup.metrics.recovery_nanos.set(nanos);
        setup.metrics.state.set(LaneState::Open as u64);
        Ok(ShardLog::new(ShardLogParts {
            shard,
            lane,
            writer,
            links: setup.links.clone(),
            limits: setup.limits,
            metrics: setup.metrics.clone(),
        }))
    }
}

impl Dispatcher {
    /// Starts a call of a logged namespace on the shard that owns its key. The answer comes as a
    /// reply.
    ///
    /// # Errors
    /// Nothing was done; no reply comes.
    pub(super) fn start_logged<S: Service>(
        &mut self,
        call: &LoggedCall<S::Method>,
        request: &S::Request<'_>,
        body: &[u8],
        context: &Context,
    ) -> Result<(), Box<Status>> {
        let result = self.take_logged::<S>(call, request, body, context);
        if result.is_err() && call.ticket.shard == self.shard {
            self.answer_received(&call.ticket);
        }
        result
    }

    fn write_logged<S: Service>(
        &mut self,
        call: &LoggedCall<S::Method>,
        request: &S::Request<'_>,
        body: &[u8],
        context: &Context,
    ) -> Result<(), Box<Status>> {
        let LoggedCall {
            ticket, method, part, ..
        } = *call;
        let Loggable { keys, receipt } = S::loggable(method, request, context, part)?;
        let Some(log) = &mut self.places.log else {
            return Err(error::status(Code::Internal, "this gateway has no log"));
        };
        let shard_log = log.open()?;
        let window = request
            .call_token()
            .map(|token| shard_log.hasher().call(context.namespace, &token));
        let first = shard_log.first(window)?;
        let mut context = *context;
        if let (Receipt::Verdict, Some(first)) = (&receipt, first) {
            // The store recognises a repeat by its version, which a token without a time gets from
            // the stamp.
            context.stamp = first.stamp;
        }
        let receipt = match receipt {
            // A batch without a valid item.
            Receipt::Each {
                refused,
                logged,
                part,
            } if logged.is_empty() => {
                self.send_reply(Reply {
                    ticket,
                    result: Ok(receipt::answer_of_items(refused, part)),
                });
                return Ok(());
            }
            receipt => receipt,
        };
        let record = LoggedWrite {
            method: method.into(),
            part,
            decided: &[],
            context,
            body,
        };
        shard_log.write(LogCall {
            ticket,
            namespace: context.namespace,
            record: record.encode(),
            stamp: context.stamp,
            keys,
            window,
            receipt,
        })?;
        log.wanted.notify();
        Ok(())
    }

    fn read_logged<S: Service>(
        &mut self,
        call: &LoggedCall<S::Method>,
        request: &S::Request<'_>,
        body: &[u8],
        context: &Context,
    ) -> Result<(), Box<Status>> {
        let Some(log) = &mut self.places.log else {
            return Err(error::status(Code::Internal, "this gateway has no log"));
        };
        let namespace = context.namespace;
        let mut key = None;
        request.keys(|id| key = key.or(Some(key_hash(namespace, id))));
        let Some(key) = key else {
            return Err(error::status(
                Code::Internal,
                "a read of many keys was sent to a log",
            ));
        };
        let spec = self.namespaces.spec_of(namespace);
        let overlays = spec.is_some_and(|spec| spec.unapplied == spec::Unapplied::Overlay);
        let unapplied = log.unapplied(namespace, key, overlays)?;
        let job = |overlay| Job {
            ticket: call.ticket,
            deadline: call.deadline,
            work: Work::Unary {
                method: call.method.into(),
                namespace,
                default_ttl_ms: context.default_ttl_ms,
                body: body.to_vec(),
                stamp: context.stamp,
                part: false,
                path: spec::Path::LogFirst,
                overlay,
                wait_until: None,
            },
        };
        match unapplied {
            Unapplied::Now(records) => {
                let link = self.link_of(namespace)?;
                link.reads.send(job(records)).map_err(|_| {
                    self.metrics.shed.add(1);
                    error::overloaded("the store's mailbox is full")
                })
            }
            Unapplied::Later(id) => {
                log.reads.insert(id, job(Vec::new()));
                Ok(())
            }
        }
    }

    /// The way to the store of a namespace.
    fn link_of(&self, namespace: NamespaceId) -> Result<&StoreLink, Box<Status>> {
        match self.namespaces.spec_of(namespace).map(|spec| spec.home) {
            Some(Home::Store(StoreId(number))) => Ok(&self.places.stores[usize::from(number)]),
            _ => Err(error::from_store(&StoreError::DroppedNamespace(namespace))),
        }
    }

    /// Executes a job that another shard sent because this one owns the key, or a question of it
    /// about the log.
    pub(super) fn execute_logged(&mut self, job: Job) {
        let Job {
            ticket,
            deadline,
            work,
        } = job;
        let result = match work {
            Work::Unary {
                method,
                namespace,
                default_ttl_ms,
                body,
                stamp,
                part,
                ..
            } => {
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    Err(error::deadline_exceeded(Stage::Owner))
                } else {
                    let context = Context {
                        namespace,
                        default_ttl_ms,
                        now: self.wall_millis(),
                        stamp,
                    };
                    let part = part.then_some(Part {
                        shards: self.shard_count(),
                        shard: self.shard,
                    });
                    with_service!(
                        method,
                        S, method => {
                            let call = LoggedCall {
                                ticket,
                                deadline,
                                method,
                                part,
                            };
                            self.take_sent::<S>(&call, &body, &context)
                        },
                        else Err(error::not_served(method))
                    )
                }
            }
            Work::Barrier { namespace } => self.barrier(namespace, ticket),
            _ => Err(error::status(
                Code::Internal,
                "a page was asked of a shard without data",
            )),
        };
        if let Err(status) = result {
            self.send_reply(Reply {
                ticket,
                result: Err(status),
            });
        }
    }

    fn take_sent<S: Service>(
        &mut self,
        call: &LoggedCall<S::Method>,
        body: &[u8],
        context: &Context,
    ) -> Result<(), Box<Status>> {
        let request = S::decode(call.method, body)?;
        self.take_logged::<S>(call, &request, body, context)
    }

    /// Like [`Dispatcher::start_logged`], for a call that takes its place elsewhere.
    fn take_logged<S: Service>(
        &mut self,
        call: &LoggedCall<S::Method>,
        request: &S::Request<'_>,
        body: &[u8],
        context: &Context,
    ) -> Result<(), Box<Status>> {
        if cfg!(debug_assertions) && call.part.is_none() {
            let count = self.shard_count();
            request.keys(|key| {
                debug_assert_eq!(
                    owner_of(context.namespace, key, count),
                    self.shard,
                    "not the owner"
                )
            });
        }
        if call.method.into().spec().effect == Effect::None {
            self.read_logged::<S>(call, request, body, context)
        } else {
            self.write_logged::<S>(call, request, body, context)
        }
    }

    fn barrier(&mut self, namespace: NamespaceId, ticket: Ticket) -> Result<(), Box<Status>> {
        let Some(log) = &mut self.places.log else {
            return Ok(());
        };
        match &mut log.state {
            State::Open(shard_log) => {
                shard_log.barrier(namespace, ticket, &mut log.due);
                log.wanted.notify();
                Ok(())
            }
            State::Held(why) => Err(error::lane_held(why)),
            State::Absent => Err(error::not_serving()),
        }
    }

    // --- driven by the shard ---------------------------------------------------------------------

    /// Handles events of other threads, and the records that the store's writer sent.
    pub(crate) fn handle_log_events(&mut self) {
        let shard = self.shard;
        if let Some(log) = &mut self.places.log {
            // Received before the events but appended after them: the event that opens the lane
            // precedes its first record.
            let committed: Vec<_> = iter::from_fn(|| log.setup.committed.receive()).collect();
            let mut heard = !committed.is_empty();
            while let Some(event) = log.setup.events.receive() {
                log.handle_event(shard, event);
                heard = true;
            }
            for records in committed {
                log.append_committed(&records);
            }
            if heard {
                log.wanted.notify();
            }
        }
    }

    /// Raised when the log needs its turn; `None` where there can be no log.
    pub(crate) fn log_wanted(&self) -> Option<Rc<Notify>> {
        self.places.log.as_ref().map(|log| log.wanted.clone())
    }

    /// Gives the log its turn. Returns this shard's own replies (those of others are sent), and the
    /// time of its next turn if no event comes before.
    pub(crate) fn turn_log(&mut self, own: &mut Vec<Reply>) -> Option<Instant> {
        let shard = self.shard;
        let log = self.places.log.as_mut()?;
        let next = match &mut log.state {
            State::Open(shard_log) => {
                shard_log.turn(&mut log.due);
                shard_log.next_wake()
            }
            State::Absent | State::Held(_) => None,
        };
        let mut reads = Vec::new();
        for (id, records) in log.due.reads.drain(..) {
            let Some(mut job) = log.reads.remove(&id) else {
                continue;
            };
            if let Work::Unary { overlay, .. } = &mut job.work {
                *overlay = records;
            }
            reads.push(job);
        }
        let mut replies = std::mem::take(&mut log.due.replies);
        for job in reads {
            let ticket = job.ticket;
            let full = |_| error::overloaded("the store's mailbox is full");
            let sent = self
                .link_of(job.work.namespace())
                .and_then(|link| link.reads.send(job).map_err(full));
            if let Err(status) = sent {
                replies.push(Reply {
                    ticket,
                    result: Err(status),
                });
            }
        }
        for reply in replies {
            if reply.ticket.shard == shard {
                own.push(reply);
            } else {
                self.send_reply(reply);
            }
        }
        next
    }

    /// Makes the log apply everything to the store and close, as no call is open any more.
    pub(crate) fn flush_log(&mut self) {
        self.handle_log_events();
        if let Some(log) = &mut self.places.log
            && let State::Open(shard_log) = &mut log.state
        {
            shard_log.flush();
            log.wanted.notify();
        }
    }

    fn open_log(&self) -> Option<&ShardLog> {
        match &self.places.log.as_ref()?.state {
            State::Open(shard_log) => Some(shard_log),
            State::Absent | State::Held(_) => None,
        }
    }

    /// Writes of the log that have not completed.
    pub(crate) fn log_writes_in_flight(&self) -> usize {
        self.open_log()
            .map_or(0, |shard_log| shard_log.writes_in_flight())
    }

    /// Calls that wait for this shard's log, and its durable writes in flight.
    pub(super) fn log_promises(&self) -> (usize, usize) {
        self.open_log().map_or((0, 0), |shard_log| {
            (shard_log.promised(), shard_log.writes_in_flight())
        })
    }

    /// Closes the lane's files and ends its threads.
    pub(crate) fn close_log(&mut self) {
        if let Some(log) = &mut self.places.log {
            log.state = State::Absent;
            log.reads.clear();
        }
    }

    /// Whether the log is closed, or there is none.
    pub(crate) fn is_log_flushed(&self) -> bool {
        self.open_log().is_none_or(ShardLog::is_flushed)
    }
}
