//! Parts of the tests of KeyValue on a server that are the same for each kind.

use std::future::Future;

use prism_backends::api::keyvalue::{Reads, Writes};
use prism_backends::{
    Expected, GetQuery, ItemRef, ItemSink, Mutation, NamespaceId, Operation, Outcome, PredicateRef,
    Selection, StoreError, UnixMillis, Version,
};

pub(crate) const SPACE: NamespaceId = NamespaceId(7);
pub(crate) const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// Runs a test within a runtime as a sidecar has one.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

pub(crate) fn mutation<'a>(id: &'a str, version: i64, operation: Operation<'a>) -> Mutation<'a> {
    Mutation {
        namespace: SPACE,
        id,
        version: Version::new(version, b"token"),
        at: NOW,
        digest: Some(version as u64),
        operation,
    }
}

pub(crate) fn item<'a>(key: &'a [u8], value: &'a [u8]) -> ItemRef<'a> {
    ItemRef {
        key,
        value,
        expires_at: None,
        compression: 0,
    }
}

pub(crate) fn swap<'a>(expected: Option<&'a [u8]>, value: &'a [u8]) -> Operation<'a> {
    Operation::CompareAndSwap {
        key: b"k",
        expected: expected.map_or(Expected::Absent, Expected::Value),
        replacement: Some(item(b"k", value)),
    }
}

pub(crate) async fn apply(store: &impl Writes, mutation: Mutation<'_>) -> Outcome {
    let mut outcomes = Vec::new();
    store
        .apply(&[mutation], None, &mut outcomes)
        .await
        .expect("a batch");
    outcomes.remove(0)
}

#[derive(Default)]
pub(crate) struct Found(pub(crate) Vec<(Vec<u8>, Vec<u8>)>);

impl ItemSink for Found {
    fn item(&mut self, item: &ItemRef<'_>, _: Version) {
        self.0.push((item.key.to_vec(), item.value.to_vec()));
    }
}

pub(crate) async fn get(store: &impl Reads, id: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
    let query = GetQuery {
        namespace: SPACE,
        id,
        predicate: PredicateRef::All,
        selection: Selection::default(),
    };
    let mut found = Found::default();
    store.get(&query, NOW, &mut found).await?;
    Ok(found.0)
}

pub(crate) async fn value(store: &impl Reads, id: &str) -> Option<Vec<u8>> {
    let mut found = get(store, id).await.expect("a page");
    found.pop().map(|(_, value)| value)
}
