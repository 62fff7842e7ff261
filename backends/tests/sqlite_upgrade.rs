//! A file made by a program of format 3 is used as it is, and its values are moved to the place of
//! new ones while it is used, over kills and restarts. `fixtures/README.md` describes how the
//! fixture was made.

use std::io::Read;
use std::path::{Path, PathBuf};

use prism_backends::sqlite::{self, Options, Parts, Reader, Relocation, Writer};
use prism_backends::{
    Expected, GetQuery, ItemRef, LogId, LogPosition, Mutation, NamespaceId, Operation, Outcome, OwnedItem,
    PredicateRef, ScanQuery, Selection, StoreError, UnixMillis, Version,
};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const SIZES: [usize; 13] = [
    0,
    1,
    256,
    300,
    400,
    470,
    500,
    700,
    2_000,
    5_000,
    60_000,
    1 << 20,
    (1 << 20) + 7,
];

/// The values of the fixture.
fn value(size: usize) -> Vec<u8> {
    (0..size).map(|at| ((at * 7 + size) % 251) as u8).collect()
}

fn fixture(directory: &Path) -> PathBuf {
    let packed = include_bytes!("fixtures/sqlite_format3.db.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut bytes)
        .expect("the fixture");
    let path = directory.join("0.db");
    std::fs::write(&path, bytes).expect("a file");
    path
}

fn open(path: &Path) -> (Writer, Reader) {
    let Parts { writer, readers, .. } = sqlite::open(path, Options::default()).expect("a store");
    let reader = readers.open().expect("a reader");
    (writer, reader)
}

fn get(reader: &Reader, namespace: u32, id: &str) -> Vec<OwnedItem> {
    let mut found = Vec::<OwnedItem>::new();
    let mut page_token = Vec::new();
    loop {
        let query = GetQuery {
            namespace: NamespaceId(namespace),
            id,
            predicate: PredicateRef::All,
            selection: Selection {
                page_token: &page_token,
                ..Selection::default()
            },
        };
        match reader.get(&query, NOW, &mut found).expect("a page") {
            Some(token) => page_token = token.as_bytes().to_vec(),
            None => return found,
        }
    }
}

fn scan(reader: &Reader, namespace: u32) -> Result<Vec<OwnedItem>, StoreError> {
    let mut found = Vec::<OwnedItem>::new();
    let mut page_token = Vec::new();
    loop {
        let selection = Selection {
            page_token: &page_token,
            ..Selection::default()
        };
        let query = ScanQuery {
            namespace: NamespaceId(namespace),
            selection,
        };
        match reader.scan(&query, NOW, &mut found)? {
            Some(token) => page_token = token.as_bytes().to_vec(),
            None => return Ok(found),
        }
    }
}

fn item(size: usize) -> OwnedItem {
    OwnedItem {
        key: format!("{size:07}").into_bytes(),
        value: value(size),
        expires_at: None,
        compression: (size % 3) as u8,
    }
}

/// Checks that everything in the fixture is there.
fn check(reader: &Reader, moment: &str) {
    let sizes = get(reader, 7, "sizes");
    assert!(sizes == SIZES.map(item), "{moment}: {} items", sizes.len());
    for size in SIZES.into_iter().filter(|size| *size < 100_000) {
        assert!(
            get(reader, 9, &format!("id {size}")) == [item(size)],
            "{moment}: {size}"
        );
    }
    for number in 0..60 {
        let found = get(reader, 7, &format!("small {number}"));
        assert!(found[0].value == value(100 + number), "{moment}: {number}");
    }
    let expiring = get(reader, 7, "expires");
    assert_eq!(expiring[0].expires_at, Some(NOW.plus(1_000)), "{moment}");
    assert!(expiring[0].value == value(3_000), "{moment}");
    let range: Vec<_> = get(reader, 7, "range").into_iter().map(|item| item.key).collect();
    assert_eq!(range, [b"a"], "{moment}");
    assert_eq!(
        scan(reader, 7).expect("a scan").len(),
        SIZES.len() + 60 + 3,
        "{moment}"
    );
    let dropped = scan(reader, 8);
    assert_eq!(
        dropped,
        Err(StoreError::DroppedNamespace(NamespaceId(8))),
        "{moment}"
    );
}

fn apply(writer: &mut Writer, id: &str, version: i64, operation: Operation<'_>) -> Outcome {
    let mutation = Mutation {
        namespace: NamespaceId(7),
        id,
        version: Version::new(version, b"t"),
        at: NOW,
        digest: None,
        operation,
    };
    let mut outcomes = Vec::new();
    writer.apply(&[mutation], &mut outcomes).expect("a batch");
    outcomes.remove(0)
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> ItemRef<'a> {
    ItemRef {
        key,
        value,
        expires_at: None,
        compression: 0,
    }
}

fn number(path: &Path, query: &str) -> i64 {
    rusqlite::Connection::open(path)
        .and_then(|connection| connection.query_row(query, [], |row| row.get(0)))
        .expect("a number")
}

const OVERFLOW: &str = "SELECT count(*) FROM dbstat WHERE name = 'item' AND pagetype = 'overflow'";

fn check_whole(path: &Path) {
    let text: String = rusqlite::Connection::open(path)
        .and_then(|connection| connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
        .expect("an answer");
    assert_eq!(text, "ok");
}

#[test]
fn values_are_moved_in_bounded_steps_over_kills_and_everything_stays_readable() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut path = fixture(directory.path());
    let (mut writer, mut reader) = open(&path);
    check(&reader, "before any step");
    assert!(number(&path, OVERFLOW) > 1_000, "the old form");
    assert_eq!(writer.relocation(), Some(Relocation::default()));
    let mut moved = Vec::new();
    while writer.relocation().is_some() {
        moved.push(writer.relocate(20).expect("a step"));
        check(&reader, &format!("after step {}", moved.len()));
        // Every third step is followed by a kill: the next process gets the files as they are.
        if moved.len() % 3 == 0 {
            let next = directory.path().join(format!("{}.db", moved.len()));
            for suffix in ["", "-wal"] {
                let named = |path: &Path| format!("{}{suffix}", path.display());
                std::fs::copy(named(&path), named(&next)).expect("a copy");
            }
            drop((writer, reader));
            path = next;
            (writer, reader) = open(&path);
            assert_eq!(
                writer
                    .relocation()
                    .unwrap_or_else(|| *moved.last().expect("a step")),
                *moved.last().expect("a step"),
                "it goes on where it was"
            );
        }
    }
    assert!(moved.len() >= 5, "{} steps", moved.len());
    for pair in moved.windows(2) {
        let bytes = pair[1].bytes - pair[0].bytes;
        assert!(bytes <= (1 << 20) + 20 * 4096, "a step of {bytes} bytes");
    }
    assert_eq!(number(&path, OVERFLOW), 0, "the new form");
    check_whole(&path);
    // The move is done for good.
    drop((writer, reader));
    let (mut writer, reader) = open(&path);
    assert_eq!(writer.relocation(), None);
    assert_eq!(writer.relocate(20), Ok(Relocation::default()));
    check(&reader, "after the last step");
    let position = |log| LogPosition {
        log,
        lane: 1,
        namespace: NamespaceId(7),
        lsn: 42,
    };
    // The memory in the file counts as before.
    assert_eq!(
        writer.positions(),
        Ok(vec![position(sqlite::NO_LOG)]),
        "of a program that knew no logs"
    );
    writer.adopt_positions(LogId(5)).expect("an adoption");
    writer.adopt_positions(LogId(6)).expect("nothing is left");
    assert_eq!(writer.positions(), Ok(vec![position(LogId(5))]));
    let letter = writer.dead_letter(1).expect("an answer").expect("a letter");
    assert_eq!(
        (letter.reason.as_str(), letter.record.as_slice()),
        ("for a test", &b"a record"[..])
    );
    apply(&mut writer, "buried", 15, Operation::Put(&[put(b"k", b"late")]));
    apply(&mut writer, "range", 15, Operation::Put(&[put(b"y", b"late")]));
    assert_eq!(get(&reader, 7, "buried"), []);
    assert_eq!(get(&reader, 7, "range").len(), 1);
    let swap = |expected| Operation::CompareAndSwap {
        key: b"k",
        expected,
        replacement: Some(put(b"", b"again")),
    };
    assert_eq!(
        apply(&mut writer, "swap", 30, swap(Expected::Absent)),
        Outcome::Swapped(None)
    );
    let refused = apply(&mut writer, "swap", 31, swap(Expected::Value(b"other")));
    assert!(matches!(refused, Outcome::NotSwapped(Some(item)) if item.item.value == value(3_000)));
    while writer.sweep(NOW.plus(60_000), 50).expect("a sweep").more {}
    assert_eq!(number(&path, "SELECT count(*) FROM item WHERE namespace = 8"), 0);
}

#[test]
fn what_is_written_while_values_are_moved_counts() {
    let steps = {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, _reader) = open(&fixture(directory.path()));
        let mut steps = 0;
        while writer.relocation().is_some() {
            writer.relocate(50).expect("a step");
            steps += 1;
        }
        steps
    };
    let large = vec![9; (1 << 20) + 1];
    for before in 0..=steps {
        let directory = tempfile::tempdir().expect("a directory");
        let path = fixture(directory.path());
        let (mut writer, reader) = open(&path);
        for _ in 0..before {
            writer.relocate(50).expect("a step");
        }
        // Each form of an old value is replaced, deleted or swapped, and new ones come.
        let key = |size| item(size).key;
        apply(
            &mut writer,
            "sizes",
            50,
            Operation::Put(&[put(&key(5_000), b"small")]),
        );
        apply(
            &mut writer,
            "sizes",
            50,
            Operation::Put(&[put(&key(300), &large)]),
        );
        apply(
            &mut writer,
            "sizes",
            50,
            Operation::Put(&[put(&key((1 << 20) + 7), &value(900))]),
        );
        let (gone, chunked) = (key(1 << 20), key(60_000));
        apply(
            &mut writer,
            "sizes",
            50,
            Operation::Delete(PredicateRef::Keys(&[&gone])),
        );
        let swapped = value(61_000);
        let swap = Operation::CompareAndSwap {
            key: &chunked,
            expected: Expected::Value(&value(60_000)),
            replacement: Some(put(b"", &swapped)),
        };
        assert!(matches!(
            apply(&mut writer, "sizes", 51, swap),
            Outcome::Swapped(Some(_))
        ));
        while writer.relocation().is_some() || writer.is_step_due() {
            writer.relocate(50).expect("a step");
            writer.step(50).expect("a step");
        }
        let mut expected: Vec<_> = SIZES.map(item).into();
        for (size, replaced) in [
            (5_000, b"small".to_vec()),
            (300, large.clone()),
            ((1 << 20) + 7, value(900)),
            (60_000, value(61_000)),
        ] {
            let item = expected
                .iter_mut()
                .find(|item| item.key == key(size))
                .expect("an item");
            (item.value, item.compression) = (replaced, 0);
        }
        expected.retain(|item| item.key != gone);
        assert!(
            get(&reader, 7, "sizes") == expected,
            "written after {before} steps"
        );
        // No chunk is left of a removed value.
        let known = "SELECT count(*) FROM chunk WHERE NOT EXISTS
            (SELECT 1 FROM item WHERE rest = chunk.place / 16 * 16)";
        assert_eq!(number(&path, known), 0);
        assert_eq!(number(&path, OVERFLOW), 0);
        check_whole(&path);
    }
}

#[test]
fn a_new_file_has_nothing_to_move() {
    let directory = tempfile::tempdir().expect("a directory");
    let (writer, _reader) = open(&directory.path().join("items.db"));
    assert_eq!(writer.relocation(), None);
}
