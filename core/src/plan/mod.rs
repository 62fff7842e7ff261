//! The choice of a store for a namespace: which of the configured stores may serve it, and which
//! one does.
//!
//! ```text
//!   namespace file ──> Asked ─┐
//!                             ├─ rules: one table, a sentence for each "no" ──> order of preference ──> Choice
//!   stores ──> Candidate ─────┘                                                          └────────────> an Excuse each
//! ```
//!
//! Everything here is pure: no clock, no I/O, the same answer whatever the order of the
//! configuration. A store that breaks a rule is never chosen, so adding or removing a store that is
//! not chosen changes nothing. [`plan`] explains the choice, and what follows from it.

mod explain;
mod order;
mod rules;

use std::time::Duration;

use prism_backends::{
    kind::StoreKind,
    offer::{Api, Offer},
};

pub use self::{
    explain::{Action, Change, Current, Decision, Placement, Plan, Rejection, Wanted, changes, plan},
    order::{Preference, preference},
    rules::{Check, RULES, Rule, excuse},
};

use crate::namespace::{
    Durability,
    model::{ClientApi, Consistency, NamespaceConfig},
};

/// Needs of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Service through which it is used.
    pub api: Api,
    /// Moment at which its writes are acknowledged.
    pub durability: Durability,
    /// Freshness that reads promise, if demanded.
    pub consistency: Option<Consistency>,
    /// Whether messages keep their order.
    pub ordered: bool,
    /// Whether read messages can be read again.
    pub replay: bool,
    /// Largest value or message in bytes, if declared.
    pub message_bytes: Option<u64>,
    /// Time for which data is kept, if bounded.
    pub retention: Option<Duration>,
    /// Life of a single item, if it has one.
    pub ttl: Option<Duration>,
    /// Peak writes a second.
    pub write_rps: u64,
    /// Peak reads a second.
    pub read_rps: u64,
    /// Expected data in bytes, if declared.
    pub data_size: Option<u64>,
}

/// Rate assumed if none is declared.
const RPS_ASSUMED: u64 = 100;
/// Size of a message assumed if none is declared, in bytes.
const MESSAGE_BYTES_ASSUMED: u64 = 4 << 10;
/// Retention of messages assumed if none is declared.
const RETENTION_ASSUMED: Duration = Duration::from_secs(7 * 86_400);

impl Asked {
    /// Needs of a file, with the defaults for those it leaves open.
    pub fn of(config: &NamespaceConfig) -> Self {
        let needs = &config.needs;
        let api = api_of(config.client_api);
        let keeps_messages = matches!(api, Api::PubSub | Api::Queue | Api::TimeSeries);
        Self {
            api,
            durability: config.durability(),
            consistency: needs
                .consistency
                .or((api == Api::Transact).then_some(Consistency::Strong)),
            ordered: needs.ordered.unwrap_or(false),
            replay: needs.replay.unwrap_or(false),
            message_bytes: needs.max_message_size,
            retention: needs.retention.or(keeps_messages.then_some(RETENTION_ASSUMED)),
            ttl: needs.ttl,
            write_rps: needs.write_rps.unwrap_or(RPS_ASSUMED),
            read_rps: needs.read_rps.unwrap_or(RPS_ASSUMED),
            data_size: needs.data_size,
        }
    }

    /// The mean message in bytes: a quarter of the largest, from 256 B to 10 KB.
    pub fn message_bytes_mean(&self) -> u64 {
        let largest = self.message_bytes.unwrap_or(MESSAGE_BYTES_ASSUMED);
        (largest / 4).clamp(256, 10_000)
    }
}

/// The API for a namespace file's word.
pub fn api_of(client_api: ClientApi) -> Api {
    match client_api {
        ClientApi::KeyValue => Api::KeyValue,
        ClientApi::PubSub => Api::PubSub,
        ClientApi::Queue => Api::Queue,
        ClientApi::Reader => Api::Reader,
        ClientApi::Transact => Api::Transact,
        ClientApi::TimeSeries => Api::TimeSeries,
        ClientApi::Graph => Api::Graph,
    }
}

/// A store that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The name in the configuration.
    pub name: String,
    /// Kind of the store.
    pub kind: StoreKind,
    /// Whether it is the embedded store, which is the last one everywhere.
    pub is_embedded: bool,
    /// Promises of the store, one for each API that it serves.
    pub offers: Vec<Offer>,
    /// Facts about this store in addition to its kind.
    pub facts: Facts,
}

impl Candidate {
    /// Makes a candidate of which only the kind is known.
    pub fn new(name: &str, kind: StoreKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            is_embedded: false,
            offers: kind.offers().to_vec(),
            facts: Facts::default(),
        }
    }

    fn offer(&self, api: Api) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.api == api)
    }

    /// `Kafka "events"`, or `memory` for the embedded store.
    pub fn title(&self) -> String {
        match self.is_embedded {
            true => self.kind.title().to_owned(),
            false => format!("{} \"{}\"", self.kind.title(), self.name),
        }
    }
}

/// Facts configured, inspected or measured of one store. An unknown fact refuses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Time from the store's acknowledgement until its data survives a power cut; `None`: unknown.
    pub durable_after: Option<Duration>,
    /// Reason why the gateway's log cannot keep `strong` for it; `None` if it can.
    pub log_refusal: Option<String>,
    /// Bytes that a lane may hold for a store that is not durable yet.
    pub log_budget_bytes: u64,
    /// Measured writes a second.
    pub write_rps: Option<u64>,
    /// Measured reads a second.
    pub read_rps: Option<u64>,
    /// Free room in bytes.
    pub free_bytes: Option<u64>,
    /// Whether each of the gateways that share a catalog has a store of its own there.
    pub is_apart: bool,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            durable_after: Some(Duration::ZERO),
            log_refusal: None,
            // Half of the default lane: 32 segments of 64 MiB.
            log_budget_bytes: 1 << 30,
            write_rps: None,
            read_rps: None,
            free_bytes: None,
            is_apart: false,
        }
    }
}

/// The reason why one store does not serve a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// The name of the store.
    pub store: String,
    /// The store's name for people.
    pub title: String,
    /// Kind of the store.
    pub kind: StoreKind,
    /// The rule that it breaks.
    pub rule: Rule,
    /// The need, and what the store has. Without a full stop.
    pub sentence: String,
}

/// The store chosen for a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Places of the stores among the candidates: one, or two that serve together.
    pub stores: Vec<usize>,
    /// Partitions, if the store has such.
    pub partitions: Option<u64>,
    /// Stores that come before it and cannot serve.
    pub excuses: Vec<Excuse>,
}

/// Picks the first store in the order of preference that breaks no rule. `current`, the namespace's
/// present store, comes before all others while it passes.
///
/// # Errors
/// An excuse for each store: none can serve.
pub fn pick(asked: &Asked, candidates: &[Candidate], current: Option<&str>) -> Result<Choice, Vec<Excuse>> {
    let mut by_name: Vec<usize> = (0..candidates.len()).collect();
    by_name.sort_by(|left, right| candidates[*left].name.cmp(&candidates[*right].name));
    let mut excuses = Vec::new();
    let is_current = |index: &usize| current == Some(&*candidates[*index].name);
    let embedded = by_name
        .iter()
        .copied()
        .filter(|index| candidates[*index].is_embedded);
    let preferred = preference(asked).kinds.iter().map(|kinds| Step::Kinds(kinds));
    let steps = by_name
        .iter()
        .copied()
        .filter(is_current)
        .map(Step::Store)
        .chain(preferred)
        .chain(embedded.map(Step::Store));
    for step in steps {
        let found = match step {
            Step::Store(index) => {
                first(asked, candidates, &[index], asked.api, &mut excuses).map(|one| vec![one])
            }
            Step::Kinds(kinds) => together(asked, candidates, &by_name, kinds, &mut excuses),
        };
        if let Some(stores) = found {
            let is_kafka = |index: &usize| candidates[*index].kind == StoreKind::Kafka;
            let partitions = stores.iter().any(is_kafka).then(|| partitions(asked));
            return Ok(Choice {
                stores,
                partitions,
                excuses,
            });
        }
    }
    for index in by_name {
        let Candidate { name, kind, .. } = &candidates[index];
        if !excuses.iter().any(|excuse| excuse.store == *name) {
            excuses.push(Excuse {
                store: name.clone(),
                title: candidates[index].title(),
                kind: *kind,
                rule: Rule::NotThisApi,
                sentence: rules::not_this_api(asked, *kind),
            });
        }
    }
    Err(excuses)
}

/// One step of the order of preference.
enum Step<'a> {
    Store(usize),
    /// Kinds that serve together.
    Kinds(&'a [StoreKind]),
}

/// Finds a store of each kind, if there are some that can serve. The second of a pair keeps
/// messages for the first.
fn together(
    asked: &Asked,
    candidates: &[Candidate],
    by_name: &[usize],
    kinds: &[StoreKind],
    excuses: &mut Vec<Excuse>,
) -> Option<Vec<usize>> {
    let of_kind = |kind: StoreKind| -> Vec<usize> {
        let is_free = |index: &usize| candidates[*index].kind == kind && !candidates[*index].is_embedded;
        by_name.iter().copied().filter(is_free).collect()
    };
    let stores: Vec<_> = kinds.iter().map(|kind| of_kind(*kind)).collect();
    if stores.iter().any(Vec::is_empty) {
        return None;
    }
    let apis = std::iter::once(asked.api).chain(std::iter::repeat(Api::PubSub));
    stores
        .iter()
        .zip(apis)
        .map(|(stores, api)| first(asked, candidates, stores, api, excuses))
        .collect()
}

/// Finds the first of the stores that breaks no rule. Adds excuses for those before it.
fn first(
    asked: &Asked,
    candidates: &[Candidate],
    stores: &[usize],
    api: Api,
    excuses: &mut Vec<Excuse>,
) -> Option<usize> {
    stores.iter().copied().find(|index| {
        let candidate = &candidates[*index];
        let broken = excuse(asked, candidate.kind, candidate.offer(api), &candidate.facts);
        let Some((rule, sentence)) = broken else {
            return true;
        };
        if !excuses.iter().any(|known| known.store == candidate.name) {
            excuses.push(Excuse {
                store: candidate.name.clone(),
                title: candidate.title(),
                kind: candidate.kind,
                rule,
                sentence,
            });
        }
        false
    })
}

/// Partitions of a Kafka topic: one for 500 writes a second at `strong`, for 1,000 else.
fn partitions(asked: &Asked) -> u64 {
    asked
        .write_rps
        .div_ceil(writes_per_partition(asked))
        .clamp(1, PARTITIONS_MAX)
}

fn writes_per_partition(asked: &Asked) -> u64 {
    match asked.durability {
        Durability::Strong => 500,
        Durability::Eventual | Durability::BestEffort => 1_000,
    }
}

/// Most partitions of a topic.
const PARTITIONS_MAX: u64 = 256;

#[cfg(test)]
mod tests;
