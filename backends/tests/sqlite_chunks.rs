//! The chunks of large values: a change that replaces a value removes its chunks, at once or in
//! later steps, and a refused change leaves them.

use std::path::Path;

use prism_backends::sqlite::{self, Options, Parts, Reader, Writer};
use prism_backends::{
    Expected, GetQuery, ItemRef, Mutation, NamespaceId, Operation, OwnedItem, PredicateRef, Selection,
    UnixMillis, Version,
};

const SPACE: NamespaceId = NamespaceId(7);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn open(path: &Path) -> (Writer, Reader) {
    let Parts {
        mut writer, readers, ..
    } = sqlite::open(path, Options::default()).expect("a store");
    writer.create_namespace(SPACE).expect("a namespace");
    (writer, readers.open().expect("a reader"))
}

/// A value of three chunks.
fn large(byte: u8) -> Vec<u8> {
    vec![byte; 2 * (1 << 20) + 7]
}

fn item(value: &[u8]) -> ItemRef<'_> {
    ItemRef {
        key: b"k",
        value,
        expires_at: None,
        compression: 0,
    }
}

fn apply(writer: &mut Writer, version: i64, operation: Operation<'_>) {
    let mutation = Mutation {
        namespace: SPACE,
        id: "id",
        version: Version::new(version, b"t"),
        at: NOW,
        digest: None,
        operation,
    };
    writer.apply(&[mutation], &mut Vec::new()).expect("a batch");
    finish(writer);
}

/// Deletes the rows that batches have left to be deleted.
fn finish(writer: &mut Writer) {
    while writer.is_step_due() {
        writer.step(1_000).expect("a step");
    }
}

fn read(reader: &Reader) -> Option<Vec<u8>> {
    let query = GetQuery {
        namespace: SPACE,
        id: "id",
        predicate: PredicateRef::All,
        selection: Selection {
            page_bytes: 4 << 20,
            ..Selection::default()
        },
    };
    let mut found = Vec::<OwnedItem>::new();
    assert_eq!(reader.get(&query, NOW, &mut found), Ok(None));
    found.pop().map(|item| item.value)
}

/// Rows of the table of chunks, by a connection of its own.
fn chunks(path: &Path) -> i64 {
    rusqlite::Connection::open(path)
        .and_then(|connection| connection.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0)))
        .expect("a count")
}

#[test]
fn whatever_replaces_a_large_value_takes_its_chunks_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let (mut writer, reader) = open(&path);
    apply(&mut writer, 1, Operation::Put(&[item(b"small")]));
    assert_eq!(chunks(&path), 0);
    apply(&mut writer, 10, Operation::Put(&[item(&large(1))]));
    let first = chunks(&path);
    assert!(first > 0, "the value has chunks");
    assert_eq!(read(&reader), Some(large(1)));
    let cases: [(&str, Operation<'_>, Option<Vec<u8>>); 5] = [
        (
            "a small value",
            Operation::Put(&[item(b"small")]),
            Some(b"small".to_vec()),
        ),
        (
            "a deletion of the key",
            Operation::Delete(PredicateRef::Keys(&[b"k"])),
            None,
        ),
        (
            "a deletion of a range",
            Operation::Delete(PredicateRef::Range {
                start: b"a",
                end: b"z",
            }),
            None,
        ),
        (
            "a swap",
            Operation::CompareAndSwap {
                key: b"k",
                expected: Expected::Value(&large(2)),
                replacement: Some(item(b"swapped")),
            },
            Some(b"swapped".to_vec()),
        ),
        (
            "a swap for nothing",
            Operation::CompareAndSwap {
                key: b"k",
                expected: Expected::Value(&large(2)),
                replacement: None,
            },
            None,
        ),
    ];
    for (number, (name, operation, left)) in (1..).zip(cases) {
        let version = 100 * number;
        // Another large value first, then one more: the chunks of one value remain.
        apply(&mut writer, version, Operation::Put(&[item(&large(3))]));
        apply(&mut writer, version + 1, Operation::Put(&[item(&large(2))]));
        assert_eq!(
            (chunks(&path), read(&reader)),
            (first, Some(large(2))),
            "before {name}"
        );
        // A change older than the value has no effect, whether it is large or small.
        apply(&mut writer, version - 1, Operation::Put(&[item(&large(4))]));
        apply(&mut writer, version - 1, Operation::Put(&[item(b"late")]));
        apply(
            &mut writer,
            version - 1,
            Operation::Delete(PredicateRef::Keys(&[b"k"])),
        );
        assert_eq!(
            (chunks(&path), read(&reader)),
            (first, Some(large(2))),
            "late writes before {name}"
        );
        apply(&mut writer, version + 2, operation);
        assert_eq!((chunks(&path), read(&reader)), (0, left), "{name}");
    }
}

#[test]
fn a_large_value_that_was_there_at_the_start_is_replaced_with_its_chunks() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let (mut writer, reader) = open(&path);
    apply(&mut writer, 1, Operation::Put(&[item(&large(1))]));
    drop((writer, reader));
    let (mut writer, reader) = open(&path);
    assert!(chunks(&path) > 0);
    apply(&mut writer, 2, Operation::Put(&[item(b"small")]));
    assert_eq!((chunks(&path), read(&reader)), (0, Some(b"small".to_vec())));
}

#[test]
fn the_sweep_takes_the_chunks_of_what_has_expired() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let (mut writer, _reader) = open(&path);
    let value = large(1);
    let expiring = ItemRef {
        expires_at: Some(NOW.plus(1_000)),
        ..item(&value)
    };
    apply(&mut writer, 1, Operation::Put(&[expiring]));
    writer.sweep(NOW.plus(999), 100).expect("a sweep");
    assert!(chunks(&path) > 0, "it has not expired yet");
    writer.sweep(NOW.plus(1_000), 100).expect("a sweep");
    finish(&mut writer);
    assert_eq!(chunks(&path), 0);
}

#[test]
fn a_value_that_is_replaced_twice_in_one_batch_leaves_the_chunks_of_the_last() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let (mut writer, reader) = open(&path);
    let values = [large(1), large(2), large(3)];
    let items = values.each_ref().map(|value| [item(value)]);
    let batch: Vec<_> = (1..)
        .zip(&items)
        .map(|(version, items)| Mutation {
            namespace: SPACE,
            id: "id",
            version: Version::new(version, b"t"),
            at: NOW,
            digest: None,
            operation: Operation::Put(items),
        })
        .collect();
    writer.apply(&batch[..1], &mut Vec::new()).expect("a batch");
    let one = chunks(&path);
    writer.apply(&batch, &mut Vec::new()).expect("a batch");
    finish(&mut writer);
    assert_eq!((chunks(&path), read(&reader)), (one, Some(large(3))));
    writer.drop_namespace(SPACE).expect("a namespace");
    while writer.sweep(NOW, 100).expect("a sweep").more {}
    assert_eq!(chunks(&path), 0, "a dropped namespace takes all of them along");
}
