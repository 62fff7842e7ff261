//! The behaviour suite of Queue, for all stores and for the gateway in front of them.
//!
//! Like KeyValue's ([`super`]): cases use a [`Client`] with owned types, and each asks the
//! [`Harness`] for an empty queue of its own. Each carries the number of the promise that it
//! checks.

mod attempts;
mod cases;
pub mod local;
mod moves;
mod order;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Failure, WriteToken};
pub use crate::api::queue::State;
use crate::offer::{Features, Offer};

/// A message as its sender sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Ordering key.
    pub key: String,
    /// Names and values, by name.
    pub attributes: Vec<(String, String)>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Delay before it is ready.
    pub delay: Duration,
    /// Most attempts; 0: the default, 10.
    pub attempts_max: u32,
}

/// A message as a worker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Id of the message.
    pub id: Vec<u8>,
    /// Ordering key.
    pub key: String,
    /// Names and values, by name.
    pub attributes: Vec<(String, String)>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Receipt of the attempt.
    pub receipt: Vec<u8>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Reason why the attempt before failed.
    pub last_failure: String,
    /// End of the lease, in milliseconds since 1970.
    pub lease_end_ms: u64,
}

/// Request of a worker for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Token of the call; `None`: no token.
    pub token: Option<Vec<u8>>,
    /// Most messages.
    pub messages_max: u32,
    /// Longest wait for the first message.
    pub wait: Duration,
    /// Length of the lease.
    pub lease: Duration,
}

/// Report of a worker about failed attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// Wait before the next attempt; `None`: by the number of the attempt.
    pub delay: Option<Duration>,
    /// Reason of the failure.
    pub reason: String,
    /// Whether to give up: no further attempt.
    pub dead: bool,
    /// Whether to leave the attempt uncounted.
    pub uncounted: bool,
}

/// A message as Peek shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Id of the message.
    pub id: Vec<u8>,
    /// Ordering key.
    pub key: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// State of the message.
    pub state: State,
    /// Number of attempts that count.
    pub attempt: u32,
    /// Reason why the last attempt failed.
    pub last_failure: String,
}

/// Messages that a Redrive or a Delete applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<Vec<u8>>),
    /// All in this state.
    State(State),
}

/// Calls on one queue.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait Client {
    /// Sends one message. Returns its id.
    async fn send(&mut self, token: Option<&WriteToken>, message: &Sent) -> Result<Vec<u8>, Failure>;

    /// Sends many messages. Returns the id of each, or why it was refused.
    async fn send_batch(
        &mut self,
        token: Option<&WriteToken>,
        messages: &[Sent],
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure>;

    /// Leases messages.
    async fn receive(&mut self, ask: &Ask) -> Result<Vec<Received>, Failure>;

    /// Marks work as done.
    async fn ack(&mut self, receipts: &[&[u8]]) -> Result<Vec<Result<(), Failure>>, Failure>;

    /// Marks work as failed. Returns the new state of each message.
    async fn nack(
        &mut self,
        receipts: &[&[u8]],
        failed: &Failed,
    ) -> Result<Vec<Result<State, Failure>>, Failure>;

    /// Extends leases. Returns the end of each, in milliseconds since 1970.
    async fn extend(
        &mut self,
        receipts: &[&[u8]],
        lease: Duration,
    ) -> Result<Vec<Result<u64, Failure>>, Failure>;

    /// Shows one page of the messages in these states (none: undone). Returns the token of the next
    /// page too, empty on the last.
    async fn peek(
        &mut self,
        states: &[State],
        key: Option<&str>,
        page_size: u32,
        page_token: &[u8],
    ) -> Result<(Vec<Peeked>, Vec<u8>), Failure>;

    /// Moves dead or done messages to the end. Returns how many, and whether there are more.
    async fn redrive(&mut self, token: Option<&WriteToken>, which: &Which) -> Result<(u64, bool), Failure>;

    /// Removes messages. Returns how many, and whether there are more.
    async fn delete(&mut self, token: Option<&WriteToken>, which: &Which) -> Result<(u64, bool), Failure>;

    /// The number of messages in each state that has some.
    async fn stats(&mut self) -> Result<BTreeMap<State, u64>, Failure>;
}

/// Rules of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// `ordered: true`.
    pub ordered: bool,
    /// `replay: true`.
    pub replay: bool,
    /// `ttl`.
    pub ttl: Option<Duration>,
    /// `retention`.
    pub retention: Option<Duration>,
}

/// Environment in which the suite runs.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait Harness {
    /// Way in which cases reach the store.
    type Client: Client;

    /// A client on a new, empty queue of this kind.
    async fn client(&mut self, kind: Kind) -> Self::Client;

    /// One more client on the same queue.
    async fn client_beside(&mut self, client: &Self::Client) -> Self::Client;

    /// Time of the store under test, in nanoseconds since 1970.
    fn now_ns(&mut self) -> i64;

    /// Lets this much time pass: advances a clock, or waits.
    async fn pass(&mut self, time: Duration);

    /// Promises of the store under test for Queue.
    fn offer(&self) -> Offer;

    /// Whether a gateway stands in front of the store: it checks tokens, receipts and keys, and
    /// waits.
    fn is_gateway(&self) -> bool;

    /// Largest payload that may be sent, in bytes.
    fn payload_bytes_max(&self) -> usize;
}

pub use super::suite::{Case, Seen};

const NONE: Features = Features::NONE;
const TTL: Features = Features::TTL;
const REPLAY: Features = Features::REPLAY;

suite![
    cases::q1_what_is_acked_never_comes_again: NONE, Anywhere;
    cases::q2_each_message_is_done_once_by_many_workers: NONE, Anywhere;
    attempts::q3_without_an_ack_it_comes_again: NONE, Anywhere;
    attempts::q4_an_ack_after_the_lease_counts_if_nobody_else_has_it: NONE, Anywhere;
    attempts::q5_an_ack_after_another_attempt_began_is_lost: NONE, Anywhere;
    attempts::q6_an_ack_may_come_twice: NONE, Anywhere;
    attempts::q6_an_ack_is_forgotten_after_ten_minutes: NONE, AtStore;
    attempts::q7_an_ack_at_the_end_of_the_lease_is_done_or_again: NONE, AtStore;
    attempts::q8_extend_keeps_and_never_shortens: NONE, Anywhere;
    attempts::q8_twelve_hours_are_the_end: NONE, AtStore;
    attempts::q9_a_nack_waits_and_the_wait_grows: NONE, AtStore;
    attempts::q9_a_nack_without_delay_comes_at_once: NONE, Anywhere;
    attempts::q10_used_up_attempts_are_dead: NONE, AtStore;
    attempts::q10_nacks_lead_to_death_once: NONE, Anywhere;
    attempts::q11_dead_and_uncounted: NONE, Anywhere;
    cases::q12_a_delay_is_kept: NONE, Anywhere;
    order::q13_of_a_key_one_at_a_time_and_in_order: NONE, Anywhere;
    order::q14_a_failing_head_holds_up_its_key_alone: NONE, Anywhere;
    order::q15_a_delayed_head_holds_up_its_key: NONE, Anywhere;
    order::q16_the_next_of_a_key_is_there_after_the_ack: NONE, Anywhere;
    order::q17_the_empty_key_is_a_key: NONE, Anywhere;
    cases::q18_a_key_needs_order: NONE, AtGateway;
    cases::q19_the_same_receive_gets_the_same_messages: NONE, Anywhere;
    cases::q20_a_worker_waits_for_a_message: NONE, AtGateway;
    cases::q20_nothing_comes_when_nothing_is_there: NONE, Anywhere;
    cases::q21_a_repeat_is_one_message: NONE, Anywhere;
    order::q21_a_token_of_another_key_is_refused: NONE, Anywhere;
    cases::q21_a_repeat_of_a_done_message_is_none: NONE, Anywhere;
    cases::q21_a_token_older_than_the_window_sends_nothing: NONE, AtGateway;
    cases::q22_an_answer_is_bounded: NONE, Anywhere;
    moves::q28_peek_shows_every_state_and_pages: NONE, Anywhere;
    moves::q29_dead_messages_are_redriven_to_the_end: NONE, Anywhere;
    moves::q29_done_messages_are_redriven: REPLAY, Anywhere;
    moves::q30_delete_leaves_leased_ones_alone: NONE, Anywhere;
    moves::q30_done_messages_stay_unless_asked: REPLAY, Anywhere;
    moves::q31_the_numbers_add_up: NONE, Anywhere;
    cases::q32_messages_come_back_as_they_were_sent: NONE, Anywhere;
    cases::q32_what_is_too_large_is_refused: NONE, Anywhere;
    cases::q32_forged_receipts_are_refused: NONE, AtGateway;
    moves::q33_what_nobody_begins_within_the_ttl_is_dead: TTL, Anywhere;
    moves::q33_what_outlives_the_retention_is_dead_and_goes: TTL, AtStore;
];
