//! Framing of a reply's messages, and of its end, for every [`Format`].
//!
//! Appends to the caller's buffer; nothing here can fail. Payloads come as the format wants them
//! (JSON without line feeds, or protobuf), compressed or not.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Ending, Envelope, Format};
use crate::{
    connect::JsonCodec,
    grpc::{Status, encode_message, put_prefix},
};

/// Flag of the message that ends a Connect stream.
const FLAG_END: u8 = 0x02;
/// Flag of the message that holds the trailers of gRPC-Web.
const FLAG_TRAILERS: u8 = 0x80;

/// A comment that keeps an idle stream of [`Format::Sse`] open; clients skip it.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Appends the start of a stream, before its first message: how soon an `EventSource` reconnects.
pub fn put_start(format: Format, out: &mut Vec<u8>) {
    if format.row().envelope == Envelope::Event {
        out.extend_from_slice(b"retry: 1000\n\n");
    }
}

/// Appends one message of a reply. `compressed` is for formats with a prefix; a nonempty `id` names
/// the place after the message in [`Format::Sse`].
pub fn put_message(format: Format, message: &[u8], compressed: bool, id: &[u8], out: &mut Vec<u8>) {
    match format.row().envelope {
        Envelope::Bare => out.extend_from_slice(message),
        Envelope::Prefixed => {
            put_prefix(out, compressed, message.len());
            out.extend_from_slice(message);
        }
        Envelope::PrefixedBase64 => {
            let mut framed = Vec::with_capacity(message.len() + 5);
            put_prefix(&mut framed, compressed, message.len());
            framed.extend_from_slice(message);
            put_base64(&framed, out);
        }
        Envelope::Event => {
            if !id.is_empty() {
                out.extend_from_slice(b"id: ");
                put_base64(id, out);
                out.push(b'\n');
            }
            put_event_data(message, out);
        }
        Envelope::Line => {
            out.extend_from_slice(message);
            out.push(b'\n');
        }
    }
}

/// Appends the end of a reply, as far as it lies in the body; trailers and HTTP statuses are left
/// to the caller.
pub fn put_end(format: Format, result: Result<(), &Status>, json: &JsonCodec, out: &mut Vec<u8>) {
    let error = |before: &[u8], after: &[u8], out: &mut Vec<u8>| {
        if let Err(status) = result {
            out.extend_from_slice(before);
            json.error_json(status, out);
            out.extend_from_slice(after);
        }
    };
    match format.row().ending {
        Ending::Trailers | Ending::HttpStatus => {}
        Ending::TrailersFrame => {
            let mut text = Vec::new();
            for (name, value) in grpc_trailers(result) {
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(b": ");
                text.extend_from_slice(&value);
                text.extend_from_slice(b"\r\n");
            }
            put_flagged(format, FLAG_TRAILERS, &text, out);
        }
        Ending::EndMessage => {
            let mut body = Vec::new();
            error(b"{\"error\":", b"}", &mut body);
            if result.is_ok() {
                body.extend_from_slice(b"{}");
            }
            put_flagged(format, FLAG_END, &body, out);
        }
        Ending::Event => match result {
            Ok(()) => out.extend_from_slice(b"event: end\ndata: {}\n\n"),
            Err(status) => {
                out.extend_from_slice(b"event: error\n");
                let mut body = Vec::new();
                json.error_json(status, &mut body);
                put_event_data(&body, out);
            }
        },
        Ending::Line => error(b"{\"error\":", b"}\n", out),
    }
}

/// The trailers of gRPC at the end of a call: names in lower case, values as in a header.
pub fn grpc_trailers(result: Result<(), &Status>) -> Vec<(&'static str, Vec<u8>)> {
    let Err(status) = result else {
        return vec![("grpc-status", b"0".to_vec())];
    };
    let mut message = Vec::new();
    encode_message(&status.message, &mut message);
    let mut trailers = vec![
        ("grpc-status", status.code.as_u8().to_string().into_bytes()),
        ("grpc-message", message),
    ];
    if let Some(details) = status.details_header() {
        trailers.push(("grpc-status-details-bin", details.into_bytes()));
    }
    trailers
}

/// Decodes the base64 of a gRPC-Web text request: groups of four characters, padding also between
/// messages. `None`: not such a text.
pub fn decode_base64_stream(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        // A piece ends with its padding; the next was encoded by itself.
        let end = rest
            .iter()
            .position(|byte| *byte == b'=')
            .map_or(rest.len(), |padding| (padding / 4 + 1) * 4);
        let piece = rest.get(..end)?;
        STANDARD.decode_vec(piece, &mut decoded).ok()?;
        rest = &rest[end..];
    }
    Some(decoded)
}

fn put_flagged(format: Format, flag: u8, body: &[u8], out: &mut Vec<u8>) {
    let mut framed = Vec::with_capacity(body.len() + 5);
    put_prefix(&mut framed, false, body.len());
    framed[0] = flag;
    framed.extend_from_slice(body);
    match format.row().envelope {
        Envelope::PrefixedBase64 => put_base64(&framed, out),
        _ => out.extend_from_slice(&framed),
    }
}

/// One line holds the JSON, since it has no line feed outside its strings' escapes.
fn put_event_data(json: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!json.contains(&b'\n'), "JSON on one line");
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    debug_assert!(written.is_ok(), "the room is computed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Code;

    fn written(format: Format, result: Result<(), &Status>) -> String {
        let json = JsonCodec::new();
        let mut out = Vec::new();
        put_start(format, &mut out);
        put_message(format, b"{\"a\":1}", false, b"\x01\x02", &mut out);
        put_end(format, result, &json, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn every_envelope_and_every_end() {
        let failed = Status::new(Code::NotFound, "100 % gone");
        let error = r#"{"code":"not_found","message":"100 % gone"}"#;
        let prefixed = "\0\0\0\0\u{7}{\"a\":1}";
        for (format, well, badly) in [
            (Format::Grpc, prefixed.to_owned(), prefixed.to_owned()),
            (
                Format::GrpcWeb,
                format!("{prefixed}\u{fffd}\0\0\0\u{10}grpc-status: 0\r\n"),
                format!("{prefixed}\u{fffd}\0\0\0\u{2c}grpc-status: 5\r\ngrpc-message: 100 %25 gone\r\n"),
            ),
            (
                Format::ConnectJson,
                "{\"a\":1}".to_owned(),
                "{\"a\":1}".to_owned(),
            ),
            (
                Format::ConnectStreamJson,
                format!("{prefixed}\u{2}\0\0\0\u{2}{{}}"),
                format!("{prefixed}\u{2}\0\0\0\u{35}{{\"error\":{error}}}"),
            ),
            (
                Format::Sse,
                "retry: 1000\n\nid: AQI=\ndata: {\"a\":1}\n\nevent: end\ndata: {}\n\n".to_owned(),
                format!("retry: 1000\n\nid: AQI=\ndata: {{\"a\":1}}\n\nevent: error\ndata: {error}\n\n"),
            ),
            (
                Format::Ndjson,
                "{\"a\":1}\n".to_owned(),
                format!("{{\"a\":1}}\n{{\"error\":{error}}}\n"),
            ),
        ] {
            assert_eq!(written(format, Ok(())), well, "{format:?}");
            assert_eq!(written(format, Err(&failed)), badly, "{format:?}");
        }
        let text = written(Format::GrpcWebText, Ok(()));
        let decoded = decode_base64_stream(text.as_bytes()).expect("what we write is base64");
        assert_eq!(
            String::from_utf8_lossy(&decoded),
            format!("{prefixed}\u{fffd}\0\0\0\u{10}grpc-status: 0\r\n")
        );
    }

    #[test]
    fn base64_with_padding_anywhere_and_nothing_else() {
        assert_eq!(decode_base64_stream(b"").as_deref(), Some(&b""[..]));
        assert_eq!(
            decode_base64_stream(b"YQ==YmM=ZGVm").as_deref(),
            Some(&b"abcdef"[..])
        );
        for bad in [
            &b"YQ"[..],
            b"YQ=",
            b"YQ==Y",
            b"=",
            b"Y===",
            b"YQ=a",
            b"\xff\xff\xff\xff",
        ] {
            assert_eq!(decode_base64_stream(bad), None, "{bad:?}");
        }
    }
}
