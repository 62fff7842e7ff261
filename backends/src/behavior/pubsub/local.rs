//! The suite's harness for a store in this process, with a simulated clock. Its positions are
//! numbers, and its ids are made as in the gateway.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Answer, Client, GroupClient, GroupSeen, Harness, Member, Received, Sent, Start, Subscription};
use crate::api::groups::{Act, Change, Groups, Outcome as GroupOutcome};
use crate::api::pubsub::{self, Message, MessageSink, Opened, Outcome, Reads, Stored, Upkeep, Writes};
use crate::behavior::join::run_to_end;
use crate::behavior::{Failure, FailureKind, WriteToken};
use crate::digest::Digest;
use crate::ids::{NamespaceId, UnixMillis};
use crate::offer::Offer;

/// A store and its clock.
#[derive(Debug)]
pub struct LocalHarness<S> {
    shared: Rc<Shared<S>>,
    namespaces: u32,
}

/// Calls on one namespace of a store in this process.
#[derive(Debug)]
pub struct LocalClient<S> {
    shared: Rc<Shared<S>>,
    namespace: NamespaceId,
    life: Option<Duration>,
}

/// A reader with its place.
#[derive(Debug)]
pub struct LocalSubscription<S> {
    shared: Rc<Shared<S>>,
    namespace: NamespaceId,
    topics: Vec<String>,
    next: u64,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    now: Cell<UnixMillis>,
    /// Ids made for publishers without a token.
    ids: Cell<u64>,
}

impl<S: Reads + Writes + Groups + Upkeep> LocalHarness<S> {
    /// Wraps a store for the suite. Namespaces are created from number 1,000 on.
    pub fn new(store: S) -> LocalHarness<S> {
        let shared = Shared {
            store,
            now: Cell::new(UnixMillis(1_700_000_000_000)),
            ids: Cell::new(0),
        };
        LocalHarness {
            shared: Rc::new(shared),
            namespaces: 1_000,
        }
    }

    /// Runs the cases of the suite whose features the store offers, by polling without a runtime.
    ///
    /// # Panics
    /// When a case fails.
    pub fn run(&mut self) {
        run_to_end(super::run(self));
    }
}

impl<S: Reads + Writes + Groups + Upkeep> Harness for LocalHarness<S> {
    type Client = LocalClient<S>;

    async fn client(&mut self, life: Option<Duration>) -> LocalClient<S> {
        self.namespaces += 1;
        let namespace = NamespaceId(self.namespaces);
        let created = self.shared.store.create_namespace(namespace).await;
        created.expect("a new namespace");
        LocalClient {
            shared: self.shared.clone(),
            namespace,
            life,
        }
    }

    async fn client_beside(&mut self, client: &LocalClient<S>) -> LocalClient<S> {
        LocalClient {
            shared: client.shared.clone(),
            ..*client
        }
    }

    fn now_ns(&mut self) -> i64 {
        self.shared.now.get().0 as i64 * 1_000_000
    }

    async fn pass(&mut self, time: Duration) {
        let now = self.shared.now.get().plus(time.as_millis() as u64);
        self.shared.now.set(now);
        // Sweeps a little, so that cases see states before, between and after.
        self.shared.store.sweep(now, 3).await.expect("a sweep");
    }

    fn offer(&self) -> Offer {
        self.shared.store.offer()
    }

    fn is_gateway(&self) -> bool {
        false
    }

    fn payload_bytes_max(&self) -> usize {
        self.offer().value_bytes_max
    }
}

impl<S: Writes> LocalClient<S> {
    async fn send(
        &self,
        token: Option<&WriteToken>,
        messages: &[Sent],
        is_batch: bool,
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure> {
        let at = self.shared.now.get();
        let attributes: Vec<_> = messages.iter().map(|one| packed(&one.attributes)).collect();
        let ids: Vec<_> = (0..messages.len() as u32)
            .map(|index| self.id(token, index, is_batch))
            .collect();
        let mut digest = Digest::default();
        for message in messages {
            digest.bytes(message.topic.as_bytes());
            digest.bytes(message.key.as_bytes());
            digest.bytes(&message.payload);
        }
        let digest = digest.finish();
        let batch: Vec<_> = messages
            .iter()
            .zip(&ids)
            .zip(&attributes)
            .map(|((message, id), attributes)| Message {
                promised: false,
                namespace: self.namespace,
                partition: 0,
                id,
                digest: token.map(|_| digest),
                at,
                expires_at: self.life.map(|life| at.plus(life.as_millis() as u64)),
                topic: &message.topic,
                key: &message.key,
                attributes,
                payload: &message.payload,
            })
            .collect();
        let mut outcomes = Vec::new();
        self.shared.store.publish(&batch, None, &mut outcomes).await?;
        assert_eq!(outcomes.len(), batch.len(), "one outcome for each message");
        let one = |(outcome, id)| match outcome {
            Outcome::Published | Outcome::Repeat => Ok(id),
            Outcome::Refused(cause) => Err(Failure::from(cause)),
        };
        Ok(outcomes.into_iter().zip(ids).map(one).collect())
    }

    fn id(&self, token: Option<&WriteToken>, index: u32, is_batch: bool) -> Vec<u8> {
        let mut id = match token {
            Some(token) => token.token.clone(),
            None => {
                self.shared.ids.set(self.shared.ids.get() + 1);
                self.shared.ids.get().to_be_bytes().to_vec()
            }
        };
        if is_batch {
            id.extend_from_slice(&index.to_be_bytes());
        }
        id
    }
}

impl<S: Reads + Writes> Client for LocalClient<S> {
    type Subscription = LocalSubscription<S>;

    async fn publish(&mut self, token: Option<&WriteToken>, message: &Sent) -> Result<Vec<u8>, Failure> {
        let mut results = self.send(token, std::slice::from_ref(message), false).await?;
        results.remove(0)
    }

    async fn publish_batch(
        &mut self,
        token: Option<&WriteToken>,
        messages: &[Sent],
    ) -> Result<Vec<Result<Vec<u8>, Failure>>, Failure> {
        self.send(token, messages, true).await
    }

    async fn subscribe(&mut self, topics: &[&str], start: &Start) -> Result<LocalSubscription<S>, Failure> {
        let start = match start {
            Start::Latest => pubsub::Start::Latest,
            Start::Earliest => pubsub::Start::Earliest,
            Start::Time(time) => pubsub::Start::Time(UnixMillis(*time)),
            Start::Position(position) => {
                let number = position.as_slice().try_into().map(u64::from_be_bytes);
                pubsub::Start::Number(number.expect("a position of this harness"))
            }
        };
        let now = self.shared.now.get();
        let failure = |kind| Failure {
            kind,
            field: None,
            message: String::new(),
        };
        let next = match self.shared.store.open(self.namespace, start, now).await? {
            Opened::At(next) => next,
            Opened::Expired(_) => return Err(failure(FailureKind::PositionExpired)),
            Opened::Unknown => return Err(failure(FailureKind::PositionInvalid)),
        };
        Ok(LocalSubscription {
            shared: self.shared.clone(),
            namespace: self.namespace,
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            next,
        })
    }
}

impl<S: Reads> Subscription for LocalSubscription<S> {
    async fn next(&mut self, _wait: Duration) -> Result<Option<Answer>, Failure> {
        loop {
            let mut sink = Collected {
                topics: &self.topics,
                messages: Vec::new(),
            };
            let now = self.shared.now.get();
            let read = self
                .shared
                .store
                .read(self.namespace, self.next, now, &mut sink)
                .await?;
            self.next = read.next;
            if !sink.messages.is_empty() || read.gap.is_some() {
                return Ok(Some(Answer {
                    messages: sink.messages,
                    gap: read.gap.map(|gap| gap.messages),
                    position: self.position(),
                    is_waiting: false,
                }));
            }
            if !read.more {
                return Ok(None);
            }
        }
    }

    fn position(&self) -> Vec<u8> {
        self.next.to_be_bytes().to_vec()
    }
}

impl<S: Reads + Writes + Groups> GroupClient for LocalClient<S> {
    async fn join(&mut self, _: &Member) -> Result<LocalSubscription<S>, Failure> {
        panic!("{AT_GATEWAY}")
    }

    async fn commit(&mut self, _: &str, _: &[u8]) -> Result<(), Failure> {
        panic!("{AT_GATEWAY}")
    }

    async fn reset(&mut self, _: &str, _: &Start, _: Option<&WriteToken>) -> Result<(), Failure> {
        panic!("{AT_GATEWAY}")
    }

    async fn delete_group(&mut self, _: &str) -> Result<(), Failure> {
        panic!("{AT_GATEWAY}")
    }

    async fn groups(&mut self) -> Result<Vec<GroupSeen>, Failure> {
        let Shared { store, now, .. } = &*self.shared;
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            // Some at a time, so that pages are seen.
            let page = store.list_groups(self.namespace, &after, 300, now.get()).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after.clone_from(&last.name);
            all.extend(page.into_iter().map(|one| GroupSeen {
                name: one.name,
                topics: one.topics,
                subscribers: one.members as u32,
                partitions: one.partitions as u32,
                held: one.held as u32,
                behind: one.behind,
                is_committed: one.last_commit.is_some(),
            }));
        }
    }

    async fn act(&mut self, group: &str, act: &Act<'_>) -> GroupOutcome {
        let change = Change {
            namespace: self.namespace,
            group,
            at: self.shared.now.get(),
            act: act.clone(),
        };
        let mut outcomes = Vec::new();
        let (store, changes) = (&self.shared.store, [change]);
        let made = store.change_groups(&changes, None, &mut outcomes).await;
        made.expect("an act");
        outcomes.remove(0)
    }
}

const AT_GATEWAY: &str = "streams of groups are the gateway's";

/// Messages of one answer; a few at a time, so that readers stop in the middle.
struct Collected<'a> {
    topics: &'a [String],
    messages: Vec<Received>,
}

impl MessageSink for Collected<'_> {
    fn wants(&mut self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|pattern| matches(pattern, topic))
    }

    fn message(&mut self, message: &Stored<'_>) -> bool {
        if self.messages.len() == 7 {
            return false;
        }
        self.messages.push(Received {
            id: message.id.to_vec(),
            message: Sent {
                topic: message.topic.to_owned(),
                key: message.key.to_owned(),
                attributes: unpacked(message.attributes),
                payload: message.payload.to_vec(),
            },
            time_ms: message.time.0,
        });
        true
    }
}

/// Patterns as in the gateway; the stores do not know them.
fn matches(pattern: &str, topic: &str) -> bool {
    if topic.is_empty() {
        return pattern.is_empty();
    }
    let (mut patterns, mut tokens) = (pattern.split('.'), topic.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}

pub(in crate::behavior) fn packed(attributes: &[(String, String)]) -> Vec<u8> {
    let text = |(name, value): &(String, String)| format!("{name}\0{value}\0");
    attributes.iter().map(text).collect::<String>().into_bytes()
}

pub(in crate::behavior) fn unpacked(bytes: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(bytes).expect("what packed made");
    let mut parts = text.split_terminator('\0').map(str::to_owned);
    std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
}
