//! Tables in a schema of ours, with a version: made, and moved on step by step. Programs that do it
//! at the same time take turns by a lock.

use std::rc::Rc;

use super::connect::{Fault, Link};
use super::connections::Connections;
use crate::error::StoreError;

/// The tables of one schema, by the statements that make and find them.
pub(super) struct Schema {
    /// Number of the lock under which they are changed; any that others do not use.
    pub(super) lock: i64,
    /// Has a row if the schema exists.
    pub(super) has_schema: &'static str,
    pub(super) create_schema: &'static str,
    /// Whether the table of the format exists.
    pub(super) has_format: &'static str,
    /// Reads format and oldest program.
    pub(super) read: &'static str,
    /// Writes them.
    pub(super) write: &'static str,
    /// Statements that make the next format of each. A step that was released is never changed.
    pub(super) steps: &'static [&'static str],
    /// Oldest format whose programs may use what this one writes.
    pub(super) usable_from: i32,
}

impl Schema {
    /// Format that this program writes.
    pub(super) fn format(&self) -> i32 {
        i32::try_from(self.steps.len()).unwrap_or(i32::MAX)
    }
}

/// State of the tables in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Format of the tables; 0: there are none.
    pub format: i32,
    /// Oldest format whose programs may use the tables.
    pub usable_from: i32,
}

impl Observed {
    /// Whether this program may use the tables. A newer program may have added to them meanwhile,
    /// while gateways are replaced one by one.
    pub(super) fn check(self, schema: &Schema, address: &str) -> Result<(), StoreError> {
        let known = schema.format();
        if self.usable_from > known {
            return Err(StoreError::WrongFormat {
                detail: format!(
                    "postgresql at {address}: its tables have format {}, which needs a program of format {} or newer; \
                     this one knows {known}. Use a newer one",
                    self.format, self.usable_from
                ),
            });
        }
        Ok(())
    }
}
/// Makes the tables, or moves older ones on. Returns their state afterwards; with `dry_run` the
/// current one.
pub(super) async fn ensure(
    connections: &Rc<Connections>,
    schema: &Schema,
    dry_run: bool,
) -> Result<Observed, StoreError> {
    let lease = connections.acquire().await?;
    let link = lease.begin();
    let mut observed = observe(link, schema).await?;
    if observed.format < schema.format() && !dry_run {
        match migrate(link, schema).await {
            Ok(()) => observed = observe(link, schema).await?,
            Err(fault) => {
                if !fault.is_of_connection() && link.run("ROLLBACK").await.is_ok() {
                    lease.finish();
                }
                return Err(fault.into());
            }
        }
    }
    lease.finish();
    observed.check(schema, connections.address())?;
    Ok(observed)
}

pub(super) async fn observe(link: &Link, schema: &Schema) -> Result<Observed, Fault> {
    let rows = link.query(schema.has_format, &[]).await?;
    let exists = rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?;
    let mut observed = Observed {
        format: 0,
        usable_from: 0,
    };
    if exists == Some(true)
        && let Some(row) = link.query(schema.read, &[]).await?.first()
    {
        observed.format = row.try_get(0)?;
        observed.usable_from = row.try_get(1)?;
    }
    Ok(observed)
}

/// Takes the missing steps, all in one transaction.
async fn migrate(link: &Link, schema: &Schema) -> Result<(), Fault> {
    link.run("BEGIN").await?;
    link.execute(LOCK, &[&schema.lock]).await?;
    let rows = link.query(schema.has_schema, &[]).await?;
    // Requested only if it is absent: it needs a right that the owner of a schema may lack.
    if rows.is_empty() {
        link.run(schema.create_schema).await?;
    }
    // Another gateway may have been first.
    let before = observe(link, schema).await?.format;
    for step in schema.steps.iter().skip(before.max(0) as usize) {
        link.run(step).await?;
    }
    if before < schema.format() {
        link.execute(schema.write, &[&schema.format(), &schema.usable_from])
            .await?;
    }
    link.run("COMMIT").await?;
    Ok(())
}

static LOCK: &str = "SELECT pg_advisory_xact_lock($1)";
