//! The address of a call, and the time at which its write was made.

use prism_backends::NamespaceId;
use prism_codec::h2::StreamId;

use crate::identity::CallerId;

/// Address of an answer: one call of one connection of one shard. A ticket whose connection or call
/// is gone is recognised by its generation, so an answer never reaches another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(crate) shard: u16,
    /// Place in the shard's table of connections.
    pub(crate) slot: u32,
    /// Number of uses of that place so far.
    pub(crate) generation: u32,
    pub(crate) call: CallId,
    /// Namespace whose quota of waiting calls includes this one; 0 for none.
    pub(crate) namespace: NamespaceId,
    /// Who calls, as its shard knows it.
    pub(crate) caller: CallerId,
}

impl Ticket {
    /// Whether the control thread answers this call: it counts against no namespace.
    pub(crate) fn is_for_control(&self) -> bool {
        self.namespace == NamespaceId(0)
    }
}

/// One call within a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CallId {
    /// A stream of an HTTP/2 connection.
    Stream(StreamId),
    /// The request with this number on an HTTP/1.1 connection.
    Request(u64),
}

/// Time of a write, for requests whose client gave no idempotency token, or one without a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Nanoseconds since 1970, UTC; see [`crate::runtime::clock`].
    pub(crate) time_ns: i64,
    /// Number of the shard, which separates stamps of different shards.
    pub(crate) shard: u16,
    /// Number of the gateway, which separates stamps of different gateways: a hash of the identity
    /// of the gateway's log, 0 without one.
    pub(crate) gateway: u32,
}
