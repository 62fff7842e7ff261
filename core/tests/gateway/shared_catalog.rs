//! Gateways that share a catalog in a real PostgreSQL: what one of them makes the others serve,
//! changes from several at once end as one after the other, and a catalog that is away stops
//! changes only.

use std::{
    collections::HashSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use prism_backends::kind::StoreKind;
use prism_codec::{
    grpc::Status as GrpcStatus,
    proto::prism::admin::v1::{
        CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, GetRequest, GetResponse, ListRequest,
        ListResponse, Namespace, UpdateRequest, UpdateResponse,
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::{CatalogOptions, EmbeddedStore, ServeOptions, StoreOptions},
    serve,
};

use super::{
    log::{get, put},
    postgres::server::{Server, durable, shared},
    support::{CALL_TIMEOUT, Gateway},
};

/// A gateway of the group that shares this catalog, with its data in this database.
pub(super) fn gateway(catalog: &str, store: &str) -> Gateway {
    Gateway::start_with(EmbeddedStore::Memory, 2, |options| {
        options.catalog.url = Some(catalog.to_owned());
        let mut orders = StoreOptions::plain("orders", StoreKind::Postgres);
        orders.address = Some(store.to_owned());
        orders.pool_max = Some(3);
        options.stores = vec![orders];
    })
}

fn yaml(name: &str, team: &str) -> String {
    format!("namespace: {name}\nteam: {team}\nclient_api: keyvalue\nneeds: {{durability: strong}}\n")
}

fn reason(error: ClientError) -> String {
    let ClientError::Status(status) = error else {
        panic!("not a status: {error}");
    };
    GrpcStatus::from_proto(*status).reason().unwrap_or_default()
}

fn client(address: &str) -> Client {
    Client::connect(address, CALL_TIMEOUT).expect("the gateway takes connections")
}

fn create(gateway: &str, name: &str) -> Result<Namespace, String> {
    let request = CreateRequest {
        yaml: yaml(name, "tests"),
    };
    let answer: Result<CreateResponse, _> =
        client(gateway).unary("/prism.admin.v1.Namespaces/Create", &request);
    answer
        .map(|answer| answer.namespace.expect("a namespace"))
        .map_err(reason)
}

fn update(gateway: &str, name: &str, team: &str, base_version: u64) -> Result<Namespace, String> {
    let request = UpdateRequest {
        yaml: yaml(name, team),
        base_version,
    };
    let answer: Result<UpdateResponse, _> =
        client(gateway).unary("/prism.admin.v1.Namespaces/Update", &request);
    answer
        .map(|answer| answer.namespace.expect("a namespace"))
        .map_err(reason)
}

fn delete(gateway: &str, name: &str) -> Result<(), String> {
    let request = DeleteRequest {
        name: name.to_owned(),
    };
    let answer: Result<DeleteResponse, _> =
        client(gateway).unary("/prism.admin.v1.Namespaces/Delete", &request);
    answer.map(drop).map_err(reason)
}

fn show(gateway: &str, name: &str) -> Option<Namespace> {
    let request = GetRequest {
        name: name.to_owned(),
    };
    let answer: Result<GetResponse, _> = client(gateway).unary("/prism.admin.v1.Namespaces/Get", &request);
    answer.ok().and_then(|answer| answer.namespace)
}

fn names(gateway: &str) -> Vec<String> {
    let request = ListRequest {
        page_size: 1_000,
        ..ListRequest::default()
    };
    let answer: ListResponse = client(gateway)
        .unary("/prism.admin.v1.Namespaces/List", &request)
        .expect("a list");
    answer.namespaces.into_iter().map(|entry| entry.name).collect()
}

/// Waits until something holds; how long that took.
#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < CALL_TIMEOUT, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

#[test]
fn what_one_gateway_makes_the_other_serves() {
    let (catalog, store) = (durable().database(), durable().database());
    let (mut first, mut second) = (gateway(&catalog, &store), gateway(&catalog, &store));
    let mut longest = Duration::ZERO;
    for round in 0..5 {
        let name = format!("kept-{round}");
        create(first.address(), &name).expect("a namespace");
        let mut client = second.client();
        longest = longest.max(await_that("the other serves it", || {
            put(&mut client, &name, "id", "from the second", None).is_ok()
        }));
        assert_eq!(
            get(&mut first.client(), &name, "id").as_deref(),
            Some("from the second")
        );
    }
    println!("a new namespace is served by the other gateway after {longest:?} at most");
    let result = put(&mut second.client(), "kept-0", "id", "again", None).expect("a put");
    assert_eq!(
        result.durability().as_str_name(),
        "DURABILITY_STRONG",
        "the other knows what it promises"
    );
    update(second.address(), "kept-0", "others", 1).expect("an update");
    await_that("the first knows the new file", || {
        show(first.address(), "kept-0").is_some_and(|entry| entry.version == 2 && entry.team == "others")
    });
    // Both survive a restart with what they know.
    first.restart(|_| {});
    second.restart(|_| {});
    assert_eq!(names(first.address()), names(second.address()));
    assert_eq!(names(first.address()).len(), 5);
    assert_eq!(get(&mut first.client(), "kept-0", "id").as_deref(), Some("again"));
    delete(first.address(), "kept-0").expect("a delete");
    await_that("the other does not serve it any more", || {
        put(&mut second.client(), "kept-0", "id", "v", None).is_err_and(|status| status.code == 5)
    });
    // The name is free, for another number: nothing of the old data is seen.
    create(second.address(), "kept-0").expect("a namespace");
    await_that("the first serves the new one", || {
        put(&mut first.client(), "kept-0", "other", "v", None).is_ok()
    });
    assert_eq!(get(&mut first.client(), "kept-0", "id"), None);
}

#[test]
fn changes_of_both_at_once_end_as_one_after_the_other() {
    let (catalog, store) = (durable().database(), durable().database());
    let (first, second) = (gateway(&catalog, &store), gateway(&catalog, &store));
    let both = |work: &(dyn Fn(&str) -> Result<(), String> + Sync)| {
        let results = thread::scope(|scope| {
            let [first, second] = [first.address(), second.address()];
            let other = scope.spawn(|| work(second));
            [work(first), other.join().expect("a thread")]
        });
        results.into_iter().partition::<Vec<_>, _>(Result::is_ok)
    };
    for round in 0..6 {
        let name = format!("contended-{round}");
        let (made, refused) = both(&|gateway| create(gateway, &name).map(drop));
        assert_eq!(
            (made.len(), refused),
            (1, vec![Err("NAMESPACE_EXISTS".to_owned())])
        );
        for gateway in [&first, &second] {
            await_that("it is served", || {
                put(&mut gateway.client(), &name, "id", "v", None).is_ok()
            });
        }
        let (made, refused) = both(&|gateway| update(gateway, &name, "others", 1).map(drop));
        assert_eq!(made.len(), 1, "{refused:?}");
        let refused = refused[0].as_ref().expect_err("a refusal");
        assert!(
            ["VERSION_CHANGED", "NAMESPACE_NOT_READY"].contains(&refused.as_str()),
            "{refused}"
        );
        // A delete that comes second has its end all the same, unless all is over before it.
        let (gone, late) = both(&|gateway| delete(gateway, &name));
        assert!(!gone.is_empty());
        assert!(
            late.iter()
                .all(|late| *late == Err("NAMESPACE_NOT_FOUND".to_owned())),
            "{late:?}"
        );
    }
    // Each makes its own, and all numbers differ.
    thread::scope(|scope| {
        for (gateway, letter) in [(first.address(), 'a'), (second.address(), 'b')] {
            scope.spawn(move || {
                for number in 0..10 {
                    create(gateway, &format!("{letter}-{number}")).expect("a namespace");
                }
            });
        }
    });
    await_that("both know all", || {
        names(first.address()).len() == 20 && names(first.address()) == names(second.address())
    });
    let database = catalog.rsplit('/').next().expect("a name");
    let ids = durable().sql(database, "SELECT id FROM prism_catalog.namespaces");
    assert_eq!(ids.lines().collect::<HashSet<_>>().len(), 20);
}

#[test]
fn a_catalog_that_is_away_stops_changes_and_nothing_else() {
    let mut catalogs = Server::start(&[]);
    let (catalog, store) = (catalogs.url("postgres"), durable().database());
    let mut gateway = gateway(&catalog, &store);
    create(gateway.address(), "kept").expect("a namespace");
    catalogs.kill();
    let away = || {
        put(&mut gateway.client(), "kept", "id", "v", None).expect("a put");
        let begun = Instant::now();
        assert_eq!(
            create(gateway.address(), "other").expect_err("away"),
            "CATALOG_UNAVAILABLE"
        );
        assert_eq!(
            delete(gateway.address(), "kept").expect_err("away"),
            "CATALOG_UNAVAILABLE"
        );
        assert_eq!(names(gateway.address()), ["kept"]);
        begun.elapsed()
    };
    away();
    println!("refused in {:?}", away());
    gateway.restart(|_| {});
    assert_eq!(
        get(&mut gateway.client(), "kept", "id").as_deref(),
        Some("v"),
        "by its copy"
    );
    assert_eq!(
        create(gateway.address(), "other").expect_err("away"),
        "CATALOG_UNAVAILABLE"
    );
    catalogs.resume();
    await_that("the catalog is found again", || {
        create(gateway.address(), "other").is_ok()
    });
    delete(gateway.address(), "kept").expect("a delete");
    assert_eq!(names(gateway.address()), ["other"]);
}

/// The sentence with which a gateway on this directory refuses to start with this catalog.
fn refused_start(directory: &Path, url: &str) -> String {
    let options = ServeOptions {
        data_dir: directory.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        catalog: CatalogOptions {
            url: Some(url.to_owned()),
            ..CatalogOptions::default()
        },
        ..ServeOptions::default()
    };
    serve::Server::start(options).expect_err("a refusal").to_string()
}

#[test]
fn a_catalog_whose_server_syncs_nothing_is_refused_and_takes_no_changes_later() {
    // A first start: there is nothing to serve yet.
    let directory = tempfile::tempdir().expect("a directory");
    let said = refused_start(directory.path(), &shared().database());
    for part in ["catalog.url", "fsync = off", "set fsync = on"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    // One that was right before: what is there is served, and nothing is promised any more.
    let mut catalogs = Server::start(&[]);
    let store = durable().database();
    let gateway = gateway(&catalogs.url("postgres"), &store);
    create(gateway.address(), "kept").expect("a namespace");
    catalogs.sql("postgres", "ALTER SYSTEM SET fsync = off");
    catalogs.kill();
    catalogs.resume();
    let request = CreateRequest {
        yaml: yaml("other", "tests"),
    };
    await_that("changes are refused for this reason", || {
        let answer: Result<CreateResponse, _> = gateway
            .client()
            .unary("/prism.admin.v1.Namespaces/Create", &request);
        match answer {
            Err(ClientError::Status(status)) => status.message.contains("fsync = off"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a change was acknowledged"),
        }
    });
    put(&mut gateway.client(), "kept", "id", "v", None).expect("a put");
    catalogs.sql("postgres", "ALTER SYSTEM SET fsync = on");
    catalogs.kill();
    catalogs.resume();
    await_that("changes are taken again", || {
        create(gateway.address(), "other").is_ok()
    });
}

#[test]
fn a_first_start_without_the_catalog_and_a_directory_with_its_own_are_refused() {
    let start = |gateway: &Gateway, url: &str| refused_start(gateway.directory(), url);
    let mut own = Gateway::start(EmbeddedStore::Sqlite, 1);
    own.stop();
    let said = start(&own, "postgresql://prism@127.0.0.1:1/none");
    assert!(
        said.contains("catalog.url: the catalog at 127.0.0.1:1/none cannot be used"),
        "{said}"
    );
    own.start_again(|_| {});
    own.create_namespace("mine");
    own.stop();
    let said = start(&own, &durable().database());
    assert!(
        said.contains("has 1 namespaces in a catalog of its own"),
        "{said}"
    );
}

#[test]
fn stores_that_each_gateway_would_have_for_itself_are_not_taken() {
    let catalog = durable().database();
    let gateway = Gateway::start_with(EmbeddedStore::Memory, 2, |options| {
        options.catalog.url = Some(catalog);
    });
    let request = CreateRequest {
        yaml: "namespace: events\nclient_api: pubsub\nneeds: {durability: best-effort}\n".to_owned(),
    };
    let answer: Result<CreateResponse, _> = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Create", &request);
    let Err(ClientError::Status(status)) = answer else {
        panic!("not refused: {answer:?}");
    };
    assert!(
        status.message.contains("several gateways share the catalog"),
        "{status:?}"
    );
}
