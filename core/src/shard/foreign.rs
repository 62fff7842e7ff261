//! First bytes of a connection that belong to another protocol, which a plain port does not speak.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::runtime::clock::unix_millis;

/// Pause between warnings about such clients, in milliseconds. At debug each is mentioned.
const MENTION_PAUSE_MS: u64 = 60_000;

/// The name of the protocol; `None` for bytes that may be HTTP.
pub(crate) fn protocol_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        // A handshake record of SSL 3.0 or TLS 1.x (RFC 8446 section 5.1).
        [0x16, 0x03, ..] => Some("TLS"),
        _ if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") => {
            Some("the PROXY protocol")
        }
        _ => None,
    }
}

/// Mentions such a client: a warning now and then, for the operator of a misconfigured proxy or
/// client.
pub(crate) fn mention(peer: SocketAddr, protocol: &str) {
    static MENTIONED: AtomicU64 = AtomicU64::new(0);
    let (now, before) = (unix_millis().0, MENTIONED.load(Ordering::Relaxed));
    if now.abs_diff(before) < MENTION_PAUSE_MS {
        return tracing::debug!(%peer, protocol, "closing a connection: this port speaks HTTP only");
    }
    MENTIONED.store(now, Ordering::Relaxed);
    tracing::warn!(
        %peer,
        protocol,
        "a client speaks another protocol to this port, which speaks plain HTTP/1.1 and HTTP/2 only; its connection was closed"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_known_by_their_first_bytes_and_http_is_none_of_them() {
        assert_eq!(protocol_of(&[0x16, 0x03, 0x01, 0x02, 0x00]), Some("TLS"));
        assert_eq!(protocol_of(b"PROXY TCP4 10.0.0.1"), Some("the PROXY protocol"));
        assert_eq!(
            protocol_of(b"\r\n\r\n\0\r\nQUIT\n\x21"),
            Some("the PROXY protocol")
        );
        for http in [
            &b"PRI * HTTP/2.0\r\n"[..],
            b"PR",
            b"P",
            b"GET / HTTP/1.1\r\n",
            b"PROPFIND / HTTP/1.1",
            b"\r\nGET /",
            b"",
        ] {
            assert_eq!(protocol_of(http), None, "{http:?}");
        }
    }
}
