//! The memory of recent answers to compare-and-swap, so that a repeat gets the first answer. Bounded: the oldest
//! answer gives way.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use crate::limits::{SWAP_VALUE_REMEMBERED_MAX, SWAPS_REMEMBERED_MAX};
use crate::mutation::{ItemRef, NamespaceId, OwnedItem};
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

/// The last [`SWAPS_REMEMBERED_MAX`] answers.
#[derive(Debug, Default)]
pub(super) struct SwapMemory {
    verdicts: HashMap<SwapKey, Verdict, FxBuildHasher>,
    order: VecDeque<SwapKey>,
}

impl SwapMemory {
    pub(super) fn recall(&self, key: &SwapKey) -> Option<&Verdict> {
        self.verdicts.get(key)
    }

    pub(super) fn remember(&mut self, key: SwapKey, verdict: Verdict) {
        if self.order.len() >= SWAPS_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
        if self.verdicts.insert(key, verdict).is_none() {
            self.order.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = SwapMemory::default();
        let key = |number: i64| SwapKey::new(NamespaceId(1), Version::new(number, b"t"), "id", b"key");
        for number in 0..SWAPS_REMEMBERED_MAX as i64 + 5 {
            memory.remember(key(number), Verdict::Swapped);
        }
        assert_eq!(memory.order.len(), SWAPS_REMEMBERED_MAX);
        assert_eq!(memory.verdicts.len(), SWAPS_REMEMBERED_MAX);
        assert!(memory.recall(&key(4)).is_none());
        assert_eq!(memory.recall(&key(5)), Some(&Verdict::Swapped));
    }
}
