//! Rules that a store must keep to serve a namespace: one table, which also gives the sentences of
//! refusals.

use prism_backends::{
    kind::StoreKind,
    offer::{Acked, Api, Features, Offer, Order, Replay},
};

use super::{Asked, Facts};
use crate::namespace::{
    Durability,
    model::Consistency,
    units::{format_duration, format_size},
};

/// The rule that a store breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The store does not serve the API.
    NotThisApi,
    /// Each gateway has a store of its own, and several share the catalog.
    NotShared,
    /// It loses writes that an acknowledgement promises to keep.
    Durability,
    /// The log would have to hold more for it than allowed.
    LogBudget,
    /// Reads may be older than promised.
    Consistency,
    /// It keeps no order.
    Order,
    /// It does not accept messages as large.
    MessageSize,
    /// It cannot remove old data.
    Retention,
    /// Items do not expire one by one.
    Ttl,
    /// Read messages are gone.
    Replay,
    /// Several writes may take place in part.
    Atomic,
    /// The measured write rate is lower.
    WriteCapacity,
    /// The measured read rate is lower.
    ReadCapacity,
    /// It has less room.
    Room,
}

impl Rule {
    /// The code for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotThisApi => "NOT_THIS_API",
            Self::NotShared => "NOT_SHARED",
            Self::Durability => "DURABILITY",
            Self::LogBudget => "LOG_BUDGET",
            Self::Consistency => "CONSISTENCY",
            Self::Order => "ORDER",
            Self::MessageSize => "MESSAGE_SIZE",
            Self::Retention => "RETENTION",
            Self::Ttl => "TTL",
            Self::Replay => "REPLAY",
            Self::Atomic => "ATOMIC",
            Self::WriteCapacity => "WRITE_CAPACITY",
            Self::ReadCapacity => "READ_CAPACITY",
            Self::Room => "ROOM",
        }
    }
}

/// A check of one rule: the sentence of its refusal, or nothing.
pub type Check = fn(&Asked, &Offer, &Facts) -> Option<String>;

/// All rules but the first (that there is an offer at all), in the order of checking.
pub const RULES: [(Rule, Check); 13] = [
    (Rule::NotShared, not_shared),
    (Rule::Durability, durability),
    (Rule::LogBudget, log_budget),
    (Rule::Consistency, consistency),
    (Rule::Order, order),
    (Rule::MessageSize, message_size),
    (Rule::Retention, retention),
    (Rule::Ttl, ttl),
    (Rule::Replay, replay),
    (Rule::Atomic, atomic),
    (Rule::WriteCapacity, write_capacity),
    (Rule::ReadCapacity, read_capacity),
    (Rule::Room, room),
];

/// The first rule that a store of this kind breaks, with the sentence of its refusal; `None` if it
/// may serve.
pub fn excuse(
    asked: &Asked,
    kind: StoreKind,
    offer: Option<&Offer>,
    facts: &Facts,
) -> Option<(Rule, String)> {
    let Some(offer) = offer else {
        return Some((Rule::NotThisApi, not_this_api(asked, kind)));
    };
    RULES
        .iter()
        .find_map(|(rule, check)| check(asked, offer, facts).map(|sentence| (*rule, sentence)))
}

pub(super) fn not_this_api(asked: &Asked, kind: StoreKind) -> String {
    format!(
        "{} does not serve {} in this version",
        kind.title(),
        word_of(asked.api)
    )
}

/// The word of an API in namespace files.
fn word_of(api: Api) -> &'static str {
    match api {
        Api::KeyValue => "keyvalue",
        Api::PubSub => "pubsub",
        Api::Queue => "queue",
        Api::Reader => "reader",
        Api::Transact => "transact",
        Api::TimeSeries => "timeseries",
        Api::Graph => "graph",
    }
}

fn not_shared(_: &Asked, _: &Offer, facts: &Facts) -> Option<String> {
    facts.is_apart.then(|| {
        "several gateways share the catalog (catalog.url), and each would keep data of its own in this store".to_owned()
    })
}

fn durability(asked: &Asked, offer: &Offer, facts: &Facts) -> Option<String> {
    let asks = asked.durability;
    if asks == Durability::BestEffort || asked.api == Api::Reader {
        return None;
    }
    if !offer.survives_restart {
        return Some(format!(
            "durability {asks} needs a store that survives a restart, and this one does not"
        ));
    }
    if asks == Durability::Eventual {
        return None;
    }
    if offer.acked == Acked::Volatile {
        return Some(
            "durability strong needs a store that can say when it is durable, and this one never does"
                .to_owned(),
        );
    }
    // A commit that is durable in the store needs no log before it.
    let is_direct = offer.api == Api::Transact && offer.acked == Acked::Durable;
    if is_direct {
        return None;
    }
    if offer.replay == Replay::Duplicates {
        return Some(
            "durability strong gives a store its writes once more after a crash, and this one would keep them twice".to_owned(),
        );
    }
    if facts.durable_after.is_none() {
        return Some(
            "durability strong needs to know when the store's data survives a power cut, and this one's settings do not say"
                .to_owned(),
        );
    }
    facts.log_refusal.clone()
}

fn log_budget(asked: &Asked, _: &Offer, facts: &Facts) -> Option<String> {
    if asked.durability != Durability::Strong {
        return None;
    }
    let after = facts.durable_after?;
    let bytes =
        u128::from(asked.write_rps) * u128::from(asked.message_bytes_mean()) * after.as_millis() / 1_000;
    (bytes > u128::from(facts.log_budget_bytes)).then(|| {
        format!(
            "its data is durable {} after it acknowledges, so the log would have to hold {} for it, and may hold {}",
            format_duration(after),
            format_size(u64::try_from(bytes).unwrap_or(u64::MAX)),
            format_size(facts.log_budget_bytes)
        )
    })
}

fn consistency(asked: &Asked, offer: &Offer, _: &Facts) -> Option<String> {
    let is_lacking =
        asked.consistency == Some(Consistency::Strong) && !offer.features.has(Features::STRONG_READS);
    is_lacking.then(|| "consistency strong: its reads may miss the latest writes".to_owned())
}

fn order(asked: &Asked, offer: &Offer, _: &Facts) -> Option<String> {
    (asked.ordered && offer.order == Order::Any).then(|| "ordered: it keeps no order of messages".to_owned())
}

fn message_size(asked: &Asked, offer: &Offer, _: &Facts) -> Option<String> {
    let asks = asked.message_bytes?;
    (asks > offer.value_bytes_max as u64).then(|| {
        format!(
            "max_message_size {}: it takes at most {}",
            format_size(asks),
            format_size(offer.value_bytes_max as u64)
        )
    })
}

fn retention(asked: &Asked, offer: &Offer, _: &Facts) -> Option<String> {
    let asks = asked.retention?;
    (!offer.features.has(Features::RETENTION))
        .then(|| format!("retention {}: it does not let old data go", format_duration(asks)))
}

fn ttl(asked: &Asked, offer: &Offer, _: &Facts) -> Option<String> {
    let asks = asked.ttl?;
    (!offer.features.has(Features::TTL)).then(|| {
        format!(
            "ttl {}: its items do not expire one by one",
            format_duration(asks)
        )
    })
}

fn replay(asked: &Asked, offer: &Offer, _: &Facts) -> Option<String> {
    (asked.replay && !offer.features.has(Features::REPLAY))
        .then(|| "replay: what was read once cannot be read again".to_owned())
}

fn atomic(asked: &Asked, offer: &Offer, _: &Facts) -> Option<String> {
    if asked.api != Api::Transact {
        return None;
    }
    if asked.durability == Durability::BestEffort {
        return Some("a transaction that may be lost after its commit is none".to_owned());
    }
    (!offer.features.has(Features::ATOMIC))
        .then(|| "it has no transactions: several writes may take place in part".to_owned())
}

/// The promised rate: seven tenths of the measured one.
fn promised(measured: u64) -> u64 {
    measured / 10 * 7 + measured % 10 * 7 / 10
}

fn write_capacity(asked: &Asked, _: &Offer, facts: &Facts) -> Option<String> {
    capacity("writes", asked.write_rps, facts.write_rps?)
}

fn read_capacity(asked: &Asked, _: &Offer, facts: &Facts) -> Option<String> {
    capacity("reads", asked.read_rps, facts.read_rps?)
}

fn capacity(what: &str, asks: u64, measured: u64) -> Option<String> {
    let promises = promised(measured);
    (asks > promises).then(|| format!("measured {measured} {what}/s, promises {promises}; {asks} asked"))
}

fn room(asked: &Asked, _: &Offer, facts: &Facts) -> Option<String> {
    let (asks, free) = (asked.data_size?, facts.free_bytes?);
    let promises = free / 5 * 4;
    (asks > promises).then(|| {
        format!(
            "data_size {}: it has {} free, of which {} are promised",
            format_size(asks),
            format_size(free),
            format_size(promises)
        )
    })
}
