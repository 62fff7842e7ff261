//! Tests of the choice: the vectors of the design, and properties over random gateways.

mod model;
mod rules;

use prism_backends::offer::{Acked, Features, Order, Replay};

use super::*;
use crate::namespace::file::{FileLimits, parse};

const DAY: Duration = Duration::from_secs(86_400);
const ALL_FEATURES: Features = Features::STRONG_READS
    .and(Features::TTL)
    .and(Features::RETENTION)
    .and(Features::REPLAY)
    .and(Features::ATOMIC)
    .and(Features::SWAPS)
    .and(Features::SCANS)
    .and(Features::TOMBSTONES);

/// An offer that refuses nothing.
fn offer(api: Api) -> Offer {
    Offer {
        api,
        acked: Acked::Durable,
        replay: Replay::Exact,
        order: Order::PerKey,
        features: ALL_FEATURES,
        value_bytes_max: 16 << 20,
        survives_restart: true,
    }
}

/// A store of a kind as described by the design, whether or not this version has a driver.
fn store(name: &str, kind: StoreKind) -> Candidate {
    let (apis, value_bytes_max): (&[Api], usize) = match kind {
        StoreKind::Kafka => (&[Api::PubSub, Api::TimeSeries], 1 << 20),
        StoreKind::Nats => (&[Api::PubSub, Api::Queue, Api::TimeSeries], 1 << 20),
        StoreKind::Redis => (&[Api::KeyValue, Api::PubSub], 16 << 20),
        StoreKind::Postgres => (
            &[
                Api::KeyValue,
                Api::PubSub,
                Api::Queue,
                Api::TimeSeries,
                Api::Reader,
                Api::Transact,
                Api::Graph,
            ],
            16 << 20,
        ),
        StoreKind::ClickHouse => (&[Api::TimeSeries, Api::Reader], 16 << 20),
        StoreKind::Gremlin | StoreKind::Neo4j => (&[Api::Graph], 16 << 20),
        StoreKind::Memory | StoreKind::Sqlite => (&Api::ALL, 16 << 20),
    };
    let lacks = match kind {
        StoreKind::ClickHouse => Features::STRONG_READS,
        _ => Features::NONE,
    };
    let offers = apis.iter().map(|api| Offer {
        value_bytes_max,
        features: ALL_FEATURES.without(lacks),
        survives_restart: kind != StoreKind::Memory,
        acked: match kind {
            StoreKind::Memory => Acked::Volatile,
            _ => Acked::Durable,
        },
        ..offer(*api)
    });
    let seconds = match kind {
        StoreKind::Nats | StoreKind::Redis => 2,
        _ => 0,
    };
    Candidate {
        offers: offers.collect(),
        facts: Facts {
            durable_after: Some(Duration::from_secs(seconds)),
            ..Facts::default()
        },
        ..Candidate::new(name, kind)
    }
}

fn embedded(kind: StoreKind) -> Candidate {
    Candidate {
        is_embedded: true,
        ..store("embedded", kind)
    }
}

/// One store of each kind in the design's vectors.
fn all() -> Vec<Candidate> {
    let kinds = [
        StoreKind::Kafka,
        StoreKind::Nats,
        StoreKind::Redis,
        StoreKind::Postgres,
        StoreKind::ClickHouse,
        StoreKind::Gremlin,
    ];
    let mut stores: Vec<_> = kinds.iter().map(|kind| store(kind.name(), *kind)).collect();
    stores.push(embedded(StoreKind::Sqlite));
    stores
}

fn asked(yaml: &str) -> Asked {
    let text = format!("namespace: n\n{yaml}");
    Asked::of(&parse(&text, &FileLimits::NONE).unwrap_or_else(|problems| panic!("{problems:?}\n{text}")))
}

fn names(choice: &Choice, stores: &[Candidate]) -> String {
    let names: Vec<_> = choice.stores.iter().map(|index| &*stores[*index].name).collect();
    names.join("+")
}

/// The seven namespaces of the users' documents, with the store and the partitions that each gets.
const VECTORS: [(&str, &str, &str, Option<u64>); 7] = [
    (
        "click-events",
        "client_api: pubsub\nneeds: {write_rps: 50000, read_rps: 100000, durability: eventual, retention: 7days, max_message_size: 10KB}",
        "kafka",
        Some(50),
    ),
    (
        "user-events",
        "client_api: pubsub\nneeds: {write_rps: 1000, read_rps: 5000, durability: strong, retention: 7days, ordered: true, \
         max_message_size: 100KB, data_size: 10GB}",
        "nats",
        None,
    ),
    (
        "order-processing",
        "client_api: queue\nneeds: {write_rps: 1000, durability: strong, retention: 30days, ordered: true}",
        "postgres+kafka",
        Some(2),
    ),
    (
        "user-sessions",
        "client_api: keyvalue\nneeds: {write_rps: 2000, read_rps: 10000, durability: eventual, retention: 1day}",
        "redis",
        None,
    ),
    (
        "payments",
        "client_api: transact\nneeds: {write_rps: 500, durability: strong, retention: 365days, consistency: strong}",
        "postgres",
        None,
    ),
    (
        "metrics",
        "client_api: reader\nneeds: {write_rps: 5000, durability: best-effort, retention: 30days, max_message_size: 1KB}",
        "clickhouse",
        None,
    ),
    (
        "options",
        "client_api: timeseries\nneeds: {write_rps: 10000, durability: strong, retention: 90days}",
        "kafka",
        Some(20),
    ),
];

#[test]
fn the_seven_vectors_get_the_stores_of_the_design() {
    for (name, yaml, expected, partitions) in VECTORS {
        let stores = all();
        let choice =
            pick(&asked(yaml), &stores, None).unwrap_or_else(|excuses| panic!("{name}: {excuses:?}"));
        assert_eq!(names(&choice, &stores), expected, "{name}");
        assert_eq!(choice.partitions, partitions, "{name}");
        let alone = [embedded(StoreKind::Sqlite)];
        let choice = pick(&asked(yaml), &alone, None).expect("the embedded store takes all seven");
        assert_eq!(choice.stores, [0], "{name}");
    }
}

#[test]
fn a_store_that_syncs_rarely_is_passed_over_with_its_reason() {
    let mut nats = store("bus", StoreKind::Nats);
    nats.facts.durable_after = Some(Duration::from_secs(130));
    let stores = [
        nats,
        store("events", StoreKind::Kafka),
        embedded(StoreKind::Sqlite),
    ];
    let (_, yaml, ..) = VECTORS[1];
    let choice = pick(&asked(yaml), &stores, None).expect("Kafka");
    assert_eq!(names(&choice, &stores), "events");
    let [excuse] = &choice.excuses[..] else {
        panic!("{:?}", choice.excuses)
    };
    assert_eq!((&*excuse.title, excuse.rule), ("NATS \"bus\"", Rule::LogBudget));
    assert!(
        excuse.sentence.contains("would have to hold"),
        "{}",
        excuse.sentence
    );
}

#[test]
fn a_namespace_keeps_its_store_while_that_passes() {
    let stores = all();
    let grown = asked(
        "client_api: pubsub\nneeds: {write_rps: 50000, read_rps: 50000, durability: eventual, retention: 7days, max_message_size: 10KB}",
    );
    let choice = pick(&grown, &stores, Some("nats")).expect("a store");
    assert_eq!(names(&choice, &stores), "nats", "Kafka comes first for a new one");
}

#[test]
fn topics_lie_in_postgresql_where_no_broker_takes_them() {
    let mut stores = vec![store("orders", StoreKind::Postgres), embedded(StoreKind::Sqlite)];
    for (_, yaml, ..) in &VECTORS[..2] {
        let choice = pick(&asked(yaml), &stores, None).expect("a store");
        assert_eq!(names(&choice, &stores), "orders");
    }
    stores.push(store("bus", StoreKind::Nats));
    let choice = pick(&asked(VECTORS[1].1), &stores, None).expect("a store");
    assert_eq!(names(&choice, &stores), "bus");
}

#[test]
fn memory_beside_the_embedded_store_takes_what_may_be_lost() {
    let stores = [store("cache", StoreKind::Memory), embedded(StoreKind::Sqlite)];
    for (durability, expected) in [
        ("best-effort", "cache"),
        ("eventual", "embedded"),
        ("strong", "embedded"),
    ] {
        let asked = asked(&format!(
            "client_api: keyvalue\nneeds: {{durability: {durability}}}"
        ));
        let choice = pick(&asked, &stores, None).expect("a store");
        assert_eq!(names(&choice, &stores), expected, "{durability}");
    }
    let stores = [store("disk", StoreKind::Sqlite), embedded(StoreKind::Memory)];
    let asked = asked("client_api: keyvalue\nneeds: {durability: strong}");
    assert_eq!(
        names(&pick(&asked, &stores, None).expect("a store"), &stores),
        "disk"
    );
}

#[test]
fn without_a_store_there_is_one_excuse_for_each() {
    let stores = [
        store("cache", StoreKind::Memory),
        store("bus", StoreKind::Nats),
        store("olap", StoreKind::ClickHouse),
        embedded(StoreKind::Memory),
    ];
    let excuses = pick(
        &asked("client_api: keyvalue\nneeds: {durability: strong}"),
        &stores,
        None,
    )
    .expect_err("none");
    let mut rules: Vec<_> = excuses
        .iter()
        .map(|excuse| (&*excuse.title, excuse.rule))
        .collect();
    rules.sort_by_key(|(store, _)| (*store).to_owned());
    assert_eq!(
        rules,
        [
            ("ClickHouse \"olap\"", Rule::NotThisApi),
            ("NATS \"bus\"", Rule::NotThisApi),
            ("memory", Rule::Durability),
            ("memory \"cache\"", Rule::Durability),
        ]
    );
}

/// Needs of each kind, the strongest first, with the weaker ones after it.
fn durabilities() -> [Durability; 3] {
    [Durability::Strong, Durability::Eventual, Durability::BestEffort]
}

/// Numbers that follow from a seed (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn asked(&mut self) -> Asked {
        Asked {
            api: self.of(&Api::ALL),
            durability: self.of(&durabilities()),
            consistency: self.of(&[None, Some(Consistency::Strong), Some(Consistency::Eventual)]),
            ordered: self.below(2) == 0,
            replay: self.below(4) == 0,
            message_bytes: self.of(&[None, Some(1_000), Some(100_000), Some(2 << 20)]),
            retention: self.of(&[None, Some(DAY), Some(7 * DAY), Some(8 * DAY), Some(31 * DAY)]),
            ttl: None,
            write_rps: self.of(&[1, 99, 500, 4_999, 5_000, 9_999, 10_000, 19_999, 20_000, 50_000]),
            read_rps: self.of(&[1, 5_000, 100_000]),
            data_size: self.of(&[None, Some(1_000_000_000), Some(1_000_000_000_000)]),
        }
    }

    fn store(&mut self, name: &str, kind: StoreKind) -> Candidate {
        let mut store = store(name, kind);
        let seconds = self.of(&[Some(0), Some(2), Some(240), None]);
        store.facts.durable_after = seconds.map(Duration::from_secs);
        store.facts.write_rps = self.of(&[None, Some(2_000), Some(30_000), Some(1_000_000)]);
        store.facts.free_bytes = self.of(&[None, Some(10_000_000_000)]);
        store
    }
}

#[test]
fn the_choice_has_the_properties_of_the_design() {
    const SEED: u64 = 7;
    let mut random = Random(SEED);
    let kinds = [
        StoreKind::Kafka,
        StoreKind::Nats,
        StoreKind::Redis,
        StoreKind::Postgres,
        StoreKind::ClickHouse,
        StoreKind::Gremlin,
        StoreKind::Memory,
    ];
    let mut without = 0;
    for round in 0..4_000 {
        let mut stores = vec![embedded(random.of(&[StoreKind::Sqlite, StoreKind::Memory]))];
        for number in 0..random.below(7) {
            let kind = random.of(&kinds);
            stores.push(random.store(&format!("{}-{number}", kind.name()), kind));
        }
        let needs = random.asked();
        let Ok(choice) = pick(&needs, &stores, None) else {
            without += 1;
            let mut named: Vec<_> = pick(&needs, &stores, None)
                .expect_err("as before")
                .into_iter()
                .map(|excuse| excuse.store)
                .collect();
            named.sort();
            named.dedup();
            assert_eq!(named.len(), stores.len(), "round {round}: an excuse for each");
            continue;
        };
        let chosen = names(&choice, &stores);
        // Neither the order of the configuration nor a store that was not chosen makes a
        // difference.
        stores.reverse();
        assert_eq!(
            names(&pick(&needs, &stores, None).expect("as before"), &stores),
            chosen,
            "round {round}"
        );
        for gone in 0..stores.len() {
            if chosen.split('+').any(|name| name == stores[gone].name) {
                continue;
            }
            let mut fewer = stores.clone();
            fewer.remove(gone);
            let again = pick(&needs, &fewer, None).expect("the chosen one is still there");
            assert_eq!(
                (names(&again, &fewer), again.partitions),
                (chosen.clone(), choice.partitions),
                "round {round}"
            );
        }
        // A store that keeps a promise keeps every weaker one, and a namespace stays where it is.
        let weaker = [
            Asked {
                durability: Durability::BestEffort,
                ..needs
            },
            Asked {
                consistency: None,
                ..needs
            },
            Asked {
                ordered: false,
                ..needs
            },
            Asked {
                write_rps: 1,
                ..needs
            },
        ];
        let single = stores.iter().find(|store| store.name == chosen);
        if let Some(store) = single {
            for weak in weaker.iter().filter(|weak| weak.api != Api::Transact) {
                let broken = excuse(weak, store.kind, store.offer(weak.api), &store.facts);
                assert_eq!(broken, None, "round {round}: {weak:?}");
            }
            let stays = pick(&needs, &stores, Some(&chosen)).expect("as before");
            assert_eq!(names(&stays, &stores), chosen, "round {round}");
        }
        // An additional store makes nothing worse.
        stores.push(
            random.store(
                "another",
                random
                    .0
                    .checked_rem(2)
                    .map_or(StoreKind::Kafka, |_| StoreKind::Nats),
            ),
        );
        assert!(pick(&needs, &stores, None).is_ok(), "round {round}");
    }
    assert!((100..3_900).contains(&without), "{without} of 4000 have no store");
}
