//! One behaviour suite for all stores, and for the gateway in front of them.
//!
//! Cases use a [`Client`] with owned types and do not know how it reaches the store: [`local`]
//! calls the traits of [`crate::api::keyvalue`] directly, the gateway's tests call the gRPC API. A
//! case fails by panicking with its finding. Each case asks the [`Harness`] for an empty namespace
//! of its own, so cases may run in any order.
//!
//! ```text
//!   run_case(name, &mut harness) ──► Client ──► store
//!                                       └─────► gRPC ──► gateway with 1, 2, 3 shards ──► store
//! ```

#[macro_use]
mod suite;

mod cases;
mod join;
pub mod local;
mod model;
mod paging;
pub mod pubsub;
pub mod queue;
mod swaps;

use std::time::Duration;

use crate::offer::{Features, Offer};

pub use self::join::{join_all, ready, yield_once};

/// Identity and order of one write; see [`crate::Version`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteToken {
    /// Generation time in nanoseconds since 1970, UTC.
    pub generation_time_ns: i64,
    /// The token's bytes, 1 to 64.
    pub token: Vec<u8>,
}

/// An item as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Time to live: of the item on writes, the rest of it on reads.
    pub ttl: Option<Duration>,
    /// Compression of the value by the client.
    pub compression: u8,
}

/// Items of an id that a call applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// All.
    All,
    /// Those with these keys.
    Keys(Vec<Vec<u8>>),
    /// Those from `start` up to, not including, `end`; an empty `end` is no bound.
    Range {
        /// First key of the range.
        start: Vec<u8>,
        /// First key after the range.
        end: Vec<u8>,
    },
}

/// Amount to return at a time; see [`crate::Selection`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// Bytes of a page; 0 for the default.
    pub page_bytes: u32,
    /// Items of a page; 0 for no limit.
    pub item_limit: u32,
    /// Token from the previous page; empty for the first.
    pub page_token: Vec<u8>,
}

/// One page of items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Items in key order.
    pub items: Vec<Entry>,
    /// Versions of the items, in the same order.
    pub versions: Vec<Vec<u8>>,
    /// Token of the next page; empty on the last.
    pub next_page_token: Vec<u8>,
}

/// One page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Ids with their items.
    pub entries: Vec<(String, Vec<Entry>)>,
    /// Versions of all items, in the same order.
    pub versions: Vec<Vec<u8>>,
    /// Token of the next page; empty on the last.
    pub next_page_token: Vec<u8>,
}

/// One mutation of a `Mutate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes items.
    Put(Vec<Entry>),
    /// Deletes items.
    Delete(Predicate),
}

/// Expectation of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// No such item.
    Absent,
    /// An item with this value.
    Value(Vec<u8>),
    /// An item that was read with this version.
    Version(Vec<u8>),
}

/// The answer to a compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwapAnswer {
    /// Whether the swap took place.
    pub swapped: bool,
    /// The current item, if the swap did not take place.
    pub current: Option<Entry>,
    /// Version of that item; empty without one, and in a repeat whose item has changed since.
    pub current_version: Vec<u8>,
}

/// A refused call, as far as a client can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of refusal.
    pub kind: FailureKind,
    /// The field at fault, if the answer names it.
    pub field: Option<String>,
    /// The text.
    pub message: String,
}

/// Kinds of refusal that the suite distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A field breaks a rule (gRPC: INVALID_ARGUMENT).
    InvalidArgument,
    /// The page token was not made for this query (gRPC: INVALID_ARGUMENT with the field
    /// `selection.page_token`).
    InvalidPageToken,
    /// The token belongs to another call (gRPC: INVALID_ARGUMENT with the reason TOKEN_REUSED).
    TokenReused,
    /// The token is too old to know whether the call is a repeat (gRPC: FAILED_PRECONDITION with
    /// the reason TOKEN_EXPIRED).
    TokenExpired,
    /// Messages after the position have expired (gRPC: OUT_OF_RANGE with the reason
    /// POSITION_EXPIRED).
    PositionExpired,
    /// The position does not belong to this namespace and these topics (gRPC: INVALID_ARGUMENT with
    /// the reason POSITION_INVALID).
    PositionInvalid,
    /// Another attempt has begun (gRPC: ABORTED with the reason LEASE_LOST).
    LeaseLost,
    /// The lease may not become longer (gRPC: FAILED_PRECONDITION with the reason LEASE_TOO_LONG).
    LeaseTooLong,
    /// The message no longer exists (gRPC: NOT_FOUND with the reason MESSAGE_GONE).
    MessageGone,
    /// Another member has some of the partitions (gRPC: ABORTED with the reason PARTITION_LOST).
    PartitionLost,
    /// The group was reset or deleted (gRPC: ABORTED with the reason GROUP_RESET).
    GroupReset,
    /// Nothing was committed in time (gRPC: ABORTED with the reason COMMIT_TIMEOUT).
    CommitTimeout,
    /// Anything else.
    Other,
}

/// Calls on one namespace.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait Client {
    /// Writes items under one id.
    async fn put(&mut self, id: &str, token: &WriteToken, items: &[Entry]) -> Result<(), Failure>;

    /// Reads one page of one id.
    async fn get(&mut self, id: &str, predicate: &Predicate, paging: &Paging) -> Result<Page, Failure>;

    /// Deletes items of one id.
    async fn delete(&mut self, id: &str, token: &WriteToken, predicate: &Predicate) -> Result<(), Failure>;

    /// Reads one page of the namespace. Over a streaming call: the first page of the stream.
    async fn scan(&mut self, paging: &Paging) -> Result<ScanPage, Failure>;

    /// Applies changes to many ids, each separately.
    async fn mutate(
        &mut self,
        token: &WriteToken,
        changes: &[(String, Change)],
    ) -> Result<Vec<Result<(), Failure>>, Failure>;

    /// Replaces one item if it is as expected; with `None` deletes it.
    async fn compare_and_swap(
        &mut self,
        id: &str,
        key: &[u8],
        token: &WriteToken,
        expected: &Expectation,
        replacement: Option<&Entry>,
    ) -> Result<SwapAnswer, Failure>;
}

/// Environment in which the suite runs.
#[allow(async_fn_in_trait, reason = "the suite is generic over one thread's executor")]
pub trait Harness {
    /// Way in which cases reach the store.
    type Client: Client;

    /// A client on a new, empty namespace.
    async fn client(&mut self) -> Self::Client;

    /// One more client on the same namespace.
    async fn client_beside(&mut self, client: &Self::Client) -> Self::Client;

    /// Time of the store under test, in nanoseconds since 1970; an error within its allowed drift
    /// is harmless.
    fn now_ns(&mut self) -> i64;

    /// Lets this much time pass: advances a clock, or waits.
    async fn pass(&mut self, time: Duration);

    /// Promises of the store under test for KeyValue.
    fn offer(&self) -> Offer;

    /// Whether [`Harness::pass`] advances a simulated clock, so that hours take no time. If not,
    /// cases that need that are left out.
    fn turns_clock(&self) -> bool;

    /// Largest value that may be written, in bytes. Below 3 MiB the chunk cases are left out.
    fn value_bytes_max(&self) -> usize;
}

/// One case: its name, and the features of an offer that it needs.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Name of the function.
    pub name: &'static str,
    /// Features that a store must offer for it.
    pub needs: Features,
}

/// Runs all cases whose features the store offers, one after the other.
///
/// # Panics
/// If a case fails.
pub async fn run<H: Harness>(harness: &mut H) {
    for case in cases_of(&harness.offer()) {
        run_case(case.name, harness).await;
    }
}

/// Cases that a store with this offer must pass: each claimed feature is tested.
pub fn cases_of(offer: &Offer) -> impl Iterator<Item = &'static Case> + use<> {
    let features = offer.features;
    CASES.iter().filter(move |case| features.has(case.needs))
}

macro_rules! cases {
    ($($module:ident :: $name:ident: $needs:expr),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), needs: $needs }),*];

        /// Runs one case.
        ///
        /// # Panics
        /// If the case fails, or there is none of that name.
        pub async fn run_case<H: Harness>(name: &str, harness: &mut H) {
            match name {
                $(stringify!($name) => $module::$name(harness).await,)*
                _ => panic!("the suite has no case {name}"),
            }
        }
    };
}

const NONE: Features = Features::NONE;
const TTL: Features = Features::TTL;
const SWAPS: Features = Features::SWAPS;
const SCANS: Features = Features::SCANS;
const TOMBSTONES: Features = Features::TOMBSTONES;

cases![
    cases::items_come_in_key_order: NONE,
    cases::predicates_select: NONE,
    cases::empty_values_and_keys: NONE,
    cases::unicode_and_binary_keys: NONE,
    cases::compression_comes_back: NONE,
    cases::deletes_of_missing_keys_succeed: NONE,
    cases::the_later_of_two_items_with_one_key_counts: NONE,
    cases::the_last_write_wins_by_version: NONE,
    cases::repeats_have_no_effect: NONE,
    cases::deletes_are_remembered: TOMBSTONES,
    cases::mutations_fail_by_themselves: NONE,
    cases::mutations_of_one_token_apply_in_order: NONE,
    cases::items_expire: TTL.and(SCANS),
    swaps::an_expired_item_is_absent_to_swaps: SWAPS.and(TTL),
    swaps::swaps_hold_their_expectation: SWAPS,
    swaps::versions_name_states_of_items: SWAPS.and(SCANS),
    swaps::a_repeated_swap_gets_its_first_answer: SWAPS,
    swaps::a_token_of_another_call_is_refused: SWAPS,
    swaps::racing_swaps_lose_no_increment: SWAPS,
    cases::large_values_come_back_whole: NONE,
    cases::large_values_are_replaced_and_deleted: NONE,
    cases::limits_are_checked_and_named: SWAPS,
    paging::pages_end_by_bytes: NONE,
    paging::pages_end_by_items: NONE,
    paging::a_page_holds_at_least_one_item: NONE,
    paging::page_tokens_are_checked: SCANS,
    paging::pages_survive_concurrent_writes: NONE,
    paging::scans_group_ids: SCANS,
    paging::scans_survive_concurrent_writes: SCANS,
    paging::expired_items_do_not_end_a_page_early: TTL,
    model::random_operations_match_the_model: SWAPS.and(SCANS).and(TTL).and(TOMBSTONES),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory, sqlite};

    #[test]
    fn what_an_offer_leaves_out_is_left_out_of_its_suite_and_nothing_else() {
        for offer in [memory::KEYVALUE, sqlite::KEYVALUE] {
            assert_eq!(cases_of(&offer).count(), CASES.len(), "both offer all");
        }
        let modest = Offer {
            features: memory::KEYVALUE.features.without(SWAPS),
            ..memory::KEYVALUE
        };
        let left: Vec<_> = cases_of(&modest).map(|case| case.name).collect();
        assert!(!left.contains(&"swaps_hold_their_expectation"), "{left:?}");
        assert!(left.contains(&"deletes_are_remembered"), "{left:?}");
        for case in CASES {
            assert!(
                left.contains(&case.name) != case.needs.has(SWAPS),
                "{} needs {:?}",
                case.name,
                case.needs
            );
        }
    }
}
