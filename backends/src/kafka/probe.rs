//! The measurement of a cluster: messages that are published one by one, and read one after the
//! other, in a topic of their own, which is made for it and deleted afterwards.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rdkafka::producer::BaseRecord;
use tokio::sync::mpsc::unbounded_channel;

use super::feed::Feed;
use super::link::{ANSWER_MAX, Link, Report};
use super::{Kafka, topics};
use crate::error::StoreError;
use crate::rate::{Latencies, Level, Rate};

/// Calls at a time.
const STEPS: [u32; 3] = [1, 8, 64];

impl Kafka {
    /// Measures the cluster for about this time, with payloads of this many bytes.
    ///
    /// Errors: as for any call.
    pub async fn probe(&self, time: Duration, payload_bytes: usize) -> Result<Vec<Level>, StoreError> {
        let link = self.cluster.acquire().await?;
        let config = self.cluster.config();
        let topic = format!("{}-probe", self.cluster.own());
        let settings = [("max.message.bytes", super::config::MESSAGE_BYTES_MAX.to_owned())];
        topics::create(config, &link, &topic, &settings).await?;
        let measured = measure(&link, &topic, time, payload_bytes).await;
        // Also after a failure.
        topics::delete(config, &topic).await?;
        measured
    }
}

async fn measure(
    link: &Rc<Link>,
    topic: &str,
    time: Duration,
    payload_bytes: usize,
) -> Result<Vec<Level>, StoreError> {
    let each = time / (2 * STEPS.len() as u32);
    let payload: Rc<[u8]> = (0..payload_bytes).map(|at| (at * 31 % 251) as u8).collect();
    let end = Rc::new(Cell::new(0));
    let mut levels = Vec::new();
    for outstanding in STEPS {
        let writes = write(link, topic, outstanding, each, &payload, &end).await?;
        let reads = read(link, topic, each, end.get()).await?;
        levels.push(Level {
            outstanding,
            writes,
            reads,
        });
    }
    Ok(levels)
}

/// Publishes for some time, so many at a time.
async fn write(
    link: &Rc<Link>,
    topic: &str,
    outstanding: u32,
    time: Duration,
    payload: &Rc<[u8]>,
    end: &Rc<Cell<u64>>,
) -> Result<Rate, StoreError> {
    let latencies = Rc::new(Latencies::default());
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..outstanding {
        let (link, topic, payload) = (link.clone(), topic.to_owned(), payload.clone());
        let (latencies, end) = (latencies.clone(), end.clone());
        tasks.push(tokio::task::spawn_local(async move {
            while begun.elapsed() < time {
                let sent = Instant::now();
                let offset = publish(&link, &topic, &payload).await?;
                end.set(end.get().max(offset + 1));
                latencies.add(sent);
            }
            Ok::<_, StoreError>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|cause| StoreError::Internal {
            detail: cause.to_string(),
        })??;
    }
    Ok(latencies.rate(begun))
}

/// Publishes a message; its offset.
async fn publish(link: &Link, topic: &str, payload: &[u8]) -> Result<u64, StoreError> {
    let (to, mut reports) = unbounded_channel();
    let report = Box::new(Report { index: 0, to });
    let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, report)
        .partition(0)
        .payload(payload);
    let sent = link.producer().send(record);
    sent.map_err(|(error, _)| link.failed(&error))?;
    let lost = |why: String| StoreError::Io {
        detail: format!("kafka: {topic}: {why}"),
    };
    match tokio::time::timeout(ANSWER_MAX, reports.recv()).await {
        Ok(Some(delivered)) => {
            let stored = delivered.result.map_err(|code| lost(code.to_string()));
            stored.map(|(offset, _)| offset)
        }
        _ => Err(lost("no answer".to_owned())),
    }
}

/// Reads for some time, from the beginning to the end again and again.
async fn read(link: &Rc<Link>, topic: &str, time: Duration, end: u64) -> Result<Rate, StoreError> {
    let (latencies, begun) = (Latencies::default(), Instant::now());
    let mut feed = Feed::default();
    let mut next = 0;
    while begun.elapsed() < time && end > 0 {
        let asked = Instant::now();
        next = feed.at(link, topic, next % end, 0).await?.offset + 1;
        latencies.add(asked);
    }
    Ok(latencies.rate(begun))
}
