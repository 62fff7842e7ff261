//! Records of a shard's log that the store has yet to apply: their ids, the batches in flight, and
//! the waiting calls.
//!
//! Pure: time is an argument, records are in the lane's tail. One batch for each namespace is in
//! flight at a time, so the store sees a namespace's records in order. After a failure the
//! namespace is tried again after a pause that doubles; other namespaces are unaffected.
//!
//! Only judged calls, and some reads, wait for a record to be applied. So records gather for a few
//! milliseconds first: a transaction for each would take the processor from waiting calls.

use std::{collections::VecDeque, time::Duration};

use prism_backends::NamespaceId;
use prism_wal::ids::Lsn;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{clock::nanos, links::Sent};

/// Longest time for which a record without a waiting call gathers others before it is sent to the
/// store.
const GATHER_PAUSE: Duration = Duration::from_millis(5);
/// Number of a namespace's records that are sent without gathering more.
const GATHER_RECORDS: usize = 256;
/// Most records of one id that a read takes along. If the store lags, a busy id may have hundreds
/// of thousands; then the read waits for the store instead of delaying all others.
const OVERLAY_RECORDS_MAX: usize = 256;
/// First pause after a failed batch.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The end of the gateway does not wait for a server that has refused a namespace's batch as often
/// as that.
const FAILURES_GIVEN_UP: u32 = 4;
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A record in the applier's memory.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) lsn: Lsn,
    /// Hashes of the ids that it may change ([`crate::call::owner::key_hash`]).
    pub(crate) keys: SmallVec<[u64; 1]>,
    /// Whether it is a judged call, whose effect is known only when it has been applied.
    pub(crate) judged: bool,
    /// Time of the append, in nanoseconds of the shard's clock.
    pub(crate) at: u64,
}

/// Records that a read of one id must take into account.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// None: the store has them all.
    None,
    /// These records, in order.
    Records(SmallVec<[Lsn; 2]>),
    /// A judged call is not applied yet, or too many records are not: the read waits until the
    /// store has this one.
    Await(Lsn),
}

/// One namespace.
#[derive(Debug)]
struct Target<W> {
    notes: VecDeque<Note>,
    /// Number of judged calls among them.
    judged: usize,
    under_way: bool,
    failures: u32,
    retry_at: u64,
    waiting: VecDeque<(Lsn, W)>,
}

impl<W> Default for Target<W> {
    fn default() -> Self {
        Self {
            notes: VecDeque::new(),
            judged: 0,
            under_way: false,
            failures: 0,
            retry_at: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl<W> Target<W> {
    fn is_judged(&self, lsn: Lsn) -> bool {
        if self.judged == 0 {
            return false;
        }
        let at = self.notes.binary_search_by_key(&lsn, |note| note.lsn);
        at.is_ok_and(|at| self.notes[at].judged)
    }

    /// Time at which the next batch is to be sent; `None` if there are no records, or a batch is in
    /// flight.
    fn due_at(&self, durable: Lsn) -> Option<u64> {
        let first = self.notes.front().filter(|note| note.lsn <= durable)?;
        if self.under_way {
            return None;
        }
        let waited_for = self.judged > 0 || !self.waiting.is_empty() || self.notes.len() >= GATHER_RECORDS;
        if waited_for {
            return Some(self.retry_at);
        }
        Some(self.retry_at.max(first.at.saturating_add(nanos(GATHER_PAUSE))))
    }
}

/// The applier's state. `W` is the type of waiters for a record to be applied.
#[derive(Debug)]
pub(crate) struct Applier<W> {
    targets: FxHashMap<u32, Target<W>>,
    /// Namespaces with records to apply.
    active: Vec<u32>,
    by_key: FxHashMap<u64, SmallVec<[(u32, Lsn); 2]>>,
}

impl<W> Default for Applier<W> {
    fn default() -> Self {
        Self {
            targets: FxHashMap::default(),
            active: Vec::new(),
            by_key: FxHashMap::default(),
        }
    }
}

impl<W> Applier<W> {
    /// Notes an appended record.
    pub(crate) fn push(&mut self, namespace: NamespaceId, note: Note) {
        for key in &note.keys {
            self.by_key.entry(*key).or_default().push((namespace.0, note.lsn));
        }
        let target = self.targets.entry(namespace.0).or_default();
        if target.notes.is_empty() {
            self.active.push(namespace.0);
        }
        target.judged += usize::from(note.judged);
        target.notes.push_back(note);
    }

    /// Records up to `durable` that a read of the id with this hash must see in addition to the
    /// store's contents.
    pub(crate) fn overlay(&self, namespace: NamespaceId, key: u64, durable: Lsn) -> Overlay {
        let Some(found) = self.by_key.get(&key) else {
            return Overlay::None;
        };
        let Some(target) = self.targets.get(&namespace.0) else {
            return Overlay::None;
        };
        let mut seen = found
            .iter()
            .filter(|(owner, lsn)| *owner == namespace.0 && *lsn <= durable)
            .map(|(_, lsn)| *lsn);
        if found.len() > OVERLAY_RECORDS_MAX {
            return seen.next_back().map_or(Overlay::None, Overlay::Await);
        }
        let records: SmallVec<[Lsn; 2]> = seen.collect();
        match records.iter().rfind(|lsn| target.is_judged(**lsn)) {
            Some(lsn) => Overlay::Await(*lsn),
            None if records.is_empty() => Overlay::None,
            None => Overlay::Records(records),
        }
    }

    /// The last record of a namespace up to `durable` that is not applied.
    pub(crate) fn last_unapplied(&self, namespace: NamespaceId, durable: Lsn) -> Option<Lsn> {
        let notes = &self.targets.get(&namespace.0)?.notes;
        let count = notes.partition_point(|note| note.lsn <= durable);
        count.checked_sub(1).map(|last| notes[last].lsn)
    }

    /// Keeps `waiting` until [`Applier::handle_applied`] covers `lsn`.
    pub(crate) fn wait(&mut self, namespace: NamespaceId, lsn: Lsn, waiting: W) {
        let queue = &mut self.targets.entry(namespace.0).or_default().waiting;
        let at = queue.partition_point(|(before, _)| *before <= lsn);
        queue.insert(at, (lsn, waiting));
    }

    /// Sends due batches. Calls `send` for each namespace with a due batch, or with `all` for each
    /// that may send one.
    pub(crate) fn send_due(
        &mut self,
        now: u64,
        durable: Lsn,
        all: bool,
        mut send: impl FnMut(NamespaceId) -> Sent,
    ) {
        for namespace in &self.active {
            let Some(target) = self.targets.get_mut(namespace) else {
                continue;
            };
            if let Some(at) = target.due_at(durable)
                && (at <= now || (all && target.retry_at <= now))
            {
                match send(NamespaceId(*namespace)) {
                    Sent::Yes => target.under_way = true,
                    Sent::Nothing => {}
                    Sent::NoRoom => target.retry_at = now.saturating_add(nanos(PAUSE_MIN)),
                    Sent::NoStore => {
                        target.failures = target.failures.saturating_add(1);
                        target.retry_at = now.saturating_add(nanos(PAUSE_MAX));
                    }
                }
            }
        }
    }

    /// Time at which [`Applier::send_due`] next has a batch to send, if no event comes before.
    pub(crate) fn next_due(&self, durable: Lsn) -> Option<u64> {
        let due = |namespace| self.targets.get(namespace)?.due_at(durable);
        self.active.iter().filter_map(due).min()
    }

    /// Handles that the store has all records of a namespace up to `upto`: passes on each record's
    /// time of append, and its waiters.
    pub(crate) fn handle_applied(
        &mut self,
        namespace: NamespaceId,
        upto: Lsn,
        mut applied: impl FnMut(u64),
        mut released: impl FnMut(W),
    ) {
        let Some(target) = self.targets.get_mut(&namespace.0) else {
            return;
        };
        target.under_way = false;
        target.failures = 0;
        while let Some(note) = target.notes.pop_front_if(|note| note.lsn <= upto) {
            target.judged -= usize::from(note.judged);
            applied(note.at);
            for key in &note.keys {
                // All records of the batch with this id are removed together with the first of
                // them.
                if let Some(found) = self.by_key.get_mut(key)
                    && found.first().is_some_and(|(_, lsn)| *lsn <= upto)
                {
                    found.retain(|(owner, lsn)| *owner != namespace.0 || *lsn > upto);
                    if found.is_empty() {
                        self.by_key.remove(key);
                    }
                }
            }
        }
        while let Some((_, waiting)) = target.waiting.pop_front_if(|(lsn, _)| *lsn <= upto) {
            released(waiting);
        }
        if target.notes.is_empty() {
            self.active.retain(|active| *active != namespace.0);
            self.targets.remove(&namespace.0);
        }
    }

    /// Handles a batch that the store could not apply. Returns how long the namespace waits now.
    pub(crate) fn handle_not_applied(&mut self, namespace: NamespaceId, now: u64) -> Duration {
        let Some(target) = self.targets.get_mut(&namespace.0) else {
            return Duration::ZERO;
        };
        let pause = PAUSE_MIN
            .saturating_mul(1 << target.failures.min(16))
            .min(PAUSE_MAX);
        target.under_way = false;
        target.failures = target.failures.saturating_add(1);
        target.retry_at = now.saturating_add(nanos(pause));
        pause
    }

    /// Number of namespaces with a failed last batch.
    pub(crate) fn failing(&self) -> usize {
        self.targets.values().filter(|target| target.failures > 0).count()
    }

    /// Whether all that is not applied is of namespaces that `may_wait` and have failed often.
    pub(crate) fn only_failing(&self, mut may_wait: impl FnMut(NamespaceId) -> bool) -> bool {
        let mut active = self.active.iter();
        active.all(|namespace| {
            let target = self.targets.get(namespace);
            target.is_none_or(|target| target.failures >= FAILURES_GIVEN_UP)
                && may_wait(NamespaceId(*namespace))
        })
    }

    /// Time of append of the oldest record that is not applied.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let first = |target: &Target<W>| target.notes.front().map(|note| note.at);
        self.targets.values().filter_map(first).min()
    }

    /// Whether all records are applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Whether a namespace has records to apply.
    pub(crate) fn has(&self, namespace: NamespaceId) -> bool {
        self.targets.contains_key(&namespace.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NamespaceId = NamespaceId(1);
    const TWO: NamespaceId = NamespaceId(2);

    /// A time after which everything has gathered long enough.
    const LATER: u64 = 1_000_000_000;

    fn note(lsn: u64, key: u64, judged: bool) -> Note {
        Note {
            lsn: Lsn(lsn),
            keys: SmallVec::from_slice(&[key]),
            judged,
            at: lsn * 10,
        }
    }

    fn sent(applier: &mut Applier<u8>, now: u64, durable: u64) -> Vec<u32> {
        let mut sent = Vec::new();
        applier.send_due(now, Lsn(durable), false, |namespace| {
            sent.push(namespace.0);
            Sent::Yes
        });
        sent
    }

    #[test]
    fn reads_see_what_is_durable_and_not_applied_and_nothing_else() {
        let mut applier = Applier::<u8>::default();
        applier.push(ONE, note(1, 7, false));
        applier.push(TWO, note(2, 7, false));
        applier.push(ONE, note(3, 7, false));
        applier.push(ONE, note(4, 8, true));
        assert_eq!(applier.overlay(ONE, 7, Lsn(0)), Overlay::None);
        let seen = |lsns: &[Lsn]| Overlay::Records(SmallVec::from_slice(lsns));
        assert_eq!(applier.overlay(ONE, 7, Lsn(2)), seen(&[Lsn(1)]));
        assert_eq!(applier.overlay(ONE, 7, Lsn(9)), seen(&[Lsn(1), Lsn(3)]));
        assert_eq!(applier.overlay(ONE, 8, Lsn(3)), Overlay::None);
        assert_eq!(applier.overlay(ONE, 8, Lsn(4)), Overlay::Await(Lsn(4)));
        assert_eq!(applier.last_unapplied(ONE, Lsn(3)), Some(Lsn(3)));
        let mut times = Vec::new();
        applier.handle_applied(ONE, Lsn(3), |at| times.push(at), |_| {});
        assert_eq!(times, [10, 30]);
        assert_eq!(applier.overlay(ONE, 7, Lsn(9)), Overlay::None);
        assert_eq!(applier.overlay(TWO, 7, Lsn(9)), seen(&[Lsn(2)]));
        applier.handle_applied(ONE, Lsn(4), |_| {}, |_| {});
        applier.handle_applied(TWO, Lsn(2), |_| {}, |_| {});
        assert!(applier.is_empty() && applier.by_key.is_empty() && applier.targets.is_empty());
    }

    #[test]
    fn one_batch_at_a_time_and_those_who_wait_are_released_in_order() {
        let mut applier = Applier::default();
        applier.push(ONE, note(1, 7, false));
        applier.push(ONE, note(2, 7, false));
        assert_eq!(sent(&mut applier, LATER, 0), [0_u32; 0], "nothing is durable");
        assert_eq!(sent(&mut applier, LATER, 1), [1]);
        assert_eq!(sent(&mut applier, LATER, 2), [0_u32; 0], "one is under way");
        applier.wait(ONE, Lsn(2), b'b');
        applier.wait(ONE, Lsn(1), b'a');
        let mut released = Vec::new();
        applier.handle_applied(ONE, Lsn(1), |_| {}, |waiting| released.push(waiting));
        assert_eq!(released, [b'a']);
        assert_eq!(sent(&mut applier, LATER, 2), [1]);
        applier.handle_applied(ONE, Lsn(2), |_| {}, |waiting| released.push(waiting));
        assert_eq!(released, [b'a', b'b']);
    }

    #[test]
    fn a_read_of_an_id_with_very_many_records_waits_for_the_store() {
        let mut applier = Applier::<u8>::default();
        let many = OVERLAY_RECORDS_MAX as u64 + 1;
        for lsn in 1..=many {
            applier.push(ONE, note(lsn, 7, false));
        }
        assert_eq!(applier.overlay(ONE, 7, Lsn(0)), Overlay::None);
        assert_eq!(applier.overlay(ONE, 7, Lsn(5)), Overlay::Await(Lsn(5)));
        assert_eq!(applier.overlay(ONE, 7, Lsn(many)), Overlay::Await(Lsn(many)));
        applier.handle_applied(ONE, Lsn(1), |_| {}, |_| {});
        let Overlay::Records(seen) = applier.overlay(ONE, 7, Lsn(many)) else {
            panic!("as many as a read takes along");
        };
        assert_eq!((seen.len(), seen[0]), (OVERLAY_RECORDS_MAX, Lsn(2)));
        applier.handle_applied(ONE, Lsn(many), |_| {}, |_| {});
        assert!(applier.by_key.is_empty());
    }

    #[test]
    fn records_gather_until_somebody_waits_or_there_are_many_or_time_is_up() {
        let mut applier = Applier::default();
        applier.push(ONE, note(1, 7, false));
        let due = 10 + nanos(GATHER_PAUSE);
        assert_eq!(applier.next_due(Lsn(0)), None, "nothing is durable");
        assert_eq!(applier.next_due(Lsn(1)), Some(due));
        assert_eq!(sent(&mut applier, due - 1, 1), [0_u32; 0]);
        assert_eq!(sent(&mut applier, due, 1), [1]);
        applier.handle_applied(ONE, Lsn(1), |_| {}, |_| {});

        applier.push(ONE, note(2, 7, false));
        applier.wait(ONE, Lsn(2), b'r');
        assert_eq!(sent(&mut applier, 20, 2), [1], "a reader waits");
        applier.handle_applied(ONE, Lsn(2), |_| {}, |_| {});

        applier.push(ONE, note(3, 7, false));
        applier.push(ONE, note(4, 8, true));
        assert_eq!(sent(&mut applier, 30, 4), [1], "the caller of a swap waits");
        applier.handle_applied(ONE, Lsn(4), |_| {}, |_| {});

        let many = GATHER_RECORDS as u64;
        for lsn in 5..4 + many {
            applier.push(ONE, note(lsn, lsn, false));
        }
        assert_eq!(sent(&mut applier, 50, 100), [0_u32; 0]);
        applier.push(ONE, note(4 + many, 7, false));
        assert_eq!(sent(&mut applier, 50, 100), [1], "there are many");
        applier.handle_applied(ONE, Lsn(4 + many), |_| {}, |_| {});

        applier.push(ONE, note(5 + many, 7, false));
        let mut sent = 0;
        applier.send_due(0, Lsn(5 + many), true, |_| {
            sent += 1;
            Sent::Yes
        });
        assert_eq!(sent, 1, "the end does not wait");
    }

    #[test]
    fn a_store_in_trouble_is_asked_again_after_pauses_that_grow_and_others_go_on() {
        let mut applier = Applier::<u8>::default();
        applier.push(ONE, note(1, 7, false));
        applier.push(TWO, note(2, 8, false));
        assert_eq!(sent(&mut applier, LATER, 2), [1, 2]);
        assert_eq!(applier.handle_not_applied(ONE, LATER), PAUSE_MIN);
        applier.handle_applied(TWO, Lsn(2), |_| {}, |_| {});
        let retry = applier.next_due(Lsn(2)).unwrap();
        assert_eq!(retry, LATER + nanos(PAUSE_MIN));
        assert_eq!(sent(&mut applier, retry - 1, 2), [0_u32; 0]);
        assert_eq!(sent(&mut applier, retry, 2), [1]);
        assert_eq!(applier.next_due(Lsn(2)), None, "under way");
        assert_eq!(applier.handle_not_applied(ONE, retry), PAUSE_MIN * 2);
        assert_eq!(applier.failing(), 1);
        for _ in 0..40 {
            assert!(applier.handle_not_applied(ONE, 0) <= PAUSE_MAX);
        }
    }
}
