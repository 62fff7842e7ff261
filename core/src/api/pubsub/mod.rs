//! PubSub: the meaning of its calls. Views of the wire in, response messages out.
//!
//! The key of a message, by which it has an owner among the shards, is the name of its partition,
//! which follows from topic and ordering key. All groups of a namespace have one owner. This module
//! knows nothing of connections, shards or threads.

pub(super) mod apply;
pub(super) mod execute;
pub(crate) mod groups;
mod member;
mod memory;
mod position;
pub(crate) mod reads;
mod subscription;
mod writes;

use std::time::Duration;

use prism_backends::{
    Digest, StoreError, UnixMillis,
    api::pubsub::ID_WINDOW_MS,
    sqlite::{Reader, Writer},
};
use prism_codec::{
    grpc::Status,
    message::{
        common::{TimestampView, TokenView},
        pubsub::{
            CommitView, DeleteGroupView, ListGroupsView, MessageView, PublishBatchView, PublishView,
            ResetGroupView, SubscribeView,
        },
    },
    method::PubSubMethod,
};
use prism_wal::tail::Payload;
use smallvec::SmallVec;

use super::{
    Applied, Batch, StoreCall,
    memory::ShardMemory,
    service::{Loggable, Request, Service, check_window},
    stream::Opened,
};
use crate::{
    call::{
        context::Context,
        error,
        footprint::{CallToken, Footprint},
        job::PartOutcome,
        record::{LoggedWrite, Part},
    },
    namespace::spec::NamespaceSpec,
};

/// Partitions of every namespace.
const PARTITIONS: usize = 16;

/// Keys of the partitions. They determine the owners, and logs on disk are laid out by owners, so
/// they never change.
const PARTITION_KEYS: [&str; PARTITIONS] = [
    "p00", "p01", "p02", "p03", "p04", "p05", "p06", "p07", "p08", "p09", "p10", "p11", "p12", "p13", "p14",
    "p15",
];

/// The key of the groups of a namespace: one, so that they have one owner. As of the partitions, it
/// never changes.
const GROUPS_KEY: &str = "groups";

/// The service.
pub(crate) struct PubSub;

impl Service for PubSub {
    type Method = PubSubMethod;
    type Request<'a> = PubSubRequest<'a>;

    const FEEDS_STREAMS: bool = true;
    // It is the id of a message, by which subscribers know it.
    const TOKENS_SPAN_KEYS: bool = true;

    fn decode(method: PubSubMethod, message: &[u8]) -> Result<PubSubRequest<'_>, Box<Status>> {
        PubSubRequest::decode(method, message)
    }

    fn open(
        method: PubSubMethod,
        request: &PubSubRequest<'_>,
        spec: &NamespaceSpec,
        shards: u16,
    ) -> Result<Opened, Box<Status>> {
        match request {
            PubSubRequest::Subscribe(view) if view.group.is_empty() => subscription::open(view, spec, shards),
            PubSubRequest::Subscribe(view) => member::open(view, spec, shards),
            _ => Err(error::not_served(method.into())),
        }
    }

    fn serve(
        memory: &mut ShardMemory,
        method: PubSubMethod,
        request: &PubSubRequest<'_>,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        memory::serve(&mut memory.pubsub, method, request, context, out)
    }

    fn serve_part(
        memory: &mut ShardMemory,
        request: &PubSubRequest<'_>,
        context: &Context,
        part: Part,
    ) -> Vec<PartOutcome> {
        memory::serve_part(&mut memory.pubsub, request, context, part)
    }

    fn loggable(
        _method: PubSubMethod,
        request: &PubSubRequest<'_>,
        context: &Context,
        part: Option<Part>,
    ) -> Result<Loggable, Box<Status>> {
        match groups::is_change(request) {
            true => Ok(groups::loggable(context)),
            false => writes::loggable(request, context, part),
        }
    }

    fn apply(writer: &mut Writer, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        apply::apply(writer, batch)
    }

    fn redrive(writer: &mut Writer, record: &LoggedWrite<'_>, now: UnixMillis) -> Result<(), StoreError> {
        apply::redrive(writer, record, now)
    }

    fn write(
        writer: &mut Writer,
        calls: &[StoreCall<'_>],
        committed: impl FnMut(&LoggedWrite<'_>, &[&str]),
        answer: impl FnMut(&StoreCall<'_>, Result<Vec<u8>, Box<Status>>),
    ) {
        execute::write(writer, calls, committed, answer);
    }

    fn read(
        reader: &Reader,
        call: &StoreCall<'_>,
        _unapplied: &[Payload],
        out: &mut Vec<u8>,
    ) -> Result<(), Box<Status>> {
        groups::read(reader, call, out)
    }
}

/// A decoded request. Everything in it has been checked against the limits of the wire.
pub(crate) enum PubSubRequest<'a> {
    Publish(PublishView<'a>),
    PublishBatch(PublishBatchView<'a>),
    Subscribe(SubscribeView<'a>),
    Commit(CommitView<'a>),
    ListGroups(ListGroupsView<'a>),
    ResetGroup(ResetGroupView<'a>),
    DeleteGroup(DeleteGroupView<'a>),
}

impl<'a> PubSubRequest<'a> {
    fn decode(method: PubSubMethod, message: &'a [u8]) -> Result<Self, Box<Status>> {
        let decoded = match method {
            PubSubMethod::Publish => PublishView::decode(message).map(Self::Publish),
            PubSubMethod::PublishBatch => PublishBatchView::decode(message).map(Self::PublishBatch),
            PubSubMethod::Subscribe => SubscribeView::decode(message).map(Self::Subscribe),
            PubSubMethod::Commit => CommitView::decode(message).map(Self::Commit),
            PubSubMethod::ListGroups => ListGroupsView::decode(message).map(Self::ListGroups),
            PubSubMethod::ResetGroup => ResetGroupView::decode(message).map(Self::ResetGroup),
            PubSubMethod::DeleteGroup => DeleteGroupView::decode(message).map(Self::DeleteGroup),
        };
        decoded.map_err(|cause| error::from_decode(&cause))
    }
}

impl<'a> Request<'a> for PubSubRequest<'a> {
    fn namespace(&self) -> &'a str {
        match self {
            Self::Publish(view) => view.namespace,
            Self::PublishBatch(view) => view.namespace,
            Self::Subscribe(view) => view.namespace,
            Self::Commit(view) => view.namespace,
            Self::ListGroups(view) => view.namespace,
            Self::ResetGroup(view) => view.namespace,
            Self::DeleteGroup(view) => view.namespace,
        }
    }

    fn token(&self) -> Option<TokenView<'a>> {
        match self {
            Self::Publish(view) => view.token,
            Self::PublishBatch(view) => view.token,
            // Those of calls about groups name no message.
            _ => None,
        }
    }

    /// The keys of the partitions that the request writes to, or that of the groups.
    fn keys(&self, mut each: impl FnMut(&'a str)) {
        match self {
            Self::Publish(view) => each(key_of(&view.message)),
            Self::PublishBatch(view) => view.messages.iter().for_each(|one| each(key_of(&one.message))),
            Self::Subscribe(_) => {}
            _ => each(GROUPS_KEY),
        }
    }

    fn items(&self) -> u64 {
        match self {
            Self::PublishBatch(view) => view.messages.len() as u64,
            _ => 1,
        }
    }

    fn digest(&self) -> Option<u64> {
        self.token()?;
        let mut digest = Digest::default();
        match self {
            Self::Publish(view) => add_message(&mut digest, &view.message),
            Self::PublishBatch(view) => {
                digest.number(view.messages.len() as u64);
                view.messages
                    .iter()
                    .for_each(|one| add_message(&mut digest, &one.message));
            }
            _ => {}
        }
        Some(digest.finish())
    }

    fn check(&self, spec: &NamespaceSpec) -> Result<(), Box<Status>> {
        match self {
            Self::Publish(view) => match refusal(&view.message, spec) {
                Some((field, why)) => Err(error::invalid(&format!("message.{field}"), &why)),
                None => Ok(()),
            },
            Self::PublishBatch(view) => {
                // Of a batch the whole, if it is so with one of its messages.
                for (index, one) in view.messages.iter().enumerate() {
                    if let Some((field, why)) = refusal(&one.message, spec) {
                        return Err(error::invalid(&format!("messages[{index}].{field}"), &why));
                    }
                }
                Ok(())
            }
            Self::Subscribe(view) if view.group.is_empty() => reads::check_start(view.start, spec),
            _ => groups::check(self, spec),
        }
    }

    fn check_get(&self) -> Result<(), Box<Status>> {
        match self {
            Self::Subscribe(view) if !view.group.is_empty() => Err(error::invalid(
                "group",
                "must be left out of a GET, which takes part in no group: subscribe by POST",
            )),
            _ => Ok(()),
        }
    }

    fn check_time(time: TimestampView, wall_ns: i64, drift_max: Duration) -> Result<(), Box<Status>> {
        check_window(time, wall_ns, drift_max, ID_WINDOW_MS)
    }

    fn call_token(&self) -> Option<CallToken<'a>> {
        Some(CallToken {
            // The token alone is the message's id, whatever generation time its client gives.
            time: None,
            token: self.token()?.token,
            digest: self.digest()?,
        })
    }

    /// Each partition once: there are few, and messages of a batch are many.
    fn footprint(&self) -> Footprint<'a> {
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
fn partition_of(topic: &str, ordering_key: &str) -> u16 {
    let mut digest = Digest::default();
    digest.bytes(topic.as_bytes());
    digest.bytes(ordering_key.as_bytes());
    (digest.finish() % PARTITIONS as u64) as u16
}

fn key_of(message: &MessageView<'_>) -> &'static str {
    PARTITION_KEYS[usize::from(partition_of(message.topic, message.ordering_key))]
}

/// The field of a message that the namespace does not take, and why.
fn refusal(message: &MessageView<'_>, spec: &NamespaceSpec) -> Option<(&'static str, String)> {
    let (length, max) = (message.payload.len(), spec.value_bytes_max);
    if length > max {
        let why = format!("must have at most {max} bytes (the namespace's max_message_size), has {length}");
        return Some(("payload", why));
    }
    if !spec.ordered && !message.ordering_key.is_empty() {
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
        let of = |topic: &str, key: &str| usize::from(partition_of(topic, key));
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
