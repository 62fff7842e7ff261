//! HTTP/1.1 and Connect JSON: results do not depend on the cuts, memory is bounded, and accepted
//! input survives a round trip.

use prism_codec::connect::JsonCodec;
use prism_codec::format;
use prism_codec::http1::{Connection, Event};
use prism_codec::limits::HTTP1_HEAD_BYTES_MAX;
use std::sync::OnceLock;

use super::pieces;

const BODY_MAX: usize = 4 << 10;

/// Input: a byte that seeds the cuts, then the bytes of one connection.
pub fn http1(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else {
        return;
    };
    let whole = read([stream].into_iter());
    assert_eq!(
        whole,
        read(pieces(stream, cut)),
        "how the stream is cut does not matter"
    );
}

/// Contents of a connection that arrives in these pieces: requests, joined bodies, and the error
/// that ended it.
fn read<'a>(stream: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut connection = Connection::new(BODY_MAX);
    let (mut said, mut body, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for piece in stream {
        kept.extend_from_slice(piece);
        let mut input = &kept[..];
        loop {
            match connection.poll_event(&mut input) {
                Ok(Some(Event::Head(head))) => {
                    let headers: Vec<_> = head.headers.iter().collect();
                    said.push(format!(
                        "{} {} {:?} {headers:?}",
                        head.method, head.target, head.version
                    ));
                    assert!(head.target.contains(head.path()) && head.target.contains(head.query()));
                }
                Ok(Some(Event::Body(bytes))) => {
                    assert!(!bytes.is_empty());
                    body.extend_from_slice(bytes);
                    assert!(body.len() <= BODY_MAX);
                }
                Ok(Some(Event::End)) => said.push(format!("end of {:?}", std::mem::take(&mut body))),
                Ok(None) => break,
                Err(error) => {
                    assert!((400..600).contains(&error.status) && !connection.keep_alive());
                    said.push(format!("{} after {body:?}", error.status));
                    return said;
                }
            }
        }
        let left = input.len();
        kept.drain(..kept.len() - left);
        assert!(left <= 2 * HTTP1_HEAD_BYTES_MAX, "{left} bytes without progress");
    }
    said.push(format!("open after {body:?}"));
    said
}

/// Input: a byte that chooses the method, then JSON. Accepted JSON gives protobuf that gives JSON
/// that gives the same protobuf; the bytes taken as protobuf give JSON or an error.
pub fn connect_json(input: &[u8]) {
    static CODEC: OnceLock<JsonCodec> = OnceLock::new();
    let codec = CODEC.get_or_init(JsonCodec::new);
    let Some((&choice, json)) = input.split_first() else {
        return;
    };
    let mut methods: Vec<_> = codec.methods().collect();
    methods.sort_by(|a, b| a.path.cmp(&b.path));
    let method = methods[usize::from(choice) % methods.len()];

    let mut message = b"kept".to_vec();
    if codec.request_to_proto(method, json, &mut message).is_err() {
        assert_eq!(message, b"kept", "an error leaves the buffer as it was");
    } else {
        let (mut canonical, mut again) = (Vec::new(), Vec::new());
        codec
            .request_to_json(method, &message[4..], &mut canonical)
            .expect("a request that we made");
        codec
            .request_to_proto(method, &canonical, &mut again)
            .expect("JSON that we made");
        assert_eq!(again, message[4..], "{}", String::from_utf8_lossy(&canonical));
    }
    let mut text = Vec::new();
    let _ = codec.response_to_json(method, json, &mut text);
    request_fields(json);
}

/// Other textual parts of a request: the query of a call by GET, the base64 body of gRPC-Web, the
/// lists of accepted encodings and media types, and the content type.
fn request_fields(text: &[u8]) {
    if let Ok(call) = format::parse_query(text) {
        assert!(call.message.len() <= text.len(), "decoding makes nothing longer");
    }
    if let Some(decoded) = format::decode_base64_stream(text) {
        assert!(decoded.len() <= text.len() / 4 * 3);
    }
    let _ = (
        format::preferred_encoding(text),
        format::accepts(text, "text/event-stream"),
    );
    let _ = format::Format::parse(text);
}
