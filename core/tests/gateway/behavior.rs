//! The behaviour suite of the stores, through the gateway: every case by gRPC, with 1, 2 and 3
//! shards, so that a result is right whichever shard gets a connection.

use std::{
    ops::ControlFlow,
    pin::pin,
    task::{Context, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prism_backends::{
    behavior::{
        self, Change, Client as SuiteClient, Entry, Expectation, Failure, FailureKind, Harness, Page, Paging,
        Predicate, ScanPage, SwapAnswer, WriteToken,
    },
    memory,
    offer::Offer,
    sqlite,
};
use prism_codec::proto::{
    google::rpc::{BadRequest, ErrorInfo, Status},
    prism::{
        common::v1::{Durability, IdempotencyToken},
        keyvalue::v1::{
            Absent, All, CompareAndSwapRequest, CompareAndSwapResponse, DeleteItems, DeleteRequest,
            DeleteResponse, GetRequest, GetResponse, Item, KeyRange, KeySet, MutateRequest, MutateResponse,
            Mutation, Predicate as WirePredicate, PutItems, PutRequest, PutResponse, ScanRequest,
            ScanResponse, Selection, compare_and_swap_request::Expected, mutation::Operation,
            predicate::Kind,
        },
    },
};
use prism_core::{
    client::{Client, ClientError},
    config::EmbeddedStore,
};
use prost::Message;

use super::support::Gateway;

#[test]
fn memory_with_one_shard() {
    run_suite(EmbeddedStore::Memory, "best-effort", 1);
}

#[test]
fn memory_with_two_shards() {
    run_suite(EmbeddedStore::Memory, "best-effort", 2);
}

#[test]
fn memory_with_three_shards() {
    run_suite(EmbeddedStore::Memory, "best-effort", 3);
}

#[test]
fn sqlite_with_one_shard() {
    run_suite(EmbeddedStore::Sqlite, "best-effort", 1);
}

#[test]
fn sqlite_with_two_shards() {
    run_suite(EmbeddedStore::Sqlite, "best-effort", 2);
}

#[test]
fn sqlite_with_three_shards() {
    run_suite(EmbeddedStore::Sqlite, "best-effort", 3);
}

#[test]
fn strong_with_one_shard() {
    run_suite(EmbeddedStore::Sqlite, "strong", 1);
}

#[test]
fn strong_with_two_shards() {
    run_suite(EmbeddedStore::Sqlite, "strong", 2);
}

#[test]
fn strong_with_three_shards() {
    run_suite(EmbeddedStore::Sqlite, "strong", 3);
}

#[test]
fn eventual_with_two_shards() {
    run_suite(EmbeddedStore::Sqlite, "eventual", 2);
}

fn run_suite(store: EmbeddedStore, durability: &'static str, shards: usize) {
    let offer = match store {
        EmbeddedStore::Memory => memory::KEYVALUE,
        EmbeddedStore::Sqlite => sqlite::KEYVALUE,
    };
    run_suite_on(Gateway::start(store, shards), offer, durability);
}

/// Runs the cases that the offer of the gateway's store claims, with namespaces of this durability.
pub(super) fn run_suite_on(gateway: Gateway, offer: Offer, durability: &'static str) {
    let start = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock behind 1970");
    let mut harness = GatewayHarness {
        gateway,
        offer,
        durability,
        namespaces: 0,
        now_ns: start.as_nanos() as i64,
    };
    for case in behavior::cases_of(&harness.offer()) {
        println!("case {}", case.name);
        run_to_end(behavior::run_case(case.name, &mut harness));
    }
}

/// The calls of this harness block, so a future that is not ready has only yielded to the others.
fn run_to_end(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    while future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
    {}
}

struct GatewayHarness {
    gateway: Gateway,
    offer: Offer,
    durability: &'static str,
    namespaces: u32,
    /// The wall clock at the start, plus the time waited since: cases compare tokens by differences
    /// of a microsecond, so it must not run between two of them.
    now_ns: i64,
}

/// A client with connections of its own, which the kernel spreads over the shards; calls take turns
/// on them.
struct GatewayClient {
    namespace: String,
    durability: &'static str,
    connections: Vec<Client>,
    turn: usize,
}

const CONNECTIONS: usize = 3;

impl Harness for GatewayHarness {
    type Client = GatewayClient;

    async fn client(&mut self) -> GatewayClient {
        self.namespaces += 1;
        let namespace = format!("suite-{}", self.namespaces);
        self.gateway.create_namespace_at(&namespace, self.durability);
        self.connect(namespace)
    }

    async fn client_beside(&mut self, client: &GatewayClient) -> GatewayClient {
        self.connect(client.namespace.clone())
    }

    fn now_ns(&mut self) -> i64 {
        self.now_ns
    }

    async fn pass(&mut self, time: Duration) {
        // The gateway reads the wall clock, and the case demands that time passes.
        std::thread::sleep(time);
        self.now_ns += time.as_nanos() as i64;
    }

    fn offer(&self) -> Offer {
        self.offer
    }

    fn turns_clock(&self) -> bool {
        false
    }

    fn value_bytes_max(&self) -> usize {
        4 << 20
    }
}

impl GatewayHarness {
    fn connect(&self, namespace: String) -> GatewayClient {
        let connections = (0..CONNECTIONS).map(|_| self.gateway.client()).collect();
        GatewayClient {
            namespace,
            durability: self.durability,
            connections,
            turn: 0,
        }
    }
}

impl GatewayClient {
    fn call<Reply: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<Reply, Failure> {
        self.turn = (self.turn + 1) % self.connections.len();
        self.connections[self.turn]
            .unary(&format!("/prism.keyvalue.v1.KeyValue/{method}"), request)
            .map_err(failure)
    }
}

impl SuiteClient for GatewayClient {
    async fn put(&mut self, id: &str, token: &WriteToken, items: &[Entry]) -> Result<(), Failure> {
        let request = PutRequest {
            namespace: self.namespace.clone(),
            id: id.to_owned(),
            idempotency_token: Some(wire_token(token)),
            items: items.iter().map(wire_item).collect(),
        };
        let response: PutResponse = self.call("Put", &request)?;
        let result = response.result.expect("a result");
        let promised = match self.durability {
            "strong" => Durability::Strong,
            "eventual" => Durability::Eventual,
            _ => Durability::BestEffort,
        };
        assert_eq!(result.durability(), promised);
        // A store without a log before it has the write itself, at every durability.
        let is_recorded = promised == Durability::Strong && result.lane > 0 && result.lsn > 0;
        assert!(
            result.applied || is_recorded,
            "acknowledged by nobody: {result:?}"
        );
        Ok(())
    }

    async fn get(&mut self, id: &str, predicate: &Predicate, paging: &Paging) -> Result<Page, Failure> {
        let request = GetRequest {
            namespace: self.namespace.clone(),
            id: id.to_owned(),
            predicate: Some(wire_predicate(predicate)),
            selection: Some(wire_selection(paging)),
        };
        let response: GetResponse = self.call("Get", &request)?;
        let versions = response.items.iter().map(|item| item.version.clone()).collect();
        let items = response.items.into_iter().map(entry).collect();
        Ok(Page {
            items,
            versions,
            next_page_token: response.next_page_token,
        })
    }

    async fn delete(&mut self, id: &str, token: &WriteToken, predicate: &Predicate) -> Result<(), Failure> {
        let request = DeleteRequest {
            namespace: self.namespace.clone(),
            id: id.to_owned(),
            idempotency_token: Some(wire_token(token)),
            predicate: Some(wire_predicate(predicate)),
        };
        self.call::<DeleteResponse>("Delete", &request).map(|_| ())
    }

    async fn scan(&mut self, paging: &Paging) -> Result<ScanPage, Failure> {
        let request = ScanRequest {
            namespace: self.namespace.clone(),
            selection: Some(wire_selection(paging)),
        };
        self.turn = (self.turn + 1) % self.connections.len();
        let mut first = None;
        self.connections[self.turn]
            .server_streaming(
                "/prism.keyvalue.v1.KeyValue/Scan",
                &request,
                |page: ScanResponse| {
                    first = Some(page);
                    ControlFlow::Break(())
                },
            )
            .map_err(failure)?;
        let page = first.unwrap_or_default();
        let items = page.entries.iter().flat_map(|found| &found.items);
        let versions = items.map(|item| item.version.clone()).collect();
        let entries = page
            .entries
            .into_iter()
            .map(|found| (found.id, found.items.into_iter().map(entry).collect()))
            .collect();
        Ok(ScanPage {
            entries,
            versions,
            next_page_token: page.next_page_token,
        })
    }

    async fn mutate(
        &mut self,
        token: &WriteToken,
        changes: &[(String, Change)],
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let mutations = changes
            .iter()
            .map(|(id, change)| Mutation {
                id: id.clone(),
                operation: Some(match change {
                    Change::Put(items) => Operation::Put(PutItems {
                        items: items.iter().map(wire_item).collect(),
                    }),
                    Change::Delete(predicate) => Operation::Delete(DeleteItems {
                        predicate: Some(wire_predicate(predicate)),
                    }),
                }),
            })
            .collect();
        let request = MutateRequest {
            namespace: self.namespace.clone(),
            idempotency_token: Some(wire_token(token)),
            mutations,
        };
        let response: MutateResponse = self.call("Mutate", &request)?;
        Ok(response
            .results
            .into_iter()
            .map(|result| match result.status {
                Some(status) if status.code != 0 => Err(failure(ClientError::Status(Box::new(status)))),
                _ => Ok(()),
            })
            .collect())
    }

    async fn compare_and_swap(
        &mut self,
        id: &str,
        key: &[u8],
        token: &WriteToken,
        expected: &Expectation,
        replacement: Option<&Entry>,
    ) -> Result<SwapAnswer, Failure> {
        let request = CompareAndSwapRequest {
            namespace: self.namespace.clone(),
            id: id.to_owned(),
            key: key.to_vec(),
            idempotency_token: Some(wire_token(token)),
            expected: Some(match expected {
                Expectation::Absent => Expected::Absent(Absent {}),
                Expectation::Value(value) => Expected::Value(value.clone()),
                Expectation::Version(version) => Expected::Version(version.clone()),
            }),
            item: replacement.map(wire_item),
        };
        let response: CompareAndSwapResponse = self.call("CompareAndSwap", &request)?;
        let current_version = response.current.as_ref().map(|item| item.version.clone());
        Ok(SwapAnswer {
            swapped: response.swapped,
            current_version: current_version.unwrap_or_default(),
            current: response.current.map(entry),
        })
    }
}

fn wire_token(token: &WriteToken) -> IdempotencyToken {
    let generation_time = prost_types::Timestamp {
        seconds: token.generation_time_ns.div_euclid(1_000_000_000),
        nanos: token.generation_time_ns.rem_euclid(1_000_000_000) as i32,
    };
    IdempotencyToken {
        generation_time: Some(generation_time),
        token: token.token.clone(),
    }
}

fn wire_item(item: &Entry) -> Item {
    let ttl = item.ttl.map(|ttl| prost_types::Duration {
        seconds: ttl.as_secs() as i64,
        nanos: ttl.subsec_nanos() as i32,
    });
    Item {
        key: item.key.clone(),
        value: item.value.clone(),
        ttl,
        compression: i32::from(item.compression),
        // What a client read it with does not matter on a write.
        version: vec![7; 16],
    }
}

fn entry(item: Item) -> Entry {
    let ttl = item
        .ttl
        .map(|ttl| Duration::new(ttl.seconds as u64, ttl.nanos as u32));
    Entry {
        key: item.key,
        value: item.value,
        ttl,
        compression: item.compression as u8,
    }
}

fn wire_predicate(predicate: &Predicate) -> WirePredicate {
    let kind = match predicate {
        Predicate::All => Kind::All(All {}),
        Predicate::Keys(keys) => Kind::Keys(KeySet { keys: keys.clone() }),
        Predicate::Range { start, end } => Kind::Range(KeyRange {
            start: start.clone(),
            end: end.clone(),
        }),
    };
    WirePredicate { kind: Some(kind) }
}

fn wire_selection(paging: &Paging) -> Selection {
    Selection {
        page_bytes: paging.page_bytes,
        item_limit: paging.item_limit,
        page_token: paging.page_token.clone(),
    }
}

fn failure(error: ClientError) -> Failure {
    let ClientError::Status(status) = error else {
        panic!("the call did not reach the gateway: {error}")
    };
    let field = violated_field(&status);
    let kind = match (status.code, field.as_deref()) {
        (3, _) if reason(&status).as_deref() == Some("TOKEN_REUSED") => FailureKind::TokenReused,
        (3, Some("selection.page_token")) => FailureKind::InvalidPageToken,
        (3, _) => FailureKind::InvalidArgument,
        _ => FailureKind::Other,
    };
    Failure {
        kind,
        field,
        message: status.message,
    }
}

fn reason(status: &Status) -> Option<String> {
    let detail = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"))?;
    Some(
        ErrorInfo::decode(detail.value.as_slice())
            .expect("an ErrorInfo")
            .reason,
    )
}

fn violated_field(status: &Status) -> Option<String> {
    let detail = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("google.rpc.BadRequest"))?;
    let request = BadRequest::decode(detail.value.as_slice()).expect("a BadRequest");
    request
        .field_violations
        .first()
        .map(|violation| violation.field.clone())
}
