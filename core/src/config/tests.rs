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
    let shards = |embedded, cores| {
        let cores = NonZeroUsize::new(cores).unwrap();
        default_shards(embedded, cores).get()
    };
    assert_eq!(
        [1, 2, 8, 999].map(|cores| shards(EmbeddedStore::Sqlite, cores)),
        [1, 1, 7, 256]
    );
    assert_eq!(
        [1, 2, 8, 999].map(|cores| shards(EmbeddedStore::Memory, cores)),
        [1, 2, 8, 256]
    );
    // The store may be named after the shards' default is known, and the shards whatever the store.
    let cores = available_cores();
    let memory = load(&file("embedded: memory\n")).unwrap().options;
    assert_eq!(memory.shards, default_shards(EmbeddedStore::Memory, cores));
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
        problems[0].contains("neither TLS nor authentication") && problems[0].contains("--insecure-listen"),
        "{problems:?}"
    );
    sources.flags = vec![(
        "insecure_listen".into(),
        "true".into(),
        "--insecure-listen".into(),
    )];
    assert_eq!(load(&sources).unwrap().options.listen.port(), 8980);
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
    assert_eq!(sections, ["", "limits", "http", "wal", "log"]);
}
