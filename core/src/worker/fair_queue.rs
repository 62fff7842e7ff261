//! A queue in which namespaces take turns, so that one that floods it delays the others by one
//! turn.

use std::collections::VecDeque;

use prism_backends::NamespaceId;
use rustc_hash::FxHashMap;

/// Tasks in order within a namespace, namespaces in turn.
pub(super) struct FairQueue<T> {
    /// Each task with its weight.
    by_namespace: FxHashMap<u32, VecDeque<(usize, T)>>,
    /// Namespaces with tasks, in the order of their turns.
    turns: VecDeque<u32>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            by_namespace: FxHashMap::default(),
            turns: VecDeque::new(),
        }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn push(&mut self, NamespaceId(namespace): NamespaceId, weight: usize, task: T) {
        let tasks = self.by_namespace.entry(namespace).or_default();
        if tasks.is_empty() {
            self.turns.push_back(namespace);
        }
        tasks.push_back((weight, task));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Takes tasks in turn until they weigh `weight` or more.
    pub(super) fn take(&mut self, weight: usize) -> Vec<T> {
        let mut taken = Vec::new();
        let mut sum = 0;
        while sum < weight
            && let Some(namespace) = self.turns.pop_front()
        {
            let Some(tasks) = self.by_namespace.get_mut(&namespace) else {
                continue;
            };
            if let Some((weight, task)) = tasks.pop_front() {
                sum += weight;
                taken.push(task);
            }
            if tasks.is_empty() {
                self.by_namespace.remove(&namespace);
            } else {
                self.turns.push_back(namespace);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_namespace_delays_another_by_one_turn() {
        let mut queue = FairQueue::default();
        for number in 0..1_000 {
            queue.push(NamespaceId(1), 1, (1, number));
        }
        queue.push(NamespaceId(2), 1, (2, 7));
        assert_eq!(queue.take(2), [(1, 0), (2, 7)]);
        let rest = queue.take(usize::MAX);
        let in_order: Vec<_> = (1..1_000).map(|number| (1, number)).collect();
        assert_eq!(rest, in_order, "order within a namespace");
        assert!(queue.by_namespace.is_empty() && queue.turns.is_empty());
    }
}
