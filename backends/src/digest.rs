//! A digest of a call, by which a store distinguishes a repeat from another call under the same
//! token. It is the same on every machine and in every release, because it is stored.

use crate::version::stable_hash_with;

/// A digest being computed. Two calls have the same digest if the same parts were added in the same
/// order, and otherwise with a probability of 2^-64. It does not withstand a search for such a
/// pair: a client that searches confuses its own calls only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest(u64);

impl Digest {
    /// Adds bytes; their length counts.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0 = stable_hash_with(self.0, bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// The digest of all added parts.
    pub fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> u64 {
        let mut digest = Digest::default();
        parts.iter().for_each(|part| digest.bytes(part));
        digest.finish()
    }

    #[test]
    fn parts_their_borders_and_their_order_count() {
        let all = [
            of(&[]),
            of(&[b""]),
            of(&[b"", b""]),
            of(&[b"ab"]),
            of(&[b"a", b"b"]),
            of(&[b"b", b"a"]),
            of(&[b"ab", b""]),
            of(&[b"", b"ab"]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }

    #[test]
    fn the_digest_is_pinned_because_files_hold_it() {
        let mut digest = Digest::default();
        digest.bytes(b"id");
        digest.number(7);
        assert_eq!(digest.finish(), 11_790_306_779_865_793_692);
    }
}
