//! Changes of namespaces while a store, a shard or the provisioning thread hangs: everything else
//! is served, and the next start repairs a kill at any moment.

use std::{
    fs,
    time::{Duration, Instant},
};

use prism_codec::proto::{
    google::rpc::ErrorInfo,
    prism::admin::v1::{
        CreateBatchRequest, CreateBatchResponse, CreateRequest, CreateResponse, DeleteRequest,
        DeleteResponse, GetRequest, GetResponse, ListRequest, ListResponse, Namespace, UpdateRequest,
        UpdateResponse, ValidateRequest, ValidateResponse,
    },
};
use prism_core::client::{Client, ClientError};
use prost::Message as _;

use crate::support::{Gateway, PATIENCE, Setup, get, put};

/// Wait of calls to a gateway that cannot serve them.
const SHORT: Duration = Duration::from_secs(2);
/// Longest time of an unhindered page or call, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

fn yaml(name: &str, rest: &str) -> String {
    format!(
        "namespace: {name}\nteam: tests\nclient_api: keyvalue\nneeds: {{durability: best-effort{rest}}}\n"
    )
}

fn create(client: &mut Client, name: &str) -> Result<(), ClientError> {
    let request = CreateRequest { yaml: yaml(name, "") };
    let created = client.unary::<CreateResponse>("/prism.admin.v1.Namespaces/Create", &request);
    created.map(drop)
}

fn update(client: &mut Client, name: &str) -> Result<(), ClientError> {
    let request = UpdateRequest {
        yaml: yaml(name, ", ttl: 1h"),
        base_version: 0,
    };
    let updated = client.unary::<UpdateResponse>("/prism.admin.v1.Namespaces/Update", &request);
    updated.map(drop)
}

fn delete(client: &mut Client, name: &str) -> Result<(), ClientError> {
    let request = DeleteRequest {
        name: name.to_owned(),
    };
    let deleted = client.unary::<DeleteResponse>("/prism.admin.v1.Namespaces/Delete", &request);
    deleted.map(drop)
}

fn show(client: &mut Client, name: &str) -> Option<Namespace> {
    let request = GetRequest {
        name: name.to_owned(),
    };
    match client.unary::<GetResponse>("/prism.admin.v1.Namespaces/Get", &request) {
        Ok(response) => response.namespace,
        Err(error) => {
            assert_eq!(reason(&error), "NAMESPACE_NOT_FOUND", "{error}");
            None
        }
    }
}

fn reason(error: &ClientError) -> String {
    let ClientError::Status(status) = error else {
        panic!("no answer of the gateway: {error}");
    };
    let info = status
        .details
        .first()
        .map(|any| ErrorInfo::decode(&any.value[..]));
    info.expect("details").expect("an ErrorInfo").reason
}

/// A connection to a shard that answers. Its calls take no longer than `timeout`.
fn client_of_a_live_shard(gateway: &Gateway, timeout: Duration) -> Client {
    let address = gateway.address().to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no shard answers");
        let mut probe = Client::connect(&address, Duration::from_millis(500)).expect("a connection");
        let asked = probe
            .unary::<ValidateResponse>("/prism.admin.v1.Namespaces/Validate", &ValidateRequest::default());
        if asked.is_ok() {
            return probe.with_timeout(timeout);
        }
    }
}

/// Waits until the thread with the fault hangs.
fn await_hang(gateway: &Gateway, thread: &str) {
    let deadline = Instant::now() + PATIENCE;
    let address = gateway.address().to_string();
    match thread {
        // The next task triggers its fault.
        "prism-provision" => {}
        "prism-writer" => loop {
            assert!(Instant::now() < deadline, "the store does not hang");
            let mut client = Client::connect(&address, SHORT).expect("a connection");
            if put(&mut client, "kept", "busy", b"v").is_err() {
                return;
            }
        },
        _ => loop {
            assert!(Instant::now() < deadline, "no shard hangs");
            let mut client = Client::connect(&address, SHORT).expect("a connection");
            let request = GetRequest {
                name: "kept".to_owned(),
            };
            let asked = client.unary::<GetResponse>("/prism.admin.v1.Namespaces/Get", &request);
            if asked.is_err() {
                return;
            }
        },
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Create,
    Update,
    Delete,
}

impl Change {
    /// The namespace concerned, the reason given to a caller who does not wait, and its state.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Create => ("made", "NAMESPACE_PROVISIONING", "provisioning"),
            Self::Update => ("kept", "NAMESPACE_UPDATING", "updating"),
            Self::Delete => ("kept", "NAMESPACE_DELETING", "deleting"),
        }
    }

    fn begin(self, client: &mut Client) -> Result<(), ClientError> {
        let (name, _, _) = self.names();
        match self {
            Self::Create => create(client, name),
            Self::Update => update(client, name),
            Self::Delete => delete(client, name),
        }
    }
}

/// Begins a change while a thread hangs, checks the service meanwhile, kills the gateway, and
/// checks the result of the next start.
#[cfg(debug_assertions)]
fn kill_in_the_middle(thread: &str, change: Change) {
    let setup = Setup::new().args(&["--shards", "2"]);
    let file = setup.file("fault");
    let fault = format!("{thread}:stall:{}", file.display());
    let gateway = setup.env("PRISM_TEST_END", &fault).start();
    create(&mut gateway.client(), "kept").expect("a namespace");
    put(&mut gateway.client(), "kept", "id", b"value").expect("a put");
    fs::write(file, "").expect("a file");
    await_hang(&gateway, thread);

    let (name, why, state) = change.names();
    let mut client = client_of_a_live_shard(&gateway, SHORT);
    let error = change.begin(&mut client).expect_err("a thread hangs");
    assert_eq!(reason(&error), why, "{thread}, {change:?}");
    assert!(
        error.to_string().contains("that is recorded and goes on"),
        "{error}"
    );
    let began = Instant::now();
    let shown = show(&mut client, name).expect("a namespace");
    assert_eq!(shown.state, state, "{thread}, {change:?}");
    if thread != "prism-shard-0" {
        // Any shard may get these calls.
        for _ in 0..8 {
            let page = gateway.get("/metrics").expect("a page");
            assert!(page.starts_with("200 "), "{page}");
            assert_eq!(gateway.get("/healthz").as_deref(), Some("200 ok\n"));
        }
    }
    let refused = match change {
        // The live shard serves it already, and the hanging one does not.
        Change::Create if thread == "prism-shard-0" => None,
        Change::Create => Some("NAMESPACE_NOT_READY"),
        Change::Update => None,
        Change::Delete => Some("NAMESPACE_DELETING"),
    };
    if let Some(refused) = refused {
        let error = put(&mut client, name, "id", b"other").expect_err("it is not served");
        assert_eq!(reason(&error), refused, "{thread}");
    }
    assert!(began.elapsed() < 2 * AT_ONCE, "{:?}", began.elapsed());

    let gateway = Setup::on(gateway.kill()).args(&["--shards", "2"]).start();
    let mut client = gateway.client();
    let deadline = Instant::now() + PATIENCE;
    let end = loop {
        let shown = show(&mut client, name);
        match &shown {
            Some(shown) if shown.state != "active" => {
                assert!(Instant::now() < deadline, "{thread}, {change:?}: {shown:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => break shown,
        }
    };
    match change {
        Change::Create => gateway.put_and_get("made", "new"),
        Change::Update => {
            let end = end.expect("a namespace");
            assert_eq!((end.version, end.yaml), (2, yaml("kept", ", ttl: 1h")));
        }
        Change::Delete => {
            assert_eq!(end, None);
            let gone = put(&mut client, "kept", "id", b"v").expect_err("it is gone");
            assert_eq!(reason(&gone), "NAMESPACE_UNKNOWN");
            create(&mut client, "kept").expect("the name is free");
            put(&mut client, "kept", "other", b"v").expect("a put");
            return;
        }
    }
    assert_eq!(get(&mut client, "kept", "id").expect("a get"), b"value");
}

#[test]
#[cfg(debug_assertions)]
fn a_kill_at_any_step_of_a_change_is_mended_by_the_next_start() {
    for thread in ["prism-provision", "prism-writer", "prism-shard-0"] {
        std::thread::scope(|scope| {
            for change in [Change::Create, Change::Update, Change::Delete] {
                scope.spawn(move || kill_in_the_middle(thread, change));
            }
        });
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_store_that_hangs_delays_its_own_namespaces_only() {
    let setup = Setup::new();
    let (file, config) = (setup.file("fault"), setup.file("prism.yaml"));
    fs::write(&config, "stores:\n  cache: {kind: memory}\n").expect("a file");
    let fault = format!("prism-writer:stall:{}", file.display());
    let setup = setup.args(&["--config", config.to_str().expect("UTF-8")]);
    let gateway = setup.env("PRISM_TEST_END", &fault).start();
    gateway.create_namespace("kept", "eventual").expect("a namespace");
    fs::write(file, "").expect("a file");
    await_hang(&gateway, "prism-writer");
    let mut client = client_of_a_live_shard(&gateway, AT_ONCE);
    let eventual = |name: &str| yaml(name, "").replace("best-effort", "eventual");
    // In a batch with namespaces in both stores, the namespace of the hanging store is late.
    let results = batch(&mut client, vec![yaml("quick", ""), eventual("late")]);
    let expected = "namespace \"late\" is still being provisioned";
    assert_eq!(results[0], (0, String::new()));
    assert!(results[1].1.starts_with(expected), "{results:?}");
    put(&mut client, "quick", "id", b"v").expect("a put");
    create(&mut client, "memory-1").expect("its store does not hang");
    put(&mut client, "memory-1", "id", b"v").expect("a put");
    let shown = show(&mut client, "memory-1").expect("a namespace");
    assert_eq!((&*shown.state, &*shown.backend), ("active", "memory \"cache\""));
    assert_eq!(
        show(&mut client, "late").expect("a namespace").state,
        "provisioning"
    );
    delete(&mut client, "memory-1").expect("its store does not hang");
    let error = delete(&mut client, "kept").expect_err("its store hangs");
    assert_eq!(reason(&error), "NAMESPACE_DELETING");
}

#[test]
fn a_create_whose_caller_has_gone_is_finished_when_the_store_is_free() {
    let gateway = Setup::new().start();
    create(&mut gateway.client(), "kept").expect("a namespace");
    // Another program holds the store's file.
    let other = rusqlite::Connection::open(gateway.data_file("keyvalue.db")).expect("the store's file");
    other
        .busy_timeout(PATIENCE)
        .and_then(|()| other.execute_batch("BEGIN IMMEDIATE"))
        .expect("the lock");
    let mut client = client_of_a_live_shard(&gateway, SHORT);
    let error = create(&mut client, "late").expect_err("the store is locked");
    assert_eq!(reason(&error), "NAMESPACE_PROVISIONING", "{error}");
    drop(client);
    let mut client = gateway.client();
    let deadline = Instant::now() + PATIENCE;
    let shown = loop {
        let shown = show(&mut client, "late").expect("a namespace");
        assert!(gateway.get("/metrics").expect("a page").starts_with("200 "));
        if !shown.trouble.is_empty() {
            break shown;
        }
        assert!(Instant::now() < deadline, "the store says nothing");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(shown.trouble.contains("locked"), "{shown:?}");
    let again = create(&mut client, "late").expect_err("it is there");
    assert!(
        again.to_string().contains("already exists and is being prepared"),
        "{again}"
    );
    other.execute_batch("ROLLBACK").expect("the lock");
    while show(&mut client, "late").is_none_or(|shown| shown.state != "active") {
        assert!(Instant::now() < deadline, "it is not finished");
        std::thread::sleep(Duration::from_millis(50));
    }
    gateway.put_and_get("late", "id");
}

/// The statuses of a batch's results, by file: code and message.
fn batch(client: &mut Client, yamls: Vec<String>) -> Vec<(i32, String)> {
    let request = CreateBatchRequest { yamls };
    let response: CreateBatchResponse = client
        .unary("/prism.admin.v1.Namespaces/CreateBatch", &request)
        .expect("an answer");
    let results = response.results.into_iter().map(|result| {
        let status = result.status.expect("a status");
        assert_eq!(result.namespace.is_some(), status.code == 0);
        (status.code, status.message)
    });
    results.collect()
}

#[test]
fn a_thousand_namespaces_of_one_call_are_all_there_after_a_kill() {
    let gateway = Setup::new().args(&["--shards", "2"]).start();
    let mut client = client_of_a_live_shard(&gateway, PATIENCE);
    let name = |number: usize| format!("many-{number:04}");
    let yamls: Vec<String> = (0..1_000).map(|number| yaml(&name(number), "")).collect();
    let mut wrong = yamls.clone();
    wrong[3] = yaml("many-0003", ", write_rps: 100000");
    let refused = batch(&mut client, wrong);
    assert_eq!(refused[3].1, "Requested write_rps (100000) exceeds limit (50000)");
    assert!(refused[4].1.contains("nothing was done"), "{}", refused[4].1);
    assert!(refused.iter().all(|(code, _)| *code != 0));
    assert_eq!(show(&mut client, "many-0000"), None);

    let created = batch(&mut client, yamls);
    assert!(created.iter().all(|(code, _)| *code == 0), "{created:?}");
    put(&mut client, &name(999), "id", b"value").expect("a put");
    let gateway = Setup::on(gateway.kill()).args(&["--shards", "2"]).start();
    let mut client = gateway.client();
    let request = ListRequest {
        page_size: 1_000,
        page_token: Vec::new(),
    };
    let all: ListResponse = client
        .unary("/prism.admin.v1.Namespaces/List", &request)
        .expect("a list");
    assert_eq!(all.namespaces.len(), 1_000);
    assert!(all.namespaces.iter().all(|namespace| namespace.state == "active"));
    assert_eq!(get(&mut client, &name(999), "id").expect("a get"), b"value");
    gateway.put_and_get(&name(0), "id");
    let again = batch(&mut client, vec![yaml("new", ""), yaml(&name(7), "")]);
    assert_eq!(again[1].1, "Namespace \"many-0007\" already exists");
    assert!(again[0].1.contains("1 other files"), "{}", again[0].1);
}

/// Runs `prism namespace …`: exit code, standard output and standard error.
fn cli(gateway: &Gateway, arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_prism"))
        .arg("namespace")
        .args(arguments)
        .env_clear()
        .env("PRISM_SERVER", gateway.address().to_string())
        .env("PRISM_TIMEOUT", "30s")
        .output()
        .expect("the program was built for this test");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text is UTF-8");
    let code = output.status.code().expect("an exit code");
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn many_namespaces_of_a_directory_and_an_update() {
    let gateway = Setup::new().start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let write = |name: &str, text: &str| fs::write(path(name), text).expect("a file");
    let empty = cli(&gateway, &["create", &path("")]);
    assert_eq!(empty.0, 2, "{empty:?}");
    assert!(
        empty.2.contains("holds no file that ends with .yaml or .yml"),
        "{}",
        empty.2
    );

    write("a.yaml", &yaml("a", ""));
    write("b.yml", &yaml("b", ", write_rps: 100000"));
    write("c.yaml", &yaml("c", ", durabilty: strong"));
    write("notes.txt", "not one of them");
    let (code, out, text) = cli(&gateway, &["create", &path("")]);
    assert_eq!((code, out.as_str()), (1, ""), "{text}");
    for line in [
        "Error: Requested write_rps (100000) exceeds limit (50000)",
        &format!("Where: {}, line 4, needs.write_rps", path("b.yml")),
        &format!("Where: {}, line 4, needs.durabilty", path("c.yaml")),
        "Note: nothing was created of 3 files",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let (code, out, _) = cli(&gateway, &["--output", "json", "create", &path("")]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("one JSON value");
    assert_eq!(
        (code, json["refused"][0]["file"].as_str()),
        (1, Some(&*path("b.yml")))
    );

    write("b.yml", &yaml("b", ""));
    write("c.yaml", &yaml("c", ""));
    let (code, out, text) = cli(&gateway, &["create", &path("")]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        out,
        "✓ Namespace a created: SQLite table \"a\"\n✓ Namespace b created: SQLite table \"b\"\n\
         ✓ Namespace c created: SQLite table \"c\"\n✓ 3 namespaces ready to use\n"
    );
    let (_, list, _) = cli(&gateway, &["list"]);
    assert!(
        list.lines().skip(1).all(|line| line.contains("  active  ")),
        "{list}"
    );
    let (code, _, text) = cli(&gateway, &["create", &path("a.yaml"), &path("b.yml")]);
    assert_eq!(code, 1);
    assert!(
        text.contains(&format!("{}: Namespace \"a\" already exists", path("a.yaml"))),
        "{text}"
    );

    write("a.yaml", &yaml("a", ", ttl: 1h"));
    let (code, out, text) = cli(&gateway, &["update", &path("a.yaml"), "--base-version", "1"]);
    assert_eq!((code, &*out), (0, "✓ Namespace a updated: version 2\n"), "{text}");
    let (_, show, _) = cli(&gateway, &["show", "a"]);
    assert!(
        show.contains("\nstate: active\nversion: 2\n") && show.contains("ttl: 1h"),
        "{show}"
    );
    let (code, _, text) = cli(&gateway, &["update", &path("a.yaml"), "--base-version", "1"]);
    assert_eq!(code, 1);
    assert!(
        text.contains("has version 2, and the update was made for version 1"),
        "{text}"
    );
    write("a.yaml", &yaml("a", "").replace("best-effort", "strong"));
    let (code, _, text) = cli(&gateway, &["update", &path("a.yaml")]);
    assert_eq!(code, 1);
    assert!(
        text.contains("needs.durability of namespace \"a\" is best-effort and cannot become strong"),
        "{text}"
    );
    gateway.put_and_get("a", "id");
}
