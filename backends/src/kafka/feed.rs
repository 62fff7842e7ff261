//! Reading one topic: the messages from an offset on, one after the other, and the last ones that
//! were read, which most readers want.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::Notify;

use super::link::{ANSWER_MAX, Ear, Link};
use super::wire::Taken;
use crate::error::StoreError;

/// Messages and bytes of the last ones that are kept.
const RECENT_MESSAGES: usize = 4_096;
const RECENT_BYTES: usize = 4 << 20;

/// Times that a place is taken up again because messages were missing at it.
const RETRIES: u32 = 5;

/// A topic as it is read.
#[derive(Default)]
pub(super) struct Feed {
    open: Option<Open>,
    recent: VecDeque<Rc<Taken>>,
    bytes: usize,
    used: Option<Instant>,
}

struct Open {
    // Dropped before the link, which then ends the consumer.
    queue: PartitionQueue<Ear>,
    link: Rc<Link>,
    topic: String,
    bell: Arc<Notify>,
    /// Offset of the next message of the queue.
    next: u64,
}

impl Feed {
    /// The message at an offset, or the first one after it. Somebody has written one at or after
    /// it. `low` is the first offset that is left, as far as it is known.
    pub(super) async fn at(
        &mut self,
        link: &Rc<Link>,
        topic: &str,
        offset: u64,
        low: u64,
    ) -> Result<Rc<Taken>, StoreError> {
        self.used = Some(Instant::now());
        if let Some(taken) = self.kept(offset) {
            return Ok(taken);
        }
        let mut retries = 0;
        loop {
            let open = self.seek(link, topic, offset)?;
            let mut taken = open.next().await?;
            while taken.offset < offset {
                taken = open.next().await?;
            }
            let taken = Rc::new(taken);
            // What was fetched before the queue was there has gone elsewhere.
            if taken.offset > offset && offset >= low && retries < RETRIES {
                retries += 1;
                self.close();
                continue;
            }
            self.keep(&taken);
            return Ok(taken);
        }
    }

    /// Whether an offset can be read without a look at where the topic begins.
    pub(super) fn has(&self, link: &Rc<Link>, offset: u64) -> bool {
        let is_next = |open: &Open| Rc::ptr_eq(&open.link, link) && open.next == offset;
        self.kept(offset).is_some() || self.open.as_ref().is_some_and(is_next)
    }

    /// Ends a feed that nobody has used for this long.
    pub(super) fn rest(&mut self, unused: Duration) {
        if self.used.is_some_and(|at| at.elapsed() > unused) {
            self.close();
            self.recent = VecDeque::new();
            self.bytes = 0;
            self.used = None;
        }
    }

    fn kept(&self, offset: u64) -> Option<Rc<Taken>> {
        let first = self.recent.front()?.offset;
        let last = self.recent.back()?.offset;
        if !(first..=last).contains(&offset) {
            return None;
        }
        let place = self.recent.partition_point(|taken| taken.offset < offset);
        self.recent.get(place).cloned()
    }

    fn keep(&mut self, taken: &Rc<Taken>) {
        let follows = self.recent.back().is_none_or(|last| last.offset < taken.offset);
        if !follows {
            self.recent.clear();
            self.bytes = 0;
        }
        self.bytes += taken.bytes();
        self.recent.push_back(taken.clone());
        while self.recent.len() > RECENT_MESSAGES || (self.bytes > RECENT_BYTES && self.recent.len() > 1) {
            if let Some(gone) = self.recent.pop_front() {
                self.bytes -= gone.bytes();
            }
        }
    }

    /// Makes the queue continue with an offset.
    fn seek(&mut self, link: &Rc<Link>, topic: &str, offset: u64) -> Result<&mut Open, StoreError> {
        let fits = |open: &Open| Rc::ptr_eq(&open.link, link) && open.next == offset;
        if !self.open.as_ref().is_some_and(fits) {
            self.close();
            self.recent.clear();
            self.bytes = 0;
            let open = Open::new(link, topic, offset)?;
            return Ok(self.open.insert(open));
        }
        self.open.as_mut().ok_or_else(|| StoreError::Internal {
            detail: "a feed that is open has no queue".to_owned(),
        })
    }

    fn close(&mut self) {
        self.open = None;
    }
}

impl Open {
    fn new(link: &Rc<Link>, topic: &str, offset: u64) -> Result<Open, StoreError> {
        let failed = |what: &dyn std::fmt::Display| StoreError::Internal {
            detail: format!("kafka: {topic} cannot be read from {offset} on: {what}"),
        };
        let mut place = TopicPartitionList::new();
        let at = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        place
            .add_partition_offset(topic, 0, at)
            .and_then(|()| link.consumer().incremental_assign(&place))
            .map_err(|error| failed(&error))?;
        let queue = link.consumer().split_partition_queue(topic, 0);
        let mut queue = queue.ok_or_else(|| failed(&"it has no queue"))?;
        let bell = Arc::new(Notify::new());
        let ring = bell.clone();
        queue.set_nonempty_callback(move || ring.notify_one());
        Ok(Open {
            link: link.clone(),
            queue,
            topic: topic.to_owned(),
            bell,
            next: offset,
        })
    }

    /// The next message of the queue.
    async fn next(&mut self) -> Result<Taken, StoreError> {
        let until = tokio::time::Instant::now() + ANSWER_MAX;
        loop {
            match self.queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let taken = Taken::of(&message);
                    self.next = taken.offset + 1;
                    return Ok(taken);
                }
                Some(Err(error)) => return Err(self.link.failed(&error)),
                None => {}
            }
            self.link.attend();
            tokio::select! {
                () = self.bell.notified() => {}
                reason = self.link.closed() => return Err(self.lost(&reason)),
                () = tokio::time::sleep_until(until) => {
                    let late = format!("no message within {} s", ANSWER_MAX.as_secs());
                    return Err(self.lost(&late));
                }
            }
        }
    }

    fn lost(&self, reason: &str) -> StoreError {
        StoreError::Unreachable {
            detail: format!("kafka: {}: {reason}", self.topic),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut place = TopicPartitionList::new();
        place.add_partition(&self.topic, 0);
        // Of a consumer that has failed nothing is left to give back.
        let _ = self.link.consumer().incremental_unassign(&place);
    }
}
