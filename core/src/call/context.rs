//! What decides the effect of a call beside its message.

use prism_backends::{NamespaceId, UnixMillis};

use super::ticket::Stamp;

/// What a request needs to know of its namespace and of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) namespace: NamespaceId,
    pub(crate) default_ttl_ms: Option<u64>,
    pub(crate) now: UnixMillis,
    pub(crate) stamp: Stamp,
}
