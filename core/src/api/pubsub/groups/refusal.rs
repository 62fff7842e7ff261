//! Refusals of calls about groups, and the ends of their streams.

use std::time::Duration;

use prism_backends::api::groups::{GROUPS_MAX, MEMBERS_MAX, Outcome};
use prism_codec::grpc::{Code, Status};

use crate::{api::pubsub::reads, call::error};

/// Whether an act took place.
///
/// # Errors
/// Why it did not.
pub(in crate::api::pubsub) fn judge(group: &str, outcome: Outcome) -> Result<(), Box<Status>> {
    match outcome {
        Outcome::Renewed(_) | Outcome::Left | Outcome::Reset | Outcome::Deleted | Outcome::Unmade => Ok(()),
        Outcome::Committed(lost) if lost.is_empty() => Ok(()),
        Outcome::Committed(lost) => Err(partition_lost(&lost)),
        Outcome::Gone => Err(group_reset(group)),
        Outcome::OtherTopics(topics) => Err(other_topics(group, &topics)),
        Outcome::GroupsFull => Err(groups_full()),
        Outcome::MembersFull => Err(members_full(group)),
        Outcome::PositionInvalid => Err(position_invalid("start.position")),
        Outcome::PositionExpired(oldest) => Err(reads::position_expired(oldest)),
        Outcome::Refused(cause) => Err(error::from_store(&cause)),
    }
}

/// The store of the namespace keeps no groups.
pub(in crate::api::pubsub) fn no_groups() -> Box<Status> {
    Box::new(
        Status::new(
            Code::Unimplemented,
            "group: the store of this namespace keeps no groups of subscribers; leave group out, and keep the position of \
             the last answer, or use a namespace on memory or SQLite",
        )
        .with_reason("STORE_LACKS", &[("field", "group")]),
    )
}

fn partition_lost(lost: &[u16]) -> Box<Status> {
    let names: Vec<String> = lost.iter().map(u16::to_string).collect();
    Box::new(
        Status::new(
            Code::Aborted,
            format!(
                "other members of the group have partitions {} now, whose messages come to them again; the rest was committed: \
                 go on",
                names.join(", ")
            ),
        )
        .with_reason("PARTITION_LOST", &[("partitions", &names.join(","))]),
    )
}

/// The group has another life than the one that the caller knows.
pub(in crate::api::pubsub) fn group_reset(group: &str) -> Box<Status> {
    Box::new(
        Status::new(
            Code::Aborted,
            format!("group \"{group}\" was reset or deleted; nothing was committed: subscribe again"),
        )
        .with_reason("GROUP_RESET", &[("group", group)]),
    )
}

/// A member had messages and committed nothing for too long.
pub(in crate::api::pubsub) fn commit_timeout(group: &str, timeout: Duration) -> Box<Status> {
    Box::new(
        Status::new(
            Code::Aborted,
            format!(
                "nothing was committed to group \"{group}\" for {} ms (commit_timeout), so other members have the partitions of \
                 this one now; subscribe again",
                timeout.as_millis()
            ),
        )
        .with_reason("COMMIT_TIMEOUT", &[("group", group)]),
    )
}

fn other_topics(group: &str, topics: &[String]) -> Box<Status> {
    let topics = match topics {
        [] => "all topics".to_owned(),
        some => some.join(", "),
    };
    error::invalid(
        "topics",
        &format!(
            "must be those of group \"{group}\": {topics}; name them, use another group, or delete this one first"
        ),
    )
}

fn groups_full() -> Box<Status> {
    Box::new(
        Status::new(
            Code::ResourceExhausted,
            format!("the namespace has {GROUPS_MAX} groups, the most that it may have; nothing was done: delete some"),
        )
        .with_reason("GROUPS_FULL", &[("limit", &GROUPS_MAX.to_string())]),
    )
}

fn members_full(group: &str) -> Box<Status> {
    Box::new(
        Status::new(
            Code::ResourceExhausted,
            format!(
                "group \"{group}\" has {MEMBERS_MAX} subscribers, the most that it may have; more than partitions have nothing \
                 to do"
            ),
        )
        .with_reason("OVERLOADED", &[]),
    )
}

/// A position is none of this group.
pub(in crate::api::pubsub) fn position_invalid(field: &str) -> Box<Status> {
    let why = "is not a position of this namespace and group; send one of an answer to a subscription of it";
    Box::new(
        Status::new(Code::InvalidArgument, format!("{field}: {why}"))
            .with_reason("POSITION_INVALID", &[("field", field)])
            .with_violations(&[(field, why)]),
    )
}
