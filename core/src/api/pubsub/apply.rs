//! Records of the log on their way into the store.

use prism_backends::{
    StoreError, UnixMillis,
    api::pubsub::{Message, Outcome, Writes as WritingHalf},
    sqlite::Writer,
};

use super::writes::{Writes, writes_of};
use crate::{
    api::{Applied, Batch, unreadable},
    call::record::LoggedWrite,
};

/// Applies records as [`crate::api::apply`] says.
pub(super) fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    let all = writes_of_batch(batch)?;
    let messages: Vec<_> = all.iter().flat_map(Writes::promised).collect();
    let mut outcomes = Vec::with_capacity(messages.len());
    writer.publish_at(&messages, &[batch.position], &mut outcomes)?;
    drop(messages);
    Ok(finish(&all, outcomes))
}

/// Applies records as [`crate::api::apply_later`] says.
pub(in crate::api) async fn apply_later(
    store: &impl WritingHalf,
    batch: &Batch<'_>,
) -> Result<Applied, StoreError> {
    let all = writes_of_batch(batch)?;
    let messages: Vec<_> = all.iter().flat_map(Writes::promised).collect();
    let mut outcomes = Vec::with_capacity(messages.len());
    store
        .publish(&messages, Some(&batch.position), &mut outcomes)
        .await?;
    drop(messages);
    Ok(finish(&all, outcomes))
}

/// The messages of each record.
fn writes_of_batch<'a>(batch: &Batch<'a>) -> Result<Vec<Writes<'a>>, StoreError> {
    let records = batch.records.iter();
    records
        .map(|(_, record)| writes_of(record).map_err(|_| unreadable()))
        .collect()
}

/// Result of applying records whose messages had these outcomes.
fn finish(all: &[Writes<'_>], outcomes: Vec<Outcome>) -> Applied {
    let mut outcomes = outcomes.into_iter();
    let mut applied = Applied::default();
    for (index, writes) in all.iter().enumerate() {
        let own = outcomes.by_ref().take(writes.changes.len());
        if let Some(cause) = own.filter_map(to_be_kept).last() {
            // The rest of a batch is applied; a redrive publishes it once more, which changes
            // nothing.
            applied.refused.push((index, cause));
        }
    }
    applied
}

/// The reason why a record with this outcome must be kept as a dead letter. None if the namespace
/// is deleted.
fn to_be_kept(outcome: Outcome) -> Option<StoreError> {
    match outcome {
        Outcome::Refused(StoreError::DroppedNamespace(_)) | Outcome::Published | Outcome::Repeat => None,
        Outcome::Refused(cause) => Some(cause),
    }
}

/// Applies the write of a dead letter as [`crate::api::redrive`] says.
pub(super) fn redrive(
    writer: &mut Writer,
    record: &LoggedWrite<'_>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let writes = writes_of(record).map_err(|_| unreadable())?;
    // It gets its full time to live, but from now on.
    let late = now.0.saturating_sub(record.context.now.0);
    let messages: Vec<_> = writes
        .promised()
        .map(|message| Message {
            at: now,
            expires_at: message.expires_at.map(|at| at.plus(late)),
            ..message
        })
        .collect();
    let mut outcomes = Vec::new();
    writer.publish_at(&messages, &[], &mut outcomes)?;
    let refused = outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Refused(cause) => Some(cause),
        Outcome::Published | Outcome::Repeat => None,
    });
    refused.map_or(Ok(()), Err)
}
