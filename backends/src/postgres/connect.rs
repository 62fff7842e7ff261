//! One connection: how it is made, its prepared statements, and the meaning of the driver's errors.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Row, Statement};

use super::config::{CONNECT_MAX, Config, source_of};
use super::news::News;
use crate::error::StoreError;
use crate::server::Tls;
use crate::tls::Encryption;

/// Parameters of a statement.
pub(super) type Parameters<'p> = &'p [&'p (dyn ToSql + Sync)];

/// Facts about a server that decide what it may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Major version.
    pub version: u32,
    /// Whether a commit is on disk when it is acknowledged. Prism asks for it in each of its
    /// sessions, so only `fsync = off` of the whole server prevents it.
    pub is_durable: bool,
    /// Whether the server takes no writes, as a standby.
    pub is_read_only: bool,
    /// Connections that the server allows to all its clients together.
    pub connections_max: u32,
}

/// An open connection. Dropping it ends it, whatever is in progress on it.
pub(super) struct Link {
    client: Client,
    /// Statements by their text.
    statements: RefCell<FxHashMap<&'static str, Statement>>,
    task: JoinHandle<()>,
    /// Lives as long as the connection lasts.
    pub(super) life: Weak<()>,
    pub(super) facts: Facts,
}

impl Link {
    /// Connects and checks the session.
    pub(super) async fn open(
        config: &Config,
        encryption: Option<&Encryption>,
        news: &Arc<News>,
    ) -> Result<Link, StoreError> {
        let life = Arc::new(());
        let unreachable = |what: String| StoreError::Unreachable {
            detail: format!("postgresql at {}: {what}", config.address),
        };
        let opening = async {
            let (client, task) = match encryption {
                Some(encryption) => {
                    let (client, connection) = config.connection.connect(encryption.clone()).await?;
                    (
                        client,
                        tokio::spawn(drive(connection, life.clone(), news.clone())),
                    )
                }
                None => {
                    let (client, connection) = config.connection.connect(NoTls).await?;
                    (
                        client,
                        tokio::spawn(drive(connection, life.clone(), news.clone())),
                    )
                }
            };
            // From here on the task ends with the link.
            let mut link = Link {
                client,
                statements: RefCell::default(),
                task,
                life: Arc::downgrade(&life),
                facts: Facts {
                    version: 0,
                    is_durable: false,
                    is_read_only: false,
                    connections_max: 0,
                },
            };
            link.facts = link.look().await?;
            Ok::<_, tokio_postgres::Error>(link)
        };
        match tokio::time::timeout(CONNECT_MAX, opening).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(match error.as_db_error() {
                Some(refusal) if is_lasting(refusal.code()) => StoreError::Unopenable {
                    detail: format!("postgresql at {}: {}", config.address, refusal.message()),
                },
                Some(refusal) => unreachable(refusal.message().to_owned()),
                None => match certificate_fault(&error) {
                    Some(fault) => StoreError::Unopenable {
                        detail: format!(
                            "postgresql at {}: {}",
                            config.address,
                            untrusted(&config.tls, fault)
                        ),
                    },
                    None => unreachable(source_of(&error)),
                },
            }),
            Err(_) => Err(unreachable(format!(
                "no connection within {} s",
                CONNECT_MAX.as_secs()
            ))),
        }
    }

    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.task.is_finished()
    }

    /// Runs a statement that is prepared once for each connection.
    pub(super) async fn query(
        &self,
        text: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.prepared(text).await?;
        self.client.query(&statement, parameters).await
    }

    /// Runs a statement without reading its rows. Returns the number of rows that it changed.
    pub(super) async fn execute(
        &self,
        text: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<u64, tokio_postgres::Error> {
        let statement = self.prepared(text).await?;
        self.client.execute(&statement, parameters).await
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, text: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(text).await
    }

    /// Prepares statements ahead of a pipeline: the first use of one is a round trip of its own,
    /// and later statements would otherwise overtake it.
    pub(super) async fn prepare(&self, texts: &[&'static str]) -> Result<(), tokio_postgres::Error> {
        for text in texts {
            self.prepared(text).await?;
        }
        Ok(())
    }

    async fn prepared(&self, text: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.borrow().get(text) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(text).await?;
        self.statements.borrow_mut().insert(text, statement.clone());
        Ok(statement)
    }

    async fn look(&self) -> Result<Facts, tokio_postgres::Error> {
        let row = self.client.query_one(LOOK, &[]).await?;
        let setting = |at| row.try_get::<_, String>(at);
        // A weaker default of the server, the database or the user must not weaken our promises.
        if matches!(setting(0)?.as_str(), "off" | "local" | "remote_write") {
            self.run("SET synchronous_commit = on").await?;
        }
        Ok(Facts {
            version: row.try_get::<_, i32>(3)?.unsigned_abs() / 10_000,
            is_durable: setting(1)? == "on",
            is_read_only: row.try_get(2)?,
            connections_max: row.try_get::<_, i32>(4)?.unsigned_abs(),
        })
    }
}

/// Moves the bytes of a connection until it ends, and hands over the news that come with them.
async fn drive<S, T>(mut connection: Connection<S, T>, life: Arc<()>, news: Arc<News>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(one) = message {
            news.hear(one.payload());
        }
    }
    drop(life);
}

const LOOK: &str =
    "SELECT current_setting('synchronous_commit'), current_setting('fsync'), pg_is_in_recovery(),
    current_setting('server_version_num')::int4, current_setting('max_connections')::int4";

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Link")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// A failure within a call, before it is one of the store.
#[derive(Debug)]
pub(super) enum Fault {
    /// An error of the driver. The server has answered with it, or has not answered.
    Driver(tokio_postgres::Error),
    /// An error of the store itself.
    Store(StoreError),
}

impl Fault {
    /// Whether the transaction was undone because of others, and may succeed when it is tried
    /// again.
    pub(super) fn is_conflict(&self) -> bool {
        let Fault::Driver(error) = self else { return false };
        error.code().is_some_and(|code| {
            *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
    }

    /// Whether the connection has failed, and not the statement.
    pub(super) fn is_of_connection(&self) -> bool {
        match self {
            Fault::Driver(error) => error
                .as_db_error()
                .is_none_or(|refusal| ends_session(refusal.code())),
            Fault::Store(_) => false,
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        Fault::Driver(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        match fault {
            Fault::Store(error) => error,
            Fault::Driver(error) => match error.as_db_error() {
                Some(refusal) => of_server(refusal),
                // The answer is missing: the statement may have taken place.
                None => StoreError::Io {
                    detail: format!("postgresql: {}", source_of(&error)),
                },
            },
        }
    }
}

/// Converts an error with which the server has answered: its transaction was undone.
fn of_server(refusal: &DbError) -> StoreError {
    let code = refusal.code();
    let detail = format!("postgresql: {} ({})", refusal.message(), code.code());
    let is = |codes: &[SqlState]| codes.contains(code);
    if is(&[SqlState::DISK_FULL]) {
        StoreError::Full { detail }
    } else if is(&[SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED]) {
        StoreError::Corrupt { detail }
    } else if is(&[
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INVALID_SCHEMA_NAME,
    ]) {
        StoreError::WrongFormat { detail }
    } else if is_lasting(code) || is(&[SqlState::READ_ONLY_SQL_TRANSACTION]) {
        StoreError::Unopenable { detail }
    } else if ends_session(code) {
        // A statement that waits at its commit gets this error too, so it may have taken place.
        StoreError::Io { detail }
    } else if code.code().starts_with("22") || code.code().starts_with("42") || code.code().starts_with("23")
    {
        StoreError::Internal { detail }
    } else {
        // Lock and statement timeouts, conflicts, a lack of memory or of connections.
        StoreError::Busy { detail }
    }
}

/// The fault of the server's certificate, if that is why there is no connection.
fn certificate_fault(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let cause = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    let fault = cause.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(fault, rustls::Error::InvalidCertificate(_)).then_some(fault)
}

/// Sentence about a certificate that is not accepted, and its remedy.
fn untrusted(tls: &Tls, fault: &rustls::Error) -> String {
    let signers = match tls {
        Tls::File(path) => format!("those in {}", path.display()),
        Tls::Off | Tls::System => "those of this system".to_owned(),
    };
    format!(
        "its certificate is not accepted by {signers} ({fault}); name the file with the certificates that sign it in tls"
    )
}

/// Whether only an operator can repair it.
fn is_lasting(code: &SqlState) -> bool {
    let lasting = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    lasting.contains(code)
}

fn ends_session(code: &SqlState) -> bool {
    let ending = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    ending.contains(code) || code.code().starts_with("08")
}
