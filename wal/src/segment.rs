//! Segments: fixed-size files of a lane. The header block, and *the* file-name function.
//!
//! ```text
//! block 0    header
//! block 1    the same header again
//! block 2..  groups, back to back; zeros after the last one
//! ```
//!
//! Header block:
//!
//! ```text
//! offset  bytes  field (little endian)
//!      0      4  magic "PWS1"
//!      4      1  version, 1
//!      5      1  key: 0 in the clear, 1 wrapped
//!      6      2  zero
//!      8      4  lane
//!     12      4  epoch in which the file was prepared
//!     16      8  segment number
//!     24     16  incarnation: random, drawn at every preparation
//!     40      4  length of the file in blocks
//!     44      4  zero
//!     48      8  when it was prepared, Unix milliseconds (for people only)
//!     56     16  name of the key-encryption key, zero when in the clear
//!     72     12  nonce of the wrapped key
//!     84     32  data key, wrapped or in the clear
//!    116     16  tag of the wrapped key
//!    132   3960  zero
//!   4092      4  crc32c of bytes 0..4092
//! ```
//!
//! The file is zero-filled from block 2 on and made durable *before* the headers are written: a
//! good header therefore also says "every sector that nobody wrote is zero". It never grows and no
//! block of it is written twice while it is live. Destroying the two header blocks destroys the
//! key, and with it the segment.

use crate::buffer::BLOCK_BYTES;
use crate::bytes::{array_at, put, u32_at, u64_at};
use crate::cipher::{KEY_BYTES, KeyEncryptionKey, NONCE_BYTES, SecretKey, StoredKey, TAG_BYTES};
use crate::ids::{Epoch, LaneId, NUMBER_MAX, SegmentNumber};

/// Blocks of headers at the front of a segment.
pub const SEGMENT_HEADER_BLOCKS: u32 = 2;
/// Blocks of a segment unless configured otherwise: 64 MiB.
pub const SEGMENT_BLOCKS_DEFAULT: u32 = (64 << 20) / BLOCK_BYTES as u32;
/// The longest segment: 1 GiB.
pub const SEGMENT_BLOCKS_MAX: u32 = (1 << 30) / BLOCK_BYTES as u32;

const MAGIC: u32 = u32::from_le_bytes(*b"PWS1");
const VERSION: u8 = 1;
const CRC_OFFSET: usize = BLOCK_BYTES - 4;
const NAME_SUFFIX: &str = ".segment";

/// A segment's random name, drawn at every preparation of its file.
pub type Incarnation = [u8; 16];

/// The name of a segment's file within the log directory.
#[must_use]
pub fn segment_file_name(lane: LaneId, segment: SegmentNumber) -> String {
    format!("lane-{:08x}-{:016x}{NAME_SUFFIX}", lane.0, segment.0)
}

/// The lane and number in a file name; `None` for any other file.
#[must_use]
pub fn parse_segment_file_name(name: &str) -> Option<(LaneId, SegmentNumber)> {
    let (lane, segment) = name
        .strip_prefix("lane-")?
        .strip_suffix(NAME_SUFFIX)?
        .split_once('-')?;
    let lane = LaneId(u32::from_str_radix(lane, 16).ok()?);
    let segment = SegmentNumber(u64::from_str_radix(segment, 16).ok()?);
    (segment_file_name(lane, segment) == name).then_some((lane, segment))
}

/// A segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The lane it belongs to.
    pub lane: LaneId,
    /// The epoch in which the file was prepared.
    pub epoch: Epoch,
    /// The segment's number.
    pub segment: SegmentNumber,
    /// Random name of this use of the file.
    pub incarnation: Incarnation,
    /// Length of the file in blocks, headers included.
    pub blocks: u32,
    /// When it was prepared, Unix milliseconds; decides nothing.
    pub prepared_at_ms: u64,
    /// The data key.
    pub key: StoredKey,
}

/// Why a block is not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentHeaderError {
    /// No magic.
    NoMagic,
    /// The checksum is wrong.
    Checksum,
    /// A version this program does not know.
    Version(u8),
    /// Fields that contradict one another.
    Inconsistent,
}

/// Randomness that [`SegmentHeader::new`] gets from its caller, since it cannot be computed.
#[derive(Clone, Debug)]
pub struct SegmentSeed {
    /// Random.
    pub incarnation: Incarnation,
    /// The fresh data key.
    pub data_key: SecretKey,
    /// Random; used when the key is wrapped.
    pub wrap_nonce: [u8; NONCE_BYTES],
}

impl SegmentHeader {
    /// A header for a freshly prepared file, its data key wrapped under `key` when there is one.
    #[must_use]
    pub fn new(
        lane: LaneId,
        epoch: Epoch,
        segment: SegmentNumber,
        blocks: u32,
        prepared_at_ms: u64,
        seed: &SegmentSeed,
        key: Option<&KeyEncryptionKey>,
    ) -> Self {
        let identity = identity(lane, epoch, segment, &seed.incarnation);
        let key = match key {
            Some(key) => key.wrap(&seed.data_key, seed.wrap_nonce, &identity),
            None => StoredKey::Clear(*seed.data_key.bytes()),
        };
        Self {
            lane,
            epoch,
            segment,
            incarnation: seed.incarnation,
            blocks,
            prepared_at_ms,
            key,
        }
    }

    /// Gets the data key.
    ///
    /// # Errors
    /// As [`StoredKey::unwrap_key`].
    pub fn data_key(&self, key: Option<&KeyEncryptionKey>) -> Result<SecretKey, crate::cipher::KeyError> {
        self.key.unwrap_key(
            key,
            &identity(self.lane, self.epoch, self.segment, &self.incarnation),
        )
    }

    /// The header as one block.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        put(&mut block, 0, &MAGIC.to_le_bytes());
        block[4] = VERSION;
        put(&mut block, 8, &self.lane.0.to_le_bytes());
        put(&mut block, 12, &self.epoch.0.to_le_bytes());
        put(&mut block, 16, &self.segment.0.to_le_bytes());
        put(&mut block, 24, &self.incarnation);
        put(&mut block, 40, &self.blocks.to_le_bytes());
        put(&mut block, 48, &self.prepared_at_ms.to_le_bytes());
        match &self.key {
            StoredKey::Clear(key) => put(&mut block, 84, key),
            StoredKey::Wrapped {
                key_id,
                nonce,
                ciphertext,
                tag,
            } => {
                block[5] = 1;
                put(&mut block, 56, key_id);
                put(&mut block, 72, nonce);
                put(&mut block, 84, ciphertext);
                put(&mut block, 116, tag);
            }
        }
        let crc = crc32c::crc32c(&block[..CRC_OFFSET]);
        put(&mut block, CRC_OFFSET, &crc.to_le_bytes());
        block
    }

    /// Reads one of the two header blocks.
    ///
    /// # Errors
    /// [`SegmentHeaderError`]; never a panic, whatever the bytes.
    pub fn decode(block: &[u8]) -> Result<Self, SegmentHeaderError> {
        let block = block.get(..BLOCK_BYTES).ok_or(SegmentHeaderError::NoMagic)?;
        if u32_at(block, 0) != MAGIC {
            return Err(SegmentHeaderError::NoMagic);
        }
        if crc32c::crc32c(&block[..CRC_OFFSET]) != u32_at(block, CRC_OFFSET) {
            return Err(SegmentHeaderError::Checksum);
        }
        if block[4] != VERSION {
            return Err(SegmentHeaderError::Version(block[4]));
        }
        let key = match block[5] {
            0 => StoredKey::Clear(array_at::<KEY_BYTES>(block, 84)),
            1 => StoredKey::Wrapped {
                key_id: array_at(block, 56),
                nonce: array_at(block, 72),
                ciphertext: array_at(block, 84),
                tag: array_at::<TAG_BYTES>(block, 116),
            },
            _ => return Err(SegmentHeaderError::Inconsistent),
        };
        let header = Self {
            lane: LaneId(u32_at(block, 8)),
            epoch: Epoch(u32_at(block, 12)),
            segment: SegmentNumber(u64_at(block, 16)),
            incarnation: array_at(block, 24),
            blocks: u32_at(block, 40),
            prepared_at_ms: u64_at(block, 48),
            key,
        };
        let consistent = (1..=NUMBER_MAX).contains(&header.segment.0)
            && header.epoch != Epoch::NONE
            && (SEGMENT_HEADER_BLOCKS + 1..=SEGMENT_BLOCKS_MAX).contains(&header.blocks);
        if consistent {
            Ok(header)
        } else {
            Err(SegmentHeaderError::Inconsistent)
        }
    }

    /// Reads the header from the first two blocks of a file: the first copy that is good.
    ///
    /// # Errors
    /// The first copy's error when neither is good.
    pub fn decode_either(blocks: &[u8]) -> Result<Self, SegmentHeaderError> {
        let first = Self::decode(blocks);
        match (first, blocks.get(BLOCK_BYTES..)) {
            (Err(error), Some(second)) => Self::decode(second).map_err(|_| error),
            (first, _) => first,
        }
    }
}

/// Identity to which a wrapped key is bound, so that it cannot be moved to another segment.
fn identity(lane: LaneId, epoch: Epoch, segment: SegmentNumber, incarnation: &Incarnation) -> [u8; 32] {
    let mut identity = [0; 32];
    put(&mut identity, 0, &lane.0.to_le_bytes());
    put(&mut identity, 4, &epoch.0.to_le_bytes());
    put(&mut identity, 8, &segment.0.to_le_bytes());
    put(&mut identity, 16, incarnation);
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> SegmentSeed {
        SegmentSeed {
            incarnation: [5; 16],
            data_key: SecretKey::new([6; 32]),
            wrap_nonce: [7; 12],
        }
    }

    fn header(key: Option<&KeyEncryptionKey>) -> SegmentHeader {
        SegmentHeader::new(
            LaneId(1),
            Epoch(2),
            SegmentNumber(3),
            16384,
            1_700_000_000_000,
            &seed(),
            key,
        )
    }

    #[test]
    fn names_and_numbers_are_each_others_inverse() {
        for (lane, segment) in [(0, 1), (1, 0xdead_beef), (u32::MAX, u64::MAX)] {
            let name = segment_file_name(LaneId(lane), SegmentNumber(segment));
            assert_eq!(
                parse_segment_file_name(&name),
                Some((LaneId(lane), SegmentNumber(segment)))
            );
        }
        for name in [
            "",
            "lane-1-1.segment",
            "lane-00000001-000000000000000g.segment",
            "lane-00000001.manifest",
        ] {
            assert_eq!(parse_segment_file_name(name), None, "{name}");
        }
        assert_eq!(
            parse_segment_file_name("lane-0000000A-0000000000000001.segment"),
            None,
            "one spelling only"
        );
    }

    #[test]
    fn headers_come_back_with_and_without_a_wrapping_key() {
        let key = KeyEncryptionKey {
            id: [1; 16],
            key: SecretKey::new([2; 32]),
        };
        for key in [None, Some(&key)] {
            let header = header(key);
            let decoded = SegmentHeader::decode(&header.encode()).unwrap();
            assert_eq!(decoded, header);
            assert_eq!(decoded.data_key(key).unwrap(), seed().data_key);
        }
    }

    #[test]
    fn one_bad_copy_does_not_matter_and_every_flipped_bit_is_noticed() {
        let header = header(None);
        let block = header.encode();
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
            if bit % 509 == 0 {
                assert_eq!(SegmentHeader::decode_either(&[bad, block].concat()), Ok(header));
                assert_eq!(SegmentHeader::decode_either(&[block, bad].concat()), Ok(header));
                assert!(SegmentHeader::decode_either(&[bad, bad].concat()).is_err());
            }
        }
    }
}
