//! The tables: made, and brought to the newest format, before the store is used.

use super::Postgres;
use super::connect::Fault;
use super::schema::{self, Observed, Schema};
use crate::error::StoreError;

/// Format that this program writes.
pub const FORMAT: i32 = STEPS.len() as i32;

impl Postgres {
    /// The state of the tables now.
    pub async fn inspect(&self) -> Result<Observed, StoreError> {
        let lease = self.connections.acquire().await?;
        let observed = schema::observe(lease.begin(), &SCHEMA).await?;
        lease.finish();
        Ok(observed)
    }

    /// Makes the tables, or brings older ones to the newest format. Does nothing if they have it.
    /// Returns their state afterwards; with `dry_run` the current one.
    ///
    /// Errors: [`StoreError::WrongFormat`] if a newer program made them that excludes this one;
    /// [`StoreError::Unopenable`] without the right to make them.
    pub async fn ensure(&self, dry_run: bool) -> Result<Observed, StoreError> {
        schema::ensure(&self.connections, &SCHEMA, dry_run).await
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

/// The tables of the store.
static SCHEMA: Schema = Schema {
    lock: 0x7072_6973_6d00_0001,
    has_schema: "SELECT 1 FROM pg_namespace WHERE nspname = 'prism'",
    create_schema: "CREATE SCHEMA prism",
    has_format: "SELECT to_regclass('prism.format') IS NOT NULL",
    read: "SELECT version, usable_from FROM prism.format",
    write: "INSERT INTO prism.format (one, version, usable_from) VALUES (true, $1, $2)
    ON CONFLICT (one) DO UPDATE SET version = excluded.version, usable_from = excluded.usable_from",
    steps: &STEPS,
    usable_from: 1,
};

static CLAIM: &str = "INSERT INTO prism.owner AS o (one, catalog) VALUES (true, $1)
    ON CONFLICT (one) DO UPDATE SET catalog = o.catalog RETURNING catalog";

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
