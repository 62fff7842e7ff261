//! Each namespace has a home of its own: memory and SQLite serve next to each other in one gateway,
//! with any number of shards, across restarts, and whatever happens to the others.

use std::{ops::ControlFlow, time::Instant};

use prism_backends::kind::StoreKind;
use prism_codec::proto::{
    google::rpc::ErrorInfo,
    prism::{
        admin::v1::{
            CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, GetRequest as AdminGetRequest,
            GetResponse as AdminGetResponse,
        },
        common::v1::IdempotencyToken,
        keyvalue::v1::{ScanRequest, ScanResponse},
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::{EmbeddedStore, StoreOptions},
};
use prost::Message as _;
use rusqlite::Connection;

use super::{
    log::{get, method, mutate, put},
    support::{CALL_TIMEOUT, Gateway},
};

/// Namespaces of one gateway, each with its durability, its home, and whether it outlives the
/// process.
const MIXED: [(&str, &str, &str, bool); 4] = [
    ("lost", "best-effort", "memory \"cache\"", false),
    ("lost-too", "best-effort", "memory \"cache\"", false),
    ("later", "eventual", "SQLite table \"later\"", true),
    ("kept", "strong", "SQLite table \"kept\"", true),
];

fn with_cache(shards: usize) -> Gateway {
    Gateway::start_with(EmbeddedStore::Sqlite, shards, |options| {
        options.stores = vec![StoreOptions::plain("cache", StoreKind::Memory)];
    })
}

#[test]
fn memory_and_sqlite_serve_next_to_each_other_with_any_number_of_shards() {
    for shards in 1..=3 {
        let mut gateway = with_cache(shards);
        for (name, durability, home, _) in MIXED {
            gateway.create_namespace_at(name, durability);
            assert_eq!(backend(&gateway, name), home);
        }
        for (name, ..) in MIXED {
            fill(&gateway, name);
        }
        for (name, ..) in MIXED {
            assert_eq!(read(&gateway, name), filled(name), "{name} with {shards} shards");
        }
        gateway.restart(|_| {});
        for (name, _, home, survives) in MIXED {
            let expected = if survives { filled(name) } else { Vec::new() };
            assert_eq!(read(&gateway, name), expected, "{name} with {shards} shards");
            assert_eq!(backend(&gateway, name), home);
            fill(&gateway, name);
        }
        // One of each home is deleted; the others are unaffected, and the names are free.
        for gone in ["lost", "kept"] {
            delete(&gateway, gone);
            assert_eq!(
                put(&mut gateway.client(), gone, "id", "v", None)
                    .map(drop)
                    .expect_err("gone")
                    .code,
                5
            );
        }
        for (name, ..) in [MIXED[1], MIXED[2]] {
            assert_eq!(read(&gateway, name), filled(name), "{name} with {shards} shards");
        }
        for (name, durability, home, _) in [MIXED[0], MIXED[3]] {
            gateway.create_namespace_at(name, durability);
            assert_eq!(backend(&gateway, name), home);
            assert_eq!(read(&gateway, name), Vec::new(), "{name} is a new one");
            fill(&gateway, name);
        }
        gateway.restart(|_| {});
        assert_eq!(read(&gateway, "kept"), filled("kept"));
        assert_eq!(read(&gateway, "lost"), Vec::new());
    }
}

#[test]
fn sqlite_by_name_serves_next_to_embedded_memory() {
    let mut gateway = Gateway::start_with(EmbeddedStore::Memory, 2, |options| {
        options.stores = vec![StoreOptions::plain("disk", StoreKind::Sqlite)];
    });
    gateway.create_namespace_at("ledger", "strong");
    fill(&gateway, "ledger");
    gateway.restart(|_| {});
    assert_eq!(read(&gateway, "ledger"), filled("ledger"));
    let directory = gateway.directory().join("keyvalue.db");
    assert!(directory.is_file(), "its data lies in the data directory");
}

#[test]
fn a_namespace_keeps_its_store_and_waits_for_it_when_the_configuration_loses_it() {
    let mut gateway = with_cache(2);
    gateway.create_namespace_at("lost", "best-effort");
    gateway.create_namespace_at("kept", "strong");
    fill(&gateway, "kept");
    // Without the store its namespaces are out of service, and the others are not.
    gateway.restart(|options| options.stores.clear());
    let refusal = put(&mut gateway.client(), "lost", "id", "v", None)
        .map(drop)
        .expect_err("no store");
    assert_eq!(refusal.code, 9, "{refusal:?}");
    assert!(
        refusal
            .message
            .contains("its store, memory \"cache\", is not configured"),
        "{refusal:?}"
    );
    assert_eq!(read(&gateway, "kept"), filled("kept"));
    assert_eq!(backend(&gateway, "lost"), "memory \"cache\"");
    // A new one goes to the remaining store, and stays there when the other one is back.
    gateway.create_namespace_at("new", "best-effort");
    assert_eq!(backend(&gateway, "new"), "SQLite table \"new\"");
    fill(&gateway, "new");
    gateway.restart(|options| options.stores = vec![StoreOptions::plain("cache", StoreKind::Memory)]);
    assert_eq!(read(&gateway, "new"), filled("new"));
    fill(&gateway, "lost");
    assert_eq!(read(&gateway, "lost"), filled("lost"));
}

#[test]
fn a_need_that_no_store_keeps_is_refused_with_an_excuse_for_each() {
    let gateway = Gateway::start_with(EmbeddedStore::Memory, 1, |options| {
        options.stores = vec![StoreOptions::plain("cache", StoreKind::Memory)];
    });
    let refused = |yaml: &str| {
        let request = CreateRequest {
            yaml: format!("namespace: n\n{yaml}"),
        };
        let answer: Result<CreateResponse, _> = gateway
            .client()
            .unary("/prism.admin.v1.Namespaces/Create", &request);
        let Err(ClientError::Status(status)) = answer else {
            panic!("not refused: {answer:?}");
        };
        let info = ErrorInfo::decode(&status.details[0].value[..]).expect("an ErrorInfo");
        (status.code, info, status.message)
    };
    let (code, info, message) = refused("client_api: keyvalue\nneeds: {durability: strong}\n");
    assert_eq!((code, &*info.reason), (9, "DURABILITY_IMPOSSIBLE"), "{message}");
    for (name, store) in [("embedded", "memory"), ("cache", "memory \"cache\"")] {
        assert_eq!(
            info.metadata.get(&format!("store-{name}")).map(String::as_str),
            Some("DURABILITY"),
            "{info:?}"
        );
        assert!(
            message.contains(&format!("{store}: durability strong needs")),
            "{message}"
        );
    }
    assert!(message.contains("--embedded sqlite"), "{message}");
}

/// Starts a gateway with the maximum number of namespaces.
#[test]
fn ten_thousand_namespaces_are_known_soon_after_the_start() {
    const COUNT: u32 = 10_000;
    let mut gateway = with_cache(2);
    gateway.create_namespace_at("kept", "strong");
    gateway.create_namespace_at("lost", "best-effort");
    gateway.stop();
    let catalog = Connection::open(gateway.directory().join("catalog.db")).expect("the catalog");
    // Copies of both, with other names.
    let columns = "team, client_api, durability, backend, create_time_ns, store, store_kind";
    let more = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
         INSERT INTO namespaces (name, yaml, {columns})
         SELECT namespaces.name || '-' || n, replace(yaml, namespaces.name, namespaces.name || '-' || n), {columns}
         FROM numbers, namespaces",
        count = COUNT / 2 - 1
    );
    catalog.execute_batch(&more).expect("the copies");
    let held: u32 = catalog
        .query_row("SELECT count(*) FROM namespaces", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(held, COUNT);
    drop(catalog);
    let begun = Instant::now();
    gateway.start_again(|_| {});
    let took = begun.elapsed();
    println!("{COUNT} namespaces: {took:?} until the port answers");
    let mut client = gateway.client();
    for name in ["kept-1", "kept-4999", "lost-1", "lost-4999", "kept", "lost"] {
        put(&mut client, name, "id", name, None).expect("a put");
        assert_eq!(get(&mut client, name, "id").as_deref(), Some(name));
    }
    // Less than two seconds with optimisation; a test build takes several times as long.
    assert!(took < CALL_TIMEOUT / 2, "{took:?}");
}

// --- helpers -------------------------------------------------------------------------------------

const IDS: usize = 24;

fn id(number: usize) -> String {
    format!("id-{number:02}")
}

/// A value that names its namespace, so that one in the wrong namespace is recognised.
fn value(namespace: &str, number: usize) -> String {
    format!("{namespace}/{number}")
}

/// Writes to ids on every shard: some by Puts, as many more by one Mutate.
fn fill(gateway: &Gateway, namespace: &str) {
    let mut client = gateway.client();
    for number in 0..IDS {
        put(
            &mut client,
            namespace,
            &id(number),
            &value(namespace, number),
            None,
        )
        .expect("a put");
    }
    let ids: Vec<_> = (0..IDS).map(|number| format!("many-{number:02}")).collect();
    let token = IdempotencyToken {
        generation_time: None,
        token: format!("{namespace}-{:?}", Instant::now()).into_bytes(),
    };
    mutate(&mut client, namespace, &ids, namespace, token).expect("a mutate");
}

/// All ids and values after [`fill`].
fn filled(namespace: &str) -> Vec<(String, String)> {
    let single = (0..IDS).map(|number| (id(number), value(namespace, number)));
    let many = (0..IDS).map(|number| (format!("many-{number:02}"), namespace.to_owned()));
    single.chain(many).collect()
}

/// All ids and values by Get, which must equal those of a Scan.
fn read(gateway: &Gateway, namespace: &str) -> Vec<(String, String)> {
    let mut client = gateway.client();
    let mut scanned = scan(&mut client, namespace);
    scanned.sort();
    let wanted: Vec<_> = filled(namespace).into_iter().map(|(id, _)| id).collect();
    let found: Vec<_> = wanted
        .into_iter()
        .filter_map(|id| get(&mut client, namespace, &id).map(|value| (id, value)))
        .collect();
    assert_eq!(scanned, found, "{namespace}");
    found
}

fn scan(client: &mut Client, namespace: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let request = ScanRequest {
        namespace: namespace.to_owned(),
        selection: None,
    };
    client
        .server_streaming(&method("Scan"), &request, |page: ScanResponse| {
            for entry in page.entries {
                for item in entry.items {
                    found.push((
                        entry.id.clone(),
                        String::from_utf8_lossy(&item.value).into_owned(),
                    ));
                }
            }
            ControlFlow::Continue(())
        })
        .expect("a scan");
    found
}

pub(super) fn backend(gateway: &Gateway, name: &str) -> String {
    let request = AdminGetRequest {
        name: name.to_owned(),
    };
    let answer: AdminGetResponse = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Get", &request)
        .expect("the namespace");
    answer.namespace.expect("the namespace").backend
}

fn delete(gateway: &Gateway, name: &str) {
    let request = DeleteRequest {
        name: name.to_owned(),
    };
    let _: DeleteResponse = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Delete", &request)
        .expect("the namespace is deleted");
}
