//! The meaning of a request head: method, format and deadline, or the reason of a refusal.
//!
//! A [`Head`] is small and `Copy`, so that a connection can remember the heads it has seen and skip
//! the decoding of header blocks that repeat. Parts that differ from request to request are
//! [`Extra`], and a head with them is not remembered.

use std::time::Duration;

use prism_codec::{
    connect::JsonCodec,
    format::{self, CALL_CONTENT_TYPES, ContentTypeProblem, Format, Payload, Shapes, parse_query},
    grpc::{self, Code, Status},
    method::Shape,
};

use super::{
    http_rules::{HttpRules, Origin},
    route::{Route, route_of},
};

/// The request head, interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) route: Route,
    pub(crate) format: Format,
    pub(crate) timeout: Option<Duration>,
    /// Compression of the request.
    pub(crate) encoding: Encoding,
    /// Best compression that the client accepts in replies.
    pub(crate) accepts: grpc::Encoding,
    pub(crate) origin: Origin,
    /// Whether the request's method is HEAD: the reply has no body.
    pub(crate) head_only: bool,
    /// Whether it is a call by GET: no cache may keep its reply.
    pub(crate) by_get: bool,
}

/// Parts of a head that cannot be remembered.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// The reason why the request is refused.
    pub(crate) refusal: Option<Refusal>,
    /// The message of a call by GET.
    pub(crate) message: Option<Vec<u8>>,
    /// The place after which a stream of events continues.
    pub(crate) resume_after: Option<Vec<u8>>,
    /// Fields that a page wants to send, as listed in its preflight.
    pub(crate) asked_fields: Vec<u8>,
    /// The client's own id of the request, if a reply can repeat it.
    pub(crate) request_id: Option<Box<str>>,
    /// The methods that the path accepts, for a preflight.
    pub(crate) methods: &'static str,
}

/// The answer to a request that we do not serve.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status, for formats that cannot express the error otherwise.
    pub(crate) http_status: u16,
    pub(crate) status: Box<Status>,
    /// A field that the status requires.
    pub(crate) field: Option<(&'static str, &'static str)>,
}

/// Compression of the request's messages or bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Known(grpc::Encoding),
    /// An unsupported one; an error only if a message really is compressed.
    Unsupported,
}

/// Longest id of a request that is accepted from its client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

const IDENTITY: Encoding = Encoding::Known(grpc::Encoding::Identity);

/// The methods of paths that are no calls.
const PAGE_METHODS: &str = "GET, HEAD";
const CALL_METHODS: &str = "POST";
/// The methods of calls without side effects.
const READ_METHODS: &str = "GET, HEAD, POST";
/// The methods of streams without side effects.
const STREAM_METHODS: &str = "GET, POST";

impl Head {
    /// Interprets the fields of a request head that the protocol layer has checked; HTTP/1.1 uses
    /// the names of HTTP/2 (`:method`, `:path`, `:authority`). `has_trailers`: the transport can
    /// send trailers, as gRPC needs.
    pub(crate) fn from_fields<'a>(
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        has_trailers: bool,
        rules: &HttpRules,
    ) -> (Self, Option<Box<Extra>>) {
        let mut raw = RawHead::default();
        for (name, value) in fields {
            if let Some(place) = raw.place(name) {
                *place = Some(value);
            }
        }
        let mut extra = Extra {
            request_id: raw.request_id.and_then(usable_id),
            ..Extra::default()
        };
        let head = raw.interpret(has_trailers, rules, &mut extra);
        let is_plain = extra.refusal.is_none()
            && extra.message.is_none()
            && extra.resume_after.is_none()
            && extra.request_id.is_none()
            && head.route != Route::Preflight;
        (head, (!is_plain).then(|| Box::new(extra)))
    }

    /// The same request, refused by the protocol layer for its head.
    pub(crate) fn refused(self, http_status: u16, status: Box<Status>) -> (Self, Extra) {
        let head = Self {
            route: Route::Refused,
            ..self
        };
        let refusal = Refusal {
            http_status,
            status,
            field: None,
        };
        let extra = Extra {
            refusal: Some(refusal),
            ..Extra::default()
        };
        (head, extra)
    }
}

macro_rules! raw_head {
    ($($place:ident = $name:literal,)*) => {
        /// Relevant fields, as received.
        #[derive(Default)]
        struct RawHead<'a> { $($place: Option<&'a [u8]>,)* }

        impl<'a> RawHead<'a> {
            fn place(&mut self, name: &[u8]) -> Option<&mut Option<&'a [u8]>> {
                $(if name == $name.as_bytes() { return Some(&mut self.$place); })*
                None
            }

            /// The field of this name, if it is a relevant one.
            fn field(&self, name: &str) -> Option<&'a [u8]> {
                $(if name == $name { return self.$place; })*
                None
            }
        }
    };
}

raw_head! {
    method = ":method",
    path = ":path",
    authority = ":authority",
    content_type = "content-type",
    grpc_timeout = "grpc-timeout",
    grpc_encoding = "grpc-encoding",
    grpc_accept_encoding = "grpc-accept-encoding",
    host = "host",
    accept = "accept",
    accept_encoding = "accept-encoding",
    content_encoding = "content-encoding",
    connect_timeout = "connect-timeout-ms",
    connect_version = "connect-protocol-version",
    connect_encoding = "connect-content-encoding",
    connect_accept_encoding = "connect-accept-encoding",
    last_event_id = "last-event-id",
    origin = "origin",
    asked_method = "access-control-request-method",
    asked_fields = "access-control-request-headers",
    request_id = "x-request-id",
}

/// A client's id of its request, unless a reply or a line of diagnostics cannot carry it.
fn usable_id(value: &[u8]) -> Option<Box<str>> {
    let usable = (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    let id = usable.then(|| std::str::from_utf8(value).ok()).flatten()?;
    Some(id.into())
}

impl RawHead<'_> {
    fn interpret(&self, has_trailers: bool, rules: &HttpRules, extra: &mut Extra) -> Head {
        let method = self.method.unwrap_or_default();
        let target = self.path.unwrap_or_default();
        let (path, query) = match target.iter().position(|byte| *byte == b'?') {
            Some(mark) => (&target[..mark], &target[mark + 1..]),
            None => (target, &[][..]),
        };
        let mut head = Head {
            route: route_of(path),
            format: self.content_type.map_or(Format::Plain, |value| {
                Format::parse(value).unwrap_or(Format::Plain)
            }),
            timeout: None,
            encoding: IDENTITY,
            accepts: grpc::Encoding::Identity,
            origin: self.origin.map_or(Origin::Foreign, |origin| rules.origin(origin)),
            head_only: method == b"HEAD",
            by_get: false,
        };
        let result = if let Some(host) = self.foreign_host(rules) {
            Err(wrong_host(host))
        } else if method == b"OPTIONS" {
            self.options(&mut head, extra)
        } else if head.route.is_page() {
            self.page(&mut head, method)
        } else if head.route == Route::Unknown {
            Err(unknown_path())
        } else {
            self.call(&mut head, method, query, has_trailers, extra)
        };
        if rules.compresses_at_all() {
            let field = self.field(head.format.row().accept_field);
            head.accepts = field.map_or(grpc::Encoding::Identity, format::preferred_encoding);
        }
        if let Err(refusal) = result {
            head.route = Route::Refused;
            if refusal.http_status == 415 || (head.format.needs_trailers() && !has_trailers) {
                head.format = Format::Plain;
            }
            extra.refusal = Some(refusal);
        }
        head
    }

    /// The host of the request, if it is none of this gateway's.
    fn foreign_host(&self, rules: &HttpRules) -> Option<&[u8]> {
        [self.authority, self.host]
            .into_iter()
            .flatten()
            .find(|name| !rules.allows_host(name))
    }

    /// Answers a preflight (the Fetch standard, "CORS-preflight request"), or a question which
    /// methods a path accepts.
    fn options(&self, head: &mut Head, extra: &mut Extra) -> Result<(), Refusal> {
        head.format = Format::Plain;
        extra.methods = methods(head.route);
        if let (Some(origin), Some(_)) = (self.origin, self.asked_method)
            && head.origin == Origin::Foreign
        {
            return Err(foreign_origin(origin));
        }
        extra.asked_fields = self.asked_fields.unwrap_or_default().to_vec();
        head.route = Route::Preflight;
        Ok(())
    }

    fn page(&self, head: &mut Head, method: &[u8]) -> Result<(), Refusal> {
        head.format = Format::Plain;
        match method {
            b"GET" | b"HEAD" => Ok(()),
            _ => Err(wrong_method(PAGE_METHODS)),
        }
    }

    fn call(
        &self,
        head: &mut Head,
        method: &[u8],
        query: &[u8],
        has_trailers: bool,
        extra: &mut Extra,
    ) -> Result<(), Refusal> {
        match method {
            b"POST" => {
                head.format = self.posted_format(head.route, has_trailers)?;
                let name = self.field(head.format.row().encoding_field);
                head.encoding = name.map_or(IDENTITY, |name| known(grpc::Encoding::parse(name)));
            }
            b"GET" | b"HEAD" if takes(methods(head.route), method) => {
                head.by_get = true;
                head.format = Format::ConnectJson;
                let call = parse_query(query).map_err(|status| invalid(status.message.into_owned()))?;
                head.format = self.asked_format(head.route, call.payload)?;
                head.encoding = known(call.encoding);
                extra.message = Some(call.message);
            }
            _ => {
                head.format = Format::Plain;
                return Err(wrong_method(methods(head.route)));
            }
        }
        let row = head.format.row();
        if row.timeout_field == "connect-timeout-ms"
            && self.connect_version.is_some_and(|version| version != b"1")
        {
            return Err(invalid("the only connect-protocol-version is 1"));
        }
        if let Some(value) = self.field(row.timeout_field) {
            let timeout = match row.timeout_field {
                "grpc-timeout" => grpc::parse_timeout(value),
                _ => parse_millis(value),
            };
            // Without a deadline the call could outlive its caller's patience, so it is refused
            // instead.
            head.timeout = Some(timeout.ok_or_else(wrong_timeout)?);
        }
        if head.format == Format::Sse
            && let Some(id) = self.last_event_id.filter(|id| !id.is_empty())
        {
            let place = grpc::decode_binary(id)
                .map_err(|_| invalid("last-event-id is none of this gateway's: it is base64"))?;
            extra.resume_after = Some(place);
        }
        Ok(())
    }

    /// The format of a call by POST.
    fn posted_format(&self, route: Route, has_trailers: bool) -> Result<Format, Refusal> {
        let text = self.content_type.unwrap_or_default();
        let format = Format::parse(text).map_err(|problem| wrong_content_type(self.content_type, problem))?;
        if format.needs_trailers() && !has_trailers {
            return Err(unsupported_media(
                "gRPC needs HTTP/2; over HTTP/1.1 send application/grpc-web or application/json".to_owned(),
            ));
        }
        match (route.shape(), format.row().shapes) {
            (Shape::Unary, Shapes::Unary | Shapes::All) | (Shape::Stream, Shapes::Streams | Shapes::All) => {
                Ok(format)
            }
            (Shape::Dialogue, _) if format.is_enveloped() => Ok(format),
            (Shape::Stream, _) if format == Format::ConnectJson => self.asked_format(route, Payload::Json),
            (Shape::Unary, _) => Err(unsupported_media(format!(
                "this method answers once; {} is for those that stream: send {}",
                show(text),
                match format.row().payload {
                    Payload::Json => "application/json",
                    Payload::Proto => "application/proto",
                }
            ))),
            _ => Err(unsupported_media(format!(
                "this method streams, which {} cannot carry; {STREAM_ADVICE}",
                show(text)
            ))),
        }
    }

    /// The format requested by `accept`, for a call without an envelope.
    fn asked_format(&self, route: Route, payload: Payload) -> Result<Format, Refusal> {
        let accept = self.accept.unwrap_or_default();
        match (route.shape(), payload) {
            (Shape::Unary, Payload::Json) => Ok(Format::ConnectJson),
            (Shape::Unary, Payload::Proto) => Ok(Format::ConnectProto),
            (Shape::Stream, Payload::Json) if format::accepts(accept, "text/event-stream") => Ok(Format::Sse),
            (Shape::Stream, Payload::Json) if format::accepts(accept, "application/x-ndjson") => {
                Ok(Format::Ndjson)
            }
            _ => Err(unsupported_media(format!("this method streams; {STREAM_ADVICE}"))),
        }
    }
}

const STREAM_ADVICE: &str = "send application/grpc, application/grpc-web, application/connect+json or \
                             application/connect+proto; or application/json with accept: text/event-stream or \
                             accept: application/x-ndjson";

/// The methods that a path accepts.
fn methods(route: Route) -> &'static str {
    if route.is_page() {
        return PAGE_METHODS;
    }
    let described = route
        .method()
        .and_then(|method| JsonCodec::shared().method(method.spec().path));
    match described {
        Some(method) if method.no_side_effects && method.server_streaming => STREAM_METHODS,
        Some(method) if method.no_side_effects => READ_METHODS,
        _ => CALL_METHODS,
    }
}

fn takes(methods: &str, method: &[u8]) -> bool {
    methods.split(", ").any(|known| known.as_bytes() == method)
}

fn known(encoding: Option<grpc::Encoding>) -> Encoding {
    encoding.map_or(Encoding::Unsupported, Encoding::Known)
}

/// The Connect protocol: at most ten digits.
fn parse_millis(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > 10 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = str::from_utf8(value).ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// Text of the caller, for an error message: quoted, printable, not long.
fn show(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(100).collect();
    format!("{text:?}")
}

fn refusal(http_status: u16, status: Status) -> Refusal {
    Refusal {
        http_status,
        status: Box::new(status),
        field: None,
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    refusal(400, Status::new(Code::InvalidArgument, message))
}

fn wrong_timeout() -> Refusal {
    invalid(
        "the timeout cannot be read: grpc-timeout is 1 to 8 digits and a unit (H, M, S, m, u or n), \
         connect-timeout-ms 1 to 10 digits",
    )
}

fn unknown_path() -> Refusal {
    refusal(
        404,
        Status::new(Code::Unimplemented, "there is no such method or path"),
    )
}

fn wrong_method(allow: &'static str) -> Refusal {
    Refusal {
        field: Some(("allow", allow)),
        ..refusal(
            405,
            Status::new(Code::Unimplemented, format!("this path takes only {allow}")),
        )
    }
}

fn wrong_host(host: &[u8]) -> Refusal {
    let host = show(host);
    let status = Status::new(
        Code::PermissionDenied,
        format!(
            "the request is for host {host}, and this gateway listens on a loopback address, where only loopback names \
             are taken (localhost, 127.0.0.1, [::1]); allow other names with http.allowed_hosts"
        ),
    );
    refusal(403, status.with_reason("HOST_NOT_ALLOWED", &[("host", &host)]))
}

fn foreign_origin(origin: &[u8]) -> Refusal {
    let origin = show(origin);
    let status = Status::new(
        Code::PermissionDenied,
        format!("pages of origin {origin} may not call this gateway; allow them with http.allowed_origins"),
    );
    refusal(
        403,
        status.with_reason("ORIGIN_NOT_ALLOWED", &[("origin", &origin)]),
    )
}

fn unsupported_media(message: String) -> Refusal {
    Refusal {
        field: Some(("accept-post", CALL_CONTENT_TYPES)),
        ..refusal(415, Status::new(Code::Unknown, message))
    }
}

fn wrong_content_type(content_type: Option<&[u8]>, problem: ContentTypeProblem) -> Refusal {
    let what = match (content_type, problem) {
        (None, _) => "the request has no content-type".to_owned(),
        (Some(text), ContentTypeProblem::Charset) => {
            format!("content-type {} is not in UTF-8, as JSON has to be", show(text))
        }
        (Some(text), ContentTypeProblem::Unknown) => format!("content-type {} is not supported", show(text)),
    };
    unsupported_media(format!("{what}; send one of {CALL_CONTENT_TYPES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "/prism.keyvalue.v1.KeyValue/Get";
    const SCAN: &str = "/prism.keyvalue.v1.KeyValue/Scan";

    fn parse(method: &str, path: &str, fields: &[(&str, &str)]) -> (Head, Option<Box<Extra>>) {
        let pseudo = [(":method", method), (":path", path)];
        let fields = pseudo.iter().chain(fields);
        let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Head::from_fields(fields, true, &HttpRules::default())
    }

    fn refused(method: &str, path: &str, fields: &[(&str, &str)]) -> Option<(u16, String)> {
        let (head, extra) = parse(method, path, fields);
        let refusal = extra?.refusal?;
        assert_eq!(head.route, Route::Refused);
        Some((refusal.http_status, refusal.status.message.into_owned()))
    }

    #[test]
    fn content_type_accept_and_method_choose_the_format() {
        let json = ("content-type", "application/json");
        let events = ("accept", "text/event-stream, */*;q=0.1");
        let lines = ("accept", "application/x-ndjson");
        let query = "?encoding=json&message=%7B%7D";
        for (method, path, fields, format) in [
            ("POST", GET.to_owned(), vec![json], Format::ConnectJson),
            ("POST", GET.to_owned(), vec![json, events], Format::ConnectJson),
            ("POST", SCAN.to_owned(), vec![json, events], Format::Sse),
            ("POST", SCAN.to_owned(), vec![json, lines], Format::Ndjson),
            ("GET", format!("{SCAN}{query}"), vec![events], Format::Sse),
            ("GET", format!("{GET}{query}"), vec![], Format::ConnectJson),
            (
                "GET",
                format!("{GET}?encoding=proto&message="),
                vec![],
                Format::ConnectProto,
            ),
            (
                "POST",
                SCAN.to_owned(),
                vec![("content-type", "application/grpc-web")],
                Format::GrpcWeb,
            ),
            ("GET", "/metrics?x=1".to_owned(), vec![json], Format::Plain),
        ] {
            assert_eq!(
                refused(method, &path, &fields),
                None,
                "{method} {path} {fields:?}"
            );
            assert_eq!(
                parse(method, &path, &fields).0.format,
                format,
                "{method} {path} {fields:?}"
            );
        }
        let (_, extra) = parse("GET", &format!("{GET}{query}"), &[]);
        assert_eq!(extra.and_then(|extra| extra.message).as_deref(), Some(&b"{}"[..]));
        let (_, extra) = parse("POST", SCAN, &[json, events, ("last-event-id", "AQI=")]);
        assert_eq!(
            extra.and_then(|extra| extra.resume_after).as_deref(),
            Some(&b"\x01\x02"[..])
        );
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_name() {
        let json = ("content-type", "application/json");
        let grpc = ("content-type", "application/grpc");
        for (method, path, fields, status, word) in [
            ("POST", "/nope", vec![json], 404, "no such"),
            ("GET", "/prism.keyvalue.v1.KeyValue/Put", vec![], 405, "only POST"),
            ("DELETE", SCAN, vec![], 405, "GET, POST"),
            (
                "POST",
                GET,
                vec![("content-type", "text/html")],
                415,
                "\"text/html\"",
            ),
            ("POST", GET, vec![], 415, "no content-type"),
            ("POST", SCAN, vec![json], 415, "text/event-stream"),
            (
                "POST",
                GET,
                vec![("content-type", "application/connect+proto")],
                415,
                "answers once",
            ),
            (
                "POST",
                GET,
                vec![json, ("connect-protocol-version", "2")],
                400,
                "version",
            ),
            (
                "POST",
                GET,
                vec![json, ("connect-timeout-ms", "1s")],
                400,
                "timeout",
            ),
            ("POST", GET, vec![grpc, ("grpc-timeout", "1")], 400, "timeout"),
            ("GET", GET, vec![], 400, "encoding"),
        ] {
            let (found, message) = refused(method, path, &fields).expect(word);
            assert_eq!(found, status, "{method} {path} {fields:?}: {message}");
            assert!(message.contains(word), "{method} {path} {fields:?}: {message}");
        }
        // Fields of Connect alone have no meaning for gRPC.
        assert_eq!(
            refused("POST", GET, &[grpc, ("connect-protocol-version", "2")]),
            None
        );
    }

    #[test]
    fn what_repeats_can_be_remembered_and_nothing_else() {
        let json = ("content-type", "application/json");
        let is_remembered =
            |method: &str, path: &str, fields: &[(&str, &str)]| parse(method, path, fields).1.is_none();
        assert!(is_remembered("POST", GET, &[json]));
        assert!(is_remembered("GET", "/metrics", &[]));
        assert!(!is_remembered(
            "GET",
            &format!("{GET}?encoding=json&message="),
            &[]
        ));
        assert!(!is_remembered("OPTIONS", GET, &[]));
        assert!(!is_remembered("POST", "/nope", &[json]));
    }
}
