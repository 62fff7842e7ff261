//! `prism kv`: batches, tokens, and scans that take long.

use std::{
    io::Read as _,
    process::{Child, Stdio},
};

use super::{Gateway, example};

#[test]
fn mutate_writes_to_many_ids_and_copies_a_namespace_by_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "memory", 2);
    for name in ["old", "new"] {
        let file = folder.path().join(name);
        let yaml = format!(
            "namespace: {name}\nclient_api: keyvalue\nneeds: {{durability: best-effort, max_message_size: 1KB}}\n"
        );
        std::fs::write(&file, yaml).unwrap();
        gateway.ok(&["namespace", "create", file.to_str().unwrap()]);
    }
    gateway.ok(&["kv", "put", "old", "gone", "k", "v"]);
    assert_eq!(
        gateway.ok(&[
            "kv",
            "mutate",
            "old",
            "--put",
            "a",
            "k=1",
            "--put",
            "b",
            "base64:/w===2",
            "--delete",
            "gone",
            "k",
            "--ttl",
            "1h",
        ]),
        "✓ 3 mutations done\n"
    );
    assert!(
        gateway
            .no(&["kv", "get", "old", "gone"])
            .starts_with("Error: nothing found")
    );
    let lines: String = (0..2_500)
        .map(|id| format!("{{\"id\":\"n{id}\",\"key_text\":\"k\",\"value_text\":\"{id}\"}}\n"))
        .collect();
    let file = folder.path().join("lines");
    std::fs::write(&file, lines).unwrap();
    assert_eq!(
        gateway.ok(&["kv", "mutate", "old", "--from", file.to_str().unwrap()]),
        "✓ 2500 mutations done\n"
    );
    // The output of a scan is valid input of mutate.
    let scan = gateway.ok(&["--output", "json", "kv", "scan", "old"]);
    std::fs::write(&file, &scan).unwrap();
    gateway.ok(&["kv", "mutate", "new", "--from", file.to_str().unwrap()]);
    let sorted = |namespace: &str| {
        let text = gateway.ok(&["kv", "scan", namespace]);
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted("new").len(), 2_502);
    assert_eq!(sorted("new"), sorted("old"));
    assert_eq!(
        gateway.ok(&["kv", "mutate", "new", "--delete-all", "a"]),
        "✓ 1 mutation done\n"
    );
    assert!(
        gateway
            .no(&["kv", "get", "new", "a"])
            .starts_with("Error: nothing found")
    );

    // A refused change does not stop the others, and is reported.
    let large = format!("k={}", "x".repeat(2_000));
    let output = gateway.run(&["kv", "mutate", "new", "--put", "c", "k=1", "--put", "d", &large]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(1) && text.contains("1 of 2 mutations had no effect") {
        assert!(text.contains("mutation 2 (id d) had no effect: "), "{text}");
        assert_eq!(gateway.ok(&["kv", "get", "new", "c", "k"]), "1\n");
    } else {
        assert!(text.contains("max_message_size"), "{text}");
    }
    std::fs::write(&file, "{\"id\":\"e\",\"key_text\":\"k\"}\n").unwrap();
    let output = gateway.run(&["kv", "mutate", "new", "--from", file.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("lines, line 1: a key and a value are needed"),
        "{text}"
    );
    gateway.stop();
}

#[test]
fn a_write_with_a_token_has_one_effect() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "sqlite", 1);
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let time = |seconds: u64| format!("{}.{:09}", now.as_secs() + seconds, now.subsec_nanos());
    let put = |key: &str, value: &str, token: &str, time: &str| {
        gateway.ok(&[
            "kv",
            "put",
            "user-sessions",
            "id",
            key,
            value,
            "--token",
            token,
            "--token-time",
            time,
        ]);
    };
    let get = |key: &str| gateway.ok(&["kv", "get", "user-sessions", "id", key]);
    put("k", "first", "a", &time(1));
    put("k", "second", "b", &time(2));
    assert_eq!(get("k"), "second\n");
    put("k", "first", "a", &time(1));
    assert_eq!(
        get("k"),
        "second\n",
        "the repeat of an older write changes nothing"
    );
    gateway.ok(&[
        "kv",
        "delete",
        "user-sessions",
        "id",
        "k",
        "--token",
        "c",
        "--token-time",
        &time(3),
    ]);
    put("k", "second", "b", &time(2));
    assert!(
        gateway
            .no(&["kv", "get", "user-sessions", "id", "k"])
            .starts_with("Error: nothing found")
    );
    // A repeat of a swap gets the result of the first one.
    let cas = [
        "kv",
        "cas",
        "user-sessions",
        "id",
        "n",
        "1",
        "--expect-absent",
        "--token",
        "d",
        "--token-time",
        &time(4),
    ];
    assert_eq!(gateway.ok(&cas), "✓ swapped\n");
    assert_eq!(gateway.ok(&cas), "✓ swapped\n");
    gateway.ok(&[
        "kv",
        "mutate",
        "user-sessions",
        "--put",
        "id",
        "m=1",
        "--token",
        "e",
        "--token-time",
        &time(5),
    ]);
    assert_eq!(get("m"), "1\n");
    gateway.stop();
}

/// Writes more than the pipe, the sockets and the windows between gateway and reader hold.
fn fill(gateway: &Gateway) -> usize {
    const ITEMS: usize = 48;
    // The longest value that the namespace allows.
    let value = "v".repeat(99_000);
    for id in 0..ITEMS {
        gateway.ok(&["kv", "put", "user-sessions", &format!("id-{id}"), "k", &value]);
    }
    ITEMS
}

/// A scan with output that has not been read yet.
fn unread_scan(gateway: &Gateway) -> Child {
    gateway
        .command(&["kv", "scan", "user-sessions", "--timeout", "2s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built for this test")
}

#[test]
fn a_scan_lives_as_long_as_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "sqlite", 1);
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    let items = fill(&gateway);
    let scan = unread_scan(&gateway);
    // Time passes while the first page is read: here more than twice as long as the timeout, which
    // a busy machine needs as well.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let output = scan.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines: Vec<_> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), items, "each item once");

    // A reader that has seen enough ends the scan, and that is no failure.
    let mut scan = unread_scan(&gateway);
    let mut some = [0; 1_000];
    scan.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    drop(scan.stdout.take());
    let output = scan.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    gateway.stop();
}

#[test]
fn a_scan_goes_on_after_its_connection_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "sqlite", 1);
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    let items = fill(&gateway);
    let mut scan = unread_scan(&gateway);
    let mut output = scan.stdout.take().unwrap();
    let mut text = vec![0; 1_000];
    output.read_exact(&mut text).unwrap();
    // The pipe is full; the current gateway ends, and another one takes its place.
    let server = gateway.server.clone();
    drop(gateway);
    let gateway = Gateway::start_at(&server, folder.path(), "sqlite", 1);
    output.read_to_end(&mut text).unwrap();
    let ended = scan.wait_with_output().unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .count();
    assert_eq!(lines, items, "each item once, over both connections");
    gateway.stop();
}
