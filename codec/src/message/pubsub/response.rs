//! Views of the responses of `prism.pubsub.v1.PubSub`, for our own clients: the load generator and
//! the command line.
//!
//! Promises well-formed messages, nothing about sizes: what the gateway answers is bounded by the
//! gateway.

use super::{MESSAGE_ATTRIBUTES, MessageMerge, MessageView};
use crate::{
    error::{DecodeError, Field},
    limits::MESSAGE_DEPTH_MAX,
    message::{
        common::{
            STATUS_DETAILS, StatusMerge, StatusView, TimestampView, WriteResultView, at, decode_results,
            merge_result,
        },
        repeated::{Element, Repeated},
    },
    reader::{LEN, VARINT, WireReader, key},
};

/// A `PublishResponse`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct PublishResponseView<'a> {
    /// Result of the write.
    pub result: Option<WriteResultView>,
    /// Id of the message.
    pub message_id: &'a [u8],
}

impl<'a> PublishResponseView<'a> {
    /// Validates a serialized `PublishResponse`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const RESULT: u32 = key(1, LEN);
        const MESSAGE_ID: u32 = key(2, LEN);
        const DEPTH: u32 = MESSAGE_DEPTH_MAX;
        let mut view = PublishResponseView::default();
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                RESULT => merge_result(
                    &mut view.result,
                    reader.bytes().map_err(at(Field::Result))?,
                    DEPTH,
                )?,
                MESSAGE_ID => view.message_id = reader.bytes().map_err(at(Field::MessageId))?,
                key => reader.unknown(key, 2, DEPTH).map_err(DecodeError::new)?,
            }
        }
        Ok(view)
    }
}

/// A `PublishBatchResponse`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct PublishBatchResponseView<'a> {
    /// One for each message, in the request's order.
    pub results: Repeated<'a, PublishResultView<'a>>,
}

impl<'a> PublishBatchResponseView<'a> {
    /// Validates a serialized `PublishBatchResponse`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let results = decode_results(bytes, PublishResultView::decode)?;
        Ok(PublishBatchResponseView { results })
    }
}

/// Result of one message of a batch.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct PublishResultView<'a> {
    /// OK, or why this message was not published.
    pub status: Option<StatusView<'a>>,
    /// Result of the write.
    pub result: Option<WriteResultView>,
    /// Id of the message.
    pub message_id: &'a [u8],
}

impl<'a> PublishResultView<'a> {
    fn decode(bytes: &'a [u8], depth: u32) -> Result<Self, DecodeError> {
        const STATUS: u32 = key(1, LEN);
        const RESULT: u32 = key(2, LEN);
        const MESSAGE_ID: u32 = key(3, LEN);
        let mut status: Option<StatusMerge<'a>> = None;
        let mut view = PublishResultView::default();
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                STATUS => {
                    let nested = reader.bytes().map_err(at(Field::Status))?;
                    let status = status.get_or_insert_default();
                    status
                        .merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::Status))?;
                }
                RESULT => merge_result(
                    &mut view.result,
                    reader.bytes().map_err(at(Field::Result))?,
                    depth,
                )?,
                MESSAGE_ID => view.message_id = reader.bytes().map_err(at(Field::MessageId))?,
                key => reader.unknown(key, 3, depth).map_err(DecodeError::new)?,
            }
        }
        view.status = status.map(|status| status.finish(bytes, &[STATUS, STATUS_DETAILS]));
        Ok(view)
    }
}

impl<'a> Element<'a> for PublishResultView<'a> {
    fn from_validated(bytes: &'a [u8]) -> Self {
        let result = PublishResultView::decode(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(result.is_ok());
        result.unwrap_or_default()
    }
}

/// A `SubscribeResponse`: one answer of a subscription.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct SubscribeResponseView<'a> {
    /// None in the first answer.
    pub messages: Repeated<'a, ReceivedMessageView<'a>>,
    /// Begins a subscription right after these messages.
    pub position: &'a [u8],
    /// Messages that are missing before these.
    pub gap: Option<GapView>,
    /// Whether nothing more comes until something is committed.
    pub waiting_for_commit: bool,
}

impl<'a> SubscribeResponseView<'a> {
    /// Validates a serialized `SubscribeResponse`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const MESSAGES: u32 = key(1, LEN);
        const POSITION: u32 = key(2, LEN);
        const GAP: u32 = key(3, LEN);
        const WAITING: u32 = key(4, VARINT);
        const DEPTH: u32 = MESSAGE_DEPTH_MAX;
        let mut view = SubscribeResponseView::default();
        let mut count = 0;
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MESSAGES => {
                    let nested = reader.bytes().map_err(at(Field::Messages))?;
                    ReceivedMessageView::decode(nested, DEPTH - 1)
                        .map_err(|error| error.within_element(Field::Messages, count))?;
                    count += 1;
                }
                POSITION => view.position = reader.bytes().map_err(at(Field::Position))?,
                GAP => {
                    let nested = reader.bytes().map_err(at(Field::Gap))?;
                    let gap = view.gap.get_or_insert_default();
                    gap.merge(nested, DEPTH - 1)
                        .map_err(|error| error.within(Field::Gap))?;
                }
                WAITING => {
                    view.waiting_for_commit = reader.boolean().map_err(at(Field::WaitingForCommit))?;
                }
                key => reader.unknown(key, 4, DEPTH).map_err(DecodeError::new)?,
            }
        }
        view.messages = Repeated::new(bytes, &[MESSAGES], 0, count);
        Ok(view)
    }
}

/// One message of a subscription's answer.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct ReceivedMessageView<'a> {
    /// Id of the message, the same if it comes again.
    pub id: &'a [u8],
    /// The message, as it was published.
    pub message: Option<MessageView<'a>>,
    /// Time at which the store took it.
    pub store_time: Option<TimestampView>,
}

impl<'a> ReceivedMessageView<'a> {
    fn decode(bytes: &'a [u8], depth: u32) -> Result<Self, DecodeError> {
        const ID: u32 = key(1, LEN);
        const MESSAGE: u32 = key(2, LEN);
        const STORE_TIME: u32 = key(3, LEN);
        let mut view = ReceivedMessageView::default();
        let mut message: Option<MessageMerge<'a>> = None;
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                ID => view.id = reader.bytes().map_err(at(Field::Id))?,
                MESSAGE => {
                    let nested = reader.bytes().map_err(at(Field::Message))?;
                    let message = message.get_or_insert_default();
                    message
                        .merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::Message))?;
                }
                STORE_TIME => {
                    let nested = reader.bytes().map_err(at(Field::StoreTime))?;
                    let time = view.store_time.get_or_insert_default();
                    time.merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::StoreTime))?;
                }
                key => reader.unknown(key, 3, depth).map_err(DecodeError::new)?,
            }
        }
        view.message = message.map(|message| message.finish(bytes, &[MESSAGE, MESSAGE_ATTRIBUTES]));
        Ok(view)
    }
}

impl<'a> Element<'a> for ReceivedMessageView<'a> {
    fn from_validated(bytes: &'a [u8]) -> Self {
        let received = ReceivedMessageView::decode(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(received.is_ok());
        received.unwrap_or_default()
    }
}

/// Messages that retention removed before a subscriber had them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct GapView {
    /// Number of them; 0: unknown.
    pub messages: u64,
    /// Age of the oldest message that is left.
    pub oldest_left_time: Option<TimestampView>,
}

impl GapView {
    fn merge(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        const MESSAGES: u32 = key(1, VARINT);
        const OLDEST_LEFT_TIME: u32 = key(2, LEN);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MESSAGES => self.messages = reader.varint().map_err(at(Field::Messages))?,
                OLDEST_LEFT_TIME => {
                    let nested = reader.bytes().map_err(at(Field::OldestLeftTime))?;
                    let time = self.oldest_left_time.get_or_insert_default();
                    time.merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::OldestLeftTime))?;
                }
                key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }
}
