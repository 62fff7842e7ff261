//! The log in the gateway, which makes `strong` survive a crash, and `eventual` nearly so.
//!
//! ```text
//!   call ─► owner shard ─► ShardLog: append ─► lane (crate wal) ─► disk ─► durable: reply
//!                              │                                              │
//!                              └─ overlay: reads see what is durable          ▼
//!                                 and not yet applied              applier: batches, in order
//!                                        ▲                                    │
//!                                        └──── applied ◄── store's writer ◄───┘
//! ```
//!
//! One lane for each shard, numbered from 1. `window` remembers idempotency tokens, `parked` holds
//! calls that wait, `applier` keeps the order of application, `shard_log` joins them on the shard.
//! None of them knows an API: they call [`crate::api::footprint`] for the facts about a record, and
//! answer by [receipts](crate::call::receipt). Off the shard: `keeper` prepares and recycles
//! segments, `apply` gives records to the store, `committed` brings records that the store had
//! first, at `eventual`, to the shards' logs, `open` starts lanes and brings the store up to date
//! before the gateway serves, `seen` collects what they hold meanwhile.

pub(crate) mod applier;
pub(crate) mod apply;
pub(crate) mod apply_later;
mod clock;
pub(crate) mod committed;
pub(crate) mod identity;
pub(crate) mod keeper;
pub(crate) mod links;
pub(crate) mod open;
pub(crate) mod parked;
mod seen;
pub(crate) mod shard_log;
pub(crate) mod stamps;
pub(crate) mod window;
pub(crate) mod writer;

use prism_backends::{NamespaceId, StoreError};
use prism_wal::{
    disk::{DiskError, file::LogFile},
    ids::{LaneId, Lsn, TargetId},
    pool::PreparedSegment,
};

use self::open::OpenLane;
pub(crate) use self::open::record_bytes_max;
use crate::call::event::Verdict;

/// The lane of a shard.
pub(crate) fn lane_of(shard: u16) -> LaneId {
    LaneId(u32::from(shard) + 1)
}

/// Events sent to a shard's log by other threads.
#[derive(Debug)]
pub(crate) enum LogEvent {
    /// The shard's lane is open.
    Open(Box<OpenLane>),
    /// The shard's lane must not be used; the reason.
    Held(String),
    /// A segment was prepared.
    Segment(Box<PreparedSegment<LogFile>>),
    /// A segment could not be prepared.
    NoSegment(DiskError),
    /// The store has all records up to `upto`.
    Applied {
        namespace: NamespaceId,
        upto: Lsn,
        /// Replies to judged calls among them with a waiting caller.
        verdicts: Vec<Verdict>,
        /// Records that the store refused for ever and keeps as dead letters.
        buried: u64,
    },
    /// The store has nothing of the batch; it is worth trying again.
    NotApplied {
        namespace: NamespaceId,
        error: StoreError,
    },
    /// The store made records up to these durable.
    Synced(Vec<(TargetId, Lsn)>),
    /// The store could not make them durable; it is worth trying again.
    NotSynced,
    /// The lane is closed.
    Closed,
}
