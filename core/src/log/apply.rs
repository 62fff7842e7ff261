//! Records of the log against the store's writer: in batches, with their position in the same transaction, and what the
//! store refuses for ever put aside as dead letters. Runs where the writer lives, at the start and while serving.

use std::sync::Arc;

use prism_backends::{
    Mutation, NamespaceId, Outcome, StoreError, UnixMillis,
    sqlite::{DeadLetter, OwnedDeadLetter, StreamPosition, Writer},
};
use prism_codec::method::KeyValueMethod;
use prism_wal::ids::{LaneId, Lsn};

use crate::{
    api::keyvalue,
    call::{job::DeadLetterJob, record::LoggedWrite},
    runtime::clock::unix_millis,
};

/// What came of records that were given to the store.
#[derive(Debug, Default)]
pub(crate) struct AppliedRecords {
    /// How the compare-and-swaps among them ended.
    pub(crate) swaps: Vec<(Lsn, Outcome)>,
    /// How many are dead letters now.
    pub(crate) buried: u64,
}

/// Applies records of one namespace in one transaction, with their position. What the store refuses for ever becomes a
/// dead letter.
///
/// # Errors
/// Those of [`StoreError`] that may pass; then nothing was applied, or it may be applied again.
pub(crate) fn apply_records(
    writer: &mut Writer,
    lane: LaneId,
    namespace: NamespaceId,
    records: &[(Lsn, Arc<[u8]>)],
) -> Result<AppliedRecords, StoreError> {
    if records.is_empty() {
        return Ok(AppliedRecords::default());
    }
    match apply_together(writer, lane, namespace, records) {
        Err(error) if is_fault_of_a_record(&error) && records.len() > 1 => {
            // One of them is at fault; alone it shows itself.
            let mut all = AppliedRecords::default();
            for one in records.chunks(1) {
                let applied = apply_records(writer, lane, namespace, one)?;
                all.swaps.extend(applied.swaps);
                all.buried += applied.buried;
            }
            Ok(all)
        }
        Err(error) if is_fault_of_a_record(&error) => {
            let (lsn, record) = &records[0];
            bury(writer, lane, namespace, (*lsn, record), &error)?;
            Ok(AppliedRecords {
                swaps: vec![(*lsn, Outcome::Refused(error))],
                buried: 1,
            })
        }
        result => result,
    }
}

/// Whether another record might fare better: not when the store itself is in trouble.
fn is_fault_of_a_record(error: &StoreError) -> bool {
    match error {
        StoreError::InvalidArgument { .. }
        | StoreError::TokenReused
        | StoreError::InvalidPageToken
        | StoreError::UnknownNamespace(_)
        | StoreError::DroppedNamespace(_)
        | StoreError::Internal { .. } => true,
        StoreError::Full { .. }
        | StoreError::Busy { .. }
        | StoreError::Io { .. }
        | StoreError::Unopenable { .. }
        | StoreError::WrongFormat { .. }
        | StoreError::Corrupt { .. } => false,
    }
}

/// Whether a mutation that a store refused on its own, without harm to the others, must be kept as a dead letter. Not what
/// the client was told already, nor what a deleted namespace is owed.
fn must_be_kept(method: KeyValueMethod, cause: &StoreError) -> bool {
    match cause {
        StoreError::DroppedNamespace(_) => false,
        StoreError::InvalidArgument { .. } => method != KeyValueMethod::Mutate,
        _ => method != KeyValueMethod::CompareAndSwap,
    }
}

fn apply_together(
    writer: &mut Writer,
    lane: LaneId,
    namespace: NamespaceId,
    records: &[(Lsn, Arc<[u8]>)],
) -> Result<AppliedRecords, StoreError> {
    let mut writes = Vec::with_capacity(records.len());
    let mut highest_stamp = i64::MIN;
    for (lsn, record) in records {
        let logged = LoggedWrite::decode(namespace, record).map_err(|_| unreadable())?;
        highest_stamp = highest_stamp.max(logged.context.stamp.time_ns);
        writes.push((
            *lsn,
            logged.method,
            keyvalue::writes_of(&logged).map_err(|_| unreadable())?,
        ));
    }
    let mutations: Vec<_> = writes
        .iter()
        .flat_map(|(_, _, writes)| writes.mutations.iter().map(keyvalue::Prepared::mutation))
        .collect();
    let position = StreamPosition {
        stream: lane.0,
        namespace,
        position: records.last().map_or(0, |(lsn, _)| lsn.0),
    };
    let mut outcomes = Vec::with_capacity(mutations.len());
    writer.expect_stamp(highest_stamp);
    writer.apply_at(&mutations, &[position], &mut outcomes)?;
    let mut outcomes = outcomes.into_iter();
    let mut applied = AppliedRecords::default();
    for ((lsn, method, writes), (_, record)) in writes.iter().zip(records) {
        let mut refused = None;
        for outcome in outcomes.by_ref().take(writes.mutations.len()) {
            match outcome {
                Outcome::Refused(cause) if must_be_kept(*method, &cause) => refused = Some(cause),
                outcome if *method == KeyValueMethod::CompareAndSwap => applied.swaps.push((*lsn, outcome)),
                _ => {}
            }
        }
        if let Some(cause) = refused {
            // The rest of a Mutate is applied; a redrive applies it once more, which changes nothing.
            bury(writer, lane, namespace, (*lsn, record), &cause)?;
            applied.buried += 1;
        }
    }
    Ok(applied)
}

fn bury(
    writer: &mut Writer,
    lane: LaneId,
    namespace: NamespaceId,
    (lsn, record): (Lsn, &Arc<[u8]>),
    cause: &StoreError,
) -> Result<(), StoreError> {
    let reason = cause.to_string();
    tracing::error!(
        namespace = namespace.0,
        lsn = lsn.0,
        reason,
        "the store refuses a record for ever: kept as a dead letter"
    );
    let position = StreamPosition {
        stream: lane.0,
        namespace,
        position: lsn.0,
    };
    let letter = DeadLetter {
        position,
        reason: &reason,
        record,
    };
    writer.bury(&letter, unix_millis()).map(drop)
}

/// Serves one question about dead letters. The answer is the letters that it was about.
///
/// # Errors
/// Those of the store; a letter whose write it still refuses stays.
pub(crate) fn serve_dead_letters(
    writer: &mut Writer,
    job: &DeadLetterJob,
    now: UnixMillis,
) -> Result<Vec<OwnedDeadLetter>, StoreError> {
    let (number, redrive, drop) = match job {
        DeadLetterJob::List {
            namespace,
            after,
            limit,
        } => return writer.dead_letters(*namespace, *after, *limit),
        DeadLetterJob::Get(number) => (*number, false, false),
        DeadLetterJob::Redrive(number) => (*number, true, true),
        DeadLetterJob::Drop(number) => (*number, false, true),
    };
    let Some(letter) = writer.dead_letter(number)? else {
        return Ok(Vec::new());
    };
    if redrive {
        let namespace = letter.position.namespace;
        let record =
            LoggedWrite::decode(namespace, &letter.record).and_then(|logged| keyvalue::writes_of(&logged));
        let writes = record.map_err(|_| unreadable())?;
        // It comes out of its turn: what it would have met at its own time may be gone, so it meets what there is.
        let mutations: Vec<_> = writes
            .mutations
            .iter()
            .map(|prepared| Mutation {
                at: now,
                ..prepared.mutation()
            })
            .collect();
        let mut outcomes = Vec::new();
        // The position is behind it already; a crash before the letter is dropped makes it come twice, with one effect.
        writer.apply(&mutations, &mut outcomes)?;
        if let Some(Outcome::Refused(cause)) = outcomes
            .into_iter()
            .find(|outcome| matches!(outcome, Outcome::Refused(_)))
        {
            return Err(cause);
        }
    }
    if drop {
        writer.drop_dead_letter(number)?;
    }
    Ok(vec![letter])
}

fn unreadable() -> StoreError {
    StoreError::Internal {
        detail: "this version cannot read the record".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use prism_backends::{
        Expected, ItemRef, Mutation, Operation, PredicateRef, Version,
        sqlite::{self, Options},
    };
    use prism_codec::message::keyvalue::{ExpectedView, ItemView, encode_compare_and_swap_request};

    use super::*;

    const NAMESPACE: NamespaceId = NamespaceId(1);
    const KEY: &[u8] = b"k";

    struct Store {
        writer: Writer,
        time: i64,
        _directory: tempfile::TempDir,
    }

    impl Store {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("keyvalue.db");
            let mut writer = sqlite::open(&path, Options::default()).unwrap().writer;
            writer.create_namespace(NAMESPACE).unwrap();
            Self {
                writer,
                time: 0,
                _directory: directory,
            }
        }

        /// Applies one operation on an id, later than those before.
        fn apply(&mut self, id: &str, operation: Operation<'_>) -> Outcome {
            self.time += 1;
            let mutation = Mutation {
                at: unix_millis(),
                digest: None,
                namespace: NAMESPACE,
                id,
                version: Version::new(self.time, b""),
                operation,
            };
            let mut outcomes = Vec::new();
            self.writer.apply(&[mutation], &mut outcomes).unwrap();
            outcomes.remove(0)
        }

        fn swap(&mut self, id: &str, expected: Expected<'_>, value: &[u8]) -> Outcome {
            let item = ItemRef {
                key: KEY,
                value,
                expires_at: None,
                compression: 0,
            };
            let operation = Operation::CompareAndSwap {
                key: KEY,
                expected,
                replacement: Some(item),
            };
            self.apply(id, operation)
        }

        /// What is there, as a swap sees it that cannot succeed.
        fn value(&mut self, id: &str) -> Option<Vec<u8>> {
            match self.swap(id, Expected::Value(b"never there"), b"") {
                Outcome::NotSwapped(item) => item.map(|item| item.value),
                other => panic!("{other:?}"),
            }
        }

        fn replay(&mut self, records: Vec<Vec<u8>>) {
            let records: Vec<_> = (1..).map(Lsn).zip(records.into_iter().map(Into::into)).collect();
            apply_records(&mut self.writer, LaneId(1), NAMESPACE, &records).unwrap();
        }
    }

    /// The record of a swap that took place.
    fn swapped(id: &str, expected: ExpectedView<'_>, value: &[u8], outcome: &Outcome) -> Vec<u8> {
        let Outcome::Swapped(swapped_at) = *outcome else {
            panic!("{outcome:?}");
        };
        let item = ItemView {
            key: KEY,
            value,
            ttl: None,
            compression: 0,
        };
        let mut body = Vec::new();
        encode_compare_and_swap_request(&mut body, "events", id, KEY, None, expected, Some(&item));
        let write = LoggedWrite {
            swapped_at,
            ..LoggedWrite::example(NAMESPACE, KeyValueMethod::CompareAndSwap, &body)
        };
        write.encode()
    }

    #[test]
    fn a_swap_that_the_store_has_decided_and_forgotten_changes_nothing_when_it_comes_again() {
        let mut store = Store::new();
        let outcome = store.swap("lock", Expected::Absent, b"taken");
        let record = swapped("lock", ExpectedView::Absent, b"taken", &outcome);
        store.apply("lock", Operation::Delete(PredicateRef::Keys(&[KEY])));
        for _ in 0..prism_backends::limits::SWAPS_REMEMBERED_MAX {
            store.swap("other", Expected::Value(b"never there"), b"");
        }
        store.replay(vec![record]);
        assert_eq!(store.value("lock"), None, "it was given back");
    }

    #[test]
    fn swaps_that_took_place_come_back_whatever_is_missing_before_them() {
        let mut store = Store::new();
        let first = store.swap("counter", Expected::Absent, b"1");
        let second = store.swap("counter", Expected::Value(b"1"), b"2");
        let third = store.swap("counter", Expected::Value(b"2"), b"3");
        let first = swapped("counter", ExpectedView::Absent, b"1", &first);
        let third = swapped("counter", ExpectedView::Value(b"2"), b"3", &third);
        assert!(
            matches!(second, Outcome::Swapped(Some(_))),
            "the log could not take it"
        );
        let mut store = Store::new();
        store.replay(vec![first, third]);
        assert_eq!(store.value("counter").as_deref(), Some(&b"3"[..]));
    }
}
