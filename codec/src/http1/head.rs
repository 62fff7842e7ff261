//! Request line and header fields: finds their end, parses them, and decides how the body is
//! framed.
//!
//! Promises that a head with more than one reading is refused (RFC 9112, 6.3 and 11.2). `httparse`
//! judges the bytes of names and values.

use super::HttpError;
use crate::limits::{HTTP1_HEAD_BYTES_MAX, HTTP1_HEADERS_MAX};

/// The version of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// HTTP/1.0: no chunked bodies, closes unless asked to keep alive.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A request's head, borrowed from the input.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method, for example `POST`.
    pub method: &'a str,
    /// The target as received, for example `/metrics?x=1`.
    pub target: &'a str,
    /// The request's version.
    pub version: Version,
    /// The header fields, in their order.
    pub headers: Headers<'a>,
    /// Whether the client wants to send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body: answer with
    /// [`super::put_continue`], or refuse.
    pub expects_continue: bool,
    /// Bytes of the body that follows; `u64::MAX` if it is chunked, so that the length is unknown.
    pub body_left: u64,
}

impl<'a> Head<'a> {
    /// The target's path, without query. A target in absolute form is `http://host/path`.
    pub fn path(&self) -> &'a str {
        split_target(self.target).0
    }

    /// The target's query, without `?`; empty if there is none.
    pub fn query(&self) -> &'a str {
        split_target(self.target).1
    }

    /// The target's path with its query, as in `:path` of HTTP/2.
    pub fn path_and_query(&self) -> &'a str {
        origin_form(self.target).split('#').next().unwrap_or_default()
    }

    /// Host and port of a target in absolute form; empty for all others.
    pub fn authority(&self) -> &'a str {
        absolute_form(self.target).map_or("", |rest| {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            &rest[..end]
        })
    }
}

/// The part of a target in absolute form after its scheme.
fn absolute_form(target: &str) -> Option<&str> {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => Some(rest),
        _ => None,
    }
}

fn origin_form(target: &str) -> &str {
    match absolute_form(target) {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    }
}

fn split_target(target: &str) -> (&str, &str) {
    let without_fragment = origin_form(target).split('#').next().unwrap_or_default();
    without_fragment.split_once('?').unwrap_or((without_fragment, ""))
}

/// The header fields of a request, read again from its validated bytes.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// Lines, each ended by CRLF.
    lines: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Names as received, values without surrounding white space, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.lines.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = std::str::from_utf8(&line[..colon]).ok()?;
            Some((name, line[colon + 1..].trim_ascii()))
        })
    }

    /// First value of this name, whatever its case.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Framing of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

const fn refuse<T>(status: u16, message: &'static str) -> Result<T, HttpError> {
    Err(HttpError { status, message })
}

/// Length of the head with its empty line, or `None` while it is incomplete. The first `searched`
/// bytes are known to hold no end.
pub(super) fn find_end(input: &[u8], searched: &mut usize) -> Result<Option<usize>, HttpError> {
    let window = &input[..input.len().min(HTTP1_HEAD_BYTES_MAX)];
    let mut position = *searched;
    while let Some(offset) = window
        .get(position..)
        .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
    {
        let newline = position + offset;
        // RFC 9112, 2.2 lets a lone line feed pass as a line's end; a proxy in front of us may read
        // it otherwise.
        if newline == 0 || window[newline - 1] != b'\r' {
            return refuse(400, "a line of the request head does not end with CR LF");
        }
        if newline >= 3 && &window[newline - 3..newline] == b"\r\n\r" {
            return Ok(Some(newline + 1));
        }
        position = newline + 1;
    }
    *searched = window.len();
    if window.len() < HTTP1_HEAD_BYTES_MAX {
        return Ok(None);
    }
    if window.contains(&b'\n') {
        refuse(431, "the request's header fields are larger than 16 KiB")
    } else {
        refuse(414, "the request's target is longer than 16 KiB")
    }
}

/// Parses a complete head.
pub(super) fn parse(bytes: &[u8]) -> Result<(Head<'_>, Framing), HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; HTTP1_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return refuse(400, "the request head is incomplete"),
        Err(httparse::Error::TooManyHeaders) => {
            return refuse(431, "the request has more than 64 header fields");
        }
        Err(httparse::Error::Version) => {
            return refuse(505, "the gateway speaks HTTP/1.0, HTTP/1.1 and HTTP/2");
        }
        Err(httparse::Error::HeaderName) => return refuse(400, "the name of a header field is not valid"),
        Err(httparse::Error::HeaderValue) => return refuse(400, "the value of a header field is not valid"),
        Err(_) => return refuse(400, "the request line is not valid"),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return refuse(400, "the request line is not valid");
    };
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let special = special_fields(request.headers, version)?;
    let line_end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |newline| newline + 1);
    let head = Head {
        method,
        target,
        version,
        headers: Headers {
            lines: &bytes[line_end..],
        },
        keep_alive: special.keep_alive,
        expects_continue: special.expects_continue,
        body_left: match special.framing {
            Framing::Length(length) => length,
            Framing::Chunked => u64::MAX,
        },
    };
    Ok((head, special.framing))
}

/// Contents of the fields that concern this connection and not the application.
struct Special {
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
}

fn special_fields(fields: &[httparse::Header<'_>], version: Version) -> Result<Special, HttpError> {
    let (mut length, mut chunked, mut hosts) = (None, false, 0);
    let (mut close, mut keep) = (false, false);
    let mut expects_continue = false;
    for field in fields {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("content-length") {
            let parsed = content_length(value)?;
            if length.is_some_and(|before| before != parsed) {
                return refuse(400, "the request has two different content-length fields");
            }
            length = Some(parsed);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || version == Version::Http10 {
                return refuse(400, "transfer-encoding may stand once, and only in HTTP/1.1");
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return refuse(501, "the only supported transfer-encoding is chunked");
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("connection") {
            for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                close |= token.eq_ignore_ascii_case(b"close");
                keep |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if field.name.eq_ignore_ascii_case("host") {
            hosts += 1;
        } else if field.name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return refuse(417, "the only supported expectation is 100-continue");
            }
            // RFC 9110, 10.1.1: ignored in HTTP/1.0.
            expects_continue = version == Version::Http11;
        }
    }
    if hosts > 1 || (hosts == 0 && version == Version::Http11) {
        return refuse(400, "a request needs exactly one host field");
    }
    let framing = match (length, chunked) {
        (Some(_), true) => return refuse(400, "the request has both content-length and transfer-encoding"),
        (None, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    expects_continue &= framing != Framing::Length(0);
    let keep_alive = !close && (version == Version::Http11 || keep);
    Ok(Special {
        framing,
        keep_alive,
        expects_continue,
    })
}

/// Parses digits only: no sign, no list, no white space within (RFC 9110, 8.6).
fn content_length(value: &[u8]) -> Result<u64, HttpError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return refuse(400, "content-length is not a number");
    }
    let digits = value.iter().map(|digit| u64::from(digit - b'0'));
    // A number beyond 64 bits is valid, only too large.
    Ok(digits.fold(0u64, |number, digit| {
        number.saturating_mul(10).saturating_add(digit)
    }))
}
