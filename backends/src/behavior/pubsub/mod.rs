//! The behaviour suite of PubSub, for all stores and for the gateway in front of them.
//!
//! Like KeyValue's ([`super`]): cases use a [`Client`] with owned types, and each asks the
//! [`Harness`] for an empty namespace of its own. Each carries the number of the promise that it
//! checks, and the features that it needs.

mod cases;
mod groups;
pub mod local;
mod starts;

use std::time::Duration;

use super::{Failure, WriteToken};
use crate::api::groups::{Act, Outcome};
use crate::offer::{Features, Offer};

/// A message as its publisher sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Topic.
    pub topic: String,
    /// Ordering key.
    pub key: String,
    /// Names and values, by name.
    pub attributes: Vec<(String, String)>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// A message as a subscriber gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Id of the message.
    pub id: Vec<u8>,
    /// The message.
    pub message: Sent,
    /// Time at which the store took it, in milliseconds since 1970.
    pub time_ms: u64,
}

/// One answer of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Messages, in order.
    pub messages: Vec<Received>,
    /// Number of messages missing before these; 0 means that it is unknown.
    pub gap: Option<u64>,
    /// Position right after these messages, from which a subscription can begin.
    pub position: Vec<u8>,
    /// Whether nothing more comes until something is committed.
    pub is_waiting: bool,
}

/// Start of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next message that is published.
    Latest,
    /// With the oldest message.
    Earliest,
    /// With the first message at this time or later, in milliseconds since 1970.
    Time(u64),
    /// After the answer that held this position.
    Position(Vec<u8>),
}

/// Calls on one namespace.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait Client {
    /// An open subscription.
    type Subscription: Subscription;

    /// Publishes one message. Returns its id.
    async fn publish(&mut self, token: Option<&WriteToken>, message: &Sent) -> Result<Vec<u8>, Failure>;

    /// Publishes many messages. Returns the id of each, or why it was refused.
    async fn publish_batch(
        &mut self,
        token: Option<&WriteToken>,
        messages: &[Sent],
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure>;

    /// Subscribes to patterns of topics (none: all), and waits for the first answer.
    async fn subscribe(&mut self, topics: &[&str], start: &Start) -> Result<Self::Subscription, Failure>;
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the group.
    pub group: String,
    /// Patterns of topics; none: all.
    pub topics: Vec<String>,
    /// Place of a group that is made by it.
    pub start: Start,
    /// Most messages that are not committed; 0: the default.
    pub uncommitted_max: u32,
    /// Longest time without a commit.
    pub commit_timeout: Option<Duration>,
}

impl Member {
    /// A member of a group of all topics that begins with the oldest message.
    pub fn of(group: &str) -> Member {
        Member {
            group: group.to_owned(),
            topics: Vec::new(),
            start: Start::Earliest,
            uncommitted_max: 0,
            commit_timeout: None,
        }
    }
}

/// A group as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSeen {
    /// Name.
    pub name: String,
    /// Patterns of topics.
    pub topics: Vec<String>,
    /// Members.
    pub subscribers: u32,
    /// Partitions of the namespace.
    pub partitions: u32,
    /// Partitions that somebody holds.
    pub held: u32,
    /// Messages after the group's place.
    pub behind: u64,
    /// Whether something was ever committed.
    pub is_committed: bool,
}

/// Calls about groups on one namespace.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait GroupClient: Client {
    /// Joins a group, and waits for the first answer. Through a gateway only.
    async fn join(&mut self, member: &Member) -> Result<Self::Subscription, Failure>;

    /// Commits a position. Through a gateway only.
    async fn commit(&mut self, group: &str, position: &[u8]) -> Result<(), Failure>;

    /// Moves a group to another place. Through a gateway only.
    async fn reset(&mut self, group: &str, start: &Start, token: Option<&WriteToken>) -> Result<(), Failure>;

    /// Deletes a group. Through a gateway only.
    async fn delete_group(&mut self, group: &str) -> Result<(), Failure>;

    /// Lists all groups.
    async fn groups(&mut self) -> Result<Vec<GroupSeen>, Failure>;

    /// Carries out an act. At a store only.
    async fn act(&mut self, group: &str, act: &Act<'_>) -> Outcome;
}

/// A subscription.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait Subscription {
    /// The next answer that has messages or a gap; `None` if none comes within `wait`.
    async fn next(&mut self, wait: Duration) -> Result<Option<Answer>, Failure>;

    /// Position of the last answer, the first one included.
    fn position(&self) -> Vec<u8>;
}

/// Environment in which the suite runs.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait Harness {
    /// How cases reach the store.
    type Client: GroupClient;

    /// A client on a new, empty namespace, ordered, whose messages live for so long.
    async fn client(&mut self, life: Option<Duration>) -> Self::Client;

    /// One more client on the same namespace.
    async fn client_beside(&mut self, client: &Self::Client) -> Self::Client;

    /// The time as the store under test has it, in nanoseconds since 1970.
    fn now_ns(&mut self) -> i64;

    /// Lets this much time pass: turns a clock, or waits.
    async fn pass(&mut self, time: Duration);

    /// Promises of the store under test for PubSub.
    fn offer(&self) -> Offer;

    /// Whether a gateway stands in front of the store: it checks tokens, topics and positions,
    /// which no store does.
    fn is_gateway(&self) -> bool;

    /// Largest payload that may be published, in bytes.
    fn payload_bytes_max(&self) -> usize;
}

pub use super::suite::{Case, Seen};

const NONE: Features = Features::NONE;
const TTL: Features = Features::TTL;
const REPLAY: Features = Features::REPLAY;
const GROUPS: Features = Features::GROUPS.and(Features::REPLAY);

suite![
    starts::p1_latest_begins_after_the_first_answer: NONE, Anywhere;
    starts::p2_earliest_gives_all_once_and_in_order: REPLAY, Anywhere;
    starts::p3_time_begins_with_the_first_message_at_it_or_later: REPLAY, Anywhere;
    starts::p4_every_position_is_a_place_to_go_on_from: REPLAY, Anywhere;
    cases::p5_each_key_comes_in_the_order_of_its_acknowledgements: NONE, Anywhere;
    cases::p6_a_batch_keeps_the_order_of_a_key: REPLAY, Anywhere;
    cases::p6_the_first_failure_takes_the_later_ones_of_its_key_along: REPLAY, AtGateway;
    cases::p7_a_repeat_has_one_id_and_is_stored_once: REPLAY, Anywhere;
    cases::p7_a_token_of_another_call_is_refused: REPLAY, Anywhere;
    cases::p8_a_token_older_than_the_window_stores_nothing: REPLAY, AtGateway;
    cases::p9_equal_publishes_at_once_are_one_message: REPLAY, Anywhere;
    cases::p10_without_a_token_there_are_two_messages: REPLAY, Anywhere;
    cases::p11_patterns_take_their_topics_once: REPLAY, Anywhere;
    cases::p12_messages_come_back_as_they_were_sent: REPLAY, Anywhere;
    cases::p12_what_is_too_large_is_refused: REPLAY, Anywhere;
    starts::p20_who_is_overtaken_by_retention_gets_a_gap: TTL.and(REPLAY), AtStore;
    starts::p21_an_expired_position_is_refused: TTL.and(REPLAY), Anywhere;
    starts::p21_positions_of_others_are_refused: REPLAY, AtGateway;
    starts::p31_old_messages_are_not_delivered: TTL.and(REPLAY), Anywhere;
    groups::p13_members_share_the_messages_each_once: GROUPS, AtGateway;
    groups::p14_a_joining_member_gets_its_share_after_the_commit: GROUPS, AtGateway;
    groups::p17_a_former_holder_cannot_commit: GROUPS, AtGateway;
    groups::p18_a_place_only_grows: GROUPS, AtGateway;
    groups::p22_a_stream_pauses_at_its_uncommitted_messages: GROUPS, AtGateway;
    groups::p23_who_does_not_commit_in_time_is_out: GROUPS, AtGateway;
    groups::p24_a_reset_group_begins_at_the_new_place: GROUPS, AtGateway;
    groups::groups_are_made_listed_and_deleted: GROUPS, AtGateway;
    groups::a_store_keeps_leases_and_places: GROUPS, AtStore;
    groups::a_store_resets_groups_and_knows_repeats: GROUPS, AtStore;
    groups::a_store_keeps_as_many_groups_as_a_namespace_may_have: GROUPS, AtStore;
];
