//! Frames on the wire (RFC 9113 section 4 and 6): the 9-byte header, types, flags, and writers of
//! the small frames.
//!
//! The meaning of a frame for a stream or the connection is left to others.

use super::error::ErrorCode;

/// Bytes of a frame header.
pub(crate) const HEADER_LEN: usize = 9;

/// The largest payload before any SETTINGS, and the least that may be announced.
pub(crate) const PAYLOAD_MAX_DEFAULT: u32 = 1 << 14;

/// The largest payload that may ever be announced.
pub(crate) const PAYLOAD_MAX: u32 = (1 << 24) - 1;

/// The largest stream id.
pub(crate) const STREAM_ID_MAX: u32 = (1 << 31) - 1;

/// Frame types (RFC 9113 section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// Frame flags. A flag has a meaning only on the types that define it; elsewhere it is ignored.
pub(crate) mod flag {
    /// DATA, HEADERS.
    pub(crate) const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING.
    pub(crate) const ACK: u8 = 0x1;
    /// HEADERS, CONTINUATION.
    pub(crate) const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS.
    pub(crate) const PADDED: u8 = 0x8;
    /// HEADERS.
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 section 6.5.2, RFC 8441 section 3).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
}

/// A parsed frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of payload that follow.
    pub(crate) len: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Without the reserved bit.
    pub(crate) stream: u32,
}

impl FrameHeader {
    /// Parses the header at the front of `bytes`, if they are long enough.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        Some(Self {
            len: u32::from_be_bytes([0, b[0], b[1], b[2]]),
            kind: b[3],
            flags: b[4],
            stream: u32::from_be_bytes([b[5] & 0x7f, b[6], b[7], b[8]]),
        })
    }

    #[inline]
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The header as it goes on the wire.
    #[inline]
    pub(crate) fn encode(self) -> [u8; HEADER_LEN] {
        let (l, s) = (self.len.to_be_bytes(), self.stream.to_be_bytes());
        [l[1], l[2], l[3], self.kind, self.flags, s[0], s[1], s[2], s[3]]
    }
}

/// Appends a frame header.
#[inline]
pub(crate) fn write_header(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    debug_assert!(len <= PAYLOAD_MAX as usize);
    let header = FrameHeader {
        len: len as u32,
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&header.encode());
}

pub(crate) fn write_rst_stream(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    write_header(out, 4, kind::RST_STREAM, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(crate) fn write_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    write_header(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(crate) fn write_ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    write_header(out, 8, kind::PING, flags, 0);
    out.extend_from_slice(&payload);
}

pub(crate) fn write_goaway(out: &mut Vec<u8>, last_stream: u32, code: ErrorCode, debug: &str) {
    write_header(out, 8 + debug.len(), kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

pub(crate) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    write_header(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = FrameHeader {
            len: 0x01_02_03,
            kind: kind::HEADERS,
            flags: 0x25,
            stream: 0x7fff_fffd,
        };
        assert_eq!(FrameHeader::parse(&header.encode()), Some(header));
        assert_eq!(FrameHeader::parse(&header.encode()[..8]), None);
    }

    #[test]
    fn the_reserved_bit_is_ignored() {
        let parsed = FrameHeader::parse(&[0, 0, 0, 0, 0, 0x80, 0, 0, 1]);
        assert_eq!(parsed.map(|header| header.stream), Some(1));
    }
}
