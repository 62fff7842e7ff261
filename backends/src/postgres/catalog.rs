//! The catalog that several gateways share: tables of the schema `prism_catalog`.
//!
//! ```text
//! head       (id, revision)                one row; its lock puts the changes in order
//! namespaces (id, name, …, state, version, pending, holder, revision)
//! removed    (id, revision)                so that readers learn of removals, for a day
//! leases     (gateway, until)              who is alive, by the server's clock
//! ```
//!
//! Promises: every change takes the next revision in its own transaction, so whoever has seen a
//! revision has seen all before it. A change of a namespace has one holder, and only the holder's
//! notes count, so a gateway that was paused changes nothing that another one has taken over.
//! Leaves to others: what the words in the rows mean, and when to ask.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio_postgres::Row;

use super::config::Config;
use super::connect::{Fault, Link, Parameters};
use super::connections::{Connections, Lease};
use super::schema::{self, Schema};
use crate::error::StoreError;

/// The catalog, as one thread uses it: one connection.
#[derive(Debug)]
pub struct Catalog {
    connections: Rc<Connections>,
    /// This gateway's number among those that share the catalog.
    gateway: [u8; 16],
}

/// One namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogRow {
    /// Given by the server, never twice.
    pub id: u32,
    /// Unique among those that exist.
    pub name: String,
    /// Team that owns it.
    pub team: String,
    /// Service that it is used through.
    pub client_api: String,
    /// Durability that holds.
    pub durability: String,
    /// The store, for people.
    pub backend: String,
    /// Name of the store that has its data.
    pub store: String,
    /// Kind of that store.
    pub store_kind: String,
    /// Nanoseconds since 1970.
    pub create_time_ns: i64,
    /// The file as it was submitted.
    pub yaml: String,
    /// The recorded intent.
    pub state: String,
    /// From 1; each update makes the next one.
    pub version: u64,
    /// The file of an update that is not done yet.
    pub pending: Option<String>,
    /// Gateway that carries out what is not done yet.
    pub holder: Option<u128>,
}

/// The changes since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Everything up to this one has been seen afterwards.
    pub revision: u64,
    /// `rows` are all there are.
    pub is_whole: bool,
    /// Namespaces as they are.
    pub rows: Vec<CatalogRow>,
    /// Namespaces that are gone.
    pub removed: Vec<u32>,
}

/// Outcome of [`Catalog::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// Ids of the new namespaces, in the order of the rows.
    Done(Vec<u32>),
    /// Rows, by their place, whose names belong to namespaces in these states. Nothing was done.
    Taken(Vec<(usize, String)>),
    /// There would be more than allowed. Nothing was done.
    Full,
}

/// A change of namespaces that exist. Each takes effect where it still applies, and else not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These are ready.
    Activate(Vec<u32>),
    /// A namespace of this version is to have another file.
    BeginUpdate {
        /// The namespace.
        id: u32,
        /// Version that the file was made for.
        version: u64,
        /// The file.
        yaml: String,
    },
    /// The update is done.
    FinishUpdate {
        /// The namespace.
        id: u32,
        /// Version that it has now.
        version: u64,
        /// File that holds now.
        yaml: String,
        /// Team of that file.
        team: String,
    },
    /// The update is given up.
    UndoUpdate(u32),
    /// These are to go.
    BeginDelete(Vec<u32>),
    /// The data of these is gone.
    Remove(Vec<u32>),
}

impl Catalog {
    /// A catalog without a connection yet.
    ///
    /// Errors: [`StoreError::InvalidArgument`] if the certificates cannot be read.
    pub fn new(config: &Config, gateway: u128) -> Result<Catalog, StoreError> {
        Ok(Catalog {
            connections: Connections::new(config.clone(), 1)?,
            gateway: gateway.to_be_bytes(),
        })
    }

    /// Makes the tables where they are missing; the random number of the catalog.
    ///
    /// Errors: [`StoreError::Unopenable`] if a crash of the server may take back what it has
    /// acknowledged; nothing was made then.
    pub async fn open(&self) -> Result<u128, StoreError> {
        drop(self.acquire().await?);
        schema::ensure(&self.connections, &SCHEMA, false).await?;
        let rows = self.query(ID, &[]).await?;
        let bytes: Option<&[u8]> = rows
            .first()
            .map(|row| row.try_get(0))
            .transpose()
            .map_err(Fault::from)?;
        number_of(bytes.unwrap_or_default()).ok_or_else(|| StoreError::Corrupt {
            detail: format!(
                "postgresql at {}: the table prism_catalog.head has no number of the catalog",
                self.connections.address()
            ),
        })
    }

    /// A connection to a server that syncs what it acknowledges: one that forgets numbers of
    /// namespaces would give them again, to others.
    async fn acquire(&self) -> Result<Lease, StoreError> {
        let lease = self.connections.acquire().await?;
        if self.connections.facts().is_none_or(|facts| facts.is_durable) {
            return Ok(lease);
        }
        // Its end closes the connection: the next one sees the setting as it is then.
        lease.begin();
        Err(StoreError::Unopenable {
            detail: format!(
                "postgresql at {} runs with fsync = off, so namespaces that it acknowledged may be lost, and their numbers \
                 given to others; set fsync = on",
                self.connections.address()
            ),
        })
    }

    /// Reads what has changed since a revision; everything if `seen` is `None`. Returns `None` if
    /// nothing has.
    pub async fn read(&self, seen: Option<u64>) -> Result<Option<Delta>, StoreError> {
        let lease = self.acquire().await?;
        let delta = read(lease.begin(), seen).await?;
        lease.finish();
        Ok(delta)
    }

    /// Adds namespaces in the state `provisioning`: all of them, or none. This gateway holds them.
    pub async fn create(&self, rows: &[CatalogRow], namespaces_max: u64) -> Result<Created, StoreError> {
        let lease = self.acquire().await?;
        let link = lease.begin();
        let created = match self.insert(link, rows, namespaces_max).await {
            Ok(created @ Created::Done(_)) => {
                link.run("COMMIT").await.map_err(Fault::from)?;
                Ok(created)
            }
            Err(fault) if fault.is_of_connection() => return Err(fault.into()),
            other => {
                link.run("ROLLBACK").await.map_err(Fault::from)?;
                other.map_err(StoreError::from)
            }
        };
        lease.finish();
        created
    }

    /// Makes a change; in one statement, which is durable when this returns.
    pub async fn change(&self, change: &Change) -> Result<(), StoreError> {
        let gateway = self.gateway.as_slice();
        let wide = |ids: &[u32]| ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        match change {
            Change::Activate(ids) => self.execute(ACTIVATE, &[&wide(ids), &gateway]).await,
            Change::BeginUpdate { id, version, yaml } => {
                let (id, version) = (i64::from(*id), version.cast_signed());
                self.execute(BEGIN_UPDATE, &[&id, &gateway, &version, yaml]).await
            }
            Change::FinishUpdate {
                id,
                version,
                yaml,
                team,
            } => {
                let (id, version) = (i64::from(*id), version.cast_signed());
                self.execute(FINISH_UPDATE, &[&id, &gateway, &version, yaml, team])
                    .await
            }
            Change::UndoUpdate(id) => self.execute(UNDO_UPDATE, &[&i64::from(*id), &gateway]).await,
            Change::BeginDelete(ids) => self.execute(BEGIN_DELETE, &[&wide(ids), &gateway]).await,
            Change::Remove(ids) => self.execute(REMOVE, &[&wide(ids), &gateway]).await,
        }
    }

    /// Says that this gateway lives for another while, and takes over the changes of those that do
    /// not live any more.
    pub async fn renew(&self, lease: Duration) -> Result<(), StoreError> {
        let gateway = self.gateway.as_slice();
        self.execute(RENEW, &[&gateway, &lease.as_secs_f64()]).await?;
        self.execute(TAKE_OVER, &[&gateway]).await
    }

    /// Says that this gateway has ended.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.execute(LEAVE, &[&self.gateway.as_slice()]).await
    }

    async fn insert(&self, link: &Link, rows: &[CatalogRow], namespaces_max: u64) -> Result<Created, Fault> {
        link.run("BEGIN").await?;
        // From here on others wait, so what is looked at stays.
        let head = link.query(NEXT, &[]).await?;
        let revision: i64 = head.first().ok_or_else(no_head)?.try_get(0)?;
        let column = |of: fn(&CatalogRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        let names = column(|row| &row.name);
        let mut taken = Vec::new();
        for row in link.query(TAKEN, &[&names]).await? {
            let (name, state): (&str, String) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(place) = names.iter().position(|other| *other == name) {
                taken.push((place, state));
            }
        }
        if !taken.is_empty() {
            taken.sort_unstable();
            return Ok(Created::Taken(taken));
        }
        let count = link.query(COUNT, &[]).await?;
        let count: i64 = count.first().ok_or_else(no_head)?.try_get(0)?;
        if count.unsigned_abs() + rows.len() as u64 > namespaces_max {
            return Ok(Created::Full);
        }
        let times: Vec<i64> = rows.iter().map(|row| row.create_time_ns).collect();
        let made = link
            .query(
                INSERT,
                &[
                    &names,
                    &column(|row| &row.team),
                    &column(|row| &row.client_api),
                    &column(|row| &row.durability),
                    &column(|row| &row.backend),
                    &column(|row| &row.store),
                    &column(|row| &row.store_kind),
                    &times,
                    &column(|row| &row.yaml),
                    &self.gateway.as_slice(),
                    &revision,
                ],
            )
            .await?;
        let mut ids = HashMap::new();
        for row in &made {
            ids.insert(row.try_get::<_, &str>(1)?, narrow(row.try_get(0)?)?);
        }
        Ok(Created::Done(
            names.iter().filter_map(|name| ids.get(name).copied()).collect(),
        ))
    }

    async fn query(&self, text: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let lease = self.acquire().await?;
        let rows = lease.begin().query(text, parameters).await.map_err(Fault::from);
        match &rows {
            Err(fault) if fault.is_of_connection() => {}
            _ => lease.finish(),
        }
        Ok(rows?)
    }

    async fn execute(&self, text: &'static str, parameters: Parameters<'_>) -> Result<(), StoreError> {
        self.query(text, parameters).await.map(drop)
    }
}

async fn read(link: &Link, seen: Option<u64>) -> Result<Option<Delta>, Fault> {
    let head = link.query(HEAD, &[]).await?;
    let revision = head
        .first()
        .ok_or_else(no_head)?
        .try_get::<_, i64>(0)?
        .unsigned_abs();
    if seen == Some(revision) {
        return Ok(None);
    }
    // What is read is at least as new as the revision; what is newer comes once more.
    let after = seen.map_or(-1, u64::cast_signed);
    let rows = link.query(ROWS, &[&after]).await?;
    let mut delta = Delta {
        revision,
        is_whole: seen.is_none(),
        rows: rows.iter().map(row_of).collect::<Result<_, _>>()?,
        removed: Vec::new(),
    };
    if !delta.is_whole {
        for row in link.query(REMOVED, &[&after]).await? {
            delta.removed.push(narrow(row.try_get(0)?)?);
        }
        // A namespace may have gone between the two questions.
        delta.rows.retain(|row| !delta.removed.contains(&row.id));
    }
    Ok(Some(delta))
}

fn row_of(row: &Row) -> Result<CatalogRow, Fault> {
    Ok(CatalogRow {
        id: narrow(row.try_get(0)?)?,
        name: row.try_get(1)?,
        team: row.try_get(2)?,
        client_api: row.try_get(3)?,
        durability: row.try_get(4)?,
        backend: row.try_get(5)?,
        store: row.try_get(6)?,
        store_kind: row.try_get(7)?,
        create_time_ns: row.try_get(8)?,
        yaml: row.try_get(9)?,
        state: row.try_get(10)?,
        version: row.try_get::<_, i64>(11)?.unsigned_abs(),
        pending: row.try_get(12)?,
        holder: row.try_get::<_, Option<&[u8]>>(13)?.and_then(number_of),
    })
}

fn number_of(bytes: &[u8]) -> Option<u128> {
    bytes.try_into().ok().map(u128::from_be_bytes)
}

fn narrow(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| StoreError::Corrupt {
        detail: format!("a namespace of the catalog has the number {number}"),
    })
}

fn no_head() -> StoreError {
    StoreError::Corrupt {
        detail: "the table prism_catalog.head is empty".to_owned(),
    }
}

static SCHEMA: Schema = Schema {
    lock: 0x7072_6973_6d00_0002,
    has_schema: "SELECT 1 FROM pg_namespace WHERE nspname = 'prism_catalog'",
    create_schema: "CREATE SCHEMA prism_catalog",
    has_format: "SELECT to_regclass('prism_catalog.format') IS NOT NULL",
    read: "SELECT version, usable_from FROM prism_catalog.format",
    write: "INSERT INTO prism_catalog.format (one, version, usable_from) VALUES (true, $1, $2)
    ON CONFLICT (one) DO UPDATE SET version = excluded.version, usable_from = excluded.usable_from",
    steps: &[FORMAT_1],
    usable_from: 1,
};

/// `gen_random_uuid` gives 122 random bits, without an extension.
const FORMAT_1: &str = "
    CREATE TABLE prism_catalog.format (
        one boolean PRIMARY KEY CHECK (one),
        version integer NOT NULL,
        usable_from integer NOT NULL
    );
    CREATE TABLE prism_catalog.head (
        one boolean PRIMARY KEY CHECK (one),
        id bytea NOT NULL,
        revision bigint NOT NULL
    ) WITH (fillfactor = 50);
    INSERT INTO prism_catalog.head VALUES (true, uuid_send(gen_random_uuid()), 0);
    CREATE TABLE prism_catalog.namespaces (
        id bigint GENERATED ALWAYS AS IDENTITY (MAXVALUE 4294967295) PRIMARY KEY,
        name text NOT NULL UNIQUE,
        team text NOT NULL,
        client_api text NOT NULL,
        durability text NOT NULL,
        backend text NOT NULL,
        store text NOT NULL,
        store_kind text NOT NULL,
        create_time_ns bigint NOT NULL,
        yaml text NOT NULL,
        state text NOT NULL,
        version bigint NOT NULL,
        pending text,
        holder bytea,
        revision bigint NOT NULL
    );
    CREATE INDEX namespaces_revision ON prism_catalog.namespaces (revision);
    CREATE INDEX namespaces_unfinished ON prism_catalog.namespaces (id) WHERE state <> 'active';
    CREATE TABLE prism_catalog.removed (
        id bigint PRIMARY KEY,
        revision bigint NOT NULL,
        removed_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX removed_revision ON prism_catalog.removed (revision);
    CREATE TABLE prism_catalog.leases (
        gateway bytea PRIMARY KEY,
        until timestamptz NOT NULL
    );
";

static ID: &str = "SELECT id FROM prism_catalog.head";
static HEAD: &str = "SELECT revision FROM prism_catalog.head";
static NEXT: &str = "UPDATE prism_catalog.head SET revision = revision + 1 RETURNING revision";
static ROWS: &str =
    "SELECT id, name, team, client_api, durability, backend, store, store_kind, create_time_ns, yaml,
    state, version, pending, holder FROM prism_catalog.namespaces WHERE revision > $1 ORDER BY id";
static REMOVED: &str = "SELECT id FROM prism_catalog.removed WHERE revision > $1";
static TAKEN: &str = "SELECT name, state FROM prism_catalog.namespaces WHERE name = ANY($1)";
static COUNT: &str = "SELECT count(*) FROM prism_catalog.namespaces";
static INSERT: &str = "INSERT INTO prism_catalog.namespaces
    (name, team, client_api, durability, backend, store, store_kind, create_time_ns, yaml, state, version, holder,
    revision)
    SELECT name, team, client_api, durability, backend, store, store_kind, create_time_ns, yaml, 'provisioning', 1,
    $10, $11
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::text[]) AS n (name, team, client_api, durability, backend, store, store_kind, create_time_ns, yaml)
    RETURNING id, name";

// The lock of the head comes before those of the namespaces, everywhere.
static ACTIVATE: &str =
    "WITH head AS (UPDATE prism_catalog.head SET revision = revision + 1 RETURNING revision)
    UPDATE prism_catalog.namespaces n SET state = 'active', holder = NULL, revision = head.revision FROM head
    WHERE n.id = ANY($1::bigint[]) AND n.state = 'provisioning' AND n.holder = $2";
static BEGIN_UPDATE: &str =
    "WITH head AS (UPDATE prism_catalog.head SET revision = revision + 1 RETURNING revision)
    UPDATE prism_catalog.namespaces n
    SET state = 'updating', pending = $4, holder = $2, revision = head.revision FROM head
    WHERE n.id = $1 AND n.state = 'active' AND n.version = $3";
static FINISH_UPDATE: &str = "WITH head AS (UPDATE prism_catalog.head SET revision = revision + 1 RETURNING revision)
    UPDATE prism_catalog.namespaces n
    SET state = 'active', yaml = $4, pending = NULL, version = $3, team = $5, holder = NULL, revision = head.revision
    FROM head WHERE n.id = $1 AND n.state = 'updating' AND n.holder = $2";
static UNDO_UPDATE: &str =
    "WITH head AS (UPDATE prism_catalog.head SET revision = revision + 1 RETURNING revision)
    UPDATE prism_catalog.namespaces n
    SET state = 'active', pending = NULL, holder = NULL, revision = head.revision FROM head
    WHERE n.id = $1 AND n.state = 'updating' AND n.holder = $2";
static BEGIN_DELETE: &str =
    "WITH head AS (UPDATE prism_catalog.head SET revision = revision + 1 RETURNING revision)
    UPDATE prism_catalog.namespaces n
    SET state = 'deleting', pending = NULL, holder = $2, revision = head.revision FROM head
    WHERE n.id = ANY($1::bigint[]) AND n.state <> 'deleting'";
static REMOVE: &str = "WITH head AS (UPDATE prism_catalog.head SET revision = revision + 1 RETURNING revision),
    gone AS (DELETE FROM prism_catalog.namespaces n USING head
        WHERE n.id = ANY($1::bigint[]) AND n.state = 'deleting' AND n.holder = $2 RETURNING n.id, head.revision),
    old AS (DELETE FROM prism_catalog.removed WHERE removed_at < now() - interval '1 day')
    INSERT INTO prism_catalog.removed (id, revision) SELECT id, revision FROM gone";
static RENEW: &str = "WITH old AS (DELETE FROM prism_catalog.leases WHERE until < now() - interval '1 day')
    INSERT INTO prism_catalog.leases (gateway, until) VALUES ($1, now() + make_interval(secs => $2))
    ON CONFLICT (gateway) DO UPDATE SET until = excluded.until";
static TAKE_OVER: &str = "WITH head AS (UPDATE prism_catalog.head SET revision = revision + 1
        WHERE EXISTS (SELECT 1 FROM prism_catalog.namespaces o WHERE o.state <> 'active' AND o.holder <> $1
            AND NOT EXISTS (SELECT 1 FROM prism_catalog.leases l WHERE l.gateway = o.holder AND l.until > now()))
        RETURNING revision)
    UPDATE prism_catalog.namespaces n SET holder = $1, revision = head.revision FROM head
    WHERE n.state <> 'active' AND n.holder <> $1
        AND NOT EXISTS (SELECT 1 FROM prism_catalog.leases l WHERE l.gateway = n.holder AND l.until > now())";
static LEAVE: &str = "DELETE FROM prism_catalog.leases WHERE gateway = $1";
