//! Plans, figures and folders of namespaces, by the command line against a running gateway.

use std::path::Path;

use super::{Gateway, example};

/// A folder with these namespace files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    for (name, needs) in files {
        write(folder.path(), name, needs);
    }
    folder
}

fn write(folder: &Path, name: &str, needs: &str) {
    let text = format!("namespace: {name}\nclient_api: keyvalue\nneeds: {{{needs}}}\n");
    std::fs::write(folder.join(format!("{name}.yaml")), text).expect("the directory is ours");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("its name is UTF-8")
}

#[test]
fn a_plan_is_explained_and_applied_by_its_hash() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), "sqlite", 2);
    let file = example("click-events");
    let shown = gateway.ok(&["namespace", "plan", &file]);
    let hash = shown.lines().last().and_then(|line| line.strip_prefix("Plan "));
    let hash = hash.expect("the last line is the hash").to_owned();
    for line in [
        "Plan for click-events: create",
        "  Store        SQLite              the only store of this gateway",
        "  Table        click-events",
        "  Retention    7days               needs.retention",
        "  Durability   eventual            the store acknowledges, then the log gets a copy",
        "  Limits       50000 writes/s, 100000 reads/s, messages up to 10KB",
        "Warnings",
        "  unmeasured: SQLite was never probed, so its capacity is not checked",
        "Cost           at most 302TB of disk (peak rate and largest message for 7days); declare data_size for a better figure",
        "Steps          1 record it in the catalog  2 make click-events in SQLite  3 serve it on 2 shards",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    // The same again, also in JSON, and nothing was done.
    assert_eq!(gateway.ok(&["namespace", "plan", &file]), shown);
    let json = gateway.json(&["namespace", "plan", &file]);
    assert_eq!(
        (json["plan"].as_str(), json["action"].as_str()),
        (Some(&*hash), Some("create"))
    );
    assert_eq!(json["decisions"][0]["field"], "store");
    assert_eq!(json["cost"]["disk_bytes_max"], 302_400_000_000_000_u64);
    assert!(
        gateway
            .no(&["namespace", "show", "click-events"])
            .contains("does not exist")
    );

    let other = format!("sha256:{}", "0".repeat(64));
    let refused = gateway.no(&["namespace", "create", &file, "--plan", &other]);
    assert!(refused.contains("nothing was done"), "{refused}");
    let created = gateway.ok(&["namespace", "create", &file, "--plan", &hash]);
    assert!(
        created.starts_with(
            "✓ Namespace click-events created\n✓ Backend provisioned: SQLite table \"click-events\"\n"
        ),
        "{created}"
    );
    // The plan is used up.
    let again = gateway.no(&["namespace", "create", &file, "--plan", &hash]);
    assert!(again.contains("in another way by now"), "{again}");

    let grown = folder(&[]);
    let yaml = std::fs::read_to_string(&file).unwrap().replace("50000", "40000");
    let grown_file = grown.path().join("grown.yaml");
    std::fs::write(&grown_file, yaml).unwrap();
    let shown = gateway.ok(&["namespace", "plan", text(&grown_file)]);
    assert!(
        shown.starts_with("Plan for click-events: update (version 1 → 2)\n  ~ Write RPS    50000 → 40000\n"),
        "{shown}"
    );
    assert!(shown.contains("stays: its data is there"), "{shown}");
    let hash = shown
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("Plan "))
        .unwrap();
    let updated = gateway.ok(&["namespace", "update", text(&grown_file), "--plan", hash]);
    assert_eq!(updated, "✓ Namespace click-events updated: version 2\n");

    // What a create was given is said next to its four lines.
    let output = gateway.run(&["namespace", "create", &example("user-sessions")]);
    let notes = String::from_utf8(output.stderr).unwrap();
    let reader = "may read and nothing else: session-report (write permissions: [read, write] for more)";
    assert!(notes.contains(reader), "{notes}");
    assert!(!notes.contains("because"), "there was no choice: {notes}");
    // What cannot be planned is refused as a create is.
    let bad = folder(&[("bad", "durability: strng")]);
    let refused = gateway.no(&["namespace", "plan", text(&bad.path().join("bad.yaml"))]);
    assert!(refused.contains("did you mean \"strong\"?"), "{refused}");
    gateway.stop();
}

#[test]
fn a_folder_is_applied_pruned_with_brakes_and_exported() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), "sqlite", 1);
    let files = folder(&[("a", "write_rps: 100"), ("b", "retention: 7days"), ("c", "")]);
    let dir = text(files.path()).to_owned();
    let ok = |more: &[&str]| gateway.ok(&[&["apply", "-f", &*dir], more].concat());
    let run = |more: &[&str]| gateway.run(&[&["apply", "-f", &*dir], more].concat());
    let err = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();

    // A file that is wrong keeps all others from being touched.
    write(files.path(), "d", "durability: strng");
    let refused = run(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("nothing was done: 1 of 4 files are refused"),
        "{}",
        err(&refused)
    );
    assert!(err(&refused).contains("did you mean \"strong\"?"));
    std::fs::remove_file(files.path().join("d.yaml")).unwrap();

    let shown = ok(&["--dry-run"]);
    assert!(
        shown.ends_with("Plan: 3 to create, 0 to update, 0 to delete, 0 as they are\n"),
        "{shown}"
    );
    assert_eq!(run(&["--dry-run", "--exit-code"]).status.code(), Some(1));
    assert_eq!(gateway.ok(&["namespace", "list"]), "");
    let applied = ok(&[]);
    assert!(
        applied.contains("✓ Namespace a created: SQLite table \"a\"\n"),
        "{applied}"
    );
    assert_eq!(
        ok(&["--dry-run", "--exit-code"]),
        "Plan: 0 to create, 0 to update, 0 to delete, 3 as they are\n"
    );

    // More rate is given at once; a shorter life of data is asked for.
    write(files.path(), "a", "write_rps: 200");
    let applied = ok(&[]);
    assert!(
        applied.contains("~ a: version 1 → 2\n    ~ Write RPS    100 → 200\n"),
        "{applied}"
    );
    write(files.path(), "b", "retention: 1day");
    let refused = run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("add --yes"), "{}", err(&refused));
    assert!(ok(&["--yes"]).contains("✓ Namespace b updated: version 2\n"));

    // Pruning one of three is a tenth, but at least one; two are too many, and all are never right.
    std::fs::remove_file(files.path().join("c.yaml")).unwrap();
    std::fs::remove_file(files.path().join("b.yaml")).unwrap();
    let refused = run(&["--prune", "--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused)
            .contains("--prune would delete 2 of 3 namespaces with all their data (b, c); nothing was done"),
        "{}",
        err(&refused)
    );
    std::fs::remove_file(files.path().join("a.yaml")).unwrap();
    let refused = run(&["--prune", "--yes"]);
    assert_eq!(
        refused.status.code(),
        Some(2),
        "an empty directory is a mistake: {}",
        err(&refused)
    );
    write(files.path(), "a", "write_rps: 200");
    let applied = ok(&["--prune", "--prune-allow", "2", "--yes"]);
    assert!(applied.contains("- b: deleted with all its data\n"), "{applied}");
    assert!(
        applied.ends_with("✓ Namespace c deleted with all its data\n"),
        "{applied}"
    );

    // What is exported is what is there.
    let out = folder(&[]);
    let out = text(out.path());
    assert_eq!(
        gateway.ok(&["export", "-o", out]),
        format!("✓ 1 namespaces in {out}\n")
    );
    assert_eq!(
        gateway.ok(&["apply", "-f", out, "--prune", "--dry-run", "--exit-code"]),
        "Plan: 0 to create, 0 to update, 0 to delete, 1 as they are\n"
    );
    std::fs::write(Path::new(out).join("a.yaml"), "else").unwrap();
    let refused = gateway.no(&["export", "-o", out]);
    assert!(
        refused.contains("has other contents; nothing was written"),
        "{refused}"
    );
    gateway.ok(&["export", "-o", out, "--force"]);
    gateway.stop();
}

#[test]
fn status_and_metrics_print_the_lines_of_the_guide_from_live_figures() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), "sqlite", 2);
    let files = folder(&[(
        "figures",
        "write_rps: 1000, data_size: 10GB, durability: best-effort",
    )]);
    gateway.ok(&["namespace", "create", text(&files.path().join("figures.yaml"))]);
    let quiet = gateway.ok(&["namespace", "metrics", "figures"]);
    assert_eq!(
        quiet,
        "Latency (P50/P99): no calls in the last minute\nThroughput: 0 writes/sec, 0 reads/sec\n\
         Errors: 0.00% (0 errors in last hour)\nBackend health: healthy\n"
    );
    for id in 0..8 {
        gateway.ok(&["kv", "put", "figures", &format!("id-{id}"), "k", "v"]);
        gateway.ok(&["kv", "get", "figures", &format!("id-{id}"), "k"]);
    }
    let status = gateway.ok(&["namespace", "status", "figures"]);
    let lines: Vec<_> = status.lines().collect();
    assert_eq!(lines.len(), 7, "{status}");
    assert_eq!(
        (lines[0], lines[2], lines[3], lines[6]),
        (
            "Namespace: figures",
            "Backend: SQLite table \"figures\"",
            "Consumers: 0 active",
            "Storage: not measured / 10GB"
        )
    );
    assert!(lines[1].starts_with("Status: "), "{status}");
    assert!(
        lines[4].starts_with("Write RPS: ") && lines[4].ends_with(" (capacity: 1000)"),
        "{status}"
    );
    assert!(
        lines[5].starts_with("Read RPS: ") && lines[5].ends_with(" (no capacity declared)"),
        "{status}"
    );
    // Both shards are counted, whichever took the calls.
    let json = gateway.json(&["namespace", "status", "figures"]);
    assert_eq!(json["calls_last_hour"].as_u64(), Some(16), "{json}");
    assert_eq!(json["errors_last_hour"].as_u64(), Some(0), "{json}");
    let (p50, p99) = (json["p50_seconds"].as_f64(), json["p99_seconds"].as_f64());
    assert!(p50 > Some(0.0) && p99 >= p50, "{json}");
    assert!(json["write_rps"].as_f64() > Some(0.0), "{json}");
    let metrics = gateway.ok(&["namespace", "metrics", "figures"]);
    assert!(
        metrics.starts_with("Latency (P50/P99): ") && metrics.contains("ms / "),
        "{metrics}"
    );
    let cost = gateway.ok(&["namespace", "cost", "figures"]);
    assert!(cost.contains("No read_rps declared, peak "), "{cost}");
    let refused = gateway.no(&["namespace", "status", "nobody"]);
    assert!(
        refused.contains("Namespace \"nobody\" does not exist"),
        "{refused}"
    );
    gateway.stop();
}
