//! Each end of a thread is noticed, whatever its kind, and none can keep the process from ending.

#![cfg(debug_assertions)]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant},
};

use prism_codec::proto::prism::admin::v1::{CreateRequest, CreateResponse};
use prism_core::client::Client;
use rustix::process::Signal;

use super::shared_catalog::server::durable;
use crate::support::{DRAIN_TIMEOUT, END_MAX, Gateway, PATIENCE, Setup, get, put};

/// All kinds of threads by the names of their threads, except those that end with the start.
const KINDS: [&str; 13] = [
    "prism-shard",
    "prism-writer",
    "prism-reader",
    "prism-checkpoint",
    "prism-sidecar",
    "prism-catalog",
    "prism-keeper",
    "prism-log",
    "prism-control",
    "prism-provision",
    "prism-gateway",
    "prism-diagnostics",
    "main",
];

/// Kinds of threads that only a gateway with a server as store, or with a shared catalog, has.
const OF_SERVERS: [&str; 2] = ["prism-sidecar", "prism-catalog"];

/// Starts a gateway with a namespace at `strong`. The threads of this kind meet their fault when
/// they work next.
fn with_fault(kind: &str, how: &str) -> Gateway {
    with_fault_and(kind, how, &[])
}

/// Like [`with_fault`], with further flags.
fn with_fault_and(kind: &str, how: &str, flags: &[&str]) -> Gateway {
    let setup = Setup::new().args(&["--shards", "2", "--set", "wal.writer=thread"]);
    let mut setup = setup.args(flags);
    if OF_SERVERS.contains(&kind) {
        let configuration = setup.file("prism.yaml");
        fs::write(&configuration, on_servers()).expect("a configuration");
        setup = setup.args(&["--config", &configuration.display().to_string()]);
    }
    let file = setup.file("fault");
    let fault = format!("{kind}:{how}:{}", file.display());
    let gateway = setup.env("PRISM_TEST_END", &fault).stderr(Stdio::piped()).start();
    gateway.create_namespace("kept", "strong").expect("a namespace");
    for number in 0..8 {
        gateway.put_and_get("kept", &format!("id-{number}"));
    }
    fs::write(file, "").expect("a file");
    gateway
}

/// A configuration with PostgreSQL as store and as catalog, in databases of their own.
fn on_servers() -> String {
    let (catalog, store) = (durable().database(), durable().database());
    format!(
        "embedded: memory\ncatalog: {{url: \"{catalog}\"}}\nstores:\n  orders: {{kind: postgres, url: \"{store}\"}}\n"
    )
}

/// Gives every kind of thread some work. The results do not matter: some threads do not answer any
/// more.
fn give_work_to_all(gateway: &Gateway) {
    gateway.signal(Signal::HUP);
    gateway.signal(Signal::USR1);
    for number in 0..4 {
        let address = gateway.address().to_string();
        std::thread::spawn(move || {
            // Connections of different shards; each put is larger than the room prepared by the
            // log, so that the keeper must work.
            let Ok(mut client) = Client::connect(&address, END_MAX) else {
                return;
            };
            let yaml = format!(
                "namespace: more-{number}\nteam: t\nclient_api: keyvalue\nneeds:\n  durability: eventual\n"
            );
            let create = CreateRequest { yaml };
            let _ = client.unary::<CreateResponse>("/prism.admin.v1.Namespaces/Create", &create);
            for put_number in 0..100 {
                let id = format!("much-{number}-{put_number}");
                if put(&mut client, "kept", &id, &[7; 100_000]).is_err()
                    || get(&mut client, "kept", &id).is_err()
                {
                    return;
                }
            }
        });
    }
}

/// Runs a check for several kinds side by side: they wait most of the time.
fn for_each_kind(without: &[&str], check: impl Fn(&str) + Sync) {
    let kinds: Vec<_> = KINDS.iter().filter(|kind| !without.contains(kind)).collect();
    for some in kinds.chunks(4) {
        std::thread::scope(|scope| {
            for kind in some {
                scope.spawn(|| check(kind));
            }
        });
    }
}

/// Waits for the end that a fault causes. Returns the last sentence of the process.
fn last_sentence(gateway: &mut Gateway, kind: &str) -> String {
    let lines = gateway.lines();
    give_work_to_all(gateway);
    let status = gateway.await_end(Duration::from_secs(20));
    let printed = lines.rest();
    assert_eq!(status.code(), Some(4), "{kind}: {status}\n{printed}");
    let sentence = printed.lines().find(|line| line.starts_with("Error: "));
    let sentence = sentence.unwrap_or_else(|| panic!("{kind}: no sentence in {printed}"));
    assert!(sentence.contains(&format!("the thread {kind}")), "{sentence}");
    sentence.to_owned()
}

#[test]
fn every_kind_of_thread_that_panics_ends_the_gateway_with_a_sentence() {
    for_each_kind(&[], |kind| {
        let mut gateway = with_fault(kind, "panic");
        let sentence = last_sentence(&mut gateway, kind);
        assert!(sentence.contains("panicked at"), "{sentence}");
    });
}

#[test]
fn every_kind_of_thread_that_returns_ends_the_gateway_with_a_sentence() {
    // The fault point of the log's writers is in a callback, and the other two are the process:
    // they cannot return.
    for_each_kind(&["prism-log", "main", "prism-gateway"], |kind| {
        let mut gateway = with_fault(kind, "return");
        let sentence = last_sentence(&mut gateway, kind);
        let how = if kind == "prism-shard" {
            "failed: "
        } else {
            "ended by itself"
        };
        assert!(sentence.contains(how), "{sentence}");
    });
}

#[test]
fn sigterm_ends_the_process_whatever_thread_hangs() {
    // The first thread still has the handlers of its signals: see the next test.
    for_each_kind(&["main"], |kind| {
        let mut gateway = with_fault(kind, "stall");
        give_work_to_all(&gateway);
        // Until the thread hangs: a shard looks for its fault once a second.
        std::thread::sleep(Duration::from_millis(1_200));
        assert!(gateway.is_running(), "{kind}");
        let began = Instant::now();
        gateway.signal(Signal::TERM);
        gateway.await_end(END_MAX);
        let took = began.elapsed();
        // Time that a busy machine takes.
        let slack = Duration::from_secs(12);
        assert!(
            took < DRAIN_TIMEOUT + Duration::from_secs(2) + slack,
            "{kind}: {took:?}"
        );
    });
}

#[test]
fn a_dead_shard_cuts_its_connections_while_the_others_drain() {
    for driver in ["epoll", "auto"] {
        let setup = Setup::new().args(&["--shards", "2", "--driver", driver]);
        let file = setup.file("fault");
        let fault = format!("prism-shard-0:panic:{}", file.display());
        // Longer than the test waits for the end, which comes when nobody is left to be drained.
        let drain = ["--set", "limits.drain_timeout=60s"];
        let mut gateway = setup.args(&drain).env("PRISM_TEST_END", &fault).start();
        gateway.create_namespace("kept", "strong").expect("a namespace");
        gateway.put_and_get("kept", "a record in an open log");
        // Calls that never become complete: a shard that drains waits for them.
        let mut open: Vec<_> = (0..32).map(|_| gateway.connect()).collect();
        let head = "POST /prism.keyvalue.v1.KeyValue/Get HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 100\r\n\r\n{";
        for stream in &mut open {
            stream.write_all(head.as_bytes()).expect("half a request");
            stream
                .set_read_timeout(Some(Duration::from_millis(100)))
                .expect("a timeout");
        }
        fs::write(file, "").expect("a file");
        let deadline = Instant::now() + Duration::from_secs(8);
        let mut cut = 0;
        while cut == 0 && Instant::now() < deadline {
            let before = open.len();
            open.retain(|stream| !is_closed(stream));
            cut += before - open.len();
        }
        assert!(cut > 0, "{driver}: no connection was cut");
        // All connections of the dead shard ended together, those of the other one stay.
        open.retain(|stream| !is_closed(stream));
        assert!(
            !open.is_empty() && gateway.is_running(),
            "{driver}: the others drain"
        );
        // No connection is left in the queue of a listener that is not served.
        assert_eq!(gateway.readyz(), None, "{driver}");
        drop(open);
        assert_eq!(gateway.await_end(PATIENCE).code(), Some(4), "{driver}");
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once_whatever_thread_hangs() {
    // So long a drain that its end differs from "at once" on a busy machine as well.
    let drain = ["--set", "limits.drain_timeout=20s"];
    for kind in ["main", "prism-gateway", "prism-shard"] {
        let mut gateway = with_fault_and(kind, "stall", &drain);
        give_work_to_all(&gateway);
        std::thread::sleep(Duration::from_millis(1_200));
        // Nothing that the process says from here on arrives.
        gateway.drop_stderr();
        gateway.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        gateway.signal(Signal::INT);
        let status = gateway.await_end(Duration::from_secs(5));
        assert_eq!(
            status.code(),
            Some(1),
            "{kind}: {status} after {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn a_thread_of_the_start_that_panics_or_hangs_does_not_keep_the_process() {
    let gateway = Setup::new().start();
    gateway.create_namespace("kept", "strong").expect("a namespace");
    gateway.put_and_get("kept", "a record that the next start reads");
    let mut directory = gateway.kill();
    for how in ["panic", "stall"] {
        let setup = Setup::on(directory);
        let file = setup.file("fault");
        fs::write(&file, "").expect("a file");
        let fault = format!("prism-read:{how}:{}", file.display());
        let mut gateway = setup.env("PRISM_TEST_END", &fault).stderr(Stdio::piped()).spawn();
        if how == "panic" {
            let status = gateway.await_end(PATIENCE);
            let printed = gateway.lines().rest();
            assert_eq!(status.code(), Some(4), "{printed}");
            assert!(
                printed.contains("Error: the thread that read a lane"),
                "{printed}"
            );
        } else {
            await_thread(&gateway, "prism-read-1");
            gateway.signal(Signal::TERM);
            assert!(gateway.await_end(END_MAX).code().is_some());
        }
        directory = gateway.kill();
    }
    // The log is as it was.
    let gateway = Setup::on(directory).start();
    let value = get(
        &mut gateway.client(),
        "kept",
        "a record that the next start reads",
    );
    assert_eq!(value.expect("a get"), b"a record that the next start reads");
}

/// Waits until the process has a thread of this name.
fn await_thread(gateway: &Gateway, name: &str) {
    let tasks = format!("/proc/{}/task", gateway.pid());
    let deadline = Instant::now() + PATIENCE;
    let is_there = || {
        let tasks = fs::read_dir(&tasks).expect("the threads of a process");
        tasks.flatten().any(|task| {
            let comm = fs::read_to_string(task.path().join("comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        })
    };
    while !is_there() {
        assert!(Instant::now() < deadline, "no thread {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the peer has closed a connection, or does so within the connection's timeout.
fn is_closed(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}
