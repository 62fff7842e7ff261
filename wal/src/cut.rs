//! The cut: the first record of every epoch. It says where recovery ended the epoch before and what
//! of it was given up.

use core::fmt;

use crate::bytes::{put, u32_at, u64_at};
use crate::ids::{Epoch, GroupNumber, Lsn, NUMBER_MAX};
use crate::record::RecordError;

/// A damaged stretch of the log that an operator gave up. Recovery alone never gives up anything
/// that was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// First group of the stretch.
    pub first_group: GroupNumber,
    /// Last group of the stretch.
    pub last_group: GroupNumber,
    /// First record of the stretch.
    pub first_lsn: Lsn,
    /// Last record of the stretch; the one before the first when it held none, as far as that is
    /// known.
    pub last_lsn: Lsn,
    /// Whether a good group header shows the end of the stretch. At the very end of a log none may
    /// be left: then records may be lost that the range does not name.
    pub exact: bool,
    /// The epoch in which the log goes on after the stretch, with the next group and the next
    /// record; "none" for the epoch that the cut begins.
    pub next_epoch: Epoch,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first_group,
            last_group,
            first_lsn,
            last_lsn,
            exact,
            ..
        } = self;
        write!(formatter, "groups {first_group}..={last_group}, ")?;
        if last_lsn >= first_lsn {
            write!(formatter, "records {first_lsn}..={last_lsn}")?;
        } else {
            formatter.write_str("no record that is known of")?;
        }
        formatter.write_str(if *exact { "" } else { " at least" })
    }
}

/// Where recovery ended the epoch before: the payload of the first record of an epoch.
///
/// ```text
/// offset  bytes  field (little endian)
///      0      8  last group kept (or given up)
///      8      8  last LSN kept (or given up)
/// 16+40×i      8  first group of a stretch that was given up
/// 24+40×i      8  last group of it
/// 32+40×i      8  first LSN of it
/// 40+40×i      8  last LSN of it
/// 48+40×i      4  epoch in which the log goes on after it; 0: the epoch of this cut
/// 52+40×i      4  1: the end of the stretch is known exactly; else 0
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The last group that recovery kept or gave up; the epoch's own first group is the next.
    pub last_group: GroupNumber,
    /// The last record that recovery kept or gave up.
    pub last_lsn: Lsn,
    /// Stretches that an operator gave up at this start, in log order; at most [`LOST_MAX`].
    pub lost: Vec<Lost>,
}

const FIXED_BYTES: usize = 16;
const LOST_BYTES: usize = 40;

/// The most stretches that one cut can name: so many fit a group of one block. Recovery gives up
/// everything after the last of them.
pub const LOST_MAX: usize = 64;

impl Cut {
    /// The payload of the cut record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES + self.lost.len() * LOST_BYTES];
        put(&mut bytes, 0, &self.last_group.0.to_le_bytes());
        put(&mut bytes, 8, &self.last_lsn.0.to_le_bytes());
        for (lost, entry) in self
            .lost
            .iter()
            .zip(bytes[FIXED_BYTES..].chunks_exact_mut(LOST_BYTES))
        {
            put(entry, 0, &lost.first_group.0.to_le_bytes());
            put(entry, 8, &lost.last_group.0.to_le_bytes());
            put(entry, 16, &lost.first_lsn.0.to_le_bytes());
            put(entry, 24, &lost.last_lsn.0.to_le_bytes());
            put(entry, 32, &lost.next_epoch.0.to_le_bytes());
            put(entry, 36, &u32::from(lost.exact).to_le_bytes());
        }
        bytes
    }

    /// Reads the payload of a cut record.
    ///
    /// # Errors
    /// [`RecordError::BadPayload`] when the length or a range is wrong.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let (fixed, list) = payload
            .split_at_checked(FIXED_BYTES)
            .ok_or(RecordError::BadPayload)?;
        if !list.len().is_multiple_of(LOST_BYTES) || list.len() > LOST_MAX * LOST_BYTES {
            return Err(RecordError::BadPayload);
        }
        Ok(Self {
            last_group: GroupNumber(u64_at(fixed, 0)),
            last_lsn: Lsn(u64_at(fixed, 8)),
            lost: list
                .chunks_exact(LOST_BYTES)
                .map(decode_lost)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn decode_lost(entry: &[u8]) -> Result<Lost, RecordError> {
    let lost = Lost {
        first_group: GroupNumber(u64_at(entry, 0)),
        last_group: GroupNumber(u64_at(entry, 8)),
        first_lsn: Lsn(u64_at(entry, 16)),
        last_lsn: Lsn(u64_at(entry, 24)),
        next_epoch: Epoch(u32_at(entry, 32)),
        exact: u32_at(entry, 36) == 1,
    };
    let range = |first: u64, last: u64| first > 0 && last <= NUMBER_MAX && first <= last + 1;
    if range(lost.first_group.0, lost.last_group.0)
        && range(lost.first_lsn.0, lost.last_lsn.0)
        && u32_at(entry, 36) <= 1
    {
        Ok(lost)
    } else {
        Err(RecordError::BadPayload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(stretches: u64) -> Cut {
        let lost = (1..=stretches).map(|number| Lost {
            first_group: GroupNumber(number * 10),
            last_group: GroupNumber(number * 10 + 3),
            first_lsn: Lsn(number * 100),
            last_lsn: Lsn(number * 100 - 1 + number % 2),
            exact: number % 3 == 0,
            next_epoch: Epoch(number as u32 % 4),
        });
        Cut {
            last_group: GroupNumber(5000),
            last_lsn: Lsn(6000),
            lost: lost.collect(),
        }
    }

    #[test]
    fn a_cut_comes_back_and_a_crooked_one_is_refused() {
        for stretches in [0, 1, 2, LOST_MAX as u64] {
            let cut = sample(stretches);
            let bytes = cut.encode();
            assert_eq!(Cut::decode(&bytes), Ok(cut));
            assert_eq!(Cut::decode(&bytes[1..]), Err(RecordError::BadPayload));
        }
        assert_eq!(
            Cut::decode(&sample(LOST_MAX as u64 + 1).encode()),
            Err(RecordError::BadPayload)
        );
        let bytes = sample(1).encode();
        for (offset, value) in [(16, 99), (32, 102), (32 + 7, 0xff), (52, 2)] {
            let mut crooked = bytes.clone();
            crooked[offset] = value;
            assert_eq!(
                Cut::decode(&crooked),
                Err(RecordError::BadPayload),
                "offset {offset}"
            );
        }
    }

    #[test]
    fn the_largest_cut_fits_a_group_of_one_block() {
        let bytes = sample(LOST_MAX as u64).encode().len() + crate::record::RECORD_HEADER_BYTES;
        assert!(bytes <= crate::group::group_payload_bytes(1));
    }
}
