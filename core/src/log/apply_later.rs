//! Records of the log against a store that answers later, such as a server: as [`super::apply`]
//! gives them to SQLite's file.
//!
//! What a server refuses for ever is kept in SQLite's file, which every gateway with a log has. The
//! letter comes first, then the server's position: a crash between the two makes the letter come
//! again, and it is known by its place.

use std::sync::Arc;

use prism_backends::{StoreError, api::Stores, sqlite::OwnedDeadLetter};
use prism_wal::ids::{LaneId, Lsn};
use tokio::sync::oneshot;

use super::{
    apply::{AppliedRecords, Records, decode, is_fault_of_a_record},
    stamps::Stamps,
};
use crate::{api, call::job::WriterMessage, runtime::clock::unix_millis, runtime::mailbox::Mailbox};

/// Way to the file with the dead letters.
#[derive(Debug, Clone)]
pub(crate) struct Letters(pub(crate) Arc<Mailbox<WriterMessage>>);

/// A store, and what it refuses for ever.
pub(crate) struct Target<'a> {
    pub(crate) stores: &'a Stores,
    pub(crate) letters: &'a Letters,
    pub(crate) stamps: &'a Stamps,
    /// Lane of the records, for people; that of their positions may be another number.
    pub(crate) lane: LaneId,
}

impl Target<'_> {
    /// Applies records, those up to `noted` apart: of them only what is owed is done once more.
    ///
    /// # Errors
    /// Those of [`StoreError`] that may pass; then nothing was applied, or it may be applied again.
    pub(crate) async fn apply(
        &self,
        records: &Records<'_>,
        noted: Lsn,
    ) -> Result<AppliedRecords, StoreError> {
        let count = records.records.len();
        let known = records.records.partition_point(|(lsn, _)| *lsn <= noted);
        let mut all = AppliedRecords::default();
        for (from, to) in [(0, known), (known, count)] {
            if from == to {
                continue;
            }
            match self.apply_together(&records.range(from, to)).await {
                Err(error) if is_fault_of_a_record(&error) => {
                    // One of them is at fault; alone it shows itself.
                    for at in from..to {
                        all.add(self.apply_alone(&records.range(at, at + 1)).await?);
                    }
                }
                result => all.add(result?),
            }
        }
        Ok(all)
    }

    async fn apply_alone(&self, record: &Records<'_>) -> Result<AppliedRecords, StoreError> {
        match self.apply_together(record).await {
            Err(error) if is_fault_of_a_record(&error) => {
                self.bury(record, 0, &error).await?;
                let position = record.position(record.records[0].0);
                self.stores.note(&position).await?;
                Ok(AppliedRecords::buried(record, &error))
            }
            result => result,
        }
    }

    async fn apply_together(&self, records: &Records<'_>) -> Result<AppliedRecords, StoreError> {
        let Some((last, _)) = records.records.last() else {
            return Ok(AppliedRecords::default());
        };
        let logged = decode(records)?;
        let batch = api::Batch {
            records: &logged,
            position: records.position(*last),
            awaited: records.awaited,
            now: records.now,
        };
        let stamps = logged.iter().map(|(_, record)| record.context.stamp.time_ns);
        self.stamps.note(stamps).await;
        let applied = api::apply_later(self.stores, &batch).await?;
        for (index, cause) in &applied.refused {
            self.bury(records, *index, cause).await?;
        }
        Ok(AppliedRecords {
            verdicts: applied.verdicts,
            buried: applied.refused.len() as u64,
        })
    }

    async fn bury(&self, records: &Records<'_>, index: usize, cause: &StoreError) -> Result<(), StoreError> {
        let (lsn, record) = &records.records[index];
        let reason = cause.to_string();
        tracing::error!(
            namespace = records.namespace.0,
            lsn = lsn.0,
            reason,
            "the store refuses a record for ever: kept as a dead letter"
        );
        let mut position = records.position(*lsn);
        position.lane = self.lane.0;
        let letter = OwnedDeadLetter {
            number: 0,
            position,
            time: unix_millis(),
            reason,
            record: record.to_vec(),
        };
        let (done, kept) = oneshot::channel();
        let busy = |detail: &str| StoreError::Busy {
            detail: detail.to_owned(),
        };
        let Letters(mailbox) = self.letters;
        mailbox
            .send(WriterMessage::Bury(Box::new(letter), done))
            .map_err(|_| busy("the mailbox of the dead letters is full"))?;
        kept.await
            .map_err(|_| busy("the thread of the dead letters has ended"))?
    }
}
