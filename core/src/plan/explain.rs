//! A plan: the choice of a store, what follows from it, and the reason of each part. What is shown
//! to a user is what is applied, by its hash.
//!
//! A plan is a pure function of the file, the stores and the namespace as it is; the order of the
//! configuration makes no difference.

use std::{fmt::Write as _, time::Duration};

use prism_backends::{kind::StoreKind, offer::Api};
use sha2::{Digest as _, Sha256};

use super::{
    Asked, Candidate, Choice, Excuse, MESSAGE_BYTES_ASSUMED, RETENTION_ASSUMED, RPS_ASSUMED, excuse, pick,
    preference, rules::not_this_api,
};
use crate::namespace::{
    NamespaceConfig,
    keys::KEYS,
    model::Permission,
    units::{format_duration, format_size, format_size_rounded},
};

/// A namespace as it is, for a plan of its change.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    /// Name of the store that has its data.
    pub store: &'a str,
    /// The file that holds.
    pub config: &'a NamespaceConfig,
    /// The version.
    pub version: u64,
}

/// The subject of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The checked file.
    pub config: &'a NamespaceConfig,
    /// The file as written, which the hash covers.
    pub yaml: &'a str,
    /// The namespace of that name, if there is one.
    pub current: Option<Current<'a>>,
    /// Shards of the gateway.
    pub shards: usize,
}

/// Facts that follow from a choice, and that only the gateway knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The place of the data, for people, such as `SQLite table "user-sessions"`.
    pub backend: String,
    /// Who acknowledges a write, and who has it then.
    pub acknowledged: &'static str,
}

/// The effect of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The namespace is made.
    Create,
    /// It is changed.
    Update,
    /// It is so already.
    None,
}

impl Action {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::None => "none",
        }
    }
}

/// One part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The name for people.
    pub title: &'static str,
    /// The name for programs.
    pub field: &'static str,
    /// The decision.
    pub value: String,
    /// The rule's code.
    pub rule: &'static str,
    /// The key of the file that it follows from; empty where no key decides.
    pub because: &'static str,
    /// The reason; may be empty.
    pub reason: String,
}

/// A store that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The name in the configuration.
    pub store: String,
    /// The name for people.
    pub title: String,
    /// The rule that it breaks, or `LATER` where another store comes first.
    pub rule: &'static str,
    /// The reason. Without a full stop.
    pub sentence: String,
}

/// One key that an update changes. `None`: not declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key's path.
    pub field: &'static str,
    /// The name for people.
    pub title: &'static str,
    /// The value that holds.
    pub before: Option<String>,
    /// The value that is wanted.
    pub after: Option<String>,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the namespace.
    pub namespace: String,
    /// The effect.
    pub action: Action,
    /// Version of the namespace that it starts from; 0 for a create.
    pub base_version: u64,
    /// Name of the store in the configuration.
    pub store: String,
    /// The place of the data, for people.
    pub backend: String,
    /// The parts, the store first.
    pub decisions: Vec<Decision>,
    /// The keys that change, for an update.
    pub changes: Vec<Change>,
    /// All other stores, by name.
    pub rejected: Vec<Rejection>,
    /// Values assumed for keys that the file leaves open.
    pub assumed: Vec<String>,
    /// Facts that a user should know before going on.
    pub warnings: Vec<String>,
    /// Room that the data may take at the most, in bytes; `None`: it has no end.
    pub bytes_max: Option<u64>,
    /// The cost, in sentences.
    pub cost: Vec<String>,
    /// The steps, in their order.
    pub steps: Vec<String>,
}

impl Plan {
    /// The hash of all parts and of the file, `sha256:` and 64 hexadecimal digits.
    pub fn hash(&self, yaml: &str) -> String {
        let mut digest = Sha256::new();
        // The length of each part keeps two parts from looking like one.
        let mut add = |part: &str| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        for part in [
            yaml,
            &self.namespace,
            self.action.as_str(),
            &self.base_version.to_string(),
            &self.store,
            &self.backend,
        ] {
            add(part);
        }
        for decision in &self.decisions {
            let Decision {
                field,
                value,
                rule,
                because,
                reason,
                ..
            } = decision;
            [field, &**value, rule, because, reason]
                .into_iter()
                .for_each(&mut add);
        }
        for change in &self.changes {
            add(change.field);
            add(change.before.as_deref().unwrap_or("-"));
            add(change.after.as_deref().unwrap_or("-"));
        }
        for rejection in &self.rejected {
            [&*rejection.store, rejection.rule, &rejection.sentence]
                .into_iter()
                .for_each(&mut add);
        }
        let lists = [&self.assumed, &self.warnings, &self.cost, &self.steps];
        lists.into_iter().flatten().for_each(|line| add(line));
        let mut hash = "sha256:".to_owned();
        for byte in digest.finalize() {
            let _ = write!(hash, "{byte:02x}");
        }
        hash
    }
}

/// Plans a namespace. `place` describes the place of the data in the store that it is given the
/// number of.
///
/// # Errors
/// An excuse for each store, or for the one that has the data: none can serve.
pub fn plan(
    wanted: &Wanted<'_>,
    candidates: &[Candidate],
    place: impl FnOnce(usize) -> Placement,
) -> Result<Plan, Vec<Excuse>> {
    let config = wanted.config;
    let asked = Asked::of(config);
    let current = wanted.current;
    let choice = pick(&asked, candidates, current.map(|current| current.store))?;
    let names: Vec<_> = choice
        .stores
        .iter()
        .map(|index| &*candidates[*index].name)
        .collect();
    if let Some(current) = current
        && names[0] != current.store
    {
        // Data does not move by itself.
        let mut excuses = choice.excuses;
        excuses.retain(|excuse| excuse.store == current.store);
        return Err(excuses);
    }
    let chosen = &candidates[choice.stores[0]];
    let placement = place(choice.stores[0]);
    let changes = current.map_or_else(Vec::new, |current| changes(current.config, config));
    let action = match current {
        None => Action::Create,
        Some(_) if changes.is_empty() => Action::None,
        Some(_) => Action::Update,
    };
    let mut decisions = vec![store_decision(&asked, candidates, &choice, current)];
    decisions.extend(object_decision(&asked, config, chosen, &choice));
    decisions.extend(need_decisions(config, &asked, &placement));
    let bytes_max = bytes_max(config, &asked);
    Ok(Plan {
        namespace: config.name.clone(),
        action,
        base_version: current.map_or(0, |current| current.version),
        store: names.join("+"),
        backend: placement.backend,
        rejected: rejected(&asked, candidates, &choice),
        assumed: assumed(config, &asked),
        warnings: warnings(config, &asked, candidates, &choice, current),
        cost: cost(config, &asked, chosen, bytes_max),
        steps: steps(action, &config.name, chosen, wanted.shards),
        decisions,
        changes,
        bytes_max,
    })
}

fn titles(candidates: &[Candidate], choice: &Choice) -> String {
    let titles: Vec<_> = choice
        .stores
        .iter()
        .map(|index| candidates[*index].title())
        .collect();
    titles.join(" + ")
}

fn store_decision(
    asked: &Asked,
    candidates: &[Candidate],
    choice: &Choice,
    current: Option<Current<'_>>,
) -> Decision {
    let preferred = preference(asked);
    let (rule, because, reason) = match current {
        Some(_) => ("STAYS", "", "stays: its data is there".to_owned()),
        None if candidates.len() == 1 => ("ONLY", "", "the only store of this gateway".to_owned()),
        None if candidates[choice.stores[0]].is_embedded => {
            let reason = "the embedded store, which is the last one everywhere: no other can serve it";
            ("EMBEDDED", "", reason.to_owned())
        }
        None => (preferred.rule, preferred.because, preferred.reason),
    };
    Decision {
        title: "Store",
        field: "store",
        value: titles(candidates, choice),
        rule,
        because,
        reason,
    }
}

/// The object in the store, where it has a name of its own.
fn object_decision(
    asked: &Asked,
    config: &NamespaceConfig,
    chosen: &Candidate,
    choice: &Choice,
) -> Option<Decision> {
    let name = config.name.clone();
    let (title, field, value) = match chosen.kind {
        StoreKind::Sqlite | StoreKind::ClickHouse => ("Table", "table", name),
        StoreKind::Postgres => ("Tables", "tables", "schema prism".to_owned()),
        StoreKind::Redis => ("Keys", "keys", "prism:*".to_owned()),
        StoreKind::Nats => ("Subject", "subject", name),
        StoreKind::Kafka => ("Topic", "topic", "prism-*, one partition".to_owned()),
        StoreKind::Memory | StoreKind::Gremlin | StoreKind::Neo4j => return None,
    };
    let reason = choice.partitions.map_or_else(String::new, |partitions| {
        let (rate, each) = (asked.write_rps, super::writes_per_partition(asked));
        format!(
            "a namespace has one in this version; {rate} writes/s at durability {} would take {partitions}, {each} for each",
            asked.durability
        )
    });
    Some(Decision {
        title,
        field,
        value,
        rule: "OBJECT",
        because: if reason.is_empty() { "" } else { "needs.write_rps" },
        reason,
    })
}

/// The parts that follow from the needs alone.
fn need_decisions(config: &NamespaceConfig, asked: &Asked, placement: &Placement) -> Vec<Decision> {
    let needs = &config.needs;
    let mut decisions = Vec::new();
    let mut add = |title, field, because, value: String, reason: &str| {
        decisions.push(Decision {
            title,
            field,
            value,
            rule: "NEEDS",
            because,
            reason: reason.to_owned(),
        });
    };
    let declared = |is_declared: bool, key: &'static str| if is_declared { key } else { "assumed" };
    let retention = asked
        .retention
        .map_or("until deleted".to_owned(), format_duration);
    let reason = declared(needs.retention.is_some(), "needs.retention");
    add("Retention", "retention", "needs.retention", retention, reason);
    if let Some(ttl) = needs.ttl {
        add(
            "TTL",
            "ttl",
            "needs.ttl",
            format_duration(ttl),
            "of an item without one of its own",
        );
    }
    let durability = asked.durability.to_string();
    add(
        "Durability",
        "durability",
        "needs.durability",
        durability,
        placement.acknowledged,
    );
    if asked.ordered {
        let reason = "messages of one topic and ordering key";
        add("Order", "ordered", "needs.ordered", "kept".to_owned(), reason);
    }
    if let Some(consistency) = needs.consistency {
        add(
            "Consistency",
            "consistency",
            "needs.consistency",
            consistency.to_string(),
            "needs.consistency",
        );
    }
    let limits = [
        needs.write_rps.map(|rate| format!("{rate} writes/s")),
        needs.read_rps.map(|rate| format!("{rate} reads/s")),
        needs
            .data_size
            .map(|bytes| format!("{} of data", format_size(bytes))),
        needs
            .max_message_size
            .map(|bytes| format!("messages up to {}", format_size(bytes))),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    match limits.is_empty() {
        true => add(
            "Limits",
            "limits",
            "",
            "none".to_owned(),
            "the file declares no rate and no size",
        ),
        false => add("Limits", "limits", "needs", limits.join(", "), ""),
    }
    let shown = |path| {
        KEYS.iter()
            .find(|key| key.path == path)
            .and_then(|key| (key.show)(config))
    };
    let owners = shown("access.owners").or_else(|| shown("team"));
    let access: Vec<_> = owners
        .map(|owners| format!("owned by {owners}"))
        .into_iter()
        .chain(shown("access.consumers"))
        .collect();
    match access.is_empty() {
        true => {
            let reason = "the file names no owners and no consumers";
            add("Access", "access", "access", "nobody yet".to_owned(), reason);
        }
        false => add("Access", "access", "access", access.join("; "), ""),
    }
    decisions
}

/// All stores but the chosen ones, each with its reason.
fn rejected(asked: &Asked, candidates: &[Candidate], choice: &Choice) -> Vec<Rejection> {
    let first = titles(candidates, choice);
    let is_chosen = |index: &usize| choice.stores.contains(index);
    let mut rejected: Vec<_> = (0..candidates.len())
        .filter(|index| !is_chosen(index))
        .map(|index| {
            let candidate = &candidates[index];
            let offer = candidate.offer(asked.api);
            let broken = match offer {
                None => Some((super::Rule::NotThisApi, not_this_api(asked, candidate.kind))),
                Some(_) => excuse(asked, candidate.kind, offer, &candidate.facts),
            };
            let (rule, sentence) = broken.map_or_else(
                || ("LATER", format!("{first} comes first")),
                |(rule, sentence)| (rule.code(), sentence),
            );
            Rejection {
                store: candidate.name.clone(),
                title: candidate.title(),
                rule,
                sentence,
            }
        })
        .collect();
    rejected.sort_by(|left, right| left.store.cmp(&right.store));
    rejected
}

fn assumed(config: &NamespaceConfig, asked: &Asked) -> Vec<String> {
    let needs = &config.needs;
    let keeps_messages = matches!(asked.api, Api::PubSub | Api::Queue | Api::TimeSeries);
    let lines = [
        needs
            .durability
            .is_none()
            .then(|| format!("durability {}", config.durability())),
        needs
            .write_rps
            .is_none()
            .then(|| format!("write_rps {RPS_ASSUMED} in sums, and no rate is enforced")),
        needs
            .read_rps
            .is_none()
            .then(|| format!("read_rps {RPS_ASSUMED} in sums, and no rate is enforced")),
        needs.max_message_size.is_none().then(|| {
            format!(
                "max_message_size {} for the cost; the gateway's limit holds",
                format_size(MESSAGE_BYTES_ASSUMED)
            )
        }),
        (needs.retention.is_none() && keeps_messages)
            .then(|| format!("retention {}", format_duration(RETENTION_ASSUMED))),
    ];
    lines.into_iter().flatten().collect()
}

fn warnings(
    config: &NamespaceConfig,
    asked: &Asked,
    candidates: &[Candidate],
    choice: &Choice,
    current: Option<Current<'_>>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let chosen = choice.stores.iter().map(|index| &candidates[*index]);
    for store in chosen.filter(|store| store.facts.write_rps.is_none()) {
        let title = store.title();
        warnings.push(format!(
            "unmeasured: {title} was never probed, so its capacity is not checked"
        ));
    }
    let readers: Vec<_> = config
        .access
        .consumers
        .iter()
        .filter(|consumer| consumer.permissions == [Permission::Read])
        .map(|consumer| &*consumer.service)
        .collect();
    if !readers.is_empty() {
        warnings.push(format!(
            "may read and nothing else: {} (write permissions: [read, write] for more)",
            readers.join(", ")
        ));
    }
    if let Some(current) = current
        && let Ok(today) = pick(asked, candidates, None)
        && candidates[today.stores[0]].name != current.store
    {
        let title = titles(candidates, &today);
        warnings.push(format!("a new namespace with these needs would get {title}"));
    }
    warnings
}

/// Room for all data: as declared, or at the peak rate and the largest message for the whole
/// retention.
fn bytes_max(config: &NamespaceConfig, asked: &Asked) -> Option<u64> {
    if let Some(bytes) = config.needs.data_size {
        return Some(bytes);
    }
    let life = match (asked.retention, asked.ttl) {
        (Some(retention), Some(ttl)) => retention.min(ttl),
        (retention, ttl) => retention.or(ttl)?,
    };
    let message = asked.message_bytes.unwrap_or(MESSAGE_BYTES_ASSUMED);
    let bytes = u128::from(asked.write_rps) * u128::from(message) * millis(life) / 1_000;
    Some(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn millis(time: Duration) -> u128 {
    time.as_millis()
}

fn cost(config: &NamespaceConfig, asked: &Asked, chosen: &Candidate, bytes_max: Option<u64>) -> Vec<String> {
    let medium = match chosen.kind {
        StoreKind::Memory | StoreKind::Redis => "memory",
        _ => "disk",
    };
    let line = match (bytes_max, config.needs.data_size) {
        (_, Some(bytes)) => format!("at most {} of {medium} (data_size)", format_size_rounded(bytes)),
        (Some(bytes), None) => {
            let life = asked
                .retention
                .or(asked.ttl)
                .map_or_else(String::new, format_duration);
            format!(
                "at most {} of {medium} (peak rate and largest message for {life}); declare data_size for a better figure",
                format_size_rounded(bytes)
            )
        }
        (None, None) => format!("{medium} without an end: neither data_size nor retention is declared"),
    };
    vec![line]
}

fn steps(action: Action, name: &str, chosen: &Candidate, shards: usize) -> Vec<String> {
    let shards = match shards {
        1 => "1 shard".to_owned(),
        count => format!("{count} shards"),
    };
    let title = chosen.title();
    match action {
        Action::Create => vec![
            "record it in the catalog".to_owned(),
            format!("make {name} in {title}"),
            format!("serve it on {shards}"),
        ],
        Action::Update => vec![
            "record it in the catalog".to_owned(),
            format!("change {name} in {title}"),
            format!("put it in force on {shards}"),
        ],
        Action::None => Vec::new(),
    }
}

/// The keys whose values differ, in the order of the table.
pub fn changes(before: &NamespaceConfig, after: &NamespaceConfig) -> Vec<Change> {
    KEYS.iter()
        .map(|key| Change {
            field: key.path,
            title: key.title,
            before: (key.show)(before),
            after: (key.show)(after),
        })
        .filter(|change| change.before != change.after)
        .collect()
}
