//! Replies in the form of HTTP/1.x: whole ones with their length, streams in chunks or up to the
//! close.

use prism_codec::http1::{self, Version};
use smallvec::SmallVec;

use super::reply::Response;

/// Way in which the body of a stream is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Chunked,
    /// HTTP/1.0 has no chunks: the body ends with the connection.
    UntilClose,
}

impl Reply {
    pub(super) fn of(version: Version) -> Self {
        match version {
            Version::Http11 => Self::Chunked,
            Version::Http10 => Self::UntilClose,
        }
    }

    /// Writes the head of a stream's response.
    pub(super) fn begin(self, out: &mut Vec<u8>, start: &Response, keep_alive: bool) {
        let fields = fields(start);
        match self {
            Self::Chunked => {
                http1::put_head_chunked(out, start.status, start.content_type, &fields, keep_alive);
            }
            Self::UntilClose => http1::put_head_until_close(out, start.status, start.content_type, &fields),
        }
    }

    /// Writes a piece of the body.
    pub(super) fn put(self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self {
            Self::Chunked => http1::put_chunk(out, bytes),
            Self::UntilClose => out.extend_from_slice(bytes),
        }
    }

    /// Writes the end of the body.
    pub(super) fn end(self, out: &mut Vec<u8>) {
        match self {
            Self::Chunked => http1::put_chunks_end(out),
            Self::UntilClose => {}
        }
    }

    /// Writes a whole response.
    pub(super) fn whole(out: &mut Vec<u8>, response: &Response, head_only: bool, keep_alive: bool) {
        debug_assert!(
            response.trailers.is_empty(),
            "formats with trailers are refused on HTTP/1.1"
        );
        http1::put_response(
            out,
            &http1::Response {
                status: response.status,
                headers: &fields(response),
                content_type: response.content_type,
                body: &response.body,
                keep_alive,
                head_only,
            },
        );
    }
}

fn fields(response: &Response) -> SmallVec<[(&str, &[u8]); 6]> {
    response
        .fields
        .iter()
        .map(|(name, value)| (*name, value.as_ref()))
        .collect()
}
