//! The `accept` fields of a request (RFC 9110, 12.5), which list what the caller can read.

use crate::grpc::Encoding;

/// Whether an `accept` field names this media type itself, not by a wildcard and not with a weight
/// of 0.
pub fn accepts(field: &[u8], media_type: &str) -> bool {
    entries(field).any(|(name, weight)| weight > 0 && name.eq_ignore_ascii_case(media_type.as_bytes()))
}

/// The compression of the reply to a request with this `accept-encoding`, `grpc-accept-encoding` or
/// `connect-accept-encoding`: the one with the greatest weight of those that we write, zstd before
/// gzip.
pub fn preferred_encoding(field: &[u8]) -> Encoding {
    let mut best = (0, Encoding::Identity);
    for (name, weight) in entries(field) {
        let encoding = if name.eq_ignore_ascii_case(b"zstd") {
            Encoding::Zstd
        } else if name.eq_ignore_ascii_case(b"gzip") {
            Encoding::Gzip
        } else {
            continue;
        };
        if weight > best.0 || (weight == best.0 && weight > 0 && encoding == Encoding::Zstd) {
            best = (weight, encoding);
        }
    }
    best.1
}

/// Names with their weights in thousandths; a weight that cannot be read counts as 1.
fn entries(field: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    field.split(|byte| *byte == b',').map(|entry| {
        let mut parts = entry.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        (name, weight.map_or(1_000, thousandths))
    })
}

/// `0`, `0.5`, `1.000`, as thousandths.
fn thousandths(weight: &[u8]) -> u32 {
    let (whole, fraction) = match weight {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return 1_000,
    };
    let mut value = u32::from(whole - b'0');
    for place in 0..3 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return 1_000;
        }
        value = value * 10 + u32::from(digit - b'0');
    }
    value.min(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_weight_wins_and_zero_refuses() {
        for (field, encoding) in [
            ("", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("identity, deflate, gzip", Encoding::Gzip),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("zstd;q=0.5, gzip", Encoding::Gzip),
            ("gzip;q=0, br", Encoding::Identity),
            ("gzip; q=0.000", Encoding::Identity),
            ("GZIP;q=0.001", Encoding::Gzip),
            ("gzip;q=nonsense", Encoding::Gzip),
            ("*", Encoding::Identity),
        ] {
            assert_eq!(preferred_encoding(field.as_bytes()), encoding, "{field}");
        }
    }

    #[test]
    fn media_types_are_named_and_not_guessed() {
        let stream = "text/event-stream";
        assert!(accepts(b"text/event-stream", stream));
        assert!(accepts(b"application/json, Text/Event-Stream; q=0.1", stream));
        assert!(!accepts(b"text/event-stream;q=0", stream));
        assert!(!accepts(b"*/*", stream));
        assert!(!accepts(b"text/*", stream));
        assert!(!accepts(b"", stream));
    }
}
