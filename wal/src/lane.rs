//! A running lane: carries actions from [`GroupCommit`] to the disk and completions back, and keeps the books of what
//! was applied. The shard's thread owns it; preparing and recycling segments is left to a [`crate::pool::Pool`]
//! elsewhere, because that blocks.
//!
//! ```text
//!  shard:  append* ─► turn (end of each reactor turn) ─► durable_lsn ─► acks
//!              segments_wanted ─► [pool: prepare] ─► handle_segment
//!              checkpoint ─► … durable … ─► poll_recyclable ─► [pool: recycle]
//! ```

use std::collections::VecDeque;

use crate::cursor::{Checkpoint, Recycler};
use crate::disk::{Completion, GroupWriter};
use crate::group_commit::{AppendError, ClosedSegment, GroupCommit, PoisonReason, WriteAction};
use crate::ids::{Lsn, SegmentNumber, TargetId};
use crate::pool::{Durable, Prepared};
use crate::record::{Record, RecordKind};
use crate::tail::Tail;

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
}

impl<W: GroupWriter> Lane<W> {
    /// Takes over a lane that [`crate::start::start`] brought up. `tail` holds what recovery found unapplied, `closed`
    /// the older segments that are still needed.
    #[must_use]
    pub fn new(
        commit: GroupCommit,
        active: Prepared<W::File>,
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
        Self {
            commit,
            writer,
            files,
            tail,
            recycler,
        }
    }

    /// Appends a record that is to be acknowledged when durable and applied to its target afterwards. `now` is any
    /// monotonic clock in nanoseconds, the same one everywhere.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed.
    pub fn append_strong(&mut self, now: u64, target: TargetId, payload: &[u8]) -> Result<Lsn, AppendError> {
        let record = Record {
            kind: RecordKind::Strong,
            target,
            payload,
        };
        let lsn = self.commit.append(now, &record)?;
        self.tail.push(lsn, target, payload);
        Ok(lsn)
    }

    /// Appends a record that its target has applied already.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed.
    pub fn append_eventual(
        &mut self,
        now: u64,
        target: TargetId,
        payload: &[u8],
    ) -> Result<Lsn, AppendError> {
        self.commit.append(
            now,
            &Record {
                kind: RecordKind::Eventual,
                target,
                payload,
            },
        )
    }

    /// Logs how far every target has got. Once that is durable, segments may become recyclable.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed.
    pub fn checkpoint(&mut self, now: u64) -> Result<Lsn, AppendError> {
        let payload = self.tail.checkpoint().encode();
        let floor = self.tail.floor();
        let record = Record {
            kind: RecordKind::Checkpoint,
            target: TargetId::NONE,
            payload: &payload,
        };
        let lsn = self.commit.append(now, &record)?;
        self.recycler.handle_checkpoint(lsn, floor);
        Ok(lsn)
    }

    /// Takes what the disk completed and submits what is due. Call at the end of every reactor turn, and when the
    /// writer has news. Returns the durable prefix: every record up to it may be acknowledged.
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
    pub fn handle_segment(&mut self, prepared: Prepared<W::File>) {
        self.files.push_back((prepared.ready.segment, prepared.file));
        self.commit.handle_segment(prepared.ready);
    }

    /// The next segment that the pool may recycle.
    pub fn poll_recyclable(&mut self) -> Option<ClosedSegment> {
        self.recycler.poll_recyclable()
    }

    /// What is known durable, for the pool's manifest.
    #[must_use]
    pub fn durable(&self) -> Durable {
        let (group, lsn) = (self.commit.durable_group(), self.commit.durable_lsn());
        Durable {
            group,
            lsn,
            all_applied: self.tail.floor() == self.commit.appended_lsn(),
        }
    }

    /// Takes note that a target made everything up to `lsn` durable on its side.
    pub fn handle_applied(&mut self, target: TargetId, lsn: Lsn) {
        self.tail.handle_applied(target, lsn);
    }

    /// The writer, to wait for it or to wake it.
    #[must_use]
    pub fn writer(&self) -> &W {
        &self.writer
    }

    /// What is durable and not applied.
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

    /// Whether nothing is waiting or in flight, everything is witnessed and everything is applied.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.commit.is_quiet() && self.tail.floor() == self.commit.appended_lsn()
    }
}

/// Collects what a start finds into the [`Tail`] of the lane.
#[derive(Debug, Default)]
pub struct Replay {
    tail: Tail,
    /// Checkpoint records that did not parse; none, unless a newer version wrote them.
    pub unreadable_checkpoints: usize,
}

impl Replay {
    /// What is to be applied.
    #[must_use]
    pub fn into_tail(self) -> Tail {
        self.tail
    }
}

impl crate::recovery::Visitor for Replay {
    fn record(&mut self, _epoch: crate::ids::Epoch, lsn: Lsn, record: &Record<'_>) {
        match record.kind {
            RecordKind::Strong => self.tail.push(lsn, record.target, record.payload),
            RecordKind::Checkpoint => match Checkpoint::decode(record.payload) {
                Ok(checkpoint) => self.tail.handle_checkpoint(&checkpoint),
                Err(_) => self.unreadable_checkpoints += 1,
            },
            RecordKind::Eventual | RecordKind::Cut => {}
        }
    }
}
