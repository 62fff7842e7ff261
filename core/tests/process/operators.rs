//! Figures of the process and of its disk for operators, and clients of another protocol.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
};

use crate::support::Setup;

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
    assert_eq!(gateway.readyz().as_deref(), Some("200 ready\n"));
}

/// Output of `make dist` for the program under test.
#[cfg(debug_assertions)]
#[test]
fn a_stripped_program_with_its_symbols_beside_it_names_lines_in_its_backtraces() {
    use std::{path::Path, process::Command};
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
