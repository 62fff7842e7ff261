//! One connection: how it is made, what is seen of the server, and what the driver's errors mean.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisError, Value};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::config::Config;
use super::script::{self, SCRIPTS, Script};
use crate::error::StoreError;
use crate::offer::Acked;
use crate::tls::Encryption;

/// Longest time to connect, with TLS and authentication.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Longest time that an answer is awaited. The connection is given up then.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// When the append-only file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before the acknowledgement.
    Always,
    /// Once a second.
    EverySecond,
    /// When the system likes.
    Never,
}

/// Facts about a server that decide what it may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Syncs of the append-only file; `None`: there is no such file.
    pub sync: Option<Sync>,
    /// Whether the settings could be read at all.
    pub is_known: bool,
    /// Whether the server may drop what it holds when its memory is full.
    pub evicts: bool,
}

impl Facts {
    /// Meaning of the server's acknowledgement.
    pub fn acked(&self) -> Acked {
        match self.sync {
            _ if self.evicts || !self.is_known => Acked::Volatile,
            Some(Sync::Always) => Acked::Durable,
            Some(Sync::EverySecond) => Acked::DurableOnSync,
            Some(Sync::Never) | None => Acked::Volatile,
        }
    }

    /// The rest of a sentence that begins with the server: why its acknowledgement means less than
    /// `needed`, and what to do.
    pub(super) fn shortfall(&self, needed: Acked) -> Option<&'static str> {
        if self.acked() >= needed {
            return None;
        }
        Some(match (self.is_known, self.evicts, self.sync) {
            (false, ..) => "does not say whether it keeps what it acknowledged; allow CONFIG GET to its user",
            (true, true, _) => "drops items when its memory is full; set maxmemory-policy noeviction",
            (true, false, None) => {
                "runs without appendonly, so what it acknowledged may be lost; set appendonly yes"
            }
            (true, false, Some(Sync::Never)) => {
                "runs with appendfsync no, so what it acknowledged may be lost; set appendfsync everysec or always"
            }
            (true, false, Some(_)) => {
                "runs with appendfsync everysec, so the last second of what it acknowledged may be lost; \
                 set appendfsync always"
            }
        })
    }
}

/// An open connection. It ends when it is dropped, whatever is under way on it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Names by which the server knows the scripts.
    scripts: Vec<String>,
    task: JoinHandle<()>,
    pub(super) facts: Cell<Facts>,
    pub(super) last_used: Cell<Instant>,
    is_given_up: Cell<bool>,
}

impl Link {
    /// Connects, loads the scripts and looks at the settings.
    pub(super) async fn open(config: &Config, encryption: Option<&Encryption>) -> Result<Link, StoreError> {
        let unreachable = |what: String| StoreError::Unreachable {
            detail: format!("redis at {}: {what}", config.address),
        };
        match tokio::time::timeout(CONNECT_MAX, Link::connect(config, encryption)).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(fault)) => Err(match fault.into_store() {
                StoreError::Io { detail } | StoreError::Busy { detail } => unreachable(detail),
                StoreError::Unreachable { detail } => unreachable(detail),
                StoreError::Unopenable { detail } => StoreError::Unopenable {
                    detail: format!("redis at {}: {detail}", config.address),
                },
                other => other,
            }),
            Err(_) => Err(unreachable(format!(
                "no connection within {} s",
                CONNECT_MAX.as_secs()
            ))),
        }
    }

    async fn connect(config: &Config, encryption: Option<&Encryption>) -> Result<Link, Fault> {
        let failed = |error: std::io::Error| Fault::Lost(error.to_string());
        let stream = TcpStream::connect((config.host.as_str(), config.port))
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(Some(ANSWER_MAX));
        type Driver = Pin<Box<dyn Future<Output = ()>>>;
        let (connection, driver): (_, Driver) = match encryption {
            None => {
                let opened = MultiplexedConnection::new_with_config(&config.session, stream, settings).await;
                let (connection, driver) = opened.map_err(Fault::of)?;
                (connection, Box::pin(driver))
            }
            Some(encryption) => {
                let name = ServerName::try_from(config.host.clone())
                    .map_err(|error| Fault::Lost(error.to_string()))?;
                let stream = encryption.encrypt(name, stream).await.map_err(failed)?;
                let opened = MultiplexedConnection::new_with_config(&config.session, stream, settings).await;
                let (connection, driver) = opened.map_err(Fault::of)?;
                (connection, Box::pin(driver))
            }
        };
        // From here on the task ends with the link.
        let mut link = Link {
            connection,
            scripts: Vec::new(),
            task: tokio::task::spawn_local(driver),
            facts: Cell::new(Facts {
                sync: None,
                is_known: false,
                evicts: false,
            }),
            last_used: Cell::new(Instant::now()),
            is_given_up: Cell::new(false),
        };
        let mut asked = redis::pipe();
        for script in SCRIPTS {
            asked.cmd("SCRIPT").arg("LOAD").arg(script::source(script));
        }
        for answer in link.ask(&asked).await? {
            let name = bytes(Some(&answer))?;
            link.scripts.push(String::from_utf8_lossy(name).into_owned());
        }
        link.look().await?;
        Ok(link)
    }

    /// Looks at the settings once more.
    pub(super) async fn look(&self) -> Result<(), Fault> {
        let mut asked = redis::pipe();
        add_look(&mut asked);
        let answers = self.send(&asked).await?;
        self.facts.set(facts_of(&answers));
        Ok(())
    }

    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.is_given_up.get() || self.task.is_finished()
    }

    /// Name by which the server knows a script.
    pub(super) fn name_of(&self, script: Script) -> &str {
        &self.scripts[script as usize]
    }

    /// Sends commands together; an answer for each, none of which is an error.
    pub(super) async fn ask(&self, asked: &Pipeline) -> Result<Vec<Value>, Fault> {
        let answers = self.send(asked).await?;
        match answers.iter().find_map(refusal) {
            Some(fault) => Err(fault),
            None => Ok(answers),
        }
    }

    /// Sends commands together; an answer for each, some of which may be errors of the server. May
    /// be dropped at any time: the answers go nowhere then, and to nobody else.
    pub(super) async fn send(&self, asked: &Pipeline) -> Result<Vec<Value>, Fault> {
        self.last_used.set(Instant::now());
        let mut connection = self.connection.clone();
        let sent = connection.send_packed_commands(asked, 0, asked.len()).await;
        sent.map_err(|error| {
            let fault = Fault::of(error);
            if matches!(fault, Fault::Lost(_)) {
                self.is_given_up.set(true);
            }
            fault
        })
    }
}

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

/// Settings that decide what an acknowledgement means.
const SETTINGS: [&str; 4] = ["appendonly", "appendfsync", "maxmemory", "maxmemory-policy"];

/// Answers that [`add_look`] asks for.
pub(super) const LOOK_ANSWERS: usize = SETTINGS.len();

/// Asks for the settings.
pub(super) fn add_look(asked: &mut Pipeline) {
    for name in SETTINGS {
        asked.cmd("CONFIG").arg("GET").arg(name);
    }
}

/// Facts that the answers to [`add_look`] tell. An error among them is a setting that is not known.
pub(super) fn facts_of(answers: &[Value]) -> Facts {
    let value = |at: usize| match answers.get(at) {
        Some(Value::Array(pair)) => bytes(pair.get(1)).ok(),
        Some(Value::Map(pairs)) => pairs.first().and_then(|(_, value)| bytes(Some(value)).ok()),
        _ => None,
    };
    let sync = match (value(0), value(1)) {
        (Some(b"yes"), Some(b"always")) => Some(Sync::Always),
        (Some(b"yes"), Some(b"everysec")) => Some(Sync::EverySecond),
        (Some(b"yes"), _) => Some(Sync::Never),
        _ => None,
    };
    Facts {
        sync,
        is_known: value(0).is_some(),
        evicts: value(2).is_some_and(|bytes| bytes != b"0")
            && value(3).is_some_and(|policy| policy != b"noeviction"),
    }
}

/// A failure within a call, before it is one of the store.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection has failed; what was sent may have taken place.
    Lost(String),
    /// The server has lost the scripts; nothing was done.
    NoScript,
    /// The server has answered with an error; nothing was done.
    Refused(StoreError),
}

impl Fault {
    fn of(error: RedisError) -> Fault {
        if error.kind() == ErrorKind::AuthenticationFailed {
            let detail = format!("redis: {error}");
            return Fault::Refused(StoreError::Unopenable { detail });
        }
        match error.code() {
            Some(code) => of_server(code, error.detail().unwrap_or_default()),
            None => Fault::Lost(error.to_string()),
        }
    }

    pub(super) fn into_store(self) -> StoreError {
        match self {
            Fault::Lost(what) => StoreError::Io {
                detail: format!("redis: {what}"),
            },
            Fault::NoScript => StoreError::Busy {
                detail: "redis: it forgets its scripts again and again".to_owned(),
            },
            Fault::Refused(error) => error,
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        fault.into_store()
    }
}

/// The error within an answer.
pub(super) fn refusal(answer: &Value) -> Option<Fault> {
    match answer {
        Value::ServerError(error) => Some(of_server(error.code(), error.details().unwrap_or_default())),
        _ => None,
    }
}

/// An error that the server has answered with. A script that fails so has changed nothing: what it
/// may lack is looked at before its first write.
fn of_server(code: &str, detail: &str) -> Fault {
    let detail = format!("redis: {code} {detail}");
    Fault::Refused(match code {
        "NOSCRIPT" => return Fault::NoScript,
        "OOM" | "MISCONF" => StoreError::Full { detail },
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => StoreError::Unreachable { detail },
        "BUSY" => StoreError::Busy { detail },
        "READONLY" | "NOAUTH" | "WRONGPASS" | "NOPERM" | "MOVED" | "ASK" | "CROSSSLOT" | "DENIED" => {
            StoreError::Unopenable { detail }
        }
        "WRONGTYPE" => StoreError::Corrupt { detail },
        _ => StoreError::Internal { detail },
    })
}

/// The bytes of an answer.
pub(super) fn bytes(answer: Option<&Value>) -> Result<&[u8], Fault> {
    match answer {
        Some(Value::BulkString(bytes)) => Ok(bytes),
        Some(Value::SimpleString(text)) => Ok(text.as_bytes()),
        Some(Value::Okay) => Ok(b"OK"),
        Some(Value::Nil) => Ok(b""),
        other => Err(unexpected(other)),
    }
}

/// A number within an answer.
pub(super) fn number(answer: Option<&Value>) -> Result<i64, Fault> {
    match answer {
        Some(Value::Int(number)) => Ok(*number),
        other => Err(unexpected(other)),
    }
}

/// The entries of an answer.
pub(super) fn entries(answer: Option<&Value>) -> Result<&[Value], Fault> {
    match answer {
        Some(Value::Array(entries)) => Ok(entries),
        other => Err(unexpected(other)),
    }
}

pub(super) fn unexpected(answer: Option<&Value>) -> Fault {
    let kind = match answer {
        None => "nothing",
        Some(Value::Nil) => "a nil",
        Some(Value::Int(_)) => "a number",
        Some(Value::Array(_)) => "an array",
        Some(Value::BulkString(_)) => "a string",
        Some(_) => "another kind of value",
    };
    Fault::Refused(StoreError::Corrupt {
        detail: format!("redis: {kind} where something else was expected"),
    })
}
