//! What the calls of each API mean: views of the wire in, response messages out. No threads, no sockets.
//!
//! The functions of this file are the only ones that list the APIs: whoever has a record and does not know its API asks here.

pub(crate) mod keyvalue;

use prism_backends::{
    StoreError, UnixMillis,
    sqlite::{StreamPosition, Writer},
};
use prism_codec::method::Method;
use prism_wal::ids::Lsn;

use crate::call::{
    event::{Awaited, Verdict},
    footprint::Footprint,
    record::{LoggedWrite, Unreadable},
};

/// The keys and the token of a write that was logged.
pub(crate) fn footprint<'a>(record: &LoggedWrite<'a>) -> Result<Footprint<'a>, Unreadable> {
    match record.method {
        Method::KeyValue(method) => {
            let request = keyvalue::Request::decode(method, record.body).map_err(|_| Unreadable)?;
            Ok(request.footprint())
        }
        _ => Err(Unreadable),
    }
}

/// Records of one namespace that are to be applied together.
pub(crate) struct Batch<'a> {
    pub(crate) records: &'a [(Lsn, LoggedWrite<'a>)],
    /// How far the store has got with them.
    pub(crate) position: StreamPosition,
    /// The judged calls among them whose callers wait, in the same order.
    pub(crate) awaited: &'a [Awaited],
    pub(crate) now: UnixMillis,
}

/// What came of records that were given to the store.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) verdicts: Vec<Verdict>,
    /// Records that were promised and that the store refuses for ever, by their place in the batch, and why.
    pub(crate) refused: Vec<(usize, StoreError)>,
}

/// Applies records in one transaction, with their position.
///
/// # Errors
/// Those of the store, and [`StoreError::Internal`] for a record that this version cannot read. Nothing was applied then, or
/// all of it may be applied again.
pub(crate) fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    match batch.records.first().map(|(_, record)| record.method) {
        None => Ok(Applied::default()),
        Some(Method::KeyValue(_)) => keyvalue::apply::apply(writer, batch),
        Some(_) => Err(unreadable()),
    }
}

/// Applies the write of a dead letter out of its turn: it meets what there is `now`.
///
/// # Errors
/// Those of the store, also if it refuses the write.
pub(crate) fn redrive(
    writer: &mut Writer,
    record: &LoggedWrite<'_>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    match record.method {
        Method::KeyValue(_) => keyvalue::apply::redrive(writer, record, now),
        _ => Err(unreadable()),
    }
}

/// The error of a record that this version cannot read.
pub(crate) fn unreadable() -> StoreError {
    StoreError::Internal {
        detail: "this version cannot read the record".to_owned(),
    }
}
