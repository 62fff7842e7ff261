//! A running lane: carries actions from [`GroupCommit`] to the disk and completions back, and keeps
//! the books of what was applied. The shard's thread owns it; preparing and recycling segments is
//! left to a [`crate::pool::Pool`] elsewhere, because that blocks.
//!
//! ```text
//!  shard:  append* ─► turn (end of each reactor turn, and at next_wake) ─► durable_lsn ─► acks
//!              tail().batch ─► [store: apply] ─► handle_applied        the store's readers see it
//!              tail().unsynced ─► [store: sync] ─► handle_synced       the store will keep it: the cursor moves
//!              segments_wanted ─► [pool: prepare] ─► handle_segment
//!              checkpoint_due: checkpoint ─► … durable … ─► poll_recyclable ─► [pool: recycle]
//! ```

use std::collections::VecDeque;

use crate::cursor::{Checkpoint, Recycler};
use crate::disk::{Completion, GroupWriter};
use crate::group_commit::{AppendError, ClosedSegment, Frees, GroupCommit, PoisonReason, WriteAction};
use crate::ids::{Lsn, SegmentNumber, TargetId};
use crate::pool::{Durable, PreparedSegment};
use crate::record::{Record, RecordKind};
use crate::tail::{Payload, Tail};

/// Prepared segments that a lane wants to have at hand.
pub const READY_SEGMENTS: usize = 2;

/// A lane that takes appends. See the module.
#[derive(Debug)]
pub struct Lane<W: GroupWriter> {
    commit: GroupCommit,
    writer: W,
    /// Files of the segments that are written or ready, oldest first.
    files: VecDeque<(SegmentNumber, W::File)>,
    tail: Tail,
    recycler: Recycler,
    /// The cursors as the newest checkpoint has them.
    checkpointed: Checkpoint,
}

impl<W: GroupWriter> Lane<W> {
    /// Takes over a lane that [`crate::start::start`] brought up. `tail` holds what recovery found
    /// unapplied (see [`Replay`]), `closed` the older segments that are still needed.
    #[must_use]
    pub fn new(
        commit: GroupCommit,
        active: PreparedSegment<W::File>,
        closed: Vec<ClosedSegment>,
        mut tail: Tail,
        writer: W,
    ) -> Self {
        let mut recycler = Recycler::default();
        closed
            .into_iter()
            .for_each(|segment| recycler.handle_closed(segment));
        tail.handle_durable(commit.durable_lsn());
        let files = VecDeque::from([(active.ready.segment, active.file)]);
        let checkpointed = tail.checkpoint().clone();
        Self {
            commit,
            writer,
            files,
            tail,
            recycler,
            checkpointed,
        }
    }

    /// Appends a record that is to be acknowledged when durable and applied to its target
    /// afterwards. `now` is any monotonic clock in nanoseconds, the same one everywhere.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed.
    pub fn append_strong(
        &mut self,
        now: u64,
        target: TargetId,
        payload: Payload,
    ) -> Result<Lsn, AppendError> {
        let record = Record {
            kind: RecordKind::Strong,
            target,
            payload: &payload,
        };
        self.commit
            .handle_checkpoint_bytes(self.tail.checkpoint_bytes_max_with(target));
        let lsn = self.commit.append(now, &record)?;
        self.tail.push(lsn, target, payload);
        Ok(lsn)
    }

    /// Appends a record that its target has applied already, perhaps not durably. It holds the
    /// cursor until the target has synced it. A start replays it if no checkpoint covers it, so the
    /// target may get it a second time.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed here (but the target has it).
    pub fn append_eventual(
        &mut self,
        now: u64,
        target: TargetId,
        payload: &[u8],
    ) -> Result<Lsn, AppendError> {
        let record = Record {
            kind: RecordKind::Eventual,
            target,
            payload,
        };
        self.commit
            .handle_checkpoint_bytes(self.tail.checkpoint_bytes_max_with(target));
        let lsn = self.commit.append(now, &record)?;
        self.tail.push_applied(lsn, target);
        Ok(lsn)
    }

    /// Whether cursors have moved (or targets gone) since the last checkpoint, so that another one
    /// says something new.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        *self.tail.checkpoint() != self.checkpointed
    }

    /// Logs how far every target has got. Once that is durable, segments may become recyclable.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed. [`AppendError::NoSegment`] when no segment is ready
    /// and the rest of the last one is kept for a checkpoint that frees more: try again when the
    /// targets have got further. The one that finds everything synced always has its place.
    pub fn checkpoint(&mut self, now: u64) -> Result<Lsn, AppendError> {
        let payload = self.tail.checkpoint().encode();
        let floor = self.tail.floor();
        let frees = if floor == self.commit.appended_lsn() {
            Frees::All
        } else if self.recycler.would_free(floor) {
            Frees::Some
        } else {
            Frees::Nothing
        };
        self.commit
            .handle_checkpoint_bytes(self.tail.checkpoint_bytes_max());
        let lsn = self.commit.append_checkpoint(now, &payload, frees)?;
        self.recycler.handle_checkpoint(lsn, floor);
        self.checkpointed = self.tail.checkpoint().clone();
        Ok(lsn)
    }

    /// Takes what the disk completed and submits what is due. Call at the end of every reactor
    /// turn, and when the writer has news. Returns the durable prefix: every record up to it may be
    /// acknowledged.
    pub fn turn(&mut self, now: u64) -> Lsn {
        while let Some(Completion {
            group,
            result,
            buffer,
        }) = self.writer.poll_completion()
        {
            self.commit.handle_completion(now, group, result, buffer);
        }
        self.commit.handle_tick(now);
        // A refused append may have said more, a forgotten target makes it less.
        self.commit
            .handle_checkpoint_bytes(self.tail.checkpoint_bytes_max());
        while let Some(write) = self.commit.poll_action(now) {
            self.submit(write);
        }
        while let Some(closed) = self.commit.poll_closed() {
            self.files.retain(|(segment, _)| *segment > closed.segment);
            self.recycler.handle_closed(closed);
        }
        let durable = self.commit.durable_lsn();
        self.tail.handle_durable(durable);
        self.recycler.handle_durable(durable);
        durable
    }

    fn submit(&mut self, write: WriteAction) {
        let file = self.files.iter().find(|(segment, _)| *segment == write.segment);
        let (_, file) = file.expect("a segment is written only after its file was handed over");
        self.writer.submit(file, write);
    }

    /// How many segments should be prepared now.
    #[must_use]
    pub fn segments_wanted(&self) -> usize {
        if self.commit.poisoned().is_some() {
            0
        } else {
            READY_SEGMENTS.saturating_sub(self.commit.ready_segments())
        }
    }

    /// Takes a prepared segment.
    pub fn handle_segment(&mut self, prepared: PreparedSegment<W::File>) {
        self.files.push_back((prepared.ready.segment, prepared.file));
        self.commit.handle_segment(prepared.ready);
    }

    /// The next segment that the pool may recycle.
    pub fn poll_recyclable(&mut self) -> Option<ClosedSegment> {
        self.recycler.poll_recyclable()
    }

    /// Closed segments that are still needed: until their records are applied, synced, and a
    /// checkpoint says so.
    #[must_use]
    pub fn pinned_segments(&self) -> usize {
        self.recycler.pinned()
    }

    /// The durable prefix, for the pool's manifest.
    #[must_use]
    pub fn durable(&self) -> Durable {
        let (group, lsn) = (self.commit.durable_group(), self.commit.durable_lsn());
        Durable {
            group,
            lsn,
            all_applied: self.tail.floor() == self.commit.appended_lsn(),
        }
    }

    /// Takes note that a target has every record up to `lsn`: see [`Tail::handle_applied`], also
    /// for its panics.
    pub fn handle_applied(&mut self, target: TargetId, lsn: Lsn) {
        self.tail.handle_applied(target, lsn);
    }

    /// Takes note that a target has every record up to `lsn` durably: see [`Tail::handle_synced`],
    /// also for its panics.
    pub fn handle_synced(&mut self, target: TargetId, lsn: Lsn) {
        self.tail.handle_synced(target, lsn);
    }

    /// Drops a target that is gone for good: see [`Tail::forget`].
    pub fn forget(&mut self, target: TargetId) {
        self.tail.forget(target);
    }

    /// When [`Lane::turn`] wants to be called again though nothing happens before: for a mark, for
    /// eventual records that wait for company, for the limits of a stalled disk. On the clock of
    /// `now`, and not after `now` when a turn is due at once. `None`: only an event (an append, a
    /// completion, a segment) makes a turn useful.
    #[must_use]
    pub fn next_wake(&self, now: u64) -> Option<u64> {
        self.commit.next_wake(now)
    }

    /// The writer, to wait for it or to wake it.
    #[must_use]
    pub fn writer(&self) -> &W {
        &self.writer
    }

    /// Records that are not yet applied or not yet synced.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The group commit, for metrics.
    #[must_use]
    pub fn commit(&self) -> &GroupCommit {
        &self.commit
    }

    /// Why the lane is closed, if it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<PoisonReason> {
        self.commit.poisoned()
    }

    /// Whether nothing is waiting or in flight, everything is witnessed, and every target has
    /// synced everything. A checkpoint undoes this only until it is durable and its mark written.
    /// Never true of a poisoned lane that had something in flight.
    ///
    /// A drain: apply and sync all, [`Lane::checkpoint`] if [`Lane::checkpoint_due`], turn until
    /// this is true, then [`crate::pool::Pool::close`].
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.commit.is_quiet() && self.tail.floor() == self.commit.appended_lsn()
    }
}

/// Collects what a start finds into the [`Tail`] of the lane: every record above its target's
/// cursor is to be applied, eventual ones too. Their store had them, but one that lost its last
/// seconds in a power cut gets them back this way. So a store must bear to be given what it has
/// already.
#[derive(Debug, Default)]
pub struct Replay {
    tail: Tail,
    /// Checkpoint records that did not parse; none, unless a newer version wrote them.
    pub unreadable_checkpoints: usize,
}

impl Replay {
    /// Records to be applied, as far as they were read.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Records to be applied.
    #[must_use]
    pub fn into_tail(self) -> Tail {
        self.tail
    }
}

impl crate::recovery::Visitor for Replay {
    fn record(&mut self, _epoch: crate::ids::Epoch, lsn: Lsn, record: &Record<'_>) {
        match record.kind {
            RecordKind::Strong | RecordKind::Eventual => {
                self.tail.push(lsn, record.target, Payload::from(record.payload));
            }
            RecordKind::Checkpoint => match Checkpoint::decode(record.payload) {
                Ok(checkpoint) => self.tail.handle_checkpoint(&checkpoint),
                Err(_) => self.unreadable_checkpoints += 1,
            },
            RecordKind::Cut => {}
        }
    }
}
