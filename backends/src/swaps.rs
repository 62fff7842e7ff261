//! How a repeated compare-and-swap is recognised, and which first answer it gets; the same in every store.

use crate::ids::NamespaceId;
use crate::limits::SWAP_VALUE_REMEMBERED_MAX;
use crate::mutation::{ItemRef, Mutation, OwnedItem};
use crate::version::{Version, stable_hash, stable_hash_with};

/// The name that a compare-and-swap is remembered by: its version is a token with its time, or a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SwapKey {
    pub(crate) namespace: NamespaceId,
    pub(crate) version: Version,
}

/// Which of the calls with one version it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SwapCall {
    /// Hash of id and key.
    pub(crate) subject: u64,
    /// See [`Mutation::digest`].
    pub(crate) digest: Option<u64>,
}

/// The relation of a call to a remembered one with the same version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// It is that call once more.
    Repeat,
    /// It is another one under a token that was used.
    Reuse,
    /// It is another one, as far as can be told: one of the two says nothing but what it is about.
    Stranger,
}

/// The first answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Swapped,
    /// With the item as it was then.
    NotSwapped(Option<OwnedItem>),
    /// The item was too large to remember; show it as it is.
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

/// Whether an item that carries the version of a forgotten swap is what that swap would have left.
pub(crate) fn is_left_by(current: Option<&ItemRef<'_>>, replacement: Option<&ItemRef<'_>>) -> bool {
    match (current, replacement) {
        (Some(current), Some(item)) => (current.value, current.compression) == (item.value, item.compression),
        // What it wrote may have expired, if it had a time to live.
        (None, Some(item)) => item.expires_at.is_some(),
        (None, None) => true,
        (Some(_), None) => false,
    }
}

impl Verdict {
    /// What to remember of a refusal that found this item.
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
