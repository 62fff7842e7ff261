//! Compare-and-swap: the deciding rows are locked and read in one round trip, judged here, and
//! written in a second one, all within the batch's transaction.
//!
//! Locks on the key and on the version come first, as numbers: an absent key has no row to lock,
//! and a repeat must find the first answer. A put needs no such lock. Between reading and writing
//! it waits for the row, or it writes a row that was absent, and then the versions decide between
//! the two as if the swap had come first.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::rows::{Rows, TOMBSTONE, stored_moment};
use super::writes::States;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::{Found, ItemRef, Mutation, Operation, Outcome, OwnedItem, is_expired};
use crate::postgres::connect::{Fault, Link, Parameters};
use crate::swaps::{Kinship, SwapCall, SwapKey, Verdict, is_left_by, shown};
use crate::version::{Version, stable_hash, stable_hash_with, version_bytes, version_of};
use crate::{StoreError, limits};

/// Place of an item, owned.
type Place = (NamespaceId, Vec<u8>, Vec<u8>);

/// Content of a row, tombstones and expired items included.
#[derive(Clone, Debug)]
struct Stored {
    version: Version,
    item: Option<OwnedItem>,
}

/// An answer to be remembered.
#[derive(Debug)]
struct NewAnswer {
    name: SwapKey,
    call: SwapCall,
    verdict: Verdict,
    forget_at: i64,
}

/// Judge of the swaps of one transaction: the rows read, and the changes of the earlier swaps.
#[derive(Debug, Default)]
pub(super) struct Judge {
    items: HashMap<Place, Stored>,
    /// Newest delete of a range over each key.
    deleted: HashMap<Place, Version>,
    answers: HashMap<SwapKey, Vec<(SwapCall, Verdict)>>,
    fresh: Vec<NewAnswer>,
}

/// Locks and reads all rows that decide the swaps with these numbers. Returns the states of the
/// namespaces.
pub(super) async fn read(
    link: &Link,
    batch: &[Mutation<'_>],
    numbers: &[usize],
    namespaces: &[i64],
) -> Result<(States, Judge), Fault> {
    let asked = Asked::new(batch, numbers);
    link.prepare(&[LOCK, ITEMS, RANGES, ANSWERS, STATES]).await?;
    // Each statement takes its snapshot when it begins, so the locks are held by then.
    let versions = asked.versions();
    let items: Parameters<'_> = &[&asked.namespaces, &asked.ids, &asked.keys];
    let (locks, names): (Parameters<'_>, Parameters<'_>) = (&[&asked.locks], &[&asked.namespaces, &versions]);
    let of_namespaces: Parameters<'_> = &[&namespaces];
    let (locked, items, ranges, answers, states) = tokio::join!(
        biased;
        link.execute(LOCK, locks),
        link.query(ITEMS, items),
        link.query(RANGES, items),
        link.query(ANSWERS, names),
        link.query(STATES, of_namespaces),
    );
    locked?;
    let mut judge = Judge::default();
    for row in items? {
        let place = place_of(&row)?;
        let found = found_of(&row, &place)?;
        judge.items.insert(place, found);
    }
    for row in ranges? {
        judge
            .deleted
            .insert(place_of(&row)?, version_of(row.try_get(3)?)?);
    }
    judge.take_answers(answers?)?;
    Ok((States::of(&states?)?, judge))
}

/// Gives the swaps of a batch that was applied before their remembered answers. A swap whose answer
/// is forgotten is judged by the item that it left.
pub(super) async fn recall(
    link: &Link,
    batch: &[Mutation<'_>],
    numbers: &[usize],
    namespaces: &[i64],
    outcomes: &mut [Outcome],
) -> Result<States, Fault> {
    let (states, judge) = read(link, batch, numbers, namespaces).await?;
    for number in numbers {
        let mutation = &batch[*number];
        outcomes[*number] = judge.recalled(mutation).unwrap_or_else(|| judge.left(mutation));
    }
    Ok(states)
}

impl Judge {
    /// Judges one swap; `rows` gets its writes.
    pub(super) fn swap<'m>(
        &mut self,
        mutation: &Mutation<'m>,
        rows: &mut Rows<'m>,
        window_ms: u64,
    ) -> Outcome {
        let Operation::CompareAndSwap {
            key,
            expected,
            replacement,
        } = mutation.operation
        else {
            return Outcome::Refused(StoreError::Internal {
                detail: "a mutation that is no swap was judged".to_owned(),
            });
        };
        if let Some(outcome) = self.recalled(mutation) {
            return outcome;
        }
        let place = place(mutation, key);
        let current = self.visible(&place, mutation.at);
        let floor = self.floor(&place);
        if floor == Some(mutation.version) {
            return self.left(mutation);
        }
        let item = current.as_ref().map(|found| found.item.as_ref());
        let version = current.as_ref().and_then(|found| found.version);
        if !expected.holds(item.as_ref().zip(version)) {
            let verdict = Verdict::refusal(item);
            self.note(mutation, key, verdict, window_ms);
            return Outcome::NotSwapped(current);
        }
        let version = floor.map_or(mutation.version, |floor| floor.successor().max(mutation.version));
        let item = replacement.map(|item| ItemRef { key, ..item });
        match &item {
            Some(item) => rows.write(mutation, version, key, item),
            None => rows.bury(mutation, version, key, window_ms),
        }
        let item = item.map(OwnedItem::from);
        self.items.insert(place, Stored { version, item });
        self.note(mutation, key, Verdict::Swapped, window_ms);
        Outcome::Swapped(Some(version))
    }

    /// Writes the new answers.
    pub(super) async fn remember(&self, link: &Link) -> Result<(), Fault> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let versions: Vec<_> = self
            .fresh
            .iter()
            .map(|fresh| version_bytes(fresh.name.version))
            .collect();
        let items = |fresh: &NewAnswer| match &fresh.verdict {
            Verdict::NotSwapped(item) => item.clone(),
            Verdict::Swapped | Verdict::NotSwappedLarge => None,
        };
        let items: Vec<Option<OwnedItem>> = self.fresh.iter().map(items).collect();
        let column = |take: fn(&NewAnswer) -> i64| self.fresh.iter().map(take).collect::<Vec<_>>();
        let namespaces = column(|fresh| i64::from(fresh.name.namespace.0));
        let subjects = column(|fresh| fresh.call.subject.cast_signed());
        let verdicts = column(|fresh| number_of(&fresh.verdict));
        let forget_at = column(|fresh| fresh.forget_at);
        let digests: Vec<Option<i64>> = self
            .fresh
            .iter()
            .map(|fresh| fresh.call.digest.map(u64::cast_signed))
            .collect();
        let versions: Vec<&[u8]> = versions.iter().map(<[u8; 16]>::as_slice).collect();
        let values: Vec<Option<&[u8]>> = items
            .iter()
            .map(|item| item.as_ref().map(|item| item.value.as_slice()))
            .collect();
        let expires_at: Vec<Option<i64>> = items
            .iter()
            .map(|item| item.as_ref().and_then(|item| item.expires_at).map(stored_moment))
            .collect();
        let compressions: Vec<Option<i16>> = items
            .iter()
            .map(|item| item.as_ref().map(|item| i16::from(item.compression)))
            .collect();
        link.execute(
            REMEMBER,
            &[
                &namespaces,
                &versions,
                &subjects,
                &digests,
                &verdicts,
                &values,
                &expires_at,
                &compressions,
                &forget_at,
            ],
        )
        .await?;
        Ok(())
    }

    fn take_answers(&mut self, rows: Vec<Row>) -> Result<(), Fault> {
        for row in rows {
            let name = SwapKey {
                namespace: namespace_of(&row)?,
                version: version_of(row.try_get(1)?)?,
            };
            let call = SwapCall {
                subject: row.try_get::<_, i64>(2)?.cast_unsigned(),
                digest: row.try_get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
            };
            let verdict = match row.try_get::<_, i64>(4)? {
                SWAPPED => Verdict::Swapped,
                REFUSED_ABSENT => Verdict::NotSwapped(None),
                REFUSED_LARGE => Verdict::NotSwappedLarge,
                _ => Verdict::NotSwapped(Some(OwnedItem {
                    // The key is that of the call which repeats it.
                    key: Vec::new(),
                    value: row.try_get(5)?,
                    expires_at: moment_of(row.try_get(6)?),
                    compression: row.try_get::<_, i16>(7)? as u8,
                })),
            };
            self.answers.entry(name).or_default().push((call, verdict));
        }
        Ok(())
    }

    /// The remembered answer to a call, or the refusal of another call under its token.
    fn recalled(&self, mutation: &Mutation<'_>) -> Option<Outcome> {
        let Operation::CompareAndSwap { key, .. } = mutation.operation else {
            return None;
        };
        let call = SwapCall::new(mutation, key);
        let mut known = self.answers.get(&name_of(mutation)).into_iter().flatten();
        known.find_map(
            |(remembered, verdict)| match (call.kinship(*remembered), verdict) {
                (Kinship::Stranger, _) => None,
                (Kinship::Reuse, _) => Some(Outcome::Refused(StoreError::TokenReused)),
                (Kinship::Repeat, Verdict::Swapped) => Some(Outcome::Swapped(None)),
                (Kinship::Repeat, Verdict::NotSwapped(item)) => {
                    let current = self.visible(&place(mutation, key), mutation.at);
                    let item = item.clone().map(|item| OwnedItem {
                        key: key.to_vec(),
                        ..item
                    });
                    Some(Outcome::NotSwapped(
                        item.map(|item| shown(item, current.as_ref())),
                    ))
                }
                (Kinship::Repeat, Verdict::NotSwappedLarge) => Some(Outcome::NotSwapped(
                    self.visible(&place(mutation, key), mutation.at),
                )),
            },
        )
    }

    /// The answer to a forgotten swap, by its mark: the item carries its version, so it was the
    /// last write, unless the item contradicts that.
    fn left(&self, mutation: &Mutation<'_>) -> Outcome {
        let Operation::CompareAndSwap { key, replacement, .. } = mutation.operation else {
            return Outcome::Applied;
        };
        let place = place(mutation, key);
        let current = self.visible(&place, mutation.at);
        if self.floor(&place) != Some(mutation.version) {
            return Outcome::NotSwapped(current);
        }
        let item = current.as_ref().map(|found| found.item.as_ref());
        match is_left_by(item.as_ref(), replacement.as_ref()) {
            true => Outcome::Swapped(None),
            false => Outcome::Refused(StoreError::TokenReused),
        }
    }

    fn visible(&self, place: &Place, at: UnixMillis) -> Option<Found> {
        let found = self.items.get(place)?;
        let is_deleted = self
            .deleted
            .get(place)
            .is_some_and(|deleted| found.version < *deleted);
        let item = found.item.as_ref()?;
        (!is_deleted && !is_expired(item.expires_at, at)).then(|| Found::new(item.clone(), found.version))
    }

    /// Newest version of any write to the key.
    fn floor(&self, place: &Place) -> Option<Version> {
        let stored = self.items.get(place).map(|found| found.version);
        stored.max(self.deleted.get(place).copied())
    }

    fn note(&mut self, mutation: &Mutation<'_>, key: &[u8], verdict: Verdict, window_ms: u64) {
        let (name, call) = (name_of(mutation), SwapCall::new(mutation, key));
        self.answers
            .entry(name)
            .or_default()
            .push((call, verdict.clone()));
        self.fresh.push(NewAnswer {
            name,
            call,
            verdict,
            forget_at: stored_moment(mutation.at.plus(window_ms)),
        });
    }
}

/// The keys and versions of some swaps, as columns.
struct Asked<'m> {
    namespaces: Vec<i64>,
    ids: Vec<&'m [u8]>,
    keys: Vec<&'m [u8]>,
    versions: Vec<[u8; 16]>,
    /// Numbers to lock, in order, so that two transactions do not deadlock.
    locks: Vec<i64>,
}

impl<'m> Asked<'m> {
    fn new(batch: &[Mutation<'m>], numbers: &[usize]) -> Asked<'m> {
        let mut swaps: Vec<(&Mutation<'m>, &'m [u8])> = numbers
            .iter()
            .filter_map(|number| match batch[*number].operation {
                Operation::CompareAndSwap { key, .. } => Some((&batch[*number], key)),
                Operation::Put(_) | Operation::Delete(_) => None,
            })
            .collect();
        swaps.sort_unstable_by_key(|(mutation, key)| (mutation.namespace, mutation.id, *key));
        let lock = |mutation: &Mutation<'_>, parts: [&[u8]; 2]| {
            let seed = stable_hash_with(LOCK_SEED, &mutation.namespace.0.to_le_bytes());
            stable_hash_with(seed ^ stable_hash(parts[0]), parts[1]).cast_signed()
        };
        let mut locks: Vec<i64> = swaps
            .iter()
            .flat_map(|(mutation, key)| {
                let version = version_bytes(mutation.version);
                [
                    lock(mutation, [mutation.id.as_bytes(), key]),
                    lock(mutation, [b"version", &version]),
                ]
            })
            .collect();
        locks.sort_unstable();
        locks.dedup();
        Asked {
            namespaces: swaps
                .iter()
                .map(|(mutation, _)| i64::from(mutation.namespace.0))
                .collect(),
            ids: swaps.iter().map(|(mutation, _)| mutation.id.as_bytes()).collect(),
            keys: swaps.iter().map(|(_, key)| *key).collect(),
            versions: swaps
                .iter()
                .map(|(mutation, _)| version_bytes(mutation.version))
                .collect(),
            locks,
        }
    }

    fn versions(&self) -> Vec<&[u8]> {
        self.versions.iter().map(<[u8; 16]>::as_slice).collect()
    }
}

fn name_of(mutation: &Mutation<'_>) -> SwapKey {
    SwapKey {
        namespace: mutation.namespace,
        version: mutation.version,
    }
}

fn place(mutation: &Mutation<'_>, key: &[u8]) -> Place {
    (mutation.namespace, mutation.id.as_bytes().to_vec(), key.to_vec())
}

/// The place in the first three columns.
fn place_of(row: &Row) -> Result<Place, Fault> {
    Ok((namespace_of(row)?, row.try_get(1)?, row.try_get(2)?))
}

fn namespace_of(row: &Row) -> Result<NamespaceId, Fault> {
    let number = row.try_get::<_, i64>(0)?;
    u32::try_from(number).map(NamespaceId).map_err(|_| {
        Fault::Store(StoreError::Corrupt {
            detail: format!("a namespace with the number {number}"),
        })
    })
}

fn found_of(row: &Row, place: &Place) -> Result<Stored, Fault> {
    let kind = row.try_get::<_, i16>(5)?;
    let item = match kind {
        TOMBSTONE => None,
        kind => Some(OwnedItem {
            key: place.2.clone(),
            value: row.try_get(6)?,
            expires_at: moment_of(row.try_get(4)?),
            compression: kind as u8,
        }),
    };
    Ok(Stored {
        version: version_of(row.try_get(3)?)?,
        item,
    })
}

fn moment_of(stored: Option<i64>) -> Option<UnixMillis> {
    stored.map(|moment| UnixMillis(moment.max(0).cast_unsigned()))
}

fn number_of(verdict: &Verdict) -> i64 {
    match verdict {
        Verdict::Swapped => SWAPPED,
        Verdict::NotSwapped(None) => REFUSED_ABSENT,
        Verdict::NotSwapped(Some(_)) => REFUSED_ITEM,
        Verdict::NotSwappedLarge => REFUSED_LARGE,
    }
}

const SWAPPED: i64 = 0;
const REFUSED_ABSENT: i64 = 1;
const REFUSED_ITEM: i64 = 2;
const REFUSED_LARGE: i64 = 3;

/// Seed that separates our locks from those of other users of the database.
const LOCK_SEED: u64 = 0x7072_6973_6d3a_6b76;

const _: () = assert!(limits::SWAP_VALUE_REMEMBERED_MAX <= 1 << 20);

static LOCK: &str = "SELECT pg_advisory_xact_lock(number) FROM unnest($1::int8[]) AS number";
static ITEMS: &str = "SELECT i.namespace, i.id, i.key, i.version, i.expires_at, i.kind, i.value
    FROM prism.item i
    WHERE (i.namespace, i.id, i.key) IN
        (SELECT * FROM unnest($1::int8[], $2::bytea[], $3::bytea[]))
    ORDER BY i.namespace, i.id, i.key FOR UPDATE OF i";
static RANGES: &str = "SELECT r.namespace, r.id, r.key, (SELECT d.version FROM prism.range_delete d
        WHERE d.namespace = r.namespace AND d.id = r.id AND d.start <= r.key
            AND (d.\"end\" = '' OR d.\"end\" > r.key) ORDER BY d.version DESC LIMIT 1) AS version
    FROM unnest($1::int8[], $2::bytea[], $3::bytea[]) AS r (namespace, id, key)
    WHERE EXISTS (SELECT 1 FROM prism.range_delete d WHERE d.namespace = r.namespace AND d.id = r.id
        AND d.start <= r.key AND (d.\"end\" = '' OR d.\"end\" > r.key))";
static ANSWERS: &str = "SELECT s.namespace, s.version, s.subject, s.digest, s.verdict, s.value, s.expires_at,
        s.compression
    FROM prism.swap s
    WHERE (s.namespace, s.version) IN (SELECT * FROM unnest($1::int8[], $2::bytea[]))";
static STATES: &str = "SELECT number, state FROM prism.namespace WHERE number = ANY($1::int8[])";
static REMEMBER: &str = "INSERT INTO prism.swap
        (namespace, version, subject, digest, verdict, value, expires_at, compression, forget_at)
    SELECT * FROM unnest($1::int8[], $2::bytea[], $3::int8[], $4::int8[], $5::int8[], $6::bytea[], $7::int8[],
        $8::int2[], $9::int8[])
    ON CONFLICT (namespace, version, subject) DO NOTHING";
