//! Messages between threads: work for the owner of a key, and its answer.
//!
//! A job carries the request message as received; the executing thread reads it through a view, so
//! nothing is decoded into owned structures on the way.

use std::{
    sync::{Arc, RwLock, mpsc::SyncSender},
    time::Instant,
};

use prism_backends::{
    NamespaceId, StoreError,
    sqlite::{OwnedDeadLetter, Presence},
};
use prism_codec::{grpc::Status, message::common::WriteResultView, method::Method};
use prism_wal::tail::Payload;
use rustc_hash::FxHashMap;
use rustls::ServerConfig;

use super::{
    change::{Acknowledge, NamespaceChange},
    event::ApplyBatch,
    messages::{Asked, GroupAnswer, GroupAsk, Place, Wanted},
    method::AdminMethod,
    ticket::{Stamp, Ticket},
};
use crate::{identity::Caller, namespace::spec::Path};

/// Work for another thread.
#[derive(Debug)]
pub(crate) enum Work {
    /// A unary call.
    Unary {
        method: Method,
        namespace: NamespaceId,
        default_ttl_ms: Option<u64>,
        body: Vec<u8>,
        stamp: Stamp,
        /// Restricts a batch to the keys that this shard owns.
        part: bool,
        /// Path of a write: it decides what follows a store's commit, a record for the logs of its
        /// owners or nothing, not even an answer.
        path: Path,
        /// Logged writes that a read must see in addition to the store's contents, in order.
        overlay: Vec<Payload>,
        /// Until when the call waits for something, if there is nothing.
        wait_until: Option<Instant>,
    },
    /// Answered when all acknowledged writes of a namespace are in the store: those of the asked
    /// shard's log, or all that wait for the asked store.
    Barrier { namespace: NamespaceId },
    /// Request for the next messages of a subscription, answered when there are some. `number`: the
    /// place of the subscription that is asked.
    Messages {
        wanted: Arc<Wanted>,
        place: Place,
        number: u16,
    },
    /// An ask of a member of a group, answered when there is news or its time is over.
    Group(Box<GroupAsk>),
    /// A unary call whose token this shard owns: judge that, then pass the call on to the owners of
    /// its keys.
    Claim(Box<Work>),
    /// Drops what waits under this ticket: the stream or the call has ended.
    TakeBack { namespace: NamespaceId },
    /// One page of a Scan.
    ScanPage {
        namespace: NamespaceId,
        page_bytes: u32,
        item_limit: u32,
        page_token: Vec<u8>,
    },
}

impl Work {
    /// The namespace of the work.
    pub(crate) fn namespace(&self) -> NamespaceId {
        match self {
            Self::Unary { namespace, .. }
            | Self::Barrier { namespace }
            | Self::ScanPage { namespace, .. }
            | Self::TakeBack { namespace } => *namespace,
            Self::Messages { wanted, .. } => wanted.namespace,
            Self::Group(ask) => ask.namespace,
            Self::Claim(call) => call.namespace(),
        }
    }
}

/// Work with its sender's address.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ticket: Ticket,
    pub(crate) deadline: Option<Instant>,
    pub(crate) work: Work,
}

/// The outcome of one item of a batch, on its way to the shard that assembles the response.
#[derive(Debug)]
pub(crate) struct PartOutcome {
    /// Position in the request.
    pub(crate) index: u32,
    /// The item's result, or why it had no effect.
    pub(crate) outcome: Result<WriteResultView, Box<Status>>,
    /// Further fields of its API, encoded.
    pub(crate) rest: Vec<u8>,
}

/// Result of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The response message of a unary call.
    Message(Vec<u8>),
    /// One page of a Scan as a response message, and the token of the next page (empty on the
    /// last).
    Page { message: Vec<u8>, next: Vec<u8> },
    /// The answer to [`Work::Messages`].
    Messages { number: u16, chunk: Asked },
    /// The answer to [`Work::Group`].
    Group(Box<GroupAnswer>),
    /// A shard's part of a Mutate.
    Part(Vec<PartOutcome>),
    /// The answer to [`Work::Barrier`].
    Reached,
    /// A store's end of a write that was acknowledged when it was queued. It is for the shard, not
    /// for the client.
    Unqueued(Queued),
}

/// A write that was acknowledged when it was queued for its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Bytes of its request message.
    pub(crate) bytes: usize,
    /// Whether the store has refused it.
    pub(crate) is_lost: bool,
}

/// An answer with its address.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) ticket: Ticket,
    pub(crate) result: Result<Answer, Box<Status>>,
}

/// Work for the control thread.
#[derive(Debug)]
pub(crate) enum ControlJob {
    /// A call of the administration, with its request message.
    Admin {
        ticket: Ticket,
        /// Who calls; `None` where there is no identity.
        caller: Option<Arc<Caller>>,
        method: AdminMethod,
        body: Vec<u8>,
        deadline: Instant,
    },
    /// Renders all metrics.
    Metrics { ticket: Ticket },
}

/// Commands of the control thread to a shard.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    /// Changes the table of namespaces, and acknowledges that if requested.
    Namespaces(Arc<[NamespaceChange]>, Option<Acknowledge>),
    /// Confirms that the commands before this one have been carried out.
    Confirm(SyncSender<()>),
    /// All namespaces are known: serve, with at most this many connections.
    Serve(usize),
    /// Settings of TLS for connections that begin from now on.
    Encrypt(Arc<ServerConfig>),
    /// Take no new work from clients, finish the accepted work until then, and report.
    Drain(Instant),
    /// No call is open any more: apply the contents of the log until then, close it, and report.
    Flush(Instant),
    /// All shards have drained: no thread needs this one any more.
    End,
}

/// Work on dead letters. Each kind answers with its letters.
#[derive(Debug)]
pub(crate) enum DeadLetterJob {
    List {
        namespace: Option<NamespaceId>,
        after: u64,
        limit: u32,
    },
    Get(u64),
    /// Applies the write and drops the letter.
    Redrive(u64),
    Drop(u64),
}

/// The durability of each namespace of a server's store, as its number in the API. The control
/// thread publishes it before any shard knows the namespace.
pub(crate) type Durabilities = Arc<RwLock<FxHashMap<u32, i32>>>;

/// Messages to the writer of a shared store.
#[derive(Debug)]
pub(crate) enum WriterMessage {
    Job(Job),
    /// Records of the log.
    Apply(Box<ApplyBatch>),
    /// Calls of this shard wait no longer.
    EndWaits(u16),
    /// A question about dead letters.
    DeadLetters(
        DeadLetterJob,
        SyncSender<Result<Vec<OwnedDeadLetter>, StoreError>>,
    ),
    /// Keep a record that another store refuses for ever.
    Bury(
        Box<OwnedDeadLetter>,
        tokio::sync::oneshot::Sender<Result<(), StoreError>>,
    ),
    /// Note a stamp of writes that another store gets; answered with the stamp up to which no other
    /// note is needed.
    NoteStamp(i64, tokio::sync::oneshot::Sender<Result<i64, StoreError>>),
    /// Answered when the earlier jobs are done and their records are with the logs.
    Barrier(SyncSender<()>),
    /// A step of provisioning, answered with the namespace's state in the store afterwards.
    Provision(
        NamespaceId,
        ProvisionStep,
        SyncSender<Result<Presence, StoreError>>,
    ),
}

/// A step of provisioning a namespace in a store of tables that all namespaces share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProvisionStep {
    Inspect,
    /// `message_bytes_max`: largest value or message of the namespace; `life_ms`: time for which it
    /// keeps items that bring none of their own, `None` for ever.
    Create {
        message_bytes_max: u64,
        life_ms: Option<u64>,
    },
    Drop,
}
