//! Positions: a subscriber gets one with each answer, and sends it back to continue from there.
//!
//! ```text
//!   1 · namespace (4) · topics (8) · instance (8) · count (1) · numbers (8 each) · check (4)
//! ```
//!
//! All numbers are big endian. `topics` is a digest of the patterns, so that a position of other
//! topics is refused. `instance` is 0 where the store outlives the process; elsewhere each process
//! has its own, since it starts empty. There is a number for each place that numbers messages by
//! itself: one for a store, one for each shard where shards hold the messages.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use prism_backends::{NamespaceId, api::groups::topics_digest};
use smallvec::SmallVec;

use crate::{api::check, namespace::spec::Home};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 22;

/// The next numbers of a subscription, one for each place.
pub(crate) type Numbers = SmallVec<[u64; 4]>;

/// Scope in which a position is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) namespace: NamespaceId,
    /// Digest of the patterns.
    pub(crate) topics: u64,
    pub(crate) instance: u64,
}

/// The instance of stores that outlive the process.
pub(super) const OF_STORES: u64 = 0;

/// The instance of this process, for messages that end with it.
pub(crate) fn instance() -> u64 {
    static INSTANCE: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0) | 1);
    *INSTANCE
}

/// The scope of the subscriptions of a namespace to patterns.
pub(super) fn scope<'a>(
    namespace: NamespaceId,
    home: Home,
    patterns: impl Iterator<Item = &'a str>,
) -> Scope {
    Scope {
        namespace,
        topics: topics_digest(patterns),
        instance: instance_at(home),
    }
}

pub(super) fn instance_at(home: Home) -> u64 {
    match home {
        Home::Shards => instance(),
        Home::Store(_) => OF_STORES,
    }
}

/// Appends a position.
pub(crate) fn encode(scope: &Scope, numbers: &[u64], out: &mut Vec<u8>) {
    let begin = out.len();
    out.push(VERSION);
    out.extend_from_slice(&scope.namespace.0.to_be_bytes());
    out.extend_from_slice(&scope.topics.to_be_bytes());
    out.extend_from_slice(&scope.instance.to_be_bytes());
    // There are no more shards than this.
    out.push(numbers.len() as u8);
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
    check::append(begin, out);
}

/// The numbers of a position, if it is one of this scope with this many of them.
pub(crate) fn decode(scope: &Scope, places: usize, position: &[u8]) -> Option<Numbers> {
    let content = check::content(position)?;
    let mut expected = Vec::with_capacity(HEAD_BYTES);
    encode(scope, &[], &mut expected);
    let (head, numbers) = content.split_at_checked(HEAD_BYTES)?;
    let (numbers, rest) = numbers.as_chunks::<8>();
    let is_of_scope = head[..HEAD_BYTES - 1] == expected[..HEAD_BYTES - 1];
    let is_whole = rest.is_empty() && numbers.len() == places && usize::from(head[HEAD_BYTES - 1]) == places;
    (is_of_scope && is_whole).then(|| numbers.iter().map(|number| u64::from_be_bytes(*number)).collect())
}

/// The parts of a position whose topics are not known yet: their digest, and its numbers.
pub(super) fn decode_any(namespace: NamespaceId, instance: u64, position: &[u8]) -> Option<(u64, Numbers)> {
    let topics = position.get(5..13)?.try_into().ok()?;
    let scope = Scope {
        namespace,
        topics: u64::from_be_bytes(topics),
        instance,
    };
    let places = usize::from(*position.get(HEAD_BYTES - 1)?);
    let numbers = decode(&scope, places, position)?;
    Some((scope.topics, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope = Scope {
        namespace: NamespaceId(7),
        topics: 99,
        instance: 3,
    };

    #[test]
    fn positions_come_back_and_others_are_refused() {
        for numbers in [&[1][..], &[5, u64::MAX, 0]] {
            let mut position = Vec::new();
            encode(&SCOPE, numbers, &mut position);
            assert!(position.len() <= 2_048);
            assert_eq!(decode(&SCOPE, numbers.len(), &position).as_deref(), Some(numbers));
            assert_eq!(decode(&SCOPE, numbers.len() + 1, &position), None);
            for other in [
                Scope {
                    namespace: NamespaceId(8),
                    ..SCOPE
                },
                Scope { topics: 98, ..SCOPE },
                Scope { instance: 0, ..SCOPE },
            ] {
                assert_eq!(decode(&other, numbers.len(), &position), None, "{other:?}");
            }
            for at in 0..position.len() {
                let mut damaged = position.clone();
                damaged[at] ^= 1;
                assert_eq!(decode(&SCOPE, numbers.len(), &damaged), None, "byte {at}");
                assert_eq!(
                    decode(&SCOPE, numbers.len(), &position[..at]),
                    None,
                    "cut at {at}"
                );
            }
        }
        assert_eq!(decode(&SCOPE, 0, b""), None);
    }
}
