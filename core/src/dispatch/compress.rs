//! Compression of replies: the choice of replies worth it, with one compressor for all calls of a
//! shard.

use prism_codec::grpc;

use super::{Dispatcher, http_rules::HttpRules};

/// Size above which pages for people and scrapers are compressed, whatever is configured for calls.
const PAGE_BYTES_MIN: usize = 1 << 10;

impl Dispatcher {
    /// Rules for browsers.
    pub(crate) fn http(&self) -> &HttpRules {
        &self.http
    }

    /// Whether the reply should be compressed, if the client accepts `encoding`.
    #[inline]
    pub(crate) fn compresses_reply(&self, encoding: grpc::Encoding) -> bool {
        encoding != grpc::Encoding::Identity && self.http.compresses(self.reply.len())
    }

    /// Whether a message of a stream should be compressed.
    pub(crate) fn compresses(&self, encoding: grpc::Encoding, message: &[u8]) -> bool {
        encoding != grpc::Encoding::Identity && self.http.compresses(message.len())
    }

    /// Appends `message` compressed and returns true, if the client accepts `encoding` and
    /// compression saves enough.
    pub(crate) fn compress(&mut self, encoding: grpc::Encoding, message: &[u8], out: &mut Vec<u8>) -> bool {
        encoding != grpc::Encoding::Identity
            && self.http.compresses(message.len())
            && self.compressor.compress(encoding, message, out)
    }

    /// Appends a page compressed, if that is worth it; a page is no call.
    pub(crate) fn compress_page(&mut self, encoding: grpc::Encoding, page: &[u8], out: &mut Vec<u8>) -> bool {
        encoding != grpc::Encoding::Identity
            && page.len() >= PAGE_BYTES_MIN
            && self.compressor.compress(encoding, page, out)
    }
}
