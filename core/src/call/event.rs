//! What a shard's log asks of the threads of its store, and what they answer.

use prism_backends::{LogId, NamespaceId};
use prism_codec::grpc::Status;
use prism_wal::{
    ids::{LaneId, Lsn, TargetId},
    tail::Payload,
};

/// Name of a record: its lane, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordId {
    pub(crate) lane: LaneId,
    pub(crate) lsn: Lsn,
}

/// Records of one namespace for the store's writer, in order.
#[derive(Debug)]
pub(crate) struct ApplyBatch {
    /// The shard that gets the answer.
    pub(crate) shard: u16,
    pub(crate) log: LogId,
    pub(crate) lane: LaneId,
    pub(crate) namespace: NamespaceId,
    pub(crate) records: Vec<(Lsn, Payload)>,
    /// The judged calls among them whose callers wait, in the same order.
    pub(crate) awaited: Vec<Awaited>,
}

/// A judged call whose caller waits for the verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    pub(crate) lsn: Lsn,
    /// What the reply names: the record of the first call with its token.
    pub(crate) first: RecordId,
}

/// The reply to a judged call, made by whoever applied its record.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) lsn: Lsn,
    pub(crate) reply: Result<Vec<u8>, Box<Status>>,
}

/// Asks for everything that the store has to be made durable there.
#[derive(Debug)]
pub(crate) struct SyncJob {
    pub(crate) shard: u16,
    /// What was applied when the job was sent.
    pub(crate) cursors: Vec<(TargetId, Lsn)>,
}
