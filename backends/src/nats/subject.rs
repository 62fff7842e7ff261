//! Names that a server and its plain clients see: streams, subjects, and texts within headers.
//!
//! ```text
//!   stream PRISM    prism.store.namespace.7 · prism.store.position.7.LOG.LANE
//!   stream PRISM-7  prism.7.p03.orders.eu, where 3 is the partition and orders.eu the topic
//! ```

use std::fmt::Write as _;

use crate::error::StoreError;
use crate::ids::{LogId, NamespaceId};

/// Stream of the catalog's mark, the positions, and the numbers of dropped namespaces.
pub(super) const OWN: &str = "PRISM";

/// Subjects of that stream.
pub(super) const OWN_SUBJECTS: &str = "prism.store.>";

/// The stream of a namespace.
pub(super) fn stream(NamespaceId(namespace): NamespaceId) -> String {
    format!("{OWN}-{namespace}")
}

/// All subjects of a namespace's stream.
pub(super) fn all(NamespaceId(namespace): NamespaceId) -> String {
    format!("prism.{namespace}.>")
}

/// The subject whose last message says that a namespace was dropped.
pub(super) fn dropped(NamespaceId(namespace): NamespaceId) -> String {
    format!("prism.store.namespace.{namespace}")
}

/// The subject whose last message is the position of a lane.
pub(super) fn position(LogId(log): LogId, lane: u32, NamespaceId(namespace): NamespaceId) -> String {
    format!("prism.store.position.{namespace}.{log:032x}.{lane}")
}

/// The subject whose last message is the number up to which headers of positions do not count.
pub(super) fn floor(LogId(log): LogId, lane: u32, NamespaceId(namespace): NamespaceId) -> String {
    format!("prism.store.floor.{namespace}.{log:032x}.{lane}")
}

/// The subject of a message.
pub(super) fn message(NamespaceId(namespace): NamespaceId, partition: u16, topic: &str) -> String {
    let mut subject = format!("prism.{namespace}.p{partition:02}");
    if !topic.is_empty() {
        subject.push('.');
        escape(topic.as_bytes(), b".", &mut subject);
    }
    subject
}

/// The topic of a subject.
pub(super) fn topic(subject: &str) -> Result<String, StoreError> {
    let topic = subject.splitn(4, '.').nth(3).unwrap_or_default();
    let bytes = unescape(topic)?;
    String::from_utf8(bytes).map_err(|_| unreadable(subject))
}

/// Appends bytes as text that may stand in a subject or a header: letters, digits and some signs as
/// they are, all others as `%` and two hexadecimal digits. A dot stays only if it is `kept`.
pub(super) fn escape(bytes: &[u8], kept: &[u8], out: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_/:=+@,;!~".contains(byte) || kept.contains(byte) {
            out.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Such a text.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    escape(bytes, b".", &mut text);
    text
}

/// The bytes of such a text.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.split_at_checked(2).ok_or_else(|| unreadable(text))?;
        let byte = std::str::from_utf8(digits.0).ok();
        let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| unreadable(text))?);
        rest = digits.1;
    }
    Ok(bytes)
}

pub(super) fn unreadable(text: &str) -> StoreError {
    StoreError::Corrupt {
        detail: format!("nats: {text:?} is nothing that Prism has written"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subjects_show_namespace_partition_and_topic() {
        let namespace = NamespaceId(7);
        assert_eq!(message(namespace, 3, "orders.eu"), "prism.7.p03.orders.eu");
        assert_eq!(message(namespace, 12, ""), "prism.7.p12");
        assert_eq!(message(namespace, 0, "käse"), "prism.7.p00.k%C3%A4se");
        assert_eq!(
            (stream(namespace), all(namespace)),
            ("PRISM-7".to_owned(), "prism.7.>".to_owned())
        );
        assert_eq!(
            position(LogId(255), 2, namespace),
            "prism.store.position.7.000000000000000000000000000000ff.2"
        );
    }

    #[test]
    fn what_nobody_here_wrote_is_an_error() {
        for text in ["%", "%4", "%zz", "%é"] {
            assert!(unescape(text).is_err(), "{text}");
        }
        assert!(topic("prism.7.p00.%FF").is_err(), "no UTF-8");
    }

    proptest! {
        #[test]
        fn texts_come_back_and_need_no_quoting(bytes in any::<Vec<u8>>(), topic_of in "[a-z é€%\\*>]{0,9}") {
            let text = escaped(&bytes);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte)));
            prop_assert_eq!(unescape(&text).expect("readable"), bytes);
            let subject = message(NamespaceId(1), 4, &topic_of);
            prop_assert_eq!(topic(&subject).expect("readable"), topic_of);
        }
    }
}
