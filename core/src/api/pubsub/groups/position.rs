//! Positions of a group: a member gets one with each answer, and commits it.
//!
//! ```text
//!   2 · namespace (4) · group (8) · instance (8) · topics (8) · generation (8) · count (1)
//!     · partition (2), epoch (4), number (8) each · check (4)
//! ```
//!
//! All numbers are big endian. `group` is a digest of the name; the rest is as in the positions of
//! subscriptions without a group ([`super::super::position`]). There is a place for each partition
//! that the member held, with the epoch in which it did.

use prism_backends::{
    Digest, NamespaceId,
    api::groups::{Done, Held},
};

use crate::{
    api::{check, pubsub::position::instance_at},
    namespace::spec::Home,
};

const VERSION: u8 = 2;
const PLACE_BYTES: usize = 14;

/// Scope in which a group's position is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api::pubsub) struct Scope {
    pub(in crate::api::pubsub) namespace: NamespaceId,
    group: u64,
    pub(in crate::api::pubsub) instance: u64,
}

/// The content of a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api::pubsub) struct Place {
    /// Digest of the group's topics.
    pub(in crate::api::pubsub) topics: u64,
    /// Life of the group.
    pub(in crate::api::pubsub) generation: u64,
    pub(in crate::api::pubsub) places: Vec<Done>,
}

impl Scope {
    /// The scope of a group of a namespace.
    pub(in crate::api::pubsub) fn new(namespace: NamespaceId, home: Home, group: &str) -> Self {
        Self::with_instance(namespace, instance_at(home), group)
    }

    /// The scope of a group in a store of this instance.
    pub(in crate::api::pubsub) fn with_instance(namespace: NamespaceId, instance: u64, group: &str) -> Self {
        let mut digest = Digest::default();
        digest.bytes(group.as_bytes());
        Self {
            namespace,
            group: digest.finish(),
            instance,
        }
    }
}

/// Appends a position.
pub(in crate::api::pubsub) fn encode(scope: &Scope, place: &Place, out: &mut Vec<u8>) {
    let begin = out.len();
    put_head(scope, out);
    out.extend_from_slice(&place.topics.to_be_bytes());
    out.extend_from_slice(&place.generation.to_be_bytes());
    // There are no more partitions than this.
    out.push(place.places.len() as u8);
    for done in &place.places {
        out.extend_from_slice(&done.held.partition.to_be_bytes());
        out.extend_from_slice(&done.held.epoch.to_be_bytes());
        out.extend_from_slice(&done.next.to_be_bytes());
    }
    check::append(begin, out);
}

fn put_head(scope: &Scope, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&scope.namespace.0.to_be_bytes());
    out.extend_from_slice(&scope.group.to_be_bytes());
    out.extend_from_slice(&scope.instance.to_be_bytes());
}

/// The content of a position, if it is one of this scope.
pub(in crate::api::pubsub) fn decode(scope: &Scope, position: &[u8]) -> Option<Place> {
    let mut head = Vec::with_capacity(21);
    put_head(scope, &mut head);
    let rest = check::content(position)?.strip_prefix(head.as_slice())?;
    let (topics, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let ([count], rest) = rest.split_first_chunk()?;
    let (places, rest) = rest.as_chunks::<PLACE_BYTES>();
    let place = |bytes: &[u8; PLACE_BYTES]| {
        let (partition, rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        Some(Done {
            held: Held {
                partition: u16::from_be_bytes(*partition),
                epoch: u32::from_be_bytes(*epoch),
            },
            next: u64::from_be_bytes(*rest.first_chunk()?),
        })
    };
    let places: Option<Vec<Done>> = places.iter().map(place).collect();
    let place = Place {
        topics: u64::from_be_bytes(*topics),
        generation: u64::from_be_bytes(*generation),
        places: places?,
    };
    (rest.is_empty() && place.places.len() == usize::from(*count)).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::spec::StoreId;

    #[test]
    fn positions_come_back_and_others_are_refused() {
        let home = Home::Store(StoreId(0));
        let scope = Scope::new(NamespaceId(7), home, "audit");
        for count in [0, 1, 16] {
            let done = |partition| Done {
                held: Held {
                    partition,
                    epoch: u32::MAX - 1,
                },
                next: u64::MAX / 2,
            };
            let place = Place {
                topics: 9,
                generation: 77,
                places: (0..count).map(done).collect(),
            };
            let mut position = Vec::new();
            encode(&scope, &place, &mut position);
            assert!(position.len() <= 2_048);
            assert_eq!(decode(&scope, &position).as_ref(), Some(&place));
            for other in [
                Scope::new(NamespaceId(8), home, "audit"),
                Scope::new(NamespaceId(7), home, "other"),
                Scope::new(NamespaceId(7), Home::Shards, "audit"),
            ] {
                assert_eq!(decode(&other, &position), None, "{other:?}");
            }
            for at in 0..position.len() {
                let mut damaged = position.clone();
                damaged[at] ^= 1;
                assert_eq!(decode(&scope, &damaged), None, "byte {at}");
                assert_eq!(decode(&scope, &position[..at]), None, "cut at {at}");
            }
        }
    }
}
