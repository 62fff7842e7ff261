//! Maxima of the stores, in one place. The gateway refuses most excesses before they get here. The
//! stores check again, so that no other caller can write data that the gateway could not read back.

/// Longest id, in bytes of UTF-8. The shortest has one byte.
pub const ID_BYTES_MAX: usize = 1024;

/// Longest item key, in bytes. The empty key is legal.
pub const KEY_BYTES_MAX: usize = 1024;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most items in one `Put`. At least one is needed.
pub const ITEMS_PER_PUT_MAX: usize = 1000;

/// Most keys in one predicate.
pub const PREDICATE_KEYS_MAX: usize = 1000;

/// Default of `page_bytes`, used if the query leaves it 0.
pub const PAGE_BYTES_DEFAULT: u32 = 1024 * 1024;

/// Largest page; a query for more gets this much.
pub const PAGE_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// Bytes that an item counts in a page in addition to its key and value; an id counts the same in a
/// scan. Keeps a page of empty items bounded.
pub const ITEM_OVERHEAD_BYTES: usize = 32;

/// Size of the chunks in which larger values are stored, where a store does not keep them whole.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// Longest topic, in bytes of UTF-8; the empty one is legal.
pub const TOPIC_BYTES_MAX: usize = 255;

/// Longest ordering key, in bytes of UTF-8; the empty one is legal.
pub const ORDERING_KEY_BYTES_MAX: usize = 255;

/// Longest id of a message, in bytes: a token, and four for a place in a batch.
pub const MESSAGE_ID_BYTES_MAX: usize = 68;

/// Most bytes of a message's attributes in the store's encoding, which may be longer than the
/// attributes themselves.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;

/// Number of answers to compare-and-swap that a store remembers.
pub const SWAPS_REMEMBERED_MAX: usize = 8192;

/// Largest value that is remembered with a refused compare-and-swap, in bytes.
pub const SWAP_VALUE_REMEMBERED_MAX: usize = 1024;

/// Most range deletes that are remembered for one id; a further one replaces the oldest.
pub const RANGE_DELETES_PER_ID_MAX: usize = 64;

/// Most deletes of ranges with rows that a SQLite store has yet to remove; the next one removes its
/// own at once.
pub const REMOVALS_MAX: usize = 1024;

/// Most dead letters that a store keeps.
pub const DEAD_LETTERS_MAX: usize = 10_000;

/// Most dead letters that a store keeps of one namespace, so that a failing one leaves room for the
/// others.
pub const DEAD_LETTERS_PER_NAMESPACE_MAX: usize = 1_000;

/// Most bytes of the records of one namespace's dead letters; the record that passes it is still
/// kept.
pub const DEAD_LETTER_BYTES_PER_NAMESPACE_MAX: u64 = 64 * 1024 * 1024;

/// Longest reason that is kept with a dead letter, in bytes; a longer one is cut.
pub const DEAD_LETTER_REASON_BYTES_MAX: usize = 1024;

const _: () = assert!(PAGE_BYTES_DEFAULT <= PAGE_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES <= VALUE_BYTES_MAX);
const _: () = assert!(DEAD_LETTERS_PER_NAMESPACE_MAX <= DEAD_LETTERS_MAX);
