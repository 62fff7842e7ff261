//! `--token` and `--token-time`: what makes a write safe to send again.

use clap::Args;
use prism_codec::proto::prism::common::v1::IdempotencyToken;
use prost_types::Timestamp;

use super::{Bytes, parse_bytes};

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenArgs {
    /// Idempotency token of the write, 1 to 64 bytes: sent again with the same token, it has one
    /// effect
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    token: Option<Bytes>,
    /// When the token was made, in seconds since 1970 as `date +%s.%N` prints them. Give a repeat
    /// the same time: without one, a repeat is only known for as long as the gateway remembers
    /// calls, which it does at strong
    #[arg(long, value_name = "SECONDS", value_parser = time, requires = "token")]
    token_time: Option<Timestamp>,
}

impl TokenArgs {
    /// The token for the request, where the user gave one.
    pub(in crate::cli) fn message(&self) -> Option<IdempotencyToken> {
        let Bytes(token) = self.token.clone()?;
        Some(IdempotencyToken {
            generation_time: self.token_time,
            token,
        })
    }
}

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 64;

fn token(text: &str) -> Result<Bytes, String> {
    let token = parse_bytes(text)?;
    match token.len() {
        1..=TOKEN_BYTES_MAX => Ok(Bytes(token)),
        length => Err(format!(
            "a token has 1 to {TOKEN_BYTES_MAX} bytes, this one {length}"
        )),
    }
}

/// Seconds with up to nine decimals, exactly.
pub(in crate::cli) fn time(text: &str) -> Result<Timestamp, String> {
    let refuse = || "write seconds since 1970, such as 1764321234.123456789 (date +%s.%N)".to_owned();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return Err(refuse());
    }
    let nanos = format!("{fraction:0<9}").parse().map_err(|_| refuse())?;
    let seconds = seconds
        .parse()
        .ok()
        .filter(|seconds| *seconds <= SECONDS_MAX)
        .ok_or_else(refuse)?;
    Ok(Timestamp { seconds, nanos })
}

/// The last second of the year 9999, the latest that a timestamp can hold.
const SECONDS_MAX: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_tokens() {
        let read = |text| time(text).map(|time| (time.seconds, time.nanos));
        assert_eq!(read("1764321234"), Ok((1_764_321_234, 0)));
        assert_eq!(read("1764321234.5"), Ok((1_764_321_234, 500_000_000)));
        assert_eq!(read("0.000000001"), Ok((0, 1)));
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1e3",
            "now",
            "1.0000000001",
            "253402300800",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(token("").is_err() && token(&"x".repeat(65)).is_err());
        assert_eq!(token("base64:/wA=").map(|token| token.0), Ok(vec![0xFF, 0]));
    }
}
