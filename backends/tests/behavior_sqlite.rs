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
