//! A socket to the gateway: TCP, with or without TLS; blocking or not, as it was made.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use clap::Args;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

/// Most bytes that are encrypted at a time.
const PIECE_BYTES: usize = 32 << 10;

/// Files for a target with `https://` before it.
#[derive(Clone, Debug, Default, Args)]
pub struct TlsOptions {
    /// Certificates that sign the gateway's, in PEM; without it those of the system
    #[arg(long, env = "PRISM_CA", value_name = "FILE")]
    pub ca: Option<std::path::PathBuf>,
    /// The certificate of the load generator, in PEM
    #[arg(long, env = "PRISM_CERT", value_name = "FILE", requires = "cert_key")]
    pub cert: Option<std::path::PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(long, env = "PRISM_CERT_KEY", value_name = "FILE", requires = "cert")]
    pub cert_key: Option<std::path::PathBuf>,
}

/// Settings of TLS for one gateway.
#[derive(Clone, Debug)]
pub struct Tls {
    settings: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the files, for a gateway at `authority`, `host:port`.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn load(options: &TlsOptions, authority: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match &options.ca {
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(file) => {
                for root in certificates(file)? {
                    let refused = |error| format!("--ca {}: {error}", file.display());
                    roots.add(root).map_err(refused)?;
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut settings = match (&options.cert, &options.cert_key) {
            (Some(cert), Some(key)) => {
                let refused = |what: String| format!("--cert-key {}: {what}", key.display());
                let private =
                    PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| refused(error.to_string()))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, private)
                    .map_err(|error| refused(error.to_string()))?
            }
            _ => builder.with_no_client_auth(),
        };
        settings.alpn_protocols = vec![b"h2".to_vec()];
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        Ok(Self {
            settings: Arc::new(settings),
            name,
        })
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
pub enum Socket {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Encrypted(Box<Encrypted>),
}

/// A socket with TLS.
#[derive(Debug)]
pub struct Encrypted {
    connection: ClientConnection,
    socket: TcpStream,
}

impl Socket {
    /// Takes over a connection that is open or being opened.
    ///
    /// # Errors
    /// The settings allow no connection.
    pub fn new(socket: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let Some(tls) = tls else {
            return Ok(Self::Plain(socket));
        };
        let connection =
            ClientConnection::new(tls.settings.clone(), tls.name.clone()).map_err(io::Error::other)?;
        Ok(Self::Encrypted(Box::new(Encrypted { connection, socket })))
    }

    /// The failure of an attempt to connect, if it failed.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Plain(socket) => socket.take_error(),
            Self::Encrypted(encrypted) => encrypted.socket.take_error(),
        }
    }

    /// The connection below TLS.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Encrypted(encrypted) => &encrypted.socket,
        }
    }

    /// Whether encrypted bytes wait for the kernel to take them.
    pub fn holds_output(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Encrypted(encrypted) => encrypted.connection.wants_write(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Encrypted(encrypted) => encrypted.socket.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Encrypted(encrypted) => encrypted.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Encrypted(encrypted) => encrypted.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Encrypted(encrypted) => encrypted.push(),
        }
    }
}

impl Encrypted {
    /// Reads until there is any plaintext. All of it fits into a buffer of 64 KiB.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer has closed, with a farewell or without one.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.connection.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            let processed = self.connection.process_new_packets();
            // Answers of the handshake; the rest of them waits for room.
            unless_blocked(self.push())?;
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        let count = self.connection.writer().write(piece)?;
        unless_blocked(self.push())?;
        match count {
            // What waits for the handshake fills all room.
            0 if !piece.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    /// Gives the kernel the encrypted bytes.
    fn push(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

fn unless_blocked(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}
