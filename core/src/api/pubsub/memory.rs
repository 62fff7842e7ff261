//! Publishing into a shard's own messages, and calls about the groups that it keeps, answered
//! inline.

use prism_backends::{api::pubsub::Outcome, memory::Messages};
use prism_codec::{grpc::Status, method::PubSubMethod};

use super::{
    PubSubRequest, groups, position,
    writes::{Writes, encode_outcomes, part_outcomes, writes},
};
use crate::call::{
    context::Context,
    job::PartOutcome,
    receipt::{BEST_EFFORT, applied},
    record::Part,
};

/// Serves a call from a shard's own messages, inline.
pub(super) fn serve(
    store: &mut Messages,
    method: PubSubMethod,
    request: &PubSubRequest<'_>,
    context: &Context,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    if let PubSubRequest::ListGroups(view) = request {
        return groups::read_memory(store, view, context, out);
    }
    if let Some(prepared) = groups::Prepared::new(request, context, position::instance()) {
        let prepared = prepared?;
        let outcome = store.change_group(&prepared.change());
        return prepared.encode(outcome, &applied(BEST_EFFORT), out);
    }
    let writes = writes(request, context, |_| true);
    let outcomes = publish_each(store, &writes);
    encode_outcomes(method, writes, outcomes.into_iter(), &applied(BEST_EFFORT), out)
}

/// Serves the part of a batch whose partitions this shard owns.
pub(super) fn serve_part(
    store: &mut Messages,
    request: &PubSubRequest<'_>,
    context: &Context,
    part: Part,
) -> Vec<PartOutcome> {
    let owns = |key: &str| part.owns(context.namespace, key);
    let writes = writes(request, context, owns);
    let outcomes = publish_each(store, &writes);
    part_outcomes(writes, outcomes.into_iter(), &applied(BEST_EFFORT))
}

fn publish_each(store: &mut Messages, writes: &Writes<'_>) -> Vec<Outcome> {
    writes
        .messages()
        .map(|message| store.publish_one(&message))
        .collect()
}
