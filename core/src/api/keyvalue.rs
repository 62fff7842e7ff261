//! KeyValue requests against a store: views of the wire in, response messages out.
//!
//! The same code serves the memory store on its shard (inline, without an allocation for a Put of one item) and SQLite on
//! its helper threads. It knows nothing of connections, shards or threads.

use prism_backends::{
    Expected, GetQuery, ItemRef, ItemSink, Mutation, NamespaceId, Operation, Outcome, PageToken,
    PredicateRef, ScanQuery, Selection, StoreError, UnixMillis, Version, memory::MemoryStore,
};
use prism_codec::{
    grpc::Status,
    message::{
        common::{AnyView, DurationView, TokenView, WriteResultView},
        keyvalue::{
            self as wire, CompareAndSwapView, DeleteView, ExpectedView, GetView, ItemView, MutateView,
            MutationOperation, PredicateView, PutView, ScanView, SelectionView, StatusOut,
        },
    },
    method::KeyValueMethod,
    proto::prism::common::v1::Durability,
};
use smallvec::SmallVec;

use super::digest::digest_of;
use crate::call::{
    context::Context,
    error,
    job::PartOutcome,
    record::{LoggedWrite, Unreadable},
    ticket::Stamp,
};

/// A decoded request. Everything in it has been checked against the limits of the wire.
pub(crate) enum Request<'a> {
    Put(PutView<'a>),
    Get(GetView<'a>),
    Delete(DeleteView<'a>),
    Scan(ScanView<'a>),
    Mutate(MutateView<'a>),
    CompareAndSwap(CompareAndSwapView<'a>),
}

impl<'a> Request<'a> {
    /// Decodes the request message of a method.
    pub(crate) fn decode(method: KeyValueMethod, message: &'a [u8]) -> Result<Self, Box<Status>> {
        let decoded = match method {
            KeyValueMethod::Put => PutView::decode(message).map(Self::Put),
            KeyValueMethod::Get => GetView::decode(message).map(Self::Get),
            KeyValueMethod::Delete => DeleteView::decode(message).map(Self::Delete),
            KeyValueMethod::Scan => ScanView::decode(message).map(Self::Scan),
            KeyValueMethod::Mutate => MutateView::decode(message).map(Self::Mutate),
            KeyValueMethod::CompareAndSwap => CompareAndSwapView::decode(message).map(Self::CompareAndSwap),
        };
        decoded.map_err(|cause| error::from_decode(&cause))
    }

    /// The namespace that the request names.
    pub(crate) fn namespace(&self) -> &'a str {
        match self {
            Self::Put(view) => view.namespace,
            Self::Get(view) => view.namespace,
            Self::Delete(view) => view.namespace,
            Self::Scan(view) => view.namespace,
            Self::Mutate(view) => view.namespace,
            Self::CompareAndSwap(view) => view.namespace,
        }
    }

    /// The id that the request is about; `None` for those about many.
    pub(crate) fn id(&self) -> Option<&'a str> {
        match self {
            Self::Put(view) => Some(view.id),
            Self::Get(view) => Some(view.id),
            Self::Delete(view) => Some(view.id),
            Self::CompareAndSwap(view) => Some(view.id),
            Self::Scan(_) | Self::Mutate(_) => None,
        }
    }

    /// The idempotency token of a write.
    pub(crate) fn token(&self) -> Option<TokenView<'a>> {
        match self {
            Self::Put(view) => view.token,
            Self::Delete(view) => view.token,
            Self::Mutate(view) => view.token,
            Self::CompareAndSwap(view) => view.token,
            Self::Get(_) | Self::Scan(_) => None,
        }
    }
}

/// One mutation with the arrays that it borrows.
pub(crate) struct Prepared<'a> {
    namespace: NamespaceId,
    pub(crate) id: &'a str,
    version: Version,
    /// When the call was taken.
    at: UnixMillis,
    digest: Option<u64>,
    /// Position in a Mutate; 0 otherwise.
    pub(crate) index: u32,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Put(SmallVec<[ItemRef<'a>; 1]>),
    DeleteAll,
    DeleteKeys(SmallVec<[&'a [u8]; 4]>),
    DeleteRange {
        start: &'a [u8],
        end: &'a [u8],
    },
    CompareAndSwap {
        key: &'a [u8],
        expected: Expected<'a>,
        replacement: Option<ItemRef<'a>>,
    },
}

/// What a write asks for.
pub(crate) struct Writes<'a> {
    /// One, except for Mutate.
    pub(crate) mutations: SmallVec<[Prepared<'a>; 1]>,
    /// Mutations of a Mutate that are invalid by themselves.
    pub(crate) refused: Vec<PartOutcome>,
}

impl Prepared<'_> {
    /// Makes a compare-and-swap that took place a plain write of what it wrote, at the version that this has.
    pub(crate) fn decide(&mut self, version: Version) {
        if let Kind::CompareAndSwap { key, replacement, .. } = self.kind {
            self.version = version;
            self.kind = match replacement {
                Some(item) => Kind::Put(SmallVec::from([ItemRef { key, ..item }])),
                None => Kind::DeleteKeys(SmallVec::from_iter([key])),
            };
        }
    }

    /// The mutation as a store takes it.
    pub(crate) fn mutation(&self) -> Mutation<'_> {
        let operation = match &self.kind {
            Kind::Put(items) => Operation::Put(items),
            Kind::DeleteAll => Operation::Delete(PredicateRef::All),
            Kind::DeleteKeys(keys) => Operation::Delete(PredicateRef::Keys(keys)),
            Kind::DeleteRange { start, end } => Operation::Delete(PredicateRef::Range { start, end }),
            Kind::CompareAndSwap {
                key,
                expected,
                replacement,
            } => Operation::CompareAndSwap {
                key,
                expected: *expected,
                replacement: *replacement,
            },
        };
        Mutation {
            namespace: self.namespace,
            id: self.id,
            version: self.version,
            at: self.at,
            digest: self.digest,
            operation,
        }
    }
}

/// The mutations that a write asks for. `owns` says which ids of a Mutate are meant; all, usually.
pub(crate) fn writes<'a>(
    request: &Request<'a>,
    context: &Context,
    owns: impl Fn(&str) -> bool,
) -> Writes<'a> {
    let version = version_of(request.token(), context.stamp);
    // Only swaps are remembered by stores.
    let digest = match request {
        Request::CompareAndSwap(_) => digest_of(request),
        _ => None,
    };
    let prepared = |id, index: u32, kind| Prepared {
        namespace: context.namespace,
        id,
        version,
        at: context.now,
        digest,
        index,
        kind,
    };
    let mut all = SmallVec::new();
    let mut refused = Vec::new();
    match request {
        Request::Put(view) => {
            all.push(prepared(
                view.id,
                0,
                Kind::Put(view.items.iter().map(|item| item_ref(&item, context)).collect()),
            ));
        }
        Request::Delete(view) => all.push(prepared(view.id, 0, delete_kind(&view.predicate))),
        Request::CompareAndSwap(view) => {
            let expected = match view.expected {
                ExpectedView::Absent => Expected::Absent,
                ExpectedView::Value(value) => Expected::Value(value),
            };
            let replacement = view.item.as_ref().map(|item| item_ref(item, context));
            all.push(prepared(
                view.id,
                0,
                Kind::CompareAndSwap {
                    key: view.key,
                    expected,
                    replacement,
                },
            ));
        }
        Request::Mutate(view) => {
            for (index, mutation) in view
                .mutations
                .iter()
                .enumerate()
                .filter(|(_, mutation)| owns(mutation.id))
            {
                let kind = match &mutation.operation {
                    Ok(MutationOperation::Put(items)) => {
                        Kind::Put(items.iter().map(|item| item_ref(&item, context)).collect())
                    }
                    Ok(MutationOperation::Delete(predicate)) => delete_kind(predicate),
                    Err(cause) => {
                        refused.push(PartOutcome {
                            index: index as u32,
                            outcome: Err(error::from_decode(cause)),
                        });
                        continue;
                    }
                };
                let mut one = prepared(mutation.id, index as u32, kind);
                one.version = version.at_position(index);
                all.push(one);
            }
        }
        Request::Get(_) | Request::Scan(_) => {}
    }
    Writes {
        mutations: all,
        refused,
    }
}

/// The mutations that a record asks for; those of a Mutate that are invalid by themselves are left out.
pub(crate) fn writes_of<'a>(record: &LoggedWrite<'a>) -> Result<Writes<'a>, Unreadable> {
    let request = Request::decode(record.method, record.body).map_err(|_| Unreadable)?;
    let (part, namespace) = (record.part, record.context.namespace);
    let owns = |id: &str| part.is_none_or(|part| part.owns(namespace, id));
    let mut writes = writes(&request, &record.context, owns);
    if let Some(version) = record.swapped_at {
        writes.mutations.iter_mut().for_each(|one| one.decide(version));
    }
    Ok(writes)
}

fn delete_kind<'a>(predicate: &PredicateView<'a>) -> Kind<'a> {
    match predicate {
        PredicateView::All => Kind::DeleteAll,
        PredicateView::Keys(keys) => Kind::DeleteKeys(keys.iter().collect()),
        PredicateView::Range { start, end } => Kind::DeleteRange { start, end },
    }
}

fn item_ref<'a>(item: &ItemView<'a>, context: &Context) -> ItemRef<'a> {
    let ttl_ms = item
        .ttl
        .map_or(context.default_ttl_ms, |ttl| ttl.as_millis_ceil());
    ItemRef {
        key: item.key,
        value: item.value,
        expires_at: ttl_ms.map(|ttl| context.now.plus(ttl)),
        // Unknown values of the open enum beyond a byte cannot be stored; the view refuses them.
        compression: u8::try_from(item.compression).unwrap_or(0),
    }
}

fn version_of(token: Option<TokenView<'_>>, stamp: Stamp) -> Version {
    match token {
        Some(token) => {
            let time_ns = token
                .generation_time
                .and_then(|time| time.as_unix_nanos())
                .unwrap_or(stamp.time_ns);
            Version::new(time_ns, token.token)
        }
        // Stamps of one shard never repeat; the shard's number tells the shards apart.
        None => Version {
            generation_time_ns: stamp.time_ns,
            token_hash: u64::from(stamp.shard) << 10,
        },
    }
}

/// Refuses a token whose clock is too far from the wall clock: its write could win or lose against all others for that long.
pub(crate) fn check_drift(request: &Request<'_>, wall_ns: i64, drift_max_ns: i64) -> Result<(), Box<Status>> {
    let Some(time) = request.token().and_then(|token| token.generation_time) else {
        return Ok(());
    };
    let near = time
        .as_unix_nanos()
        .is_some_and(|time| time.abs_diff(wall_ns) <= drift_max_ns.unsigned_abs());
    if near {
        return Ok(());
    }
    Err(error::invalid(
        "idempotency_token.generation_time",
        &format!(
            "must lie within {} s of the gateway's clock; leave it out to use that clock",
            drift_max_ns / 1_000_000_000
        ),
    ))
}

/// Writes the response message for the outcomes of a request's mutations; `result` is what those that took effect say.
pub(crate) fn encode_outcomes(
    method: KeyValueMethod,
    writes: Writes<'_>,
    outcomes: impl Iterator<Item = Outcome>,
    now: UnixMillis,
    result: &WriteResultView,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    if method == KeyValueMethod::Mutate {
        encode_parts(part_outcomes(writes, outcomes, result), out);
        return Ok(());
    }
    let outcome = outcomes.into_iter().next().unwrap_or(Outcome::Applied);
    encode_outcome(method, &outcome, now, result, out)
}

/// Writes the response message for the outcome of a single mutation.
pub(crate) fn encode_outcome(
    method: KeyValueMethod,
    outcome: &Outcome,
    now: UnixMillis,
    result: &WriteResultView,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    match (method, outcome) {
        (_, Outcome::Refused(cause)) => return Err(error::from_store(cause)),
        (KeyValueMethod::CompareAndSwap, Outcome::NotSwapped(current)) => {
            let current = current.as_ref().map(|item| item_view(&item.as_ref(), now));
            wire::encode_compare_and_swap_response(out, false, current.as_ref(), None);
        }
        (KeyValueMethod::CompareAndSwap, _) => {
            wire::encode_compare_and_swap_response(out, true, None, Some(result));
        }
        _ => encode_write_response(method, result, out),
    }
    Ok(())
}

/// Writes the response message of a Put or Delete that took effect.
pub(crate) fn encode_write_response(method: KeyValueMethod, result: &WriteResultView, out: &mut Vec<u8>) {
    match method {
        KeyValueMethod::Delete => wire::encode_delete_response(out, result),
        _ => wire::encode_put_response(out, result),
    }
}

/// The outcomes of a Mutate's mutations, with their positions in the request.
pub(crate) fn part_outcomes(
    writes: Writes<'_>,
    outcomes: impl Iterator<Item = Outcome>,
    result: &WriteResultView,
) -> Vec<PartOutcome> {
    let Writes {
        mutations,
        refused: mut parts,
    } = writes;
    parts.extend(mutations.iter().zip(outcomes).map(|(mutation, outcome)| {
        let outcome = match outcome {
            Outcome::Refused(cause) => Err(error::from_store(&cause)),
            Outcome::Applied | Outcome::Swapped(_) | Outcome::NotSwapped(_) => Ok(*result),
        };
        PartOutcome {
            index: mutation.index,
            outcome,
        }
    }));
    parts
}

/// The response of a Mutate; parts may come in any order.
pub(crate) fn encode_parts(mut parts: Vec<PartOutcome>, out: &mut Vec<u8>) {
    parts.sort_unstable_by_key(|part| part.index);
    let mut writer = wire::MutateResponseWriter::new(out);
    for part in &parts {
        match &part.outcome {
            Ok(result) => writer.result(Some(&StatusOut::default()), Some(result)),
            Err(status) => {
                let status = status.to_proto();
                let details: Vec<_> = status
                    .details
                    .iter()
                    .map(|detail| AnyView {
                        type_url: &detail.type_url,
                        value: &detail.value,
                    })
                    .collect();
                writer.result(
                    Some(&StatusOut {
                        code: status.code,
                        message: &status.message,
                        details: &details,
                    }),
                    None,
                );
            }
        }
    }
    writer.finish();
}

/// Numbers of `prism.common.v1.Durability`.
pub(crate) const BEST_EFFORT: i32 = Durability::BestEffort as i32;
pub(crate) const EVENTUAL: i32 = Durability::Eventual as i32;
pub(crate) const STRONG: i32 = Durability::Strong as i32;

/// What a write says that the store has and no log numbered.
pub(crate) fn applied(durability: i32) -> WriteResultView {
    WriteResultView {
        durability,
        lane: 0,
        lsn: 0,
        applied: true,
    }
}

/// Serves a unary request from a shard's own memory store, inline.
pub(crate) fn execute_in_memory(
    store: &mut MemoryStore,
    method: KeyValueMethod,
    request: &Request<'_>,
    context: &Context,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    if let Request::Get(view) = request {
        return get(view, context, out, |query, sink| {
            store.get(query, context.now, sink)
        });
    }
    let writes = writes(request, context, |_| true);
    if let [one] = writes.mutations.as_slice()
        && method != KeyValueMethod::Mutate
    {
        return encode_outcome(
            method,
            &store.apply_one(&one.mutation()),
            context.now,
            &applied(BEST_EFFORT),
            out,
        );
    }
    let outcomes = apply_each(store, &writes);
    encode_outcomes(
        method,
        writes,
        outcomes.into_iter(),
        context.now,
        &applied(BEST_EFFORT),
        out,
    )
}

/// Serves the part of a Mutate whose ids this shard owns.
pub(crate) fn execute_part_in_memory(
    store: &mut MemoryStore,
    request: &Request<'_>,
    context: &Context,
    owns: impl Fn(&str) -> bool,
) -> Vec<PartOutcome> {
    let writes = writes(request, context, owns);
    let outcomes = apply_each(store, &writes);
    part_outcomes(writes, outcomes.into_iter(), &applied(BEST_EFFORT))
}

fn apply_each(store: &mut MemoryStore, writes: &Writes<'_>) -> Vec<Outcome> {
    writes
        .mutations
        .iter()
        .map(|one| store.apply_one(&one.mutation()))
        .collect()
}

/// Serves a Get with the given reader.
pub(crate) fn get(
    view: &GetView<'_>,
    context: &Context,
    out: &mut Vec<u8>,
    read: impl FnOnce(&GetQuery<'_>, &mut GetSink<'_>) -> Result<Option<PageToken>, StoreError>,
) -> Result<(), Box<Status>> {
    let keys: SmallVec<[&[u8]; 8]>;
    let predicate = match &view.predicate {
        PredicateView::All => PredicateRef::All,
        PredicateView::Keys(all) => {
            keys = all.iter().collect();
            PredicateRef::Keys(&keys)
        }
        PredicateView::Range { start, end } => PredicateRef::Range { start, end },
    };
    let query = GetQuery {
        namespace: context.namespace,
        id: view.id,
        predicate,
        selection: selection(&view.selection),
    };
    let mut sink = GetSink {
        writer: wire::GetResponseWriter::new(out),
        now: context.now,
    };
    let next = read(&query, &mut sink).map_err(|cause| error::from_store(&cause))?;
    sink.writer.finish(next.as_ref().map_or(&[], PageToken::as_bytes));
    Ok(())
}

/// Reads one page of a Scan with the given reader. Returns the next page's token, empty at the end.
pub(crate) fn scan_page(
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
    read: impl FnOnce(&ScanQuery<'_>, &mut ScanSink<'_>) -> Result<Option<PageToken>, StoreError>,
) -> Result<Vec<u8>, Box<Status>> {
    let mut sink = ScanSink {
        writer: wire::ScanResponseWriter::new(out),
        now,
    };
    let next =
        read(&ScanQuery { namespace, selection }, &mut sink).map_err(|cause| error::from_store(&cause))?;
    sink.writer.finish(&[]);
    Ok(next.map(|token| token.as_bytes().to_vec()).unwrap_or_default())
}

/// The selection of a request as a store takes it.
pub(crate) fn selection<'a>(view: &SelectionView<'a>) -> Selection<'a> {
    Selection {
        page_bytes: view.page_bytes,
        item_limit: view.item_limit,
        page_token: view.page_token,
    }
}

/// Writes the items of a Get straight into the response message.
pub(crate) struct GetSink<'a> {
    writer: wire::GetResponseWriter<'a>,
    now: UnixMillis,
}

impl ItemSink for GetSink<'_> {
    fn item(&mut self, item: &ItemRef<'_>) {
        self.writer.item(&item_view(item, self.now));
    }
}

/// Writes the entries of a Scan straight into the response message.
pub(crate) struct ScanSink<'a> {
    writer: wire::ScanResponseWriter<'a>,
    now: UnixMillis,
}

impl ItemSink for ScanSink<'_> {
    fn id(&mut self, id: &str) {
        self.writer.entry(id);
    }

    fn item(&mut self, item: &ItemRef<'_>) {
        self.writer.item(&item_view(item, self.now));
    }
}

fn item_view<'a>(item: &ItemRef<'a>, now: UnixMillis) -> ItemView<'a> {
    ItemView {
        key: item.key,
        value: item.value,
        ttl: item
            .expires_at
            .map(|at| DurationView::from_millis(at.0.saturating_sub(now.0))),
        compression: i32::from(item.compression),
    }
}

/// Refuses values above the namespace's own maximum, which the wire's limits do not know.
pub(crate) fn check_values(request: &Request<'_>, value_bytes_max: usize) -> Result<(), Box<Status>> {
    let refuse = |field: &str, length: usize| {
        Err(error::invalid(
            field,
            &format!(
                "must have at most {value_bytes_max} bytes (the namespace's max_message_size), has {length}"
            ),
        ))
    };
    match request {
        Request::Put(view) => match view.items.iter().find(|item| item.value.len() > value_bytes_max) {
            Some(item) => refuse("items[].value", item.value.len()),
            None => Ok(()),
        },
        Request::CompareAndSwap(view) => match &view.item {
            Some(item) if item.value.len() > value_bytes_max => refuse("item.value", item.value.len()),
            _ => Ok(()),
        },
        Request::Mutate(view) => {
            for mutation in view.mutations.iter() {
                if let Ok(MutationOperation::Put(items)) = &mutation.operation
                    && let Some(item) = items.iter().find(|item| item.value.len() > value_bytes_max)
                {
                    return refuse("mutations[].put.items[].value", item.value.len());
                }
            }
            Ok(())
        }
        Request::Get(_) | Request::Delete(_) | Request::Scan(_) => Ok(()),
    }
}
