//! What the log must know of a write beside its bytes.

use smallvec::SmallVec;

/// The keys that a write may change, and the token by which its repeats are recognised.
#[derive(Debug)]
pub(crate) struct Footprint<'a> {
    /// Each of them has one owner among the shards; perhaps the same key more than once.
    pub(crate) keys: SmallVec<[&'a str; 1]>,
    pub(crate) token: Option<CallToken<'a>>,
}

/// The idempotency token of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallToken<'a> {
    /// When the client made it, if it says so: seconds since 1970 and nanoseconds.
    pub(crate) time: Option<(i64, i32)>,
    pub(crate) token: &'a [u8],
    /// Tells repeats of the call from other calls under its token.
    pub(crate) digest: u64,
}
