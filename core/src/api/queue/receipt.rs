//! Receipts and page tokens: what a client is given, and sends back.
//!
//! ```text
//!   receipt     1 · namespace (4) · sent at (8) · attempt (4) · id (1 to 68) · check (4)
//!   page token  2 · namespace (4) · place (8) · check (4)
//! ```
//!
//! All numbers are big endian. The check keeps what was damaged or made up by mistake from naming a
//! message; it is no secret.

use prism_backends::{
    NamespaceId, UnixMillis,
    api::queue::{Attempt, Held},
};

use crate::api::check;

const RECEIPT: u8 = 1;
const PAGE: u8 = 2;

/// Appends the receipt of an attempt.
pub(super) fn encode(namespace: NamespaceId, held: &Held<'_>, out: &mut Vec<u8>) {
    let begin = out.len();
    out.push(RECEIPT);
    out.extend_from_slice(&namespace.0.to_be_bytes());
    out.extend_from_slice(&held.attempt.sent_at.0.to_be_bytes());
    out.extend_from_slice(&held.attempt.serial.to_be_bytes());
    out.extend_from_slice(held.id);
    check::append(begin, out);
}

/// The attempt of a receipt, if it is one of this namespace.
pub(super) fn decode(namespace: NamespaceId, receipt: &[u8]) -> Option<Held<'_>> {
    let rest = content(RECEIPT, namespace, receipt)?;
    let (sent_at, rest) = rest.split_first_chunk()?;
    let (serial, id) = rest.split_first_chunk()?;
    (!id.is_empty()).then(|| Held {
        id,
        attempt: Attempt {
            sent_at: UnixMillis(u64::from_be_bytes(*sent_at)),
            serial: u32::from_be_bytes(*serial),
        },
    })
}

/// Makes the token of the page after a place.
pub(super) fn encode_page(namespace: NamespaceId, after: u64) -> Vec<u8> {
    let mut token = vec![PAGE];
    token.extend_from_slice(&namespace.0.to_be_bytes());
    token.extend_from_slice(&after.to_be_bytes());
    check::append(0, &mut token);
    token
}

/// The place of a page token; of none the beginning.
pub(super) fn decode_page(namespace: NamespaceId, token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return Some(0);
    }
    let place = content(PAGE, namespace, token)?.try_into().ok()?;
    // No store has come that far.
    Some(u64::from_be_bytes(place)).filter(|place| *place < 1 << 40)
}

fn content(kind: u8, namespace: NamespaceId, bytes: &[u8]) -> Option<&[u8]> {
    let content = check::content(bytes)?;
    let (first, rest) = content.split_first()?;
    let (of, rest) = rest.split_first_chunk()?;
    (*first == kind && u32::from_be_bytes(*of) == namespace.0).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_come_back_and_others_are_refused() {
        let namespace = NamespaceId(7);
        for id in [&b"x"[..], &[255; 68]] {
            let held = Held {
                id,
                attempt: Attempt {
                    sent_at: UnixMillis(u64::MAX),
                    serial: 3,
                },
            };
            let mut receipt = Vec::new();
            encode(namespace, &held, &mut receipt);
            assert!(receipt.len() <= 160);
            assert_eq!(decode(namespace, &receipt), Some(held));
            assert_eq!(decode(NamespaceId(8), &receipt), None);
            for at in 0..receipt.len() {
                let mut damaged = receipt.clone();
                damaged[at] ^= 1;
                assert_eq!(decode(namespace, &damaged), None, "byte {at}");
                assert_eq!(decode(namespace, &receipt[..at]), None, "cut at {at}");
            }
        }
        let page = encode_page(namespace, 77);
        assert_eq!(decode_page(namespace, &page), Some(77));
        assert_eq!(decode_page(namespace, b""), Some(0));
        assert_eq!(decode_page(NamespaceId(8), &page), None);
        assert_eq!(decode(namespace, &page), None);
    }
}
