//! Versions: the order in which writes to one item win. A version is made from an idempotency token
//! and is the same on every machine and in every release, because it is stored.

use crate::error::StoreError;

/// Order of the writes to one item: first by the time at which the token was made, then by a hash
/// of the token's bytes.
///
/// Two different tokens made in the same nanosecond tie with a probability of 2^-54; the second
/// write then counts as a repeat of the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Time at which the token was made, in nanoseconds since 1970, UTC.
    pub generation_time_ns: i64,
    /// Hash of the token (upper 54 bits) and the position within a request of many mutations (lower
    /// 10 bits).
    pub token_hash: u64,
}

impl Version {
    /// The oldest version; every other write wins against it.
    pub const MIN: Version = Version {
        generation_time_ns: i64::MIN,
        token_hash: 0,
    };

    /// The version of a token made at `generation_time_ns` (nanoseconds since 1970) with these
    /// bytes.
    pub fn new(generation_time_ns: i64, token: &[u8]) -> Version {
        Version {
            generation_time_ns,
            token_hash: stable_hash(token) & !POSITION_MASK,
        }
    }

    /// The version of mutation number `position` of a request whose mutations share one token. A
    /// later mutation wins against an earlier one. Positions from 1024 on share the last place.
    pub fn at_position(self, position: usize) -> Version {
        let position = (position as u64).min(POSITION_MASK);
        Version {
            token_hash: (self.token_hash & !POSITION_MASK) | position,
            ..self
        }
    }

    /// Bytes that name this version to clients, for whom they mean nothing else, and that order as
    /// versions do.
    pub fn to_bytes(self) -> [u8; VERSION_BYTES] {
        version_bytes(self)
    }

    /// The smallest version that wins against this one.
    pub fn successor(self) -> Version {
        match self.token_hash.checked_add(1) {
            Some(token_hash) => Version { token_hash, ..self },
            None => Version {
                generation_time_ns: self.generation_time_ns.saturating_add(1),
                token_hash: 0,
            },
        }
    }
}

/// Bytes of a version.
pub(crate) const VERSION_BYTES: usize = 16;

/// Bytes that sort like versions.
pub(crate) type VersionBytes = [u8; VERSION_BYTES];

/// Bytes of a version, as stored.
pub(crate) fn version_bytes(version: Version) -> VersionBytes {
    let mut bytes = [0; 16];
    // The sign bit is flipped, so that times before 1970 come first.
    let time = (version.generation_time_ns as u64) ^ (1 << 63);
    bytes[..8].copy_from_slice(&time.to_be_bytes());
    bytes[8..].copy_from_slice(&version.token_hash.to_be_bytes());
    bytes
}

/// The version stored in these bytes.
pub(crate) fn version_of(bytes: &[u8]) -> Result<Version, StoreError> {
    let (halves, rest) = bytes.as_chunks::<8>();
    match (halves, rest) {
        ([time, hash], []) => Ok(Version {
            generation_time_ns: (u64::from_be_bytes(*time) ^ (1 << 63)) as i64,
            token_hash: u64::from_be_bytes(*hash),
        }),
        _ => Err(StoreError::Corrupt {
            detail: format!("a version of {} bytes", bytes.len()),
        }),
    }
}

/// A 64-bit hash that is the same on every machine and in every release: eight bytes at a time,
/// folded multiply. It does not withstand a search for collisions; a client that searches confuses
/// only its own writes.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    stable_hash_with(0x243f_6a88_85a3_08d3, bytes)
}

/// Like [`stable_hash`], continued from `seed`, so that several parts hash to one value and their
/// borders count.
pub(crate) fn stable_hash_with(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(word));
    }
    fold(state ^ 0x1319_8a2e_0370_7344)
}

fn fold(word: u64) -> u64 {
    let product = u128::from(word) * u128::from(MULTIPLIER);
    (product as u64) ^ ((product >> 64) as u64)
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const POSITION_MASK: u64 = 0x3ff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_time_then_token_then_position() {
        let early = Version::new(1, b"z");
        let late = Version::new(2, b"a");
        assert!(early < late);
        assert!(early.at_position(3) < early.at_position(4));
        assert!(early.at_position(1000) < late);
        assert_eq!(early.at_position(5000), early.at_position(1023));
        assert_ne!(Version::new(1, b"a"), Version::new(1, b"b"));
    }

    #[test]
    fn the_successor_is_just_above() {
        let version = Version::new(7, b"token").at_position(9);
        assert!(version.successor() > version);
        let edge = Version {
            generation_time_ns: 7,
            token_hash: u64::MAX,
        };
        assert_eq!(
            edge.successor(),
            Version {
                generation_time_ns: 8,
                token_hash: 0
            }
        );
    }

    #[test]
    fn the_hash_is_pinned_because_files_hold_it() {
        assert_eq!(stable_hash(b""), 0x29a3_5bb2_406c_a650);
        assert_eq!(stable_hash(b"token"), 0xaf91_e3ba_dff8_f8b0);
        assert_eq!(stable_hash(b"0123456789abcdef"), 0x3b4a_3a1e_492d_0d59);
        assert_ne!(stable_hash(b"a\0"), stable_hash(b"a"), "the length counts");
    }

    #[test]
    fn version_bytes_order_as_versions_do() {
        let mut versions = Vec::new();
        for generation_time_ns in [i64::MIN, -1, 0, 1, i64::MAX] {
            for token_hash in [0, 1, u64::MAX] {
                versions.push(Version {
                    generation_time_ns,
                    token_hash,
                });
            }
        }
        assert!(versions.is_sorted());
        let bytes: Vec<_> = versions.iter().map(|version| version_bytes(*version)).collect();
        assert!(bytes.is_sorted());
        let back: Vec<_> = bytes
            .iter()
            .map(|bytes| version_of(bytes).expect("sixteen bytes"))
            .collect();
        assert_eq!(back, versions);
        assert!(version_of(b"short").is_err());
    }
}
