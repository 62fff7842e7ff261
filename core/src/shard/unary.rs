//! What the sessions of both HTTP versions share: from a request's body to one message, from a reply to an HTTP response.

use std::{borrow::Cow, sync::LazyLock};

use prism_codec::{
    connect::JsonCodec,
    grpc::{self, Code, Status},
};

use crate::{
    call::error,
    dispatch::{
        Dispatcher,
        route::{Encoding, Format, Head, Route},
    },
};

/// Bytes before each gRPC message: a flag and a length.
pub(crate) const PREFIX_BYTES: usize = grpc::PREFIX_BYTES;

/// JSON for every method, made when the first JSON request comes.
static JSON: LazyLock<JsonCodec> = LazyLock::new(JsonCodec::new);

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

/// The one protobuf message of a unary call's body: unwrapped, decompressed, turned from JSON.
pub(crate) fn message<'a>(
    head: Head,
    body: &'a [u8],
    gateway: &Dispatcher,
) -> Result<Cow<'a, [u8]>, Box<Status>> {
    let max = gateway.limits().message_bytes_max;
    match head.format {
        Format::Grpc => grpc_message(head.encoding, body, max),
        Format::ConnectProto => inflate(head.encoding, Cow::Borrowed(body), max),
        Format::ConnectJson => {
            let json = inflate(head.encoding, Cow::Borrowed(body), max)?;
            let method = JSON
                .method(head.route.path())
                .ok_or_else(|| error::status(Code::Unimplemented, "no such method"))?;
            let mut message = Vec::new();
            JSON.request_to_proto(method, &json, &mut message)
                .map_err(|cause| {
                    if cause.field.is_empty() {
                        Box::new(Status::new(Code::InvalidArgument, cause.message))
                    } else {
                        error::invalid(&cause.field, &cause.message)
                    }
                })?;
            Ok(Cow::Owned(message))
        }
        Format::Plain => Ok(Cow::Borrowed(body)),
    }
}

fn grpc_message(encoding: Encoding, body: &[u8], max: usize) -> Result<Cow<'_, [u8]>, Box<Status>> {
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
        1 if encoding == Encoding::Known(grpc::Encoding::Identity) => Err(error::status(
            Code::Internal,
            "the message is marked as compressed, but grpc-encoding does not say how",
        )),
        1 => inflate(encoding, Cow::Borrowed(message), max),
        _ => Err(error::status(
            Code::Internal,
            "the first byte of a gRPC message is 0 or 1 (compressed)",
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

/// The request is larger than the gateway takes.
pub(crate) fn message_too_large(max: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("the request message is larger than {max} bytes, the most that this gateway takes"),
    )
    .with_reason("MESSAGE_TOO_LARGE", &[("limit_bytes", &max.to_string())])
}

/// A streaming method was called by the Connect unary protocol.
pub(crate) fn streaming_needs_grpc() -> Status {
    Status::new(
        Code::Unimplemented,
        "this method streams its response; call it by gRPC, or page through Get",
    )
}

/// A reply as plain HTTP.
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// A field that some statuses owe.
    pub(crate) extra: Option<(&'static str, &'static str)>,
    pub(crate) body: Vec<u8>,
}

/// Wraps a reply (in `gateway.reply`) or an error as an HTTP response in the format of the request.
pub(crate) fn http_response(
    route: Route,
    format: Format,
    result: Result<(), Box<Status>>,
    gateway: &mut Dispatcher,
) -> HttpResponse {
    const JSON_TYPE: &str = "application/json";
    let mut response = HttpResponse {
        status: 200,
        content_type: JSON_TYPE,
        extra: None,
        body: Vec::new(),
    };
    match (format, result) {
        (Format::ConnectJson, Ok(())) => {
            let encoded = match JSON.method(route.path()) {
                Some(method) => JSON.response_to_json(method, &gateway.reply, &mut response.body),
                None => Ok(()),
            };
            if let Err(cause) = encoded {
                let status = Status::new(Code::Internal, cause.to_string());
                response.status = status.code.http_status();
                response.body.clear();
                JSON.error_json(&status, &mut response.body);
            }
        }
        (Format::ConnectProto, Ok(())) => {
            response.content_type = "application/proto";
            response.body.extend_from_slice(&gateway.reply);
        }
        (Format::Plain | Format::Grpc, Ok(())) => {
            response.content_type = match route {
                Route::Metrics => "text/plain; version=0.0.4; charset=utf-8",
                _ => "text/plain; charset=utf-8",
            };
            response.body.extend_from_slice(&gateway.reply);
        }
        (_, Err(status)) => {
            response.status = match route {
                Route::Unknown => 404,
                Route::WrongMethod => 405,
                Route::WrongContentType => 415,
                Route::Readyz => 503,
                _ => status.code.http_status(),
            };
            response.extra = match route {
                Route::WrongMethod => Some(("allow", "GET, POST")),
                Route::WrongContentType => Some((
                    "accept-post",
                    "application/json, application/proto, application/grpc",
                )),
                _ => None,
            };
            JSON.error_json(&status, &mut response.body);
            response.body.push(b'\n');
        }
    }
    response
}
