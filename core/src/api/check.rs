//! The check at the end of what a client is given and sends back: positions, receipts, page tokens.
//! It keeps what was damaged or made up by mistake from being taken; it is no secret.

use prism_backends::Digest;

const CHECK_BYTES: usize = 4;

/// Appends the check of all from `begin` on.
pub(super) fn append(begin: usize, out: &mut Vec<u8>) {
    let check = check_of(&out[begin..]);
    out.extend_from_slice(&check);
}

/// The content, without its check; `None` if the check is another's.
pub(super) fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    (check_of(content) == *check).then_some(content)
}

fn check_of(content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut digest = Digest::default();
    digest.bytes(content);
    (digest.finish() as u32).to_be_bytes()
}
