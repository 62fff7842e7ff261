//! Writes: acts as stores take them, and what is said of their outcomes.

use prism_backends::{
    Digest,
    api::queue::{Act, Change, Late, NewMessage, Outcome, State, Terms, Verdict, Which, backoff_ms},
};
use prism_codec::{
    grpc::{Code, Status},
    message::{
        common::{TokenView, WriteResultView},
        queue::{
            BatchMessageView, MessageView, MoveView, StateView, WhichView, append_batch_id, append_moved,
            append_nacked_state, append_send_id, encode_attributes,
        },
        receipt::encode_write_response,
    },
    method::{Effect, Method, QueueMethod},
};
use smallvec::{SmallVec, smallvec};

use super::{QUEUE_KEY, QueueRequest, receipt};
use crate::{
    api::service::{Loggable, Request as _},
    call::{
        context::Context,
        error,
        job::PartOutcome,
        owner::key_hash,
        receipt::{self as receipts, LoggedItem, Receipt},
        record::{LoggedWrite, Unreadable},
        ticket::Stamp,
    },
    namespace::terms,
};

/// The id of a message, or of a call.
type Id = SmallVec<[u8; 24]>;

/// One item of a request, with what it gets on its way.
enum Item<'a> {
    Send {
        view: MessageView<'a>,
        id: Id,
        attributes: Vec<u8>,
    },
    Receipt(&'a [u8]),
    Move {
        call: Id,
        ids: Vec<&'a [u8]>,
    },
}

/// The acts of a write.
pub(super) struct Writes<'a> {
    request: QueueRequest<'a>,
    items: Vec<(u32, Item<'a>)>,
    /// Messages of a batch that are invalid by themselves, and those that come after one in their
    /// line.
    pub(super) refused: Vec<PartOutcome>,
    digest: Option<u64>,
    context: Context,
    terms: Terms,
}

impl<'a> Writes<'a> {
    /// The acts of a request. It has been checked against its namespace.
    pub(super) fn new(method: QueueMethod, request: QueueRequest<'a>, context: &Context) -> Self {
        debug_assert_ne!(method.spec().effect, Effect::None, "a read writes nothing");
        let token = request.token();
        let terms = terms::unpack(context.default_ttl_ms);
        let mut refused = Vec::new();
        let items = match &request {
            QueueRequest::Send(view) => vec![(0, send(view.message, id_of(token, context.stamp, None)))],
            QueueRequest::SendBatch(view) => {
                let mut items = Vec::with_capacity(view.messages.len());
                let mut stopped: Vec<(&str, u32)> = Vec::new();
                for (index, one) in (0..).zip(view.messages.iter()) {
                    match batch_refusal(&stopped, &one) {
                        Some(status) => {
                            stopped.push((one.message.ordering_key, index));
                            refused.push(PartOutcome {
                                index,
                                outcome: Err(status),
                                rest: Vec::new(),
                            });
                        }
                        None => {
                            let id = id_of(token, context.stamp, Some(index));
                            items.push((index, send(one.message, id)));
                        }
                    }
                    // Without order no message waits for another.
                    if !terms.ordered {
                        stopped.clear();
                    }
                }
                items
            }
            QueueRequest::Ack(view) => (0..).zip(view.receipts.iter().map(Item::Receipt)).collect(),
            QueueRequest::Nack(view) => (0..).zip(view.receipts.iter().map(Item::Receipt)).collect(),
            QueueRequest::Redrive(view) | QueueRequest::Delete(view) => {
                let ids = match view.which {
                    WhichView::Ids(ids) => ids.iter().collect(),
                    WhichView::State(_) => Vec::new(),
                };
                let call = id_of(token, context.stamp, None);
                vec![(0, Item::Move { call, ids })]
            }
            QueueRequest::Receive(_)
            | QueueRequest::Extend(_)
            | QueueRequest::Peek(_)
            | QueueRequest::Stats(_) => Vec::new(),
        };
        Writes {
            digest: request.digest(),
            context: *context,
            terms,
            items,
            refused,
            request,
        }
    }

    /// The writes of a record.
    pub(super) fn of(record: &LoggedWrite<'a>) -> Result<Self, Unreadable> {
        let Method::Queue(method) = record.method else {
            return Err(Unreadable);
        };
        let request = QueueRequest::decode(method, record.body).map_err(|_| Unreadable)?;
        Ok(Writes::new(method, request, &record.context))
    }

    /// How many acts there are.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The acts, as a store takes them.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.items.iter().filter_map(|(_, item)| {
            Some(Change {
                namespace: self.context.namespace,
                terms: self.terms,
                at: self.context.now,
                act: self.act(item)?,
            })
        })
    }

    fn act<'b>(&'b self, item: &'b Item<'a>) -> Option<Act<'b>> {
        Some(match (item, &self.request) {
            (Item::Send { view, id, attributes }, _) => Act::Send(NewMessage {
                id,
                digest: self.digest,
                key: view.ordering_key,
                delay_ms: view.delay_ms(),
                attempts_max: view.attempts(),
                attributes,
                payload: view.payload,
            }),
            (Item::Receipt(bytes), QueueRequest::Nack(view)) => {
                let held = receipt::decode(self.context.namespace, bytes)?;
                let mut chance = Digest::default();
                chance.bytes(bytes);
                Act::Nack {
                    held,
                    verdict: Verdict {
                        delay_ms: view
                            .delay_ms
                            .unwrap_or_else(|| backoff_ms(held.attempt.serial, chance.finish())),
                        dead: view.dead,
                        uncounted: view.uncounted,
                    },
                    reason: view.reason,
                }
            }
            (Item::Receipt(bytes), _) => Act::Ack(receipt::decode(self.context.namespace, bytes)?),
            (Item::Move { call, ids }, request) => {
                let (view, is_redrive): (&MoveView<'_>, bool) = match request {
                    QueueRequest::Redrive(view) => (view, true),
                    QueueRequest::Delete(view) => (view, false),
                    _ => return None,
                };
                let which = match view.which {
                    WhichView::Ids(_) => Which::Ids(ids),
                    WhichView::State(state) => Which::State(state_of(state)),
                };
                let (call, digest) = (call.as_slice(), self.digest);
                match is_redrive {
                    true => Act::Redrive { call, digest, which },
                    false => Act::Delete { call, digest, which },
                }
            }
        })
    }

    /// Writes the response message for the outcomes of all acts; `result` is what those say that
    /// took place.
    ///
    /// # Errors
    /// Why a call of one act had no effect.
    pub(super) fn encode(
        self,
        outcomes: impl Iterator<Item = Outcome>,
        result: &WriteResultView,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        let is_batch = matches!(
            self.request,
            QueueRequest::SendBatch(_) | QueueRequest::Ack(_) | QueueRequest::Nack(_)
        );
        let mut parts = self.refused;
        for ((index, item), outcome) in self.items.iter().zip(outcomes) {
            let mut rest = Vec::new();
            let outcome = judge(item, outcome, is_batch, &mut rest);
            if !is_batch {
                outcome?;
                encode_write_response(out, result, &rest);
                return Ok(());
            }
            parts.push(PartOutcome {
                index: *index,
                outcome: outcome.map(|()| *result),
                rest,
            });
        }
        receipts::encode_items(parts, out);
        Ok(())
    }
}

/// Reads one outcome; appends what its API says of it beyond the result.
fn judge(item: &Item<'_>, outcome: Outcome, is_batch: bool, rest: &mut Vec<u8>) -> Result<(), Box<Status>> {
    match outcome {
        Outcome::Sent | Outcome::Repeat => {
            if let Item::Send { id, .. } = item {
                match is_batch {
                    true => append_batch_id(rest, id),
                    false => append_send_id(rest, id),
                }
            }
        }
        Outcome::Acked => {}
        Outcome::Nacked(state) => append_nacked_state(rest, view_of(state)),
        Outcome::Moved(messages, more) => append_moved(rest, messages, more),
        Outcome::Late(late) => return Err(too_late(late)),
        Outcome::Refused(cause) => return Err(error::from_store(&cause)),
    }
    Ok(())
}

fn send<'a>(view: MessageView<'a>, id: Id) -> Item<'a> {
    let mut attributes = Vec::new();
    encode_attributes(&mut attributes, view.attributes.iter());
    Item::Send { view, id, attributes }
}

fn batch_refusal(stopped: &[(&str, u32)], one: &BatchMessageView<'_>) -> Option<Box<Status>> {
    let line = stopped.iter().find(|(key, _)| *key == one.message.ordering_key);
    match (line, one.fault) {
        (Some((_, first)), _) => Some(earlier_refused(*first)),
        (None, fault) => fault.map(|fault| error::from_decode(&fault)),
    }
}

/// The client's token, or a stamp, which no other call has; in a batch with the place there.
fn id_of(token: Option<TokenView<'_>>, stamp: Stamp, index: Option<u32>) -> Id {
    let mut id = Id::new();
    match token {
        Some(token) => id.extend_from_slice(token.token),
        None => {
            id.extend_from_slice(&stamp.time_ns.to_be_bytes());
            id.extend_from_slice(&stamp.shard.to_be_bytes());
            // Of two gateways, too.
            id.extend_from_slice(&stamp.gateway.to_be_bytes());
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
                "messages[{first}] has the same ordering key and was refused; this one, which comes after it, was not sent: \
                 mend that one, and send both again"
            ),
        )
        .with_reason("EARLIER_REFUSED", &[("index", &first.to_string())]),
    )
}

/// Says that a worker's word came too late.
pub(super) fn too_late(late: Late) -> Box<Status> {
    let (code, reason, sentence) = match late {
        Late::Lost => (
            Code::Aborted,
            "LEASE_LOST",
            "another attempt of this message has begun, or it waits for one; drop the work",
        ),
        Late::Gone => (
            Code::NotFound,
            "MESSAGE_GONE",
            "there is no such message any more: it was done or deleted",
        ),
        Late::TooLong => (
            Code::FailedPrecondition,
            "LEASE_TOO_LONG",
            "this attempt has had its 12 h; finish, or let it end",
        ),
    };
    Box::new(Status::new(code, sentence).with_reason(reason, &[]))
}

/// Whether messages of this state are done with.
pub(super) fn is_over(state: StateView) -> bool {
    !state_of(state).is_undone()
}

pub(super) fn state_of(view: StateView) -> State {
    match view {
        StateView::Ready => State::Ready,
        StateView::Delayed => State::Delayed,
        StateView::Leased => State::Leased,
        StateView::Dead => State::Dead,
        StateView::Done => State::Done,
    }
}

pub(super) fn view_of(state: State) -> StateView {
    match state {
        State::Ready => StateView::Ready,
        State::Delayed => StateView::Delayed,
        State::Leased => StateView::Leased,
        State::Dead => StateView::Dead,
        State::Done => StateView::Done,
    }
}

/// Prepares a write for the log. What a store would refuse is refused here, before anything is
/// promised.
pub(super) fn loggable(
    method: QueueMethod,
    request: &QueueRequest<'_>,
    context: &Context,
) -> Result<Loggable, Box<Status>> {
    let writes = Writes::new(method, *request, context);
    for change in writes.changes() {
        if let Act::Send(message) = change.act {
            message.check().map_err(|cause| error::from_store(&cause))?;
        }
    }
    let receipt = match (&writes.request, method.spec().effect) {
        (_, Effect::Judged) => Receipt::Verdict,
        (QueueRequest::SendBatch(_), _) => {
            let logged = |(index, item): &(u32, Item<'_>)| {
                let mut rest = Vec::new();
                if let Item::Send { id, .. } = item {
                    append_batch_id(&mut rest, id);
                }
                LoggedItem { index: *index, rest }
            };
            Receipt::Each {
                logged: writes.items.iter().map(logged).collect(),
                refused: writes.refused,
                part: false,
            }
        }
        _ => {
            let mut rest = Vec::new();
            if let Some((_, Item::Send { id, .. })) = writes.items.first() {
                append_send_id(&mut rest, id);
            }
            Receipt::One { rest }
        }
    };
    Ok(Loggable {
        keys: smallvec![key_hash(context.namespace, QUEUE_KEY)],
        receipt,
    })
}
