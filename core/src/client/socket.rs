//! The client's socket: TCP, with or without TLS.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

/// Files by which a client knows its gateway, and shows who it is itself. For `https://` only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Certificates, in PEM, that sign the gateway's; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, in PEM, and those that lead from it to a root.
    pub cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub cert_key: Option<PathBuf>,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn load(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.roots()?);
        let mut settings = match (&self.cert, &self.cert_key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let private = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|_| format!("{} holds no private key in PEM", key.display()))?;
                let (cert, key) = (cert.display(), key.display());
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| match error {
                        Error::InconsistentKeys(_) => {
                            format!("{key} is not the key of the certificate in {cert}")
                        }
                        error => format!("{cert} with {key}: {error}"),
                    })?
            }
            (Some(_), None) => return Err("a certificate needs its private key".to_owned()),
            (None, Some(_)) => return Err("a private key needs its certificate".to_owned()),
        };
        settings.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(settings))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err("this system has no certificates of its own; name a file of them".to_owned());
                }
            }
            Some(file) => {
                for root in certificates(file)? {
                    roots
                        .add(root)
                        .map_err(|error| format!("{}: {error}", file.display()))?;
                }
            }
        }
        Ok(roots)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} holds no certificate in PEM", file.display())),
    }
}

/// The socket.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Makes the handshake with the gateway of this name; each wait takes `patience` at most.
    ///
    /// # Errors
    /// The gateway's certificate is not trusted, the name is none, or the connection broke.
    pub(super) fn encrypt(
        mut socket: TcpStream,
        settings: Arc<ClientConfig>,
        host: &str,
        patience: Duration,
    ) -> io::Result<Self> {
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(settings, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            let (_, sent) = connection.complete_io(&mut socket)?;
            if sent == 0 && connection.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(super) fn set_read_timeout(&self, wait: Duration) -> io::Result<()> {
        self.tcp().set_read_timeout(Some(wait))
    }

    pub(super) fn set_write_timeout(&self, wait: Duration) -> io::Result<()> {
        self.tcp().set_write_timeout(Some(wait))
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A failure of the connection in words, with the likely cause where TLS names it.
pub(super) fn describe(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the gateway asks for a certificate of the client".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("the gateway refuses the client in TLS: {alert:?}"),
        Some(Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        Some(Error::InvalidCertificate(cause)) => {
            format!("the gateway's certificate is not trusted: {cause:?}")
        }
        _ => error.to_string(),
    }
}
