//! The decoding end of HPACK (RFC 7541 section 3): a whole header block to a [`HeaderList`].
//!
//! Names and values are decoded straight into the list, and copied from there into the dynamic
//! table, so there is no other buffer. The cost of a block is bounded by its length, by the limit
//! of the list, and by [`OVERSIZE_FACTOR`] times that limit for references to large entries.

use super::dynamic_table::DynamicTable;
use super::{ENTRY_OVERHEAD, HeaderList, HpackError, huffman, static_table};

/// Multiple of the list's limit at which decoding gives up ([`HpackError::ListFarTooLarge`]).
///
/// Below it, a list that is too large costs its sender one request. Without it, a block of 16 KiB
/// that refers 16,000 times to an entry of 4 KiB would stand for 64 MiB.
pub const OVERSIZE_FACTOR: u64 = 64;

/// A decoder of one connection's header blocks, in the order received.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    limit: usize,
    /// Whether the next block must open with a size update, as the limit was lowered below the
    /// table's size.
    update_required: bool,
}

/// Facts of a decoded block beyond its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Whether the block left the table as it was: no insertion, no size update. The same bytes
    /// then mean the same fields again, and need not be decoded for the table, as long as
    /// [`Decoder::table_version`] is unchanged. Literal fields that are not inserted do no harm:
    /// their bytes are in the block. (nghttp2 never inserts `:path` and `content-length`.)
    pub repeatable: bool,
    /// Whether the list is larger than allowed. Fields that did not fit were dropped; the table is
    /// in step, so the connection may live on (answer the one stream with 431).
    pub too_large: bool,
    /// The size of the whole list, dropped fields included, as RFC 9113 section 6.5.2 counts it.
    pub list_bytes: u64,
}

impl Decoder {
    /// Makes a decoder whose table holds `max_table` bytes: in HTTP/2
    /// [`super::DEFAULT_TABLE_SIZE`], whatever our SETTINGS; those take effect by
    /// [`Decoder::set_max_table_size_limit`] when the peer has acknowledged them.
    pub fn new(max_table: usize) -> Self {
        Self {
            table: DynamicTable::new(max_table),
            limit: max_table,
            update_required: false,
        }
    }

    /// Sets the largest table, in bytes, that the peer may use from its next block on. Call it when
    /// the peer has acknowledged our `SETTINGS_HEADER_TABLE_SIZE`. If it is below the table's size,
    /// the next block must open with a size update (RFC 9113 section 4.3.1).
    pub fn set_max_table_size_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.update_required |= limit < self.table.max_size();
    }

    /// Decodes a whole header block into `out`, which is cleared first. Fields that do not fit into
    /// `max_list` bytes (counted as in RFC 9113 section 6.5.2) are decoded, for the table, and
    /// dropped; smaller ones after them may fit.
    ///
    /// # Errors
    /// Any [`HpackError`]; the decoder must not be used again.
    pub fn decode(
        &mut self,
        block: &[u8],
        max_list: usize,
        out: &mut HeaderList,
    ) -> Result<BlockInfo, HpackError> {
        let decoded = self.decode_fields(block, max_list, out);
        if decoded.is_err() {
            out.clear();
        }
        decoded
    }

    /// Number of entries ever inserted into the dynamic table.
    pub fn insert_count(&self) -> u64 {
        self.table.insert_count()
    }

    /// A number that changes whenever any index of the dynamic table changes its meaning: by
    /// insertion and by eviction (a size update evicts without inserting). Facts remembered about a
    /// block hold as long as it is unchanged.
    pub fn table_version(&self) -> u64 {
        self.table.version()
    }

    /// The size of the dynamic table now, in bytes as RFC 7541 section 4.1 counts them.
    pub fn table_bytes(&self) -> usize {
        self.table.size()
    }

    fn decode_fields(
        &mut self,
        block: &[u8],
        max_list: usize,
        out: &mut HeaderList,
    ) -> Result<BlockInfo, HpackError> {
        out.clear();
        let mut input = Input { rest: block };
        let updated = self.size_updates(&mut input)?;
        let mut repeatable = !updated;
        let mut sink = Sink::new(out, max_list);
        while let Some(&first) = input.rest.first() {
            if first & 0x80 != 0 {
                let index = input.integer(7)?;
                let (joined, name_len) = self.field(index)?;
                sink.push(joined, name_len)?;
                continue;
            }
            match first >> 4 {
                0b0100..=0b0111 => {
                    repeatable = false;
                    self.literal(&mut input, Insert::Yes, &mut sink)?;
                }
                // Not indexed and never indexed: the same to an end that does not forward.
                0b0000 | 0b0001 => self.literal(&mut input, Insert::No, &mut sink)?,
                _ => return Err(HpackError::SizeUpdateMisplaced),
            }
        }
        Ok(BlockInfo {
            repeatable,
            too_large: sink.too_large(),
            list_bytes: sink.list_bytes,
        })
    }

    /// Applies the size updates that open a block (RFC 7541 sections 4.2 and 6.3). Returns whether
    /// there were any.
    fn size_updates(&mut self, input: &mut Input<'_>) -> Result<bool, HpackError> {
        let mut updated = false;
        while let Some(first) = input.rest.first()
            && first & 0xe0 == 0x20
        {
            let size = input.integer(5)?;
            if size > self.limit {
                return Err(HpackError::SizeUpdateAboveLimit);
            }
            self.table.resize(size);
            updated = true;
        }
        if self.update_required && !updated {
            return Err(HpackError::SizeUpdateMissing);
        }
        self.update_required = false;
        Ok(updated)
    }

    /// The field at an index of the wire: name and value without a gap, and the end of the name.
    #[inline]
    fn field(&self, index: usize) -> Result<(&[u8], usize), HpackError> {
        match index.checked_sub(1) {
            None => Err(HpackError::IndexZero),
            Some(at) if at < static_table::LEN => Ok(static_table::FIELDS[at].joined()),
            Some(at) => self
                .table
                .entry(at - static_table::LEN)
                .ok_or(HpackError::IndexPastTable),
        }
    }

    /// A literal field (RFC 7541 section 6.2).
    fn literal(
        &mut self,
        input: &mut Input<'_>,
        insert: Insert,
        sink: &mut Sink<'_>,
    ) -> Result<(), HpackError> {
        let index = input.integer(if insert == Insert::Yes { 6 } else { 4 })?;
        let tail = sink.out.tail();
        let start = tail.len();
        if index == 0 {
            input.string(tail)?;
        } else {
            let (joined, name_len) = self.field(index)?;
            tail.extend_from_slice(&joined[..name_len]);
        }
        let name_end = tail.len();
        input.string(tail)?;
        if insert == Insert::Yes {
            let (name, value) = tail[start..].split_at(name_end - start);
            self.table.insert(name, value, 0);
        }
        sink.close(start, name_end)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Insert {
    Yes,
    No,
}

/// Destination of fields: the list, as far as it may grow.
struct Sink<'a> {
    out: &'a mut HeaderList,
    /// Size of the list as if nothing were dropped.
    list_bytes: u64,
    /// Size of the dropped fields.
    dropped: u64,
    list_bytes_max: u64,
    /// Size at which decoding gives up.
    far_too_large: u64,
}

impl<'a> Sink<'a> {
    fn new(out: &'a mut HeaderList, max_list: usize) -> Self {
        let list_bytes_max = max_list as u64;
        let far_too_large = list_bytes_max.max(1024).saturating_mul(OVERSIZE_FACTOR);
        Self {
            out,
            list_bytes: 0,
            dropped: 0,
            list_bytes_max,
            far_too_large,
        }
    }

    fn too_large(&self) -> bool {
        self.list_bytes > self.list_bytes_max
    }

    /// Adds a field from a table.
    #[inline]
    fn push(&mut self, joined: &[u8], name_len: usize) -> Result<(), HpackError> {
        if self.has_room(joined.len())? {
            self.out.push_joined(joined, name_len);
        }
        Ok(())
    }

    /// Adds the field written to the list's tail from `start`.
    fn close(&mut self, start: usize, name_end: usize) -> Result<(), HpackError> {
        let len = self.out.tail().len() - start;
        if self.has_room(len)? {
            self.out.close(name_end);
        } else {
            self.out.tail().truncate(start);
        }
        Ok(())
    }

    /// Counts a field of `len` bytes. Returns whether the list may hold it.
    #[inline]
    fn has_room(&mut self, len: usize) -> Result<bool, HpackError> {
        let size = (len + ENTRY_OVERHEAD) as u64;
        self.list_bytes += size;
        if self.list_bytes > self.far_too_large {
            return Err(HpackError::ListFarTooLarge);
        }
        let fits = self.list_bytes - self.dropped <= self.list_bytes_max;
        if !fits {
            self.dropped += size;
        }
        Ok(fits)
    }
}

/// The part of a block that is not decoded yet.
struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    /// Reads an integer in the low `prefix` bits of the next byte and, if they are all ones, in the
    /// bytes after it (RFC 7541 section 5.1). At most 2^32 - 1, in at most five bytes after the
    /// first.
    #[inline]
    fn integer(&mut self, prefix: u32) -> Result<usize, HpackError> {
        let (&first, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
        self.rest = rest;
        let mask = (1_u8 << prefix) - 1;
        if first & mask != mask {
            return Ok(usize::from(first & mask));
        }
        self.long_integer(u64::from(mask))
    }

    fn long_integer(&mut self, mut value: u64) -> Result<usize, HpackError> {
        for shift in [0, 7, 14, 21, 28] {
            let (&byte, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
            self.rest = rest;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let value = u32::try_from(value).map_err(|_| HpackError::IntegerOverflow)?;
                return usize::try_from(value).map_err(|_| HpackError::IntegerOverflow);
            }
        }
        Err(HpackError::IntegerOverflow)
    }

    /// Appends a string (RFC 7541 section 5.2), decoded.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        let huffman = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        let len = self.integer(7)?;
        let (string, rest) = self.rest.split_at_checked(len).ok_or(HpackError::Truncated)?;
        self.rest = rest;
        if huffman {
            return huffman::decode(string, out);
        }
        out.extend_from_slice(string);
        Ok(())
    }
}
