//! SPIFFE ids (the SPIFFE-ID standard, section 2): strictly read, and as services and teams.

use super::Identity;

/// Longest id, in bytes (section 2.3).
const ID_BYTES_MAX: usize = 2_048;
/// Longest trust domain, in bytes (section 2.1).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// The reason why an id names nobody here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not written as the standard demands.
    Malformed,
    /// Of another trust domain.
    Foreign,
    /// Neither `/service/NAME` nor `/team/TEAM/service/NAME`.
    Shape,
}

/// The service that an id of this trust domain names. Never by its last segment alone: the same
/// word may be another workload elsewhere.
pub(super) fn parse(id: &str, trust_domain: &str) -> Result<Identity, Fault> {
    let rest = id.strip_prefix("spiffe://").ok_or(Fault::Malformed)?;
    let (domain, path) = rest.split_once('/').ok_or(Fault::Malformed)?;
    if id.len() > ID_BYTES_MAX || !is_trust_domain(domain) || !path.split('/').all(is_segment) {
        return Err(Fault::Malformed);
    }
    if domain != trust_domain {
        return Err(Fault::Foreign);
    }
    let mut segments = path.split('/');
    let parts: [Option<&str>; 5] = std::array::from_fn(|_| segments.next());
    match parts {
        [Some("service"), Some(service), None, ..] => Ok(Identity {
            service: service.into(),
            team: None,
        }),
        [Some("team"), Some(team), Some("service"), Some(service), None] => Ok(Identity {
            service: service.into(),
            team: Some(team.into()),
        }),
        _ => Err(Fault::Shape),
    }
}

/// Whether this is a trust domain: lower-case letters, digits, dots, hyphens and underscores.
pub(crate) fn is_trust_domain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=TRUST_DOMAIN_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_domain_name_services_and_teams() {
        let read = |id: &str| parse(id, "prod.example").map(|found| (found.service, found.team));
        assert_eq!(
            read("spiffe://prod.example/service/web"),
            Ok(("web".into(), None))
        );
        assert_eq!(
            read("spiffe://prod.example/team/shop/service/web"),
            Ok(("web".into(), Some("shop".into())))
        );
    }

    #[test]
    fn a09_and_a10_what_is_written_otherwise_names_nobody() {
        let long = format!("spiffe://prod.example/service/{}", "a".repeat(ID_BYTES_MAX));
        for (id, fault) in [
            ("spiffe://prod.example/service/../web", Fault::Malformed),
            ("spiffe://prod.example/service/%2e%2e", Fault::Malformed),
            ("spiffe://prod.example//web", Fault::Malformed),
            ("spiffe://prod.example/service/web/", Fault::Malformed),
            ("spiffe://prod.example/service/web?x=1", Fault::Malformed),
            ("spiffe://prod.example/service/web#x", Fault::Malformed),
            ("spiffe://prod.example:8980/service/web", Fault::Malformed),
            ("spiffe://me@prod.example/service/web", Fault::Malformed),
            ("spiffe://PROD.example/service/web", Fault::Malformed),
            ("SPIFFE://prod.example/service/web", Fault::Malformed),
            ("https://prod.example/service/web", Fault::Malformed),
            ("spiffe://prod.example", Fault::Malformed),
            ("spiffe:///service/web", Fault::Malformed),
            (&long, Fault::Malformed),
            ("spiffe://prod.example.evil/service/web", Fault::Foreign),
            ("spiffe://prod.example/ns/shop/sa/web", Fault::Shape),
            ("spiffe://prod.example/web", Fault::Shape),
            ("spiffe://prod.example/service/web/more", Fault::Shape),
            ("spiffe://prod.example/team/a/service/b/more", Fault::Shape),
        ] {
            assert_eq!(parse(id, "prod.example"), Err(fault), "{id}");
        }
    }
}
