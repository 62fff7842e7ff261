//! First bytes of a connection that belong to another protocol than that of its port.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use prism_codec::{
    h2::{self, ErrorCode},
    http1::{self, HttpError},
};

use crate::runtime::clock::unix_millis;

/// First byte of a handshake record of SSL 3.0 or TLS 1.x (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// Pause between warnings about such clients, in milliseconds. At debug each is mentioned.
const MENTION_PAUSE_MS: u64 = 60_000;

/// The name of the protocol; `None` for bytes that may be HTTP.
pub(crate) fn protocol_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [HANDSHAKE, 0x03, ..] => Some("TLS"),
        _ if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") => {
            Some("the PROXY protocol")
        }
        _ => None,
    }
}

/// The name of the protocol at a port that speaks TLS; `None` for bytes that may be TLS.
pub(crate) fn protocol_without_tls(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [] | [HANDSHAKE, ..] => None,
        _ => Some(protocol_of(bytes).unwrap_or("plain text")),
    }
}

/// The answer in the clear to a client that speaks no TLS, in the protocol that it most likely
/// speaks.
pub(crate) fn answer_without_tls(bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    if bytes.starts_with(b"PRI * HTTP/2") {
        let mut connection = h2::Connection::new(h2::Config::server());
        connection.abort(ErrorCode::INADEQUATE_SECURITY);
        return connection.take_output(output);
    }
    let error = HttpError {
        status: 400,
        message: "this port speaks TLS; write https:// instead of http://",
    };
    http1::put_error(&mut output, &error);
    output
}

/// Mentions such a client: a warning now and then, for the operator of a misconfigured proxy or
/// client. `tls`: the port speaks TLS.
pub(crate) fn mention(peer: SocketAddr, protocol: &str, tls: bool) {
    static MENTIONED: AtomicU64 = AtomicU64::new(0);
    let (now, before) = (unix_millis().0, MENTIONED.load(Ordering::Relaxed));
    let speaks = match tls {
        true => "HTTP/1.1 and HTTP/2 over TLS only",
        false => "plain HTTP/1.1 and HTTP/2 only (tls.cert_file and tls.key_file turn TLS on)",
    };
    if now.abs_diff(before) < MENTION_PAUSE_MS {
        return tracing::debug!(%peer, protocol, "closing a connection: this port speaks {speaks}");
    }
    MENTIONED.store(now, Ordering::Relaxed);
    tracing::warn!(
        %peer,
        protocol,
        "a client speaks another protocol to this port, which speaks {speaks}; its connection was closed"
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

    #[test]
    fn whoever_speaks_no_tls_to_a_port_with_tls_is_answered_in_its_own_protocol() {
        assert_eq!(protocol_without_tls(&[HANDSHAKE]), None);
        assert_eq!(protocol_without_tls(b""), None);
        assert_eq!(protocol_without_tls(b"GET / HTTP/1.1"), Some("plain text"));
        assert_eq!(protocol_without_tls(b"PROXY TCP4"), Some("the PROXY protocol"));
        assert!(answer_without_tls(b"GET /").starts_with(b"HTTP/1.1 400 "));
        let goaway = answer_without_tls(b"PRI * HTTP/2.0\r\n");
        assert!(goaway.ends_with(b"closed by this end"), "{goaway:?}");
    }
}
