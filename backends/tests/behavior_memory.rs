//! The memory store passes the behaviour suite.

use std::cell::RefCell;

use prism_backends::MemoryStore;
use prism_backends::behavior::local::LocalHarness;

#[test]
fn the_memory_store_passes_the_suite() {
    LocalHarness::new(RefCell::new(MemoryStore::new())).run();
}
