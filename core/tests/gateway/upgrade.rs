//! Upgrade from earlier releases: a data directory of theirs starts and has lost nothing, and the
//! names on the metrics page stay.
//!
//! `tests/fixtures/data-directory` was left by a gateway with two shards that was killed: three
//! namespaces of one durability each, and a deleted one; the last writes of the strong one are in
//! the log only. `contents.txt` was read from it by that release itself. `data-directory-7` was
//! left by the last release with stores that did not know a log's identity (format 7 of SQLite's
//! file), with messages next to the items; the last ones of both are in the log only.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use prism_codec::proto::prism::{
    common::v1::IdempotencyToken,
    keyvalue::v1::{ScanRequest, ScanResponse},
    pubsub::v1::{Start, StartAt, SubscribeRequest, SubscribeResponse, start_at},
};
use prism_core::config::EmbeddedStore;

use super::{
    log::{http_get, method, put},
    support::Gateway,
};

const NAMESPACES: [&str; 3] = ["drafts", "views", "ledger"];

#[test]
fn a_data_directory_of_the_release_before_has_lost_nothing_with_any_number_of_shards() {
    for fixture in ["data-directory", "data-directory-7"] {
        let expected =
            fs::read_to_string(fixtures().join(fixture).join("contents.txt")).expect("the fixture");
        let is_message = |line: &&str| line.starts_with("events ");
        let messages = expected.lines().filter(is_message).count();
        for shards in 1..=3 {
            let mut gateway = gateway_on(fixture, shards);
            assert_eq!(
                contents(&gateway, messages),
                expected,
                "{fixture}, {shards} shards"
            );
            // The log has an identity now, and the store's positions are that log's.
            gateway.restart(|_| {});
            assert_eq!(
                contents(&gateway, messages),
                expected,
                "{fixture}, {shards} shards, once more"
            );
        }
    }
}

#[test]
fn a_repeat_of_a_call_that_the_release_before_took_gets_its_answer() {
    let gateway = gateway_of_the_release_before(2);
    let token = |text: &str| IdempotencyToken {
        generation_time: None,
        token: text.as_bytes().to_vec(),
    };
    let repeat = put(
        &mut gateway.client(),
        "ledger",
        "late-0",
        "late-0",
        Some(token("late-0")),
    )
    .expect("a put");
    assert_eq!((repeat.lane, repeat.lsn), (2, 16), "the record that it wrote");
    let new = put(
        &mut gateway.client(),
        "ledger",
        "late-0",
        "late-0",
        Some(token("new")),
    )
    .expect("a put");
    assert!(new.lsn > 16, "{new:?}");
}

#[test]
fn the_metrics_page_has_every_name_that_it_had() {
    let gateway = gateway_of_the_release_before(2);
    for namespace in NAMESPACES {
        put(&mut gateway.client(), namespace, "x", "v", None).expect("a put");
    }
    let (_, page) = http_get(&gateway, "/metrics");
    let now: BTreeSet<String> = page.lines().map(name_of).collect();
    let before = fs::read_to_string(fixtures().join("metric-names.txt")).expect("the fixture");
    let missing: Vec<&str> = before.lines().filter(|name| !now.contains(*name)).collect();
    assert!(before.lines().count() > 100 && missing.is_empty(), "{missing:#?}");
}

// --- helpers -------------------------------------------------------------------------------------

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn gateway_of_the_release_before(shards: usize) -> Gateway {
    gateway_on("data-directory", shards)
}

fn gateway_on(fixture: &str, shards: usize) -> Gateway {
    Gateway::start_with(EmbeddedStore::Sqlite, shards, |options| {
        options.wal.segment_bytes = 4 << 20;
        unpack(&fixtures().join(fixture), &options.data_dir);
    })
}

/// Copies a folder, and unpacks files that end in `.gz`.
fn unpack(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the fixture") {
        let entry = entry.expect("a file of the fixture");
        let name = entry.file_name().into_string().expect("a plain name");
        if entry.path().is_dir() {
            unpack(&entry.path(), &to.join(name));
        } else if let Some(name) = name.strip_suffix(".gz") {
            let mut packed = GzDecoder::new(File::open(entry.path()).expect("a file of the fixture"));
            let mut file = File::create(to.join(name)).expect("a new file");
            io::copy(&mut packed, &mut file).expect("the whole file");
        }
    }
}

/// All items and messages of all namespaces, one a line, sorted.
fn contents(gateway: &Gateway, messages: usize) -> String {
    let mut lines = messages_of(gateway, messages);
    for namespace in NAMESPACES {
        let request = ScanRequest {
            namespace: namespace.to_owned(),
            selection: None,
        };
        gateway
            .client()
            .server_streaming(&method("Scan"), &request, |page: ScanResponse| {
                for entry in page.entries {
                    for item in &entry.items {
                        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                        let (key, value) = (text(&item.key), text(&item.value));
                        lines.insert(format!("{namespace} {} {key} {value}\n", entry.id));
                    }
                }
                ControlFlow::Continue(())
            })
            .expect("a scan");
    }
    lines.into_iter().collect()
}

/// The first `count` messages of the namespace `events`.
fn messages_of(gateway: &Gateway, count: usize) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    if count == 0 {
        return lines;
    }
    let request = SubscribeRequest {
        namespace: "events".to_owned(),
        start: Some(StartAt {
            place: Some(start_at::Place::Start(Start::Earliest.into())),
        }),
        ..SubscribeRequest::default()
    };
    let mut received = 0;
    let path = "/prism.pubsub.v1.PubSub/Subscribe";
    let read = gateway
        .client()
        .server_streaming(path, &request, |page: SubscribeResponse| {
            for message in page.messages.iter().filter_map(|one| one.message.as_ref()) {
                received += 1;
                let payload = String::from_utf8_lossy(&message.payload);
                lines.insert(format!("events {} {payload}\n", message.topic));
            }
            match received < count {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
    read.expect("a subscription");
    lines
}

/// The constant part of a line of the metrics page: for a sample, its name and the names of its
/// labels.
fn name_of(line: &str) -> String {
    if line.starts_with('#') {
        return line.to_owned();
    }
    let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
    match sample.split_once('{') {
        None => sample.to_owned(),
        Some((name, labels)) => {
            let labels = labels.trim_end_matches('}').split(',');
            let names: Vec<&str> = labels
                .filter_map(|label| label.split_once('='))
                .map(|(name, _)| name)
                .collect();
            format!("{name}{{{}}}", names.join(","))
        }
    }
}
