//! Views of the requests about groups of subscribers, checked against the limits, and the encoder
//! of their list.

use super::{
    StartView,
    request::{Place, check_group, check_pattern},
};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{Missing, NotWithin, TooLong, TooMany},
        Field,
    },
    limits::{
        BATCH_MESSAGES_DEFAULT, BATCH_MESSAGES_MAX, GROUP_BYTES_MAX, MESSAGE_DEPTH_MAX, PATTERNS_MAX,
        POSITION_BYTES_MAX,
    },
    message::{
        common::{TimestampView, TokenView, at, check_namespace, check_token, merge_token},
        repeated::Repeated,
    },
    reader::{LEN, VARINT, WireReader, key},
    writer::{bytes_len, put_bytes, put_bytes_always, put_len_key, put_varint_field, varint_field_len},
};

const DEPTH: u32 = MESSAGE_DEPTH_MAX;
const NAMESPACE: u32 = key(1, LEN);
const TOKEN: u32 = key(2, LEN);
const GROUP: u32 = key(3, LEN);

/// The fields that all calls about one group have.
#[derive(Clone, Copy, Default)]
struct Head<'a> {
    namespace: &'a str,
    token: Option<TokenView<'a>>,
    group: &'a str,
}

impl<'a> Head<'a> {
    /// Reads the value of a field, if it is one of these.
    fn merge(&mut self, key: u32, reader: &mut WireReader<'a>) -> Result<bool, DecodeError> {
        match key {
            NAMESPACE => self.namespace = reader.string().map_err(at(Field::Namespace))?,
            TOKEN => merge_token(
                &mut self.token,
                reader.bytes().map_err(at(Field::IdempotencyToken))?,
            )?,
            GROUP => self.group = reader.string().map_err(at(Field::Group))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), DecodeError> {
        check_namespace(self.namespace)?;
        check_token(&self.token)?;
        match self.group {
            "" => Err(DecodeError::at(Missing, Field::Group)),
            group => check_group(group),
        }
    }
}

/// A `CommitRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CommitView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// For the audit trail.
    pub token: Option<TokenView<'a>>,
    /// 1 to 64 letters, digits, hyphens and underscores.
    pub group: &'a str,
    /// 1 to 2,048 bytes.
    pub position: &'a [u8],
}

impl<'a> CommitView<'a> {
    /// Validates a serialized `CommitRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const POSITION: u32 = key(4, LEN);
        let (mut head, mut position) = (Head::default(), &[][..]);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            let key = reader.key().map_err(DecodeError::new)?;
            match key {
                POSITION => position = reader.bytes().map_err(at(Field::Position))?,
                key if head.merge(key, &mut reader)? => {}
                key => reader.unknown(key, 4, DEPTH).map_err(DecodeError::new)?,
            }
        }
        head.check()?;
        let max = POSITION_BYTES_MAX;
        match position.len() {
            0 => return Err(DecodeError::at(Missing, Field::Position)),
            length if length > max as usize => {
                return Err(DecodeError::at(TooLong { max }, Field::Position));
            }
            _ => {}
        }
        Ok(CommitView {
            namespace: head.namespace,
            token: head.token,
            group: head.group,
            position,
        })
    }
}

/// A `ListGroupsRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ListGroupsView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// 1 to 1,000.
    pub page_size: u32,
    /// Of the page before; empty for the first.
    pub page_token: &'a [u8],
}

impl<'a> ListGroupsView<'a> {
    /// Validates a serialized `ListGroupsRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const PAGE_SIZE: u32 = key(2, VARINT);
        const PAGE_TOKEN: u32 = key(3, LEN);
        let mut view = ListGroupsView {
            namespace: "",
            page_size: 0,
            page_token: &[],
        };
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                NAMESPACE => view.namespace = reader.string().map_err(at(Field::Namespace))?,
                PAGE_SIZE => view.page_size = reader.uint32().map_err(at(Field::PageSize))?,
                PAGE_TOKEN => view.page_token = reader.bytes().map_err(at(Field::PageToken))?,
                key => reader.unknown(key, 3, DEPTH).map_err(DecodeError::new)?,
            }
        }
        check_namespace(view.namespace)?;
        let max = BATCH_MESSAGES_MAX;
        view.page_size = match view.page_size {
            0 => BATCH_MESSAGES_DEFAULT,
            size if size > max => {
                return Err(DecodeError::at(NotWithin { min: 0, max }, Field::PageSize));
            }
            size => size,
        };
        let max = GROUP_BYTES_MAX;
        match view.page_token.len() <= max as usize {
            true => Ok(view),
            false => Err(DecodeError::at(TooLong { max }, Field::PageToken)),
        }
    }
}

/// A `ResetGroupRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ResetGroupView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// The same one again resets nothing more.
    pub token: Option<TokenView<'a>>,
    /// 1 to 64 letters, digits, hyphens and underscores.
    pub group: &'a str,
    /// The new place.
    pub start: StartView<'a>,
    /// Patterns, at most 16; none: all, or those of the group.
    pub topics: Repeated<'a, &'a str>,
}

impl<'a> ResetGroupView<'a> {
    /// Validates a serialized `ResetGroupRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const START: u32 = key(4, LEN);
        const TOPICS: u32 = key(5, LEN);
        let mut head = Head::default();
        let mut place = Place::default();
        let (mut topics, mut bad_topic) = (0, None);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            let key = reader.key().map_err(DecodeError::new)?;
            match key {
                START => {
                    let nested = reader.bytes().map_err(at(Field::Start))?;
                    place
                        .merge(nested, DEPTH - 1)
                        .map_err(|error| error.within(Field::Start))?;
                }
                TOPICS => {
                    let pattern = reader.string().map_err(at(Field::Topics))?;
                    bad_topic = bad_topic.or_else(|| check_pattern(pattern, topics).err());
                    topics += 1;
                }
                key if head.merge(key, &mut reader)? => {}
                key => reader.unknown(key, 5, DEPTH).map_err(DecodeError::new)?,
            }
        }
        head.check()?;
        if topics > PATTERNS_MAX {
            return Err(DecodeError::at(TooMany { max: PATTERNS_MAX }, Field::Topics));
        }
        bad_topic.map_or(Ok(()), Err)?;
        let start = place.finish().map_err(|error| error.within(Field::Start))?;
        Ok(ResetGroupView {
            namespace: head.namespace,
            token: head.token,
            group: head.group,
            start: start.ok_or_else(|| DecodeError::at(Missing, Field::Start))?,
            topics: Repeated::new(bytes, &[TOPICS], 0, topics),
        })
    }
}

/// A `DeleteGroupRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeleteGroupView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// For the audit trail: deleting what is not there succeeds.
    pub token: Option<TokenView<'a>>,
    /// 1 to 64 letters, digits, hyphens and underscores.
    pub group: &'a str,
}

impl<'a> DeleteGroupView<'a> {
    /// Validates a serialized `DeleteGroupRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut head = Head::default();
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            let key = reader.key().map_err(DecodeError::new)?;
            if !head.merge(key, &mut reader)? {
                reader.unknown(key, 3, DEPTH).map_err(DecodeError::new)?;
            }
        }
        head.check()?;
        Ok(DeleteGroupView {
            namespace: head.namespace,
            token: head.token,
            group: head.group,
        })
    }
}

/// A group in a list, to be sent.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct GroupOut<'a> {
    /// Name.
    pub name: &'a str,
    /// Patterns; none: all topics.
    pub topics: &'a [String],
    /// Streams that are in it.
    pub subscribers: u32,
    /// Partitions of the namespace.
    pub partitions: u32,
    /// Partitions that a subscriber holds.
    pub partitions_held: u32,
    /// Messages after its place.
    pub messages_behind: u64,
    /// Time of the oldest of them.
    pub oldest_behind_time: Option<TimestampView>,
    /// Time of the last commit.
    pub last_commit_time: Option<TimestampView>,
}

/// Appends a group to a `ListGroupsResponse`.
pub fn encode_group(out: &mut Vec<u8>, group: &GroupOut<'_>) {
    let numbers = [
        (3, u64::from(group.subscribers)),
        (4, u64::from(group.partitions)),
        (5, u64::from(group.partitions_held)),
        (6, group.messages_behind),
    ];
    let times = [(7, group.oldest_behind_time), (8, group.last_commit_time)];
    let topic_len = |topic: &String| crate::writer::len_field_len(topic.len());
    let length = bytes_len(group.name.as_bytes())
        + group.topics.iter().map(topic_len).sum::<usize>()
        + numbers
            .iter()
            .map(|(_, number)| varint_field_len(*number))
            .sum::<usize>()
        + times
            .iter()
            .filter_map(|(_, time)| *time)
            .map(|time| time.field_len())
            .sum::<usize>();
    put_len_key(out, 1, length);
    put_bytes(out, 1, group.name.as_bytes());
    for topic in group.topics {
        put_bytes_always(out, 2, topic.as_bytes());
    }
    for (field, number) in numbers {
        put_varint_field(out, field, number);
    }
    for (field, time) in times {
        if let Some(time) = time {
            time.put(out, field);
        }
    }
}

/// Appends the token of the next page to a `ListGroupsResponse`; empty: there is none.
pub fn encode_next_page_token(out: &mut Vec<u8>, token: &[u8]) {
    put_bytes(out, 2, token);
}
