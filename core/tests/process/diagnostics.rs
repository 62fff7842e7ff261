//! Diagnostics never stop, delay or end anything, whatever happens to standard error.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Read as _, pipe},
    process::Stdio,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::Signal,
};

use crate::support::{END_MAX, Gateway, Setup};

/// Makes a gateway log much, and ends it.
fn work(mut gateway: Gateway) {
    for (name, durability) in [("fast", "best-effort"), ("kept", "strong")] {
        gateway.create_namespace(name, durability).expect("a namespace");
        gateway.put_and_get(name, "alice");
    }
    assert_eq!(gateway.readyz().as_deref(), Some("200 ready\n"));
    gateway.signal(Signal::TERM);
    let status = gateway.await_end(END_MAX);
    assert_eq!(status.code(), Some(0), "{status}");
}

fn verbose() -> Setup {
    Setup::new().args(&["--log-level", "debug"])
}

/// A pipe that accepts no more bytes.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("flags");
    while rustix::io::write(&writer, &[b'.'; 4_096]).is_ok() {}
    while rustix::io::write(&writer, b".").is_ok() {}
    fcntl_setfl(&writer, flags).expect("flags");
    (reader, writer)
}

#[test]
fn a_reader_of_both_streams_that_has_gone_stops_nothing() {
    // As after `prism serve 2>&1 | head -1`.
    let (reader, writer) = pipe().expect("a pipe");
    let setup = verbose()
        .stdout(writer.try_clone().expect("a descriptor"))
        .stderr(writer);
    drop(reader);
    let gateway = setup.start();
    gateway.create_namespace("early", "strong").expect("a namespace");
    assert!(gateway.metric("prism_diagnostics_lost_total") > 0.0);
    work(gateway);
}

#[test]
fn a_reader_that_does_not_read_stops_nothing() {
    let (reader, writer) = full_pipe();
    let gateway = verbose()
        .stdout(writer.try_clone().expect("a descriptor"))
        .stderr(writer)
        .start();
    work(gateway);
    drop(reader);
}

#[test]
fn a_full_disk_for_the_diagnostics_stops_nothing() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full"));
    let gateway = verbose().stdout(full()).stderr(full()).start();
    gateway.create_namespace("early", "strong").expect("a namespace");
    assert!(gateway.metric("prism_diagnostics_lost_total") > 0.0);
    work(gateway);
}

#[test]
fn losses_are_counted_and_said_when_the_file_takes_lines_again() {
    // A log file at the limit of its size: each further line fails, and raises a SIGXFSZ.
    let setup = Setup::with_limits("ulimit -f 8").args(&["--embedded", "memory", "--log-level", "debug"]);
    let path = setup.file("log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .expect("a file");
    log.set_len(8 * 512).expect("a full file");
    let gateway = setup.stderr(log.try_clone().expect("a descriptor")).start();
    gateway
        .create_namespace("early", "best-effort")
        .expect("a namespace");
    assert!(gateway.metric("prism_diagnostics_lost_total") > 0.0);
    log.set_len(0).expect("an empty file");
    gateway
        .create_namespace("late", "best-effort")
        .expect("a namespace");
    let mut text = String::new();
    for _ in 0..500 {
        text.clear();
        File::open(&path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .expect("a file");
        // The line of "late" may come before or after that of the losses.
        if text.contains("late") && text.contains("lines of the diagnostics were lost") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(text.contains("late"), "{text}");
    assert!(text.contains("lines of the diagnostics were lost"), "{text}");
    work_in_memory(gateway);
}

fn work_in_memory(mut gateway: Gateway) {
    gateway.put_and_get("late", "alice");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.await_end(END_MAX).code(), Some(0));
}

#[test]
fn the_reason_of_an_end_is_written_where_diagnostics_are_lost() {
    // The start fails, and does not wait for a reader that does not read.
    let (reader, writer) = full_pipe();
    let setup = Setup::new().args(&["--wal-key-file", "/dev/null/nowhere"]);
    let mut gateway = setup.stderr(writer).spawn();
    assert_eq!(gateway.await_end(END_MAX).code(), Some(4));
    drop(reader);
}
