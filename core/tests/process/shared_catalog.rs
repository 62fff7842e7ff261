//! Gateways that share a catalog, killed in the middle of changes: another one, or the same one
//! when it comes back, finishes what they have left.

use std::{
    thread,
    time::{Duration, Instant},
};

use prism_codec::proto::prism::admin::v1::{
    DeleteRequest, DeleteResponse, GetRequest, GetResponse, Namespace, UpdateRequest, UpdateResponse,
};
use tempfile::TempDir;

use self::server::durable;
use crate::support::{Gateway, PATIENCE, Setup, get, put};

#[allow(dead_code, reason = "other test binaries need more of it")]
#[path = "../../../backends/tests/servers/postgres.rs"]
pub(crate) mod server;

/// Two databases: of the catalog, and of the data.
struct Databases {
    catalog: String,
    store: String,
}

impl Databases {
    fn new() -> Self {
        Self {
            catalog: durable().database(),
            store: durable().database(),
        }
    }

    fn start(&self, on: Option<TempDir>) -> Gateway {
        let setup = on.map_or_else(Setup::new, Setup::on);
        let file = setup.file("prism.yaml");
        let text = format!(
            "embedded: memory\nshards: 1\ncatalog: {{url: \"{}\"}}\nstores:\n  orders: {{kind: postgres, url: \"{}\"}}\n",
            self.catalog, self.store
        );
        std::fs::write(&file, text).expect("a configuration");
        setup.args(&["--config", &file.display().to_string()]).start()
    }

    /// Keeps the store from answering about namespaces while `work` runs.
    fn blocked<T>(&self, work: impl FnOnce() -> T) -> T {
        let database = self.store.rsplit('/').next().expect("a name");
        thread::scope(|scope| {
            let hold = "LOCK TABLE prism.namespace IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(20)";
            let held = scope.spawn(move || durable().try_sql(database, hold));
            await_that("the lock is held", || {
                let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                    AND relation = to_regclass('prism.namespace')";
                durable().sql(database, locks) == "1"
            });
            let result = work();
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%'";
            durable().sql(database, end);
            // It was ended by the line above.
            let _ = held.join().expect("a thread");
            result
        })
    }
}

#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < 2 * PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn show(gateway: &Gateway, name: &str) -> Option<Namespace> {
    let name = name.to_owned();
    let answer: Result<GetResponse, _> = gateway
        .client()
        .unary("/prism.admin.v1.Namespaces/Get", &GetRequest { name });
    answer.ok().and_then(|answer| answer.namespace)
}

fn is(gateway: &Gateway, name: &str, state: &str) -> bool {
    show(gateway, name).is_some_and(|entry| entry.state == state)
}

fn serves(gateway: &Gateway, name: &str) -> bool {
    let mut client = gateway.client();
    put(&mut client, name, "id", b"v").is_ok() && get(&mut client, name, "id").is_ok()
}

#[test]
fn a_gateway_that_is_killed_in_the_middle_of_changes_leaves_them_to_others_or_to_its_next_start() {
    let databases = Databases::new();
    let (first, second) = (databases.start(None), databases.start(None));
    for name in ["updated", "deleted"] {
        first.create_namespace(name, "strong").expect("a namespace");
    }
    // The other one finishes a create, when the lease of the first has ended.
    let directory = databases.blocked(|| {
        thread::scope(|scope| {
            // Its gateway is killed before it gets an answer.
            let caller = scope.spawn(|| drop(first.create_namespace("left", "strong")));
            await_that("the other knows of it", || is(&second, "left", "provisioning"));
            assert!(!serves(&second, "left"));
            first.signal(rustix::process::Signal::KILL);
            caller.join().expect("a thread");
        });
        first.kill()
    });
    await_that("the other finishes it", || serves(&second, "left"));
    // The same one goes on by itself with an update and a delete, alone.
    let first = databases.start(Some(directory));
    assert!(serves(&first, "left") && is(&first, "left", "active"));
    let directory = databases.blocked(|| {
        thread::scope(|scope| {
            let first = &first;
            let update = scope.spawn(move || {
                let request = UpdateRequest {
                    yaml: "namespace: updated\nteam: others\nclient_api: keyvalue\nneeds: {durability: strong}\n"
                        .to_owned(),
                    base_version: 1,
                };
                let answer: Result<UpdateResponse, _> = first
                    .client()
                    .unary("/prism.admin.v1.Namespaces/Update", &request);
                drop(answer);
            });
            let delete = scope.spawn(move || {
                let request = DeleteRequest {
                    name: "deleted".to_owned(),
                };
                let answer: Result<DeleteResponse, _> = first
                    .client()
                    .unary("/prism.admin.v1.Namespaces/Delete", &request);
                drop(answer);
            });
            await_that("both are recorded", || {
                is(&second, "updated", "updating") && is(&second, "deleted", "deleting")
            });
            drop(second.kill());
            first.signal(rustix::process::Signal::KILL);
            update.join().expect("a thread");
            delete.join().expect("a thread");
        });
        first.kill()
    });
    let first = databases.start(Some(directory));
    await_that("the update is finished", || {
        show(&first, "updated")
            .is_some_and(|entry| entry.state == "active" && entry.version == 2 && entry.team == "others")
    });
    await_that("the delete is finished", || show(&first, "deleted").is_none());
    assert!(serves(&first, "updated") && serves(&first, "left"));
}
