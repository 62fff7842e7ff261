//! Pages of items. Each page is read in steps: few rows at first, more when they are small. The
//! server leaves out values that would not fit the page any more, so no step brings much more than
//! a page may hold.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::KeyValue;
use super::rows::stored_moment;
use crate::api::keyvalue::Reads;
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::{ItemRef, PredicateRef};
use crate::postgres::connect::{Fault, Link};
use crate::query::{GetQuery, ItemSink, PageBudget, PageToken, ScanQuery};
use crate::token;
use crate::version::version_of;

/// Rows of the first step of a page, and of later ones.
const ROWS_FIRST: i64 = 128;
const ROWS_LATER: i64 = 2_048;

/// Number of times that a read is tried when its connection turns out to be dead.
const ATTEMPTS: u32 = 2;

impl Reads for KeyValue {
    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        query.check()?;
        let fingerprint = token::fingerprint_of_get(query);
        let after = token::open(fingerprint, query.selection.page_token)?;
        let mut walk = Walk::new(query.namespace, now, PageBudget::new(&query.selection));
        walk.item_limit = query.selection.item_limit;
        walk.place = Some((query.id.as_bytes().to_vec(), Vec::new()));
        let source = match &query.predicate {
            PredicateRef::Keys([key]) if after.is_none() => Source::Key(key),
            PredicateRef::Keys(keys) => Source::Keys {
                keys,
                after: after.map(<[u8]>::to_vec),
            },
            PredicateRef::All => Source::range(b"", b"", after),
            PredicateRef::Range { start, end } => Source::range(start, end, after),
        };
        let is_whole = self.walk(&mut walk, source, sink).await?;
        let (_, key) = walk.place.unwrap_or_default();
        Ok((!is_whole).then(|| token::seal(fingerprint, &[&key])))
    }

    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let fingerprint = token::fingerprint_of_scan(query, token::BY_BYTES);
        let after = token::open_place(fingerprint, query.selection.page_token)?;
        let mut walk = Walk::new(query.namespace, now, PageBudget::new(&query.selection));
        walk.item_limit = query.selection.item_limit;
        let is_whole = self.walk(&mut walk, Source::Scan { after }, sink).await?;
        let (id, key) = walk.place.unwrap_or_default();
        Ok((!is_whole).then(|| token::seal_place(fingerprint, &id, &key)))
    }
}

/// Source of a walk's rows, and the place after which it continues.
enum Source<'q> {
    Key(&'q [u8]),
    Keys {
        keys: &'q [&'q [u8]],
        after: Option<Vec<u8>>,
    },
    Range {
        from: Vec<u8>,
        end: &'q [u8],
    },
    Scan {
        after: Option<(Vec<u8>, Vec<u8>)>,
    },
}

impl<'q> Source<'q> {
    fn range(start: &[u8], end: &'q [u8], after: Option<&[u8]>) -> Source<'q> {
        let from = match after {
            Some(after) if after >= start => next_key(after),
            _ => start.to_vec(),
        };
        Source::Range { from, end }
    }

    /// Continues after this item.
    fn advance(&mut self, (id, key): &(Vec<u8>, Vec<u8>)) {
        match self {
            Source::Key(_) => {}
            Source::Keys { after, .. } => *after = Some(key.clone()),
            Source::Range { from, .. } => *from = next_key(key),
            Source::Scan { after } => *after = Some((id.clone(), key.clone())),
        }
    }
}

/// The smallest key after this one.
fn next_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// A page under construction.
struct Walk {
    namespace: NamespaceId,
    now: i64,
    budget: PageBudget,
    item_limit: u32,
    /// The last item shown; before the first, the id of a Get.
    place: Option<(Vec<u8>, Vec<u8>)>,
    shown: u32,
}

impl Walk {
    fn new(namespace: NamespaceId, now: UnixMillis, budget: PageBudget) -> Walk {
        Walk {
            namespace,
            now: stored_moment(now),
            budget,
            item_limit: 0,
            place: None,
            shown: 0,
        }
    }
}

impl KeyValue {
    /// Shows items until the page is full, or there are no more. Returns whether there are no more.
    async fn walk(
        &self,
        walk: &mut Walk,
        mut source: Source<'_>,
        sink: &mut impl ItemSink,
    ) -> Result<bool, StoreError> {
        let mut rows_max = ROWS_FIRST;
        if walk.item_limit > 0 {
            // One more shows whether there is a next page.
            rows_max = rows_max.min(i64::from(walk.item_limit) + 1);
        }
        loop {
            let rows = self.fetch(walk, &source, rows_max).await?;
            let is_last = matches!(source, Source::Key(_)) || (rows.len() as i64) < rows_max;
            if !show(walk, matches!(source, Source::Scan { .. }), &rows, sink)? {
                return Ok(false);
            }
            if is_last {
                return Ok(true);
            }
            if let Some(place) = &walk.place {
                source.advance(place);
            }
            rows_max = ROWS_LATER;
        }
    }

    /// Fetches the rows of one step; once more if the connection turned out to be dead, since a
    /// read has no effect.
    async fn fetch(&self, walk: &Walk, source: &Source<'_>, rows_max: i64) -> Result<Vec<Row>, StoreError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let lease = self.connections.acquire().await?;
            match step(lease.begin(), walk, source, rows_max).await {
                Ok(rows) => {
                    lease.finish();
                    return of_live_namespace(walk.namespace, rows);
                }
                Err(fault) if fault.is_of_connection() && attempts < ATTEMPTS => {}
                Err(fault) => {
                    if !fault.is_of_connection() {
                        lease.finish();
                    }
                    return Err(fault.into());
                }
            }
        }
    }
}

async fn step(link: &Link, walk: &Walk, source: &Source<'_>, rows_max: i64) -> Result<Vec<Row>, Fault> {
    let namespace = i64::from(walk.namespace.0);
    let bytes_max = walk.budget.bytes_left() as i64;
    let id = walk.place.as_ref().map_or(&[][..], |(id, _)| id);
    let common: [&(dyn ToSql + Sync); 4] = [&namespace, &walk.now, &bytes_max, &rows_max];
    let rows = match source {
        Source::Key(key) => link.query(GET_KEY, &[&namespace, &walk.now, &id, key]).await?,
        Source::Keys { keys, after } => {
            let after = after.as_deref();
            let mut keys: Vec<&[u8]> = keys.to_vec();
            keys.retain(|key| after.is_none_or(|after| *key > after));
            let [namespace, now, bytes, rows] = common;
            link.query(GET_KEYS, &[namespace, now, bytes, rows, &id, &keys])
                .await?
        }
        Source::Range { from, end } => {
            let [namespace, now, bytes, rows] = common;
            match end.is_empty() {
                true => {
                    link.query(GET_FROM, &[namespace, now, bytes, rows, &id, from])
                        .await?
                }
                false => {
                    link.query(GET_BETWEEN, &[namespace, now, bytes, rows, &id, from, end])
                        .await?
                }
            }
        }
        Source::Scan { after } => {
            let [namespace, now, bytes, rows] = common;
            let (id, key) = match after {
                Some((id, key)) => (id.clone(), next_key(key)),
                None => Default::default(),
            };
            link.query(SCAN, &[namespace, now, bytes, rows, &id, &key])
                .await?
        }
    };
    Ok(rows)
}

/// Rows that hold items. The namespace's own state is in each row, and alone in one if there is no
/// item.
fn of_live_namespace(namespace: NamespaceId, mut rows: Vec<Row>) -> Result<Vec<Row>, StoreError> {
    let state = rows
        .first()
        .map(|row| row.try_get::<_, i16>(0))
        .transpose()
        .map_err(Fault::from)?;
    match state {
        None => return Err(StoreError::UnknownNamespace(namespace)),
        Some(super::LIVE) => {}
        Some(_) => return Err(StoreError::DroppedNamespace(namespace)),
    }
    if rows.len() == 1
        && rows[0]
            .try_get::<_, Option<&[u8]>>(1)
            .map_err(Fault::from)?
            .is_none()
    {
        rows.clear();
    }
    Ok(rows)
}

/// Passes rows to the sink; false when the page is full.
fn show(walk: &mut Walk, is_scan: bool, rows: &[Row], sink: &mut impl ItemSink) -> Result<bool, StoreError> {
    for row in rows {
        let Shown {
            id,
            item,
            value,
            bytes,
            version,
        } = shown(row, is_scan).map_err(Fault::from)?;
        let is_new_id =
            is_scan && (walk.shown == 0 || walk.place.as_ref().is_none_or(|(last, _)| last != id));
        let has_room = walk
            .budget
            .take(item.key.len(), bytes, is_new_id.then_some(id.len()));
        let (true, Some(value)) = (has_room, value) else {
            return Ok(false);
        };
        if is_new_id {
            let text = std::str::from_utf8(id).map_err(|error| StoreError::Corrupt {
                detail: format!("an id: {error}"),
            })?;
            sink.id(text);
        }
        sink.item(&ItemRef { value, ..item }, version_of(version)?);
        let place = walk.place.get_or_insert_default();
        if is_scan {
            place.0.clear();
            place.0.extend_from_slice(id);
        }
        place.1.clear();
        place.1.extend_from_slice(item.key);
        walk.shown += 1;
    }
    Ok(true)
}

/// An item in a row. Its value is absent if it would not fit the page.
struct Shown<'r> {
    id: &'r [u8],
    item: ItemRef<'r>,
    value: Option<&'r [u8]>,
    bytes: usize,
    version: &'r [u8],
}

fn shown(row: &Row, is_scan: bool) -> Result<Shown<'_>, tokio_postgres::Error> {
    let expires_at = row.try_get::<_, Option<i64>>(2)?;
    Ok(Shown {
        id: if is_scan { row.try_get(7)? } else { &[] },
        item: ItemRef {
            key: row.try_get(1)?,
            value: &[],
            expires_at: expires_at.map(|moment| UnixMillis(moment.max(0).cast_unsigned())),
            compression: row.try_get::<_, i16>(3)? as u8,
        },
        bytes: row.try_get::<_, i32>(4)?.unsigned_abs() as usize,
        value: row.try_get(5)?,
        version: row.try_get(6)?,
    })
}

/// Condition under which an item `i` is visible at the moment `$2`.
macro_rules! visible {
    () => {
        "i.kind >= 0 AND (i.expires_at IS NULL OR i.expires_at > $2)
            AND NOT EXISTS (SELECT 1 FROM prism.range_delete d WHERE d.namespace = i.namespace AND d.id = i.id
                AND d.start <= i.key AND (d.\"end\" = '' OR d.\"end\" > i.key) AND d.version > i.version)"
    };
}

/// At most `$4` visible rows of the namespace `$1`, in order. Values are included while they have
/// at most `$3` bytes together; the first one always is.
macro_rules! page {
    ($condition:literal, $order:literal, $columns:literal) => {
        concat!(
            "SELECT s.state, p.* FROM prism.namespace s LEFT JOIN LATERAL (
                SELECT i.key, i.expires_at, i.kind, octet_length(i.value) AS bytes,
                    CASE WHEN row_number() OVER w = 1 OR sum(octet_length(i.value)) OVER w <= $3::int8
                        THEN i.value END AS value, i.version",
            $columns,
            " FROM prism.item i WHERE i.namespace = $1 AND ",
            $condition,
            " AND ",
            visible!(),
            " WINDOW w AS (ORDER BY ",
            $order,
            " ROWS UNBOUNDED PRECEDING) ORDER BY ",
            $order,
            " LIMIT $4
            ) p ON s.state = 0 WHERE s.number = $1"
        )
    };
}

static GET_KEY: &str = concat!(
    "SELECT s.state, i.key, i.expires_at, i.kind, octet_length(i.value), i.value, i.version
    FROM prism.namespace s LEFT JOIN prism.item i
        ON s.state = 0 AND i.namespace = $1 AND i.id = $3 AND i.key = $4 AND ",
    visible!(),
    " WHERE s.number = $1"
);
static GET_KEYS: &str = page!("i.id = $5 AND i.key = ANY($6::bytea[])", "i.key", "");
static GET_FROM: &str = page!("i.id = $5 AND i.key >= $6", "i.key", "");
static GET_BETWEEN: &str = page!("i.id = $5 AND i.key >= $6 AND i.key < $7", "i.key", "");
static SCAN: &str = page!("(i.id, i.key) >= ($5, $6)", "i.id, i.key", ", i.id");
