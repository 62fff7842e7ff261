//! Promises that a log in front of a store relies on when it applies a mutation later than the call
//! came, or once more: the effect is that of its own time. The same for every store.

use prism_backends::api::keyvalue::{Reads, Store, Upkeep, Writes};
use prism_backends::behavior::ready;
use prism_backends::sqlite::{Options, SqliteStore};
use prism_backends::{
    Expected, GetQuery, ItemRef, ItemSink, Mutation, NamespaceId, Operation, Outcome, PredicateRef,
    Selection, UnixMillis, Version,
};

const SPACE: NamespaceId = NamespaceId(7);
const START: UnixMillis = UnixMillis(1_700_000_000_000);
const SECOND: u64 = 1_000;

/// Calls `test` with an empty store of each kind.
fn with_each_store(mut test: impl FnMut(&Store)) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("items.db");
    let sqlite = SqliteStore::open(&path, Options::default()).expect("a store");
    for store in [Store::memory(), Store::Sqlite(sqlite)] {
        ready(store.create_namespace(SPACE)).expect("a namespace");
        test(&store);
    }
}

fn mutation<'a>(id: &'a str, version: i64, at: UnixMillis, operation: Operation<'a>) -> Mutation<'a> {
    Mutation {
        namespace: SPACE,
        id,
        version: Version::new(version, b"t"),
        at,
        digest: None,
        operation,
    }
}

fn swap<'a>(expected: Option<&'a [u8]>, replacement: Option<&'a [u8]>) -> Operation<'a> {
    Operation::CompareAndSwap {
        key: b"k",
        expected: expected.map_or(Expected::Absent, Expected::Value),
        replacement: replacement.map(|value| item(value, None)),
    }
}

fn item(value: &[u8], expires_at: Option<UnixMillis>) -> ItemRef<'_> {
    ItemRef {
        key: b"k",
        value,
        expires_at,
        compression: 0,
    }
}

fn apply(store: &Store, mutation: Mutation<'_>) -> Outcome {
    let mut outcomes = Vec::new();
    ready(store.apply(&[mutation], None, &mut outcomes)).expect("a batch");
    outcomes.remove(0)
}

#[derive(Default)]
struct Value(Option<Vec<u8>>);

impl ItemSink for Value {
    fn item(&mut self, item: &ItemRef<'_>, _: Version) {
        self.0 = Some(item.value.to_vec());
    }
}

fn value(store: &Store, id: &str, now: UnixMillis) -> Option<Vec<u8>> {
    let query = GetQuery {
        namespace: SPACE,
        id,
        predicate: PredicateRef::All,
        selection: Selection::default(),
    };
    let mut found = Value::default();
    ready(store.get(&query, now, &mut found)).expect("a page");
    found.0
}

#[test]
fn a_swap_is_judged_by_its_own_time_however_late_it_comes() {
    with_each_store(|store| {
        let (taken, late) = (START.plus(30 * SECOND), START.plus(120 * SECOND));
        for id in ["taken", "refused"] {
            let items = [item(b"v", Some(START.plus(60 * SECOND)))];
            apply(store, mutation(id, 1, START, Operation::Put(&items)));
        }
        // A swap of a later time, of another item, comes first: the store must not judge by a clock
        // of its own.
        apply(store, mutation("other", 1, late, swap(None, Some(b"x"))));
        let outcome = apply(
            store,
            mutation("taken", 2, taken, swap(Some(b"v"), Some(b"done"))),
        );
        assert!(matches!(outcome, Outcome::Swapped(_)), "{outcome:?}");
        assert_eq!(value(store, "taken", late).as_deref(), Some(&b"done"[..]));
        let outcome = apply(store, mutation("refused", 2, taken, swap(None, Some(b"x"))));
        assert!(matches!(outcome, Outcome::NotSwapped(Some(_))), "{outcome:?}");
        let outcome = apply(store, mutation("refused", 3, late, swap(None, Some(b"y"))));
        assert!(
            matches!(outcome, Outcome::Swapped(_)),
            "one that was taken later finds it expired: {outcome:?}"
        );
    });
}

#[test]
fn a_delete_is_remembered_from_its_own_time_on() {
    with_each_store(|store| {
        let window = store.remembers().window_ms;
        let deletes = [("key", PredicateRef::Keys(&[b"k"])), ("range", PredicateRef::All)];
        for (id, predicate) in deletes {
            apply(store, mutation(id, 5, START, Operation::Delete(predicate)));
        }
        let put_older = |store: &Store, id| {
            apply(
                store,
                mutation(id, 4, START, Operation::Put(&[item(b"older", None)])),
            )
        };
        ready(store.sweep(START.plus(window - 1), 100)).expect("a sweep");
        for (id, _) in deletes {
            put_older(store, id);
            assert_eq!(value(store, id, START), None, "{id}");
        }
        ready(store.sweep(START.plus(window), 100)).expect("a sweep");
        for (id, _) in deletes {
            put_older(store, id);
            assert!(value(store, id, START).is_some(), "{id} is forgotten");
        }
    });
}
