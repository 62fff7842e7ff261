//! The memory of recent answers to compare-and-swap, so that a repeat gets the first answer.
//! Bounded: a new answer replaces the oldest.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use crate::limits::SWAPS_REMEMBERED_MAX;
use crate::swaps::{SwapCall, SwapKey, Verdict};

/// The last [`SWAPS_REMEMBERED_MAX`] answers.
#[derive(Debug, Default)]
pub(super) struct SwapMemory {
    verdicts: HashMap<SwapKey, (SwapCall, Verdict), FxBuildHasher>,
    order: VecDeque<SwapKey>,
}

impl SwapMemory {
    /// The last call with this version, and its answer.
    pub(super) fn recall(&self, key: &SwapKey) -> Option<&(SwapCall, Verdict)> {
        self.verdicts.get(key)
    }

    pub(super) fn remember(&mut self, key: SwapKey, call: SwapCall, verdict: Verdict) {
        if self.order.len() >= SWAPS_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
        if self.verdicts.insert(key, (call, verdict)).is_none() {
            self.order.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::NamespaceId, version::Version};

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = SwapMemory::default();
        let key = |number: i64| SwapKey {
            namespace: NamespaceId(1),
            version: Version::new(number, b"t"),
        };
        let call = SwapCall {
            subject: 1,
            digest: Some(2),
        };
        for number in 0..SWAPS_REMEMBERED_MAX as i64 + 5 {
            memory.remember(key(number), call, Verdict::Swapped);
        }
        assert_eq!(memory.order.len(), SWAPS_REMEMBERED_MAX);
        assert_eq!(memory.verdicts.len(), SWAPS_REMEMBERED_MAX);
        assert!(memory.recall(&key(4)).is_none());
        assert_eq!(memory.recall(&key(5)), Some(&(call, Verdict::Swapped)));
    }
}
