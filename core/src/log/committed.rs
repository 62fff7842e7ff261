//! Writes at `eventual` on their way from the store to the log.
//!
//! ```text
//!   store's writer: commit ─► Committed::push, in the order of the commit ─┬─► mailbox of shard 0 ─► lane 1
//!                                                                          └─► mailbox of shard 1 ─► lane 2
//! ```
//!
//! One thread commits, and the record of a write goes to the shard that owns its key, whichever
//! took the call. So the records of a key are in one lane, in the order in which the store took the
//! writes, and a start applies them in that order. The record of a swap holds its effect: its
//! version in the store. So it has the same effect again, whatever the store has kept or the log
//! could not take; a store that has it is not changed.
//!
//! No call waits for these records: a full mailbox loses them, not the writes, and they are
//! counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prism_backends::NamespaceId;
use smallvec::SmallVec;

use crate::{
    call::{
        owner::owner_of,
        record::{LoggedWrite, Part},
    },
    metrics::LogMetrics,
    runtime::mailbox::{Mailbox, Waker},
};

/// Most commits with records that wait for one shard. A shard that does not get its core for most
/// of a second must not lose any.
const COMMITS_MAX: usize = 8_192;
/// Most bytes of these records.
const BYTES_MAX: usize = 32 << 20;

/// The record of a write that the store has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedRecord {
    pub(crate) namespace: NamespaceId,
    /// The record, as in [`super::record`].
    pub(crate) record: Vec<u8>,
}

/// A shard's mailbox for such records, of one commit in each message. One thread sends.
#[derive(Debug)]
pub(crate) struct RecordsMailbox {
    mailbox: Mailbox<Vec<CommittedRecord>>,
    /// Bytes of the records in it.
    bytes: AtomicUsize,
}

/// Mailboxes to the log of one shard.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) mailbox: Arc<RecordsMailbox>,
    pub(crate) metrics: Arc<LogMetrics>,
}

impl RecordsMailbox {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self {
            mailbox: Mailbox::new(COMMITS_MAX, waker),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Queues records; see [`Mailbox::push`].
    fn push(&self, records: Vec<CommittedRecord>) -> Result<(), Vec<CommittedRecord>> {
        let bytes = bytes_of(&records);
        if self.bytes.load(Ordering::Relaxed) + bytes > BYTES_MAX {
            return Err(records);
        }
        // Before the push: the receiver must not subtract bytes that were not added yet.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.mailbox.push(records).inspect_err(|_| {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    /// Wakes the receiver; see [`Mailbox::wake`].
    pub(crate) fn wake(&self) {
        self.mailbox.wake();
    }

    /// Takes the oldest records; see [`Mailbox::receive`].
    pub(crate) fn receive(&self) -> Option<Vec<CommittedRecord>> {
        let records = self.mailbox.receive()?;
        self.bytes.fetch_sub(bytes_of(&records), Ordering::Relaxed);
        Some(records)
    }

    /// Whether no records wait; see [`Mailbox::is_empty`].
    pub(crate) fn is_empty(&self) -> bool {
        self.mailbox.is_empty()
    }
}

fn bytes_of(records: &[CommittedRecord]) -> usize {
    records.iter().map(|committed| committed.record.len()).sum()
}

/// Records of one commit, by the shard that owns them.
#[derive(Debug)]
pub(crate) struct Committed {
    by_shard: Vec<Vec<CommittedRecord>>,
}

impl Committed {
    /// Makes an empty collection for a gateway with this many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            by_shard: vec![Vec::new(); shards],
        }
    }

    /// Adds a write that changed these ids. Each shard that owns one of them gets a record; if
    /// there are several, of its part.
    pub(crate) fn push<'a>(&mut self, write: &LoggedWrite<'_>, changed: impl Iterator<Item = &'a str>) {
        let namespace = write.context.namespace;
        let shards = self.by_shard.len() as u16;
        let mut owners: SmallVec<[u16; 1]> = changed.map(|id| owner_of(namespace, id, shards)).collect();
        owners.sort_unstable();
        owners.dedup();
        for &shard in &owners {
            let part = (owners.len() > 1).then_some(Part { shards, shard });
            let record = LoggedWrite { part, ..*write }.encode();
            self.by_shard[usize::from(shard)].push(CommittedRecord { namespace, record });
        }
    }

    /// Puts the records into the mailboxes of their owners, by shard. The caller wakes the shards.
    pub(crate) fn hand_over(&mut self, outlets: &[Outlet]) {
        for (records, outlet) in self.by_shard.iter_mut().zip(outlets) {
            if records.is_empty() {
                continue;
            }
            if let Err(records) = outlet.mailbox.push(std::mem::take(records)) {
                outlet.metrics.eventual_shed.add(records.len() as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_codec::method::KeyValueMethod;

    const NAMESPACE: NamespaceId = NamespaceId(1);

    fn write(method: KeyValueMethod, body: &[u8]) -> LoggedWrite<'_> {
        LoggedWrite::example(NAMESPACE, method, body)
    }

    /// Contents of a shard's records: the body and the part.
    fn of_shard(committed: &Committed, shard: usize) -> Vec<(&[u8], Option<Part>)> {
        let records = committed.by_shard[shard].iter().map(|committed| {
            let logged = LoggedWrite::decode(committed.namespace, &committed.record).unwrap();
            (logged.body, logged.part)
        });
        records.collect()
    }

    /// Two ids of each of two shards.
    fn ids() -> [[String; 2]; 2] {
        [0, 1].map(|shard| {
            let mut own = (0..)
                .map(|number| format!("id-{number}"))
                .filter(|id| owner_of(NAMESPACE, id, 2) == shard);
            [0, 1].map(|_| own.next().unwrap())
        })
    }

    #[test]
    fn a_write_goes_to_the_owners_of_what_it_changed_in_order() {
        let [[a, b], [c, _]] = ids();
        let mut committed = Committed::new(2);
        committed.push(&write(KeyValueMethod::CompareAndSwap, b"1"), [&*a].into_iter());
        committed.push(&write(KeyValueMethod::CompareAndSwap, b"2"), [&*c].into_iter());
        committed.push(
            &write(KeyValueMethod::CompareAndSwap, b"without effect"),
            [].into_iter(),
        );
        committed.push(&write(KeyValueMethod::Mutate, b"3"), [&*a, &*b].into_iter());
        committed.push(&write(KeyValueMethod::Mutate, b"4"), [&*a, &*c, &*b].into_iter());
        let part = |shard| Some(Part { shards: 2, shard });
        let first: [(&[u8], _); 3] = [(b"1", None), (b"3", None), (b"4", part(0))];
        let second: [(&[u8], _); 2] = [(b"2", None), (b"4", part(1))];
        assert_eq!(of_shard(&committed, 0), first);
        assert_eq!(of_shard(&committed, 1), second);
    }

    #[test]
    fn a_full_mailbox_costs_the_records_and_is_counted() {
        let [[a, _], [c, _]] = ids();
        let outlets = [0, 1].map(|_| Outlet {
            mailbox: Arc::new(RecordsMailbox::new(Waker::new().unwrap())),
            metrics: Arc::default(),
        });
        let large = vec![0; BYTES_MAX / 3];
        let mut committed = Committed::new(2);
        for _ in 0..2 {
            for body in [&large[..], b"small"] {
                committed.push(&write(KeyValueMethod::Put, body), [&*a].into_iter());
                committed.push(&write(KeyValueMethod::Put, b"small"), [&*c].into_iter());
            }
            committed.push(&write(KeyValueMethod::Put, &large), [&*a].into_iter());
            committed.hand_over(&outlets);
        }
        let shed = outlets
            .each_ref()
            .map(|outlet| outlet.metrics.eventual_shed.value());
        assert_eq!(shed, [3, 0], "the second commit did not fit");
        let received = outlets
            .each_ref()
            .map(|outlet| std::iter::from_fn(|| outlet.mailbox.receive()).flatten().count());
        assert_eq!(received, [3, 4]);
        committed.push(&write(KeyValueMethod::Put, &large), [&*a].into_iter());
        committed.hand_over(&outlets);
        assert!(!outlets[0].mailbox.is_empty(), "there is room again");
    }
}
