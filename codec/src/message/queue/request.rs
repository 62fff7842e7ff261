//! Views of the requests of `prism.queue.v1.Queue`, checked against the limits.
//!
//! Promises that an accepted request is well-formed and within every limit of [`crate::limits`],
//! with the defaults filled in, and that a refused one names the field. Only the messages of a
//! SendBatch keep their limits for later: each succeeds or fails by itself.

use super::{MESSAGE_ATTRIBUTES, MessageMerge, MessageView, StateView};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{Missing, NotWithin, OutOfRange, TooLong, TooMany},
        Field,
    },
    limits::{
        BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, LEASE_SECONDS_DEFAULT, LEASE_SECONDS_MAX, MESSAGE_DEPTH_MAX,
        PAGE_TOKEN_BYTES_MAX, PEEK_MESSAGES_DEFAULT, PEEK_MESSAGES_MAX, QUEUE_IDS_MAX,
        QUEUE_MESSAGE_ID_BYTES_MAX, RECEIPT_BYTES_MAX, RECEIPTS_MAX, RECEIVE_MESSAGES_MAX,
        RECEIVE_WAIT_SECONDS_MAX, TOPIC_BYTES_MAX,
    },
    message::{
        common::{DurationView, TokenView, at, check_namespace, check_token, merge_token},
        repeated::{Element, Pieces, Repeated},
    },
    reader::{LEN, VARINT, WireReader, key},
};

const DEPTH: u32 = MESSAGE_DEPTH_MAX;
const NAMESPACE: u32 = key(1, LEN);
const TOKEN: u32 = key(2, LEN);

/// A `SendRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SendView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// The message.
    pub message: MessageView<'a>,
}

impl<'a> SendView<'a> {
    /// Validates a serialized `SendRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const MESSAGE: u32 = key(3, LEN);
        let mut head = Head::default();
        let mut message: Option<MessageMerge<'a>> = None;
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MESSAGE => {
                    let nested = reader.bytes().map_err(at(Field::Message))?;
                    message
                        .get_or_insert_default()
                        .merge(nested, DEPTH - 1)
                        .map_err(|error| error.within(Field::Message))?;
                }
                key => head.merge(key, &mut reader, 3)?,
            }
        }
        head.check()?;
        let message = message.ok_or_else(|| DecodeError::at(Missing, Field::Message))?;
        let message = message.finish(bytes, &[MESSAGE, MESSAGE_ATTRIBUTES]);
        message.check().map_err(|error| error.within(Field::Message))?;
        Ok(SendView {
            namespace: head.namespace,
            token: head.token,
            message,
        })
    }
}

/// A `SendBatchRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SendBatchView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// Absent: the gateway makes one.
    pub token: Option<TokenView<'a>>,
    /// 1 to 1,000, together at most 4 MiB.
    pub messages: Repeated<'a, BatchMessageView<'a>>,
}

impl<'a> SendBatchView<'a> {
    /// Validates a serialized `SendBatchRequest`. Allocates nothing. The limits of each message are
    /// checked when it is read, so that one bad message leaves the others alone.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const MESSAGES: u32 = key(3, LEN);
        let mut head = Head::default();
        let (mut count, mut together) = (0, 0);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MESSAGES => {
                    let nested = reader.bytes().map_err(at(Field::Messages))?;
                    MessageMerge::default()
                        .merge(nested, DEPTH - 1)
                        .map_err(|error| error.within_element(Field::Messages, count))?;
                    together += nested.len();
                    count += 1;
                }
                key => head.merge(key, &mut reader, 3)?,
            }
        }
        head.check()?;
        check_count(count, BATCH_MESSAGES_MAX, Field::Messages)?;
        if together > BATCH_BYTES_MAX as usize {
            return Err(DecodeError::at(TooLong { max: BATCH_BYTES_MAX }, Field::Messages));
        }
        Ok(SendBatchView {
            namespace: head.namespace,
            token: head.token,
            messages: Repeated::new(bytes, &[MESSAGES], 0, count),
        })
    }
}

/// One message of a SendBatch.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct BatchMessageView<'a> {
    /// The message. Its key names the line that its refusal stops, even if it is too long.
    pub message: MessageView<'a>,
    /// The limit that the message breaks; its path begins within the message.
    pub fault: Option<DecodeError>,
}

impl<'a> Element<'a> for BatchMessageView<'a> {
    #[inline]
    fn from_validated(bytes: &'a [u8]) -> Self {
        let mut merge = MessageMerge::default();
        let accepted = merge.merge(bytes, DEPTH);
        debug_assert!(accepted.is_ok());
        let message = merge.finish(bytes, &[MESSAGE_ATTRIBUTES]);
        BatchMessageView {
            message,
            fault: message.check().err(),
        }
    }
}

/// A `ReceiveRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ReceiveView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// The same one gets the same messages while their leases last.
    pub token: Option<TokenView<'a>>,
    /// 1 to 100.
    pub messages_max: u32,
    /// How long to wait for the first message, in milliseconds, up to 50 s.
    pub wait_ms: u64,
    /// How long the messages are the caller's, in milliseconds, 1 s to 12 h.
    pub lease_ms: u64,
}

impl<'a> ReceiveView<'a> {
    /// Validates a serialized `ReceiveRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const MESSAGES_MAX: u32 = key(3, VARINT);
        const WAIT: u32 = key(4, LEN);
        const LEASE: u32 = key(5, LEN);
        let mut head = Head::default();
        let (mut messages_max, mut wait, mut lease) = (0, None, None);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                MESSAGES_MAX => messages_max = reader.uint32().map_err(at(Field::MessagesMax))?,
                WAIT => merge_duration(&mut wait, &mut reader, Field::Wait)?,
                LEASE => merge_duration(&mut lease, &mut reader, Field::Lease)?,
                key => head.merge(key, &mut reader, 5)?,
            }
        }
        head.check()?;
        let wait = wait.unwrap_or_default().as_millis_ceil();
        let longest = RECEIVE_WAIT_SECONDS_MAX * 1_000;
        Ok(ReceiveView {
            namespace: head.namespace,
            token: head.token,
            messages_max: within(messages_max, 1, RECEIVE_MESSAGES_MAX, Field::MessagesMax)?,
            wait_ms: wait
                .filter(|millis| *millis <= longest)
                .ok_or_else(|| DecodeError::at(OutOfRange, Field::Wait))?,
            lease_ms: lease_ms(lease)?,
        })
    }
}

/// An `AckRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AckView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// For the audit trail.
    pub token: Option<TokenView<'a>>,
    /// 1 to 1,000 of at most 160 bytes each.
    pub receipts: Repeated<'a, &'a [u8]>,
}

impl<'a> AckView<'a> {
    /// Validates a serialized `AckRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut head, mut receipts) = (Head::default(), Names::default());
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                RECEIPTS => receipts.take_receipt(&mut reader)?,
                key => head.merge(key, &mut reader, 3)?,
            }
        }
        head.check()?;
        Ok(AckView {
            namespace: head.namespace,
            token: head.token,
            receipts: receipts.finish(bytes)?,
        })
    }
}

/// A `NackRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NackView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// For the audit trail.
    pub token: Option<TokenView<'a>>,
    /// 1 to 1,000 of at most 160 bytes each.
    pub receipts: Repeated<'a, &'a [u8]>,
    /// When the messages come again, in milliseconds; absent: by the number of the attempt.
    pub delay_ms: Option<u64>,
    /// Reason of the failure; of any length, to be cut.
    pub reason: &'a str,
    /// Do not try again.
    pub dead: bool,
    /// Do not count the attempt.
    pub uncounted: bool,
}

impl<'a> NackView<'a> {
    /// Validates a serialized `NackRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const DELAY: u32 = key(4, LEN);
        const REASON: u32 = key(5, LEN);
        const DEAD: u32 = key(6, VARINT);
        const UNCOUNTED: u32 = key(7, VARINT);
        let (mut head, mut receipts, mut delay) = (Head::default(), Names::default(), None);
        let (mut reason, mut dead, mut uncounted) = ("", false, false);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                RECEIPTS => receipts.take_receipt(&mut reader)?,
                DELAY => merge_duration(&mut delay, &mut reader, Field::Delay)?,
                REASON => reason = reader.string().map_err(at(Field::Reason))?,
                DEAD => dead = reader.boolean().map_err(at(Field::Dead))?,
                UNCOUNTED => uncounted = reader.boolean().map_err(at(Field::Uncounted))?,
                key => head.merge(key, &mut reader, 7)?,
            }
        }
        head.check()?;
        let delay = delay.map(|delay: DurationView| {
            delay
                .as_millis_ceil()
                .ok_or_else(|| DecodeError::at(OutOfRange, Field::Delay))
        });
        Ok(NackView {
            namespace: head.namespace,
            token: head.token,
            receipts: receipts.finish(bytes)?,
            delay_ms: delay.transpose()?,
            reason,
            dead,
            uncounted,
        })
    }
}

/// An `ExtendRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ExtendView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// For the audit trail.
    pub token: Option<TokenView<'a>>,
    /// 1 to 1,000 of at most 160 bytes each.
    pub receipts: Repeated<'a, &'a [u8]>,
    /// How long from now on, in milliseconds, 1 s to 12 h.
    pub lease_ms: u64,
}

impl<'a> ExtendView<'a> {
    /// Validates a serialized `ExtendRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const LEASE: u32 = key(4, LEN);
        let (mut head, mut receipts, mut lease) = (Head::default(), Names::default(), None);
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                RECEIPTS => receipts.take_receipt(&mut reader)?,
                LEASE => merge_duration(&mut lease, &mut reader, Field::Lease)?,
                key => head.merge(key, &mut reader, 4)?,
            }
        }
        head.check()?;
        Ok(ExtendView {
            namespace: head.namespace,
            token: head.token,
            receipts: receipts.finish(bytes)?,
            lease_ms: lease_ms(lease)?,
        })
    }
}

/// A `PeekRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PeekView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// Wanted states, a bit for each number of the enum; none: what is undone.
    pub states: u8,
    /// Only messages of this key.
    pub ordering_key: Option<&'a str>,
    /// 1 to 1,000.
    pub page_size: u32,
    /// Of the page before; empty for the first.
    pub page_token: &'a [u8],
    /// Whether payloads are left out.
    pub without_payload: bool,
}

impl<'a> PeekView<'a> {
    /// Validates a serialized `PeekRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const STATES: u32 = key(2, VARINT);
        const STATES_PACKED: u32 = key(2, LEN);
        const ORDERING_KEY: u32 = key(3, LEN);
        const PAGE_SIZE: u32 = key(4, VARINT);
        const PAGE_TOKEN: u32 = key(5, LEN);
        const WITHOUT_PAYLOAD: u32 = key(6, VARINT);
        let mut view = PeekView {
            namespace: "",
            states: 0,
            ordering_key: None,
            page_size: 0,
            page_token: &[],
            without_payload: false,
        };
        let mut states = 0;
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                NAMESPACE => view.namespace = reader.string().map_err(at(Field::Namespace))?,
                STATES => states |= state_bit(reader.int32().map_err(at(Field::States))?),
                STATES_PACKED => {
                    let mut packed = WireReader::new(reader.bytes().map_err(at(Field::States))?);
                    while !packed.is_empty() {
                        states |= state_bit(packed.int32().map_err(at(Field::States))?);
                    }
                }
                ORDERING_KEY => {
                    view.ordering_key = Some(reader.string().map_err(at(Field::OrderingKey))?);
                }
                PAGE_SIZE => view.page_size = reader.uint32().map_err(at(Field::PageSize))?,
                PAGE_TOKEN => view.page_token = reader.bytes().map_err(at(Field::PageToken))?,
                WITHOUT_PAYLOAD => {
                    view.without_payload = reader.boolean().map_err(at(Field::WithoutPayload))?;
                }
                key => reader.unknown(key, 6, DEPTH).map_err(DecodeError::new)?,
            }
        }
        check_namespace(view.namespace)?;
        if states & NO_STATE != 0 {
            return Err(DecodeError::at(OutOfRange, Field::States));
        }
        view.states = states;
        let too_long = |max| TooLong { max };
        if view
            .ordering_key
            .is_some_and(|key| key.len() > TOPIC_BYTES_MAX as usize)
        {
            return Err(DecodeError::at(too_long(TOPIC_BYTES_MAX), Field::OrderingKey));
        }
        if view.page_token.len() > PAGE_TOKEN_BYTES_MAX as usize {
            return Err(DecodeError::at(too_long(PAGE_TOKEN_BYTES_MAX), Field::PageToken));
        }
        view.page_size = within(
            view.page_size,
            PEEK_MESSAGES_DEFAULT,
            PEEK_MESSAGES_MAX,
            Field::PageSize,
        )?;
        Ok(view)
    }
}

/// Bit of a number that is no state.
const NO_STATE: u8 = 1;

fn state_bit(number: i32) -> u8 {
    StateView::of_number(number).map_or(NO_STATE, |state| 1 << state.number())
}

/// The messages that a Redrive or a Delete is about.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum WhichView<'a> {
    /// These, 1 to 1,000 of at most 80 bytes each.
    Ids(Repeated<'a, &'a [u8]>),
    /// All in this state.
    State(StateView),
}

/// A `RedriveRequest` or a `DeleteRequest`, which are the same on the wire.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MoveView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
    /// The same one again moves nothing more.
    pub token: Option<TokenView<'a>>,
    /// The messages that are meant.
    pub which: WhichView<'a>,
}

impl<'a> MoveView<'a> {
    /// Validates a serialized `RedriveRequest` or `DeleteRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const IDS: u32 = key(3, LEN);
        const STATE: u32 = key(4, VARINT);
        let (mut head, mut ids, mut member) = (Head::default(), Pieces::default(), None);
        let mut fault = None;
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                IDS => {
                    let nested = reader.bytes().map_err(at(Field::Ids))?;
                    let of_piece = names_of(nested).map_err(|error| error.within(Field::Ids))?;
                    if member != Some(Member::Ids) {
                        ids.replace();
                        fault = None;
                    }
                    ids.add(nested, of_piece.count);
                    fault = fault.or(of_piece.fault);
                    member = Some(Member::Ids);
                }
                STATE => member = Some(Member::State(reader.int32().map_err(at(Field::State))?)),
                key => head.merge(key, &mut reader, 4)?,
            }
        }
        head.check()?;
        let which = match member {
            None => return Err(DecodeError::at(Missing, Field::Which)),
            Some(Member::State(number)) => WhichView::State(
                StateView::of_number(number).ok_or_else(|| DecodeError::at(OutOfRange, Field::State))?,
            ),
            Some(Member::Ids) => {
                check_count(ids.count(), QUEUE_IDS_MAX, Field::MessageIds)
                    .and(fault.map_or(Ok(()), Err))
                    .map_err(|error: DecodeError| error.within(Field::Ids))?;
                WhichView::Ids(ids.finish(bytes, &[IDS, MESSAGE_IDS]))
            }
        };
        Ok(MoveView {
            namespace: head.namespace,
            token: head.token,
            which,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Ids,
    State(i32),
}

const MESSAGE_IDS: u32 = key(1, LEN);

fn names_of(bytes: &[u8]) -> Result<Names, DecodeError> {
    let mut reader = WireReader::new(bytes);
    let mut names = Names::default();
    while !reader.is_empty() {
        match reader.key().map_err(DecodeError::new)? {
            MESSAGE_IDS => {
                let id = reader.bytes().map_err(at(Field::MessageIds))?;
                names.take(id, QUEUE_MESSAGE_ID_BYTES_MAX, Field::MessageIds);
            }
            key => reader.unknown(key, 1, DEPTH - 1).map_err(DecodeError::new)?,
        }
    }
    Ok(names)
}

/// A `StatsRequest`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StatsView<'a> {
    /// 1 to 255 bytes.
    pub namespace: &'a str,
}

impl<'a> StatsView<'a> {
    /// Validates a serialized `StatsRequest`. Allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut namespace = "";
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                NAMESPACE => namespace = reader.string().map_err(at(Field::Namespace))?,
                key => reader.unknown(key, 1, DEPTH).map_err(DecodeError::new)?,
            }
        }
        check_namespace(namespace)?;
        Ok(StatsView { namespace })
    }
}

/// The two fields with which nearly all requests begin.
#[derive(Clone, Copy, Default)]
struct Head<'a> {
    namespace: &'a str,
    token: Option<TokenView<'a>>,
}

impl<'a> Head<'a> {
    /// Takes one of its fields, or passes an unknown one of a message whose fields go up to
    /// `known_max`.
    #[inline]
    fn merge(&mut self, key: u32, reader: &mut WireReader<'a>, known_max: u32) -> Result<(), DecodeError> {
        match key {
            NAMESPACE => self.namespace = reader.string().map_err(at(Field::Namespace))?,
            TOKEN => {
                merge_token(
                    &mut self.token,
                    reader.bytes().map_err(at(Field::IdempotencyToken))?,
                )?;
            }
            key => reader.unknown(key, known_max, DEPTH).map_err(DecodeError::new)?,
        }
        Ok(())
    }

    fn check(&self) -> Result<(), DecodeError> {
        check_namespace(self.namespace)?;
        check_token(&self.token)
    }
}

const RECEIPTS: u32 = key(3, LEN);

/// Names of which there may be some, while they come in. The first that breaks a limit is told of
/// in the end, since the rest may be no message at all.
#[derive(Clone, Copy, Default)]
struct Names {
    count: u32,
    fault: Option<DecodeError>,
}

impl Names {
    fn take(&mut self, name: &[u8], max: u32, field: Field) {
        let number = self.count;
        self.fault = self.fault.or_else(|| {
            let checked = check_length(name, max);
            checked.err().map(|error| error.within_element(field, number))
        });
        self.count += 1;
    }

    fn take_receipt(&mut self, reader: &mut WireReader<'_>) -> Result<(), DecodeError> {
        let receipt = reader.bytes().map_err(at(Field::Receipts))?;
        self.take(receipt, RECEIPT_BYTES_MAX, Field::Receipts);
        Ok(())
    }

    fn finish(self, bytes: &[u8]) -> Result<Repeated<'_, &[u8]>, DecodeError> {
        check_count(self.count, RECEIPTS_MAX, Field::Receipts)?;
        self.fault.map_or(Ok(()), Err)?;
        Ok(Repeated::new(bytes, &[RECEIPTS], 0, self.count))
    }
}

fn check_count(count: u32, max: u32, field: Field) -> Result<(), DecodeError> {
    match count {
        0 => Err(DecodeError::at(Missing, field)),
        count if count > max => Err(DecodeError::at(TooMany { max }, field)),
        _ => Ok(()),
    }
}

fn check_length(bytes: &[u8], max: u32) -> Result<(), DecodeError> {
    match bytes.len() {
        0 => Err(DecodeError::new(Missing)),
        length if length > max as usize => Err(DecodeError::new(TooLong { max })),
        _ => Ok(()),
    }
}

/// A number, or its default if it is 0.
fn within(value: u32, default: u32, max: u32, field: Field) -> Result<u32, DecodeError> {
    match value {
        0 => Ok(default),
        value if value > max => Err(DecodeError::at(NotWithin { min: 0, max }, field)),
        value => Ok(value),
    }
}

fn merge_duration(
    duration: &mut Option<DurationView>,
    reader: &mut WireReader<'_>,
    field: Field,
) -> Result<(), DecodeError> {
    let nested = reader.bytes().map_err(at(field))?;
    duration
        .get_or_insert_default()
        .merge(nested, DEPTH - 1)
        .map_err(|error| error.within(field))
}

fn lease_ms(lease: Option<DurationView>) -> Result<u64, DecodeError> {
    let Some(lease) = lease else {
        return Ok(LEASE_SECONDS_DEFAULT * 1_000);
    };
    lease
        .as_millis_ceil()
        .filter(|millis| (1_000..=LEASE_SECONDS_MAX * 1_000).contains(millis))
        .ok_or_else(|| DecodeError::at(OutOfRange, Field::Lease))
}
