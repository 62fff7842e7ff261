//! The dynamic table (RFC 7541 section 2.3.2), the same for both ends.
//!
//! ```text
//!   bytes:    [ evicted … | oldest name+value | … | newest name+value ]     slides back when it is full
//!   entries:  oldest … newest: where each lies
//! ```
//!
//! All names and values lie in one buffer of at most twice the table's size, so inserting costs one
//! copy and, now and then, one move of the live entries; nothing is allocated once the buffer has
//! grown.

use super::ENTRY_OVERHEAD;
use std::collections::VecDeque;

/// Entries, newest first by index, evicted oldest first.
#[derive(Debug)]
pub(super) struct DynamicTable {
    bytes: Vec<u8>,
    /// Position of the first of `bytes`, counted over the table's life.
    base: usize,
    /// Oldest at the front.
    entries: VecDeque<Entry>,
    /// Bytes as counted by RFC 7541 section 4.1; at most `max_size`.
    size: usize,
    max_size: usize,
    insert_count: u64,
    version: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Position of the name, counted over the table's life; the value follows it.
    start: usize,
    name_len: usize,
    len: usize,
    tag: Tag,
}

/// A number that the table's owner attaches to an entry (the encoder: hashes).
pub(super) type Tag = u64;

impl DynamicTable {
    /// Makes an empty table of at most `max_size` bytes; allocates nothing yet.
    pub(super) fn new(max_size: usize) -> Self {
        Self {
            bytes: Vec::new(),
            base: 0,
            entries: VecDeque::new(),
            size: 0,
            max_size,
            insert_count: 0,
            version: 0,
        }
    }

    /// The entry at `index`, 0 for the newest: name and value without a gap, and the end of the
    /// name.
    #[inline]
    pub(super) fn entry(&self, index: usize) -> Option<(&[u8], usize)> {
        let at = self.entries.len().checked_sub(1)?.checked_sub(index)?;
        let entry = self.entries[at];
        let start = entry.start - self.base;
        Some((&self.bytes[start..start + entry.len], entry.name_len))
    }

    /// Indices of entries whose tag satisfies `wanted`, newest first.
    pub(super) fn search(&self, wanted: impl Fn(Tag) -> bool) -> impl Iterator<Item = usize> {
        let newest_first = self.entries.iter().rev().enumerate();
        newest_first
            .filter(move |(_, entry)| wanted(entry.tag))
            .map(|(index, _)| index)
    }

    /// Inserts an entry, evicting from the old end until it fits. An entry larger than the whole
    /// table empties it (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], tag: Tag) {
        let len = name.len() + value.len();
        let size = len + ENTRY_OVERHEAD;
        self.insert_count += 1;
        self.version += 1;
        self.evict_above(self.max_size.saturating_sub(size));
        if size > self.max_size {
            return;
        }
        if self.bytes.len() + len > 2 * self.max_size {
            self.slide();
        }
        let start = self.base + self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push_back(Entry {
            start,
            name_len: name.len(),
            len,
            tag,
        });
        self.size += size;
        debug_assert!(self.size <= self.max_size);
    }

    /// Changes the maximum (RFC 7541 section 4.3), evicting entries that no longer fit.
    pub(super) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        if self.size > max_size {
            self.version += 1;
            self.evict_above(max_size);
        }
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Number of entries ever inserted, including those too large for the table.
    pub(super) fn insert_count(&self) -> u64 {
        self.insert_count
    }

    /// A number that changes with every insertion and eviction.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    fn evict_above(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.len + ENTRY_OVERHEAD;
        }
        if self.entries.is_empty() {
            self.base += self.bytes.len();
            self.bytes.clear();
        }
    }

    /// Moves the live entries to the front of the buffer. They take at most half of it, so every
    /// byte inserted is moved at most about once.
    fn slide(&mut self) {
        let Some(oldest) = self.entries.front() else {
            return;
        };
        let dead = oldest.start - self.base;
        self.bytes.drain(..dead);
        self.base += dead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table agrees with the obvious one: a list of owned pairs.
    #[test]
    fn agrees_with_a_plain_list() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut table = DynamicTable::new(300);
        let mut model: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
        let mut max_size = 300;
        for round in 0..50_000_u64 {
            if random(50) == 0 {
                max_size = random(600) as usize;
                table.resize(max_size);
            } else {
                let name = vec![round as u8; random(40) as usize];
                let value = vec![(round >> 8) as u8; if random(20) == 0 { 400 } else { random(60) as usize }];
                table.insert(&name, &value, round);
                model.push_front((name, value));
            }
            let size = |model: &VecDeque<(Vec<u8>, Vec<u8>)>| -> usize {
                model
                    .iter()
                    .map(|(name, value)| name.len() + value.len() + ENTRY_OVERHEAD)
                    .sum()
            };
            while size(&model) > max_size {
                model.pop_back();
            }
            assert_eq!(table.size(), size(&model));
            assert!(table.bytes.capacity() <= 4 * 600, "{}", table.bytes.capacity());
            for (index, (name, value)) in model.iter().enumerate() {
                let (joined, name_len) = table.entry(index).expect("as many entries as the model");
                assert_eq!(
                    (&joined[..name_len], &joined[name_len..]),
                    (name.as_slice(), value.as_slice())
                );
            }
            assert_eq!(table.entry(model.len()), None);
        }
    }

    #[test]
    fn an_entry_larger_than_the_table_empties_it() {
        let mut table = DynamicTable::new(64);
        table.insert(b"a", b"b", 0);
        let before = table.version();
        table.insert(b"a", &[b'b'; 32], 0);
        assert_eq!((table.size(), table.entry(0)), (0, None));
        assert_ne!(table.version(), before);
    }

    #[test]
    fn eviction_without_insertion_changes_the_version() {
        let mut table = DynamicTable::new(64);
        table.insert(b"a", b"b", 0);
        let before = (table.insert_count(), table.version());
        table.resize(64);
        table.resize(34);
        assert_eq!(
            (table.insert_count(), table.version()),
            before,
            "nothing was evicted"
        );
        table.resize(33);
        assert_eq!(table.insert_count(), before.0);
        assert_ne!(table.version(), before.1);
    }
}
