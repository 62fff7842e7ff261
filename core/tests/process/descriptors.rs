//! Connections never take the descriptors that the log, the catalog and the store need.

use std::{
    fs::{self, File},
    io::Read as _,
    thread,
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, Setup, get, put};

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
        assert!(
            gateway.metric_when("prism_connections_refused_total{shard=\"0\"}", |value| value
                > 0.0)
                > 0.0
        );
    }
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
