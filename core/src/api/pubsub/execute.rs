//! Publishing calls at the store's writer: many of them in one transaction, each with its answer.

use prism_backends::{StoreError, api::pubsub::Outcome, sqlite::Writer};
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

/// Publishes as [`crate::api::write`] says.
pub(super) fn write(
    writer: &mut Writer,
    calls: &[StoreCall<'_>],
    mut committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let prepared: Vec<Result<Prepared<'_>, Box<Status>>> = calls.iter().map(prepare).collect();
    let all = prepared.iter().flatten();
    let messages: Vec<_> = all.flat_map(|prepared| prepared.writes.messages()).collect();
    let mut outcomes = Vec::with_capacity(messages.len());
    let published = match messages.is_empty() {
        true => Ok(()),
        false => writer.publish_at(&messages, &[], &mut outcomes),
    };
    drop(messages);
    if let Err(cause) = &published {
        tracing::warn!(error = %cause, calls = calls.len(), "the store refused messages");
    }
    let mut outcomes = outcomes.into_iter();
    for (call, prepared) in calls.iter().zip(prepared) {
        let result =
            prepared.and_then(|prepared| finish(call, prepared, &published, &mut outcomes, &mut committed));
        answer(call, result);
    }
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
    published: &Result<(), StoreError>,
    outcomes: &mut impl Iterator<Item = Outcome>,
    committed: &mut impl FnMut(&LoggedWrite<'_>, &[&str]),
) -> Result<Vec<u8>, Box<Status>> {
    if let Err(cause) = published {
        return Err(error::from_store(cause));
    }
    let own: Vec<Outcome> = outcomes.take(writes.changes.len()).collect();
    if call.path == Path::Queued {
        // Its client has an answer already: only what is lost matters.
        let refused = own.into_iter().find_map(|outcome| match outcome {
            Outcome::Refused(cause) => Some(error::from_store(&cause)),
            Outcome::Published | Outcome::Repeat => None,
        });
        return refused.map_or(Ok(Vec::new()), Err);
    }
    let mut durability = receipt::BEST_EFFORT;
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
