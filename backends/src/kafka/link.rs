//! The clients of one shard: a producer and a consumer, which live and end together.
//!
//! A producer stops at its first failure: what it was given later is then not sent before what has
//! failed. A new one is made instead, and whoever waits for the old one gets an error.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::config::{Config, MESSAGE_BYTES_MAX};
use crate::error::StoreError;
use crate::ids::UnixMillis;
use crate::single::Connection;

/// Longest time to connect, with TLS and authentication.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Longest time that the answer to a question is awaited.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The clients. They end when this is dropped, whatever is under way on them.
pub(super) struct Link {
    producer: Option<ThreadedProducer<Ear>>,
    consumer: Option<Arc<BaseConsumer<Ear>>>,
    ear: Ear,
    address: String,
    own: String,
}

/// Listener to the brokers.
#[derive(Clone)]
pub(super) struct Ear(Arc<Heard>);

struct Heard {
    /// Reason why nothing can be sent or received any more.
    closed: watch::Sender<Option<String>>,
    /// The last error, with its text.
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

/// Receiver of the report on one message.
pub(super) struct Report {
    pub(super) index: usize,
    pub(super) to: UnboundedSender<Delivered>,
}

/// Fate of a message: its offset and time, or the cause of its failure.
pub(super) struct Delivered {
    pub(super) index: usize,
    pub(super) result: Result<(u64, UnixMillis), RDKafkaErrorCode>,
}

impl Ear {
    fn close(&self, reason: &str) {
        self.0.closed.send_if_modified(|closed| {
            let is_first = closed.is_none();
            if is_first {
                *closed = Some(reason.to_owned());
            }
            is_first
        });
    }

    fn note(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else {
            return;
        };
        match code {
            RDKafkaErrorCode::AllBrokersDown => {
                let last = self.last().map(|(_, text)| text);
                self.close(last.as_deref().unwrap_or(reason));
            }
            RDKafkaErrorCode::Fatal => self.close(reason),
            _ => {
                *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()))
            }
        }
    }

    fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Ear {
    /// Nothing: errors come with their reasons.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error, reason);
    }
}

impl ConsumerContext for Ear {}

impl ProducerContext for Ear {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Box<Report>) {
        let result = match result {
            Ok(message) => {
                let time = message.timestamp().to_millis().unwrap_or(0);
                Ok((
                    u64::try_from(message.offset()).unwrap_or(0),
                    UnixMillis(time.unsigned_abs()),
                ))
            }
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        // Whoever has stopped waiting does not need it.
        let _ = report.to.send(Delivered {
            index: report.index,
            result,
        });
    }
}

impl Link {
    /// Makes the clients, and waits until a broker answers.
    pub(super) async fn open(config: &Config) -> Result<Link, StoreError> {
        let ear = Ear(Arc::new(Heard {
            closed: watch::Sender::new(None),
            last: Mutex::default(),
        }));
        let unusable = |error: KafkaError| {
            StoreError::invalid("stores", format!("kafka at {}: {error}", config.address))
        };
        let producer: ThreadedProducer<Ear> = producer_config(config)
            .create_with_context(ear.clone())
            .map_err(unusable)?;
        let consumer: BaseConsumer<Ear> = consumer_config(config)
            .create_with_context(ear.clone())
            .map_err(unusable)?;
        let link = Link {
            producer: Some(producer),
            consumer: Some(Arc::new(consumer)),
            ear,
            address: config.address.clone(),
            own: config.prefix.clone(),
        };
        tokio::select! {
            answer = link.metadata(&config.prefix, CONNECT_MAX) => answer.map(drop)?,
            reason = link.closed() => return Err(link.out_of_reach(&reason)),
        }
        Ok(link)
    }

    /// Topic of the marks.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// Waits until nothing can be sent or received any more; returns the reason.
    pub(super) async fn closed(&self) -> String {
        let mut closed = self.ear.0.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// Gives the clients up. What was not sent never will be.
    pub(super) fn close(&self, reason: &str) {
        self.ear.close(reason);
        self.producer().purge(PurgeConfig::default().queue().inflight());
    }

    pub(super) fn producer(&self) -> &ThreadedProducer<Ear> {
        self.producer
            .as_ref()
            .expect("it is there until the link is dropped")
    }

    pub(super) fn consumer(&self) -> &Arc<BaseConsumer<Ear>> {
        self.consumer
            .as_ref()
            .expect("it is there until the link is dropped")
    }

    /// Serves the events of the consumer itself; its errors say why nothing comes.
    pub(super) fn attend(&self) {
        while let Some(event) = self.consumer().poll(Duration::ZERO) {
            if let Err(error) = event {
                self.ear.note(&error, &error.to_string());
            }
        }
    }

    /// Asks a question of a broker on a thread that may wait.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Ear>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let consumer = self.consumer().clone();
        let asked = tokio::task::spawn_blocking(move || question(&consumer));
        asked.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Metadata of a topic, and of all brokers.
    pub(super) async fn metadata(&self, topic: &str, longest: Duration) -> Result<Metadata, StoreError> {
        let topic = topic.to_owned();
        let answer = self
            .ask(move |consumer| consumer.fetch_metadata(Some(&topic), longest))
            .await;
        answer.map_err(|error| self.failed(&error))
    }

    /// Error of a question that was not answered; nothing was changed.
    pub(super) fn failed(&self, error: &KafkaError) -> StoreError {
        self.attend();
        self.out_of_reach(&error.to_string())
    }

    fn out_of_reach(&self, reason: &str) -> StoreError {
        let (code, text) = self.ear.last().unzip();
        let refuses = matches!(
            code,
            Some(
                RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SSL
                    | RDKafkaErrorCode::SaslAuthenticationFailed
            )
        );
        let detail = format!("kafka at {}: {}", self.address, text.as_deref().unwrap_or(reason));
        match refuses {
            true => StoreError::Unopenable { detail },
            false => StoreError::Unreachable { detail },
        }
    }
}

impl Connection for Link {
    fn is_closed(&self) -> bool {
        self.ear.0.closed.borrow().is_some()
    }

    /// Whoever still reads from it keeps it for a while; nothing is sent by it any more.
    fn give_up(&self) {
        self.close("it was given up");
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop_apart((self.producer.take(), self.consumer.take()));
    }
}

/// Drops clients, which wait for the end of their connections, on a thread that may wait.
fn drop_apart<T: Send + 'static>(clients: T) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(clients))),
        Err(_) => drop(clients),
    }
}

fn producer_config(config: &Config) -> rdkafka::ClientConfig {
    let mut producer = config.client();
    producer
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // The first failure ends the producer: nothing overtakes what has failed.
        .set("enable.gapless.guarantee", "true")
        // It gives up when it is told to.
        .set("message.timeout.ms", "0")
        .set("linger.ms", "0")
        .set("message.max.bytes", MESSAGE_BYTES_MAX)
        .set("queue.buffering.max.kbytes", "131072")
        .set("topic.metadata.propagation.max.ms", "3000");
    producer
}

fn consumer_config(config: &Config) -> rdkafka::ClientConfig {
    let mut consumer = config.client();
    consumer
        // Named for its assignments only: nothing is committed.
        .set("group.id", "prism")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        // A partition that is asked for must not wait long for the question that is under way.
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.min.messages", "2000")
        .set("queued.max.messages.kbytes", "2048")
        .set("fetch.message.max.bytes", "1048576");
    consumer
}
