//! Facts about a write, in addition to its bytes, that the log needs.

use smallvec::SmallVec;

/// The keys that a write may change, and the token that identifies its repeats.
#[derive(Debug)]
pub(crate) struct Footprint<'a> {
    /// Each of them has one owner among the shards; a key may occur more than once.
    pub(crate) keys: SmallVec<[&'a str; 1]>,
    pub(crate) token: Option<CallToken<'a>>,
}

/// The idempotency token of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallToken<'a> {
    /// Generation time from the client, if it sent one: seconds since 1970 and nanoseconds.
    pub(crate) time: Option<(i64, i32)>,
    pub(crate) token: &'a [u8],
    /// Digest that distinguishes repeats of the call from other calls under its token.
    pub(crate) digest: u64,
}
