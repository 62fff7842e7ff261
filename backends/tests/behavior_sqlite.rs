//! The SQLite store passes the behaviour suite.

use prism_backends::SqliteStore;
use prism_backends::behavior::local::LocalHarness;
use prism_backends::sqlite::Options;

#[test]
fn the_sqlite_store_passes_the_suite() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("items.db"), Options::default()).expect("a store");
    LocalHarness::new(store).run();
}

#[test]
fn it_passes_when_nearly_all_of_a_delete_is_left_to_later_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options {
        remove_at_once_max: 1,
        ..Options::default()
    };
    let store = SqliteStore::open(&directory.path().join("items.db"), options).expect("a store");
    LocalHarness::new(store).run();
}
