//! The thread that keeps a lane supplied with segments: prepares them ahead, recycles used ones,
//! closes the lane at the end. All of it blocks on the disk, for as long as writing a whole segment
//! takes.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use prism_wal::{
    cipher::SecretKey,
    disk::file::FileDisk,
    group_commit::ClosedSegment,
    ids::LaneId,
    pool::{Durable, Pool},
    segment::SegmentSeed,
};

use super::LogEvent;
use crate::runtime::{
    clock::unix_millis,
    mailbox::Mailbox,
    threads::{self, Kind},
};

/// Most jobs that may wait; the shard has at most a few at a time.
const JOBS_MAX: usize = 64;

/// Jobs of a keeper.
#[derive(Debug)]
pub(crate) enum KeeperJob {
    /// Prepare one segment; answered by [`LogEvent::Segment`] or [`LogEvent::NoSegment`].
    Prepare(Durable),
    /// Take back a segment. Not answered.
    Recycle(ClosedSegment, Durable),
    /// Close the lane, which is drained and will not be written to any more; answered by
    /// [`LogEvent::Closed`], the keeper's last message.
    Close(Durable),
}

/// The keepers' threads, to be joined at the end.
pub(crate) type Keepers = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// The list, also after a panic: it is whole at all times.
pub(crate) fn keepers_of(keepers: &Keepers) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
    keepers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sender of a keeper's jobs. The keeper ends when it is dropped.
pub(crate) type KeeperJobs = SyncSender<KeeperJob>;

/// Starts the keeper of a lane.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn(
    lane: LaneId,
    pool: Pool<FileDisk>,
    events: Arc<Mailbox<LogEvent>>,
) -> io::Result<(KeeperJobs, JoinHandle<()>)> {
    let (sender, jobs) = sync_channel(JOBS_MAX);
    let thread = threads::spawn(Kind::Keeper, Some(lane.0), move || {
        keep(pool, &jobs, &events);
        Ok(())
    })?;
    Ok((sender, thread))
}

fn keep(mut pool: Pool<FileDisk>, jobs: &Receiver<KeeperJob>, events: &Mailbox<LogEvent>) {
    while let Ok(job) = jobs.recv() {
        if threads::fault_point(Kind::Keeper) {
            return;
        }
        let said = match job {
            KeeperJob::Prepare(durable) => {
                let prepared = seed()
                    .map_err(|_| no_randomness())
                    .and_then(|seed| pool.prepare(&seed, unix_millis().0, durable));
                match prepared {
                    Ok(prepared) => LogEvent::Segment(Box::new(prepared)),
                    Err(error) => LogEvent::NoSegment(error),
                }
            }
            KeeperJob::Recycle(segment, durable) => {
                if let Err(error) = pool.recycle(segment, durable) {
                    // The pool tries again with its next manifest; until then the file stays.
                    tracing::warn!(%error, segment = segment.segment.0, "cannot recycle a segment of the log yet");
                }
                continue;
            }
            KeeperJob::Close(durable) => {
                if let Err(error) = pool.close(durable) {
                    tracing::warn!(%error, "cannot note that the log was closed cleanly; the next start reads it through");
                }
                // A shard that has already ended needs no event.
                let _ = events.send(LogEvent::Closed);
                return;
            }
        };
        if events.send(said).is_err() {
            tracing::error!("a shard's mailbox for its log is full");
        }
    }
}

fn no_randomness() -> prism_wal::disk::DiskError {
    prism_wal::disk::DiskError {
        operation: "draw a key for",
        name: "a segment".to_owned(),
        kind: prism_wal::disk::DiskErrorKind::Io(0),
    }
}

/// Fresh randomness for one segment.
///
/// # Errors
/// When the kernel has none, which it always has once the machine is up.
pub(crate) fn seed() -> io::Result<SegmentSeed> {
    let (mut incarnation, mut key, mut wrap_nonce) = ([0; 16], [0; 32], [0; 12]);
    for bytes in [&mut incarnation[..], &mut key[..], &mut wrap_nonce[..]] {
        fill_random(bytes)?;
    }
    Ok(SegmentSeed {
        incarnation,
        data_key: SecretKey::new(key),
        wrap_nonce,
    })
}

pub(super) fn fill_random(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
        bytes = &mut bytes[count..];
    }
    Ok(())
}
