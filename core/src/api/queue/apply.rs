//! Records of the log on their way into the store.

use prism_backends::{
    StoreError, UnixMillis,
    api::queue::{self, Change, Outcome},
    sqlite::Writer,
};
use prism_codec::method::Effect;

use super::writes::Writes;
use crate::{
    api::{Applied, Batch, unreadable},
    call::{event::Verdict, receipt, record::LoggedWrite},
};

/// Applies records as [`crate::api::apply`] says.
pub(super) fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    let all = writes_of_batch(batch)?;
    let outcomes: Vec<Outcome> = writer.queue_at(&[batch.position], |transaction| {
        let changes = all.iter().flat_map(Writes::changes);
        changes.map(|change| transaction.apply(&change)).collect()
    })?;
    Ok(finish(batch, all, outcomes))
}

/// Applies records as [`crate::api::apply_later`] says.
pub(crate) async fn apply_later(
    store: &impl queue::Writes,
    batch: &Batch<'_>,
) -> Result<Applied, StoreError> {
    let all = writes_of_batch(batch)?;
    let changes: Vec<_> = all.iter().flat_map(Writes::changes).collect();
    let mut outcomes = Vec::with_capacity(changes.len());
    store
        .apply(&changes, Some(&batch.position), &mut outcomes)
        .await?;
    Ok(finish(batch, all, outcomes))
}

/// The writes of each record.
fn writes_of_batch<'a>(batch: &Batch<'a>) -> Result<Vec<Writes<'a>>, StoreError> {
    let records = batch.records.iter();
    records
        .map(|(_, record)| Writes::of(record).map_err(|_| unreadable()))
        .collect()
}

/// Result of applying records whose acts had these outcomes.
fn finish(batch: &Batch<'_>, all: Vec<Writes<'_>>, outcomes: Vec<Outcome>) -> Applied {
    let mut outcomes = outcomes.into_iter();
    let mut awaited = batch.awaited.iter().copied().peekable();
    let mut applied = Applied::default();
    for (index, ((lsn, record), writes)) in batch.records.iter().zip(all).enumerate() {
        let waits = awaited.next_if(|awaited| awaited.lsn == *lsn);
        let own: Vec<Outcome> = outcomes.by_ref().take(writes.len()).collect();
        if record.method.spec().effect == Effect::Judged {
            // Its caller hears what the store says; nobody else was promised anything.
            if let Some(awaited) = waits {
                let result = receipt::logged(awaited.first, true);
                let mut message = Vec::new();
                let reply = writes.encode(own.into_iter(), &result, &mut message);
                applied.verdicts.push(Verdict {
                    lsn: *lsn,
                    reply: reply.map(|()| message),
                });
            }
        } else if let Some(cause) = own.into_iter().rev().find_map(to_be_kept) {
            // The rest of a batch is applied; a redrive sends it once more, which changes nothing.
            applied.refused.push((index, cause));
        }
    }
    applied
}

/// Why a record whose act had this outcome must be kept as a dead letter. Not for what a deleted
/// namespace is owed.
fn to_be_kept(outcome: Outcome) -> Option<StoreError> {
    match outcome {
        Outcome::Refused(StoreError::DroppedNamespace(_)) => None,
        Outcome::Refused(cause) => Some(cause),
        _ => None,
    }
}

/// Applies the write of a dead letter as [`crate::api::redrive`] says.
pub(super) fn redrive(
    writer: &mut Writer,
    record: &LoggedWrite<'_>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let writes = Writes::of(record).map_err(|_| unreadable())?;
    let outcomes: Vec<Outcome> = writer.queue_at(&[], |transaction| {
        let late = |change| Change { at: now, ..change };
        writes
            .changes()
            .map(|change| transaction.apply(&late(change)))
            .collect()
    })?;
    let refused = outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Refused(cause) => Some(cause),
        _ => None,
    });
    refused.map_or(Ok(()), Err)
}
