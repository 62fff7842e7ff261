//! The encoding end of HPACK (RFC 7541 section 6): fields, one by one, to the bytes of a header
//! block.
//!
//! Keeps a mirror of the table in the peer's decoder. The caller's [`Indexing`] and the contents of
//! the tables decide the form of a field on the wire; strings are Huffman-coded where that is
//! shorter. For blocks that repeat, a caller may remember bytes: [`Encoder::lookup`] gives the
//! indexed form of a field, and [`Encoder::table_version`] shows whether it still holds.

use super::dynamic_table::{DynamicTable, Tag};
use super::static_table::{self, Found};
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, huffman};

/// An encoder of one connection's header blocks, in the order sent.
#[derive(Debug)]
pub struct Encoder {
    table: DynamicTable,
    /// Most bytes of the peer's table that we use.
    table_size_max: usize,
    update: Option<SizeUpdate>,
}

/// Whether a field enters the peer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// Insert the field, so that a repeat costs one or two bytes (RFC 7541 section 6.2.1).
    Incremental,
    /// Leave the table alone: for values that do not repeat (RFC 7541 section 6.2.2).
    Without,
    /// Leave the table alone, here and at every hop that forwards it: for secrets (RFC 7541 section
    /// 6.2.3). The value is not looked up either.
    Never,
}

/// Place of a whole field in the static or dynamic table, as encoded on the wire (RFC 7541 section
/// 2.3.3). A dynamic one holds as long as [`Encoder::table_version`] is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index(u32);

/// Size updates with which the next block must open (RFC 7541 section 4.2): the smallest size since
/// the last block, if it is below the last one, then the last.
#[derive(Clone, Copy, Debug)]
struct SizeUpdate {
    smallest: usize,
    last: usize,
}

impl Index {
    /// Appends the indexed form of the field: one byte below index 127, two up to 254 (RFC 7541
    /// section 6.1).
    pub fn encode(self, out: &mut Vec<u8>) {
        push_integer(out, 0x80, 7, self.0 as usize);
    }

    /// Whether the field is in the static table, so that the index holds for ever.
    pub fn is_static(self) -> bool {
        self.0 as usize <= static_table::LEN
    }

    /// The index on the wire, from 1.
    pub fn wire(self) -> u32 {
        self.0
    }
}

impl Encoder {
    /// Makes an encoder that uses at most `table_size` bytes of the peer's table. It starts with
    /// the smaller of that and [`DEFAULT_TABLE_SIZE`], as the peer's settings are not known yet.
    pub fn new(table_size: usize) -> Self {
        let mut encoder = Self {
            table: DynamicTable::new(DEFAULT_TABLE_SIZE),
            table_size_max: table_size,
            update: None,
        };
        encoder.set_peer_max_table_size(DEFAULT_TABLE_SIZE);
        encoder
    }

    /// Applies the peer's `SETTINGS_HEADER_TABLE_SIZE`, in bytes. Call it between blocks, when the
    /// setting is acknowledged. The size updates that this needs (RFC 7541 section 4.2) open the
    /// next block.
    pub fn set_peer_max_table_size(&mut self, size: usize) {
        let last = size.min(self.table_size_max);
        if last == self.table.max_size() {
            return;
        }
        // Nothing is encoded before the update is sent, so evicting now equals evicting then.
        self.table.resize(last);
        let smallest = self.update.map_or(last, |due| due.smallest.min(last));
        self.update = Some(SizeUpdate { smallest, last });
    }

    /// Whether the next block must open with a size update. If so, a block made of remembered bytes
    /// starts with [`Encoder::begin_block`].
    pub fn update_pending(&self) -> bool {
        self.update.is_some()
    }

    /// Appends the size updates that are due, if any. [`Encoder::encode`] does so by itself.
    pub fn begin_block(&mut self, out: &mut Vec<u8>) {
        let Some(SizeUpdate { smallest, last }) = self.update.take() else {
            return;
        };
        if smallest < last {
            push_integer(out, 0x20, 5, smallest);
        }
        push_integer(out, 0x20, 5, last);
    }

    /// Appends one field in its shortest form: an index if a table has it (unless
    /// [`Indexing::Never`]), otherwise a literal, Huffman-coded where that is shorter. A field
    /// larger than the whole table is not inserted.
    pub fn encode(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing) {
        if self.update.is_some() {
            self.begin_block(out);
        }
        let tag = tag_of(name);
        let found = self.find(name, value, tag);
        let name_index = match found {
            Some(Found::Field(index)) if indexing != Indexing::Never => return Index(index).encode(out),
            Some(Found::Field(index) | Found::Name(index)) => index as usize,
            None => 0,
        };
        let fits = name.len() + value.len() + ENTRY_OVERHEAD <= self.table.max_size();
        match indexing {
            Indexing::Incremental if fits => {
                push_integer(out, 0x40, 6, name_index);
                self.table.insert(name, value, tag);
            }
            Indexing::Incremental | Indexing::Without => push_integer(out, 0x00, 4, name_index),
            Indexing::Never => push_integer(out, 0x10, 4, name_index),
        }
        if name_index == 0 {
            push_string(out, name);
        }
        push_string(out, value);
    }

    /// Place of the whole field in the static or dynamic table now.
    pub fn lookup(&self, name: &[u8], value: &[u8]) -> Option<Index> {
        match self.find(name, value, tag_of(name))? {
            Found::Field(index) => Some(Index(index)),
            Found::Name(_) => None,
        }
    }

    /// Number of entries ever inserted into the dynamic table.
    pub fn insert_count(&self) -> u64 {
        self.table.insert_count()
    }

    /// A number that changes whenever any index of the dynamic table changes its meaning, by
    /// insertion or eviction.
    pub fn table_version(&self) -> u64 {
        self.table.version()
    }

    /// Size in bytes of the dynamic table from the next block on; with less than [`ENTRY_OVERHEAD`]
    /// nothing is ever inserted.
    pub fn table_size(&self) -> usize {
        self.table.max_size()
    }

    /// The whole field if a table has it, the static one first; otherwise its name.
    fn find(&self, name: &[u8], value: &[u8], tag: Tag) -> Option<Found> {
        let in_static = static_table::find(name, value);
        if let Some(Found::Field(_)) = in_static {
            return in_static;
        }
        let mut name_only = in_static;
        for index in self.table.search(|candidate| candidate == tag) {
            let Some((joined, name_len)) = self.table.entry(index) else {
                break;
            };
            let (candidate_name, candidate_value) = joined.split_at(name_len);
            if candidate_name != name {
                continue;
            }
            let wire = (static_table::LEN + 1 + index) as u32;
            if candidate_value == value {
                return Some(Found::Field(wire));
            }
            name_only = name_only.or(Some(Found::Name(wire)));
        }
        name_only
    }
}

/// Appends an integer below a pattern's top bits (RFC 7541 section 5.1).
fn push_integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string (RFC 7541 section 5.2) in its shorter form.
fn push_string(out: &mut Vec<u8>, string: &[u8]) {
    let coded_len = huffman::encoded_len(string);
    if coded_len < string.len() {
        push_integer(out, 0x80, 7, coded_len);
        huffman::encode(string, out);
    } else {
        push_integer(out, 0x00, 7, string.len());
        out.extend_from_slice(string);
    }
}

/// A hash of the name, so that a search through the table compares few names byte by byte. A
/// collision costs a comparison and nothing else.
fn tag_of(name: &[u8]) -> Tag {
    let mut hash = name.len() as u64;
    let mut mix = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = name.as_chunks::<8>();
    words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
    rest.iter().for_each(|byte| mix(u64::from(*byte)));
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encoder: &mut Encoder, name: &str, value: &str, indexing: Indexing) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.encode(&mut out, name.as_bytes(), value.as_bytes(), indexing);
        out
    }

    #[test]
    fn integers_of_the_appendix() {
        let integer = |prefix, value| {
            let mut out = Vec::new();
            push_integer(&mut out, 0, prefix, value);
            out
        };
        // RFC 7541 C.1.1 to C.1.3.
        assert_eq!(integer(5, 10), [0b01010]);
        assert_eq!(integer(5, 1337), [0b11111, 0b1001_1010, 0b0000_1010]);
        assert_eq!(integer(8, 42), [42]);
        assert_eq!(integer(7, 126), [126]);
        assert_eq!(integer(7, 127), [127, 0]);
        assert_eq!(integer(7, 254), [127, 127]);
        assert_eq!(integer(7, 255), [127, 128, 1]);
    }

    #[test]
    fn an_index_is_found_and_holds_until_the_table_changes() {
        let mut encoder = Encoder::new(4096);
        assert_eq!(encoder.lookup(b":status", b"200").map(Index::wire), Some(8));
        assert_eq!(encoder.lookup(b"content-type", b"application/grpc"), None);
        encoded(
            &mut encoder,
            "content-type",
            "application/grpc",
            Indexing::Incremental,
        );
        let (index, version) = (
            encoder
                .lookup(b"content-type", b"application/grpc")
                .expect("just inserted"),
            encoder.table_version(),
        );
        assert_eq!(
            (index.wire(), index.is_static(), encoder.insert_count()),
            (62, false, 1)
        );
        let mut form = Vec::new();
        index.encode(&mut form);
        assert_eq!(
            form,
            encoded(
                &mut encoder,
                "content-type",
                "application/grpc",
                Indexing::Incremental
            )
        );
        encoded(&mut encoder, "grpc-status", "5", Indexing::Without);
        encoded(&mut encoder, "grpc-status", "5", Indexing::Never);
        assert_eq!(encoder.table_version(), version);
        encoded(&mut encoder, "grpc-status", "0", Indexing::Incremental);
        assert_ne!(encoder.table_version(), version);
        assert_eq!(
            encoder
                .lookup(b"content-type", b"application/grpc")
                .map(Index::wire),
            Some(63)
        );
    }

    #[test]
    fn indices_above_126_take_two_bytes() {
        let mut encoder = Encoder::new(4096);
        for value in 0..100 {
            encoded(&mut encoder, "x", &value.to_string(), Indexing::Incremental);
        }
        let index = encoder.lookup(b"x", b"0").expect("all of the hundred fit");
        let mut form = Vec::new();
        index.encode(&mut form);
        assert_eq!((index.wire(), form), (161, vec![0xff, 161 - 127]));
    }

    #[test]
    fn a_secret_is_never_an_index() {
        let mut encoder = Encoder::new(4096);
        encoded(&mut encoder, "authorization", "x", Indexing::Incremental);
        let block = encoded(&mut encoder, "authorization", "x", Indexing::Never);
        assert!(
            block[0] >> 4 == 1 && block.ends_with(&[1, b'x']),
            "{block:02x?}: a literal that is never indexed"
        );
    }

    #[test]
    fn a_peer_without_a_table_gets_no_insertions() {
        let mut encoder = Encoder::new(4096);
        encoder.set_peer_max_table_size(0);
        assert!(encoder.update_pending());
        assert_eq!(
            encoded(&mut encoder, "x", "y", Indexing::Incremental),
            [0x20, 0x00, 1, b'x', 1, b'y']
        );
        assert!(!encoder.update_pending());
        assert_eq!(
            encoded(&mut encoder, "x", "y", Indexing::Incremental),
            [0x00, 1, b'x', 1, b'y']
        );
        assert_eq!((encoder.insert_count(), encoder.table_size()), (0, 0));
    }

    #[test]
    fn size_updates_tell_the_smallest_and_the_last() {
        let mut encoder = Encoder::new(4096);
        let block = |encoder: &mut Encoder| {
            let mut out = Vec::new();
            encoder.begin_block(&mut out);
            out
        };
        assert!(block(&mut encoder).is_empty());
        encoder.set_peer_max_table_size(4096);
        encoder.set_peer_max_table_size(1 << 20);
        assert!(
            block(&mut encoder).is_empty(),
            "we use no more than we want, so nothing changed"
        );
        encoder.set_peer_max_table_size(0);
        encoder.set_peer_max_table_size(100);
        encoder.set_peer_max_table_size(30);
        assert_eq!(block(&mut encoder), [0x20, 0x20 | 30]);
        encoder.set_peer_max_table_size(10);
        assert_eq!(block(&mut encoder), [0x20 | 10]);
        // The size goes down and up again: entries were lost in between, so the peer needs the
        // update.
        encoder.set_peer_max_table_size(0);
        encoder.set_peer_max_table_size(10);
        assert_eq!(block(&mut encoder), [0x20, 0x20 | 10]);
        assert!(block(&mut encoder).is_empty());
    }

    #[test]
    fn a_small_table_is_announced_at_once() {
        let mut encoder = Encoder::new(0);
        assert_eq!(
            encoded(&mut encoder, ":method", "GET", Indexing::Incremental),
            [0x20, 0x82]
        );
        assert_eq!(
            Encoder::new(1 << 16).table_size(),
            4096,
            "more only when the peer allows it"
        );
    }

    #[test]
    fn fields_larger_than_the_table_leave_it_alone() {
        let mut encoder = Encoder::new(64);
        encoded(&mut encoder, "a", "b", Indexing::Incremental);
        let version = encoder.table_version();
        encoded(&mut encoder, "a", &"b".repeat(64), Indexing::Incremental);
        assert_eq!(encoder.table_version(), version);
    }
}
