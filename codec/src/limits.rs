//! Maxima of the wire protocols, all in one place. At a maximum the answer is an error of the one
//! stream or connection, never an unbounded queue.

// ---- HTTP/2 (RFC 9113) --------------------------------------------------------------------------

/// Streams that a peer may have open at once on one connection (SETTINGS_MAX_CONCURRENT_STREAMS).
pub const HTTP2_STREAMS_MAX: u32 = 1_024;

/// Bytes that a peer may send on one stream before we re-open the window
/// (SETTINGS_INITIAL_WINDOW_SIZE).
pub const HTTP2_STREAM_WINDOW: u32 = 1 << 20;

/// Bytes that a peer may send on all streams of a connection together before we re-open the window.
pub const HTTP2_CONNECTION_WINDOW: u32 = 8 << 20;

/// The largest frame payload that we announce, in bytes (SETTINGS_MAX_FRAME_SIZE). It is the least
/// that is legal: all known clients send frames of that size anyway, larger ones would only delay
/// the connection's other streams, and h2spec's case 4.2/3 assumes 16 KiB.
pub const HTTP2_FRAME_MAX: u32 = 16 << 10;

/// Largest payload of a DATA frame that is delivered in one piece, in bytes, so that most messages
/// are parsed without a copy. A receive buffer must hold this and a frame header.
pub const HTTP2_WHOLE_FRAME_MAX: u32 = 16 << 10;

/// The dynamic table that the peer may use, in bytes (SETTINGS_HEADER_TABLE_SIZE).
pub const HTTP2_HEADER_TABLE: u32 = 4_096;

/// The largest header list, in bytes as counted by RFC 9113 section 6.5.2
/// (SETTINGS_MAX_HEADER_LIST_SIZE). A larger request is answered with an error.
pub const HTTP2_HEADER_LIST_MAX: u32 = 16 << 10;

/// The largest header block on the wire, in bytes, padding excluded: HEADERS with its
/// CONTINUATIONs. Eight times the list, so that a client that sends somewhat too much gets an
/// answer. Above it the connection ends, because a block must be buffered before it can be decoded
/// (CONTINUATION flood, CVE-2024-27316).
pub const HTTP2_HEADER_BLOCK_MAX: usize = 128 << 10;

/// CONTINUATION frames of one header block. Bounds the work of empty ones.
pub const HTTP2_CONTINUATIONS_MAX: u32 = 16;

/// Settings in one SETTINGS frame; seven are defined today.
pub const HTTP2_SETTINGS_PER_FRAME_MAX: usize = 64;

/// Bytes in the output buffer of a connection at which it stops reading: the requests of a peer
/// that does not read its replies are not served.
pub const HTTP2_OUTPUT_MAX: usize = 1 << 20;

/// Bytes queued on one stream from which on a later drain is reported by a `Writable` event.
pub const HTTP2_STREAM_QUEUE_MARK: usize = 64 << 10;

/// Streams that a peer may reset before any reply was sent (rapid reset, CVE-2023-44487). A
/// completed reply gives one back.
pub const HTTP2_RESETS_MAX: u32 = 500;

/// Stream errors and refused streams that a peer may cause, that is resets that it makes us send
/// (MadeYouReset, CVE-2025-8671). Ten completed replies give one back.
pub const HTTP2_STREAM_ERRORS_MAX: u32 = 200;

/// Allowance for frames that cost work and move nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE,
/// empty and tiny DATA frames, unknown types. Useful work and time give it back.
pub const HTTP2_IDLE_FRAMES_MAX: u32 = 4_000;

const _: () = assert!(
    HTTP2_WHOLE_FRAME_MAX >= 16 << 10,
    "RFC 9113 section 4.2: every peer may send frames of 2^14 bytes"
);
const _: () = assert!(
    HTTP2_FRAME_MAX >= 16 << 10 && HTTP2_FRAME_MAX < 1 << 24,
    "RFC 9113 section 6.5.2"
);
const _: () = assert!(HTTP2_HEADER_BLOCK_MAX >= HTTP2_HEADER_LIST_MAX as usize);
const _: () = assert!(HTTP2_CONNECTION_WINDOW >= HTTP2_STREAM_WINDOW && HTTP2_CONNECTION_WINDOW < 1 << 31);

// ---- messages, gRPC, HTTP/1.1 and Connect ----

/// Most bytes of a namespace's name in a request. Longer names cannot exist, so they are refused
/// before any look-up.
pub const NAMESPACE_BYTES_MAX: u32 = 255;
/// Most bytes of an id (UTF-8); the least is 1.
pub const ID_BYTES_MAX: u32 = 1_024;
/// Most bytes of an item's key; an empty key is legal.
pub const KEY_BYTES_MAX: u32 = 1_024;
/// Most bytes of a range's bound: one more than a key, so that it can express "just after the
/// longest key".
pub const RANGE_BOUND_BYTES_MAX: u32 = KEY_BYTES_MAX + 1;
/// Most items of one Put, of one put within a Mutate, and most keys of one predicate.
pub const ITEMS_MAX: u32 = 1_000;
/// Most mutations of one Mutate.
pub const MUTATIONS_MAX: u32 = 1_000;
/// Most bytes of a topic, a pattern of topics, or an ordering key (UTF-8); empty ones are legal.
pub const TOPIC_BYTES_MAX: u32 = 255;
/// Most attributes of one message.
pub const ATTRIBUTES_MAX: u32 = 64;
/// Most bytes of the names and values of one message's attributes together.
pub const ATTRIBUTES_BYTES_MAX: u32 = 8 << 10;
/// Most bytes of an attribute's name; the least is 1.
pub const ATTRIBUTE_NAME_BYTES_MAX: u32 = 64;
/// Most messages of one PublishBatch, and of one answer of Subscribe.
pub const BATCH_MESSAGES_MAX: u32 = 1_000;
/// Most bytes of the messages of one PublishBatch together, and of one answer of Subscribe.
pub const BATCH_BYTES_MAX: u32 = 4 << 20;
/// Messages of one answer of Subscribe if the client sets no number.
pub const BATCH_MESSAGES_DEFAULT: u32 = 100;
/// Bytes of one answer of Subscribe if the client sets no number.
pub const BATCH_BYTES_DEFAULT: u32 = 256 << 10;
/// Most patterns of topics of one subscription.
pub const PATTERNS_MAX: u32 = 16;
/// Most bytes of the name of a group of subscribers.
pub const GROUP_BYTES_MAX: u32 = 64;
/// Most bytes of a position in a namespace's messages.
pub const POSITION_BYTES_MAX: u32 = 2_048;
/// Most uncommitted messages that a subscriber of a group may ask for.
pub const UNCOMMITTED_MESSAGES_MAX: u32 = 10_000;
/// Longest time in seconds that a subscriber of a group may take until it commits; the least is 1.
pub const COMMIT_TIMEOUT_SECONDS_MAX: i64 = 12 * 3_600;
/// Most messages of one Receive of a queue.
pub const RECEIVE_MESSAGES_MAX: u32 = 100;
/// Longest time in seconds that a Receive may wait for its first message.
pub const RECEIVE_WAIT_SECONDS_MAX: u64 = 50;
/// Longest lease of a queue's message, in seconds; the least is 1.
pub const LEASE_SECONDS_MAX: u64 = 12 * 3_600;
/// Lease in seconds where the client names none.
pub const LEASE_SECONDS_DEFAULT: u64 = 30;
/// Most attempts of a queue's message.
pub const ATTEMPTS_MAX: u32 = 100;
/// Attempts of a queue's message where its sender names no number.
pub const ATTEMPTS_DEFAULT: u32 = 10;
/// Most receipts of one Ack, Nack or Extend.
pub const RECEIPTS_MAX: u32 = 1_000;
/// Most bytes of a receipt.
pub const RECEIPT_BYTES_MAX: u32 = 160;
/// Most messages that one Redrive or Delete may name.
pub const QUEUE_IDS_MAX: u32 = 1_000;
/// Most bytes of the name of a queue's message.
pub const QUEUE_MESSAGE_ID_BYTES_MAX: u32 = 80;
/// Most messages of one page of Peek.
pub const PEEK_MESSAGES_MAX: u32 = 1_000;
/// Messages of one page of Peek where the client names no number.
pub const PEEK_MESSAGES_DEFAULT: u32 = 100;
/// Most bytes of an idempotency token; the least is 1.
pub const TOKEN_BYTES_MAX: u32 = 64;
/// Most bytes of a page token from a client. Ours hold an id, a key and a few numbers.
pub const PAGE_TOKEN_BYTES_MAX: u32 = 4_096;
/// Page size in bytes if the client sets none.
pub const PAGE_BYTES_DEFAULT: u32 = 1 << 20;
/// Most bytes of a page; a larger wish is lowered to this, which the promise of `page_bytes`
/// allows.
pub const PAGE_BYTES_MAX: u32 = 4 << 20;
/// Longest time to live, in seconds: the 10,000 years that a `google.protobuf.Duration` can
/// express.
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

const _: () = assert!(PAGE_BYTES_DEFAULT <= PAGE_BYTES_MAX);
const _: () = assert!(PAGE_BYTES_MAX as usize <= MESSAGE_BYTES_MAX);
const _: () = assert!(PAGE_TOKEN_BYTES_MAX > ID_BYTES_MAX + KEY_BYTES_MAX);
