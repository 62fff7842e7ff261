//! Encoders of the responses of `prism.queue.v1.Queue`: they append to the caller's buffer.
//!
//! Promises the bytes that `prost` would write for the same values, without intermediate copies. A
//! message's attributes travel as they stand on the wire ([`encode_attributes`]), so that a store
//! keeps and returns them without looking at them.

use super::StateView;
use crate::{
    message::{
        common::{StatusOut, TimestampView},
        pubsub::AttributeView,
    },
    writer::{bytes_len, len_field_len, put_bytes, put_len_key, put_varint_field, varint_field_len},
};

/// A message to be sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MessageOut<'a> {
    /// Payload.
    pub payload: &'a [u8],
    /// Ordering key.
    pub ordering_key: &'a str,
    /// Attributes as [`encode_attributes`] writes them.
    pub attributes: &'a [u8],
    /// Attempts that it has.
    pub attempts_max: u32,
}

impl MessageOut<'_> {
    fn encoded_len(&self) -> usize {
        bytes_len(self.payload)
            + bytes_len(self.ordering_key.as_bytes())
            + self.attributes.len()
            + varint_field_len(u64::from(self.attempts_max))
    }

    fn put(&self, out: &mut Vec<u8>, field: u32) {
        put_len_key(out, field, self.encoded_len());
        put_bytes(out, 1, self.payload);
        put_bytes(out, 2, self.ordering_key.as_bytes());
        out.extend_from_slice(self.attributes);
        put_varint_field(out, 5, u64::from(self.attempts_max));
    }
}

/// Appends attributes as they stand within a `Message`. `prost` writes those of one message in the
/// order of their names.
pub fn encode_attributes<'a>(out: &mut Vec<u8>, attributes: impl IntoIterator<Item = AttributeView<'a>>) {
    for attribute in attributes {
        let (name, value) = (attribute.name.as_bytes(), attribute.value.as_bytes());
        put_len_key(out, 3, bytes_len(name) + bytes_len(value));
        put_bytes(out, 1, name);
        put_bytes(out, 2, value);
    }
}

/// Appends the id of the message to a `SendResponse` that has its result already.
pub fn append_send_id(out: &mut Vec<u8>, message_id: &[u8]) {
    put_bytes(out, 2, message_id);
}

/// Appends the id of the message to a `SendResult` that has its status and result already.
pub fn append_batch_id(out: &mut Vec<u8>, message_id: &[u8]) {
    put_bytes(out, 3, message_id);
}

/// Appends the state to a `NackResult` that has its status and result already.
pub fn append_nacked_state(out: &mut Vec<u8>, state: StateView) {
    put_varint_field(out, 3, state.number() as u64);
}

/// Appends the numbers to a `RedriveResponse` or a `DeleteResponse` that has its result already.
pub fn append_moved(out: &mut Vec<u8>, messages: u64, more: bool) {
    put_varint_field(out, 2, messages);
    put_varint_field(out, 3, u64::from(more));
}

/// A message of an answer to Receive.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct ReceivedOut<'a> {
    /// Name of the message.
    pub message_id: &'a [u8],
    /// The message.
    pub message: MessageOut<'a>,
    /// Name of the attempt.
    pub receipt: &'a [u8],
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// End of the lease.
    pub lease_end_time: TimestampView,
    /// Time at which it was sent.
    pub send_time: TimestampView,
    /// Why the attempt before failed.
    pub last_failure: &'a str,
}

fn received_len(one: &ReceivedOut<'_>) -> usize {
    bytes_len(one.message_id)
        + len_field_len(one.message.encoded_len())
        + bytes_len(one.receipt)
        + varint_field_len(u64::from(one.attempt))
        + one.lease_end_time.field_len()
        + one.send_time.field_len()
        + bytes_len(one.last_failure.as_bytes())
}

/// Bytes that a message takes within a `ReceiveResponse`, with its key and length.
pub fn received_encoded_len(one: &ReceivedOut<'_>) -> usize {
    len_field_len(received_len(one))
}

/// Writes a `ReceiveResponse`, message by message.
pub struct ReceiveResponseWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> ReceiveResponseWriter<'o> {
    /// Begins after whatever `out` holds.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        ReceiveResponseWriter { out }
    }

    /// Appends a message.
    pub fn message(&mut self, one: &ReceivedOut<'_>) {
        let length = received_len(one);
        self.out.reserve(length + 11);
        put_len_key(self.out, 1, length);
        put_bytes(self.out, 1, one.message_id);
        one.message.put(self.out, 2);
        put_bytes(self.out, 3, one.receipt);
        put_varint_field(self.out, 4, u64::from(one.attempt));
        one.lease_end_time.put(self.out, 5);
        one.send_time.put(self.out, 6);
        put_bytes(self.out, 7, one.last_failure.as_bytes());
    }
}

/// Writes an `ExtendResponse`, receipt by receipt.
pub struct ExtendResponseWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> ExtendResponseWriter<'o> {
    /// Begins after whatever `out` holds.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        ExtendResponseWriter { out }
    }

    /// Appends what became of the next lease. A success has the status `StatusOut::default()` and
    /// an end.
    pub fn result(&mut self, status: &StatusOut<'_>, lease_end_time: Option<TimestampView>) {
        let length = len_field_len(status.encoded_len()) + lease_end_time.map_or(0, |time| time.field_len());
        put_len_key(self.out, 1, length);
        status.put(self.out, 1);
        if let Some(time) = lease_end_time {
            time.put(self.out, 2);
        }
    }
}

/// A message of a page of Peek.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PeekedOut<'a> {
    /// Name of the message.
    pub message_id: &'a [u8],
    /// The message.
    pub message: MessageOut<'a>,
    /// State of the message.
    pub state: StateView,
    /// Attempts that count.
    pub attempt: u32,
    /// Time at which it was sent.
    pub send_time: TimestampView,
    /// Time that belongs to its state.
    pub state_time: TimestampView,
    /// Why the last attempt failed.
    pub last_failure: &'a str,
}

fn peeked_len(one: &PeekedOut<'_>) -> usize {
    bytes_len(one.message_id)
        + len_field_len(one.message.encoded_len())
        + varint_field_len(one.state.number() as u64)
        + varint_field_len(u64::from(one.attempt))
        + one.send_time.field_len()
        + one.state_time.field_len()
        + bytes_len(one.last_failure.as_bytes())
}

/// Bytes that a message takes within a `PeekResponse`, with its key and length.
pub fn peeked_encoded_len(one: &PeekedOut<'_>) -> usize {
    len_field_len(peeked_len(one))
}

/// Writes a `PeekResponse`, message by message.
pub struct PeekResponseWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> PeekResponseWriter<'o> {
    /// Begins after whatever `out` holds.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        PeekResponseWriter { out }
    }

    /// Appends a message.
    pub fn message(&mut self, one: &PeekedOut<'_>) {
        let length = peeked_len(one);
        self.out.reserve(length + 11);
        put_len_key(self.out, 1, length);
        put_bytes(self.out, 1, one.message_id);
        one.message.put(self.out, 2);
        put_varint_field(self.out, 3, one.state.number() as u64);
        put_varint_field(self.out, 4, u64::from(one.attempt));
        one.send_time.put(self.out, 5);
        one.state_time.put(self.out, 6);
        put_bytes(self.out, 7, one.last_failure.as_bytes());
    }

    /// Ends the page; no token: it is the last.
    pub fn finish(self, next_page_token: &[u8]) {
        put_bytes(self.out, 2, next_page_token);
    }
}

/// Appends a `StatsResponse`: for each state the number of its messages, and when the oldest was
/// sent.
pub fn encode_stats(
    out: &mut Vec<u8>,
    states: impl IntoIterator<Item = (StateView, u64, Option<TimestampView>)>,
) {
    for (state, messages, oldest) in states {
        let length = varint_field_len(state.number() as u64)
            + varint_field_len(messages)
            + oldest.map_or(0, |time| time.field_len());
        put_len_key(out, 1, length);
        put_varint_field(out, 1, state.number() as u64);
        put_varint_field(out, 2, messages);
        if let Some(time) = oldest {
            time.put(out, 3);
        }
    }
}
