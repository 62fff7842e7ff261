//! Calls on a store that answers later, such as a server: as SQLite's threads do them there.

use prism_backends::{
    NamespaceId, Outcome, Selection, StoreError, UnixMillis,
    api::keyvalue::{Reads, Writes as WritingHalf},
};
use prism_codec::{
    grpc::{Code, Status},
    method::{KeyValueMethod, Method},
};

use super::{
    KeyValueRequest, reads,
    writes::{self, Change, Writes},
};
use crate::{
    api::StoreCall,
    call::{error, receipt},
};

/// Applies the writes of many calls in one transaction; the reply of each, in order.
pub(crate) async fn write(
    store: &impl WritingHalf,
    calls: &[StoreCall<'_>],
    durability: i32,
) -> Vec<Result<Vec<u8>, Box<Status>>> {
    let prepared: Vec<_> = calls.iter().map(prepare).collect();
    let mutations: Vec<_> = prepared
        .iter()
        .flatten()
        .flat_map(|(_, writes)| writes.changes.iter().map(Change::mutation))
        .collect();
    let mut outcomes = Vec::with_capacity(mutations.len());
    let applied = store.apply(&mutations, None, &mut outcomes).await;
    drop(mutations);
    let mut outcomes = outcomes.into_iter();
    let finish = |(call, prepared): (&StoreCall<'_>, Result<Prepared<'_>, Box<Status>>)| {
        let (method, writes) = prepared?;
        if let Err(cause) = &applied {
            return Err(error::from_store(cause));
        }
        let own: Vec<Outcome> = outcomes.by_ref().take(writes.changes.len()).collect();
        let result = receipt::applied(durability);
        let mut message = Vec::new();
        writes::encode_outcomes(
            method,
            writes,
            own.into_iter(),
            call.context.now,
            &result,
            &mut message,
        )?;
        Ok(message)
    };
    calls.iter().zip(prepared).map(finish).collect()
}

type Prepared<'a> = (KeyValueMethod, Writes<'a>);

fn prepare<'a>(call: &StoreCall<'a>) -> Result<Prepared<'a>, Box<Status>> {
    let method = keyvalue_method(call.method)?;
    let request = KeyValueRequest::decode(method, call.body)?;
    Ok((method, writes::writes(&request, &call.context, |_| true)))
}

/// Serves a Get; the response message.
///
/// # Errors
/// Those of the store.
pub(crate) async fn read(store: &impl Reads, call: &StoreCall<'_>) -> Result<Vec<u8>, Box<Status>> {
    let KeyValueRequest::Get(view) = KeyValueRequest::decode(keyvalue_method(call.method)?, call.body)?
    else {
        return Err(error::status(Code::Internal, "a write was sent to a reader"));
    };
    let mut out = Vec::new();
    reads::get_later(&view, &call.context, &mut out, store).await?;
    Ok(out)
}

/// Reads a page of a namespace: the response message, and the token of the next page, empty at the end.
///
/// # Errors
/// Those of the store.
pub(crate) async fn read_page(
    store: &impl Reads,
    namespace: NamespaceId,
    selection: Selection<'_>,
    now: UnixMillis,
) -> Result<(Vec<u8>, Vec<u8>), Box<Status>> {
    let mut out = Vec::new();
    let next = reads::scan_page_later(namespace, selection, now, &mut out, store).await?;
    Ok((out, next))
}

/// The reply to calls of a store that is out of reach, before anything is sent to it.
pub(crate) fn unreachable(detail: &str) -> Box<Status> {
    error::from_store(&StoreError::Unreachable {
        detail: detail.to_owned(),
    })
}

fn keyvalue_method(method: Method) -> Result<KeyValueMethod, Box<Status>> {
    match method {
        Method::KeyValue(method) => Ok(method),
        _ => Err(error::not_served(method)),
    }
}
