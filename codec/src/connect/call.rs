//! The head of a Connect call and the body of a Connect error.
//!
//! Promises that whatever is wrong with a call gets the answer that the specification names.

use std::time::Duration;

use crate::grpc::{ACCEPT_ENCODING, Code, Encoding, Status, encode_binary};

/// How request and response are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentType {
    /// `application/proto`
    Proto,
    /// `application/json`
    Json,
}

impl ContentType {
    /// The header's value.
    pub fn name(self) -> &'static str {
        match self {
            ContentType::Proto => "application/proto",
            ContentType::Json => "application/json",
        }
    }

    /// Parses a `content-type`; parameters are ignored, except a `charset` other than UTF-8, which JSON cannot have.
    pub fn parse(value: &[u8]) -> Option<ContentType> {
        let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let essence = parts.next().unwrap_or_default();
        if essence.eq_ignore_ascii_case(b"application/proto") {
            return Some(ContentType::Proto);
        }
        if !essence.eq_ignore_ascii_case(b"application/json") {
            return None;
        }
        let foreign = |part: &[u8]| match part.split_at_checked(8) {
            Some((name, value)) if name.eq_ignore_ascii_case(b"charset=") => {
                !value.trim_ascii().eq_ignore_ascii_case(b"utf-8")
                    && !value.eq_ignore_ascii_case(b"\"utf-8\"")
            }
            _ => false,
        };
        if parts.any(foreign) {
            None
        } else {
            Some(ContentType::Json)
        }
    }
}

/// The head of a call, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Of request and response.
    pub content_type: ContentType,
    /// Of the request's body: undo it with [`crate::grpc::decompress`] unless it is `Identity`.
    pub encoding: Encoding,
    /// How long the client waits.
    pub timeout: Option<Duration>,
    /// Whether the response may be compressed with gzip.
    pub accepts_gzip: bool,
}

/// A call that cannot be served; the answer to give.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// Plain HTTP: status, and one header to add (`allow`, `accept-post`). No body.
    Http {
        /// 405 or 415.
        status: u16,
        /// Name in lower case, and value.
        header: (&'static str, &'static str),
    },
    /// A Connect error: answer with [`Code::http_status`] and [`error_json`]. An unknown encoding should be answered with
    /// the header `accept-encoding: ` [`ACCEPT_ENCODING`] as well.
    Status(Status),
}

/// Understands a call's method and header fields (of HTTP/1.1 or HTTP/2).
pub fn parse_call<'h>(
    method: &[u8],
    headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
) -> Result<Call, Refusal> {
    if method != b"POST" {
        return Err(Refusal::Http {
            status: 405,
            header: ("allow", "POST"),
        });
    }
    let mut content_type = None;
    let mut call = Call {
        content_type: ContentType::Json,
        encoding: Encoding::Identity,
        timeout: None,
        accepts_gzip: false,
    };
    let mut problem = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(b"content-type") {
            content_type = ContentType::parse(value);
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            match Encoding::parse(value) {
                Some(encoding) => call.encoding = encoding,
                None => problem = Some(unknown_encoding(value)),
            }
        } else if name.eq_ignore_ascii_case(b"accept-encoding") {
            call.accepts_gzip = accepts_gzip(value);
        } else if name.eq_ignore_ascii_case(b"connect-timeout-ms") {
            match parse_timeout_ms(value) {
                Some(timeout) => call.timeout = Some(timeout),
                None => {
                    problem = Some(invalid(
                        "connect-timeout-ms is a number of milliseconds, 1 to 10 digits",
                    ))
                }
            }
        } else if name.eq_ignore_ascii_case(b"connect-protocol-version") && value != b"1" {
            problem = Some(invalid("the only supported connect-protocol-version is 1"));
        }
    }
    let Some(content_type) = content_type else {
        let header = (
            "accept-post",
            "application/json, application/proto, application/grpc",
        );
        return Err(Refusal::Http { status: 415, header });
    };
    call.content_type = content_type;
    match problem {
        Some(status) => Err(Refusal::Status(status)),
        None => Ok(call),
    }
}

fn invalid(message: &'static str) -> Status {
    Status::new(Code::InvalidArgument, message)
}

fn unknown_encoding(value: &[u8]) -> Status {
    let name: String = String::from_utf8_lossy(value).chars().take(64).collect();
    Status::new(
        Code::Unimplemented,
        format!("unknown content-encoding {name:?}; supported: {ACCEPT_ENCODING}"),
    )
}

/// 1 to 10 digits, as the specification has it.
fn parse_timeout_ms(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > 10 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let millis = value
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(Duration::from_millis(millis))
}

/// Whether gzip is in the list, and not with a quality of 0 (RFC 9110, 12.5.3).
fn accepts_gzip(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|entry| {
        let mut parts = entry.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"gzip"));
        let refused = parts.any(|part| {
            part.strip_prefix(b"q=")
                .is_some_and(|q| q.iter().all(|byte| matches!(byte, b'0' | b'.')))
        });
        named && !refused
    })
}

/// Appends the JSON body of a Connect error, without the optional `debug` of its details; see
/// [`super::JsonCodec::error_json`].
pub fn error_json(status: &Status, out: &mut Vec<u8>) {
    put_error_json(status, out, |_| None);
}

/// `debug` makes the JSON form of a detail, if it can.
pub(super) fn put_error_json(
    status: &Status,
    out: &mut Vec<u8>,
    debug: impl Fn(&prost_types::Any) -> Option<serde_json::Value>,
) {
    let mut body = serde_json::Map::new();
    body.insert("code".to_owned(), status.code.connect_name().into());
    if !status.message.is_empty() {
        body.insert("message".to_owned(), status.message.as_ref().into());
    }
    if !status.details.is_empty() {
        let detail = |any: &prost_types::Any| {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            let mut detail = serde_json::Map::new();
            detail.insert("type".to_owned(), name.into());
            detail.insert("value".to_owned(), encode_binary(&any.value).into());
            if let Some(debug) = debug(any) {
                detail.insert("debug".to_owned(), debug);
            }
            serde_json::Value::Object(detail)
        };
        body.insert("details".to_owned(), status.details.iter().map(detail).collect());
    }
    let written = serde_json::to_writer(&mut *out, &body);
    debug_assert!(
        written.is_ok(),
        "a Vec takes everything and a map of strings serializes"
    );
}
