//! Publishing: batches that the server stores as a whole, and one message after the other where it
//! has some of them already.
//!
//! ```text
//!   messages ─> by namespace ─> up to 500 at once ─┬─> one batch, one acknowledgement
//!                                                  └─ has a duplicate: each alone, in order
//! ```
//!
//! A batch is never stored in part, so its order survives whatever happens to the connection.

use std::collections::HashSet;

use async_nats::{HeaderMap, Message as Answer};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD};
use bytes::Bytes;
use serde_json::Value;

use super::connect::{BATCH_HAS_DUPLICATE, Fault, Link};
use super::links::Links;
use super::positions::{self, acknowledged};
use super::{namespaces, subject};
use crate::api::pubsub::{Message, Outcome};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId};
use crate::limits::{ATTRIBUTES_BYTES_MAX, MESSAGE_ID_BYTES_MAX, ORDERING_KEY_BYTES_MAX, TOPIC_BYTES_MAX};

/// Messages and bytes of one batch; the server takes 1,000.
const BATCH_MESSAGES_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Bytes of a message that its subject and headers may need in addition to their texts.
const OVERHEAD_BYTES: usize = 512;

/// Bytes that any message may need in addition to its payload.
pub(super) const BESIDE_PAYLOAD_MAX: usize = bytes_beside(
    TOPIC_BYTES_MAX + ORDERING_KEY_BYTES_MAX + MESSAGE_ID_BYTES_MAX,
    ATTRIBUTES_BYTES_MAX,
);

/// Bytes that a message may need in addition to its payload.
const fn bytes_beside(texts: usize, attributes: usize) -> usize {
    3 * texts + attributes.div_ceil(3) * 4 + OVERHEAD_BYTES
}

/// Headers of our own.
pub(super) const KEY: &str = "Prism-Key";
pub(super) const ATTRIBUTES: &str = "Prism-Attributes";
pub(super) const DIGEST: &str = "Prism-Digest";
pub(super) const EXPIRES: &str = "Prism-Expires";
/// The server's header of a message's id.
pub(super) const ID: &str = "Nats-Msg-Id";

/// Time that a message stays after it has expired, at least: the clocks of gateways differ.
const MARGIN_S: u64 = 1;

/// Longest time to live, in seconds: a hundred years.
const LIFE_MAX_S: u64 = 100 * 365 * 86_400;

/// Publishes as [`crate::api::pubsub::Writes::publish`] says.
pub(super) async fn publish(
    links: &Links,
    batch: &[Message<'_>],
    at: Option<&LogPosition>,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), StoreError> {
    outcomes.clear();
    let link = links.acquire().await?;
    let publisher = Publisher {
        links,
        link: &link,
        at,
    };
    outcomes.extend(batch.iter().map(|message| publisher.judge(message)));
    let result = publisher.all(batch, outcomes).await;
    if result.is_err() {
        outcomes.clear();
    }
    result
}

struct Publisher<'p> {
    links: &'p Links,
    link: &'p Link,
    at: Option<&'p LogPosition>,
}

impl Publisher<'_> {
    /// The outcome of a message as far as it depends on nothing else.
    fn judge(&self, message: &Message<'_>) -> Outcome {
        let texts = message.topic.len() + message.key.len() + message.id.len();
        let length = message.payload.len() + bytes_beside(texts, message.attributes.len());
        let max = self.link.payload_max;
        match message.check() {
            Err(error) => Outcome::Refused(error),
            Ok(()) if length > max => Outcome::Refused(StoreError::invalid(
                "message.payload",
                format!(
                    "the message needs up to {length} bytes with its headers, and nats at {} takes {max} (max_payload); \
                     raise it there",
                    self.links.address()
                ),
            )),
            Ok(()) => Outcome::Published,
        }
    }

    async fn all(&self, batch: &[Message<'_>], outcomes: &mut [Outcome]) -> Result<(), StoreError> {
        let mut namespaces: Vec<NamespaceId> = batch.iter().map(|message| message.namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        for namespace in namespaces {
            let is_due = |index: &usize| {
                batch[*index].namespace == namespace && outcomes[*index] == Outcome::Published
            };
            let due: Vec<usize> = (0..batch.len()).filter(is_due).collect();
            let mut rest = &due[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(together(batch, rest));
                self.some(batch, now, later.is_empty(), outcomes).await?;
                rest = later;
            }
        }
        match self.at {
            Some(at) => positions::note(self.links, self.link, at).await,
            None => Ok(()),
        }
    }

    /// Publishes messages of one namespace. The last ones of all carry the position.
    async fn some(
        &self,
        batch: &[Message<'_>],
        indices: &[usize],
        is_last: bool,
        outcomes: &mut [Outcome],
    ) -> Result<(), StoreError> {
        let mut ids = HashSet::new();
        let have_own_ids = indices.iter().all(|index| ids.insert(batch[*index].id));
        if indices.len() > 1 && have_own_ids && self.together(batch, indices, is_last, outcomes).await? {
            return Ok(());
        }
        let at = self.at.filter(|_| is_last);
        for (place, index) in indices.iter().enumerate() {
            // All that come before are stored then.
            let at = at.filter(|_| place + 1 == indices.len());
            outcomes[*index] = self.alone(&batch[*index], at).await?;
        }
        Ok(())
    }

    /// Publishes messages as one batch; false, and none is stored, if the server has one of them.
    async fn together(
        &self,
        batch: &[Message<'_>],
        indices: &[usize],
        is_last: bool,
        outcomes: &mut [Outcome],
    ) -> Result<bool, StoreError> {
        let name = format!("{}-{}", self.link.name(), self.link.number());
        let at = self.at.filter(|_| is_last);
        let mut answers = self.link.answers();
        let reply = answers.subject();
        for (place, index) in (1..).zip(indices) {
            let message = &batch[*index];
            let (subject, mut headers, payload) = wire(message, at);
            headers.insert("Nats-Batch-Id", name.as_str());
            headers.insert("Nats-Batch-Sequence", place.to_string().as_str());
            let ends = place == indices.len();
            if ends {
                headers.insert("Nats-Batch-Commit", "1");
            }
            // The first is answered as well, so that a refusal of the whole shows why.
            match place == 1 || ends {
                true => self.link.ask_for(&reply, subject, Some(headers), payload).await?,
                false => self.link.send(subject, headers, payload).await?,
            }
        }
        let answer = loop {
            let answer = answers.next().await?;
            if !answer.payload.is_empty() || answer.status.is_some() {
                break answer;
            }
        };
        let namespace = batch[indices[0]].namespace;
        match self.verdict(namespace, &answer).await? {
            Verdict::Stored(_) => Ok(true),
            Verdict::Absent(cause) => {
                indices
                    .iter()
                    .for_each(|index| outcomes[*index] = Outcome::Refused(cause.clone()));
                Ok(true)
            }
            Verdict::Failed(fault) if fault.number == BATCH_HAS_DUPLICATE => Ok(false),
            Verdict::Failed(fault) => Err(fault.into_store(self.links.address())),
        }
    }

    async fn alone(&self, message: &Message<'_>, at: Option<&LogPosition>) -> Result<Outcome, StoreError> {
        let (subject, headers, payload) = wire(message, at);
        let mut answers = self.link.ask(subject, Some(headers), payload).await?;
        let answer = answers.next().await?;
        Ok(match self.verdict(message.namespace, &answer).await? {
            Verdict::Absent(cause) => Outcome::Refused(cause),
            Verdict::Stored(receipt) if receipt["duplicate"] == true => {
                self.repeat(message, receipt["seq"].as_u64().unwrap_or(0)).await?
            }
            Verdict::Stored(_) => Outcome::Published,
            Verdict::Failed(fault) => match fault.into_store(self.links.address()) {
                refused if !refused.is_retryable() => Outcome::Refused(refused),
                error => return Err(error),
            },
        })
    }

    async fn verdict(&self, namespace: NamespaceId, answer: &Answer) -> Result<Verdict, StoreError> {
        if answer.status.is_some() {
            // No stream takes the subject.
            return match namespaces::absent(self.links, self.link, namespace).await {
                cause @ (StoreError::UnknownNamespace(_) | StoreError::DroppedNamespace(_)) => {
                    Ok(Verdict::Absent(cause))
                }
                error => Err(error),
            };
        }
        Ok(match acknowledged(answer)? {
            Ok(receipt) => Verdict::Stored(receipt),
            Err(fault) => Verdict::Failed(fault),
        })
    }

    /// The outcome of a message whose id the server knows, by the message that has it.
    async fn repeat(&self, message: &Message<'_>, number: u64) -> Result<Outcome, StoreError> {
        if message.promised || message.digest.is_none() {
            return Ok(Outcome::Repeat);
        }
        let what = format!("$JS.API.DIRECT.GET.{}", subject::stream(message.namespace));
        let payload = Bytes::from(serde_json::json!({"seq": number}).to_string());
        let answer = self.link.ask(what, None, payload).await?.next().await?;
        let digest = answer.headers.as_ref().and_then(|headers| headers.get(DIGEST));
        let digest = digest.and_then(|text| u64::from_str_radix(text.as_str(), 16).ok());
        Ok(match digest.zip(message.digest) {
            Some((first, this)) if first != this => Outcome::Refused(StoreError::TokenReused),
            _ => Outcome::Repeat,
        })
    }
}

enum Verdict {
    Stored(Value),
    /// The namespace has no stream.
    Absent(StoreError),
    Failed(Fault),
}

/// Number of these messages that go into one batch; at least one.
fn together(batch: &[Message<'_>], indices: &[usize]) -> usize {
    let mut bytes = 0;
    let fits = |index: &&usize| {
        bytes += batch[**index].payload.len();
        bytes <= BATCH_BYTES_MAX
    };
    let count = indices.iter().take(BATCH_MESSAGES_MAX).take_while(fits).count();
    count.max(1)
}

/// A message as the server takes it.
fn wire(message: &Message<'_>, at: Option<&LogPosition>) -> (String, HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(ID, subject::escaped(message.id).as_str());
    if !message.key.is_empty() {
        headers.insert(KEY, subject::escaped(message.key.as_bytes()).as_str());
    }
    if !message.attributes.is_empty() {
        headers.insert(ATTRIBUTES, STANDARD_NO_PAD.encode(message.attributes).as_str());
    }
    if let Some(digest) = message.digest {
        headers.insert(DIGEST, format!("{digest:016x}").as_str());
    }
    if let Some(expires_at) = message.expires_at {
        headers.insert(EXPIRES, expires_at.0.to_string().as_str());
        let life = expires_at.0.saturating_sub(message.at.0).div_ceil(1_000) + MARGIN_S;
        headers.insert("Nats-TTL", format!("{}s", life.min(LIFE_MAX_S)).as_str());
    }
    if let Some(at) = at {
        headers.insert(positions::HEADER, positions::value(at).as_str());
    }
    let subject = subject::message(message.namespace, message.partition, message.topic);
    (subject, headers, Bytes::copy_from_slice(message.payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UnixMillis;

    fn message(payload: &[u8]) -> Message<'_> {
        Message {
            namespace: NamespaceId(1),
            partition: 0,
            id: b"id",
            digest: None,
            promised: false,
            at: UnixMillis(1_000),
            expires_at: None,
            topic: "t",
            key: "",
            attributes: b"",
            payload,
        }
    }

    #[test]
    fn batches_are_bounded_by_messages_and_bytes() {
        let small = vec![message(b"x"); BATCH_MESSAGES_MAX + 1];
        let all: Vec<usize> = (0..small.len()).collect();
        assert_eq!(together(&small, &all), BATCH_MESSAGES_MAX);
        let half = vec![0; BATCH_BYTES_MAX / 2];
        let large = vec![message(&half); 3];
        assert_eq!(together(&large, &all[..3]), 2);
        let whole = vec![0; BATCH_BYTES_MAX + 1];
        assert_eq!(together(&[message(&whole)], &[0]), 1, "at least one");
    }

    #[test]
    fn a_message_stays_until_it_has_expired_everywhere() {
        let dated = Message {
            expires_at: Some(UnixMillis(3_001)),
            ..message(b"x")
        };
        let (_, headers, _) = wire(&dated, None);
        let text = |name| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(text("Nats-TTL").as_deref(), Some("4s"));
        assert_eq!(text(EXPIRES).as_deref(), Some("3001"));
        assert_eq!(text(KEY), None);
    }
}
