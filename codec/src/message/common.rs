//! Messages that all data-plane services share: `prism.common.v1`, the well-known types they use,
//! `google.rpc.Status`.
//!
//! Promises and semantics as in the parent module. The same structs serve as views when decoding
//! and as values when encoding.

use super::repeated::{Element, Pieces, Repeated};
use crate::{
    error::{
        DecodeError,
        DecodeErrorKind::{self, Missing, OutOfRange, TooLong},
        Field,
    },
    limits::{MESSAGE_DEPTH_MAX, NAMESPACE_BYTES_MAX, TOKEN_BYTES_MAX, TTL_SECONDS_MAX},
    reader::{LEN, VARINT, WireReader, key},
    writer::{bytes_len, len_field_len, put_bytes, put_len_key, put_varint_field, varint_field_len},
};

/// A `google.protobuf.Duration`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DurationView {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest, in nanoseconds, of the same sign.
    pub nanos: i32,
}

impl DurationView {
    /// From milliseconds, for a time that is left.
    pub fn from_millis(millis: u64) -> Self {
        DurationView {
            seconds: (millis / 1_000) as i64,
            nanos: (millis % 1_000) as i32 * 1_000_000,
        }
    }

    /// The duration in milliseconds, rounded up, so that nothing expires early. `None` if negative
    /// or out of range.
    pub fn as_millis_ceil(&self) -> Option<u64> {
        if !(0..=TTL_SECONDS_MAX).contains(&self.seconds) || !(0..1_000_000_000).contains(&self.nanos) {
            return None;
        }
        Some(self.seconds as u64 * 1_000 + (self.nanos as u64).div_ceil(1_000_000))
    }

    pub(crate) fn merge(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        merge_seconds_nanos(bytes, &mut self.seconds, &mut self.nanos, depth)
    }

    /// A time to live: positive and within the range that a Duration may express.
    pub(crate) fn check_ttl(&self) -> Result<(), DecodeErrorKind> {
        match self.as_millis_ceil() {
            Some(1..) => Ok(()),
            _ => Err(OutOfRange),
        }
    }

    fn encoded_len(&self) -> usize {
        varint_field_len(self.seconds as u64) + varint_field_len(self.nanos as i64 as u64)
    }

    /// Bytes of this message as a field with a one-byte key.
    pub(crate) fn field_len(&self) -> usize {
        len_field_len(self.encoded_len())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, field: u32) {
        put_len_key(out, field, self.encoded_len());
        put_varint_field(out, 1, self.seconds as u64);
        put_varint_field(out, 2, self.nanos as i64 as u64);
    }
}

/// A `google.protobuf.Timestamp`: time since the Unix epoch, UTC.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TimestampView {
    /// Whole seconds, may be negative.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: i32,
}

impl TimestampView {
    /// Nanoseconds since the Unix epoch; `None` when illegal or outside of the years 1678 to 2261
    /// that 64 bits hold.
    pub fn as_unix_nanos(&self) -> Option<i64> {
        if !(0..1_000_000_000).contains(&self.nanos) {
            return None;
        }
        self.seconds
            .checked_mul(1_000_000_000)?
            .checked_add(i64::from(self.nanos))
    }

    pub(crate) fn merge(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        merge_seconds_nanos(bytes, &mut self.seconds, &mut self.nanos, depth)
    }

    pub(crate) fn check(&self) -> Result<(), DecodeErrorKind> {
        self.as_unix_nanos().map(drop).ok_or(OutOfRange)
    }

    pub(crate) fn field_len(&self) -> usize {
        len_field_len(self.encoded_len())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, field: u32) {
        put_len_key(out, field, self.encoded_len());
        put_varint_field(out, 1, self.seconds as u64);
        put_varint_field(out, 2, self.nanos as i64 as u64);
    }

    /// From nanoseconds since the Unix epoch.
    pub fn from_unix_nanos(nanos: i64) -> Self {
        TimestampView {
            seconds: nanos.div_euclid(1_000_000_000),
            nanos: nanos.rem_euclid(1_000_000_000) as i32,
        }
    }

    fn encoded_len(&self) -> usize {
        varint_field_len(self.seconds as u64) + varint_field_len(self.nanos as i64 as u64)
    }
}

/// Duration and Timestamp are the same on the wire.
#[inline]
fn merge_seconds_nanos(
    bytes: &[u8],
    seconds: &mut i64,
    nanos: &mut i32,
    depth: u32,
) -> Result<(), DecodeError> {
    let mut reader = WireReader::new(bytes);
    while !reader.is_empty() {
        match reader.key().map_err(DecodeError::new)? {
            SECONDS => *seconds = reader.varint().map_err(at(Field::Seconds))? as i64,
            NANOS => *nanos = reader.int32().map_err(at(Field::Nanos))?,
            key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
        }
    }
    Ok(())
}

const SECONDS: u32 = key(1, VARINT);
const NANOS: u32 = key(2, VARINT);

/// A `prism.common.v1.IdempotencyToken`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TokenView<'a> {
    /// When the client made the token; the gateway fills in its own clock when absent.
    pub generation_time: Option<TimestampView>,
    /// 1 to 64 bytes, unique among the writes of one namespace.
    pub token: &'a [u8],
}

impl<'a> TokenView<'a> {
    #[inline]
    pub(crate) fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                GENERATION_TIME => {
                    let nested = reader.bytes().map_err(at(Field::GenerationTime))?;
                    let time = self.generation_time.get_or_insert_default();
                    time.merge(nested, depth - 1)
                        .map_err(|error| error.within(Field::GenerationTime))?;
                }
                TOKEN => self.token = reader.bytes().map_err(at(Field::Token))?,
                key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        if self.token.is_empty() {
            return Err(DecodeError::at(Missing, Field::Token));
        }
        if self.token.len() > TOKEN_BYTES_MAX as usize {
            return Err(DecodeError::at(TooLong { max: TOKEN_BYTES_MAX }, Field::Token));
        }
        match self.generation_time {
            Some(time) if time.as_unix_nanos().is_none() => {
                Err(DecodeError::at(OutOfRange, Field::GenerationTime))
            }
            _ => Ok(()),
        }
    }

    fn encoded_len(&self) -> usize {
        self.generation_time.map_or(0, |time| time.field_len()) + bytes_len(self.token)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, field: u32) {
        put_len_key(out, field, self.encoded_len());
        if let Some(time) = self.generation_time {
            time.put(out, 1);
        }
        put_bytes(out, 2, self.token);
    }
}

const GENERATION_TIME: u32 = key(1, LEN);
const TOKEN: u32 = key(2, LEN);

/// A `prism.common.v1.WriteResult`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WriteResultView {
    /// Number of the `Durability` enum; unknown values are kept.
    pub durability: i32,
    /// The log lane; 0 when the write did not pass through a log.
    pub lane: u32,
    /// The record's number in that lane, from 1; 0 when the write did not pass through a log.
    pub lsn: u64,
    /// Whether the store had the write when the reply was made.
    pub applied: bool,
}

impl WriteResultView {
    pub(crate) fn merge(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                DURABILITY => self.durability = reader.int32().map_err(at(Field::Durability))?,
                LANE => self.lane = reader.uint32().map_err(at(Field::Lane))?,
                LSN => self.lsn = reader.varint().map_err(at(Field::Lsn))?,
                APPLIED => self.applied = reader.boolean().map_err(at(Field::Applied))?,
                key => reader.unknown(key, 4, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        varint_field_len(self.durability as i64 as u64)
            + varint_field_len(u64::from(self.lane))
            + varint_field_len(self.lsn)
            + varint_field_len(u64::from(self.applied))
    }

    pub(crate) fn field_len(&self) -> usize {
        len_field_len(self.encoded_len())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, field: u32) {
        put_len_key(out, field, self.encoded_len());
        put_varint_field(out, 1, self.durability as i64 as u64);
        put_varint_field(out, 2, u64::from(self.lane));
        put_varint_field(out, 3, self.lsn);
        put_varint_field(out, 4, u64::from(self.applied));
    }
}

const DURABILITY: u32 = key(1, VARINT);
const LANE: u32 = key(2, VARINT);
const LSN: u32 = key(3, VARINT);
const APPLIED: u32 = key(4, VARINT);

/// A `google.protobuf.Any`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AnyView<'a> {
    /// For example `type.googleapis.com/google.rpc.ErrorInfo`.
    pub type_url: &'a str,
    /// The message's bytes.
    pub value: &'a [u8],
}

impl<'a> AnyView<'a> {
    fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                TYPE_URL => self.type_url = reader.string().map_err(at(Field::TypeUrl))?,
                ANY_VALUE => self.value = reader.bytes().map_err(at(Field::Value))?,
                key => reader.unknown(key, 2, depth).map_err(DecodeError::new)?,
            }
        }
        Ok(())
    }
}

impl<'a> Element<'a> for AnyView<'a> {
    fn from_validated(bytes: &'a [u8]) -> Self {
        let mut any = AnyView::default();
        let accepted = any.merge(bytes, MESSAGE_DEPTH_MAX);
        debug_assert!(accepted.is_ok());
        any
    }
}

const TYPE_URL: u32 = key(1, LEN);
const ANY_VALUE: u32 = key(2, LEN);

/// A `google.rpc.Status`: why one mutation of several had no effect.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct StatusView<'a> {
    /// A gRPC status code; see [`crate::grpc::Code`].
    pub code: i32,
    /// For people.
    pub message: &'a str,
    /// Typed details.
    pub details: Repeated<'a, AnyView<'a>>,
}

/// A [`StatusView`] while its pieces come in.
#[derive(Clone, Copy, Default)]
pub(crate) struct StatusMerge<'a> {
    code: i32,
    message: &'a str,
    details: Pieces<'a>,
}

impl<'a> StatusMerge<'a> {
    pub(crate) fn merge(&mut self, bytes: &'a [u8], depth: u32) -> Result<(), DecodeError> {
        let mut reader = WireReader::new(bytes);
        let mut details = 0;
        while !reader.is_empty() {
            match reader.key().map_err(DecodeError::new)? {
                STATUS_CODE => self.code = reader.int32().map_err(at(Field::Code))?,
                STATUS_MESSAGE => self.message = reader.string().map_err(at(Field::Message))?,
                STATUS_DETAILS => {
                    let nested = reader.bytes().map_err(at(Field::Details))?;
                    AnyView::default()
                        .merge(nested, depth - 1)
                        .map_err(|error| error.within_element(Field::Details, details))?;
                    details += 1;
                }
                key => reader.unknown(key, 3, depth).map_err(DecodeError::new)?,
            }
        }
        self.details.add(bytes, details);
        Ok(())
    }

    /// `path` leads from `root` to the details.
    pub(crate) fn finish(&self, root: &'a [u8], path: &'static [u32]) -> StatusView<'a> {
        StatusView {
            code: self.code,
            message: self.message,
            details: self.details.finish(root, path),
        }
    }
}

const STATUS_CODE: u32 = key(1, VARINT);
const STATUS_MESSAGE: u32 = key(2, LEN);
pub(crate) const STATUS_DETAILS: u32 = key(3, LEN);

/// A `google.rpc.Status` to be sent within a message.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct StatusOut<'a> {
    /// A gRPC status code.
    pub code: i32,
    /// For people.
    pub message: &'a str,
    /// Typed details.
    pub details: &'a [AnyView<'a>],
}

impl StatusOut<'_> {
    pub(crate) fn encoded_len(&self) -> usize {
        let details: usize = self
            .details
            .iter()
            .map(|detail| len_field_len(any_len(detail)))
            .sum();
        varint_field_len(self.code as i64 as u64) + bytes_len(self.message.as_bytes()) + details
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, field: u32) {
        put_len_key(out, field, self.encoded_len());
        put_varint_field(out, 1, self.code as i64 as u64);
        put_bytes(out, 2, self.message.as_bytes());
        for detail in self.details {
            put_len_key(out, 3, any_len(detail));
            put_bytes(out, 1, detail.type_url.as_bytes());
            put_bytes(out, 2, detail.value);
        }
    }
}

fn any_len(any: &AnyView<'_>) -> usize {
    bytes_len(any.type_url.as_bytes()) + bytes_len(any.value)
}

/// Checks a message that has no fields of its own.
pub(crate) fn validate_empty(bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
    let mut reader = WireReader::new(bytes);
    while !reader.is_empty() {
        let key = reader.key().map_err(DecodeError::new)?;
        reader.unknown(key, 0, depth).map_err(DecodeError::new)?;
    }
    Ok(())
}

/// Merges a piece of a request's `idempotency_token`.
#[inline]
pub(crate) fn merge_token<'a>(token: &mut Option<TokenView<'a>>, bytes: &'a [u8]) -> Result<(), DecodeError> {
    let merged = token.get_or_insert_default().merge(bytes, MESSAGE_DEPTH_MAX - 1);
    merged.map_err(|error| error.within(Field::IdempotencyToken))
}

#[inline]
pub(crate) fn check_token(token: &Option<TokenView<'_>>) -> Result<(), DecodeError> {
    match token {
        Some(token) => token
            .check()
            .map_err(|error| error.within(Field::IdempotencyToken)),
        None => Ok(()),
    }
}

#[inline]
pub(crate) fn check_namespace(namespace: &str) -> Result<(), DecodeError> {
    match namespace.len() {
        0 => Err(DecodeError::at(Missing, Field::Namespace)),
        length if length > NAMESPACE_BYTES_MAX as usize => Err(DecodeError::at(
            TooLong {
                max: NAMESPACE_BYTES_MAX,
            },
            Field::Namespace,
        )),
        _ => Ok(()),
    }
}

/// Merges a piece of a response's `result`. `depth`: of the message that holds the result.
pub(crate) fn merge_result(
    result: &mut Option<WriteResultView>,
    bytes: &[u8],
    depth: u32,
) -> Result<(), DecodeError> {
    result
        .get_or_insert_default()
        .merge(bytes, depth - 1)
        .map_err(|error| error.within(Field::Result))
}

/// Validates the response of a batch, whose results are field 1, each by `decode`, which takes its
/// depth, too.
pub(crate) fn decode_results<'a, T: Element<'a>>(
    bytes: &'a [u8],
    decode: impl Fn(&'a [u8], u32) -> Result<T, DecodeError>,
) -> Result<Repeated<'a, T>, DecodeError> {
    const RESULTS: u32 = key(1, LEN);
    let mut count = 0;
    let mut reader = WireReader::new(bytes);
    while !reader.is_empty() {
        match reader.key().map_err(DecodeError::new)? {
            RESULTS => {
                let nested = reader.bytes().map_err(at(Field::Results))?;
                decode(nested, MESSAGE_DEPTH_MAX - 1)
                    .map_err(|error| error.within_element(Field::Results, count))?;
                count += 1;
            }
            key => reader
                .unknown(key, 1, MESSAGE_DEPTH_MAX)
                .map_err(DecodeError::new)?,
        }
    }
    Ok(Repeated::new(bytes, &[RESULTS], 0, count))
}

/// For `map_err`: names the field.
#[inline(always)]
pub(crate) fn at(field: Field) -> impl Fn(DecodeErrorKind) -> DecodeError {
    move |kind| DecodeError::at(kind, field)
}
