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
