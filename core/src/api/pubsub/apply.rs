//! Records of the log on their way into the store.

use prism_backends::{
    StoreError, UnixMillis,
    api::pubsub::{Message, Outcome, Writes as WritingHalf},
    sqlite::{TopicTransaction, Writer},
};
use prism_codec::method::{Effect, Method};

use super::{
    PubSubRequest, groups,
    position::OF_STORES,
    writes::{Writes, writes_of},
};
use crate::{
    api::{Applied, Batch, unreadable},
    call::{event::Verdict, receipt, record::LoggedWrite},
};

/// The effect of one record.
enum Effects<'a> {
    Publish(Writes<'a>),
    Group(groups::Prepared<'a>),
}

/// The answer of a store to one record.
enum Done {
    Published(Vec<Outcome>),
    Group(groups::Outcome),
}

/// Applies records as [`crate::api::apply`] says.
pub(super) fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
    let all = effects_of_batch(batch)?;
    let done: Vec<Done> = writer.topics_at(&[batch.position], |transaction| {
        all.iter()
            .map(|effects| apply_one(transaction, effects))
            .collect()
    })?;
    Ok(finish(batch, &all, done))
}

fn apply_one(transaction: &mut TopicTransaction<'_>, effects: &Effects<'_>) -> Result<Done, StoreError> {
    match effects {
        Effects::Publish(writes) => {
            let own = writes.promised().map(|message| transaction.publish(&message));
            own.collect::<Result<_, _>>().map(Done::Published)
        }
        Effects::Group(prepared) => transaction.change(&prepared.change()).map(Done::Group),
    }
}

/// Applies records as [`crate::api::apply_later`] says.
pub(in crate::api) async fn apply_later(
    store: &impl WritingHalf,
    batch: &Batch<'_>,
) -> Result<Applied, StoreError> {
    let all = effects_of_batch(batch)?;
    let mut messages: Vec<Message<'_>> = Vec::new();
    for effects in &all {
        match effects {
            Effects::Publish(writes) => messages.extend(writes.promised()),
            // Their calls are refused where the store keeps no groups.
            Effects::Group(_) => return Err(unreadable()),
        }
    }
    let mut outcomes = Vec::with_capacity(messages.len());
    store
        .publish(&messages, Some(&batch.position), &mut outcomes)
        .await?;
    drop(messages);
    let mut outcomes = outcomes.into_iter();
    let own = |effects: &Effects<'_>| match effects {
        Effects::Publish(writes) => Done::Published(outcomes.by_ref().take(writes.changes.len()).collect()),
        Effects::Group(_) => Done::Published(Vec::new()),
    };
    let done = all.iter().map(own).collect();
    Ok(finish(batch, &all, done))
}

/// The effect of each record.
fn effects_of_batch<'a>(batch: &Batch<'a>) -> Result<Vec<Effects<'a>>, StoreError> {
    let records = batch.records.iter();
    records.map(|(_, record)| effects_of(record)).collect()
}

fn effects_of<'a>(record: &LoggedWrite<'a>) -> Result<Effects<'a>, StoreError> {
    let Method::PubSub(method) = record.method else {
        return Err(unreadable());
    };
    if method.spec().effect != Effect::Judged {
        return writes_of(record).map(Effects::Publish).map_err(|_| unreadable());
    }
    let request = PubSubRequest::decode(method, record.body).map_err(|_| unreadable())?;
    match groups::Prepared::new(&request, &record.context, OF_STORES) {
        Some(Ok(prepared)) => Ok(Effects::Group(prepared)),
        _ => Err(unreadable()),
    }
}

/// Result of applying records for which this was done.
fn finish(batch: &Batch<'_>, all: &[Effects<'_>], done: Vec<Done>) -> Applied {
    let mut awaited = batch.awaited.iter().copied().peekable();
    let mut applied = Applied::default();
    for (index, (((lsn, _), effects), done)) in batch.records.iter().zip(all).zip(done).enumerate() {
        let waits = awaited.next_if(|awaited| awaited.lsn == *lsn);
        match (effects, done) {
            (Effects::Group(prepared), Done::Group(outcome)) => {
                // Its caller gets the verdict of the store; nobody else was promised anything.
                if let Some(awaited) = waits {
                    let result = receipt::logged(awaited.first, true);
                    let mut message = Vec::new();
                    let reply = prepared.encode(outcome, &result, &mut message);
                    applied.verdicts.push(Verdict {
                        lsn: *lsn,
                        reply: reply.map(|()| message),
                    });
                }
            }
            (_, Done::Published(own)) => {
                // The rest of a batch is applied; a redrive publishes it once more, which changes
                // nothing.
                if let Some(cause) = own.into_iter().filter_map(to_be_kept).next_back() {
                    applied.refused.push((index, cause));
                }
            }
            (Effects::Publish(_), Done::Group(_)) => {}
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
