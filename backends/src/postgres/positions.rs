//! Positions up to which the logs of gateways are applied here. A position is noted in the
//! transaction that applies its records, so that after a crash the store has both or neither.
//!
//! An acknowledged commit is durable, so every noted position is synced.

use super::Postgres;
use super::connect::{Fault, Link, Parameters};
use crate::error::StoreError;
use crate::ids::{LogId, LogPosition, NamespaceId};

/// A position as it is stored.
pub(super) struct Stored {
    log: [u8; 16],
    pub(super) lane: i64,
    pub(super) namespace: i64,
    pub(super) lsn: i64,
}

impl Stored {
    pub(super) fn new(at: &LogPosition) -> Result<Stored, StoreError> {
        let lsn = i64::try_from(at.lsn).map_err(|_| {
            StoreError::invalid("lsn", format!("must be at most {}, is {}", i64::MAX, at.lsn))
        })?;
        Ok(Stored {
            log: log_bytes(at.log),
            lane: i64::from(at.lane),
            namespace: i64::from(at.namespace.0),
            lsn,
        })
    }

    pub(super) fn log(&self) -> &[u8] {
        &self.log
    }
}

/// Notes a position within a transaction; false if it, or a later one, is noted already.
pub(super) async fn note(link: &Link, at: &LogPosition) -> Result<bool, Fault> {
    let stored = Stored::new(at)?;
    let noted = link
        .execute(
            NOTE,
            &[&stored.log(), &stored.lane, &stored.namespace, &stored.lsn],
        )
        .await?;
    Ok(noted > 0)
}

impl Postgres {
    /// All noted positions of one log, by lane and namespace.
    pub async fn positions(&self, log: LogId) -> Result<Vec<LogPosition>, StoreError> {
        let lease = self.connections.acquire().await?;
        let bytes = log_bytes(log);
        let rows = lease
            .begin()
            .query(POSITIONS, &[&bytes.as_slice()])
            .await
            .map_err(Fault::from)?;
        lease.finish();
        let mut positions = Vec::with_capacity(rows.len());
        for row in rows {
            let number = |at| row.try_get::<_, i64>(at).map_err(Fault::from);
            positions.push(LogPosition {
                log,
                lane: narrow(number(0)?)?,
                namespace: NamespaceId(narrow(number(1)?)?),
                lsn: number(2)?.max(0).cast_unsigned(),
            });
        }
        Ok(positions)
    }

    /// The position of one lane and namespace; 0 if none is noted.
    pub(super) async fn position(
        &self,
        log: LogId,
        lane: u32,
        namespace: NamespaceId,
    ) -> Result<u64, StoreError> {
        let lease = self.connections.acquire().await?;
        let bytes = log_bytes(log);
        let place: Parameters<'_> = &[&bytes.as_slice(), &i64::from(lane), &i64::from(namespace.0)];
        let rows = lease.begin().query(POSITION, place).await.map_err(Fault::from)?;
        lease.finish();
        let Some(row) = rows.first() else { return Ok(0) };
        let lsn = row.try_get::<_, i64>(0).map_err(Fault::from)?;
        Ok(lsn.max(0).cast_unsigned())
    }

    /// Forgets the positions of one lane: its records are gone for good.
    pub async fn forget(&self, log: LogId, lane: u32) -> Result<(), StoreError> {
        let bytes = log_bytes(log);
        self.forget_rows(FORGET, &[&bytes.as_slice(), &i64::from(lane)])
            .await
    }

    /// Forgets the position of one lane and namespace.
    pub(super) async fn forget_one(
        &self,
        log: LogId,
        lane: u32,
        namespace: NamespaceId,
    ) -> Result<(), StoreError> {
        let bytes = log_bytes(log);
        let place: Parameters<'_> = &[&bytes.as_slice(), &i64::from(lane), &i64::from(namespace.0)];
        self.forget_rows(FORGET_ONE, place).await
    }

    async fn forget_rows(&self, statement: &'static str, place: Parameters<'_>) -> Result<(), StoreError> {
        let lease = self.connections.acquire().await?;
        lease
            .begin()
            .execute(statement, place)
            .await
            .map_err(Fault::from)?;
        lease.finish();
        Ok(())
    }
}

fn log_bytes(LogId(log): LogId) -> [u8; 16] {
    log.to_be_bytes()
}

fn narrow(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| StoreError::Corrupt {
        detail: format!("a position with the number {number}"),
    })
}

static NOTE: &str = "INSERT INTO prism.applied AS a (log, lane, namespace, lsn) VALUES ($1, $2, $3, $4)
    ON CONFLICT (log, lane, namespace) DO UPDATE SET lsn = excluded.lsn WHERE excluded.lsn > a.lsn";
static POSITIONS: &str =
    "SELECT lane, namespace, lsn FROM prism.applied WHERE log = $1 ORDER BY lane, namespace";
static FORGET: &str = "DELETE FROM prism.applied WHERE log = $1 AND lane = $2";
static POSITION: &str = "SELECT lsn FROM prism.applied WHERE log = $1 AND lane = $2 AND namespace = $3";
static FORGET_ONE: &str = "DELETE FROM prism.applied WHERE log = $1 AND lane = $2 AND namespace = $3";
