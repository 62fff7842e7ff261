//! The store as the log sees it when it opens, before the store is handed to its threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use prism_backends::{
    LogId, LogPosition, NamespaceId, StoreError,
    sqlite::{Checkpointer, NO_LOG, Presence, Writer},
};
use prism_wal::{
    ids::{LaneId, Lsn, TargetId},
    tail::{Payload, Tail},
};

use super::{BATCH_RECORDS, PROGRESS_PAUSE, Positions};
use crate::{
    log::apply::{Records, apply_records},
    runtime::clock::unix_millis,
};

/// The store, before it is handed to its threads.
pub(crate) struct Store<'a> {
    pub(crate) writer: &'a mut Writer,
    pub(crate) checkpointer: &'a mut Checkpointer,
    /// The namespaces whose acknowledged writes the store must have as far as the log's cursors
    /// say.
    pub(crate) strong: BTreeSet<u32>,
    /// The namespaces of the catalog that lie in other stores.
    pub(crate) elsewhere: BTreeMap<u32, Elsewhere>,
    /// All namespaces of the catalog.
    pub(crate) known: BTreeSet<u32>,
}

/// Fate of the records of a namespace that lies in another store than SQLite's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// They wait until that store takes them, while the gateway serves.
    Waits,
    /// That store has them: it has acknowledged them durably before they were logged.
    Has,
}

impl Store<'_> {
    /// How far the store has got with a log.
    pub(super) fn positions(&self, log: LogId) -> Result<Positions, String> {
        let positions = self.writer.positions().map_err(|error| error.to_string())?;
        Ok(positions
            .into_iter()
            .filter(|at| at.log == log)
            .map(|at| ((LaneId(at.lane), at.namespace.0), Lsn(at.lsn)))
            .collect())
    }

    /// The logs that the store has records of.
    pub(super) fn logs(&self) -> Result<Vec<LogId>, String> {
        let positions = self.writer.positions().map_err(|error| error.to_string())?;
        let mut logs: Vec<_> = positions.into_iter().map(|at| at.log).collect();
        logs.retain(|log| *log != NO_LOG);
        logs.dedup();
        Ok(logs)
    }

    pub(super) fn adopt(&mut self, log: LogId) -> Result<(), String> {
        self.writer
            .adopt_positions(log)
            .map_err(|error| error.to_string())
    }

    pub(super) fn forget_log(&mut self, log: LogId) -> Result<(), String> {
        self.writer
            .forget_log(log)
            .and_then(|()| self.checkpointer.sync())
            .map_err(|error| error.to_string())
    }

    /// Whether the store has records of any lane.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn knows_a_log(&self) -> Result<bool, String> {
        Ok(!self.logs()?.is_empty())
    }

    pub(super) fn forget(&mut self, log: LogId, lane: LaneId) -> Result<(), String> {
        self.writer
            .forget_lane(log, lane.0)
            .and_then(|()| self.checkpointer.sync())
            .map_err(|error| error.to_string())
    }

    /// Why the store is not the one that this lane's cursors speak of; `None` if it may be.
    pub(super) fn has_lost_data(&self, lane: LaneId, tail: &Tail, positions: &Positions) -> Option<String> {
        tail.checkpoint().iter().find_map(|(TargetId(namespace), cursor)| {
            let stored = positions.get(&(lane, namespace)).copied().unwrap_or_default();
            let lost = self.strong.contains(&namespace) && stored < cursor;
            lost.then(|| {
                format!(
                    "the store has namespace {namespace} up to record {stored}, and once had it durably up to record \
                     {cursor}: it was replaced or has lost data. Bring the right one back, or go on without those records \
                     with wal.on_corruption: continue_and_report"
                )
            })
        })
    }

    /// An operator has accepted that the store lacks what the cursors speak of: the next start need
    /// not ask again.
    pub(super) fn accept_as_it_is(&mut self, log: LogId, lane: LaneId, tail: &Tail) -> Result<(), String> {
        let strong = |(target, _): &(TargetId, Lsn)| self.strong.contains(&target.0);
        let cursors = tail.checkpoint().iter().filter(strong);
        let positions: Vec<_> = cursors
            .map(|(target, cursor)| LogPosition {
                log,
                lane: lane.0,
                namespace: NamespaceId(target.0),
                lsn: cursor.0,
            })
            .collect();
        self.writer
            .apply_at(&[], &positions, &mut Vec::new())
            .and_then(|()| self.checkpointer.sync())
            .map_err(|error| error.to_string())
    }

    /// Applies what the store lacks of one lane, namespace by namespace, in order, and makes it
    /// durable.
    pub(super) fn bring_up_to_date(
        &mut self,
        (log, lane): (LogId, LaneId),
        tail: &mut Tail,
        durable: Lsn,
        positions: &Positions,
    ) -> Result<(), StoreError> {
        let total = tail.unapplied_in_all().records;
        let (mut done, mut told) = (0, Instant::now());
        let waiting: Vec<TargetId> = tail.waiting().collect();
        // What the store has already is not given to it again. Of all namespaces before the first
        // is applied: one that the store does not take now ends this, and the rest is then given to
        // it while serving.
        let waiting: Vec<TargetId> = waiting
            .into_iter()
            .filter(|target| self.takes(*target, tail, durable))
            .collect();
        for target in &waiting {
            let stored = positions.get(&(lane, target.0)).copied().unwrap_or_default();
            tail.handle_applied(*target, stored.min(durable));
        }
        for target in waiting {
            loop {
                let batch: Vec<(Lsn, Payload)> = tail
                    .batch(target, BATCH_RECORDS, usize::MAX)
                    .map(|(lsn, record)| (lsn, record.clone()))
                    .collect();
                let Some(upto) = batch.last().map(|(lsn, _)| *lsn) else {
                    break;
                };
                done += batch.len();
                let records = Records {
                    log,
                    lane,
                    namespace: NamespaceId(target.0),
                    records: &batch,
                    // Nobody waits for what was logged before the start.
                    awaited: &[],
                    now: unix_millis(),
                };
                apply_records(self.writer, &records)?;
                tail.handle_applied(target, upto);
                if told.elapsed() >= PROGRESS_PAUSE {
                    told = Instant::now();
                    tracing::info!(lane = lane.0, done, total, "bringing the store up to date");
                }
            }
        }
        let unsynced: Vec<_> = tail.unsynced().collect();
        if !unsynced.is_empty() {
            self.checkpointer.sync()?;
        }
        for (target, lsn) in unsynced {
            tail.handle_synced(target, lsn);
        }
        if done > 0 {
            tracing::info!(lane = lane.0, records = done, "the store is up to date");
        }
        Ok(())
    }

    /// Whether SQLite's file is given the records of a namespace. Those that no store is to have
    /// are dropped.
    fn takes(&self, target: TargetId, tail: &mut Tail, durable: Lsn) -> bool {
        match self.elsewhere.get(&target.0) {
            Some(Elsewhere::Waits) => false,
            Some(Elsewhere::Has) => {
                tail.handle_synced(target, durable);
                false
            }
            None if self.known.contains(&target.0) => true,
            // Deleted: SQLite's file knows those that it had, and the others lay in a server.
            None if self.writer.presence(NamespaceId(target.0)) == Presence::Absent => {
                tracing::info!(
                    namespace = target.0,
                    "dropping what the log holds for a deleted namespace"
                );
                tail.forget(target);
                false
            }
            None => true,
        }
    }

    /// Whether records of a lane wait for another store.
    pub(super) fn waits_elsewhere(&self, tail: &Tail) -> bool {
        let waits = |target: TargetId| self.elsewhere.get(&target.0) == Some(&Elsewhere::Waits);
        tail.waiting().any(waits)
    }
}
