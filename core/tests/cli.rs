//! Promises of the command line without a gateway: help, usage errors, exit codes, offline checks,
//! completions.
//!
//! Every test runs the real program.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// The program with a clean environment, so that the machine's own settings change nothing.
fn prism(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prism"));
    command
        .args(arguments)
        .env_clear()
        .env("COLUMNS", "120")
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    prism(arguments)
        .output()
        .expect("the program was built for this test")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text is UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text is UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("the program ended by itself")
}

fn example(name: &str) -> String {
    format!("{}/../examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

/// An address on loopback where no process listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").to_string()
}

#[test]
fn help_tells_the_commands_exit_codes_and_first_steps() {
    let output = run(&["--help"]);
    assert_eq!(code(&output), 0);
    let text = out(&output);
    for word in [
        "serve",
        "namespace",
        "kv",
        "config",
        "status",
        "wal",
        "completions",
        "--server",
        "PRISM_SERVER",
        "Exit codes:",
        "First steps:",
    ] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    let serve = out(&run(&["serve", "--help"]));
    for flag in [
        "--data-dir",
        "--listen",
        "--shards",
        "--driver",
        "--embedded",
        "--config",
        "PRISM_DATA_DIR",
    ] {
        assert!(serve.contains(flag), "{flag} is missing in:\n{serve}");
    }
    assert_eq!(
        out(&run(&["--version"])),
        concat!("prism ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert_eq!(code(&run(&[])), 2, "nothing asked is a usage error, with help");
}

#[test]
fn wrong_usage_ends_with_2_and_a_suggestion() {
    for (arguments, word) in [
        (&["namespcae"][..], "namespace"),
        (&["kv", "put", "a", "b"], "<KEY>"),
        (&["kv", "put", "a", "b", "c"], "<VALUE>"),
        (&["kv", "get", "a", "b", "--range", "x"], "A..B"),
        (&["kv", "get", "a", "b", "c", "--range", "x..y"], "cannot be used"),
        (&["kv", "get", "a", "b", "base64:?"], "base64"),
        (&["kv", "delete", "a", "b"], "--all"),
        (&["kv", "cas", "a", "b", "k", "v"], "--expect"),
        (&["kv", "cas", "a", "b", "k", "--expect", "v"], "<VALUE>"),
        (&["kv", "put", "a", "b", "c", "d", "--ttl", "5"], "5s"),
        (&["--timeout", "soon", "namespace", "list"], "duration"),
        (&["kv", "put", "a", "b", "c", "d", "--ttl", "6M"], "6min"),
        (
            &["kv", "put", "a", "b", "c", "d", "--ttl", "0s"],
            "longer than zero",
        ),
        (&["kv", "put", "a", "b", "c", "d", "--token", ""], "1 to 64 bytes"),
        (&["kv", "put", "a", "b", "c", "d", "--token-time", "1"], "--token"),
        (
            &[
                "kv",
                "put",
                "a",
                "b",
                "c",
                "d",
                "--token",
                "t",
                "--token-time",
                "now",
            ],
            "date +%s.%N",
        ),
        (&["kv", "mutate", "a"], "--from"),
        (&["kv", "mutate", "a", "--put", "id", "k"], "KEY=VALUE"),
        (
            &["kv", "mutate", "a", "--from", "/nowhere"],
            "cannot read /nowhere",
        ),
        (&["dlq", "redrive", "x"], "first column of `prism dlq list`"),
        (&["dlq", "show", "0"], "first column of `prism dlq list`"),
        (
            &["--server", "localhost", "kv", "get", "a", "b"],
            "the port is missing",
        ),
        (
            &["--server", "ftp://localhost:1", "kv", "get", "a", "b"],
            "HOST:PORT",
        ),
        (&["serve", "--driver", "iouring"], "io_uring"),
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", err(&output));
        assert!(
            err(&output).contains(word),
            "{arguments:?} lacks {word:?}: {}",
            err(&output)
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn validate_works_offline() {
    let output = run(&["namespace", "validate", &example("user-sessions")]);
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    assert_eq!(out(&output), format!("✓ {} is valid\n", example("user-sessions")));

    let output = run(&[
        "namespace",
        "validate",
        &example("payments"),
        &example("click-events"),
    ]);
    assert_eq!(code(&output), 0, "valid, although it cannot be created yet");
    assert!(
        err(&output).contains("client_api transact cannot be created yet"),
        "{}",
        err(&output)
    );
    assert!(!out(&output).contains('\x1b'), "colours only on a terminal");

    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.yaml");
    std::fs::write(
        &bad,
        "namespace: a\nclient_api: keyvalue\nneeds:\n  write_rps: 100000\n",
    )
    .unwrap();
    let bad = bad.to_str().unwrap();
    let output = run(&["namespace", "validate", bad, &example("metrics")]);
    assert_eq!(code(&output), 1);
    assert_eq!(
        err(&output)
            .lines()
            .filter(|line| !line.starts_with("Note"))
            .collect::<Vec<_>>(),
        [
            "Error: Requested write_rps (100000) exceeds limit (50000)",
            "Solution: Contact platform team for capacity increase",
            &format!("Where: {bad}, line 4, needs.write_rps"),
        ]
    );
    assert!(
        out(&output).contains("metrics.yaml is valid"),
        "the good one is still told"
    );

    let output = run(&["--output", "json", "namespace", "validate", bad]);
    assert_eq!((code(&output), err(&output).as_str()), (1, ""));
    let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(json[0]["valid"], false);
    assert_eq!(json[0]["problems"][0]["line"], 4);
}

#[test]
fn validate_reads_standard_input_and_lists_many_problems() {
    let mut child = prism(&["namespace", "validate", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"namespace: A\nclient_api: keyvalu\n\x1b: 1\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 1);
    let text = err(&output);
    assert!(
        text.contains('\u{FFFD}') || text.starts_with("Error: not YAML"),
        "{text}"
    );
    assert!(
        !text.contains('\x1b'),
        "what stands in a file does not reach the terminal as a command: {text:?}"
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.yaml");
    std::fs::write(&file, "namespace: A\nclient_api: keyvalu\n").unwrap();
    let output = run(&["namespace", "validate", file.to_str().unwrap()]);
    let text = err(&output);
    let lines: Vec<_> = text.lines().collect();
    let place = file.display();
    assert!(
        lines[0].starts_with("Error: \"A\" is not a name for a namespace; allowed: "),
        "{text}"
    );
    assert_eq!(
        &lines[1..],
        [
            "Solution: did you mean \"a\"?",
            &format!("Where: {place}, line 1, namespace"),
            "",
            "Error: \"keyvalu\" is not known; allowed: keyvalue, pubsub, queue, reader, transact, timeseries, graph",
            "Solution: did you mean \"keyvalue\"?",
            &format!("Where: {place}, line 2, client_api"),
        ],
        "each problem has the form of a single one"
    );
}

#[test]
fn unreadable_files_are_usage_errors() {
    for arguments in [
        ["namespace", "validate", "/nowhere/a.yaml"],
        ["namespace", "create", "/nowhere/a.yaml"],
        ["namespace", "validate", "/"],
    ] {
        let output = run(&arguments);
        assert_eq!(code(&output), 2);
        assert!(
            err(&output).starts_with("Error: cannot read /"),
            "{}",
            err(&output)
        );
        assert!(err(&output).contains("\nSolution: "), "{}", err(&output));
    }
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.yaml");
    std::fs::write(&large, vec![b'#'; 70_000]).unwrap();
    let output = run(&["namespace", "validate", large.to_str().unwrap()]);
    assert!(err(&output).contains("64 KiB"), "{}", err(&output));
}

#[test]
fn no_gateway_is_said_with_address_and_remedy() {
    let server = nobody();
    for arguments in [
        &["namespace", "list"][..],
        &["kv", "get", "a", "b"],
        &["kv", "scan", "a"],
        &["kv", "put", "a", "b", "c", "d"],
    ] {
        let output = prism(arguments).env("PRISM_SERVER", &server).output().unwrap();
        assert_eq!(code(&output), 3, "{}", err(&output));
        let text = err(&output);
        assert!(
            text.starts_with(&format!("Error: cannot reach a gateway at {server}: ")),
            "{text}"
        );
        assert!(
            text.contains("\nSolution: start a gateway with `prism serve`"),
            "{text}"
        );
    }
    let output = run(&["--server", &server, "--output", "json", "namespace", "show", "a"]);
    assert_eq!(code(&output), 3);
    let json: serde_json::Value = serde_json::from_str(&err(&output)).unwrap();
    assert!(json["error"]["message"].as_str().unwrap().contains(&server));
    let output = run(&["status", "--server", &server]);
    assert_eq!(code(&output), 3, "{}", err(&output));
}

#[test]
fn notes_of_several_files_name_them_and_say_each_advice_once() {
    let (payments, metrics) = (example("payments"), example("metrics"));
    let output = run(&["namespace", "validate", &payments, &example("ledger"), &metrics]);
    assert_eq!(code(&output), 0);
    let text = err(&output);
    let notes: Vec<_> = text.lines().collect();
    assert_eq!(notes.len(), 2, "one note a file: {text}");
    assert!(
        notes[0].starts_with(&format!("Note: {payments} is for a later version: ")),
        "{text}"
    );
    assert!(
        notes[1].starts_with(&format!("Note: {metrics} is for a later version: ")),
        "{text}"
    );
    // The file asks for three policies that do not exist yet.
    let advice = "leave the line out, and do not store such data yet";
    assert_eq!(notes[0].matches(advice).count(), 1, "{text}");
    assert!(
        notes[0].contains("pii_handling") && notes[0].contains("audit_logging"),
        "{text}"
    );
}

#[test]
fn usage_has_the_namespace_first() {
    for (command, first) in [
        (
            "delete",
            "Usage: prism kv delete [OPTIONS] <NAMESPACE> <ID> <KEY>...\n",
        ),
        (
            "cas",
            "Usage: prism kv cas [OPTIONS] <NAMESPACE> <ID> <KEY> <VALUE> --expect <VALUE>\n",
        ),
        ("mutate", "Usage: prism kv mutate [OPTIONS] <NAMESPACE> --put"),
        ("put", "Usage: prism kv put [OPTIONS] <NAMESPACE> <ID>"),
        ("get", "Usage: prism kv get [OPTIONS] <NAMESPACE> <ID>"),
    ] {
        let text = out(&run(&["kv", command, "--help"]));
        assert!(text.contains(first), "{command}:\n{text}");
    }
    let text = err(&run(&["kv", "delete", "a", "b"]));
    assert!(
        text.contains("Usage: prism kv delete [OPTIONS] <NAMESPACE> <ID> <KEY>..."),
        "{text}"
    );
}

#[test]
fn global_options_have_their_section_and_are_refused_where_they_mean_nothing() {
    let text = out(&run(&["kv", "get", "--help"]));
    let (_, section) = text
        .split_once("\nGlobal options:\n")
        .unwrap_or_else(|| panic!("no section in\n{text}"));
    for option in ["--server", "--output", "--timeout"] {
        assert!(section.contains(option), "{option} is missing in\n{section}");
    }
    let none: &[&[&str]] = &[
        &["serve"],
        &["completions", "bash"],
        &["config", "print"],
        &["namespace", "validate", "/nowhere"],
        &["wal", "inspect", "/nowhere"],
    ];
    for command in none {
        let mut refused = vec![("--server", "127.0.0.1:1"), ("--timeout", "1s")];
        if matches!(command[0], "serve" | "completions") {
            refused.push(("--output", "json"));
        }
        for (option, value) in refused {
            for arguments in [
                [command, &[option, value][..]].concat(),
                [&[option, value], *command].concat(),
            ] {
                let output = run(&arguments);
                assert_eq!(code(&output), 2, "{arguments:?}: {}", err(&output));
                assert!(
                    err(&output).starts_with(&format!("error: {option} means nothing to `prism ")),
                    "{arguments:?}: {}",
                    err(&output)
                );
            }
            let help = out(&run(&[command, &["--help"][..]].concat()));
            assert!(!help.contains(option), "{option} is shown in\n{help}");
        }
    }
    // Set for other commands, they do not disturb this one.
    let output = prism(&["completions", "bash"])
        .env("PRISM_SERVER", "localhost")
        .env("PRISM_OUTPUT", "json")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
}

#[test]
fn nobody_is_asked_where_nobody_can_answer() {
    let output = run(&["--server", &nobody(), "namespace", "delete", "a"]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("prism namespace delete a --yes"),
        "{}",
        err(&output)
    );
}

#[test]
fn config_print_shows_what_counts_and_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prism.yaml");
    std::fs::write(&file, "embedded: memory\nlimits:\n  drain_timeout: 3s\n").unwrap();
    let file = file.to_str().unwrap();
    let output = prism(&[
        "config",
        "print",
        "--config",
        file,
        "--shards",
        "3",
        "--set",
        "limits.idle_timeout=90s",
    ])
    .env("PRISM_LISTEN", "127.0.0.1:0")
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
    let text = out(&output);
    for line in [
        "shards: 3  # from --shards",
        "listen: 127.0.0.1:0  # from PRISM_LISTEN",
        &format!("embedded: memory  # from {file}, line 1"),
        "  drain_timeout: 3s  # from",
        "  idle_timeout: 90s  # from --set limits.idle_timeout",
        "driver: auto  # default",
    ] {
        assert!(text.contains(line), "{line:?} is missing in:\n{text}");
    }
    let again = folder.path().join("again.yaml");
    std::fs::write(&again, &text).unwrap();
    let json = |extra: &[&str]| {
        let output = run(&[&["--output", "json", "config", "print"], extra].concat());
        let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        json["limits.idle_timeout"]["value"].clone()
    };
    let output = run(&["config", "print", "--listen", "localhost:4711"]);
    assert!(
        out(&output).contains("listen: 127.0.0.1:4711  # from --listen"),
        "{}",
        err(&output)
    );
    assert_eq!(json(&["--config", again.to_str().unwrap()]), "90s");
    assert_eq!(json(&[]), "30min");
}

#[test]
fn a_wrong_configuration_is_a_usage_error_and_nothing_starts() {
    let output = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("there is no TLS (tls.cert_file, tls.key_file, tls.client_ca_file)"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("--insecure-listen"));
    let output = prism(&["serve", "--shards", "0"])
        .env("PRISM_EMBEDDED", "redis")
        .output()
        .unwrap();
    assert_eq!(code(&output), 2);
    let text = err(&output);
    assert_eq!(
        text,
        "Error: \"redis\" is not known; allowed: sqlite, memory\nWhere: PRISM_EMBEDDED\n\n\
         Error: \"0\" is not allowed; a whole number from 1 to 256 is\nWhere: --shards\n"
    );
    let output = run(&["serve", "--listen", "no-such-name.invalid:1"]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("\"no-such-name.invalid\" has no address here"),
        "{}",
        err(&output)
    );
    let output = run(&["serve", "--config", "/nowhere"]);
    assert!(
        err(&output).contains("cannot read the configuration file /nowhere"),
        "{}",
        err(&output)
    );
    let output = run(&["serve", "--set", "limits"]);
    assert!(
        err(&output).contains("--set limits.drain_timeout=30s"),
        "{}",
        err(&output)
    );
}

#[test]
fn completions_for_three_shells() {
    for (shell, word) in [
        ("bash", "_prism"),
        ("zsh", "#compdef prism"),
        ("fish", "complete -c prism"),
    ] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(out(&output).contains(word), "{shell}");
        assert!(
            out(&output).contains("user") || out(&output).contains("namespace"),
            "{shell}"
        );
    }
}

/// A script that writes the configuration of servers that were never started, as `stack/servers up`
/// does for those that run.
const WRITE_STACK: &str = "
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader('servers', sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader('servers', loader))
loader.exec_module(module)
servers = [make() for make in module.SERVERS.values()]
for server in servers:
    server.write_state(ports={name: 5432 for name in server.port_names})
module.write_configuration(servers)
print(*[server.name for server in servers])
";

#[test]
fn the_configuration_of_the_local_stack_is_read_but_for_kinds_without_a_driver() {
    let directory = tempfile::tempdir().expect("a directory");
    let servers = format!("{}/../stack/servers", env!("CARGO_MANIFEST_DIR"));
    let written = Command::new("python3")
        .args(["-c", WRITE_STACK, &servers])
        .env("PRISM_STACK_DATA", directory.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3, which stack/ needs");
    assert!(written.status.success(), "{}", err(&written));
    let names = out(&written);
    let path = directory.path().join("prism.yaml").display().to_string();
    let output = run(&["config", "print", "--config", &path]);
    let said = out(&output) + &err(&output);
    assert_eq!(code(&output), 0, "{said}");
    let written = std::fs::read_to_string(&path).expect("the file that was written");
    assert_eq!(names.split_whitespace().count(), 4, "{names}");
    for name in names.split_whitespace() {
        let is_shown = said.contains(&format!("\n  {name}:  # from line "));
        // The gateway would refuse a kind without a driver.
        let is_comment = written.contains(&format!("\n#   {name}:\n"));
        assert!(is_shown != is_comment, "{name} in:\n{written}\n{said}");
    }
}

#[test]
fn serve_refuses_a_store_that_it_cannot_reach_or_whose_secret_is_written_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prism.yaml");
    let shown = path.display().to_string();
    for (text, (key, wanted)) in [
        (
            "stores: {bus: {kind: clickhouse, url: 'http://a:8123'}}",
            ("stores.bus.kind", "this version has no driver for ClickHouse"),
        ),
        (
            "stores: {bus: {kind: nats, url: 'nats://u:hunter2@bus:4222'}}",
            ("stores.bus.url", "a password is written out"),
        ),
        (
            "stores: {bus: {kind: nats, url: 'nats://u:${NO_SUCH}@bus:4222'}}",
            ("stores.bus.url", "the environment variable NO_SUCH is not set"),
        ),
        (
            "stores: {disk: {kind: sqlite}}",
            ("stores.disk.kind", "the store embedded is SQLite already"),
        ),
    ] {
        std::fs::write(&path, text).expect("a file");
        let output = run(&["serve", "--config", &shown]);
        assert_eq!(code(&output), 2, "{text}");
        let said = err(&output);
        for word in [key, wanted, "line 1"] {
            assert!(said.contains(word), "{word} is missing in {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
    std::fs::write(&path, "stores: {cache: {kind: memory}}").expect("a file");
    let output = run(&["--output", "json", "config", "print", "--config", &shown]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        out(&output).contains(r#""stores":{"cache":{"kind":"memory"}}"#),
        "{}",
        out(&output)
    );
}
