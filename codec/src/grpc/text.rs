//! Text forms of gRPC's headers: timeouts, percent-encoded messages, binary metadata, content
//! types.
//!
//! Promises the grammar of "PROTOCOL-HTTP2", lenient only where that page demands it.

use std::{fmt, time::Duration};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// The content type of our requests and responses.
pub const CONTENT_TYPE: &str = "application/grpc";

/// Whether a request with this `content-type` is gRPC with protobuf messages: `application/grpc` or
/// `application/grpc+proto`, with any parameters. Everything else is answered with HTTP 415.
pub fn is_content_type(value: &[u8]) -> bool {
    let essence = value
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    essence.eq_ignore_ascii_case(b"application/grpc")
        || essence.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// Parses `grpc-timeout`: 1 to 8 digits and a unit (`H`, `M`, `S`, `m`, `u`, `n`). `None` when
/// malformed.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Some(match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The value of a `grpc-timeout` header, on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TimeoutText {
    text: [u8; 9],
    length: u8,
}

impl TimeoutText {
    /// The header's value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

impl fmt::Debug for TimeoutText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Writes a timeout in the finest unit that 8 digits allow, rounded up and capped at about 11,000
/// years.
pub fn format_timeout(timeout: Duration) -> TimeoutText {
    const UNITS: [(u128, u8); 6] = [
        (1, b'n'),
        (1_000, b'u'),
        (1_000_000, b'm'),
        (1_000_000_000, b'S'),
        (60_000_000_000, b'M'),
        (3_600_000_000_000, b'H'),
    ];
    const NUMBER_MAX: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let fitting = UNITS
        .iter()
        .find(|(unit_nanos, _)| nanos.div_ceil(*unit_nanos) <= NUMBER_MAX);
    let (number, unit) = match fitting {
        Some((unit_nanos, unit)) => (nanos.div_ceil(*unit_nanos) as u32, *unit),
        None => (NUMBER_MAX as u32, b'H'),
    };
    let mut text = [0; 9];
    let mut length = 1;
    let mut rest = number / 10;
    while rest > 0 {
        length += 1;
        rest /= 10;
    }
    let mut rest = number;
    for position in (0..length).rev() {
        text[position] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    text[length] = unit;
    TimeoutText {
        text,
        length: length as u8 + 1,
    }
}

/// Appends a `grpc-message`: percent-encoded UTF-8, so that any text is a legal header value.
pub fn encode_message(message: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in message.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

/// Reads a `grpc-message`. As the specification demands, invalid escapes stay as they are; bytes
/// that are not UTF-8 are replaced.
pub fn decode_message(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        if *first == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            bytes.push(high << 4 | low);
            rest = after;
            continue;
        }
        bytes.push(*first);
        rest = tail;
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// The value of a `-bin` header: base64 without padding.
pub fn encode_binary(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads the value of a `-bin` header, padded or not.
pub fn decode_binary(value: &[u8]) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(value)
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_in_every_unit() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0n", Duration::ZERO),
            ("00000001S", Duration::from_secs(1)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), Some(expected), "{text}");
        }
        for bad in [
            "",
            "S",
            "1",
            "1s",
            "123456789S",
            "-1S",
            "+1S",
            " 1S",
            "1 S",
            "1.5S",
            "1SS",
            "éS",
        ] {
            assert_eq!(parse_timeout(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn formatted_timeouts_parse_to_at_least_the_same() {
        for shift in 0..100 {
            for offset in [-1i128, 0, 1] {
                let nanos = ((1i128 << shift) + offset).max(0) as u128;
                let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
                let timeout = Duration::new(seconds, (nanos % 1_000_000_000) as u32);
                let text = format_timeout(timeout);
                let parsed = parse_timeout(text.as_bytes()).expect("own text");
                if seconds <= 99_999_999 * 3_600 {
                    assert!(parsed >= timeout, "{timeout:?} as {text:?}");
                    assert!(
                        (parsed - timeout).as_secs_f64() <= timeout.as_secs_f64() * 1e-5 + 1e-9,
                        "{timeout:?}"
                    );
                } else {
                    assert_eq!(text.as_bytes(), b"99999999H");
                }
            }
        }
    }

    #[test]
    fn messages_survive_percent_encoding() {
        let mut out = Vec::new();
        encode_message("100% ä\r\n\u{7f}~ ", &mut out);
        assert_eq!(out, b"100%25 %C3%A4%0D%0A%7F~ ");
        assert_eq!(decode_message(&out), "100% ä\r\n\u{7f}~ ");
        for (value, text) in [
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("a%20b", "a b"),
            ("%e2%82%ac", "€"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode_message(value.as_bytes()), text);
        }
    }

    #[test]
    fn binary_metadata_with_and_without_padding() {
        assert_eq!(encode_binary(&[1]), "AQ");
        for value in ["AQ", "AQ=="] {
            assert_eq!(decode_binary(value.as_bytes()), Ok(vec![1]));
        }
        assert!(decode_binary(b"A").is_err() && decode_binary(b"A-__").is_err());
    }

    #[test]
    fn content_types() {
        for good in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC; charset=utf-8",
            "application/grpc;v=1",
        ] {
            assert!(is_content_type(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "application/grpc+json",
            "application/grpc-web",
            "application/json",
            "text/html",
            "application/grpcx",
        ] {
            assert!(!is_content_type(bad.as_bytes()), "{bad}");
        }
    }
}
