//! Promises of the SQLite store to a log in front of it: a crash leaves a batch and its positions
//! or neither, positions never move back, records that cannot be applied are kept within bounds,
//! and files of older formats are accepted.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use prism_backends::sqlite::{self, DeadLetter, Options, OwnedDeadLetter, Parts, Reader, Writer};
use prism_backends::{
    Expected, GetQuery, ItemRef, LogId, LogPosition, Mutation, NamespaceId, Operation, Outcome, OwnedItem,
    PredicateRef, Selection, StoreError, UnixMillis, Version, limits,
};
use rusqlite::{OptionalExtension, params};

const SPACE: NamespaceId = NamespaceId(7);
const OTHER: NamespaceId = NamespaceId(8);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn open(path: &Path) -> Parts {
    sqlite::open(path, Options::default()).expect("a store")
}

const LOG: LogId = LogId(7);

fn at(lane: u32, namespace: NamespaceId, lsn: u64) -> LogPosition {
    LogPosition {
        log: LOG,
        lane,
        namespace,
        lsn,
    }
}

fn put_at(writer: &mut Writer, id: &str, version: i64, value: &[u8], positions: &[LogPosition]) -> Outcome {
    let items = [ItemRef {
        key: b"k",
        value,
        expires_at: None,
        compression: 0,
    }];
    let mutation = Mutation {
        namespace: SPACE,
        id,
        version: Version::new(version, b"t"),
        at: NOW,
        digest: None,
        operation: Operation::Put(&items),
    };
    let mut outcomes = Vec::new();
    writer
        .apply_at(&[mutation], positions, &mut outcomes)
        .expect("a batch");
    outcomes.remove(0)
}

fn value(reader: &Reader, id: &str) -> Option<Vec<u8>> {
    let query = GetQuery {
        namespace: SPACE,
        id,
        predicate: PredicateRef::All,
        selection: Selection::default(),
    };
    let mut found = Vec::<OwnedItem>::new();
    assert_eq!(reader.get(&query, NOW, &mut found), Ok(None));
    found.pop().map(|item| item.value)
}

#[test]
fn positions_never_move_back_and_outlive_a_close() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let mut outcomes = vec![Outcome::Applied];
    {
        let Parts { mut writer, .. } = open(&path);
        writer.create_namespace(SPACE).expect("a namespace");
        assert_eq!(writer.positions(), Ok(Vec::new()));
        put_at(&mut writer, "id", 1, b"1", &[at(2, SPACE, 10), at(1, OTHER, 5)]);
        let some = [at(2, SPACE, 9), at(1, OTHER, 6), at(1, SPACE, 0)];
        writer
            .apply_at(&[], &some, &mut outcomes)
            .expect("positions alone");
        assert_eq!(outcomes, [], "one outcome for each mutation");
        // Twice in one call: the greater counts, wherever it stands.
        let twice = [at(3, SPACE, 4), at(3, SPACE, 3)];
        writer.apply_at(&[], &twice, &mut outcomes).expect("positions");
    }
    let Parts { mut writer, .. } = open(&path);
    let all = [
        at(1, SPACE, 0),
        at(1, OTHER, 6),
        at(2, SPACE, 10),
        at(3, SPACE, 4),
    ];
    assert_eq!(writer.positions(), Ok(all.to_vec()));
    writer.forget_lane(LOG, 1).expect("a stream");
    writer.forget_lane(LOG, 77).expect("no stream");
    assert_eq!(writer.positions(), Ok(all[2..].to_vec()));
}

#[test]
fn a_batch_whose_position_is_reached_is_not_applied_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let Parts {
        mut writer, readers, ..
    } = open(&path);
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    let swap = |id, version| Mutation {
        namespace: SPACE,
        id,
        version: Version::new(version, b"t"),
        at: NOW,
        digest: None,
        operation: Operation::CompareAndSwap {
            key: b"k",
            expected: Expected::Absent,
            replacement: Some(ItemRef {
                key: b"k",
                value: b"swapped",
                expires_at: None,
                compression: 0,
            }),
        },
    };
    let batch = [swap("taken", 1), swap("taken", 2), swap("", 3)];
    let mut first = Vec::new();
    writer
        .apply_at(&batch, &[at(1, SPACE, 3)], &mut first)
        .expect("a batch");
    assert!(matches!(
        first[..],
        [
            Outcome::Swapped(Some(_)),
            Outcome::NotSwapped(Some(_)),
            Outcome::Refused(_)
        ]
    ));
    put_at(&mut writer, "id", 1, b"v", &[at(1, SPACE, 4)]);
    // The rows left by the batches are removed, so that a second application would show.
    let other = rusqlite::Connection::open(&path).expect("the file");
    other.execute_batch("DELETE FROM item").expect("no items");
    let mut again = Vec::new();
    writer
        .apply_at(&batch, &[at(1, SPACE, 3)], &mut again)
        .expect("the batch again, as after a commit that was reported as failed");
    assert_eq!(again[0], Outcome::Swapped(None), "the first verdict");
    // The item that is shown is gone, so no version names it any more.
    let mut expected = first[1..].to_vec();
    if let Outcome::NotSwapped(Some(found)) = &mut expected[0] {
        assert!(found.version.take().is_some());
    }
    assert_eq!(again[1..], expected, "the first verdicts");
    assert_eq!(
        put_at(&mut writer, "id", 1, b"v", &[at(1, SPACE, 4)]),
        Outcome::Applied
    );
    assert_eq!((value(&reader, "taken"), value(&reader, "id")), (None, None));
    // The same numbers in another log are other records.
    let of_another_log = LogPosition {
        log: LogId(8),
        ..at(1, SPACE, 4)
    };
    put_at(&mut writer, "id", 2, b"w", &[of_another_log]);
    assert_eq!(value(&reader, "id").as_deref(), Some(&b"w"[..]));
    assert_eq!(writer.positions(), Ok(vec![at(1, SPACE, 4), of_another_log]));
    writer.forget_log(LogId(8)).expect("a log");
    assert_eq!(writer.positions(), Ok(vec![at(1, SPACE, 4)]));
}

#[test]
fn refused_mutations_hold_no_position_and_refused_positions_hold_the_batch() {
    let directory = tempfile::tempdir().expect("a directory");
    let Parts {
        mut writer, readers, ..
    } = open(&directory.path().join("items.db"));
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    let outcome = put_at(&mut writer, "", 1, b"v", &[at(1, SPACE, 1)]);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(writer.positions(), Ok(vec![at(1, SPACE, 1)]));

    let items = [ItemRef {
        key: b"k",
        value: b"v",
        expires_at: None,
        compression: 0,
    }];
    let mutation = Mutation {
        namespace: SPACE,
        id: "id",
        version: Version::new(1, b"t"),
        at: NOW,
        digest: None,
        operation: Operation::Put(&items),
    };
    let mut outcomes = Vec::new();
    let beyond = [at(1, SPACE, 2), at(1, OTHER, 1 << 63)];
    let error = writer
        .apply_at(&[mutation], &beyond, &mut outcomes)
        .expect_err("no such position");
    assert!(matches!(error, StoreError::InvalidArgument { .. }), "{error:?}");
    assert_eq!(value(&reader, "id"), None);
    assert_eq!(writer.positions(), Ok(vec![at(1, SPACE, 1)]));
}

/// Cuts the write-ahead file at every place, as a crash may leave it: the items that are there are
/// those of the position.
#[test]
fn a_crash_leaves_a_batch_and_its_position_or_neither() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let Parts {
        mut writer,
        mut checkpointer,
        ..
    } = open(&path);
    writer.create_namespace(SPACE).expect("a namespace");
    put_at(&mut writer, "0", 1, b"0", &[at(1, SPACE, 0)]);
    checkpointer.checkpoint().expect("a checkpoint");
    let filler = vec![9; 1_500];
    for number in 1..=12_u64 {
        let last = number == 7;
        if last {
            let letter = DeadLetter {
                position: at(1, SPACE, number),
                reason: "it is the seventh",
                record: &filler,
            };
            writer.bury(&letter, NOW).expect("a burial");
        } else {
            put_at(
                &mut writer,
                &number.to_string(),
                1,
                &filler,
                &[at(1, SPACE, number)],
            );
        }
    }
    let database = std::fs::read(&path).expect("the file");
    let wal = std::fs::read(path.with_extension("db-wal")).expect("its write-ahead file");
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..=wal.len()).step_by(1_037).chain([wal.len()]) {
        let crashed = tempfile::tempdir().expect("a directory");
        let path = crashed.path().join("items.db");
        std::fs::write(&path, &database).expect("a copy");
        std::fs::write(path.with_extension("db-wal"), &wal[..cut]).expect("a copy");
        let Parts { writer, readers, .. } = open(&path);
        let reader = readers.open().expect("a reader");
        let positions = writer.positions().expect("positions");
        let [LogPosition { lsn: position, .. }] = positions[..] else {
            panic!("cut at {cut}: {positions:?}");
        };
        for number in 0..=12 {
            let is_there = value(&reader, &number.to_string()).is_some();
            assert_eq!(
                is_there,
                number <= position && number != 7,
                "cut at {cut}: {number} of {position}"
            );
        }
        let letters = writer.dead_letters(None, 0, 10).expect("letters");
        assert_eq!(letters.len(), usize::from(position >= 7), "cut at {cut}");
        seen.insert(position);
    }
    assert!(seen.len() > 10 && seen.contains(&12), "{seen:?}");
}

#[test]
fn dead_letters_are_numbered_listed_and_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let Parts { mut writer, .. } = open(&directory.path().join("items.db"));
    let letter = |namespace, position, record| DeadLetter {
        position: at(4, namespace, position),
        reason: "too odd",
        record,
    };
    let first = writer.bury(&letter(SPACE, 10, b"one"), NOW).expect("a burial");
    let second = writer
        .bury(&letter(OTHER, 11, b"two"), NOW.plus(1))
        .expect("a burial");
    let third = writer
        .bury(&letter(SPACE, 12, b""), NOW.plus(2))
        .expect("a burial");
    assert!(first > 0 && first < second && second < third);
    assert_eq!(writer.positions(), Ok(vec![at(4, SPACE, 12), at(4, OTHER, 11)]));
    assert_eq!(
        writer.bury(&letter(OTHER, 11, b"two"), NOW.plus(9)),
        Ok(second),
        "the same again"
    );
    let kept = OwnedDeadLetter {
        number: second,
        position: at(4, OTHER, 11),
        time: NOW.plus(1),
        reason: "too odd".to_owned(),
        record: b"two".to_vec(),
    };
    assert_eq!(writer.dead_letter(second), Ok(Some(kept)));
    assert_eq!(writer.dead_letter(0), Ok(None));
    assert_eq!(writer.dead_letter(u64::MAX), Ok(None));
    let numbers = |writer: &Writer, namespace, after, limit| -> Vec<u64> {
        let letters = writer.dead_letters(namespace, after, limit).expect("letters");
        letters.iter().map(|letter| letter.number).collect()
    };
    assert_eq!(numbers(&writer, None, 0, 2), [first, second]);
    assert_eq!(numbers(&writer, None, second, 2), [third]);
    assert_eq!(numbers(&writer, None, third, 2), [0_u64; 0]);
    assert_eq!(numbers(&writer, None, u64::MAX, u32::MAX), [0_u64; 0]);
    assert_eq!(numbers(&writer, Some(SPACE), 0, 9), [first, third]);
    assert_eq!(numbers(&writer, Some(SPACE), first, 9), [third]);
    assert_eq!(writer.dead_letter_counts(), Ok(vec![(SPACE, 2), (OTHER, 1)]));

    assert_eq!(writer.drop_dead_letter(third), Ok(true));
    assert_eq!(writer.drop_dead_letter(third), Ok(false));
    let fourth = writer.bury(&letter(SPACE, 13, b"four"), NOW).expect("a burial");
    assert!(fourth > third, "no number is used twice");

    let long = "ä".repeat(limits::DEAD_LETTER_REASON_BYTES_MAX);
    let wordy = DeadLetter {
        reason: &long[..long.len() - 2],
        ..letter(SPACE, 14, b"r")
    };
    let number = writer.bury(&wordy, NOW).expect("a burial");
    let kept = writer.dead_letter(number).expect("letters").expect("a letter");
    assert_eq!(kept.reason.len(), limits::DEAD_LETTER_REASON_BYTES_MAX);
    assert!(long.starts_with(&kept.reason));
}

#[test]
fn a_listing_is_bounded_in_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let Parts { mut writer, .. } = open(&directory.path().join("items.db"));
    let record = vec![1; 3 << 20];
    for position in 1..=3 {
        let letter = DeadLetter {
            position: at(1, SPACE, position),
            reason: "large",
            record: &record,
        };
        assert_eq!(writer.bury(&letter, NOW), Ok(position));
    }
    for after in 0..3 {
        let letters = writer.dead_letters(None, after, 10).expect("letters");
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].number, after + 1);
    }
}

#[test]
fn dead_letters_are_bounded_for_a_namespace_and_in_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    fn letter(namespace: NamespaceId, position: u64, record: &[u8]) -> DeadLetter<'_> {
        DeadLetter {
            position: at(1, namespace, position),
            reason: "",
            record,
        }
    }
    let is_full = |result: Result<u64, StoreError>| matches!(result, Err(StoreError::Full { .. }));
    let share = limits::DEAD_LETTERS_PER_NAMESPACE_MAX as u64;
    {
        let Parts { mut writer, .. } = open(&path);
        for position in 1..=share {
            writer
                .bury(&letter(SPACE, position, b"r"), NOW)
                .expect("a burial");
        }
        assert!(is_full(writer.bury(&letter(SPACE, share + 1, b"r"), NOW)));
        assert_eq!(
            writer.positions(),
            Ok(vec![at(1, SPACE, share)]),
            "nor did it move"
        );
        writer
            .bury(&letter(OTHER, 1, b"r"), NOW)
            .expect("room for others");
        writer.drop_dead_letter(1).expect("a drop");
        writer
            .bury(&letter(SPACE, share + 1, b"r"), NOW)
            .expect("room again");
        // A few large ones fill a share too.
        let large = NamespaceId(9);
        let record = vec![1; 16 << 20];
        for position in 1..=4 {
            writer
                .bury(&letter(large, position, &record), NOW)
                .expect("a burial");
        }
        assert!(is_full(writer.bury(&letter(large, 5, b""), NOW)));
    }
    let connection = rusqlite::Connection::open(&path).expect("the file");
    let filled = connection.execute(
        "INSERT INTO dead_letter (stream, namespace, position, time_ms, reason, record)
            WITH RECURSIVE number (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM number WHERE value < ?1)
            SELECT 1, 100 + value % 50, value, 0, '', x'' FROM number",
        [limits::DEAD_LETTERS_MAX as i64 - share as i64 - 6],
    );
    assert_eq!(
        filled.expect("letters"),
        limits::DEAD_LETTERS_MAX - share as usize - 6
    );
    drop(connection);
    let Parts { mut writer, .. } = open(&path);
    writer.bury(&letter(OTHER, 2, b"r"), NOW).expect("the last one");
    assert!(is_full(writer.bury(&letter(OTHER, 3, b"r"), NOW)));
}

#[test]
fn the_letters_of_a_dropped_namespace_go_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let Parts { mut writer, .. } = open(&directory.path().join("items.db"));
    writer.create_namespace(SPACE).expect("a namespace");
    let letter = |namespace, position| DeadLetter {
        position: at(1, namespace, position),
        reason: "",
        record: b"r",
    };
    for position in 1..=40 {
        writer.bury(&letter(SPACE, position), NOW).expect("a burial");
    }
    let kept = writer.bury(&letter(OTHER, 1), NOW).expect("a burial");
    writer.drop_namespace(SPACE).expect("a drop");
    assert_eq!(writer.dead_letter_counts(), Ok(vec![(OTHER, 1)]), "at once");
    assert_eq!(writer.dead_letter(1), Ok(None));
    assert_eq!(writer.dead_letters(Some(SPACE), 0, 9), Ok(Vec::new()));
    assert_eq!(writer.dead_letters(None, 0, 9).expect("letters").len(), 1);
    let mut removed = 0;
    loop {
        let sweep = writer.sweep(NOW, 100).expect("a sweep");
        removed += sweep.removed;
        if !sweep.more {
            break;
        }
    }
    assert_eq!(removed, 40);
    assert_eq!(writer.bury(&letter(SPACE, 41), NOW), Ok(0), "nothing is kept");
    assert_eq!(writer.positions(), Ok(vec![at(1, SPACE, 41), at(1, OTHER, 1)]));
    assert_eq!(writer.dead_letters(None, 0, 9).expect("letters")[0].number, kept);
}

/// The file that a sync goes to stays the store's write-ahead file, whatever checkpoints and closes
/// happen.
#[test]
fn syncs_go_to_the_one_write_ahead_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let Parts {
        mut writer,
        readers,
        mut checkpointer,
    } = open(&path);
    let wal = || {
        std::fs::metadata(path.with_extension("db-wal"))
            .expect("a write-ahead file")
            .ino()
    };
    let inode = wal();
    writer.create_namespace(SPACE).expect("a namespace");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| {
            let mut restarts = 0;
            loop {
                let is_last = is_done.load(Ordering::Relaxed);
                checkpointer.sync().expect("a sync");
                restarts += usize::from(checkpointer.checkpoint().expect("a checkpoint").restarted);
                if is_last {
                    break restarts;
                }
            }
        });
        for number in 1..=300 {
            let position = at(1, SPACE, number);
            put_at(&mut writer, "id", number as i64, &[1; 500], &[position]);
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(
            syncing.join().expect("the checkpointer") > 0,
            "it begins anew meanwhile"
        );
    });
    assert_eq!(wal(), inode);
    drop((writer, readers));
    checkpointer.sync().expect("a sync");
    assert_eq!(wal(), inode, "the checkpointer keeps it");
    drop(checkpointer);
    let Parts { writer, .. } = open(&path);
    assert_eq!(writer.positions(), Ok(vec![at(1, SPACE, 300)]));
}

#[test]
fn the_highest_stamp_is_in_the_file_with_the_first_write_that_has_it() {
    const SECOND: i64 = 1_000_000_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let options = Options {
        busy_timeout_ms: 0,
        ..Options::default()
    };
    let mut writer = sqlite::open(&path, options).expect("a store").writer;
    writer.create_namespace(SPACE).expect("a namespace");
    assert_eq!(writer.highest_stamp(), i64::MIN);
    let noted = || -> Vec<u8> {
        let connection = rusqlite::Connection::open(&path).expect("a database");
        let row = connection.query_row("SELECT highest FROM stamp", [], |row| row.get(0));
        row.optional().expect("the note").unwrap_or_default()
    };
    writer.expect_stamp(5);
    assert_eq!(noted(), [0; 0], "nothing is written yet");
    put_at(&mut writer, "id", 5, b"v", &[]);
    let first = noted();
    assert_eq!(writer.highest_stamp(), SECOND + 5, "a step ahead");
    writer.expect_stamp(SECOND + 5);
    put_at(&mut writer, "id", SECOND + 5, b"v", &[]);
    assert_eq!(noted(), first, "one note for all writes of a second");
    writer.expect_stamp(SECOND + 6);
    // A transaction that fails notes nothing; the next one does.
    let other = rusqlite::Connection::open(&path).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let mut outcomes = Vec::new();
    let failed = writer.apply_at(&[], &[at(1, SPACE, 1)], &mut outcomes);
    assert!(matches!(failed, Err(StoreError::Busy { .. })), "{failed:?}");
    assert_eq!((writer.highest_stamp(), noted()), (SECOND + 5, first));
    other.execute_batch("ROLLBACK").expect("the end");
    put_at(&mut writer, "id", SECOND + 6, b"v", &[]);
    drop(writer);
    let mut writer = open(&path).writer;
    assert_eq!(writer.highest_stamp(), 2 * SECOND + 6, "as after a crash");
    // A record that a log applies once more does not withdraw the note.
    writer.expect_stamp(5);
    put_at(&mut writer, "id", 5, b"v", &[]);
    writer.settle_stamps().expect("a note");
    assert_eq!(writer.highest_stamp(), 2 * SECOND + 6);
    writer.expect_stamp(3 * SECOND);
    put_at(&mut writer, "id", 3 * SECOND, b"v", &[]);
    writer.settle_stamps().expect("a note");
    drop(writer);
    assert_eq!(
        open(&path).writer.highest_stamp(),
        3 * SECOND,
        "as after an orderly end"
    );
}

#[test]
fn a_file_of_format_1_is_brought_up_to_date() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection
        .execute_batch(
            "PRAGMA page_size = 2048; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;",
        )
        .expect("its pragmas");
    connection.execute_batch(FORMAT_1).expect("its schema");
    let version = [128, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    connection
        .execute("INSERT INTO namespace VALUES (7, 0)", [])
        .expect("a row");
    connection
        .execute(
            "INSERT INTO item VALUES (7, CAST('id' AS BLOB), x'6b', ?1, NULL, 0, x'6f6c64', NULL, NULL)",
            [&version[..]],
        )
        .expect("a row");
    // A value in parts, as large ones are kept.
    connection
        .execute(
            "INSERT INTO item VALUES (7, CAST('large' AS BLOB), x'6b', ?1, NULL, 0, x'6265', 16, 5)",
            [&version[..]],
        )
        .and_then(|_| connection.execute("INSERT INTO chunk VALUES (17, x'67696e')", []))
        .expect("a row");
    // The version of a token, and that of a delete stamped by a gateway.
    let [of_a_token, of_a_delete] = [(9, 0x5a), (7, 0)].map(|(time, hash)| {
        [
            128, 0, 0, 0, 0, 0, 0, time, hash, hash, hash, hash, hash, hash, hash, 0,
        ]
    });
    connection
        .execute(
            "INSERT INTO item VALUES (7, CAST('tokened' AS BLOB), x'6b', ?1, NULL, 0, x'6f6c64', NULL, NULL)",
            [&of_a_token[..]],
        )
        .and_then(|_| {
            connection.execute(
                "INSERT INTO range_delete VALUES (1, 7, CAST('deleted' AS BLOB), x'', x'', ?1, ?2)",
                params![&of_a_delete[..], i64::MAX],
            )
        })
        .expect("a row");
    drop(connection);
    assert_eq!(open(&path).writer.highest_stamp(), 7);
    for round in 0..2 {
        let Parts {
            mut writer, readers, ..
        } = open(&path);
        let reader = readers.open().expect("a reader");
        assert_eq!(value(&reader, "id"), Some(b"old".to_vec()));
        put_at(&mut writer, "id", 4, b"older", &[at(1, SPACE, 1 + round)]);
        assert_eq!(value(&reader, "id"), Some(b"old".to_vec()), "its version counts");
        assert_eq!(writer.positions(), Ok(vec![at(1, SPACE, 1 + round)]));
        assert_eq!(writer.dead_letter_counts(), Ok(Vec::new()));
        assert_eq!(value(&reader, "large"), Some(b"begin".to_vec()));
    }
    let number = |query| {
        let connection = rusqlite::Connection::open(&path).expect("a database");
        connection
            .query_row(query, [], |row| row.get::<_, i64>(0))
            .expect("a number")
    };
    assert_eq!(number("PRAGMA user_version"), 10);
    assert_eq!(number("SELECT count(*) FROM chunk"), 1);
    let mut writer = open(&path).writer;
    put_at(&mut writer, "large", 6, b"small", &[at(1, SPACE, 3)]);
    assert_eq!(
        number("SELECT count(*) FROM chunk"),
        0,
        "they went with their value"
    );
}

/// The schema as written by programs of format 1.
const FORMAT_1: &str = "
    CREATE TABLE namespace (
        id INTEGER PRIMARY KEY,
        state INTEGER NOT NULL
    );
    CREATE TABLE item (
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        key BLOB NOT NULL,
        version BLOB NOT NULL,
        expires_at INTEGER,
        kind INTEGER NOT NULL,
        value BLOB NOT NULL,
        rest INTEGER,
        bytes INTEGER,
        PRIMARY KEY (namespace, id, key)
    ) WITHOUT ROWID;
    CREATE INDEX item_expiry ON item (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE chunk (
        place INTEGER PRIMARY KEY,
        data BLOB NOT NULL
    );
    CREATE TRIGGER item_replaced AFTER UPDATE ON item WHEN old.rest IS NOT NULL BEGIN
        DELETE FROM chunk WHERE place BETWEEN old.rest AND old.rest + 15;
    END;
    CREATE TRIGGER item_removed AFTER DELETE ON item WHEN old.rest IS NOT NULL BEGIN
        DELETE FROM chunk WHERE place BETWEEN old.rest AND old.rest + 15;
    END;
    CREATE TABLE range_delete (
        number INTEGER PRIMARY KEY,
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        start BLOB NOT NULL,
        \"end\" BLOB NOT NULL,
        version BLOB NOT NULL,
        forget_at INTEGER NOT NULL
    );
    CREATE INDEX range_delete_subject ON range_delete (namespace, id);
    CREATE INDEX range_delete_expiry ON range_delete (forget_at);
    CREATE TABLE swap (
        slot INTEGER PRIMARY KEY,
        sequence INTEGER NOT NULL,
        namespace INTEGER NOT NULL,
        version BLOB NOT NULL,
        subject INTEGER NOT NULL,
        verdict INTEGER NOT NULL,
        value BLOB,
        expires_at INTEGER,
        compression INTEGER
    );
    CREATE INDEX swap_call ON swap (namespace, version, subject);
    PRAGMA application_id = 1347572557;
    PRAGMA user_version = 1;
";
