//! Views and encoders of `prism.pubsub.v1`: publishing and subscribing.
//!
//! `request`, `groups` and `response` hold the views, `encode` the encoders, `topic` the rules of
//! topics and their patterns. The message itself, which all of them share, is here.

mod encode;
mod groups;
mod request;
mod response;
pub mod topic;

pub use encode::{
    GapOut, MessageOut, PublishBatchResponseWriter, ReceivedOut, SubscribeOut, SubscribeResponseWriter,
    append_batch_id, append_publish_id, encode_attributes, encode_publish_batch_request,
    encode_publish_request, encode_publish_response, encode_subscribe_request, received_encoded_len,
};
pub use groups::{
    CommitView, DeleteGroupView, GroupOut, ListGroupsView, ResetGroupView, encode_group,
    encode_next_page_token,
};
pub use request::{BatchMessageView, PublishBatchView, PublishView, StartView, SubscribeView};
pub use response::{
    GapView, PublishBatchResponseView, PublishResponseView, PublishResultView, ReceivedMessageView,
    SubscribeResponseView,
};

use super::{
    common::at,
    repeated::{Element, Pieces, Repeated},
};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{self, NoAttributeName, NoTopic, TooLong, TooMany, Twice},
        Field,
    },
    limits::{
        ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, MESSAGE_DEPTH_MAX, TOPIC_BYTES_MAX,
    },
    reader::{LEN, WireReader, key},
};

/// A message, as its publisher sent it.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct MessageView<'a> {
    /// 0 to 255 bytes.
    pub topic: &'a str,
    /// Up to the namespace's `max_message_size`.
    pub payload: &'a [u8],
    /// 0 to 255 bytes.
    pub ordering_key: &'a str,
    /// At most 64 of them, each name once.
    pub attributes: Repeated<'a, AttributeView<'a>>,
}

/// One attribute of a message.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AttributeView<'a> {
    /// 1 to 64 lower-case letters, digits and hyphens.
    pub name: &'a str,
    /// Any text.
    pub value: &'a str,
}

impl<'a> AttributeView<'a> {
    pub(super) fn decode(bytes: &'a [u8], depth: u32) -> Result<Self, DecodeError> {
        const NAME: u32 = key(1, LEN);
        const VALUE: u32 = key(2, LEN);
        let mut attribute = AttributeView::default();
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                NAME => attribute.name = reader.string().map_err(at(Field::Key))?,
                VALUE => attribute.value = reader.string().map_err(at(Field::Value))?,
                key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(attribute)
    }
}

impl<'a> Element<'a> for AttributeView<'a> {
    #[inline]
    fn from_validated(bytes: &'a [u8]) -> Self {
        let attribute = AttributeView::decode(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(attribute.is_ok());
        attribute.unwrap_or_default()
    }
}

impl<'a> Element<'a> for &'a str {
    #[inline]
    fn from_validated(bytes: &'a [u8]) -> Self {
        let text = std::str::from_utf8(bytes);
        debug_assert!(text.is_ok());
        text.unwrap_or_default()
    }
}

/// A [`MessageView`] while its pieces come in.
#[derive(Clone, Copy, Default)]
struct MessageMerge<'a> {
    topic: &'a str,
    payload: &'a [u8],
    ordering_key: &'a str,
    attributes: Pieces<'a>,
}

impl<'a> MessageMerge<'a> {
    fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        let mut attributes = 0;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MESSAGE_TOPIC => self.topic = reader.string().map_err(at(Field::Topic))?,
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
                key => reader.unknown(key, 4, depth).map_err(DecodeError::new)?,
            }
        }
        self.attributes.add(bytes, attributes);
        Ok(())
    }

    /// `path` leads from `root` to the attributes.
    fn finish(&self, root: &'a [u8], path: &'static [u32]) -> MessageView<'a> {
        MessageView {
            topic: self.topic,
            payload: self.payload,
            ordering_key: self.ordering_key,
            attributes: self.attributes.finish(root, path),
        }
    }
}

impl MessageView<'_> {
    /// The limits of a message that is published.
    fn check(&self) -> Result<(), DecodeError> {
        let within = |text: &str, field| match text.len() <= TOPIC_BYTES_MAX as usize {
            true => Ok(()),
            false => Err(DecodeError::at(TooLong { max: TOPIC_BYTES_MAX }, field)),
        };
        within(self.topic, Field::Topic)?;
        if !topic::is_topic(self.topic) {
            return Err(DecodeError::at(NoTopic, Field::Topic));
        }
        within(self.ordering_key, Field::OrderingKey)?;
        check_attributes(&self.attributes).map_err(at(Field::Attributes))
    }
}

/// The limits of a message's attributes.
pub(super) fn check_attributes(attributes: &Repeated<'_, AttributeView<'_>>) -> Result<(), DecodeErrorKind> {
    if attributes.len() > ATTRIBUTES_MAX as usize {
        return Err(TooMany { max: ATTRIBUTES_MAX });
    }
    let mut bytes = 0;
    for (index, attribute) in attributes.iter().enumerate() {
        bytes += attribute.name.len() + attribute.value.len();
        if !is_attribute_name(attribute.name) {
            return Err(NoAttributeName);
        }
        // There are 64 at most.
        let mut earlier = attributes.iter().take(index);
        if earlier.any(|other| other.name == attribute.name) {
            return Err(Twice);
        }
    }
    match bytes <= ATTRIBUTES_BYTES_MAX as usize {
        true => Ok(()),
        false => Err(TooLong {
            max: ATTRIBUTES_BYTES_MAX,
        }),
    }
}

fn is_attribute_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=ATTRIBUTE_NAME_BYTES_MAX as usize).contains(&name.len())
        && name.bytes().all(legal)
        && !name.starts_with("prism-")
}

const MESSAGE_TOPIC: u32 = key(1, LEN);
const MESSAGE_PAYLOAD: u32 = key(2, LEN);
const MESSAGE_ORDERING_KEY: u32 = key(3, LEN);
const MESSAGE_ATTRIBUTES: u32 = key(4, LEN);
