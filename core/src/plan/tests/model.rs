//! The planner against a model of its rules that shares no code with it, and properties of plans,
//! over random needs and gateways.
//!
//! The model is that of the design, with what was decided since: a queue is never on Kafka alone,
//! topics lie in PostgreSQL where no broker takes them, a transaction is durable by its store's own
//! commit, and memory and SQLite may be configured in addition to the embedded store.

use proptest::prelude::*;

use super::*;
use crate::namespace::model::{Access, Needs, Policies};

/// Needs as the model knows them.
struct Asks {
    api: ClientApi,
    writes: f64,
    reads: f64,
    durability: Durability,
    retention_days: Option<u64>,
    ordered: bool,
    is_strongly_consistent: bool,
    message: f64,
    size: Option<f64>,
}

fn asks(config: &NamespaceConfig) -> Asks {
    let needs = &config.needs;
    let api = config.client_api;
    let messages = matches!(api, ClientApi::PubSub | ClientApi::Queue | ClientApi::TimeSeries);
    let consistency = needs.consistency;
    Asks {
        api,
        writes: needs.write_rps.unwrap_or(100) as f64,
        reads: needs.read_rps.unwrap_or(100) as f64,
        durability: needs.durability.unwrap_or(Durability::Strong),
        retention_days: needs
            .retention
            .map(|time| time.as_secs() / 86_400)
            .or(messages.then_some(7)),
        ordered: needs.ordered == Some(true),
        is_strongly_consistent: consistency == Some(Consistency::Strong)
            || (api == ClientApi::Transact && consistency.is_none()),
        message: needs.max_message_size.unwrap_or(4_096) as f64,
        size: needs.data_size.map(|bytes| bytes as f64),
    }
}

/// Kinds in the order of preference, by their words; `+` joins those that serve together.
fn model_order(asks: &Asks) -> Vec<&'static str> {
    let big = asks.writes >= 20_000.0
        || asks.message > (1 << 20) as f64
        || asks.retention_days.is_some_and(|days| days > 30);
    let lasting = asks.durability == Durability::Strong;
    let mut order = match asks.api {
        ClientApi::PubSub if big => vec!["kafka", "nats", "redis", "postgres"],
        ClientApi::PubSub => vec!["nats", "kafka", "redis", "postgres"],
        ClientApi::Queue if lasting && asks.ordered => vec!["postgres+kafka", "postgres", "nats"],
        ClientApi::Queue => vec!["postgres", "nats"],
        ClientApi::KeyValue if !lasting || asks.retention_days.is_some_and(|days| days <= 7) => {
            vec!["redis", "postgres"]
        }
        ClientApi::KeyValue => vec!["postgres", "redis"],
        ClientApi::Transact => vec!["postgres"],
        ClientApi::Reader => vec!["clickhouse", "postgres"],
        ClientApi::TimeSeries if asks.writes >= 10_000.0 => vec!["kafka", "clickhouse", "postgres", "nats"],
        ClientApi::TimeSeries => vec!["clickhouse", "postgres", "kafka", "nats"],
        ClientApi::Graph => vec!["gremlin", "neo4j", "postgres"],
    };
    order.extend(["memory", "sqlite", "embedded"]);
    order
}

fn model_apis(kind: &str) -> &'static [ClientApi] {
    use ClientApi::{Graph, KeyValue, PubSub, Queue, Reader, TimeSeries, Transact};
    match kind {
        "kafka" => &[PubSub, TimeSeries],
        "nats" => &[PubSub, Queue, TimeSeries],
        "redis" => &[KeyValue, PubSub],
        "postgres" => &[KeyValue, PubSub, Queue, TimeSeries, Reader, Transact, Graph],
        "clickhouse" => &[TimeSeries, Reader],
        "gremlin" | "neo4j" => &[Graph],
        _ => &[KeyValue, PubSub, Queue, Reader, Transact, TimeSeries, Graph],
    }
}

/// Whether a store may serve the needs. A partner keeps the messages of a queue.
fn model_serves(asks: &Asks, store: &Candidate, is_partner: bool) -> bool {
    let kind = store.kind.name();
    let is_memory = kind == "memory";
    let api = if is_partner { ClientApi::PubSub } else { asks.api };
    let keeps = asks.durability != Durability::BestEffort && asks.api != ClientApi::Reader;
    let strong = asks.durability == Durability::Strong;
    let seconds = store.facts.durable_after.map(|time| time.as_secs_f64());
    let mean = (asks.message / 4.0).floor().clamp(256.0, 10_000.0);
    let message_max = match kind {
        "kafka" | "nats" => 1_048_576.0,
        _ => 16_777_216.0,
    };
    let promises = |measured: Option<u64>, wanted: f64| {
        measured.is_none_or(|measured| wanted <= (measured as f64 * 0.7 + 1e-6).floor())
    };
    let has_room = match (asks.size, store.facts.free_bytes) {
        (Some(size), Some(free)) => size <= free as f64 * 0.8,
        _ => true,
    };
    let knows_when = asks.api == ClientApi::Transact || asks.api == ClientApi::Reader || seconds.is_some();
    let fits_the_log = seconds.is_none_or(|after| asks.writes * mean * after <= (1_u64 << 30) as f64);
    let is_atomic = asks.api != ClientApi::Transact || asks.durability != Durability::BestEffort;
    model_apis(kind).contains(&api)
        && !(keeps && is_memory)
        && (!strong || (knows_when && fits_the_log))
        && !(asks.is_strongly_consistent && kind == "clickhouse")
        && asks.message_declared(message_max)
        && is_atomic
        && promises(store.facts.write_rps, asks.writes)
        && promises(store.facts.read_rps, asks.reads)
        && has_room
}

impl Asks {
    fn message_declared(&self, max: f64) -> bool {
        self.message <= max
    }
}

/// Names of the stores that the model picks, and the partitions of a topic.
fn model(asks: &Asks, stores: &[Candidate]) -> Option<(String, Option<u64>)> {
    let mut sorted: Vec<_> = stores.iter().collect();
    sorted.sort_by(|left, right| left.name.cmp(&right.name));
    for word in model_order(asks) {
        let mut names = Vec::new();
        for (place, kind) in word.split('+').enumerate() {
            let is_kind = |store: &&&Candidate| match kind {
                "embedded" => store.is_embedded,
                kind => !store.is_embedded && store.kind.name() == kind,
            };
            let mut of_kind = sorted.iter().filter(is_kind);
            let found = of_kind.find(|store| model_serves(asks, store, place > 0));
            names.extend(found.map(|store| store.name.clone()));
        }
        if names.len() == word.split('+').count() {
            let each = if asks.durability == Durability::Strong {
                500.0
            } else {
                1_000.0
            };
            let partitions = (asks.writes / each).ceil().clamp(1.0, 256.0) as u64;
            return Some((names.join("+"), word.contains("kafka").then_some(partitions)));
        }
    }
    None
}

fn some_config() -> impl Strategy<Value = NamespaceConfig> {
    let api = prop::sample::select(vec![
        ClientApi::KeyValue,
        ClientApi::PubSub,
        ClientApi::Queue,
        ClientApi::Reader,
        ClientApi::Transact,
        ClientApi::TimeSeries,
        ClientApi::Graph,
    ]);
    let rates = prop::option::of(prop::sample::select(vec![
        1_u64, 99, 500, 1_000, 4_999, 5_000, 9_999, 10_000, 19_999, 20_000, 50_000,
    ]));
    let reads = prop::option::of(prop::sample::select(vec![1_u64, 5_000, 100_000]));
    let durability = prop::option::of(prop::sample::select(vec![
        Durability::Strong,
        Durability::Eventual,
        Durability::BestEffort,
    ]));
    let consistency = prop::option::of(prop::sample::select(vec![
        Consistency::Strong,
        Consistency::Eventual,
        Consistency::BoundedStaleness,
    ]));
    let retention = prop::option::of(prop::sample::select(vec![1_u64, 7, 8, 30, 31]));
    let message = prop::option::of(prop::sample::select(vec![1_000_u64, 100_000, 2 << 20]));
    let size = prop::option::of(prop::sample::select(vec![1_000_000_000_u64, 1_000_000_000_000]));
    let needs = (
        rates,
        reads,
        durability,
        consistency,
        retention,
        message,
        size,
        any::<bool>(),
    );
    (api, needs).prop_map(|(client_api, needs)| {
        let (write_rps, read_rps, durability, consistency, retention, max_message_size, data_size, ordered) =
            needs;
        NamespaceConfig {
            name: "n".into(),
            team: String::new(),
            client_api,
            needs: Needs {
                write_rps,
                read_rps,
                durability,
                consistency,
                retention: retention.map(|days| DAY * days as u32),
                max_message_size,
                data_size,
                ordered: Some(ordered),
                ..Needs::default()
            },
            access: Access::default(),
            policies: Policies::default(),
        }
    })
}

fn some_store(kind: StoreKind) -> impl Strategy<Value = Candidate> {
    let after = prop::sample::select(vec![Some(0_u64), Some(2), Some(240), None]);
    let writes = prop::sample::select(vec![None, Some(2_000_u64), Some(30_000), Some(1_000_000)]);
    let reads = prop::sample::select(vec![None, Some(6_000_u64), Some(1_000_000)]);
    let free = prop::sample::select(vec![None, Some(10_000_000_000_u64)]);
    (after, writes, reads, free, 0..3_u8).prop_map(move |(after, write_rps, read_rps, free_bytes, number)| {
        let mut store = store(&format!("{}-{number}", kind.name()), kind);
        store.facts = Facts {
            durable_after: after.map(Duration::from_secs),
            write_rps,
            read_rps,
            free_bytes,
            ..store.facts
        };
        store
    })
}

/// The embedded store, and up to six others.
fn some_stores() -> impl Strategy<Value = Vec<Candidate>> {
    let kinds = prop::sample::select(StoreKind::ALL.to_vec());
    let others = prop::collection::vec(kinds.prop_flat_map(some_store), 0..6);
    let embedded = prop::sample::select(vec![StoreKind::Sqlite, StoreKind::Memory]).prop_map(embedded);
    (embedded, others).prop_map(|(embedded, mut stores)| {
        stores.push(embedded);
        // Names are keys in a configuration.
        stores.sort_by(|left, right| left.name.cmp(&right.name));
        stores.dedup_by(|left, right| left.name == right.name);
        stores
    })
}

fn planned(
    config: &NamespaceConfig,
    stores: &[Candidate],
    current: Option<Current<'_>>,
) -> Result<Plan, Vec<Excuse>> {
    let wanted = Wanted {
        config,
        yaml: "the file",
        current,
        shards: 2,
    };
    plan(&wanted, stores, |index| Placement {
        backend: stores[index].title(),
        acknowledged: "somebody",
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_choice_is_that_of_the_model(config in some_config(), stores in some_stores()) {
        let found = pick(&Asked::of(&config), &stores, None).ok();
        let found = found.map(|choice| (names(&choice, &stores), choice.partitions));
        prop_assert_eq!(found, model(&asks(&config), &stores));
    }

    #[test]
    fn a_plan_is_the_same_whatever_the_order_and_names_each_store(
        config in some_config(),
        stores in some_stores(),
        turn in 0..8_usize,
    ) {
        let mut turned = stores.clone();
        let places = turned.len();
        turned.rotate_left(turn % places);
        match (planned(&config, &stores, None), planned(&config, &turned, None)) {
            (Ok(plan), Ok(again)) => {
                prop_assert_eq!(plan.hash("the file"), again.hash("the file"));
                prop_assert_eq!(&plan, &again);
                prop_assert!(plan.hash("another file") != again.hash("the file"));
                let mut named: Vec<_> = plan.rejected.iter().map(|one| &*one.store).collect();
                named.extend(plan.store.split('+'));
                named.sort_unstable();
                let mut all: Vec<_> = stores.iter().map(|store| &*store.name).collect();
                all.sort_unstable();
                prop_assert_eq!(named, all);
                prop_assert_eq!(plan.decisions[0].field, "store");
            }
            (Err(excuses), Err(again)) => prop_assert_eq!(excuses.len(), again.len()),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_namespace_stays_and_its_figures_grow_with_its_rate(
        config in some_config(),
        stores in some_stores(),
        times in 1..5_u64,
    ) {
        let Ok(first) = planned(&config, &stores, None) else {
            return Ok(());
        };
        if first.store.contains('+') {
            return Ok(());
        }
        let current = Current { store: &first.store, config: &config, version: 3 };
        let same = planned(&config, &stores, Some(current)).expect("it passes where it is");
        prop_assert_eq!(same.action, Action::None);
        prop_assert_eq!(&same.store, &first.store);
        let mut grown = config.clone();
        grown.needs.write_rps = Some(Asked::of(&config).write_rps * times);
        if let Ok(plan) = planned(&grown, &stores, Some(current)) {
            prop_assert_eq!(&plan.store, &first.store);
            prop_assert!(plan.bytes_max >= same.bytes_max);
            let rate = grown.needs.write_rps != config.needs.write_rps;
            prop_assert_eq!(plan.action, if rate { Action::Update } else { Action::None });
        }
    }
}

#[test]
fn a_plan_explains_itself() {
    let text = "namespace: click-events\nclient_api: pubsub\nneeds:\n  write_rps: 50000\n  read_rps: 100000\n  durability: eventual\n  \
                retention: 7days\n  max_message_size: 10KB\n";
    let config = parse(text, &FileLimits::default()).expect("the guide's file");
    let mut bus = store("bus", StoreKind::Nats);
    bus.facts.write_rps = Some(31_000);
    let stores = [
        bus,
        store("events", StoreKind::Kafka),
        embedded(StoreKind::Sqlite),
    ];
    let plan = planned(&config, &stores, None).expect("Kafka");
    let of = |field: &str| {
        let found = plan.decisions.iter().find(|decision| decision.field == field);
        found.map(|decision| (&*decision.value, &*decision.reason))
    };
    assert_eq!(
        of("store"),
        Some((
            "Kafka \"events\"",
            "pubsub from 20000 writes/s: Kafka before NATS (50000 asked)"
        ))
    );
    assert_eq!(
        of("topic"),
        Some((
            "prism-*, one partition",
            "a namespace has one in this version; 50000 writes/s at durability eventual would take 50, 1000 for each"
        ))
    );
    assert_eq!(
        of("limits").map(|(value, _)| value),
        Some("50000 writes/s, 100000 reads/s, messages up to 10KB")
    );
    assert_eq!(
        of("access"),
        Some(("nobody yet", "the file names no owners and no consumers"))
    );
    let rejected: Vec<_> = plan
        .rejected
        .iter()
        .map(|one| (&*one.title, one.rule, &*one.sentence))
        .collect();
    assert_eq!(
        rejected,
        [
            (
                "NATS \"bus\"",
                "WRITE_CAPACITY",
                "measured 31000 writes/s, promises 21700; 50000 asked"
            ),
            ("SQLite", "LATER", "Kafka \"events\" comes first"),
        ]
    );
    assert_eq!(plan.bytes_max, Some(302_400_000_000_000));
    assert!(
        plan.cost[0].starts_with("at most 302TB of disk"),
        "{:?}",
        plan.cost
    );
    assert!(plan.assumed.is_empty(), "{:?}", plan.assumed);
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    // The same on a laptop.
    let alone = [embedded(StoreKind::Sqlite)];
    let plan = planned(&config, &alone, None).expect("SQLite");
    assert_eq!(plan.decisions[0].reason, "the only store of this gateway");
}
