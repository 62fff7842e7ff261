//! Keys of the section `tls`: files that turn encryption on.

use std::path::PathBuf;

use super::{Key, ServeOptions, TlsOptions};
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
    doc: "File with the certificates that sign those of clients, in PEM: who has none of theirs cannot connect. Nothing:\n\
          clients need no certificate.",
    set: |options, text| set(&mut options.tls.client_ca_file, text),
    show: |options| show(options, |tls| &tls.client_ca_file),
};

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

/// The problem of files of which one needs another that is not named.
pub(super) fn half_of(tls: &TlsOptions) -> Option<Problem> {
    let (named, missing) = match (&tls.cert_file, &tls.key_file, &tls.client_ca_file) {
        (Some(_), None, _) => ("tls.cert_file", "tls.key_file"),
        (None, Some(_), _) => ("tls.key_file", "tls.cert_file"),
        (None, None, Some(_)) => ("tls.client_ca_file", "tls.cert_file and tls.key_file"),
        (Some(_), Some(_), _) | (None, None, None) => return None,
    };
    let what = format!("{named} is set, and {missing} is not");
    Some(Problem::new(named, 0, what).suggest(format!("set {missing} as well, or take {named} out")))
}
