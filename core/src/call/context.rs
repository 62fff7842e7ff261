//! Facts in addition to the message that decide the effect of a call.

use prism_backends::{NamespaceId, UnixMillis};

use super::ticket::Stamp;

/// Facts about the namespace and the time that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) namespace: NamespaceId,
    pub(crate) default_ttl_ms: Option<u64>,
    pub(crate) now: UnixMillis,
    pub(crate) stamp: Stamp,
}
