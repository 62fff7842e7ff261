//! Numbers and moments that everything here is named by.

/// Number of a namespace. The catalog gives them out and never gives one out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub u32);

/// A moment, in milliseconds since 1970, UTC. Always passed in; stores read no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This moment and `milliseconds` more, at most the end of time.
    pub fn plus(self, milliseconds: u64) -> UnixMillis {
        // SQLite's integers are signed, so the end of time is theirs.
        UnixMillis(self.0.saturating_add(milliseconds).min(i64::MAX as u64))
    }
}

/// Identity of a gateway's log: 128 random bits, made with its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u128);

/// Place in a gateway's log up to which a namespace's records have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The log, since several gateways may share a store.
    pub log: LogId,
    /// One of its lanes, counted from 1.
    pub lane: u32,
    /// Namespace whose records are meant.
    pub namespace: NamespaceId,
    /// Number of the last record that was applied, in its lane; at most 2^63 - 1.
    pub lsn: u64,
}
