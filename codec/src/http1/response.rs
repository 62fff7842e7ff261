//! Writers of HTTP/1.1 responses: whole, chunked, `100 Continue`, and errors.
//!
//! Promises well-formed heads: line breaks in a header's value become spaces, so that no value can
//! forge a field.

use super::HttpError;

/// A whole response.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status, for example 200.
    pub status: u16,
    /// Fields in addition to `content-type`, `content-length` and `connection`, which are always
    /// written. Names in lower case.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The field `content-type`; empty to leave it out.
    pub content_type: &'a str,
    /// The body; for HEAD only its length is written.
    pub body: &'a [u8],
    /// Whether the connection is kept. False: `connection: close`, and the caller closes.
    pub keep_alive: bool,
    /// Whether the request's method was HEAD.
    pub head_only: bool,
}

impl Default for Response<'_> {
    fn default() -> Self {
        Response {
            status: 200,
            headers: &[],
            content_type: "",
            body: &[],
            keep_alive: true,
            head_only: false,
        }
    }
}

/// Appends a whole response.
pub fn put_response(out: &mut Vec<u8>, response: &Response<'_>) {
    put_status_line(out, response.status);
    put_fields(out, response.content_type, response.headers, response.keep_alive);
    // RFC 9110, 8.6: no length in 1xx and 204.
    let has_body = response.status >= 200 && response.status != 204 && response.status != 304;
    if has_body {
        put_field(out, "content-length", response.body.len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if has_body && !response.head_only {
        out.extend_from_slice(response.body);
    }
}

/// Appends the head of a response of unknown length to HTTP/1.0: the body ends with the connection.
pub fn put_head_until_close(out: &mut Vec<u8>, status: u16, content_type: &str, headers: &[(&str, &[u8])]) {
    put_status_line(out, status);
    put_fields(out, content_type, headers, false);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response of unknown length; [`put_chunk`] and [`put_chunks_end`] follow.
/// Not for HTTP/1.0.
pub fn put_head_chunked(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    headers: &[(&str, &[u8])],
    keep_alive: bool,
) {
    put_status_line(out, status);
    put_fields(out, content_type, headers, keep_alive);
    put_field(out, "transfer-encoding", b"chunked");
    out.extend_from_slice(b"\r\n");
}

/// Appends a chunk; nothing if `bytes` is empty, because an empty chunk marks the end.
pub fn put_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the end of a chunked body.
pub fn put_chunks_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Appends `100 Continue`: the client may send its body.
pub fn put_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends the answer to a refused request, as JSON that a Connect client understands, and
/// `connection: close`.
pub fn put_error(out: &mut Vec<u8>, error: &HttpError) {
    let code = match error.status {
        408 => "deadline_exceeded",
        413 | 414 | 431 => "resource_exhausted",
        501 | 505 => "unimplemented",
        _ => "invalid_argument",
    };
    // The messages are our own and need no escaping.
    let body = format!("{{\"code\":\"{code}\",\"message\":\"{}\"}}\n", error.message);
    let status = error.status;
    let response = Response {
        status,
        content_type: "application/json",
        body: body.as_bytes(),
        keep_alive: false,
        ..Response::default()
    };
    put_response(out, &response);
}

fn put_status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
}

fn put_fields(out: &mut Vec<u8>, content_type: &str, headers: &[(&str, &[u8])], keep_alive: bool) {
    if !content_type.is_empty() {
        put_field(out, "content-type", content_type.as_bytes());
    }
    for (name, value) in headers {
        put_field(out, name, value);
    }
    // HTTP/1.0 clients need the field; others ignore it.
    put_field(
        out,
        "connection",
        if keep_alive { b"keep-alive" } else { b"close" },
    );
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let clean = |byte: &u8| {
        if matches!(*byte, b'\r' | b'\n' | 0) {
            b' '
        } else {
            *byte
        }
    };
    out.extend(name.as_bytes().iter().map(clean));
    out.extend_from_slice(b": ");
    out.extend(value.iter().map(clean));
    out.extend_from_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}
