//! Records that the store could not take at the start, and calls that wait for a verdict.

use prism_backends::NamespaceId;
use prism_codec::method::Effect;
use prism_wal::{
    ids::Lsn,
    tail::{Payload, Tail},
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Waiting;
use crate::{
    api,
    call::{event::Awaited, owner::key_hash, record::LoggedWrite},
    log::{
        applier::{Applier, Note},
        links::Routes,
        parked::Judged,
    },
};

/// Judged calls among records with a waiting caller.
pub(super) fn awaited_of(records: &[(Lsn, Payload)], judged: &FxHashMap<Lsn, Judged>) -> Vec<Awaited> {
    if judged.is_empty() {
        return Vec::new();
    }
    let of = |(lsn, _): &(Lsn, Payload)| {
        let first = judged.get(lsn)?.first;
        Some(Awaited { lsn: *lsn, first })
    };
    records.iter().filter_map(of).collect()
}

/// The applier with the records that the store could not take at the start.
pub(super) fn applier_of(tail: &Tail, now: u64) -> Applier<Waiting> {
    let mut applier = Applier::default();
    for target in tail.waiting() {
        let namespace = NamespaceId(target.0);
        for (lsn, record) in tail.batch(target, usize::MAX, usize::MAX) {
            let note = note_of(namespace, lsn, record, now);
            applier.push(namespace, note);
        }
    }
    applier
}

/// Bytes that each store could not take at the start, by [`Route::index`].
///
/// [`Route::index`]: crate::log::links::Route::index
pub(super) fn unapplied_of(tail: &Tail, routes: &mut Routes) -> Vec<usize> {
    let mut bytes = vec![0; routes.count()];
    for target in tail.waiting() {
        bytes[routes.of(NamespaceId(target.0)).index()] += tail.unapplied(target).bytes;
    }
    bytes
}

fn note_of(namespace: NamespaceId, lsn: Lsn, record: &[u8], now: u64) -> Note {
    let mut note = Note {
        lsn,
        // An unreadable record changes no known key; when applied, it becomes a dead letter.
        keys: SmallVec::new(),
        judged: false,
        at: now,
    };
    let Ok(logged) = LoggedWrite::decode(namespace, record) else {
        return note;
    };
    note.judged = logged.method.spec().effect == Effect::Judged;
    if let Ok(footprint) = api::footprint(&logged) {
        let part = logged.part;
        let own = footprint
            .keys
            .iter()
            .filter(|key| part.is_none_or(|part| part.owns(namespace, key)));
        note.keys = own.map(|key| key_hash(namespace, key)).collect();
        note.keys.sort_unstable();
        note.keys.dedup();
    }
    note
}
