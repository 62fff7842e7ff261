//! The tables, made or brought to the newest format before the store is used. Gateways may do so at
//! the same time; a lock lets them take turns.

use super::Postgres;
use super::connect::{Fault, Link};
use crate::error::StoreError;

/// Format that this program writes.
pub const FORMAT: i32 = STEPS.len() as i32;

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
    pub fn check(self, address: &str) -> Result<(), StoreError> {
        if self.usable_from > FORMAT {
            return Err(StoreError::WrongFormat {
                detail: format!(
                    "postgresql at {address}: its tables have format {}, which needs a program of format {} or newer; \
                     this one knows {FORMAT}. Use a newer one",
                    self.format, self.usable_from
                ),
            });
        }
        Ok(())
    }
}

impl Postgres {
    /// The state of the tables now.
    pub async fn inspect(&self) -> Result<Observed, StoreError> {
        let lease = self.connections.acquire().await?;
        let observed = observe(lease.begin()).await?;
        lease.finish();
        Ok(observed)
    }

    /// Makes the tables, or brings older ones to the newest format. Does nothing if they have it.
    /// Returns their state afterwards; with `dry_run` the current one.
    ///
    /// Errors: [`StoreError::WrongFormat`] if a newer program made them that excludes this one;
    /// [`StoreError::Unopenable`] without the right to make them.
    pub async fn ensure(&self, dry_run: bool) -> Result<Observed, StoreError> {
        let lease = self.connections.acquire().await?;
        let link = lease.begin();
        let mut observed = observe(link).await?;
        if observed.format < FORMAT && !dry_run {
            match migrate(link).await {
                Ok(()) => observed = observe(link).await?,
                Err(fault) => {
                    if !fault.is_of_connection() && link.run("ROLLBACK").await.is_ok() {
                        lease.finish();
                    }
                    return Err(fault.into());
                }
            }
        }
        lease.finish();
        observed.check(self.connections.address())?;
        Ok(observed)
    }
}

impl Postgres {
    /// Marks the tables as those of a catalog, the first to claim them; false if they are
    /// another's. Numbers of namespaces from two catalogs would collide here.
    pub async fn claim(&self, catalog: u128) -> Result<bool, StoreError> {
        let lease = self.connections.acquire().await?;
        let bytes = catalog.to_be_bytes();
        let rows = lease
            .begin()
            .query(CLAIM, &[&bytes.as_slice()])
            .await
            .map_err(Fault::from)?;
        lease.finish();
        let owner = rows.first().map(|row| row.try_get::<_, &[u8]>(0)).transpose();
        Ok(owner.map_err(Fault::from)? == Some(bytes.as_slice()))
    }
}

async fn observe(link: &Link) -> Result<Observed, Fault> {
    let rows = link.query(EXISTS, &[]).await?;
    let exists = rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?;
    let mut observed = Observed {
        format: 0,
        usable_from: 0,
    };
    if exists == Some(true)
        && let Some(row) = link.query(READ, &[]).await?.first()
    {
        observed.format = row.try_get(0)?;
        observed.usable_from = row.try_get(1)?;
    }
    Ok(observed)
}

/// Takes the missing steps, all in one transaction.
async fn migrate(link: &Link) -> Result<(), Fault> {
    link.run("BEGIN").await?;
    link.execute(LOCK, &[&LOCK_NUMBER]).await?;
    let rows = link.query(HAS_SCHEMA, &[]).await?;
    // Requested only if it is absent: it needs a right that the owner of a schema may lack.
    if rows.is_empty() {
        link.run("CREATE SCHEMA prism").await?;
    }
    // Another gateway may have been first.
    let before = observe(link).await?.format;
    for step in STEPS.iter().skip(before.max(0) as usize) {
        link.run(step).await?;
    }
    if before < FORMAT {
        link.execute(WRITE, &[&FORMAT, &USABLE_FROM]).await?;
    }
    link.run("COMMIT").await?;
    Ok(())
}

/// Oldest format whose programs may use the tables of this one.
const USABLE_FROM: i32 = 1;

/// Number of the lock: any number that others do not use.
const LOCK_NUMBER: i64 = 0x7072_6973_6d00_0001;

static LOCK: &str = "SELECT pg_advisory_xact_lock($1)";
static HAS_SCHEMA: &str = "SELECT 1 FROM pg_namespace WHERE nspname = 'prism'";
static EXISTS: &str = "SELECT to_regclass('prism.format') IS NOT NULL";
static READ: &str = "SELECT version, usable_from FROM prism.format";
static CLAIM: &str = "INSERT INTO prism.owner AS o (one, catalog) VALUES (true, $1)
    ON CONFLICT (one) DO UPDATE SET catalog = o.catalog RETURNING catalog";
static WRITE: &str = "INSERT INTO prism.format (one, version, usable_from) VALUES (true, $1, $2)
    ON CONFLICT (one) DO UPDATE SET version = excluded.version, usable_from = excluded.usable_from";

/// Statements that make each format from the one before. A released step is never changed.
const STEPS: [&str; 2] = [FORMAT_1, FORMAT_2];

/// The catalog that numbers the namespaces.
const FORMAT_2: &str = "
    CREATE TABLE prism.owner (
        one boolean PRIMARY KEY CHECK (one),
        catalog bytea NOT NULL
    );
";

/// Values are stored uncompressed by the server: clients compress theirs, and mark them so.
const FORMAT_1: &str = "
    CREATE TABLE prism.format (
        one boolean PRIMARY KEY CHECK (one),
        version integer NOT NULL,
        usable_from integer NOT NULL
    );
    CREATE TABLE prism.namespace (
        number bigint PRIMARY KEY,
        state smallint NOT NULL
    );
    CREATE TABLE prism.item (
        namespace bigint NOT NULL,
        id bytea NOT NULL,
        key bytea NOT NULL,
        version bytea NOT NULL,
        expires_at bigint,
        kind smallint NOT NULL,
        value bytea NOT NULL,
        PRIMARY KEY (namespace, id, key)
    ) WITH (fillfactor = 90);
    ALTER TABLE prism.item ALTER COLUMN value SET STORAGE EXTERNAL;
    CREATE INDEX item_expiry ON prism.item (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE prism.range_delete (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        namespace bigint NOT NULL,
        id bytea NOT NULL,
        start bytea NOT NULL,
        \"end\" bytea NOT NULL,
        version bytea NOT NULL,
        forget_at bigint NOT NULL,
        is_done boolean NOT NULL
    );
    CREATE INDEX range_delete_subject ON prism.range_delete (namespace, id);
    CREATE INDEX range_delete_expiry ON prism.range_delete (forget_at);
    CREATE INDEX range_delete_rest ON prism.range_delete (number) WHERE NOT is_done;
    CREATE TABLE prism.swap (
        namespace bigint NOT NULL,
        version bytea NOT NULL,
        subject bigint NOT NULL,
        digest bigint,
        verdict bigint NOT NULL,
        value bytea,
        expires_at bigint,
        compression smallint,
        forget_at bigint NOT NULL,
        PRIMARY KEY (namespace, version, subject)
    );
    CREATE INDEX swap_expiry ON prism.swap (forget_at);
    CREATE TABLE prism.applied (
        log bytea NOT NULL,
        lane bigint NOT NULL,
        namespace bigint NOT NULL,
        lsn bigint NOT NULL,
        PRIMARY KEY (log, lane, namespace)
    ) WITH (fillfactor = 50);
";
