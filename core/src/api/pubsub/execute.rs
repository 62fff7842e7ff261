//! Publishing calls at the store's writer: many of them in one transaction, each with its answer.
//! For a store that answers at once, such as SQLite, and for one that answers later, such as a
//! server.

use prism_backends::{
    StoreError,
    api::pubsub::{Message, Outcome, Writes as WritingHalf},
    sqlite::Writer,
};
use prism_codec::{
    grpc::Status,
    method::{Method, PubSubMethod},
};
use smallvec::SmallVec;

use super::{
    PubSubRequest,
    writes::{self, Change, Writes},
};
use crate::{
    api::StoreCall,
    call::{error, receipt, record::LoggedWrite},
    namespace::spec::Path,
};

/// A publishing call with its messages.
struct Prepared<'a> {
    method: PubSubMethod,
    writes: Writes<'a>,
}

/// The messages of many calls, in order, or the reason why a call has none.
struct Batch<'a>(Vec<Result<Prepared<'a>, Box<Status>>>);

impl<'a> Batch<'a> {
    fn new(calls: &[StoreCall<'a>]) -> Self {
        Self(calls.iter().map(prepare).collect())
    }

    fn messages(&self) -> Vec<Message<'_>> {
        let prepared = self.0.iter().flatten();
        prepared.flat_map(|prepared| prepared.writes.messages()).collect()
    }

    /// Answers each call by the outcomes of all messages. `durability` is that of those which were
    /// stored; a write to be logged has its own.
    fn finish(
        self,
        calls: &[StoreCall<'_>],
        published: &Result<(), StoreError>,
        outcomes: Vec<Outcome>,
        durability: i32,
        mut committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
        mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
    ) {
        if let Err(cause) = published {
            tracing::warn!(error = %cause, calls = calls.len(), "the store refused messages");
        }
        let mut outcomes = outcomes.into_iter();
        for (call, prepared) in calls.iter().zip(self.0) {
            let result = prepared.and_then(|prepared| match published {
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

/// Publishes as [`crate::api::write`] says.
pub(super) fn write(
    writer: &mut Writer,
    calls: &[StoreCall<'_>],
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let batch = Batch::new(calls);
    let messages = batch.messages();
    let mut outcomes = Vec::with_capacity(messages.len());
    let published = match messages.as_slice() {
        [] => Ok(()),
        some => writer.publish_at(some, &[], &mut outcomes),
    };
    drop(messages);
    batch.finish(
        calls,
        &published,
        outcomes,
        receipt::BEST_EFFORT,
        committed,
        answer,
    );
}

/// Publishes as [`crate::api::write_later`] says.
pub(in crate::api) async fn write_later(
    store: &impl WritingHalf,
    calls: &[StoreCall<'_>],
    durability: i32,
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let batch = Batch::new(calls);
    let messages = batch.messages();
    let mut outcomes = Vec::with_capacity(messages.len());
    let published = match messages.as_slice() {
        [] => Ok(()),
        some => store.publish(some, None, &mut outcomes).await,
    };
    drop(messages);
    batch.finish(calls, &published, outcomes, durability, committed, answer);
}

fn prepare<'a>(call: &StoreCall<'a>) -> Result<Prepared<'a>, Box<Status>> {
    let Method::PubSub(method) = call.method else {
        return Err(error::not_served(call.method));
    };
    let request = PubSubRequest::decode(method, call.body)?;
    Ok(Prepared {
        method,
        writes: writes::writes(&request, &call.context, |_| true),
    })
}

fn finish(
    call: &StoreCall<'_>,
    Prepared { method, writes }: Prepared<'_>,
    own: Vec<Outcome>,
    mut durability: i32,
    committed: &mut impl FnMut(&LoggedWrite<'_>, &[&str]),
) -> Result<Vec<u8>, Box<Status>> {
    if call.path == Path::Queued {
        // Its client has an answer already: only what is lost matters.
        let refused = own.into_iter().find_map(|outcome| match outcome {
            Outcome::Refused(cause) => Some(error::from_store(&cause)),
            Outcome::Published | Outcome::Repeat => None,
        });
        return refused.map_or(Ok(Vec::new()), Err);
    }
    if call.path == Path::StoreThenLog {
        durability = receipt::EVENTUAL;
        let record = LoggedWrite {
            method: call.method,
            part: None,
            decided: &[],
            context: call.context,
            body: call.body,
        };
        let all = writes.changes.iter().zip(&own);
        let changed: SmallVec<[&str; 1]> = all
            .filter(|(_, outcome)| **outcome == Outcome::Published)
            .map(|(change, _)| Change::key(change))
            .collect();
        committed(&record, &changed);
    }
    let mut message = Vec::new();
    let result = receipt::applied(durability);
    writes::encode_outcomes(method, writes, own.into_iter(), &result, &mut message)?;
    Ok(message)
}
