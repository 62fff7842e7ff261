//! One connection: how it is made, how answers find who waits for them, and what errors mean.
//!
//! A connection that has failed is never made again by the driver: messages that wait in it would
//! then be sent after later ones. A new one is opened instead, and whoever sent by the old one gets
//! an error.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_core::Stream;
use rustc_hash::FxHashMap;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::config::{Config, Credentials};
use crate::error::StoreError;
use crate::single::Connection;
use crate::tls::Encryption;

/// Longest time to connect, with TLS and authentication.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Longest time that an answer is awaited.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Pause between two signs of life that are demanded of the server.
const PING_PAUSE: Duration = Duration::from_secs(10);

/// Least version, which stores a batch as a whole and removes messages one by one.
const VERSION_MIN: (i64, i64, i64) = (2, 12, 0);

/// Where the driver may look for the server after it has lost it: nobody listens there.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// An open connection. It ends when it is dropped, whatever is under way on it.
pub(super) struct Link {
    client: Client,
    /// Subject of answers, without its last part.
    inbox: String,
    waiting: Rc<RefCell<Waiting>>,
    last: Cell<u64>,
    task: JoinHandle<()>,
    /// Largest message with its headers, in bytes.
    pub(super) payload_max: usize,
    address: String,
}

type Waiting = FxHashMap<u64, UnboundedSender<Message>>;

impl Link {
    /// Connects.
    pub(super) async fn open(config: &Config, encryption: Option<&Encryption>) -> Result<Link, StoreError> {
        let detail = |what: &dyn fmt::Display| format!("nats at {}: {what}", config.address);
        let late = || format!("no connection within {} s", CONNECT_MAX.as_secs());
        let connecting = options(config, encryption)?.connect(config.server.clone());
        let client = match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Err(_) => {
                return Err(StoreError::Unreachable {
                    detail: detail(&late()),
                });
            }
            Ok(Err(error)) => {
                let refuses = matches!(
                    error.kind(),
                    async_nats::ConnectErrorKind::Authentication
                        | async_nats::ConnectErrorKind::AuthorizationViolation
                        | async_nats::ConnectErrorKind::Tls
                );
                let detail = detail(&error);
                return Err(match refuses {
                    true => StoreError::Unopenable { detail },
                    false => StoreError::Unreachable { detail },
                });
            }
            Ok(Ok(client)) => client,
        };
        let (major, minor, patch) = VERSION_MIN;
        if !client.is_server_compatible(major, minor, patch) {
            let version = client.server_info().version;
            let what = format!("runs version {version}; it must be {major}.{minor} or newer");
            return Err(StoreError::Unopenable {
                detail: detail(&what),
            });
        }
        let failed = |what: &dyn fmt::Display| StoreError::Unreachable { detail: detail(what) };
        client
            .set_server_pool(NOWHERE)
            .await
            .map_err(|error| failed(&error))?;
        let inbox = format!("{}.", client.new_inbox());
        let answers = client
            .subscribe(format!("{inbox}*"))
            .await
            .map_err(|error| failed(&error))?;
        let waiting = Rc::new(RefCell::new(Waiting::default()));
        let task = tokio::task::spawn_local(deliver(answers, inbox.len(), waiting.clone()));
        Ok(Link {
            payload_max: client.max_payload(),
            client,
            inbox,
            waiting,
            last: Cell::new(0),
            task,
            address: config.address.clone(),
        })
    }

    /// A number that no other on this connection has had.
    pub(super) fn number(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// A name that no other connection has.
    pub(super) fn name(&self) -> &str {
        self.inbox
            .trim_end_matches('.')
            .rsplit('.')
            .next()
            .unwrap_or_default()
    }

    /// Sends a message to which no answer is wanted.
    pub(super) async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), StoreError> {
        let sent = self.client.publish_with_headers(subject, headers, payload).await;
        sent.map_err(|error| self.lost(&error))
    }

    /// Sends a message; its answers come one by one.
    pub(super) async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Answers<'_>, StoreError> {
        let answers = self.answers();
        let reply = format!("{}{}", self.inbox, answers.number);
        self.ask_for(&reply, subject, headers, payload).await?;
        Ok(answers)
    }

    /// Sends a message whose answers come to somebody who waits already.
    pub(super) async fn ask_for(
        &self,
        reply: &str,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), StoreError> {
        let reply = reply.to_owned();
        let sent = match headers {
            None => self.client.publish_with_reply(subject, reply, payload).await,
            Some(headers) => {
                let client = &self.client;
                client
                    .publish_with_reply_and_headers(subject, reply, headers, payload)
                    .await
            }
        };
        sent.map_err(|error| self.lost(&error))
    }

    /// Somebody who waits for answers.
    pub(super) fn answers(&self) -> Answers<'_> {
        let number = self.number();
        let (sender, receiver) = unbounded_channel();
        self.waiting.borrow_mut().insert(number, sender);
        // A connection that has ended delivers nothing, and has let go all who waited.
        if self.is_closed() {
            self.waiting.borrow_mut().clear();
        }
        Answers {
            link: self,
            number,
            receiver,
        }
    }

    /// One call of the streams' interface.
    pub(super) async fn call(&self, what: &str, request: &Value) -> Result<Value, StoreError> {
        let payload = Bytes::from(request.to_string());
        let mut answers = self.ask(format!("$JS.API.{what}"), None, payload).await?;
        let answer = answers.next().await?;
        if answer.status.is_some() {
            return Err(StoreError::Unreachable {
                detail: format!(
                    "nats at {}: JetStream does not answer; is it enabled?",
                    self.address
                ),
            });
        }
        serde_json::from_slice(&answer.payload).map_err(|_| StoreError::Corrupt {
            detail: format!("nats at {}: an answer that is no JSON", self.address),
        })
    }

    fn lost(&self, what: &dyn fmt::Display) -> StoreError {
        StoreError::Io {
            detail: format!("nats at {}: {what}", self.address),
        }
    }
}

impl Connection for Link {
    fn is_closed(&self) -> bool {
        self.task.is_finished()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers to one message.
pub(super) struct Answers<'l> {
    link: &'l Link,
    number: u64,
    receiver: UnboundedReceiver<Message>,
}

impl Answers<'_> {
    /// Subject to which they are sent.
    pub(super) fn subject(&self) -> String {
        format!("{}{}", self.link.inbox, self.number)
    }

    /// The next answer.
    ///
    /// Errors: [`StoreError::Io`], also if none comes in time.
    pub(super) async fn next(&mut self) -> Result<Message, StoreError> {
        match tokio::time::timeout(ANSWER_MAX, self.receiver.recv()).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.link.lost(&"the connection has ended")),
            Err(_) => {
                let what = format!("no answer within {} s", ANSWER_MAX.as_secs());
                Err(self.link.lost(&what))
            }
        }
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.link.waiting.borrow_mut().remove(&self.number);
    }
}

/// Hands answers to those who wait for them until the connection ends. Then all are let go.
async fn deliver(mut answers: Subscriber, prefix: usize, waiting: Rc<RefCell<Waiting>>) {
    while let Some(message) = poll_fn(|context| Pin::new(&mut answers).poll_next(context)).await {
        let number = message
            .subject
            .get(prefix..)
            .and_then(|number| number.parse::<u64>().ok());
        if let Some(sender) = number.and_then(|number| waiting.borrow().get(&number).cloned()) {
            // Whoever has just stopped waiting does not need it.
            let _ = sender.send(message);
        }
    }
    waiting.borrow_mut().clear();
}

fn options(config: &Config, encryption: Option<&Encryption>) -> Result<ConnectOptions, StoreError> {
    let mut options = ConnectOptions::new()
        .name("prism")
        .connection_timeout(CONNECT_MAX)
        .ping_interval(PING_PAUSE)
        .max_reconnects(1)
        .ignore_discovered_servers();
    options = match &config.credentials {
        Credentials::None => options,
        Credentials::UserAndPassword(user, password) => {
            options.user_and_password(user.clone(), password.clone())
        }
        Credentials::Token(token) => options.token(token.clone()),
        Credentials::Seed(seed) => options.nkey(seed.clone()),
        Credentials::File(text) => options.credentials(text).map_err(|error| {
            StoreError::invalid(
                "credentials_file",
                format!("holds no credentials of NATS: {error}"),
            )
        })?,
    };
    Ok(match encryption {
        None => options,
        Some(encryption) => options.require_tls(true).tls_client_config(encryption.settings()),
    })
}

/// An error within an answer of the streams' interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Number of the server's own list of errors.
    pub(super) number: u64,
    code: u64,
    description: String,
}

/// Numbers of that list.
pub(super) const STREAM_NOT_FOUND: u64 = 10_059;
pub(super) const NAME_IN_USE: u64 = 10_058;
pub(super) const BATCH_HAS_DUPLICATE: u64 = 10_201;
const TOO_LARGE: u64 = 10_054;
/// A limit of the stream, the account or the server, or its disk.
const FULL: [u64; 5] = [10_023, 10_028, 10_047, 10_077, 10_002];

impl Fault {
    /// The error of an answer, if it is one.
    pub(super) fn of(answer: &Value) -> Option<Fault> {
        let error = answer.get("error")?;
        let number = |name: &str| error.get(name).and_then(Value::as_u64).unwrap_or(0);
        Some(Fault {
            number: number("err_code"),
            code: number("code"),
            description: error
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned(),
        })
    }

    pub(super) fn into_store(self, address: &str) -> StoreError {
        let detail = format!("nats at {address}: {} ({})", self.description, self.number);
        match (self.number, self.code) {
            (TOO_LARGE, _) => StoreError::invalid("message.payload", detail),
            (number, _) if FULL.contains(&number) => StoreError::Full { detail },
            (_, 503) => StoreError::Unreachable { detail },
            (_, 400..500) => StoreError::Unopenable { detail },
            _ => StoreError::Io { detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_of_the_server_are_told_apart() {
        let fault = |number: u64, code: u64| {
            let answer = json!({"error": {"code": code, "err_code": number, "description": "why"}});
            Fault::of(&answer).expect("an error").into_store("a:1")
        };
        let detail = |number: u64| format!("nats at a:1: why ({number})");
        assert_eq!(
            fault(10_077, 503),
            StoreError::Full {
                detail: detail(10_077)
            }
        );
        assert_eq!(
            fault(10_008, 503),
            StoreError::Unreachable {
                detail: detail(10_008)
            }
        );
        assert_eq!(
            fault(10_058, 400),
            StoreError::Unopenable {
                detail: detail(10_058)
            }
        );
        assert_eq!(fault(1, 500), StoreError::Io { detail: detail(1) });
        assert!(!fault(10_054, 400).is_retryable());
        assert_eq!(Fault::of(&json!({"seq": 3})), None);
    }
}
