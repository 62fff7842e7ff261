//! Calls of queues where their data is: in the memory of a shard, at the writer of SQLite, at its
//! readers.

use prism_backends::{
    StoreError, UnixMillis,
    api::queue::{self, Held, Late, Outcome, Receive},
    memory::Queues,
    sqlite::{QueueTransaction, Reader, Writer},
};
use prism_codec::{
    grpc::Status,
    method::{Effect, Method, QueueMethod},
};

use super::{
    QUEUE_KEY, QueueRequest,
    answers::{self, Answer},
    writes::Writes,
};
use crate::{
    api::StoreCall,
    call::{
        context::Context,
        error,
        receipt::{self, BEST_EFFORT, applied},
        record::LoggedWrite,
    },
    namespace::spec::Path,
};

/// Serves a call from a shard's own queues.
pub(super) fn serve(
    queues: &mut Queues,
    method: QueueMethod,
    request: &QueueRequest<'_>,
    context: &Context,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    let (namespace, now) = (context.namespace, context.now);
    let refused = |cause: StoreError| error::from_store(&cause);
    match request {
        QueueRequest::Receive(view) => {
            let mut answer = Answer::new(namespace, out);
            let ask = answers::receive(namespace, view);
            let given = queues.receive(&ask, now, &mut answer);
            given.map(drop).map_err(refused)
        }
        QueueRequest::Extend(view) => {
            let held = answers::held(namespace, view);
            let ends = queues
                .extend(namespace, &held, view.lease_ms, now)
                .map_err(refused)?;
            answers::encode_extended(&ends, out);
            Ok(())
        }
        QueueRequest::Peek(view) => answers::peek(namespace, view, now, out, |peek, mut sink| {
            queues.peek(peek, now, &mut sink)
        }),
        QueueRequest::Stats(_) => {
            let counts = queues.stats(namespace, now).map_err(refused)?;
            answers::encode_counts(&counts, out);
            Ok(())
        }
        _ => {
            let writes = Writes::new(method, *request, context);
            let outcomes: Vec<Outcome> = writes.changes().map(|change| queues.apply_one(&change)).collect();
            writes.encode(outcomes.into_iter(), &applied(BEST_EFFORT), out)
        }
    }
}

/// Serves a read of a store.
pub(super) fn read(reader: &Reader, call: &StoreCall<'_>, out: &mut Vec<u8>) -> Result<(), Box<Status>> {
    let Method::Queue(method) = call.method else {
        return Err(error::not_served(call.method));
    };
    let (namespace, now) = (call.context.namespace, call.context.now);
    match QueueRequest::decode(method, call.body)? {
        QueueRequest::Peek(view) => answers::peek(namespace, &view, now, out, |peek, mut sink| {
            reader.peek_queue(peek, now, &mut sink)
        }),
        QueueRequest::Stats(_) => {
            let counts = reader.count_queue(namespace, now);
            answers::encode_counts(&counts.map_err(|cause| error::from_store(&cause))?, out);
            Ok(())
        }
        _ => Err(error::not_served(call.method)),
    }
}

/// Serves a read of a store that answers later, or a call that is never logged.
pub(crate) async fn read_later(
    store: &(impl queue::Reads + queue::Writes),
    call: &StoreCall<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    let Method::Queue(method) = call.method else {
        return Err(error::not_served(call.method));
    };
    let (namespace, now) = (call.context.namespace, call.context.now);
    let refused = |cause: StoreError| error::from_store(&cause);
    match QueueRequest::decode(method, call.body)? {
        QueueRequest::Receive(view) => {
            let mut answer = Answer::new(namespace, out);
            let ask = answers::receive(namespace, &view);
            let given = store.receive(&ask, now, &mut answer).await;
            given.map(drop).map_err(refused)
        }
        QueueRequest::Extend(view) => {
            let held = answers::held(namespace, &view);
            let ends = store.extend(namespace, &held, view.lease_ms, now).await;
            answers::encode_extended(&ends.map_err(refused)?, out);
            Ok(())
        }
        QueueRequest::Peek(view) => answers::peek_later(namespace, &view, now, out, store).await,
        QueueRequest::Stats(_) => {
            let counts = store.stats(namespace, now).await;
            answers::encode_counts(&counts.map_err(refused)?, out);
            Ok(())
        }
        _ => Err(error::not_served(call.method)),
    }
}

/// Serves writes as [`crate::api::write_later`] says: all in one transaction, in their order.
pub(crate) async fn write_later(
    store: &impl queue::Writes,
    calls: &[StoreCall<'_>],
    durability: i32,
    mut committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let prepared: Vec<_> = calls.iter().map(prepare).collect();
    let mut changes = Vec::with_capacity(calls.len());
    for one in prepared.iter().flatten() {
        if let Prepared::Writes(writes) = one {
            changes.extend(writes.changes());
        }
    }
    let mut outcomes = Vec::with_capacity(changes.len());
    let applied = store.apply(&changes, None, &mut outcomes).await;
    drop(changes);
    if let Err(cause) = &applied {
        tracing::warn!(error = %cause, calls = calls.len(), "the store refused calls of queues");
    }
    let mut outcomes = outcomes.into_iter();
    for (call, prepared) in calls.iter().zip(prepared) {
        let result = prepared.and_then(|prepared| {
            let Prepared::Writes(writes) = &prepared else {
                return Err(error::not_served(call.method));
            };
            if let Err(cause) = &applied {
                return Err(error::from_store(cause));
            }
            let own = outcomes.by_ref().take(writes.len()).collect();
            finish(call, prepared, Done::Outcomes(own), durability, &mut committed)
        });
        answer(call, result);
    }
}

/// A call at the writer, as far as it is known before the transaction.
enum Prepared<'a> {
    Writes(Box<Writes<'a>>),
    Receive(Receive<'a>),
    Extend(Vec<Held<'a>>, u64),
}

/// The answer of a store to one call.
enum Done {
    Outcomes(Vec<Outcome>),
    Given(Vec<u8>),
    Extended(Vec<Result<UnixMillis, Late>>),
}

/// Serves calls as [`crate::api::write`] says: all in one transaction, in their order.
pub(super) fn write(
    writer: &mut Writer,
    calls: &[StoreCall<'_>],
    mut committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
    mut answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
) {
    let prepared: Vec<_> = calls.iter().map(prepare).collect();
    // Workers that find nothing are many, and cost a look instead of a transaction.
    let is_idle = calls.iter().zip(&prepared).all(|(call, prepared)| {
        let is_plain = matches!(prepared, Ok(Prepared::Receive(receive)) if receive.call.is_empty());
        let ready = |at: Option<UnixMillis>| at.is_none_or(|at| at > call.context.now);
        is_plain && writer.queue_ready_at(call.context.namespace).is_ok_and(ready)
    });
    if is_idle {
        calls.iter().for_each(|call| answer(call, Ok(Vec::new())));
        return;
    }
    let done = writer.queue_at(&[], |transaction| {
        let each = |(call, prepared): (&StoreCall<'_>, &Result<Prepared<'_>, _>)| match prepared {
            Ok(prepared) => serve_one(transaction, call, prepared),
            Err(_) => Ok(Ok(Done::Outcomes(Vec::new()))),
        };
        calls
            .iter()
            .zip(&prepared)
            .map(each)
            .collect::<Result<Vec<_>, _>>()
    });
    let done = match done {
        Ok(done) => done,
        Err(cause) => {
            tracing::warn!(error = %cause, calls = calls.len(), "the store refused calls of queues");
            for call in calls {
                answer(call, Err(error::from_store(&cause)));
            }
            return;
        }
    };
    for ((call, prepared), done) in calls.iter().zip(prepared).zip(done) {
        let result = prepared.and_then(|prepared| {
            let done = done.map_err(|cause| error::from_store(&cause))?;
            finish(call, prepared, done, BEST_EFFORT, &mut committed)
        });
        answer(call, result);
    }
}

fn prepare<'a>(call: &StoreCall<'a>) -> Result<Prepared<'a>, Box<Status>> {
    let Method::Queue(method) = call.method else {
        return Err(error::not_served(call.method));
    };
    let namespace = call.context.namespace;
    Ok(match QueueRequest::decode(method, call.body)? {
        QueueRequest::Receive(view) => Prepared::Receive(answers::receive(namespace, &view)),
        QueueRequest::Extend(view) => Prepared::Extend(answers::held(namespace, &view), view.lease_ms),
        QueueRequest::Peek(_) | QueueRequest::Stats(_) => return Err(error::not_served(call.method)),
        request => Prepared::Writes(Box::new(Writes::new(method, request, &call.context))),
    })
}

/// Serves a call within the transaction. The outer error ends it; the inner one is this call's.
fn serve_one(
    transaction: &mut QueueTransaction<'_>,
    call: &StoreCall<'_>,
    prepared: &Prepared<'_>,
) -> Result<Result<Done, StoreError>, StoreError> {
    let (namespace, now) = (call.context.namespace, call.context.now);
    if let Err(cause) = transaction.check(namespace) {
        return Ok(Err(cause));
    }
    let done = match prepared {
        Prepared::Writes(writes) => Done::Outcomes(
            writes
                .changes()
                .map(|change| transaction.apply(&change))
                .collect::<Result<_, _>>()?,
        ),
        Prepared::Receive(receive) => {
            let mut message = Vec::new();
            let mut answer = Answer::new(namespace, &mut message);
            transaction.receive(receive, now, &mut answer)?;
            Done::Given(message)
        }
        Prepared::Extend(held, lease_ms) => Done::Extended(
            held.iter()
                .map(|held| transaction.extend(namespace, held, *lease_ms, now))
                .collect::<Result<_, _>>()?,
        ),
    };
    Ok(Ok(done))
}

fn finish(
    call: &StoreCall<'_>,
    prepared: Prepared<'_>,
    done: Done,
    mut durability: i32,
    committed: &mut impl FnMut(&LoggedWrite<'_>, &[&str]),
) -> Result<Vec<u8>, Box<Status>> {
    let mut message = Vec::new();
    match (prepared, done) {
        (Prepared::Writes(writes), Done::Outcomes(outcomes)) => {
            if call.path == Path::StoreThenLog {
                durability = receipt::EVENTUAL;
                let record = LoggedWrite {
                    method: call.method,
                    part: None,
                    decided: &[],
                    context: call.context,
                    body: call.body,
                };
                let is_new = |outcome: &Outcome| !matches!(outcome, Outcome::Repeat | Outcome::Refused(_));
                debug_assert_ne!(call.method.spec().effect, Effect::Direct);
                if outcomes.iter().any(is_new) {
                    committed(&record, &[QUEUE_KEY]);
                }
            }
            writes.encode(outcomes.into_iter(), &applied(durability), &mut message)?;
        }
        (_, Done::Given(given)) => message = given,
        (_, Done::Extended(ends)) => answers::encode_extended(&ends, &mut message),
        (_, Done::Outcomes(_)) => {}
    }
    Ok(message)
}
