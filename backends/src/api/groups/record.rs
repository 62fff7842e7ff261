//! The bytes of a group's record. All numbers are big endian.
//!
//! ```text
//!   1 · generation (8) · reset by (8; 0: none) · shape (8) · moves (8) · last commit (8; 0: none)
//!     · topics (1), each: length (1), text
//!     · partitions (2), each: kind of the place (1), place (8), epoch (4), holder (8; 0: none),
//!       next holder (8; 0: none), by (8)
//!     · members (2), each: number (8), until (8)
//! ```

use super::Start;
use super::machine::{Group, Member, Partition};
use crate::error::StoreError;
use crate::ids::UnixMillis;

const VERSION: u8 = 1;

impl Group {
    /// Appends the record.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for number in [self.generation, self.reset_by, self.shape, self.moves] {
            put(out, number);
        }
        put(out, self.last_commit.map_or(0, |time| time.0));
        // At most 16 patterns of at most 255 bytes.
        out.push(self.topics.len() as u8);
        for topic in &self.topics {
            out.push(topic.len() as u8);
            out.extend_from_slice(topic.as_bytes());
        }
        out.extend_from_slice(&(self.partitions.len() as u16).to_be_bytes());
        for partition in &self.partitions {
            let (kind, place) = match partition.place {
                Start::Number(number) => (0, number),
                Start::Time(time) => (1, time.0),
                Start::Earliest | Start::Latest => (2, 0),
            };
            out.push(kind);
            put(out, place);
            out.extend_from_slice(&partition.epoch.to_be_bytes());
            put(out, partition.holder.unwrap_or(0));
            let (next, by) = partition.next.unwrap_or((0, UnixMillis(0)));
            put(out, next);
            put(out, by.0);
        }
        out.extend_from_slice(&(self.members.len() as u16).to_be_bytes());
        for member in &self.members {
            put(out, member.number);
            put(out, member.until.0);
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Group, StoreError> {
        read(bytes).ok_or_else(|| StoreError::Corrupt {
            detail: format!(
                "the record of a group has {} bytes that make no sense",
                bytes.len()
            ),
        })
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn read(bytes: &[u8]) -> Option<Group> {
    let mut rest = bytes;
    if take::<1>(&mut rest)? != [VERSION] {
        return None;
    }
    let mut number = || take(&mut rest).map(u64::from_be_bytes);
    let (generation, reset_by) = (number()?, number()?);
    let (shape, moves) = (number()?, number()?);
    let last_commit = Some(number()?).filter(|time| *time > 0).map(UnixMillis);
    let [topics] = take(&mut rest)?;
    let topic = |rest: &mut &[u8]| {
        let [length] = take(rest)?;
        let (text, after) = rest.split_at_checked(usize::from(length))?;
        *rest = after;
        String::from_utf8(text.to_vec()).ok()
    };
    let topics: Option<Vec<String>> = (0..topics).map(|_| topic(&mut rest)).collect();
    let partitions = u16::from_be_bytes(take(&mut rest)?);
    let partitions: Option<Vec<Partition>> = (0..partitions).map(|_| partition(&mut rest)).collect();
    let members = u16::from_be_bytes(take(&mut rest)?);
    let member = |rest: &mut &[u8]| {
        Some(Member {
            number: u64::from_be_bytes(take(rest)?),
            until: UnixMillis(u64::from_be_bytes(take(rest)?)),
        })
    };
    let members: Option<Vec<Member>> = (0..members).map(|_| member(&mut rest)).collect();
    rest.is_empty().then_some(Group {
        topics: topics?,
        generation,
        reset_by,
        shape,
        moves,
        last_commit,
        partitions: partitions?,
        members: members?,
    })
}

fn partition(rest: &mut &[u8]) -> Option<Partition> {
    let [kind] = take(rest)?;
    let mut number = || take(rest).map(u64::from_be_bytes);
    let place = number()?;
    let place = match kind {
        0 => Start::Number(place),
        1 => Start::Time(UnixMillis(place)),
        2 => Start::Earliest,
        _ => return None,
    };
    let epoch = u32::from_be_bytes(take(rest)?);
    let mut number = || take(rest).map(u64::from_be_bytes);
    let holder = Some(number()?).filter(|holder| *holder > 0);
    let (next, by) = (number()?, UnixMillis(number()?));
    Some(Partition {
        place,
        epoch,
        holder,
        next: (next > 0).then_some((next, by)),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}
