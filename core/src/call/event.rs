//! What a shard's log asks of the threads of its store.

use std::sync::Arc;

use prism_backends::NamespaceId;
use prism_wal::ids::{LaneId, Lsn, TargetId};

/// Records of one namespace for the store's writer, in order.
#[derive(Debug)]
pub(crate) struct ApplyBatch {
    /// Whom to answer.
    pub(crate) shard: u16,
    pub(crate) lane: LaneId,
    pub(crate) namespace: NamespaceId,
    pub(crate) records: Vec<(Lsn, Arc<[u8]>)>,
}

/// Asks for everything that the store has to be made durable there.
#[derive(Debug)]
pub(crate) struct SyncJob {
    pub(crate) shard: u16,
    /// What was applied when the job was sent.
    pub(crate) cursors: Vec<(TargetId, Lsn)>,
}
