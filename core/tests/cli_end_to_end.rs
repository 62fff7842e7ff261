//! The command line against a running gateway: the commands of a new user, their output, and the
//! data left after a restart.
//!
//! Every test starts the real program twice: as the gateway, on a free port, and as the client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

#[path = "cli_end_to_end/control.rs"]
mod control;
#[path = "cli_end_to_end/keyvalue.rs"]
mod keyvalue;
#[path = "cli_end_to_end/messages.rs"]
mod messages;

/// A gateway that ends with its test.
struct Gateway {
    process: Child,
    /// Kept open, so that the gateway does not write into a closed pipe.
    output: BufReader<ChildStdout>,
    server: String,
}

impl Gateway {
    fn start(data_dir: &std::path::Path, embedded: &str, shards: usize) -> Self {
        Self::start_at("127.0.0.1:0", data_dir, embedded, shards)
    }

    fn start_at(listen: &str, data_dir: &std::path::Path, embedded: &str, shards: usize) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_prism"))
            .args([
                "serve",
                "--listen",
                listen,
                "--embedded",
                embedded,
                "--log-level",
                "warn",
            ])
            .args([
                "--shards",
                &shards.to_string(),
                "--set",
                "pin_shards=false",
                "--data-dir",
            ])
            .arg(data_dir)
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built for this test");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the gateway greets");
        let server = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(
            line.contains("listens on") && server.starts_with("127.0.0.1:"),
            "unexpected greeting {line:?}"
        );
        Self {
            process,
            output,
            server,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prism"));
        command
            .args(arguments)
            .env_clear()
            .env("PRISM_SERVER", &self.server)
            .env("PRISM_TIMEOUT", "60s")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program was built for this test")
    }

    /// Runs a command that must succeed. Returns its standard output.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text is UTF-8")
    }

    /// Runs a command that must end with 1. Returns its standard error.
    fn no(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stderr).expect("text is UTF-8");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        text
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[&["--output", "json"], arguments].concat())).expect("one JSON value")
    }

    /// Drains the gateway as an operator would, with SIGTERM, and waits for its end.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is our child");
        let status = self.process.wait().expect("it is our child");
        assert!(status.success(), "a drain is a good end: {status}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already if the test stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.output.read_to_end(&mut Vec::new());
    }
}

fn example(name: &str) -> String {
    format!("{}/../examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_first_session_of_a_newcomer_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "sqlite", 2);
    assert_eq!(
        gateway.ok(&["namespace", "create", &example("user-sessions")]),
        "✓ Namespace user-sessions created\n✓ Backend provisioned: SQLite table \"user-sessions\"\n\
         ✓ Access policies configured\n✓ Ready to use\n"
    );
    assert_eq!(
        gateway.no(&["namespace", "create", &example("user-sessions")]),
        "Error: Namespace \"user-sessions\" already exists\nSolution: Choose different name or use existing namespace\n"
    );
    assert_eq!(
        gateway.ok(&["kv", "put", "user-sessions", "alice", "theme", "dark"]),
        "✓ 1 item written\n"
    );
    assert_eq!(
        gateway.ok(&["kv", "get", "user-sessions", "alice", "theme"]),
        "dark\n"
    );
    assert_eq!(
        gateway.ok(&["kv", "get", "user-sessions", "alice"]),
        "theme\tdark\n"
    );
    gateway.stop();

    let gateway = Gateway::start(folder.path(), "sqlite", 1);
    assert_eq!(
        gateway.ok(&["kv", "get", "user-sessions", "alice", "theme"]),
        "dark\n"
    );
    let list = gateway.ok(&["namespace", "list"]);
    assert!(
        list.contains("user-sessions") && list.contains("web-team") && list.contains("best-effort"),
        "{list}"
    );
    let show = gateway.ok(&["namespace", "show", "user-sessions"]);
    assert!(
        show.contains("\ndurability: best-effort\n") && show.contains("  # Session storage"),
        "{show}"
    );
    assert_eq!(
        gateway.ok(&["namespace", "delete", "user-sessions", "--yes"]),
        "✓ Namespace user-sessions deleted with all its data\n"
    );
    let text = gateway.no(&["namespace", "show", "user-sessions"]);
    assert!(
        text.starts_with("Error: Namespace \"user-sessions\" does not exist\nSolution: "),
        "{text}"
    );
    // The same name again is a new namespace: nothing of the old one shows.
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    assert!(
        gateway
            .no(&["kv", "get", "user-sessions", "alice"])
            .starts_with("Error: nothing found")
    );
    gateway.stop();
}

#[test]
fn items_of_all_kinds_go_in_and_come_out() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "memory", 2);
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    let ns = "user-sessions";
    gateway.ok(&[
        "kv", "put", ns, "id", "--item", "b=2", "--item", "a=1", "--item", "c=x=y", "--ttl", "1h",
    ]);
    gateway.ok(&["kv", "put", ns, "id", "base64:/wA=", "base64:AAEC"]);
    gateway.ok(&["kv", "put", ns, "id", "empty", ""]);
    let all = "a\t1\nb\t2\nc\tx=y\nempty\t\nbase64:/wA=\tbase64:AAEC\n";
    assert_eq!(gateway.ok(&["kv", "get", ns, "id"]), all);
    assert_eq!(
        gateway.ok(&["kv", "get", ns, "id", "--range", "a..c"]),
        "a\t1\nb\t2\n"
    );
    assert_eq!(
        gateway.ok(&["kv", "get", ns, "id", "--range", "b..", "--limit", "2"]),
        "b\t2\nc\tx=y\n"
    );
    assert_eq!(gateway.ok(&["kv", "get", ns, "id", "a", "c"]), "a\t1\nc\tx=y\n");
    assert_eq!(
        gateway
            .run(&["kv", "get", ns, "id", "base64:/wA=", "--raw"])
            .stdout,
        [0, 1, 2]
    );

    let json = gateway.json(&["kv", "get", ns, "id", "a"]);
    assert_eq!(json["items"][0]["value"], "MQ==");
    assert_eq!(json["items"][0]["value_text"], "1");
    let ttl = json["items"][0]["ttl_seconds"]
        .as_f64()
        .expect("the item expires");
    assert!((3_000.0..=3_600.0).contains(&ttl), "{ttl}");
    let json = gateway.json(&["kv", "put", ns, "id", "j", "v"]);
    assert_eq!(
        (json["durability"].as_str(), json["applied"].as_bool()),
        (Some("best-effort"), Some(true))
    );

    gateway.ok(&["kv", "delete", ns, "id", "a", "never-there"]);
    gateway.ok(&["kv", "delete", ns, "id", "--range", "b..d"]);
    assert_eq!(
        gateway.ok(&["kv", "get", ns, "id"]),
        "empty\t\nj\tv\nbase64:/wA=\tbase64:AAEC\n"
    );
    gateway.ok(&["kv", "delete", ns, "id", "--all"]);
    assert!(
        gateway
            .no(&["kv", "get", ns, "id"])
            .starts_with("Error: nothing found in namespace user-sessions under id id")
    );
    gateway.stop();
}

#[test]
fn scan_prints_every_item_once_and_stops_at_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "memory", 3);
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    for id in 0..20 {
        let id = format!("id-{id}");
        gateway.ok(&[
            "kv",
            "put",
            "user-sessions",
            &id,
            "--item",
            "k1=v",
            "--item",
            "k2=w",
        ]);
    }
    let text = gateway.ok(&["kv", "scan", "user-sessions"]);
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected: Vec<_> = (0..20)
        .flat_map(|id| [format!("id-{id}\tk1\tv"), format!("id-{id}\tk2\tw")])
        .collect();
    expected.sort();
    assert_eq!(lines, expected);
    assert_eq!(
        gateway
            .ok(&["kv", "scan", "user-sessions", "--limit", "7"])
            .lines()
            .count(),
        7
    );
    let json = gateway.ok(&["--output", "json", "kv", "scan", "user-sessions", "--limit", "1"]);
    let entry: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        entry["id"].as_str().unwrap().starts_with("id-") && entry["value_text"].is_string(),
        "{json}"
    );
    gateway.stop();
}

#[test]
fn compare_and_swap_says_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "memory", 2);
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    let cas = ["kv", "cas", "user-sessions", "id", "k"];
    let with = |rest: &[&'static str]| [&cas[..], rest].concat();
    assert_eq!(
        gateway.no(&with(&["new", "--expect", "old"])),
        "Error: not swapped: there is no such item\n"
    );
    assert_eq!(gateway.ok(&with(&["one", "--expect-absent"])), "✓ swapped\n");
    assert_eq!(
        gateway.no(&with(&["two", "--expect-absent"])),
        "Error: not swapped: the value is one\n"
    );
    assert_eq!(gateway.ok(&with(&["two", "--expect", "one"])), "✓ swapped\n");
    let output = gateway.run(&[&["--output", "json"], &with(&["x", "--expect", "one"])[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (json["swapped"].as_bool(), json["current"]["value_text"].as_str()),
        (Some(false), Some("two"))
    );
    // A version is what `kv get` prints, and stands for one state of the item.
    let versions = || {
        let printed = gateway.ok(&["kv", "get", "user-sessions", "id", "k", "--with-version"]);
        let (version, value) = printed.trim_end().split_once('\t').unwrap();
        (version.to_owned(), value.to_owned())
    };
    let (version, value) = versions();
    assert_eq!(value, "two");
    let by_version = |version: &str, to: &'static str| {
        let words = [&cas[..], &[to, "--expect-version", version]].concat();
        gateway.run(&words).status.code()
    };
    assert_eq!(by_version(&version, "three"), Some(0));
    assert_eq!(by_version(&version, "four"), Some(1));
    assert_eq!(by_version(&versions().0, "two"), Some(0));
    let refused = gateway.no(&with(&["x", "--expect-version", "AAAA"]));
    assert!(
        refused.contains("version: must be the version of an item"),
        "{refused}"
    );
    assert_eq!(gateway.ok(&with(&["--delete", "--expect", "two"])), "✓ swapped\n");
    assert!(
        gateway
            .no(&["kv", "get", "user-sessions", "id", "k"])
            .starts_with("Error: nothing found")
    );
    gateway.stop();
}

#[test]
fn refusals_reach_the_user_with_place_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "memory", 1);
    let file = folder.path().join("a.yaml");
    let file_name = file.to_str().unwrap();
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    write("namespace: a\nclient_api: keyvalue\nneeds: {durability: best-effort, write_rps: 100000}\n");
    assert_eq!(
        gateway.no(&["namespace", "create", file_name]),
        format!(
            "Error: Requested write_rps (100000) exceeds limit (50000)\n\
             Solution: Contact platform team for capacity increase\nWhere: {file_name}, line 3, needs.write_rps\n"
        )
    );
    write("namespace: a\nclient_api: keyvaleu\nneeds: {durabilty: best-effort}\n");
    let text = gateway.no(&["namespace", "create", file_name]);
    let first = text
        .find("did you mean \"keyvalue\"?")
        .expect("the first problem is shown");
    assert_eq!(
        text.rfind("did you mean \"keyvalue\"?"),
        Some(first),
        "and once: {text}"
    );
    assert!(text.starts_with("Error: \"keyvaleu\" is not known"), "{text}");
    assert!(
        text.contains(&format!(
            "\nWhere: {file_name}, line 2, client_api\n\nError: unknown key; "
        )),
        "{text}"
    );
    assert!(
        text.ends_with(&format!("\nWhere: {file_name}, line 3, needs.durabilty\n")),
        "{text}"
    );
    write(
        &(0..20)
            .map(|index| format!("key{index}: 1\n"))
            .collect::<String>(),
    );
    let text = gateway.no(&["namespace", "create", file_name]);
    assert_eq!(text.matches("\nWhere: ").count(), 10, "{text}");
    assert!(
        text.ends_with(&format!(
            "\n12 more problems are not shown; `prism namespace validate {file_name}` shows all\n"
        )),
        "{text}"
    );

    let text = gateway.no(&["namespace", "create", &example("payments")]);
    assert!(
        text.contains("client_api transact cannot be created yet"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "\nSolution: this version serves client_api: keyvalue, pubsub and queue; leave the line out, and do not store such data yet\n"
        ),
        "each advice once: {text}"
    );
    assert_eq!(text.matches("client_api: keyvalue").count(), 1, "{text}");

    let text = gateway.no(&["kv", "get", "nowhere", "id"]);
    assert!(text.starts_with("Error: ") && text.contains("nowhere"), "{text}");
    let text = gateway.no(&["--output", "json", "namespace", "show", "nowhere"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (json["error"]["code"].as_str(), json["error"]["reason"].as_str()),
        (Some("NOT_FOUND"), Some("NAMESPACE_NOT_FOUND"))
    );
    assert_eq!(gateway.ok(&["namespace", "list"]), "");
    gateway.stop();
}

#[test]
fn values_come_from_files_and_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "sqlite", 1);
    let file = folder.path().join("big.yaml");
    std::fs::write(
        &file,
        "namespace: big\nclient_api: keyvalue\nneeds: {durability: best-effort}\n",
    )
    .unwrap();
    gateway.ok(&["namespace", "create", file.to_str().unwrap()]);
    // Larger than every window and buffer on the way, and every byte different from the next.
    let value: Vec<u8> = (0..5_000_000_u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let path = folder.path().join("value");
    std::fs::write(&path, &value).unwrap();
    gateway.ok(&[
        "kv",
        "put",
        "big",
        "id",
        "file",
        "--value-file",
        path.to_str().unwrap(),
    ]);
    assert!(
        gateway.run(&["kv", "get", "big", "id", "file", "--raw"]).stdout == value,
        "the value changed on its way"
    );

    let mut child = gateway
        .command(&["kv", "put", "big", "id", "stdin", "--value-file", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"from\nstandard input")
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(
        gateway.ok(&["kv", "get", "big", "id", "stdin"]),
        "from\nstandard input\n"
    );
    gateway.stop();
}

#[test]
fn a_gateway_that_cannot_start_says_why_and_ends_with_4() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "sqlite", 1);
    let serve = |listen: &str, data_dir: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_prism"))
            .args([
                "serve",
                "--shards",
                "1",
                "--set",
                "pin_shards=false",
                "--listen",
                listen,
                "--data-dir",
            ])
            .arg(data_dir)
            .env_clear()
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(text.contains("Error: "), "{text}");
        text
    };
    let other = tempfile::tempdir().unwrap();
    let text = serve(&gateway.server, other.path());
    assert!(text.contains(&gateway.server), "a port in use is named: {text}");
    let text = serve("127.0.0.1:0", folder.path());
    let pid = gateway.process.id();
    assert!(
        text.contains(&format!(
            "another gateway (process {pid}) uses the data directory"
        )),
        "{text}"
    );
    let lock = std::fs::read_to_string(folder.path().join("LOCK")).unwrap();
    assert_eq!(lock, format!("{pid}\n"));
    std::fs::write(other.path().join("file"), "").unwrap();
    let text = serve("127.0.0.1:0", &other.path().join("file"));
    assert!(text.contains("--data-dir"), "{text}");
    gateway.stop();
}

#[test]
fn status_says_whether_the_gateway_is_ready_and_how_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), "sqlite", 2);
    gateway.ok(&["namespace", "create", &example("user-sessions")]);
    let text = gateway.ok(&["status"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..2],
        [format!("Gateway: {}", gateway.server), "Status: ready".to_owned()]
    );
    assert!(
        lines[2].starts_with(concat!("Version: ", env!("CARGO_PKG_VERSION"), ", 2 shards on ")),
        "{text}"
    );
    assert_eq!(lines[3], "Namespaces: 1");
    assert!(
        lines.contains(&"Dead letters: 0") && lines.contains(&"Log: 0 records (0B) wait for the store"),
        "{text}"
    );
    let json = gateway.json(&["status"]);
    assert_eq!(
        (json["ready"].as_bool(), json["namespaces"].as_u64()),
        (Some(true), Some(1))
    );
    assert_eq!(json["shards"], 2);
    assert!(json["connections"].as_u64().unwrap() >= 1, "its own: {json}");
    gateway.stop();
}
