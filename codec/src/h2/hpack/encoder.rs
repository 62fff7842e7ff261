//! The encoding end of HPACK (RFC 7541 section 6): fields, one by one, to the bytes of a header block.

/// Encodes the header blocks of one connection, in the order sent.
#[derive(Debug)]
pub struct Encoder {}

/// Whether a field enters the peer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// Insert it, so that a repeat costs one or two bytes (RFC 7541 section 6.2.1).
    Incremental,
    /// Leave the table alone: for values that do not repeat (RFC 7541 section 6.2.2).
    Without,
    /// Leave the table alone, here and at every hop that forwards it: for secrets (RFC 7541 section 6.2.3).
    Never,
}

/// The place of a whole field in the static or dynamic table, as it goes on the wire (RFC 7541 section 2.3.3). A dynamic
/// one holds as long as [`Encoder::table_version`] is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index(u32);

impl Index {
    /// Appends the indexed form of the field: one byte below index 127, two up to 254 (RFC 7541 section 6.1).
    pub fn encode(self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Whether the field is of the static table, so that the index holds for ever.
    pub fn is_static(self) -> bool {
        self.0 <= 61
    }

    /// The index on the wire, from 1.
    pub fn wire(self) -> u32 {
        self.0
    }
}

impl Encoder {
    /// An encoder that uses at most `table_size` bytes of the peer's table. It starts with the smaller of that and
    /// [`super::DEFAULT_TABLE_SIZE`], as the peer's settings are not known yet.
    pub fn new(table_size: usize) -> Self {
        let _ = table_size;
        Self {}
    }

    /// Obeys the peer's `SETTINGS_HEADER_TABLE_SIZE`: to be called, between blocks, when it is acknowledged. The size
    /// updates that this needs (RFC 7541 section 4.2) open the next block.
    pub fn set_peer_max_table_size(&mut self, size: usize) {
        let _ = size;
    }

    /// Whether the next block must open with a size update. A block made of remembered bytes starts with
    /// [`Encoder::begin_block`] for its sake.
    pub fn update_pending(&self) -> bool {
        false
    }

    /// Appends the size updates that are due, if any. [`Encoder::encode`] does it by itself.
    pub fn begin_block(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Appends one field in its shortest form: an index if the table has it (unless `Never`), otherwise a literal,
    /// Huffman-coded where that is shorter. A field larger than the table is not inserted.
    pub fn encode(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing) {
        let _ = (out, name, value, indexing);
    }

    /// Where the whole field lies in the static or dynamic table now.
    pub fn lookup(&self, name: &[u8], value: &[u8]) -> Option<Index> {
        let _ = (name, value);
        None
    }

    /// How many entries have ever been inserted into the dynamic table.
    pub fn insert_count(&self) -> u64 {
        0
    }

    /// Changes whenever any index of the dynamic table changes its meaning, by insertion or eviction.
    pub fn table_version(&self) -> u64 {
        0
    }

    /// The size of the dynamic table that is agreed on with the peer, in bytes; with 0 nothing is ever inserted.
    pub fn table_size(&self) -> usize {
        0
    }
}
