//! Encoders of the requests and responses of `prism.pubsub.v1.PubSub`: they append to the caller's
//! buffer.
//!
//! Promises the bytes that `prost` would write for the same values, without intermediate copies. A
//! message's attributes travel as they stand on the wire ([`encode_attributes`]), so that a store
//! keeps and returns them without looking at them.

use super::{AttributeView, GapView, StartView};
use crate::{
    message::common::{DurationView, StatusOut, TimestampView, TokenView, WriteResultView},
    writer::{
        bytes_len, len_field_len, put_bytes, put_bytes_always, put_len_key, put_varint_field,
        varint_field_len,
    },
};

/// A message to be sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MessageOut<'a> {
    /// Topic; empty: the namespace's own.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Ordering key.
    pub ordering_key: &'a str,
    /// Attributes as [`encode_attributes`] writes them.
    pub attributes: &'a [u8],
}

impl MessageOut<'_> {
    fn encoded_len(&self) -> usize {
        bytes_len(self.topic.as_bytes())
            + bytes_len(self.payload)
            + bytes_len(self.ordering_key.as_bytes())
            + self.attributes.len()
    }

    fn put(&self, out: &mut Vec<u8>, field: u32) {
        let length = self.encoded_len();
        out.reserve(length + 11);
        put_len_key(out, field, length);
        put_bytes(out, 1, self.topic.as_bytes());
        put_bytes(out, 2, self.payload);
        put_bytes(out, 3, self.ordering_key.as_bytes());
        out.extend_from_slice(self.attributes);
    }
}

/// Appends attributes as they stand within a `Message`. `prost` writes those of one message in the
/// order of their names.
pub fn encode_attributes<'a>(out: &mut Vec<u8>, attributes: impl IntoIterator<Item = AttributeView<'a>>) {
    for attribute in attributes {
        let (name, value) = (attribute.name.as_bytes(), attribute.value.as_bytes());
        put_len_key(out, 4, bytes_len(name) + bytes_len(value));
        put_bytes(out, 1, name);
        put_bytes(out, 2, value);
    }
}

// ---- requests ----

/// Appends a `PublishRequest`.
pub fn encode_publish_request(
    out: &mut Vec<u8>,
    namespace: &str,
    token: Option<&TokenView<'_>>,
    message: &MessageOut<'_>,
) {
    put_bytes(out, 1, namespace.as_bytes());
    if let Some(token) = token {
        token.put(out, 2);
    }
    message.put(out, 3);
}

/// Appends a `PublishBatchRequest`.
pub fn encode_publish_batch_request<'m>(
    out: &mut Vec<u8>,
    namespace: &str,
    token: Option<&TokenView<'_>>,
    messages: impl IntoIterator<Item = MessageOut<'m>>,
) {
    put_bytes(out, 1, namespace.as_bytes());
    if let Some(token) = token {
        token.put(out, 2);
    }
    for message in messages {
        message.put(out, 3);
    }
}

/// A `SubscribeRequest` to be sent.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct SubscribeOut<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Patterns; none: all topics.
    pub topics: &'a [&'a str],
    /// Place at which to begin; absent: the latest.
    pub start: Option<StartView<'a>>,
    /// Group; empty: none.
    pub group: &'a str,
    /// Most messages of an answer; 0: the default.
    pub batch_messages: u32,
    /// Most bytes of an answer; 0: the default.
    pub batch_bytes: u32,
    /// Most messages that are not committed; 0: the default.
    pub uncommitted_messages_max: u32,
    /// Longest time without a commit.
    pub commit_timeout: Option<DurationView>,
}

/// Appends a `SubscribeRequest`.
pub fn encode_subscribe_request(out: &mut Vec<u8>, request: &SubscribeOut<'_>) {
    put_bytes(out, 1, request.namespace.as_bytes());
    for topic in request.topics {
        put_bytes_always(out, 2, topic.as_bytes());
    }
    match request.start {
        None => {}
        // A member of a oneof is written even if it is 0.
        Some(StartView::Latest) => out.extend_from_slice(&[0x1a, 2, 8, 1]),
        Some(StartView::Earliest) => out.extend_from_slice(&[0x1a, 2, 8, 2]),
        Some(StartView::Time(time)) => {
            put_len_key(out, 3, time.field_len());
            time.put(out, 2);
        }
        Some(StartView::Position(position)) => {
            put_len_key(out, 3, len_field_len(position.len()));
            put_bytes_always(out, 3, position);
        }
    }
    put_bytes(out, 4, request.group.as_bytes());
    put_varint_field(out, 5, u64::from(request.batch_messages));
    put_varint_field(out, 6, u64::from(request.batch_bytes));
    put_varint_field(out, 7, u64::from(request.uncommitted_messages_max));
    if let Some(timeout) = request.commit_timeout {
        timeout.put(out, 8);
    }
}

// ---- responses ----

/// Appends a `PublishResponse`.
pub fn encode_publish_response(out: &mut Vec<u8>, result: &WriteResultView, message_id: &[u8]) {
    result.put(out, 1);
    put_bytes(out, 2, message_id);
}

/// Appends the id of the message to a `PublishResponse` that has its result already.
pub fn append_publish_id(out: &mut Vec<u8>, message_id: &[u8]) {
    put_bytes(out, 2, message_id);
}

/// Appends the id of the message to a `PublishResult` that has its status and result already.
pub fn append_batch_id(out: &mut Vec<u8>, message_id: &[u8]) {
    put_bytes(out, 3, message_id);
}

/// Writes a `PublishBatchResponse`, result by result.
pub struct PublishBatchResponseWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> PublishBatchResponseWriter<'o> {
    /// Begins after whatever `out` holds.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        PublishBatchResponseWriter { out }
    }

    /// Appends what became of the next message. A success has the status `StatusOut::default()`, a
    /// result and an id.
    pub fn result(&mut self, status: &StatusOut<'_>, result: Option<&WriteResultView>, message_id: &[u8]) {
        let length = len_field_len(status.encoded_len())
            + result.map_or(0, WriteResultView::field_len)
            + bytes_len(message_id);
        put_len_key(self.out, 1, length);
        status.put(self.out, 1);
        if let Some(result) = result {
            result.put(self.out, 2);
        }
        put_bytes(self.out, 3, message_id);
    }
}

/// A message of a subscription's answer.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct ReceivedOut<'a> {
    /// Id of the message.
    pub id: &'a [u8],
    /// The message.
    pub message: MessageOut<'a>,
    /// Time at which the store took it.
    pub store_time: TimestampView,
}

fn received_len(received: &ReceivedOut<'_>) -> usize {
    bytes_len(received.id) + len_field_len(received.message.encoded_len()) + received.store_time.field_len()
}

/// Bytes that a message takes within a `SubscribeResponse`, with its key and length: what counts
/// for `batch_bytes`.
pub fn received_encoded_len(received: &ReceivedOut<'_>) -> usize {
    len_field_len(received_len(received))
}

/// A [`GapView`] to be sent.
pub type GapOut = GapView;

/// Writes a `SubscribeResponse`, message by message.
pub struct SubscribeResponseWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> SubscribeResponseWriter<'o> {
    /// Begins after whatever `out` holds.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        SubscribeResponseWriter { out }
    }

    /// Appends a message.
    pub fn message(&mut self, received: &ReceivedOut<'_>) {
        let length = received_len(received);
        self.out.reserve(length + 11);
        put_len_key(self.out, 1, length);
        put_bytes(self.out, 1, received.id);
        received.message.put(self.out, 2);
        received.store_time.put(self.out, 3);
    }

    /// Ends the answer.
    pub fn finish(self, position: &[u8], gap: Option<&GapOut>, waiting_for_commit: bool) {
        put_bytes(self.out, 2, position);
        if let Some(gap) = gap {
            let oldest = gap.oldest_left_time;
            let length = varint_field_len(gap.messages) + oldest.map_or(0, |time| time.field_len());
            put_len_key(self.out, 3, length);
            put_varint_field(self.out, 1, gap.messages);
            if let Some(oldest) = oldest {
                oldest.put(self.out, 2);
            }
        }
        put_varint_field(self.out, 4, u64::from(waiting_for_commit));
    }
}
