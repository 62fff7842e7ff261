//! A certificate authority of one test, in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prism_core::client::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The authority. Its own certificate is in the file [`Authority::file`].
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    /// Makes an authority whose certificate is `NAME.pem` in the folder.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).expect("a file");
        Self { issuer, file }
    }

    /// File of its certificate.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes a certificate for the gateway of a test on loopback, and its key.
    pub(crate) fn sign_gateway(&self, cert: &Path, key: &Path) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, cert, key);
    }

    /// Writes a client's certificate with these URIs, and its key.
    pub(crate) fn sign_client(&self, uris: &[&str], cert: &Path, key: &Path) {
        let mut params = CertificateParams::new([]).expect("no names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uris = uris.iter().map(|uri| (*uri).try_into().expect("ASCII"));
        params.subject_alt_names = uris.map(SanType::URI).collect();
        self.sign(params, cert, key);
    }

    /// Writes a certificate with these contents, and its key.
    pub(crate) fn sign(&self, mut params: CertificateParams, cert: &Path, key: &Path) {
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&pair, &self.issuer).expect("a certificate");
        fs::write(cert, signed.pem()).expect("a file");
        fs::write(key, pair.serialize_pem()).expect("a file");
    }

    /// Credentials of a client that trusts this authority.
    pub(crate) fn trusted(&self) -> Credentials {
        Credentials {
            ca: Some(self.file.clone()),
            ..Credentials::default()
        }
    }
}
