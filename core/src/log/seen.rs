//! What a start reads of a lane's records, in one pass: what is to be applied, and the calls that carried a token, from
//! which the shards' windows are rebuilt.

use std::collections::VecDeque;

use prism_backends::NamespaceId;
use prism_wal::{
    ids::{Epoch, LaneId, Lsn},
    lane::Replay,
    record::{Record, RecordKind},
    recovery::Visitor,
};

use super::{
    lane_of,
    record::LoggedWrite,
    window::{CallHasher, CallKey, ENTRIES_MAX, First, Place, Window},
};
use crate::gateway::{key_hash, keyvalue, shard_of_hash};

/// Collects what recovery reads: what is to be applied, and which tokens were seen.
pub(super) struct Collector<'a> {
    pub(super) replay: Replay,
    pub(super) seen: &'a mut Seen,
    pub(super) lane: LaneId,
}

impl Visitor for Collector<'_> {
    fn record(&mut self, epoch: Epoch, lsn: Lsn, record: &Record<'_>) {
        if record.kind == RecordKind::Strong {
            self.seen.add(
                NamespaceId(record.target.0),
                Place { lane: self.lane, lsn },
                record.payload,
            );
        }
        self.replay.record(epoch, lsn, record);
    }
}

/// The calls with a token that the log still holds, newest last, for the shards' windows.
#[derive(Default)]
pub(super) struct Seen {
    hasher: CallHasher,
    calls: VecDeque<SeenCall>,
}

struct SeenCall {
    key: CallKey,
    first: First,
    /// Hash of its id; `None` for a Mutate, which is known where it was logged.
    subject: Option<u64>,
}

impl Seen {
    fn add(&mut self, namespace: NamespaceId, place: Place, record: &[u8]) {
        let Ok(logged) = LoggedWrite::decode(namespace, record) else {
            return;
        };
        let Ok(request) = keyvalue::Request::decode(logged.method, logged.body) else {
            return;
        };
        let Some(key) = self.hasher.key(namespace, logged.method, &request, logged.body) else {
            return;
        };
        if self.calls.len() >= ENTRIES_MAX {
            self.calls.pop_front();
        }
        self.calls.push_back(SeenCall {
            key,
            first: First {
                place,
                stamp: logged.context.stamp,
            },
            subject: request.id().map(|id| key_hash(namespace, id)),
        });
    }

    /// The window of one shard: the calls about ids that it owns now.
    pub(super) fn window(&self, shard: u16, shards: u16) -> Window {
        let mut window = Window::new(self.hasher.clone(), ENTRIES_MAX);
        for call in &self.calls {
            let owned = match call.subject {
                Some(hash) => shard_of_hash(hash, shards) == shard,
                None => call.first.place.lane == lane_of(shard),
            };
            if owned {
                window.remember(call.key, call.first);
            }
        }
        window
    }
}
