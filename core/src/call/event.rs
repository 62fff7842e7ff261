//! Requests of a shard's log to the threads of its store, and their answers.

use prism_backends::{LogId, NamespaceId};
use prism_codec::grpc::Status;
use prism_wal::{
    ids::{LaneId, Lsn, TargetId},
    tail::Payload,
};

/// Identity of a record: its lane, and its number there.
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
    /// Judged calls among them with a waiting caller, in the same order.
    pub(crate) awaited: Vec<Awaited>,
    /// State of lane and cursor by which a replaced store is noticed.
    pub(crate) known: Known,
}

/// State of a lane and of a namespace's cursor, by which a store is noticed that was replaced.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// Number of times that the lane has been made anew; see [`ApplyBatch::stored_lane`].
    pub(crate) life: u16,
    /// Last record of the lane when it was opened: the store had noted nothing beyond.
    pub(crate) tip: Lsn,
    /// Cursor of the namespace: the store has all up to there.
    pub(crate) cursor: Lsn,
}

impl ApplyBatch {
    /// Name of the lane in the positions of a server. A lane that is made anew counts from 1 again,
    /// and a server that is out of reach cannot be asked to forget: so its positions of another
    /// life are another lane's.
    pub(crate) fn stored_lane(&self) -> LaneId {
        LaneId(self.lane.0 | u32::from(self.known.life) << 16)
    }
}

/// A judged call with a caller that waits for the verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    pub(crate) lsn: Lsn,
    /// Record that the reply names: that of the first call with its token.
    pub(crate) first: RecordId,
}

/// The reply to a judged call, made by the thread that applied its record.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) lsn: Lsn,
    pub(crate) reply: Result<Vec<u8>, Box<Status>>,
}

/// A request to make everything in the store durable there.
#[derive(Debug)]
pub(crate) struct SyncJob {
    pub(crate) shard: u16,
    /// Cursors up to which records were applied when the job was sent.
    pub(crate) cursors: Vec<(TargetId, Lsn)>,
}
