//! Calls on a shard's own memory store, answered inline.

use prism_backends::{Outcome, memory::MemoryStore};
use prism_codec::{grpc::Status, method::KeyValueMethod};

use super::{
    KeyValueRequest,
    reads::get,
    writes::{Writes, encode_outcome, encode_outcomes, part_outcomes, writes},
};
use crate::call::{
    context::Context,
    job::PartOutcome,
    receipt::{BEST_EFFORT, applied},
    record::Part,
};

/// Serves a call; see [`Service::serve`](crate::api::service::Service::serve).
pub(super) fn serve(
    store: &mut MemoryStore,
    method: KeyValueMethod,
    request: &KeyValueRequest<'_>,
    context: &Context,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    if let KeyValueRequest::Get(view) = request {
        return get(view, context, out, |query, sink| {
            store.get(query, context.now, sink)
        });
    }
    let writes = writes(request, context, |_| true);
    if let [one] = writes.changes.as_slice()
        && method != KeyValueMethod::Mutate
    {
        let outcome = store.apply_one(&one.mutation());
        return encode_outcome(method, &outcome, context.now, &applied(BEST_EFFORT), out);
    }
    let outcomes = apply_each(store, &writes);
    encode_outcomes(
        method,
        writes,
        outcomes.into_iter(),
        context.now,
        &applied(BEST_EFFORT),
        out,
    )
}

/// Serves the part of a Mutate with the ids that this shard owns.
pub(super) fn serve_part(
    store: &mut MemoryStore,
    request: &KeyValueRequest<'_>,
    context: &Context,
    part: Part,
) -> Vec<PartOutcome> {
    let owns = |id: &str| part.owns(context.namespace, id);
    let writes = writes(request, context, owns);
    let outcomes = apply_each(store, &writes);
    part_outcomes(writes, outcomes.into_iter(), &applied(BEST_EFFORT))
}

fn apply_each(store: &mut MemoryStore, writes: &Writes<'_>) -> Vec<Outcome> {
    writes
        .changes
        .iter()
        .map(|one| store.apply_one(&one.mutation()))
        .collect()
}
