//! `prism pubsub` and `prism queue` against a running gateway.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use super::{Gateway, example};

mod work;

#[test]
fn messages_are_published_and_read_again_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::start(directory.path(), "sqlite", 2);
    gateway.ok(&["namespace", "create", &example("user-events")]);
    let publish = |gateway: &Gateway, payload: &str, topic: &str| {
        let said = gateway.ok(&[
            "pubsub",
            "publish",
            "user-events",
            payload,
            "--topic",
            topic,
            "--key",
            "k",
        ]);
        assert_eq!(said, "✓ published\n");
    };
    publish(&gateway, "one", "login.web");
    publish(&gateway, "two", "logout");
    let token = [
        "--token",
        "t1",
        "--attribute",
        "a=b",
        "--topic",
        "login.app",
        "--key",
        "k",
    ];
    let once = [&["pubsub", "publish", "user-events", "three"][..], &token].concat();
    let first = gateway.json(&once);
    assert_eq!(
        (&first["message_id_text"], &first["durability"]),
        (&"t1".into(), &"strong".into())
    );
    assert_eq!(gateway.json(&once)["message_id_text"], "t1", "a repeat");

    let all = [
        "pubsub",
        "subscribe",
        "user-events",
        "--from",
        "earliest",
        "--limit",
        "3",
    ];
    let seen = gateway.ok(&all);
    let mut lines: Vec<_> = seen.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["login.app\tk\tthree", "login.web\tk\tone", "logout\tk\ttwo"]
    );

    // A subscriber continues over a restart of the gateway, at the same address, and misses
    // nothing.
    let listen = gateway.server.clone();
    let mut live = gateway
        .command(&["--output", "json", "--timeout", "20s"])
        .args([
            "pubsub",
            "subscribe",
            "user-events",
            "login.>",
            "--from",
            "earliest",
            "--limit",
            "3",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program was built for this test");
    let mut printed = BufReader::new(live.stdout.take().expect("piped"));
    let mut next = || {
        let mut line = String::new();
        printed.read_line(&mut line).expect("a message");
        serde_json::from_str::<serde_json::Value>(&line).expect("one JSON value a line")
    };
    assert_eq!(next()["payload_text"], "one");
    assert_eq!(next()["attributes"], serde_json::json!({ "a": "b" }));
    gateway.stop();
    let gateway = Gateway::start_at(&listen, directory.path(), "sqlite", 3);
    publish(&gateway, "four", "login.web");
    assert_eq!(next()["payload_text"], "four");
    assert!(live.wait().expect("it is our child").success());

    groups_keep_their_place(&gateway);
    let refused = gateway.no(&["pubsub", "publish", "user-events", "x", "--topic", "a..b"]);
    assert!(refused.contains("message.topic"), "{refused}");
}

/// Of a namespace with four messages.
fn groups_keep_their_place(gateway: &Gateway) {
    let member = |limit| {
        let args = [
            "pubsub",
            "subscribe",
            "user-events",
            "--group",
            "audit",
            "--from",
            "earliest",
            "--limit",
            limit,
        ];
        let seen = gateway.ok(&args);
        seen.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = member("3");
    all.extend(member("1"));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4, "each once: {all:?}");
    let groups = gateway.json(&["pubsub", "groups", "user-events"]);
    assert_eq!(
        (&groups["name"], &groups["messages_behind"]),
        (&"audit".into(), &0.into())
    );
    let listed = gateway.ok(&["pubsub", "groups", "user-events"]);
    assert!(
        listed.starts_with("audit\t") && listed.ends_with("behind 0\n"),
        "{listed}"
    );
    let reset = [
        "pubsub",
        "reset-group",
        "user-events",
        "audit",
        "--to",
        "earliest",
    ];
    assert_eq!(gateway.ok(&reset), "✓ reset\n");
    let first = gateway.json(&[
        "pubsub",
        "subscribe",
        "user-events",
        "--group",
        "audit",
        "--limit",
        "1",
    ]);
    let position = first["position"].as_str().expect("a position");
    let commit = ["pubsub", "commit", "user-events", "audit", position];
    assert_eq!(gateway.ok(&commit), "✓ committed\n", "once more");
    let groups = gateway.json(&["pubsub", "groups", "user-events"]);
    assert_eq!(groups["messages_behind"], 3);
    let delete = ["pubsub", "delete-group", "user-events", "audit"];
    assert_eq!(gateway.ok(&delete), "✓ deleted\n");
    assert_eq!(gateway.ok(&["pubsub", "groups", "user-events"]), "");
}
