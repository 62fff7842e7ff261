//! Reading back: which messages a topic has of what this shard has sent, and how far the logs of
//! gateways are applied.
//!
//! Each message of a batch of the log carries the batch's position and the number of those after
//! it. A start reads from the offset of the last mark on. Batches that are there as a whole are
//! skipped by their position; the messages of one that is there in part, by their ids.

use std::rc::Rc;

use super::cluster::{Cluster, Space};
use super::known::IDS_MAX;
use super::link::Link;
use super::wire::Taken;
use super::{marks, topics};
use crate::api::pubsub::ID_WINDOW_MS;
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId, UnixMillis};

/// Learns the ids of messages that were stored lately, or that may have been stored without an
/// answer. `false`: the topic is not there.
pub(super) async fn learn(link: &Rc<Link>, space: &Space, now: UnixMillis) -> Result<bool, StoreError> {
    if space.seen.get().is_some() && !space.is_unsure.get() {
        return Ok(true);
    }
    // A doubt that comes up meanwhile is another one.
    space.is_unsure.set(false);
    let learned = look(link, space, now).await;
    if learned != Ok(true) {
        space.is_unsure.set(true);
    }
    learned
}

async fn look(link: &Rc<Link>, space: &Space, now: UnixMillis) -> Result<bool, StoreError> {
    let Some((low, high)) = topics::find_watermarks(link, &space.topic).await? else {
        return Ok(false);
    };
    match space.seen.get() {
        Some(seen) => walk(link, space, seen.max(low), high, |_| {}).await?,
        None => {
            let since = UnixMillis(now.0.saturating_sub(ID_WINDOW_MS));
            let first = topics::offset_at(link, &space.topic, since)
                .await?
                .unwrap_or(high);
            let from = first.max(low).max(high.saturating_sub(IDS_MAX as u64));
            walk_lately(link, space, from, high).await?;
        }
    }
    space.seen.set(Some(high));
    Ok(true)
}

/// Position of one lane in a namespace; 0 if none is noted.
pub(super) async fn noted(
    cluster: &Cluster,
    log: LogId,
    lane: u32,
    namespace: NamespaceId,
) -> Result<u64, StoreError> {
    let link = cluster.acquire().await?;
    let mark = {
        let mut marks = cluster.marks.lock().await;
        marks.refresh(&link).await?;
        marks.position(log, lane, namespace)
    };
    let (mut lsn, from) = mark.unwrap_or((0, 0));
    let space = cluster.space(namespace);
    let Some((low, high)) = topics::find_watermarks(&link, &space.topic).await? else {
        return Ok(lsn);
    };
    walk(&link, &space, from.max(low), high, |taken| {
        let whole = taken
            .position
            .filter(|found| found.log == log && found.lane == lane && found.left == 0);
        lsn = lsn.max(whole.map_or(0, |found| found.lsn));
    })
    .await?;
    Ok(lsn)
}

/// Forgets the position of one lane in a namespace: its records are gone for good. The headers of
/// the messages that are there count no longer.
pub(super) async fn forget(
    cluster: &Cluster,
    log: LogId,
    lane: u32,
    namespace: NamespaceId,
) -> Result<(), StoreError> {
    let link = cluster.acquire().await?;
    let space = cluster.space(namespace);
    let end = topics::find_watermarks(&link, &space.topic).await?;
    let at = LogPosition {
        log,
        lane,
        namespace,
        lsn: 0,
    };
    marks::set_position(cluster, &link, &at, end.map_or(0, |(_, high)| high)).await
}

/// Reads all messages from an offset up to another.
async fn walk(
    link: &Rc<Link>,
    space: &Space,
    from: u64,
    to: u64,
    mut each: impl FnMut(&Taken),
) -> Result<(), StoreError> {
    let mut feed = space.feed.lock().await;
    let mut next = from;
    while next < to {
        let taken = feed.at(link, &space.topic, next, from).await?;
        if taken.offset >= to {
            break;
        }
        space.ids.borrow_mut().sees(&taken);
        each(&taken);
        next = taken.offset + 1;
    }
    Ok(())
}

/// Bytes that are read to learn ids, about; then only the last messages are read.
const LEARN_BYTES_MAX: usize = 256 << 20;

/// Reads messages likewise, but leaves out some where they are too large to be read all.
async fn walk_lately(link: &Rc<Link>, space: &Space, from: u64, to: u64) -> Result<(), StoreError> {
    let first = from.max(to.saturating_sub(SAMPLE));
    let mut bytes = 0;
    walk(link, space, first, to, |taken| bytes += taken.bytes()).await?;
    let each = bytes / usize::try_from(to - first).unwrap_or(1).max(1);
    let affordable = (LEARN_BYTES_MAX / each.max(1)) as u64;
    walk(
        link,
        space,
        from.max(first.saturating_sub(affordable)),
        first,
        |_| {},
    )
    .await
}

/// Messages at the end of a topic that show how large its messages are.
const SAMPLE: u64 = 64;
