//! Numbers and moments that identify things throughout this crate.

/// Number of a namespace. The catalog assigns numbers and never assigns one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub u32);

/// A moment, in milliseconds since 1970, UTC. Always passed in; stores read no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The moment `milliseconds` after this one, at most the end of time.
    pub fn plus(self, milliseconds: u64) -> UnixMillis {
        // SQLite's integers are signed, so the end of time is their maximum.
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
    /// Lane of the log, counted from 1.
    pub lane: u32,
    /// Namespace of the records.
    pub namespace: NamespaceId,
    /// LSN of the last applied record in its lane; at most 2^63 - 1.
    pub lsn: u64,
}
