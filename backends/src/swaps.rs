//! Recognition of a repeated compare-and-swap, and its first answer; the same in every store.

use crate::ids::NamespaceId;
use crate::limits::SWAP_VALUE_REMEMBERED_MAX;
use crate::mutation::{Found, ItemRef, Mutation, OwnedItem};
use crate::version::{Version, stable_hash, stable_hash_with};

/// Identity of a remembered compare-and-swap: its version is a token with its time, or a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SwapKey {
    pub(crate) namespace: NamespaceId,
    pub(crate) version: Version,
}

/// Identity of a call among those with one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SwapCall {
    /// Hash of id and key.
    pub(crate) subject: u64,
    /// Digest of the call, as in [`Mutation::digest`].
    pub(crate) digest: Option<u64>,
}

/// The relation of a call to a remembered one with the same version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// The same call once more.
    Repeat,
    /// Another call under a used token.
    Reuse,
    /// Another call, as far as can be known: one of the two has no digest.
    Stranger,
}

/// The first answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Swapped,
    /// Not swapped, with the item as it was then.
    NotSwapped(Option<OwnedItem>),
    /// Not swapped; the item was too large to remember, so show the current one.
    NotSwappedLarge,
}

impl SwapCall {
    pub(crate) fn new(mutation: &Mutation<'_>, key: &[u8]) -> SwapCall {
        SwapCall {
            subject: stable_hash_with(stable_hash(mutation.id.as_bytes()), key),
            digest: mutation.digest,
        }
    }

    pub(crate) fn kinship(self, remembered: SwapCall) -> Kinship {
        let same_subject = self.subject == remembered.subject;
        match (self.digest, remembered.digest) {
            (Some(own), Some(other)) if own != other => Kinship::Reuse,
            _ if same_subject => Kinship::Repeat,
            _ => Kinship::Stranger,
        }
    }
}

/// Whether an item that carries the version of a forgotten swap is as that swap would have left it.
pub(crate) fn is_left_by(current: Option<&ItemRef<'_>>, replacement: Option<&ItemRef<'_>>) -> bool {
    match (current, replacement) {
        (Some(current), Some(item)) => (current.value, current.compression) == (item.value, item.compression),
        // The swap's item may have expired, if it had a time to live.
        (None, Some(item)) => item.expires_at.is_some(),
        (None, None) => true,
        (Some(_), None) => false,
    }
}

/// A remembered item as a repeat is shown it: with the version of the item that is there, if that
/// looks the same, so that the version never names another state than the one that is shown.
pub(crate) fn shown(remembered: OwnedItem, current: Option<&Found>) -> Found {
    let same = current.filter(|current| current.item == remembered);
    Found {
        version: same.and_then(|current| current.version),
        item: remembered,
    }
}

impl Verdict {
    /// Memory of a refusal that found this item.
    pub(crate) fn refusal(found: Option<ItemRef<'_>>) -> Verdict {
        match found {
            None => Verdict::NotSwapped(None),
            Some(item) if item.value.len() <= SWAP_VALUE_REMEMBERED_MAX => {
                Verdict::NotSwapped(Some(item.into()))
            }
            Some(_) => Verdict::NotSwappedLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_digest_is_known_by_what_it_is_about() {
        let call = |subject, digest| SwapCall { subject, digest };
        let kinship = |one: SwapCall, other: SwapCall| {
            assert_eq!(one.kinship(other), other.kinship(one));
            one.kinship(other)
        };
        assert_eq!(kinship(call(1, Some(7)), call(1, Some(7))), Kinship::Repeat);
        assert_eq!(kinship(call(1, Some(7)), call(1, Some(8))), Kinship::Reuse);
        assert_eq!(kinship(call(1, Some(7)), call(2, Some(8))), Kinship::Reuse);
        for digest in [None, Some(7)] {
            assert_eq!(kinship(call(1, digest), call(1, None)), Kinship::Repeat);
            assert_eq!(kinship(call(1, digest), call(2, None)), Kinship::Stranger);
        }
    }
}
