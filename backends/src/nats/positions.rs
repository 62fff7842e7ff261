//! How far the logs of gateways are applied here.
//!
//! A batch of records is stored as a whole and carries the position after it, in a header. The
//! position is then written to a stream of its own as well, before the batch counts as applied: the
//! messages expire, and it does not. So the last message of each partition, or that stream, tells
//! how far the store is.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde_json::{Value, json};

use super::connect::{Answers, Fault, Link};
use super::links::Links;
use super::{namespaces, subject};
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId};

/// Header of a batch's position.
pub(super) const HEADER: &str = "Prism-Position";

/// The value of that header.
pub(super) fn value(at: &LogPosition) -> String {
    format!("{:032x}.{}.{}", at.log.0, at.lane, at.lsn)
}

/// The record of a lane that a header names; 0 if it names another lane, or nothing.
fn record_of(text: &str, LogId(log): LogId, lane: u32) -> u64 {
    let prefix = format!("{log:032x}.{lane}.");
    let record = text.strip_prefix(&prefix).and_then(|record| record.parse().ok());
    record.unwrap_or(0)
}

/// Position of one lane in a namespace; 0 if none is noted.
pub(super) async fn noted(
    links: &Links,
    log: LogId,
    lane: u32,
    namespace: NamespaceId,
) -> Result<u64, StoreError> {
    let link = links.acquire().await?;
    let own = last(&link, subject::OWN, &subject::position(log, lane, namespace)).await?;
    let floor = last(&link, subject::OWN, &subject::floor(log, lane, namespace)).await?;
    let floor = floor.map_or(0, |message| parsed(&message.payload));
    let mut noted = own.map_or(0, |message| parsed(&message.payload));
    let mut asked = Vec::new();
    for partition in 0..PARTITIONS_MAX {
        let bare = subject::message(namespace, partition, "");
        for subject in [format!("{bare}.>"), bare] {
            asked.push(ask_last(&link, &subject::stream(namespace), &subject).await?);
        }
    }
    for mut answers in asked {
        let answer = answers.next().await?;
        // A status: no message of this subject, or no stream, which has no positions either.
        let Some(headers) = answer.headers.filter(|_| answer.status.is_none()) else {
            continue;
        };
        let number = |name: &str| {
            headers
                .get(name)
                .map_or(0, |value| parsed(value.as_str().as_bytes()))
        };
        let record = headers
            .get(HEADER)
            .map_or(0, |text| record_of(text.as_str(), log, lane));
        if number(SEQUENCE) > floor {
            noted = noted.max(record);
        }
    }
    Ok(noted)
}

/// Header of a message's number, which the server adds.
pub(super) const SEQUENCE: &str = "Nats-Sequence";

/// Most partitions of a namespace.
const PARTITIONS_MAX: u16 = 16;

fn parsed(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Notes a position.
pub(super) async fn note(links: &Links, link: &Link, at: &LogPosition) -> Result<(), StoreError> {
    let subject = subject::position(at.log, at.lane, at.namespace);
    write(links, link, subject, &at.lsn.to_string()).await
}

/// Forgets the position of one lane in a namespace: its records are gone for good. The headers of
/// the messages that are there count no longer.
pub(super) async fn forget(
    links: &Links,
    log: LogId,
    lane: u32,
    namespace: NamespaceId,
) -> Result<(), StoreError> {
    let link = links.acquire().await?;
    let info = namespaces::info(links, &link, namespace).await?;
    let last = info
        .and_then(|info| info["state"]["last_seq"].as_u64())
        .unwrap_or(0);
    write(
        links,
        &link,
        subject::floor(log, lane, namespace),
        &last.to_string(),
    )
    .await?;
    write(links, &link, subject::position(log, lane, namespace), "0").await
}

/// Writes a message to the stream of marks, instead of the one before.
pub(super) async fn write(
    links: &Links,
    link: &Link,
    subject: String,
    payload: &str,
) -> Result<(), StoreError> {
    let payload = Bytes::from(payload.to_owned());
    let mut answers = link.ask(subject, Some(HeaderMap::new()), payload).await?;
    let answer = answers.next().await?;
    if let Some(status) = answer.status {
        return Err(unexpected(links, status.as_u16()));
    }
    match acknowledged(&answer)? {
        Ok(_) => Ok(()),
        Err(fault) => Err(fault.into_store(links.address())),
    }
}

/// The acknowledgement of a message, or the server's error.
pub(super) fn acknowledged(answer: &Message) -> Result<Result<Value, Fault>, StoreError> {
    let value: Value = serde_json::from_slice(&answer.payload).map_err(|_| StoreError::Corrupt {
        detail: "nats: an acknowledgement that is no JSON".to_owned(),
    })?;
    Ok(match Fault::of(&value) {
        Some(fault) => Err(fault),
        None => Ok(value),
    })
}

/// The last message of a subject.
pub(super) async fn last(link: &Link, stream: &str, subject: &str) -> Result<Option<Message>, StoreError> {
    let answer = ask_last(link, stream, subject).await?.next().await?;
    Ok(Some(answer).filter(|answer| answer.status.is_none()))
}

async fn ask_last<'l>(link: &'l Link, stream: &str, subject: &str) -> Result<Answers<'l>, StoreError> {
    let payload = Bytes::from(json!({"last_by_subj": subject}).to_string());
    let what = format!("$JS.API.DIRECT.GET.{stream}");
    link.ask(what, None, payload).await
}

fn unexpected(links: &Links, code: u16) -> StoreError {
    StoreError::Unreachable {
        detail: format!("nats at {}: it answers with status {code}", links.address()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_counts_for_its_own_lane_only() {
        let at = LogPosition {
            log: LogId(7),
            lane: 2,
            namespace: NamespaceId(1),
            lsn: 900,
        };
        let text = value(&at);
        assert_eq!(record_of(&text, LogId(7), 2), 900);
        assert_eq!(record_of(&text, LogId(7), 20), 0);
        assert_eq!(record_of(&text, LogId(8), 2), 0);
        assert_eq!(record_of("what", LogId(7), 2), 0);
        assert_eq!((parsed(b"12"), parsed(b"x")), (12, 0));
    }
}
