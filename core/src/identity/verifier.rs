//! The check of a client's certificate in the handshake: its chain, and the identity that it names.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{Rules, certificate};

/// A verifier that accepts only certificates that name a caller. Clients without a certificate get
/// in, and are nobody.
#[derive(Debug)]
pub(crate) struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
    rules: Arc<Rules>,
}

impl Verifier {
    /// Makes a verifier of the identity after `chain`, which checks everything else.
    pub(crate) fn new(chain: Arc<dyn ClientCertVerifier>, rules: Arc<Rules>) -> Self {
        Self { chain, rules }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, between, now)?;
        match certificate::read(leaf, &self.rules) {
            Ok(_) => Ok(verified),
            Err(why) => {
                tracing::debug!(why, "a client's certificate is refused");
                Err(Error::InvalidCertificate(
                    CertificateError::ApplicationVerificationFailure,
                ))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
