//! Records of the shards' logs on their way into a server.
//!
//! The server notes how far it has got in the transaction that applies records, under the log's
//! identity, the lane and the namespace. Only this thread gives it records of a lane, so the first
//! question is the only one until a batch fails.

use prism_backends::{NamespaceId, StoreError, offer::Acked, sqlite::Presence};
use prism_wal::ids::{LaneId, Lsn};

use super::Store;
use crate::{
    call::event::ApplyBatch,
    log::{
        LogEvent,
        apply::{AppliedRecords, Records},
        apply_later::Target,
    },
    worker::sqlite::send_event,
};

impl Store {
    /// Applies records of a shard's log and tells the shard. Returns whether the store has
    /// answered.
    pub(super) async fn apply(&self, batch: &ApplyBatch) -> bool {
        let result = self.take(batch).await;
        let answered = self.is_answer(&result);
        let applied = match result {
            Ok(applied) => applied,
            Err(cause) => {
                self.tell_not_applied(batch, cause);
                return answered;
            }
        };
        let events = LogEvent::Applied {
            namespace: batch.namespace,
            upto: batch.records.last().map_or(Lsn::NONE, |(lsn, _)| *lsn),
            verdicts: applied.verdicts,
            buried: applied.buried,
        };
        send_event(&self.shards.events, batch.shard, events);
        self.setup.arrivals.note(batch.namespace);
        self.note_records(batch);
        answered
    }

    pub(super) fn tell_not_applied(&self, batch: &ApplyBatch, error: StoreError) {
        let namespace = batch.namespace;
        let events = LogEvent::NotApplied { namespace, error };
        send_event(&self.shards.events, batch.shard, events);
    }

    async fn take(&self, batch: &ApplyBatch) -> Result<AppliedRecords, StoreError> {
        if !self.prepare().await? {
            return Err(self.unreachable("belongs to another gateway"));
        }
        let place = (batch.stored_lane(), batch.namespace);
        let known = self.noted.borrow().get(&place).copied();
        let noted = match known {
            Some(Some(noted)) => noted,
            Some(None) => self.ask(batch, place).await?,
            None => self.ask_first(batch, place).await?,
        };
        // Asked after the first answer of the server, which tells its settings.
        if let Some(detail) = self.server.shortfall(Acked::Durable) {
            // It answers, so its other namespaces are served; the records wait.
            return Err(StoreError::Busy { detail });
        }
        self.noted.borrow_mut().insert(place, None);
        let records = Records {
            lane: place.0,
            ..Records::of(batch, self.wall.unix_millis())
        };
        let target = Target {
            stores: &self.stores,
            letters: &self.letters,
            stamps: &self.stamps,
            lane: batch.lane,
        };
        let applied = target.apply(&records, noted).await?;
        let last = batch.records.last().map(|(lsn, _)| *lsn);
        self.noted.borrow_mut().insert(place, last);
        Ok(applied)
    }

    async fn ask(
        &self,
        batch: &ApplyBatch,
        (lane, namespace): (LaneId, NamespaceId),
    ) -> Result<Lsn, StoreError> {
        self.server.noted(batch.log, lane.0, namespace).await.map(Lsn)
    }

    /// The first question of this process: it finds out whether the server is the one that the log
    /// knows, and the log the one that the server knows.
    async fn ask_first(&self, batch: &ApplyBatch, place: (LaneId, NamespaceId)) -> Result<Lsn, StoreError> {
        let namespace = batch.namespace.0;
        let presence = self.server.presence(batch.namespace).await?;
        if !matches!(presence, Presence::Live | Presence::Dropped) {
            return Err(self.unreachable(&format!("does not know namespace {namespace}: it was replaced")));
        }
        let noted = self.ask(batch, place).await?;
        if presence == Presence::Dropped {
            // Its positions may have gone with its data.
            return Ok(noted);
        }
        let known = batch.known;
        let why = if noted > known.tip {
            format!(
                "has namespace {namespace} up to record {noted} of a log that ended at {}: the log was replaced by an older one",
                known.tip
            )
        } else if noted < known.cursor {
            format!(
                "has namespace {namespace} up to record {noted}, and once had it up to {}: it was replaced or has lost data",
                known.cursor
            )
        } else {
            return Ok(noted);
        };
        if !self.accept_loss {
            return Err(self.unreachable(&format!(
                "{why}. Bring the right one back, or go on without what is lost with wal.on_corruption: continue_and_report"
            )));
        }
        tracing::error!(
            store = self.setup.name,
            why,
            "going on all the same, as wal.on_corruption says"
        );
        if noted > known.tip {
            // What the log holds from now on has numbers that the server has noted for other
            // records.
            let (lane, namespace) = place;
            self.server.forget_position(batch.log, lane.0, namespace).await?;
            return Ok(known.tip);
        }
        Ok(noted)
    }

    fn unreachable(&self, why: &str) -> StoreError {
        StoreError::Unreachable {
            detail: format!("{} at {} {why}", self.setup.name, self.setup.config.address()),
        }
    }
}
