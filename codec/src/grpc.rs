//! gRPC on top of HTTP/2: message framing, codes, deadlines, the headers' text forms, compression.
//!
//! Promises bounded memory whatever a peer sends, and the text forms of the gRPC specification
//! ("PROTOCOL-HTTP2"). Leaves HTTP/2 to `h2` and the methods to the caller.
//!
//! ```text
//! DATA bytes ──► Deframer ──► Frame { compressed, bytes } ──► decompress() if compressed ──► a view's decode()
//! ```

mod compression;
mod compressor;
mod deframer;
mod status;
mod text;

pub use compression::{ACCEPT_ENCODING, DecompressError, Encoding, decompress};
pub use compressor::Compressor;
pub use deframer::{DeframeError, Deframer, Frame, PREFIX_BYTES, put_prefix};
pub use status::{BadCode, Code, ERROR_DOMAIN, Status};
pub use text::{
    CONTENT_TYPE, TimeoutText, decode_binary, decode_message, encode_binary, encode_message, format_timeout,
    is_content_type, parse_timeout,
};
