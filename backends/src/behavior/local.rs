//! The suite's harness for a store in this process, with a simulated clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::join::run_to_end;
use super::{
    Change, Client, Entry, Expectation, Failure, FailureKind, Harness, Page, Paging, Predicate, ScanPage,
    SwapAnswer, WriteToken,
};
use crate::api::keyvalue::{Reads, Upkeep, Writes};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::{Expected, ItemRef, Mutation, Operation, Outcome, OwnedItem, PredicateRef};
use crate::offer::Offer;
use crate::query::{GetQuery, ItemSink, ScanQuery, Selection};
use crate::version::Version;

/// A store and its clock.
#[derive(Debug)]
pub struct LocalHarness<S> {
    shared: Rc<Shared<S>>,
    namespaces: u32,
}

/// Calls on one namespace of a store in this process.
#[derive(Debug)]
pub struct LocalClient<S> {
    shared: Rc<Shared<S>>,
    namespace: NamespaceId,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    now: Cell<UnixMillis>,
}

impl<S: Reads + Writes + Upkeep> LocalHarness<S> {
    /// Wraps a store for the suite. Namespaces are created from number 1,000 on.
    pub fn new(store: S) -> LocalHarness<S> {
        let shared = Shared {
            store,
            now: Cell::new(UnixMillis(1_700_000_000_000)),
        };
        LocalHarness {
            shared: Rc::new(shared),
            namespaces: 1_000,
        }
    }

    /// Runs the cases of the suite whose features the store offers, by polling without a runtime.
    ///
    /// # Panics
    /// When a case fails.
    pub fn run(&mut self) {
        run_to_end(super::run(self));
    }
}

impl<S: Reads + Writes + Upkeep> Harness for LocalHarness<S> {
    type Client = LocalClient<S>;

    async fn client(&mut self) -> LocalClient<S> {
        self.namespaces += 1;
        let namespace = NamespaceId(self.namespaces);
        self.shared
            .store
            .create_namespace(namespace)
            .await
            .expect("a new namespace");
        LocalClient {
            shared: self.shared.clone(),
            namespace,
        }
    }

    async fn client_beside(&mut self, client: &LocalClient<S>) -> LocalClient<S> {
        LocalClient {
            shared: client.shared.clone(),
            namespace: client.namespace,
        }
    }

    fn now_ns(&mut self) -> i64 {
        self.shared.now.get().0 as i64 * 1_000_000
    }

    async fn pass(&mut self, time: Duration) {
        let now = self.shared.now.get().plus(time.as_millis() as u64);
        self.shared.now.set(now);
        // Sweeps a little, as the gateway would, so that cases see states before, between and
        // after.
        self.shared.store.sweep(now, 64).await.expect("a sweep");
    }

    fn turns_clock(&self) -> bool {
        true
    }

    fn offer(&self) -> Offer {
        self.shared.store.offer()
    }

    fn value_bytes_max(&self) -> usize {
        self.offer().value_bytes_max
    }
}

impl<S: Writes> LocalClient<S> {
    async fn apply(&self, mutations: &[Mutation<'_>]) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::new();
        self.shared.store.apply(mutations, None, &mut outcomes).await?;
        assert_eq!(outcomes.len(), mutations.len(), "one outcome for each mutation");
        Ok(outcomes)
    }

    async fn apply_one(
        &self,
        id: &str,
        version: Version,
        digest: Option<u64>,
        operation: Operation<'_>,
    ) -> Result<Outcome, Failure> {
        let mutation = Mutation {
            namespace: self.namespace,
            id,
            version,
            digest,
            at: self.shared.now.get(),
            operation,
        };
        match self.apply(&[mutation]).await?.remove(0) {
            Outcome::Refused(error) => Err(error.into()),
            outcome => Ok(outcome),
        }
    }

    fn item<'a>(&self, entry: &'a Entry) -> ItemRef<'a> {
        ItemRef {
            key: &entry.key,
            value: &entry.value,
            expires_at: entry
                .ttl
                .map(|ttl| self.shared.now.get().plus(ttl.as_millis() as u64)),
            compression: entry.compression,
        }
    }

    fn entry(&self, item: OwnedItem) -> Entry {
        let now = self.shared.now.get();
        let left = |moment: UnixMillis| Duration::from_millis(moment.0.saturating_sub(now.0));
        Entry {
            key: item.key,
            value: item.value,
            ttl: item.expires_at.map(left),
            compression: item.compression,
        }
    }
}

impl<S: Reads + Writes> Client for LocalClient<S> {
    async fn put(&mut self, id: &str, token: &WriteToken, items: &[Entry]) -> Result<(), Failure> {
        let items: Vec<_> = items.iter().map(|entry| self.item(entry)).collect();
        self.apply_one(id, version(token), None, Operation::Put(&items))
            .await
            .map(drop)
    }

    async fn get(&mut self, id: &str, predicate: &Predicate, paging: &Paging) -> Result<Page, Failure> {
        let keys = keys_of(predicate);
        let query = GetQuery {
            namespace: self.namespace,
            id,
            predicate: borrowed(predicate, &keys),
            selection: selection(paging),
        };
        let mut found = Collected::default();
        let token = self
            .shared
            .store
            .get(&query, self.shared.now.get(), &mut found)
            .await?;
        Ok(Page {
            items: found.items.into_iter().map(|item| self.entry(item)).collect(),
            versions: found.versions,
            next_page_token: token.map_or_else(Vec::new, |token| token.as_bytes().to_vec()),
        })
    }

    async fn delete(&mut self, id: &str, token: &WriteToken, predicate: &Predicate) -> Result<(), Failure> {
        let keys = keys_of(predicate);
        self.apply_one(
            id,
            version(token),
            None,
            Operation::Delete(borrowed(predicate, &keys)),
        )
        .await
        .map(drop)
    }

    async fn scan(&mut self, paging: &Paging) -> Result<ScanPage, Failure> {
        let query = ScanQuery {
            namespace: self.namespace,
            selection: selection(paging),
        };
        let mut found = Collected::default();
        let token = self
            .shared
            .store
            .scan(&query, self.shared.now.get(), &mut found)
            .await?;
        let mut items = found.items.into_iter();
        let mut entries = Vec::new();
        for (id, count) in found.ids {
            entries.push((
                id,
                items.by_ref().take(count).map(|item| self.entry(item)).collect(),
            ));
        }
        assert_eq!(items.next(), None, "an item came before any id");
        Ok(ScanPage {
            entries,
            versions: found.versions,
            next_page_token: token.map_or_else(Vec::new, |token| token.as_bytes().to_vec()),
        })
    }

    async fn mutate(
        &mut self,
        token: &WriteToken,
        changes: &[(String, Change)],
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let parts: Vec<(Vec<ItemRef<'_>>, Vec<&[u8]>)> = changes
            .iter()
            .map(|(_, change)| match change {
                Change::Put(items) => (items.iter().map(|entry| self.item(entry)).collect(), Vec::new()),
                Change::Delete(predicate) => (Vec::new(), keys_of(predicate)),
            })
            .collect();
        let mutations: Vec<Mutation<'_>> = changes
            .iter()
            .zip(&parts)
            .enumerate()
            .map(|(position, ((id, change), (items, keys)))| Mutation {
                namespace: self.namespace,
                id,
                version: version(token).at_position(position),
                digest: None,
                at: self.shared.now.get(),
                operation: match change {
                    Change::Put(_) => Operation::Put(items),
                    Change::Delete(predicate) => Operation::Delete(borrowed(predicate, keys)),
                },
            })
            .collect();
        let answer = |outcome| match outcome {
            Outcome::Refused(error) => Err(error.into()),
            _ => Ok(()),
        };
        Ok(self.apply(&mutations).await?.into_iter().map(answer).collect())
    }

    async fn compare_and_swap(
        &mut self,
        id: &str,
        key: &[u8],
        token: &WriteToken,
        expected: &Expectation,
        replacement: Option<&Entry>,
    ) -> Result<SwapAnswer, Failure> {
        let digest = digest_of_swap(id, key, expected, replacement);
        let expected = match expected {
            Expectation::Absent => Expected::Absent,
            Expectation::Value(value) => Expected::Value(value),
            Expectation::Version(version) => Expected::Version(version),
        };
        let replacement = replacement.map(|entry| self.item(entry));
        let operation = Operation::CompareAndSwap {
            key,
            expected,
            replacement,
        };
        match self
            .apply_one(id, version(token), Some(digest), operation)
            .await?
        {
            Outcome::Swapped(_) => Ok(SwapAnswer {
                swapped: true,
                ..SwapAnswer::default()
            }),
            Outcome::NotSwapped(found) => {
                let version = found.as_ref().and_then(|found| found.version);
                Ok(SwapAnswer {
                    swapped: false,
                    current: found.map(|found| self.entry(found.item)),
                    current_version: version.map_or_else(Vec::new, |version| version.to_bytes().to_vec()),
                })
            }
            other => panic!("a swap was answered with {other:?}"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let message = error.to_string();
        let (kind, field) = match error {
            StoreError::InvalidArgument { field, .. } => (FailureKind::InvalidArgument, Some(field)),
            StoreError::InvalidPageToken => (FailureKind::InvalidPageToken, None),
            StoreError::TokenReused => (FailureKind::TokenReused, None),
            _ => (FailureKind::Other, None),
        };
        Failure { kind, field, message }
    }
}

/// Receiver that keeps a query's results.
#[derive(Default)]
struct Collected {
    ids: Vec<(String, usize)>,
    items: Vec<OwnedItem>,
    versions: Vec<Vec<u8>>,
}

impl ItemSink for Collected {
    fn id(&mut self, id: &str) {
        self.ids.push((id.to_owned(), 0));
    }

    fn item(&mut self, item: &ItemRef<'_>, version: Version) {
        self.items.push((*item).into());
        self.versions.push(version.to_bytes().to_vec());
        if let Some((_, count)) = self.ids.last_mut() {
            *count += 1;
        }
    }
}

fn version(token: &WriteToken) -> Version {
    Version::new(token.generation_time_ns, &token.token)
}

/// Digest of a swap, made as the gateway makes it from the request.
fn digest_of_swap(id: &str, key: &[u8], expected: &Expectation, replacement: Option<&Entry>) -> u64 {
    let mut digest = Digest::default();
    digest.bytes(id.as_bytes());
    digest.bytes(key);
    match expected {
        Expectation::Absent => digest.number(0),
        Expectation::Value(value) => digest.bytes(value),
        Expectation::Version(version) => {
            digest.number(1);
            digest.bytes(version);
        }
    }
    if let Some(item) = replacement {
        digest.bytes(&item.value);
        digest.number(item.ttl.map_or(u64::MAX, |ttl| ttl.as_millis() as u64));
        digest.number(u64::from(item.compression));
    }
    digest.finish()
}

fn keys_of(predicate: &Predicate) -> Vec<&[u8]> {
    match predicate {
        Predicate::Keys(keys) => keys.iter().map(Vec::as_slice).collect(),
        _ => Vec::new(),
    }
}

fn borrowed<'a>(predicate: &'a Predicate, keys: &'a [&'a [u8]]) -> PredicateRef<'a> {
    match predicate {
        Predicate::All => PredicateRef::All,
        Predicate::Keys(_) => PredicateRef::Keys(keys),
        Predicate::Range { start, end } => PredicateRef::Range { start, end },
    }
}

fn selection(paging: &Paging) -> Selection<'_> {
    Selection {
        page_bytes: paging.page_bytes,
        item_limit: paging.item_limit,
        page_token: &paging.page_token,
    }
}
