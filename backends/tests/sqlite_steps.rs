//! Items that a batch deletes are gone with it, however many they are; their rows in the file are
//! removed in bounded steps, over kills and restarts, and no read shows any of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use prism_backends::sqlite::{self, Options, Parts, Reader, Writer};
use prism_backends::{
    Expected, GetQuery, ItemRef, Mutation, NamespaceId, Operation, Outcome, OwnedItem, PredicateRef,
    ScanQuery, Selection, StoreError, UnixMillis, Version,
};

const SPACE: NamespaceId = NamespaceId(7);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A batch removes this many rows at once.
const AT_ONCE: usize = 10;

struct Store {
    writer: Writer,
    reader: Reader,
}

fn open(path: &Path, options: Options) -> Store {
    let Parts {
        mut writer, readers, ..
    } = sqlite::open(path, options).expect("a store");
    writer.create_namespace(SPACE).expect("a namespace");
    let reader = readers.open().expect("a reader");
    Store { writer, reader }
}

fn few() -> Options {
    Options {
        remove_at_once_max: AT_ONCE,
        ..Options::default()
    }
}

impl Store {
    fn try_apply(&mut self, changes: &[(&str, i64, Operation<'_>)]) -> Result<Vec<Outcome>, StoreError> {
        let batch: Vec<_> = changes
            .iter()
            .map(|(id, version, operation)| Mutation {
                namespace: SPACE,
                id,
                version: Version::new(*version, b"t"),
                at: NOW,
                digest: None,
                operation: *operation,
            })
            .collect();
        let mut outcomes = Vec::new();
        self.writer.apply(&batch, &mut outcomes)?;
        Ok(outcomes)
    }

    fn apply(&mut self, id: &str, version: i64, operation: Operation<'_>) -> Outcome {
        self.try_apply(&[(id, version, operation)])
            .expect("a batch")
            .remove(0)
    }

    /// Puts items with the keys 000, 001 and so on.
    fn put_many(&mut self, id: &str, version: i64, count: usize) {
        let keys: Vec<_> = (0..count).map(|number| format!("{number:03}")).collect();
        let items: Vec<_> = keys.iter().map(|key| item(key.as_bytes(), b"value")).collect();
        self.apply(id, version, Operation::Put(&items));
    }

    fn get(&self, id: &str, predicate: PredicateRef<'_>, pending: &[Mutation<'_>]) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let mut page_token = Vec::new();
        loop {
            let query = GetQuery {
                namespace: SPACE,
                id,
                predicate,
                selection: Selection {
                    item_limit: 7,
                    page_token: &page_token,
                    ..Selection::default()
                },
            };
            let mut found = Vec::<OwnedItem>::new();
            let next = if pending.is_empty() {
                self.reader.get(&query, NOW, &mut found)
            } else {
                self.reader.get_over(&query, pending, NOW, &mut found)
            };
            keys.extend(found.into_iter().map(|item| item.key));
            match next.expect("a page") {
                Some(token) => page_token = token.as_bytes().to_vec(),
                None => return keys,
            }
        }
    }

    fn all(&self, id: &str) -> Vec<Vec<u8>> {
        self.get(id, PredicateRef::All, &[])
    }

    fn scan(&self) -> usize {
        let mut found = Vec::<OwnedItem>::new();
        let mut page_token = Vec::new();
        loop {
            let selection = Selection {
                page_token: &page_token,
                item_limit: 11,
                ..Selection::default()
            };
            let query = ScanQuery {
                namespace: SPACE,
                selection,
            };
            match self.reader.scan(&query, NOW, &mut found).expect("a scan") {
                Some(token) => page_token = token.as_bytes().to_vec(),
                None => return found.len(),
            }
        }
    }

    /// Steps to the end. Returns the number of steps.
    fn finish(&mut self, budget: usize) -> usize {
        let mut steps = 0;
        while self.writer.is_step_due() {
            self.writer.step(budget).expect("a step");
            steps += 1;
            assert!(steps < 10_000, "the steps do not end");
        }
        steps
    }
}

fn item<'a>(key: &'a [u8], value: &'a [u8]) -> ItemRef<'a> {
    ItemRef {
        key,
        value,
        expires_at: None,
        compression: 0,
    }
}

fn delete_all<'a>() -> Operation<'a> {
    Operation::Delete(PredicateRef::All)
}

/// One number from the file, by a connection of its own.
fn number(path: &Path, query: &str) -> i64 {
    rusqlite::Connection::open(path)
        .and_then(|connection| connection.query_row(query, [], |row| row.get(0)))
        .expect("a number")
}

const ROWS: &str = "SELECT count(*) FROM item";
const CHUNKS: &str = "SELECT count(*) FROM chunk";
const NOTES: &str = "SELECT (SELECT count(*) FROM removal) + (SELECT count(*) FROM orphan)";

#[test]
fn a_large_delete_takes_place_at_once_and_its_rows_go_in_bounded_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let mut store = open(&path, few());
    store.put_many("id", 10, 500);
    store.put_many("other", 10, 5);
    assert_eq!(store.apply("id", 20, delete_all()), Outcome::Applied);
    assert_eq!(
        number(&path, ROWS),
        505 - AT_ONCE as i64,
        "no more than so many at once"
    );
    for round in 0..2 {
        assert_eq!(store.all("id"), [b""; 0], "round {round}");
        assert_eq!(
            store.get("id", PredicateRef::Keys(&[b"007", b"400"]), &[]),
            [b""; 0]
        );
        assert_eq!(store.get("id", PredicateRef::Keys(&[b"400"]), &[]), [b""; 0]);
        let range = PredicateRef::Range {
            start: b"1",
            end: b"3",
        };
        assert_eq!(store.get("id", range, &[]), [b""; 0]);
        assert_eq!(store.scan(), 5);
        // An older write does not come back, a newer one is there, and so it remains.
        store.apply(
            "id",
            15,
            Operation::Put(&[item(b"100", b"late"), item(b"new", b"late")]),
        );
        assert_eq!(store.all("id"), [b""; 0]);
        store.writer.step(AT_ONCE).expect("a step");
    }
    store.apply("id", 30, Operation::Put(&[item(b"200", b"newer")]));
    let swap = Operation::CompareAndSwap {
        key: b"300",
        expected: Expected::Absent,
        replacement: Some(item(b"", b"swapped")),
    };
    // The swap's version is older than the delete: it takes place all the same, since its
    // expectation holds.
    assert!(matches!(store.apply("id", 16, swap), Outcome::Swapped(Some(_))));
    assert_eq!(store.all("id"), [b"200", b"300"]);
    let mut before = number(&path, ROWS);
    while store.writer.is_step_due() {
        store.writer.step(AT_ONCE).expect("a step");
        let rows = number(&path, ROWS);
        assert!(before - rows <= AT_ONCE as i64, "{before}, then {rows} rows");
        assert_eq!(store.all("id"), [b"200", b"300"]);
        before = rows;
    }
    assert_eq!((before, number(&path, NOTES)), (7, 0));
    assert_eq!(store.scan(), 7);
}

#[test]
fn an_older_delete_leaves_what_is_newer_and_a_repeat_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let mut store = open(&path, few());
    store.put_many("id", 10, 100);
    store.apply(
        "id",
        30,
        Operation::Put(&[item(b"050", b"new"), item(b"051", b"new")]),
    );
    let range = Operation::Delete(PredicateRef::Range {
        start: b"020",
        end: b"080",
    });
    store.apply("id", 20, range);
    store.apply("id", 20, range);
    assert_eq!(number(&path, NOTES), 1);
    assert_eq!(store.all("id").len(), 42);
    // A delete that covers the other takes its place.
    store.apply("id", 25, delete_all());
    assert_eq!(number(&path, NOTES), 1);
    assert_eq!(store.all("id"), [b"050", b"051"]);
    store.finish(1);
    assert_eq!(number(&path, ROWS), 2);
    assert_eq!(store.all("id"), [b"050", b"051"]);
}

#[test]
fn a_kill_between_any_two_steps_leaves_the_delete_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("0.db");
    let mut store = open(&path, few());
    store.put_many("id", 10, 60);
    store.apply("id", 20, delete_all());
    store.apply("id", 30, Operation::Put(&[item(b"030", b"new")]));
    // The image that a kill leaves: the files as they are, with the write-ahead file.
    let image = |from: &Path, to: &Path| {
        for suffix in ["", "-wal"] {
            let named = |path: &Path| format!("{}{suffix}", path.display());
            std::fs::copy(named(from), named(to)).expect("a copy");
        }
    };
    let mut from = path.clone();
    let mut kills = 0;
    loop {
        kills += 1;
        let to = directory.path().join(format!("{kills}.db"));
        image(&from, &to);
        drop(store);
        store = open(&to, few());
        assert_eq!(store.all("id"), [b"030"], "after kill {kills}");
        if !store.writer.is_step_due() {
            break;
        }
        store.writer.step(AT_ONCE).expect("a step");
        from = to;
    }
    assert!(kills >= 5, "{kills} kills");
    assert_eq!(number(&from, ROWS), 1);
}

#[test]
fn a_batch_that_fails_leaves_nothing_of_its_deletes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let options = Options {
        file_bytes_max: Some(1 << 20),
        ..few()
    };
    let mut store = open(&path, options);
    store.put_many("id", 10, 60);
    let too_large = vec![1; 4 << 20];
    let items = [item(b"k", &too_large)];
    let changes = [("id", 20, delete_all()), ("large", 21, Operation::Put(&items))];
    let error = store.try_apply(&changes).expect_err("no room");
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(!store.writer.is_step_due());
    assert_eq!((store.all("id").len(), number(&path, ROWS)), (60, 60));
    // The next one is not harmed.
    store.apply("id", 20, delete_all());
    assert_eq!(store.all("id"), [b""; 0]);
    store.finish(AT_ONCE);
    assert_eq!(number(&path, ROWS), 0);
}

#[test]
fn readers_beside_see_all_of_an_id_or_nothing() {
    const ITEMS: usize = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let Parts {
        mut writer, readers, ..
    } = sqlite::open(&path, few()).expect("a store");
    writer.create_namespace(SPACE).expect("a namespace");
    let mut store = Store {
        writer,
        reader: readers.open().expect("a reader"),
    };
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reading: Vec<_> = [false, true]
            .into_iter()
            .map(|scans| {
                let (readers, done) = (&readers, &done);
                scope.spawn(move || {
                    let reader = readers.open().expect("a reader");
                    let mut seen = [0_usize; 2];
                    loop {
                        let is_last = done.load(Ordering::Relaxed);
                        let mut found = Vec::<OwnedItem>::new();
                        if scans {
                            let query = ScanQuery {
                                namespace: SPACE,
                                selection: Selection::default(),
                            };
                            reader.scan(&query, NOW, &mut found).expect("a scan");
                        } else {
                            let query = GetQuery {
                                namespace: SPACE,
                                id: "id",
                                predicate: PredicateRef::All,
                                selection: Selection::default(),
                            };
                            reader.get(&query, NOW, &mut found).expect("a get");
                        }
                        assert!([0, ITEMS].contains(&found.len()), "{} items", found.len());
                        seen[usize::from(found.is_empty())] += 1;
                        if is_last {
                            return seen;
                        }
                    }
                })
            })
            .collect();
        for round in 0..300 {
            store.put_many("id", 10 * round, ITEMS);
            store.apply("id", 10 * round + 5, delete_all());
            store.finish(AT_ONCE);
        }
        // Visible at the end, however quick the writer was.
        store.put_many("id", 10_000, ITEMS);
        done.store(true, Ordering::Relaxed);
        reading
            .into_iter()
            .map(|thread| thread.join().expect("a reader's end"))
            .collect::<Vec<_>>()
    });
    assert!(seen.iter().all(|seen| seen[0] > 0), "{seen:?}");
}

#[test]
fn pending_writes_lie_over_a_delete_that_is_not_finished() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open(
        &directory.path().join("items.db"),
        Options {
            // Deletes are not remembered, but unfinished ones count all the same.
            range_deletes_max: 0,
            ..few()
        },
    );
    store.put_many("id", 10, 60);
    store.apply("id", 20, delete_all());
    let pending = |version, items| Mutation {
        namespace: SPACE,
        id: "id",
        version: Version::new(version, b"p"),
        at: NOW,
        digest: None,
        operation: Operation::Put(items),
    };
    let (old, new) = ([item(b"030", b"old")], [item(b"040", b"new")]);
    let delete = Mutation {
        version: Version::new(18, b"p"),
        operation: delete_all(),
        ..pending(0, &old)
    };
    let pending = [pending(15, &old), delete, pending(30, &new)];
    let keys: &[&[u8]] = &[b"020", b"030", b"040"];
    for predicate in [PredicateRef::All, PredicateRef::Keys(keys)] {
        assert_eq!(store.get("id", predicate, &pending), [b"040"]);
    }
    let mut outcomes = Vec::new();
    store.writer.apply(&pending, &mut outcomes).expect("a batch");
    assert_eq!(store.all("id"), [b"040"]);
}

#[test]
fn too_many_unfinished_deletes_are_finished_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let options = Options {
        remove_at_once_max: 0,
        ..Options::default()
    };
    let mut store = open(&path, options);
    let ids = prism_backends::limits::REMOVALS_MAX + 3;
    let names: Vec<_> = (0..ids).map(|number| format!("id {number}")).collect();
    let items = [item(b"k", b"v")];
    let puts: Vec<_> = names
        .iter()
        .map(|id| (id.as_str(), 10, Operation::Put(&items)))
        .collect();
    store.try_apply(&puts).expect("a batch");
    for id in &names {
        store.apply(id, 20, delete_all());
    }
    assert_eq!(number(&path, ROWS), prism_backends::limits::REMOVALS_MAX as i64);
    assert_eq!(store.scan(), 0);
    store.finish(100);
    assert_eq!((number(&path, ROWS), number(&path, NOTES)), (0, 0));
}

#[test]
fn large_values_that_are_replaced_go_in_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let mut store = open(&path, few());
    let large = vec![1; 3 << 20];
    let keys = [b"a", b"b", b"c"];
    let items = keys.map(|key| item(key, &large));
    store.apply("id", 10, Operation::Put(&items));
    assert_eq!(number(&path, CHUNKS), 9);
    let small = keys.map(|key| item(key, b"small"));
    store.apply("id", 20, Operation::Put(&small));
    assert_eq!(
        (number(&path, CHUNKS), number(&path, NOTES)),
        (9, 3),
        "nobody's, but there"
    );
    store.writer.step(1).expect("a step");
    assert_eq!(number(&path, CHUNKS), 8, "one at a time");
    // A new value uses none of the places that are still to be cleared, also after a start.
    drop(store);
    let mut store = open(&path, few());
    assert!(store.writer.is_step_due());
    store.apply("new", 10, Operation::Put(&items[..1]));
    assert!(store.finish(300) >= 4, "two chunks are more than a step");
    assert_eq!((number(&path, CHUNKS), number(&path, NOTES)), (3, 0));
    store.apply("new", 20, Operation::Put(&small[..1]));
    store.writer.drop_namespace(SPACE).expect("a drop");
    while store.writer.sweep(NOW, 100).expect("a sweep").more {}
    assert_eq!(
        (number(&path, CHUNKS), number(&path, ROWS), number(&path, NOTES)),
        (0, 0, 0)
    );
}

#[test]
fn a_dropped_namespace_takes_its_unfinished_deletes_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let mut store = open(&path, few());
    store.put_many("id", 10, 100);
    store.apply("id", 20, delete_all());
    store.writer.drop_namespace(SPACE).expect("a drop");
    let mut steps = 0;
    while store.writer.sweep(NOW, 20).expect("a sweep").more {
        steps += 1;
        assert!(steps < 100, "the sweep does not end");
    }
    assert_eq!((number(&path, ROWS), number(&path, NOTES)), (0, 0));
    assert!(!store.writer.is_step_due());
}

#[test]
fn no_row_of_an_item_overflows_its_page_whatever_its_value() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let mut store = open(&path, Options::default());
    let value = vec![7; 5_000];
    // Lengths around every border of the format.
    for (id_bytes, key_bytes) in [(1, 0), (36, 1), (200, 100), (56, 57)] {
        let id = "i".repeat(id_bytes);
        for size in (0..600).chain([2_000, 5_000]) {
            let key = format!("{size:0key_bytes$}");
            let items = [ItemRef {
                expires_at: Some(UnixMillis(u64::MAX)),
                compression: 200,
                ..item(key.as_bytes(), &value[..size])
            }];
            store.apply(&id, 10, Operation::Put(&items));
        }
    }
    // A digest may come to each.
    rusqlite::Connection::open(&path)
        .and_then(|connection| connection.execute("UPDATE item SET digest = zeroblob(16)", []))
        .expect("an update");
    let overflow = "SELECT count(*) FROM dbstat WHERE name = 'item' AND pagetype = 'overflow'";
    assert_eq!(number(&path, overflow), 0);
    let in_row = number(&path, "SELECT max(length(value)) FROM item WHERE length(id) = 36");
    assert!(in_row >= 256, "a usual value lies in its row: {in_row}");
}
