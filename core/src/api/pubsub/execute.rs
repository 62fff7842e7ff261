//! Publishing calls, and those about groups, at the store's writer: many of them in one
//! transaction, each with its answer.
//! For a store that answers at once, such as SQLite, and for one that answers later, such as a
//! server.

use prism_backends::{
    StoreError,
    api::pubsub::{Message, Outcome, Writes as WritingHalf},
    sqlite::Writer,
};
use prism_codec::{
    grpc::Status,
    method::{Effect, Method, PubSubMethod},
};
use smallvec::SmallVec;

use super::{
    GROUPS_KEY, PubSubRequest, groups,
    position::OF_STORES,
    writes::{self, Change, Writes},
};
use crate::{
    api::StoreCall,
    call::{error, receipt, record::LoggedWrite},
    namespace::spec::Path,
};

/// A call as it is made, as far as it is known before the transaction.
enum Prepared<'a> {
    Publish(PubSubMethod, Writes<'a>),
    Group(groups::Prepared<'a>),
}

/// The answer of a store to one call.
enum Done {
    Published(Vec<Outcome>),
    Group(groups::Outcome),
}

/// Many calls, in order, or the reason why one cannot be made.
struct Batch<'a>(Vec<Result<Prepared<'a>, Box<Status>>>);

impl<'a> Batch<'a> {
    fn new(calls: &[StoreCall<'a>]) -> Self {
        Self(calls.iter().map(prepare).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Result::is_err)
    }

    /// Answers each call by what was done for all that can be made. `durability` is that of what
    /// was stored; a write to be logged has its own.
    fn finish(
        self,
        calls: &[StoreCall<'_>],
        done: Result<Vec<Done>, StoreError>,
        durability: i32,
        mut committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
        mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
    ) {
        if let Err(cause) = &done {
            tracing::warn!(error = %cause, calls = calls.len(), "the store refused messages");
        }
        let mut done = done.map(Vec::into_iter);
        for (call, prepared) in calls.iter().zip(self.0) {
            let result = prepared.and_then(|prepared| match &mut done {
                Err(cause) => Err(error::from_store(cause)),
                Ok(done) => match (prepared, done.next()) {
                    (Prepared::Publish(method, writes), Some(Done::Published(own))) => {
                        finish(call, (method, writes), own, durability, &mut committed)
                    }
                    (Prepared::Group(prepared), Some(Done::Group(outcome))) => {
                        finish_group(call, &prepared, outcome, &mut committed)
                    }
                    _ => Err(error::not_served(call.method)),
                },
            });
            answer(call, result);
        }
    }
}

/// Serves calls as [`crate::api::write`] says.
pub(super) fn write(
    writer: &mut Writer,
    calls: &[StoreCall<'_>],
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let batch = Batch::new(calls);
    let done = match batch.is_empty() {
        true => Ok(Vec::new()),
        false => writer.topics_at(&[], |transaction| {
            let each = |prepared: &Prepared<'_>| match prepared {
                Prepared::Publish(_, writes) => {
                    let own = writes.messages().map(|message| transaction.publish(&message));
                    own.collect::<Result<_, _>>().map(Done::Published)
                }
                Prepared::Group(prepared) => transaction.change(&prepared.change()).map(Done::Group),
            };
            batch.0.iter().flatten().map(each).collect()
        }),
    };
    batch.finish(calls, done, receipt::BEST_EFFORT, committed, answer);
}

/// Serves calls as [`crate::api::write_later`] says.
pub(in crate::api) async fn write_later(
    store: &impl WritingHalf,
    calls: &[StoreCall<'_>],
    durability: i32,
    committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let mut batch = Batch::new(calls);
    for one in &mut batch.0 {
        if matches!(one, Ok(Prepared::Group(_))) {
            *one = Err(groups::refusal::no_groups());
        }
    }
    let published = |prepared: &Prepared<'_>| match prepared {
        Prepared::Publish(_, writes) => writes.changes.len(),
        Prepared::Group(_) => 0,
    };
    let counts: Vec<usize> = batch.0.iter().flatten().map(published).collect();
    let mut messages: Vec<Message<'_>> = Vec::new();
    for prepared in batch.0.iter().flatten() {
        if let Prepared::Publish(_, writes) = prepared {
            messages.extend(writes.messages());
        }
    }
    let mut outcomes = Vec::with_capacity(messages.len());
    let stored = match messages.as_slice() {
        [] => Ok(()),
        some => store.publish(some, None, &mut outcomes).await,
    };
    drop(messages);
    let mut outcomes = outcomes.into_iter();
    let done = stored.map(|()| {
        let own = |count: &usize| Done::Published(outcomes.by_ref().take(*count).collect());
        counts.iter().map(own).collect()
    });
    batch.finish(calls, done, durability, committed, answer);
}

fn prepare<'a>(call: &StoreCall<'a>) -> Result<Prepared<'a>, Box<Status>> {
    let Method::PubSub(method) = call.method else {
        return Err(error::not_served(call.method));
    };
    let request = PubSubRequest::decode(method, call.body)?;
    if let Some(prepared) = groups::Prepared::new(&request, &call.context, OF_STORES) {
        return prepared.map(Prepared::Group);
    }
    let writes = writes::writes(&request, &call.context, |_| true);
    Ok(Prepared::Publish(method, writes))
}

fn finish(
    call: &StoreCall<'_>,
    (method, writes): (PubSubMethod, Writes<'_>),
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
        let record = record_of(call);
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

fn finish_group(
    call: &StoreCall<'_>,
    prepared: &groups::Prepared<'_>,
    outcome: groups::Outcome,
    committed: &mut impl FnMut(&LoggedWrite<'_>, &[&str]),
) -> Result<Vec<u8>, Box<Status>> {
    // A commit is in the store alone, whatever the namespace says.
    let is_logged = call.path == Path::StoreThenLog && call.method.spec().effect == Effect::Judged;
    let durability = match is_logged {
        true => receipt::EVENTUAL,
        false => receipt::BEST_EFFORT,
    };
    let is_done = matches!(outcome, groups::Outcome::Reset | groups::Outcome::Deleted);
    let mut message = Vec::new();
    prepared.encode(outcome, &receipt::applied(durability), &mut message)?;
    if is_logged && is_done {
        committed(&record_of(call), &[GROUPS_KEY]);
    }
    Ok(message)
}

fn record_of<'a>(call: &StoreCall<'a>) -> LoggedWrite<'a> {
    LoggedWrite {
        method: call.method,
        part: None,
        decided: &[],
        context: call.context,
        body: call.body,
    }
}
