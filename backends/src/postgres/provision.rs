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
const STEPS: [&str; 4] = [FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4];

/// Topics. Texts are bytes, since a key may contain the character 0.
const FORMAT_4: &str = "
    CREATE TABLE prism.message (
        namespace bigint NOT NULL,
        number bigint NOT NULL,
        partition smallint NOT NULL,
        topic bytea NOT NULL,
        key bytea NOT NULL,
        id bytea NOT NULL,
        time bigint NOT NULL,
        expires_at bigint,
        bytes bigint NOT NULL,
        attributes bytea NOT NULL,
        payload bytea NOT NULL,
        PRIMARY KEY (namespace, number)
    );
    ALTER TABLE prism.message ALTER COLUMN payload SET STORAGE EXTERNAL;
    CREATE INDEX message_expiry ON prism.message (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE prism.message_id (
        namespace bigint NOT NULL,
        id bytea NOT NULL,
        digest bigint,
        forget_at bigint NOT NULL,
        PRIMARY KEY (namespace, id)
    );
    CREATE INDEX message_id_expiry ON prism.message_id (forget_at);
";

/// Queues. Rows of `queue_item` change often and stay few: old versions of them are removed early.
const FORMAT_3: &str = "
    CREATE TABLE prism.counter (
        namespace bigint PRIMARY KEY,
        next bigint NOT NULL,
        time bigint NOT NULL
    ) WITH (fillfactor = 10);
    CREATE TABLE prism.queue_item (
        namespace bigint NOT NULL,
        place bigint NOT NULL,
        id bytea NOT NULL,
        digest bigint,
        key bytea,
        head boolean NOT NULL,
        phase smallint NOT NULL,
        at bigint NOT NULL,
        serial bigint NOT NULL,
        spent bigint NOT NULL,
        judged bigint NOT NULL,
        attempts_max bigint NOT NULL,
        sent_at bigint NOT NULL,
        leased_at bigint NOT NULL,
        begin_by bigint,
        dead_by bigint NOT NULL,
        look_at bigint NOT NULL,
        call bytea,
        failure bytea NOT NULL,
        body bigint NOT NULL,
        bytes bigint NOT NULL,
        PRIMARY KEY (namespace, place)
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
    CREATE UNIQUE INDEX queue_item_id ON prism.queue_item (namespace, id);
    CREATE INDEX queue_item_head ON prism.queue_item (namespace, at, place) WHERE head;
    CREATE INDEX queue_item_line ON prism.queue_item (namespace, key, place) WHERE key IS NOT NULL AND phase < 2;
    CREATE INDEX queue_item_ended ON prism.queue_item (namespace, phase, place) WHERE phase >= 2;
    CREATE INDEX queue_item_look ON prism.queue_item (look_at);
    CREATE INDEX queue_item_call ON prism.queue_item (namespace, call) WHERE call IS NOT NULL;
    CREATE TABLE prism.queue_body (
        namespace bigint NOT NULL,
        place bigint NOT NULL,
        attributes bytea NOT NULL,
        payload bytea NOT NULL,
        PRIMARY KEY (namespace, place)
    );
    ALTER TABLE prism.queue_body ALTER COLUMN payload SET STORAGE EXTERNAL;
    CREATE TABLE prism.queue_gone (
        namespace bigint NOT NULL,
        id bytea NOT NULL,
        digest bigint,
        sent_at bigint NOT NULL,
        serial bigint NOT NULL,
        forget_at bigint NOT NULL,
        PRIMARY KEY (namespace, id)
    );
    CREATE INDEX queue_gone_expiry ON prism.queue_gone (forget_at);
    CREATE TABLE prism.queue_call (
        namespace bigint NOT NULL,
        call bytea NOT NULL,
        digest bigint,
        moved bigint NOT NULL,
        more boolean NOT NULL,
        forget_at bigint NOT NULL,
        PRIMARY KEY (namespace, call)
    );
    CREATE INDEX queue_call_expiry ON prism.queue_call (forget_at);
";

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
