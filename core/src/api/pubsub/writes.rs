//! Publishing: messages in the stores' form, and the answers for their outcomes.

use prism_backends::api::pubsub::{Message, Outcome};
use prism_codec::{
    grpc::{Code, Status},
    message::{
        common::{TokenView, WriteResultView},
        pubsub::{MessageView, append_batch_id, append_publish_id, encode_attributes},
        receipt::encode_write_response,
    },
    method::{Method, PubSubMethod},
};
use smallvec::SmallVec;

use super::{PARTITION_KEYS, PubSubRequest, partition_of};
use crate::{
    api::service::{Loggable, Request},
    call::{
        context::Context,
        error,
        job::PartOutcome,
        owner::key_hash,
        receipt::{self, LoggedItem, Receipt},
        record::{LoggedWrite, Part, Unreadable},
        ticket::Stamp,
    },
};

/// The id of a message.
type MessageId = SmallVec<[u8; 24]>;

/// One message with what it gets on its way.
pub(super) struct Change<'a> {
    view: MessageView<'a>,
    partition: u16,
    /// Position in a batch; 0 otherwise.
    pub(super) index: u32,
    id: MessageId,
    attributes: Vec<u8>,
}

/// The messages that a write asks for.
pub(super) struct Writes<'a> {
    /// One, except for PublishBatch.
    pub(super) changes: SmallVec<[Change<'a>; 1]>,
    /// Messages of a batch that are invalid by themselves, and those that come after one in their
    /// line.
    pub(super) refused: Vec<PartOutcome>,
    digest: Option<u64>,
    context: Context,
}

impl Change<'_> {
    /// The key of the message's partition.
    pub(super) fn key(&self) -> &'static str {
        PARTITION_KEYS[usize::from(self.partition)]
    }
}

impl Writes<'_> {
    /// A message as a store takes it.
    pub(super) fn message<'b>(&'b self, change: &'b Change<'_>) -> Message<'b> {
        let Context {
            namespace,
            now,
            default_ttl_ms,
            ..
        } = self.context;
        Message {
            namespace,
            promised: false,
            partition: change.partition,
            id: &change.id,
            digest: self.digest,
            at: now,
            expires_at: default_ttl_ms.map(|life| now.plus(life)),
            topic: change.view.topic,
            key: change.view.ordering_key,
            attributes: &change.attributes,
            payload: change.view.payload,
        }
    }

    /// All messages as a store takes them that were acknowledged.
    pub(super) fn promised(&self) -> impl Iterator<Item = Message<'_>> {
        self.messages().map(|message| Message {
            promised: true,
            ..message
        })
    }

    /// All messages as a store takes them.
    pub(super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.changes.iter().map(|change| self.message(change))
    }
}

/// The messages that a request publishes. `owns` says which partitions' are meant; all, usually.
pub(super) fn writes<'a>(
    request: &PubSubRequest<'a>,
    context: &Context,
    owns: impl Fn(&str) -> bool,
) -> Writes<'a> {
    let token = request.token();
    let mut writes = Writes {
        changes: SmallVec::new(),
        refused: Vec::new(),
        digest: request.digest(),
        context: *context,
    };
    let change = |view: MessageView<'a>, partition, index, id| {
        let mut attributes = Vec::new();
        encode_attributes(&mut attributes, view.attributes.iter());
        Change {
            view,
            partition,
            index,
            id,
            attributes,
        }
    };
    match request {
        PubSubRequest::Publish(view) => {
            let id = id_of(token, context.stamp, None);
            let message = view.message;
            writes.changes.push(change(
                message,
                partition_of(message.topic, message.ordering_key),
                0,
                id,
            ));
        }
        PubSubRequest::PublishBatch(view) => {
            let mut stopped: Vec<(&str, &str, u32)> = Vec::new();
            for (index, one) in (0..).zip(view.messages.iter()) {
                let message = one.message;
                let partition = partition_of(message.topic, message.ordering_key);
                if !owns(PARTITION_KEYS[usize::from(partition)]) {
                    continue;
                }
                let line = |(topic, key, _): &&(&str, &str, u32)| {
                    (*topic, *key) == (message.topic, message.ordering_key)
                };
                let refusal = match (stopped.iter().find(line), one.fault) {
                    (Some((_, _, first)), _) => Some(earlier_refused(*first)),
                    (None, fault) => fault.map(|fault| error::from_decode(&fault)),
                };
                match refusal {
                    Some(status) => {
                        stopped.push((message.topic, message.ordering_key, index));
                        writes.refused.push(PartOutcome {
                            index,
                            outcome: Err(status),
                            rest: Vec::new(),
                        });
                    }
                    None => {
                        let id = id_of(token, context.stamp, Some(index));
                        writes.changes.push(change(message, partition, index, id));
                    }
                }
            }
        }
        _ => {}
    }
    writes
}

/// The messages that a record publishes; those of a batch that are invalid are left out.
pub(super) fn writes_of<'a>(record: &LoggedWrite<'a>) -> Result<Writes<'a>, Unreadable> {
    let Method::PubSub(method) = record.method else {
        return Err(Unreadable);
    };
    let request = PubSubRequest::decode(method, record.body).map_err(|_| Unreadable)?;
    let (part, namespace) = (record.part, record.context.namespace);
    let owns = |key: &str| part.is_none_or(|part| part.owns(namespace, key));
    Ok(writes(&request, &record.context, owns))
}

/// The publisher's token, or a stamp, which no other message has; in a batch together with the
/// place in it.
fn id_of(token: Option<TokenView<'_>>, stamp: Stamp, index: Option<u32>) -> MessageId {
    let mut id = MessageId::new();
    match token {
        Some(token) => id.extend_from_slice(token.token),
        None => {
            id.extend_from_slice(&stamp.time_ns.to_be_bytes());
            id.extend_from_slice(&stamp.shard.to_be_bytes());
        }
    }
    if let Some(index) = index {
        id.extend_from_slice(&index.to_be_bytes());
    }
    id
}

fn earlier_refused(first: u32) -> Box<Status> {
    Box::new(
        Status::new(
            Code::Aborted,
            format!(
                "messages[{first}] has the same topic and ordering key and was refused; this one, which comes after it, was \
                 not published: mend that one, and send both again"
            ),
        )
        .with_reason("EARLIER_REFUSED", &[("index", &first.to_string())]),
    )
}

/// Prepares a write, or the part of one, for the log. What a store would refuse is refused here,
/// before anything is promised.
pub(super) fn loggable(
    request: &PubSubRequest<'_>,
    context: &Context,
    part: Option<Part>,
) -> Result<Loggable, Box<Status>> {
    let namespace = context.namespace;
    let owns = |key: &str| part.is_none_or(|part| part.owns(namespace, key));
    let writes = writes(request, context, owns);
    let mut keys: SmallVec<[u64; 1]> = SmallVec::new();
    for change in &writes.changes {
        writes
            .message(change)
            .check()
            .map_err(|cause| error::from_store(&cause))?;
        keys.push(key_hash(namespace, change.key()));
    }
    keys.sort_unstable();
    keys.dedup();
    let receipt = match request {
        PubSubRequest::PublishBatch(_) => Receipt::Each {
            logged: writes
                .changes
                .iter()
                .map(|change| LoggedItem {
                    index: change.index,
                    rest: rest_of_item(&change.id),
                })
                .collect(),
            refused: writes.refused,
            part: part.is_some(),
        },
        _ => Receipt::One {
            rest: writes
                .changes
                .first()
                .map_or_else(Vec::new, |one| rest_of_one(&one.id)),
        },
    };
    Ok(Loggable { keys, receipt })
}

fn rest_of_item(id: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    append_batch_id(&mut rest, id);
    rest
}

fn rest_of_one(id: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    append_publish_id(&mut rest, id);
    rest
}

/// Writes the response message for the outcomes of a request's messages; `result` is what those say
/// that the store has.
pub(super) fn encode_outcomes(
    method: PubSubMethod,
    writes: Writes<'_>,
    mut outcomes: impl Iterator<Item = Outcome>,
    result: &WriteResultView,
    out: &mut Vec<u8>,
) -> Result<(), Box<Status>> {
    if method == PubSubMethod::PublishBatch {
        receipt::encode_items(part_outcomes(writes, outcomes, result), out);
        return Ok(());
    }
    if let Some(Outcome::Refused(cause)) = outcomes.next() {
        return Err(error::from_store(&cause));
    }
    let rest = writes
        .changes
        .first()
        .map_or_else(Vec::new, |one| rest_of_one(&one.id));
    encode_write_response(out, result, &rest);
    Ok(())
}

/// The outcomes of a batch's messages, with their positions in the request.
pub(super) fn part_outcomes(
    writes: Writes<'_>,
    outcomes: impl Iterator<Item = Outcome>,
    result: &WriteResultView,
) -> Vec<PartOutcome> {
    let Writes {
        changes,
        refused: mut parts,
        ..
    } = writes;
    parts.extend(
        changes
            .iter()
            .zip(outcomes)
            .map(|(change, outcome)| match outcome {
                Outcome::Refused(cause) => PartOutcome {
                    index: change.index,
                    outcome: Err(error::from_store(&cause)),
                    rest: Vec::new(),
                },
                Outcome::Published | Outcome::Repeat => PartOutcome {
                    index: change.index,
                    outcome: Ok(*result),
                    rest: rest_of_item(&change.id),
                },
            }),
    );
    parts
}
