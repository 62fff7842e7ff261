//! Connections never take the descriptors that the log, the catalog and the store need.

use std::{
    fs::{self, File},
    io::{Read as _, pipe},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use prism_codec::proto::google::rpc::ErrorInfo;
use prism_core::client::{Client, ClientError};
use prost::Message as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::support::{END_MAX, Gateway, PATIENCE, Setup, get, put};

/// The soft and the hard limit of open files of a process.
fn limits(pid: u32) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line");
    let fields: Vec<_> = line.split_whitespace().collect();
    (fields[3].to_owned(), fields[4].to_owned())
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let gateway = Setup::with_limits("ulimit -Sn 64; ulimit -Hn 2048").start();
    assert_eq!(limits(gateway.pid()), ("2048".to_owned(), "2048".to_owned()));
}

#[test]
fn idle_connections_leave_the_log_what_it_needs() {
    for driver in ["auto", "epoll"] {
        let setup = Setup::with_limits("ulimit -n 96").args(&["--shards", "1", "--driver", driver]);
        let path = setup.file("greeting");
        // Nobody reads the diagnostics either: both together once ended the shard.
        let (reader, broken) = pipe().expect("a pipe");
        drop(reader);
        let setup = setup.args(&["--log-level", "debug"]).stderr(broken);
        let gateway = setup.stdout(File::create(&path).expect("a file")).start();
        // A separate thread writes the banner, perhaps after the gateway has become ready.
        let deadline = Instant::now() + PATIENCE;
        let line = loop {
            let greeting = fs::read_to_string(&path).expect("a greeting");
            let mut lines = greeting.lines();
            if let Some(line) = lines.find(|line| line.trim_start().starts_with("connections ")) {
                break line.to_owned();
            }
            assert!(Instant::now() < deadline, "no such line: {greeting}");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(line.contains("ulimit -n"), "{line}");
        let mut client = gateway.client();
        gateway
            .create_namespace("early", "best-effort")
            .expect("a namespace");
        let mut held: Vec<_> = (0..200).map(|_| gateway.connect()).collect();
        // The refused ones are closed: the rest fills all places.
        held.retain(|stream| {
            stream
                .set_read_timeout(Some(Duration::from_millis(20)))
                .expect("a timeout");
            !matches!((&mut &*stream).read(&mut [0]), Ok(0))
        });
        assert!(held.len() >= 8, "{driver}: {} places", held.len());
        // The log is made now, with segments of 4 MiB.
        gateway
            .create_namespace_with(&mut client, "kept", "strong")
            .expect("a namespace");
        for number in 0..20 {
            let id = format!("id-{number}");
            put(&mut client, "kept", &id, &vec![7; 1 << 20]).expect("a put");
            assert_eq!(get(&mut client, "kept", &id).expect("a get").len(), 1 << 20);
        }
        drop(held);
        for lost in [
            "prism_connections_refused_total{shard=\"0\"}",
            "prism_diagnostics_lost_total",
        ] {
            gateway.metric_when(lost, |value| value > 0.0);
        }
    }
}

#[test]
fn where_no_descriptor_is_left_the_true_reason_is_said_and_said_once() {
    // The reserve keeps clients from causing this: the limit is lowered while the gateway runs.
    let setup = Setup::new().args(&["--shards", "1"]).stderr(Stdio::piped());
    let mut gateway = setup.start();
    let lines = gateway.lines();
    gateway.create_namespace("kept", "strong").expect("a namespace");
    let mut client = gateway.client();
    put(&mut client, "kept", "first", &[1; 1 << 20]).expect("a put");
    let before = limit_descriptors(&gateway, Some(8));
    let began = Instant::now();
    // Connections that wait in the kernel: each attempt to accept one fails.
    let waiting: Vec<_> = (0..4).map(|_| gateway.connect()).collect();
    lines.find("cannot accept connections");
    let refused = until_unavailable(&mut client);
    assert!(refused.contains("too many files are open"), "{refused}");
    assert!(refused.contains("nothing was done"), "{refused}");
    limit_descriptors(&gateway, before);
    // Ten attempts a second have failed, and one line in ten seconds says so.
    let more = began.elapsed().as_secs() / 10;
    // What was said is true, and everything goes on.
    gateway.put_and_get("kept", "afterwards");
    assert_eq!(get(&mut client, "kept", "first").expect("a get"), [1; 1 << 20]);
    drop(waiting);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.await_end(END_MAX).code(), Some(0));
    let said = lines.rest();
    let times = said.matches("cannot accept connections").count();
    assert!(times as u64 <= more, "{times} times more in {more}0 s: {said}");
}

/// Writes until the log says that it has no further file. Returns the sentence of the refusal.
fn until_unavailable(client: &mut Client) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < deadline {
        match put(client, "kept", "many", &[7; 1 << 20]) {
            // Until the log has tried to make the file, it refuses for other reasons.
            Err(ClientError::Status(status)) => {
                let info = status
                    .details
                    .iter()
                    .find(|detail| detail.type_url.ends_with(".ErrorInfo"));
                let info = info.map(|detail| ErrorInfo::decode(&detail.value[..]).expect("an ErrorInfo"));
                if info.is_some_and(|info| info.reason == "LOG_UNAVAILABLE") {
                    assert_eq!(status.code, 14, "{status:?}");
                    return status.message;
                }
                last = Some(status);
                thread::sleep(Duration::from_millis(10));
            }
            other => other.expect("a put"),
        }
    }
    panic!("never refused so; the last refusal: {last:?}");
}

/// Sets the soft limit of a running process. Returns the one before.
fn limit_descriptors(gateway: &Gateway, count: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(gateway.pid().try_into().expect("a pid"));
    let hard = limits(gateway.pid()).1;
    let limit = Rlimit {
        current: count,
        maximum: hard.parse().ok(),
    };
    let before = prlimit(pid, Resource::Nofile, limit);
    before.expect("a limit of an own process").current
}
#[test]
fn a_limit_that_is_too_low_is_said_with_what_is_needed() {
    let setup = Setup::with_limits("ulimit -n 40").args(&["--shards", "1"]);
    let path = setup.file("errors");
    let mut gateway = setup.stderr(File::create(&path).expect("a file")).spawn();
    assert_eq!(gateway.await_end(Duration::from_secs(20)).code(), Some(4));
    let printed = fs::read_to_string(&path).expect("a file");
    assert!(
        printed.contains("Error: the process may have 40 files open (ulimit -n)"),
        "{printed}"
    );
    assert!(printed.contains("raise the limit to"), "{printed}");
}
