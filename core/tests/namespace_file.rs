//! Promises of the namespace file: the files of the user's guide are accepted, and every mistake
//! gets its exact sentence, with place and suggestion, all in one run.

#[path = "namespace_file/invalid.rs"]
mod invalid;

use std::time::Duration;

use prism_core::namespace::file::{FileLimits, parse};
use prism_core::namespace::model::{Compliance, Consistency, Permission, Switch, unsupported};
use prism_core::namespace::{ClientApi, Durability, NamespaceConfig, Problem};

/// The first file of the guide, unchanged.
const GUIDE: &str = "\
# my-namespace.yaml
namespace: user-events
team: analytics-team

# What API do you need?
client_api: pubsub

# What are your requirements?
needs:
  # Capacity estimates
  write_rps: 1000 # Peak writes per second
  read_rps: 5000 # Peak reads per second
  data_size: 10GB # Estimated total data size
  retention: 7days # How long to keep data

  # Reliability requirements
  durability: strong # strong | eventual | best-effort
  ordered: true # Preserve message order
  consistency: eventual # strong | eventual | bounded_staleness

  # Message characteristics
  max_message_size: 100KB # Largest expected message

# Who can access this namespace?
access:
  owners:
    - team: analytics-team
  consumers:
    - service: analytics-api # Read-write
    - service: data-pipeline # Read-only

# Compliance requirements
policies:
  pii_handling: enabled # Enable automatic PII handling
  audit_logging: enabled # Log all access
";

fn accept(text: &str) -> NamespaceConfig {
    parse(text, &FileLimits::default()).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

fn refuse(text: &str) -> Vec<String> {
    let problems = parse(text, &FileLimits::default()).expect_err("the file must be refused");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_file_of_the_guide_is_understood_key_for_key() {
    let config = accept(GUIDE);
    assert_eq!(
        (config.name.as_str(), config.team.as_str()),
        ("user-events", "analytics-team")
    );
    assert_eq!(config.client_api, ClientApi::PubSub);
    let needs = &config.needs;
    assert_eq!((needs.write_rps, needs.read_rps), (Some(1_000), Some(5_000)));
    assert_eq!(
        (needs.data_size, needs.max_message_size),
        (Some(10_000_000_000), Some(100_000))
    );
    assert_eq!(needs.retention, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(needs.durability, Some(Durability::Strong));
    assert_eq!((needs.ordered, needs.replay, needs.ttl), (Some(true), None, None));
    assert_eq!(needs.consistency, Some(Consistency::Eventual));
    assert_eq!(config.access.owners, ["analytics-team"]);
    let consumers: Vec<_> = config
        .access
        .consumers
        .iter()
        .map(|one| (&*one.service, &*one.permissions))
        .collect();
    assert_eq!(
        consumers,
        [
            ("analytics-api", &[Permission::Read][..]),
            ("data-pipeline", &[Permission::Read][..])
        ]
    );
    assert_eq!(config.policies.pii_handling, Some(Switch::Enabled));
    assert_eq!(config.policies.audit_logging, Some(Switch::Enabled));
    assert_eq!(config.policies.compliance, []);
}

#[test]
fn the_examples_are_valid_and_those_of_served_apis_can_be_created() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let config = accept(&std::fs::read_to_string(&path).unwrap());
            assert_eq!(
                path.file_stem().unwrap().to_str(),
                Some(config.name.as_str()),
                "named like its file"
            );
            seen.push((config.name.clone(), unsupported(&config).is_empty()));
        }
    }
    seen.sort();
    let expected = [
        ("click-events", true),
        ("ledger", true),
        ("metrics", false),
        ("order-processing", true),
        ("payments", false),
        ("user-events", true),
        ("user-sessions", true),
    ];
    assert_eq!(seen, expected.map(|(name, works)| (name.to_owned(), works)));
}

#[test]
fn undeclared_durability_is_strong_and_a_missing_team_comes_from_the_owners() {
    let config = accept("namespace: a\nclient_api: keyvalue\naccess: {owners: [{team: web}]}\nneeds:\n");
    assert_eq!(
        (config.durability(), config.team.as_str()),
        (Durability::Strong, "web")
    );
    assert_eq!(unsupported(&config), []);
    let both = accept(
        "namespace: a\nclient_api: queue\nneeds: {retention: 1day}\npolicies: {compliance: [pci, gdpr]}\n",
    );
    assert_eq!(both.policies.compliance, [Compliance::Pci, Compliance::Gdpr]);
}

#[test]
fn one_mistake_one_sentence() {
    const HEAD: &str = "namespace: a\nclient_api: keyvalue\n";
    let cases: &[(&str, &str)] = &[
        // Lines from 3 on come after the head.
        (
            "needs: {write_rps: 100000}",
            "line 3: needs.write_rps: Requested write_rps (100000) exceeds limit (50000) (Contact platform team for capacity increase)",
        ),
        (
            "needs: {write_rps: 0}",
            "line 3: needs.write_rps: \"0\" is not a rate; allowed: a whole number from 1 to 1000000000, operations a second",
        ),
        (
            "needs: {write_rps: 5k}",
            "line 3: needs.write_rps: \"5k\" is not a rate; allowed: a whole number from 1 to 1000000000, operations a second (write \"5000\")",
        ),
        (
            "needs: {read_rps: '5,000'}",
            "line 3: needs.read_rps: \"5,000\" is not a rate; allowed: a whole number from 1 to 1000000000, operations a second (write \"5000\")",
        ),
        (
            "needs: {read_rps: -1}",
            "line 3: needs.read_rps: \"-1\" is not a rate; allowed: a whole number from 1 to 1000000000, operations a second",
        ),
        (
            "needs: {read_rps: [1]}",
            "line 3: needs.read_rps: a whole number is expected here, not a list",
        ),
        (
            "needs: {data_size: 10}",
            "line 3: needs.data_size: \"10\" is not a size; allowed: a number with a unit: B, KB, MB, GB, TB, PB (thousands) or KiB, MiB, GiB, TiB, PiB (1,024s) (write \"10B\" for bytes)",
        ),
        (
            "needs: {data_size: 0GB}",
            "line 3: needs.data_size: \"0GB\" is too small; at least 1B",
        ),
        (
            "needs: {max_message_size: 17MiB}",
            "line 3: needs.max_message_size: Requested max_message_size (17MiB) exceeds limit (16MiB) (split larger values, or store them elsewhere and keep a reference)",
        ),
        (
            "needs: {ttl: 6M}",
            "line 3: needs.ttl: \"6M\" is not a duration; allowed: a number with a unit: ms, s, min, h, days or weeks (write \"6min\" for minutes or \"180days\" for months)",
        ),
        (
            "needs: {max_message_size: 10G}",
            "line 3: needs.max_message_size: \"10G\" is not a size; allowed: a number with a unit: B, KB, MB, GB, TB, PB (thousands) or KiB, MiB, GiB, TiB, PiB (1,024s)",
        ),
        (
            "needs: {write_rps: 100k}",
            "line 3: needs.write_rps: \"100k\" is not a rate; allowed: a whole number from 1 to 1000000000, operations a second",
        ),
        (
            "needs: {retention: 7}",
            "line 3: needs.retention: \"7\" is not a duration; allowed: a number with a unit: ms, s, min, h, days or weeks (write \"7days\" or \"7s\")",
        ),
        (
            "needs: {retention: 1year}",
            "line 3: needs.retention: \"1year\" is not a duration; allowed: a number with a unit: ms, s, min, h, days or weeks (write \"365days\")",
        ),
        (
            "needs: {ttl: 10ms}",
            "line 3: needs.ttl: \"10ms\" is too short; at least 1s",
        ),
        (
            "needs: {durability: strng}",
            "line 3: needs.durability: \"strng\" is not known; allowed: strong, eventual, best-effort (did you mean \"strong\"?)",
        ),
        (
            "needs: {durability: best_effort}",
            "line 3: needs.durability: \"best_effort\" is not known; allowed: strong, eventual, best-effort (did you mean \"best-effort\"?)",
        ),
        (
            "needs:\n  durability:",
            "line 4: needs.durability: durability has no value (give it one, or leave the line out)",
        ),
        (
            "needs: {ordered: yes}",
            "line 3: needs.ordered: \"yes\" is not known; allowed: true, false (did you mean \"true\"?)",
        ),
        (
            "needs: {ordered: true}",
            "line 3: needs.ordered: client_api keyvalue has no message order to keep; ordered is for pubsub, queue and timeseries (leave it out)",
        ),
        (
            "needs: {replay: true}",
            "line 3: needs.replay: client_api keyvalue has no messages to replay; replay is for pubsub, queue and timeseries (leave it out)",
        ),
        (
            "needs:\n  retention: 1day\n  ttl: 2days",
            "line 5: needs.ttl: ttl (2days) is longer than retention (1day), after which the data is gone anyway (write \"1day\" or less, or a longer retention)",
        ),
        (
            "needs: {data_size: 1KB, max_message_size: 1MB}",
            "line 3: needs.max_message_size: max_message_size (1MB) is larger than data_size (1KB), the size of all data",
        ),
        (
            "needs: {write_rsp: 5}",
            "line 3: needs.write_rsp: unknown key; allowed here: write_rps, read_rps, data_size, retention, durability, ordered, consistency, max_message_size, ttl, replay (did you mean \"write_rps\"?)",
        ),
        (
            "durability: strong",
            "line 3: durability: unknown key; allowed here: namespace, team, client_api, needs, access, policies (it belongs below \"needs:\"; check the indentation)",
        ),
        (
            "need: {}",
            "line 3: need: unknown key; allowed here: namespace, team, client_api, needs, access, policies (did you mean \"needs\"?)",
        ),
        (
            "needs: 5",
            "line 3: needs: a map of keys is expected here, not a single value",
        ),
        (
            "team: 'a b'",
            "line 3: team: \"a b\" is not a name; allowed: 1 to 256 bytes without spaces",
        ),
        (
            "team: a\nteam: b",
            "line 4: team: this key stands twice; it was first given in line 3",
        ),
        (
            "access: {owners: web}",
            "line 3: access.owners: a list is expected here, not a single value (write \"- team: my-team\" below it)",
        ),
        (
            "access: {owners: [web]}",
            "line 3: access.owners[0]: a map of keys is expected here, not a single value (write \"team: my-team\")",
        ),
        (
            "access: {owners: [{}]}",
            "line 3: access.owners[0].team: team is missing; it is required",
        ),
        (
            "access:\n  consumers:\n  - service: a\n  - service: b\n    permissions: [raed]",
            "line 7: access.consumers[1].permissions[0]: \"raed\" is not known; allowed: read, write, admin (did you mean \"read\"?)",
        ),
        (
            "access: {consumers: [{service: a, permissions: read}]}",
            "line 3: access.consumers[0].permissions: a list is expected here, not a single value (write \"[read]\")",
        ),
        (
            "access: {consumers: [{service: a, permissions: []}]}",
            "line 3: access.consumers[0].permissions: the list is empty; allowed: read, write, admin",
        ),
        (
            "access: {consumers: [{service: a, permissions: [read, read]}]}",
            "line 3: access.consumers[0].permissions[1]: this stands twice in the list (leave one of them out)",
        ),
        (
            "access: {consumers: [{service: a}, {service: a}]}",
            "line 3: access.consumers[1]: service \"a\" stands twice (put its permissions into one entry)",
        ),
        (
            "policies: {pii_handling: true}",
            "line 3: policies.pii_handling: \"true\" is not known; allowed: enabled, disabled (did you mean \"enabled\"?)",
        ),
        (
            "policies: {compliance: hippa}",
            "line 3: policies.compliance: \"hippa\" is not known; allowed: pci, hipaa, gdpr, sox (did you mean \"hipaa\"?)",
        ),
        (
            "policies: {compliance: sox, audit_logging: disabled}",
            "line 3: policies.audit_logging: compliance sox demands an audit trail (write \"enabled\" or leave it out)",
        ),
        (
            "policies: {compliance: gdpr, pii_handling: disabled}\nneeds: {retention: 1day}",
            "line 3: policies.pii_handling: compliance gdpr demands that personal data is handled (write \"enabled\" or leave it out)",
        ),
        (
            "team: &a x",
            "line 3: team: anchors (&name) are not allowed; write the value out where it is needed",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(refuse(&format!("{HEAD}{lines}\n")), [*expected], "{lines}");
    }
}

#[test]
fn whole_files_that_are_none() {
    assert_eq!(
        refuse(""),
        ["line 1: the file is empty; it needs at least namespace and client_api"]
    );
    assert_eq!(
        refuse("- a\n"),
        ["line 1: the file must be a map of keys such as \"namespace: my-namespace\", not a list"]
    );
    let missing = refuse("team: a\n");
    assert_eq!(
        missing,
        [
            "line 1: namespace: namespace is missing; it is required",
            "line 1: client_api: client_api is missing; it is required"
        ]
    );
    assert_eq!(
        refuse("namespace: User_Events\nclient_api: kv\n"),
        [
            "line 1: namespace: \"User_Events\" is not a name for a namespace; allowed: 1 to 63 lower-case letters, digits and \
             hyphens, starting with a letter and not ending with a hyphen (did you mean \"user-events\"?)",
            "line 2: client_api: \"kv\" is not known; allowed: keyvalue, pubsub, queue, reader, transact, timeseries, graph",
        ]
    );
    let transact = refuse("namespace: a\nclient_api: transact\nneeds: {durability: best-effort, ttl: 1h}\n");
    assert_eq!(transact.len(), 2);
    assert!(
        transact
            .iter()
            .any(|problem| problem
                .contains("is none; client_api transact needs durability strong or eventual"))
    );
    let best = refuse(
        "namespace: a\nclient_api: pubsub\nneeds: {durability: best-effort, consistency: strong, replay: true}\n",
    );
    assert!(
        best.iter()
            .any(|problem| problem.contains("reads cannot be strongly consistent")),
        "{best:?}"
    );
    assert!(
        best.iter()
            .any(|problem| problem.contains("replay needs a retention")),
        "{best:?}"
    );
    assert!(refuse("namespace: a\n  b: c\n")[0].contains("not YAML, at line 2, column "));
    assert!(
        refuse(&format!("namespace: a\n#{}\n", "x".repeat(64 << 10)))[0]
            .contains("at most 65536 (64 KiB) are allowed")
    );
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = "\
namespace: user-events
client_api: pubsub
needs:
  write_rps: many
  durability: none
  retention: 7
colour: red
acess: {}
";
    let lines: Vec<_> = refuse(text)
        .iter()
        .map(|problem| problem.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "line 4 needs.write_rps",
            "line 5 needs.durability",
            "line 6 needs.retention",
            "line 7 colour",
            "line 8 acess"
        ]
    );
}

#[test]
fn no_mutation_of_a_file_panics() {
    // Seeded, so a failure repeats: the state is a function of the round.
    let alphabet = b" \n:-[]{}\"'&*!#,?x09~<\xC3";
    for round in 0..3_000_u64 {
        let mut state = round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bytes = GUIDE.as_bytes().to_vec();
        for _ in 0..1 + next() % 8 {
            let at = next() as usize % bytes.len();
            bytes[at] = alphabet[next() as usize % alphabet.len()];
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = parse(&text, &FileLimits::default()) {
            assert!(!problems.is_empty(), "round {round}: refused without a reason");
        }
    }
}

/// The file with the faulty field set to the value that the problem suggests; `None` without a
/// suggestion.
fn follow(text: &str, problem: &Problem) -> Option<(String, String)> {
    let suggested = problem.suggestion.split('"').nth(1)?;
    let line = text.lines().nth(problem.line.checked_sub(1)? as usize)?;
    let key = problem.field.rsplit('.').next().unwrap_or_default();
    let (field, mended) = if problem.description.starts_with("unknown key") {
        let home = problem.field.strip_suffix(key).unwrap_or_default();
        (
            format!("{home}{suggested}"),
            line.replacen(&format!("{key}:"), &format!("{suggested}:"), 1),
        )
    } else {
        let start = line.find(&format!("{key}: ")).map(|at| at + key.len() + 2)?;
        let end = line[start..].find([',', '}']).map_or(line.len(), |at| start + at);
        (
            problem.field.clone(),
            format!("{}{suggested}{}", &line[..start], &line[end..]),
        )
    };
    let lines: Vec<_> = text
        .lines()
        .enumerate()
        .map(|(index, other)| {
            if index + 1 == problem.line as usize {
                &mended
            } else {
                other
            }
        })
        .collect();
    Some((field, lines.join("\n") + "\n"))
}

#[test]
fn what_is_suggested_is_not_refused_next() {
    const NUMBERS: [&str; 9] = ["0", "1", "0.5", "7", "16", "100", "3000", "70000", "99999999999"];
    const UNITS: [&str; 18] = [
        "", "B", "K", "k", "M", "m", "G", "T", "P", "mb", "gigs", "s", "dayz", "w", "months", "y", "years",
        "parsecs",
    ];
    let heads = ["keyvalue", "pubsub", "queue"].map(|api| format!("namespace: a\nclient_api: {api}\n"));
    let scalars = NUMBERS
        .iter()
        .flat_map(|number| UNITS.map(|unit| format!("{number}{unit}")));
    let mut lines: Vec<String> = scalars
        .flat_map(|value| {
            [
                "write_rps",
                "read_rps",
                "data_size",
                "max_message_size",
                "retention",
                "ttl",
            ]
            .map(|key| format!("needs: {{{key}: {value}}}"))
        })
        .collect();
    lines.extend(
        [
            "needs: {ttl: 1h, tttl: 2h}",
            "needs: {write_rsp: 5, read_rsp: 5}",
            "needs:\nneed: {}",
            "needs: {replay: true, ttl: 30days}",
            "needs: {retention: 1day, ttl: 2days}",
            "access: {consumers: [{service: a, permissions: [read, raed]}]}",
            "policies: {pii_handling: true, compliance: hippa}",
        ]
        .map(str::to_owned),
    );
    let mut followed = 0;
    for text in heads
        .iter()
        .flat_map(|head| lines.iter().map(move |line| format!("{head}{line}\n")))
    {
        for problem in parse(&text, &FileLimits::default()).err().unwrap_or_default() {
            let Some((field, mended)) = follow(&text, &problem) else {
                continue;
            };
            followed += 1;
            let again = parse(&mended, &FileLimits::default()).err().unwrap_or_default();
            let again: Vec<_> = again
                .iter()
                .filter(|next| next.field == field)
                .map(ToString::to_string)
                .collect();
            // A field that the API does not have is reported as such, whatever its value.
            assert!(
                again.iter().all(|next| next.contains("client_api")),
                "{problem}\nled to {again:?} in\n{mended}"
            );
        }
    }
    assert!(followed > 300, "only {followed} suggestions were followed");
    let example = refuse("namespace: a\nclient_api: queue\nneeds: {replay: true, ttl: 30days}\n");
    assert!(example[0].contains("for example 30days"), "{example:?}");
}

#[test]
fn a_value_is_promised_only_as_large_as_the_gateway_takes_it() {
    let file = |durability: &str, size: &str| {
        format!(
            "namespace: a\nclient_api: keyvalue\nneeds: {{durability: {durability}, max_message_size: {size}}}\n"
        )
    };
    // A gateway that accepts messages of 64 MiB still has stores that accept values of 16 MiB.
    let wide = FileLimits::of_gateway(50_000, 64 << 20, 64 << 20);
    assert!(parse(&file("strong", "16MiB"), &wide).is_ok());
    let refused = parse(&file("best-effort", "32MiB"), &wide).unwrap_err();
    assert_eq!(
        refused[0].description,
        "Requested max_message_size (32MiB) exceeds limit (16MiB)"
    );
    // Small segments of the log bound logged values, and nothing else.
    let small = FileLimits::of_gateway(50_000, 17 << 20, 4 << 20);
    assert!(parse(&file("best-effort", "16MiB"), &small).is_ok());
    for durability in ["strong", "eventual"] {
        let refused = parse(&file(durability, "8MB"), &small).unwrap_err();
        assert_eq!(
            refused[0].to_string(),
            format!(
                "line 3: needs.max_message_size: Requested max_message_size (8MB) exceeds limit (4088KiB) of durability \
                 {durability}, whose writes go through the log (split larger values, or store them elsewhere and keep a \
                 reference)"
            )
        );
        assert!(
            parse(&file(durability, "4088KiB"), &small).is_ok(),
            "the limit itself is allowed"
        );
    }
}

#[test]
fn the_schema_of_the_documents_is_that_of_the_table_of_keys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/namespace.schema.json");
    let written = std::fs::read_to_string(path).expect("the schema is part of the documents");
    assert_eq!(
        written,
        prism_core::namespace::schema::schema_text(),
        "it is stale: prism namespace schema > docs/namespace.schema.json"
    );
}
