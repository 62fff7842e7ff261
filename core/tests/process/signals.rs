//! Effects of signals: some end the gateway within their time, the others do no harm.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{DRAIN_TIMEOUT, END_MAX, Setup};

#[test]
fn signals_that_are_no_order_to_end_do_no_harm() {
    let mut gateway = Setup::new().stderr(Stdio::piped()).start();
    let lines = gateway.lines();
    gateway.create_namespace("calm", "strong").expect("a namespace");
    for (signal, name) in [
        (Signal::HUP, "SIGHUP"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::IO, "SIGIO"),
        (Signal::PIPE, "-"),
    ] {
        gateway.signal(signal);
        if name != "-" {
            lines.find(name);
        }
        gateway.put_and_get("calm", name);
        assert!(gateway.is_running(), "{name}");
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.await_end(END_MAX).code(), Some(0));
}

#[test]
fn sighup_changes_the_level_of_the_diagnostics_and_names_what_needs_a_restart() {
    let setup = Setup::new().args(&["--embedded", "memory"]);
    let file = setup.file("prism.yaml");
    let write = |text: &str| std::fs::write(&file, text).expect("a file");
    write("log:\n  level: error\n");
    let path = file.display().to_string();
    let mut gateway = setup.args(&["--config", &path]).stderr(Stdio::piped()).start();
    let lines = gateway.lines();
    gateway
        .create_namespace("quiet", "best-effort")
        .expect("a namespace");
    write("log:\n  level: info\nlimits:\n  namespaces_max: 7\n");
    gateway.signal(Signal::HUP);
    let first = lines.find("");
    assert!(!first.contains("quiet"), "{first}");
    gateway
        .create_namespace("loud", "best-effort")
        .expect("a namespace");
    lines.find("loud");
    write("log:\n  level: info\nlimits:\n  namespaces_max: 8\nstores: {cache: {kind: memory}}\n");
    gateway.signal(Signal::HUP);
    let restart = lines.find("restart the gateway");
    for key in ["limits.namespaces_max", "stores.cache"] {
        assert!(restart.contains(key), "{restart}");
    }
    write("stores: {cache: {kind: clickhouse, url: 'http://a:8123'}}\n");
    gateway.signal(Signal::HUP);
    let refused = lines.find("the configuration has not changed");
    assert!(refused.contains("no driver for ClickHouse"), "{refused}");
    write("log:\n  level: nothing\n");
    gateway.signal(Signal::HUP);
    let refused = lines.find("the configuration has not changed");
    assert!(refused.contains("log.level"), "{refused}");
    gateway
        .create_namespace("still-loud", "best-effort")
        .expect("a namespace");
    lines.find("still-loud");
}

#[test]
fn sigterm_during_the_start_ends_the_process() {
    for delay_ms in [0, 5, 20, 50, 100, 200] {
        let mut gateway = Setup::new().spawn();
        std::thread::sleep(Duration::from_millis(delay_ms));
        gateway.signal(Signal::TERM);
        let status = gateway.await_end(END_MAX);
        // Before its handlers are installed, the signal itself ends the process.
        assert!(
            status.code().is_none_or(|code| code == 0),
            "after {delay_ms} ms: {status}"
        );
    }
}

#[test]
fn a_client_that_never_ends_its_call_holds_the_end_for_the_drain_at_most() {
    use std::io::Write as _;
    let mut gateway = Setup::new().start();
    let mut stream = gateway.connect();
    let head = "POST /prism.keyvalue.v1.KeyValue/Get HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).expect("half a request");
    gateway.get("/healthz").expect("an answer");
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    let status = gateway.await_end(END_MAX);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        began.elapsed() < DRAIN_TIMEOUT + Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
}
