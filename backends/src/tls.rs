//! TLS to servers: rustls, with the system's roots or those of a file. The host's name is
//! always checked.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::StoreError;
use crate::server::Tls;

/// A maker of TLS connections; cheap to clone.
#[derive(Clone)]
pub(crate) struct Encryption {
    settings: Arc<ClientConfig>,
}

impl Encryption {
    /// Reads the roots. `None`: connections are not encrypted.
    pub(crate) fn new(tls: &Tls) -> Result<Option<Encryption>, StoreError> {
        let mut roots = RootCertStore::empty();
        match tls {
            Tls::Off => return Ok(None),
            Tls::System => {
                let found = rustls_native_certs::load_native_certs();
                let (added, _) = roots.add_parsable_certificates(found.certs);
                if added == 0 {
                    return Err(StoreError::invalid(
                        "tls",
                        "this system has no certificates of its own; name a file of them instead",
                    ));
                }
            }
            Tls::File(path) => {
                let refused = |what: &dyn std::fmt::Display| {
                    StoreError::invalid("tls", format!("{}: {what}", path.display()))
                };
                let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| refused(&error))?;
                    roots.add(certificate).map_err(|error| refused(&error))?;
                }
                if roots.is_empty() {
                    return Err(refused(&"holds no certificate in PEM"));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let settings = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::invalid("tls", error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Encryption {
            settings: Arc::new(settings),
        }))
    }

    /// The settings, for a driver that encrypts by itself.
    pub(crate) fn settings(&self) -> ClientConfig {
        ClientConfig::clone(&self.settings)
    }

    /// Encrypts a connection to the host of this name.
    pub(crate) async fn encrypt<S>(&self, name: ServerName<'static>, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsConnector::from(self.settings.clone())
            .connect(name, stream)
            .await
    }
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Encryption").finish_non_exhaustive()
    }
}

impl<S> MakeTlsConnect<S> for Encryption
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Handshake {
            connector: TlsConnector::from(self.settings.clone()),
            name,
        })
    }
}

/// A handshake that is still to be made.
pub(crate) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Encrypted) })
    }
}

/// An encrypted connection in the form that the driver needs.
pub(crate) struct Encrypted<S>(TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Encrypted<S> {
    /// The password's proof is not bound to the channel: the certificate is checked in full.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
