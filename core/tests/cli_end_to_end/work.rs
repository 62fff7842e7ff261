//! `prism queue` against a running gateway.

use super::super::{Gateway, example};

/// The arguments of a command on the queue.
fn queue<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["queue", arguments[0], "order-processing"], &arguments[1..]].concat()
}

#[test]
fn work_is_sent_done_by_a_command_and_looked_after() {
    let directory = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::start(directory.path(), "sqlite", 2);
    gateway.ok(&["namespace", "create", &example("order-processing")]);
    assert_eq!(gateway.ok(&queue(&["stats"])), "the queue is empty\n");
    assert_eq!(gateway.ok(&queue(&["send", "one", "--key", "a"])), "✓ sent\n");
    let sent = gateway.json(&queue(&["send", "two", "--key", "b", "--token", "t2"]));
    assert_eq!(
        (&sent["message_id_text"], &sent["durability"]),
        (&"t2".into(), &"strong".into())
    );
    gateway.ok(&queue(&["send", "fail", "--key", "c", "--attempts", "1"]));

    // A command does the work: its exit code says what became of it.
    let done = directory.path().join("done");
    let script = format!(
        "read -r line || true; echo \"$PRISM_KEY $PRISM_ATTEMPT $line\" >> {}; [ \"$line\" != fail ]",
        done.display()
    );
    let work = queue(&["work", "--limit", "3", "--", "sh", "-c", &script]);
    gateway.ok(&work);
    let written = std::fs::read_to_string(&done).expect("the command has run");
    let mut lines: Vec<_> = written.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a 1 one", "b 1 two", "c 1 fail"]);
    let dead = gateway.json(&queue(&["peek", "--dead"]));
    assert_eq!(
        (&dead["payload_text"], &dead["state"], &dead["last_failure"]),
        (&"fail".into(), &"dead".into(), &"exit status: 1".into())
    );

    // By hand: a receipt is what all calls need.
    assert_eq!(
        gateway.ok(&queue(&["redrive", "--dead"])),
        "✓ 1 messages redriven\n"
    );
    let receive = queue(&["receive", "--wait", "20s", "--lease", "60s"]);
    let message = gateway.json(&receive);
    assert_eq!(message["payload_text"], "fail");
    let receipt = message["receipt"].as_str().expect("a receipt");
    let receipt = format!("base64:{receipt}");
    gateway.ok(&queue(&["extend", &receipt, "--lease", "120s"]));
    gateway.ok(&queue(&[
        "nack",
        &receipt,
        "--delay",
        "0s",
        "--reason",
        "by hand",
        "--uncounted",
    ]));
    let again = gateway.json(&receive);
    assert_eq!(again["last_failure"], "by hand");
    let late = gateway.no(&queue(&["ack", "made-up"]));
    assert!(late.contains("receipts[0]"), "{late}");
    let receipt = format!("base64:{}", again["receipt"].as_str().expect("a receipt"));
    gateway.ok(&queue(&["ack", &receipt]));
    assert_eq!(gateway.ok(&queue(&["stats"])), "the queue is empty\n");
    gateway.ok(&queue(&["send", "not wanted", "--delay", "1h"]));
    assert_eq!(
        gateway.ok(&queue(&["delete", "--state", "delayed"])),
        "✓ 1 messages deleted\n"
    );
}
