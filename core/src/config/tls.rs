//! Keys of the sections `tls` and `identity`: encryption, and proof of who calls.

use std::path::PathBuf;

use super::values::list;
use super::{IdentityOptions, Key, ServeOptions, TlsOptions};
use crate::identity::is_trust_domain;
use crate::namespace::problem::Problem;

const ALLOWED: &str = "a path, or nothing";

pub(super) const CERT_FILE: Key = Key {
    path: "tls.cert_file",
    env: "PRISM_TLS_CERT_FILE",
    allowed: ALLOWED,
    doc: "File with the gateway's certificate and those that lead from it to a root, in PEM: connections are encrypted, and\n\
          clients write https://. The three files are looked at every 10 s and on SIGHUP. Nothing: no encryption.",
    set: |options, text| set(&mut options.tls.cert_file, text),
    show: |options| show(options, |tls| &tls.cert_file),
};

pub(super) const KEY_FILE: Key = Key {
    path: "tls.key_file",
    env: "PRISM_TLS_KEY_FILE",
    allowed: ALLOWED,
    doc: "File with its private key, in PEM (PKCS#8, PKCS#1 or SEC1).",
    set: |options, text| set(&mut options.tls.key_file, text),
    show: |options| show(options, |tls| &tls.key_file),
};

pub(super) const CLIENT_CA_FILE: Key = Key {
    path: "tls.client_ca_file",
    env: "PRISM_TLS_CLIENT_CA_FILE",
    allowed: ALLOWED,
    doc: "File with the certificates that sign those of clients, in PEM: who has none of theirs cannot connect, or with\n\
          identity.trust_domain can do nothing. Nothing: clients need no certificate.",
    set: |options, text| set(&mut options.tls.client_ca_file, text),
    show: |options| show(options, |tls| &tls.client_ca_file),
};

pub(super) const TRUST_DOMAIN: Key = Key {
    path: "identity.trust_domain",
    env: "PRISM_IDENTITY_TRUST_DOMAIN",
    allowed: "lower-case letters, digits, dots, hyphens and underscores, or nothing",
    doc: "Domain of the SPIFFE ids that name callers: spiffe://DOMAIN/service/NAME, or with a team\n\
          spiffe://DOMAIN/team/TEAM/service/NAME, in certificates that tls.client_ca_file signs. With it a namespace's access\n\
          holds, and nothing else is allowed. Nothing: everybody may do everything.",
    set: |options, text| {
        if !text.is_empty() && !is_trust_domain(text) {
            let what = format!(
                "{text:?} is no trust domain; allowed: lower-case letters, digits, dots, hyphens, underscores"
            );
            return Err(Problem::new("", 0, what));
        }
        options.identity.trust_domain = (!text.is_empty()).then(|| text.to_owned());
        Ok(())
    },
    show: |options| options.identity.trust_domain.clone().unwrap_or_default(),
};

const SERVICES: &str = "names of services with commas between them, or nothing";

pub(super) const ADMINS: Key = Key {
    path: "identity.admins",
    env: "PRISM_IDENTITY_ADMINS",
    allowed: SERVICES,
    doc: "Services that may change the configuration of every namespace, and see the metrics. That is no permission for data.",
    set: |options, text| list(text, service).map(|names| options.identity.admins = names),
    show: |options| options.identity.admins.join(","),
};

pub(super) const VIEWERS: Key = Key {
    path: "identity.viewers",
    env: "PRISM_IDENTITY_VIEWERS",
    allowed: SERVICES,
    doc: "Services that may see every namespace's configuration and the metrics, and nothing else: one that scrapes them.",
    set: |options, text| list(text, service).map(|names| options.identity.viewers = names),
    show: |options| options.identity.viewers.join(","),
};

fn service(text: &str) -> Result<(), Problem> {
    match text.is_empty()
        || text.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '*')
    {
        true => Err(Problem::new("", 0, format!("{text:?} is no name of a service"))),
        false => Ok(()),
    }
}

fn set(place: &mut Option<PathBuf>, text: &str) -> Result<(), Problem> {
    if text.contains('\0') {
        return Err(Problem::new("", 0, "the path holds a NUL byte"));
    }
    *place = (!text.is_empty()).then(|| PathBuf::from(text));
    Ok(())
}

fn show(options: &ServeOptions, file: fn(&TlsOptions) -> &Option<PathBuf>) -> String {
    let path = file(&options.tls).as_ref();
    path.map_or_else(String::new, |path| path.display().to_string())
}

/// The problem of keys of which one needs another that is not set.
pub(super) fn half_of(options: &ServeOptions) -> Option<Problem> {
    let (tls, identity) = (&options.tls, &options.identity);
    let (named, missing) = match (&tls.cert_file, &tls.key_file, &tls.client_ca_file) {
        (Some(_), None, _) => ("tls.cert_file", "tls.key_file"),
        (None, Some(_), _) => ("tls.key_file", "tls.cert_file"),
        (None, None, Some(_)) => ("tls.client_ca_file", "tls.cert_file and tls.key_file"),
        (_, _, None) if identity.trust_domain.is_some() => ("identity.trust_domain", "tls.client_ca_file"),
        _ if identity.trust_domain.is_some() || *identity == IdentityOptions::default() => return None,
        _ => ("identity.admins or identity.viewers", "identity.trust_domain"),
    };
    let what = format!("{named} is set, and {missing} is not");
    Some(Problem::new(named, 0, what).suggest(format!("set {missing} as well, or take {named} out")))
}
