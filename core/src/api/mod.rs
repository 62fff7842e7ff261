//! The meaning of each API's calls: views of the wire in, response messages out. No threads, no
//! sockets.
//!
//! Whoever has a call and does not know its API at compile time asks here: [`with_service`] is the
//! only list of APIs.

mod check;
pub(crate) mod keyvalue;
pub(crate) mod memory;
pub(crate) mod pubsub;
pub(crate) mod queue;
pub(crate) mod service;
pub(crate) mod stream;

use prism_backends::{
    LogPosition, NamespaceId, Selection, StoreError, UnixMillis,
    api::Stores,
    sqlite::{Reader, Writer},
};
use prism_codec::{
    grpc::Status,
    method::{Api, Method},
};
use prism_wal::{ids::Lsn, tail::Payload};

use self::{
    memory::ShardMemory,
    service::{Request, Service},
};
use crate::{
    call::{
        context::Context,
        error,
        event::{Awaited, Verdict},
        footprint::Footprint,
        job::Answer,
        record::{LoggedWrite, Part, Unreadable},
        ticket::Ticket,
    },
    namespace::spec::Path,
};

/// Evaluates an expression for the service of a method: `with_service!(method, S, method =>
/// expression, else other)`. There `S` is the service and `method` one of its own methods. `other`
/// stands for methods that are not about data.
macro_rules! with_service {
    ($method:expr, $S:ident, $own:ident => $then:expr, else $other:expr) => {
        match $method {
            ::prism_codec::method::Method::KeyValue($own) => {
                type $S = $crate::api::keyvalue::KeyValue;
                $then
            }
            ::prism_codec::method::Method::PubSub($own) => {
                type $S = $crate::api::pubsub::PubSub;
                $then
            }
            ::prism_codec::method::Method::Queue($own) => {
                type $S = $crate::api::queue::Queue;
                $then
            }
            _ => $other,
        }
    };
}

pub(crate) use with_service;

/// The namespace that a request names; `None` if it cannot be read, or is not about data.
pub(crate) fn namespace_of(method: Method, message: &[u8]) -> Option<&str> {
    with_service!(
        method,
        S, method => S::decode(method, message).ok().map(|request| request.namespace()),
        else None
    )
}

/// Refuses a call by GET that has side effects. What cannot be read is refused later.
///
/// # Errors
/// The field that causes them.
pub(crate) fn check_get(method: Method, message: &[u8]) -> Result<(), Box<Status>> {
    with_service!(
        method,
        S, method => S::decode(method, message).map_or(Ok(()), |request| request.check_get()),
        else Ok(())
    )
}

/// Serves a call, or the part of a batch, that another shard sent because this one holds its keys
/// in memory.
///
/// # Errors
/// Nothing was done.
pub(crate) fn serve(
    memory: &mut ShardMemory,
    method: Method,
    message: &[u8],
    context: &Context,
    part: Option<Part>,
) -> Result<Answer, Box<Status>> {
    with_service!(
        method,
        S, method => serve_as::<S>(memory, method, message, context, part),
        else Err(error::not_served(method))
    )
}

fn serve_as<S: Service>(
    memory: &mut ShardMemory,
    method: S::Method,
    message: &[u8],
    context: &Context,
    part: Option<Part>,
) -> Result<Answer, Box<Status>> {
    let request = S::decode(method, message)?;
    if let Some(part) = part {
        return Ok(Answer::Part(S::serve_part(memory, &request, context, part)));
    }
    let mut message = Vec::new();
    S::serve(memory, method, &request, context, &mut message)?;
    Ok(Answer::Message(message))
}

/// The keys and the token of a logged write.
pub(crate) fn footprint<'a>(record: &LoggedWrite<'a>) -> Result<Footprint<'a>, Unreadable> {
    with_service!(
        record.method,
        S, method => match S::decode(method, record.body) {
            Ok(request) => Ok(request.footprint()),
            Err(_) => Err(Unreadable),
        },
        else Err(Unreadable)
    )
}

/// A unary call on the threads of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreCall<'a> {
    pub(crate) ticket: Ticket,
    pub(crate) method: Method,
    pub(crate) context: Context,
    pub(crate) body: &'a [u8],
    /// Path of the write: it decides what follows the store's commit, a record or nothing, not even
    /// an answer.
    pub(crate) path: Path,
}

/// Applies the writes of many calls of one API in one transaction. Calls `answer` for each, in
/// order, with its response message. Before that it calls `committed` for one that is to be logged,
/// with its record and the keys that it changed.
pub(crate) fn write(
    writer: &mut Writer,
    calls: &[StoreCall<'_>],
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let Some(first) = calls.first() else { return };
    with_service!(
        first.method,
        S, _method => S::write(writer, calls, committed, answer),
        else calls
            .iter()
            .for_each(|call| answer(call, Err(error::not_served(call.method))))
    );
}

/// When a call of this method that found nothing may find something.
///
/// # Errors
/// Those of the store.
pub(crate) fn ready_at(
    writer: &mut Writer,
    method: Method,
    namespace: NamespaceId,
) -> Result<Option<UnixMillis>, StoreError> {
    with_service!(method, S, _method => S::ready_at(writer, namespace), else Ok(None))
}

/// Applies the writes of many calls of one API in one transaction of a store that answers later.
/// Calls `answer` for each, in order, with its response message, in which the durability is
/// `durability`; before that `committed` as [`write`] does.
pub(crate) async fn write_later(
    stores: &Stores,
    calls: &[StoreCall<'_>],
    durability: i32,
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let Some(first) = calls.first() else { return };
    match (first.method.api(), stores) {
        (
            Api::KeyValue,
            Stores {
                keyvalue: Some(store),
                ..
            },
        ) => keyvalue::execute::write_later(store, calls, durability, committed, answer).await,
        (
            Api::PubSub,
            Stores {
                pubsub: Some(store), ..
            },
        ) => pubsub::execute::write_later(store, calls, durability, committed, answer).await,
        (
            Api::Queue,
            Stores {
                queue: Some(store), ..
            },
        ) => queue::execute::write_later(store, calls, durability, committed, answer).await,
        _ => calls
            .iter()
            .for_each(|call| answer(call, Err(error::not_served(call.method)))),
    }
}

/// Serves a read of the store's contents and of `unapplied`, records that it lacks, in order.
/// Appends the response message to `out`.
///
/// # Errors
/// Those of the store.
pub(crate) fn read(
    reader: &Reader,
    call: &StoreCall<'_>,
    unapplied: &[Payload],
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    with_service!(
        call.method,
        S, _method => S::read(reader, call, unapplied, out),
        else Err(error::not_served(call.method))
    )
}

/// Serves a read, or a call that is never logged, of a store that answers later. Appends the
/// response message to `out`.
///
/// # Errors
/// Those of the store.
pub(crate) async fn read_later(
    stores: &Stores,
    call: &StoreCall<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    match (call.method.api(), &stores.keyvalue, &stores.queue) {
        (Api::KeyValue, Some(store), _) => keyvalue::execute::read_later(store, call, out).await,
        (Api::Queue, _, Some(store)) => queue::execute::read_later(store, call, out).await,
        _ => Err(error::not_served(call.method)),
    }
}

/// Reads one page of a stream. Appends it to `out` as a response message, and returns the token of
/// the next page, empty at the end.
///
/// # Errors
/// Those of the store.
pub(crate) fn read_page(
    reader: &Reader,
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
) -> Result<Vec<u8>, Box<Status>> {
    keyvalue::execute::read_page(reader, namespace, selection, now, out)
}

/// Reads one page of a stream from a store that answers later.
///
/// # Errors
/// Those of the store.
pub(crate) async fn read_page_later(
    stores: &Stores,
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
    out: &mut Vec<u8>,
) -> Result<Vec<u8>, Box<Status>> {
    match &stores.keyvalue {
        Some(store) => keyvalue::reads::scan_page_later(namespace, selection, now, out, store).await,
        None => Err(error::from_store(&StoreError::UnknownNamespace(namespace))),
    }
}

/// Records of one namespace that are to be applied together.
pub(crate) struct Batch<'a> {
    pub(crate) records: &'a [(Lsn, LoggedWrite<'a>)],
    /// Position of the store after them.
    pub(crate) position: LogPosition,
    /// Judged calls among them with a waiting caller, in the same order.
    pub(crate) awaited: &'a [Awaited],
    pub(crate) now: UnixMillis,
}

/// Result of records that were given to the store.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) verdicts: Vec<Verdict>,
    /// Promised records that the store refuses for ever, by their place in the batch, and why.
    pub(crate) refused: Vec<(usize, StoreError)>,
}

/// Applies records in one transaction, with their position.
///
/// # Errors
/// Those of the store, and [`StoreError::Internal`] for a record that this version cannot read.
/// Nothing was applied then, or all of it may be applied again.
pub(crate) fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    let Some((_, first)) = batch.records.first() else {
        return Ok(Applied::default());
    };
    with_service!(first.method, S, _method => S::apply(writer, batch), else Err(unreadable()))
}

/// Applies records in one transaction of a store that answers later, with their position.
///
/// # Errors
/// As of [`apply`].
pub(crate) async fn apply_later(stores: &Stores, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    let Some((_, first)) = batch.records.first() else {
        return stores.note(&batch.position).await.map(|()| Applied::default());
    };
    match (first.method, stores) {
        (
            Method::KeyValue(_),
            Stores {
                keyvalue: Some(store),
                ..
            },
        ) => keyvalue::apply::apply_later(store, batch).await,
        (
            Method::PubSub(_),
            Stores {
                pubsub: Some(store), ..
            },
        ) => pubsub::apply::apply_later(store, batch).await,
        (
            Method::Queue(_),
            Stores {
                queue: Some(store), ..
            },
        ) => queue::apply::apply_later(store, batch).await,
        _ => Err(unreadable()),
    }
}

/// Applies the write of a dead letter out of its turn, to the state of `now`.
///
/// # Errors
/// Those of the store, also if it refuses the write.
pub(crate) fn redrive(
    writer: &mut Writer,
    record: &LoggedWrite<'_>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    with_service!(record.method, S, _method => S::redrive(writer, record, now), else Err(unreadable()))
}

/// The error of a record that this version cannot read.
pub(crate) fn unreadable() -> StoreError {
    StoreError::Internal {
        detail: "this version cannot read the record".to_owned(),
    }
}
