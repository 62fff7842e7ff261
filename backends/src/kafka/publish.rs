//! Publishing: messages are handed to the producer in their order, and what became of each is
//! reported. The first failure ends the producer, so nothing overtakes what has failed.

use std::rc::Rc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::cluster::{Cluster, Space};
use super::known::Verdict;
use super::link::{Delivered, Link, Report};
use super::marks::{self, State};
use super::{namespaces, replay, topics, wire};
use crate::api::pubsub::{Message, Outcome};
use crate::error::StoreError;
use crate::ids::{LogPosition, NamespaceId};
use crate::single::Connection as _;

/// Longest time until a batch is acknowledged.
const BATCH_MAX: Duration = Duration::from_secs(30);

/// Longest time for the reports on messages that were given up.
const PURGE_MAX: Duration = Duration::from_secs(5);

/// Publishes as [`crate::api::pubsub::Writes::publish`] says.
pub(super) async fn publish(
    cluster: &Cluster,
    batch: &[Message<'_>],
    at: Option<&LogPosition>,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), StoreError> {
    outcomes.clear();
    let mut publisher = Publisher {
        cluster,
        batch,
        at,
        outcomes: batch.iter().map(judge).collect(),
        is_open: vec![true; batch.len()],
        noted: None,
    };
    // A message that the brokers refuse takes those after it along: they are sent once more.
    loop {
        let (link, sent) = publisher.send().await?;
        if sent.is_empty() || publisher.settle(&link, sent).await? {
            publisher.note(&link).await?;
            outcomes.append(&mut publisher.outcomes);
            return Ok(());
        }
    }
}

/// The outcome of a message as far as it depends on nothing else; that it is published is to be
/// shown.
fn judge(message: &Message<'_>) -> Outcome {
    match message.check() {
        Err(error) => Outcome::Refused(error),
        Ok(()) => Outcome::Published,
    }
}

struct Publisher<'p> {
    cluster: &'p Cluster,
    batch: &'p [Message<'p>],
    at: Option<&'p LogPosition>,
    outcomes: Vec<Outcome>,
    /// Whether the fate of a message that is to be published is open.
    is_open: Vec<bool>,
    /// Offset after the last message, which carries the batch's position.
    noted: Option<u64>,
}

/// Messages that are under way.
struct Sent {
    spaces: Vec<(NamespaceId, Rc<Space>)>,
    indices: Vec<usize>,
    reports: UnboundedReceiver<Delivered>,
}

impl Sent {
    fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    fn space(&self, namespace: NamespaceId) -> &Space {
        let found = self.spaces.iter().find(|(known, _)| *known == namespace);
        &found.expect("each message under way has its namespace here").1
    }
}

impl Publisher<'_> {
    /// Hands the messages whose fate is open to the producer, after those of earlier calls.
    async fn send(&mut self) -> Result<(Rc<Link>, Sent), StoreError> {
        let _turn = self.cluster.turn.lock().await;
        let link = self.cluster.acquire().await?;
        let spaces = self.open_spaces(&link).await?;
        let (to, reports) = unbounded_channel();
        let mut sent = Sent {
            spaces,
            indices: Vec::new(),
            reports,
        };
        for index in 0..self.batch.len() {
            if !self.is_open(index) {
                continue;
            }
            let message = &self.batch[index];
            let space = sent.space(message.namespace);
            match self.verdict(space, message, &sent.indices).await {
                Verdict::Repeat | Verdict::UnderWay => self.outcomes[index] = Outcome::Repeat,
                Verdict::Reused => self.outcomes[index] = Outcome::Refused(StoreError::TokenReused),
                Verdict::New => {
                    space.ids.borrow_mut().begin(message);
                    sent.indices.push(index);
                }
            }
        }
        let count = sent.indices.len();
        for (place, index) in sent.indices.iter().enumerate() {
            let at = self.at.map(|at| (at, count - 1 - place));
            if let Err(error) = self.hand_over(&link, *index, at, &to).await {
                // Those before it have gone; what became of them is asked for later.
                link.close(&error.to_string());
                self.give_up(&sent);
                return Err(error);
            }
        }
        Ok((link, sent))
    }

    /// The namespaces of messages whose fate is open. Messages of one that is not there are
    /// refused.
    async fn open_spaces(&mut self, link: &Rc<Link>) -> Result<Vec<(NamespaceId, Rc<Space>)>, StoreError> {
        let mut spaces: Vec<(NamespaceId, Rc<Space>)> = Vec::new();
        for index in 0..self.batch.len() {
            let message = &self.batch[index];
            let namespace = message.namespace;
            let is_known = spaces.iter().any(|(known, _)| *known == namespace);
            if !self.is_open(index) || is_known {
                continue;
            }
            let state = marks::state(self.cluster, link, namespace, false).await?;
            if state != State::Live {
                let cause = namespaces::absent(self.cluster, link, namespace).await;
                self.refuse_all(namespace, cause)?;
                continue;
            }
            let space = self.cluster.space(namespace);
            match replay::learn(link, &space, message.at).await {
                Ok(true) => spaces.push((namespace, space)),
                Ok(false) => {
                    let cause = namespaces::absent(self.cluster, link, namespace).await;
                    self.refuse_all(namespace, cause)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(spaces)
    }

    /// Refuses the messages of a namespace that is not there.
    fn refuse_all(&mut self, namespace: NamespaceId, cause: StoreError) -> Result<(), StoreError> {
        if cause.is_retryable() {
            return Err(cause);
        }
        for index in 0..self.batch.len() {
            if self.batch[index].namespace == namespace && self.is_open(index) {
                self.outcomes[index] = Outcome::Refused(cause.clone());
            }
        }
        Ok(())
    }

    fn is_open(&self, index: usize) -> bool {
        self.is_open[index] && self.outcomes[index] == Outcome::Published
    }

    /// Judges a message by its id. One that another call has under way is waited for.
    async fn verdict(&self, space: &Space, message: &Message<'_>, own: &[usize]) -> Verdict {
        let mut own = own.iter().map(|index| &self.batch[*index]);
        let first = own.find(|other| other.namespace == message.namespace && other.id == message.id);
        if let Some(first) = first {
            let is_another = first
                .digest
                .zip(message.digest)
                .is_some_and(|(first, this)| first != this);
            return match is_another && !message.promised {
                true => Verdict::Reused,
                false => Verdict::Repeat,
            };
        }
        loop {
            let settled = space.settled.notified();
            let verdict = space.ids.borrow().judge(message);
            if verdict != Verdict::UnderWay {
                return verdict;
            }
            settled.await;
        }
    }

    /// Hands one message to the producer; waits while that has no room.
    async fn hand_over(
        &self,
        link: &Link,
        index: usize,
        at: Option<(&LogPosition, usize)>,
        to: &UnboundedSender<Delivered>,
    ) -> Result<(), StoreError> {
        let message = &self.batch[index];
        let (topic, key) = (self.cluster.topic(message.namespace), wire::key(message));
        let begun = tokio::time::Instant::now();
        loop {
            let report = Box::new(Report {
                index,
                to: to.clone(),
            });
            let record = BaseRecord::with_opaque_to(&topic, report)
                .partition(0)
                .key(&key)
                .payload(message.payload)
                .headers(wire::headers(message, at));
            let error = match link.producer().send(record) {
                Ok(()) => return Ok(()),
                Err((error, _)) => error,
            };
            let is_full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if !is_full || begun.elapsed() > BATCH_MAX || link.is_closed() {
                return Err(self.lost(&error.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the reports. `false`: some messages are to be sent once more.
    async fn settle(&mut self, link: &Rc<Link>, mut sent: Sent) -> Result<bool, StoreError> {
        let mut failures = Vec::new();
        let mut stored = 0;
        let last = sent.indices.last().copied();
        let mut late = Box::pin(tokio::time::sleep(BATCH_MAX));
        let mut is_given_up = false;
        for _ in 0..sent.indices.len() {
            let delivered = loop {
                tokio::select! {
                    biased;
                    delivered = sent.reports.recv() => break delivered,
                    reason = link.closed(), if !is_given_up => {
                        link.close(&reason);
                        is_given_up = true;
                        late = Box::pin(tokio::time::sleep(PURGE_MAX));
                    }
                    () = &mut late => {
                        if is_given_up {
                            break None;
                        }
                        link.close(&format!("no answer within {} s", BATCH_MAX.as_secs()));
                        is_given_up = true;
                        late = Box::pin(tokio::time::sleep(PURGE_MAX));
                    }
                }
            };
            let Some(Delivered { index, result }) = delivered else {
                failures.push((usize::MAX, RDKafkaErrorCode::PurgeInflight));
                break;
            };
            let message = &self.batch[index];
            let space = sent.space(message.namespace);
            match result {
                Ok((offset, time)) => {
                    stored += 1;
                    self.is_open[index] = false;
                    space.ids.borrow_mut().end(message.id, Some((offset, time)));
                    space.note_head(offset + 1);
                    if !space.is_unsure.get() {
                        space.seen.set(space.seen.get().map(|seen| seen.max(offset + 1)));
                    }
                    if Some(index) == last {
                        self.noted = Some(offset + 1);
                    }
                }
                Err(code) => {
                    space.ids.borrow_mut().end(message.id, None);
                    failures.push((index, code));
                }
            }
        }
        sent.spaces
            .iter()
            .for_each(|(_, space)| space.settled.notify_waiters());
        if failures.is_empty() {
            return Ok(true);
        }
        link.close(&failures[0].1.to_string());
        self.give_up(&sent);
        self.judge_failures(link, &failures, stored).await
    }

    /// Forgets messages that are under way: what became of them is looked for in their topics.
    fn give_up(&self, sent: &Sent) {
        self.cluster.note_doubt();
        for index in &sent.indices {
            let message = &self.batch[*index];
            let space = sent.space(message.namespace);
            let mut ids = space.ids.borrow_mut();
            if ids.judge(message) == Verdict::UnderWay {
                ids.end(message.id, None);
            }
        }
        sent.spaces
            .iter()
            .for_each(|(_, space)| space.settled.notify_waiters());
    }

    /// Decides what the failures mean. `Ok(false)`: those that are not refused may be sent again.
    async fn judge_failures(
        &mut self,
        link: &Link,
        failures: &[(usize, RDKafkaErrorCode)],
        stored: usize,
    ) -> Result<bool, StoreError> {
        let is_refusal = |code: RDKafkaErrorCode| {
            matches!(
                code,
                RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidMessageSize
                    | RDKafkaErrorCode::InvalidRecord
            )
        };
        if let Some((index, code)) = failures.iter().find(|(_, code)| is_refusal(*code)) {
            let why = format!("kafka at {} refuses it: {code}", self.cluster.address());
            self.outcomes[*index] = Outcome::Refused(StoreError::invalid("message", why));
            return Ok(false);
        }
        if let Some((index, _)) = failures.iter().find(|(_, code)| topics::is_absent(*code)) {
            let namespace = self.batch[*index].namespace;
            let link = self.cluster.acquire().await?;
            let cause = namespaces::absent(self.cluster, &link, namespace).await;
            self.refuse_all(namespace, cause)?;
            return Ok(false);
        }
        let reason = link.closed().await;
        let was_never_sent = |code: RDKafkaErrorCode| code == RDKafkaErrorCode::PurgeQueue;
        match stored == 0 && failures.iter().all(|(_, code)| was_never_sent(*code)) {
            true => Err(StoreError::Unreachable {
                detail: format!("kafka at {}: {reason}", self.cluster.address()),
            }),
            false => Err(self.lost(&reason)),
        }
    }

    fn lost(&self, reason: &str) -> StoreError {
        StoreError::Io {
            detail: format!("kafka at {}: {reason}", self.cluster.address()),
        }
    }

    /// Notes the batch's position, once it is as safe as it must be.
    async fn note(&self, link: &Rc<Link>) -> Result<(), StoreError> {
        let Some(at) = self.at else {
            return Ok(());
        };
        let settings = self.cluster.settings.get();
        tokio::time::sleep(
            settings
                .map(super::settings::Settings::safe_after)
                .unwrap_or_default(),
        )
        .await;
        match self.noted {
            // The last message says it, too.
            Some(offset) => self.cluster.marks.lock().await.is_at(at, offset),
            None => {
                let seen = self.cluster.space(at.namespace).seen.get();
                let before = self
                    .cluster
                    .marks
                    .lock()
                    .await
                    .position(at.log, at.lane, at.namespace);
                let offset = seen.or(before.map(|(_, offset)| offset)).unwrap_or(0);
                marks::set_position(self.cluster, link, at, offset).await?;
            }
        }
        Ok(())
    }
}
