//! The numbers of the log, each a type of its own so that two of them cannot be swapped by
//! accident.
//!
//! All of them count from 1; 0 means "none yet". Every one is strictly increasing within its scope:
//!
//! | number | scope | grows |
//! |---|---|---|
//! | [`LaneId`] | a log directory | never reused for another stream |
//! | [`Epoch`] | a lane | +1 at every recovery |
//! | [`SegmentNumber`] | a lane | +1 for every file prepared, also for a recycled one |
//! | [`GroupNumber`] | a lane | +1 for every durable write; a cut group's number is used again, in a later epoch |
//! | [`Lsn`] | a lane | +1 for every record; a cut record's number is used again, in a later epoch |
//!
//! So `(lane, epoch, lsn)` names one record for ever, and `(epoch, group)` is a nonce that cannot
//! repeat.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// "None yet": smaller than every real number.
            pub const NONE: Self = Self(0);

            /// The number after this one.
            ///
            /// # Panics
            /// When the number space is used up, which takes longer than any disk lives (and is
            /// refused by every decoder before it can come from a file).
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("the number space outlives every disk"))
            }

            /// The number before this one; "none yet" stays what it is.
            #[must_use]
            pub fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number! {
    /// Number of a record within its lane: dense, from 1.
    Lsn(u64)
}
number! {
    /// One log stream on disk. Lane numbers outlive a change in the number of shards. Counts from
    /// 0: a lane always exists.
    LaneId(u32)
}
number! {
    /// Incarnation of a lane: one more at every recovery, so that remains of a cut tail are never
    /// mistaken for new data.
    Epoch(u32)
}
number! {
    /// Number of a group (one durable write) within its lane.
    GroupNumber(u64)
}
number! {
    /// Number of a segment within its lane. A recycled file gets a new number.
    SegmentNumber(u64)
}
number! {
    /// Whom a record is for: the log's only notion of a store. One cursor is kept for each. The
    /// gateway gives every pair of namespace and store its own.
    TargetId(u32)
}

/// The largest number that a decoder accepts, far from where `next` would overflow.
pub const NUMBER_MAX: u64 = 1 << 62;
