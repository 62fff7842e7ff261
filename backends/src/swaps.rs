//! How a repeated compare-and-swap is recognised, and which first answer it gets; the same in every store.

use crate::ids::NamespaceId;
use crate::limits::SWAP_VALUE_REMEMBERED_MAX;
use crate::mutation::{ItemRef, OwnedItem};
use crate::version::{Version, stable_hash, stable_hash_with};

/// Names one compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SwapKey {
    pub(crate) namespace: NamespaceId,
    pub(crate) version: Version,
    /// Hash of id and key, so that one token used for two items names two calls.
    pub(crate) subject: u64,
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

impl SwapKey {
    pub(crate) fn new(namespace: NamespaceId, version: Version, id: &str, key: &[u8]) -> SwapKey {
        SwapKey {
            namespace,
            version,
            subject: stable_hash_with(stable_hash(id.as_bytes()), key),
        }
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
