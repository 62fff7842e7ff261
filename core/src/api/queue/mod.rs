//! Queue: what its calls mean. Views of the wire in, response messages out.
//!
//! A queue has one owner among the shards: all its keys are one. So its records lie in one lane in
//! the order in which they take effect, and a message that was acked cannot come back because its
//! Ack was replayed before its Send. It knows nothing of connections, shards or threads.

mod answers;
pub(crate) mod apply;
pub(crate) mod execute;
mod receipt;
mod writes;

use std::time::Duration;

use prism_backends::{
    Digest, NamespaceId, StoreError, UnixMillis,
    api::queue::{ID_WINDOW_MS, Terms},
    sqlite::{Reader, Writer},
};
use prism_codec::{
    grpc::Status,
    message::{
        Repeated,
        common::{TimestampView, TokenView},
        queue::{
            AckView, ExtendView, MessageView, MoveView, NackView, PeekView, ReceiveView, SendBatchView,
            SendView, StateView, StatsView, WhichView,
        },
    },
    method::QueueMethod,
};
use prism_wal::tail::Payload;

use super::{
    Applied, Batch, StoreCall,
    memory::ShardMemory,
    service::{Loggable, Request, Service, check_window},
};
use crate::{
    call::{
        context::Context,
        error,
        footprint::CallToken,
        job::PartOutcome,
        record::{LoggedWrite, Part},
    },
    namespace::{spec::NamespaceSpec, terms},
};

/// The key of every queue. Owners are found by it, and logs on disk are laid out by owners, so it
/// stays.
const QUEUE_KEY: &str = "q";

/// The service.
pub(crate) struct Queue;

impl Service for Queue {
    type Method = QueueMethod;
    type Request<'a> = QueueRequest<'a>;

    fn decode(method: QueueMethod, message: &[u8]) -> Result<QueueRequest<'_>, Box<Status>> {
        QueueRequest::decode(method, message)
    }

    fn serve(
        memory: &mut ShardMemory,
        method: QueueMethod,
        request: &QueueRequest<'_>,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        execute::serve(&mut memory.queue, method, request, context, out)
    }

    /// A queue has one owner, so no call of it has parts.
    fn serve_part(
        _memory: &mut ShardMemory,
        _request: &QueueRequest<'_>,
        _context: &Context,
        _part: Part,
    ) -> Vec<PartOutcome> {
        Vec::new()
    }

    fn loggable(
        method: QueueMethod,
        request: &QueueRequest<'_>,
        context: &Context,
        _part: Option<Part>,
    ) -> Result<Loggable, Box<Status>> {
        writes::loggable(method, request, context)
    }

    fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        apply::apply(writer, batch)
    }

    fn redrive(writer: &mut Writer, record: &LoggedWrite<'_>, now: UnixMillis) -> Result<(), StoreError> {
        apply::redrive(writer, record, now)
    }

    fn write(
        writer: &mut Writer,
        calls: &[StoreCall<'_>],
        committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
        answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
    ) {
        execute::write(writer, calls, committed, answer);
    }

    fn read(
        reader: &Reader,
        call: &StoreCall<'_>,
        _unapplied: &[Payload],
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        execute::read(reader, call, out)
    }

    fn ready_at(writer: &mut Writer, namespace: NamespaceId) -> Result<Option<UnixMillis>, StoreError> {
        writer.queue_ready_at(namespace)
    }
}

/// A decoded request. Everything in it has been checked against the limits of the wire.
#[derive(Clone, Copy)]
pub(crate) enum QueueRequest<'a> {
    Send(SendView<'a>),
    SendBatch(SendBatchView<'a>),
    Receive(ReceiveView<'a>),
    Ack(AckView<'a>),
    Nack(NackView<'a>),
    Extend(ExtendView<'a>),
    Peek(PeekView<'a>),
    Redrive(MoveView<'a>),
    Delete(MoveView<'a>),
    Stats(StatsView<'a>),
}

impl<'a> QueueRequest<'a> {
    fn decode(method: QueueMethod, message: &'a [u8]) -> Result<Self, Box<Status>> {
        let decoded = match method {
            QueueMethod::Send => SendView::decode(message).map(Self::Send),
            QueueMethod::SendBatch => SendBatchView::decode(message).map(Self::SendBatch),
            QueueMethod::Receive => ReceiveView::decode(message).map(Self::Receive),
            QueueMethod::Ack => AckView::decode(message).map(Self::Ack),
            QueueMethod::Nack => NackView::decode(message).map(Self::Nack),
            QueueMethod::Extend => ExtendView::decode(message).map(Self::Extend),
            QueueMethod::Peek => PeekView::decode(message).map(Self::Peek),
            QueueMethod::Redrive => MoveView::decode(message).map(Self::Redrive),
            QueueMethod::Delete => MoveView::decode(message).map(Self::Delete),
            QueueMethod::Stats => StatsView::decode(message).map(Self::Stats),
        };
        decoded.map_err(|cause| error::from_decode(&cause))
    }
}

impl<'a> Request<'a> for QueueRequest<'a> {
    fn namespace(&self) -> &'a str {
        match self {
            Self::Send(view) => view.namespace,
            Self::SendBatch(view) => view.namespace,
            Self::Receive(view) => view.namespace,
            Self::Ack(view) => view.namespace,
            Self::Nack(view) => view.namespace,
            Self::Extend(view) => view.namespace,
            Self::Peek(view) => view.namespace,
            Self::Redrive(view) | Self::Delete(view) => view.namespace,
            Self::Stats(view) => view.namespace,
        }
    }

    /// The token that names a write. Those of acks are for the audit trail alone, that of a Receive
    /// names its leases.
    fn token(&self) -> Option<TokenView<'a>> {
        match self {
            Self::Send(view) => view.token,
            Self::SendBatch(view) => view.token,
            Self::Redrive(view) | Self::Delete(view) => view.token,
            Self::Receive(_)
            | Self::Ack(_)
            | Self::Nack(_)
            | Self::Extend(_)
            | Self::Peek(_)
            | Self::Stats(_) => None,
        }
    }

    fn keys(&self, mut each: impl FnMut(&'a str)) {
        each(QUEUE_KEY);
    }

    fn items(&self) -> u64 {
        match self {
            Self::SendBatch(view) => view.messages.len() as u64,
            _ => 1,
        }
    }

    fn digest(&self) -> Option<u64> {
        self.token()?;
        let mut digest = Digest::default();
        match self {
            Self::Send(view) => add_message(&mut digest, &view.message),
            Self::SendBatch(view) => {
                digest.number(view.messages.len() as u64);
                view.messages
                    .iter()
                    .for_each(|one| add_message(&mut digest, &one.message));
            }
            Self::Redrive(view) => add_which(&mut digest, 1, &view.which),
            Self::Delete(view) => add_which(&mut digest, 2, &view.which),
            Self::Receive(_)
            | Self::Ack(_)
            | Self::Nack(_)
            | Self::Extend(_)
            | Self::Peek(_)
            | Self::Stats(_) => {}
        }
        Some(digest.finish())
    }

    fn check(&self, spec: &NamespaceSpec) -> Result<(), Box<Status>> {
        check(self, spec.id, terms::unpack(spec.ttl_ms), spec.value_bytes_max)
    }

    fn check_time(time: TimestampView, wall_ns: i64, drift_max: Duration) -> Result<(), Box<Status>> {
        check_window(time, wall_ns, drift_max, ID_WINDOW_MS)
    }

    fn call_token(&self) -> Option<CallToken<'a>> {
        Some(CallToken {
            // The token alone names the call, whenever its client says that it was made.
            time: None,
            token: self.token()?.token,
            digest: self.digest()?,
        })
    }

    fn wait(&self) -> Duration {
        match self {
            Self::Receive(view) => Duration::from_millis(view.wait_ms),
            _ => Duration::ZERO,
        }
    }
}

fn add_message(digest: &mut Digest, message: &MessageView<'_>) {
    digest.bytes(message.ordering_key.as_bytes());
    digest.bytes(message.payload);
    digest.number(message.delay_ms());
    digest.number(u64::from(message.attempts()));
    // Clients write the entries of a map in any order, and in another one when they repeat the
    // call.
    let one = |attribute: prism_codec::message::pubsub::AttributeView<'_>| {
        let mut digest = Digest::default();
        digest.bytes(attribute.name.as_bytes());
        digest.bytes(attribute.value.as_bytes());
        digest.finish()
    };
    digest.number(message.attributes.iter().map(one).fold(0, u64::wrapping_add));
}

fn add_which(digest: &mut Digest, kind: u64, which: &WhichView<'_>) {
    digest.number(kind);
    match which {
        WhichView::Ids(ids) => ids.iter().for_each(|id| digest.bytes(id)),
        WhichView::State(state) => digest.number(u64::from(state.number().unsigned_abs())),
    }
}

/// Refuses what the namespace does not take; of a batch the whole, if it is so with one of its
/// messages or receipts.
fn check(
    request: &QueueRequest<'_>,
    namespace: NamespaceId,
    terms: Terms,
    payload_bytes_max: usize,
) -> Result<(), Box<Status>> {
    let receipts = |receipts: Repeated<'_, &[u8]>| {
        for (index, bytes) in receipts.iter().enumerate() {
            if receipt::decode(namespace, bytes).is_none() {
                return Err(error::invalid(
                    &format!("receipts[{index}]"),
                    "is not a receipt of this namespace; send one of an answer to Receive",
                ));
            }
        }
        Ok(())
    };
    match request {
        QueueRequest::Send(view) => match refusal(&view.message, terms, payload_bytes_max) {
            Some((field, why)) => Err(error::invalid(&format!("message.{field}"), &why)),
            None => Ok(()),
        },
        QueueRequest::SendBatch(view) => {
            for (index, one) in view.messages.iter().enumerate() {
                if let Some((field, why)) = refusal(&one.message, terms, payload_bytes_max) {
                    return Err(error::invalid(&format!("messages[{index}].{field}"), &why));
                }
            }
            Ok(())
        }
        QueueRequest::Ack(view) => receipts(view.receipts),
        QueueRequest::Nack(view) => {
            if view.delay_ms.is_some_and(|delay| delay > terms.retention_ms) {
                return Err(error::invalid("delay", &longer_than_retention(terms)));
            }
            receipts(view.receipts)
        }
        QueueRequest::Extend(view) => receipts(view.receipts),
        QueueRequest::Redrive(view) => match view.which {
            WhichView::State(state) if !writes::is_over(state) => Err(error::invalid(
                "state",
                "must be STATE_DEAD or STATE_DONE: other messages need no redrive",
            )),
            _ => Ok(()),
        },
        QueueRequest::Delete(view) => match view.which {
            WhichView::State(StateView::Leased) => Err(error::invalid(
                "state",
                "must not be STATE_LEASED: a worker has those messages",
            )),
            _ => Ok(()),
        },
        QueueRequest::Peek(view) if receipt::decode_page(namespace, view.page_token).is_none() => {
            Err(error::invalid(
                "page_token",
                "is not a token of this queue; start again without one",
            ))
        }
        QueueRequest::Peek(_) | QueueRequest::Receive(_) | QueueRequest::Stats(_) => Ok(()),
    }
}

fn longer_than_retention(terms: Terms) -> String {
    format!(
        "must be at most {} s, the namespace's retention",
        terms.retention_ms / 1_000
    )
}

/// The field of a message that the namespace does not take, and why.
fn refusal(
    message: &MessageView<'_>,
    terms: Terms,
    payload_bytes_max: usize,
) -> Option<(&'static str, String)> {
    let length = message.payload.len();
    if length > payload_bytes_max {
        let why = format!(
            "must have at most {payload_bytes_max} bytes (the namespace's max_message_size), has {length}"
        );
        return Some(("payload", why));
    }
    if !terms.ordered && !message.ordering_key.is_empty() {
        let why = "needs a namespace with ordered: true; leave it out, or make such a namespace";
        return Some(("ordering_key", why.to_owned()));
    }
    if message.delay_ms() > terms.retention_ms {
        return Some(("delay", longer_than_retention(terms)));
    }
    None
}
