//! Views and encoders of `prism.queue.v1`.
//!
//! `request` holds the views of requests, `encode` the encoders of responses. Responses are read by
//! our own clients only, with the types of [`crate::proto`]. The message itself, which all of them
//! share, is here.

mod encode;
mod request;

pub use encode::{
    ExtendResponseWriter, MessageOut, PeekResponseWriter, PeekedOut, ReceiveResponseWriter, ReceivedOut,
    append_batch_id, append_moved, append_nacked_state, append_send_id, encode_attributes, encode_stats,
    peeked_encoded_len, received_encoded_len,
};
pub use request::{
    AckView, BatchMessageView, ExtendView, MoveView, NackView, PeekView, ReceiveView, SendBatchView,
    SendView, StatsView, WhichView,
};

use super::{
    common::{DurationView, at},
    pubsub::{AttributeView, check_attributes},
    repeated::{Pieces, Repeated},
};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{NotWithin, OutOfRange, TooLong},
        Field,
    },
    limits::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, TOPIC_BYTES_MAX},
    reader::{LEN, VARINT, WireReader, key},
};

/// A `State` that a client may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateView {
    /// May be received.
    Ready,
    /// Waits for its time.
    Delayed,
    /// With a worker.
    Leased,
    /// Failed for good.
    Dead,
    /// Acked, and kept.
    Done,
}

impl StateView {
    /// All of them, by their numbers.
    pub const ALL: [StateView; 5] = [
        StateView::Ready,
        StateView::Delayed,
        StateView::Leased,
        StateView::Dead,
        StateView::Done,
    ];

    /// The state with this number.
    pub fn of_number(number: i32) -> Option<Self> {
        StateView::ALL.into_iter().find(|state| state.number() == number)
    }

    /// Number in the enum.
    pub const fn number(self) -> i32 {
        self as i32 + 1
    }
}

/// A message, as its sender sent it.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct MessageView<'a> {
    /// Up to the namespace's `max_message_size`.
    pub payload: &'a [u8],
    /// 0 to 255 bytes.
    pub ordering_key: &'a str,
    /// At most 64 of them, each name once.
    pub attributes: Repeated<'a, AttributeView<'a>>,
    /// How long it waits first; absent: not at all.
    pub delay: Option<DurationView>,
    /// 0 to 100; 0: the default.
    pub attempts_max: u32,
}

/// A [`MessageView`] while its pieces come in.
#[derive(Clone, Copy, Default)]
struct MessageMerge<'a> {
    payload: &'a [u8],
    ordering_key: &'a str,
    attributes: Pieces<'a>,
    delay: Option<DurationView>,
    attempts_max: u32,
}

impl<'a> MessageMerge<'a> {
    fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        let mut attributes = 0;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MESSAGE_PAYLOAD => self.payload = reader.bytes().map_err(at(Field::Payload))?,
                MESSAGE_ORDERING_KEY => {
                    self.ordering_key = reader.string().map_err(at(Field::OrderingKey))?;
                }
                MESSAGE_ATTRIBUTES => {
                    let nested = reader.bytes().map_err(at(Field::Attributes))?;
                    AttributeView::decode(nested, depth - 1)
                        .map_err(|error| error.within(Field::Attributes))?;
                    attributes += 1;
                }
                MESSAGE_DELAY => {
                    let nested = reader.bytes().map_err(at(Field::Delay))?;
                    self.delay
                        .get_or_insert_default()
                        .merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::Delay))?;
                }
                MESSAGE_ATTEMPTS_MAX => {
                    self.attempts_max = reader.uint32().map_err(at(Field::AttemptsMax))?;
                }
                key => reader.unknown(key, 5, depth).map_err(DecodeError::new)?,
            }
        }
        self.attributes.add(bytes, attributes);
        Ok(())
    }

    /// `path` leads from `root` to the attributes.
    fn finish(&self, root: &'a [u8], path: &'static [u32]) -> MessageView<'a> {
        MessageView {
            payload: self.payload,
            ordering_key: self.ordering_key,
            attributes: self.attributes.finish(root, path),
            delay: self.delay,
            attempts_max: self.attempts_max,
        }
    }
}

impl MessageView<'_> {
    /// The limits of a message that is sent.
    fn check(&self) -> Result<(), DecodeError> {
        if self.ordering_key.len() > TOPIC_BYTES_MAX as usize {
            return Err(DecodeError::at(
                TooLong { max: TOPIC_BYTES_MAX },
                Field::OrderingKey,
            ));
        }
        if self.attempts_max > ATTEMPTS_MAX {
            let kind = NotWithin {
                min: 0,
                max: ATTEMPTS_MAX,
            };
            return Err(DecodeError::at(kind, Field::AttemptsMax));
        }
        if self.delay.is_some_and(|delay| delay.as_millis_ceil().is_none()) {
            return Err(DecodeError::at(OutOfRange, Field::Delay));
        }
        check_attributes(&self.attributes).map_err(at(Field::Attributes))
    }

    /// How long it waits first, in milliseconds.
    pub fn delay_ms(&self) -> u64 {
        self.delay.and_then(|delay| delay.as_millis_ceil()).unwrap_or(0)
    }

    /// Attempts that it has, the default filled in.
    pub fn attempts(&self) -> u32 {
        match self.attempts_max {
            0 => ATTEMPTS_DEFAULT,
            attempts => attempts,
        }
    }
}

const MESSAGE_PAYLOAD: u32 = key(1, LEN);
const MESSAGE_ORDERING_KEY: u32 = key(2, LEN);
const MESSAGE_ATTRIBUTES: u32 = key(3, LEN);
const MESSAGE_DELAY: u32 = key(4, LEN);
const MESSAGE_ATTEMPTS_MAX: u32 = key(5, VARINT);
