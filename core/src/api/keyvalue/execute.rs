//! Calls on the threads of a store: writes of many calls in one transaction, reads one at a time.
//! For a store that answers at once, such as SQLite, and for one that answers later, such as a
//! server.

use prism_backends::{
    Mutation, NamespaceId, Outcome, Selection, StoreError, UnixMillis,
    api::keyvalue::{Reads, Writes as WritingHalf},
    sqlite::{Reader, Writer},
};
use prism_codec::{
    grpc::{Code, Status},
    message::keyvalue::GetView,
    method::{KeyValueMethod, Method},
};
use prism_wal::tail::Payload;
use smallvec::SmallVec;

use super::{
    KeyValueRequest, reads,
    writes::{self, Change, Writes},
};
use crate::{
    api::StoreCall,
    call::{context::Context, error, receipt, record::LoggedWrite},
    namespace::spec::Path,
};

/// The writes of one call.
struct PreparedCall<'a> {
    method: KeyValueMethod,
    writes: Writes<'a>,
}

/// The writes of many calls, in order, or the reason why a call has none.
struct Batch<'a>(Vec<Result<PreparedCall<'a>, Box<Status>>>);

impl<'a> Batch<'a> {
    fn new(calls: &[StoreCall<'a>]) -> Self {
        Self(calls.iter().map(prepare).collect())
    }

    fn mutations(&self) -> Vec<Mutation<'_>> {
        let prepared = self.0.iter().flatten();
        prepared
            .flat_map(|prepared| prepared.writes.changes.iter().map(Change::mutation))
            .collect()
    }

    /// Answers each call by the outcomes of all mutations. `durability` is that of the writes that
    /// took effect; a write to be logged has its own.
    fn finish(
        self,
        calls: &[StoreCall<'_>],
        applied: &Result<(), StoreError>,
        outcomes: Vec<Outcome>,
        durability: i32,
        mut committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
        mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
    ) {
        if let Err(cause) = applied {
            tracing::warn!(error = %cause, calls = calls.len(), "the store refused a batch");
        }
        let mut outcomes = outcomes.into_iter();
        for (call, prepared) in calls.iter().zip(self.0) {
            let result = prepared.and_then(|prepared| match applied {
                Err(cause) => Err(error::from_store(cause)),
                Ok(()) => {
                    let own = outcomes.by_ref().take(prepared.writes.changes.len()).collect();
                    finish(call, prepared, own, durability, &mut committed)
                }
            });
            answer(call, result);
        }
    }
}

/// Applies writes; see [`crate::api::write`].
pub(crate) fn write(
    writer: &mut Writer,
    calls: &[StoreCall<'_>],
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let batch = Batch::new(calls);
    let mutations = batch.mutations();
    let mut outcomes = Vec::with_capacity(mutations.len());
    let applied = match mutations.as_slice() {
        [] => Ok(()),
        some => writer.apply(some, &mut outcomes),
    };
    drop(mutations);
    batch.finish(calls, &applied, outcomes, receipt::BEST_EFFORT, committed, answer);
}

/// Applies writes later; see [`crate::api::write_later`].
pub(crate) async fn write_later(
    store: &impl WritingHalf,
    calls: &[StoreCall<'_>],
    durability: i32,
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let batch = Batch::new(calls);
    let mutations = batch.mutations();
    let mut outcomes = Vec::with_capacity(mutations.len());
    let applied = match mutations.as_slice() {
        [] => Ok(()),
        some => store.apply(some, None, &mut outcomes).await,
    };
    drop(mutations);
    batch.finish(calls, &applied, outcomes, durability, committed, answer);
}

fn prepare<'a>(call: &StoreCall<'a>) -> Result<PreparedCall<'a>, Box<Status>> {
    let method = keyvalue_method(call.method)?;
    let request = KeyValueRequest::decode(method, call.body)?;
    Ok(PreparedCall {
        method,
        writes: writes::writes(&request, &call.context, |_| true),
    })
}

fn finish(
    call: &StoreCall<'_>,
    PreparedCall { method, writes }: PreparedCall<'_>,
    own: Vec<Outcome>,
    mut durability: i32,
    committed: &mut impl FnMut(&LoggedWrite<'_>, &[&str]),
) -> Result<Vec<u8>, Box<Status>> {
    if call.path == Path::StoreThenLog {
        durability = receipt::EVENTUAL;
        let decided = match own.as_slice() {
            [Outcome::Swapped(Some(version))] => Some(writes::decided(*version)),
            _ => None,
        };
        let write = LoggedWrite {
            method: call.method,
            part: None,
            decided: decided.as_ref().map_or(&[], |decided| &decided[..]),
            context: call.context,
            body: call.body,
        };
        // A write without effect leaves no record: a refused swap must not succeed after all when
        // it is replayed on an older state of a store.
        let has_effect = |outcome: &Outcome| matches!(outcome, Outcome::Applied | Outcome::Swapped(Some(_)));
        let all = writes.changes.iter().zip(&own);
        let changed: SmallVec<[&str; 1]> = all
            .filter_map(|(one, outcome)| has_effect(outcome).then_some(one.id))
            .collect();
        committed(&write, &changed);
    }
    let result = receipt::applied(durability);
    let mut message = Vec::new();
    let outcomes = own.into_iter();
    writes::encode_outcomes(method, writes, outcomes, call.context.now, &result, &mut message)?;
    Ok(message)
}

/// Serves a read; see [`crate::api::read`].
pub(crate) fn read(
    reader: &Reader,
    call: &StoreCall<'_>,
    unapplied: &[Payload],
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    let view = get_of(call)?;
    let now = call.context.now;
    if unapplied.is_empty() {
        return reads::get(&view, &call.context, out, |query, sink| {
            reader.get(query, now, sink)
        });
    }
    let writes = writes_of_records(&call.context, unapplied)?;
    let pending: Vec<_> = writes
        .iter()
        .flat_map(|writes| writes.changes.iter().map(Change::mutation))
        .collect();
    reads::get(&view, &call.context, out, |query, sink| {
        reader.get_over(query, &pending, now, sink)
    })
}

/// Serves a read later; see [`crate::api::read_later`].
pub(crate) async fn read_later(
    store: &impl Reads,
    call: &StoreCall<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    reads::get_later(&get_of(call)?, &call.context, out, store).await
}

fn get_of<'a>(call: &StoreCall<'a>) -> Result<GetView<'a>, Box<Status>> {
    match KeyValueRequest::decode(keyvalue_method(call.method)?, call.body)? {
        KeyValueRequest::Get(view) => Ok(view),
        _ => Err(error::status(Code::Internal, "a write was sent to a reader")),
    }
}

/// The writes of records that the store does not have yet.
fn writes_of_records<'a>(context: &Context, records: &'a [Payload]) -> Result<Vec<Writes<'a>>, Box<Status>> {
    let read =
        |record| LoggedWrite::decode(context.namespace, record).and_then(|logged| writes::writes_of(&logged));
    records
        .iter()
        .map(|record| read(record))
        .collect::<Result<_, _>>()
        .map_err(|_| error::status(Code::Internal, "a record that was just logged cannot be read"))
}

/// Reads a page of a namespace; see [`crate::api::read_page`].
pub(crate) fn read_page(
    reader: &Reader,
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
) -> Result<Vec<u8>, Box<Status>> {
    reads::scan_page(namespace, selection, now, out, |query, sink| {
        reader.scan(query, now, sink)
    })
}

fn keyvalue_method(method: Method) -> Result<KeyValueMethod, Box<Status>> {
    match method {
        Method::KeyValue(method) => Ok(method),
        _ => Err(error::not_served(method)),
    }
}
