//! Groups of subscribers: the store keeps one place for all members of a group, and leases its
//! partitions to them.
//!
//! A group is one record ([`Group`]). What an act does to it is the same in every store
//! (`Group::act`); a store only has to read the record, let the act change it, and write it back
//! as one step: under a lock, in a transaction, or by a revision that must not have changed. Time
//! is the store's clock.
//!
//! ```text
//!   join ──> renew every third of the lease ──> leave, or the lease ends
//!              └─ answered with what the member holds, from which place on, and what it must give up
//! ```
//!
//! A partition is with one member at a time. Its epoch grows with each holder, so a commit of a
//! former one is recognised. A generation names one life of a group: a reset begins a new one.

mod machine;
mod record;

use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId, UnixMillis};

pub use super::pubsub::Start;
pub use machine::{Changed, Group};

/// Most groups of a namespace.
pub const GROUPS_MAX: usize = 1_000;

/// Most members of a group.
pub const MEMBERS_MAX: usize = 1_000;

/// Messages after a group's place that are counted one by one; beyond them the count is an upper
/// bound.
pub const COUNTED_MAX: usize = 10_000;

/// Durations of a group's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Time after its last sign of life at which a member is taken for dead.
    pub lease_ms: u64,
    /// Time that a member gets to commit before a partition is taken from it.
    pub handover_ms: u64,
}

/// One act on one group.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// Namespace of the group.
    pub namespace: NamespaceId,
    /// Name of the group; 1 to 64 bytes.
    pub group: &'a str,
    /// Now.
    pub at: UnixMillis,
    /// The act.
    pub act: Act<'a>,
}

/// An act on a group.
#[derive(Clone, Debug)]
pub enum Act<'a> {
    /// A member's sign of life; the first one makes it a member.
    Renew(Renew<'a>),
    /// A member gives up everything.
    Leave {
        /// The member.
        member: u64,
        /// Durations for those that stay.
        terms: Terms,
    },
    /// Notes that everything before these numbers is done.
    Commit {
        /// Life of the group of which the caller got its messages.
        generation: u64,
        /// A place for each partition.
        places: &'a [Done],
    },
    /// Moves the group to another place, and makes it if there is none.
    Reset {
        /// Number of the new life: larger than those of all earlier calls.
        stamp: u64,
        /// Digest of the caller's token, by which a repeat is recognised; 0: it has none.
        call: u64,
        /// Number of partitions of the namespace.
        partitions: u16,
        /// Topics of a new group; of one that exists, none or the same.
        topics: &'a [String],
        /// The place.
        to: To<'a>,
    },
    /// Forgets the group.
    Delete {
        /// Number of this call, as of a reset: a group that was made later stays.
        stamp: u64,
    },
}

/// A member's sign of life.
#[derive(Clone, Copy, Debug)]
pub struct Renew<'a> {
    /// Number of the member, which no other one has.
    pub member: u64,
    /// Durations.
    pub terms: Terms,
    /// Topics that it names; all members name the same.
    pub topics: &'a [String],
    /// Life of the group that it knows; `None`: it joins now.
    pub generation: Option<u64>,
    /// The makings of the group if there is none: the number of its life, and a place for each
    /// partition.
    pub making: Option<(u64, &'a [Start])>,
    /// Partitions that it gives up.
    pub released: &'a [Held],
    /// Places up to which a partition holds nothing that the member must commit.
    pub passed: &'a [Done],
}

/// A partition in the hands of one holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The partition.
    pub partition: u16,
    /// Number of its holder since the group was made.
    pub epoch: u32,
}

/// A place within a partition, as a holder saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The partition and its holder.
    pub held: Held,
    /// Number of the next message of the partition, or one before it.
    pub next: u64,
}

/// New place of a group.
#[derive(Clone, Copy, Debug)]
pub enum To<'a> {
    /// The same for all partitions.
    Start(Start),
    /// These numbers for these partitions; the others stay. With the digest of the topics from
    /// which they came.
    Numbers(&'a [(u16, u64)], u64),
}

/// Result of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The member is in the group.
    Renewed(Report),
    /// The member is not, or not any more, in the group.
    Left,
    /// The place is noted, except in these partitions, which are with another member.
    Committed(Vec<u16>),
    /// The group is where it was to be, or was there already.
    Reset,
    /// There is no such group.
    Deleted,
    /// There is no such group, and nothing to make it with.
    Unmade,
    /// The group was reset or deleted since.
    Gone,
    /// The group has these topics.
    OtherTopics(Vec<String>),
    /// The namespace has its most groups.
    GroupsFull,
    /// The group has its most members.
    MembersFull,
    /// The wanted place is none of this group's messages.
    PositionInvalid,
    /// Messages after the wanted place are gone; the oldest that is left has this time.
    PositionExpired(Option<UnixMillis>),
    /// The store does not take it.
    Refused(StoreError),
}

/// Knowledge of a member after a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Life of the group.
    pub generation: u64,
    /// Number that grows when partitions change hands.
    pub shape: u64,
    /// Number that grows when a place moves.
    pub moves: u64,
    /// The store's time.
    pub now: UnixMillis,
    /// Partitions that the member holds, in order.
    pub held: Vec<Holding>,
}

/// A partition that a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The partition and its holder.
    pub held: Held,
    /// The group's place in it. Never [`Start::Latest`].
    pub place: Start,
    /// Whether another member waits for it.
    pub give_up: bool,
}

/// A group as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name.
    pub name: String,
    /// Patterns of its topics; none: all.
    pub topics: Vec<String>,
    /// Living members.
    pub members: usize,
    /// Partitions.
    pub partitions: usize,
    /// Partitions that a living member holds.
    pub held: usize,
    /// Messages after the group's place, of all topics.
    pub behind: u64,
    /// Time of the oldest of them.
    pub oldest_behind: Option<UnixMillis>,
    /// Time of the last commit.
    pub last_commit: Option<UnixMillis>,
}

/// The part of a store that keeps groups. Without an implementation of its own a store has none.
#[allow(
    async_fn_in_trait,
    reason = "dispatch is by a closed enum on one thread; no Send bound is wanted"
)]
pub trait Groups {
    /// Carries out acts in their order; `outcomes` is cleared and gets one outcome for each. On
    /// `Err` none took place (after [`StoreError::Io`]: perhaps all did).
    ///
    /// `at` is the place of the batch's last record in a gateway's log, as in
    /// [`super::pubsub::Writes::publish`].
    async fn change_groups(
        &self,
        changes: &[Change<'_>],
        at: Option<&LogPosition>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        let _ = (at, changes);
        outcomes.clear();
        Err(no_groups())
    }

    /// Lists at most `limit` groups of a namespace in the order of their names, from the first one
    /// after `after` on.
    async fn list_groups(
        &self,
        namespace: NamespaceId,
        after: &str,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<Listed>, StoreError> {
        let _ = (namespace, after, limit, now);
        Err(no_groups())
    }
}

/// Groups whose partitions or places have changed, for whoever wakes the streams that wait for
/// that.
#[derive(Debug, Default)]
pub struct GroupNews(Vec<GroupChange>);

/// A group that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupChange {
    /// Namespace of the group.
    pub namespace: NamespaceId,
    /// Name of the group.
    pub group: String,
    /// The larger of its changes.
    pub changed: Changed,
}

impl GroupNews {
    /// Notes a change. A group is there once.
    pub(crate) fn add(&mut self, namespace: NamespaceId, group: &str, changed: Changed) {
        if changed < Changed::Places {
            return;
        }
        let is_it = |one: &&mut GroupChange| one.namespace == namespace && one.group == group;
        match self.0.iter_mut().find(is_it) {
            Some(known) => known.changed = known.changed.max(changed),
            None => self.0.push(GroupChange {
                namespace,
                group: group.to_owned(),
                changed,
            }),
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all.
    pub(crate) fn take(&mut self) -> Vec<GroupChange> {
        std::mem::take(&mut self.0)
    }
}

fn no_groups() -> StoreError {
    StoreError::invalid("group", "this store keeps no groups of subscribers")
}

/// A digest of a subscription's patterns.
pub fn topics_digest<'a>(patterns: impl Iterator<Item = &'a str>) -> u64 {
    let mut digest = crate::digest::Digest::default();
    patterns.for_each(|pattern| digest.bytes(pattern.as_bytes()));
    digest.finish()
}
