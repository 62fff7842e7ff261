//! Group commit: records in, durable writes out, completions in, a durable prefix out. No clock, no
//! disk, no threads.
//!
//! ```text
//!  append ──► open group ──► staged groups ──poll_action──► in flight (≤ depth) ──handle_completion──► durable prefix
//!             (copy, once)   (full ones)        seal:          (owned by the          in any order        in order
//!                                               number, place,  driver)
//!                                               witness, chain,
//!                                               encryption
//! ```
//!
//! Promises:
//! - `durable_lsn` covers a record only when its group and all groups before it were reported
//!   durable.
//! - A group's witness is never above the durable prefix at the time it is sealed.
//! - No block of a segment is written by two groups; a group is written once, or once more with
//!   identical bytes when the first attempt was cut short or interrupted. A failed write is never
//!   tried again: the lane is poisoned, nothing is acknowledged any more, and everything not yet
//!   acknowledged is of unknown outcome.
//! - Everything is bounded before the append: a refused append changes nothing.
//! - When no segment is ready, the checkpoint that frees one still has a place.
//!
//! The driver calls [`GroupCommit::poll_action`] at the end of its turn, not after each append:
//! what arrived together is written together (natural batching); no timer is involved in a strong
//! record.

use std::collections::VecDeque;

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::cipher::GroupTag;
use crate::depth::DepthController;
use crate::group::{
    GROUP_HEADER_BYTES, GroupFlags, GroupHeader, GroupKind, group_blocks, group_payload_bytes, seal_group,
};
use crate::ids::{Epoch, GroupNumber, LaneId, Lsn, SegmentNumber, TargetId};
use crate::manifest::Base;
use crate::record::{Record, RecordKind};
use crate::segment::SEGMENT_HEADER_BLOCKS;

mod actions;
mod config;
mod reserve;
mod room;

use reserve::Reserve;

pub use actions::{ClosedSegment, PoisonReason, ReadySegment, Resume, WriteAction, WriteResult};
pub use config::{AppendError, Config};
pub use reserve::Frees;

/// The state machine. See the module.
#[derive(Debug)]
pub struct GroupCommit {
    config: Config,
    lane: LaneId,
    epoch: Epoch,
    poison: Option<PoisonReason>,
    open: OpenGroup,
    staged: VecDeque<OpenGroup>,
    pending_bytes: usize,
    next_lsn: Lsn,
    last_group: GroupNumber,
    last_tag: GroupTag,
    in_flight: VecDeque<InFlight>,
    again: VecDeque<WriteAction>,
    durable_group: GroupNumber,
    durable_lsn: Lsn,
    /// Highest witness in a durable group: below `durable_group`, a mark is due.
    witnessed: GroupNumber,
    quiet_since: Option<u64>,
    stalled: bool,
    active: Option<ActiveSegment>,
    ready: VecDeque<ReadySegment>,
    closed: VecDeque<ClosedSegment>,
    spare: Vec<AlignedBuffer>,
    depth: DepthController,
    reserve: Reserve,
}

/// Records that have no group number yet.
#[derive(Debug, Default)]
struct OpenGroup {
    buffer: Option<AlignedBuffer>,
    payload_bytes: usize,
    record_count: u32,
    urgent: bool,
    checkpoint: bool,
    cut: bool,
    since: Option<u64>,
    /// Blocks that must be left after it while no segment is ready, as its last record needs it.
    kept_blocks: u32,
}

#[derive(Debug)]
struct InFlight {
    group: GroupNumber,
    durable: bool,
    attempts: u8,
    block: u32,
    blocks: u32,
    payload_bytes: usize,
    record_count: u32,
    last_lsn: Lsn,
    tag: GroupTag,
    witness: GroupNumber,
    segment: SegmentNumber,
    seals: bool,
    since: u64,
}

#[derive(Debug)]
struct ActiveSegment {
    ready: ReadySegment,
    next_block: u32,
}

/// Attempts at one write: a second one, of the same bytes, if the first was short or interrupted.
const ATTEMPTS_MAX: u8 = 2;

impl GroupCommit {
    /// A lane that goes on where recovery ended, in a new epoch.
    ///
    /// # Errors
    /// What [`Config::check`] says.
    pub fn new(config: Config, lane: LaneId, epoch: Epoch, resume: Resume) -> Result<Self, &'static str> {
        config.check()?;
        assert!(epoch > Epoch::NONE, "epochs count from 1");
        let depth = DepthController::new(config.depth_max);
        Ok(Self {
            config,
            lane,
            epoch,
            poison: None,
            open: OpenGroup::default(),
            staged: VecDeque::new(),
            pending_bytes: 0,
            next_lsn: resume.lsn.next(),
            last_group: resume.group,
            last_tag: resume.tag,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            durable_group: resume.group,
            durable_lsn: resume.lsn,
            witnessed: resume.group,
            quiet_since: None,
            stalled: false,
            active: None,
            ready: VecDeque::new(),
            closed: VecDeque::new(),
            spare: Vec::new(),
            depth,
            reserve: Reserve::for_checkpoints_of(0),
        })
    }

    // --- commands --------------------------------------------------------------------------------

    /// Takes a record into the open group and gives it its number. `now` is any monotonic clock, in
    /// nanoseconds. A checkpoint has no rights here: see [`GroupCommit::append_checkpoint`].
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed.
    pub fn append(&mut self, now: u64, record: &Record<'_>) -> Result<Lsn, AppendError> {
        let kept_blocks = match record.kind {
            RecordKind::Cut => Reserve::behind_cut(),
            _ => self.reserve.behind_record(),
        };
        self.append_keeping(now, record, kept_blocks)
    }

    /// Appends a checkpoint, which may go further into the last segment than other records, by what
    /// it frees.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing changed.
    pub fn append_checkpoint(&mut self, now: u64, payload: &[u8], frees: Frees) -> Result<Lsn, AppendError> {
        debug_assert!(
            self.reserve.covers(payload.len()),
            "no checkpoint is longer than the place kept for it"
        );
        let record = Record {
            kind: RecordKind::Checkpoint,
            target: TargetId::NONE,
            payload,
        };
        let kept_blocks = self.reserve.behind_checkpoint(frees);
        self.append_keeping(now, &record, kept_blocks)
    }

    /// Takes the length that a checkpoint can reach by the records so far and the next one.
    pub fn handle_checkpoint_bytes(&mut self, payload_bytes_max: usize) {
        self.reserve = Reserve::for_checkpoints_of(payload_bytes_max);
    }

    fn append_keeping(
        &mut self,
        now: u64,
        record: &Record<'_>,
        kept_blocks: u32,
    ) -> Result<Lsn, AppendError> {
        self.admit(record, kept_blocks)?;
        let bytes = record.encoded_bytes();
        let ordinary = group_payload_bytes(self.config.group_blocks_max);
        if self.open.record_count > 0 && self.open.payload_bytes + bytes > ordinary {
            self.staged.push_back(core::mem::take(&mut self.open));
        }
        if self.open.buffer.is_none() {
            self.open.buffer = Some(self.buffer_for(bytes));
            self.open.since = Some(now);
        }
        let open = &mut self.open;
        let buffer = open.buffer.as_mut().expect("the open group got its buffer above");
        record.encode(&mut buffer.as_mut_slice()[GROUP_HEADER_BYTES + open.payload_bytes..]);
        open.payload_bytes += bytes;
        open.record_count += 1;
        open.urgent |= record.kind != RecordKind::Eventual;
        open.checkpoint |= record.kind == RecordKind::Checkpoint;
        open.cut |= record.kind == RecordKind::Cut;
        open.kept_blocks = kept_blocks;
        self.pending_bytes += bytes;
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        Ok(lsn)
    }

    /// Hands over a prepared segment. Segments are used in the order given, which is ascending.
    pub fn handle_segment(&mut self, segment: ReadySegment) {
        let newest = self
            .ready
            .back()
            .or(self.active.as_ref().map(|active| &active.ready));
        assert!(
            newest.is_none_or(|newest| newest.segment < segment.segment),
            "segments are used in order"
        );
        self.ready.push_back(segment);
    }

    /// Closes the lane for good.
    pub fn poison(&mut self, reason: PoisonReason) {
        self.poison.get_or_insert(reason);
        self.again.clear();
    }

    // --- the disk's answers ----------------------------------------------------------------------

    /// Takes the answer to a [`WriteAction`] and its buffer back.
    ///
    /// # Panics
    /// When the group is not in flight: a driver that answers twice.
    pub fn handle_completion(
        &mut self,
        now: u64,
        group: GroupNumber,
        result: WriteResult,
        buffer: AlignedBuffer,
    ) {
        let position = self
            .in_flight
            .iter()
            .position(|write| write.group == group && !write.durable);
        let position = position.expect("a completion answers a write in flight");
        if self.poison.is_some() {
            // Durable or not, nobody learns it from here: what was not acknowledged before stays
            // unknown.
            return;
        }
        let write = &mut self.in_flight[position];
        let again = match result {
            WriteResult::Durable(bytes) if bytes == write.blocks as usize * BLOCK_BYTES => false,
            WriteResult::Durable(_) if write.attempts >= ATTEMPTS_MAX => {
                return self.poison(PoisonReason::ShortWrite);
            }
            WriteResult::Interrupted if write.attempts >= ATTEMPTS_MAX => {
                return self.poison(PoisonReason::Interrupted);
            }
            WriteResult::Durable(_) | WriteResult::Interrupted => true,
            WriteResult::Failed(number) => return self.poison(PoisonReason::WriteFailed(number)),
        };
        if again {
            write.attempts += 1;
            let action = WriteAction {
                group,
                segment: write.segment,
                block: write.block,
                blocks: write.blocks,
                records: write.record_count,
                buffer,
            };
            self.again.push_back(action);
            return;
        }
        write.durable = true;
        let records = write.record_count;
        self.depth.handle_durable(now, records);
        self.recycle_buffer(buffer);
        self.advance_durable(now);
    }

    /// Lets time pass: marks after a quiet while, and the stall limits. Call now and then (some
    /// milliseconds apart).
    pub fn handle_tick(&mut self, now: u64) {
        let oldest = self
            .in_flight
            .front()
            .map_or(0, |write| now.saturating_sub(write.since));
        self.stalled = oldest >= self.config.shed_after_nanos;
        if oldest >= self.config.poison_after_nanos {
            self.poison(PoisonReason::Stalled);
        }
    }

    // --- what to do next -------------------------------------------------------------------------

    /// The next write to submit, or `None` until something changes. Call at the end of the turn,
    /// until `None`.
    pub fn poll_action(&mut self, now: u64) -> Option<WriteAction> {
        if self.poison.is_some() {
            return None;
        }
        if let Some(action) = self.again.pop_front() {
            return Some(action);
        }
        let waiting = self.staged.len() + usize::from(self.open.record_count > 0);
        self.depth
            .handle_busy(now, waiting > 0 && !self.in_flight.is_empty());
        if self.in_flight.len() >= self.depth() {
            return None;
        }
        let (blocks, kind, _) = self.next_group(now).filter(|(_, _, due)| *due <= now)?;
        if !self.has_place(blocks, kind) {
            if self.must_close(blocks) {
                return Some(self.seal(now, OpenGroup::default(), GroupKind::Mark, true));
            }
            return None;
        }
        let group = match kind {
            GroupKind::Mark => OpenGroup {
                kept_blocks: self.reserve.behind_mark(),
                ..OpenGroup::default()
            },
            _ if self.staged.is_empty() => core::mem::take(&mut self.open),
            _ => self.staged.pop_front().expect("checked not to be empty"),
        };
        Some(self.seal(now, group, kind, false))
    }

    /// When time alone makes the next step possible: a group of eventual records, a mark, a limit
    /// of a stalled disk. Not after `now` when [`GroupCommit::poll_action`] has something to do at
    /// once. `None` when only an event does.
    #[must_use]
    pub fn next_wake(&self, now: u64) -> Option<u64> {
        if self.poison.is_some() {
            return None;
        }
        if !self.again.is_empty() {
            return Some(now);
        }
        let limit = if self.stalled {
            self.config.poison_after_nanos
        } else {
            self.config.shed_after_nanos
        };
        let stall = self
            .in_flight
            .front()
            .map(|write| write.since.saturating_add(limit));
        let group = self.next_due(now).filter(|_| self.in_flight.len() < self.depth());
        stall.into_iter().chain(group).min()
    }

    /// A segment to which nothing more is written and that is all durable; each once, in order.
    pub fn poll_closed(&mut self) -> Option<ClosedSegment> {
        if self.poison.is_some() {
            None
        } else {
            self.closed.pop_front()
        }
    }

    // --- what holds now --------------------------------------------------------------------------

    /// Every record up to this one is durable.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.durable_lsn
    }

    /// Every group up to this one is durable.
    #[must_use]
    pub fn durable_group(&self) -> GroupNumber {
        self.durable_group
    }

    /// The number of the last record appended.
    #[must_use]
    pub fn appended_lsn(&self) -> Lsn {
        self.next_lsn.previous()
    }

    /// Why the lane is closed, if it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<PoisonReason> {
        self.poison
    }

    /// Prepared segments not yet written to.
    #[must_use]
    pub fn ready_segments(&self) -> usize {
        self.ready.len()
    }

    /// Bytes of records appended and not yet durable.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Groups submitted and not yet durable.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Groups that may be in flight at the moment.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.config.depth_fixed.unwrap_or(self.depth.depth())
    }

    /// Whether nothing is waiting, nothing is in flight, and the last groups are witnessed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.pending_bytes == 0 && self.in_flight.is_empty() && self.witnessed >= self.durable_group
    }

    /// The configuration in use.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The epoch that is being written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    // --- leaves ----------------------------------------------------------------------------------

    fn buffer_for(&mut self, record_bytes: usize) -> AlignedBuffer {
        let ordinary = self.config.group_blocks_max as usize * BLOCK_BYTES;
        let needed = group_blocks(record_bytes) as usize * BLOCK_BYTES;
        if needed > ordinary {
            return AlignedBuffer::zeroed(needed);
        }
        self.spare
            .pop()
            .unwrap_or_else(|| AlignedBuffer::zeroed(ordinary))
    }

    fn recycle_buffer(&mut self, buffer: AlignedBuffer) {
        let ordinary = self.config.group_blocks_max as usize * BLOCK_BYTES;
        if buffer.len() == ordinary && self.spare.len() <= self.config.depth_max {
            self.spare.push(buffer);
        }
    }

    /// The group to write next, if any: length, kind, and from when on.
    fn next_group(&self, now: u64) -> Option<(u32, GroupKind, u64)> {
        let next = self.staged.front().unwrap_or(&self.open);
        if next.record_count > 0 {
            let due = match next.since {
                Some(since) if !next.urgent && self.staged.is_empty() => {
                    since.saturating_add(self.config.eventual_delay_nanos)
                }
                _ => now,
            };
            let kind = if next.checkpoint {
                GroupKind::Checkpoint
            } else {
                GroupKind::Data
            };
            return Some((group_blocks(next.payload_bytes), kind, due));
        }
        let unwitnessed = self.witnessed < self.durable_group && self.in_flight.is_empty();
        let since = self.quiet_since.filter(|_| unwitnessed)?;
        let due = since.saturating_add(self.config.mark_after_nanos);
        Some((1, GroupKind::Mark, due))
    }

    /// From when on the next group can be written; `None` when there is none, or no place for it.
    fn next_due(&self, now: u64) -> Option<u64> {
        let (blocks, kind, due) = self.next_group(now)?;
        (self.has_place(blocks, kind) || self.must_close(blocks)).then_some(due)
    }

    /// Gives a group its number and place, encrypts it and puts it in flight.
    fn seal(&mut self, now: u64, group: OpenGroup, kind: GroupKind, closes: bool) -> WriteAction {
        let blocks = group_blocks(group.payload_bytes);
        let open = self.active.is_none();
        if open {
            let ready = self.ready.pop_front().expect("a place was checked before");
            self.active = Some(ActiveSegment {
                ready,
                next_block: SEGMENT_HEADER_BLOCKS,
            });
        }
        let active = self.active.as_mut().expect("made active above");
        let block = active.next_block;
        active.next_block += blocks;
        let left = self.config.segment_blocks - active.next_block;
        assert!(
            left >= 1 || closes,
            "the last block of a segment is kept for the group that seals it"
        );
        assert!(
            left >= group.kept_blocks || !self.ready.is_empty(),
            "without a segment at hand, what frees one has its place"
        );
        // Sealing early, while a segment is at hand, saves a write of its own when the next group
        // does not fit.
        let seals = closes || (left <= self.config.group_blocks_max && !self.ready.is_empty());
        let header = GroupHeader {
            kind,
            flags: GroupFlags {
                open,
                seal: seals,
                epoch: group.cut,
            },
            lane: self.lane,
            epoch: self.epoch,
            group: self.last_group.next(),
            segment: active.ready.segment,
            block,
            blocks,
            payload_bytes: group.payload_bytes as u32,
            record_count: group.record_count,
            first_lsn: self.first_unnumbered_lsn(),
            durable_group: self.durable_group,
            previous_tag: self.last_tag,
        };
        let mut buffer = group.buffer.unwrap_or_else(|| self.buffer_for(0));
        let cipher = &self.active.as_ref().expect("made active above").ready.cipher;
        let tag = seal_group(
            &header,
            cipher,
            &mut buffer.as_mut_slice()[..blocks as usize * BLOCK_BYTES],
        );
        assert!(
            header.durable_group <= self.durable_group,
            "a witness is never above the durable prefix"
        );
        self.in_flight.push_back(InFlight {
            group: header.group,
            durable: false,
            attempts: 1,
            block,
            blocks,
            payload_bytes: group.payload_bytes,
            record_count: group.record_count,
            last_lsn: header.last_lsn(),
            tag,
            witness: header.durable_group,
            segment: header.segment,
            seals,
            since: now,
        });
        (self.last_group, self.last_tag, self.quiet_since) = (header.group, tag, None);
        if seals {
            self.active = None;
        }
        WriteAction {
            group: header.group,
            segment: header.segment,
            block,
            blocks,
            records: group.record_count,
            buffer,
        }
    }

    /// LSN of the first record that is in no sealed group.
    fn first_unnumbered_lsn(&self) -> Lsn {
        self.in_flight
            .back()
            .map_or(self.durable_lsn, |write| write.last_lsn)
            .next()
    }

    fn advance_durable(&mut self, now: u64) {
        while self.in_flight.front().is_some_and(|write| write.durable) {
            let Some(write) = self.in_flight.pop_front() else {
                return;
            };
            assert_eq!(
                write.group,
                self.durable_group.next(),
                "the durable prefix has no holes"
            );
            assert!(write.last_lsn >= self.durable_lsn, "numbers only grow");
            self.durable_group = write.group;
            self.durable_lsn = write.last_lsn;
            self.witnessed = self.witnessed.max(write.witness);
            // A group without records needs no witness of its own: nothing in it was acknowledged.
            if write.record_count == 0 && write.witness == write.group.previous() {
                self.witnessed = write.group;
            }
            self.pending_bytes -= write.payload_bytes;
            if write.seals {
                let end = Base {
                    group: write.group,
                    lsn: write.last_lsn,
                    tag: write.tag,
                };
                self.closed.push_back(ClosedSegment {
                    segment: write.segment,
                    end,
                });
            }
        }
        if self.in_flight.is_empty() {
            self.quiet_since = Some(now);
        }
    }
}
