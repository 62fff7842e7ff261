//! Rules for browsers: names in `host` that lead to this gateway, and origins whose pages may read
//! replies.
//!
//! A page of any site can send requests to a loopback address. Two things prevent harm: calls need
//! a content type that a browser sends to another origin only if a preflight allows it, and a name
//! that an attacker's DNS has pointed here (DNS rebinding) is no loopback name.

use std::{borrow::Cow, net::IpAddr};

use smallvec::SmallVec;

use crate::config::ServeOptions;

/// Fields of a response, in addition to `content-type` and `content-length`; names in lower case.
pub(crate) type Fields = SmallVec<[(&'static str, Cow<'static, [u8]>); 6]>;

/// Time for which a browser may remember a preflight, in seconds: the most that browsers allow.
const PREFLIGHT_SECONDS: &[u8] = b"7200";
/// Fields of a reply that a page may read, in addition to the few that it always may.
const EXPOSED: &[u8] =
    b"grpc-status, grpc-message, grpc-status-details-bin, grpc-encoding, content-encoding, \
                         connect-content-encoding, x-request-id";

/// The rules, as configured.
#[derive(Debug, Default)]
pub(crate) struct HttpRules {
    /// Names allowed in `host` in addition to those of loopback. `None`: any name.
    hosts: Option<Vec<String>>,
    any_origin: bool,
    origins: Vec<String>,
    /// Replies longer than this are compressed for clients that accept it.
    compress_above: Option<usize>,
}

/// Whether a page of another origin may read the reply, and the form of the permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Origin {
    /// The request names none, or one that is not allowed.
    #[default]
    Foreign,
    /// All origins are allowed.
    Any,
    /// The origin with this number in the configured list.
    Listed(u16),
}

impl HttpRules {
    pub(crate) fn new(options: &ServeOptions) -> Self {
        let http = &options.http;
        Self {
            hosts: options
                .listen
                .ip()
                .is_loopback()
                .then(|| http.allowed_hosts.clone()),
            any_origin: http.allowed_origins.iter().any(|origin| origin == "*"),
            origins: http.allowed_origins.clone(),
            compress_above: http.compress_above,
        }
    }

    /// Whether a message of this length is worth compressing.
    #[inline]
    pub(crate) fn compresses(&self, length: usize) -> bool {
        self.compress_above.is_some_and(|above| length > above)
    }

    /// Whether replies are compressed at all.
    pub(crate) fn compresses_at_all(&self) -> bool {
        self.compress_above.is_some()
    }

    /// Whether a request may name this `host` (or `:authority`); an empty name is allowed.
    pub(crate) fn allows_host(&self, authority: &[u8]) -> bool {
        let Some(allowed) = &self.hosts else { return true };
        if authority.is_empty() {
            return true;
        }
        let Ok(text) = str::from_utf8(authority) else {
            return false;
        };
        let name = host_name(text);
        is_loopback(name)
            || allowed
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(text))
    }

    /// Judges the `origin` of a request.
    pub(crate) fn origin(&self, origin: &[u8]) -> Origin {
        if self.any_origin {
            return Origin::Any;
        }
        let known = self
            .origins
            .iter()
            .position(|known| known.as_bytes().eq_ignore_ascii_case(origin));
        known
            .and_then(|index| u16::try_from(index).ok())
            .map_or(Origin::Foreign, Origin::Listed)
    }

    /// Adds the fields that a reply to a page of that origin needs.
    pub(crate) fn put_origin(&self, origin: Origin, fields: &mut Fields) {
        let value = match origin {
            Origin::Foreign => return,
            Origin::Any => Cow::Borrowed(&b"*"[..]),
            Origin::Listed(index) => {
                fields.push(("vary", Cow::Borrowed(b"origin")));
                match self.origins.get(usize::from(index)) {
                    Some(known) => Cow::Owned(known.clone().into_bytes()),
                    None => return,
                }
            }
        };
        fields.push(("access-control-allow-origin", value));
        fields.push(("access-control-expose-headers", Cow::Borrowed(EXPOSED)));
    }

    /// Adds the fields of the answer to an allowed preflight; `asked` are the fields that the page
    /// wants to send.
    pub(crate) fn put_preflight(
        &self,
        origin: Origin,
        methods: &'static str,
        asked: &[u8],
        fields: &mut Fields,
    ) {
        if origin == Origin::Foreign {
            return;
        }
        self.put_origin(origin, fields);
        fields.push(("access-control-allow-methods", Cow::Borrowed(methods.as_bytes())));
        if !asked.is_empty() {
            fields.push(("access-control-allow-headers", Cow::Owned(asked.to_vec())));
        }
        fields.push(("access-control-max-age", Cow::Borrowed(PREFLIGHT_SECONDS)));
    }
}

/// The name without its port, brackets and final dot.
fn host_name(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether it is a name that no DNS server can point elsewhere (RFC 6761, 6.3), or an address of
/// this machine alone.
fn is_loopback(name: &str) -> bool {
    let local = |name: &str| name.eq_ignore_ascii_case("localhost");
    local(name)
        || name.rsplit_once('.').is_some_and(|(_, last)| local(last))
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(change: impl FnOnce(&mut ServeOptions)) -> HttpRules {
        let mut options = ServeOptions::default();
        change(&mut options);
        HttpRules::new(&options)
    }

    #[test]
    fn only_loopback_names_lead_to_a_loopback_address() {
        let rules = rules(|options| options.http.allowed_hosts = vec!["prism.internal".to_owned()]);
        for name in [
            "",
            "127.0.0.1:8980",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]:8980",
            "[::1]",
            "[::ffff:127.0.0.1]:80",
            "localhost:8980",
            "LocalHost",
            "localhost.:80",
            "gateway.localhost:80",
            "prism.internal",
            "Prism.Internal:443",
        ] {
            assert!(rules.allows_host(name.as_bytes()), "{name}");
        }
        for name in [
            "evil.example:8980",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "10.0.0.1:8980",
            "0.0.0.0:8980",
            "[2001:db8::1]:8980",
            "127.0.0.1:x",
            "[",
            "x.prism.internal",
            "\u{fffd}",
        ] {
            assert!(!rules.allows_host(name.as_bytes()), "{name}");
        }
        assert!(!rules.allows_host(b"\xff"));
    }

    #[test]
    fn any_name_leads_to_an_address_that_others_reach() {
        let rules = rules(|options| options.listen = ([0, 0, 0, 0], 8980).into());
        assert!(rules.allows_host(b"prism.example:8980"));
    }

    #[test]
    fn origins_are_those_configured_and_no_others() {
        assert_eq!(rules(|_| {}).origin(b"http://a.example"), Origin::Foreign);
        let rules = rules(|options| {
            options.http.allowed_origins = ["http://a.example", "https://b.example:444"]
                .map(str::to_owned)
                .to_vec();
        });
        assert_eq!(rules.origin(b"https://b.example:444"), Origin::Listed(1));
        for foreign in [
            "https://a.example",
            "http://a.example:80",
            "http://a.example.evil",
            "null",
            "",
        ] {
            assert_eq!(rules.origin(foreign.as_bytes()), Origin::Foreign, "{foreign}");
        }
        let mut fields = Fields::new();
        rules.put_origin(Origin::Listed(1), &mut fields);
        assert!(fields.contains(&(
            "access-control-allow-origin",
            Cow::Borrowed(b"https://b.example:444")
        )));
        assert!(fields.contains(&("vary", Cow::Borrowed(b"origin"))));
        fields.clear();
        rules.put_origin(Origin::Foreign, &mut fields);
        assert!(fields.is_empty());
    }
}
