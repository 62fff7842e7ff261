//! Tests of the configuration: precedence, round trip, refusals.

use super::*;

fn file(text: &str) -> Sources {
    Sources {
        file: Some(("prism.yaml".into(), text.into())),
        ..Sources::default()
    }
}

fn refused(sources: &Sources) -> Vec<String> {
    load(sources)
        .expect_err("must be refused")
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn nothing_given_means_the_defaults() {
    let effective = load(&Sources::default()).unwrap();
    assert_eq!(effective.options, ServeOptions::default());
    assert!(effective.origins.iter().all(|origin| *origin == Origin::Default));
}

#[test]
fn sqlite_leaves_a_core_to_its_writer() {
    let shards = |has_sqlite, cores| {
        let cores = NonZeroUsize::new(cores).unwrap();
        default_shards(has_sqlite, cores).get()
    };
    assert_eq!([1, 2, 8, 999].map(|cores| shards(true, cores)), [1, 1, 7, 256]);
    assert_eq!([1, 2, 8, 999].map(|cores| shards(false, cores)), [1, 2, 8, 256]);
    // The default follows a store that is set later, and a number that is set holds for any store.
    let cores = available_cores();
    let memory = load(&file("embedded: memory\n")).unwrap().options;
    assert_eq!(memory.shards, default_shards(false, cores));
    assert_eq!(load(&file("shards: 9\n")).unwrap().options.shards.get(), 9);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let mut sources =
        file("shards: 2\nembedded: memory\nlimits:\n  drain_timeout: 3s\nlog: {level: debug}\n");
    sources.environment = vec![
        ("PRISM_SHARDS".into(), "3".into()),
        ("PRISM_EMBEDDED".into(), String::new()),
        ("HOME".into(), "x".into()),
    ];
    sources.flags = vec![("shards".into(), "4".into(), "--shards".into())];
    let effective = load(&sources).unwrap();
    assert_eq!(effective.options.shards.get(), 4);
    assert_eq!(effective.options.embedded, EmbeddedStore::Memory);
    assert_eq!(effective.options.limits.drain_timeout, Duration::from_secs(3));
    let origin = |path| &effective.origins[KEYS.iter().position(|key| key.path == path).unwrap()];
    assert_eq!(*origin("shards"), Origin::Flag("--shards".into()));
    assert_eq!(
        *origin("limits.drain_timeout"),
        Origin::File("prism.yaml".into(), 4)
    );
    assert_eq!(*origin("log.level"), Origin::File("prism.yaml".into(), 5));
    assert_eq!(*origin("listen"), Origin::Default);
}

#[test]
fn the_printed_configuration_reads_back_as_the_same() {
    let text = "data_dir: \"/tmp/a: #b \\u00e4\\n\"\nlisten: '[::1]:0'\nshards: 7\ndriver: epoll\nembedded: memory\npin_shards: false\n\
                limits: {message_bytes_max: 1500000B, idle_timeout: 90s}\nlog: {level: 'info,prism_core::shard=debug', format: json}\n";
    let effective = load(&file(text)).unwrap();
    assert_eq!(effective.options.data_dir, PathBuf::from("/tmp/a: #b ä\n"));
    let printed = effective.to_yaml();
    let again = load(&file(&printed)).unwrap_or_else(|problems| panic!("{problems:?}\n{printed}"));
    assert_eq!(again.options, effective.options, "{printed}");
    let default = load(&Sources::default()).unwrap();
    assert_eq!(load(&file(&default.to_yaml())).unwrap().options, default.options);
    assert!(
        default
            .to_yaml()
            .contains("\nlisten: 127.0.0.1:8980  # default\n"),
        "{}",
        default.to_yaml()
    );
    assert!(
        default
            .to_yaml()
            .contains("\n  message_bytes_max: 17MiB  # default\n")
    );
}

#[test]
fn bad_values_are_all_reported_with_place_and_suggestion() {
    let mut sources =
        file("shard: 2\nembedded: sqllite\nlimits:\n  drain_timeout: 5\ndrain_timeout: 5s\nlog: loud\n");
    sources.environment = vec![("PRISM_DRIVER".into(), "iouring".into())];
    sources.flags = vec![
        ("listen".into(), "8980".into(), "--listen".into()),
        ("limits.foo".into(), "1".into(), "--set limits.foo".into()),
    ];
    assert_eq!(
        refused(&sources),
        [
            "line 1: prism.yaml: shard: unknown key; `prism config print` lists all (did you mean \"shards\"?)",
            "line 2: prism.yaml: embedded: \"sqllite\" is not known; allowed: sqlite, memory (did you mean \"sqlite\"?)",
            "line 4: prism.yaml: limits.drain_timeout: \"5\" is not a duration; allowed: a number with a unit: ms, s, min, h, \
             days or weeks (write \"5s\")",
            "line 5: prism.yaml: drain_timeout: unknown key; `prism config print` lists all (did you mean \"limits.drain_timeout\"?)",
            "line 6: prism.yaml: log: keys are expected here, not a single value",
            "PRISM_DRIVER: \"iouring\" is not known; allowed: auto, io_uring, epoll (did you mean \"io_uring\"?)",
            "--listen: \"8980\" is not an address with a port; allowed: 127.0.0.1:8980, [::1]:8980, localhost:8980 and the like \
             (write \"127.0.0.1:8980\")",
            "--set limits.foo: unknown key; `prism config print` lists all",
        ]
    );
    assert_eq!(refused(&file("a: b: c\n")).len(), 1, "syntax errors, too");
    assert_eq!(
        refused(&file("shards: [1]\n")),
        ["line 1: prism.yaml: shards: a whole number from 1 to 256 is expected here, not a list"]
    );
    assert!(refused(&file("shards: 1\nshards: 2\n"))[0].contains("stands twice"));
    assert!(refused(&file("log: {level: inof}\n"))[0].contains("did you mean \"info\"?"));
}

#[test]
fn beyond_loopback_needs_a_word_of_consent() {
    let mut sources = file("listen: 0.0.0.0:8980\n");
    let problems = refused(&sources);
    assert!(
        problems[0].contains("there is no TLS") && problems[0].contains("--insecure-listen"),
        "{problems:?}"
    );
    sources.flags = vec![(
        "insecure_listen".into(),
        "true".into(),
        "--insecure-listen".into(),
    )];
    assert_eq!(load(&sources).unwrap().options.listen.port(), 8980);
    let certificates = "tls: {cert_file: a.pem, key_file: b.pem";
    let anybody = refused(&file(&format!("listen: 0.0.0.0:8980\n{certificates}}}\n")));
    assert!(anybody[0].contains("tls.client_ca_file"), "{anybody:?}");
    let known = format!("listen: 0.0.0.0:8980\n{certificates}, client_ca_file: c.pem}}\n");
    assert!(load(&file(&known)).is_ok());
    assert!(load(&file("listen: '[::1]:1'\n")).is_ok());
    assert!(load(&file("listen: 127.9.9.9:1\n")).is_ok());
}

#[test]
fn every_key_has_its_row_and_reads_what_it_shows() {
    let mut options = ServeOptions::default();
    for key in KEYS {
        let shown = (key.show)(&options);
        (key.set)(&mut options, &shown).unwrap_or_else(|problem| panic!("{}: {problem}", key.path));
        assert_eq!(
            key.env,
            format!("PRISM_{}", key.path.to_uppercase().replace('.', "_"))
        );
        assert!(!key.doc.is_empty() && !key.allowed.is_empty());
        assert!(
            (key.set)(&mut options, "\0").is_err(),
            "{} takes anything",
            key.path
        );
    }
    assert_eq!(options, ServeOptions::default());
    // A section in two pieces would be printed twice.
    let mut sections: Vec<_> = KEYS
        .iter()
        .map(|key| key.path.split_once('.').map_or("", |(section, _)| section))
        .collect();
    sections.dedup();
    assert_eq!(
        sections,
        ["", "tls", "identity", "catalog", "limits", "http", "wal", "log"]
    );
}

/// The form that `stack/servers` writes, with a server of each kind that it starts.
const STACK: &str = "# Written by `stack/servers up`: the servers that run on this machine, as stores of the gateway.\nstores:\n\
    \x20 postgres:\n    kind: postgres\n    url: postgresql://prism@127.0.0.1:5432/postgres\n\
    \x20 redis:\n    kind: redis\n    url: redis://127.0.0.1:6379\n\
    \x20 nats:\n    kind: nats\n    url: nats://127.0.0.1:4222\n\
    \x20 kafka:\n    kind: kafka\n    address: 127.0.0.1:9092\n";

#[test]
fn the_stores_of_the_local_stack_are_read_and_kinds_without_a_driver_refused_by_name() {
    let problems = match load(&file(STACK)) {
        Ok(effective) => {
            let kinds: Vec<_> = effective.options.stores.iter().map(|store| store.kind).collect();
            assert_eq!(
                kinds,
                [
                    StoreKind::Postgres,
                    StoreKind::Redis,
                    StoreKind::Nats,
                    StoreKind::Kafka
                ]
            );
            Vec::new()
        }
        Err(problems) => problems,
    };
    let titles = [
        (StoreKind::Postgres, 4),
        (StoreKind::Redis, 7),
        (StoreKind::Nats, 10),
        (StoreKind::Kafka, 13),
    ];
    let missing: Vec<_> = titles
        .iter()
        .filter(|(kind, _)| kind.offers().is_empty())
        .collect();
    assert_eq!(problems.len(), missing.len(), "{problems:?}");
    for (problem, (kind, line)) in problems.iter().zip(missing) {
        assert_eq!(
            (&*problem.field, problem.line, &*problem.suggestion),
            (
                &*format!("prism.yaml: stores.{}.kind", kind.name()),
                *line,
                "take the entry out"
            )
        );
        let wanted = format!(
            "this version has no driver for {}; it has those for memory and sqlite",
            kind.title()
        );
        assert!(problem.description.starts_with(&wanted[..40]), "{problem}");
    }
}

#[test]
fn stores_are_read_and_printed_back_without_their_secrets() {
    let text = "embedded: sqlite\nstores:\n  cache: {kind: memory}\n  second: {kind: memory}\n";
    let effective = load(&file(text)).unwrap();
    let names: Vec<_> = effective
        .options
        .all_stores()
        .into_iter()
        .map(|store| (store.name, store.kind))
        .collect();
    assert_eq!(
        names,
        [
            ("cache".to_owned(), StoreKind::Memory),
            ("second".to_owned(), StoreKind::Memory),
            (EMBEDDED.to_owned(), StoreKind::Sqlite)
        ]
    );
    let printed = effective.to_yaml();
    assert!(
        printed.contains("\nstores:\n  cache:  # from line 3\n    kind: memory\n"),
        "{printed}"
    );
    let again = load(&file(&printed)).unwrap().options;
    assert_eq!(again.all_stores().len(), 3);
    assert!(load(&file("stores:\n")).unwrap().options.stores.is_empty());
    assert!(
        load(&file("embedded: memory\nstores: {disk: {kind: sqlite}}\n"))
            .unwrap()
            .options
            .has_disk()
    );
}

#[test]
fn bad_stores_are_all_reported() {
    let text = "stores:\n  embedded: {kind: memory}\n  Cache: {kind: memory}\n  a: {kind: memry}\n  b: {kind: [memory]}\n\
                \x20 c: {}\n  d: memory\n  e: {kind: memory, url: x}\n  f: {kind: sqlite}\n";
    assert_eq!(
        refused(&file(text)),
        [
            "line 2: prism.yaml: stores.embedded: this name is that of the store that the key `embedded` makes (give this store \
             another name)",
            "line 3: prism.yaml: stores.Cache: this is not a name for a store; allowed: 1 to 63 lower-case letters, digits and \
             hyphens, starting with a letter and not ending with a hyphen",
            "line 4: prism.yaml: stores.a.kind: \"memry\" is no kind of store; allowed: memory, sqlite, postgres, redis, nats, kafka, \
             clickhouse, gremlin, neo4j (did you mean \"memory\"?)",
            "line 5: prism.yaml: stores.b.kind: a kind of store is expected here, not a list",
            "line 6: prism.yaml: stores.c: the key kind is missing; one of memory, sqlite, postgres, redis, nats, kafka, clickhouse, \
             gremlin, neo4j",
            "line 7: prism.yaml: stores.d: keys are expected here, at least `kind`, not a single value",
            "line 8: prism.yaml: stores.e.url: kind memory has no such key; it has none beside kind",
            "line 9: prism.yaml: stores.f.kind: the store embedded is SQLite already, and one file in the data directory serves all \
             its namespaces (take the entry out)",
        ]
    );
    assert_eq!(
        refused(&file("stores: [memory]\n")),
        ["line 1: prism.yaml: stores: names of stores with their keys are expected here, not a list"]
    );
    let many: String = (0..65)
        .map(|number| format!("  s{number}: {{kind: memory}}\n"))
        .collect();
    assert!(refused(&file(&format!("stores:\n{many}")))[0].contains("at most 64 are allowed"));
    let sources = Sources {
        flags: vec![(
            "stores.a.kind".into(),
            "memory".into(),
            "--set stores.a.kind".into(),
        )],
        ..Sources::default()
    };
    assert!(refused(&sources)[0].contains("in the configuration file only"));
}

#[test]
fn a_certificate_and_its_key_come_together() {
    for (text, named, missing) in [
        ("tls: {cert_file: a.pem}", "tls.cert_file", "tls.key_file"),
        ("tls: {key_file: a.pem}", "tls.key_file", "tls.cert_file"),
        (
            "tls: {client_ca_file: a.pem}",
            "tls.client_ca_file",
            "tls.cert_file",
        ),
    ] {
        let problems = refused(&file(text));
        assert!(
            problems[0].starts_with(named) && problems[0].contains(missing),
            "{problems:?}"
        );
    }
    let both = load(&file("tls: {cert_file: a.pem, key_file: b.pem}")).unwrap();
    assert_eq!(both.options.tls.key_file, Some(PathBuf::from("b.pem")));
}
