//! Reasons why bytes are not the expected message: [`DecodeError`], small, `Copy`, and with the
//! path of the field.
//!
//! Promises that a refusal names the place (`items[3].key`) and the rule. The path is built only
//! while an error travels outwards, so that the good case pays nothing. Leaves the mapping to a
//! gRPC status to the caller, who knows the request; [`DecodeError::is_limit`] distinguishes a
//! broken message from one above a limit.

use std::fmt;

/// The rule that a message breaks, and the field that breaks it. At most 32 bytes, `Copy`, made
/// without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    kind: DecodeErrorKind,
    path: FieldPath,
}

impl DecodeError {
    /// An error of the message itself, not of one of its fields.
    #[cold]
    pub(crate) fn new(kind: DecodeErrorKind) -> Self {
        DecodeError {
            kind,
            path: FieldPath::default(),
        }
    }

    /// An error of one field.
    #[cold]
    pub(crate) fn at(kind: DecodeErrorKind, field: Field) -> Self {
        DecodeError::new(kind).within(field)
    }

    /// The same error as seen from the enclosing message: `field` is put before the path.
    #[cold]
    pub(crate) fn within(mut self, field: Field) -> Self {
        self.path.prepend(field, NO_INDEX);
        self
    }

    /// Like [`DecodeError::within`], for one element of a repeated field, counted from 0.
    #[cold]
    pub(crate) fn within_element(mut self, field: Field, index: u32) -> Self {
        self.path.prepend(
            field,
            u16::try_from(index).unwrap_or(NO_INDEX - 1).min(NO_INDEX - 1),
        );
        self
    }

    /// The rule that was broken.
    pub fn kind(&self) -> DecodeErrorKind {
        self.kind
    }

    /// Path of the field from the request, for example `items[3].key`. Empty when the message as a
    /// whole is broken.
    pub fn field(&self) -> FieldPath {
        self.path
    }

    /// Whether the bytes are a well-formed message that breaks one of our limits, as opposed to no
    /// message at all.
    pub fn is_limit(&self) -> bool {
        use DecodeErrorKind::*;
        matches!(
            self.kind,
            Missing
                | TooLong { .. }
                | TooMany { .. }
                | OutOfRange
                | NotWithin { .. }
                | Mismatch
                | NoTopic
                | NoPattern
                | NoAttributeName
                | Twice
        )
    }

    /// The rule alone, as a sentence without the field, for
    /// `BadRequest.FieldViolation.description`.
    pub fn description(&self) -> DecodeErrorKind {
        self.kind
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return write!(f, "the message {}", self.kind);
        }
        write!(f, "field \"{}\" {}", self.path, self.kind)
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodeError({self})")
    }
}

impl std::error::Error for DecodeError {}

/// The rule that a message broke. Its text continues `field "x" …`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeErrorKind {
    /// A value runs past the end of the message or of the message around it.
    Truncated,
    /// A varint of more than 10 bytes, or beyond 64 bits.
    BadVarint,
    /// A field number of 0 or above 2^29 - 1, or a wire type that does not exist.
    BadKey,
    /// A known field with another wire type than its definition has.
    WrongWireType,
    /// A `string` that is not UTF-8.
    BadUtf8,
    /// Messages or groups nested deeper than [`crate::limits::MESSAGE_DEPTH_MAX`].
    TooDeep,
    /// A group that ends without a start, or with another number.
    BadGroup,
    /// Limit: absent or empty, though required.
    Missing,
    /// Limit: more bytes than allowed.
    TooLong {
        /// The most bytes allowed.
        max: u32,
    },
    /// Limit: more elements than allowed.
    TooMany {
        /// The most elements allowed.
        max: u32,
    },
    /// Limit: a number outside the range that makes sense.
    OutOfRange,
    /// Limit: a number outside these inclusive bounds.
    NotWithin {
        /// The least number allowed.
        min: u32,
        /// The greatest number allowed.
        max: u32,
    },
    /// Limit: a value that contradicts another field of the same request.
    Mismatch,
    /// Limit: a text that is not a topic.
    NoTopic,
    /// Limit: a text that is not a pattern of topics.
    NoPattern,
    /// Limit: a text that cannot name an attribute.
    NoAttributeName,
    /// Limit: two entries with one name.
    Twice,
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeErrorKind::Truncated => f.write_str("ends before its announced length"),
            DecodeErrorKind::BadVarint => f.write_str("holds a varint of more than 64 bits"),
            DecodeErrorKind::BadKey => f.write_str("holds an invalid field number or wire type"),
            DecodeErrorKind::WrongWireType => f.write_str("has another wire type than its definition"),
            DecodeErrorKind::BadUtf8 => f.write_str("is not valid UTF-8"),
            DecodeErrorKind::TooDeep => f.write_str("is nested too deeply"),
            DecodeErrorKind::BadGroup => f.write_str("holds a group that does not end where it should"),
            DecodeErrorKind::Missing => f.write_str("must not be empty"),
            DecodeErrorKind::TooLong { max } => write!(f, "is longer than {max} bytes"),
            DecodeErrorKind::TooMany { max } => write!(f, "has more than {max} elements"),
            DecodeErrorKind::OutOfRange => f.write_str("is out of range"),
            DecodeErrorKind::NotWithin { min, max } => write!(f, "must lie between {min} and {max}"),
            DecodeErrorKind::Mismatch => f.write_str("contradicts another field of the request"),
            DecodeErrorKind::NoTopic => f.write_str(
                "is no topic: write tokens joined by single dots, without spaces, control characters, * and >",
            ),
            DecodeErrorKind::NoPattern => f.write_str(
                "is no pattern of topics: write tokens joined by single dots, where * stands for one token, \
                 and > at the end for one or more",
            ),
            DecodeErrorKind::NoAttributeName => f.write_str(
                "holds a name that is not allowed: write 1 to 64 lower-case letters, digits and hyphens, \
                 not beginning with prism-",
            ),
            DecodeErrorKind::Twice => f.write_str("holds two entries of one name"),
        }
    }
}

/// The path of a field, written as `mutations[4].put.items[0].key`. `Copy`, at most 6 segments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FieldPath {
    /// Innermost first, because an error is extended from the inside outwards.
    fields: [Field; PATH_SEGMENTS_MAX],
    indexes: [u16; PATH_SEGMENTS_MAX],
    count: u8,
}

impl FieldPath {
    /// Whether no field is named.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn prepend(&mut self, field: Field, index: u16) {
        let position = usize::from(self.count);
        if position < PATH_SEGMENTS_MAX {
            self.fields[position] = field;
            self.indexes[position] = index;
            self.count += 1;
        }
    }
}

impl Default for FieldPath {
    fn default() -> Self {
        FieldPath {
            fields: [Field::Items; PATH_SEGMENTS_MAX],
            indexes: [NO_INDEX; PATH_SEGMENTS_MAX],
            count: 0,
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for position in (0..usize::from(self.count)).rev() {
            f.write_str(self.fields[position].name())?;
            if self.indexes[position] != NO_INDEX {
                write!(f, "[{}]", self.indexes[position])?;
            }
            if position > 0 {
                f.write_str(".")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

macro_rules! fields {
    ($($variant:ident = $name:literal,)*) => {
        /// A field's name as one byte, so that a path stays small and `Copy`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Field { $($variant,)* }

        impl Field {
            fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }
        }
    };
}

fields! {
    Absent = "absent",
    All = "all",
    Applied = "applied",
    AttemptsMax = "attempts_max",
    Attributes = "attributes",
    BatchBytes = "batch_bytes",
    BatchMessages = "batch_messages",
    Code = "code",
    CommitTimeout = "commit_timeout",
    Compression = "compression",
    Current = "current",
    Dead = "dead",
    Delay = "delay",
    Delete = "delete",
    Details = "details",
    Durability = "durability",
    End = "end",
    Entries = "entries",
    Expected = "expected",
    Gap = "gap",
    GenerationTime = "generation_time",
    Group = "group",
    Id = "id",
    IdempotencyToken = "idempotency_token",
    Ids = "ids",
    Item = "item",
    ItemLimit = "item_limit",
    Items = "items",
    Key = "key",
    Keys = "keys",
    Kind = "kind",
    Lane = "lane",
    Lease = "lease",
    Lsn = "lsn",
    Message = "message",
    MessageId = "message_id",
    MessageIds = "message_ids",
    Messages = "messages",
    MessagesMax = "messages_max",
    Mutations = "mutations",
    Namespace = "namespace",
    Nanos = "nanos",
    NextPageToken = "next_page_token",
    OldestLeftTime = "oldest_left_time",
    Operation = "operation",
    OrderingKey = "ordering_key",
    PageBytes = "page_bytes",
    PageSize = "page_size",
    PageToken = "page_token",
    Payload = "payload",
    Position = "position",
    Predicate = "predicate",
    Put = "put",
    Range = "range",
    Reason = "reason",
    Receipts = "receipts",
    Result = "result",
    Results = "results",
    Seconds = "seconds",
    Selection = "selection",
    Start = "start",
    State = "state",
    States = "states",
    Status = "status",
    StoreTime = "store_time",
    Swapped = "swapped",
    Time = "time",
    Token = "token",
    Topic = "topic",
    Topics = "topics",
    Ttl = "ttl",
    TypeUrl = "type_url",
    UncommittedMessagesMax = "uncommitted_messages_max",
    Uncounted = "uncounted",
    Value = "value",
    Version = "version",
    Wait = "wait",
    WaitingForCommit = "waiting_for_commit",
    Which = "which",
    WithoutPayload = "without_payload",
}

const PATH_SEGMENTS_MAX: usize = 6;
const NO_INDEX: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_from_the_outside_inwards() {
        let error = DecodeError::at(DecodeErrorKind::TooLong { max: 1024 }, Field::Key)
            .within_element(Field::Items, 0)
            .within(Field::Put)
            .within_element(Field::Mutations, 70_000);
        assert_eq!(error.field().to_string(), "mutations[65534].put.items[0].key");
        assert_eq!(
            error.to_string(),
            "field \"mutations[65534].put.items[0].key\" is longer than 1024 bytes"
        );
        assert!(error.is_limit());
        assert!(!DecodeError::new(DecodeErrorKind::BadVarint).is_limit());
        assert_eq!(
            DecodeError::new(DecodeErrorKind::BadVarint).to_string(),
            "the message holds a varint of more than 64 bits"
        );
        assert!(size_of::<DecodeError>() <= 32);
    }
}
