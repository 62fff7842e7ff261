//! The decoding end of HPACK (RFC 7541 section 3): a whole header block to a [`HeaderList`].

use super::{HeaderList, HpackError};

/// Decodes the header blocks of one connection, in the order received.
#[derive(Debug)]
pub struct Decoder {}

/// What there is to know of a decoded block beyond its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Every field was an indexed one and there was no size update: the same bytes mean the same fields again as long as
    /// [`Decoder::table_version`] is unchanged.
    pub only_indexed: bool,
    /// The list is larger than allowed. Fields up to the limit are in the list, the rest were dropped; the table is in
    /// step, so the connection may live on (answer the one stream with 431).
    pub too_large: bool,
    /// The size of the whole list, dropped fields included, as RFC 9113 section 6.5.2 counts it.
    pub list_bytes: u64,
}

impl Decoder {
    /// A decoder whose table holds `max_table` bytes: [`super::DEFAULT_TABLE_SIZE`] in HTTP/2, whatever our SETTINGS say;
    /// those take effect by [`Decoder::set_max_table_size_limit`] when the peer has acknowledged them.
    pub fn new(max_table: usize) -> Self {
        let _ = max_table;
        Self {}
    }

    /// Sets the largest table, in bytes, that the peer may use from its next block on. To be called when the peer has
    /// acknowledged our `SETTINGS_HEADER_TABLE_SIZE`. If it is below the table's size, the next block must open with a
    /// size update (RFC 9113 section 4.3.1).
    pub fn set_max_table_size_limit(&mut self, limit: usize) {
        let _ = limit;
    }

    /// Decodes a whole header block into `out`, which is cleared first. Fields beyond `max_list` bytes (counted as in RFC
    /// 9113 section 6.5.2) are decoded, for the table's sake, and dropped.
    ///
    /// # Errors
    /// Any [`HpackError`]; the decoder must not be used again.
    pub fn decode(
        &mut self,
        block: &[u8],
        max_list: usize,
        out: &mut HeaderList,
    ) -> Result<BlockInfo, HpackError> {
        let _ = (block, max_list);
        out.clear();
        Err(HpackError::Truncated)
    }

    /// How many entries have ever been inserted into the dynamic table.
    pub fn insert_count(&self) -> u64 {
        0
    }

    /// Changes whenever any index of the dynamic table changes its meaning: by insertion and by eviction (a size update
    /// evicts without inserting). What is remembered about a block holds as long as this is unchanged.
    pub fn table_version(&self) -> u64 {
        0
    }
}
