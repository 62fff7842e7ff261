//! Figures of the process and of its disk for operators, and clients of another protocol.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, Setup};

#[test]
fn the_metrics_page_has_the_process_the_disk_and_the_namespaces() {
    let gateway = Setup::new().args(&["--shards", "2"]).start();
    gateway.create_namespace("kept", "strong").expect("a namespace");
    gateway.put_and_get("kept", "alice");
    let start = gateway.metric("process_start_time_seconds");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    assert!((now.as_secs_f64() - start).abs() < 120.0, "{start}");
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))
        .expect("descriptors")
        .count() as f64;
    assert!((gateway.metric("process_open_fds") - open).abs() <= 3.0);
    assert!(gateway.metric("process_max_fds") >= gateway.metric("process_open_fds"));
    assert!(gateway.metric("process_cpu_seconds_total") > 0.0);
    assert!(gateway.metric("process_threads") > 4.0);
    assert!(gateway.metric("process_resident_memory_bytes") > 1e6);
    assert!(gateway.metric("process_virtual_memory_bytes") > gateway.metric("process_resident_memory_bytes"));
    assert_eq!(gateway.metric("prism_namespaces"), 1.0);
    assert!(gateway.metric("prism_store_bytes") > 4096.0);
    // Two lanes of two segments of 4 MiB at least.
    assert!(
        gateway.metric("prism_log_bytes") >= 16e6,
        "{}",
        gateway.metric("prism_log_bytes")
    );
    let (free, size) = (
        gateway.metric("prism_disk_free_bytes"),
        gateway.metric("prism_disk_bytes"),
    );
    assert!(free > 0.0 && free <= size);
}

#[test]
fn a_client_that_speaks_tls_or_proxy_is_cut_and_named_once() {
    let mut gateway = Setup::new()
        .args(&["--log-level", "debug"])
        .stderr(Stdio::piped())
        .start();
    let lines = gateway.lines();
    let hello = [0x16, 0x03, 0x01, 0x00, 0xa5, 0x01, 0x00, 0x00, 0xa1, 0x03, 0x03];
    let cut = |bytes: &[u8]| {
        let mut stream = gateway.connect();
        stream.write_all(bytes).expect("bytes");
        // Closed, or reset because of the bytes it did not read.
        assert!(stream.read(&mut [0; 64]).unwrap_or(0) == 0);
    };
    cut(&hello);
    let line = lines.find("another protocol");
    assert!(
        line.contains("WARN") && line.contains("TLS") && line.contains("127.0.0.1:"),
        "{line}"
    );
    cut(b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 8980\r\nGET / HTTP/1.1\r\n\r\n");
    let line = lines.find("the PROXY protocol");
    assert!(line.contains("DEBUG"), "throttled: {line}");
    // SETTINGS, as they must be, and DATA on stream 0, which has none.
    let mut broken = gateway.connect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0\0\0\0x";
    broken.write_all(preface).expect("bytes");
    let line = lines.find("it broke HTTP/2");
    let peer = broken.local_addr().expect("an address").to_string();
    assert!(line.contains("DEBUG") && line.contains(&peer), "{line}");
    // It was sent a GOAWAY before the end.
    assert!(broken.read_to_end(&mut Vec::new()).is_ok_and(|bytes| bytes > 9));
    assert_eq!(gateway.readyz().as_deref(), Some("200 ready\n"));
}

#[test]
fn prism_status_says_why_a_gateway_is_not_ready_and_ends_with_1() {
    let gateway = Setup::new().args(&["--shards", "2"]).start();
    gateway.create_namespace("kept", "strong").expect("a namespace");
    gateway.put_and_get("kept", "alice");
    let directory = gateway.kill();
    // Without one of its files a lane is held; the other shard serves.
    let log = directory.path().join("data/wal");
    let files = std::fs::read_dir(log)
        .expect("the log")
        .map(|file| file.expect("a file").path());
    let is_of_a_lane = |file: &std::path::PathBuf| {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with("lane-00000001-")
    };
    std::fs::remove_file(files.filter(is_of_a_lane).min().expect("a segment")).expect("our own file");
    let gateway = Setup::on(directory).args(&["--shards", "2"]).spawn();
    let deadline = Instant::now() + PATIENCE;
    let reason = "the log of shard 0 is held; an operator must look";
    // Nothing at first, then that the start is not over.
    while !gateway.readyz().is_some_and(|said| said.contains(reason)) {
        assert!(Instant::now() < deadline, "{:?}", gateway.readyz());
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = |form: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_prism"))
            .args(["status", "--server", &gateway.address().to_string()])
            .args(form)
            .output()
            .expect("the program runs");
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(done.stderr.is_empty(), "{done:?}");
        String::from_utf8(done.stdout).expect("text")
    };
    let text = status(&[]);
    assert!(
        text.contains(&format!("\nStatus: not ready: {reason}\n")),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&status(&["--output", "json"])).expect("JSON");
    assert_eq!(
        (json["ready"].as_bool(), json["reason"].as_str()),
        (Some(false), Some(reason))
    );
}

/// Output of `make dist` for the program under test.
#[cfg(debug_assertions)]
#[test]
fn a_stripped_program_with_its_symbols_beside_it_names_lines_in_its_backtraces() {
    use std::path::Path;
    let folder = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack/dist");
    let made = Command::new(script)
        .arg(env!("CARGO_BIN_EXE_prism"))
        .arg(folder.path())
        .status();
    assert!(made.expect("stack/dist runs").success());
    let size = |path: &Path| path.metadata().expect("a file").len();
    let program = folder.path().join("prism");
    assert!(size(&program) < size(Path::new(env!("CARGO_BIN_EXE_prism"))));
    let fault = folder.path().join("fault");
    std::fs::write(&fault, "").expect("a file");
    let done = Command::new(&program)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--embedded",
            "memory",
            // Time for which the process waits for the shards, which describe their ends first.
            "--set",
            "limits.drain_timeout=20s",
        ])
        .env("PRISM_TEST_END", format!("prism-shard:panic:{}", fault.display()))
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("the program runs");
    let printed = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(4), "{printed}");
    // Paths are printed relative to the folder in which the process runs.
    assert!(printed.contains("src/shard/mod.rs:"), "{printed}");
}
