//! The measurement of a server: messages that are published and read one by one in a stream of
//! their own, which is made for it and deleted afterwards.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::Nats;
use super::connect::{Fault, Link, STREAM_NOT_FOUND};
use super::links::Links;
use super::positions::acknowledged;
use crate::error::StoreError;
use crate::rate::{Latencies, Level, Rate};

const STREAM: &str = "PRISM-PROBE";
const SUBJECT: &str = "prism.probe";

/// Messages that the stream holds at most; the oldest go.
const MESSAGES_MAX: u64 = 10_000;

/// Calls at a time.
const STEPS: [u32; 3] = [1, 8, 64];

impl Nats {
    /// Measures the server for about this time, with payloads of this many bytes, on one
    /// connection.
    ///
    /// Errors: as for any call.
    pub async fn probe(&self, time: Duration, payload_bytes: usize) -> Result<Vec<Level>, StoreError> {
        let link = self.links.acquire().await?;
        // One that an earlier probe has left.
        delete(&self.links, &link).await?;
        let config = json!({
            "name": STREAM, "subjects": [SUBJECT], "storage": "file", "discard": "old",
            "max_msgs": MESSAGES_MAX, "allow_direct": true,
        });
        let made = link.call(&format!("STREAM.CREATE.{STREAM}"), &config).await?;
        if let Some(fault) = Fault::of(&made) {
            return Err(fault.into_store(self.links.address()));
        }
        let measured = self.measure(&link, time, payload_bytes).await;
        // Also after a failure.
        delete(&self.links, &link).await?;
        measured
    }

    async fn measure(
        &self,
        link: &Rc<Link>,
        time: Duration,
        payload_bytes: usize,
    ) -> Result<Vec<Level>, StoreError> {
        let each = time / (2 * STEPS.len() as u32);
        let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 31 % 251) as u8).collect();
        let payload = Bytes::from(payload);
        let last = Rc::new(Cell::new(0));
        let mut levels = Vec::new();
        for outstanding in STEPS {
            let writes = self.rate(link, outstanding, each, Some(&payload), &last).await?;
            let reads = self.rate(link, outstanding, each, None, &last).await?;
            levels.push(Level {
                outstanding,
                writes,
                reads,
            });
        }
        Ok(levels)
    }

    /// Runs calls for some time, so many at a time: writes of a payload, or reads.
    async fn rate(
        &self,
        link: &Rc<Link>,
        outstanding: u32,
        time: Duration,
        payload: Option<&Bytes>,
        last: &Rc<Cell<u64>>,
    ) -> Result<Rate, StoreError> {
        let latencies = Rc::new(Latencies::default());
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for worker in 0..u64::from(outstanding) {
            let (links, link, last) = (self.links.clone(), link.clone(), last.clone());
            let (latencies, payload) = (latencies.clone(), payload.cloned());
            tasks.push(tokio::task::spawn_local(async move {
                let mut step = worker * 7_919;
                while begun.elapsed() < time {
                    let sent = Instant::now();
                    match &payload {
                        Some(payload) => last.set(write(&links, &link, payload).await?.max(last.get())),
                        None => {
                            // A walk over all messages, elsewhere for each worker.
                            step += 4_871;
                            let back = step % last.get().clamp(1, MESSAGES_MAX);
                            read(&link, last.get().saturating_sub(back)).await?;
                        }
                    }
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
}

/// Publishes a message; its number.
async fn write(links: &Links, link: &Link, payload: &Bytes) -> Result<u64, StoreError> {
    let answer = link
        .ask(SUBJECT.to_owned(), None, payload.clone())
        .await?
        .next()
        .await?;
    match acknowledged(&answer)? {
        Ok(receipt) => Ok(receipt["seq"].as_u64().unwrap_or(0)),
        Err(fault) => Err(fault.into_store(links.address())),
    }
}

async fn read(link: &Link, number: u64) -> Result<(), StoreError> {
    let payload = Bytes::from(json!({"seq": number}).to_string());
    let what = format!("$JS.API.DIRECT.GET.{STREAM}");
    link.ask(what, None, payload).await?.next().await.map(drop)
}

async fn delete(links: &Links, link: &Link) -> Result<(), StoreError> {
    let answer = link.call(&format!("STREAM.DELETE.{STREAM}"), &json!({})).await?;
    match Fault::of(&answer) {
        Some(fault) if fault.number != STREAM_NOT_FOUND => Err(fault.into_store(links.address())),
        _ => Ok(()),
    }
}
