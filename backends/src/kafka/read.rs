//! Reading: a reader's place is an offset, and the brokers keep nothing of a reader.

use std::rc::Rc;

use super::cluster::{Cluster, Space};
use super::link::Link;
use super::wire::Taken;
use super::{namespaces, topics};
use crate::api::pubsub::{Gap, MessageSink, Opened, Read, STEP_MESSAGES_MAX, Start, Stored};
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::is_expired;

/// Finds where a reader begins, as [`crate::api::pubsub::Reads::open`] says. A message's number is
/// its offset, counted from 1.
pub(super) async fn open(
    cluster: &Cluster,
    namespace: NamespaceId,
    start: Start,
    now: UnixMillis,
) -> Result<Opened, StoreError> {
    let link = cluster.acquire().await?;
    let reader = Reader::new(cluster, &link, namespace).await?;
    let next = reader.space.head.get() + 1;
    let first = |found: Option<Rc<Taken>>| Opened::At(found.map_or(next, |taken| taken.offset + 1));
    Ok(match start {
        Start::Latest => Opened::At(next),
        Start::Number(number) if number == 0 || number > next => Opened::Unknown,
        Start::Number(number) if number == next => Opened::At(next),
        Start::Number(number) => match reader.first_live(number - 1, now).await? {
            None => Opened::Expired(None),
            Some(taken) if taken.offset + 1 > number => Opened::Expired(Some(taken.time)),
            Some(_) => Opened::At(number),
        },
        Start::Earliest => first(reader.first_live(0, now).await?),
        Start::Time(time) => match topics::offset_at(&link, &reader.space.topic, time).await? {
            None => Opened::At(next),
            Some(offset) => first(reader.first_live(offset, now).await?),
        },
    })
}

/// Takes a reader's step, as [`crate::api::pubsub::Reads::read`] says.
pub(super) async fn read(
    cluster: &Cluster,
    namespace: NamespaceId,
    next: u64,
    now: UnixMillis,
    sink: &mut impl MessageSink,
) -> Result<Read, StoreError> {
    let link = cluster.acquire().await?;
    let space = cluster.space(namespace);
    // What is known to be there needs no question, unless it has to be looked for.
    let is_known = next <= space.head.get() && space.feed.lock().await.has(&link, next.saturating_sub(1));
    let reader = match is_known {
        true => Reader { link: &link, space },
        false => Reader::new(cluster, &link, namespace).await?,
    };
    let space = &reader.space;
    let mut step = Step {
        next,
        missed: 0,
        oldest_left: None,
    };
    let mut feed = space.feed.lock().await;
    let mut more = false;
    for passed in 0.. {
        if step.next > space.head.get() {
            break;
        }
        if passed == STEP_MESSAGES_MAX {
            more = true;
            break;
        }
        let offset = step.next - 1;
        if offset < space.low.get() {
            step.missed += space.low.get() - offset;
            step.next = space.low.get() + 1;
            continue;
        }
        let taken = match feed.at(&link, &space.topic, offset, space.low.get()).await {
            Ok(taken) => taken,
            Err(error) => {
                drop(feed);
                return Err(reader.explained(cluster, namespace, error).await);
            }
        };
        let is_repeat = space.ids.borrow_mut().sees(&taken);
        if !step.pass(&taken, is_repeat, now, sink) {
            more = true;
            break;
        }
        space.note_head(step.next - 1);
    }
    Ok(Read {
        next: step.next,
        gap: (step.missed > 0).then_some(Gap {
            messages: step.missed,
            oldest_left: step.oldest_left,
        }),
        more,
    })
}

struct Reader<'r> {
    link: &'r Rc<Link>,
    space: Rc<Space>,
}

impl<'r> Reader<'r> {
    /// Asks where the topic begins and ends.
    async fn new(
        cluster: &Cluster,
        link: &'r Rc<Link>,
        namespace: NamespaceId,
    ) -> Result<Reader<'r>, StoreError> {
        let space = cluster.space(namespace);
        let Some((low, high)) = topics::find_watermarks(link, &space.topic).await? else {
            return Err(namespaces::absent(cluster, link, namespace).await);
        };
        space.low.set(low);
        space.note_head(high);
        Ok(Reader { link, space })
    }

    /// The first message from an offset on that has not expired.
    async fn first_live(&self, from: u64, now: UnixMillis) -> Result<Option<Rc<Taken>>, StoreError> {
        let space = &self.space;
        let mut feed = space.feed.lock().await;
        let mut offset = from.max(space.low.get());
        while offset < space.head.get() {
            let taken = feed.at(self.link, &space.topic, offset, space.low.get()).await?;
            if !is_expired(taken.expires_at, now) {
                return Ok(Some(taken));
            }
            offset = taken.offset + 1;
        }
        Ok(None)
    }

    /// The error of a read; that the namespace is gone, if it is.
    async fn explained(&self, cluster: &Cluster, namespace: NamespaceId, error: StoreError) -> StoreError {
        match namespaces::absent(cluster, self.link, namespace).await {
            gone @ (StoreError::DroppedNamespace(_) | StoreError::UnknownNamespace(_)) => gone,
            _ => error,
        }
    }
}

/// A reader's step while it is taken.
struct Step {
    next: u64,
    missed: u64,
    oldest_left: Option<UnixMillis>,
}

impl Step {
    /// Passes a message. `false`: the sink has no room for it.
    fn pass(&mut self, taken: &Taken, is_repeat: bool, now: UnixMillis, sink: &mut impl MessageSink) -> bool {
        let number = taken.offset + 1;
        self.missed += number.saturating_sub(self.next);
        self.next = number;
        if is_expired(taken.expires_at, now) {
            self.missed += u64::from(!is_repeat);
        } else if !is_repeat {
            if self.missed > 0 && self.oldest_left.is_none() {
                self.oldest_left = Some(taken.time);
            }
            if !show(taken, sink) {
                return false;
            }
        }
        self.next += 1;
        true
    }
}

/// Hands a message to the sink if it is wanted. `false`: there is no room for it.
fn show(taken: &Taken, sink: &mut impl MessageSink) -> bool {
    let (topic, key) = taken.topic_and_key();
    if !sink.wants(&topic) {
        return true;
    }
    let number = (taken.offset + 1).to_be_bytes();
    sink.message(&Stored {
        number: taken.offset + 1,
        // A plain client's message may have none.
        id: if taken.id.is_empty() { &number } else { &taken.id },
        time: taken.time,
        topic: &topic,
        key: &key,
        attributes: &taken.attributes,
        payload: &taken.payload,
    })
}
