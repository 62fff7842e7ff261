//! The query of a call by GET (Connect protocol, "Unary-Get-Request"), or of a stream of
//! server-sent events.
//!
//! Promises one reading of each query: repeated parameters are refused, unknown ones are ignored.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::Payload;
use crate::grpc::{Code, Encoding, Status};

/// A call by GET, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GetCall {
    /// Encoding of the message and of the reply.
    pub payload: Payload,
    /// Compression of the message. `None`: an unsupported one.
    pub encoding: Option<Encoding>,
    /// The request message, in the encoding `payload` and the compression `encoding`.
    pub message: Vec<u8>,
}

/// Reads the query, without its `?`.
///
/// # Errors
/// `InvalidArgument` with a sentence that names the parameter and what it may be.
pub fn parse_query(query: &[u8]) -> Result<GetCall, Status> {
    let mut parameters = Parameters::default();
    for pair in query.split(|byte| *byte == b'&') {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &[][..]),
        };
        let Some(place) = parameters.place(name) else {
            continue;
        };
        let value = percent_decode(value)
            .ok_or_else(|| refused("a query parameter has a % that two hexadecimal digits do not follow"))?;
        if place.replace(value).is_some() {
            return Err(refused(
                "each of connect, encoding, base64, compression and message may stand once in the query",
            ));
        }
    }
    parameters.interpret()
}

#[derive(Default)]
struct Parameters {
    connect: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
    base64: Option<Vec<u8>>,
    compression: Option<Vec<u8>>,
    message: Option<Vec<u8>>,
}

impl Parameters {
    fn place(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        match name {
            b"connect" => Some(&mut self.connect),
            b"encoding" => Some(&mut self.encoding),
            b"base64" => Some(&mut self.base64),
            b"compression" => Some(&mut self.compression),
            b"message" => Some(&mut self.message),
            _ => None,
        }
    }

    fn interpret(self) -> Result<GetCall, Status> {
        if self.connect.is_some_and(|version| version != b"v1") {
            return Err(refused(
                "the query's connect may only be v1, the one version there is",
            ));
        }
        let payload = match self.encoding.as_deref() {
            Some(b"json") => Payload::Json,
            Some(b"proto") => Payload::Proto,
            _ => {
                return Err(refused(
                    "a call by GET needs encoding=json or encoding=proto in its query",
                ));
            }
        };
        let Some(message) = self.message else {
            return Err(refused(
                "a call by GET needs the request in its query: message=, empty for an empty request",
            ));
        };
        let message = match self.base64.as_deref() {
            Some(b"1") => decode_base64(message)
                .ok_or_else(|| refused("the query's message is not base64 (URL-safe, padding optional)"))?,
            None | Some(b"" | b"0") => message,
            Some(_) => return Err(refused("the query's base64 may only be 1")),
        };
        let encoding = match self.compression.as_deref() {
            None | Some(b"") => Some(Encoding::Identity),
            Some(name) => Encoding::parse(name),
        };
        Ok(GetCall {
            payload,
            encoding,
            message,
        })
    }
}

fn refused(message: &'static str) -> Status {
    Status::new(Code::InvalidArgument, message)
}

/// Decodes a percent-encoded text; `+` is a space, as in forms.
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let [high, low, after @ ..] = after else {
                    return None;
                };
                let digit = |byte: u8| char::from(byte).to_digit(16);
                decoded.push((digit(*high)? << 4 | digit(*low)?) as u8);
                rest = after;
            }
            b'+' => decoded.push(b' '),
            byte => decoded.push(*byte),
        }
    }
    Some(decoded)
}

/// Decodes URL-safe or standard base64, with or without padding.
fn decode_base64(mut text: Vec<u8>) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    for byte in &mut text {
        match byte {
            // A plus that was not escaped has been read as a space.
            b'+' | b' ' => *byte = b'-',
            b'/' => *byte = b'_',
            _ => {}
        }
    }
    LENIENT.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(query: &str) -> Result<Vec<u8>, String> {
        parse_query(query.as_bytes())
            .map(|call| call.message)
            .map_err(|status| status.message.into_owned())
    }

    #[test]
    fn messages_in_every_writing() {
        let json = r#"{"namespace":"a b+c"}"#.as_bytes();
        for query in [
            "connect=v1&encoding=json&message=%7B%22namespace%22%3A%22a%20b%2Bc%22%7D",
            "encoding=json&message={\"namespace\":\"a+b%2bc\"}&unknown=%zz",
            "base64=1&encoding=json&message=eyJuYW1lc3BhY2UiOiJhIGIrYyJ9",
        ] {
            assert_eq!(message(query).as_deref(), Ok(json), "{query}");
        }
        for query in [
            "encoding=proto&base64=1&message=-_8",
            "encoding=proto&base64=1&message=%2B%2F8%3D",
            "encoding=proto&base64=1&message=+/8=",
            "encoding=proto&message=%fb%FF",
        ] {
            assert_eq!(message(query).as_deref(), Ok(&b"\xfb\xff"[..]), "{query}");
        }
        let call = parse_query(b"encoding=proto&compression=gzip&message=").expect("legal");
        assert_eq!(
            (call.payload, call.encoding),
            (Payload::Proto, Some(Encoding::Gzip))
        );
        let call = parse_query(b"encoding=proto&compression=lzma&message=").expect("told later");
        assert_eq!(call.encoding, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, word) in [
            ("", "encoding"),
            ("encoding=xml&message=", "encoding=json"),
            ("encoding=json", "message="),
            ("encoding=json&message=&message=", "once"),
            ("encoding=json&message=%7", "hexadecimal"),
            ("encoding=json&message=%zz", "hexadecimal"),
            ("encoding=json&base64=1&message=%21", "base64"),
            ("encoding=json&base64=yes&message=", "base64"),
            ("connect=v2&encoding=json&message=", "v1"),
        ] {
            let refused = message(query).expect_err(query);
            assert!(refused.contains(word), "{query}: {refused}");
        }
    }
}
