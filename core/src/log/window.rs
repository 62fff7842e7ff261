//! The idempotency window: recent writes with a token, and their answers.
//!
//! A repeat is answered like the first call, without a second record; another call under the same
//! token is refused. Bounded: a new entry replaces the oldest. The store recognises calls older
//! than the window, as its versions make a repeat harmless; only its LSN is then a new one. Rebuilt
//! from the log at start.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use prism_backends::NamespaceId;
use rustc_hash::FxHashMap;

use crate::call::{event::RecordId, footprint::CallToken, ticket::Stamp};

/// Entries of one shard's window. About 70 bytes each.
pub(crate) const ENTRIES_MAX: usize = 65_536;

/// A token with its time, in a namespace: two independent 64-bit hashes, keyed by this process's
/// own randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallKey(u64, u64);

/// A call that carries a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenCall {
    pub(crate) key: CallKey,
    /// Digest that distinguishes its repeats from other calls.
    pub(crate) digest: u64,
}

/// The token belongs to a call with another digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenReused;

/// The first call with its token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct First {
    pub(crate) record: RecordId,
    pub(crate) stamp: Stamp,
}

/// A maker of keys. Clones make the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallHasher(RandomState, RandomState);

impl CallHasher {
    /// The identity of a call with this token.
    pub(crate) fn call(&self, namespace: NamespaceId, token: &CallToken<'_>) -> TokenCall {
        let subject = (namespace.0, token.time, token.token);
        TokenCall {
            key: CallKey(self.0.hash_one(subject), self.1.hash_one(subject)),
            digest: token.digest,
        }
    }
}

/// The window of one shard.
#[derive(Debug)]
pub(crate) struct Window<T> {
    hasher: CallHasher,
    seen: FxHashMap<CallKey, (u64, T)>,
    order: VecDeque<CallKey>,
    max: usize,
}

/// The calls to which the tokens that a shard owns belong.
pub(crate) type Claims = Window<()>;

impl<T: Copy> Window<T> {
    /// Makes a window that remembers at most `max` calls.
    pub(crate) fn new(hasher: CallHasher, max: usize) -> Self {
        Self {
            hasher,
            seen: FxHashMap::default(),
            order: VecDeque::new(),
            max,
        }
    }

    /// The maker of this window's keys.
    pub(crate) fn hasher(&self) -> &CallHasher {
        &self.hasher
    }

    /// The first call, if this one is its repeat; `None` if the token is new to the window.
    pub(crate) fn first(&self, call: TokenCall) -> Result<Option<T>, TokenReused> {
        match self.seen.get(&call.key) {
            Some((digest, _)) if *digest != call.digest => Err(TokenReused),
            found => Ok(found.map(|(_, first)| *first)),
        }
    }

    /// Remembers a call. The first one with its token stays.
    pub(crate) fn remember(&mut self, call: TokenCall, first: T) {
        if self.seen.contains_key(&call.key) {
            return;
        }
        if self.order.len() >= self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(call.key, (call.digest, first));
        self.order.push_back(call.key);
    }
}

#[cfg(test)]
mod tests {
    use prism_wal::ids::{LaneId, Lsn};

    use super::*;

    #[test]
    fn the_first_answer_stays_others_are_refused_and_the_oldest_gives_way() {
        let mut window = Window::new(CallHasher::default(), 3);
        let call = |number| TokenCall {
            key: CallKey(number, number),
            digest: number,
        };
        let first = |number| First {
            record: RecordId {
                lane: LaneId(1),
                lsn: Lsn(number),
            },
            stamp: Stamp {
                time_ns: 0,
                shard: 0,
                gateway: 0,
            },
        };
        let found = |window: &Window<First>, number| {
            let first = window.first(call(number)).expect("the same call");
            first.map(|first| first.record.lsn)
        };
        for number in 1..=3 {
            window.remember(call(number), first(number));
        }
        window.remember(call(2), first(99));
        assert_eq!(found(&window, 2), Some(Lsn(2)));
        window.remember(call(4), first(4));
        assert_eq!(found(&window, 1), None);
        assert_eq!(found(&window, 4), Some(Lsn(4)));
        assert_eq!((window.seen.len(), window.order.len()), (3, 3));
        let other = TokenCall {
            digest: 99,
            ..call(4)
        };
        assert_eq!(window.first(other).map(drop), Err(TokenReused));
        window.remember(other, first(99));
        assert_eq!(
            found(&window, 4),
            Some(Lsn(4)),
            "the token stays the first call's"
        );
    }
}
