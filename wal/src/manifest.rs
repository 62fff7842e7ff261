//! The manifest of a lane: which segments must be there. Two slots, written in turn.
//!
//! A segment that is listed and missing, or that is another incarnation than the one listed, stops
//! the lane; a log that silently starts without one of its files is the failure this page exists
//! for. A segment is listed before its first group is written, and taken off the list before its
//! file is reused or removed.
//!
//! ```text
//! file: slot A (64 KiB), slot B (64 KiB); generation g lies in slot g mod 2
//!
//! offset  bytes  field of a slot (little endian)
//!      0      4  magic "PWM1"
//!      4      1  version, 1
//!      5      3  zero
//!      8      8  generation, from 1
//!     16      4  lane
//!     20      4  epoch
//!     24      8  base group   \
//!     32      8  base LSN      | the last group before the first listed segment (zeros at the very start)
//!     40     16  base tag     /
//!     56      8  durable group: known durable when the slot was written (a witness)
//!     64      8  durable LSN
//!     72      4  segments listed
//!     76      4  1: the lane was closed cleanly after the durable group, nothing was submitted after it; else 0
//!     80   24×n  each: segment number (8), incarnation (16); ascending
//!      …         zeros
//!  65532      4  crc32c of bytes 0..65532
//! ```
//!
//! A slot is overwritten in place, so it can be torn; then the other one, one generation older, is
//! whole. What an older manifest says is still true enough to be safe: files it lists have not been
//! touched yet when the newer one never became durable, and if the newer one did and rotted later,
//! a listed file is missing and the lane stops.

use crate::buffer::{AlignedBuffer, BLOCK_BYTES};
use crate::bytes::{array_at, put, u32_at, u64_at};
use crate::cipher::GroupTag;
use crate::ids::{Epoch, GroupNumber, LaneId, Lsn, NUMBER_MAX, SegmentNumber};
use crate::segment::Incarnation;

/// Bytes of one slot.
pub const MANIFEST_SLOT_BYTES: usize = 16 * BLOCK_BYTES;
/// Bytes of the manifest file.
pub const MANIFEST_BYTES: usize = 2 * MANIFEST_SLOT_BYTES;
/// The most segments a lane can have: what fits into a slot.
pub const MANIFEST_SEGMENTS_MAX: usize = (CRC_OFFSET - LIST_OFFSET) / ENTRY_BYTES;

const MAGIC: u32 = u32::from_le_bytes(*b"PWM1");
const VERSION: u8 = 1;
const LIST_OFFSET: usize = 80;
const ENTRY_BYTES: usize = 24;
const CRC_OFFSET: usize = MANIFEST_SLOT_BYTES - 4;

/// The name of a lane's manifest within the log directory.
#[must_use]
pub fn manifest_file_name(lane: LaneId) -> String {
    format!("lane-{:08x}.manifest", lane.0)
}

/// The point up to which the log was recycled: the chain starts from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The last group before the first listed segment.
    pub group: GroupNumber,
    /// The group's last record.
    pub lsn: Lsn,
    /// The group's tag.
    pub tag: GroupTag,
}

/// One listed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedSegment {
    /// The segment's number.
    pub segment: SegmentNumber,
    /// The incarnation that its header must show.
    pub incarnation: Incarnation,
}

/// The contents of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Counts the writes of the manifest.
    pub generation: u64,
    /// The lane that the manifest belongs to.
    pub lane: LaneId,
    /// The newest epoch for which a segment was prepared.
    pub epoch: Epoch,
    /// Where the chain starts.
    pub base: Base,
    /// A witness: every group up to this one was durable when the slot was written.
    pub durable_group: GroupNumber,
    /// The last record of that group.
    pub durable_lsn: Lsn,
    /// The lane was closed cleanly: the durable group is the last one that was ever submitted.
    pub clean: bool,
    /// The segments, ascending by number, at most [`MANIFEST_SEGMENTS_MAX`].
    pub segments: Vec<ListedSegment>,
}

/// Why a slot is not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// No magic: never written.
    NoMagic,
    /// The checksum is wrong: torn or rotten.
    Checksum,
    /// A version this program does not know.
    Version(u8),
    /// Fields that contradict one another, or another lane's manifest.
    Inconsistent,
}

impl Manifest {
    /// The manifest of a lane that has nothing yet.
    #[must_use]
    pub fn empty(lane: LaneId) -> Self {
        Self {
            generation: 0,
            lane,
            epoch: Epoch::NONE,
            base: Base::default(),
            durable_group: GroupNumber::NONE,
            durable_lsn: Lsn::NONE,
            clean: false,
            segments: Vec::new(),
        }
    }

    /// Where in the file this generation belongs.
    #[must_use]
    pub fn slot_offset(&self) -> u64 {
        (self.generation % 2) * MANIFEST_SLOT_BYTES as u64
    }

    /// The slot's bytes.
    ///
    /// # Panics
    /// When more than [`MANIFEST_SEGMENTS_MAX`] segments are listed; the pool refuses to prepare
    /// that many.
    #[must_use]
    pub fn encode(&self) -> AlignedBuffer {
        assert!(
            self.segments.len() <= MANIFEST_SEGMENTS_MAX,
            "the pool keeps to the manifest's limit"
        );
        let mut buffer = AlignedBuffer::zeroed(MANIFEST_SLOT_BYTES);
        let slot = buffer.as_mut_slice();
        put(slot, 0, &MAGIC.to_le_bytes());
        slot[4] = VERSION;
        put(slot, 8, &self.generation.to_le_bytes());
        put(slot, 16, &self.lane.0.to_le_bytes());
        put(slot, 20, &self.epoch.0.to_le_bytes());
        put(slot, 24, &self.base.group.0.to_le_bytes());
        put(slot, 32, &self.base.lsn.0.to_le_bytes());
        put(slot, 40, &self.base.tag);
        put(slot, 56, &self.durable_group.0.to_le_bytes());
        put(slot, 64, &self.durable_lsn.0.to_le_bytes());
        put(slot, 72, &(self.segments.len() as u32).to_le_bytes());
        put(slot, 76, &u32::from(self.clean).to_le_bytes());
        for (listed, entry) in self
            .segments
            .iter()
            .zip(slot[LIST_OFFSET..].chunks_exact_mut(ENTRY_BYTES))
        {
            put(entry, 0, &listed.segment.0.to_le_bytes());
            put(entry, 8, &listed.incarnation);
        }
        let crc = crc32c::crc32c(&slot[..CRC_OFFSET]);
        put(slot, CRC_OFFSET, &crc.to_le_bytes());
        buffer
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// [`ManifestError`]; never a panic, whatever the bytes.
    pub fn decode(slot: &[u8]) -> Result<Self, ManifestError> {
        let slot = slot.get(..MANIFEST_SLOT_BYTES).ok_or(ManifestError::NoMagic)?;
        if u32_at(slot, 0) != MAGIC {
            return Err(ManifestError::NoMagic);
        }
        if crc32c::crc32c(&slot[..CRC_OFFSET]) != u32_at(slot, CRC_OFFSET) {
            return Err(ManifestError::Checksum);
        }
        if slot[4] != VERSION {
            return Err(ManifestError::Version(slot[4]));
        }
        let count = u32_at(slot, 72) as usize;
        if count > MANIFEST_SEGMENTS_MAX {
            return Err(ManifestError::Inconsistent);
        }
        let segments: Vec<_> = slot[LIST_OFFSET..]
            .chunks_exact(ENTRY_BYTES)
            .take(count)
            .map(|entry| ListedSegment {
                segment: SegmentNumber(u64_at(entry, 0)),
                incarnation: array_at(entry, 8),
            })
            .collect();
        let manifest = Self {
            generation: u64_at(slot, 8),
            lane: LaneId(u32_at(slot, 16)),
            epoch: Epoch(u32_at(slot, 20)),
            base: Base {
                group: GroupNumber(u64_at(slot, 24)),
                lsn: Lsn(u64_at(slot, 32)),
                tag: array_at(slot, 40),
            },
            durable_group: GroupNumber(u64_at(slot, 56)),
            durable_lsn: Lsn(u64_at(slot, 64)),
            clean: u32_at(slot, 76) == 1,
            segments,
        };
        if manifest.is_consistent() {
            Ok(manifest)
        } else {
            Err(ManifestError::Inconsistent)
        }
    }

    fn is_consistent(&self) -> bool {
        let numbers = [
            self.base.group.0,
            self.base.lsn.0,
            self.durable_group.0,
            self.durable_lsn.0,
        ];
        numbers.iter().all(|number| *number <= NUMBER_MAX)
            && (1..=NUMBER_MAX).contains(&self.generation)
            && self
                .segments
                .iter()
                .all(|listed| (1..=NUMBER_MAX).contains(&listed.segment.0))
            && self
                .segments
                .is_sorted_by(|one, other| one.segment < other.segment)
    }

    /// Reads the newer of the two slots of a manifest file.
    ///
    /// # Errors
    /// When neither slot is good: [`ManifestError::NoMagic`] if both were never written, else the
    /// first other error.
    pub fn decode_newest(file: &[u8], lane: LaneId) -> Result<Self, ManifestError> {
        let slot = |index: usize| {
            let bytes = file.get(index * MANIFEST_SLOT_BYTES..).unwrap_or_default();
            let manifest = Self::decode(bytes)?;
            let in_place = manifest.generation % 2 == index as u64 && manifest.lane == lane;
            if in_place {
                Ok(manifest)
            } else {
                Err(ManifestError::Inconsistent)
            }
        };
        match (slot(0), slot(1)) {
            (Ok(one), Ok(other)) => Ok(if one.generation > other.generation {
                one
            } else {
                other
            }),
            (Ok(only), Err(_)) | (Err(_), Ok(only)) => Ok(only),
            (Err(ManifestError::NoMagic), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(generation: u64, segments: usize) -> Manifest {
        Manifest {
            generation,
            lane: LaneId(3),
            epoch: Epoch(4),
            base: Base {
                group: GroupNumber(10),
                lsn: Lsn(100),
                tag: [7; 16],
            },
            durable_group: GroupNumber(20),
            durable_lsn: Lsn(200),
            clean: generation.is_multiple_of(2),
            segments: (1..=segments as u64)
                .map(|number| ListedSegment {
                    segment: SegmentNumber(number),
                    incarnation: [number as u8; 16],
                })
                .collect(),
        }
    }

    fn file(slots: &[&Manifest]) -> Vec<u8> {
        let mut file = vec![0; MANIFEST_BYTES];
        for manifest in slots {
            let offset = manifest.slot_offset() as usize;
            file[offset..offset + MANIFEST_SLOT_BYTES].copy_from_slice(manifest.encode().as_slice());
        }
        file
    }

    #[test]
    fn slots_come_back_from_empty_to_full() {
        for segments in [0, 1, 5, MANIFEST_SEGMENTS_MAX] {
            let manifest = sample(9, segments);
            assert_eq!(Manifest::decode(manifest.encode().as_slice()), Ok(manifest));
        }
    }

    #[test]
    fn the_newer_good_slot_wins_and_a_torn_one_gives_way() {
        let (old, new) = (sample(8, 2), sample(9, 3));
        let good = file(&[&old, &new]);
        assert_eq!(Manifest::decode_newest(&good, LaneId(3)), Ok(new.clone()));
        let mut torn = good.clone();
        torn[MANIFEST_SLOT_BYTES + 600] ^= 1;
        assert_eq!(Manifest::decode_newest(&torn, LaneId(3)), Ok(old));
        torn[5000] ^= 1;
        assert_eq!(
            Manifest::decode_newest(&torn, LaneId(3)),
            Err(ManifestError::Checksum)
        );
        assert_eq!(Manifest::decode_newest(&file(&[&new]), LaneId(3)), Ok(new));
        assert_eq!(
            Manifest::decode_newest(&vec![0; MANIFEST_BYTES], LaneId(3)),
            Err(ManifestError::NoMagic)
        );
        assert_eq!(
            Manifest::decode_newest(&[], LaneId(3)),
            Err(ManifestError::NoMagic)
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sample(9, 3);
        let buffer = good.encode();
        let mut slot = buffer.as_slice().to_vec();
        for bit in 0..MANIFEST_SLOT_BYTES * 8 {
            slot[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&slot).is_err(), "bit {bit}");
            slot[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(Manifest::decode(&slot), Ok(good));
    }

    #[test]
    fn another_lanes_manifest_or_one_in_the_wrong_slot_is_refused() {
        let manifest = sample(8, 2);
        assert_eq!(
            Manifest::decode_newest(&file(&[&manifest]), LaneId(4)),
            Err(ManifestError::Inconsistent)
        );
        let mut swapped = vec![0; MANIFEST_BYTES];
        swapped[MANIFEST_SLOT_BYTES..].copy_from_slice(manifest.encode().as_slice());
        assert_eq!(
            Manifest::decode_newest(&swapped, LaneId(3)),
            Err(ManifestError::Inconsistent)
        );
    }

    #[test]
    fn segments_out_of_order_are_refused() {
        let mut manifest = sample(8, 2);
        manifest.segments.reverse();
        assert_eq!(
            Manifest::decode(manifest.encode().as_slice()),
            Err(ManifestError::Inconsistent)
        );
    }
}
