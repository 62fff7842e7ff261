//! Groups: the unit of one durable write. Layout, sealing, opening; no I/O.
//!
//! A group is a whole number of 4 KiB blocks at a block boundary of its segment:
//!
//! ```text
//! offset  bytes  field (little endian)
//!      0      4  magic "PWG1"
//!      4      1  version, 1
//!      5      1  kind: 1 data, 2 mark, 3 checkpoint
//!      6      2  flags: 1 open (first of its segment), 2 seal (last of its segment), 4 epoch (first of its epoch)
//!      8      4  lane
//!     12      4  epoch
//!     16      8  group number
//!     24      8  segment number
//!     32      4  block index within the segment   -- finds a misdirected write
//!     36      4  length in blocks
//!     40      4  payload bytes (records without padding)
//!     44      4  record count
//!     48      8  first LSN (that of the next record when the group has none)
//!     56      8  durable group: the highest group known durable when this one was sealed   -- the witness
//!     64     16  tag of the group before   -- the chain: finds lost and spliced groups
//!     80     44  zero
//!    124      4  crc32c of bytes 0..124
//!    128      p  records, then zeros to the end of the body; encrypted
//!  128+b     16  authentication tag over header and body
//! 144+b      4  crc32c of everything before it: a check that needs no key
//! ```
//!
//! with `148 + b` = length in blocks × 4096. The padding is inside the body, so no 512-byte sector
//! of a live group is all zero: a sector that still is was never written. That, with the witness,
//! is what recovery proves things from.

use crate::buffer::{BLOCK_BYTES, has_zero_sector, is_zero};
use crate::bytes::{array_at, put, u16_at, u32_at, u64_at};
use crate::cipher::{GroupTag, SegmentCipher, TAG_BYTES};
use crate::ids::{Epoch, GroupNumber, LaneId, Lsn, NUMBER_MAX, SegmentNumber};
use crate::record::{RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX, RecordError, Records};

/// Bytes of the group header.
pub const GROUP_HEADER_BYTES: usize = 128;
/// Bytes after the body: tag and checksum.
pub const GROUP_TRAILER_BYTES: usize = TAG_BYTES + 4;
/// The longest group: one record of the largest size, alone.
pub const GROUP_BLOCKS_MAX: u32 = group_blocks(RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX);

const MAGIC: u32 = u32::from_le_bytes(*b"PWG1");
const VERSION: u8 = 1;
const HEADER_CRC_OFFSET: usize = GROUP_HEADER_BYTES - 4;
const RESERVED: core::ops::Range<usize> = 80..HEADER_CRC_OFFSET;

const _: () = assert!(
    GROUP_HEADER_BYTES <= crate::buffer::SECTOR_BYTES,
    "a header is in one sector: all or nothing"
);

/// Blocks that a group with this many payload bytes takes.
#[must_use]
pub const fn group_blocks(payload_bytes: usize) -> u32 {
    let bytes = GROUP_HEADER_BYTES + payload_bytes + GROUP_TRAILER_BYTES;
    bytes.div_ceil(BLOCK_BYTES) as u32
}

/// Payload bytes that fit into a group of this many blocks.
#[must_use]
pub const fn group_payload_bytes(blocks: u32) -> usize {
    (blocks as usize * BLOCK_BYTES).saturating_sub(GROUP_HEADER_BYTES + GROUP_TRAILER_BYTES)
}

/// Purpose of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Records of appenders.
    Data,
    /// No records: it only carries the witness, so that the last groups before a pause are
    /// witnessed too.
    Mark,
    /// Records, a checkpoint among them.
    Checkpoint,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFlags {
    /// First group of its segment.
    pub open: bool,
    /// Last group of its segment: the walk goes on in the next segment.
    pub seal: bool,
    /// First group of its epoch; its first record is a cut.
    pub epoch: bool,
}

/// A group header, decoded and internally consistent (but not yet compared with where it was
/// found).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The group's purpose.
    pub kind: GroupKind,
    /// Where it stands.
    pub flags: GroupFlags,
    /// The lane it belongs to.
    pub lane: LaneId,
    /// The epoch it was written in.
    pub epoch: Epoch,
    /// The group's number.
    pub group: GroupNumber,
    /// The segment it was written to.
    pub segment: SegmentNumber,
    /// The block of that segment.
    pub block: u32,
    /// The group's length in blocks, 1..=[`GROUP_BLOCKS_MAX`].
    pub blocks: u32,
    /// Bytes of records.
    pub payload_bytes: u32,
    /// Number of records.
    pub record_count: u32,
    /// LSN of the first record, or of the next one to come.
    pub first_lsn: Lsn,
    /// The witness: every group up to this one was durable when this one was sealed.
    pub durable_group: GroupNumber,
    /// The chain: the tag of the group before.
    pub previous_tag: GroupTag,
}

/// Why bytes are not a group header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// No magic: not a group, or torn.
    NoMagic,
    /// The header's checksum is wrong.
    Checksum,
    /// A version this program does not know.
    Version(u8),
    /// A field that contradicts another; with a good checksum this is a bug, not a fault of the
    /// disk.
    Inconsistent,
}

impl GroupHeader {
    /// Writes the header with its checksum.
    ///
    /// # Panics
    /// When `out` is shorter than [`GROUP_HEADER_BYTES`].
    pub fn encode(&self, out: &mut [u8]) {
        let out = &mut out[..GROUP_HEADER_BYTES];
        out.fill(0);
        put(out, 0, &MAGIC.to_le_bytes());
        out[4] = VERSION;
        out[5] = match self.kind {
            GroupKind::Data => 1,
            GroupKind::Mark => 2,
            GroupKind::Checkpoint => 3,
        };
        let flags = &self.flags;
        out[6] = u8::from(flags.open) | u8::from(flags.seal) << 1 | u8::from(flags.epoch) << 2;
        put(out, 8, &self.lane.0.to_le_bytes());
        put(out, 12, &self.epoch.0.to_le_bytes());
        put(out, 16, &self.group.0.to_le_bytes());
        put(out, 24, &self.segment.0.to_le_bytes());
        put(out, 32, &self.block.to_le_bytes());
        put(out, 36, &self.blocks.to_le_bytes());
        put(out, 40, &self.payload_bytes.to_le_bytes());
        put(out, 44, &self.record_count.to_le_bytes());
        put(out, 48, &self.first_lsn.0.to_le_bytes());
        put(out, 56, &self.durable_group.0.to_le_bytes());
        put(out, 64, &self.previous_tag);
        let crc = crc32c::crc32c(&out[..HEADER_CRC_OFFSET]);
        put(out, HEADER_CRC_OFFSET, &crc.to_le_bytes());
    }

    /// Reads a header from the start of a block.
    ///
    /// # Errors
    /// [`HeaderError`]; never a panic, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES).ok_or(HeaderError::NoMagic)?;
        if u32_at(bytes, 0) != MAGIC {
            return Err(HeaderError::NoMagic);
        }
        if crc32c::crc32c(&bytes[..HEADER_CRC_OFFSET]) != u32_at(bytes, HEADER_CRC_OFFSET) {
            return Err(HeaderError::Checksum);
        }
        if bytes[4] != VERSION {
            return Err(HeaderError::Version(bytes[4]));
        }
        let kind = match bytes[5] {
            1 => GroupKind::Data,
            2 => GroupKind::Mark,
            3 => GroupKind::Checkpoint,
            _ => return Err(HeaderError::Inconsistent),
        };
        let flags = u16_at(bytes, 6);
        let header = Self {
            kind,
            flags: GroupFlags {
                open: flags & 1 != 0,
                seal: flags & 2 != 0,
                epoch: flags & 4 != 0,
            },
            lane: LaneId(u32_at(bytes, 8)),
            epoch: Epoch(u32_at(bytes, 12)),
            group: GroupNumber(u64_at(bytes, 16)),
            segment: SegmentNumber(u64_at(bytes, 24)),
            block: u32_at(bytes, 32),
            blocks: u32_at(bytes, 36),
            payload_bytes: u32_at(bytes, 40),
            record_count: u32_at(bytes, 44),
            first_lsn: Lsn(u64_at(bytes, 48)),
            durable_group: GroupNumber(u64_at(bytes, 56)),
            previous_tag: array_at(bytes, 64),
        };
        let reserved_clear = flags & !7 == 0 && bytes[RESERVED].iter().all(|byte| *byte == 0);
        if reserved_clear && header.is_consistent() {
            Ok(header)
        } else {
            Err(HeaderError::Inconsistent)
        }
    }

    fn is_consistent(&self) -> bool {
        let numbers = [self.group.0, self.segment.0, self.first_lsn.0];
        let smallest_records = u64::from(self.record_count) * RECORD_HEADER_BYTES as u64;
        numbers.iter().all(|number| (1..=NUMBER_MAX).contains(number))
            && self.epoch != Epoch::NONE
            && (1..=GROUP_BLOCKS_MAX).contains(&self.blocks)
            && self.payload_bytes as usize <= group_payload_bytes(self.blocks)
            && smallest_records <= u64::from(self.payload_bytes)
            && (self.record_count == 0) == (self.payload_bytes == 0)
            && self.durable_group < self.group
            && (!self.flags.epoch || self.flags.open)
    }

    /// Bytes that the group takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks as usize * BLOCK_BYTES
    }

    /// LSN of the last record; the one before the first when there is none.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 - 1 + u64::from(self.record_count))
    }
}

/// Finishes a group in place: the payload already stands at [`GROUP_HEADER_BYTES`]; header,
/// padding, encryption, tag and checksum are done here. Returns the tag, for the next group.
///
/// # Panics
/// When `bytes` is not exactly the header's length.
pub fn seal_group(header: &GroupHeader, cipher: &SegmentCipher, bytes: &mut [u8]) -> GroupTag {
    assert_eq!(
        bytes.len(),
        header.bytes(),
        "a group is written as long as its header says"
    );
    debug_assert!(
        header.is_consistent(),
        "the writer obeys what the reader checks: {header:?}"
    );
    let body_end = bytes.len() - GROUP_TRAILER_BYTES;
    bytes[GROUP_HEADER_BYTES + header.payload_bytes as usize..].fill(0);
    header.encode(bytes);
    let (head, rest) = bytes.split_at_mut(GROUP_HEADER_BYTES);
    let tag = cipher.seal(
        header.epoch,
        header.group,
        head,
        &mut rest[..body_end - GROUP_HEADER_BYTES],
    );
    put(bytes, body_end, &tag);
    let crc_offset = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..crc_offset]);
    put(bytes, crc_offset, &crc.to_le_bytes());
    debug_assert!(!has_zero_sector(bytes), "no sector of a live group is all zero");
    tag
}

/// Why a group with a good header is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupError {
    /// The bytes are shorter than the header says.
    Short,
    /// The keyless checksum is wrong.
    Checksum,
    /// The checksum is right, the tag is not: another key, or a forger without it.
    NotAuthentic,
    /// The records do not parse.
    Record(RecordError),
}

/// A whole group, decrypted.
#[derive(Clone, Debug)]
pub struct OpenedGroup<'a> {
    /// The group's tag, for the chain.
    pub tag: GroupTag,
    /// The group's records.
    pub records: Records<'a>,
}

/// Checks only the checksum, for which no key is needed, and returns the tag, for the chain.
///
/// # Errors
/// [`GroupError::Short`] or [`GroupError::Checksum`].
pub fn verify_checksum(header: &GroupHeader, bytes: &[u8]) -> Result<GroupTag, GroupError> {
    let bytes = bytes.get(..header.bytes()).ok_or(GroupError::Short)?;
    let crc_offset = bytes.len() - 4;
    if crc32c::crc32c(&bytes[..crc_offset]) == u32_at(bytes, crc_offset) {
        Ok(array_at(bytes, bytes.len() - GROUP_TRAILER_BYTES))
    } else {
        Err(GroupError::Checksum)
    }
}

/// Checks and decrypts a group in place. `bytes` starts with the header that `header` was decoded
/// from.
///
/// # Errors
/// [`GroupError`]. The bytes are decrypted only when they authenticate.
pub fn open_group<'a>(
    header: &GroupHeader,
    cipher: &SegmentCipher,
    bytes: &'a mut [u8],
) -> Result<OpenedGroup<'a>, GroupError> {
    verify_checksum(header, bytes)?;
    let bytes = &mut bytes[..header.bytes()];
    let body_end = bytes.len() - GROUP_TRAILER_BYTES;
    let tag: GroupTag = array_at(bytes, body_end);
    let (head, rest) = bytes.split_at_mut(GROUP_HEADER_BYTES);
    let body = &mut rest[..body_end - GROUP_HEADER_BYTES];
    cipher
        .open(header.epoch, header.group, head, body, &tag)
        .map_err(|_| GroupError::NotAuthentic)?;
    let (payload, padding) = body.split_at(header.payload_bytes as usize);
    if !is_zero(padding) {
        return Err(GroupError::Record(RecordError::Padding));
    }
    let records =
        Records::parse(payload, header.first_lsn, header.record_count).map_err(GroupError::Record)?;
    Ok(OpenedGroup { tag, records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::SecretKey;
    use crate::ids::TargetId;
    use crate::record::{Record, RecordKind};

    fn sample(payload: &[u8]) -> (GroupHeader, SegmentCipher, Vec<u8>, GroupTag) {
        let record = Record {
            kind: RecordKind::Strong,
            target: TargetId(5),
            payload,
        };
        let blocks = group_blocks(record.encoded_bytes());
        let mut bytes = vec![0xee; blocks as usize * BLOCK_BYTES];
        record.encode(&mut bytes[GROUP_HEADER_BYTES..]);
        let header = GroupHeader {
            kind: GroupKind::Data,
            flags: GroupFlags {
                open: true,
                seal: false,
                epoch: false,
            },
            lane: LaneId(2),
            epoch: Epoch(3),
            group: GroupNumber(12),
            segment: SegmentNumber(4),
            block: 2,
            blocks,
            payload_bytes: record.encoded_bytes() as u32,
            record_count: 1,
            first_lsn: Lsn(77),
            durable_group: GroupNumber(10),
            previous_tag: [9; 16],
        };
        let cipher = SegmentCipher::new(&SecretKey::new([1; 32]));
        let tag = seal_group(&header, &cipher, &mut bytes);
        (header, cipher, bytes, tag)
    }

    #[test]
    fn a_sealed_group_opens_to_its_records() {
        for length in [0, 1, 100, 4000, 4096 * 3] {
            let payload = vec![0; length];
            let (header, cipher, mut bytes, tag) = sample(&payload);
            assert_eq!(GroupHeader::decode(&bytes), Ok(header));
            assert!(
                !has_zero_sector(&bytes),
                "zeros in the payload do not make zero sectors"
            );
            let opened = open_group(&header, &cipher, &mut bytes).unwrap();
            assert_eq!(opened.tag, tag);
            let records: Vec<_> = opened.records.collect();
            assert_eq!(records.len(), 1);
            assert_eq!(records[0].0, Lsn(77));
            assert_eq!(records[0].1.payload, payload);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (header, cipher, bytes, _) = sample(b"a record that matters");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let outcome = GroupHeader::decode(&changed).map(|found| {
                assert_eq!(
                    found, header,
                    "bit {bit}: a header that decodes is the one that was written"
                );
                open_group(&found, &cipher, &mut changed).map(|_| ())
            });
            assert!(!matches!(outcome, Ok(Ok(()))), "bit {bit}");
        }
    }

    #[test]
    fn sizes_round_up_to_blocks_and_back() {
        assert_eq!(group_blocks(0), 1);
        let fits = BLOCK_BYTES - GROUP_HEADER_BYTES - GROUP_TRAILER_BYTES;
        assert_eq!(group_blocks(fits), 1);
        assert_eq!(group_blocks(fits + 1), 2);
        assert_eq!(group_payload_bytes(1), fits);
        for blocks in 1..20 {
            assert_eq!(group_blocks(group_payload_bytes(blocks)), blocks);
        }
    }

    #[test]
    fn contradictions_in_a_header_are_refused_even_with_a_good_checksum() {
        let (header, ..) = sample(b"x");
        let refuse = |change: &dyn Fn(&mut GroupHeader)| {
            let mut header = header;
            change(&mut header);
            let mut bytes = [0; GROUP_HEADER_BYTES];
            header.encode(&mut bytes);
            assert_eq!(
                GroupHeader::decode(&bytes),
                Err(HeaderError::Inconsistent),
                "{header:?}"
            );
        };
        refuse(&|header| header.group = GroupNumber::NONE);
        refuse(&|header| header.epoch = Epoch::NONE);
        refuse(&|header| header.blocks = 0);
        refuse(&|header| header.blocks = GROUP_BLOCKS_MAX + 1);
        refuse(&|header| header.payload_bytes = 5000);
        refuse(&|header| header.record_count = 0);
        refuse(&|header| header.record_count = 1000);
        refuse(&|header| header.durable_group = header.group);
        refuse(&|header| header.first_lsn = Lsn(u64::MAX));
        refuse(&|header| {
            header.flags = GroupFlags {
                open: false,
                seal: false,
                epoch: true,
            }
        });
        assert_eq!(GroupHeader::decode(&[0; 64]), Err(HeaderError::NoMagic));
    }
}
