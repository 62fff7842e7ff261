//! Every maximum of the wire in one place: what a peer may send, and what the gateway answers beyond it.
//!
//! Promises that each limit stands here once, with its unit. Leaves the choice of smaller, configured limits (for
//! example a namespace's `max_message_size`) to the caller.

// ---- messages, gRPC, HTTP/1.1 and Connect ----

/// Most bytes of a namespace's name in a request. Longer names cannot exist, so they are refused before any look-up.
pub const NAMESPACE_BYTES_MAX: u32 = 255;
/// Most bytes of an id (UTF-8); the least is 1.
pub const ID_BYTES_MAX: u32 = 1_024;
/// Most bytes of an item's key; an empty key is legal.
pub const KEY_BYTES_MAX: u32 = 1_024;
/// Most bytes of a range's bound: one more than a key, so that "just behind the longest key" can be said.
pub const RANGE_BOUND_BYTES_MAX: u32 = KEY_BYTES_MAX + 1;
/// Most items of one Put, of one put within a Mutate, and most keys of one predicate.
pub const ITEMS_MAX: u32 = 1_000;
/// Most mutations of one Mutate.
pub const MUTATIONS_MAX: u32 = 1_000;
/// Most bytes of an idempotency token; the least is 1.
pub const TOKEN_BYTES_MAX: u32 = 64;
/// Most bytes of a page token as a client sends it back. Ours hold an id, a key and a few numbers.
pub const PAGE_TOKEN_BYTES_MAX: u32 = 4_096;
/// Page size in bytes where the client names none.
pub const PAGE_BYTES_DEFAULT: u32 = 1 << 20;
/// Most bytes of a page; a larger wish is lowered to this, which the promise of `page_bytes` allows.
pub const PAGE_BYTES_MAX: u32 = 4 << 20;
/// Longest time to live, in seconds: the 10,000 years that a `google.protobuf.Duration` may express.
pub const TTL_SECONDS_MAX: i64 = 315_576_000_000;
/// Depth of nested messages and groups, as in every protobuf implementation.
pub const MESSAGE_DEPTH_MAX: u32 = 100;
/// Default for the most bytes of one gRPC or Connect message, before and after decompression.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most bytes of an HTTP/1.1 request line with its header fields.
pub const HTTP1_HEAD_BYTES_MAX: usize = 16 << 10;
/// Most header fields of an HTTP/1.1 request.
pub const HTTP1_HEADERS_MAX: usize = 64;
/// Most bytes of a chunk-size line with its extension in a chunked HTTP/1.1 body.
pub const HTTP1_CHUNK_LINE_BYTES_MAX: usize = 256;
/// Most bytes of the trailer section of a chunked HTTP/1.1 body.
pub const HTTP1_TRAILER_BYTES_MAX: usize = 4 << 10;
/// Depth of nested objects and arrays in a JSON request.
pub const JSON_DEPTH_MAX: usize = 64;

const _: () = assert!(PAGE_BYTES_DEFAULT <= PAGE_BYTES_MAX);
const _: () = assert!(PAGE_BYTES_MAX as usize <= MESSAGE_BYTES_MAX);
const _: () = assert!(PAGE_TOKEN_BYTES_MAX > ID_BYTES_MAX + KEY_BYTES_MAX);
