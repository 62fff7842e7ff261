//! Application of the log's records by the store's writer: in batches, with their position in the
//! same transaction; records refused for ever are put aside as dead letters. Runs on the writer's
//! thread, at the start and while serving.
//!
//! Only a record's API knows its effect ([`crate::api::apply`]).

use prism_backends::{
    LogId, LogPosition, NamespaceId, StoreError, UnixMillis,
    sqlite::{DeadLetter, OwnedDeadLetter, Writer},
};
use prism_wal::{
    ids::{LaneId, Lsn},
    tail::Payload,
};

use crate::{
    api,
    call::{
        error,
        event::{ApplyBatch, Awaited, Verdict},
        job::DeadLetterJob,
        record::LoggedWrite,
    },
    runtime::clock::unix_millis,
};

/// Records of one namespace, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) log: LogId,
    pub(crate) lane: LaneId,
    pub(crate) namespace: NamespaceId,
    pub(crate) records: &'a [(Lsn, Payload)],
    /// Judged calls among them with a waiting caller, in the same order.
    pub(crate) awaited: &'a [Awaited],
    pub(crate) now: UnixMillis,
}

impl<'a> Records<'a> {
    /// The records of a batch.
    pub(crate) fn of(batch: &'a ApplyBatch, now: UnixMillis) -> Self {
        Self {
            log: batch.log,
            lane: batch.lane,
            namespace: batch.namespace,
            records: &batch.records,
            awaited: &batch.awaited,
            now,
        }
    }

    pub(super) fn position(&self, lsn: Lsn) -> LogPosition {
        LogPosition {
            log: self.log,
            lane: self.lane.0,
            namespace: self.namespace,
            lsn: lsn.0,
        }
    }

    /// The records from one place to another.
    pub(super) fn range(&self, from: usize, to: usize) -> Self {
        let records = &self.records[from..to];
        let is_before = |awaited: &Awaited, at: usize| {
            let limit = self.records.get(at).map(|(lsn, _)| *lsn);
            limit.is_none_or(|limit| awaited.lsn < limit)
        };
        let first = self.awaited.partition_point(|awaited| is_before(awaited, from));
        let last = self.awaited.partition_point(|awaited| is_before(awaited, to));
        Self {
            records,
            awaited: &self.awaited[first..last.max(first)],
            ..*self
        }
    }
}

/// Result of records that were given to the store.
#[derive(Debug, Default)]
pub(crate) struct AppliedRecords {
    pub(crate) verdicts: Vec<Verdict>,
    /// Number of new dead letters.
    pub(crate) buried: u64,
}

impl AppliedRecords {
    /// One record that is a dead letter now.
    pub(super) fn buried(records: &Records<'_>, cause: &StoreError) -> Self {
        let refusal = |awaited: &Awaited| Verdict {
            lsn: awaited.lsn,
            reply: Err(error::from_store(cause)),
        };
        Self {
            verdicts: records.awaited.iter().map(refusal).collect(),
            buried: 1,
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.verdicts.extend(more.verdicts);
        self.buried += more.buried;
    }
}

/// Applies records in one transaction, with their position. A record that the store refuses for
/// ever becomes a dead letter.
///
/// Records up to the noted position were applied before, by a commit that was reported as failed or
/// in a batch that was taken apart: of them only the rest is done again, a verdict or a dead
/// letter.
///
/// # Errors
/// Temporary ones of [`StoreError`]; then nothing was applied, or it may be applied again.
pub(crate) fn apply_records(
    writer: &mut Writer,
    records: &Records<'_>,
) -> Result<AppliedRecords, StoreError> {
    let noted = Lsn(writer.noted(records.log, records.lane.0, records.namespace)?);
    let count = records.records.len();
    let known = records.records.partition_point(|(lsn, _)| *lsn <= noted);
    let mut all = AppliedRecords::default();
    for (from, to) in [(0, known), (known, count)] {
        if from < to {
            all.add(apply_at_once(writer, &records.range(from, to))?);
        }
    }
    Ok(all)
}

fn apply_at_once(writer: &mut Writer, records: &Records<'_>) -> Result<AppliedRecords, StoreError> {
    match apply_together(writer, records) {
        Err(error) if is_fault_of_a_record(&error) && records.records.len() > 1 => {
            // One record is at fault: applied alone it is found.
            let mut all = AppliedRecords::default();
            for at in 0..records.records.len() {
                all.add(apply_at_once(writer, &records.range(at, at + 1))?);
            }
            Ok(all)
        }
        Err(error) if is_fault_of_a_record(&error) => {
            bury(writer, records, 0, &error)?;
            Ok(AppliedRecords::buried(records, &error))
        }
        result => result,
    }
}

/// Whether another record might succeed: not when the store itself fails.
pub(super) fn is_fault_of_a_record(error: &StoreError) -> bool {
    match error {
        StoreError::InvalidArgument { .. }
        | StoreError::TokenReused
        | StoreError::InvalidPageToken
        | StoreError::UnknownNamespace(_)
        | StoreError::DroppedNamespace(_)
        | StoreError::Internal { .. } => true,
        StoreError::Full { .. }
        | StoreError::Busy { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Io { .. }
        | StoreError::Unopenable { .. }
        | StoreError::WrongFormat { .. }
        | StoreError::Corrupt { .. } => false,
    }
}

fn apply_together(writer: &mut Writer, records: &Records<'_>) -> Result<AppliedRecords, StoreError> {
    let Some((last, _)) = records.records.last() else {
        return Ok(AppliedRecords::default());
    };
    let logged = decode(records)?;
    let stamps = logged.iter().map(|(_, record)| record.context.stamp.time_ns);
    writer.expect_stamp(stamps.max().unwrap_or(i64::MIN));
    let batch = api::Batch {
        records: &logged,
        position: records.position(*last),
        awaited: records.awaited,
        now: records.now,
    };
    let applied = api::apply(writer, &batch)?;
    for (index, cause) in &applied.refused {
        bury(writer, records, *index, cause)?;
    }
    Ok(AppliedRecords {
        verdicts: applied.verdicts,
        buried: applied.refused.len() as u64,
    })
}

/// The records as their API reads them.
pub(super) fn decode<'a>(records: &Records<'a>) -> Result<Vec<(Lsn, LoggedWrite<'a>)>, StoreError> {
    let decode = |(lsn, record): &'a (Lsn, Payload)| {
        let record = LoggedWrite::decode(records.namespace, record).map_err(|_| api::unreadable())?;
        Ok((*lsn, record))
    };
    records.records.iter().map(decode).collect()
}

/// Keeps a record of another store that refuses it for ever.
///
/// # Errors
/// Those of SQLite's file; nothing was kept.
pub(crate) fn keep_letter(writer: &mut Writer, letter: &OwnedDeadLetter) -> Result<(), StoreError> {
    let letter = DeadLetter {
        position: letter.position,
        reason: &letter.reason,
        record: &letter.record,
    };
    writer.bury(&letter, unix_millis()).map(drop)
}

fn bury(
    writer: &mut Writer,
    records: &Records<'_>,
    index: usize,
    cause: &StoreError,
) -> Result<(), StoreError> {
    let (lsn, record) = &records.records[index];
    let reason = cause.to_string();
    tracing::error!(
        namespace = records.namespace.0,
        lsn = lsn.0,
        reason,
        "the store refuses a record for ever: kept as a dead letter"
    );
    let letter = DeadLetter {
        position: records.position(*lsn),
        reason: &reason,
        record,
    };
    writer.bury(&letter, unix_millis()).map(drop)
}

/// Serves one question about dead letters. The answer is the letters concerned.
///
/// # Errors
/// Those of the store; a letter stays if its write is still refused.
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
        let record = LoggedWrite::decode(letter.position.namespace, &letter.record);
        // The position is past it already; after a crash before the letter is dropped it is applied
        // twice, with one effect.
        api::redrive(writer, &record.map_err(|_| api::unreadable())?, now)?;
    }
    if drop {
        writer.drop_dead_letter(number)?;
    }
    Ok(vec![letter])
}

#[cfg(test)]
mod tests {
    use prism_backends::{
        Expected, ItemRef, Mutation, Operation, Outcome, PredicateRef, Version,
        sqlite::{self, Options},
    };
    use prism_codec::{
        message::keyvalue::{
            ExpectedView, ItemView, encode_compare_and_swap_request, encode_compare_and_swap_response,
            encode_put_request,
        },
        method::KeyValueMethod,
    };

    use super::*;
    use crate::{api::keyvalue, call::event::RecordId};

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

        /// Removes every trace of deletes, so that a second application shows.
        fn forget_all(&self) {
            let other = rusqlite::Connection::open(self._directory.path().join("keyvalue.db")).unwrap();
            other.execute_batch("DELETE FROM item").unwrap();
        }

        /// The stored value, read by a swap that cannot succeed.
        fn value(&mut self, id: &str) -> Option<Vec<u8>> {
            match self.swap(id, Expected::Value(b"never there"), b"") {
                Outcome::NotSwapped(item) => item.map(|found| found.item.value),
                other => panic!("{other:?}"),
            }
        }

        fn replay(&mut self, records: Vec<Vec<u8>>) {
            let records: Vec<_> = (1..).map(Lsn).zip(records.into_iter().map(Into::into)).collect();
            let records = Records {
                log: LogId(1),
                lane: LaneId(1),
                namespace: NAMESPACE,
                records: &records,
                awaited: &[],
                now: unix_millis(),
            };
            apply_records(&mut self.writer, &records).unwrap();
        }
    }

    /// The record of a swap that took place.
    fn swapped(id: &str, expected: ExpectedView<'_>, value: &[u8], outcome: &Outcome) -> Vec<u8> {
        let Outcome::Swapped(Some(version)) = *outcome else {
            panic!("{outcome:?}");
        };
        let item = ItemView {
            key: KEY,
            value,
            ttl: None,
            compression: 0,
            version: b"",
        };
        let mut body = Vec::new();
        encode_compare_and_swap_request(&mut body, "events", id, KEY, None, expected, Some(&item));
        let write = LoggedWrite {
            decided: &keyvalue::writes::decided(version),
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

    #[test]
    fn a_batch_that_was_applied_before_is_applied_once_and_owes_its_verdicts() {
        let mut store = Store::new();
        let item = |value| ItemView {
            key: KEY,
            value,
            ttl: None,
            compression: 0,
            version: b"",
        };
        let swap = |id| {
            let mut body = Vec::new();
            let item = item(b"swapped");
            encode_compare_and_swap_request(
                &mut body,
                "events",
                id,
                KEY,
                None,
                ExpectedView::Absent,
                Some(&item),
            );
            LoggedWrite::example(NAMESPACE, KeyValueMethod::CompareAndSwap, &body).encode()
        };
        let put = |id, value| {
            let mut body = Vec::new();
            encode_put_request(&mut body, "events", id, None, [item(value)]);
            LoggedWrite::example(NAMESPACE, KeyValueMethod::Put, &body).encode()
        };
        let records = [
            swap("first"),
            put("first", b"put"),
            b"of a newer version".to_vec(),
            put("later", b"put"),
        ];
        let records: Vec<_> = (1..).map(Lsn).zip(records.map(Payload::from)).collect();
        let first = RecordId {
            lane: LaneId(1),
            lsn: Lsn(1),
        };
        let awaited = [Awaited { lsn: Lsn(1), first }];
        let apply = |store: &mut Store, records: &[(Lsn, Payload)]| {
            let records = Records {
                log: LogId(1),
                lane: LaneId(1),
                namespace: NAMESPACE,
                records,
                awaited: &awaited,
                now: UnixMillis(1),
            };
            apply_records(&mut store.writer, &records).expect("a store in order")
        };
        let verdicts = |applied: &AppliedRecords| -> Vec<_> {
            let verdicts = applied.verdicts.iter();
            verdicts
                .map(|verdict| (verdict.lsn, verdict.reply.clone().expect("a reply")))
                .collect()
        };
        let once = apply(&mut store, &records[..3]);
        assert_eq!((once.verdicts.len(), once.buried), (1, 1));
        assert_eq!(store.value("first").as_deref(), Some(&b"swapped"[..]));
        store.apply("first", Operation::Delete(PredicateRef::All));
        store.forget_all();
        // The commit was reported as failed, so the batch is sent again, together with records
        // logged since.
        let again = apply(&mut store, &records);
        assert_eq!(verdicts(&again), verdicts(&once));
        assert_eq!(store.value("first"), None, "it is not there a second time");
        assert_eq!(store.value("later").as_deref(), Some(&b"put"[..]));
        assert_eq!(store.writer.dead_letter_counts(), Ok(vec![(NAMESPACE, 1)]));
    }
    #[test]
    fn a_verdict_is_that_of_its_own_swap_also_after_one_that_nobody_waits_for() {
        let swap = |id, expected| {
            let mut body = Vec::new();
            let item = ItemView {
                key: KEY,
                value: b"swapped",
                ttl: None,
                compression: 0,
                version: b"",
            };
            encode_compare_and_swap_request(&mut body, "events", id, KEY, None, expected, Some(&item));
            LoggedWrite::example(NAMESPACE, KeyValueMethod::CompareAndSwap, &body).encode()
        };
        // The caller of the first has gone; the second finds nothing of what it expects.
        let records = [
            swap("first", ExpectedView::Absent),
            swap("second", ExpectedView::Value(b"never there")),
        ];
        let records: Vec<_> = (1..).map(Lsn).zip(records.map(Payload::from)).collect();
        let first = RecordId {
            lane: LaneId(1),
            lsn: Lsn(2),
        };
        let records = Records {
            log: LogId(1),
            lane: LaneId(1),
            namespace: NAMESPACE,
            records: &records,
            awaited: &[Awaited { lsn: Lsn(2), first }],
            now: UnixMillis(1),
        };
        let mut store = Store::new();
        let applied = apply_records(&mut store.writer, &records).expect("a store in order");
        let mut refused = Vec::new();
        encode_compare_and_swap_response(&mut refused, false, None, None);
        let replies: Vec<_> = applied
            .verdicts
            .into_iter()
            .map(|verdict| verdict.reply)
            .collect();
        assert_eq!(replies, [Ok(refused)]);
    }
}
