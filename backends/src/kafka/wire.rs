//! The form of messages that a broker and its plain clients see: topics, keys and headers.
//!
//! ```text
//!   topic prism      one partition, compacted: marks, each under a key of its own
//!   topic prism-7    one partition: the messages of namespace 7; prism is the store's prefix
//! ```

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};

use crate::api::pubsub::Message;
use crate::ids::{LogId, LogPosition, NamespaceId, UnixMillis};

/// The topic of a namespace.
pub(super) fn topic(prefix: &str, NamespaceId(namespace): NamespaceId) -> String {
    format!("{prefix}-{namespace}")
}

const TOPIC: &str = "prism-topic";
const ID: &str = "prism-id";
const ATTRIBUTES: &str = "prism-attributes";
const EXPIRES: &str = "prism-expires";
const DIGEST: &str = "prism-digest";
const POSITION: &str = "prism-position";

/// Key of a message: the topic, a zero byte, the ordering key.
pub(super) fn key(message: &Message<'_>) -> Vec<u8> {
    [message.topic.as_bytes(), b"\0", message.key.as_bytes()].concat()
}

/// Headers of a message. `at` is the position of its batch, and the number of messages of the batch
/// that come after it.
pub(super) fn headers(message: &Message<'_>, at: Option<(&LogPosition, usize)>) -> OwnedHeaders {
    let text = |key, value: &str| (key, value.as_bytes().to_vec());
    let mut all = vec![
        (TOPIC, message.topic.as_bytes().to_vec()),
        (ID, message.id.to_vec()),
    ];
    if !message.attributes.is_empty() {
        all.push((ATTRIBUTES, message.attributes.to_vec()));
    }
    if let Some(expires_at) = message.expires_at {
        all.push(text(EXPIRES, &expires_at.0.to_string()));
    }
    if let Some(digest) = message.digest {
        all.push(text(DIGEST, &format!("{digest:016x}")));
    }
    if let Some((at, left)) = at {
        all.push(text(
            POSITION,
            &format!("{:032x}/{}/{}/{left}", at.log.0, at.lane, at.lsn),
        ));
    }
    let mut headers = OwnedHeaders::new_with_capacity(all.len());
    for (key, value) in &all {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    headers
}

/// A message as it lies in a topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) offset: u64,
    pub(super) time: UnixMillis,
    pub(super) key: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// Headers of ours; empty where there is none.
    pub(super) topic: Option<Vec<u8>>,
    pub(super) id: Vec<u8>,
    pub(super) attributes: Vec<u8>,
    pub(super) expires_at: Option<UnixMillis>,
    pub(super) digest: Option<u64>,
    pub(super) position: Option<Position>,
}

/// A position in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) log: LogId,
    pub(super) lane: u32,
    pub(super) lsn: u64,
    /// Messages of its batch that come after this one.
    pub(super) left: u64,
}

impl Taken {
    /// Copies a message.
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Taken {
        let mut taken = Taken {
            offset: u64::try_from(message.offset()).unwrap_or(0),
            time: UnixMillis(message.timestamp().to_millis().unwrap_or(0).unsigned_abs()),
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            ..Taken::default()
        };
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            taken.note(header.key, header.value.unwrap_or_default());
        }
        taken
    }

    fn note(&mut self, name: &str, value: &[u8]) {
        let text = std::str::from_utf8(value).unwrap_or_default();
        match name {
            TOPIC => self.topic = Some(value.to_vec()),
            ID => self.id = value.to_vec(),
            ATTRIBUTES => self.attributes = value.to_vec(),
            EXPIRES => self.expires_at = text.parse().ok().map(UnixMillis),
            DIGEST => self.digest = u64::from_str_radix(text, 16).ok(),
            POSITION => self.position = position_of(text),
            _ => {}
        }
    }

    /// The topic and the ordering key. What a plain client has published may have none.
    pub(super) fn topic_and_key(&self) -> (String, String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(topic) = &self.topic else {
            return (String::new(), text(&self.key));
        };
        let key = self
            .key
            .strip_prefix(&topic[..])
            .and_then(|rest| rest.strip_prefix(b"\0"));
        (text(topic), text(key.unwrap_or_default()))
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.key.len() + self.attributes.len() + 256
    }
}

fn position_of(text: &str) -> Option<Position> {
    let mut parts = text.split('/');
    let position = Position {
        log: LogId(u128::from_str_radix(parts.next()?, 16).ok()?),
        lane: parts.next()?.parse().ok()?,
        lsn: parts.next()?.parse().ok()?,
        left: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(topic: &'static str, key: &'static str) -> Message<'static> {
        Message {
            namespace: NamespaceId(1),
            partition: 0,
            id: b"\x00id",
            digest: Some(0xab),
            promised: false,
            at: UnixMillis(5),
            expires_at: Some(UnixMillis(77)),
            topic,
            key,
            attributes: b"\xff",
            payload: b"x",
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let at = LogPosition {
            log: LogId(7),
            lane: 2,
            namespace: NamespaceId(1),
            lsn: 900,
        };
        for (topic, ordering) in [("orders.eu", "k"), ("", ""), ("käse", "")] {
            let message = sent(topic, ordering);
            let mut taken = Taken {
                key: key(&message),
                ..Taken::default()
            };
            for header in headers(&message, Some((&at, 3))).as_borrowed().iter() {
                taken.note(header.key, header.value.expect("a value"));
            }
            assert_eq!(taken.topic_and_key(), (topic.to_owned(), ordering.to_owned()));
            assert_eq!((&*taken.id, &*taken.attributes), (&b"\x00id"[..], &b"\xff"[..]));
            assert_eq!(
                (taken.expires_at, taken.digest),
                (Some(UnixMillis(77)), Some(0xab))
            );
            let position = taken.position.expect("a position");
            assert_eq!((position.log, position.lane), (LogId(7), 2));
            assert_eq!((position.lsn, position.left), (900, 3));
        }
    }

    #[test]
    fn a_plain_clients_message_has_no_topic_and_odd_positions_are_none() {
        let plain = Taken {
            key: b"k".to_vec(),
            ..Taken::default()
        };
        assert_eq!(plain.topic_and_key(), (String::new(), "k".to_owned()));
        for text in ["", "7/1/2", "7/1/2/3/4", "x/1/2/3", "7/-1/2/3"] {
            assert_eq!(position_of(text), None, "{text}");
        }
    }
}
