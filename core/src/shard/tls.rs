//! TLS of one connection: bytes of the network to bytes of the session, and the reverse.
//!
//! rustls does no I/O of its own, so the connection's tasks move the bytes as they do without TLS:
//!
//! ```text
//!   receive ──> open: decrypts ──> session ──> seal: encrypts ──> send
//!                  └── answers of the handshake ──────┘
//! ```

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use rustls::{Error, ServerConfig, ServerConnection, pki_types::CertificateDer};

/// Bytes given to rustls before what it made of them is taken out; it holds 64 KiB.
const PIECE_BYTES: usize = 32 << 10;

/// Bytes of a record before its payload (RFC 8446 section 5.1).
const HEADER_BYTES: usize = 5;

/// Result of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// More may come.
    Open,
    /// The client sends nothing more.
    Closed,
}

/// The state.
pub(super) struct Tls {
    connection: ServerConnection,
    records: Records,
    /// Whether anything has been received.
    has_begun: bool,
    /// Output that is not encrypted: the answer to a client that does not speak TLS.
    clear: Vec<u8>,
}

impl Tls {
    /// Makes the state of a new connection.
    ///
    /// # Errors
    /// The settings do not allow any connection.
    pub(super) fn new(settings: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            connection: ServerConnection::new(settings)?,
            records: Records::default(),
            has_begun: false,
            clear: Vec::new(),
        })
    }

    /// The client's own certificate, if it has shown one.
    pub(super) fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    /// Whether the first bytes have come.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Ends the connection with an answer in the clear.
    pub(super) fn refuse(&mut self, answer: Vec<u8>) {
        self.clear = answer;
    }

    /// Decrypts the bytes of `buffer` from `from` on, and puts the plaintext in their place.
    /// `plain` is empty room for it.
    ///
    /// # Errors
    /// The client breaks the protocol, or its certificate is refused. The alert for it waits to be
    /// sent.
    pub(super) fn open(
        &mut self,
        buffer: &mut Vec<u8>,
        from: usize,
        plain: &mut Vec<u8>,
    ) -> Result<Opened, Error> {
        self.has_begun = true;
        self.records.advance(&buffer[from..]);
        let mut wire = &buffer[from..];
        let mut opened = Opened::Open;
        while !wire.is_empty() && opened == Opened::Open {
            let full = |error: std::io::Error| Error::General(error.to_string());
            let taken = self.connection.read_tls(&mut wire).map_err(full)?;
            let state = self.connection.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.connection
                .reader()
                .read_exact(&mut plain[start..])
                .map_err(full)?;
            if taken == 0 || state.peer_has_closed() {
                opened = Opened::Closed;
            }
        }
        buffer.truncate(from);
        buffer.extend_from_slice(plain);
        Ok(opened)
    }

    /// Whether a record has begun that is not complete.
    pub(super) fn is_within_record(&self) -> bool {
        self.records.is_within()
    }

    /// Whether there is output of TLS itself: answers of the handshake, alerts.
    pub(super) fn wants_write(&self) -> bool {
        !self.clear.is_empty() || self.connection.wants_write()
    }

    /// Encrypts `plain`, after the output of TLS itself, into `wire`.
    ///
    /// # Errors
    /// The session has output before the handshake is over.
    pub(super) fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> std::io::Result<()> {
        wire.append(&mut self.clear);
        self.take_wire(wire)?;
        for piece in plain.chunks(PIECE_BYTES) {
            self.connection.writer().write_all(piece)?;
            self.take_wire(wire)?;
        }
        Ok(())
    }

    /// The last bytes: the announcement that none follow. Empty without a handshake.
    pub(super) fn close(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        if !self.connection.is_handshaking() {
            self.connection.send_close_notify();
            // Writing to a Vec cannot fail.
            let _ = self.take_wire(&mut wire);
        }
        wire
    }

    fn take_wire(&mut self, wire: &mut Vec<u8>) -> std::io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(wire)?;
        }
        Ok(())
    }
}

/// Place within the records of the received bytes.
#[derive(Debug, Default)]
struct Records {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are known.
    known: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
}

impl Records {
    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.left {
                0 => {
                    let taken = (HEADER_BYTES - self.known).min(bytes.len());
                    self.header[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
                    self.known += taken;
                    if self.known == HEADER_BYTES {
                        self.known = 0;
                        self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                    }
                    taken
                }
                left => {
                    let taken = left.min(bytes.len());
                    self.left -= taken;
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
    }

    fn is_within(&self) -> bool {
        self.known > 0 || self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_within_records_is_known_wherever_the_bytes_are_cut() {
        let wire = [
            &[22, 3, 3, 0, 2, 1, 2][..],
            &[20, 3, 3, 0, 0],
            &[23, 3, 3, 1, 0],
            &[0; 256],
        ]
        .concat();
        for cut in 0..=wire.len() {
            let mut records = Records::default();
            records.advance(&wire[..cut]);
            let whole = [0, 7, 12, 273].contains(&cut);
            assert_eq!(records.is_within(), !whole, "after {cut} bytes");
            records.advance(&wire[cut..]);
            assert!(!records.is_within(), "cut after {cut} bytes");
        }
    }
}
