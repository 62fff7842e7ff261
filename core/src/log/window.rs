//! The idempotency window: writes whose token was seen lately, and the answers they got.
//!
//! A repeat is answered like the first time, without a second record. Bounded: the oldest entry gives way. What is older
//! than the window is recognised by the store, whose versions make a repeat harmless; only its LSN is then a new one.
//! Rebuilt from the log at start.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use prism_backends::NamespaceId;
use prism_codec::method::KeyValueMethod;
use prism_wal::ids::{LaneId, Lsn};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{api::keyvalue::Request, call::ticket::Stamp};

/// Entries of one shard's window. About 60 bytes each.
pub(crate) const ENTRIES_MAX: usize = 65_536;

/// Names one call that carries a token: two independent 64-bit hashes of it, keyed by this process's own randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallKey(u64, u64);

/// Where a write stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lane: LaneId,
    pub(crate) lsn: Lsn,
}

/// The first call of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct First {
    pub(crate) place: Place,
    pub(crate) stamp: Stamp,
}

/// Makes keys. Clones make the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallHasher(RandomState, RandomState);

impl CallHasher {
    /// The key of a request, if it carries a token. A repeat is the same call in all of its bytes: a client that uses a
    /// token for another write by mistake does not lose that one, it is left to the order of versions.
    pub(crate) fn key(
        &self,
        namespace: NamespaceId,
        method: KeyValueMethod,
        request: &Request<'_>,
        body: &[u8],
    ) -> Option<CallKey> {
        let token = request.token()?.token;
        // A client that finds two calls with one sum confuses its own writes only.
        let sum = FxBuildHasher.hash_one(body);
        let subject = (namespace.0, method as u8, body.len(), sum, token);
        Some(CallKey(self.0.hash_one(subject), self.1.hash_one(subject)))
    }
}

/// The window of one shard. See the module.
#[derive(Debug)]
pub(crate) struct Window {
    hasher: CallHasher,
    seen: FxHashMap<CallKey, First>,
    order: VecDeque<CallKey>,
    max: usize,
}

impl Window {
    /// A window that remembers at most `max` calls.
    pub(crate) fn new(hasher: CallHasher, max: usize) -> Self {
        Self {
            hasher,
            seen: FxHashMap::default(),
            order: VecDeque::new(),
            max,
        }
    }

    /// Makes the keys of this window.
    pub(crate) fn hasher(&self) -> &CallHasher {
        &self.hasher
    }

    /// The record of the first call with this key.
    pub(crate) fn first(&self, key: CallKey) -> Option<First> {
        self.seen.get(&key).copied()
    }

    /// Remembers a call. The first answer stays.
    pub(crate) fn remember(&mut self, key: CallKey, first: First) {
        if self.seen.contains_key(&key) {
            return;
        }
        if self.order.len() >= self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(key, first);
        self.order.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_stays_and_the_oldest_gives_way() {
        let mut window = Window::new(CallHasher::default(), 3);
        let key = |number| CallKey(number, number);
        let first = |number| First {
            place: Place {
                lane: LaneId(1),
                lsn: Lsn(number),
            },
            stamp: Stamp { time_ns: 0, shard: 0 },
        };
        let found = |window: &Window, number| window.first(key(number)).map(|first| first.place.lsn);
        for number in 1..=3 {
            window.remember(key(number), first(number));
        }
        window.remember(key(2), first(99));
        assert_eq!(found(&window, 2), Some(Lsn(2)));
        window.remember(key(4), first(4));
        assert_eq!(found(&window, 1), None);
        assert_eq!(found(&window, 4), Some(Lsn(4)));
        assert_eq!((window.seen.len(), window.order.len()), (3, 3));
    }
}
