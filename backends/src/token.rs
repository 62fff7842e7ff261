//! Page tokens, made and checked. A token is
//!
//! ```text
//! format (1) | fingerprint of the query (8) | check over all but itself (4) | position (store's own)
//! ```
//!
//! The check finds alteration, the fingerprint finds a token of another query. Neither is a secret:
//! a client that forges a token can only read data that it may read anyway.

use smallvec::SmallVec;

use crate::error::StoreError;
use crate::mutation::PredicateRef;
use crate::query::{GetQuery, PageToken, ScanQuery};
use crate::version::{stable_hash, stable_hash_with};

/// Makes the token of a query with this fingerprint that resumes at `position` (parts are joined).
pub(crate) fn seal(fingerprint: u64, position: &[&[u8]]) -> PageToken {
    let mut bytes = SmallVec::new();
    bytes.push(FORMAT);
    bytes.extend_from_slice(&fingerprint.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for part in position {
        bytes.extend_from_slice(part);
    }
    let check = check_of(fingerprint, &bytes[HEAD_BYTES..]);
    bytes[9..HEAD_BYTES].copy_from_slice(&check.to_le_bytes());
    PageToken(bytes)
}

/// The position within a token; `None` for the empty token, which is the first page's.
pub(crate) fn open(fingerprint: u64, token: &[u8]) -> Result<Option<&[u8]>, StoreError> {
    if token.is_empty() {
        return Ok(None);
    }
    let Some((head, position)) = token.split_first_chunk::<HEAD_BYTES>() else {
        return Err(StoreError::InvalidPageToken);
    };
    let is_ours = head[0] == FORMAT
        && head[1..9] == fingerprint.to_le_bytes()
        && head[9..] == check_of(fingerprint, position).to_le_bytes();
    if is_ours {
        Ok(Some(position))
    } else {
        Err(StoreError::InvalidPageToken)
    }
}

/// Makes the token of a scan in the order of bytes that continues after this item.
pub(crate) fn seal_place(fingerprint: u64, id: &[u8], key: &[u8]) -> PageToken {
    seal(fingerprint, &[&(id.len() as u16).to_le_bytes(), id, key])
}

/// Id and key of an item.
pub(crate) type ItemPlace = (Vec<u8>, Vec<u8>);

/// Place of the last item that such a scan has shown; `None` for the empty token of the first page.
pub(crate) fn open_place(fingerprint: u64, token: &[u8]) -> Result<Option<ItemPlace>, StoreError> {
    let split = |position: &[u8]| {
        let (length, rest) = position.split_first_chunk::<2>()?;
        let (id, key) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        Some((id.to_vec(), key.to_vec()))
    };
    match open(fingerprint, token)? {
        None => Ok(None),
        Some(position) => split(position).map(Some).ok_or(StoreError::InvalidPageToken),
    }
}

/// Instance of all stores that scan in the order of bytes: a place means the same in each of them,
/// and to every process.
pub(crate) const BY_BYTES: u64 = 0x5052_534d_0000_0001;

/// Fingerprint of a `get`: everything but the selection, so that the page size may change during
/// the walk.
pub(crate) fn fingerprint_of_get(query: &GetQuery<'_>) -> u64 {
    let mut hash = stable_hash_with(u64::from(query.namespace.0) << 8 | 1, query.id.as_bytes());
    match &query.predicate {
        PredicateRef::All => hash = stable_hash_with(hash, b"all"),
        PredicateRef::Keys(keys) => {
            hash = stable_hash_with(hash, b"keys");
            for key in *keys {
                hash = stable_hash_with(hash, key);
            }
        }
        PredicateRef::Range { start, end } => {
            hash = stable_hash_with(hash, b"range");
            hash = stable_hash_with(hash, start);
            hash = stable_hash_with(hash, end);
        }
    }
    hash
}

/// Fingerprint of a `scan`. `instance` separates stores whose positions are not interchangeable.
pub(crate) fn fingerprint_of_scan(query: &ScanQuery<'_>, instance: u64) -> u64 {
    stable_hash_with(u64::from(query.namespace.0) << 8 | 2, &instance.to_le_bytes())
}

fn check_of(fingerprint: u64, position: &[u8]) -> u32 {
    let hash = stable_hash_with(fingerprint, position);
    // Hashed once more, so that the check is not part of a fingerprint.
    (stable_hash(&hash.to_le_bytes()) >> 32) as u32
}

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_only_for_its_query_and_unaltered() {
        let token = seal(42, &[b"ab", b"c"]);
        assert_eq!(open(42, token.as_bytes()), Ok(Some(&b"abc"[..])));
        assert_eq!(open(43, token.as_bytes()), Err(StoreError::InvalidPageToken));
        assert_eq!(open(42, b""), Ok(None));
        for position in 0..token.as_bytes().len() {
            let mut altered = token.as_bytes().to_vec();
            altered[position] ^= 1;
            assert_eq!(
                open(42, &altered),
                Err(StoreError::InvalidPageToken),
                "byte {position}"
            );
            assert_eq!(
                open(42, &token.as_bytes()[..position.max(1)]),
                Err(StoreError::InvalidPageToken)
            );
        }
    }
}
