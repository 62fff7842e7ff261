//! The measurement of a server: values of keys of its own, which are written and read one by one,
//! removed afterwards, and gone by themselves should that fail.

use std::rc::Rc;
use std::time::{Duration, Instant};

use redis::{Pipeline, Value};

use super::Redis;
use super::connect::{Facts, Fault};
use crate::error::StoreError;
use crate::rate::{Latencies, Level, Rate};

/// Keys that are written and read at the most, and bytes of their values together.
const KEYS_MAX: u64 = 10_000;
const BYTES_MAX: u64 = 64 << 20;

/// Calls at a time.
const STEPS: [u32; 3] = [1, 8, 64];

/// Life of a value, in seconds: the longest measurement and some more.
const LIFE_SECONDS: u32 = 180;

/// Keys that are removed at a time.
const REMOVED: u64 = 1_000;

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Facts about the server.
    pub facts: Facts,
    /// One measurement for each number of calls at a time, in their order.
    pub levels: Vec<Level>,
}

impl Redis {
    /// Measures the server for about this time, with values of this many bytes. Up to 64 calls
    /// share a connection.
    ///
    /// Errors: as for any call.
    pub async fn probe(&self, time: Duration, value_bytes: usize) -> Result<Probe, StoreError> {
        let keys = (BYTES_MAX / (value_bytes as u64).max(1)).clamp(1, KEYS_MAX);
        let measured = self.measure(time, value_bytes, keys).await;
        // Also after a failure.
        for first in (0..keys).step_by(REMOVED as usize) {
            let mut asked = redis::pipe();
            let removed = asked.cmd("DEL");
            for number in first..keys.min(first + REMOVED) {
                removed.arg(key(number));
            }
            self.links.ask(&asked).await?;
        }
        Ok(Probe {
            facts: self.facts().await?,
            levels: measured?,
        })
    }

    async fn measure(&self, time: Duration, value_bytes: usize, keys: u64) -> Result<Vec<Level>, StoreError> {
        let each = time / (2 * STEPS.len() as u32);
        let value: Rc<[u8]> = (0..value_bytes).map(|at| (at * 31 % 251) as u8).collect();
        let mut levels = Vec::new();
        for outstanding in STEPS {
            let writes = self.rate(outstanding, each, keys, Some(value.clone())).await?;
            let reads = self.rate(outstanding, each, keys, None).await?;
            levels.push(Level {
                outstanding,
                writes,
                reads,
            });
        }
        Ok(levels)
    }

    /// Runs calls for some time, so many at a time: writes of a value, or reads.
    async fn rate(
        &self,
        outstanding: u32,
        time: Duration,
        keys: u64,
        value: Option<Rc<[u8]>>,
    ) -> Result<Rate, StoreError> {
        let latencies = Rc::new(Latencies::default());
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for worker in 0..u64::from(outstanding) {
            let (store, latencies, value) = (self.clone(), latencies.clone(), value.clone());
            tasks.push(tokio::task::spawn_local(async move {
                let mut number = worker * 7_919;
                while begun.elapsed() < time {
                    // A walk over all keys, elsewhere for each worker.
                    number = (number + 4_871) % keys;
                    let asked = call(number, value.as_deref());
                    let sent = Instant::now();
                    // Another probe may have removed what is read here.
                    let answers = store.links.ask(&asked).await?;
                    if value.is_some() && !matches!(answers.first(), Some(Value::Okay)) {
                        return Err(Fault::into_store(super::connect::unexpected(answers.first())));
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

/// Name of a key: no namespace's, whose names have a number.
fn key(number: u64) -> String {
    format!("prism:probe:{number}")
}

fn call(number: u64, value: Option<&[u8]>) -> Pipeline {
    let mut asked = redis::pipe();
    match value {
        Some(value) => {
            let written = asked.cmd("SET").arg(key(number)).arg(value);
            written.arg("EX").arg(LIFE_SECONDS);
        }
        None => {
            asked.cmd("GET").arg(key(number));
        }
    }
    asked
}
