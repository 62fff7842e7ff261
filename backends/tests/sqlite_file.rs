//! Promises of the SQLite store about its file: it outlives a close and a kill, readers work next
//! to the writer, checkpoints keep the write-ahead file bounded under load, and an unusable file is
//! refused in plain words.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prism_backends::sqlite::{self, Options, Parts, Reader, Writer};
use prism_backends::{
    Expected, GetQuery, ItemRef, Mutation, NamespaceId, Operation, Outcome, OwnedItem, PredicateRef,
    ScanQuery, Selection, StoreError, UnixMillis, Version,
};

const SPACE: NamespaceId = NamespaceId(7);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn open(path: &Path) -> Parts {
    sqlite::open(path, Options::default()).expect("a store")
}

fn item<'a>(key: &'a [u8], value: &'a [u8]) -> ItemRef<'a> {
    ItemRef {
        key,
        value,
        expires_at: None,
        compression: 0,
    }
}

fn put_of<'a>(id: &'a str, version: i64, items: &'a [ItemRef<'a>]) -> Mutation<'a> {
    Mutation {
        namespace: SPACE,
        id,
        version: Version::new(version, b"t"),
        at: NOW,
        digest: None,
        operation: Operation::Put(items),
    }
}

fn put(writer: &mut Writer, id: &str, version: i64, items: &[ItemRef<'_>]) -> Result<Outcome, StoreError> {
    let mut outcomes = Vec::new();
    writer.apply(&[put_of(id, version, items)], &mut outcomes)?;
    Ok(outcomes.remove(0))
}

fn read(reader: &Reader, id: &str) -> Vec<OwnedItem> {
    let query = GetQuery {
        namespace: SPACE,
        id,
        predicate: PredicateRef::All,
        selection: Selection {
            page_bytes: 4 << 20,
            ..Selection::default()
        },
    };
    let mut found = Vec::<OwnedItem>::new();
    assert_eq!(reader.get(&query, NOW, &mut found), Ok(None));
    found
}

fn count(reader: &Reader) -> usize {
    let mut found = Vec::<OwnedItem>::new();
    let mut page_token = Vec::new();
    loop {
        let selection = Selection {
            page_token: &page_token,
            ..Selection::default()
        };
        let query = ScanQuery {
            namespace: SPACE,
            selection,
        };
        match reader.scan(&query, NOW, &mut found).expect("a scan") {
            Some(token) => page_token = token.as_bytes().to_vec(),
            None => return found.len(),
        }
    }
}

#[test]
fn answers_that_an_older_program_noted_count_for_whatever_has_their_version() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let swap = |key: &'static [u8], value: &'static [u8], digest| Mutation {
        namespace: SPACE,
        id: "id",
        version: Version::new(9, b"swap"),
        at: NOW,
        digest: Some(digest),
        operation: Operation::CompareAndSwap {
            key,
            expected: Expected::Absent,
            replacement: Some(item(key, value)),
        },
    };
    let mut writer = open(&path).writer;
    writer.create_namespace(SPACE).expect("a namespace");
    let apply = |writer: &mut Writer, swap| {
        let mut outcomes = Vec::new();
        writer.apply(&[swap], &mut outcomes).expect("a batch");
        outcomes.remove(0)
    };
    let first = apply(&mut writer, swap(b"k", b"1", 1));
    assert!(matches!(first, Outcome::Swapped(Some(_))), "{first:?}");
    assert_eq!(apply(&mut writer, swap(b"k", b"1", 1)), Outcome::Swapped(None));
    let reused = Outcome::Refused(StoreError::TokenReused);
    assert_eq!(apply(&mut writer, swap(b"k", b"2", 2)), reused);
    assert_eq!(apply(&mut writer, swap(b"l", b"1", 3)), reused);
    drop(writer);
    let mut writer = open(&path).writer;
    assert_eq!(
        apply(&mut writer, swap(b"k", b"2", 2)),
        reused,
        "also after a restart"
    );
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection
        .execute("UPDATE swap SET digest = NULL", [])
        .expect("rows as they were");
    assert_eq!(
        apply(&mut writer, swap(b"k", b"2", 2)),
        Outcome::Swapped(None),
        "the first answer to this item and version"
    );
    let other = apply(&mut writer, swap(b"l", b"1", 3));
    assert!(
        matches!(other, Outcome::Swapped(Some(_))),
        "of another item, as ever: {other:?}"
    );
}

#[test]
fn data_answers_and_dropped_namespaces_outlive_a_close() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let large = vec![5; 3 << 20];
    let swap = Mutation {
        namespace: SPACE,
        id: "swap",
        version: Version::new(9, b"swap"),
        at: NOW,
        digest: None,
        operation: Operation::CompareAndSwap {
            key: b"k",
            expected: Expected::Value(b"no"),
            replacement: None,
        },
    };
    let delete = Mutation {
        namespace: SPACE,
        id: "gone",
        version: Version::new(5, b"d"),
        at: NOW,
        digest: None,
        operation: Operation::Delete(PredicateRef::All),
    };
    let mut outcomes = Vec::new();
    {
        let Parts { mut writer, .. } = open(&path);
        writer.create_namespace(SPACE).expect("a namespace");
        writer.create_namespace(NamespaceId(8)).expect("a namespace");
        writer.drop_namespace(NamespaceId(8)).expect("a drop");
        put(
            &mut writer,
            "id",
            1,
            &[item(b"large", &large), item(b"small", b"1")],
        )
        .expect("a put");
        writer.apply(&[swap, delete], &mut outcomes).expect("a batch");
        assert_eq!(outcomes, [Outcome::NotSwapped(None), Outcome::Applied]);
    }
    let Parts {
        mut writer, readers, ..
    } = open(&path);
    let reader = readers.open().expect("a reader");
    let found = read(&reader, "id");
    assert!(found[0].value == large && found[1].value == b"1");
    let refused = Err(StoreError::DroppedNamespace(NamespaceId(8)));
    assert_eq!(
        writer.create_namespace(NamespaceId(8)),
        refused,
        "a number is never used again"
    );
    assert_eq!(writer.create_namespace(SPACE), Ok(()));
    put(&mut writer, "swap", 2, &[item(b"k", b"no")]).expect("a put");
    writer.apply(&[swap], &mut outcomes).expect("a batch");
    assert_eq!(
        outcomes,
        [Outcome::NotSwapped(None)],
        "the first answer outlives the close"
    );
    put(&mut writer, "gone", 4, &[item(b"k", b"old")]).expect("a put");
    assert_eq!(read(&reader, "gone"), [], "and so does a delete");
    // A second large value must not lie where the first does.
    put(&mut writer, "other", 1, &[item(b"large", &[6; 2 << 20])]).expect("a put");
    assert!(read(&reader, "id")[0].value == large);
}

/// Not a test of its own: the process that the next test kills. Prints a line for every
/// acknowledged batch.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os("PRISM_TEST_CHILD_FILE") else {
        return;
    };
    let Parts {
        mut writer,
        mut checkpointer,
        ..
    } = open(Path::new(&path));
    writer.create_namespace(SPACE).expect("a namespace");
    for number in 0..200_000_i64 {
        let (a, b) = (format!("{number}"), vec![number as u8; 100]);
        let items = [item(b"a", a.as_bytes()), item(b"b", &b)];
        put(&mut writer, &format!("id {number}"), number, &items).expect("a put");
        if number % 100 == 99 {
            checkpointer.checkpoint().expect("a checkpoint");
        }
        println!("\nacknowledged {number}");
    }
}

#[test]
fn acknowledged_batches_outlive_a_kill() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
        .env("PRISM_TEST_CHILD_FILE", &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let acknowledged = |line: String| {
        line.strip_prefix("acknowledged ")
            .and_then(|n| n.parse::<i64>().ok())
    };
    let mut last = lines
        .by_ref()
        .filter_map(|line| acknowledged(line.ok()?))
        .find(|number| *number >= 450);
    assert_eq!(last, Some(450), "the child writes");
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    last = lines.filter_map(|line| acknowledged(line.ok()?)).last().or(last);

    let Parts {
        mut writer, readers, ..
    } = open(&path);
    let reader = readers.open().expect("a reader");
    let last = last.expect("an acknowledged batch");
    for number in 0..=last {
        let found = read(&reader, &format!("id {number}"));
        assert_eq!(found.len(), 2, "batch {number} of {last} was acknowledged");
        assert_eq!(found[0].value, number.to_string().into_bytes());
    }
    let written = count(&reader);
    assert_eq!(written % 2, 0, "no half of a mutation");
    assert_eq!(
        put(&mut writer, "after", 1, &[item(b"k", b"v")]),
        Ok(Outcome::Applied)
    );
}

#[test]
fn two_readers_stand_beside_the_writer_and_checkpoints_bound_its_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let options = Options {
        checkpoint_bytes: 1 << 20,
        ..Options::default()
    };
    let Parts {
        mut writer,
        readers,
        mut checkpointer,
    } = sqlite::open(&path, options).expect("a store");
    writer.create_namespace(SPACE).expect("a namespace");
    let blank = vec![0; 2_000];
    put(&mut writer, "id", 0, &[item(b"a", &blank), item(b"b", &blank)]).expect("a put");
    let is_done = AtomicBool::new(false);
    let (checkpoints_seen, restarts_seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (is_done, checkpoints_seen, restarts_seen) = (&is_done, &checkpoints_seen, &restarts_seen);
    let mut written = 0;
    std::thread::scope(|scope| {
        let reading: Vec<_> = (0..2)
            .map(|_| {
                let readers = readers.clone();
                scope.spawn(move || {
                    let reader = readers.open().expect("a reader");
                    let (mut reads, mut last) = (0_usize, 0);
                    while !is_done.load(Ordering::Relaxed) || reads == 0 {
                        let found = read(&reader, "id");
                        assert_eq!(found[0].value, found[1].value, "one moment's state");
                        assert!(found[0].value[0] >= last, "time does not go backwards");
                        last = found[0].value[0];
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let checkpointing = scope.spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                if checkpointer.is_due() {
                    let checkpoint = checkpointer.checkpoint().expect("a checkpoint");
                    restarts_seen.fetch_add(usize::from(checkpoint.restarted), Ordering::Relaxed);
                    checkpoints_seen.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        let patience = Instant::now() + Duration::from_secs(120);
        // A reader may block each checkpoint for a while, but not for ever.
        for number in 1_i64.. {
            if number > 4_000 && restarts_seen.load(Ordering::Relaxed) > 0 {
                break;
            }
            assert!(Instant::now() < patience, "no checkpoint ever restarted the file");
            let value = vec![(number / 20).min(255) as u8; 2_000];
            let items = [item(b"a", &value), item(b"b", &value)];
            put(&mut writer, "id", number, &items).expect("a put");
            written += 4 * 4096;
            // Not so far ahead of the checkpointer that the test measures the scheduler.
            while number % 500 == 0
                && wal_bytes(&path) > 24 << 20
                && checkpoints_seen.load(Ordering::Relaxed) == 0
            {
                std::thread::yield_now();
            }
        }
        is_done.store(true, Ordering::Relaxed);
        checkpointing.join().expect("the checkpointer");
        for reader in reading {
            assert!(reader.join().expect("a reader") > 0);
        }
    });
    assert!(wal_bytes(&path) < written / 2, "{} bytes", wal_bytes(&path));
}

#[test]
fn the_writer_bounds_its_file_when_nobody_checkpoints() {
    let too_large = Options {
        wal_bytes_max: 1 << 20,
        ..Options::default()
    };
    let too_little_room = Options {
        // No disk has so much room.
        room_bytes_min: u64::MAX,
        ..Options::default()
    };
    for options in [too_large, too_little_room] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("items.db");
        let Parts {
            mut writer, readers, ..
        } = sqlite::open(&path, options).expect("a store");
        let reader = readers.open().expect("a reader");
        writer.create_namespace(SPACE).expect("a namespace");
        for number in 0..2_000_i64 {
            put(
                &mut writer,
                &format!("{}", number % 50),
                number,
                &[item(b"k", &[1; 2_000])],
            )
            .expect("a put");
        }
        assert!(
            wal_bytes(&path) < 2 << 20,
            "{} bytes with {options:?}",
            wal_bytes(&path)
        );
        assert_eq!(count(&reader), 50);
        writer.release_memory().expect("a release");
        reader.release_memory().expect("a release");
        assert_eq!(count(&reader), 50);
    }
}

#[test]
fn queries_in_one_snapshot_see_one_moment() {
    let directory = tempfile::tempdir().expect("a directory");
    let Parts {
        mut writer, readers, ..
    } = open(&directory.path().join("items.db"));
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    put(&mut writer, "id", 1, &[item(b"k", b"1")]).expect("a put");
    let values = reader.in_one_snapshot(|| {
        let before = read(&reader, "id").remove(0).value;
        put(&mut writer, "id", 2, &[item(b"k", b"2")])?;
        let query = GetQuery {
            namespace: SPACE,
            id: "id",
            predicate: PredicateRef::Keys(&[b"k", b"l"]),
            selection: Selection::default(),
        };
        let mut found = Vec::<OwnedItem>::new();
        reader.get(&query, NOW, &mut found)?;
        Ok((before, found.remove(0).value))
    });
    assert_eq!(values, Ok((b"1".to_vec(), b"1".to_vec())));
    assert_eq!(read(&reader, "id")[0].value, b"2");
}

fn wal_bytes(path: &Path) -> u64 {
    std::fs::metadata(path.with_extension("db-wal")).map_or(0, |metadata| metadata.len())
}

#[test]
fn a_dropped_namespace_vanishes_and_its_room_comes_back_in_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let Parts {
        mut writer,
        readers,
        mut checkpointer,
    } = open(&path);
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    let value = vec![1; 4_000];
    for number in 0..1_500 {
        put(&mut writer, &format!("{number}"), 1, &[item(b"k", &value)]).expect("a put");
    }
    put(&mut writer, "large", 1, &[item(b"k", &[2; 3 << 20])]).expect("a put");
    checkpointer.checkpoint().expect("a checkpoint");
    let before = std::fs::metadata(&path).expect("the file").len();
    assert_eq!(count(&reader), 1_501);
    writer.drop_namespace(SPACE).expect("a drop");
    let query = ScanQuery {
        namespace: SPACE,
        selection: Selection::default(),
    };
    let refused = reader.scan(&query, NOW, &mut Vec::<OwnedItem>::new());
    assert_eq!(refused, Err(StoreError::DroppedNamespace(SPACE)), "at once");
    let mut steps = 0;
    while writer.sweep(NOW, 100).expect("a sweep").more {
        steps += 1;
        assert!(steps < 100, "the sweep does not end");
    }
    assert!(steps >= 14, "{steps} bounded steps");
    for _ in 0..100 {
        writer.sweep(NOW, 100).expect("a sweep");
    }
    checkpointer.checkpoint().expect("a checkpoint");
    let after = std::fs::metadata(&path).expect("the file").len();
    assert!(after < before / 2, "{before} bytes before, {after} after");
}

#[test]
fn swept_items_leave_their_version_for_the_window_and_then_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options {
        tombstone_window_ms: 1_000,
        ..Options::default()
    };
    let path = directory.path().join("items.db");
    let Parts {
        mut writer, readers, ..
    } = sqlite::open(&path, options).expect("a store");
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    let short = ItemRef {
        expires_at: Some(NOW),
        ..item(b"k", b"new")
    };
    put(&mut writer, "id", 2, &[short]).expect("a put");
    assert_eq!(writer.sweep(NOW, 10).expect("a sweep").removed, 1, "the item");
    put(&mut writer, "id", 1, &[item(b"k", b"old")]).expect("a put");
    assert_eq!(read(&reader, "id"), [], "an older write does not come back");
    assert_eq!(writer.sweep(NOW.plus(999), 10).expect("a sweep").removed, 0);
    assert_eq!(
        writer.sweep(NOW.plus(1_000), 10).expect("a sweep").removed,
        1,
        "its version"
    );
    put(&mut writer, "id", 1, &[item(b"k", b"old")]).expect("a put");
    assert_eq!(
        read(&reader, "id").len(),
        1,
        "behind the window nothing is remembered"
    );
}

#[test]
fn files_that_cannot_be_used_are_refused_in_plain_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let refusal = |path: &Path| sqlite::open(path, Options::default()).expect_err("not usable");
    let says = |error: &StoreError, words: &str| {
        assert!(error.to_string().contains(words), "{error}");
        assert!(
            !error.is_retryable() || matches!(error, StoreError::Busy { .. }),
            "{error:?}"
        );
    };

    let missing = refusal(&directory.path().join("no/such/items.db"));
    assert!(matches!(missing, StoreError::Unopenable { .. }), "{missing:?}");
    says(&missing, "directory does not exist");

    let garbage = directory.path().join("garbage.db");
    std::fs::write(&garbage, vec![b'x'; 8192]).expect("a file");
    let error = refusal(&garbage);
    assert!(matches!(error, StoreError::WrongFormat { .. }), "{error:?}");
    says(&error, "not a database");
    assert_eq!(
        std::fs::read(&garbage).expect("the file"),
        vec![b'x'; 8192],
        "and left alone"
    );

    let foreign = directory.path().join("foreign.db");
    let connection = rusqlite::Connection::open(&foreign).expect("a database");
    connection
        .execute_batch("CREATE TABLE theirs (x)")
        .expect("a table");
    drop(connection);
    let error = refusal(&foreign);
    assert!(matches!(error, StoreError::WrongFormat { .. }), "{error:?}");
    says(&error, "another program");

    let newer = directory.path().join("newer.db");
    drop(open(&newer));
    let connection = rusqlite::Connection::open(&newer).expect("a database");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("a pragma");
    drop(connection);
    let error = refusal(&newer);
    assert!(matches!(error, StoreError::WrongFormat { .. }), "{error:?}");
    says(&error, "format 99");

    let used = directory.path().join("used.db");
    let parts = open(&used);
    let error = refusal(&used);
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    says(&error, "in use");
    drop(parts);
    drop(open(&used));
}

#[test]
fn a_full_store_refuses_the_batch_and_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let options = Options {
        file_bytes_max: Some(1 << 20),
        ..Options::default()
    };
    let Parts {
        mut writer, readers, ..
    } = sqlite::open(&path, options).expect("a store");
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    put(&mut writer, "id", 1, &[item(b"k", b"kept")]).expect("a put");
    let large = vec![1; 4 << 20];
    let error = put(&mut writer, "large", 1, &[item(b"k", &large)]).expect_err("no room");
    assert!(
        matches!(error, StoreError::Full { .. }) && error.is_retryable(),
        "{error:?}"
    );
    assert_eq!(read(&reader, "large"), []);
    put(&mut writer, "id", 2, &[item(b"k", b"replaced")]).expect("a put");
    assert_eq!(read(&reader, "id")[0].value, b"replaced");
}

#[test]
fn a_disk_short_of_room_gets_back_what_the_write_ahead_file_took() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let options = Options {
        // No disk has so much room.
        room_bytes_min: u64::MAX,
        ..Options::default()
    };
    let Parts {
        mut writer,
        readers,
        mut checkpointer,
    } = sqlite::open(&path, options).expect("a store");
    assert!(checkpointer.is_due(), "the file with the tables was found");
    checkpointer.run_due().expect("a checkpoint");
    let reader = readers.open().expect("a reader");
    writer.create_namespace(SPACE).expect("a namespace");
    put(&mut writer, "small", 1, &[item(b"k", b"v")]).expect("a put");
    assert!(!writer.is_checkpointer_due(), "there was no reason to look");
    let large = vec![1; 2 << 20];
    put(&mut writer, "large", 1, &[item(b"k", &large)]).expect("a put");
    assert!(writer.is_checkpointer_due() && checkpointer.is_due());
    assert!(wal_bytes(&path) > 2 << 20);
    let done = checkpointer.run_due().expect("a checkpoint");
    assert!(done.restarted && done.room_is_short, "{done:?}");
    assert_eq!(wal_bytes(&path), 0);
    assert!(!checkpointer.is_due(), "another one would change nothing");
    assert_eq!(read(&reader, "large")[0].value, large);
    put(&mut writer, "small", 2, &[item(b"k", b"w")]).expect("a put");
    checkpointer.sync().expect("a sync");
    assert_eq!(read(&reader, "small")[0].value, b"w");
}

#[test]
fn a_store_that_was_finished_is_opened_without_a_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let Parts {
        mut writer,
        readers,
        mut checkpointer,
    } = open(&path);
    writer.create_namespace(SPACE).expect("a namespace");
    let large = vec![1; 2 << 20];
    put(&mut writer, "large", 1, &[item(b"k", &large)]).expect("a put");
    drop((writer, readers));
    assert!(wal_bytes(&path) > 2 << 20, "the last to close moves nothing");
    assert!(checkpointer.finish().expect("a checkpoint").restarted);
    assert_eq!(wal_bytes(&path), 0);
    drop(checkpointer);
    let modified = |path: &Path| {
        let metadata = std::fs::metadata(path).expect("a file");
        metadata.modified().expect("a time")
    };
    let before = modified(&path);
    let Parts { readers, .. } = open(&path);
    let reader = readers.open().expect("a reader");
    assert_eq!(read(&reader, "large")[0].value, large);
    assert_eq!((wal_bytes(&path), modified(&path)), (0, before));
}

#[test]
fn a_batch_that_does_not_fit_the_cache_is_read_back_while_it_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let options = Options {
        writer_cache_bytes: 16 * 1024,
        ..Options::default()
    };
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..3 {
        let Parts {
            mut writer, readers, ..
        } = sqlite::open(&path, options).expect("a store");
        let reader = readers.open().expect("a reader");
        writer.create_namespace(SPACE).expect("a namespace");
        // A page each, in order, so that they leave the cache one after the other; then all of them
        // once more.
        let writes: Vec<(String, Vec<u8>)> = (0..400)
            .map(|number| {
                (
                    format!("id {:03}", number % 200),
                    vec![(number % 251) as u8; 1_500],
                )
            })
            .collect();
        let items: Vec<_> = writes.iter().map(|(_, value)| [item(b"k", value)]).collect();
        let batch: Vec<_> = (0_i64..)
            .zip(writes.iter().zip(&items))
            .map(|(number, ((id, _), items))| put_of(id, round * 1_000 + number, items))
            .collect();
        writer.apply(&batch, &mut Vec::new()).expect("a batch");
        expected.extend(writes);
        for (id, value) in &expected {
            assert_eq!(&read(&reader, id)[0].value, value, "{id}, round {round}");
        }
        let check: String = rusqlite::Connection::open(&path)
            .and_then(|other| other.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
            .expect("an answer");
        assert_eq!(check, "ok");
    }
}
