//! The measurement of a server: rows that are written and read in a scratch schema, which is made
//! for it and dropped afterwards.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connect::{Fault, Link};
use super::{Facts, Postgres};
use crate::error::StoreError;
use crate::rate::{Latencies, Level, Rate};

/// Rows that are written and read.
const ROWS: i64 = 10_000;

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Facts about the server.
    pub facts: Facts,
    /// One measurement for each number of calls at a time, in their order.
    pub levels: Vec<Level>,
}

impl Postgres {
    /// Measures the server for about this time, with values of this many bytes. Uses up to as many
    /// connections as this store may have.
    ///
    /// Errors: [`StoreError::Busy`] if another probe is in progress; as for any call.
    pub async fn probe(&self, time: Duration, value_bytes: usize) -> Result<Probe, StoreError> {
        let lease = self.connections.acquire().await?;
        let link = lease.begin();
        let is_alone = link.query(TAKE, &[&LOCK]).await.map_err(Fault::from)?;
        let is_alone = is_alone.first().map(|row| row.try_get::<_, bool>(0)).transpose();
        if is_alone.map_err(Fault::from)? != Some(true) {
            lease.finish();
            return Err(StoreError::Busy {
                detail: "another probe of this database is in progress".to_owned(),
            });
        }
        link.run(MAKE).await.map_err(Fault::from)?;
        let measured = self.measure(time, value_bytes).await;
        // Also after a failure; the lock goes with the connection, if this fails, too.
        link.run(DROP).await.map_err(Fault::from)?;
        link.execute(RELEASE, &[&LOCK]).await.map_err(Fault::from)?;
        lease.finish();
        Ok(Probe {
            facts: self.facts().await?,
            levels: measured?,
        })
    }

    async fn measure(&self, time: Duration, value_bytes: usize) -> Result<Vec<Level>, StoreError> {
        // One connection holds the lock.
        let most = self.connections.cap().saturating_sub(1).max(1);
        let mut steps: Vec<u32> = [1, 8, 64, 256].into_iter().filter(|step| *step < most).collect();
        steps.push(most);
        let each = time / u32::try_from(2 * steps.len()).unwrap_or(2);
        let value: Rc<[u8]> = (0..value_bytes).map(|at| (at * 31 % 251) as u8).collect();
        let mut levels = Vec::new();
        for outstanding in steps {
            let writes = self.rate(outstanding, each, Some(value.clone())).await?;
            let reads = self.rate(outstanding, each, None).await?;
            levels.push(Level {
                outstanding,
                writes,
                reads,
            });
        }
        Ok(levels)
    }

    /// Runs calls for some time, so many at a time.
    async fn rate(
        &self,
        outstanding: u32,
        time: Duration,
        value: Option<Rc<[u8]>>,
    ) -> Result<Rate, StoreError> {
        let latencies = Rc::new(Latencies::default());
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for worker in 0..outstanding {
            let (store, latencies, value) = (self.clone(), latencies.clone(), value.clone());
            tasks.push(tokio::task::spawn_local(async move {
                let lease = store.connections.acquire().await?;
                let link = lease.begin();
                let mut number = i64::from(worker) * 7_919;
                while begun.elapsed() < time {
                    // A walk over all rows, elsewhere for each worker.
                    number = (number + 4_871) % ROWS;
                    let asked = Instant::now();
                    call(link, number, value.as_deref()).await?;
                    latencies.add(asked);
                }
                lease.finish();
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

async fn call(link: &Link, number: i64, value: Option<&[u8]>) -> Result<(), Fault> {
    match value {
        Some(value) => link.execute(WRITE, &[&number, &value]).await.map(drop)?,
        None => link.query(READ, &[&number]).await.map(drop)?,
    }
    Ok(())
}

const LOCK: i64 = 0x7072_6973_6d00_0003;
static TAKE: &str = "SELECT pg_try_advisory_lock($1)";
static RELEASE: &str = "SELECT pg_advisory_unlock($1)";
/// Statements that make the scratch schema; the one that an earlier probe has left goes first.
const MAKE: &str = "DROP SCHEMA IF EXISTS prism_probe CASCADE; CREATE SCHEMA prism_probe;
    CREATE TABLE prism_probe.item (id bigint PRIMARY KEY, value bytea NOT NULL);
    ALTER TABLE prism_probe.item ALTER COLUMN value SET STORAGE EXTERNAL";
const DROP: &str = "DROP SCHEMA prism_probe CASCADE";
static WRITE: &str = "INSERT INTO prism_probe.item (id, value) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET value = excluded.value";
static READ: &str = "SELECT value FROM prism_probe.item WHERE id = $1";
