//! Stamps of the writes that a server gets, noted in SQLite's file before the server has them: a
//! start after a step back of the wall clock begins above what is noted, and asks no server.

use std::{cell::Cell, time::Duration};

use tokio::{sync::oneshot, time::timeout};

use super::apply_later::Letters;
use crate::call::job::WriterMessage;

/// Longest time that a write waits for the file.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nanoseconds of stamps for which a file that takes no note is not asked again.
const PAUSE_NS: i64 = 1_000_000_000;

/// How far the stamps of one server's writes are noted.
pub(crate) struct Stamps {
    store: String,
    /// Way to the file, which keeps dead letters as well.
    file: Letters,
    /// Stamp up to which the file needs no other note.
    noted: Cell<i64>,
}

impl Stamps {
    /// Nothing is noted yet for the server of this name.
    pub(crate) fn new(store: String, file: Letters) -> Self {
        Self {
            store,
            file,
            noted: Cell::new(i64::MIN),
        }
    }

    /// Has the file note the highest of the stamps. A note reaches a second ahead, so that one
    /// batch in a second waits for it. If the file cannot take it, the writes go on without: then a
    /// step back of the clock and a restart together could put later writes before these.
    pub(crate) async fn note(&self, stamps: impl Iterator<Item = i64>) {
        let Some(highest) = stamps.max().filter(|highest| *highest > self.noted.get()) else {
            return;
        };
        let (done, noted) = oneshot::channel();
        let Letters(mailbox) = &self.file;
        let failure = match mailbox.send(WriterMessage::NoteStamp(highest, done)) {
            Err(_) => "its mailbox is full".to_owned(),
            Ok(()) => match timeout(PATIENCE, noted).await {
                Ok(Ok(Ok(upto))) => return self.noted.set(upto),
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(_)) | Err(_) => "it does not answer".to_owned(),
            },
        };
        self.noted.set(highest.saturating_add(PAUSE_NS));
        tracing::warn!(
            store = self.store,
            failure,
            "cannot note how late this gateway has stamped writes; a start with an earlier clock may stamp below them"
        );
    }
}
