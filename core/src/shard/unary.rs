//! From a request's body to its message, for the sessions of both HTTP versions and every format.

use std::borrow::Cow;

use prism_codec::{
    connect::{JsonCodec, MethodInfo},
    format::{Envelope, Format, Payload, decode_base64_stream},
    grpc::{self, Code, Status},
};

use crate::{
    api,
    call::error,
    dispatch::{
        Dispatcher,
        head::{Encoding, Extra, Head},
        route::Route,
    },
};

/// Bytes before each gRPC message: a flag and a length.
pub(crate) const PREFIX_BYTES: usize = grpc::PREFIX_BYTES;

/// Whether `body` is exactly one uncompressed gRPC message.
#[inline]
pub(crate) fn is_whole_plain_message(body: &[u8]) -> bool {
    match body.first_chunk::<PREFIX_BYTES>() {
        Some([0, length @ ..]) => u32::from_be_bytes(*length) as usize == body.len() - PREFIX_BYTES,
        _ => false,
    }
}

/// The length of the gRPC message at the start of `body`, if all of it is there.
pub(crate) fn whole_message_length(body: &[u8]) -> Option<usize> {
    let [_, length @ ..] = body.first_chunk::<PREFIX_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    (body.len() - PREFIX_BYTES >= length).then_some(length)
}

/// The error that the first part of a request's body already shows, if any.
pub(crate) fn error_within(head: Head, body: &[u8], max: usize) -> Option<Box<Status>> {
    if head.format.row().envelope != Envelope::Prefixed || head.by_get {
        return None;
    }
    let [flag, length @ ..] = body.first_chunk::<PREFIX_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if *flag == 1 && head.encoding == Encoding::Unsupported {
        return inflate(head.encoding, Cow::Borrowed(&[]), max).err();
    }
    if length > max || body.len() > PREFIX_BYTES + length {
        return enveloped(head, body, max).err();
    }
    None
}

/// The one protobuf message of a call's request: unwrapped, decompressed, turned from JSON.
pub(crate) fn message<'a>(
    head: Head,
    extra: Option<&'a Extra>,
    body: &'a [u8],
    gateway: &Dispatcher,
) -> Result<Cow<'a, [u8]>, Box<Status>> {
    let body = extra.and_then(|extra| extra.message.as_deref()).unwrap_or(body);
    let max = gateway.limits().message_bytes_max;
    let unwrapped = match head.format.row().envelope {
        // By GET the message is in the query, without an envelope.
        Envelope::Prefixed if !head.by_get => enveloped(head, body, max)?,
        Envelope::PrefixedBase64 => {
            let decoded = decode_base64_stream(body)
                .ok_or_else(|| error::status(Code::InvalidArgument, "the request's body is not base64"))?;
            Cow::Owned(enveloped(head, &decoded, max)?.into_owned())
        }
        _ => inflate(head.encoding, Cow::Borrowed(body), max)?,
    };
    let mut message = match head.format.row().payload {
        Payload::Proto => unwrapped,
        Payload::Json => Cow::Owned(from_json(head.route, &unwrapped)?),
    };
    if head.by_get
        && let Some(method) = head.route.method()
    {
        api::check_get(method, &message)?;
    }
    if let Some(place) = extra.and_then(|extra| extra.resume_after.as_deref())
        && !json_method(head.route)?.resume_after(place, message.to_mut())
    {
        return Err(error::status(
            Code::InvalidArgument,
            "streams of this method cannot be resumed: send no last-event-id",
        ));
    }
    Ok(message)
}

/// The descriptors of a route's method.
pub(crate) fn json_method(route: Route) -> Result<&'static MethodInfo, Box<Status>> {
    route
        .method()
        .and_then(|method| JsonCodec::shared().method(method.spec().path))
        .ok_or_else(|| error::status(Code::Unimplemented, "no such method"))
}

fn from_json(route: Route, json: &[u8]) -> Result<Vec<u8>, Box<Status>> {
    let mut message = Vec::new();
    JsonCodec::shared()
        .request_to_proto(json_method(route)?, json, &mut message)
        .map_err(|cause| {
            if cause.field.is_empty() {
                Box::new(Status::new(Code::InvalidArgument, cause.message))
            } else {
                error::invalid(&cause.field, &cause.message)
            }
        })?;
    Ok(message)
}

/// The message in an envelope that fills the body.
fn enveloped(head: Head, body: &[u8], max: usize) -> Result<Cow<'_, [u8]>, Box<Status>> {
    let Some([flag, length @ ..]) = body.first_chunk::<PREFIX_BYTES>() else {
        return Err(error::status(Code::InvalidArgument, "the request has no message"));
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > max {
        return Err(Box::new(message_too_large(max)));
    }
    let message = &body[PREFIX_BYTES..];
    if message.len() < length {
        return Err(error::status(
            Code::InvalidArgument,
            "the request ends within its message",
        ));
    }
    if message.len() > length {
        return Err(error::status(
            Code::Unimplemented,
            "a unary call takes exactly one request message",
        ));
    }
    match flag {
        0 => Ok(Cow::Borrowed(message)),
        1 if head.encoding == Encoding::Known(grpc::Encoding::Identity) => Err(Box::new(Status::new(
            Code::Internal,
            format!(
                "the message is marked as compressed, but {} does not say how",
                head.format.row().encoding_field
            ),
        ))),
        1 => inflate(head.encoding, Cow::Borrowed(message), max),
        _ => Err(error::status(
            Code::Internal,
            "the first byte of a message's envelope is 0 or 1 (compressed)",
        )),
    }
}

fn inflate(encoding: Encoding, bytes: Cow<'_, [u8]>, max: usize) -> Result<Cow<'_, [u8]>, Box<Status>> {
    let encoding = match encoding {
        Encoding::Known(grpc::Encoding::Identity) => return Ok(bytes),
        Encoding::Known(encoding) => encoding,
        Encoding::Unsupported => {
            return Err(Box::new(Status::new(
                Code::Unimplemented,
                format!(
                    "this compression is not supported; supported are {}",
                    grpc::ACCEPT_ENCODING
                ),
            )));
        }
    };
    let mut out = Vec::new();
    match grpc::decompress(encoding, &bytes, max, &mut out) {
        Ok(()) => Ok(Cow::Owned(out)),
        Err(cause) => Err(Box::new(Status::new(cause.code(), cause.to_string()))),
    }
}

/// The request is larger than the gateway accepts.
pub(crate) fn message_too_large(max: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("the request message is larger than {max} bytes, the most that this gateway takes"),
    )
    .with_reason("MESSAGE_TOO_LARGE", &[("limit_bytes", &max.to_string())])
}

/// Most bytes of a request's body if its message may have `message_max` bytes.
pub(crate) fn body_bytes_max(format: Format, message_max: usize) -> usize {
    match format.row().envelope {
        Envelope::PrefixedBase64 => (message_max + PREFIX_BYTES).div_ceil(3) * 4,
        _ => message_max + PREFIX_BYTES,
    }
}
