//! Formats of a call's messages, one row of a table each: gRPC, gRPC-Web, Connect, server-sent
//! events, newline-delimited JSON.
//!
//! Promises that everything a protocol decides stands in its [`Row`]: content type, payload,
//! envelope, and how a reply ends. So a streaming method has every format without code of its own.
//! Leaves the transport (frames of HTTP/2, chunks of HTTP/1.1) and the methods to the caller.
//!
//! ```text
//! request: content-type, accept ──► Format ──► Row { payload, envelope, … } ──► unwrap the message
//! reply:   put_start   put_message*   put_end          (whole replies: put_message, put_end)
//! ```

mod accept;
mod envelope;
mod query;

pub use accept::{accepts, preferred_encoding};
pub use envelope::{KEEP_ALIVE, decode_base64_stream, grpc_trailers, put_end, put_message, put_start};
pub use query::{GetCall, parse_query};

/// A format of requests and replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Format {
    /// gRPC over HTTP/2 with protobuf.
    Grpc,
    /// gRPC over HTTP/2 with JSON.
    GrpcJson,
    /// gRPC-Web with protobuf.
    GrpcWeb,
    /// gRPC-Web with JSON.
    GrpcWebJson,
    /// gRPC-Web in base64, for browsers that cannot stream bytes.
    GrpcWebText,
    /// Connect, one message each way, protobuf.
    ConnectProto,
    /// Connect, one message each way, JSON.
    ConnectJson,
    /// Connect streaming with protobuf.
    ConnectStreamProto,
    /// Connect streaming with JSON.
    ConnectStreamJson,
    /// A JSON request, answered with server-sent events.
    Sse,
    /// A JSON request, answered with a line of JSON for each message.
    Ndjson,
    /// Plain HTTP, not a call.
    Plain,
}

/// Encoding of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Protobuf's binary form.
    Proto,
    /// Protobuf's JSON form.
    Json,
}

/// Framing of each message of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Envelope {
    /// Nothing: the body is the message.
    Bare,
    /// The five bytes of gRPC: a flag and the length.
    Prefixed,
    /// Like [`Envelope::Prefixed`], all of it in base64.
    PrefixedBase64,
    /// A `data:` line and an empty one, with an `id:` line where the stream can be resumed.
    Event,
    /// The message, then a line feed.
    Line,
}

/// The form in which a reply ends, or reports an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// HTTP trailers with `grpc-status`.
    Trailers,
    /// A last message in the body with flag 0x80 that holds the trailers (gRPC-Web).
    TrailersFrame,
    /// A last message with flag 0x02 that holds JSON (Connect streaming).
    EndMessage,
    /// An event named `end` or `error`.
    Event,
    /// The end of the body; an error is a line `{"error":…}`, or the HTTP status where nothing was
    /// sent before.
    Line,
    /// The HTTP status, and for errors a JSON body.
    HttpStatus,
}

/// The methods that a format can carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shapes {
    /// One request, one reply.
    Unary,
    /// A stream of replies.
    Streams,
    /// Both.
    All,
}

/// Everything that a format decides.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The format of this row.
    pub format: Format,
    /// The `content-type` of replies, and of requests except for [`Format::Sse`] and
    /// [`Format::Ndjson`].
    pub content_type: &'static str,
    /// Another `content-type` of requests that means the same; empty if there is none.
    pub alias: &'static str,
    /// Encoding of request and reply.
    pub payload: Payload,
    /// Framing of the reply's messages, and of the request's except for [`Format::Sse`] and
    /// [`Format::Ndjson`].
    pub envelope: Envelope,
    /// Ending of the reply.
    pub ending: Ending,
    /// Methods that the format can carry.
    pub shapes: Shapes,
    /// The field that names the compression of the request, and of a compressed reply.
    pub encoding_field: &'static str,
    /// The field of a request that lists compressions of the reply. Empty: replies are never
    /// compressed.
    pub accept_field: &'static str,
    /// The field that holds the caller's time limit.
    pub timeout_field: &'static str,
}

const GRPC: Row = Row {
    format: Format::Grpc,
    content_type: "application/grpc",
    alias: "application/grpc+proto",
    payload: Payload::Proto,
    envelope: Envelope::Prefixed,
    ending: Ending::Trailers,
    shapes: Shapes::All,
    encoding_field: "grpc-encoding",
    accept_field: "grpc-accept-encoding",
    timeout_field: "grpc-timeout",
};

const GRPC_WEB: Row = Row {
    format: Format::GrpcWeb,
    content_type: "application/grpc-web+proto",
    alias: "application/grpc-web",
    ending: Ending::TrailersFrame,
    ..GRPC
};

const CONNECT: Row = Row {
    format: Format::ConnectProto,
    content_type: "application/proto",
    alias: "",
    payload: Payload::Proto,
    envelope: Envelope::Bare,
    ending: Ending::HttpStatus,
    shapes: Shapes::Unary,
    encoding_field: "content-encoding",
    accept_field: "accept-encoding",
    timeout_field: "connect-timeout-ms",
};

const CONNECT_STREAM: Row = Row {
    format: Format::ConnectStreamProto,
    content_type: "application/connect+proto",
    envelope: Envelope::Prefixed,
    ending: Ending::EndMessage,
    shapes: Shapes::Streams,
    encoding_field: "connect-content-encoding",
    accept_field: "connect-accept-encoding",
    ..CONNECT
};

/// All formats, in the order of their discriminants.
pub const ROWS: [Row; 12] = [
    GRPC,
    Row {
        format: Format::GrpcJson,
        content_type: "application/grpc+json",
        alias: "",
        payload: Payload::Json,
        ..GRPC
    },
    GRPC_WEB,
    Row {
        format: Format::GrpcWebJson,
        content_type: "application/grpc-web+json",
        alias: "",
        payload: Payload::Json,
        ..GRPC_WEB
    },
    Row {
        format: Format::GrpcWebText,
        content_type: "application/grpc-web-text+proto",
        alias: "application/grpc-web-text",
        envelope: Envelope::PrefixedBase64,
        ..GRPC_WEB
    },
    CONNECT,
    Row {
        format: Format::ConnectJson,
        content_type: "application/json",
        payload: Payload::Json,
        ..CONNECT
    },
    CONNECT_STREAM,
    Row {
        format: Format::ConnectStreamJson,
        content_type: "application/connect+json",
        payload: Payload::Json,
        ..CONNECT_STREAM
    },
    Row {
        format: Format::Sse,
        content_type: "text/event-stream",
        payload: Payload::Json,
        envelope: Envelope::Event,
        ending: Ending::Event,
        shapes: Shapes::Streams,
        accept_field: "",
        ..CONNECT
    },
    Row {
        format: Format::Ndjson,
        content_type: "application/x-ndjson",
        payload: Payload::Json,
        envelope: Envelope::Line,
        ending: Ending::Line,
        shapes: Shapes::Streams,
        accept_field: "",
        ..CONNECT
    },
    Row {
        format: Format::Plain,
        content_type: "text/plain; charset=utf-8",
        payload: Payload::Json,
        timeout_field: "",
        encoding_field: "content-encoding",
        ..CONNECT
    },
];

const _: () = {
    let mut index = 0;
    while index < ROWS.len() {
        assert!(
            ROWS[index].format as usize == index,
            "rows stand in the order of their formats"
        );
        index += 1;
    }
};

/// Content types that calls may be sent with, for an `accept-post` field and for error messages.
pub const CALL_CONTENT_TYPES: &str = "application/json, application/proto, application/grpc, application/grpc-web, \
                                      application/grpc-web-text, application/connect+json, application/connect+proto";

/// The reason why no call can have this `content-type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentTypeProblem {
    /// Not one of [`CALL_CONTENT_TYPES`].
    Unknown,
    /// JSON in a character encoding other than UTF-8.
    Charset,
}

impl Format {
    /// The row of this format.
    #[inline]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The format of a request with this `content-type`. [`Format::Sse`] and [`Format::Ndjson`] are
    /// requested by `accept`; their requests are [`Format::ConnectJson`].
    ///
    /// # Errors
    /// The content type is unknown, or has a charset that JSON cannot have.
    pub fn parse(content_type: &[u8]) -> Result<Format, ContentTypeProblem> {
        let mut parts = content_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let essence = parts.next().unwrap_or_default();
        let is_named = |name: &str| !name.is_empty() && essence.eq_ignore_ascii_case(name.as_bytes());
        let row = ROWS
            .iter()
            .find(|row| {
                !matches!(row.format, Format::Sse | Format::Ndjson | Format::Plain)
                    && (is_named(row.content_type) || is_named(row.alias))
            })
            .ok_or(ContentTypeProblem::Unknown)?;
        if row.payload == Payload::Json && parts.any(is_foreign_charset) {
            return Err(ContentTypeProblem::Charset);
        }
        Ok(row.format)
    }

    /// Whether each message of a request has a prefix of five bytes.
    #[inline]
    pub fn is_enveloped(self) -> bool {
        matches!(self.row().envelope, Envelope::Prefixed | Envelope::PrefixedBase64)
    }

    /// Whether HTTP trailers carry the status, which needs HTTP/2.
    #[inline]
    pub fn needs_trailers(self) -> bool {
        matches!(self, Format::Grpc | Format::GrpcJson)
    }
}

fn is_foreign_charset(parameter: &[u8]) -> bool {
    match parameter.split_at_checked(8) {
        Some((name, value)) if name.eq_ignore_ascii_case(b"charset=") => {
            let value = value.trim_ascii();
            !value.eq_ignore_ascii_case(b"utf-8") && !value.eq_ignore_ascii_case(b"\"utf-8\"")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_and_their_aliases_are_told_apart() {
        for (text, format) in [
            ("application/grpc", Format::Grpc),
            ("application/grpc+proto; x=y", Format::Grpc),
            ("application/grpc+json", Format::GrpcJson),
            ("application/grpc-web", Format::GrpcWeb),
            ("Application/GRPC-Web+Proto", Format::GrpcWeb),
            ("application/grpc-web+json", Format::GrpcWebJson),
            ("application/grpc-web-text", Format::GrpcWebText),
            ("application/grpc-web-text+proto", Format::GrpcWebText),
            ("application/proto", Format::ConnectProto),
            ("application/json; charset=UTF-8", Format::ConnectJson),
            ("application/json;charset=\"utf-8\"", Format::ConnectJson),
            ("application/connect+proto", Format::ConnectStreamProto),
            ("application/connect+json", Format::ConnectStreamJson),
        ] {
            assert_eq!(Format::parse(text.as_bytes()), Ok(format), "{text}");
        }
        for text in [
            "",
            "text/plain",
            "text/event-stream",
            "application/grpcx",
            "application/grpc+thrift",
            "application/x-ndjson",
        ] {
            assert_eq!(
                Format::parse(text.as_bytes()),
                Err(ContentTypeProblem::Unknown),
                "{text}"
            );
        }
        let latin = Format::parse(b"application/json; charset=latin1");
        assert_eq!(latin, Err(ContentTypeProblem::Charset));
    }
}
