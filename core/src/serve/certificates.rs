//! Certificates of the listener: read at the start, and again whenever their files change.
//!
//! A set of files that does not fit together, as while it is being replaced, changes nothing: the
//! settings before it stay in force.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::ServeError;
use crate::{
    config::ServeOptions,
    identity::{Rules, verifier::Verifier},
    metrics::CertificateMetrics,
};

/// Pause between two looks at the files.
pub(super) const LOOK_PAUSE: Duration = Duration::from_secs(10);

/// Time before a certificate's end from which on each reading warns.
const EXPIRY_WARNING: Duration = Duration::from_secs(7 * 86_400);

/// Longest certificate or key file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Protocols offered in the handshake (ALPN), the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files, and their contents as last seen.
#[derive(Debug)]
pub(super) struct Certificates {
    files: Files,
    seen: Option<[u8; 32]>,
    metrics: Arc<CertificateMetrics>,
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    /// Rules of identity, where it is on.
    rules: Option<Arc<Rules>>,
}

impl Certificates {
    /// The files of a gateway; `None` where connections are not encrypted.
    pub(super) fn of(options: &ServeOptions, metrics: Arc<CertificateMetrics>) -> Option<Self> {
        let tls = &options.tls;
        let (cert, key) = tls.cert_file.clone().zip(tls.key_file.clone())?;
        let files = Files {
            cert,
            key,
            client_ca: tls.client_ca_file.clone(),
            rules: options.identity.rules(),
        };
        Some(Self {
            files,
            seen: None,
            metrics,
        })
    }

    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A sentence that names the key and the file.
    pub(super) fn load(&mut self) -> Result<Arc<ServerConfig>, ServeError> {
        let contents = self.files.read().map_err(ServeError)?;
        self.seen = Some(contents.digest());
        self.settings(&contents).map_err(ServeError)
    }

    /// Looks at the files again. Returns the new settings, if the files have changed and fit
    /// together; with `always` also if they have not changed.
    pub(super) fn look(&mut self, always: bool) -> Option<Arc<ServerConfig>> {
        let read = self.files.read();
        let digest = read.as_ref().map(Contents::digest).ok();
        if digest == self.seen && !always {
            return None;
        }
        self.seen = digest;
        match read.and_then(|contents| self.settings(&contents)) {
            Ok(settings) => {
                tracing::info!("certificates read again; new connections get them");
                Some(settings)
            }
            Err(problem) => {
                self.metrics.reload_failed();
                tracing::warn!(
                    problem,
                    "the certificates cannot be used; those before them stay in force"
                );
                None
            }
        }
    }

    fn settings(&self, contents: &Contents) -> Result<Arc<ServerConfig>, String> {
        let chain = certificates("tls.cert_file", &self.files.cert, &contents.cert)?;
        let end = expiry(&chain[0]);
        let settings = self.files.settings(contents, chain)?;
        if let Some(end) = end {
            self.metrics.set_expiry(end);
            let left = end.duration_since(SystemTime::now()).unwrap_or_default();
            if left < EXPIRY_WARNING {
                let (file, hours) = (self.files.cert.display(), left.as_secs() / 3_600);
                tracing::warn!(%file, hours_left = hours, "the gateway's certificate ends soon, or has ended");
            }
        }
        Ok(Arc::new(settings))
    }
}

/// Contents of the files.
struct Contents {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Vec<u8>,
}

impl Contents {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.cert, &*self.key, &self.client_ca] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let client_ca = self.client_ca.as_deref();
        Ok(Contents {
            cert: read("tls.cert_file", &self.cert)?,
            key: Zeroizing::new(read("tls.key_file", &self.key)?),
            client_ca: client_ca.map_or(Ok(Vec::new()), |file| read("tls.client_ca_file", file))?,
        })
    }

    fn settings(
        &self,
        contents: &Contents,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<ServerConfig, String> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let private = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| format!("tls.key_file: {key} holds no private key in PEM"))?;
        let provider = Arc::new(default_provider());
        // TLS 1.2 and 1.3, with the suites of the provider: all of them authenticate.
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let refused = |what: &dyn Display| format!("tls.client_ca_file: {}: {what}", file.display());
                let mut roots = RootCertStore::empty();
                for root in certificates("tls.client_ca_file", file, &contents.client_ca)? {
                    roots.add(root).map_err(|error| refused(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match &self.rules {
                    None => verifier.build().map_err(|error| refused(&error))?,
                    // Whoever has no certificate gets in to learn that it can do nothing; probes of
                    // health need none.
                    Some(rules) => {
                        let chain = verifier.allow_unauthenticated().build();
                        Arc::new(Verifier::new(
                            chain.map_err(|error| refused(&error))?,
                            rules.clone(),
                        ))
                    }
                };
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut settings = builder
            .with_single_cert(chain, private)
            .map_err(|error| match error {
                Error::InconsistentKeys(_) => {
                    format!("tls.key_file: {key} is not the key of the certificate in {cert}")
                }
                error => format!("tls.cert_file {cert} with tls.key_file {key}: {error}"),
            })?;
        settings.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        if self.client_ca.is_some() {
            // A session that is taken up again would not show the client's certificate again.
            settings.session_storage = Arc::new(NoServerSessionStorage {});
            settings.send_tls13_tickets = 0;
        }
        Ok(settings)
    }
}

fn read(key: &str, file: &Path) -> Result<Vec<u8>, String> {
    let failed = |what: &dyn Display| format!("{key}: cannot read {}: {what}", file.display());
    let length = fs::metadata(file).map_err(|error| failed(&error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(&format_args!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    fs::read(file).map_err(|error| failed(&error))
}

/// The certificates of a file in PEM: at least one.
fn certificates(key: &str, file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{key}: {} holds no certificate in PEM", file.display())),
    }
}

/// The end of a certificate's validity; `None` if it cannot be read.
fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate that signs itself, and its key, in PEM.
    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn every_fault_of_the_files_is_named_with_key_and_file_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (cert, key) = pair();
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        let mut options = ServeOptions::default();
        options.tls.cert_file = Some(path("cert"));
        options.tls.key_file = Some(path("key"));
        options.tls.client_ca_file = Some(path("ca"));
        let metrics = Arc::new(CertificateMetrics::default());
        let mut certificates = Certificates::of(&options, metrics).expect("TLS is on");
        for (name, text, fault) in [
            ("cert", None, "tls.cert_file: cannot read"),
            ("cert", Some("nonsense"), "tls.key_file: cannot read"),
            ("key", Some(&*cert), "tls.client_ca_file: cannot read"),
            ("ca", Some(&*key), "holds no certificate"),
            ("cert", Some(&*cert), "holds no private key"),
            ("key", Some(&*key), "tls.client_ca_file"),
        ] {
            if let Some(text) = text {
                write(name, text);
            }
            let said = certificates.load().expect_err(fault).to_string();
            assert!(said.contains(fault), "{said}");
        }
        write("ca", &cert);
        assert!(certificates.load().is_ok());
        assert!(certificates.look(false).is_none(), "nothing has changed");
        assert!(certificates.look(true).is_some(), "on demand");
        let (other_cert, other_key) = pair();
        write("key", &other_key);
        assert!(certificates.look(false).is_none(), "another key does not fit");
        let said = certificates.load().expect_err("another key").to_string();
        assert!(said.contains("is not the key of the certificate in"), "{said}");
        write("cert", &other_cert);
        assert!(certificates.look(false).is_some(), "now it fits");
    }
}
