//! HPACK (RFC 7541): the compression of HTTP/2 field sections.
//!
//! ```text
//!   block bytes --Decoder--> HeaderList        (one Decoder per connection: it owns a dynamic table)
//!   name, value --Encoder--> block bytes       (one Encoder per connection: it owns the mirror of the peer's table)
//! ```
//!
//! Promises: no allocation in steady state, work and memory bounded by the length of the block and
//! by the limits given to the two ends, no panic on any input. Whole blocks only: the caller joins
//! HEADERS and CONTINUATION, and applies the rules about names, pseudo-fields and their order (RFC
//! 9113 section 8).
//!
//! Every error here is a connection error of type `COMPRESSION_ERROR`: after it the two tables are
//! out of step and the connection is lost. A list that is only too large is not an error, but
//! [`BlockInfo::too_large`].

mod decoder;
mod dynamic_table;
mod encoder;
mod header_list;
mod huffman;
mod static_table;

pub use decoder::{BlockInfo, Decoder, OVERSIZE_FACTOR};
pub use encoder::{Encoder, Index, Indexing};
pub use header_list::{HeaderList, Iter as HeaderIter};

use std::fmt;

/// Size of the dynamic table, in bytes, with which both ends start (RFC 9113 section 6.5.2,
/// `SETTINGS_HEADER_TABLE_SIZE`).
pub const DEFAULT_TABLE_SIZE: usize = 4096;

/// Bytes that count for an entry of the table, or a field of a list, in addition to its name and
/// value (RFC 7541 section 4.1, RFC 9113 section 6.5.2).
pub const ENTRY_OVERHEAD: usize = 32;

/// The reason why a block cannot be decoded: always a connection error of type `COMPRESSION_ERROR`
/// (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside an integer or a string.
    Truncated,
    /// An integer above 2^32 - 1 or with more octets than necessary (RFC 7541 section 5.1).
    IntegerOverflow,
    /// Index 0 in an indexed field (RFC 7541 section 6.1).
    IndexZero,
    /// An index past the end of the dynamic table (RFC 7541 section 2.3.3).
    IndexPastTable,
    /// The end-of-string symbol within a Huffman string (RFC 7541 section 5.2).
    HuffmanEos,
    /// Huffman padding longer than 7 bits, or not the first bits of the end-of-string code (RFC
    /// 7541 section 5.2).
    HuffmanPadding,
    /// A table size update after the first field of a block (RFC 7541 section 4.2).
    SizeUpdateMisplaced,
    /// A table size update above the limit that we announced (RFC 7541 section 6.3).
    SizeUpdateAboveLimit,
    /// The limit was lowered below the table's size and the block does not open with a size update
    /// (RFC 9113 section 4.3.1).
    SizeUpdateMissing,
    /// The block stands for more than [`OVERSIZE_FACTOR`] times the limit of the list: an attack.
    ListFarTooLarge,
}

impl fmt::Display for HpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "header block ends inside an integer or a string",
            Self::IntegerOverflow => "integer in a header block is too large",
            Self::IndexZero => "header field with index 0",
            Self::IndexPastTable => "header field index is past the end of the table",
            Self::HuffmanEos => "end-of-string symbol inside a Huffman string",
            Self::HuffmanPadding => "bad padding of a Huffman string",
            Self::SizeUpdateMisplaced => "table size update after the first header field",
            Self::SizeUpdateAboveLimit => "table size update above the announced limit",
            Self::SizeUpdateMissing => "no table size update after the limit was lowered",
            Self::ListFarTooLarge => "header block stands for far more than the limit of the list",
        })
    }
}

impl std::error::Error for HpackError {}
