//! The caller that a certificate names. Its chain, its time and its signature are rustls' business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::{Caller, Identity, Rules, spiffe};

/// The caller that this leaf names: X509-SVID (the SPIFFE standard, sections 2 and 4) demands one
/// URI and no right to sign; and it must be for clients.
///
/// # Errors
/// A sentence for the diagnostics.
pub(crate) fn read(leaf: &CertificateDer<'_>, rules: &Rules) -> Result<Caller, &'static str> {
    let (_, leaf) = parse_x509_certificate(leaf).map_err(|_| "it cannot be read")?;
    let constraints = leaf.basic_constraints();
    if constraints
        .map_err(|_| "its basic constraints cannot be read")?
        .is_some_and(|constraints| constraints.value.ca)
    {
        return Err("it may sign others, so it names nobody");
    }
    let usage = leaf
        .extended_key_usage()
        .map_err(|_| "its extended key usage cannot be read")?;
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err("its extended key usage does not name clients");
    }
    let identity = identity(&leaf, &rules.trust_domain)?;
    // Its last second counts (RFC 5280 section 4.1.2.5), also for rustls.
    let last = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default();
    let until = UNIX_EPOCH
        .checked_add(Duration::from_secs(last.saturating_add(1)))
        .unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(rules.caller(identity, until))
}

fn identity(leaf: &X509Certificate<'_>, trust_domain: &str) -> Result<Identity, &'static str> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|_| "its alternative names cannot be read")?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or("it has no URI among its alternative names")?;
    if uris.next().is_some() {
        return Err("it has more than one URI among its alternative names");
    }
    spiffe::parse(uri, trust_domain).map_err(|fault| match fault {
        spiffe::Fault::Malformed => "its URI is no SPIFFE id",
        spiffe::Fault::Foreign => "its SPIFFE id is of another trust domain",
        spiffe::Fault::Shape => "its SPIFFE id is neither /service/NAME nor /team/TEAM/service/NAME",
    })
}
