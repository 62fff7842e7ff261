//! `prism wal`: logs written by the real disk driver, damaged on purpose, read by the real program.

mod log;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use log::{KEY, Log, config, make_lane};
use prism_wal::buffer::BLOCK_BYTES;
use prism_wal::ids::{LaneId, SegmentNumber};
use prism_wal::manifest::manifest_file_name;
use prism_wal::segment::segment_file_name;
use prism_wal::start::StartConfig;
use serde_json::Value;

fn prism(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prism"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the program was built for this test")
}

fn wal(tool: &str, directory: &Path, more: &[&str]) -> Output {
    let directory = directory.to_str().expect("a plain path");
    let unchanged = contents(Path::new(directory));
    let output = prism(&[&["wal", tool, directory], more].concat());
    assert!(
        unchanged == contents(Path::new(directory)),
        "`prism wal {tool}` changed the log"
    );
    output
}

fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return BTreeMap::new();
    };
    let files = entries.map(|entry| entry.expect("a readable directory").path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(path).expect("a readable file")))
        .collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object on each line"))
        .collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn flip_bit(path: &Path, bit: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).expect("our own file");
}

/// The records of a salvage file by LSN: lane, state, payload. Only strong and eventual ones.
fn salvaged(path: &Path) -> Vec<(u64, u64, String, Vec<u8>)> {
    use base64::Engine as _;
    let text = std::fs::read_to_string(path).expect("the file was made");
    let lines = json_lines(&text).into_iter();
    lines
        .filter(|line| line["kind"] == "strong" || line["kind"] == "eventual")
        .map(|line| {
            let number = |name: &str| line[name].as_u64().expect("a number");
            let payload = line["payload"].as_str().expect("text");
            let payload = base64::engine::general_purpose::STANDARD
                .decode(payload)
                .expect("base64");
            assert_eq!(number("target"), 7);
            let state = line["state"].as_str().expect("text").to_owned();
            (number("lane"), number("lsn"), state, payload)
        })
        .collect()
}

#[test]
fn a_healthy_log_is_shown_verified_and_salvaged_whole() {
    let folder = folder();
    let log = folder.path().join("wal");
    let expected = [make_lane(&log, 0, false), make_lane(&log, 1, false)];

    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("✓ lane 0: clean end"), "{}", out(&output));
    assert!(out(&output).contains("✓ lane 1: clean end"), "{}", out(&output));

    let output = wal("inspect", &log, &["--output", "json", "--lane", "1"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let lanes = json_lines(&out(&output));
    let [lane] = lanes.as_slice() else {
        panic!("one lane: {lanes:?}")
    };
    assert_eq!(lane["lane"], 1);
    assert_eq!(lane["verdict"], "clean end");
    assert_eq!(lane["tip"]["epoch"], 2);
    // Two cuts, 45 records, two checkpoints.
    assert_eq!(lane["tip"]["lsn"], 49);
    assert_eq!(
        lane["records"]["good"],
        serde_json::json!({ "strong": 36, "eventual": 9, "checkpoint": 2, "cut": 2 })
    );
    assert_eq!(
        lane["checkpoint"]["cursors"],
        serde_json::json!([{ "target": 7, "lsn": 48 }])
    );
    assert_eq!(lane["losses"], serde_json::json!([]));
    let segments = lane["segments"].as_array().expect("segments");
    let full = segments.iter().filter(|segment| segment["state"] == "full");
    assert!(full.count() >= 2, "{segments:?}");
    let groups: u64 = segments
        .iter()
        .map(|segment| segment["groups"].as_u64().expect("a number"))
        .sum();
    assert_eq!(Some(groups), lane["tip"]["group"].as_u64());
    let blocks = u64::from(config(1, false).group.segment_blocks);
    assert!(
        segments
            .iter()
            .all(|segment| segment["bytes"] == blocks * BLOCK_BYTES as u64)
    );

    let output = wal("inspect", &log, &["--records", "--lane", "0"]);
    let text = out(&output);
    assert_eq!(
        text.lines().filter(|line| line.starts_with("record ")).count(),
        49,
        "{text}"
    );
    for part in [
        "record 2  strong  target 7",
        "manifest  generation",
        "target 7 has up to 48",
        "clear",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }

    let saved = folder.path().join("saved");
    let output = wal("salvage", &log, &["--to", saved.to_str().expect("a plain path")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let found = salvaged(&saved);
    let all: Vec<_> = (0..)
        .zip(&expected)
        .flat_map(|(lane, records)| {
            records
                .iter()
                .map(move |(lsn, payload)| (lane, *lsn, "good".to_owned(), payload.clone()))
        })
        .collect();
    assert_eq!(found, all);
    let mode = std::fs::metadata(&saved)
        .expect("the file was made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "it holds the stores' data");
}

#[test]
fn damage_is_named_exactly_and_everything_else_is_saved() {
    let folder = folder();
    let log = folder.path().join("wal");
    let expected = make_lane(&log, 0, false);
    make_lane(&log, 1, false);
    // Where the record with LSN 9 stands.
    let output = wal("inspect", &log, &["--records", "--output", "json", "--lane", "0"]);
    let lines = json_lines(&out(&output));
    let record = lines.iter().find(|line| line["lsn"] == 9).expect("a record");
    let group = record["group"].as_u64().expect("a number");
    let name = segment_file_name(
        LaneId(0),
        SegmentNumber(record["segment"].as_u64().expect("a number")),
    );
    let path = log.join(name);
    let bytes = std::fs::read(&path).expect("a segment");
    let at = find_group(&bytes, group);
    flip_bit(&path, (at + 200) * 8);

    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 1);
    let text = out(&output);
    assert!(text.contains("✗ lane 0: held, corrupt"), "{text}");
    assert!(
        text.contains(&format!("lost: record 9 (group {group})")),
        "{text}"
    );
    assert!(text.contains("readable behind it: records 10 to 49"), "{text}");
    assert!(text.contains("✓ lane 1: clean end"), "{text}");
    assert!(
        err(&output).contains("1 of 2 lanes held: [0]"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("prism wal salvage"), "{}", err(&output));
    assert_eq!(code(&wal("verify", &log, &["--lane", "1"])), 0);
    let output = wal("verify", &log, &["--lane", "0", "--output", "json"]);
    assert_eq!(
        json_lines(&out(&output))[0]["losses"],
        serde_json::json!([{ "first_group": group, "last_group": group, "first_lsn": 9, "last_lsn": 9 }])
    );

    let saved = folder.path().join("saved");
    let output = wal(
        "salvage",
        &log,
        &["--to", saved.to_str().expect("a plain path"), "--lane", "0"],
    );
    assert_eq!(code(&output), 1);
    let text = err(&output);
    for part in [
        &format!("lane 0: lost: record 9 (group {group})"),
        "wal.on_corruption=continue_and_report",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let found = salvaged(&saved);
    let kept = expected.iter().filter(|(lsn, _)| **lsn != 9);
    let kept: Vec<_> = kept
        .map(|(lsn, payload)| {
            let state = if *lsn < 9 { "good" } else { "behind" };
            (0, *lsn, state.to_owned(), payload.clone())
        })
        .collect();
    assert_eq!(found, kept);
}

/// Byte offset of a group in a segment's bytes.
fn find_group(bytes: &[u8], number: u64) -> usize {
    let blocks = (2..bytes.len() / BLOCK_BYTES).map(|block| block * BLOCK_BYTES);
    let decode = |at: usize| prism_wal::group::GroupHeader::decode(&bytes[at..]).ok();
    blocks
        .into_iter()
        .find(|at| decode(*at).is_some_and(|header| header.group.0 == number))
        .expect("the group is there")
}

#[test]
fn the_verdict_agrees_with_a_start_for_bits_flipped_anywhere() {
    let folder = folder();
    let log = folder.path().join("wal");
    let expected = make_lane(&log, 0, true);
    let whole = contents(&log);
    let files: Vec<_> = whole.keys().cloned().collect();
    let key = key_file(folder.path(), &KEY);
    let key = key.to_str().expect("a plain path");
    let seed = 20_251_122_u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut draw = move |below: usize| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % below
    };
    let mut held = 0;
    for round in 0..40 {
        let path = &files[draw(files.len())];
        let bit = draw(whole[path].len() * 8);
        flip_bit(path, bit);
        let place = format!("round {round}, bit {bit} of {}", path.display());
        let with_key = wal("verify", &log, &["--wal-key-file", key]);
        let without = wal("verify", &log, &[]);
        assert_eq!(
            code(&with_key),
            code(&without),
            "{place}: checksums find what tags find\n{}\n{}",
            out(&with_key),
            out(&without)
        );
        let saved = folder.path().join("saved");
        let salvage = wal(
            "salvage",
            &log,
            &[
                "--to",
                saved.to_str().expect("a plain path"),
                "--wal-key-file",
                key,
            ],
        );
        assert_eq!(code(&with_key), code(&salvage), "{place}");
        for (_, lsn, _, payload) in salvaged(&saved) {
            assert_eq!(expected.get(&lsn), Some(&payload), "{place}: a wrong record");
        }
        if code(&with_key) == 0 {
            assert_eq!(salvaged(&saved).len(), expected.len(), "{place}");
        }
        std::fs::remove_file(&saved).expect("our own file");
        // Last, because a start changes the log.
        let started = Log::start(&log, &config(0, true), 150).map(drop);
        assert_eq!(
            code(&with_key),
            i32::from(started.is_err()),
            "{place}: {started:?}\n{}",
            out(&with_key)
        );
        held += i32::from(started.is_err());
        for entry in contents(&log).into_keys() {
            std::fs::remove_file(entry).expect("our own file");
        }
        for (path, bytes) in &whole {
            std::fs::write(path, bytes).expect("our own file");
        }
    }
    assert!(
        (3..38).contains(&held),
        "both outcomes are met: {held} of 40 held"
    );
}

fn key_file(folder: &Path, key: &[u8]) -> PathBuf {
    let path = folder.join("wal.key");
    std::fs::write(&path, key).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("our own file");
    path
}

#[test]
fn an_encrypted_log_needs_its_key_and_says_what_was_checked_without() {
    let folder = folder();
    let log = folder.path().join("wal");
    let expected = make_lane(&log, 0, true);
    let saved = folder.path().join("saved");
    let saved = saved.to_str().expect("a plain path");

    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("checksums checked"), "{}", out(&output));
    assert!(
        err(&output).contains("a forgery would not be noticed"),
        "{}",
        err(&output)
    );
    let output = wal("inspect", &log, &["--output", "json"]);
    assert_eq!(json_lines(&out(&output))[0]["checked"], "checksums");
    assert_eq!(json_lines(&out(&output))[0]["tip"]["lsn"], 49);
    let output = wal("salvage", &log, &["--to", saved]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("nothing can be salvaged without it"),
        "{}",
        err(&output)
    );
    assert!(!Path::new(saved).exists());

    let key = key_file(folder.path(), &KEY);
    let key = key.to_str().expect("a plain path");
    let output = wal("verify", &log, &["--wal-key-file", key]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("records checked"), "{}", out(&output));
    assert_eq!(err(&output), "");
    let output = wal("salvage", &log, &["--to", saved, "--wal-key-file", key]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(salvaged(Path::new(saved)).len(), expected.len());

    key_file(folder.path(), &[9; 32]);
    for tool in ["verify", "inspect"] {
        let output = wal(tool, &log, &["--wal-key-file", key]);
        assert_eq!(code(&output), 2);
        assert!(
            err(&output).contains("is encrypted under key"),
            "{}",
            err(&output)
        );
    }
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).expect("our own file");
    let output = wal("verify", &log, &["--wal-key-file", key]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("mode 0644") && err(&output).contains("chmod 600"),
        "{}",
        err(&output)
    );
}

#[test]
fn missing_files_and_a_truncated_manifest_hold_the_lane() {
    let folder = folder();
    let log = folder.path().join("wal");
    let expected = make_lane(&log, 0, false);
    let whole = contents(&log);
    let restore = || {
        for (path, bytes) in &whole {
            std::fs::write(path, bytes).expect("our own file");
        }
    };
    let second = log.join(segment_file_name(LaneId(0), SegmentNumber(2)));
    let manifest = log.join(manifest_file_name(LaneId(0)));
    let saved = folder.path().join("saved");
    let salvage = || {
        let output = wal("salvage", &log, &["--to", saved.to_str().expect("a plain path")]);
        assert_eq!(code(&output), 1, "{}", err(&output));
        let found = salvaged(&saved);
        std::fs::remove_file(&saved).expect("our own file");
        for (_, lsn, _, payload) in &found {
            assert_eq!(expected.get(lsn), Some(payload));
        }
        (found.len(), err(&output))
    };

    std::fs::remove_file(&second).expect("it was there");
    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 1);
    assert!(
        out(&output).contains("refused: segment 2 is listed and has no file"),
        "{}",
        out(&output)
    );
    assert!(out(&output).contains("lost: records "), "{}", out(&output));
    let output = wal("inspect", &log, &[]);
    assert_eq!(code(&output), 0);
    assert!(out(&output).contains("missing"), "{}", out(&output));
    let (count, text) = salvage();
    assert!(
        count < expected.len() && count > expected.len() / 3,
        "{count}\n{text}"
    );
    restore();

    std::fs::write(&second, &whole[&second][..10 * BLOCK_BYTES + 100]).expect("our own file");
    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 1);
    assert!(
        out(&output).contains("segment 2 has the wrong length"),
        "{}",
        out(&output)
    );
    salvage();
    restore();

    for length in [0, 100, 70_000] {
        std::fs::write(&manifest, &whole[&manifest][..length]).expect("our own file");
        let output = wal("verify", &log, &[]);
        if code(&output) == 0 {
            // One slot is whole, and it is the newest.
            assert_eq!(length, 70_000);
            continue;
        }
        assert_eq!(code(&output), 1);
        assert!(out(&output).contains("manifest"), "{length}: {}", out(&output));
        let (count, text) = salvage();
        assert_eq!(count, expected.len(), "{text}");
        restore();
    }

    std::fs::remove_file(&manifest).expect("it was there");
    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 1);
    assert!(
        out(&output).contains("the lane's manifest is gone"),
        "{}",
        out(&output)
    );
    assert_eq!(salvage().0, expected.len());
}

#[test]
fn a_write_that_never_completed_is_fine() {
    let folder = folder();
    let log = folder.path().join("wal");
    make_lane(&log, 0, false);
    let output = wal("inspect", &log, &["--output", "json"]);
    let lane = &json_lines(&out(&output))[0];
    let segments = lane["segments"].as_array().expect("segments");
    let active = segments
        .iter()
        .rev()
        .find(|segment| segment["state"] == "written")
        .expect("one is being written");
    let number = SegmentNumber(active["segment"].as_u64().expect("a number"));
    let path = log.join(segment_file_name(LaneId(0), number));
    let mut bytes = std::fs::read(&path).expect("a segment");
    let end = 2 * BLOCK_BYTES + active["bytes_used"].as_u64().expect("a number") as usize;
    // The first sector of the next write, and a sector in its middle.
    bytes[end..end + 512].fill(0x77);
    bytes[end + 1024..end + 1536].fill(0x78);
    std::fs::write(&path, bytes).expect("our own file");
    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 0, "{}", out(&output));
    assert!(out(&output).contains("✓ lane 0: torn"), "{}", out(&output));
    assert!(!out(&output).contains("lost"), "{}", out(&output));
}

#[test]
fn a_log_in_use_is_left_alone() {
    let folder = folder();
    let log = folder.path().join("wal");
    make_lane(&log, 0, false);
    let held = Log::start(&log, &config(0, false), 99).expect("a healthy lane");
    for tool in ["inspect", "verify"] {
        let output = wal(tool, &log, &[]);
        assert_eq!(code(&output), 2);
        assert!(
            err(&output).contains("a gateway has lane 0 of"),
            "{}",
            err(&output)
        );
        assert!(
            err(&output).contains("stop the gateway first"),
            "{}",
            err(&output)
        );
    }
    drop(held);
    assert_eq!(code(&wal("verify", &log, &[])), 0);
}

#[test]
fn wrong_folders_lanes_and_files_are_explained() {
    let folder = folder();
    let log = folder.path().join("wal");
    let output = wal("verify", folder.path(), &[]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("there is no log in"), "{}", err(&output));
    assert!(
        err(&output).contains("no gateway has made a log here"),
        "{}",
        err(&output)
    );
    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("no such file"), "{}", err(&output));
    assert!(!log.exists(), "a tool that only looks makes no folder");

    make_lane(&log, 3, false);
    let output = wal("verify", folder.path(), &[]);
    assert_eq!(code(&output), 2);
    let hint = format!("the folder with the log is {}", log.display());
    assert!(err(&output).contains(&hint), "{}", err(&output));
    let output = wal("verify", &log, &["--lane", "1"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("there is no lane 1"), "{}", err(&output));
    assert!(err(&output).contains("[3]"), "{}", err(&output));

    let inside = log.join("saved");
    let output = wal("salvage", &log, &["--to", inside.to_str().expect("a plain path")]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("it lies in the log's folder"),
        "{}",
        err(&output)
    );
    let existing = folder.path().join("existing");
    std::fs::write(&existing, "mine").expect("a file");
    let output = wal(
        "salvage",
        &log,
        &["--to", existing.to_str().expect("a plain path")],
    );
    assert_eq!(code(&output), 2);
    assert_eq!(std::fs::read(&existing).expect("still there"), b"mine");
}

#[test]
fn help_names_the_exit_codes() {
    for (tool, words) in [
        ("verify", ["Exit codes:", "a lane is held", "--wal-key-file"]),
        ("salvage", ["Exit codes:", "something is lost", "--to"]),
        ("inspect", ["--records", "--lane", "--wal-key-file"]),
    ] {
        let output = prism(&["wal", tool, "--help"]);
        assert_eq!(code(&output), 0);
        for word in words {
            assert!(
                out(&output).contains(word),
                "{word} is missing in\n{}",
                out(&output)
            );
        }
    }
    let output = prism(&["completions", "bash"]);
    assert!(
        out(&output).contains("prism__wal__salvage")
            || out(&output).contains("prism__subcmd__wal__subcmd__salvage")
    );
}

#[test]
fn what_an_operator_gave_up_is_named_and_not_lost_again() {
    let folder = folder();
    let log = folder.path().join("wal");
    let expected = make_lane(&log, 0, false);
    let path = log.join(segment_file_name(LaneId(0), SegmentNumber(1)));
    let at = find_group(&std::fs::read(&path).expect("a segment"), 9);
    flip_bit(&path, (at + 200) * 8);
    assert_eq!(code(&wal("verify", &log, &[])), 1);

    let accepting = StartConfig {
        accept_loss: true,
        ..config(0, false)
    };
    let mut started = Log::start(&log, &accepting, 120).expect("started without what is lost");
    started.idle();
    drop(started);
    let output = wal("verify", &log, &["--output", "json"]);
    assert_eq!(code(&output), 0, "{}", out(&output));
    let lane = &json_lines(&out(&output))[0];
    assert_eq!(lane["losses"], serde_json::json!([]));
    assert_eq!(
        (
            &lane["given_up"][0]["first_lsn"],
            &lane["given_up"][0]["last_lsn"]
        ),
        (&serde_json::json!(9), &serde_json::json!(9)),
        "{lane}"
    );
    let saved = folder.path().join("saved");
    let output = wal("salvage", &log, &["--to", saved.to_str().expect("a plain path")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let found = salvaged(&saved);
    assert_eq!(found.len(), expected.len() - 1);
    assert!(
        found
            .iter()
            .all(|(_, lsn, state, _)| *lsn != 9 && state == "good"),
        "{found:?}"
    );

    // Damage of another place: only that is lost now.
    let bytes = std::fs::read(&path).expect("a segment");
    flip_bit(&path, (find_group(&bytes, 5) + 200) * 8);
    let output = wal("verify", &log, &[]);
    assert_eq!(code(&output), 1);
    assert!(
        out(&output).contains("lost: record 5 (group 5)"),
        "{}",
        out(&output)
    );
    assert!(!out(&output).contains("lost: record 9"), "{}", out(&output));
    assert!(
        out(&output).contains("given up at an earlier start: groups 9..=9, records 9..=9"),
        "{}",
        out(&output)
    );
}
