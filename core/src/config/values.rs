//! Values of keys: how their texts are parsed, and the sentences if they cannot be.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr as _;
use std::time::Duration;

use prism_backends::kind::StoreKind;

use super::stores;
use crate::namespace::problem::{Problem, did_you_mean};
use crate::namespace::units::{
    DURATION_ALLOWED, SIZE_ALLOWED, format_duration, format_size, parse_duration, parse_size,
};

/// Parses an address with a port, or a name with a port whose address the system knows.
///
/// Of several addresses the first IPv4 one counts: `localhost` has both, and clients use 127.0.0.1.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Problem> {
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(address);
    }
    let named = text
        .rsplit_once(':')
        .filter(|(host, port)| is_host_name(host) && port.parse::<u16>().is_ok());
    let Some((host, _)) = named else {
        let what = format!(
            "{text:?} is not an address with a port; allowed: 127.0.0.1:8980, [::1]:8980, localhost:8980 and the like"
        );
        return Err(Problem::new("", 0, what).suggest(listen_suggestion(text)));
    };
    let fail = |why: String| {
        Err(Problem::new(
            "",
            0,
            format!("{host:?} has no address here: {why}"),
        ))
    };
    match text.to_socket_addrs() {
        Ok(addresses) => {
            let mut addresses: Vec<_> = addresses.collect();
            addresses.sort_by_key(SocketAddr::is_ipv6);
            addresses
                .first()
                .copied()
                .map_or_else(|| fail("the system knows none".to_owned()), Ok)
        }
        Err(error) => fail(error.to_string()),
    }
}

/// Letters, digits, hyphens and dots, as in host names; at least one letter, so that no address is
/// one.
fn is_host_name(host: &str) -> bool {
    host.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The address with a port of which one half was given.
fn listen_suggestion(text: &str) -> String {
    let port = text.strip_prefix(':').unwrap_or(text);
    if port.parse::<u16>().is_ok() {
        return format!("write \"127.0.0.1:{port}\"");
    }
    let (address, shown) = match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address @ IpAddr::V4(_)) => (address, format!("{address}:8980")),
        Ok(address @ IpAddr::V6(_)) => (address, format!("[{address}]:8980")),
        Err(_) if is_host_name(text) => return format!("write \"{text}:8980\""),
        Err(_) => return String::new(),
    };
    let consent = if address.is_loopback() {
        ""
    } else {
        " and add --insecure-listen if the network itself is trusted"
    };
    format!("write \"{shown}\"{consent}")
}

/// Entries with commas between them.
pub(super) fn list(text: &str, check: fn(&str) -> Result<(), Problem>) -> Result<Vec<String>, Problem> {
    let entries: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect();
    entries.iter().try_for_each(|entry| check(entry))?;
    Ok(entries)
}

pub(super) fn host(text: &str) -> Result<(), Problem> {
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if text.bytes().all(legal) {
        return Ok(());
    }
    let what =
        format!("{text:?} is not the name of a host; allowed: names such as prism.internal, without scheme");
    Err(Problem::new("", 0, what))
}

pub(super) fn origin(text: &str) -> Result<(), Problem> {
    if text == "*" {
        return Ok(());
    }
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(authority) if !authority.is_empty() && !authority.contains(['/', '?', '#', '*', ' ', '@']) => {
            Ok(())
        }
        _ => {
            let what = format!(
                "{text:?} is not an origin; allowed: scheme, host and port as a browser sends them, without a path: \
                 https://app.example or http://localhost:5173"
            );
            let suggestion = match rest.and_then(|rest| rest.split_once('/')) {
                Some((authority, _)) if !authority.is_empty() => {
                    let scheme = text.split("://").next().unwrap_or_default();
                    format!("write \"{scheme}://{authority}\"")
                }
                _ => String::new(),
            };
            Err(Problem::new("", 0, what).suggest(suggestion))
        }
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, Problem> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Problem::new(
            "",
            0,
            format!("{text:?} is not known; allowed: true, false"),
        )),
    }
}

pub(super) fn whole(text: &str, min: usize, max: usize) -> Result<usize, Problem> {
    match text.parse::<usize>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Problem::new(
            "",
            0,
            format!("{text:?} is not allowed; a whole number from {min} to {max} is"),
        )),
    }
}

pub(super) fn size(text: &str, min: u64, max: u64) -> Result<usize, Problem> {
    size_of(text, min, max, 1)
}

/// A size that is a multiple of `unit`.
pub(super) fn size_of(text: &str, min: u64, max: u64, unit: u64) -> Result<usize, Problem> {
    let allowed = |bytes: u64| (min..=max).contains(&bytes) && bytes.is_multiple_of(unit);
    let bytes = parse_size(text).map_err(|error| {
        let suggestion = error.suggestion(allowed);
        Problem::new("", 0, error.description).suggest(suggestion)
    })?;
    match usize::try_from(bytes) {
        Ok(size) if allowed(bytes) => Ok(size),
        _ if (min..=max).contains(&bytes) => {
            let what = format!("{text:?} is not a multiple of {}", format_size(unit));
            Err(Problem::new("", 0, what))
        }
        _ => {
            let what = format!(
                "{text:?} is out of range; from {} to {}: {SIZE_ALLOWED}",
                format_size(min),
                format_size(max)
            );
            Err(Problem::new("", 0, what))
        }
    }
}

/// The lease of a group's subscriber.
pub(super) fn group_lease(text: &str) -> Result<Duration, Problem> {
    duration(text, Duration::from_secs(1), Duration::from_secs(60))
}

pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, Problem> {
    let allowed = min..=max;
    let value = parse_duration(text).map_err(|error| {
        let suggestion = error.suggestion(|millis| allowed.contains(&Duration::from_millis(millis)));
        Problem::new("", 0, error.description).suggest(suggestion)
    })?;
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (min, max) = (format_duration(min), format_duration(max));
    Err(Problem::new(
        "",
        0,
        format!("{text:?} is out of range; from {min} to {max}: {DURATION_ALLOWED}"),
    ))
}

pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let what = format!("{text:?} is not known; allowed: {}", names.join(", "));
    Err(Problem::new("", 0, what).suggest(did_you_mean(text, &names)))
}

/// A URL of PostgreSQL without a password; nothing: none.
pub(super) fn catalog_url(text: &str) -> Result<Option<String>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    if stores::names_password(text) {
        let what = "a password is written out here, where everybody who sees the configuration sees it";
        return Err(Problem::new("", 0, what)
            .suggest("put it into a file, and name that in catalog.credentials_file"));
    }
    match stores::check_url(StoreKind::Postgres, text) {
        Ok(()) => Ok(Some(text.to_owned())),
        Err(what) => Err(Problem::new("", 0, what)),
    }
}

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Checks a filter of diagnostics.
///
/// `EnvFilter` takes a word such as `inof` for a module's name, so a lone word must be a level.
pub(super) fn log_filter(text: &str) -> Result<String, Problem> {
    let is_level = |part: &str| LEVELS.contains(&part.trim().to_lowercase().as_str());
    let is_plausible = text
        .split(',')
        .all(|part| part.contains(['=', ':', '[']) || is_level(part));
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.trim().is_empty() && is_plausible => Ok(text.to_owned()),
        _ => {
            let what = format!(
                "{text:?} is not a filter; allowed: off, error, warn, info, debug, trace, or module=level"
            );
            Err(Problem::new("", 0, what).suggest(did_you_mean(text, LEVELS)))
        }
    }
}
