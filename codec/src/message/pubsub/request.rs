//! Views of the requests of `prism.pubsub.v1.PubSub`, checked against the limits.
//!
//! Promises that an accepted request is well-formed and within every limit of [`crate::limits`],
//! and that a refused one names the field. Only the messages of a PublishBatch keep their limits
//! for later: each succeeds or fails by itself.

use super::{MESSAGE_ATTRIBUTES, MessageMerge, MessageView, topic};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{Missing, NoPattern, NotWithin, OutOfRange, TooLong, TooMany},
        Field,
    },
    limits::{
        BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, BATCH_MESSAGES_DEFAULT, BATCH_MESSAGES_MAX,
        COMMIT_TIMEOUT_SECONDS_MAX, GROUP_BYTES_MAX, MESSAGE_DEPTH_MAX, PATTERNS_MAX, POSITION_BYTES_MAX,
        TOPIC_BYTES_MAX, UNCOMMITTED_MESSAGES_MAX,
    },
    message::{
        common::{DurationView, TimestampView, TokenView, at, check_namespace, check_token, merge_token},
        repeated::{Element, Repeated},
    },
    reader::{LEN, VARINT, WireReader, key},
};

/// A `PublishRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PublishView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// The message.
    pub message: MessageView<'a>,
}

impl<'a> PublishView<'a> {
    /// Validates a serialized `PublishRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let (mut namespace, mut token) = ("", None);
        let mut message: Option<MessageMerge<'a>> = None;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                PUBLISH_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                PUBLISH_TOKEN => {
                    merge_token(&mut token, reader.bytes().map_err(at(Field::IdempotencyToken))?)?
                }
                PUBLISH_MESSAGE => {
                    let nested = reader.bytes().map_err(at(Field::Message))?;
                    let message = message.get_or_insert_default();
                    message
                        .merge(nested, MESSAGE_DEPTH_MAX - 1)
                        .map_err(|error| error.within(Field::Message))?;
                }
                key => reader
                    .unknown(key, 3, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        check_namespace(namespace)?;
        check_token(&token)?;
        let message = message.ok_or_else(|| DecodeError::at(Missing, Field::Message))?;
        let message = message.finish(bytes, &[PUBLISH_MESSAGE, MESSAGE_ATTRIBUTES]);
        message.check().map_err(|error| error.within(Field::Message))?;
        Ok(PublishView {
            namespace,
            token,
            message,
        })
    }
}

const PUBLISH_NAMESPACE: u32 = key(1, LEN);
const PUBLISH_TOKEN: u32 = key(2, LEN);
const PUBLISH_MESSAGE: u32 = key(3, LEN);

/// A `PublishBatchRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PublishBatchView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// 1 to 1,000, together at most 4 MiB.
    pub messages: Repeated<'a, BatchMessageView<'a>>,
}

impl<'a> PublishBatchView<'a> {
    /// Validates a serialized `PublishBatchRequest`. Allocates nothing. The limits of each message
    /// are checked when it is read, so that one bad message leaves the others alone.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = WireReader::new(bytes);
        let (mut namespace, mut token, mut count, mut together) = ("", None, 0, 0);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                PUBLISH_NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                PUBLISH_TOKEN => {
                    merge_token(&mut token, reader.bytes().map_err(at(Field::IdempotencyToken))?)?
                }
                BATCH_MESSAGES => {
                    let nested = reader.bytes().map_err(at(Field::Messages))?;
                    MessageMerge::default()
                        .merge(nested, MESSAGE_DEPTH_MAX - 1)
                        .map_err(|error| error.within_element(Field::Messages, count))?;
                    together += nested.len();
                    count += 1;
                }
                key => reader
                    .unknown(key, 3, MESSAGE_DEPTH_MAX)
                    .map_err(DecodeError::new)?,
            }
        }
        check_namespace(namespace)?;
        check_token(&token)?;
        let max = BATCH_MESSAGES_MAX;
        match count {
            0 => return Err(DecodeError::at(Missing, Field::Messages)),
            1..=BATCH_MESSAGES_MAX => {}
            _ => return Err(DecodeError::at(TooMany { max }, Field::Messages)),
        }
        if together > BATCH_BYTES_MAX as usize {
            return Err(DecodeError::at(TooLong { max: BATCH_BYTES_MAX }, Field::Messages));
        }
        Ok(PublishBatchView {
            namespace,
            token,
            messages: Repeated::new(bytes, &[BATCH_MESSAGES], 0, count),
        })
    }
}

const BATCH_MESSAGES: u32 = key(3, LEN);

/// One message of a PublishBatch.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct BatchMessageView<'a> {
    /// The message. Its topic and key name the line that its refusal stops, even if they are too
    /// long.
    pub message: MessageView<'a>,
    /// The limit that the message breaks; its path begins within the message.
    pub fault: Option<DecodeError>,
}

impl<'a> Element<'a> for BatchMessageView<'a> {
    #[inline]
    fn from_validated(bytes: &'a [u8]) -> Self {
        let mut merge = MessageMerge::default();
        let accepted = merge.merge(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(accepted.is_ok());
        let message = merge.finish(bytes, &[MESSAGE_ATTRIBUTES]);
        BatchMessageView {
            message,
            fault: message.check().err(),
        }
    }
}

/// Place at which a subscription begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartView<'a> {
    /// With what is published from now on.
    Latest,
    /// With the oldest message that is kept.
    Earliest,
    /// With the first message that was stored at this time or later.
    Time(TimestampView),
    /// After the answer that held this position; 1 to 2,048 bytes.
    Position(&'a [u8]),
}

/// A `SubscribeRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SubscribeView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// Patterns, at most 16; none: all topics.
    pub topics: Repeated<'a, &'a str>,
    /// Absent: the group's place, or the latest.
    pub start: Option<StartView<'a>>,
    /// 0 to 64 letters, digits, hyphens and underscores; empty: no group.
    pub group: &'a str,
    /// Most messages of an answer, 1 to 1,000.
    pub batch_messages: u32,
    /// Most bytes of an answer, 1 to 4 MiB.
    pub batch_bytes: u32,
    /// Of a group: most messages that are not committed, 0 to 10,000; 0: the default.
    pub uncommitted_messages_max: u32,
    /// Of a group: longest time without a commit; absent: without end.
    pub commit_timeout: Option<DurationView>,
}

/// The members of `StartAt.place` while their pieces come in.
#[derive(Clone, Copy, Default)]
pub(super) enum Place<'a> {
    #[default]
    Unset,
    Start(i32),
    Time(TimestampView),
    Position(&'a [u8]),
}

impl<'a> Place<'a> {
    pub(super) fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        const START: u32 = key(1, VARINT);
        const TIME: u32 = key(2, LEN);
        const POSITION: u32 = key(3, LEN);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                START => *self = Place::Start(reader.int32().map_err(at(Field::Start))?),
                TIME => {
                    let nested = reader.bytes().map_err(at(Field::Time))?;
                    // The same member again is merged into, another one replaces it.
                    let mut time = match self {
                        Place::Time(time) => *time,
                        _ => TimestampView::default(),
                    };
                    time.merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::Time))?;
                    *self = Place::Time(time);
                }
                POSITION => *self = Place::Position(reader.bytes().map_err(at(Field::Position))?),
                key => reader.unknown(key, 3, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Option<StartView<'a>>, DecodeError> {
        match self {
            Place::Unset => Ok(None),
            Place::Start(0 | 1) => Ok(Some(StartView::Latest)),
            Place::Start(2) => Ok(Some(StartView::Earliest)),
            Place::Start(_) => Err(DecodeError::at(OutOfRange, Field::Start)),
            Place::Time(time) => {
                time.check().map_err(at(Field::Time))?;
                Ok(Some(StartView::Time(time)))
            }
            Place::Position(position) => match position.len() {
                0 => Err(DecodeError::at(Missing, Field::Position)),
                length if length > POSITION_BYTES_MAX as usize => Err(DecodeError::at(
                    TooLong {
                        max: POSITION_BYTES_MAX,
                    },
                    Field::Position,
                )),
                _ => Ok(Some(StartView::Position(position))),
            },
        }
    }
}

impl<'a> SubscribeView<'a> {
    /// Validates a serialized `SubscribeRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const DEPTH: u32 = MESSAGE_DEPTH_MAX;
        let mut view = SubscribeView {
            namespace: "",
            topics: Repeated::default(),
            start: None,
            group: "",
            batch_messages: 0,
            batch_bytes: 0,
            uncommitted_messages_max: 0,
            commit_timeout: None,
        };
        let mut place = Place::default();
        let (mut topics, mut bad_topic) = (0, None);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                SUBSCRIBE_NAMESPACE => view.namespace = reader.string().map_err(at(Field::Namespace))?,
                SUBSCRIBE_TOPICS => {
                    let pattern = reader.string().map_err(at(Field::Topics))?;
                    bad_topic = bad_topic.or_else(|| check_pattern(pattern, topics).err());
                    topics += 1;
                }
                SUBSCRIBE_START => {
                    let nested = reader.bytes().map_err(at(Field::Start))?;
                    place
                        .merge(nested, DEPTH - 1)
                        .map_err(|error| error.within(Field::Start))?;
                }
                SUBSCRIBE_GROUP => view.group = reader.string().map_err(at(Field::Group))?,
                BATCH_MESSAGES_NUMBER => {
                    view.batch_messages = reader.uint32().map_err(at(Field::BatchMessages))?;
                }
                BATCH_BYTES_NUMBER => view.batch_bytes = reader.uint32().map_err(at(Field::BatchBytes))?,
                UNCOMMITTED => {
                    view.uncommitted_messages_max =
                        reader.uint32().map_err(at(Field::UncommittedMessagesMax))?;
                }
                COMMIT_TIMEOUT => {
                    let nested = reader.bytes().map_err(at(Field::CommitTimeout))?;
                    let timeout = view.commit_timeout.get_or_insert_default();
                    timeout
                        .merge(nested, DEPTH - 1)
                        .map_err(|error| error.within(Field::CommitTimeout))?;
                }
                key => reader.unknown(key, 8, DEPTH).map_err(DecodeError::new)?,
            }
        }
        check_namespace(view.namespace)?;
        if topics > PATTERNS_MAX {
            return Err(DecodeError::at(TooMany { max: PATTERNS_MAX }, Field::Topics));
        }
        bad_topic.map_or(Ok(()), Err)?;
        view.topics = Repeated::new(bytes, &[SUBSCRIBE_TOPICS], 0, topics);
        view.start = place.finish().map_err(|error| error.within(Field::Start))?;
        view.check()?;
        Ok(view)
    }

    /// Checks what is left, and fills in the defaults.
    fn check(&mut self) -> Result<(), DecodeError> {
        check_group(self.group)?;
        let within = |value: u32, max: u32, field| match value <= max {
            true => Ok(value),
            false => Err(DecodeError::at(NotWithin { min: 0, max }, field)),
        };
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        let messages = within(self.batch_messages, BATCH_MESSAGES_MAX, Field::BatchMessages)?;
        self.batch_messages = or(messages, BATCH_MESSAGES_DEFAULT);
        let bytes = within(self.batch_bytes, BATCH_BYTES_MAX, Field::BatchBytes)?;
        self.batch_bytes = or(bytes, BATCH_BYTES_DEFAULT);
        within(
            self.uncommitted_messages_max,
            UNCOMMITTED_MESSAGES_MAX,
            Field::UncommittedMessagesMax,
        )?;
        match self.commit_timeout.map(|timeout| timeout.as_millis_ceil()) {
            None => Ok(()),
            Some(Some(millis)) if (1_000..=COMMIT_TIMEOUT_SECONDS_MAX as u64 * 1_000).contains(&millis) => {
                Ok(())
            }
            Some(_) => Err(DecodeError::at(OutOfRange, Field::CommitTimeout)),
        }
    }
}

/// The limits of a group's name; empty is none.
pub(super) fn check_group(group: &str) -> Result<(), DecodeError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if group.len() > GROUP_BYTES_MAX as usize {
        return Err(DecodeError::at(TooLong { max: GROUP_BYTES_MAX }, Field::Group));
    }
    match group.bytes().all(legal) {
        true => Ok(()),
        false => Err(DecodeError::at(OutOfRange, Field::Group)),
    }
}

pub(super) fn check_pattern(pattern: &str, index: u32) -> Result<(), DecodeError> {
    let kind = match pattern.len() > TOPIC_BYTES_MAX as usize {
        true => TooLong { max: TOPIC_BYTES_MAX },
        false if !topic::is_pattern(pattern) => NoPattern,
        false => return Ok(()),
    };
    Err(DecodeError::new(kind).within_element(Field::Topics, index))
}

const SUBSCRIBE_NAMESPACE: u32 = key(1, LEN);
const SUBSCRIBE_TOPICS: u32 = key(2, LEN);
const SUBSCRIBE_START: u32 = key(3, LEN);
const SUBSCRIBE_GROUP: u32 = key(4, LEN);
const BATCH_MESSAGES_NUMBER: u32 = key(5, VARINT);
const BATCH_BYTES_NUMBER: u32 = key(6, VARINT);
const UNCOMMITTED: u32 = key(7, VARINT);
const COMMIT_TIMEOUT: u32 = key(8, LEN);
