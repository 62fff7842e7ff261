//! Records of the log on their way into the store.

use prism_backends::{
    Mutation, Outcome, StoreError, UnixMillis, api::keyvalue::Writes as WritingHalf, sqlite::Writer,
};
use prism_codec::method::{KeyValueMethod, Method};

use super::writes::{Change, Writes, encode_outcome, writes_of};
use crate::{
    api::{Applied, Batch, unreadable},
    call::{
        event::{Awaited, Verdict},
        receipt,
        record::LoggedWrite,
    },
};

/// Applies records; see [`crate::api::apply`].
pub(crate) fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    let all = writes_of_batch(batch)?;
    let mutations = mutations_of(&all);
    let mut outcomes = Vec::with_capacity(mutations.len());
    writer.apply_at(&mutations, &[batch.position], &mut outcomes)?;
    Ok(finish(batch, &all, outcomes))
}

/// Applies records; see [`crate::api::apply_later`].
pub(crate) async fn apply_later(store: &impl WritingHalf, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    let all = writes_of_batch(batch)?;
    let mutations = mutations_of(&all);
    let mut outcomes = Vec::with_capacity(mutations.len());
    store
        .apply(&mutations, Some(&batch.position), &mut outcomes)
        .await?;
    Ok(finish(batch, &all, outcomes))
}

/// The writes of each record.
fn writes_of_batch<'a>(batch: &Batch<'a>) -> Result<Vec<Writes<'a>>, StoreError> {
    let records = batch.records.iter();
    records
        .map(|(_, record)| writes_of(record).map_err(|_| unreadable()))
        .collect()
}

fn mutations_of<'a>(all: &'a [Writes<'_>]) -> Vec<Mutation<'a>> {
    all.iter()
        .flat_map(|writes| writes.changes.iter().map(Change::mutation))
        .collect()
}

/// Result of applying records whose mutations had these outcomes.
fn finish(batch: &Batch<'_>, all: &[Writes<'_>], outcomes: Vec<Outcome>) -> Applied {
    let mut outcomes = outcomes.into_iter();
    let mut awaited = batch.awaited.iter().copied().peekable();
    let mut applied = Applied::default();
    for (index, ((lsn, record), writes)) in batch.records.iter().zip(all).enumerate() {
        let waits = awaited.next_if(|awaited| awaited.lsn == *lsn);
        let own = outcomes.by_ref().take(writes.changes.len());
        if record.method == Method::KeyValue(KeyValueMethod::CompareAndSwap) {
            // The caller gets the store's words; no other promise was made. Taken in any case: the
            // next outcome is the next record's.
            if let (Some(outcome), Some(awaited)) = (own.last(), waits) {
                applied.verdicts.push(verdict(awaited, &outcome, batch.now));
            }
        } else if let Some(cause) = own.filter_map(|outcome| to_be_kept(record, outcome)).last() {
            // The rest of a Mutate is applied; a redrive applies it once more, which changes
            // nothing.
            applied.refused.push((index, cause));
        }
    }
    applied
}

/// The reason why a record with this outcome must be kept as a dead letter. None if the client
/// already got the refusal, or the namespace is deleted.
fn to_be_kept(record: &LoggedWrite<'_>, outcome: Outcome) -> Option<StoreError> {
    let is_batch = record.method == Method::KeyValue(KeyValueMethod::Mutate);
    match outcome {
        Outcome::Refused(StoreError::DroppedNamespace(_)) => None,
        Outcome::Refused(StoreError::InvalidArgument { .. }) if is_batch => None,
        Outcome::Refused(cause) => Some(cause),
        Outcome::Applied | Outcome::Swapped(_) | Outcome::NotSwapped(_) => None,
    }
}

fn verdict(awaited: Awaited, outcome: &Outcome, now: UnixMillis) -> Verdict {
    let result = receipt::logged(awaited.first, true);
    let mut message = Vec::new();
    let method = KeyValueMethod::CompareAndSwap;
    let reply = encode_outcome(method, outcome, now, &result, &mut message).map(|()| message);
    Verdict {
        lsn: awaited.lsn,
        reply,
    }
}

/// Applies the write of a dead letter; see [`crate::api::redrive`].
pub(crate) fn redrive(
    writer: &mut Writer,
    record: &LoggedWrite<'_>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let Writes { changes, .. } = writes_of(record).map_err(|_| unreadable())?;
    // The state that it would have met at its own time may be gone.
    let mutations: Vec<_> = changes
        .iter()
        .map(|change| Mutation {
            at: now,
            ..change.mutation()
        })
        .collect();
    let mut outcomes = Vec::new();
    writer.apply(&mutations, &mut outcomes)?;
    let refused = outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Refused(cause) => Some(cause),
        _ => None,
    });
    refused.map_or(Ok(()), Err)
}
