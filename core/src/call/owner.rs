//! The shard that owns a key: one for each key, so that its writes have one order, in the log and
//! in the store.

use prism_backends::NamespaceId;

/// The shard that owns an id.
pub(crate) fn owner_of(namespace: NamespaceId, id: &str, shards: u16) -> u16 {
    shard_of_hash(key_hash(namespace, id), shards)
}

/// The shard that remembers to which call a token belongs.
pub(crate) fn owner_of_token(namespace: NamespaceId, token: &[u8], shards: u16) -> u16 {
    shard_of_hash(hash(namespace, token), shards)
}

/// FNV-1a, 64 bit, over the namespace's number and the id, mixed once more at the end: without
/// that, ids that differ in their last letters only would share a shard. The same in every release,
/// since logs on disk are laid out by it.
pub(crate) fn key_hash(namespace: NamespaceId, id: &str) -> u64 {
    hash(namespace, id.as_bytes())
}

#[inline]
fn hash(namespace: NamespaceId, bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in namespace.0.to_le_bytes().iter().chain(bytes) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

/// The shard that owns the ids of this hash.
fn shard_of_hash(hash: u64, shards: u16) -> u16 {
    // The upper half is better mixed; the product maps it onto the shards without a division.
    (((hash >> 32) * u64::from(shards)) >> 32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_look_alike_are_spread_over_the_shards() {
        for shards in 2..=8 {
            let mut counts = vec![0; usize::from(shards)];
            for number in 0..1_000 {
                counts[usize::from(owner_of(NamespaceId(1), &format!("id-{number}"), shards))] += 1;
            }
            let even = 1_000 / u32::from(shards);
            assert!(
                counts
                    .iter()
                    .all(|count| (even * 3 / 4..even * 5 / 4).contains(count)),
                "{counts:?}"
            );
        }
        let first_ten: Vec<u16> = (0..10)
            .map(|number| owner_of(NamespaceId(1), &format!("id-{number}"), 2))
            .collect();
        assert!(first_ten.contains(&0) && first_ten.contains(&1), "{first_ten:?}");
    }

    #[test]
    fn the_hash_is_pinned_because_logs_are_laid_out_by_it() {
        assert_eq!(key_hash(NamespaceId(1), "id-1"), PINNED);
    }

    const PINNED: u64 = 10_166_438_771_853_290_052;
}
