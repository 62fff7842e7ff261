//! Header blocks remembered by their bytes: a repeat is recognised without decoding a single field.
//!
//! A block that inserts nothing means the same as long as no index of the dynamic table changes its
//! meaning. The decoder's `table_version` shows that: insertions and evictions change it. Such a
//! block does not change the table itself, so it need not be decoded for the table either.
//! Comparing whole blocks (not single indices) keeps the rule simple enough to be evidently right.

use crate::h2::hpack;

/// The kind of field section that a block was; the rules for the same bytes depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Section {
    #[default]
    Request,
    Response,
    Trailers,
}

/// The longest block that is remembered, in bytes. Indexed fields take one byte, rarely two; a path
/// that the peer never indexes takes about 30.
pub(crate) const BLOCK_MAX: usize = 160;

/// Number of remembered blocks: enough for a connection that mixes a few methods.
const SLOTS: usize = 4;

/// Facts that a remembered block gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memo {
    pub(crate) value: u32,
    /// As in [`crate::h2::headers::Facts`].
    pub(crate) content_length: i64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    bytes: [u8; BLOCK_MAX],
    len: u8,
    section: Section,
    table_version: u64,
    memo: Memo,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            bytes: [0; BLOCK_MAX],
            len: 0,
            section: Section::Request,
            table_version: 0,
            memo: Memo::default(),
        }
    }
}

/// The remembered blocks of one connection.
#[derive(Debug, Default)]
pub(crate) struct Memos {
    /// Allocated with the first block, so that clients that never repeat a block cost nothing.
    slots: Vec<Slot>,
    next: usize,
    candidate: Option<Box<Slot>>,
    /// Whether the candidate is the block of the last event.
    fresh: bool,
}

impl Memos {
    /// The memo of an earlier block with these bytes, if it still means the same.
    #[inline]
    pub(crate) fn find(&self, section: Section, block: &[u8], table_version: u64) -> Option<Memo> {
        self.slots
            .iter()
            .find(|slot| {
                slot.len as usize == block.len()
                    && slot.table_version == table_version
                    && slot.section == section
                    && slot.bytes.get(..block.len()) == Some(block)
            })
            .map(|slot| slot.memo)
    }

    /// Offers a decoded block for the driver to remember. Returns whether it may.
    pub(crate) fn offer(
        &mut self,
        section: Section,
        block: &[u8],
        info: hpack::BlockInfo,
        table_version: u64,
        content_length: i64,
    ) -> bool {
        self.fresh = info.repeatable && !info.too_large && (1..=BLOCK_MAX).contains(&block.len());
        if self.fresh {
            let slot = self.candidate.get_or_insert_default();
            slot.bytes[..block.len()].copy_from_slice(block);
            slot.len = block.len() as u8;
            slot.section = section;
            slot.table_version = table_version;
            slot.memo.content_length = content_length;
        }
        self.fresh
    }

    /// Withdraws the offer: another block has been decoded since.
    #[inline]
    pub(crate) fn withdraw(&mut self) {
        self.fresh = false;
    }

    /// Remembers the offered block with the driver's value, in the place of an invalid one or of
    /// the oldest.
    pub(crate) fn remember(&mut self, value: u32) {
        let Some(mut slot) = self.candidate.as_deref().copied().filter(|_| self.fresh) else {
            return;
        };
        self.fresh = false;
        slot.memo.value = value;
        let stale = self
            .slots
            .iter()
            .position(|old| old.table_version != slot.table_version);
        if let Some(at) = stale {
            self.slots[at] = slot;
        } else if self.slots.len() < SLOTS {
            self.slots.push(slot);
        } else {
            self.slots[self.next % SLOTS] = slot;
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.fresh = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEXED: hpack::BlockInfo = hpack::BlockInfo {
        repeatable: true,
        too_large: false,
        list_bytes: 0,
    };

    fn remember(memos: &mut Memos, block: &[u8], version: u64, value: u32) {
        assert!(memos.offer(Section::Request, block, INDEXED, version, -1));
        memos.remember(value);
    }

    #[test]
    fn a_block_is_found_only_while_the_table_is_the_same() {
        let mut memos = Memos::default();
        remember(&mut memos, b"\x82\x86", 7, 42);
        let found = memos.find(Section::Request, b"\x82\x86", 7);
        assert_eq!(found.map(|memo| memo.value), Some(42));
        assert_eq!(memos.find(Section::Request, b"\x82\x86", 8), None);
        assert_eq!(memos.find(Section::Trailers, b"\x82\x86", 7), None);
        assert_eq!(memos.find(Section::Request, b"\x82", 7), None);
    }

    #[test]
    fn stale_blocks_make_room_first() {
        let mut memos = Memos::default();
        for value in 0..4 {
            remember(&mut memos, &[0x82 + value as u8], 1, value);
        }
        remember(&mut memos, &[0x90], 2, 9);
        assert_eq!(memos.slots.len(), SLOTS);
        assert!(memos.find(Section::Request, &[0x90], 2).is_some());
    }

    #[test]
    fn only_the_last_block_can_be_remembered() {
        let mut memos = Memos::default();
        assert!(memos.offer(Section::Request, b"\x82", INDEXED, 1, -1));
        memos.withdraw();
        memos.remember(5);
        assert_eq!(memos.find(Section::Request, b"\x82", 1), None);
        let literal = hpack::BlockInfo {
            repeatable: false,
            ..INDEXED
        };
        assert!(!memos.offer(Section::Request, b"\x82", literal, 1, -1));
        assert!(!memos.offer(Section::Request, &[0x82; BLOCK_MAX + 1], INDEXED, 1, -1));
    }
}
