//! Records: what an appender hands to the log and gets back from it, as they lie in a group's body.
//!
//! ```text
//! offset  bytes  field
//!      0      4  length of the payload
//!      4      1  kind: 1 strong, 2 eventual, 3 checkpoint, 4 cut
//!      5      3  zero
//!      8      4  target: whom the record is for (0 for kinds 3 and 4)
//!     12      n  payload
//! ```
//!
//! Records follow one another without padding; the LSN is not stored, it is the group's first LSN
//! plus the position. The payload is opaque. A record carries no checksum of its own: the group's
//! authentication tag covers it. The decoder still believes nothing: every length is checked, and a
//! body that does not parse to its last byte is refused.

use crate::bytes::{put, u32_at};
use crate::ids::{Lsn, TargetId};

/// Bytes in front of every payload.
pub const RECORD_HEADER_BYTES: usize = 12;

/// The longest payload. The largest message of the gateway (16 MiB) and some room for what it adds.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = 17 << 20;

/// Kind of a record, and so the promise that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Acknowledged once durable here; to be applied to its target afterwards.
    Strong,
    /// Was already applied to its target when it was appended. A replay gives it to the target
    /// again, which may have lost it in a power cut.
    Eventual,
    /// How far every target has got: a [`crate::cursor::Checkpoint`].
    Checkpoint,
    /// The first record of an epoch: where recovery found the end of the epoch before. A
    /// [`crate::cut::Cut`].
    Cut,
}

impl RecordKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Strong => 1,
            Self::Eventual => 2,
            Self::Checkpoint => 3,
            Self::Cut => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Strong),
            2 => Some(Self::Eventual),
            3 => Some(Self::Checkpoint),
            4 => Some(Self::Cut),
            _ => None,
        }
    }
}

/// One record; the payload is borrowed from the appender or from a group's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's kind.
    pub kind: RecordKind,
    /// Whom it is for.
    pub target: TargetId,
    /// Opaque bytes, at most [`RECORD_PAYLOAD_BYTES_MAX`].
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Bytes that the record takes in a body.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }

    /// Writes the record to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`Record::encoded_bytes`] or the payload is over its limit; both
    /// are checked by `append` before.
    pub fn encode(&self, out: &mut [u8]) -> usize {
        let length = u32::try_from(self.payload.len()).expect("the payload limit is below 4 GiB");
        put(out, 0, &length.to_le_bytes());
        put(out, 4, &[self.kind.to_byte(), 0, 0, 0]);
        put(out, 8, &self.target.0.to_le_bytes());
        put(out, RECORD_HEADER_BYTES, self.payload);
        self.encoded_bytes()
    }
}

/// A body that does not parse. Never caused by a crash (the body was authenticated): a bug, or a
/// forger with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A record header or payload runs over the end of the body.
    Truncated,
    /// A kind this version does not know.
    UnknownKind(u8),
    /// Reserved bytes are not zero.
    ReservedBytes,
    /// A payload over [`RECORD_PAYLOAD_BYTES_MAX`].
    TooLong,
    /// More or fewer records than the group header says.
    WrongCount,
    /// The rest of the body is not zero.
    Padding,
    /// A cut or checkpoint payload that does not parse.
    BadPayload,
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => formatter.write_str("a record runs over the end of its group"),
            Self::UnknownKind(kind) => write!(formatter, "record kind {kind} is unknown"),
            Self::ReservedBytes => formatter.write_str("reserved bytes of a record are not zero"),
            Self::TooLong => formatter.write_str("a record is longer than the limit"),
            Self::Padding => formatter.write_str("the padding of a group is not zero"),
            Self::WrongCount => formatter.write_str("the group's record count is wrong"),
            Self::BadPayload => {
                formatter.write_str("the payload of a record of the log's own does not parse")
            }
        }
    }
}

impl core::error::Error for RecordError {}

/// The records of a body, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    next_lsn: Lsn,
}

impl<'a> Records<'a> {
    /// Checks the whole body (`count` records, no byte left over), so that iterating cannot fail.
    ///
    /// # Errors
    /// [`RecordError`], at the first thing that is wrong.
    pub fn parse(body: &'a [u8], first_lsn: Lsn, count: u32) -> Result<Self, RecordError> {
        let mut rest = body;
        for _ in 0..count {
            let (_, after) = decode(rest)?;
            rest = after;
        }
        if !rest.is_empty() {
            return Err(RecordError::WrongCount);
        }
        Ok(Self {
            rest: body,
            next_lsn: first_lsn,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (Lsn, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (record, rest) = decode(self.rest).ok()?;
        self.rest = rest;
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        Some((lsn, record))
    }
}

fn decode(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), RecordError> {
    let (header, rest) = bytes
        .split_at_checked(RECORD_HEADER_BYTES)
        .ok_or(RecordError::Truncated)?;
    let length = u32_at(header, 0) as usize;
    if length > RECORD_PAYLOAD_BYTES_MAX {
        return Err(RecordError::TooLong);
    }
    let kind = RecordKind::from_byte(header[4]).ok_or(RecordError::UnknownKind(header[4]))?;
    if header[5..8] != [0; 3] {
        return Err(RecordError::ReservedBytes);
    }
    let target = TargetId(u32_at(header, 8));
    let (payload, rest) = rest.split_at_checked(length).ok_or(RecordError::Truncated)?;
    Ok((
        Record {
            kind,
            target,
            payload,
        },
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(records: &[Record<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        for record in records {
            let start = body.len();
            body.resize(start + record.encoded_bytes(), 0);
            record.encode(&mut body[start..]);
        }
        body
    }

    #[test]
    fn records_come_back_in_order_with_dense_numbers() {
        let records = [
            Record {
                kind: RecordKind::Strong,
                target: TargetId(7),
                payload: b"one",
            },
            Record {
                kind: RecordKind::Eventual,
                target: TargetId(8),
                payload: b"",
            },
            Record {
                kind: RecordKind::Checkpoint,
                target: TargetId(0),
                payload: &[9; 300],
            },
        ];
        let body = body(&records);
        let parsed: Vec<_> = Records::parse(&body, Lsn(41), 3).unwrap().collect();
        assert_eq!(parsed.len(), 3);
        for (position, (lsn, record)) in parsed.iter().enumerate() {
            assert_eq!(*lsn, Lsn(41 + position as u64));
            assert_eq!(*record, records[position]);
        }
    }

    #[test]
    fn every_prefix_and_every_wrong_count_is_refused() {
        let records = [Record {
            kind: RecordKind::Strong,
            target: TargetId(1),
            payload: b"payload",
        }; 2];
        let body = body(&records);
        for length in 0..body.len() {
            assert!(
                Records::parse(&body[..length], Lsn(1), 2).is_err(),
                "prefix of {length} bytes"
            );
        }
        assert_eq!(
            Records::parse(&body, Lsn(1), 1).unwrap_err(),
            RecordError::WrongCount
        );
        assert_eq!(
            Records::parse(&body, Lsn(1), 3).unwrap_err(),
            RecordError::Truncated
        );
    }

    #[test]
    fn unknown_kinds_reserved_bytes_and_huge_lengths_are_refused() {
        let good = body(&[Record {
            kind: RecordKind::Strong,
            target: TargetId(1),
            payload: b"x",
        }]);
        let with = |offset: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[offset] = value;
            Records::parse(&bytes, Lsn(1), 1).unwrap_err()
        };
        assert_eq!(with(4, 0), RecordError::UnknownKind(0));
        assert_eq!(with(4, 5), RecordError::UnknownKind(5));
        assert_eq!(with(6, 1), RecordError::ReservedBytes);
        assert_eq!(with(3, 0xff), RecordError::TooLong);
    }
}
