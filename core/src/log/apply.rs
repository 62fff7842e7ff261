//! Records of the log against the store's writer: in batches, with their position in the same transaction, and what the
//! store refuses for ever put aside as dead letters. Runs where the writer lives, at the start and while serving.

use std::sync::Arc;

use prism_backends::{
    NamespaceId, Outcome, StoreError,
    sqlite::{DeadLetter, OwnedDeadLetter, StreamPosition, Writer},
};
use prism_wal::ids::{LaneId, Lsn};

use super::record::LoggedWrite;
use crate::gateway::{job::DeadLetterJob, keyvalue, route::Method, unix_millis};

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
fn must_be_kept(method: Method, cause: &StoreError) -> bool {
    match cause {
        StoreError::DroppedNamespace(_) => false,
        StoreError::InvalidArgument { .. } => method != Method::Mutate,
        _ => method != Method::CompareAndSwap,
    }
}

fn apply_together(
    writer: &mut Writer,
    lane: LaneId,
    namespace: NamespaceId,
    records: &[(Lsn, Arc<[u8]>)],
) -> Result<AppliedRecords, StoreError> {
    let mut writes = Vec::with_capacity(records.len());
    for (lsn, record) in records {
        let logged = LoggedWrite::decode(namespace, record).map_err(|_| unreadable())?;
        writes.push((*lsn, logged.method, logged.writes().map_err(|_| unreadable())?));
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
    writer.apply_at(&mutations, &[position], unix_millis(), &mut outcomes)?;
    let mut outcomes = outcomes.into_iter();
    let mut applied = AppliedRecords::default();
    for ((lsn, method, writes), (_, record)) in writes.iter().zip(records) {
        let mut refused = None;
        for outcome in outcomes.by_ref().take(writes.mutations.len()) {
            match outcome {
                Outcome::Refused(cause) if must_be_kept(*method, &cause) => refused = Some(cause),
                outcome if *method == Method::CompareAndSwap => applied.swaps.push((*lsn, outcome)),
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
        let record = LoggedWrite::decode(namespace, &letter.record).and_then(|logged| logged.writes());
        let writes = record.map_err(|_| unreadable())?;
        let mutations: Vec<_> = writes
            .mutations
            .iter()
            .map(keyvalue::Prepared::mutation)
            .collect();
        let mut outcomes = Vec::new();
        // The position is behind it already; a crash before the letter is dropped makes it come twice, with one effect.
        writer.apply(&mutations, unix_millis(), &mut outcomes)?;
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
