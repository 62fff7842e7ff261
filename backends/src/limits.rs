//! The maxima of the stores, in one place. The gateway refuses most excesses before they get here; the stores check
//! again, so that no other caller can write what the gateway could not read back.

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

/// `page_bytes` when the query leaves it 0.
pub const PAGE_BYTES_DEFAULT: u32 = 1024 * 1024;

/// Largest page. A query that asks for more gets this much.
pub const PAGE_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// What an item costs of a page beside its key and value; an id costs the same in a scan. Keeps a page of empty
/// items bounded.
pub const ITEM_OVERHEAD_BYTES: usize = 32;

/// Values above this are stored in chunks of this size where a store does not keep them whole.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// Longest topic, in bytes of UTF-8; the empty one is legal.
pub const TOPIC_BYTES_MAX: usize = 255;

/// Longest ordering key, in bytes of UTF-8; the empty one is legal.
pub const ORDERING_KEY_BYTES_MAX: usize = 255;

/// Longest id of a message, in bytes: a token, and four for a place in a batch.
pub const MESSAGE_ID_BYTES_MAX: usize = 68;

/// Most bytes of a message's attributes as a store gets them, which may be more than what they say.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;

/// How many answers to compare-and-swap a store remembers.
pub const SWAPS_REMEMBERED_MAX: usize = 8192;

/// Largest value that is remembered with a refused compare-and-swap, in bytes.
pub const SWAP_VALUE_REMEMBERED_MAX: usize = 1024;

/// Range deletes that are remembered for one id; the oldest gives way.
pub const RANGE_DELETES_PER_ID_MAX: usize = 64;

/// Deletes of ranges whose rows a SQLite store has yet to remove; the next one removes its own at once.
pub const REMOVALS_MAX: usize = 1024;

/// Dead letters that a store keeps.
pub const DEAD_LETTERS_MAX: usize = 10_000;

/// Dead letters that a store keeps of one namespace, so that one in trouble leaves room for the others.
pub const DEAD_LETTERS_PER_NAMESPACE_MAX: usize = 1_000;

/// Records of one namespace's dead letters, in bytes; the one that passes it is still kept.
pub const DEAD_LETTER_BYTES_PER_NAMESPACE_MAX: u64 = 64 * 1024 * 1024;

/// Longest reason that is kept with a dead letter, in bytes; a longer one is cut.
pub const DEAD_LETTER_REASON_BYTES_MAX: usize = 1024;

const _: () = assert!(PAGE_BYTES_DEFAULT <= PAGE_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES <= VALUE_BYTES_MAX);
const _: () = assert!(DEAD_LETTERS_PER_NAMESPACE_MAX <= DEAD_LETTERS_MAX);
