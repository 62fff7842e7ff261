//! PubSub: the meaning of its calls. Views of the wire in, response messages out.
//!
//! The key of a message, by which it has an owner among the shards, is the name of its partition,
//! which follows from topic and ordering key. This module knows nothing of connections, shards or
//! threads.

pub(crate) mod apply;
pub(crate) mod memory;
pub(crate) mod position;
pub(crate) mod reads;
pub(crate) mod writes;

use prism_backends::{Digest, api::pubsub::ID_WINDOW_MS};
use prism_codec::{
    grpc::{Code, Status},
    message::{
        common::TokenView,
        pubsub::{MessageView, PublishBatchView, PublishView, SubscribeView},
    },
    method::PubSubMethod,
};
use smallvec::SmallVec;

use crate::call::{
    error,
    footprint::{CallToken, Footprint},
};

/// Partitions of every namespace.
pub(crate) const PARTITIONS: usize = 16;

/// Keys of the partitions. They determine the owners, and logs on disk are laid out by owners, so
/// they never change.
const PARTITION_KEYS: [&str; PARTITIONS] = [
    "p00", "p01", "p02", "p03", "p04", "p05", "p06", "p07", "p08", "p09", "p10", "p11", "p12", "p13", "p14",
    "p15",
];

/// A decoded request. Everything in it has been checked against the limits of the wire.
pub(crate) enum Request<'a> {
    Publish(PublishView<'a>),
    PublishBatch(PublishBatchView<'a>),
    Subscribe(SubscribeView<'a>),
}

impl<'a> Request<'a> {
    /// Decodes the request message of a method.
    pub(crate) fn decode(method: PubSubMethod, message: &'a [u8]) -> Result<Self, Box<Status>> {
        let decoded = match method {
            PubSubMethod::Publish => PublishView::decode(message).map(Self::Publish),
            PubSubMethod::PublishBatch => PublishBatchView::decode(message).map(Self::PublishBatch),
            PubSubMethod::Subscribe => SubscribeView::decode(message).map(Self::Subscribe),
            PubSubMethod::Commit
            | PubSubMethod::ListGroups
            | PubSubMethod::ResetGroup
            | PubSubMethod::DeleteGroup => return Err(error::not_served(method.into())),
        };
        decoded.map_err(|cause| error::from_decode(&cause))
    }

    /// The namespace that the request names.
    pub(crate) fn namespace(&self) -> &'a str {
        match self {
            Self::Publish(view) => view.namespace,
            Self::PublishBatch(view) => view.namespace,
            Self::Subscribe(view) => view.namespace,
        }
    }

    /// The idempotency token of a write.
    pub(crate) fn token(&self) -> Option<TokenView<'a>> {
        match self {
            Self::Publish(view) => view.token,
            Self::PublishBatch(view) => view.token,
            Self::Subscribe(_) => None,
        }
    }

    /// The keys of the partitions that the request writes to, those of a batch in its order.
    pub(crate) fn keys(&self, mut each: impl FnMut(&'a str)) {
        match self {
            Self::Publish(view) => each(key_of(&view.message)),
            Self::PublishBatch(view) => view.messages.iter().for_each(|one| each(key_of(&one.message))),
            Self::Subscribe(_) => {}
        }
    }

    /// The token of a write, with the digest that separates its repeats from other calls.
    pub(crate) fn call_token(&self) -> Option<CallToken<'a>> {
        let token = self.token()?;
        Some(CallToken {
            // The token alone is the message's id, whatever generation time its client gives.
            time: None,
            token: token.token,
            digest: self.digest(),
        })
    }

    /// Facts about a write that the log needs.
    pub(crate) fn footprint(&self) -> Footprint<'a> {
        let mut keys = SmallVec::new();
        self.keys(|key| {
            if !keys.contains(&key) {
                keys.push(key);
            }
        });
        Footprint {
            keys,
            token: self.call_token(),
        }
    }

    /// A digest of everything that is published.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        match self {
            Self::Publish(view) => add_message(&mut digest, &view.message),
            Self::PublishBatch(view) => {
                digest.number(view.messages.len() as u64);
                view.messages
                    .iter()
                    .for_each(|one| add_message(&mut digest, &one.message));
            }
            Self::Subscribe(_) => {}
        }
        digest.finish()
    }
}

fn add_message(digest: &mut Digest, message: &MessageView<'_>) {
    digest.bytes(message.topic.as_bytes());
    digest.bytes(message.ordering_key.as_bytes());
    digest.bytes(message.payload);
    // Clients write the entries of a map in any order, and in another one when they repeat the
    // call.
    let one = |attribute: prism_codec::message::pubsub::AttributeView<'_>| {
        let mut digest = Digest::default();
        digest.bytes(attribute.name.as_bytes());
        digest.bytes(attribute.value.as_bytes());
        digest.finish()
    };
    digest.number(message.attributes.iter().map(one).fold(0, u64::wrapping_add));
}

/// The partition of a topic and an ordering key. The same in every release.
pub(crate) fn partition_of(message: &MessageView<'_>) -> usize {
    let mut digest = Digest::default();
    digest.bytes(message.topic.as_bytes());
    digest.bytes(message.ordering_key.as_bytes());
    (digest.finish() % PARTITIONS as u64) as usize
}

fn key_of(message: &MessageView<'_>) -> &'static str {
    PARTITION_KEYS[partition_of(message)]
}

/// Refuses a token so old that a repeat of the call cannot be recognised, and one with a time too
/// far ahead.
pub(crate) fn check_token(request: &Request<'_>, wall_ns: i64, drift_max_ns: i64) -> Result<(), Box<Status>> {
    let Some(time) = request.token().and_then(|token| token.generation_time) else {
        return Ok(());
    };
    let time = time.as_unix_nanos().unwrap_or(i64::MAX);
    if time.saturating_sub(wall_ns) > drift_max_ns {
        return Err(error::invalid(
            "idempotency_token.generation_time",
            &format!(
                "must lie at most {} s ahead of the gateway's clock; leave it out to use that clock",
                drift_max_ns / 1_000_000_000
            ),
        ));
    }
    if wall_ns.saturating_sub(time) <= ID_WINDOW_MS as i64 * 1_000_000 {
        return Ok(());
    }
    let now = (wall_ns / 1_000_000_000).to_string();
    Err(Box::new(
        Status::new(
            Code::FailedPrecondition,
            format!(
                "the idempotency token is older than {} min, so it cannot be told whether the call is a repeat; nothing was \
                 done: look whether the message is there, then publish with a new token",
                ID_WINDOW_MS / 60_000
            ),
        )
        .with_reason("TOKEN_EXPIRED", &[("gateway_time", &now)]),
    ))
}

/// Demands of a namespace on a message, beyond the limits of the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Whether messages may have an ordering key.
    pub(crate) ordered: bool,
    pub(crate) payload_bytes_max: usize,
    /// Whether a subscription may begin with existing messages.
    pub(crate) replay: bool,
}

/// Refuses a message that the namespace does not accept; a whole batch for one such message.
pub(crate) fn check(request: &Request<'_>, rules: Rules) -> Result<(), Box<Status>> {
    match request {
        Request::Publish(view) => match refusal(&view.message, rules) {
            Some((field, why)) => Err(error::invalid(&format!("message.{field}"), &why)),
            None => Ok(()),
        },
        Request::PublishBatch(view) => {
            for (index, one) in view.messages.iter().enumerate() {
                if let Some((field, why)) = refusal(&one.message, rules) {
                    return Err(error::invalid(&format!("messages[{index}].{field}"), &why));
                }
            }
            Ok(())
        }
        Request::Subscribe(view) if !view.group.is_empty() => Err(Box::new(
            Status::new(
                Code::Unimplemented,
                "groups of subscribers are not served by this version; leave group out, and keep the position of the \
                 last answer",
            )
            .with_reason("STORE_LACKS", &[("field", "group")]),
        )),
        Request::Subscribe(view) => reads::check_start(view, rules),
    }
}

/// The field of a message that the namespace does not accept, and why.
fn refusal(message: &MessageView<'_>, rules: Rules) -> Option<(&'static str, String)> {
    let (length, max) = (message.payload.len(), rules.payload_bytes_max);
    if length > max {
        let why = format!("must have at most {max} bytes (the namespace's max_message_size), has {length}");
        return Some(("payload", why));
    }
    if !rules.ordered && !message.ordering_key.is_empty() {
        let why = "needs a namespace with ordered: true; leave it out, or make such a namespace";
        return Some(("ordering_key", why.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_pinned_because_logs_are_laid_out_by_them() {
        fn of(topic: &str, ordering_key: &str) -> usize {
            partition_of(&MessageView {
                topic,
                ordering_key,
                ..MessageView::default()
            })
        }
        assert_eq!(
            [of("", ""), of("orders", "k1"), of("orders", "k2"), of("a", "b")],
            PINNED
        );
        let mut seen = [0; PARTITIONS];
        for number in 0..1_600 {
            seen[of("orders", &format!("key-{number}"))] += 1;
        }
        assert!(seen.iter().all(|count| (60..=140).contains(count)), "{seen:?}");
    }

    const PINNED: [usize; 4] = [1, 0, 10, 0];
}
