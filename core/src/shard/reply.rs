//! From a reply to the bytes to send, in the format of the request: whole responses, and the parts
//! of streams. The sessions of both HTTP versions send them.

use std::borrow::Cow;

use prism_codec::{
    connect::JsonCodec,
    format::{self, Ending, Format, Payload},
    grpc::{self, Code, Status},
};

use super::{request_id, unary::json_method};
use crate::dispatch::{
    Dispatcher,
    head::{Encoding, Extra, Head},
    http_rules::Fields,
    route::Route,
};

const JSON_TYPE: &str = "application/json";

/// A response, or the start of one.
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The content type; empty if there is none.
    pub(crate) content_type: &'static str,
    /// Further fields.
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    /// Trailers after the body, for formats that need them.
    pub(crate) trailers: Vec<(&'static str, Vec<u8>)>,
}

impl Response {
    /// Adds the request's id.
    pub(super) fn put_request_id(&mut self, id: &str) {
        self.fields
            .push((request_id::FIELD, Cow::Owned(id.as_bytes().to_vec())));
    }

    fn new(head: Head, gateway: &Dispatcher) -> Self {
        let mut fields = Fields::new();
        gateway.http().put_origin(head.origin, &mut fields);
        if head.by_get || head.format == Format::Sse {
            // A read sees every write acknowledged before it, which no cache can promise.
            fields.push(("cache-control", Cow::Borrowed(b"no-store")));
        }
        Self {
            status: 200,
            content_type: head.format.row().content_type,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
        }
    }
}

/// The result of a request that needs neither a message nor a store.
pub(crate) fn plain(head: Head, extra: Option<&Extra>, gateway: &mut Dispatcher) -> Result<(), Box<Status>> {
    match extra.and_then(|extra| extra.refusal.as_ref()) {
        Some(refusal) => Err(refusal.status.clone()),
        None if head.route == Route::Preflight => Ok(()),
        None => gateway.plain(head.route),
    }
}

/// The response for a reply (in `gateway.reply`) or an error.
pub(crate) fn whole(
    head: Head,
    extra: Option<&Extra>,
    result: Result<(), Box<Status>>,
    gateway: &mut Dispatcher,
) -> Response {
    match result {
        Ok(()) if head.route == Route::Preflight => preflight(head, extra, gateway),
        Ok(()) if head.format == Format::Plain => page(head, gateway),
        Ok(()) => answer(head, gateway),
        Err(status) => failure(head, extra, &status, gateway),
    }
}

fn preflight(head: Head, extra: Option<&Extra>, gateway: &Dispatcher) -> Response {
    let mut response = Response::new(head, gateway);
    response.status = 204;
    response.content_type = "";
    response.fields.clear();
    if let Some(extra) = extra {
        let fields = &mut response.fields;
        fields.push(("allow", Cow::Borrowed(extra.methods.as_bytes())));
        let http = gateway.http();
        http.put_preflight(head.origin, extra.methods, &extra.asked_fields, fields);
    }
    response
}

/// A page for people or scrapers.
fn page(head: Head, gateway: &mut Dispatcher) -> Response {
    let mut response = Response::new(head, gateway);
    if head.route == Route::Metrics {
        response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    }
    let page = std::mem::take(&mut gateway.reply);
    if gateway.compress_page(head.accepts, &page, &mut response.body) {
        put_encoding(head, &mut response.fields);
    } else {
        response.body.extend_from_slice(&page);
    }
    gateway.reply = page;
    response
}

/// The reply of a call with one answer.
fn answer(head: Head, gateway: &mut Dispatcher) -> Response {
    let row = head.format.row();
    let mut response = Response::new(head, gateway);
    let reply = std::mem::take(&mut gateway.reply);
    match put_message(head, &reply, gateway, &mut response.body) {
        Ok(compressed) => {
            if compressed {
                put_encoding(head, &mut response.fields);
            }
            format::put_end(head.format, Ok(()), JsonCodec::shared(), &mut response.body);
            if row.ending == Ending::Trailers {
                response.trailers = format::grpc_trailers(Ok(()));
            }
        }
        Err(status) => response = failure(head, None, &status, gateway),
    }
    gateway.reply = reply;
    response
}

/// An error before anything was sent.
fn failure(head: Head, extra: Option<&Extra>, status: &Status, gateway: &Dispatcher) -> Response {
    let row = head.format.row();
    let refusal = extra.and_then(|extra| extra.refusal.as_ref());
    let mut response = Response::new(head, gateway);
    if head.encoding == Encoding::Unsupported && !row.accept_field.is_empty() {
        // As demanded by gRPC's compression document and RFC 7694.
        let accepted = Cow::Borrowed(grpc::ACCEPT_ENCODING.as_bytes());
        response.fields.push((row.accept_field, accepted));
    }
    match row.ending {
        Ending::Trailers => {
            let trailers = format::grpc_trailers(Err(status));
            response.fields.extend(
                trailers
                    .into_iter()
                    .map(|(name, value)| (name, Cow::Owned(value))),
            );
        }
        Ending::TrailersFrame | Ending::EndMessage => end_with(head, status, &mut response.body),
        // An `EventSource` reads only replies with status 200. A refused head is from another
        // client, and gets its own status.
        Ending::Event if refusal.is_none() => {
            format::put_start(head.format, &mut response.body);
            end_with(head, status, &mut response.body);
        }
        Ending::Event | Ending::Line | Ending::HttpStatus => {
            response.status = match (refusal, head.route) {
                (Some(refusal), _) => refusal.http_status,
                (None, Route::Readyz) => 503,
                (None, _) if status.reason().as_deref() == Some("MESSAGE_TOO_LARGE") => 413,
                (None, _) => status.code.http_status(),
            };
            if let Some((name, value)) = refusal.and_then(|refusal| refusal.field) {
                response.fields.push((name, Cow::Borrowed(value.as_bytes())));
            }
            response.content_type = JSON_TYPE;
            JsonCodec::shared().error_json(status, &mut response.body);
            response.body.push(b'\n');
        }
    }
    response
}

/// The start of a stream's response; the body holds the bytes before the first message.
pub(crate) fn stream_start(head: Head, gateway: &Dispatcher) -> Response {
    let mut response = Response::new(head, gateway);
    if head.accepts != grpc::Encoding::Identity {
        let name = head.accepts.name();
        let field = head.format.row().encoding_field;
        response.fields.push((field, Cow::Borrowed(name.as_bytes())));
    }
    format::put_start(head.format, &mut response.body);
    response
}

/// Appends a message in its envelope. Returns whether it is compressed.
pub(crate) fn put_message(
    head: Head,
    message: &[u8],
    gateway: &mut Dispatcher,
    out: &mut Vec<u8>,
) -> Result<bool, Box<Status>> {
    let (mut json, mut place) = (Vec::new(), Vec::new());
    let payload = match head.format.row().payload {
        Payload::Proto => message,
        Payload::Json => {
            place = JsonCodec::shared()
                .stream_to_json(json_method(head.route)?, message, &mut json)
                .map_err(|cause| Box::new(Status::new(Code::Internal, cause.to_string())))?;
            &json
        }
    };
    let mut packed = Vec::new();
    let compressed = gateway.compress(head.accepts, payload, &mut packed);
    let payload = if compressed { &packed } else { payload };
    format::put_message(head.format, payload, compressed, &place, out);
    Ok(compressed)
}

/// Appends the end of a stream, as far as it lies in the body.
pub(crate) fn put_stream_end(head: Head, result: Result<(), &Status>, out: &mut Vec<u8>) {
    format::put_end(head.format, result, JsonCodec::shared(), out);
}

fn end_with(head: Head, status: &Status, out: &mut Vec<u8>) {
    format::put_end(head.format, Err(status), JsonCodec::shared(), out);
}

fn put_encoding(head: Head, fields: &mut Fields) {
    let name = head.accepts.name();
    let row = head.format.row();
    fields.push((row.encoding_field, Cow::Borrowed(name.as_bytes())));
    if row.accept_field == "accept-encoding" {
        fields.push(("vary", Cow::Borrowed(b"accept-encoding")));
    }
}
